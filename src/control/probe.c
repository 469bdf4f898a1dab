/* Looks at targets, done by probe: the task, its one connection, and the one proof for that. Called
 * by whoever wants to know something of a target, in a coroutine.
 *
 * SECURITY: probe is told a target's address and trust anchors, never a secret, and is given a
 * connection and a proof for a task that this process made, once each, with the credential that the
 * configuration names for looking; the elevated one is not reachable from here. What comes back was
 * made of a server's words: sound in form when it was checked, and believed in nothing. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/time.h"
#include "runtime/sock.h"
#include "wire/probe_task.h"
#include "wire/rows.h"

#include <stdio.h>
#include <unistd.h>

/* A task that probe works on: lives as long as the call of cs_probe_ask. */
struct cs_ctl_probe {
    struct cs_ctl_probe *next;
    struct cs_id id;
    struct cs_view *view; /* reference */
    const struct cs_target *target;
    bool dialed, proved; /* each once */
    uint64_t connection; /* 0 = none was handed over */
};

static struct cs_ctl_probe *find(struct cs_control *c, const struct cs_id *id)
{
    struct cs_ctl_probe *t = c->probes;
    while (t != NULL && !cs_id_eq(&t->id, id)) {
        t = t->next;
    }
    return t;
}

static void forget(struct cs_control *c, struct cs_ctl_probe *t)
{
    struct cs_ctl_probe **at = &c->probes;
    while (*at != t) {
        at = &(*at)->next;
    }
    *at = t->next;
    cs_view_drop(t->view);
}

static struct cs_slice looking_user(const struct cs_target *t)
{
    return t->has_probe ? t->probe_user : t->user;
}

/* ---- the connection ---- */

static void not_connected(struct cs_job *j, enum cs_err e, const char *text)
{
    struct cs_msg_probe_not_connected out = {.err = (uint64_t)e, .text = cs_slice_str(text)};
    (void)cs_peer_send(j->peer, CS_MSG_PROBE_NOT_CONNECTED, j->corr, &out, NULL, 0);
}

