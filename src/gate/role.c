/* The gate role: starts on the supervisor's word, accepts connections, and hands the messages of
 * supervisor and control to whom they concern. It opens no file and dials nobody. */
#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "gate/gate.h"
#include "gate/protocol.h"
#include "ipc/metrics.h"
#include "runtime/process.h"
#include "runtime/proxy.h"
#include "runtime/sandbox.h"
#include "sql/sql.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

struct cs_sql *cs_gate_sql(struct cs_gate *g)
{
    return g->sql;
}

struct cs_loop *cs_gate_loop(struct cs_gate *g)
{
    return g->loop;
}

/* ---- accepting ---- */

/* A cap on these keeps one client from taking every slot with half-open sessions. */
unsigned cs_gate_unknown_of(const struct cs_gate *g, const struct cs_addr_net *net)
{
    static const enum cs_session_state before[] = {CS_SESSION_ACCEPTED, CS_SESSION_STARTUP,
                                                   CS_SESSION_AUTH};
    unsigned found = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(before); i++) {
        for (const struct cs_session *s = g->by_state[before[i]]; s != NULL; s = s->next) {
            found += cs_addr_net_eq(&s->net, net);
        }
    }
    return found;
}

static void session_start(struct cs_gate_listener *l, int fd, const struct sockaddr *peer)
{
    struct cs_gate *g = l->gate;
    cs_handle h, co;
    char address[CS_ADDR_TEXT];
    struct cs_slice proxies = cs_gate_proxy_from(l);
    const char *why = NULL;
    (void)cs_addr_text(peer, address);
    struct cs_addr_net net = cs_addr_net(peer);
    if (proxies.n > 0) {
        /* SECURITY: anybody else could write any address into a header. */
        why = cs_proxy_trusts(proxies, peer) ? NULL : "not one of the listener's load balancers";
    } else if (cs_gate_unknown_of(g, &net) >= CS_LIMIT_PREAUTH_PER_ADDRESS) {
        why = "too many unauthenticated connections";
    }
    if (why != NULL) {
        cs_log(CS_EV_SESSION_REFUSED, NULL, "address=%s why=\"%s\"", address, why);
        (void)close(fd);
        return;
    }
    struct cs_session *s = cs_pool_take(&g->sessions, &h);
    if (s == NULL) {
        cs_log(CS_EV_SESSION_REFUSED, NULL, "why=\"too many sessions\"");
        (void)close(fd);
        return;
    }
    cs_metric_add(CS_SLOT_CONNECTIONS, 1);
    s->gate = g;
    s->protocol = l->protocol;
    s->handle = h;
    s->listener = (unsigned)(l - g->listeners);
    s->behind_proxy = proxies.n > 0;
    memcpy(s->address, address, sizeof s->address);
    s->net = net;
    if (cs_stream_open(g->loop, &s->client, fd) != CS_OK) {
        (void)close(fd);
        cs_pool_give(&g->sessions, h);
        return;
    }
    if (cs_co_spawn(g->loop, "session", cs_session_run, s, &co) != CS_OK) {
        cs_stream_close(&s->client);
        cs_pool_give(&g->sessions, h);
    }
}

/* This process carries as many as it can: who comes is another gate's, or waits in the kernel's
 * queue. False: the gate stops. */
static bool wait_for_place(struct cs_gate_listener *l)
{
    struct cs_gate *g = l->gate;
    if (g->sessions.live >= g->sessions.max) {
        cs_log(CS_EV_SESSION_REFUSED, NULL,
               "why=\"this gate has all %u sessions that it can have\"", g->sessions.max);
    }
    while (g->sessions.live >= g->sessions.max) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &g->emptied);
        cs_fd_unwatch(&l->fd);
        cs_event_clear(&g->emptied);
        if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
            return false;
        }
    }
    return true;
}

