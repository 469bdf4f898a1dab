/* Messages of gates, and of probe: which handler, in which order, for whose session. Messages of
 * one session are worked on one after the other, in the order sent; different sessions do not wait
 * for each other (a commit takes milliseconds, a dial seconds).
 *
 * A message names its session; that the session belongs to the gate that speaks is checked in
 * cs_gate_session() and nowhere else. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/secret.h"
#include "ipc/metrics.h"

#include <stddef.h>
#include <unistd.h>

enum { JOB_ARENA_CHUNK = 4096, JOB_ARENA_MAX = 8 * 1024 * 1024, SWEEPS_MAX = 256 };

struct cs_lane { /* the messages of one session that wait or are being worked on */
    struct cs_peer *peer;
    struct cs_id id;
    struct cs_job *first, **last;
    struct cs_lane *next;
};

static void session_opened(struct cs_job *j);
static void session_closed(struct cs_job *j);
static void session_live(struct cs_job *j);
static void sessions_told(struct cs_job *j);

struct handler {
    void (*fn)(struct cs_job *j);
    bool laned;
    size_t session; /* offset of the session's id */
};

#define LANED(id, fn, lower) [CS_MSG_##id] = {fn, true, offsetof(struct cs_msg_##lower, session)}
static const struct handler handlers[CS_MSG_MAX] = {
    [CS_MSG_AUTH_START] = {cs_auth_start, false, 0},
    [CS_MSG_AUTH_PROOF] = {cs_auth_proof, false, 0},
    [CS_MSG_AUTH_TOKEN] = {cs_auth_token, false, 0},
    [CS_MSG_AUTH_ASK] = {cs_auth_ask, false, 0},
    [CS_MSG_AUTH_CERTIFICATE] = {cs_auth_certificate, false, 0},
    LANED(SESSION_OPENED, session_opened, session_opened),
    LANED(SESSION_CLOSED, session_closed, session_closed),
    LANED(SESSION_LIVE, session_live, session_live),
    [CS_MSG_SESSIONS_TOLD] = {sessions_told, false, 0},
    LANED(CONNECT, cs_connect_dial, connect),
    LANED(PROVE, cs_connect_prove, prove),
    LANED(HOLD, cs_hold_ask, hold),
    LANED(HOLD_LEAVE, cs_hold_leave, hold_leave),
    LANED(CONSUME, cs_hold_consume, consume),
    LANED(EXECUTED, cs_hold_executed, executed),
    [CS_MSG_CATALOGUE_WANTED] = {cs_catalogue_wanted, false, 0},
    /* From probe: the message table lets each role's own pass and no other. */
    [CS_MSG_PROBE_CONNECT] = {cs_probe_connect, false, 0},
    [CS_MSG_PROBE_PROVE] = {cs_probe_prove, false, 0},
};

/* ---- jobs and lanes ---- */

static void job_free(struct cs_job *j)
{
    struct cs_peer *p = j->peer;
    if (j->fd >= 0) {
        (void)close(j->fd);
    }
    if (j->bytes != NULL) {
        cs_wipe(j->bytes, j->n_bytes); /* proofs */
        cs_free(j->bytes);
    }
    cs_arena_done(&j->arena);
    bool untold = j->untold;
    cs_free(j);
    cs_assert(p->jobs > 0 && p->untold_jobs >= (untold ? 1 : 0));
    p->jobs--;
    p->untold_jobs -= untold ? 1 : 0;
    cs_event_set(&p->room);
}

/* A message is borrowed from the channel; a copy is made by encoding and decoding it again. */
static struct cs_job *job_new(struct cs_peer *p, const struct cs_channel_in *in)
{
    static uint8_t scratch[CS_LIMIT_IPC_BYTES]; /* used between two waits only */
    size_t n = cs_msg_encode(in->type, in->corr, in->msg, scratch, sizeof scratch);
    struct cs_job *j = n > 0 ? cs_alloc(sizeof *j) : NULL;
    if (j == NULL) {
        return NULL;
    }
    p->jobs++;
    p->told = p->told || in->type == CS_MSG_SESSIONS_TOLD;
    j->untold = !p->told;
    p->untold_jobs += j->untold ? 1 : 0;
    j->peer = p;
    j->fd = -1;
    cs_arena_init(&j->arena, JOB_ARENA_CHUNK, JOB_ARENA_MAX);
    j->bytes = cs_alloc(n);
    j->n_bytes = n;
    if (j->bytes != NULL) {
        memcpy(j->bytes, scratch, n);
    }
    cs_wipe(scratch, n);
    if (j->bytes == NULL ||
        !cs_msg_decode(cs_slice(j->bytes, n), &j->type, &j->corr, j->msg.raw, sizeof j->msg.raw)) {
        job_free(j);
        return NULL;
    }
    return j;
}

