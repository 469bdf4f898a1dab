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

static void secret_read(struct cs_q *q, struct cs_store_secret *ret)
{
    ret->name = cs_q_get(q);
    ret->version = cs_q_get_u64(q);
    ret->changed_ms = cs_q_get_u64(q);
}

static enum cs_err secret_get(struct cs_db *db, struct cs_op *op)
{
    struct cs_store_secret *out = op->result;
    struct cs_q q = cs_q(db, op, CS_SQL_SECRET_GET);
    cs_q_text(&q, *(const struct cs_slice *)op->args);
    bool found = cs_q_row(&q);
    if (found) {
        secret_read(&q, out);
        out->box = cs_q_get(&q);
    }
    enum cs_err err = cs_q_end(&q);
    return err == CS_OK && !found ? CS_ERR_NOT_FOUND : err;
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
    enum cs_err err = cs_op_submit(s, op);
    if (err != CS_OK) {
        return err;
    }
    struct cs_store_secret out;
    if (!cs_shape_copy(&secret_shape, op->result, &out, a)) {
        return CS_ERR_NO_MEMORY;
    }
    *ret = out;
    return CS_OK;
}

static enum cs_err secret_list(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_SECRET_LIST);
    while (cs_q_row(&q)) {
        struct cs_store_secret *row = cs_rows_add(op, op->result, sizeof *row);
        if (row == NULL) {
            break;
        }
        secret_read(&q, row);
    }
    return cs_q_end(&q);
}

enum cs_err cs_store_secret_list(struct cs_store *s, struct cs_arena *a,
                                 struct cs_store_secret **ret, size_t *ret_n)
{
    static const struct cs_op_kind kind = {"secret-list", secret_list, false, 1,
                                           sizeof(struct cs_rows)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err err = cs_op_submit(s, op);
    if (err != CS_OK) {
        return err;
    }
    const struct cs_rows *rows = op->result;
    void *v = cs_shape_dup(&secret_shape, rows->v, rows->n, a);
    if (v == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *ret = v;
    *ret_n = rows->n;
    return CS_OK;
}
