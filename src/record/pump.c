/* The recorder's one loop: takes frames from the rings in turns, decides when a batch is made
 * durable, ends the recordings of gates that are gone, rests. Called by recorder.c.
 *
 * Order: a ring's frames reach the journal in the ring's order. Back-pressure: room in a ring is
 * given back only when it is durable, so a slow disk fills rings and full rings stop clients. It
 * must never drop a frame, or take one without a key. */
#include "action/frame.h"
#include "base/log.h"
#include "ipc/metrics.h"
#include "record/recorder_internal.h"

enum {
    FAIR_BYTES = 64 * 1024,       /* of one ring before the next gets its turn */
    CS_RING_ABOUT = 32,           /* what a frame costs at least */
    UNSYNCED_BYTES = 1024 * 1024, /* then it is synced without being asked */
};
#define UNSYNCED_NS (200 * CS_NS_PER_MS)
#define NAP_NS      (10 * CS_NS_PER_MS)
#define COPY_NAP_NS (CS_NS_PER_MS / 2)
#define RETRY_NS    CS_NS_PER_S

static bool anything_unmarked(const struct cs_recorder *rec)
{
    for (const struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        if (s->ring.seq != s->marked) {
            return true;
        }
    }
    return false;
}

enum taken { TAKEN_NOTHING, TAKEN_FRAME, TAKEN_STOP };

/* A frame that was read: into its recording. False when the source was dropped or all is over. */
static bool take_frame(struct cs_recorder *rec, struct cs_source *s, size_t n)
{
    struct cs_frame_head head;
    const char *look = NULL;
    if (n == 0 || !cs_frame_decode_head(cs_slice(rec->frame, n), &head)) {
        cs_source_drop(s, "it wrote something that is no frame");
        return false;
    }
    enum cs_err err =
        cs_recordings_add(rec->recordings, s->epoch, &head, cs_slice(rec->frame, n), &look);
    if (look != NULL) {
        cs_log(CS_EV_RECORD_RECOVERED, &head.session, "why=\"%s\"", look);
    }
    if (err == CS_ERR_CONFLICT || err == CS_ERR_LIMIT || err == CS_ERR_INVALID) {
        cs_source_drop(s, err == CS_ERR_CONFLICT ? "it wrote about a session that it had closed"
                          : err == CS_ERR_LIMIT  ? "it opened too many recordings"
                                                 : "it wrote a frame that is malformed");
        return false;
    }
    /* Half a frame may be sealed: nothing can go on from there in this process. */
    return cs_recorder_ok(rec, err == CS_ERR_NO_SPACE ? CS_ERR_IO : err);
}

/* For a frame of any size, or the end of a recording. */
static bool room(struct cs_recorder *rec)
{
    return cs_recordings_have_room(rec->recordings) ||
           (cs_batch_make_room(rec) && cs_recordings_have_room(rec->recordings));
}

static enum taken take_one(struct cs_recorder *rec, struct cs_source *s, size_t *ret_n)
{
    size_t n = 0;
    uint64_t seq = 0;
    if (!room(rec)) {
        return TAKEN_STOP;
    }
    enum cs_err err = cs_ring_read(&s->ring, rec->frame, CS_LIMIT_RECORD_FRAME_BYTES, &n, &seq);
    if (err == CS_ERR_NOT_FOUND) {
        return TAKEN_NOTHING;
    }
    if (err != CS_OK) {
        cs_source_drop(s, "its ring is corrupt");
        return TAKEN_NOTHING;
    }
    *ret_n = n;
    cs_metric_add(CS_SLOT_FRAMES, 1);
    cs_metric_add(CS_SLOT_FRAME_BYTES, n);
    if (rec->unsynced_since == 0) {
        rec->unsynced_since = cs_mono_ns();
    }
    if (seq > s->skip_to && !take_frame(rec, s, n)) {
        return rec->failed ? TAKEN_STOP : TAKEN_NOTHING;
    }
    return TAKEN_FRAME;
}

