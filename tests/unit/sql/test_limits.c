/* Hostile shapes, statement kinds and positions, memory over many parses. */
#include "base/limits.h"
#include "sql/sql.h"
#include "tap.h"

#include <time.h>

static struct cs_sql *new_sql(void)
{
    struct cs_sql *sql = NULL;
    CS_CHECK(cs_sql_new(&sql) == CS_OK);
    return sql;
}

static char text[CS_LIMIT_SQL_INLINE_BYTES + 64];

/* before + part × k + mid + tail × k + after, as large as fits, or `percent` of that. */
static size_t fill(const char *before, const char *part, const char *mid, const char *tail,
                   const char *after, size_t percent)
{
    size_t fixed = strlen(before) + strlen(mid) + strlen(after);
    size_t k = (CS_LIMIT_SQL_INLINE_BYTES - fixed) / (strlen(part) + strlen(tail));
    k = k * percent / 100;
    size_t n = 0;
    n += (size_t)snprintf(text + n, sizeof text - n, "%s", before);
    for (size_t i = 0; i < k; i++) {
        memcpy(text + n, part, strlen(part));
        n += strlen(part);
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "%s", mid);
    for (size_t i = 0; i < k; i++) {
        memcpy(text + n, tail, strlen(tail));
        n += strlen(tail);
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "%s", after);
    return n;
}

static double now_ms(void)
{
    struct timespec t;
    CS_CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

struct shape {
    const char *name, *before, *part, *mid, *tail, *after;
};

static const struct shape shapes[] = {
    {"sum", "SELECT 1", "+1", "", "", ""},
    {"parentheses", "SELECT ", "(", "1", ")", ""},
    {"not", "SELECT ", "NOT ", "true", "", ""},
    {"minus", "SELECT ", "- ", "1", "", ""},
    {"sub-select", "", "SELECT (", "SELECT 1", ")", ""},
    {"from", "SELECT * FROM ", "(SELECT * FROM ", "t", ") a", ""},
    {"array", "SELECT ARRAY", "[", "1", "]", ""},
    {"case", "SELECT ", "CASE WHEN ", "true", " THEN 1 END", ""},
    {"join", "SELECT * FROM ", "(t JOIN ", "t", " ON true)", ""},
    {"cross-join", "SELECT * FROM a", ",a", "", "", ""},
    {"natural", "SELECT * FROM t", " NATURAL JOIN t", "", "", ""},
    {"and", "SELECT true", " AND a", "", "", ""},
    {"or-and", "SELECT true", " OR a AND b", "", "", ""},
    {"union", "SELECT 1", " UNION SELECT 1", "", "", ""},
    {"union-parentheses", "", "(", "SELECT 1", ")", ""},
    {"cast", "SELECT 1", "::int", "", "", ""},
    {"collate", "SELECT a", " COLLATE x", "", "", ""},
    {"subscript", "SELECT a", "[1]", "", "", ""},
    {"field", "SELECT (a)", ".b", "", "", ""},
    {"concat", "SELECT a", "||a", "", "", ""},
    {"function", "SELECT ", "abs(", "1", ")", ""},
    {"row", "SELECT ", "ROW(", "1", ")", ""},
    {"in-list", "SELECT a IN (1", ",1", "", "", ")"},
    {"in-nest", "SELECT ", "a IN (", "1", ")", ""},
    {"between", "SELECT a", " BETWEEN 1 AND a", "", "", ""},
    {"is-null", "SELECT a", " IS NULL", "", "", ""},
    {"at-time-zone", "SELECT a", " AT TIME ZONE 'x'", "", "", ""},
    {"with", "", "WITH a AS (", "SELECT 1", ") SELECT 1", ""},
    {"with-many", "WITH a AS (SELECT 1)", ",a AS (SELECT 1)", "", "", " SELECT 1"},
    {"statements", "", ";", "", "", ""},
    {"selects", "SELECT 1", ";SELECT 1", "", "", ""},
    {"values", "VALUES (1)", ",(1)", "", "", ""},
    {"target", "SELECT 1", ",1", "", "", ""},
    {"qualified", "SELECT a", ".a", "", "", ""},
    {"name", "SELECT a", "a", "", "", ""},
    {"names-long", "SELECT * FROM t",
     ",aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "", "", ""},
    {"grouping", "SELECT 1 GROUP BY ", "GROUPING SETS (", "a", ")", ""},
    {"any", "SELECT ", "1 = ANY (", "a", ")", ""},
    {"update-row", "WITH x AS (", "UPDATE t SET (a,b) = (WITH x AS (", "SELECT 1",
     ") SELECT 1,2) RETURNING 1", ") SELECT 1"},
    {"explain", "", "EXPLAIN ", "SELECT 1", "", ""},
    {"stars", "SELECT 1 /*", "*", "", "", "*/"},
    {"line-comments", "SELECT 1", "--\n", "", "", ""},
    {"comments", "SELECT 1", "/**/ ", "", "", ""},
    {"strings", "SELECT 'a'", "\n'a'", "", "", ""},
    {"quotes", "SELECT '", "''", "", "", "'"},
    {"dollar", "SELECT $a$", "$b$", "", "", "$a$"},
    {"dollars", "SELECT $a$", " $", "", "", "$a$"},
    {"operators", "SELECT 1", " +-+ 1", "", "", ""},
    {"operators-64", "SELECT 1 ", "+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+- ",
     "1", "", ""},
    {"comments-64", "SELECT 1 ", "/**//**//**//**//**//**//**//**//**//**//**//**//**//**//**/ ",
     "", "", ""},
    {"space", "SELECT 1", " ", "", "", ""},
    {"unicode", "SELECT U&'", "\\0041", "", "", "'"},
    {"escapes", "SELECT E'", "\\n", "", "", "'"},
    {"numbers", "SELECT 1", "1", "", "", ""},
    {"parameters", "SELECT $1", ",$1", "", "", ""},
};

static double classify_shape(struct cs_sql *sql, const struct shape *s, size_t percent)
{
    size_t n = fill(s->before, s->part, s->mid, s->tail, s->after, percent);
    double from = now_ms();
    const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice(text, n));
    double ms = now_ms() - from;
    printf("# %-18s %7zu bytes %8.2f ms effects %02x %s\n", s->name, n, ms, c->effects, c->why);
    CS_CHECK(c->effects != 0);
    CS_CHECK(c->parsed || c->effects == CS_SQL_OPAQUE);
    cs_sql_release(sql, c);
    return ms;
}

/* None may crash; none may take long, at full size nor just below the limits on tokens and on the
 * parser's nesting. The time is generous: sanitizers and a shared machine. */
CS_TEST(hostile_shapes_of_64_kb_neither_crash_nor_take_long)
{
    static const size_t percents[] = {100, 73, 60, 36, 20, 10, 1};
    struct cs_sql *sql = new_sql();
    double worst = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(shapes); i++) {
        for (size_t k = 0; k < CS_ARRAY_LEN(percents); k++) {
            double ms = classify_shape(sql, &shapes[i], percents[k]);
            worst = ms > worst ? ms : worst;
            CS_CHECK(ms < 1000);
        }
    }
    printf("# worst %.2f ms\n", worst);
    cs_sql_free(sql);
    CS_EQ_U64(cs_alloc_live(), 0);
}

