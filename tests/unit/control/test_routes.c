#include "control/api.h"
#include "tap.h"

static struct cs_arena arena;

static enum cs_err find(const char *method, const char *path, const struct cs_api_route **ret,
                        struct cs_slice *name)
{
    cs_arena_done(&arena);
    cs_arena_init(&arena, 1024, 65536);
    *name = CS_SLICE_NULL;
    *ret = NULL;
    return cs_api_find(cs_api_routes, cs_api_routes_n, cs_slice_str(method), cs_slice_str(path),
                       &arena, ret, name);
}

CS_TEST(routes_find_a_call_and_its_name)
{
    const struct cs_api_route *r;
    struct cs_slice name;
    CS_CHECK(find("POST", "/v1/requests/7Q2KD4M9/approve", &r, &name) == CS_OK);
    CS_CHECK(r->fn == cs_api_request_approve && r->who == CS_API_PERSON);
    CS_EQ_STR(name, "7Q2KD4M9");
    CS_CHECK(find("GET", "/v1/users", &r, &name) == CS_OK);
    CS_CHECK(r->fn == cs_api_user_list);
    CS_CHECK(find("PUT", "/v1/secrets/a%2Db", &r, &name) == CS_OK);
    CS_EQ_STR(name, "a-b");
}

CS_TEST(routes_refuse_what_is_not_listed)
{
    static const char *const paths[] = {"",
                                        "/",
                                        "/v1",
                                        "/v1/users/",
                                        "/v1//x",
                                        "v1/users",
                                        "/v1/usersx",
                                        "/v1/users/a/token/b",
                                        "/v2/users",
                                        "/V1/users",
                                        "/v1/requests//approve"};
    const struct cs_api_route *r;
    struct cs_slice name;
    for (size_t i = 0; i < CS_ARRAY_LEN(paths); i++) {
        if (find("GET", paths[i], &r, &name) == CS_OK) {
            CS_FAIL("found: %s", paths[i]);
        }
    }
    CS_CHECK(find("DELETE", "/v1/users", &r, &name) == CS_ERR_UNSUPPORTED);
    CS_CHECK(find("get", "/v1/users", &r, &name) == CS_ERR_UNSUPPORTED);
}

CS_TEST(routes_refuse_encoded_tricks_in_names)
{
    static const char *const paths[] = {"/v1/secrets/a%2Fb", "/v1/secrets/a%00",
                                        "/v1/secrets/%zz",   "/v1/secrets/a%2",
                                        "/v1/secrets/%ff",   "/v1/secrets/a%0a"};
    const struct cs_api_route *r;
    struct cs_slice name;
    for (size_t i = 0; i < CS_ARRAY_LEN(paths); i++) {
        if (find("PUT", paths[i], &r, &name) == CS_OK) {
            CS_FAIL("found: %s", paths[i]);
        }
    }
}

CS_TEST(routes_every_row_says_who)
{
    for (size_t i = 0; i < cs_api_routes_n; i++) {
        CS_CHECK(cs_api_routes[i].who != CS_API_NOBODY && cs_api_routes[i].fn != NULL);
    }
}

CS_TEST(routes_only_people_decide)
{
    size_t n = 0;
    for (size_t i = 0; i < cs_api_routes_n; i++) {
        const struct cs_api_route *r = &cs_api_routes[i];
        if (r->fn == cs_api_request_approve || r->fn == cs_api_request_deny) {
            CS_CHECK(r->who == CS_API_PERSON);
            n++;
        }
    }
    CS_EQ_U64(n, 2);
}

CS_TEST(routes_read_a_query_strictly)
{
    const struct cs_api_route *r;
    struct cs_slice name, q[CS_API_QUERY_MAX];
    CS_CHECK(find("GET", "/v1/requests", &r, &name) == CS_OK);
    CS_CHECK(cs_api_query(r, CS_SLICE_LIT("wait=45&state=pending"), &arena, q));
    CS_EQ_STR(q[0], "pending");
    CS_CHECK(q[1].p == NULL);
    CS_EQ_STR(q[2], "45");
    CS_CHECK(cs_api_query(r, CS_SLICE_NULL, &arena, q));
    static const char *const bad[] = {"wait=1&wait=2", "all=1",  "wait",    "wait=1&",
                                      "&wait=1",       "WAIT=1", "wait=%0a"};
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        if (cs_api_query(r, cs_slice_str(bad[i]), &arena, q)) {
            CS_FAIL("accepted: %s", bad[i]);
        }
    }
}

CS_TEST(routes_that_change_something_say_so_to_the_audit_log_or_say_why_not)
{
    size_t changes = 0;
    for (size_t i = 0; i < cs_api_routes_n; i++) {
        const struct cs_api_route *r = &cs_api_routes[i];
        bool reads = strcmp(r->method, "GET") == 0;
        unsigned said = (r->says.change != NULL ? 1U : 0U) + (r->says.why_not != NULL ? 1U : 0U);
        if (said != (reads ? 0U : 1U) || (r->says.secret && r->says.change == NULL)) {
            CS_FAIL("%s %s", r->method, r->pattern);
        }
        changes += r->says.change != NULL;
        for (size_t k = 0; r->says.change != NULL && k < i; k++) { /* told apart in the log */
            CS_CHECK(cs_api_routes[k].says.change == NULL ||
                     strcmp(cs_api_routes[k].says.change, r->says.change) != 0);
        }
    }
    CS_EQ_U64(changes, 9);
}
