/* Class records as messages: what was written is read back, and nothing else is. */
#include "base/limits.h"
#include "sql/parsed.h"
#include "tap.h"

static const char *const texts[] = {
    "",
    "-- nothing",
    "SELECT 1",
    "SELECT a.b, f(c) FROM public.t, \"Ü.x\" WHERE d = ANY ('{1,2}')",
    "INSERT INTO t SELECT * FROM u; DELETE FROM v; DROP TABLE w CASCADE",
    "SELECT my_function(1), 'x'::my_type, 1 OPERATOR(my.+) 2",
    "PREPARE p AS DELETE FROM t WHERE my_function(x)",
    "EXECUTE p(now())",
    "BEGIN; SAVEPOINT s; ROLLBACK TO s; COMMIT",
    "DECLARE c CURSOR FOR SELECT 1; FETCH c; CLOSE c",
    "COPY t (a, b) FROM STDIN (FORMAT binary)",
    "SET countersign.reason = 'because of öäü'",
    "ALTER ROLE r PASSWORD 'secret one'; ALTER ROLE s PASSWORD 'secret two' -- password secret "
    "three",
    "EXPLAIN DELETE FROM t",
    "SELECT crypt($1, $2), encrypt($3, $4, 'aes')",
    "DO $$ BEGIN DELETE FROM t; END $$",
    "not SQL at all",
    "SELECT '\xff'",
};

static struct cs_sql *new_sql(bool large)
{
    struct cs_sql *sql = NULL;
    CS_CHECK((large ? cs_sql_new_large(&sql) : cs_sql_new(&sql)) == CS_OK);
    return sql;
}

static struct cs_buf written(const struct cs_sql_class *c, size_t text_n)
{
    struct cs_buf b = cs_buf(CS_LIMIT_PARSED_BYTES);
    cs_sql_class_write(&b, c, text_n);
    CS_CHECK(!b.bad);
    return b;
}

static void same_list(const struct cs_slice *a, size_t n, const struct cs_slice *b, size_t m)
{
    CS_EQ_U64(n, m);
    for (size_t i = 0; i < n && i < m; i++) {
        CS_CHECK(cs_slice_eq(a[i], b[i]));
    }
}

static void same(const struct cs_sql_class *a, const struct cs_sql_class *b)
{
    CS_EQ_U64(a->effects, b->effects);
    CS_EQ_U64(a->parsed, b->parsed);
    CS_EQ_U64(a->n_statements, b->n_statements);
    CS_EQ_U64(a->n_kept, b->n_kept);
    CS_EQ_U64(a->statements[0].kind, b->statements[0].kind);
    CS_CHECK(cs_slice_eq(a->verb, b->verb));
    CS_CHECK(a->writes_known == b->writes_known && a->writes_listed == b->writes_listed);
    CS_CHECK(a->by_strangers == b->by_strangers && a->prepares == b->prepares);
    CS_CHECK(memcmp(a->dotted, b->dotted, sizeof a->dotted) == 0);
    same_list(a->reads, a->n_reads, b->reads, b->n_reads);
    same_list(a->writes, a->n_writes, b->writes, b->n_writes);
    same_list(a->functions, a->n_functions, b->functions, b->n_functions);
    same_list(a->strangers, a->n_strangers, b->strangers, b->n_strangers);
    same_list(a->effect_names, a->n_effects, b->effect_names, b->n_effects);
    CS_EQ_U64(a->n_secrets, b->n_secrets);
    CS_EQ_U64(a->secret_params, b->secret_params);
    for (uint32_t i = 0; i < a->n_kept; i++) {
        CS_CHECK(cs_slice_eq(a->statements[i].name, b->statements[i].name));
        CS_EQ_U64(a->statements[i].offset, b->statements[i].offset);
        CS_EQ_U64(a->statements[i].kind, b->statements[i].kind);
        CS_EQ_U64(a->statements[i].effects, b->statements[i].effects);
        CS_EQ_U64(a->statements[i].length, b->statements[i].length);
        CS_CHECK(cs_slice_eq(a->statements[i].verb, b->statements[i].verb));
        CS_CHECK(a->statements[i].binary == b->statements[i].binary);
        /* Without it a long text would seem to make no values of its literals when it is only
         * prepared. */
        CS_CHECK(a->statements[i].analysed == b->statements[i].analysed);
        CS_EQ_U64(a->statements[i].columns, b->statements[i].columns);
        CS_EQ_U64(a->statements[i].inner_effects, b->statements[i].inner_effects);
    }
}

CS_TEST(parsed_record_is_read_as_it_was_written)
{
    struct cs_sql *job = new_sql(true), *gate = new_sql(false);
    for (size_t i = 0; i < CS_ARRAY_LEN(texts); i++) {
        struct cs_slice text = cs_slice_str(texts[i]);
        const struct cs_sql_class *c = cs_sql_classify(job, text);
        struct cs_buf b = written(c, text.n);
        const struct cs_sql_class *r = cs_sql_class_read(gate, cs_buf_slice(&b), text.n);
        CS_CHECK(r != NULL);
        if (r != NULL) {
            same(c, r);
        }
        cs_sql_release(gate, r);
        cs_sql_release(job, c);
        cs_buf_done(&b);
    }
    cs_sql_free(gate);
    cs_sql_free(job);
}

