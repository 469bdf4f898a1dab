/* Connections to targets: dialled here, handed to the gate as a descriptor, and their credential
 * proved here, once. The gate never sees a secret, and gets the elevated credential's connection
 * only for a grant that this process has seen consumed in that very session. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/time.h"
#include "control/resolver.h"
#include "runtime/sock.h"
#include "vault/vault.h"

#include <stdio.h>
#include <unistd.h>

/* ---- CONNECT ---- */

static void not_connected(struct cs_job *j, enum cs_err e, const char *text)
{
    const struct cs_msg_connect *m = (const void *)j->msg.raw;
    struct cs_msg_not_connected out = {.err = (uint64_t)e, .text = cs_slice_str(text)};
    cs_log(CS_EV_UPSTREAM_FAILED, &m->session, "target=%s error=%s why=%s",
           cs_log_quote(m->target).text, cs_err_name(e), cs_log_quote(cs_slice_str(text)).text);
    (void)cs_peer_send(j->peer, CS_MSG_NOT_CONNECTED, j->corr, &out, NULL, 0);
}

static void unreachable(struct cs_job *j, const struct cs_target *t, enum cs_err e)
{
    char text[400], how[64];
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
        (void)snprintf(how, sizeof how, "waits for too many name look-ups");
        break;
    default:
        (void)snprintf(how, sizeof how, "cannot be reached");
        break;
    }
    (void)snprintf(text, sizeof text, "target \"%.*s\" at %.*s %s",
                   (int)CS_MIN(t->name.n, (size_t)64), t->name.p,
                   (int)CS_MIN(t->address.n, (size_t)200), t->address.p, how);
    not_connected(j, e, text);
}

static enum cs_err dial(struct cs_control *c, struct cs_slice address, int *ret_fd)
{
    uint64_t deadline = cs_mono_ns() + CS_LIMIT_CONNECT_S * CS_NS_PER_S;
    struct cs_resolved found;
    memset(&found, 0, sizeof found);
    enum cs_err e = cs_resolve(c->names, address, deadline, &found);
    if (e != CS_OK) {
        return e;
    }
    e = CS_ERR_UNREACHABLE;
    for (size_t i = 0; i < found.n; i++) {
        e = cs_connect((const struct sockaddr *)&found.sa[i], found.len[i], deadline, ret_fd);
        if (e == CS_OK || e == CS_ERR_CANCELLED || e == CS_ERR_TIMEOUT) {
            break;
        }
    }
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
    if (!cs_ctl_connection_add(s, out.connection, elevated,
                               elevated ? t->elevated_password : t->password)) {
        not_connected(j, CS_ERR_NO_MEMORY, "no memory is left");
        return;
    }
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
    enum cs_err e = dial(j->peer->c, t->address, &fd); /* `s` may be gone after this */
    if (e != CS_OK) {
        unreachable(j, t, e);
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

struct proving { /* belongs to the helper thread while it computes */
    struct cs_vault_prover *prover;
    struct cs_secret password;
    struct cs_arena arena; /* of the exchange's copies */
    struct cs_vault_exchange exchange;
    struct cs_vault_proof proof;
    const char *why;
    enum cs_err err;
};

static void proving_run(void *arg)
{
    struct proving *p = arg;
    /* Only this thread uses the prover: it may remember salted passwords without a lock. */
    p->err = cs_vault_scram_prove(p->prover, &p->password, &p->exchange, &p->proof, &p->why);
    cs_secret_done(&p->password);
}

static void proving_free(void *arg)
{
    struct proving *p = arg;
    cs_secret_done(&p->password);
    cs_wipe(&p->proof, sizeof p->proof);
    cs_arena_done(&p->arena);
    cs_free(p);
}

static void not_proved(struct cs_job *j, enum cs_err e, const char *text)
{
    const struct cs_msg_prove *m = (const void *)j->msg.raw;
    struct cs_msg_proof out = {.err = (uint64_t)e, .text = cs_slice_str(text)};
    cs_log(CS_EV_UPSTREAM_FAILED, &m->session, "connection=%llu error=%s why=%s",
           (unsigned long long)m->connection, cs_err_name(e),
           cs_log_quote(cs_slice_str(text)).text);
    (void)cs_peer_send(j->peer, CS_MSG_PROOF, j->corr, &out, NULL, 0);
}

/* The secret, unsealed, for as short as possible. */
static enum cs_err unseal(struct cs_job *j, struct cs_slice name, struct cs_secret *ret)
{
    struct cs_control *c = j->peer->c;
    struct cs_store_secret row;
    enum cs_err e = cs_store_secret_get(c->store, name, &j->arena, &row);
    return e == CS_OK ? cs_vault_unseal(c->vault, name, row.version, row.box, ret) : e;
}

static struct proving *proving_new(struct cs_job *j, struct cs_secret *password)
{
    const struct cs_msg_prove *m = (const void *)j->msg.raw;
    struct proving *p = cs_alloc(sizeof *p);
    if (p == NULL) {
        cs_secret_done(password);
        return NULL;
    }
    p->prover = j->peer->c->prover;
    p->password = *password;
    p->why = "";
    p->err = CS_ERR_INTERNAL;
    cs_arena_init(&p->arena, 4096, 64 * 1024);
    p->exchange.mechanism = cs_arena_dup(&p->arena, m->mechanism);
    p->exchange.client_first_bare = cs_arena_dup(&p->arena, m->client_first_bare);
    p->exchange.server_first = cs_arena_dup(&p->arena, m->server_first);
    p->exchange.client_final_bare = cs_arena_dup(&p->arena, m->client_final_bare);
    if (p->exchange.client_final_bare.p == NULL || p->exchange.server_first.p == NULL ||
        p->exchange.client_first_bare.p == NULL || p->exchange.mechanism.p == NULL) {
        proving_free(p);
        return NULL;
    }
    return p;
}

static void prove_with(struct cs_job *j, struct cs_slice secret)
{
    char text[200];
    struct cs_secret password = {0};
    enum cs_err e = unseal(j, secret, &password);
    if (e == CS_ERR_NOT_FOUND) {
        (void)snprintf(text, sizeof text, "the secret \"%.*s\" is not set: countersign secret set",
                       (int)CS_MIN(secret.n, (size_t)64), secret.p);
        not_proved(j, e, text);
        return;
    }
    struct proving *p = e == CS_OK ? proving_new(j, &password) : NULL;
    if (p == NULL) {
        not_proved(j, e == CS_OK ? CS_ERR_NO_MEMORY : e, "the credential cannot be read");
        return;
    }
    e = cs_slow_call(j->peer->c->keys, proving_run, proving_free, p,
                     cs_mono_ns() + CS_LIMIT_UPSTREAM_LOGIN_S * CS_NS_PER_S);
    if (e != CS_OK) {
        not_proved(j, e, cs_err_text(e)); /* p is the thread's */
        return;
    }
    if (p->err != CS_OK) {
        not_proved(j, p->err, p->why[0] != 0 ? p->why : cs_err_text(p->err));
    } else {
        const struct cs_vault_proof *f = &p->proof;
        struct cs_msg_proof out = {.proof = cs_slice(f->proof, sizeof f->proof),
                                   .server_signature =
                                       cs_slice(f->server_signature, sizeof f->server_signature)};
        (void)cs_peer_send(j->peer, CS_MSG_PROOF, j->corr, &out, NULL, 0);
    }
    proving_free(p);
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
    prove_with(j, conn.secret);
    cs_free((void *)(uintptr_t)conn.secret.p);
}
