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
#include "gate/hold_internal.h"

#include <stdio.h>

#define PARKED_NS (20 * CS_NS_PER_S)

static void refuse(struct cs_verdict *v, enum cs_refusal why, const char *message, const char *hint)
{
    v->outcome = CS_DENY;
    v->refusal = why;
    v->granted = false;
    cs_hold_copy(v->message, sizeof v->message, cs_slice_str(message));
    cs_hold_copy(v->hint, sizeof v->hint, cs_slice_str(hint));
}

/* ---- what control says ---- */

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
    if (h->now.request[0] != 0) {
        h->left = true;
        cs_tell_leave(s, cs_slice_str(h->now.request), how);
    }
}

/* Nobody is to sign what will not run: others may still wait for it, but not in a transaction. */
static void give_up(struct cs_session *s, const struct cs_action *a, struct cs_hold *h)
{
    leave(s, h, a->in_transaction ? CS_LEAVE_VOID : CS_LEAVE_DETACH);
}

/* ---- telling the client ---- */

static uint64_t seconds_until(uint64_t end, uint64_t now, uint64_t per_second)
{
    return end > now ? (end - now + per_second - 1) / per_second : 0;
}

static uint64_t wait_left_s(const struct cs_hold *h)
{
    uint64_t now_ms = cs_wall_ms();
    uint64_t request_s = seconds_until(h->now.expires_ms, now_ms, 1000);
    uint64_t budget_s = seconds_until(h->begun_ns + h->budget_ns, cs_mono_ns(), CS_NS_PER_S);
    return CS_MIN(request_s, budget_s);
}

static struct cs_slice wait_line(struct cs_session *s, struct cs_hold *h,
                                 const struct cs_verdict *v, uint64_t wait_s, struct cs_arena *a)
{
    const struct cs_decision *d = CS_VERDICT_DECISION_CONST(v);
    struct cs_slice rule = d->n_rules > 0 ? d->rules[0]->name : CS_SLICE_NULL;
    (void)s;
    return cs_wait_line(a, cs_slice_str(h->now.request), h->now.state, wait_s,
                        seconds_until(h->now.expires_ms, cs_wall_ms(), 1000), cs_slice_str(h->url),
                        rule);
}

static void notice(struct cs_session *s, struct cs_hold *h, const struct cs_verdict *v,
                   const struct cs_hold_ops *ops)
{
    struct cs_arena a;
    cs_arena_init(&a, 1024, 8192);
    ops->notice(s, !h->noticed, wait_line(s, h, v, wait_left_s(h), &a));
    cs_arena_done(&a);
    cs_gate_definitions_watch(s);
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
    cs_hold_copy(v->detail, sizeof v->detail, wait_line(s, h, v, 0, &a));
    cs_arena_done(&a);
}

/* ---- the end of a wait ---- */

static void refuse_by_state(struct cs_hold *h, struct cs_verdict *v)
{
    switch (h->now.state) {
    case CS_REQUEST_DENIED:
        refuse(v, CS_REFUSAL_PERSON, "",
               "Do not repeat it unchanged; the approver's words say why.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign denied this: %s refused request %s", h->now.by, h->now.request);
        cs_hold_copy(v->detail, sizeof v->detail, cs_slice_str(h->now.words));
        break;
    case CS_REQUEST_EXPIRED:
        refuse(v, CS_REFUSAL_EXPIRED, "", "Repeat the request to ask again.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign denied this: nobody decided request %s in time",
                       h->now.request);
        break;
    case CS_REQUEST_CANCELLED:
        refuse(v, CS_REFUSAL_CANCELLED, "", "");
        (void)snprintf(v->message, sizeof v->message, "Countersign: request %s was cancelled",
                       h->now.request);
        break;
    case CS_REQUEST_DONE:
    case CS_REQUEST_EXECUTING:
    case CS_REQUEST_UNKNOWN:
        refuse(v, CS_REFUSAL_VOID, "", "Look at its result before you ask again.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign: already executed as %s by another connection", h->now.request);
        break;
    case CS_REQUEST_NONE:
    case CS_REQUEST_PENDING:
    case CS_REQUEST_APPROVED:
    case CS_REQUEST_VOID:
    case CS_REQUEST_MAX:
    default:
        refuse(v, CS_REFUSAL_VOID, "", "Repeat the request to ask again.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign denied this: request %s is void: %.150s", h->now.request,
                       h->now.words[0] != 0 ? h->now.words : "something it depended on changed");
        break;
    }
}

