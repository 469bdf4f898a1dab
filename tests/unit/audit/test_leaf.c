/* Leaves: exact bytes, every way of being malformed, and values that only their holders read. */
#include "audit/boxes.h"
#include "audit/leaf.h"
#include "tap.h"
#include "wire/cbor.h"

static uint8_t id[16] = {0xaa}, hash[32] = {0xbb};

static struct cs_leaf recording(void)
{
    struct cs_leaf l = {.kind = CS_LEAF_RECORDING, .time_ms = 1000};
    cs_leaf_set(&l, CS_KEY_SESSION, cs_slice(id, 16));
    cs_leaf_set(&l, CS_KEY_CHAIN, cs_slice(hash, 32));
    cs_leaf_set_uint(&l, CS_KEY_FRAMES, 300);
    return l;
}

static bool refused(const struct cs_leaf *l)
{
    struct cs_buf out = cs_buf(65535);
    bool is = cs_leaf_write(l, &out) == CS_ERR_INVALID && out.len == 0;
    cs_buf_done(&out);
    return is;
}

CS_TEST(a_leaf_is_the_bytes_that_the_format_says)
{
    static const uint8_t want[] = {0x84, 0x01, 0x0d, 0x19, 0x03, 0xe8, 0xa3, 0x01, 0x50, 0xaa,
                                   0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
                                   0,    0,    0,    0,    0,    0x0e, 0x58, 0x20, 0xbb};
    static const uint8_t end[] = {0x0f, 0x19, 0x01, 0x2c};
    struct cs_leaf l = recording(), is;
    struct cs_buf out = cs_buf(65535);
    CS_CHECK(cs_leaf_write(&l, &out) == CS_OK);
    CS_EQ_U64(out.len, sizeof want + 31 + sizeof end);
    CS_CHECK(memcmp(out.p, want, sizeof want) == 0);
    CS_CHECK(memcmp(out.p + out.len - sizeof end, end, sizeof end) == 0);
    CS_CHECK(cs_leaf_read(cs_buf_slice(&out), &is));
    CS_CHECK(is.kind == l.kind && is.time_ms == 1000 && is.has == l.has);
    CS_EQ_U64(is.value[CS_KEY_FRAMES].number, 300);
    CS_EQ_SLICE(is.value[CS_KEY_CHAIN].bytes, cs_slice(hash, 32));
    cs_buf_done(&out);
}

CS_TEST(a_leaf_with_a_key_too_few_or_too_many_or_of_no_kind_is_not_written)
{
    struct cs_leaf l = recording();
    l.has &= ~(UINT32_C(1) << CS_KEY_CHAIN);
    CS_CHECK(refused(&l));
    l = recording();
    cs_leaf_set_uint(&l, CS_KEY_OUTCOME, 1);
    CS_CHECK(refused(&l));
    l = recording();
    l.has |= 1; /* there is no key 0 */
    CS_CHECK(refused(&l));
    l = recording();
    l.kind = CS_LEAF_NONE;
    CS_CHECK(refused(&l));
    l.kind = CS_LEAF_KIND_MAX;
    CS_CHECK(refused(&l));
    l = recording();
    cs_leaf_set(&l, CS_KEY_SESSION, cs_slice(id, 15));
    CS_CHECK(refused(&l));
}

CS_TEST(text_that_is_no_utf_8_or_too_long_is_not_written)
{
    char text[CS_LEAF_TEXT_MAX + 1];
    struct cs_leaf l = {.kind = CS_LEAF_START};
    struct cs_buf out = cs_buf(65535);
    memset(text, 'a', sizeof text);
    cs_leaf_set(&l, CS_KEY_WHAT, cs_slice(text, CS_LEAF_TEXT_MAX));
    CS_CHECK(cs_leaf_write(&l, &out) == CS_OK);
    cs_buf_done(&out);
    cs_leaf_set(&l, CS_KEY_WHAT, cs_slice(text, sizeof text));
    CS_CHECK(refused(&l));
    cs_leaf_set(&l, CS_KEY_WHAT, CS_SLICE_LIT("\xc0\x80"));
    CS_CHECK(refused(&l));
}

