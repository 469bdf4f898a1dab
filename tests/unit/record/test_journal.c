#include "record/files.h"
#include "scratch.h"

#include <signal.h>
#include <sys/resource.h>

static struct cs_journal opened(const struct scratch *s, struct cs_journal_recovery *found)
{
    struct cs_journal j;
    *found = (struct cs_journal_recovery){0, 0, 0};
    CS_EQ_U64(cs_journal_open(&j, s->dir, TEST_SEGMENT, journal_ignore, NULL, found), CS_OK);
    return j;
}

static off_t file_size(const struct scratch *s, const char *name)
{
    char path[400];
    struct stat st;
    scratch_path(s, name, path);
    CS_CHECK(stat(path, &st) == 0);
    CS_EQ_U64(st.st_mode & 0777, 0600);
    return st.st_size;
}

CS_TEST(journal_goes_on_where_it_stopped)
{
    struct scratch s = scratch_make();
    struct cs_journal_recovery found;
    for (unsigned round = 0; round < 3; round++) {
        struct cs_journal j = opened(&s, &found);
        CS_EQ_U64(found.entries, round * 20);
        CS_EQ_U64(found.cut_bytes, 0);
        CS_EQ_U64(j.next_seq, 1 + round * 20);
        for (unsigned i = 0; i < 10; i++) {
            journal_note(&j, 9, 1 + round * 10 + i, 1, "hello");
        }
        journal_synced(&j);
        cs_journal_close(&j);
    }
    CS_EQ_U64(file_size(&s, "journal-00000001.csj"), TEST_SEGMENT);
    CS_EQ_U64(scratch_count(&s, ".torn"), 0);
    scratch_done(&s);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(journal_keeps_its_directory_to_itself)
{
    struct scratch s = scratch_make();
    char made[400];
    struct stat st;
    struct cs_journal_recovery found;
    struct cs_journal j = opened(&s, &found), other;
    CS_EQ_U64(cs_journal_open(&other, s.dir, 0, journal_ignore, NULL, &found), CS_ERR_CONFLICT);
    cs_journal_close(&j);
    scratch_path(&s, "new", made);
    CS_EQ_U64(cs_journal_open(&j, made, 0, journal_ignore, NULL, &found), CS_OK);
    cs_journal_close(&j);
    CS_CHECK(stat(made, &st) == 0 && (st.st_mode & 0777) == 0700);
    scratch_path(&s, "new/journal-00000001.csj", made);
    CS_CHECK(stat(made, &st) == 0 && st.st_size == CS_SEGMENT_BYTES);
    CS_CHECK(unlink(made) == 0);
    scratch_path(&s, "new", made);
    CS_CHECK(rmdir(made) == 0);
    scratch_path(&s, "no/such", made);
    CS_EQ_U64(cs_journal_open(&j, made, 0, journal_ignore, NULL, &found), CS_ERR_NOT_FOUND);
    scratch_done(&s);
}

/* One segment with four synced frames and a fifth; returns where each begins. */
static void five_frames(const struct scratch *s, uint64_t ret_starts[static 6])
{
    struct cs_journal_recovery found;
    struct cs_journal j = opened(s, &found);
    for (unsigned i = 0; i < 5; i++) {
        ret_starts[i] = j.at;
        journal_note(&j, 9, 1 + i, 1, "a frame among five");
        journal_synced(&j);
    }
    ret_starts[5] = j.at;
    cs_journal_close(&j);
}

CS_TEST(journal_recovers_from_every_cut_of_the_last_frame)
{
    uint64_t at[6];
    struct scratch probe = scratch_make();
    five_frames(&probe, at);
    scratch_done(&probe);
    for (uint64_t cut = at[4]; cut <= at[5]; cut++) {
        struct scratch s = scratch_make();
        char path[400];
        struct cs_journal_recovery found;
        five_frames(&s, at);
        scratch_path(&s, "journal-00000001.csj", path);
        CS_CHECK(truncate(path, (off_t)cut) == 0);
        struct cs_journal j = opened(&s, &found);
        CS_EQ_U64(found.entries, cut == at[5] ? 10 : 8);
        /* Zeros at the end of a cut frame cannot be told from preallocated ones. */
        CS_CHECK(found.cut_bytes <= cut - at[4]);
        CS_EQ_U64(scratch_count(&s, ".torn"), cut > at[4] && cut < at[5]);
        CS_EQ_U64(cs_seen_high(&j.seen, 9), found.entries / 2);
        journal_note(&j, 9, found.entries / 2 + 1, 1, "after the repair");
        journal_synced(&j);
        cs_journal_close(&j);
        uint64_t before = found.entries;
        j = opened(&s, &found);
        CS_EQ_U64(found.entries, before + 2);
        CS_EQ_U64(found.cut_bytes, 0);
        cs_journal_close(&j);
        scratch_done(&s);
    }
}

CS_TEST(journal_keeps_what_it_cuts_off)
{
    struct scratch s = scratch_make();
    uint64_t at[6];
    char path[400];
    uint8_t torn[64];
    struct cs_journal_recovery found;
    five_frames(&s, at);
    scratch_path(&s, "journal-00000001.csj", path);
    int fd = open(path, O_RDWR);
    CS_CHECK(pwrite(fd, "torn tail of something", 22, (off_t)at[5]) == 22);
    CS_CHECK(close(fd) == 0);
    struct cs_journal j = opened(&s, &found);
    CS_EQ_U64(found.entries, 10);
    CS_EQ_U64(found.cut_bytes, 22);
    cs_journal_close(&j);
    DIR *d = opendir(s.dir);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (cs_slice_ends(cs_slice_str(e->d_name), CS_SLICE_LIT(".torn"))) {
            scratch_path(&s, e->d_name, path);
        }
    }
    (void)closedir(d);
    fd = open(path, O_RDONLY);
    CS_CHECK(read(fd, torn, sizeof torn) == 22);
    CS_EQ_STR(cs_slice(torn, 22), "torn tail of something");
    (void)close(fd);
    scratch_done(&s);
}

