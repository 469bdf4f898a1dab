/* COPY … FROM STDIN that has to be approved: its data is collected first, so that it is part of
 * what people sign and nothing else is sent for it afterwards. Called by simple.c and extended.c
 * when such a statement would be held, and by frontend.c with the messages of its data.
 *
 * The client is told by us that its data is wanted; the target is told of nothing before the
 * approval. It must never send a byte that is not under the hash that was approved, nor take the
 * target's own word that more is wanted. */
#include "base/alloc.h"
#include "base/log.h"
#include "proto/postgres/frontend.h"

#include <stdio.h>

enum { CHUNK = 16384, BREATHE_EACH = 64 };

struct pg_copying {
    const struct cs_sql_class *class; /* reference */
    struct pg_statement *statement;   /* reference; NULL: a simple query */
    struct cs_buf message;            /* the client's Query or Execute, whole */
    struct cs_buf data;
    struct cs_hasher hash;
    bool taking; /* the message in transit is data */
    bool asked;  /* it is whole: what comes now is not for it */
    char portal[CS_LIMIT_PG_NAME_BYTES + 1];
    char line[160]; /* of the settings: what was collected */
};

/* In this process, of all sessions together. */
static size_t collected;

void pg_copy_free(struct pg *p)
{
    struct pg_copying *c = p->copying;
    uint8_t unused[CS_SHA256];
    p->copying = NULL;
    if (c == NULL) {
        return;
    }
    if (c->hash.ctx != NULL) {
        cs_hasher_finish(&c->hash, unused);
    }
    collected -= c->data.len;
    cs_sql_release(cs_gate_sql(p->s->gate), c->class);
    pg_statement_unref(p, c->statement);
    cs_buf_done(&c->message);
    cs_buf_done(&c->data);
    cs_free(c);
}

bool pg_copies_in(const struct cs_sql_class *class)
{
    for (uint32_t i = 0; class->parsed && i < class->n_kept; i++) {
        if (class->statements[i].kind == CS_SQL_COPY_IN) {
            return true;
        }
    }
    return false;
}

bool pg_copy_wanted(struct pg *p, const struct cs_sql_class *class, const struct cs_action *a)
{
    return class->parsed && class->n_statements == 1 && class->n_kept == 1 &&
           class->statements[0].kind == CS_SQL_COPY_IN && cs_gate_covers_data(p->s, a);
}

/* ---- refusing ---- */

/* The target has heard of nothing: the answer is ours, in its own terms. */
static bool refuse(struct pg *p, const char *sqlstate, const char *message, const char *hint)
{
    bool simple = p->copying->statement == NULL, ok = false;
    struct cs_verdict *v = cs_verdict_new(p->s);
    struct cs_buf b = cs_buf(8192);
    pg_put_error(&b, 'E', "ERROR", sqlstate, cs_slice_str(message), CS_SLICE_NULL,
                 cs_slice_str(hint));
    cs_gate_note(p->s, "a COPY FROM STDIN was not asked: %s", message);
    pg_copy_free(p);
    if (v != NULL && !b.bad) {
        v->n = p->s->actions;
        ok = simple ? pg_deny_simple_with(p, v, cs_buf_slice(&b))
                    : pg_deny_extended_with(p, v, cs_buf_slice(&b));
        cs_verdict_free(p->s, v);
    }
    cs_buf_done(&b);
    return ok;
}

void pg_copy_cancel(struct pg *p)
{
    if (p->copying != NULL && !p->copying->asked) {
        (void)refuse(p, "57014", "canceling statement due to user request", "");
    }
}

/* ---- collecting ---- */

/* CopyInResponse. How many columns the table has is not known here; no client needs it. */
static bool tell_client(struct pg *p, const struct cs_sql_statement *st)
{
    struct cs_buf b = cs_buf(8192);
    size_t at = pg_begin(&b, 'G');
    cs_buf_u8(&b, st->binary ? 1 : 0);
    pg_put_u16(&b, st->columns);
    for (unsigned i = 0; i < st->columns; i++) {
        pg_put_u16(&b, st->binary ? 1 : 0);
    }
    pg_finish(&b, at);
    bool ok = !b.bad && pg_to_client(p, cs_buf_slice(&b));
    cs_buf_done(&b);
    return ok;
}

enum pg_act pg_copy_begin(struct pg *p, const struct cs_sql_class *class, struct pg_statement *st,
                          struct cs_slice portal, struct cs_slice message)
{
    struct pg_copying *c = cs_alloc(sizeof *c);
    if (c == NULL || portal.n > CS_LIMIT_PG_NAME_BYTES) {
        cs_free(c);
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
        return PG_STOP;
    }
    cs_sql_keep(class);
    c->class = class;
    c->statement = st != NULL ? pg_statement_ref(st) : NULL;
    c->message = cs_buf(CS_LIMIT_PG_QUERY_BYTES + 64);
    c->data = cs_buf(CS_LIMIT_HELD_COPY_BYTES);
    cs_buf_add(&c->message, message);
    memcpy(c->portal, portal.p != NULL ? portal.p : (const uint8_t *)"", portal.n);
    cs_hasher_start(&c->hash);
    p->copying = c;
    return !c->message.bad && tell_client(p, &class->statements[0]) ? PG_DONE : PG_STOP;
}

