/* Directory listing, whole-file reads and complete writes for the journal and the replayer. It must
 * never follow a link out of the directory nor believe a file's size. */
#include "record/files.h"

#include "base/alloc.h"
#include "base/time.h"
#include "record/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum cs_err cs_file_err(int error_number)
{
    return error_number == EFBIG ? CS_ERR_NO_SPACE : cs_err_from_errno(error_number);
}

static bool list_add(struct cs_segment_list *l, uint32_t number)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        uint32_t *more = cs_realloc(l->numbers, cap * sizeof *more);
        if (more == NULL) {
            return false;
        }
        l->numbers = more;
        l->cap = cap;
    }
    l->numbers[l->n++] = number;
    return true;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

enum cs_err cs_segments_list(int dir, struct cs_segment_list *ret)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        (void)close(fd);
        return CS_ERR_NO_MEMORY;
    }
    struct cs_segment_list l = {NULL, 0, 0};
    enum cs_err err = CS_OK;
    errno = 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        uint32_t number = 0;
        if (cs_segment_name_parse(e->d_name, &number) && !list_add(&l, number)) {
            err = CS_ERR_NO_MEMORY;
            break;
        }
        errno = 0;
    }
    if (err == CS_OK && errno != 0) {
        err = cs_err_from_errno(errno);
    }
    (void)closedir(d);
    if (err != CS_OK) {
        cs_segments_done(&l);
        return err;
    }
    if (l.n > 1) {
        qsort(l.numbers, l.n, sizeof *l.numbers, by_number);
    }
    *ret = l;
    return CS_OK;
}

void cs_segments_done(struct cs_segment_list *l)
{
    cs_free(l->numbers);
    *l = (struct cs_segment_list){NULL, 0, 0};
}

static enum cs_err read_all(int fd, uint8_t **ret, size_t *ret_n)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return cs_err_from_errno(errno);
    }
    if (!S_ISREG(st.st_mode) || st.st_size < 0) {
        return CS_ERR_CORRUPT;
    }
    if (st.st_size > CS_SEGMENT_FILE_MAX) {
        return CS_ERR_TOO_LARGE;
    }
    size_t size = (size_t)st.st_size, at = 0;
    uint8_t *p = cs_alloc(size + 1);
    if (p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    while (at < size) {
        ssize_t n = pread(fd, p + at, size - at, (off_t)at);
        if (n == 0) {
            break; /* it was cut meanwhile: what is left is what there is */
        }
        if (n < 0 && errno != EINTR) {
            enum cs_err err = cs_err_from_errno(errno);
            cs_free(p);
            return err;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    *ret = p;
    *ret_n = at;
    return CS_OK;
}

enum cs_err cs_file_read(int dir, const char *name, uint8_t **ret, size_t *ret_n)
{
    /* NONBLOCK: a FIFO put there under a segment's name must not stop us. */
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    enum cs_err err = read_all(fd, ret, ret_n);
    (void)close(fd);
    return err;
}

const char *cs_file_aside(int dir, const char *name, char out[static CS_ASIDE_NAME])
{
    uint64_t now = cs_wall_ms();
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(out, CS_ASIDE_NAME, "%s.%llu.torn", name, (unsigned long long)now + i);
        int fd = openat(dir, out, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) {
            break; /* as it should be */
        }
        (void)close(fd);
    }
    return out;
}

enum cs_err cs_file_write_at(int fd, struct cs_slice s, uint64_t at, size_t *ret_written)
{
    size_t done = 0;
    enum cs_err err = CS_OK;
    while (done < s.n && err == CS_OK) {
        ssize_t n = pwrite(fd, s.p + done, s.n - done, (off_t)(at + done));
        if (n > 0) {
            done += (size_t)n;
        } else if (n == 0 || errno != EINTR) {
            err = n == 0 ? CS_ERR_IO : cs_file_err(errno);
        }
    }
    if (ret_written != NULL) {
        *ret_written = done;
    }
    return err;
}
