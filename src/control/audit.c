/* The audit log, as far as control has to do with it: it says what it knows (log-ins, votes,
 * changes …) and waits until the recorder has made that durable, and it carries the recorder's
 * checkpoints to keeper and the signatures back. Called by role.c and by whoever does something
 * that belongs into the log.
 *
 * It must never let anything happen whose leaf is not durable, or pass a signature on before the
 * store has what keeper must remember of it. */
#include "control/control.h"

#include "audit/leaf.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"

#include <stdio.h>

#define SAY_NS    (10 * CS_NS_PER_S)
#define KEEPER_NS (10 * CS_NS_PER_S)

enum { ROOT = 32, PROOF_MAX = 63 * 32, ROW_ARENA = 16 * 1024, TRIES = 3, FAILED_PER_S = 10 };
static const char row_name[] = "log/key";

/* ---- saying ---- */

enum cs_err cs_audit_say(struct cs_control *c, const struct cs_msg_audit *m)
{
    struct cs_call call;
    enum cs_err e =
        cs_helper_call(c, CS_ROLE_RECORDER, CS_MSG_AUDIT, m, cs_mono_ns() + SAY_NS, &call);
    if (e == CS_OK) {
        const struct cs_msg_audited *r = (const void *)call.msg.raw;
        e = call.type == CS_MSG_AUDITED && r->err < CS_ERR_MAX ? (enum cs_err)r->err
                                                               : CS_ERR_PROTOCOL;
    }
    cs_call_done(&call);
    if (e != CS_OK && e != CS_ERR_CANCELLED) {
        cs_log(CS_EV_AUDIT_FAILED, NULL, "kind=%llu error=%s", (unsigned long long)m->kind,
               cs_err_name(e));
        /* Whatever it was: it was not written, so it is not done. */
        e = e == CS_ERR_NO_SPACE ? e : CS_ERR_UNAVAILABLE;
    }
    return e;
}

struct cs_msg_audit cs_audit_event(unsigned kind)
{
    return (struct cs_msg_audit){.event = cs_id_new(), .kind = kind, .time = cs_wall_ms()};
}

#define HAS(key) (UINT64_C(1) << CS_KEY_##key)

/* SECURITY: one event for one vote, however often it is said: over a crash of either side the log
 * has it once. */
enum cs_err cs_audit_vote(const struct cs_approval_said *v, void *control)
{
    uint8_t hash[CS_SHA256];
    const struct cs_slice pieces[] = {CS_SLICE_LIT("countersign/vote/1"),
                                      cs_slice(v->digest, CS_DIGEST), v->request, v->approver_id};
    struct cs_msg_audit m = cs_audit_event(CS_LEAF_VOTE);
    cs_sha256_pieces(pieces, CS_ARRAY_LEN(pieces), hash);
    memcpy(m.event.b, hash, sizeof m.event.b);
    m.time = v->at_ms != 0 ? v->at_ms : m.time;
    m.request = v->request;
    m.digest = cs_slice(v->digest, CS_DIGEST);
    m.outcome = v->approve ? 2 : 0;
    m.who = v->approver_id;
    m.words = v->reason;
    m.has =
        HAS(REQUEST) | HAS(DIGEST) | HAS(OUTCOME) | HAS(WHO) | (v->reason.n > 0 ? HAS(WORDS) : 0);
    return cs_audit_say(control, &m);
}

enum cs_err cs_audit_login(struct cs_control *c, const struct cs_id *session, struct cs_slice who,
                           struct cs_slice target)
{
    struct cs_msg_audit m = cs_audit_event(CS_LEAF_LOGIN);
    m.session = *session;
    m.who = who;
    m.target = target;
    m.outcome = 2;
    m.what = CS_SLICE_LIT("scram");
    m.has = HAS(SESSION) | HAS(WHO) | HAS(TARGET) | HAS(OUTCOME) | HAS(WHAT);
    return cs_audit_say(c, &m);
}

