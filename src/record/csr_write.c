/* Sealing frames of a recording (csr_write.h). Called by the recorder. Pure.
 *
 * It must never use a nonce twice under a key (one writer counts its frames, a reopened file gets a
 * new key), keep a data key longer than it takes to derive from it, or put out a frame that is not
 * chained to the one before. */
#define ZSTD_STATIC_LINKING_ONLY /* for an allocator of our own */
#include "record/csr_write.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/secret.h"
#include "base/time.h"

#include <zstd.h>

enum { STAGE = 2048 };

struct cs_csr_stream {
    ZSTD_CCtx *z; /* owned */
    uint8_t *out; /* owned: what the compressor gave for the frame that is being filled */
    size_t cap, n;
    struct cs_csr_writer *owner;
    bool fresh; /* that frame begins the stream */
    uint32_t plain, events, actions;
    uint64_t first_ns, last_ns;
    /* What the compressor has not been given yet: to ask it costs as much for four bytes as for
     * hundreds. */
    size_t n_staged;
    uint8_t staged[STAGE];
    bool compressed; /* what is pending was given to it, and all of it came out */
    enum cs_err err; /* of that */
};

/* A table of 32 KiB: as good for what sessions hold as the 64 of this level, and more of the many
 * sessions of a batch find theirs in the processor's cache. */
enum { LEVEL = 1, HASH_LOG = 13 };

static void *z_alloc(void *opaque, size_t n)
{
    (void)opaque;
    return cs_alloc(n);
}

static void z_free(void *opaque, void *p)
{
    (void)opaque;
    cs_free(p);
}

static size_t bound(size_t plain)
{
    return plain + plain / 128 + 1024;
}

