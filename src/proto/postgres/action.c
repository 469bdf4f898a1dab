/* What a text of the client's is, as an action: its classification, its facts, and what ran before
 * it. Called by simple.c and extended.c, which ask for a verdict with it; nothing here decides, or
 * sends what is not judged. */
#include "base/alloc.h"
#include "base/log.h"
#include "proto/postgres/frontend.h"
#include "sql/catalogue.h"

#include <stdio.h>

enum pg_act pg_violation(struct pg *p, const char *what)
{
    cs_log(CS_EV_PROTOCOL_ERROR, &p->s->id, "client: %s", what);
    cs_gate_note(p->s, "protocol error of the client: %s", what);
    pg_fatal(p, "08P01", what);
    pg_end(p, "protocol error of the client");
    return PG_STOP;
}

char *pg_name_copy(struct cs_slice s)
{
    char *c = s.n > 0 ? cs_alloc(s.n + 1) : NULL;
    if (c != NULL) {
        memcpy(c, s.p, s.n);
    }
    return c;
}

struct pg_reply *pg_push(struct pg *p, enum pg_reply_kind kind)
{
    struct pg_reply *r = pg_replies_push(&p->replies, kind);
    if (r == NULL) {
        pg_fatal(p, "53200", "out of memory");
        pg_end(p, "out of memory");
    }
    return r;
}

bool pg_pass(struct pg *p, struct pg_batch *b)
{
    struct cs_slice range = cs_slice_head(cs_slice_from(b->in, b->pass_from), b->at - b->pass_from);
    b->pass_from = b->at;
    return pg_record_flush(p) && (range.n == 0 || pg_to_server(p, range));
}

/* Everything that was sent is answered; then what is judged next is judged in the state that it
 * will really meet. PG_DONE: the target would skip the next message anyway. */
enum pg_act pg_settle_first(struct pg *p, struct pg_batch *b)
{
    if (!pg_pass(p, b) || !pg_settle(p)) {
        return PG_STOP;
    }
    return p->skipping ? PG_DONE : PG_PASS;
}

void pg_refuse(struct pg *p, struct cs_verdict *v, const char *why, const char *hint)
{
    v->outcome = CS_DENY;
    v->refusal = CS_REFUSAL_RULE;
    (void)snprintf(v->message, sizeof v->message, "Countersign denied this: %s", why);
    (void)snprintf(v->hint, sizeof v->hint, "%s", hint);
    cs_gate_note(p->s, "refused: %s", why);
}

/* ---- classification ---- */

struct classify {
    struct cs_sql *sql;
    struct cs_slice text;
    bool replication;
    const struct cs_sql_class *class;
};

static void classify_deep(void *arg)
{
    struct classify *c = arg;
    c->class = c->replication ? cs_sql_classify_replication(c->sql, c->text)
                              : cs_sql_classify(c->sql, c->text);
}

const struct cs_sql_class *pg_classify(struct pg *p, struct cs_slice text)
{
    bool asks = text.n > CS_SQL_QUICK_BYTES && p->replication == PG_REPLICATION_NONE;
    const struct cs_sql_class *class = asks ? cs_gate_parse(p->s, text) : NULL;
    if (asks && p->s->kill.set) {
        /* SECURITY: the order came while the text was elsewhere: nothing of it goes upstream. */
        pg_fatal(p, "57P01", p->s->kill_why);
        pg_end(p, "killed");
        return class != NULL ? class : cs_sql_unparsed(cs_gate_sql(p->s->gate), text);
    }
    return class != NULL ? class : pg_classify_now(p, text);
}

/* The parser recurses: on a miss it runs on the process's big stack. */
const struct cs_sql_class *pg_classify_now(struct pg *p, struct cs_slice text)
{
    bool replication = p->replication != PG_REPLICATION_NONE;
    struct classify c = {cs_gate_sql(p->s->gate), text, replication, NULL};
    c.class = replication ? NULL : cs_sql_cached(c.sql, text);
    if (c.class == NULL) {
        cs_big_stack_call(classify_deep, &c);
    }
    return c.class;
}

/* ---- the action ---- */

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
    a->effects = effects;
    a->changing = (effects & ~(unsigned)(CS_SQL_SESSION | CS_SQL_READ)) != 0;
    a->only_session = effects == CS_SQL_SESSION;
    a->defining = (effects & (CS_SQL_DDL | CS_SQL_ADMIN | CS_SQL_OPAQUE)) != 0;
    a->unsettling = (effects & (CS_SQL_ADMIN | CS_SQL_OPAQUE)) != 0;
}

/* What a text does in this session beyond what it says: `runs` by its cursors, anything if it may
 * be read otherwise. */
static void widen(struct cs_sql_judged *j, uint8_t runs, bool doubted)
{
    if (runs == 0 && !doubted) {
        return;
    }
    j->effects |= (uint8_t)(runs | (doubted ? CS_SQL_OPAQUE : 0));
    j->names_known = j->writes_known = j->narrowed = false;
    j->why = runs != 0 ? "the cursor may do more than read"
                       : "what ran before it may have changed how it is read";
}

