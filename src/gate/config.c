/* The configuration snapshot as a gate uses it: sealed memory, a policy view into it, TLS contexts.
 * Reference-counted, because sessions may still stand on an older one for a moment. */
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "crypto/tls.h"
#include "gate/gate.h"
#include "gate/protocol.h"

static const struct cs_protocol *protocol_named(struct cs_slice name)
{
    for (size_t i = 0; cs_protocols[i] != NULL; i++) {
        if (cs_slice_eq_str(name, cs_protocols[i]->name)) {
            return cs_protocols[i];
        }
    }
    return NULL;
}

static enum cs_err listeners_tls(struct cs_gate_config *c)
{
    for (size_t i = 0; i < c->snapshot.n_listeners; i++) {
        const struct cs_snapshot_listener *l = &c->snapshot.listeners[i];
        const struct cs_protocol *p = protocol_named(l->kind);
        if (p == NULL || l->tls == 0) {
            continue;
        }
        enum cs_err e = cs_tls_server_new(l->cert_pem, l->key_pem, p->alpn, &c->listener_tls[i]);
        if (e == CS_OK && l->client_form != 0) {
            e = cs_tls_server_ask(c->listener_tls[i], l->client_authorities);
        }
        if (e != CS_OK) {
            return e;
        }
    }
    return CS_OK;
}

enum cs_err cs_gate_config_new(int memfd, struct cs_gate_config **ret)
{
    struct cs_gate_config *c = cs_alloc(sizeof *c);
    if (c == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    c->refs = 1;
    cs_arena_init(&c->arena, 16 * 1024, 64 * 1024 * 1024);
    enum cs_err e = cs_sealed_map(memfd, CS_SNAPSHOT_MAX, &c->mapped);
    if (e == CS_OK && !cs_snapshot_read(c->mapped, &c->snapshot)) {
        e = CS_ERR_CORRUPT;
    }
    if (e == CS_OK) {
        e = cs_policy_load(c->snapshot.policy, &c->arena, &c->policy);
    }
    if (e == CS_OK) {
        e = listeners_tls(c);
    }
    if (e == CS_OK) {
        size_t n = cs_policy_target_count(c->policy);
        c->target_tls = CS_NEW_ARRAY(&c->arena, struct cs_tls_ctx *, n + 1);
        e = c->target_tls != NULL ? CS_OK : CS_ERR_NO_MEMORY;
    }
    if (e != CS_OK) {
        cs_gate_config_unref(c);
        return e;
    }
    *ret = c;
    return CS_OK;
}

struct cs_gate_config *cs_gate_config_ref(struct cs_gate_config *c)
{
    c->refs++;
    return c;
}

void cs_gate_config_unref(struct cs_gate_config *c)
{
    if (c == NULL) {
        return;
    }
    cs_assert(c->refs > 0);
    if (--c->refs > 0) {
        return;
    }
    for (size_t i = 0; i < CS_SNAPSHOT_LISTENERS; i++) {
        cs_tls_ctx_free(c->listener_tls[i]);
    }
    size_t n = c->target_tls != NULL ? cs_policy_target_count(c->policy) : 0;
    for (size_t i = 0; i < n; i++) {
        cs_tls_ctx_free(c->target_tls[i]);
    }
    cs_arena_done(&c->arena);
    if (c->mapped.p != NULL) {
        cs_sealed_unmap(c->mapped);
    }
    cs_free(c);
}

struct cs_tls_ctx *cs_gate_listener_tls(struct cs_session *s)
{
    const struct cs_gate_config *c = s->gate->config;
    const char *name = s->gate->listeners[s->listener].name;
    for (size_t i = 0; i < c->snapshot.n_listeners; i++) {
        if (cs_slice_eq_str(c->snapshot.listeners[i].name, name)) {
            return c->listener_tls[i];
        }
    }
    return NULL;
}

struct cs_slice cs_gate_proxy_from(const struct cs_gate_listener *l)
{
    const struct cs_gate_config *c = l->gate->config;
    for (size_t i = 0; i < c->snapshot.n_listeners; i++) {
        if (cs_slice_eq_str(c->snapshot.listeners[i].name, l->name)) {
            return c->snapshot.listeners[i].proxy_from;
        }
    }
    return CS_SLICE_NULL;
}

enum cs_channel_binding cs_gate_target_binding(const struct cs_session *s)
{
    return s->target != NULL ? cs_channel_binding_of(s->target->channel_binding) : CS_BINDING_NONE;
}

enum cs_way cs_gate_target_way(const struct cs_session *s, bool elevated)
{
    return s->target != NULL && !elevated ? cs_way_of(s->target->authentication) : CS_WAY_SCRAM;
}

struct cs_tls_ctx *cs_gate_target_tls(struct cs_session *s, bool *ret_plain)
{
    struct cs_gate_config *c = s->config;
    const struct cs_target *t = s->target;
    *ret_plain = t != NULL && cs_slice_eq_str(t->tls, "off");
    if (t == NULL || *ret_plain) {
        return NULL;
    }
    for (size_t i = 0; i < cs_policy_target_count(c->policy); i++) {
        if (cs_policy_target_at(c->policy, i) != t) {
            continue;
        }
        if (c->target_tls[i] == NULL) {
            bool verify = !cs_slice_eq_str(t->tls, "require");
            struct cs_slice roots = t->tls_roots.n > 0 ? t->tls_roots : c->snapshot.system_roots;
            if (cs_tls_client_new(roots, verify, s->protocol->alpn, &c->target_tls[i]) != CS_OK) {
                return NULL;
            }
        }
        return c->target_tls[i];
    }
    return NULL;
}