struct cs_csr_stream *cs_csr_stream_new(void)
{
    const ZSTD_customMem mem = {z_alloc, z_free, NULL};
    struct cs_csr_stream *s = cs_alloc(sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->cap = bound(CS_CSR_PLAIN_BYTES);
    s->out = cs_alloc(s->cap);
    s->z = ZSTD_createCCtx_advanced(mem);
    if (s->out == NULL || s->z == NULL ||
        ZSTD_isError(ZSTD_CCtx_setParameter(s->z, ZSTD_c_compressionLevel, LEVEL)) != 0 ||
        ZSTD_isError(ZSTD_CCtx_setParameter(s->z, ZSTD_c_windowLog, CS_CSR_WINDOW_LOG)) != 0 ||
        ZSTD_isError(ZSTD_CCtx_setParameter(s->z, ZSTD_c_hashLog, HASH_LOG)) != 0 ||
        ZSTD_isError(ZSTD_CCtx_setParameter(s->z, ZSTD_c_contentSizeFlag, 0)) != 0) {
        cs_csr_stream_free(s);
        return NULL;
    }
    return s;
}

void cs_csr_stream_free(struct cs_csr_stream *s)
{
    if (s == NULL) {
        return;
    }
    if (s->owner != NULL) {
        s->owner->stream = NULL;
    }
    ZSTD_freeCCtx(s->z);
    cs_free(s->out);
    cs_free(s);
}

void cs_csr_writer_done(struct cs_csr_writer *w)
{
    if (w->stream != NULL) {
        w->stream->owner = NULL;
        w->stream->plain = w->stream->events = w->stream->actions = 0;
        w->stream->n = w->stream->n_staged = 0;
    }
    cs_free(w->entries);
    cs_wipe(w, sizeof *w);
}

/* ---- keys ---- */

/* A new data key: wrapped for its holders, turned into the epoch's key, forgotten. */
static enum cs_err keys_make(struct cs_csr_writer *w, const struct cs_csr_to *to,
                             struct cs_csr_keys *ret)
{
    uint8_t dek[CS_CSR_DEK], derived[64], mem[CS_WRAPPED_AAD];
    struct cs_slice aad = cs_wrapped_aad(false, &w->session, w->epoch, mem);
    enum cs_err err = to->n > 0 && to->n <= CS_CSR_RECIPIENTS ? CS_OK : CS_ERR_INVALID;
    cs_random(dek, sizeof dek);
    cs_random(ret->salt, sizeof ret->salt);
    ret->n = to->n;
    for (size_t i = 0; i < to->n && err == CS_OK; i++) {
        memcpy(ret->to[i].name, to->key[i].name, sizeof ret->to[i].name);
        memcpy(ret->to[i].public, to->key[i].public, CS_X25519);
        err = cs_seal_to(to->key[i].public, aad, cs_slice(dek, sizeof dek), ret->to[i].wrapped);
    }
    if (err == CS_OK) {
        err = cs_csr_derive(dek, ret->salt, &w->session, w->epoch, derived);
    }
    if (err == CS_OK) {
        memcpy(w->key, derived, sizeof w->key);
        memcpy(ret->commitment, derived + sizeof w->key, sizeof ret->commitment);
    }
    cs_wipe(dek, sizeof dek);
    cs_wipe(derived, sizeof derived);
    return err;
}

enum cs_err cs_csr_begin(struct cs_csr_writer *w, const struct cs_csr_to *to,
                         const struct cs_id *session, uint64_t gate_epoch, uint64_t wall_ms,
                         uint8_t *out, size_t cap, size_t *ret_n)
{
    struct cs_csr_head h = {.session = *session, .started_ms = wall_ms, .gate_epoch = gate_epoch};
    *w = (struct cs_csr_writer){.session = *session, .epoch = 1};
    enum cs_err err = keys_make(w, to, &h.keys);
    if (err != CS_OK) {
        return err;
    }
    if (!cs_csr_head_write(&h, out, cap)) {
        return CS_ERR_TOO_LARGE;
    }
    memcpy(w->chain, h.chain, CS_SHA256);
    w->offset = h.n;
    *ret_n = h.n;
    return CS_OK;
}

/* ---- frames ---- */

/* Fills in what every frame has, encrypts or authenticates the payload, chains. */
static enum cs_err seal(struct cs_csr_writer *w, struct cs_gcm *gcm, struct cs_csr_frame_head *h,
                        struct cs_slice payload, uint8_t *out, size_t cap, size_t *ret_n)
{
    uint8_t nonce[CS_SEAL_NONCE];
    bool clear = (h->flags & CS_CSR_FLAG_CLEAR) != 0;
    size_t size = payload.n + CS_CSR_FRAME_EXTRA;
    cs_assert(!w->ended);
    if (payload.n > CS_CSR_PAYLOAD_MAX || cap < size) {
        return CS_ERR_TOO_LARGE;
    }
    h->epoch = w->epoch;
    h->seq = w->seq + 1;
    h->payload_len = (uint32_t)payload.n;
    h->t_first_ns = CS_MAX(h->t_first_ns, w->last_ns);
    cs_csr_frame_head_write(h, out);
    uint8_t *body = out + CS_CSR_FRAME_HEAD, *tag = body + payload.n, *chain = tag + CS_SEAL_TAG;
    const struct cs_slice aad[] = {cs_slice(out, CS_CSR_CRC_AT),
                                   cs_slice(w->session.b, CS_ID_BYTES),
                                   clear ? payload : CS_SLICE_NULL};
    cs_csr_nonce(h->seq, nonce);
    enum cs_err err = cs_gcm_seal(gcm, w->key, nonce, aad, CS_ARRAY_LEN(aad),
                                  clear ? CS_SLICE_NULL : payload, body, tag);
    if (err != CS_OK) {
        return err;
    }
    cs_assert(!clear || payload.p == body); /* it was written in its place */
    cs_csr_chain(gcm, w->chain, cs_slice(out, size), chain);
    memcpy(w->chain, chain, CS_SHA256);
    h->crc = cs_csr_crc(cs_slice(out, size));
    cs_csr_frame_head_write(h, out);
    w->seq = h->seq;
    w->offset += size;
    w->last_ns = h->t_first_ns + (uint64_t)h->t_delta_us * 1000;
    *ret_n = size;
    return CS_OK;
}

/* A payload in clear is written behind the place of its frame's head; room for it. */
static size_t clear_cap(size_t cap)
{
    return cap > CS_CSR_FRAME_EXTRA ? cap - CS_CSR_FRAME_EXTRA : 0;
}

static enum cs_err seal_clear(struct cs_csr_writer *w, struct cs_gcm *gcm, enum cs_csr_type type,
                              struct cs_slice payload, uint8_t *out, size_t cap, size_t *ret_n)
{
    struct cs_csr_frame_head h = {.type = type,
                                  .flags = CS_CSR_FLAG_CLEAR,
                                  .t_first_ns = cs_wall_ms() * CS_NS_PER_MS,
                                  .plain_len = (uint32_t)payload.n};
    return payload.n > 0 ? seal(w, gcm, &h, payload, out, cap, ret_n) : CS_ERR_TOO_LARGE;
}

enum cs_err cs_csr_resume(struct cs_csr_writer *w, struct cs_gcm *gcm, const struct cs_csr_to *to,
                          const struct cs_csr_tail *tail, uint64_t wall_ms, uint8_t *out,
                          size_t cap, size_t *ret_n)
{
    uint8_t *room = out + CS_CSR_FRAME_HEAD;
    struct cs_csr_recovered x = {.reason =
                                     tail->cut > 0 ? CS_CSR_RECOVER_TORN : CS_CSR_RECOVER_RESTART,
                                 .cut_bytes = tail->cut,
                                 .wall_ms = wall_ms};
    if (tail->ended || tail->epoch == UINT32_MAX) {
        return CS_ERR_CONFLICT;
    }
    *w = (struct cs_csr_writer){.session = tail->head.session,
                                .offset = tail->size,
                                .seq = tail->seq,
                                .epoch = tail->epoch + 1,
                                .last_ns = tail->last_ns};
    memcpy(w->chain, tail->chain, CS_SHA256);
    enum cs_err err = keys_make(w, to, &x.keys);
    if (err != CS_OK) {
        return err;
    }
    return seal_clear(w, gcm, CS_CSR_RECOVER, cs_csr_recovered_write(&x, room, clear_cap(cap)), out,
                      cap, ret_n);
}

/* ---- events ---- */

size_t cs_csr_room(const struct cs_csr_stream *s)
{
    return bound(s->plain) + CS_CSR_FRAME_EXTRA;
}

bool cs_csr_is_full(const struct cs_csr_stream *s, size_t n)
{
    return s->plain > 0 && (s->plain >= CS_CSR_PLAIN_BYTES ||
                            n + CS_CSR_EVENT_HEAD > (size_t)CS_CSR_PLAIN_BYTES - s->plain);
}

bool cs_csr_is_pending(const struct cs_csr_stream *s)
{
    return s->plain > 0;
}

struct cs_csr_writer *cs_csr_owner(const struct cs_csr_stream *s)
{
    return s->owner;
}

/* Room for all that the compressor may give for the frame, so that a flush cannot fall short. */
static enum cs_err room_for(struct cs_csr_stream *s, size_t plain)
{
    if (bound(plain) <= s->cap) {
        return CS_OK;
    }
    uint8_t *more = cs_realloc(s->out, bound(plain));
    if (more == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    s->out = more;
    s->cap = bound(plain);
    return CS_OK;
}

static enum cs_err compress(struct cs_csr_stream *s, struct cs_slice in, ZSTD_EndDirective how)
{
    ZSTD_inBuffer from = {in.p, in.n, 0};
    ZSTD_outBuffer to = {s->out, s->cap, s->n};
    size_t left;
    do {
        left = ZSTD_compressStream2(s->z, &to, &from, how);
        if (ZSTD_isError(left) != 0 || (to.pos == to.size && left > 0 && how == ZSTD_e_flush)) {
            return CS_ERR_NO_MEMORY; /* the only thing that can fail here */
        }
    } while (from.pos < from.size || (how == ZSTD_e_flush && left > 0));
    s->n = to.pos;
    return CS_OK;
}

static enum cs_err unstage(struct cs_csr_stream *s, ZSTD_EndDirective how)
{
    struct cs_slice in = cs_slice(s->staged, s->n_staged);
    s->n_staged = 0;
    return compress(s, in, how);
}

/* A piece of an event. */
static enum cs_err stage(struct cs_csr_stream *s, struct cs_slice in)
{
    enum cs_err err = in.n > STAGE - s->n_staged ? unstage(s, ZSTD_e_continue) : CS_OK;
    if (err != CS_OK || in.n > STAGE) {
        return err == CS_OK ? compress(s, in, ZSTD_e_continue) : err;
    }
    memcpy(s->staged + s->n_staged, in.p, in.n);
    s->n_staged += in.n;
    return CS_OK;
}

static void frame_start(struct cs_csr_writer *w, struct cs_csr_stream *s, uint64_t now)
{
    s->fresh = w->stream != s || w->since_reset >= CS_CSR_RESET_BYTES ||
               now - w->reset_ns >= CS_CSR_RESET_NS;
    if (s->fresh) {
        if (s->owner != NULL) {
            s->owner->stream = NULL;
        }
        if (w->stream != NULL) {
            w->stream->owner = NULL;
        }
        (void)ZSTD_CCtx_reset(s->z, ZSTD_reset_session_only);
        w->since_reset = 0;
        w->reset_ns = now;
    }
    w->stream = s;
    s->owner = w;
    s->first_ns = now;
    s->n = s->n_staged = 0;
    s->compressed = false;
    s->events = s->actions = 0;
}

enum cs_err cs_csr_add(struct cs_csr_writer *w, struct cs_csr_stream *s, struct cs_slice event,
                       bool action, uint64_t wall_ns)
{
    uint8_t length[CS_CSR_EVENT_HEAD];
    uint64_t now = CS_MAX(wall_ns, w->last_ns);
    cs_assert(event.n > 0 && event.n <= CS_LIMIT_RECORD_FRAME_BYTES && !w->ended);
    cs_assert(s->plain == 0 || (s->owner == w && w->stream == s && !cs_csr_is_full(s, event.n)));
    if (s->plain == 0) {
        frame_start(w, s, now);
    }
    size_t n = CS_CSR_EVENT_HEAD + event.n;
    enum cs_err err = room_for(s, s->plain + n);
    for (size_t i = 0; i < CS_CSR_EVENT_HEAD; i++) {
        length[i] = (uint8_t)(event.n >> (8 * i));
    }
    if (err == CS_OK) {
        err = stage(s, cs_slice(length, sizeof length));
    }
    if (err == CS_OK) {
        err = stage(s, event);
    }
    s->plain += (uint32_t)n;
    s->events++;
    s->actions += action;
    s->last_ns = CS_MAX(now, s->first_ns);
    return err;
}

/* The reset that this frame makes, for the index; before the frame is sealed. */
static enum cs_err note_reset(struct cs_csr_writer *w, const struct cs_csr_stream *s)
{
    if (w->n_entries == 0 || (w->n_entries & (w->n_entries - 1)) == 0) {
        size_t cap = w->n_entries == 0 ? 1 : 2 * w->n_entries;
        struct cs_csr_index_entry *more = cs_realloc(w->entries, cap * sizeof *more);
        if (more == NULL) {
            return CS_ERR_NO_MEMORY;
        }
        w->entries = more;
    }
    w->entries[w->n_entries++] = (struct cs_csr_index_entry){
        w->offset, CS_MAX(s->first_ns, w->last_ns), w->events, w->actions};
    w->reset_offset = w->offset;
    return CS_OK;
}

void cs_csr_compress(struct cs_csr_stream *s)
{
    s->err = unstage(s, ZSTD_e_flush);
    s->compressed = true;
}

enum cs_err cs_csr_flush(struct cs_csr_writer *w, struct cs_gcm *gcm, uint8_t *out, size_t cap,
                         size_t *ret_n)
{
    struct cs_csr_stream *s = w->stream;
    cs_assert(s->owner == w && s->plain > 0);
    enum cs_err err = s->fresh ? note_reset(w, s) : CS_OK;
    if (err == CS_OK) {
        err = s->compressed ? s->err : unstage(s, ZSTD_e_flush);
        s->compressed = false;
    }
    if (err != CS_OK) {
        return err;
    }
    struct cs_csr_frame_head h = {
        .type = s->fresh ? CS_CSR_RESET : CS_CSR_DATA,
        .t_first_ns = s->first_ns,
        .t_delta_us = (uint32_t)CS_MIN((s->last_ns - s->first_ns) / 1000, (uint64_t)UINT32_MAX),
        .n_events = s->events,
        .plain_len = s->plain,
        .reset_back = s->fresh ? 0 : (uint32_t)(w->offset - w->reset_offset)};
    err = seal(w, gcm, &h, cs_slice(s->out, s->n), out, cap, ret_n);
    if (err == CS_OK) {
        w->since_reset += s->plain;
        w->plain_bytes += s->plain;
        w->events += s->events;
        w->actions += s->actions;
        s->plain = s->events = s->actions = 0;
    }
    return err;
}

bool cs_csr_index_is_due(const struct cs_csr_writer *w)
{
    return w->n_entries >= CS_CSR_INDEX_EVERY;
}

enum cs_err cs_csr_index_frame(struct cs_csr_writer *w, struct cs_gcm *gcm, uint8_t *out,
                               size_t cap, size_t *ret_n)
{
    cs_assert(w->n_entries > 0 && w->n_entries <= CS_CSR_INDEX_EVERY);
    uint64_t at = w->offset;
    struct cs_slice payload = cs_csr_index_write(w->last_index, w->entries, w->n_entries,
                                                 out + CS_CSR_FRAME_HEAD, clear_cap(cap));
    enum cs_err err = seal_clear(w, gcm, CS_CSR_INDEX, payload, out, cap, ret_n);
    if (err == CS_OK) {
        w->last_index = at;
        w->n_entries = 0;
    }
    return err;
}

enum cs_err cs_csr_end_frame(struct cs_csr_writer *w, struct cs_gcm *gcm, enum cs_csr_end reason,
                             uint64_t wall_ms, uint8_t *out, size_t cap, size_t *ret_n)
{
    cs_assert(w->n_entries == 0 && (w->stream == NULL || w->stream->plain == 0));
    struct cs_csr_ended x = {.reason = (uint64_t)reason,
                             .wall_ms = wall_ms,
                             .frames = w->seq + 1,
                             .events = w->events,
                             .actions = w->actions,
                             .plain_bytes = w->plain_bytes,
                             .index = w->last_index};
    struct cs_slice payload = cs_csr_ended_write(&x, out + CS_CSR_FRAME_HEAD, clear_cap(cap));
    enum cs_err err = seal_clear(w, gcm, CS_CSR_END, payload, out, cap, ret_n);
    w->ended = err == CS_OK;
    return err;
}
