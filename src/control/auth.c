/* Logging in at a gate: by SCRAM's two steps, a token or a certificate, then a session. Every way
 * of being wrong gives the same answer; what exists (names, targets) is told only to somebody who
 * has proved who they are. Verifiers never leave this process, passwords never reach it. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/id.h"
#include "base/log.h"
#include "base/time.h"
#include "crypto/client_certificate.h"
#include "ipc/metrics.h"

#include <stdio.h>

enum { AUTH_NAME_MAX = 256, AUTH_ADDRESS_MAX = 128 };

struct cs_attempt { /* what the first message said, until the proof comes */
    struct cs_attempt *next;
    uint64_t number, gate_key, expires_ns;
    struct cs_arena arena;
    struct cs_slice user, target, address;
    bool certificate; /* a TLS handshake: `nonce` is what its client must sign */
    uint8_t nonce[CS_CLIENT_NONCE];
    const char *why; /* for the log: what was wrong; NULL: nothing more is known */
};

static void attempt_free(struct cs_control *c, struct cs_attempt **at)
{
    struct cs_attempt *x = *at;
    *at = x->next;
    c->n_attempts--;
    cs_arena_done(&x->arena);
    cs_free(x);
}

void cs_auth_tick(struct cs_control *c)
{
    uint64_t now = cs_mono_ns();
    struct cs_attempt **at = &c->attempts;
    while (*at != NULL) {
        if ((*at)->expires_ns <= now) {
            attempt_free(c, at);
        } else {
            at = &(*at)->next;
        }
    }
}

void cs_auth_free(struct cs_control *c)
{
    while (c->attempts != NULL) {
        attempt_free(c, &c->attempts);
    }
}

