/* Collecting, sorting and printing mistakes. Used by the other files of config/; it must never cut
 * a sentence so that its place is lost, and never let text from the file break a line. */
#include "config/mistakes.h"

#include <stdarg.h>
#include <stdio.h>

const char *cs_shown(struct cs_slice s)
{
    static char ring[8][72];
    static unsigned next;
    char *out = ring[next++ % 8];
    size_t n = 0;
    for (size_t at = 0; at < s.n && n < 60;) {
        size_t start = at;
        uint32_t cp = 0;
        bool ok = cs_utf8_next(s, &at, &cp) && cp >= 0x20 && cp != 0x7f;
        if (ok) {
            memcpy(out + n, s.p + start, at - start);
            n += at - start;
        } else {
            out[n++] = '?';
        }
        if (n >= 60 && at < s.n) {
            memcpy(out + n, "\xe2\x80\xa6", 3);
            n += 3;
        }
    }
    out[n] = 0;
    return out;
}

static void add(struct cs_mistakes *m, struct cs_cfg_pos at, bool warning, const char *fmt,
                va_list ap)
{
    char text[400];
    int n = vsnprintf(text, sizeof text, fmt, ap);
    m->errors += !warning;
    if (m->n == CS_MISTAKES_KEPT) {
        m->dropped++;
        return;
    }
    struct cs_slice s =
        cs_arena_dup(m->arena, cs_slice(text, n < 0 ? 0 : CS_MIN((size_t)n, sizeof text - 1)));
    m->no_memory |= s.p == NULL;
    m->v[m->n++] = (struct cs_config_mistake){at.line, at.column, warning, s};
}

void cs_mistake(struct cs_mistakes *m, struct cs_cfg_pos at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(m, at, false, fmt, ap);
    va_end(ap);
}

void cs_warning(struct cs_mistakes *m, struct cs_cfg_pos at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(m, at, true, fmt, ap);
    va_end(ap);
}

static bool before(const struct cs_config_mistake *a, const struct cs_config_mistake *b)
{
    return a->line != b->line ? a->line < b->line : a->column < b->column;
}

void cs_mistakes_report(struct cs_mistakes *m, struct cs_config_report *ret)
{
    for (size_t i = 1; i < m->n; i++) { /* stable, and never more than CS_MISTAKES_KEPT */
        struct cs_config_mistake x = m->v[i];
        size_t k = i;
        for (; k > 0 && before(&x, &m->v[k - 1]); k--) {
            m->v[k] = m->v[k - 1];
        }
        m->v[k] = x;
    }
    size_t kept = 0; /* a file named once and used twice is one mistake */
    for (size_t i = 0; i < m->n; i++) {
        const struct cs_config_mistake *x = &m->v[i], *last = kept > 0 ? &m->v[kept - 1] : NULL;
        if (last != NULL && !before(last, x) && cs_slice_eq(last->text, x->text)) {
            m->errors -= !x->warning;
        } else {
            m->v[kept++] = *x;
        }
    }
    m->n = kept;
    ret->v = m->v;
    ret->n = CS_MIN(m->n, (size_t)CS_CONFIG_MISTAKES);
    ret->errors = m->errors;
    ret->left_out = m->n - ret->n + m->dropped;
}

void cs_config_report_text(const struct cs_config_report *r, struct cs_slice file, size_t max,
                           struct cs_buf *out)
{
    size_t start = out->len;
    for (size_t i = 0; i < r->n; i++) {
        size_t before_line = out->len;
        const struct cs_config_mistake *m = &r->v[i];
        cs_buf_printf(out, "%.*s:%u:%u: %s: %.*s\n", CS_SLICE_FMT(file), m->line, m->column,
                      m->warning ? "warning" : "error", CS_SLICE_FMT(m->text));
        if (out->len - start > max) {
            out->len = before_line;
            return;
        }
    }
    if (r->left_out > 0 && max - (out->len - start) > 80 + file.n) {
        cs_buf_printf(out, "%.*s: and %zu more\n", CS_SLICE_FMT(file), r->left_out);
    }
}
