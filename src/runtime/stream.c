/* Streams: the one place that receives from and sends to the sockets of sessions. On the way of a
 * relayed message nothing allocates, and no system call is made that could only say EAGAIN: a read
 * that came back short has emptied the socket. */
#include "base/assert.h"
#include "base/secret.h"
#include "runtime/stream_filter.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* For "ready now" where the filter holds bytes; nobody ever hangs in its list. */
static struct cs_event always = {true, NULL};

enum cs_err cs_stream_open(struct cs_loop *loop, struct cs_stream *s, int fd)
{
    *s = (struct cs_stream){.fd = {.fd = -1}};
    return cs_fd_open(loop, &s->fd, fd);
}

static void in_give(struct cs_stream *s)
{
    cs_iobuf_give(s->in);
    s->in = NULL;
    s->in_off = s->in_len = 0;
}

static void out_give(struct cs_stream *s)
{
    cs_iobuf_give(s->out);
    s->out = NULL;
    s->out_off = s->out_len = 0;
}

void cs_stream_close(struct cs_stream *s)
{
    if (s->filter != NULL) {
        bool idle = s->out_len == 0 && s->err == CS_OK && s->fd.fd >= 0;
        s->filter->close(s);
        s->filter = NULL;
        s->filter_state = NULL;
        s->filter_pending = false;
        if (idle) {
            (void)cs_stream_raw_flush(s);
        }
    }
    in_give(s);
    out_give(s);
    cs_fd_close(&s->fd);
}

static enum cs_io broken(struct cs_stream *s, enum cs_err err)
{
    if (s->err == CS_OK) {
        s->err = err;
    }
    return CS_IO_ERR;
}

/* ---- receiving ---- */

