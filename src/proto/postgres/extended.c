/* The extended query: Parse names a statement, Bind gives it parameters, Execute runs the portal.
 * Called by frontend.c. The verdict is Bind's, because planning it may already run functions and
 * only then the parameters are known; no Execute may run a portal whose Bind was not judged. */
#include "base/alloc.h"
#include "proto/postgres/frontend.h"

#include <stdio.h>

/* ---- Parse ---- */

static struct pg_statement *statement_of(struct pg *p, const struct pg_parse *m)
{
    struct pg_statement *st = pg_statement_new(p, m->name, m->text);
    if (st == NULL) {
        return NULL;
    }
    st->class = pg_classify(p, m->text);
    st->types = m->n_types > 0 ? cs_alloc(m->n_types * sizeof *st->types) : NULL;
    if (st->class == NULL || (m->n_types > 0 && st->types == NULL)) {
        pg_statement_unref(p, st);
        return NULL;
    }
    struct cs_reader r = cs_reader(cs_slice(m->types, m->n_types * 4));
    for (size_t i = 0; i < m->n_types; i++) {
        st->types[i] = cs_reader_u32(&r);
    }
    st->n_types = m->n_types;
    return st;
}

/* Refuses the Parse of a statement that would be denied. False: it is not decided, describe it
 * again. */
static bool deny_parse(struct pg *p, struct pg_batch *b, const struct cs_action *a,
                       enum pg_act *ret)
{
    struct cs_verdict *v = cs_alloc(sizeof *v);
    bool decided = true;
    *ret = PG_STOP;
    if (v != NULL) {
        decided = cs_gate_decide(p->s, a, NULL, v); /* recorded like any other denial */
        if (decided && v->outcome == CS_DENY && pg_pass(p, b) && pg_deny_extended(p, v)) {
            *ret = PG_DONE;
        }
    }
    cs_free(v);
    return decided;
}

/* Parse runs nothing of the statement but what its literals run (prepare.c keeps such a text back);
 * a statement that would be denied is refused here already; one that would be held is decided when
 * its parameters are known, at Bind. */
enum pg_act pg_on_parse(struct pg *p, struct pg_batch *b, const struct pg_frame *f)
{
    struct pg_parse m;
    struct cs_action a;
    if (!pg_parse_parse(f->body, &m)) {
        return pg_violation(p, "malformed Parse");
    }
    p->group_open = true;
    if (m.name.n > CS_LIMIT_PG_NAME_BYTES) {
        return pg_refuse_extended(p, b, "a statement name is longer than 63 bytes");
    }
    if (p->elevated != NULL) {
        return pg_refuse_extended(p, b, "an approved statement runs alone in its group");
    }
    if (m.text.n > CS_LIMIT_PG_STATEMENT_BYTES - p->names.bytes) {
        return pg_refuse_extended(p, b,
                                  "the prepared statements of this session are too large together");
    }
    if (p->unsettled && p->replies.count > 0) {
        enum pg_act first = pg_settle_first(p, b);
        if (first != PG_PASS) {
            return first;
        }
    }
    struct pg_statement *st = statement_of(p, &m);
    if (st == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
        return PG_STOP;
    }
    st->doubted = p->unsettled;
    enum cs_outcome preview = CS_DENY;
    enum pg_act denied = PG_STOP;
    bool known = false;
    while (!known) {
        pg_describe(p, st->class, st->text, st->doubted, st, &a);
        known = cs_gate_preview(p->s, &a, &preview);
        if (known && preview == CS_DENY && cs_gate_reads_params(p->s)) {
            preview = CS_HOLD; /* perhaps by values that nobody knows yet: Bind says */
        } else if (known && preview == CS_DENY) {
            known = deny_parse(p, b, &a, &denied);
        }
    }
    if (preview == CS_DENY) {
        pg_statement_unref(p, st);
        return denied;
    }
    if (preview != CS_ALLOW && pg_prepare_runs(p, st->class, st->text, &a)) {
        return pg_prepare_later(p, b, st);
    }
    struct pg_reply *r = pg_push(p, PG_REPLY_PARSE);
    if (r == NULL) {
        pg_statement_unref(p, st);
        return PG_STOP;
    }
    r->statement = st;
    r->redacted = a.redacted;
    return PG_PASS;
}

