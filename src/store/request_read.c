/* Requests as they are read: one, or a list, with their rules and votes and what a vote of the
 * viewer would meet. Called by approval/ for cards and lists. Changes nothing. */
#include "store/store_internal.h"

const struct cs_shape cs_request_shape = {
    sizeof(struct cs_store_request),
    8,
    {offsetof(struct cs_store_request, chain), offsetof(struct cs_store_request, target),
     offsetof(struct cs_store_request, action), offsetof(struct cs_store_request, address),
     offsetof(struct cs_store_request, claimed), offsetof(struct cs_store_request, parties),
     offsetof(struct cs_store_request, by), offsetof(struct cs_store_request, words)}};
const struct cs_shape cs_rule_shape = {sizeof(struct cs_store_rule),
                                       3,
                                       {offsetof(struct cs_store_rule, name),
                                        offsetof(struct cs_store_rule, title),
                                        offsetof(struct cs_store_rule, groups)}};
static const struct cs_shape vote_shape = {
    sizeof(struct cs_store_vote),
    2,
    {offsetof(struct cs_store_vote, approver), offsetof(struct cs_store_vote, reason)}};

/* ---- reading ---- */

static void full_read(struct cs_q *q, struct cs_store_request *r)
{
    r->state = cs_q_get_u64(q);
    r->seq = cs_q_get_u64(q);
    r->session = cs_q_get_id(q);
    r->chain = cs_q_get(q);
    r->target = cs_q_get(q);
    r->action = cs_q_get(q);
    r->address = cs_q_get(q);
    r->claimed = cs_q_get(q);
    r->parties = cs_q_get(q);
    cs_q_get_bytes(q, r->match, sizeof r->match);
    cs_q_get_bytes(q, r->digest, sizeof r->digest);
    cs_q_get_bytes(q, r->nonce, sizeof r->nonce);
    r->policy_version = cs_q_get_u64(q);
    r->in_transaction = cs_q_get_u64(q);
    r->elevated = cs_q_get_u64(q);
    r->within_ms = cs_q_get_u64(q);
    r->valid_ms = cs_q_get_u64(q);
    r->attach_ms = cs_q_get_u64(q);
    r->created_ms = cs_q_get_u64(q);
    r->expires_ms = cs_q_get_u64(q);
    r->decided_ms = cs_q_get_u64(q);
    r->lost_ms = cs_q_get_u64(q);
    r->by = cs_q_get(q);
    r->words = cs_q_get(q);
    r->grant = cs_q_get_id(q);
    r->grant_session = cs_q_get_id(q);
    r->attached = cs_q_get_u64(q);
    r->action_bytes = cs_q_get_u64(q);
}

static void rule_read(struct cs_q *q, void *row)
{
    struct cs_store_rule *v = row;
    v->name = cs_q_get(q);
    v->title = cs_q_get(q);
    v->groups = cs_q_get(q);
    v->quorum = cs_q_get_u64(q);
}

static enum cs_err rules_read(struct cs_db *db, struct cs_op *op, struct cs_store_request *r)
{
    struct cs_rows rows = {0};
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_RULES);
    cs_q_str(&q, r->id);
    enum cs_err err = cs_q_all(&q, rule_read, sizeof(struct cs_store_rule), &rows);
    r->rules = rows.v;
    r->n_rules = rows.n;
    return err;
}

static void vote_read(struct cs_q *q, void *row)
{
    struct cs_store_vote *v = row;
    v->approver = cs_q_get(q);
    v->reason = cs_q_get(q);
    v->approve = cs_q_get_u64(q);
    v->at_ms = cs_q_get_u64(q);
}

static enum cs_err votes_read(struct cs_db *db, struct cs_op *op, struct cs_store_request *r)
{
    struct cs_rows rows = {0};
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_VOTES);
    cs_q_str(&q, r->id);
    enum cs_err err = cs_q_all(&q, vote_read, sizeof(struct cs_store_vote), &rows);
    r->votes = rows.v;
    r->n_votes = rows.n;
    return err;
}

static enum cs_err request_full(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                                struct cs_slice viewer, uint64_t action_max,
                                struct cs_store_request *r)
{
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_FULL);
    cs_q_text(&q, id);
    cs_q_u64(&q, action_max);
    bool found = cs_q_row(&q);
    if (found) {
        full_read(&q, r);
    }
    enum cs_err err = cs_q_end(&q);
    if (err != CS_OK || !found) {
        return err != CS_OK ? err : CS_ERR_NOT_FOUND;
    }
    cs_request_id_copy(id, r->id);
    err = rules_read(db, op, r);
    err = err != CS_OK ? err : votes_read(db, op, r);
    enum cs_store_vote_refusal refusal = CS_STORE_VOTE_DISABLED;
    if (err == CS_OK && viewer.n > 0) {
        err = cs_vote_refusal(db, op, id, viewer, &refusal);
    }
    r->refusal = refusal;
    return err;
}