CS_TEST(every_other_spelling_of_a_leaf_is_refused)
{
    static const struct {
        const char *bytes;
        size_t n;
    } rows[] = {
#define ROW(s) {s, sizeof(s) - 1}
        ROW("\x84\x01\x01\x00\xa1\x0d\x61x"),         /* the good one */
        ROW("\x85\x01\x01\x00\xa1\x0d\x61x\x00"),     /* an element too many */
        ROW("\x83\x01\x01\xa1\x0d\x61x"),             /* one too few */
        ROW("\x9f\x01\x01\x00\xa1\x0d\x61x\xff"),     /* indefinite array */
        ROW("\x84\x01\x01\x00\xbf\x0d\x61x\xff"),     /* indefinite map */
        ROW("\x84\x01\x01\x00\xa1\x0d\x7f\x61x\xff"), /* indefinite text */
        ROW("\x98\x04\x01\x01\x00\xa1\x0d\x61x"),     /* longer head than needed */
        ROW("\x84\x18\x01\x01\x00\xa1\x0d\x61x"),
        ROW("\x84\x01\x01\x18\x00\xa1\x0d\x61x"),
        ROW("\x84\x01\x01\x00\xb8\x01\x0d\x61x"),
        ROW("\x84\x01\x01\x00\xa1\x18\x0d\x61x"),
        ROW("\x84\x01\x01\x00\xa1\x0d\x78\x01x"),
        ROW("\x84\x02\x01\x00\xa1\x0d\x61x"), /* another version */
        ROW("\x84\x01\x00\x00\xa1\x0d\x61x"), /* no such kind */
        ROW("\x84\x01\x18\x63\x00\xa1\x0d\x61x"),
        ROW("\x84\x01\x01\x20\xa1\x0d\x61x"),          /* a negative time */
        ROW("\x84\x01\x01\x00\xa1\x0d\x41x"),          /* bytes instead of text */
        ROW("\x84\x01\x01\x00\xa2\x0d\x61x\x0d\x61x"), /* a key twice */
        ROW("\x84\x01\x01\x00\xa2\x13\x00\x0d\x61x"),  /* keys out of order */
        ROW("\x84\x01\x01\x00\xa1\x19\x01\x0d\x61x"),  /* no such key */
        ROW("\x84\x01\x01\x00\xa1\x1b\xff\xff\xff\xff\xff\xff\xff\xff\x61x"),
        ROW("\x84\x01\x01\x00\xa1\x0d\x61x\x00"), /* bytes left over */
        ROW("\x84\x01\x01\x00\xa0"),              /* a key that must be there */
        ROW("\xc0\x84\x01\x01\x00\xa1\x0d\x61x"), /* a tag */
    };
    struct cs_leaf l;
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        if (cs_leaf_read(cs_slice(rows[i].bytes, rows[i].n), &l) != (i == 0)) {
            CS_FAIL("row %zu", i);
        }
    }
    for (size_t n = 0; n < rows[0].n; n++) {
        CS_CHECK(!cs_leaf_read(cs_slice(rows[0].bytes, n), &l));
    }
}

CS_TEST(cbor_maps_are_read_in_order_only)
{
    uint8_t b[32];
    struct cs_writer w = cs_writer(b, sizeof b);
    uint64_t next = 0;
    cs_cbor_map(&w, 2);
    cs_cbor_uint(&w, 3);
    cs_cbor_uint(&w, 0);
    cs_cbor_uint(&w, 500);
    cs_cbor_uint(&w, 1);
    struct cs_reader r = cs_reader(cs_writer_done(&w));
    CS_EQ_U64(cs_cbor_read_map(&r), 2);
    CS_EQ_U64(cs_cbor_read_key(&r, &next), 3);
    CS_EQ_U64(cs_cbor_read_uint(&r), 0);
    CS_EQ_U64(cs_cbor_read_key(&r, &next), 500);
    CS_EQ_U64(cs_cbor_read_uint(&r), 1);
    CS_CHECK(cs_reader_done(&r));
    r = cs_reader(CS_SLICE_LIT("\xa2\x01\x02\x03")); /* a pair short */
    CS_CHECK(cs_cbor_read_map(&r) == 0 && r.bad);
}

