/* What classifying costs beside the bare parse: the seven statements of the research note, in one
 * interleaved run. Every call gets a text that it has not seen (a number in it changes), so that
 * "classify" is the whole path of a cache miss: look-up, bounds, parse, walk, record. Prints
 * nanoseconds per call and, last, lines figure: classify-NAME VALUE ratio must 2.5 ok|short
 *
 * Usage: classify [groups] */
#include "sql/sql.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The bare parse, without PostgreSQL's headers. */
struct parse {
    void *tree;
    char *stderr_buffer;
    void *error;
};
struct parse pg_query_raw_parse(const char *input);
void pg_query_free_parse_result(struct parse result);
void *pg_query_enter_memory_context(void);
void pg_query_exit_memory_context(void *context);

enum { TEXT_MAX = 8192, STATEMENTS = 7, GROUP = 16, GROUPS_MAX = 5000, DIGITS = 7 };
static const double ratio_must = 2.5, ratio_goal = 1.5;

struct statement {
    const char *name;
    char text[TEXT_MAX];
    size_t n;
    size_t number_at;                        /* where DIGITS digits change */
    double parse_ns, classify_ns, cached_ns; /* of the groups, see fifth() */
};

static struct statement statements[STATEMENTS];
static unsigned long counter = 1000000;

static double now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void add(struct statement *s, const char *text)
{
    size_t n = strlen(text);
    if (n < sizeof s->text - s->n) {
        memcpy(s->text + s->n, text, n + 1);
        s->n += n;
    }
}

static struct statement *begin(size_t i, const char *name, const char *text)
{
    statements[i].name = name;
    add(&statements[i], text);
    return &statements[i];
}

static void finish(struct statement *s)
{
    const char *at = strstr(s->text, "1234567");
    if (at == NULL) {
        abort();
    }
    s->number_at = (size_t)(at - s->text);
}

static void prepare_long(void)
{
    char part[160];
    struct statement *in = begin(4, "in-list", "SELECT * FROM orders WHERE id IN (1234567");
    while (in->n < 4040) {
        (void)snprintf(part, sizeof part, ", %zu", 100000 + in->n);
        add(in, part);
    }
    add(in, ")");
    struct statement *rows =
        begin(5, "insert-rows", "INSERT INTO t (a, b, c) VALUES (1234567, 'x', 1)");
    while (rows->n < 4020) {
        (void)snprintf(part, sizeof part, ", (%zu, 'name %zu', 1.5)", rows->n, rows->n);
        add(rows, part);
    }
    struct statement *cte = begin(6, "cte", "WITH ");
    for (int i = 0; i < 13; i++) {
        (void)snprintf(part, sizeof part,
                       "%sc%d AS (SELECT o.region, date_trunc('month', o.day) AS m, ",
                       i > 0 ? ", " : "", i);
        add(cte, part);
        add(cte,
            "sum(o.amount * (1 - o.discount)) AS total, count(DISTINCT o.customer) AS customers, ");
        add(cte, "rank() OVER (PARTITION BY o.region ORDER BY sum(o.amount) DESC) AS r FROM ");
        (void)snprintf(part, sizeof part, "%s%d o JOIN customers k ON k.id = o.customer ",
                       i > 0 ? "c" : "orders", i > 0 ? i - 1 : 0);
        add(cte, part);
        add(cte, "WHERE o.day >= '2024-01-01' AND k.active GROUP BY 1, 2)");
    }
    add(cte, " SELECT * FROM c12 WHERE total > 1234567 ORDER BY m, r");
}

static void prepare(void)
{
    (void)begin(0, "select-1", "SELECT 1234567");
    (void)begin(1, "pgbench-select", "SELECT abalance FROM pgbench_accounts WHERE aid = 1234567");
    (void)begin(2, "pgbench-update",
                "UPDATE pgbench_accounts SET abalance = abalance + 42 WHERE aid = 1234567");
    (void)begin(
        3, "join",
        "SELECT o.id, c.name, sum(l.price) FROM orders o JOIN customers c ON c.id = "
        "o.customer_id LEFT JOIN lines l ON l.order_id = o.id WHERE o.id = 1234567 GROUP BY "
        "1, 2");
    prepare_long();
    for (size_t i = 0; i < STATEMENTS; i++) {
        finish(&statements[i]);
    }
}

/* A number not used before: 7 digits again and again, far more than the cache has entries. */
static void renew(struct statement *s)
{
    char digits[24];
    counter = counter < 9999999 ? counter + 1 : 1000000;
    (void)snprintf(digits, sizeof digits, "%lu", counter);
    memcpy(s->text + s->number_at, digits, DIGITS);
}

