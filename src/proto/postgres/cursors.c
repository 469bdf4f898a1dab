/* What FETCH runs: the query of a cursor, which was judged when it was declared or bound, and which
 * runs once for each row, and again after going back. Called by action.c, which judges, by simple.c
 * and extended.c, which send, and by backend.c at the end of a transaction.
 *
 * It must never let an approval of DECLARE stand for more than that: of a cursor that does more
 * than read, every FETCH is a question of its own. What is sent counts, done or not. */
#include "base/alloc.h"
#include "proto/postgres/postgres_internal.h"

enum { CURSORS_MAX = 32 };

static uint8_t effects_of(const struct cs_action *a)
{
    static const char *const names[] = {"session", "read", "write", "ddl", "admin", "opaque"};
    const struct cs_fact *f = &a->facts.v[CS_FACT_SQL_EFFECTS];
    uint8_t effects = 0;
    for (size_t i = 0; i < f->u.strings.n; i++) {
        for (unsigned k = 0; k < CS_ARRAY_LEN(names); k++) {
            if (cs_slice_eq_str(f->u.strings.v[i], names[k])) {
                effects |= (uint8_t)(1U << k);
            }
        }
    }
    return effects & (uint8_t) ~(unsigned)(CS_SQL_SESSION | CS_SQL_READ);
}

static void add(struct pg_cursors *c, struct cs_slice name, uint8_t effects)
{
    name = cs_slice_head(name, CS_LIMIT_PG_NAME_BYTES); /* as the target cuts it */
    for (size_t i = 0; i < c->n; i++) {
        if (cs_slice_eq_str(name, c->v[i].name)) {
            c->v[i].effects |= effects;
            return;
        }
    }
    if (c->v == NULL) {
        c->v = cs_alloc(CURSORS_MAX * sizeof *c->v);
    }
    if (c->v == NULL || c->n == CURSORS_MAX) {
        c->any |= effects;
        return;
    }
    struct pg_cursor *at = &c->v[c->n++];
    *at = (struct pg_cursor){.effects = effects};
    memcpy(at->name, name.p, name.n);
}

void pg_cursors_sent(struct pg *p, const struct cs_sql_class *class, const struct cs_action *a,
                     struct cs_slice portal)
{
    struct pg_cursors *c = &p->names.cursors;
    if (!a->changing || p->elevated != NULL) {
        return;
    }
    uint8_t effects = effects_of(a);
    if (portal.n > 0) {
        add(c, portal, effects);
    }
    /* SECURITY: code opens cursors, under any name. */
    if ((effects & CS_SQL_OPAQUE) != 0) {
        c->any |= effects;
    }
    for (uint32_t i = 0; class != NULL && i < class->n_kept; i++) {
        if (class->statements[i].kind == CS_SQL_DECLARE) {
            add(c, class->statements[i].name, effects);
        }
    }
}

uint8_t pg_cursor_runs(const struct pg *p, struct cs_slice name)
{
    const struct pg_cursors *c = &p->names.cursors;
    uint8_t effects = c->any;
    name = cs_slice_head(name, CS_LIMIT_PG_NAME_BYTES);
    for (size_t i = 0; i < c->n; i++) {
        if (cs_slice_eq_str(name, c->v[i].name)) {
            effects |= c->v[i].effects;
        }
    }
    return effects;
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

void pg_cursors_done(struct pg *p)
{
    cs_free(p->names.cursors.v);
    p->names.cursors = (struct pg_cursors){0};
}