/* ---- private values ---- */

static uint8_t keys[3][32] = {{8}, {16}, {24}};

static struct cs_buf login(struct cs_leaf *l, struct cs_buf *sealed)
{
    uint8_t holders[2][32];
    struct cs_buf out = cs_buf(65535);
    *sealed = cs_buf(CS_LEAF_SEALED_MAX);
    *l = (struct cs_leaf){.kind = CS_LEAF_LOGIN};
    CS_CHECK(cs_x25519_public(keys[0], holders[0]) == CS_OK);
    CS_CHECK(cs_x25519_public(keys[1], holders[1]) == CS_OK);
    CS_CHECK(cs_leaf_seal(CS_LEAF_LOGIN, CS_KEY_WHO, CS_SLICE_LIT("ada@example.com"),
                          (const uint8_t(*)[32])holders, 2, sealed) == CS_OK);
    cs_leaf_set(l, CS_KEY_WHO, cs_buf_slice(sealed));
    cs_leaf_set(l, CS_KEY_WHAT, CS_SLICE_LIT("token"));
    cs_leaf_set_uint(l, CS_KEY_OUTCOME, 2);
    CS_CHECK(cs_leaf_write(l, &out) == CS_OK);
    CS_CHECK(cs_leaf_read(cs_buf_slice(&out), l));
    return out;
}

CS_TEST(a_private_value_opens_for_each_holder_and_nobody_else)
{
    struct cs_leaf l;
    struct cs_buf sealed, bytes = login(&l, &sealed);
    CS_CHECK(memmem(bytes.p, bytes.len, "ada", 3) == NULL);
    for (unsigned i = 0; i < 3; i++) {
        struct cs_buf out = cs_buf(CS_LEAF_PRIVATE_MAX);
        enum cs_err e = cs_leaf_unseal(&l, CS_KEY_WHO, keys[i], &out);
        CS_CHECK(e == (i < 2 ? CS_OK : CS_ERR_NOT_FOUND));
        CS_EQ_STR(cs_buf_slice(&out), i < 2 ? "ada@example.com" : "");
        cs_buf_done(&out);
    }
    cs_buf_done(&sealed);
    cs_buf_done(&bytes);
}

CS_TEST(a_private_value_does_not_open_in_another_kind_or_with_a_byte_changed)
{
    struct cs_leaf l, m;
    struct cs_buf sealed, bytes = login(&l, &sealed), out = cs_buf(CS_LEAF_PRIVATE_MAX);
    m = l;
    m.kind = CS_LEAF_VOTE;
    CS_CHECK(cs_leaf_unseal(&m, CS_KEY_WHO, keys[0], &out) == CS_ERR_CORRUPT);
    size_t at = (size_t)(l.value[CS_KEY_WHO].bytes.p - bytes.p);
    for (size_t i = 0; i < l.value[CS_KEY_WHO].bytes.n; i++) {
        bytes.p[at + i] ^= 1;
        bool first = cs_leaf_unseal(&l, CS_KEY_WHO, keys[0], &out) == CS_OK;
        bool second = cs_leaf_unseal(&l, CS_KEY_WHO, keys[1], &out) == CS_OK;
        CS_CHECK(!first || !second); /* each byte belongs to one box, or to both as the hash */
        bytes.p[at + i] ^= 1;
    }
    cs_buf_done(&out);
    cs_buf_done(&sealed);
    cs_buf_done(&bytes);
}

