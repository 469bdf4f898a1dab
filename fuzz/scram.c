/* Fuzzes the SCRAM message parsers. Properties: every part lies inside the input, the parts of a
 * client's first message put together are the message, limits hold. */
#include "crypto/scram.h"
#include "base/limits.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static bool inside(struct cs_slice part, struct cs_slice whole)
{
    return part.n == 0 || (part.p >= whole.p && part.n <= whole.n - (size_t)(part.p - whole.p));
}

static void client(struct cs_slice in)
{
    struct cs_scram_client_first first;
    struct cs_scram_client_final final;
    if (cs_scram_parse_client_first(in, &first)) {
        check(first.gs2_header.n + first.bare.n == in.n && first.gs2_header.p == in.p);
        check(first.binding == 'n' || first.binding == 'y' || first.binding == 'p');
        check((first.binding == 'p') == (first.binding_name.n > 0));
        check(inside(first.name, first.bare) && inside(first.nonce, first.bare));
        check(first.nonce.n > 0 && first.nonce.n <= CS_SCRAM_NONCE_MAX);
    }
    if (cs_scram_parse_client_final(in, &final)) {
        check(final.without_proof.n < in.n && final.without_proof.p == in.p);
        check(inside(final.nonce, final.without_proof));
        check(inside(final.channel_binding, final.without_proof));
    }
}

static void server(struct cs_slice in)
{
    struct cs_scram_server_first first;
    uint8_t signature[CS_SHA256];
    if (cs_scram_parse_server_first(in, CS_SLICE_LIT("abc"), &first)) {
        check(inside(first.nonce, in) && first.nonce.n > 3);
        check(first.iterations >= CS_LIMIT_SCRAM_ITERATIONS_MIN &&
              first.iterations <= CS_LIMIT_SCRAM_ITERATIONS_MAX);
        check(first.salt_n > 0 && first.salt_n <= sizeof first.salt);
    }
    (void)cs_scram_parse_server_final(in, signature);
}

static void base64(struct cs_slice in)
{
    uint8_t raw[256];
    char again[512];
    for (int url = 0; url < 2; url++) {
        size_t n;
        if (in.n <= 300 && cs_base64_decode(in, url == 1, raw, sizeof raw, &n)) {
            size_t m = cs_base64_encode(cs_slice(raw, n), url == 1, again);
            check(cs_slice_eq(cs_slice(again, m), in));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_slice in = cs_slice(data, size);
    client(in);
    server(in);
    base64(in);
    return 0;
}
