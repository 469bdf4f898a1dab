/* The role's life: started by the supervisor, which sends who it is, the configuration and channels
 * to the other roles; READY once the store is open and keeper has answered; ends in order on
 * SHUTDOWN, at once when the supervisor is gone. Nothing here decides anything about people or
 * actions. */
#include "control/check.h"
#include "control/control.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/time.h"
#include "control/api.h"
#include "ipc/metrics.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"

#include <stdio.h>
#include <unistd.h>

#define SETTLE_NS (3 * CS_NS_PER_S)
enum { SWEEP_AFTER_S = 10, KEEPER_WAIT_S = 10, MONTH_CHECK_S = 60 };

static void fail(struct cs_control *c, enum cs_event_id ev, const char *what)
{
    cs_log(ev, NULL, "what=%s", cs_log_quote(cs_slice_str(what)).text);
    c->failed = true;
    c->phase = CS_CONTROL_STOP;
    cs_loop_stop(c->loop);
}

void cs_control_fail(struct cs_control *c, const char *why)
{
    fail(c, CS_EV_INTERNAL, why);
}

/* ---- long polls ---- */

void cs_poll_begin(struct cs_control *c, struct cs_poll *p)
{
    memset(p, 0, sizeof *p);
    p->next = c->polls;
    p->prev = &c->polls;
    if (c->polls != NULL) {
        c->polls->prev = &p->next;
    }
    c->polls = p;
}

void cs_poll_end(struct cs_poll *p)
{
    *p->prev = p->next;
    if (p->next != NULL) {
        p->next->prev = p->prev;
    }
}

enum cs_err cs_poll_wait(struct cs_poll *p, uint64_t deadline_ns)
{
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &p->changed);
    enum cs_woke woke = cs_wait(&w, 1, deadline_ns);
    cs_event_clear(&p->changed);
    if (woke == CS_WOKE_CANCELLED) {
        return CS_ERR_CANCELLED;
    }
    return woke == CS_WOKE_DEADLINE ? CS_ERR_TIMEOUT : CS_OK;
}

void cs_control_wake(struct cs_control *c)
{
    for (struct cs_poll *p = c->polls; p != NULL; p = p->next) {
        cs_event_set(&p->changed);
    }
}

/* ---- channels to gates and front ---- */

struct cs_peer *cs_peer_by_key(struct cs_control *c, uint64_t key)
{
    struct cs_peer *p = c->peers;
    while (p != NULL && !(p->role == CS_ROLE_GATE && p->key == key && p->channel != NULL)) {
        p = p->next;
    }
    return p;
}

void cs_peer_release(struct cs_peer *p)
{
    if (p->channel != NULL || p->fd >= 0 || p->jobs > 0) {
        return;
    }
    struct cs_peer **at = &p->c->peers;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    cs_free(p);
}

/* Roles that work for this one. The start itself needs the first two. */
static bool is_helper(enum cs_role role)
{
    return role == CS_ROLE_KEEPER || role == CS_ROLE_DIALER || role == CS_ROLE_PROBE ||
           role == CS_ROLE_RECORDER;
}

static void peer_gone(struct cs_peer *p)
{
    struct cs_channel *ch = p->channel;
    p->channel = NULL;
    if (ch != NULL) {
        cs_channel_close(ch);
    }
    cs_event_set(&p->room);
    if (is_helper(p->role)) {
        cs_peer_release(p); /* calls under way have failed */
    } else if (p->c->phase == CS_CONTROL_STOP) {
        return;
    } else if (p->role == CS_ROLE_GATE) {
        cs_gate_on_gone(p);
    } else {
        cs_api_front_gone(p);
    }
}

static void on_peer_gone(struct cs_channel *ch, void *arg)
{
    struct cs_peer *p = arg;
    if (p->channel == ch) {
        peer_gone(p);
    }
}

void cs_peer_cut(struct cs_peer *p, const char *why)
{
    cs_log(CS_EV_IPC_BROKEN, NULL, "peer=%s/%llu why=\"%s\"", cs_role_name(p->role),
           (unsigned long long)p->index, why);
    if (p->channel != NULL) {
        peer_gone(p);
    }
}

