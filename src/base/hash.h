/* SipHash-2-4: a keyed hash for tables whose keys an attacker chooses, and for cache keys. */
#ifndef CS_BASE_HASH_H
#define CS_BASE_HASH_H

#include "base/slice.h"

struct cs_hash_key {
    uint64_t k0, k1;
};

/* A key that is random per process: tables differ from run to run, collisions cannot be prepared.
 */
struct cs_hash_key cs_hash_key_new(void);
uint64_t cs_hash(struct cs_hash_key key, struct cs_slice s);

#endif
