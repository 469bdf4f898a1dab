/* The catalogue out of a server's answers: what makes a thing harmless, and that no answer, however
 * odd, makes one harmless that is not. */
#include "world.h"

#include "sql/catalogue.h"

enum { TABLES = 11, ROWS = 8, CELLS = 7, ROUND_LIMIT = 32 };

static const struct form {
    const char *name;
    uint16_t columns;
} forms[TABLES] = {{"functions", 6},    {"operators", 4},  {"implicit", 2},  {"types", 7},
                   {"type_parts", 2},   {"type_texts", 2}, {"relations", 6}, {"children", 2},
                   {"column_types", 2}, {"views", 2},      {"texts", 3}};

struct answer { /* of one table: rows with cells between bars, `~` is NULL */
    const char *table, *row;
};

static const char *spoiled; /* this table: */
static enum { SOUND, LACKS, FAILED, CUT, NARROW, WIDE } how;

static void put_row(struct cs_rows_writer *w, uint16_t columns, const char *row)
{
    struct cs_slice rest = cs_slice_str(row);
    for (uint16_t i = 0; i < columns; i++) {
        size_t n = cs_slice_find(rest, '|');
        struct cs_slice cell = cs_slice_head(rest, n);
        cs_rows_cell(w, cs_slice_eq_str(cell, "~") ? CS_SLICE_NULL : cell);
        rest = cs_slice_from(rest, n + 1);
    }
    cs_rows_end_row(w);
}

static void put_table(struct cs_buf *b, const struct form *f, const struct answer *a, size_t n)
{
    struct cs_rows_writer w;
    bool odd = spoiled != NULL && strcmp(spoiled, f->name) == 0;
    uint16_t columns = f->columns;
    if (odd && how == LACKS) {
        return;
    }
    if (odd && how == FAILED) {
        cs_rows_failed(b, f->name, CS_SLICE_LIT("42501 no"));
        return;
    }
    columns = (uint16_t)(columns + (odd && how == WIDE) - (odd && how == NARROW));
    if (columns == 0) {
        return;
    }
    cs_rows_table(&w, b, f->name, columns);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(a[i].table, f->name) == 0) {
            put_row(&w, columns, a[i].row);
        }
    }
    cs_rows_end(&w, odd && how == CUT ? CS_ROWS_CUT : CS_ROWS_COMPLETE);
}

static struct cs_arena arena; /* of the catalogue that was read back */
static struct cs_catalogue got;

static enum cs_err make(struct world *w, const struct answer *a, size_t n)
{
    struct cs_buf answers = cs_buf(1 << 20);
    cs_rows_begin(&answers);
    for (size_t i = 0; i < TABLES; i++) {
        put_table(&answers, &forms[i], a, n);
    }
    CS_CHECK(!answers.bad && cs_rows_valid(cs_buf_slice(&answers)));
    w->out.len = 0;
    enum cs_err e = cs_probe_catalogue(&w->task, cs_buf_slice(&answers), &w->out);
    cs_arena_reset(&arena);
    if (e == CS_OK) {
        CS_CHECK(cs_catalogue_read(cs_buf_slice(&w->out), &arena, &got) == CS_OK);
    } else {
        CS_CHECK(strstr(w->task.why, "orders") != NULL);
    }
    cs_buf_done(&answers);
    return e;
}

static unsigned bits(enum cs_catalogue_kind kind, const char *name)
{
    const struct cs_catalogue_entry *e =
        cs_catalogue_find(&got, kind, CS_SLICE_LIT("public"), cs_slice_str(name));
    if (e == NULL) {
        CS_FAIL("%s is not in the catalogue", name);
    }
    return e->bits;
}

static bool harmless(const char *function)
{
    return (bits(CS_CATALOGUE_FUNCTION, function) & CS_CATALOGUE_HARMLESS) != 0;
}

#define MAKE(...)                                                                                  \
    do {                                                                                           \
        const struct answer rows_[] = {__VA_ARGS__};                                               \
        CS_EQ_U64(make(w, rows_, CS_ARRAY_LEN(rows_)), CS_OK);                                     \
    } while (0)
#define REFUSED(...)                                                                               \
    do {                                                                                           \
        const struct answer rows_[] = {__VA_ARGS__};                                               \
        CS_EQ_U64(make(w, rows_, CS_ARRAY_LEN(rows_)), CS_ERR_PROTOCOL);                           \
    } while (0)