/* What a statement is prepared for is known at Bind; a text has no parameters. */
static void fact_params(struct cs_action *a, const struct pg_statement *st)
{
    a->facts.v[CS_FACT_SQL_PARAMS] =
        (struct cs_fact){.state = st != NULL ? CS_FACT_UNKNOWN : CS_FACT_KNOWN};
}

/* The action that this text is, in the session's present state. */
void pg_describe(struct pg *p, const struct cs_sql_class *class, struct cs_slice text, bool doubted,
                 struct pg_statement *st, struct cs_action *a)
{
    uint8_t tx = pg_now(p)->tx;
    memset(a, 0, sizeof *a);
    /* First: what follows borrows from the configuration in force, and the decision must find the
     * same one (a reload between the two would leave these slices in unmapped memory). */
    (void)cs_session_refresh(p->s);
    a->protocol = CS_SLICE_LIT("postgres");
    a->text = text;
    if (class->n_secrets == 0 && p->shown.cap > 0) {
        cs_buf_done(&p->shown);
    }
    a->bytes = cs_gate_redact(p->s, class, text, &p->shown, &a->unkeyed);
    a->redacted = class->n_secrets > 0;
    a->database = cs_gate_database(p->s, false);
    a->role = cs_gate_role(p->s, false);
    a->in_transaction = tx != 'I' || p->group_ran;
    a->tx = a->in_transaction ? cs_buf_slice(&p->ran) : CS_SLICE_NULL;
    struct cs_sql_judged j;
    /* What SQL PREPARE made declares nothing by number, and its class is not kept. */
    bool declared = st != NULL && st->class != NULL;
    cs_gate_judge(p->s, class, declared ? st->types : NULL, declared ? st->n_types : 0,
                  declared ? &st->memo : NULL, &j);
    widen(&j, pg_cursors_run(p, class), doubted);
    cs_sql_facts(cs_gate_sql(p->s->gate), class, &j, a->bytes, &a->facts);
    if (!doubted) {
        pg_cursor_facts(p, class, &a->facts);
    }
    if (p->replication != PG_REPLICATION_NONE && !class->parsed) {
        /* SECURITY: a newer server may know more commands than we do. */
        fact_string(a, CS_FACT_SQL_VERB, CS_SLICE_LIT("REPLICATION"));
    }
    if (a->redacted && (a->unkeyed || class->secrets[0].how == CS_REDACT_WHOLE)) {
        /* A rule that denies by what is in it must not be told that there is nothing. */
        a->facts.v[CS_FACT_SQL_TEXT].state = CS_FACT_UNKNOWN;
    }
    fact_params(a, st);
    fact_string(a, CS_FACT_SQL_DATABASE, a->database);
    fact_string(a, CS_FACT_SQL_ROLE, a->role);
    fact_string(a, CS_FACT_SQL_TX, cs_slice_str(tx_name(p)));
    if (tx_uncertain(p)) {
        a->facts.v[CS_FACT_SQL_TX].state = CS_FACT_UNKNOWN;
    }
    set_effects(a, j.effects);
    a->narrowed = j.narrowed;
    a->only_rollback = class->parsed && class->n_statements == 1 && class->n_kept == 1 &&
                       class->statements[0].kind == CS_SQL_ROLLBACK && j.effects == CS_SQL_SESSION;
}

uint8_t pg_prepared_effects(struct pg *p, const struct pg_statement *st,
                            const struct cs_sql_class *class)
{
    struct cs_sql_judged j;
    if (class == NULL || st->doubted) {
        return st->effects | CS_SQL_OPAQUE;
    }
    /* SECURITY: by SQL PREPARE: its effects are the text's of then, and what the names in it lead
     * to may be another thing by now, or not have been known. */
    bool declared = st->class != NULL;
    cs_gate_judge(p->s, class, declared ? st->types : NULL, declared ? st->n_types : 0, NULL, &j);
    return declared ? j.effects : st->effects | j.effects;
}

bool pg_surely_allowed(struct pg *p, const struct cs_action *a)
{
    enum cs_outcome o;
    return cs_gate_preview(p->s, a, &o) && o == CS_ALLOW;
}

/* The statement's text, without passwords, into `settings`. */
static void add_prepared_text(struct pg *p, struct cs_action *a, const struct pg_statement *st,
                              struct cs_buf *settings)
{
    const struct cs_sql_class *class = st->class != NULL ? st->class : pg_classify_now(p, st->text);
    struct cs_buf mem = cs_buf(0);
    bool unkeyed = true;
    cs_buf_str(settings, "prepared: ");
    if (class != NULL) {
        cs_buf_add(settings, cs_gate_redact(p->s, class, st->text, &mem, &unkeyed));
        a->redacted = a->redacted || class->n_secrets > 0;
    }
    a->unkeyed = a->unkeyed || unkeyed;
    cs_buf_u8(settings, '\n');
    cs_buf_done(&mem);
    if (st->class == NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), class);
    }
}

