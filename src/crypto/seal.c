/* Sealing, base 64, tokens. Called by vault (secrets at rest), identity (tokens) and protocol
 * folders (base 64). It must never give out a byte of a box whose tag is wrong. */
#include "base/id.h"
#include "base/secret.h"
#include "crypto/crypto.h"
#include "crypto/init.h"

#include <openssl/evp.h>

/* Lengths go into libcrypto as int. */
enum { PIECE_MAX = 1 << 30 };

static bool add_aad(EVP_CIPHER_CTX *c, struct cs_slice aad)
{
    int n;
    return aad.n == 0 || EVP_CipherUpdate(c, NULL, &n, aad.p, (int)aad.n) == 1;
}

enum cs_err cs_seal(const uint8_t key[static CS_SEAL_KEY], struct cs_slice aad, struct cs_slice in,
                    uint8_t *out)
{
    if (in.n > PIECE_MAX || aad.n > PIECE_MAX) {
        return CS_ERR_TOO_LARGE;
    }
    cs_crypto_once();
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int n = 0, rest = 0;
    uint8_t *text = out + CS_SEAL_NONCE;
    cs_random(out, CS_SEAL_NONCE);
    bool ok = c != NULL && EVP_EncryptInit_ex2(c, EVP_aes_256_gcm(), key, out, NULL) == 1 &&
              add_aad(c, aad) &&
              (in.n == 0 || EVP_EncryptUpdate(c, text, &n, in.p, (int)in.n) == 1) &&
              EVP_EncryptFinal_ex(c, text + n, &rest) == 1 && (size_t)(n + rest) == in.n &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, CS_SEAL_TAG, text + in.n) == 1;
    EVP_CIPHER_CTX_free(c);
    if (!ok) {
        cs_wipe(out, in.n + CS_SEAL_OVERHEAD);
        return CS_ERR_INTERNAL;
    }
    return CS_OK;
}

enum cs_err cs_unseal(const uint8_t key[static CS_SEAL_KEY], struct cs_slice aad,
                      struct cs_slice box, uint8_t *out)
{
    if (box.n < CS_SEAL_OVERHEAD || box.n > PIECE_MAX || aad.n > PIECE_MAX) {
        return CS_ERR_CORRUPT;
    }
    cs_crypto_once();
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    struct cs_slice text = cs_slice(box.p + CS_SEAL_NONCE, box.n - CS_SEAL_OVERHEAD);
    uint8_t tag[CS_SEAL_TAG];
    int n = 0, rest = 0;
    memcpy(tag, text.p + text.n, sizeof tag);
    bool ready = c != NULL && EVP_DecryptInit_ex2(c, EVP_aes_256_gcm(), key, box.p, NULL) == 1 &&
                 EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, CS_SEAL_TAG, tag) == 1 &&
                 add_aad(c, aad) &&
                 (text.n == 0 || EVP_DecryptUpdate(c, out, &n, text.p, (int)text.n) == 1);
    /* Without text there may be no room at out: the final step gets one of its own. */
    bool opened = ready && EVP_DecryptFinal_ex(c, tag, &rest) == 1 && (size_t)n == text.n;
    EVP_CIPHER_CTX_free(c);
    if (opened) {
        return CS_OK;
    }
    if (text.n > 0) {
        cs_wipe(out, text.n); /* what was decrypted before the tag was known to be wrong */
    }
    return ready ? CS_ERR_CORRUPT : CS_ERR_INTERNAL;
}

/* ---- base 64 ---- */
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char alphabet_url[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t cs_base64_size(size_t n)
{
    return (n + 2) / 3 * 4;
}

size_t cs_base64_encode(struct cs_slice in, bool url, char *out)
{
    const char *digits = url ? alphabet_url : alphabet;
    size_t n = 0;
    for (size_t i = 0; i < in.n; i += 3) {
        size_t left = in.n - i;
        uint32_t v = (uint32_t)in.p[i] << 16 | (left > 1 ? (uint32_t)in.p[i + 1] << 8 : 0) |
                     (left > 2 ? in.p[i + 2] : 0);
        out[n++] = digits[v >> 18];
        out[n++] = digits[v >> 12 & 63];
        if (left > 1) {
            out[n++] = digits[v >> 6 & 63];
        }
        if (left > 2) {
            out[n++] = digits[v & 63];
        }
    }
    while (!url && n % 4 != 0) {
        out[n++] = '=';
    }
    return n;
}

static int digit(uint8_t c, bool url)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    if (c == (url ? '-' : '+')) {
        return 62;
    }
    return c == (url ? '_' : '/') ? 63 : -1;
}

/* The digits without padding, or false: padding must be exactly what the length asks for. */
static bool unpad(struct cs_slice *in, bool url)
{
    if (url) {
        return in->n % 4 != 1;
    }
    if (in->n % 4 != 0) {
        return false;
    }
    for (int i = 0; i < 2 && in->n > 0 && in->p[in->n - 1] == '='; i++) {
        in->n--;
    }
    return in->n % 4 != 1;
}

bool cs_base64_decode(struct cs_slice in, bool url, uint8_t *out, size_t cap, size_t *ret_n)
{
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;
    if (!unpad(&in, url) || in.n / 4 * 3 + (in.n % 4 > 0 ? in.n % 4 - 1 : 0) > cap) {
        return false;
    }
    for (size_t i = 0; i < in.n; i++) {
        int d = digit(in.p[i], url);
        if (d < 0) {
            return false;
        }
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (uint8_t)(bits >> have);
            bits &= (1u << have) - 1;
        }
    }
    if (bits != 0) {
        return false; /* trailing bits: a second spelling of the same bytes */
    }
    *ret_n = n;
    return true;
}

void cs_token_new(char kind, char out[static CS_TOKEN_TEXT])
{
    uint8_t raw[32];
    cs_random(raw, sizeof raw);
    memcpy(out, "cs_x_", 5);
    out[3] = kind;
    size_t n = cs_base64_encode(cs_slice(raw, sizeof raw), true, out + 5);
    out[5 + n] = 0;
    cs_wipe(raw, sizeof raw);
}
