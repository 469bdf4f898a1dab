/* The keeper role. It answers control, one message after the other, in the order they come: there
 * is nothing that a second one could overtake without harm, and no work is queued inside.
 *
 * SECURITY: no secret leaves, not even to control; what may be proved is checked in proofs.c. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "ipc/metrics.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"
#include "vault/keeper_internal.h"
#include "vault/recording.h"

#include <unistd.h>

enum { SEALED_MAX = CS_SECRET_MAX + 2 * CS_VAULT_BOX_OVERHEAD, ANSWER_TRIES = 500 };

static void stop(struct cs_keeper *k, bool failed)
{
    k->stopping = true;
    k->failed = k->failed || failed;
    cs_loop_stop(k->loop);
}

void cs_keeper_answer(struct cs_keeper *k, enum cs_msg_type t, uint32_t corr, const void *msg)
{
    struct cs_channel *ch = k->control;
    enum cs_err e = CS_ERR_UNAVAILABLE;
    for (int i = 0; i < ANSWER_TRIES; i++) {
        e = cs_channel_send(ch, t, corr, msg, NULL, 0);
        if (e == CS_OK || !cs_channel_alive(ch)) {
            return;
        }
        if (!cs_co_sleep(10 * CS_NS_PER_MS) || k->control != ch) {
            return;
        }
    }
    cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control message=%s error=%s", cs_msg_name(t),
           cs_err_name(e));
    stop(k, true); /* a new keeper gets a new channel */
}

/* ---- SEAL_KEY ---- */

static void on_seal_key(struct cs_keeper *k, uint32_t corr)
{
    uint8_t key[CS_X25519], id[CS_VAULT_KEY_ID] = {0};
    enum cs_err e = CS_ERR_UNAVAILABLE;
    if (cs_vault_has_key(k->vault)) {
        cs_vault_key_id(k->vault, id);
        e = cs_vault_put_public(k->vault, key);
    }
    struct cs_msg_seal_key_is out = {.err = (uint64_t)e,
                                     .key = cs_slice(key, e == CS_OK ? sizeof key : 0),
                                     .key_id = cs_slice(id, e == CS_OK ? sizeof id : 0),
                                     .previous = cs_vault_has_previous(k->vault) ? 1 : 0};
    cs_keeper_answer(k, CS_MSG_SEAL_KEY_IS, corr, &out);
}

/* ---- RESEAL, REWRAP: boxes for the store ---- */

static void count(unsigned use, enum cs_err e)
{
    cs_metric_add(
        CS_SLOT_SECRETS + use * CS_DIM_TAKEN + (e == CS_OK ? CS_TAKEN_OK : CS_TAKEN_REFUSED), 1);
}

static void log_box(struct cs_keeper *k, const char *what, struct cs_slice name, uint64_t version,
                    enum cs_err e)
{
    count(CS_USED_SEAL, e);
    if (cs_use_may_log(&k->uses, e == CS_OK ? CS_USE_DONE : CS_USE_REFUSED, false)) {
        cs_log(e == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, NULL,
               "for=%s secret=%s version=%llu result=%s", what, cs_log_quote(name).text,
               (unsigned long long)version, cs_err_name(e));
    }
}

static void on_reseal(struct cs_keeper *k, uint32_t corr, const struct cs_msg_reseal *m)
{
    static uint8_t box[SEALED_MAX]; /* ciphertext; no wait between its filling and its sending */
    enum cs_err e = CS_ERR_INVALID;
    size_t n = 0;
    if (!cs_vault_has_key(k->vault)) {
        e = CS_ERR_UNAVAILABLE;
    } else if (m->version > 0 && m->sealed.n <= CS_SECRET_MAX + CS_SEAL_TO_OVERHEAD) {
        e = cs_vault_reseal(k->vault, m->name, m->version, m->sealed, box, &n);
    }
    log_box(k, "store", m->name, m->version, e);
    struct cs_msg_resealed out = {.err = (uint64_t)e, .box = cs_slice(box, n)};
    if (e == CS_ERR_CORRUPT) {
        out.err = CS_ERR_INVALID;
        out.text = CS_SLICE_LIT("this was not sealed to the gateway's present key under this name: "
                                "ask for the key again");
    }
    cs_keeper_answer(k, CS_MSG_RESEALED, corr, &out);
}

