/* Makes a target's catalogue (sql/catalogue.h) out of the answers to catalogue.def. Called by
 * task.c when those have come.
 *
 * A thing is harmless when its definition is, as the classifier reads it, with what is known of the
 * things named there. Nothing is known at first; rounds go on until one learns nothing new. So what
 * is circular, unreadable, too long or too deep stays what it was at the start: not harmless.
 * The server may be hostile: numbers and names are checked, and a lie makes texts for that server
 * more or less opaque, no more. */
#include "probe/probe.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "sql/catalogue.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 32, YIELD_EACH = 64, FIRST_USER_OID = 16384, ARENA_MAX = 64 * 1024 * 1024 };
enum { FULL_TEXT = 20000, EVERYTHING = 5 };
#define NONE SIZE_MAX

struct thing {
    uint8_t kind; /* enum cs_catalogue_kind */
    uint32_t oid;
    struct cs_slice schema, name;
    char what;                 /* relkind or typtype */
    bool quiet, clash, dotted; /* clash: a built-in one has that name */
    bool acts, more;           /* relation: triggers or rules; writing it writes others */
    uint32_t code[2];          /* functions behind an operator or a type; 0 = none */
    bool harmless, write_harmless;
    bool bad, write_bad; /* this round found something */
};

struct text {     /* a definition, and whose */
    size_t owner; /* index of a thing */
    char when;    /* r, w; d: it alone makes its owner harmless (a view, a function's body); p: as
                     r, and whoever asks about the relation runs it (the key of its partitions) */
    const struct cs_sql_class *class; /* reference; NULL: cannot be read */
};

struct edge { /* `from` is no better than `to` */
    size_t from, to;
    bool write_only;
};

struct making {
    struct cs_probe_task_run *task;
    struct cs_sql *sql; /* borrowed */
    struct cs_arena arena;
    struct cs_slice answers;
    struct thing *things; /* sorted by kind and oid */
    size_t n_things;
    struct text *texts;
    size_t n_texts;
    struct edge *edges;
    size_t n_edges;
    struct implicit {
        uint32_t code;
        size_t type; /* index of a thing, without which it does not run; NONE: behind any text */
    } * implicit;
    size_t n_implicit;
    struct cs_catalogue catalogue;
};

/* ---- answers ---- */

/* A complete table, and how many rows there are. */
static bool table(const struct making *m, const char *name, uint16_t columns, struct cs_rows *ret)
{
    return cs_rows_find(m->answers, name, ret) && ret->outcome == CS_ROWS_COMPLETE &&
           ret->columns == columns;
}

static bool oid_of(struct cs_slice cell, uint32_t *ret)
{
    uint64_t v = 0;
    if (cell.p == NULL || !cs_slice_to_u64(cell, &v) || v > UINT32_MAX) {
        return false;
    }
    *ret = (uint32_t)v;
    return true;
}

static bool yes(struct cs_slice cell)
{
    return cs_slice_eq_str(cell, "t");
}

static char letter(struct cs_slice cell)
{
    return cell.n == 1 ? (char)cell.p[0] : '?';
}

/* ---- things ---- */

static int compare_things(const void *x, const void *y)
{
    const struct thing *a = x, *b = y;
    if (a->kind != b->kind) {
        return a->kind < b->kind ? -1 : 1;
    }
    return a->oid < b->oid ? -1 : a->oid > b->oid;
}

static struct thing *find(const struct making *m, uint8_t kind, uint32_t oid)
{
    const struct thing key = {.kind = kind, .oid = oid};
    return m->n_things > 0 ? bsearch(&key, m->things, m->n_things, sizeof key, compare_things)
                           : NULL;
}

static void fill_function(struct thing *t, const struct cs_slice *c)
{
    t->quiet = yes(c[3]);
    t->dotted = yes(c[4]);
}

static void fill_operator(struct thing *t, const struct cs_slice *c)
{
    t->clash = yes(c[3]);
    if (!oid_of(c[2], &t->code[0])) {
        t->code[0] = UINT32_MAX;
    }
}

static void fill_type(struct thing *t, const struct cs_slice *c)
{
    t->what = letter(c[3]);
    t->clash = yes(c[6]);
    if (!oid_of(c[4], &t->code[0]) || !oid_of(c[5], &t->code[1])) {
        t->code[0] = UINT32_MAX;
    }
}

