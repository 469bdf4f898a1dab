/* The tables of queries: constants, one table for each kind of task. What control's evaluation
 * makes of the answers is not known here. */
#include "probe/probe.h"

#include "check/queries.h"

/* Rows of the .def files: name of the table in the result, at most so many rows, the
 * server_version_num that it needs (0: any), the text. */
#define CS_PROBE_QUERY(name, max_rows, since, sql) {name, sql, max_rows, since},

static const struct cs_probe_query check[] = {
#include "probe/check.def"
#define CS_CHECK(ID, id, severity, how, title, means, fix, query) {id, query, CS_CHECK_ROWS_MAX, 0},
#define CS_CHECK_LOCAL(ID, id, severity, title, means, fix)
#include "check/checks.def"
};

static const struct cs_probe_query catalogue[] = {
#include "probe/catalogue.def"
};

static const struct cs_probe_query impact[] = {
#include "probe/impact.def"
};

size_t cs_probe_queries(uint64_t kind, const struct cs_probe_query **ret)
{
    switch (kind) {
    case CS_PROBE_IMPACT:
        *ret = impact;
        return CS_ARRAY_LEN(impact);
    case CS_PROBE_CATALOGUE:
        *ret = catalogue;
        return CS_ARRAY_LEN(catalogue);
    case CS_PROBE_CHECK:
        *ret = check;
        return CS_ARRAY_LEN(check);
    default:
        return 0;
    }
}
