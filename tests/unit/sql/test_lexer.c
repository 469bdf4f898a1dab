#include "base/limits.h"
#include "sql/lexer.h"
#include "sql/sql.h"
#include "tap.h"

static bool takes(const char *s)
{
    return cs_sql_lexer_refuses(cs_slice_str(s)) == NULL;
}

/* `part` so often that n bytes are filled. */
static const char *repeat(const char *before, const char *part, size_t n, const char *after)
{
    static char text[CS_LIMIT_SQL_INLINE_BYTES + 4096];
    size_t at = strlen(before), k = strlen(part);
    memcpy(text, before, at);
    for (size_t i = 0; i + k <= n; i += k) {
        memcpy(text + at, part, k);
        at += k;
    }
    memcpy(text + at, after, strlen(after) + 1);
    return text;
}

CS_TEST(lexer_takes_ordinary_texts)
{
    CS_CHECK(takes(""));
    CS_CHECK(takes("SELECT 1"));
    CS_CHECK(takes("SELECT 'it''s', E'\\'', $$a'b$$, $x$ $$ $x$, \"a\"\"b\", $1, a$b$c, 1.5e3"));
    CS_CHECK(takes("-- only a comment"));
    CS_CHECK(takes("/* a /* b */ c */ SELECT 1"));
    CS_CHECK(takes("SELECT '\xc3\xa4' AS \xc3\xa4"));
}

static bool quick(const char *before, const char *part, size_t n, const char *after)
{
    return cs_sql_is_quick(cs_slice_str(repeat(before, part, n, after)));
}

CS_TEST(lexer_tells_texts_that_take_the_grammar_a_moment)
{
    CS_CHECK(cs_sql_is_quick(cs_slice_str("")));
    CS_CHECK(quick("", "a;", 256, ""));
    CS_CHECK(quick("SELECT '", "a", CS_LIMIT_SQL_TURN_BYTES - 9, "'"));
    CS_CHECK(quick("SELECT 1", " + 1", 2 * (CS_LIMIT_SQL_TURN_TOKENS - 2), ""));
    CS_CHECK(quick("SELECT ", "\"t0\".\"a_long_column_name\" AS \"c0\", ", 1000, "1"));
}

CS_TEST(lexer_tells_texts_that_take_the_grammar_long)
{
    CS_CHECK(!quick("SELECT '", "a", CS_LIMIT_SQL_TURN_BYTES - 8, "'"));
    CS_CHECK(!quick("SELECT 1", " + 1", 2 * CS_LIMIT_SQL_TURN_TOKENS, ""));
    CS_CHECK(!quick("", "a;", 402, ""));
    CS_CHECK(!quick("", "SET a=b;", 400, ""));
    CS_CHECK(!quick("SELECT 1", " /* a */ + 1", 1600, "")); /* what is none may be counted */
    CS_CHECK(!quick("SELECT '", "a", 300, ""));             /* refused: not this one's to say */
}

CS_TEST(lexer_refuses_nul_and_bad_utf8)
{
    CS_CHECK(cs_sql_lexer_refuses(cs_slice("SELECT 1\0; DROP TABLE t", 22)) != NULL);
    CS_CHECK(!takes("SELECT '\xff\xfe'"));
    CS_CHECK(!takes("SELECT E'\x95\x5c'; DROP TABLE t --'"));
    CS_CHECK(!takes("SELECT '\xc0\xa7'"));
}

/* The way to the next quote is taken in steps near it and in one leap beyond. */
CS_TEST(lexer_finds_a_quote_wherever_it_is)
{
    char text[128];
    for (size_t n = 0; n < 100; n++) {
        memcpy(text, "SELECT '", 8);
        memset(text + 8, 'x', n);
        memcpy(text + 8 + n, "'", 2);
        CS_CHECK(takes(text));
        memcpy(text + 8 + n, "''", 3); /* a doubled one does not end it */
        CS_CHECK(!takes(text));
        memcpy(text + 8 + n, "'''", 4);
        CS_CHECK(takes(text));
        memcpy(text + 8 + n, "' '", 4);
        CS_CHECK(!takes(text));
        text[8 + n] = 0;
        CS_CHECK(!takes(text));
        text[7] = '"';
        memcpy(text + 8 + n, "'\"", 3);
        CS_CHECK(takes(text));
    }
}

CS_TEST(lexer_refuses_what_does_not_end)
{
    CS_CHECK(!takes("SELECT 'a"));
    CS_CHECK(!takes("SELECT \"a"));
    CS_CHECK(!takes("SELECT $a$ b $b$"));
    CS_CHECK(!takes("/* /* */"));
    CS_CHECK(!takes("SELECT E'\\'"));
}

CS_TEST(lexer_follows_escapes_over_a_continued_string)
{
    CS_CHECK(takes("SELECT E'a'\n'\\'' "));
    CS_CHECK(!takes("SELECT E'a' '\\'' "));
    CS_CHECK(takes("SELECT E'a' -- c\n '\\'' "));
}

CS_TEST(lexer_bounds_size_and_tokens)
{
    CS_CHECK(takes(repeat("SELECT '", "a", CS_LIMIT_SQL_INLINE_BYTES - 9, "'")));
    CS_CHECK(!takes(repeat("SELECT '", "a", CS_LIMIT_SQL_INLINE_BYTES - 8, "'")));
    CS_CHECK(takes(repeat("", ",", CS_LIMIT_SQL_TOKENS, "")));
    CS_CHECK(!takes(repeat("", ",", CS_LIMIT_SQL_TOKENS + 1, "")));
}

CS_TEST(lexer_bounds_comment_depth)
{
    static char text[400];
    size_t n = 0;
    for (int depth = 32; depth <= 33; depth++) {
        n = 0;
        for (int i = 0; i < depth; i++) {
            n += (size_t)snprintf(text + n, sizeof text - n, "/* ");
        }
        for (int i = 0; i < depth; i++) {
            n += (size_t)snprintf(text + n, sizeof text - n, "*/ ");
        }
        CS_CHECK(takes(text) == (depth == 32));
    }
}

CS_TEST(lexer_bounds_operator_runs)
{
    CS_CHECK(takes(repeat("SELECT 1 ", "+-", 64, " 1")));
    CS_CHECK(!takes(repeat("SELECT 1 ", "+-", 66, " 1")));
    CS_CHECK(!takes(repeat("SELECT 1 ", "++++", 8000, " 1")));
    CS_CHECK(!takes(repeat("", "/*", 8000, "")));
    CS_CHECK(!takes(repeat("", "/**/", 8000, "")));
    CS_CHECK(!takes(repeat("SELECT 1 /**/", "+-", 80, " 1")));
    CS_CHECK(!takes(repeat("/* x ", "/*", 80, " */")));
}

CS_TEST(lexer_takes_decorated_comments)
{
    CS_CHECK(takes(repeat("/*", "*", 200, "/ SELECT 1")));
    CS_CHECK(takes(repeat("SELECT 1 ", "-", 200, "\n, 2")));
    CS_CHECK(takes(repeat("/*\n ", "=", 200, "\n */ SELECT 1")));
    CS_CHECK(
        takes("SELECT '----------------------------------------------------------------------',"
              "'++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++'"));
}

CS_TEST(lexer_ignores_comment_openers_in_strings)
{
    CS_CHECK(takes(repeat("SELECT '", "/*", 400, "'")));
    CS_CHECK(takes(repeat("SELECT $q$", "/*", 400, "$q$")));
    CS_CHECK(takes(repeat("SELECT \"", "/*", 60, "\"")));
    CS_CHECK(takes(repeat("SELECT E'\\'", "/*", 400, "'")));
}
