/* The client's messages: each one that can do something becomes an action, gets its verdict, and is
 * forwarded, held or refused. No byte of a message goes to the target before its verdict; a run of
 * messages with one fate leaves in one write. Called by relay.c; simple.c, extended.c and call.c
 * judge. */
#include "proto/postgres/frontend.h"

static enum pg_act on_sync(struct pg *p)
{
    if (p->copy_in) {
        return PG_DONE; /* the target ignores it, and owes no answer */
    }
    if (pg_push(p, PG_REPLY_SYNC) == NULL) {
        return PG_STOP;
    }
    p->skipping = false;
    p->group_open = p->group_ran = false;
    /* An elevated connection ends with this group: nothing else may follow it there. */
    p->elevated_simple = p->elevated != NULL;
    return PG_PASS;
}

static bool copy_may_begin(struct pg *p)
{
    for (uint32_t i = 0; i < p->replies.count && !p->skipping; i++) {
        enum pg_reply_kind k = pg_replies_at(&p->replies, i)->kind;
        if (k == PG_REPLY_QUERY || k == PG_REPLY_EXECUTE) {
            return true;
        }
    }
    return false;
}

static enum pg_act on_copy(struct pg *p, struct pg_batch *b, const struct pg_frame *f)
{
    /* While an answer is owed the target may be about to say CopyInResponse: ask for the answers,
     * which it would keep to itself in a group without its Sync, and see. */
    if (!p->copy_in && copy_may_begin(p) && (!pg_pass(p, b) || !pg_settle_or_copy(p))) {
        return PG_STOP;
    }
    if (!p->copy_in) {
        return PG_DONE; /* behind a COPY that failed the client still sends: the target ignores it
                         */
    }
    if (f->type != 'd') {
        p->copy_in = false; /* CopyDone, CopyFail */
        return PG_PASS;
    }
    pg_record(p, pg_replies_head(&p->replies), true, cs_slice(f->body.p - 5, f->body.n + 5));
    p->records_client_skip = true;
    return p->lost ? PG_STOP : PG_PASS;
}

/* On an elevated connection only the approved statement runs: its portal, and its COPY data. */
static bool fits_elevated(struct pg *p, uint8_t type)
{
    const char *fine = p->elevated_simple ? "dcfX" : "EDCHSXdcfPB"; /* P and B are refused there */
    return p->elevated == NULL || strchr(fine, type) != NULL;
}

static enum pg_act frontend_message(struct pg *p, struct pg_batch *b, const struct pg_frame *f)
{
    if (!fits_elevated(p, f->type)) {
        return pg_violation(p, "a message that does not belong to the approved statement");
    }
    if (p->skipping && f->type != 'S' && f->type != 'X') {
        return PG_DONE; /* as the target does until the next Sync */
    }
    if (p->copying != NULL) {
        return pg_copy_message(p, f);
    }
    switch (f->type) {
    case 'Q':
        return pg_on_query(p, b, f);
    case 'P':
        return pg_on_parse(p, b, f);
    case 'B':
        return pg_on_bind(p, b, f);
    case 'E':
        return pg_on_execute(p, b, f);
    case 'D':
    case 'C':
        return pg_on_describe_or_close(p, b, f);
    case 'S':
        return on_sync(p);
    case 'H':
        return PG_PASS;
    case 'F':
        return pg_on_call(p, b, f);
    case 'd':
    case 'c':
    case 'f':
        return on_copy(p, b, f);
    case 'X':
        pg_end(p, "the client ended it");
        return PG_STOP;
    default:
        return pg_violation(p, "a message out of turn");
    }
}

/* ---- the batch ---- */

enum step {
    BLOCK = 0, /* something else must happen first, or the session ends */
    NEXT,
    NEED, /* the rest of the message has not come */
};

static enum step skip_on(struct pg *p, struct pg_batch *b)
{
    uint32_t n = (uint32_t)CS_MIN((size_t)p->client_skip, b->in.n - b->at);
    if (p->records_client_skip) {
        pg_record(p, NULL, true, cs_slice(b->in.p + b->at, n));
    }
    if (!pg_copy_add(p, cs_slice(b->in.p + b->at, n))) {
        return BLOCK;
    }
    p->client_skip -= n;
    b->at += n;
    if (!p->skip_passes) {
        b->pass_from = b->at;
    }
    return p->client_skip == 0 ? NEXT : NEED;
}

