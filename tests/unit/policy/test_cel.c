#include "base/arena.h"
#include "base/limits.h"
#include "policy/cel.h"
#include "policy/cel_node.h"
#include "tap.h"

static struct cs_arena arena;

static void arena_start(void)
{
    cs_arena_init(&arena, 65536, 64U << 20);
}

/* Facts from "read opaque"-like words. */
static struct cs_facts facts_of(const char *effects, const char *reads)
{
    struct cs_facts f;
    memset(&f, 0, sizeof f);
    struct {
        const char *text;
        enum cs_fact_id id;
    } lists[] = {{effects, CS_FACT_SQL_EFFECTS}, {reads, CS_FACT_SQL_READS}};
    for (size_t i = 0; i < CS_ARRAY_LEN(lists); i++) {
        struct cs_slice *v = cs_arena_array(&arena, 8, sizeof *v);
        size_t n = 0;
        struct cs_slice rest = cs_slice_str(lists[i].text);
        while (rest.n > 0) {
            size_t k = cs_slice_find(rest, ' ');
            v[n++] = cs_slice_head(rest, k);
            rest = cs_slice_from(rest, k + 1);
        }
        f.v[lists[i].id].state = CS_FACT_KNOWN;
        f.v[lists[i].id].u.strings.v = v;
        f.v[lists[i].id].u.strings.n = n;
    }
    f.v[CS_FACT_SQL_VERB].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_VERB].u.string = CS_SLICE_LIT("DROP TABLE");
    f.v[CS_FACT_SQL_STATEMENTS].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_STATEMENTS].u.integer = 2;
    f.v[CS_FACT_SQL_TEXT].state = CS_FACT_UNKNOWN;
    return f; /* database, role and tx stay absent */
}

static struct cs_slice compile(const char *text)
{
    struct cs_buf *out = CS_NEW(&arena, struct cs_buf);
    struct cs_cel_mistake m;
    *out = cs_buf(1U << 20);
    enum cs_err err = cs_cel_compile(cs_slice_str(text), &arena, out, &m);
    if (err != CS_OK) {
        CS_FAIL("%s: %u:%u: %s", text, m.line, m.column, m.text);
    }
    return cs_buf_slice(out);
}

/* Evaluates both ways: as loaded (lowered) and node by node; they must agree. */
static enum cs_tri value(const char *text, const struct cs_facts *f)
{
    struct cs_cel c;
    CS_CHECK(cs_cel_load(compile(text), &arena, &c) == CS_OK);
    struct cs_cel_parsed p;
    uint32_t at = 0, families = 0;
    char why[240];
    struct cs_cel_fault fault;
    CS_CHECK(cs_cel_parse(cs_slice_str(text), &arena, &p, &at, why) == CS_OK);
    CS_CHECK(cs_cel_check(p.nodes, p.n, &families, &fault));
    struct cs_cel plain = {p.nodes, p.n, families};
    struct cs_cel_input in;
    cs_cel_prepare(f, &in);
    enum cs_tri a = cs_cel_eval(&c, &in), b = cs_cel_eval(&plain, &in);
    if (a != b) {
        CS_FAIL("%s: lowered %u, plain %u", text, a, b);
    }
    return a;
}

struct row {
    const char *text;
    enum cs_tri want;
};

static void check_rows(const struct row *rows, size_t n, const struct cs_facts *f)
{
    for (size_t i = 0; i < n; i++) {
        enum cs_tri got = value(rows[i].text, f);
        if (got != rows[i].want) {
            CS_FAIL("%s: %u, not %u", rows[i].text, got, rows[i].want);
        }
    }
}

static unsigned pauses;

static void pause_here(void *arg)
{
    *(unsigned *)arg += 1;
}

enum { MANY = 4000 };

/* A statement that writes n ≤ CS_LIMIT_CEL_STEPS tables. */
static struct cs_facts facts_of_many(size_t n)
{
    static struct cs_slice many[CS_LIMIT_CEL_STEPS];
    struct cs_facts f = facts_of("write", "public.a");
    for (size_t i = 0; i < n; i++) {
        many[i] = CS_SLICE_LIT("public.t");
    }
    f.v[CS_FACT_SQL_WRITES].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_WRITES].u.strings.v = many;
    f.v[CS_FACT_SQL_WRITES].u.strings.n = n;
    return f;
}