bool cs_peer_send(struct cs_peer *p, enum cs_msg_type t, uint32_t corr, const void *msg,
                  const int *fds, size_t n_fds)
{
    if (p->channel == NULL) {
        return false;
    }
    enum cs_err e = cs_channel_send(p->channel, t, corr, msg, fds, n_fds);
    if (e == CS_OK) {
        return true;
    }
    cs_log(CS_EV_IPC_BROKEN, NULL, "peer=%s/%llu message=%s error=%s", cs_role_name(p->role),
           (unsigned long long)p->index, cs_msg_name(t), cs_err_name(e));
    if (e == CS_ERR_UNAVAILABLE && p->channel != NULL) {
        /* It does not read. A lost answer would leave a client waiting for ever: cut it off, so
         * that its sessions end in order. */
        peer_gone(p);
    }
    return false;
}

static void on_front_message(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_peer *p = arg;
    (void)ch;
    if (in->type == CS_MSG_API) {
        cs_api_start(p, in->corr, in->msg);
    } else if (in->type == CS_MSG_API_GONE) {
        cs_api_gone(p, ((const struct cs_msg_api_gone *)in->msg)->call);
    }
}

/* Keeper and dialer only answer calls: what else they send has nobody to go to. */
static void on_helper_message(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    (void)ch;
    (void)arg;
    for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
        if (in->fd[i] >= 0) {
            (void)close(in->fd[i]);
        }
    }
}

static cs_channel_fn handler_of(enum cs_role role)
{
    switch ((int)role) {
    case CS_ROLE_GATE:
    case CS_ROLE_PROBE:
        return cs_gate_on_message;
    case CS_ROLE_FRONT:
        return on_front_message;
    case CS_ROLE_KEEPER:
    case CS_ROLE_DIALER:
        return on_helper_message;
    case CS_ROLE_RECORDER:
        return cs_audit_on_recorder;
    default:
        return NULL;
    }
}

static void peer_open(struct cs_peer *p)
{
    int fd = p->fd;
    p->fd = -1;
    enum cs_err e = cs_channel_open(p->c->loop, fd, CS_ROLE_CONTROL, p->role, p->index,
                                    handler_of(p->role), on_peer_gone, p, &p->channel);
    if (e != CS_OK) {
        p->channel = NULL;
        cs_log(CS_EV_INTERNAL, NULL, "peer=%s/%llu error=%s", cs_role_name(p->role),
               (unsigned long long)p->index, cs_err_name(e));
        (void)close(fd);
        peer_gone(p);
        return;
    }
    cs_channel_run_phase(p->channel);
    if (p->role == CS_ROLE_GATE) {
        cs_catalogue_tell(p);
    }
}

static void peer_new(struct cs_control *c, const struct cs_msg_peer *m, int fd)
{
    bool known = m->role < CS_ROLE_MAX && handler_of((enum cs_role)m->role) != NULL;
    struct cs_peer *p = known ? cs_alloc(sizeof *p) : NULL;
    if (p == NULL) {
        cs_log(CS_EV_INTERNAL, NULL, "peer=%llu not taken", (unsigned long long)m->role);
        (void)close(fd);
        return;
    }
    p->c = c;
    p->role = (enum cs_role)m->role;
    p->index = m->index;
    p->epoch = m->epoch;
    p->key = (m->epoch << 16) | (m->index & 0xffff);
    p->fd = fd;
    p->next = c->peers;
    c->peers = p;
    bool helper = is_helper(p->role);
    if (helper || c->phase == CS_CONTROL_RUN) { /* the start itself needs them */
        peer_open(p);
    }
    if (helper) {
        cs_event_set(&c->joined);
        cs_event_set(&c->catalogue_moved);
    }
}

/* ---- the first snapshot: start ---- */

