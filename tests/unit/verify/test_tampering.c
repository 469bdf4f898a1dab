/* Every change to a small set of evidence, one by one: found, called by its name, and put where it
 * is. tests/peer/test_verify.py has the second verifier agree. */
#include "scene.h"

CS_TEST(untouched_evidence_is_intact_and_an_open_session_makes_it_unfinished)
{
    struct scene s;
    scene_make(&s, 300, true);
    scene_expect(&s, CS_VERDICT_INTACT, "untouched", 0);
    CS_EQ_U64(s.report.complete, 3);
    CS_CHECK(s.report.n == 0 && s.report.frames == 12);
    struct cs_buf older = scene_read(&s, "older");
    CS_CHECK(scene_check(&s, cs_buf_slice(&older)) == CS_VERDICT_INTACT);
    cs_buf_done(&older);
    scene_done(&s);
    scene_make(&s, 20, false);
    scene_expect(&s, CS_VERDICT_UNFINISHED, "untouched", 0);
    CS_CHECK(s.report.complete == 2 && s.report.open == 1);
    scene_done(&s);
    CS_EQ_U64(cs_alloc_live(), 0);
}

static void flip_all(struct scene *s, const char *name, size_t step)
{
    struct cs_buf file = scene_read(s, name);
    for (size_t at = 0; at < file.len; at += step) {
        file.p[at] ^= 0x20;
        scene_write(s, name, cs_buf_slice(&file));
        scene_expect(s, CS_VERDICT_TAMPERED, name, at);
        CS_CHECK(s->report.first->file[0] != 0);
        file.p[at] ^= 0x20;
    }
    scene_write(s, name, cs_buf_slice(&file));
    cs_buf_done(&file);
}

CS_TEST(every_flipped_byte_of_a_complete_recording_and_of_the_checkpoint_is_tampering)
{
    struct scene s;
    scene_make(&s, 10, true);
    flip_all(&s, ONE, 1);
    flip_all(&s, TWO, 1);
    flip_all(&s, "log/checkpoint", 1);
    scene_expect(&s, CS_VERDICT_INTACT, "put right again", 0);
    scene_done(&s);
}

CS_TEST(flipped_bytes_of_leaves_and_tiles_are_tampering)
{
    struct scene s;
    scene_make(&s, 300, true);
    flip_all(&s, "log/tile/entries/000", 61);
    flip_all(&s, "log/tile/entries/001.p/60", 17);
    flip_all(&s, "log/tile/0/000", 31);
    flip_all(&s, "log/tile/0/001.p/60", 7);
    flip_all(&s, "log/tile/1/000.p/1", 1);
    scene_done(&s);
}

/* What the log has not anchored yet cannot be told from a crash; all before can. */
CS_TEST(a_flipped_byte_of_an_open_recording_is_never_intact_and_tampering_before_its_anchor)
{
    struct scene s;
    size_t at[SCENE_FRAMES];
    scene_make(&s, 10, false);
    struct cs_buf file = scene_read(&s, THREE);
    CS_EQ_U64(scene_frames(cs_buf_slice(&file), at), 2);
    for (size_t i = 0; i < file.len; i++) {
        file.p[i] ^= 1;
        scene_write(&s, THREE, cs_buf_slice(&file));
        enum cs_verdict v = scene_check(&s, CS_SLICE_NULL);
        CS_CHECK(v == CS_VERDICT_TAMPERED || (v == CS_VERDICT_UNFINISHED && i >= at[1]));
        file.p[i] ^= 1;
    }
    cs_buf_done(&file);
    scene_done(&s);
}

