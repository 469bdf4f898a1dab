/* Operations: their memory, rows read into it, and deep copies of flat structs. An operation owns
 * copies of its inputs and its results, so that a waiter who is cancelled takes nothing away from
 * the writer thread. */
#include "store/store_internal.h"

#include "base/alloc.h"
#include "base/assert.h"

struct cs_op *cs_op_new(const struct cs_op_kind *kind)
{
    struct cs_op *op = cs_alloc(sizeof *op);
    if (op == NULL) {
        return NULL;
    }
    op->kind = kind;
    op->refs = 1;
    op->changes_end = &op->changes;
    cs_arena_init(&op->mem, 2048, CS_STORE_OP_BYTES);
    op->args = cs_arena_alloc(&op->mem, kind->args);
    op->result = cs_arena_alloc(&op->mem, kind->result);
    if (op->args == NULL || op->result == NULL) {
        cs_op_unref(op);
        return NULL;
    }
    return op;
}

void cs_op_unref(struct cs_op *op)
{
    if (op == NULL) {
        return;
    }
    cs_assert(op->refs > 0);
    if (--op->refs == 0) {
        cs_arena_done(&op->mem);
        cs_free(op);
    }
}

void cs_op_done(struct cs_op **op)
{
    cs_op_unref(*op);
    *op = NULL;
}

struct cs_slice cs_op_keep(struct cs_op *op, struct cs_slice s)
{
    struct cs_slice copy = cs_arena_dup(&op->mem, s);
    if (copy.p == NULL) {
        op->out_of_memory = true;
        return CS_SLICE_NULL;
    }
    return copy;
}

void *cs_op_array(struct cs_op *op, size_t n, size_t size)
{
    void *p = cs_arena_array(&op->mem, n > 0 ? n : 1, size);
    if (p == NULL) {
        op->out_of_memory = true;
    }
    return p;
}

bool cs_shape_copy(const struct cs_shape *shape, const void *from, void *to, struct cs_arena *a)
{
    if (to != from) {
        memcpy(to, from, shape->size);
    }
    for (size_t i = 0; i < shape->n; i++) {
        struct cs_slice *s = (struct cs_slice *)(void *)((uint8_t *)to + shape->slices[i]);
        *s = cs_arena_dup(a, *s);
        if (s->p == NULL) {
            return false;
        }
    }
    return true;
}

void *cs_shape_dup(const struct cs_shape *shape, const void *from, size_t n, struct cs_arena *a)
{
    uint8_t *to = cs_arena_array(a, n > 0 ? n : 1, shape->size);
    for (size_t i = 0; to != NULL && i < n; i++) {
        if (!cs_shape_copy(shape, (const uint8_t *)from + i * shape->size, to + i * shape->size,
                           a)) {
            return NULL;
        }
    }
    return to;
}

void *cs_rows_add(struct cs_op *op, struct cs_rows *rows, size_t size)
{
    if (rows->n == rows->cap) {
        size_t cap = rows->cap > 0 ? rows->cap * 2 : 8;
        void *v = cs_op_array(op, cap, size);
        if (v == NULL) {
            return NULL;
        }
        if (rows->n > 0) {
            memcpy(v, rows->v, rows->n * size);
        }
        rows->v = v;
        rows->cap = cap;
    }
    return (uint8_t *)rows->v + size * rows->n++;
}

enum cs_err cs_q_one(struct cs_q *q, cs_row_fn read, void *ret)
{
    bool found = cs_q_row(q);
    if (found) {
        read(q, ret);
    }
    enum cs_err err = cs_q_end(q);
    return err == CS_OK && !found ? CS_ERR_NOT_FOUND : err;
}

enum cs_err cs_q_all(struct cs_q *q, cs_row_fn read, size_t size, struct cs_rows *ret)
{
    while (cs_q_row(q)) {
        void *row = cs_rows_add(q->op, ret, size);
        if (row == NULL) {
            break; /* the operation is refused for it: nobody sees half a list */
        }
        read(q, row);
    }
    return cs_q_end(q);
}

void cs_q_read_id(struct cs_q *q, void *row)
{
    *(struct cs_id *)row = cs_q_get_id(q);
}

enum cs_err cs_op_one(struct cs_store *s, struct cs_op *op, const struct cs_shape *shape,
                      struct cs_arena *a, void *ret)
{
    enum cs_err err = op != NULL ? cs_op_submit(s, op) : CS_ERR_NO_MEMORY;
    if (err != CS_OK) {
        return err;
    }
    const void *copy = cs_shape_dup(shape, op->result, 1, a);
    if (copy == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    memcpy(ret, copy, shape->size);
    return CS_OK;
}

enum cs_err cs_op_all(struct cs_store *s, struct cs_op *op, const struct cs_shape *shape,
                      struct cs_arena *a, struct cs_rows *ret)
{
    enum cs_err err = op != NULL ? cs_op_submit(s, op) : CS_ERR_NO_MEMORY;
    if (err != CS_OK) {
        return err;
    }
    const struct cs_rows *rows = op->result;
    void *v = cs_shape_dup(shape, rows->v, rows->n, a);
    if (v == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *ret = (struct cs_rows){v, rows->n, rows->n};
    return CS_OK;
}

struct cs_slice cs_line_next(struct cs_slice *left)
{
    size_t at = cs_slice_find(*left, '\n');
    struct cs_slice line = cs_slice_head(*left, at);
    *left = cs_slice_from(*left, at < left->n ? at + 1 : left->n);
    return line;
}