static void job_run(void *arg)
{
    struct cs_job *j = arg;
    struct cs_peer *p = j->peer;
    handlers[j->type].fn(j);
    job_free(j);
    cs_peer_release(p);
}

static void lane_run(void *arg)
{
    struct cs_lane *lane = arg;
    struct cs_peer *p = lane->peer;
    while (lane->first != NULL) {
        struct cs_job *j = lane->first;
        handlers[j->type].fn(j);
        lane->first = j->next;
        job_free(j);
    }
    struct cs_lane **at = &p->lanes;
    while (*at != lane) {
        at = &(*at)->next;
    }
    *at = lane->next;
    cs_free(lane);
    cs_peer_release(p);
}

static enum cs_err lane_put(struct cs_peer *p, struct cs_job *j, const struct cs_id *id)
{
    struct cs_lane *lane = p->lanes;
    while (lane != NULL && !cs_id_eq(&lane->id, id)) {
        lane = lane->next;
    }
    if (lane != NULL) {
        *lane->last = j;
        lane->last = &j->next;
        return CS_OK;
    }
    lane = cs_alloc(sizeof *lane);
    if (lane == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    lane->peer = p;
    lane->id = *id;
    lane->first = j;
    lane->last = &j->next;
    cs_handle co;
    enum cs_err e = cs_co_spawn(p->c->loop, "lane", lane_run, lane, &co);
    if (e != CS_OK) {
        cs_free(lane);
        return e;
    }
    lane->next = p->lanes;
    p->lanes = lane;
    return CS_OK;
}

static void cancel_to(struct cs_control *c, const struct cs_msg_cancel *m)
{
    struct cs_msg_cancel_to to = {.key = m->key, .from = m->from};
    for (struct cs_peer *p = c->peers; p != NULL; p = p->next) {
        if (p->role == CS_ROLE_GATE && p->index == m->gate && p->channel != NULL) {
            (void)cs_peer_send(p, CS_MSG_CANCEL_TO, 0, &to, NULL, 0);
            return;
        }
    }
}

static void drop_fds(const struct cs_channel_in *in)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
        if (in->fd[i] >= 0) {
            (void)close(in->fd[i]);
        }
    }
}

/* Too much at once: the channel is not read until something is done. */
static bool wait_for_room(struct cs_peer *p)
{
    bool room = true;
    p->jobs++; /* keeps the peer over the wait */
    while (room && p->channel != NULL && p->jobs > CS_CONTROL_JOBS) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &p->room);
        cs_event_clear(&p->room);
        room = cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY;
    }
    p->jobs--;
    return room && p->channel != NULL;
}

void cs_gate_on_message(struct cs_channel *ch, const struct cs_channel_in *in, void *peer)
{
    struct cs_peer *p = peer;
    (void)ch;
    if (in->type == CS_MSG_CANCEL) {
        cancel_to(p->c, in->msg);
        return;
    }
    const struct handler *h = &handlers[in->type];
    if (h->fn == NULL || !wait_for_room(p)) {
        drop_fds(in);
        return;
    }
    struct cs_job *j = job_new(p, in);
    if (j == NULL) {
        drop_fds(in);
        cs_peer_cut(p, "no memory for a message");
        return;
    }
    j->fd = in->fd[0];
    enum cs_err e;
    if (h->laned) {
        struct cs_id id;
        memcpy(&id, j->msg.raw + h->session, sizeof id);
        e = lane_put(p, j, &id);
    } else {
        cs_handle co;
        e = cs_co_spawn(p->c->loop, "job", job_run, j, &co);
    }
    if (e != CS_OK) {
        job_free(j);
        cs_peer_cut(p, "no coroutine for a message");
    }
}

/* ---- the end of a gate ---- */

static void close_gate(struct cs_peer *p)
{
    enum cs_err e = cs_approval_gate_gone(p->c->approval, p->key, CS_SLICE_LIT("gate ended"));
    if (e != CS_OK && e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_STORE_FAILED, NULL, "gate=%llu error=%s", (unsigned long long)p->index,
               cs_err_name(e));
    }
}

