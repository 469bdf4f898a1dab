/* FunctionCall: one message, one function by its number, one verdict. Called by frontend.c. It is
 * an action with the verb FUNCTION CALL, and only rules that name this verb can let it pass
 * (policy/ decide.c). Which numbers there are says calls.def.
 *
 * SECURITY: a number without a row is refused before any rule is asked: what it would call nobody
 * knows. A user's function could be another by the time it runs, and can be called in SQL. */
#include "base/alloc.h"
#include "proto/postgres/frontend.h"
#include "sql/catalogue.h"

#include <stdio.h>

enum { ARGUMENTS_MAX = 3 };

static const struct call_row {
    uint32_t number;
    uint8_t arguments;
    uint8_t effects;
    const char *name;
} calls[] = {
#define PG_CALL(number, arguments, name, effects) {number, arguments, effects, name},
#include "proto/postgres/calls.def"
#undef PG_CALL
};

/* A call being judged. */
struct called {
    const struct call_row *row;
    struct pg_call m;
    struct cs_param params[ARGUMENTS_MAX];
    char text[80];     /* as it is shown: FUNCTION CALL lo_open($1, $2) */
    char settings[32]; /* what it answers in */
    struct cs_slice names[CS_SQL_EFFECT_NAMES];
    struct cs_slice function;
    struct cs_action a;
};

static const struct call_row *row_of(const struct pg_call *m)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(calls); i++) {
        if (calls[i].number == m->function && calls[i].arguments == m->n_params) {
            return &calls[i];
        }
    }
    return NULL;
}

static void read_params(struct called *c)
{
    struct cs_reader values = cs_reader(c->m.params);
    struct cs_reader formats = cs_reader(cs_slice(c->m.formats, c->m.n_formats * 2));
    uint16_t format = 0;
    for (size_t i = 0; i < c->m.n_params && i < CS_ARRAY_LEN(c->params); i++) {
        format = i < c->m.n_formats ? cs_reader_u16(&formats) : c->m.n_formats == 1 ? format : 0;
        uint32_t n = cs_reader_u32(&values);
        c->params[i] = (struct cs_param){.null = n == UINT32_MAX, .format = format};
        c->params[i].bytes = n == UINT32_MAX ? CS_SLICE_NULL : cs_reader_take(&values, n);
    }
}

static void write_text(struct called *c)
{
    static const char *const lists[ARGUMENTS_MAX + 1] = {"", "$1", "$1, $2", "$1, $2, $3"};
    (void)snprintf(c->text, sizeof c->text, "FUNCTION CALL %s(%s)", c->row->name,
                   lists[c->m.n_params]);
    (void)snprintf(c->settings, sizeof c->settings, "result-format=%u\n", c->m.result_format);
    c->function = cs_slice_str(c->row->name);
}

/* In the session's present state. */
static void describe(struct pg *p, struct called *c, const struct cs_sql_class *class)
{
    pg_describe_call(p, class, cs_slice_str(c->text), c->row->effects, &c->function, c->names,
                     &c->a);
    c->a.params = c->params;
    c->a.n_params = c->m.n_params;
    c->a.settings = cs_slice_str(c->settings);
}

static enum pg_act refuse(struct pg *p, struct pg_batch *b, struct cs_verdict *v, const char *why)
{
    pg_refuse(p, v, why, "Call it in SQL.");
    return pg_pass(p, b) && pg_deny_simple(p, v) ? PG_DONE : PG_STOP;
}

static bool push_call(struct pg *p, const struct cs_verdict *v)
{
    struct pg_reply *r = pg_push(p, PG_REPLY_QUERY);
    if (r == NULL) {
        return false;
    }
    r->call = true;
    r->n = r->of = v->n;
    r->granted = v->granted;
    r->grant = v->grant;
    r->record = v->record;
    r->strict = v->strict;
    return true;
}

static enum pg_act hold(struct pg *p, struct called *c, const struct cs_sql_class *class,
                        struct cs_verdict *v, struct cs_slice message)
{
    pg_hold(p, &c->a, class, v);
    if (p->ending || (v->outcome == CS_DENY && v->refusal == CS_REFUSAL_CLOSED)) {
        pg_end(p, p->s->kill.set ? "killed" : "the connection ended while an action was held");
        return PG_STOP;
    }
    if (v->outcome != CS_ALLOW) {
        return pg_deny_simple(p, v) ? PG_DONE : PG_STOP;
    }
    pg_remember(p, &c->a);
    return push_call(p, v) && pg_to_server(p, message) ? PG_DONE : PG_STOP;
}

static enum pg_act judge(struct pg *p, struct pg_batch *b, struct called *c,
                         const struct cs_sql_class *class, struct cs_verdict *v,
                         struct cs_slice message)
{
    if (p->replies.count > 0) { /* it is judged in the state that it will meet */
        enum pg_act first = pg_settle_first(p, b);
        if (first != PG_PASS) {
            return first;
        }
    }
    do {
        describe(p, c, class);
    } while (!cs_gate_decide(p->s, &c->a, NULL, v));
    switch (v->outcome) {
    case CS_ALLOW:
        pg_remember(p, &c->a);
        return push_call(p, v) ? PG_PASS : PG_STOP;
    case CS_HOLD:
        return v->elevated     ? refuse(p, b, v,
                                        "a FunctionCall runs with the everyday credential only, and a "
                                            "rule wants the elevated one")
               : pg_pass(p, b) ? hold(p, c, class, v, message)
                               : PG_STOP;
    case CS_DENY:
    default:
        return pg_pass(p, b) && pg_deny_simple(p, v) ? PG_DONE : PG_STOP;
    }
}

enum pg_act pg_on_call(struct pg *p, struct pg_batch *b, const struct pg_frame *f)
{
    struct called c = {.row = NULL};
    if (!pg_parse_call(f->body, &c.m)) {
        return pg_violation(p, "malformed FunctionCall");
    }
    if (p->copy_in) {
        return pg_violation(p, "FunctionCall in the middle of COPY");
    }
    struct cs_verdict *v = cs_verdict_new(p->s);
    /* It says nothing of the call: no text does. What a user has defined changes none of these. */
    const struct cs_sql_class *class = pg_classify_now(p, CS_SLICE_LIT("SELECT 1"));
    enum pg_act act = PG_STOP;
    if (v == NULL || class == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
    } else if ((c.row = row_of(&c.m)) == NULL) {
        act = refuse(p, b, v,
                     "FunctionCall names a function by number, and this one is none of large "
                     "objects' with so many arguments");
    } else {
        read_params(&c);
        write_text(&c);
        act = judge(p, b, &c, class, v, cs_slice_head(cs_slice_from(b->in, b->at), f->total));
    }
    cs_verdict_free(p->s, v);
    if (class != NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), class);
    }
    return act;
}
