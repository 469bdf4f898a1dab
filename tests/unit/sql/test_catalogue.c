/* The catalogue: its form, and what it adds to a class in both directions. */
#include "sql/catalogue.h"
#include "tap.h"

struct known {
    uint8_t kind;
    const char *schema, *name;
    uint8_t bits;
};

static const struct known sample[] = {
    {'f', "public", "net", CS_CATALOGUE_HARMLESS | CS_CATALOGUE_QUIET},
    {'f', "public", "bad", 0},
    {'f', "public", "lower", 0},
    {'f', "public", "upper", CS_CATALOGUE_QUIET},
    {'f', "other", "net", 0},
    {'t', "public", "mood", CS_CATALOGUE_HARMLESS},
    {'t', "public", "odd", 0},
    {'o', "public", "===", CS_CATALOGUE_HARMLESS},
    {'r', "public", "t", 0},
    {'r', "public", "v", CS_CATALOGUE_READ_OPAQUE},
    {'r', "public", "trig", CS_CATALOGUE_WRITE_OPAQUE},
    {'r', "public", "fk", CS_CATALOGUE_WRITES_MORE},
    {'r', "public", "a.b", 0},
};

static void make(struct cs_arena *a, struct cs_catalogue *c)
{
    cs_arena_init(a, 4096, 1024 * 1024);
    *c = (struct cs_catalogue){.n = CS_ARRAY_LEN(sample)};
    c->entries = CS_NEW_ARRAY(a, struct cs_catalogue_entry, c->n);
    CS_CHECK(c->entries != NULL);
    for (size_t i = 0; i < c->n; i++) {
        c->entries[i] = (struct cs_catalogue_entry){.schema = cs_slice_str(sample[i].schema),
                                                    .name = cs_slice_str(sample[i].name),
                                                    .kind = sample[i].kind,
                                                    .bits = sample[i].bits};
    }
    cs_catalogue_sort(c);
}

static uint8_t judged(const struct cs_catalogue *c, const char *text, bool narrow,
                      struct cs_sql_judged *ret)
{
    struct cs_sql *sql = NULL;
    struct cs_sql_judged j;
    CS_CHECK(cs_sql_new(&sql) == CS_OK);
    const struct cs_sql_class *class = cs_sql_classify(sql, cs_slice_str(text));
    cs_sql_judge(class, c, narrow, &j);
    cs_sql_release(sql, class);
    cs_sql_free(sql);
    if (ret != NULL) {
        *ret = j;
    }
    return j.effects;
}

CS_TEST(catalogue_reads_back_as_written_and_nothing_shorter)
{
    struct cs_arena a, b;
    struct cs_catalogue c, got;
    struct cs_buf out = cs_buf(4096);
    make(&a, &c);
    c.strict = c.printed = true;
    memset(c.print, 7, sizeof c.print);
    cs_catalogue_dot(c.dotted, "peek", 4);
    cs_catalogue_write(&out, &c);
    cs_arena_init(&b, 4096, 1024 * 1024);
    CS_CHECK(cs_catalogue_read(cs_buf_slice(&out), &b, &got) == CS_OK);
    CS_CHECK(got.printed && memcmp(got.print, c.print, sizeof c.print) == 0);
    CS_CHECK(got.n == c.n && got.strict && memcmp(got.dotted, c.dotted, sizeof c.dotted) == 0);
    for (size_t n = 0; n < out.len; n++) {
        CS_CHECK(cs_catalogue_read(cs_slice(out.p, n), &b, &got) == CS_ERR_CORRUPT);
    }
    cs_buf_u8(&out, 0);
    CS_CHECK(cs_catalogue_read(cs_buf_slice(&out), &b, &got) == CS_ERR_CORRUPT);
    cs_buf_done(&out);
    cs_arena_done(&a);
    cs_arena_done(&b);
}

CS_TEST(catalogue_says_whether_a_type_of_it_may_run_code)
{
    static const struct {
        const char *schema, *name;
        uint8_t kind, bits;
        bool runs;
    } rows[] = {
        {"#", "20000", 't', CS_CATALOGUE_HARMLESS, false},  {"#", "20000", 't', 0, true},
        {"#", "20000", 't', CS_CATALOGUE_QUIET, true},      {"public", "f", 'f', 0, false},
        {"public", "mood", 't', CS_CATALOGUE_QUIET, false}, /* by its name, which clashes */
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct cs_catalogue_entry e = {.schema = cs_slice_str(rows[i].schema),
                                       .name = cs_slice_str(rows[i].name),
                                       .kind = rows[i].kind,
                                       .bits = rows[i].bits};
        struct cs_catalogue c = {.entries = &e, .n = 1}, got;
        struct cs_buf out = cs_buf(4096);
        struct cs_arena a;
        cs_arena_init(&a, 4096, 1024 * 1024);
        cs_catalogue_write(&out, &c);
        CS_CHECK(cs_catalogue_read(cs_buf_slice(&out), &a, &got) == CS_OK);
        CS_CHECK(got.types_run == rows[i].runs);
        cs_buf_done(&out);
        cs_arena_done(&a);
    }
}

