/* The client's messages: each one that can do something becomes an action, gets its verdict, and is
 * forwarded, held or refused. No byte of a message goes to the target before its verdict; a run of
 * messages with one fate leaves in one write. */
#include "base/alloc.h"
#include "base/log.h"
#include "proto/postgres/postgres_internal.h"

#include <stdio.h>

enum act {
    STOP = 0, /* leave it where it is: something else must happen first, or the session ends */
    PASS,     /* part of the run that is forwarded as it is */
    DONE,     /* dealt with: not forwarded from here */
};

struct batch {
    struct cs_slice in;
    size_t at, pass_from;
};

static bool pass(struct pg *p, struct batch *b)
{
    struct cs_slice range = cs_slice_head(cs_slice_from(b->in, b->pass_from), b->at - b->pass_from);
    b->pass_from = b->at;
    return range.n == 0 || pg_to_server(p, range);
}

static enum act violation(struct pg *p, const char *what)
{
    cs_log(CS_EV_PROTOCOL_ERROR, &p->s->id, "client: %s", what);
    cs_gate_note(p->s, "protocol error of the client: %s", what);
    pg_fatal(p, "08P01", what);
    pg_end(p, "protocol error of the client");
    return STOP;
}

static char *name_copy(struct cs_slice s)
{
    char *c = s.n > 0 ? cs_alloc(s.n + 1) : NULL;
    if (c != NULL) {
        memcpy(c, s.p, s.n);
    }
    return c;
}

/* ---- classification ---- */

struct classify {
    struct cs_sql *sql;
    struct cs_slice text;
    const struct cs_sql_class *class;
};

static void classify_deep(void *arg)
{
    struct classify *c = arg;
    c->class = cs_sql_classify(c->sql, c->text);
}

/* The parser recurses: on a miss it runs on the process's big stack. */
static const struct cs_sql_class *classify(struct pg *p, struct cs_slice text)
{
    struct classify c = {cs_gate_sql(p->s->gate), text, NULL};
    c.class = cs_sql_cached(c.sql, text);
    if (c.class == NULL) {
        cs_big_stack_call(classify_deep, &c);
    }
    return c.class;
}

/* Is the transaction state still open: a ReadyForQuery owed? */
static bool tx_uncertain(struct pg *p)
{
    for (uint32_t i = 0; i < p->replies.count; i++) {
        enum pg_reply_kind k = pg_replies_at(&p->replies, i)->kind;
        if (k == PG_REPLY_QUERY || k == PG_REPLY_SYNC) {
            return true;
        }
    }
    return false;
}

static const char *tx_name(struct pg *p)
{
    uint8_t tx = pg_now(p)->tx;
    return tx == 'E' ? "failed" : tx == 'T' || p->group_ran ? "open" : "idle";
}

static void fact_string(struct cs_action *a, enum cs_fact_id id, struct cs_slice s)
{
    a->facts.v[id].state = CS_FACT_KNOWN;
    a->facts.v[id].u.string = s;
}

static void set_effects(struct cs_action *a, uint8_t effects)
{
    a->changing = (effects & ~(unsigned)(CS_SQL_SESSION | CS_SQL_READ)) != 0;
    a->only_session = effects == CS_SQL_SESSION;
}

/* The action that this text is, in the session's present state. */
static void describe(struct pg *p, const struct cs_sql_class *class, struct cs_slice text,
                     struct cs_action *a)
{
    uint8_t tx = pg_now(p)->tx;
    memset(a, 0, sizeof *a);
    /* First: what follows borrows from the configuration in force, and the decision must find the
     * same one (a reload between the two would leave these slices in unmapped memory). */
    (void)cs_session_refresh(p->s);
    a->protocol = CS_SLICE_LIT("postgres");
    a->bytes = text;
    a->database = cs_gate_database(p->s, false);
    a->role = cs_gate_role(p->s, false);
    a->in_transaction = tx != 'I' || p->group_ran;
    a->tx = a->in_transaction ? cs_buf_slice(&p->ran) : CS_SLICE_NULL;
    cs_sql_facts(class, text, &a->facts);
    fact_string(a, CS_FACT_SQL_DATABASE, a->database);
    fact_string(a, CS_FACT_SQL_ROLE, a->role);
    fact_string(a, CS_FACT_SQL_TX, cs_slice_str(tx_name(p)));
    if (tx_uncertain(p)) {
        a->facts.v[CS_FACT_SQL_TX].state = CS_FACT_UNKNOWN;
    }
    set_effects(a, class->effects);
    a->only_rollback = class->parsed && class->n_statements == 1 && class->n_kept == 1 &&
                       class->statements[0].kind == CS_SQL_ROLLBACK &&
                       class->effects == CS_SQL_SESSION;
}

