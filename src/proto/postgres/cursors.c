/* What FETCH runs: the query of a cursor, which was judged when it was declared or bound, and which
 * runs once for each row, and again after going back. Called by action.c, which judges, by simple.c
 * and extended.c, which send, and by backend.c at the end of a transaction.
 *
 * It must never let an approval of DECLARE stand for more than that: of a cursor that does more
 * than read, every FETCH is a question of its own. What is sent counts, done or not. */
#include "base/alloc.h"
#include "proto/postgres/postgres_internal.h"

enum { CURSORS_MAX = 32 };

static void forget(struct pg *p, const struct cs_sql_class **class)
{
    if (*class != NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), *class);
        *class = NULL;
    }
}

static struct pg_cursor *find(const struct pg_cursors *c, struct cs_slice name)
{
    name = cs_slice_head(name, CS_LIMIT_PG_NAME_BYTES); /* as the target cuts it */
    for (size_t i = 0; i < c->n; i++) {
        if (cs_slice_eq_str(name, c->v[i].name)) {
            return &c->v[i];
        }
    }
    return NULL;
}

/* Are the facts of this text those of its query? Not of several statements, and not where it runs
 * something else by its name. */
static bool speaks_for_itself(const struct cs_sql_class *class)
{
    return class != NULL && class->parsed && class->n_statements == 1 && class->n_kept == 1 &&
           (class->statements[0].kind == CS_SQL_DECLARE ||
            class->statements[0].kind == CS_SQL_PLAIN);
}

/* SECURITY: whether it is opened, and which of several is open under a name, the target knows; of
 * those that only read it may be one, too. Then nobody says what FETCH reads and writes. */
static void add(struct pg *p, struct cs_slice name, const struct cs_sql_class *class,
                const struct cs_action *a, uint8_t effects)
{
    struct pg_cursors *c = &p->names.cursors;
    struct pg_cursor *at = find(c, name);
    bool names = a->facts.v[CS_FACT_SQL_READS].state == CS_FACT_KNOWN;
    bool writes = a->facts.v[CS_FACT_SQL_WRITES].state == CS_FACT_KNOWN;
    if (at != NULL) {
        at->effects |= effects;
        at->names_known = at->names_known && names;
        at->writes_known = at->writes_known && writes;
        if (at->class != class) {
            forget(p, &at->class);
        }
        return;
    }
    if (effects == 0) {
        return;
    }
    if (c->v == NULL) {
        c->v = cs_alloc(CURSORS_MAX * sizeof *c->v);
    }
    if (c->v == NULL || c->n == CURSORS_MAX) {
        c->any |= effects;
        return;
    }
    at = &c->v[c->n++];
    *at = (struct pg_cursor){.effects = effects, .names_known = names, .writes_known = writes};
    name = cs_slice_head(name, CS_LIMIT_PG_NAME_BYTES);
    memcpy(at->name, name.p, name.n);
    if (speaks_for_itself(class)) {
        cs_sql_keep(class);
        at->class = class;
    }
}

void pg_cursors_sent(struct pg *p, const struct cs_sql_class *class, const struct cs_action *a,
                     struct cs_slice portal)
{
    struct pg_cursors *c = &p->names.cursors;
    uint8_t effects = a->effects & (uint8_t) ~(unsigned)(CS_SQL_SESSION | CS_SQL_READ);
    if ((!a->changing && c->n == 0) || p->elevated != NULL) {
        return;
    }
    if (portal.n > 0) {
        add(p, portal, class, a, effects);
    }
    /* SECURITY: code opens cursors, under any name. */
    if ((effects & CS_SQL_OPAQUE) != 0) {
        c->any |= effects;
    }
    for (uint32_t i = 0; class != NULL && i < class->n_kept; i++) {
        if (class->statements[i].kind == CS_SQL_DECLARE) {
            add(p, class->statements[i].name, class, a, effects);
        }
    }
}

uint8_t pg_cursor_runs(const struct pg *p, struct cs_slice name)
{
    const struct pg_cursors *c = &p->names.cursors;
    const struct pg_cursor *at = find(c, name);
    return c->any | (at != NULL ? at->effects : 0);
}

uint8_t pg_cursors_run(const struct pg *p, const struct cs_sql_class *class)
{
    const struct pg_cursors *c = &p->names.cursors;
    uint8_t effects = 0;
    for (uint32_t i = 0; (c->any != 0 || c->n > 0) && i < class->n_kept; i++) {
        if (class->statements[i].kind == CS_SQL_FETCH) {
            effects |= pg_cursor_runs(p, class->statements[i].name);
        }
    }
    return effects;
}

static void fact_names(struct cs_fact *f, bool known, const struct cs_slice *v, size_t n)
{
    f->state = known ? CS_FACT_KNOWN : CS_FACT_UNKNOWN;
    f->u.strings.v = v;
    f->u.strings.n = n;
}

void pg_cursor_facts(struct pg *p, const struct cs_sql_class *class, struct cs_facts *facts)
{
    struct pg_cursors *c = &p->names.cursors;
    if (c->n == 0 || c->any != 0 || !class->parsed || class->n_statements != 1 ||
        class->n_kept != 1 || class->statements[0].kind != CS_SQL_FETCH) {
        return;
    }
    const struct pg_cursor *at = find(c, class->statements[0].name);
    if (at == NULL || at->class == NULL) {
        return;
    }
    forget(p, &c->described);
    cs_sql_keep(at->class);
    c->described = at->class; /* the transaction may end while somebody is asked */
    fact_names(&facts->v[CS_FACT_SQL_READS], at->names_known, at->class->reads, at->class->n_reads);
    fact_names(&facts->v[CS_FACT_SQL_WRITES], at->writes_known, at->class->writes,
               at->class->n_writes);
    fact_names(&facts->v[CS_FACT_SQL_FUNCTIONS], at->names_known, at->class->functions,
               at->class->n_functions);
}

void pg_cursors_done(struct pg *p)
{
    struct pg_cursors *c = &p->names.cursors;
    for (size_t i = 0; i < c->n; i++) {
        forget(p, &c->v[i].class);
    }
    cs_free(c->v);
    *c = (struct pg_cursors){.described = c->described};
}

void pg_cursors_free(struct pg *p)
{
    pg_cursors_done(p);
    forget(p, &p->names.cursors.described);
}
