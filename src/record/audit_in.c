/* What control says to the audit log: one leaf for each AUDIT, answered when it is durable; and the
 * channel that it comes by. Called by the pump and by the channel.
 *
 * SECURITY: control may say what control knows: log-ins, votes, changes, rules, keys, replays. What
 * happened in a session is its gate's to say, and recordings are the recorder's own. An event that
 * is said again (control does not know whether it was heard) gets no second leaf. */
#include "record/audit_in.h"
#include "record/recorder_internal.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"

#include <unistd.h>

static const enum cs_leaf_kind controls[] = {CS_LEAF_LOGIN,  CS_LEAF_VOTE, CS_LEAF_CHANGE,
                                             CS_LEAF_RULES,  CS_LEAF_KEY,  CS_LEAF_SHRED,
                                             CS_LEAF_REPLAY, CS_LEAF_READ};

static void answer(struct cs_recorder *rec, uint32_t corr, enum cs_err err)
{
    const struct cs_msg_audited m = {.err = (uint64_t)err};
    if (rec->control != NULL) {
        /* One that does not read is cut off by its own calls' deadlines. */
        enum cs_err e = cs_channel_send(rec->control, CS_MSG_AUDITED, corr, &m, NULL, 0);
        if (e != CS_OK) {
            cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control message=audited error=%s", cs_err_name(e));
        }
    }
}

/* ---- leaves ---- */

static bool wants(const struct cs_msg_audit *m, enum cs_leaf_key key)
{
    return (m->has >> (unsigned)key & 1) != 0;
}

static bool may_say(const struct cs_msg_audit *m)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(controls); i++) {
        if (m->kind == (uint64_t)controls[i]) {
            return !cs_id_is_zero(&m->event);
        }
    }
    return false;
}

static void fill(const struct cs_msg_audit *m, struct cs_leaf *l)
{
    const struct {
        enum cs_leaf_key key;
        struct cs_slice value;
    } values[] = {
        {CS_KEY_SESSION, cs_slice(m->session.b, sizeof m->session.b)},
        {CS_KEY_REQUEST, m->request},
        {CS_KEY_DIGEST, m->digest},
        {CS_KEY_RULES, m->rules},
        {CS_KEY_TARGET, cs_leaf_text(m->target)},
        {CS_KEY_WHAT, cs_leaf_text(m->what)},
        {CS_KEY_KEY, m->key},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(values); i++) {
        if (wants(m, values[i].key)) {
            cs_leaf_set(l, values[i].key, values[i].value);
        }
    }
    if (wants(m, CS_KEY_OUTCOME)) {
        cs_leaf_set_uint(l, CS_KEY_OUTCOME, m->outcome);
    }
    if (wants(m, CS_KEY_POLICY)) {
        cs_leaf_set_uint(l, CS_KEY_POLICY, m->policy);
    }
    cs_leaf_set(l, CS_KEY_EVENT, cs_slice(m->event.b, sizeof m->event.b));
}

enum cs_err cs_asks_leaf(const struct cs_csr_to *to, const struct cs_msg_audit *m,
                         struct cs_buf *mem, struct cs_leaf *ret)
{
    const struct cs_leaf_private all[] = {
        {CS_KEY_WHO, m->who}, {CS_KEY_SUBJECT, m->subject}, {CS_KEY_WORDS, m->words}};
    struct cs_leaf_private values[CS_ARRAY_LEN(all)];
    struct cs_leaf l = {.kind = (enum cs_leaf_kind)m->kind, .time_ms = m->time};
    size_t n = 0;
    if (!may_say(m)) {
        return CS_ERR_INVALID;
    }
    fill(m, &l);
    for (size_t i = 0; i < CS_ARRAY_LEN(all); i++) {
        if (wants(m, all[i].key)) {
            values[n++] = all[i];
        }
    }
    enum cs_err e = cs_leaf_seal_all(to, &l, values, n, mem);
    if (e == CS_OK) {
        *ret = l;
    }
    return e;
}