/* The facts of a prepared statement stand for EXECUTE of its name and for Bind of an SQL-level one:
 * what it does was classified when it was prepared. Its text becomes part of what is approved. */
static void describe_prepared(struct cs_action *a, const struct pg_statement *st,
                              struct cs_slice effect_name[static 6], struct cs_buf *settings)
{
    static const char *const names[6] = {"session", "read", "write", "ddl", "admin", "opaque"};
    size_t n = 0;
    for (unsigned i = 0; i < 6; i++) {
        if ((st->effects & (1U << i)) != 0) {
            effect_name[n++] = cs_slice_str(names[i]);
        }
    }
    struct cs_fact *f = &a->facts.v[CS_FACT_SQL_EFFECTS];
    f->state = CS_FACT_KNOWN;
    f->u.strings.v = effect_name;
    f->u.strings.n = n;
    set_effects(a, st->effects);
    for (int id = CS_FACT_SQL_READS; id <= CS_FACT_SQL_FUNCTIONS; id++) {
        a->facts.v[id].state = CS_FACT_UNKNOWN;
    }
    cs_buf_str(settings, "prepared: ");
    cs_buf_add(settings, st->text);
    cs_buf_u8(settings, '\n');
    a->settings = cs_buf_slice(settings);
}

/* Remembers what ran since the target was last idle: part of the digest of whatever is held later
 * in the same transaction, and on its card. Long texts are there as their hash. */
static void remember(struct pg *p, const struct cs_action *a)
{
    uint8_t sum[CS_SHA256];
    char hex[2 * CS_SHA256 + 1];
    if (p->elevated != NULL) {
        return; /* another connection's transaction */
    }
    if (a->bytes.n <= 1024 && p->ran.len <= 16384) {
        cs_buf_add(&p->ran, a->bytes);
        cs_buf_u8(&p->ran, '\n');
        return;
    }
    const struct cs_slice pieces[2] = {p->ran.len > 16384 ? cs_buf_slice(&p->ran) : CS_SLICE_NULL,
                                       a->bytes};
    cs_sha256_pieces(pieces, 2, sum);
    cs_hex(cs_slice(sum, sizeof sum), hex);
    if (p->ran.len > 16384) {
        p->ran.len = 0;
    }
    cs_buf_printf(&p->ran, "sha256:%s\n", hex);
}

/* Everything that was sent is answered; then what is judged next is judged in the state that it
 * will really meet. DONE: the target would skip the next message anyway. */
static enum act settle_first(struct pg *p, struct batch *b)
{
    if (!pass(p, b) || !pg_settle(p)) {
        return STOP;
    }
    return p->skipping ? DONE : PASS;
}

/* ---- simple query ---- */

static struct pg_reply *push(struct pg *p, enum pg_reply_kind kind)
{
    struct pg_reply *r = pg_replies_push(&p->replies, kind);
    if (r == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
    }
    return r;
}

static bool push_query(struct pg *p, const struct cs_sql_class *class, bool followed,
                       struct cs_slice text, const struct cs_verdict *v)
{
    struct pg_reply *r = push(p, PG_REPLY_QUERY);
    if (r == NULL) {
        return false;
    }
    r->n = v->n;
    r->granted = v->granted;
    r->grant = v->grant;
    if (!followed && pg_names_change(class)) {
        cs_sql_keep(class);
        r->class = class;
        r->text = name_copy(text);
    }
    return true;
}

/* A simple query being judged. `followed`: its effect on names is known to be none (an EXECUTE of a
 * statement that was seen being prepared). */
struct asked {
    const struct cs_sql_class *class;
    bool followed;
    struct cs_slice message;
    struct cs_action a;
};

