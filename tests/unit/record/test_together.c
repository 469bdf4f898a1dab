/* What many sessions wait for, compressed on two threads and copied on a third: each recording
 * holds its own events, all of them, in order. */
#include "record/copier.h"
#include "record/csr_read.h"
#include "record/recordings.h"
#include "scratch.h"

#include <signal.h>
#include <sys/resource.h>

enum { SESSIONS = 64, BATCHES = 12, TEXT_MAX = 90000 };

struct together {
    struct scratch dir;
    struct cs_journal journal;
    struct cs_copier *copier;
    struct cs_recordings *recordings;
    uint8_t private[CS_X25519];
    struct cs_csr_to to;
};

static enum cs_err nothing(void *arg, const struct cs_journal_entry *e)
{
    (void)arg;
    (void)e;
    return CS_OK;
}

static void begin(struct together *t, bool help)
{
    struct cs_journal_recovery found = {0, 0, 0};
    *t = (struct together){.dir = scratch_make(), .to = {.n = 1}};
    cs_random(t->private, sizeof t->private);
    (void)snprintf(t->to.key[0].name, CS_CSR_KEY_NAME, "recording/2026-11");
    CS_EQ_U64(cs_x25519_public(t->private, t->to.key[0].public), CS_OK);
    CS_EQ_U64(cs_journal_open(&t->journal, t->dir.dir, 0, nothing, NULL, &found), CS_OK);
    t->copier = cs_copier_new(t->journal.dir);
    t->recordings = cs_recordings_new(&t->journal, t->copier, NULL);
    CS_CHECK(t->copier != NULL && t->recordings != NULL);
    cs_recordings_keys(t->recordings, &t->to);
    if (help) {
        cs_recordings_help(t->recordings, 0);
    }
}

/* Of the session `of` in this batch: every length from nothing to more than one frame takes. */
static size_t frame_make(uint8_t *out, unsigned of, unsigned batch)
{
    static uint8_t text[TEXT_MAX];
    size_t n = (size_t)(of * 37 + batch * 1009) % 700;
    n = of % 16 == batch % 16 ? TEXT_MAX - of : n;
    for (size_t i = 0; i < n; i++) {
        text[i] = (uint8_t)('a' + (i * (of + 3) + batch) % 23);
    }
    struct cs_frame_head head = {CS_FRAME_NOTE, 1, id_of((uint8_t)(1 + of))};
    struct cs_frame_note note = {.text = cs_slice(text, n)};
    struct cs_writer w = cs_writer(out, CS_LIMIT_RECORD_FRAME_BYTES);
    cs_frame_encode(&w, &head, &note);
    CS_CHECK(!w.overflow);
    return w.len;
}

static void hand_over(struct together *t, bool wait)
{
    struct cs_copied got;
    CS_CHECK(cs_copier_copied(t->copier, true, &got) && got.err == CS_OK);
    cs_recordings_copied(t->recordings);
    cs_copier_copy(t->copier, cs_journal_hand_over(&t->journal));
    cs_recordings_handed(t->recordings);
    if (wait) {
        CS_CHECK(cs_copier_copied(t->copier, true, &got) && got.err == CS_OK);
    }
}

static void write_batch(struct together *t, unsigned sessions, unsigned batch)
{
    static uint8_t bytes[CS_LIMIT_RECORD_FRAME_BYTES];
    uint8_t row[16] = {1};
    const char *look = NULL;
    for (unsigned i = 0; i < sessions; i++) {
        struct cs_slice frame = cs_slice(bytes, frame_make(bytes, i, batch));
        struct cs_frame_head head;
        CS_CHECK(cs_frame_decode_head(frame, &head) && cs_recordings_have_room(t->recordings));
        CS_EQ_U64(cs_recordings_add(t->recordings, 1, &head, frame, &look), CS_OK);
    }
    CS_EQ_U64(cs_recordings_finish(t->recordings, cs_slice(row, sizeof row)), CS_OK);
    CS_EQ_U64(cs_journal_sync(&t->journal), CS_OK);
    hand_over(t, batch + 1 == BATCHES);
}

static void key_of(struct together *t, struct cs_csr_reader *r, const struct cs_csr_head *h)
{
    uint8_t mem[CS_WRAPPED_AAD], dek[CS_WRAPPED_KEY];
    CS_EQ_U64(cs_unseal_to(t->private, cs_wrapped_aad(false, &h->session, 1, mem),
                           cs_slice(h->keys.to[0].wrapped, CS_WRAPPED_BOX), dek),
              CS_OK);
    CS_EQ_U64(cs_csr_reader_key(r, 1, &h->keys, dek), CS_OK);
}

