/* Recordings written and read: what comes out is what went in, every change is found without a key,
 * and what is found says where. */
#include "base/alloc.h"
#include "base/secret.h"
#include "record/csr_read.h"
#include "tap.h"

struct made {
    struct cs_csr_to to;
    uint8_t private[CS_X25519];
    struct cs_gcm *gcm;
    struct cs_csr_writer w;
    struct cs_csr_stream *s;
    struct cs_buf file;
    uint64_t now;
};

static uint8_t *room(struct made *m)
{
    uint8_t *p = cs_buf_room(&m->file, CS_CSR_FRAME_MAX);
    CS_CHECK(p != NULL);
    return p;
}

static void made_key(struct made *m)
{
    cs_random(m->private, sizeof m->private);
    m->to.n = 1;
    memcpy(m->to.key[0].name, "recording/2026-11", 18);
    CS_EQ_U64(cs_x25519_public(m->private, m->to.key[0].public), CS_OK);
}

static void made_start(struct made *m)
{
    struct cs_id session;
    size_t n = 0;
    memset(&session, 7, sizeof session);
    *m = (struct made){.file = cs_buf((size_t)1 << 30), .now = 1763806272000 * UINT64_C(1000000)};
    made_key(m);
    m->gcm = cs_gcm_new();
    m->s = cs_csr_stream_new();
    CS_CHECK(m->gcm != NULL && m->s != NULL);
    CS_EQ_U64(
        cs_csr_begin(&m->w, &m->to, &session, 99, m->now / 1000000, room(m), CS_CSR_FRAME_MAX, &n),
        CS_OK);
    m->file.len += n;
}

static void made_flush(struct made *m)
{
    size_t n = 0;
    if (!cs_csr_is_pending(m->s)) {
        return;
    }
    CS_EQ_U64(cs_csr_flush(&m->w, m->gcm, room(m), CS_CSR_FRAME_MAX, &n), CS_OK);
    m->file.len += n;
    if (cs_csr_index_is_due(&m->w)) {
        CS_EQ_U64(cs_csr_index_frame(&m->w, m->gcm, room(m), CS_CSR_FRAME_MAX, &n), CS_OK);
        m->file.len += n;
    }
    CS_EQ_U64(m->file.len, m->w.offset);
}

static void made_add(struct made *m, struct cs_slice event)
{
    if (cs_csr_is_full(m->s, event.n)) {
        made_flush(m);
    }
    m->now += 1000000;
    CS_EQ_U64(cs_csr_add(&m->w, m->s, event, true, m->now), CS_OK);
}

static void made_end(struct made *m)
{
    size_t n = 0;
    made_flush(m);
    if (m->w.n_entries > 0) {
        CS_EQ_U64(cs_csr_index_frame(&m->w, m->gcm, room(m), CS_CSR_FRAME_MAX, &n), CS_OK);
        m->file.len += n;
    }
    CS_EQ_U64(cs_csr_end_frame(&m->w, m->gcm, CS_CSR_END_CLOSED, 1, room(m), CS_CSR_FRAME_MAX, &n),
              CS_OK);
    m->file.len += n;
}

static void made_done(struct made *m)
{
    cs_csr_writer_done(&m->w);
    cs_csr_stream_free(m->s);
    cs_gcm_free(m->gcm);
    cs_buf_done(&m->file);
    CS_EQ_U64(cs_alloc_live(), 0);
}

/* Event i: its number, then text. */
static struct cs_slice event_make(unsigned i, size_t n, uint8_t *mem)
{
    (void)snprintf((char *)mem, 32, "event %08u ", i);
    for (size_t k = 15; k < n; k++) {
        mem[k] = (uint8_t)("select id from orders where name = "[k % 35]);
    }
    return cs_slice(mem, n);
}

static void unwrap(const struct made *m, const struct cs_csr_keys *k, uint32_t epoch,
                   uint8_t dek[static CS_CSR_DEK])
{
    uint8_t mem[CS_WRAPPED_AAD];
    CS_EQ_U64(cs_unseal_to(m->private, cs_wrapped_aad(false, &m->w.session, epoch, mem),
                           cs_slice(k->to[0].wrapped, CS_CSR_WRAPPED), dek),
              CS_OK);
}

