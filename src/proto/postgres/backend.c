/* The target's messages: matched with what was asked, counted for the record, relayed. The target
 * is hostile input too: a message that answers nothing ends the session. */
#include "base/log.h"
#include "proto/postgres/postgres_internal.h"

#include <stdio.h>

enum act { PASS, DROP, REPLACED };
enum { BREATHE_EACH = 64 }; /* messages of a few bytes */

/* ---- results ---- */

static void result(struct pg *p, struct pg_reply *r, bool ok, const struct pg_error *e)
{
    struct cs_result res = {.ok = ok,
                            .rows = p->rows,
                            .bytes = p->bytes,
                            .tag = cs_slice(p->tag, p->tag_n),
                            .strict = r->strict};
    if (e != NULL) {
        res.sqlstate = cs_slice_head(e->sqlstate, 5);
        res.message = cs_slice_head(e->message, 1000);
    }
    if (r->n > 0 && r->n != p->reported) {
        p->reported = r->n;
        if (!pg_record_result(p, r->n, &res) && !p->lost) {
            /* The answer would go unrecorded: what cannot be recorded ends the session. */
            cs_log(CS_EV_RECORD_FAILED, &p->s->id, "frame=result");
            pg_end(p, "the record cannot be written");
            p->unrecorded = true; /* said last, behind what is on its way to the client */
        }
    }
    r->n = 0;
    if (r->granted) {
        cs_gate_executed(p->s, &r->grant, ok ? CS_RAN_OK : CS_RAN_FAILED,
                         ok ? res.tag : res.message);
        r->granted = false;
    }
    p->rows = p->bytes = 0;
    p->tag_n = 0;
}

static bool is(const struct pg_reply *r, enum pg_reply_kind kind)
{
    return r != NULL && r->kind == kind;
}

static void out_of_turn(struct pg *p, uint8_t type)
{
    cs_log(CS_EV_PROTOCOL_ERROR, &p->s->id, "the target sent 0x%02x out of turn", type);
    cs_gate_note(p->s, "the target sent message 0x%02x out of turn", type);
    pg_fatal(p, "08P01", "the target broke the protocol");
    pg_end(p, "the target broke the protocol");
}

/* ---- single messages ---- */

static enum act command_complete(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    bool query = is(r, PG_REPLY_QUERY);
    if (!query && !is(r, PG_REPLY_EXECUTE)) {
        out_of_turn(p, f->type);
        return DROP;
    }
    if (f->type == 'C') {
        struct cs_slice tag = cs_slice_head(f->body, cs_slice_find(f->body, 0));
        p->tag_n = (uint16_t)CS_MIN(tag.n, sizeof p->tag);
        memcpy(p->tag, tag.p, p->tag_n);
    }
    p->copy_in = false;
    if (r->class != NULL && p->elevated == NULL) { /* its names live and die on that connection */
        if (r->doubted) {
            pg_names_stale_all(p);
        } else {
            pg_names_after(p, r->class, r->text != NULL ? r->text : "", r->what);
        }
        r->what = r->what < UINT8_MAX ? (uint8_t)(r->what + 1) : r->what;
    }
    if (query) {
        return r->swallow ? DROP : PASS; /* its end is ReadyForQuery */
    }
    struct pg_portal *po = pg_portal_find(p, cs_slice_str(r->name != NULL ? r->name : ""));
    if (po != NULL) {
        po->suspended = f->type == 's';
    }
    result(p, r, true, NULL);
    pg_replies_pop(p);
    return PASS;
}

/* After an error in the extended protocol the target skips everything up to the next Sync, simple
 * queries included. */
static void skip_to_sync(struct pg *p, const struct pg_error *e)
{
    while (p->replies.count > 0 && !is(pg_replies_head(&p->replies), PG_REPLY_SYNC)) {
        struct pg_reply *r = pg_replies_head(&p->replies);
        if (r->n > 0 || r->granted) {
            result(p, r, false, e); /* what was skipped behind the error failed with it */
        }
        pg_replies_pop(p);
    }
    p->skipping = p->replies.count == 0;
}

/* SECURITY: the target's words may repeat a piece of the text, and of what was sent before it: a
 * password without its quotes is a syntax error "at or near" it. */
static void withhold(struct pg *p, struct pg_error *e)
{
    for (uint32_t i = 0; i < p->replies.count; i++) {
        if (pg_replies_at(&p->replies, i)->redacted) {
            e->message = cs_slice_str(cs_redact_withheld);
            return;
        }
    }
}

