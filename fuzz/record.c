/* Fuzzing of a recording's reader on hostile files. The first byte chooses: even: the rest is a
 * file; odd: the rest is put behind a good header and sealed as DATA payloads with a known key, so
 * that decompression and the events inside meet hostile bytes too.
 *
 * Properties: positions only grow and stay inside; what a scan found good is found good again when
 * the file ends there; the tail is where the scan ended, or behind it; a decoded header encodes to
 * the same bytes; no frame gives more plain bytes than its head says. */
#include "base/alloc.h"
#include "record/csr_read.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static uint64_t scan(struct cs_slice file, unsigned *ret_n, enum cs_csr_scan *ret_end)
{
    struct cs_csr_scanner s;
    *ret_n = 0;
    *ret_end = CS_CSR_SCAN_BAD;
    if (cs_csr_scan_start(&s, cs_csr_memory(&file)) != CS_OK) {
        return 0;
    }
    uint64_t before = s.at;
    while ((*ret_end = cs_csr_scan_next(&s)) == CS_CSR_SCAN_FRAME) {
        demand(s.at > before && s.at <= file.n && s.frame_at == before);
        demand(s.payload.n <= s.bytes.n);
        before = s.at;
        (*ret_n)++;
    }
    uint64_t at = s.at;
    demand(at == before);
    cs_csr_scan_done(&s);
    return at;
}

static void as_file(struct cs_slice body)
{
    uint8_t *file = malloc(body.n > 0 ? body.n : 1); /* exact: a read behind it is seen */
    struct cs_csr_head head, again;
    struct cs_csr_tail tail;
    uint8_t out[CS_CSR_HEAD_MAX];
    unsigned n, n_again;
    enum cs_csr_scan end, end_again;
    if (body.n > 0) {
        memcpy(file, body.p, body.n);
    }
    struct cs_slice in = cs_slice(file, body.n);
    if (cs_csr_head_read(in, &head)) {
        again = head;
        demand(cs_csr_head_write(&again, out, sizeof out) && again.n == head.n);
        demand(memcmp(out, file, head.n - CS_SHA256) == 0);
    }
    uint64_t at = scan(in, &n, &end);
    if (at > 0) {
        demand(scan(cs_slice(file, (size_t)at), &n_again, &end_again) == at && n == n_again);
        demand(end_again == CS_CSR_SCAN_EOF);
        demand(cs_csr_find_tail(cs_csr_memory(&in), &tail) != CS_OK || tail.size <= in.n);
    }
    free(file);
}

static void as_payload(struct cs_slice body)
{
    struct cs_id session = {{1}};
    static uint8_t dek[CS_CSR_DEK];
    uint8_t derived[64], nonce[CS_SEAL_NONCE];
    struct cs_csr_keys keys = {.n = 1};
    demand(cs_csr_derive(dek, keys.salt, &session, 1, derived) == CS_OK);
    memcpy(keys.commitment, derived + 32, 32);
    struct cs_csr_reader *r = cs_csr_reader_new(&session);
    struct cs_gcm *gcm = cs_gcm_new();
    demand(r != NULL && gcm != NULL && cs_csr_reader_key(r, 1, &keys, dek) == CS_OK);
    size_t n = body.n < 8 ? 0 : body.n - 8;
    struct cs_csr_frame_head h = {.type = CS_CSR_RESET, .epoch = 1, .seq = 1};
    for (size_t i = 0; i < 3 && n > 0; i++) {
        h.plain_len |= (uint32_t)body.p[i] << (8 * i);
    }
    h.n_events = n > 0 ? body.p[3] : 0;
    h.plain_len %= CS_CSR_PLAIN_MAX + 1;
    h.payload_len = (uint32_t)n;
    size_t size = cs_csr_frame_size(&h);
    uint8_t *frame = malloc(size);
    cs_csr_frame_head_write(&h, frame);
    const struct cs_slice aad[] = {cs_slice(frame, CS_CSR_CRC_AT),
                                   cs_slice(session.b, CS_ID_BYTES)};
    cs_csr_nonce(h.seq, nonce);
    demand(cs_gcm_seal(gcm, derived, nonce, aad, 2, cs_slice_from(body, 8),
                       frame + CS_CSR_FRAME_HEAD, frame + CS_CSR_FRAME_HEAD + n) == CS_OK);
    struct cs_slice plain, event;
    if (n <= CS_CSR_PAYLOAD_MAX &&
        cs_csr_reader_open(r, &h, cs_slice(frame, size), &plain) == CS_OK) {
        demand(plain.n == h.plain_len);
        unsigned events = 0;
        while (cs_csr_event_next(&plain, &event)) {
            events++;
        }
        demand(plain.n == 0 && events == h.n_events);
    }
    free(frame);
    cs_gcm_free(gcm);
    cs_csr_reader_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_csr_index x;
    struct cs_csr_recovered recovered;
    struct cs_csr_ended ended;
    if (size == 0) {
        return 0;
    }
    struct cs_slice rest = cs_slice(data + 1, size - 1);
    (void)cs_csr_index_read(rest, &x);
    (void)cs_csr_recovered_read(rest, &recovered);
    (void)cs_csr_ended_read(rest, &ended);
    if ((data[0] & 1) == 0) {
        as_file(rest);
    } else {
        as_payload(rest);
    }
    demand(cs_alloc_live() == 0);
    return 0;
}
