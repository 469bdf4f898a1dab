/* API calls: from front's message to the answer. Each runs in a coroutine of its own: find the
 * route, establish who calls, check that the row permits it, read query and body strictly, run the
 * handler, answer. Nothing reaches a handler that its row does not name.
 *
 * What arrives may carry a secret: bytes and JSON are wiped, and no error repeats the input. */
#include "control/api.h"

#include "audit/leaf.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/secret.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum { API_ARENA_CHUNK = 8192 };

enum cs_err cs_api_fail(struct cs_api_call *call, enum cs_err e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(call->why, sizeof call->why, fmt, ap);
    va_end(ap);
    return e;
}

enum cs_err cs_api_reply(struct cs_api_call *call, uint64_t status, json_t *object, bool ok)
{
    if (object == NULL || !ok) {
        json_decref(object);
        return CS_ERR_NO_MEMORY;
    }
    cs_assert(call->reply == NULL);
    call->status = status;
    call->reply = object;
    return CS_OK;
}

bool cs_api_number(struct cs_api_call *call, size_t i, uint64_t otherwise, uint64_t max,
                   uint64_t *ret)
{
    *ret = otherwise;
    if (call->query[i].p == NULL) {
        return true;
    }
    if (cs_slice_to_u64(call->query[i], ret) && *ret <= max) {
        return true;
    }
    (void)cs_api_fail(call, CS_ERR_INVALID, "\"%s\" must be a number of at most %llu",
                      call->route->query[i], (unsigned long long)max);
    return false;
}

struct cs_slice cs_api_caller_text(struct cs_api_call *call)
{
    if (call->caller.who != NULL) {
        return call->caller.who->id;
    }
    if (!call->caller.local) {
        return cs_arena_printf(&call->arena, "nobody (%.*s)", CS_SLICE_FMT(call->msg.address));
    }
    return cs_arena_printf(&call->arena, "uid %llu (local socket)",
                           (unsigned long long)call->caller.uid);
}

/* Without a token only who may set up gets this far: all of those are one caller. */
static bool same_caller(const struct cs_api_call *a, const struct cs_api_call *b)
{
    const struct cs_principal *x = a->caller.who, *y = b->caller.who;
    return x != NULL && y != NULL ? cs_slice_eq(x->id, y->id) : x == y;
}

static size_t waits_of(const struct cs_api_call *call)
{
    size_t n = 0;
    for (const struct cs_api_call *o = call->c->calls; o != NULL; o = o->next) {
        n += o->waiting && same_caller(o, call);
    }
    return n;
}

enum cs_err cs_api_wait(struct cs_api_call *call, struct cs_poll *p, uint64_t deadline_ns)
{
    struct cs_control *c = call->c;
    if (call->gone) {
        return CS_ERR_CANCELLED;
    }
    if (c->n_waiting >= CS_CONTROL_WAITING) {
        return cs_api_fail(call, CS_ERR_LIMIT, "too many callers wait already; ask again later");
    }
    /* SECURITY: a share for each, or one agent's polls would keep every approver from waiting. */
    if (waits_of(call) >= CS_LIMIT_WAITS_PER_CALLER) {
        return cs_api_fail(call, CS_ERR_LIMIT, "you wait in %d calls already; end one of them",
                           CS_LIMIT_WAITS_PER_CALLER);
    }
    c->n_waiting++;
    call->waiting = true;
    enum cs_err e = cs_poll_wait(p, deadline_ns);
    call->waiting = false;
    c->n_waiting--;
    return e;
}

/* ---- who calls ---- */

static enum cs_err identify(struct cs_api_call *call)
{
    struct cs_api_caller *who = &call->caller;
    who->local = call->msg.local == 1;
    who->uid = call->msg.uid;
    /* SECURITY: the user id counts only where front says that the kernel vouched for it. */
    who->may_set_up = who->local && (who->uid == 0 || who->uid == call->c->service_uid);
    who->may_audit = who->may_set_up;
    if (call->msg.token_sha256.n == 0) {
        return CS_OK;
    }
    if (call->msg.token_sha256.n != CS_SHA256) {
        return CS_ERR_UNAUTHENTICATED;
    }
    enum cs_err e = cs_identity_by_token(call->c->identity, call->msg.token_sha256.p, &call->arena,
                                         &who->chain);
    if (e != CS_OK || who->chain.n == 0) {
        who->chain.n = 0;
        cs_log(CS_EV_AUTH_FAILED, NULL, "address=%s error=%s", cs_log_quote(call->msg.address).text,
               cs_err_name(e));
        if (e == CS_ERR_UNAUTHENTICATED || e == CS_OK || e == CS_ERR_NOT_FOUND) {
            return cs_api_fail(call, CS_ERR_UNAUTHENTICATED, "the token is not valid (any more)");
        }
        return e;
    }
    who->who = &who->chain.p[who->chain.n - 1];
    /* SECURITY: rights go to a person itself, never to an agent acting for it. */
    if (who->who->kind == CS_PRINCIPAL_PERSON) {
        who->may_set_up |= cs_identity_in_group(&who->chain, CS_SLICE_LIT("countersign-admins"));
        who->may_audit |= who->may_set_up ||
                          cs_identity_in_group(&who->chain, CS_SLICE_LIT("countersign-auditors"));
    }
    return CS_OK;
}

