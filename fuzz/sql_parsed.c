/* What job-parser may say of a text (sql/parsed.h): refused, or a record that holds together, and
 * says the same when it is written again. The first four bytes are the length of the text. */
#include "base/limits.h"
#include "base/reader.h"
#include "sql/parsed.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool property)
{
    if (!property) {
        abort();
    }
}

static void check_class(const struct cs_sql_class *c, size_t text_n)
{
    check(c->effects != 0 && c->effects < 64);
    check(c->parsed || ((c->effects & CS_SQL_OPAQUE) != 0 && c->n_statements == 0));
    check((c->effects & CS_SQL_OPAQUE) == 0 || !c->writes_known);
    check(!c->by_strangers || c->n_strangers > 0);
    check(c->n_kept <= CS_SQL_STATEMENTS_KEPT && c->n_kept <= c->n_statements);
    check(c->n_reads + c->n_writes + c->n_functions + c->n_strangers <= CS_LIMIT_SQL_RELATIONS);
    for (uint32_t i = 0; i < c->n_kept; i++) {
        const struct cs_sql_statement *st = &c->statements[i];
        check(st->effects != 0 && (st->effects & ~c->effects) == 0);
        check(st->offset <= text_n && st->length <= text_n - st->offset);
    }
    for (size_t i = 0; i < c->n_secrets; i++) {
        check(c->secrets[i].how == CS_REDACT_WHOLE || c->secrets[i].at <= text_n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cs_sql *sql;
    if (sql == NULL) {
        check(cs_sql_new(&sql) == CS_OK);
    }
    struct cs_reader r = cs_reader(cs_slice(data, size));
    size_t text_n = cs_reader_u32le(&r);
    struct cs_slice in = cs_reader_rest(&r);
    const struct cs_sql_class *c = cs_sql_class_read(sql, in, text_n);
    if (c == NULL) {
        return 0;
    }
    check_class(c, text_n);
    struct cs_buf b = cs_buf(SIZE_MAX / 2);
    cs_sql_class_write(&b, c, text_n);
    const struct cs_sql_class *again = cs_sql_class_read(sql, cs_buf_slice(&b), text_n);
    check(again != NULL && again->effects == c->effects && again->n_kept == c->n_kept);
    check(again->secret_params == c->secret_params);
    check(again->by_strangers == c->by_strangers && again->writes_known == c->writes_known);
    for (uint32_t i = 0; i < c->n_kept; i++) {
        check(again->statements[i].analysed == c->statements[i].analysed);
        check(again->statements[i].binary == c->statements[i].binary);
    }
    cs_sql_release(sql, again);
    cs_sql_release(sql, c);
    cs_buf_done(&b);
    return 0;
}
