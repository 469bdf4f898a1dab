/* The keeper role. It answers control, one message after the other, in the order they come: there
 * is nothing that a second one could overtake without harm, and no work is queued inside.
 *
 * SECURITY: what is asked for is checked as if control were hostile, as far as keeper can know: who
 * is asked for (session, target, connection), that an elevated proof names a grant, that no grant
 * is used twice, that the row belongs to its name and version. That the grant was consumed for this
 * session and target is control's word. No secret leaves, not even to control. */
#include "vault/keeper.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "ipc/ipc.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"
#include "vault/recording.h"
#include "vault/vault.h"

#include <stdio.h>
#include <unistd.h>

enum {
    WHY = 300,
    PATH_ROOM = 512,
    TARGET_MAX = 128,
    SEALED_MAX = CS_SECRET_MAX + 64,
    ANSWER_TRIES = 500
};
/* A grant lives for minutes: after this long nobody asks for it again. */
#define GRANT_NS (3600 * CS_NS_PER_S)

struct used_grant {
    struct cs_id id;
    uint64_t ns; /* when; 0 = free */
};

struct cs_keeper {
    struct cs_loop *loop;
    struct cs_channel *supervisor, *control; /* NULL = none */
    struct cs_vault *vault;                  /* NULL: the file is not there yet */
    struct cs_vault_prover *prover;
    char path[PATH_ROOM];
    bool booted, stopping, failed;
    bool alone; /* a process of its own, which confines itself; not so in unit tests */
    struct used_grant used[CS_LIMIT_KEEPER_GRANTS]; /* a ring, oldest at next_used */
    size_t next_used;
};

static void stop(struct cs_keeper *k, bool failed)
{
    k->stopping = true;
    k->failed = k->failed || failed;
    cs_loop_stop(k->loop);
}

/* In the channel's own reading coroutine: while control does not take answers, no further question
 * is read. One that does not read for so long has hung. */
static void answer(struct cs_keeper *k, enum cs_msg_type t, uint32_t corr, const void *msg)
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

static enum cs_err seal_key(struct cs_keeper *k, const struct cs_msg_seal_key *m, uint8_t *key,
                            char *why)
{
    if (m->create > 1) {
        return CS_ERR_INVALID;
    }
    if (k->vault == NULL) {
        enum cs_err e = cs_vault_open(k->path, m->create == 1, &k->vault, why, WHY);
        if (e != CS_OK) {
            return e;
        }
    }
    return cs_vault_put_public(k->vault, key);
}

static void on_seal_key(struct cs_keeper *k, uint32_t corr, const struct cs_msg_seal_key *m)
{
    uint8_t key[CS_X25519];
    char why[WHY] = "";
    enum cs_err e = seal_key(k, m, key, why);
    struct cs_msg_seal_key_is out = {.err = (uint64_t)e,
                                     .text = cs_slice_str(why),
                                     .key = cs_slice(key, e == CS_OK ? sizeof key : 0)};
    answer(k, CS_MSG_SEAL_KEY_IS, corr, &out);
}

/* ---- RESEAL ---- */

static void on_reseal(struct cs_keeper *k, uint32_t corr, const struct cs_msg_reseal *m)
{
    static uint8_t box[SEALED_MAX]; /* ciphertext; no wait between its filling and its sending */
    enum cs_err e = CS_ERR_INVALID;
    if (k->vault == NULL) {
        e = CS_ERR_UNAVAILABLE;
    } else if (m->version > 0 && m->sealed.n <= CS_SECRET_MAX + CS_SEAL_TO_OVERHEAD) {
        e = cs_vault_reseal(k->vault, m->name, m->version, m->sealed, box);
    }
    cs_log(e == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, NULL,
           "for=store secret=%s version=%llu result=%s", cs_log_quote(m->name).text,
           (unsigned long long)m->version, cs_err_name(e));
    struct cs_msg_resealed out = {.err = (uint64_t)e};
    if (e == CS_OK) {
        out.box = cs_slice(box, m->sealed.n - CS_X25519);
    } else if (e == CS_ERR_CORRUPT) {
        out.err = CS_ERR_INVALID;
        out.text = CS_SLICE_LIT("this was not sealed to the gateway's present key under this name: "
                                "ask for the key again");
    }
    answer(k, CS_MSG_RESEALED, corr, &out);
}

/* ---- PROVE_FOR ---- */

/* "" when it may be proved, else why not. */
static const char *ticket_check(const struct cs_msg_prove_for *m)
{
    bool elevated = m->which == CS_CREDENTIAL_ELEVATED;
    if (!elevated && m->which != CS_CREDENTIAL_EVERYDAY) {
        return "there is no such credential";
    }
    if (cs_id_is_zero(&m->session) || m->target.n == 0 || m->target.n > TARGET_MAX ||
        m->connection == 0) {
        return "session, target or connection is missing";
    }
    if (elevated && cs_id_is_zero(&m->grant)) {
        return "an elevated proof needs a consumed grant";
    }
    if (!elevated && !cs_id_is_zero(&m->grant)) {
        return "an everyday proof has no grant";
    }
    if (m->name.n == 0 || m->name.n > CS_VAULT_NAME_MAX || m->version == 0) {
        return "the secret's name or version is missing";
    }
    return "";
}