CS_TEST(cel_in_pieces_says_the_same_and_pauses_in_between)
{
    arena_start();
    struct cs_facts f = facts_of_many(MANY);
    struct cs_cel c;
    struct cs_cel_input in;
    struct cs_cel_pause pause = {.fn = pause_here, .arg = &pauses, .left = CS_PIECE_STEPS};
    CS_CHECK(cs_cel_load(compile("sql.writes.exists(t, size(t) == 9)"), &arena, &c) == CS_OK);
    cs_cel_prepare(&f, &in);
    CS_EQ_U64(cs_cel_eval(&c, &in), CS_TRI_FALSE);
    in.pause = &pause;
    CS_EQ_U64(cs_cel_eval(&c, &in), CS_TRI_FALSE);
    CS_CHECK(pauses >= MANY / CS_PIECE_STEPS);
    /* Pieces of conditions add up. */
    CS_CHECK(cs_cel_load(compile("size(sql.verb) == 3"), &arena, &c) == CS_OK);
    for (unsigned i = pauses = 0; i < CS_PIECE_STEPS; i++) {
        (void)cs_cel_eval(&c, &in);
    }
    CS_CHECK(pauses > 0);
}

CS_TEST(cel_out_of_steps_is_unknown_in_pieces_too)
{
    arena_start();
    struct cs_facts f = facts_of_many(CS_LIMIT_CEL_STEPS);
    struct cs_cel c;
    struct cs_cel_input in;
    struct cs_cel_pause pause = {.fn = pause_here, .arg = &pauses, .left = CS_PIECE_STEPS};
    CS_CHECK(cs_cel_load(compile("sql.writes.exists(t, size(t) == 9)"), &arena, &c) == CS_OK);
    cs_cel_prepare(&f, &in);
    CS_EQ_U64(cs_cel_eval(&c, &in), CS_TRI_UNKNOWN);
    in.pause = &pause;
    CS_EQ_U64(cs_cel_eval(&c, &in), CS_TRI_UNKNOWN);
    CS_CHECK(pauses <= CS_LIMIT_CEL_STEPS / CS_PIECE_STEPS + 1);
}

#define T CS_TRI_TRUE
#define F CS_TRI_FALSE
#define U CS_TRI_UNKNOWN

CS_TEST(cel_evaluates_the_operators)
{
    arena_start();
    struct cs_facts f = facts_of("read write", "public.a public.b");
    const struct row rows[] = {
        {"true", T},
        {"!(sql.verb == 'X')", T},
        {"sql.verb == \"DROP TABLE\"", T},
        {"sql.verb != \"DROP TABLE\"", F},
        {"sql.statements == 2", T},
        {"sql.statements < 2 || sql.statements >= 3", F},
        {"sql.statements > 1 && sql.statements <= 2", T},
        {"sql.statements + 3 - 1 == 4", T},
        {"sql.statements == 0x2", T},
        {"sql.statements > -5", T},
        {"sql.verb < 'E' && sql.verb >= 'D'", T},
        {"sql.verb in ['A', 'DROP TABLE',]", T},
        {"sql.statements in [1, 3]", F},
        {"'public.a' in sql.reads", T},
        {"'public.c' in sql.reads", F},
        {"sql.verb.startsWith('DROP')", T},
        {"sql.verb.endsWith('TABLE')", T},
        {"sql.verb.contains('P T')", T},
        {"sql.verb.contains('')", T},
        {"sql.verb.contains('PT')", F},
        {"size(sql.reads) == 2 && sql.reads.size() == 2 && size(sql.verb) == 10", T},
        {"size('h\\u00e9\\xe9\\101') == 4", T},
        {"sql.statements == 2 ? sql.verb == 'X' : true", F},
        {"(sql.statements == 3 ? 'a' : 'b') == 'b'", T},
        {"sql.reads.exists(r, r == 'public.b')", T},
        {"sql.reads.exists(r, 'public.b' == r)", T},
        {"sql.reads.all(r, r.startsWith('public.'))", T},
        {"sql.reads.all(r, r != 'public.b')", F},
        {"sql.reads.exists(r, !(r in ['public.a', 'public.b']))", F},
        {"sql.reads.all(r, !(r in ['x']))", T},
        {"sql.reads.exists_one(r, r == 'public.b')", T},
        {"sql.reads.exists_one(r, r.contains('p'))", F},
        {"sql.reads == ['public.a', 'public.b']", T},
        {"sql.reads == ['public.b', 'public.a']", F},
        {"sql.reads == ['public.a']", F},
        {"[1, 2].exists(i, i == sql.statements)", T},
        {"sql.reads.exists(a, sql.reads.exists(b, a != b && b == 'public.b'))", T},
        {"sql.reads.exists(a, sql.reads.all(b, a == 'public.b'))", T},
        {"has(sql.verb) && !has(sql.database)", T},
        {"sql.verb == // a comment\n 'DROP TABLE'", T},
        {"(sql.verb == 'X') == false", T},
    };
    check_rows(rows, CS_ARRAY_LEN(rows), &f);
}