/* ---- Bind ---- */

static void read_params(const struct pg_bind *m, const struct pg_statement *st,
                        struct cs_param *out)
{
    struct cs_reader values = cs_reader(m->params);
    struct cs_reader formats = cs_reader(cs_slice(m->formats, m->n_formats * 2));
    uint16_t format = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        if (i < m->n_formats) { /* none: text; one: for all; else one each */
            format = cs_reader_u16(&formats);
        } else if (m->n_formats > 1) {
            format = 0;
        }
        uint32_t n = cs_reader_u32(&values);
        out[i].null = n == UINT32_MAX;
        out[i].bytes = out[i].null ? CS_SLICE_NULL : cs_reader_take(&values, n);
        out[i].format = format;
        out[i].type = i < st->n_types ? st->types[i] : 0;
    }
}

/* What of the parameters is secret, by its place in the text or by itself, is replaced in what
 * leaves the gate; the message keeps it. */
struct secret_params {
    struct cs_arena mem; /* of what stands in their place */
    bool redacted, unkeyed;
};

static void redact_param(struct pg *p, const struct cs_redact_span *spans, size_t n,
                         struct cs_param *param, struct secret_params *x)
{
    struct cs_buf out = cs_buf(param->bytes.n + n * 128 + 128);
    bool unkeyed = false;
    cs_gate_redact_value(p->s, spans, n, param->bytes, &out, &unkeyed);
    param->bytes = out.bad ? CS_SLICE_NULL : cs_arena_dup(&x->mem, cs_buf_slice(&out));
    x->redacted = true;
    if (unkeyed || param->bytes.p == NULL) {
        x->unkeyed = true; /* it must not run */
        param->bytes = CS_SLICE_LIT("<redacted>");
    }
    cs_buf_done(&out);
}

/* Others run between the pieces of a long one: it lies in the client's message, which waits for us,
 * and nothing is described yet. */
static size_t secrets_of(struct cs_slice value, struct cs_redact_span spans[static CS_REDACT_SPANS])
{
    bool marked = value.n <= CS_LIMIT_PIECE_BYTES;
    for (struct cs_slice rest = value; !marked && rest.n > 0;) {
        struct cs_slice piece = cs_slice_head(rest, CS_LIMIT_PIECE_BYTES);
        rest = cs_slice_from(rest, piece.n);
        marked = cs_sql_value_marked(piece);
        (void)cs_co_breathe(); /* cancelled: the next wait says so */
    }
    return marked ? cs_sql_value_secrets(value, spans) : 0;
}

enum { PARAMS_PIECE = 256 };

static void redact_params(struct pg *p, const struct cs_sql_class *class, struct cs_param *params,
                          size_t n, struct secret_params *x)
{
    struct cs_redact_span spans[CS_REDACT_SPANS];
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        if (i % PARAMS_PIECE == PARAMS_PIECE - 1) {
            (void)cs_co_breathe(); /* as in secrets_of() */
        }
        if (params[i].null) {
            continue;
        }
        if ((class->secret_params >> CS_MIN(i, (size_t)63) & 1) != 0) {
            spans[k++] = (struct cs_redact_span){0, (uint32_t)params[i].bytes.n, CS_REDACT_PART};
        } else {
            k = secrets_of(params[i].bytes, spans);
        }
        if (k > 0) {
            redact_param(p, spans, k, &params[i], x);
        }
    }
}

