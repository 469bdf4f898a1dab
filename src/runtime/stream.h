/* A byte stream over a non-blocking socket, with buffers that are borrowed only while bytes are in
 * them (an idle stream owns none) and an optional filter (TLS, crypto/tls.h) that sits between the
 * socket and the buffers.
 *
 * Two layers: the first never waits and is what a relay uses; the second waits in a coroutine and
 * is for the straight-line start of a session. */
#ifndef CS_RUNTIME_STREAM_H
#define CS_RUNTIME_STREAM_H

#include "runtime/loop.h"

enum {
    CS_IOBUF = 64 * 1024,       /* bytes that one read takes in at most */
    CS_IOBUF_SLACK = 16 * 1024, /* extra room for messages of our own behind relayed ones */
};

struct cs_iobuf; /* CS_IOBUF + CS_IOBUF_SLACK bytes from the process's free list */
struct cs_stream;

enum cs_io {
    CS_IO_OK,    /* fill: bytes came in · flush: all is out */
    CS_IO_AGAIN, /* fill: nothing to read now · flush: the socket takes no more now */
    CS_IO_EOF,   /* fill: the peer has ended its side (TLS: only by close_notify or a bare FIN) */
    CS_IO_FULL,  /* fill: the buffer is full of unconsumed bytes */
    CS_IO_ERR,   /* broken; see cs_stream.err */
};

/* What TLS plugs in. All four never wait. */
struct cs_stream_filter {
    enum cs_io (*fill)(struct cs_stream *s);
    /* Takes plain bytes, all or none (as cs_stream_put promises), and makes them ready to leave. */
    enum cs_io (*put)(struct cs_stream *s, struct cs_slice bytes);
    /* Bytes that a put of `n` can grow to at most. */
    size_t (*grown)(size_t n);
    void (*close)(struct cs_stream *s);
};

struct cs_stream {
    struct cs_fd fd;
    const struct cs_stream_filter *filter; /* NULL = plain */
    void *filter_state;                    /* owned by the filter */
    struct cs_iobuf *in, *out;             /* borrowed while they hold bytes */
    uint32_t in_off, in_len;
    uint32_t out_off, out_len;
    bool eof;
    bool filter_pending; /* set by the filter: it can give bytes without reading the socket */
    enum cs_err err;
    uint64_t bytes_in, bytes_out; /* on the socket */
};

/* Takes over the descriptor (closes it on failure). The struct must not move while open. */
enum cs_err cs_stream_open(struct cs_loop *loop, struct cs_stream *s, int fd) CS_MUST_CHECK;
/* Sends nothing more (flush first), frees the buffers, closes. Twice is fine. */
void cs_stream_close(struct cs_stream *s);

/* ---- never waits ---- */
/* One read of the socket into the in buffer, behind what is there. */
enum cs_io cs_stream_fill(struct cs_stream *s);
/* The unconsumed bytes, borrowed until the next call on the stream. */
struct cs_slice cs_stream_peek(const struct cs_stream *s);
/* n ≤ what peek shows. An emptied buffer goes back. */
void cs_stream_consume(struct cs_stream *s, size_t n);
/* The same, and the bytes are wiped first: a secret was among them. */
void cs_stream_wipe(struct cs_stream *s, size_t n);
/* Gives the pages of the in buffer that hold nothing back to the kernel: called where unconsumed
 * bytes will lie there for long. They stay where they are. */
void cs_stream_trim(struct cs_stream *s);
/* Sends bytes: directly when nothing is queued, and queues what the socket does not take. All or
 * nothing is promised up to cs_stream_room(); CS_ERR_LIMIT (and nothing sent) beyond it. An error
 * of the socket is sticky and returned. */
enum cs_err cs_stream_put(struct cs_stream *s, struct cs_slice bytes) CS_MUST_CHECK;
/* As put, but only queued: several small messages leave in one system call at the next flush. */
enum cs_err cs_stream_queue(struct cs_stream *s, struct cs_slice bytes) CS_MUST_CHECK;
size_t cs_stream_room(const struct cs_stream *s);
/* Bytes queued that have not left. */
size_t cs_stream_queued(const struct cs_stream *s);
enum cs_io cs_stream_flush(struct cs_stream *s);
/* A wait item for "there is something to read" (also ready while the filter holds bytes that it can
 * decrypt, at the end and after an error) / "the queue can move". Unconsumed bytes alone do not
 * make it ready. Do not wait to read with a full buffer or after the end, nor to write with an
 * empty queue: those are ready always. */
struct cs_wait cs_stream_wait_read(struct cs_stream *s);
struct cs_wait cs_stream_wait_write(struct cs_stream *s);

/* ---- waits, in a coroutine ---- */
/* Until at least n unconsumed bytes are there (n ≤ CS_IOBUF). CS_ERR_EOF, TIMEOUT, CANCELLED, IO.
 */
enum cs_err cs_stream_need(struct cs_stream *s, size_t n, uint64_t deadline_ns) CS_MUST_CHECK;
/* Until everything queued has left. */
enum cs_err cs_stream_drain(struct cs_stream *s, uint64_t deadline_ns) CS_MUST_CHECK;
/* put of any size, waiting as needed. */
enum cs_err cs_stream_write(struct cs_stream *s, struct cs_slice bytes,
                            uint64_t deadline_ns) CS_MUST_CHECK;

#endif
