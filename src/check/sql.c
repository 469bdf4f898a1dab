/* `target sql`: the statements that make a target's roles well, from the configuration and its
 * rules. Called by control, for whoever may set up. It writes text for people to read and run; it
 * must never hold a password (psql asks for it, and the server gets a SCRAM verifier), and no name
 * in it without quotes. What a rule may need on some tables only, it leaves to the reader, as a
 * comment. */
#include "base/attr.h"
#include "check/functions.h"
#include "check/words.h"

#include <stdio.h>

struct writing {
    const struct cs_policy *policy;
    const struct cs_target *target;
    struct cs_buf *out;
    struct cs_check_names names;
    enum cs_tri may[CS_CHECK_RIGHTS_MAX];
    bool reads_only;
};

static void put(struct writing *w, const char *text)
{
    cs_check_fill(w->out, text, &w->names);
}

/* A block of PL/pgSQL. Its text is a string, not between dollars: a name may hold any dollar quote.
 */
static void put_block(struct writing *w, const char *text)
{
    struct cs_buf body = cs_buf(65536);
    cs_check_fill(&body, text, &w->names);
    cs_buf_str(w->out, "DO ");
    cs_check_literal(w->out, cs_buf_slice(&body));
    cs_buf_str(w->out, ";\n");
    w->out->bad = w->out->bad || body.bad;
    cs_buf_done(&body);
}

static void head(struct writing *w)
{
    put(w, "-- Roles of the target {target}, for the gateway alone.\n"
           "-- Read it, then run it with psql as a superuser in the database {database}. It can be "
           "run again.\n"
           "-- The passwords are asked for at the end and reach the server as SCRAM verifiers; "
           "tell the\n"
           "-- gateway the same ones with `countersign secret set`. Afterwards: countersign target "
           "check {target}\n"
           "\\set ON_ERROR_STOP on\n"
           "\\encoding UTF8\n"
           "SET standard_conforming_strings = on;\n"
           "SET search_path = pg_catalog, pg_temp;\n"
           "SET password_encryption = 'scram-sha-256';\n"
           "BEGIN;\n");
    put_block(w, "BEGIN\n"
                 "  IF current_database() <> {'database} THEN\n"
                 "    RAISE EXCEPTION 'this is for the database %, not %', {'database}, "
                 "current_database();\n"
                 "  END IF;\n"
                 "END");
}

static void create_role(struct writing *w, const char *text)
{
    put_block(w, text);
}

/* Who is a member of what is taken back whoever gave it: the role's rights are those written here.
 */
#define MEMBERSHIPS(role)                                                                          \
    "DECLARE g record;\n"                                                                          \
    "BEGIN\n"                                                                                      \
    "  FOR g IN SELECT r.rolname, b.rolname AS grantor FROM pg_auth_members a JOIN pg_roles r ON " \
    "r.oid = a.roleid\n"                                                                           \
    "      JOIN pg_roles m ON m.oid = a.member LEFT JOIN pg_roles b ON b.oid = a.grantor WHERE "   \
    "m.rolname = " role " LOOP\n"                                                                  \
    "    EXECUTE format('REVOKE %I FROM %I', g.rolname, " role ")\n"                               \
    "      || CASE WHEN current_setting('server_version_num')::int >= 160000 THEN "                \
    "format(' GRANTED BY %I', g.grantor) ELSE '' END;\n"                                           \
    "  END LOOP;\n"                                                                                \
    "END"

static void everyday(struct writing *w)
{
    put(w, "\n-- The everyday role: every session runs as this one.\n");
    create_role(w, "BEGIN\n"
                   "  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {'everyday}) THEN\n"
                   "    CREATE ROLE {everyday};\n"
                   "  END IF;\n"
                   "END");
    put(w, "ALTER ROLE {everyday} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE "
           "NOREPLICATION NOBYPASSRLS\n"
           "  CONNECTION LIMIT 100; -- no less than the sessions that you expect at once\n"
           "ALTER ROLE {everyday} RESET role;\n"
           "ALTER ROLE {everyday} IN DATABASE {database} RESET role;\n");
    put_block(w, MEMBERSHIPS("{'everyday}"));
    if (w->reads_only) {
        put(w, "-- No rule lets a change run as this role, so the server may refuse them as well.\n"
               "ALTER ROLE {everyday} IN DATABASE {database} SET default_transaction_read_only = "
               "on;\n");
    } else {
        put(w,
            "ALTER ROLE {everyday} IN DATABASE {database} RESET default_transaction_read_only;\n");
    }
}

