/* The recorder: one coroutine that pumps rings into the journal, one small one per ring that waits
 * for its kick, and the channel to the supervisor. Started by programs/recorder.c.
 *
 * Order: a ring's frames reach the journal in the ring's order. Durability: a ring is told so only
 * after fdatasync. Back-pressure: room in a ring is given back only then, so a slow disk fills
 * rings and full rings stop clients. It must never drop a frame, report one as durable that is not,
 * or believe an index, a length or a frame that a gate wrote. */
#include "record/recorder.h"

#include "action/frame.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "ipc/ipc.h"
#include "ipc/ring.h"
#include "record/files.h"
#include "record/journal.h"
#include "runtime/sandbox.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RINGS_MAX = 256,
    FAIR_BYTES = 64 * 1024,       /* of one ring before the next gets its turn */
    UNSYNCED_BYTES = 1024 * 1024, /* then it is synced without being asked */
};
#define UNSYNCED_NS (200 * CS_NS_PER_MS)
#define NAP_NS      (10 * CS_NS_PER_MS)
#define RETRY_NS    CS_NS_PER_S

struct recorder;

struct source { /* one ring */
    struct cs_ring ring;
    uint64_t gate, epoch;
    uint64_t skip_to; /* up to here its frames are in the journal since before the last crash */
    uint64_t marked;  /* published as durable */
    bool retiring;    /* its gate is dead: drained, then closed */
    bool closed;      /* its coroutine frees it */
    struct recorder *rec;
    struct source *next;
};

struct recorder {
    struct cs_loop *loop;
    struct cs_channel *supervisor;
    struct cs_journal journal;
    struct source *sources; /* owned by their coroutines once closed */
    size_t n_sources;
    uint64_t turn;        /* whose turn it is first: fairness */
    struct cs_event work; /* a kick, a ring, an order came */
    char *directory;      /* owned */
    uint64_t segment_bytes;
    uint64_t unsynced_bytes;
    uint64_t unsynced_since; /* monotonic; 0 = nothing is unsynced */
    bool booted, gone, open, stopping;
    bool no_space; /* writing waits for room */
    bool failed;   /* final */
};

/* ---- rings ---- */

static void health_all(struct recorder *rec, enum cs_record_health h)
{
    for (struct source *s = rec->sources; s != NULL; s = s->next) {
        cs_ring_set_health(&s->ring, h);
    }
}

static void source_close(struct source *s)
{
    struct source **at = &s->rec->sources;
    while (*at != s) {
        cs_assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = s->next;
    s->rec->n_sources--;
    s->closed = true;
    cs_ring_close(&s->ring); /* wakes its coroutine, which frees it */
}

/* Waits for kicks; the pump does the reading. */
static void source_co(void *arg)
{
    struct source *s = arg;
    uint64_t count;
    while (!s->closed) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &s->ring.kick);
        if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
            break;
        }
        if (!s->closed) {
            s->ring.kick.readable = false;
            if (read(s->ring.kick.fd, &count, sizeof count) < 0) {
                continue; /* kicked by nobody: only ever means "look" */
            }
            cs_event_set(&s->rec->work);
        }
    }
    if (!s->closed) {
        source_close(s);
    }
    cs_free(s);
}

/* SECURITY: a gate that lies about its ring is cut off from the record; STOPPED makes its own
 * refusal the only thing it can still do honestly. */
static void source_drop(struct source *s, const char *why)
{
    cs_log(CS_EV_IPC_BROKEN, NULL, "gate=%llu why=\"%s\" after=%llu", (unsigned long long)s->gate,
           why, (unsigned long long)s->ring.seq);
    cs_ring_set_health(&s->ring, CS_RECORD_STOPPED);
    source_close(s);
}

