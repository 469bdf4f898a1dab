/* The recordings that the recorder has open: which session goes into which file, with which key,
 * through which compressor. Fills the journal's batch; does no file work of its own but to look at
 * a recording that was there before.
 *
 * SECURITY: a gate may name any session's id. The first gate to name one has it; what another gate
 * says of that session goes into a file of its own, which is no part of the session's recording. */
#ifndef CS_RECORD_RECORDINGS_H
#define CS_RECORD_RECORDINGS_H

#include "action/frame.h"
#include "record/copier.h"
#include "record/csr_write.h"
#include "record/journal.h"
#include "record/leaves.h"

struct cs_recordings;

/* All borrowed. `ledger` may be NULL: then nothing is said to the audit log. */
struct cs_recordings *cs_recordings_new(struct cs_journal *journal, struct cs_copier *copier,
                                        struct cs_ledger *ledger);
void cs_recordings_free(struct cs_recordings *r);

/* Whom keys are wrapped for from now on; recordings that are open keep theirs until `renew`. */
void cs_recordings_keys(struct cs_recordings *r, const struct cs_csr_to *to);
bool cs_recordings_has_keys(const struct cs_recordings *r);

/* True when the batch has room for a frame of any size, its recording's header, and all that waits
 * in compressors. Else: finish, sync and clear first. */
bool cs_recordings_have_room(const struct cs_recordings *r);
/* What the recorder itself says to the audit log; needs room. */
const struct cs_leaves *cs_recordings_leaves(const struct cs_recordings *r);
/* One frame (action/frame.h) of a gate, and its leaf. Needs room and keys. CONFLICT: the session
 * was closed already, LIMIT: the gate has too many open, INVALID: the frame is malformed; the frame
 * was not taken then, and the gate is not to be believed. Every other error is final. ret_look is
 * what was wrong with a file that was set aside for this frame's sake, NULL for nothing. */
enum cs_err cs_recordings_add(struct cs_recordings *r, uint64_t epoch,
                              const struct cs_frame_head *head, struct cs_slice frame,
                              const char **ret_look) CS_MUST_CHECK;
/* From now on a thread takes its part in compressing what many sessions wait for: at least so many,
 * 0: as many as are worth it. */
void cs_recordings_help(struct cs_recordings *r, size_t least);
/* Everything that waits goes into the batch, ended by a COMMIT with these rows (u64le epoch, u64le
 * ring sequence; at most CS_RECORDINGS_ROWS). */
enum { CS_RECORDINGS_ROWS = 512 };
enum cs_err cs_recordings_finish(struct cs_recordings *r, struct cs_slice rows) CS_MUST_CHECK;
/* The batch was handed over to be copied into the files, all of the one before being there. */
void cs_recordings_handed(struct cs_recordings *r);
/* It is there. */
void cs_recordings_copied(struct cs_recordings *r);
/* Both at once. */
void cs_recordings_cleared(struct cs_recordings *r);
/* Plain bytes that are not finished yet. */
size_t cs_recordings_pending(const struct cs_recordings *r);

/* Recovery: an entry of the journal. Knows afterwards which recordings have no end yet. */
enum cs_err cs_recordings_recover(struct cs_recordings *r,
                                  const struct cs_journal_entry *e) CS_MUST_CHECK;
/* Ends recordings of gates that are gone, as many as there is room for: those of `epoch`, or, with
 * 0, those found by recovery whose gate is not in `live`. *ret_more: some are left. */
enum cs_err cs_recordings_end(struct cs_recordings *r, uint64_t epoch, const uint64_t *live,
                              size_t n_live, enum cs_csr_end reason, bool *ret_more) CS_MUST_CHECK;
/* For a new segment: the files that are open, into the batch. */
void cs_recordings_list(struct cs_recordings *r);

#endif
