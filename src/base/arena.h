/* An arena: memory with one lifetime, given back all at once. Chunks come from the heap the first
 * time and are kept over a reset, so that a warmed-up arena never allocates. Under
 * AddressSanitizer the bytes between and after allocations are poisoned. */
#ifndef CS_BASE_ARENA_H
#define CS_BASE_ARENA_H

#include "base/slice.h"

struct cs_arena_chunk;

struct cs_arena {
    struct cs_arena_chunk *first; /* owned */
    struct cs_arena_chunk *now;
    size_t chunk_size;
    size_t used;
    size_t max; /* bytes that may be handed out between resets */
};

/* `max` bounds what may be handed out between two resets: a hostile length ends there. */
void cs_arena_init(struct cs_arena *a, size_t chunk_size, size_t max);
void cs_arena_done(struct cs_arena *a);
/* Everything handed out is void; chunks beyond the first are freed. */
void cs_arena_reset(struct cs_arena *a);
/* 16-byte aligned zeroed memory; NULL when the cap or the machine's memory is reached. */
void *cs_arena_alloc(struct cs_arena *a, size_t n) __attribute__((malloc, alloc_size(2)));
/* count * size with overflow check. */
void *cs_arena_array(struct cs_arena *a, size_t count, size_t size);
/* A copy (with a NUL behind it that the length does not count); .p is NULL on failure. */
struct cs_slice cs_arena_dup(struct cs_arena *a, struct cs_slice s);
struct cs_slice cs_arena_printf(struct cs_arena *a, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define CS_NEW(arena, type)          ((type *)cs_arena_alloc((arena), sizeof(type)))
#define CS_NEW_ARRAY(arena, type, n) ((type *)cs_arena_array((arena), (n), sizeof(type)))

#endif
