/* The pages of metrics (ipc/metrics.h): one for each start of a role, which counts in it, and one
 * for each role that the supervisor writes itself: whether it runs, how often it was started again,
 * its memory and processor time, how far its ring is behind. Front gets both to read. Called by
 * wire.c for each start, by child.c when one changes, and on a timer.
 *
 * Must never be in the way of serving: what cannot be counted is logged, and not counted. */
#include "ipc/metrics.h"
#include "base/log.h"
#include "base/reader.h"
#include "ipc/ring.h"
#include "roles/supervisor.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define LOOK_NS (2 * CS_NS_PER_S)
enum { STAT_MAX = 1024, STAT_UTIME = 14, STAT_STIME = 15, STAT_RSS = 24 };

static void close_fd(int *fd)
{
    if (*fd > 0) {
        (void)close(*fd);
    }
    *fd = 0;
}

static void say(uint64_t *page, size_t slot, uint64_t v)
{
    __atomic_store_n(&page[slot], v, __ATOMIC_RELAXED);
}

/* ---- about a process ---- */

/* The nth field of /proc/PID/stat, from 3 on: those behind the name, which may hold anything. */
static uint64_t stat_field(struct cs_slice s, unsigned nth)
{
    size_t at = s.n;
    while (at > 0 && s.p[at - 1] != ')') {
        at--;
    }
    s = cs_slice_from(s, CS_MIN(at + 1, s.n));
    for (unsigned i = 3; i < nth; i++) {
        s = cs_slice_from(s, CS_MIN(cs_slice_find(s, ' ') + 1, s.n));
    }
    uint64_t v = 0;
    return cs_slice_to_u64(cs_slice_head(s, cs_slice_find(s, ' ')), &v) ? v : 0;
}

static void look_at(uint64_t *page, pid_t pid)
{
    char path[40], text[STAT_MAX];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    struct cs_slice s = cs_slice(text, n > 0 ? (size_t)n : 0);
    uint64_t hz = (uint64_t)CS_MAX(sysconf(_SC_CLK_TCK), 1L);
    uint64_t ticks = stat_field(s, STAT_UTIME) + stat_field(s, STAT_STIME);
    say(page, CS_SLOT_RESIDENT,
        stat_field(s, STAT_RSS) * (uint64_t)CS_MAX(sysconf(_SC_PAGESIZE), 1L));
    say(page, CS_SLOT_CPU, ticks * (CS_NS_PER_S / hz));
}

/* A gate may write anything into its ring's indices. */
static uint64_t lag_of(const struct cs_child *c)
{
    uint64_t written = 0, durable = 0;
    bool seen = c->ring.epoch != 0 && cs_ring_peek(c->ring.fd[0], &written, &durable);
    return seen && written > durable ? CS_MIN(written - durable, (uint64_t)CS_LIMIT_RING_BYTES) : 0;
}

void cs_metrics_changed(struct cs_child *c)
{
    if (c->about == NULL) {
        return;
    }
    say(c->about, CS_SLOT_LISTED, c->alive || !(c->draining || c->retired) ? 1 : 0);
    say(c->about, CS_SLOT_UP, c->pid > 0 && c->ready ? 1 : 0);
    say(c->about, CS_SLOT_DRAINING, c->draining ? 1 : 0);
    say(c->about, CS_SLOT_RESTARTS, c->restarts);
    if (c->pid > 0 && cs_metric_read(c->about, CS_SLOT_STARTED) == 0) {
        uint64_t up_ns = cs_mono_ns() - c->started_ns;
        say(c->about, CS_SLOT_STARTED, cs_wall_ms() - up_ns / CS_NS_PER_MS);
    }
    if (c->pid <= 0) {
        say(c->about, CS_SLOT_STARTED, 0);
        say(c->about, CS_SLOT_RESIDENT, 0);
        say(c->about, CS_SLOT_CPU, 0);
    }
}

static void look(struct cs_child *c)
{
    if (c->about == NULL || c->pid <= 0) {
        return;
    }
    bool stopped = c->ring.epoch != 0 && cs_ring_peek_health(c->ring.fd[0]) != CS_RECORD_HEALTHY;
    cs_metrics_changed(c);
    look_at(c->about, c->pid);
    say(c->about, CS_SLOT_RING_LAG, lag_of(c));
    say(c->about, CS_SLOT_RECORD_STOPPED, stopped ? 1 : 0);
}

/* ---- the pages and who gets them ---- */

static void complain(const char *who, enum cs_err err)
{
    cs_log(CS_EV_INTERNAL, NULL, "what=\"metrics of %s\" error=%s", who, cs_err_name(err));
}

