#include "record/crc32c.h"
#include "scratch.h"

static size_t build(uint8_t *out, unsigned frames)
{
    struct cs_segment_head h = {7, 100, 5};
    cs_segment_head_write(&h, out);
    size_t at = CS_SEGMENT_HEAD;
    for (unsigned i = 0; i < frames; i++) {
        size_t n = note_frame(out + at + CS_JOURNAL_HEAD, 200, 1, CS_SLICE_LIT("hello"));
        cs_journal_entry_seal(out + at, 100 + i, CS_JOURNAL_BYTES, 1 + i, n);
        at += CS_JOURNAL_HEAD + n;
    }
    return at;
}

/* How many frames a scan finds, and how it ends. */
static unsigned scan(const uint8_t *p, size_t n, enum cs_scan *ret_end, size_t *ret_at)
{
    struct cs_segment_scan s;
    struct cs_segment_head h;
    struct cs_journal_entry f;
    unsigned count = 0;
    /* An exact heap block: a byte read behind it is seen. */
    uint8_t *copy = malloc(n + (n == 0));
    memcpy(copy, p, n);
    CS_CHECK(cs_segment_scan_start(cs_slice(copy, n), &s, &h));
    while ((*ret_end = cs_segment_scan_next(&s, &f)) == CS_SCAN_ENTRY) {
        CS_EQ_U64(f.seq, 100 + count);
        CS_EQ_U64(f.offset, 1 + count);
        CS_EQ_U64(f.kind, CS_JOURNAL_BYTES);
        count++;
    }
    *ret_at = s.at;
    free(copy);
    return count;
}

CS_TEST(crc32c_gives_the_published_value)
{
    CS_EQ_U64(cs_crc32c(0, CS_SLICE_LIT("123456789")), 0xe3069283);
    uint8_t zeros[32] = {0};
    CS_EQ_U64(cs_crc32c(0, cs_slice(zeros, 32)), 0x8a9136aa);
    CS_EQ_U64(cs_crc32c(cs_crc32c(0, CS_SLICE_LIT("1234")), CS_SLICE_LIT("56789")), 0xe3069283);
}

CS_TEST(segment_frames_come_back_in_order)
{
    uint8_t bytes[4096] = {0};
    size_t at = 0, n = build(bytes, 5);
    enum cs_scan end;
    CS_EQ_U64(scan(bytes, n, &end, &at), 5);
    CS_EQ_U64(end, CS_SCAN_END);
    CS_EQ_U64(at, n);
    CS_EQ_U64(scan(bytes, sizeof bytes, &end, &at), 5); /* with preallocated zeros */
    CS_EQ_U64(end, CS_SCAN_END);
    CS_EQ_U64(at, n);
}

CS_TEST(segment_scan_stops_at_every_cut_of_the_last_frame)
{
    uint8_t bytes[4096] = {0};
    size_t at = 0, four = build(bytes, 4), n = build(bytes, 5);
    for (size_t cut = four; cut < n; cut++) {
        enum cs_scan end;
        CS_EQ_U64(scan(bytes, cut, &end, &at), 4);
        CS_EQ_U64(at, four);
        CS_EQ_U64(end, cut == four ? CS_SCAN_END : CS_SCAN_BAD);
    }
}

CS_TEST(segment_scan_stops_at_every_flipped_byte)
{
    uint8_t bytes[1024] = {0};
    size_t at = 0, one = build(bytes, 1), two = build(bytes, 2);
    (void)build(bytes, 3);
    for (size_t i = one; i < two; i++) {
        enum cs_scan end;
        bytes[i] ^= 0x40;
        CS_EQ_U64(scan(bytes, sizeof bytes, &end, &at), 1);
        CS_EQ_U64(at, one);
        CS_EQ_U64(end, CS_SCAN_BAD);
        bytes[i] ^= 0x40;
    }
}

CS_TEST(segment_scan_refuses_a_hole_a_repeat_and_a_huge_length)
{
    uint8_t bytes[1024] = {0};
    size_t at = 0, one = build(bytes, 1), two = build(bytes, 2);
    enum cs_scan end;
    memset(bytes + one, 0, two - one); /* the hole, with a good frame behind it */
    size_t n = note_frame(bytes + two + CS_JOURNAL_HEAD, 200, 1, CS_SLICE_LIT("x"));
    cs_journal_entry_seal(bytes + two, 102, CS_JOURNAL_BYTES, 3, n);
    CS_EQ_U64(scan(bytes, sizeof bytes, &end, &at), 1);
    CS_EQ_U64(end, CS_SCAN_BAD);
    memset(bytes, 0, sizeof bytes);
    (void)build(bytes, 1);
    cs_journal_entry_seal(bytes + one, 100, CS_JOURNAL_BYTES, 1, 30); /* the same sequence again */
    CS_EQ_U64(scan(bytes, sizeof bytes, &end, &at), 1);
    CS_EQ_U64(end, CS_SCAN_BAD);
    memset(bytes + one, 0xff, 4);
    CS_EQ_U64(scan(bytes, sizeof bytes, &end, &at), 1);
    CS_EQ_U64(end, CS_SCAN_BAD);
}

CS_TEST(segment_header_refuses_every_flipped_byte)
{
    uint8_t bytes[CS_SEGMENT_HEAD];
    struct cs_segment_head h = {7, 100, 5}, got;
    cs_segment_head_write(&h, bytes);
    CS_CHECK(cs_segment_head_read(cs_slice(bytes, sizeof bytes), &got));
    CS_EQ_U64(got.number, 7);
    CS_EQ_U64(got.first_seq, 100);
    CS_EQ_U64(got.wall_ms, 5);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= 1;
        CS_CHECK(!cs_segment_head_read(cs_slice(bytes, sizeof bytes), &got));
        bytes[i] ^= 1;
        CS_CHECK(!cs_segment_head_read(cs_slice(bytes, i), &got));
    }
}

CS_TEST(segment_names_have_one_form)
{
    static const char *const bad[] = {"journal-1.csj",
                                      "journal-00000000.csj",
                                      "journal-00000001.csj.new",
                                      "journal-0000000x.csj",
                                      "journal-.csj",
                                      "journal-4294967296.csj",
                                      "journal-000000001.csj",
                                      "x",
                                      ""};
    char name[CS_SEGMENT_NAME];
    uint32_t n = 0;
    CS_EQ_STR(cs_slice_str(cs_segment_name(1, name)), "journal-00000001.csj");
    CS_CHECK(cs_segment_name_parse(name, &n) && n == 1);
    CS_CHECK(cs_segment_name_parse(cs_segment_name(UINT32_MAX, name), &n) && n == UINT32_MAX);
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        CS_CHECK(!cs_segment_name_parse(bad[i], &n));
    }
}

CS_TEST(seen_remembers_the_highest_of_each_epoch)
{
    struct cs_seen s = {NULL, 0, 0};
    CS_EQ_U64(cs_seen_high(&s, 5), 0);
    for (uint64_t e = 0; e < 1000; e++) {
        CS_CHECK(cs_seen_note(&s, e * 0x100000001, e + 1) && cs_seen_note(&s, e * 0x100000001, e));
    }
    for (uint64_t e = 0; e < 1000; e++) {
        CS_EQ_U64(cs_seen_high(&s, e * 0x100000001), e + 1);
    }
    CS_EQ_U64(cs_seen_high(&s, 1), 0);
    cs_seen_done(&s);
    CS_EQ_U64(cs_alloc_live(), 0);
}