static const char *rewrap_text(enum cs_err e)
{
    return e == CS_OK              ? ""
           : e == CS_ERR_NOT_FOUND ? "it is sealed under a master key that is not configured"
           : e == CS_ERR_CORRUPT   ? "it does not open under the master key"
                                   : cs_err_text(e);
}

/* SECURITY: only what opens is passed on, and nothing of what is in it: whoever asks has the box
 * already, and gets one for the same name and version. */
static void on_rewrap(struct cs_keeper *k, uint32_t corr, const struct cs_msg_rewrap *m)
{
    static uint8_t box[SEALED_MAX];
    enum cs_err e = CS_ERR_INVALID;
    size_t n = 0;
    if (!cs_vault_has_key(k->vault)) {
        e = CS_ERR_UNAVAILABLE;
    } else if (m->version > 0 && m->box.n <= CS_SECRET_MAX + CS_VAULT_BOX_OVERHEAD) {
        e = cs_vault_rewrap(k->vault, m->name, m->version, m->box, box, &n);
    }
    if (e != CS_OK || n > 0) {
        log_box(k, "rotation", m->name, m->version, e);
    }
    struct cs_msg_rewrapped out = {
        .err = (uint64_t)e, .text = cs_slice_str(rewrap_text(e)), .box = cs_slice(box, n)};
    cs_keeper_answer(k, CS_MSG_REWRAPPED, corr, &out);
}

/* ---- RECORDING_KEY, UNWRAP ---- */

static enum cs_err recording_key(struct cs_keeper *k, const struct cs_msg_recording_key *m,
                                 struct cs_msg_recording_key_is *out,
                                 uint8_t box[static CS_RECORDING_BOX_MAX],
                                 uint8_t public[static CS_X25519])
{
    size_t n = 0;
    if (!cs_vault_has_key(k->vault)) {
        return CS_ERR_UNAVAILABLE;
    }
    if (m->box.n == 0) {
        enum cs_err e = cs_recording_key_make(k->vault, m->name, box, &n);
        out->box = cs_slice(box, e == CS_OK ? n : 0);
        return e;
    }
    enum cs_err e = cs_recording_key_public(k->vault, m->name, m->box, public);
    if (e == CS_OK) {
        /* SECURITY: to the supervisor itself, and only from a box that opens: control cannot have
         * recordings sealed to a key of its own. */
        struct cs_msg_record_key_new told = {.name = m->name,
                                             .public = cs_slice(public, CS_X25519)};
        e = cs_channel_send(k->supervisor, CS_MSG_RECORD_KEY_NEW, 0, &told, NULL, 0);
        out->box = m->box;
        out->public = told.public;
    }
    return e;
}

static void on_recording_key(struct cs_keeper *k, uint32_t corr,
                             const struct cs_msg_recording_key *m)
{
    uint8_t box[CS_RECORDING_BOX_MAX], public[CS_X25519];
    struct cs_msg_recording_key_is out = {.err = 0};
    enum cs_err e = recording_key(k, m, &out, box, public);
    out.err = (uint64_t)e;
    count(CS_USED_RECORDINGS, e);
    if (e != CS_OK) {
        out = (struct cs_msg_recording_key_is){
            .err = (uint64_t)e, .text = CS_SLICE_LIT("the recording key cannot be made or opened")};
    }
    cs_log(e == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, NULL,
           "for=recordings key=%s did=%s result=%s", cs_log_quote(m->name).text,
           m->box.n == 0 ? "make" : "announce", cs_err_name(e));
    cs_keeper_answer(k, CS_MSG_RECORDING_KEY_IS, corr, &out);
}