CS_TEST(cel_logic_is_kleene)
{
    arena_start();
    struct cs_facts f = facts_of("read", "a");
    const struct row rows[] = {
        {"sql.text == 'x'", U},     /* unknown */
        {"sql.database == 'x'", U}, /* absent */
        {"!(sql.text == 'x')", U},
        {"sql.text == 'x' && sql.statements == 3", F},
        {"sql.statements == 3 && sql.text == 'x'", F},
        {"sql.text == 'x' || sql.statements == 2", T},
        {"sql.statements == 2 || sql.text == 'x'", T},
        {"sql.text == 'x' && sql.statements == 2", U},
        {"sql.text == 'x' || sql.statements == 3", U},
        {"sql.text == 'x' || sql.text != 'x'", U},
        {"sql.text in ['x', 'y']", U},
        {"!(sql.text in [])", T},
        {"sql.text.contains('x')", U},
        {"size(sql.text) > 0", U},
        {"has(sql.text)", U},
        {"sql.text == 'x' ? true : true", T},
        {"sql.text == 'x' ? true : sql.statements == 3", U},
        {"sql.statements == 2 ? sql.text == 'x' : true", U},
        {"sql.statements + 9223372036854775807 > 0", U}, /* overflow */
        {"sql.reads.exists(r, sql.text == r)", U},
        {"sql.functions.exists(x, x == 'f')", U},
        {"sql.functions.all(x, x == 'f' || true)", T},
    };
    check_rows(rows, CS_ARRAY_LEN(rows), &f);
}

CS_TEST(cel_element_opaque_compares_as_unknown)
{
    arena_start();
    struct cs_facts f = facts_of("read opaque", "a");
    const struct row rows[] = {
        {"sql.effects.exists(e, e == 'opaque')", T},
        {"'opaque' in sql.effects", T},
        {"'read' in sql.effects", T},
        {"'ddl' in sql.effects", U},
        {"sql.effects.exists(e, e == 'ddl')", U},
        {"!sql.effects.exists(e, e == 'ddl')", U},
        {"sql.effects.all(e, e in ['session', 'read'])", U},
        {"sql.effects.all(e, e in ['session', 'write'])", F}, /* decided per element: read */
        {"sql.effects.exists(e, !(e in ['session', 'read']))", U},
        {"sql.effects.all(e, e in ['read', 'opaque'])", T},
        {"sql.effects.all(e, e != 'ddl')", U},
        {"sql.effects.exists(e, e.startsWith('d'))", U},
        {"sql.effects.exists(e, e < 'a')", U},
        {"size(sql.effects) == 2", U},
        {"sql.effects == ['read', 'opaque']", T},
        {"sql.effects == ['read', 'ddl']", U},
        {"sql.effects == ['read']", U},
        {"sql.effects.exists_one(e, e == 'read')", U},
        {"sql.effects.exists(e, size(e) == 6)", U},
        {"sql.effects.exists(a, ['ddl'].exists(b, a == b))", U},
        {"has(sql.effects)", T},
    };
    check_rows(rows, CS_ARRAY_LEN(rows), &f);
    /* The word is special in sql.effects only. */
    struct cs_facts g = facts_of("read", "opaque");
    const struct row plain[] = {
        {"sql.reads.exists(e, e == 'ddl')", F},
        {"sql.reads.all(e, e == 'opaque')", T},
        {"size(sql.reads) == 1", T},
        {"'opaque' in sql.effects", F},
        {"sql.effects.all(e, e in ['session', 'read'])", T},
        {"sql.effects.exists(e, !(e in ['session', 'read']))", F},
    };
    check_rows(plain, CS_ARRAY_LEN(plain), &g);
}

