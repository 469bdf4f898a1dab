/* Inside of the classifier, for tests and measurements. */
#ifndef CS_SQL_CLASSIFY_H
#define CS_SQL_CLASSIFY_H

#include "sql/record.h"

struct cs_sql;

/* Parses and walks without a look at the cache. One reference for the caller. */
struct cs_sql_record *cs_sql_classify_fresh(struct cs_sql *sql, struct cs_slice text,
                                            bool keep_text);

/* Where a record is put together; any earlier one is complete by then. */
struct cs_sql_build *cs_sql_build_of(struct cs_sql *sql);
/* What was put together there, as a class with one reference for the caller. */
const struct cs_sql_class *cs_sql_record_class(const struct cs_sql_build *b);

/* The same for this text, which the cache keeps when it comes for the second time. */
const struct cs_sql_class *cs_sql_record_class_of(struct cs_sql *sql, struct cs_slice text);

#endif