static void expect_recording(struct together *t, unsigned of)
{
    static uint8_t expected[CS_LIMIT_RECORD_FRAME_BYTES];
    char name[CS_CSR_NAME];
    struct cs_csr_scanner s;
    struct cs_slice plain, event;
    struct stat st;
    struct cs_id id = id_of((uint8_t)(1 + of));
    unsigned batch = 0;
    int fd = openat(t->journal.dir, cs_csr_name(&id, false, 0, name), O_RDONLY | O_CLOEXEC);
    CS_CHECK(fd >= 0 && fstat(fd, &st) == 0);
    CS_EQ_U64(cs_csr_scan_start(&s, cs_csr_descriptor(&fd, (uint64_t)st.st_size)), CS_OK);
    struct cs_csr_reader *r = cs_csr_reader_new(&s.head.session);
    CS_CHECK(r != NULL);
    key_of(t, r, &s.head);
    while (cs_csr_scan_next(&s) == CS_CSR_SCAN_FRAME) {
        CS_EQ_U64(cs_csr_reader_open(r, &s.frame, s.bytes, &plain), CS_OK);
        while (cs_csr_event_next(&plain, &event)) {
            size_t n = frame_make(expected, of, batch++);
            CS_CHECK(event.n == n && memcmp(event.p, expected, n) == 0);
        }
    }
    CS_EQ_U64(batch, BATCHES);
    cs_csr_reader_free(r);
    cs_csr_scan_done(&s);
    (void)close(fd);
}

static void run(bool help, unsigned sessions)
{
    static struct together t;
    begin(&t, help);
    for (unsigned batch = 0; batch < BATCHES; batch++) {
        write_batch(&t, sessions, batch);
    }
    for (unsigned i = 0; i < sessions; i++) {
        expect_recording(&t, i);
    }
    cs_recordings_free(t.recordings);
    cs_copier_free(t.copier);
    cs_journal_close(&t.journal);
    scratch_done(&t.dir);
}

CS_TEST(batches_of_many_sessions_that_two_threads_compress_hold_each_its_own_events)
{
    run(true, SESSIONS);
}

CS_TEST(batches_of_few_sessions_with_a_helper_hold_each_its_own_events)
{
    run(true, 3);
}

CS_TEST(batches_of_many_sessions_that_one_thread_compresses_hold_each_its_own_events)
{
    run(false, SESSIONS);
}

CS_TEST(copier_that_finds_no_space_says_so_and_copies_all_of_it_when_asked_again)
{
    static struct together t;
    struct cs_copied got;
    begin(&t, false);
    struct rlimit all, little = {100, RLIM_INFINITY};
    CS_CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && getrlimit(RLIMIT_FSIZE, &all) == 0);
    little.rlim_max = all.rlim_max;
    for (unsigned batch = 0; batch + 1 < BATCHES; batch++) {
        write_batch(&t, SESSIONS, batch);
    }
    CS_CHECK(cs_copier_copied(t.copier, true, &got) && got.err == CS_OK);
    cs_recordings_copied(t.recordings);
    static uint8_t bytes[CS_LIMIT_RECORD_FRAME_BYTES];
    uint8_t row[16] = {1};
    const char *look = NULL;
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct cs_slice frame = cs_slice(bytes, frame_make(bytes, i, BATCHES - 1));
        struct cs_frame_head head;
        CS_CHECK(cs_frame_decode_head(frame, &head));
        CS_EQ_U64(cs_recordings_add(t.recordings, 1, &head, frame, &look), CS_OK);
    }
    CS_EQ_U64(cs_recordings_finish(t.recordings, cs_slice(row, sizeof row)), CS_OK);
    CS_EQ_U64(cs_journal_sync(&t.journal), CS_OK);
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &little) == 0);
    cs_copier_copy(t.copier, cs_journal_hand_over(&t.journal));
    while (!cs_copier_copied(t.copier, false, &got)) {
    }
    CS_EQ_U64(got.err, CS_ERR_NO_SPACE);
    CS_CHECK(cs_copier_copied(t.copier, true, &got) && got.err == CS_ERR_NO_SPACE);
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &all) == 0);
    CS_CHECK(cs_copier_copied(t.copier, true, &got) && got.err == CS_OK);
    for (unsigned i = 0; i < SESSIONS; i++) {
        expect_recording(&t, i);
    }
    cs_recordings_free(t.recordings);
    cs_copier_free(t.copier);
    cs_journal_close(&t.journal);
    scratch_done(&t.dir);
}