CS_TEST(two_leaves_about_one_person_cannot_be_told_to_be_so)
{
    struct cs_leaf a, b;
    struct cs_buf sealed_a, sealed_b, bytes_a = login(&a, &sealed_a),
                                      bytes_b = login(&b, &sealed_b);
    /* array head, bytes head: the salted hash is at 3 */
    CS_CHECK(memcmp(sealed_a.p + 3, sealed_b.p + 3, 32) != 0);
    cs_buf_done(&bytes_a);
    cs_buf_done(&bytes_b);
    cs_buf_done(&sealed_a);
    cs_buf_done(&sealed_b);
}

CS_TEST(too_long_a_value_and_too_many_holders_are_refused)
{
    uint8_t holders[CS_LEAF_HOLDERS_MAX + 1][32] = {{9}};
    static uint8_t value[CS_LEAF_PRIVATE_MAX + 1];
    struct cs_buf out = cs_buf(CS_LEAF_SEALED_MAX);
    const uint8_t(*h)[32] = (const uint8_t(*)[32])holders;
    CS_CHECK(cs_leaf_seal(CS_LEAF_LOGIN, CS_KEY_WHO, cs_slice(value, sizeof value), h, 1, &out) ==
             CS_ERR_INVALID);
    CS_CHECK(cs_leaf_seal(CS_LEAF_LOGIN, CS_KEY_WHO, CS_SLICE_NULL, h, 0, &out) == CS_ERR_INVALID);
    CS_CHECK(cs_leaf_seal(CS_LEAF_LOGIN, CS_KEY_WHO, CS_SLICE_NULL, h, CS_LEAF_HOLDERS_MAX + 1,
                          &out) == CS_ERR_INVALID);
    CS_CHECK(out.len == 0);
    cs_buf_done(&out);
}

/* ---- on the way to a reader ---- */

struct passing {
    uint8_t holder[CS_X25519], reader[CS_X25519], reader_public[CS_X25519];
    struct cs_buf leaf, rows;
    struct cs_leaf l;
    struct cs_leaf_box own;
};

static void passing_make(struct passing *p, const char *who)
{
    uint8_t public[1][CS_X25519];
    struct cs_buf sealed = cs_buf(CS_LEAF_SEALED_MAX);
    *p = (struct passing){.leaf = cs_buf(CS_LEAF_SEALED_MAX + 1024), .rows = cs_buf(CS_BOXES_MAX)};
    cs_random(p->holder, sizeof p->holder);
    cs_random(p->reader, sizeof p->reader);
    CS_EQ_U64(cs_x25519_public(p->holder, public[0]), CS_OK);
    CS_EQ_U64(cs_x25519_public(p->reader, p->reader_public), CS_OK);
    CS_EQ_U64(cs_leaf_seal(CS_LEAF_READ, CS_KEY_WHO, cs_slice_str(who),
                           (const uint8_t(*)[CS_X25519]) public, 1, &sealed),
              CS_OK);
    struct cs_leaf l = {.kind = CS_LEAF_READ, .time_ms = 1};
    cs_leaf_set(&l, CS_KEY_WHO, cs_buf_slice(&sealed));
    CS_EQ_U64(cs_leaf_write(&l, &p->leaf), CS_OK);
    CS_CHECK(cs_leaf_read(cs_buf_slice(&p->leaf), &p->l));
    CS_CHECK(cs_leaf_own_box(&p->l, CS_KEY_WHO, &p->own));
    CS_CHECK(!cs_leaf_own_box(&p->l, CS_KEY_WORDS, &p->own));
    CS_CHECK(!cs_leaf_own_box(&p->l, CS_KEY_WHAT, &p->own));
    CS_CHECK(cs_leaf_own_box(&p->l, CS_KEY_WHO, &p->own));
    cs_buf_done(&sealed);
}

static void passing_done(struct passing *p)
{
    cs_buf_done(&p->leaf);
    cs_buf_done(&p->rows);
}

static struct cs_box_row row_of(const struct passing *p)
{
    return (struct cs_box_row){7, CS_LEAF_READ, CS_KEY_WHO, p->own.holder, p->own.box};
}

