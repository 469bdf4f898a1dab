/* The lexer of conditions: bytes to tokens, string escapes included. Called by the parser alone.
 * It must never read past the text, and refuses what it does not know instead of skipping it. */
#include "policy/cel_lex.h"

#include <stdio.h>

static void bad(struct cs_cel_lexer *l, const char *why)
{
    l->tok = CS_CEL_TOK_BAD;
    (void)snprintf(l->why, sizeof l->why, "%s", why);
}

static uint8_t byte_at(const struct cs_cel_lexer *l, size_t i)
{
    return i < l->text.n ? l->text.p[i] : 0;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_start(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int hex_value(uint8_t c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void skip_blanks(struct cs_cel_lexer *l)
{
    while (l->next < l->text.n) {
        uint8_t c = l->text.p[l->next];
        if (c == '/' && byte_at(l, l->next + 1) == '/') {
            while (l->next < l->text.n && l->text.p[l->next] != '\n') {
                l->next++;
            }
        } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f') {
            l->next++;
        } else {
            return;
        }
    }
}

static void lex_number(struct cs_cel_lexer *l)
{
    uint64_t v = 0;
    bool hex = byte_at(l, l->next) == '0' && (byte_at(l, l->next + 1) | 0x20) == 'x';
    bool over = false;
    size_t digits = 0;
    l->next += hex ? 2 : 0;
    for (;; l->next++, digits++) {
        int d = hex_value(byte_at(l, l->next));
        if (d < 0 || (!hex && d > 9)) {
            break;
        }
        over |= __builtin_mul_overflow(v, hex ? 16U : 10U, &v);
        over |= __builtin_add_overflow(v, (uint64_t)d, &v);
    }
    uint8_t c = byte_at(l, l->next);
    if ((c == '.' && is_digit(byte_at(l, l->next + 1))) || (!hex && (c | 0x20) == 'e')) {
        bad(l, "not in this version: numbers with a fraction or an exponent");
    } else if ((c | 0x20) == 'u') {
        bad(l, "not in this version: unsigned numbers (the suffix u)");
    } else if (digits == 0 || is_name_start(c)) {
        bad(l, "this is not a number");
    } else if (over || v > (uint64_t)INT64_MAX + 1) {
        bad(l, "the number does not fit 64 bits");
    } else {
        l->tok = CS_CEL_TOK_INT;
        l->u = v;
    }
}

static size_t utf8_put(uint32_t cp, uint8_t out[static 4])
{
    if (cp < 0x80) {
        out[0] = (uint8_t)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (uint8_t)(0xc0 | (cp >> 6));
        out[1] = (uint8_t)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (uint8_t)(0xe0 | (cp >> 12));
        out[1] = (uint8_t)(0x80 | ((cp >> 6) & 0x3f));
        out[2] = (uint8_t)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | (cp >> 18));
    out[1] = (uint8_t)(0x80 | ((cp >> 12) & 0x3f));
    out[2] = (uint8_t)(0x80 | ((cp >> 6) & 0x3f));
    out[3] = (uint8_t)(0x80 | (cp & 0x3f));
    return 4;
}

/* Digits of an escape: `n` of base 8 or 16 at l->next. */
static bool code_point(struct cs_cel_lexer *l, size_t n, unsigned base, uint32_t *ret)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++, l->next++) {
        int d = hex_value(byte_at(l, l->next));
        if (d < 0 || (unsigned)d >= base) {
            return false;
        }
        v = (v * base + (uint32_t)d) & 0xffffffffU;
        if (v > 0x10ffff) {
            return false;
        }
    }
    *ret = v;
    return v < 0xd800 || v > 0xdfff;
}

/* One escape, behind the backslash. Returns the bytes written, 0 when it is not one. */
static size_t lex_escape(struct cs_cel_lexer *l, uint8_t out[static 4])
{
    static const char from[] = "\\\"'`?nrtabfv";
    static const char to[] = "\\\"'`?\n\r\t\a\b\f\v";
    uint8_t c = byte_at(l, l->next);
    uint32_t cp = 0;
    bool ok = false;
    const char *simple = c != 0 ? strchr(from, c) : NULL;
    if (simple != NULL) {
        l->next++;
        out[0] = (uint8_t)to[simple - from];
        return 1;
    }
    if (c >= '0' && c <= '3') {
        ok = code_point(l, 3, 8, &cp);
    } else if (c == 'x' || c == 'X' || c == 'u' || c == 'U') {
        l->next++;
        ok = code_point(l, c == 'u' ? 4 : c == 'U' ? 8 : 2, 16, &cp);
    }
    return ok ? utf8_put(cp, out) : 0;
}