void cs_gate_accept_loop(void *arg)
{
    struct cs_gate_listener *l = arg;
    while (wait_for_place(l)) {
        struct sockaddr_storage peer;
        int fd = -1;
        enum cs_err e = cs_accept(&l->fd, &fd, &peer);
        if (e == CS_ERR_CANCELLED) {
            return;
        }
        if (e != CS_OK) {
            cs_log(CS_EV_SESSION_REFUSED, NULL, "accept=%s", cs_err_name(e));
            if (!cs_co_sleep(50 * CS_NS_PER_MS)) { /* out of descriptors: do not spin */
                return;
            }
            continue;
        }
        session_start(l, fd, (const struct sockaddr *)&peer);
    }
}

static void maybe_ready(struct cs_gate *g)
{
    if (g->ready || g->stopping || g->config == NULL || !g->have_ring || g->n_listeners == 0 ||
        g->control == NULL) {
        return;
    }
    if (cs_gate_accept(g) != CS_OK) {
        cs_loop_stop(g->loop);
        return;
    }
    g->ready = true;
    struct cs_msg_ready m = {0};
    if (cs_channel_send(g->supervisor, CS_MSG_READY, 0, &m, NULL, 0) != CS_OK) {
        cs_loop_stop(g->loop);
        return;
    }
    cs_channel_run_phase(g->supervisor);
    cs_gate_parser_begin(g);
    cs_log(CS_EV_STARTED, NULL, "policy=%016llx rules=%zu",
           (unsigned long long)cs_policy_version(g->config->policy),
           cs_policy_rule_count(g->config->policy));
}

/* ---- control ---- */

static void on_control_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct cs_gate *g = arg;
    (void)c;
    switch ((int)in->type) {
    case CS_MSG_REQUEST_STATE:
        cs_hold_on_state(g, in->msg);
        return;
    case CS_MSG_CATALOGUE:
        cs_gate_catalogue_new(g, in->msg, in->fd[0]);
        (void)close(in->fd[0]);
        return;
    case CS_MSG_CATALOGUE_OLD:
        cs_gate_catalogue_old(g, ((const struct cs_msg_catalogue_old *)in->msg)->target);
        return;
    case CS_MSG_SESSION_KILL: {
        const struct cs_msg_session_kill *m = in->msg;
        struct cs_session *s = cs_session_by_id(g, &m->session);
        if (s != NULL) {
            cs_session_kill(s, m->why);
        }
        return;
    }
    case CS_MSG_CANCEL_TO: {
        const struct cs_msg_cancel_to *m = in->msg;
        if (m->key.n == 8) {
            for (size_t i = 0; cs_protocols[i] != NULL; i++) {
                cs_protocols[i]->cancel(g, m->key, m->from);
            }
        }
        return;
    }
    default: /* an answer's message that answers nothing */
        cs_channel_in_close(in);
        return;
    }
}

static void on_control_gone(struct cs_channel *c, void *arg)
{
    struct cs_gate *g = arg;
    if (g->control == c) {
        g->control = NULL;
        g->control_generation++;
        cs_channel_close(c);
        cs_hold_on_control(g);
    }
}

static void control_new(struct cs_gate *g, int fd)
{
    struct cs_channel *old = g->control, *c = NULL;
    if (cs_channel_open(g->loop, fd, CS_ROLE_GATE, CS_ROLE_CONTROL, 0, on_control_message,
                        on_control_gone, g, &c) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "channel=control");
        return;
    }
    cs_channel_run_phase(c);
    g->control = c;
    g->control_generation++;
    if (old != NULL) {
        cs_channel_close(old);
    }
    cs_tell_control(g);
    cs_hold_on_control(g);
    cs_gate_unpark(g);
}

/* A gate has no other neighbour: whoever is not control does not get to speak as it. */
static void peer_new(struct cs_gate *g, const struct cs_msg_peer *m, int fd)
{
    if (m->role != CS_ROLE_CONTROL) {
        (void)close(fd);
        return;
    }
    control_new(g, fd);
}