CS_TEST(cel_empty_effects_are_unknown)
{
    arena_start();
    struct cs_facts f = facts_of("", "");
    const struct row rows[] = {
        {"sql.effects.all(e, e in ['session', 'read'])", U},
        {"sql.effects.exists(e, e == 'ddl')", U},
        {"size(sql.effects) == 0", U},
        {"sql.reads.all(e, e == 'x')", T},
        {"sql.reads.exists(e, e == 'x')", F},
    };
    check_rows(rows, CS_ARRAY_LEN(rows), &f);
}

struct mistake {
    const char *text;
    uint32_t line, column;
    const char *says;
};

CS_TEST(cel_mistakes_have_a_place_and_a_sentence)
{
    arena_start();
    static const struct mistake rows[] = {
        {"", 1, 1, "ends where"},
        {"   // nothing\n \n", 1, 14, "ends where"},
        {"sql.verb", 1, 1, "must be true or false"},
        {"sql.verb == 1", 1, 10, "compares a string with an int"},
        {"sql.verb =\n= 'x'", 1, 10, "== to compare"},
        {"true &&\n  sql.verbs == 'x'", 2, 3, "no fact \"sql.verbs\""},
        {"true & true", 1, 6, "&& for and"},
        {"'x", 1, 1, "closing quote"},
        {"'\\q' == 'x'", 1, 1, "escape"},
        {"'\\ud800' == 'x'", 1, 1, "escape"},
        {"r'x' == 'x'", 1, 1, "not in this version: raw strings"},
        {"b'x' == 'x'", 1, 1, "not in this version: byte strings"},
        {"'''x''' == 'x'", 1, 1, "not in this version: strings in triple"},
        {"1.5 > 1", 1, 1, "not in this version: numbers"},
        {"1u == 1", 1, 1, "not in this version: unsigned"},
        {"9223372036854775808 > 0", 1, 1, "64 bits"},
        {"99999999999999999999 > 0", 1, 1, "64 bits"},
        {"null == 1", 1, 1, "not in this version: null"},
        {"sql.statements * 2 > 1", 1, 16, "not in this version: the operator \"*\""},
        {"sql.reads[0] == 'x'", 1, 10, "not in this version: taking an element"},
        {"{'a': 1} == 1", 1, 1, "not in this version: maps"},
        {"sql.verb.matches('x')", 1, 10, "not in this version: the method \"matches\""},
        {"sql.reads.map(r, r) == []", 1, 11, "not in this version: the method \"map\""},
        {"timestamp('x') == 1", 1, 1, "not in this version: the function \"timestamp\""},
        {"sql.verb + 'x' == 'y'", 1, 1, "joining strings: not in this version"},
        {"sql.verb in 'x'", 1, 10, "needs a list"},
        {"1 in sql.reads", 1, 3, "looks for an int"},
        {"sql.reads.exists(r)", 1, 19, "\",\""},
        {"sql.reads.exists(r, r)", 1, 21, "needs a condition"},
        {"sql.verb.exists(r, true)", 1, 10, "works on a list"},
        {"[].exists(r, true)", 1, 4, "empty list"},
        {"[1, 'x'] == []", 1, 5, "of one type"},
        {"[sql.verb] == []", 1, 2, "not in this version: a list"},
        {"sql.effects.exists(e, e == 'dll')", 1, 28, "\"dll\" is never one of these"},
        {"sql.effects.all(e, e in ['read', 'rite'])", 1, 34, "\"rite\" is never"},
        {"sql.verb == 'FunctionCall'", 1, 13, "the verb is \"FUNCTION CALL\""},
        {"sql.verb in ['SELECT', 'start_replication']", 1, 24,
         "in capitals: \"START_REPLICATION\""},
        {"sql.verb != 'Base_Backup'", 1, 13, "in capitals"},
        {"'x' in sql.effects", 1, 1, "\"x\" is never"},
        {"sql.tx == 'closed'", 1, 11, "idle, open, failed"},
        {"has(1)", 1, 1, "name of a fact"},
        {"sql.reads.exists(r, r.x == 'y')", 1, 21, "no fact \"r.x\""},
        {"'x'.y == 'z'", 1, 5, "no fields"},
        {"true true", 1, 6, "stands where an operator"},
        {"(true", 1, 6, "ends where \")\""},
        {"if == 1", 1, 1, "\"if\" stands where"},
        {"sql.verb && true", 1, 1, "joins conditions"},
        {"!sql.verb", 1, 2, "needs a bool"},
        {"'\xc3\xa9' == 'x' && \x01", 1, 15, "no meaning"},
        {"false", 1, 1, "false whatever happens"},
        {"false && sql.verb == 'x'", 1, 7, "false whatever happens"},
        {"1 == 2", 1, 3, "false whatever happens"},
        {"sql.verb in []", 1, 10, "false whatever happens"},
        {"sql.effects.exists(e, false)", 1, 13, "false whatever happens"},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct cs_buf out = cs_buf(1U << 20);
        struct cs_cel_mistake m;
        enum cs_err err = cs_cel_compile(cs_slice_str(rows[i].text), &arena, &out, &m);
        if (err != CS_ERR_INVALID || m.line != rows[i].line || m.column != rows[i].column ||
            strstr(m.text, rows[i].says) == NULL) {
            CS_FAIL("%s: error %u at %u:%u: %s", rows[i].text, err, m.line, m.column, m.text);
        }
        CS_EQ_U64(out.len, 0);
        cs_buf_done(&out);
    }
}

