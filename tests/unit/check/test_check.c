#include "tap.h"
#include "world.h"

static const struct line held[] = {
    {"read", CS_ALLOW, "agents", "sql.effects.all(e, e in [\"session\", \"read\"])", false, NULL},
    {"change", CS_HOLD, "agents", "sql.effects.exists(e, !(e in [\"session\", \"read\"]))", true,
     NULL},
};

static struct cs_check_result evaluate(struct cs_policy *p, const struct cs_target *t,
                                       const struct answer *list, size_t n)
{
    struct cs_check_result r;
    CS_CHECK(cs_check_evaluate(p, t, answers(list, n), NOW, &arena, &r) == CS_OK);
    return r;
}

/* ---- the table ---- */

CS_TEST(every_check_has_words_and_an_id_of_its_own)
{
    for (size_t i = 0; i < cs_check_count(); i++) {
        const struct cs_check *c = cs_check_at(i);
        CS_CHECK(strlen(c->title) > 10 && strlen(c->means) > 10 && strlen(c->fix) > 5);
        CS_CHECK(strspn(c->id, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(c->id));
        CS_CHECK(strlen(c->id) < CS_ROWS_NAME && c->asked == (c->how != CS_CHECK_HERE));
        for (size_t k = 0; k < i; k++) {
            CS_CHECK(strcmp(c->id, cs_check_at(k)->id) != 0);
        }
        for (const char *at = strchr(c->fix, '{'); at != NULL; at = strchr(at + 1, '{')) {
            CS_CHECK(strncmp(at, "{everyday}", 10) == 0 || strncmp(at, "{elevated}", 10) == 0 ||
                     strncmp(at, "{database}", 10) == 0 || strncmp(at, "{probe}", 7) == 0 ||
                     strncmp(at, "{target}", 8) == 0);
        }
    }
    CS_CHECK(cs_check_at(cs_check_count()) == NULL);
}

CS_TEST(severities_have_names)
{
    CS_EQ_STR(cs_slice_str(cs_check_severity_name(CS_CHECK_SERIOUS)), "serious");
    CS_EQ_STR(cs_slice_str(cs_check_severity_name(CS_CHECK_WARNING)), "warning");
    CS_EQ_STR(cs_slice_str(cs_check_severity_name(CS_CHECK_NOTE)), "note");
    CS_EQ_STR(cs_slice_str(cs_check_severity_name(CS_CHECK_SEVERITY_MAX)), "serious");
}

/* ---- answers ---- */

CS_TEST(answers_without_rows_find_nothing)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    struct cs_check_result r = evaluate(p, &t, NULL, 0);
    CS_EQ_U64(r.n_findings, 0);
    CS_EQ_U64(r.n_unseen, 0);
    CS_EQ_U64(r.failed, 0);
}

CS_TEST(each_check_is_found_by_a_row_of_its_own_table_and_by_no_other)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    for (size_t i = 0; i < cs_check_count(); i++) {
        const struct cs_check *c = cs_check_at(i);
        bool rights = c->how == CS_CHECK_RIGHTS;
        const struct answer a = {.id = c->id, .rows = {rights ? "public|x|DELETE" : "it"}};
        if (!c->asked) {
            continue;
        }
        struct cs_check_result r = evaluate(p, &t, &a, 1);
        const struct cs_check_finding *f = found(&r, c->id);
        CS_CHECK(r.n_findings == 1 && f != NULL && f->check == c && f->n_details == 1 && !f->more);
        CS_EQ_STR(f->details[0], rights ? "public.x: DELETE" : "it");
        CS_EQ_U64(r.count[c->severity], 1);
    }
}

CS_TEST(no_answer_is_never_nothing_found)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    struct cs_check_result r;
    struct cs_buf none = cs_buf(64);
    size_t asked = 0;
    cs_rows_begin(&none);
    CS_CHECK(cs_check_evaluate(p, &t, cs_buf_slice(&none), NOW, &arena, &r) == CS_OK);
    for (size_t i = 0; i < cs_check_count(); i++) {
        asked += cs_check_at(i)->asked;
    }
    CS_EQ_U64(r.n_unseen, asked + 1); /* and the certificate */
    CS_CHECK(r.failed > 40 && r.failed < asked);
    cs_buf_done(&none);
}