CS_TEST(catalogue_out_of_order_or_with_unknown_bits_is_refused)
{
    struct cs_arena a, b;
    struct cs_catalogue c, got;
    make(&a, &c);
    cs_arena_init(&b, 4096, 1024 * 1024);
    for (int i = 0; i < 3; i++) {
        struct cs_buf out = cs_buf(4096);
        struct cs_catalogue wrong = c;
        struct cs_catalogue_entry first = c.entries[0];
        if (i == 0) {
            wrong.entries[0] = wrong.entries[1];
        } else if (i == 1) {
            wrong.entries[0].bits = 32;
        } else {
            wrong.entries[0].kind = 'x';
        }
        cs_catalogue_write(&out, &wrong);
        CS_CHECK(cs_catalogue_read(cs_buf_slice(&out), &b, &got) == CS_ERR_CORRUPT);
        cs_buf_done(&out);
        c.entries[0] = first;
    }
    cs_arena_done(&a);
    cs_arena_done(&b);
}

CS_TEST(overloads_are_as_bad_as_their_worst)
{
    struct cs_catalogue_entry e[] = {
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("two"), 'f',
         CS_CATALOGUE_HARMLESS | CS_CATALOGUE_QUIET},
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("two"), 'f', CS_CATALOGUE_QUIET},
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("r"), 'r', CS_CATALOGUE_READ_OPAQUE},
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("r"), 'r', CS_CATALOGUE_WRITES_MORE},
    };
    struct cs_catalogue c = {.entries = e, .n = 4};
    cs_catalogue_sort(&c);
    CS_EQ_U64(c.n, 2);
    CS_EQ_U64(cs_catalogue_find(&c, 'f', CS_SLICE_LIT("public"), CS_SLICE_LIT("two"))->bits,
              CS_CATALOGUE_QUIET);
    CS_EQ_U64(cs_catalogue_find(&c, 'r', CS_SLICE_LIT("public"), CS_SLICE_LIT("r"))->bits,
              CS_CATALOGUE_READ_OPAQUE | CS_CATALOGUE_WRITES_MORE);
}

CS_TEST(a_text_is_narrowed_only_when_all_that_makes_it_opaque_is_harmless)
{
    static const struct {
        const char *text;
        uint8_t effects;
    } rows[] = {
        {"SELECT net(1)", CS_SQL_READ},
        {"SELECT public.net(1), 'x'::mood", CS_SQL_READ},
        {"SELECT 1 OPERATOR(public.===) 2", CS_SQL_READ},
        {"UPDATE t SET a = net(1)", CS_SQL_WRITE},
        {"SELECT net(1), bad(1)", CS_SQL_READ | CS_SQL_OPAQUE},
        {"SELECT other.net(1)", CS_SQL_READ | CS_SQL_OPAQUE},
        {"SELECT 'x'::odd", CS_SQL_READ | CS_SQL_OPAQUE},
        {"SELECT nosuch(1)", CS_SQL_READ | CS_SQL_OPAQUE},
        {"SELECT net(1) FROM v", CS_SQL_READ | CS_SQL_OPAQUE},
        {"SELECT pg_read_file('x'), net(1)", CS_SQL_READ | CS_SQL_ADMIN},
        {"SELECT net(1); DO $$x$$", CS_SQL_READ | CS_SQL_OPAQUE},
        {"SELECT pg_catalog.net(1)", CS_SQL_READ | CS_SQL_OPAQUE},
    };
    struct cs_arena a;
    struct cs_catalogue c;
    make(&a, &c);
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        CS_EQ_U64(judged(&c, rows[i].text, true, NULL), rows[i].effects);
        CS_CHECK((judged(&c, rows[i].text, false, NULL) & CS_SQL_OPAQUE) != 0);
        CS_CHECK((judged(NULL, rows[i].text, true, NULL) & CS_SQL_OPAQUE) != 0);
    }
    cs_arena_done(&a);
}

