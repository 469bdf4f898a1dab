/* Hashing, derivation, sealing, base 64, tokens, certificates; vectors from the RFCs and FIPS 180.
 */
#include "base/id.h"
#include "crypto/crypto.h"
#include "tap.h"

#include <fcntl.h>
#include <sys/stat.h>

static void expect_hex(const uint8_t *p, size_t n, const char *hex)
{
    char text[200];
    CS_CHECK(n < sizeof text / 2);
    cs_hex(cs_slice(p, n), text);
    CS_EQ_STR(cs_slice_str(text), hex);
}

CS_TEST(sha256_of_known_messages)
{
    uint8_t out[CS_SHA256];
    cs_sha256(CS_SLICE_LIT("abc"), out);
    expect_hex(out, sizeof out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    cs_sha256(CS_SLICE_NULL, out);
    expect_hex(out, sizeof out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    const struct cs_slice pieces[] = {CS_SLICE_LIT("a"), CS_SLICE_NULL, CS_SLICE_LIT("bc")};
    cs_sha256_pieces(pieces, 3, out);
    expect_hex(out, sizeof out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

CS_TEST(sha256_over_a_kept_context_is_the_same_each_time)
{
    struct cs_gcm *g = cs_gcm_new();
    uint8_t key[CS_SEAL_KEY] = {1}, nonce[CS_SEAL_NONCE] = {2}, tag[CS_SEAL_TAG];
    uint8_t out[CS_SHA256], sealed[3], opened[3];
    const struct cs_slice pieces[] = {CS_SLICE_LIT("a"), CS_SLICE_NULL, CS_SLICE_LIT("bc")};
    CS_CHECK(g != NULL);
    for (uint8_t i = 0; i < 3; i++) {
        nonce[0] = i;
        CS_EQ_U64(cs_gcm_seal(g, key, nonce, pieces, 1, pieces[2], sealed, tag), CS_OK);
        cs_gcm_sha256(g, pieces, 3, out);
        expect_hex(out, sizeof out,
                   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        CS_EQ_U64(cs_gcm_unseal(g, key, nonce, pieces, 1, cs_slice(sealed, 2), tag, opened), CS_OK);
        CS_CHECK(memcmp(opened, "bc", 2) == 0);
        nonce[1] ^= 1; /* another nonce opens nothing, and leaves nothing for the next one */
        CS_EQ_U64(cs_gcm_unseal(g, key, nonce, pieces, 1, cs_slice(sealed, 2), tag, opened),
                  CS_ERR_CORRUPT);
        key[0]++;
    }
    cs_gcm_free(g);
}

CS_TEST(hmac_of_rfc_4231)
{
    uint8_t out[CS_SHA256];
    cs_hmac_sha256(CS_SLICE_LIT("Jefe"), CS_SLICE_LIT("what do ya want for nothing?"), out);
    expect_hex(out, sizeof out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    cs_hmac_sha256(CS_SLICE_NULL, CS_SLICE_NULL, out);
    expect_hex(out, sizeof out, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

CS_TEST(hkdf_of_rfc_5869)
{
    uint8_t key[22], salt[13], info[10], out[42];
    memset(key, 0x0b, sizeof key);
    CS_CHECK(cs_unhex(CS_SLICE_LIT("000102030405060708090a0b0c"), salt, sizeof salt));
    CS_CHECK(cs_unhex(CS_SLICE_LIT("f0f1f2f3f4f5f6f7f8f9"), info, sizeof info));
    CS_CHECK(cs_hkdf_sha256(cs_slice(key, sizeof key), cs_slice(salt, sizeof salt),
                            cs_slice(info, sizeof info), out, sizeof out) == CS_OK);
    expect_hex(
        out, sizeof out,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
    CS_CHECK(cs_hkdf_sha256(cs_slice(key, sizeof key), CS_SLICE_NULL, CS_SLICE_NULL, out,
                            sizeof out) == CS_OK);
    expect_hex(
        out, sizeof out,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

CS_TEST(hkdf_refuses_more_than_it_can_derive)
{
    static uint8_t out[256 * CS_SHA256];
    CS_CHECK(cs_hkdf_sha256(CS_SLICE_LIT("k"), CS_SLICE_NULL, CS_SLICE_NULL, out, 0) != CS_OK);
    CS_CHECK(cs_hkdf_sha256(CS_SLICE_LIT("k"), CS_SLICE_NULL, CS_SLICE_NULL, out,
                            255 * CS_SHA256 + 1) != CS_OK);
}

CS_TEST(pbkdf2_of_a_known_password)
{
    uint8_t out[CS_SHA256];
    CS_CHECK(cs_pbkdf2_sha256(CS_SLICE_LIT("password"), CS_SLICE_LIT("salt"), 4096, out) == CS_OK);
    expect_hex(out, sizeof out, "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a");
    CS_CHECK(cs_pbkdf2_sha256(CS_SLICE_LIT("password"), CS_SLICE_LIT("salt"), 0, out) ==
             CS_ERR_INVALID);
}

CS_TEST(seal_opens_only_with_the_same_key_row_and_bytes)
{
    uint8_t key[CS_SEAL_KEY] = {1}, other[CS_SEAL_KEY] = {2};
    uint8_t box[6 + CS_SEAL_OVERHEAD], out[6] = {0};
    struct cs_slice row = CS_SLICE_LIT("row 1"), boxed = cs_slice(box, sizeof box);
    CS_CHECK(cs_seal(key, row, CS_SLICE_LIT("secret"), box) == CS_OK);
    CS_CHECK(cs_unseal(key, row, boxed, out) == CS_OK);
    CS_EQ_STR(cs_slice(out, sizeof out), "secret");
    memset(out, 'x', sizeof out);
    CS_CHECK(cs_unseal(other, row, boxed, out) == CS_ERR_CORRUPT);
    CS_CHECK(memcmp(out, "secret", 6) != 0); /* nothing of it stays */
    CS_CHECK(cs_unseal(key, CS_SLICE_LIT("row 2"), boxed, out) == CS_ERR_CORRUPT);
    CS_CHECK(cs_unseal(key, row, cs_slice_head(boxed, sizeof box - 1), out) == CS_ERR_CORRUPT);
    CS_CHECK(cs_unseal(key, row, cs_slice_head(boxed, CS_SEAL_OVERHEAD - 1), out) ==
             CS_ERR_CORRUPT);
    for (size_t i = 0; i < sizeof box; i++) {
        box[i] ^= 1;
        CS_CHECK(cs_unseal(key, row, boxed, out) == CS_ERR_CORRUPT);
        box[i] ^= 1;
    }
}

CS_TEST(seal_of_nothing_is_still_bound)
{
    uint8_t key[CS_SEAL_KEY] = {1}, box[CS_SEAL_OVERHEAD], again[CS_SEAL_OVERHEAD], out[1] = {7};
    CS_CHECK(cs_seal(key, CS_SLICE_NULL, CS_SLICE_NULL, box) == CS_OK);
    CS_CHECK(cs_seal(key, CS_SLICE_NULL, CS_SLICE_NULL, again) == CS_OK);
    CS_CHECK(memcmp(box, again, CS_SEAL_NONCE) != 0);
    CS_CHECK(cs_unseal(key, CS_SLICE_NULL, cs_slice(box, sizeof box), out) == CS_OK);
    CS_EQ_U64(out[0], 7);
    CS_CHECK(cs_unseal(key, CS_SLICE_LIT("x"), cs_slice(box, sizeof box), out) == CS_ERR_CORRUPT);
}

static const struct {
    const char *plain, *text, *url;
} words[] = {{"", "", ""},
             {"f", "Zg==", "Zg"},
             {"fo", "Zm8=", "Zm8"},
             {"foo", "Zm9v", "Zm9v"},
             {"foob", "Zm9vYg==", "Zm9vYg"},
             {"\xfb\xff", "+/8=", "-_8"}};

CS_TEST(base64_of_rfc_4648)
{
    char text[16];
    uint8_t out[16];
    size_t n;
    for (size_t i = 0; i < CS_ARRAY_LEN(words); i++) {
        struct cs_slice plain = cs_slice_str(words[i].plain);
        n = cs_base64_encode(plain, false, text);
        CS_EQ_STR(cs_slice(text, n), words[i].text);
        CS_EQ_U64(n, cs_base64_size(plain.n));
        CS_CHECK(cs_base64_decode(cs_slice(text, n), false, out, sizeof out, &n));
        CS_EQ_SLICE(cs_slice(out, n), plain);
        n = cs_base64_encode(plain, true, text);
        CS_EQ_STR(cs_slice(text, n), words[i].url);
        CS_CHECK(cs_base64_decode(cs_slice(text, n), true, out, sizeof out, &n));
        CS_EQ_SLICE(cs_slice(out, n), plain);
    }
}

CS_TEST(base64_refuses_every_second_spelling)
{
    static const char *const bad[] = {"Zg",
                                      "Zg=",
                                      "Zh==",
                                      "Zm9=",
                                      "Z===",
                                      "====",
                                      "Zg==Zg==",
                                      "Zm9v=",
                                      "Zm 9v",
                                      "Zm9v\n",
                                      "-_8=",
                                      "Z",
                                      "=",
                                      "Zg=="
                                      "="};
    static const char *const bad_url[] = {"Zg==", "Zh", "Zm9", "Z", "+/8", "Zm9v="};
    uint8_t out[16];
    size_t n = 99;
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        CS_CHECK(!cs_base64_decode(cs_slice_str(bad[i]), false, out, sizeof out, &n));
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(bad_url); i++) {
        CS_CHECK(!cs_base64_decode(cs_slice_str(bad_url[i]), true, out, sizeof out, &n));
    }
    CS_CHECK(!cs_base64_decode(CS_SLICE_LIT("Zm9v"), false, out, 2, &n));
    CS_EQ_U64(n, 99);
}

CS_TEST(tokens_have_a_prefix_and_differ)
{
    char a[CS_TOKEN_TEXT], b[CS_TOKEN_TEXT];
    cs_token_new('p', a);
    cs_token_new('a', b);
    CS_EQ_U64(strlen(a), CS_TOKEN_TEXT - 1);
    CS_CHECK(strncmp(a, "cs_p_", 5) == 0 && strncmp(b, "cs_a_", 5) == 0);
    CS_CHECK(strcmp(a + 5, b + 5) != 0);
}

CS_TEST(certificate_key_is_private_and_nothing_is_overwritten)
{
    char dir[] = "/tmp/cs-cert-XXXXXX", cert[64], key[64];
    const char *const names[] = {"localhost", "127.0.0.1", "::1"};
    struct stat st;
    CS_CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(cert, sizeof cert, "%s/cert.pem", dir);
    (void)snprintf(key, sizeof key, "%s/key.pem", dir);
    CS_CHECK(cs_certificate_make(names, 3, 30, cert, key) == CS_OK);
    CS_CHECK(stat(key, &st) == 0);
    CS_EQ_U64(st.st_mode & 0777, 0600);
    CS_CHECK(cs_certificate_make(names, 3, 30, cert, key) == CS_ERR_EXISTS);
    CS_CHECK(unlink(key) == 0);
    CS_CHECK(cs_certificate_make(names, 3, 30, cert, key) == CS_ERR_EXISTS);
    CS_CHECK(stat(key, &st) != 0); /* no key without its certificate */
    const char *const bad[] = {"a b"};
    CS_CHECK(cs_certificate_make(bad, 1, 30, cert, key) == CS_ERR_INVALID);
    CS_CHECK(cs_certificate_make(names, 0, 30, cert, key) == CS_ERR_INVALID);
    CS_CHECK(cs_certificate_make(names, 1, 0, cert, key) == CS_ERR_INVALID);
    CS_CHECK(unlink(cert) == 0 && rmdir(dir) == 0);
}

CS_TEST(seal_to_opens_only_for_its_owner_and_purpose)
{
    /* RFC 7748, 6.1: Alice's keys. */
    static const uint8_t alice[CS_X25519] = {0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d,
                                             0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45,
                                             0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a,
                                             0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a};
    static const uint8_t start[] = {0x85, 0x20, 0xf0, 0x09, 0x89, 0x30, 0xa7, 0x54};
    uint8_t public[CS_X25519], box[5 + CS_SEAL_TO_OVERHEAD], again[sizeof box], plain[5];
    struct cs_slice boxed = cs_slice(box, sizeof box), aad = CS_SLICE_LIT("a");
    CS_CHECK(cs_x25519_public(alice, public) == CS_OK && memcmp(public, start, 8) == 0);
    CS_CHECK(cs_seal_to(public, aad, CS_SLICE_LIT("hello"), box) == CS_OK);
    CS_CHECK(cs_seal_to(public, aad, CS_SLICE_LIT("hello"), again) == CS_OK);
    CS_CHECK(memcmp(box, again, CS_X25519) != 0); /* a fresh key each time */
    CS_CHECK(cs_unseal_to(alice, aad, boxed, plain) == CS_OK && memcmp(plain, "hello", 5) == 0);
    CS_CHECK(cs_unseal_to(alice, CS_SLICE_LIT("b"), boxed, plain) == CS_ERR_CORRUPT);
    CS_CHECK(cs_unseal_to(public, aad, boxed, plain) == CS_ERR_CORRUPT);
    for (size_t i = 0; i < sizeof box; i++) {
        if (i == CS_X25519 - 1) {
            continue; /* its highest bit means nothing: RFC 7748, 5 */
        }
        box[i] ^= 1;
        CS_CHECK(cs_unseal_to(alice, aad, boxed, plain) == CS_ERR_CORRUPT);
        box[i] ^= 1;
    }
    CS_CHECK(cs_unseal_to(alice, aad, cs_slice(box, CS_SEAL_TO_OVERHEAD - 1), plain) ==
             CS_ERR_CORRUPT);
    /* SECURITY: points of small order give a secret that everybody knows. */
    uint8_t zero[CS_X25519] = {0}, one[CS_X25519] = {1};
    CS_CHECK(cs_seal_to(zero, aad, CS_SLICE_LIT("hello"), again) == CS_ERR_INVALID);
    CS_CHECK(cs_seal_to(one, aad, CS_SLICE_LIT("hello"), again) == CS_ERR_INVALID);
    memset(box, 0, CS_X25519);
    CS_CHECK(cs_unseal_to(alice, aad, boxed, plain) == CS_ERR_CORRUPT);
}