/* SECURITY: anybody can fail, as often as they like: that must not fill the log. */
void cs_audit_login_failed(struct cs_control *c, struct cs_slice user, struct cs_slice target)
{
    uint64_t now_s = cs_mono_ns() / CS_NS_PER_S;
    char what[80];
    if (c->failed_s != now_s) {
        c->failed_s = now_s;
        c->failed_said = 0;
    }
    if (c->failed_said >= FAILED_PER_S) {
        c->failed_more++;
        return;
    }
    c->failed_said++;
    (void)snprintf(what, sizeof what, "scram failed; not listed before: %llu",
                   (unsigned long long)c->failed_more);
    c->failed_more = 0;
    struct cs_msg_audit m = cs_audit_event(CS_LEAF_LOGIN);
    m.who = user;
    m.target = target;
    m.what = cs_slice_str(what);
    m.has = HAS(WHO) | HAS(TARGET) | HAS(OUTCOME) | HAS(WHAT);
    if (cs_audit_say(c, &m) != CS_OK) {
        c->failed_more++; /* nothing is done on it; the next one counts it */
    }
}

static void say_rules(struct cs_control *c)
{
    uint8_t was[CS_SHA256];
    struct cs_msg_audit m = cs_audit_event(CS_LEAF_RULES);
    memcpy(was, c->rules_sha256, sizeof was);
    m.policy = cs_policy_version(c->view->policy);
    m.rules = cs_slice(was, sizeof was);
    m.what = CS_SLICE_LIT("in force");
    m.has = HAS(POLICY) | HAS(RULES) | HAS(WHAT);
    if (cs_audit_say(c, &m) == CS_OK && memcmp(was, c->rules_sha256, sizeof was) == 0) {
        c->rules_said = true;
    }
}

void cs_audit_tick(struct cs_control *c)
{
    if (cs_helper_peer(c, CS_ROLE_RECORDER) == NULL) {
        return;
    }
    if (!c->rules_said && c->view != NULL) {
        say_rules(c);
    }
    enum cs_err e = cs_approval_say_again(c->approval);
    if (e != CS_OK && e != CS_ERR_CANCELLED && e != CS_ERR_UNAVAILABLE) {
        cs_log(CS_EV_AUDIT_FAILED, NULL, "what=\"votes\" error=%s", cs_err_name(e));
    }
}

void cs_audit_settle(struct cs_control *c, uint64_t deadline_ns)
{
    const struct cs_msg_log_settle m = {.end_ = 0};
    struct cs_call call;
    if (cs_helper_call(c, CS_ROLE_RECORDER, CS_MSG_LOG_SETTLE, &m, deadline_ns, &call) != CS_OK) {
        cs_log(CS_EV_AUDIT_FAILED, NULL, "what=\"the last signature\"");
    }
    cs_call_done(&call);
}

/* ---- checkpoints ---- */

struct relay {
    struct cs_control *c;
    struct cs_channel *from; /* to be compared only */
    uint32_t corr;
    struct cs_msg_checkpoint ask;
    bool keyless; /* the log has no key yet, or none any more: its operator has taken it away */
    uint8_t root[ROOT], proof[PROOF_MAX];
};

/* A new key, stored before it signs anything. */
static enum cs_err make_key(struct cs_control *c, uint64_t version)
{
    const struct cs_msg_log_key m = {.version = version};
    struct cs_call call;
    enum cs_err e =
        cs_helper_call(c, CS_ROLE_KEEPER, CS_MSG_LOG_KEY, &m, cs_mono_ns() + KEEPER_NS, &call);
    if (e == CS_OK) {
        const struct cs_msg_log_key_is *r = (const void *)call.msg.raw;
        e = call.type == CS_MSG_LOG_KEY_IS && r->err < CS_ERR_MAX ? (enum cs_err)r->err
                                                                  : CS_ERR_PROTOCOL;
        e = e == CS_OK ? cs_store_secret_put(c->store, cs_slice_str(row_name), version, r->box) : e;
    }
    cs_call_done(&call);
    return e;
}

/* One try. *out borrows from *call, which the caller ends. CONFLICT with out->err OK: the row
 * changed meanwhile. */
