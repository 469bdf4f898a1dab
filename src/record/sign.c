/* Has the log signed: a coroutine beside the pump that asks control, who asks keeper, for a
 * signature on what is durable: each second while something is not signed, sooner when a session
 * has ended. Called by recorder.c.
 *
 * Nothing waits for a signature but who asked to (LOG_SETTLE), so a keeper that is away stops
 * nobody at once; after CS_RECORDER_UNSIGNED_NS nothing is recorded any more, and so nothing runs.
 * It must never ask for a signature on a leaf that is not durable in the journal, or whose
 * recording is not in its file that far, or take one that is not by the log's key on exactly what
 * was asked. */
#include "record/leaves.h"
#include "record/recorder_internal.h"

#include "base/log.h"
#include "base/time.h"

#define EVERY_NS CS_NS_PER_S
#define HURRY_NS (200 * CS_NS_PER_MS) /* sessions that end together share a signature */
#define CALL_NS  (5 * CS_NS_PER_S)

/* ---- settling ---- */

void cs_settle_add(struct cs_recorder *rec, uint32_t corr)
{
    const struct cs_msg_log_settled no = {.err = CS_ERR_LIMIT};
    if (rec->n_settles == CS_RECORDER_SETTLES) {
        if (cs_channel_send(rec->control, CS_MSG_LOG_SETTLED, corr, &no, NULL, 0) != CS_OK) {
            cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control message=log_settled");
        }
        return;
    }
    rec->settles[rec->n_settles++] = (struct cs_settle){corr, rec->rests};
    cs_event_set(&rec->sign);
}

void cs_settle_look(struct cs_recorder *rec)
{
    if (rec->n_settles == 0 || rec->unsynced_since != 0 || rec->control == NULL) {
        return;
    }
    cs_event_set(&rec->sign);
    uint64_t size = cs_ledger_signed(rec->ledger);
    const struct cs_msg_log_settled m = {.err = CS_OK, .size = size};
    for (size_t i = rec->n_settles; i > 0; i--) {
        struct cs_settle *s = &rec->settles[i - 1];
        /* The pump has been through all rings since it was asked. */
        if (s->rests == rec->rests || size != cs_ledger_size(rec->ledger)) {
            continue;
        }
        if (cs_channel_send(rec->control, CS_MSG_LOG_SETTLED, s->corr, &m, NULL, 0) != CS_OK) {
            cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control message=log_settled");
        }
        *s = rec->settles[--rec->n_settles];
    }
}

/* ---- signing ---- */

static void refused(struct cs_recorder *rec, const char *why, uint64_t size, uint64_t keeper)
{
    if (!rec->log_refused) {
        cs_log(CS_EV_RECORD_FAILED, NULL, "why=\"%s\" size=%llu signed=%llu", why,
               (unsigned long long)size, (unsigned long long)keeper);
    }
    rec->log_refused = true;
    cs_recorder_health_all(rec, cs_recorder_health(rec));
}

/* What came back: exactly what was asked for, by the log's own key. */
static enum cs_err take_note(struct cs_recorder *rec, const struct cs_msg_log_signed *r,
                             uint64_t size, const struct cs_audit_hash *root)
{
    struct cs_audit_key key;
    struct cs_audit_checkpoint c;
    if (cs_audit_key_read(r->key, &key) != CS_OK || !cs_audit_checkpoint_open(r->note, &key, &c) ||
        c.size != size || !cs_audit_hash_eq(&c.root, root)) {
        return CS_ERR_PROTOCOL;
    }
    enum cs_err e = cs_ledger_checkpoint(rec->ledger, size, r->note, &key);
    if (e == CS_ERR_CONFLICT) {
        refused(rec, "the audit log is signed with another key than log.pub says", size, r->size);
    }
    if (e == CS_OK) {
        rec->keeper_size = size;
    }
    return e;
}

