/* The loop of an open session: one coroutine, both directions. Each side is read only while the
 * other side's queue is empty, so that a slow peer stops its counterpart and nothing piles up.
 * Nothing here looks into messages: frontend.c and backend.c do. */
#include "base/log.h"
#include "proto/postgres/postgres_internal.h"

#define PEER_STUCK_NS (60 * CS_NS_PER_S)
enum { SEND_AT_ONCE = CS_IOBUF / 2 }; /* the kernel takes its time for more */

void pg_end(struct pg *p, const char *why)
{
    if (!p->ending) {
        p->ending = true;
        p->s->end_why = why;
    }
}

void pg_fatal(struct pg *p, const char *sqlstate, const char *message)
{
    if (pg_now(p)->skip > 0) {
        return; /* in the middle of a row: our words would be taken for its last bytes */
    }
    struct cs_buf b = cs_buf(2048);
    pg_put_error(&b, 'E', "FATAL", sqlstate, cs_slice_str(message), CS_SLICE_NULL, CS_SLICE_NULL);
    if (b.bad || cs_stream_queue(&p->s->client, cs_buf_slice(&b)) != CS_OK ||
        cs_stream_drain(&p->s->client, cs_mono_ns() + CS_NS_PER_S) != CS_OK) {
        cs_log(CS_EV_DEBUG, &p->s->id, "a FATAL did not reach the client");
    }
    cs_buf_done(&b);
}

/* Sends all of it, waiting for room as needed, but not past a kill of the session. */
static bool send_all(struct pg *p, struct cs_stream *to, struct cs_slice bytes)
{
    uint64_t deadline = 0;
    while (bytes.n > 0) {
        size_t n = CS_MIN(bytes.n, CS_MIN(cs_stream_room(to), (size_t)SEND_AT_ONCE));
        if (n > 0) {
            if (cs_stream_put(to, cs_slice_head(bytes, n)) != CS_OK) {
                return false;
            }
            bytes = cs_slice_from(bytes, n);
            if (bytes.n > 0) {
                (void)cs_co_breathe(); /* safe where waiting for room is */
            }
            continue;
        }
        struct cs_wait items[2] = {cs_stream_wait_write(to),
                                   CS_WAIT_ON(CS_WAIT_EVENT, &p->s->kill)};
        if (deadline == 0) {
            deadline = cs_mono_ns() + PEER_STUCK_NS;
        }
        if (cs_wait(items, 2, deadline) != CS_WOKE_READY || p->s->kill.set ||
            cs_stream_flush(to) == CS_IO_ERR) {
            return false;
        }
    }
    return true;
}

bool pg_to_client(struct pg *p, struct cs_slice bytes)
{
    if (send_all(p, &p->s->client, bytes)) {
        return true;
    }
    pg_end(p, p->s->kill.set ? "killed" : "the client closed the connection");
    return false;
}

bool pg_to_server(struct pg *p, struct cs_slice bytes)
{
    if (send_all(p, &pg_now(p)->stream, bytes)) {
        return true;
    }
    pg_end(p, p->s->kill.set ? "killed" : "the target closed the connection");
    return false;
}

bool pg_breathe(struct pg *p)
{
    p->more = false;
    if (!cs_co_yield()) {
        pg_end(p, "the gateway stopped");
    } else if (p->s->kill.set) {
        pg_fatal(p, "57P01", p->s->kill_why);
        pg_end(p, "killed");
    } else if (p->s->client.fd.hup && cs_stream_queued(&p->s->client) > 0) {
        pg_end(p, "the client closed the connection");
    }
    return !p->ending;
}

/* The client cancelled what is running: told to the target with its own key, on a connection of its
 * own. Held actions never come here (gate/hold.c). */
static void cancel_running(struct pg *p)
{
    struct pg_upstream *u = pg_now(p);
    struct cs_upstream up;
    struct cs_stream st = {.fd.fd = -1};
    char why[160];
    cs_event_clear(&p->s->cancel);
    pg_copy_cancel(p);
    if (p->replies.count == 0 ||
        cs_gate_connect(p->s, false, NULL, &up, why, sizeof why) != CS_OK) {
        return;
    }
    if (cs_stream_open(cs_gate_loop(p->s->gate), &st, up.fd) != CS_OK) {
        return;
    }
    struct cs_buf b = cs_buf(32);
    uint64_t deadline = cs_mono_ns() + 5 * CS_NS_PER_S;
    pg_put_u32(&b, 16);
    pg_put_u32(&b, PG_CANCEL_REQUEST);
    pg_put_u32(&b, u->pid);
    pg_put_u32(&b, u->secret);
    if (cs_stream_write(&st, cs_buf_slice(&b), deadline) == CS_OK &&
        cs_stream_drain(&st, deadline) == CS_OK) {
        /* The server closes when it has acted. */
        bool acted = cs_stream_need(&st, 1, deadline) == CS_ERR_EOF;
        cs_gate_note(p->s, "the client cancelled the running action%s",
                     acted ? "" : " (no answer)");
    }
    cs_buf_done(&b);
    cs_stream_close(&st);
}

static bool flush_both(struct pg *p)
{
    if (cs_stream_queued(&p->s->client) > 0 && cs_stream_flush(&p->s->client) == CS_IO_ERR) {
        pg_end(p, "the client closed the connection");
    }
    struct cs_stream *u = &pg_now(p)->stream;
    if (cs_stream_queued(u) > 0 && cs_stream_flush(u) == CS_IO_ERR) {
        pg_end(p, "the target closed the connection");
    }
    return !p->ending;
}

/* May more of the client be read now? Not while the target takes no more, nor while too many
 * answers are outstanding. */