static enum cs_err sign(struct cs_control *c, struct relay *r, struct cs_call *call,
                        struct cs_msg_log_signed *out)
{
    struct cs_store_secret row;
    struct cs_arena a;
    cs_arena_init(&a, 4096, ROW_ARENA);
    enum cs_err e = cs_store_secret_get(c->store, cs_slice_str(row_name), &a, &row);
    if (e == CS_ERR_NOT_FOUND) {
        e = make_key(c, 1);
        e = e == CS_OK || e == CS_ERR_CONFLICT
                ? cs_store_secret_get(c->store, cs_slice_str(row_name), &a, &row)
                : e;
    }
    if (e == CS_OK) {
        r->ask.version = row.version;
        r->ask.box = row.box;
        e = cs_helper_call(c, CS_ROLE_KEEPER, CS_MSG_CHECKPOINT, &r->ask, cs_mono_ns() + KEEPER_NS,
                           call);
    }
    if (e == CS_OK) {
        const struct cs_msg_checkpoint_is *m = (const void *)call->msg.raw;
        e = call->type == CS_MSG_CHECKPOINT_IS && m->err < CS_ERR_MAX ? CS_OK : CS_ERR_PROTOCOL;
        if (e == CS_OK) {
            *out = (struct cs_msg_log_signed){
                .err = m->err, .size = m->size, .note = m->note, .key = m->key};
        }
        if (e == CS_OK && m->err == CS_ERR_NOT_FOUND && r->keyless) {
            /* Sealed under a master key that is lost. The log goes on with another key, when the
             * one that it was known by was taken away, and only then. */
            e = make_key(c, row.version + 1);
            e = e == CS_OK ? CS_ERR_CONFLICT : e;
        }
        /* SECURITY: what keeper signed is remembered before anybody has the signature. */
        if (e == CS_OK && m->err == CS_OK) {
            e = cs_store_secret_put(c->store, cs_slice_str(row_name), row.version + 1, m->box);
        }
    }
    cs_arena_done(&a);
    return e;
}

static void relay_run(void *arg)
{
    struct relay *r = arg;
    struct cs_control *c = r->c;
    struct cs_call call = {.fd = {-1, -1, -1}};
    struct cs_msg_log_signed out = {.err = CS_ERR_UNAVAILABLE};
    enum cs_err e = CS_ERR_CONFLICT;
    for (int i = 0; e == CS_ERR_CONFLICT && i < TRIES; i++) {
        cs_call_done(&call);
        call = (struct cs_call){.fd = {-1, -1, -1}};
        e = sign(c, r, &call, &out);
    }
    if (e != CS_OK) {
        out = (struct cs_msg_log_signed){
            .err = (uint64_t)(e == CS_ERR_CONFLICT ? CS_ERR_UNAVAILABLE : e)};
    }
    struct cs_peer *p = e != CS_ERR_CANCELLED ? cs_helper_peer(c, CS_ROLE_RECORDER) : NULL;
    if (p != NULL && p->channel == r->from) {
        (void)cs_peer_send(p, CS_MSG_LOG_SIGNED, r->corr, &out, NULL, 0);
    }
    cs_call_done(&call);
    c->relaying = false;
    cs_free(r);
}

void cs_audit_on_recorder(struct cs_channel *ch, const struct cs_channel_in *in, void *peer)
{
    struct cs_peer *p = peer;
    struct cs_control *c = p->c;
    const struct cs_msg_log_sign *m = in->msg;
    cs_handle co;
    cs_channel_in_close(in);
    if (in->type != CS_MSG_LOG_SIGN || in->corr == 0) {
        return;
    }
    struct relay *r = NULL;
    if (!c->relaying && c->store != NULL && c->phase == CS_CONTROL_RUN && m->root.n == ROOT &&
        m->proof.n <= PROOF_MAX) {
        r = cs_alloc(sizeof *r);
    }
    if (r != NULL) {
        *r = (struct relay){.c = c, .from = ch, .corr = in->corr};
        memcpy(r->root, m->root.p, ROOT);
        if (m->proof.n > 0) {
            memcpy(r->proof, m->proof.p, m->proof.n);
        }
        r->keyless = m->keyless == 1;
        r->ask = (struct cs_msg_checkpoint){.size = m->size,
                                            .old = m->old,
                                            .root = cs_slice(r->root, ROOT),
                                            .proof = cs_slice(r->proof, m->proof.n)};
        c->relaying = cs_co_spawn(c->loop, "checkpoint", relay_run, r, &co) == CS_OK;
        if (c->relaying) {
            return;
        }
        cs_free(r);
    }
    const struct cs_msg_log_signed no = {.err = CS_ERR_UNAVAILABLE};
    (void)cs_peer_send(p, CS_MSG_LOG_SIGNED, in->corr, &no, NULL, 0);
}