/* SECURITY: whatever becomes of this try, the grant has had its proof. */
static enum cs_err grant_use(struct cs_keeper *k, const struct cs_id *grant)
{
    uint64_t now = cs_mono_ns();
    for (size_t i = 0; i < CS_LIMIT_KEEPER_GRANTS; i++) {
        if (k->used[i].ns != 0 && cs_id_eq(&k->used[i].id, grant)) {
            return CS_ERR_DENIED;
        }
    }
    struct used_grant *oldest = &k->used[k->next_used];
    if (oldest->ns != 0 && now - oldest->ns < GRANT_NS) {
        return CS_ERR_LIMIT; /* forgetting it would let it be used again */
    }
    *oldest = (struct used_grant){*grant, now};
    k->next_used = (k->next_used + 1) % CS_LIMIT_KEEPER_GRANTS;
    return CS_OK;
}

struct proving {
    struct cs_keeper *k;
    const struct cs_msg_prove_for *m;
    struct cs_vault_proof proof;
    const char *why;
    enum cs_err err;
};

static void prove_unsealed(struct proving *p)
{
    const struct cs_msg_prove_for *m = p->m;
    struct cs_secret password;
    const struct cs_vault_exchange x = {.mechanism = m->mechanism,
                                        .client_first_bare = m->client_first_bare,
                                        .server_first = m->server_first,
                                        .client_final_bare = m->client_final_bare};
    p->err = cs_vault_unseal(p->k->vault, m->name, m->version, m->box, &password);
    p->why = "the stored secret does not open under the master key";
    if (p->err == CS_OK) {
        p->err = cs_vault_scram_prove(p->k->prover, &password, &x, &p->proof, &p->why);
    }
    cs_vault_forget(p->k->vault);
}

/* On the process's own stack: libcrypto's needs are its own affair. */
static void prove(void *arg)
{
    struct proving *p = arg;
    p->why = ticket_check(p->m);
    p->err = p->why[0] == 0 ? CS_OK : CS_ERR_INVALID;
    if (p->err == CS_OK && p->m->deadline <= cs_mono_ns()) {
        p->why = "it was asked too late: nobody waits for the answer";
        p->err = CS_ERR_TIMEOUT;
    }
    if (p->err == CS_OK && p->k->vault == NULL) {
        p->why = "there is no master key";
        p->err = CS_ERR_UNAVAILABLE;
    }
    if (p->err == CS_OK && p->m->which == CS_CREDENTIAL_ELEVATED) {
        p->err = grant_use(p->k, &p->m->grant);
        p->why = p->err == CS_ERR_LIMIT ? "too many elevated proofs within an hour"
                                        : "this grant has had its proof";
    }
    if (p->err == CS_OK) {
        prove_unsealed(p);
    }
}

static void on_prove(struct cs_keeper *k, uint32_t corr, const struct cs_msg_prove_for *m)
{
    struct proving p = {.k = k, .m = m, .why = "", .err = CS_ERR_INTERNAL};
    char grant[CS_ID_TEXT];
    bool elevated = m->which == CS_CREDENTIAL_ELEVATED;
    cs_big_stack_call(prove, &p);
    cs_log(p.err == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, &m->session,
           "for=proof target=%s connection=%llu which=%s grant=%s secret=%s version=%llu result=%s",
           cs_log_quote(m->target).text, (unsigned long long)m->connection,
           elevated ? "elevated" : "everyday", elevated ? cs_id_text(&m->grant, grant) : "-",
           cs_log_quote(m->name).text, (unsigned long long)m->version, cs_err_name(p.err));
    struct cs_msg_proof_for out = {.err = (uint64_t)p.err};
    if (p.err == CS_OK) {
        out.proof = cs_slice(p.proof.proof, sizeof p.proof.proof);
        out.server_signature = cs_slice(p.proof.server_signature, sizeof p.proof.server_signature);
    } else {
        out.text = cs_slice_str(p.why);
    }
    answer(k, CS_MSG_PROOF_FOR, corr, &out);
    cs_wipe(&p.proof, sizeof p.proof);
}

/* ---- RECORDING_KEY, UNWRAP ---- */

