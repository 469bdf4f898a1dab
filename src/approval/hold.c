/* Asking: from a held action to a request in the store. Called by control for a gate. What people
 * sign and what may run is computed here, from the action's own bytes: match and digest. */
#include "approval/approval_internal.h"

#include <stdio.h>

/* What one hold needs while it waits; freed at its end. */
static void arena_end(struct cs_arena *a)
{
    cs_arena_done(a);
}

/* The strictest of the rules' times; the sum of their people is the store's business. */
static void times_shortest(const struct cs_approval_ask *ask, struct cs_store_request *r)
{
    r->within_ms = r->valid_ms = r->attach_ms = UINT64_MAX;
    for (size_t i = 0; i < ask->n_rules; i++) {
        const struct cs_approvers *p = &ask->rules[i]->approvers;
        r->within_ms = CS_MIN(r->within_ms, p->within_s * UINT64_C(1000));
        r->valid_ms = CS_MIN(r->valid_ms, p->valid_s * UINT64_C(1000));
        r->attach_ms = CS_MIN(r->attach_ms, p->attach_s * UINT64_C(1000));
    }
}

static int rule_order(const struct cs_store_rule *a, const struct cs_store_rule *b)
{
    return cs_slice_cmp(a->name, b->name);
}

/* By name: the same rules in another order are the same requirement. */
static enum cs_err rules_fill(const struct cs_approval_ask *ask, struct cs_arena *a,
                              struct cs_store_request *r)
{
    struct cs_store_rule *v = CS_NEW_ARRAY(a, struct cs_store_rule, ask->n_rules);
    if (v == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < ask->n_rules; i++) {
        const struct cs_rule *from = ask->rules[i];
        /* SECURITY: nobody to ask, or nobody needed, would be an approval by default. */
        if (from->then != CS_HOLD || from->approvers.quorum == 0 || from->approvers.n_groups == 0) {
            return CS_ERR_INVALID;
        }
        struct cs_store_rule rule = {
            .name = from->name,
            .title = from->title,
            .groups = cs_names_join(from->approvers.groups, from->approvers.n_groups, a),
            .quorum = from->approvers.quorum};
        if (rule.groups.p == NULL) {
            return CS_ERR_NO_MEMORY;
        }
        size_t at = i;
        while (at > 0 && rule_order(&v[at - 1], &rule) > 0) {
            v[at] = v[at - 1];
            at--;
        }
        v[at] = rule;
    }
    r->rules = v;
    r->n_rules = ask->n_rules;
    return CS_OK;
}

