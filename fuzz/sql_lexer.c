/* The lexer in front of the grammar: never reads outside, always says the same, and what it lets
 * through keeps the bounds that a plain count can check. */
#include "base/limits.h"
#include "sql/lexer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool property)
{
    if (!property) {
        abort();
    }
}

/* Quotes and comments make tokens of any length: without them a text has at least as many tokens as
 * commas. */
static bool plain(struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (memchr("'\"$-/", s.p[i], 5) != NULL) {
            return false;
        }
    }
    return true;
}

static size_t count(struct cs_slice s, uint8_t c)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += s.p[i] == c;
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *block = malloc(size > 0 ? size : 1);
    if (block == NULL) {
        return 0;
    }
    if (size > 0) {
        memcpy(block, data, size);
    }
    struct cs_slice text = cs_slice(block, size);
    const char *why = cs_sql_lexer_refuses(text);
    check(why == cs_sql_lexer_refuses(text));
    check(why == NULL || why[0] != '\0');
    if (why == NULL) {
        check(size <= CS_LIMIT_SQL_INLINE_BYTES);
        check(count(text, 0) == 0);
        check(cs_utf8_valid(text));
        check(!plain(text) || count(text, ',') <= CS_LIMIT_SQL_TOKENS);
    }
    free(block);
    return 0;
}