static enum cs_err recording_key(struct cs_keeper *k, const struct cs_msg_recording_key *m,
                                 struct cs_msg_recording_key_is *out,
                                 uint8_t box[static CS_RECORDING_BOX_MAX],
                                 uint8_t public[static CS_X25519])
{
    size_t n = 0;
    if (k->vault == NULL) {
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
    if (e != CS_OK) {
        out = (struct cs_msg_recording_key_is){
            .err = (uint64_t)e, .text = CS_SLICE_LIT("the recording key cannot be made or opened")};
    }
    cs_log(e == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, NULL,
           "for=recordings key=%s did=%s result=%s", cs_log_quote(m->name).text,
           m->box.n == 0 ? "make" : "announce", cs_err_name(e));
    answer(k, CS_MSG_RECORDING_KEY_IS, corr, &out);
}

static void on_unwrap(struct cs_keeper *k, uint32_t corr, const struct cs_msg_unwrap *m)
{
    static uint8_t rows[CS_OPENED_ROW * CS_WRAPPED_MAX]; /* sealed to the reader */
    size_t n = 0;
    enum cs_err e = k->vault != NULL
                        ? cs_recording_rewrap(k->vault, &m->session, m->reader, m->name, m->box,
                                              m->rows, rows, sizeof rows, &n)
                        : CS_ERR_UNAVAILABLE;
    cs_log(e == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, &m->session,
           "for=replay key=%s asked=%zu opened=%zu result=%s", cs_log_quote(m->name).text,
           m->rows.n / CS_WRAPPED_ROW, n / CS_OPENED_ROW, cs_err_name(e));
    struct cs_msg_unwrapped out = {.err = (uint64_t)e,
                                   .text = cs_slice_str(e == CS_OK ? "" : cs_err_text(e)),
                                   .rows = cs_slice(rows, e == CS_OK ? n : 0)};
    answer(k, CS_MSG_UNWRAPPED, corr, &out);
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
        on_seal_key(k, in->corr, in->msg);
        break;
    case CS_MSG_RESEAL:
        on_reseal(k, in->corr, in->msg);
        break;
    case CS_MSG_PROVE_FOR:
        on_prove(k, in->corr, in->msg);
        break;
    case CS_MSG_RECORDING_KEY:
        on_recording_key(k, in->corr, in->msg);
        break;
    case CS_MSG_UNWRAP:
        on_unwrap(k, in->corr, in->msg);
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

static bool read_path(struct cs_keeper *k, struct cs_slice params)
{
    const struct cs_slice name = CS_SLICE_LIT("master_key=");
    while (params.n > 0) {
        size_t n = cs_slice_find(params, '\n');
        struct cs_slice line = cs_slice_head(params, n);
        if (cs_slice_starts(line, name)) {
            struct cs_slice path = cs_slice_from(line, name.n);
            (void)snprintf(k->path, sizeof k->path, "%.*s", CS_SLICE_FMT(path));
            return path.n > 0 && path.n < sizeof k->path;
        }
        params = cs_slice_from(params, n + 1);
    }
    return false;
}

/* No file but the master key, and, while that is missing, its directory to make it in. */
static enum cs_err enter_sandbox(const struct cs_keeper *k)
{
    char directory[PATH_ROOM];
    (void)snprintf(directory, sizeof directory, "%s", k->path);
    char *slash = strrchr(directory, '/');
    if (slash == NULL) {
        return CS_ERR_INVALID;
    }
    slash[slash == directory] = 0;
    bool missing = access(k->path, F_OK) != 0;
    const struct cs_sandbox_path paths[] = {
        {missing ? directory : k->path, missing ? CS_SANDBOX_WRITE : CS_SANDBOX_READ},
        {"/dev/urandom", CS_SANDBOX_READ},
    };
    return cs_sandbox_enter(CS_SANDBOX_KEEPER, paths, CS_ARRAY_LEN(paths));
}

static void on_boot(struct cs_keeper *k, const struct cs_msg_boot *m)
{
    const struct cs_msg_ready ready = {.end_ = 0};
    char why[WHY] = "no path of a master key was given";
    if (k->booted) {
        return;
    }
    k->booted = true;
    enum cs_err e = CS_ERR_INVALID;
    if (read_path(k, m->params) && k->alone && enter_sandbox(k) != CS_OK) {
        (void)snprintf(why, sizeof why, "the sandbox could not be entered");
    } else if (k->path[0] != 0) {
        e = cs_vault_open(k->path, false, &k->vault, why, sizeof why);
        e = e == CS_ERR_NOT_FOUND ? CS_OK : e;
    }
    if (e != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "what=%s", cs_log_quote(cs_slice_str(why)).text);
        stop(k, true);
        return;
    }
    if (cs_channel_send(k->supervisor, CS_MSG_READY, 0, &ready, NULL, 0) != CS_OK) {
        stop(k, true);
        return;
    }
    cs_channel_run_phase(k->supervisor);
    cs_log(CS_EV_STARTED, NULL, "master_key=%s", k->vault != NULL ? "open" : "missing");
}

static void on_supervisor(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_keeper *k = arg;
    (void)ch;
    switch ((int)in->type) {
    case CS_MSG_BOOT:
        on_boot(k, in->msg);
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
    cs_vault_close(k->vault);
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
