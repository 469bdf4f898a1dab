/* Runs one job (job.h): the configuration compiler, the replayer, the parser. Called by the
 * supervisor in coroutines of their own. A job never outlives its call, whatever it does. */
#include "roles/job.h"

#include "base/log.h"
#include "base/reader.h"
#include "runtime/process.h"
#include "runtime/sock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS_MAX = 4, REAP_POLL_MS = 100, JOB_REPLY_MAX = 64 * 1024 };

/* The descriptors of a message; all but a single one are closed and refused. */
static bool only_fd(struct msghdr *m, int *ret_fd)
{
    int fd[FDS_MAX];
    size_t n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            n = CS_MIN((c->cmsg_len - CMSG_LEN(0)) / sizeof(int), (size_t)FDS_MAX);
            memcpy(fd, CMSG_DATA(c), n * sizeof(int));
        }
    }
    for (size_t i = 0; n > 1 && i < n; i++) {
        (void)close(fd[i]);
    }
    *ret_fd = n == 1 ? fd[0] : -1;
    return n <= 1 && (m->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
}

static enum cs_err receive(int socket, struct cs_buf *ret_message, int *ret_fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int) * FDS_MAX)];
        struct cmsghdr align;
    } control;
    uint8_t *room = cs_buf_room(ret_message, ret_message->max - ret_message->len);
    if (room == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct iovec piece = {room, ret_message->max - ret_message->len};
    struct msghdr m = {.msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    ssize_t n = 0;
    do {
        n = recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        return CS_ERR_UNAVAILABLE;
    }
    if (!only_fd(&m, ret_fd)) {
        if (*ret_fd >= 0) {
            (void)close(*ret_fd);
            *ret_fd = -1;
        }
        return CS_ERR_PROTOCOL;
    }
    ret_message->len += (size_t)n;
    return CS_OK;
}

static enum cs_err wait_until(struct cs_fd *f, const struct cs_job *job, uint64_t deadline_ns)
{
    struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_READ, f), CS_WAIT_ON(CS_WAIT_EVENT, job->stop)};
    enum cs_woke woke = cs_wait(w, job->stop != NULL ? 2 : 1, deadline_ns);
    if (woke == CS_WOKE_READY) {
        return w[0].ready ? CS_OK : CS_ERR_CANCELLED;
    }
    return woke == CS_WOKE_DEADLINE ? CS_ERR_TIMEOUT : CS_ERR_CANCELLED;
}

static bool asks(struct cs_slice message)
{
    struct cs_reader r = cs_reader(message);
    return cs_reader_u64le(&r) == CS_JOB_ASKS && !r.bad;
}

static bool tell(int socket, struct cs_slice bytes, int fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    union { /* sendmsg writes nothing there */
        const uint8_t *in;
        void *out;
    } p = {bytes.p};
    struct iovec piece = {p.out, bytes.n};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = control.room;
        m.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(socket, &m, MSG_NOSIGNAL) == (ssize_t)bytes.n;
}

/* Its answer, after at most one question. */
static enum cs_err converse(struct cs_fd *f, const struct cs_job *job, struct cs_buf *ret_message,
                            int *ret_fd)
{
    const struct cs_job_ask *ask = job->ask;
    for (bool first = true;; first = false) {
        enum cs_err err = wait_until(f, job, job->deadline_ns);
        if (err == CS_OK) {
            err = receive(f->fd, ret_message, ret_fd);
        }
        if (err != CS_OK || !asks(cs_buf_slice(ret_message))) {
            return err;
        }
        struct cs_buf reply = cs_buf(JOB_REPLY_MAX);
        int give = -1;
        f->readable = false; /* before the reply: what comes then is a new edge */
        err = ask != NULL && first && *ret_fd < 0
                  ? ask->fn(ask->arg, f, cs_buf_slice(ret_message), &reply, &give)
                  : CS_ERR_PROTOCOL;
        if (err == CS_OK && (reply.bad || !tell(f->fd, cs_buf_slice(&reply), give))) {
            err = CS_ERR_UNAVAILABLE;
        }
        cs_buf_done(&reply);
        if (err != CS_OK) {
            return err;
        }
        ret_message->len = 0;
    }
}

/* Waits for its end, and brings it about when the time is up. */
static void finish(pid_t pid, struct cs_fd *pidfd, const struct cs_job *job, uint64_t deadline_ns,
                   bool quietly)
{
    char why[CS_WHY];
    bool clean = false;
    if (wait_until(pidfd, job, deadline_ns) != CS_OK) {
        (void)kill(pid, SIGKILL);
    }
    while (!cs_process_reap(pid, why, sizeof why, &clean)) {
        struct pollfd p = {pidfd->fd, POLLIN, 0};
        (void)poll(&p, 1, REAP_POLL_MS); /* it is dying: moments */
    }
    if (!clean && !quietly) {
        cs_log(CS_EV_ROLE_DIED, NULL, "job=%s why=\"%s\"", job->argv[0], why);
    }
}

enum cs_err cs_job_run(struct cs_loop *loop, const struct cs_job *job, struct cs_buf *ret_message,
                       int *ret_fd)
{
    int pair[2];
    pid_t pid = 0;
    struct cs_fd answer, pidfd;
    int fd = -1;
    enum cs_err err = cs_socketpair(pair);
    if (err != CS_OK) {
        return err;
    }
    const struct cs_process what = {job->path, job->program, job->argv, &pair[1], 1, job->uid};
    err = cs_process_begin(&what, &pid);
    (void)close(pair[1]);
    if (err != CS_OK) {
        (void)close(pair[0]);
        return err;
    }
    err = cs_process_watch(loop, pid, &pidfd);
    if (err != CS_OK) {
        (void)kill(pid, SIGKILL);
        (void)close(pair[0]);
        return err;
    }
    err = cs_fd_open(loop, &answer, pair[0]);
    if (err == CS_OK) {
        err = converse(&answer, job, ret_message, &fd);
        cs_fd_close(&answer);
    }
    if (err != CS_OK) {
        (void)kill(pid, SIGKILL); /* nothing it could say now would be heard */
    }
    finish(pid, &pidfd, job, err == CS_OK ? job->deadline_ns : cs_mono_ns() + CS_NS_PER_S,
           err == CS_ERR_CANCELLED);
    cs_fd_close(&pidfd);
    if (err == CS_OK) {
        *ret_fd = fd;
    } else if (fd >= 0) {
        (void)close(fd);
    }
    return err;
}
