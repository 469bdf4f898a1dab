#include "base/limits.h"
#include "sql/catalogue.h"
#include "sql/sql.h"
#include "tap.h"

static struct cs_sql *new_sql(void)
{
    struct cs_sql *sql = NULL;
    CS_CHECK(cs_sql_new(&sql) == CS_OK);
    return sql;
}

CS_TEST(cache_answers_for_equal_bytes_only)
{
    struct cs_sql *sql = new_sql();
    struct cs_slice text = cs_slice_str("SELECT a FROM t");
    CS_CHECK(cs_sql_cached(sql, text) == NULL);
    cs_sql_release(sql, cs_sql_classify(sql, text));
    CS_CHECK(cs_sql_cached(sql, text) == NULL); /* it came once */
    const struct cs_sql_class *a = cs_sql_classify(sql, text);
    const struct cs_sql_class *b = cs_sql_cached(sql, cs_slice_str("SELECT a FROM t"));
    CS_CHECK(a == b);
    CS_CHECK(cs_sql_cached(sql, cs_slice_str("SELECT a FROM T")) == NULL);
    cs_sql_release(sql, b);
    cs_sql_release(sql, a);
    cs_sql_free(sql);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(cache_evicts_and_a_kept_class_stays)
{
    static char text[64];
    struct cs_sql *sql = new_sql();
    cs_sql_release(sql, cs_sql_classify(sql, cs_slice_str("DROP TABLE kept")));
    const struct cs_sql_class *kept = cs_sql_classify(sql, cs_slice_str("DROP TABLE kept"));
    cs_sql_keep(kept);
    cs_sql_release(sql, kept);
    for (int i = 0; i < 3 * CS_LIMIT_SQL_CACHE_ENTRIES; i++) {
        int n = snprintf(text, sizeof text, "SELECT %d", i);
        for (int again = 0; again < 2; again++) {
            const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice(text, (size_t)n));
            CS_EQ_U64(c->effects, CS_SQL_READ);
            cs_sql_release(sql, c);
        }
    }
    CS_CHECK(cs_sql_cached(sql, cs_slice_str("DROP TABLE kept")) == NULL);
    CS_EQ_STR(kept->writes[0], "kept");
    cs_sql_release(sql, kept);
    CS_CHECK(cs_alloc_live() < CS_LIMIT_SQL_CACHE_ENTRIES + 16);
    cs_sql_free(sql);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(cache_keeps_what_is_used)
{
    static char text[64];
    struct cs_sql *sql = new_sql();
    struct cs_slice hot = cs_slice_str("SELECT hot FROM t");
    cs_sql_release(sql, cs_sql_classify(sql, hot));
    cs_sql_release(sql, cs_sql_classify(sql, hot));
    for (int i = 0; i < 2 * CS_LIMIT_SQL_CACHE_ENTRIES; i++) {
        int n = snprintf(text, sizeof text, "SELECT %d", i);
        cs_sql_release(sql, cs_sql_classify(sql, cs_slice(text, (size_t)n)));
        cs_sql_release(sql, cs_sql_classify(sql, cs_slice(text, (size_t)n)));
        const struct cs_sql_class *c = cs_sql_cached(sql, hot);
        CS_CHECK(c != NULL);
        cs_sql_release(sql, c);
    }
    cs_sql_free(sql);
}

CS_TEST(cache_does_not_keep_long_texts)
{
    static char text[CS_LIMIT_SQL_CACHE_TEXT + 16];
    struct cs_sql *sql = new_sql();
    memset(text, ' ', sizeof text);
    memcpy(text, "SELECT 1", 8);
    cs_sql_release(sql, cs_sql_classify(sql, cs_slice(text, CS_LIMIT_SQL_CACHE_TEXT + 1)));
    const struct cs_sql_class *c =
        cs_sql_classify(sql, cs_slice(text, CS_LIMIT_SQL_CACHE_TEXT + 1));
    CS_EQ_U64(c->effects, CS_SQL_READ);
    cs_sql_release(sql, c);
    CS_CHECK(cs_sql_cached(sql, cs_slice(text, CS_LIMIT_SQL_CACHE_TEXT + 1)) == NULL);
    cs_sql_release(sql, cs_sql_classify(sql, cs_slice(text, CS_LIMIT_SQL_CACHE_TEXT)));
    cs_sql_release(sql, cs_sql_classify(sql, cs_slice(text, CS_LIMIT_SQL_CACHE_TEXT)));
    c = cs_sql_cached(sql, cs_slice(text, CS_LIMIT_SQL_CACHE_TEXT));
    CS_CHECK(c != NULL);
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

CS_TEST(classifier_without_memory_is_opaque)
{
    bool done = false;
    struct cs_sql *sql = NULL;
    CS_OOM_LOOP(done)
    {
        sql = NULL;
        done = cs_sql_new(&sql) == CS_OK;
        if (!done) {
            CS_CHECK(sql == NULL);
        }
    }
    done = false;
    CS_OOM_LOOP(done)
    {
        const struct cs_sql_class *c = cs_sql_classify(
            sql, cs_slice_str("DELETE FROM a.b USING c.d WHERE EXISTS (SELECT 1 FROM e.f)"));
        done = c->effects == (CS_SQL_READ | CS_SQL_WRITE);
        CS_CHECK(done || (c->effects & CS_SQL_OPAQUE) != 0);
        cs_sql_keep(c);
        cs_sql_release(sql, c);
        cs_sql_release(sql, c);
    }
    CS_CHECK(done);
    cs_sql_free(sql);
    CS_EQ_U64(cs_alloc_live(), 0);
}

static const struct cs_fact *fact(const struct cs_facts *f, enum cs_fact_id id)
{
    return &f->v[id];
}

CS_TEST(facts_of_a_clear_text_are_known)
{
    struct cs_sql *sql = new_sql();
    struct cs_facts f = {0};
    struct cs_slice text = cs_slice_str("DELETE FROM s.t WHERE id IN (SELECT lower(x) FROM u)");
    const struct cs_sql_class *c = cs_sql_classify(sql, text);
    struct cs_sql_judged j;
    cs_sql_judge(c, NULL, false, &j);
    cs_sql_facts(sql, c, &j, text, &f);
    CS_EQ_U64(fact(&f, CS_FACT_SQL_EFFECTS)->u.strings.n, 2);
    CS_EQ_STR(fact(&f, CS_FACT_SQL_EFFECTS)->u.strings.v[1], "write");
    CS_EQ_STR(fact(&f, CS_FACT_SQL_VERB)->u.string, "DELETE");
    CS_EQ_STR(fact(&f, CS_FACT_SQL_READS)->u.strings.v[0], "u");
    CS_EQ_STR(fact(&f, CS_FACT_SQL_WRITES)->u.strings.v[0], "s.t");
    CS_EQ_STR(fact(&f, CS_FACT_SQL_FUNCTIONS)->u.strings.v[0], "lower");
    CS_EQ_U64(fact(&f, CS_FACT_SQL_STATEMENTS)->u.integer, 1);
    CS_EQ_SLICE(fact(&f, CS_FACT_SQL_TEXT)->u.string, text);
    CS_CHECK(fact(&f, CS_FACT_SQL_DATABASE)->state == CS_FACT_ABSENT);
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

static void check_facts(const char *text, enum cs_fact_state verb, enum cs_fact_state reads,
                        enum cs_fact_state writes)
{
    struct cs_sql *sql = new_sql();
    struct cs_facts f = {0};
    const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice_str(text));
    struct cs_sql_judged j;
    cs_sql_judge(c, NULL, false, &j);
    cs_sql_facts(sql, c, &j, cs_slice_str(text), &f);
    CS_CHECK(fact(&f, CS_FACT_SQL_EFFECTS)->state == CS_FACT_KNOWN);
    CS_CHECK(fact(&f, CS_FACT_SQL_EFFECTS)->u.strings.n > 0);
    CS_EQ_U64(fact(&f, CS_FACT_SQL_VERB)->state, verb);
    CS_EQ_U64(fact(&f, CS_FACT_SQL_STATEMENTS)->state, verb);
    CS_EQ_U64(fact(&f, CS_FACT_SQL_READS)->state, reads);
    CS_EQ_U64(fact(&f, CS_FACT_SQL_FUNCTIONS)->state, reads);
    CS_EQ_U64(fact(&f, CS_FACT_SQL_WRITES)->state, writes);
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

CS_TEST(facts_of_an_opaque_text_are_unknown)
{
    check_facts("DO $$ BEGIN END $$", CS_FACT_KNOWN, CS_FACT_UNKNOWN, CS_FACT_UNKNOWN);
    check_facts("SELECT my_function(1)", CS_FACT_KNOWN, CS_FACT_UNKNOWN, CS_FACT_UNKNOWN);
    check_facts("SELEC 1", CS_FACT_UNKNOWN, CS_FACT_UNKNOWN, CS_FACT_UNKNOWN);
    check_facts("SELECT '\xff'", CS_FACT_UNKNOWN, CS_FACT_UNKNOWN, CS_FACT_UNKNOWN);
}

/* A rule such as sql.writes.all(w, w == "scratch") must not fire on what names nothing. */
CS_TEST(facts_say_when_not_everything_written_is_named)
{
    check_facts("SELECT nextval('s')", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_UNKNOWN);
    check_facts("NOTIFY x", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_UNKNOWN);
    check_facts("DROP FUNCTION f()", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_UNKNOWN);
    check_facts("GRANT a TO b", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_UNKNOWN);
    check_facts("DELETE FROM t; NOTIFY x", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_UNKNOWN);
    check_facts("DELETE FROM t; DROP TABLE u", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_KNOWN);
    check_facts("TRUNCATE t CASCADE", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_UNKNOWN);
    check_facts("DROP TABLE t CASCADE", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_UNKNOWN);
    check_facts("DROP SCHEMA s", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_UNKNOWN);
    check_facts("ALTER TABLE t DROP COLUMN a CASCADE", CS_FACT_KNOWN, CS_FACT_KNOWN,
                CS_FACT_UNKNOWN);
    check_facts("SELECT 1", CS_FACT_KNOWN, CS_FACT_KNOWN, CS_FACT_KNOWN);
}