CS_TEST(a_refused_query_is_said_with_the_servers_words)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    const struct answer a[] = {{.id = "owns-table", .failed = true},
                               {.id = "hba-trust", .failed = true},
                               {.id = "listens-everywhere", .left_out = true}};
    struct cs_check_result r = evaluate(p, &t, a, 3);
    CS_EQ_U64(r.n_findings, 0);
    CS_EQ_U64(r.n_unseen, 3);
    CS_EQ_U64(r.failed, 2); /* pg_hba.conf need not be shown */
    CS_EQ_STR(not_seen(&r, "owns-table")->why, "42501 permission denied");
    CS_EQ_STR(not_seen(&r, "listens-everywhere")->why, "it was not asked");
}

CS_TEST(an_answer_of_another_shape_is_not_seen)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    const struct answer a[] = {{.id = "owns-table", .rows = {"a|b"}, .columns = 2},
                               {.id = "rights-held", .rows = {"a"}, .columns = 1}};
    struct cs_check_result r = evaluate(p, &t, a, 2);
    CS_CHECK(found(&r, "owns-table") == NULL && not_seen(&r, "owns-table") != NULL);
    CS_CHECK(found(&r, "rights-held") == NULL && not_seen(&r, "rights-held") != NULL);
    CS_EQ_U64(r.failed, 2);
}

CS_TEST(bytes_that_are_no_answers_are_corrupt)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    struct cs_check_result r;
    struct cs_slice good = answers(NULL, 0);
    CS_CHECK(cs_check_evaluate(p, &t, CS_SLICE_NULL, NOW, &arena, &r) == CS_ERR_CORRUPT);
    CS_CHECK(cs_check_evaluate(p, &t, CS_SLICE_LIT("CSROWS"), NOW, &arena, &r) == CS_ERR_CORRUPT);
    for (size_t n = 8 + 1; n < 8 + 20; n++) {
        CS_CHECK(cs_check_evaluate(p, &t, cs_slice_head(good, n), NOW, &arena, &r) ==
                 CS_ERR_CORRUPT);
    }
}

CS_TEST(what_was_cut_says_that_there_is_more)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    const struct answer a = {.id = "owns-table", .rows = {"a", "b"}, .outcome = CS_ROWS_CUT};
    struct cs_check_result r = evaluate(p, &t, &a, 1);
    CS_CHECK(found(&r, "owns-table")->more);
    CS_EQ_U64(found(&r, "owns-table")->n_details, 2);
}

CS_TEST(the_most_serious_comes_first)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    const struct answer a[] = {{.id = "connection-limit", .rows = {"ro"}},
                               {.id = "everyday-createdb", .rows = {"ro"}},
                               {.id = "log-connections", .rows = {"off"}},
                               {.id = "settings-role", .rows = {"role=x"}},
                               {.id = "everyday-superuser", .rows = {"ro"}}};
    struct cs_check_result r = evaluate(p, &t, a, 5);
    CS_EQ_U64(r.n_findings, 5);
    for (size_t i = 1; i < r.n_findings; i++) {
        CS_CHECK(r.findings[i - 1].check->severity <= r.findings[i].check->severity);
    }
    CS_EQ_STR(cs_slice_str(r.findings[0].check->id), "everyday-superuser");
    CS_EQ_U64(r.count[CS_CHECK_SERIOUS], 2);
    CS_EQ_U64(r.count[CS_CHECK_WARNING], 1);
    CS_EQ_U64(r.count[CS_CHECK_NOTE], 2);
}

CS_TEST(what_to_do_names_the_roles_in_quotes)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("r\"; DROP TABLE x; --", "o'wner");
    const struct answer a[] = {{.id = "member-elevated", .rows = {"x"}},
                               {.id = "create-schema", .rows = {"x"}},
                               {.id = "everyday-missing", .rows = {"x"}}};
    struct cs_check_result r = evaluate(p, &t, a, 3);
    CS_EQ_STR(found(&r, "member-elevated")->fix,
              "REVOKE \"o'wner\" FROM \"r\"\"; DROP TABLE x; --\";");
    CS_EQ_STR(found(&r, "create-schema")->fix,
              "REVOKE CREATE ON DATABASE \"orders\" FROM \"r\"\"; DROP TABLE x; --\";");
    CS_EQ_STR(found(&r, "everyday-missing")->fix, "countersign target sql orders");
}

