/* What a stream filter (TLS) sees of the stream below it, and the free list of buffers. Only
 * filters and folders that move raw bytes include this; protocol code uses stream.h.
 *
 * Who holds what: plain bytes go into s->in, ciphertext that waits for the socket into s->out, both
 * through the functions below. The filter keeps ciphertext that it has read and not yet decrypted
 * in a buffer of its own, taken from the same free list and given back as soon as it is empty (an
 * idle session owns no buffer).
 *
 *   fill:  decrypt what is held; if that gave nothing, ONE cs_stream_raw_recv, decrypt; put the
 * plain bytes at cs_stream_in_room() and say cs_stream_in_add(). OK when something was added. Set
 *          s->filter_pending to whether another fill could give bytes without reading the socket.
 *   put:   encrypt into cs_stream_raw_queue(); the stream itself then flushes.
 *   close: frees filter_state. What it queues (close_notify) leaves if nothing else was queued. */
#ifndef CS_RUNTIME_STREAM_FILTER_H
#define CS_RUNTIME_STREAM_FILTER_H

#include "runtime/stream.h"

enum { CS_IOBUF_SIZE = CS_IOBUF + CS_IOBUF_SLACK };
struct cs_iobuf {
    uint8_t bytes[CS_IOBUF_SIZE];
};

/* NULL when memory is out. The content is what was there before. */
struct cs_iobuf *cs_iobuf_take(void);
/* NULL is fine. */
void cs_iobuf_give(struct cs_iobuf *b);
/* Frees the free list (tests that count allocations). */
void cs_iobuf_trim(void);

/* ---- the socket below the filter; none of these waits ---- */
/* At most one recv of up to n (≥ 1) bytes: OK (ret_n ≥ 1), AGAIN (also without a system call when
 * nothing can be there), EOF, ERR (s->err is set). It does not set s->eof: the filter decides. */
enum cs_io cs_stream_raw_recv(struct cs_stream *s, void *into, size_t n, size_t *ret_n);
/* Queues bytes as they are for the socket, all or none; sends nothing. CS_ERR_LIMIT beyond
 * raw_room, CS_ERR_NO_MEMORY. */
enum cs_err cs_stream_raw_queue(struct cs_stream *s, struct cs_slice bytes) CS_MUST_CHECK;
/* Bytes that raw_queue still takes. */
size_t cs_stream_raw_room(const struct cs_stream *s);
/* Sends what is queued: OK all is out, AGAIN, ERR. */
enum cs_io cs_stream_raw_flush(struct cs_stream *s);

/* ---- plain bytes for the reader ---- */
/* Where plain bytes go, *ret_n of them at most; NULL and 0 when the buffer is full (CS_IO_FULL) or
 * memory is out (then s->err is set). Borrows the in buffer: say cs_stream_in_add() afterwards,
 * also with 0, so that an empty one goes back. */
uint8_t *cs_stream_in_room(struct cs_stream *s, size_t *ret_n);
void cs_stream_in_add(struct cs_stream *s, size_t n);

#endif
