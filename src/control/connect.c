/* Connections to targets: dialled by dialer, handed to the gate as a descriptor, and their
 * credential proved by keeper, once: here is decided whether. The gate never sees a secret, and
 * gets the elevated credential's connection only for a grant that this process has seen consumed in
 * that very session. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "ipc/metrics.h"

#include <stdio.h>
#include <unistd.h>

/* ---- CONNECT ---- */

static void count(const struct cs_msg_connect *m, enum cs_err e)
{
    size_t which = m->which == CS_CREDENTIAL_ELEVATED ? 1 : 0;
    cs_metric_add(CS_SLOT_UPSTREAMS + cs_metric_reached(e) * CS_DIM_CREDENTIAL + which, 1);
}

static void not_connected(struct cs_job *j, enum cs_err e, const char *text)
{
    const struct cs_msg_connect *m = (const void *)j->msg.raw;
    struct cs_msg_not_connected out = {.err = (uint64_t)e, .text = cs_slice_str(text)};
    count(m, e);
    cs_log(CS_EV_UPSTREAM_FAILED, &m->session, "target=%s error=%s why=%s",
           cs_log_quote(m->target).text, cs_err_name(e), cs_log_quote(cs_slice_str(text)).text);
    (void)cs_peer_send(j->peer, CS_MSG_NOT_CONNECTED, j->corr, &out, NULL, 0);
}

void cs_connect_unreachable(const struct cs_target *t, enum cs_err e, char *text, size_t size)
{
    char how[120];
    switch ((int)e) {
    case CS_ERR_REFUSED:
        (void)snprintf(how, sizeof how, "refuses connections");
        break;
    case CS_ERR_TIMEOUT:
        (void)snprintf(how, sizeof how, "did not answer within %d seconds", CS_LIMIT_CONNECT_S);
        break;
    case CS_ERR_NOT_FOUND:
        (void)snprintf(how, sizeof how, "has a name that does not resolve");
        break;
    case CS_ERR_LIMIT:
        (void)snprintf(how, sizeof how, "waits for too many connections already");
        break;
    case CS_ERR_DENIED:
        (void)snprintf(how, sizeof how,
                       "leads to a link-local or metadata address, which only a target "
                       "written as that number may have");
        break;
    case CS_ERR_UNAVAILABLE:
        (void)snprintf(how, sizeof how,
                       "cannot be dialled this moment: the dialer is starting; try again");
        break;
    default:
        (void)snprintf(how, sizeof how, "cannot be reached");
        break;
    }
    (void)snprintf(text, size, "target \"%.*s\" at %.*s %s", (int)CS_MIN(t->name.n, (size_t)64),
                   t->name.p, (int)CS_MIN(t->address.n, (size_t)200), t->address.p, how);
}

/* Dialer checks the address against its own snapshot: it dials no other. */
enum cs_err cs_connect_reach(struct cs_control *c, struct cs_slice address, int *ret_fd)
{
    uint64_t deadline = cs_mono_ns() + CS_LIMIT_CONNECT_S * CS_NS_PER_S;
    struct cs_msg_dial m = {.address = address, .deadline = deadline};
    struct cs_call call;
    enum cs_err e = cs_helper_call(c, CS_ROLE_DIALER, CS_MSG_DIAL, &m,
                                   deadline + CS_NS_PER_S /* its answer comes first */, &call);
    if (e == CS_OK && call.type == CS_MSG_DIALED) {
        *ret_fd = call.fd[0];
        call.fd[0] = -1;
    } else if (e == CS_OK) {
        const struct cs_msg_not_dialed *r = (const void *)call.msg.raw;
        e = call.type == CS_MSG_NOT_DIALED && r->err != CS_OK && r->err < CS_ERR_MAX
                ? (enum cs_err)r->err
                : CS_ERR_PROTOCOL;
    }
    cs_call_done(&call);
    return e;
}

/* SECURITY: who may have which connection. The sentence why not, or NULL. An elevated one takes the
 * grant's only chance, also when the target cannot be reached afterwards. */