static enum cs_err blobs_fill(const struct cs_approval_ask *ask, const struct cs_action *action,
                              struct cs_arena *a, struct cs_store_request *r)
{
    size_t bound = cs_action_encoded_size(action);
    uint8_t *p = cs_arena_alloc(a, bound);
    uint8_t *chain = cs_arena_alloc(a, CS_LIMIT_IPC_BYTES);
    struct cs_slice ids[CS_LIMIT_CHAIN];
    if (p == NULL || chain == NULL) {
        return CS_ERR_TOO_LARGE;
    }
    struct cs_writer w = cs_writer(p, bound);
    cs_action_encode(&w, action);
    r->action = cs_writer_done(&w); /* empty, and refused below, when it cannot be written */
    w = cs_writer(chain, CS_LIMIT_IPC_BYTES);
    cs_chain_encode(&w, ask->chain);
    r->chain = cs_writer_done(&w);
    for (size_t i = 0; i < ask->chain->n; i++) {
        ids[i] = ask->chain->p[i].id;
        if (cs_slice_find(ids[i], '\n') != ids[i].n || ids[i].n == 0) {
            return CS_ERR_INVALID; /* it would read as two names, neither of them this one */
        }
    }
    r->parties = cs_names_join(ids, ask->chain->n, a);
    if (r->parties.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    if (r->action.n == 0 || r->chain.n == 0 || r->parties.n == 0) {
        return CS_ERR_INVALID;
    }
    return CS_OK;
}

static enum cs_err ask_check(const struct cs_approval_ask *ask, bool in_transaction)
{
    if (ask->n_rules == 0 || ask->n_rules > CS_RULES_FIRED || ask->chain == NULL ||
        ask->chain->n == 0 || ask->chain->n > CS_LIMIT_CHAIN || ask->target.n == 0) {
        return CS_ERR_INVALID;
    }
    if (in_transaction && (!ask->waiting || ask->elevated)) {
        return CS_ERR_DENIED;
    }
    if (ask->claimed.n > CS_LIMIT_REASON_BYTES) {
        return CS_ERR_TOO_LARGE;
    }
    if (!cs_utf8_valid(ask->claimed)) {
        return CS_ERR_INVALID; /* what is signed could not be shown as it is */
    }
    if (ask->again.n != 0 && ask->again.n != CS_REQUEST_ID_CHARS) {
        return CS_ERR_NOT_FOUND;
    }
    return cs_action_fits(ask->action) ? CS_OK : CS_ERR_TOO_LARGE;
}

static void placed(const char *request, void *arg)
{
    struct cs_placing *p = arg;
    (void)snprintf(p->request, sizeof p->request, "%s", request);
}

static void placing_end(struct cs_approval *a, struct cs_placing *p)
{
    struct cs_placing **at = &a->placing;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
}

/* What happened to the request between the commit and this moment goes into the answer: the gate
 * could not have understood it before it had the answer. */
static enum cs_err answer(const struct cs_placing *p, const struct cs_store_held *held,
                          struct cs_approval_held *ret)
{
    *ret = (struct cs_approval_held){.state = (enum cs_request_state)held->state,
                                     .expires_ms = held->expires_ms,
                                     .by = held->by,
                                     .words = held->words,
                                     .claimed = held->claimed,
                                     .grant = held->grant,
                                     .created = held->created,
                                     .attached = held->attached};
    memcpy(ret->request, held->request, sizeof ret->request);
    memcpy(ret->digest, held->digest, sizeof ret->digest);
    memcpy(ret->nonce, held->nonce, sizeof ret->nonce);
    ret->policy_version = held->policy_version;
    if (p->out_of_memory) {
        return CS_ERR_NO_MEMORY;
    }
    if (p->later && held->attached) {
        const struct cs_approval_change *c = &p->change;
        ret->state = c->state;
        ret->expires_ms = c->expires_ms;
        ret->by = c->by;
        ret->words = c->words;
        bool mine = c->state == CS_REQUEST_APPROVED && cs_id_eq(&c->grant_session, &p->session);
        ret->grant = mine ? c->grant : (struct cs_id){{0}};
        /* Once it is no longer open, nobody is attached. */
        ret->attached = c->state == CS_REQUEST_PENDING || c->state == CS_REQUEST_APPROVED;
    }
    return CS_OK;
}

static enum cs_err submit(struct cs_approval *a, const struct cs_approval_ask *ask,
                          struct cs_store_request *r, struct cs_slice tx, struct cs_arena *arena,
                          struct cs_approval_held *ret)
{
    struct cs_placing p = {.next = a->placing, .session = ask->session, .arena = arena};
    a->placing = &p;
    struct cs_store_held held;
    enum cs_err err = CS_ERR_EXISTS;
    for (int i = 0; err == CS_ERR_EXISTS && i < CS_ID_TRIES; i++) {
        cs_request_id_new(r->id);
        cs_random(r->nonce, sizeof r->nonce);
        cs_action_digest(r->match, cs_slice_str(r->id), r->nonce, r->policy_version, tx, r->claimed,
                         r->digest);
        err = cs_store_request_hold(a->store, r, ask->waiting, placed, &p, arena, &held);
    }
    placing_end(a, &p);
    return err != CS_OK ? err : answer(&p, &held, ret);
}

enum cs_err cs_approval_hold(struct cs_approval *a, const struct cs_approval_ask *ask,
                             struct cs_arena *arena, struct cs_approval_held *ret)
{
    bool in_transaction = ask->in_transaction || ask->action->in_transaction;
    enum cs_err err = ask_check(ask, in_transaction);
    if (err != CS_OK) {
        return err;
    }
    CS_CLEANUP(arena_end) struct cs_arena own;
    cs_arena_init(&own, 64 * 1024, CS_ASK_BYTES);
    struct cs_store_request *r = CS_NEW(&own, struct cs_store_request);
    if (r == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    r->session = ask->session;
    r->target = ask->target;
    r->address = ask->address;
    r->claimed = ask->claimed;
    r->policy_version = ask->policy_version;
    r->in_transaction = in_transaction;
    r->elevated = ask->elevated;
    (void)snprintf(r->again, sizeof r->again, "%.*s", CS_SLICE_FMT(ask->again));
    times_shortest(ask, r);
    cs_action_match(ask->action, ask->chain, ask->target, r->match);
    err = rules_fill(ask, &own, r);
    err = err != CS_OK ? err : blobs_fill(ask, ask->action, &own, r);
    return err != CS_OK ? err : submit(a, ask, r, ask->action->tx, arena, ret);
}
