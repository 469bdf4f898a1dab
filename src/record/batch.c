/* One batch of the recorder: what was taken from all rings is sealed with its COMMIT, made durable
 * in the journal, the rings are told, and it is copied into the files; and the journal's segments
 * that are no longer needed go. Called by pump.c and recorder.c. It must never report as
 * durable what fdatasync did not cover, or go on after an error that is final. */
#include "base/log.h"
#include "base/writer.h"
#include "ipc/metrics.h"
#include "record/recorder_internal.h"

enum { SEGMENTS_BEHIND = 4 }; /* so many wait for their files' fsync: then it is waited for */

/* What the journal said. True when the work may go on. */
bool cs_recorder_ok(struct cs_recorder *rec, enum cs_err err)
{
    if (err == CS_OK) {
        if (rec->no_space) {
            rec->no_space = false;
            cs_log(CS_EV_RECORD_RECOVERED, NULL, "why=\"there is space again\"");
            cs_recorder_health_all(rec, cs_recorder_health(rec));
        }
        return true;
    }
    if (err == CS_ERR_NO_SPACE && !rec->no_space) {
        rec->no_space = true;
        cs_log(CS_EV_RECORD_FAILED, NULL,
               "directory=%s error=%s hint=\"free some space; it is tried again every second and "
               "nothing is lost\"",
               cs_log_quote(cs_slice_str(rec->directory)).text, cs_err_name(err));
        cs_recorder_health_all(rec, CS_RECORD_STOPPED);
    }
    if (err != CS_ERR_NO_SPACE && !rec->failed) {
        rec->failed = true;
        cs_log(CS_EV_RECORD_FAILED, NULL, "directory=%s error=%s",
               cs_log_quote(cs_slice_str(rec->directory)).text, cs_err_name(err));
        cs_recorder_health_all(rec, CS_RECORD_STOPPED);
    }
    return false;
}

