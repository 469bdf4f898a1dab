/* Recordings beyond the reach of 32 bits: a writer that is made to begin shortly before each limit
 * goes over it, and what it wrote is found and read. The gigabytes before are a hole. */
#include "base/time.h"
#include "record/copier.h"
#include "record/csr_read.h"
#include "scratch.h"

enum { FRAMES = 150, APART = 11 }; /* seconds: each frame is a RESET */
#define LIMIT (UINT64_C(1) << 32)

struct far {
    struct cs_csr_to to;
    uint8_t private[CS_X25519];
    struct cs_gcm *gcm;
    struct cs_csr_writer w;
    struct cs_csr_stream *s;
    uint8_t head[CS_CSR_HEAD_MAX];
    size_t head_n;
    uint64_t base; /* of bytes, in the file */
    struct cs_buf bytes;
    uint64_t at[FRAMES], ns[FRAMES];
};

static size_t far_read(void *arg, uint64_t at, void *into, size_t n)
{
    const struct far *f = arg;
    uint8_t *to = into;
    uint64_t end = f->base + f->bytes.len;
    n = at < end ? (size_t)CS_MIN((uint64_t)n, end - at) : 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t k = at + i;
        if (k >= f->base) {
            to[i] = f->bytes.p[k - f->base];
        } else if (k >= f->base - CS_SHA256) { /* what the first frame is chained to */
            to[i] = f->head[f->head_n - (f->base - k)];
        } else {
            to[i] = k < f->head_n ? f->head[k] : 0;
        }
    }
    return n;
}

static struct cs_csr_source far_source(struct far *f)
{
    return (struct cs_csr_source){f, f->base + f->bytes.len, far_read};
}

static uint8_t *far_room(struct far *f)
{
    uint8_t *p = cs_buf_room(&f->bytes, 64 * 1024);
    CS_CHECK(p != NULL);
    return p;
}

static void far_start(struct far *f)
{
    struct cs_id session = id_of(9);
    *f = (struct far){.bytes = cs_buf((size_t)64 << 20)};
    cs_random(f->private, sizeof f->private);
    f->to.n = 1;
    memcpy(f->to.key[0].name, "recording/2026-11", 18);
    CS_EQ_U64(cs_x25519_public(f->private, f->to.key[0].public), CS_OK);
    f->gcm = cs_gcm_new();
    f->s = cs_csr_stream_new();
    CS_CHECK(f->gcm != NULL && f->s != NULL);
    CS_EQ_U64(cs_csr_begin(&f->w, &f->to, &session, 5, 1, f->head, sizeof f->head, &f->head_n),
              CS_OK);
    /* Half of the frames before each limit. */
    f->base = f->w.offset = LIMIT - (uint64_t)FRAMES / 2 * 250;
    f->w.seq = UINT32_MAX - FRAMES / 2;
    f->w.events = f->w.actions = UINT32_MAX - FRAMES / 2;
    f->w.plain_bytes = UINT32_MAX - 1000;
}

static void far_write(struct far *f)
{
    uint8_t event[64];
    uint64_t now = cs_wall_ms() * CS_NS_PER_MS;
    size_t n = 0;
    for (size_t i = 0; i < FRAMES; i++) {
        f->ns[i] = now + i * APART * CS_NS_PER_S;
        f->at[i] = f->w.offset;
        cs_random(event, sizeof event);
        memcpy(event, &i, sizeof i);
        CS_EQ_U64(cs_csr_add(&f->w, f->s, cs_slice(event, sizeof event), true, f->ns[i]), CS_OK);
        CS_EQ_U64(cs_csr_flush(&f->w, f->gcm, far_room(f), 64 * 1024, &n), CS_OK);
        f->bytes.len += n;
        if (cs_csr_index_is_due(&f->w)) {
            CS_EQ_U64(cs_csr_index_frame(&f->w, f->gcm, far_room(f), 64 * 1024, &n), CS_OK);
            f->bytes.len += n;
        }
    }
    CS_CHECK(f->at[0] < LIMIT && f->w.offset > LIMIT);
    CS_CHECK(f->w.seq > UINT32_MAX && f->w.events > UINT32_MAX && f->w.plain_bytes > UINT32_MAX);
}

static void far_end(struct far *f)
{
    size_t n = 0;
    CS_EQ_U64(cs_csr_index_frame(&f->w, f->gcm, far_room(f), 64 * 1024, &n), CS_OK);
    f->bytes.len += n;
    CS_EQ_U64(cs_csr_end_frame(&f->w, f->gcm, CS_CSR_END_CLOSED, 1, far_room(f), 64 * 1024, &n),
              CS_OK);
    f->bytes.len += n;
}

static void far_done(struct far *f)
{
    cs_csr_writer_done(&f->w);
    cs_csr_stream_free(f->s);
    cs_gcm_free(f->gcm);
    cs_buf_done(&f->bytes);
    CS_EQ_U64(cs_alloc_live(), 0);
}

static void expect_tail(const struct far *f, const struct cs_csr_tail *tail, bool ended)
{
    CS_EQ_U64(tail->size, f->w.offset);
    CS_EQ_U64(tail->seq, f->w.seq);
    CS_EQ_U64(tail->cut, 0);
    CS_CHECK(tail->ended == ended);
    CS_CHECK(memcmp(tail->chain, f->w.chain, CS_SHA256) == 0);
}

