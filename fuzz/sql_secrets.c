/* Passwords in texts: whatever the text, the spans are in order and inside it; and what stands in
 * the place of a password, as a constant of any form, is gone from what leaves the gate. */
#include "base/limits.h"
#include "sql/sql.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t key[CS_REDACT_KEY] = {7};

static void check(bool property)
{
    if (!property) {
        abort();
    }
}

static void look(struct cs_sql *sql, struct cs_slice text, struct cs_buf *out)
{
    const struct cs_sql_class *c = cs_sql_classify(sql, text);
    size_t end = 0;
    for (size_t i = 0; i < c->n_secrets; i++) {
        const struct cs_redact_span *s = &c->secrets[i];
        check((c->n_secrets == 1 && s->how == CS_REDACT_WHOLE) ||
              (s->at >= end && s->at <= text.n && s->n <= text.n - s->at));
        end = (size_t)s->at + s->n;
    }
    if (c->n_secrets > 0) {
        cs_redact(text, c->secrets, c->n_secrets, key, out);
    }
    cs_sql_release(sql, c);
}

/* A value that came as a parameter: spans in order and inside it. */
static void look_into(struct cs_slice value)
{
    struct cs_redact_span spans[CS_REDACT_SPANS];
    size_t end = 0, n = cs_sql_value_secrets(value, spans);
    check(n <= CS_REDACT_SPANS);
    check(n == 0 || cs_sql_value_marked(value));
    for (size_t i = 0; i < n; i++) {
        check(spans[i].how != CS_REDACT_WHOLE && spans[i].at >= end && spans[i].at <= value.n &&
              spans[i].n <= value.n - spans[i].at);
        end = (size_t)spans[i].at + spans[i].n;
    }
}

static bool within(struct cs_slice s, const char *word)
{
    return memmem(s.p, s.n, word, strlen(word)) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_sql *sql = NULL;
    if (size > 4096) {
        return 0;
    }
    check(cs_sql_new(&sql) == CS_OK);
    struct cs_buf out = cs_buf(1 << 20), made = cs_buf(1 << 20);
    look(sql, cs_slice(data, size), &out);
    cs_buf_done(&out);
    look_into(cs_slice(data, size));
    /* Whatever stands before and behind the statement, as long as it does not make a string or a
     * comment of it. */
    cs_buf_add(&made, cs_slice(data, size / 2));
    cs_buf_str(&made, ";ALTER ROLE a PASSWORD 'hunter2';");
    cs_buf_add(&made, cs_slice(data + size / 2, size - size / 2));
    out = cs_buf(1 << 20);
    look(sql, cs_buf_slice(&made), &out);
    check(out.len > 0);
    bool plain = true;
    for (size_t i = 0; i < size / 2; i++) {
        plain = plain && strchr("'\"$/-", data[i]) == NULL;
    }
    check(!plain || !within(cs_buf_slice(&out), "hunter2'"));
    cs_buf_done(&out);
    /* By its place in the tree, behind a text that is parsed with it. */
    made.len = 0;
    cs_buf_add(&made, cs_slice(data, size));
    cs_buf_str(&made, "\n;UPDATE a SET password = 'hunter2' WHERE b = crypt('hunter2', b)");
    const struct cs_sql_class *c = cs_sql_classify(sql, cs_buf_slice(&made));
    bool parsed = c->parsed;
    cs_sql_release(sql, c);
    out = cs_buf(1 << 20);
    look(sql, cs_buf_slice(&made), &out);
    check(!parsed || !within(cs_buf_slice(&out), " = 'hunter2' WHERE b = crypt("));
    cs_buf_done(&out);
    cs_buf_done(&made);
    cs_sql_free(sql);
    return 0;
}
