/* A target's catalogue (catalogue.h): its form, and what it adds to a class. Called by probe, which
 * makes it, and by gates for every action. It must never make anything harmless that it does not
 * know: what is not found stays as the text alone makes it, and an entry without a bit is not
 * harmless. */
#include "sql/catalogue.h"

#include "base/reader.h"

#include <stdio.h>
#include <stdlib.h>

static const uint8_t magic[8] = {'C', 'S', 'C', 'A', 'T', 0, 0, 2};
enum { NAME_MAX_BYTES = 255, ENTRY_MIN = 4 };

/* ---- order ---- */

static int compare_slices(struct cs_slice a, struct cs_slice b)
{
    size_t n = CS_MIN(a.n, b.n);
    int d = n > 0 ? memcmp(a.p, b.p, n) : 0;
    return d != 0 ? d : a.n < b.n ? -1 : a.n > b.n;
}

static int compare(const void *x, const void *y)
{
    const struct cs_catalogue_entry *a = x, *b = y;
    if (a->kind != b->kind) {
        return a->kind < b->kind ? -1 : 1;
    }
    int d = compare_slices(a->schema, b->schema);
    return d != 0 ? d : compare_slices(a->name, b->name);
}

/* Good bits hold only where all say so, bad ones where any does. */
static uint8_t merged(uint8_t a, uint8_t b)
{
    const uint8_t good = CS_CATALOGUE_HARMLESS | CS_CATALOGUE_QUIET;
    return (uint8_t)((a & b & good) | ((a | b) & ~(unsigned)good));
}

void cs_catalogue_sort(struct cs_catalogue *c)
{
    size_t n = 0;
    if (c->n == 0) {
        return;
    }
    qsort(c->entries, c->n, sizeof *c->entries, compare);
    for (size_t i = 1; i < c->n; i++) {
        if (compare(&c->entries[n], &c->entries[i]) == 0) {
            c->entries[n].bits = merged(c->entries[n].bits, c->entries[i].bits);
        } else {
            c->entries[++n] = c->entries[i];
        }
    }
    c->n = n + 1;
}

const struct cs_catalogue_entry *cs_catalogue_find(const struct cs_catalogue *c,
                                                   enum cs_catalogue_kind kind,
                                                   struct cs_slice schema, struct cs_slice name)
{
    const struct cs_catalogue_entry key = {.kind = (uint8_t)kind, .schema = schema, .name = name};
    return c->n > 0 ? bsearch(&key, c->entries, c->n, sizeof key, compare) : NULL;
}

static bool beyond_ascii(struct cs_slice s)
{
    uint8_t any = 0;
    for (size_t i = 0; i < s.n; i++) {
        any |= s.p[i];
    }
    return any >= 0x80;
}

/* SECURITY: the grammar cuts a name at 63 bytes of UTF-8, a server that keeps its names in another
 * encoding elsewhere or not at all. */
static bool may_be_cut(struct cs_slice s)
{
    return s.n >= CS_CATALOGUE_MAY_BE_CUT && beyond_ascii(s);
}

void cs_catalogue_dot(uint64_t dotted[static 4], const void *name, size_t n)
{
    const uint8_t *s = name;
    uint32_t h = 2166136261u;
    if (may_be_cut(cs_slice(name, n))) {
        memset(dotted, 0xff, 4 * sizeof dotted[0]);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        h = (uint32_t)(((uint64_t)(h ^ s[i]) * 16777619u) & UINT32_MAX);
    }
    h ^= h >> 16;
    dotted[h >> 6 & 3] |= UINT64_C(1) << (h & 63);
}

/* ---- the form: magic, u8 strict, u8 printed, the print, the dotted bits, u32le count; each u8
 * kind, u8 bits, u8 length and schema, u8 length and name ---- */

static bool known_kind(uint8_t kind)
{
    return kind == CS_CATALOGUE_FUNCTION || kind == CS_CATALOGUE_RELATION ||
           kind == CS_CATALOGUE_TYPE || kind == CS_CATALOGUE_OPERATOR;
}

static bool read_entry(struct cs_reader *r, struct cs_catalogue_entry *e)
{
    e->kind = cs_reader_u8(r);
    e->bits = cs_reader_u8(r);
    e->schema = cs_reader_take(r, cs_reader_u8(r));
    e->name = cs_reader_take(r, cs_reader_u8(r));
    return !r->bad && known_kind(e->kind) && (e->bits & ~(unsigned)CS_CATALOGUE_BITS) == 0 &&
           e->schema.n > 0 && e->name.n > 0;
}

