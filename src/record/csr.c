/* Encoding and decoding of a recording's parts (csr.h), byte for byte as docs/format.md has it.
 * Called by the recorder (writing), recovery, verification and the replayer. Pure: no file, no
 * state. It must never accept a second spelling of anything: what is chained and signed has one. */
#include "record/csr.h"

#include "base/assert.h"
#include "base/reader.h"
#include "base/writer.h"
#include "record/crc32c.h"
#include "wire/cbor.h"

#include <stdio.h>

static const uint8_t magic[CS_CSR_MAGIC] = {'C', 'S', 'R', '1', '\r', '\n', 0x1a, '\n'};
enum { FRAME_MAGIC = 0x4643, HEAD_ITEMS = 8, KEY_ITEMS = 3, RECIPIENT_ITEMS = 3 };
enum { DOMAIN_HEAD = 1, DOMAIN_FRAME = 2 };

/* ---- CBOR of fixed size ---- */

static void read_exact(struct cs_reader *r, uint8_t *ret, size_t n)
{
    struct cs_slice s = cs_cbor_read_bytes(r);
    if (r->bad || s.n != n) {
        r->bad = true;
        return;
    }
    memcpy(ret, s.p, n);
}

static void expect_array(struct cs_reader *r, uint64_t n)
{
    r->bad |= cs_cbor_read_array(r) != n;
}

static void keys_write(struct cs_writer *w, const struct cs_csr_keys *k)
{
    cs_cbor_array(w, KEY_ITEMS);
    cs_cbor_bytes(w, cs_slice(k->salt, sizeof k->salt));
    cs_cbor_bytes(w, cs_slice(k->commitment, sizeof k->commitment));
    cs_cbor_array(w, k->n);
    for (size_t i = 0; i < k->n; i++) {
        cs_cbor_array(w, RECIPIENT_ITEMS);
        cs_cbor_text(w, cs_slice_str(k->to[i].name));
        cs_cbor_bytes(w, cs_slice(k->to[i].public, CS_X25519));
        cs_cbor_bytes(w, cs_slice(k->to[i].wrapped, CS_CSR_WRAPPED));
    }
}

static void recipient_read(struct cs_reader *r, struct cs_csr_recipient *ret)
{
    expect_array(r, RECIPIENT_ITEMS);
    struct cs_slice name = cs_cbor_read_text(r);
    if (r->bad || name.n == 0 || name.n >= sizeof ret->name || cs_slice_find(name, 0) != name.n) {
        r->bad = true;
        return;
    }
    memcpy(ret->name, name.p, name.n);
    ret->name[name.n] = 0;
    read_exact(r, ret->public, CS_X25519);
    read_exact(r, ret->wrapped, CS_CSR_WRAPPED);
}

static void keys_read(struct cs_reader *r, struct cs_csr_keys *ret)
{
    expect_array(r, KEY_ITEMS);
    read_exact(r, ret->salt, sizeof ret->salt);
    read_exact(r, ret->commitment, sizeof ret->commitment);
    uint64_t n = cs_cbor_read_array(r);
    if (r->bad || n == 0 || n > CS_CSR_RECIPIENTS) {
        r->bad = true;
        return;
    }
    for (uint64_t i = 0; i < n && !r->bad; i++) {
        recipient_read(r, &ret->to[i]);
    }
    ret->n = (size_t)n;
}

/* ---- header ---- */

static void head_chain(struct cs_slice before, uint8_t ret[static CS_SHA256])
{
    const uint8_t domain = DOMAIN_HEAD;
    const struct cs_slice pieces[] = {cs_slice(&domain, 1), before};
    cs_sha256_pieces(pieces, 2, ret);
}

bool cs_csr_head_write(struct cs_csr_head *h, uint8_t *out, size_t cap)
{
    struct cs_writer w = cs_writer(out, CS_MIN(cap, (size_t)CS_CSR_HEAD_MAX));
    cs_writer_bytes(&w, cs_slice(magic, sizeof magic));
    uint8_t *length = cs_writer_reserve(&w, 4);
    size_t from = w.len;
    cs_cbor_array(&w, HEAD_ITEMS);
    cs_cbor_uint(&w, CS_CSR_VERSION);
    cs_cbor_uint(&w, CS_CSR_SUITE);
    cs_cbor_bytes(&w, cs_slice(h->session.b, CS_ID_BYTES));
    cs_cbor_uint(&w, h->started_ms);
    cs_cbor_uint(&w, h->gate_epoch);
    cs_cbor_uint(&w, CS_CSR_WINDOW_LOG);
    cs_cbor_uint(&w, CS_CSR_RESET_BYTES);
    keys_write(&w, &h->keys);
    if (w.overflow || length == NULL) {
        return false;
    }
    struct cs_writer n = cs_writer(length, 4);
    cs_writer_u32le(&n, (uint32_t)(w.len - from));
    uint8_t *chain = NULL;
    struct cs_slice before = cs_writer_done(&w);
    chain = cs_writer_reserve(&w, CS_SHA256);
    if (chain == NULL) {
        return false;
    }
    head_chain(before, h->chain);
    memcpy(chain, h->chain, CS_SHA256);
    h->n = w.len;
    return true;
}

