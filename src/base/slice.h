/* A slice: bytes with a length, passed by value. Never NUL-terminated, never owned.
 * Every other folder speaks in slices; `char *` appears only at libc borders and for literals. */
#ifndef CS_BASE_SLICE_H
#define CS_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cs_slice {
    const uint8_t *p; /* borrowed */
    size_t n;
};

#define CS_SLICE_LIT(s) ((struct cs_slice){(const uint8_t *)("" s), sizeof(s) - 1})
#define CS_SLICE_NULL   ((struct cs_slice){NULL, 0})
/* For printf's "%.*s": CS_SLICE_FMT(x). The text may hold control bytes: logs escape them. */
#define CS_SLICE_FMT(s) (int)((s).n > 0x7fffffff ? 0x7fffffff : (s).n), (const char *)(s).p

static inline struct cs_slice cs_slice(const void *p, size_t n)
{
    return (struct cs_slice){(const uint8_t *)p, n};
}

/* A NUL-terminated string as a slice; NULL gives the empty slice. */
static inline struct cs_slice cs_slice_str(const char *s)
{
    return (struct cs_slice){(const uint8_t *)s, s != NULL ? strlen(s) : 0};
}

static inline bool cs_slice_eq(struct cs_slice a, struct cs_slice b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool cs_slice_eq_str(struct cs_slice a, const char *s)
{
    return cs_slice_eq(a, cs_slice_str(s));
}

/* ASCII case-insensitive comparison. */
bool cs_slice_eq_nocase(struct cs_slice a, struct cs_slice b);
/* Byte order, shorter first on a tie: <0, 0, >0. */
int cs_slice_cmp(struct cs_slice a, struct cs_slice b);
bool cs_slice_starts(struct cs_slice s, struct cs_slice prefix);
bool cs_slice_ends(struct cs_slice s, struct cs_slice suffix);
/* Index of the first byte `c`, or s.n. */
size_t cs_slice_find(struct cs_slice s, uint8_t c);
/* The part from `from` on / the first `n` bytes; clamped to the slice. */
struct cs_slice cs_slice_from(struct cs_slice s, size_t from);
struct cs_slice cs_slice_head(struct cs_slice s, size_t n);
/* Without ASCII blanks at both ends. */
struct cs_slice cs_slice_trim(struct cs_slice s);
/* Comparison whose time depends on the lengths only: for anything an attacker may guess at. */
bool cs_slice_eq_secret(struct cs_slice a, struct cs_slice b);
/* Decimal, no sign, no blanks; false on anything else or overflow. */
bool cs_slice_to_u64(struct cs_slice s, uint64_t *ret);
/* Strict UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF). */
bool cs_utf8_valid(struct cs_slice s);
/* One code point at s.p[*at]; advances *at. False on malformed input (and *at advances by one). */
bool cs_utf8_next(struct cs_slice s, size_t *at, uint32_t *ret);

#endif