static void source_add(struct recorder *rec, const struct cs_msg_ring *m, const int fds[static 3])
{
    struct source *s = rec->n_sources < RINGS_MAX ? cs_alloc(sizeof *s) : NULL;
    cs_handle co;
    if (s == NULL) {
        for (int i = 0; i < 3; i++) {
            (void)close(fds[i]);
        }
        cs_log(CS_EV_INTERNAL, NULL, "gate=%llu why=\"no room for its ring\"",
               (unsigned long long)m->gate);
        return;
    }
    *s = (struct source){.gate = m->gate, .epoch = m->epoch, .rec = rec};
    enum cs_err err = cs_ring_open(rec->loop, fds, false, &s->ring);
    if (err == CS_OK) {
        err = cs_co_spawn(rec->loop, "ring", source_co, s, &co);
        if (err != CS_OK) {
            cs_ring_close(&s->ring);
        }
    }
    if (err != CS_OK) {
        cs_log(CS_EV_IPC_BROKEN, NULL, "gate=%llu why=\"its ring does not open\" error=%s",
               (unsigned long long)m->gate, cs_err_name(err));
        cs_free(s);
        return;
    }
    for (struct source *old = rec->sources; old != NULL; old = old->next) {
        old->retiring |= old->gate == s->gate;
    }
    s->marked = s->ring.seq;
    s->skip_to = rec->open ? cs_seen_high(&rec->journal.seen, s->epoch) : 0;
    s->next = rec->sources;
    rec->sources = s;
    rec->n_sources++;
    cs_ring_set_health(&s->ring, rec->no_space ? CS_RECORD_STOPPED : CS_RECORD_HEALTHY);
}

/* ---- failures ---- */

/* What the journal said. True when the work may go on. */
static bool journal_ok(struct recorder *rec, enum cs_err err)
{
    if (err == CS_OK) {
        if (rec->no_space) {
            rec->no_space = false;
            cs_log(CS_EV_RECORD_RECOVERED, NULL, "why=\"there is space again\"");
            health_all(rec, CS_RECORD_HEALTHY);
        }
        return true;
    }
    if (err == CS_ERR_NO_SPACE && !rec->no_space) {
        rec->no_space = true;
        cs_log(CS_EV_RECORD_FAILED, NULL,
               "directory=%s error=%s hint=\"free some space; it is tried again every second and "
               "nothing is lost\"",
               cs_log_quote(cs_slice_str(rec->directory)).text, cs_err_name(err));
        health_all(rec, CS_RECORD_STOPPED);
    }
    if (err != CS_ERR_NO_SPACE && !rec->failed) {
        rec->failed = true;
        cs_log(CS_EV_RECORD_FAILED, NULL, "directory=%s error=%s",
               cs_log_quote(cs_slice_str(rec->directory)).text, cs_err_name(err));
        health_all(rec, CS_RECORD_STOPPED);
    }
    return false;
}

static bool journal_open(struct recorder *rec)
{
    struct cs_journal_recovery found = {0, 0, 0};
    bool before = rec->no_space;
    enum cs_err err = cs_journal_open(&rec->journal, rec->directory, rec->segment_bytes, &found);
    if (!journal_ok(rec, err)) {
        return false;
    }
    rec->open = true;
    for (struct source *s = rec->sources; s != NULL; s = s->next) {
        s->skip_to = cs_seen_high(&rec->journal.seen, s->epoch);
    }
    if (found.cut_bytes > 0 || found.set_aside > 0 || before) {
        cs_log(CS_EV_RECORD_RECOVERED, NULL, "segment=%u frames=%llu cut_bytes=%llu set_aside=%llu",
               rec->journal.number, (unsigned long long)found.frames,
               (unsigned long long)found.cut_bytes, (unsigned long long)found.set_aside);
    }
    return true;
}

/* ---- the pump ---- */

static bool anything_unmarked(const struct recorder *rec)
{
    for (const struct source *s = rec->sources; s != NULL; s = s->next) {
        if (s->ring.seq != s->marked) {
            return true;
        }
    }
    return false;
}

static enum cs_err sync_and_mark(struct recorder *rec)
{
    enum cs_err err = cs_journal_sync(&rec->journal);
    if (err != CS_OK) {
        return err;
    }
    rec->unsynced_bytes = 0;
    rec->unsynced_since = 0;
    for (struct source *s = rec->sources; s != NULL; s = s->next) {
        if (s->ring.seq != s->marked) {
            s->marked = s->ring.seq;
            cs_ring_set_durable(&s->ring, s->marked);
        }
    }
    return CS_OK;
}

/* Everything read is on disk, and the segment has room for a frame. */
static bool make_room(struct recorder *rec)
{
    enum cs_err err = sync_and_mark(rec);
    if (err == CS_OK && cs_journal_full(&rec->journal)) {
        err = cs_journal_rotate(&rec->journal);
    }
    return journal_ok(rec, err);
}

/* A place for the next frame; NULL when the journal cannot take one now. */
static uint8_t *place(struct recorder *rec)
{
    struct cs_journal *j = &rec->journal;
    uint8_t *slot = cs_journal_slot(j);
    if (slot == NULL && make_room(rec)) {
        slot = cs_journal_slot(j);
    }
    return slot;
}

