/* Digests, MACs and key derivation over libcrypto. Called by everyone who compares, signs or stores
 * a hash. It must never return without a result: a failure of the library (which needs memory even
 * for a hash) ends the process. */
#include "crypto/crypto.h"

#include "base/assert.h"
#include "crypto/init.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>

static EVP_MD *sha256; /* fetched once: a fetch costs more than hashing a short message */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void start(void)
{
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) == 1) {
        sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    }
}

void cs_crypto_once(void)
{
    (void)pthread_once(&once, start);
    cs_assert(sha256 != NULL);
}

static const EVP_MD *md(void)
{
    cs_crypto_once();
    return sha256;
}

void cs_hasher_start(struct cs_hasher *h)
{
    h->ctx = EVP_MD_CTX_new();
    cs_assert(h->ctx != NULL);
    cs_assert(EVP_DigestInit_ex2(h->ctx, md(), NULL) == 1);
}

void cs_hasher_add(struct cs_hasher *h, struct cs_slice piece)
{
    cs_assert(piece.n == 0 || EVP_DigestUpdate(h->ctx, piece.p, piece.n) == 1);
}

void cs_hasher_finish(struct cs_hasher *h, uint8_t out[static CS_SHA256])
{
    cs_assert(EVP_DigestFinal_ex(h->ctx, out, NULL) == 1);
    EVP_MD_CTX_free(h->ctx);
    h->ctx = NULL;
}

void cs_sha256(struct cs_slice in, uint8_t out[static CS_SHA256])
{
    cs_sha256_pieces(&in, 1, out);
}

void cs_sha256_pieces(const struct cs_slice *pieces, size_t n, uint8_t out[static CS_SHA256])
{
    struct cs_hasher h;
    cs_hasher_start(&h);
    for (size_t i = 0; i < n; i++) {
        cs_hasher_add(&h, pieces[i]);
    }
    cs_hasher_finish(&h, out);
}

void cs_hmac_sha256(struct cs_slice key, struct cs_slice in, uint8_t out[static CS_SHA256])
{
    unsigned n = 0;
    const void *k = key.n > 0 ? key.p : (const uint8_t *)"";
    cs_assert(key.n <= INT32_MAX);
    cs_assert(HMAC(md(), k, (int)key.n, in.n > 0 ? in.p : (const uint8_t *)"", in.n, out, &n) !=
              NULL);
    cs_assert(n == CS_SHA256);
}

enum cs_err cs_hkdf_sha256(struct cs_slice key, struct cs_slice salt, struct cs_slice info,
                           uint8_t *out, size_t n)
{
    if (n == 0 || n > (size_t)255 * CS_SHA256) {
        return CS_ERR_INVALID;
    }
    cs_crypto_once();
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    char name[] = "SHA2-256";
    uint8_t nothing[1] = {0};
    /* libcrypto's parameters are not const; it only reads them. */
    OSSL_PARAM params[5];
    size_t i = 0;
    params[i++] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, name, 0);
    params[i++] = OSSL_PARAM_construct_octet_string(
        OSSL_KDF_PARAM_KEY, key.n > 0 ? (void *)(uintptr_t)key.p : nothing, key.n);
    if (salt.n > 0) {
        params[i++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT,
                                                        (void *)(uintptr_t)salt.p, salt.n);
    }
    if (info.n > 0) {
        params[i++] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO,
                                                        (void *)(uintptr_t)info.p, info.n);
    }
    params[i] = OSSL_PARAM_construct_end();
    bool ok = ctx != NULL && EVP_KDF_derive(ctx, out, n, params) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok ? CS_OK : CS_ERR_INTERNAL;
}

enum cs_err cs_pbkdf2_sha256(struct cs_slice password, struct cs_slice salt, uint32_t iterations,
                             uint8_t out[static CS_SHA256])
{
    if (iterations == 0 || iterations > INT32_MAX || password.n > INT32_MAX || salt.n > INT32_MAX) {
        return CS_ERR_INVALID;
    }
    const void *p = password.n > 0 ? password.p : (const uint8_t *)"";
    const void *s = salt.n > 0 ? salt.p : (const uint8_t *)"";
    return PKCS5_PBKDF2_HMAC(p, (int)password.n, s, (int)salt.n, (int)iterations, md(), CS_SHA256,
                             out) == 1
               ? CS_OK
               : CS_ERR_INTERNAL;
}
