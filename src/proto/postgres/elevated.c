/* Elevated execution: the connection that one grant gets, and what must be true there before the
 * approved bytes go. Called by frontend.c when a grant was consumed. Whatever fails here fails
 * before a byte of the action was sent for execution, and says so: the grant is used up, nothing
 * ran, the session goes on. It must never try a second time: a grant has one connection. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "proto/postgres/postgres_internal.h"

#include <stdio.h>

/* ---- what a statement was described as ---- */

void pg_told_add(struct pg_told *t, const struct pg_frame *f)
{
    const uint8_t head[5] = {f->type, (uint8_t)(f->total >> 24), (uint8_t)(f->total >> 16),
                             (uint8_t)(f->total >> 8), (uint8_t)f->total};
    if (f->body.n != f->total - 5) {
        t->beyond = true; /* too large to be seen whole: never equal to another */
        return;
    }
    const struct cs_slice pieces[3] = {cs_slice(t->sum, t->any ? sizeof t->sum : 0),
                                       cs_slice(head, sizeof head), f->body};
    uint8_t sum[CS_SHA256];
    cs_sha256_pieces(pieces, CS_ARRAY_LEN(pieces), sum);
    memcpy(t->sum, sum, sizeof sum);
    t->any = true;
}

static bool same_told(const struct pg_told *a, const struct pg_told *b)
{
    return !a->beyond && !b->beyond && a->any == b->any &&
           memcmp(a->sum, b->sum, sizeof a->sum) == 0;
}

/* ---- failing ---- */

void pg_nothing_ran(struct pg *p, struct cs_verdict *v, enum cs_ran ran, enum cs_refusal refusal,
                    const struct pg_error *e, const char *why)
{
    struct cs_slice words = e != NULL ? cs_slice_head(e->message, 1000) : cs_slice_str(why);
    struct cs_result res = {.ok = false, .message = words};
    if (e != NULL) {
        res.sqlstate = cs_slice_head(e->sqlstate, 5);
    }
    cs_log(CS_EV_UPSTREAM_FAILED, &p->s->id, "%s request=%s why=%s",
           v->elevated ? "elevated" : "approved", v->request, cs_log_quote(words).text);
    cs_gate_executed(p->s, &v->grant, ran, words);
    if (cs_gate_result(p->s, v->n, &res) != CS_OK) {
        cs_log(CS_EV_RECORD_FAILED, &p->s->id, "frame=result");
    }
    v->outcome = CS_DENY;
    v->refusal = refusal;
    (void)snprintf(v->message, sizeof v->message,
                   refusal == CS_REFUSAL_VOID
                       ? "Countersign: request %s was approved, but it is void: nothing ran"
                   : refusal == CS_REFUSAL_CANCELLED
                       ? "Countersign: request %s was cancelled: nothing ran"
                       : "Countersign: request %s was approved, but its elevated connection "
                         "failed: nothing ran",
                   v->request);
    (void)snprintf(v->detail, sizeof v->detail, "%s", why);
    (void)snprintf(v->hint, sizeof v->hint, "Repeat it to ask again.");
}

/* SECURITY: the way to the elevated connection takes seconds, and is the target's to draw out. Who
 * was killed or went away meanwhile gets nothing run, and a cancel is still in time: not a byte has
 * left. */
static bool still_wanted(struct pg *p, struct cs_verdict *v)
{
    struct cs_session *s = p->s;
    if (s->kill.set || s->client.fd.hup || s->client.err != CS_OK) {
        pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_CLOSED, NULL,
                       "the session ended before its elevated connection was ready");
        pg_elevated_end(p);
        if (s->kill.set) {
            pg_fatal(p, "57P01", s->kill_why);
        }
        pg_end(p, s->kill.set ? "killed" : "the client closed the connection");
        return false;
    }
    if (s->cancel.set) {
        cs_event_clear(&s->cancel);
        pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_CANCELLED, NULL,
                       "it was cancelled before its elevated connection was ready");
        pg_elevated_end(p);
        return false;
    }
    return true;
}

bool pg_elevate(struct pg *p, struct cs_verdict *v)
{
    char why[240] = "";
    if (!still_wanted(p, v)) { /* then the target is not even asked */
        return false;
    }
    struct pg_upstream *u = cs_alloc(sizeof *u);
    enum cs_err e = CS_ERR_NO_MEMORY;
    if (u != NULL) {
        u->stream.fd.fd = -1;
        e = pg_login(p, NULL, true, &v->grant, u, NULL, why, sizeof why);
    }
    if (e == CS_OK) {
        p->elevated = u;
        return still_wanted(p, v);
    }
    cs_free(u);
    pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_UNAVAILABLE, NULL, why);
    return false;
}

void pg_elevated_end(struct pg *p)
{
    if (p->elevated != NULL) {
        pg_upstream_close(p->elevated, true);
        cs_free(p->elevated);
        p->elevated = NULL;
        p->elevated_over = false;
        p->elevated_simple = false;
    }
}

/* ---- the statement there ---- */

