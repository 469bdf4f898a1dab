/* The arena. */
#include "base/arena.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
enum { GAP = 16 }; /* poisoned bytes behind each allocation */
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
enum { GAP = 0 };
#endif

enum { ALIGN = 16 };

struct cs_arena_chunk {
    struct cs_arena_chunk *next;
    size_t cap;
    size_t len;
    _Alignas(ALIGN) uint8_t data[];
};

void cs_arena_init(struct cs_arena *a, size_t chunk_size, size_t max)
{
    *a = (struct cs_arena){NULL, NULL, chunk_size, 0, max};
}

static void chunks_free(struct cs_arena_chunk *c)
{
    while (c != NULL) {
        struct cs_arena_chunk *next = c->next;
        UNPOISON(c->data, c->cap);
        cs_free(c);
        c = next;
    }
}

void cs_arena_done(struct cs_arena *a)
{
    chunks_free(a->first);
    a->first = a->now = NULL;
    a->used = 0;
}

void cs_arena_reset(struct cs_arena *a)
{
    a->used = 0;
    a->now = a->first;
    if (a->first == NULL) {
        return;
    }
    chunks_free(a->first->next);
    a->first->next = NULL;
    a->first->len = 0;
    POISON(a->first->data, a->first->cap);
}

static struct cs_arena_chunk *chunk_add(struct cs_arena *a, size_t n)
{
    size_t cap = n > a->chunk_size ? n : a->chunk_size;
    struct cs_arena_chunk *c = cs_alloc(sizeof *c + cap);
    if (c == NULL) {
        return NULL;
    }
    c->next = NULL;
    c->cap = cap;
    c->len = 0;
    POISON(c->data, cap);
    if (a->now != NULL) {
        a->now->next = c;
    } else {
        a->first = c;
    }
    a->now = c;
    return c;
}

void *cs_arena_alloc(struct cs_arena *a, size_t n)
{
    if (n > a->max - a->used || n > SIZE_MAX / 2) {
        return NULL;
    }
    size_t need = ((n + ALIGN - 1) & ~(size_t)(ALIGN - 1)) + GAP;
    struct cs_arena_chunk *c = a->now;
    if (c == NULL || need > c->cap - c->len) {
        c = chunk_add(a, need);
        if (c == NULL) {
            return NULL;
        }
    }
    uint8_t *at = c->data + c->len;
    c->len += need;
    a->used += n;
    UNPOISON(at, n);
    memset(at, 0, n);
    return at;
}

void *cs_arena_array(struct cs_arena *a, size_t count, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(count, size, &n)) {
        return NULL;
    }
    return cs_arena_alloc(a, n);
}

struct cs_slice cs_arena_dup(struct cs_arena *a, struct cs_slice s)
{
    uint8_t *p = s.n < SIZE_MAX ? cs_arena_alloc(a, s.n + 1) : NULL;
    if (p == NULL) {
        return CS_SLICE_NULL;
    }
    if (s.n > 0) {
        memcpy(p, s.p, s.n);
    }
    return cs_slice(p, s.n);
}

struct cs_slice cs_arena_printf(struct cs_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n >= 0 ? cs_arena_alloc(a, (size_t)n + 1) : NULL;
    if (p != NULL) {
        (void)vsnprintf(p, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    return p != NULL ? cs_slice(p, (size_t)n) : CS_SLICE_NULL;
}