static bool push_bind(struct pg *p, const struct pg_bind *m, const struct pg_statement *st,
                      const struct cs_action *a, const struct cs_verdict *v)
{
    struct pg_portal *po = cs_alloc(sizeof *po);
    struct pg_reply *r = po != NULL ? pg_push(p, PG_REPLY_BIND) : NULL;
    if (r == NULL) {
        cs_free(po);
        pg_end(p, "out of memory");
        return false;
    }
    po->n = v->n;
    po->changing = a->changing;
    po->granted = v->granted;
    po->grant = v->grant;
    po->redacted = r->redacted = a->redacted;
    po->record = v->record;
    po->strict = r->strict = v->strict;
    po->copy = v->granted && v->uncovered ? PG_COPY_UNCOVERED : PG_COPY_NONE;
    pg_cursors_sent(p, st->class, a, m->portal);
    po->doubted = st->class != NULL && pg_in_doubt(p, st);
    if (po->doubted || (st->class != NULL && pg_names_change(st->class, a->narrowed))) {
        cs_sql_keep(st->class);
        po->class = st->class;
        po->text = pg_name_copy(st->text);
    }
    if (m->portal.n > 0) {
        memcpy(po->name, m->portal.p, m->portal.n);
    }
    r->portal = po;
    r->n = v->n; /* until Execute takes it over: a Bind that fails is the result */
    r->granted = v->granted;
    r->grant = v->grant;
    p->group_open = true;
    p->group_ran = true; /* Bind runs input functions and folds immutable ones */
    pg_remember(p, a);
    return true;
}

/* The group on the everyday connection ends at the target; the client hears nothing of it. */
static bool end_group(struct pg *p)
{
    struct pg_reply *r = pg_push(p, PG_REPLY_SYNC);
    if (r == NULL) {
        return false;
    }
    r->swallow = true;
    if (!pg_to_server(p, cs_slice("S\0\0\0\4", 5))) {
        return false;
    }
    p->group_open = false;
    /* SECURITY: what is answered meanwhile is not what the client wants cancelled. */
    p->cancel_waits = true;
    bool settled = pg_settle(p);
    p->cancel_waits = false;
    return settled;
}

/* What was parsed in a group keeps its tables locked at the target until the group ends: nobody
 * shall wait for a table because somebody waits for an approval. A statement outlives its group;
 * where something ran in it, or a portal is open, the group is a transaction and stays. */
static bool unlock(struct pg *p)
{
    bool only_parsed = p->group_open && !p->group_ran && p->up.tx == 'I' && pg_portal_count(p) == 0;
    return !only_parsed || end_group(p);
}

/* The approved Bind goes to the elevated connection, where its statement is prepared again; the
 * group on the everyday connection is closed. */
bool pg_elevated_group(struct pg *p, const struct pg_statement *st, struct cs_verdict *v,
                       struct cs_buf *ret_error)
{
    if ((p->group_open && !end_group(p)) || !pg_elevate(p, v) ||
        !pg_elevated_prepare(p, st, v, ret_error)) {
        return false;
    }
    p->group_open = true;
    return true;
}

static enum pg_act elevated_bind(struct pg *p, const struct pg_bind *m,
                                 const struct pg_statement *st, struct cs_action *a,
                                 struct cs_verdict *v, struct cs_slice message)
{
    struct cs_buf error = cs_buf(CS_LIMIT_PG_SERVER_CONTROL_BYTES + 8);
    bool ok = false;
    if (pg_elevated_group(p, st, v, &error)) {
        ok = push_bind(p, m, st, a, v) && pg_to_server(p, message);
    } else if (v->outcome == CS_ALLOW) { /* before the elevated connection was asked for */
        pg_nothing_ran(p, v, CS_RAN_NOT, CS_REFUSAL_UNAVAILABLE, NULL,
                       "the everyday connection broke first");
        pg_end(p, "the elevated connection failed");
    } else if (p->ending) {
        pg_end(p, "the elevated connection failed");
    } else {
        ok = pg_deny_extended_with(p, v, cs_buf_slice(&error));
    }
    cs_buf_done(&error);
    return ok ? PG_DONE : PG_STOP;
}

