/* The deterministic CBOR writer and its strict reader. Called where something is hashed, signed or
 * stored for ever (action, record). It must never have two ways of writing the same value, nor read
 * two spellings as one. */
#include "wire/cbor.h"

size_t cs_cbor_head(enum cs_cbor_major major, uint64_t argument,
                    uint8_t out[static CS_CBOR_HEAD_MAX])
{
    uint8_t top = (uint8_t)((unsigned)major << 5);
    size_t n;
    if (argument < 24) {
        out[0] = (uint8_t)(top | argument);
        return 1;
    }
    if (argument <= UINT8_MAX) {
        out[0] = top | 24;
        n = 1;
    } else if (argument <= UINT16_MAX) {
        out[0] = top | 25;
        n = 2;
    } else if (argument <= UINT32_MAX) {
        out[0] = top | 26;
        n = 4;
    } else {
        out[0] = top | 27;
        n = 8;
    }
    for (size_t i = 0; i < n; i++) {
        out[1 + i] = (uint8_t)(argument >> (8 * (n - 1 - i)));
    }
    return 1 + n;
}

static void head(struct cs_writer *w, enum cs_cbor_major major, uint64_t argument)
{
    uint8_t h[CS_CBOR_HEAD_MAX];
    cs_writer_bytes(w, cs_slice(h, cs_cbor_head(major, argument, h)));
}

void cs_cbor_uint(struct cs_writer *w, uint64_t v)
{
    head(w, CS_CBOR_UINT, v);
}

void cs_cbor_bytes(struct cs_writer *w, struct cs_slice s)
{
    head(w, CS_CBOR_BYTES, s.n);
    cs_writer_bytes(w, s);
}

void cs_cbor_text(struct cs_writer *w, struct cs_slice s)
{
    if (!cs_utf8_valid(s)) {
        w->overflow = true;
        return;
    }
    head(w, CS_CBOR_TEXT, s.n);
    cs_writer_bytes(w, s);
}

void cs_cbor_array(struct cs_writer *w, uint64_t n)
{
    head(w, CS_CBOR_ARRAY, n);
}

void cs_cbor_map(struct cs_writer *w, uint64_t n)
{
    head(w, CS_CBOR_MAP, n);
}

void cs_cbor_bool(struct cs_writer *w, bool v)
{
    head(w, CS_CBOR_SIMPLE, v ? CS_CBOR_TRUE : CS_CBOR_FALSE);
}

void cs_cbor_null(struct cs_writer *w)
{
    head(w, CS_CBOR_SIMPLE, CS_CBOR_NULL);
}

/* ---- reading ---- */

static uint64_t argument_of(struct cs_reader *r, unsigned low)
{
    static const uint64_t least[] = {24, UINT64_C(1) << 8, UINT64_C(1) << 16, UINT64_C(1) << 32};
    uint64_t v = 0;
    if (low < 24) {
        return low;
    }
    switch (low) {
    case 24:
        v = cs_reader_u8(r);
        break;
    case 25:
        v = cs_reader_u16(r);
        break;
    case 26:
        v = cs_reader_u32(r);
        break;
    case 27:
        v = cs_reader_u64(r);
        break;
    default:
        r->bad = true; /* reserved, or an indefinite length */
        return 0;
    }
    r->bad |= v < least[low - 24]; /* a shorter head would have done */
    return v;
}

static uint64_t read_head(struct cs_reader *r, enum cs_cbor_major major)
{
    unsigned first = cs_reader_u8(r);
    if (r->bad || first >> 5 != (unsigned)major) {
        r->bad = true;
        return 0;
    }
    uint64_t v = argument_of(r, first & 31);
    return r->bad ? 0 : v;
}

uint64_t cs_cbor_read_uint(struct cs_reader *r)
{
    return read_head(r, CS_CBOR_UINT);
}

static struct cs_slice read_string(struct cs_reader *r, enum cs_cbor_major major)
{
    uint64_t n = read_head(r, major);
    if (n > cs_reader_left(r)) {
        r->bad = true;
        return CS_SLICE_NULL;
    }
    return cs_reader_take(r, (size_t)n);
}

struct cs_slice cs_cbor_read_bytes(struct cs_reader *r)
{
    return read_string(r, CS_CBOR_BYTES);
}

struct cs_slice cs_cbor_read_text(struct cs_reader *r)
{
    struct cs_slice s = read_string(r, CS_CBOR_TEXT);
    if (!cs_utf8_valid(s)) {
        r->bad = true;
        return CS_SLICE_NULL;
    }
    return s;
}

bool cs_cbor_read_bool(struct cs_reader *r)
{
    uint64_t v = read_head(r, CS_CBOR_SIMPLE);
    r->bad |= v != CS_CBOR_FALSE && v != CS_CBOR_TRUE;
    return !r->bad && v == CS_CBOR_TRUE;
}

uint64_t cs_cbor_read_array(struct cs_reader *r)
{
    uint64_t n = read_head(r, CS_CBOR_ARRAY);
    if (n > cs_reader_left(r)) {
        r->bad = true;
        return 0;
    }
    return n;
}

uint64_t cs_cbor_read_map(struct cs_reader *r)
{
    uint64_t n = read_head(r, CS_CBOR_MAP);
    if (n > cs_reader_left(r) / 2) {
        r->bad = true;
        return 0;
    }
    return n;
}

uint64_t cs_cbor_read_key(struct cs_reader *r, uint64_t *next)
{
    uint64_t key = cs_cbor_read_uint(r);
    if (r->bad || key < *next || key == UINT64_MAX) {
        r->bad = true;
        return 0;
    }
    *next = key + 1;
    return key;
}

bool cs_cbor_read_null(struct cs_reader *r)
{
    if (cs_reader_left(r) == 0 || *r->p != ((unsigned)CS_CBOR_SIMPLE << 5 | CS_CBOR_NULL)) {
        return false;
    }
    (void)cs_reader_u8(r);
    return true;
}
