/* The recorder role: its channel to the supervisor, its start (journal, recovery, walls) and its
 * end. The work is in pump.c (taking from rings), batch.c (making durable) and source.c (the
 * rings). Started by programs/recorder.c.
 *
 * Order: a ring's frames reach the journal in the ring's order. Durability: a ring is told so only
 * after fdatasync. It must never report a frame as durable that is not, write one that is not
 * encrypted, or believe an index, a length or a frame that a gate wrote. */
#include "record/recorder.h"

#include "base/alloc.h"
#include "base/log.h"
#include "ipc/metrics.h"
#include "record/files.h"
#include "record/recorder_internal.h"
#include "runtime/sandbox.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- opening ---- */

/* The journal's directory is open by now. */
static enum cs_err files_open(struct cs_recorder *rec)
{
    const char *why = "";
    enum cs_err err = cs_ledger_open(rec->journal.dir, &rec->ledger, &why);
    if (err != CS_OK) {
        rec->ledger = NULL;
        cs_log(CS_EV_RECORD_FAILED, NULL, "why=\"%s\" error=%s", why, cs_err_name(err));
        return err;
    }
    rec->keeper_size = cs_ledger_signed(rec->ledger);
    rec->head_size = cs_ledger_size(rec->ledger);
    rec->copier = cs_copier_new(rec->journal.dir);
    rec->recordings =
        rec->copier != NULL ? cs_recordings_new(&rec->journal, rec->copier, rec->ledger) : NULL;
    if (rec->recordings == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    cs_copier_also(rec->copier, cs_ledger_sync_run, rec->ledger);
    if (rec->processors > 1) {
        cs_recordings_help(rec->recordings, rec->help_from);
    }
    return CS_OK;
}

static enum cs_err on_recovered(void *arg, const struct cs_journal_entry *e)
{
    struct cs_recorder *rec = arg;
    enum cs_err err = rec->recordings == NULL ? files_open(rec) : CS_OK;
    if (err != CS_OK) {
        return err;
    }
    if (e->kind == CS_JOURNAL_LEAF) {
        err = cs_ledger_add(rec->ledger, e->offset, e->body);
        if (err == CS_ERR_CORRUPT) {
            cs_log(CS_EV_RECORD_FAILED, NULL,
                   "why=\"leaves of the audit log are missing: its directory was taken away or set "
                   "back\" size=%llu next=%llu",
                   (unsigned long long)cs_ledger_size(rec->ledger), (unsigned long long)e->offset);
            err = CS_ERR_CONFLICT; /* the journal is well: it is not to be set aside */
        }
        return err;
    }
    return cs_recordings_recover(rec->recordings, e);
}

static void files_close(struct cs_recorder *rec)
{
    cs_recordings_free(rec->recordings);
    cs_copier_free(rec->copier); /* its thread first: it works for the ledger, too */
    cs_ledger_free(rec->ledger);
    rec->recordings = NULL;
    rec->copier = NULL;
    rec->ledger = NULL;
    rec->copying = false;
}

/* What the journal held is in its files now, and they are made durable before anything else. The
 * older segments go when this one says durably which recordings are open: their lists are in those.
 */
static enum cs_err recovered(struct cs_recorder *rec)
{
    const struct cs_journal_entry none = {.kind = CS_JOURNAL_COMMIT};
    enum cs_err err = on_recovered(rec, &none);
    if (err != CS_OK) {
        return err;
    }
    cs_recordings_cleared(rec->recordings);
    rec->crashed = cs_ledger_size(rec->ledger) != rec->head_size; /* the journal had more */
    err = cs_batch_sync_files(rec);
    if (err == CS_OK && !cs_journal_full(&rec->journal)) { /* else the next one begins with it */
        cs_batch_begin_segment(rec);
    }
    rec->unsynced_since = cs_mono_ns();
    rec->rotated = true;
    rec->first_kept = rec->journal.number - 1;
    return err;
}

bool cs_recorder_open(struct cs_recorder *rec)
{
    struct cs_journal_recovery found = {0, 0, 0};
    bool before = rec->no_space;
    files_close(rec);
    enum cs_err err = cs_journal_open(&rec->journal, rec->directory, rec->segment_bytes,
                                      on_recovered, rec, &found);
    if (err == CS_OK) {
        err = recovered(rec);
        if (err != CS_OK) {
            files_close(rec);
            cs_journal_close(&rec->journal);
        }
    }
    if (!cs_recorder_ok(rec, err)) {
        return false;
    }
    rec->open = true;
    rec->crashed |= found.cut_bytes > 0 || found.set_aside > 0;
    rec->say_start = true;
    rec->opened_ns = cs_mono_ns();
    if (rec->to.n > 0) {
        cs_recordings_keys(rec->recordings, &rec->to);
    }
    for (struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        s->skip_to = cs_seen_high(&rec->journal.seen, s->epoch);
    }
    cs_recorder_health_all(rec, cs_recorder_health(rec));
    if (found.cut_bytes > 0 || found.set_aside > 0 || before) {
        cs_log(CS_EV_RECORD_RECOVERED, NULL,
               "segment=%u entries=%llu cut_bytes=%llu set_aside=%llu", rec->journal.number,
               (unsigned long long)found.entries, (unsigned long long)found.cut_bytes,
               (unsigned long long)found.set_aside);
    }
    return true;
}

void cs_recorder_close(struct cs_recorder *rec)
{
    /* What is not synced may be the list of what is open: then the older segments are needed. */
    bool clean = rec->open && !rec->failed && !rec->no_space && rec->unsynced_since == 0;
    if (clean) { /* the files say it all; the journal is left empty */
        clean = cs_batch_sync_files(rec) == CS_OK &&
                cs_journal_retire(&rec->journal, rec->journal.number) == CS_OK;
    }
    rec->failed = !clean;
    if (clean) {
        cs_log(CS_EV_STOPPED, NULL, "segment=%u", rec->journal.number);
    }
    files_close(rec);
    cs_journal_close(&rec->journal);
    rec->open = false;
}

/* ---- the role ---- */

static bool param(struct cs_slice params, const char *name, struct cs_slice *ret)
{
    while (params.n > 0) {
        size_t n = cs_slice_find(params, '\n');
        struct cs_slice line = cs_slice_head(params, n);
        size_t eq = cs_slice_find(line, '=');
        if (eq < line.n && cs_slice_eq_str(cs_slice_head(line, eq), name)) {
            *ret = cs_slice_from(line, eq + 1);
            return true;
        }
        params = cs_slice_from(params, n + 1);
    }
    return false;
}

static void on_boot(struct cs_recorder *rec, const struct cs_msg_boot *m)
{
    struct cs_slice directory = CS_SLICE_NULL, segment = CS_SLICE_NULL, escrow = CS_SLICE_NULL;
    if (param(m->params, "escrow", &escrow) && escrow.n > 0) {
        /* A holder that was asked for and cannot be served must not be left out in silence. */
        rec->failed |= !cs_unhex(escrow, rec->escrow.key[0].public, CS_X25519);
        (void)snprintf(rec->escrow.key[0].name, CS_CSR_KEY_NAME, "escrow");
        rec->escrow.n = 1;
    }
    if (rec->directory == NULL && param(m->params, "directory", &directory) && directory.n > 0) {
        rec->directory = cs_alloc(directory.n + 1);
        if (rec->directory != NULL) {
            memcpy(rec->directory, directory.p, directory.n);
        }
    }
    if (param(m->params, "segment", &segment) &&
        (!cs_slice_to_u64(segment, &rec->segment_bytes) || rec->segment_bytes < CS_SEGMENT_LEAST ||
         rec->segment_bytes > CS_SEGMENT_FILE_MAX)) {
        rec->segment_bytes = 0; /* the usual size */
    }
    rec->booted = true;
}

/* The key of a month. What is open keeps the one that it was opened with. */
static void on_key(struct cs_recorder *rec, const struct cs_msg_record_key *m)
{
    struct cs_csr_to to = {.n = 1};
    if (m->public.n != CS_X25519 || m->name.n == 0 || m->name.n >= CS_CSR_KEY_NAME) {
        return; /* the supervisor's own table; without a key nothing runs */
    }
    memcpy(to.key[0].name, m->name.p, m->name.n);
    memcpy(to.key[0].public, m->public.p, CS_X25519);
    if (rec->escrow.n > 0) {
        to.key[to.n++] = rec->escrow.key[0];
    }
    rec->say_key |= rec->to.n != to.n || memcmp(&rec->to, &to, sizeof to) != 0;
    rec->to = to;
    rec->keyless = false;
    if (rec->open) {
        cs_recordings_keys(rec->recordings, &to);
        cs_recorder_health_all(rec, cs_recorder_health(rec));
    }
    cs_log(CS_EV_RECORD_KEY, NULL, "name=%s escrow=%s", to.key[0].name,
           rec->escrow.n > 0 ? "yes" : "no");
}

static void on_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct cs_recorder *rec = arg;
    (void)c;
    switch ((int)in->type) {
    case CS_MSG_BOOT:
        on_boot(rec, in->msg);
        break;
    case CS_MSG_METRICS:
        cs_metrics_open(in->fd[0]);
        break;
    case CS_MSG_RING:
        cs_source_add(rec, in->msg, in->fd);
        break;
    case CS_MSG_RINGS_TOLD:
        rec->rings_told = true;
        break;
    case CS_MSG_RECORD_KEY:
        on_key(rec, in->msg);
        break;
    case CS_MSG_PEER:
        cs_recorder_control(rec, in->msg, in->fd[0]);
        break;
    case CS_MSG_SHUTDOWN:
        rec->stopping = true;
        break;
    default:
        for (int i = 0; i < 3; i++) {
            if (in->fd[i] >= 0) {
                (void)close(in->fd[i]);
            }
        }
        break;
    }
    cs_event_set(&rec->work);
}

