/* Slices: comparison, searching and UTF-8. Pure functions without allocation. */
#include "base/slice.h"

static uint8_t lower(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') ? (uint8_t)(c + 32) : c;
}

bool cs_slice_eq_nocase(struct cs_slice a, struct cs_slice b)
{
    if (a.n != b.n) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (lower(a.p[i]) != lower(b.p[i])) {
            return false;
        }
    }
    return true;
}

int cs_slice_cmp(struct cs_slice a, struct cs_slice b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int r = n > 0 ? memcmp(a.p, b.p, n) : 0;
    if (r != 0) {
        return r;
    }
    return (a.n > b.n) - (a.n < b.n);
}

bool cs_slice_starts(struct cs_slice s, struct cs_slice prefix)
{
    return s.n >= prefix.n && cs_slice_eq(cs_slice_head(s, prefix.n), prefix);
}

bool cs_slice_ends(struct cs_slice s, struct cs_slice suffix)
{
    return s.n >= suffix.n && cs_slice_eq(cs_slice_from(s, s.n - suffix.n), suffix);
}

size_t cs_slice_find(struct cs_slice s, uint8_t c)
{
    const uint8_t *hit = s.n > 0 ? memchr(s.p, c, s.n) : NULL;
    return hit != NULL ? (size_t)(hit - s.p) : s.n;
}

struct cs_slice cs_slice_from(struct cs_slice s, size_t from)
{
    if (from >= s.n) {
        return (struct cs_slice){s.p != NULL ? s.p + s.n : NULL, 0};
    }
    return (struct cs_slice){s.p + from, s.n - from};
}

struct cs_slice cs_slice_head(struct cs_slice s, size_t n)
{
    return (struct cs_slice){s.p, n < s.n ? n : s.n};
}

static bool blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct cs_slice cs_slice_trim(struct cs_slice s)
{
    while (s.n > 0 && blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && blank(s.p[s.n - 1])) {
        s.n--;
    }
    return s;
}

bool cs_slice_eq_secret(struct cs_slice a, struct cs_slice b)
{
    if (a.n != b.n) {
        return false;
    }
    volatile uint8_t diff = 0;
    for (size_t i = 0; i < a.n; i++) {
        diff = (uint8_t)(diff | (a.p[i] ^ b.p[i]));
    }
    return diff == 0;
}

bool cs_slice_to_u64(struct cs_slice s, uint64_t *ret)
{
    uint64_t v = 0;
    if (s.n == 0) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9' || __builtin_mul_overflow(v, 10U, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v)) {
            return false;
        }
    }
    *ret = v;
    return true;
}

bool cs_utf8_next(struct cs_slice s, size_t *at, uint32_t *ret)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t i = *at;
    uint8_t c = s.p[i];
    size_t n = c < 0x80             ? 1
               : (c & 0xe0) == 0xc0 ? 2
               : (c & 0xf0) == 0xe0 ? 3
               : (c & 0xf8) == 0xf0 ? 4
                                    : 0;
    *at = i + 1;
    if (n == 0 || n > s.n - i) {
        return false;
    }
    uint32_t v = n == 1 ? c : c & (0x7fU >> n);
    for (size_t k = 1; k < n; k++) {
        if ((s.p[i + k] & 0xc0) != 0x80) {
            return false;
        }
        v = (v << 6) | (s.p[i + k] & 0x3fU);
    }
    if (v < least[n] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff)) {
        return false;
    }
    *at = i + n;
    *ret = v;
    return true;
}

bool cs_utf8_valid(struct cs_slice s)
{
    size_t at = 0;
    uint32_t cp;
    while (at < s.n) {
        /* Eight ASCII bytes at a time: nearly all SQL text. */
        uint64_t w;
        if (s.n - at >= sizeof w) {
            memcpy(&w, s.p + at, sizeof w);
            if ((w & 0x8080808080808080ULL) == 0) {
                at += sizeof w;
                continue;
            }
        }
        if (!cs_utf8_next(s, &at, &cp)) {
            return false;
        }
    }
    return true;
}
