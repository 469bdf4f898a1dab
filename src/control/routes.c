/* The table of API calls (docs/api.md), and the two pure functions that read a path and a query by
 * it. What is not listed is refused; a row without a `who` refuses everybody; each row says what
 * the audit log hears before the call is made. */
#include "control/api.h"

#include "wire/url.h"

/* clang-format off */
#define TEXT(n, req, limit)     {.name = (n), .kind = CS_JSON_STRING, .required = (req), .max = (limit)}
#define WORDS(n, req)           {.name = (n), .kind = CS_JSON_STRING, .required = (req), .lines = true, .max = CS_LIMIT_REASON_BYTES}
#define READS                   {0}
#define CHANGE(what)            {.change = (what)}
#define SECRET(what)            {.change = (what), .secret = true}
#define NO_CHANGE(why)          {.why_not = (why)}
#define NAMES(n, req)           {.name = (n), .kind = CS_JSON_STRINGS, .required = (req), .max = 64, .max_n = CS_LIMIT_GROUPS}

const struct cs_api_route cs_api_routes[] = {
    {"GET",  "/v1/health",               CS_API_ANYONE, cs_api_health,            READS,                        {0}, {{0}}},
    {"GET",  "/v1/whoami",               CS_API_TOKEN,  cs_api_whoami,            READS,                        {0}, {{0}}},
    {"POST", "/v1/users",                CS_API_SETUP,  cs_api_user_add,          CHANGE("user-add"),           {0}, {TEXT("name", true, 64), NAMES("groups", false)}},
    {"GET",  "/v1/users",                CS_API_SETUP,  cs_api_user_list,         READS,                        {0}, {{0}}},
    {"POST", "/v1/users/{}/token",       CS_API_SETUP,  cs_api_user_token,        CHANGE("user-token"),         {0}, {{0}}},
    {"POST", "/v1/users/{}/groups",      CS_API_SETUP,  cs_api_user_groups,       CHANGE("user-groups"),        {0}, {NAMES("groups", true)}},
    {"POST", "/v1/users/{}/disable",     CS_API_SETUP,  cs_api_user_disable,      CHANGE("user-disable"),       {0}, {{0}}},
    {"POST", "/v1/agents",               CS_API_SETUP,  cs_api_agent_add,         CHANGE("agent-add"),          {0}, {TEXT("name", true, 64), TEXT("owner", true, 64), NAMES("groups", false)}},
    {"PUT",  "/v1/secrets/{}",           CS_API_SETUP,  cs_api_secret_put,        SECRET("secret-set"),         {0}, {TEXT("sealed", true, 5600)}},
    {"POST", "/v1/secrets/rotate",       CS_API_SETUP,  cs_api_secret_rotate,     CHANGE("secret-rotate"),      {0}, {{0}}},
    {"GET",  "/v1/secrets/key",          CS_API_SETUP,  cs_api_secret_key,        READS,                        {0}, {{0}}},
    {"GET",  "/v1/secrets",              CS_API_SETUP,  cs_api_secret_list,       READS,                        {0}, {{0}}},
    {"GET",  "/v1/requests",             CS_API_TOKEN,  cs_api_request_list,      READS,                        {"state", "since", "wait"}, {{0}}},
    {"GET",  "/v1/requests/{}",          CS_API_TOKEN,  cs_api_request_show,      READS,                        {"wait", "state"}, {{0}}},
    {"POST", "/v1/requests/{}/approve",  CS_API_PERSON, cs_api_request_approve,   NO_CHANGE("a vote has a leaf of its own"),{0}, {TEXT("digest", true, 64), WORDS("reason", false)}},
    {"POST", "/v1/requests/{}/deny",     CS_API_PERSON, cs_api_request_deny,      NO_CHANGE("a vote has a leaf of its own"),{0}, {TEXT("digest", true, 64), WORDS("reason", false)}},
    {"POST", "/v1/requests/{}/cancel",   CS_API_TOKEN,  cs_api_request_cancel,    NO_CHANGE("the gate says how the wait ended"),{0}, {{0}}},
    {"GET",  "/v1/sessions",             CS_API_TOKEN,  cs_api_session_list,      READS,                        {"all", "limit"}, {{0}}},
    {"POST", "/v1/sessions/{}/kill",     CS_API_SETUP,  cs_api_session_kill,      CHANGE("session-kill"),       {0}, {WORDS("reason", false)}},
    {"GET",  "/v1/sessions/{}/recording", CS_API_AUDIT, cs_api_session_recording, READS,                        {"from", "find", "actions"}, {{0}}},
    {"GET",  "/v1/log",                  CS_API_AUDIT,  cs_api_log,               READS,                        {"from", "limit", "since", "until", "kind", "session", "who"}, {{0}}},
    {"GET",  "/v1/targets/{}/answers",   CS_API_SETUP,  cs_api_target_answers,    READS,                        {0}, {{0}}},
    {"GET",  "/v1/targets/{}/check",     CS_API_SETUP,  cs_api_target_check,      READS,                        {0}, {{0}}},
    {"GET",  "/v1/targets/{}/sql",       CS_API_SETUP,  cs_api_target_sql,        READS,                        {"schema"}, {{0}}},
    {"POST", "/v1/backup",               CS_API_SETUP,  cs_api_backup,            NO_CHANGE("the gateway is afterwards as it was"),{0}, {{0}}},
    {"POST", "/v1/reload",               CS_API_SETUP,  cs_api_reload,            CHANGE("reload"),             {0}, {{0}}},
    {"GET",  "/v1/status",               CS_API_SETUP,  cs_api_status,            READS,                        {0}, {{0}}},
};
/* clang-format on */
const size_t cs_api_routes_n = CS_ARRAY_LEN(cs_api_routes);

