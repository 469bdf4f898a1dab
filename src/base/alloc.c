/* The heap's door. The counters are plain: a role allocates on one thread, and where it has a
 * helper thread (control) the counters are only read by single-threaded tests. */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>

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

void *cs_alloc(size_t n)
{
    void *p = refuse() ? NULL : calloc(1, n > 0 ? n : 1);
    if (p != NULL) {
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
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
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
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
