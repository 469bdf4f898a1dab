/* Live sessions by id, with what was given to each: connections not yet proved and grants consumed.
 * Pure bookkeeping: it never waits, sends or stores. Called by the handlers of gate messages. */
#include "control/session.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/time.h"

enum { SESSION_ARENA_CHUNK = 1024, SESSION_ARENA_MAX = 256 * 1024 };

/* Ids in the table are ours and random: their first bytes are as good as a hash, and a gate cannot
 * choose them. */
static size_t bucket_of(const struct cs_id *id)
{
    size_t h = (size_t)id->b[0] | ((size_t)id->b[1] << 8);
    return h % CS_SESSION_BUCKETS;
}

static void session_free(struct cs_ctl_session *s)
{
    for (size_t i = 0; i < CS_SESSION_CONNECTIONS; i++) {
        cs_free((void *)(uintptr_t)s->connections[i].secret.p);
    }
    cs_arena_done(&s->arena);
    cs_free(s);
}

struct cs_ctl_session *cs_sessions_get(const struct cs_sessions *t, const struct cs_id *id)
{
    struct cs_ctl_session *s = t->bucket[bucket_of(id)];
    while (s != NULL && !cs_id_eq(&s->id, id)) {
        s = s->next;
    }
    return s;
}

struct cs_ctl_session *cs_sessions_add(struct cs_sessions *t, const struct cs_id *id,
                                       uint64_t gate_key, struct cs_slice chain,
                                       struct cs_slice target, struct cs_slice address)
{
    cs_assert(!cs_id_is_zero(id) && cs_sessions_get(t, id) == NULL);
    struct cs_ctl_session *s = cs_alloc(sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->id = *id;
    s->gate_key = gate_key;
    cs_arena_init(&s->arena, SESSION_ARENA_CHUNK, SESSION_ARENA_MAX);
    s->chain = cs_arena_dup(&s->arena, chain);
    s->target = cs_arena_dup(&s->arena, target);
    s->address = cs_arena_dup(&s->arena, address);
    struct cs_arena scratch;
    struct cs_ctl_who who;
    cs_arena_init(&scratch, SESSION_ARENA_CHUNK, SESSION_ARENA_MAX);
    bool valid = s->chain.p != NULL && s->target.p != NULL && s->address.p != NULL &&
                 cs_ctl_session_who(s, &scratch, &who);
    cs_arena_done(&scratch);
    if (!valid) {
        session_free(s);
        return NULL;
    }
    size_t b = bucket_of(id);
    s->next = t->bucket[b];
    t->bucket[b] = s;
    t->n++;
    return s;
}

static void unlink_at(struct cs_sessions *t, struct cs_ctl_session **at)
{
    struct cs_ctl_session *s = *at;
    *at = s->next;
    cs_assert(t->n > 0);
    t->n--;
    session_free(s);
}

void cs_sessions_remove(struct cs_sessions *t, const struct cs_id *id)
{
    struct cs_ctl_session **at = &t->bucket[bucket_of(id)];
    while (*at != NULL && !cs_id_eq(&(*at)->id, id)) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        unlink_at(t, at);
    }
}

void cs_sessions_remove_gate(struct cs_sessions *t, uint64_t gate_key)
{
    for (size_t b = 0; b < CS_SESSION_BUCKETS; b++) {
        struct cs_ctl_session **at = &t->bucket[b];
        while (*at != NULL) {
            if ((*at)->gate_key == gate_key) {
                unlink_at(t, at);
            } else {
                at = &(*at)->next;
            }
        }
    }
}

void cs_sessions_done(struct cs_sessions *t)
{
    for (size_t b = 0; b < CS_SESSION_BUCKETS; b++) {
        while (t->bucket[b] != NULL) {
            unlink_at(t, &t->bucket[b]);
        }
    }
}

bool cs_ctl_session_who(const struct cs_ctl_session *s, struct cs_arena *a, struct cs_ctl_who *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->target = cs_arena_dup(a, s->target);
    ret->address = cs_arena_dup(a, s->address);
    struct cs_slice chain = cs_arena_dup(a, s->chain);
    struct cs_reader r = cs_reader(chain);
    return ret->target.p != NULL && ret->address.p != NULL && chain.p != NULL &&
           cs_chain_decode(&r, a, &ret->chain) && cs_reader_done(&r) && ret->chain.n > 0;
}

/* ---- connections ---- */

bool cs_ctl_connection_add(struct cs_ctl_session *s, const struct cs_ctl_connection *made)
{
    struct cs_ctl_connection *slot = &s->connections[0];
    for (size_t i = 0; i < CS_SESSION_CONNECTIONS; i++) {
        if (s->connections[i].number < slot->number) {
            slot = &s->connections[i]; /* a free one is 0; else the oldest */
        }
    }
    uint8_t *name = cs_alloc(made->secret.n + 1);
    if (name == NULL) {
        return false;
    }
    if (made->secret.n > 0) {
        memcpy(name, made->secret.p, made->secret.n);
    }
    cs_free((void *)(uintptr_t)slot->secret.p);
    *slot = *made;
    slot->secret = cs_slice(name, made->secret.n);
    return true;
}

bool cs_ctl_connection_take(struct cs_ctl_session *s, uint64_t number,
                            struct cs_ctl_connection *ret)
{
    for (size_t i = 0; number != 0 && i < CS_SESSION_CONNECTIONS; i++) {
        if (s->connections[i].number == number) {
            *ret = s->connections[i];
            memset(&s->connections[i], 0, sizeof s->connections[i]);
            return true;
        }
    }
    return false;
}

/* ---- grants ---- */

static struct cs_ctl_grant *grant_get(struct cs_ctl_session *s, const struct cs_id *id)
{
    for (size_t i = 0; !cs_id_is_zero(id) && i < CS_SESSION_GRANTS; i++) {
        if (cs_id_eq(&s->grants[i].id, id)) {
            return &s->grants[i];
        }
    }
    return NULL;
}

bool cs_ctl_grant_add(struct cs_ctl_session *s, const struct cs_id *id, bool elevated)
{
    cs_assert(!cs_id_is_zero(id));
    for (size_t i = 0; i < CS_SESSION_GRANTS; i++) {
        if (cs_id_is_zero(&s->grants[i].id)) {
            s->grants[i] = (struct cs_ctl_grant){*id, elevated, false, cs_mono_ns()};
            return true;
        }
    }
    return false;
}

bool cs_ctl_grant_use(struct cs_ctl_session *s, const struct cs_id *id)
{
    struct cs_ctl_grant *g = grant_get(s, id);
    if (g == NULL || !g->elevated || g->connected) {
        return false;
    }
    g->connected = true;
    return true;
}

uint64_t cs_ctl_grant_consumed(struct cs_ctl_session *s, const struct cs_id *id)
{
    const struct cs_ctl_grant *g = grant_get(s, id);
    return g != NULL ? g->consumed_ns : 0;
}

void cs_ctl_grant_end(struct cs_ctl_session *s, const struct cs_id *id)
{
    struct cs_ctl_grant *g = grant_get(s, id);
    if (g != NULL) {
        memset(g, 0, sizeof *g);
    }
}
