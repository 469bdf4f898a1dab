/* The byte-keyed cache: keyed hash, full comparison, a fixed number of entries, second-chance
 * eviction (a hand goes round and takes the first entry not used since it last passed). A text is
 * kept when it comes for the second time. Called by classify.c only. It must never answer for other
 * bytes than the asked ones: a hash alone is no proof. */
#include "sql/cache.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"

enum { CACHE_BUCKETS = CS_LIMIT_SQL_CACHE_ENTRIES * 2, CACHE_SEEN = CS_LIMIT_SQL_CACHE_ENTRIES };

struct cs_sql_cache {
    struct cs_hash_key key;
    uint32_t n, hand;
    uint32_t seen[CACHE_SEEN]; /* by hash: other half of the hash of the text that came last */
    struct cs_sql_record *buckets[CACHE_BUCKETS]; /* chains */
    struct cs_sql_record *slots[CS_LIMIT_SQL_CACHE_ENTRIES];
};

enum cs_err cs_sql_cache_new(struct cs_sql_cache **ret)
{
    struct cs_sql_cache *c = cs_alloc(sizeof *c);
    if (c == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    c->key = cs_hash_key_new();
    *ret = c;
    return CS_OK;
}

void cs_sql_cache_free(struct cs_sql_cache *c)
{
    if (c == NULL) {
        return;
    }
    for (uint32_t i = 0; i < c->n; i++) {
        cs_sql_record_unref(c->slots[i]);
    }
    cs_free(c);
}

struct cs_sql_record *cs_sql_cache_find(struct cs_sql_cache *c, struct cs_slice text,
                                        uint64_t *ret_hash)
{
    uint64_t hash = cs_hash(c->key, text);
    *ret_hash = hash;
    for (struct cs_sql_record *r = c->buckets[hash % CACHE_BUCKETS]; r != NULL; r = r->chain) {
        if (r->hash == hash && cs_slice_eq(r->text, text)) {
            r->used = true;
            return r;
        }
    }
    return NULL;
}

bool cs_sql_cache_wants(struct cs_sql_cache *c, uint64_t hash)
{
    uint32_t *seen = &c->seen[hash % CACHE_SEEN], tag = (uint32_t)(hash >> 32) | 1;
    bool again = *seen == tag;
    *seen = tag;
    return again;
}

static void cache_evict(struct cs_sql_cache *c, uint32_t slot)
{
    struct cs_sql_record *r = c->slots[slot];
    struct cs_sql_record **at = &c->buckets[r->hash % CACHE_BUCKETS];
    while (*at != r) {
        at = &(*at)->chain;
    }
    *at = r->chain;
    c->slots[slot] = NULL;
    cs_sql_record_unref(r);
}

/* A free slot. The hand stops after one round at the latest: it clears what it passes. */
static uint32_t cache_slot(struct cs_sql_cache *c)
{
    if (c->n < CS_LIMIT_SQL_CACHE_ENTRIES) {
        return c->n++;
    }
    while (c->slots[c->hand]->used) {
        c->slots[c->hand]->used = false;
        c->hand = (c->hand + 1) % CS_LIMIT_SQL_CACHE_ENTRIES;
    }
    uint32_t slot = c->hand;
    c->hand = (c->hand + 1) % CS_LIMIT_SQL_CACHE_ENTRIES;
    cache_evict(c, slot);
    return slot;
}

void cs_sql_cache_add(struct cs_sql_cache *c, struct cs_sql_record *r, uint64_t hash)
{
    cs_assert(r->refs > 0);
    uint32_t slot = cache_slot(c);
    struct cs_sql_record **bucket = &c->buckets[hash % CACHE_BUCKETS];
    r->refs++;
    r->hash = hash;
    r->slot = slot;
    r->used = false;
    r->chain = *bucket;
    *bucket = r;
    c->slots[slot] = r;
}