CS_TEST(evaluation_survives_every_allocation_failure)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    const struct answer a[] = {{.id = "owns-table", .rows = {"a", "b"}},
                               {.id = "rights-held", .rows = {"public|x|DELETE,INSERT"}},
                               {.id = "owns-schema", .failed = true}};
    struct cs_slice rows = answers(a, 3);
    struct cs_arena own;
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_check_result r;
        cs_arena_init(&own, 512, 1U << 20);
        enum cs_err e = cs_check_evaluate(p, &t, rows, NOW, &own, &r);
        CS_CHECK(e == CS_OK || e == CS_ERR_NO_MEMORY);
        done = e == CS_OK;
        CS_CHECK(!done || (r.n_findings == 2 && r.n_unseen == 1));
        cs_arena_done(&own);
    }
    CS_CHECK(done);
}

/* ---- what the configuration tells ---- */

CS_TEST(one_role_for_both_is_serious)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "ro");
    struct cs_check_result r = evaluate(p, &t, NULL, 0);
    CS_CHECK(found(&r, "elevated-same") != NULL && r.count[CS_CHECK_SERIOUS] == 1);
}

CS_TEST(the_way_to_the_server_is_judged_by_the_configuration)
{
    static const struct {
        const char *tls, *address, *id;
    } cases[] = {{"off", "db.internal:5432", "tls-off"},
                 {"off", "127.0.0.1:5432", NULL},
                 {"off", "[::1]:5432", NULL},
                 {"off", "localhost:5432", NULL},
                 {"require", "db:5432", "tls-unchecked"},
                 {"verify-ca", "db:5432", "tls-any-name"},
                 {"verify-full", "db:5432", NULL}};
    struct cs_policy *p = policy_of(held, 2);
    for (size_t i = 0; i < CS_ARRAY_LEN(cases); i++) {
        struct cs_target t = target_of("ro", "owner");
        t.tls = cs_slice_str(cases[i].tls);
        t.address = cs_slice_str(cases[i].address);
        struct cs_check_result r = evaluate(p, &t, NULL, 0);
        CS_EQ_U64(r.n_findings, cases[i].id != NULL);
        CS_CHECK(cases[i].id == NULL || found(&r, cases[i].id) != NULL);
    }
}

CS_TEST(a_certificate_that_runs_out_is_found_three_weeks_before)
{
    static const struct {
        const char *row, *detail;
    } cases[] = {{"CN=a|1801814400001", NULL}, /* 21 days and 1 ms */
                 {"CN=a|1801814399999", "CN=a: until 2027-02-05T07:59:59.999Z"},
                 {"CN=a|1799999999999", "CN=a: until 2027-01-15T07:59:59.999Z"},
                 {"|0", ": until 1970-01-01T00:00:00.000Z"},
                 {"CN=a|18446744073709551615", NULL}};
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    for (size_t i = 0; i < CS_ARRAY_LEN(cases); i++) {
        const struct answer a = {.id = "certificate", .rows = {cases[i].row}};
        struct cs_check_result r = evaluate(p, &t, &a, 1);
        const struct cs_check_finding *f = found(&r, "certificate-expiry");
        CS_CHECK((f != NULL) == (cases[i].detail != NULL) && r.failed == 0);
        if (f != NULL) {
            CS_EQ_STR(f->details[0], cases[i].detail);
        }
    }
}

CS_TEST(a_certificate_that_nobody_told_of_is_not_seen)
{
    static const struct answer cases[] = {{.id = "certificate", .left_out = true},
                                          {.id = "certificate", .rows = {"CN=a|"}},
                                          {.id = "certificate", .rows = {"CN=a|-1"}},
                                          {.id = "certificate", .rows = {"CN=a|soon"}}};
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    for (size_t i = 0; i < CS_ARRAY_LEN(cases); i++) {
        struct cs_check_result r = evaluate(p, &t, &cases[i], 1);
        CS_CHECK(not_seen(&r, "certificate-expiry") != NULL && r.failed == 1);
    }
    t.tls = CS_SLICE_LIT("off");
    t.address = CS_SLICE_LIT("127.0.0.1:5432");
    struct cs_check_result r = evaluate(p, &t, &cases[0], 1);
    CS_CHECK(r.n_findings == 0 && r.n_unseen == 0);
}

CS_TEST(a_server_without_tls_is_odd_only_when_tls_is_demanded)
{
    struct cs_policy *p = policy_of(held, 2);
    struct cs_target t = target_of("ro", "owner");
    const struct answer a = {.id = "tls-ends", .rows = {"plain"}};
    struct cs_check_result r = evaluate(p, &t, &a, 1);
    CS_CHECK(found(&r, "tls-ends") != NULL);
    t.tls = CS_SLICE_LIT("off");
    t.address = CS_SLICE_LIT("127.0.0.1:5432");
    r = evaluate(p, &t, &a, 1);
    CS_EQ_U64(r.n_findings, 0);
}
