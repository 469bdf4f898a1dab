/* Leaves from frames (leaves.h). A table says which frames speak; what a plain allowed read says is
 * nothing. It must never put into the log in clear what identifies a person or shows data, or take
 * from a gate what only control may say. */
#include "record/leaves.h"

#include "action/request.h"
#include "base/time.h"

#include <stdio.h>

enum { OUTCOME_NO = 0, OUTCOME_HELD = 1, OUTCOME_YES = 2 };

struct cs_slice cs_leaf_text(struct cs_slice s)
{
    size_t at = 0, good = 0;
    uint32_t c = 0;
    while (at < s.n && cs_utf8_next(s, &at, &c) && at <= CS_LEAF_TEXT_MAX) {
        good = at;
    }
    return cs_slice_head(s, good);
}

enum cs_err cs_leaf_seal_all(const struct cs_csr_to *to, struct cs_leaf *leaf,
                             const struct cs_leaf_private *values, size_t n, struct cs_buf *mem)
{
    uint8_t holders[CS_LEAF_HOLDERS_MAX][CS_X25519];
    size_t n_holders = CS_MIN(to->n, (size_t)CS_LEAF_HOLDERS_MAX), ends[CS_LEAF_KEY_MAX];
    if (n_holders == 0 || n > CS_ARRAY_LEN(ends)) {
        return CS_ERR_UNAVAILABLE;
    }
    for (size_t i = 0; i < n_holders; i++) {
        memcpy(holders[i], to->key[i].public, CS_X25519);
    }
    for (size_t i = 0; i < n; i++) {
        enum cs_err e = cs_leaf_seal(leaf->kind, values[i].key,
                                     cs_slice_head(values[i].value, CS_LEAF_PRIVATE_MAX),
                                     (const uint8_t(*)[CS_X25519])holders, n_holders, mem);
        if (e != CS_OK) {
            return e;
        }
        ends[i] = mem->len;
    }
    for (size_t i = 0, at = 0; i < n; at = ends[i++]) {
        cs_leaf_set(leaf, values[i].key, cs_slice(mem->p + at, ends[i] - at));
    }
    return CS_OK;
}

static struct cs_leaf leaf_of(enum cs_leaf_kind kind, uint64_t time_ms, const struct cs_id *session)
{
    struct cs_leaf l = {.kind = kind, .time_ms = time_ms};
    if (session != NULL) {
        cs_leaf_set(&l, CS_KEY_SESSION, cs_slice(session->b, sizeof session->b));
    }
    return l;
}

static enum cs_err put(const struct cs_leaves *to, const struct cs_leaf *l)
{
    return to->ledger != NULL ? cs_ledger_put(to->ledger, to->journal, l) : CS_OK;
}

/* ---- frames ---- */

static enum cs_err of_open(const struct cs_leaves *to, struct cs_leaf *l, const void *frame)
{
    const struct cs_frame_session_open *f = frame;
    struct cs_buf mem = cs_buf(CS_LEAF_SEALED_MAX);
    const struct cs_leaf_private who = {CS_KEY_WHO, f->chain};
    l->kind = CS_LEAF_SESSION_OPEN;
    cs_leaf_set(l, CS_KEY_TARGET, cs_leaf_text(f->target));
    cs_leaf_set_uint(l, CS_KEY_POLICY, f->policy);
    cs_leaf_set(l, CS_KEY_WHAT, cs_leaf_text(f->protocol));
    enum cs_err e = cs_leaf_seal_all(to->to, l, &who, 1, &mem);
    e = e == CS_OK ? put(to, l) : e;
    cs_buf_done(&mem);
    return e;
}

/* Effects are names with commas between; empty is not harmless. */
static bool only_reads(struct cs_slice effects)
{
    struct cs_slice left = effects;
    do {
        size_t n = cs_slice_find(left, ',');
        struct cs_slice one = cs_slice_head(left, n);
        if (!cs_slice_eq_str(one, "read") && !cs_slice_eq_str(one, "session")) {
            return false;
        }
        left = cs_slice_from(left, CS_MIN(n + 1, left.n));
    } while (left.n > 0);
    return true;
}