static void gone_run(void *arg)
{
    struct cs_peer *p = arg;
    close_gate(p);
    /* What was being worked on may still open a session or hold an action: once more after it. */
    enum cs_woke woke = CS_WOKE_READY;
    while (p->jobs > 1 && woke == CS_WOKE_READY) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &p->room);
        cs_event_clear(&p->room);
        woke = cs_wait(&w, 1, CS_FOREVER);
    }
    if (woke == CS_WOKE_READY) {
        close_gate(p);
    }
    cs_sessions_remove_gate(&p->c->sessions, p->key);
    p->jobs--;
    cs_peer_release(p);
}

void cs_gate_on_gone(struct cs_peer *p)
{
    cs_handle co;
    p->jobs++; /* until gone_run has ended */
    if (cs_co_spawn(p->c->loop, "gate-gone", gone_run, p, &co) != CS_OK) {
        /* Sessions would look live for ever: a restart of this role closes them. */
        p->jobs--;
        cs_control_fail(p->c, "no memory to close a gate's sessions");
    }
}

/* ---- sessions ---- */

struct cs_ctl_session *cs_gate_session(struct cs_peer *p, const struct cs_id *id)
{
    struct cs_control *c = p->c;
    struct cs_ctl_session *s = cs_id_is_zero(id) ? NULL : cs_sessions_get(&c->sessions, id);
    if (s == NULL && c->keep && !cs_id_is_zero(id)) {
        struct cs_arena a;
        struct cs_store_session row;
        cs_arena_init(&a, JOB_ARENA_CHUNK, JOB_ARENA_MAX);
        enum cs_err e = cs_store_session_get(c->store, id, &a, &row);
        s = cs_sessions_get(&c->sessions, id);
        if (s == NULL && e == CS_OK && row.closed_ms == 0) {
            s = cs_sessions_add(&c->sessions, id, row.gate, row.chain, row.target, row.address);
            if (s != NULL) {
                s->unnamed = true;
            }
        }
        cs_arena_done(&a);
    }
    /* SECURITY: a gate speaks for its own sessions only. */
    return s != NULL && s->gate_key == p->key && !s->killed ? s : NULL;
}

static void session_opened(struct cs_job *j)
{
    const struct cs_msg_session_opened *m = (const void *)j->msg.raw;
    struct cs_control *c = j->peer->c;
    if (cs_gate_session(j->peer, &m->session) == NULL) {
        return;
    }
    enum cs_err e = cs_store_session_update(c->store, &m->session, m->database, m->application);
    if (e == CS_OK) {
        cs_log(CS_EV_SESSION_OPEN, &m->session, "database=%s application=%s",
               cs_log_quote(m->database).text, cs_log_quote(m->application).text);
    } else if (e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_STORE_FAILED, &m->session, "error=%s", cs_err_name(e));
    }
}

static void session_closed(struct cs_job *j)
{
    const struct cs_msg_session_closed *m = (const void *)j->msg.raw;
    struct cs_control *c = j->peer->c;
    if (cs_gate_session(j->peer, &m->session) == NULL) {
        return;
    }
    enum cs_err e = cs_approval_session_closed(c->approval, &m->session, m->why);
    cs_sessions_remove(&c->sessions, &m->session);
    if (e == CS_OK) {
        cs_log(CS_EV_SESSION_CLOSE, &m->session, "why=%s", cs_log_quote(m->why).text);
    } else if (e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_STORE_FAILED, &m->session, "error=%s", cs_err_name(e));
    }
}

/* ---- what a gate says to a new control ---- */

/* This control, or the last one, has ended it, and the word did not reach the gate. Unless it is
 * certain, nothing is ended. */
static void kill_if_ended(struct cs_job *j, const struct cs_id *id)
{
    struct cs_store_session row;
    enum cs_err e = cs_store_session_get(j->peer->c->store, id, &j->arena, &row);
    if (e == CS_ERR_NOT_FOUND || (e == CS_OK && (row.closed_ms != 0 || row.gate != j->peer->key))) {
        struct cs_msg_session_kill kill = {.session = *id,
                                           .why = CS_SLICE_LIT("the session was ended")};
        (void)cs_peer_send(j->peer, CS_MSG_SESSION_KILL, 0, &kill, NULL, 0);
    }
}