static enum cs_err about_make(int *ret_fd, uint64_t **ret_page)
{
    enum cs_err err = *ret_page == NULL ? cs_metrics_make(ret_fd) : CS_OK;
    if (err == CS_OK && *ret_page == NULL) {
        err = cs_metrics_map(*ret_fd, ret_page);
    }
    if (err == CS_OK) {
        say(*ret_page, CS_SLOT_LAYOUT, cs_metric_layout());
    }
    return err;
}

/* Its own page, and ours about it, read-only. */
static enum cs_err tell(struct cs_child *front, enum cs_role role, uint64_t index, int own,
                        int about)
{
    const struct cs_msg_metrics_of m = {.role = (uint64_t)role, .index = index};
    int fds[2] = {-1, -1};
    enum cs_err err = cs_metrics_readonly(own, &fds[0]);
    if (err == CS_OK) {
        err = cs_metrics_readonly(about, &fds[1]);
    }
    if (err == CS_OK) {
        err = cs_channel_send(front->channel, CS_MSG_METRICS_OF, 0, &m, fds, 2);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    return err;
}

static void tell_front(struct cs_child *c)
{
    struct cs_child *front = cs_child_of(c->sv, CS_ROLE_FRONT, 0);
    if (front != NULL && front->channel != NULL && c->metrics_fd > 0 && c->about_fd > 0) {
        enum cs_err err = tell(front, c->row->role, c->index, c->metrics_fd, c->about_fd);
        if (err != CS_OK) {
            complain(c->name, err);
        }
    }
}

/* Front is new: it gets everybody's. */
static void tell_all(struct cs_child *front)
{
    struct cs_supervisor *sv = front->sv;
    for (size_t i = 0; i < sv->n_children; i++) {
        if (sv->children[i].alive || !sv->children[i].draining) {
            tell_front(&sv->children[i]);
        }
    }
    if (sv->metrics_fd > 0 && sv->about_fd > 0) {
        enum cs_err err = tell(front, CS_ROLE_SUPERVISOR, 0, sv->metrics_fd, sv->about_fd);
        if (err != CS_OK) {
            complain("supervisor", err);
        }
    }
}

void cs_metrics_wire(struct cs_child *c)
{
    const struct cs_msg_metrics m = {.end_ = 0};
    int fd = -1;
    enum cs_err err = about_make(&c->about_fd, &c->about);
    if (err == CS_OK) {
        err = cs_metrics_make(&fd); /* a new one: what the process before said is over */
    }
    if (err == CS_OK) {
        close_fd(&c->metrics_fd);
        c->metrics_fd = fd;
        err = cs_channel_send(c->channel, CS_MSG_METRICS, 0, &m, &fd, 1);
    }
    if (err != CS_OK) {
        complain(c->name, err);
        return;
    }
    cs_metrics_changed(c);
    if (c->row->role == CS_ROLE_FRONT) {
        tell_all(c);
    } else {
        tell_front(c);
    }
}

void cs_metrics_adopt(struct cs_child *c, int fd)
{
    c->metrics_fd = fd > 0 ? fd : 0;
    enum cs_err err = about_make(&c->about_fd, &c->about);
    if (err != CS_OK) {
        complain(c->name, err);
    }
}

void cs_metrics_done(struct cs_child *c)
{
    cs_metrics_unmap(c->about);
    c->about = NULL;
    close_fd(&c->about_fd);
    close_fd(&c->metrics_fd);
}

/* ---- the supervisor's own ---- */

void cs_metrics_begin(struct cs_supervisor *sv)
{
    enum cs_err err = cs_metrics_make(&sv->metrics_fd);
    if (err == CS_OK) {
        int own = fcntl(sv->metrics_fd, F_DUPFD_CLOEXEC, 3);
        if (own >= 0) {
            cs_metrics_open(own);
        }
        err = about_make(&sv->about_fd, &sv->about);
    }
    if (err != CS_OK) {
        complain("supervisor", err);
        return;
    }
    say(sv->about, CS_SLOT_LISTED, 1);
    say(sv->about, CS_SLOT_UP, 1);
    say(sv->about, CS_SLOT_STARTED, sv->started_ms);
    cs_metric_set(CS_SLOT_GENERATION, sv->generation);
    cs_metric_set(CS_SLOT_SEEN, cs_wall_ms());
}

static bool is_wanted(const struct cs_supervisor *sv)
{
    for (size_t i = 0; i < sv->n_listeners; i++) {
        if (strcmp(sv->listeners[i].kind, "metrics") == 0) {
            return true;
        }
    }
    return false;
}

void cs_metrics_run(void *supervisor)
{
    struct cs_supervisor *sv = supervisor;
    while (is_wanted(sv) && sv->about != NULL) { /* else nobody would read it */
        for (size_t i = 0; i < sv->n_children; i++) {
            look(&sv->children[i]);
        }
        look_at(sv->about, getpid());
        cs_metric_set(CS_SLOT_SEEN, cs_wall_ms());
        if (!cs_co_sleep(LOOK_NS)) {
            return;
        }
    }
}
