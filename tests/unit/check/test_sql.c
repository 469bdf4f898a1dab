#include "tap.h"
#include "world.h"

#define READS   "sql.effects.all(e, e in [\"session\", \"read\"])"
#define CHANGES "sql.effects.exists(e, !(e in [\"session\", \"read\"]))"

static const struct line held[] = {{"read", CS_ALLOW, "agents", READS, false, NULL},
                                   {"change", CS_HOLD, "agents", CHANGES, true, NULL}};

static const char *written(const struct line *lines, size_t n, const struct cs_target *t)
{
    static struct cs_buf out;
    char why[300] = "";
    struct cs_policy *p = policy_of(lines, n);
    cs_buf_done(&out);
    out = cs_buf(1U << 20);
    CS_CHECK(cs_check_sql(p, t, NULL, 0, &out, why, sizeof why) == CS_OK);
    return cs_buf_cstr(&out);
}

static bool has(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}

static void refused(const struct cs_target *t, const struct cs_slice *schemas, size_t n,
                    const char *word)
{
    struct cs_buf out = cs_buf(1U << 20);
    char why[300] = "";
    struct cs_policy *p = policy_of(held, 2);
    CS_CHECK(cs_check_sql(p, t, schemas, n, &out, why, sizeof why) == CS_ERR_INVALID);
    CS_CHECK(has(why, word) && out.len == 0);
    cs_buf_done(&out);
}

CS_TEST(identifiers_and_strings_keep_every_byte_inside_their_quotes)
{
    struct cs_buf b = cs_buf(1000);
    cs_check_ident(&b, CS_SLICE_LIT("a\"b'c\\"));
    cs_buf_u8(&b, ' ');
    cs_check_literal(&b, CS_SLICE_LIT("a\"b'c\\"));
    cs_buf_u8(&b, ' ');
    cs_check_ident(&b, CS_SLICE_LIT(""));
    CS_EQ_STR(cs_buf_slice(&b), "\"a\"\"b'c\\\" 'a\"b''c\\' \"\"");
    cs_buf_done(&b);
}

CS_TEST(where_the_rules_only_let_it_read_the_role_gets_select_alone)
{
    struct cs_target t = target_of("ro", "owner");
    const char *sql = written(held, 2, &t);
    CS_CHECK(has(sql, "ALTER ROLE \"ro\" LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE"));
    CS_CHECK(has(sql, "SET default_transaction_read_only = on"));
    CS_CHECK(has(sql, "GRANT SELECT ON ALL TABLES IN SCHEMA \"public\" TO \"ro\";"));
    CS_CHECK(has(sql, "REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON ALL TABLES "
                      "IN SCHEMA \"public\" FROM PUBLIC, \"ro\";"));
    CS_CHECK(has(sql, "\\password \"ro\"\n\\password \"owner\"\n"));
    CS_CHECK(has(sql, "hostssl \"orders\"  \"ro\"  GATEWAY/32  scram-sha-256"));
    CS_CHECK(!has(sql, "GRANT INSERT") && !has(sql, "PASSWORD '"));
}

CS_TEST(where_the_rules_let_it_write_the_role_gets_the_right)
{
    static const struct line rules[] = {
        {"read", CS_ALLOW, "agents", READS, false, NULL},
        {"add", CS_ALLOW, "agents", "sql.verb == \"INSERT\"", false, NULL},
        {"fix", CS_ALLOW, "agents", "sql.verb == \"UPDATE\" && sql.writes.all(w, w == \"pad\")",
         false, NULL}};
    struct cs_target t = target_of("ro", "owner");
    const char *sql = written(rules, 3, &t);
    CS_CHECK(has(sql, "\nGRANT INSERT ON ALL TABLES IN SCHEMA \"public\" TO \"ro\";"));
    CS_CHECK(has(sql, "\n-- GRANT UPDATE ON \"public\".... TO \"ro\";"));
    CS_CHECK(has(sql, "\nREVOKE DELETE, TRUNCATE, REFERENCES, TRIGGER ON ALL TABLES"));
    CS_CHECK(!has(sql, "SET default_transaction_read_only = on"));
}

