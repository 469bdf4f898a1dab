/* The recorder: one coroutine that pumps rings through the open recordings (recordings.h) into the
 * journal and from there into files, one small one per ring that waits for its kick, and the
 * channel to the supervisor. Started by programs/recorder.c.
 *
 * Order: a ring's frames reach the journal in the ring's order. Durability: a ring is told so only
 * after fdatasync. Back-pressure: room in a ring is given back only then, so a slow disk fills
 * rings and full rings stop clients. It must never drop a frame, report one as durable that is not,
 * write one that is not encrypted, or believe an index, a length or a frame that a gate wrote. */
#include "record/recorder.h"

#include "action/frame.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/writer.h"
#include "ipc/ipc.h"
#include "ipc/ring.h"
#include "record/copier.h"
#include "record/files.h"
#include "record/journal.h"
#include "record/recordings.h"
#include "runtime/sandbox.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RINGS_MAX = 256,
    FAIR_BYTES = 64 * 1024,       /* of one ring before the next gets its turn */
    CS_RING_ABOUT = 32,           /* what a frame costs at least */
    UNSYNCED_BYTES = 1024 * 1024, /* then it is synced without being asked */
    SEGMENTS_BEHIND = 4,          /* so many wait for their files' fsync: then it is waited for */
};
#define KEY_NS      (10 * CS_NS_PER_S)
#define LOST_NS     (2 * CS_NS_PER_S) /* after the start the supervisor has sent all rings */
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

struct gone { /* a ring that was dropped: up to where it counts, whose recordings are to be ended */
    uint64_t epoch, seq;
    bool committed;
};

struct recorder {
    struct cs_loop *loop;
    struct cs_channel *supervisor;
    struct cs_journal journal;
    struct cs_copier *copier;         /* owned */
    struct cs_recordings *recordings; /* owned */
    uint8_t *frame;                   /* owned: one as it came out of a ring */
    struct cs_csr_to to;              /* the month's key, then escrow's; n 0: none yet */
    struct cs_csr_to escrow;
    struct gone dropped[RINGS_MAX];
    size_t n_dropped;
    uint8_t rows[16 * CS_RECORDINGS_ROWS]; /* of a COMMIT */
    uint64_t live[RINGS_MAX];
    struct source *sources; /* owned by their coroutines once closed */
    size_t n_sources;
    uint64_t turn;        /* whose turn it is first: fairness */
    struct cs_event work; /* a kick, a ring, an order came */
    char *directory;      /* owned */
    uint64_t segment_bytes;
    uint64_t unsynced_since; /* monotonic; 0 = nothing is unsynced */
    uint64_t opened_ns;
    uint32_t first_kept; /* the oldest segment that is still there */
    bool booted, gone, open, stopping;
    bool no_space;  /* writing waits for room */
    bool failed;    /* final */
    bool sealed;    /* the batch has its COMMIT and waits for the disk */
    bool rotated;   /* and nothing was synced in the new segment yet */
    bool keyless;   /* no key came in time: every action is refused until one does */
    bool lost_done; /* recordings of gates that were gone at the start have their end */
};

/* ---- rings ---- */

static void health_all(struct recorder *rec, enum cs_record_health h)
{
    for (struct source *s = rec->sources; s != NULL; s = s->next) {
        cs_ring_set_health(&s->ring, h);
    }
}

static enum cs_record_health health(const struct recorder *rec)
{
    /* The key comes moments after the start, by way of keeper and control. Until then nothing is
     * taken, so nothing is called durable; who waits for that waits a little longer. */
    bool key = rec->to.n > 0 || cs_mono_ns() - rec->opened_ns < KEY_NS;
    bool well = rec->open && !rec->no_space && !rec->failed && key;
    return well ? CS_RECORD_HEALTHY : CS_RECORD_STOPPED;
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
    /* A recorder after us may be handed the same ring: what was taken must not be taken twice. */
    struct recorder *rec = s->rec;
    if (rec->n_dropped == RINGS_MAX) {
        rec->n_dropped--; /* the supervisor kills and restarts none so fast */
    }
    rec->dropped[rec->n_dropped++] = (struct gone){s->epoch, s->ring.seq, false};
    if (rec->unsynced_since == 0) {
        rec->unsynced_since = cs_mono_ns();
    }
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
    /* While the journal opens, the ring keeps what it was told last: gates go on filling it. */
    if (rec->open || rec->no_space) {
        cs_ring_set_health(&s->ring, health(rec));
    }
}

/* ---- failures ---- */