static void fill_relation(struct thing *t, const struct cs_slice *c)
{
    t->what = letter(c[3]);
    t->acts = yes(c[4]);
    t->more = yes(c[5]) || t->what == 'v' || t->what == 'f';
}

static const struct thing_table {
    const char *name;
    uint8_t kind;
    uint16_t columns;
    bool oid_first; /* oid, schema, name, …; else schema, name, … and numbered here */
    void (*fill)(struct thing *t, const struct cs_slice *cells);
} thing_tables[] = {
    {"functions", CS_CATALOGUE_FUNCTION, 6, true, fill_function},
    {"operators", CS_CATALOGUE_OPERATOR, 4, false, fill_operator},
    {"types", CS_CATALOGUE_TYPE, 7, true, fill_type},
    {"relations", CS_CATALOGUE_RELATION, 6, true, fill_relation},
};

static bool read_things(struct making *m)
{
    struct cs_rows rows[CS_ARRAY_LEN(thing_tables)];
    size_t total = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(thing_tables); i++) {
        if (!table(m, thing_tables[i].name, thing_tables[i].columns, &rows[i])) {
            return false;
        }
        total += rows[i].rows;
    }
    m->things = CS_NEW_ARRAY(&m->arena, struct thing, total + 1);
    if (m->things == NULL) {
        return false;
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(thing_tables); i++) {
        const struct thing_table *tt = &thing_tables[i];
        struct cs_slice c[8];
        while (cs_rows_next_row(&rows[i], c, CS_ARRAY_LEN(c))) {
            struct thing *t = &m->things[m->n_things];
            size_t at = tt->oid_first ? 1 : 0;
            *t = (struct thing){.kind = tt->kind, .schema = c[at], .name = c[at + 1]};
            t->oid = (uint32_t)m->n_things;
            if ((tt->oid_first && !oid_of(c[0], &t->oid)) || t->schema.n == 0 || t->name.n == 0) {
                return false;
            }
            tt->fill(t, c);
            m->n_things++;
        }
    }
    qsort(m->things, m->n_things, sizeof *m->things, compare_things);
    return true;
}

/* ---- edges ---- */

static const struct edge_table {
    const char *name;
    uint8_t from, to;
    bool write_only;
} edge_tables[] = {
    {"type_parts", CS_CATALOGUE_TYPE, CS_CATALOGUE_TYPE, false},
    {"children", CS_CATALOGUE_RELATION, CS_CATALOGUE_RELATION, false},
    /* SECURITY: comparing a column with a literal makes that a value of the column's type, and its
     * checks run though no name in the text shows them: reading depends on it too. */
    {"column_types", CS_CATALOGUE_RELATION, CS_CATALOGUE_TYPE, false},
};

/* What an edge leads to and is not known is bad in itself. */
static bool read_edges(struct making *m)
{
    struct cs_rows rows[CS_ARRAY_LEN(edge_tables)];
    size_t total = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(edge_tables); i++) {
        if (!table(m, edge_tables[i].name, 2, &rows[i])) {
            return false;
        }
        total += rows[i].rows;
    }
    m->edges = CS_NEW_ARRAY(&m->arena, struct edge, total + 1);
    for (size_t i = 0; m->edges != NULL && i < CS_ARRAY_LEN(edge_tables); i++) {
        const struct edge_table *et = &edge_tables[i];
        struct cs_slice c[2];
        while (cs_rows_next_row(&rows[i], c, 2)) {
            uint32_t a, b;
            if (!oid_of(c[0], &a) || !oid_of(c[1], &b)) {
                return false;
            }
            struct thing *from = find(m, et->from, a), *to = find(m, et->to, b);
            if (from != NULL && to != NULL) {
                m->edges[m->n_edges++] = (struct edge){(size_t)(from - m->things),
                                                       (size_t)(to - m->things), et->write_only};
            } else if (from != NULL && b >= FIRST_USER_OID) {
                from->what = '?';
            }
        }
    }
    return m->edges != NULL;
}

/* ---- texts ---- */

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

/* The parser recurses: on the process's own big stack. */
static const struct cs_sql_class *classify(struct making *m, struct cs_slice text, bool expression)
{
    static char room[FULL_TEXT]; /* used between two waits only */
    struct classify c = {.sql = m->sql, .text = text};
    if (text.p == NULL || text.n > sizeof room - 16) {
        return NULL;
    }
    if (expression) {
        int n = snprintf(room, sizeof room, "SELECT %.*s", CS_SLICE_FMT(text));
        if (n < 0 || (size_t)n >= sizeof room) {
            return NULL;
        }
        c.text = cs_slice(room, (size_t)n);
    }
    cs_big_stack_call(classify_deep, &c);
    return c.class;
}

