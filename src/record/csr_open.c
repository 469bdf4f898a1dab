/* Decrypting and decompressing the frames of a recording (csr_read.h). Called by the replayer,
 * which got the one recording's keys. It must never give out a byte whose tag was not right, nor
 * let a frame grow beyond what its head says. */
#define ZSTD_STATIC_LINKING_ONLY /* for an allocator of our own */
#include "base/alloc.h"
#include "base/reader.h"
#include "base/secret.h"
#include "record/csr_read.h"

#include <zstd.h>

struct epoch_key {
    uint32_t epoch;
    uint8_t key[CS_SEAL_KEY];
};

struct cs_csr_reader {
    struct cs_id session;
    struct cs_gcm *gcm;     /* owned */
    ZSTD_DCtx *z;           /* owned */
    uint8_t *packed;        /* owned; CS_CSR_PAYLOAD_MAX */
    uint8_t *plain;         /* owned; CS_CSR_PLAIN_MAX */
    struct epoch_key *keys; /* owned */
    size_t n_keys;
    uint64_t next_seq; /* the frame that the decompressor can go on with; 0 = none */
};

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

struct cs_csr_reader *cs_csr_reader_new(const struct cs_id *session)
{
    const ZSTD_customMem mem = {z_alloc, z_free, NULL};
    struct cs_csr_reader *r = cs_alloc(sizeof *r);
    if (r == NULL) {
        return NULL;
    }
    r->session = *session;
    r->gcm = cs_gcm_new();
    r->z = ZSTD_createDCtx_advanced(mem);
    r->packed = cs_alloc(CS_CSR_PAYLOAD_MAX);
    r->plain = cs_alloc(CS_CSR_PLAIN_MAX);
    /* SECURITY: a hostile frame must not make the decompressor take more memory than ours needs. */
    if (r->gcm == NULL || r->z == NULL || r->packed == NULL || r->plain == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(r->z, ZSTD_d_windowLogMax, CS_CSR_WINDOW_LOG)) != 0) {
        cs_csr_reader_free(r);
        return NULL;
    }
    return r;
}

void cs_csr_reader_free(struct cs_csr_reader *r)
{
    if (r == NULL) {
        return;
    }
    if (r->keys != NULL) {
        cs_wipe(r->keys, r->n_keys * sizeof *r->keys);
    }
    cs_free(r->keys);
    cs_gcm_free(r->gcm);
    ZSTD_freeDCtx(r->z);
    cs_free(r->packed);
    cs_free(r->plain);
    cs_free(r);
}

enum cs_err cs_csr_reader_key(struct cs_csr_reader *r, uint32_t epoch,
                              const struct cs_csr_keys *keys, const uint8_t dek[static CS_CSR_DEK])
{
    uint8_t derived[64];
    enum cs_err err = cs_csr_derive(dek, keys->salt, &r->session, epoch, derived);
    /* AES-GCM alone does not commit to its key: two keys could open one frame to two texts. */
    if (err == CS_OK && !cs_slice_eq_secret(cs_slice(derived + CS_SEAL_KEY, CS_SHA256),
                                            cs_slice(keys->commitment, sizeof keys->commitment))) {
        err = CS_ERR_CORRUPT;
    }
    struct epoch_key *more = err == CS_OK ? cs_alloc((r->n_keys + 1) * sizeof *r->keys) : NULL;
    if (more != NULL) {
        if (r->n_keys > 0) {
            memcpy(more, r->keys, r->n_keys * sizeof *more);
            cs_wipe(r->keys, r->n_keys * sizeof *r->keys);
        }
        cs_free(r->keys);
        r->keys = more;
        r->keys[r->n_keys].epoch = epoch;
        memcpy(r->keys[r->n_keys].key, derived, CS_SEAL_KEY);
        r->n_keys++;
    } else if (err == CS_OK) {
        err = CS_ERR_NO_MEMORY;
    }
    cs_wipe(derived, sizeof derived);
    return err;
}

static const uint8_t *key_of(const struct cs_csr_reader *r, uint32_t epoch)
{
    for (size_t i = 0; i < r->n_keys; i++) {
        if (r->keys[i].epoch == epoch) {
            return r->keys[i].key;
        }
    }
    return NULL;
}

