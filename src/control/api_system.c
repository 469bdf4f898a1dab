/* API calls about the gateway itself: health, who the caller is, secrets, reload, status. */
#include "control/api.h"
#include "control/check.h"

#include "base/log.h"
#include "base/time.h"
#include "crypto/wrapped.h"

#include <stdio.h>

#define SUPERVISOR_CALL_NS (30 * CS_NS_PER_S)
#define KEEPER_CALL_NS     (10 * CS_NS_PER_S)

enum { SECRET_TRIES = 3, SEALED_MAX = 4096 + CS_SEAL_TO_OVERHEAD };

enum cs_err cs_api_health(struct cs_api_call *call)
{
    struct cs_control *c = call->c;
    if (c->phase != CS_CONTROL_RUN || cs_store_failure(c->store)->set) {
        return cs_api_fail(call, CS_ERR_UNAVAILABLE, "the store is not available");
    }
    json_t *root = json_object();
    return cs_api_reply(call, 200, root, cs_json_put(root, "status", json_string("ok")));
}

enum cs_err cs_api_whoami(struct cs_api_call *call)
{
    const struct cs_api_caller *caller = &call->caller;
    const struct cs_principal *who = caller->who;
    struct cs_arena *a = &call->arena;
    json_t *root = json_object();
    bool ok =
        cs_json_put(root, "id", who != NULL ? cs_json_text(who->id, a) : json_null()) &&
        cs_json_put(root, "name", who != NULL ? cs_json_text(who->name, a) : json_null()) &&
        cs_json_put(root, "kind",
                    who != NULL ? json_string(cs_principal_kind_name(who->kind)) : json_null()) &&
        cs_json_put(root, "groups",
                    who != NULL ? cs_json_list(who->groups, who->n_groups, a) : json_array()) &&
        cs_json_put(root, "may_set_up", json_boolean(caller->may_set_up)) &&
        cs_json_put(root, "local_uid",
                    caller->local ? json_integer((json_int_t)caller->uid) : json_null());
    return cs_api_reply(call, 200, root, ok);
}

/* ---- secrets ---- */

static enum cs_err keeper_away(struct cs_api_call *call, enum cs_err e)
{
    return e == CS_ERR_UNAVAILABLE
               ? cs_api_fail(call, e, "the keeper is starting this moment; try again")
               : e;
}

enum cs_err cs_api_secret_key(struct cs_api_call *call)
{
    uint8_t key[CS_X25519];
    char text[64], why[300] = "";
    enum cs_err e =
        cs_helper_seal_key(call->c, cs_mono_ns() + KEEPER_CALL_NS, key, why, sizeof why);
    if (e != CS_OK) {
        return why[0] != 0 ? cs_api_fail(call, e, "%s", why) : keeper_away(call, e);
    }
    text[cs_base64_encode(cs_slice(key, sizeof key), true, text)] = 0;
    json_t *root = json_object();
    bool ok = cs_json_put(root, "algorithm", json_string("x25519")) &&
              cs_json_put(root, "key", json_string(text));
    return cs_api_reply(call, 200, root, ok);
}

/* Ciphertext in, ciphertext out: what it is stays between the command and keeper. */
static enum cs_err reseal(struct cs_api_call *call, struct cs_slice sealed, uint64_t version,
                          struct cs_slice *ret)
{
    struct cs_msg_reseal m = {.name = call->name, .version = version, .sealed = sealed};
    struct cs_call done;
    enum cs_err e = cs_helper_call(call->c, CS_ROLE_KEEPER, CS_MSG_RESEAL, &m,
                                   cs_mono_ns() + KEEPER_CALL_NS, &done);
    if (e != CS_OK) {
        e = keeper_away(call, e);
    } else {
        const struct cs_msg_resealed *r = (const void *)done.msg.raw;
        if (done.type != CS_MSG_RESEALED || r->err >= CS_ERR_MAX) {
            e = CS_ERR_PROTOCOL;
        } else if (r->err != CS_OK) {
            e = cs_api_fail(call, (enum cs_err)r->err, "%.*s", CS_SLICE_FMT(r->text));
        } else {
            *ret = cs_arena_dup(&call->arena, r->box);
            e = ret->p != NULL ? CS_OK : CS_ERR_NO_MEMORY;
        }
    }
    cs_call_done(&done);
    return e;
}