static enum act error_response(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    struct pg_error e;
    enum act act = PASS;
    if (!pg_parse_error(f->body, &e)) {
        out_of_turn(p, f->type);
        return DROP;
    }
    if (cs_slice_eq_str(e.severity, "FATAL") || cs_slice_eq_str(e.severity, "PANIC")) {
        pg_end(p, "the target ended the connection");
        return PASS;
    }
    if (r == NULL) {
        out_of_turn(p, f->type);
        return DROP;
    }
    p->copy_in = false;
    p->telling = (struct pg_told){0};
    withhold(p, &e);
    if (r->denial != NULL) {
        if (!pg_to_client(p, cs_buf_slice(r->denial))) {
            return DROP;
        }
        act = REPLACED;
    } else {
        result(p, r, false, &e);
        act = r->swallow && r->kind == PG_REPLY_SYNC ? DROP : PASS;
    }
    if (r->class != NULL && p->elevated == NULL && (r->doubted || !pg_names_follow(r->class))) {
        pg_names_stale_all(p); /* prepared names survive an error and a rollback */
    }
    if (r->kind != PG_REPLY_QUERY) {
        skip_to_sync(p, &e);
    } else if (r->class != NULL) { /* the rest of its statements did not run */
        cs_sql_release(cs_gate_sql(p->s->gate), r->class);
        r->class = NULL;
    }
    return act;
}

static enum act ready(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    struct pg_upstream *u = pg_now(p);
    if (f->body.n != 1 || (!is(r, PG_REPLY_QUERY) && !is(r, PG_REPLY_SYNC))) {
        out_of_turn(p, f->type);
        return DROP;
    }
    u->tx = f->body.p[0];
    bool swallow = r->swallow;
    if (is(r, PG_REPLY_QUERY) && (r->n > 0 || r->granted)) {
        result(p, r, true, NULL);
    }
    pg_replies_pop(p);
    p->copy_in = false;
    p->elevated_over = p->elevated != NULL;
    p->unsettled = p->unsettled && (p->replies.count > 0 || p->elevated != NULL);
    if (u->tx == 'I') {
        if (p->replies.count == 0) { /* else it belongs to what was sent behind */
            p->ran.len = 0;
            pg_cursors_done(p);
            cs_gate_defined(p->s);
        }
        pg_portals_drop_all(p);
    }
    return swallow ? DROP : PASS;
}

static enum act simple_answer(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    bool swallow = r != NULL && r->swallow;
    if (f->type == '1' && is(r, PG_REPLY_PARSE)) {
        struct pg_statement *st = r->statement;
        r->statement = NULL;
        if (st != NULL && (p->elevated != NULL || !pg_names_set(p, st))) {
            pg_statement_unref(p, st); /* unknown from now on, and unknown is refused */
        }
    } else if (f->type == '2' && is(r, PG_REPLY_BIND)) {
        if (r->portal != NULL) {
            pg_portals_set(p, r->portal);
            r->portal = NULL;
        }
    } else if (f->type == '3' && is(r, PG_REPLY_CLOSE)) {
        struct cs_slice name = cs_slice_str(r->name != NULL ? r->name : "");
        if (r->what == 'S') {
            if (p->elevated == NULL && !swallow) { /* ours is followed by a Parse, which may fail */
                pg_names_drop(p, name);
            }
        } else {
            pg_portals_drop(p, name);
        }
    } else {
        out_of_turn(p, f->type);
        return DROP;
    }
    pg_replies_pop(p);
    return swallow ? DROP : PASS;
}

/* Into the record, with all that follows of this message. */
static enum act recorded(struct pg *p, const struct pg_reply *r, const struct pg_frame *f)
{
    const uint8_t *from = f->body.p - 5;
    pg_record(p, r, false, cs_slice(from, f->body.n + 5));
    p->records_skip = true;
    return p->lost ? DROP : PASS;
}

static enum act row_shape(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    if (is(r, PG_REPLY_DESCRIBE)) {
        if (r->statement != NULL) {
            pg_told_add(&p->telling, f);
        }
        if (f->type == 'T' && r->of > 0) { /* of a portal: read with what it gives */
            (void)recorded(p, r, f);
        }
        if (f->type != 't') {
            if (r->statement != NULL) {
                r->statement->told = p->telling;
            }
            p->telling = (struct pg_told){0}; /* T or n ends it; t comes before */
            pg_replies_pop(p);
        }
        return p->lost ? DROP : PASS;
    }
    if (f->type == 'T' && is(r, PG_REPLY_QUERY)) {
        return recorded(p, r, f);
    }
    out_of_turn(p, f->type);
    return DROP;
}

static enum act rows(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    if (!is(r, PG_REPLY_QUERY) && !is(r, PG_REPLY_EXECUTE)) {
        out_of_turn(p, f->type);
        return DROP;
    }
    p->rows++;
    p->bytes += f->total;
    return recorded(p, r, f);
}