static void run(void (*script)(struct world *w))
{
    spoiled = NULL;
    how = SOUND;
    cs_arena_init(&arena, 4096, 1 << 24);
    world_run(script);
}

/* The arena is gone before the world counts its memory. */
static void done(void)
{
    cs_arena_done(&arena);
}

/* ---- bodies ---- */

static void bodies(struct world *w)
{
    static const struct {
        const char *body;
        bool harmless;
    } seen[] = {
        {"select 1", true},
        {"select $1 + 1", true},
        {"select lower('A')", true},
        {"", false},
        {"~", false},
        {"selec 1", false},
        {"select 1; select 2", true},
        {"select 1; delete from public.t", false},
        {"delete from public.t", false},
        {"insert into public.t values (1) returning 1", false},
        {"select pg_read_file('/etc/passwd')", false},
        {"select public.unknown()", false},
        {"select set_config('role', 'boss', false)", false},
        {"select nextval('s')", false},
        {"do $$begin end$$", false},
        {"select * from public.unknown", false},
        {"\x01\xff", false},
        {"select pg_terminate_backend(1)", false},
        {"create table t (i int)", false},
        {"call p()", false},
        {"select 1 from pg_catalog.pg_class", true},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(seen); i++) {
        char row[200];
        (void)snprintf(row, sizeof row, "20000|public|f|f|f|%s", seen[i].body);
        MAKE({"functions", row});
        if (harmless("f") != seen[i].harmless) {
            CS_FAIL("%s", seen[i].body);
        }
    }
    done();
}
CS_TEST(a_function_is_as_harmless_as_its_body)
{
    run(bodies);
}

static void long_body(struct world *w)
{
    static char row[40000];
    for (size_t n = 19900; n < 20100; n += 50) {
        int at = snprintf(row, sizeof row, "20000|public|f|f|f|select 1 -- ");
        memset(row + at, 'x', n);
        row[(size_t)at + n] = 0;
        MAKE({"functions", row});
        CS_CHECK(harmless("f") == (n + 12 <= 20000 - 16));
    }
    done();
}
CS_TEST(a_body_that_is_too_long_is_not_read_and_not_harmless)
{
    run(long_body);
}

static void circles(struct world *w)
{
    MAKE({"functions", "20000|public|f|f|f|select public.f()"});
    CS_CHECK(!harmless("f"));
    MAKE({"functions", "20000|public|f|f|f|select public.g()"},
         {"functions", "20001|public|g|f|f|select public.f()"});
    CS_CHECK(!harmless("f") && !harmless("g"));
    MAKE({"functions", "20000|public|f|f|f|select public.g()"},
         {"functions", "20001|public|g|f|f|select public.h()"},
         {"functions", "20002|public|h|f|f|select 1"});
    CS_CHECK(harmless("f") && harmless("g") && harmless("h"));
    MAKE({"functions", "20000|public|f|f|f|select public.g()"},
         {"functions", "20001|public|g|f|f|select public.h()"},
         {"functions", "20002|public|h|f|f|~"});
    CS_CHECK(!harmless("f") && !harmless("g") && !harmless("h"));
    done();
}
CS_TEST(what_calls_itself_is_not_harmless_and_a_chain_is_what_its_end_is)
{
    run(circles);
}

static void deep(struct world *w)
{
    enum { MANY = 60 };
    static char rows[MANY][80];
    static struct answer a[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        (void)snprintf(rows[i], sizeof rows[i], "%u|public|f%u|f|f|select %s%u%s", 20000 + i, i,
                       i + 1 < MANY ? "public.f" : "", i + 1, i + 1 < MANY ? "()" : "");
        a[i] = (struct answer){"functions", rows[i]};
    }
    CS_EQ_U64(make(w, a, MANY), CS_OK);
    CS_CHECK(harmless("f59") && harmless("f40"));
    CS_CHECK(!harmless("f0")); /* deeper than the rounds go: stays what it was */
    done();
}
CS_TEST(what_is_too_deep_stays_opaque)
{
    run(deep);
}

static void overloads(struct world *w)
{
    MAKE({"functions", "20000|public|f|f|f|select 1"},
         {"functions", "20001|public|f|f|f|delete from t"});
    CS_CHECK(!harmless("f"));
    MAKE({"functions", "20000|public|f|f|f|select 1"},
         {"functions", "20000|public|f|f|f|delete from t"}); /* one number for two: a lie */
    CS_CHECK(!harmless("f"));
    done();
}
CS_TEST(overloads_are_harmless_only_together)
{
    run(overloads);
}