/* The names of effects, as a fact. */
static void fact_effects(struct cs_action *a, uint8_t effects, struct cs_slice names[static 6])
{
    static const char *const words[6] = {"session", "read", "write", "ddl", "admin", "opaque"};
    struct cs_fact *f = &a->facts.v[CS_FACT_SQL_EFFECTS];
    size_t n = 0;
    for (unsigned i = 0; i < 6; i++) {
        if ((effects & (1U << i)) != 0) {
            names[n++] = cs_slice_str(words[i]);
        }
    }
    f->state = CS_FACT_KNOWN;
    f->u.strings.v = names;
    f->u.strings.n = n;
    set_effects(a, effects);
}

void pg_describe_call(struct pg *p, const struct cs_sql_class *class, struct cs_slice text,
                      uint8_t effects, const struct cs_slice *function,
                      struct cs_slice names[static CS_SQL_EFFECT_NAMES], struct cs_action *a)
{
    pg_describe(p, class, text, false, NULL, a);
    fact_effects(a, effects, names);
    fact_string(a, CS_FACT_SQL_VERB, CS_SLICE_LIT(CS_VERB_FUNCTION_CALL));
    fact_string(a, CS_FACT_SQL_TEXT, a->bytes);
    a->facts.v[CS_FACT_SQL_PARAMS].state = CS_FACT_UNKNOWN; /* its arguments: on the card */
    a->facts.v[CS_FACT_SQL_READS].state = CS_FACT_UNKNOWN;
    a->facts.v[CS_FACT_SQL_WRITES].state = CS_FACT_UNKNOWN;
    struct cs_fact *f = &a->facts.v[CS_FACT_SQL_FUNCTIONS];
    f->state = CS_FACT_KNOWN;
    f->u.strings.v = function;
    f->u.strings.n = 1;
    a->facts.v[CS_FACT_SQL_STATEMENTS] = (struct cs_fact){.state = CS_FACT_KNOWN, .u.integer = 1};
}

/* The facts of a prepared statement stand for EXECUTE of its name and for Bind of an SQL-level one:
 * what it does was classified when it was prepared. Its text becomes part of what is approved. */
void pg_describe_prepared(struct pg *p, struct cs_action *a, const struct pg_statement *st,
                          struct cs_slice effect_name[static 6], struct cs_buf *settings)
{
    fact_effects(a, st->effects, effect_name);
    for (int id = CS_FACT_SQL_READS; id <= CS_FACT_SQL_FUNCTIONS; id++) {
        a->facts.v[id].state = CS_FACT_UNKNOWN;
    }
    add_prepared_text(p, a, st, settings);
    a->settings = cs_buf_slice(settings);
}

/* Others run between the pieces of a long text: both lie where only this session's coroutine, which
 * waits here, changes them. */
static void hash_ran(struct cs_slice before, struct cs_slice text, uint8_t ret[static CS_SHA256])
{
    struct cs_hasher h = {NULL};
    cs_hasher_start(&h);
    cs_hasher_add(&h, before);
    while (text.n > 0) {
        struct cs_slice piece = cs_slice_head(text, CS_LIMIT_PIECE_BYTES);
        cs_hasher_add(&h, piece);
        text = cs_slice_from(text, piece.n);
        (void)cs_co_breathe(); /* the verdict stands, as while an action is made durable */
    }
    cs_hasher_finish(&h, ret);
}

/* Remembers what ran since the target was last idle: part of the digest of whatever is held later
 * in the same transaction, and on its card. Long texts are there as their hash. */
void pg_remember(struct pg *p, const struct cs_action *a)
{
    uint8_t sum[CS_SHA256];
    char hex[2 * CS_SHA256 + 1];
    if (p->elevated != NULL) {
        return; /* another connection's transaction */
    }
    pg_cursors_sent(p, NULL, a, CS_SLICE_NULL);
    /* SECURITY: the target tells of changed settings with ReadyForQuery only. What is sent before
     * that may be read with other eyes than ours: '\' ends a string or does not. */
    p->unsettled = p->unsettled || a->unsettling;
    p->ran_since = p->ran.len == 0 ? cs_mono_ns() : p->ran_since;
    if (a->bytes.n <= 1024 && p->ran.len <= 16384) {
        cs_buf_add(&p->ran, a->bytes);
        cs_buf_u8(&p->ran, '\n');
        return;
    }
    hash_ran(p->ran.len > 16384 ? cs_buf_slice(&p->ran) : CS_SLICE_NULL, a->bytes, sum);
    cs_hex(cs_slice(sum, sizeof sum), hex);
    if (p->ran.len > 16384) {
        p->ran.len = 0;
    }
    cs_buf_printf(&p->ran, "sha256:%s\n", hex);
}
