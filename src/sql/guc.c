/* Which settings a client may make, in SET, set_config and the startup packet. Called by the walker
 * and by the protocol. What is not in the table is refused: a setting can name code to load,
 * another role, another meaning of the text that was classified. It must never compare
 * case-sensitively: the server does not. */
#include "base/attr.h"
#include "sql/sql.h"

enum guc_rule {
    G_ANY,
    G_ON,         /* a boolean that may only be true */
    G_UTF8,       /* SECURITY: in SJIS or GBK a backslash can be half a character */
    G_EMPTY_PATH, /* SECURITY: any other path lets a user's lower() stand in front of ours */
    G_RESTRICT,   /* only what restricts more: pg_dump's own protection from hostile definitions */
};

static const struct {
    const char *name;
    enum guc_rule rule;
} gucs[] = {
    {"application_name", G_ANY},
    {"countersign.reason", G_ANY},
    {"client_encoding", G_UTF8},
    {"search_path", G_EMPTY_PATH},
    {"standard_conforming_strings", G_ON},
    {"default_transaction_read_only", G_ON},
    {"transaction_read_only", G_ON},
    {"datestyle", G_ANY},
    {"intervalstyle", G_ANY},
    {"timezone", G_ANY},
    {"extra_float_digits", G_ANY},
    {"bytea_output", G_ANY},
    {"xmlbinary", G_ANY},
    {"xmloption", G_ANY},
    {"lc_monetary", G_ANY},
    {"lc_numeric", G_ANY},
    {"lc_time", G_ANY},
    {"quote_all_identifiers", G_ANY},
    {"escape_string_warning", G_ANY},
    {"client_min_messages", G_ANY},
    {"statement_timeout", G_ANY},
    {"lock_timeout", G_ANY},
    {"idle_in_transaction_session_timeout", G_ANY},
    {"idle_session_timeout", G_ANY},
    {"transaction_timeout", G_ANY},
    {"default_transaction_isolation", G_ANY},
    {"transaction_isolation", G_ANY},
    {"default_transaction_deferrable", G_ANY},
    {"transaction_deferrable", G_ANY},
    {"synchronize_seqscans", G_ANY},
    {"row_security", G_ANY}, /* off: an error where a policy would have left rows out */
    {"restrict_nonsystem_relation_kind", G_RESTRICT},
    {"check_function_bodies", G_ANY},
    {"plan_cache_mode", G_ANY},
    {"from_collapse_limit", G_ANY},
    {"join_collapse_limit", G_ANY},
    {"max_parallel_workers_per_gather", G_ANY},
    {"geqo", G_ANY},
    {"jit", G_ANY},
    {"enable_async_append", G_ANY},
    {"enable_bitmapscan", G_ANY},
    {"enable_gathermerge", G_ANY},
    {"enable_hashagg", G_ANY},
    {"enable_hashjoin", G_ANY},
    {"enable_incremental_sort", G_ANY},
    {"enable_indexonlyscan", G_ANY},
    {"enable_indexscan", G_ANY},
    {"enable_material", G_ANY},
    {"enable_memoize", G_ANY},
    {"enable_mergejoin", G_ANY},
    {"enable_nestloop", G_ANY},
    {"enable_parallel_append", G_ANY},
    {"enable_parallel_hash", G_ANY},
    {"enable_partition_pruning", G_ANY},
    {"enable_partitionwise_aggregate", G_ANY},
    {"enable_partitionwise_join", G_ANY},
    {"enable_seqscan", G_ANY},
    {"enable_sort", G_ANY},
    {"enable_tidscan", G_ANY},
};

static bool one_of(struct cs_slice value, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (cs_slice_eq_nocase(value, cs_slice_str(words[i]))) {
            return true;
        }
    }
    return false;
}

static bool value_fits(enum guc_rule rule, struct cs_slice value)
{
    static const char *const on[] = {"on", "true", "yes", "1"};
    static const char *const utf8[] = {"utf8", "utf-8", "unicode"};
    static const char *const path[] = {"", "\"\"", "pg_catalog", "pg_catalog, pg_temp"};
    static const char *const both[] = {"view, foreign-table"};
    if (rule == G_ANY) {
        return true;
    }
    if (value.p == NULL) {
        return false;
    }
    switch (rule) {
    case G_ON:
        return one_of(value, on, CS_ARRAY_LEN(on));
    case G_UTF8:
        return one_of(value, utf8, CS_ARRAY_LEN(utf8));
    case G_EMPTY_PATH:
        return one_of(value, path, CS_ARRAY_LEN(path));
    case G_RESTRICT:
        return one_of(value, both, CS_ARRAY_LEN(both));
    case G_ANY:
    default:
        return false;
    }
}

enum cs_sql_guc cs_sql_guc_judge(struct cs_slice name, struct cs_slice value)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(gucs); i++) {
        if (cs_slice_eq_nocase(name, cs_slice_str(gucs[i].name))) {
            return value_fits(gucs[i].rule, value) ? CS_SQL_GUC_FREE : CS_SQL_GUC_REFUSE;
        }
    }
    return CS_SQL_GUC_REFUSE;
}