CS_TEST(a_recording_cut_anywhere_is_tampering_and_one_that_is_gone_is_missing)
{
    struct scene s;
    scene_make(&s, 10, true);
    struct cs_buf file = scene_read(&s, ONE);
    for (size_t n = 0; n < file.len; n++) {
        scene_write(&s, ONE, cs_slice(file.p, n));
        scene_expect(&s, CS_VERDICT_TAMPERED, "cut", n);
    }
    cs_buf_u8(&file, 0);
    scene_write(&s, ONE, cs_buf_slice(&file));
    scene_expect(&s, CS_VERDICT_TAMPERED, "longer", file.len);
    scene_remove(&s, ONE);
    scene_expect(&s, CS_VERDICT_MISSING, "gone", 0);
    CS_CHECK(strcmp(s.report.first->file, ONE) == 0 && s.report.first->has_leaf);
    cs_buf_done(&file);
    scene_done(&s);
}

/* Frame k of a file, as it stands. */
static struct cs_slice frame(const struct cs_buf *file, const size_t *at, size_t k)
{
    return cs_slice(file->p + at[k], at[k + 1] - at[k]);
}

static void expect_frames(struct scene *s, const struct cs_buf *file, const size_t *at,
                          const size_t *order, size_t n, const char *what)
{
    struct cs_buf out = cs_buf((size_t)1 << 20);
    cs_buf_add(&out, cs_slice(file->p, at[0]));
    for (size_t i = 0; i < n; i++) {
        cs_buf_add(&out, frame(file, at, order[i]));
    }
    scene_write(s, ONE, cs_buf_slice(&out));
    scene_expect(s, CS_VERDICT_TAMPERED, what, order[0]);
    CS_CHECK(strcmp(s->report.first->file, ONE) == 0 && s->report.first->frame > 0);
    cs_buf_done(&out);
}

CS_TEST(frames_left_out_doubled_or_in_another_order_are_tampering)
{
    struct scene s;
    size_t at[SCENE_FRAMES], order[SCENE_FRAMES];
    scene_make(&s, 10, true);
    struct cs_buf file = scene_read(&s, ONE);
    size_t n = scene_frames(cs_buf_slice(&file), at);
    for (size_t k = 0; k < n; k++) {
        size_t m = 0;
        for (size_t i = 0; i < n; i++) {
            if (i != k) {
                order[m++] = i;
            }
        }
        expect_frames(&s, &file, at, order, m, "left out");
        m = 0;
        for (size_t i = 0; i < n; i++) {
            order[m++] = i;
            if (i == k) {
                order[m++] = i;
            }
        }
        expect_frames(&s, &file, at, order, m, "doubled");
        for (size_t other = k + 1; other < n; other++) {
            for (size_t i = 0; i < n; i++) {
                order[i] = i == k ? other : i == other ? k : i;
            }
            expect_frames(&s, &file, at, order, n, "swapped");
        }
    }
    cs_buf_done(&file);
    scene_done(&s);
}

CS_TEST(two_sessions_spliced_or_under_each_others_names_are_tampering)
{
    struct scene s;
    size_t a[SCENE_FRAMES], b[SCENE_FRAMES];
    scene_make(&s, 10, true);
    struct cs_buf one = scene_read(&s, ONE), two = scene_read(&s, TWO);
    size_t n = scene_frames(cs_buf_slice(&one), a), m = scene_frames(cs_buf_slice(&two), b);
    for (size_t k = 0; k < CS_MIN(n, m); k++) {
        struct cs_buf out = cs_buf((size_t)1 << 20);
        cs_buf_add(&out, cs_slice(one.p, a[k]));
        cs_buf_add(&out, cs_slice(two.p + b[k], two.len - b[k]));
        scene_write(&s, ONE, cs_buf_slice(&out));
        scene_expect(&s, CS_VERDICT_TAMPERED, "spliced", k);
        cs_buf_done(&out);
    }
    scene_write(&s, ONE, cs_buf_slice(&two));
    scene_write(&s, TWO, cs_buf_slice(&one));
    scene_expect(&s, CS_VERDICT_TAMPERED, "exchanged", 0);
    cs_buf_done(&one);
    cs_buf_done(&two);
    scene_done(&s);
}

