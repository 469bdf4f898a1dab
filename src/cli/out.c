/* Printing (out.h). Used by every command. Must never let text from the API reach the terminal
 * without cs_sanitise: statements, names and reasons are written by those whom an approver must
 * judge. */
#include "cli/out.h"

#include "action/action.h"
#include "base/alloc.h"
#include "base/buf.h"
#include "base/time.h"

#include <stdlib.h>
#include <time.h>

static const char no_memory[] = "(no memory)";

const char *cs_cli_safe(struct cs_cli *c, struct cs_slice text)
{
    struct cs_slice s = cs_sanitise(text, false, &c->arena);
    struct cs_slice z = cs_arena_dup(&c->arena, s);
    return z.p != NULL ? (const char *)z.p : no_memory;
}

static const char *keep(struct cs_cli *c, struct cs_buf *b)
{
    struct cs_slice z = cs_arena_dup(&c->arena, cs_buf_slice(b));
    bool ok = !b->bad && z.p != NULL;
    cs_buf_done(b);
    return ok ? (const char *)z.p : no_memory;
}

const char *cs_cli_value_text(struct cs_cli *c, const json_t *v)
{
    if (json_is_string(v)) {
        return cs_cli_safe(c, cs_slice(json_string_value(v), json_string_length(v)));
    }
    struct cs_buf out = cs_buf(CS_CLI_ARENA_MAX);
    size_t i;
    json_t *item;
    if (json_is_boolean(v)) {
        cs_buf_str(&out, json_is_true(v) ? "yes" : "no");
    } else if (json_is_integer(v)) {
        cs_buf_printf(&out, "%lld", (long long)json_integer_value(v));
    } else if (json_is_real(v)) {
        cs_buf_printf(&out, "%g", json_real_value(v));
    } else if (json_is_array(v)) {
        json_array_foreach(v, i, item)
        {
            cs_buf_printf(&out, "%s%s", i > 0 ? ", " : "", cs_cli_value_text(c, item));
        }
    } else if (json_is_object(v)) {
        char *text = json_dumps(v, JSON_ENSURE_ASCII | JSON_COMPACT);
        cs_buf_str(&out, cs_cli_safe(c, cs_slice_str(text)));
        cs_free(text);
    }
    return keep(c, &out);
}

const char *cs_cli_text(struct cs_cli *c, const json_t *object, const char *key)
{
    return cs_cli_value_text(c, json_object_get(object, key));
}

struct cs_slice cs_cli_raw(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_string(v) ? cs_slice(json_string_value(v), json_string_length(v))
                             : CS_SLICE_NULL;
}

bool cs_cli_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* Whether making it safe once more would change more than backslashes: then it was not safe. */
static bool already_safe(struct cs_cli *c, struct cs_slice text)
{
    struct cs_slice copy = cs_arena_dup(&c->arena, text);
    if (copy.p == NULL) {
        return false;
    }
    struct cs_buf b = cs_buf(CS_CLI_ARENA_MAX);
    cs_buf_add(&b, copy);
    for (size_t i = 0; i < b.len; i++) {
        b.p[i] = b.p[i] == '\\' ? '/' : b.p[i];
    }
    bool safe =
        !b.bad && cs_slice_eq(cs_sanitise(cs_buf_slice(&b), true, &c->arena), cs_buf_slice(&b));
    cs_buf_done(&b);
    return safe;
}

void cs_cli_print_lines(struct cs_cli *c, const char *margin, struct cs_slice text, bool shown)
{
    struct cs_slice safe =
        shown && already_safe(c, text) ? text : cs_sanitise(text, true, &c->arena);
    if (text.n > 0 && safe.n == 0) {
        printf("%s%s\n", margin, no_memory);
    }
    while (safe.n > 0) {
        size_t n = cs_slice_find(safe, '\n');
        printf("%s%.*s\n", margin, CS_SLICE_FMT(cs_slice_head(safe, n)));
        safe = cs_slice_from(safe, n + 1);
    }
}

const char *cs_cli_chain(struct cs_cli *c, const json_t *chain)
{
    struct cs_buf out = cs_buf(64 * 1024);
    for (size_t i = json_array_size(chain); i > 0; i--) {
        const json_t *p = json_array_get(chain, i - 1);
        const char *name = cs_cli_text(c, p, "name");
        cs_buf_printf(&out, "%s%s %s", out.len > 0 ? " on behalf of " : "",
                      cs_cli_text(c, p, "kind"), name[0] != 0 ? name : cs_cli_text(c, p, "id"));
    }
    return keep(c, &out);
}

bool cs_cli_is(const char *text, const char *word)
{
    return strcmp(text, word) == 0;
}

/* ---- times ---- */
bool cs_cli_time(struct cs_slice text, uint64_t *ret_ms)
{
    char z[40];
    struct tm tm = {0};
    uint64_t ms = 0;
    if (text.n >= sizeof z || text.n < 20) {
        return false;
    }
    memcpy(z, text.p, text.n);
    z[text.n] = 0;
    const char *rest = strptime(z, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest == NULL) {
        return false;
    }
    struct cs_slice tail = cs_slice_str(rest);
    if (tail.n > 1 && tail.p[0] == '.') {
        struct cs_slice digits = cs_slice(tail.p + 1, tail.n - 2);
        if (digits.n != 3 || !cs_slice_to_u64(digits, &ms)) {
            return false;
        }
        tail = cs_slice_from(tail, 4);
    }
    time_t at = timegm(&tm);
    if (!cs_slice_eq_str(tail, "Z") || at < 0) {
        return false;
    }
    *ret_ms = (uint64_t)at * 1000 + ms;
    return true;
}

