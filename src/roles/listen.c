/* Directories and listening sockets, made once from the first configuration; they outlive every
 * role. Called by serve.c. Mistakes here are the administrator's to mend, so each is said in one
 * sentence with what to do. */
#include "roles/supervisor.h"
#include "runtime/process.h"
#include "runtime/sock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Any local user may connect: who it is tells the kernel (peer uid), and what it may do is
 * control's decision. A stricter file mode would only hide the socket from people who may use it.
 */
enum { LOCAL_SOCKET_MODE = 0666, OURS_ALONE = 0700, PASSED = 0711, SHARED = 0755 };

static bool complain(const char *what, const char *name)
{
    (void)fprintf(stderr, "countersign: cannot create the directory %s for %s: %s\n", name, what,
                  strerror(errno));
    return false;
}

/* An empty directory of the service's user, as `countersign init` leaves it. By its descriptor:
 * what that user may put in its place meanwhile is not what changes hands. */
static bool take_empty(const char *path, uid_t owner, mode_t mode)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_uid != cs_process_uid()) {
        (void)(fd < 0 || close(fd));
        return false;
    }
    DIR *d = fdopendir(fd);
    bool ok = d != NULL;
    for (const struct dirent *e = ok ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        ok = ok && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    }
    ok = ok && fchown(fd, owner, (gid_t)-1) == 0 && fchmod(fd, mode) == 0;
    (void)(d != NULL ? closedir(d) : close(fd));
    return ok;
}

/* SECURITY: with an id for each role a directory of another one would be closed to its role, or
 * open to one that it is not for. `mode` 0: a file. */
static bool is_owned(const char *what, const char *path, uid_t owner, mode_t mode)
{
    struct stat st;
    if (stat(path, &st) != 0 || st.st_uid == owner ||
        (mode != 0 && take_empty(path, owner, mode))) {
        return true;
    }
    (void)fprintf(
        stderr,
        "countersign: %s, for %s, belongs to the user %u; with --role-users it must belong "
        "to %u\n  Once, while the gateway is stopped: chown -R %u:%u %s\n",
        path, what, (unsigned)st.st_uid, (unsigned)owner, (unsigned)owner, (unsigned)owner, path);
    return false;
}

/* Makes `path` with `mode` and what leads to it; what exists stays as it is. */
static bool make_directory(const char *what, char *path, mode_t mode, uid_t owner)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        bool ok = mkdir(path, SHARED) == 0 || errno == EEXIST;
        if (!ok) {
            (void)complain(what, path);
        }
        *slash = '/';
        if (!ok) {
            return false;
        }
    }
    if (mkdir(path, mode) != 0) {
        return errno == EEXIST || complain(what, path);
    }
    if (mode == PASSED && chmod(path, mode) != 0) { /* whatever the umask is */
        return complain(what, path);
    }
    /* Only what was just made: a directory that was there is its owner's business. */
    return owner == geteuid() || chown(path, owner, (gid_t)-1) == 0 || complain(what, path);
}

/* A path out of the snapshot as a C string. Newlines are refused: parameters of a role are lines.
 */
static bool path_of(const char *what, struct cs_slice s, char out[static CS_PATH])
{
    if (s.n == 0 || s.n >= CS_PATH || cs_slice_find(s, 0) != s.n || cs_slice_find(s, '\n') != s.n) {
        (void)fprintf(stderr, "countersign: the path of %s is empty, too long or has odd bytes\n",
                      what);
        return false;
    }
    memcpy(out, s.p, s.n);
    out[s.n] = 0;
    return true;
}

static bool make_parent(const char *what, const char *file, mode_t mode, uid_t owner, bool separate)
{
    char parent[CS_PATH];
    (void)snprintf(parent, sizeof parent, "%s", file);
    char *slash = strrchr(parent, '/');
    if (slash == NULL || slash == parent) {
        return true;
    }
    *slash = 0;
    return make_directory(what, parent, mode, owner) &&
           (!separate || (is_owned(what, parent, owner, mode) && is_owned(what, file, owner, 0)));
}

static bool directories_make(struct cs_supervisor *sv)
{
    char store[CS_PATH], recordings[CS_PATH];
    const struct cs_snapshot *s = &sv->config.snapshot;
    if (!path_of("store.sqlite", s->store, store) ||
        !path_of("recordings.directory", s->recordings, sv->recordings)) {
        return false;
    }
    (void)snprintf(recordings, sizeof recordings, "%s", sv->recordings);
    (void)snprintf(sv->escrow, sizeof sv->escrow, "%.*s", CS_SLICE_FMT(s->escrow));
    bool separate = sv->first_uid != 0;
    uid_t all = cs_process_uid();
    uid_t control = separate ? cs_users_of(sv, CS_ROLE_CONTROL, 0) : all;
    uid_t recorder = separate ? cs_users_of(sv, CS_ROLE_RECORDER, 0) : all;
    /* The store's is passed through by the recorder, whose directory may lie in it. */
    return make_parent("store.sqlite", store, separate ? PASSED : OURS_ALONE, control, separate) &&
           make_directory("recordings.directory", recordings, OURS_ALONE, recorder) &&
           (!separate || is_owned("recordings.directory", recordings, recorder, OURS_ALONE));
}

