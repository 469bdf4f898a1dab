/* SipHash-2-4 (Aumasson, Bernstein 2012). */
#include "base/hash.h"

#include "base/id.h"

struct cs_hash_key cs_hash_key_new(void)
{
    struct cs_hash_key k;
    cs_random(&k, sizeof k);
    return k;
}

static inline uint64_t rotl(uint64_t x, unsigned b)
{
    return (x << b) | (x >> (64 - b));
}

static inline void round1(uint64_t v[static 4])
{
    __builtin_add_overflow(v[0], v[1], &v[0]);
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    __builtin_add_overflow(v[2], v[3], &v[2]);
    v[3] = rotl(v[3], 16) ^ v[2];
    __builtin_add_overflow(v[0], v[3], &v[0]);
    v[3] = rotl(v[3], 21) ^ v[0];
    __builtin_add_overflow(v[2], v[1], &v[2]);
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

uint64_t cs_hash(struct cs_hash_key key, struct cs_slice s)
{
    uint64_t v[4] = {key.k0 ^ 0x736f6d6570736575ULL, key.k1 ^ 0x646f72616e646f6dULL,
                     key.k0 ^ 0x6c7967656e657261ULL, key.k1 ^ 0x7465646279746573ULL};
    size_t whole = s.n & ~(size_t)7;
    uint64_t m;
    for (size_t i = 0; i < whole; i += 8) {
        memcpy(&m, s.p + i, 8);
        v[3] ^= m;
        round1(v);
        round1(v);
        v[0] ^= m;
    }
    m = (uint64_t)(s.n & 0xff) << 56;
    for (size_t i = whole; i < s.n; i++) {
        m |= (uint64_t)s.p[i] << (8 * (i - whole));
    }
    v[3] ^= m;
    round1(v);
    round1(v);
    v[0] ^= m;
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++) {
        round1(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
