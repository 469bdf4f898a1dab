/* A constant query on a connection that is logged in, and what comes back, as a table of text
 * cells. Called by task.c. The server may be hostile: every message has a size that is checked
 * before it is read, rows and bytes have limits, all of it has the task's deadline, and whoever
 * sends without end has to let others run in between. A row's content is copied, never looked at.
 */
#include "probe/probe.h"

#include "base/limits.h"
#include "base/time.h"
#include "proto/postgres/login.h"
#include "proto/postgres/message.h"

#include <stdio.h>

enum { MESSAGES = 1000000, OID_TEXT = 25 };

struct answer { /* what has come of the present query */
    struct cs_rows_writer w;
    struct cs_buf *out;
    const struct cs_probe_query *q; /* NULL: only its end matters */
    bool table, refused, complete, over, suspended, ready;
};

static enum cs_err fail(struct cs_probe_task_run *t, enum cs_err e, const char *text)
{
    (void)snprintf(t->why, sizeof t->why, "target \"%.*s\": %s",
                   CS_SLICE_FMT(cs_slice_head(t->task.target, 60)), text);
    return e;
}

static enum cs_err send_all(struct cs_probe_task_run *t, struct cs_buf *b)
{
    enum cs_err e =
        b->bad ? CS_ERR_NO_MEMORY : cs_stream_write(&t->stream, cs_buf_slice(b), t->deadline);
    cs_buf_done(b);
    if (e == CS_OK) {
        e = cs_stream_drain(&t->stream, t->deadline);
    }
    return e == CS_OK ? CS_OK : fail(t, e, "the connection broke");
}

/* The next message, whole; the caller consumes it. */
static enum cs_err next_message(struct cs_probe_task_run *t, struct pg_frame *f)
{
    size_t need = 5;
    for (;;) {
        enum cs_err e = cs_stream_need(&t->stream, need, t->deadline);
        if (e != CS_OK) {
            return fail(t, e, e == CS_ERR_TIMEOUT ? "it does not answer" : "the connection broke");
        }
        enum pg_frame_result got = pg_frame_next(cs_stream_peek(&t->stream), false, f);
        if (got == PG_FRAME_BAD) {
            return fail(t, CS_ERR_PROTOCOL, "it does not speak the PostgreSQL protocol");
        }
        if (f->total > CS_LIMIT_PG_SERVER_CONTROL_BYTES) {
            return fail(t, CS_ERR_TOO_LARGE,
                        "its answer has a row that is larger than is taken in");
        }
        if (got == PG_FRAME_OK && f->body.n == f->total - 5) {
            return CS_OK;
        }
        need = f->total;
        if (!cs_co_yield() || cs_mono_ns() > t->deadline) { /* one that sends without end */
            return fail(t, CS_ERR_TIMEOUT, "it took too long");
        }
    }
}

/* ---- single messages ---- */

static enum cs_err on_columns(struct cs_probe_task_run *t, struct answer *a, struct cs_slice body)
{
    struct cs_reader r = cs_reader(body);
    uint16_t n = cs_reader_u16(&r);
    if (r.bad || a->q == NULL || a->table || n == 0 || n > CS_ROWS_COLUMNS) {
        return fail(t, CS_ERR_PROTOCOL, "its answer has other columns than were asked for");
    }
    a->table = true;
    cs_rows_table(&a->w, a->out, a->q->name, n);
    return CS_OK;
}

