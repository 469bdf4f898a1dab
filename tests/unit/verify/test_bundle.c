/* Bundles: made from the files, checked alone, and with every byte changed. */
#include "scene.h"
#include "verify/ustar.h"

static bool put(void *ctx, struct cs_slice bytes)
{
    cs_buf_add(ctx, bytes);
    return !((struct cs_buf *)ctx)->bad;
}

static bool export(struct scene *s, uint8_t session, struct cs_buf *out)
{
    struct cs_id id = evidence_id(session);
    int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct cs_verify v = {.dir = dir, .session = &id};
    *out = cs_buf((size_t)8 << 20);
    cs_report_done(&s->report);
    cs_report_init(&s->report, "");
    bool ok = cs_verify_export(&v, (struct cs_verify_sink){put, out}, &s->report);
    (void)close(dir);
    return ok;
}

static enum cs_verdict check(struct cs_slice file, const struct cs_audit_key *key,
                             struct cs_report *r)
{
    cs_report_init(r, "");
    cs_verify_bundle(cs_csr_memory(&file), key, r);
    return r->worst;
}

static void expect(struct cs_slice file, enum cs_verdict want, const char *what, size_t at)
{
    struct cs_report r;
    enum cs_verdict is = check(file, NULL, &r);
    if (is != want) {
        CS_FAIL("%s, %zu: %s, not %s", what, at, cs_verdict_name(is), cs_verdict_name(want));
    }
    cs_report_done(&r);
}

