/* Where keeper's master keys come from: a file, a credential of the service manager, a command.
 * Called by child.c before each start of keeper and by reload.c. Each is opened here and handed to
 * keeper as a descriptor: keeper itself may open nothing and start nothing.
 * The supervisor must never read a key: it looks at who owns a file and how many bytes there are.
 */
#include "base/log.h"
#include "base/secret.h"
#include "crypto/crypto.h"
#include "roles/supervisor.h"
#include "runtime/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEY_BYTES = 32, TEXT_MAX = 127, ARGUMENTS = 64, COMMAND_MAX = 4096, REAP_POLL_MS = 100 };

struct opening {
    struct cs_supervisor *sv;
    const struct cs_snapshot *s;
    const struct cs_snapshot_key *key;
    bool previous;
    char path[CS_PATH]; /* of a file or a credential */
    char *why;
    size_t why_size;
};

static enum cs_err fail(struct opening *o, enum cs_err e, const char *what)
{
    (void)snprintf(o->why, o->why_size, "the %smaster key %.300s %s",
                   o->previous ? "previous " : "", o->path, what);
    return e;
}

/* ---- files ---- */

static bool ours_or_roots(uid_t uid)
{
    return uid == 0 || uid == geteuid() || uid == cs_process_uid();
}

/* NULL when the file may be used, else what is wrong with it.
 * SECURITY: a key that others could have read or placed seals nothing. The service manager gives
 * the service's user its right by an access list, of which the group's bits show the mask: that is
 * the one case in which they may be set, and only where the group is root's. */
static const char *unfit(const struct stat *st, bool credential)
{
    bool masked = credential && st->st_uid == 0 && st->st_gid == 0;
    mode_t forbidden = S_IRWXO | (masked ? S_IWGRP | S_IXGRP : S_IRWXG);
    if (!S_ISREG(st->st_mode)) {
        return "is not a regular file";
    }
    if ((st->st_mode & forbidden) != 0) {
        return "can be reached by others; it needs mode 0600 or 0400";
    }
    if (!ours_or_roots(st->st_uid)) {
        return "belongs to another user";
    }
    if (credential) {
        return st->st_size >= KEY_BYTES && st->st_size <= TEXT_MAX ? NULL : "has no key's length";
    }
    return st->st_size == KEY_BYTES ? NULL : "does not have exactly 32 bytes";
}

/* The new name must survive a power cut, or every box made under the key is lost. */
static bool sync_directory(const char *path)
{
    char directory[CS_PATH];
    (void)snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash == NULL) {
        return false;
    }
    slash[slash == directory] = 0;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return ok;
}

/* The one key that passes through here, made here, once in an installation's life. */
static enum cs_err create(struct opening *o, int *ret_fd)
{
    uint8_t key[KEY_BYTES];
    int fd = open(o->path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0) {
        return fail(o, cs_err_from_errno(errno), "cannot be created");
    }
    cs_random(key, sizeof key);
    bool ok = fchmod(fd, S_IRUSR | S_IWUSR) == 0 &&
              (cs_process_uid() == geteuid() || fchown(fd, cs_process_uid(), (gid_t)-1) == 0) &&
              write(fd, key, sizeof key) == (ssize_t)sizeof key && fsync(fd) == 0 &&
              sync_directory(o->path) && lseek(fd, 0, SEEK_SET) == 0;
    cs_wipe(key, sizeof key);
    if (!ok) {
        (void)close(fd);
        (void)unlink(o->path);
        return fail(o, CS_ERR_IO, "cannot be written");
    }
    *ret_fd = fd;
    return CS_OK;
}

/* A missing key is made only where there is no store yet: later, a new one would hide that the old
 * one is lost. */
static enum cs_err missing(struct opening *o, int *ret_fd)
{
    char store[CS_PATH];
    (void)snprintf(store, sizeof store, "%.*s", CS_SLICE_FMT(o->s->store));
    if (o->previous || o->key->source != CS_KEY_FILE) {
        return fail(o, CS_ERR_NOT_FOUND, "does not exist");
    }
    if (access(store, F_OK) == 0 || errno != ENOENT) {
        return fail(o, CS_ERR_NOT_FOUND,
                    "does not exist, but the store does: put the key back from your backup. Where "
                    "no secret was ever stored, or all are lost, make a new one (head -c 32 "
                    "/dev/urandom) and set the secrets again");
    }
    return create(o, ret_fd);
}

