/* Reading the files that the configuration names. Called by compile.c through struct
 * cs_config_files. It must never wait: a FIFO or a device in place of a certificate is refused. */
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

const char *cs_config_file_problem(enum cs_err err)
{
    return err == CS_ERR_NOT_FOUND   ? "there is no such file"
           : err == CS_ERR_DENIED    ? "permission denied"
           : err == CS_ERR_INVALID   ? "it is not a regular file"
           : err == CS_ERR_TOO_LARGE ? "it is too large"
                                     : cs_err_text(err);
}

static enum cs_err read_all(int fd, size_t max, struct cs_arena *a, struct cs_slice *ret)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return cs_err_from_errno(errno);
    }
    if (!S_ISREG(st.st_mode)) {
        return CS_ERR_INVALID;
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > max) {
        return CS_ERR_TOO_LARGE;
    }
    size_t n = (size_t)st.st_size, got = 0;
    uint8_t *p = cs_arena_alloc(a, n + 1);
    if (p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    while (got < n) {
        ssize_t k = read(fd, p + got, n - got);
        if (k < 0 && errno != EINTR) {
            return cs_err_from_errno(errno);
        }
        if (k == 0) {
            break; /* shorter than it was a moment ago: what is there counts */
        }
        got += k > 0 ? (size_t)k : 0;
    }
    *ret = cs_slice(p, got);
    return CS_OK;
}

enum cs_err cs_config_read_file(void *arg, struct cs_slice path, size_t max, struct cs_arena *a,
                                struct cs_slice *ret)
{
    (void)arg;
    struct cs_slice name = cs_arena_dup(a, path); /* with a NUL behind it */
    if (name.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    int fd = open((const char *)name.p, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    enum cs_err err = read_all(fd, max, a, ret);
    (void)close(fd);
    return err;
}