/* All events of the file; the sizes are those that were written. */
static unsigned read_all(struct made *m, struct cs_slice file)
{
    struct cs_csr_scanner s;
    struct cs_csr_recovered x;
    struct cs_csr_reader *r = cs_csr_reader_new(&m->w.session);
    uint8_t dek[CS_CSR_DEK];
    unsigned n = 0;
    enum cs_csr_scan got;
    CS_EQ_U64(cs_csr_scan_start(&s, cs_csr_memory(&file)), CS_OK);
    unwrap(m, &s.head.keys, 1, dek);
    CS_EQ_U64(cs_csr_reader_key(r, 1, &s.head.keys, dek), CS_OK);
    while ((got = cs_csr_scan_next(&s)) == CS_CSR_SCAN_FRAME) {
        struct cs_slice plain, event;
        char expect[32];
        if (s.frame.type == CS_CSR_RECOVER) {
            CS_CHECK(cs_csr_recovered_read(s.payload, &x));
            unwrap(m, &x.keys, s.frame.epoch, dek);
            CS_EQ_U64(cs_csr_reader_key(r, s.frame.epoch, &x.keys, dek), CS_OK);
        }
        CS_EQ_U64(cs_csr_reader_open(r, &s.frame, s.bytes, &plain), CS_OK);
        while (cs_csr_event_next(&plain, &event)) {
            (void)snprintf(expect, sizeof expect, "event %08u ", n++);
            CS_CHECK(cs_slice_starts(event, cs_slice_str(expect)));
        }
        CS_EQ_U64(plain.n, 0);
    }
    if (got != CS_CSR_SCAN_EOF) {
        CS_FAIL("%s", s.why);
    }
    cs_csr_scan_done(&s);
    cs_csr_reader_free(r);
    return n;
}

CS_TEST(csr_events_come_back_in_order)
{
    static uint8_t mem[CS_LIMIT_RECORD_FRAME_BYTES];
    struct made m;
    made_start(&m);
    for (unsigned i = 0; i < 4000; i++) {
        made_add(&m, event_make(i, 15 + i % 900, mem));
        if (i % 7 == 0) {
            made_flush(&m);
        }
    }
    made_end(&m);
    CS_EQ_U64(read_all(&m, cs_buf_slice(&m.file)), 4000);
    CS_EQ_U64(m.w.actions, 4000);
    made_done(&m);
}

CS_TEST(csr_events_of_every_size_come_back)
{
    static uint8_t mem[CS_LIMIT_RECORD_FRAME_BYTES];
    static const size_t sizes[] = {15, CS_CSR_PLAIN_BYTES - 4,      CS_CSR_PLAIN_BYTES - 3,
                                   15, CS_LIMIT_RECORD_FRAME_BYTES, 16,
                                   17};
    struct made m;
    made_start(&m);
    for (unsigned i = 0; i < CS_ARRAY_LEN(sizes); i++) {
        struct cs_slice e = event_make(i, sizes[i], mem);
        if (i == 4) {
            cs_random(mem + 15, sizes[i] - 15); /* nothing to compress: it grows */
        }
        made_add(&m, e);
    }
    made_end(&m);
    CS_EQ_U64(read_all(&m, cs_buf_slice(&m.file)), CS_ARRAY_LEN(sizes));
    made_done(&m);
}