static void on_dropped(struct cs_channel *c, void *arg)
{
    struct cs_recorder *rec = arg;
    (void)c;
    rec->gone = true;
    rec->stopping = true;
    rec->booted = true;
    cs_event_set(&rec->work);
}

static bool wait_for_boot(struct cs_recorder *rec)
{
    while (!rec->booted) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &rec->work);
        cs_event_clear(&rec->work);
        if (!rec->booted && cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
            return false;
        }
    }
    if (rec->directory == NULL && !rec->gone) {
        cs_log(CS_EV_RECORD_FAILED, NULL, "why=\"no recordings directory was given\"");
    }
    if (rec->directory == NULL) {
        return false;
    }
    /* Before the first byte of a ring is read. The directory must be there to be let in by name;
     * what cannot be made is complained of when the journal opens it. */
    (void)mkdir(rec->directory, 0700);
    const struct cs_sandbox_path paths[] = {{rec->directory, CS_SANDBOX_WRITE}};
    enum cs_err err = cs_sandbox_enter(CS_SANDBOX_RECORDER, paths, CS_ARRAY_LEN(paths));
    if (err != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "sandbox=%s", cs_err_name(err));
    }
    return err == CS_OK;
}

static void report_ready(struct cs_recorder *rec)
{
    const struct cs_msg_ready ready = {.end_ = 0};
    if (rec->gone || cs_channel_send(rec->supervisor, CS_MSG_READY, 0, &ready, NULL, 0) != CS_OK) {
        rec->stopping = true;
        return;
    }
    cs_channel_run_phase(rec->supervisor);
}

