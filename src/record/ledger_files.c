/* Reading and writing the audit log's files (ledger_files.h): whole files, each put in one step. It
 * must never leave half a file under a name that a verifier looks for, or follow a link. */
#include "record/ledger_files.h"

#include "record/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum cs_err cs_ledger_dir_open(int dir, int *ret_fd)
{
    if (mkdirat(dir, "log", 0700) != 0 && errno != EEXIST) {
        return cs_file_err(errno);
    }
    int fd = openat(dir, "log", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    if (fsync(dir) != 0) {
        (void)close(fd);
        return CS_ERR_IO;
    }
    *ret_fd = fd;
    return CS_OK;
}

static enum cs_err read_open(int fd, struct cs_buf *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return CS_ERR_CORRUPT;
    }
    if ((uint64_t)st.st_size > out->max - out->len) {
        return CS_ERR_TOO_LARGE;
    }
    size_t left = (size_t)st.st_size;
    uint8_t *p = left > 0 ? cs_buf_room(out, left) : NULL;
    if (left > 0 && p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    off_t at = 0;
    while (left > 0) {
        ssize_t n = pread(fd, p + at, left, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return CS_ERR_IO;
        }
        at += n;
        left -= (size_t)n;
    }
    out->len += (size_t)at;
    return CS_OK;
}

enum cs_err cs_ledger_file_get(int log, const char *path, struct cs_buf *out)
{
    /* NONBLOCK: a FIFO put there under that name must not stop us. */
    int fd = openat(log, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT || errno == ENOTDIR ? CS_ERR_NOT_FOUND : cs_err_from_errno(errno);
    }
    enum cs_err e = read_open(fd, out);
    (void)close(fd);
    return e;
}

/* The folder of a path, NUL-terminated: "." when it has none. */
static const char *folder_of(const char *path, char out[static CS_AUDIT_PATH])
{
    const char *slash = strrchr(path, '/');
    size_t n = slash != NULL ? (size_t)(slash - path) : 0;
    if (n == 0 || n >= CS_AUDIT_PATH) {
        return ".";
    }
    memcpy(out, path, n);
    out[n] = '\0';
    return out;
}

static enum cs_err make_folders(int log, const char *path)
{
    char part[CS_AUDIT_PATH];
    for (const char *s = strchr(path, '/'); s != NULL; s = strchr(s + 1, '/')) {
        size_t n = (size_t)(s - path);
        if (n >= sizeof part) {
            return CS_ERR_INVALID;
        }
        memcpy(part, path, n);
        part[n] = '\0';
        if (mkdirat(log, part, 0700) != 0 && errno != EEXIST) {
            return cs_file_err(errno);
        }
    }
    return CS_OK;
}

static enum cs_err sync_folder(int log, const char *path)
{
    char name[CS_AUDIT_PATH];
    int fd = openat(log, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? CS_OK : CS_ERR_IO;
    }
    enum cs_err e = fsync(fd) == 0 ? CS_OK : CS_ERR_IO;
    (void)close(fd);
    /* Its own name stands in the folder above. */
    return e == CS_OK && strcmp(path, ".") != 0 ? sync_folder(log, folder_of(path, name)) : e;
}

/* Under another name in the same folder: a rename over folders is one right more. */
static enum cs_err write_fresh(int log, const char *fresh, struct cs_slice content, bool durable)
{
    int fd = openat(log, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno == ENOENT ? CS_ERR_NOT_FOUND : cs_file_err(errno);
    }
    enum cs_err e = cs_file_write_at(fd, content, 0, NULL);
    if (e == CS_OK && durable && fsync(fd) != 0) {
        e = CS_ERR_IO;
    }
    (void)close(fd);
    return e;
}

enum cs_err cs_ledger_file_put(int log, const char *path, struct cs_slice content, bool durable)
{
    char folder[CS_AUDIT_PATH], fresh[CS_AUDIT_PATH + 8];
    (void)snprintf(fresh, sizeof fresh, "%s/fresh", folder_of(path, folder));
    enum cs_err e = write_fresh(log, fresh, content, durable);
    if (e == CS_ERR_NOT_FOUND) {
        e = make_folders(log, path);
        e = e == CS_OK ? write_fresh(log, fresh, content, durable) : e;
    }
    if (e == CS_OK && renameat(log, fresh, log, path) != 0) {
        e = cs_file_err(errno);
    }
    return e == CS_OK && durable ? sync_folder(log, folder_of(path, folder)) : e;
}

enum cs_err cs_ledger_file_sync(int log, const char *path)
{
    int fd = openat(log, path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? CS_OK : CS_ERR_IO;
    }
    enum cs_err e = fsync(fd) == 0 ? CS_OK : CS_ERR_IO;
    (void)close(fd);
    return e;
}

enum cs_err cs_ledger_folder_sync(int log, const char *path_in_it)
{
    char folder[CS_AUDIT_PATH];
    return sync_folder(log, folder_of(path_in_it, folder));
}

void cs_ledger_file_remove(int log, const char *path)
{
    (void)unlinkat(log, path, 0); /* one that stays does no harm */
}