CS_TEST(csr_indexes_lead_to_every_reset)
{
    static uint8_t mem[8192];
    struct made m;
    made_start(&m);
    for (unsigned i = 0; i < 5000; i++) {
        made_add(&m, event_make(i, sizeof mem, mem));
        made_flush(&m);
    }
    made_end(&m);
    struct cs_slice file = cs_buf_slice(&m.file);
    struct cs_csr_scanner s;
    unsigned resets = 0, indexed = 0;
    uint64_t offsets[400];
    CS_EQ_U64(cs_csr_scan_start(&s, cs_csr_memory(&file)), CS_OK);
    while (cs_csr_scan_next(&s) == CS_CSR_SCAN_FRAME) {
        if (s.frame.type == CS_CSR_RESET) {
            CS_CHECK(resets < CS_ARRAY_LEN(offsets));
            offsets[resets++] = s.frame_at;
        }
    }
    CS_CHECK(s.ended && resets > 2 * CS_CSR_INDEX_EVERY);
    uint64_t at = s.end.index, left = resets;
    cs_csr_scan_done(&s);
    while (at != 0) { /* backwards, from the END frame on */
        struct cs_csr_frame_head h;
        struct cs_csr_index x;
        CS_CHECK(cs_csr_frame_head_read(cs_slice_from(file, (size_t)at), &h));
        CS_CHECK(cs_csr_index_read(cs_slice(file.p + at + CS_CSR_FRAME_HEAD, h.payload_len), &x));
        for (size_t i = x.n; i > 0; i--) {
            CS_EQ_U64(x.e[i - 1].offset, offsets[--left]);
            indexed++;
        }
        at = x.previous;
    }
    CS_EQ_U64(indexed, resets);
    made_done(&m);
}

CS_TEST(csr_a_second_stream_owner_makes_both_begin_again)
{
    static uint8_t mem[100];
    struct made a, b;
    size_t n = 0;
    made_start(&a);
    made_start(&b);
    for (unsigned i = 0; i < 10; i++) {
        struct made *m = i % 2 == 0 ? &a : &b;
        CS_EQ_U64(cs_csr_add(&m->w, a.s, event_make(i / 2, 50, mem), false, m->now), CS_OK);
        CS_EQ_U64(cs_csr_flush(&m->w, m->gcm, room(m), CS_CSR_FRAME_MAX, &n), CS_OK);
        m->file.len += n;
    }
    CS_EQ_U64(read_all(&a, cs_buf_slice(&a.file)), 5);
    CS_EQ_U64(read_all(&b, cs_buf_slice(&b.file)), 5);
    cs_csr_writer_done(&a.w);
    cs_csr_writer_done(&b.w);
    CS_CHECK(cs_csr_owner(a.s) == NULL);
    cs_csr_stream_free(a.s);
    cs_csr_stream_free(b.s);
    cs_gcm_free(a.gcm);
    cs_gcm_free(b.gcm);
    cs_buf_done(&a.file);
    cs_buf_done(&b.file);
}

/* ---- recovery ---- */

static void resume(struct made *m, struct cs_slice file)
{
    struct cs_csr_tail t;
    size_t n = 0;
    CS_EQ_U64(cs_csr_find_tail(cs_csr_memory(&file), &t), CS_OK);
    cs_csr_writer_done(&m->w);
    m->file.len = (size_t)t.size;
    CS_EQ_U64(cs_csr_resume(&m->w, m->gcm, &m->to, &t, 5, room(m), CS_CSR_FRAME_MAX, &n), CS_OK);
    m->file.len += n;
}

CS_TEST(csr_goes_on_behind_any_torn_tail_with_a_new_key)
{
    static uint8_t mem[1000];
    struct made m;
    made_start(&m);
    size_t whole = m.file.len, before = whole;
    for (unsigned i = 0; i < 3; i++) {
        made_add(&m, event_make(i, 300, mem));
        made_flush(&m);
        before = whole;
        whole = m.file.len;
    }
    uint8_t *copy = cs_alloc(whole);
    memcpy(copy, m.file.p, whole);
    for (size_t cut = before; cut <= whole; cut++) {
        uint8_t old_key[CS_SEAL_KEY];
        m.file.len = cut;
        memcpy(m.file.p, copy, cut);
        memcpy(old_key, m.w.key, sizeof old_key);
        resume(&m, cs_slice(copy, cut));
        CS_CHECK(memcmp(old_key, m.w.key, sizeof old_key) != 0);
        unsigned n = cut == whole ? 3 : 2;
        CS_EQ_U64(m.w.epoch, 2);
        CS_EQ_U64(m.w.seq, n + 1);
        made_add(&m, event_make(n, 100, mem));
        made_end(&m);
        CS_EQ_U64(read_all(&m, cs_buf_slice(&m.file)), n + 1);
    }
    cs_free(copy);
    made_done(&m);
}

