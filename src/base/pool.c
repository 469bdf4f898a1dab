/* The pool. A slot is a header and the object; a dead slot's header links the free list. */
#include "base/pool.h"

#include "base/alloc.h"
#include "base/assert.h"

#include <stdbool.h>
#include <string.h>

enum { PER_SLAB = 64 };

struct slot {
    uint32_t generation;
    uint32_t next_free; /* index + 1 */
    bool live;
    _Alignas(16) uint8_t object[];
};

static size_t slot_size(const struct cs_pool *p)
{
    return (sizeof(struct slot) + p->object_size + 15) & ~(size_t)15;
}

static struct slot *slot_at(const struct cs_pool *p, uint32_t index)
{
    return (struct slot *)(void *)(p->slabs[index / PER_SLAB] + (index % PER_SLAB) * slot_size(p));
}

void cs_pool_init(struct cs_pool *p, size_t object_size, uint32_t max)
{
    *p = (struct cs_pool){.object_size = object_size, .max = max};
}

void cs_pool_done(struct cs_pool *p)
{
    for (size_t i = 0; i < p->slab_count; i++) {
        cs_free(p->slabs[i]);
    }
    cs_free(p->slabs);
    cs_pool_init(p, p->object_size, p->max);
}

static bool slab_add(struct cs_pool *p)
{
    uint8_t **slabs = cs_realloc(p->slabs, (p->slab_count + 1) * sizeof *slabs);
    if (slabs == NULL) {
        return false;
    }
    p->slabs = slabs;
    uint8_t *slab = cs_alloc(slot_size(p) * PER_SLAB);
    if (slab == NULL) {
        return false;
    }
    p->slabs[p->slab_count++] = slab;
    return true;
}

void *cs_pool_take(struct cs_pool *p, cs_handle *ret)
{
    uint32_t index;
    if (p->free_head != 0) {
        index = p->free_head - 1;
        p->free_head = slot_at(p, index)->next_free;
    } else {
        if (p->made >= p->max || (p->made == p->slab_count * PER_SLAB && !slab_add(p))) {
            return NULL;
        }
        index = p->made++;
    }
    struct slot *s = slot_at(p, index);
    cs_assert(!s->live);
    s->live = true;
    s->generation = s->generation == UINT32_MAX ? 1 : s->generation + 1;
    memset(s->object, 0, p->object_size);
    p->live++;
    *ret = ((uint64_t)s->generation << 32) | index;
    return s->object;
}

void *cs_pool_get(const struct cs_pool *p, cs_handle h)
{
    uint32_t index = (uint32_t)(h & UINT32_MAX);
    if (h == 0 || index >= p->made) {
        return NULL;
    }
    struct slot *s = slot_at(p, index);
    return s->live && s->generation == (uint32_t)(h >> 32) ? s->object : NULL;
}

void cs_pool_give(struct cs_pool *p, cs_handle h)
{
    cs_assert(cs_pool_get(p, h) != NULL);
    uint32_t index = (uint32_t)(h & UINT32_MAX);
    struct slot *s = slot_at(p, index);
    s->live = false;
    s->next_free = p->free_head;
    p->free_head = index + 1;
    p->live--;
}

void cs_pool_each(struct cs_pool *p, void (*fn)(void *object, cs_handle h, void *arg), void *arg)
{
    for (uint32_t i = 0; i < p->made; i++) {
        struct slot *s = slot_at(p, i);
        if (s->live) {
            fn(s->object, ((uint64_t)s->generation << 32) | i, arg);
        }
    }
}
