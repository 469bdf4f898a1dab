/* Sealed secrets: opaque boxes with a name and a version. Called by control for the vault; nothing
 * here can open one. */
#include "store/store_internal.h"

static const struct cs_shape secret_shape = {
    sizeof(struct cs_store_secret),
    2,
    {offsetof(struct cs_store_secret, name), offsetof(struct cs_store_secret, box)}};

static enum cs_err secret_put(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_secret *in = op->args;
    uint64_t version = 0;
    struct cs_q q = cs_q(db, op, CS_SQL_SECRET_VERSION);
    cs_q_text(&q, in->name);
    enum cs_err err = cs_q_number(&q, &version);
    if (err != CS_OK || in->version != version + 1) {
        return err != CS_OK ? err : CS_ERR_CONFLICT;
    }
    q = cs_q(db, op, CS_SQL_SECRET_PUT);
    cs_q_text(&q, in->name);
    cs_q_u64(&q, in->version);
    cs_q_blob(&q, in->box.p, in->box.n);
    cs_q_u64(&q, db->now);
    return cs_q_run(&q, NULL);
}

enum cs_err cs_store_secret_put(struct cs_store *s, struct cs_slice name, uint64_t version,
                                struct cs_slice box)
{
    static const struct cs_op_kind kind = {"secret-put", secret_put, true,
                                           sizeof(struct cs_store_secret), 1};
    struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *(struct cs_store_secret *)op->args =
        (struct cs_store_secret){cs_op_keep(op, name), cs_op_keep(op, box), version, 0};
    return cs_op_finish(s, op);
}

static enum cs_err secret_rewrap(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_secret *in = op->args;
    uint64_t changed = 0;
    struct cs_q q = cs_q(db, op, CS_SQL_SECRET_REWRAP);
    cs_q_text(&q, in->name);
    cs_q_u64(&q, in->version);
    cs_q_blob(&q, in->box.p, in->box.n);
    enum cs_err err = cs_q_run(&q, &changed);
    return err == CS_OK && changed != 1 ? CS_ERR_CONFLICT : err;
}

enum cs_err cs_store_secret_rewrap(struct cs_store *s, struct cs_slice name, uint64_t version,
                                   struct cs_slice box)
{
    static const struct cs_op_kind kind = {"secret-rewrap", secret_rewrap, true,
                                           sizeof(struct cs_store_secret), 1};
    struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *(struct cs_store_secret *)op->args =
        (struct cs_store_secret){cs_op_keep(op, name), cs_op_keep(op, box), version, 0};
    return cs_op_finish(s, op);
}

static void secret_read(struct cs_q *q, void *row)
{
    struct cs_store_secret *ret = row;
    ret->name = cs_q_get(q);
    ret->version = cs_q_get_u64(q);
    ret->changed_ms = cs_q_get_u64(q);
}

static void secret_read_whole(struct cs_q *q, void *row)
{
    secret_read(q, row);
    ((struct cs_store_secret *)row)->box = cs_q_get(q);
}

static enum cs_err secret_get(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_SECRET_GET);
    cs_q_text(&q, *(const struct cs_slice *)op->args);
    return cs_q_one(&q, secret_read_whole, op->result);
}

enum cs_err cs_store_secret_get(struct cs_store *s, struct cs_slice name, struct cs_arena *a,
                                struct cs_store_secret *ret)
{
    static const struct cs_op_kind kind = {"secret-get", secret_get, false, sizeof(struct cs_slice),
                                           sizeof(struct cs_store_secret)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *(struct cs_slice *)op->args = cs_op_keep(op, name);
    return cs_op_one(s, op, &secret_shape, a, ret);
}

static enum cs_err secret_list(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_SECRET_LIST);
    return cs_q_all(&q, secret_read, sizeof(struct cs_store_secret), op->result);
}

enum cs_err cs_store_secret_list(struct cs_store *s, struct cs_arena *a,
                                 struct cs_store_secret **ret, size_t *ret_n)
{
    static const struct cs_op_kind kind = {"secret-list", secret_list, false, 1,
                                           sizeof(struct cs_rows)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    struct cs_rows rows;
    enum cs_err err = cs_op_all(s, op, &secret_shape, a, &rows);
    if (err == CS_OK) {
        *ret = rows.v;
        *ret_n = rows.n;
    }
    return err;
}
