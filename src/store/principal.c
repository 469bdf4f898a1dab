/* Principals, their groups and tokens; and the small values of the installation (meta). Called by
 * identity/. Nothing here knows what a token looks like: only hashes and verifiers arrive. */
#include "store/store_internal.h"

static const struct cs_shape principal_shape = {
    sizeof(struct cs_store_principal),
    4,
    {offsetof(struct cs_store_principal, id), offsetof(struct cs_store_principal, name),
     offsetof(struct cs_store_principal, owner), offsetof(struct cs_store_principal, groups)}};

/* ---- meta ---- */

struct meta_args {
    struct cs_slice name, initial;
};

static enum cs_err meta_init(struct cs_db *db, struct cs_op *op)
{
    const struct meta_args *in = op->args;
    struct cs_q q = cs_q(db, op, CS_SQL_META_ADD);
    cs_q_text(&q, in->name);
    cs_q_blob(&q, in->initial.p, in->initial.n);
    enum cs_err err = cs_q_run(&q, NULL);
    if (err != CS_OK) {
        return err;
    }
    q = cs_q(db, op, CS_SQL_META_GET);
    cs_q_text(&q, in->name);
    if (cs_q_row(&q)) {
        *(struct cs_slice *)op->result = cs_q_get(&q);
    }
    return cs_q_end(&q);
}