enum taken { TAKEN_NOTHING, TAKEN_FRAME, TAKEN_STOP };

static enum taken take_one(struct recorder *rec, struct source *s, size_t *ret_n)
{
    struct cs_frame_head head;
    size_t n = 0;
    uint64_t seq = 0;
    uint8_t *slot = place(rec);
    if (slot == NULL) {
        return TAKEN_STOP;
    }
    enum cs_err err = cs_ring_read(&s->ring, slot, CS_LIMIT_RECORD_FRAME_BYTES, &n, &seq);
    if (err == CS_ERR_NOT_FOUND) {
        return TAKEN_NOTHING;
    }
    if (err != CS_OK) {
        source_drop(s, "its ring is corrupt");
        return TAKEN_NOTHING;
    }
    if (n == 0 || !cs_frame_decode_head(cs_slice(slot, n), &head)) {
        source_drop(s, "it wrote something that is no frame");
        return TAKEN_NOTHING;
    }
    *ret_n = n;
    if (rec->unsynced_since == 0) {
        rec->unsynced_since = cs_mono_ns();
    }
    if (seq > s->skip_to) {
        cs_journal_commit(&rec->journal, s->epoch, seq, n);
        rec->unsynced_bytes += n;
    }
    return TAKEN_FRAME;
}

/* One turn over all rings. True when some ring had more than its share. */
static bool pump_turn(struct recorder *rec)
{
    bool more = false;
    size_t first = rec->n_sources > 0 ? (size_t)(rec->turn++ % rec->n_sources) : 0;
    for (int pass = 0; pass < 2; pass++) { /* from `first` on, then those before it */
        struct source *next;
        size_t i = 0;
        for (struct source *s = rec->sources; s != NULL; s = next, i++) {
            next = s->next;
            size_t share = 0, n = 0;
            enum taken t = TAKEN_FRAME;
            if ((i >= first) != (pass == 0)) {
                continue;
            }
            while (share < FAIR_BYTES && (t = take_one(rec, s, &n)) == TAKEN_FRAME) {
                share += n + CS_JOURNAL_HEAD;
            }
            if (t == TAKEN_STOP) {
                return false;
            }
            more |= t == TAKEN_FRAME;
        }
    }
    return more;
}

static bool wanted(const struct recorder *rec)
{
    for (const struct source *s = rec->sources; s != NULL; s = s->next) {
        if (cs_ring_wanted(&s->ring) && s->ring.seq != s->marked) {
            return true;
        }
    }
    return false;
}

static bool sync_is_due(const struct recorder *rec)
{
    if (rec->unsynced_since == 0) {
        return false;
    }
    return rec->stopping || rec->unsynced_bytes >= UNSYNCED_BYTES || wanted(rec) ||
           cs_mono_ns() - rec->unsynced_since >= UNSYNCED_NS;
}

static void close_retired(struct recorder *rec)
{
    struct source *next;
    for (struct source *s = rec->sources; s != NULL; s = next) {
        next = s->next;
        if (s->retiring && s->ring.seq == s->marked) {
            source_close(s);
        }
    }
}

/* Nothing to do for the moment. While something is unsynced it naps: the rings are not told that
 * anybody sleeps, so under load gates append without a system call, and a waiter's kick still ends
 * the nap. False when cancelled. */
static bool rest(struct recorder *rec)
{
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &rec->work);
    if (rec->unsynced_since != 0) {
        uint64_t due = rec->unsynced_since + UNSYNCED_NS;
        return cs_wait(&w, 1, CS_MIN(due, cs_mono_ns() + NAP_NS)) != CS_WOKE_CANCELLED;
    }
    bool quiet = true;
    for (struct source *s = rec->sources; s != NULL; s = s->next) {
        quiet &= cs_ring_sleep(&s->ring);
    }
    return quiet ? cs_wait(&w, 1, CS_FOREVER) != CS_WOKE_CANCELLED : cs_co_yield();
}

/* Waits for room on the disk: a second, or an order to stop. False when it is time to end. */
static bool wait_for_space(struct recorder *rec)
{
    if (rec->stopping) {
        return false; /* it was tried once more: what is in the rings was never acknowledged */
    }
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &rec->work);
    uint64_t until = cs_mono_ns() + RETRY_NS;
    do {
        cs_event_clear(&rec->work);
        if (cs_wait(&w, 1, until) == CS_WOKE_CANCELLED) {
            return false;
        }
    } while (!rec->stopping && cs_mono_ns() < until);
    return true;
}