/* By number each type is there once, whatever its name. */
static bool runs(const struct cs_catalogue_entry *e)
{
    return e->kind == CS_CATALOGUE_TYPE && cs_slice_eq_str(e->schema, CS_CATALOGUE_NUMBERS) &&
           (e->bits & CS_CATALOGUE_HARMLESS) == 0;
}

enum cs_err cs_catalogue_read(struct cs_slice in, struct cs_arena *a, struct cs_catalogue *ret)
{
    struct cs_reader r = cs_reader(in);
    struct cs_catalogue c = {0};
    if (!cs_slice_eq(cs_reader_take(&r, sizeof magic), cs_slice(magic, sizeof magic))) {
        return CS_ERR_CORRUPT;
    }
    uint8_t strict = cs_reader_u8(&r), printed = cs_reader_u8(&r);
    struct cs_slice print = cs_reader_take(&r, sizeof c.print);
    for (size_t i = 0; i < CS_ARRAY_LEN(c.dotted); i++) {
        c.dotted[i] = cs_reader_u64le(&r);
    }
    uint32_t n = cs_reader_u32le(&r);
    if (r.bad || strict > 1 || printed > 1 || n > cs_reader_left(&r) / ENTRY_MIN) {
        return CS_ERR_CORRUPT;
    }
    c.strict = strict == 1;
    c.printed = printed == 1;
    memcpy(c.print, print.p, sizeof c.print);
    c.entries = CS_NEW_ARRAY(a, struct cs_catalogue_entry, (size_t)n + 1);
    if (c.entries == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    for (c.n = 0; c.n < n; c.n++) {
        if (!read_entry(&r, &c.entries[c.n]) ||
            (c.n > 0 && compare(&c.entries[c.n - 1], &c.entries[c.n]) >= 0)) {
            return CS_ERR_CORRUPT;
        }
        c.types_run = c.types_run || runs(&c.entries[c.n]);
    }
    if (!cs_reader_done(&r)) {
        return CS_ERR_CORRUPT;
    }
    *ret = c;
    return CS_OK;
}

static void put_le(struct cs_buf *out, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        cs_buf_u8(out, (uint8_t)(v >> (8 * i)));
    }
}

static void put_name(struct cs_buf *out, struct cs_slice s)
{
    out->bad = out->bad || s.n == 0 || s.n > NAME_MAX_BYTES;
    cs_buf_u8(out, (uint8_t)s.n);
    cs_buf_add(out, s);
}

void cs_catalogue_write(struct cs_buf *out, const struct cs_catalogue *c)
{
    cs_buf_add(out, cs_slice(magic, sizeof magic));
    cs_buf_u8(out, c->strict ? 1 : 0);
    cs_buf_u8(out, c->printed ? 1 : 0);
    cs_buf_add(out, cs_slice(c->print, sizeof c->print));
    for (size_t i = 0; i < CS_ARRAY_LEN(c->dotted); i++) {
        put_le(out, c->dotted[i], 8);
    }
    put_le(out, c->n, 4);
    for (size_t i = 0; i < c->n; i++) {
        cs_buf_u8(out, c->entries[i].kind);
        cs_buf_u8(out, c->entries[i].bits);
        put_name(out, c->entries[i].schema);
        put_name(out, c->entries[i].name);
    }
}

/* ---- names as a class has them: a.b.c, a part with a dot or quote in it quoted ---- */

struct parts {
    struct cs_slice schema, name; /* schema empty: none was written */
    bool whole;                   /* false: it cannot be looked up (quoted parts) */
};

static struct parts split(struct cs_slice s)
{
    struct parts p = {.whole = cs_slice_find(s, '"') == s.n};
    size_t dot = cs_slice_find(s, '.');
    while (dot < s.n) { /* the last two parts: a third is the database's own name */
        p.schema = cs_slice_head(s, dot);
        s = cs_slice_from(s, dot + 1);
        dot = cs_slice_find(s, '.');
    }
    p.name = s;
    p.whole = p.whole && !may_be_cut(p.schema) && !may_be_cut(p.name);
    return p;
}

static bool is_system(struct cs_slice schema)
{
    return cs_slice_eq_str(schema, "pg_catalog") || cs_slice_eq_str(schema, "information_schema") ||
           cs_slice_eq_str(schema, "pg_toast");
}