static void on_unwrap(struct cs_keeper *k, uint32_t corr, const struct cs_msg_unwrap *m)
{
    static uint8_t rows[CS_OPENED_ROW * CS_WRAPPED_MAX]; /* sealed to the reader */
    size_t n = 0;
    enum cs_err e = cs_vault_has_key(k->vault)
                        ? cs_recording_rewrap(k->vault, &m->session, m->reader, m->name, m->box,
                                              m->rows, rows, sizeof rows, &n)
                        : CS_ERR_UNAVAILABLE;
    count(CS_USED_REPLAY, e);
    cs_log(e == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, &m->session,
           "for=replay key=%s asked=%zu opened=%zu result=%s", cs_log_quote(m->name).text,
           m->rows.n / CS_WRAPPED_ROW, n / CS_OPENED_ROW, cs_err_name(e));
    struct cs_msg_unwrapped out = {.err = (uint64_t)e,
                                   .text = cs_slice_str(e == CS_OK ? "" : cs_err_text(e)),
                                   .rows = cs_slice(rows, e == CS_OK ? n : 0)};
    cs_keeper_answer(k, CS_MSG_UNWRAPPED, corr, &out);
}

static void on_log_open(struct cs_keeper *k, uint32_t corr, const struct cs_msg_log_open *m)
{
    struct cs_buf rows = cs_buf(CS_BOXES_MAX); /* sealed to the reader */
    enum cs_err e = cs_vault_has_key(k->vault) ? cs_recording_log_open(k->vault, m->reader, m->name,
                                                                       m->box, m->rows, &rows)
                                               : CS_ERR_UNAVAILABLE;
    count(CS_USED_REPLAY, e);
    cs_log(e == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, NULL,
           "for=log-read key=%s asked=%zu opened=%zu result=%s", cs_log_quote(m->name).text,
           m->rows.n, rows.len, cs_err_name(e));
    struct cs_msg_log_opened out = {.err = (uint64_t)e,
                                    .text = cs_slice_str(e == CS_OK ? "" : cs_err_text(e)),
                                    .rows = e == CS_OK ? cs_buf_slice(&rows) : CS_SLICE_NULL};
    cs_keeper_answer(k, CS_MSG_LOG_OPENED, corr, &out);
    cs_buf_done(&rows);
}

/* ---- LOG_KEY, CHECKPOINT: the audit log's signature ---- */

static void on_log_key(struct cs_keeper *k, uint32_t corr, const struct cs_msg_log_key *m)
{
    uint8_t box[CS_LOG_KEY_BOX];
    struct cs_audit_key key;
    struct cs_buf text = cs_buf(CS_AUDIT_NAME_MAX + 128);
    enum cs_err e = m->version == 0              ? CS_ERR_INVALID
                    : cs_vault_has_key(k->vault) ? cs_log_key_make(k->vault, m->version, box, &key)
                                                 : CS_ERR_UNAVAILABLE;
    if (e == CS_OK) {
        cs_audit_key_write(&key, &text);
        e = text.bad ? CS_ERR_NO_MEMORY : CS_OK;
    }
    cs_log(e == CS_OK ? CS_EV_LOG_KEY : CS_EV_SECRET_REFUSED, NULL, "for=log key=%s result=%s",
           cs_log_quote(cs_buf_slice(&text)).text, cs_err_name(e));
    struct cs_msg_log_key_is out = {.err = (uint64_t)e};
    if (e == CS_OK) {
        out.box = cs_slice(box, sizeof box);
        out.key = cs_buf_slice(&text);
    }
    cs_keeper_answer(k, CS_MSG_LOG_KEY_IS, corr, &out);
    cs_buf_done(&text);
}

