/* A channel: one socket to one other role, a coroutine that reads it and one that writes what the
 * socket did not take at once. The reader judges every message by the table before anybody sees it;
 * what the table does not permit ends the channel. Calls are in call.c. */
#include "base/alloc.h"
#include "base/assert.h"
#include "ipc/channel_internal.h"
#include "runtime/stream_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    QUEUE_MESSAGES = 1024,
    QUEUE_BYTES = 4 * 1024 * 1024,
    RECV_FDS = 16, /* more than any message has, so that a surplus is seen (and closed) */
};
_Static_assert((int)CS_LIMIT_IPC_BYTES < (int)CS_IOBUF_SIZE,
               "a buffer holds a message and one byte more");

/* ---- life ---- */

static void free_when_done(struct cs_channel *c)
{
    if (!c->closed || c->coroutines > 0) {
        return;
    }
    cs_assert(c->pending == NULL && c->out_first == NULL);
    cs_free(c);
}

static void out_free(struct cs_out_msg *m)
{
    for (unsigned i = 0; i < m->n_fds; i++) {
        (void)close(m->fd[i]);
    }
    cs_free(m);
}

static void out_pop(struct cs_channel *c)
{
    struct cs_out_msg *m = c->out_first;
    c->out_first = m->next;
    if (c->out_first == NULL) {
        c->out_last = &c->out_first;
        cs_event_clear(&c->out_waiting);
    }
    c->out_n--;
    c->out_bytes -= m->n;
    out_free(m);
}

/* From here on nothing is sent or received; who waits for an answer hears it now. */
static void die(struct cs_channel *c)
{
    if (c->dead) {
        return;
    }
    c->dead = true;
    while (c->out_first != NULL) {
        out_pop(c);
    }
    while (c->pending != NULL) {
        struct cs_pending *p = c->pending;
        c->pending = p->next;
        p->at = NULL;
        p->err = CS_ERR_UNAVAILABLE;
        cs_event_set(&p->done);
    }
    cs_fd_close(&c->fd);
    cs_co_cancel(c->loop, c->writer);
}

int cs_channel_fd(const struct cs_channel *c)
{
    if (c->dead || c->out_first != NULL) {
        return -1;
    }
    return c->fd.fd;
}

void cs_channel_close(struct cs_channel *c)
{
    if (c == NULL) {
        return;
    }
    cs_assert(!c->closed);
    c->closed = true;
    die(c);
    cs_co_cancel(c->loop, c->reader);
    free_when_done(c);
}

bool cs_channel_alive(const struct cs_channel *c)
{
    return !c->dead;
}

const char *cs_channel_broken_why(const struct cs_channel *c)
{
    return c->why;
}

enum cs_role cs_channel_peer(const struct cs_channel *c)
{
    return c->peer;
}

uint64_t cs_channel_peer_index(const struct cs_channel *c)
{
    return c->peer_index;
}

void *cs_channel_arg(const struct cs_channel *c)
{
    return c->arg;
}

void cs_channel_run_phase(struct cs_channel *c)
{
    c->run = true;
}

/* ---- receiving ---- */

struct received {
    ssize_t n;
    int flags;
    int fd[RECV_FDS]; /* owned */
    unsigned n_fds;
};

static void close_fds(int *fd, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (fd[i] >= 0) {
            (void)close(fd[i]);
            fd[i] = -1;
        }
    }
}

void cs_channel_in_close(const struct cs_channel_in *in)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
        if (in->fd[i] >= 0) {
            (void)close(in->fd[i]);
        }
    }
}

static void receive(struct cs_channel *c, struct cs_iobuf *buf, struct received *ret)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * RECV_FDS)];
        struct cmsghdr align;
    } control;
    struct iovec iov = {buf->bytes, (size_t)CS_LIMIT_IPC_BYTES + 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    do {
        ret->n = recvmsg(c->fd.fd, &msg, MSG_CMSG_CLOEXEC);
    } while (ret->n < 0 && errno == EINTR);
    ret->n_fds = 0;
    ret->flags = msg.msg_flags;
    if (ret->n < 0) {
        return;
    }
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h != NULL; h = CMSG_NXTHDR(&msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n && ret->n_fds < RECV_FDS; i++) {
            memcpy(&ret->fd[ret->n_fds++], CMSG_DATA(h) + i * sizeof(int), sizeof(int));
        }
    }
}