static const char *permit(struct cs_job *j, struct cs_ctl_session *s,
                          const struct cs_policy *policy, const struct cs_target *t)
{
    const struct cs_msg_connect *m = (const void *)j->msg.raw;
    struct cs_ctl_who who;
    if (!cs_ctl_session_who(s, &j->arena, &who)) {
        return "no memory is left";
    }
    struct cs_policy_session *p = cs_policy_session_new(policy, &who.chain, t, &j->arena);
    if (p == NULL || !cs_policy_may_open(p, NULL)) {
        return "no rule lets this session use its target";
    }
    if (m->which == CS_CREDENTIAL_EVERYDAY) {
        return NULL;
    }
    if (m->which != CS_CREDENTIAL_ELEVATED || !t->has_elevated) {
        return "the target has no such credential";
    }
    if (!cs_ctl_grant_use(s, &m->grant)) {
        return "the elevated credential is given only once for each approval, to its session";
    }
    return NULL;
}

static void hand_over(struct cs_job *j, const struct cs_target *t, int fd)
{
    const struct cs_msg_connect *m = (const void *)j->msg.raw;
    struct cs_control *c = j->peer->c;
    bool elevated = m->which == CS_CREDENTIAL_ELEVATED;
    struct cs_ctl_session *s = cs_gate_session(j->peer, &m->session);
    if (s == NULL) {
        not_connected(j, CS_ERR_CANCELLED, "the session has ended");
        return;
    }
    struct cs_msg_connected out = {.connection = ++c->connections,
                                   .user = elevated ? t->elevated_user : t->user};
    const struct cs_ctl_connection made = {.number = out.connection,
                                           .elevated = elevated,
                                           .grant = m->grant,
                                           .consumed_ns = cs_ctl_grant_consumed(s, &m->grant),
                                           .secret = elevated ? t->elevated_password : t->password};
    if (!cs_ctl_connection_add(s, &made)) {
        not_connected(j, CS_ERR_NO_MEMORY, "no memory is left");
        return;
    }
    count(m, CS_OK);
    (void)cs_peer_send(j->peer, CS_MSG_CONNECTED, j->corr, &out, &fd, 1);
}

static void dial_with(struct cs_job *j, struct cs_ctl_session *s, const struct cs_view *view)
{
    const struct cs_msg_connect *m = (const void *)j->msg.raw;
    const struct cs_target *t = cs_policy_target(view->policy, m->target);
    if (t == NULL || !cs_slice_eq(m->target, s->target)) {
        not_connected(j, CS_ERR_NOT_FOUND,
                      t == NULL ? "the target is no longer in the configuration"
                                : "this is not the session's target");
        return;
    }
    if (m->which == CS_CREDENTIAL_ELEVATED && m->snapshot != cs_policy_version(view->policy)) {
        /* What was approved names a server, a database and a way of knowing it that may be others.
         */
        not_connected(j, CS_ERR_DENIED, "the configuration has changed since it was approved");
        return;
    }
    const char *why = permit(j, s, view->policy, t);
    if (why != NULL) {
        not_connected(j, CS_ERR_DENIED, why);
        return;
    }
    int fd = -1;
    enum cs_err e = cs_connect_reach(j->peer->c, t->address, &fd); /* `s` may be gone after this */
    if (e != CS_OK) {
        char text[400];
        cs_connect_unreachable(t, e, text, sizeof text);
        not_connected(j, e, text);
        return;
    }
    hand_over(j, t, fd);
    (void)close(fd);
}

void cs_connect_dial(struct cs_job *j)
{
    const struct cs_msg_connect *m = (const void *)j->msg.raw;
    struct cs_ctl_session *s = cs_gate_session(j->peer, &m->session);
    if (s == NULL) {
        not_connected(j, CS_ERR_DENIED, "the session is not known");
        return;
    }
    struct cs_view *view = cs_view_keep(j->peer->c->view);
    dial_with(j, s, view);
    cs_view_drop(view);
}

/* ---- PROVE ---- */

static void not_proved(struct cs_job *j, enum cs_err e, const char *text)
{
    const struct cs_msg_prove *m = (const void *)j->msg.raw;
    struct cs_msg_proof out = {.err = (uint64_t)e, .text = cs_slice_str(text)};
    cs_log(CS_EV_UPSTREAM_FAILED, &m->session, "connection=%llu error=%s why=%s",
           (unsigned long long)m->connection, cs_err_name(e),
           cs_log_quote(cs_slice_str(text)).text);
    (void)cs_peer_send(j->peer, CS_MSG_PROOF, j->corr, &out, NULL, 0);
}