static void session_live(struct cs_job *j)
{
    const struct cs_msg_session_live *m = (const void *)j->msg.raw;
    struct cs_id grants[CS_SESSION_GRANTS];
    struct cs_ctl_session *s = cs_gate_session(j->peer, &m->session);
    if (s == NULL) {
        kill_if_ended(j, &m->session);
        return;
    }
    s->unnamed = false;
    if (m->asking != 0) {
        return; /* what it waits for came on this channel: nothing of it is old */
    }
    size_t n = CS_MIN(m->grants.n / CS_ID_BYTES, CS_ARRAY_LEN(grants));
    if (n > 0) {
        memcpy(grants, m->grants.p, n * CS_ID_BYTES);
    }
    enum cs_err e =
        cs_approval_session_keeps(j->peer->c->approval, &m->session, m->request, grants, n);
    if (e != CS_OK && e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_STORE_FAILED, &m->session, "live=%s", cs_err_name(e));
    }
}

static void close_unnamed(struct cs_job *j, struct cs_id *ids, size_t n)
{
    struct cs_control *c = j->peer->c;
    size_t left = 0;
    for (size_t i = 0; i < n; i++) {
        const struct cs_ctl_session *s = cs_sessions_get(&c->sessions, &ids[i]);
        if (s == NULL || s->unnamed) {
            ids[left++] = ids[i];
        }
    }
    if (left == 0) {
        return;
    }
    static const char why[] = "ended while the gateway's control was restarted";
    enum cs_err e = cs_approval_sessions_closed(c->approval, ids, left, cs_slice_str(why));
    for (size_t i = 0; i < left; i++) {
        cs_sessions_remove(&c->sessions, &ids[i]);
    }
    if (e == CS_OK) {
        cs_log(CS_EV_SESSION_CLOSE, NULL, "gate=%llu sessions=%zu why=\"%s\"",
               (unsigned long long)j->peer->index, left, why);
        cs_control_wake(c);
    } else if (e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_STORE_FAILED, NULL, "told=%s", cs_err_name(e));
    }
}

/* The gate has named every session that it carries: the others are over, and the grant that one of
 * them may have got goes to the next that waits. */
static void sessions_told(struct cs_job *j)
{
    struct cs_peer *p = j->peer;
    struct cs_id *ids = NULL;
    size_t n = 0;
    /* Listed first: whoever logs in after this message is not among them. */
    enum cs_err e = cs_store_sessions_of_gate(p->c->store, p->key, &j->arena, &ids, &n);
    enum cs_woke woke = CS_WOKE_READY;
    while (p->untold_jobs > 0 && woke == CS_WOKE_READY) { /* results, names, logins before it */
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &p->room);
        cs_event_clear(&p->room);
        woke = cs_wait(&w, 1, CS_FOREVER);
    }
    if (woke != CS_WOKE_READY || e == CS_ERR_CANCELLED) {
        return;
    }
    if (e != CS_OK) {
        cs_log(CS_EV_STORE_FAILED, NULL, "told=%s", cs_err_name(e));
        return;
    }
    close_unnamed(j, ids, n);
}

enum cs_err cs_gate_kill(struct cs_control *c, const struct cs_id *id, uint64_t gate_key,
                         struct cs_slice why)
{
    struct cs_ctl_session *s = cs_sessions_get(&c->sessions, id);
    if (s != NULL) {
        s->killed = true; /* from here on nothing is done for it, whatever the gate says */
    }
    struct cs_peer *p = cs_peer_by_key(c, gate_key);
    if (p != NULL) {
        struct cs_msg_session_kill kill = {.session = *id, .why = cs_slice_head(why, 256)};
        (void)cs_peer_send(p, CS_MSG_SESSION_KILL, 0, &kill, NULL, 0);
    }
    enum cs_err e = cs_approval_session_closed(c->approval, id, why);
    if (e == CS_OK) {
        cs_sessions_remove(&c->sessions, id);
        cs_log(CS_EV_SESSION_CLOSE, id, "why=%s", cs_log_quote(why).text);
        cs_control_wake(c);
    }
    return e;
}

enum cs_err cs_gate_kill_of(struct cs_control *c, struct cs_slice principal_id, struct cs_slice why)
{
    struct cs_store_session_query q = {.principal = principal_id};
    for (unsigned round = 0; round < SWEEPS_MAX; round++) { /* a list holds 1000 at most */
        struct cs_arena a;
        struct cs_store_session *list = NULL;
        size_t n = 0;
        cs_arena_init(&a, JOB_ARENA_CHUNK, JOB_ARENA_MAX * 4);
        enum cs_err e = cs_store_session_list(c->store, &q, &a, &list, &n);
        for (size_t i = 0; e == CS_OK && i < n; i++) {
            e = cs_gate_kill(c, &list[i].id, list[i].gate, why);
        }
        cs_arena_done(&a);
        if (e != CS_OK || n == 0) {
            return e;
        }
    }
    return CS_ERR_LIMIT;
}

