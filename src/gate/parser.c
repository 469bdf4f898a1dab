/* The gate's own parser (parser.h): having one, and asking it. One text at a time is with it; those
 * of other sessions wait in the order in which they came, each session having one at most. Called
 * by parse.c.
 *
 * SECURITY: it may have been taken over by any text that it ever got. So its answers are read as a
 * stranger's (sql/parsed.h), and taken for the one text that it has now, by number and mark; at the
 * first that is none, or late, it is replaced. What it says wrongly in the right form is believed,
 * as a parser in this process would be. It must never be waited for by more than the session whose
 * text it is. */
#include "gate/parser.h"

#include "base/reader.h"
#include "gate/gate.h"
#include "ipc/parcel.h"
#include "runtime/sandbox.h"
#include "sql/parsed.h"

#define SLOWER      (cs_sandbox_is_off() ? 20 : 1) /* a sanitizer */
#define TURN_NS     (CS_LIMIT_PARSER_TURN_MS * CS_NS_PER_MS * SLOWER)
#define QUEUE_NS    (CS_LIMIT_PARSER_QUEUE_MS * CS_NS_PER_MS)
#define START_NS    (10 * CS_NS_PER_S)
#define PAUSE_FIRST (100 * CS_NS_PER_MS)
#define PAUSE_LAST  (1 * CS_NS_PER_S)
#define STEADY_NS   (10 * CS_NS_PER_S) /* lived this long: the next pause is a first one */
enum { MARK_BESIDE = 8192 };           /* longer texts: hashed in a turn of its own */

/* What came last: nobody waits between receiving and reading, so one is enough. */
static uint8_t answer[CS_PARCEL_RECORD_HEAD + CS_LIMIT_PARSER_RECORD_BYTES];

/* ---- having one ---- */

static enum cs_parcel receive(struct cs_gate_parser *p, struct cs_slice *ret)
{
    enum cs_parcel got = cs_parcel_receive(p->fd.fd, answer, sizeof answer, ret);
    if (got == CS_PARCEL_NONE) {
        p->fd.readable = false;
    }
    return got;
}

static void fail(struct cs_gate_parser *p)
{
    p->there = false;
    cs_event_set(&p->failed);
}

/* Its first word: that it is within its walls. No text goes to it before. */
static bool is_ready(struct cs_gate_parser *p, uint64_t deadline)
{
    struct cs_slice said;
    for (;;) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &p->fd);
        enum cs_parcel got = receive(p, &said);
        if (got != CS_PARCEL_NONE) {
            static const uint8_t ready[CS_PARCEL_RECORD_HEAD];
            return got == CS_PARCEL_GOT && cs_slice_eq(said, cs_slice(ready, sizeof ready));
        }
        if (cs_wait(&w, 1, deadline) != CS_WOKE_READY) {
            return false;
        }
    }
}

static bool attach(struct cs_gate *g)
{
    struct cs_gate_parser *p = &g->parser;
    const struct cs_msg_parser m = {.end_ = 0};
    struct cs_call call;
    uint64_t deadline = cs_mono_ns() + START_NS;
    bool ok =
        cs_channel_call(g->supervisor, CS_MSG_PARSER, &m, NULL, 0, deadline, &call) == CS_OK &&
        call.type == CS_MSG_PARSER_IS;
    if (ok) {
        ok = cs_fd_open(g->loop, &p->fd, call.fd[0]) == CS_OK;
        call.fd[0] = -1;
    }
    cs_call_done(&call);
    if (ok && !is_ready(p, deadline)) {
        cs_fd_close(&p->fd);
        ok = false;
    }
    return ok;
}

static void keep_one(void *arg)
{
    struct cs_gate *g = arg;
    struct cs_gate_parser *p = &g->parser;
    uint64_t pause = 0;
    enum cs_woke woke = CS_WOKE_READY;
    do {
        uint64_t began = cs_mono_ns();
        if (attach(g)) {
            struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_EVENT, &p->failed),
                                  CS_WAIT_ON(CS_WAIT_HUP, &p->fd)};
            p->owed = 0;
            p->generation++;
            cs_event_clear(&p->failed);
            p->there = true;
            woke = cs_wait(w, CS_ARRAY_LEN(w), CS_FOREVER);
            p->there = false;
            cs_fd_close(&p->fd); /* who waits for its answer is woken */
        }
        bool steady = cs_mono_ns() - began >= STEADY_NS;
        pause = steady || pause == 0 ? PAUSE_FIRST : CS_MIN(pause * 2, PAUSE_LAST);
    } while (woke != CS_WOKE_CANCELLED && cs_co_sleep(pause));
}

void cs_gate_parser_begin(struct cs_gate *g)
{
    cs_handle co;
    if (cs_co_spawn(g->loop, "parser", keep_one, g, &co) != CS_OK) {
        g->parser.there = false; /* the gate parses for itself */
    }
}

/* ---- whose turn it is ---- */

struct cs_parser_turn {
    struct cs_event come;
    struct cs_parser_turn *next;
};

static void leave_queue(struct cs_gate_parser *p, const struct cs_parser_turn *mine)
{
    struct cs_parser_turn **at = &p->first;
    while (*at != mine) {
        at = &(*at)->next;
    }
    *at = mine->next;
    if (p->last == &mine->next) {
        p->last = at;
    }
}

