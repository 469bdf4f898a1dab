/* Requests: whatever the bytes, any split of them gives the same result; what is accepted has one
 * framing, and written again from its parts it is accepted again and means the same. */
#include "wire/http1.h"
#include "wire/url.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cs_http_request a, b;
static char again[65536];

static void check(bool property)
{
    if (!property) {
        abort();
    }
}

static void write_again(struct cs_slice head)
{
    struct cs_http_refusal why;
    struct cs_writer w = cs_writer(again, sizeof again);
    cs_writer_bytes(&w, a.method);
    cs_writer_u8(&w, ' ');
    cs_writer_bytes(&w, a.path);
    if (a.query.n > 0) {
        cs_writer_u8(&w, '?');
        cs_writer_bytes(&w, a.query);
    }
    cs_writer_printf(&w, " HTTP/1.%u\r\n", a.minor);
    for (size_t i = 0; i < a.fields.n; i++) {
        cs_writer_bytes(&w, a.fields.v[i].name);
        cs_writer_bytes(&w, CS_SLICE_LIT(": "));
        cs_writer_bytes(&w, a.fields.v[i].value);
        cs_writer_bytes(&w, CS_SLICE_LIT("\r\n"));
    }
    cs_http_write_end(&w);
    check(!w.overflow || head.n > sizeof again / 2);
    check(w.overflow || cs_http_request_parse(cs_writer_done(&w), &b, &why));
    check(w.overflow || (b.body_n == a.body_n && b.keep_alive == a.keep_alive &&
                         b.fields.n == a.fields.n && cs_slice_eq(a.path, b.path)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_slice in = cs_slice(data, size), token;
    struct cs_http_refusal why = {0, NULL}, why2 = {0, NULL};
    size_t at = 0, n = 0, at2 = 0, n2 = 0;
    enum cs_http whole = cs_http_scan(in, 16384, &at, &n, &why);
    enum cs_http pieces = CS_HTTP_NEED;
    size_t step = size > 0 ? 1 + data[size - 1] % 7U : 1;
    for (size_t have = 0; pieces == CS_HTTP_NEED; have += step) {
        pieces = cs_http_scan(cs_slice_head(in, have), 16384, &at2, &n2, &why2);
        if (have >= size) {
            break;
        }
    }
    check(whole == pieces && n == n2 && why.status == why2.status);
    if (whole == CS_HTTP_BAD) {
        check(why.status >= 400);
    }
    if (whole == CS_HTTP_OK) {
        check(n <= size);
        if (cs_http_request_parse(cs_slice_head(in, n), &a, &why)) {
            check(!a.fields.has[CS_HTTP_FIELD_TRANSFER_ENCODING]);
            check(a.minor == 0 || a.fields.has[CS_HTTP_FIELD_HOST]);
            (void)cs_http_bearer(&a.fields, &token);
            (void)cs_url_path_valid(a.path);
            write_again(cs_slice_head(in, n));
        } else {
            check(why.status >= 400 && why.status < 600 && why.why != NULL);
        }
    }
    return 0;
}
