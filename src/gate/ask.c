/* What is asked of control about a held action, and what control says of it. The action's bytes go
 * out sealed; what comes back names a request, and counts only if the digest that people sign is
 * the digest of exactly these bytes, computed here.
 *
 * Called by hold.c in the session's coroutine and by role.c for news. Must never allow anything. */
#include "base/alloc.h"
#include "gate/hold_internal.h"

#include <stdio.h>
#include <unistd.h>

#define HOLD_CALL_NS (20 * CS_NS_PER_S)

void cs_hold_copy(char *out, size_t n, struct cs_slice s)
{
    (void)snprintf(out, n, "%.*s", CS_SLICE_FMT(s));
}

/* ---- news ---- */

static void news_of(const struct cs_msg_request_state *m, struct cs_hold_news *ret)
{
    cs_hold_copy(ret->request, sizeof ret->request, m->request);
    ret->state = (enum cs_request_state)m->state;
    ret->expires_ms = m->expires_ms;
    ret->grant = m->grant;
    cs_hold_copy(ret->by, sizeof ret->by, m->by);
    cs_hold_copy(ret->words, sizeof ret->words, m->words);
}

/* News that was read while asking is older than the answer, or newer, if both came in one read:
 * nothing says which. But a request goes one way only, and its grant comes to a session that waits
 * and does not leave it: what is further on is what counts. */
static unsigned how_far(enum cs_request_state state, const struct cs_id *grant)
{
    if (state != CS_REQUEST_APPROVED) {
        return cs_request_state_final(state) || state == CS_REQUEST_EXECUTING ? 3 : 0;
    }
    return cs_id_is_zero(grant) ? 1 : 2;
}

static void take_early(struct cs_hold *h)
{
    for (size_t i = 0; i < h->n_early; i++) {
        const struct cs_hold_news *n = &h->early[i];
        if (strcmp(n->request, h->now.request) == 0 &&
            how_far(n->state, &n->grant) > how_far(h->now.state, &h->now.grant)) {
            h->now = *n;
        }
    }
}

void cs_hold_on_state(struct cs_gate *g, const struct cs_msg_request_state *m)
{
    struct cs_session *s = cs_session_by_id(g, &m->session);
    struct cs_hold *h = s != NULL ? s->hold : NULL;
    if (h == NULL || m->state == CS_REQUEST_NONE || m->state >= CS_REQUEST_MAX) {
        return; /* late news of a wait that has ended */
    }
    if (h->asking) {
        if (h->n_early == CS_HOLD_EARLY) {
            memmove(h->early, h->early + 1, (CS_HOLD_EARLY - 1) * sizeof h->early[0]);
            h->n_early--;
        }
        news_of(m, &h->early[h->n_early++]);
    } else if (cs_slice_eq_str(m->request, h->now.request)) {
        news_of(m, &h->now);
        cs_event_set(&h->changed);
    }
}

bool cs_hold_asking(const struct cs_session *s, struct cs_slice *ret_request)
{
    const struct cs_hold *h = s->hold;
    *ret_request = h != NULL && !h->left ? cs_slice_str(h->now.request) : CS_SLICE_NULL;
    /* What the hold itself knows is from before the question; this one may have waited for the
     * control that is there now, and have reached it before the word about this session does. */
    return h != NULL && h->asking && h->now.request[0] == 0 &&
           s->asked_generation == s->gate->control_generation;
}

/* ---- asking ---- */