struct preparing {
    struct pg *p;
    const struct pg_statement *st;
    struct pg_told told; /* as this connection describes it */
    uint64_t deadline;
    const char *why;      /* a literal: what went wrong */
    struct cs_buf *error; /* the target's own, whole, when it refused */
    bool parsed, described;
};

/* Parse with the client's own types under the same name; and, when the client was told what the
 * statement gives, the same question here. */
static bool send_parse(struct preparing *r)
{
    const struct pg_statement *st = r->st;
    struct cs_stream *to = &r->p->elevated->stream;
    struct cs_buf b = cs_buf(CS_LIMIT_PG_QUERY_BYTES + 8192);
    pg_put_parse(&b, st);
    if (st->told.any || st->told.beyond) {
        size_t at = pg_begin(&b, 'D');
        cs_buf_u8(&b, 'S');
        pg_put_cstr(&b, cs_slice_str(st->name));
        pg_finish(&b, at);
    } else {
        r->described = true;
    }
    cs_buf_add(&b, cs_slice("H\0\0\0\4", 5));
    bool ok = !b.bad && cs_stream_write(to, cs_buf_slice(&b), r->deadline) == CS_OK &&
              cs_stream_drain(to, r->deadline) == CS_OK;
    cs_buf_done(&b);
    r->why = "the connection broke while the statement was prepared";
    return ok;
}

static bool refused(struct preparing *r, const struct pg_frame *f)
{
    struct pg_error e;
    r->why = "the target ended the connection";
    if (pg_parse_error(f->body, &e) && !cs_slice_eq_str(e.severity, "FATAL") &&
        !cs_slice_eq_str(e.severity, "PANIC")) {
        /* In the client's own terms: exactly what the target said. */
        cs_buf_add(r->error,
                   cs_slice_head(cs_stream_peek(&r->p->elevated->stream), (size_t)f->total));
    }
    return false;
}

/* False: that was the end of it. */
static bool preparing_message(struct preparing *r, const struct pg_frame *f)
{
    struct cs_slice name, value;
    r->why = "the target broke the protocol while the statement was prepared";
    switch (f->type) {
    case '1':
        r->parsed = !r->parsed;
        return r->parsed;
    case 't':
    case 'T':
    case 'n':
        if (!r->parsed || r->described) {
            return false;
        }
        pg_told_add(&r->told, f);
        r->described = f->type != 't';
        return true;
    case 'E':
        return refused(r, f);
    case 'S':
        return pg_parse_parameter(f->body, &name, &value) && pg_pin_check(r->p, name, value, true);
    case 'N':
        return true;
    default:
        return false;
    }
}

static bool read_answers(struct preparing *r)
{
    struct cs_stream *from = &r->p->elevated->stream;
    size_t need = 5;
    while (!r->parsed || !r->described) {
        struct pg_frame f;
        enum cs_err e =
            cs_mono_ns() > r->deadline ? CS_ERR_TIMEOUT : cs_stream_need(from, need, r->deadline);
        if (e != CS_OK) {
            r->why = e == CS_ERR_TIMEOUT ? "the target did not answer while it was prepared"
                                         : "the connection broke while the statement was prepared";
            return false;
        }
        enum pg_frame_result got = pg_frame_next(cs_stream_peek(from), false, &f);
        bool whole = got == PG_FRAME_OK && f.total <= CS_LIMIT_PG_SERVER_CONTROL_BYTES;
        if (got == PG_FRAME_BAD || (got == PG_FRAME_OK && !whole)) {
            r->why = "the target broke the protocol while the statement was prepared";
            return false;
        }
        if (got == PG_FRAME_NEED || f.body.n != f.total - 5) {
            need = f.total;
            continue;
        }
        if (!preparing_message(r, &f)) {
            return false;
        }
        cs_stream_consume(from, f.total);
        need = 5;
    }
    return true;
}

bool pg_elevated_prepare(struct pg *p, const struct pg_statement *st, struct cs_verdict *v,
                         struct cs_buf *ret_error)
{
    struct preparing r = {.p = p,
                          .st = st,
                          .deadline = cs_mono_ns() + CS_LIMIT_UPSTREAM_LOGIN_S * CS_NS_PER_S,
                          .error = ret_error};
    bool ok = send_parse(&r) && read_answers(&r);
    bool same = !ok || (!st->told.any && !st->told.beyond) || same_told(&st->told, &r.told);
    if (ok && same) {
        return still_wanted(p, v);
    }
    if (ret_error->len > 0 && !ret_error->bad) {
        struct pg_error e;
        (void)pg_parse_error(cs_slice_from(cs_buf_slice(ret_error), 5), &e);
        if (st->class == NULL || st->class->n_secrets > 0) {
            e.message = cs_slice_str(cs_redact_withheld);
        }
        pg_nothing_ran(p, v, CS_RAN_FAILED, CS_REFUSAL_VOID, &e, "the target refused it");
    } else if (ok) {
        /* SECURITY: the client would read the rows of one table by the description of another, and
         * what was approved was asked for with that description in view. */
        pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_VOID, NULL,
                       "its parameters or result are not what the client was told");
    } else {
        pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_UNAVAILABLE, NULL, r.why);
    }
    pg_elevated_end(p);
    return false;
}