static enum step one(struct pg *p, struct pg_batch *b)
{
    struct pg_frame f;
    if (p->client_skip > 0) {
        return skip_on(p, b);
    }
    if ((p->elevated_simple && !p->copy_in) || p->replies.count >= CS_LIMIT_PG_PIPELINE) {
        return BLOCK;
    }
    enum pg_frame_result got = pg_frame_next(cs_slice_from(b->in, b->at), true, &f);
    if (got == PG_FRAME_BAD) {
        (void)pg_violation(p, "an unknown or oversize message");
        return BLOCK;
    }
    if (got == PG_FRAME_NEED) {
        p->big_need = f.total > CS_IOBUF ? f.total : 0;
        return NEED;
    }
    p->records_client_skip = false;
    enum pg_act act = frontend_message(p, b, &f);
    if (act == PG_STOP || p->ending || (act == PG_DONE && !pg_pass(p, b))) {
        return BLOCK;
    }
    size_t here = CS_MIN((size_t)f.total, b->in.n - b->at);
    b->at += here;
    p->client_skip = f.total - (uint32_t)here;
    p->skip_passes = act == PG_PASS;
    if (act == PG_DONE) {
        b->pass_from = b->at;
    }
    b->last = f.type;
    b->judged += f.type == 'Q' || f.type == 'P' || f.type == 'B' || f.type == 'F';
    return NEXT;
}

/* A message larger than a stream buffer is put together on the heap, up to its limit. */
static bool big_message(struct pg *p)
{
    struct cs_stream *c = &p->s->client;
    struct cs_slice in = cs_slice_head(cs_stream_peek(c), p->big_need - p->big.len);
    cs_buf_add(&p->big, in);
    cs_stream_consume(c, in.n);
    if (p->big.bad) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
        return false;
    }
    if (p->big.len < p->big_need) {
        return true;
    }
    if (!pg_settle(p)) { /* the target must be able to take it without waiting for us */
        return false;
    }
    struct pg_batch b = {.in = cs_buf_slice(&p->big)};
    (void)one(p, &b);
    bool ok = !p->ending && pg_pass(p, &b);
    cs_buf_done(&p->big);
    p->big_need = 0;
    return ok;
}

/* Others run between two messages, and only once what has its verdict has left: a verdict is of the
 * state in which it is sent. Who asks one thing at a time, in however many messages, does not even
 * look at the clock. */
static bool may_stop(const struct pg_batch *b)
{
    return b->judged >= 3 || (b->judged > 0 && (b->last == 'S' || b->last == 'Q'));
}

/* Handles what is in the buffer. */
static enum step batch_run(struct pg *p)
{
    struct cs_stream *c = &p->s->client;
    struct pg_batch b = {.in = cs_stream_peek(c)};
    enum step step = NEED;
    while (b.at < b.in.n && (step = one(p, &b)) == NEXT) {
        if (b.at < b.in.n && may_stop(&b) && cs_co_spent()) {
            p->more = true;
            break;
        }
    }
    if (!p->ending && pg_pass(p, &b) && p->group_open && p->replies.count >= CS_LIMIT_PG_PIPELINE) {
        /* The client is not read until answers come, and without its Sync the target keeps them to
         * itself: both sides would wait for ever. */
        (void)pg_to_server(p, cs_slice("H\0\0\0\4", 5));
    }
    cs_stream_consume(c, b.at);
    return step;
}

static bool refill(struct pg *p)
{
    switch (cs_stream_fill(&p->s->client)) {
    case CS_IO_OK:
        return true;
    case CS_IO_EOF:
        pg_end(p, "the client closed the connection");
        return false;
    case CS_IO_AGAIN:
    case CS_IO_FULL:
        return false;
    case CS_IO_ERR:
    default:
        pg_end(p, "the client's connection broke");
        return false;
    }
}

void pg_frontend(struct pg *p)
{
    p->blocked = false;
    for (unsigned n = 0; !p->ending && cs_stream_queued(&pg_now(p)->stream) == 0; n++) {
        if (n == PG_TURN_BATCHES) {
            p->more = true;
            return;
        }
        if (p->big_need > 0) {
            if (!big_message(p) || (p->big_need > 0 && !refill(p))) {
                return;
            }
            continue;
        }
        enum step step = batch_run(p);
        if (p->ending) {
            return;
        }
        if (step == BLOCK) {
            p->blocked = true;
            return;
        }
        if (p->more) {
            return;
        }
        if (p->big_need == 0 && !refill(p)) {
            return;
        }
    }
}