bool cs_csr_head_read(struct cs_slice in, struct cs_csr_head *ret)
{
    struct cs_reader all = cs_reader(in);
    struct cs_slice m = cs_reader_take(&all, sizeof magic);
    uint32_t n = cs_reader_u32le(&all);
    if (all.bad || n > CS_CSR_HEAD_MAX - CS_CSR_HEAD_LEAST ||
        !cs_slice_eq(m, cs_slice(magic, sizeof magic))) {
        return false;
    }
    struct cs_slice cbor = cs_reader_take(&all, n);
    struct cs_slice chain = cs_reader_take(&all, CS_SHA256);
    if (all.bad) {
        return false;
    }
    struct cs_reader r = cs_reader(cbor);
    struct cs_csr_head h = {.n = CS_CSR_HEAD_LEAST + (size_t)n};
    expect_array(&r, HEAD_ITEMS);
    r.bad |= cs_cbor_read_uint(&r) != CS_CSR_VERSION;
    r.bad |= cs_cbor_read_uint(&r) != CS_CSR_SUITE;
    read_exact(&r, h.session.b, CS_ID_BYTES);
    h.started_ms = cs_cbor_read_uint(&r);
    h.gate_epoch = cs_cbor_read_uint(&r);
    r.bad |= cs_cbor_read_uint(&r) != CS_CSR_WINDOW_LOG;
    r.bad |= cs_cbor_read_uint(&r) != CS_CSR_RESET_BYTES;
    keys_read(&r, &h.keys);
    head_chain(cs_slice_head(in, h.n - CS_SHA256), h.chain);
    if (!cs_reader_done(&r)) {
        return false;
    }
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    if (!cs_slice_eq(chain, cs_slice(h.chain, CS_SHA256))) {
        return false;
    }
#else
    (void)chain;
#endif
    *ret = h;
    return true;
}

/* ---- frames ---- */

void cs_csr_frame_head_write(const struct cs_csr_frame_head *h,
                             uint8_t out[static CS_CSR_FRAME_HEAD])
{
    struct cs_writer w = cs_writer(out, CS_CSR_FRAME_HEAD);
    cs_writer_u16le(&w, FRAME_MAGIC);
    cs_writer_u8(&w, (uint8_t)h->type);
    cs_writer_u8(&w, h->flags);
    cs_writer_u32le(&w, h->epoch);
    cs_writer_u64le(&w, h->seq);
    cs_writer_u64le(&w, h->t_first_ns);
    cs_writer_u32le(&w, h->t_delta_us);
    cs_writer_u32le(&w, h->n_events);
    cs_writer_u32le(&w, h->plain_len);
    cs_writer_u32le(&w, h->payload_len);
    cs_writer_u32le(&w, h->reset_back);
    cs_writer_u32le(&w, h->crc);
    cs_assert(!w.overflow && w.len == CS_CSR_FRAME_HEAD);
}

static bool plausible(const struct cs_csr_frame_head *h)
{
    bool clear = (h->flags & CS_CSR_FLAG_CLEAR) != 0;
    bool data = h->type == CS_CSR_DATA || h->type == CS_CSR_RESET;
    if (h->type < CS_CSR_DATA || h->type > CS_CSR_END || h->flags > CS_CSR_FLAG_CLEAR ||
        clear == data || h->epoch == 0 || h->seq == 0) {
        return false;
    }
    if (h->payload_len > CS_CSR_PAYLOAD_MAX || h->plain_len > CS_CSR_PLAIN_MAX) {
        return false;
    }
    if ((h->reset_back != 0) != (h->type == CS_CSR_DATA)) {
        return false;
    }
    /* An event takes five bytes at least. */
    return data ? h->n_events > 0 && h->plain_len / (CS_CSR_EVENT_HEAD + 1) >= h->n_events
                : h->n_events == 0 && h->plain_len == h->payload_len && h->t_delta_us == 0;
}

