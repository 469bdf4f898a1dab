/* Opening a session: the exchanges with control that establish who it is, and give it a connection
 * to its target without ever showing the credential to this process. */
#include "action/frame.h"
#include "base/limits.h"
#include "base/log.h"
#include "crypto/tls.h"
#include "gate/gate.h"
#include "gate/protocol.h"
#include "ipc/metrics.h"

#include <stdio.h>

#define CALL_NS (20 * CS_NS_PER_S)
#define ASK_NS  (3 * CS_NS_PER_S)

static void explain(char *why, size_t n, struct cs_slice text, enum cs_err e)
{
    if (text.n > 0) {
        (void)snprintf(why, n, "%.*s", CS_SLICE_FMT(text));
    } else {
        (void)snprintf(why, n, "%s", cs_err_text(e));
    }
}

/* Calls control; the answer must be of one of the two types. */
static enum cs_err ask(struct cs_session *s, enum cs_msg_type t, const void *msg,
                       enum cs_msg_type want, enum cs_msg_type or_else, struct cs_call *ret)
{
    enum cs_err e = cs_gate_call(s, t, msg, NULL, 0, CALL_NS, ret);
    if (e == CS_OK && ret->type != want && ret->type != or_else) {
        return CS_ERR_PROTOCOL;
    }
    return e;
}

enum cs_err cs_gate_auth_start(struct cs_session *s, struct cs_slice user, struct cs_slice target,
                               struct cs_slice client_nonce, struct cs_auth *ret)
{
    struct cs_msg_auth_start m = {.protocol = cs_slice_str(s->protocol->name),
                                  .user = user,
                                  .target = target,
                                  .address = cs_slice_str(s->address),
                                  .tls = cs_tls_on(&s->client) ? 1 : 0,
                                  .client_nonce = client_nonce};
    struct cs_call call;
    enum cs_err e =
        ask(s, CS_MSG_AUTH_START, &m, CS_MSG_AUTH_CHALLENGE, CS_MSG_AUTH_CHALLENGE, &call);
    if (e == CS_OK) {
        const struct cs_msg_auth_challenge *c = (const void *)call.msg.raw;
        if (c->nonce.n >= sizeof ret->nonce || c->salt.n > sizeof ret->salt ||
            c->iterations > UINT32_MAX) {
            e = CS_ERR_PROTOCOL;
        } else {
            memset(ret, 0, sizeof *ret);
            ret->attempt = c->attempt;
            memcpy(ret->nonce, c->nonce.p, c->nonce.n);
            memcpy(ret->salt, c->salt.p, c->salt.n);
            ret->salt_n = c->salt.n;
            ret->iterations = (uint32_t)c->iterations;
            s->user = cs_arena_dup(&s->arena, user);
            s->target_name = cs_arena_dup(&s->arena, target);
        }
    }
    cs_call_done(&call);
    if (e == CS_OK) {
        cs_gate_exchange(s, true); /* until it is READY, or ends */
    }
    return e;
}

static enum cs_err adopt(struct cs_session *s, const struct cs_msg_auth_result *r)
{
    struct cs_slice kept = cs_arena_dup(&s->arena, r->chain);
    struct cs_chain *chain = CS_NEW(&s->arena, struct cs_chain);
    struct cs_reader rd = cs_reader(kept);
    if (chain == NULL || kept.p == NULL || !cs_chain_decode(&rd, &s->arena, chain) ||
        !cs_reader_done(&rd) || chain->n == 0 || cs_id_is_zero(&r->session)) {
        return CS_ERR_PROTOCOL;
    }
    s->chain = chain;
    s->chain_bytes = kept;
    s->id = r->session;
    return CS_OK;
}

enum cs_err cs_gate_auth_finish(struct cs_session *s, const struct cs_auth *auth,
                                struct cs_slice client_first_bare, struct cs_slice gs2_header,
                                struct cs_slice channel_binding,
                                const uint8_t proof[static CS_SHA256],
                                uint8_t ret_signature[static CS_SHA256])
{
    uint8_t end_point[CS_END_POINT_MAX];
    size_t end_n = cs_tls_server_end_point(&s->client, end_point);
    struct cs_msg_auth_proof m = {.attempt = auth->attempt,
                                  .client_first_bare = client_first_bare,
                                  .gs2_header = gs2_header,
                                  .channel_binding = channel_binding,
                                  .proof = cs_slice(proof, CS_SHA256),
                                  .end_point = cs_slice(end_point, end_n)};
    struct cs_call call;
    enum cs_err e = ask(s, CS_MSG_AUTH_PROOF, &m, CS_MSG_AUTH_RESULT, CS_MSG_AUTH_RESULT, &call);
    if (e == CS_OK) {
        const struct cs_msg_auth_result *r = (const void *)call.msg.raw;
        e = r->err < CS_ERR_MAX ? (enum cs_err)r->err : CS_ERR_PROTOCOL;
        if (e == CS_OK && r->server_signature.n != CS_SHA256) {
            e = CS_ERR_PROTOCOL;
        }
        if (e == CS_OK) {
            e = adopt(s, r);
        }
        if (e == CS_OK) {
            memcpy(ret_signature, r->server_signature.p, CS_SHA256);
        }
    }
    cs_call_done(&call);
    return e;
}