/* As strict for a query's values as for a path's segments: no slash, no control byte, valid UTF-8.
 */
static bool decode(struct cs_slice in, struct cs_arena *a, struct cs_slice *ret)
{
    uint8_t *out = cs_arena_alloc(a, in.n + 1);
    return out != NULL && cs_url_segment_decode(in, out, in.n + 1, ret);
}

static struct cs_slice segment(struct cs_slice *path)
{
    *path = cs_slice_from(*path, 1); /* the slash */
    size_t n = cs_slice_find(*path, '/');
    struct cs_slice s = cs_slice_head(*path, n);
    *path = cs_slice_from(*path, n);
    return s;
}

static bool match(const char *pattern, struct cs_slice path, struct cs_slice *ret_raw)
{
    struct cs_slice want = cs_slice_str(pattern);
    while (want.n > 0 && path.n > 0) {
        if (path.p[0] != '/') {
            return false;
        }
        struct cs_slice w = segment(&want);
        struct cs_slice p = segment(&path);
        if (cs_slice_eq_str(w, "{}") && p.n > 0) {
            *ret_raw = p;
        } else if (!cs_slice_eq(w, p)) {
            return false;
        }
    }
    return want.n == 0 && path.n == 0;
}

enum cs_err cs_api_find(const struct cs_api_route *routes, size_t n, struct cs_slice method,
                        struct cs_slice path, struct cs_arena *a, const struct cs_api_route **ret,
                        struct cs_slice *ret_name)
{
    bool other_method = false;
    for (size_t i = 0; i < n; i++) {
        struct cs_slice raw = CS_SLICE_NULL;
        if (!match(routes[i].pattern, path, &raw)) {
            continue;
        }
        if (!cs_slice_eq_str(method, routes[i].method)) {
            other_method = true;
            continue;
        }
        if (raw.n > 0 && !decode(raw, a, ret_name)) {
            return CS_ERR_INVALID;
        }
        *ret = &routes[i];
        return CS_OK;
    }
    return other_method ? CS_ERR_UNSUPPORTED : CS_ERR_NOT_FOUND;
}

static bool query_pair(const struct cs_api_route *route, struct cs_slice pair, struct cs_arena *a,
                       struct cs_slice *ret)
{
    size_t eq = cs_slice_find(pair, '=');
    struct cs_slice name = cs_slice_head(pair, eq);
    for (size_t i = 0; i < CS_API_QUERY_MAX && route->query[i] != NULL; i++) {
        if (cs_slice_eq_str(name, route->query[i])) {
            return eq < pair.n && ret[i].p == NULL &&
                   decode(cs_slice_from(pair, eq + 1), a, &ret[i]);
        }
    }
    return false;
}

bool cs_api_query(const struct cs_api_route *route, struct cs_slice query, struct cs_arena *a,
                  struct cs_slice ret[static CS_API_QUERY_MAX])
{
    memset(ret, 0, CS_API_QUERY_MAX * sizeof *ret);
    while (query.n > 0) {
        size_t n = cs_slice_find(query, '&');
        if (!query_pair(route, cs_slice_head(query, n), a, ret)) {
            return false;
        }
        bool more = n < query.n;
        query = cs_slice_from(query, n + 1);
        if (more && query.n == 0) {
            return false;
        }
    }
    return true;
}
