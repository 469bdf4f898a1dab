/* The lexer in front of the grammar: size, NUL, UTF-8, depth of comments, operator runs, tokens.
 * Called by classify.c for every text that is not in the cache.
 * It must never decide that a text is harmless, and in doubt refuses: what it does not follow
 * exactly (a string that does not end, say) the grammar would refuse as well.
 *
 * SECURITY: the grammar's scanner is quadratic in (a) openers of comments inside one run of
 * operator characters, such as a slash-star repeated, and (b) operators like +-+-+- of which it
 * gives back all but one byte. 80 KB of either stop a process for seconds. Both are bounded here.
 */
#include "sql/lexer.h"

#include "base/limits.h"
#include "sql/sql.h"

enum lex_class { L_OTHER, L_SPACE, L_IDENT, L_DIGIT, L_QUOTE, L_DQUOTE, L_DOLLAR, L_OP };

/* clang-format off */
#define LETTER(c) [c] = L_IDENT, [(c) - 32] = L_IDENT
static const uint8_t ascii_classes[128] = {
    [' '] = L_SPACE, ['\t'] = L_SPACE, ['\n'] = L_SPACE, ['\r'] = L_SPACE, ['\f'] = L_SPACE,
    ['\v'] = L_SPACE,
    LETTER('a'), LETTER('b'), LETTER('c'), LETTER('d'), LETTER('e'), LETTER('f'),
    LETTER('g'), LETTER('h'), LETTER('i'), LETTER('j'), LETTER('k'), LETTER('l'),
    LETTER('m'), LETTER('n'), LETTER('o'), LETTER('p'), LETTER('q'), LETTER('r'),
    LETTER('s'), LETTER('t'), LETTER('u'), LETTER('v'), LETTER('w'), LETTER('x'),
    LETTER('y'), LETTER('z'),
    ['_'] = L_IDENT,
    ['0'] = L_DIGIT, ['1'] = L_DIGIT, ['2'] = L_DIGIT, ['3'] = L_DIGIT, ['4'] = L_DIGIT,
    ['5'] = L_DIGIT, ['6'] = L_DIGIT, ['7'] = L_DIGIT, ['8'] = L_DIGIT, ['9'] = L_DIGIT,
    ['\''] = L_QUOTE, ['"'] = L_DQUOTE, ['$'] = L_DOLLAR,
    ['~'] = L_OP, ['!'] = L_OP, ['@'] = L_OP, ['#'] = L_OP, ['^'] = L_OP, ['&'] = L_OP,
    ['|'] = L_OP, ['`'] = L_OP, ['?'] = L_OP, ['+'] = L_OP, ['-'] = L_OP, ['*'] = L_OP,
    ['/'] = L_OP, ['%'] = L_OP, ['<'] = L_OP, ['='] = L_OP, ['>'] = L_OP,
};
#undef LETTER
/* clang-format on */

/* Every byte of a character beyond ASCII can be part of a name. */
static enum lex_class class_of(uint8_t c)
{
    return c < 0x80 ? (enum lex_class)ascii_classes[c] : L_IDENT;
}

/* A run of operator characters longer than the limit is taken only as decoration of a comment: so
 * many comment openers and operator characters outside comments may be in it. */
enum { LONG_RUN_STARTS = 2 };

static const char unterminated[] = "a string, name or comment that does not end";

static size_t left(const struct cs_sql_lex *x)
{
    return (size_t)(x->end - x->p);
}

static bool at(const struct cs_sql_lex *x, uint8_t a, uint8_t b)
{
    return left(x) >= 2 && x->p[0] == a && x->p[1] == b;
}

/* One more place in this run at which the scanner starts to match. */
static bool run_start(struct cs_sql_lex *x)
{
    if (x->p >= x->run_end) {
        const uint8_t *q = x->p;
        while (q < x->end && class_of(*q) == L_OP) {
            q++;
        }
        x->run_size = (size_t)(q - x->p);
        x->run_end = q;
        x->run_starts = 0;
    }
    x->run_starts++;
    if (x->run_size > CS_LIMIT_SQL_OPERATOR_RUN && x->run_starts > LONG_RUN_STARTS) {
        x->why = "a run of operator characters that is too long";
        return false;
    }
    return true;
}

static void line_comment(struct cs_sql_lex *x)
{
    while (x->p < x->end && *x->p != '\n' && *x->p != '\r') {
        x->p++;
    }
}

