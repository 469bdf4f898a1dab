/* Held actions: what a gate asks for, checked against what control knows. The gate says which
 * bytes, and what its parser saw in them; who must approve is decided here, from control's own
 * rules, the session's own chain and the same facts. Where the two disagree nothing is held.
 *
 * At most once: a grant is consumed by the store's compare-and-set; only then is it noted in the
 * session, so that connect.c gives one elevated connection for it. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "ipc/metrics.h"

#include <stdio.h>

struct asked { /* what is needed to answer one HOLD, over its waits */
    struct cs_ctl_who who;
    struct cs_view *view; /* a reference */
    struct cs_slice map;  /* the action's sealed bytes */
    struct cs_action action;
    struct cs_decision decision;
    struct cs_approval_held held;
};

static void refuse(struct cs_job *j, enum cs_err e, const char *text)
{
    struct cs_msg_held m = {.err = (uint64_t)e, .text = cs_slice_str(text)};
    (void)cs_peer_send(j->peer, CS_MSG_HELD, j->corr, &m, NULL, 0);
}

/* Control's rules on the gate's facts. False when there is no such target or memory is out. */
static bool decide(const struct cs_policy *p, const struct cs_chain *chain, struct cs_slice target,
                   const struct cs_facts *facts, struct cs_arena *a, struct cs_decision *ret)
{
    memset(ret, 0, sizeof *ret);
    const struct cs_target *t = cs_policy_target(p, target);
    struct cs_policy_session *s = t != NULL ? cs_policy_session_new(p, chain, t, a) : NULL;
    if (s == NULL || !cs_policy_may_open(s, NULL)) {
        return false;
    }
    cs_policy_decide(s, facts, ret);
    return true;
}

/* Names separated by commas: exactly the decision's rules, in any order. */
static bool same_rules(const struct cs_decision *d, struct cs_slice names)
{
    size_t n = 0;
    while (names.n > 0) {
        size_t len = cs_slice_find(names, ',');
        struct cs_slice name = cs_slice_head(names, len);
        bool found = false;
        for (size_t i = 0; i < d->n_rules && !found; i++) {
            found = cs_slice_eq(d->rules[i]->name, name);
        }
        if (!found) {
            return false;
        }
        n++;
        names = cs_slice_from(names, len + 1);
    }
    return n == d->n_rules;
}

static bool read_action(struct cs_job *j, struct asked *q)
{
    enum cs_err e = cs_sealed_map(j->fd, CS_LIMIT_HELD_FORM_BYTES, &q->map);
    if (e != CS_OK) {
        q->map = CS_SLICE_NULL;
        return false;
    }
    struct cs_reader r = cs_reader(q->map);
    return cs_action_decode(&r, &j->arena, &q->action) && cs_reader_done(&r);
}

/* What the card says of a COPY's data is what the rules say of it (settings: proto/postgres). */
static bool same_cover(const struct cs_action *a, const struct cs_decision *d)
{
    static const char uncovered[] = "\ncopy-data=not covered";
    return d->copy_uncovered || a->settings.n == 0 ||
           memmem(a->settings.p, a->settings.n, uncovered, sizeof uncovered - 1) == NULL;
}

/* The sentence why it is not held, or NULL. */
static const char *check(struct cs_job *j, const struct cs_msg_hold *m, struct asked *q,
                         enum cs_err *ret_err)
{
    *ret_err = CS_ERR_INVALID;
    if (!read_action(j, q) || m->waiting > 1 || m->in_transaction > 1 || m->elevated > 1 ||
        (m->in_transaction == 1) != q->action.in_transaction) {
        return "the action could not be read";
    }
    *ret_err = CS_ERR_CONFLICT;
    /* Who waited already was held under an older one; its request was decided again since. */
    if (m->again.n == 0 && m->snapshot != cs_policy_version(q->view->policy)) {
        return "the configuration has just changed; repeat the request";
    }
    if (!decide(q->view->policy, &q->who.chain, q->who.target, &q->action.facts, &j->arena,
                &q->decision)) {
        return "no rule lets this session use its target any more";
    }
    /* SECURITY: a gate that names other rules than ours would choose its own approvers. */
    if (q->decision.outcome != CS_HOLD || !same_rules(&q->decision, m->rules) ||
        q->decision.elevated != (m->elevated == 1) || !same_cover(&q->action, &q->decision)) {
        return "the rules decide this differently; repeat the request";
    }
    *ret_err = CS_OK;
    return NULL;
}