CS_TEST(a_text_is_widened_by_what_its_names_lead_to)
{
    static const char *const bad[] = {
        "SELECT lower('x')",           "SELECT * FROM v",
        "SELECT * FROM public.v",      "WITH x AS (TABLE v) SELECT 1",
        "INSERT INTO trig VALUES (1)", "UPDATE v SET a = 1",
        "SELECT * FROM \"a.b\"",       "PREPARE q AS SELECT * FROM v",
        "SELECT * FROM pg_temp.x",     "SELECT * FROM pg_temp_3.x",
    };
    static const char *const good[] = {
        "SELECT upper('x')",     "SELECT * FROM t",
        "SELECT * FROM trig",    "SELECT pg_catalog.lower('x')",
        "SELECT * FROM other.v", "INSERT INTO t VALUES (1)",
    };
    struct cs_arena a;
    struct cs_catalogue c;
    make(&a, &c);
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        struct cs_sql_judged j;
        CS_CHECK((judged(&c, bad[i], false, &j) & CS_SQL_OPAQUE) != 0);
        CS_CHECK(!j.names_known && !j.writes_known && j.why[0] != 0);
        CS_CHECK((judged(NULL, bad[i], false, NULL) & CS_SQL_OPAQUE) == 0);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(good); i++) {
        CS_CHECK((judged(&c, good[i], false, NULL) & CS_SQL_OPAQUE) == 0);
    }
    cs_arena_done(&a);
}