/* Recordings of a new month get a new key; until then the old one goes on. */
static void month_check(struct cs_control *c)
{
    char why[300] = "";
    enum cs_err e = cs_recording_month(c, cs_wall_ms(), why, sizeof why);
    if (e != CS_OK && e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_RECORD_KEY_FAILED, NULL, "error=%s why=%s", cs_err_name(e),
               cs_log_quote(cs_slice_str(why)).text);
    }
}

static void count_catalogues(struct cs_control *c)
{
    struct cs_slice target;
    uint64_t age_ns = 0, oldest_ns = 0, missing = 0;
    size_t n = 0;
    for (; cs_catalogue_at(c, n, &target, &age_ns); n++) {
        missing += age_ns == UINT64_MAX ? 1 : 0;
        oldest_ns = age_ns == UINT64_MAX ? oldest_ns : CS_MAX(oldest_ns, age_ns);
    }
    cs_metric_set(CS_SLOT_TARGETS, n);
    cs_metric_set(CS_SLOT_NO_CATALOGUE, missing);
    cs_metric_set(CS_SLOT_CATALOGUE_TIME,
                  n > missing ? cs_wall_ms() - oldest_ns / CS_NS_PER_MS : 0);
}

/* Once a second: what is not counted where it happens. */
static void count(struct cs_control *c)
{
    struct cs_store_stats s = cs_store_stats(c->store);
    cs_metric_set(CS_SLOT_STORE_COMMITS, s.commits);
    cs_metric_set(CS_SLOT_STORE_OPS, s.operations);
    cs_metric_set(CS_SLOT_STORE_QUEUE, s.queued);
    cs_metric_set(CS_SLOT_STORE_FULL, s.no_space);
    if (s.no_space > c->no_space_seen) {
        c->no_space_seen = s.no_space;
        c->store_full = true;
    } else if (c->store_full) { /* what only looks would not notice that there is space again */
        c->store_full = cs_store_touch(c->store) != CS_OK;
    }
    cs_metric_set(CS_SLOT_STORE_WRITABLE, c->store_full ? 0 : 1);
    uint64_t pending = 0;
    if (cs_store_requests_pending(c->store, &pending) == CS_OK) {
        cs_metric_set(CS_SLOT_PENDING, pending);
    }
    count_catalogues(c);
    cs_metric_set(CS_SLOT_CONTROL_SEEN, cs_wall_ms());
}

static void tick(void *arg)
{
    struct cs_control *c = arg;
    uint64_t sweep_ns = cs_mono_ns() + SWEEP_AFTER_S * CS_NS_PER_S;
    uint64_t month_ns = 0;
    bool swept = !c->keep, told = !c->keep;
    count(c);
    while (cs_co_sleep(CS_NS_PER_S)) {
        cs_audit_tick(c);
        if (cs_mono_ns() >= month_ns) {
            month_ns = cs_mono_ns() + MONTH_CHECK_S * CS_NS_PER_S;
            month_check(c);
        }
        if (!told) {
            /* The control before may have died between a commit and its message. */
            told = cs_approval_retell(c->approval) == CS_OK;
        }
        enum cs_err e = cs_approval_tick(c->approval);
        if (e != CS_OK && e != CS_ERR_CANCELLED) {
            cs_log(CS_EV_STORE_FAILED, NULL, "expiry=%s", cs_err_name(e));
        }
        cs_auth_tick(c);
        count(c);
        if (!swept && cs_mono_ns() >= sweep_ns) {
            swept = true;
            cs_gate_sweep(c);
        }
    }
}

static void watch_store(void *arg)
{
    struct cs_control *c = arg;
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, cs_store_failure(c->store));
    if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY) {
        fail(c, CS_EV_STORE_FAILED, cs_store_failure_text(c->store));
    }
}

static bool path_of(struct cs_slice s, char *out, size_t n)
{
    (void)snprintf(out, n, "%.*s", CS_SLICE_FMT(s));
    return s.n > 0 && s.n < n;
}