/* One message says it all, and control's answer is final. */
static enum cs_err auth_at_once(struct cs_session *s, enum cs_msg_type t, const void *m,
                                struct cs_slice user, struct cs_slice target)
{
    struct cs_call call;
    enum cs_err e = ask(s, t, m, CS_MSG_AUTH_RESULT, CS_MSG_AUTH_RESULT, &call);
    if (e == CS_OK) {
        const struct cs_msg_auth_result *r = (const void *)call.msg.raw;
        s->user = cs_arena_dup(&s->arena, user);
        s->target_name = cs_arena_dup(&s->arena, target);
        e = r->err < CS_ERR_MAX ? (enum cs_err)r->err : CS_ERR_PROTOCOL;
        if (e == CS_OK && (s->user.p == NULL || s->target_name.p == NULL)) {
            e = CS_ERR_NO_MEMORY;
        }
        if (e == CS_OK) {
            e = adopt(s, r);
        }
    }
    cs_call_done(&call);
    if (e == CS_OK) {
        cs_gate_exchange(s, true); /* until it is READY, or ends */
    }
    return e;
}

enum cs_err cs_gate_auth_token(struct cs_session *s, struct cs_slice user, struct cs_slice target,
                               const uint8_t token_sha256[static CS_SHA256])
{
    struct cs_msg_auth_token m = {.user = user,
                                  .target = target,
                                  .address = cs_slice_str(s->address),
                                  .token_sha256 = cs_slice(token_sha256, CS_SHA256)};
    return auth_at_once(s, CS_MSG_AUTH_TOKEN, &m, user, target);
}

enum cs_err cs_gate_auth_ask(struct cs_session *s, uint64_t *ret_attempt,
                             uint8_t ret_nonce[static CS_CLIENT_NONCE])
{
    struct cs_msg_auth_ask m = {.address = cs_slice_str(s->address)};
    struct cs_call call;
    enum cs_err e = cs_gate_call(s, CS_MSG_AUTH_ASK, &m, NULL, 0, ASK_NS, &call);
    if (e == CS_OK) {
        const struct cs_msg_auth_nonce *n = (const void *)call.msg.raw;
        if (call.type != CS_MSG_AUTH_NONCE || n->nonce.n != CS_CLIENT_NONCE) {
            e = CS_ERR_PROTOCOL;
        } else {
            *ret_attempt = n->attempt;
            memcpy(ret_nonce, n->nonce.p, CS_CLIENT_NONCE);
        }
    }
    cs_call_done(&call);
    return e;
}

enum cs_err cs_gate_auth_certificate(struct cs_session *s, struct cs_slice user,
                                     struct cs_slice target, uint64_t attempt)
{
    struct cs_msg_auth_certificate m = {.attempt = attempt,
                                        .protocol = cs_slice_str(s->protocol->name),
                                        .user = user,
                                        .target = target,
                                        .transcript = cs_tls_client_proof(&s->client)};
    enum cs_err e = auth_at_once(s, CS_MSG_AUTH_CERTIFICATE, &m, user, target);
    cs_tls_client_proof_drop(&s->client);
    return e;
}

enum cs_err cs_gate_connect(struct cs_session *s, bool elevated, const struct cs_id *grant,
                            struct cs_upstream *ret, char *why, size_t why_size)
{
    struct cs_msg_connect m = {.session = s->id,
                               .target = s->target_name,
                               .which = elevated ? CS_CREDENTIAL_ELEVATED : CS_CREDENTIAL_EVERYDAY};
    if (grant != NULL) {
        m.grant = *grant;
    }
    if (s->config != NULL) {
        m.snapshot = cs_policy_version(s->config->policy);
    }
    struct cs_call call;
    enum cs_err e = ask(s, CS_MSG_CONNECT, &m, CS_MSG_CONNECTED, CS_MSG_NOT_CONNECTED, &call);
    if (e == CS_OK && call.type == CS_MSG_NOT_CONNECTED) {
        const struct cs_msg_not_connected *n = (const void *)call.msg.raw;
        e = n->err > 0 && n->err < CS_ERR_MAX ? (enum cs_err)n->err : CS_ERR_UNREACHABLE;
        explain(why, why_size, n->text, e);
    } else if (e == CS_OK) {
        const struct cs_msg_connected *c = (const void *)call.msg.raw;
        ret->connection = c->connection;
        ret->fd = call.fd[0];
        call.fd[0] = -1;
        (void)snprintf(ret->user, sizeof ret->user, "%.*s", CS_SLICE_FMT(c->user));
    } else {
        explain(why, why_size, CS_SLICE_NULL, e);
    }
    cs_call_done(&call);
    return e;
}

