/* A full disk is survived; a failing one is final. The journal's descriptor is exchanged under
 * SQLite: /dev/full says "no space" to every write, a read-only one fails in another way. */
#include "store/world.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

static int wal_fd(const struct world *w)
{
    char link[64], path[256], wal[128];
    (void)snprintf(wal, sizeof wal, "%s-wal", w->path);
    for (int fd = 3; fd < 256; fd++) {
        (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        if (n > 0 && cs_slice_eq_str(cs_slice(path, (size_t)n), wal)) {
            return fd;
        }
    }
    CS_FAIL("the journal is not open");
}

static enum cs_err put(struct world *w, const char *name)
{
    return cs_store_secret_put(w->store, cs_slice_str(name), 1, CS_SLICE_LIT("box"));
}

static enum cs_err there(struct world *w, const char *name)
{
    struct cs_store_secret got;
    return cs_store_secret_get(w->store, cs_slice_str(name), &w->arena, &got);
}

static void exchange(int fd, const char *path, int flags, int *ret_saved)
{
    *ret_saved = dup(fd);
    int other = open(path, flags | O_CLOEXEC);
    CS_CHECK(*ret_saved >= 0 && other >= 0);
    CS_CHECK(dup2(other, fd) == fd);
    (void)close(other);
}

static void restore(int fd, int saved)
{
    CS_CHECK(dup2(saved, fd) == fd);
    (void)close(saved);
}

static void disk_full(struct world *w)
{
    int saved = -1;
    CS_EQ_U64(put(w, "before"), CS_OK);
    int fd = wal_fd(w);
    exchange(fd, "/dev/full", O_RDWR, &saved);
    CS_EQ_U64(put(w, "during"), CS_ERR_NO_SPACE); /* once: /dev/full also reads as zeroes */
    CS_CHECK(!cs_store_failure(w->store)->set);
    CS_CHECK(cs_store_stats(w->store).no_space == 1);
    restore(fd, saved);
    CS_EQ_U64(there(w, "before"), CS_OK);
    CS_EQ_U64(there(w, "during"), CS_ERR_NOT_FOUND);
    CS_EQ_U64(put(w, "during"), CS_OK);
    world_restart(w);
    CS_EQ_U64(there(w, "before"), CS_OK);
    CS_EQ_U64(there(w, "during"), CS_OK);
}
CS_TEST(a_full_disk_fails_the_operation_and_the_store_stays_up)
{
    world_run(disk_full);
}

static void size_limit(struct world *w)
{
    (void)signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, small;
    CS_EQ_U64(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = (rlim_t)300 * 1024;
    CS_EQ_U64(setrlimit(RLIMIT_FSIZE, &small), 0);
    static uint8_t big[40 * 1024];
    char name[16];
    enum cs_err err = CS_OK;
    int kept = 0;
    for (; kept < 100 && err == CS_OK; kept++) {
        (void)snprintf(name, sizeof name, "b%d", kept);
        err = cs_store_secret_put(w->store, cs_slice_str(name), 1, cs_slice(big, sizeof big));
    }
    CS_EQ_U64(err, CS_ERR_NO_SPACE);
    CS_EQ_U64(cs_store_secret_put(w->store, CS_SLICE_LIT("more"), 1, cs_slice(big, sizeof big)),
              CS_ERR_NO_SPACE);
    CS_CHECK(kept > 1 && !cs_store_failure(w->store)->set);
    CS_EQ_U64(setrlimit(RLIMIT_FSIZE, &before), 0);
    CS_EQ_U64(put(w, "after"), CS_OK);
    world_restart(w);
    for (int i = 0; i < kept - 1; i++) {
        (void)snprintf(name, sizeof name, "b%d", i);
        CS_EQ_U64(there(w, name), CS_OK);
    }
    CS_EQ_U64(there(w, "after"), CS_OK);
}
CS_TEST(a_file_size_limit_counts_as_a_full_disk)
{
    world_run(size_limit);
}

static void disk_broken(struct world *w)
{
    int saved = -1;
    CS_EQ_U64(put(w, "before"), CS_OK);
    int fd = wal_fd(w);
    exchange(fd, "/dev/null", O_RDONLY, &saved);
    CS_EQ_U64(put(w, "during"), CS_ERR_IO);
    struct cs_wait wait = CS_WAIT_ON(CS_WAIT_EVENT, cs_store_failure(w->store));
    CS_EQ_U64(cs_wait(&wait, 1, cs_mono_ns() + 5 * CS_NS_PER_S), CS_WOKE_READY);
    CS_CHECK(strlen(cs_store_failure_text(w->store)) > 0);
    restore(fd, saved);
    CS_EQ_U64(put(w, "after"), CS_ERR_IO); /* final, whatever the disk does now */
    CS_EQ_U64(there(w, "before"), CS_ERR_IO);
    world_restart(w);
    CS_EQ_U64(there(w, "before"), CS_OK);
    CS_EQ_U64(there(w, "during"), CS_ERR_NOT_FOUND);
}
CS_TEST(an_input_output_error_is_final_until_the_next_start)
{
    world_run(disk_broken);
}
