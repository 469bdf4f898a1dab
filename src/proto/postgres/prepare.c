/* What the target prepares when: a statement of the client's at once, as a rule; later, where to
 * prepare it may already run code; again, where something unreadable may have replaced it. Called
 * by extended.c, which asks for the verdicts.
 *
 * It must never let the target analyse a text that is to be held and whose literals may become
 * values of a type that runs code: that comes with the verdict on its Bind. */
#include "base/alloc.h"
#include "proto/postgres/frontend.h"

static enum pg_act refuse(struct pg *p, struct pg_batch *b, const char *message, const char *hint)
{
    struct cs_verdict *v = cs_alloc(sizeof *v);
    bool ok = false;
    if (v != NULL) {
        v->n = p->s->actions;
        pg_refuse(p, v, message, hint);
        ok = pg_pass(p, b) && pg_deny_extended(p, v);
        cs_free(v);
    }
    return ok ? PG_DONE : PG_STOP;
}

enum pg_act pg_refuse_extended(struct pg *p, struct pg_batch *b, const char *message)
{
    return refuse(p, b, message, "");
}

/* ---- later ---- */

/* SECURITY: while it analyses, the target makes values of literals: in a record, an array or a
 * range the checks of domains run, which may be anything. What is not opaque has no such type near
 * it; what is, may have, unless no type of the target runs anything. */
bool pg_prepare_runs(struct pg *p, const struct cs_sql_class *class, struct cs_slice text,
                     const struct cs_action *a)
{
    return a->unsettling && cs_sql_prepares_literals(class, text) && cs_gate_literals_run(p->s);
}

/* The target prepares something else under the name: whether it may be prepared at all (a failed
 * transaction, a name that is taken) is its own word, and its answer has its place among the
 * others. It fails when it is executed, which only SQL's EXECUTE of that name can do. */
enum pg_act pg_prepare_later(struct pg *p, struct pg_batch *b, struct pg_statement *st)
{
    static const char nothing[] = "SELECT pg_catalog.textcat('Countersign keeps this back until it "
                                  "is bound', '')::pg_catalog.int4";
    struct pg_reply *r = pg_pass(p, b) ? pg_push(p, PG_REPLY_PARSE) : NULL;
    if (r == NULL) {
        pg_statement_unref(p, st);
        return PG_STOP;
    }
    st->stale = true;
    r->statement = st;
    struct cs_buf m = cs_buf(1024);
    size_t at = pg_begin(&m, 'P');
    pg_put_cstr(&m, cs_slice_str(st->name));
    pg_put_cstr(&m, cs_slice_str(nothing));
    pg_put_u16(&m, 0);
    pg_finish(&m, at);
    bool ok = !m.bad && pg_to_server(p, cs_buf_slice(&m));
    cs_buf_done(&m);
    return ok ? PG_DONE : PG_STOP;
}

/* May the target describe it, as it is defined now? To do so it prepares what was kept back, and
 * analyses again what has changed. Nobody can be asked for a description, so it is refused. */
enum pg_act pg_before_describe(struct pg *p, struct pg_batch *b, struct pg_statement *st)
{
    struct cs_action a;
    enum pg_act act = PG_PASS;
    const struct cs_sql_class *class = st->class != NULL ? st->class : pg_classify_now(p, st->text);
    if (class == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
        return PG_STOP;
    }
    pg_statement_ref(st);
    pg_describe(p, class, st->text, pg_in_doubt(p, st), st, &a);
    if (pg_prepare_runs(p, class, st->text, &a) && p->replies.count > 0 &&
        !pg_surely_allowed(p, &a)) {
        act = pg_settle_first(p, b);
        pg_describe(p, class, st->text, pg_in_doubt(p, st), st, &a);
    }
    enum cs_outcome outcome = CS_ALLOW;
    while (act == PG_PASS && pg_prepare_runs(p, class, st->text, &a) &&
           !cs_gate_preview(p->s, &a, &outcome)) { /* the rules have just become others */
        pg_describe(p, class, st->text, pg_in_doubt(p, st), st, &a);
        outcome = CS_ALLOW;
    }
    if (act == PG_PASS && outcome != CS_ALLOW) {
        act = refuse(p, b, "to describe this statement may already run code that needs approval",
                     "Send its values as parameters instead of literals, or bind and execute it "
                     "without asking for its description.");
    }
    if (st->class == NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), class);
    }
    pg_statement_unref(p, st);
    return act;
}

/* ---- again ---- */

static struct pg_statement *copy_of(struct pg *p, const struct pg_statement *st)
{
    struct pg_statement *new = pg_statement_new(p, cs_slice_str(st->name), st->text);
    if (new == NULL) {
        return NULL;
    }
    cs_sql_keep(st->class);
    new->class = st->class;
    new->told = st->told;
    new->doubted = p->unsettled;
    new->types = st->n_types > 0 ? cs_alloc(st->n_types * sizeof *new->types) : NULL;
    if (st->n_types > 0 && new->types == NULL) {
        pg_statement_unref(p, new);
        return NULL;
    }
    for (size_t i = 0; i < st->n_types; i++) {
        new->types[i] = st->types[i];
    }
    new->n_types = st->n_types;
    return new;
}

/* Close and Parse with the client's own text, whose answers are not for the client. What is found
 * under the name then is the new one.
 *
 * SECURITY: the old statement stays stale. If an earlier error makes the target skip these two
 * messages, it is the one that is found next time; only ParseComplete puts the new one there. */
bool pg_prepare_again(struct pg *p, const struct pg_statement *st)
{
    struct pg_statement *new = copy_of(p, st);
    bool named = st->name[0] != 0; /* the unnamed one is replaced as it is */
    struct pg_reply *close = new != NULL &&named ? pg_push(p, PG_REPLY_CLOSE) : NULL;
    if (close != NULL) {
        close->what = 'S';
        close->swallow = true;
        close->name = pg_name_copy(cs_slice_str(st->name));
    }
    bool fine = new != NULL && (!named || (close != NULL && close->name != NULL));
    struct pg_reply *parse = fine ? pg_push(p, PG_REPLY_PARSE) : NULL;
    if (parse == NULL) {
        pg_statement_unref(p, new);
        pg_fatal(p, "53200", "a prepared statement could not be prepared again: out of memory");
        pg_end(p, "a prepared statement could not be prepared again");
        return false;
    }
    parse->swallow = true;
    parse->redacted = new->class->n_secrets > 0;
    parse->statement = new;
    struct cs_buf b = cs_buf(CS_LIMIT_PG_QUERY_BYTES + 8192);
    if (named) {
        size_t at = pg_begin(&b, 'C');
        cs_buf_u8(&b, 'S');
        pg_put_cstr(&b, cs_slice_str(st->name));
        pg_finish(&b, at);
    }
    pg_put_parse(&b, st);
    bool ok = !b.bad && pg_to_server(p, cs_buf_slice(&b));
    cs_buf_done(&b);
    return ok;
}

bool pg_freshen(struct pg *p, struct pg_batch *b, const struct pg_statement *st)
{
    return !st->stale || (pg_pass(p, b) && pg_prepare_again(p, st));
}

bool pg_in_doubt(const struct pg *p, const struct pg_statement *st)
{
    return st->doubted || (st->stale && p->unsettled) ||
           (st->class != NULL && (pg_cursors_run(p, st->class) & CS_SQL_OPAQUE) != 0);
}
