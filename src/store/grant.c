/* Grants: consumed once by compare-and-set, finished once. The database's own conditions decide, in
 * one statement: no state that was read before is trusted. */
#include "store/store_internal.h"

struct grant_args {
    struct cs_slice request, words;
    struct cs_id grant, session;
    uint8_t digest[CS_STORE_DIGEST];
    uint64_t state;
};

static enum cs_err consume(struct cs_db *db, struct cs_op *op)
{
    const struct grant_args *in = op->args;
    struct cs_q q = cs_q(db, op, CS_SQL_GRANT_CONSUME);
    cs_q_id(&q, &in->grant);
    cs_q_text(&q, in->request);
    cs_q_id(&q, &in->session);
    cs_q_blob(&q, in->digest, sizeof in->digest);
    cs_q_u64(&q, db->now);
    uint64_t changed = 0;
    enum cs_err err = cs_q_run(&q, &changed);
    if (err != CS_OK || changed != 1) {
        return err != CS_OK ? err : CS_ERR_CONFLICT;
    }
    q = cs_q(db, op, CS_SQL_REQUEST_EXECUTING);
    cs_q_text(&q, in->request);
    err = cs_q_run(&q, &changed);
    if (err != CS_OK || changed != 1) {
        return err != CS_OK ? err : CS_ERR_CONFLICT;
    }
    err = cs_request_changed(db, op, in->request, true);
    if (err != CS_OK) {
        return err;
    }
    q = cs_q(db, op, CS_SQL_DETACH_ALL);
    cs_q_text(&q, in->request);
    return cs_q_run(&q, NULL);
}

static enum cs_err finish(struct cs_db *db, struct cs_op *op)
{
    const struct grant_args *in = op->args;
    uint64_t wanted = in->state == CS_STORE_UNKNOWN ? CS_GRANT_UNKNOWN : CS_GRANT_DONE;
    struct cs_q q = cs_q(db, op, CS_SQL_GRANT_GET);
    cs_q_id(&q, &in->grant);
    cs_q_id(&q, &in->session);
    struct cs_slice request = CS_SLICE_NULL;
    uint64_t state = CS_GRANT_NONE;
    if (cs_q_row(&q)) {
        request = cs_q_get(&q);
        state = cs_q_get_u64(&q);
    }
    enum cs_err err = cs_q_end(&q);
    if (err != CS_OK || state == wanted) {
        return err;
    }
    if (state != CS_GRANT_CONSUMED) {
        return CS_ERR_CONFLICT;
    }
    q = cs_q(db, op, CS_SQL_GRANT_FINISH);
    cs_q_id(&q, &in->grant);
    cs_q_u64(&q, wanted);
    cs_q_u64(&q, db->now);
    err = cs_q_run(&q, NULL);
    return err != CS_OK ? err
                        : cs_request_end(db, op, request, (enum cs_store_state)in->state,
                                         CS_SLICE_NULL, in->words);
}

static enum cs_err grant_submit(struct cs_store *s, const struct cs_op_kind *kind,
                                const struct grant_args *args)
{
    /* A zero id would be bound as NULL, which equals nothing: refused here, in plain words. */
    if (cs_id_is_zero(&args->grant) || cs_id_is_zero(&args->session)) {
        return CS_ERR_CONFLICT;
    }
    struct cs_op *op = cs_op_new(kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct grant_args *in = op->args;
    *in = *args;
    in->request = cs_op_keep(op, args->request);
    in->words = cs_op_keep(op, args->words);
    return cs_op_finish(s, op);
}

enum cs_err cs_store_grant_consume(struct cs_store *s, struct cs_slice request,
                                   const struct cs_id *grant, const struct cs_id *session,
                                   const uint8_t digest[static CS_STORE_DIGEST])
{
    static const struct cs_op_kind kind = {"grant-consume", consume, true,
                                           sizeof(struct grant_args), 1};
    struct grant_args in = {.request = request, .grant = *grant, .session = *session};
    memcpy(in.digest, digest, sizeof in.digest);
    return grant_submit(s, &kind, &in);
}

enum cs_err cs_store_grant_finish(struct cs_store *s, const struct cs_id *grant,
                                  const struct cs_id *session, uint64_t state,
                                  struct cs_slice words)
{
    static const struct cs_op_kind kind = {"grant-finish", finish, true, sizeof(struct grant_args),
                                           1};
    if (state != CS_STORE_DONE && state != CS_STORE_UNKNOWN && state != CS_STORE_VOID) {
        return CS_ERR_INVALID;
    }
    struct grant_args in = {.grant = *grant, .session = *session, .state = state, .words = words};
    return grant_submit(s, &kind, &in);
}
