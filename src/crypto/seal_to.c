/* Boxes for the owner of an X25519 key: anybody who has the public half can close one, only the
 * private half opens it. Called by the command that stores a secret and by keeper. It must never
 * give out a byte of a box that did not open, nor leave a shared secret behind. */
#include "base/secret.h"
#include "base/writer.h"
#include "crypto/crypto.h"
#include "crypto/init.h"

#include <openssl/evp.h>

static EVP_PKEY *private_key(const uint8_t raw[static CS_X25519])
{
    cs_crypto_once();
    return EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, raw, CS_X25519);
}

static bool public_of(EVP_PKEY *key, uint8_t ret[static CS_X25519])
{
    size_t n = CS_X25519;
    return EVP_PKEY_get_raw_public_key(key, ret, &n) == 1 && n == CS_X25519;
}

enum cs_err cs_x25519_public(const uint8_t private[static CS_X25519], uint8_t ret[static CS_X25519])
{
    EVP_PKEY *key = private_key(private);
    bool ok = key != NULL && public_of(key, ret);
    EVP_PKEY_free(key);
    return ok ? CS_OK : CS_ERR_INTERNAL;
}

/* SECURITY: libcrypto refuses a public key of small order here: the shared secret would be zero,
 * whoever knows that could open and close boxes without any key. */
static bool shared_secret(EVP_PKEY *mine, const uint8_t theirs[static CS_X25519],
                          uint8_t ret[static CS_X25519])
{
    size_t n = CS_X25519;
    EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, theirs, CS_X25519);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(mine, NULL);
    bool ok = peer != NULL && ctx != NULL && EVP_PKEY_derive_init(ctx) == 1 &&
              EVP_PKEY_derive_set_peer(ctx, peer) == 1 && EVP_PKEY_derive(ctx, ret, &n) == 1 &&
              n == CS_X25519;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(peer);
    return ok;
}

/* Both public keys are in the derivation: a box is for one receiver, and its head is bound to it.
 */
static enum cs_err box_key(const uint8_t secret[static CS_X25519],
                           const uint8_t once[static CS_X25519], const uint8_t to[static CS_X25519],
                           uint8_t ret[static CS_SEAL_KEY])
{
    uint8_t salt[2 * CS_X25519];
    memcpy(salt, once, CS_X25519);
    memcpy(salt + CS_X25519, to, CS_X25519);
    return cs_hkdf_sha256(cs_slice(secret, CS_X25519), cs_slice(salt, sizeof salt),
                          CS_SLICE_LIT("countersign/seal-to/1"), ret, CS_SEAL_KEY);
}

enum cs_err cs_seal_to(const uint8_t to[static CS_X25519], struct cs_slice aad, struct cs_slice in,
                       uint8_t *out)
{
    uint8_t secret[CS_X25519], key[CS_SEAL_KEY];
    cs_crypto_once();
    EVP_PKEY *once = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    enum cs_err e = once != NULL && public_of(once, out) && shared_secret(once, to, secret)
                        ? CS_OK
                        : CS_ERR_INVALID;
    EVP_PKEY_free(once);
    if (e == CS_OK) {
        e = box_key(secret, out, to, key);
    }
    if (e == CS_OK) {
        e = cs_seal(key, aad, in, out + CS_X25519);
    }
    cs_wipe(secret, sizeof secret);
    cs_wipe(key, sizeof key);
    return e;
}

enum cs_err cs_unseal_to(const uint8_t private[static CS_X25519], struct cs_slice aad,
                         struct cs_slice box, uint8_t *out)
{
    uint8_t secret[CS_X25519], key[CS_SEAL_KEY], mine[CS_X25519];
    if (box.n < CS_SEAL_TO_OVERHEAD) {
        return CS_ERR_CORRUPT;
    }
    EVP_PKEY *own = private_key(private);
    enum cs_err e = own != NULL && public_of(own, mine) ? CS_OK : CS_ERR_INTERNAL;
    if (e == CS_OK && !shared_secret(own, box.p, secret)) {
        e = CS_ERR_CORRUPT;
    }
    EVP_PKEY_free(own);
    if (e == CS_OK) {
        e = box_key(secret, box.p, mine, key);
    }
    if (e == CS_OK) {
        e = cs_unseal(key, aad, cs_slice_from(box, CS_X25519), out);
    }
    cs_wipe(secret, sizeof secret);
    cs_wipe(key, sizeof key);
    return e;
}
