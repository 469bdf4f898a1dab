/* API calls that set up people and agents. A token is shown once, in the answer that made it, and
 * wiped here; the store keeps only what checks it. */
#include "control/api.h"

#include "base/log.h"
#include "base/secret.h"

#include <stdio.h>

static void note(struct cs_api_call *call, const char *did, struct cs_slice name)
{
    cs_log(CS_EV_ADMIN, NULL, "by=%s did=%s name=%s", cs_log_quote(cs_api_caller_text(call)).text,
           did, cs_log_quote(name).text);
}

static enum cs_err explain(struct cs_api_call *call, enum cs_err e, struct cs_slice name)
{
    switch ((int)e) {
    case CS_ERR_INVALID:
        return cs_api_fail(call, e,
                           "names of people, agents and groups are 1 to %d characters of "
                           "a-z, 0-9, \".\", \"_\", \"-\"",
                           CS_NAME_MAX);
    case CS_ERR_EXISTS:
        return cs_api_fail(call, e, "\"%.*s\" exists already", CS_SLICE_FMT(name));
    case CS_ERR_NOT_FOUND:
        return cs_api_fail(call, e, "there is no person or agent \"%.*s\"", CS_SLICE_FMT(name));
    case CS_ERR_CONFLICT:
        return cs_api_fail(call, e, "the owner must be a person that exists and is not disabled");
    default:
        return e;
    }
}

static enum cs_err reply_new(struct cs_api_call *call, struct cs_slice name,
                             const struct cs_slice *groups, size_t n_groups, const char *token)
{
    struct cs_arena *a = &call->arena;
    json_t *root = json_object();
    bool ok = cs_json_put(root, "id", cs_json_text(cs_identity_id(name, a), a)) &&
              cs_json_put(root, "name", cs_json_text(name, a)) &&
              cs_json_put(root, "groups", cs_json_list(groups, n_groups, a)) &&
              cs_json_put(root, "token", json_string(token));
    return cs_api_reply(call, 201, root, ok);
}

enum cs_err cs_api_user_add(struct cs_api_call *call)
{
    char token[CS_TOKEN_TEXT];
    struct cs_slice name = call->body[0].string, *groups = NULL;
    size_t n = 0;
    if (!cs_json_strings(&call->body[1], &call->arena, &groups, &n)) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err e = cs_identity_person_add(call->c->identity, name, groups, n, token);
    if (e != CS_OK) {
        return explain(call, e, name);
    }
    note(call, "user-add", name);
    e = reply_new(call, name, groups, n, token);
    cs_wipe(token, sizeof token);
    return e;
}

enum cs_err cs_api_agent_add(struct cs_api_call *call)
{
    char token[CS_TOKEN_TEXT];
    struct cs_slice name = call->body[0].string, owner = call->body[1].string, *groups = NULL;
    size_t n = 0;
    if (!cs_json_strings(&call->body[2], &call->arena, &groups, &n)) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err e = cs_identity_agent_add(call->c->identity, name, owner, groups, n, token);
    if (e != CS_OK) {
        return explain(call, e, name);
    }
    note(call, "agent-add", name);
    e = reply_new(call, name, groups, n, token);
    cs_wipe(token, sizeof token);
    return e;
}

/* The name of a principal id of this installation: "local:alice" → "alice". */
static struct cs_slice name_of(struct cs_slice id)
{
    size_t colon = cs_slice_find(id, ':');
    return colon < id.n ? cs_slice_from(id, colon + 1) : id;
}

static json_t *principal(const struct cs_store_principal *p, struct cs_arena *a)
{
    struct cs_slice *groups = NULL;
    size_t n = 0;
    json_t *o = json_object();
    bool ok = cs_identity_groups_split(p->groups, a, &groups, &n) &&
              cs_json_put(o, "id", cs_json_text(p->id, a)) &&
              cs_json_put(o, "name", cs_json_text(p->name, a)) &&
              cs_json_put(o, "kind",
                          json_string(cs_principal_kind_name((enum cs_principal_kind)p->kind))) &&
              cs_json_put(o, "groups", cs_json_list(groups, n, a)) &&
              cs_json_put(o, "owner",
                          p->owner.n > 0 ? cs_json_text(name_of(p->owner), a) : json_null()) &&
              cs_json_put(o, "disabled", json_boolean(p->disabled_ms != 0)) &&
              cs_json_put(o, "created", cs_json_time(p->created_ms));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

enum cs_err cs_api_user_list(struct cs_api_call *call)
{
    struct cs_store_principal *list = NULL;
    size_t n = 0;
    enum cs_err e = cs_identity_list(call->c->identity, &call->arena, &list, &n);
    if (e != CS_OK) {
        return e;
    }
    json_t *root = json_object(), *all = json_array();
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        ok = json_array_append_new(all, principal(&list[i], &call->arena)) == 0;
    }
    ok = cs_json_put(root, "users", all) && ok;
    return cs_api_reply(call, 200, root, ok);
}

/* SECURITY: a session carries the chain of its log-in, and decides by it. What is taken away must
 * not live on in what is open: its own sessions end, and those of its agents, of whose chains it is
 * the root. */
static enum cs_err end_sessions(struct cs_api_call *call, struct cs_slice why)
{
    enum cs_err e = cs_gate_kill_of(call->c, cs_identity_id(call->name, &call->arena), why);
    if (e != CS_OK && e != CS_ERR_CANCELLED) {
        return cs_api_fail(
            call, e, "the change was made, but not every session could be ended: do it again");
    }
    return e;
}

enum cs_err cs_api_user_token(struct cs_api_call *call)
{
    char token[CS_TOKEN_TEXT];
    enum cs_err e = cs_identity_token_renew(call->c->identity, call->name, token);
    if (e != CS_OK) {
        return explain(call, e, call->name);
    }
    note(call, "token-renew", call->name);
    e = end_sessions(call, CS_SLICE_LIT("the principal has a new token"));
    if (e != CS_OK) {
        cs_wipe(token, sizeof token);
        return e;
    }
    json_t *root = json_object();
    bool ok = cs_json_put(root, "name", cs_json_text(call->name, &call->arena)) &&
              cs_json_put(root, "token", json_string(token));
    cs_wipe(token, sizeof token);
    return cs_api_reply(call, 200, root, ok);
}

static enum cs_err reply_principal(struct cs_api_call *call)
{
    struct cs_store_principal p;
    enum cs_err e = cs_identity_get(call->c->identity, call->name, &call->arena, &p);
    return e == CS_OK ? cs_api_reply(call, 200, principal(&p, &call->arena), true) : e;
}

enum cs_err cs_api_user_groups(struct cs_api_call *call)
{
    struct cs_slice *groups = NULL;
    size_t n = 0;
    if (!cs_json_strings(&call->body[0], &call->arena, &groups, &n)) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err e = cs_identity_groups_set(call->c->identity, call->name, groups, n);
    if (e != CS_OK) {
        return explain(call, e, call->name);
    }
    note(call, "groups-set", call->name);
    e = end_sessions(call, CS_SLICE_LIT("the principal's groups changed"));
    return e == CS_OK ? reply_principal(call) : e;
}

enum cs_err cs_api_user_disable(struct cs_api_call *call)
{
    enum cs_err e = cs_identity_disable(call->c->identity, call->name);
    if (e != CS_OK) {
        return explain(call, e, call->name);
    }
    note(call, "disable", call->name);
    e = end_sessions(call, CS_SLICE_LIT("the principal was disabled"));
    return e == CS_OK ? reply_principal(call) : e;
}