/* ---- answers that are none ---- */

static const struct answer sound[] = {
    {"functions", "20000|public|f|f|f|select 1"},
    {"relations", "20001|public|t|r|f|f"},
    {"types", "20002|public|mood|e|1|1|f"},
    {"operators", "public|<<>>|1|f"},
    {"views", "20001|select 1"},
    {"texts", "20001|r|true"},
    {"type_parts", "20002|20002"},
    {"children", "20001|20001"},
    {"column_types", "20001|20002"},
    {"implicit", "20000|0"},
    {"type_texts", "20002|true"},
};

static void tables(struct world *w)
{
    CS_EQ_U64(make(w, sound, CS_ARRAY_LEN(sound)), CS_OK);
    for (size_t i = 0; i < TABLES; i++) {
        spoiled = forms[i].name;
        for (how = LACKS; how <= WIDE; how++) {
            CS_EQ_U64(make(w, sound, CS_ARRAY_LEN(sound)), CS_ERR_PROTOCOL);
        }
    }
    done();
}
CS_TEST(a_table_that_lacks_failed_or_has_another_shape_makes_no_catalogue)
{
    run(tables);
}

static void numbers(struct world *w)
{
    static const char *const bad[] = {
        "",       "-1",  "4294967296", "~",      "1e3",
        " 20000", "0x4", "+1",         "20000 ", "99999999999999999999"};
    char row[120];
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        (void)snprintf(row, sizeof row, "%s|public|f|f|f|select 1", bad[i]);
        REFUSED({"functions", row});
        (void)snprintf(row, sizeof row, "%s|public|t|r|f|f", bad[i]);
        REFUSED({"relations", row});
        (void)snprintf(row, sizeof row, "20000|%s", bad[i]);
        REFUSED({"type_parts", row});
        (void)snprintf(row, sizeof row, "%s", bad[i]);
        REFUSED({"implicit", row});
        /* Who runs behind it is not known: then it is not harmless. */
        (void)snprintf(row, sizeof row, "public|<<>>|%s|f|f", bad[i]);
        MAKE({"operators", row});
        CS_EQ_U64(bits(CS_CATALOGUE_OPERATOR, "<<>>") & CS_CATALOGUE_HARMLESS, 0);
        (void)snprintf(row, sizeof row, "20000|public|mood|e|1|%s|f", bad[i]);
        MAKE({"types", row});
        CS_EQ_U64(bits(CS_CATALOGUE_TYPE, "mood") & CS_CATALOGUE_HARMLESS, 0);
    }
    REFUSED({"functions", "20000||f|f|f|select 1"});
    REFUSED({"functions", "20000|public||f|f|select 1"});
    REFUSED({"relations", "20000|~|t|r|f|f"});
    done();
}
CS_TEST(numbers_and_names_that_are_none_are_refused_or_make_nothing_harmless)
{
    run(numbers);
}

/* ---- relations ---- */

static void relations(struct world *w)
{
    static const struct {
        const char *row;
        unsigned bits;
    } seen[] = {
        {"20000|public|t|r|f|f", 0},
        {"20000|public|t|p|f|f", 0},
        {"20000|public|t|r|t|f", CS_CATALOGUE_WRITE_OPAQUE},
        {"20000|public|t|r|f|t", CS_CATALOGUE_WRITES_MORE},
        {"20000|public|t|f|f|f",
         CS_CATALOGUE_READ_OPAQUE | CS_CATALOGUE_WRITE_OPAQUE | CS_CATALOGUE_WRITES_MORE},
        {"20000|public|t|v|f|f", /* a view without a definition */
         CS_CATALOGUE_READ_OPAQUE | CS_CATALOGUE_WRITE_OPAQUE | CS_CATALOGUE_WRITES_MORE},
        {"20000|public|t|x|f|f", CS_CATALOGUE_READ_OPAQUE | CS_CATALOGUE_WRITE_OPAQUE},
        {"20000|public|t||f|f", CS_CATALOGUE_READ_OPAQUE | CS_CATALOGUE_WRITE_OPAQUE},
        {"20000|public|t|rr|f|f", CS_CATALOGUE_READ_OPAQUE | CS_CATALOGUE_WRITE_OPAQUE},
        {"20000|public|t|~|f|f", CS_CATALOGUE_READ_OPAQUE | CS_CATALOGUE_WRITE_OPAQUE},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(seen); i++) {
        MAKE({"relations", seen[i].row});
        if (bits(CS_CATALOGUE_RELATION, "t") != seen[i].bits) {
            CS_FAIL("%s: %u", seen[i].row, bits(CS_CATALOGUE_RELATION, "t"));
        }
    }
    done();
}
CS_TEST(a_relation_is_what_its_kind_and_its_triggers_are)
{
    run(relations);
}