static enum cs_err sealed_action(const struct cs_action *a, int *ret_fd)
{
    size_t cap = cs_action_encoded_size(a);
    uint8_t *mem = cs_alloc(cap);
    if (mem == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_writer w = cs_writer(mem, cap);
    cs_action_encode(&w, a);
    enum cs_err e =
        w.overflow ? CS_ERR_INTERNAL : cs_sealed_make("action", cs_writer_done(&w), ret_fd);
    cs_free(mem);
    return e;
}

static struct cs_slice rule_names(const struct cs_decision *d, struct cs_writer *w)
{
    for (size_t i = 0; i < d->n_rules; i++) {
        if (i > 0) {
            cs_writer_u8(w, ',');
        }
        cs_writer_bytes(w, d->rules[i]->name);
    }
    return cs_writer_done(w);
}

/* The digest of exactly these bytes under the request's id and nonce; false when control's digest
 * is another one: then somebody would sign something else than what would run. */
static bool digest_agrees(const struct cs_session *s, const struct cs_action *a,
                          const struct cs_msg_held *m)
{
    uint8_t match[CS_DIGEST], digest[CS_DIGEST];
    if (m->nonce.n != CS_NONCE || m->digest.n != CS_DIGEST) {
        return false;
    }
    cs_action_match(a, s->chain, s->target_name, match);
    cs_action_digest(match, m->request, m->nonce.p, m->policy, a->tx, m->claimed, digest);
    return cs_slice_eq_secret(m->digest, cs_slice(digest, CS_DIGEST));
}

static enum cs_err take_held(struct cs_session *s, const struct cs_action *a, struct cs_hold *h,
                             const struct cs_msg_held *m)
{
    struct cs_hold_news *now = &h->now;
    cs_hold_copy(now->words, sizeof now->words, m->text);
    if (m->err != CS_OK) {
        return m->err < CS_ERR_MAX ? (enum cs_err)m->err : CS_ERR_PROTOCOL;
    }
    if (m->state == CS_REQUEST_NONE || m->state >= CS_REQUEST_MAX ||
        m->request.n != CS_REQUEST_ID_CHARS) {
        return CS_ERR_PROTOCOL;
    }
    if (now->request[0] != 0 && !cs_slice_eq_str(m->request, now->request)) {
        return CS_ERR_PROTOCOL; /* asked for by name: none other is an answer */
    }
    if (!digest_agrees(s, a, m)) {
        cs_hold_copy(now->words, sizeof now->words,
                     CS_SLICE_LIT("the digest does not cover these bytes"));
        return CS_ERR_CONFLICT;
    }
    cs_hold_copy(now->request, sizeof now->request, m->request);
    now->state = (enum cs_request_state)m->state;
    now->expires_ms = m->expires_ms;
    now->grant = m->grant;
    cs_hold_copy(now->by, sizeof now->by, m->by);
    cs_hold_copy(now->words, sizeof now->words, m->words);
    h->attached = m->attached != 0;
    memcpy(h->digest, m->digest.p, CS_DIGEST);
    cs_hold_copy(h->url, sizeof h->url, m->url);
    take_early(h);
    return CS_OK;
}

enum cs_err cs_hold_ask(struct cs_session *s, const struct cs_action *a, const struct cs_verdict *v,
                        struct cs_hold *h)
{
    uint8_t rules[CS_RULES_FIRED * 65];
    struct cs_writer w = cs_writer(rules, sizeof rules);
    struct cs_call call;
    int fd = -1;
    enum cs_err e = sealed_action(a, &fd);
    if (e != CS_OK) {
        return e;
    }
    struct cs_msg_hold m = {.session = s->id,
                            .waiting = s->async ? 0 : 1,
                            .in_transaction = a->in_transaction ? 1 : 0,
                            .rules = rule_names(CS_VERDICT_DECISION_CONST(v), &w),
                            .elevated = v->elevated ? 1 : 0,
                            .snapshot = cs_policy_version(s->config->policy),
                            .again = cs_slice_str(h->now.request),
                            .claimed = cs_slice_str(s->claimed != NULL ? s->claimed : "")};
    memset(&call, 0, sizeof call);
    call.fd[0] = call.fd[1] = call.fd[2] = -1;
    h->early = cs_alloc(CS_HOLD_EARLY * sizeof *h->early);
    if (h->early == NULL) {
        (void)close(fd);
        return CS_ERR_NO_MEMORY;
    }
    h->asking = true;
    h->n_early = 0;
    s->asked_generation = 0; /* until it is sent */
    e = w.overflow ? CS_ERR_TOO_LARGE
                   : cs_gate_call(s, CS_MSG_HOLD, &m, &fd, 1, HOLD_CALL_NS, &call);
    (void)close(fd);
    if (e == CS_OK) {
        e = call.type == CS_MSG_HELD ? take_held(s, a, h, (const void *)call.msg.raw)
                                     : CS_ERR_PROTOCOL;
    }
    h->asking = false;
    cs_free(h->early); /* a wait can be long, and they are large */
    h->early = NULL;
    if (e == CS_OK) {
        h->control_generation = s->asked_generation; /* it may have waited for another control */
    }
    cs_call_done(&call);
    return e;
}

enum cs_err cs_hold_consume(struct cs_session *s, struct cs_hold *h)
{
    struct cs_msg_consume m = {.session = s->id,
                               .request = cs_slice_str(h->now.request),
                               .grant = h->now.grant,
                               .digest = cs_slice(h->digest, CS_DIGEST)};
    struct cs_call call;
    memset(&call, 0, sizeof call);
    call.fd[0] = call.fd[1] = call.fd[2] = -1;
    if (!cs_id_eq(&h->tried, &h->now.grant) && !cs_tell_using(s, &h->now.grant)) {
        return CS_ERR_LIMIT;
    }
    h->tried = h->now.grant;
    enum cs_err e = cs_gate_call(s, CS_MSG_CONSUME, &m, NULL, 0, HOLD_CALL_NS, &call);
    if (e == CS_OK && call.type == CS_MSG_CONSUMED) {
        const struct cs_msg_consumed *c = (const void *)call.msg.raw;
        e = c->err < CS_ERR_MAX ? (enum cs_err)c->err : CS_ERR_PROTOCOL;
        if (e != CS_OK) {
            cs_hold_copy(h->now.words, sizeof h->now.words, c->text);
        }
    } else if (e == CS_OK) {
        e = CS_ERR_PROTOCOL;
    }
    cs_call_done(&call);
    return e;
}
