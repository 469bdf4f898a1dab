/* What the twins of our programs have beside their own code: a clock that a test can set, and a
 * disk that a test can slow down. The test writes both into the file twin.ctl beside the program,
 * which each process maps at its start, before its walls are up. */
#include "base/time.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct orders {
    volatile int64_t wall_ms;  /* added to the machine's clock */
    volatile uint64_t sync_ms; /* a call that makes durable takes so much longer */
};

static const struct orders none;
static const struct orders *orders = &none;

__attribute__((constructor)) static void find_orders(void)
{
    char path[512] = "";
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 16);
    if (n <= 0) {
        return;
    }
    path[n] = '\0';
    char *name = strrchr(path, '/');
    if (name == NULL) {
        return;
    }
    memcpy(name, "/twin.ctl", sizeof "/twin.ctl");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    const void *p = mmap(NULL, sizeof *orders, PROT_READ, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (p != MAP_FAILED) {
        orders = p;
    }
}

uint64_t __real_cs_wall_ms(void);
uint64_t __wrap_cs_wall_ms(void);

uint64_t __wrap_cs_wall_ms(void)
{
    return __real_cs_wall_ms() + (uint64_t)orders->wall_ms;
}

static int slowly(int result)
{
    int error = errno;
    uint64_t ms = orders->sync_ms;
    struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    if (ms > 0) {
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    }
    errno = error;
    return result;
}

/* Seen by libraries, too: SQLite's calls come here. */
__attribute__((visibility("default"))) int fdatasync(int fd)
{
    return slowly((int)syscall(SYS_fdatasync, fd));
}

__attribute__((visibility("default"))) int fsync(int fd)
{
    return slowly((int)syscall(SYS_fsync, fd));
}