static void record_decided(struct cs_session *s, const struct cs_hold *h,
                           const struct cs_verdict *v)
{
    struct cs_frame_decided f = {.n = v->n,
                                 .request = cs_slice_str(h->now.request),
                                 .state = (uint64_t)h->now.state,
                                 .by = cs_slice_str(h->now.by),
                                 .words = cs_slice_str(h->now.words)};
    if (cs_gate_append(s, CS_FRAME_DECIDED, &f, false) != CS_OK) {
        cs_log(CS_EV_RECORD_FAILED, &s->id, "frame=decided request=%s", h->now.request);
    }
    cs_log(CS_EV_REQUEST_DECIDED, &s->id, "request=%s state=%s by=%s", h->now.request,
           cs_request_state_name(h->now.state), cs_log_quote(cs_slice_str(h->now.by)).text);
}

/* ---- is it over? ---- */

enum over { NOT_OVER, DECIDED, GONE, CANCEL, BUDGET };

static bool gone(const struct cs_session *s)
{
    return s->kill.set || s->client.fd.hup || s->client.err != CS_OK;
}

/* Who has gone comes first: nothing runs for a client that cannot see it (wait contract); an unused
 * grant goes to the next who waits, or to who comes back. A cancel beats an approval, but what has
 * ended is not cancelled. */
static enum over look(const struct cs_session *s, const struct cs_hold *h)
{
    bool granted = h->now.state == CS_REQUEST_APPROVED && !cs_id_is_zero(&h->now.grant);
    if (gone(s)) {
        return GONE;
    }
    if (h->now.state != CS_REQUEST_PENDING && h->now.state != CS_REQUEST_APPROVED) {
        return DECIDED;
    }
    if (s->cancel.set) {
        return CANCEL;
    }
    if (granted) {
        return DECIDED;
    }
    return cs_mono_ns() >= h->begun_ns + h->budget_ns ? BUDGET : NOT_OVER;
}

/* The order of promise 1: the record that it is about to run is durable → the grant is consumed by
 * compare-and-set → bytes go upstream. A failure at any step refuses; a consumption whose answer is
 * lost is never taken for granted. */
static bool record_execute(struct cs_session *s, const struct cs_action *a, struct cs_hold *h,
                           struct cs_verdict *v)
{
    struct cs_frame_execute f = {.n = v->n,
                                 .request = cs_slice_str(h->now.request),
                                 .grant = h->now.grant,
                                 .digest = cs_slice(h->digest, CS_DIGEST),
                                 .elevated = v->elevated ? 1 : 0,
                                 .role = a->role};
    /* Once: a control that dies with the question is asked again. */
    if (!cs_id_eq(&h->tried, &h->now.grant) &&
        cs_gate_append(s, CS_FRAME_EXECUTE, &f, true) != CS_OK) {
        refuse(v, CS_REFUSAL_RECORD, "Countersign denied this: it cannot be recorded now",
               "Repeat the request when the gateway can record again.");
        give_up(s, a, h);
        return false;
    }
    return true;
}

/* Consumed, and the client went or took it back meanwhile: nothing of it has left, so it is not
 * run. Who waits for it would run it a second time, so nobody gets it. */
static bool unwanted(struct cs_session *s, struct cs_hold *h, struct cs_verdict *v)
{
    if (gone(s)) {
        cs_gate_note(s, "request %s: the connection went away; it was not run", h->now.request);
        refuse(v, CS_REFUSAL_CLOSED, "the connection ended while the action waited", "");
        return true;
    }
    if (s->cancel.set) {
        h->now.state = CS_REQUEST_CANCELLED;
        record_decided(s, h, v);
        refuse_by_state(h, v);
        return true;
    }
    return false;
}

/* False: it goes on waiting: the record took time and things have changed, or control is gone and
 * the next one must be asked how the request stands. */
static bool consume(struct cs_session *s, const struct cs_action *a, struct cs_hold *h,
                    struct cs_verdict *v)
{
    if (!record_execute(s, a, h, v)) {
        return true;
    }
    /* SECURITY: a consumption that waits for the next control is not one yet: who goes or takes it
     * back meanwhile uses up nothing. */
    bool may_ask = cs_gate_wait_unparked(s, cs_mono_ns() + PARKED_NS);
    if (look(s, h) != DECIDED || h->now.state != CS_REQUEST_APPROVED) {
        return false;
    }
    enum cs_err e = may_ask ? cs_hold_consume(s, h) : CS_ERR_UNAVAILABLE;
    if (e == CS_ERR_UNAVAILABLE) {
        h->now.state = CS_REQUEST_PENDING;
        h->now.grant = (struct cs_id){{0}};
        h->control_generation = 0;
        cs_event_set(&h->changed);
        return false;
    }
    if (e != CS_OK) {
        give_up(s, a, h);
        h->now.state = CS_REQUEST_VOID;
        refuse_by_state(h, v);
        return true;
    }
    if (unwanted(s, h, v)) {
        return true;
    }
    v->outcome = CS_ALLOW;
    v->granted = true;
    cs_gate_exchange(s, v->elevated); /* until its connection is made, or it has ended */
    v->grant = h->tried;
    cs_hold_copy(v->request, sizeof v->request, cs_slice_str(h->now.request));
    cs_log(CS_EV_GRANT_USED, &s->id, "request=%s elevated=%d", h->now.request, v->elevated ? 1 : 0);
    return true;
}

