/* The dialer role. Each DIAL runs in a coroutine of its own. What one target may occupy is bounded,
 * so that a thousand dead ones leave room for those that live: a few dials at once to one address,
 * one look-up at a time of one name, everything for CS_LIMIT_CONNECT_S at most. */
#include "dialer/dialer.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/time.h"
#include "crypto/crypto.h"
#include "dialer/resolver.h"
#include "ipc/metrics.h"
#include "policy/policy.h"
#include "runtime/process.h"
#include "runtime/sock.h"
#include "wire/snapshot.h"

#include <unistd.h>

enum {
    ARENA_CHUNK = 64 * 1024,
    ARENA_MAX = 256 * 1024 * 1024,
    ADDRESS_MAX = 300,
    BUCKETS = 1024,
    ANSWER_TRIES = 500
};

/* An address with dials under way. */
struct place {
    struct place *next; /* in its bucket */
    size_t users;       /* dials that know it; freed with the last */
    size_t active;      /* of them, those that have a turn */
    bool looking_up;
    struct cs_event moved; /* a turn, or the look-up, became free */
    size_t n;
    uint8_t address[ADDRESS_MAX];
};

struct dial {
    struct cs_dialer *d;
    struct place *place;
    uint32_t corr;
    uint64_t deadline;
    uint64_t asker; /* which control asked */
};

struct cs_dialer {
    struct cs_loop *loop;
    struct cs_channel *supervisor, *control; /* NULL = none */
    uint64_t control_epoch;                  /* counts the controls */
    bool stopping, failed;
    struct cs_slow *threads;
    struct cs_slice map; /* owned, sealed memory: the snapshot */
    struct cs_arena arena;
    struct cs_policy *policy; /* arena; NULL before the first snapshot */
    struct place *bucket[BUCKETS];
    size_t n_dials;
};

static void stop(struct cs_dialer *d, bool failed)
{
    d->stopping = true;
    d->failed = d->failed || failed;
    cs_loop_stop(d->loop);
}

/* ---- places ---- */

static size_t bucket_of(struct cs_slice address)
{
    uint32_t h = 2166136261U; /* FNV-1a; addresses come from the configuration, not from clients */
    for (size_t i = 0; i < address.n; i++) {
        h = (uint32_t)(((uint64_t)(h ^ address.p[i]) * 16777619U) & UINT32_MAX);
    }
    return h % BUCKETS;
}

static struct place *place_get(struct cs_dialer *d, struct cs_slice address)
{
    struct place **head = &d->bucket[bucket_of(address)];
    for (struct place *p = *head; p != NULL; p = p->next) {
        if (cs_slice_eq(cs_slice(p->address, p->n), address)) {
            return p;
        }
    }
    struct place *p = cs_alloc(sizeof *p);
    if (p != NULL) {
        memcpy(p->address, address.p, address.n); /* its length was checked */
        p->n = address.n;
        p->next = *head;
        *head = p;
    }
    return p;
}

static void place_release(struct cs_dialer *d, struct place *p)
{
    cs_event_set(&p->moved);
    if (p->users > 0) {
        return;
    }
    struct place **at = &d->bucket[bucket_of(cs_slice(p->address, p->n))];
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    cs_free(p);
}

/* Waits until somebody let go of something. */
static enum cs_err place_wait(struct place *p, uint64_t deadline)
{
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &p->moved);
    cs_event_clear(&p->moved);
    enum cs_woke woke = cs_wait(&w, 1, deadline);
    if (woke == CS_WOKE_CANCELLED) {
        return CS_ERR_CANCELLED;
    }
    return woke == CS_WOKE_DEADLINE ? CS_ERR_TIMEOUT : CS_OK;
}

/* ---- one dial ---- */

/* SECURITY: fresh each time: a name is dialled where it leads now, and what it leads to is judged
 * each time. */
