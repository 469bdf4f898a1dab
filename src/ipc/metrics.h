/* Counters in shared memory. The supervisor makes a page for each process that it starts; that
 * process counts in it, and whoever tells the numbers (front) maps it to read. A second page a
 * process is the supervisor's, about it.
 *
 * Counting is one relaxed load and store of a number in the process's own page: only the thread of
 * its loop may count. A process that was never given a page (a test, a command) counts in memory of
 * its own that nobody reads. */
#ifndef CS_IPC_METRICS_H
#define CS_IPC_METRICS_H

#include "base/err.h"
#include "base/log.h"
#include "ipc/ipc.h"

/* Upper bounds of the histograms' buckets, in nanoseconds; one more is for what is longer. */
enum { CS_FAST_BOUNDS = 16, CS_SLOW_BOUNDS = 12 };
extern const uint64_t cs_fast_bounds[CS_FAST_BOUNDS], cs_slow_bounds[CS_SLOW_BOUNDS];

enum cs_metric_kind {
    CS_METRIC_COUNTER,
    CS_METRIC_GAUGE,
    CS_METRIC_SECONDS,
    CS_METRIC_TIME,
    CS_METRIC_FAST,
    CS_METRIC_SLOW
};
enum { /* slots of one series of a kind; a histogram: its buckets, then the sum */
       CS_WIDTH_COUNTER = 1,
       CS_WIDTH_GAUGE = 1,
       CS_WIDTH_SECONDS = 1,
       CS_WIDTH_TIME = 1,
       CS_WIDTH_FAST = CS_FAST_BOUNDS + 2,
       CS_WIDTH_SLOW = CS_SLOW_BOUNDS + 2
};
enum {
#define CS_DIM(id, n, label, values) CS_DIM_##id = (n),
#include "ipc/metrics.def"
#undef CS_DIM
};
/* CS_SLOT_LAYOUT names the table that a page was filled by; then CS_SLOT_EVENTS and so on: the
 * first slot of a metric. With two labels: first + value of the first * CS_DIM_SECOND + value of
 * the second. */
enum {
    CS_SLOT_LAYOUT,
#define CS_METRIC(id, who, kind, d1, d2, name, help)                                               \
    CS_SLOT_##id,                                                                                  \
        CS_SLOT_LAST_##id = CS_SLOT_##id + CS_DIM_##d1 * CS_DIM_##d2 * CS_WIDTH_##kind - 1,
#include "ipc/metrics.def"
#undef CS_METRIC
    CS_METRIC_SLOTS
};
enum { CS_METRIC_BYTES = (CS_METRIC_SLOTS * 8 + 4095) / 4096 * 4096 };

/* Values of labels that code names; the others are enums from elsewhere, in the same order. */
enum { CS_LOGIN_OK, CS_LOGIN_REFUSED, CS_LOGIN_NO_TARGET, CS_LOGIN_FAILED };
enum { CS_TAKEN_OK, CS_TAKEN_REFUSED };
enum { CS_IN, CS_OUT };
enum { CS_VOTE_APPROVE, CS_VOTE_DENY };
enum { CS_USED_SEAL, CS_USED_PROOF, CS_USED_RECORDINGS, CS_USED_REPLAY };
enum { CS_HTTP_CONTROL, CS_HTTP_LOCAL, CS_HTTP_METRICS };
enum { CS_SERVES_CONTROL, CS_SERVES_POSTGRES, CS_SERVES_METRICS };
/* The value of REACHED for what a dial came to. */
unsigned cs_metric_reached(enum cs_err e);

/* ---- the rows, for who tells the numbers ---- */
enum { /* bits of `who`, beside 1 << enum cs_role */
       CS_METRIC_NOBODY = 0,
       CS_METRIC_ABOUT = 1 << CS_ROLE_MAX,
       CS_METRIC_EVERYBODY = (1 << CS_ROLE_MAX) - 1
};
struct cs_metric_dim {
    const char *label, *values; /* values: "a|b"; empty for events, whose names are elsewhere */
    size_t n;
};
struct cs_metric_row {
    const char *name, *help;
    unsigned who;
    enum cs_metric_kind kind;
    const struct cs_metric_dim *dim[2];
    size_t slot;
};
extern const struct cs_metric_row cs_metric_rows[];
extern const size_t cs_metric_row_count;
/* What CS_SLOT_LAYOUT holds in a page of this table. */
uint64_t cs_metric_layout(void);

/* ---- pages ---- */
/* A page of zeros (supervisor), of sealed size. */
enum cs_err cs_metrics_make(int *ret_fd) CS_MUST_CHECK;
/* A second descriptor of the page, with which nobody can write (supervisor). */
enum cs_err cs_metrics_readonly(int fd, int *ret_fd) CS_MUST_CHECK;
/* This process counts in this page from now on, and what it has counted before is in it. Takes over
 * fd, also on failure: then nobody will read what it counts. */
void cs_metrics_open(int fd);
/* To write about another process (supervisor). The caller keeps fd. */
enum cs_err cs_metrics_map(int fd, uint64_t **ret) CS_MUST_CHECK;
/* To read; the caller keeps fd. UNSUPPORTED: not of this table's size. What stands in the page can
 * be anything, and change at any time. */
enum cs_err cs_metrics_map_readonly(int fd, const uint64_t **ret) CS_MUST_CHECK;
void cs_metrics_unmap(const uint64_t *page);

/* ---- counting ---- */
extern uint64_t *cs_metrics_own; /* never NULL; changed by cs_metrics_open alone */

static inline void cs_metric_set(size_t slot, uint64_t v)
{
    __atomic_store_n(&cs_metrics_own[slot], v, __ATOMIC_RELAXED);
}
static inline void cs_metric_add(size_t slot, uint64_t n)
{
    uint64_t *at = &cs_metrics_own[slot];
    __atomic_store_n(at, __atomic_load_n(at, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
static inline uint64_t cs_metric_read(const uint64_t *page, size_t slot)
{
    return __atomic_load_n(&page[slot], __ATOMIC_RELAXED);
}
/* Into a histogram. */
void cs_metric_fast(size_t slot, uint64_t ns);
void cs_metric_slow(size_t slot, uint64_t ns);

#endif