/* SET (a, b, c) = (…): three columns share one source; visiting it thrice at each level would be
 * 3^40 visits. */
CS_TEST(a_source_shared_by_columns_is_visited_once)
{
    struct cs_sql *sql = new_sql();
    size_t n = (size_t)snprintf(text, sizeof text, "WITH x AS (");
    for (int i = 0; i < 40; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "UPDATE t SET (a,b,c) = (WITH x AS (");
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "SELECT 1 FROM u");
    for (int i = 0; i < 40; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, ") SELECT 1,2,3) RETURNING 1");
    }
    n += (size_t)snprintf(text + n, sizeof text - n, ") SELECT 1");
    const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice(text, n));
    CS_EQ_U64(c->effects, CS_SQL_READ | CS_SQL_WRITE);
    CS_EQ_STR(c->reads[0], "u");
    CS_EQ_STR(c->writes[0], "t");
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

CS_TEST(many_names_are_opaque)
{
    struct cs_sql *sql = new_sql();
    size_t n = (size_t)snprintf(text, sizeof text, "SELECT * FROM t0");
    for (int i = 1; i < CS_LIMIT_SQL_RELATIONS; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, ",t%d", i);
    }
    const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice(text, n));
    CS_EQ_U64(c->effects, CS_SQL_READ);
    CS_EQ_U64(c->n_reads, CS_LIMIT_SQL_RELATIONS);
    cs_sql_release(sql, c);
    n += (size_t)snprintf(text + n, sizeof text - n, ",one_more");
    c = cs_sql_classify(sql, cs_slice(text, n));
    CS_CHECK((c->effects & CS_SQL_OPAQUE) != 0);
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