static void answer(struct cs_job *j, const struct asked *q)
{
    char url[256];
    const struct cs_approval_held *h = &q->held;
    struct cs_slice base = q->view->snapshot.url;
    (void)snprintf(url, sizeof url, "%.*s/r/%s", (int)CS_MIN(base.n, (size_t)200), base.p,
                   h->request);
    struct cs_msg_held m = {.request = cs_slice_str(h->request),
                            .state = (uint64_t)h->state,
                            .expires_ms = h->expires_ms,
                            .digest = cs_slice(h->digest, CS_DIGEST),
                            .nonce = cs_slice(h->nonce, CS_NONCE),
                            .policy = h->policy_version,
                            .claimed = h->claimed,
                            .url = base.n > 0 ? cs_slice_str(url) : CS_SLICE_NULL,
                            .by = cs_slice_head(h->by, 256),
                            .words = cs_slice_head(h->words, CS_LIMIT_REASON_BYTES),
                            .grant = h->grant,
                            .attached = h->attached ? 1 : 0};
    (void)cs_peer_send(j->peer, CS_MSG_HELD, j->corr, &m, NULL, 0);
}

static void ask(struct cs_job *j, const struct cs_msg_hold *m, struct asked *q)
{
    enum cs_err e;
    const char *why = check(j, m, q, &e);
    if (why != NULL) {
        cs_log(CS_EV_ACTION_DENIED, &m->session, "why=\"%s\" rules=%s", why,
               cs_log_quote(m->rules).text);
        refuse(j, e, why);
        return;
    }
    struct cs_approval_ask ask = {.session = m->session,
                                  .chain = &q->who.chain,
                                  .target = q->who.target,
                                  .address = q->who.address,
                                  .claimed = m->claimed,
                                  .action = &q->action,
                                  .rules = q->decision.rules,
                                  .n_rules = q->decision.n_rules,
                                  .in_transaction = q->action.in_transaction,
                                  .waiting = m->waiting == 1,
                                  .elevated = q->decision.elevated,
                                  .policy_version = cs_policy_version(q->view->policy),
                                  .again = m->again};
    e = cs_approval_hold(j->peer->c->approval, &ask, &j->arena, &q->held);
    if (e != CS_OK) {
        cs_log(CS_EV_ACTION_DENIED, &m->session, "why=%s", cs_err_name(e));
        refuse(j, e, e == CS_ERR_DENIED ? "run it outside the transaction" : cs_err_text(e));
        return;
    }
    cs_log(CS_EV_ACTION_HELD, &m->session, "request=%s new=%d", q->held.request,
           q->held.created ? 1 : 0);
    answer(j, q);
    if (q->held.created) {
        cs_impact_begin(j->peer->c, q->held.request, q->who.target, &q->action);
    }
}

void cs_hold_ask(struct cs_job *j)
{
    const struct cs_msg_hold *m = (const void *)j->msg.raw;
    struct cs_ctl_session *s = cs_gate_session(j->peer, &m->session);
    struct asked *q = cs_alloc(sizeof *q);
    if (s == NULL) {
        refuse(j, CS_ERR_NOT_FOUND, "the session is not known");
    } else if (q == NULL || !cs_ctl_session_who(s, &j->arena, &q->who)) {
        refuse(j, CS_ERR_NO_MEMORY, cs_err_text(CS_ERR_NO_MEMORY));
    } else {
        q->view = cs_view_keep(j->peer->c->view);
        ask(j, m, q);
        cs_view_drop(q->view);
        if (q->map.p != NULL) {
            cs_sealed_unmap(q->map);
        }
    }
    cs_free(q);
}

