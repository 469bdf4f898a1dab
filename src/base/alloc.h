/* The only door to the heap. Tests make the N-th allocation fail through it. */
#ifndef CS_BASE_ALLOC_H
#define CS_BASE_ALLOC_H

#include <stddef.h>

/* Zeroed memory; NULL when there is none. */
void *cs_alloc(size_t n) __attribute__((malloc, alloc_size(1)));
/* As realloc; what is new is not zeroed. On failure the old block stays. */
void *cs_realloc(void *p, size_t n) __attribute__((alloc_size(2)));
/* NULL is fine. */
void cs_free(void *p);
/* For tests: let `n` allocations succeed, then fail every one; a negative number switches it off.
 */
void cs_alloc_fail_after(long n);
/* For tests: allocations not freed yet. */
long cs_alloc_live(void);

#endif
