/* A directory as a power loss leaves it: files lack what the recorder's journal has. What the
 * journal completes is intact; what it does not is found as without it; and no journal, old, cut,
 * spliced or made up, makes something intact that is not. */
#include "scene.h"

#include "record/segment.h"

enum { JOURNAL_MAX = 4 << 20 };

struct paper { /* a segment in the making */
    struct cs_buf b;
    uint64_t seq;
};

static struct paper paper(uint32_t number, uint64_t seq)
{
    struct paper p = {cs_buf(JOURNAL_MAX), seq};
    struct cs_segment_head head = {number, seq, 1};
    cs_segment_head_write(&head, cs_buf_room(&p.b, CS_SEGMENT_HEAD));
    p.b.len += CS_SEGMENT_HEAD;
    return p;
}

static void entry(struct paper *p, enum cs_journal_kind kind, uint64_t offset,
                  const struct cs_journal_file *file, struct cs_slice bytes)
{
    size_t n = bytes.n + (file != NULL ? (size_t)CS_JOURNAL_FILE : 0);
    uint8_t *room = cs_buf_room(&p->b, CS_JOURNAL_HEAD + n);
    CS_CHECK(room != NULL);
    if (file != NULL) {
        cs_journal_file_write(file, room + CS_JOURNAL_HEAD);
    }
    memcpy(room + CS_JOURNAL_HEAD + n - bytes.n, bytes.p, bytes.n);
    cs_journal_entry_seal(room, p->seq++, kind, offset, n);
    p->b.len += CS_JOURNAL_HEAD + n;
}

static void commit(struct paper *p)
{
    static const uint8_t row[16] = {99};
    entry(p, CS_JOURNAL_COMMIT, 0, NULL, cs_slice(row, sizeof row));
}

static void put(struct paper *p, const struct scene *s, const char *name)
{
    scene_write(s, name, cs_buf_slice(&p->b));
    cs_buf_done(&p->b);
}

static struct cs_journal_file file_of(uint8_t number)
{
    return (struct cs_journal_file){.session = evidence_id(number), .epoch = 99};
}

#define SEGMENT "journal-00000001.csj"

/* All of a recording, its header and each frame an entry of its own. */
static void whole_recording(struct paper *p, uint8_t number, struct cs_slice file)
{
    struct cs_journal_file f = file_of(number);
    size_t at[SCENE_FRAMES];
    size_t n = scene_frames(file, at);
    entry(p, CS_JOURNAL_BYTES, 0, &f, cs_slice_head(file, at[0]));
    for (size_t i = 0; i < n; i++) {
        entry(p, CS_JOURNAL_BYTES, at[i], &f, cs_slice(file.p + at[i], at[i + 1] - at[i]));
    }
    commit(p);
}

static struct cs_buf journaled(struct scene *s, bool finished)
{
    scene_make(s, 10, finished);
    struct cs_buf one = scene_read(s, ONE);
    struct paper p = paper(1, 1);
    whole_recording(&p, 1, cs_buf_slice(&one));
    put(&p, s, SEGMENT);
    return one;
}