void cs_hold_leave(struct cs_job *j)
{
    const struct cs_msg_hold_leave *m = (const void *)j->msg.raw;
    if (cs_gate_session(j->peer, &m->session) == NULL || m->how > CS_LEAVE_VOID) {
        return;
    }
    static const char *const words[] = {[CS_LEAVE_CANCEL] = "cancelled by the client",
                                        [CS_LEAVE_DETACH] = "",
                                        [CS_LEAVE_VOID] = "its transaction has ended"};
    enum cs_err e = cs_approval_leave(j->peer->c->approval, m->request, &m->session,
                                      (enum cs_leave)m->how, cs_slice_str(words[m->how]));
    if (e != CS_OK && e != CS_ERR_CONFLICT && e != CS_ERR_NOT_FOUND && e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_STORE_FAILED, &m->session, "leave=%s", cs_err_name(e));
    }
}

/* SECURITY: between a reload and the end of its decisions a grant may be about to become void. */
static enum cs_err wait_redecided(struct cs_control *c)
{
    enum cs_err e = CS_OK;
    while (e == CS_OK && c->redeciding > 0) {
        e = cs_co_sleep(5 * CS_NS_PER_MS) ? CS_OK : CS_ERR_CANCELLED;
    }
    return e;
}

static enum cs_err consume(struct cs_job *j, const struct cs_msg_consume *m)
{
    struct cs_control *c = j->peer->c;
    if (wait_redecided(c) != CS_OK) {
        return CS_ERR_CANCELLED;
    }
    struct cs_ctl_session *s = cs_gate_session(j->peer, &m->session);
    if (s == NULL || m->digest.n != CS_DIGEST || cs_id_is_zero(&m->grant)) {
        return CS_ERR_CONFLICT;
    }
    struct cs_card *card = CS_NEW(&j->arena, struct cs_card);
    struct cs_slice target = cs_arena_dup(&j->arena, s->target);
    if (card == NULL || target.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err e = cs_approval_card(c->approval, m->request, CS_SLICE_NULL, &j->arena, card);
    if (e != CS_OK) {
        return e;
    }
    if (!cs_slice_eq(card->target, target)) {
        return CS_ERR_CONFLICT;
    }
    e = cs_approval_consume(c->approval, m->request, &m->grant, &m->session, m->digest.p);
    if (e != CS_OK) {
        return e;
    }
    s = cs_gate_session(j->peer, &m->session);
    if (s == NULL || !cs_ctl_grant_add(s, &m->grant, card->elevated)) {
        return CS_ERR_CONFLICT; /* killed meanwhile: consumed, and never to be used */
    }
    return CS_OK;
}

void cs_hold_consume(struct cs_job *j)
{
    const struct cs_msg_consume *m = (const void *)j->msg.raw;
    enum cs_err e = consume(j, m);
    struct cs_msg_consumed out = {.err = (uint64_t)e};
    cs_metric_add(CS_SLOT_GRANTS + (e == CS_OK ? CS_TAKEN_OK : CS_TAKEN_REFUSED), 1);
    if (e == CS_OK) {
        cs_log(CS_EV_GRANT_USED, &m->session, "request=%s", cs_log_quote(m->request).text);
    } else {
        out.text = e == CS_ERR_CONFLICT ? CS_SLICE_LIT("the approval cannot be used (any more)")
                                        : cs_slice_str(cs_err_text(e));
        cs_log(CS_EV_ACTION_DENIED, &m->session, "request=%s consume=%s",
               cs_log_quote(m->request).text, cs_err_name(e));
    }
    (void)cs_peer_send(j->peer, CS_MSG_CONSUMED, j->corr, &out, NULL, 0);
}

void cs_hold_executed(struct cs_job *j)
{
    const struct cs_msg_executed *m = (const void *)j->msg.raw;
    struct cs_ctl_session *s = cs_gate_session(j->peer, &m->session);
    if (s == NULL || m->outcome > CS_EXECUTED_NOT_RUN) {
        return;
    }
    cs_ctl_grant_end(s, &m->grant);
    enum cs_err e = cs_approval_finish(j->peer->c->approval, &m->grant, &m->session,
                                       (enum cs_executed)m->outcome,
                                       cs_slice_head(m->text, CS_LIMIT_REASON_BYTES));
    /* CONFLICT: a gate says it again to be sure, or speaks of a grant that was never consumed. */
    if (e != CS_OK && e != CS_ERR_CONFLICT && e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_STORE_FAILED, &m->session, "executed=%s", cs_err_name(e));
    }
}