/* An answer: to the call that waits for it, or, late, to nobody. Takes over the descriptors. */
static void deliver_answer(struct cs_channel *c, struct cs_slice bytes, uint32_t corr,
                           struct received *in)
{
    struct cs_pending *p = c->pending;
    while (p != NULL && p->corr != corr) {
        p = p->next;
    }
    if (p == NULL) {
        close_fds(in->fd, in->n_fds);
        return;
    }
    *p->at = p->next;
    if (p->next != NULL) {
        p->next->at = p->at;
    }
    p->at = NULL;
    struct cs_call *call = p->call;
    call->bytes = cs_alloc(bytes.n);
    if (call->bytes == NULL) {
        close_fds(in->fd, in->n_fds);
        p->err = CS_ERR_NO_MEMORY;
    } else {
        memcpy(call->bytes, bytes.p, bytes.n);
        for (unsigned i = 0; i < in->n_fds; i++) {
            call->fd[i] = in->fd[i];
        }
        p->err = CS_OK;
        bool ok = cs_msg_decode(cs_slice(call->bytes, bytes.n), &call->type, &corr, call->msg.raw,
                                sizeof call->msg.raw);
        cs_assert(ok); /* decoded once already */
    }
    cs_event_set(&p->done);
}

/* NULL when the message was in order and has been handed over, else what was wrong. Takes over the
 * descriptors. */
static const char *judge(struct cs_channel *c, struct cs_slice bytes, struct received *in)
{
    union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        uint64_t align;
    } msg;
    enum cs_msg_type type;
    uint32_t corr;
    bool answer;
    const char *why = NULL;
    if ((in->flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        why = "message or descriptors cut off";
    } else if (!cs_msg_decode_flags(bytes, &type, &corr, &answer, msg.raw, sizeof msg.raw)) {
        why = "not a message of the table";
    } else if (!cs_msg_may_pass(cs_msg_row(type), c->peer, c->self, c->run)) {
        why = "message from the wrong side or in the wrong phase";
    } else if (in->n_fds != cs_msg_row(type)->fds) {
        why = "wrong number of descriptors";
    }
    if (why != NULL) {
        close_fds(in->fd, in->n_fds);
        return why;
    }
    if (answer) {
        deliver_answer(c, bytes, corr, in);
        return NULL;
    }
    struct cs_channel_in handed = {type, corr, msg.raw, {-1, -1, -1}};
    for (unsigned i = 0; i < in->n_fds; i++) {
        handed.fd[i] = in->fd[i];
    }
    c->on_message(c, &handed, c->arg);
    return NULL;
}

/* Everything that is there now; false when the peer is gone or broke the table. */
static bool read_all(struct cs_channel *c, struct cs_iobuf *buf)
{
    while (!c->dead && c->fd.readable) {
        struct received in;
        receive(c, buf, &in);
        if (in.n < 0 && errno == EAGAIN) {
            c->fd.readable = false;
            return true;
        }
        if (in.n <= 0) {
            close_fds(in.fd, in.n_fds);
            return false; /* no message is empty: this is the end */
        }
        c->why = judge(c, cs_slice(buf->bytes, (size_t)in.n), &in);
        if (c->why != NULL) {
            return false;
        }
        /* One wait per message (no system call while more is there) keeps a busy peer from
         * starving everybody else, and hears of a cancellation. */
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &c->fd);
        if (!c->dead && cs_wait(&w, 1, 0) == CS_WOKE_CANCELLED) {
            return true;
        }
    }
    return true;
}

static void reader(void *arg)
{
    struct cs_channel *c = arg;
    bool gone = false;
    while (!c->dead && !gone) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &c->fd);
        if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
            break; /* the loop stops, or the channel was closed */
        }
        struct cs_iobuf *buf = cs_iobuf_take();
        if (buf == NULL) {
            if (!cs_co_sleep(10 * CS_NS_PER_MS)) {
                break;
            }
            continue;
        }
        gone = !c->dead && !read_all(c, buf);
        cs_iobuf_give(buf);
    }
    if (gone && !c->dead) {
        die(c);
        c->on_gone(c, c->arg);
    }
    c->coroutines--;
    free_when_done(c);
}

/* ---- sending ---- */

/* CS_OK: sent. CS_ERR_LIMIT: not now. */
static enum cs_err send_now(struct cs_channel *c, const uint8_t *bytes, size_t n, const int *fds,
                            size_t n_fds)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * CS_MSG_FDS)];
        struct cmsghdr align;
    } control = {{0}};
    union {
        const void *in;
        void *out; /* the kernel only reads through it */
    } p = {bytes};
    struct iovec iov = {p.out, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        cs_assert(h != NULL && n_fds <= CS_MSG_FDS);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(h), fds, sizeof(int) * n_fds);
    }
    ssize_t sent;
    do {
        sent = sendmsg(c->fd.fd, &msg, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
        return CS_OK;
    }
    /* ETOOMANYREFS: too many descriptors in flight; it passes as the peer reads. */
    if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS) {
        c->fd.writable = errno != EAGAIN && c->fd.writable;
        return CS_ERR_LIMIT;
    }
    return CS_ERR_UNAVAILABLE;
}