static bool client_wanted(struct pg *p)
{
    return cs_stream_queued(&pg_now(p)->stream) == 0 && p->replies.count < CS_LIMIT_PG_PIPELINE;
}

static bool wait_for_something(struct pg *p, bool read_client)
{
    struct cs_wait items[CS_WAIT_MAX];
    struct cs_stream *c = &p->s->client, *u = &pg_now(p)->stream;
    size_t n = 0;
    if (read_client && client_wanted(p)) {
        items[n++] = cs_stream_wait_read(c);
    } else {
        items[n++] = CS_WAIT_ON(CS_WAIT_HUP, &c->fd);
    }
    if (cs_stream_queued(c) == 0) {
        items[n++] = cs_stream_wait_read(u);
    } else {
        items[n++] = cs_stream_wait_write(c);
    }
    if (cs_stream_queued(u) > 0) {
        items[n++] = cs_stream_wait_write(u);
    }
    items[n++] = CS_WAIT_ON(CS_WAIT_EVENT, &p->s->kill);
    if (!p->cancel_waits) {
        items[n++] = CS_WAIT_ON(CS_WAIT_EVENT, &p->s->cancel);
    }
    enum cs_woke w = cs_wait(items, n, CS_FOREVER);
    if (w == CS_WOKE_CANCELLED) {
        pg_fatal(p, "57P01", "the gateway is stopping");
        pg_end(p, "the gateway stopped");
    } else if (p->s->kill.set) {
        pg_fatal(p, "57P01", p->s->kill_why);
        pg_end(p, "killed");
    } else if (!read_client && c->fd.hup) {
        pg_end(p, "the client closed the connection");
    } else if (p->s->cancel.set && !p->cancel_waits) {
        cancel_running(p);
    }
    return !p->ending;
}

bool pg_to_server_both(struct pg *p, struct cs_slice bytes)
{
    const struct pg_upstream *to = pg_now(p);
    while (bytes.n > 0 && !p->ending) {
        size_t n = CS_MIN(bytes.n, cs_stream_room(&pg_now(p)->stream));
        if (n > 0) {
            if (cs_stream_put(&pg_now(p)->stream, cs_slice_head(bytes, n)) != CS_OK) {
                pg_end(p, "the target closed the connection");
            }
            bytes = cs_slice_from(bytes, n);
            continue;
        }
        if (!flush_both(p)) {
            break;
        }
        pg_backend(p);
        /* SECURITY: an elevated connection that has ended is not replaced by the everyday one. */
        if (pg_now(p) == to && !p->ending && cs_stream_room(&pg_now(p)->stream) > 0) {
            continue;
        }
        if (pg_now(p) != to ||
            !(p->ending || (p->more ? pg_breathe(p) : wait_for_something(p, false)))) {
            return false;
        }
    }
    return !p->ending;
}

static bool settle(struct pg *p, bool until_copy)
{
    if (p->group_open && p->replies.count > 0 && !pg_to_server(p, cs_slice("H\0\0\0\4", 5))) {
        return false;
    }
    /* Also to the end of a message that is passing: nothing of ours may be put into it. */
    while (!p->ending && (p->replies.count > 0 || pg_now(p)->skip > 0)) {
        if (!flush_both(p)) {
            break;
        }
        pg_backend(p);
        if (p->ending || (p->replies.count == 0 && pg_now(p)->skip == 0)) {
            break;
        }
        if (p->copy_in) {
            if (!until_copy) {
                pg_end(p, "protocol error: a request in the middle of COPY");
            }
            break;
        }
        if (!(p->more ? pg_breathe(p) : wait_for_something(p, false))) {
            break;
        }
    }
    return !p->ending;
}

bool pg_settle(struct pg *p)
{
    return settle(p, false);
}

bool pg_settle_or_copy(struct pg *p)
{
    return settle(p, true);
}

/* What was asked and never answered when the session ends. */
static void account_for_the_rest(struct pg *p)
{
    for (uint32_t i = 0; i < p->replies.count; i++) {
        struct pg_reply *r = pg_replies_at(&p->replies, i);
        if (r->granted) {
            cs_gate_executed(p->s, &r->grant, CS_RAN_UNKNOWN,
                             CS_SLICE_LIT("the connection ended before the result"));
        }
        if (r->n > 0) {
            struct cs_result res = {
                .ok = false, .message = CS_SLICE_LIT("the connection ended before the result")};
            bool told = r->n != p->answer.n || cs_answer_end(p->s, &p->answer) == CS_OK;
            if (!told || cs_gate_result(p->s, r->n, &res) != CS_OK) {
                cs_log(CS_EV_RECORD_FAILED, &p->s->id, "frame=result");
            }
        }
    }
}

void pg_relay(struct pg *p)
{
    /* Flushed before, not after, what may stop at a full queue: whoever leaves bytes in a buffer
     * because of a queue must be called again once it is empty, and those bytes alone would wake
     * nobody. */
    while (!p->ending && flush_both(p)) {
        pg_backend(p);
        if (p->ending) {
            break;
        }
        /* What was left of the client's for later need not come in the same turn as answers. */
        if (cs_stream_peek(&p->s->client).n > 0 && cs_co_spent()) {
            bool more = p->more;
            if (!pg_breathe(p)) {
                break;
            }
            p->more = more;
        }
        if (client_wanted(p)) {
            pg_frontend(p);
        }
        if (p->ending || !(p->more ? pg_breathe(p) : wait_for_something(p, !p->blocked))) {
            break;
        }
    }
    if (p->unrecorded) {
        pg_fatal(p, "53100", "the gateway cannot record what was answered, so the session ends");
    }
    account_for_the_rest(p);
}