/* From this frame on: number i comes first, and all others after it. */
static void expect_from(struct far *f, size_t i)
{
    struct cs_csr_scanner s;
    struct cs_slice plain, event;
    uint8_t mem[CS_WRAPPED_AAD], dek[CS_CSR_DEK];
    CS_EQ_U64(cs_csr_scan_start(&s, far_source(f)), CS_OK);
    CS_EQ_U64(cs_unseal_to(f->private, cs_wrapped_aad(false, &f->w.session, 1, mem),
                           cs_slice(s.head.keys.to[0].wrapped, CS_CSR_WRAPPED), dek),
              CS_OK);
    struct cs_csr_reader *r = cs_csr_reader_new(&f->w.session);
    CS_EQ_U64(cs_csr_reader_key(r, 1, &s.head.keys, dek), CS_OK);
    CS_EQ_U64(cs_csr_scan_seek(&s, f->at[i]), CS_OK);
    enum cs_csr_scan got;
    while ((got = cs_csr_scan_next(&s)) == CS_CSR_SCAN_FRAME) {
        CS_EQ_U64(cs_csr_reader_open(r, &s.frame, s.bytes, &plain), CS_OK);
        while (cs_csr_event_next(&plain, &event)) {
            CS_CHECK(memcmp(event.p, &i, sizeof i) == 0);
            i++;
        }
    }
    if (got != CS_CSR_SCAN_EOF) {
        CS_FAIL("from frame %zu: %s", i, s.why);
    }
    CS_EQ_U64(i, FRAMES);
    cs_csr_reader_free(r);
    cs_csr_scan_done(&s);
}

CS_TEST(far_recording_is_sought_and_read_across_4_gib)
{
    static struct far f;
    struct cs_csr_tail tail;
    far_start(&f);
    far_write(&f);
    far_end(&f);
    CS_EQ_U64(cs_csr_find_tail(far_source(&f), &tail), CS_OK);
    expect_tail(&f, &tail, true);
    for (size_t i = 0; i < FRAMES; i++) {
        CS_EQ_U64(cs_csr_find_reset(far_source(&f), &tail, f.ns[i] + 1), f.at[i]);
    }
    expect_from(&f, 0);
    expect_from(&f, FRAMES / 2);
    expect_from(&f, FRAMES - 1);
    far_done(&f);
}

CS_TEST(far_recording_without_an_end_is_gone_on_with)
{
    static struct far f;
    struct cs_csr_tail tail;
    size_t n = 0;
    far_start(&f);
    far_write(&f);
    CS_EQ_U64(cs_csr_find_tail(far_source(&f), &tail), CS_OK);
    expect_tail(&f, &tail, false);
    cs_csr_writer_done(&f.w);
    CS_EQ_U64(cs_csr_resume(&f.w, f.gcm, &f.to, &tail, 1, far_room(&f), 64 * 1024, &n), CS_OK);
    f.bytes.len += n;
    CS_EQ_U64(f.w.epoch, 2);
    CS_EQ_U64(cs_csr_find_tail(far_source(&f), &tail), CS_OK);
    expect_tail(&f, &tail, false);
    /* The last epoch there is: none may come after it, or its keys would come again. */
    tail.epoch = UINT32_MAX;
    struct cs_csr_writer w = {.epoch = 0};
    CS_EQ_U64(cs_csr_resume(&w, f.gcm, &f.to, &tail, 1, far_room(&f), 64 * 1024, &n),
              CS_ERR_CONFLICT);
    far_done(&f);
}

CS_TEST(far_bytes_are_copied_to_their_place_in_a_file)
{
    static struct far f;
    struct scratch dir = scratch_make();
    struct cs_csr_tail tail;
    char path[400], name[CS_CSR_NAME];
    struct stat st;
    far_start(&f);
    far_write(&f);
    int fd = open(dir.dir, O_RDONLY | O_DIRECTORY);
    CS_CHECK(fd >= 0);
    struct cs_copier *c = cs_copier_new(fd);
    CS_CHECK(c != NULL);
    const struct cs_journal_file file = {f.w.session, 5, false};
    CS_EQ_U64(cs_copier_put(c, &file, 0, cs_slice(f.head, f.head_n)), CS_OK);
    for (size_t at = 0, n; at < f.bytes.len; at += n) {
        n = CS_MIN(f.bytes.len - at, (size_t)1000);
        CS_EQ_U64(cs_copier_put(c, &file, f.base + at, cs_slice(f.bytes.p + at, n)), CS_OK);
    }
    CS_EQ_U64(cs_copier_look(c, &file, &tail), CS_OK);
    expect_tail(&f, &tail, false);
    scratch_path(&dir, cs_csr_name(&f.w.session, false, 0, name), path);
    CS_CHECK(stat(path, &st) == 0);
    CS_EQ_U64((uint64_t)st.st_size, f.w.offset);
    CS_EQ_U64(cs_copier_cut(c, &file, f.at[FRAMES - 1]), CS_OK); /* above 4 GiB, too */
    CS_CHECK(stat(path, &st) == 0);
    CS_EQ_U64((uint64_t)st.st_size, f.at[FRAMES - 1]);
    cs_copier_free(c);
    (void)close(fd);
    scratch_done(&dir);
    far_done(&f);
}
