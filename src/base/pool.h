/* A pool of equal objects named by (index, generation): an id that outlives its object looks up to
 * NULL, never to somebody else's object. Slots are allocated in slabs and never returned to the
 * heap before cs_pool_done. */
#ifndef CS_BASE_POOL_H
#define CS_BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

struct cs_pool {
    uint8_t **slabs; /* owned */
    size_t slab_count;
    size_t object_size;
    uint32_t max;
    uint32_t made;
    uint32_t live;
    uint32_t free_head; /* index + 1, 0 = none */
};

/* High half: generation (never 0), low half: index. 0 names nothing. */
typedef uint64_t cs_handle;

void cs_pool_init(struct cs_pool *p, size_t object_size, uint32_t max);
void cs_pool_done(struct cs_pool *p);
/* A zeroed object, or NULL when `max` live ones exist or memory is out. */
void *cs_pool_take(struct cs_pool *p, cs_handle *ret);
/* NULL for a stale, foreign or zero handle. */
void *cs_pool_get(const struct cs_pool *p, cs_handle h);
void cs_pool_give(struct cs_pool *p, cs_handle h);
/* Calls fn for each live object. fn may give back the object it is called with. */
void cs_pool_each(struct cs_pool *p, void (*fn)(void *object, cs_handle h, void *arg), void *arg);

#endif