/* Keeper's answer, or why there is none, to the gate. */
static void pass_on(struct cs_job *j, enum cs_err e, const struct cs_call *call)
{
    const struct cs_msg_proof_for *r = (const void *)call->msg.raw;
    if (e == CS_ERR_UNAVAILABLE) {
        not_proved(j, e, "the keeper is starting this moment; try again");
    } else if (e != CS_OK || call->type != CS_MSG_PROOF_FOR || r->err >= CS_ERR_MAX) {
        not_proved(j, e == CS_OK ? CS_ERR_PROTOCOL : e, cs_err_text(e));
    } else if (r->err != CS_OK) {
        char text[300];
        (void)snprintf(text, sizeof text, "%.*s", CS_SLICE_FMT(r->text));
        not_proved(j, (enum cs_err)r->err, text);
    } else {
        struct cs_msg_proof out = {.proof = r->proof, .server_signature = r->server_signature};
        (void)cs_peer_send(j->peer, CS_MSG_PROOF, j->corr, &out, NULL, 0);
    }
}

enum cs_err cs_connect_proof(struct cs_control *c, struct cs_msg_prove_for *ask, struct cs_arena *a,
                             struct cs_call *ret, char *why, size_t why_size)
{
    struct cs_store_secret row;
    *ret = (struct cs_call){.fd = {-1, -1, -1}};
    enum cs_err e = cs_store_secret_get(c->store, ask->name, a, &row);
    if (e == CS_ERR_NOT_FOUND) {
        (void)snprintf(why, why_size, "the secret \"%.*s\" is not set: countersign secret set",
                       (int)CS_MIN(ask->name.n, (size_t)64), ask->name.p);
    } else if (e != CS_OK) {
        (void)snprintf(why, why_size, "the credential cannot be read");
    }
    if (e != CS_OK) {
        return e;
    }
    ask->deadline = cs_mono_ns() + CS_LIMIT_UPSTREAM_LOGIN_S * CS_NS_PER_S;
    ask->version = row.version;
    ask->box = row.box;
    return cs_helper_call(c, CS_ROLE_KEEPER, CS_MSG_PROVE_FOR, ask, ask->deadline, ret);
}

/* SECURITY: session, target, connection and grant are this process's own knowledge, never the
 * gate's words; keeper refuses a grant that had its proof. The box stays closed here. */
static void prove_with(struct cs_job *j, struct cs_slice target,
                       const struct cs_ctl_connection *conn)
{
    const struct cs_msg_prove *m = (const void *)j->msg.raw;
    struct cs_call call;
    char text[200] = "";
    struct cs_msg_prove_for ask = {.session = m->session,
                                   .target = target,
                                   .connection = conn->number,
                                   .which = conn->elevated ? CS_CREDENTIAL_ELEVATED
                                                           : CS_CREDENTIAL_EVERYDAY,
                                   .name = conn->secret,
                                   .mechanism = m->mechanism,
                                   .client_first_bare = m->client_first_bare,
                                   .server_first = m->server_first,
                                   .client_final_bare = m->client_final_bare};
    if (conn->elevated) {
        ask.grant = conn->grant;
        ask.consumed = conn->consumed_ns;
    }
    enum cs_err e = cs_connect_proof(j->peer->c, &ask, &j->arena, &call, text, sizeof text);
    if (text[0] != 0) {
        not_proved(j, e, text);
    } else {
        pass_on(j, e, &call);
    }
    cs_call_done(&call);
}

void cs_connect_prove(struct cs_job *j)
{
    const struct cs_msg_prove *m = (const void *)j->msg.raw;
    struct cs_ctl_session *s = cs_gate_session(j->peer, &m->session);
    struct cs_ctl_connection conn;
    /* SECURITY: taken out whatever happens next: one proof per connection, tried or given. */
    if (s == NULL || !cs_ctl_connection_take(s, m->connection, &conn)) {
        not_proved(j, CS_ERR_DENIED, "this connection is not known, or was proved before");
        return;
    }
    struct cs_slice target = cs_arena_dup(&j->arena, s->target); /* `s` may go while this waits */
    if (target.p == NULL) {
        not_proved(j, CS_ERR_NO_MEMORY, "no memory is left");
    } else {
        prove_with(j, target, &conn);
    }
    cs_free((void *)(uintptr_t)conn.secret.p);
}