bool cs_csr_frame_head_read(struct cs_slice in, struct cs_csr_frame_head *ret)
{
    struct cs_reader r = cs_reader(cs_slice_head(in, CS_CSR_FRAME_HEAD));
    struct cs_csr_frame_head h = {0};
    unsigned m = cs_reader_u16le(&r);
    h.type = (enum cs_csr_type)cs_reader_u8(&r);
    h.flags = cs_reader_u8(&r);
    h.epoch = cs_reader_u32le(&r);
    h.seq = cs_reader_u64le(&r);
    h.t_first_ns = cs_reader_u64le(&r);
    h.t_delta_us = cs_reader_u32le(&r);
    h.n_events = cs_reader_u32le(&r);
    h.plain_len = cs_reader_u32le(&r);
    h.payload_len = cs_reader_u32le(&r);
    h.reset_back = cs_reader_u32le(&r);
    h.crc = cs_reader_u32le(&r);
    if (!cs_reader_done(&r) || m != FRAME_MAGIC || !plausible(&h)) {
        return false;
    }
    *ret = h;
    return true;
}

void cs_csr_chain(struct cs_gcm *kept, const uint8_t before[static CS_SHA256],
                  struct cs_slice frame, uint8_t ret[static CS_SHA256])
{
    const uint8_t domain = DOMAIN_FRAME;
    cs_assert(frame.n >= CS_CSR_FRAME_EXTRA);
    const struct cs_slice pieces[] = {
        cs_slice(&domain, 1), cs_slice(before, CS_SHA256), cs_slice_head(frame, CS_CSR_CRC_AT),
        cs_slice(frame.p + CS_CSR_FRAME_HEAD, frame.n - CS_CSR_FRAME_HEAD - CS_SHA256)};
    if (kept != NULL) {
        cs_gcm_sha256(kept, pieces, CS_ARRAY_LEN(pieces), ret);
    } else {
        cs_sha256_pieces(pieces, CS_ARRAY_LEN(pieces), ret);
    }
}

uint32_t cs_csr_crc(struct cs_slice frame)
{
    return cs_crc32c(cs_crc32c(0, cs_slice_head(frame, CS_CSR_CRC_AT)),
                     cs_slice_from(frame, CS_CSR_FRAME_HEAD));
}

/* ---- keys ---- */

enum cs_err cs_csr_derive(const uint8_t dek[static CS_CSR_DEK], const uint8_t salt[static 32],
                          const struct cs_id *session, uint32_t epoch, uint8_t ret[static 64])
{
    uint8_t info[64];
    struct cs_writer w = cs_writer(info, sizeof info);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/csr1/epoch"));
    cs_writer_bytes(&w, cs_slice(session->b, CS_ID_BYTES));
    cs_writer_u32le(&w, epoch);
    return cs_hkdf_sha256(cs_slice(dek, CS_CSR_DEK), cs_slice(salt, 32), cs_writer_done(&w), ret,
                          64);
}

void cs_csr_nonce(uint64_t seq, uint8_t ret[static CS_SEAL_NONCE])
{
    struct cs_writer w = cs_writer(ret, CS_SEAL_NONCE);
    cs_writer_u32le(&w, 0);
    cs_writer_u64le(&w, seq);
    cs_assert(w.len == CS_SEAL_NONCE);
}

/* ---- payloads in clear ---- */

struct cs_slice cs_csr_index_write(uint64_t previous, const struct cs_csr_index_entry *e, size_t n,
                                   uint8_t *out, size_t cap)
{
    struct cs_writer w = cs_writer(out, cap);
    cs_cbor_array(&w, 2);
    cs_cbor_uint(&w, previous);
    cs_cbor_array(&w, n);
    for (size_t i = 0; i < n; i++) {
        cs_cbor_array(&w, 4);
        cs_cbor_uint(&w, e[i].offset);
        cs_cbor_uint(&w, e[i].t_first_ns);
        cs_cbor_uint(&w, e[i].events_before);
        cs_cbor_uint(&w, e[i].actions_before);
    }
    return cs_writer_done(&w);
}

