/* The heap's door. The counters are plain: a role allocates on one thread, and where it has a
 * helper thread (control) the counters are only read by single-threaded tests. */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_long live;
static atomic_long fail_after = -1;

static int refuse(void)
{
    long left = atomic_load_explicit(&fail_after, memory_order_relaxed);
    if (left < 0) {
        return 0;
    }
    if (left == 0) {
        return 1;
    }
    atomic_store_explicit(&fail_after, left - 1, memory_order_relaxed);
    return 0;
}

/* Two threads may lose each other's count: it is read where there is one, and a locked instruction
 * for each block of each message is dear. */
static void count(long n)
{
    long now = atomic_load_explicit(&live, memory_order_relaxed);
    atomic_store_explicit(&live, now + n, memory_order_relaxed);
}

/* Small blocks come and go with each message: malloc keeps them at hand for a thread, which the
 * library's calloc of today does not. */
static void *zeroed(size_t n)
{
    enum { SMALL = 1024 };
    void *p = n <= SMALL ? malloc(n) : calloc(1, n);
    if (p != NULL && n <= SMALL) {
        memset(p, 0, n);
    }
    return p;
}

void *cs_alloc(size_t n)
{
    void *p = refuse() ? NULL : zeroed(n > 0 ? n : 1);
    if (p != NULL) {
        count(1);
    }
    return p;
}

void *cs_realloc(void *p, size_t n)
{
    if (p == NULL) {
        return cs_alloc(n);
    }
    return refuse() ? NULL : realloc(p, n > 0 ? n : 1);
}

void cs_free(void *p)
{
    if (p != NULL) {
        count(-1);
        free(p);
    }
}

void cs_alloc_fail_after(long n)
{
    atomic_store(&fail_after, n);
}

long cs_alloc_live(void)
{
    return atomic_load(&live);
}