/* Whoever changes a frame and makes all checksums and the chain right again is found by the log. */
static void remake(struct cs_buf *file, const size_t *at, size_t n, size_t from)
{
    for (size_t k = from; k < n; k++) {
        uint8_t *p = file->p + at[k];
        size_t size = at[k + 1] - at[k];
        uint8_t chain[CS_SHA256];
        cs_csr_chain(NULL, p - CS_SHA256, cs_slice(p, size), chain);
        memcpy(p + size - CS_SHA256, chain, CS_SHA256);
        uint32_t crc = cs_csr_crc(cs_slice(p, size));
        for (unsigned i = 0; i < 4; i++) {
            p[CS_CSR_CRC_AT + i] = (uint8_t)(crc >> (8 * i));
        }
    }
}

CS_TEST(a_recording_rewritten_with_a_chain_of_its_own_is_found_by_the_log)
{
    struct scene s;
    size_t at[SCENE_FRAMES];
    scene_make(&s, 10, true);
    struct cs_buf file = scene_read(&s, ONE);
    size_t n = scene_frames(cs_buf_slice(&file), at);
    for (size_t k = 0; k < n; k++) {
        size_t where = at[k + 1] - CS_SHA256 - CS_SEAL_TAG; /* the tag: nobody without keys knows */
        file.p[where] ^= 1;
        remake(&file, at, n, k);
        struct cs_slice is = cs_buf_slice(&file);
        CS_CHECK(scene_frames(is, at) == n); /* well-formed all the same */
        scene_write(&s, ONE, is);
        scene_expect(&s, CS_VERDICT_TAMPERED, "rewritten", k);
        CS_CHECK(s.report.first->has_leaf && s.report.first->frame > k);
        file.p[where] ^= 1;
        remake(&file, at, n, k);
    }
    scene_write(&s, ONE, cs_buf_slice(&file));
    scene_expect(&s, CS_VERDICT_INTACT, "put right again", 0);
    cs_buf_done(&file);
    scene_done(&s);
}

CS_TEST(a_recording_that_the_log_does_not_know_was_put_there)
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
    scene_write(&s, "09090909090909090909090909090909.csr", cs_buf_slice(&file));
    scene_expect(&s, CS_VERDICT_TAMPERED, "planted", 0);
    cs_buf_done(&file);
    scene_done(&s);
    scene_done(&other);
}

CS_TEST(a_log_file_that_is_gone_is_missing_and_the_recordings_are_still_looked_at)
{
    static const char *const names[] = {"log/checkpoint",       "log/tile/0/000",
                                        "log/tile/0/001.p/60",  "log/tile/1/000.p/1",
                                        "log/tile/entries/000", "log/tile/entries/001.p/60",
                                        "log/log.pub"};
    struct scene s;
    scene_make(&s, 300, true);
    for (size_t i = 0; i < CS_ARRAY_LEN(names); i++) {
        struct cs_buf file = scene_read(&s, names[i]);
        scene_remove(&s, names[i]);
        scene_expect(&s, CS_VERDICT_MISSING, names[i], i);
        CS_CHECK(strcmp(s.report.first->file, names[i]) == 0);
        CS_EQ_U64(s.report.frames, 12);
        scene_write(&s, names[i], cs_buf_slice(&file));
        cs_buf_done(&file);
    }
    scene_done(&s);
}

CS_TEST(a_log_rolled_back_is_found_with_a_checkpoint_that_was_kept_and_said_without)
{
    struct scene s, before;
    scene_make(&s, 20, true);
    struct cs_buf newest = scene_read(&s, "log/checkpoint"), older = scene_read(&s, "older");
    scene_write(&s, "log/checkpoint", cs_buf_slice(&older));
    /* The files are there, the old checkpoint is put in front of them. */
    CS_CHECK(scene_check(&s, cs_buf_slice(&newest)) == CS_VERDICT_TAMPERED);
    CS_CHECK(strstr(s.report.first->why, "shorter") != NULL);
    CS_CHECK(scene_check(&s, CS_SLICE_NULL) != CS_VERDICT_INTACT); /* ends without their leaves */
    CS_CHECK(s.report.n_notes > 0);
    /* Another log of the same key. */
    scene_make(&before, 22, true);
    CS_CHECK(scene_check(&before, cs_buf_slice(&newest)) == CS_VERDICT_TAMPERED);
    cs_buf_done(&newest);
    cs_buf_done(&older);
    scene_done(&s);
    scene_done(&before);
}