static enum pg_act hold_bind(struct pg *p, const struct pg_bind *m, const struct pg_statement *st,
                             struct cs_action *a, const struct cs_sql_class *class,
                             struct cs_verdict *v, struct cs_slice message)
{
    if (!unlock(p)) {
        return PG_STOP;
    }
    /* SECURITY: what SQL prepared has no class of its own, and is not there either. */
    if (v->elevated && (st->class == NULL || pg_needs_session(st->class))) {
        pg_refuse(p, v, PG_NEEDS_SESSION, PG_NEEDS_SESSION_HINT);
        return pg_deny_extended(p, v) ? PG_DONE : PG_STOP;
    }
    pg_hold(p, a, class, v);
    if (p->ending || (v->outcome == CS_DENY && v->refusal == CS_REFUSAL_CLOSED)) {
        pg_end(p, p->s->kill.set ? "killed" : "the connection ended while an action was held");
        return PG_STOP;
    }
    if (v->outcome == CS_ALLOW && v->elevated) {
        return elevated_bind(p, m, st, a, v, message);
    }
    if (v->outcome != CS_ALLOW) {
        return pg_deny_extended(p, v) ? PG_DONE : PG_STOP;
    }
    if (st->stale && !pg_prepare_again(p, st)) {
        return PG_STOP;
    }
    return push_bind(p, m, st, a, v) && pg_to_server(p, message) ? PG_DONE : PG_STOP;
}

/* False: it is not decided, describe it again. */
static bool decide_bind(struct pg *p, struct pg_batch *b, const struct pg_bind *m,
                        struct pg_statement *st, struct cs_action *a,
                        const struct cs_sql_class *class, struct cs_verdict *v,
                        struct cs_slice message, enum pg_act *ret)
{
    bool certain = a->facts.v[CS_FACT_SQL_TX].state == CS_FACT_KNOWN;
    bool same =
        st->class != NULL && certain && !pg_in_doubt(p, st) && pg_cursors_run(p, st->class) == 0;
    if (!cs_gate_decide(p->s, a, same ? &st->memo : NULL, v)) {
        return false;
    }
    *ret = PG_STOP;
    switch (v->outcome) {
    case CS_ALLOW:
        *ret = pg_freshen(p, b, st) && push_bind(p, m, st, a, v) ? PG_PASS : PG_STOP;
        break;
    case CS_HOLD:
        *ret = pg_pass(p, b) ? hold_bind(p, m, st, a, class, v, message) : PG_STOP;
        break;
    case CS_DENY:
    default:
        *ret = pg_pass(p, b) && pg_deny_extended(p, v) ? PG_DONE : PG_STOP;
        break;
    }
    return true;
}

static void describe_bind(struct pg *p, const struct cs_sql_class *class, struct pg_statement *st,
                          const struct cs_param *params, size_t n_params,
                          struct secret_params *secrets, struct cs_slice names[static 6],
                          struct cs_buf *settings, struct cs_action *a)
{
    pg_describe(p, class, st->text, pg_in_doubt(p, st), st, a);
    a->params = params;
    a->n_params = n_params;
    if (cs_gate_reads_params(p->s) && !secrets->redacted) { /* a mark is not the value */
        (void)cs_params_fact(params, n_params, &secrets->mem, &a->facts.v[CS_FACT_SQL_PARAMS]);
    }
    a->redacted = a->redacted || secrets->redacted;
    a->unkeyed = a->unkeyed || secrets->unkeyed;
    if (st->class == NULL) { /* made by SQL PREPARE */
        settings->len = 0;
        struct pg_statement effective = *st;
        effective.effects = pg_prepared_effects(p, st, class);
        pg_describe_prepared(p, a, &effective, names, settings);
    }
}

/* A COPY FROM STDIN that needs its data to be judged: that comes behind Execute. To bind it runs
 * nothing (it has no plan and no parameters), so the target may be told; what Execute runs is asked
 * there. FETCH and MOVE do not run such a portal. */
static enum pg_act bind_copy(struct pg *p, const struct pg_bind *m, struct pg_statement *st)
{
    struct pg_portal *po = cs_alloc(sizeof *po);
    struct pg_reply *r = po != NULL ? pg_push(p, PG_REPLY_BIND) : NULL;
    if (r == NULL) {
        cs_free(po);
        pg_end(p, "out of memory");
        return PG_STOP;
    }
    po->changing = true;
    po->copies = pg_statement_ref(st);
    if (m->portal.n > 0) {
        memcpy(po->name, m->portal.p, m->portal.n);
    }
    r->portal = po;
    p->group_open = true;
    return PG_PASS;
}

