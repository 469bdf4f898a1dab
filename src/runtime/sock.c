/* Opening sockets: names of addresses, listening, accepting, connecting. No look-ups of names. */
#include "runtime/sock.h"

#include "base/assert.h"
#include "base/writer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096, ACCEPT_PAUSE_MS = 50 };
#define ACCEPT_LOOK_NS CS_NS_PER_S

/* ---- addresses ---- */

static bool port_parse(struct cs_slice s, bool zero_ok, uint16_t *ret)
{
    uint32_t v = 0;
    if (s.n == 0 || s.n > 5) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') {
            return false;
        }
        v = v * 10 + (uint32_t)(s.p[i] - '0');
    }
    if (v > UINT16_MAX || (v == 0 && !zero_ok)) {
        return false;
    }
    *ret = (uint16_t)v;
    return true;
}

static bool has_byte(struct cs_slice s, uint8_t c)
{
    return s.n > 0 && memchr(s.p, c, s.n) != NULL;
}

bool cs_addr_split(struct cs_slice text, bool zero_ok, struct cs_slice *ret_host,
                   uint16_t *ret_port)
{
    const uint8_t *colon = text.n > 0 ? memrchr(text.p, ':', text.n) : NULL;
    if (colon == NULL) {
        return false;
    }
    struct cs_slice host = cs_slice(text.p, (size_t)(colon - text.p));
    struct cs_slice port = cs_slice(colon + 1, text.n - host.n - 1);
    if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
        host = cs_slice(host.p + 1, host.n - 2);
        if (!has_byte(host, ':')) {
            return false;
        }
    } else if (has_byte(host, ':')) {
        return false; /* an IPv6 address without brackets: where would its port begin? */
    }
    if (host.n == 0 || host.n > 255 || has_byte(host, '[') || has_byte(host, ']') ||
        has_byte(host, 0)) {
        return false;
    }
    uint16_t number;
    if (!port_parse(port, zero_ok, &number)) {
        return false;
    }
    *ret_host = host;
    *ret_port = number;
    return true;
}

bool cs_addr_parse(struct cs_slice host, uint16_t port, struct sockaddr_storage *ret,
                   socklen_t *ret_len)
{
    char text[INET6_ADDRSTRLEN];
    if (host.n == 0 || host.n >= sizeof text || has_byte(host, 0)) {
        return false;
    }
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    struct sockaddr_storage out = {0};
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = v4};
        memcpy(&out, &sin, sizeof sin);
        *ret_len = sizeof sin;
    } else if (inet_pton(AF_INET6, text, &v6) == 1) {
        struct sockaddr_in6 sin6 = {
            .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = v6};
        memcpy(&out, &sin6, sizeof sin6);
        *ret_len = sizeof sin6;
    } else {
        return false;
    }
    *ret = out;
    return true;
}

char *cs_addr_text(const struct sockaddr *sa, char out[static CS_ADDR_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, sa, sizeof sin);
        (void)inet_ntop(AF_INET, &sin.sin_addr, host, sizeof host);
        (void)snprintf(out, CS_ADDR_TEXT, "%s:%u", host, (unsigned)ntohs(sin.sin_port));
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 sin6;
        memcpy(&sin6, sa, sizeof sin6);
        (void)inet_ntop(AF_INET6, &sin6.sin6_addr, host, sizeof host);
        (void)snprintf(out, CS_ADDR_TEXT, "[%s]:%u", host, (unsigned)ntohs(sin6.sin6_port));
    } else {
        (void)snprintf(out, CS_ADDR_TEXT, "unix");
    }
    return out;
}

void cs_addr_plain(struct sockaddr_storage *sa)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct sockaddr_in6 sin6;
    if (sa->ss_family != AF_INET6) {
        return;
    }
    memcpy(&sin6, sa, sizeof sin6);
    if (memcmp(&sin6.sin6_addr, mapped, sizeof mapped) != 0) {
        return;
    }
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = sin6.sin6_port};
    memcpy(&sin.sin_addr, (const uint8_t *)&sin6.sin6_addr + sizeof mapped, 4);
    memset(sa, 0, sizeof *sa);
    memcpy(sa, &sin, sizeof sin);
}