static void elevated(struct writing *w)
{
    if (!w->target->has_elevated) {
        put(w, "\n-- The target has no elevated role. With `elevated` in the configuration, this "
               "prints how to make one.\n");
        return;
    }
    put(w,
        "\n-- The elevated role: runs what was approved, each time on a connection of its own.\n");
    create_role(w, "BEGIN\n"
                   "  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {'elevated}) THEN\n"
                   "    CREATE ROLE {elevated};\n"
                   "  END IF;\n"
                   "END");
    put(w, "ALTER ROLE {elevated} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION "
           "NOBYPASSRLS\n"
           "  CONNECTION LIMIT 20;\n"
           "ALTER ROLE {elevated} RESET role;\n"
           "ALTER ROLE {elevated} IN DATABASE {database} RESET role;\n"
           "REASSIGN OWNED BY {everyday} TO {elevated};\n");
    if (w->target->elevated_database.n > 0 &&
        !cs_slice_eq(w->target->elevated_database, w->target->database)) {
        put(w, "-- It works in another database than the everyday role: grant it there what it "
               "shall change.\n");
    }
}

static bool of_its_own(const struct writing *w)
{
    return w->target->has_probe && !cs_slice_eq(w->target->probe_user, w->target->user);
}

/* It sees definitions and sizes of everything without any right of its own. */
static void probe(struct writing *w)
{
    if (!of_its_own(w)) {
        return;
    }
    put(w, "\n-- The probe role: looks at definitions, sizes and plans. Plans are of what it could "
           "read itself:\n"
           "-- grant it SELECT where you want them.\n");
    create_role(w, "BEGIN\n"
                   "  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {'probe}) THEN\n"
                   "    CREATE ROLE {probe};\n"
                   "  END IF;\n"
                   "END");
    put(w, "ALTER ROLE {probe} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION "
           "NOBYPASSRLS\n"
           "  CONNECTION LIMIT 10;\n"
           "ALTER ROLE {probe} RESET role;\n"
           "ALTER ROLE {probe} IN DATABASE {database} RESET role;\n"
           "ALTER ROLE {probe} IN DATABASE {database} SET default_transaction_read_only = on;\n"
           "GRANT CONNECT ON DATABASE {database} TO {probe};\n");
    put_block(w, MEMBERSHIPS("{'probe}"));
}

static void database(struct writing *w)
{
    put(w, "\n-- Temporary tables come before all others of the same name: nobody gets to make "
           "them here by default.\n"
           "REVOKE CREATE, TEMPORARY ON DATABASE {database} FROM PUBLIC, {everyday};\n"
           "GRANT CONNECT ON DATABASE {database} TO {everyday};\n"
           "REVOKE CREATE ON SCHEMA public FROM PUBLIC, {everyday};\n");
    if (w->target->has_elevated) {
        put(w, "GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {elevated};\n");
    }
}

/* Every right that is in this state, with commas; how many. */
static size_t list_rights(struct writing *w, enum cs_tri state)
{
    size_t n = 0;
    for (size_t i = 0; i < CS_CHECK_RIGHTS_MAX; i++) {
        if (w->may[i] == state) {
            cs_buf_printf(w->out, "%s%s", n > 0 ? ", " : "", cs_check_right_name(i));
            n++;
        }
    }
    return n;
}

static bool any_right(const struct writing *w, enum cs_tri state)
{
    for (size_t i = 0; i < CS_CHECK_RIGHTS_MAX; i++) {
        if (w->may[i] == state) {
            return true;
        }
    }
    return false;
}

