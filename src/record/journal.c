/* Writing and recovering the journal (journal.h). Called by the recorder alone. It must never
 * report a frame as durable that fdatasync did not cover, write behind a frame it could not verify,
 * or throw away a byte that somebody may want to look at (torn tails are kept beside the segment).
 */
#include "record/journal.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/time.h"
#include "record/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH_BYTES = 1024 * 1024, BATCH_CAP = BATCH_BYTES + CS_JOURNAL_FRAME_MAX };
enum { ASIDE_NAME = CS_SEGMENT_NAME + 40 };

/* ---- segments ---- */

static enum cs_err preallocate(int fd, uint64_t from, uint64_t to)
{
    int error_number = 0;
    if (to <= from) {
        return CS_OK;
    }
    do {
        error_number = posix_fallocate(fd, (off_t)from, (off_t)(to - from));
    } while (error_number == EINTR);
    return error_number == 0 ? CS_OK : cs_file_err(error_number);
}

/* Any failure to make bytes durable is final, ENOSPC included (delayed allocation): the kernel
 * reports it once and may have dropped the pages. */
static enum cs_err make_durable(int fd)
{
    return fsync(fd) == 0 ? CS_OK : CS_ERR_IO;
}

/* A complete, durable segment under a temporary name: a segment that can be seen has a header. */
static enum cs_err segment_fill(int fd, uint32_t number, uint64_t first_seq, uint64_t size)
{
    uint8_t head[CS_SEGMENT_HEAD];
    struct cs_segment_head h = {number, first_seq, cs_wall_ms()};
    cs_segment_head_write(&h, head);
    enum cs_err err = preallocate(fd, 0, size);
    if (err == CS_OK) {
        err = cs_file_write_at(fd, cs_slice(head, sizeof head), 0, NULL);
    }
    return err == CS_OK ? make_durable(fd) : err;
}

static enum cs_err segment_make(struct cs_journal *j, uint32_t number, int *ret_fd)
{
    char name[CS_SEGMENT_NAME], temporary[ASIDE_NAME];
    (void)cs_segment_name(number, name);
    (void)snprintf(temporary, sizeof temporary, "%s.new", name);
    int fd = openat(j->dir, temporary, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return cs_file_err(errno);
    }
    enum cs_err err = segment_fill(fd, number, j->next_seq, j->segment_bytes);
    if (err == CS_OK && renameat(j->dir, temporary, j->dir, name) != 0) {
        err = cs_file_err(errno);
    }
    if (err == CS_OK) {
        err = make_durable(j->dir);
    }
    if (err != CS_OK) {
        (void)unlinkat(j->dir, temporary, 0); /* gives back what a full disk lacks */
        (void)close(fd);
        return err;
    }
    *ret_fd = fd;
    return CS_OK;
}

static void segment_use(struct cs_journal *j, int fd, uint32_t number, uint64_t at, uint64_t size)
{
    if (j->fd >= 0) {
        (void)close(j->fd);
    }
    j->fd = fd;
    j->number = number;
    j->at = at;
    j->size = size;
}

/* ---- recovery ---- */

static void aside_name(uint32_t number, char out[static ASIDE_NAME])
{
    char name[CS_SEGMENT_NAME];
    (void)snprintf(out, ASIDE_NAME, "%s.%llu.torn", cs_segment_name(number, name),
                   (unsigned long long)cs_wall_ms());
}

static enum cs_err set_aside(struct cs_journal *j, uint32_t number)
{
    char name[CS_SEGMENT_NAME], aside[ASIDE_NAME];
    aside_name(number, aside);
    if (renameat(j->dir, cs_segment_name(number, name), j->dir, aside) != 0) {
        return cs_file_err(errno);
    }
    return make_durable(j->dir);
}

static enum cs_err keep_torn(struct cs_journal *j, uint32_t number, struct cs_slice tail)
{
    char aside[ASIDE_NAME];
    aside_name(number, aside);
    int fd = openat(j->dir, aside, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return cs_file_err(errno);
    }
    enum cs_err err = cs_file_write_at(fd, tail, 0, NULL);
    if (err == CS_OK) {
        err = make_durable(fd);
    }
    (void)close(fd);
    if (err != CS_OK) {
        (void)unlinkat(j->dir, aside, 0);
    }
    return err;
}

/* Cuts what is not good and makes what is good durable again: it is written anew, because pages
 * that an earlier fdatasync failed for look clean and would never reach the disk. */
static enum cs_err segment_repair(struct cs_journal *j, int fd, struct cs_slice good, bool cut)
{
    enum cs_err err = CS_OK;
    if (cut && ftruncate(fd, (off_t)good.n) != 0) {
        return cs_file_err(errno);
    }
    err = cs_file_write_at(fd, good, 0, NULL);
    if (err == CS_OK) {
        err = preallocate(fd, good.n, j->segment_bytes);
    }
    return err == CS_OK ? make_durable(fd) : err;
}