static enum cs_err open_file(struct opening *o, int *ret_fd)
{
    struct stat st;
    /* O_NONBLOCK: opening a pipe that somebody put there would hang. */
    int fd = open(o->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT  ? missing(o, ret_fd)
               : errno == ELOOP ? fail(o, CS_ERR_DENIED, "is a symbolic link")
                                : fail(o, CS_ERR_IO, "cannot be opened");
    }
    const char *bad = fstat(fd, &st) != 0 ? "cannot be examined"
                                          : unfit(&st, o->key->source == CS_KEY_CREDENTIAL);
    if (bad != NULL) {
        (void)close(fd);
        return fail(o, CS_ERR_DENIED, bad);
    }
    *ret_fd = fd;
    return CS_OK;
}

static enum cs_err open_credential(struct opening *o, int *ret_fd)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    struct cs_slice name = o->key->what;
    if (directory == NULL || directory[0] != '/' ||
        strlen(directory) + 2 + name.n > sizeof o->path) {
        (void)snprintf(o->path, sizeof o->path, "%.*s", CS_SLICE_FMT(name));
        return fail(o, CS_ERR_NOT_FOUND,
                    "is to be a credential of the service manager, and there are none "
                    "(CREDENTIALS_DIRECTORY): see LoadCredentialEncrypted= in systemd.exec(5)");
    }
    (void)snprintf(o->path, sizeof o->path, "%s/%.*s", directory, CS_SLICE_FMT(name));
    return open_file(o, ret_fd);
}

/* ---- a command ---- */

/* argv out of the snapshot, as C strings in `room`. */
static bool read_argv(struct cs_slice what, char room[static COMMAND_MAX],
                      const char *argv[static ARGUMENTS])
{
    size_t n = 0;
    if (what.n == 0 || what.n > COMMAND_MAX || what.p[what.n - 1] != 0) {
        return false;
    }
    memcpy(room, what.p, what.n);
    for (size_t at = 0; at < what.n; at += strlen(room + at) + 1) {
        if (n + 1 >= ARGUMENTS) {
            return false;
        }
        argv[n++] = room + at;
    }
    argv[n] = NULL;
    return argv[0][0] == '/';
}

/* SECURITY: whoever may change the program says what the key is. */
static bool program_fit(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && ours_or_roots(st.st_uid) &&
           (st.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Until it has ended, or is made to. */
static enum cs_err await_end(struct opening *o, pid_t pid)
{
    char how[80];
    bool clean = false;
    struct cs_fd pidfd = {.fd = -1};
    enum cs_woke woke = CS_WOKE_CANCELLED;
    if (cs_process_watch(o->sv->loop, pid, &pidfd) == CS_OK) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &pidfd);
        woke = cs_wait(&w, 1, cs_mono_ns() + o->key->timeout_s * CS_NS_PER_S);
    }
    if (woke != CS_WOKE_READY) {
        (void)kill(pid, SIGKILL);
    }
    while (!cs_process_reap(pid, how, sizeof how, &clean)) {
        struct pollfd p = {pidfd.fd, POLLIN, 0};
        (void)poll(&p, pidfd.fd >= 0 ? 1 : 0, REAP_POLL_MS); /* it is dying: moments */
    }
    if (pidfd.fd >= 0) {
        cs_fd_close(&pidfd);
    }
    if (woke != CS_WOKE_READY) {
        return fail(o, CS_ERR_TIMEOUT, "(a command) took too long and was ended");
    }
    return clean ? CS_OK : fail(o, CS_ERR_UNAVAILABLE, "(a command) failed; see what it said");
}

/* A pipe holds what it printed until keeper reads it: kernel memory that is never swapped, and gone
 * with the last descriptor. */
static enum cs_err open_command(struct opening *o, int *ret_fd)
{
    static char room[COMMAND_MAX]; /* no wait between here and its use */
    const char *argv[ARGUMENTS];
    int ends[2], bytes = 0;
    pid_t pid = 0;
    if (!read_argv(o->key->what, room, argv)) {
        return fail(o, CS_ERR_INVALID, "(a command) is malformed or too long");
    }
    (void)snprintf(o->path, sizeof o->path, "%.400s", argv[0]);
    if (!program_fit(argv[0])) {
        return fail(o, CS_ERR_DENIED,
                    "(a command) does not exist, belongs to another user or can be written by "
                    "others");
    }
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return fail(o, cs_err_from_errno(errno), "(a command) cannot be run");
    }
    (void)fcntl(ends[1], F_SETFL, 0); /* the command writes as to any other pipe */
    enum cs_err e = cs_process_start_output(argv[0], argv, ends[1], &pid);
    (void)close(ends[1]);
    e = e == CS_OK ? await_end(o, pid) : fail(o, e, "(a command) cannot be run");
    if (e == CS_OK &&
        (ioctl(ends[0], FIONREAD, &bytes) != 0 || bytes < KEY_BYTES || bytes > TEXT_MAX)) {
        e = fail(o, CS_ERR_INVALID, "(a command) printed something that has no key's length");
    }
    if (e != CS_OK) {
        (void)close(ends[0]);
        return e;
    }
    *ret_fd = ends[0];
    return CS_OK;
}

