#include "tap.h"
#include "world.h"

#define READS   "sql.effects.all(e, e in [\"session\", \"read\"])"
#define CHANGES "sql.effects.exists(e, !(e in [\"session\", \"read\"]))"

static enum cs_tri may(const struct line *lines, size_t n, const char *right, const char *table)
{
    struct cs_policy *p = policy_of(lines, n);
    struct cs_target t = target_of("ro", "owner");
    return cs_check_right(p, &t, cs_slice_str(right), CS_SLICE_LIT("public"), cs_slice_str(table));
}

static bool reads_only(const struct line *lines, size_t n)
{
    struct cs_policy *p = policy_of(lines, n);
    struct cs_target t = target_of("ro", "owner");
    return cs_check_reads_only(p, &t);
}

CS_TEST(what_is_held_for_the_elevated_role_needs_no_right)
{
    static const struct line rules[] = {{"read", CS_ALLOW, "agents", READS, false, NULL},
                                        {"change", CS_HOLD, "agents", CHANGES, true, NULL}};
    CS_CHECK(may(rules, 2, "DELETE", "orders") == CS_TRI_FALSE);
    CS_CHECK(may(rules, 2, "TRIGGER", "orders") == CS_TRI_FALSE);
    CS_CHECK(reads_only(rules, 2));
}

CS_TEST(what_is_held_for_the_everyday_role_needs_its_right)
{
    static const struct line rules[] = {{"read", CS_ALLOW, "agents", READS, false, NULL},
                                        {"change", CS_HOLD, "agents", CHANGES, false, NULL}};
    CS_CHECK(may(rules, 2, "DELETE", "orders") == CS_TRI_TRUE);
    CS_CHECK(!reads_only(rules, 2));
}

CS_TEST(what_nobody_may_do_needs_no_right)
{
    static const struct line rules[] = {{"read", CS_ALLOW, "agents", READS, false, NULL},
                                        {"never", CS_DENY, "agents", CHANGES, false, NULL}};
    CS_CHECK(may(rules, 2, "UPDATE", "orders") == CS_TRI_FALSE);
    CS_CHECK(reads_only(rules, 1));
}

CS_TEST(an_allow_that_a_hold_covers_needs_no_right)
{
    static const struct line rules[] = {{"all", CS_ALLOW, "agents", NULL, false, NULL},
                                        {"change", CS_HOLD, "agents staff", CHANGES, true, NULL}};
    CS_CHECK(may(rules, 2, "UPDATE", "orders") == CS_TRI_FALSE);
    CS_CHECK(may(rules, 1, "UPDATE", "orders") == CS_TRI_TRUE);
}

CS_TEST(an_allow_for_more_people_than_the_hold_needs_the_right)
{
    static const struct line rules[] = {{"all", CS_ALLOW, "agents staff", NULL, false, NULL},
                                        {"change", CS_HOLD, "agents", CHANGES, true, NULL}};
    CS_CHECK(may(rules, 2, "UPDATE", "orders") == CS_TRI_TRUE);
}

CS_TEST(an_exception_from_the_hold_needs_the_right)
{
    static const struct line rules[] = {{"all", CS_ALLOW, "agents", NULL, false, NULL},
                                        {"change", CS_HOLD, "agents", CHANGES, true, "dba"}};
    static const struct line both[] = {{"all", CS_ALLOW, "agents", NULL, false, "dba"},
                                       {"change", CS_HOLD, "agents", CHANGES, true, "dba"}};
    CS_CHECK(may(rules, 2, "UPDATE", "orders") == CS_TRI_TRUE);
    CS_CHECK(may(both, 2, "UPDATE", "orders") == CS_TRI_FALSE);
}

CS_TEST(an_elevated_hold_does_not_keep_another_hold_from_the_everyday_role)
{
    static const struct line rules[] = {
        {"change", CS_HOLD, "agents", CHANGES, true, NULL},
        {"delete", CS_HOLD, "agents", "sql.verb == \"DELETE\"", false, NULL}};
    CS_CHECK(may(rules, 2, "DELETE", "orders") == CS_TRI_TRUE);
    CS_CHECK(may(rules, 2, "INSERT", "orders") == CS_TRI_FALSE);
}