CS_TEST(a_call_is_no_better_than_a_type_or_another_function_of_that_name)
{
    struct cs_catalogue_entry e[] = {
        {CS_SLICE_LIT("pg_catalog"), CS_SLICE_LIT("two"), 'f',
         CS_CATALOGUE_HARMLESS | CS_CATALOGUE_QUIET},
        {CS_SLICE_LIT("pg_catalog"), CS_SLICE_LIT("one"), 'f',
         CS_CATALOGUE_HARMLESS | CS_CATALOGUE_QUIET},
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("two"), 'f', 0},
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("lower"), 't', 0},
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("length"), 't', CS_CATALOGUE_QUIET},
    };
    struct cs_catalogue c = {.entries = e, .n = CS_ARRAY_LEN(e)};
    cs_catalogue_sort(&c);
    CS_EQ_U64(judged(&c, "SELECT one('x')", true, NULL), CS_SQL_READ);
    CS_CHECK((judged(&c, "SELECT two('x')", true, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(&c, "SELECT lower('x')", true, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(&c, "SELECT public.lower('x')", true, NULL) & CS_SQL_OPAQUE) != 0);
    CS_EQ_U64(judged(&c, "SELECT length('x')", true, NULL), CS_SQL_READ);
    CS_EQ_U64(judged(&c, "SELECT pg_catalog.lower('x')", true, NULL), CS_SQL_READ);
}

CS_TEST(preparing_makes_values_of_literals)
{
    struct cs_arena a;
    struct cs_catalogue c;
    make(&a, &c);
    CS_EQ_U64(judged(&c, "PREPARE q AS SELECT 'good'::mood", true, NULL), CS_SQL_SESSION);
    CS_CHECK((judged(&c, "PREPARE q AS SELECT 'x'::odd", true, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(NULL, "PREPARE q AS SELECT 'x'::odd", false, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(&c, "PREPARE q (odd) AS SELECT 1", false, NULL) & CS_SQL_OPAQUE) != 0);
    CS_EQ_U64(judged(&c, "PREPARE q AS SELECT net(1)", true, NULL), CS_SQL_SESSION);
    CS_CHECK((judged(&c, "PREPARE q AS SELECT unknown(1)", true, NULL) & CS_SQL_OPAQUE) != 0);
    cs_arena_done(&a);
}

CS_TEST(a_declared_type_is_harmless_only_when_a_fresh_catalogue_says_so)
{
    struct cs_catalogue_entry e[] = {
        {CS_SLICE_LIT(CS_CATALOGUE_NUMBERS), CS_SLICE_LIT("16400"), 't', CS_CATALOGUE_HARMLESS},
        {CS_SLICE_LIT(CS_CATALOGUE_NUMBERS), CS_SLICE_LIT("16401"), 't', 0},
    };
    struct cs_catalogue c = {.entries = e, .n = CS_ARRAY_LEN(e)};
    static const struct {
        uint32_t type;
        bool catalogue, fresh, fine;
    } rows[] = {{23, false, false, true},    {16383, true, false, true},
                {16400, true, true, true},   {16400, true, false, false},
                {16400, false, true, false}, {16401, true, true, false},
                {16402, true, true, false},  {UINT32_MAX, true, true, false}};
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        const uint32_t types[2] = {25, rows[i].type};
        struct cs_sql_judged j = {.effects = CS_SQL_READ, .why = "", .names_known = true};
        cs_sql_judge_types(types, 2, rows[i].catalogue ? &c : NULL, rows[i].fresh, &j);
        CS_EQ_U64(j.effects, rows[i].fine ? CS_SQL_READ : CS_SQL_READ | CS_SQL_OPAQUE);
        CS_CHECK(j.names_known == rows[i].fine);
        CS_CHECK(j.narrowed == (rows[i].fine && rows[i].type >= 16384));
    }
}

/* 31 times the same letter of two bytes */
#define LONG                                                                                       \
    "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"   \
    "\u00e9"                                                                                       \
    "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9"

CS_TEST(a_name_that_another_encoding_writes_otherwise_cannot_be_looked_up)
{
    struct cs_catalogue_entry e[] = {
        {CS_SLICE_LIT("public"), CS_SLICE_LIT(LONG), 'r', 0},
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("\u00e9t\u00e9"), 'r', 0},
        {CS_SLICE_LIT("public"), CS_SLICE_LIT("t"), 'r', 0},
    };
    struct cs_catalogue c = {.entries = e, .n = CS_ARRAY_LEN(e)};
    cs_catalogue_sort(&c);
    CS_EQ_U64(judged(&c, "SELECT * FROM \u00e9t\u00e9", false, NULL), CS_SQL_READ);
    CS_EQ_U64(judged(&c, "SELECT * FROM newer", false, NULL), CS_SQL_READ);
    CS_CHECK((judged(&c, "SELECT * FROM \u00c9t\u00e9", false, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(&c, "SELECT * FROM " LONG, false, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(&c, "SELECT * FROM " LONG "\u00e9\u00e9", false, NULL) & CS_SQL_OPAQUE) != 0);
    c.dotted[0] = 1;
    CS_EQ_U64(judged(&c, "SELECT t.b FROM t", false, NULL), CS_SQL_READ);
    CS_CHECK((judged(&c, "SELECT t." LONG " FROM t", false, NULL) & CS_SQL_OPAQUE) != 0);
}

CS_TEST(a_cascade_makes_the_written_relations_unknown)
{
    struct cs_arena a;
    struct cs_catalogue c;
    struct cs_sql_judged j;
    make(&a, &c);
    CS_CHECK((judged(&c, "DELETE FROM fk", false, &j) & CS_SQL_OPAQUE) == 0);
    CS_CHECK(j.names_known && !j.writes_known);
    (void)judged(&c, "DELETE FROM t", false, &j);
    CS_CHECK(j.writes_known);
    cs_arena_done(&a);
}

CS_TEST(names_behind_a_dot_may_be_functions)
{
    struct cs_arena a;
    struct cs_catalogue c;
    make(&a, &c);
    cs_catalogue_dot(c.dotted, "peek", 4);
    CS_CHECK((judged(&c, "SELECT t.peek FROM t", false, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(&c, "SELECT (t).peek FROM t", false, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(&c, "SELECT peek FROM t", false, NULL) & CS_SQL_OPAQUE) == 0);
    cs_arena_done(&a);
}

CS_TEST(a_strict_catalogue_makes_all_but_the_session_opaque)
{
    struct cs_arena a;
    struct cs_catalogue c;
    make(&a, &c);
    c.strict = true;
    CS_CHECK((judged(&c, "SELECT 1", true, NULL) & CS_SQL_OPAQUE) != 0);
    CS_CHECK((judged(&c, "PREPARE q AS SELECT 1", true, NULL) & CS_SQL_OPAQUE) != 0);
    CS_EQ_U64(judged(&c, "BEGIN", true, NULL), CS_SQL_SESSION);
    cs_arena_done(&a);
}

CS_TEST(a_relation_that_is_not_known_is_told)
{
    struct cs_arena a;
    struct cs_catalogue c;
    struct cs_sql_judged j;
    make(&a, &c);
    (void)judged(&c, "SELECT * FROM brand_new", true, &j);
    CS_CHECK(j.unknown && (j.effects & CS_SQL_OPAQUE) == 0);
    (void)judged(&c, "SELECT * FROM t, pg_catalog.pg_class", true, &j);
    CS_CHECK(!j.unknown);
    cs_arena_done(&a);
}
