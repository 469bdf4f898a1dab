/* The table of map.h. Called by history.c and export.c. Nothing is ever taken out of it. */
#include "verify/map.h"

#include "base/alloc.h"

enum { BUCKETS = 256 };

void cs_map_init(struct cs_map *m)
{
    *m = (struct cs_map){.seed = cs_hash_key_new()};
}

void cs_map_done(struct cs_map *m)
{
    cs_free(m->bucket);
    *m = (struct cs_map){.n = 0};
}

static struct cs_map_node *find(const struct cs_map *m, struct cs_slice key, uint64_t hash)
{
    struct cs_map_node *n = m->n_buckets > 0 ? m->bucket[hash & (m->n_buckets - 1)] : NULL;
    while (n != NULL && (n->hash != hash || !cs_slice_eq(n->key, key))) {
        n = n->next;
    }
    return n;
}

struct cs_map_node *cs_map_find(const struct cs_map *m, struct cs_slice key)
{
    return find(m, key, cs_hash(m->seed, key));
}

static bool grow(struct cs_map *m)
{
    size_t n = m->n_buckets > 0 ? m->n_buckets * 2 : BUCKETS;
    struct cs_map_node **more = cs_alloc(n * sizeof *more);
    if (more == NULL) {
        return false;
    }
    for (size_t i = 0; i < m->n_buckets; i++) {
        for (struct cs_map_node *x = m->bucket[i], *next = NULL; x != NULL; x = next) {
            next = x->next;
            x->next = more[x->hash & (n - 1)];
            more[x->hash & (n - 1)] = x;
        }
    }
    cs_free(m->bucket);
    m->bucket = more;
    m->n_buckets = n;
    return true;
}

void *cs_map_get(struct cs_map *m, struct cs_arena *a, struct cs_slice key, size_t size)
{
    uint64_t hash = cs_hash(m->seed, key);
    struct cs_map_node *n = find(m, key, hash);
    if (n != NULL) {
        return n;
    }
    if (m->n >= m->n_buckets && !grow(m)) {
        return NULL;
    }
    struct cs_slice copy = cs_arena_dup(a, key);
    n = copy.p != NULL ? cs_arena_alloc(a, size) : NULL;
    if (n == NULL) {
        return NULL;
    }
    n->key = copy;
    n->hash = hash;
    n->next = m->bucket[hash & (m->n_buckets - 1)];
    m->bucket[hash & (m->n_buckets - 1)] = n;
    m->n++;
    return n;
}