static const struct text_table {
    const char *name;
    uint8_t kind;
    uint16_t columns;
    uint8_t text, when; /* which cell; when: the cell, or 0 */
    char always;        /* … and then this */
    bool expression;
} text_tables[] = {
    {"functions", CS_CATALOGUE_FUNCTION, 6, 5, 0, 'd', false},
    {"views", CS_CATALOGUE_RELATION, 2, 1, 0, 'd', false},
    {"texts", CS_CATALOGUE_RELATION, 3, 2, 1, 0, true},
    {"type_texts", CS_CATALOGUE_TYPE, 2, 1, 0, 'r', true},
};

static bool read_text_table(struct making *m, const struct text_table *tt, struct cs_rows *rows)
{
    struct cs_slice c[8];
    uint32_t oid;
    while (cs_rows_next_row(rows, c, CS_ARRAY_LEN(c))) {
        const struct thing *owner = oid_of(c[0], &oid) ? find(m, tt->kind, oid) : NULL;
        if (owner == NULL || (tt->kind == CS_CATALOGUE_FUNCTION && c[5].p == NULL)) {
            continue; /* a view made since, or a function that is no candidate */
        }
        struct text *x = &m->texts[m->n_texts++];
        *x = (struct text){.owner = (size_t)(owner - m->things),
                           .when = tt->when != 0 ? letter(c[tt->when]) : tt->always,
                           .class = classify(m, c[tt->text], tt->expression)};
        if (m->n_texts % YIELD_EACH == 0 && !cs_co_yield()) {
            return false;
        }
    }
    return true;
}

static bool read_texts(struct making *m)
{
    struct cs_rows rows[CS_ARRAY_LEN(text_tables)];
    size_t total = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(text_tables); i++) {
        if (!table(m, text_tables[i].name, text_tables[i].columns, &rows[i])) {
            return false;
        }
        total += rows[i].rows;
    }
    m->texts = CS_NEW_ARRAY(&m->arena, struct text, total + 1);
    for (size_t i = 0; m->texts != NULL && i < CS_ARRAY_LEN(text_tables); i++) {
        if (!read_text_table(m, &text_tables[i], &rows[i])) {
            return false;
        }
    }
    return m->texts != NULL;
}

static bool read_implicit(struct making *m)
{
    struct cs_rows rows;
    struct cs_slice c[2];
    uint32_t type;
    if (!table(m, "implicit", 2, &rows)) {
        return false;
    }
    m->implicit = CS_NEW_ARRAY(&m->arena, struct implicit, (size_t)rows.rows + 1);
    while (m->implicit != NULL && cs_rows_next_row(&rows, c, 2)) {
        struct implicit *x = &m->implicit[m->n_implicit];
        if (!oid_of(c[0], &x->code) || !oid_of(c[1], &type)) {
            return false;
        }
        const struct thing *t = type != 0 ? find(m, CS_CATALOGUE_TYPE, type) : NULL;
        x->type = t != NULL ? (size_t)(t - m->things) : NONE;
        m->n_implicit++;
    }
    return m->implicit != NULL;
}

/* ---- rounds ---- */

/* Built in, an extension's, or harmless by now. */
static bool code_fine(const struct making *m, uint32_t oid)
{
    const struct thing *f = find(m, CS_CATALOGUE_FUNCTION, oid);
    return oid < FIRST_USER_OID || (f != NULL && (f->quiet || f->harmless));
}

/* Before the texts and edges have their say. */
static void begin_round(const struct making *m, struct thing *t)
{
    bool fine = false;
    switch (t->kind) {
    case CS_CATALOGUE_FUNCTION:
        fine = false; /* until its body says otherwise */
        break;
    case CS_CATALOGUE_OPERATOR:
        fine = code_fine(m, t->code[0]);
        break;
    case CS_CATALOGUE_TYPE:
        fine = strchr("ebdcrm", t->what) != NULL && code_fine(m, t->code[0]) &&
               code_fine(m, t->code[1]);
        break;
    default:
        fine = strchr("rpmS", t->what) != NULL; /* views by their definition; foreign ones never */
        break;
    }
    t->bad = !fine;
    t->write_bad = t->acts || t->what == 'f' || t->what == '?';
}