static enum cs_err of_action(const struct cs_leaves *to, struct cs_leaf *l, const void *frame)
{
    const struct cs_frame_action *f = frame;
    if (f->outcome == OUTCOME_YES && only_reads(f->effects)) {
        return CS_OK; /* the recording has it */
    }
    if (f->outcome > OUTCOME_YES) {
        return CS_ERR_INVALID;
    }
    l->kind = CS_LEAF_DECISION;
    cs_leaf_set_uint(l, CS_KEY_N, f->n);
    cs_leaf_set_uint(l, CS_KEY_OUTCOME, f->outcome);
    cs_leaf_set_uint(l, CS_KEY_POLICY, f->policy);
    cs_leaf_set(l, CS_KEY_WHAT, cs_leaf_text(f->rules));
    return put(to, l);
}

static enum cs_err of_held(const struct cs_leaves *to, struct cs_leaf *l, const void *frame)
{
    const struct cs_frame_held *f = frame;
    if (f->digest.n != CS_SHA256) {
        return CS_ERR_INVALID;
    }
    l->kind = CS_LEAF_DECISION;
    cs_leaf_set_uint(l, CS_KEY_N, f->n);
    cs_leaf_set_uint(l, CS_KEY_OUTCOME, OUTCOME_HELD);
    cs_leaf_set(l, CS_KEY_REQUEST, cs_leaf_text(f->request));
    cs_leaf_set(l, CS_KEY_DIGEST, f->digest);
    cs_leaf_set(l, CS_KEY_WHAT, cs_slice_str(f->attached != 0 ? "attached" : "new"));
    return put(to, l);
}

static enum cs_err of_decided(const struct cs_leaves *to, struct cs_leaf *l, const void *frame)
{
    const struct cs_frame_decided *f = frame;
    if (f->state >= CS_REQUEST_MAX) {
        return CS_ERR_INVALID;
    }
    l->kind = CS_LEAF_DECIDED;
    cs_leaf_set_uint(l, CS_KEY_N, f->n);
    cs_leaf_set(l, CS_KEY_REQUEST, cs_leaf_text(f->request));
    cs_leaf_set_uint(l, CS_KEY_OUTCOME, f->state == CS_REQUEST_APPROVED ? OUTCOME_YES : OUTCOME_NO);
    cs_leaf_set(l, CS_KEY_WHAT,
                cs_slice_str(cs_request_state_name((enum cs_request_state)f->state)));
    return put(to, l);
}

static enum cs_err of_execute(const struct cs_leaves *to, struct cs_leaf *l, const void *frame)
{
    const struct cs_frame_execute *f = frame;
    if (f->digest.n != CS_SHA256) {
        return CS_ERR_INVALID;
    }
    l->kind = CS_LEAF_GRANT_USE;
    cs_leaf_set_uint(l, CS_KEY_N, f->n);
    cs_leaf_set(l, CS_KEY_REQUEST, cs_leaf_text(f->request));
    cs_leaf_set(l, CS_KEY_GRANT, cs_slice(f->grant.b, sizeof f->grant.b));
    cs_leaf_set(l, CS_KEY_DIGEST, f->digest);
    cs_leaf_set(l, CS_KEY_WHAT, cs_slice_str(f->elevated != 0 ? "elevated" : "credential"));
    return put(to, l);
}

static enum cs_err of_result(const struct cs_leaves *to, struct cs_leaf *l, const void *frame)
{
    const struct cs_frame_result *f = frame;
    struct cs_ledger_use use;
    struct cs_id session;
    memcpy(session.b, l->value[CS_KEY_SESSION].bytes.p, sizeof session.b);
    if (to->ledger == NULL || !cs_ledger_use_of(to->ledger, &session, f->n, &use)) {
        return CS_OK; /* it ran under no grant */
    }
    l->kind = CS_LEAF_GRANT_RESULT;
    cs_leaf_set_uint(l, CS_KEY_N, f->n);
    cs_leaf_set(l, CS_KEY_REQUEST, cs_slice_str(use.request));
    cs_leaf_set(l, CS_KEY_GRANT, cs_slice(use.grant.b, sizeof use.grant.b));
    cs_leaf_set_uint(l, CS_KEY_OUTCOME, f->ok != 0 ? OUTCOME_YES : OUTCOME_NO);
    if (f->sqlstate.n > 0) {
        cs_leaf_set(l, CS_KEY_WHAT, cs_leaf_text(f->sqlstate));
    }
    return put(to, l);
}