CS_TEST(a_recording_cut_anywhere_is_intact_as_long_as_the_journal_has_the_rest)
{
    struct scene s;
    size_t at[SCENE_FRAMES];
    struct cs_buf one = journaled(&s, true);
    size_t n = scene_frames(cs_buf_slice(&one), at);
    scene_expect(&s, CS_VERDICT_INTACT, "nothing is lacking", 0);
    CS_CHECK(s.report.in_journal.frames == 0 && s.report.frames == 12);
    for (size_t i = 0; i < one.len; i++) {
        size_t lacking = 0;
        scene_write(&s, ONE, cs_slice(one.p, i));
        scene_expect(&s, CS_VERDICT_INTACT, "cut", i);
        for (size_t k = 0; k < n; k++) {
            lacking += at[k + 1] > i;
        }
        CS_EQ_U64(s.report.in_journal.frames, lacking);
        CS_EQ_U64(s.report.frames, 12);
    }
    scene_remove(&s, ONE);
    scene_expect(&s, CS_VERDICT_INTACT, "gone", 0);
    CS_EQ_U64(s.report.in_journal.frames, n);
    struct cs_buf text = cs_buf(64 << 10);
    cs_report_text(&s.report, &text);
    CS_CHECK(strstr(cs_buf_cstr(&text), "Still in the journal: ") != NULL);
    cs_buf_done(&text);
    cs_buf_done(&one);
    scene_done(&s);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(sectors_that_a_disk_did_not_get_are_zero_and_come_from_the_journal)
{
    struct scene s;
    struct cs_buf one = journaled(&s, true), torn = cs_buf(64 << 10);
    for (size_t at = 0; at < one.len; at += CS_VERIFY_SECTOR) {
        torn.len = 0;
        cs_buf_add(&torn, cs_buf_slice(&one));
        memset(torn.p + at, 0, CS_MIN((size_t)CS_VERIFY_SECTOR, torn.len - at));
        scene_write(&s, ONE, cs_buf_slice(&torn));
        scene_expect(&s, CS_VERDICT_INTACT, "a sector of zeros", at);
        CS_CHECK(s.report.in_journal.frames > 0);
    }
    cs_buf_done(&torn);
    cs_buf_done(&one);
    scene_done(&s);
}

CS_TEST(a_flipped_byte_of_a_file_is_tampering_though_the_journal_has_the_right_one)
{
    struct scene s;
    struct cs_buf one = journaled(&s, true);
    for (size_t i = 0; i < one.len; i++) {
        one.p[i] ^= 0x20;
        scene_write(&s, ONE, cs_buf_slice(&one));
        scene_expect(&s, CS_VERDICT_TAMPERED, "flipped", i);
        CS_CHECK(strcmp(s.report.first->file, ONE) == 0);
        scene_write(&s, ONE, cs_slice(one.p, i + 1)); /* and cut behind it */
        scene_expect(&s, CS_VERDICT_TAMPERED, "flipped and cut", i);
        one.p[i] ^= 0x20;
    }
    cs_buf_u8(&one, 'x');
    scene_write(&s, ONE, cs_buf_slice(&one));
    scene_expect(&s, CS_VERDICT_TAMPERED, "longer", 0);
    cs_buf_done(&one);
    scene_done(&s);
}

CS_TEST(a_journal_that_is_cut_changed_or_without_its_commit_completes_nothing)
{
    struct scene s;
    struct cs_buf one = journaled(&s, true), journal = scene_read(&s, SEGMENT);
    scene_write(&s, ONE, cs_slice(one.p, one.len - 1));
    scene_expect(&s, CS_VERDICT_INTACT, "with all of it", 0);
    for (size_t n = 0; n < journal.len; n += 7) {
        scene_write(&s, SEGMENT, cs_slice(journal.p, n));
        scene_expect(&s, CS_VERDICT_TAMPERED, "journal cut", n);
    }
    for (size_t i = 0; i < journal.len; i += 5) {
        journal.p[i] ^= 0x20;
        scene_write(&s, SEGMENT, cs_buf_slice(&journal));
        scene_expect(&s, CS_VERDICT_TAMPERED, "journal flipped", i);
        journal.p[i] ^= 0x20;
    }
    scene_remove(&s, SEGMENT);
    scene_expect(&s, CS_VERDICT_TAMPERED, "journal gone", 0);
    CS_CHECK(s.report.n_notes > 0);
    scene_write(&s, "journal-00000002.csj", cs_buf_slice(&journal));
    scene_expect(&s, CS_VERDICT_TAMPERED, "under another number", 0);
    cs_buf_done(&journal);
    cs_buf_done(&one);
    scene_done(&s);
}

/* What stands behind the last COMMIT was acknowledged to nobody, and its next start cuts it off. */
CS_TEST(entries_behind_the_last_commit_do_not_count)
{
    struct scene s;
    size_t at[SCENE_FRAMES];
    scene_make(&s, 10, true);
    struct cs_buf one = scene_read(&s, ONE);
    size_t n = scene_frames(cs_buf_slice(&one), at);
    struct cs_journal_file f = file_of(1);
    struct paper p = paper(1, 1);
    commit(&p);
    entry(&p, CS_JOURNAL_BYTES, at[n - 1], &f, cs_slice(one.p + at[n - 1], at[n] - at[n - 1]));
    put(&p, &s, SEGMENT);
    scene_write(&s, ONE, cs_slice(one.p, at[n - 1]));
    scene_expect(&s, CS_VERDICT_TAMPERED, "not committed", 0);
    cs_buf_done(&one);
    scene_done(&s);
}

CS_TEST(frames_of_another_session_or_another_place_in_the_journal_complete_nothing)
{
    struct scene s;
    size_t a[SCENE_FRAMES], b[SCENE_FRAMES];
    scene_make(&s, 10, true);
    struct cs_buf one = scene_read(&s, ONE), two = scene_read(&s, TWO);
    size_t n = scene_frames(cs_buf_slice(&one), a), m = scene_frames(cs_buf_slice(&two), b);
    struct cs_journal_file f = file_of(1);
    scene_write(&s, ONE, cs_slice(one.p, a[n - 1]));
    for (size_t k = 0; k < m; k++) {
        struct paper p = paper(1, 1);
        entry(&p, CS_JOURNAL_BYTES, a[n - 1], &f, cs_slice(two.p + b[k], b[k + 1] - b[k]));
        commit(&p);
        put(&p, &s, SEGMENT);
        scene_expect(&s, CS_VERDICT_TAMPERED, "another session's frame", k);
    }
    for (size_t k = 0; k + 1 < n; k++) {
        struct paper p = paper(1, 1);
        entry(&p, CS_JOURNAL_BYTES, a[n - 1], &f, cs_slice(one.p + a[k], a[k + 1] - a[k]));
        commit(&p);
        put(&p, &s, SEGMENT);
        scene_expect(&s, CS_VERDICT_TAMPERED, "an earlier frame again", k);
    }
    /* Over what the file has, the journal says something else: one of the two was changed. */
    scene_write(&s, ONE, cs_buf_slice(&one));
    struct paper p = paper(1, 1);
    entry(&p, CS_JOURNAL_BYTES, a[1], &f, cs_slice(two.p + b[0], b[1] - b[0]));
    commit(&p);
    put(&p, &s, SEGMENT);
    scene_expect(&s, CS_VERDICT_TAMPERED, "other bytes in the journal", 0);
    CS_CHECK(strstr(s.report.first->why, "journal") != NULL);
    cs_buf_done(&one);
    cs_buf_done(&two);
    scene_done(&s);
}

CS_TEST(an_old_journal_beside_a_file_that_is_cut_further_on_completes_nothing)
{
    struct scene s;
    size_t at[SCENE_FRAMES];
    scene_make(&s, 10, true);
    struct cs_buf one = scene_read(&s, ONE);
    size_t n = scene_frames(cs_buf_slice(&one), at);
    struct cs_journal_file f = file_of(1);
    struct paper p = paper(1, 1);
    entry(&p, CS_JOURNAL_BYTES, 0, &f, cs_slice(one.p, at[1]));
    commit(&p);
    put(&p, &s, SEGMENT);
    scene_expect(&s, CS_VERDICT_INTACT, "the file has more", 0);
    scene_write(&s, ONE, cs_slice(one.p, at[n - 1]));
    scene_expect(&s, CS_VERDICT_TAMPERED, "both end too early", 0);
    scene_remove(&s, ONE);
    scene_expect(&s, CS_VERDICT_TAMPERED, "only the journal's beginning", 0);
    /* A newer one, behind a hole: a copy's files are older than its journal. */
    struct paper later = paper(1, 1);
    entry(&later, CS_JOURNAL_BYTES, at[n - 1], &f, cs_slice(one.p + at[n - 1], at[n] - at[n - 1]));
    commit(&later);
    put(&later, &s, SEGMENT);
    scene_expect(&s, CS_VERDICT_MISSING, "no beginning", 0);
    scene_write(&s, ONE, cs_slice(one.p, at[1]));
    scene_expect(&s, CS_VERDICT_TAMPERED, "a hole", 0);
    cs_buf_done(&one);
    scene_done(&s);
}

CS_TEST(a_session_that_only_a_journal_has_and_no_leaf_knows_was_put_there)
{
    struct scene s, other;
    struct evidence e;
    struct evidence_session x;
    scene_make(&s, 10, true);
    scene_make(&other, 0, true);
    evidence_begin(&e, other.dir);
    evidence_open(&x, &e, 9);
    evidence_frame(&x, 10);
    evidence_close(&x, false);
    evidence_save(&x);
    evidence_done(&e);
    struct cs_buf file = scene_read(&other, "09090909090909090909090909090909.csr");
    struct paper p = paper(1, 1);
    whole_recording(&p, 9, cs_buf_slice(&file));
    put(&p, &s, SEGMENT);
    scene_expect(&s, CS_VERDICT_TAMPERED, "planted in the journal", 0);
    cs_buf_done(&file);
    scene_done(&s);
    scene_done(&other);
}

/* The journal wins where a recording was cut and went on: only the later bytes count. */
CS_TEST(what_the_journal_says_later_about_a_place_is_what_counts)
{
    struct scene s;
    size_t at[SCENE_FRAMES];
    scene_make(&s, 10, true);
    struct cs_buf one = scene_read(&s, ONE);
    size_t n = scene_frames(cs_buf_slice(&one), at);
    struct cs_journal_file f = file_of(1);
    struct paper p = paper(1, 1);
    entry(&p, CS_JOURNAL_BYTES, at[1], &f, cs_slice(one.p + at[0], at[2] - at[1]));
    commit(&p);
    put(&p, &s, SEGMENT);
    struct paper q = paper(2, p.seq);
    entry(&q, CS_JOURNAL_BYTES, at[1], &f, cs_slice(one.p + at[1], at[n] - at[1]));
    commit(&q);
    put(&q, &s, "journal-00000002.csj");
    scene_expect(&s, CS_VERDICT_INTACT, "the file has it", 0);
    scene_write(&s, ONE, cs_slice(one.p, at[1]));
    scene_expect(&s, CS_VERDICT_INTACT, "cut", 0);
    CS_EQ_U64(s.report.in_journal.frames, n - 1);
    cs_buf_done(&one);
    scene_done(&s);
}

/* ---- the log ---- */

/* All leaves of the log from `from` on, as the journal has them; and what `head` says of the size
 * `from`. */
static void leaves(struct scene *s, struct paper *p, uint64_t from)
{
    static const char *const names[] = {"log/tile/entries/000", "log/tile/entries/001.p/60"};
    uint64_t index = 0;
    struct cs_audit_tree tree = {.size = 0};
    struct cs_audit_checkpoint head = {.origin = CS_SLICE_LIT("countersign/head")};
    for (size_t i = 0; i < CS_ARRAY_LEN(names); i++) {
        struct cs_buf bundle = scene_read(s, names[i]);
        struct cs_slice rest = cs_buf_slice(&bundle), leaf;
        while (cs_audit_bundle_next(&rest, &leaf)) {
            if (index == from) {
                cs_audit_tree_root(&tree, &head.root);
            }
            if (index >= from) {
                entry(p, CS_JOURNAL_LEAF, index, NULL, leaf);
            }
            struct cs_audit_hash h;
            cs_audit_leaf_hash(leaf, &h);
            cs_audit_tree_add(&tree, &h);
            index++;
        }
        cs_buf_done(&bundle);
    }
    commit(p);
    CS_EQ_U64(index, 316);
    if (from > 0) {
        struct cs_buf text = cs_buf(1024);
        head.size = from;
        cs_audit_checkpoint_write(&head, &text);
        scene_write(s, "log/head", cs_buf_slice(&text));
        cs_buf_done(&text);
    }
}

static const char *const log_files[] = {"log/tile/0/000", "log/tile/0/001.p/60",
                                        "log/tile/1/000.p/1", "log/tile/entries/000",
                                        "log/tile/entries/001.p/60"};

CS_TEST(files_of_the_log_that_a_power_loss_took_come_from_the_journal)
{
    struct scene s;
    scene_make(&s, 300, true);
    struct paper p = paper(1, 1);
    leaves(&s, &p, 0);
    put(&p, &s, SEGMENT);
    scene_expect(&s, CS_VERDICT_INTACT, "nothing is lacking", 0);
    CS_EQ_U64(s.report.in_journal.leaves, 0);
    for (size_t i = 0; i < CS_ARRAY_LEN(log_files); i++) {
        struct cs_buf file = scene_read(&s, log_files[i]);
        scene_remove(&s, log_files[i]);
        scene_expect(&s, CS_VERDICT_INTACT, log_files[i], i);
        CS_EQ_U64(s.report.in_journal.leaves, 316);
        scene_write(&s, log_files[i], CS_SLICE_NULL);
        scene_expect(&s, CS_VERDICT_INTACT, "empty", i);
        scene_write(&s, log_files[i], cs_slice(file.p, file.len / 2));
        scene_expect(&s, CS_VERDICT_INTACT, "half", i);
        for (size_t at = 0; at < file.len; at += 1 + file.len / 40) {
            file.p[at] ^= 0x20;
            scene_write(&s, log_files[i], cs_buf_slice(&file));
            scene_expect(&s, CS_VERDICT_TAMPERED, "flipped", at);
            file.p[at] ^= 0x20;
        }
        scene_write(&s, log_files[i], cs_buf_slice(&file));
        cs_buf_done(&file);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(log_files); i++) {
        scene_remove(&s, log_files[i]);
    }
    scene_expect(&s, CS_VERDICT_INTACT, "all of them", 0);
    scene_remove(&s, SEGMENT);
    scene_expect(&s, CS_VERDICT_MISSING, "and the journal", 0);
    scene_done(&s);
}

CS_TEST(a_journal_without_a_leaf_that_is_needed_or_with_another_one_makes_no_log)
{
    struct scene s;
    scene_make(&s, 300, true);
    struct paper whole = paper(1, 1), late = paper(1, 1);
    leaves(&s, &whole, 0);
    leaves(&s, &late, 270); /* `head` says 270 */
    struct cs_buf last = scene_read(&s, log_files[4]), first = scene_read(&s, log_files[3]);
    struct cs_buf tile = scene_read(&s, log_files[0]);
    scene_remove(&s, log_files[4]);
    scene_write(&s, SEGMENT, cs_buf_slice(&late.b));
    /* Its partial files of 270 leaves, which `head` promises, are not there. */
    scene_expect(&s, CS_VERDICT_MISSING, "behind the head", 0);
    scene_write(&s, SEGMENT, cs_buf_slice(&whole.b));
    scene_expect(&s, CS_VERDICT_MISSING, "a head that the files do not give", 0);
    scene_remove(&s, "log/head");
    scene_expect(&s, CS_VERDICT_INTACT, "from the beginning", 0);
    scene_write(&s, "log/head", CS_SLICE_LIT("nonsense\n"));
    scene_expect(&s, CS_VERDICT_MISSING, "a hostile head", 0);
    scene_remove(&s, "log/head");
    struct paper other = paper(1, 1); /* another leaf in the place of the last one */
    struct cs_slice all = cs_buf_slice(&last), leaf = CS_SLICE_NULL, before = CS_SLICE_NULL;
    struct cs_slice rest = cs_buf_slice(&first);
    uint64_t index = 0;
    while (cs_audit_bundle_next(&rest, &leaf)) {
        entry(&other, CS_JOURNAL_LEAF, index++, NULL, leaf);
    }
    while (cs_audit_bundle_next(&all, &leaf)) {
        entry(&other, CS_JOURNAL_LEAF, index++, NULL, all.n == 0 ? before : leaf);
        before = leaf;
    }
    commit(&other);
    put(&other, &s, SEGMENT);
    scene_expect(&s, CS_VERDICT_TAMPERED, "another leaf", 0);
    cs_buf_done(&whole.b);
    cs_buf_done(&late.b);
    cs_buf_done(&last);
    cs_buf_done(&first);
    cs_buf_done(&tile);
    scene_done(&s);
}

/* ---- export ---- */

static bool into(void *ctx, struct cs_slice bytes)
{
    cs_buf_add(ctx, bytes);
    return true;
}

static struct cs_buf exported(const struct scene *s, uint8_t number)
{
    struct cs_report report;
    struct cs_id id = evidence_id(number);
    struct cs_buf out = cs_buf(JOURNAL_MAX);
    int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct cs_verify v = {.dir = dir, .session = &id};
    cs_report_init(&report, "");
    CS_CHECK(cs_verify_export(&v, (struct cs_verify_sink){into, &out}, &report));
    CS_CHECK(report.worst == CS_VERDICT_INTACT && !out.bad);
    cs_report_done(&report);
    (void)close(dir);
    return out;
}

CS_TEST(a_bundle_made_with_the_journal_is_the_one_that_the_whole_files_give)
{
    struct scene s;
    scene_make(&s, 300, true);
    struct cs_buf one = scene_read(&s, ONE), before = exported(&s, 1);
    struct paper p = paper(1, 1);
    whole_recording(&p, 1, cs_buf_slice(&one));
    leaves(&s, &p, 0);
    put(&p, &s, SEGMENT);
    scene_write(&s, ONE, cs_slice(one.p, one.len / 3));
    for (size_t i = 0; i < CS_ARRAY_LEN(log_files); i++) {
        scene_remove(&s, log_files[i]);
    }
    struct cs_buf after = exported(&s, 1);
    CS_CHECK(cs_slice_eq(cs_buf_slice(&before), cs_buf_slice(&after)));
    scene_remove(&s, ONE);
    cs_buf_done(&after);
    after = exported(&s, 1);
    CS_CHECK(cs_slice_eq(cs_buf_slice(&before), cs_buf_slice(&after)));
    cs_buf_done(&one);
    cs_buf_done(&before);
    cs_buf_done(&after);
    scene_done(&s);
}
