/* What a gate's frames, and the recorder's own doings, say to the audit log. Called by recordings.c
 * and the recorder. */
#ifndef CS_RECORD_LEAVES_H
#define CS_RECORD_LEAVES_H

#include "action/frame.h"
#include "record/csr_write.h"
#include "record/ledger.h"

/* Where leaves go; all borrowed. */
struct cs_leaves {
    struct cs_ledger *ledger; /* NULL: there is no log (tests, benches) */
    struct cs_journal *journal;
    const struct cs_csr_to *to; /* whom private values are sealed to */
};

/* The leaf of a frame, if it has one; needs CS_LEDGER_ROOM in the batch.
 *
 * SECURITY: the frame is its gate's word about its own session, and no more: the caller has made
 * sure whose session it is. No frame makes a vote, a login or a change. INVALID: the frame is
 * malformed. */
enum cs_err cs_leaf_of_frame(const struct cs_leaves *to, const struct cs_frame_head *head,
                             struct cs_slice frame) CS_MUST_CHECK;
/* How far a recording has come, or (`end` not NULL) how it ended. */
enum cs_err cs_leaf_of_recording(const struct cs_leaves *to, const struct cs_csr_writer *w,
                                 const char *end) CS_MUST_CHECK;
/* The writer began: after an orderly end, or after a crash. */
enum cs_err cs_leaf_of_start(const struct cs_leaves *to, bool crashed, uint64_t size,
                             const struct cs_audit_hash *root) CS_MUST_CHECK;
/* Something of this recording was found that cannot be its own, and taken away; it goes on. */
enum cs_err cs_leaf_of_repair(const struct cs_leaves *to, const struct cs_id *session,
                              const char *what) CS_MUST_CHECK;
/* Recordings are sealed to this key from now on. */
enum cs_err cs_leaf_of_key(const struct cs_leaves *to) CS_MUST_CHECK;

/* At most CS_LEAF_TEXT_MAX bytes of it, cut between characters; nothing of what is no UTF-8. */
struct cs_slice cs_leaf_text(struct cs_slice s);
/* Sets a private value, sealed to all holders; memory is appended to `mem`, which the leaf borrows
 * from and which must not be moved meanwhile: see cs_leaf_seal_all. */
struct cs_leaf_private {
    enum cs_leaf_key key;
    struct cs_slice value;
};
enum cs_err cs_leaf_seal_all(const struct cs_csr_to *to, struct cs_leaf *leaf,
                             const struct cs_leaf_private *values, size_t n,
                             struct cs_buf *mem) CS_MUST_CHECK;

#endif
