/* The file format of a recording, CSR1 (docs/format.md): constants, header, frame header, chain.
 * Pure. One session is one file: a header in clear, then frames. Frames are compressed, encrypted
 * and chained over the ciphertext, so that the file can be checked without any key.
 *
 *   file:   magic, u32le n, n bytes of CBOR, H0          frame:  48 bytes, payload, tag, chain */
#ifndef CS_RECORD_CSR_H
#define CS_RECORD_CSR_H

#include "base/err.h"
#include "base/id.h"
#include "base/limits.h"
#include "crypto/crypto.h"
#include "crypto/wrapped.h"

enum {
    CS_CSR_VERSION = 1,
    CS_CSR_SUITE = 1, /* AES-256-GCM, SHA-256, zstd, X25519 */
    CS_CSR_MAGIC = 8,
    CS_CSR_HEAD_MAX = 4096, /* magic, length, CBOR and H0 together */
    CS_CSR_HEAD_LEAST = CS_CSR_MAGIC + 4 + CS_SHA256,
    CS_CSR_FRAME_HEAD = 48,
    CS_CSR_CRC_AT = 44, /* what stands before it is authenticated and chained */
    CS_CSR_FRAME_EXTRA = CS_CSR_FRAME_HEAD + CS_SEAL_TAG + CS_SHA256,
    CS_CSR_PLAIN_BYTES = 256 * 1024, /* of a frame; more only when one event is larger */
    CS_CSR_EVENT_HEAD = 4,
    CS_CSR_PLAIN_MAX = CS_LIMIT_RECORD_FRAME_BYTES + CS_CSR_EVENT_HEAD,
    CS_CSR_PAYLOAD_MAX = CS_CSR_PLAIN_MAX + CS_CSR_PLAIN_MAX / 128 + 1024, /* if it grows */
    CS_CSR_FRAME_MAX = CS_CSR_PAYLOAD_MAX + CS_CSR_FRAME_EXTRA,
    CS_CSR_WINDOW_LOG = 18,
    CS_CSR_RESET_BYTES = 256 * 1024,
    CS_CSR_INDEX_EVERY = 64, /* resets */
    CS_CSR_RECIPIENTS = 4,
    CS_CSR_KEY_NAME = CS_WRAPPED_NAME, /* "recording/2026-11", "escrow" */
    CS_CSR_DEK = CS_WRAPPED_KEY,
    CS_CSR_WRAPPED = CS_WRAPPED_BOX,
};
#define CS_CSR_RESET_NS (10 * UINT64_C(1000000000))

enum cs_csr_type {                   /* on disk, for ever; zero is none */
                   CS_CSR_DATA = 1,  /* goes on in the compressed stream */
                   CS_CSR_RESET = 2, /* begins a new one: reading may start here */
                   CS_CSR_INDEX = 3,
                   CS_CSR_RECOVER = 4, /* the recorder came back: a new epoch with a new key */
                   CS_CSR_END = 5,
};
enum { CS_CSR_FLAG_CLEAR = 1 }; /* the payload is CBOR in clear, authenticated as associated data */

enum cs_csr_end { CS_CSR_END_CLOSED = 1, CS_CSR_END_GATE = 2, CS_CSR_END_LOST = 3 };
enum cs_csr_recover { CS_CSR_RECOVER_RESTART = 1, CS_CSR_RECOVER_TORN = 2 };

/* One key of a recording, wrapped for one holder. */
struct cs_csr_recipient {
    char name[CS_CSR_KEY_NAME]; /* NUL-terminated */
    uint8_t public[CS_X25519];
    uint8_t wrapped[CS_CSR_WRAPPED];
};
/* What makes an epoch's key: in the header for the first, in a RECOVER frame for each other. */
struct cs_csr_keys {
    uint8_t salt[32], commitment[32];
    size_t n;
    struct cs_csr_recipient to[CS_CSR_RECIPIENTS];
};

