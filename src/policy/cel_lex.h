/* The tokens of a condition. Private to policy/. */
#ifndef CS_POLICY_CEL_LEX_H
#define CS_POLICY_CEL_LEX_H

#include "base/arena.h"
#include "base/slice.h"

enum cs_cel_tok {
    CS_CEL_TOK_END,
    CS_CEL_TOK_BAD, /* text: what is wrong */
    CS_CEL_TOK_NAME,
    CS_CEL_TOK_INT,
    CS_CEL_TOK_STRING,
    CS_CEL_TOK_PUNCT,
};

struct cs_cel_lexer {
    struct cs_slice text; /* borrowed */
    size_t next;
    struct cs_arena *arena;
    bool no_memory;
    /* the current token */
    enum cs_cel_tok tok;
    size_t at;         /* offset of its first byte */
    struct cs_slice s; /* its source text; STRING: the value */
    uint64_t u;        /* INT: the magnitude */
    char why[160];     /* BAD */
};

void cs_cel_lex_init(struct cs_cel_lexer *l, struct cs_slice text, struct cs_arena *a);
void cs_cel_lex_next(struct cs_cel_lexer *l);

#endif
