/* Sessions: opened, described, listed; and their end, which takes their requests along: leaving
 * what they wait for, and making unknown what they were executing. Called by control and approval/.
 */
#include "store/store_internal.h"

static const struct cs_shape session_shape = {
    sizeof(struct cs_store_session),
    8,
    {offsetof(struct cs_store_session, chain), offsetof(struct cs_store_session, root),
     offsetof(struct cs_store_session, actor), offsetof(struct cs_store_session, target),
     offsetof(struct cs_store_session, address), offsetof(struct cs_store_session, database),
     offsetof(struct cs_store_session, application), offsetof(struct cs_store_session, why)}};

/* ---- opening ---- */

static enum cs_err session_open(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_session *in = op->args;
    if (cs_id_is_zero(&in->id)) {
        return CS_ERR_INVALID;
    }
    struct cs_q q = cs_q(db, op, CS_SQL_SESSION_ADD);
    cs_q_id(&q, &in->id);
    cs_q_blob(&q, in->chain.p, in->chain.n);
    cs_q_text(&q, in->root);
    cs_q_text(&q, in->actor);
    cs_q_text(&q, in->target);
    cs_q_text(&q, in->address);
    cs_q_text(&q, in->database);
    cs_q_text(&q, in->application);
    cs_q_u64(&q, in->gate);
    cs_q_u64(&q, db->now);
    return cs_q_run(&q, NULL);
}

static enum cs_err session_update(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_session *in = op->args;
    struct cs_q q = cs_q(db, op, CS_SQL_SESSION_UPDATE);
    cs_q_id(&q, &in->id);
    cs_q_text(&q, in->database);
    cs_q_text(&q, in->application);
    uint64_t changed = 0;
    enum cs_err err = cs_q_run(&q, &changed);
    return err == CS_OK && changed != 1 ? CS_ERR_NOT_FOUND : err;
}

static enum cs_err session_write(struct cs_store *s, const struct cs_op_kind *kind,
                                 const struct cs_store_session *in, uint64_t *ret_n)
{
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(kind);
    if (op == NULL || !cs_shape_copy(&session_shape, in, op->args, &op->mem)) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err err = cs_op_submit(s, op);
    if (err == CS_OK && ret_n != NULL) {
        *ret_n = *(const uint64_t *)op->result;
    }
    return err;
}

enum cs_err cs_store_session_open(struct cs_store *s, const struct cs_store_session *in)
{
    static const struct cs_op_kind kind = {"session-open", session_open, true, sizeof *in, 8};
    return session_write(s, &kind, in, NULL);
}

enum cs_err cs_store_session_update(struct cs_store *s, const struct cs_id *id,
                                    struct cs_slice database, struct cs_slice application)
{
    static const struct cs_op_kind kind = {"session-update", session_update, true,
                                           sizeof(struct cs_store_session), 8};
    struct cs_store_session in = {.id = *id, .database = database, .application = application};
    return session_write(s, &kind, &in, NULL);
}

/* ---- reading ---- */

static void session_read(struct cs_q *q, void *row)
{
    struct cs_store_session *r = row;
    r->id = cs_q_get_id(q);
    r->chain = cs_q_get(q);
    r->root = cs_q_get(q);
    r->actor = cs_q_get(q);
    r->target = cs_q_get(q);
    r->address = cs_q_get(q);
    r->database = cs_q_get(q);
    r->application = cs_q_get(q);
    r->why = cs_q_get(q);
    r->gate = cs_q_get_u64(q);
    r->opened_ms = cs_q_get_u64(q);
    r->closed_ms = cs_q_get_u64(q);
}

static enum cs_err session_get(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_SESSION_GET);
    cs_q_id(&q, op->args);
    return cs_q_one(&q, session_read, op->result);
}