/* Cells are copied when the whole row is known to be sound: a table never has half a row. */
static enum cs_err on_row(struct cs_probe_task_run *t, struct answer *a, struct cs_slice body)
{
    struct cs_slice cells[CS_ROWS_COLUMNS];
    struct cs_reader r = cs_reader(body);
    uint16_t n = cs_reader_u16(&r);
    if (r.bad || !a->table || n != a->w.columns || a->complete || a->suspended || a->over) {
        return fail(t, CS_ERR_PROTOCOL, "it sends rows that were not asked for");
    }
    for (uint16_t i = 0; i < n; i++) {
        uint32_t len = cs_reader_u32(&r);
        cells[i] = len == UINT32_MAX ? CS_SLICE_NULL : cs_reader_take(&r, len);
        if (len == 0) {
            cells[i] = cs_slice_str("");
        }
    }
    if (!cs_reader_done(&r)) {
        return fail(t, CS_ERR_PROTOCOL, "it sends malformed rows");
    }
    if (a->w.rows == a->q->max_rows) { /* the one that says that there are more */
        a->over = true;
        return CS_OK;
    }
    for (uint16_t i = 0; i < n; i++) {
        cs_rows_cell(&a->w, cells[i]);
    }
    cs_rows_end_row(&a->w);
    return a->out->bad ? fail(t, CS_ERR_TOO_LARGE, "its answers are larger than is taken in")
                       : CS_OK;
}

static enum cs_err on_error(struct cs_probe_task_run *t, struct answer *a, struct cs_slice body)
{
    struct pg_error err;
    char why[CS_ROWS_WHY];
    if (!pg_parse_error(body, &err) || a->refused || a->complete) {
        return fail(t, CS_ERR_PROTOCOL, "it sent a malformed error");
    }
    a->refused = true;
    (void)snprintf(why, sizeof why, "%.5s %.*s",
                   err.sqlstate.n == 5 ? (const char *)err.sqlstate.p : "?????",
                   CS_SLICE_FMT(cs_slice_head(err.message, 200)));
    if (a->q == NULL) {
        return fail(t, CS_ERR_REFUSED, why);
    }
    /* Rows that came before it stay behind in a table marked as failed, which has none. */
    if (a->table) {
        a->out->len = a->w.at_table;
        a->table = false;
    }
    cs_rows_failed(a->out, a->q->name, cs_slice_str(why));
    return CS_OK;
}

static bool pinned(struct cs_slice body)
{
    struct cs_slice name, value;
    if (!pg_parse_parameter(body, &name, &value)) {
        return false;
    }
    return !(cs_slice_eq_str(name, "client_encoding") && !cs_slice_eq_str(value, "UTF8")) &&
           !(cs_slice_eq_str(name, "default_transaction_read_only") &&
             !cs_slice_eq_str(value, "on"));
}

static enum cs_err on_message(struct cs_probe_task_run *t, struct answer *a,
                              const struct pg_frame *f)
{
    switch (f->type) {
    case '1':
    case '2':
    case 'N':
    case 'A':
        return CS_OK;
    case 'S':
        return pinned(f->body) ? CS_OK
                               : fail(t, CS_ERR_PROTOCOL, "a pinned setting changed under it");
    case 'T':
        return on_columns(t, a, f->body);
    case 'D':
        return on_row(t, a, f->body);
    case 'C':
        a->complete = true;
        return CS_OK;
    case 's':
        a->suspended = true;
        return CS_OK;
    case 'E':
        return on_error(t, a, f->body);
    case 'Z':
        a->ready = true;
        return CS_OK;
    default: /* COPY, more results … */
        return fail(t, CS_ERR_PROTOCOL, "it sent an answer that does not fit the question");
    }
}

static enum cs_err until_ready(struct cs_probe_task_run *t, struct answer *a)
{
    for (unsigned i = 0; i < MESSAGES && !a->ready; i++) {
        struct pg_frame f;
        enum cs_err e = next_message(t, &f);
        if (e == CS_OK) {
            e = on_message(t, a, &f);
        }
        if (e != CS_OK) {
            return e;
        }
        cs_stream_consume(&t->stream, f.total);
    }
    return a->ready ? CS_OK : fail(t, CS_ERR_LIMIT, "it sends without end");
}

/* ---- asking ---- */