/* ---- supervisor ---- */

static void boot(struct cs_gate *g, const struct cs_msg_boot *m)
{
    char name[32];
    g->index = m->index;
    g->epoch = m->epoch;
    (void)snprintf(name, sizeof name, "gate/%llu", (unsigned long long)m->index);
    cs_log_init(name, CS_LEVEL_INFO);
}

static void listener_new(struct cs_gate *g, const struct cs_msg_listener *m, int fd)
{
    for (size_t i = 0; cs_protocols[i] != NULL && g->n_listeners < CS_GATE_LISTENERS; i++) {
        if (!cs_slice_eq_str(m->kind, cs_protocols[i]->name)) {
            continue;
        }
        struct cs_gate_listener *l = &g->listeners[g->n_listeners];
        if (cs_fd_open_listener(g->loop, &l->fd, fd) != CS_OK) {
            break;
        }
        l->gate = g;
        l->protocol = cs_protocols[i];
        (void)snprintf(l->name, sizeof l->name, "%.*s", CS_SLICE_FMT(m->name));
        g->n_listeners++;
        return;
    }
    cs_log(CS_EV_INTERNAL, NULL, "listener=%s not taken", cs_log_quote(m->name).text);
    (void)close(fd);
}

static void snapshot_new(struct cs_gate *g, int fd)
{
    struct cs_gate_config *c = NULL;
    enum cs_err e = cs_gate_config_new(fd, &c);
    (void)close(fd);
    if (e != CS_OK) {
        /* The old one stays; without any, the gate never becomes ready. */
        cs_log(CS_EV_RELOAD_FAILED, NULL, "snapshot=%s", cs_err_name(e));
        return;
    }
    struct cs_gate_config *old = g->config;
    g->config = c;
    cs_gate_config_unref(old);
    cs_loop_busy_poll(g->loop, c->snapshot.busy_poll_us * CS_NS_PER_US);
    if (old != NULL) {
        cs_log(CS_EV_RELOADED, NULL, "policy=%016llx rules=%zu",
               (unsigned long long)cs_policy_version(c->policy), cs_policy_rule_count(c->policy));
    }
}

static void ring_new(struct cs_gate *g, const int fds[static 3])
{
    if (g->have_ring || cs_ring_open(g->loop, fds, true, &g->ring) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "ring not taken");
        for (int i = 0; i < 3; i++) {
            (void)close(fds[i]);
        }
        return;
    }
    g->have_ring = true;
}

static void redact_key_new(struct cs_gate *g, struct cs_slice key)
{
    if (key.n == sizeof g->redact_key) {
        memcpy(g->redact_key, key.p, key.n);
        g->has_redact_key = true;
    }
}

static void stop(struct cs_gate *g)
{
    g->stopping = true;
    cs_log(CS_EV_STOPPED, NULL, "sessions=%u", g->sessions.live);
    cs_loop_stop(g->loop);
}

static void on_supervisor_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct cs_gate *g = arg;
    (void)c;
    switch ((int)in->type) {
    case CS_MSG_BOOT:
        boot(g, in->msg);
        break;
    case CS_MSG_LISTENER:
        listener_new(g, in->msg, in->fd[0]);
        break;
    case CS_MSG_PEER:
        peer_new(g, in->msg, in->fd[0]);
        break;
    case CS_MSG_METRICS:
        cs_metrics_open(in->fd[0]);
        return;
    case CS_MSG_RING:
        ring_new(g, in->fd);
        break;
    case CS_MSG_SNAPSHOT:
        snapshot_new(g, in->fd[0]);
        break;
    case CS_MSG_REDACT_KEY:
        redact_key_new(g, ((const struct cs_msg_redact_key *)in->msg)->key);
        return;
    case CS_MSG_QUIESCE:
        cs_gate_quiesce(g);
        return;
    case CS_MSG_RESUME:
        cs_gate_resume(g);
        return;
    case CS_MSG_DRAIN:
        cs_gate_drain(g, ((const struct cs_msg_drain *)in->msg)->seconds);
        return;
    case CS_MSG_SHUTDOWN:
        stop(g);
        return;
    default:
        for (int i = 0; i < 3; i++) {
            if (in->fd[i] >= 0) {
                (void)close(in->fd[i]);
            }
        }
        return;
    }
    maybe_ready(g);
}

