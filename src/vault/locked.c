/* Locked memory for the vault. It must never hand out memory that could be swapped out or dumped:
 * then there is none. */
#include "vault/locked.h"

#include "base/secret.h"

#include <sys/mman.h>
#include <unistd.h>

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t whole_pages(size_t n)
{
    size_t page = page_size();
    return (n + page - 1) / page * page;
}

void *cs_locked_alloc(size_t n)
{
    size_t page = page_size(), inner = whole_pages(n);
    char *all =
        mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) {
        return NULL;
    }
    char *p = all + page;
    if (mprotect(p, inner, PROT_READ | PROT_WRITE) != 0 || mlock(p, inner) != 0 ||
        madvise(p, inner, MADV_DONTDUMP) != 0 || madvise(p, inner, MADV_WIPEONFORK) != 0) {
        (void)munmap(all, inner + 2 * page);
        return NULL;
    }
    return p;
}

void cs_locked_free(void *p, size_t n)
{
    if (p != NULL) {
        size_t page = page_size();
        cs_wipe(p, n);
        (void)munmap((char *)p - page, whole_pages(n) + 2 * page);
    }
}