CS_TEST(a_rule_about_one_table_is_asked_about_that_table)
{
    static const struct line rules[] = {
        {"pad", CS_ALLOW, "agents",
         "sql.verb == \"INSERT\" && sql.writes.all(w, w == \"scratchpad\")", false, NULL}};
    CS_CHECK(may(rules, 1, "INSERT", "scratchpad") == CS_TRI_TRUE);
    CS_CHECK(may(rules, 1, "INSERT", "orders") == CS_TRI_FALSE);
    CS_CHECK(may(rules, 1, "INSERT", "") == CS_TRI_UNKNOWN);
    CS_CHECK(!reads_only(rules, 1));
}

CS_TEST(a_right_that_no_statement_needs_is_never_needed)
{
    static const struct line rules[] = {{"all", CS_ALLOW, "agents", NULL, false, NULL}};
    CS_CHECK(may(rules, 1, "MAINTAIN", "orders") == CS_TRI_FALSE);
    CS_CHECK(may(rules, 1, "", "orders") == CS_TRI_FALSE);
    CS_CHECK(may(rules, 1, "REFERENCES", "orders") == CS_TRI_TRUE);
}

CS_TEST(rights_on_a_table_are_compared_with_the_rules)
{
    static const struct line rules[] = {
        {"read", CS_ALLOW, "agents", READS, false, NULL},
        {"pad", CS_ALLOW, "agents",
         "sql.verb == \"INSERT\" && sql.writes.all(w, w == \"public.pad\")", false, NULL}};
    const struct answer a[] = {
        {.id = "rights-held",
         .rows = {"public|pad|INSERT", "public|orders|INSERT,UPDATE,NONSENSE", "other|pad|INSERT"}},
        {.id = "rights-future", .rows = {"|tables of x|INSERT", "|tables of y|DELETE,TRIGGER"}},
        {.id = "not-read-only", .rows = {"ro"}}};
    struct cs_policy *p = policy_of(rules, 2);
    struct cs_target t = target_of("ro", "owner");
    struct cs_check_result r;
    CS_CHECK(cs_check_evaluate(p, &t, answers(a, 3), NOW, &arena, &r) == CS_OK);
    const struct cs_check_finding *f = found(&r, "rights-held");
    CS_CHECK(f != NULL && f->n_details == 2);
    CS_EQ_STR(f->details[0], "public.orders: INSERT, UPDATE");
    CS_EQ_STR(f->details[1], "other.pad: INSERT");
    f = found(&r, "rights-future");
    CS_CHECK(f != NULL && f->n_details == 1);
    CS_EQ_STR(f->details[0], "tables of y: DELETE, TRIGGER");
    CS_CHECK(found(&r, "not-read-only") == NULL); /* some INSERT may run with it */
}

CS_TEST(names_of_any_length_and_content_are_no_danger)
{
    static const struct line rules[] = {{"read", CS_ALLOW, "agents", READS, false, NULL}};
    char row[3000];
    memset(row, '%', sizeof row);
    memcpy(row + 1400, "|", 1);
    memcpy(row + sizeof row - 8, "|DELETE", 8);
    const struct answer a = {.id = "rights-held",
                             .rows = {row, "%n%s|%n|DELETE", "\x1b[2J|\n|DELETE"}};
    struct cs_policy *p = policy_of(rules, 1);
    struct cs_target t = target_of("ro", "owner");
    struct cs_check_result r;
    CS_CHECK(cs_check_evaluate(p, &t, answers(&a, 1), NOW, &arena, &r) == CS_OK);
    const struct cs_check_finding *f = found(&r, "rights-held");
    CS_CHECK(f != NULL && f->n_details == 3 && f->details[0].n <= 1000);
    CS_EQ_STR(f->details[1], "%n%s.%n: DELETE");
}