struct cs_addr_net cs_addr_net(const struct sockaddr *sa)
{
    struct cs_addr_net n = {0};
    struct sockaddr_storage plain = {0};
    if (sa->sa_family != AF_INET && sa->sa_family != AF_INET6) {
        return n;
    }
    memcpy(&plain, sa,
           sa->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    cs_addr_plain(&plain);
    if (plain.ss_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, &plain, sizeof sin);
        n.family = 4;
        memcpy(n.b, &sin.sin_addr, 4);
    } else {
        struct sockaddr_in6 sin6;
        memcpy(&sin6, &plain, sizeof sin6);
        n.family = 6;
        memcpy(n.b, &sin6.sin6_addr, sizeof n.b);
    }
    return n;
}

bool cs_addr_net_eq(const struct cs_addr_net *a, const struct cs_addr_net *b)
{
    return a->family == b->family && memcmp(a->b, b->b, sizeof a->b) == 0;
}

/* ---- listening ---- */

static enum cs_err fail_close(int fd)
{
    enum cs_err err = cs_err_from_errno(errno);
    int kept = errno;
    (void)close(fd);
    errno = kept;
    return err;
}

enum cs_err cs_listen_tcp(struct cs_slice address, int *ret_fd)
{
    struct cs_slice host;
    uint16_t port;
    struct sockaddr_storage sa;
    socklen_t len;
    if (!cs_addr_split(address, true, &host, &port) || !cs_addr_parse(host, port, &sa, &len)) {
        return CS_ERR_INVALID;
    }
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
        return fail_close(fd);
    }
    /* "[::]" means IPv6 alone: what is open is what is written. */
    if (sa.ss_family == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0) {
        return fail_close(fd);
    }
    if (bind(fd, (const struct sockaddr *)&sa, len) != 0 || listen(fd, BACKLOG) != 0) {
        return fail_close(fd);
    }
    *ret_fd = fd;
    return CS_OK;
}

/* A socket file that nobody listens on is left over from a crash; one that answers is somebody's.
 */
static enum cs_err remove_stale(const struct sockaddr_un *sun)
{
    struct stat st;
    if (lstat(sun->sun_path, &st) != 0) {
        return errno == ENOENT ? CS_OK : cs_err_from_errno(errno);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return CS_ERR_EXISTS;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    bool dead =
        connect(fd, (const struct sockaddr *)sun, sizeof *sun) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    if (!dead) {
        return CS_ERR_EXISTS;
    }
    return unlink(sun->sun_path) == 0 || errno == ENOENT ? CS_OK : cs_err_from_errno(errno);
}

enum cs_err cs_listen_unix(const char *path, unsigned mode, int *ret_fd)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof sun.sun_path) {
        return CS_ERR_INVALID;
    }
    memcpy(sun.sun_path, path, n + 1);
    enum cs_err err = remove_stale(&sun);
    if (err != CS_OK) {
        return err;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    /* SECURITY: nobody can connect before the mode is right: it is bound closed, opened last. */
    mode_t old = umask(0777);
    int rc = bind(fd, (const struct sockaddr *)&sun, sizeof sun);
    int kept = errno;
    (void)umask(old);
    errno = kept;
    if (rc != 0) {
        return fail_close(fd);
    }
    if (listen(fd, BACKLOG) != 0 || chmod(path, (mode_t)mode) != 0) {
        err = fail_close(fd);
        (void)unlink(path);
        return err;
    }
    *ret_fd = fd;
    return CS_OK;
}

/* ---- connections ---- */