static void recorder_co(void *arg)
{
    struct cs_recorder *rec = arg;
    bool ready = false;
    if (wait_for_boot(rec)) {
        while (!cs_recorder_open(rec) && !rec->failed) {
            if (!ready) {
                report_ready(rec);
                ready = true;
            }
            if (!cs_recorder_wait_for_space(rec)) {
                break;
            }
        }
        if (rec->open) {
            if (!ready) {
                report_ready(rec);
            }
            cs_log(CS_EV_STARTED, NULL, "directory=%s segment=%u",
                   cs_log_quote(cs_slice_str(rec->directory)).text, rec->journal.number);
            cs_recorder_pump(rec);
        }
    }
    cs_recorder_control_close(rec);
    cs_recorder_close(rec);
    cs_channel_close(rec->supervisor);
    cs_loop_stop(rec->loop);
}

static struct cs_recorder recorder;

enum cs_err cs_recorder_start(struct cs_loop *loop, int fd)
{
    struct cs_recorder *rec = &recorder;
    cs_handle co;
    *rec = (struct cs_recorder){.journal = {.dir = -1, .fd = -1}};
    /* A size limit shall be an error to handle like a full disk, not a signal. */
    (void)signal(SIGXFSZ, SIG_IGN);
    rec->loop = loop;
    rec->processors = sysconf(_SC_NPROCESSORS_ONLN); /* it reads files: before the walls */
    rec->frame = cs_alloc(CS_LIMIT_RECORD_FRAME_BYTES);
    if (rec->frame == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err err = cs_channel_open(loop, fd, CS_ROLE_RECORDER, CS_ROLE_SUPERVISOR, 0, on_message,
                                      on_dropped, rec, &rec->supervisor);
    if (err == CS_OK) {
        err = cs_co_spawn(loop, "recorder", recorder_co, rec, &co);
    }
    return err == CS_OK ? cs_co_spawn(loop, "sign", cs_sign_run, rec, &co) : err;
}

int cs_recorder_run(int fd)
{
    struct cs_loop *loop = cs_loop_new();
    enum cs_err err = loop != NULL ? cs_recorder_start(loop, fd) : CS_ERR_NO_MEMORY;
    if (err == CS_OK) {
        cs_loop_run(loop);
    }
    cs_loop_free(loop);
    cs_free(recorder.directory);
    cs_free(recorder.frame);
    return err == CS_OK && !recorder.failed ? 0 : 1;
}
