/* The rules of voting, in the transaction that stores the vote. Nothing that a caller says about an
 * approver is believed: kind, groups and being enabled are read here, at this moment. */
#include "store/store_internal.h"

static const struct {
    enum cs_err err;
    const char *text;
} refusals[CS_STORE_VOTE_MAX] = {
#define CS_VOTE(id, err, text) [CS_STORE_VOTE_##id] = {CS_ERR_##err, (text)},
#include "store/votes.def"
#undef CS_VOTE
};

const char *cs_store_vote_text(enum cs_store_vote_refusal r)
{
    return (unsigned)r < CS_STORE_VOTE_MAX ? refusals[r].text : "";
}

enum cs_err cs_store_vote_err(enum cs_store_vote_refusal r)
{
    return (unsigned)r < CS_STORE_VOTE_MAX ? refusals[r].err : CS_ERR_INTERNAL;
}

struct vote_args {
    struct cs_slice request, approver, reason;
    uint8_t digest[CS_STORE_DIGEST];
    bool approve;
};
struct vote_result {
    uint64_t state;
    enum cs_store_vote_refusal refusal;
};

static enum cs_err pair_count(struct cs_db *db, struct cs_op *op, enum cs_sql sql,
                              struct cs_slice request, struct cs_slice approver, uint64_t *ret)
{
    struct cs_q q = cs_q(db, op, sql);
    cs_q_text(&q, request);
    cs_q_text(&q, approver);
    return cs_q_number(&q, ret);
}

/* Who may vote at all, whatever the state of the request. */
static enum cs_err person_refusal(struct cs_db *db, struct cs_op *op, struct cs_slice request,
                                  struct cs_slice approver, enum cs_store_vote_refusal *ret)
{
    uint64_t kind = 0, disabled = 1, party = 0, groups = 0;
    struct cs_q q = cs_q(db, op, CS_SQL_VOTER);
    cs_q_text(&q, approver);
    if (cs_q_row(&q)) {
        kind = cs_q_get_u64(&q);
        disabled = cs_q_get_u64(&q);
    }
    enum cs_err err = cs_q_end(&q);
    err = err != CS_OK ? err : pair_count(db, op, CS_SQL_PARTY_OR_OWNER, request, approver, &party);
    err = err != CS_OK ? err : pair_count(db, op, CS_SQL_VOTER_GROUPS, request, approver, &groups);
    if (err != CS_OK) {
        return err;
    }
    if (disabled != 0) {
        *ret = CS_STORE_VOTE_DISABLED;
    } else if (kind != CS_STORE_KIND_PERSON) {
        *ret = CS_STORE_VOTE_NOT_PERSON;
    } else if (party > 0) {
        *ret = CS_STORE_VOTE_PARTY;
    } else {
        *ret = groups == 0 ? CS_STORE_VOTE_NOT_APPROVER : CS_STORE_VOTE_NONE;
    }
    return CS_OK;
}

enum cs_err cs_vote_refusal(struct cs_db *db, struct cs_op *op, struct cs_slice request,
                            struct cs_slice approver, enum cs_store_vote_refusal *ret)
{
    struct cs_request_row row;
    enum cs_err err = cs_request_row(db, op, request, &row);
    if (err == CS_ERR_NOT_FOUND) {
        *ret = CS_STORE_VOTE_NO_REQUEST;
        return CS_OK;
    }
    err = err != CS_OK ? err : person_refusal(db, op, request, approver, ret);
    if (err != CS_OK || *ret != CS_STORE_VOTE_NONE) {
        return err;
    }
    if (row.state == CS_STORE_EXPIRED ||
        (row.state == CS_STORE_PENDING && row.expires <= db->now)) {
        *ret = CS_STORE_VOTE_EXPIRED;
        return CS_OK;
    }
    if (row.state != CS_STORE_PENDING) {
        *ret = CS_STORE_VOTE_DECIDED;
        return CS_OK;
    }
    uint64_t voted = 0;
    err = pair_count(db, op, CS_SQL_VOTED, request, approver, &voted);
    if (err == CS_OK && voted > 0) {
        *ret = CS_STORE_VOTE_TWICE;
    }
    return err;
}