static bool note_frames(struct cs_journal *j, struct cs_segment_scan *scan, enum cs_scan *ret,
                        struct cs_journal_recovery *found)
{
    struct cs_journal_frame f;
    enum cs_scan got;
    while ((got = cs_segment_scan_next(scan, &f)) == CS_SCAN_FRAME) {
        found->frames++;
        if (!cs_seen_note(&j->seen, f.epoch, f.ring_seq)) {
            return false;
        }
    }
    *ret = got;
    return true;
}

static enum cs_err segment_reopen(struct cs_journal *j, uint32_t number, struct cs_slice file,
                                  const struct cs_segment_scan *scan, bool torn,
                                  struct cs_journal_recovery *found)
{
    char name[CS_SEGMENT_NAME];
    struct cs_slice tail = cs_slice_from(file, scan->at);
    size_t tail_n = cs_zeros_trimmed(tail);
    if (torn) {
        enum cs_err err = keep_torn(j, number, cs_slice_head(tail, tail_n));
        if (err != CS_OK) {
            return err;
        }
        found->cut_bytes += tail_n;
    }
    int fd = openat(j->dir, cs_segment_name(number, name), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return cs_file_err(errno);
    }
    enum cs_err err = segment_repair(j, fd, cs_slice_head(file, scan->at), torn);
    if (err != CS_OK) {
        (void)close(fd);
        return err;
    }
    j->next_seq = scan->next_seq;
    segment_use(j, fd, number, scan->at, CS_MAX(j->segment_bytes, scan->at));
    return CS_OK;
}

/* One of the last segments. `last`: writing goes on in it. */
static enum cs_err segment_recover(struct cs_journal *j, uint32_t number, bool last,
                                   struct cs_journal_recovery *found)
{
    char name[CS_SEGMENT_NAME];
    uint8_t *bytes = NULL;
    size_t n = 0;
    enum cs_err err = cs_file_read(j->dir, cs_segment_name(number, name), &bytes, &n);
    if (err != CS_OK) {
        return err;
    }
    struct cs_segment_scan scan;
    struct cs_segment_head head;
    enum cs_scan end = CS_SCAN_BAD;
    struct cs_slice file = cs_slice(bytes, n);
    if (!cs_segment_scan_start(file, &scan, &head) || head.number != number) {
        err = CS_ERR_CORRUPT;
    } else if (!note_frames(j, &scan, &end, found)) {
        err = CS_ERR_NO_MEMORY;
    } else if (last) {
        err = segment_reopen(j, number, file, &scan, end == CS_SCAN_BAD, found);
    }
    cs_free(bytes);
    return err;
}

/* Back to the newest segment that can be read; those behind it are set aside. */
static enum cs_err recover(struct cs_journal *j, const struct cs_segment_list *l,
                           struct cs_journal_recovery *found)
{
    for (size_t i = l->n; i > 0; i--) {
        uint32_t number = l->numbers[i - 1];
        enum cs_err err = segment_recover(j, number, true, found);
        if (err == CS_ERR_CORRUPT || err == CS_ERR_TOO_LARGE) {
            err = set_aside(j, number);
            found->set_aside++;
            if (err == CS_OK) {
                continue;
            }
        }
        if (err != CS_OK || i == 1) {
            return err;
        }
        /* For its frames only. A damaged older segment is left as it is, for people to look at. */
        err = segment_recover(j, l->numbers[i - 2], false, found);
        return err == CS_ERR_CORRUPT || err == CS_ERR_TOO_LARGE ? CS_OK : err;
    }
    int fd = -1;
    uint32_t number = l->n > 0 ? l->numbers[l->n - 1] : 0;
    if (number == UINT32_MAX) {
        return CS_ERR_CORRUPT; /* not a number we ever reach: somebody made that name */
    }
    j->next_seq = 1;
    enum cs_err err = segment_make(j, number + 1, &fd);
    if (err == CS_OK) {
        segment_use(j, fd, number + 1, CS_SEGMENT_HEAD, j->segment_bytes);
    }
    return err;
}

/* A directory that was just made must itself survive a crash before anything in it counts. */
static enum cs_err parent_durable(int dir)
{
    int fd = openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return cs_file_err(errno);
    }
    enum cs_err err = make_durable(fd);
    (void)close(fd);
    return err;
}