static enum act hold_query(struct pg *p, struct asked *q, struct cs_verdict *v)
{
    pg_hold(p, &q->a, v);
    if (p->ending || (v->outcome == CS_DENY && v->refusal == CS_REFUSAL_CLOSED)) {
        pg_end(p, p->s->kill.set ? "killed" : "the connection ended while an action was held");
        return STOP;
    }
    if (v->outcome == CS_ALLOW && v->elevated && !pg_elevate(p, v)) {
        v->outcome = CS_DENY;
    }
    if (v->outcome != CS_ALLOW) {
        return pg_deny_simple(p, v) ? DONE : STOP;
    }
    p->elevated_simple = p->elevated != NULL;
    remember(p, &q->a);
    return push_query(p, q->class, q->followed, q->a.bytes, v) && pg_to_server(p, q->message)
               ? DONE
               : STOP;
}

static enum act decide_query(struct pg *p, struct batch *b, struct asked *q, struct cs_verdict *v)
{
    cs_gate_decide(p->s, &q->a, NULL, v);
    switch (v->outcome) {
    case CS_ALLOW:
        remember(p, &q->a);
        return push_query(p, q->class, q->followed, q->a.bytes, v) ? PASS : STOP;
    case CS_HOLD:
        return pass(p, b) ? hold_query(p, q, v) : STOP;
    case CS_DENY:
    default:
        return pass(p, b) && pg_deny_simple(p, v) ? DONE : STOP;
    }
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
    return st == NULL || (st->class != NULL && pg_names_change(st->class)) ? NULL : st;
}

/* What was prepared, and what the parameters of this EXECUTE do themselves. */
static uint8_t effects_of(const struct pg_statement *prepared, const struct cs_sql_class *execute)
{
    uint8_t of_parameters = execute->n_kept > 0 ? execute->statements[0].inner_effects : 0;
    uint8_t own = prepared->class != NULL ? prepared->class->effects : prepared->effects;
    return own | of_parameters;
}

static enum act describe_query(struct pg *p, struct asked *q, struct cs_slice text,
                               struct cs_slice names[static 6], struct cs_buf *settings)
{
    bool wait;
    describe(p, q->class, text, &q->a);
    const struct pg_statement *st = executed(p, q->class, &wait);
    q->followed = st != NULL;
    if (st != NULL) {
        struct pg_statement effective = *st;
        effective.effects = effects_of(st, q->class);
        settings->len = 0;
        describe_prepared(&q->a, &effective, names, settings);
    }
    return wait ? STOP : PASS;
}

/* Anything but a plain allow is judged again when nothing is outstanding: the state of the
 * transaction is part of the question. */
static enum act judge_settled(struct pg *p, struct batch *b, struct asked *q, struct cs_slice text,
                              struct cs_slice names[static 6], struct cs_buf *settings,
                              struct cs_verdict *v)
{
    enum act ready = describe_query(p, q, text, names, settings);
    bool owed = p->replies.count > 0;
    if (ready == STOP || (owed && cs_gate_preview(p->s, &q->a) != CS_ALLOW)) {
        enum act first = settle_first(p, b);
        if (first != PASS) {
            return first;
        }
        (void)describe_query(p, q, text, names, settings);
    }
    return decide_query(p, b, q, v);
}

static enum act judge_query(struct pg *p, struct batch *b, struct cs_slice text,
                            struct cs_slice message)
{
    struct asked q = {.class = classify(p, text), .message = message};
    struct cs_verdict *v = cs_alloc(sizeof *v);
    struct cs_slice names[6];
    struct cs_buf settings = cs_buf(2 * CS_LIMIT_PG_QUERY_BYTES);
    enum act act = STOP;
    if (q.class == NULL || v == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
    } else {
        act = judge_settled(p, b, &q, text, names, &settings, v);
    }
    cs_buf_done(&settings);
    cs_free(v);
    if (q.class != NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), q.class);
    }
    return act;
}

static enum act on_query(struct pg *p, struct batch *b, const struct pg_frame *f)
{
    struct cs_slice text;
    if (!pg_parse_query(f->body, &text)) {
        return violation(p, "malformed Query");
    }
    if (p->copy_in) {
        return violation(p, "Query in the middle of COPY");
    }
    return judge_query(p, b, text, cs_slice_head(cs_slice_from(b->in, b->at), f->total));
}

/* ---- extended query ---- */