static void block_comment(struct cs_sql_lex *x)
{
    size_t depth = 0;
    while (x->p < x->end) {
        if (at(x, '/', '*')) {
            if (!run_start(x)) {
                return;
            }
            if (++depth > CS_LIMIT_SQL_COMMENT_DEPTH) {
                x->why = "comments nested too deeply";
                return;
            }
            x->p += 2;
        } else if (at(x, '*', '/')) {
            x->p += 2;
            if (--depth == 0) {
                return;
            }
        } else {
            x->p++;
        }
    }
    x->why = unterminated;
}

static void operators(struct cs_sql_lex *x)
{
    if (at(x, '-', '-')) {
        line_comment(x);
    } else if (at(x, '/', '*')) {
        block_comment(x);
    } else if (run_start(x)) {
        x->tokens++;
        x->p++;
    }
}

/* After a closing quote: white space that holds a newline, then a quote, continues the string in
 * the same mode, so that E'a'<newline>'\'' is one string with escapes. */
static bool continues(struct cs_sql_lex *x)
{
    bool newline = false;
    while (x->p < x->end) {
        if (class_of(*x->p) == L_SPACE) {
            newline |= *x->p == '\n' || *x->p == '\r';
            x->p++;
        } else if (at(x, '-', '-')) {
            line_comment(x);
        } else {
            break;
        }
    }
    if (newline && x->p < x->end && *x->p == '\'') {
        x->p++;
        return true;
    }
    return false;
}

/* To the next quote, or the end. Quotes are near each other, or far: a constant can be a megabyte.
 */
static const uint8_t *to_quote(const uint8_t *p, const uint8_t *end, uint8_t quote)
{
    enum { NEAR = 16 };
    const uint8_t *near = (size_t)(end - p) > NEAR ? p + NEAR : end;
    while (p < near && *p != quote) {
        p++;
    }
    const uint8_t *far = p == near ? memchr(p, quote, (size_t)(end - p)) : p;
    return far != NULL ? far : end;
}

/* p is behind the opening quote. */
static void quoted(struct cs_sql_lex *x, uint8_t quote, bool escapes)
{
    while (x->p < x->end) {
        if (!escapes) {
            x->p = to_quote(x->p, x->end, quote);
            if (x->p == x->end) {
                break;
            }
        }
        uint8_t c = *x->p++;
        if (escapes && c == '\\') {
            if (x->p < x->end) {
                x->p++;
            }
        } else if (c == quote) {
            if (x->p < x->end && *x->p == quote) {
                x->p++;
            } else if (!escapes || !continues(x)) {
                return;
            }
        }
    }
    x->why = unterminated;
}

static void identifier(struct cs_sql_lex *x)
{
    const uint8_t *from = x->p;
    while (x->p < x->end && (class_of(*x->p) == L_IDENT || class_of(*x->p) == L_DIGIT ||
                             (*x->p == '$' && x->p > from))) {
        x->p++;
    }
    if (x->p - from == 1 && (*from == 'e' || *from == 'E') && x->p < x->end && *x->p == '\'') {
        x->p++;
        quoted(x, '\'', true);
    }
}

static void number(struct cs_sql_lex *x)
{
    while (x->p < x->end &&
           (class_of(*x->p) == L_IDENT || class_of(*x->p) == L_DIGIT || *x->p == '.')) {
        x->p++;
    }
}

/* $tag$ … $tag$, $1, or a lone $ (which the grammar refuses). */
static void dollar(struct cs_sql_lex *x)
{
    const uint8_t *q = x->p + 1;
    if (q < x->end && class_of(*q) == L_DIGIT) {
        x->p++;
        number(x);
        return;
    }
    while (q < x->end && (class_of(*q) == L_IDENT || (class_of(*q) == L_DIGIT && q > x->p + 1))) {
        q++;
    }
    if (q == x->end || *q != '$') {
        x->p++;
        return;
    }
    size_t n = (size_t)(q + 1 - x->p);
    const uint8_t *tag = x->p;
    x->p += n;
    const uint8_t *close = memmem(x->p, left(x), tag, n);
    if (close == NULL) {
        x->why = unterminated;
        return;
    }
    x->p = close + n;
}

static void token(struct cs_sql_lex *x)
{
    switch (class_of(*x->p)) {
    case L_SPACE:
        x->p++;
        return;
    case L_OP:
        operators(x);
        return;
    case L_IDENT:
        identifier(x);
        break;
    case L_DIGIT:
        number(x);
        break;
    case L_QUOTE:
        x->p++;
        quoted(x, '\'', false);
        break;
    case L_DQUOTE:
        x->p++;
        quoted(x, '"', false);
        break;
    case L_DOLLAR:
        dollar(x);
        break;
    case L_OTHER:
    default:
        x->p++;
        break;
    }
    x->tokens++;
}