enum cs_err cs_store_meta_init(struct cs_store *s, struct cs_slice name, struct cs_slice initial,
                               struct cs_arena *a, struct cs_slice *ret)
{
    static const struct cs_op_kind kind = {"meta-init", meta_init, true, sizeof(struct meta_args),
                                           sizeof(struct cs_slice)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *(struct meta_args *)op->args =
        (struct meta_args){cs_op_keep(op, name), cs_op_keep(op, initial)};
    enum cs_err err = cs_op_submit(s, op);
    if (err != CS_OK) {
        return err;
    }
    struct cs_slice value = cs_arena_dup(a, *(const struct cs_slice *)op->result);
    if (value.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *ret = value;
    return CS_OK;
}

static enum cs_err touch(struct cs_db *db, struct cs_op *op)
{
    uint8_t random[16]; /* the same value would write nothing */
    cs_random(random, sizeof random);
    struct cs_q q = cs_q(db, op, CS_SQL_META_SET);
    cs_q_text(&q, CS_SLICE_LIT("touched"));
    cs_q_blob(&q, random, sizeof random);
    return cs_q_run(&q, NULL);
}

enum cs_err cs_store_touch(struct cs_store *s)
{
    static const struct cs_op_kind kind = {"touch", touch, true, 1, 1};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    return op != NULL ? cs_op_submit(s, op) : CS_ERR_NO_MEMORY;
}

/* ---- writing ---- */

static enum cs_err number_of(struct cs_db *db, struct cs_op *op, enum cs_sql sql,
                             struct cs_slice id, uint64_t *ret)
{
    struct cs_q q = cs_q(db, op, sql);
    cs_q_text(&q, id);
    return cs_q_number(&q, ret);
}

static enum cs_err groups_write(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                                struct cs_slice groups)
{
    struct cs_q q = cs_q(db, op, CS_SQL_GROUP_CLEAR);
    cs_q_text(&q, id);
    enum cs_err err = cs_q_run(&q, NULL);
    while (err == CS_OK && groups.n > 0) {
        q = cs_q(db, op, CS_SQL_GROUP_ADD);
        cs_q_text(&q, id);
        cs_q_text(&q, cs_line_next(&groups));
        err = cs_q_run(&q, NULL);
    }
    return err;
}

static enum cs_err principal_add(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_principal *p = op->args;
    uint64_t there = 0, owner_ok = 0;
    enum cs_err err = number_of(db, op, CS_SQL_PRINCIPAL_EXISTS, p->id, &there);
    if (err != CS_OK || there > 0) {
        return err != CS_OK ? err : CS_ERR_EXISTS;
    }
    if (p->kind == CS_STORE_KIND_AGENT) {
        err = number_of(db, op, CS_SQL_PRINCIPAL_OWNER_OK, p->owner, &owner_ok);
        if (err != CS_OK || owner_ok != 1) {
            return err != CS_OK ? err : CS_ERR_CONFLICT;
        }
    }
    struct cs_q q = cs_q(db, op, CS_SQL_PRINCIPAL_ADD);
    cs_q_text(&q, p->id);
    cs_q_text(&q, p->name);
    cs_q_text(&q, p->owner);
    cs_q_u64(&q, p->kind);
    cs_q_u64(&q, db->now);
    cs_q_blob(&q, p->token_sha256, sizeof p->token_sha256);
    cs_q_blob(&q, p->salt, sizeof p->salt);
    cs_q_u64(&q, p->iterations);
    cs_q_blob(&q, p->stored_key, sizeof p->stored_key);
    cs_q_blob(&q, p->server_key, sizeof p->server_key);
    err = cs_q_run(&q, NULL);
    return err != CS_OK ? err : groups_write(db, op, p->id, p->groups);
}

static enum cs_err principal_disable(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_principal *p = op->args;
    struct cs_q q = cs_q(db, op, CS_SQL_PRINCIPAL_DISABLE);
    cs_q_text(&q, p->id);
    cs_q_u64(&q, db->now);
    uint64_t changed = 0;
    enum cs_err err = cs_q_run(&q, &changed);
    return err == CS_OK && changed != 1 ? CS_ERR_NOT_FOUND : err;
}

static enum cs_err principal_set_groups(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_principal *p = op->args;
    uint64_t there = 0;
    enum cs_err err = number_of(db, op, CS_SQL_PRINCIPAL_EXISTS, p->id, &there);
    if (err != CS_OK || there == 0) {
        return err != CS_OK ? err : CS_ERR_NOT_FOUND;
    }
    return groups_write(db, op, p->id, p->groups);
}

static enum cs_err principal_set_token(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_principal *p = op->args;
    struct cs_q q = cs_q(db, op, CS_SQL_PRINCIPAL_TOKEN);
    cs_q_text(&q, p->id);
    cs_q_blob(&q, p->token_sha256, sizeof p->token_sha256);
    cs_q_blob(&q, p->salt, sizeof p->salt);
    cs_q_u64(&q, p->iterations);
    cs_q_blob(&q, p->stored_key, sizeof p->stored_key);
    cs_q_blob(&q, p->server_key, sizeof p->server_key);
    uint64_t changed = 0;
    enum cs_err err = cs_q_run(&q, &changed);
    return err == CS_OK && changed != 1 ? CS_ERR_NOT_FOUND : err;
}

static enum cs_err principal_write(struct cs_store *s, const struct cs_op_kind *kind,
                                   const struct cs_store_principal *p)
{
    struct cs_op *op = cs_op_new(kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    if (!cs_shape_copy(&principal_shape, p, op->args, &op->mem)) {
        op->out_of_memory = true;
    }
    return cs_op_finish(s, op);
}

enum cs_err cs_store_principal_add(struct cs_store *s, const struct cs_store_principal *p)
{
    static const struct cs_op_kind kind = {"principal-add", principal_add, true, sizeof *p, 1};
    return principal_write(s, &kind, p);
}

enum cs_err cs_store_principal_disable(struct cs_store *s, struct cs_slice id)
{
    static const struct cs_op_kind kind = {"principal-disable", principal_disable, true,
                                           sizeof(struct cs_store_principal), 1};
    return principal_write(s, &kind, &(struct cs_store_principal){.id = id});
}

enum cs_err cs_store_principal_set_groups(struct cs_store *s, struct cs_slice id,
                                          struct cs_slice groups)
{
    static const struct cs_op_kind kind = {"principal-groups", principal_set_groups, true,
                                           sizeof(struct cs_store_principal), 1};
    return principal_write(s, &kind, &(struct cs_store_principal){.id = id, .groups = groups});
}

enum cs_err cs_store_principal_set_token(struct cs_store *s, const struct cs_store_principal *p)
{
    static const struct cs_op_kind kind = {"principal-token", principal_set_token, true, sizeof *p,
                                           1};
    return principal_write(s, &kind, p);
}

/* ---- reading ---- */

static void principal_read(struct cs_q *q, void *row)
{
    struct cs_store_principal *p = row;
    p->id = cs_q_get(q);
    p->name = cs_q_get(q);
    p->owner = cs_q_get(q);
    p->groups = cs_q_get(q);
    p->kind = cs_q_get_u64(q);
    p->created_ms = cs_q_get_u64(q);
    p->disabled_ms = cs_q_get_u64(q);
}

static void principal_read_secrets(struct cs_q *q, void *row)
{
    struct cs_store_principal *p = row;
    principal_read(q, p);
    cs_q_get_bytes(q, p->token_sha256, sizeof p->token_sha256);
    cs_q_get_bytes(q, p->salt, sizeof p->salt);
    p->iterations = cs_q_get_u64(q);
    cs_q_get_bytes(q, p->stored_key, sizeof p->stored_key);
    cs_q_get_bytes(q, p->server_key, sizeof p->server_key);
}

static enum cs_err principal_get(struct cs_db *db, struct cs_op *op)
{
    const struct cs_store_principal *p = op->args;
    bool by_id = p->id.n > 0;
    struct cs_q q = cs_q(db, op, by_id ? CS_SQL_PRINCIPAL_GET : CS_SQL_PRINCIPAL_BY_TOKEN);
    if (by_id) {
        cs_q_text(&q, p->id);
    } else {
        cs_q_blob(&q, p->token_sha256, sizeof p->token_sha256);
    }
    return cs_q_one(&q, principal_read_secrets, op->result);
}

static enum cs_err principal_find(struct cs_store *s, const struct cs_store_principal *key,
                                  struct cs_arena *a, struct cs_store_principal *ret)
{
    static const struct cs_op_kind kind = {"principal-get", principal_get, false, sizeof *key,
                                           sizeof *ret};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL || !cs_shape_copy(&principal_shape, key, op->args, &op->mem)) {
        return CS_ERR_NO_MEMORY;
    }
    return cs_op_one(s, op, &principal_shape, a, ret);
}

enum cs_err cs_store_principal_get(struct cs_store *s, struct cs_slice id, struct cs_arena *a,
                                   struct cs_store_principal *ret)
{
    if (id.n == 0) {
        return CS_ERR_NOT_FOUND; /* else it would be a search by a hash of zeroes */
    }
    return principal_find(s, &(struct cs_store_principal){.id = id}, a, ret);
}

enum cs_err cs_store_principal_by_token(struct cs_store *s,
                                        const uint8_t token_sha256[static CS_STORE_DIGEST],
                                        struct cs_arena *a, struct cs_store_principal *ret)
{
    struct cs_store_principal key = {.kind = 0};
    memcpy(key.token_sha256, token_sha256, sizeof key.token_sha256);
    return principal_find(s, &key, a, ret);
}

static enum cs_err principal_list(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_PRINCIPAL_LIST);
    return cs_q_all(&q, principal_read, sizeof(struct cs_store_principal), op->result);
}

enum cs_err cs_store_principal_list(struct cs_store *s, struct cs_arena *a,
                                    struct cs_store_principal **ret, size_t *ret_n)
{
    static const struct cs_op_kind kind = {"principal-list", principal_list, false, 1,
                                           sizeof(struct cs_rows)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    struct cs_rows rows;
    enum cs_err err = cs_op_all(s, op, &principal_shape, a, &rows);
    if (err == CS_OK) {
        *ret = rows.v;
        *ret_n = rows.n;
    }
    return err;
}
