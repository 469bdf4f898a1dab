/* Hashing, MACs, sealing, tokens: thin and typed over OpenSSL 3's libcrypto. Failures inside the
 * library (out of memory) are CS_ERR_INTERNAL; nothing is ever half-written. Functions that return
 * nothing end the process instead: a hash that was not computed must never be compared. */
#ifndef CS_CRYPTO_CRYPTO_H
#define CS_CRYPTO_CRYPTO_H

#include "base/err.h"
#include "base/slice.h"

enum {
    CS_SHA256 = 32,
    CS_SEAL_KEY = 32,
    CS_SEAL_NONCE = 12,
    CS_SEAL_TAG = 16,
    CS_SEAL_OVERHEAD = CS_SEAL_NONCE + CS_SEAL_TAG
};

void cs_sha256(struct cs_slice in, uint8_t out[static CS_SHA256]);
/* Several pieces as one message. */
void cs_sha256_pieces(const struct cs_slice *pieces, size_t n, uint8_t out[static CS_SHA256]);
/* The same without having all pieces at once. Every start must meet its finish (which frees). */
struct cs_hasher {
    void *ctx; /* owned */
};
void cs_hasher_start(struct cs_hasher *h);
void cs_hasher_add(struct cs_hasher *h, struct cs_slice piece);
void cs_hasher_finish(struct cs_hasher *h, uint8_t out[static CS_SHA256]);
void cs_hmac_sha256(struct cs_slice key, struct cs_slice in, uint8_t out[static CS_SHA256]);
/* RFC 5869, output ≤ 255 * 32 bytes. */
enum cs_err cs_hkdf_sha256(struct cs_slice key, struct cs_slice salt, struct cs_slice info,
                           uint8_t *out, size_t n) CS_MUST_CHECK;
/* RFC 8018 with HMAC-SHA-256, 32 bytes out. */
enum cs_err cs_pbkdf2_sha256(struct cs_slice password, struct cs_slice salt, uint32_t iterations,
                             uint8_t out[static CS_SHA256]) CS_MUST_CHECK;

/* AES-256-GCM with a random nonce in front: out gets nonce ‖ ciphertext ‖ tag, in.n +
 * CS_SEAL_OVERHEAD bytes. `aad` is bound and not stored: a box moved to another row does not open.
 */
enum cs_err cs_seal(const uint8_t key[static CS_SEAL_KEY], struct cs_slice aad, struct cs_slice in,
                    uint8_t *out) CS_MUST_CHECK;
/* out gets box.n - CS_SEAL_OVERHEAD bytes. CS_ERR_CORRUPT when it does not open. */
enum cs_err cs_unseal(const uint8_t key[static CS_SEAL_KEY], struct cs_slice aad,
                      struct cs_slice box, uint8_t *out) CS_MUST_CHECK;

/* AES-256-GCM with nonces of the caller's, who must never use one twice under a key. One context
 * for many messages and keys. NULL when memory is out. */
struct cs_gcm;
enum { CS_GCM_AAD_MAX = 3 };
struct cs_gcm *cs_gcm_new(void);
void cs_gcm_free(struct cs_gcm *g); /* wipes */
/* As cs_sha256_pieces, without the memory that this takes and gives back each time. */
void cs_gcm_sha256(struct cs_gcm *g, const struct cs_slice *pieces, size_t n,
                   uint8_t out[static CS_SHA256]);
/* out gets in.n bytes, tag CS_SEAL_TAG; `aad` are up to CS_GCM_AAD_MAX pieces as one. */
enum cs_err cs_gcm_seal(struct cs_gcm *g, const uint8_t key[static CS_SEAL_KEY],
                        const uint8_t nonce[static CS_SEAL_NONCE], const struct cs_slice *aad,
                        size_t n_aad, struct cs_slice in, uint8_t *out,
                        uint8_t tag[static CS_SEAL_TAG]) CS_MUST_CHECK;
/* CORRUPT when it does not open; out is wiped then. */
enum cs_err cs_gcm_unseal(struct cs_gcm *g, const uint8_t key[static CS_SEAL_KEY],
                          const uint8_t nonce[static CS_SEAL_NONCE], const struct cs_slice *aad,
                          size_t n_aad, struct cs_slice in, const uint8_t tag[static CS_SEAL_TAG],
                          uint8_t *out) CS_MUST_CHECK;