static bool text_fine(const struct making *m, const struct text *x)
{
    struct cs_sql_judged j;
    uint8_t may = x->when == 'w' ? CS_SQL_READ | CS_SQL_WRITE : CS_SQL_READ;
    if (x->class == NULL) {
        return false;
    }
    cs_sql_judge(x->class, &m->catalogue, true, &j);
    return (j.effects & ~(unsigned)may) == 0 && !j.unknown;
}

static void apply_texts(struct making *m)
{
    for (size_t i = 0; i < m->n_texts; i++) {
        struct thing *t = &m->things[m->texts[i].owner];
        bool fine = text_fine(m, &m->texts[i]);
        if (m->texts[i].when == 'd') {
            t->bad = !fine;
        } else if (m->texts[i].when == 'w') {
            t->write_bad = t->write_bad || !fine;
        } else {
            t->bad = t->bad || !fine;
        }
    }
}

/* Whoever has a value of the type may run that code, whatever is done with it. */
static void apply_implicit(struct making *m)
{
    for (size_t i = 0; i < m->n_implicit; i++) {
        const struct implicit *x = &m->implicit[i];
        if (x->type != NONE && !code_fine(m, x->code)) {
            m->things[x->type].bad = true;
        }
    }
}

static void apply_edges(struct making *m)
{
    for (size_t i = 0; i < m->n_edges; i++) {
        const struct edge *e = &m->edges[i];
        struct thing *from = &m->things[e->from];
        const struct thing *to = &m->things[e->to];
        bool relation = to->kind == CS_CATALOGUE_RELATION;
        from->bad = from->bad || (!e->write_only && !to->harmless);
        from->write_bad = from->write_bad || (relation ? !to->write_harmless : !to->harmless);
        from->more = from->more || (relation && to->more);
    }
}

static uint8_t bits_of(const struct thing *t)
{
    unsigned bits = 0;
    if (t->kind == CS_CATALOGUE_RELATION) {
        bits |= t->harmless ? 0 : CS_CATALOGUE_READ_OPAQUE;
        bits |= t->write_harmless ? 0 : CS_CATALOGUE_WRITE_OPAQUE;
        bits |= t->more ? CS_CATALOGUE_WRITES_MORE : 0;
        return (uint8_t)bits;
    }
    bits |= t->harmless && !t->clash ? CS_CATALOGUE_HARMLESS : 0;
    bits |= t->quiet || t->harmless ? CS_CATALOGUE_QUIET : 0;
    return (uint8_t)bits;
}

/* A type once more, by its number: a clash of names is none of numbers. */
static bool publish_number(struct making *m, const struct thing *t, struct cs_catalogue_entry *e)
{
    char *digits = cs_arena_array(&m->arena, CS_CATALOGUE_DIGITS, 1);
    if (digits == NULL) {
        return false;
    }
    (void)snprintf(digits, CS_CATALOGUE_DIGITS, "%u", t->oid);
    *e = (struct cs_catalogue_entry){.schema = CS_SLICE_LIT(CS_CATALOGUE_NUMBERS),
                                     .name = cs_slice_str(digits),
                                     .kind = CS_CATALOGUE_TYPE,
                                     .bits = t->harmless ? CS_CATALOGUE_HARMLESS : 0};
    return true;
}

/* At the end, when nothing more is learnt. */
static bool publish_numbers(struct making *m)
{
    for (size_t i = 0; i < m->n_things; i++) {
        const struct thing *t = &m->things[i];
        if (t->kind == CS_CATALOGUE_TYPE &&
            !publish_number(m, t, &m->catalogue.entries[m->catalogue.n++])) {
            return false;
        }
    }
    cs_catalogue_sort(&m->catalogue);
    return true;
}

/* SECURITY: the server's own tables have values of every type in columns of the type anyarray; to
 * compare these runs what compares the type, and no name shows it. */
static void publish_everything(struct making *m)
{
    static const char *const names[EVERYTHING] = {
        "pg_attribute", "pg_statistic", "pg_statistic_ext_data", "pg_stats", "pg_stats_ext_exprs"};
    bool fine = true;
    for (size_t i = 0; i < m->n_implicit; i++) {
        fine = fine && code_fine(m, m->implicit[i].code);
    }
    for (size_t i = 0; !fine && i < EVERYTHING; i++) {
        m->catalogue.entries[m->catalogue.n++] =
            (struct cs_catalogue_entry){.schema = CS_SLICE_LIT("pg_catalog"),
                                        .name = cs_slice_str(names[i]),
                                        .kind = CS_CATALOGUE_RELATION,
                                        .bits = CS_CATALOGUE_READ_OPAQUE};
    }
}