static void definitions(struct world *w)
{
    static const struct answer t = {"relations", "20000|public|t|r|f|f"};
    MAKE({"relations", "20001|public|v|v|f|f"}, t, {"views", "20001|select i from public.t"});
    CS_EQ_U64(bits(CS_CATALOGUE_RELATION, "v") & CS_CATALOGUE_READ_OPAQUE, 0);
    MAKE({"relations", "20001|public|v|v|f|f"}, t, {"views", "20001|select public.f() from t"});
    CS_CHECK((bits(CS_CATALOGUE_RELATION, "v") & CS_CATALOGUE_READ_OPAQUE) != 0);
    MAKE({"relations", "20001|public|v|v|f|f"}, t, {"views", "20001|~"});
    CS_CHECK((bits(CS_CATALOGUE_RELATION, "v") & CS_CATALOGUE_READ_OPAQUE) != 0);
    MAKE(t, {"texts", "20000|r|public.unknown(i)"}); /* a policy's condition */
    CS_CHECK((bits(CS_CATALOGUE_RELATION, "t") & CS_CATALOGUE_READ_OPAQUE) != 0);
    MAKE(t, {"texts", "20000|w|public.unknown(i)"}); /* a default */
    CS_EQ_U64(bits(CS_CATALOGUE_RELATION, "t"), CS_CATALOGUE_WRITE_OPAQUE);
    MAKE(t, {"texts", "20000|?|public.unknown(i)"}); /* of no kind: then of the worse one */
    CS_CHECK((bits(CS_CATALOGUE_RELATION, "t") & CS_CATALOGUE_READ_OPAQUE) != 0);
    MAKE(t, {"texts", "20000|r|true"}, {"texts", "77777|r|public.unknown()"}); /* nobody's */
    CS_EQ_U64(bits(CS_CATALOGUE_RELATION, "t"), 0);
    MAKE(t, {"texts", "20000|r|1) from public.t; delete from public.t where (true"});
    CS_CHECK((bits(CS_CATALOGUE_RELATION, "t") & CS_CATALOGUE_READ_OPAQUE) != 0);
    done();
}
CS_TEST(what_a_definition_calls_counts_for_reading_or_writing)
{
    run(definitions);
}

static void parts(struct world *w)
{
    static const struct answer t = {"relations", "20000|public|t|p|f|f"};
    MAKE(t, {"relations", "20001|public|child|f|f|f"}, {"children", "20000|20001"});
    CS_CHECK((bits(CS_CATALOGUE_RELATION, "t") & CS_CATALOGUE_READ_OPAQUE) != 0);
    MAKE(t, {"children", "20000|99999"}); /* a child that nobody has seen */
    CS_CHECK((bits(CS_CATALOGUE_RELATION, "t") & CS_CATALOGUE_READ_OPAQUE) != 0);
    MAKE(t, {"column_types", "20000|20002"}, {"types", "20002|public|odd|b|20003|1|f"},
         {"functions", "20003|public|odd_in|f|f|~"});
    CS_EQ_U64(bits(CS_CATALOGUE_RELATION, "t"), /* a literal beside the column is one of its type */
              CS_CATALOGUE_READ_OPAQUE | CS_CATALOGUE_WRITE_OPAQUE);
    CS_EQ_U64(bits(CS_CATALOGUE_TYPE, "odd") & CS_CATALOGUE_HARMLESS, 0);
    MAKE({"types", "20002|public|d|d|1|1|f"}, {"type_texts", "20002|public.unknown(value)"});
    CS_EQ_U64(bits(CS_CATALOGUE_TYPE, "d") & CS_CATALOGUE_HARMLESS, 0);
    MAKE({"types", "20002|public|d|d|1|1|f"}, {"type_texts", "20002|value > 0"});
    CS_CHECK((bits(CS_CATALOGUE_TYPE, "d") & CS_CATALOGUE_HARMLESS) != 0);
    const struct cs_catalogue_entry *number =
        cs_catalogue_find(&got, CS_CATALOGUE_TYPE, CS_SLICE_LIT(CS_CATALOGUE_NUMBERS),
                          CS_SLICE_LIT("20002")); /* as a client declares it */
    CS_CHECK(number != NULL && number->bits == CS_CATALOGUE_HARMLESS);
    MAKE({"types", "20002|public|d|d|1|1|t"}); /* a built-in one has that name */
    CS_EQ_U64(bits(CS_CATALOGUE_TYPE, "d") & CS_CATALOGUE_HARMLESS, 0);
    done();
}
CS_TEST(a_thing_is_no_better_than_its_parts)
{
    run(parts);
}