void cs_gate_sweep(struct cs_control *c)
{
    struct cs_store_session_query q = {.closed_too = false};
    bool more = true;
    for (unsigned round = 0; more && round < SWEEPS_MAX; round++) {
        struct cs_arena a;
        struct cs_store_session *list = NULL;
        size_t n = 0;
        more = false;
        cs_arena_init(&a, JOB_ARENA_CHUNK, JOB_ARENA_MAX * 4);
        if (cs_store_session_list(c->store, &q, &a, &list, &n) == CS_OK) {
            for (size_t i = 0; i < n && !more; i++) {
                more = cs_peer_by_key(c, list[i].gate) == NULL &&
                       cs_approval_gate_gone(c->approval, list[i].gate,
                                             CS_SLICE_LIT("gate ended")) == CS_OK;
            }
        }
        cs_arena_done(&a);
    }
}

/* ---- changes of requests ---- */

struct late { /* news for a session that this run of control has not met yet */
    struct cs_control *c;
    struct cs_arena arena;
    struct cs_msg_request_state msg;
};

static void late_run(void *arg)
{
    struct late *l = arg;
    struct cs_store_session row;
    if (cs_store_session_get(l->c->store, &l->msg.session, &l->arena, &row) == CS_OK &&
        row.closed_ms == 0) {
        struct cs_peer *p = cs_peer_by_key(l->c, row.gate);
        if (p != NULL) {
            (void)cs_peer_send(p, CS_MSG_REQUEST_STATE, 0, &l->msg, NULL, 0);
        }
    }
    cs_arena_done(&l->arena);
    cs_free(l);
}

static void tell_later(struct cs_control *c, const struct cs_msg_request_state *m)
{
    struct late *l = cs_alloc(sizeof *l);
    if (l == NULL) {
        return; /* the gate's own wait ends in time */
    }
    l->c = c;
    l->msg = *m;
    cs_arena_init(&l->arena, JOB_ARENA_CHUNK, JOB_ARENA_MAX);
    l->msg.request = cs_arena_dup(&l->arena, m->request);
    l->msg.by = cs_arena_dup(&l->arena, m->by);
    l->msg.words = cs_arena_dup(&l->arena, m->words);
    cs_handle co;
    if (l->msg.words.p == NULL || cs_co_spawn(c->loop, "late-news", late_run, l, &co) != CS_OK) {
        cs_arena_done(&l->arena);
        cs_free(l);
    }
}

void cs_gate_on_change(const struct cs_approval_change *ch, void *control)
{
    struct cs_control *c = control;
    cs_metric_add(CS_SLOT_REQUESTS + (size_t)ch->state, 1);
    for (size_t i = 0; i < ch->n_sessions; i++) {
        struct cs_msg_request_state m = {.session = ch->sessions[i],
                                         .request = ch->request,
                                         .state = ch->state,
                                         .expires_ms = ch->expires_ms,
                                         .by = cs_slice_head(ch->by, 256),
                                         .words = cs_slice_head(ch->words, CS_LIMIT_REASON_BYTES)};
        if (cs_id_eq(&ch->sessions[i], &ch->grant_session)) {
            m.grant = ch->grant;
        }
        struct cs_ctl_session *s = cs_sessions_get(&c->sessions, &ch->sessions[i]);
        struct cs_peer *p = s != NULL ? cs_peer_by_key(c, s->gate_key) : NULL;
        if (p != NULL) {
            (void)cs_peer_send(p, CS_MSG_REQUEST_STATE, 0, &m, NULL, 0);
        } else if (s == NULL && c->keep) {
            tell_later(c, &m);
        }
    }
    if (ch->state == CS_REQUEST_APPROVED || cs_request_state_final(ch->state)) {
        cs_log(CS_EV_REQUEST_DECIDED, NULL, "request=%.*s state=%s by=%s",
               CS_SLICE_FMT(ch->request), cs_request_state_name(ch->state),
               cs_log_quote(ch->by).text);
    }
    cs_control_wake(c);
}