static enum cs_err resolve(struct dial *j, struct cs_resolved *ret)
{
    struct place *p = j->place;
    enum cs_err e = CS_OK;
    while (p->looking_up && e == CS_OK) {
        e = place_wait(p, j->deadline);
    }
    if (e == CS_OK) {
        p->looking_up = true;
        e = cs_resolve(j->d->threads, cs_slice(p->address, p->n), j->deadline, ret);
        p->looking_up = false;
        cs_event_set(&p->moved);
    }
    return e;
}

static enum cs_err connect_any(struct dial *j, int *ret_fd)
{
    struct cs_resolved found;
    memset(&found, 0, sizeof found);
    enum cs_err e = resolve(j, &found);
    if (e != CS_OK) {
        return e;
    }
    e = CS_ERR_DENIED;
    for (size_t i = 0; i < found.n; i++) {
        const struct sockaddr *sa = (const struct sockaddr *)&found.sa[i];
        char text[CS_ADDR_TEXT];
        if (!found.literal && cs_dial_forbidden(sa)) {
            cs_log(CS_EV_UPSTREAM_FAILED, NULL, "address=%s leads_to=%s why=\"never dialled\"",
                   cs_log_quote(cs_slice(j->place->address, j->place->n)).text,
                   cs_addr_text(sa, text));
            continue;
        }
        e = cs_connect(sa, found.len[i], j->deadline, ret_fd);
        if (e == CS_OK || e == CS_ERR_CANCELLED || e == CS_ERR_TIMEOUT) {
            break;
        }
    }
    return e;
}

static enum cs_err dial_in_turn(struct dial *j, int *ret_fd)
{
    struct place *p = j->place;
    enum cs_err e = CS_OK;
    while (p->active >= CS_LIMIT_DIALS_PER_ADDRESS && e == CS_OK) {
        e = place_wait(p, j->deadline);
    }
    if (e == CS_OK) {
        p->active++;
        e = connect_any(j, ret_fd);
        p->active--;
    }
    return e;
}

/* Answers, unless who asked is gone. Waits while its channel is full: thousands of dials may end in
 * the same moment. A control that does not read for so long has hung. */
static void answer(struct cs_dialer *d, uint64_t asker, uint32_t corr, enum cs_err e, int fd)
{
    const struct cs_msg_dialed yes = {.end_ = 0};
    const struct cs_msg_not_dialed no = {.err = (uint64_t)e};
    for (int i = 0; i < ANSWER_TRIES; i++) {
        if (d->control == NULL || d->control_epoch != asker) {
            return;
        }
        enum cs_err sent = e == CS_OK
                               ? cs_channel_send(d->control, CS_MSG_DIALED, corr, &yes, &fd, 1)
                               : cs_channel_send(d->control, CS_MSG_NOT_DIALED, corr, &no, NULL, 0);
        if (sent == CS_OK || !cs_channel_alive(d->control) || !cs_co_sleep(10 * CS_NS_PER_MS)) {
            return;
        }
    }
    cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control why=\"does not read\"");
    stop(d, true); /* a new dialer gets a new channel */
}

static void dial_run(void *arg)
{
    struct dial *j = arg;
    struct cs_dialer *d = j->d;
    int fd = -1;
    enum cs_err e = dial_in_turn(j, &fd);
    cs_metric_add(CS_SLOT_DIALS + cs_metric_reached(e), 1);
    answer(d, j->asker, j->corr, e, fd);
    if (fd >= 0) {
        (void)close(fd);
    }
    d->n_dials--;
    j->place->users--;
    place_release(d, j->place);
    cs_free(j);
}

static bool registered(const struct cs_dialer *d, struct cs_slice address)
{
    for (size_t i = 0; d->policy != NULL && i < cs_policy_target_count(d->policy); i++) {
        if (cs_slice_eq(cs_policy_target_at(d->policy, i)->address, address)) {
            return true;
        }
    }
    return false;
}