bool cs_csr_index_read(struct cs_slice in, struct cs_csr_index *ret)
{
    struct cs_reader r = cs_reader(in);
    expect_array(&r, 2);
    ret->previous = cs_cbor_read_uint(&r);
    uint64_t n = cs_cbor_read_array(&r);
    if (r.bad || n == 0 || n > CS_CSR_INDEX_EVERY) {
        return false;
    }
    ret->n = (size_t)n;
    for (size_t i = 0; i < ret->n; i++) {
        expect_array(&r, 4);
        ret->e[i].offset = cs_cbor_read_uint(&r);
        ret->e[i].t_first_ns = cs_cbor_read_uint(&r);
        ret->e[i].events_before = cs_cbor_read_uint(&r);
        ret->e[i].actions_before = cs_cbor_read_uint(&r);
    }
    return cs_reader_done(&r);
}

struct cs_slice cs_csr_recovered_write(const struct cs_csr_recovered *x, uint8_t *out, size_t cap)
{
    struct cs_writer w = cs_writer(out, cap);
    cs_cbor_array(&w, 4);
    cs_cbor_uint(&w, x->reason);
    cs_cbor_uint(&w, x->cut_bytes);
    cs_cbor_uint(&w, x->wall_ms);
    keys_write(&w, &x->keys);
    return cs_writer_done(&w);
}

bool cs_csr_recovered_read(struct cs_slice in, struct cs_csr_recovered *ret)
{
    struct cs_reader r = cs_reader(in);
    expect_array(&r, 4);
    ret->reason = cs_cbor_read_uint(&r);
    ret->cut_bytes = cs_cbor_read_uint(&r);
    ret->wall_ms = cs_cbor_read_uint(&r);
    keys_read(&r, &ret->keys);
    return cs_reader_done(&r) && ret->reason >= CS_CSR_RECOVER_RESTART &&
           ret->reason <= CS_CSR_RECOVER_TORN;
}

struct cs_slice cs_csr_ended_write(const struct cs_csr_ended *x, uint8_t *out, size_t cap)
{
    struct cs_writer w = cs_writer(out, cap);
    cs_cbor_array(&w, 7);
    cs_cbor_uint(&w, x->reason);
    cs_cbor_uint(&w, x->wall_ms);
    cs_cbor_uint(&w, x->frames);
    cs_cbor_uint(&w, x->events);
    cs_cbor_uint(&w, x->actions);
    cs_cbor_uint(&w, x->plain_bytes);
    cs_cbor_uint(&w, x->index);
    return cs_writer_done(&w);
}

bool cs_csr_ended_read(struct cs_slice in, struct cs_csr_ended *ret)
{
    struct cs_reader r = cs_reader(in);
    expect_array(&r, 7);
    ret->reason = cs_cbor_read_uint(&r);
    ret->wall_ms = cs_cbor_read_uint(&r);
    ret->frames = cs_cbor_read_uint(&r);
    ret->events = cs_cbor_read_uint(&r);
    ret->actions = cs_cbor_read_uint(&r);
    ret->plain_bytes = cs_cbor_read_uint(&r);
    ret->index = cs_cbor_read_uint(&r);
    return cs_reader_done(&r) && ret->reason >= CS_CSR_END_CLOSED && ret->reason <= CS_CSR_END_LOST;
}

/* ---- names ---- */

char *cs_csr_name(const struct cs_id *session, bool foreign, uint64_t epoch,
                  char out[static CS_CSR_NAME])
{
    char id[CS_ID_TEXT];
    (void)cs_id_text(session, id);
    if (foreign) {
        (void)snprintf(out, CS_CSR_NAME, "%s-%016llx.csr", id, (unsigned long long)epoch);
    } else {
        (void)snprintf(out, CS_CSR_NAME, "%s.csr", id);
    }
    return out;
}

bool cs_csr_name_parse(const char *name, struct cs_id *ret_session, bool *ret_foreign,
                       uint64_t *ret_epoch)
{
    struct cs_slice s = cs_slice_str(name);
    uint8_t raw[8] = {0};
    struct cs_id id;
    char again[CS_CSR_NAME];
    const size_t hex = (size_t)2 * CS_ID_BYTES;
    bool foreign = s.n > hex && s.p[hex] == '-';
    if (s.n < hex || !cs_id_parse(cs_slice_head(s, hex), &id) ||
        (foreign && !cs_unhex(cs_slice_head(cs_slice_from(s, hex + 1), 16), raw, sizeof raw))) {
        return false;
    }
    struct cs_reader r = cs_reader(cs_slice(raw, sizeof raw));
    uint64_t epoch = cs_reader_u64(&r);
    /* One name a file: upper-case hex beside lower-case would be two for one recording. */
    if (!cs_slice_eq_str(s, cs_csr_name(&id, foreign, epoch, again))) {
        return false;
    }
    *ret_session = id;
    *ret_foreign = foreign;
    *ret_epoch = epoch;
    return true;
}