struct get_args {
    struct cs_slice id, viewer;
};

static enum cs_err request_get(struct cs_db *db, struct cs_op *op)
{
    const struct get_args *in = op->args;
    return request_full(db, op, in->id, in->viewer, INT64_MAX, op->result);
}

static bool request_out(const struct cs_store_request *from, struct cs_arena *a,
                        struct cs_store_request *to)
{
    if (!cs_shape_copy(&cs_request_shape, from, to, a)) {
        return false;
    }
    to->rules = cs_shape_dup(&cs_rule_shape, from->rules, from->n_rules, a);
    to->votes = cs_shape_dup(&vote_shape, from->votes, from->n_votes, a);
    return to->rules != NULL && to->votes != NULL;
}

enum cs_err cs_store_request_get(struct cs_store *s, struct cs_slice id, struct cs_slice viewer,
                                 struct cs_arena *a, struct cs_store_request *ret)
{
    static const struct cs_op_kind kind = {"request-get", request_get, false,
                                           sizeof(struct get_args), sizeof *ret};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *(struct get_args *)op->args = (struct get_args){cs_op_keep(op, id), cs_op_keep(op, viewer)};
    enum cs_err err = cs_op_submit(s, op);
    if (err == CS_OK && !request_out(op->result, a, ret)) {
        err = CS_ERR_NO_MEMORY;
    }
    return err;
}

struct list_result {
    struct cs_rows rows;
    uint64_t seq;
};

static void name_read(struct cs_q *q, void *row)
{
    *(struct cs_slice *)row = cs_q_get(q);
}

static enum cs_err request_list(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_request_query *in = op->args;
    struct list_result *out = op->result;
    struct cs_rows ids = {0};
    struct cs_q q =
        cs_q(db, op, in->oldest_first ? CS_SQL_REQUEST_LIST_OLD : CS_SQL_REQUEST_LIST_NEW);
    cs_q_u64(&q, in->state);
    cs_q_u64(&q, in->open_only);
    cs_q_u64(&q, in->since);
    cs_q_text(&q, in->viewers_only ? in->viewer : CS_SLICE_NULL);
    cs_q_u64(&q, in->limit > 0 ? CS_MIN(in->limit, CS_STORE_LIST_MAX) : CS_STORE_LIST_MAX);
    enum cs_err err = cs_q_all(&q, name_read, sizeof(struct cs_slice), &ids);
    const struct cs_slice *v = ids.v;
    for (size_t i = 0; err == CS_OK && i < ids.n; i++) {
        struct cs_store_request *r = cs_rows_add(op, &out->rows, sizeof *r);
        if (r == NULL) {
            return CS_ERR_NO_MEMORY;
        }
        err = request_full(db, op, v[i], in->viewer, in->action_max, r);
    }
    out->seq = db->seq;
    return err;
}

enum cs_err cs_store_request_list(struct cs_store *s, const struct cs_store_request_query *query,
                                  struct cs_arena *a, struct cs_store_request **ret, size_t *ret_n,
                                  uint64_t *ret_seq)
{
    static const struct cs_op_kind kind = {"request-list", request_list, false, sizeof *query,
                                           sizeof(struct list_result)};
    if (query->viewers_only && query->viewer.n == 0) {
        return CS_ERR_INVALID; /* an empty filter would show everything */
    }
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_store_request_query *in = op->args;
    *in = *query;
    in->viewer = cs_op_keep(op, query->viewer);
    enum cs_err err = cs_op_submit(s, op);
    if (err != CS_OK) {
        return err;
    }
    const struct list_result *out = op->result;
    struct cs_store_request *v = cs_arena_array(a, out->rows.n > 0 ? out->rows.n : 1, sizeof *v);
    for (size_t i = 0; v != NULL && i < out->rows.n; i++) {
        if (!request_out((const struct cs_store_request *)out->rows.v + i, a, &v[i])) {
            v = NULL;
        }
    }
    if (v == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *ret = v;
    *ret_n = out->rows.n;
    *ret_seq = out->seq;
    return CS_OK;
}

static void count_read(struct cs_q *q, void *row)
{
    *(uint64_t *)row = cs_q_get_u64(q);
}

static enum cs_err requests_pending(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_REQUESTS_PENDING);
    return cs_q_one(&q, count_read, op->result);
}

enum cs_err cs_store_requests_pending(struct cs_store *s, uint64_t *ret)
{
    static const struct cs_op_kind kind = {"requests-pending", requests_pending, false, 1,
                                           sizeof(uint64_t)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    enum cs_err err = op != NULL ? cs_op_submit(s, op) : CS_ERR_NO_MEMORY;
    if (err == CS_OK) {
        *ret = *(const uint64_t *)op->result;
    }
    return err;
}