/* A refusal of our own making (not of the rules), recorded as a note. */
static enum act refuse_extended(struct pg *p, struct batch *b, const char *message)
{
    struct cs_verdict *v = cs_alloc(sizeof *v);
    bool ok = false;
    if (v != NULL) {
        v->outcome = CS_DENY;
        v->refusal = CS_REFUSAL_RULE;
        v->n = p->s->actions;
        (void)snprintf(v->message, sizeof v->message, "Countersign denied this: %s", message);
        cs_gate_note(p->s, "refused: %s", message);
        ok = pass(p, b) && pg_deny_extended(p, v);
        cs_free(v);
    }
    return ok ? DONE : STOP;
}

static struct pg_statement *statement_of(struct pg *p, const struct pg_parse *m)
{
    struct pg_statement *st = pg_statement_new(p, m->name, m->text);
    if (st == NULL) {
        return NULL;
    }
    st->class = classify(p, m->text);
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

/* Parse runs nothing of the statement, but a statement that would be denied is refused here
 * already; one that would be held is decided when its parameters are known, at Bind. */
static enum act on_parse(struct pg *p, struct batch *b, const struct pg_frame *f)
{
    struct pg_parse m;
    struct cs_action a;
    if (!pg_parse_parse(f->body, &m)) {
        return violation(p, "malformed Parse");
    }
    p->group_open = true;
    if (m.name.n > CS_LIMIT_PG_NAME_BYTES) {
        return refuse_extended(p, b, "a statement name is longer than 63 bytes");
    }
    if (p->elevated != NULL) {
        return refuse_extended(p, b, "an approved statement runs alone in its group");
    }
    if (m.text.n > CS_LIMIT_PG_STATEMENT_BYTES - p->names.bytes) {
        return refuse_extended(p, b,
                               "the prepared statements of this session are too large together");
    }
    struct pg_statement *st = statement_of(p, &m);
    if (st == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
        return STOP;
    }
    describe(p, st->class, st->text, &a);
    if (cs_gate_preview(p->s, &a) == CS_DENY) {
        struct cs_verdict *v = cs_alloc(sizeof *v);
        bool ok = false;
        if (v != NULL) {
            cs_gate_decide(p->s, &a, NULL, v); /* recorded like any other denial */
            ok = v->outcome == CS_DENY && pass(p, b) && pg_deny_extended(p, v);
        }
        cs_free(v);
        pg_statement_unref(p, st);
        return ok ? DONE : STOP;
    }
    struct pg_reply *r = push(p, PG_REPLY_PARSE);
    if (r == NULL) {
        pg_statement_unref(p, st);
        return STOP;
    }
    r->statement = st;
    return PASS;
}

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

static bool push_bind(struct pg *p, const struct pg_bind *m, const struct pg_statement *st,
                      const struct cs_action *a, const struct cs_verdict *v)
{
    struct pg_portal *po = cs_alloc(sizeof *po);
    struct pg_reply *r = po != NULL ? push(p, PG_REPLY_BIND) : NULL;
    if (r == NULL) {
        cs_free(po);
        pg_end(p, "out of memory");
        return false;
    }
    po->n = v->n;
    po->changing = a->changing;
    po->granted = v->granted;
    po->grant = v->grant;
    if (st->class != NULL && pg_names_change(st->class)) {
        cs_sql_keep(st->class);
        po->class = st->class;
        po->text = name_copy(st->text);
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
    remember(p, a);
    return true;
}

/* The approved Bind goes to the elevated connection: its statement is prepared there again, with
 * the client's own types, under the same name; the group on the everyday connection is closed. */
static bool elevate_bind(struct pg *p, const struct pg_statement *st, struct cs_verdict *v)
{
    if (p->group_open) {
        struct pg_reply *r = push(p, PG_REPLY_SYNC);
        if (r == NULL) {
            return false;
        }
        r->swallow = true;
        if (!pg_to_server(p, cs_slice("S\0\0\0\4", 5))) {
            return false;
        }
        p->group_open = false;
        if (!pg_settle(p)) {
            return false;
        }
    }
    if (!pg_elevate(p, v)) {
        return false;
    }
    struct pg_reply *r = push(p, PG_REPLY_PARSE);
    struct cs_buf b = cs_buf(CS_LIMIT_PG_QUERY_BYTES + 4096);
    if (r == NULL) {
        return false;
    }
    r->swallow = true;
    size_t at = pg_begin(&b, 'P');
    pg_put_cstr(&b, cs_slice_str(st->name));
    pg_put_cstr(&b, st->text);
    pg_put_u16(&b, (uint16_t)st->n_types);
    for (size_t i = 0; i < st->n_types; i++) {
        pg_put_u32(&b, st->types[i]);
    }
    pg_finish(&b, at);
    bool ok = !b.bad && pg_to_server(p, cs_buf_slice(&b));
    cs_buf_done(&b);
    p->group_open = true;
    return ok;
}

static enum act hold_bind(struct pg *p, const struct pg_bind *m, const struct pg_statement *st,
                          struct cs_action *a, struct cs_verdict *v, struct cs_slice message)
{
    pg_hold(p, a, v);
    if (p->ending || (v->outcome == CS_DENY && v->refusal == CS_REFUSAL_CLOSED)) {
        pg_end(p, p->s->kill.set ? "killed" : "the connection ended while an action was held");
        return STOP;
    }
    if (v->outcome == CS_ALLOW && v->elevated && !elevate_bind(p, st, v)) {
        if (p->ending || v->outcome == CS_ALLOW) {
            pg_end(p, "the elevated connection failed");
            return STOP;
        }
    }
    if (v->outcome != CS_ALLOW) {
        return pg_deny_extended(p, v) ? DONE : STOP;
    }
    return push_bind(p, m, st, a, v) && pg_to_server(p, message) ? DONE : STOP;
}

static enum act decide_bind(struct pg *p, struct batch *b, const struct pg_bind *m,
                            struct pg_statement *st, struct cs_action *a, bool own_facts,
                            struct cs_verdict *v, struct cs_slice message)
{
    bool certain = a->facts.v[CS_FACT_SQL_TX].state == CS_FACT_KNOWN;
    cs_gate_decide(p->s, a, own_facts && certain ? &st->memo : NULL, v);
    switch (v->outcome) {
    case CS_ALLOW:
        return push_bind(p, m, st, a, v) ? PASS : STOP;
    case CS_HOLD:
        return pass(p, b) ? hold_bind(p, m, st, a, v, message) : STOP;
    case CS_DENY:
    default:
        return pass(p, b) && pg_deny_extended(p, v) ? DONE : STOP;
    }
}

static void describe_bind(struct pg *p, const struct cs_sql_class *class, struct pg_statement *st,
                          struct cs_slice names[static 6], struct cs_buf *settings,
                          struct cs_action *a)
{
    struct cs_action fresh;
    describe(p, class, st->text, &fresh);
    fresh.params = a->params;
    fresh.n_params = a->n_params;
    *a = fresh;
    if (st->class == NULL) { /* made by SQL PREPARE */
        settings->len = 0;
        describe_prepared(a, st, names, settings);
    }
}

static enum act judge_bind(struct pg *p, struct batch *b, const struct pg_bind *m,
                           struct pg_statement *st, struct cs_slice message)
{
    struct cs_param few[8],
        *params = m->n_params <= CS_ARRAY_LEN(few) ? few : cs_alloc(m->n_params * sizeof *params);
    struct cs_verdict *v = cs_alloc(sizeof *v);
    struct cs_buf settings = cs_buf(2 * CS_LIMIT_PG_QUERY_BYTES);
    struct cs_slice names[6];
    struct cs_action a;
    enum act act = STOP;
    pg_statement_ref(st);
    const struct cs_sql_class *class = st->class != NULL ? st->class : classify(p, st->text);
    if (params != NULL && v != NULL && class != NULL) {
        read_params(m, st, params);
        memset(&a, 0, sizeof a);
        a.params = params;
        a.n_params = m->n_params;
        describe_bind(p, class, st, names, &settings, &a);
        act = PASS;
        if (p->replies.count > 0 && cs_gate_preview(p->s, &a) != CS_ALLOW) {
            act = settle_first(p, b);
            describe_bind(p, class, st, names, &settings, &a);
        }
        if (act == PASS) {
            act = decide_bind(p, b, m, st, &a, st->class != NULL, v, message);
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
    cs_free(v);
    if (params != few) {
        cs_free(params);
    }
    return act;
}

static enum act on_bind(struct pg *p, struct batch *b, const struct pg_frame *f)
{
    struct pg_bind m;
    if (!pg_parse_bind(f->body, &m)) {
        return violation(p, "malformed Bind");
    }
    p->group_open = true;
    if (m.portal.n > CS_LIMIT_PG_NAME_BYTES || m.statement.n > CS_LIMIT_PG_NAME_BYTES) {
        return refuse_extended(p, b, "a name is longer than 63 bytes");
    }
    if (p->elevated != NULL) {
        return refuse_extended(p, b, "an approved statement runs alone in its group");
    }
    if (m.n_params > CS_PARAMS_MAX) {
        return refuse_extended(p, b, "more than 1024 parameters");
    }
    if (pg_portal_count(p) >= CS_LIMIT_PG_PORTALS) {
        return refuse_extended(p, b, "too many portals are open");
    }
    bool wait;
    struct pg_statement *st = pg_statement_find(p, m.statement, &wait);
    if (wait) {
        enum act first = settle_first(p, b);
        if (first != PASS) {
            return first;
        }
        st = pg_statement_find(p, m.statement, &wait);
    }
    if (st == NULL) {
        /* Unknown to us is opaque, and nobody could read it on a card: refused. Where the target
         * does not know it either, that is what it would have said. */
        return refuse_extended(p, b, "a prepared statement that Countersign has not seen");
    }
    return judge_bind(p, b, &m, st, cs_slice_head(cs_slice_from(b->in, b->at), f->total));
}

static enum act on_execute(struct pg *p, struct batch *b, const struct pg_frame *f)
{
    struct cs_slice name;
    if (!pg_parse_execute(f->body, &name)) {
        return violation(p, "malformed Execute");
    }
    if (name.n > CS_LIMIT_PG_NAME_BYTES) {
        return refuse_extended(p, b, "a name is longer than 63 bytes");
    }
    struct pg_portal *po = pg_portal_find(p, name);
    if (po != NULL && po->changing && po->executed && !po->suspended) {
        return refuse_extended(p, b, "a portal that changes data runs once: bind it again");
    }
    struct pg_reply *r = push(p, PG_REPLY_EXECUTE);
    if (r == NULL) {
        return STOP;
    }
    r->name = name_copy(name);
    p->group_open = p->group_ran = true;
    if (po != NULL) {
        po->executed = true;
        r->n = po->n;
        r->granted = po->granted;
        r->grant = po->grant;
        po->granted = false;
        if (po->class != NULL) {
            cs_sql_keep(po->class);
            r->class = po->class;
            r->text = name_copy(cs_slice_str(po->text != NULL ? po->text : ""));
        }
        /* From here on Execute's answer is the action's result, unless its Bind fails first: then
         * the whole rest of the group is skipped and skip_to_sync() drops this entry. */
    }
    return PASS;
}

static enum act on_describe_or_close(struct pg *p, struct batch *b, const struct pg_frame *f)
{
    uint8_t what;
    struct cs_slice name;
    if (!pg_parse_target(f->body, &what, &name)) {
        return violation(p, f->type == 'D' ? "malformed Describe" : "malformed Close");
    }
    if (name.n > CS_LIMIT_PG_NAME_BYTES) {
        return refuse_extended(p, b, "a name is longer than 63 bytes");
    }
    struct pg_reply *r = push(p, f->type == 'D' ? PG_REPLY_DESCRIBE : PG_REPLY_CLOSE);
    if (r == NULL) {
        return STOP;
    }
    r->what = what;
    r->name = name_copy(cs_slice_head(name, CS_LIMIT_PG_NAME_BYTES));
    p->group_open = true;
    return PASS;
}

static enum act on_sync(struct pg *p)
{
    if (p->copy_in) {
        return DONE; /* the target ignores it, and owes no answer */
    }
    if (push(p, PG_REPLY_SYNC) == NULL) {
        return STOP;
    }
    p->skipping = false;
    p->group_open = p->group_ran = false;
    /* An elevated connection ends with this group: nothing else may follow it there. */
    p->elevated_simple = p->elevated != NULL;
    return PASS;
}

static enum act on_function_call(struct pg *p, struct batch *b)
{
    struct cs_verdict *v = cs_alloc(sizeof *v);
    bool ok = false;
    if (v != NULL) {
        v->refusal = CS_REFUSAL_RULE;
        (void)snprintf(v->message, sizeof v->message,
                       "Countersign denied this: FunctionCall names a function by number, which "
                       "cannot be judged");
        cs_gate_note(p->s, "refused: FunctionCall");
        ok = pass(p, b) && pg_deny_simple(p, v);
    }
    cs_free(v);
    return ok ? DONE : STOP;
}

static enum act on_copy(struct pg *p, const struct pg_frame *f)
{
    if (!p->copy_in) {
        /* Behind a COPY that failed the client still sends: the target would ignore it. But while
         * an answer is owed it may be about to say CopyInResponse: wait for that. */
        return p->replies.count > 0 && !p->skipping ? STOP : DONE;
    }
    if (f->type != 'd') {
        p->copy_in = false; /* CopyDone, CopyFail */
    }
    return PASS;
}

/* On an elevated connection only the approved statement runs: its portal, and its COPY data. */
static bool fits_elevated(struct pg *p, uint8_t type)
{
    const char *fine = p->elevated_simple ? "dcfX" : "EDCHSXdcfPB"; /* P and B are refused there */
    return p->elevated == NULL || strchr(fine, type) != NULL;
}

static enum act frontend_message(struct pg *p, struct batch *b, const struct pg_frame *f)
{
    if (!fits_elevated(p, f->type)) {
        return violation(p, "a message that does not belong to the approved statement");
    }
    if (p->skipping && f->type != 'S' && f->type != 'X') {
        return DONE; /* as the target does until the next Sync */
    }
    switch (f->type) {
    case 'Q':
        return on_query(p, b, f);
    case 'P':
        return on_parse(p, b, f);
    case 'B':
        return on_bind(p, b, f);
    case 'E':
        return on_execute(p, b, f);
    case 'D':
    case 'C':
        return on_describe_or_close(p, b, f);
    case 'S':
        return on_sync(p);
    case 'H':
        return PASS;
    case 'F':
        return on_function_call(p, b);
    case 'd':
    case 'c':
    case 'f':
        return on_copy(p, f);
    case 'X':
        pg_end(p, "the client ended it");
        return STOP;
    default:
        return violation(p, "a message out of turn");
    }
}

/* ---- the batch ---- */

enum step {
    BLOCK = 0, /* something else must happen first, or the session ends */
    NEXT,
    NEED, /* the rest of the message has not come */
};

static enum step skip_on(struct pg *p, struct batch *b)
{
    uint32_t n = (uint32_t)CS_MIN((size_t)p->client_skip, b->in.n - b->at);
    p->client_skip -= n;
    b->at += n;
    if (!p->skip_passes) {
        b->pass_from = b->at;
    }
    return p->client_skip == 0 ? NEXT : NEED;
}

static enum step one(struct pg *p, struct batch *b)
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
        (void)violation(p, "an unknown or oversize message");
        return BLOCK;
    }
    if (got == PG_FRAME_NEED) {
        p->big_need = f.total > CS_IOBUF ? f.total : 0;
        return NEED;
    }
    enum act act = frontend_message(p, b, &f);
    if (act == STOP || p->ending || (act == DONE && !pass(p, b))) {
        return BLOCK;
    }
    size_t here = CS_MIN((size_t)f.total, b->in.n - b->at);
    b->at += here;
    p->client_skip = f.total - (uint32_t)here;
    p->skip_passes = act == PASS;
    if (act == DONE) {
        b->pass_from = b->at;
    }
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
    struct batch b = {.in = cs_buf_slice(&p->big)};
    (void)one(p, &b);
    bool ok = !p->ending && pass(p, &b);
    cs_buf_done(&p->big);
    p->big_need = 0;
    return ok;
}

/* Handles what is in the buffer. */
static enum step batch_run(struct pg *p)
{
    struct cs_stream *c = &p->s->client;
    struct batch b = {.in = cs_stream_peek(c)};
    enum step step = NEED;
    while (b.at < b.in.n && (step = one(p, &b)) == NEXT) {
    }
    if (!p->ending && pass(p, &b) && p->group_open && p->replies.count >= CS_LIMIT_PG_PIPELINE) {
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
        if (p->big_need == 0 && !refill(p)) {
            return;
        }
    }
}