static void rights_on_tables(struct writing *w)
{
    put(w, "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {everyday};\n");
    if (any_right(w, CS_TRI_FALSE)) {
        put(w, "REVOKE ");
        (void)list_rights(w, CS_TRI_FALSE);
        put(w, " ON ALL TABLES IN SCHEMA {schema} FROM PUBLIC, {everyday};\n");
    }
    if (any_right(w, CS_TRI_TRUE)) {
        put(w, "GRANT ");
        (void)list_rights(w, CS_TRI_TRUE);
        put(w, " ON ALL TABLES IN SCHEMA {schema} TO {everyday};\n");
    }
    if (any_right(w, CS_TRI_UNKNOWN)) {
        put(w, "-- The rules let it do some of this, by conditions of their own. Grant it on those "
               "tables only:\n"
               "-- GRANT ");
        (void)list_rights(w, CS_TRI_UNKNOWN);
        put(w, " ON {schema}.... TO {everyday};\n");
    }
    if (w->reads_only) {
        put(w,
            "REVOKE USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} FROM PUBLIC, {everyday};\n");
    } else if (any_right(w, CS_TRI_TRUE)) {
        put(w, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {everyday};\n");
    }
}

static void rights_on_new_tables(struct writing *w)
{
    put(w, "ALTER DEFAULT PRIVILEGES FOR ROLE {elevated} IN SCHEMA {schema} GRANT SELECT ON TABLES "
           "TO {everyday};\n");
    if (any_right(w, CS_TRI_FALSE)) {
        put(w, "ALTER DEFAULT PRIVILEGES FOR ROLE {elevated} IN SCHEMA {schema} REVOKE ");
        (void)list_rights(w, CS_TRI_FALSE);
        put(w, " ON TABLES FROM PUBLIC, {everyday};\n");
    }
    if (any_right(w, CS_TRI_TRUE)) {
        put(w, "ALTER DEFAULT PRIVILEGES FOR ROLE {elevated} IN SCHEMA {schema} GRANT ");
        (void)list_rights(w, CS_TRI_TRUE);
        put(w, " ON TABLES TO {everyday};\n");
    }
}

/* What a superuser owns becomes the elevated role's; of other owners it becomes a member, so that
 * whoever works with them goes on doing so. */
static void ownership(struct writing *w)
{
    put(w, "GRANT USAGE, CREATE ON SCHEMA {schema} TO {elevated};\n");
    put_block(w, "DECLARE t record;\n"
                 "BEGIN\n"
                 "  FOR t IN SELECT n.nspname, c.relname, o.rolname, o.rolsuper, o.rolcreaterole "
                 "OR o.rolbypassrls OR o.rolreplication AS strong\n"
                 "      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN "
                 "pg_roles o ON o.oid = c.relowner\n"
                 "      WHERE n.nspname = {'schema} AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND "
                 "NOT pg_has_role({'elevated}, o.oid, 'MEMBER')\n"
                 "      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = "
                 "'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') LOOP\n"
                 "    IF t.rolsuper THEN\n"
                 "      EXECUTE format('ALTER TABLE %I.%I OWNER TO %I', t.nspname, t.relname, "
                 "{'elevated});\n"
                 "    ELSIF t.strong THEN\n"
                 "      RAISE WARNING 'the owner of %.% is no role to be a member of: give it "
                 "another one', t.nspname, t.relname;\n"
                 "    ELSE\n"
                 "      EXECUTE format('GRANT %I TO %I', t.rolname, {'elevated});\n"
                 "    END IF;\n"
                 "  END LOOP;\n"
                 "END");
}

static void schema(struct writing *w, struct cs_slice name)
{
    w->names.schema = name;
    put(w, "\n-- Schema {schema}\n"
           "REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {everyday};\n"
           "GRANT USAGE ON SCHEMA {schema} TO {everyday};\n");
    if (w->target->has_elevated) {
        ownership(w);
    }
    rights_on_tables(w);
    if (w->target->has_elevated) {
        rights_on_new_tables(w);
    }
}

static void functions(struct writing *w)
{
    put(w, "\n-- Functions that reach files, other servers or other sessions, or run a text as "
           "SQL. Other roles that\n"
           "-- need one get it by GRANT EXECUTE.\n");
    put_block(
        w, "DECLARE f record;\n"
           "BEGIN\n"
           "  FOR f IN SELECT p.oid::regprocedure AS name FROM pg_proc p JOIN pg_namespace n ON "
           "n.oid = p.pronamespace\n"
           "      WHERE p.prokind IN ('f', 'w', 'a') AND (p.proname IN (" CS_CHECK_FUNCTIONS_SERVER
           ",\n"
           "      " CS_CHECK_FUNCTIONS_WRITE ",\n"
           "      " CS_CHECK_FUNCTIONS_TEXT ") OR left(p.proname, 6) = 'dblink'\n"
           "      OR n.nspname || '.' || p.proname IN (" CS_CHECK_FUNCTIONS_ELSEWHERE ")) LOOP\n"
           "    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC, %I', f.name, "
           "{'everyday});\n"
           "  END LOOP;\n"
           "END");
    if (w->target->has_elevated) {
        put(w, "-- Functions made from now on: nobody calls them until it is granted, least of all "
               "SECURITY DEFINER ones.\n"
               "ALTER DEFAULT PRIVILEGES FOR ROLE {elevated} REVOKE EXECUTE ON FUNCTIONS FROM "
               "PUBLIC;\n");
    }
}

static void tail(struct writing *w)
{
    bool tls = !cs_slice_eq_str(w->target->tls, "off");
    put(w, "\nCOMMIT;\n\n-- Passwords, without anybody seeing them. Leave out what has one that "
           "the gateway knows.\n"
           "\\password {everyday}\n");
    if (w->target->has_elevated) {
        put(w, "\\password {elevated}\n");
    }
    if (of_its_own(w)) {
        put(w, "\\password {probe}\n");
    }
    put(w, "\n-- pg_hba.conf, above every other line that could fit. GATEWAY is the gateway's own "
           "address.\n");
    cs_buf_str(w->out, tls ? "--   hostssl " : "--   host    ");
    put(w, "{database}  {everyday}  GATEWAY/32  scram-sha-256\n");
    if (w->target->has_elevated) {
        struct cs_slice db = w->names.database;
        w->names.database = w->target->elevated_database.n > 0 ? w->target->elevated_database : db;
        cs_buf_str(w->out, tls ? "--   hostssl " : "--   host    ");
        put(w, "{database}  {elevated}  GATEWAY/32  scram-sha-256\n");
        w->names.database = db;
    }
    if (of_its_own(w)) {
        cs_buf_str(w->out, tls ? "--   hostssl " : "--   host    ");
        put(w, "{database}  {probe}  GATEWAY/32  scram-sha-256\n");
    }
    put(w, "--   host     all  {everyday}  all  reject\n");
    if (w->target->has_elevated) {
        put(w, "--   host     all  {elevated}  all  reject\n");
    }
    if (of_its_own(w)) {
        put(w, "--   host     all  {probe}  all  reject\n");
    }
    put(w, "-- then: SELECT pg_reload_conf();\n");
}

static enum cs_err refuse(char *why, size_t why_size, const char *what, struct cs_slice name)
{
    (void)snprintf(
        why, why_size,
        "the name of the %s, \"%.*s\", cannot be written: 1 to %d bytes of UTF-8 without "
        "control characters",
        what, CS_SLICE_FMT(cs_slice_head(name, 100)), CS_CHECK_NAME_MAX);
    return CS_ERR_INVALID;
}

static enum cs_err check_names(const struct writing *w, const struct cs_slice *schemas, size_t n,
                               char *why, size_t why_size)
{
    const struct cs_target *t = w->target;
    if (!cs_check_name_writable(t->user)) {
        return refuse(why, why_size, "everyday role", t->user);
    }
    if (!cs_check_name_writable(t->database)) {
        return refuse(why, why_size, "database", t->database);
    }
    if (t->has_elevated && !cs_check_name_writable(t->elevated_user)) {
        return refuse(why, why_size, "elevated role", t->elevated_user);
    }
    if (t->has_probe && !cs_check_name_writable(t->probe_user)) {
        return refuse(why, why_size, "probe role", t->probe_user);
    }
    if (t->elevated_database.n > 0 && !cs_check_name_writable(t->elevated_database)) {
        return refuse(why, why_size, "elevated role's database", t->elevated_database);
    }
    for (size_t i = 0; i < n; i++) {
        if (!cs_check_name_writable(schemas[i])) {
            return refuse(why, why_size, "schema", schemas[i]);
        }
    }
    if (t->has_elevated && cs_slice_eq(t->user, t->elevated_user)) {
        (void)snprintf(why, why_size,
                       "\"elevated\" is the same role as \"credential\": name another one in the "
                       "configuration, and reload it");
        return CS_ERR_INVALID;
    }
    return CS_OK;
}

enum cs_err cs_check_sql(const struct cs_policy *policy, const struct cs_target *target,
                         const struct cs_slice *schemas, size_t n_schemas, struct cs_buf *out,
                         char *why, size_t why_size)
{
    static const struct cs_slice public = {(const uint8_t *)"public", 6};
    struct writing w = {.policy = policy,
                        .target = target,
                        .out = out,
                        .names = {.everyday = target->user,
                                  .elevated = target->elevated_user,
                                  .probe = target->probe_user,
                                  .database = target->database,
                                  .target = target->name},
                        .reads_only = cs_check_reads_only(policy, target)};
    enum cs_err e = check_names(&w, schemas, n_schemas, why, why_size);
    if (e != CS_OK) {
        return e;
    }
    for (size_t i = 0; i < CS_CHECK_RIGHTS_MAX; i++) {
        w.may[i] = cs_check_right(policy, target, cs_slice_str(cs_check_right_name(i)),
                                  CS_SLICE_NULL, CS_SLICE_NULL);
    }
    head(&w);
    everyday(&w);
    elevated(&w);
    probe(&w);
    database(&w);
    for (size_t i = 0; i < CS_MAX(n_schemas, (size_t)1); i++) {
        schema(&w, n_schemas > 0 ? schemas[i] : public);
    }
    functions(&w);
    tail(&w);
    return out->bad ? CS_ERR_NO_MEMORY : CS_OK;
}
