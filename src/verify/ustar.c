/* Headers of ustar. Called by export and by the check of a bundle. It must never read two spellings
 * of a header as one: what a check does not look at, somebody hides something in. */
#include "verify/ustar.h"

#include "base/assert.h"

enum { SIZE_AT = 124, SIZE_N = 12, SUM_AT = 148, SUM_N = 8 };
#define OCTAL_MAX (UINT64_C(1) << 33) /* eleven octal digits */

static void octal(uint8_t *at, size_t digits, uint64_t v)
{
    for (size_t i = digits; i-- > 0; v >>= 3) {
        at[i] = (uint8_t)('0' + (v & 7));
    }
}

void cs_ustar_write(const char *name, uint64_t size, uint8_t out[static CS_USTAR_BLOCK])
{
    size_t n = strlen(name);
    uint64_t sum = 0;
    cs_assert(n > 0 && n <= CS_USTAR_NAME_MAX);
    memset(out, 0, CS_USTAR_BLOCK);
    memcpy(out, name, n);
    octal(out + 100, 7, 0444); /* mode */
    octal(out + 108, 7, 0);    /* user, group: root's */
    octal(out + 116, 7, 0);
    if (size < OCTAL_MAX) {
        octal(out + SIZE_AT, SIZE_N - 1, size);
    } else { /* as GNU tar and others have it: base 256 */
        out[SIZE_AT] = 0x80;
        for (size_t i = 0; i < 8; i++) {
            out[SIZE_AT + SIZE_N - 1 - i] = (uint8_t)(size >> (8 * i));
        }
    }
    octal(out + 136, SIZE_N - 1, 0); /* time: 1970 */
    memset(out + SUM_AT, ' ', SUM_N);
    out[156] = '0'; /* a plain file */
    memcpy(out + 257,
           "ustar\0"
           "00",
           8);
    for (size_t i = 0; i < CS_USTAR_BLOCK; i++) {
        sum += out[i];
    }
    octal(out + SUM_AT, 6, sum);
    out[SUM_AT + 6] = '\0';
}

static bool read_size(const uint8_t *at, uint64_t *ret)
{
    uint64_t v = 0;
    if (at[0] == 0x80) {
        for (size_t i = SIZE_N - 8; i < SIZE_N; i++) {
            v = v << 8 | at[i];
        }
        *ret = v;
        return v >= OCTAL_MAX && v <= INT64_MAX;
    }
    for (size_t i = 0; i < SIZE_N - 1; i++) {
        if (at[i] < '0' || at[i] > '7') {
            return false;
        }
        v = v << 3 | (uint64_t)(at[i] - '0');
    }
    *ret = v;
    return true;
}

bool cs_ustar_read(const uint8_t in[static CS_USTAR_BLOCK], char *name, uint64_t *ret_size)
{
    uint8_t again[CS_USTAR_BLOCK];
    uint64_t size;
    size_t n = cs_slice_find(cs_slice(in, CS_USTAR_NAME_MAX + 1), 0);
    if (n == 0 || n > CS_USTAR_NAME_MAX || !read_size(in + SIZE_AT, &size)) {
        return false;
    }
    memcpy(name, in, n + 1);
    cs_ustar_write(name, size, again);
    *ret_size = size;
    return memcmp(in, again, sizeof again) == 0;
}