bool pg_copy_add(struct pg *p, struct cs_slice bytes)
{
    struct pg_copying *c = p->copying;
    if (c == NULL || !c->taking) {
        return true;
    }
    if (bytes.n > CS_LIMIT_HELD_COPY_BYTES - c->data.len) {
        return refuse(p, "54000",
                      "Countersign denied this: the data of a COPY that needs approval is larger "
                      "than what can be held",
                      "Copy it in pieces; or the rule may say \"copy: uncovered\".");
    }
    if (bytes.n > CS_LIMIT_HELD_COPY_GATE_BYTES - collected) {
        return refuse(p, "53200", "Countersign denied this: too much data waits for approval",
                      "Try again later.");
    }
    cs_buf_add(&c->data, bytes);
    cs_hasher_add(&c->hash, bytes);
    if (c->data.bad) {
        return refuse(p, "53200", "Countersign denied this: no memory to hold it", "");
    }
    collected += bytes.n;
    return true;
}

/* ---- running what was approved ---- */

static struct pg_reply *push(struct pg *p, enum pg_reply_kind kind, const struct cs_action *a,
                             const struct cs_verdict *v)
{
    struct pg_reply *r = pg_push(p, kind);
    if (r != NULL) {
        r->n = r->of = v->n;
        r->granted = v->granted;
        r->grant = v->grant;
        r->redacted = a->redacted;
        r->record = v->record;
        r->strict = v->strict;
        r->copy = PG_COPY_COVERED;
    }
    return r;
}

/* Its statement anew on the elevated connection, and its portal. */
static bool bind_elevated(struct pg *p, struct cs_verdict *v, struct cs_buf *ret_error)
{
    struct pg_copying *c = p->copying;
    if (!pg_elevated_group(p, c->statement, v, ret_error)) {
        return false;
    }
    struct pg_reply *r = pg_push(p, PG_REPLY_BIND);
    struct cs_buf b = cs_buf(512);
    size_t at = pg_begin(&b, 'B');
    pg_put_cstr(&b, cs_slice_str(c->portal));
    pg_put_cstr(&b, cs_slice_str(c->statement->name));
    pg_put_u16(&b, 0);
    pg_put_u16(&b, 0);
    pg_put_u16(&b, 0);
    pg_finish(&b, at);
    bool ok = r != NULL && !b.bad;
    if (ok) {
        r->swallow = true;
        ok = pg_to_server(p, cs_buf_slice(&b));
    }
    cs_buf_done(&b);
    return ok;
}

/* One CopyData of ours; false: nothing more is to be sent. */
static bool send_chunk(struct pg *p, struct cs_slice chunk)
{
    struct cs_buf b = cs_buf(CHUNK + 64);
    size_t at = pg_begin(&b, 'd');
    cs_buf_add(&b, chunk);
    pg_finish(&b, at);
    bool ok = !b.bad;
    if (ok) {
        pg_record(p, pg_replies_head(&p->replies), true, cs_buf_slice(&b));
        ok = pg_record_flush(p) && pg_to_server_both(p, cs_buf_slice(&b));
    }
    cs_buf_done(&b);
    return ok && p->copy_in && !p->ending;
}

/* The target wants the data now, if it did not fail. */
static void send_data(struct pg *p)
{
    struct cs_slice rest = cs_buf_slice(&p->copying->data);
    bool more = p->copy_in;
    for (unsigned n = 1; more && rest.n > 0; n++) {
        struct cs_slice chunk = cs_slice_head(rest, CHUNK);
        rest = cs_slice_from(rest, chunk.n);
        more = send_chunk(p, chunk) && (n % BREATHE_EACH != 0 || pg_breathe(p));
    }
    if (more && p->copy_in && !p->ending) {
        p->copy_in = false;
        (void)pg_to_server(p, cs_slice("c\0\0\0\4", 5));
    }
}

/* False: nothing is to be sent; v may be a refusal by then. */
static bool elevate(struct pg *p, struct cs_verdict *v, struct cs_buf *ret_error)
{
    if (!v->elevated || !v->granted) {
        return true;
    }
    if (p->copying->statement == NULL) {
        return pg_elevate(p, v);
    }
    if (bind_elevated(p, v, ret_error)) {
        return true;
    }
    if (v->outcome == CS_ALLOW) { /* before the elevated connection was asked for, or it broke */
        pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_UNAVAILABLE, NULL,
                       "its connection broke first");
        pg_end(p, "the elevated connection failed");
    }
    return false;
}