struct cs_csr_head {
    struct cs_id session;
    uint64_t started_ms;
    uint64_t gate_epoch;
    struct cs_csr_keys keys;
    uint8_t chain[CS_SHA256]; /* H0 */
    size_t n;                 /* bytes on disk, H0 included */
};
/* Writes the header and sets h->chain and h->n. False when it does not fit. */
bool cs_csr_head_write(struct cs_csr_head *h, uint8_t *out, size_t cap);
/* Reads it off the beginning of a file; strict. False also when `in` holds less than all of it. */
bool cs_csr_head_read(struct cs_slice in, struct cs_csr_head *ret);

struct cs_csr_frame_head {
    enum cs_csr_type type;
    uint8_t flags;
    uint32_t epoch;
    uint64_t seq; /* from 1, over all epochs */
    uint64_t t_first_ns;
    uint32_t t_delta_us;
    uint32_t n_events;
    uint32_t plain_len;
    uint32_t payload_len;
    uint32_t reset_back; /* bytes back to the RESET frame that this DATA frame goes on from */
    uint32_t crc;
};
void cs_csr_frame_head_write(const struct cs_csr_frame_head *h,
                             uint8_t out[static CS_CSR_FRAME_HEAD]);
/* False when it can be no frame: magic, type, flags, lengths. */
bool cs_csr_frame_head_read(struct cs_slice in, struct cs_csr_frame_head *ret);
/* Length of the whole frame. */
static inline size_t cs_csr_frame_size(const struct cs_csr_frame_head *h)
{
    return (size_t)h->payload_len + CS_CSR_FRAME_EXTRA;
}
/* The chain's value behind this frame: `before` is that of the frame (or header) before it. With
 * `kept` it takes no memory; NULL for who has none. */
void cs_csr_chain(struct cs_gcm *kept, const uint8_t before[static CS_SHA256],
                  struct cs_slice frame, uint8_t ret[static CS_SHA256]);
/* Over everything of a complete frame but the field itself. */
uint32_t cs_csr_crc(struct cs_slice frame);

/* ---- keys ---- */
/* 32 bytes of AES key, then 32 of commitment. */
enum cs_err cs_csr_derive(const uint8_t dek[static CS_CSR_DEK], const uint8_t salt[static 32],
                          const struct cs_id *session, uint32_t epoch,
                          uint8_t ret[static 64]) CS_MUST_CHECK;
void cs_csr_nonce(uint64_t seq, uint8_t ret[static CS_SEAL_NONCE]);

/* ---- payloads in clear ---- */
struct cs_csr_index_entry {
    uint64_t offset, t_first_ns;
    uint64_t events_before, actions_before; /* of the epoch */
};
struct cs_csr_index {
    uint64_t previous; /* offset of the INDEX frame before; 0 = none */
    size_t n;
    struct cs_csr_index_entry e[CS_CSR_INDEX_EVERY];
};
struct cs_csr_recovered {
    uint64_t reason, cut_bytes, wall_ms;
    struct cs_csr_keys keys;
};
struct cs_csr_ended {
    uint64_t reason, wall_ms;
    uint64_t frames;                       /* in the file, with this one */
    uint64_t events, actions, plain_bytes; /* since the beginning or the last RECOVER frame */
    uint64_t index;                        /* offset of the last INDEX frame since then; 0 = none */
};
struct cs_slice cs_csr_index_write(uint64_t previous, const struct cs_csr_index_entry *e, size_t n,
                                   uint8_t *out, size_t cap);
struct cs_slice cs_csr_recovered_write(const struct cs_csr_recovered *x, uint8_t *out, size_t cap);
struct cs_slice cs_csr_ended_write(const struct cs_csr_ended *x, uint8_t *out, size_t cap);
bool cs_csr_index_read(struct cs_slice in, struct cs_csr_index *ret);
bool cs_csr_recovered_read(struct cs_slice in, struct cs_csr_recovered *ret);
bool cs_csr_ended_read(struct cs_slice in, struct cs_csr_ended *ret);

/* ---- names of files ---- */
enum { CS_CSR_NAME = 64 };
/* "SESSION.csr", or, for frames that another gate wrote about it, "SESSION-EPOCH.csr". */
char *cs_csr_name(const struct cs_id *session, bool foreign, uint64_t epoch,
                  char out[static CS_CSR_NAME]);
/* False for every other name. */
bool cs_csr_name_parse(const char *name, struct cs_id *ret_session, bool *ret_foreign,
                       uint64_t *ret_epoch);

#endif