enum cs_err cs_store_session_get(struct cs_store *s, const struct cs_id *id, struct cs_arena *a,
                                 struct cs_store_session *ret)
{
    static const struct cs_op_kind kind = {"session-get", session_get, false, sizeof(struct cs_id),
                                           sizeof(struct cs_store_session)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *(struct cs_id *)op->args = *id;
    return cs_op_one(s, op, &session_shape, a, ret);
}

static enum cs_err session_list(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_session_query *in = op->args;
    uint64_t limit = in->limit > 0 ? CS_MIN(in->limit, CS_STORE_LIST_MAX) : CS_STORE_LIST_MAX;
    struct cs_q q =
        cs_q(db, op, in->closed_too ? CS_SQL_SESSION_LIST_ALL : CS_SQL_SESSION_LIST_LIVE);
    cs_q_text(&q, in->principal);
    cs_q_u64(&q, limit);
    return cs_q_all(&q, session_read, sizeof(struct cs_store_session), op->result);
}

enum cs_err cs_store_session_list(struct cs_store *s, const struct cs_store_session_query *query,
                                  struct cs_arena *a, struct cs_store_session **ret, size_t *ret_n)
{
    static const struct cs_op_kind kind = {"session-list", session_list, false, sizeof *query,
                                           sizeof(struct cs_rows)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_store_session_query *in = op->args;
    *in = *query;
    in->principal = cs_op_keep(op, query->principal);
    struct cs_rows rows;
    enum cs_err err = cs_op_all(s, op, &session_shape, a, &rows);
    if (err == CS_OK) {
        *ret = rows.v;
        *ret_n = rows.n;
    }
    return err;
}

/* ---- ending ---- */

struct leaving { /* a request, and the grant of it where that matters */
    struct cs_slice request;
    struct cs_id grant;
};

static void leaving_read(struct cs_q *q, void *row)
{
    ((struct leaving *)row)->request = cs_q_get(q);
}

static void leaving_read_grant(struct cs_q *q, void *row)
{
    ((struct leaving *)row)->grant = cs_q_get_id(q);
    leaving_read(q, row);
}

static enum cs_err requests_of(struct cs_db *db, struct cs_op *op, enum cs_sql sql,
                               const struct cs_id *session, struct cs_rows *ret)
{
    bool grants = sql != CS_SQL_ATTACHED_REQUESTS && sql != CS_SQL_REQUEST_OPEN_IN_TX;
    struct cs_q q = cs_q(db, op, sql);
    if (session != NULL) {
        cs_q_id(&q, session);
    }
    return cs_q_all(&q, grants ? leaving_read_grant : leaving_read, sizeof(struct leaving), ret);
}

static bool among(const struct cs_id *id, const struct cs_id *ids, size_t n)
{
    while (n > 0 && !cs_id_eq(id, &ids[n - 1])) {
        n--;
    }
    return n > 0;
}

/* Between consumption and result nobody knows whether it ran: it is never armed again. `keep`:
 * those that still run. */
static enum cs_err grants_unknown(struct cs_db *db, struct cs_op *op, const struct cs_id *session,
                                  struct cs_slice words, const struct cs_id *keep, size_t n_keep)
{
    struct cs_rows rows = {0};
    enum cs_err err =
        requests_of(db, op, session != NULL ? CS_SQL_GRANT_CONSUMED_BY : CS_SQL_GRANT_ALL_CONSUMED,
                    session, &rows);
    const struct leaving *v = rows.v;
    for (size_t i = 0; err == CS_OK && i < rows.n; i++) {
        if (among(&v[i].grant, keep, n_keep)) {
            continue;
        }
        struct cs_q q = cs_q(db, op, CS_SQL_GRANT_FINISH);
        cs_q_id(&q, &v[i].grant);
        cs_q_u64(&q, CS_GRANT_UNKNOWN);
        cs_q_u64(&q, db->now);
        err = cs_q_run(&q, NULL);
        err = err != CS_OK
                  ? err
                  : cs_request_end(db, op, v[i].request, CS_STORE_UNKNOWN, CS_SLICE_NULL, words);
    }
    return err;
}

static enum cs_err requests_leave(struct cs_db *db, struct cs_op *op, const struct cs_id *session,
                                  struct cs_slice but, struct cs_slice why)
{
    struct cs_rows rows = {0};
    enum cs_err err = requests_of(db, op, CS_SQL_ATTACHED_REQUESTS, session, &rows);
    const struct leaving *v = rows.v;
    for (size_t i = 0; err == CS_OK && i < rows.n; i++) {
        struct cs_request_row row;
        if (!cs_slice_eq(v[i].request, but)) {
            err = cs_request_row(db, op, v[i].request, &row);
            err = err != CS_OK ? err : cs_request_detach(db, op, &row, session, why);
        }
    }
    return err;
}

static enum cs_err session_end(struct cs_db *db, struct cs_op *op, const struct cs_id *id,
                               struct cs_slice why)
{
    struct cs_q q = cs_q(db, op, CS_SQL_SESSION_CLOSE);
    cs_q_id(&q, id);
    cs_q_u64(&q, db->now);
    cs_q_text(&q, why);
    enum cs_err err = cs_q_run(&q, NULL);
    err = err != CS_OK ? err : requests_leave(db, op, id, CS_SLICE_NULL, why);
    return err != CS_OK ? err : grants_unknown(db, op, id, why, NULL, 0);
}

static enum cs_err session_close(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_session *in = op->args;
    return session_end(db, op, &in->id, in->why);
}

static enum cs_err sessions_end(struct cs_db *db, struct cs_op *op, struct cs_q *q,
                                struct cs_slice why)
{
    struct cs_rows rows = {0};
    enum cs_err err = cs_q_all(q, cs_q_read_id, sizeof(struct cs_id), &rows);
    const struct cs_id *ids = rows.v;
    for (size_t i = 0; err == CS_OK && i < rows.n; i++) {
        err = session_end(db, op, &ids[i], why);
    }
    *(uint64_t *)op->result = rows.n;
    return err;
}

static enum cs_err sessions_close_gate(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_session *in = op->args;
    struct cs_q q = cs_q(db, op, CS_SQL_SESSION_OF_GATE);
    cs_q_u64(&q, in->gate);
    return sessions_end(db, op, &q, in->why);
}

static enum cs_err recover(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_session *in = op->args;
    struct cs_q q = cs_q(db, op, CS_SQL_SESSION_ALL_LIVE);
    enum cs_err err = sessions_end(db, op, &q, in->why);
    /* The above should have found all of it; what it did not must still not stay armed. */
    err = err != CS_OK ? err : grants_unknown(db, op, NULL, in->why, NULL, 0);
    struct cs_rows rows = {0};
    err = err != CS_OK ? err : requests_of(db, op, CS_SQL_REQUEST_OPEN_IN_TX, NULL, &rows);
    const struct leaving *v = rows.v;
    for (size_t i = 0; err == CS_OK && i < rows.n; i++) {
        err = cs_request_end(db, op, v[i].request, CS_STORE_VOID, CS_SLICE_NULL, in->why);
    }
    return err;
}

enum cs_err cs_store_session_close(struct cs_store *s, const struct cs_id *id, struct cs_slice why)
{
    static const struct cs_op_kind kind = {"session-close", session_close, true,
                                           sizeof(struct cs_store_session), 8};
    struct cs_store_session in = {.id = *id, .why = why};
    return session_write(s, &kind, &in, NULL);
}

enum cs_err cs_store_sessions_close_gate(struct cs_store *s, uint64_t gate, struct cs_slice why,
                                         uint64_t *ret_n)
{
    static const struct cs_op_kind kind = {"sessions-close-gate", sessions_close_gate, true,
                                           sizeof(struct cs_store_session), 8};
    struct cs_store_session in = {.gate = gate, .why = why};
    return session_write(s, &kind, &in, ret_n);
}

enum cs_err cs_store_recover(struct cs_store *s, uint64_t *ret_sessions)
{
    static const struct cs_op_kind kind = {"recover", recover, true,
                                           sizeof(struct cs_store_session), 8};
    struct cs_store_session in = {.why = CS_SLICE_LIT("gateway restarted")};
    return session_write(s, &kind, &in, ret_sessions);
}

/* ---- what a gate says after a restart of control ---- */

static const struct cs_shape id_shape = {sizeof(struct cs_id), 0, {0}};

static enum cs_err sessions_of_gate(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_SESSION_OF_GATE);
    cs_q_u64(&q, *(const uint64_t *)op->args);
    return cs_q_all(&q, cs_q_read_id, sizeof(struct cs_id), op->result);
}

enum cs_err cs_store_sessions_of_gate(struct cs_store *s, uint64_t gate, struct cs_arena *a,
                                      struct cs_id **ret, size_t *ret_n)
{
    static const struct cs_op_kind kind = {"sessions-of-gate", sessions_of_gate, false,
                                           sizeof(uint64_t), sizeof(struct cs_rows)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *(uint64_t *)op->args = gate;
    struct cs_rows rows;
    enum cs_err err = cs_op_all(s, op, &id_shape, a, &rows);
    if (err == CS_OK) {
        *ret = rows.v;
        *ret_n = rows.n;
    }
    return err;
}

struct ids_args {
    struct cs_id session;
    struct cs_slice request, words;
    const struct cs_id *ids;
    size_t n;
};

static enum cs_err sessions_close(struct cs_db *db, struct cs_op *op)
{
    const struct ids_args *in = op->args;
    enum cs_err err = CS_OK;
    for (size_t i = 0; err == CS_OK && i < in->n; i++) {
        err = session_end(db, op, &in->ids[i], in->words);
    }
    return err;
}

static enum cs_err session_keeps(struct cs_db *db, struct cs_op *op)
{
    const struct ids_args *in = op->args;
    enum cs_err err = requests_leave(db, op, &in->session, in->request, in->words);
    return err != CS_OK ? err : grants_unknown(db, op, &in->session, in->words, in->ids, in->n);
}

static enum cs_err ids_submit(struct cs_store *s, const struct cs_op_kind *kind,
                              const struct ids_args *args)
{
    struct cs_op *op = cs_op_new(kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct ids_args *in = op->args;
    *in = *args;
    in->request = cs_op_keep(op, args->request);
    in->words = cs_op_keep(op, args->words);
    if (args->n > 0) {
        void *ids = cs_op_array(op, args->n, sizeof *args->ids);
        if (ids != NULL) { /* else the operation is refused */
            memcpy(ids, args->ids, args->n * sizeof *args->ids);
        }
        in->ids = ids;
    }
    return cs_op_finish(s, op);
}

enum cs_err cs_store_sessions_close(struct cs_store *s, const struct cs_id *ids, size_t n,
                                    struct cs_slice why)
{
    static const struct cs_op_kind kind = {"sessions-close", sessions_close, true,
                                           sizeof(struct ids_args), 1};
    return ids_submit(s, &kind, &(struct ids_args){.words = why, .ids = ids, .n = n});
}

enum cs_err cs_store_session_keeps(struct cs_store *s, const struct cs_id *id,
                                   struct cs_slice request, const struct cs_id *grants,
                                   size_t n_grants, struct cs_slice words)
{
    static const struct cs_op_kind kind = {"session-keeps", session_keeps, true,
                                           sizeof(struct ids_args), 1};
    return ids_submit(
        s, &kind,
        &(struct ids_args){
            .session = *id, .request = request, .words = words, .ids = grants, .n = n_grants});
}