CS_TEST(csr_goes_on_behind_a_header_alone)
{
    static uint8_t mem[100];
    struct made m;
    made_start(&m);
    uint8_t copy[CS_CSR_HEAD_MAX];
    memcpy(copy, m.file.p, m.file.len);
    resume(&m, cs_slice(copy, m.file.len));
    made_add(&m, event_make(0, 40, mem));
    made_end(&m);
    CS_EQ_U64(read_all(&m, cs_buf_slice(&m.file)), 1);
    made_done(&m);
}

CS_TEST(csr_does_not_go_on_behind_an_end)
{
    struct cs_csr_tail t;
    struct made m;
    size_t n = 0;
    made_start(&m);
    made_end(&m);
    struct cs_slice file = cs_buf_slice(&m.file);
    CS_EQ_U64(cs_csr_find_tail(cs_csr_memory(&file), &t), CS_OK);
    CS_CHECK(t.ended && t.cut == 0);
    cs_csr_writer_done(&m.w);
    CS_EQ_U64(cs_csr_resume(&m.w, m.gcm, &m.to, &t, 5, room(&m), CS_CSR_FRAME_MAX, &n),
              CS_ERR_CONFLICT);
    made_done(&m);
}

CS_TEST(csr_a_changed_end_is_no_torn_tail)
{
    static uint8_t mem[1000];
    struct cs_csr_tail t;
    struct made m;
    made_start(&m);
    for (unsigned i = 0; i < 40; i++) {
        struct cs_slice e = event_make(i, sizeof mem, mem);
        cs_random(mem + 15, sizeof mem - 15);
        made_add(&m, e);
        made_flush(&m);
    }
    static const uint8_t zeros[2 * CS_CSR_FRAME_MAX + 100];
    cs_buf_add(&m.file, cs_slice(zeros, sizeof zeros));
    struct cs_slice file = cs_buf_slice(&m.file);
    CS_EQ_U64(cs_csr_find_tail(cs_csr_memory(&file), &t), CS_ERR_CORRUPT);
    made_done(&m);
}

/* ---- every change is found ---- */

/* What a check without keys says of a file: true when it is whole, ended and untouched. */
static bool whole(struct cs_slice file, bool *ret_torn)
{
    struct cs_csr_scanner s;
    enum cs_csr_scan got;
    *ret_torn = false;
    if (cs_csr_scan_start(&s, cs_csr_memory(&file)) != CS_OK) {
        return false;
    }
    while ((got = cs_csr_scan_next(&s)) == CS_CSR_SCAN_FRAME) {
    }
    *ret_torn = got == CS_CSR_SCAN_BAD && s.torn;
    bool good = got == CS_CSR_SCAN_EOF && s.ended;
    CS_CHECK(got == CS_CSR_SCAN_EOF || s.why != NULL);
    cs_csr_scan_done(&s);
    return good;
}

enum { SMALL = 6 };

/* A small file and where its frames lie (the last one ends at[n]). */
static size_t small_file(struct made *m, size_t at[static 16])
{
    static uint8_t mem[64];
    size_t n = 0;
    made_start(m);
    for (unsigned i = 0; i < SMALL; i++) {
        at[n++] = m->file.len;
        made_add(m, event_make(i, 40, mem));
        made_flush(m);
    }
    made_end(m);
    struct cs_slice file = cs_buf_slice(&m->file);
    struct cs_csr_scanner s;
    n = 0;
    CS_EQ_U64(cs_csr_scan_start(&s, cs_csr_memory(&file)), CS_OK);
    while (cs_csr_scan_next(&s) == CS_CSR_SCAN_FRAME) {
        CS_CHECK(n < 14);
        at[n++] = (size_t)s.frame_at;
    }
    at[n] = file.n;
    cs_csr_scan_done(&s);
    return n;
}

CS_TEST(csr_every_flipped_bit_is_found)
{
    struct made m;
    size_t at[16];
    bool torn;
    (void)small_file(&m, at);
    CS_CHECK(whole(cs_buf_slice(&m.file), &torn));
    for (size_t i = 0; i < m.file.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            m.file.p[i] ^= (uint8_t)(1u << bit);
            if (whole(cs_buf_slice(&m.file), &torn)) {
                CS_FAIL("bit %u of byte %zu is not found", bit, i);
            }
            m.file.p[i] ^= (uint8_t)(1u << bit);
        }
    }
    made_done(&m);
}

