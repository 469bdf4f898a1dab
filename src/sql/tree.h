/* PostgreSQL's raw parse tree and the few functions of libpg_query that are used. Seen by the files
 * of this folder only.
 *
 * The library keeps its globals thread-local, the server's headers do not know that: nothing here
 * may use PG_TRY, MemoryContextSwitchTo or palloc (linking would fail). An error that the library
 * raises outside its own handlers ends the process: so only the raw parse is called, which catches,
 * and never a function of PostgreSQL on a node. */
#ifndef CS_SQL_TREE_H
#define CS_SQL_TREE_H

#include "postgres.h"

#include "nodes/parsenodes.h"
#include "storage/lockdefs.h"

struct cs_pg_parse {
    List *tree;
    char *stderr_buffer;
    void *error;
};
/* The same, as the library's own function frees it. */
struct cs_pg_parse_result {
    char *tree;
    char *stderr_buffer;
    void *error;
};

struct cs_pg_parse pg_query_raw_parse(const char *input);
void pg_query_free_parse_result(struct cs_pg_parse_result result);
MemoryContext pg_query_enter_memory_context(void);
void pg_query_exit_memory_context(MemoryContext context);

#endif