CS_TEST(cel_limits_hold)
{
    arena_start();
    struct cs_buf text = cs_buf(1U << 20), out = cs_buf(1U << 20);
    struct cs_cel_mistake m;
    for (int i = 0; i < 200; i++) {
        cs_buf_str(&text, "(");
    }
    cs_buf_str(&text, "true");
    CS_CHECK(cs_cel_compile(cs_buf_slice(&text), &arena, &out, &m) == CS_ERR_INVALID);
    CS_CHECK(strstr(m.text, "nested too deeply") != NULL);
    text.len = 0;
    cs_buf_str(&text, "0");
    for (int i = 0; i < 100; i++) {
        cs_buf_str(&text, "+1");
    }
    cs_buf_str(&text, " == 100");
    CS_CHECK(cs_cel_compile(cs_buf_slice(&text), &arena, &out, &m) == CS_ERR_INVALID);
    CS_CHECK(strstr(m.text, "nested too deeply") != NULL);
    text.len = 0;
    cs_buf_str(&text, "sql.verb in [");
    for (int i = 0; i < CS_LIMIT_CEL_NODES; i++) {
        cs_buf_str(&text, "'x',");
    }
    cs_buf_str(&text, "]");
    CS_CHECK(cs_cel_compile(cs_buf_slice(&text), &arena, &out, &m) == CS_ERR_INVALID);
    CS_CHECK(strstr(m.text, "too large") != NULL);
    /* A long chain is not deep. */
    text.len = 0;
    cs_buf_str(&text, "sql.verb == 'a'");
    for (int i = 0; i < 1000; i++) {
        cs_buf_str(&text, " || sql.verb == 'b'");
    }
    CS_CHECK(cs_cel_compile(cs_buf_slice(&text), &arena, &out, &m) == CS_OK);
    cs_buf_done(&text);
    cs_buf_done(&out);
}

