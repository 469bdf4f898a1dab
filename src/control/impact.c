/* What a held action would touch, as its target estimates it: asked of probe when a request is new,
 * kept in memory beside it, shown on its card. Called by hold.c and by the API.
 *
 * The hold never waits for it, the digest does not cover it, no decision looks at it, and it is
 * simply not there when the target does not say. Everything in it is the target's word. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/time.h"
#include "wire/rows.h"

#include <stdio.h>

enum { KEPT = 256, AT_ONCE = 4, NAMES_MAX = 4096 };

struct asking {
    struct cs_control *c;
    char request[CS_REQUEST_ID_TEXT];
    struct cs_arena arena;
    struct cs_slice target, text, names;
};

/* ---- what is asked ---- */

/* "schema TAB name" for each relation that it writes; one that would need quotes is left out. */
static struct cs_slice relation_lines(const struct cs_facts *facts, struct cs_arena *a)
{
    const struct cs_fact *f = &facts->v[CS_FACT_SQL_WRITES];
    struct cs_buf b = cs_buf(NAMES_MAX);
    for (size_t i = 0; f->state == CS_FACT_KNOWN && i < f->u.strings.n; i++) {
        struct cs_slice name = f->u.strings.v[i], schema = CS_SLICE_LIT("public");
        size_t dot = cs_slice_find(name, '.');
        if (cs_slice_find(name, '"') < name.n || cs_slice_find(name, '\n') < name.n ||
            cs_slice_find(name, '\t') < name.n) {
            continue;
        }
        while (dot < name.n) {
            schema = cs_slice_head(name, dot);
            name = cs_slice_from(name, dot + 1);
            dot = cs_slice_find(name, '.');
        }
        cs_buf_printf(&b, "%.*s\t%.*s\n", CS_SLICE_FMT(schema), CS_SLICE_FMT(name));
    }
    struct cs_slice kept = b.bad ? CS_SLICE_NULL : cs_arena_dup(a, cs_buf_slice(&b));
    cs_buf_done(&b);
    return kept;
}

static bool has_effect(const struct cs_facts *facts, const char *name)
{
    const struct cs_fact *f = &facts->v[CS_FACT_SQL_EFFECTS];
    for (size_t i = 0; f->state == CS_FACT_KNOWN && i < f->u.strings.n; i++) {
        if (cs_slice_eq_str(f->u.strings.v[i], name)) {
            return true;
        }
    }
    return f->state != CS_FACT_KNOWN;
}

/* SECURITY: planning may call what a name leads to: only with a catalogue that has been looked at
 * for it is it known to lead to nothing but built-in functions. */
static bool may_explain(struct cs_control *c, struct cs_slice target, const struct cs_action *act)
{
    struct cs_slice name;
    uint64_t age = UINT64_MAX;
    for (size_t i = 0; cs_catalogue_at(c, i, &name, &age) && !cs_slice_eq(name, target); i++) {
        age = UINT64_MAX;
    }
    return age < CS_LIMIT_CATALOGUE_AGE_S * CS_NS_PER_S && act->n_params == 0 &&
           !has_effect(&act->facts, "opaque") && !has_effect(&act->facts, "ddl") &&
           !has_effect(&act->facts, "admin") && act->bytes.n <= CS_LIMIT_SQL_INLINE_BYTES;
}

/* ---- what came ---- */

static bool number(struct cs_slice cell, uint64_t *ret)
{
    return cell.p != NULL && cs_slice_to_u64(cell, ret) && *ret <= INT64_MAX;
}

static void read_relations(struct cs_slice result, struct cs_impact *m)
{
    struct cs_rows t;
    struct cs_slice c[6];
    if (!cs_rows_find(result, "relations", &t) || t.columns != 6) {
        return;
    }
    while (m->n_relations < CS_IMPACT_RELATIONS && cs_rows_next_row(&t, c, 6)) {
        struct cs_impact_relation *r = &m->relations[m->n_relations++];
        (void)snprintf(r->name, sizeof r->name, "%.*s.%.*s", CS_SLICE_FMT(cs_slice_head(c[0], 63)),
                       CS_SLICE_FMT(cs_slice_head(c[1], 63)));
        r->kind = c[2].n == 1 ? (char)c[2].p[0] : '?';
        r->has_rows = number(c[3], &r->rows);
        r->has_bytes = number(c[4], &r->bytes);
        (void)snprintf(r->dependants, sizeof r->dependants, "%.*s",
                       CS_SLICE_FMT(cs_slice_head(c[5], sizeof r->dependants - 1)));
    }
}

