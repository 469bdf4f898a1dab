/* POST /v1/secrets/rotate: every stored secret is wrapped anew under the present master key, one
 * row after the other. Called through routes.c. Only ciphertext passes through here.
 *
 * Each row is changed by one statement and is readable before and after it, with the previous key
 * or the present one: whatever dies in between, the next call goes on where this one stopped. */
#include "control/api.h"

#include "base/log.h"
#include "base/time.h"

#include <stdio.h>

#define KEEPER_CALL_NS (10 * CS_NS_PER_S)
enum { TRIES = 3, ROW_ARENA = 64 * 1024 };

struct rotation {
    struct cs_api_call *call;
    json_t *failed; /* owned: [{"name", "why"}] */
    uint64_t rewrapped, unchanged;
};

/* One try. CONFLICT: somebody set the secret meanwhile. `why` is for people. */
static enum cs_err rotate_once(struct rotation *r, struct cs_slice name, struct cs_arena *a,
                               bool *ret_changed, char *why, size_t why_size)
{
    struct cs_store_secret row;
    struct cs_call done;
    struct cs_slice box = CS_SLICE_NULL;
    enum cs_err e = cs_store_secret_get(r->call->c->store, name, a, &row);
    if (e != CS_OK) {
        return e;
    }
    const struct cs_msg_rewrap m = {.name = name, .version = row.version, .box = row.box};
    e = cs_helper_call(r->call->c, CS_ROLE_KEEPER, CS_MSG_REWRAP, &m, cs_mono_ns() + KEEPER_CALL_NS,
                       &done);
    if (e == CS_OK) {
        const struct cs_msg_rewrapped *x = (const void *)done.msg.raw;
        e = done.type == CS_MSG_REWRAPPED && x->err < CS_ERR_MAX ? (enum cs_err)x->err
                                                                 : CS_ERR_PROTOCOL;
        (void)snprintf(why, why_size, "%.*s", (int)CS_MIN(x->text.n, (size_t)150), x->text.p);
        box = cs_arena_dup(a, x->box);
        e = e == CS_OK && x->box.n > 0 && box.p == NULL ? CS_ERR_NO_MEMORY : e;
    }
    cs_call_done(&done);
    *ret_changed = e == CS_OK && box.n > 0;
    return *ret_changed ? cs_store_secret_rewrap(r->call->c->store, name, row.version, box) : e;
}

static bool note_failure(struct rotation *r, struct cs_slice name, enum cs_err e, const char *why)
{
    json_t *o = json_object();
    bool ok = cs_json_put(o, "name", cs_json_text(name, &r->call->arena)) &&
              cs_json_put(o, "why", json_string(why[0] != 0 ? why : cs_err_text(e)));
    return json_array_append_new(r->failed, o) == 0 && ok;
}

/* False: it makes no sense to go on. */
static bool rotate_one(struct rotation *r, struct cs_slice name)
{
    struct cs_arena a;
    char why[160] = "";
    bool changed = false;
    enum cs_err e = CS_ERR_CONFLICT;
    for (int i = 0; e == CS_ERR_CONFLICT && i < TRIES; i++) {
        cs_arena_init(&a, 8192, ROW_ARENA);
        e = rotate_once(r, name, &a, &changed, why, sizeof why);
        cs_arena_done(&a);
    }
    if (e == CS_OK) {
        r->rewrapped += changed ? 1 : 0;
        r->unchanged += changed ? 0 : 1;
        return true;
    }
    return note_failure(r, name, e, why) && e != CS_ERR_UNAVAILABLE && e != CS_ERR_CANCELLED &&
           e != CS_ERR_TIMEOUT;
}

static enum cs_err reply(struct rotation *r, size_t n)
{
    size_t failed = json_array_size(r->failed);
    json_t *root = json_object(), *list = r->failed;
    r->failed = NULL;
    cs_log(CS_EV_ADMIN, NULL, "by=%s did=secret-rotate rewrapped=%llu unchanged=%llu failed=%zu",
           cs_log_quote(cs_api_caller_text(r->call)).text, (unsigned long long)r->rewrapped,
           (unsigned long long)r->unchanged, failed);
    bool ok = cs_json_put(root, "secrets", json_integer((json_int_t)n)) &&
              cs_json_put(root, "rewrapped", json_integer((json_int_t)r->rewrapped)) &&
              cs_json_put(root, "unchanged", json_integer((json_int_t)r->unchanged));
    ok = cs_json_put(root, "failed", list) && ok;
    return cs_api_reply(r->call, 200, root, ok);
}

enum cs_err cs_api_secret_rotate(struct cs_api_call *call)
{
    struct cs_store_secret *list = NULL;
    size_t n = 0;
    enum cs_err e = cs_store_secret_list(call->c->store, &call->arena, &list, &n);
    if (e != CS_OK) {
        return e;
    }
    struct rotation r = {.call = call, .failed = json_array()};
    if (r.failed == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    size_t done = 0;
    while (done < n && rotate_one(&r, list[done].name)) {
        done++;
    }
    if (done < n) {
        json_decref(r.failed);
        cs_log(CS_EV_ADMIN, NULL, "by=%s did=secret-rotate rewrapped=%llu stopped=yes",
               cs_log_quote(cs_api_caller_text(call)).text, (unsigned long long)r.rewrapped);
        return cs_api_fail(call, CS_ERR_UNAVAILABLE,
                           "the rotation stopped after %zu of %zu secrets, because the keeper does "
                           "not answer; every secret is readable, run it again",
                           done, n);
    }
    return reply(&r, n);
}