CS_TEST(links_pipes_and_directories_in_the_place_of_files_are_not_followed)
{
    struct scene s;
    char path[300], to[300];
    scene_make(&s, 10, true);
    struct cs_buf file = scene_read(&s, ONE);
    scene_path(&s, ONE, path);
    scene_path(&s, "elsewhere", to);
    scene_write(&s, "elsewhere", cs_buf_slice(&file));
    scene_remove(&s, ONE);
    CS_CHECK(symlink(to, path) == 0);
    scene_expect(&s, CS_VERDICT_TAMPERED, "link", 0);
    CS_CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    scene_expect(&s, CS_VERDICT_TAMPERED, "pipe", 0);
    CS_CHECK(unlink(path) == 0 && mkdir(path, 0700) == 0);
    scene_expect(&s, CS_VERDICT_TAMPERED, "directory", 0);
    cs_buf_done(&file);
    scene_done(&s);
}

CS_TEST(the_worst_verdict_wins_and_each_has_its_status)
{
    static const int want[] = {1, 3, 2, 0};
    struct cs_report r;
    struct cs_id id = evidence_id(1), other = evidence_id(2);
    cs_report_init(&r, "x");
    for (unsigned v = CS_VERDICT_INTACT + 1; v-- > 0;) {
        CS_EQ_U64((unsigned)cs_verdict_exit((enum cs_verdict)v), (unsigned)want[v]);
        (void)cs_report_add(&r, (enum cs_verdict)v, NULL, "found %u", v);
        CS_CHECK(r.worst == (enum cs_verdict)v);
    }
    (void)cs_report_add(&r, CS_VERDICT_UNFINISHED, &id, "later");
    CS_CHECK(r.worst == CS_VERDICT_TAMPERED);
    cs_report_done(&r);
    cs_report_init(&r, "x");
    r.only = &id;
    (void)cs_report_add(&r, CS_VERDICT_TAMPERED, &other, "another session");
    CS_CHECK(r.worst == CS_VERDICT_INTACT && r.n == 0);
    for (unsigned i = 0; i < CS_REPORT_FINDINGS + 7; i++) {
        (void)cs_report_add(&r, CS_VERDICT_UNFINISHED, &id, "many");
    }
    CS_EQ_U64(r.left_out, 7);
    (void)cs_report_add(&r, CS_VERDICT_TAMPERED, &id, "the last one");
    CS_CHECK(r.worst == CS_VERDICT_TAMPERED); /* counts though it is not kept */
    cs_report_done(&r);
}

CS_TEST(what_comes_from_the_evidence_is_printed_safely)
{
    struct cs_report r;
    struct cs_buf text = cs_buf(1 << 16);
    cs_report_init(&r, "x");
    (void)cs_report_add(&r, CS_VERDICT_TAMPERED, NULL, "a \"quoted\" \x1b[2Jname\n\xe2\x80\xae \\");
    cs_report_text(&r, &text);
    cs_report_json(&r, &text);
    CS_CHECK(memchr(text.p, 0x1b, text.len) == NULL && memchr(text.p, 0xe2, text.len) == NULL);
    CS_CHECK(strstr(cs_buf_cstr(&text), "a \\\"quoted\\\" ?[2Jname???? \\\\") != NULL);
    cs_buf_done(&text);
    cs_report_done(&r);
}

CS_TEST(checking_a_directory_survives_every_allocation_failure)
{
    struct scene s;
    bool done = false;
    scene_make(&s, 0, true);
    CS_OOM_LOOP(done)
    {
        done = scene_check(&s, CS_SLICE_NULL) == CS_VERDICT_INTACT;
    }
    CS_CHECK(done);
    scene_done(&s);
}