static enum cs_err dial_start(struct cs_dialer *d, uint32_t corr, const struct cs_msg_dial *m)
{
    cs_handle co;
    uint64_t last = cs_mono_ns() + CS_LIMIT_CONNECT_S * CS_NS_PER_S;
    /* SECURITY: whatever control says, only where the configuration leads. */
    if (m->address.n == 0 || m->address.n > ADDRESS_MAX || !registered(d, m->address)) {
        cs_log(CS_EV_UPSTREAM_FAILED, NULL, "address=%s why=\"is of no target\"",
               cs_log_quote(m->address).text);
        return CS_ERR_DENIED;
    }
    if (d->n_dials >= CS_LIMIT_DIALS) {
        return CS_ERR_LIMIT;
    }
    struct place *p = place_get(d, m->address);
    if (p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err e = CS_OK;
    if (p->users >= CS_LIMIT_DIALS_PER_ADDRESS && d->n_dials >= CS_LIMIT_DIALS / 2) {
        e = CS_ERR_LIMIT; /* those who only wait must not keep others out */
    }
    struct dial *j = e == CS_OK ? cs_alloc(sizeof *j) : NULL;
    if (j != NULL) {
        *j = (struct dial){d, p, corr, CS_MIN(m->deadline, last), d->control_epoch};
        p->users++;
        e = cs_co_spawn(d->loop, "dial", dial_run, j, &co);
        if (e == CS_OK) {
            d->n_dials++;
            return CS_OK;
        }
        p->users--;
        cs_free(j);
    }
    place_release(d, p);
    return e == CS_OK ? CS_ERR_NO_MEMORY : e;
}

/* ---- channels ---- */

static void close_fds(const struct cs_channel_in *in)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
        if (in->fd[i] >= 0) {
            (void)close(in->fd[i]);
        }
    }
}

static void on_control(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_dialer *d = arg;
    if (in->type != CS_MSG_DIAL || in->corr == 0 || ch != d->control) {
        close_fds(in);
        return;
    }
    enum cs_err e = dial_start(d, in->corr, in->msg);
    if (e != CS_OK) {
        answer(d, d->control_epoch, in->corr, e, -1);
    }
}

static void on_control_gone(struct cs_channel *ch, void *arg)
{
    struct cs_dialer *d = arg;
    if (d->control == ch) {
        const char *why = cs_channel_broken_why(ch);
        if (why != NULL) {
            cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control why=\"%s\"", why);
        }
        d->control = NULL;
        cs_channel_close(ch);
    }
}

static void on_peer(struct cs_dialer *d, const struct cs_msg_peer *m, int fd)
{
    if (m->role != CS_ROLE_CONTROL) {
        (void)close(fd);
        return;
    }
    if (d->control != NULL) {
        cs_channel_close(d->control);
        d->control = NULL;
    }
    d->control_epoch++;
    enum cs_err e = cs_channel_open(d->loop, fd, CS_ROLE_DIALER, CS_ROLE_CONTROL, m->index,
                                    on_control, on_control_gone, d, &d->control);
    if (e != CS_OK) {
        d->control = NULL;
        cs_log(CS_EV_INTERNAL, NULL, "peer=control error=%s", cs_err_name(e));
        return;
    }
    cs_channel_run_phase(d->control);
}

/* ---- snapshots ---- */

static enum cs_err snapshot_load(struct cs_slice map, struct cs_slice sha256, struct cs_arena *a,
                                 struct cs_policy **ret)
{
    uint8_t hash[CS_SHA256];
    struct cs_snapshot s;
    cs_sha256(map, hash);
    if (!cs_slice_eq(sha256, cs_slice(hash, sizeof hash)) || !cs_snapshot_read(map, &s)) {
        return CS_ERR_CORRUPT;
    }
    return cs_policy_load(s.policy, a, ret);
}

static void snapshot_drop(struct cs_dialer *d)
{
    if (d->map.p != NULL) {
        cs_arena_done(&d->arena);
        cs_sealed_unmap(d->map);
        d->map = CS_SLICE_NULL;
        d->policy = NULL;
    }
}

