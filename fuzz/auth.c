/* Fuzzes what control makes of a TLS handshake that a gate hands over, and names of certificates.
 * Properties: every part lies inside the input, what is signed ends before the last message, a
 * handshake without its signature is nobody's. */
#include "crypto/client_certificate.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t nonce[CS_CLIENT_NONCE];
    struct cs_slice in = cs_slice(data, size);
    struct cs_tls_transcript t;
    if (cs_tls_transcript_parse(in, &t)) {
        check(t.all.p == in.p && t.all.n < in.n && t.signature.n < in.n - t.all.n);
        check(inside(t.server_leaf, t.all) && inside(t.authorities, t.all) &&
              inside(t.certificates, t.all) && inside(t.signature, in));
        check(t.server_leaf.n > 0 && (t.v13 || t.first_hello.n == 0));
        check(t.first_hello.n == 0 || t.first_hello.n + t.rest.n == t.all.n);
    }
    const struct cs_client_rule rule = {.authorities = CS_SLICE_LIT("none"),
                                        .form = CS_SAN_URI,
                                        .pattern = CS_SLICE_LIT("x:{name}"),
                                        .server_pem = CS_SLICE_LIT("none")};
    char name[65];
    check(cs_client_certificate_check(in, nonce, &rule, name) != NULL);
    size_t half = size / 2;
    struct cs_slice pattern = cs_slice_head(in, half), san = cs_slice_from(in, half);
    struct cs_slice got = cs_san_pattern_match(pattern, san);
    check(got.n == 0 || (inside(got, san) && got.n + pattern.n == san.n + 6));
    (void)cs_san_pattern_wrong(CS_SAN_EMAIL, in);
    return 0;
}