/* Control's answer to PROVE, in `call`; CS_OK when there is a proof. */
static enum cs_err prove(struct cs_session *s, const struct cs_msg_prove *m, struct cs_call *call,
                         char *why, size_t why_size)
{
    enum cs_err e = ask(s, CS_MSG_PROVE, m, CS_MSG_PROOF, CS_MSG_PROOF, call);
    if (e != CS_OK) {
        explain(why, why_size, CS_SLICE_NULL, e);
    } else {
        const struct cs_msg_proof *p = (const void *)call->msg.raw;
        e = p->err < CS_ERR_MAX ? (enum cs_err)p->err : CS_ERR_PROTOCOL;
        if (e != CS_OK) {
            explain(why, why_size, p->text, e);
        }
    }
    if (s->state != CS_SESSION_CONNECTING) {
        cs_gate_exchange(s, false);
    }
    return e;
}

enum cs_err cs_gate_prove(struct cs_session *s, uint64_t connection, const char *mechanism,
                          struct cs_slice client_first_bare, struct cs_slice server_first,
                          struct cs_slice client_final_bare, uint8_t ret_proof[static CS_SHA256],
                          uint8_t ret_server_signature[static CS_SHA256], char *why,
                          size_t why_size)
{
    struct cs_msg_prove m = {.session = s->id,
                             .connection = connection,
                             .mechanism = cs_slice_str(mechanism),
                             .client_first_bare = client_first_bare,
                             .server_first = server_first,
                             .client_final_bare = client_final_bare};
    struct cs_call call;
    enum cs_err e = prove(s, &m, &call, why, why_size);
    if (e == CS_OK) {
        const struct cs_msg_proof *p = (const void *)call.msg.raw;
        if (p->proof.n != CS_SHA256 || p->server_signature.n != CS_SHA256) {
            e = CS_ERR_PROTOCOL;
            explain(why, why_size, CS_SLICE_NULL, e);
        } else {
            memcpy(ret_proof, p->proof.p, CS_SHA256);
            memcpy(ret_server_signature, p->server_signature.p, CS_SHA256);
        }
    }
    cs_call_done(&call);
    return e;
}

enum cs_err cs_gate_prove_weakly(struct cs_session *s, uint64_t connection, enum cs_way way,
                                 struct cs_slice reader, struct cs_slice salt, struct cs_buf *ret,
                                 char *why, size_t why_size)
{
    struct cs_msg_prove m = {.session = s->id,
                             .connection = connection,
                             .mechanism = cs_slice_str(cs_way_name(way)),
                             .client_first_bare = reader,
                             .server_first = salt};
    struct cs_call call;
    enum cs_err e = prove(s, &m, &call, why, why_size);
    if (e == CS_OK) {
        cs_buf_add(ret, ((const struct cs_msg_proof *)(const void *)call.msg.raw)->proof);
    }
    cs_call_done(&call);
    return e;
}

enum cs_err cs_gate_opened(struct cs_session *s, struct cs_slice database, struct cs_slice role,
                           struct cs_slice application)
{
    char tls[64];
    struct cs_frame_session_open f = {
        .protocol = cs_slice_str(s->protocol->name),
        .chain = s->chain_bytes,
        .target = s->target_name,
        .database = database,
        .role = role,
        .address = cs_slice_str(s->address),
        .application = application,
        .tls = cs_slice_str(cs_tls_describe(&s->client, tls, sizeof tls)),
        .policy = cs_policy_version(s->config->policy)};
    enum cs_err e = cs_gate_append(s, CS_FRAME_SESSION_OPEN, &f, false);
    if (e != CS_OK) {
        return e;
    }
    s->recorded = true;
    cs_metric_add(CS_SLOT_OPENED, 1);
    struct cs_msg_session_opened m = {
        .session = s->id, .database = database, .application = cs_slice_head(application, 64)};
    if (s->gate->control != NULL &&
        cs_channel_send(s->gate->control, CS_MSG_SESSION_OPENED, 0, &m, NULL, 0) == CS_OK) {
        s->reported = true;
    }
    cs_log(CS_EV_SESSION_OPEN, &s->id, "user=%s target=%s address=%s", cs_log_quote(s->user).text,
           cs_log_quote(s->target_name).text, s->address);
    return CS_OK;
}