static void on_checkpoint(struct cs_keeper *k, uint32_t corr, const struct cs_msg_checkpoint *m)
{
    uint8_t box[CS_LOG_KEY_BOX];
    struct cs_audit_key key;
    struct cs_buf note = cs_buf(CS_AUDIT_NOTE_MAX), text = cs_buf(CS_AUDIT_NAME_MAX + 128);
    const struct cs_log_ask ask = {.version = m->version,
                                   .box = m->box,
                                   .size = m->size,
                                   .old = m->old,
                                   .root = m->root,
                                   .proof = m->proof};
    struct cs_msg_checkpoint_is out = {.err = 0};
    enum cs_err e = cs_vault_has_key(k->vault)
                        ? cs_log_sign(k->vault, &k->log, &ask, &out.size, &key, &note, box)
                        : CS_ERR_UNAVAILABLE;
    if (e == CS_OK) {
        cs_audit_key_write(&key, &text);
        e = text.bad || note.bad ? CS_ERR_NO_MEMORY : CS_OK;
    }
    out.err = (uint64_t)e;
    if (e == CS_OK) {
        out.note = cs_buf_slice(&note);
        out.key = cs_buf_slice(&text);
        out.box = cs_slice(box, sizeof box);
    } else if (cs_use_may_log(&k->uses, CS_USE_REFUSED, false)) {
        /* Once with another `old` is usual after a crash. Signing well has no line: the log's own
         * files say it, each second. */
        cs_log(CS_EV_SECRET_REFUSED, NULL, "for=log size=%llu old=%llu signed=%llu result=%s",
               (unsigned long long)m->size, (unsigned long long)m->old,
               (unsigned long long)out.size, cs_err_name(e));
    }
    cs_keeper_answer(k, CS_MSG_CHECKPOINT_IS, corr, &out);
    cs_buf_done(&note);
    cs_buf_done(&text);
}

/* ---- channels ---- */

static void close_fds(const struct cs_channel_in *in)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
        if (in->fd[i] >= 0) {
            (void)close(in->fd[i]);
        }
    }
}

static void on_control(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_keeper *k = arg;
    if (in->corr == 0 || ch != k->control) {
        return; /* a question that takes no answer is none */
    }
    switch ((int)in->type) {
    case CS_MSG_SEAL_KEY:
        on_seal_key(k, in->corr);
        break;
    case CS_MSG_RESEAL:
        on_reseal(k, in->corr, in->msg);
        break;
    case CS_MSG_PROVE_FOR:
        cs_keeper_prove(k, in->corr, in->msg);
        break;
    case CS_MSG_REWRAP:
        on_rewrap(k, in->corr, in->msg);
        break;
    case CS_MSG_RECORDING_KEY:
        on_recording_key(k, in->corr, in->msg);
        break;
    case CS_MSG_LOG_KEY:
        on_log_key(k, in->corr, in->msg);
        break;
    case CS_MSG_CHECKPOINT:
        on_checkpoint(k, in->corr, in->msg);
        break;
    case CS_MSG_UNWRAP:
        on_unwrap(k, in->corr, in->msg);
        break;
    case CS_MSG_LOG_OPEN:
        on_log_open(k, in->corr, in->msg);
        break;
    default: /* the table lets nothing else through */
        close_fds(in);
        break;
    }
    (void)cs_co_yield(); /* a flood of questions must not keep the supervisor out */
}

static void on_control_gone(struct cs_channel *ch, void *arg)
{
    struct cs_keeper *k = arg;
    if (k->control == ch) {
        const char *why = cs_channel_broken_why(ch);
        if (why != NULL) {
            cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control why=\"%s\"", why);
        }
        k->control = NULL;
        cs_channel_close(ch);
    }
}

/* SECURITY: there is one voice that keeper believes. A new control replaces the one before. */
static void on_peer(struct cs_keeper *k, const struct cs_msg_peer *m, int fd)
{
    if (m->role != CS_ROLE_CONTROL) {
        (void)close(fd);
        return;
    }
    if (k->control != NULL) {
        cs_channel_close(k->control);
        k->control = NULL;
    }
    enum cs_err e = cs_channel_open(k->loop, fd, CS_ROLE_KEEPER, CS_ROLE_CONTROL, m->index,
                                    on_control, on_control_gone, k, &k->control);
    if (e != CS_OK) {
        k->control = NULL;
        cs_log(CS_EV_INTERNAL, NULL, "peer=control error=%s", cs_err_name(e));
        return;
    }
    cs_channel_run_phase(k->control);
}

/* ---- what the supervisor gives: keys and the table ---- */