static enum pg_act judge_bind(struct pg *p, struct pg_batch *b, const struct pg_bind *m,
                              struct pg_statement *st, struct cs_slice message)
{
    CS_UNINIT struct cs_param few[8];
    struct cs_param *params =
        m->n_params <= CS_ARRAY_LEN(few) ? few : cs_alloc(m->n_params * sizeof *params);
    struct cs_verdict *v = cs_verdict_new(p->s);
    struct cs_buf settings = cs_buf(2 * CS_LIMIT_PG_QUERY_BYTES);
    struct cs_slice names[6];
    CS_UNINIT struct cs_action a; /* pg_describe writes it whole */
    enum pg_act act = PG_STOP;
    struct secret_params secrets = {.redacted = false};
    cs_arena_init(&secrets.mem, 1024, (size_t)4 * CS_LIMIT_PG_BIND_BYTES);
    pg_statement_ref(st);
    const struct cs_sql_class *class = st->class != NULL ? st->class : pg_classify_now(p, st->text);
    if (params != NULL && v != NULL && class != NULL) {
        read_params(m, st, params);
        redact_params(p, class, params, m->n_params, &secrets);
        bool decided = false;
        while (!decided) { /* more than once where rules or catalogue change in the middle */
            describe_bind(p, class, st, params, m->n_params, &secrets, names, &settings, &a);
            act = PG_PASS;
            if (p->replies.count > 0 && !pg_surely_allowed(p, &a)) {
                act = pg_settle_first(p, b);
                describe_bind(p, class, st, params, m->n_params, &secrets, names, &settings, &a);
            }
            decided = act != PG_PASS;
            if (!decided && m->n_params == 0 && st->class != NULL && !pg_in_doubt(p, st) &&
                pg_copy_wanted(p, class, &a)) {
                act = pg_freshen(p, b, st) ? bind_copy(p, m, st) : PG_STOP;
                decided = true;
            } else if (!decided) {
                decided = decide_bind(p, b, m, st, &a, class, v, message, &act);
            }
        }
    } else {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
    }
    if (class != NULL && st->class == NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), class);
    }
    pg_statement_unref(p, st);
    cs_buf_done(&settings);
    cs_verdict_free(p->s, v);
    cs_arena_done(&secrets.mem);
    if (params != few) {
        cs_free(params);
    }
    return act;
}

enum pg_act pg_on_bind(struct pg *p, struct pg_batch *b, const struct pg_frame *f)
{
    struct pg_bind m;
    if (!pg_parse_bind(f->body, &m)) {
        return pg_violation(p, "malformed Bind");
    }
    p->group_open = true;
    if (m.portal.n > CS_LIMIT_PG_NAME_BYTES || m.statement.n > CS_LIMIT_PG_NAME_BYTES) {
        return pg_refuse_extended(p, b, "a name is longer than 63 bytes");
    }
    if (p->elevated != NULL) {
        return pg_refuse_extended(p, b, "an approved statement runs alone in its group");
    }
    if (pg_portal_count(p) >= CS_LIMIT_PG_PORTALS) {
        return pg_refuse_extended(p, b, "too many portals are open");
    }
    bool wait;
    struct pg_statement *st = pg_statement_find(p, m.statement, &wait);
    if (wait) {
        enum pg_act first = pg_settle_first(p, b);
        if (first != PG_PASS) {
            return first;
        }
        st = pg_statement_find(p, m.statement, &wait);
    }
    if (st == NULL) {
        /* Unknown to us is opaque, and nobody could read it on a card: refused. Where the target
         * does not know it either, that is what it would have said. */
        return pg_refuse_extended(p, b, "a prepared statement that Countersign has not seen");
    }
    return judge_bind(p, b, &m, st, cs_slice_head(cs_slice_from(b->in, b->at), f->total));
}

/* ---- Execute, Describe, Close ---- */

static enum pg_act execute_copy(struct pg *p, struct pg_batch *b, struct cs_slice name,
                                struct cs_slice message)
{
    enum pg_act first = pg_settle_first(p, b);
    if (first != PG_PASS) {
        return first;
    }
    struct pg_portal *po = pg_portal_find(p, name);
    if (po == NULL || po->copies == NULL) {
        return pg_refuse_extended(p, b, "a portal that is gone");
    }
    po->executed = true;
    return pg_copy_begin(p, po->copies->class, po->copies, name, message);
}