static bool cannot_listen(const struct cs_open_listener *l, enum cs_err err, int error_number)
{
    const char *advice = "";
    if (error_number == EADDRINUSE) {
        advice =
            "\n  Another program, perhaps another countersign, listens there: stop it, or change "
            "the address in the configuration.";
    } else if (error_number == EACCES) {
        advice =
            "\n  Ports below 1024 and some directories need more rights: choose another address, "
            "or give the program CAP_NET_BIND_SERVICE.";
    } else if (error_number == EADDRNOTAVAIL) {
        advice = "\n  This machine has no such address: see `ip address`.";
    }
    (void)fprintf(stderr, "countersign: cannot listen on %s (listener %s): %s%s\n", l->address,
                  l->name, error_number != 0 ? strerror(error_number) : cs_err_text(err), advice);
    return false;
}

/* One that the program before an upgrade has opened: nobody who wants to connect notices. */
static bool listener_inherit(struct cs_legacy *legacy, struct cs_open_listener *l)
{
    for (size_t i = 0; i < legacy->n_listeners; i++) {
        const struct cs_open_listener *old = &legacy->listeners[i];
        if (strcmp(old->kind, l->kind) == 0 && strcmp(old->address, l->address) == 0) {
            l->fd = old->fd;
            legacy->listeners[i] = legacy->listeners[--legacy->n_listeners];
            return true;
        }
    }
    return false;
}

static bool listener_open(struct cs_open_listener *l)
{
    enum cs_err err;
    errno = 0;
    if (strcmp(l->kind, "local") == 0) {
        if (!make_parent("listeners.local", l->address, SHARED, cs_process_uid(), false)) {
            return false;
        }
        errno = 0;
        err = cs_listen_unix(l->address, LOCAL_SOCKET_MODE, &l->fd);
    } else {
        err = cs_listen_tcp(cs_slice_str(l->address), &l->fd);
    }
    return err == CS_OK || cannot_listen(l, err, errno);
}

bool cs_listeners_open(struct cs_supervisor *sv)
{
    if (!directories_make(sv)) {
        return false;
    }
    for (size_t i = 0; i < sv->config.snapshot.n_listeners; i++) {
        const struct cs_snapshot_listener *from = &sv->config.snapshot.listeners[i];
        struct cs_open_listener *l = &sv->listeners[i];
        l->fd = -1;
        (void)snprintf(l->name, sizeof l->name, "%.*s", CS_SLICE_FMT(from->name));
        (void)snprintf(l->kind, sizeof l->kind, "%.*s", CS_SLICE_FMT(from->kind));
        if (!path_of(l->name, from->address, l->address) ||
            !(listener_inherit(&sv->legacy, l) || listener_open(l))) {
            return false;
        }
        sv->n_listeners++;
    }
    return true;
}

void cs_listeners_close(struct cs_supervisor *sv)
{
    for (size_t i = 0; i < sv->n_listeners; i++) {
        (void)close(sv->listeners[i].fd);
        if (strcmp(sv->listeners[i].kind, "local") == 0) {
            (void)unlink(sv->listeners[i].address);
        }
    }
    sv->n_listeners = 0;
}

/* The address with the port that the kernel chose where the configuration says 0. */
static void tell_address(struct cs_buf *out, const struct cs_open_listener *l)
{
    struct cs_slice host, address = cs_slice_str(l->address);
    uint16_t port = 0;
    if (cs_addr_split(address, true, &host, &port) && port == 0) {
        cs_buf_add(out, cs_slice_head(address, address.n - 1));
        cs_buf_printf(out, "%u", (unsigned)cs_sock_port(l->fd));
    } else {
        cs_buf_add(out, address);
    }
}

void cs_listeners_tell(const struct cs_supervisor *sv, struct cs_buf *out)
{
    cs_buf_str(out, "countersign is serving:");
    for (size_t i = 0; i < sv->n_listeners; i++) {
        const struct cs_open_listener *l = &sv->listeners[i];
        cs_buf_str(out, i > 0 ? ", " : " ");
        if (strcmp(l->kind, "local") == 0) {
            cs_buf_printf(out, "local socket %s", l->address);
        } else if (strcmp(l->kind, "control") == 0 && sv->config.snapshot.url.n > 0) {
            cs_buf_printf(out, "%s on ", l->name);
            cs_buf_add(out, sv->config.snapshot.url);
            cs_buf_str(out, " (");
            tell_address(out, l);
            cs_buf_str(out, ")");
        } else {
            cs_buf_printf(out, "%s on ", l->name);
            tell_address(out, l);
        }
    }
    cs_buf_str(out, "\n");
}
