/* Collects what a log's leaves say (history.h). Called by the checks of a log and of a bundle, leaf
 * by leaf. What it finds says that a log's writer wrote what must not happen; it must never pass a
 * grant that nobody voted for, or whose digest is not the one that was voted. */
#include "verify/history.h"

#include "base/writer.h"

#include <inttypes.h>

/* A log of a hundred million held actions is not checked in one piece. */
enum { ARENA_CHUNK = 256 * 1024 };
#define ARENA_MAX ((size_t)16 << 30)

struct request {
    struct cs_map_node node;
    uint8_t digest[CS_SHA256]; /* that was voted on */
    bool voted, used;
    bool yes, no;
    uint64_t yes_leaf, no_leaf, used_leaf;
};
struct action { /* that was held */
    struct cs_map_node node;
    uint8_t digest[CS_SHA256];
    uint64_t leaf;
};
struct grant {
    struct cs_map_node node;
    struct cs_id session;
    uint64_t n, leaf;
    bool result;
};

struct event { /* of control's */
    struct cs_map_node node;
    uint64_t leaf; /* and one */
};

static void *get(struct cs_history *h, struct cs_map *m, struct cs_slice key, size_t size)
{
    void *node = cs_map_get(m, &h->arena, key, size);
    h->failed |= node == NULL;
    return node;
}

void cs_history_init(struct cs_history *h, struct cs_report *report)
{
    *h = (struct cs_history){.report = report};
    cs_map_init(&h->sessions);
    cs_map_init(&h->requests);
    cs_map_init(&h->actions);
    cs_map_init(&h->grants);
    cs_map_init(&h->events);
    cs_arena_init(&h->arena, ARENA_CHUNK, ARENA_MAX);
}

void cs_history_done(struct cs_history *h)
{
    cs_map_done(&h->sessions);
    cs_map_done(&h->requests);
    cs_map_done(&h->actions);
    cs_map_done(&h->grants);
    cs_map_done(&h->events);
    cs_arena_done(&h->arena);
}

struct cs_known_session *cs_history_session(const struct cs_history *h, const struct cs_id *id)
{
    return (struct cs_known_session *)(void *)cs_map_find(&h->sessions,
                                                          cs_slice(id->b, CS_ID_BYTES));
}

void cs_history_each(const struct cs_history *h, void (*fn)(void *arg, struct cs_known_session *s),
                     void *arg)
{
    for (size_t i = 0; i < h->sessions.n_buckets; i++) {
        for (struct cs_map_node *n = h->sessions.bucket[i]; n != NULL; n = n->next) {
            fn(arg, (struct cs_known_session *)(void *)n);
        }
    }
}

/* ---- leaves ---- */

struct at {
    struct cs_history *h;
    const struct cs_leaf *leaf;
    uint64_t index;
    struct cs_id session;
    bool has_session;
};

static struct cs_slice bytes(const struct at *a, enum cs_leaf_key key)
{
    return a->leaf->value[key].bytes;
}

static void found(const struct at *a, const char *why, uint64_t other)
{
    struct cs_finding *f =
        cs_report_add(a->h->report, CS_VERDICT_TAMPERED, a->has_session ? &a->session : NULL,
                      "%s (see leaf %" PRIu64 ")", why, other);
    f->leaf = a->index;
    f->has_leaf = true;
}

static struct cs_known_session *session_of(const struct at *a)
{
    struct cs_known_session *s = get(a->h, &a->h->sessions, bytes(a, CS_KEY_SESSION), sizeof *s);
    if (s != NULL) {
        s->id = a->session;
        if (!s->recorded) {
            s->recorded = true;
            s->leaf = a->index;
            s->time_ms = a->leaf->time_ms;
        }
    }
    return s;
}

static void anchor(const struct at *a, bool close)
{
    struct cs_known_session *s = session_of(a);
    struct cs_anchor *x = s != NULL ? CS_NEW(&a->h->arena, struct cs_anchor) : NULL;
    if (x == NULL) {
        a->h->failed = true;
        return;
    }
    x->frames = a->leaf->value[CS_KEY_FRAMES].number;
    x->leaf = a->index;
    x->time_ms = a->leaf->time_ms;
    x->last = close || a->leaf->value[CS_KEY_ENDED].number == 1;
    memcpy(x->chain, bytes(a, CS_KEY_CHAIN).p, CS_SHA256);
    if (s->end != NULL) {
        bool same = x->frames == s->end->frames;
        if (x->frames < s->end->frames ||
            (same && memcmp(x->chain, s->end->chain, CS_SHA256) != 0)) {
            found(a, "it contradicts an earlier leaf about the same recording", s->end->leaf);
            return;
        }
        if (s->end->last && !same) {
            found(a, "it has a recording go on behind its end", s->end->leaf);
            return;
        }
        s->end->next = x;
    } else {
        s->first = x;
    }
    s->end = x;
    s->closed |= x->last;
}

static void session_open(const struct at *a)
{
    (void)session_of(a);
}

static void recording(const struct at *a)
{
    anchor(a, false);
}

static void session_close(const struct at *a)
{
    anchor(a, true);
}

enum { ACTION_KEY = CS_ID_BYTES + 8 };

static struct cs_slice action_key(const struct at *a, uint8_t out[static ACTION_KEY])
{
    struct cs_writer w = cs_writer(out, ACTION_KEY);
    cs_writer_bytes(&w, bytes(a, CS_KEY_SESSION));
    cs_writer_u64(&w, a->leaf->value[CS_KEY_N].number);
    return cs_writer_done(&w);
}