/* What the journal said. True when the work may go on. */
static bool journal_ok(struct recorder *rec, enum cs_err err)
{
    if (err == CS_OK) {
        if (rec->no_space) {
            rec->no_space = false;
            cs_log(CS_EV_RECORD_RECOVERED, NULL, "why=\"there is space again\"");
            health_all(rec, health(rec));
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

static enum cs_err on_recovered(void *arg, const struct cs_journal_entry *e)
{
    struct recorder *rec = arg;
    /* The journal's directory is open by now. */
    if (rec->copier == NULL) {
        rec->copier = cs_copier_new(rec->journal.dir);
        rec->recordings =
            rec->copier != NULL ? cs_recordings_new(&rec->journal, rec->copier) : NULL;
    }
    return rec->recordings != NULL ? cs_recordings_recover(rec->recordings, e) : CS_ERR_NO_MEMORY;
}

static void files_close(struct recorder *rec)
{
    cs_recordings_free(rec->recordings);
    cs_copier_free(rec->copier);
    rec->recordings = NULL;
    rec->copier = NULL;
}

/* What the journal held is in its files now, and they are made durable before anything else. */
static enum cs_err recovered(struct recorder *rec)
{
    const struct cs_journal_entry none = {.kind = CS_JOURNAL_COMMIT};
    enum cs_err err = on_recovered(rec, &none);
    if (err == CS_OK) {
        cs_recordings_cleared(rec->recordings);
        err = cs_copier_sync(rec->copier);
    }
    if (err == CS_OK) {
        err = cs_journal_retire(&rec->journal, rec->journal.number);
    }
    rec->first_kept = rec->journal.number;
    return err;
}

static bool journal_open(struct recorder *rec)
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
    if (!journal_ok(rec, err)) {
        return false;
    }
    rec->open = true;
    rec->opened_ns = cs_mono_ns();
    if (rec->to.n > 0) {
        cs_recordings_keys(rec->recordings, &rec->to);
    }
    for (struct source *s = rec->sources; s != NULL; s = s->next) {
        s->skip_to = cs_seen_high(&rec->journal.seen, s->epoch);
    }
    health_all(rec, health(rec));
    if (found.cut_bytes > 0 || found.set_aside > 0 || before) {
        cs_log(CS_EV_RECORD_RECOVERED, NULL,
               "segment=%u entries=%llu cut_bytes=%llu set_aside=%llu", rec->journal.number,
               (unsigned long long)found.entries, (unsigned long long)found.cut_bytes,
               (unsigned long long)found.set_aside);
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

/* Whose frames are in this batch, and up to which. */
static enum cs_err seal_batch(struct recorder *rec)
{
    struct cs_writer w = cs_writer(rec->rows, sizeof rec->rows);
    for (size_t i = 0; i < rec->n_dropped; i++) {
        cs_writer_u64le(&w, rec->dropped[i].epoch);
        cs_writer_u64le(&w, rec->dropped[i].seq);
        rec->dropped[i].committed = true;
    }
    for (const struct source *s = rec->sources; s != NULL; s = s->next) {
        if (s->ring.seq != s->marked) {
            cs_writer_u64le(&w, s->epoch);
            cs_writer_u64le(&w, s->ring.seq);
        }
    }
    if (w.len == 0) { /* only ends of recordings: a row that names nobody */
        cs_writer_u64le(&w, 0);
        cs_writer_u64le(&w, 0);
    }
    return cs_recordings_finish(rec->recordings, cs_writer_done(&w));
}

static enum cs_err copy_batch(struct recorder *rec)
{
    struct cs_journal_entry e;
    struct cs_journal_file f;
    enum cs_err err = CS_OK;
    size_t at = 0;
    while (err == CS_OK && cs_journal_entry(&rec->journal, &at, &e)) {
        struct cs_slice bytes = e.body;
        if (e.kind == CS_JOURNAL_BYTES && cs_journal_file_read(&bytes, &f)) {
            err = cs_copier_put(rec->copier, &f, e.offset, bytes);
        }
    }
    return err;
}

/* Everything read is in the journal, durable, and in its files; the rings are told. */
static enum cs_err sync_and_mark(struct recorder *rec)
{
    enum cs_err err = CS_OK;
    if (!rec->sealed && rec->unsynced_since == 0) {
        return CS_OK;
    }
    if (!rec->sealed) {
        err = seal_batch(rec);
        rec->sealed = err == CS_OK;
    }
    if (err == CS_OK) {
        err = cs_journal_sync(&rec->journal);
    }
    if (err != CS_OK) {
        return err;
    }
    rec->rotated = false;
    /* Before anybody is told: what was acknowledged can be replayed. NO_SPACE: tried again. */
    err = copy_batch(rec);
    if (err != CS_OK) {
        return err;
    }
    for (struct source *s = rec->sources; s != NULL; s = s->next) {
        if (s->ring.seq != s->marked) {
            s->marked = s->ring.seq;
            cs_ring_set_durable(&s->ring, s->marked);
        }
    }
    cs_journal_clear(&rec->journal);
    cs_recordings_cleared(rec->recordings);
    rec->sealed = false;
    rec->unsynced_since = 0;
    return CS_OK;
}

/* Segments whose content is durable in its files go. */
static enum cs_err retire(struct recorder *rec)
{
    uint32_t segment = 0;
    enum cs_err err = CS_OK;
    if (cs_copier_sync_done(rec->copier, &segment, &err) && err == CS_OK) {
        err = cs_journal_retire(&rec->journal, segment);
        rec->first_kept = CS_MAX(rec->first_kept, segment);
    }
    if (err == CS_OK && rec->journal.number - rec->first_kept > SEGMENTS_BEHIND && !rec->rotated) {
        uint32_t upto = rec->journal.number;
        err = cs_copier_sync(rec->copier); /* the disk is behind: now everybody waits */
        if (err == CS_OK) {
            err = cs_journal_retire(&rec->journal, upto);
            rec->first_kept = upto;
        }
    }
    if (err == CS_OK && rec->first_kept < rec->journal.number && !rec->rotated) {
        (void)cs_copier_sync_start(rec->copier, rec->journal.number);
    }
    return err;
}

/* Everything read is on disk, and the segment has room for a batch. */
static bool make_room(struct recorder *rec)
{
    enum cs_err err = sync_and_mark(rec);
    if (err == CS_OK && cs_journal_full(&rec->journal)) {
        err = cs_journal_rotate(&rec->journal);
        if (err == CS_OK) {
            rec->rotated = true;
            cs_recordings_list(rec->recordings);
            rec->unsynced_since = cs_mono_ns();
        }
    }
    return journal_ok(rec, err);
}

enum taken { TAKEN_NOTHING, TAKEN_FRAME, TAKEN_STOP };

/* A frame that was read: into its recording. False when the source was dropped or all is over. */
static bool take_frame(struct recorder *rec, struct source *s, size_t n)
{
    struct cs_frame_head head;
    const char *look = NULL;
    if (n == 0 || !cs_frame_decode_head(cs_slice(rec->frame, n), &head)) {
        source_drop(s, "it wrote something that is no frame");
        return false;
    }
    enum cs_err err =
        cs_recordings_add(rec->recordings, s->epoch, &head, cs_slice(rec->frame, n), &look);
    if (look != NULL) {
        cs_log(CS_EV_RECORD_RECOVERED, &head.session, "why=\"%s\"", look);
    }
    if (err == CS_ERR_CONFLICT || err == CS_ERR_LIMIT) {
        source_drop(s, err == CS_ERR_CONFLICT ? "it wrote about a session that it had closed"
                                              : "it opened too many recordings");
        return false;
    }
    /* Half a frame may be sealed: nothing can go on from there in this process. */
    return journal_ok(rec, err == CS_ERR_NO_SPACE ? CS_ERR_IO : err);
}

static enum taken take_one(struct recorder *rec, struct source *s, size_t *ret_n)
{
    size_t n = 0;
    uint64_t seq = 0;
    if (!cs_recordings_have_room(rec->recordings) &&
        !(make_room(rec) && cs_recordings_have_room(rec->recordings))) {
        return TAKEN_STOP;
    }
    enum cs_err err = cs_ring_read(&s->ring, rec->frame, CS_LIMIT_RECORD_FRAME_BYTES, &n, &seq);
    if (err == CS_ERR_NOT_FOUND) {
        return TAKEN_NOTHING;
    }
    if (err != CS_OK) {
        source_drop(s, "its ring is corrupt");
        return TAKEN_NOTHING;
    }
    *ret_n = n;
    if (rec->unsynced_since == 0) {
        rec->unsynced_since = cs_mono_ns();
    }
    if (seq > s->skip_to && !take_frame(rec, s, n)) {
        return rec->failed ? TAKEN_STOP : TAKEN_NOTHING;
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
                share += n + CS_RING_ABOUT;
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
    return rec->stopping || rec->sealed ||
           cs_recordings_pending(rec->recordings) >= UNSYNCED_BYTES || wanted(rec) ||
           cs_mono_ns() - rec->unsynced_since >= UNSYNCED_NS;
}

/* Ends the recordings of gates that are gone: nobody else will. False when the batch is full. */
static bool end_recordings(struct recorder *rec, uint64_t epoch, enum cs_csr_end reason)
{
    size_t n = 0;
    bool more = false;
    if (rec->sealed || rec->to.n == 0) {
        return false;
    }
    for (const struct source *s = rec->sources; s != NULL; s = s->next) {
        rec->live[n++] = s->epoch;
    }
    enum cs_err err = cs_recordings_end(rec->recordings, epoch, rec->live, n, reason, &more);
    if (rec->unsynced_since == 0) {
        rec->unsynced_since = cs_mono_ns();
    }
    return journal_ok(rec, err) && !more;
}

static void close_retired(struct recorder *rec)
{
    struct source *next;
    for (struct source *s = rec->sources; s != NULL; s = next) {
        next = s->next;
        if (s->retiring && s->ring.seq == s->marked) {
            if (!end_recordings(rec, s->epoch, CS_CSR_END_GATE)) {
                return; /* after the next sync */
            }
            source_close(s);
        }
    }
    for (size_t i = rec->n_dropped; i > 0; i--) {
        struct gone *g = &rec->dropped[i - 1];
        if (g->committed && end_recordings(rec, g->epoch, CS_CSR_END_GATE)) {
            *g = rec->dropped[--rec->n_dropped];
        }
    }
    if (!rec->lost_done && cs_mono_ns() - rec->opened_ns >= LOST_NS) {
        rec->lost_done = end_recordings(rec, 0, CS_CSR_END_LOST);
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
    uint64_t until = rec->lost_done ? CS_FOREVER : rec->opened_ns + LOST_NS;
    if (rec->to.n == 0) {
        until = rec->keyless ? CS_FOREVER : rec->opened_ns + KEY_NS;
    }
    return quiet ? cs_wait(&w, 1, until) != CS_WOKE_CANCELLED : cs_co_yield();
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
    if (rec->to.n == 0 && !rec->keyless && cs_mono_ns() - rec->opened_ns >= KEY_NS) {
        rec->keyless = true;
        cs_log(CS_EV_RECORD_FAILED, NULL, "why=\"there is no recording key\"");
        health_all(rec, CS_RECORD_STOPPED);
    }
    /* Without a key nothing is taken. */
    bool more = rec->to.n > 0 && pump_turn(rec);
    if (!rec->failed && !rec->no_space && sync_is_due(rec)) {
        (void)journal_ok(rec, sync_and_mark(rec));
    }
    if (!rec->failed && !rec->no_space) {
        (void)journal_ok(rec, retire(rec));
    }
    if (rec->failed || rec->no_space) {
        return !rec->failed;
    }
    if (more) {
        return cs_co_yield();
    }
    close_retired(rec);
    if (rec->stopping && !anything_unmarked(rec) && rec->unsynced_since == 0) {
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
static void on_key(struct recorder *rec, const struct cs_msg_record_key *m)
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
    rec->to = to;
    rec->keyless = false;
    if (rec->open) {
        cs_recordings_keys(rec->recordings, &to);
        health_all(rec, health(rec));
    }
    cs_log(CS_EV_RECORD_KEY, NULL, "name=%s escrow=%s", to.key[0].name,
           rec->escrow.n > 0 ? "yes" : "no");
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
    case CS_MSG_RECORD_KEY:
        on_key(rec, in->msg);
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
    if (clean) { /* the files say it all; the journal is left empty */
        clean = cs_copier_sync(rec->copier) == CS_OK &&
                cs_journal_retire(&rec->journal, rec->journal.number) == CS_OK;
    }
    rec->failed = !clean;
    if (clean) {
        cs_log(CS_EV_STOPPED, NULL, "segment=%u", rec->journal.number);
    }
    files_close(rec);
    cs_journal_close(&rec->journal);
    cs_channel_close(rec->supervisor);
    cs_loop_stop(rec->loop);
}

int cs_recorder_run(int fd)
{
    static struct recorder rec;
    cs_handle co;
    rec = (struct recorder){.journal = {.dir = -1, .fd = -1}};
    /* A size limit shall be an error to handle like a full disk, not a signal. */
    (void)signal(SIGXFSZ, SIG_IGN);
    rec.loop = cs_loop_new();
    rec.frame = cs_alloc(CS_LIMIT_RECORD_FRAME_BYTES);
    if (rec.loop == NULL || rec.frame == NULL) {
        return 1;
    }
    enum cs_err err = cs_channel_open(rec.loop, fd, CS_ROLE_RECORDER, CS_ROLE_SUPERVISOR, 0,
                                      on_message, on_dropped, &rec, &rec.supervisor);
    if (err == CS_OK) {
        err = cs_co_spawn(rec.loop, "recorder", recorder_co, &rec, &co);
    }
    if (err == CS_OK) {
        cs_loop_run(rec.loop);
    }
    cs_loop_free(rec.loop);
    cs_free(rec.directory);
    cs_free(rec.frame);
    return err == CS_OK && !rec.failed ? 0 : 1;
}