/* Nobody is served before keeper has answered: it has its keys then. */
static enum cs_err reach_keeper(struct cs_control *c, char *why, size_t why_size)
{
    uint8_t key[CS_X25519];
    enum cs_err e = CS_OK;
    uint64_t deadline = cs_mono_ns() + KEEPER_WAIT_S * CS_NS_PER_S;
    while (e == CS_OK) {
        cs_event_clear(&c->joined);
        e = cs_helper_seal_key(c, deadline, key, why, why_size);
        if (e != CS_ERR_UNAVAILABLE) {
            return e;
        }
        /* Not here yet, or it has just died: the supervisor sends the next one. */
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &c->joined);
        enum cs_woke woke = cs_wait(&w, 1, deadline);
        e = woke == CS_WOKE_READY       ? CS_OK
            : woke == CS_WOKE_CANCELLED ? CS_ERR_CANCELLED
                                        : CS_ERR_TIMEOUT;
    }
    return e;
}

static enum cs_err open_files(struct cs_control *c, char *why, size_t why_size)
{
    char store[512];
    if (!path_of(c->view->snapshot.store, store, sizeof store)) {
        (void)snprintf(why, why_size, "the configuration names no store");
        return CS_ERR_INVALID;
    }
    enum cs_err e = cs_store_open(c->loop, store, NULL, why, why_size, &c->store);
    if (e == CS_OK) {
        e = reach_keeper(c, why, why_size);
        if (e == CS_OK) {
            e = cs_recording_month(c, cs_wall_ms(), why, why_size);
        }
        if (e != CS_OK && why[0] == 0) {
            (void)snprintf(why, why_size, "the keeper does not answer: %s", cs_err_text(e));
        }
    }
    return e;
}

/* `path` without its last part; false when it has no other. */
static bool parent_of(const char *path, char *out, size_t n)
{
    (void)snprintf(out, n, "%s", path);
    char *slash = strrchr(out, '/');
    if (slash == NULL || strlen(path) >= n) {
        return false;
    }
    slash[slash == out] = 0;
    return true;
}

/* Before the first thread and before the first message of a gate or front is read. What it may
 * read besides its own files is for looking up targets' names. */
static enum cs_err enter_sandbox(struct cs_control *c)
{
    char store[512], store_dir[512];
    if (!path_of(c->view->snapshot.store, store, sizeof store) ||
        !parent_of(store, store_dir, sizeof store_dir)) {
        return CS_ERR_INVALID;
    }
    const struct cs_sandbox_path paths[] = {
        {store_dir, CS_SANDBOX_WRITE},
        {"/dev/urandom", CS_SANDBOX_READ},
    };
    return cs_sandbox_enter(CS_SANDBOX_CONTROL, paths, CS_ARRAY_LEN(paths));
}

static enum cs_err open_helpers(struct cs_control *c)
{
    cs_handle co;
    enum cs_err e = cs_co_spawn(c->loop, "tick", tick, c, &co);
    if (e == CS_OK) {
        e = cs_co_spawn(c->loop, "catalogues", cs_catalogue_run, c, &co);
    }
    return e == CS_OK ? cs_co_spawn(c->loop, "store-failure", watch_store, c, &co) : e;
}

static enum cs_err open_all(struct cs_control *c, char *why, size_t why_size)
{
    enum cs_err e = open_files(c, why, why_size);
    if (e == CS_OK) {
        e = cs_identity_new(c->store, &c->identity);
    }
    if (e == CS_OK) {
        /* With `keep` the gates still carry their sessions: tick() closes those that none claims.
         */
        e = c->keep ? cs_approval_resume(c->store, cs_gate_on_change, c, &c->approval)
                    : cs_approval_new(c->store, cs_gate_on_change, c, &c->approval);
    }
    if (e == CS_OK) {
        cs_approval_witness(c->approval, cs_audit_vote, c);
    }
    return e == CS_OK ? open_helpers(c) : e;
}

