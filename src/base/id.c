/* Identifiers and hex. */
#include "base/id.h"

#include "base/assert.h"

#include <sys/random.h>

static const char crockford[33] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

void cs_random(void *p, size_t n)
{
    uint8_t *at = p;
    while (n > 0) {
        size_t want = n < 256 ? n : 256;
        ssize_t got = getrandom(at, want, 0);
        cs_assert(got > 0);
        at += got;
        n -= (size_t)got;
    }
}

struct cs_id cs_id_new(void)
{
    struct cs_id id;
    cs_random(id.b, sizeof id.b);
    return id;
}

bool cs_id_is_zero(const struct cs_id *id)
{
    static const struct cs_id zero;
    return cs_id_eq(id, &zero);
}

bool cs_id_eq(const struct cs_id *a, const struct cs_id *b)
{
    return memcmp(a->b, b->b, CS_ID_BYTES) == 0;
}

void cs_hex(struct cs_slice bytes, char *out)
{
    static const char digits[17] = "0123456789abcdef";
    for (size_t i = 0; i < bytes.n; i++) {
        out[2 * i] = digits[bytes.p[i] >> 4];
        out[2 * i + 1] = digits[bytes.p[i] & 15];
    }
    out[2 * bytes.n] = 0;
}

static int nibble(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return (c >= 'A' && c <= 'F') ? c - 'A' + 10 : -1;
}

bool cs_unhex(struct cs_slice hex, uint8_t *ret, size_t n)
{
    if (hex.n != 2 * n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        int hi = nibble(hex.p[2 * i]);
        int lo = nibble(hex.p[2 * i + 1]);
        if (hi < 0 || lo < 0) {
            return false;
        }
        ret[i] = (uint8_t)(hi * 16 + lo);
    }
    return true;
}

char *cs_id_text(const struct cs_id *id, char out[static CS_ID_TEXT])
{
    cs_hex(cs_slice(id->b, CS_ID_BYTES), out);
    return out;
}

bool cs_id_parse(struct cs_slice hex, struct cs_id *ret)
{
    struct cs_id id;
    if (!cs_unhex(hex, id.b, CS_ID_BYTES)) {
        return false;
    }
    *ret = id;
    return true;
}

void cs_request_id_new(char out[static CS_REQUEST_ID_TEXT])
{
    uint8_t r[CS_REQUEST_ID_CHARS];
    cs_random(r, sizeof r);
    for (size_t i = 0; i < CS_REQUEST_ID_CHARS; i++) {
        out[i] = crockford[r[i] & 31];
    }
    out[CS_REQUEST_ID_CHARS] = 0;
}

bool cs_request_id_parse(struct cs_slice s, char ret[static CS_REQUEST_ID_TEXT])
{
    char out[CS_REQUEST_ID_TEXT] = {0};
    if (s.n != CS_REQUEST_ID_CHARS) {
        return false;
    }
    for (size_t i = 0; i < CS_REQUEST_ID_CHARS; i++) {
        char c = (char)s.p[i];
        if (c >= 'a' && c <= 'z') {
            c = (char)(c - 32);
        }
        c = c == 'O' ? '0' : (c == 'I' || c == 'L') ? '1' : c;
        if (c == 0 || strchr(crockford, c) == NULL) {
            return false;
        }
        out[i] = c;
    }
    memcpy(ret, out, sizeof out);
    return true;
}
