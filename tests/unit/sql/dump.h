/* A class as one line: "effects | verb | reads | writes | functions", for the golden corpus. */
#ifndef CS_SQL_DUMP_H
#define CS_SQL_DUMP_H

#include "sql/sql.h"

static inline size_t dump_add(char *to, size_t n, size_t max, struct cs_slice s)
{
    size_t take = s.n < max - n ? s.n : max - n;
    if (take > 0) {
        memcpy(to + n, s.p, take);
    }
    return n + take;
}

static inline size_t dump_list(char *to, size_t n, size_t max, const struct cs_slice *v, size_t k)
{
    n = dump_add(to, n, max, cs_slice_str(" | "));
    for (size_t i = 0; i < k; i++) {
        n = dump_add(to, n, max, cs_slice_str(i > 0 ? "," : ""));
        n = dump_add(to, n, max, v[i]);
    }
    return n;
}

static inline struct cs_slice dump_class(const struct cs_sql_class *c, char *to, size_t max)
{
    size_t n = dump_list(to, 0, max, c->effect_names, c->n_effects);
    n = dump_add(to, n, max, cs_slice_str(" | "));
    n = dump_add(to, n, max, c->parsed ? c->verb : cs_slice_str("-"));
    n = dump_list(to, n, max, c->reads, c->n_reads);
    n = dump_list(to, n, max, c->writes, c->n_writes);
    n = dump_list(to, n, max, c->functions, c->n_functions);
    return cs_slice(to + 3, n - 3);
}

#endif