static void start(void *arg)
{
    struct cs_control *c = arg;
    char why[512] = "";
    enum cs_err e = c->alone ? enter_sandbox(c) : CS_OK; /* tests run it in theirs */
    if (e != CS_OK) {
        (void)snprintf(why, sizeof why, "the sandbox cannot be entered: %s", cs_err_text(e));
    } else {
        e = open_all(c, why, sizeof why);
    }
    if (e != CS_OK) {
        if (e != CS_ERR_CANCELLED) {
            fail(c, CS_EV_STORE_FAILED, why[0] != 0 ? why : cs_err_text(e));
        }
        return;
    }
    /* The rules may have changed while no control ran: as after a reload, before anybody is served.
     */
    c->redeciding++;
    cs_hold_redecide(c);
    if (c->phase != CS_CONTROL_STARTING) {
        return;
    }
    c->phase = CS_CONTROL_RUN;
    for (struct cs_peer *p = c->peers, *next; p != NULL; p = next) {
        next = p->next;
        if (p->fd >= 0) {
            peer_open(p);
        }
    }
    struct cs_msg_ready ready = {0};
    if (c->supervisor == NULL ||
        cs_channel_send(c->supervisor, CS_MSG_READY, 0, &ready, NULL, 0) != CS_OK) {
        fail(c, CS_EV_INTERNAL, "the supervisor cannot be told");
        return;
    }
    cs_channel_run_phase(c->supervisor);
    cs_log(CS_EV_STARTED, NULL, "policy=%016llx gates=%s",
           (unsigned long long)cs_policy_version(c->view->policy), c->keep ? "keep" : "new");
}

static void redecide(void *arg)
{
    cs_hold_redecide(arg);
}

static void warn_of_paths(const struct cs_view *old, const struct cs_view *new)
{
    if (!cs_slice_eq(old->snapshot.store, new->snapshot.store)) {
        cs_log(CS_EV_CONFIG_WARNING, NULL, "text=\"the store changes only at a restart\"");
    }
}

static void snapshot_new(struct cs_control *c, const struct cs_msg_snapshot *m, int fd)
{
    struct cs_view *v = NULL;
    cs_handle co;
    enum cs_err e = cs_view_new(fd, m->sha256, &v);
    (void)close(fd);
    if (e != CS_OK) {
        cs_log(CS_EV_RELOAD_FAILED, NULL, "snapshot=%s", cs_err_name(e));
        if (c->view == NULL) {
            fail(c, CS_EV_INTERNAL, "the configuration snapshot cannot be used");
        }
        return;
    }
    struct cs_view *old = c->view;
    c->view = v;
    struct cs_slice file = v->snapshot.file_sha256;
    memset(c->rules_sha256, 0, sizeof c->rules_sha256);
    if (file.n == sizeof c->rules_sha256) {
        memcpy(c->rules_sha256, file.p, file.n);
    }
    c->rules_said = false;
    if (old == NULL) {
        c->phase = CS_CONTROL_STARTING;
        e = cs_co_spawn(c->loop, "start", start, c, &co);
    } else {
        warn_of_paths(old, v);
        cs_event_set(&c->catalogue_moved);
        cs_view_drop(old);
        cs_log(CS_EV_RELOADED, NULL, "policy=%016llx",
               (unsigned long long)cs_policy_version(v->policy));
        if (c->phase == CS_CONTROL_RUN) {
            c->redeciding++; /* from this moment on */
            e = cs_co_spawn(c->loop, "redecide", redecide, c, &co);
        }
    }
    if (e != CS_OK) {
        /* Requests would go on under rules that are no longer in force: fail closed, restart. */
        fail(c, CS_EV_INTERNAL, cs_err_text(e));
    }
}

/* ---- the supervisor's channel ---- */

static void boot(struct cs_control *c, const struct cs_msg_boot *m)
{
    c->epoch = m->epoch;
    c->service_uid = cs_boot_service_uid(m->params);
    struct cs_slice rest = m->params;
    while (rest.n > 0) {
        size_t n = cs_slice_find(rest, '\n');
        if (cs_slice_eq_str(cs_slice_head(rest, n), "gates=keep")) {
            c->keep = true;
        }
        rest = cs_slice_from(rest, n + 1);
    }
}