/* Whose frames are in this batch, and up to which. */
static enum cs_err seal_batch(struct cs_recorder *rec)
{
    struct cs_writer w = cs_writer(rec->rows, sizeof rec->rows);
    for (size_t i = 0; i < rec->n_dropped; i++) {
        cs_writer_u64le(&w, rec->dropped[i].epoch);
        cs_writer_u64le(&w, rec->dropped[i].seq);
        rec->dropped[i].committed = true;
    }
    for (const struct cs_source *s = rec->sources; s != NULL; s = s->next) {
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

/* The batch's leaves become part of the tree. */
static enum cs_err add_leaves(struct cs_recorder *rec)
{
    struct cs_journal_entry e;
    enum cs_err err = CS_OK;
    size_t at = 0;
    while (err == CS_OK && cs_journal_entry(&rec->journal, &at, &e)) {
        if (e.kind == CS_JOURNAL_LEAF) {
            err = cs_ledger_add(rec->ledger, e.offset, e.body);
        }
    }
    return err;
}

enum cs_err cs_batch_copied(struct cs_recorder *rec, bool wait)
{
    struct cs_copied got;
    if (!rec->copying || !cs_copier_copied(rec->copier, wait, &got)) {
        return CS_OK;
    }
    if (got.err != CS_OK) {
        return got.err; /* NO_SPACE: tried again by who waits for it */
    }
    rec->copying = false;
    cs_metric_add(CS_SLOT_FILE_BYTES, got.bytes);
    cs_recordings_copied(rec->recordings);
    for (struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        cs_ring_free(&s->ring, s->handed);
    }
    return CS_OK;
}

/* What is durable goes into the files, beside the work on the next batch. */
static enum cs_err hand_over(struct cs_recorder *rec)
{
    enum cs_err err = cs_batch_copied(rec, true);
    if (err != CS_OK) {
        return err;
    }
    for (struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        s->handed = s->ring.tail;
    }
    cs_copier_copy(rec->copier, cs_journal_hand_over(&rec->journal));
    cs_recordings_handed(rec->recordings);
    rec->copying = true;
    rec->sealed = false;
    rec->unsynced_since = 0;
    return cs_batch_copied(rec, false);
}

/* The ring has been told of all that recovery found of it, or will not come any more. */
static bool is_told(const struct cs_recorder *rec, const struct cs_seen_row *row)
{
    const struct cs_source *s = rec->sources;
    while (s != NULL && s->epoch != row->epoch) {
        s = s->next;
    }
    return s != NULL ? s->marked >= row->high : rec->lost_done;
}

static void add_rows(struct cs_recorder *rec, struct cs_writer *w)
{
    struct cs_slice rows = cs_writer_done(w);
    if (rows.n > 0) {
        memcpy(cs_journal_slot(&rec->journal), rows.p, rows.n);
        cs_journal_add(&rec->journal, CS_JOURNAL_COMMIT, 0, rows.n);
    }
    *w = cs_writer(rec->rows, sizeof rec->rows);
}

/* Up to where the journal has each ring's frames, for rings that do not know it yet: a recorder
 * that dies before it has told them must leave that in a segment that stays, or the next one would
 * take those frames once more. */
static void carry_rows(struct cs_recorder *rec)
{
    const struct cs_seen *seen = &rec->journal.seen;
    struct cs_writer w = cs_writer(rec->rows, sizeof rec->rows);
    for (size_t i = 0; i < seen->cap; i++) {
        const struct cs_seen_row *row = &seen->rows[i];
        if (row->high == 0 || is_told(rec, row)) {
            continue;
        }
        if (w.len == sizeof rec->rows) {
            add_rows(rec, &w);
        }
        cs_writer_u64le(&w, row->epoch);
        cs_writer_u64le(&w, row->high);
    }
    add_rows(rec, &w);
}

void cs_batch_begin_segment(struct cs_recorder *rec)
{
    carry_rows(rec);
    cs_recordings_list(rec->recordings);
    rec->rotated = true;
    rec->unsynced_since = cs_mono_ns();
}

/* The segment has no room for a batch, and the batch is empty: the next segment. */
static enum cs_err rotate(struct cs_recorder *rec)
{
    enum cs_err err = cs_journal_rotate(&rec->journal);
    if (err == CS_OK) {
        cs_batch_begin_segment(rec);
    }
    return err;
}

/* The journal has the batch: who waits for it goes on. */
static void acknowledge(struct cs_recorder *rec)
{
    for (struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        if (s->ring.seq != s->marked) {
            s->marked = s->ring.seq;
            cs_ring_acknowledge(&s->ring, s->marked);
        }
    }
    cs_asks_answer(rec);
    if (cs_ledger_unsigned_since(rec->ledger) != 0) {
        cs_event_set(&rec->sign);
    }
}

static enum cs_err make_durable(struct cs_recorder *rec)
{
    uint64_t began_ns = cs_mono_ns();
    enum cs_err err = cs_journal_sync(&rec->journal);
    cs_metric_fast(CS_SLOT_SYNC_TIME, cs_mono_ns() - began_ns);
    rec->rotated &= err != CS_OK;
    return err == CS_OK ? add_leaves(rec) : err;
}

/* Everything read is in the journal, durable, the rings are told, and the files get it. */
enum cs_err cs_batch_sync(struct cs_recorder *rec)
{
    enum cs_err err = rec->no_space ? cs_batch_copied(rec, true) : CS_OK;
    if (err != CS_OK || (!rec->sealed && rec->unsynced_since == 0)) {
        return err;
    }
    if (!rec->sealed && cs_journal_full(&rec->journal)) {
        err = rotate(rec); /* rows alone: of rings whose frames were known, or were no frames */
    }
    if (err == CS_OK && !rec->sealed) {
        err = seal_batch(rec);
        rec->sealed = err == CS_OK;
    }
    if (err == CS_OK) {
        err = make_durable(rec);
    }
    if (err != CS_OK) {
        return err;
    }
    acknowledge(rec);
    return hand_over(rec);
}

enum cs_err cs_batch_sync_files(struct cs_recorder *rec)
{
    enum cs_err err = cs_batch_copied(rec, true);
    err = err == CS_OK ? cs_copier_sync(rec->copier) : err;
    err = err == CS_OK ? cs_ledger_sync_prepare(rec->ledger) : err;
    err = err == CS_OK ? cs_ledger_sync_run(rec->ledger) : err;
    return err == CS_OK ? cs_ledger_sync_done(rec->ledger) : err;
}

/* Segments whose content is durable in its files go. */
enum cs_err cs_batch_retire(struct cs_recorder *rec)
{
    uint32_t segment = 0;
    enum cs_err err = CS_OK;
    if (cs_copier_sync_done(rec->copier, &segment, &err) && err == CS_OK) {
        err = cs_ledger_sync_done(rec->ledger);
        err = err == CS_OK ? cs_journal_retire(&rec->journal, segment) : err;
        rec->first_kept = err == CS_OK ? CS_MAX(rec->first_kept, segment) : rec->first_kept;
    }
    if (err == CS_OK && rec->journal.number - rec->first_kept > SEGMENTS_BEHIND && !rec->rotated) {
        uint32_t upto = rec->journal.number;
        err = cs_batch_sync_files(rec); /* the disk is behind: now everybody waits */
        if (err == CS_OK) {
            err = cs_journal_retire(&rec->journal, upto);
            rec->first_kept = upto;
        }
    }
    if (err == CS_OK && rec->first_kept < rec->journal.number && !rec->rotated &&
        cs_copier_is_idle(rec->copier)) {
        err = cs_batch_copied(rec, true); /* what these segments hold is in its files first */
        err = err == CS_OK ? cs_ledger_sync_prepare(rec->ledger) : err;
        if (err == CS_OK) {
            (void)cs_copier_sync_start(rec->copier, rec->journal.number);
        }
    }
    return err;
}

/* Everything read is on disk, and the segment has room for a batch. */
bool cs_batch_make_room(struct cs_recorder *rec)
{
    enum cs_err err = cs_batch_sync(rec);
    if (err == CS_OK && cs_journal_full(&rec->journal)) {
        err = rotate(rec);
    }
    return cs_recorder_ok(rec, err);
}