/* At the start it is the end; later the old keys, or the old table, stay. */
static void unusable(struct cs_keeper *k, const char *what, const char *why)
{
    cs_log(k->ready ? CS_EV_RELOAD_FAILED : CS_EV_INTERNAL, NULL, "what=\"%s\" why=%s", what,
           cs_log_quote(cs_slice_str(why)).text);
    if (!k->ready) {
        stop(k, true);
    }
}

/* SECURITY: to the supervisor, for the gates: who has the store must not have the key that its
 * marks for passwords are made with. */
static void announce_redact_key(struct cs_keeper *k)
{
    uint8_t key[CS_SEAL_KEY];
    if (!k->ready || k->vault == NULL || !cs_vault_has_key(k->vault)) {
        return;
    }
    enum cs_err e = cs_vault_derive(k->vault, "countersign/redact/1", key);
    if (e == CS_OK) {
        struct cs_msg_redact_key_new m = {.key = cs_slice(key, sizeof key)};
        e = cs_channel_send(k->supervisor, CS_MSG_REDACT_KEY_NEW, 0, &m, NULL, 0);
    }
    cs_wipe(key, sizeof key);
    if (e != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "what=\"the key for redaction\" error=%s", cs_err_name(e));
        stop(k, true); /* without it statements with passwords are refused: better a new keeper */
    }
}

/* A set of keys comes whole, the present one first: what was half given is never used. */
static void on_master_key(struct cs_keeper *k, const struct cs_msg_master_key *m, int fd)
{
    const char *why = "there is no memory that can be locked for it (RLIMIT_MEMLOCK)";
    if (m->previous == 0) {
        cs_vault_close(k->next);
        k->next = cs_vault_new();
    }
    enum cs_err e = k->next != NULL && m->previous <= 1 && m->last <= 1
                        ? cs_vault_read_key(k->next, m->previous == 1, fd, &why)
                        : CS_ERR_INVALID;
    (void)close(fd);
    if (e != CS_OK) {
        cs_vault_close(k->next);
        k->next = NULL;
        unusable(k, m->previous == 1 ? "previous_master_key" : "master_key", why);
    } else if (m->last == 1) {
        uint8_t id[CS_VAULT_KEY_ID];
        cs_vault_close(k->vault);
        k->vault = k->next;
        k->next = NULL;
        cs_vault_key_id(k->vault, id);
        cs_metric_set(CS_SLOT_MASTER_KEYS, cs_vault_has_previous(k->vault) ? 2 : 1);
        cs_log(CS_EV_MASTER_KEY, NULL, "id=%02x%02x%02x%02x previous=%s", id[0], id[1], id[2],
               id[3], cs_vault_has_previous(k->vault) ? "yes" : "no");
        announce_redact_key(k);
    }
}

static void get_ready(struct cs_keeper *k)
{
    const struct cs_msg_ready ready = {.end_ = 0};
    k->ready = true;
    if (cs_channel_send(k->supervisor, CS_MSG_READY, 0, &ready, NULL, 0) != CS_OK) {
        stop(k, true);
        return;
    }
    cs_channel_run_phase(k->supervisor);
    announce_redact_key(k);
    cs_log(CS_EV_STARTED, NULL, "master_key=%s", k->vault != NULL ? "open" : "missing");
}

static void on_credentials(struct cs_keeper *k, const struct cs_msg_credentials *m, int fd)
{
    struct cs_slice table = CS_SLICE_NULL;
    uint8_t hash[CS_SHA256];
    enum cs_err e = cs_sealed_map(fd, CS_CREDENTIALS_MAX, &table);
    (void)close(fd);
    if (e == CS_OK) {
        cs_sha256(table, hash);
        if (!cs_slice_eq(m->sha256, cs_slice(hash, sizeof hash)) || !cs_credentials_valid(table)) {
            cs_sealed_unmap(table);
            e = CS_ERR_CORRUPT;
        }
    }
    if (e != CS_OK) {
        /* SECURITY: with the old table, secrets would go on being proved for what they no longer
         * are for. */
        cs_log(CS_EV_INTERNAL, NULL, "what=\"the table of credentials\" error=%s", cs_err_name(e));
        stop(k, true);
        return;
    }
    cs_sealed_unmap(k->credentials);
    k->credentials = table;
    if (k->booted && !k->ready && !k->stopping) {
        get_ready(k);
    }
}