/* Every rule's quorum is reached: the grant, for the session that has waited longest. */
static enum cs_err approve(struct cs_db *db, struct cs_op *op, const struct vote_args *in,
                           const struct cs_request_row *row)
{
    struct cs_id session = {{0}};
    struct cs_q q = cs_q(db, op, CS_SQL_ATTACHED_SESSIONS);
    cs_q_text(&q, in->request);
    if (cs_q_row(&q)) {
        session = cs_q_get_id(&q);
    }
    enum cs_err err = cs_q_end(&q);
    if (err != CS_OK) {
        return err;
    }
    struct cs_id grant = cs_id_new();
    q = cs_q(db, op, CS_SQL_GRANT_ADD);
    cs_q_id(&q, &grant);
    cs_q_text(&q, in->request);
    cs_q_blob(&q, row->digest, sizeof row->digest);
    cs_q_id(&q, &session);
    cs_q_u64(&q, db->now + row->valid_ms);
    err = cs_q_run(&q, NULL);
    if (err != CS_OK) {
        return err;
    }
    q = cs_q(db, op, CS_SQL_REQUEST_APPROVE);
    cs_q_text(&q, in->request);
    cs_q_text(&q, in->approver);
    cs_q_text(&q, in->reason);
    cs_q_u64(&q, db->now);
    cs_q_u64(&q, db->now + row->valid_ms);
    uint64_t changed = 0;
    err = cs_q_run(&q, &changed);
    if (err == CS_OK && changed != 1) {
        err = CS_ERR_INTERNAL;
    }
    return err != CS_OK ? err : cs_request_changed(db, op, in->request, true);
}

/* Every vote that the audit log has, against every rule's quorum. */
static enum cs_err count(struct cs_db *db, struct cs_op *op, const struct vote_args *in,
                         struct vote_result *out)
{
    struct cs_request_row row;
    enum cs_err err = cs_request_row(db, op, in->request, &row);
    if (err != CS_OK) {
        return err;
    }
    out->state = row.state;
    /* It was said in time; what has ended meanwhile stays as it is. */
    if (row.state != CS_STORE_PENDING || row.expires <= db->now) {
        return CS_OK;
    }
    uint64_t unmet = 1;
    struct cs_q q = cs_q(db, op, CS_SQL_UNMET);
    cs_q_text(&q, in->request);
    err = cs_q_number(&q, &unmet);
    if (err != CS_OK) {
        return err;
    }
    if (unmet > 0) {
        return cs_request_changed(db, op, in->request, false);
    }
    out->state = CS_STORE_APPROVED;
    return approve(db, op, in, &row);
}

static enum cs_err vote(struct cs_db *db, struct cs_op *op)
{
    const struct vote_args *in = op->args;
    struct vote_result *out = op->result;
    enum cs_err err = cs_vote_refusal(db, op, in->request, in->approver, &out->refusal);
    if (err != CS_OK) {
        return err;
    }
    if (out->refusal == CS_STORE_VOTE_NONE || out->refusal == CS_STORE_VOTE_TWICE) {
        struct cs_request_row row;
        err = cs_request_row(db, op, in->request, &row);
        if (err != CS_OK) {
            return err;
        }
        /* SECURITY: people sign what they were shown. Another digest is another question. */
        if (memcmp(row.digest, in->digest, sizeof row.digest) != 0) {
            out->refusal = CS_STORE_VOTE_DIGEST;
        }
    }
    if (out->refusal != CS_STORE_VOTE_NONE) {
        return cs_store_vote_err(out->refusal);
    }
    struct cs_q q = cs_q(db, op, CS_SQL_VOTE_ADD);
    cs_q_text(&q, in->request);
    cs_q_text(&q, in->approver);
    cs_q_u64(&q, in->approve);
    cs_q_blob(&q, in->digest, sizeof in->digest);
    cs_q_text(&q, in->reason);
    cs_q_u64(&q, db->now);
    err = cs_q_run(&q, NULL);
    out->state = in->approve ? CS_STORE_PENDING : CS_STORE_DENIED;
    if (err != CS_OK) {
        return err;
    }
    /* SECURITY: a no is one at once; a yes is none before the audit log has it. */
    return in->approve
               ? CS_OK
               : cs_request_end(db, op, in->request, CS_STORE_DENIED, in->approver, in->reason);
}