/* A box for the owner of an X25519 key (RFC 7748): fresh public key ‖ AES-256-GCM box under
 * HKDF-SHA-256 of the shared secret, in.n + CS_SEAL_TO_OVERHEAD bytes. It does not say who closed
 * it. INVALID when `to` is no usable public key. */
enum { CS_X25519 = 32, CS_SEAL_TO_OVERHEAD = CS_X25519 + CS_SEAL_OVERHEAD };
enum cs_err cs_x25519_public(const uint8_t private[static CS_X25519],
                             uint8_t ret[static CS_X25519]) CS_MUST_CHECK;
enum cs_err cs_seal_to(const uint8_t to[static CS_X25519], struct cs_slice aad, struct cs_slice in,
                       uint8_t *out) CS_MUST_CHECK;
/* out gets box.n - CS_SEAL_TO_OVERHEAD bytes. CS_ERR_CORRUPT when it does not open. */
enum cs_err cs_unseal_to(const uint8_t private[static CS_X25519], struct cs_slice aad,
                         struct cs_slice box, uint8_t *out) CS_MUST_CHECK;

/* Ed25519 (RFC 8032), keys as their 32 raw bytes. Verifying is false for anything but a good
 * signature, also when memory is out. */
enum { CS_ED25519_KEY = 32, CS_ED25519_SIGNATURE = 64 };
enum cs_err cs_ed25519_public(const uint8_t private[static CS_ED25519_KEY],
                              uint8_t ret[static CS_ED25519_KEY]) CS_MUST_CHECK;
enum cs_err cs_ed25519_sign(const uint8_t private[static CS_ED25519_KEY], struct cs_slice in,
                            uint8_t ret[static CS_ED25519_SIGNATURE]) CS_MUST_CHECK;
bool cs_ed25519_verify(const uint8_t public[static CS_ED25519_KEY], struct cs_slice in,
                       struct cs_slice signature) CS_MUST_CHECK;

/* PostgreSQL's answer to a request for an MD5 password: "md5" and 32 hexadecimal digits. A weak
 * hash, for servers that know nothing better. INTERNAL where the library has no MD5. */
enum { CS_MD5_SALT = 4, CS_MD5_ANSWER = 35 };
enum cs_err cs_md5_answer(struct cs_slice password, struct cs_slice user,
                          const uint8_t salt[static CS_MD5_SALT],
                          char ret[static CS_MD5_ANSWER]) CS_MUST_CHECK;

/* Base 64 of RFC 4648. Encoded length is cs_base64_size(n) without a NUL; strict decoding: exact
 * padding, no blanks, no non-canonical trailing bits. `url` selects the URL alphabet, unpadded. */
size_t cs_base64_size(size_t n);
size_t cs_base64_encode(struct cs_slice in, bool url, char *out);
bool cs_base64_decode(struct cs_slice in, bool url, uint8_t *out, size_t cap, size_t *ret_n);

/* A bearer token: "cs_p_…" for a person, "cs_a_…" for an agent (so that a leaked one can be
 * recognised by scanners), then 256 random bits in base64url: 48 characters and a NUL. */
enum { CS_TOKEN_TEXT = 49 };
void cs_token_new(char kind, char out[static CS_TOKEN_TEXT]);

/* PEM: the certificate (its chain behind it) belongs to the private key, and all of it can be read.
 */
bool cs_certificate_fits(struct cs_slice cert_pem, struct cs_slice key_pem) CS_MUST_CHECK;
/* When the first certificate of a PEM chain expires, in ms since 1970; 0: it cannot be read. */
uint64_t cs_certificate_expires_ms(struct cs_slice pem);
/* A self-signed P-256 certificate for these DNS names and addresses, PEM, `days` valid, written to
 * the two files (the key with mode 0600; neither may exist). For `init` and tests. */
enum cs_err cs_certificate_make(const char *const *names, size_t n, unsigned days,
                                const char *cert_path, const char *key_path) CS_MUST_CHECK;

/* The hash of the nth certificate in `pem` as tls-server-end-point has it (RFC 5929): what a SCRAM
 * proof over TLS is bound to. NOT_FOUND: there are not that many. UNSUPPORTED: a certificate whose
 * signature leaves it undefined (Ed25519). INVALID: not PEM. */
enum { CS_END_POINT_MAX = 64 };
enum cs_err cs_certificate_end_point(struct cs_slice pem, size_t nth,
                                     uint8_t out[static CS_END_POINT_MAX],
                                     size_t *ret_n) CS_MUST_CHECK;

#endif