static enum act call_result(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    if (!is(r, PG_REPLY_QUERY) || !r->call) {
        out_of_turn(p, f->type);
        return DROP;
    }
    r->call = false; /* one, and then ReadyForQuery */
    p->rows++;
    p->bytes += f->total;
    return recorded(p, r, f);
}

/* CopyInResponse: the client sends data now. Sync messages that are already behind an Execute are
 * ignored by the target while it copies, so no answer is owed for them. */
static enum act copy_in(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    if (!is(r, PG_REPLY_QUERY) && !is(r, PG_REPLY_EXECUTE)) {
        out_of_turn(p, f->type);
        return DROP;
    }
    if (!pg_copy_expected(p, r, f->body)) {
        /* SECURITY: by a grant runs what was signed, and nobody has signed this data. */
        cs_gate_note(p->s, "the target asked for data that was not approved: refused");
        struct cs_buf b = cs_buf(128);
        size_t at = pg_begin(&b, 'f');
        pg_put_cstr(&b, CS_SLICE_LIT("Countersign: this data was not part of what was approved"));
        pg_finish(&b, at);
        if (b.bad || !pg_to_server(p, cs_buf_slice(&b))) {
            pg_end(p, "the target asked for data that was not approved");
        }
        cs_buf_done(&b);
        return DROP;
    }
    while (p->replies.count > 1) {
        if (pg_replies_at(&p->replies, p->replies.count - 1)->kind != PG_REPLY_SYNC) {
            pg_fatal(p, "08P01", "messages behind a COPY FROM STDIN");
            pg_end(p, "protocol error: messages behind a COPY FROM STDIN");
            return DROP;
        }
        p->replies.count--; /* a Sync entry owns nothing */
        p->group_open = r->kind == PG_REPLY_EXECUTE;
    }
    p->copy_in = true;
    return r->copy == PG_COPY_COVERED ? DROP : PASS;
}

/* CopyBothResponse: from now on both sides send, until both have said CopyDone. */
static enum act copy_both(struct pg *p, const struct pg_frame *f)
{
    struct pg_reply *r = pg_replies_head(&p->replies);
    if (!is(r, PG_REPLY_QUERY) || r->copy != PG_COPY_BOTH || p->replies.count > 1) {
        out_of_turn(p, f->type);
        return DROP;
    }
    p->copy_in = true;
    return PASS;
}

static enum act parameter_status(struct pg *p, const struct pg_frame *f)
{
    struct cs_slice name, value;
    bool elevated = p->elevated != NULL;
    if (!pg_parse_parameter(f->body, &name, &value)) {
        out_of_turn(p, f->type);
        return DROP;
    }
    if (!pg_pin_check(p, name, value, elevated)) {
        /* A tripwire: the classifier's assumptions no longer hold at the target. */
        cs_log(CS_EV_PROTOCOL_ERROR, &p->s->id, "pinned setting %s became %s",
               cs_log_quote(name).text, cs_log_quote(value).text);
        cs_gate_note(p->s, "a pinned setting changed; the session was ended");
        pg_fatal(p, "57P01", "a setting that Countersign pins was changed; the session ends");
        pg_end(p, "a pinned setting changed");
        return DROP;
    }
    return elevated ? DROP : PASS;
}

/* A client knows its own notifications by the process id, and the one that it was told is ours. */
static enum act notification(struct pg *p, const struct pg_frame *f)
{
    struct cs_reader r = cs_reader(f->body);
    uint8_t key[8];
    if (cs_reader_u32(&r) != p->up.pid || f->body.n < 4) {
        return PASS;
    }
    cs_gate_cancel_key(p->s, key);
    struct cs_buf b = cs_buf(CS_LIMIT_PG_SERVER_CONTROL_BYTES + 8);
    size_t at = pg_begin(&b, 'A');
    cs_buf_add(&b, cs_slice(key, 4));
    cs_buf_add(&b, cs_slice_from(f->body, 4));
    pg_finish(&b, at);
    if (b.bad || !pg_to_client(p, cs_buf_slice(&b))) {
        pg_end(p, "a notification could not be passed on");
    }
    cs_buf_done(&b);
    return REPLACED;
}

static enum act backend_message(struct pg *p, const struct pg_frame *f)
{
    switch (f->type) {
    case 'D':
    case 'd':
        return rows(p, f);
    case 'V':
        return call_result(p, f);
    case '1':
    case '2':
    case '3':
        return simple_answer(p, f);
    case 'C':
    case 'I':
    case 's':
        return command_complete(p, f);
    case 'Z':
        return ready(p, f);
    case 'T':
    case 'n':
    case 't':
        return row_shape(p, f);
    case 'E':
        return error_response(p, f);
    case 'S':
        return parameter_status(p, f);
    case 'N':
        return PASS;
    case 'A':
        return notification(p, f);
    case 'G':
        return copy_in(p, f);
    case 'W':
        return copy_both(p, f);
    case 'H':
    case 'c':
        if (is(pg_replies_head(&p->replies), PG_REPLY_QUERY) ||
            is(pg_replies_head(&p->replies), PG_REPLY_EXECUTE)) {
            return PASS;
        }
        break;
    default: /* R K v after login: nothing that we asked for is answered by them */
        break;
    }
    out_of_turn(p, f->type);
    return DROP;
}

