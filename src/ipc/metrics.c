/* Pages of counters: making, mapping, and the table of what stands where. Called by the supervisor,
 * which makes them, by every role for its own, and by front, which reads them all.
 *
 * SECURITY: who reads a page believes nothing in it: every number is a number whatever it is, the
 * size is sealed, and where what stands is this table's word, not the page's. Who was taken over
 * can lie about its own numbers and reach no others: front's descriptors cannot be written by. */
#include "ipc/metrics.h"

#include "runtime/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_GROW | F_SEAL_SHRINK)
#define US    UINT64_C(1000)
#define MS    (1000 * US)
#define S     (1000 * MS)

const uint64_t cs_fast_bounds[CS_FAST_BOUNDS] = {
    5 * US,    10 * US, 25 * US, 50 * US, 100 * US, 250 * US, 500 * US, MS,
    2500 * US, 5 * MS,  10 * MS, 25 * MS, 50 * MS,  100 * MS, 500 * MS, 2500 * MS};
const uint64_t cs_slow_bounds[CS_SLOW_BOUNDS] = {S,       2 * S,    5 * S,    10 * S,
                                                 30 * S,  60 * S,   120 * S,  300 * S,
                                                 600 * S, 1200 * S, 1800 * S, 3600 * S};

static const struct cs_metric_dim dims[] = {
#define CS_DIM(id, n, label, values) {label, values, n},
#include "ipc/metrics.def"
#undef CS_DIM
};
enum {
#define CS_DIM(id, n, label, values) AT_##id,
#include "ipc/metrics.def"
#undef CS_DIM
};

#define ROLE(r)        (1 << CS_ROLE_##r)
#define WHO_NOBODY     CS_METRIC_NOBODY
#define WHO_ABOUT      CS_METRIC_ABOUT
#define WHO_EVERYBODY  CS_METRIC_EVERYBODY
#define WHO_SUPERVISOR ROLE(SUPERVISOR)
#define WHO_GATE       ROLE(GATE)
#define WHO_CONTROL    ROLE(CONTROL)
#define WHO_FRONT      ROLE(FRONT)
#define WHO_KEEPER     ROLE(KEEPER)
#define WHO_DIALER     ROLE(DIALER)
#define WHO_PROBE      ROLE(PROBE)
#define WHO_RECORDER   ROLE(RECORDER)

