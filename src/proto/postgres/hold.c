/* Holding and refusing, in PostgreSQL's own terms. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "proto/postgres/postgres_internal.h"
#include "sql/catalogue.h"

#include <stdio.h>

/* ---- refusals ---- */

static const char *const refusal_sqlstate[] = {
    [CS_REFUSAL_RULE] = "42501",        [CS_REFUSAL_PERSON] = "42501",
    [CS_REFUSAL_EXPIRED] = "CS002",     [CS_REFUSAL_CANCELLED] = "57014",
    [CS_REFUSAL_WAITING] = "CS001",     [CS_REFUSAL_VOID] = "CS003",
    [CS_REFUSAL_RECORD] = "53100",      [CS_REFUSAL_LIMIT] = "54000",
    [CS_REFUSAL_UNAVAILABLE] = "57P03", [CS_REFUSAL_CLOSED] = "57P01",
};

void pg_refusal(struct cs_buf *out, const struct cs_verdict *v)
{
    pg_put_error(out, 'E', "ERROR", refusal_sqlstate[v->refusal], cs_slice_str(v->message),
                 cs_slice_str(v->detail), cs_slice_str(v->hint));
}

/* Text that cannot lex: the server itself rejects it, with exactly its own semantics for the state
 * of the transaction and of the pipeline; its ErrorResponse is replaced by ours. The server's log
 * then holds one line with the action's number. */
static bool poison(struct pg *p, enum pg_reply_kind kind, const struct cs_verdict *v,
                   struct cs_slice answer)
{
    struct pg_reply *r = pg_replies_push(&p->replies, kind);
    struct cs_buf *denial = r != NULL ? cs_alloc(sizeof *denial) : NULL;
    if (denial == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
        return false;
    }
    *denial = cs_buf(CS_LIMIT_PG_SERVER_CONTROL_BYTES + 8192);
    if (answer.n > 0) {
        cs_buf_add(denial, answer);
    } else {
        pg_refusal(denial, v);
    }
    r->denial = denial;
    struct cs_buf b = cs_buf(128);
    size_t at = pg_begin(&b, kind == PG_REPLY_QUERY ? 'Q' : 'P');
    if (kind != PG_REPLY_QUERY) {
        cs_buf_str(&b, "_countersign"); /* named: a failing Parse of "" would destroy the old one */
        cs_buf_u8(&b, 0);
    }
    cs_buf_printf(&b, "\x01 countersign denied action %llu", (unsigned long long)v->n);
    cs_buf_u8(&b, 0);
    if (kind != PG_REPLY_QUERY) {
        pg_put_u16(&b, 0);
    }
    pg_finish(&b, at);
    bool ok = !b.bad && pg_to_server(p, cs_buf_slice(&b));
    cs_buf_done(&b);
    return ok;
}

bool pg_deny_simple(struct pg *p, const struct cs_verdict *v)
{
    return pg_deny_simple_with(p, v, CS_SLICE_NULL);
}

bool pg_deny_simple_with(struct pg *p, const struct cs_verdict *v, struct cs_slice answer)
{
    uint8_t tx = pg_now(p)->tx;
    if (p->replies.count > 0 || p->group_open || tx == 'T') {
        return poison(p, PG_REPLY_QUERY, v, answer);
    }
    struct cs_buf b = cs_buf(8192);
    if (answer.n > 0) {
        cs_buf_add(&b, answer);
    } else {
        pg_refusal(&b, v);
    }
    pg_put_ready(&b, tx);
    bool ok = !b.bad && pg_to_client(p, cs_buf_slice(&b));
    cs_buf_done(&b);
    return ok;
}

bool pg_deny_extended(struct pg *p, const struct cs_verdict *v)
{
    return pg_deny_extended_with(p, v, CS_SLICE_NULL);
}

bool pg_deny_extended_with(struct pg *p, const struct cs_verdict *v, struct cs_slice answer)
{
    p->group_open = true;
    return poison(p, PG_REPLY_PARSE, v, answer);
}

/* ---- waiting ---- */