enum cs_io cs_stream_raw_recv(struct cs_stream *s, void *into, size_t n, size_t *ret_n)
{
    cs_assert(n > 0);
    if (s->err != CS_OK || s->fd.fd < 0) {
        return broken(s, CS_ERR_IO);
    }
    if (!s->fd.readable) {
        return CS_IO_AGAIN;
    }
    ssize_t got;
    do {
        got = recv(s->fd.fd, into, n, 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        if (errno == EAGAIN) {
            s->fd.readable = false;
            return CS_IO_AGAIN;
        }
        return broken(s, cs_err_from_errno(errno));
    }
    if (got == 0) {
        return CS_IO_EOF;
    }
    /* A short read has emptied the socket, so the next arrival makes an edge. After the peer's FIN
     * there is none: then the end itself must still be read. */
    if ((size_t)got < n && !s->fd.hup) {
        s->fd.readable = false;
    }
    s->bytes_in += (uint64_t)got;
    *ret_n = (size_t)got;
    return CS_IO_OK;
}

uint8_t *cs_stream_in_room(struct cs_stream *s, size_t *ret_n)
{
    *ret_n = 0;
    if (s->in_len >= CS_IOBUF) {
        return NULL;
    }
    if (s->in == NULL) {
        s->in = cs_iobuf_take();
        if (s->in == NULL) {
            (void)broken(s, CS_ERR_NO_MEMORY);
            return NULL;
        }
        s->in_off = 0;
    }
    /* Moved down only when the slack behind is used up, so that this stays rare. */
    size_t want = CS_IOBUF - s->in_len;
    if (CS_IOBUF_SIZE - s->in_off - s->in_len < want) {
        memmove(s->in->bytes, s->in->bytes + s->in_off, s->in_len);
        s->in_off = 0;
    }
    *ret_n = want;
    return s->in->bytes + s->in_off + s->in_len;
}

void cs_stream_in_add(struct cs_stream *s, size_t n)
{
    cs_assert(n <= CS_IOBUF - s->in_len);
    s->in_len += (uint32_t)n;
    if (s->in_len == 0) {
        in_give(s);
    }
}

static enum cs_io plain_fill(struct cs_stream *s)
{
    if (!s->fd.readable && s->err == CS_OK) {
        return CS_IO_AGAIN; /* before a buffer is borrowed for nothing */
    }
    size_t room, n = 0;
    uint8_t *p = cs_stream_in_room(s, &room);
    if (p == NULL) {
        return s->err != CS_OK ? CS_IO_ERR : CS_IO_FULL;
    }
    enum cs_io io = cs_stream_raw_recv(s, p, room, &n);
    cs_stream_in_add(s, n);
    return io;
}

enum cs_io cs_stream_fill(struct cs_stream *s)
{
    if (s->eof) {
        return CS_IO_EOF;
    }
    if (s->fd.fd < 0) {
        return broken(s, CS_ERR_IO);
    }
    enum cs_io io = s->filter != NULL ? s->filter->fill(s) : plain_fill(s);
    if (io == CS_IO_EOF) {
        s->eof = true;
    }
    return io;
}

struct cs_slice cs_stream_peek(const struct cs_stream *s)
{
    return s->in == NULL ? CS_SLICE_NULL : cs_slice(s->in->bytes + s->in_off, s->in_len);
}

void cs_stream_consume(struct cs_stream *s, size_t n)
{
    cs_assert(n <= s->in_len);
    s->in_off += (uint32_t)n;
    s->in_len -= (uint32_t)n;
    if (s->in_len == 0) {
        in_give(s);
    }
}

void cs_stream_wipe(struct cs_stream *s, size_t n)
{
    cs_assert(n <= s->in_len);
    if (n > 0) {
        cs_wipe(s->in->bytes + s->in_off, n);
        cs_stream_consume(s, n);
    }
}

static void give_pages(uint8_t *from, const uint8_t *to)
{
    const uintptr_t page = 4096;
    uintptr_t first = ((uintptr_t)from + page - 1) & ~(page - 1), end = (uintptr_t)to & ~(page - 1);
    if (first < end) {
        (void)madvise(from + (first - (uintptr_t)from), end - first, MADV_DONTNEED);
    }
}

void cs_stream_trim(struct cs_stream *s)
{
    if (s->in != NULL) {
        uint8_t *b = s->in->bytes;
        give_pages(b, b + s->in_off);
        give_pages(b + s->in_off + s->in_len, b + CS_IOBUF_SIZE);
    }
}

/* ---- sending ---- */

size_t cs_stream_raw_room(const struct cs_stream *s)
{
    return (size_t)CS_IOBUF_SIZE - s->out_len;
}

size_t cs_stream_room(const struct cs_stream *s)
{
    size_t raw = cs_stream_raw_room(s);
    if (s->filter == NULL) {
        return raw;
    }
    size_t over = s->filter->grown(raw) - raw;
    return raw > over ? raw - over : 0;
}

size_t cs_stream_queued(const struct cs_stream *s)
{
    return s->out_len;
}

enum cs_err cs_stream_raw_queue(struct cs_stream *s, struct cs_slice bytes)
{
    if (bytes.n > cs_stream_raw_room(s)) {
        return CS_ERR_LIMIT;
    }
    if (bytes.n == 0) {
        return CS_OK;
    }
    if (s->out == NULL) {
        s->out = cs_iobuf_take();
        if (s->out == NULL) {
            return CS_ERR_NO_MEMORY;
        }
        s->out_off = 0;
    }
    if (bytes.n > (size_t)CS_IOBUF_SIZE - s->out_off - s->out_len) {
        memmove(s->out->bytes, s->out->bytes + s->out_off, s->out_len);
        s->out_off = 0;
    }
    memcpy(s->out->bytes + s->out_off + s->out_len, bytes.p, bytes.n);
    s->out_len += (uint32_t)bytes.n;
    return CS_OK;
}

/* One system call for what is queued and, behind it, `bytes`. Says how many left; 0 also when the
 * socket takes nothing. */
static enum cs_io send_some(struct cs_stream *s, struct cs_slice bytes, size_t *ret_n)
{
    struct iovec iov[2];
    size_t n = 0, all = s->out_len + bytes.n;
    *ret_n = 0;
    if (s->out_len > 0) {
        iov[n++] = (struct iovec){s->out->bytes + s->out_off, s->out_len};
    }
    if (bytes.n > 0) {
        union {
            const void *in;
            void *out; /* the kernel only reads through it */
        } p = {bytes.p};
        iov[n++] = (struct iovec){p.out, bytes.n};
    }
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    ssize_t sent;
    do {
        /* One piece is the rule in a relay. Not send: its flags are looked at in the sandbox
         * (MSG_FASTOPEN), and the kernel has that filter run each time; SIGPIPE is ignored
         * (cs_loop_new). */
        sent = n == 1 ? write(s->fd.fd, iov[0].iov_base, iov[0].iov_len)
                      : sendmsg(s->fd.fd, &msg, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN) {
        return broken(s, cs_err_from_errno(errno));
    }
    size_t left = sent > 0 ? (size_t)sent : 0;
    s->bytes_out += left;
    if (left < all) {
        s->fd.writable = false;
    }
    *ret_n = left;
    return CS_IO_OK;
}

/* Forgets n sent bytes of the queue. */
static void out_drop(struct cs_stream *s, size_t n)
{
    s->out_off += (uint32_t)n;
    s->out_len -= (uint32_t)n;
    if (s->out_len == 0) {
        out_give(s);
    }
}

enum cs_io cs_stream_raw_flush(struct cs_stream *s)
{
    if (s->err != CS_OK) {
        return CS_IO_ERR;
    }
    if (s->out_len == 0) {
        return CS_IO_OK;
    }
    if (s->fd.fd < 0) {
        return broken(s, CS_ERR_IO);
    }
    if (!s->fd.writable) {
        return CS_IO_AGAIN;
    }
    size_t n;
    enum cs_io io = send_some(s, CS_SLICE_NULL, &n);
    if (io != CS_IO_OK) {
        return io;
    }
    out_drop(s, n);
    return s->out_len == 0 ? CS_IO_OK : CS_IO_AGAIN;
}

enum cs_io cs_stream_flush(struct cs_stream *s)
{
    return cs_stream_raw_flush(s);
}

static enum cs_err plain_put(struct cs_stream *s, struct cs_slice bytes)
{
    size_t n = 0;
    if (s->fd.writable) {
        if (send_some(s, bytes, &n) != CS_IO_OK) {
            return s->err;
        }
    }
    size_t queued = CS_MIN(n, s->out_len);
    if (queued > 0) {
        out_drop(s, queued);
        n -= queued;
    }
    enum cs_err err = cs_stream_raw_queue(s, cs_slice(bytes.p + n, bytes.n - n));
    if (err != CS_OK) {
        (void)broken(s, err); /* part of it may have left: this stream is over */
    }
    return err;
}

enum cs_err cs_stream_queue(struct cs_stream *s, struct cs_slice bytes)
{
    if (s->err != CS_OK || s->fd.fd < 0) {
        (void)broken(s, CS_ERR_IO);
        return s->err;
    }
    if (bytes.n > cs_stream_room(s)) {
        return CS_ERR_LIMIT;
    }
    if (bytes.n == 0) {
        return CS_OK;
    }
    if (s->filter == NULL) {
        return cs_stream_raw_queue(s, bytes);
    }
    if (s->filter->put(s, bytes) != CS_IO_OK) {
        (void)broken(s, CS_ERR_TLS);
        return s->err;
    }
    return CS_OK;
}

enum cs_err cs_stream_put(struct cs_stream *s, struct cs_slice bytes)
{
    if (s->filter == NULL && s->err == CS_OK && s->fd.fd >= 0) {
        if (bytes.n > cs_stream_room(s)) {
            return CS_ERR_LIMIT;
        }
        return bytes.n == 0 ? CS_OK : plain_put(s, bytes);
    }
    enum cs_err err = cs_stream_queue(s, bytes);
    if (err == CS_OK && cs_stream_raw_flush(s) == CS_IO_ERR) {
        err = s->err;
    }
    return err;
}

/* ---- waiting ---- */

struct cs_wait cs_stream_wait_read(struct cs_stream *s)
{
    if (s->filter_pending || s->eof || s->err != CS_OK) {
        return CS_WAIT_ON(CS_WAIT_EVENT, &always);
    }
    return CS_WAIT_ON(CS_WAIT_READ, &s->fd);
}

struct cs_wait cs_stream_wait_write(struct cs_stream *s)
{
    return CS_WAIT_ON(CS_WAIT_WRITE, &s->fd);
}

static enum cs_err woke_err(enum cs_woke woke)
{
    switch (woke) {
    case CS_WOKE_READY:
        return CS_OK;
    case CS_WOKE_DEADLINE:
        return CS_ERR_TIMEOUT;
    case CS_WOKE_CANCELLED:
    default:
        return CS_ERR_CANCELLED;
    }
}

enum cs_err cs_stream_need(struct cs_stream *s, size_t n, uint64_t deadline_ns)
{
    cs_assert(n <= CS_IOBUF);
    while (s->in_len < n) {
        struct cs_wait w;
        enum cs_err err;
        switch (cs_stream_fill(s)) {
        case CS_IO_OK:
            break;
        case CS_IO_AGAIN:
            w = cs_stream_wait_read(s);
            err = woke_err(cs_wait(&w, 1, deadline_ns));
            if (err != CS_OK) {
                return err;
            }
            break;
        case CS_IO_EOF:
            return CS_ERR_EOF;
        case CS_IO_FULL:
        case CS_IO_ERR:
        default:
            return s->err != CS_OK ? s->err : CS_ERR_INTERNAL;
        }
    }
    return CS_OK;
}

/* Until the queue has left, or at least moved. */
static enum cs_err flush_wait(struct cs_stream *s, bool all, uint64_t deadline_ns)
{
    size_t before = s->out_len;
    for (;;) {
        enum cs_io io = cs_stream_raw_flush(s);
        if (io == CS_IO_ERR) {
            return s->err;
        }
        if (io == CS_IO_OK || (!all && s->out_len < before)) {
            return CS_OK;
        }
        struct cs_wait w = cs_stream_wait_write(s);
        enum cs_err err = woke_err(cs_wait(&w, 1, deadline_ns));
        if (err != CS_OK) {
            return err;
        }
    }
}

enum cs_err cs_stream_drain(struct cs_stream *s, uint64_t deadline_ns)
{
    return flush_wait(s, true, deadline_ns);
}

enum cs_err cs_stream_write(struct cs_stream *s, struct cs_slice bytes, uint64_t deadline_ns)
{
    while (bytes.n > 0) {
        size_t n = CS_MIN(bytes.n, cs_stream_room(s));
        if (n == 0 || (n < bytes.n && n < CS_IOBUF / 4)) {
            enum cs_err err = flush_wait(s, false, deadline_ns);
            if (err != CS_OK) {
                return err;
            }
            continue;
        }
        enum cs_err err = cs_stream_put(s, cs_slice(bytes.p, n));
        if (err != CS_OK) {
            return err;
        }
        bytes = cs_slice(bytes.p + n, bytes.n - n);
    }
    return CS_OK;
}