const struct cs_metric_row cs_metric_rows[] = {
#define CS_METRIC(id, who, kind, d1, d2, name, help)                                               \
    {name, help, WHO_##who, CS_METRIC_##kind, {&dims[AT_##d1], &dims[AT_##d2]}, CS_SLOT_##id},
#include "ipc/metrics.def"
#undef CS_METRIC
};
const size_t cs_metric_row_count = CS_ARRAY_LEN(cs_metric_rows);

static uint64_t nowhere[CS_METRIC_SLOTS];
uint64_t *cs_metrics_own = nowhere;

/* ---- the layout ---- */

static uint64_t mix(uint64_t h, const char *text)
{
    for (; *text != 0; text++) {
        h = (h ^ (uint8_t)*text) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

/* Another program's page (an upgrade) may have other numbers at the same places. */
uint64_t cs_metric_layout(void)
{
    uint64_t h = CS_METRIC_SLOTS;
    for (size_t i = 0; i < cs_metric_row_count; i++) {
        h = mix(h, cs_metric_rows[i].name) ^ cs_metric_rows[i].slot;
        for (size_t k = 0; k < 2; k++) {
            h = mix(h, cs_metric_rows[i].dim[k]->values) + cs_metric_rows[i].dim[k]->n;
        }
    }
    for (unsigned i = 0; i < CS_EV_MAX; i++) {
        h = mix(h, cs_event_name((enum cs_event_id)i));
    }
    return h;
}

unsigned cs_metric_reached(enum cs_err e)
{
    static const struct {
        enum cs_err err;
        unsigned value;
    } table[] = {{CS_OK, 0},          {CS_ERR_REFUSED, 1},
                 {CS_ERR_TIMEOUT, 2}, {CS_ERR_NOT_FOUND, 3},
                 {CS_ERR_DENIED, 4},  {CS_ERR_LIMIT, 5}};
    for (size_t i = 0; i < CS_ARRAY_LEN(table); i++) {
        if (table[i].err == e) {
            return table[i].value;
        }
    }
    return CS_DIM_REACHED - 1;
}

/* ---- pages ---- */

enum cs_err cs_metrics_make(int *ret_fd)
{
    int fd = memfd_create("countersign-metrics", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    if (ftruncate(fd, CS_METRIC_BYTES) != 0 || fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) != 0) {
        enum cs_err err = cs_err_from_errno(errno);
        (void)close(fd);
        return err;
    }
    *ret_fd = fd;
    return CS_OK;
}

enum cs_err cs_metrics_readonly(int fd, int *ret_fd)
{
    char path[40];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY | O_CLOEXEC);
    if (again < 0) {
        return cs_err_from_errno(errno);
    }
    *ret_fd = again;
    return CS_OK;
}

static enum cs_err map(int fd, int protection, void **ret)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    /* SECURITY: a page that could shrink would kill its reader by SIGBUS. */
    if (seals < 0 || (seals & SEALS) != SEALS || cs_fstat(fd, &st) != 0) {
        return CS_ERR_PROTOCOL;
    }
    if (st.st_size != CS_METRIC_BYTES) {
        return CS_ERR_UNSUPPORTED;
    }
    void *p = mmap(NULL, CS_METRIC_BYTES, protection, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        return cs_err_from_errno(errno);
    }
    *ret = p;
    return CS_OK;
}

enum cs_err cs_metrics_map(int fd, uint64_t **ret)
{
    void *p = NULL;
    enum cs_err err = map(fd, PROT_READ | PROT_WRITE, &p);
    if (err == CS_OK) {
        *ret = p;
    }
    return err;
}

enum cs_err cs_metrics_map_readonly(int fd, const uint64_t **ret)
{
    void *p = NULL;
    enum cs_err err = map(fd, PROT_READ, &p);
    if (err == CS_OK) {
        *ret = p;
    }
    return err;
}

void cs_metrics_unmap(const uint64_t *page)
{
    union {
        const uint64_t *in;
        void *out;
    } p = {page};
    if (page != NULL && page != nowhere) {
        (void)munmap(p.out, CS_METRIC_BYTES);
    }
}

void cs_metrics_open(int fd)
{
    uint64_t *page = NULL;
    enum cs_err err = cs_metrics_map(fd, &page);
    (void)close(fd);
    if (err != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "what=\"the page of metrics\" error=%s", cs_err_name(err));
        return;
    }
    const uint64_t *old = cs_metrics_own;
    for (size_t i = 0; i < CS_METRIC_SLOTS; i++) {
        page[i] = cs_metric_read(old, i);
    }
    page[CS_SLOT_LAYOUT] = cs_metric_layout();
    cs_metrics_own = page;
    cs_log_count(page + CS_SLOT_EVENTS);
    cs_metrics_unmap(old);
}

/* ---- histograms ---- */

static void observe(size_t slot, const uint64_t *bounds, size_t n, uint64_t ns)
{
    size_t i = 0;
    while (i < n && ns > bounds[i]) {
        i++;
    }
    cs_metric_add(slot + i, 1);
    cs_metric_add(slot + n + 1, ns);
}

void cs_metric_fast(size_t slot, uint64_t ns)
{
    observe(slot, cs_fast_bounds, CS_FAST_BOUNDS, ns);
}

void cs_metric_slow(size_t slot, uint64_t ns)
{
    observe(slot, cs_slow_bounds, CS_SLOW_BOUNDS, ns);
}