static enum cs_err put(struct cs_recorder *rec, const struct cs_msg_audit *m)
{
    struct cs_buf mem = cs_buf(CS_ASKS_MEM);
    struct cs_leaf l;
    enum cs_err e = cs_asks_leaf(&rec->to, m, &mem, &l);
    e = e == CS_OK ? cs_ledger_put(rec->ledger, &rec->journal, &l) : e;
    cs_buf_done(&mem);
    return e;
}

static void put_own(struct cs_recorder *rec)
{
    const struct cs_leaves *to = cs_recordings_leaves(rec->recordings);
    enum cs_err e = CS_OK;
    if (rec->say_start) {
        uint64_t size = 0;
        struct cs_audit_hash root;
        e = cs_ledger_flush(rec->ledger, &size, &root);
        e = e == CS_OK ? cs_leaf_of_start(to, rec->crashed, size, &root) : e;
        rec->say_start = e != CS_OK;
    }
    if (e == CS_OK && rec->say_key) {
        e = cs_leaf_of_key(to);
        rec->say_key = e != CS_OK;
    }
    if (rec->unsynced_since == 0) {
        rec->unsynced_since = cs_mono_ns();
    }
    (void)cs_recorder_ok(rec, e);
}

static bool have_room(struct cs_recorder *rec)
{
    return cs_recordings_have_room(rec->recordings) ||
           (cs_batch_make_room(rec) && cs_recordings_have_room(rec->recordings));
}

static void drop(struct cs_recorder *rec, struct cs_ask **at)
{
    struct cs_ask *a = *at;
    *at = a->next;
    rec->n_asks--;
    cs_free(a);
}

void cs_asks_take(struct cs_recorder *rec)
{
    if ((rec->say_start || rec->say_key) && have_room(rec)) {
        put_own(rec);
    }
    for (struct cs_ask **at = &rec->asks; *at != NULL && !rec->failed;) {
        struct cs_ask *a = *at;
        if (a->in_batch) {
            at = &a->next;
            continue;
        }
        bool known = cs_ledger_knows(rec->ledger, &a->msg.event);
        if (!known && !have_room(rec)) {
            return;
        }
        /* Making room may have answered, and freed, some before it: begin again. */
        enum cs_err e = known ? CS_OK : put(rec, &a->msg);
        a->in_batch = e == CS_OK;
        if (e == CS_OK && rec->unsynced_since == 0) {
            rec->unsynced_since = cs_mono_ns(); /* also for a known one: it may wait for the disk */
        }
        if (e != CS_OK) {
            cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control message=audit kind=%llu error=%s",
                   (unsigned long long)a->msg.kind, cs_err_name(e));
            answer(rec, a->corr, e);
        }
        at = &rec->asks;
        while (*at != NULL && *at != a) {
            at = &(*at)->next;
        }
        if (e != CS_OK && *at != NULL) {
            drop(rec, at);
        } else if (*at != NULL) {
            at = &(*at)->next;
        }
    }
}

bool cs_asks_wait(const struct cs_recorder *rec)
{
    const struct cs_ask *a = rec->asks;
    while (a != NULL && !a->in_batch) {
        a = a->next;
    }
    return a != NULL;
}

static void answer_all(struct cs_recorder *rec, bool in_batch, enum cs_err err)
{
    struct cs_ask **at = &rec->asks;
    while (*at != NULL) {
        if ((*at)->in_batch != in_batch) {
            at = &(*at)->next;
            continue;
        }
        answer(rec, (*at)->corr, err);
        drop(rec, at);
    }
}

void cs_asks_answer(struct cs_recorder *rec)
{
    answer_all(rec, true, CS_OK);
}

void cs_asks_refuse(struct cs_recorder *rec, enum cs_err err)
{
    answer_all(rec, false, err);
}

/* ---- the channel ---- */