/* ---- what no name shows ---- */

static bool everything_is_opaque(void)
{
    const struct cs_catalogue_entry *e = cs_catalogue_find(
        &got, CS_CATALOGUE_RELATION, CS_SLICE_LIT("pg_catalog"), CS_SLICE_LIT("pg_stats"));
    return e != NULL && (e->bits & CS_CATALOGUE_READ_OPAQUE) != 0;
}

static void behind(struct world *w)
{
    MAKE({"functions", "20000|public|f|f|f|~"});
    CS_CHECK(!got.strict);
    MAKE({"functions", "20000|public|f|f|f|~"}, {"implicit", "20000|0"});
    CS_CHECK(got.strict); /* a cast by that function */
    MAKE({"functions", "20000|public|f|f|f|select 1"}, {"implicit", "20000|0"});
    CS_CHECK(!got.strict);
    MAKE({"implicit", "20000|0"}); /* by one that is not told */
    CS_CHECK(got.strict);
    MAKE({"operators", "public|+|20000|t"}, {"functions", "20000|public|f|f|f|~"});
    CS_CHECK(!got.strict); /* which operators can be found behind a text says "implicit" */
    MAKE({"types", "20002|public|b|b|1|1|f"}, {"implicit", "20000|20002"});
    CS_CHECK(!got.strict); /* only with a value of that type */
    CS_EQ_U64(bits(CS_CATALOGUE_TYPE, "b") & CS_CATALOGUE_HARMLESS, 0);
    CS_CHECK(everything_is_opaque());
    MAKE({"types", "20002|public|b|b|1|1|f"}, {"relations", "20003|public|t|r|f|f"},
         {"column_types", "20003|20002"}, {"implicit", "20000|20002"});
    CS_CHECK((bits(CS_CATALOGUE_RELATION, "t") & CS_CATALOGUE_READ_OPAQUE) != 0);
    MAKE({"types", "20002|public|b|b|1|1|f"}, {"functions", "20000|public|f|f|f|select 1"},
         {"implicit", "20000|20002"});
    CS_CHECK((bits(CS_CATALOGUE_TYPE, "b") & CS_CATALOGUE_HARMLESS) != 0);
    CS_CHECK(!got.strict && !everything_is_opaque());
    MAKE({"implicit", "20000|20002"}); /* a type that is not told */
    CS_CHECK(got.strict);
    MAKE({"relations", "20000|public|t|p|f|f"}, {"texts", "20000|p|public.unknown(i)"});
    CS_CHECK(got.strict); /* a key of partitions, which functions evaluate that are told its name */
    MAKE({"relations", "20000|public|t|p|f|f"}, {"texts", "20000|p|lower(i)"});
    CS_CHECK(!got.strict);
    MAKE({"types", "20002|public|f|d|1|1|f"}, {"type_texts", "20002|public.unknown(value)"});
    uint64_t cast[4] = {0}; /* a domain may be written as a column of its records */
    cs_catalogue_dot(cast, "f", 1);
    CS_CHECK(memcmp(cast, got.dotted, sizeof cast) == 0);
    MAKE({"functions", "20000|public|f|f|t|~"}); /* may be written as a column */
    uint64_t dotted[4] = {0};
    cs_catalogue_dot(dotted, "f", 1);
    for (size_t i = 0; i < 4; i++) {
        CS_CHECK((got.dotted[i] & dotted[i]) == dotted[i]);
    }
    done();
}
CS_TEST(what_runs_behind_any_text_makes_the_catalogue_strict)
{
    run(behind);
}
