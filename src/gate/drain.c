/* An upgrade as a gate sees it. QUIESCE: nobody is accepted (who comes waits in the kernel's queue
 * for the next generation), and of control nothing new is asked until there is another one; when it
 * owes no answer any more, QUIESCED. DRAIN: the sessions that are here live on until they end or
 * the time is over, then the process ends. RESUME: the upgrade did not happen. So every call to
 * control goes through here. Must never end a session of its own accord before its time. */
#include "base/assert.h"
#include "base/log.h"
#include "gate/gate.h"
#include "gate/protocol.h"

#define LAST_NS (5 * CS_NS_PER_S) /* for the farewells of sessions that are told to end */

/* ---- calls ---- */

static void settle(struct cs_gate *g)
{
    struct cs_msg_quiesced m = {0};
    if (!g->quiet || g->quiesced || g->asking > 0) {
        return;
    }
    g->quiesced = true;
    if (cs_channel_send(g->supervisor, CS_MSG_QUIESCED, 0, &m, NULL, 0) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "message=quiesced lost");
    }
}

void cs_gate_exchange(struct cs_session *s, bool begins)
{
    struct cs_gate *g = s->gate;
    if (s->in_exchange == begins) {
        return;
    }
    s->in_exchange = begins;
    cs_assert(begins || g->asking > 0);
    g->asking += begins ? 1 : 0;
    g->asking -= begins ? 0 : 1;
    settle(g);
}

/* An exchange goes on with the control that it began with. */
static enum cs_err wait_unparked(struct cs_session *s, uint64_t deadline)
{
    struct cs_gate *g = s->gate;
    while (g->parked && !s->in_exchange) {
        struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_EVENT, &g->unparked),
                              CS_WAIT_ON(CS_WAIT_EVENT, &s->kill)};
        enum cs_woke woke = cs_wait(w, CS_ARRAY_LEN(w), deadline);
        if (woke != CS_WOKE_READY || s->kill.set) {
            return woke == CS_WOKE_DEADLINE ? CS_ERR_UNAVAILABLE : CS_ERR_CANCELLED;
        }
    }
    return g->control != NULL ? CS_OK : CS_ERR_UNAVAILABLE;
}

bool cs_gate_wait_unparked(struct cs_session *s, uint64_t deadline)
{
    struct cs_gate *g = s->gate;
    while (g->parked && !s->in_exchange) {
        struct cs_wait w[] = {
            CS_WAIT_ON(CS_WAIT_EVENT, &g->unparked), CS_WAIT_ON(CS_WAIT_EVENT, &s->kill),
            CS_WAIT_ON(CS_WAIT_EVENT, &s->cancel), CS_WAIT_ON(CS_WAIT_HUP, &s->client.fd)};
        if (cs_wait(w, CS_ARRAY_LEN(w), deadline) != CS_WOKE_READY || g->parked) {
            return false;
        }
    }
    return true;
}

enum cs_err cs_gate_call(struct cs_session *s, enum cs_msg_type t, const void *msg, const int *fds,
                         size_t n_fds, uint64_t timeout_ns, struct cs_call *ret)
{
    struct cs_gate *g = s->gate;
    *ret = (struct cs_call){.fd = {-1, -1, -1}};
    enum cs_err e = wait_unparked(s, cs_mono_ns() + timeout_ns);
    if (e != CS_OK) {
        return e;
    }
    g->asking++;
    s->asked_generation = g->control_generation;
    e = cs_channel_call(g->control, t, msg, fds, n_fds, cs_mono_ns() + timeout_ns, ret);
    g->asking--;
    settle(g);
    return e;
}

/* ---- accepting ---- */

enum cs_err cs_gate_accept(struct cs_gate *g)
{
    for (unsigned i = 0; i < g->n_listeners; i++) {
        enum cs_err e =
            cs_co_spawn(g->loop, "accept", cs_gate_accept_loop, &g->listeners[i], &g->accepting[i]);
        if (e != CS_OK) {
            cs_log(CS_EV_INTERNAL, NULL, "listener=%s", g->listeners[i].name);
            return e;
        }
    }
    return CS_OK;
}

static void stop_accepting(struct cs_gate *g)
{
    for (unsigned i = 0; i < g->n_listeners; i++) {
        cs_co_cancel(g->loop, g->accepting[i]);
        cs_fd_unwatch(&g->listeners[i].fd);
    }
}

/* ---- the supervisor's word ---- */

void cs_gate_quiesce(struct cs_gate *g)
{
    if (!g->quiet && !g->draining) {
        stop_accepting(g);
    }
    g->quiet = true;
    g->parked = true;
    g->quiesced = false;
    cs_event_clear(&g->unparked);
    settle(g);
}

void cs_gate_unpark(struct cs_gate *g)
{
    g->parked = false;
    cs_event_set(&g->unparked);
}

void cs_gate_resume(struct cs_gate *g)
{
    bool was = g->quiet;
    g->quiet = false;
    cs_gate_unpark(g);
    if (was && !g->draining && cs_gate_accept(g) != CS_OK) {
        cs_loop_stop(g->loop); /* a gate that accepts nobody is none: another one is started */
    }
}

static void end_all(struct cs_gate *g)
{
    for (size_t i = 0; i < CS_SESSION_CLOSING; i++) {
        for (struct cs_session *s = g->by_state[i]; s != NULL; s = s->next) {
            cs_session_kill(s, CS_SLICE_LIT("the gateway was upgraded, and the time for sessions "
                                            "that were open is over"));
        }
    }
}

/* True when no session is left. */
static bool wait_empty(struct cs_gate *g, uint64_t deadline)
{
    while (g->sessions.live > 0) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &g->emptied);
        cs_event_clear(&g->emptied);
        if (cs_wait(&w, 1, deadline) != CS_WOKE_READY) {
            return false;
        }
    }
    return true;
}

struct draining {
    struct cs_gate *gate;
    uint64_t until;
};

static void drain_co(void *arg)
{
    struct draining *d = arg;
    struct cs_gate *g = d->gate;
    if (!wait_empty(g, d->until)) {
        end_all(g);
        (void)wait_empty(g, cs_mono_ns() + LAST_NS);
    }
    g->stopping = true;
    cs_log(CS_EV_STOPPED, NULL, "why=drained sessions=%u", g->sessions.live);
    cs_loop_stop(g->loop);
}

void cs_gate_drain(struct cs_gate *g, uint64_t seconds)
{
    static struct draining d; /* once a process */
    cs_handle co;
    if (g->draining) {
        return;
    }
    if (!g->quiet) {
        stop_accepting(g);
    }
    g->quiet = true;
    g->quiesced = true; /* nobody waits for that now */
    g->draining = true;
    /* SECURITY: the table caps the message, not the number: a sum past the end would be "now". */
    d = (struct draining){g,
                          cs_mono_ns() + CS_MIN(seconds, (uint64_t)CS_LIMIT_DRAIN_S) * CS_NS_PER_S};
    cs_log(CS_EV_DRAINING, NULL, "sessions=%u seconds=%llu", g->sessions.live,
           (unsigned long long)seconds);
    if (cs_co_spawn(g->loop, "drain", drain_co, &d, &co) != CS_OK) {
        cs_loop_stop(g->loop);
    }
}
