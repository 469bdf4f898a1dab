/* Holding: the action is stored by control, people decide, and this session's coroutine waits. The
 * action's bytes never leave this process and control's store; when the grant comes, gate computes
 * the digest of the bytes that it is about to forward and control compares it once more when the
 * grant is consumed (promise 1).
 *
 * The only ways to ALLOW are at the end of consume(). */
#include "action/frame.h"
#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "gate/gate.h"
#include "gate/protocol.h"

#include <stdio.h>
#include <unistd.h>

#define HOLD_CALL_NS (20 * CS_NS_PER_S)

struct cs_hold { /* one wait; on the heap, because a coroutine's stack is small */
    char request[CS_REQUEST_ID_TEXT];
    enum cs_request_state state;
    uint64_t expires_ms;
    uint8_t digest[CS_DIGEST];
    struct cs_id grant;
    bool attached;
    char url[256];
    char by[128];
    char words[CS_LIMIT_REASON_BYTES + 1];
    struct cs_event changed;
    uint64_t begun_ns, budget_ns, next_notice_ns;
    bool noticed;
    uint64_t control_generation; /* of the control that knows of this wait */
    bool left;                   /* it no longer waits, whether control heard it or not */
    struct cs_id tried;          /* the grant that was tried to consume, answered or not */
};

static void copy(char *out, size_t n, struct cs_slice s)
{
    (void)snprintf(out, n, "%.*s", CS_SLICE_FMT(s));
}

static void refuse(struct cs_verdict *v, enum cs_refusal why, const char *message, const char *hint)
{
    v->outcome = CS_DENY;
    v->refusal = why;
    v->granted = false;
    copy(v->message, sizeof v->message, cs_slice_str(message));
    copy(v->hint, sizeof v->hint, cs_slice_str(hint));
}

/* ---- what control says ---- */

void cs_hold_on_state(struct cs_gate *g, const struct cs_msg_request_state *m)
{
    struct cs_session *s = cs_session_by_id(g, &m->session);
    struct cs_hold *h = s != NULL ? s->hold : NULL;
    if (h == NULL || !cs_slice_eq_str(m->request, h->request) || m->state >= CS_REQUEST_MAX) {
        return; /* late news of a wait that has ended */
    }
    h->state = (enum cs_request_state)m->state;
    h->expires_ms = m->expires_ms;
    h->grant = m->grant;
    copy(h->by, sizeof h->by, m->by);
    copy(h->words, sizeof h->words, m->words);
    cs_event_set(&h->changed);
}

void cs_hold_on_control(struct cs_gate *g)
{
    for (struct cs_session *s = g->by_state[CS_SESSION_HELD]; s != NULL; s = s->next) {
        if (s->hold != NULL) {
            cs_event_set(&s->hold->changed);
        }
    }
}

static void leave(struct cs_session *s, struct cs_hold *h, enum cs_leave how)
{
    if (h->request[0] != 0) {
        h->left = true;
        cs_tell_leave(s, cs_slice_str(h->request), how);
    }
}

/* Nobody is to sign what will not run: others may still wait for it, but not in a transaction. */
static void give_up(struct cs_session *s, const struct cs_action *a, struct cs_hold *h)
{
    leave(s, h, a->in_transaction ? CS_LEAVE_VOID : CS_LEAVE_DETACH);
}

bool cs_hold_asking(const struct cs_session *s, struct cs_slice *ret_request)
{
    const struct cs_hold *h = s->hold;
    *ret_request = h != NULL && !h->left ? cs_slice_str(h->request) : CS_SLICE_NULL;
    return h != NULL && h->request[0] == 0 && h->control_generation == s->gate->control_generation;
}

