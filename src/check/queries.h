/* Pieces of the queries of checks.def. Constant text: nothing from a client or the configuration is
 * ever part of it. The roles come as parameters, $1 the everyday one and $2 the elevated one ("" =
 * none); every query gives one column of text, or the three of CS_CHECK_RIGHTS. In a
 * fixed order, because only the first rows are taken. */
#ifndef CS_CHECK_QUERIES_H
#define CS_CHECK_QUERIES_H

#include "check/functions.h"

enum { CS_CHECK_ROWS_MAX = 200 }; /* of one answer */

/* clang-format off */
#define CS_CHECK_ME "WITH me AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = $1::text) "
/* The role that asks, where it is not the everyday one. */
#define CS_CHECK_LOOKING                                                                           \
    "WITH looking AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = session_user AND rolname " \
    "<> $1::text) "
#define CS_CHECK_BOSS "WITH boss AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = $2::text) "
/* The role and all that it is a member of, SET ROLE included. Empty for a superuser: that it may do
 * everything is one finding, not sixty. */
#define CS_CHECK_REACH                                                                             \
    "WITH me AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = $1::text), "                    \
    "reach AS (SELECT m.oid, m.rolname FROM pg_catalog.pg_roles m, me "                            \
    "WHERE NOT me.rolsuper AND pg_has_role(me.oid, m.oid, 'MEMBER')) "
/* Through which role, where it is not its own. */
#define CS_CHECK_AS                                                                                \
    "CASE WHEN reach.rolname <> $1::text THEN ', as ' || quote_ident(reach.rolname) END"
#define CS_CHECK_BOSS_REACH                                                                        \
    "WITH boss AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = $2::text), "                  \
    "reach AS (SELECT m.oid, m.rolname FROM pg_catalog.pg_roles m, boss "                          \
    "WHERE NOT boss.rolsuper AND pg_has_role(boss.oid, m.oid, 'MEMBER')) "
#define CS_CHECK_OURS(n)                                                                           \
    n ".nspname <> 'information_schema' AND left(" n ".nspname, 3) <> 'pg_' "
#define CS_CHECK_CALLABLE                                                                          \
    "EXISTS (SELECT FROM reach WHERE has_schema_privilege(reach.oid, n.oid, 'USAGE')) AND "        \
    "EXISTS (SELECT FROM reach WHERE has_function_privilege(reach.oid, p.oid, 'EXECUTE')) "
#define CS_CHECK_FUNCTION_NAMED(condition)                                                         \
    CS_CHECK_REACH "SELECT DISTINCT format('%I.%I', n.nspname, p.proname) FROM pg_proc p "         \
    "JOIN pg_namespace n ON n.oid = p.pronamespace WHERE " condition " AND " CS_CHECK_CALLABLE     \
    "ORDER BY 1"
#define CS_CHECK_DEFINER(condition)                                                                \
    CS_CHECK_REACH "SELECT format('%I.%I(%s), owner %I%s', n.nspname, p.proname, "                 \
    "pg_get_function_identity_arguments(p.oid), o.rolname, CASE WHEN NOT EXISTS "                  \
    "(SELECT FROM unnest(p.proconfig) x WHERE left(x, 12) = 'search_path=') "                      \
    "THEN ', takes the caller''s search_path' END) FROM pg_proc p "                                \
    "JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner "         \
    "WHERE p.prosecdef AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) "    \
    "AND p.proowner NOT IN (SELECT oid FROM reach) AND " condition " AND " CS_CHECK_CALLABLE       \
    "ORDER BY 1"
/* A right of a member of reach, on the table or on some column of it. */
#define CS_CHECK_RIGHT(word)                                                                       \
    "CASE WHEN bool_or(has_table_privilege(reach.oid, c.oid, '" word "')) THEN '" word "' END"
#define CS_CHECK_COLUMN_RIGHT(word)                                                                \
    "CASE WHEN bool_or(has_any_column_privilege(reach.oid, c.oid, '" word "')) THEN '" word "' END"
/* Roles that can do more than their name says to anybody who has not read the manual. */
#define CS_CHECK_POWERS                                                                            \
    "'pg_execute_server_program','pg_write_server_files','pg_read_server_files',"                  \
    "'pg_write_all_data','pg_signal_backend','pg_signal_autovacuum_worker','pg_maintain',"         \
    "'pg_checkpoint','pg_create_subscription','rds_superuser','rds_replication','rds_password',"   \
    "'rdsadmin','cloudsqlsuperuser','cloudsqlreplica','alloydbsuperuser','azure_pg_admin',"        \
    "'azuresu','supabase_admin','neon_superuser','doadmin'"
/* Lines of pg_hba.conf that can let one of the two roles in over the network. */
#define CS_CHECK_HBA(condition)                                                                    \
    "SELECT format('line %s: %s %s %s', line_number, type, array_to_string(user_name, ','), "      \
    "concat_ws(' ', concat_ws('/', address, netmask), auth_method)) FROM pg_hba_file_rules "       \
    "WHERE error IS NULL AND left(type, 4) = 'host' AND auth_method <> 'reject' "                  \
    "AND user_name && ARRAY['all', $1::text, nullif($2::text, '')] "                               \
    "AND database && ARRAY['all', current_database()::text] AND (" condition ") "                  \
    "ORDER BY line_number"
/* clang-format on */

#endif