static enum cs_err need_person(struct cs_api_call *call)
{
    const struct cs_principal *who = call->caller.who;
    if (who == NULL && call->caller.local) {
        return cs_api_fail(call, CS_ERR_DENIED,
                           "the local socket's user id never votes, not even root's: use a "
                           "person's own token");
    }
    if (who == NULL) {
        return cs_api_fail(call, CS_ERR_UNAUTHENTICATED, "this call needs a person's own token");
    }
    if (who->kind != CS_PRINCIPAL_PERSON) {
        return cs_api_fail(call, CS_ERR_DENIED,
                           "an %s never votes: only people sign, with their "
                           "own token",
                           cs_principal_kind_name(who->kind));
    }
    return CS_OK;
}

static enum cs_err permit(struct cs_api_call *call)
{
    const struct cs_api_caller *who = &call->caller;
    bool ok = false;
    switch (call->route->who) {
    case CS_API_ANYONE:
        return CS_OK;
    case CS_API_PERSON:
        return need_person(call);
    case CS_API_TOKEN:
        ok = who->who != NULL || who->may_set_up;
        break;
    case CS_API_AUDIT:
        ok = who->may_audit;
        break;
    case CS_API_SETUP:
        ok = who->may_set_up;
        break;
    case CS_API_NOBODY:
    default:
        break;
    }
    if (ok) {
        return CS_OK;
    }
    if (who->who == NULL && !who->local) {
        return cs_api_fail(call, CS_ERR_UNAUTHENTICATED,
                           "this call needs a token (Authorization: Bearer ...)");
    }
    if (who->who == NULL && call->route->who == CS_API_TOKEN) {
        return cs_api_fail(call, CS_ERR_UNAUTHENTICATED, "this call needs a token");
    }
    return cs_api_fail(call, CS_ERR_DENIED, "this call needs %s",
                       call->route->who == CS_API_AUDIT
                           ? "a person in countersign-admins or countersign-auditors, or root on "
                             "the local socket"
                           : "a person in countersign-admins, or root on the local socket");
}

static enum cs_err read_input(struct cs_api_call *call)
{
    const struct cs_api_route *r = call->route;
    if (!cs_api_query(r, call->msg.query, &call->arena, call->query)) {
        return cs_api_fail(call, CS_ERR_INVALID,
                           "the query has a name that this call does not know, or twice");
    }
    size_t n = 0;
    while (n < CS_JSON_FIELDS_MAX && r->body[n].name != NULL) {
        n++;
    }
    if (n == 0 && cs_slice_eq_str(call->msg.method, "GET") && call->msg.body.n > 0) {
        return cs_api_fail(call, CS_ERR_INVALID, "this call takes no body");
    }
    return cs_json_read(call->msg.body, r->body, n, call->body, &call->body_root, call->why,
                        sizeof call->why);
}

/* SECURITY: a change is in the log before it is made: after an error it is not made. */
static enum cs_err say_change(struct cs_api_call *call, bool failed)
{
    const struct cs_api_says *says = &call->route->says;
    struct cs_msg_audit m = cs_audit_event(CS_LEAF_CHANGE);
    struct cs_slice subject = call->name.n > 0 ? call->name : call->body[0].string;
    m.who = cs_api_caller_text(call);
    m.what = cs_slice_str(says->change);
    m.has = (UINT64_C(1) << CS_KEY_WHO) | (UINT64_C(1) << CS_KEY_WHAT);
    if (subject.n > 0) {
        m.subject = subject;
        m.has |= UINT64_C(1) << CS_KEY_SUBJECT;
    }
    if (call->msg.body.n > 0 && call->msg.body.n <= CS_LEAF_PRIVATE_MAX && !says->secret) {
        m.words = call->msg.body;
        m.has |= UINT64_C(1) << CS_KEY_WORDS;
    }
    if (failed) {
        m.has |= UINT64_C(1) << CS_KEY_OUTCOME;
    }
    enum cs_err e = cs_audit_say(call->c, &m);
    return e == CS_OK || failed
               ? e
               : cs_api_fail(call, e,
                             "nothing was changed, because the audit log cannot be written");
}

