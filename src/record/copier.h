/* From the journal into the files of the recordings. The journal made the bytes durable; here they
 * are put where they belong, and a thread makes those files durable from time to time, after which
 * the journal's older segments may go. While a batch is being copied only `copied` and what looks
 * at a file may be called. */
#ifndef CS_RECORD_COPIER_H
#define CS_RECORD_COPIER_H

#include "base/err.h"
#include "record/csr_write.h"
#include "record/segment.h"

struct cs_copier;

/* `dir`: of the recordings, borrowed. */
struct cs_copier *cs_copier_new(int dir);
/* Waits for its thread. */
void cs_copier_free(struct cs_copier *c);

/* One BYTES entry's content to its place; repeating it is harmless. NO_SPACE: again later. */
enum cs_err cs_copier_put(struct cs_copier *c, const struct cs_journal_file *f, uint64_t offset,
                          struct cs_slice bytes) CS_MUST_CHECK;

/* Begins to copy a batch of the journal, which stays as it is until that is done: a thread of its
 * own does it, or, when there is little to copy, the caller. Nothing else may be under way. */
void cs_copier_copy(struct cs_copier *c, struct cs_slice batch);
struct cs_copied {
    enum cs_err err; /* NO_SPACE: `wait` tries again */
    uint64_t bytes;
};
/* What became of it. False while it is being copied; `wait`: until it is done. */
bool cs_copier_copied(struct cs_copier *c, bool wait, struct cs_copied *ret);

/* The thread that makes files durable does this, too, each time behind the files: `fn` may touch
 * nothing that the loop's thread touches between a start and its done. */
void cs_copier_also(struct cs_copier *c, enum cs_err (*fn)(void *arg), void *arg);
/* Nothing was begun whose end was not asked for. */
bool cs_copier_is_idle(struct cs_copier *c);
/* Begins to make durable what was put so far. `segment` is remembered with it. False when it is at
 * that already. */
bool cs_copier_sync_start(struct cs_copier *c, uint32_t segment);
/* What became of it: false while nothing was begun or it still works. Once for each start. */
bool cs_copier_sync_done(struct cs_copier *c, uint32_t *ret_segment, enum cs_err *ret_err);
/* The same, waiting for the end. */
enum cs_err cs_copier_sync(struct cs_copier *c) CS_MUST_CHECK;

/* Where a recording that is there already ends. NOT_FOUND when there is none; CORRUPT when it was
 * changed (csr_read.h). */
enum cs_err cs_copier_look(struct cs_copier *c, const struct cs_journal_file *f,
                           struct cs_csr_tail *ret) CS_MUST_CHECK;
/* Recovery: what earlier entries put from `from` up to `to` is void, because a later one begins at
 * `from` and is put there next. What stands behind `to`, no entry wrote: then all is kept, as cut
 * does. */
enum cs_err cs_copier_void(struct cs_copier *c, const struct cs_journal_file *f, uint64_t from,
                           uint64_t to) CS_MUST_CHECK;
/* Keeps what stands behind `size` in a file NAME.TIME.torn and cuts it off; both are durable. */
enum cs_err cs_copier_cut(struct cs_copier *c, const struct cs_journal_file *f,
                          uint64_t size) CS_MUST_CHECK;
/* Renames it to NAME.TIME.torn. */
enum cs_err cs_copier_set_aside(struct cs_copier *c, const struct cs_journal_file *f) CS_MUST_CHECK;

#endif