static int compare(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The fastest fifth ends here: what a machine with other work on it does not disturb, and still
 * not one lucky run. */
static double fifth(double *v, size_t n)
{
    qsort(v, n, sizeof *v, compare);
    return v[n / 5];
}

static void parse_once(const char *text)
{
    void *context = pg_query_enter_memory_context();
    struct parse p = pg_query_raw_parse(text);
    pg_query_free_parse_result((struct parse){NULL, p.stderr_buffer, p.error});
    pg_query_exit_memory_context(context);
}

static void classify_once(struct cs_sql *sql, struct cs_slice text)
{
    const struct cs_sql_class *c = cs_sql_classify(sql, text);
    if ((c->effects & CS_SQL_OPAQUE) != 0) {
        abort();
    }
    cs_sql_release(sql, c);
}

/* One group: the same fresh texts parsed, then classified; nanoseconds per text. */
static void measure_group(struct cs_sql *sql, struct statement *s, double *ret_parse,
                          double *ret_classify)
{
    static char texts[GROUP][TEXT_MAX];
    const int group = s->n > 1000 ? GROUP / 8 : GROUP; /* well below a time slice */
    for (int k = 0; k < group; k++) {
        renew(s);
        memcpy(texts[k], s->text, s->n + 1);
    }
    double from = now_ns();
    for (int k = 0; k < group; k++) {
        parse_once(texts[k]);
    }
    double between = now_ns();
    for (int k = 0; k < group; k++) {
        classify_once(sql, cs_slice(texts[k], s->n));
    }
    *ret_parse = (between - from) / group;
    *ret_classify = (now_ns() - between) / group;
}

/* 0: longer than what is kept. */
static double measure_cached(struct cs_sql *sql, const struct statement *s)
{
    struct cs_slice text = cs_slice(s->text, s->n);
    cs_sql_release(sql, cs_sql_classify(sql, text));
    cs_sql_release(sql, cs_sql_classify(sql, text));
    double from = now_ns();
    for (int i = 0; i < 100; i++) {
        const struct cs_sql_class *c = cs_sql_cached(sql, text);
        if (c == NULL) {
            return 0;
        }
        cs_sql_release(sql, c);
    }
    return (now_ns() - from) / 100;
}

static void measure(struct cs_sql *sql, size_t groups)
{
    static double parse[STATEMENTS][GROUPS_MAX], classify[STATEMENTS][GROUPS_MAX],
        cached[STATEMENTS][GROUPS_MAX];
    for (size_t g = 0; g < groups; g++) {
        for (size_t i = 0; i < STATEMENTS; i++) {
            measure_group(sql, &statements[i], &parse[i][g], &classify[i][g]);
            cached[i][g] = measure_cached(sql, &statements[i]);
        }
    }
    for (size_t i = 0; i < STATEMENTS; i++) {
        statements[i].parse_ns = fifth(parse[i], groups);
        statements[i].classify_ns = fifth(classify[i], groups);
        statements[i].cached_ns = fifth(cached[i], groups);
    }
}

int main(int argc, char **argv)
{
    size_t groups = argc > 1 ? strtoul(argv[1], NULL, 10) : 600;
    if (groups < 1 || groups > GROUPS_MAX) {
        (void)fprintf(stderr, "usage: classify [1..%d groups]\n", GROUPS_MAX);
        return 2;
    }
    struct cs_sql *sql = NULL;
    if (cs_sql_new(&sql) != CS_OK) {
        return 1;
    }
    prepare();
    measure(sql, groups);
    printf("%-16s %6s %12s %12s %12s %8s\n", "statement", "bytes", "parse ns", "classify ns",
           "cached ns", "ratio");
    for (size_t i = 0; i < STATEMENTS; i++) {
        const struct statement *s = &statements[i];
        printf("%-16s %6zu %12.0f %12.0f %12.0f %8.2f\n", s->name, s->n, s->parse_ns,
               s->classify_ns, s->cached_ns, s->classify_ns / s->parse_ns);
    }
    for (size_t i = 0; i < STATEMENTS; i++) {
        double ratio = statements[i].classify_ns / statements[i].parse_ns;
        printf("figure: classify-%s %.2f ratio must %.1f %s\n", statements[i].name, ratio,
               ratio_must, ratio <= ratio_must ? "ok" : "short");
    }
    printf("# goal %.1f\n", ratio_goal);
    cs_sql_free(sql);
    return 0;
}