/* No file: keys and table come as descriptors. */
static void on_boot(struct cs_keeper *k)
{
    const struct cs_sandbox_path paths[] = {{"/dev/urandom", CS_SANDBOX_READ}};
    if (k->booted) {
        return;
    }
    k->booted = true;
    k->started_ns = cs_mono_ns();
    if (k->alone && cs_sandbox_enter(CS_SANDBOX_KEEPER, paths, CS_ARRAY_LEN(paths)) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "what=\"the sandbox cannot be entered\"");
        stop(k, true);
    }
}

static void on_supervisor(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_keeper *k = arg;
    (void)ch;
    switch ((int)in->type) {
    case CS_MSG_BOOT:
        on_boot(k);
        break;
    case CS_MSG_METRICS:
        cs_metrics_open(in->fd[0]);
        break;
    case CS_MSG_MASTER_KEY:
        on_master_key(k, in->msg, in->fd[0]);
        break;
    case CS_MSG_CREDENTIALS:
        on_credentials(k, in->msg, in->fd[0]);
        break;
    case CS_MSG_PEER:
        on_peer(k, in->msg, in->fd[0]);
        break;
    case CS_MSG_SHUTDOWN:
        cs_log(CS_EV_STOPPED, NULL, "why=\"told to\"");
        stop(k, false);
        break;
    default:
        close_fds(in);
        break;
    }
}

static void on_supervisor_gone(struct cs_channel *ch, void *arg)
{
    struct cs_keeper *k = arg;
    k->supervisor = NULL;
    cs_channel_close(ch);
    if (!k->stopping) {
        stop(k, true);
    }
}

enum cs_err cs_keeper_new(struct cs_loop *loop, int supervisor_fd, struct cs_keeper **ret)
{
    struct cs_keeper *k = cs_alloc(sizeof *k);
    cs_handle co;
    struct cs_vault_prover *prover = k != NULL ? cs_vault_prover_new() : NULL;
    if (prover == NULL) {
        (void)close(supervisor_fd);
        cs_free(k);
        return CS_ERR_NO_MEMORY;
    }
    k->loop = loop;
    k->prover = prover;
    enum cs_err e = cs_channel_open(loop, supervisor_fd, CS_ROLE_KEEPER, CS_ROLE_SUPERVISOR, 0,
                                    on_supervisor, on_supervisor_gone, k, &k->supervisor);
    if (e != CS_OK) {
        k->supervisor = NULL;
    } else {
        e = cs_co_spawn(loop, "uses", cs_uses_run, &k->uses, &co);
    }
    if (e != CS_OK) {
        cs_keeper_free(k);
        return e;
    }
    *ret = k;
    return CS_OK;
}

void cs_keeper_free(struct cs_keeper *k)
{
    if (k == NULL) {
        return;
    }
    cs_channel_close(k->control);
    cs_channel_close(k->supervisor);
    cs_vault_prover_free(k->prover);
    cs_vault_close(k->next);
    cs_vault_close(k->vault);
    cs_sealed_unmap(k->credentials);
    cs_uses_tell(&k->uses);
    cs_free(k);
}

int cs_keeper_run(int supervisor_fd)
{
    struct cs_keeper *k = NULL;
    struct cs_loop *loop = cs_loop_new();
    enum cs_err e = loop != NULL ? cs_keeper_new(loop, supervisor_fd, &k) : CS_ERR_NO_MEMORY;
    if (e != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL,
               "what=\"start failed: no memory, or none that can be locked "
               "(RLIMIT_MEMLOCK)\" error=%s",
               cs_err_name(e));
        return 1;
    }
    k->alone = true;
    cs_loop_run(loop);
    int status = k->failed ? 1 : 0;
    cs_keeper_free(k);
    cs_loop_free(loop);
    return status;
}