CS_TEST(a_box_that_was_passed_on_opens_for_its_reader_and_for_nobody_else)
{
    struct passing p;
    struct cs_buf out = cs_buf(100);
    passing_make(&p, "local:alice");
    struct cs_box_row row = row_of(&p), got;
    CS_EQ_U64(cs_box_row_pass(p.holder, &row, p.reader_public, &p.rows), CS_OK);
    struct cs_slice rows = cs_buf_slice(&p.rows);
    CS_CHECK(cs_box_row_next(&rows, &got) && rows.n == 0 && got.tag == 7);
    CS_EQ_U64(got.box.n, row.box.n);
    CS_EQ_U64(cs_box_row_open(p.holder, &got, p.own.hash, &out), CS_ERR_CORRUPT);
    CS_EQ_U64(cs_box_row_open(p.reader, &row, p.own.hash, &out), CS_ERR_CORRUPT);
    CS_EQ_U64(cs_box_row_open(p.reader, &got, p.own.hash, &out), CS_OK);
    CS_EQ_STR(cs_buf_slice(&out), "local:alice");
    cs_buf_done(&out);
    passing_done(&p);
}

CS_TEST(a_box_is_passed_on_by_its_holder_and_as_what_it_is_only)
{
    struct passing p;
    uint8_t other[CS_X25519];
    passing_make(&p, "local:alice");
    struct cs_box_row row = row_of(&p);
    cs_random(other, sizeof other);
    CS_EQ_U64(cs_box_row_pass(other, &row, p.reader_public, &p.rows), CS_ERR_NOT_FOUND);
    row.key = CS_KEY_WORDS;
    CS_EQ_U64(cs_box_row_pass(p.holder, &row, p.reader_public, &p.rows), CS_ERR_CORRUPT);
    row = row_of(&p);
    row.kind = CS_LEAF_VOTE;
    CS_EQ_U64(cs_box_row_pass(p.holder, &row, p.reader_public, &p.rows), CS_ERR_CORRUPT);
    CS_EQ_U64(p.rows.len, 0);
    passing_done(&p);
}

CS_TEST(another_value_or_another_place_is_not_taken_for_what_was_asked)
{
    struct passing p;
    uint8_t other[CS_SHA256];
    struct cs_buf out = cs_buf(100);
    passing_make(&p, "local:alice");
    struct cs_box_row row = row_of(&p), got;
    CS_EQ_U64(cs_box_row_pass(p.holder, &row, p.reader_public, &p.rows), CS_OK);
    struct cs_slice rows = cs_buf_slice(&p.rows);
    CS_CHECK(cs_box_row_next(&rows, &got));
    memcpy(other, p.own.hash.p, sizeof other);
    other[0] ^= 1; /* keeper, or whoever is between, tells of somebody else */
    CS_EQ_U64(cs_box_row_open(p.reader, &got, cs_slice(other, sizeof other), &out), CS_ERR_CORRUPT);
    got.tag++;
    CS_EQ_U64(cs_box_row_open(p.reader, &got, p.own.hash, &out), CS_ERR_CORRUPT);
    CS_EQ_U64(out.len, 0);
    cs_buf_done(&out);
    passing_done(&p);
}

CS_TEST(rows_of_boxes_that_are_cut_or_have_lying_lengths_are_none)
{
    struct passing p;
    uint8_t bytes[512];
    passing_make(&p, "x");
    struct cs_box_row row = row_of(&p), got;
    cs_box_row_write(&p.rows, &row);
    CS_CHECK(!p.rows.bad && p.rows.len < sizeof bytes);
    for (size_t n = 0; n < p.rows.len; n++) {
        struct cs_slice cut = cs_slice(p.rows.p, n);
        CS_CHECK(!cs_box_row_next(&cut, &got));
        CS_EQ_U64(cut.n, n);
    }
    memcpy(bytes, p.rows.p, p.rows.len);
    for (size_t at = 14; at < 18; at++) { /* the length */
        bytes[at] ^= 0x80;
        struct cs_slice lie = cs_slice(bytes, p.rows.len);
        CS_CHECK(!cs_box_row_next(&lie, &got));
        bytes[at] ^= 0x80;
    }
    passing_done(&p);
}