CS_TEST(parsed_record_is_for_a_text_of_its_length_and_whole)
{
    struct cs_sql *sql = new_sql(false);
    struct cs_slice text = cs_slice_str(texts[12]);
    const struct cs_sql_class *c = cs_sql_classify(sql, text);
    struct cs_buf b = written(c, text.n);
    CS_CHECK(cs_sql_class_read(sql, cs_buf_slice(&b), text.n + 1) == NULL);
    CS_CHECK(cs_sql_class_read(sql, cs_buf_slice(&b), text.n - 1) == NULL);
    for (size_t n = 0; n < b.len; n++) {
        CS_CHECK(cs_sql_class_read(sql, cs_slice(b.p, n), text.n) == NULL);
    }
    cs_buf_u8(&b, 0);
    CS_CHECK(cs_sql_class_read(sql, cs_buf_slice(&b), text.n) == NULL);
    cs_buf_done(&b);
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

/* Whatever byte is another: it is refused, or a record that can be. */
CS_TEST(parsed_record_with_any_byte_changed_is_refused_or_one_that_can_be)
{
    struct cs_sql *sql = new_sql(false);
    for (size_t i = 0; i < CS_ARRAY_LEN(texts); i++) {
        struct cs_slice text = cs_slice_str(texts[i]);
        const struct cs_sql_class *c = cs_sql_classify(sql, text);
        struct cs_buf b = written(c, text.n);
        for (size_t k = 0; k < b.len * 8; k++) {
            b.p[k / 8] ^= (uint8_t)(1U << k % 8);
            const struct cs_sql_class *r = cs_sql_class_read(sql, cs_buf_slice(&b), text.n);
            if (r != NULL) {
                CS_CHECK(r->effects != 0 && r->effects < 64);
                CS_CHECK(r->parsed || r->effects == c->effects || (r->effects & 32) != 0);
                CS_CHECK((r->effects & CS_SQL_OPAQUE) == 0 || !r->writes_known);
            }
            cs_sql_release(sql, r);
            b.p[k / 8] ^= (uint8_t)(1U << k % 8);
        }
        cs_buf_done(&b);
        cs_sql_release(sql, c);
    }
    cs_sql_free(sql);
}

/* As if it came from a parser of the gate's. */
static const struct cs_sql_class *comes(struct cs_sql *job, struct cs_sql *gate,
                                        struct cs_slice text)
{
    const struct cs_sql_class *c = cs_sql_classify(job, text);
    struct cs_buf b = written(c, text.n);
    const struct cs_sql_class *r = cs_sql_class_read_of(gate, cs_buf_slice(&b), text);
    CS_CHECK(r != NULL);
    cs_buf_done(&b);
    cs_sql_release(job, c);
    return r;
}

CS_TEST(what_was_parsed_elsewhere_is_remembered_when_it_comes_again)
{
    struct cs_sql *job = new_sql(false), *gate = new_sql(false);
    struct cs_slice text = cs_slice_str(texts[3]), other = cs_slice_str(texts[4]);
    cs_sql_release(gate, comes(job, gate, text));
    CS_CHECK(cs_sql_cached(gate, text) == NULL);
    const struct cs_sql_class *second = comes(job, gate, text);
    const struct cs_sql_class *third = comes(job, gate, text); /* beside it: kept once */
    const struct cs_sql_class *kept = cs_sql_cached(gate, text);
    CS_CHECK(kept == second && third != second);
    if (kept != NULL) {
        same(kept, third);
    }
    CS_CHECK(cs_sql_cached(gate, other) == NULL);
    cs_sql_release(gate, kept);
    cs_sql_release(gate, third);
    cs_sql_release(gate, second);
    cs_sql_free(gate);
    cs_sql_free(job);
}

CS_TEST(what_is_longer_than_the_cache_takes_is_not_remembered)
{
    static char text[CS_LIMIT_SQL_CACHE_TEXT + 1];
    struct cs_sql *job = new_sql(false), *gate = new_sql(false);
    memset(text, ' ', sizeof text);
    memcpy(text, "SELECT 1", 8);
    for (int i = 0; i < 3; i++) {
        cs_sql_release(gate, comes(job, gate, cs_slice(text, sizeof text)));
    }
    CS_CHECK(cs_sql_cached(gate, cs_slice(text, sizeof text)) == NULL);
    cs_sql_free(gate);
    cs_sql_free(job);
}

CS_TEST(a_record_that_is_none_is_not_remembered)
{
    struct cs_sql *gate = new_sql(false);
    struct cs_slice text = cs_slice_str("SELECT 1");
    for (int i = 0; i < 3; i++) {
        CS_CHECK(cs_sql_class_read_of(gate, cs_slice_str("SELECT 1"), text) == NULL);
    }
    CS_CHECK(cs_sql_cached(gate, text) == NULL);
    cs_sql_free(gate);
}

CS_TEST(a_text_that_nobody_parsed_is_opaque_and_its_passwords_are_found)
{
    struct cs_sql *sql = new_sql(false);
    const struct cs_sql_class *c =
        cs_sql_unparsed(sql, cs_slice_str("ALTER ROLE r PASSWORD 'secret one'"));
    CS_CHECK(!c->parsed && c->effects == CS_SQL_OPAQUE && !c->writes_known && !c->by_strangers);
    CS_EQ_U64(c->n_secrets, 1);
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

CS_TEST(a_long_text_is_parsed_by_the_classifier_for_long_ones_alone)
{
    enum { N = 200000 };
    static char text[N];
    struct cs_sql *job = new_sql(true), *gate = new_sql(false);
    memset(text, ' ', sizeof text);
    memcpy(text + N - 12, "DROP TABLE t", 12);
    const struct cs_sql_class *c = cs_sql_classify(gate, cs_slice(text, N));
    CS_CHECK(!c->parsed && c->effects == CS_SQL_OPAQUE);
    cs_sql_release(gate, c);
    c = cs_sql_classify(job, cs_slice(text, N));
    CS_CHECK(c->parsed && c->effects == CS_SQL_DDL && c->n_writes == 1);
    cs_sql_release(job, c);
    cs_sql_free(gate);
    cs_sql_free(job);
}
