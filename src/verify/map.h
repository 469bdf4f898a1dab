/* Things found by bytes that somebody else chose: a chained table with a keyed hash. What is in it
 * lies in an arena of the caller's and begins with a struct cs_map_node. */
#ifndef CS_VERIFY_MAP_H
#define CS_VERIFY_MAP_H

#include "base/arena.h"
#include "base/hash.h"

struct cs_map_node {
    struct cs_map_node *next;
    uint64_t hash;
    struct cs_slice key;
};
struct cs_map {
    struct cs_map_node **bucket; /* owned */
    size_t n, n_buckets;
    struct cs_hash_key seed;
};
void cs_map_init(struct cs_map *m);
void cs_map_done(struct cs_map *m);
struct cs_map_node *cs_map_find(const struct cs_map *m, struct cs_slice key);
/* What has this key; made where it was not there, of `size` zeroed bytes. NULL: no memory. */
void *cs_map_get(struct cs_map *m, struct cs_arena *a, struct cs_slice key, size_t size);

#endif