CS_TEST(cel_out_of_steps_is_unknown)
{
    arena_start();
    static struct cs_slice many[600];
    for (size_t i = 0; i < CS_ARRAY_LEN(many); i++) {
        many[i] = CS_SLICE_LIT("public.a");
    }
    struct cs_facts f = facts_of("read", "x");
    f.v[CS_FACT_SQL_READS].u.strings.v = many;
    f.v[CS_FACT_SQL_READS].u.strings.n = CS_ARRAY_LEN(many);
    CS_CHECK(value("sql.reads.exists(a, sql.reads.exists(b, a < b))", &f) == U);
    CS_CHECK(value("!sql.reads.exists(a, sql.reads.exists(b, a < b))", &f) == U);
    CS_CHECK(value("sql.reads.all(a, sql.reads.all(b, a == b))", &f) == U);
    f.v[CS_FACT_SQL_READS].u.strings.n = 10;
    CS_CHECK(value("sql.reads.exists(a, sql.reads.exists(b, a < b))", &f) == F);
}

CS_TEST(cel_knows_the_families_it_names)
{
    arena_start();
    struct cs_cel c;
    CS_CHECK(cs_cel_load(compile("true || has(sql.verb)"), &arena, &c) == CS_OK);
    CS_EQ_U64(c.families, 1U << CS_FAMILY_SQL);
    CS_CHECK(cs_cel_load(compile("true"), &arena, &c) == CS_OK);
    CS_EQ_U64(c.families, 0);
}

/* Every byte changed in every bit pattern of interest, every length: refused or evaluated, never a
 * crash (run under the sanitizers). */
CS_TEST(cel_loader_survives_hostile_bytes)
{
    arena_start();
    struct cs_slice good =
        compile("sql.effects.all(e, e in ['session', 'read']) && (sql.statements + 1 "
                "< 5 ? sql.verb.contains('x') : sql.reads.exists(a, a == 'y'))");
    struct cs_facts f = facts_of("read opaque", "a y");
    struct cs_arena a;
    cs_arena_init(&a, 65536, 1U << 20);
    for (size_t n = 0; n < good.n; n++) {
        uint8_t *cut = cs_alloc(n + 1);
        memcpy(cut, good.p, n);
        struct cs_cel c;
        CS_CHECK(cs_cel_load(cs_slice(cut, n), &a, &c) == CS_ERR_CORRUPT);
        cs_free(cut);
        cs_arena_reset(&a);
    }
    static const uint8_t with[] = {0, 1, 2, 0x7f, 0x80, 0xff, 5, 6, 7, 9, 10, 24, 27, 28, 29};
    size_t loaded = 0;
    for (size_t i = 0; i < good.n; i++) {
        for (size_t k = 0; k < CS_ARRAY_LEN(with); k++) {
            uint8_t *copy = cs_alloc(good.n);
            memcpy(copy, good.p, good.n);
            copy[i] = with[k];
            struct cs_cel c;
            if (cs_cel_load(cs_slice(copy, good.n), &a, &c) == CS_OK) {
                loaded++;
                struct cs_cel_input in;
                cs_cel_prepare(&f, &in);
                (void)cs_cel_eval(&c, &in);
            }
            cs_free(copy);
            cs_arena_reset(&a);
        }
    }
    CS_CHECK(loaded > 0);
    cs_arena_done(&a);
}

CS_TEST(cel_survives_a_lack_of_memory)
{
    arena_start();
    struct cs_arena a;
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_buf out = cs_buf(1U << 20);
        struct cs_cel_mistake m;
        struct cs_cel c;
        cs_arena_init(&a, 64, 1U << 20);
        enum cs_err err = cs_cel_compile(
            CS_SLICE_LIT("sql.reads.exists(r, r == 'x' || sql.verb in ['a', 'b'])"), &a, &out, &m);
        CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
        if (err == CS_OK) {
            err = cs_cel_load(cs_buf_slice(&out), &a, &c);
            CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
            done = err == CS_OK;
        }
        cs_arena_done(&a);
        cs_buf_done(&out);
    }
    CS_CHECK(done);
}
