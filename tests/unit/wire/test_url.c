#include "tap.h"
#include "wire/url.h"

CS_TEST(url_path_table)
{
    static const struct {
        bool ok;
        const char *path;
    } t[] = {{true, "/"},        {true, "/v1/users/alice@example.com"},
             {true, "/a%20b"},   {true, "/%c3%a9"},
             {true, "/a%2Bb"},   {false, ""},
             {false, "a"},       {false, "//"},
             {false, "/a//b"},   {false, "/a/"},
             {false, "/%00"},    {false, "/%0a"},
             {false, "/a%2fb"},  {false, "/a%2Fb"},
             {false, "/a%5cb"},  {false, "/%"},
             {false, "/%a"},     {false, "/%zz"},
             {false, "/."},      {false, "/.."},
             {false, "/a/../b"}, {false, "/%2e%2e/b"},
             {false, "/%2E"},    {false, "/%c3"},
             {false, "/%c0%af"}, {false, "/%ed%a0%80"},
             {false, "/a/%7f"},  {true, "/..."}};
    for (size_t i = 0; i < CS_ARRAY_LEN(t); i++) {
        if (cs_url_path_valid(cs_slice_str(t[i].path)) != t[i].ok) {
            CS_FAIL("%s", t[i].path);
        }
    }
}

CS_TEST(url_segments_come_one_by_one_and_decode_once)
{
    size_t at = 0;
    struct cs_slice raw, s, path = CS_SLICE_LIT("/v1/users/a%2541");
    uint8_t out[32];
    CS_CHECK(cs_url_segment_next(path, &at, &raw) == CS_URL_OK);
    CS_EQ_STR(raw, "v1");
    CS_CHECK(cs_url_segment_next(path, &at, &raw) == CS_URL_OK);
    CS_CHECK(cs_url_segment_next(path, &at, &raw) == CS_URL_OK);
    CS_CHECK(cs_url_segment_decode(raw, out, sizeof out, &s));
    CS_EQ_STR(s, "a%41");
    CS_CHECK(cs_url_segment_next(path, &at, &raw) == CS_URL_END);
    CS_CHECK(!cs_url_segment_decode(CS_SLICE_LIT("abcd"), out, 3, &s));
}

CS_TEST(url_query_gives_the_one_value)
{
    uint8_t out[16];
    struct cs_slice s, q = CS_SLICE_LIT("state=pending&since=12&empty=&flag&r=a%20b%2Fc&p=1+2");
    CS_CHECK(cs_url_query_get(q, "state", out, sizeof out, &s) == CS_URL_OK);
    CS_EQ_STR(s, "pending");
    CS_CHECK(cs_url_query_get(q, "r", out, sizeof out, &s) == CS_URL_OK);
    CS_EQ_STR(s, "a b/c");
    CS_CHECK(cs_url_query_get(q, "p", out, sizeof out, &s) == CS_URL_OK);
    CS_EQ_STR(s, "1+2");
    CS_CHECK(cs_url_query_get(q, "empty", out, sizeof out, &s) == CS_URL_OK);
    CS_EQ_U64(s.n, 0);
    CS_CHECK(cs_url_query_get(q, "flag", out, sizeof out, &s) == CS_URL_OK);
    CS_CHECK(cs_url_query_get(q, "stat", out, sizeof out, &s) == CS_URL_END);
    CS_CHECK(cs_url_query_get(CS_SLICE_NULL, "a", out, sizeof out, &s) == CS_URL_END);
    uint64_t v = 0;
    CS_CHECK(cs_url_query_u64(q, "since", 100, &v) == CS_URL_OK);
    CS_EQ_U64(v, 12);
}

CS_TEST(url_query_refuses_what_is_ambiguous)
{
    uint8_t out[8];
    struct cs_slice s;
    uint64_t v = 7;
    CS_CHECK(cs_url_query_get(CS_SLICE_LIT("a=1&a=2"), "a", out, sizeof out, &s) == CS_URL_BAD);
    CS_CHECK(cs_url_query_get(CS_SLICE_LIT("a=%0"), "a", out, sizeof out, &s) == CS_URL_BAD);
    CS_CHECK(cs_url_query_get(CS_SLICE_LIT("a=%00"), "a", out, sizeof out, &s) == CS_URL_BAD);
    CS_CHECK(cs_url_query_get(CS_SLICE_LIT("a=123456789"), "a", out, sizeof out, &s) == CS_URL_BAD);
    CS_CHECK(cs_url_query_u64(CS_SLICE_LIT("a=-1"), "a", 9, &v) == CS_URL_BAD);
    CS_CHECK(cs_url_query_u64(CS_SLICE_LIT("a=10"), "a", 9, &v) == CS_URL_BAD);
    CS_CHECK(cs_url_query_u64(CS_SLICE_LIT("a="), "a", 9, &v) == CS_URL_BAD);
    CS_EQ_U64(v, 7);
}

CS_TEST(url_encode_is_undone_by_decode)
{
    char mem[64];
    uint8_t out[32];
    struct cs_slice s;
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_url_encode(&w, CS_SLICE_LIT("a b@\xc3\xa9%+~"));
    CS_EQ_STR(cs_writer_done(&w), "a%20b%40%C3%A9%25%2B~");
    CS_CHECK(cs_url_segment_decode(cs_writer_done(&w), out, sizeof out, &s));
    CS_EQ_STR(s, "a b@\xc3\xa9%+~");
}

CS_TEST(url_base_table)
{
    static const struct {
        bool ok, tls;
        unsigned port;
        const char *host, *url;
    } t[] = {{true, true, 7443, "gate.example.com", "https://gate.example.com:7443"},
             {true, true, 443, "gate", "https://gate/"},
             {true, false, 80, "gate", "http://gate"},
             {true, true, 1, "::1", "https://[::1]:1"},
             {true, true, 443, "::1", "https://[::1]"},
             {.ok = false, .url = "ftp://gate"},
             {.ok = false, .url = "gate:7443"},
             {.ok = false, .url = "https://"},
             {.ok = false, .url = "https://gate:0"},
             {.ok = false, .url = "https://gate:65536"},
             {.ok = false, .url = "https://gate:"},
             {.ok = false, .url = "https://gate/path"},
             {.ok = false, .url = "https://user@gate"},
             {.ok = false, .url = "https://ga te"},
             {.ok = false, .url = "https://[::1"},
             {.ok = false, .url = "https://[::1]x"},
             {.ok = false, .url = "https://gate\r\nX: y"}};
    for (size_t i = 0; i < CS_ARRAY_LEN(t); i++) {
        struct cs_url_base b;
        if (cs_url_base_parse(cs_slice_str(t[i].url), &b) != t[i].ok) {
            CS_FAIL("%s", t[i].url);
        }
        if (t[i].ok) {
            CS_CHECK(b.tls == t[i].tls);
            CS_EQ_U64(b.port, t[i].port);
            CS_EQ_STR(b.host, t[i].host);
        }
    }
}