static enum cs_err queue(struct cs_channel *c, const uint8_t *bytes, size_t n, const int *fds,
                         size_t n_fds)
{
    if (c->out_n >= QUEUE_MESSAGES || n > (size_t)QUEUE_BYTES - c->out_bytes) {
        return CS_ERR_UNAVAILABLE;
    }
    struct cs_out_msg *m = cs_alloc(sizeof *m + n);
    if (m == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    memcpy(m->bytes, bytes, n);
    m->n = n;
    for (size_t i = 0; i < n_fds; i++) {
        int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (fd < 0) {
            out_free(m);
            return CS_ERR_LIMIT;
        }
        m->fd[m->n_fds++] = fd;
    }
    *c->out_last = m;
    c->out_last = &m->next;
    c->out_n++;
    c->out_bytes += n;
    cs_event_set(&c->out_waiting);
    return CS_OK;
}

static enum cs_err encode_and_send(struct cs_channel *c, enum cs_msg_type t, uint32_t corr,
                                   bool answer, const void *msg, const int *fds, size_t n_fds)
{
    struct cs_iobuf *buf = cs_iobuf_take();
    if (buf == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err err = CS_ERR_TOO_LARGE;
    size_t n = cs_msg_encode(t, corr, msg, buf->bytes, sizeof buf->bytes);
    if (n > 0) {
        if (answer) {
            cs_msg_set_answer(buf->bytes);
        }
        err = c->out_first == NULL ? send_now(c, buf->bytes, n, fds, n_fds) : CS_ERR_LIMIT;
        if (err == CS_ERR_LIMIT) {
            err = queue(c, buf->bytes, n, fds, n_fds);
        }
    }
    cs_iobuf_give(buf);
    return err;
}

enum cs_err cs_channel_send_as(struct cs_channel *c, enum cs_msg_type t, uint32_t corr, bool answer,
                               const void *msg, const int *fds, size_t n_fds)
{
    const struct cs_msg_row *row = cs_msg_row(t);
    cs_assert(row != NULL && n_fds == row->fds);
    cs_assert(cs_msg_may_pass(row, c->self, c->peer, c->run) ||
              cs_msg_may_pass(row, c->self, c->peer, !c->run));
    if (c->dead || !cs_msg_may_pass(row, c->self, c->peer, c->run)) {
        return CS_ERR_UNAVAILABLE;
    }
    return encode_and_send(c, t, corr, answer, msg, fds, n_fds);
}

enum cs_err cs_channel_send(struct cs_channel *c, enum cs_msg_type t, uint32_t corr,
                            const void *msg, const int *fds, size_t n_fds)
{
    return cs_channel_send_as(c, t, corr, corr != 0, msg, fds, n_fds);
}

static void writer(void *arg)
{
    struct cs_channel *c = arg;
    while (!c->dead) {
        bool any = c->out_first != NULL;
        struct cs_wait w =
            any ? CS_WAIT_ON(CS_WAIT_WRITE, &c->fd) : CS_WAIT_ON(CS_WAIT_EVENT, &c->out_waiting);
        if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
            break;
        }
        struct cs_out_msg *m = c->out_first;
        if (!any || c->dead || m == NULL) {
            continue;
        }
        enum cs_err err = send_now(c, m->bytes, m->n, m->fd, m->n_fds);
        if (err == CS_OK) {
            out_pop(c);
        } else if (err == CS_ERR_LIMIT && c->fd.writable) {
            if (!cs_co_sleep(10 * CS_NS_PER_MS)) {
                break;
            }
        } else if (err != CS_ERR_LIMIT) {
            break; /* the reader hears of the end */
        }
    }
    c->coroutines--;
    free_when_done(c);
}

enum cs_err cs_channel_open(struct cs_loop *loop, int fd, enum cs_role self, enum cs_role peer,
                            uint64_t peer_index, cs_channel_fn on_message,
                            cs_channel_gone_fn on_gone, void *arg, struct cs_channel **ret)
{
    struct cs_channel *c = cs_alloc(sizeof *c);
    if (c == NULL) {
        (void)close(fd);
        return CS_ERR_NO_MEMORY;
    }
    *c = (struct cs_channel){.loop = loop,
                             .self = self,
                             .peer = peer,
                             .peer_index = peer_index,
                             .on_message = on_message,
                             .on_gone = on_gone,
                             .arg = arg,
                             .out_last = &c->out_first};
    enum cs_err err = cs_fd_open(loop, &c->fd, fd);
    if (err != CS_OK) {
        cs_free(c);
        return err;
    }
    err = cs_co_spawn(loop, "channel-read", reader, c, &c->reader);
    if (err != CS_OK) {
        cs_fd_close(&c->fd);
        cs_free(c);
        return err;
    }
    c->coroutines = 1;
    err = cs_co_spawn(loop, "channel-write", writer, c, &c->writer);
    if (err != CS_OK) {
        cs_channel_close(c); /* freed when the reader has ended */
        return err;
    }
    c->coroutines = 2;
    *ret = c;
    return CS_OK;
}