CS_TEST(journal_sets_a_segment_without_header_aside)
{
    struct scratch s = scratch_make();
    uint64_t at[6];
    char path[400];
    struct cs_journal_recovery found;
    five_frames(&s, at);
    scratch_path(&s, "journal-00000002.csj", path);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    CS_CHECK(fd >= 0 && write(fd, "garbage", 7) == 7 && close(fd) == 0);
    struct cs_journal j = opened(&s, &found);
    CS_EQ_U64(found.set_aside, 1);
    CS_EQ_U64(found.entries, 10);
    CS_EQ_U64(j.number, 3); /* not again the number of what was set aside */
    CS_EQ_U64(scratch_count(&s, ".torn"), 1);
    cs_journal_close(&j);
    scratch_done(&s);
}

CS_TEST(journal_rotates_and_recovers_over_segments)
{
    struct scratch s = scratch_make();
    struct cs_journal_recovery found;
    struct cs_journal j = opened(&s, &found);
    static char text[100000];
    memset(text, 'x', sizeof text - 1);
    for (unsigned i = 0; i < 60; i++) {
        journal_note(&j, 9, 1 + i, 1, text);
    }
    journal_synced(&j);
    uint32_t last = j.number;
    CS_CHECK(last >= 2);
    cs_journal_close(&j);
    CS_CHECK(file_size(&s, "journal-00000001.csj") < TEST_SEGMENT); /* the rest went back */
    CS_EQ_U64(scratch_count(&s, ".new"), 0);
    j = opened(&s, &found);
    CS_EQ_U64(j.number, last);
    CS_EQ_U64(j.next_seq, 121);
    CS_EQ_U64(cs_seen_high(&j.seen, 9), 60);
    cs_journal_close(&j);
    scratch_done(&s);
}

CS_TEST(journal_finds_frames_of_the_segment_before_an_empty_one)
{
    struct scratch s = scratch_make();
    struct cs_journal_recovery found;
    struct cs_journal j = opened(&s, &found);
    journal_note(&j, 9, 1, 1, "x");
    journal_synced(&j);
    CS_EQ_U64(cs_journal_rotate(&j), CS_OK);
    cs_journal_close(&j);
    j = opened(&s, &found);
    CS_EQ_U64(j.number, 2);
    CS_EQ_U64(j.next_seq, 3);
    CS_EQ_U64(cs_seen_high(&j.seen, 9), 1);
    cs_journal_close(&j);
    scratch_done(&s);
}

