/* API calls `target check` and `target sql`. Called through the table in routes.c, by people who
 * may set up: what a target's roles can do is a map for an attacker. */
#include "check/check.h"
#include "control/api.h"
#include "control/check.h"

enum { SQL_MAX = 1024 * 1024 };

enum cs_err cs_api_target_check(struct cs_api_call *call)
{
    char why[300] = "";
    json_t *root = NULL;
    enum cs_err e = cs_ctl_check_run(call->c, call->name, &call->arena, &root, why, sizeof why);
    return e == CS_OK ? cs_api_reply(call, 200, root, true)
                      : cs_api_fail(call, e, "%s", why[0] != 0 ? why : cs_err_text(e));
}

/* "a,b" into names; false when there are too many. */
static bool split(struct cs_slice list, struct cs_slice ret[static CS_CHECK_SCHEMAS_MAX],
                  size_t *ret_n)
{
    size_t n = 0;
    while (list.n > 0) {
        size_t k = cs_slice_find(list, ',');
        if (n == CS_CHECK_SCHEMAS_MAX) {
            return false;
        }
        ret[n++] = cs_slice_head(list, k);
        list = cs_slice_from(list, k + 1);
    }
    *ret_n = n;
    return true;
}

enum cs_err cs_api_target_sql(struct cs_api_call *call)
{
    const struct cs_policy *p = call->c->view->policy; /* no wait from here to the end */
    const struct cs_target *t = cs_policy_target(p, call->name);
    struct cs_slice schemas[CS_CHECK_SCHEMAS_MAX];
    struct cs_buf out = cs_buf(SQL_MAX);
    size_t n = 0;
    if (t == NULL) {
        return cs_api_fail(call, CS_ERR_NOT_FOUND, "there is no such target");
    }
    if (!split(call->query[0], schemas, &n)) {
        return cs_api_fail(call, CS_ERR_INVALID, "more than %d schemas", CS_CHECK_SCHEMAS_MAX);
    }
    enum cs_err e = cs_check_sql(p, t, schemas, n, &out, call->why, sizeof call->why);
    json_t *root = json_object();
    bool ok = e == CS_OK && cs_json_put(root, "target", cs_json_text(t->name, &call->arena)) &&
              cs_json_put(root, "sql", cs_json_text(cs_buf_slice(&out), &call->arena));
    cs_buf_done(&out);
    if (e != CS_OK) {
        json_decref(root);
        return e;
    }
    return cs_api_reply(call, 200, root, ok);
}