static enum pg_act run(struct pg *p, const struct cs_action *a, struct cs_verdict *v)
{
    struct pg_copying *c = p->copying;
    bool simple = c->statement == NULL;
    p->elevated_simple = p->elevated != NULL && simple;
    pg_remember(p, a);
    if (p->elevated == NULL) {
        cs_buf_str(&p->ran, c->line); /* for the digest of what is held behind it */
    }
    p->group_ran = p->group_ran || (!simple && p->elevated == NULL);
    struct pg_reply *r = push(p, simple ? PG_REPLY_QUERY : PG_REPLY_EXECUTE, a, v);
    if (r == NULL) {
        return PG_STOP;
    }
    r->name = simple ? NULL : pg_name_copy(cs_slice_str(c->portal));
    if (!pg_to_server(p, cs_buf_slice(&c->message)) || !pg_settle_or_copy(p)) {
        return PG_STOP;
    }
    send_data(p);
    return p->ending ? PG_STOP : PG_DONE;
}

/* ---- asking ---- */

static enum pg_act decided(struct pg *p, struct cs_action *a, struct cs_verdict *v)
{
    struct pg_copying *c = p->copying;
    if (v->outcome == CS_HOLD) {
        pg_hold(p, a, c->class, v);
        if (p->ending || (v->outcome == CS_DENY && v->refusal == CS_REFUSAL_CLOSED)) {
            pg_end(p, p->s->kill.set ? "killed" : "the connection ended while an action was held");
            return PG_STOP;
        }
    }
    struct cs_buf error = cs_buf(CS_LIMIT_PG_SERVER_CONTROL_BYTES + 8);
    enum pg_act act = PG_STOP;
    if (v->outcome == CS_ALLOW && elevate(p, v, &error)) {
        act = run(p, a, v);
    } else if (!p->ending) {
        bool ok = c->statement == NULL ? pg_deny_simple(p, v)
                                       : pg_deny_extended_with(p, v, cs_buf_slice(&error));
        act = ok ? PG_DONE : PG_STOP;
    }
    cs_buf_done(&error);
    return act;
}

/* All of it is there. */
static enum pg_act ask(struct pg *p)
{
    struct pg_copying *c = p->copying;
    const struct cs_sql_statement *st = &c->class->statements[0];
    struct cs_slice text = c->statement != NULL ? c->statement->text : CS_SLICE_NULL;
    uint8_t sum[CS_SHA256];
    char hex[2 * CS_SHA256 + 1];
    struct cs_action a;
    c->asked = true;
    cs_hasher_finish(&c->hash, sum);
    c->hash.ctx = NULL;
    cs_hex(cs_slice(sum, sizeof sum), hex);
    struct cs_param shown = {.format = st->binary ? 1 : 0,
                             .bytes =
                                 cs_slice_head(cs_buf_slice(&c->data), CS_LIMIT_HELD_COPY_SHOWN)};
    (void)snprintf(c->line, sizeof c->line, "copy-data=%zu bytes, sha256:%s%s\n", c->data.len, hex,
                   shown.bytes.n < c->data.len ? ", the first 65536 shown" : "");
    if (c->statement == NULL &&
        !pg_parse_query(cs_slice_from(cs_buf_slice(&c->message), 5), &text)) {
        return pg_violation(p, "malformed Query");
    }
    struct cs_verdict *v = cs_verdict_new(p->s);
    if (v == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
        return PG_STOP;
    }
    do {
        pg_describe(p, c->class, text, false, NULL, &a);
        a.params = &shown;
        a.n_params = 1;
        a.facts.v[CS_FACT_SQL_PARAMS].state = CS_FACT_UNKNOWN; /* data, and perhaps binary */
        a.settings = cs_slice_str(c->line);
    } while (!cs_gate_decide(p->s, &a, NULL, v));
    enum pg_act act = decided(p, &a, v);
    cs_verdict_free(p->s, v);
    pg_copy_free(p);
    return act;
}

enum pg_act pg_copy_message(struct pg *p, const struct pg_frame *f)
{
    char words[400];
    switch (f->type) {
    case 'd':
        p->copying->taking = true;
        return pg_copy_add(p, f->body) ? PG_DONE : PG_STOP;
    case 'c':
        return ask(p);
    case 'f':
        (void)snprintf(
            words, sizeof words, "COPY from stdin failed: %.*s",
            CS_SLICE_FMT(cs_slice_head(f->body, CS_MIN(cs_slice_find(f->body, 0), (size_t)300))));
        return refuse(p, "57014", words, "") ? PG_DONE : PG_STOP;
    case 'S':
    case 'H': /* as the target does while it takes data */
        return PG_DONE;
    case 'X':
        pg_end(p, "the client ended it");
        return PG_STOP;
    default:
        return pg_violation(p, "a request in the middle of COPY");
    }
}

/* ---- what the target says ---- */

bool pg_copy_expected(const struct pg *p, const struct pg_reply *r, struct cs_slice body)
{
    if (r->copy == PG_COPY_COVERED) {
        const struct pg_copying *c = p->copying;
        bool binary = c != NULL && c->class->statements[0].binary;
        unsigned columns = c != NULL ? c->class->statements[0].columns : 0;
        return c != NULL && body.n >= 3 && body.p[0] == (binary ? 1 : 0) &&
               (columns == 0 || columns == ((unsigned)body.p[1] << 8 | body.p[2]));
    }
    return !r->granted || r->copy == PG_COPY_UNCOVERED;
}