/* ---- after a reload ---- */

struct redeciding {
    struct cs_view *view;
    struct cs_arena arena;
    struct cs_decision decision;
};

static bool same_requirement(const struct cs_rule *rule, const struct cs_card_rule *was)
{
    const struct cs_approvers *now = &rule->approvers;
    if (!cs_slice_eq(rule->name, was->name) || now->quorum != was->quorum ||
        now->n_groups != was->n_groups) {
        return false;
    }
    for (size_t i = 0; i < now->n_groups; i++) {
        bool found = false;
        for (size_t k = 0; k < was->n_groups && !found; k++) {
            found = cs_slice_eq(now->groups[i], was->groups[k]);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

/* The same server, known in the same way, with the same database and role? Otherwise a reload would
 * take an approval along to another machine. */
static bool same_place(const struct cs_card *card, const struct cs_policy *p, struct cs_arena *a)
{
    const struct cs_target *t = cs_policy_target(p, card->target);
    if (t == NULL) {
        return false;
    }
    bool own = card->elevated && t->elevated_database.n > 0;
    struct cs_slice server = cs_action_server(t->address, t->tls, a);
    struct cs_slice line =
        cs_slice_head(card->action.settings, cs_slice_find(card->action.settings, '\n'));
    return server.p != NULL && cs_slice_eq(line, server) &&
           cs_slice_eq(card->action.database, own ? t->elevated_database : t->database) &&
           cs_slice_eq(card->action.role, card->elevated ? t->elevated_user : t->user);
}

/* Same outcome, same rules, same approvers, same place: it stays. Everything else is void. */
static bool stale(const struct cs_card *card, void *arg)
{
    struct redeciding *r = arg;
    struct cs_decision *d = &r->decision;
    cs_arena_reset(&r->arena);
    if (card->action_left_out ||
        !decide(r->view->policy, &card->chain, card->target, &card->action.facts, &r->arena, d) ||
        d->outcome != CS_HOLD || d->elevated != card->elevated || d->n_rules != card->n_rules ||
        !same_cover(&card->action, d) || !same_place(card, r->view->policy, &r->arena)) {
        return true;
    }
    for (size_t i = 0; i < d->n_rules; i++) {
        bool found = false;
        for (size_t k = 0; k < card->n_rules && !found; k++) {
            found = same_requirement(d->rules[i], &card->rules[k]);
        }
        if (!found) {
            return true;
        }
    }
    return false;
}

void cs_hold_redecide(struct cs_control *c)
{
    struct redeciding *r = cs_alloc(sizeof *r);
    uint64_t n = 0;
    enum cs_err e = CS_ERR_NO_MEMORY;
    if (r != NULL) {
        cs_arena_init(&r->arena, 16 * 1024, 64 * 1024 * 1024);
        r->view = cs_view_keep(c->view);
        e = cs_approval_void_where(c->approval, stale, r, CS_SLICE_LIT("the rules have changed"),
                                   &n);
        cs_view_drop(r->view);
        cs_arena_done(&r->arena);
        cs_free(r);
    }
    if (e == CS_ERR_CANCELLED) {
        return;
    }
    c->redeciding--;
    if (e != CS_OK) {
        /* Requests would stay open under rules that are no longer in force. */
        cs_control_fail(c, "requests could not be decided again after a reload");
    } else if (n > 0) {
        cs_log(CS_EV_REQUEST_DECIDED, NULL, "void=%llu why=\"the rules have changed\"",
               (unsigned long long)n);
    }
}
