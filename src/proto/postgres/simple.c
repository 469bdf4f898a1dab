/* The simple query: one message, one text, one verdict. Called by frontend.c for each Query; a text
 * is forwarded whole or not at all, because part of a multi-statement message would be another
 * transaction than the one that was asked for. */
#include "base/alloc.h"
#include "proto/postgres/frontend.h"
#include "sql/catalogue.h"

/* A simple query being judged. `followed`: its effect on names is known to be none (an EXECUTE of a
 * statement that was seen being prepared). */
struct asked {
    const struct cs_sql_class *class;
    const struct cs_sql_class *prepared; /* reference: of the statement that it executes */
    bool followed;
    bool doubted; /* the target may read it otherwise */
    struct cs_slice message;
    struct cs_action a;
};

static bool replicates(const struct pg *p, const struct asked *q)
{
    return p->replication != PG_REPLICATION_NONE &&
           cs_verb_named(q->class->verb) == CS_NAMED_REPLICATION;
}

static bool streams(const struct pg *p, const struct asked *q)
{
    return replicates(p, q) && cs_slice_eq_str(q->class->verb, "START_REPLICATION");
}

static bool push_query(struct pg *p, const struct asked *q, const struct cs_verdict *v)
{
    const struct cs_action *a = &q->a;
    struct pg_reply *r = pg_push(p, PG_REPLY_QUERY);
    if (r == NULL) {
        return false;
    }
    r->n = v->n;
    r->granted = v->granted;
    r->grant = v->grant;
    r->redacted = a->redacted;
    r->of = v->n;
    r->record = v->record;
    r->strict = v->strict;
    r->copy = streams(p, q)                ? PG_COPY_BOTH
              : v->granted && v->uncovered ? PG_COPY_UNCOVERED
                                           : PG_COPY_NONE;
    r->doubted = q->doubted;
    pg_cursors_sent(p, q->class, a, CS_SLICE_NULL);
    if (q->doubted || (!q->followed && pg_names_change(q->class, a->narrowed))) {
        cs_sql_keep(q->class);
        r->class = q->class;
        r->text = pg_name_copy(a->text);
    }
    return true;
}

/* SECURITY: what a COPY among other statements loads would be part of no approval. */
static bool unseen_data(const struct asked *q, const struct cs_verdict *v)
{
    return q->class->parsed && !v->uncovered && pg_copies_in(q->class);
}

/* What cannot be held as it is: refused, with what to do instead. */
static enum pg_act refuse(struct pg *p, struct cs_verdict *v, const char *why, const char *hint)
{
    pg_refuse(p, v, why, hint);
    return pg_deny_simple(p, v) ? PG_DONE : PG_STOP;
}

static enum pg_act hold_query(struct pg *p, struct asked *q, struct cs_verdict *v)
{
    if (unseen_data(q, v)) {
        return refuse(p, v, "COPY FROM STDIN needs approval, and is not alone in its message",
                      "Send it as a query of its own.");
    }
    if (v->elevated && replicates(p, q)) { /* that connection would take it for SQL */
        return refuse(p, v, "replication cannot run by the elevated credential",
                      "The rule that holds it must not say run_as: elevated.");
    }
    if (v->elevated && pg_needs_session(q->class)) { /* nobody is asked in vain */
        return refuse(p, v, PG_NEEDS_SESSION, PG_NEEDS_SESSION_HINT);
    }
    pg_hold(p, &q->a, q->prepared != NULL ? q->prepared : q->class, v);
    if (p->ending || (v->outcome == CS_DENY && v->refusal == CS_REFUSAL_CLOSED)) {
        pg_end(p, p->s->kill.set ? "killed" : "the connection ended while an action was held");
        return PG_STOP;
    }
    if (v->outcome == CS_ALLOW && v->elevated && !pg_elevate(p, v)) {
        v->outcome = CS_DENY;
        if (p->ending) { /* killed, or gone, before it was ready */
            return PG_STOP;
        }
    }
    if (v->outcome != CS_ALLOW) {
        return pg_deny_simple(p, v) ? PG_DONE : PG_STOP;
    }
    p->elevated_simple = p->elevated != NULL;
    pg_remember(p, &q->a);
    return push_query(p, q, v) && pg_to_server(p, q->message) ? PG_DONE : PG_STOP;
}

static enum pg_act decided_query(struct pg *p, struct pg_batch *b, struct asked *q,
                                 struct cs_verdict *v)
{
    switch (v->outcome) {
    case CS_ALLOW:
        pg_remember(p, &q->a);
        return push_query(p, q, v) ? PG_PASS : PG_STOP;
    case CS_HOLD:
        return pg_pass(p, b) ? hold_query(p, q, v) : PG_STOP;
    case CS_DENY:
    default:
        return pg_pass(p, b) && pg_deny_simple(p, v) ? PG_DONE : PG_STOP;
    }
}

/* One of the arguments of this EXECUTE is secret: none is shown. */
static void hide_arguments(struct pg *p, struct cs_action *a)
{
    struct cs_redact_span spans[CS_REDACT_SPANS];
    size_t n = cs_sql_strings(a->text, spans);
    bool unkeyed = false;
    if (n == 0) {
        return;
    }
    cs_buf_done(&p->shown);
    p->shown = cs_buf(CS_LIMIT_PG_QUERY_BYTES + CS_REDACT_SPANS * 128);
    cs_gate_redact_value(p->s, spans, n, a->text, &p->shown, &unkeyed);
    a->redacted = true;
    a->unkeyed = a->unkeyed || unkeyed || p->shown.bad;
    a->bytes = p->shown.bad ? CS_SLICE_LIT("<redacted>") : cs_buf_slice(&p->shown);
    a->facts.v[CS_FACT_SQL_TEXT].u.string = a->bytes;
}