/* ---- the batch ---- */

struct batch {
    struct cs_slice in;
    size_t at, pass_from;
};

static bool pass(struct pg *p, struct batch *b)
{
    struct cs_slice range = cs_slice_head(cs_slice_from(b->in, b->pass_from), b->at - b->pass_from);
    b->pass_from = b->at;
    if (!pg_record_flush(p)) {
        return false;
    }
    if (range.n >= CS_LIMIT_PIECE_BYTES) {
        (void)cs_co_breathe(); /* safe where sending is, which may wait */
    }
    return range.n == 0 || pg_to_client(p, range);
}

/* Handles what is in the buffer; false when the batch must end here. */
static bool one(struct pg *p, struct pg_upstream *u, struct batch *b)
{
    struct pg_frame f;
    if (u->skip > 0) {
        uint32_t n = (uint32_t)CS_MIN((size_t)u->skip, b->in.n - b->at);
        if (p->records_skip) {
            pg_record(p, NULL, false, cs_slice(b->in.p + b->at, n));
        }
        u->skip -= n;
        b->at += n;
        return u->skip == 0;
    }
    enum pg_frame_result got = pg_frame_next(cs_slice_from(b->in, b->at), false, &f);
    if (got == PG_FRAME_NEED) {
        return false;
    }
    if (got == PG_FRAME_BAD) {
        out_of_turn(p, b->in.p[b->at]);
        return false;
    }
    if ((f.type == 'T' || f.type == 't') && f.total <= CS_LIMIT_PG_SERVER_CONTROL_BYTES &&
        f.body.n != f.total - 5 && is(pg_replies_head(&p->replies), PG_REPLY_DESCRIBE)) {
        return false; /* a description is looked at whole, if it can be */
    }
    size_t here = CS_MIN((size_t)f.total, b->in.n - b->at);
    p->records_skip = false;
    /* Its own answers go out first, in order: what was passed before must leave before it. */
    bool may_write = f.type == 'E' || f.type == 'S' || f.type == 'G' || f.type == 'A';
    if (may_write && !pass(p, b)) {
        return false;
    }
    enum act act = backend_message(p, &f);
    if (act == PASS) {
        b->at += here;
        u->skip = f.total - (uint32_t)here;
        return true;
    }
    if (!p->ending && !pass(p, b)) {
        return false;
    }
    b->at += here;
    b->pass_from = b->at;
    return !p->ending;
}

/* The messages of a buffer. In the middle of many small ones others run: what stands in the buffer
 * stays there, and nobody but this session's coroutine, which waits here, reads on or sends. */
static void run_batch(struct pg *p, struct pg_upstream *u, struct batch *b)
{
    for (unsigned n = 1; b->at < b->in.n && one(p, u, b); n++) {
        if (p->elevated_over) {
            break; /* its work is over: the rest is not for the client */
        }
        if (n % BREATHE_EACH == 0) {
            (void)cs_co_breathe(); /* cancelled: the next wait says so */
        }
    }
}

void pg_backend(struct pg *p)
{
    for (unsigned n = 0; !p->ending && cs_stream_queued(&p->s->client) == 0; n++) {
        if (n == PG_TURN_BATCHES) {
            p->more = true; /* a fast peer must not keep the other sessions waiting */
            return;
        }
        struct pg_upstream *u = pg_now(p);
        struct batch b = {.in = cs_stream_peek(&u->stream)};
        run_batch(p, u, &b);
        if (b.at > b.pass_from) { /* also when ending: a FATAL of the target is for the client */
            (void)pass(p, &b);
        }
        cs_stream_consume(&u->stream, b.at);
        if (p->ending) {
            return;
        }
        if (p->elevated_over) {
            pg_elevated_end(p);
            return;
        }
        if (b.in.n >= CS_LIMIT_PIECE_BYTES && cs_co_spent()) {
            p->more = true;
            return;
        }
        enum cs_io io = cs_stream_fill(&u->stream);
        if (io == CS_IO_OK) {
            if (!cs_co_spent()) {
                continue;
            }
            p->more = true;
            return;
        }
        if (io != CS_IO_AGAIN) {
            pg_fatal(p, "57P01", "the target closed the connection");
            pg_end(p, "the target closed the connection");
        }
        return;
    }
}