/* Unqualified: the pinned path is pg_catalog, public; a user's own thing in pg_catalog counts. */
static const struct cs_catalogue_entry *look_up(const struct cs_catalogue *c,
                                                enum cs_catalogue_kind kind, const struct parts *p)
{
    if (p->schema.n > 0) {
        return cs_catalogue_find(c, kind, p->schema, p->name);
    }
    const struct cs_catalogue_entry *e =
        cs_catalogue_find(c, kind, CS_SLICE_LIT("pg_catalog"), p->name);
    return e != NULL ? e : cs_catalogue_find(c, kind, CS_SLICE_LIT("public"), p->name);
}

/* Of functions not the first one on the path is called, but the best match of all. */
static bool all_have(const struct cs_catalogue *c, enum cs_catalogue_kind kind,
                     const struct parts *p, unsigned bits)
{
    static const char *const path[] = {"pg_catalog", "public"};
    bool fine = true;
    for (size_t i = 0; i < CS_ARRAY_LEN(path); i++) {
        struct cs_slice schema = p->schema.n > 0 ? p->schema : cs_slice_str(path[i]);
        const struct cs_catalogue_entry *e = cs_catalogue_find(c, kind, schema, p->name);
        fine = fine && (e == NULL || (e->bits & bits) != 0);
    }
    return fine;
}

/* SECURITY: f('x') may be a cast to a type f, which is tried before a function that is not an exact
 * match; and a function on the path that is as good a match may be another than the first. */
static bool call_fine(const struct cs_catalogue *c, const struct parts *p, unsigned bits)
{
    return all_have(c, CS_CATALOGUE_FUNCTION, p, bits) &&
           all_have(c, CS_CATALOGUE_TYPE, p, CS_CATALOGUE_HARMLESS | CS_CATALOGUE_QUIET);
}

/* ---- narrowing ---- */

static bool harmless(const struct cs_catalogue *c, enum cs_catalogue_kind kind,
                     struct cs_slice text, bool *ret_unknown)
{
    struct parts p = split(text);
    const struct cs_catalogue_entry *e = p.whole ? look_up(c, kind, &p) : NULL;
    *ret_unknown = *ret_unknown || (e == NULL && !is_system(p.schema));
    return e != NULL && (e->bits & CS_CATALOGUE_HARMLESS) != 0 &&
           (kind != CS_CATALOGUE_FUNCTION || call_fine(c, &p, CS_CATALOGUE_HARMLESS));
}

/* Is each thing that made it opaque known to be harmless? */
static bool all_harmless(const struct cs_sql_class *class, const struct cs_catalogue *c,
                         bool *ret_unknown)
{
    for (size_t i = 0; i < class->n_strangers; i++) {
        struct cs_slice s = class->strangers[i]; /* its kind, then its name */
        if (s.n < 2 ||
            !harmless(c, (enum cs_catalogue_kind)s.p[0], cs_slice_from(s, 1), ret_unknown)) {
            return false;
        }
    }
    return class->n_strangers > 0;
}

/* ---- widening ---- */

static void widen(struct cs_sql_judged *j, const char *why)
{
    j->effects |= CS_SQL_OPAQUE;
    j->why = j->why[0] != 0 ? j->why : why;
}

/* A built-in's name that a user's function has too: the better match is called. */
static void widen_functions(const struct cs_sql_class *class, const struct cs_catalogue *c,
                            struct cs_sql_judged *j)
{
    for (size_t i = 0; i < class->n_functions; i++) {
        struct parts p = split(class->functions[i]);
        if (!p.whole) {
            widen(j, "a name in it cannot be looked up");
        }
        if (!call_fine(c, &p, CS_CATALOGUE_HARMLESS | CS_CATALOGUE_QUIET)) {
            widen(j, "a user's function or type has the name of one that it calls");
        }
    }
}

