#include "tap.h"
#include "wire/http1.h"

#define H "Host: gate.example.com\r\n"

/* Scans and parses; 200 when it is fine, else the refusal's status, 0 when more is needed. */
static unsigned status_of(struct cs_slice in, struct cs_http_request *r)
{
    struct cs_http_refusal why = {0, NULL};
    size_t at = 0, n = 0;
    switch (cs_http_scan(in, 16384, &at, &n, &why)) {
    case CS_HTTP_NEED:
        return 0;
    case CS_HTTP_OK:
        return cs_http_request_parse(cs_slice_head(in, n), r, &why) ? 200 : why.status;
    case CS_HTTP_BAD:
        break;
    }
    return why.status;
}

static const struct {
    unsigned status;
    const char *what, *text;
} requests[] = {
    {200, "the least one", "GET / HTTP/1.1\r\n" H "\r\n"},
    {200, "1.0 without Host", "GET / HTTP/1.0\r\n\r\n"},
    {200, "a query", "GET /v1/requests?state=pending&wait=45 HTTP/1.1\r\n" H "\r\n"},
    {200, "an empty query", "GET /a? HTTP/1.1\r\n" H "\r\n"},
    {200, "a body", "POST /a HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello"},
    {200, "no length: no body", "POST /a HTTP/1.1\r\n" H "\r\n"},
    {200, "length zero of a GET", "GET /a HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n"},
    {200, "blanks around a value", "GET /a HTTP/1.1\r\nHost: \t gate \t\r\n\r\n"},
    {200, "an empty value", "GET /a HTTP/1.1\r\n" H "X-Empty:\r\n\r\n"},
    {200, "bytes over 0x7f in a value", "GET /a HTTP/1.1\r\n" H "X: \xc3\xa9\r\n\r\n"},
    {200, "an address as host", "GET /a HTTP/1.1\r\nHost: [::1]:7443\r\n\r\n"},
    {200, "repeated harmless field", "GET /a HTTP/1.1\r\n" H "X: 1\r\nX: 2\r\n\r\n"},
    {0, "unfinished", "GET /a HTTP/1.1\r\n" H "\r"},
    {0, "nothing", ""},
    /* the request line */
    {400, "empty line first", "\r\nGET / HTTP/1.1\r\n" H "\r\n"},
    {400, "HTTP/0.9", "GET /\r\n\r\n"},
    {505, "another version", "GET / HTTP/2.0\r\n" H "\r\n"},
    {505, "version 1.2", "GET / HTTP/1.2\r\n" H "\r\n"},
    {400, "lower-case version", "GET / http/1.1\r\n" H "\r\n"},
    {400, "blank behind the version", "GET / HTTP/1.1 \r\n" H "\r\n"},
    {400, "two blanks", "GET  / HTTP/1.1\r\n" H "\r\n"},
    {400, "a blank in the target", "GET /a b HTTP/1.1\r\n" H "\r\n"},
    {400, "a tab for a blank", "GET\t/ HTTP/1.1\r\n" H "\r\n"},
    {400, "a blank first", " GET / HTTP/1.1\r\n" H "\r\n"},
    {400, "absolute form", "GET http://gate.example.com/ HTTP/1.1\r\n" H "\r\n"},
    {400, "authority form", "CONNECT gate:443 HTTP/1.1\r\n" H "\r\n"},
    {400, "asterisk form", "OPTIONS * HTTP/1.1\r\n" H "\r\n"},
    {400, "a fragment", "GET /a#b HTTP/1.1\r\n" H "\r\n"},
    {400, "a backslash", "GET /a\\b HTTP/1.1\r\n" H "\r\n"},
    {400, "bytes over 0x7f in the target", "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n"},
    {400, "method is no token", "GE(T / HTTP/1.1\r\n" H "\r\n"},
    {400, "a long method", "GETGETGETGETGETGETGET / HTTP/1.1\r\n" H "\r\n"},
    /* line ends and control bytes */
    {400, "bare LF", "GET / HTTP/1.1\n" H "\n"},
    {400, "bare LF in the fields", "GET / HTTP/1.1\r\n" H "A: b\nC: d\r\n\r\n"},
    {400, "bare CR", "GET / HTTP/1.1\r\n" H "A: b\rC: d\r\n\r\n"},
    {400, "CR CR LF", "GET / HTTP/1.1\r\r\n" H "\r\n"},
    {400, "DEL", "GET / HTTP/1.1\r\n" H "A: \x7f\r\n\r\n"},
    {400, "escape", "GET / HTTP/1.1\r\n" H "A: \x1b[31m\r\n\r\n"},
    {400, "a TLS client hello", "\x16\x03\x01\x02"},
    /* fields */
    {400, "obs-fold", "GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n"},
    {400, "obs-fold right behind the request line", "GET / HTTP/1.1\r\n x: y\r\n" H "\r\n"},
    {400, "a blank before the colon", "GET / HTTP/1.1\r\nHost : gate\r\n\r\n"},
    {400, "a tab before the colon", "POST / HTTP/1.1\r\n" H "Content-Length\t: 5\r\n\r\nhello"},
    {400, "no colon", "GET / HTTP/1.1\r\n" H "Nonsense\r\n\r\n"},
    {400, "no name", "GET / HTTP/1.1\r\n" H ": x\r\n\r\n"},
    {400, "name is no token", "GET / HTTP/1.1\r\n" H "A@: x\r\n\r\n"},
    {400, "name over 0x7f", "GET / HTTP/1.1\r\n" H "\xc3\xa9: x\r\n\r\n"},
    /* Host */
    {400, "no Host", "GET / HTTP/1.1\r\n\r\n"},
    {400, "two Hosts", "GET / HTTP/1.1\r\n" H H "\r\n"},
    {400, "two Hosts, other case", "GET / HTTP/1.1\r\n" H "hOsT: evil\r\n\r\n"},
    {400, "empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
    {400, "Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
    {400, "Host with a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"},
    {400, "Host with user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"},
    /* framing */
    {400, "two lengths", "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"},
    {400, "two equal lengths",
     "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"},
    {400, "a list of lengths", "POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\nhello"},
    {400, "plus", "POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\nhello"},
    {400, "minus", "POST / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\nhello"},
    {400, "leading zero", "POST / HTTP/1.1\r\n" H "Content-Length: 05\r\n\r\nhello"},
    {400, "hexadecimal", "POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\nhello"},
    {400, "fraction", "POST / HTTP/1.1\r\n" H "Content-Length: 5.0\r\n\r\nhello"},
    {400, "a blank inside", "POST / HTTP/1.1\r\n" H "Content-Length: 5 5\r\n\r\nhello"},
    {400, "empty length", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\nhello"},
    {400, "length beyond 64 bits",
     "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551621\r\n\r\nhello"},
    {501, "chunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {400, "CL and TE",
     "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {400, "TE and CL",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"},
    {400, "TE twice",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: x\r\nTransfer-encoding: chunked\r\n\r\n"},
    {501, "TE identity", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n"},
    {501, "TE xchunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n"},
    {400, "TE with a blank before the colon",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n"},
    {400, "TE folded", "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n chunked\r\n\r\n"},
    {400, "TE behind a bare LF",
     "POST / HTTP/1.1\r\n" H "X: y\nTransfer-Encoding: chunked\r\n\r\n"},
    {400, "TE in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {400, "a GET with a body", "GET / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello"},
    {400, "a DELETE with a body", "DELETE / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello"},
    {400, "a packed body", "POST / HTTP/1.1\r\n" H "Content-Encoding: gzip\r\n\r\n"},
    {400, "two authorizations",
     "GET / HTTP/1.1\r\n" H "Authorization: Bearer a\r\n"
     "Authorization: Bearer b\r\n\r\n"},
    {400, "two origins", "GET / HTTP/1.1\r\n" H "Origin: https://a\r\nOrigin: https://b\r\n\r\n"},
    {417, "another expectation", "POST / HTTP/1.1\r\n" H "Expect: tea\r\n\r\n"},
};

CS_TEST(http1_request_table)
{
    static struct cs_http_request r;
    for (size_t i = 0; i < CS_ARRAY_LEN(requests); i++) {
        unsigned got = status_of(cs_slice_str(requests[i].text), &r);
        if (got != requests[i].status) {
            CS_FAIL("%s: %u, not %u", requests[i].what, got, requests[i].status);
        }
    }
}

CS_TEST(http1_refuses_nul_anywhere)
{
    static struct cs_http_request r;
    static const char whole[] = "GET /a HTTP/1.1\r\nHost: gate\r\nA: b\r\n\r\n";
    char copy[sizeof whole];
    for (size_t i = 0; i < sizeof whole - 1; i++) {
        memcpy(copy, whole, sizeof whole);
        copy[i] = 0;
        CS_EQ_U64(status_of(cs_slice(copy, sizeof whole - 1), &r), 400);
    }
}

CS_TEST(http1_any_split_gives_the_same_result)
{
    static struct cs_http_request r;
    for (size_t i = 0; i < CS_ARRAY_LEN(requests); i++) {
        struct cs_slice all = cs_slice_str(requests[i].text);
        size_t at = 0, n = 0;
        struct cs_http_refusal why = {0, NULL};
        unsigned got = 0;
        for (size_t have = 0; have <= all.n && got == 0; have++) {
            enum cs_http h = cs_http_scan(cs_slice_head(all, have), 16384, &at, &n, &why);
            if (h == CS_HTTP_BAD) {
                got = why.status;
            } else if (h == CS_HTTP_OK) {
                CS_EQ_U64(n, have);
                got = cs_http_request_parse(cs_slice_head(all, n), &r, &why) ? 200 : why.status;
            }
        }
        CS_EQ_U64(got, requests[i].status);
    }
}

CS_TEST(http1_request_has_its_parts)
{
    static struct cs_http_request r;
    struct cs_slice in =
        CS_SLICE_LIT("POST /v1/requests/7Q2KD4M9/approve?x=1 HTTP/1.1\r\n"
                     "Host: gate.example.com:7443\r\nAUTHORIZATION: bearer cs_p_ab-_9=\r\n"
                     "Expect: 100-Continue\r\nContent-Length: 12\r\nOrigin: https://x\r\n\r\n");
    CS_EQ_U64(status_of(in, &r), 200);
    CS_EQ_STR(r.method, "POST");
    CS_EQ_STR(r.path, "/v1/requests/7Q2KD4M9/approve");
    CS_EQ_STR(r.query, "x=1");
    CS_EQ_U64(r.minor, 1);
    CS_EQ_U64(r.body_n, 12);
    CS_CHECK(r.keep_alive && r.expect_continue);
    CS_EQ_STR(r.fields.known[CS_HTTP_FIELD_ORIGIN], "https://x");
    struct cs_slice token;
    CS_CHECK(cs_http_bearer(&r.fields, &token));
    CS_EQ_STR(token, "cs_p_ab-_9=");
}

CS_TEST(http1_bearer_refuses_other_schemes)
{
    static const struct {
        const char *value;
        bool ok;
    } t[] = {{"Bearer abc", true},  {"Basic YTpi", false}, {"Bearer", false},    {"Bearer ", false},
             {"Bearer a b", false}, {"Bearera", false},    {"Bearer a,b", false}};
    for (size_t i = 0; i < CS_ARRAY_LEN(t); i++) {
        struct cs_http_fields f = {.n = 0};
        struct cs_slice token;
        f.has[CS_HTTP_FIELD_AUTHORIZATION] = true;
        f.known[CS_HTTP_FIELD_AUTHORIZATION] = cs_slice_str(t[i].value);
        CS_CHECK(cs_http_bearer(&f, &token) == t[i].ok);
    }
    struct cs_http_fields none = {.n = 0};
    struct cs_slice token = CS_SLICE_LIT("x");
    CS_CHECK(cs_http_bearer(&none, &token));
    CS_EQ_U64(token.n, 0);
}

CS_TEST(http1_keep_alive_follows_version_and_connection)
{
    static const struct {
        const char *text;
        bool keep;
    } t[] = {
        {"GET / HTTP/1.1\r\n" H "\r\n", true},
        {"GET / HTTP/1.1\r\n" H "Connection: Close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: x, close ,y\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: closed\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
    };
    static struct cs_http_request r;
    for (size_t i = 0; i < CS_ARRAY_LEN(t); i++) {
        CS_EQ_U64(status_of(cs_slice_str(t[i].text), &r), 200);
        CS_CHECK(r.keep_alive == t[i].keep);
    }
}

CS_TEST(http1_refuses_a_head_that_is_too_long)
{
    static char big[20000];
    static struct cs_http_request r;
    memset(big, 'a', sizeof big);
    memcpy(big, "GET /", 5);
    CS_EQ_U64(status_of(cs_slice(big, sizeof big), &r), 431);
    CS_EQ_U64(status_of(cs_slice(big, 16383), &r), 0);
    CS_EQ_U64(status_of(cs_slice(big, 16384), &r), 431);
}

CS_TEST(http1_refuses_too_many_fields)
{
    static struct cs_http_request r;
    char text[2000];
    for (size_t extra = CS_HTTP_FIELDS - 1; extra <= CS_HTTP_FIELDS; extra++) {
        struct cs_writer w = cs_writer(text, sizeof text);
        cs_writer_bytes(&w, CS_SLICE_LIT("GET / HTTP/1.1\r\n" H));
        for (size_t i = 0; i < extra; i++) {
            cs_writer_printf(&w, "X-%zu: y\r\n", i);
        }
        cs_http_write_end(&w);
        CS_EQ_U64(status_of(cs_writer_done(&w), &r), extra < CS_HTTP_FIELDS ? 200 : 431);
    }
}

static const struct {
    bool ok;
    const char *what, *text;
} responses[] = {
    {true, "the least one", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"},
    {true, "no reason", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n"},
    {true, "an empty reason", "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n"},
    {true, "continue", "HTTP/1.1 100 Continue\r\n\r\n"},
    {true, "no content", "HTTP/1.1 204 No Content\r\n\r\n"},
    {false, "no length", "HTTP/1.1 200 OK\r\n\r\n"},
    {false, "chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {false, "two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"},
    {false, "a body of 204", "HTTP/1.1 204 x\r\nContent-Length: 2\r\n\r\n"},
    {false, "a body of 100", "HTTP/1.1 100 x\r\nContent-Length: 2\r\n\r\n"},
    {false, "status too small", "HTTP/1.1 099 x\r\nContent-Length: 2\r\n\r\n"},
    {false, "status too large", "HTTP/1.1 600 x\r\nContent-Length: 2\r\n\r\n"},
    {false, "status is no number", "HTTP/1.1 2x0 x\r\nContent-Length: 2\r\n\r\n"},
    {false, "status of four digits", "HTTP/1.1 2000 x\r\nContent-Length: 2\r\n\r\n"},
    {false, "another protocol", "SSH-2.0-OpenSSH_9\r\nContent-Length: 2\r\n\r\n"},
    {false, "version 2", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n"},
    {false, "short", "HTTP/1.1\r\n\r\n"},
};

CS_TEST(http1_response_table)
{
    static struct cs_http_response r;
    for (size_t i = 0; i < CS_ARRAY_LEN(responses); i++) {
        struct cs_http_refusal why;
        struct cs_slice in = cs_slice_str(responses[i].text);
        size_t at = 0, n = 0;
        CS_CHECK(cs_http_scan(in, 16384, &at, &n, &why) == CS_HTTP_OK);
        if (cs_http_response_parse(cs_slice_head(in, n), &r, &why) != responses[i].ok) {
            CS_FAIL("%s", responses[i].what);
        }
    }
}

CS_TEST(http1_writer_makes_what_the_parser_reads)
{
    static struct cs_http_request q;
    static struct cs_http_response a;
    struct cs_http_refusal why;
    char mem[500];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_http_write_request(&w, CS_SLICE_LIT("PUT"), CS_SLICE_LIT("/v1/secrets/a?b=c"));
    cs_http_write_field(&w, "Host", CS_SLICE_LIT("gate:7443"));
    cs_http_write_number(&w, "Content-Length", 77);
    cs_http_write_end(&w);
    CS_EQ_U64(status_of(cs_writer_done(&w), &q), 200);
    CS_EQ_STR(q.query, "b=c");
    CS_EQ_U64(q.body_n, 77);

    w = cs_writer(mem, sizeof mem);
    cs_http_write_status(&w, 409);
    cs_http_write_number(&w, "Content-Length", 3);
    cs_http_write_field(&w, "Connection", CS_SLICE_LIT("close"));
    cs_http_write_end(&w);
    CS_CHECK(cs_http_response_parse(cs_writer_done(&w), &a, &why));
    CS_EQ_U64(a.status, 409);
    CS_EQ_U64(a.body_n, 3);
    CS_CHECK(!a.keep_alive);
}

CS_TEST(http1_writer_refuses_to_be_split)
{
    static const char *const values[] = {"a\r\nSet-Cookie: x", "a\nb", "a\rb", "\x7f"};
    char mem[200];
    for (size_t i = 0; i < CS_ARRAY_LEN(values); i++) {
        struct cs_writer w = cs_writer(mem, sizeof mem);
        cs_http_write_field(&w, "X", cs_slice_str(values[i]));
        CS_CHECK(w.overflow);
    }
    static const char *const targets[] = {"/a b", "a", "", "/a\r\n", "/a#b"};
    for (size_t i = 0; i < CS_ARRAY_LEN(targets); i++) {
        struct cs_writer w = cs_writer(mem, sizeof mem);
        cs_http_write_request(&w, CS_SLICE_LIT("GET"), cs_slice_str(targets[i]));
        CS_CHECK(w.overflow);
    }
}