const char *cs_cli_span(struct cs_cli *c, uint64_t ms)
{
    static const struct {
        uint64_t below, unit;
        const char *name;
    } table[] = {{1000, 1, "ms"},
                 {120 * 1000ULL, 1000, "s"},
                 {120 * 60000ULL, 60000, "min"},
                 {48 * 3600000ULL, 3600000, "h"},
                 {UINT64_MAX, 86400000, "d"}};
    struct cs_buf out = cs_buf(64);
    size_t i = 0;
    while (ms >= table[i].below && i + 1 < CS_ARRAY_LEN(table)) {
        i++;
    }
    cs_buf_printf(&out, "%llu %s", (unsigned long long)(ms / table[i].unit), table[i].name);
    return keep(c, &out);
}

const char *cs_cli_when(struct cs_cli *c, const json_t *object, const char *key)
{
    uint64_t at, now = cs_wall_ms();
    if (!cs_cli_time(cs_cli_raw(object, key), &at)) {
        return cs_cli_text(c, object, key);
    }
    struct cs_buf out = cs_buf(64);
    if (at >= now) {
        cs_buf_printf(&out, "in %s", cs_cli_span(c, at - now));
    } else {
        cs_buf_printf(&out, "%s ago", cs_cli_span(c, now - at));
    }
    return keep(c, &out);
}

/* ---- JSON ---- */
int cs_cli_print_json(const json_t *value)
{
    char *text = json_dumps(value, JSON_ENSURE_ASCII | JSON_INDENT(2) | JSON_ENCODE_ANY);
    if (text == NULL) {
        return CS_CLI_FAILED;
    }
    for (const char *p = text; *p != 0; p++) {
        if (*p == 0x7f) { /* the one control byte that JSON lets pass, only ever inside a string */
            (void)fputs("\\u007f", stdout);
        } else {
            (void)fputc(*p, stdout);
        }
    }
    (void)fputc('\n', stdout);
    cs_free(text);
    return CS_CLI_OK;
}

/* ---- tables ---- */
void cs_cli_table_row(struct cs_cli_table *t, const char *const *cells)
{
    if (t->rows == t->cap) {
        size_t cap = t->cap > 0 ? t->cap * 2 : 32;
        const char **p = cs_realloc(t->cells, cap * t->columns * sizeof *p);
        if (p == NULL) {
            return;
        }
        t->cells = p;
        t->cap = cap;
    }
    memcpy(t->cells + t->rows * t->columns, cells, t->columns * sizeof *cells);
    t->rows++;
}

/* Characters, not bytes: names may be in any script. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; *s != 0; s++) {
        n += ((unsigned char)*s & 0xc0) != 0x80;
    }
    return n;
}

static void print_row(const struct cs_cli_table *t, const char *const *cells, const size_t *w)
{
    for (size_t i = 0; i < t->columns; i++) {
        bool last = i + 1 == t->columns;
        size_t pad = last || w[i] < width(cells[i]) ? 0 : w[i] - width(cells[i]) + 2;
        printf("%s%*s", cells[i], (int)pad, "");
    }
    printf("\n");
}

void cs_cli_table_print(struct cs_cli *c, struct cs_cli_table *t, const char *empty)
{
    size_t w[CS_CLI_COLUMNS] = {0};
    if (t->rows == 0) {
        printf("%s\n", empty);
    } else {
        for (size_t i = 0; i < t->columns; i++) {
            w[i] = width(t->titles[i]);
            for (size_t r = 0; r < t->rows; r++) {
                w[i] = CS_MAX(w[i], width(t->cells[r * t->columns + i]));
            }
        }
        printf("%s", cs_cli_paint(c, CS_CLI_BOLD));
        print_row(t, t->titles, w);
        printf("%s", cs_cli_paint(c, CS_CLI_PLAIN));
        for (size_t r = 0; r < t->rows; r++) {
            print_row(t, t->cells + r * t->columns, w);
        }
    }
    cs_free(t->cells);
    t->cells = NULL;
    t->rows = t->cap = 0;
}

const char *cs_cli_cut(struct cs_cli *c, const char *text, size_t n)
{
    if (width(text) <= n) {
        return text;
    }
    size_t bytes = 0, chars = 0;
    while (chars + 1 < n || ((unsigned char)text[bytes] & 0xc0) == 0x80) {
        chars += ((unsigned char)text[bytes] & 0xc0) != 0x80;
        bytes++;
    }
    struct cs_buf out = cs_buf(CS_CLI_ARENA_MAX);
    cs_buf_add(&out, cs_slice(text, bytes));
    cs_buf_str(&out, "…");
    return keep(c, &out);
}

const char *cs_cli_paint(const struct cs_cli *c, enum cs_cli_colour colour)
{
    static const char *const codes[] = {
        [CS_CLI_PLAIN] = "\x1b[0m",  [CS_CLI_BOLD] = "\x1b[1m",    [CS_CLI_RED] = "\x1b[31m",
        [CS_CLI_GREEN] = "\x1b[32m", [CS_CLI_YELLOW] = "\x1b[33m", [CS_CLI_DIM] = "\x1b[2m"};
    return c->colour ? codes[colour] : "";
}
