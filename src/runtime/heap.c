/* The heap of deadlines: only coroutines that wait with a deadline are in it, so that one that
 * waits for ever costs nothing. A coroutine knows its place, so that leaving early is cheap. */
#include "base/alloc.h"
#include "base/assert.h"
#include "runtime/loop_internal.h"

bool cs_heap_reserve(struct cs_heap *h, uint32_t n)
{
    if (n <= h->cap) {
        return true;
    }
    uint32_t cap = h->cap < 64 ? 64 : h->cap * 2;
    cap = CS_MAX(cap, n);
    struct cs_co **at = cs_realloc(h->at, cap * sizeof(struct cs_co *));
    if (at == NULL) {
        return false;
    }
    h->at = at;
    h->cap = cap;
    return true;
}

static void place(struct cs_heap *h, uint32_t i, struct cs_co *co)
{
    h->at[i] = co;
    co->heap_at = i + 1;
}

static void up(struct cs_heap *h, uint32_t i, struct cs_co *co)
{
    while (i > 0 && h->at[(i - 1) / 2]->deadline_ns > co->deadline_ns) {
        place(h, i, h->at[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, co);
}

static void down(struct cs_heap *h, uint32_t i, struct cs_co *co)
{
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= h->n) {
            break;
        }
        if (child + 1 < h->n && h->at[child + 1]->deadline_ns < h->at[child]->deadline_ns) {
            child++;
        }
        if (h->at[child]->deadline_ns >= co->deadline_ns) {
            break;
        }
        place(h, i, h->at[child]);
        i = child;
    }
    place(h, i, co);
}

void cs_heap_add(struct cs_heap *h, struct cs_co *co)
{
    cs_assert(co->heap_at == 0 && h->n < h->cap);
    up(h, h->n++, co);
}

void cs_heap_remove(struct cs_heap *h, struct cs_co *co)
{
    if (co->heap_at == 0) {
        return;
    }
    uint32_t i = co->heap_at - 1;
    cs_assert(i < h->n && h->at[i] == co);
    co->heap_at = 0;
    struct cs_co *moved = h->at[--h->n];
    if (moved == co) {
        return;
    }
    if (i > 0 && h->at[(i - 1) / 2]->deadline_ns > moved->deadline_ns) {
        up(h, i, moved);
    } else {
        down(h, i, moved);
    }
}

void cs_heap_done(struct cs_heap *h)
{
    cs_free(h->at);
    *h = (struct cs_heap){NULL, 0, 0};
}
