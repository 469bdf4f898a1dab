/* Pages of metrics: sealed size, descriptors that cannot be written by, and the table. */
#include "ipc/metrics.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

static int make(void)
{
    int fd = -1;
    CS_CHECK(cs_metrics_make(&fd) == CS_OK);
    return fd;
}

CS_TEST(metrics_page_keeps_its_size)
{
    int fd = make();
    CS_CHECK(ftruncate(fd, 1) != 0 && errno == EPERM);
    CS_CHECK(ftruncate(fd, 1 << 20) != 0 && errno == EPERM);
    CS_CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0); /* nobody can take it from its writer */
}

CS_TEST(metrics_reader_cannot_write_in_the_page_of_another)
{
    uint64_t one = 1;
    int fd = make(), read_fd = -1;
    const uint64_t *page = NULL;
    CS_CHECK(cs_metrics_readonly(fd, &read_fd) == CS_OK);
    CS_CHECK(write(read_fd, &one, sizeof one) < 0);
    CS_CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, read_fd, 0) == MAP_FAILED);
    uint64_t *writable = NULL;
    CS_CHECK(cs_metrics_map(read_fd, &writable) != CS_OK);
    CS_CHECK(cs_metrics_map_readonly(read_fd, &page) == CS_OK);
    CS_CHECK(mprotect((void *)(uintptr_t)page, 4096, PROT_READ | PROT_WRITE) != 0);
    CS_CHECK(cs_metrics_map(fd, &writable) == CS_OK);
    writable[CS_SLOT_FRAMES] = 17;
    CS_EQ_U64(cs_metric_read(page, CS_SLOT_FRAMES), 17);
}

