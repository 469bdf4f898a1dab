/* Recovery of recordings that were cut, or begun anew, while the journal still has what stood there
 * before: a file holds what was written last, and nothing behind it. */
#include "record/copier.h"
#include "record/csr_read.h"
#include "record/recordings.h"
#include "scratch.h"

#include <ftw.h>

enum { TEXT = 60000, SESSION = 5 };

struct world {
    struct scratch dir;
    struct cs_journal journal;
    struct cs_copier *copier;
    struct cs_recordings *recordings;
    struct cs_ledger *ledger;
    struct cs_csr_to to;
    unsigned repairs; /* leaves that tell of one */
    char repair[CS_LEAF_TEXT_MAX + 1];
};

static void recordings_open(struct world *w)
{
    const char *why = "";
    CS_EQ_U64(cs_ledger_open(w->journal.dir, &w->ledger, &why), CS_OK);
    w->copier = cs_copier_new(w->journal.dir);
    w->recordings = cs_recordings_new(&w->journal, w->copier, w->ledger);
    CS_CHECK(w->copier != NULL && w->recordings != NULL);
}

static void leaf_look(struct world *w, struct cs_slice bytes)
{
    struct cs_leaf l;
    struct cs_id id = id_of(SESSION);
    CS_CHECK(cs_leaf_read(bytes, &l));
    if (l.kind == CS_LEAF_RECOVERY) {
        struct cs_slice what = l.value[CS_KEY_WHAT].bytes;
        CS_EQ_SLICE(l.value[CS_KEY_SESSION].bytes, cs_slice(id.b, sizeof id.b));
        memcpy(w->repair, what.p, what.n);
        w->repair[what.n] = '\0';
        w->repairs++;
    }
}

static enum cs_err take_leaf(struct world *w, const struct cs_journal_entry *e)
{
    if (e->offset >= cs_ledger_size(w->ledger)) {
        leaf_look(w, e->body);
    }
    return cs_ledger_add(w->ledger, e->offset, e->body);
}

static enum cs_err on_entry(void *arg, const struct cs_journal_entry *e)
{
    struct world *w = arg;
    if (w->recordings == NULL) {
        recordings_open(w);
    }
    if (e->kind == CS_JOURNAL_LEAF) {
        return take_leaf(w, e);
    }
    return cs_recordings_recover(w->recordings, e);
}

/* A recorder's start: what the journal has is in its files. */
static void start(struct world *w)
{
    struct cs_journal_recovery found = {0, 0, 0};
    w->recordings = NULL;
    w->repairs = 0;
    CS_EQ_U64(cs_journal_open(&w->journal, w->dir.dir, 0, on_entry, w, &found), CS_OK);
    if (w->recordings == NULL) {
        recordings_open(w);
    }
    cs_recordings_cleared(w->recordings);
    CS_EQ_U64(cs_copier_sync(w->copier), CS_OK);
    cs_recordings_keys(w->recordings, &w->to);
}

/* It is killed: the journal stays as it is. */
static void down(struct world *w)
{
    cs_recordings_free(w->recordings);
    cs_copier_free(w->copier);
    cs_ledger_free(w->ledger);
    cs_journal_close(&w->journal);
}

static struct world world_make(void)
{
    struct world w = {.dir = scratch_make(), .to = {.n = 1}};
    uint8_t private[CS_X25519];
    memset(private, 7, sizeof private);
    (void)snprintf(w.to.key[0].name, CS_CSR_KEY_NAME, "recording/2026-11");
    CS_EQ_U64(cs_x25519_public(private, w.to.key[0].public), CS_OK);
    return w;
}