/* One question. AGAIN (CONFLICT): keeper has signed another size, which is taken over. */
static enum cs_err ask(struct cs_recorder *rec, uint64_t size, const struct cs_audit_hash *root)
{
    struct cs_audit_path path = {.n = 0};
    uint64_t old = rec->keeper_size;
    enum cs_err e = old > 0 ? cs_ledger_consistency(rec->ledger, old, size, &path) : CS_OK;
    if (e != CS_OK) {
        return e;
    }
    struct cs_msg_log_sign m = {.size = size,
                                .root = cs_slice(root->b, sizeof root->b),
                                .old = old,
                                .keyless = cs_ledger_has_key(rec->ledger) ? 0 : 1,
                                .proof = cs_slice(path.hash, path.n * sizeof path.hash[0])};
    struct cs_call call;
    e = cs_channel_call(rec->control, CS_MSG_LOG_SIGN, &m, NULL, 0, cs_mono_ns() + CALL_NS, &call);
    const struct cs_msg_log_signed *r = (const void *)call.msg.raw;
    e = rec->ledger == NULL ? CS_ERR_CANCELLED : e; /* the role has ended meanwhile */
    if (e == CS_OK && (call.type != CS_MSG_LOG_SIGNED || r->err >= CS_ERR_MAX)) {
        e = CS_ERR_PROTOCOL;
    }
    if (e == CS_OK && r->err != CS_OK) {
        e = (enum cs_err)r->err;
        if (e == CS_ERR_CONFLICT && r->size > size) {
            refused(rec, "keeper has signed more of the audit log than there is: it was set back",
                    size, r->size);
            e = CS_ERR_DENIED;
        } else if (e == CS_ERR_CONFLICT && r->size == old) {
            refused(rec, "the audit log does not go on from what keeper has signed", size, r->size);
            e = CS_ERR_DENIED;
        } else if (e == CS_ERR_CONFLICT) {
            rec->keeper_size = r->size;
        }
    } else if (e == CS_OK) {
        e = take_note(rec, r, size, root);
    }
    cs_call_done(&call);
    return e;
}

static enum cs_err sign_once(struct cs_recorder *rec)
{
    uint64_t size = 0;
    struct cs_audit_hash root;
    /* What a leaf says of a recording is in that file before it is signed: whoever checks a copy
     * of the directory must not find a file behind the log. */
    enum cs_err e = cs_batch_copied(rec, true);
    e = e == CS_OK ? cs_ledger_flush(rec->ledger, &size, &root) : e;
    if (e != CS_OK || cs_ledger_unsigned_since(rec->ledger) == 0) {
        return e;
    }
    if (rec->control == NULL) {
        return CS_ERR_UNAVAILABLE;
    }
    e = ask(rec, size, &root);
    /* The answer to an earlier question was lost: with what keeper has signed since. */
    return e == CS_ERR_CONFLICT && rec->control != NULL ? ask(rec, size, &root) : e;
}

static void said(struct cs_recorder *rec, enum cs_err e)
{
    bool was_long = rec->unsigned_long;
    uint64_t since = cs_ledger_unsigned_since(rec->ledger);
    rec->unsigned_long =
        e != CS_OK && since != 0 && cs_mono_ns() - since >= CS_RECORDER_UNSIGNED_NS;
    if (e == CS_OK && rec->unsigned_why != NULL) {
        cs_log(CS_EV_LOG_SIGNED, NULL, "size=%llu",
               (unsigned long long)cs_ledger_signed(rec->ledger));
    } else if (e != CS_OK && (rec->unsigned_why == NULL || was_long != rec->unsigned_long)) {
        cs_log(CS_EV_LOG_UNSIGNED, NULL, "error=%s size=%llu signed=%llu stopped=%s",
               cs_err_name(e), (unsigned long long)cs_ledger_size(rec->ledger),
               (unsigned long long)cs_ledger_signed(rec->ledger),
               rec->unsigned_long ? "yes" : "no");
    }
    rec->unsigned_why = e == CS_OK ? NULL : cs_err_name(e);
    if (was_long != rec->unsigned_long) {
        cs_recorder_health_all(rec, cs_recorder_health(rec));
    }
}

/* When the next signature is to be asked for; CS_FOREVER: there is nothing to sign. */
static uint64_t due(const struct cs_recorder *rec)
{
    uint64_t since = cs_ledger_unsigned_since(rec->ledger);
    if (since == 0 || rec->log_refused) {
        return CS_FOREVER;
    }
    if (rec->n_settles > 0) {
        return since;
    }
    return since + (cs_ledger_hurries(rec->ledger) ? HURRY_NS : EVERY_NS);
}

void cs_sign_run(void *arg)
{
    struct cs_recorder *rec = arg;
    uint64_t retry_ns = 0;
    for (;;) {
        bool open = rec->open && !rec->failed && rec->ledger != NULL;
        uint64_t until = open ? CS_MAX(due(rec), retry_ns) : CS_FOREVER;
        if (cs_mono_ns() < until) {
            struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &rec->sign);
            if (cs_wait(&w, 1, until) == CS_WOKE_CANCELLED) {
                return;
            }
            cs_event_clear(&rec->sign);
            continue; /* something has changed: when is it due now? */
        }
        enum cs_err e = sign_once(rec);
        if (e == CS_ERR_CANCELLED || rec->ledger == NULL) {
            return;
        }
        said(rec, e);
        retry_ns = e != CS_OK ? cs_mono_ns() + EVERY_NS : 0;
        cs_settle_look(rec);
    }
}