CS_TEST(metrics_reader_refuses_a_page_that_could_shrink_or_has_another_size)
{
    const uint64_t *page = NULL;
    int loose = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CS_CHECK(ftruncate(loose, CS_METRIC_BYTES) == 0);
    CS_CHECK(cs_metrics_map_readonly(loose, &page) == CS_ERR_PROTOCOL);
    CS_CHECK(fcntl(loose, F_ADD_SEALS, F_SEAL_GROW) == 0);
    CS_CHECK(cs_metrics_map_readonly(loose, &page) == CS_ERR_PROTOCOL);
    int other = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CS_CHECK(ftruncate(other, 2 * CS_METRIC_BYTES) == 0);
    CS_CHECK(fcntl(other, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0);
    CS_CHECK(cs_metrics_map_readonly(other, &page) == CS_ERR_UNSUPPORTED);
    int fds[2];
    CS_CHECK(pipe(fds) == 0);
    CS_CHECK(cs_metrics_map_readonly(fds[0], &page) == CS_ERR_PROTOCOL);
    CS_CHECK(page == NULL);
}

CS_TEST(metrics_counted_before_the_page_comes_are_in_it)
{
    int fd = make();
    const uint64_t *page = NULL;
    cs_metric_add(CS_SLOT_OPENED, 3);
    cs_metrics_open(fcntl(fd, F_DUPFD_CLOEXEC, 3));
    CS_CHECK(cs_metrics_map_readonly(fd, &page) == CS_OK);
    cs_metric_add(CS_SLOT_OPENED, 4);
    cs_metric_set(CS_SLOT_MASTER_KEYS, 2);
    CS_EQ_U64(cs_metric_read(page, CS_SLOT_OPENED), 7);
    CS_EQ_U64(cs_metric_read(page, CS_SLOT_MASTER_KEYS), 2);
    CS_EQ_U64(cs_metric_read(page, CS_SLOT_LAYOUT), cs_metric_layout());
    cs_log(CS_EV_DEBUG, NULL, "not=written"); /* below the level, and counted */
    cs_log(CS_EV_DEBUG, NULL, "not=written");
    CS_EQ_U64(cs_metric_read(page, CS_SLOT_EVENTS + CS_EV_DEBUG), 2);
}

CS_TEST(metrics_page_that_cannot_be_used_leaves_counting_without_effect)
{
    const uint64_t *before = cs_metrics_own;
    cs_metrics_open(memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    CS_CHECK(cs_metrics_own == before);
    cs_metric_add(CS_SLOT_OPENED, 1);
}

CS_TEST(metrics_histogram_counts_in_the_first_bucket_that_is_large_enough)
{
    static const struct {
        uint64_t ns;
        size_t bucket;
    } fast[] = {{0, 0},
                {5000, 0},
                {5001, 1},
                {10000, 1},
                {UINT64_C(2500000000), 15},
                {UINT64_C(2500000001), 16},
                {UINT64_MAX, 16}};
    for (size_t i = 0; i < CS_ARRAY_LEN(fast); i++) {
        uint64_t *at = &cs_metrics_own[CS_SLOT_SYNC_TIME];
        memset(at, 0, CS_WIDTH_FAST * sizeof *at);
        cs_metric_fast(CS_SLOT_SYNC_TIME, fast[i].ns);
        for (size_t k = 0; k <= CS_FAST_BOUNDS; k++) {
            CS_EQ_U64(at[k], k == fast[i].bucket ? 1 : 0);
        }
        CS_EQ_U64(at[CS_FAST_BOUNDS + 1], fast[i].ns);
    }
    cs_metric_slow(CS_SLOT_HOLD_TIME, UINT64_C(1000000000));
    cs_metric_slow(CS_SLOT_HOLD_TIME, UINT64_C(3600000000001));
    CS_EQ_U64(cs_metrics_own[CS_SLOT_HOLD_TIME], 1);
    CS_EQ_U64(cs_metrics_own[CS_SLOT_HOLD_TIME + CS_SLOW_BOUNDS], 1);
}

CS_TEST(metrics_bounds_of_histograms_rise)
{
    for (size_t i = 1; i < CS_FAST_BOUNDS; i++) {
        CS_CHECK(cs_fast_bounds[i - 1] < cs_fast_bounds[i]);
    }
    for (size_t i = 1; i < CS_SLOW_BOUNDS; i++) {
        CS_CHECK(cs_slow_bounds[i - 1] < cs_slow_bounds[i]);
    }
}

static size_t values_in(const char *list)
{
    size_t n = 1;
    for (; *list != 0; list++) {
        n += *list == '|';
    }
    return n;
}

CS_TEST(metrics_table_is_sound)
{
    size_t next = CS_SLOT_LAYOUT + 1;
    for (size_t i = 0; i < cs_metric_row_count; i++) {
        const struct cs_metric_row *r = &cs_metric_rows[i];
        size_t width = r->kind == CS_METRIC_FAST   ? CS_WIDTH_FAST
                       : r->kind == CS_METRIC_SLOW ? CS_WIDTH_SLOW
                                                   : 1;
        bool counter = r->kind == CS_METRIC_COUNTER || r->kind == CS_METRIC_SECONDS;
        size_t n = strlen(r->name);
        CS_EQ_U64(r->slot, next); /* no two share a slot, none is outside */
        next += width * r->dim[0]->n * r->dim[1]->n;
        CS_CHECK(strspn(r->name, "abcdefghijklmnopqrstuvwxyz_") == n);
        CS_CHECK(counter == (n > 6 && strcmp(r->name + n - 6, "_total") == 0));
        CS_CHECK(strpbrk(r->help, "\\\n\"") == NULL);
        for (size_t k = 0; k < 2; k++) {
            const struct cs_metric_dim *d = r->dim[k];
            CS_CHECK(strspn(d->label, "abcdefghijklmnopqrstuvwxyz") == strlen(d->label));
            CS_CHECK(strspn(d->values, "abcdefghijklmnopqrstuvwxyz0123456789-|") ==
                     strlen(d->values));
            if (d->values[0] != 0) {
                CS_EQ_U64(d->n, values_in(d->values));
            } else {
                CS_CHECK(d->n == 1 || d->n == CS_EV_MAX);
            }
        }
    }
    CS_EQ_U64(next, CS_METRIC_SLOTS);
}

CS_TEST(metrics_dial_errors_have_their_value)
{
    CS_EQ_U64(cs_metric_reached(CS_OK), 0);
    CS_EQ_U64(cs_metric_reached(CS_ERR_TIMEOUT), 2);
    CS_EQ_U64(cs_metric_reached(CS_ERR_INTERNAL), CS_DIM_REACHED - 1);
}
