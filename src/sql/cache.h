/* The cache of class records, keyed by the bytes of the text. */
#ifndef CS_SQL_CACHE_H
#define CS_SQL_CACHE_H

#include "base/err.h"
#include "sql/record.h"

struct cs_sql_cache;

enum cs_err cs_sql_cache_new(struct cs_sql_cache **ret) CS_MUST_CHECK;
void cs_sql_cache_free(struct cs_sql_cache *c);
/* Borrowed; NULL when it is not there. `ret_hash` is for cs_sql_cache_add. */
struct cs_sql_record *cs_sql_cache_find(struct cs_sql_cache *c, struct cs_slice text,
                                        uint64_t *ret_hash);
/* Whether a text that was not found is worth keeping: when it comes for the second time. Most texts
 * with literals in them come once; keeping those would only drive out the others. */
bool cs_sql_cache_wants(struct cs_sql_cache *c, uint64_t hash);
/* Takes a reference of its own. The record holds its text; there is none for the text yet. */
void cs_sql_cache_add(struct cs_sql_cache *c, struct cs_sql_record *r, uint64_t hash);

#endif
