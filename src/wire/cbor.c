/* The deterministic CBOR writer. Called where something is hashed, signed or stored for ever
 * (action, record). It must never have two ways of writing the same value. */
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

void cs_cbor_bool(struct cs_writer *w, bool v)
{
    head(w, CS_CBOR_SIMPLE, v ? CS_CBOR_TRUE : CS_CBOR_FALSE);
}

void cs_cbor_null(struct cs_writer *w)
{
    head(w, CS_CBOR_SIMPLE, CS_CBOR_NULL);
}
