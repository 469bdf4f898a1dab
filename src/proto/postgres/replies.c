/* The queue of answers that the target owes: one entry per forwarded message that has one. The
 * table is allocated with the first entry and given back when the queue is empty and large. */
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/postgres/postgres_internal.h"

struct pg_reply *pg_replies_at(struct pg_replies *q, uint32_t i)
{
    cs_assert(i < q->count);
    return &q->v[(q->head + i) & (q->cap - 1)];
}

static bool grow(struct pg_replies *q)
{
    uint32_t cap = q->cap > 0 ? q->cap * 2 : PG_REPLIES_INLINE;
    struct pg_reply *v = cs_alloc(cap * sizeof *v);
    if (v == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < q->count; i++) {
        v[i] = *pg_replies_at(q, i);
    }
    cs_free(q->v);
    q->v = v;
    q->cap = cap;
    q->head = 0;
    return true;
}

struct pg_reply *pg_replies_push(struct pg_replies *q, enum pg_reply_kind kind)
{
    if (q->count >= CS_LIMIT_PG_PIPELINE || (q->count == q->cap && !grow(q))) {
        return NULL;
    }
    q->count++;
    struct pg_reply *r = pg_replies_at(q, q->count - 1);
    memset(r, 0, sizeof *r);
    r->kind = kind;
    return r;
}

struct pg_reply *pg_replies_head(struct pg_replies *q)
{
    return q->count > 0 ? pg_replies_at(q, 0) : NULL;
}

void pg_replies_pop(struct pg *p)
{
    struct pg_replies *q = &p->replies;
    struct pg_reply *r = pg_replies_at(q, 0);
    if (r->denial != NULL) {
        cs_buf_done(r->denial);
        cs_free(r->denial);
    }
    pg_statement_unref(p, r->statement);
    if (r->portal != NULL) {
        r->portal->granted = false; /* its Bind failed: reported with the error */
    }
    pg_portal_free(p, r->portal);
    cs_free(r->name);
    cs_free(r->text);
    if (r->class != NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), r->class);
    }
    q->head = (q->head + 1) & (q->cap - 1);
    q->count--;
    if (q->count == 0 && q->cap > PG_REPLIES_INLINE) {
        cs_free(q->v);
        *q = (struct pg_replies){0};
    }
}

void pg_replies_done(struct pg *p)
{
    while (p->replies.count > 0) {
        pg_replies_pop(p);
    }
    cs_free(p->replies.v);
    p->replies = (struct pg_replies){0};
}
