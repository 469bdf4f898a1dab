/* The journal: every gate's frames in one sequence, in preallocated segments of one directory.
 *
 * One writer, the recorder. Frames are collected in a batch (slot, commit), written (flush) and
 * made durable (sync). What sync has returned CS_OK for survives any crash; what was not synced may
 * be cut off by the next open, from its first bad byte on.
 *
 * Errors. NO_SPACE: nothing is lost, the same call may be repeated until it works. Everything else
 * is final: after a failed fdatasync the kernel may have thrown away what it could not write, so
 * the process ends and the next open reads back and writes again what the file really holds. */
#ifndef CS_RECORD_JOURNAL_H
#define CS_RECORD_JOURNAL_H

#include "base/err.h"
#include "record/seen.h"
#include "record/segment.h"

struct cs_journal {
    int dir; /* owned; -1 = closed */
    int fd;  /* owned; the segment in use */
    uint32_t number;
    uint64_t next_seq;
    uint64_t at;            /* in the segment: behind what is written */
    uint64_t size;          /* of the segment, preallocated */
    uint64_t segment_bytes; /* of new segments */
    uint8_t *batch;         /* owned */
    size_t batch_len, batch_written;
    bool unsynced;
    struct cs_seen seen;
};

/* What open found; added to by repeated calls. */
struct cs_journal_recovery {
    uint64_t frames;    /* in the segments looked at */
    uint64_t cut_bytes; /* taken off a torn tail, kept in a .torn file */
    uint64_t set_aside; /* segments without a readable header, renamed to .torn */
};

/* Takes the directory (mode 0700 when it has to be made) for itself alone: CONFLICT when another
 * process has it. Recovers. segment_bytes 0 = CS_SEGMENT_BYTES. NO_SPACE: call again later. */
enum cs_err cs_journal_open(struct cs_journal *j, const char *directory, uint64_t segment_bytes,
                            struct cs_journal_recovery *found) CS_MUST_CHECK;
/* Writes nothing more. A zeroed or closed journal is fine. */
void cs_journal_close(struct cs_journal *j);

/* Where the bytes of the next frame go (CS_LIMIT_RECORD_FRAME_BYTES of room). NULL when the batch
 * is full (flush) or the segment is (sync, then rotate). */
uint8_t *cs_journal_slot(struct cs_journal *j);
/* The frame in the slot is complete: 1 ≤ n bytes. */
void cs_journal_commit(struct cs_journal *j, uint64_t epoch, uint64_t ring_seq, size_t n);
/* No frame of full size fits into the segment any more. */
bool cs_journal_full(const struct cs_journal *j);
/* Bytes committed and not yet written. */
size_t cs_journal_pending(const struct cs_journal *j);

enum cs_err cs_journal_flush(struct cs_journal *j) CS_MUST_CHECK;
/* Flush and fdatasync. */
enum cs_err cs_journal_sync(struct cs_journal *j) CS_MUST_CHECK;
/* Goes on in a new segment. Everything must be synced, and the caller has told all rings so:
 * recovery looks for frames that rings may still hold in the last two segments only. */
enum cs_err cs_journal_rotate(struct cs_journal *j) CS_MUST_CHECK;

#endif