static enum cs_err sealed_action(const struct cs_action *a, int *ret_fd)
{
    size_t cap = cs_action_encoded_size(a);
    uint8_t *mem = cs_alloc(cap);
    if (mem == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_writer w = cs_writer(mem, cap);
    cs_action_encode(&w, a);
    enum cs_err e =
        w.overflow ? CS_ERR_INTERNAL : cs_sealed_make("action", cs_writer_done(&w), ret_fd);
    cs_free(mem);
    return e;
}

static struct cs_slice rule_names(const struct cs_decision *d, struct cs_writer *w)
{
    for (size_t i = 0; i < d->n_rules; i++) {
        if (i > 0) {
            cs_writer_u8(w, ',');
        }
        cs_writer_bytes(w, d->rules[i]->name);
    }
    return cs_writer_done(w);
}

/* The digest of exactly these bytes under the request's id and nonce; false when control's digest
 * is another one: then somebody would sign something else than what would run. */
static bool digest_agrees(const struct cs_session *s, const struct cs_action *a,
                          const struct cs_msg_held *m)
{
    uint8_t match[CS_DIGEST], digest[CS_DIGEST];
    if (m->nonce.n != CS_NONCE || m->digest.n != CS_DIGEST) {
        return false;
    }
    cs_action_match(a, s->chain, s->target_name, match);
    cs_action_digest(match, m->request, m->nonce.p, m->policy, a->tx, digest);
    return cs_slice_eq_secret(m->digest, cs_slice(digest, CS_DIGEST));
}

static enum cs_err take_held(struct cs_session *s, const struct cs_action *a, struct cs_hold *h,
                             const struct cs_msg_held *m)
{
    copy(h->words, sizeof h->words, m->text);
    if (m->err != CS_OK) {
        return m->err < CS_ERR_MAX ? (enum cs_err)m->err : CS_ERR_PROTOCOL;
    }
    if (m->state >= CS_REQUEST_MAX || m->request.n != CS_REQUEST_ID_CHARS) {
        return CS_ERR_PROTOCOL;
    }
    if (!digest_agrees(s, a, m)) {
        copy(h->words, sizeof h->words, CS_SLICE_LIT("the digest does not cover these bytes"));
        return CS_ERR_CONFLICT;
    }
    copy(h->request, sizeof h->request, m->request);
    h->state = (enum cs_request_state)m->state;
    h->expires_ms = m->expires_ms;
    h->grant = m->grant;
    h->attached = m->attached != 0;
    memcpy(h->digest, m->digest.p, CS_DIGEST);
    copy(h->url, sizeof h->url, m->url);
    copy(h->by, sizeof h->by, m->by);
    copy(h->words, sizeof h->words, m->words);
    return CS_OK;
}

/* Stores the request with control, or attaches to the one that asks the same. Once it has a
 * request, only that one: who was denied must not ask again by accident. */
static enum cs_err ask_hold(struct cs_session *s, const struct cs_action *a,
                            const struct cs_verdict *v, struct cs_hold *h)
{
    struct cs_gate *g = s->gate;
    uint8_t rules[CS_RULES_FIRED * 65];
    struct cs_writer w = cs_writer(rules, sizeof rules);
    struct cs_call call;
    int fd = -1;
    if (g->control == NULL) {
        return CS_ERR_UNAVAILABLE;
    }
    enum cs_err e = sealed_action(a, &fd);
    if (e != CS_OK) {
        return e;
    }
    struct cs_msg_hold m = {.session = s->id,
                            .waiting = s->async ? 0 : 1,
                            .in_transaction = a->in_transaction ? 1 : 0,
                            .rules = rule_names(CS_VERDICT_DECISION_CONST(v), &w),
                            .elevated = v->elevated ? 1 : 0,
                            .snapshot = cs_policy_version(s->config->policy),
                            .again = cs_slice_str(h->request)};
    memset(&call, 0, sizeof call);
    call.fd[0] = call.fd[1] = call.fd[2] = -1;
    e = w.overflow ? CS_ERR_TOO_LARGE
                   : cs_channel_call(g->control, CS_MSG_HOLD, &m, &fd, 1,
                                     cs_mono_ns() + HOLD_CALL_NS, &call);
    (void)close(fd);
    if (e == CS_OK) {
        e = call.type == CS_MSG_HELD ? take_held(s, a, h, (const void *)call.msg.raw)
                                     : CS_ERR_PROTOCOL;
    }
    cs_call_done(&call);
    return e;
}

/* ---- telling the client ---- */

static uint64_t seconds_until(uint64_t end, uint64_t now, uint64_t per_second)
{
    return end > now ? (end - now + per_second - 1) / per_second : 0;
}

static uint64_t wait_left_s(const struct cs_hold *h)
{
    uint64_t now_ms = cs_wall_ms();
    uint64_t request_s = seconds_until(h->expires_ms, now_ms, 1000);
    uint64_t budget_s = seconds_until(h->begun_ns + h->budget_ns, cs_mono_ns(), CS_NS_PER_S);
    return CS_MIN(request_s, budget_s);
}

static struct cs_slice wait_line(struct cs_session *s, struct cs_hold *h,
                                 const struct cs_verdict *v, uint64_t wait_s, struct cs_arena *a)
{
    const struct cs_decision *d = CS_VERDICT_DECISION_CONST(v);
    struct cs_slice rule = d->n_rules > 0 ? d->rules[0]->name : CS_SLICE_NULL;
    (void)s;
    return cs_wait_line(a, cs_slice_str(h->request), h->state, wait_s,
                        seconds_until(h->expires_ms, cs_wall_ms(), 1000), cs_slice_str(h->url),
                        rule);
}

static void notice(struct cs_session *s, struct cs_hold *h, const struct cs_verdict *v,
                   const struct cs_hold_ops *ops)
{
    struct cs_arena a;
    cs_arena_init(&a, 1024, 8192);
    ops->notice(s, !h->noticed, wait_line(s, h, v, wait_left_s(h), &a));
    cs_arena_done(&a);
    h->noticed = true;
    h->next_notice_ns = cs_mono_ns() + CS_LIMIT_NOTICE_S * CS_NS_PER_S;
}

/* "Still pending": the wait line goes to the client as the detail of an error. */
static void refuse_waiting(struct cs_session *s, struct cs_hold *h, struct cs_verdict *v)
{
    struct cs_arena a;
    cs_arena_init(&a, 1024, 8192);
    refuse(v, CS_REFUSAL_WAITING, "Countersign holds this: a person must sign it first",
           "Repeat exactly this request after approval: it then runs once. Nothing has run yet.");
    copy(v->detail, sizeof v->detail, wait_line(s, h, v, 0, &a));
    cs_arena_done(&a);
}

/* ---- the end of a wait ---- */

static void refuse_by_state(struct cs_hold *h, struct cs_verdict *v)
{
    switch (h->state) {
    case CS_REQUEST_DENIED:
        refuse(v, CS_REFUSAL_PERSON, "",
               "Do not repeat it unchanged; the approver's words say why.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign denied this: %s refused request %s", h->by, h->request);
        copy(v->detail, sizeof v->detail, cs_slice_str(h->words));
        break;
    case CS_REQUEST_EXPIRED:
        refuse(v, CS_REFUSAL_EXPIRED, "", "Repeat the request to ask again.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign denied this: nobody decided request %s in time", h->request);
        break;
    case CS_REQUEST_CANCELLED:
        refuse(v, CS_REFUSAL_CANCELLED, "", "");
        (void)snprintf(v->message, sizeof v->message, "Countersign: request %s was cancelled",
                       h->request);
        break;
    case CS_REQUEST_DONE:
    case CS_REQUEST_EXECUTING:
    case CS_REQUEST_UNKNOWN:
        refuse(v, CS_REFUSAL_VOID, "", "Look at its result before you ask again.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign: already executed as %s by another connection", h->request);
        break;
    case CS_REQUEST_NONE:
    case CS_REQUEST_PENDING:
    case CS_REQUEST_APPROVED:
    case CS_REQUEST_VOID:
    case CS_REQUEST_MAX:
    default:
        refuse(v, CS_REFUSAL_VOID, "", "Repeat the request to ask again.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign denied this: request %s is void: %.150s", h->request,
                       h->words[0] != 0 ? h->words : "something it depended on changed");
        break;
    }
}

static void record_decided(struct cs_session *s, const struct cs_hold *h,
                           const struct cs_verdict *v)
{
    struct cs_frame_decided f = {.n = v->n,
                                 .request = cs_slice_str(h->request),
                                 .state = (uint64_t)h->state,
                                 .by = cs_slice_str(h->by),
                                 .words = cs_slice_str(h->words)};
    if (cs_gate_append(s, CS_FRAME_DECIDED, &f, false) != CS_OK) {
        cs_log(CS_EV_RECORD_FAILED, &s->id, "frame=decided request=%s", h->request);
    }
    cs_log(CS_EV_REQUEST_DECIDED, &s->id, "request=%s state=%s by=%s", h->request,
           cs_request_state_name(h->state), cs_log_quote(cs_slice_str(h->by)).text);
}

/* The order of promise 1: the record that it is about to run is durable → the grant is consumed by
 * compare-and-set → bytes go upstream. A failure at any step refuses; a consumption whose answer is
 * lost is never taken for granted. */
static bool record_execute(struct cs_session *s, const struct cs_action *a, struct cs_hold *h,
                           struct cs_verdict *v)
{
    struct cs_frame_execute f = {.n = v->n,
                                 .request = cs_slice_str(h->request),
                                 .grant = h->grant,
                                 .digest = cs_slice(h->digest, CS_DIGEST),
                                 .elevated = v->elevated ? 1 : 0,
                                 .role = a->role};
    /* Once: a control that dies with the question is asked again. */
    if (!cs_id_eq(&h->tried, &h->grant) && cs_gate_append(s, CS_FRAME_EXECUTE, &f, true) != CS_OK) {
        refuse(v, CS_REFUSAL_RECORD, "Countersign denied this: it cannot be recorded now",
               "Repeat the request when the gateway can record again.");
        give_up(s, a, h);
        return false;
    }
    return true;
}

/* UNAVAILABLE: control is gone, before or after it consumed the grant. */
static enum cs_err ask_consume(struct cs_session *s, struct cs_hold *h)
{
    struct cs_msg_consume m = {.session = s->id,
                               .request = cs_slice_str(h->request),
                               .grant = h->grant,
                               .digest = cs_slice(h->digest, CS_DIGEST)};
    struct cs_call call;
    memset(&call, 0, sizeof call);
    call.fd[0] = call.fd[1] = call.fd[2] = -1;
    if (!cs_id_eq(&h->tried, &h->grant) && !cs_tell_using(s, &h->grant)) {
        return CS_ERR_LIMIT;
    }
    h->tried = h->grant;
    enum cs_err e = CS_ERR_UNAVAILABLE;
    if (s->gate->control != NULL) {
        e = cs_channel_call(s->gate->control, CS_MSG_CONSUME, &m, NULL, 0,
                            cs_mono_ns() + HOLD_CALL_NS, &call);
    }
    if (e == CS_OK && call.type == CS_MSG_CONSUMED) {
        const struct cs_msg_consumed *c = (const void *)call.msg.raw;
        e = c->err < CS_ERR_MAX ? (enum cs_err)c->err : CS_ERR_PROTOCOL;
        if (e != CS_OK) {
            copy(h->words, sizeof h->words, c->text);
        }
    } else if (e == CS_OK) {
        e = CS_ERR_PROTOCOL;
    }
    cs_call_done(&call);
    return e;
}

/* False: control is gone, and the next one must be asked how the request stands. */
static bool consume(struct cs_session *s, const struct cs_action *a, struct cs_hold *h,
                    struct cs_verdict *v)
{
    if (!record_execute(s, a, h, v)) {
        return true;
    }
    enum cs_err e = ask_consume(s, h);
    if (e == CS_ERR_UNAVAILABLE) {
        h->state = CS_REQUEST_PENDING;
        h->grant = (struct cs_id){{0}};
        h->control_generation = 0;
        cs_event_set(&h->changed);
        return false;
    }
    if (e != CS_OK) {
        give_up(s, a, h);
        h->state = CS_REQUEST_VOID;
        refuse_by_state(h, v);
        return true;
    }
    v->outcome = CS_ALLOW;
    v->granted = true;
    v->grant = h->grant;
    copy(v->request, sizeof v->request, cs_slice_str(h->request));
    cs_log(CS_EV_GRANT_USED, &s->id, "request=%s elevated=%d", h->request, v->elevated ? 1 : 0);
    return true;
}

/* ---- waiting ---- */

enum over { NOT_OVER, DECIDED, GONE, CANCEL, BUDGET };

static enum over look(struct cs_session *s, struct cs_hold *h)
{
    if (h->state != CS_REQUEST_PENDING &&
        !(h->state == CS_REQUEST_APPROVED && cs_id_is_zero(&h->grant))) {
        return DECIDED;
    }
    if (s->kill.set || s->client.fd.hup || s->client.err != CS_OK) {
        return GONE;
    }
    if (s->cancel.set) {
        return CANCEL;
    }
    if (cs_mono_ns() >= h->begun_ns + h->budget_ns) {
        return BUDGET;
    }
    return NOT_OVER;
}

/* Control was restarted: the request is in the store; attach to it again by its name. Under the
 * session's old configuration, which its decision points into: control decides by its own. */
static bool ask_again(struct cs_session *s, const struct cs_action *a, const struct cs_verdict *v,
                      struct cs_hold *h)
{
    if (s->gate->control == NULL) {
        return true; /* wait for the new one, within the budget */
    }
    h->control_generation = s->gate->control_generation;
    if (a->in_transaction) {
        return false; /* nothing attaches inside a transaction */
    }
    enum cs_err e = ask_hold(s, a, v, h);
    return e == CS_OK || e == CS_ERR_UNAVAILABLE;
}

static enum over wait_turn(struct cs_session *s, const struct cs_action *a,
                           const struct cs_hold_ops *ops, const struct cs_verdict *v,
                           struct cs_hold *h)
{
    struct cs_wait items[CS_WAIT_MAX];
    size_t n = 0;
    items[n++] = CS_WAIT_ON(CS_WAIT_EVENT, &h->changed);
    items[n++] = CS_WAIT_ON(CS_WAIT_EVENT, &s->cancel);
    items[n++] = CS_WAIT_ON(CS_WAIT_EVENT, &s->kill);
    items[n++] = CS_WAIT_ON(CS_WAIT_HUP, &s->client.fd);
    n += ops->items(s, items + n);
    uint64_t until = CS_MIN(h->next_notice_ns, h->begun_ns + h->budget_ns);
    enum cs_woke w = cs_wait(items, n, until);
    cs_event_clear(&h->changed);
    if (w == CS_WOKE_CANCELLED || !ops->pump(s)) {
        return GONE;
    }
    if (h->control_generation != s->gate->control_generation && !ask_again(s, a, v, h)) {
        give_up(s, a, h);
        h->state = CS_REQUEST_VOID;
        copy(h->words, sizeof h->words, CS_SLICE_LIT("the gateway lost the request"));
        return DECIDED;
    }
    return look(s, h);
}

static enum over wait_until_over(struct cs_session *s, const struct cs_action *a,
                                 const struct cs_hold_ops *ops, const struct cs_verdict *v,
                                 struct cs_hold *h)
{
    enum over o = look(s, h);
    while (o == NOT_OVER) {
        if (cs_mono_ns() >= h->next_notice_ns) {
            notice(s, h, v, ops);
        }
        o = wait_turn(s, a, ops, v, h);
    }
    return o;
}

/* How long this connection waits. Where the rule sets no shorter wait it is the request's whole
 * life, and a little more: then it is control that ends it, as expired. */
static uint64_t budget_of(const struct cs_action *a, const struct cs_decision *d)
{
    enum { GRACE_S = 5 };
    uint64_t life_s = d->within_s > 0 ? (uint64_t)d->within_s + GRACE_S : CS_LIMIT_WAIT_S + GRACE_S;
    uint64_t wait_s =
        d->wait_s > 0 ? d->wait_s : CS_MIN(life_s, (uint64_t)CS_LIMIT_WAIT_S + GRACE_S);
    if (a->in_transaction) {
        wait_s = CS_MIN(wait_s, (uint64_t)CS_LIMIT_TX_HOLD_S); /* locks stay held meanwhile */
    }
    return wait_s * CS_NS_PER_S;
}

static bool decided(struct cs_session *s, const struct cs_action *a, struct cs_hold *h,
                    struct cs_verdict *v)
{
    bool tried = !cs_id_is_zero(&h->tried);
    if (tried && (h->state == CS_REQUEST_EXECUTING || h->state == CS_REQUEST_UNKNOWN)) {
        h->state = CS_REQUEST_VOID;
        copy(h->words, sizeof h->words,
             CS_SLICE_LIT("the answer about its approval was lost; this connection ran nothing"));
    }
    if (!tried || h->state != CS_REQUEST_APPROVED) {
        record_decided(s, h, v);
    }
    if (h->state == CS_REQUEST_APPROVED) {
        return consume(s, a, h, v);
    }
    refuse_by_state(h, v);
    return true;
}

/* False: it goes on waiting. */
static bool finish(struct cs_session *s, const struct cs_action *a, struct cs_hold *h,
                   struct cs_verdict *v, enum over o)
{
    switch (o) {
    case DECIDED:
        return decided(s, a, h, v);
    case CANCEL:
        leave(s, h, CS_LEAVE_CANCEL);
        h->state = CS_REQUEST_CANCELLED;
        record_decided(s, h, v);
        refuse_by_state(h, v);
        return true;
    case BUDGET:
        leave(s, h, a->in_transaction ? CS_LEAVE_VOID : CS_LEAVE_DETACH);
        if (a->in_transaction) {
            h->state = CS_REQUEST_VOID;
            copy(h->words, sizeof h->words,
                 CS_SLICE_LIT(
                     "the wait inside a transaction is over; run it outside the transaction"));
            record_decided(s, h, v);
            refuse_by_state(h, v);
        } else {
            refuse_waiting(s, h, v);
        }
        return true;
    case GONE:
    case NOT_OVER:
    default:
        leave(s, h, a->in_transaction ? CS_LEAVE_VOID : CS_LEAVE_DETACH);
        cs_gate_note(s, "request %s: the connection went away while it waited", h->request);
        refuse(v, CS_REFUSAL_CLOSED, "the connection ended while the action waited", "");
        return true;
    }
}

static bool open_request(struct cs_session *s, const struct cs_action *a, struct cs_verdict *v,
                         struct cs_hold *h)
{
    enum cs_err e = ask_hold(s, a, v, h);
    if (e != CS_OK) {
        refuse(v,
               e == CS_ERR_DENIED || e == CS_ERR_CONFLICT ? CS_REFUSAL_RULE
                                                          : CS_REFUSAL_UNAVAILABLE,
               "", "Try again; if it stays so, the gateway's operator must look.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign cannot hold this for approval: %.150s",
                       h->words[0] != 0 ? h->words : cs_err_text(e));
        return false;
    }
    struct cs_frame_held f = {.n = v->n,
                              .request = cs_slice_str(h->request),
                              .digest = cs_slice(h->digest, CS_DIGEST),
                              .attached = h->attached ? 1 : 0,
                              .expires_ms = h->expires_ms};
    if (cs_gate_append(s, CS_FRAME_HELD, &f, true) != CS_OK) {
        leave(s, h, CS_LEAVE_DETACH);
        refuse(v, CS_REFUSAL_RECORD, "Countersign denied this: it cannot be recorded now",
               "Repeat the request when the gateway can record again.");
        return false;
    }
    cs_log(CS_EV_ACTION_HELD, &s->id, "action=%llu request=%s attached=%d",
           (unsigned long long)v->n, h->request, h->attached ? 1 : 0);
    return true;
}

void cs_gate_hold(struct cs_session *s, const struct cs_action *a, const struct cs_hold_ops *ops,
                  struct cs_verdict *v)
{
    v->outcome = CS_DENY; /* until consume() says otherwise */
    if (a->in_transaction && (s->async || v->elevated)) {
        refuse(v, CS_REFUSAL_RULE,
               v->elevated ? "Countersign denied this: it needs the elevated credential, which is "
                             "used only outside a transaction"
                           : "Countersign denied this: an asynchronous client cannot wait inside a "
                             "transaction",
               "Run it outside the transaction.");
        return;
    }
    struct cs_hold *h = cs_alloc(sizeof *h);
    if (h == NULL) {
        refuse(v, CS_REFUSAL_UNAVAILABLE, "Countersign denied this: no memory", "");
        return;
    }
    h->control_generation = s->gate->control_generation;
    h->begun_ns = cs_mono_ns();
    h->budget_ns = budget_of(a, CS_VERDICT_DECISION_CONST(v));
    cs_event_clear(&s->cancel);
    cs_session_set_state(s, CS_SESSION_HELD);
    s->hold = h;
    if (open_request(s, a, v, h)) {
        if (s->async && (h->state == CS_REQUEST_PENDING)) {
            refuse_waiting(s, h, v);
        } else {
            while (!finish(s, a, h, v, wait_until_over(s, a, ops, v, h))) {
            }
        }
    }
    if (!cs_id_is_zero(&h->tried) && !v->granted) {
        /* It may be consumed all the same, the answer lost: then nothing ran by it. */
        cs_gate_executed(s, &h->tried, CS_RAN_NOT,
                         CS_SLICE_LIT("the gateway could not use the approval"));
    }
    s->hold = NULL;
    cs_free(h);
    cs_session_set_state(s, CS_SESSION_READY);
}