/* Exactly h->plain_len bytes must come out of exactly this payload. */
static enum cs_err decompress(struct cs_csr_reader *r, const struct cs_csr_frame_head *h)
{
    ZSTD_inBuffer from = {r->packed, h->payload_len, 0};
    ZSTD_outBuffer to = {r->plain, h->plain_len, 0};
    if (h->type == CS_CSR_RESET) {
        (void)ZSTD_DCtx_reset(r->z, ZSTD_reset_session_only);
    }
    while (from.pos < from.size) {
        size_t in_before = from.pos, out_before = to.pos;
        size_t left = ZSTD_decompressStream(r->z, &to, &from);
        if (ZSTD_isError(left) != 0 || (from.pos == in_before && to.pos == out_before)) {
            return CS_ERR_CORRUPT;
        }
    }
    /* What is still inside the decompressor when its input is used up, and more than is said. */
    uint8_t extra[1];
    ZSTD_outBuffer rest = {to.pos < to.size ? r->plain : extra, to.pos < to.size ? to.size : 1, 0};
    rest.pos = to.pos < to.size ? to.pos : 0;
    ZSTD_inBuffer none = {r->packed, 0, 0};
    size_t left = ZSTD_decompressStream(r->z, &rest, &none);
    size_t got = to.pos < to.size ? rest.pos : to.pos + rest.pos;
    return ZSTD_isError(left) == 0 && got == h->plain_len ? CS_OK : CS_ERR_CORRUPT;
}

/* The events' lengths fill the plain exactly, and are as many as the head says. */
static bool events_fit(struct cs_slice plain, uint32_t n_events)
{
    struct cs_slice event;
    uint32_t n = 0;
    while (cs_csr_event_next(&plain, &event)) {
        n++;
    }
    return plain.n == 0 && n == n_events;
}

enum cs_err cs_csr_reader_open(struct cs_csr_reader *r, const struct cs_csr_frame_head *h,
                               struct cs_slice frame, struct cs_slice *ret_plain)
{
    uint8_t nonce[CS_SEAL_NONCE];
    const uint8_t *key = key_of(r, h->epoch);
    bool clear = (h->flags & CS_CSR_FLAG_CLEAR) != 0;
    if (frame.n != cs_csr_frame_size(h) || h->payload_len > CS_CSR_PAYLOAD_MAX ||
        h->plain_len > CS_CSR_PLAIN_MAX) {
        return CS_ERR_CORRUPT;
    }
    if (key == NULL) {
        return CS_ERR_DENIED;
    }
    struct cs_slice payload = cs_slice(frame.p + CS_CSR_FRAME_HEAD, h->payload_len);
    const struct cs_slice aad[] = {cs_slice_head(frame, CS_CSR_CRC_AT),
                                   cs_slice(r->session.b, CS_ID_BYTES),
                                   clear ? payload : CS_SLICE_NULL};
    cs_csr_nonce(h->seq, nonce);
    enum cs_err err =
        cs_gcm_unseal(r->gcm, key, nonce, aad, CS_ARRAY_LEN(aad), clear ? CS_SLICE_NULL : payload,
                      payload.p + payload.n, r->packed);
    *ret_plain = CS_SLICE_NULL;
    if (err != CS_OK || clear) {
        return err;
    }
    if (h->type != CS_CSR_RESET && r->next_seq == 0) {
        return CS_ERR_INVALID; /* not from a RESET frame on */
    }
    err = decompress(r, h);
    if (err == CS_OK && !events_fit(cs_slice(r->plain, h->plain_len), h->n_events)) {
        err = CS_ERR_CORRUPT;
    }
    r->next_seq = err == CS_OK ? h->seq + 1 : 0;
    if (err == CS_OK) {
        *ret_plain = cs_slice(r->plain, h->plain_len);
    }
    return err;
}

bool cs_csr_event_next(struct cs_slice *plain, struct cs_slice *ret)
{
    struct cs_reader r = cs_reader(*plain);
    struct cs_slice event = cs_reader_slice(&r);
    if (r.bad || event.n == 0 || event.n > CS_LIMIT_RECORD_FRAME_BYTES) {
        return false;
    }
    *plain = cs_reader_rest(&r);
    *ret = event;
    return true;
}