CS_TEST(hostile_names_stay_names)
{
    struct cs_target t = target_of("ro\"; DROP ROLE boss; --", "o'; DROP ROLE boss; --");
    t.database = CS_SLICE_LIT("d$$b\\");
    const char *sql = written(held, 2, &t);
    CS_CHECK(has(sql, "ALTER ROLE \"ro\"\"; DROP ROLE boss; --\" LOGIN"));
    CS_CHECK(has(sql, "ALTER ROLE \"o'; DROP ROLE boss; --\" LOGIN"));
    /* inside a string inside a string */
    CS_CHECK(has(sql, "rolname = ''o''''; DROP ROLE boss; --''"));
    CS_CHECK(has(sql, "current_database() <> ''d$$b\\''"));
    CS_CHECK(!has(sql, "$$ ") && !has(sql, "rolname = 'o'"));
}

CS_TEST(names_that_cannot_be_written_are_refused)
{
    struct cs_target t = target_of("ro\nDROP ROLE boss;", "owner");
    refused(&t, NULL, 0, "everyday role");
    t = target_of("ro", "own\xff"
                        "er");
    refused(&t, NULL, 0, "elevated role");
    t = target_of("ro", "owner");
    t.database = CS_SLICE_LIT("a\177b");
    refused(&t, NULL, 0, "database");
    t = target_of("ro", "owner");
    t.elevated_database = CS_SLICE_LIT("\r");
    refused(&t, NULL, 0, "elevated role's database");
    /* 64 bytes: the server would cut it and mean another role */
    t = target_of("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl", "owner");
    refused(&t, NULL, 0, "everyday role");
    t = target_of("ro", "owner");
    const struct cs_slice schemas[] = {CS_SLICE_LIT("app"), CS_SLICE_LIT("a\nb")};
    refused(&t, schemas, 2, "schema");
    refused(&t, &CS_SLICE_NULL, 1, "schema");
}

CS_TEST(one_role_for_both_is_refused)
{
    struct cs_target t = target_of("ro", "ro");
    refused(&t, NULL, 0, "same role");
}

CS_TEST(a_target_without_elevated_role_gets_its_everyday_one)
{
    struct cs_target t = target_of("ro", NULL);
    const char *sql = written(held, 1, &t);
    CS_CHECK(has(sql, "ALTER ROLE \"ro\" LOGIN") && has(sql, "has no elevated role"));
    CS_CHECK(!has(sql, "\"\""));
}

CS_TEST(schemas_that_are_named_take_the_place_of_public)
{
    struct cs_target t = target_of("ro", "owner");
    struct cs_buf out = cs_buf(1U << 20);
    char why[300] = "";
    const struct cs_slice schemas[] = {CS_SLICE_LIT("app"), CS_SLICE_LIT("We\"ird")};
    struct cs_policy *p = policy_of(held, 2);
    CS_CHECK(cs_check_sql(p, &t, schemas, 2, &out, why, sizeof why) == CS_OK);
    const char *sql = cs_buf_cstr(&out);
    CS_CHECK(has(sql, "GRANT SELECT ON ALL TABLES IN SCHEMA \"app\" TO \"ro\";"));
    CS_CHECK(has(sql, "GRANT SELECT ON ALL TABLES IN SCHEMA \"We\"\"ird\" TO \"ro\";"));
    CS_CHECK(!has(sql, "GRANT SELECT ON ALL TABLES IN SCHEMA \"public\""));
    CS_CHECK(has(sql, "REVOKE CREATE ON SCHEMA public FROM PUBLIC, \"ro\";"));
    cs_buf_done(&out);
}

CS_TEST(writing_survives_every_allocation_failure)
{
    struct cs_target t = target_of("ro", "owner");
    struct cs_policy *p = policy_of(held, 2);
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_buf out = cs_buf(1U << 20);
        char why[300] = "";
        enum cs_err e = cs_check_sql(p, &t, NULL, 0, &out, why, sizeof why);
        CS_CHECK(e == CS_OK || e == CS_ERR_NO_MEMORY);
        done = e == CS_OK;
        cs_buf_done(&out);
    }
    CS_CHECK(done);
}
