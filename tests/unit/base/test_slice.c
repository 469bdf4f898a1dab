#include "base/hash.h"
#include "base/id.h"
#include "base/slice.h"
#include "tap.h"

CS_TEST(slice_head_and_from_are_clamped)
{
    struct cs_slice s = CS_SLICE_LIT("abc");
    CS_EQ_STR(cs_slice_head(s, 2), "ab");
    CS_EQ_STR(cs_slice_head(s, 9), "abc");
    CS_EQ_STR(cs_slice_from(s, 1), "bc");
    CS_EQ_U64(cs_slice_from(s, 9).n, 0);
    CS_EQ_U64(cs_slice_from(CS_SLICE_NULL, 9).n, 0);
    CS_EQ_U64(cs_slice_find(s, 'c'), 2);
    CS_EQ_U64(cs_slice_find(s, 'x'), 3);
}

CS_TEST(slice_numbers_are_strict)
{
    uint64_t v = 7;
    CS_CHECK(cs_slice_to_u64(CS_SLICE_LIT("18446744073709551615"), &v) && v == UINT64_MAX);
    static const char *const bad[] = {
        "", "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616", "99999999999999999999"};
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        v = 7;
        CS_CHECK(!cs_slice_to_u64(cs_slice_str(bad[i]), &v) && v == 7);
    }
}

CS_TEST(utf8_rejects_what_rfc_3629_rejects)
{
    static const char *const good[] = {
        "", "plain ascii text of some length", "é", "€", "😀", "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf0\x80\x80\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80\x80",
                                      "\xff",
                                      "\xfe",
                                      "abcdefgh\xe2\x82",
                                      "\xc3("};
    for (size_t i = 0; i < CS_ARRAY_LEN(good); i++) {
        CS_CHECK(cs_utf8_valid(cs_slice_str(good[i])));
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        CS_CHECK(!cs_utf8_valid(cs_slice_str(bad[i])));
    }
}

CS_TEST(secret_comparison_agrees_with_equality)
{
    CS_CHECK(cs_slice_eq_secret(CS_SLICE_LIT("abc"), CS_SLICE_LIT("abc")));
    CS_CHECK(!cs_slice_eq_secret(CS_SLICE_LIT("abc"), CS_SLICE_LIT("abd")));
    CS_CHECK(!cs_slice_eq_secret(CS_SLICE_LIT("abc"), CS_SLICE_LIT("ab")));
}

CS_TEST(request_ids_are_canonical)
{
    char id[CS_REQUEST_ID_TEXT], again[CS_REQUEST_ID_TEXT];
    cs_request_id_new(id);
    CS_CHECK(cs_request_id_parse(cs_slice_str(id), again));
    CS_EQ_STR(cs_slice_str(again), id);
    CS_CHECK(cs_request_id_parse(CS_SLICE_LIT("7q2kdoil"), again));
    CS_EQ_STR(cs_slice_str(again), "7Q2KD011");
    CS_CHECK(!cs_request_id_parse(CS_SLICE_LIT("7Q2KD4M"), again));
    CS_CHECK(!cs_request_id_parse(CS_SLICE_LIT("7Q2KD4MU"), again));
    CS_CHECK(!cs_request_id_parse(cs_slice("7Q2KD4M\0", 8), again));
}

CS_TEST(ids_survive_text)
{
    struct cs_id id = cs_id_new(), back;
    char text[CS_ID_TEXT];
    CS_CHECK(!cs_id_is_zero(&id));
    CS_CHECK(cs_id_parse(cs_slice_str(cs_id_text(&id, text)), &back) && cs_id_eq(&id, &back));
    CS_CHECK(!cs_id_parse(CS_SLICE_LIT("zz"), &back));
}

CS_TEST(siphash_gives_the_published_vector)
{
    /* Reference implementation, key 00..0f, input 00..0e. */
    struct cs_hash_key k = {0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};
    uint8_t in[15];
    for (uint8_t i = 0; i < 15; i++) {
        in[i] = i;
    }
    CS_EQ_U64(cs_hash(k, cs_slice(in, 15)), 0xa129ca6149be45e5ULL);
}