/* The plan's second line: what feeds the change. Its first says nothing about rows. */
static void read_plan(struct cs_slice result, struct cs_impact *m)
{
    const struct cs_slice mark = CS_SLICE_LIT(" rows=");
    struct cs_rows t;
    struct cs_slice line;
    if (!cs_rows_find(result, "plan", &t) || t.outcome == CS_ROWS_FAILED ||
        !cs_rows_next_row(&t, &line, 1) || !cs_rows_next_row(&t, &line, 1)) {
        return;
    }
    while (line.n > mark.n && !cs_slice_starts(line, mark)) {
        line = cs_slice_from(line, 1);
    }
    line = cs_slice_from(line, mark.n);
    size_t n = 0;
    while (n < line.n && line.p[n] >= '0' && line.p[n] <= '9') {
        n++;
    }
    m->has_rows = number(cs_slice_head(line, n), &m->rows);
}

static void keep(struct cs_control *c, struct cs_impact *m)
{
    size_t n = 0;
    m->next = c->impacts;
    c->impacts = m;
    for (struct cs_impact *i = m; i != NULL; i = i->next) {
        if (++n == KEPT && i->next != NULL) {
            cs_free(i->next);
            i->next = NULL;
        }
    }
}

static void run(void *arg)
{
    struct asking *a = arg;
    struct cs_control *c = a->c;
    struct cs_slice result = CS_SLICE_NULL;
    char why[300];
    uint64_t at = cs_wall_ms();
    enum cs_err e =
        cs_probe_ask(c, a->target, CS_PROBE_IMPACT, a->text, a->names, &result, why, sizeof why);
    struct cs_impact *m = e == CS_OK ? cs_alloc(sizeof *m) : NULL;
    if (m != NULL) {
        memcpy(m->request, a->request, sizeof m->request);
        m->at_ms = at;
        read_relations(result, m);
        read_plan(result, m);
        keep(c, m);
        cs_control_wake(c);
    }
    cs_sealed_unmap(result);
    c->impacts_asked--;
    cs_arena_done(&a->arena);
    cs_free(a);
}

void cs_impact_begin(struct cs_control *c, const char *request, struct cs_slice target,
                     const struct cs_action *act)
{
    cs_handle co;
    struct asking *a = c->impacts_asked < AT_ONCE ? cs_alloc(sizeof *a) : NULL;
    if (a == NULL) {
        return;
    }
    *a = (struct asking){.c = c};
    (void)snprintf(a->request, sizeof a->request, "%s", request);
    cs_arena_init(&a->arena, 4096, 2 * CS_LIMIT_SQL_INLINE_BYTES);
    a->target = cs_arena_dup(&a->arena, target);
    a->names = relation_lines(&act->facts, &a->arena);
    if (may_explain(c, target, act)) {
        a->text = cs_arena_dup(&a->arena, act->bytes);
    }
    bool any = a->target.p != NULL && (a->names.n > 0 || a->text.n > 0);
    if (any && cs_co_spawn(c->loop, "impact", run, a, &co) == CS_OK) {
        c->impacts_asked++;
        return;
    }
    cs_arena_done(&a->arena);
    cs_free(a);
}

const struct cs_impact *cs_impact_find(const struct cs_control *c, const char *request)
{
    const struct cs_impact *m = c->impacts;
    while (m != NULL && strcmp(m->request, request) != 0) {
        m = m->next;
    }
    return m;
}

void cs_impact_free(struct cs_control *c)
{
    while (c->impacts != NULL) {
        struct cs_impact *m = c->impacts;
        c->impacts = m->next;
        cs_free(m);
    }
}