static void decision(const struct at *a)
{
    uint8_t key[ACTION_KEY];
    if (!cs_leaf_has(a->leaf, CS_KEY_REQUEST) || !cs_leaf_has(a->leaf, CS_KEY_DIGEST) ||
        a->leaf->value[CS_KEY_OUTCOME].number != 1) {
        return;
    }
    struct action *x = get(a->h, &a->h->actions, action_key(a, key), sizeof *x);
    if (x != NULL) {
        memcpy(x->digest, bytes(a, CS_KEY_DIGEST).p, CS_SHA256);
        x->leaf = a->index;
    }
}

static void vote(const struct at *a)
{
    struct request *q = get(a->h, &a->h->requests, bytes(a, CS_KEY_REQUEST), sizeof *q);
    bool yes = a->leaf->value[CS_KEY_OUTCOME].number == 2;
    if (q == NULL) {
        return;
    }
    if (q->voted && memcmp(q->digest, bytes(a, CS_KEY_DIGEST).p, CS_SHA256) != 0) {
        found(a, "its vote is about another digest than the vote before it on the same request",
              q->yes ? q->yes_leaf : q->no_leaf);
        return;
    }
    q->voted = true;
    memcpy(q->digest, bytes(a, CS_KEY_DIGEST).p, CS_SHA256);
    q->yes |= yes;
    q->no |= !yes;
    *(yes ? &q->yes_leaf : &q->no_leaf) = a->index;
}

/* SECURITY: here the chain from the question to what ran is closed: held, voted, used, one digest.
 */
static void grant_use(const struct at *a)
{
    uint8_t key[ACTION_KEY];
    struct cs_slice digest = bytes(a, CS_KEY_DIGEST);
    struct request *q = get(a->h, &a->h->requests, bytes(a, CS_KEY_REQUEST), sizeof *q);
    struct grant *g = get(a->h, &a->h->grants, bytes(a, CS_KEY_GRANT), sizeof *g);
    const struct action *x = (const void *)cs_map_find(&a->h->actions, action_key(a, key));
    if (q == NULL || g == NULL) {
        return;
    }
    if (!q->yes) {
        found(a, "an approved action ran before anybody had voted for it", a->index);
    } else if (!cs_slice_eq(cs_slice(q->digest, CS_SHA256), digest)) {
        found(a, "what ran is not what was approved: its digest is another than the vote's",
              q->yes_leaf);
    }
    if (q->no) {
        found(a, "an action ran though its request was refused", q->no_leaf);
    }
    if (x == NULL) {
        found(a, "an action ran under a grant, but was not held before", a->index);
    } else if (!cs_slice_eq(cs_slice(x->digest, CS_SHA256), digest)) {
        found(a, "what ran is not what was held: its digest is another than that of the question",
              x->leaf);
    }
    if (g->leaf > 0) {
        found(a, "a grant was used twice", g->leaf - 1);
    } else if (q->used) {
        found(a, "a request was used twice", q->used_leaf);
    }
    q->used = true;
    q->used_leaf = a->index;
    g->leaf = a->index + 1;
    g->session = a->session;
    g->n = a->leaf->value[CS_KEY_N].number;
}

static void grant_result(const struct at *a)
{
    struct grant *g = get(a->h, &a->h->grants, bytes(a, CS_KEY_GRANT), sizeof *g);
    if (g == NULL) {
        return;
    }
    if (g->leaf == 0) {
        found(a, "a grant has a result but was not used before", a->index);
    } else if (!cs_id_eq(&g->session, &a->session) || g->n != a->leaf->value[CS_KEY_N].number) {
        found(a, "a grant's result is that of another action", g->leaf - 1);
    } else if (g->result) {
        found(a, "a grant has two results", g->leaf - 1);
    }
    g->result = true;
}

/* Control may say an event again when it does not know whether it was heard; the log has it once.
 */
static void event(const struct at *a)
{
    struct event *x = get(a->h, &a->h->events, bytes(a, CS_KEY_EVENT), sizeof *x);
    if (x != NULL && x->leaf != 0) {
        found(a, "an event of control's stands in the log twice", x->leaf - 1);
    }
    if (x != NULL) {
        x->leaf = a->index + 1;
    }
}

static void (*const kinds[CS_LEAF_KIND_MAX])(const struct at *a) = {
    [CS_LEAF_SESSION_OPEN] = session_open, [CS_LEAF_SESSION_CLOSE] = session_close,
    [CS_LEAF_DECISION] = decision,         [CS_LEAF_VOTE] = vote,
    [CS_LEAF_GRANT_USE] = grant_use,       [CS_LEAF_GRANT_RESULT] = grant_result,
    [CS_LEAF_RECORDING] = recording,
};

void cs_history_add(struct cs_history *h, uint64_t index, const struct cs_leaf *leaf)
{
    struct at a = {.h = h, .leaf = leaf, .index = index};
    if (cs_leaf_has(leaf, CS_KEY_SESSION)) {
        memcpy(a.session.b, leaf->value[CS_KEY_SESSION].bytes.p, CS_ID_BYTES);
        a.has_session = true;
    }
    if (h->leaves++ == 0) {
        h->first_ms = leaf->time_ms;
    }
    h->last_ms = CS_MAX(h->last_ms, leaf->time_ms);
    if (!h->failed && cs_leaf_has(leaf, CS_KEY_EVENT)) {
        event(&a);
    }
    if (!h->failed && kinds[leaf->kind] != NULL) {
        kinds[leaf->kind](&a);
    }
}
