/* Writing and recovering the journal (journal.h). Called by the recorder alone. It must never
 * report an entry as durable that fdatasync did not cover, write behind one it could not verify,
 * or throw away a byte that somebody may want to look at (torn tails are kept beside the segment).
 */
#include "record/journal.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/reader.h"
#include "base/time.h"
#include "record/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

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
    char name[CS_SEGMENT_NAME], temporary[CS_ASIDE_NAME];
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

static enum cs_err set_aside(struct cs_journal *j, uint32_t number)
{
    char name[CS_SEGMENT_NAME], aside[CS_ASIDE_NAME];
    (void)cs_file_aside(j->dir, cs_segment_name(number, name), aside);
    if (renameat(j->dir, cs_segment_name(number, name), j->dir, aside) != 0) {
        return cs_file_err(errno);
    }
    return make_durable(j->dir);
}

static enum cs_err keep_torn(struct cs_journal *j, uint32_t number, struct cs_slice tail)
{
    char name[CS_SEGMENT_NAME], aside[CS_ASIDE_NAME];
    (void)cs_file_aside(j->dir, cs_segment_name(number, name), aside);
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

/* Up to the last COMMIT: what is behind it does not count, whole as it may be. */
static void scan_committed(struct cs_segment_scan *scan, size_t *ret_at, uint64_t *ret_seq,
                           bool *ret_whole)
{
    struct cs_journal_entry e;
    enum cs_scan got;
    *ret_at = scan->at;
    *ret_seq = scan->next_seq;
    while ((got = cs_segment_scan_next(scan, &e)) == CS_SCAN_ENTRY) {
        if (e.kind == CS_JOURNAL_COMMIT) {
            *ret_at = scan->at;
            *ret_seq = scan->next_seq;
        }
    }
    *ret_whole = got == CS_SCAN_END && *ret_at == scan->at;
}

static bool note_commit(struct cs_journal *j, struct cs_slice body)
{
    uint64_t epoch, seq;
    while (cs_journal_row(&body, &epoch, &seq)) {
        if (!cs_seen_note(&j->seen, epoch, seq)) {
            return false;
        }
    }
    return true;
}

static enum cs_err apply(struct cs_journal *j, struct cs_slice file, cs_journal_fn fn, void *arg,
                         struct cs_journal_recovery *found)
{
    struct cs_segment_scan scan;
    struct cs_segment_head head;
    struct cs_journal_entry e;
    enum cs_err err = CS_OK;
    if (!cs_segment_scan_start(file, &scan, &head)) {
        return CS_ERR_CORRUPT;
    }
    while (err == CS_OK && cs_segment_scan_next(&scan, &e) == CS_SCAN_ENTRY) {
        found->entries++;
        err = fn(arg, &e);
        if (err == CS_OK && e.kind == CS_JOURNAL_COMMIT && !note_commit(j, e.body)) {
            err = CS_ERR_NO_MEMORY;
        }
    }
    return err;
}

/* Writing goes on behind what is good. */
static enum cs_err segment_reopen(struct cs_journal *j, uint32_t number, struct cs_slice file,
                                  size_t good, uint64_t next_seq, struct cs_journal_recovery *found)
{
    char name[CS_SEGMENT_NAME];
    struct cs_slice tail = cs_slice_from(file, good);
    size_t tail_n = cs_zeros_trimmed(tail);
    if (tail_n > 0) {
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
    enum cs_err err = segment_repair(j, fd, cs_slice_head(file, good), tail_n > 0);
    if (err != CS_OK) {
        (void)close(fd);
        return err;
    }
    j->next_seq = next_seq;
    segment_use(j, fd, number, good, CS_MAX(j->segment_bytes, good));
    return CS_OK;
}

/* One segment. CORRUPT: it could not be read, or, being not the last one, not to its end; what
 * could be read of it was applied. */
static enum cs_err segment_recover(struct cs_journal *j, uint32_t number, bool last,
                                   cs_journal_fn fn, void *arg, struct cs_journal_recovery *found)
{
    char name[CS_SEGMENT_NAME];
    uint8_t *bytes = NULL;
    size_t n = 0, good = 0;
    uint64_t next_seq = 0;
    bool whole = false;
    struct cs_segment_scan scan;
    struct cs_segment_head head;
    enum cs_err err = cs_file_read(j->dir, cs_segment_name(number, name), &bytes, &n);
    if (err != CS_OK) {
        return err == CS_ERR_TOO_LARGE ? CS_ERR_CORRUPT : err;
    }
    struct cs_slice file = cs_slice(bytes, n);
    if (!cs_segment_scan_start(file, &scan, &head) || head.number != number) {
        err = CS_ERR_CORRUPT;
    } else {
        scan_committed(&scan, &good, &next_seq, &whole);
    }
    /* Durable first: after an fdatasync that failed, what can be read here may be on no disk.
     * Copied into files and then lost here, it would leave files that nobody completes. */
    if (err == CS_OK && last) {
        err = segment_reopen(j, number, file, good, next_seq, found);
    }
    if (err == CS_OK) {
        err = apply(j, cs_slice_head(file, good), fn, arg, found);
    }
    if (err == CS_OK && !last && !whole) {
        err = CS_ERR_CORRUPT;
    }
    if (err != CS_OK && j->fd >= 0) {
        (void)close(j->fd);
        j->fd = -1;
    }
    cs_free(bytes);
    return err;
}

static enum cs_err segment_first(struct cs_journal *j, const struct cs_segment_list *l)
{
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

/* All segments in order; the last one that can be read is gone on with. What cannot be read is set
 * aside, for people to look at. */
static enum cs_err recover(struct cs_journal *j, const struct cs_segment_list *l, cs_journal_fn fn,
                           void *arg, struct cs_journal_recovery *found)
{
    for (size_t i = 0; i < l->n; i++) {
        enum cs_err err = segment_recover(j, l->numbers[i], i + 1 == l->n, fn, arg, found);
        if (err == CS_ERR_CORRUPT) {
            err = set_aside(j, l->numbers[i]);
            found->set_aside++;
        }
        if (err != CS_OK) {
            return err;
        }
    }
    return j->fd >= 0 ? CS_OK : segment_first(j, l);
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
                            cs_journal_fn fn, void *arg, struct cs_journal_recovery *found)
{
    *j = (struct cs_journal){.dir = -1, .fd = -1};
    j->segment_bytes = segment_bytes > 0 ? segment_bytes : (uint64_t)CS_SEGMENT_BYTES;
    cs_assert(j->segment_bytes >= CS_SEGMENT_LEAST && j->segment_bytes <= CS_SEGMENT_FILE_MAX);
    found->entries = 0;
    struct cs_segment_list l = {NULL, 0, 0};
    enum cs_err err = directory_take(j, directory);
    if (err == CS_OK) {
        j->batch = cs_alloc(CS_JOURNAL_BATCH);
        j->handed = cs_alloc(CS_JOURNAL_BATCH);
        err =
            j->batch != NULL && j->handed != NULL ? cs_segments_list(j->dir, &l) : CS_ERR_NO_MEMORY;
    }
    if (err == CS_OK) {
        err = recover(j, &l, fn, arg, found);
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
    cs_free(j->handed);
    cs_seen_done(&j->seen);
    *j = (struct cs_journal){.dir = -1, .fd = -1};
}

/* ---- writing ---- */

size_t cs_journal_room(const struct cs_journal *j)
{
    return j->batch_written > 0 ? 0 : CS_JOURNAL_BATCH - j->batch_len;
}

bool cs_journal_full(const struct cs_journal *j)
{
    return j->size - j->at < CS_JOURNAL_BATCH;
}

uint8_t *cs_journal_slot(struct cs_journal *j)
{
    cs_assert(j->fd >= 0 && cs_journal_room(j) > CS_JOURNAL_HEAD);
    return j->batch + j->batch_len + CS_JOURNAL_HEAD;
}

void cs_journal_add(struct cs_journal *j, enum cs_journal_kind kind, uint64_t offset, size_t n)
{
    cs_assert(n > 0 && n <= CS_JOURNAL_BODY_MAX && !cs_journal_full(j));
    cs_assert(cs_journal_room(j) >= CS_JOURNAL_HEAD + n);
    cs_journal_entry_seal(j->batch + j->batch_len, j->next_seq++, kind, offset, n);
    j->batch_len += CS_JOURNAL_HEAD + n;
}

enum cs_err cs_journal_sync(struct cs_journal *j)
{
    size_t written = 0;
    struct cs_slice left = cs_slice(j->batch + j->batch_written, j->batch_len - j->batch_written);
    if (left.n > 0) {
        cs_assert(j->fd >= 0 && j->at + left.n <= j->size);
        j->unsynced = true;
        enum cs_err err = cs_file_write_at(j->fd, left, j->at, &written);
        j->at += written;
        j->batch_written += written;
        if (err != CS_OK) {
            return err;
        }
    }
    if (j->unsynced && fdatasync(j->fd) != 0) {
        return CS_ERR_IO;
    }
    j->unsynced = false;
    return CS_OK;
}

bool cs_journal_entry(const struct cs_journal *j, size_t *at, struct cs_journal_entry *ret)
{
    cs_assert(!j->unsynced && j->batch_written == j->batch_len);
    return cs_journal_entry_next(cs_slice(j->batch, j->batch_len), at, ret);
}

struct cs_slice cs_journal_hand_over(struct cs_journal *j)
{
    cs_assert(!j->unsynced && j->batch_written == j->batch_len);
    struct cs_slice batch = cs_slice(j->batch, j->batch_len);
    uint8_t *empty = j->handed;
    j->handed = j->batch;
    j->batch = empty;
    j->batch_len = j->batch_written = 0;
    return batch;
}

void cs_journal_clear(struct cs_journal *j)
{
    cs_assert(!j->unsynced && j->batch_written == j->batch_len);
    j->batch_len = j->batch_written = 0;
}

enum cs_err cs_journal_rotate(struct cs_journal *j)
{
    cs_assert(!j->unsynced && j->batch_len == 0);
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

enum cs_err cs_journal_retire(struct cs_journal *j, uint32_t number)
{
    struct cs_segment_list l = {NULL, 0, 0};
    char name[CS_SEGMENT_NAME];
    enum cs_err err = cs_segments_list(j->dir, &l);
    cs_assert(number <= j->number);
    for (size_t i = 0; i < l.n && err == CS_OK && l.numbers[i] < number; i++) {
        if (unlinkat(j->dir, cs_segment_name(l.numbers[i], name), 0) != 0 && errno != ENOENT) {
            err = cs_file_err(errno);
        }
    }
    cs_segments_done(&l);
    return err;
}
