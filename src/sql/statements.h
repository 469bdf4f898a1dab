/* Between the table of statements (statements.c) and those that define something (definitions.c).
 */
#ifndef CS_SQL_STATEMENTS_H
#define CS_SQL_STATEMENTS_H

#include "sql/walk.h"

enum {
    S = CS_SQL_SESSION,
    R = CS_SQL_READ,
    W = CS_SQL_WRITE,
    D = CS_SQL_DDL,
    A = CS_SQL_ADMIN,
    O = CS_SQL_OPAQUE,
};

/* Does the visiting itself. `top` is NULL unless this is a statement of the message. */
typedef void cs_sql_handle_fn(struct cs_sql_walk *w, const void *node,
                              struct cs_sql_statement *top);

/* ---- definitions.c ---- */
cs_sql_handle_fn cs_sql_do_drop, cs_sql_do_object, cs_sql_do_alter_table, cs_sql_do_rename,
    cs_sql_do_schema_of, cs_sql_do_depends, cs_sql_do_owner, cs_sql_do_create_as, cs_sql_do_vacuum,
    cs_sql_do_define, cs_sql_do_create_function, cs_sql_do_grant, cs_sql_do_grant_role;

/* A verb that only the statement's fields tell. */
static inline void cs_sql_verb(struct cs_sql_statement *top, const char *name)
{
    if (top != NULL) {
        top->verb = cs_slice_str(name);
    }
}

#endif