CS_TEST(statements_beyond_those_kept_still_count)
{
    struct cs_sql *sql = new_sql();
    size_t n = 0;
    for (int i = 0; i < 100; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "SELECT %d;", i);
    }
    n += (size_t)snprintf(text + n, sizeof text - n, "DROP TABLE t");
    const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice(text, n));
    CS_EQ_U64(c->n_statements, 101);
    CS_EQ_U64(c->n_kept, CS_SQL_STATEMENTS_KEPT);
    CS_EQ_U64(c->effects, CS_SQL_READ | CS_SQL_DDL);
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

struct kind_case {
    const char *sql;
    enum cs_sql_kind kind;
    const char *name;
    uint8_t effects, inner;
};

CS_TEST(kinds_and_names_are_given)
{
    static const struct kind_case cases[] = {
        {"BEGIN", CS_SQL_BEGIN, "", CS_SQL_SESSION, 0},
        {"START TRANSACTION READ ONLY", CS_SQL_BEGIN, "", CS_SQL_SESSION, 0},
        {"END", CS_SQL_COMMIT, "", CS_SQL_SESSION, 0},
        {"ABORT", CS_SQL_ROLLBACK, "", CS_SQL_SESSION, 0},
        {"ROLLBACK TO a", CS_SQL_PLAIN, "", CS_SQL_SESSION, 0},
        {"PREPARE TRANSACTION 'x'", CS_SQL_PLAIN, "", CS_SQL_ADMIN, 0},
        {"PREPARE Foo AS DELETE FROM t", CS_SQL_PREPARE, "foo", CS_SQL_SESSION, CS_SQL_WRITE},
        {"PREPARE \"Foo\" AS SELECT 1", CS_SQL_PREPARE, "Foo", CS_SQL_SESSION, CS_SQL_READ},
        {"PREPARE p AS SELECT f()", CS_SQL_PREPARE, "p", CS_SQL_SESSION, CS_SQL_OPAQUE},
        {"EXECUTE Foo(1)", CS_SQL_EXECUTE, "foo", CS_SQL_OPAQUE, 0},
        {"EXECUTE p(lo_unlink(1))", CS_SQL_EXECUTE, "p", CS_SQL_OPAQUE | CS_SQL_WRITE,
         CS_SQL_WRITE},
        {"DEALLOCATE p", CS_SQL_DEALLOCATE, "p", CS_SQL_SESSION, 0},
        {"DEALLOCATE ALL", CS_SQL_DEALLOCATE, "", CS_SQL_SESSION, 0},
        {"DISCARD ALL", CS_SQL_DISCARD_ALL, "", CS_SQL_SESSION, 0},
        {"DISCARD TEMP", CS_SQL_PLAIN, "", CS_SQL_SESSION, 0},
        {"DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE", CS_SQL_DECLARE, "c",
         CS_SQL_READ | CS_SQL_WRITE, 0},
        {"FETCH 10 FROM c", CS_SQL_FETCH, "c", CS_SQL_READ, 0},
        {"MOVE c", CS_SQL_FETCH, "c", CS_SQL_READ, 0},
        {"CLOSE c", CS_SQL_CLOSE, "c", CS_SQL_SESSION, 0},
        {"CLOSE ALL", CS_SQL_CLOSE, "", CS_SQL_SESSION, 0},
        {"COPY t FROM STDIN", CS_SQL_COPY_IN, "", CS_SQL_WRITE, 0},
        {"COPY t TO STDOUT", CS_SQL_COPY_OUT, "", CS_SQL_READ, 0},
        {"COPY t TO '/tmp/x'", CS_SQL_PLAIN, "", CS_SQL_READ | CS_SQL_ADMIN, 0},
    };
    struct cs_sql *sql = new_sql();
    for (size_t i = 0; i < CS_ARRAY_LEN(cases); i++) {
        const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice_str(cases[i].sql));
        printf("# %s\n", cases[i].sql);
        CS_EQ_U64(c->n_kept, 1);
        CS_EQ_U64(c->statements[0].kind, cases[i].kind);
        CS_EQ_STR(c->statements[0].name, cases[i].name);
        CS_EQ_U64(c->statements[0].effects, cases[i].effects);
        CS_EQ_U64(c->statements[0].inner_effects, cases[i].inner);
        cs_sql_release(sql, c);
    }
    cs_sql_free(sql);
}

