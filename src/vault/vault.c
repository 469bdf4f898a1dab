/* The master key and the boxes under it. Called by keeper, for whom everything in clear is in one
 * piece of locked memory.
 * It must never follow a link, take a key that others could have read or placed, or give out bytes
 * of a box that did not open. */
#include "vault/vault.h"

#include "base/alloc.h"
#include "base/id.h"
#include "base/writer.h"
#include "vault/locked.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { AAD_MAX = 20 + 4 + CS_VAULT_NAME_MAX + 8, PUT_AAD_MAX = 24 + CS_VAULT_NAME_MAX };

struct cs_vault {
    uint8_t key[CS_SEAL_KEY];
    uint8_t put_key[CS_X25519];  /* private half of the key that commands seal to */
    uint8_t room[CS_SECRET_MAX]; /* the one secret that is in clear at a time */
};

static void say(char *why, size_t size, const char *path, const char *what)
{
    if (size > 0) {
        (void)snprintf(why, size, "the master key %s %s", path, what);
    }
}

/* NULL when the file may be used, else what is wrong with it. */
static const char *unfit(const struct stat *st)
{
    if (!S_ISREG(st->st_mode)) {
        return "is not a regular file";
    }
    if ((st->st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        return "can be reached by others; it needs mode 0600 or 0400";
    }
    if (st->st_uid != geteuid() && st->st_uid != 0) {
        return "belongs to another user";
    }
    return st->st_size == CS_SEAL_KEY ? NULL : "does not have exactly 32 bytes";
}

static bool read_all(int fd, uint8_t *p, size_t n)
{
    size_t at = 0;
    while (at < n) {
        ssize_t got = read(fd, p + at, n - at);
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return false;
        }
        at += got > 0 ? (size_t)got : 0;
    }
    return true;
}

static bool write_all(int fd, const uint8_t *p, size_t n)
{
    size_t at = 0;
    while (at < n) {
        ssize_t put = write(fd, p + at, n - at);
        if (put < 0 && errno != EINTR) {
            return false;
        }
        at += put > 0 ? (size_t)put : 0;
    }
    return true;
}

/* The new name must survive a power cut, or every box made under the key is lost. */
static bool sync_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    char *directory = cs_alloc(n + 2);
    if (directory == NULL) {
        return false;
    }
    memcpy(directory, n > 0 ? path : ".", n > 0 ? n : 1);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cs_free(directory);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return ok;
}

static enum cs_err key_create(const char *path, uint8_t key[static CS_SEAL_KEY], char *why,
                              size_t why_size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0) {
        enum cs_err e = cs_err_from_errno(errno);
        say(why, why_size, path, "cannot be created");
        return e;
    }
    cs_random(key, CS_SEAL_KEY);
    bool ok =
        fchmod(fd, S_IRUSR | S_IWUSR) == 0 && write_all(fd, key, CS_SEAL_KEY) && fsync(fd) == 0;
    ok = close(fd) == 0 && ok && sync_directory(path);
    if (!ok) {
        (void)unlink(path);
        say(why, why_size, path, "cannot be written");
        return CS_ERR_IO;
    }
    return CS_OK;
}

static enum cs_err key_read(int fd, const char *path, uint8_t key[static CS_SEAL_KEY], char *why,
                            size_t why_size)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        say(why, why_size, path, "cannot be examined");
        return CS_ERR_IO;
    }
    const char *bad = unfit(&st);
    if (bad != NULL) {
        say(why, why_size, path, bad);
        return CS_ERR_DENIED;
    }
    if (!read_all(fd, key, CS_SEAL_KEY)) {
        say(why, why_size, path, "cannot be read");
        return CS_ERR_IO;
    }
    return CS_OK;
}

static enum cs_err key_load(const char *path, bool create, uint8_t key[static CS_SEAL_KEY],
                            char *why, size_t why_size)
{
    /* O_NONBLOCK: opening a pipe that somebody put there would hang. */
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) {
        enum cs_err e = key_read(fd, path, key, why, why_size);
        (void)close(fd);
        return e;
    }
    if (errno == ENOENT && create) {
        return key_create(path, key, why, why_size);
    }
    if (errno == ELOOP) {
        say(why, why_size, path, "is a symbolic link");
        return CS_ERR_DENIED;
    }
    bool missing = errno == ENOENT;
    say(why, why_size, path, missing ? "does not exist" : "cannot be opened");
    return missing ? CS_ERR_NOT_FOUND : CS_ERR_IO;
}