static void notice(struct cs_session *s, bool first, struct cs_slice line)
{
    struct pg *p = s->proto;
    struct cs_buf b = cs_buf(2048);
    /* WARNING first: the default client_min_messages shows it; then NOTICE. Class CS: our own. */
    pg_put_error(&b, 'N', first ? "WARNING" : "NOTICE", "CS001", line, CS_SLICE_NULL,
                 first ? CS_SLICE_LIT("The connection waits; cancel the query to withdraw it.")
                       : CS_SLICE_NULL);
    if (b.bad || cs_stream_put(&s->client, cs_buf_slice(&b)) != CS_OK) {
        cs_gate_note(s, "a wait line could not be sent");
    }
    cs_buf_done(&b);
    (void)p;
}

static size_t hold_items(struct cs_session *s, struct cs_wait items[static 2])
{
    struct pg *p = s->proto;
    size_t n = 0;
    if (cs_stream_queued(&s->client) == 0) {
        items[n++] = cs_stream_wait_read(&p->up.stream);
    } else {
        items[n++] = cs_stream_wait_write(&s->client);
    }
    return n;
}

static bool hold_pump(struct cs_session *s)
{
    struct pg *p = s->proto;
    if (cs_stream_queued(&s->client) > 0 && cs_stream_flush(&s->client) == CS_IO_ERR) {
        pg_end(p, "the client closed the connection");
        return false;
    }
    do {
        pg_backend(p);
    } while (p->more && pg_breathe(p));
    return !p->ending;
}

static const struct cs_hold_ops hold_ops = {notice, hold_items, hold_pump};

enum { DEFINITIONS = 128 };
static const char with_all[] = "; all that is defined: ";

/* What the text does, as the database's definitions have it: effects, and whether all that is
 * written is named. SECURITY: part of what is approved: who signed a plain UPDATE has not signed
 * the trigger that somebody puts behind it meanwhile. Reading and session do not count: no more can
 * be behind them without one of the others. What nobody can look into may lead to anything that is
 * defined: whoever signed the call of a function has signed its body of then. */
static void definitions(struct pg *p, const struct cs_sql_class *class,
                        char out[static DEFINITIONS])
{
    static const char *const names[6] = {"", "", "write,", "ddl,", "admin,", "opaque,"};
    struct cs_sql_judged j = {0};
    struct cs_slice print = cs_gate_definitions(p->s, class, &j);
    struct cs_writer w = cs_writer((uint8_t *)out, DEFINITIONS - 1);
    for (unsigned i = 0; i < CS_ARRAY_LEN(names); i++) {
        if ((j.effects & 1U << i) != 0) {
            cs_writer_bytes(&w, cs_slice_str(names[i]));
        }
    }
    cs_writer_bytes(&w, cs_slice_str(j.writes_known ? "all named" : "not all named"));
    if (print.n > 0) {
        char hex[2 * CS_CATALOGUE_PRINT + 1];
        cs_writer_bytes(&w, cs_slice_str(with_all));
        cs_hex(print, hex);
        cs_writer_bytes(&w, cs_slice_str(hex));
    }
    out[cs_writer_done(&w).n] = 0;
}

/* A print that was not known when it was asked is nothing that somebody signed. */
static bool same_definitions(const char *asked, const char *now)
{
    const char *all = strstr(now, with_all);
    if (all != NULL && strstr(asked, with_all) == NULL) {
        return strlen(asked) == (size_t)(all - now) && strncmp(asked, now, strlen(asked)) == 0;
    }
    return strcmp(asked, now) == 0;
}

/* What ran before it in its transaction, and for how long the locks of that have been held: whoever
 * approves in a minute keeps them so long. */
static struct cs_slice held_tx(struct pg *p, const struct cs_action *a, struct cs_arena *mem)
{
    if (!a->in_transaction || a->tx.n == 0) {
        return cs_arena_dup(mem, a->tx);
    }
    return cs_arena_printf(mem, "-- open for %llu s, with its locks\n%.*s",
                           (unsigned long long)((cs_mono_ns() - p->ran_since) / CS_NS_PER_S),
                           CS_SLICE_FMT(a->tx));
}

/* The action as it is held: a copy of everything, with the role, database and settings under which
 * it would run. */
