/* The deterministic CBOR writer against the examples of RFC 8949, appendix A. */
#include "base/id.h"
#include "tap.h"
#include "wire/cbor.h"

static void expect(const struct cs_writer *w, const char *hex)
{
    char text[200];
    struct cs_slice got = cs_writer_done(w);
    CS_CHECK(!w->overflow && got.n < sizeof text / 2);
    cs_hex(got, text);
    CS_EQ_STR(cs_slice_str(text), hex);
}

CS_TEST(cbor_integers_take_the_shortest_form)
{
    static const struct {
        uint64_t v;
        const char *hex;
    } rows[] = {{0, "00"},
                {23, "17"},
                {24, "1818"},
                {100, "1864"},
                {255, "18ff"},
                {256, "190100"},
                {1000, "1903e8"},
                {65535, "19ffff"},
                {65536, "1a00010000"},
                {1000000, "1a000f4240"},
                {UINT32_MAX, "1affffffff"},
                {4294967296ULL, "1b0000000100000000"},
                {1000000000000ULL, "1b000000e8d4a51000"},
                {UINT64_MAX, "1bffffffffffffffff"}};
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        uint8_t mem[16];
        struct cs_writer w = cs_writer(mem, sizeof mem);
        cs_cbor_uint(&w, rows[i].v);
        expect(&w, rows[i].hex);
    }
}

CS_TEST(cbor_writes_strings_arrays_and_simple_values)
{
    uint8_t mem[64];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_cbor_array(&w, 6);
    cs_cbor_bytes(&w, CS_SLICE_LIT("\x01\x02\x03\x04"));
    cs_cbor_text(&w, CS_SLICE_LIT("IETF"));
    cs_cbor_text(&w, CS_SLICE_LIT("\xc3\xbc"));
    cs_cbor_bool(&w, false);
    cs_cbor_bool(&w, true);
    cs_cbor_null(&w);
    expect(&w, "86440102030464494554"
               "4662c3bcf4f5f6");
}

CS_TEST(cbor_refuses_text_that_is_no_utf_8)
{
    uint8_t mem[64];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_cbor_text(&w, CS_SLICE_LIT("\xff"));
    CS_CHECK(w.overflow);
}

CS_TEST(cbor_says_when_there_is_no_room)
{
    uint8_t mem[4];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_cbor_uint(&w, 65536);
    CS_CHECK(w.overflow);
    CS_EQ_U64(cs_writer_done(&w).n, 0);
}

/* ---- reading ---- */

static struct cs_slice bytes_of(const char *hex, uint8_t *mem)
{
    size_t n = strlen(hex) / 2;
    CS_CHECK(cs_unhex(cs_slice_str(hex), mem, n));
    return cs_slice(mem, n);
}

CS_TEST(cbor_reads_back_what_it_writes)
{
    static const uint64_t values[] = {0,     23,    24,         255,        256,
                                      65535, 65536, UINT32_MAX, 4294967296, UINT64_MAX};
    for (size_t i = 0; i < CS_ARRAY_LEN(values); i++) {
        uint8_t mem[64];
        struct cs_writer w = cs_writer(mem, sizeof mem);
        cs_cbor_array(&w, 4);
        cs_cbor_uint(&w, values[i]);
        cs_cbor_bytes(&w, CS_SLICE_LIT("ab"));
        cs_cbor_text(&w, CS_SLICE_LIT("\xc3\xbc"));
        cs_cbor_bool(&w, true);
        struct cs_reader r = cs_reader(cs_writer_done(&w));
        CS_EQ_U64(cs_cbor_read_array(&r), 4);
        CS_CHECK(!cs_cbor_read_null(&r));
        CS_EQ_U64(cs_cbor_read_uint(&r), values[i]);
        CS_EQ_STR(cs_cbor_read_bytes(&r), "ab");
        CS_EQ_STR(cs_cbor_read_text(&r), "\xc3\xbc");
        CS_CHECK(cs_cbor_read_bool(&r));
        CS_CHECK(cs_reader_done(&r));
    }
}

CS_TEST(cbor_reader_refuses_every_second_spelling)
{
    static const char *const uints[] = {
        "1817", "190018", "1900ff", "1a0000ffff", "1b00000000ffffffff", "1c", "1f", "20", "40",
        "18",   "19ff",   ""};
    static const char *const byte_strings[] = {"60", "5f4101ff", "4201", "580101",
                                               "5bffffffffffffffff"};
    static const char *const texts[] = {"40", "62c328", "61ff"};
    static const char *const arrays[] = {"a0", "9fff", "83", "9800", "9bffffffffffffffff"};
    static const char *const bools[] = {"f6", "f7", "f814", "00"};
    uint8_t mem[32];
    for (size_t i = 0; i < CS_ARRAY_LEN(uints); i++) {
        struct cs_reader r = cs_reader(bytes_of(uints[i], mem));
        CS_EQ_U64(cs_cbor_read_uint(&r), 0);
        CS_CHECK(r.bad);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(byte_strings); i++) {
        struct cs_reader r = cs_reader(bytes_of(byte_strings[i], mem));
        CS_EQ_U64(cs_cbor_read_bytes(&r).n, 0);
        CS_CHECK(r.bad);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(texts); i++) {
        struct cs_reader r = cs_reader(bytes_of(texts[i], mem));
        CS_EQ_U64(cs_cbor_read_text(&r).n, 0);
        CS_CHECK(r.bad);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(arrays); i++) {
        struct cs_reader r = cs_reader(bytes_of(arrays[i], mem));
        CS_EQ_U64(cs_cbor_read_array(&r), 0);
        CS_CHECK(r.bad);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(bools); i++) {
        struct cs_reader r = cs_reader(bytes_of(bools[i], mem));
        CS_CHECK(!cs_cbor_read_bool(&r) && r.bad);
    }
}
