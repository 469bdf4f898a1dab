/* Scanning a recording without keys, and finding where it ends (csr_read.h). Called by recovery,
 * verification and the replayer. It must never read behind a frame it could not check, trust a
 * length before its limit, or call a changed file a torn one. */
#include "record/csr_read.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/attr.h"

#include <errno.h>
#include <unistd.h>

static size_t memory_read(void *arg, uint64_t at, void *into, size_t n)
{
    const struct cs_slice *s = arg;
    struct cs_slice left = at < s->n ? cs_slice_from(*s, (size_t)at) : CS_SLICE_NULL;
    n = CS_MIN(n, left.n);
    if (n > 0) {
        memcpy(into, left.p, n);
    }
    return n;
}

struct cs_csr_source cs_csr_memory(const struct cs_slice *s)
{
    return (struct cs_csr_source){(void *)(uintptr_t)s, s->n, memory_read};
}

static size_t descriptor_read(void *arg, uint64_t at, void *into, size_t n)
{
    const int *fd = arg;
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(*fd, (uint8_t *)into + done, n - done, (off_t)(at + done));
        if (got == 0 || (got < 0 && errno != EINTR)) {
            break;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return done;
}

struct cs_csr_source cs_csr_descriptor(const int *fd, uint64_t size)
{
    return (struct cs_csr_source){(void *)(uintptr_t)fd, size, descriptor_read};
}

/* ---- scanning ---- */

static bool read_head(struct cs_csr_source in, struct cs_csr_head *ret, uint8_t *room)
{
    size_t n = in.read_at(in.arg, 0, room, CS_CSR_HEAD_MAX);
    return cs_csr_head_read(cs_slice(room, n), ret);
}

enum cs_err cs_csr_scan_start(struct cs_csr_scanner *s, struct cs_csr_source in)
{
    *s = (struct cs_csr_scanner){.in = in};
    s->room = cs_alloc(CS_CSR_FRAME_MAX);
    if (s->room == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    if (!read_head(in, &s->head, s->room)) {
        cs_csr_scan_done(s);
        return CS_ERR_CORRUPT;
    }
    s->at = s->head.n;
    s->epoch = 1;
    memcpy(s->chain, s->head.chain, CS_SHA256);
    return CS_OK;
}

void cs_csr_scan_done(struct cs_csr_scanner *s)
{
    cs_free(s->room);
    s->room = NULL;
}

static enum cs_csr_scan bad(struct cs_csr_scanner *s, bool torn, const char *why)
{
    s->why = why;
    s->torn = torn;
    return CS_CSR_SCAN_BAD;
}

/* "" when the frame may stand here, else why not. What is looked at is in clear and chained. */
static const char *order_of(const struct cs_csr_scanner *s, const struct cs_csr_frame_head *h)
{
    bool recover = h->type == CS_CSR_RECOVER;
    if (s->ended) {
        return "a frame stands behind the END frame";
    }
    if (h->seq != s->seq + 1) {
        return "its number does not follow the one before: a frame is missing, twice or elsewhere";
    }
    if (h->epoch != s->epoch + recover || h->epoch < s->epoch) {
        return "its epoch is not the one that goes on";
    }
    if (h->t_first_ns < s->last_ns) {
        return "its time lies before the frame before it";
    }
    if (h->type == CS_CSR_DATA && (s->reset_at == 0 || h->reset_back != s->at - s->reset_at)) {
        return "it does not go on from the RESET frame before it";
    }
    return "";
}

static const char *index_check(struct cs_csr_scanner *s)
{
    struct cs_csr_index x;
    if (!cs_csr_index_read(s->payload, &x)) {
        return "the payload of its INDEX is malformed";
    }
    if (s->partial) {
        return "";
    }
    if (x.previous != s->last_index || x.n != s->since_index ||
        x.e[x.n - 1].offset != s->reset_at) {
        return "its INDEX is not that of the frames before it";
    }
    s->last_index = s->at;
    s->since_index = 0;
    return "";
}

static const char *end_check(struct cs_csr_scanner *s)
{
    struct cs_csr_ended *x = &s->end;
    if (!cs_csr_ended_read(s->payload, x)) {
        return "the payload of its END is malformed";
    }
    if (s->partial) {
        s->ended = true;
        return "";
    }
    if (x->frames != s->seq + 1 || x->events != s->events || x->plain_bytes != s->plain_bytes ||
        x->index != s->last_index || s->since_index != 0) {
        return "the totals of its END are not those of the frames before it";
    }
    s->ended = true;
    return "";
}

static const char *content_check(struct cs_csr_scanner *s)
{
    struct cs_csr_recovered recovered;
    switch (s->frame.type) {
    case CS_CSR_RESET:
        s->reset_at = s->at;
        s->since_index++;
        if (s->since_index > CS_CSR_INDEX_EVERY && !s->partial) {
            return "an INDEX frame is missing before it";
        }
        break;
    case CS_CSR_INDEX:
        return index_check(s);
    case CS_CSR_RECOVER:
        if (!cs_csr_recovered_read(s->payload, &recovered)) {
            return "the payload of its RECOVER is malformed";
        }
        s->epoch++;
        s->events = s->plain_bytes = 0;
        s->reset_at = s->last_index = s->since_index = 0;
        s->partial = false;
        break;
    case CS_CSR_END:
        return end_check(s);
    case CS_CSR_DATA:
    default:
        break;
    }
    s->events += s->frame.n_events;
    s->plain_bytes += s->frame.n_events > 0 ? s->frame.plain_len : 0;
    return "";
}

/* The next n bytes (at most a frame's), or fewer at the file's end: many small frames are one read.
 */
static struct cs_slice window(struct cs_csr_scanner *s, size_t n)
{
    bool inside = s->at >= s->room_at && s->at - s->room_at <= s->room_n &&
                  s->room_n - (size_t)(s->at - s->room_at) >= n;
    if (!inside) {
        s->room_at = s->at;
        s->room_n = s->in.read_at(s->in.arg, s->at, s->room, CS_CSR_FRAME_MAX);
    }
    size_t from = (size_t)(s->at - s->room_at);
    return cs_slice(s->room + from, CS_MIN(n, s->room_n - from));
}

enum cs_csr_scan cs_csr_scan_next(struct cs_csr_scanner *s)
{
    struct cs_csr_frame_head h;
    uint8_t chain[CS_SHA256];
    if (s->at == s->in.size) {
        return CS_CSR_SCAN_EOF;
    }
    struct cs_slice head = window(s, CS_CSR_FRAME_HEAD);
    if (head.n < CS_CSR_FRAME_HEAD) {
        return bad(s, true, "the file ends inside the head of a frame");
    }
    if (!cs_csr_frame_head_read(head, &h)) {
        return bad(s, false, "this is not the head of a frame");
    }
    size_t size = cs_csr_frame_size(&h);
    struct cs_slice bytes = window(s, size);
    if (bytes.n < size) {
        return bad(s, true, "the file ends inside a frame");
    }
    cs_csr_chain(NULL, s->chain, bytes, chain);
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    if (cs_csr_crc(bytes) != h.crc) {
        return bad(s, s->at + size == s->in.size, "the checksum of the frame is wrong");
    }
    if (memcmp(chain, bytes.p + size - CS_SHA256, CS_SHA256) != 0) {
        return bad(s, false, "the frame is not chained to the one before it");
    }
#endif
    const char *why = order_of(s, &h);
    s->frame = h;
    s->bytes = bytes;
    s->payload = cs_slice(bytes.p + CS_CSR_FRAME_HEAD, h.payload_len);
    if (why[0] == 0) {
        why = content_check(s);
    }
    if (why[0] != 0) {
        return bad(s, false, why);
    }
    memcpy(s->chain, chain, CS_SHA256);
    s->seq = h.seq;
    s->last_ns = h.t_first_ns + (uint64_t)h.t_delta_us * 1000;
    s->frame_at = s->at;
    s->at += size;
    return CS_CSR_SCAN_FRAME;
}

/* ---- the tail ---- */

/* A whole frame at `at` of the window, chained to the 32 bytes before it. */
static bool frame_at(struct cs_slice window, size_t at, struct cs_csr_frame_head *ret)
{
    struct cs_slice rest = cs_slice_from(window, at);
    uint8_t chain[CS_SHA256];
    if (rest.n < 2 || rest.p[0] != 'C' || rest.p[1] != 'F' || /* most places, at once */
        !cs_csr_frame_head_read(rest, ret) || cs_csr_frame_size(ret) > rest.n) {
        return false;
    }
    struct cs_slice frame = cs_slice_head(rest, cs_csr_frame_size(ret));
    if (cs_csr_crc(frame) != ret->crc) {
        return false;
    }
    cs_csr_chain(NULL, window.p + at - CS_SHA256, frame, chain);
    return memcmp(chain, frame.p + frame.n - CS_SHA256, CS_SHA256) == 0;
}

static void tail_take(struct cs_csr_tail *t, struct cs_slice window, uint64_t from, size_t at,
                      const struct cs_csr_frame_head *h)
{
    size_t end = at + cs_csr_frame_size(h);
    t->size = from + end;
    t->seq = h->seq;
    t->epoch = h->epoch;
    t->last_ns = h->t_first_ns + (uint64_t)h->t_delta_us * 1000;
    t->ended = h->type == CS_CSR_END;
    memcpy(t->chain, window.p + end - CS_SHA256, CS_SHA256);
}

enum cs_err cs_csr_find_tail(struct cs_csr_source in, struct cs_csr_tail *ret)
{
    /* Two frames of full size: one good and one torn. */
    const size_t room_n = 2 * (size_t)CS_CSR_FRAME_MAX + CS_SHA256;
    uint8_t *room = cs_alloc(room_n);
    struct cs_csr_tail t = {.epoch = 1};
    if (room == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    if (!read_head(in, &t.head, room)) {
        cs_free(room);
        return CS_ERR_CORRUPT;
    }
    memcpy(t.chain, t.head.chain, CS_SHA256);
    t.size = t.head.n;
    uint64_t from = t.head.n - CS_SHA256; /* H0 stands before the first frame */
    if (in.size - from > room_n) {
        from = in.size - room_n;
    }
    bool all = from + CS_SHA256 <= t.head.n;
    struct cs_slice window =
        cs_slice(room, in.read_at(in.arg, from, room, (size_t)CS_MIN(in.size - from, room_n)));
    struct cs_csr_frame_head h;
    bool found = false;
    for (size_t at = window.n; at >= CS_SHA256 && !found; at--) {
        if (frame_at(window, at, &h)) {
            tail_take(&t, window, from, at, &h);
            found = true;
        }
    }
    cs_free(room);
    if (!found && !all) {
        return CS_ERR_CORRUPT;
    }
    t.cut = in.size - t.size;
    *ret = t;
    return CS_OK;
}