static void widen_relations(const struct cs_slice *names, size_t n, bool written,
                            const struct cs_catalogue *c, struct cs_sql_judged *j)
{
    for (size_t i = 0; i < n; i++) {
        struct parts p = split(names[i]);
        const struct cs_catalogue_entry *e = look_up(c, CS_CATALOGUE_RELATION, &p);
        if (!p.whole) {
            widen(j, "a name in it cannot be looked up");
        }
        if (!written && cs_slice_starts(p.schema, CS_SLICE_LIT("pg_temp"))) {
            widen(j, "it names a temporary relation by its schema"); /* of any session, any view */
        }
        if (e == NULL) {
            j->unknown = j->unknown || !is_system(p.schema);
            if (beyond_ascii(names[i])) { /* SECURITY: É is é where the server's locale says so */
                widen(j, "a name in it may be another one in the server's encoding");
            }
            continue;
        }
        if ((e->bits & CS_CATALOGUE_READ_OPAQUE) != 0) {
            widen(j, "reading a relation that it names runs code");
        }
        if (written && (e->bits & CS_CATALOGUE_WRITE_OPAQUE) != 0) {
            widen(j, "writing a relation that it names runs code");
        }
        if (written && (e->bits & CS_CATALOGUE_WRITES_MORE) != 0) {
            j->writes_known = false;
        }
    }
}

static void widen_all(const struct cs_sql_class *class, const struct cs_catalogue *c,
                      struct cs_sql_judged *j)
{
    widen_functions(class, c, j);
    widen_relations(class->reads, class->n_reads, false, c, j);
    widen_relations(class->writes, class->n_writes, true, c, j);
    for (size_t i = 0; i < CS_ARRAY_LEN(c->dotted); i++) {
        if ((class->dotted[i] & c->dotted[i]) != 0) {
            widen(j, "a name with a dot in it may call a user's function");
        }
    }
    bool more = (j->effects & ~(unsigned)CS_SQL_SESSION) != 0 || class->prepares;
    if (c->strict && more) {
        widen(j, "the database has user-defined operators or casts that run code");
    }
}

/* SECURITY: PREPARE makes values of the literals in it while it only analyses: a type's input runs,
 * and the checks of domains in a record or an array. Such a type may be what a function returns. */
static void widen_prepared(const struct cs_sql_class *class, const struct cs_catalogue *c,
                           bool narrow, struct cs_sql_judged *j)
{
    for (size_t i = 0; class->prepares && i < class->n_strangers; i++) {
        struct cs_slice s = class->strangers[i];
        if (s.n < 2 || c == NULL || !narrow ||
            !harmless(c, (enum cs_catalogue_kind)s.p[0], cs_slice_from(s, 1), &j->unknown)) {
            widen(j, "it prepares a statement with what is not known to be harmless");
        }
    }
}

void cs_sql_judge(const struct cs_sql_class *class, const struct cs_catalogue *c, bool narrow,
                  struct cs_sql_judged *ret)
{
    struct cs_sql_judged j = {
        .effects = class->effects, .why = class->why, .writes_known = class->writes_known};
    if (c != NULL && class->parsed) {
        if (class->by_strangers && all_harmless(class, c, &j.unknown) && narrow) {
            uint8_t left = class->effects & (uint8_t) ~(unsigned)CS_SQL_OPAQUE;
            j.effects = left != 0 ? left : CS_SQL_READ;
            j.writes_known = class->writes_listed;
            j.why = "";
            j.narrowed = true;
        }
        widen_all(class, c, &j);
    }
    widen_prepared(class, c, narrow, &j);
    j.names_known = class->parsed && (j.effects & CS_SQL_OPAQUE) == 0;
    j.writes_known = j.writes_known && j.names_known;
    *ret = j;
}

void cs_sql_judge_types(const uint32_t *types, size_t n, const struct cs_catalogue *c, bool narrow,
                        struct cs_sql_judged *j)
{
    char digits[CS_CATALOGUE_DIGITS];
    for (size_t i = 0; i < n; i++) {
        if (types[i] < CS_CATALOGUE_FIRST_NUMBER) {
            continue;
        }
        (void)snprintf(digits, sizeof digits, "%u", types[i]);
        const struct cs_catalogue_entry *e =
            c != NULL ? cs_catalogue_find(c, CS_CATALOGUE_TYPE, CS_SLICE_LIT(CS_CATALOGUE_NUMBERS),
                                          cs_slice_str(digits))
                      : NULL;
        j->unknown = j->unknown || (c != NULL && e == NULL);
        if (narrow && e != NULL && (e->bits & CS_CATALOGUE_HARMLESS) != 0) {
            j->narrowed = true;
        } else {
            widen(j, "a parameter is of a type that is not known to be harmless");
            j->names_known = j->writes_known = false;
        }
    }
}
