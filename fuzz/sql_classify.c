/* The classifier: a verdict for every input, never an empty one, unparsed is opaque, the same for
 * the same bytes, and never lower for a comment more. */
#include "base/attr.h"
#include "base/limits.h"
#include "sql/catalogue.h"
#include "sql/classify.h"
#include "sql/sql.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t changes = CS_SQL_WRITE | CS_SQL_DDL | CS_SQL_ADMIN;

static void check(bool property)
{
    if (!property) {
        abort();
    }
}

/* Reads every byte: a slice that points nowhere is found by the sanitizer. */
static unsigned sum(const struct cs_slice *v, size_t n)
{
    unsigned s = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < v[i].n; k++) {
            s += v[i].p[k];
        }
    }
    return s;
}

static unsigned check_class(const struct cs_sql_class *c, size_t size)
{
    uint8_t all = 0;
    unsigned s = sum(c->reads, c->n_reads) + sum(c->writes, c->n_writes);
    s += sum(c->strangers, c->n_strangers);
    check(!c->by_strangers || ((c->effects & CS_SQL_OPAQUE) != 0 && c->n_strangers > 0));
    s += sum(c->functions, c->n_functions) + sum(c->effect_names, c->n_effects) + sum(&c->verb, 1);
    check(c->effects != 0 && c->effects < 64);
    check(c->n_effects == (size_t)__builtin_popcount(c->effects));
    check(c->parsed || c->effects == CS_SQL_OPAQUE);
    check(c->parsed || c->why[0] != '\0');
    check((c->effects & CS_SQL_OPAQUE) == 0 || (c->why[0] != '\0' && !c->writes_known));
    check(c->n_kept <= CS_SQL_STATEMENTS_KEPT && c->n_kept <= c->n_statements);
    check(c->n_reads + c->n_writes + c->n_functions + c->n_strangers <= CS_LIMIT_SQL_RELATIONS);
    check(!c->parsed || c->verb.n > 0);
    for (uint32_t i = 0; i < c->n_kept; i++) {
        const struct cs_sql_statement *st = &c->statements[i];
        check(st->effects != 0 && (st->effects & ~c->effects) == 0);
        check(st->offset <= size && st->length <= size - st->offset);
        check(st->inner_effects == 0 || st->kind == CS_SQL_PREPARE || st->kind == CS_SQL_EXECUTE);
        all |= st->effects;
        s += sum(&st->name, 1) + sum(&st->verb, 1);
    }
    check(c->n_kept == 0 || c->n_kept < c->n_statements || all == c->effects);
    /* What is changed is named, or it is said that it is not. */
    check((c->effects & changes) == 0 || c->n_writes > 0 || !c->writes_known);
    return s;
}

static void check_facts(const struct cs_sql *sql, const struct cs_sql_class *c,
                        struct cs_slice text)
{
    struct cs_facts f = {0};
    struct cs_sql_judged j;
    cs_sql_judge(c, NULL, false, &j);
    cs_sql_facts(sql, c, &j, text, &f);
    check(f.v[CS_FACT_SQL_EFFECTS].state == CS_FACT_KNOWN);
    check(f.v[CS_FACT_SQL_EFFECTS].u.strings.n > 0);
    check((c->effects & CS_SQL_OPAQUE) == 0 || f.v[CS_FACT_SQL_READS].state == CS_FACT_UNKNOWN);
}

static void check_comment(struct cs_sql *sql, struct cs_slice text, const struct cs_sql_class *c)
{
    static char longer[CS_LIMIT_SQL_INLINE_BYTES];
    static const char before[] = "/* c */ ";
    if (text.n > sizeof longer - sizeof before || text.n == 0) {
        return;
    }
    memcpy(longer, before, sizeof before - 1);
    memcpy(longer + sizeof before - 1, text.p, text.n);
    struct cs_sql_record *r =
        cs_sql_classify_fresh(sql, cs_slice(longer, text.n + sizeof before - 1), false);
    check((r->class.effects & CS_SQL_OPAQUE) != 0 || (c->effects & ~r->class.effects) == 0);
    cs_sql_record_unref(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cs_sql *sql;
    static volatile unsigned sink;
    if (sql == NULL) {
        check(cs_sql_new(&sql) == CS_OK);
    }
    struct cs_slice text = cs_slice(data, size);
    struct cs_sql_record *a = cs_sql_classify_fresh(sql, text, false);
    struct cs_sql_record *b = cs_sql_classify_fresh(sql, text, true);
    sink = check_class(&a->class, size);
    check(a->class.effects == b->class.effects && a->class.parsed == b->class.parsed);
    check(a->class.why == b->class.why && a->class.n_statements == b->class.n_statements);
    check(a->class.n_reads == b->class.n_reads && a->class.n_writes == b->class.n_writes);
    for (int i = 0; i < 3; i++) { /* missed, kept, found */
        const struct cs_sql_class *c = cs_sql_classify(sql, text);
        sink += check_class(c, size);
        check(c->effects == a->class.effects);
        cs_sql_release(sql, c);
    }
    check_facts(sql, &a->class, text);
    check_comment(sql, text, &a->class);
    cs_sql_record_unref(a);
    cs_sql_record_unref(b);
    return 0;
}
