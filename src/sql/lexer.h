/* The lexer in front of the grammar. It bounds the input and decides nothing else: the grammar's
 * own scanner is quadratic on some inputs, reads C strings and does not check UTF-8. */
#ifndef CS_SQL_LEXER_H
#define CS_SQL_LEXER_H

#include "base/slice.h"

/* One token at a time, for who looks for something in a text that was judged already. */
enum cs_sql_token_kind {
    CS_SQL_TOKEN_OTHER, /* a character of its own, an operator's among them; a number */
    CS_SQL_TOKEN_WORD,
    CS_SQL_TOKEN_NAME,    /* "quoted" */
    CS_SQL_TOKEN_STRING,  /* 'plain'; the prefixes U&, N, B, X are a token before it */
    CS_SQL_TOKEN_ESCAPED, /* E'…', with what continues it */
    CS_SQL_TOKEN_DOLLAR,  /* $tag$…$tag$ */
    CS_SQL_TOKEN_COMMENT,
};
struct cs_sql_token {
    enum cs_sql_token_kind kind;
    struct cs_slice all, body; /* body: between the quotes */
};
struct cs_sql_lex {
    const uint8_t *p, *end;
    const uint8_t *run_end; /* of the run of operator characters that p is in */
    size_t run_size, run_starts;
    size_t tokens;
    const char *why; /* literal: it was given up, here */
};
void cs_sql_lex_start(struct cs_sql_lex *x, struct cs_slice text);
/* False at the end, or when `why` is set. */
bool cs_sql_lex_next(struct cs_sql_lex *x, struct cs_sql_token *ret);

/* NULL: the text may be handed to the grammar. Else a literal that says why not. Linear time. */
const char *cs_sql_lexer_refuses(struct cs_slice text);
/* The same for a text of up to so many bytes and tokens. */
const char *cs_sql_lexer_refuses_over(struct cs_slice text, size_t bytes, size_t tokens);

#endif