typedef enum cs_err (*frame_fn)(const struct cs_leaves *to, struct cs_leaf *l, const void *frame);
static const struct {
    unsigned kind;
    frame_fn fn;
} speakers[] = {
    /* SESSION_CLOSE: what is said of the end is the chain value that the END frame has */
    {CS_FRAME_SESSION_OPEN, of_open}, {CS_FRAME_ACTION, of_action},   {CS_FRAME_HELD, of_held},
    {CS_FRAME_DECIDED, of_decided},   {CS_FRAME_EXECUTE, of_execute}, {CS_FRAME_RESULT, of_result},
};

enum cs_err cs_leaf_of_frame(const struct cs_leaves *to, const struct cs_frame_head *head,
                             struct cs_slice frame)
{
    union {
        uint8_t raw[CS_FRAME_STRUCT_MAX];
        uint64_t align;
    } f;
    struct cs_frame_head again;
    for (size_t i = 0; i < CS_ARRAY_LEN(speakers); i++) {
        if (speakers[i].kind == head->kind) {
            if (!cs_frame_decode(frame, &again, f.raw)) {
                return CS_ERR_INVALID;
            }
            /* The recorder's clock, like that of the recording's frames. */
            struct cs_leaf l = leaf_of(CS_LEAF_NONE, cs_wall_ms(), &head->session);
            return speakers[i].fn(to, &l, f.raw);
        }
    }
    return CS_OK;
}

/* ---- the recorder's own ---- */

enum cs_err cs_leaf_of_recording(const struct cs_leaves *to, const struct cs_csr_writer *w,
                                 const char *end)
{
    struct cs_leaf l =
        leaf_of(end != NULL ? CS_LEAF_SESSION_CLOSE : CS_LEAF_RECORDING, cs_wall_ms(), &w->session);
    cs_leaf_set(&l, CS_KEY_CHAIN, cs_slice(w->chain, sizeof w->chain));
    cs_leaf_set_uint(&l, CS_KEY_FRAMES, w->seq);
    if (end != NULL) {
        cs_leaf_set(&l, CS_KEY_WHAT, cs_slice_str(end));
    }
    return put(to, &l);
}

enum cs_err cs_leaf_of_start(const struct cs_leaves *to, bool crashed, uint64_t size,
                             const struct cs_audit_hash *root)
{
    struct cs_leaf l = leaf_of(crashed ? CS_LEAF_RECOVERY : CS_LEAF_START, cs_wall_ms(), NULL);
    cs_leaf_set(&l, CS_KEY_WHAT, cs_slice_str("recorder"));
    cs_leaf_set_uint(&l, CS_KEY_SIZE, size);
    cs_leaf_set(&l, CS_KEY_ROOT, cs_slice(root->b, sizeof root->b));
    return put(to, &l);
}

enum cs_err cs_leaf_of_repair(const struct cs_leaves *to, const struct cs_id *session,
                              const char *what)
{
    struct cs_audit_hash root;
    uint64_t size = 0;
    if (to->ledger == NULL) {
        return CS_OK;
    }
    struct cs_leaf l = leaf_of(CS_LEAF_RECOVERY, cs_wall_ms(), session);
    cs_ledger_flushed(to->ledger, &size, &root);
    cs_leaf_set(&l, CS_KEY_WHAT, cs_slice_str(what));
    cs_leaf_set_uint(&l, CS_KEY_SIZE, size);
    cs_leaf_set(&l, CS_KEY_ROOT, cs_slice(root.b, sizeof root.b));
    return put(to, &l);
}

enum cs_err cs_leaf_of_key(const struct cs_leaves *to)
{
    uint8_t hash[CS_SHA256];
    char what[CS_CSR_KEY_NAME + 16];
    struct cs_leaf l = leaf_of(CS_LEAF_KEY, cs_wall_ms(), NULL);
    cs_sha256(cs_slice(to->to->key[0].public, CS_X25519), hash);
    (void)snprintf(what, sizeof what, "%s used", to->to->key[0].name);
    cs_leaf_set(&l, CS_KEY_WHAT, cs_slice_str(what));
    cs_leaf_set(&l, CS_KEY_KEY, cs_slice(hash, sizeof hash));
    return put(to, &l);
}
