/* The files of a recordings directory: which segments there are, and a segment's bytes. Shared by
 * recovery and the replayer. */
#ifndef CS_RECORD_FILES_H
#define CS_RECORD_FILES_H

#include "base/err.h"
#include "base/slice.h"

enum { CS_SEGMENT_FILE_MAX = 64 * 1024 * 1024 }; /* a larger file is not ours */

struct cs_segment_list {
    uint32_t *numbers; /* owned; ascending */
    size_t n, cap;
};
enum cs_err cs_segments_list(int dir, struct cs_segment_list *ret) CS_MUST_CHECK;
void cs_segments_done(struct cs_segment_list *l);

/* The bytes a file has now (it may grow meanwhile). Give them back with cs_free((void *)ret->p). */
enum cs_err cs_file_read(int dir, const char *name, uint8_t **ret, size_t *ret_n) CS_MUST_CHECK;
/* Writes all of `s` at `at`; interrupted and short writes are continued. ret_written (may be NULL)
 * also counts on failure. NO_SPACE when the disk, a quota or a size limit is full. */
enum cs_err cs_file_write_at(int fd, struct cs_slice s, uint64_t at,
                             size_t *ret_written) CS_MUST_CHECK;
/* "NAME.TIME.torn", a name under which nothing is yet: what is put aside must not replace what was
 * put aside before, in the same millisecond or before the clock was set back. */
enum { CS_ASIDE_NAME = 104 };
const char *cs_file_aside(int dir, const char *name, char out[static CS_ASIDE_NAME]);
/* errno after a failed write. EFBIG counts as no space: a size limit can be lifted like a full disk
 * can be emptied, and nothing is lost meanwhile. */
enum cs_err cs_file_err(int error_number);

#endif