static enum cs_err put_once(struct cs_api_call *call, struct cs_slice sealed, uint64_t *ret_version)
{
    struct cs_control *c = call->c;
    struct cs_store_secret old;
    struct cs_slice box;
    enum cs_err e = cs_store_secret_get(c->store, call->name, &call->arena, &old);
    if (e != CS_OK && e != CS_ERR_NOT_FOUND) {
        return e;
    }
    *ret_version = e == CS_OK ? old.version + 1 : 1;
    e = reseal(call, sealed, *ret_version, &box);
    return e == CS_OK ? cs_store_secret_put(c->store, call->name, *ret_version, box) : e;
}

enum cs_err cs_api_secret_put(struct cs_api_call *call)
{
    uint64_t version = 0;
    struct cs_slice text = call->body[0].string;
    uint8_t *raw = cs_arena_alloc(&call->arena, SEALED_MAX);
    size_t n = 0;
    if (raw == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    if (!cs_identity_name_valid(call->name)) {
        return cs_api_fail(
            call, CS_ERR_INVALID,
            "a secret's name is 1 to 64 characters of a-z, 0-9, \".\", \"_\", \"-\"");
    }
    if (!cs_base64_decode(text, true, raw, SEALED_MAX, &n) || n <= CS_SEAL_TO_OVERHEAD) {
        return cs_api_fail(call, CS_ERR_INVALID,
                           "\"sealed\" is not a box in base64url with 1 to 4096 bytes in it");
    }
    enum cs_err e = CS_ERR_CONFLICT;
    for (int i = 0; e == CS_ERR_CONFLICT && i < SECRET_TRIES; i++) {
        e = put_once(call, cs_slice(raw, n), &version); /* CONFLICT: somebody else was faster */
    }
    if (e != CS_OK) {
        return e;
    }
    cs_log(CS_EV_ADMIN, NULL, "by=%s did=secret-set name=%s version=%llu",
           cs_log_quote(cs_api_caller_text(call)).text, cs_log_quote(call->name).text,
           (unsigned long long)version);
    json_t *root = json_object();
    bool ok = cs_json_put(root, "name", cs_json_text(call->name, &call->arena)) &&
              cs_json_put(root, "version", json_integer((json_int_t)version));
    return cs_api_reply(call, 200, root, ok);
}

enum cs_err cs_api_secret_list(struct cs_api_call *call)
{
    struct cs_store_secret *list = NULL;
    size_t n = 0;
    enum cs_err e = cs_store_secret_list(call->c->store, &call->arena, &list, &n);
    if (e != CS_OK) {
        return e;
    }
    json_t *root = json_object(), *all = json_array();
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        if (cs_slice_find(list[i].name, '/') < list[i].name.n) {
            continue; /* a recording key, or the log's: nobody sets it */
        }
        json_t *o = json_object();
        ok = cs_json_put(o, "name", cs_json_text(list[i].name, &call->arena)) &&
             cs_json_put(o, "version", json_integer((json_int_t)list[i].version)) &&
             cs_json_put(o, "changed", cs_json_time(list[i].changed_ms));
        ok = json_array_append_new(all, o) == 0 && ok;
    }
    ok = cs_json_put(root, "secrets", all) && ok;
    return cs_api_reply(call, 200, root, ok);
}

/* ---- reload, status: the supervisor knows ---- */

static enum cs_err ask_supervisor(struct cs_api_call *call, enum cs_msg_type t, const void *msg,
                                  enum cs_msg_type want, struct cs_call *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->fd[0] = ret->fd[1] = ret->fd[2] = -1;
    if (call->c->supervisor == NULL) {
        return CS_ERR_UNAVAILABLE;
    }
    enum cs_err e = cs_channel_call(call->c->supervisor, t, msg, NULL, 0,
                                    cs_mono_ns() + SUPERVISOR_CALL_NS, ret);
    return e == CS_OK && ret->type != want ? CS_ERR_PROTOCOL : e;
}

