/* An SQLite VFS over plain calls, which the linker leads to the disk in memory (crash_disk.h). It
 * promises SQLite what its own for Linux does: what a write does not touch stays whole, nothing
 * more. One connection, exclusive locking: no shared memory. */
#include "crash_vfs.h"

#include "base/assert.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file {
    sqlite3_file base;
    int fd, last_errno;
    bool made; /* its name is not durable yet */
};

static struct file *file_of(sqlite3_file *f)
{
    return (struct file *)(void *)f;
}

static int failed(struct file *f, int code)
{
    f->last_errno = errno;
    return errno == ENOSPC ? SQLITE_FULL : code;
}

static int vfs_close(sqlite3_file *f)
{
    (void)close(file_of(f)->fd);
    return SQLITE_OK;
}

static int vfs_read(sqlite3_file *base, void *p, int n, sqlite3_int64 at)
{
    struct file *f = file_of(base);
    ssize_t got = pread(f->fd, p, (size_t)n, at);
    if (got < 0) {
        return failed(f, SQLITE_IOERR_READ);
    }
    if (got < n) {
        memset((char *)p + got, 0, (size_t)(n - got));
        return SQLITE_IOERR_SHORT_READ;
    }
    return SQLITE_OK;
}

static int vfs_write(sqlite3_file *base, const void *p, int n, sqlite3_int64 at)
{
    struct file *f = file_of(base);
    const char *from = p;
    int done = 0;
    while (done < n) {
        ssize_t put = pwrite(f->fd, from + done, (size_t)(n - done), at + done);
        if (put <= 0) {
            return failed(f, SQLITE_IOERR_WRITE);
        }
        done += (int)put;
    }
    return SQLITE_OK;
}

static int vfs_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct file *f = file_of(base);
    return ftruncate(f->fd, size) == 0 ? SQLITE_OK : failed(f, SQLITE_IOERR_TRUNCATE);
}

static int sync_directory(void)
{
    int dir = open("/sim", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return -1;
    }
    int got = fsync(dir);
    (void)close(dir);
    return got;
}

static int vfs_sync(sqlite3_file *base, int flags)
{
    struct file *f = file_of(base);
    (void)flags;
    if (fsync(f->fd) != 0) {
        return failed(f, SQLITE_IOERR_FSYNC);
    }
    if (f->made && sync_directory() != 0) {
        return failed(f, SQLITE_IOERR_DIR_FSYNC);
    }
    f->made = false;
    return SQLITE_OK;
}

static int vfs_size(sqlite3_file *base, sqlite3_int64 *ret)
{
    struct stat st;
    if (fstat(file_of(base)->fd, &st) != 0) {
        return failed(file_of(base), SQLITE_IOERR_FSTAT);
    }
    *ret = st.st_size;
    return SQLITE_OK;
}

static int vfs_lock(sqlite3_file *f, int level)
{
    (void)f;
    (void)level;
    return SQLITE_OK;
}

static int vfs_reserved(sqlite3_file *f, int *ret)
{
    (void)f;
    *ret = 0;
    return SQLITE_OK;
}

static int vfs_control(sqlite3_file *f, int op, void *arg)
{
    if (op == SQLITE_FCNTL_LAST_ERRNO) {
        *(int *)arg = file_of(f)->last_errno;
        return SQLITE_OK;
    }
    return SQLITE_NOTFOUND;
}

static int vfs_sector(sqlite3_file *f)
{
    (void)f;
    return 4096;
}

static int vfs_traits(sqlite3_file *f)
{
    (void)f;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods methods = {.iVersion = 1,
                                           .xClose = vfs_close,
                                           .xRead = vfs_read,
                                           .xWrite = vfs_write,
                                           .xTruncate = vfs_truncate,
                                           .xSync = vfs_sync,
                                           .xFileSize = vfs_size,
                                           .xLock = vfs_lock,
                                           .xUnlock = vfs_lock,
                                           .xCheckReservedLock = vfs_reserved,
                                           .xFileControl = vfs_control,
                                           .xSectorSize = vfs_sector,
                                           .xDeviceCharacteristics = vfs_traits};

static int vfs_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *base, int flags,
                    int *ret_flags)
{
    struct file *f = file_of(base);
    (void)vfs;
    memset(f, 0, sizeof *f);
    cs_assert(name != NULL); /* the store keeps its temporary tables in memory */
    f->fd = open(name, O_RDWR | O_CLOEXEC);
    if (f->fd < 0 && errno == ENOENT && (flags & SQLITE_OPEN_CREATE) != 0) {
        f->fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        f->made = true;
    }
    if (f->fd < 0) {
        return failed(f, SQLITE_CANTOPEN);
    }
    f->base.pMethods = &methods;
    if (ret_flags != NULL) {
        *ret_flags = flags;
    }
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    (void)vfs;
    int dir = open("/sim", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return SQLITE_IOERR_DELETE;
    }
    int got = unlinkat(dir, strrchr(name, '/') + 1, 0);
    int code = got == 0          ? SQLITE_OK
               : errno == ENOENT ? SQLITE_IOERR_DELETE_NOENT
                                 : SQLITE_IOERR_DELETE;
    (void)close(dir);
    return code == SQLITE_OK && sync_dir != 0 && sync_directory() != 0 ? SQLITE_IOERR_DIR_FSYNC
                                                                       : code;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
    (void)vfs;
    (void)flags;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    struct stat st = {.st_size = 0};
    *ret =
        fd >= 0 && fstat(fd, &st) == 0 &&
        (flags != SQLITE_ACCESS_EXISTS || st.st_size > 0); /* as SQLite's own: not an empty one */
    if (fd >= 0) {
        (void)close(fd);
        return SQLITE_OK;
    }
    return errno == ENOENT ? SQLITE_OK : SQLITE_IOERR_ACCESS;
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *name, int n, char *ret)
{
    (void)vfs;
    (void)sqlite3_snprintf(n, ret, "%s", name);
    return SQLITE_OK;
}

static int vfs_random(sqlite3_vfs *vfs, int n, char *ret)
{
    (void)vfs;
    for (int i = 0; i < n; i++) {
        ret[i] = (char)(i * 7);
    }
    return n;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int vfs_time(sqlite3_vfs *vfs, double *ret)
{
    (void)vfs;
    *ret = 2460000.5;
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int n, char *ret)
{
    (void)vfs;
    (void)n;
    (void)ret;
    return errno;
}

void crash_vfs_use(void)
{
    static sqlite3_vfs vfs = {.iVersion = 1,
                              .szOsFile = sizeof(struct file),
                              .mxPathname = 512,
                              .zName = "crash",
                              .xOpen = vfs_open,
                              .xDelete = vfs_delete,
                              .xAccess = vfs_access,
                              .xFullPathname = vfs_full_path,
                              .xRandomness = vfs_random,
                              .xSleep = vfs_sleep,
                              .xCurrentTime = vfs_time,
                              .xGetLastError = vfs_last_error};
    cs_assert(sqlite3_vfs_register(&vfs, 1) == SQLITE_OK);
}
