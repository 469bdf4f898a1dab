/* The card: what an approver sees, made from what was stored and nothing else. Called by
 * approval.c. A blob that does not decode is an error, never a card with holes. */
#include "approval/approval_internal.h"

static bool lines_split(struct cs_slice joined, struct cs_arena *a, struct cs_slice **ret,
                        size_t *ret_n)
{
    size_t n = 0;
    for (size_t i = 0; i < joined.n; i++) {
        n += joined.p[i] == '\n';
    }
    struct cs_slice *v = CS_NEW_ARRAY(a, struct cs_slice, n > 0 ? n : 1);
    for (size_t i = 0; v != NULL && i < n; i++) {
        size_t at = cs_slice_find(joined, '\n');
        v[i] = cs_slice_head(joined, at);
        joined = cs_slice_from(joined, at + 1);
    }
    *ret = v;
    *ret_n = n;
    return v != NULL;
}

struct cs_slice cs_names_join(const struct cs_slice *names, size_t n, struct cs_arena *a)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        bytes += names[i].n + 1;
    }
    uint8_t *p = cs_arena_alloc(a, bytes + 1);
    if (p == NULL) {
        return CS_SLICE_NULL;
    }
    struct cs_writer w = cs_writer(p, bytes);
    for (size_t i = 0; i < n; i++) {
        cs_writer_bytes(&w, names[i]);
        cs_writer_u8(&w, '\n');
    }
    return cs_writer_done(&w);
}

static bool rules_fill(const struct cs_store_request *r, struct cs_arena *a, struct cs_card *c)
{
    struct cs_card_rule *v = CS_NEW_ARRAY(a, struct cs_card_rule, r->n_rules + 1);
    for (size_t i = 0; v != NULL && i < r->n_rules; i++) {
        const struct cs_store_rule *from = &r->rules[i];
        v[i].name = from->name;
        v[i].title = from->title;
        v[i].quorum = from->quorum;
        c->quorum = CS_MAX(c->quorum, from->quorum);
        if (!lines_split(from->groups, a, &v[i].groups, &v[i].n_groups)) {
            return false;
        }
    }
    c->rules = v;
    c->n_rules = r->n_rules;
    return v != NULL;
}

static bool votes_fill(const struct cs_store_request *r, struct cs_arena *a, struct cs_card *c)
{
    struct cs_card_vote *v = CS_NEW_ARRAY(a, struct cs_card_vote, r->n_votes + 1);
    for (size_t i = 0; v != NULL && i < r->n_votes; i++) {
        const struct cs_store_vote *from = &r->votes[i];
        v[i] = (struct cs_card_vote){from->approver, from->approve != 0, from->reason, from->at_ms};
    }
    c->votes = v;
    c->n_votes = r->n_votes;
    return v != NULL;
}

static enum cs_err action_fill(const struct cs_store_request *r, struct cs_arena *a,
                               struct cs_card *c)
{
    if (r->action.n == 0) {
        c->action_left_out = true;
        c->action_bytes = r->action_bytes;
        return CS_OK;
    }
    struct cs_reader in = cs_reader(r->action);
    if (!cs_action_decode(&in, a, &c->action) || !cs_reader_done(&in)) {
        return CS_ERR_CORRUPT;
    }
    c->text_shown = cs_sanitise(c->action.bytes, true, a);
    return c->text_shown.p == NULL ? CS_ERR_NO_MEMORY : CS_OK;
}

enum cs_err cs_card_fill(const struct cs_store_request *r, struct cs_arena *a, struct cs_card *ret)
{
    memset(ret, 0, sizeof *ret);
    struct cs_card *c = ret;
    memcpy(c->id, r->id, sizeof c->id);
    c->state = (enum cs_request_state)r->state;
    c->seq = r->seq;
    c->target = r->target;
    c->elevated = r->elevated != 0;
    c->in_transaction = r->in_transaction != 0;
    c->address = r->address;
    c->claimed = r->claimed;
    memcpy(c->digest, r->digest, sizeof c->digest);
    cs_digest_short(c->digest, c->digest_short);
    c->created_ms = r->created_ms;
    c->expires_ms = r->expires_ms;
    c->decided_ms = r->decided_ms;
    c->by = r->by;
    c->words = r->words;
    c->session = r->session;
    c->attached = r->attached;
    c->policy_version = r->policy_version;
    c->may_vote = r->refusal == CS_STORE_VOTE_NONE;
    c->may_not_vote_because =
        c->may_vote ? NULL : cs_store_vote_text((enum cs_store_vote_refusal)r->refusal);
    if (!rules_fill(r, a, c) || !votes_fill(r, a, c)) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_reader in = cs_reader(r->chain);
    if (!cs_chain_decode(&in, a, &c->chain) || !cs_reader_done(&in)) {
        return CS_ERR_CORRUPT;
    }
    return action_fill(r, a, c);
}

bool cs_approval_may_see(const struct cs_card *card, struct cs_slice viewer_id)
{
    if (viewer_id.n == 0) {
        return false;
    }
    if (card->may_vote || cs_chain_has(&card->chain, viewer_id)) {
        return true;
    }
    for (size_t i = 0; i < card->n_votes; i++) {
        if (cs_slice_eq(card->votes[i].by, viewer_id)) {
            return true;
        }
    }
    return false;
}