static void end(struct cs_control *c)
{
    c->phase = CS_CONTROL_STOP;
    cs_log(CS_EV_STOPPED, NULL, "sessions=%zu calls=%zu", c->sessions.n, c->n_calls);
    cs_loop_stop(c->loop);
}

/* Gates and front are gone; the recorder ends after this role, and needs it for the last signature.
 */
static void stop(void *arg)
{
    struct cs_control *c = arg;
    if (c->phase == CS_CONTROL_RUN && cs_helper_peer(c, CS_ROLE_RECORDER) != NULL) {
        cs_audit_settle(c, cs_mono_ns() + SETTLE_NS);
    }
    end(c);
}

static void on_supervisor_message(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_control *c = arg;
    cs_handle co;
    (void)ch;
    switch ((int)in->type) {
    case CS_MSG_BOOT:
        boot(c, in->msg);
        return;
    case CS_MSG_METRICS:
        cs_metrics_open(in->fd[0]);
        return;
    case CS_MSG_SNAPSHOT:
        snapshot_new(c, in->msg, in->fd[0]);
        return;
    case CS_MSG_PEER:
        peer_new(c, in->msg, in->fd[0]);
        return;
    case CS_MSG_SHUTDOWN:
        if (c->store == NULL || cs_helper_peer(c, CS_ROLE_RECORDER) == NULL ||
            cs_co_spawn(c->loop, "stop", stop, c, &co) != CS_OK) {
            end(c);
        }
        return;
    default: /* listeners, directories, rings: nothing for this role */
        for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
            if (in->fd[i] >= 0) {
                (void)close(in->fd[i]);
            }
        }
        return;
    }
}

static void on_supervisor_gone(struct cs_channel *ch, void *arg)
{
    struct cs_control *c = arg;
    if (c->supervisor == ch) {
        c->supervisor = NULL;
        cs_channel_close(ch);
    }
    if (c->phase != CS_CONTROL_STOP) {
        c->failed = true;
        c->phase = CS_CONTROL_STOP;
        cs_loop_stop(c->loop); /* nobody left to answer to */
    }
}

enum cs_err cs_control_new(struct cs_loop *loop, int supervisor_fd, struct cs_control **ret)
{
    cs_json_init();
    struct cs_control *c = cs_alloc(sizeof *c);
    if (c == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    c->loop = loop;
    c->started_ms = cs_wall_ms();
    enum cs_err e = cs_channel_open(loop, supervisor_fd, CS_ROLE_CONTROL, CS_ROLE_SUPERVISOR, 0,
                                    on_supervisor_message, on_supervisor_gone, c, &c->supervisor);
    if (e != CS_OK) {
        cs_free(c);
        return e;
    }
    *ret = c;
    return CS_OK;
}

void cs_control_free(struct cs_control *c)
{
    if (c == NULL) {
        return;
    }
    c->phase = CS_CONTROL_STOP;
    if (c->supervisor != NULL) {
        cs_channel_close(c->supervisor);
    }
    while (c->peers != NULL) {
        struct cs_peer *p = c->peers;
        c->peers = p->next;
        if (p->channel != NULL) {
            cs_channel_close(p->channel);
        }
        if (p->fd >= 0) {
            (void)close(p->fd);
        }
        cs_free(p);
    }
    cs_catalogue_free(c);
    cs_impact_free(c);
    cs_auth_free(c);
    cs_ctl_check_free(c);
    cs_approval_free(c->approval);
    cs_identity_free(c->identity);
    cs_store_close(c->store);
    cs_sessions_done(&c->sessions);
    cs_view_drop(c->view);
    cs_free(c);
}

int cs_control_run(int supervisor_fd)
{
    cs_log_init("control", CS_LEVEL_INFO);
    cs_process_harden();
    struct cs_control *c = NULL;
    struct cs_loop *loop = cs_loop_new();
    if (loop == NULL || cs_control_new(loop, supervisor_fd, &c) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "start failed");
        return 1;
    }
    c->alone = true;
    cs_loop_run(loop);
    int status = c->failed ? 1 : 0;
    cs_control_free(c);
    cs_loop_free(loop);
    return status;
}