static void on_snapshot(struct cs_dialer *d, const struct cs_msg_snapshot *m, int fd)
{
    struct cs_slice map = CS_SLICE_NULL;
    struct cs_arena arena;
    struct cs_policy *policy = NULL;
    const struct cs_msg_ready ready = {.end_ = 0};
    bool first = d->policy == NULL;
    enum cs_err e = cs_sealed_map(fd, CS_SNAPSHOT_MAX, &map);
    (void)close(fd);
    if (e == CS_OK) {
        cs_arena_init(&arena, ARENA_CHUNK, ARENA_MAX);
        e = snapshot_load(map, m->sha256, &arena, &policy);
        if (e != CS_OK) {
            cs_arena_done(&arena);
            cs_sealed_unmap(map);
        }
    }
    if (e != CS_OK) {
        /* It would dial by old rules: better a new process that asks again. */
        cs_log(CS_EV_RELOAD_FAILED, NULL, "snapshot=%s", cs_err_name(e));
        stop(d, true);
        return;
    }
    snapshot_drop(d);
    d->map = map;
    d->arena = arena;
    d->policy = policy;
    if (!first) {
        return;
    }
    if (cs_channel_send(d->supervisor, CS_MSG_READY, 0, &ready, NULL, 0) != CS_OK) {
        stop(d, true);
        return;
    }
    cs_channel_run_phase(d->supervisor);
    cs_log(CS_EV_STARTED, NULL, "targets=%zu", cs_policy_target_count(policy));
}

static void on_supervisor(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_dialer *d = arg;
    (void)ch;
    switch ((int)in->type) {
    case CS_MSG_METRICS:
        cs_metrics_open(in->fd[0]);
        break;
    case CS_MSG_SNAPSHOT:
        on_snapshot(d, in->msg, in->fd[0]);
        break;
    case CS_MSG_PEER:
        on_peer(d, in->msg, in->fd[0]);
        break;
    case CS_MSG_SHUTDOWN:
        cs_log(CS_EV_STOPPED, NULL, "dials=%zu", d->n_dials);
        stop(d, false);
        break;
    default:
        close_fds(in);
        break;
    }
}

static void on_supervisor_gone(struct cs_channel *ch, void *arg)
{
    struct cs_dialer *d = arg;
    d->supervisor = NULL;
    cs_channel_close(ch);
    if (!d->stopping) {
        stop(d, true);
    }
}

enum cs_err cs_dialer_new(struct cs_loop *loop, int supervisor_fd, struct cs_dialer **ret)
{
    struct cs_dialer *d = cs_alloc(sizeof *d);
    if (d == NULL) {
        (void)close(supervisor_fd);
        return CS_ERR_NO_MEMORY;
    }
    d->loop = loop;
    enum cs_err e = cs_channel_open(loop, supervisor_fd, CS_ROLE_DIALER, CS_ROLE_SUPERVISOR, 0,
                                    on_supervisor, on_supervisor_gone, d, &d->supervisor);
    if (e == CS_OK) {
        e = cs_slow_new(loop, CS_LIMIT_RESOLVER_THREADS, &d->threads);
    } else {
        d->supervisor = NULL;
    }
    if (e != CS_OK) {
        d->threads = NULL;
        cs_dialer_free(d);
        return e;
    }
    *ret = d;
    return CS_OK;
}

void cs_dialer_free(struct cs_dialer *d)
{
    if (d == NULL) {
        return;
    }
    cs_assert(d->n_dials == 0);
    cs_channel_close(d->control);
    cs_channel_close(d->supervisor);
    (void)cs_slow_free(d->threads);
    snapshot_drop(d);
    cs_free(d);
}

int cs_dialer_run(int supervisor_fd)
{
    struct cs_dialer *d = NULL;
    struct cs_loop *loop = cs_loop_new();
    if (loop == NULL || cs_dialer_new(loop, supervisor_fd, &d) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "what=\"start failed\"");
        return 1;
    }
    cs_loop_run(loop);
    int status = d->failed ? 1 : 0;
    cs_dialer_free(d);
    cs_loop_free(loop);
    return status;
}