enum pg_act pg_on_execute(struct pg *p, struct pg_batch *b, const struct pg_frame *f)
{
    struct cs_slice name;
    if (!pg_parse_execute(f->body, &name)) {
        return pg_violation(p, "malformed Execute");
    }
    if (name.n > CS_LIMIT_PG_NAME_BYTES) {
        return pg_refuse_extended(p, b, "a name is longer than 63 bytes");
    }
    struct pg_portal *po = pg_portal_find(p, name);
    if (po != NULL && po->changing && po->executed && !po->suspended) {
        return pg_refuse_extended(p, b, "a portal that changes data runs once: bind it again");
    }
    if (po == NULL && pg_cursor_runs(p, name) != 0) {
        return pg_refuse_extended(p, b, "a cursor that does more than read: FETCH from it");
    }
    if (po != NULL && po->copies != NULL) {
        return execute_copy(p, b, name, cs_slice_head(cs_slice_from(b->in, b->at), f->total));
    }
    struct pg_reply *r = pg_push(p, PG_REPLY_EXECUTE);
    if (r == NULL) {
        return PG_STOP;
    }
    r->name = pg_name_copy(name);
    p->group_open = p->group_ran = true;
    if (po != NULL) {
        po->executed = true;
        r->n = po->n;
        r->granted = po->granted;
        r->grant = po->grant;
        r->redacted = po->redacted;
        r->of = po->n;
        r->record = po->record;
        r->strict = po->strict;
        r->copy = po->copy;
        po->granted = false;
        if (po->class != NULL) {
            cs_sql_keep(po->class);
            r->class = po->class;
            r->text = pg_name_copy(cs_slice_str(po->text != NULL ? po->text : ""));
            r->doubted = po->doubted;
        }
        /* From here on Execute's answer is the action's result, unless its Bind fails first: then
         * the whole rest of the group is skipped and skip_to_sync() drops this entry. */
    }
    return PG_PASS;
}

enum pg_act pg_on_describe_or_close(struct pg *p, struct pg_batch *b, const struct pg_frame *f)
{
    uint8_t what;
    struct cs_slice name;
    if (!pg_parse_target(f->body, &what, &name)) {
        return pg_violation(p, f->type == 'D' ? "malformed Describe" : "malformed Close");
    }
    if (name.n > CS_LIMIT_PG_NAME_BYTES) {
        return pg_refuse_extended(p, b, "a name is longer than 63 bytes");
    }
    /* What the client is told of a statement is compared with what an elevated connection says. */
    struct pg_statement *st = NULL;
    if (f->type == 'D' && what == 'S' && p->elevated == NULL) {
        bool wait;
        st = pg_statement_find(p, name, &wait);
        if (wait) {
            enum pg_act first = pg_settle_first(p, b);
            if (first != PG_PASS) {
                return first;
            }
            st = pg_statement_find(p, name, &wait);
        }
        if (st != NULL) {
            enum pg_act may = pg_before_describe(p, b, st);
            if (may != PG_PASS) {
                return may;
            }
            st = pg_statement_find(p, name, &wait);
        }
        if (st != NULL && st->stale) {
            if (!pg_freshen(p, b, st)) {
                return PG_STOP;
            }
            st = pg_statement_find(p, name, &wait);
        }
    }
    struct pg_reply *r = pg_push(p, f->type == 'D' ? PG_REPLY_DESCRIBE : PG_REPLY_CLOSE);
    if (r == NULL) {
        return PG_STOP;
    }
    const struct pg_portal *po = f->type == 'D' && what == 'P' ? pg_portal_find(p, name) : NULL;
    if (po != NULL) {
        r->of = po->n;
        r->record = po->record;
    }
    r->what = what;
    r->name = pg_name_copy(cs_slice_head(name, CS_LIMIT_PG_NAME_BYTES));
    r->statement = st != NULL ? pg_statement_ref(st) : NULL;
    p->group_open = true;
    return PG_PASS;
}