static enum cs_err directory_take(struct cs_journal *j, const char *directory)
{
    bool made = mkdir(directory, 0700) == 0;
    if (!made && errno != EEXIST) {
        return cs_file_err(errno);
    }
    j->dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (j->dir < 0) {
        return cs_file_err(errno);
    }
    if (made) {
        enum cs_err err = parent_durable(j->dir);
        if (err != CS_OK) {
            return err;
        }
    }
    /* Two writers would tear each other's frames. The lock ends with the process. */
    if (flock(j->dir, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK ? CS_ERR_CONFLICT : cs_file_err(errno);
    }
    return CS_OK;
}

enum cs_err cs_journal_open(struct cs_journal *j, const char *directory, uint64_t segment_bytes,
                            struct cs_journal_recovery *found)
{
    *j = (struct cs_journal){.dir = -1, .fd = -1};
    j->segment_bytes = segment_bytes > 0 ? segment_bytes : (uint64_t)CS_SEGMENT_BYTES;
    cs_assert(j->segment_bytes >= CS_SEGMENT_HEAD + CS_JOURNAL_FRAME_MAX &&
              j->segment_bytes <= CS_SEGMENT_FILE_MAX);
    found->frames = 0;
    struct cs_segment_list l = {NULL, 0, 0};
    enum cs_err err = directory_take(j, directory);
    if (err == CS_OK) {
        j->batch = cs_alloc(BATCH_CAP);
        err = j->batch != NULL ? cs_segments_list(j->dir, &l) : CS_ERR_NO_MEMORY;
    }
    if (err == CS_OK) {
        err = recover(j, &l, found);
    }
    cs_segments_done(&l);
    if (err != CS_OK) {
        cs_journal_close(j);
    }
    return err;
}

void cs_journal_close(struct cs_journal *j)
{
    if (j->batch == NULL && j->dir <= 0) {
        return;
    }
    if (j->fd >= 0) {
        (void)close(j->fd);
    }
    if (j->dir >= 0) {
        (void)close(j->dir);
    }
    cs_free(j->batch);
    cs_seen_done(&j->seen);
    *j = (struct cs_journal){.dir = -1, .fd = -1};
}

/* ---- writing ---- */

size_t cs_journal_pending(const struct cs_journal *j)
{
    return j->batch_len - j->batch_written;
}

bool cs_journal_full(const struct cs_journal *j)
{
    uint64_t end = j->at + cs_journal_pending(j);
    return end > j->size || j->size - end < CS_JOURNAL_FRAME_MAX;
}

uint8_t *cs_journal_slot(struct cs_journal *j)
{
    cs_assert(j->fd >= 0);
    /* A batch that could not be written whole is finished before anything is added to it. */
    if (j->batch_written > 0 || BATCH_CAP - j->batch_len < CS_JOURNAL_FRAME_MAX ||
        cs_journal_full(j)) {
        return NULL;
    }
    return j->batch + j->batch_len + CS_JOURNAL_HEAD;
}

void cs_journal_commit(struct cs_journal *j, uint64_t epoch, uint64_t ring_seq, size_t n)
{
    cs_assert(n > 0 && n <= CS_LIMIT_RECORD_FRAME_BYTES);
    cs_assert(BATCH_CAP - j->batch_len >= CS_JOURNAL_HEAD + n);
    cs_journal_frame_seal(j->batch + j->batch_len, j->next_seq++, epoch, ring_seq, n);
    j->batch_len += CS_JOURNAL_HEAD + n;
}

enum cs_err cs_journal_flush(struct cs_journal *j)
{
    size_t written = 0;
    struct cs_slice left = cs_slice(j->batch + j->batch_written, cs_journal_pending(j));
    if (left.n == 0) {
        return CS_OK;
    }
    cs_assert(j->fd >= 0 && j->at + left.n <= j->size);
    j->unsynced = true;
    enum cs_err err = cs_file_write_at(j->fd, left, j->at, &written);
    j->at += written;
    j->batch_written += written;
    if (err == CS_OK) {
        j->batch_len = j->batch_written = 0;
    }
    return err;
}

enum cs_err cs_journal_sync(struct cs_journal *j)
{
    enum cs_err err = cs_journal_flush(j);
    if (err != CS_OK || !j->unsynced) {
        return err;
    }
    if (fdatasync(j->fd) != 0) {
        return CS_ERR_IO;
    }
    j->unsynced = false;
    return CS_OK;
}

enum cs_err cs_journal_rotate(struct cs_journal *j)
{
    cs_assert(!j->unsynced && cs_journal_pending(j) == 0);
    int fd = -1;
    if (j->number == UINT32_MAX) {
        return CS_ERR_LIMIT;
    }
    enum cs_err err = segment_make(j, j->number + 1, &fd);
    if (err != CS_OK) {
        return err;
    }
    /* The unused rest goes back to the disk. If that fails, zeros stay: a scan knows them. */
    if (ftruncate(j->fd, (off_t)j->at) == 0) {
        (void)fsync(j->fd);
    }
    segment_use(j, fd, j->number + 1, CS_SEGMENT_HEAD, j->segment_bytes);
    return CS_OK;
}