static void commit(struct world *w)
{
    uint8_t row[16] = {1};
    struct cs_copied got;
    struct cs_journal_entry e;
    CS_EQ_U64(cs_recordings_finish(w->recordings, cs_slice(row, sizeof row)), CS_OK);
    CS_EQ_U64(cs_journal_sync(&w->journal), CS_OK);
    for (size_t at = 0; cs_journal_entry(&w->journal, &at, &e);) {
        if (e.kind == CS_JOURNAL_LEAF) {
            CS_EQ_U64(take_leaf(w, &e), CS_OK);
        }
    }
    cs_copier_copy(w->copier, cs_journal_hand_over(&w->journal));
    cs_recordings_handed(w->recordings);
    CS_CHECK(cs_copier_copied(w->copier, true, &got) && got.err == CS_OK);
    cs_recordings_copied(w->recordings);
}

static enum cs_err add(struct world *w, uint64_t epoch, enum cs_frame_kind kind, size_t n)
{
    static uint8_t text[TEXT], bytes[TEXT + 1000];
    const char *look = NULL;
    struct cs_frame_head head = {kind, 1, id_of(SESSION)};
    struct cs_frame_note note = {.text = cs_slice(text, n)};
    struct cs_frame_session_close end = {.why = CS_SLICE_LIT("closed")};
    struct cs_writer to = cs_writer(bytes, sizeof bytes);
    cs_random(text, n); /* so that it takes room when it is compressed, too */
    cs_frame_encode(&to, &head, kind == CS_FRAME_NOTE ? (const void *)&note : (const void *)&end);
    CS_CHECK(!to.overflow);
    return cs_recordings_add(w->recordings, epoch, &head, cs_writer_done(&to), &look);
}

static void note(struct world *w, uint64_t epoch, size_t n)
{
    CS_EQ_U64(add(w, epoch, CS_FRAME_NOTE, n), CS_OK);
    commit(w);
}

static void path_of(const struct world *w, char out[static 400])
{
    char name[CS_CSR_NAME];
    struct cs_id id = id_of(SESSION);
    scratch_path(&w->dir, cs_csr_name(&id, false, 0, name), out);
}