static enum cs_err run(struct cs_api_call *call)
{
    bool changes = call->route->says.change != NULL;
    enum cs_err e = changes ? say_change(call, false) : CS_OK;
    if (e != CS_OK) {
        return e;
    }
    e = call->route->fn(call);
    if (e != CS_OK && changes) {
        /* The log hears that it was not made; if it cannot, it says more than was done. */
        enum cs_err said = say_change(call, true);
        e = said == CS_ERR_CANCELLED ? said : e;
    }
    return e;
}

static enum cs_err handle(struct cs_api_call *call)
{
    enum cs_err e = cs_api_find(cs_api_routes, cs_api_routes_n, call->msg.method, call->msg.path,
                                &call->arena, &call->route, &call->name);
    if (e == CS_ERR_UNSUPPORTED) {
        return cs_api_fail(call, CS_ERR_NOT_FOUND, "this path does not know that method");
    }
    if (e != CS_OK) {
        return cs_api_fail(call, e, "there is no such call");
    }
    e = identify(call);
    if (e == CS_OK) {
        e = permit(call);
    }
    if (e == CS_OK) {
        e = read_input(call);
    }
    return e == CS_OK ? run(call) : e;
}

/* ---- answering ---- */

static void send_large(struct cs_api_call *call, uint64_t status, int fd)
{
    struct cs_msg_api_reply_large m = {.status = status, .type = CS_SLICE_LIT("application/json")};
    (void)cs_peer_send(call->front, CS_MSG_API_REPLY_LARGE, call->corr, &m, &fd, 1);
}

static void send_json(struct cs_api_call *call, uint64_t status, const json_t *root)
{
    struct cs_slice body = cs_json_dump(root);
    struct cs_msg_api_reply m = {
        .status = status, .type = CS_SLICE_LIT("application/json"), .body = body};
    if (body.n > CS_API_INLINE_MAX) {
        int fd = -1;
        enum cs_err e = body.n <= CS_LIMIT_IPC_BLOB_BYTES ? cs_sealed_make("reply", body, &fd)
                                                          : CS_ERR_TOO_LARGE;
        if (e == CS_OK) {
            send_large(call, status, fd);
            (void)close(fd);
        } else {
            m.status = 503;
            m.body = CS_SLICE_LIT("{\"error\":\"too-large\",\"message\":\"the answer is too large: "
                                  "ask for less\"}\n");
        }
        if (e == CS_OK) {
            cs_wipe((void *)(uintptr_t)body.p, body.n);
            cs_free((void *)(uintptr_t)body.p);
            return;
        }
    }
    if (body.n == 0) {
        m.status = 503;
        m.body = CS_SLICE_LIT("{\"error\":\"no-memory\",\"message\":\"no memory is left\"}\n");
    }
    (void)cs_peer_send(call->front, CS_MSG_API_REPLY, call->corr, &m, NULL, 0);
    if (body.n > 0) {
        cs_wipe((void *)(uintptr_t)body.p, body.n); /* a fresh token may be in it */
        cs_free((void *)(uintptr_t)body.p);
    }
}

static void answer(struct cs_api_call *call, enum cs_err e)
{
    if (e == CS_OK && call->reply_fd >= 0) {
        send_large(call, call->status > 0 ? call->status : 200, call->reply_fd);
        return;
    }
    if (e == CS_OK && call->reply != NULL) {
        send_json(call, call->status > 0 ? call->status : 200, call->reply);
        return;
    }
    e = e == CS_OK ? CS_ERR_INTERNAL : e;
    struct cs_slice sentence = cs_slice_str(call->why[0] != 0 ? call->why : cs_err_text(e));
    if (call->long_why.n > 0) {
        sentence = call->long_why;
    }
    if (e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_API_REFUSED, NULL, "method=%s path=%s by=%s error=%s why=%s",
               cs_log_quote(call->msg.method).text, cs_log_quote(call->msg.path).text,
               cs_log_quote(cs_api_caller_text(call)).text, cs_err_name(e),
               cs_log_quote(sentence).text);
    }
    json_t *root = json_object();
    bool ok = cs_json_put(root, "error", json_string(cs_err_name(e))) &&
              cs_json_put(root, "message", cs_json_text(sentence, &call->arena));
    send_json(call, (uint64_t)cs_err_http(e), ok ? root : NULL);
    json_decref(root);
}