CS_TEST(csr_every_shorter_file_is_unfinished)
{
    struct made m;
    size_t at[16];
    size_t n = small_file(&m, at);
    size_t next = 0;
    for (size_t len = at[0]; len < m.file.len; len++) {
        bool torn;
        CS_CHECK(!whole(cs_slice(m.file.p, len), &torn));
        next += len == at[next];
        CS_CHECK(next <= n);
        bool at_border = next > 0 && len == at[next - 1];
        CS_CHECK(torn == !at_border);
    }
    made_done(&m);
}

/* The frames in another order, or some of them. */
static bool rearranged(const struct made *m, const size_t *at, const size_t *order, size_t n)
{
    struct cs_buf b = cs_buf((size_t)1 << 20);
    bool torn;
    cs_buf_add(&b, cs_slice(m->file.p, at[0]));
    for (size_t i = 0; i < n; i++) {
        cs_buf_add(&b, cs_slice(m->file.p + at[order[i]], at[order[i] + 1] - at[order[i]]));
    }
    bool good = whole(cs_buf_slice(&b), &torn);
    CS_CHECK(!torn);
    cs_buf_done(&b);
    return good;
}

CS_TEST(csr_dropped_doubled_and_moved_frames_are_found)
{
    struct made m;
    size_t at[16], order[16];
    size_t n = small_file(&m, at);
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        for (size_t j = 0; j < n; j++) { /* without i */
            order[k] = j;
            k += j != i;
        }
        CS_CHECK(!rearranged(&m, at, order, n - 1));
        k = 0;
        for (size_t j = 0; j < n; j++) { /* i twice */
            order[k++] = j;
            if (j == i) {
                order[k++] = j;
            }
        }
        CS_CHECK(!rearranged(&m, at, order, n + 1));
        for (size_t j = i + 1; j < n; j++) { /* i and j exchanged */
            for (size_t x = 0; x < n; x++) {
                order[x] = x == i ? j : x == j ? i : x;
            }
            CS_CHECK(!rearranged(&m, at, order, n));
        }
    }
    for (size_t x = 0; x < n; x++) {
        order[x] = x;
    }
    CS_CHECK(rearranged(&m, at, order, n)); /* the arranging itself changes nothing */
    made_done(&m);
}

CS_TEST(csr_frames_of_another_session_are_found)
{
    struct made a, b;
    size_t at_a[16], at_b[16];
    bool torn;
    size_t n = small_file(&a, at_a);
    CS_EQ_U64(small_file(&b, at_b), n);
    for (size_t i = 0; i < n; i++) {
        struct cs_buf f = cs_buf((size_t)1 << 20);
        cs_buf_add(&f, cs_slice(a.file.p, at_a[i]));
        cs_buf_add(&f, cs_slice(b.file.p + at_b[i], b.file.len - at_b[i]));
        CS_CHECK(!whole(cs_buf_slice(&f), &torn) && !torn);
        cs_buf_done(&f);
    }
    cs_csr_writer_done(&b.w);
    cs_csr_stream_free(b.s);
    cs_gcm_free(b.gcm);
    cs_buf_done(&b.file);
    made_done(&a);
}

/* A forger who can compute checksums and the chain, but has no key. */
static void reseal(uint8_t *frame, size_t n, const uint8_t *before)
{
    struct cs_csr_frame_head h;
    struct cs_slice f = cs_slice(frame, n);
    CS_CHECK(cs_csr_frame_head_read(f, &h));
    cs_csr_chain(NULL, before, f, frame + n - CS_SHA256);
    h.crc = cs_csr_crc(f);
    cs_csr_frame_head_write(&h, frame);
}