static enum cs_err attempt_add(struct cs_peer *p, uint64_t number, const struct cs_attempt *said)
{
    struct cs_control *c = p->c;
    if (c->n_attempts >= CS_ATTEMPTS_MAX) {
        /* The oldest goes, as in identity/: a flood of first messages must not keep people out. */
        struct cs_attempt **last = &c->attempts;
        while ((*last)->next != NULL) {
            last = &(*last)->next;
        }
        attempt_free(c, last);
    }
    struct cs_attempt *x = cs_alloc(sizeof *x);
    if (x == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    cs_arena_init(&x->arena, 512, 4096);
    x->number = number;
    x->gate_key = p->key;
    x->expires_ns = cs_mono_ns() + CS_ATTEMPT_S * CS_NS_PER_S;
    x->certificate = said->certificate;
    memcpy(x->nonce, said->nonce, sizeof x->nonce);
    x->user = cs_arena_dup(&x->arena, cs_slice_head(said->user, AUTH_NAME_MAX));
    x->target = cs_arena_dup(&x->arena, said->target);
    x->address = cs_arena_dup(&x->arena, cs_slice_head(said->address, AUTH_ADDRESS_MAX));
    if (x->user.p == NULL || x->target.p == NULL || x->address.p == NULL) {
        cs_arena_done(&x->arena);
        cs_free(x);
        return CS_ERR_NO_MEMORY;
    }
    x->next = c->attempts;
    c->attempts = x;
    c->n_attempts++;
    return CS_OK;
}

/* Takes it out: an attempt is good for one proof, from the gate that began it. */
static bool attempt_take(struct cs_control *c, uint64_t number, uint64_t gate_key, struct cs_job *j,
                         struct cs_attempt *ret)
{
    struct cs_attempt **at = &c->attempts;
    while (*at != NULL && ((*at)->number != number || (*at)->gate_key != gate_key)) {
        at = &(*at)->next;
    }
    if (*at == NULL) {
        return false;
    }
    ret->user = cs_arena_dup(&j->arena, (*at)->user);
    ret->target = cs_arena_dup(&j->arena, (*at)->target);
    ret->address = cs_arena_dup(&j->arena, (*at)->address);
    ret->certificate = (*at)->certificate;
    memcpy(ret->nonce, (*at)->nonce, sizeof ret->nonce);
    attempt_free(c, at);
    return ret->user.p != NULL && ret->target.p != NULL && ret->address.p != NULL;
}

static void answer(struct cs_job *j, uint64_t attempt, enum cs_err e, const char *text)
{
    struct cs_msg_auth_result r = {
        .attempt = attempt, .err = (uint64_t)e, .text = cs_slice_str(text)};
    (void)cs_peer_send(j->peer, CS_MSG_AUTH_RESULT, j->corr, &r, NULL, 0);
}

/* SECURITY: one sentence for an unknown name, a disabled one, a wrong token and a stale attempt. */
static void refuse(struct cs_job *j, uint64_t attempt, const struct cs_attempt *x, enum cs_err e)
{
    bool ours = e == CS_ERR_NO_SPACE || e == CS_ERR_IO || e == CS_ERR_NO_MEMORY ||
                e == CS_ERR_UNAVAILABLE || e == CS_ERR_LIMIT || e == CS_ERR_CANCELLED;
    cs_metric_add(CS_SLOT_LOGINS + (ours ? CS_LOGIN_FAILED : CS_LOGIN_REFUSED), 1);
    cs_log(ours ? CS_EV_STORE_FAILED : CS_EV_AUTH_FAILED, NULL, "user=%s address=%s error=%s%s%s",
           cs_log_quote(x->user).text, cs_log_quote(x->address).text, cs_err_name(e),
           x->why != NULL ? " certificate=" : "",
           x->why != NULL ? cs_log_quote(cs_slice_str(x->why)).text : "");
    if (ours) {
        answer(j, attempt, CS_ERR_UNAVAILABLE, "logging in is not possible now; try again");
    } else if (e == CS_ERR_CONFLICT) { /* told to one who has proved who it is */
        answer(j, attempt, CS_ERR_UNAVAILABLE, "what you may do has just changed; try again");
    } else if (e == CS_ERR_PROTOCOL || e == CS_ERR_UNSUPPORTED) {
        answer(j, attempt, e, cs_err_text(e));
    } else {
        answer(j, attempt, CS_ERR_UNAUTHENTICATED, "the name or the token is wrong");
        cs_audit_login_failed(j->peer->c, x->user, x->target);
    }
}

void cs_auth_start(struct cs_job *j)
{
    const struct cs_msg_auth_start *m = (const void *)j->msg.raw;
    struct cs_identity_challenge ch;
    struct cs_attempt said = {.user = m->user, .target = m->target, .address = m->address};
    if (m->target.n > AUTH_NAME_MAX) {
        refuse(j, 0, &said, CS_ERR_UNAUTHENTICATED);
        return;
    }
    enum cs_err e =
        cs_identity_scram_start(j->peer->c->identity, j->peer->key, m->user, m->client_nonce, &ch);
    if (e == CS_OK) {
        e = attempt_add(j->peer, ch.attempt, &said);
    }
    if (e != CS_OK) {
        refuse(j, 0, &said, e == CS_ERR_INVALID ? CS_ERR_PROTOCOL : e);
        return;
    }
    struct cs_msg_auth_challenge out = {.attempt = ch.attempt,
                                        .salt = cs_slice(ch.salt, sizeof ch.salt),
                                        .iterations = ch.iterations,
                                        .nonce = cs_slice_str(ch.nonce)};
    (void)cs_peer_send(j->peer, CS_MSG_AUTH_CHALLENGE, j->corr, &out, NULL, 0);
}

/* Stores the session. SECURITY: token, groups or standing of somebody in the chain may have changed
 * since the proof. A change ends the sessions that it sees, so that is looked at once more now that
 * ours can be seen; and a kill since then finds it in the table. */
static enum cs_err session_store(struct cs_job *j, const struct cs_store_session *row,
                                 const struct cs_chain *chain, const struct cs_identity_mark *mark)
{
    struct cs_control *c = j->peer->c;
    enum cs_err e = cs_store_session_open(c->store, row);
    if (e != CS_OK) {
        return e;
    }
    e = cs_identity_still(c->identity, row->actor, mark, &j->arena);
    const struct cs_ctl_session *s = cs_sessions_get(&c->sessions, &row->id);
    if (e == CS_OK && (s == NULL || s->killed)) {
        e = CS_ERR_CONFLICT;
    }
    if (e == CS_OK) {
        e = cs_audit_login(c, &row->id, cs_chain_text(chain, &j->arena), row->target);
        s = cs_sessions_get(&c->sessions, &row->id); /* it was waited */
        e = e == CS_OK && (s == NULL || s->killed) ? CS_ERR_CONFLICT : e;
    }
    if (e != CS_OK) {
        enum cs_err closed =
            cs_approval_session_closed(c->approval, &row->id, CS_SLICE_LIT("refused"));
        return closed == CS_OK || closed == CS_ERR_NOT_FOUND ? e : closed;
    }
    return CS_OK;
}

static enum cs_err session_open(struct cs_job *j, const struct cs_attempt *x,
                                const struct cs_chain *chain, const struct cs_identity_mark *mark,
                                struct cs_id *ret_id, struct cs_slice *ret_chain)
{
    struct cs_control *c = j->peer->c;
    uint8_t *mem = cs_arena_alloc(&j->arena, CS_LIMIT_IPC_BYTES);
    struct cs_writer w = cs_writer(mem, mem != NULL ? CS_LIMIT_IPC_BYTES - 512 : 0);
    cs_chain_encode(&w, chain);
    if (w.overflow || chain->n == 0) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_store_session row = {.id = cs_id_new(),
                                   .chain = cs_writer_done(&w),
                                   .root = chain->p[0].id,
                                   .actor = chain->p[chain->n - 1].id,
                                   .target = x->target,
                                   .address = x->address,
                                   .gate = j->peer->key};
    if (cs_sessions_add(&c->sessions, &row.id, row.gate, row.chain, row.target, row.address) ==
        NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err e = session_store(j, &row, chain, mark);
    if (e != CS_OK) {
        cs_sessions_remove(&c->sessions, &row.id);
        return e;
    }
    *ret_id = row.id;
    *ret_chain = row.chain;
    return CS_OK;
}

/* Who it is has been proved: a session, if there is such a target. */
static void admit(struct cs_job *j, uint64_t attempt, const struct cs_attempt *x,
                  const struct cs_chain *chain, const struct cs_identity_mark *mark,
                  struct cs_slice signature)
{
    if (cs_policy_target(j->peer->c->view->policy, x->target) == NULL) {
        char text[400];
        (void)snprintf(text, sizeof text, "there is no target \"%.*s\"", CS_SLICE_FMT(x->target));
        cs_metric_add(CS_SLOT_LOGINS + CS_LOGIN_NO_TARGET, 1);
        cs_log(CS_EV_SESSION_REFUSED, NULL, "user=%s target=%s why=\"no such target\"",
               cs_log_quote(x->user).text, cs_log_quote(x->target).text);
        answer(j, attempt, CS_ERR_NOT_FOUND, text);
        return;
    }
    struct cs_msg_auth_result r = {.attempt = attempt, .server_signature = signature};
    enum cs_err e = session_open(j, x, chain, mark, &r.session, &r.chain);
    if (e != CS_OK) {
        refuse(j, attempt, x, e);
        return;
    }
    cs_metric_add(CS_SLOT_LOGINS + CS_LOGIN_OK, 1);
    (void)cs_peer_send(j->peer, CS_MSG_AUTH_RESULT, j->corr, &r, NULL, 0);
}

void cs_auth_token(struct cs_job *j)
{
    const struct cs_msg_auth_token *m = (const void *)j->msg.raw;
    struct cs_attempt x = {.user = m->user,
                           .target = m->target,
                           .address = cs_slice_head(m->address, AUTH_ADDRESS_MAX)};
    struct cs_chain chain;
    struct cs_identity_mark mark;
    enum cs_err e = CS_ERR_UNAUTHENTICATED;
    if (m->user.n <= AUTH_NAME_MAX && m->target.n <= AUTH_NAME_MAX &&
        m->token_sha256.n == CS_SHA256) {
        e = cs_identity_token_login(j->peer->c->identity, m->user, m->token_sha256.p, &j->arena,
                                    &chain, &mark);
    }
    if (e != CS_OK) {
        refuse(j, 0, &x, e);
        return;
    }
    admit(j, 0, &x, &chain, &mark, CS_SLICE_NULL);
}

/* ---- certificates ---- */

void cs_auth_ask(struct cs_job *j)
{
    const struct cs_msg_auth_ask *m = (const void *)j->msg.raw;
    struct cs_attempt said = {.address = m->address, .certificate = true};
    struct cs_msg_auth_nonce out = {.nonce = cs_slice(said.nonce, sizeof said.nonce)};
    cs_random(said.nonce, sizeof said.nonce);
    cs_random(&out.attempt, sizeof out.attempt);
    if (attempt_add(j->peer, out.attempt, &said) != CS_OK) {
        out = (struct cs_msg_auth_nonce){.attempt = 0}; /* the gate asks for no certificate then */
    }
    (void)cs_peer_send(j->peer, CS_MSG_AUTH_NONCE, j->corr, &out, NULL, 0);
}

struct certificate_check {
    struct cs_slice transcript;
    const uint8_t *nonce;
    struct cs_client_rule rule;
    char name[CS_NAME_MAX + 1];
    const char *why;
};

static void certificate_check(void *arg)
{
    struct certificate_check *c = arg;
    c->why = cs_client_certificate_check(c->transcript, c->nonce, &c->rule, c->name);
}

static struct cs_client_rule client_rule(const struct cs_view *view, struct cs_slice protocol)
{
    struct cs_client_rule r = {.form = CS_SAN_NONE};
    for (size_t i = 0; i < view->snapshot.n_listeners; i++) {
        const struct cs_snapshot_listener *l = &view->snapshot.listeners[i];
        if (cs_slice_eq(l->kind, protocol) && l->client_form < CS_SAN_MAX) {
            r = (struct cs_client_rule){.authorities = l->client_authorities,
                                        .form = (enum cs_san_form)l->client_form,
                                        .pattern = l->client_pattern,
                                        .server_pem = l->cert_pem};
        }
    }
    return r;
}

/* SECURITY: whose certificate it is, this process finds out for itself, from what the client signed
 * over a nonce of ours; the gate's word counts for nothing. The name that the client gives must be
 * the same: with a certificate nobody is somebody else. */
void cs_auth_certificate(struct cs_job *j)
{
    const struct cs_msg_auth_certificate *m = (const void *)j->msg.raw;
    struct cs_control *c = j->peer->c;
    struct cs_attempt x = {.user = CS_SLICE_NULL};
    struct cs_chain chain;
    struct cs_identity_mark mark;
    bool known = attempt_take(c, m->attempt, j->peer->key, j, &x);
    x.user = cs_slice_head(m->user, AUTH_NAME_MAX);
    x.target = m->target;
    if (!known || !x.certificate || m->user.n > AUTH_NAME_MAX || m->target.n > AUTH_NAME_MAX) {
        x.target = cs_slice_head(m->target, AUTH_NAME_MAX);
        x.why = "there is no such handshake";
        refuse(j, m->attempt, &x, CS_ERR_UNAUTHENTICATED);
        return;
    }
    struct certificate_check check = {
        .transcript = m->transcript, .nonce = x.nonce, .rule = client_rule(c->view, m->protocol)};
    cs_big_stack_call(certificate_check, &check);
    x.why = check.why;
    enum cs_err e = CS_ERR_UNAUTHENTICATED;
    if (x.why == NULL && !cs_slice_eq_str(m->user, check.name)) {
        x.why = "it is another principal's";
    } else if (x.why == NULL) {
        e = cs_identity_named_login(c->identity, m->user, &j->arena, &chain, &mark);
        x.why =
            e == CS_ERR_UNAUTHENTICATED ? "there is no such principal, or it is disabled" : NULL;
    }
    if (e != CS_OK) {
        refuse(j, m->attempt, &x, e);
        return;
    }
    admit(j, m->attempt, &x, &chain, &mark, CS_SLICE_NULL);
}

void cs_auth_proof(struct cs_job *j)
{
    const struct cs_msg_auth_proof *m = (const void *)j->msg.raw;
    struct cs_control *c = j->peer->c;
    struct cs_attempt x = {.user = CS_SLICE_NULL};
    struct cs_chain chain;
    struct cs_identity_mark mark;
    uint8_t signature[CS_SHA256];
    if (!attempt_take(c, m->attempt, j->peer->key, j, &x)) {
        refuse(j, m->attempt, &x, CS_ERR_UNAUTHENTICATED);
        return;
    }
    struct cs_identity_proof proof = {.attempt = m->attempt,
                                      .client_first_bare = m->client_first_bare,
                                      .gs2_header = m->gs2_header,
                                      .channel_binding = m->channel_binding,
                                      .proof = m->proof,
                                      .end_point = m->end_point};
    enum cs_err e = cs_identity_scram_finish(c->identity, j->peer->key, &proof, &j->arena,
                                             signature, &chain, &mark);
    if (e != CS_OK) {
        refuse(j, m->attempt, &x, e);
        return;
    }
    admit(j, m->attempt, &x, &chain, &mark, cs_slice(signature, sizeof signature));
}
