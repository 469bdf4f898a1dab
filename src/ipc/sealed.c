/* Sealed memory: bytes that were handed over and cannot change any more. */
#include "ipc/ipc.h"

#include "runtime/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { SEALS = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK };

static bool write_all(int fd, struct cs_slice bytes)
{
    while (bytes.n > 0) {
        ssize_t n = write(fd, bytes.p, bytes.n);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        bytes = cs_slice(bytes.p + n, bytes.n - (size_t)n);
    }
    return true;
}

enum cs_err cs_sealed_make(const char *name, struct cs_slice bytes, int *ret_fd)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    if (!write_all(fd, bytes) || fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) != 0) {
        enum cs_err err = cs_err_from_errno(errno);
        (void)close(fd);
        return err;
    }
    *ret_fd = fd;
    return CS_OK;
}

enum cs_err cs_sealed_map(int fd, size_t max, struct cs_slice *ret)
{
    /* SECURITY: without all three seals the peer could change the bytes between our check and our
     * use, or cut the file and have us killed by SIGBUS. A file on huge pages carries seals too,
     * but may fault when the machine has no page left for it: ordinary memory only. */
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS) {
        return CS_ERR_PROTOCOL;
    }
    struct stat st;
    struct statfs fs;
    if (cs_fstat(fd, &st) != 0 || fstatfs(fd, &fs) != 0 || !S_ISREG(st.st_mode) ||
        fs.f_type != TMPFS_MAGIC || st.st_size < 0) {
        return CS_ERR_PROTOCOL;
    }
    if ((uint64_t)st.st_size > max) {
        return CS_ERR_TOO_LARGE;
    }
    if (st.st_size == 0) {
        *ret = CS_SLICE_LIT("");
        return CS_OK;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        return cs_err_from_errno(errno);
    }
    *ret = cs_slice(p, (size_t)st.st_size);
    return CS_OK;
}

void cs_sealed_unmap(struct cs_slice s)
{
    if (s.n > 0) {
        union {
            const void *in;
            void *out;
        } p = {s.p};
        (void)munmap(p.out, s.n);
    }
}