/* Frames up to the file's very end, which is an END if `ended`. */
static void expect_sound(const struct world *w, uint64_t epoch, uint64_t frames, bool ended)
{
    char path[400];
    struct cs_csr_scanner s;
    struct stat st;
    enum cs_csr_scan got;
    path_of(w, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CS_CHECK(fd >= 0 && fstat(fd, &st) == 0);
    CS_EQ_U64(cs_csr_scan_start(&s, cs_csr_descriptor(&fd, (uint64_t)st.st_size)), CS_OK);
    while ((got = cs_csr_scan_next(&s)) == CS_CSR_SCAN_FRAME) {
    }
    if (got != CS_CSR_SCAN_EOF) {
        CS_FAIL("behind frame %u of %u bytes: %s", (unsigned)s.seq, (unsigned)st.st_size, s.why);
    }
    CS_EQ_U64(s.seq, frames);
    CS_EQ_U64(s.ended, ended);
    CS_EQ_U64(s.head.gate_epoch, epoch);
    cs_csr_scan_done(&s);
    (void)close(fd);
}

/* What there is so far is in its files alone. */
static void retire(struct world *w)
{
    uint64_t size = 0;
    struct cs_audit_hash root;
    CS_EQ_U64(cs_copier_sync(w->copier), CS_OK);
    CS_EQ_U64(cs_ledger_flush(w->ledger, &size, &root), CS_OK);
    CS_EQ_U64(cs_ledger_sync_prepare(w->ledger), CS_OK);
    CS_EQ_U64(cs_ledger_sync_run(w->ledger), CS_OK);
    CS_EQ_U64(cs_ledger_sync_done(w->ledger), CS_OK);
    CS_EQ_U64(cs_journal_rotate(&w->journal), CS_OK);
    CS_EQ_U64(cs_journal_retire(&w->journal, w->journal.number), CS_OK);
}

/* A recording whose first half only the file has, and whose second half the journal has, too; and
 * the recorder is down. */
static struct world halves(void)
{
    struct world w = world_make();
    start(&w);
    note(&w, 1, TEXT);
    retire(&w);
    note(&w, 1, TEXT);
    note(&w, 1, TEXT);
    down(&w);
    return w;
}

static void half_lost(const struct world *w)
{
    char path[400];
    path_of(w, path);
    CS_CHECK(truncate(path, TEXT / 2) == 0);
}

static void head_lost(const struct world *w)
{
    char path[400];
    path_of(w, path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CS_CHECK(fd >= 0 && pwrite(fd, "no head of a recording", 22, 0) == 22 && close(fd) == 0);
}

/* Only one entry of the journal is behind the hole: the recording goes on before it. */
static struct world half_behind_a_hole(void)
{
    struct world w = world_make();
    start(&w);
    note(&w, 1, TEXT);
    retire(&w);
    note(&w, 1, TEXT);
    down(&w);
    half_lost(&w);
    return w;
}

static int file_remove(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void done(struct world *w)
{
    down(w);
    CS_CHECK(nftw(w->dir.dir, file_remove, 8, FTW_DEPTH | FTW_PHYS) == 0);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(recording_that_was_cut_and_ended_has_nothing_behind_its_end_after_another_crash)
{
    struct world w = half_behind_a_hole();
    start(&w);
    CS_EQ_U64(add(&w, 1, CS_FRAME_SESSION_CLOSE, 0), CS_OK);
    commit(&w);
    expect_sound(&w, 1, 4, true); /* RECOVER, the event, INDEX, END */
    for (int i = 0; i < 2; i++) {
        down(&w);
        start(&w);
        expect_sound(&w, 1, 4, true);
        CS_EQ_U64(w.repairs, 1);
        CS_CHECK(strstr(w.repair, " bytes behind frame 0 were cut off") != NULL);
    }
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 1);
    done(&w);
}

CS_TEST(recording_that_was_cut_and_goes_on_is_not_cut_again_after_another_crash)
{
    struct world w = half_behind_a_hole();
    start(&w);
    note(&w, 1, 100);
    expect_sound(&w, 1, 2, false);
    down(&w);
    start(&w);
    note(&w, 1, 100);
    expect_sound(&w, 1, 4, false); /* each RECOVER, each event */
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 1);
    done(&w);
}

CS_TEST(recording_that_was_set_aside_and_begun_anew_ends_where_the_new_one_ends)
{
    struct world w = halves();
    head_lost(&w);
    start(&w);
    note(&w, 1, 100);
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 1);
    expect_sound(&w, 1, 1, false);
    down(&w);
    start(&w);
    expect_sound(&w, 1, 1, false);
    CS_EQ_U64(add(&w, 1, CS_FRAME_SESSION_CLOSE, 0), CS_OK);
    commit(&w);
    down(&w);
    start(&w);
    expect_sound(&w, 1, 5, true);
    CS_EQ_U64(w.repairs, 1);
    CS_EQ_STR(cs_slice_str(w.repair), "a file that was no recording was set aside");
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 1);
    done(&w);
}

/* Bytes that no entry wrote are kept, as they are where a recording is gone on with. */
CS_TEST(bytes_of_somebody_elses_behind_a_recording_that_is_cut_by_recovery_are_kept)
{
    struct world w = half_behind_a_hole();
    char path[400];
    struct stat st;
    start(&w);
    CS_EQ_U64(add(&w, 1, CS_FRAME_SESSION_CLOSE, 0), CS_OK);
    commit(&w);
    down(&w);
    path_of(&w, path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CS_CHECK(fd >= 0 && pwrite(fd, "mine", 4, (off_t)4 * TEXT) == 4 && close(fd) == 0);
    start(&w);
    expect_sound(&w, 1, 4, true);
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 2);
    down(&w);
    start(&w);
    CS_CHECK(stat(path, &st) == 0 && st.st_size < TEXT);
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 2);
    done(&w);
}