CS_TEST(copy_in_has_its_columns_and_format)
{
    static const struct {
        const char *sql;
        unsigned columns;
        bool binary;
    } cases[] = {
        {"COPY t FROM STDIN", 0, false},
        {"COPY t (a, b, c) FROM STDIN", 3, false},
        {"COPY t (a) FROM STDIN WITH (FORMAT binary)", 1, true},
        {"COPY BINARY t FROM STDIN", 0, true},
        {"COPY t FROM STDIN BINARY", 0, true},
        {"COPY t FROM STDIN CSV", 0, false},
        {"COPY t FROM STDIN (FORMAT text, DELIMITER 'b')", 0, false},
    };
    struct cs_sql *sql = new_sql();
    for (size_t i = 0; i < CS_ARRAY_LEN(cases); i++) {
        const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice_str(cases[i].sql));
        printf("# %s\n", cases[i].sql);
        CS_EQ_U64(c->statements[0].kind, CS_SQL_COPY_IN);
        CS_EQ_U64(c->statements[0].columns, cases[i].columns);
        CS_CHECK(c->statements[0].binary == cases[i].binary);
        cs_sql_release(sql, c);
    }
    cs_sql_free(sql);
}

CS_TEST(literals_that_a_server_reads_while_it_prepares_are_seen)
{
    static const struct {
        const char *text;
        bool reads;
    } rows[] = {
        {"select 'x'", true},
        {"select $$x$$", true},
        {"select $1, $a$x$a$", true},
        {"insert into t values (E'x')", true},
        {"update t set a = U&'x'", true},
        {"delete from t where a = 'x'", true},
        {"merge into t using s on t.a = s.a when matched then update set a = 'x'", true},
        {"explain select 'x'", true},
        {"declare c cursor for select 'x'", true},
        {"create table n as select 'x'", true},
        {"call p('x')", true},
        {"prepare q as select 'x'", true},
        {"select 'x' from", true}, /* which nobody could read */
        {"select 1", false},
        {"select $1, $22", false},
        {"update t set a = $1 where b = $2", false},
        {"select f(1) /* nothing */", false},
        {"select from", false},
        {"do $$ begin end $$", false}, /* nothing of it is looked into before it runs */
        {"create function f() returns int language sql as 'select 1'", false},
        {"create view v as select 'x'", false},
        {"copy t from stdin with (delimiter ',')", false},
        {"", false},
        {"select $", false},
    };
    struct cs_sql *sql = new_sql();
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct cs_slice t = cs_slice_str(rows[i].text);
        const struct cs_sql_class *c = cs_sql_classify(sql, t);
        bool reads = cs_sql_prepares_literals(c, t);
        if (reads != rows[i].reads) {
            CS_FAIL("%s: %d", rows[i].text, (int)reads);
        }
        cs_sql_release(sql, c);
    }
    cs_sql_free(sql);
}

CS_TEST(positions_of_statements_are_given)
{
    struct cs_sql *sql = new_sql();
    const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice_str("SELECT 1; DROP TABLE t"));
    CS_EQ_U64(c->n_kept, 2);
    CS_EQ_U64(c->statements[0].offset, 0);
    CS_EQ_U64(c->statements[0].length, 8);
    CS_EQ_U64(c->statements[1].offset, 9);
    CS_EQ_U64(c->statements[1].length, 0);
    CS_EQ_STR(c->statements[1].verb, "DROP TABLE");
    CS_EQ_U64(c->statements[0].effects, CS_SQL_READ);
    cs_sql_release(sql, c);
    c = cs_sql_classify(sql, cs_slice_str(" -- nothing\n;;"));
    CS_EQ_U64(c->n_statements, 0);
    CS_EQ_U64(c->n_kept, 0);
    CS_EQ_U64(c->statements[0].kind, CS_SQL_EMPTY);
    CS_EQ_STR(c->verb, "EMPTY");
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

static long resident_pages(void)
{
    long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CS_CHECK(f != NULL && fscanf(f, "%ld %ld", &size, &resident) == 2);
    (void)fclose(f);
    return resident;
}

CS_TEST(memory_does_not_grow_over_many_parses)
{
    static char small[128];
    struct cs_sql *sql = new_sql();
    long after_warm_up = 0;
    for (int i = 0; i < 100000; i++) {
        int n = snprintf(small, sizeof small,
                         i % 3 == 0   ? "SELECT a FROM s.t WHERE id = %d"
                         : i % 3 == 1 ? "SELEC %d syntax error"
                                      : "UPDATE s.t SET x = x + 1 WHERE id IN (%d)",
                         i);
        cs_sql_release(sql, cs_sql_classify(sql, cs_slice(small, (size_t)n)));
        if (i == 30000) {
            after_warm_up = resident_pages();
        }
    }
    long grown = resident_pages() - after_warm_up;
    printf("# grown by %ld pages\n", grown);
#ifndef __SANITIZE_ADDRESS__
    CS_CHECK(grown < 64);
#endif
    cs_sql_free(sql);
    CS_EQ_U64(cs_alloc_live(), 0);
}