void cs_probe_connect(struct cs_job *j)
{
    const struct cs_msg_probe_connect *m = (const void *)j->msg.raw;
    struct cs_control *c = j->peer->c;
    struct cs_ctl_probe *t = find(c, &m->task);
    char text[400];
    int fd = -1;
    if (t == NULL || t->dialed) {
        not_connected(j, CS_ERR_DENIED, "there is no such task, or it had its connection");
        return;
    }
    t->dialed = true;
    struct cs_view *view = cs_view_keep(t->view); /* `t` may be gone after the next line */
    const struct cs_target *target = t->target;
    enum cs_err e = cs_connect_reach(c, target->address, &fd);
    t = find(c, &m->task);
    if (e != CS_OK) {
        cs_connect_unreachable(target, e, text, sizeof text);
        not_connected(j, e, text);
    } else if (t == NULL) {
        not_connected(j, CS_ERR_CANCELLED, "nobody waits for it any more");
    } else {
        t->connection = ++c->connections;
        struct cs_msg_probe_connected out = {.connection = t->connection,
                                             .user = looking_user(target)};
        (void)cs_peer_send(j->peer, CS_MSG_PROBE_CONNECTED, j->corr, &out, &fd, 1);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    cs_view_drop(view);
}

/* ---- the proof ---- */

static void proof(struct cs_job *j, enum cs_err e, const char *text, const struct cs_call *call)
{
    struct cs_msg_probe_proof out = {.err = (uint64_t)e, .text = cs_slice_str(text)};
    const struct cs_msg_proof_for *r = call != NULL ? (const void *)call->msg.raw : NULL;
    if (e == CS_OK && (r == NULL || call->type != CS_MSG_PROOF_FOR || r->err >= CS_ERR_MAX)) {
        out.err = CS_ERR_PROTOCOL;
    } else if (e == CS_OK) {
        out.err = r->err;
        out.text = r->text;
        out.proof = r->proof;
        out.server_signature = r->server_signature;
    }
    (void)cs_peer_send(j->peer, CS_MSG_PROBE_PROOF, j->corr, &out, NULL, 0);
}

void cs_probe_prove(struct cs_job *j)
{
    const struct cs_msg_probe_prove *m = (const void *)j->msg.raw;
    struct cs_control *c = j->peer->c;
    struct cs_ctl_probe *t = find(c, &m->task);
    struct cs_call call;
    char why[200] = "";
    /* SECURITY: taken out whatever happens next: one proof per task, tried or given. */
    if (t == NULL || t->connection == 0 || t->connection != m->connection || t->proved) {
        proof(j, CS_ERR_DENIED, "this connection is not known, or was proved before", NULL);
        return;
    }
    t->proved = true;
    struct cs_view *view = cs_view_keep(t->view);
    const struct cs_target *target = t->target;
    struct cs_msg_prove_for ask = {
        .session = t->id,
        .target = target->name,
        .connection = t->connection,
        .which = target->has_probe ? CS_CREDENTIAL_PROBE : CS_CREDENTIAL_EVERYDAY,
        .name = target->has_probe ? target->probe_password : target->password,
        .mechanism = m->mechanism,
        .client_first_bare = m->client_first_bare,
        .server_first = m->server_first,
        .client_final_bare = m->client_final_bare};
    enum cs_err e = cs_connect_proof(c, &ask, &j->arena, &call, why, sizeof why);
    proof(j, e, why[0] != 0 || e == CS_OK ? why : cs_err_text(e), &call);
    cs_call_done(&call);
    cs_view_drop(view);
}

/* ---- the task ---- */

static enum cs_err task_memory(const struct cs_ctl_probe *t, struct cs_slice text,
                               struct cs_slice names, int *ret_fd)
{
    const struct cs_target *target = t->target;
    uint16_t port;
    struct cs_probe_task task = {
        .target = target->name,
        .tls = target->tls,
        .channel_binding = target->channel_binding,
        .authentication = target->has_probe ? target->probe_authentication : target->authentication,
        .roots = target->tls_roots.n > 0 ? target->tls_roots : t->view->snapshot.system_roots,
        .database = target->database,
        .everyday = target->user,
        .elevated = target->has_elevated ? target->elevated_user : CS_SLICE_NULL,
        .text = text,
        .names = names};
    struct cs_buf b = cs_buf(CS_PROBE_TASK_MAX);
    enum cs_err e = CS_ERR_INVALID;
    if (cs_addr_split(target->address, false, &task.host, &port)) {
        cs_probe_task_write(&b, &task);
        e = b.bad ? CS_ERR_TOO_LARGE : cs_sealed_make("task", cs_buf_slice(&b), ret_fd);
    }
    cs_buf_done(&b);
    return e;
}

/* Sealed and not too large, whatever is in it. */
static enum cs_err take(struct cs_call *call, int *ret_fd, char *why, size_t why_size)
{
    const struct cs_msg_probed *r = (const void *)call->msg.raw;
    struct cs_slice map = CS_SLICE_NULL;
    if (call->type != CS_MSG_PROBED || r->err >= CS_ERR_MAX) {
        return CS_ERR_PROTOCOL;
    }
    if (r->err != CS_OK) {
        (void)snprintf(why, why_size, "%.*s", CS_SLICE_FMT(r->text));
        return (enum cs_err)r->err;
    }
    enum cs_err e = cs_sealed_map(call->fd[0], CS_LIMIT_PROBE_RESULT_BYTES, &map);
    if (e == CS_OK) {
        cs_sealed_unmap(map);
        *ret_fd = call->fd[0];
        call->fd[0] = -1;
    }
    return e;
}

struct asking {
    enum cs_probe_kind kind;
    struct cs_slice target, text, names;
};

static enum cs_err ask(struct cs_control *c, const struct asking *a, int *ret_fd, char *why,
                       size_t why_size)
{
    struct cs_ctl_probe t = {.view = c->view, .id = cs_id_new()};
    struct cs_call call = {.fd = {-1, -1, -1}};
    int fd = -1;
    why[0] = 0;
    t.target = c->view != NULL ? cs_policy_target(c->view->policy, a->target) : NULL;
    if (t.target == NULL) {
        (void)snprintf(why, why_size, "there is no such target");
        return CS_ERR_NOT_FOUND;
    }
    (void)cs_view_keep(t.view);
    t.next = c->probes;
    c->probes = &t;
    enum cs_err e = task_memory(&t, a->text, a->names, &fd);
    if (e == CS_OK) {
        struct cs_msg_probe m = {.task = t.id, .kind = (uint64_t)a->kind};
        uint64_t deadline = cs_mono_ns() + (CS_LIMIT_PROBE_TASK_S + 2) * CS_NS_PER_S;
        e = cs_helper_call_fd(c, CS_ROLE_PROBE, CS_MSG_PROBE, &m, fd, deadline, &call);
        (void)close(fd);
    }
    if (e == CS_OK) {
        e = take(&call, ret_fd, why, why_size);
    }
    cs_call_done(&call);
    forget(c, &t);
    if (e != CS_OK && why[0] == 0) {
        (void)snprintf(why, why_size, "%s",
                       e == CS_ERR_UNAVAILABLE ? "the probe is starting this moment; try again"
                                               : cs_err_text(e));
    }
    return e;
}

enum cs_err cs_probe_ask_memory(struct cs_control *c, struct cs_slice target,
                                enum cs_probe_kind kind, int *ret_fd, char *why, size_t why_size)
{
    const struct asking a = {.kind = kind, .target = target};
    return ask(c, &a, ret_fd, why, why_size);
}

enum cs_err cs_probe_ask(struct cs_control *c, struct cs_slice target, enum cs_probe_kind kind,
                         struct cs_slice text, struct cs_slice names, struct cs_slice *ret,
                         char *why, size_t why_size)
{
    const struct asking a = {.kind = kind, .target = target, .text = text, .names = names};
    struct cs_slice map = CS_SLICE_NULL;
    int fd = -1;
    enum cs_err e = ask(c, &a, &fd, why, why_size);
    if (e != CS_OK) {
        return e;
    }
    e = cs_sealed_map(fd, CS_LIMIT_PROBE_RESULT_BYTES, &map);
    (void)close(fd);
    if (e == CS_OK && !cs_rows_valid(map)) {
        cs_sealed_unmap(map);
        e = CS_ERR_CORRUPT;
    }
    if (e != CS_OK) {
        (void)snprintf(why, why_size, "%s", cs_err_text(e));
        return e;
    }
    *ret = map;
    return CS_OK;
}