CS_TEST(journal_with_no_space_repeats_without_loss)
{
    struct scratch s = scratch_make();
    struct cs_journal_recovery found;
    struct rlimit small = {TEST_SEGMENT / 2, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    (void)signal(SIGXFSZ, SIG_IGN);
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    struct cs_journal j;
    CS_EQ_U64(cs_journal_open(&j, s.dir, TEST_SEGMENT, journal_ignore, NULL, &found),
              CS_ERR_NO_SPACE);
    CS_EQ_U64(scratch_count(&s, ".csj") + scratch_count(&s, ".new"), 0);
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
    j = opened(&s, &found);
    journal_note(&j, 9, 1, 1, "one");
    journal_synced(&j);
    struct rlimit tiny = {j.at + 10, RLIM_INFINITY};
    journal_note(&j, 9, 2, 1, "two");
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &tiny) == 0);
    CS_EQ_U64(cs_journal_sync(&j), CS_ERR_NO_SPACE); /* ten bytes of it are written */
    CS_EQ_U64(cs_journal_sync(&j), CS_ERR_NO_SPACE);
    CS_EQ_U64(cs_journal_room(&j), 0);
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
    journal_synced(&j);
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CS_EQ_U64(cs_journal_rotate(&j), CS_ERR_NO_SPACE);
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
    CS_EQ_U64(cs_journal_rotate(&j), CS_OK);
    journal_note(&j, 9, 3, 1, "three");
    journal_synced(&j);
    cs_journal_close(&j);
    j = opened(&s, &found);
    CS_EQ_U64(found.entries, 6);
    CS_EQ_U64(found.cut_bytes, 0);
    cs_journal_close(&j);
    scratch_done(&s);
}

CS_TEST(journal_open_survives_a_lack_of_memory)
{
    struct scratch s = scratch_make();
    uint64_t at[6];
    bool done = false;
    five_frames(&s, at);
    CS_OOM_LOOP(done)
    {
        struct cs_journal j;
        struct cs_journal_recovery found = {0, 0, 0};
        enum cs_err err = cs_journal_open(&j, s.dir, TEST_SEGMENT, journal_ignore, NULL, &found);
        done = err == CS_OK;
        CS_CHECK(done || err == CS_ERR_NO_MEMORY);
        cs_journal_close(&j);
    }
    CS_CHECK(done);
    CS_EQ_U64(cs_alloc_live(), 0);
    scratch_done(&s);
}

struct counted {
    unsigned bytes, commits;
    uint64_t last;
};

static enum cs_err count_entry(void *arg, const struct cs_journal_entry *e)
{
    struct counted *c = arg;
    c->bytes += e->kind == CS_JOURNAL_BYTES;
    c->commits += e->kind == CS_JOURNAL_COMMIT;
    c->last = e->seq;
    return CS_OK;
}

CS_TEST(journal_forgets_what_has_no_commit_behind_it)
{
    struct scratch s = scratch_make();
    struct cs_journal_recovery found;
    struct counted c = {0, 0, 0};
    struct cs_journal j = opened(&s, &found);
    struct cs_journal_file f = {id_of(1), 9, false};
    journal_note(&j, 9, 1, 1, "with its commit");
    cs_journal_file_write(&f, cs_journal_slot(&j));
    cs_journal_add(&j, CS_JOURNAL_BYTES, 0, CS_JOURNAL_FILE + 10);
    journal_synced(&j); /* the recorder never does that */
    cs_journal_close(&j);
    found = (struct cs_journal_recovery){0, 0, 0};
    CS_EQ_U64(cs_journal_open(&j, s.dir, TEST_SEGMENT, count_entry, &c, &found), CS_OK);
    CS_EQ_U64(c.bytes, 1);
    CS_EQ_U64(c.commits, 1);
    CS_EQ_U64(j.next_seq, 3);
    CS_CHECK(found.cut_bytes > 0);
    CS_EQ_U64(scratch_count(&s, ".torn"), 1);
    cs_journal_close(&j);
    scratch_done(&s);
}

CS_TEST(journal_retires_only_what_it_is_told)
{
    struct scratch s = scratch_make();
    struct cs_journal_recovery found;
    struct cs_journal j = opened(&s, &found);
    for (unsigned i = 0; i < 3; i++) {
        journal_note(&j, 9, 1 + i, 1, "x");
        journal_synced(&j);
        CS_EQ_U64(cs_journal_rotate(&j), CS_OK);
    }
    CS_EQ_U64(scratch_count(&s, ".csj"), 4);
    CS_EQ_U64(cs_journal_retire(&j, 3), CS_OK);
    CS_EQ_U64(scratch_count(&s, ".csj"), 2);
    cs_journal_close(&j);
    j = opened(&s, &found);
    CS_EQ_U64(found.entries, 2);
    CS_EQ_U64(j.number, 4);
    cs_journal_close(&j);
    scratch_done(&s);
}
