/* PostgreSQL's MD5 authentication, for targets whose configuration says so. Called by keeper. It
 * must never be used to compare or to protect anything of ours. */
#include "base/secret.h"
#include "crypto/crypto.h"
#include "crypto/init.h"

#include <openssl/err.h>
#include <openssl/evp.h>

enum { MD5 = 16, HEX = 2 * MD5 };

/* Of both pieces as one, in lower-case digits. */
static bool md5_hex(struct cs_slice a, struct cs_slice b, char out[static HEX])
{
    uint8_t raw[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_MD *md = EVP_MD_fetch(NULL, "MD5", NULL);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = md != NULL && ctx != NULL && EVP_DigestInit_ex(ctx, md, NULL) == 1 &&
              EVP_DigestUpdate(ctx, a.p, a.n) == 1 && EVP_DigestUpdate(ctx, b.p, b.n) == 1 &&
              EVP_DigestFinal_ex(ctx, raw, &n) == 1 && n == MD5;
    for (size_t i = 0; ok && i < MD5; i++) {
        out[2 * i] = "0123456789abcdef"[raw[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[raw[i] & 15];
    }
    cs_wipe(raw, sizeof raw);
    EVP_MD_CTX_free(ctx);
    EVP_MD_free(md);
    ERR_clear_error();
    return ok;
}

enum cs_err cs_md5_answer(struct cs_slice password, struct cs_slice user,
                          const uint8_t salt[static CS_MD5_SALT], char ret[static CS_MD5_ANSWER])
{
    char inner[HEX];
    cs_crypto_once();
    bool ok = md5_hex(password, user, inner) &&
              md5_hex(cs_slice(inner, sizeof inner), cs_slice(salt, CS_MD5_SALT), ret + 3);
    cs_wipe(inner, sizeof inner);
    if (!ok) {
        return CS_ERR_INTERNAL;
    }
    memcpy(ret, "md5", 3);
    return CS_OK;
}
