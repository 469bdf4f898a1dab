/* Inside of the classifier, for tests and measurements. */
#ifndef CS_SQL_CLASSIFY_H
#define CS_SQL_CLASSIFY_H

#include "sql/record.h"

struct cs_sql;

/* Parses and walks without a look at the cache. One reference for the caller. */
struct cs_sql_record *cs_sql_classify_fresh(struct cs_sql *sql, struct cs_slice text,
                                            bool keep_text);

#endif