/* Best effort: on an AF_UNIX socket these options do not exist. */
static void tune(int fd)
{
    int on = 1, idle_s = 60, interval_s = 15, count = 4;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

enum cs_err cs_accept(struct cs_fd *listener, int *ret_fd, struct sockaddr_storage *ret_peer)
{
    for (;;) {
        /* The kernel wakes one of the processes that wait. If that one dies or hangs before it
         * accepts, nobody else is woken: so everybody looks now and then. */
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, listener);
        if (cs_wait(&w, 1, cs_mono_ns() + ACCEPT_LOOK_NS) == CS_WOKE_CANCELLED) {
            return CS_ERR_CANCELLED;
        }
        if (listener->fd < 0) {
            return CS_ERR_EOF;
        }
        struct sockaddr_storage peer = {0};
        socklen_t len = sizeof peer;
        int fd =
            accept4(listener->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            if (peer.ss_family == AF_INET || peer.ss_family == AF_INET6) {
                tune(fd);
            }
            cs_addr_plain(&peer); /* a listener on [::] takes both families */
            *ret_fd = fd;
            if (ret_peer != NULL) {
                *ret_peer = peer;
            }
            return CS_OK;
        }
        switch (errno) {
        case EAGAIN:
            listener->readable = false;
            break;
        case EBADF:
        case EINVAL:
        case ENOTSOCK:
        case EOPNOTSUPP:
            return CS_ERR_INTERNAL;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            /* The caller would only try again at once: others may close something meanwhile. */
            if (!cs_co_sleep(ACCEPT_PAUSE_MS * CS_NS_PER_MS)) {
                return CS_ERR_CANCELLED;
            }
            break;
        default:
            break; /* an error of that one connection, which is gone */
        }
    }
}

static enum cs_err connect_error(int error_number)
{
    switch (error_number) {
    case ECONNREFUSED:
    case ECONNRESET:
    case ENOENT: /* of an AF_UNIX address */
        return CS_ERR_REFUSED;
    case ETIMEDOUT:
        return CS_ERR_TIMEOUT;
    case EMFILE:
    case ENFILE:
        return CS_ERR_LIMIT;
    case ENOMEM:
    case ENOBUFS:
        return CS_ERR_NO_MEMORY;
    default:
        return CS_ERR_UNREACHABLE;
    }
}

/* Waits for the outcome of a connect in progress. */
static enum cs_err connect_wait(struct cs_fd *f, uint64_t deadline_ns)
{
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_WRITE, f);
    f->writable = false;
    switch (cs_wait(&w, 1, deadline_ns)) {
    case CS_WOKE_READY:
        break;
    case CS_WOKE_DEADLINE:
        return CS_ERR_TIMEOUT;
    case CS_WOKE_CANCELLED:
    default:
        return CS_ERR_CANCELLED;
    }
    int error_number = 0;
    socklen_t len = sizeof error_number;
    if (getsockopt(f->fd, SOL_SOCKET, SO_ERROR, &error_number, &len) != 0) {
        return CS_ERR_IO;
    }
    return error_number == 0 ? CS_OK : connect_error(error_number);
}

enum cs_err cs_connect(const struct sockaddr *sa, socklen_t len, uint64_t deadline_ns, int *ret_fd)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return connect_error(errno);
    }
    if (sa->sa_family != AF_UNIX) {
        tune(fd);
    }
    if (connect(fd, sa, len) == 0) {
        *ret_fd = fd;
        return CS_OK;
    }
    if (errno != EINPROGRESS) {
        enum cs_err err = connect_error(errno);
        (void)close(fd);
        return err;
    }
    struct cs_fd f;
    enum cs_err err = cs_fd_open(cs_co_loop(), &f, fd);
    if (err != CS_OK) {
        return err;
    }
    err = connect_wait(&f, deadline_ns);
    if (err != CS_OK) {
        cs_fd_close(&f);
        return err;
    }
    *ret_fd = cs_fd_release(&f);
    return CS_OK;
}

enum cs_err cs_socketpair(int ret_fds[static 2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) == 0
               ? CS_OK
               : cs_err_from_errno(errno);
}

uint16_t cs_sock_port(int fd)
{
    struct sockaddr_storage sa = {0};
    socklen_t len = sizeof sa;
    if (getsockname(fd, (struct sockaddr *)&sa, &len) != 0) {
        return 0;
    }
    if (sa.ss_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, &sa, sizeof sin);
        return ntohs(sin.sin_port);
    }
    if (sa.ss_family == AF_INET6) {
        struct sockaddr_in6 sin6;
        memcpy(&sin6, &sa, sizeof sin6);
        return ntohs(sin6.sin6_port);
    }
    return 0;
}