/* EXECUTE name, alone in its message, of a name that we saw being prepared, and that itself leaves
 * the names alone. */
static const struct pg_statement *executed(struct pg *p, const struct cs_sql_class *class,
                                           bool *ret_wait)
{
    *ret_wait = false;
    if (!class->parsed || class->n_statements != 1 || class->n_kept != 1 ||
        class->statements[0].kind != CS_SQL_EXECUTE) {
        return NULL;
    }
    struct cs_slice name = cs_slice_head(class->statements[0].name, CS_LIMIT_PG_NAME_BYTES);
    const struct pg_statement *st = pg_statement_find(p, name, ret_wait);
    return st == NULL || st->doubted || st->stale ||
                   (st->class != NULL && pg_names_change(st->class, false))
               ? NULL
               : st;
}

/* What was prepared, and what the parameters of this EXECUTE do themselves. `text` is the class of
 * what prepared it. */
static uint8_t effects_of(struct pg *p, const struct pg_statement *prepared,
                          const struct cs_sql_class *text, const struct cs_sql_class *execute)
{
    uint8_t of_parameters = execute->n_kept > 0 ? execute->statements[0].inner_effects : 0;
    return pg_prepared_effects(p, prepared, text) | of_parameters;
}

static void forget_prepared(struct pg *p, struct asked *q)
{
    if (q->prepared != NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), q->prepared);
        q->prepared = NULL;
    }
}

static void prepared_class(struct pg *p, struct asked *q, const struct pg_statement *st)
{
    if (st->class != NULL) {
        cs_sql_keep(st->class);
    }
    q->prepared = st->class != NULL ? st->class : pg_classify_now(p, st->text);
}

static enum pg_act describe_query(struct pg *p, struct asked *q, struct cs_slice text,
                                  struct cs_slice names[static 6], struct cs_buf *settings)
{
    bool wait = false;
    q->doubted = p->unsettled || (pg_cursors_run(p, q->class) & CS_SQL_OPAQUE) != 0;
    pg_describe(p, q->class, text, q->doubted, NULL, &q->a);
    /* SECURITY: it may not be an EXECUTE at all then. */
    const struct pg_statement *st = q->doubted ? NULL : executed(p, q->class, &wait);
    q->followed = st != NULL;
    forget_prepared(p, q);
    if (st != NULL) {
        struct pg_statement effective = *st;
        prepared_class(p, q, st);
        effective.effects = effects_of(p, st, q->prepared, q->class);
        settings->len = 0;
        pg_describe_prepared(p, &q->a, &effective, names, settings);
        if (q->prepared == NULL || q->prepared->secret_params != 0) {
            hide_arguments(p, &q->a);
        }
    }
    return wait ? PG_STOP : PG_PASS;
}

/* Anything but a plain allow is judged again when nothing is outstanding: the state of the
 * transaction is part of the question. False: *ret says what becomes of the message. */
static bool settled(struct pg *p, struct pg_batch *b, struct asked *q, struct cs_slice text,
                    struct cs_slice names[static 6], struct cs_buf *settings, enum pg_act *ret)
{
    enum pg_act ready = describe_query(p, q, text, names, settings);
    bool owed = p->replies.count > 0;
    if (ready == PG_STOP || (owed && p->unsettled) || (owed && !pg_surely_allowed(p, &q->a))) {
        *ret = pg_settle_first(p, b);
        if (*ret != PG_PASS) {
            return false;
        }
        (void)describe_query(p, q, text, names, settings);
    }
    if (!p->unsettled && pg_copy_wanted(p, q->class, &q->a)) {
        *ret = pg_settle_first(p, b);
        if (*ret == PG_PASS) {
            *ret = pg_copy_begin(p, q->class, NULL, CS_SLICE_NULL, q->message);
        }
        return false;
    }
    return true;
}

/* From the description on once more where rules or catalogue have changed in the middle. */
static enum pg_act judge_settled(struct pg *p, struct pg_batch *b, struct asked *q,
                                 struct cs_slice text, struct cs_slice names[static 6],
                                 struct cs_buf *settings, struct cs_verdict *v)
{
    enum pg_act act = PG_STOP;
    do {
        if (!settled(p, b, q, text, names, settings, &act)) {
            return act;
        }
    } while (!cs_gate_decide(p->s, &q->a, NULL, v));
    return decided_query(p, b, q, v);
}

static enum pg_act judge_query(struct pg *p, struct pg_batch *b, struct cs_slice text,
                               struct cs_slice message)
{
    struct asked q = {.class = pg_classify(p, text), .message = message};
    struct cs_verdict *v = cs_verdict_new(p->s);
    struct cs_slice names[6];
    struct cs_buf settings = cs_buf(2 * CS_LIMIT_PG_QUERY_BYTES);
    enum pg_act act = PG_STOP;
    if (q.class == NULL || v == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
    } else {
        act = judge_settled(p, b, &q, text, names, &settings, v);
    }
    cs_buf_done(&settings);
    cs_verdict_free(p->s, v);
    forget_prepared(p, &q);
    if (q.class != NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), q.class);
    }
    return act;
}

enum pg_act pg_on_query(struct pg *p, struct pg_batch *b, const struct pg_frame *f)
{
    struct cs_slice text;
    if (!pg_parse_query(f->body, &text)) {
        return pg_violation(p, "malformed Query");
    }
    if (p->copy_in) {
        return pg_violation(p, "Query in the middle of COPY");
    }
    return judge_query(p, b, text, cs_slice_head(cs_slice_from(b->in, b->at), f->total));
}