static void call_free(struct cs_api_call *call)
{
    struct cs_peer *front = call->front;
    struct cs_control *c = call->c;
    json_decref(call->body_root);
    json_decref(call->reply);
    if (call->reply_fd >= 0) {
        (void)close(call->reply_fd);
    }
    cs_arena_done(&call->arena);
    if (call->bytes != NULL) {
        cs_wipe(call->bytes, call->n_bytes);
        cs_free(call->bytes);
    }
    struct cs_api_call **at = &c->calls;
    while (*at != NULL && *at != call) {
        at = &(*at)->next;
    }
    if (*at == call) {
        *at = call->next;
        c->n_calls--;
    }
    cs_free(call);
    cs_assert(front->jobs > 0);
    front->jobs--;
    cs_peer_release(front);
}

static void call_run(void *arg)
{
    struct cs_api_call *call = arg;
    enum cs_err e = handle(call);
    answer(call, e);
    call_free(call);
}

/* ---- front's channel ---- */

static void refuse_now(struct cs_peer *front, uint32_t corr, const char *body)
{
    struct cs_msg_api_reply m = {
        .status = 503, .type = CS_SLICE_LIT("application/json"), .body = cs_slice_str(body)};
    (void)cs_peer_send(front, CS_MSG_API_REPLY, corr, &m, NULL, 0);
}

static bool copy_message(struct cs_api_call *call, uint32_t corr, const struct cs_msg_api *msg)
{
    static uint8_t scratch[CS_LIMIT_IPC_BYTES + 1024]; /* used between two waits only */
    size_t n = cs_msg_encode(CS_MSG_API, corr, msg, scratch, sizeof scratch);
    /* SECURITY: the body may be a secret's value: it is wiped where it was received, too. */
    cs_wipe((void *)(uintptr_t)msg->body.p, msg->body.n);
    call->bytes = n > 0 ? cs_alloc(n) : NULL;
    call->n_bytes = n;
    if (call->bytes != NULL) {
        memcpy(call->bytes, scratch, n);
    }
    cs_wipe(scratch, n);
    enum cs_msg_type type;
    uint32_t same;
    union { /* decoding may want room for any message */
        struct cs_msg_api api;
        uint8_t raw[CS_MSG_STRUCT_MAX];
    } out;
    if (call->bytes == NULL ||
        !cs_msg_decode(cs_slice(call->bytes, n), &type, &same, &out, sizeof out)) {
        return false;
    }
    call->msg = out.api;
    return true;
}

void cs_api_start(struct cs_peer *front, uint32_t corr, const struct cs_msg_api *msg)
{
    struct cs_control *c = front->c;
    struct cs_api_call *call = c->n_calls < CS_CONTROL_CALLS ? cs_alloc(sizeof *call) : NULL;
    if (call == NULL) {
        refuse_now(front, corr, "{\"error\":\"limit\",\"message\":\"too many calls at once\"}\n");
        return;
    }
    call->c = c;
    call->front = front;
    call->corr = corr;
    call->reply_fd = -1;
    cs_arena_init(&call->arena, API_ARENA_CHUNK, CS_API_ARENA_MAX);
    front->jobs++;
    call->next = c->calls;
    c->calls = call;
    c->n_calls++;
    if (!copy_message(call, corr, msg) ||
        cs_co_spawn(c->loop, "api", call_run, call, &call->co) != CS_OK) {
        refuse_now(front, corr, "{\"error\":\"no-memory\",\"message\":\"no memory is left\"}\n");
        call_free(call);
    }
}

/* SECURITY: only a wait is cut short. What has begun to change something runs to its end: a caller
 * who hangs up must not be able to leave it half-done. */
static void leave(struct cs_api_call *call)
{
    call->gone = true;
    if (call->waiting) {
        cs_co_cancel(call->c->loop, call->co);
    }
}

void cs_api_gone(struct cs_peer *front, uint64_t corr)
{
    for (struct cs_api_call *call = front->c->calls; call != NULL; call = call->next) {
        if (call->front == front && call->corr == corr) {
            leave(call);
            return;
        }
    }
}

void cs_api_front_gone(struct cs_peer *front)
{
    for (struct cs_api_call *call = front->c->calls; call != NULL; call = call->next) {
        if (call->front == front) {
            leave(call);
        }
    }
    cs_peer_release(front);
}