static void publish(struct making *m)
{
    struct cs_catalogue *c = &m->catalogue;
    for (size_t i = 0; i < m->n_things; i++) {
        const struct thing *t = &m->things[i];
        c->entries[i] = (struct cs_catalogue_entry){
            .schema = t->schema, .name = t->name, .kind = t->kind, .bits = bits_of(t)};
    }
    c->n = m->n_things;
    publish_everything(m);
    cs_catalogue_sort(c);
}

/* True when it learnt something. */
static bool one_round(struct making *m)
{
    bool learnt = false;
    publish(m);
    for (size_t i = 0; i < m->n_things; i++) {
        begin_round(m, &m->things[i]);
    }
    apply_texts(m);
    apply_implicit(m);
    apply_edges(m);
    for (size_t i = 0; i < m->n_things; i++) {
        struct thing *t = &m->things[i];
        bool write = !t->bad && !t->write_bad;
        learnt = learnt || t->harmless == t->bad || t->write_harmless != write;
        t->harmless = !t->bad;
        t->write_harmless = write;
    }
    return learnt;
}

/* What can run behind any text, because no name in it shows. */
static bool is_strict(const struct making *m)
{
    for (size_t i = 0; i < m->n_implicit; i++) {
        if (m->implicit[i].type == NONE && !code_fine(m, m->implicit[i].code)) {
            return true;
        }
    }
    for (size_t i = 0; i < m->n_texts; i++) {
        if (m->texts[i].when == 'p' && !text_fine(m, &m->texts[i])) {
            return true;
        }
    }
    return false;
}

static void set_dotted(struct making *m)
{
    for (size_t i = 0; i < m->n_things; i++) {
        const struct thing *t = &m->things[i];
        bool domain = t->kind == CS_CATALOGUE_TYPE && t->what == 'd'; /* t.d may be a cast to it */
        if ((t->dotted || domain) && !t->harmless && !t->quiet) {
            cs_catalogue_dot(m->catalogue.dotted, t->name.p, t->name.n);
        }
    }
}

/* Not there (an old server, or it took too long): the rest is as good without. */
static void read_print(struct making *m)
{
    struct cs_rows rows;
    struct cs_slice c[1];
    struct cs_catalogue *to = &m->catalogue;
    to->printed = table(m, "print", 1, &rows) && cs_rows_next_row(&rows, c, 1) &&
                  c[0].n >= 2 * sizeof to->print &&
                  cs_unhex(cs_slice_head(c[0], 2 * sizeof to->print), to->print, sizeof to->print);
}

static enum cs_err make(struct making *m, struct cs_buf *out)
{
    if (!read_things(m) || !read_edges(m) || !read_texts(m) || !read_implicit(m)) {
        return CS_ERR_PROTOCOL;
    }
    m->catalogue.entries =
        CS_NEW_ARRAY(&m->arena, struct cs_catalogue_entry, 2 * m->n_things + EVERYTHING);
    if (m->catalogue.entries == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    for (int i = 0; i < ROUNDS && one_round(m); i++) {
        if (!cs_co_yield()) {
            return CS_ERR_CANCELLED;
        }
    }
    publish(m);
    read_print(m);
    m->catalogue.strict = is_strict(m);
    set_dotted(m);
    if (!publish_numbers(m)) {
        return CS_ERR_NO_MEMORY;
    }
    cs_catalogue_write(out, &m->catalogue);
    return out->bad ? CS_ERR_TOO_LARGE : CS_OK;
}

enum cs_err cs_probe_catalogue(struct cs_probe_task_run *t, struct cs_slice answers,
                               struct cs_buf *out)
{
    struct making m = {.task = t, .sql = t->probe->sql, .answers = answers};
    cs_arena_init(&m.arena, 64 * 1024, ARENA_MAX);
    enum cs_err e = make(&m, out);
    for (size_t i = 0; i < m.n_texts; i++) {
        if (m.texts[i].class != NULL) {
            cs_sql_release(m.sql, m.texts[i].class);
        }
    }
    cs_arena_done(&m.arena);
    if (e != CS_OK) {
        (void)snprintf(t->why, sizeof t->why, "target \"%.*s\": its catalogue cannot be read",
                       CS_SLICE_FMT(cs_slice_head(t->task.target, 60)));
    }
    return e;
}