/* ---- waiting ---- */

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
    enum cs_err e = cs_hold_ask(s, a, v, h);
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
        h->now.state = CS_REQUEST_VOID;
        cs_hold_copy(h->now.words, sizeof h->now.words,
                     CS_SLICE_LIT("the gateway lost the request"));
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
    if (tried && (h->now.state == CS_REQUEST_EXECUTING || h->now.state == CS_REQUEST_UNKNOWN)) {
        h->now.state = CS_REQUEST_VOID;
        cs_hold_copy(
            h->now.words, sizeof h->now.words,
            CS_SLICE_LIT("the answer about its approval was lost; this connection ran nothing"));
    }
    if (!tried || h->now.state != CS_REQUEST_APPROVED) {
        record_decided(s, h, v);
    }
    if (h->now.state == CS_REQUEST_APPROVED) {
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
        h->now.state = CS_REQUEST_CANCELLED;
        record_decided(s, h, v);
        refuse_by_state(h, v);
        return true;
    case BUDGET:
        leave(s, h, a->in_transaction ? CS_LEAVE_VOID : CS_LEAVE_DETACH);
        if (a->in_transaction) {
            h->now.state = CS_REQUEST_VOID;
            cs_hold_copy(
                h->now.words, sizeof h->now.words,
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
        give_up(s, a, h);
        if (cs_request_state_final(h->now.state)) {
            record_decided(s, h, v);
        }
        cs_gate_note(s, "request %s: the connection went away while it waited", h->now.request);
        refuse(v, CS_REFUSAL_CLOSED, "the connection ended while the action waited", "");
        return true;
    }
}

static bool open_request(struct cs_session *s, const struct cs_action *a, struct cs_verdict *v,
                         struct cs_hold *h)
{
    enum cs_err e = cs_hold_ask(s, a, v, h);
    if (e != CS_OK) {
        refuse(v,
               e == CS_ERR_DENIED || e == CS_ERR_CONFLICT ? CS_REFUSAL_RULE
                                                          : CS_REFUSAL_UNAVAILABLE,
               "", "Try again; if it stays so, the gateway's operator must look.");
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign cannot hold this for approval: %.150s",
                       h->now.words[0] != 0 ? h->now.words : cs_err_text(e));
        return false;
    }
    struct cs_frame_held f = {.n = v->n,
                              .request = cs_slice_str(h->now.request),
                              .digest = cs_slice(h->digest, CS_DIGEST),
                              .attached = h->attached ? 1 : 0,
                              .expires_ms = h->now.expires_ms};
    if (cs_gate_append(s, CS_FRAME_HELD, &f, true) != CS_OK) {
        leave(s, h, CS_LEAVE_DETACH);
        refuse(v, CS_REFUSAL_RECORD, "Countersign denied this: it cannot be recorded now",
               "Repeat the request when the gateway can record again.");
        return false;
    }
    cs_log(CS_EV_ACTION_HELD, &s->id, "action=%llu request=%s attached=%d",
           (unsigned long long)v->n, h->now.request, h->attached ? 1 : 0);
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
    cs_session_set_state(s, CS_SESSION_HELD);
    s->hold = h;
    if (open_request(s, a, v, h)) {
        if (s->async && (h->now.state == CS_REQUEST_PENDING)) {
            refuse_waiting(s, h, v);
        } else {
            cs_co_trim(); /* what asking took of the stack */
            while (!finish(s, a, h, v, wait_until_over(s, a, ops, v, h))) {
            }
        }
    }
    if (!cs_id_is_zero(&h->tried) && !v->granted) {
        /* It may be consumed all the same, the answer lost: then nothing ran by it. */
        cs_gate_executed(s, &h->tried, CS_RAN_NOT,
                         CS_SLICE_LIT("the gateway could not use the approval"));
    }
    if (v->outcome != CS_ALLOW) {
        /* A cancel has had its effect. Not cleared at the start: one that came while the action was
         * being recorded is for it. */
        cs_event_clear(&s->cancel);
    }
    cs_count_hold(v, h->begun_ns);
    s->hold = NULL;
    cs_free(h);
    if (v->outcome == CS_ALLOW && a->defining) {
        cs_gate_defining(s, v->elevated);
    }
    cs_session_set_state(s, CS_SESSION_READY);
}