void cs_sql_lex_start(struct cs_sql_lex *x, struct cs_slice text)
{
    *x = (struct cs_sql_lex){.p = text.p, .end = text.p + text.n, .run_end = text.p};
}

static enum cs_sql_token_kind kind_of(struct cs_slice t)
{
    uint8_t second = t.n > 1 ? t.p[1] : 0;
    switch (class_of(t.p[0])) {
    case L_OP:
        return (t.p[0] == '-' && second == '-') || (t.p[0] == '/' && second == '*')
                   ? CS_SQL_TOKEN_COMMENT
                   : CS_SQL_TOKEN_OTHER;
    case L_IDENT:
        return second == '\'' ? CS_SQL_TOKEN_ESCAPED : CS_SQL_TOKEN_WORD;
    case L_QUOTE:
        return CS_SQL_TOKEN_STRING;
    case L_DQUOTE:
        return CS_SQL_TOKEN_NAME;
    case L_DOLLAR:
        return t.n > 1 && class_of(second) != L_DIGIT ? CS_SQL_TOKEN_DOLLAR : CS_SQL_TOKEN_OTHER;
    case L_SPACE:
    case L_DIGIT:
    case L_OTHER:
    default:
        return CS_SQL_TOKEN_OTHER;
    }
}

bool cs_sql_lex_next(struct cs_sql_lex *x, struct cs_sql_token *ret)
{
    while (x->p < x->end && class_of(*x->p) == L_SPACE) {
        x->p++;
    }
    const uint8_t *from = x->p;
    if (from == x->end || x->why != NULL) {
        return false;
    }
    token(x);
    if (x->why != NULL) {
        return false;
    }
    struct cs_slice all = cs_slice(from, (size_t)(x->p - from));
    size_t open = 0, close = 0;
    enum cs_sql_token_kind kind = kind_of(all);
    if (kind == CS_SQL_TOKEN_STRING || kind == CS_SQL_TOKEN_NAME || kind == CS_SQL_TOKEN_ESCAPED) {
        open = kind == CS_SQL_TOKEN_ESCAPED ? 2 : 1;
        close = 1;
    } else if (kind == CS_SQL_TOKEN_DOLLAR) {
        open = close = cs_slice_find(cs_slice_from(all, 1), '$') + 2;
    }
    *ret = (struct cs_sql_token){kind, all,
                                 cs_slice_head(cs_slice_from(all, open), all.n - open - close)};
    return true;
}

/* Whether any byte has its high bit set; NUL is looked for on the same way. */
static bool plain_ascii(struct cs_slice text, bool *ret_nul)
{
    uint8_t any = 0;
    for (size_t i = 0; i < text.n; i++) {
        any |= text.p[i];
    }
    *ret_nul = text.n > 0 && memchr(text.p, 0, text.n) != NULL;
    return any < 0x80;
}

const char *cs_sql_lexer_refuses(struct cs_slice text)
{
    return cs_sql_lexer_refuses_over(text, CS_LIMIT_SQL_INLINE_BYTES, CS_LIMIT_SQL_TOKENS);
}

bool cs_sql_is_quick(struct cs_slice text)
{
    return text.n <= CS_SQL_QUICK_BYTES ||
           cs_sql_lexer_refuses_over(text, CS_LIMIT_SQL_TURN_BYTES, CS_LIMIT_SQL_TURN_TOKENS) ==
               NULL;
}

const char *cs_sql_lexer_refuses_over(struct cs_slice text, size_t bytes, size_t tokens)
{
    if (text.n > bytes) {
        return "the text is too long";
    }
    bool nul;
    bool ascii = plain_ascii(text, &nul);
    /* SECURITY: the grammar reads up to the first NUL and would not see what follows. */
    if (nul) {
        return "a NUL byte in the text";
    }
    /* SECURITY: in a text that is no UTF-8 the server may see other tokens than we. */
    if (!ascii && !cs_utf8_valid(text)) {
        return "the text is not valid UTF-8";
    }
    struct cs_sql_lex x;
    cs_sql_lex_start(&x, text);
    while (x.p < x.end && x.why == NULL) {
        token(&x);
        if (x.tokens > tokens) {
            return "too many tokens";
        }
    }
    return x.why;
}