static bool held_copy(struct pg *p, struct cs_arena *mem, const struct cs_action *a, bool elevated,
                      const char *defined, struct cs_action *ret)
{
    struct cs_param *params = CS_NEW_ARRAY(mem, struct cs_param, a->n_params + 1);
    struct cs_slice server = cs_gate_server(p->s, mem);
    *ret = *a;
    ret->bytes = cs_arena_dup(mem, a->bytes);
    ret->text = a->redacted ? cs_arena_dup(mem, a->text) : ret->bytes;
    ret->database = cs_arena_dup(mem, cs_gate_database(p->s, elevated));
    ret->role = cs_arena_dup(mem, cs_gate_role(p->s, elevated));
    ret->tx = held_tx(p, a, mem);
    /* A fresh connection has the pinned search_path; in a session '' or pg_catalog may be set. */
    ret->settings = cs_arena_printf(
        mem,
        "%.*s\nDateStyle=%s\nIntervalStyle=%s\nTimeZone=%s\nsearch_path=public%s\ndefinitions=%s\n%"
        ".*s",
        CS_SLICE_FMT(server), p->pins.date_style, p->pins.interval_style, p->pins.time_zone,
        elevated ? "" : " at login", defined, CS_SLICE_FMT(a->settings));
    if (params == NULL || server.p == NULL || ret->bytes.p == NULL || ret->text.p == NULL ||
        ret->database.p == NULL || ret->role.p == NULL || ret->tx.p == NULL ||
        ret->settings.p == NULL) {
        return false;
    }
    for (size_t i = 0; i < a->n_params; i++) {
        params[i] = a->params[i];
        params[i].bytes = cs_arena_dup(mem, a->params[i].bytes);
        if (params[i].bytes.p == NULL) {
            return false;
        }
    }
    ret->params = params;
    struct cs_fact *values = &ret->facts.v[CS_FACT_SQL_PARAMS];
    if (values->state == CS_FACT_KNOWN && !cs_params_fact(params, a->n_params, mem, values)) {
        return false;
    }
    ret->facts.v[CS_FACT_SQL_ROLE].u.string = ret->role;
    ret->facts.v[CS_FACT_SQL_DATABASE].u.string = ret->database;
    ret->facts.v[CS_FACT_SQL_TEXT].u.string = ret->bytes;
    return true;
}

static bool same_pins(const struct pg_pins *a, const struct pg_pins *b)
{
    return strcmp(a->date_style, b->date_style) == 0 &&
           strcmp(a->interval_style, b->interval_style) == 0 &&
           strcmp(a->time_zone, b->time_zone) == 0;
}

/* SECURITY: what goes out is the client's message, what was signed is the copy: they are the same
 * bytes as long as nobody reads into that buffer meanwhile. Promise one does not rest on that. */
static bool same_action(const struct cs_action *a, const struct cs_action *held)
{
    bool same = cs_slice_eq(a->text, held->text) && a->n_params == held->n_params;
    for (size_t i = 0; same && i < a->n_params; i++) {
        same = cs_slice_eq(a->params[i].bytes, held->params[i].bytes);
    }
    return same;
}

void pg_hold(struct pg *p, struct cs_action *a, const struct cs_sql_class *class,
             struct cs_verdict *v)
{
    char asked[DEFINITIONS], now[DEFINITIONS];
    struct cs_arena mem;
    struct cs_action held;
    struct pg_pins pins = p->pins;
    cs_arena_init(&mem, 1024, 4 * CS_LIMIT_HELD_BYTES);
    bool may_copy = !class->parsed || class->n_kept < class->n_statements || pg_copies_in(class);
    if (v->uncovered && may_copy && a->settings.n == 0) {
        a->settings = CS_SLICE_LIT("copy-data=not covered: nobody sees it before it is loaded\n");
    }
    definitions(p, class, asked);
    if (held_copy(p, &mem, a, v->elevated, asked, &held)) {
        cs_stream_trim(&p->s->client); /* its message stays there, perhaps for hours */
        cs_gate_hold(p->s, &held, &hold_ops, v);
        definitions(p, class, now);
        if (v->outcome == CS_ALLOW && !same_pins(&pins, &p->pins)) {
            pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_VOID, NULL,
                           "the session's settings changed while it waited");
        } else if (v->outcome == CS_ALLOW && !same_definitions(asked, now)) {
            pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_VOID, NULL,
                           "what the database has defined for its names changed while it waited");
        } else if (v->outcome == CS_ALLOW && !same_action(a, &held)) {
            pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_VOID, NULL,
                           "its bytes changed while it waited");
        }
    } else {
        v->outcome = CS_DENY;
        v->refusal = CS_REFUSAL_LIMIT;
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign denied this: no memory to hold it");
    }
    cs_arena_done(&mem);
}