static enum cs_err simple(struct cs_probe_task_run *t, const char *sql)
{
    struct answer a = {.q = NULL};
    struct cs_buf b = cs_buf(256);
    size_t at = pg_begin(&b, 'Q');
    pg_put_cstr(&b, cs_slice_str(sql));
    pg_finish(&b, at);
    enum cs_err e = send_all(t, &b);
    return e == CS_OK ? until_ready(t, &a) : e;
}

enum cs_err cs_probe_begin(struct cs_probe_task_run *t)
{
    return simple(t, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY");
}

void cs_probe_rollback(struct cs_probe_task_run *t)
{
    char kept[sizeof t->why];
    memcpy(kept, t->why, sizeof kept);
    if (t->stream.err == CS_OK && !t->stream.eof && simple(t, "ROLLBACK") == CS_OK) {
        struct cs_buf b = cs_buf(16);
        size_t at = pg_begin(&b, 'X');
        pg_finish(&b, at);
        (void)send_all(t, &b);
    }
    memcpy(t->why, kept, sizeof kept);
}

static void put_parameter(struct cs_buf *b, struct cs_slice s)
{
    pg_put_u32(b, (uint32_t)s.n);
    cs_buf_add(b, s);
}

/* Parse, Bind, Describe, Execute with the row limit, Sync: the limit is also the server's. */
static enum cs_err ask(struct cs_probe_task_run *t, const struct cs_probe_query *q)
{
    const struct cs_slice parameters[] = {t->task.everyday, t->task.elevated, t->task.names};
    struct cs_buf b = cs_buf(CS_LIMIT_IPC_BLOB_BYTES);
    size_t at = pg_begin(&b, 'P');
    pg_put_cstr(&b, CS_SLICE_NULL);
    pg_put_cstr(&b, cs_slice_str(q->sql));
    pg_put_u16(&b, CS_ARRAY_LEN(parameters));
    for (size_t i = 0; i < CS_ARRAY_LEN(parameters); i++) {
        pg_put_u32(&b, OID_TEXT);
    }
    pg_finish(&b, at);
    at = pg_begin(&b, 'B');
    pg_put_cstr(&b, CS_SLICE_NULL);
    pg_put_cstr(&b, CS_SLICE_NULL);
    pg_put_u16(&b, 0);
    pg_put_u16(&b, CS_ARRAY_LEN(parameters));
    for (size_t i = 0; i < CS_ARRAY_LEN(parameters); i++) {
        put_parameter(&b, parameters[i]);
    }
    pg_put_u16(&b, 0);
    pg_finish(&b, at);
    at = pg_begin(&b, 'D');
    cs_buf_u8(&b, 'P');
    pg_put_cstr(&b, CS_SLICE_NULL);
    pg_finish(&b, at);
    at = pg_begin(&b, 'E');
    pg_put_cstr(&b, CS_SLICE_NULL);
    pg_put_u32(&b, q->max_rows + 1);
    pg_finish(&b, at);
    at = pg_begin(&b, 'S');
    pg_finish(&b, at);
    return send_all(t, &b);
}

enum cs_err cs_probe_query(struct cs_probe_task_run *t, const struct cs_probe_query *q,
                           struct cs_buf *out)
{
    struct answer a = {.q = q, .out = out};
    enum cs_err e = ask(t, q);
    if (e == CS_OK) {
        e = until_ready(t, &a);
    }
    if (e != CS_OK) {
        return e; /* the whole result is void */
    }
    if (a.refused) {
        e = simple(t, "ROLLBACK"); /* an error ends a transaction: another one for the next */
        return e == CS_OK ? cs_probe_begin(t) : e;
    }
    if (!a.table || a.complete == a.suspended || a.suspended != a.over) {
        return fail(t, CS_ERR_PROTOCOL, "its answer has no end");
    }
    cs_rows_end(&a.w, a.over ? CS_ROWS_CUT : CS_ROWS_COMPLETE);
    return CS_OK;
}