/* The other gate lies about the session's id, and comes first after the file was set aside. */
CS_TEST(recording_begun_anew_by_another_gate_is_that_gates_after_recovery)
{
    struct world w = halves();
    bool more = false;
    char path[400];
    path_of(&w, path);
    CS_CHECK(unlink(path) == 0);
    /* What the journal has of it begins in the middle: that is set aside when it is gone on with.
     */
    struct cs_journal_recovery found = {0, 0, 0};
    CS_EQ_U64(cs_journal_open(&w.journal, w.dir.dir, 0, journal_ignore, NULL, &found), CS_OK);
    recordings_open(&w);
    cs_recordings_keys(w.recordings, &w.to);
    note(&w, 2, 100);
    expect_sound(&w, 2, 1, false);
    down(&w);
    start(&w);
    expect_sound(&w, 2, 1, false);
    CS_EQ_U64(cs_recordings_end(w.recordings, 0, NULL, 0, CS_CSR_END_LOST, &more), CS_OK);
    commit(&w);
    expect_sound(&w, 2, 3, true);
    done(&w);
}

/* ---- what only the journal has ---- */

static off_t size_of(const struct world *w)
{
    char path[400];
    struct stat st;
    path_of(w, path);
    CS_CHECK(stat(path, &st) == 0);
    return st.st_size;
}

static void cut_to(const struct world *w, off_t size)
{
    char path[400];
    path_of(w, path);
    CS_CHECK(size > 0 ? truncate(path, size) == 0 : unlink(path) == 0);
}

CS_TEST(recording_whose_end_only_the_journal_has_is_whole_after_it_and_takes_nothing_more)
{
    struct world w = world_make();
    start(&w);
    note(&w, 1, 1000);
    off_t half = size_of(&w);
    CS_EQ_U64(add(&w, 1, CS_FRAME_SESSION_CLOSE, 0), CS_OK);
    commit(&w);
    off_t whole = size_of(&w);
    const off_t left[] = {0, 40, half / 2, half, half + 1, whole - 1, whole};
    for (size_t i = 0; i < CS_ARRAY_LEN(left); i++) {
        down(&w);
        cut_to(&w, left[i]);
        start(&w);
        expect_sound(&w, 1, 4, true); /* both events, INDEX, END */
        CS_EQ_U64(size_of(&w), whole);
        CS_EQ_U64(add(&w, 1, CS_FRAME_NOTE, 10), CS_ERR_CONFLICT);
    }
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 0);
    CS_EQ_U64(w.repairs, 0);
    done(&w);
}

CS_TEST(recording_in_two_segments_is_whole_after_its_file_was_lost_and_goes_on)
{
    struct world w = world_make();
    start(&w);
    note(&w, 1, 1000);
    CS_EQ_U64(cs_journal_rotate(&w.journal), CS_OK);
    note(&w, 1, 1000);
    down(&w);
    cut_to(&w, 0);
    start(&w);
    expect_sound(&w, 1, 2, false);
    note(&w, 1, 1000);
    expect_sound(&w, 1, 4, false);
    down(&w);
    cut_to(&w, 100);
    start(&w);
    expect_sound(&w, 1, 4, false);
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 0);
    done(&w);
}

/* The segment between two others cannot be read, and the file lacks what it had. */
CS_TEST(recording_goes_on_before_a_hole_that_a_damaged_segment_left_and_stays_so)
{
    struct world w = world_make();
    char path[400];
    start(&w);
    note(&w, 1, 1000);
    off_t first = size_of(&w);
    CS_EQ_U64(cs_journal_rotate(&w.journal), CS_OK);
    note(&w, 1, 1000);
    CS_EQ_U64(cs_journal_rotate(&w.journal), CS_OK);
    note(&w, 1, TEXT);
    down(&w);
    cut_to(&w, first);
    scratch_path(&w.dir, "journal-00000002.csj", path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CS_CHECK(fd >= 0 && pwrite(fd, "not an entry", 12, CS_SEGMENT_HEAD) == 12 && close(fd) == 0);
    start(&w);
    note(&w, 1, 100);
    expect_sound(&w, 1, 3, false); /* the event before it, RECOVER, and a new one */
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 2);
    down(&w);
    start(&w);
    expect_sound(&w, 1, 3, false);
    CS_EQ_U64(w.repairs, 1);
    CS_EQ_U64(scratch_count(&w.dir, ".torn"), 2);
    done(&w);
}
