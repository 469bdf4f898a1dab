/* AES-256-GCM with the caller's nonces, and SHA-256, over kept contexts: the frames of recordings.
 * Called by record. It must never give out a byte of what did not open, nor choose a nonce itself.
 */
#include "base/alloc.h"
#include "base/assert.h"
#include "base/secret.h"
#include "crypto/crypto.h"
#include "crypto/init.h"

#include <openssl/evp.h>

/* Lengths go into libcrypto as int. */
enum { PIECE_MAX = 1 << 30 };

struct cs_gcm {
    EVP_CIPHER *cipher; /* owned; fetched once */
    EVP_CIPHER_CTX *seal, *unseal;
    EVP_MD *md; /* owned; fetched once */
    EVP_MD_CTX *hash;
};

struct cs_gcm *cs_gcm_new(void)
{
    struct cs_gcm *g = cs_alloc(sizeof *g);
    if (g == NULL) {
        return NULL;
    }
    cs_crypto_once();
    g->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    g->seal = EVP_CIPHER_CTX_new();
    g->unseal = EVP_CIPHER_CTX_new();
    g->md = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    g->hash = EVP_MD_CTX_new();
    /* The cipher is named once: named again with each key, all of a context would be made anew. */
    if (g->cipher == NULL || g->seal == NULL || g->unseal == NULL || g->md == NULL ||
        g->hash == NULL || EVP_EncryptInit_ex2(g->seal, g->cipher, NULL, NULL, NULL) != 1 ||
        EVP_DecryptInit_ex2(g->unseal, g->cipher, NULL, NULL, NULL) != 1) {
        cs_gcm_free(g);
        return NULL;
    }
    return g;
}

void cs_gcm_free(struct cs_gcm *g)
{
    if (g == NULL) {
        return;
    }
    EVP_CIPHER_CTX_free(g->seal); /* wipes the key schedule */
    EVP_CIPHER_CTX_free(g->unseal);
    EVP_CIPHER_free(g->cipher);
    EVP_MD_CTX_free(g->hash);
    EVP_MD_free(g->md);
    cs_free(g);
}

void cs_gcm_sha256(struct cs_gcm *g, const struct cs_slice *pieces, size_t n,
                   uint8_t out[static CS_SHA256])
{
    cs_assert(EVP_DigestInit_ex2(g->hash, g->md, NULL) == 1);
    for (size_t i = 0; i < n; i++) {
        cs_assert(pieces[i].n == 0 || EVP_DigestUpdate(g->hash, pieces[i].p, pieces[i].n) == 1);
    }
    cs_assert(EVP_DigestFinal_ex(g->hash, out, NULL) == 1);
}

static bool fits(const struct cs_slice *aad, size_t n_aad, struct cs_slice in)
{
    cs_assert(n_aad <= CS_GCM_AAD_MAX);
    for (size_t i = 0; i < n_aad; i++) {
        if (aad[i].n > PIECE_MAX) {
            return false;
        }
    }
    return in.n <= PIECE_MAX;
}

static bool add_aad(EVP_CIPHER_CTX *c, const struct cs_slice *aad, size_t n_aad)
{
    int n = 0;
    for (size_t i = 0; i < n_aad; i++) {
        if (aad[i].n > 0 && EVP_CipherUpdate(c, NULL, &n, aad[i].p, (int)aad[i].n) != 1) {
            return false;
        }
    }
    return true;
}

enum cs_err cs_gcm_seal(struct cs_gcm *g, const uint8_t key[static CS_SEAL_KEY],
                        const uint8_t nonce[static CS_SEAL_NONCE], const struct cs_slice *aad,
                        size_t n_aad, struct cs_slice in, uint8_t *out,
                        uint8_t tag[static CS_SEAL_TAG])
{
    EVP_CIPHER_CTX *c = g->seal;
    uint8_t none[CS_SEAL_TAG];
    int n = 0, rest = 0;
    if (!fits(aad, n_aad, in)) {
        return CS_ERR_TOO_LARGE;
    }
    bool ok = EVP_EncryptInit_ex2(c, NULL, key, nonce, NULL) == 1 && add_aad(c, aad, n_aad) &&
              (in.n == 0 || EVP_EncryptUpdate(c, out, &n, in.p, (int)in.n) == 1) &&
              EVP_EncryptFinal_ex(c, none, &rest) == 1 && (size_t)n == in.n && rest == 0 &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, CS_SEAL_TAG, tag) == 1;
    if (!ok) {
        if (in.n > 0) {
            cs_wipe(out, in.n);
        }
        return CS_ERR_INTERNAL;
    }
    return CS_OK;
}

enum cs_err cs_gcm_unseal(struct cs_gcm *g, const uint8_t key[static CS_SEAL_KEY],
                          const uint8_t nonce[static CS_SEAL_NONCE], const struct cs_slice *aad,
                          size_t n_aad, struct cs_slice in, const uint8_t tag[static CS_SEAL_TAG],
                          uint8_t *out)
{
    EVP_CIPHER_CTX *c = g->unseal;
    uint8_t claimed[CS_SEAL_TAG], none[CS_SEAL_TAG];
    int n = 0, rest = 0;
    if (!fits(aad, n_aad, in)) {
        return CS_ERR_TOO_LARGE;
    }
    memcpy(claimed, tag, sizeof claimed);
    bool ready = EVP_DecryptInit_ex2(c, NULL, key, nonce, NULL) == 1 &&
                 EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, CS_SEAL_TAG, claimed) == 1 &&
                 add_aad(c, aad, n_aad) &&
                 (in.n == 0 || EVP_DecryptUpdate(c, out, &n, in.p, (int)in.n) == 1);
    bool opened = ready && EVP_DecryptFinal_ex(c, none, &rest) == 1 && (size_t)n == in.n;
    if (opened) {
        return CS_OK;
    }
    if (in.n > 0) {
        cs_wipe(out, in.n); /* what was decrypted before the tag was known to be wrong */
    }
    return ready ? CS_ERR_CORRUPT : CS_ERR_INTERNAL;
}