/* One round. False when the work is over: an order to stop and nothing left, or a failure. */
static bool pump_round(struct recorder *rec)
{
    cs_event_clear(&rec->work);
    if (rec->no_space && !make_room(rec)) {
        return !rec->failed && wait_for_space(rec);
    }
    bool more = pump_turn(rec);
    if (!rec->failed && !rec->no_space && sync_is_due(rec)) {
        (void)journal_ok(rec, sync_and_mark(rec));
    }
    if (rec->failed || rec->no_space) {
        return !rec->failed;
    }
    if (more) {
        return cs_co_yield();
    }
    close_retired(rec);
    if (rec->stopping && !anything_unmarked(rec)) {
        return false;
    }
    return rest(rec);
}

static void pump(struct recorder *rec)
{
    while (pump_round(rec)) {
    }
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

static void on_boot(struct recorder *rec, const struct cs_msg_boot *m)
{
    struct cs_slice directory = CS_SLICE_NULL, segment = CS_SLICE_NULL;
    if (rec->directory == NULL && param(m->params, "directory", &directory) && directory.n > 0) {
        rec->directory = cs_alloc(directory.n + 1);
        if (rec->directory != NULL) {
            memcpy(rec->directory, directory.p, directory.n);
        }
    }
    if (param(m->params, "segment", &segment) &&
        (!cs_slice_to_u64(segment, &rec->segment_bytes) ||
         rec->segment_bytes < CS_SEGMENT_HEAD + CS_JOURNAL_FRAME_MAX ||
         rec->segment_bytes > CS_SEGMENT_FILE_MAX)) {
        rec->segment_bytes = 0; /* the usual size */
    }
    rec->booted = true;
}

static void on_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct recorder *rec = arg;
    (void)c;
    switch ((int)in->type) {
    case CS_MSG_BOOT:
        on_boot(rec, in->msg);
        break;
    case CS_MSG_RING:
        source_add(rec, in->msg, in->fd);
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

static void on_gone(struct cs_channel *c, void *arg)
{
    struct recorder *rec = arg;
    (void)c;
    rec->gone = true;
    rec->stopping = true;
    rec->booted = true;
    cs_event_set(&rec->work);
}

static bool wait_for_boot(struct recorder *rec)
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

static void report_ready(struct recorder *rec)
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
    struct recorder *rec = arg;
    bool ready = false;
    if (wait_for_boot(rec)) {
        while (!journal_open(rec) && !rec->failed) {
            if (!ready) {
                report_ready(rec);
                ready = true;
            }
            if (!wait_for_space(rec)) {
                break;
            }
        }
        if (rec->open) {
            if (!ready) {
                report_ready(rec);
            }
            cs_log(CS_EV_STARTED, NULL, "directory=%s segment=%u",
                   cs_log_quote(cs_slice_str(rec->directory)).text, rec->journal.number);
            pump(rec);
        }
    }
    bool clean = rec->open && !rec->failed && !rec->no_space;
    rec->failed = !clean;
    if (clean) {
        cs_log(CS_EV_STOPPED, NULL, "segment=%u", rec->journal.number);
    }
    cs_journal_close(&rec->journal);
    cs_channel_close(rec->supervisor);
    cs_loop_stop(rec->loop);
}

int cs_recorder_run(int fd)
{
    struct recorder rec = {.journal = {.dir = -1, .fd = -1}};
    cs_handle co;
    /* A size limit shall be an error to handle like a full disk, not a signal. */
    (void)signal(SIGXFSZ, SIG_IGN);
    rec.loop = cs_loop_new();
    if (rec.loop == NULL) {
        return 1;
    }
    enum cs_err err = cs_channel_open(rec.loop, fd, CS_ROLE_RECORDER, CS_ROLE_SUPERVISOR, 0,
                                      on_message, on_gone, &rec, &rec.supervisor);
    if (err == CS_OK) {
        err = cs_co_spawn(rec.loop, "recorder", recorder_co, &rec, &co);
    }
    if (err == CS_OK) {
        cs_loop_run(rec.loop);
    }
    cs_loop_free(rec.loop);
    cs_free(rec.directory);
    return err == CS_OK && !rec.failed ? 0 : 1;
}
