/* API calls about requests: seeing them, waiting for them, voting. Who may vote is decided inside
 * the transaction that stores the vote (approval/); the router has already refused everybody who is
 * not a person with a token of its own. */
#include "control/api.h"

#include "base/log.h"
#include "base/time.h"
#include "ipc/metrics.h"

#include <stdio.h>

enum {
    LIST_MAX = 200,
    LIST_BYTES = CS_LIMIT_IPC_BLOB_BYTES - 64 * 1024, /* the rest of the answer is short */
};

/* ---- the card as JSON ---- */

static json_t *chain_json(const struct cs_chain *chain, struct cs_arena *a)
{
    json_t *all = json_array();
    for (size_t i = 0; i < chain->n; i++) {
        const struct cs_principal *p = &chain->p[i];
        json_t *o = json_object();
        bool ok = cs_json_put(o, "kind", json_string(cs_principal_kind_name(p->kind))) &&
                  cs_json_put(o, "id", cs_json_text(p->id, a)) &&
                  cs_json_put(o, "name", cs_json_text(p->name, a)) &&
                  cs_json_put(o, "groups", cs_json_list(p->groups, p->n_groups, a));
        if (json_array_append_new(all, o) != 0 || !ok) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static json_t *params_json(const struct cs_action *act, struct cs_arena *a)
{
    json_t *all = json_array();
    for (size_t i = 0; i < act->n_params; i++) {
        const struct cs_param *p = &act->params[i];
        struct cs_slice shown = p->bytes;
        /* What stands for a secret is text, whatever it stands for; nothing else begins like it. */
        bool mark = cs_slice_starts(p->bytes, CS_SLICE_LIT("<redacted hmac-sha256:"));
        if (p->format != 0 && !mark) { /* binary: hex is exact, text would only look so */
            char *hex = cs_arena_alloc(a, p->bytes.n * 2 + 1);
            if (hex == NULL) {
                json_decref(all);
                return NULL;
            }
            cs_hex(p->bytes, hex);
            shown = cs_slice_str(hex);
        } else {
            shown = cs_sanitise(p->bytes, true, a);
        }
        json_t *o = json_object();
        bool ok = cs_json_put(o, "null", json_boolean(p->null)) &&
                  cs_json_put(o, "format", json_string(p->format == 0 ? "text" : "binary")) &&
                  cs_json_put(o, "type", json_integer((json_int_t)p->type)) &&
                  cs_json_put(o, "text", p->null ? json_null() : cs_json_text(shown, a));
        if (json_array_append_new(all, o) != 0 || !ok) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static json_t *fact_json(const struct cs_fact *f, const struct cs_fact_info *info,
                         struct cs_arena *a)
{
    if (f->state != CS_FACT_KNOWN) {
        return json_string("unknown");
    }
    switch (info->type) {
    case CS_FACT_STRING:
        return cs_json_text(f->u.string, a);
    case CS_FACT_STRINGS:
        return cs_json_list(f->u.strings.v, f->u.strings.n, a);
    case CS_FACT_INT:
        return json_integer(f->u.integer);
    case CS_FACT_BOOL:
    default:
        return json_boolean(f->u.boolean);
    }
}

static json_t *facts_json(const struct cs_facts *facts, struct cs_arena *a)
{
    json_t *o = json_object();
    for (unsigned i = 0; i < CS_FACT_MAX; i++) {
        const struct cs_fact *f = &facts->v[i];
        const struct cs_fact_info *info = cs_fact_info((enum cs_fact_id)i);
        if (f->state == CS_FACT_ABSENT || i == CS_FACT_SQL_TEXT ||
            i == CS_FACT_SQL_PARAMS) { /* the card has them as "text" and "params" */
            continue;
        }
        if (!cs_json_put(o, info->name, fact_json(f, info, a))) {
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

static json_t *votes_json(const struct cs_card *card, struct cs_arena *a)
{
    json_t *all = json_array();
    for (size_t i = 0; i < card->n_votes; i++) {
        const struct cs_card_vote *v = &card->votes[i];
        json_t *o = json_object();
        bool ok = cs_json_put(o, "by", cs_json_text(v->by, a)) &&
                  cs_json_put(o, "decision", json_string(v->approve ? "approve" : "deny")) &&
                  cs_json_put(o, "reason", cs_json_text(v->reason, a)) &&
                  cs_json_put(o, "at", cs_json_time(v->at_ms));
        if (json_array_append_new(all, o) != 0 || !ok) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static json_t *rules_json(const struct cs_card *card, struct cs_arena *a)
{
    json_t *all = json_array();
    for (size_t i = 0; i < card->n_rules; i++) {
        if (json_array_append_new(all, cs_json_text(card->rules[i].name, a)) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

/* The bytes themselves. JSON cannot carry what is not UTF-8: then "text" shows escapes, and
 * "text_hex" is exact. */
static bool put_text(json_t *o, const struct cs_card *card, struct cs_arena *a)
{
    struct cs_slice text = card->action.bytes;
    if (card->action_left_out) {
        return cs_json_put(o, "text", json_null()) && cs_json_put(o, "text_shown", json_null()) &&
               cs_json_put(o, "text_left_out", json_true()) &&
               cs_json_put(o, "text_bytes", json_integer((json_int_t)card->action_bytes));
    }
    if (!cs_utf8_valid(text)) {
        char *hex = cs_arena_alloc(a, text.n * 2 + 1);
        if (hex == NULL) {
            return false;
        }
        cs_hex(text, hex);
        if (!cs_json_put(o, "text_hex", json_string(hex))) {
            return false;
        }
    }
    return cs_json_put(o, "text", cs_json_text(text, a)) &&
           cs_json_put(o, "text_shown", cs_json_text(card->text_shown, a));
}

static bool put_action(json_t *o, const struct cs_card *card, struct cs_arena *a)
{
    const struct cs_action *act = &card->action;
    return put_text(o, card, a) && cs_json_put(o, "database", cs_json_text(act->database, a)) &&
           cs_json_put(o, "role", cs_json_text(act->role, a)) &&
           cs_json_put(o, "params", params_json(act, a)) &&
           cs_json_put(o, "settings", cs_json_text(act->settings, a)) &&
           cs_json_put(o, "facts", facts_json(&act->facts, a)) &&
           cs_json_put(o, "tx", cs_json_text(act->tx, a)) &&
           cs_json_put(o, "in_transaction", json_boolean(card->in_transaction));
}

static bool put_decision(json_t *o, const struct cs_card *card, struct cs_arena *a)
{
    char digest[CS_DIGEST * 2 + 1];
    cs_hex(cs_slice(card->digest, CS_DIGEST), digest);
    return cs_json_put(o, "digest", json_string(digest)) &&
           cs_json_put(o, "short", json_string(card->digest_short)) &&
           cs_json_put(o, "created", cs_json_time(card->created_ms)) &&
           cs_json_put(o, "expires", cs_json_time(card->expires_ms)) &&
           cs_json_put(o, "quorum", json_integer((json_int_t)card->quorum)) &&
           cs_json_put(o, "votes", votes_json(card, a)) &&
           cs_json_put(o, "decided", cs_json_time(card->decided_ms)) &&
           cs_json_put(o, "by", cs_json_text(card->by, a)) &&
           cs_json_put(o, "words", cs_json_text(card->words, a)) &&
           cs_json_put(o, "may_vote", json_boolean(card->may_vote)) &&
           cs_json_put(o, "may_not_vote_because",
                       card->may_not_vote_because != NULL ? json_string(card->may_not_vote_because)
                                                          : json_null());
}

static json_t *impact_relations(const struct cs_impact *m, struct cs_arena *a)
{
    static const struct {
        char kind;
        const char *name;
    } kinds[] = {{'r', "table"},         {'p', "partitioned table"},
                 {'v', "view"},          {'m', "materialized view"},
                 {'f', "foreign table"}, {'S', "sequence"},
                 {'i', "index"}};
    json_t *all = json_array();
    for (size_t i = 0; i < m->n_relations; i++) {
        const struct cs_impact_relation *r = &m->relations[i];
        json_t *o = json_object();
        const char *kind = "other";
        for (size_t k = 0; k < CS_ARRAY_LEN(kinds); k++) {
            kind = kinds[k].kind == r->kind ? kinds[k].name : kind;
        }
        bool ok =
            cs_json_put(o, "name", cs_json_text(cs_slice_str(r->name), a)) &&
            cs_json_put(o, "kind", json_string(kind)) &&
            cs_json_put(o, "rows", r->has_rows ? json_integer((json_int_t)r->rows) : json_null()) &&
            cs_json_put(o, "bytes",
                        r->has_bytes ? json_integer((json_int_t)r->bytes) : json_null()) &&
            cs_json_put(o, "dependants", cs_json_text(cs_slice_str(r->dependants), a));
        if (json_array_append_new(all, o) != 0 || !ok) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

/* The target's own estimate, which is no part of what is signed; null when there is none. */
static json_t *impact_json(struct cs_api_call *call, const struct cs_card *card)
{
    const struct cs_impact *m = cs_impact_find(call->c, card->id);
    if (m == NULL) {
        return json_null();
    }
    json_t *o = json_object();
    bool ok =
        cs_json_put(o, "estimate", json_true()) && cs_json_put(o, "at", cs_json_time(m->at_ms)) &&
        cs_json_put(o, "rows", m->has_rows ? json_integer((json_int_t)m->rows) : json_null()) &&
        cs_json_put(o, "relations", impact_relations(m, &call->arena));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *card_json(struct cs_api_call *call, const struct cs_card *card)
{
    struct cs_arena *a = &call->arena;
    char session[CS_ID_TEXT];
    struct cs_slice rule = card->n_rules > 0 ? card->rules[0].name : CS_SLICE_NULL;
    struct cs_slice title = card->n_rules > 0 ? card->rules[0].title : CS_SLICE_NULL;
    json_t *o = json_object();
    bool ok = cs_json_put(o, "id", json_string(card->id)) &&
              cs_json_put(o, "state", json_string(cs_request_state_name(card->state))) &&
              cs_json_put(o, "seq", json_integer((json_int_t)card->seq)) &&
              cs_json_put(o, "rule", cs_json_text(rule, a)) &&
              cs_json_put(o, "rules", rules_json(card, a)) &&
              cs_json_put(o, "title", cs_json_text(title, a)) &&
              cs_json_put(o, "chain", chain_json(&card->chain, a)) &&
              cs_json_put(o, "target", cs_json_text(card->target, a)) &&
              cs_json_put(o, "elevated", json_boolean(card->elevated)) && put_action(o, card, a) &&
              cs_json_put(o, "address", cs_json_text(card->address, a)) &&
              cs_json_put(o, "claimed", cs_json_text(card->claimed, a)) &&
              put_decision(o, card, a) && cs_json_put(o, "impact", impact_json(call, card)) &&
              cs_json_put(o, "session", json_string(cs_id_text(&card->session, session))) &&
              cs_json_put(o, "attached", json_integer((json_int_t)card->attached));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* ---- seeing and waiting ---- */

static struct cs_slice viewer_of(const struct cs_api_call *call)
{
    return call->caller.who != NULL ? call->caller.who->id : CS_SLICE_NULL;
}

static enum cs_err request_id(struct cs_api_call *call, struct cs_slice *ret)
{
    char id[CS_REQUEST_ID_TEXT];
    if (!cs_request_id_parse(call->name, id)) {
        return cs_api_fail(call, CS_ERR_NOT_FOUND, "there is no such request");
    }
    *ret = cs_arena_dup(&call->arena, cs_slice_str(id));
    return ret->p != NULL ? CS_OK : CS_ERR_NO_MEMORY;
}

static bool state_of(struct cs_api_call *call, size_t i, enum cs_request_state *ret)
{
    *ret = CS_REQUEST_NONE;
    if (call->query[i].p == NULL) {
        return true;
    }
    *ret = cs_request_state_parse(call->query[i]);
    if (*ret == CS_REQUEST_NONE) {
        (void)cs_api_fail(call, CS_ERR_INVALID, "\"state\" is not the name of a state");
        return false;
    }
    return true;
}

/* The answer has a limit; the list is cut there, not refused: nobody shall make it unreadable by
 * what they ask for. `seq` is what to pass as "since" to go on without a gap. */
static enum cs_err reply_list(struct cs_api_call *call, const struct cs_approval_query *q,
                              const struct cs_card *cards, size_t n, uint64_t seq)
{
    json_t *root = json_object(), *all = json_array();
    size_t bytes = 0, i = 0, max = CS_MIN(n, (size_t)LIST_MAX);
    bool ok = true;
    while (i < max && ok) {
        json_t *card = card_json(call, &cards[i]);
        bytes += card != NULL ? json_dumpb(card, NULL, 0, JSON_COMPACT) + 1 : 0;
        if (i > 0 && bytes > LIST_BYTES) {
            json_decref(card);
            break;
        }
        ok = json_array_append_new(all, card) == 0;
        i++;
    }
    if (i < n && i > 0 && q->oldest_first) {
        seq = cards[i - 1].seq;
    }
    ok = cs_json_put(root, "requests", all) && ok;
    ok = ok && cs_json_put(root, "seq", json_integer((json_int_t)seq));
    ok = ok && cs_json_put(root, "more", json_boolean(i < n));
    return cs_api_reply(call, 200, root, ok);
}

/* One look: the lists of a long poll come one after the other into an arena that is emptied. */
static enum cs_err list_wait(struct cs_api_call *call, const struct cs_approval_query *q,
                             uint64_t deadline)
{
    struct cs_control *c = call->c;
    struct cs_poll poll;
    struct cs_arena look;
    enum cs_err e;
    cs_arena_init(&look, 16 * 1024, CS_API_ARENA_MAX);
    cs_poll_begin(c, &poll);
    for (;;) {
        struct cs_card *cards = NULL;
        size_t n = 0;
        uint64_t seq = 0;
        e = cs_approval_list(c->approval, q, &look, &cards, &n, &seq);
        if (e != CS_OK) {
            break;
        }
        if (n == 0 && cs_mono_ns() < deadline) {
            e = cs_api_wait(call, &poll, deadline);
            if (e == CS_OK || e == CS_ERR_TIMEOUT) {
                cs_arena_reset(&look);
                continue;
            }
            break;
        }
        e = reply_list(call, q, cards, n, seq);
        break;
    }
    cs_poll_end(&poll);
    cs_arena_done(&look);
    return e;
}

enum cs_err cs_api_request_list(struct cs_api_call *call)
{
    struct cs_approval_query q = {
        .viewer_id = viewer_of(call), .all = call->caller.may_set_up, .limit = LIST_MAX + 1};
    uint64_t wait = 0;
    if (!state_of(call, 0, &q.state) || !cs_api_number(call, 1, 0, INT64_MAX, &q.since) ||
        !cs_api_number(call, 2, 0, CS_API_WAIT_MAX_S, &wait)) {
        return CS_ERR_INVALID;
    }
    /* What waits for people, and what a caller follows, comes oldest first: newer ones must not
     * push out what nobody has seen. Only a look at the past starts with the newest. */
    q.oldest_first = q.state == CS_REQUEST_PENDING || call->query[1].p != NULL;
    return list_wait(call, &q, cs_mono_ns() + wait * CS_NS_PER_S);
}

/* Voting refused for a reason that only an approver meets (votes.def: the first that applies is the
 * one reported): somebody who could decide it, and sees how it ended. */
static bool is_approver(const struct cs_card *card)
{
    const char *why = card->may_not_vote_because;
    for (int r = CS_STORE_VOTE_DECIDED; why != NULL && r < CS_STORE_VOTE_MAX; r++) {
        if (strcmp(why, cs_store_vote_text((enum cs_store_vote_refusal)r)) == 0) {
            return true;
        }
    }
    return false;
}

/* The card, when the caller may see it. What they may not see does not exist for them. */
static enum cs_err look(struct cs_api_call *call, struct cs_slice id, struct cs_arena *a,
                        struct cs_card *ret)
{
    struct cs_slice viewer = viewer_of(call);
    enum cs_err e = cs_approval_card(call->c->approval, id, viewer, a, ret);
    if (e == CS_ERR_NOT_FOUND || (e == CS_OK && !call->caller.may_set_up &&
                                  !cs_approval_may_see(ret, viewer) && !is_approver(ret))) {
        return cs_api_fail(call, CS_ERR_NOT_FOUND, "there is no such request");
    }
    return e;
}

static enum cs_err show_wait(struct cs_api_call *call, struct cs_slice id,
                             enum cs_request_state until_not, uint64_t deadline)
{
    struct cs_poll poll;
    struct cs_arena a;
    enum cs_err e;
    cs_arena_init(&a, 16 * 1024, CS_API_ARENA_MAX);
    cs_poll_begin(call->c, &poll);
    for (;;) {
        struct cs_card *card = CS_NEW(&a, struct cs_card);
        e = card != NULL ? look(call, id, &a, card) : CS_ERR_NO_MEMORY;
        if (e != CS_OK) {
            break;
        }
        if (card->state == until_not && cs_mono_ns() < deadline) {
            e = cs_api_wait(call, &poll, deadline);
            if (e == CS_OK || e == CS_ERR_TIMEOUT) {
                cs_arena_reset(&a);
                continue;
            }
            break;
        }
        e = cs_api_reply(call, 200, card_json(call, card), true);
        break;
    }
    cs_poll_end(&poll);
    cs_arena_done(&a);
    return e;
}

enum cs_err cs_api_request_show(struct cs_api_call *call)
{
    uint64_t wait = 0;
    enum cs_request_state state;
    struct cs_slice id;
    enum cs_err e = request_id(call, &id);
    if (e != CS_OK) {
        return e;
    }
    if (!cs_api_number(call, 0, 0, CS_API_WAIT_MAX_S, &wait) || !state_of(call, 1, &state)) {
        return CS_ERR_INVALID;
    }
    return show_wait(call, id, state, cs_mono_ns() + wait * CS_NS_PER_S);
}

/* ---- deciding ---- */

static enum cs_err reply_state(struct cs_api_call *call, struct cs_slice id,
                               enum cs_request_state state)
{
    json_t *root = json_object();
    bool ok = cs_json_put(root, "id", cs_json_text(id, &call->arena)) &&
              cs_json_put(root, "state", json_string(cs_request_state_name(state)));
    return cs_api_reply(call, 200, root, ok);
}

/* SECURITY: asked before anything is said about the request. Who may not see it gets the same
 * answer as for an id that does not exist, whatever they try. */
static enum cs_err seen(struct cs_api_call *call, struct cs_slice id)
{
    struct cs_arena a;
    cs_arena_init(&a, 16 * 1024, CS_API_ARENA_MAX);
    struct cs_card *card = CS_NEW(&a, struct cs_card);
    enum cs_err e = card != NULL ? look(call, id, &a, card) : CS_ERR_NO_MEMORY;
    cs_arena_done(&a);
    return e;
}

static enum cs_err vote(struct cs_api_call *call, bool approve)
{
    uint8_t digest[CS_DIGEST];
    struct cs_slice id;
    enum cs_request_state state = CS_REQUEST_NONE;
    const char *why = NULL;
    enum cs_err e = request_id(call, &id);
    if (e != CS_OK) {
        return e;
    }
    if (!cs_unhex(call->body[0].string, digest, sizeof digest)) {
        return cs_api_fail(call, CS_ERR_INVALID, "\"digest\" must be 64 hex digits");
    }
    /* SECURITY: said again where it counts. The row of the table names persons only. */
    const struct cs_principal *who = call->caller.who;
    if (who == NULL || who->kind != CS_PRINCIPAL_PERSON) {
        return CS_ERR_DENIED;
    }
    e = seen(call, id);
    if (e != CS_OK) {
        return e;
    }
    e = cs_approval_vote(call->c->approval, id, who->id, approve, digest, call->body[1].string,
                         &state, &why);
    size_t cast = approve ? CS_VOTE_APPROVE : CS_VOTE_DENY;
    size_t taken = e == CS_OK ? CS_TAKEN_OK : CS_TAKEN_REFUSED;
    cs_metric_add(CS_SLOT_VOTES + cast * CS_DIM_TAKEN + taken, 1);
    if (e != CS_OK) {
        return why != NULL ? cs_api_fail(call, e, "%s", why) : e;
    }
    return reply_state(call, id, state);
}

enum cs_err cs_api_request_approve(struct cs_api_call *call)
{
    return vote(call, true);
}

enum cs_err cs_api_request_deny(struct cs_api_call *call)
{
    return vote(call, false);
}

enum cs_err cs_api_request_cancel(struct cs_api_call *call)
{
    struct cs_slice id;
    enum cs_err e = request_id(call, &id);
    if (e != CS_OK) {
        return e;
    }
    if (call->caller.who == NULL) {
        return cs_api_fail(call, CS_ERR_DENIED,
                           "only its requester cancels a request, with a token");
    }
    e = seen(call, id);
    if (e != CS_OK) {
        return e;
    }
    e = cs_approval_cancel(call->c->approval, id, call->caller.who->id,
                           CS_SLICE_LIT("withdrawn by the requester"));
    if (e == CS_ERR_DENIED) {
        return cs_api_fail(call, e, "only its requester cancels a request");
    }
    return e == CS_OK ? reply_state(call, id, CS_REQUEST_CANCELLED) : e;
}