/* "one per line" → a list; empty lines are left out. */
static json_t *lines(struct cs_slice text, struct cs_arena *a)
{
    json_t *list = json_array();
    while (text.n > 0) {
        size_t n = cs_slice_find(text, '\n');
        struct cs_slice line = cs_slice_head(text, n);
        if (line.n > 0 && json_array_append_new(list, cs_json_text(line, a)) != 0) {
            json_decref(list);
            return NULL;
        }
        text = cs_slice_from(text, n + 1);
    }
    return list;
}

enum cs_err cs_api_backup(struct cs_api_call *call)
{
    const char *path = "";
    enum cs_err e = cs_store_backup(call->c->store, &path);
    if (e == CS_ERR_CANCELLED) {
        return e;
    }
    cs_log(CS_EV_ADMIN, NULL, "by=%s did=backup result=%s",
           cs_log_quote(cs_api_caller_text(call)).text, cs_err_name(e));
    if (e != CS_OK) {
        return cs_api_fail(call, e,
                           e == CS_ERR_CONFLICT ? "a backup is being made; wait for it"
                           : e == CS_ERR_NO_SPACE
                               ? "there is no space for a second copy of the store"
                               : "the store could not be copied");
    }
    json_t *root = json_object();
    bool ok = cs_json_put(root, "path", cs_json_text(cs_slice_str(path), &call->arena));
    return cs_api_reply(call, 200, root, ok);
}

enum cs_err cs_api_reload(struct cs_api_call *call)
{
    struct cs_msg_reload ask = {0};
    struct cs_call done;
    enum cs_err e = ask_supervisor(call, CS_MSG_RELOAD, &ask, CS_MSG_RELOADED, &done);
    if (e == CS_OK) {
        const struct cs_msg_reloaded *m = (const void *)done.msg.raw;
        if (m->err != CS_OK) {
            /* 400: it is the configuration that is wrong, whatever went wrong on the way. */
            e = m->err == CS_ERR_UNAVAILABLE || m->err == CS_ERR_TIMEOUT ? (enum cs_err)m->err
                                                                         : CS_ERR_INVALID;
            call->long_why = cs_arena_dup(&call->arena, m->text);
        } else {
            char version[20];
            (void)snprintf(version, sizeof version, "%016llx", (unsigned long long)m->version);
            json_t *root = json_object();
            bool ok = cs_json_put(root, "version", json_string(version)) &&
                      cs_json_put(root, "warnings", lines(m->text, &call->arena));
            e = cs_api_reply(call, 200, root, ok);
        }
    }
    cs_call_done(&done);
    cs_log(CS_EV_ADMIN, NULL, "by=%s did=reload result=%s",
           cs_log_quote(cs_api_caller_text(call)).text, cs_err_name(e));
    return e;
}

/* Whether the store has the secret that a target's credential names. */
static bool secret_set(const struct cs_store_secret *list, size_t n, struct cs_slice name)
{
    for (size_t i = 0; i < n; i++) {
        if (cs_slice_eq(list[i].name, name)) {
            return true;
        }
    }
    return false;
}

