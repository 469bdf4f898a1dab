/* The journal: what goes into the files of all recordings, in one sequence, in preallocated
 * segments of one directory, so that one fdatasync makes a batch of all sessions durable.
 *
 * One writer, the recorder. A batch is filled with entries (slot, add), ended with a COMMIT, made
 * durable (sync), handed to the files (entries), and cleared. What sync has returned CS_OK for
 * survives any crash; what was not synced, or has no COMMIT, is cut off by the next open.
 *
 * Errors. NO_SPACE: nothing is lost, the same call may be repeated until it works. Everything else
 * is final: after a failed fdatasync the kernel may have thrown away what it could not write, so
 * the process ends and the next open reads back and writes again what the file really holds. */
#ifndef CS_RECORD_JOURNAL_H
#define CS_RECORD_JOURNAL_H

#include "base/err.h"
#include "record/seen.h"
#include "record/segment.h"

enum {
    CS_JOURNAL_BATCH = 3 * 1024 * 1024,
    CS_SEGMENT_LEAST = CS_SEGMENT_HEAD + CS_JOURNAL_BATCH,
};

struct cs_journal {
    int dir; /* owned; -1 = closed */
    int fd;  /* owned; the segment in use */
    uint32_t number;
    uint64_t next_seq;
    uint64_t at;            /* in the segment: behind what is written */
    uint64_t size;          /* of the segment, preallocated */
    uint64_t segment_bytes; /* of new segments */
    uint8_t *batch;         /* owned */
    uint8_t *handed;        /* owned: the one before, while it is copied into the files */
    size_t batch_len, batch_written;
    bool unsynced;
    struct cs_seen seen;
};

/* What open found; added to by repeated calls. */
struct cs_journal_recovery {
    uint64_t entries;   /* committed ones, in all segments */
    uint64_t cut_bytes; /* taken off a torn tail, kept in a .torn file */
    uint64_t set_aside; /* segments that could not be read to their end, renamed to .torn */
};
/* Gets every committed entry of all segments in order. */
typedef enum cs_err (*cs_journal_fn)(void *arg, const struct cs_journal_entry *e);

/* Takes the directory (mode 0700 when it has to be made) for itself alone: CONFLICT when another
 * process has it. Recovers: `fn` gets what was committed, and a CS_ERR_ of it ends the call.
 * segment_bytes 0 = CS_SEGMENT_BYTES, at least CS_SEGMENT_LEAST. NO_SPACE: call again later; fn
 * then gets all once more. */
enum cs_err cs_journal_open(struct cs_journal *j, const char *directory, uint64_t segment_bytes,
                            cs_journal_fn fn, void *arg,
                            struct cs_journal_recovery *found) CS_MUST_CHECK;
/* Writes nothing more. A zeroed or closed journal is fine. */
void cs_journal_close(struct cs_journal *j);

/* Bytes of entries, heads included, that the batch still takes; 0 while one is being written. */
size_t cs_journal_room(const struct cs_journal *j);
/* Where the body of the next entry goes, room - CS_JOURNAL_HEAD bytes. */
uint8_t *cs_journal_slot(struct cs_journal *j);
/* The body in the slot is complete: 1 ≤ n bytes. */
void cs_journal_add(struct cs_journal *j, enum cs_journal_kind kind, uint64_t offset, size_t n);
/* No whole batch fits into the segment any more: rotate. */
bool cs_journal_full(const struct cs_journal *j);

/* Writes the batch and makes it durable. */
enum cs_err cs_journal_sync(struct cs_journal *j) CS_MUST_CHECK;
/* The synced batch's entries: from *at = 0 on; false at the end. */
bool cs_journal_entry(const struct cs_journal *j, size_t *at, struct cs_journal_entry *ret);
/* They are where they belong: room for the next batch. */
void cs_journal_clear(struct cs_journal *j);
/* Instead: the synced batch, which stays as it is until the next one is handed over. */
struct cs_slice cs_journal_hand_over(struct cs_journal *j);
/* Goes on in a new segment. Everything must be synced and cleared, and the caller has told all
 * rings so. */
enum cs_err cs_journal_rotate(struct cs_journal *j) CS_MUST_CHECK;
/* Removes the segments before `number`: what they hold is durable in its files. */
enum cs_err cs_journal_retire(struct cs_journal *j, uint32_t number) CS_MUST_CHECK;

#endif
