/* Writing one recording (csr.h): events in, sealed frames out, into memory of the caller's. Pure.
 *
 * A writer is small and lives as long as its session; a stream (compressor and its output) is large
 * and shared: a writer that loses its stream to another begins again with a RESET frame. All
 * writers of a thread share one struct cs_gcm. Errors are final for the process: a writer that
 * failed in the middle of a frame must not go on. */
#ifndef CS_RECORD_CSR_WRITE_H
#define CS_RECORD_CSR_WRITE_H

#include "record/csr.h"

/* Whom keys are wrapped for: the month's key, and the escrow key where there is one. */
struct cs_csr_to {
    size_t n; /* 1 to CS_CSR_RECIPIENTS */
    struct {
        char name[CS_CSR_KEY_NAME];
        uint8_t public[CS_X25519];
    } key[CS_CSR_RECIPIENTS];
};

struct cs_csr_stream; /* a compressor */
struct cs_csr_stream *cs_csr_stream_new(void);
void cs_csr_stream_free(struct cs_csr_stream *s);

struct cs_csr_writer {
    struct cs_id session;
    uint8_t key[CS_SEAL_KEY]; /* of the epoch; the key that it came from is forgotten */
    uint8_t chain[CS_SHA256]; /* behind the last frame */
    uint64_t offset;          /* where the next frame goes */
    uint64_t seq;             /* of the last frame */
    uint32_t epoch;
    struct cs_csr_stream *stream; /* borrowed; NULL: the next data frame is a RESET */
    uint64_t reset_offset, reset_ns;
    uint64_t since_reset; /* plain bytes */
    uint64_t last_ns;     /* times never go back within a file */
    uint64_t events, actions, plain_bytes;
    struct cs_csr_index_entry *entries; /* owned; resets since the last INDEX frame */
    size_t n_entries;
    uint64_t last_index;
    bool ended;
};
void cs_csr_writer_done(struct cs_csr_writer *w); /* frees, wipes; gives its stream back */

/* A new recording: its header, at most CS_CSR_HEAD_MAX bytes. */
enum cs_err cs_csr_begin(struct cs_csr_writer *w, const struct cs_csr_to *to,
                         const struct cs_id *session, uint64_t gate_epoch, uint64_t wall_ms,
                         uint8_t *out, size_t cap, size_t *ret_n) CS_MUST_CHECK;

/* What is known of a recording that is gone on with: from its last frame. */
struct cs_csr_tail {
    struct cs_csr_head head;
    uint64_t size; /* up to the end of the last good frame */
    uint64_t cut;  /* bytes behind that */
    uint64_t seq;  /* 0: there is no frame yet */
    uint32_t epoch;
    uint64_t last_ns;
    uint8_t chain[CS_SHA256];
    bool ended;
};
/* Goes on behind `tail` with a RECOVER frame: a new key, because the old one is not known, and
 * because a lost frame may have used nonces of its epoch. */
enum cs_err cs_csr_resume(struct cs_csr_writer *w, struct cs_gcm *gcm, const struct cs_csr_to *to,
                          const struct cs_csr_tail *tail, uint64_t wall_ms, uint8_t *out,
                          size_t cap, size_t *ret_n) CS_MUST_CHECK;

/* Room that a frame needs that holds what is pending in the stream. */
size_t cs_csr_room(const struct cs_csr_stream *s);
/* An event of n bytes does not fit into the frame that is being filled: flush first. */
bool cs_csr_is_full(const struct cs_csr_stream *s, size_t n);
/* Something waits to be flushed. */
bool cs_csr_is_pending(const struct cs_csr_stream *s);
/* Who filled it last; NULL. */
struct cs_csr_writer *cs_csr_owner(const struct cs_csr_stream *s);
/* One event, 1 ≤ n ≤ CS_LIMIT_RECORD_FRAME_BYTES. The stream is this writer's, or nothing is
 * pending in it. */
enum cs_err cs_csr_add(struct cs_csr_writer *w, struct cs_csr_stream *s, struct cs_slice event,
                       bool action, uint64_t wall_ns) CS_MUST_CHECK;
/* Does what a flush has to do first, and touches nothing but the stream: another thread may do it
 * while nobody else uses it. Nothing may be added until the flush. */
void cs_csr_compress(struct cs_csr_stream *s);
/* Seals what is pending as a DATA or RESET frame. */
enum cs_err cs_csr_flush(struct cs_csr_writer *w, struct cs_gcm *gcm, uint8_t *out, size_t cap,
                         size_t *ret_n) CS_MUST_CHECK;
bool cs_csr_index_is_due(const struct cs_csr_writer *w);
enum cs_err cs_csr_index_frame(struct cs_csr_writer *w, struct cs_gcm *gcm, uint8_t *out,
                               size_t cap, size_t *ret_n) CS_MUST_CHECK;
/* The last frame; nothing may be pending. Index first, if there are entries. */
enum cs_err cs_csr_end_frame(struct cs_csr_writer *w, struct cs_gcm *gcm, enum cs_csr_end reason,
                             uint64_t wall_ms, uint8_t *out, size_t cap,
                             size_t *ret_n) CS_MUST_CHECK;

#endif