CS_TEST(a_bundle_of_a_session_verifies_alone)
{
    struct scene s;
    struct cs_buf b;
    struct cs_report r;
    scene_make(&s, 300, false);
    for (uint8_t i = 1; i <= 3; i++) {
        CS_CHECK(export(&s, i, &b));
        struct cs_slice file = cs_buf_slice(&b);
        CS_CHECK(cs_verify_is_bundle(cs_csr_memory(&file)));
        expect(file, i == 3 ? CS_VERDICT_UNFINISHED : CS_VERDICT_INTACT, "bundle", i);
        cs_buf_done(&b);
    }
    CS_CHECK(export(&s, 1, &b));
    CS_CHECK(check(cs_buf_slice(&b), NULL, &r) == CS_VERDICT_INTACT);
    CS_CHECK(r.log_size == 315 && r.complete == 1 && r.n_notes == 2);
    cs_report_done(&r);
    /* rules, open, held, vote, use, result, anchor, close: eight leaves, and four other
     * members */
    size_t n = 0;
    for (size_t at = 0; at + CS_USTAR_BLOCK <= b.len; n++) {
        char name[CS_USTAR_NAME_MAX + 1];
        uint64_t size;
        if (!cs_ustar_read(b.p + at, name, &size)) {
            break;
        }
        at += CS_USTAR_BLOCK + (size_t)size + cs_ustar_padding(size);
    }
    CS_EQ_U64(n, 8 + 3);
    cs_buf_done(&b);
    scene_done(&s);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(a_bundle_with_any_byte_changed_or_cut_anywhere_is_tampered_with)
{
    struct scene s;
    struct cs_buf b;
    scene_make(&s, 10, true);
    CS_CHECK(export(&s, 1, &b));
    for (size_t at = 0; at < b.len; at++) {
        b.p[at] ^= 4;
        expect(cs_buf_slice(&b), CS_VERDICT_TAMPERED, "byte", at);
        b.p[at] ^= 4;
    }
    for (size_t n = 0; n < b.len; n += 13) {
        expect(cs_slice(b.p, n), CS_VERDICT_TAMPERED, "cut", n);
    }
    cs_buf_u8(&b, 0);
    expect(cs_buf_slice(&b), CS_VERDICT_TAMPERED, "longer", 0);
    cs_buf_done(&b);
    scene_done(&s);
}

/* Members are where each begins; the last value is where the closing blocks begin. */
static size_t members(const struct cs_buf *b, size_t at[static SCENE_FRAMES])
{
    size_t n = 0;
    char name[CS_USTAR_NAME_MAX + 1];
    uint64_t size;
    at[0] = 0;
    while (cs_ustar_read(b->p + at[n], name, &size)) {
        CS_CHECK(n + 1 < SCENE_FRAMES);
        at[n + 1] = at[n] + CS_USTAR_BLOCK + (size_t)size + cs_ustar_padding(size);
        n++;
    }
    return n;
}

CS_TEST(members_of_a_bundle_left_out_doubled_or_moved_are_never_intact)
{
    struct scene s;
    struct cs_buf b;
    struct cs_report r;
    size_t at[SCENE_FRAMES];
    scene_make(&s, 10, true);
    CS_CHECK(export(&s, 1, &b));
    size_t n = members(&b, at);
    for (size_t k = 0; k < n; k++) {
        struct cs_buf out = cs_buf((size_t)8 << 20);
        cs_buf_add(&out, cs_slice(b.p, at[k + 1]));
        cs_buf_add(&out, cs_slice(b.p + at[k], b.len - at[k]));
        expect(cs_buf_slice(&out), CS_VERDICT_TAMPERED, "doubled", k);
        out.len = at[k];
        cs_buf_add(&out, cs_slice(b.p + at[k + 1], b.len - at[k + 1]));
        enum cs_verdict v = check(cs_buf_slice(&out), NULL, &r);
        /* That a leaf is left out of a bundle shows only where another one needs it; the whole log
         * tells the rest, and the bundle's check says so. */
        bool leaf = k > 1 && k + 1 < n;
        CS_CHECK(v == CS_VERDICT_TAMPERED || (leaf && r.n_notes == 2));
        cs_report_done(&r);
        if (k + 1 < n) {
            out.len = at[k];
            cs_buf_add(&out, cs_slice(b.p + at[k + 1], at[k + 2] - at[k + 1]));
            cs_buf_add(&out, cs_slice(b.p + at[k], at[k + 1] - at[k]));
            cs_buf_add(&out, cs_slice(b.p + at[k + 2], b.len - at[k + 2]));
            expect(cs_buf_slice(&out), CS_VERDICT_TAMPERED, "moved", k);
        }
        cs_buf_done(&out);
    }
    cs_buf_done(&b);
    scene_done(&s);
}

CS_TEST(a_bundle_checks_against_the_key_that_was_given)
{
    struct scene s;
    struct cs_buf b;
    struct cs_report r;
    struct cs_audit_key key, other;
    uint8_t public[CS_ED25519_KEY], private[CS_ED25519_KEY] = {8};
    scene_make(&s, 0, true);
    struct cs_buf text = scene_read(&s, "log/log.pub");
    CS_CHECK(cs_audit_key_read(cs_slice_trim(cs_buf_slice(&text)), &key) == CS_OK);
    CS_CHECK(cs_ed25519_public(private, public) == CS_OK);
    CS_CHECK(cs_audit_key_make(cs_slice_str(key.name), public, &other) == CS_OK);
    CS_CHECK(export(&s, 1, &b));
    CS_CHECK(check(cs_buf_slice(&b), &key, &r) == CS_VERDICT_INTACT && r.n_notes == 1);
    cs_report_done(&r);
    CS_CHECK(check(cs_buf_slice(&b), &other, &r) == CS_VERDICT_TAMPERED);
    cs_report_done(&r);
    cs_buf_done(&text);
    cs_buf_done(&b);
    scene_done(&s);
}

CS_TEST(nothing_is_exported_that_does_not_verify)
{
    struct scene s;
    struct cs_buf b;
    scene_make(&s, 10, true);
    CS_CHECK(!export(&s, 7, &b) && b.len == 0 && s.report.worst == CS_VERDICT_MISSING);
    cs_buf_done(&b);
    struct cs_buf file = scene_read(&s, ONE);
    file.p[file.len / 2] ^= 1;
    scene_write(&s, ONE, cs_buf_slice(&file));
    CS_CHECK(!export(&s, 1, &b) && b.len == 0 && s.report.worst == CS_VERDICT_TAMPERED);
    cs_buf_done(&b);
    CS_CHECK(export(&s, 2, &b)); /* another session's damage is not this one's */
    cs_buf_done(&b);
    scene_remove(&s, ONE);
    CS_CHECK(!export(&s, 1, &b) && b.len == 0 && s.report.worst == CS_VERDICT_MISSING);
    cs_buf_done(&b);
    scene_remove(&s, "log/checkpoint");
    CS_CHECK(!export(&s, 2, &b) && b.len == 0);
    cs_buf_done(&b);
    cs_buf_done(&file);
    scene_done(&s);
}

CS_TEST(exporting_and_checking_survive_every_allocation_failure)
{
    struct scene s;
    struct cs_buf b;
    bool done = false;
    scene_make(&s, 0, true);
    CS_OOM_LOOP(done)
    {
        bool ok = export(&s, 1, &b);
        struct cs_report r;
        cs_report_init(&r, "");
        if (ok) {
            struct cs_slice file = cs_buf_slice(&b);
            cs_verify_bundle(cs_csr_memory(&file), NULL, &r);
            done = r.worst == CS_VERDICT_INTACT;
        }
        cs_report_done(&r);
        cs_buf_done(&b);
    }
    CS_CHECK(done);
    scene_done(&s);
}
