#include "sql/sql.h"
#include "tap.h"

static bool frees(const char *name, const char *value)
{
    struct cs_slice v = value != NULL ? cs_slice_str(value) : CS_SLICE_NULL;
    return cs_sql_guc_judge(cs_slice_str(name), v) == CS_SQL_GUC_FREE;
}

CS_TEST(guc_lets_harmless_settings_pass)
{
    CS_CHECK(frees("application_name", "psql"));
    CS_CHECK(frees("Application_Name", ""));
    CS_CHECK(frees("DateStyle", "ISO, MDY"));
    CS_CHECK(frees("TimeZone", NULL));
    CS_CHECK(frees("extra_float_digits", "3"));
    CS_CHECK(frees("statement_timeout", "0"));
    CS_CHECK(frees("client_encoding", "UTF8"));
    CS_CHECK(frees("client_encoding", "utf-8"));
    CS_CHECK(frees("search_path", ""));
    CS_CHECK(frees("search_path", "pg_catalog"));
    CS_CHECK(frees("search_path", "pg_catalog, pg_temp"));
    CS_CHECK(frees("standard_conforming_strings", "on"));
    CS_CHECK(frees("default_transaction_read_only", "on"));
}

CS_TEST(guc_refuses_what_changes_the_meaning_of_text)
{
    CS_CHECK(!frees("client_encoding", "SJIS"));
    CS_CHECK(!frees("client_encoding", NULL));
    CS_CHECK(!frees("standard_conforming_strings", "off"));
    CS_CHECK(!frees("backslash_quote", "on"));
    CS_CHECK(!frees("search_path", "evil, pg_catalog"));
    CS_CHECK(!frees("SEARCH_PATH", "public"));
    CS_CHECK(!frees("search_path", "pg_temp, pg_catalog"));
    CS_CHECK(!frees("search_path", NULL));
    CS_CHECK(!frees("default_transaction_read_only", "off"));
}

CS_TEST(guc_refuses_roles_code_and_unknown_names)
{
    static const char *const names[] = {"role",
                                        "session_authorization",
                                        "session_replication_role",
                                        "local_preload_libraries",
                                        "session_preload_libraries",
                                        "dynamic_library_path",
                                        "default_tablespace",
                                        "synchronous_commit",
                                        "app.user_id",
                                        "",
                                        "application_name2"};
    for (size_t i = 0; i < CS_ARRAY_LEN(names); i++) {
        CS_CHECK(!frees(names[i], "on"));
        CS_CHECK(!frees(names[i], NULL));
    }
}
