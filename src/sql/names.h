/* What is built in: functions, types and operators of pg_catalog, by name. */
#ifndef CS_SQL_NAMES_H
#define CS_SQL_NAMES_H

#include "base/err.h"
#include "base/slice.h"

/* A bit beside the effects: set_config, which is judged by its arguments like SET. */
enum { CS_SQL_FN_SET_CONFIG = 1 << 7 };

struct cs_sql_names;

enum cs_err cs_sql_names_new(struct cs_sql_names **ret) CS_MUST_CHECK;
void cs_sql_names_free(struct cs_sql_names *n);
/* Effects (cs_sql_effect) of calling it; CS_SQL_OPAQUE when it is not on the list. */
uint8_t cs_sql_names_function(const struct cs_sql_names *n, const char *name);
bool cs_sql_names_type(const struct cs_sql_names *n, const char *name);
bool cs_sql_names_operator(const struct cs_sql_names *n, const char *name);

#endif
