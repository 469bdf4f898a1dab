/* Ed25519 (RFC 8032) over raw keys, through libcrypto. Called by what signs and checks the audit
 * log's checkpoints. It must never say that a signature is good when the library could not tell. */
#include "base/slice.h"
#include "crypto/crypto.h"
#include "crypto/init.h"

#include <openssl/evp.h>

enum cs_err cs_ed25519_public(const uint8_t private[static CS_ED25519_KEY],
                              uint8_t ret[static CS_ED25519_KEY])
{
    size_t n = CS_ED25519_KEY;
    cs_crypto_once();
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private, CS_ED25519_KEY);
    bool ok = key != NULL && EVP_PKEY_get_raw_public_key(key, ret, &n) == 1 && n == CS_ED25519_KEY;
    EVP_PKEY_free(key);
    return ok ? CS_OK : CS_ERR_INTERNAL;
}

enum cs_err cs_ed25519_sign(const uint8_t private[static CS_ED25519_KEY], struct cs_slice in,
                            uint8_t ret[static CS_ED25519_SIGNATURE])
{
    size_t n = CS_ED25519_SIGNATURE;
    cs_crypto_once();
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private, CS_ED25519_KEY);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = key != NULL && ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestSign(ctx, ret, &n, in.n > 0 ? in.p : (const uint8_t *)"", in.n) == 1 &&
              n == CS_ED25519_SIGNATURE;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return ok ? CS_OK : CS_ERR_INTERNAL;
}

bool cs_ed25519_verify(const uint8_t public[static CS_ED25519_KEY], struct cs_slice in,
                       struct cs_slice signature)
{
    if (signature.n != CS_ED25519_SIGNATURE) {
        return false;
    }
    cs_crypto_once();
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, CS_ED25519_KEY);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = key != NULL && ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestVerify(ctx, signature.p, signature.n, in.n > 0 ? in.p : (const uint8_t *)"",
                               in.n) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    return ok;
}
