/* Names in texts: SQL identifiers and strings, and templates filled with the names of a target.
 * Called by check.c for what to do, and by sql.c for all that it writes. SECURITY: a name is never
 * written but in quotes of its own, doubled where it holds one: a role called `x"; DROP …` stays a
 * name. */
#include "check/words.h"

#include "base/attr.h"

static void quoted(struct cs_buf *out, struct cs_slice s, uint8_t quote)
{
    cs_buf_u8(out, quote);
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == quote) {
            cs_buf_u8(out, quote);
        }
        cs_buf_u8(out, s.p[i]);
    }
    cs_buf_u8(out, quote);
}

void cs_check_ident(struct cs_buf *out, struct cs_slice name)
{
    quoted(out, name, '"');
}

void cs_check_literal(struct cs_buf *out, struct cs_slice text)
{
    quoted(out, text, '\'');
}

/* The server cuts longer names silently, and then means another one. */
bool cs_check_name_writable(struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x20 || s.p[i] == 0x7f) {
            return false;
        }
    }
    return s.n >= 1 && s.n <= CS_CHECK_NAME_MAX && cs_utf8_valid(s);
}

static struct cs_slice name_of(const struct cs_check_names *n, struct cs_slice word)
{
    const struct {
        const char *word;
        struct cs_slice name;
    } table[] = {{"everyday", n->everyday}, {"elevated", n->elevated}, {"probe", n->probe},
                 {"database", n->database}, {"schema", n->schema},     {"target", n->target}};
    for (size_t i = 0; i < CS_ARRAY_LEN(table); i++) {
        if (cs_slice_eq_str(word, table[i].word)) {
            return table[i].name;
        }
    }
    return CS_SLICE_NULL;
}

void cs_check_fill(struct cs_buf *out, const char *text, const struct cs_check_names *names)
{
    struct cs_slice rest = cs_slice_str(text);
    while (rest.n > 0) {
        size_t open = cs_slice_find(rest, '{');
        cs_buf_add(out, cs_slice_head(rest, open));
        rest = cs_slice_from(rest, open + 1);
        if (rest.n == 0) {
            return;
        }
        size_t close = cs_slice_find(rest, '}');
        struct cs_slice word = cs_slice_head(rest, close);
        bool literal = word.n > 0 && word.p[0] == '\'';
        word = cs_slice_from(word, literal);
        rest = cs_slice_from(rest, close + 1);
        if (literal) {
            cs_check_literal(out, name_of(names, word));
        } else if (cs_slice_eq_str(word, "target")) {
            cs_buf_add(out, names->target); /* letters, digits, ".", "_" and "-" */
        } else {
            cs_check_ident(out, name_of(names, word));
        }
    }
}