CS_TEST(csr_a_forger_without_the_key_is_found_by_who_has_it)
{
    struct made m;
    size_t at[16];
    bool torn;
    size_t n = small_file(&m, at);
    m.file.p[at[1] + 24] ^= 1; /* the time of a frame, and everything behind it chained anew */
    for (size_t i = 1; i < n; i++) {
        reseal(m.file.p + at[i], at[i + 1] - at[i], m.file.p + at[i] - CS_SHA256);
    }
    struct cs_slice file = cs_buf_slice(&m.file), plain;
    CS_CHECK(whole(file, &torn)); /* hence the signed log: it holds the chain's last value */
    struct cs_csr_scanner s;
    struct cs_csr_reader *r = cs_csr_reader_new(&m.w.session);
    uint8_t dek[CS_CSR_DEK];
    CS_EQ_U64(cs_csr_scan_start(&s, cs_csr_memory(&file)), CS_OK);
    unwrap(&m, &s.head.keys, 1, dek);
    CS_EQ_U64(cs_csr_reader_key(r, 1, &s.head.keys, dek), CS_OK);
    CS_EQ_U64(cs_csr_scan_next(&s), CS_CSR_SCAN_FRAME);
    CS_EQ_U64(cs_csr_reader_open(r, &s.frame, s.bytes, &plain), CS_OK);
    CS_EQ_U64(cs_csr_scan_next(&s), CS_CSR_SCAN_FRAME);
    CS_EQ_U64(cs_csr_reader_open(r, &s.frame, s.bytes, &plain), CS_ERR_CORRUPT);
    cs_csr_scan_done(&s);
    cs_csr_reader_free(r);
    made_done(&m);
}

CS_TEST(csr_the_wrong_key_is_refused_before_it_opens_anything)
{
    struct made m;
    struct cs_csr_head h;
    uint8_t dek[CS_CSR_DEK];
    made_start(&m);
    CS_CHECK(cs_csr_head_read(cs_buf_slice(&m.file), &h));
    struct cs_csr_reader *r = cs_csr_reader_new(&m.w.session);
    unwrap(&m, &h.keys, 1, dek);
    dek[3] ^= 1;
    CS_EQ_U64(cs_csr_reader_key(r, 1, &h.keys, dek), CS_ERR_CORRUPT);
    dek[3] ^= 1;
    CS_EQ_U64(cs_csr_reader_key(r, 2, &h.keys, dek), CS_ERR_CORRUPT); /* another epoch's */
    CS_EQ_U64(cs_csr_reader_key(r, 1, &h.keys, dek), CS_OK);
    cs_csr_reader_free(r);
    made_done(&m);
}

CS_TEST(csr_the_writer_keeps_no_data_key)
{
    struct made m;
    struct cs_csr_head h;
    uint8_t dek[CS_CSR_DEK];
    made_start(&m);
    CS_CHECK(cs_csr_head_read(cs_buf_slice(&m.file), &h));
    unwrap(&m, &h.keys, 1, dek);
    const uint8_t *p = (const uint8_t *)&m.w;
    for (size_t i = 0; i + sizeof dek <= sizeof m.w; i++) {
        CS_CHECK(memcmp(p + i, dek, sizeof dek) != 0);
    }
    made_done(&m);
}

CS_TEST(csr_a_second_holder_can_unwrap_too)
{
    struct made m;
    struct cs_csr_keys k;
    struct cs_csr_head h;
    uint8_t escrow[CS_X25519], dek[CS_CSR_DEK], again[CS_CSR_DEK], mem[CS_WRAPPED_AAD];
    size_t n = 0;
    made_start(&m);
    cs_csr_writer_done(&m.w);
    m.file.len = 0;
    cs_random(escrow, sizeof escrow);
    m.to.n = 2;
    memcpy(m.to.key[1].name, "escrow", 7);
    CS_EQ_U64(cs_x25519_public(escrow, m.to.key[1].public), CS_OK);
    struct cs_id session = {{1}};
    CS_EQ_U64(cs_csr_begin(&m.w, &m.to, &session, 1, 1, room(&m), CS_CSR_FRAME_MAX, &n), CS_OK);
    CS_CHECK(cs_csr_head_read(cs_slice(m.file.p, n), &h));
    k = h.keys;
    CS_EQ_U64(k.n, 2);
    unwrap(&m, &k, 1, dek);
    CS_EQ_U64(cs_unseal_to(escrow, cs_wrapped_aad(false, &session, 1, mem),
                           cs_slice(k.to[1].wrapped, CS_CSR_WRAPPED), again),
              CS_OK);
    CS_CHECK(memcmp(dek, again, sizeof dek) == 0);
    CS_CHECK(cs_unseal_to(escrow, cs_wrapped_aad(false, &session, 2, mem),
                          cs_slice(k.to[1].wrapped, CS_CSR_WRAPPED), again) == CS_ERR_CORRUPT);
    made_done(&m);
}