/* The message's slices borrow from the channel: they are moved into the ask's own bytes. */
static struct cs_ask *ask_new(const struct cs_msg_audit *m, uint32_t corr)
{
    struct cs_slice from[] = {m->request, m->digest, m->rules, m->who, m->subject,
                              m->words,   m->target, m->what,  m->key};
    size_t n = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(from); i++) {
        n += from[i].n;
    }
    struct cs_ask *a = cs_alloc(sizeof *a + n);
    if (a == NULL) {
        return NULL;
    }
    a->corr = corr;
    a->msg = *m;
    struct cs_slice *to[] = {&a->msg.request, &a->msg.digest,  &a->msg.rules,
                             &a->msg.who,     &a->msg.subject, &a->msg.words,
                             &a->msg.target,  &a->msg.what,    &a->msg.key};
    size_t at = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(from); i++) {
        if (from[i].n > 0) {
            memcpy(a->bytes + at, from[i].p, from[i].n);
        }
        *to[i] = cs_slice(a->bytes + at, from[i].n);
        at += from[i].n;
    }
    return a;
}

static void on_audit(struct cs_recorder *rec, const struct cs_msg_audit *m, uint32_t corr)
{
    struct cs_ask *a = NULL, **end = &rec->asks;
    enum cs_err e =
        rec->failed || rec->keyless || rec->unsigned_long || rec->log_refused || rec->stopping
            ? CS_ERR_UNAVAILABLE
        : rec->no_space                   ? CS_ERR_NO_SPACE
        : rec->n_asks >= CS_RECORDER_ASKS ? CS_ERR_LIMIT
        : (a = ask_new(m, corr)) == NULL  ? CS_ERR_NO_MEMORY
                                          : CS_OK;
    if (e != CS_OK) {
        answer(rec, corr, e);
        return;
    }
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = a;
    rec->n_asks++;
}

static void on_control(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_recorder *rec = arg;
    if (ch != rec->control || in->corr == 0) {
        cs_channel_in_close(in);
        return; /* a question that takes no answer is none */
    }
    if (in->type == CS_MSG_AUDIT) {
        on_audit(rec, in->msg, in->corr);
    } else if (in->type == CS_MSG_LOG_SETTLE) {
        cs_settle_add(rec, in->corr);
    } else {
        cs_channel_in_close(in);
    }
    cs_event_set(&rec->work);
}

void cs_recorder_control_close(struct cs_recorder *rec)
{
    struct cs_channel *ch = rec->control;
    rec->control = NULL;
    rec->n_settles = 0;
    /* What that control said and nobody wrote: it was told nothing, so it did nothing on it. */
    while (rec->asks != NULL) {
        drop(rec, &rec->asks);
    }
    if (ch != NULL) {
        cs_channel_close(ch);
    }
}

static void on_control_gone(struct cs_channel *ch, void *arg)
{
    struct cs_recorder *rec = arg;
    if (rec->control == ch) {
        const char *why = cs_channel_broken_why(ch);
        if (why != NULL) {
            cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control why=\"%s\"", why);
        }
        cs_recorder_control_close(rec);
    }
}

/* SECURITY: there is one control. A new one replaces the one before. */
void cs_recorder_control(struct cs_recorder *rec, const struct cs_msg_peer *m, int fd)
{
    if (m->role != CS_ROLE_CONTROL) {
        (void)close(fd);
        return;
    }
    cs_recorder_control_close(rec);
    enum cs_err e = cs_channel_open(rec->loop, fd, CS_ROLE_RECORDER, CS_ROLE_CONTROL, m->index,
                                    on_control, on_control_gone, rec, &rec->control);
    if (e != CS_OK) {
        rec->control = NULL;
        cs_log(CS_EV_INTERNAL, NULL, "peer=control error=%s", cs_err_name(e));
        return;
    }
    cs_channel_run_phase(rec->control);
    cs_event_set(&rec->sign);
}