/* False: it does not come in time, or the session ends. */
static bool wait_for_turn(struct cs_session *s, struct cs_gate_parser *p)
{
    struct cs_parser_turn mine = {.next = NULL};
    uint64_t deadline = cs_mono_ns() + QUEUE_NS;
    if (!p->busy) {
        p->busy = true;
        return true;
    }
    if (p->n_waiting >= CS_LIMIT_PARSER_QUEUE) {
        return false;
    }
    p->last = p->first == NULL ? &p->first : p->last;
    *p->last = &mine;
    p->last = &mine.next;
    p->n_waiting++;
    enum cs_woke woke = CS_WOKE_READY;
    while (woke == CS_WOKE_READY && !mine.come.set && !s->kill.set) {
        struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_EVENT, &mine.come),
                              CS_WAIT_ON(CS_WAIT_EVENT, &s->kill)};
        woke = cs_wait(w, CS_ARRAY_LEN(w), deadline);
    }
    p->n_waiting--;
    if (!mine.come.set) {
        leave_queue(p, &mine);
    }
    return mine.come.set;
}

static void pass_turn(struct cs_gate_parser *p)
{
    struct cs_parser_turn *next = p->first;
    p->busy = next != NULL;
    if (next != NULL) {
        p->first = next->next;
        p->last = p->first == NULL ? &p->first : p->last;
        cs_event_set(&next->come);
    }
}

/* ---- asking ---- */

struct question {
    uint64_t id, mark, generation;
    struct cs_slice text;
};

/* An answer that came: to this question, to one whose session has ended (true, and no class), or
 * to none (false). */
static bool read_answer(struct cs_gate *g, const struct question *q, struct cs_slice said,
                        const struct cs_sql_class **ret)
{
    struct cs_gate_parser *p = &g->parser;
    struct cs_reader r = cs_reader(said);
    uint64_t id = cs_reader_u64le(&r), mark = cs_reader_u64le(&r);
    if (!r.bad && id != q->id && p->owed > 0 && id < q->id && id + p->owed >= q->id) {
        p->owed--;
        return true;
    }
    /* SECURITY: what was asked first is answered first. With another's answer before it, this one
     * could be a text's that somebody else has sent. */
    if (r.bad || id != q->id || mark != q->mark || p->owed > 0) {
        return false;
    }
    *ret = cs_sql_class_read_of(g->sql, cs_reader_rest(&r), q->text);
    return *ret != NULL;
}

static enum cs_parser_said wait_for_answer(struct cs_session *s, const struct question *q,
                                           const struct cs_sql_class **ret)
{
    struct cs_gate_parser *p = &s->gate->parser;
    uint64_t deadline = cs_mono_ns() + TURN_NS;
    enum cs_woke woke = CS_WOKE_READY;
    while (woke == CS_WOKE_READY && !s->kill.set) {
        struct cs_slice said;
        if (p->generation != q->generation || p->fd.fd < 0) {
            return CS_PARSER_FAILED; /* it has ended */
        }
        enum cs_parcel got = receive(p, &said);
        if (got == CS_PARCEL_BROKEN ||
            (got == CS_PARCEL_GOT && !read_answer(s->gate, q, said, ret))) {
            fail(p);
            return CS_PARSER_FAILED;
        }
        if (*ret != NULL) {
            return CS_PARSER_SAID;
        }
        if (got == CS_PARCEL_NONE) {
            struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_READ, &p->fd),
                                  CS_WAIT_ON(CS_WAIT_EVENT, &s->kill)};
            woke = cs_wait(w, CS_ARRAY_LEN(w), deadline);
        }
    }
    if (woke == CS_WOKE_DEADLINE) {
        fail(p);
        return CS_PARSER_FAILED;
    }
    p->owed++; /* the session ends: its answer is still to come */
    return CS_PARSER_AWAY;
}

static enum cs_parser_said converse(struct cs_session *s, struct cs_slice text,
                                    const struct cs_sql_class **ret)
{
    struct cs_gate_parser *p = &s->gate->parser;
    struct question q = {.id = p->last_id + 1, .generation = p->generation, .text = text};
    if (!p->there) {
        return CS_PARSER_AWAY; /* it has ended while this one waited */
    }
    p->last_id = q.id;
    if (!cs_parcel_send_text(p->fd.fd, q.id, text)) {
        fail(p);
        return CS_PARSER_AWAY;
    }
    if (text.n > MARK_BESIDE) {
        (void)cs_co_yield();
    }
    q.mark = cs_parcel_mark(q.id, text);
    return wait_for_answer(s, &q, ret);
}

enum cs_parser_said cs_gate_parser_ask(struct cs_session *s, struct cs_slice text,
                                       const struct cs_sql_class **ret)
{
    struct cs_gate_parser *p = &s->gate->parser;
    *ret = NULL;
    if (!p->there || !wait_for_turn(s, p)) {
        return CS_PARSER_AWAY;
    }
    enum cs_parser_said how = converse(s, text, ret);
    pass_turn(p);
    return how;
}