static enum cs_err vote_logged(struct cs_db *db, struct cs_op *op)
{
    const struct vote_args *in = op->args;
    struct vote_result *out = op->result;
    struct cs_request_row row;
    uint64_t changed = 0;
    enum cs_err err = cs_request_row(db, op, in->request, &row);
    if (err != CS_OK) {
        return err;
    }
    out->state = row.state;
    struct cs_q q = cs_q(db, op, CS_SQL_VOTE_LOGGED);
    cs_q_text(&q, in->request);
    cs_q_text(&q, in->approver);
    err = cs_q_run(&q, &changed);
    return err == CS_OK && changed == 1 ? count(db, op, in, out) : err;
}

enum cs_err cs_store_vote_logged(struct cs_store *s, struct cs_slice request,
                                 struct cs_slice approver, struct cs_slice reason,
                                 uint64_t *ret_state)
{
    static const struct cs_op_kind kind = {"vote-logged", vote_logged, true,
                                           sizeof(struct vote_args), sizeof(struct vote_result)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct vote_args *in = op->args;
    in->request = cs_op_keep(op, request);
    in->approver = cs_op_keep(op, approver);
    in->reason = cs_op_keep(op, reason);
    enum cs_err err = cs_op_submit(s, op);
    if (err == CS_OK) {
        *ret_state = ((const struct vote_result *)op->result)->state;
    }
    return err;
}

static const struct cs_shape unlogged_shape = {sizeof(struct cs_store_unlogged),
                                               3,
                                               {offsetof(struct cs_store_unlogged, request),
                                                offsetof(struct cs_store_unlogged, approver),
                                                offsetof(struct cs_store_unlogged, reason)}};

static void unlogged_read(struct cs_q *q, void *row)
{
    struct cs_store_unlogged *ret = row;
    ret->request = cs_q_get(q);
    ret->approver = cs_q_get(q);
    ret->approve = cs_q_get_u64(q);
    cs_q_get_bytes(q, ret->digest, sizeof ret->digest);
    ret->reason = cs_q_get(q);
    ret->at_ms = cs_q_get_u64(q);
}

static enum cs_err votes_unlogged(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_VOTES_UNLOGGED);
    return cs_q_all(&q, unlogged_read, sizeof(struct cs_store_unlogged), op->result);
}

enum cs_err cs_store_votes_unlogged(struct cs_store *s, struct cs_arena *a,
                                    struct cs_store_unlogged **ret, size_t *ret_n)
{
    static const struct cs_op_kind kind = {"votes-unlogged", votes_unlogged, false, 1,
                                           sizeof(struct cs_rows)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    struct cs_rows rows;
    enum cs_err err = cs_op_all(s, op, &unlogged_shape, a, &rows);
    if (err == CS_OK) {
        *ret = rows.v;
        *ret_n = rows.n;
    }
    return err;
}

enum cs_err cs_store_vote(struct cs_store *s, struct cs_slice request, struct cs_slice approver,
                          bool approve_it, const uint8_t digest[static CS_STORE_DIGEST],
                          struct cs_slice reason, uint64_t *ret_state,
                          enum cs_store_vote_refusal *ret_refusal)
{
    static const struct cs_op_kind kind = {"vote", vote, true, sizeof(struct vote_args),
                                           sizeof(struct vote_result)};
    *ret_refusal = CS_STORE_VOTE_NONE;
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct vote_args *in = op->args;
    in->request = cs_op_keep(op, request);
    in->approver = cs_op_keep(op, approver);
    in->reason = cs_op_keep(op, reason);
    in->approve = approve_it;
    memcpy(in->digest, digest, sizeof in->digest);
    enum cs_err err = cs_op_submit(s, op);
    if (err == CS_ERR_CANCELLED || !op->finished) {
        return err; /* the writer may still have it in its hands */
    }
    const struct vote_result *out = op->result;
    if (err == CS_OK) {
        *ret_state = out->state;
    } else if (err == cs_store_vote_err(out->refusal)) {
        *ret_refusal = out->refusal;
    }
    return err;
}