static void on_supervisor_gone(struct cs_channel *c, void *arg)
{
    struct cs_gate *g = arg;
    (void)c;
    g->stopping = true;
    cs_loop_stop(g->loop); /* nobody left to answer to */
}

/* As many as there are descriptors for: two each, and some for everything else. One that has
 * reached its target must not fail later for want of one. */
static uint32_t sessions_max(void)
{
    enum { OTHERS = 256, LEAST = 16 };
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) {
        return CS_LIMIT_SESSIONS_PER_GATE;
    }
    rlim_t most = files.rlim_cur > OTHERS ? (files.rlim_cur - OTHERS) / 2 : 0;
    most = CS_MIN(most, (rlim_t)CS_LIMIT_SESSIONS_PER_GATE);
    return (uint32_t)CS_MAX(most, (rlim_t)LEAST);
}

enum cs_err cs_gate_new(struct cs_loop *loop, int supervisor_fd, struct cs_gate **ret)
{
    struct cs_gate *g = cs_alloc(sizeof *g);
    if (g == NULL) {
        (void)close(supervisor_fd);
        return CS_ERR_NO_MEMORY;
    }
    g->loop = loop;
    g->parser.fd.fd = -1;
    g->scratch = cs_alloc(CS_LIMIT_RECORD_FRAME_BYTES);
    cs_pool_init(&g->sessions, sizeof(struct cs_session), sessions_max());
    enum cs_err e = g->scratch != NULL ? cs_sql_new(&g->sql) : CS_ERR_NO_MEMORY;
    if (e != CS_OK) {
        (void)close(supervisor_fd);
    } else {
        e = cs_channel_open(loop, supervisor_fd, CS_ROLE_GATE, CS_ROLE_SUPERVISOR, 0,
                            on_supervisor_message, on_supervisor_gone, g, &g->supervisor);
    }
    if (e != CS_OK) {
        g->supervisor = NULL;
        cs_gate_free(g);
        return e;
    }
    *ret = g;
    return CS_OK;
}

void cs_gate_free(struct cs_gate *g)
{
    if (g == NULL) {
        return;
    }
    if (g->control != NULL) {
        cs_channel_close(g->control);
    }
    if (g->supervisor != NULL) {
        cs_channel_close(g->supervisor);
    }
    cs_fd_close(&g->parser.fd);
    for (unsigned i = 0; i < g->n_listeners; i++) {
        cs_fd_close(&g->listeners[i].fd);
    }
    if (g->have_ring) {
        cs_ring_close(&g->ring);
    }
    cs_gate_config_unref(g->config);
    cs_pool_done(&g->sessions);
    cs_gate_catalogues_free(g);
    cs_sql_free(g->sql);
    cs_free(g->scratch);
    cs_free(g->spare_verdict);
    cs_free(g);
}

int cs_gate_run(int supervisor_fd)
{
    cs_log_init("gate", CS_LEVEL_INFO);
    cs_process_harden();
    struct cs_gate *g = NULL;
    struct cs_loop *loop = cs_loop_new();
    if (loop == NULL || cs_gate_new(loop, supervisor_fd, &g) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "start failed");
        return 1;
    }
    /* Before the first message: what comes later, reloads and new channels among it, is done within
     * the walls from the beginning, and what works once works again. */
    enum cs_err err = cs_sandbox_enter(CS_SANDBOX_GATE, NULL, 0);
    if (err != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "sandbox=%s", cs_err_name(err));
        return 1;
    }
    cs_loop_run(loop);
    return 0; /* what is left goes with the process */
}