/* ---- all of them ---- */

static enum cs_err open_one(struct opening *o, int *ret_fd)
{
    if (o->key->source == CS_KEY_COMMAND) {
        return open_command(o, ret_fd);
    }
    if (o->key->source == CS_KEY_CREDENTIAL) {
        return open_credential(o, ret_fd);
    }
    if (o->key->what.n == 0 || o->key->what.n >= sizeof o->path ||
        cs_slice_find(o->key->what, 0) != o->key->what.n) {
        return fail(o, CS_ERR_INVALID, "has no path, or one that is too long");
    }
    (void)snprintf(o->path, sizeof o->path, "%.*s", CS_SLICE_FMT(o->key->what));
    return open_file(o, ret_fd);
}

enum cs_err cs_master_keys_open(struct cs_supervisor *sv, const struct cs_snapshot *s,
                                struct cs_key_fds *ret, char *why, size_t why_size)
{
    const struct cs_snapshot_key *keys[] = {&s->master_key, &s->previous_master_key};
    struct cs_key_fds out = {{-1, -1}};
    for (size_t i = 0; i < CS_ARRAY_LEN(keys); i++) {
        struct opening o = {
            .sv = sv, .s = s, .key = keys[i], .previous = i == 1, .why = why, .why_size = why_size};
        enum cs_err e = keys[i]->source != CS_KEY_NONE ? open_one(&o, &out.fd[i]) : CS_OK;
        if (e != CS_OK) {
            cs_master_keys_close(&out);
            return e;
        }
    }
    *ret = out;
    return CS_OK;
}

void cs_master_keys_close(struct cs_key_fds *k)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(k->fd); i++) {
        if (k->fd[i] >= 0) {
            (void)close(k->fd[i]);
            k->fd[i] = -1;
        }
    }
}

bool cs_master_keys_differ(const struct cs_snapshot *a, const struct cs_snapshot *b)
{
    const struct cs_snapshot_key *x[] = {&a->master_key, &a->previous_master_key};
    const struct cs_snapshot_key *y[] = {&b->master_key, &b->previous_master_key};
    for (size_t i = 0; i < CS_ARRAY_LEN(x); i++) {
        if (x[i]->source != y[i]->source || !cs_slice_eq(x[i]->what, y[i]->what)) {
            return true;
        }
    }
    return false;
}

enum cs_err cs_wire_master_keys(struct cs_child *keeper, const struct cs_key_fds *k)
{
    enum cs_err e = CS_OK;
    for (size_t i = 0; i < CS_ARRAY_LEN(k->fd) && e == CS_OK; i++) {
        bool last = i + 1 == CS_ARRAY_LEN(k->fd) || k->fd[i + 1] < 0;
        const struct cs_msg_master_key m = {.previous = i, .last = last ? 1 : 0};
        if (k->fd[i] >= 0) {
            e = cs_channel_send(keeper->channel, CS_MSG_MASTER_KEY, 0, &m, &k->fd[i], 1);
        }
    }
    return e;
}

enum cs_err cs_wire_credentials(struct cs_child *keeper)
{
    const struct cs_configuration *config = &keeper->sv->config;
    uint8_t hash[CS_SHA256];
    int fd = -1;
    cs_sha256(config->snapshot.credentials, hash);
    const struct cs_msg_credentials m = {.version = config->snapshot.version,
                                         .sha256 = cs_slice(hash, sizeof hash)};
    enum cs_err e = cs_sealed_make("credentials", config->snapshot.credentials, &fd);
    if (e == CS_OK) {
        e = cs_channel_send(keeper->channel, CS_MSG_CREDENTIALS, 0, &m, &fd, 1);
        (void)close(fd);
    }
    return e;
}