CS_TEST(csr_text_compresses_fourfold_in_small_frames)
{
    uint8_t mem[512];
    struct made m;
    uint64_t plain = 0, x = 88172645463325252ULL;
    made_start(&m);
    for (unsigned i = 0; i < 20000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        int n = snprintf(
            (char *)mem, sizeof mem,
            "2026-11-%02u action n=%u outcome=allow rules=read-orders sql=\"select id, item, "
            "price from orders where customer = %llu and state in ('open', 'sent') order "
            "by id limit %u\" rows=%u bytes=%u",
            1 + i % 28, i, (unsigned long long)(x % 1000000), (unsigned)(x % 90), (unsigned)(x % 7),
            (unsigned)(x % 5000));
        made_add(&m, cs_slice(mem, (size_t)n));
        plain += (uint64_t)n;
        if (i % 16 == 15) {
            made_flush(&m);
        }
    }
    made_end(&m);
    CS_CHECK(plain / 4 > m.file.len);
    made_done(&m);
}

CS_TEST(csr_survives_every_failed_allocation)
{
    static uint8_t mem[200];
    struct cs_csr_to to = {.n = 1};
    uint8_t private[CS_X25519];
    cs_random(private, sizeof private);
    CS_EQ_U64(cs_x25519_public(private, to.key[0].public), CS_OK);
    memcpy(to.key[0].name, "k", 2);
    bool done = false;
    uint8_t *out = malloc(CS_CSR_FRAME_MAX);
    CS_OOM_LOOP(done)
    {
        struct cs_csr_writer w = {.epoch = 0};
        struct cs_id session = {{1}};
        size_t n = 0;
        struct cs_gcm *gcm = cs_gcm_new();
        struct cs_csr_stream *s = cs_csr_stream_new();
        bool ok = gcm != NULL && s != NULL;
        ok = ok && cs_csr_begin(&w, &to, &session, 1, 1, out, CS_CSR_FRAME_MAX, &n) == CS_OK;
        ok = ok && cs_csr_add(&w, s, event_make(0, 100, mem), true, 1) == CS_OK;
        ok = ok && cs_csr_flush(&w, gcm, out, CS_CSR_FRAME_MAX, &n) == CS_OK;
        cs_csr_writer_done(&w);
        cs_csr_stream_free(s);
        cs_gcm_free(gcm);
        done = ok;
    }
    CS_CHECK(done);
    free(out);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(csr_file_names_have_one_spelling)
{
    struct cs_id id = {{0xab, 1}}, got;
    char name[CS_CSR_NAME];
    bool foreign;
    uint64_t epoch;
    CS_EQ_STR(cs_slice_str(cs_csr_name(&id, false, 9, name)),
              "ab010000000000000000000000000000.csr");
    CS_CHECK(cs_csr_name_parse(name, &got, &foreign, &epoch) && cs_id_eq(&id, &got) && !foreign);
    CS_EQ_STR(cs_slice_str(cs_csr_name(&id, true, 0x1f, name)),
              "ab010000000000000000000000000000-000000000000001f.csr");
    CS_CHECK(cs_csr_name_parse(name, &got, &foreign, &epoch) && foreign && epoch == 0x1f);
    static const char *const bad[] = {"",
                                      "x.csr",
                                      "AB010000000000000000000000000000.csr",
                                      "ab010000000000000000000000000000.csr.torn",
                                      "ab010000000000000000000000000000-1f.csr",
                                      "ab010000000000000000000000000000-000000000000001F.csr",
                                      "ab010000000000000000000000000000"};
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        CS_CHECK(!cs_csr_name_parse(bad[i], &got, &foreign, &epoch));
    }
}