/* One turn over all rings. True when some ring had more than its share. */
static bool pump_turn(struct cs_recorder *rec)
{
    bool more = false;
    size_t first = rec->n_sources > 0 ? (size_t)(rec->turn++ % rec->n_sources) : 0;
    for (int pass = 0; pass < 2; pass++) { /* from `first` on, then those before it */
        struct cs_source *next;
        size_t i = 0;
        for (struct cs_source *s = rec->sources; s != NULL; s = next, i++) {
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

static bool wanted(const struct cs_recorder *rec)
{
    for (const struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        if (cs_ring_wanted(&s->ring) && s->ring.seq != s->marked) {
            return true;
        }
    }
    return false;
}

static bool sync_is_due(const struct cs_recorder *rec)
{
    if (rec->unsynced_since == 0) {
        return false;
    }
    return rec->stopping || rec->sealed || cs_asks_wait(rec) ||
           cs_recordings_pending(rec->recordings) >= UNSYNCED_BYTES || wanted(rec) ||
           cs_mono_ns() - rec->unsynced_since >= UNSYNCED_NS;
}

/* Ends the recordings of gates that are gone: nobody else will. False when the batch is full. */
static bool end_recordings(struct cs_recorder *rec, uint64_t epoch, enum cs_csr_end reason)
{
    size_t n = 0;
    bool more = false;
    if (rec->sealed || rec->to.n == 0 || !room(rec)) {
        return false;
    }
    for (const struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        rec->live[n++] = s->epoch;
    }
    enum cs_err err = cs_recordings_end(rec->recordings, epoch, rec->live, n, reason, &more);
    if (rec->unsynced_since == 0) {
        rec->unsynced_since = cs_mono_ns();
    }
    return cs_recorder_ok(rec, err) && !more;
}

static void close_retired(struct cs_recorder *rec)
{
    struct cs_source *next;
    for (struct cs_source *s = rec->sources; s != NULL; s = next) {
        next = s->next;
        if (s->retiring && s->ring.seq == s->marked) {
            if (!end_recordings(rec, s->epoch, CS_CSR_END_GATE)) {
                return; /* after the next sync */
            }
            cs_source_close(s);
        }
    }
    for (size_t i = rec->n_dropped; i > 0; i--) {
        struct cs_gone *g = &rec->dropped[i - 1];
        if (g->committed && end_recordings(rec, g->epoch, CS_CSR_END_GATE)) {
            *g = rec->dropped[--rec->n_dropped];
        }
    }
    /* Not by the clock: a supervisor that was stopped for a while, or is slow, has its gates still,
     * and an END is for ever. */
    if (!rec->lost_done && rec->rings_told) {
        rec->lost_done = end_recordings(rec, 0, CS_CSR_END_LOST);
    }
}

/* Nothing to do for the moment. While something is unsynced it naps: the rings are not told that
 * anybody sleeps, so under load gates append without a system call, and a waiter's kick still ends
 * the nap. False when cancelled. */
static bool rest(struct cs_recorder *rec)
{
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &rec->work);
    cs_metric_set(CS_SLOT_UNSYNCED, rec->unsynced_since != 0 ? 1 : 0);
    cs_metric_set(CS_SLOT_SEGMENTS, rec->journal.number - rec->first_kept + 1);
    rec->rests += rec->unsynced_since == 0 ? 1 : 0;
    cs_settle_look(rec);
    if (rec->copying) { /* the rings' room is freed when that is done */
        return cs_wait(&w, 1, cs_mono_ns() + COPY_NAP_NS) != CS_WOKE_CANCELLED;
    }
    if (rec->unsynced_since != 0) {
        uint64_t due = rec->unsynced_since + UNSYNCED_NS;
        return cs_wait(&w, 1, CS_MIN(due, cs_mono_ns() + NAP_NS)) != CS_WOKE_CANCELLED;
    }
    bool quiet = true;
    for (struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        quiet &= cs_ring_sleep(&s->ring);
    }
    bool key_is_late = rec->to.n == 0 && !rec->keyless;
    uint64_t until = key_is_late ? rec->opened_ns + CS_RECORDER_KEY_NS : CS_FOREVER;
    return quiet ? cs_wait(&w, 1, until) != CS_WOKE_CANCELLED : cs_co_yield();
}

/* Waits for room on the disk: a second, or an order to stop. False when it is time to end. */
bool cs_recorder_wait_for_space(struct cs_recorder *rec)
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
static bool pump_round(struct cs_recorder *rec)
{
    cs_event_clear(&rec->work);
    if (rec->no_space || rec->keyless || rec->unsigned_long) {
        cs_asks_refuse(rec, rec->no_space ? CS_ERR_NO_SPACE : CS_ERR_UNAVAILABLE);
    }
    if (rec->no_space && !cs_batch_make_room(rec)) {
        return !rec->failed && cs_recorder_wait_for_space(rec);
    }
    if (rec->to.n == 0 && !rec->keyless && cs_mono_ns() - rec->opened_ns >= CS_RECORDER_KEY_NS) {
        rec->keyless = true;
        cs_log(CS_EV_RECORD_FAILED, NULL, "why=\"there is no recording key\"");
        cs_recorder_health_all(rec, CS_RECORD_STOPPED);
    }
    /* Without a key nothing is taken. */
    if (rec->to.n > 0) {
        cs_asks_take(rec);
    }
    bool more = rec->to.n > 0 && !rec->failed && pump_turn(rec);
    if (!rec->failed && !rec->no_space && sync_is_due(rec)) {
        (void)cs_recorder_ok(rec, cs_batch_sync(rec));
    }
    if (!rec->failed && !rec->no_space) {
        enum cs_err err = cs_batch_copied(rec, false);
        (void)cs_recorder_ok(rec, err == CS_OK ? cs_batch_retire(rec) : err);
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
    return rec->stopping ? cs_co_yield() : rest(rec);
}

void cs_recorder_pump(struct cs_recorder *rec)
{
    while (!rec->failed && pump_round(rec)) {
    }
}