enum cs_err cs_vault_open(const char *path, bool create, struct cs_vault **ret, char *why,
                          size_t why_size)
{
    struct cs_vault *v = cs_locked_alloc(sizeof *v);
    if (v == NULL) {
        say(why, why_size, path, "is not read: there is no memory that can be locked for it");
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err e = key_load(path, create, v->key, why, why_size);
    if (e == CS_OK) {
        e = cs_vault_derive(v, "secret-put", v->put_key);
    }
    if (e != CS_OK) {
        cs_vault_close(v);
        return e;
    }
    *ret = v;
    return CS_OK;
}

void cs_vault_close(struct cs_vault *v)
{
    cs_locked_free(v, sizeof *v);
}

/* ---- boxes ---- */
static struct cs_slice aad_of(struct cs_slice name, uint64_t version, uint8_t mem[static AAD_MAX])
{
    struct cs_writer w = cs_writer(mem, AAD_MAX);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/secret/1"));
    cs_writer_slice(&w, name);
    cs_writer_u64le(&w, version);
    return cs_writer_done(&w); /* empty only for a name that is too long, which was checked */
}

static bool name_fits(struct cs_slice name)
{
    return name.n > 0 && name.n <= CS_VAULT_NAME_MAX;
}

enum cs_err cs_vault_seal(const struct cs_vault *v, struct cs_slice name, uint64_t version,
                          struct cs_slice secret, uint8_t *box)
{
    uint8_t mem[AAD_MAX];
    if (!name_fits(name)) {
        return CS_ERR_INVALID;
    }
    if (secret.n > CS_SECRET_MAX) {
        return CS_ERR_TOO_LARGE;
    }
    return cs_seal(v->key, aad_of(name, version, mem), secret, box);
}

enum cs_err cs_vault_unseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice box, struct cs_secret *ret)
{
    uint8_t mem[AAD_MAX];
    cs_vault_forget(v);
    if (!name_fits(name)) {
        return CS_ERR_INVALID;
    }
    if (box.n < CS_SEAL_OVERHEAD || box.n - CS_SEAL_OVERHEAD > sizeof v->room) {
        return CS_ERR_CORRUPT;
    }
    enum cs_err e = cs_unseal(v->key, aad_of(name, version, mem), box, v->room);
    if (e == CS_OK) {
        *ret = (struct cs_secret){v->room, box.n - CS_SEAL_OVERHEAD};
    }
    return e;
}

void cs_vault_forget(struct cs_vault *v)
{
    cs_wipe(v->room, sizeof v->room);
}

/* ---- secrets as commands seal them ---- */
struct cs_slice cs_vault_put_aad(struct cs_slice name, uint8_t *mem, size_t cap)
{
    struct cs_writer w = cs_writer(mem, cap);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/secret-put/1"));
    cs_writer_bytes(&w, name);
    return cs_writer_done(&w);
}

enum cs_err cs_vault_put_public(const struct cs_vault *v, uint8_t ret[static CS_X25519])
{
    return cs_x25519_public(v->put_key, ret);
}

enum cs_err cs_vault_reseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice sealed, uint8_t *box)
{
    uint8_t mem[PUT_AAD_MAX];
    if (!name_fits(name) || sealed.n <= CS_SEAL_TO_OVERHEAD ||
        sealed.n - CS_SEAL_TO_OVERHEAD > sizeof v->room) {
        return CS_ERR_INVALID;
    }
    struct cs_slice aad = cs_vault_put_aad(name, mem, sizeof mem);
    enum cs_err e = cs_unseal_to(v->put_key, aad, sealed, v->room);
    if (e == CS_OK) {
        e = cs_vault_seal(v, name, version, cs_slice(v->room, sealed.n - CS_SEAL_TO_OVERHEAD), box);
    }
    cs_vault_forget(v);
    return e;
}

enum cs_err cs_vault_derive(const struct cs_vault *v, const char *purpose,
                            uint8_t ret[static CS_SEAL_KEY])
{
    return cs_hkdf_sha256(cs_slice(v->key, sizeof v->key), CS_SLICE_LIT("countersign/derive/1"),
                          cs_slice_str(purpose), ret, CS_SEAL_KEY);
}