static json_t *credential(struct cs_api_call *call, struct cs_slice user, struct cs_slice secret,
                          const struct cs_store_secret *list, size_t n)
{
    json_t *o = json_object();
    bool ok = cs_json_put(o, "user", cs_json_text(user, &call->arena)) &&
              cs_json_put(o, "secret", cs_json_text(secret, &call->arena)) &&
              cs_json_put(o, "set", json_boolean(secret.n == 0 || secret_set(list, n, secret)));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *targets(struct cs_api_call *call, const struct cs_store_secret *list, size_t n)
{
    const struct cs_policy *p = call->c->view->policy; /* no wait from here to the end */
    struct cs_arena *a = &call->arena;
    json_t *all = json_array();
    for (size_t i = 0; i < cs_policy_target_count(p); i++) {
        const struct cs_target *t = cs_policy_target_at(p, i);
        json_t *o = json_object();
        bool ok =
            cs_json_put(o, "name", cs_json_text(t->name, a)) &&
            cs_json_put(o, "kind", cs_json_text(t->kind, a)) &&
            cs_json_put(o, "address", cs_json_text(t->address, a)) &&
            cs_json_put(o, "database", cs_json_text(t->database, a)) &&
            cs_json_put(o, "tls", cs_json_text(t->tls, a)) &&
            cs_json_put(o, "credential", credential(call, t->user, t->password, list, n)) &&
            cs_json_put(o, "elevated",
                        t->has_elevated
                            ? credential(call, t->elevated_user, t->elevated_password, list, n)
                            : json_null()) &&
            cs_json_put(o, "probe",
                        t->has_probe ? credential(call, t->probe_user, t->probe_password, list, n)
                                     : json_null()) &&
            cs_json_put(o, "check", cs_ctl_check_last(call->c, t->name));
        if (json_array_append_new(all, o) != 0 || !ok) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static json_t *store_status(struct cs_control *c)
{
    struct cs_store_stats s = cs_store_stats(c->store);
    return json_pack("{s:b,s:I,s:I,s:I,s:I,s:I}", "ok", !cs_store_failure(c->store)->set, "commits",
                     (json_int_t)s.commits, "operations", (json_int_t)s.operations, "batch_max",
                     (json_int_t)s.batch_max, "no_space", (json_int_t)s.no_space, "queued",
                     (json_int_t)s.queued);
}

/* {TARGET: milliseconds since its catalogue was asked for, or null} */
static json_t *catalogues(const struct cs_api_call *call)
{
    json_t *root = json_object();
    struct cs_slice target;
    uint64_t age;
    for (size_t i = 0; cs_catalogue_at(call->c, i, &target, &age); i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "%.*s", CS_SLICE_FMT(target));
        if (!cs_json_put(root, name,
                         age == UINT64_MAX ? json_null()
                                           : json_integer((json_int_t)(age / CS_NS_PER_MS)))) {
            json_decref(root);
            return NULL;
        }
    }
    return root;
}

static bool own_facts(struct cs_api_call *call, json_t *root, size_t held,
                      const struct cs_store_secret *list, size_t n)
{
    struct cs_control *c = call->c;
    char version[20];
    (void)snprintf(version, sizeof version, "%016llx",
                   (unsigned long long)cs_policy_version(c->view->policy));
    return cs_json_put(root, "policy", json_string(version)) &&
           cs_json_put(root, "url", cs_json_text(c->view->snapshot.url, &call->arena)) &&
           cs_json_put(root, "store", store_status(c)) &&
           cs_json_put(root, "sessions", json_integer((json_int_t)c->sessions.n)) &&
           cs_json_put(root, "held", json_integer((json_int_t)held)) &&
           cs_json_put(root, "waiting_calls", json_integer((json_int_t)c->n_waiting)) &&
           cs_json_put(root, "catalogues", catalogues(call)) &&
           cs_json_put(root, "targets", targets(call, list, n));
}

enum cs_err cs_api_status(struct cs_api_call *call)
{
    struct cs_msg_status ask = {0};
    struct cs_call done;
    struct cs_store_secret *list = NULL;
    struct cs_card *cards = NULL;
    size_t n = 0, held = 0;
    uint64_t seq = 0;
    struct cs_approval_query pending = {.state = CS_REQUEST_PENDING, .all = true, .limit = 1000};
    enum cs_err e = cs_store_secret_list(call->c->store, &call->arena, &list, &n);
    if (e == CS_OK) {
        e = cs_approval_list(call->c->approval, &pending, &call->arena, &cards, &held, &seq);
    }
    if (e != CS_OK) {
        return e;
    }
    json_t *root = NULL;
    e = ask_supervisor(call, CS_MSG_STATUS, &ask, CS_MSG_STATUS_IS, &done);
    if (e == CS_OK) {
        const struct cs_msg_status_is *m = (const void *)done.msg.raw;
        root = json_loadb((const char *)m->json.p, m->json.n, JSON_REJECT_DUPLICATES, NULL);
    }
    cs_call_done(&done);
    if (e == CS_ERR_CANCELLED) {
        return e;
    }
    if (!json_is_object(root)) {
        /* A supervisor that does not answer is itself what doctor wants to know. */
        json_decref(root);
        root = json_object();
        (void)cs_json_put(root, "supervisor", json_string(cs_err_text(e)));
    }
    return cs_api_reply(call, 200, root, own_facts(call, root, held, list, n));
}