static void lex_string(struct cs_cel_lexer *l)
{
    uint8_t quote = l->text.p[l->next++];
    if (byte_at(l, l->next) == quote && byte_at(l, l->next + 1) == quote) {
        bad(l, "not in this version: strings in triple quotes");
        return;
    }
    /* No escape is shorter than what it stands for, so the length up to the end is enough. */
    size_t end = l->next;
    while (end < l->text.n && l->text.p[end] != quote && l->text.p[end] != '\n') {
        end += l->text.p[end] == '\\' ? 2 : 1;
    }
    uint8_t *out = cs_arena_alloc(l->arena, end - l->next + 4);
    if (out == NULL) {
        l->no_memory = true;
        bad(l, "no memory is left");
        return;
    }
    size_t n = 0;
    for (;;) {
        uint8_t c = byte_at(l, l->next);
        if (l->next >= l->text.n || c == '\n' || c == '\r') {
            bad(l, "the string has no closing quote on its line");
            return;
        }
        l->next++;
        if (c == quote) {
            break;
        }
        if (c != '\\') {
            out[n++] = c;
            continue;
        }
        uint8_t bytes[4];
        size_t k = lex_escape(l, bytes);
        if (k == 0) {
            bad(l, "the string has an escape that CEL does not know (write \\\\ for a backslash)");
            return;
        }
        memcpy(out + n, bytes, k);
        n += k;
    }
    l->tok = CS_CEL_TOK_STRING;
    l->s = cs_slice(out, n);
}

static void lex_punct(struct cs_cel_lexer *l)
{
    static const char *const two[] = {"&&", "||", "==", "!=", "<=", ">="};
    struct cs_slice rest = cs_slice_from(l->text, l->next);
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++) {
        if (cs_slice_starts(rest, cs_slice_str(two[i]))) {
            n = 2;
        }
    }
    if (n == 1 && (rest.p[0] == 0 || strchr("<>!()[],.?:+-*/%{}", rest.p[0]) == NULL)) {
        static const char *const hints[] = {"&write && for and", "|write || for or",
                                            "=write == to compare"};
        for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
            if ((uint8_t)hints[i][0] == rest.p[0]) {
                bad(l, hints[i] + 1);
                return;
            }
        }
        bad(l, "this character has no meaning in a condition");
        return;
    }
    l->tok = CS_CEL_TOK_PUNCT;
    l->next += n;
}

void cs_cel_lex_init(struct cs_cel_lexer *l, struct cs_slice text, struct cs_arena *a)
{
    *l = (struct cs_cel_lexer){.text = text, .arena = a};
    cs_cel_lex_next(l);
}

void cs_cel_lex_next(struct cs_cel_lexer *l)
{
    if (l->tok == CS_CEL_TOK_BAD) {
        return;
    }
    skip_blanks(l);
    l->at = l->next;
    if (l->next >= l->text.n) {
        l->tok = CS_CEL_TOK_END;
        l->s = CS_SLICE_NULL;
        return;
    }
    uint8_t c = l->text.p[l->next];
    uint8_t d = byte_at(l, l->next + 1);
    if (c == '"' || c == '\'') {
        lex_string(l);
        return;
    }
    if (c != 0 && strchr("rRbB", c) != NULL && (d == '"' || d == '\'')) {
        bad(l, (c | 0x20) == 'r' ? "not in this version: raw strings (r\"…\")"
                                 : "not in this version: byte strings (b\"…\")");
        return;
    }
    if (is_digit(c)) {
        lex_number(l);
    } else if (is_name_start(c)) {
        l->tok = CS_CEL_TOK_NAME;
        while (is_name_start(byte_at(l, l->next)) || is_digit(byte_at(l, l->next))) {
            l->next++;
        }
    } else {
        lex_punct(l);
    }
    l->s = cs_slice(l->text.p + l->at, l->next - l->at);
}
