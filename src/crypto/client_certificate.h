/* A TLS client's certificate as evidence: checked by somebody who was not part of the handshake.
 * Whoever ended the connection (a gate) hands over the handshake's messages; control, which gave
 * the nonce for it, verifies chain, names and the client's signature over all of them. */
#ifndef CS_CRYPTO_CLIENT_CERTIFICATE_H
#define CS_CRYPTO_CLIENT_CERTIFICATE_H

#include "base/err.h"
#include "base/slice.h"

enum cs_san_form { CS_SAN_NONE, CS_SAN_EMAIL, CS_SAN_URI, CS_SAN_DNS, CS_SAN_MAX };

enum { CS_CLIENT_NONCE = 32, CS_NONCE_NAME = 59, CS_SAN_PATTERN_MAX = 200 };

/* Which name in a certificate is whose: the one alternative name of this form, `pattern` with
 * "{name}" where the principal's name stands. */
struct cs_client_rule {
    struct cs_slice authorities; /* PEM */
    enum cs_san_form form;
    struct cs_slice pattern;
    struct cs_slice server_pem; /* the listener's certificate: the handshake must be with it */
};

/* The messages of a handshake up to the client's CertificateVerify, which is the last: slices into
 * what was parsed. */
struct cs_tls_transcript {
    bool v13;
    struct cs_slice all;         /* every message that is signed */
    struct cs_slice first_hello; /* 1.3 with HelloRetryRequest: the first ClientHello */
    struct cs_slice rest;        /* … and what follows it; else empty */
    uint16_t cipher;
    struct cs_slice server_leaf;  /* DER */
    struct cs_slice authorities;  /* of the CertificateRequest: names, each behind its length */
    struct cs_slice certificates; /* the client's: as in its Certificate message's list */
    uint16_t algorithm;
    struct cs_slice signature;
};
/* Strict: exactly the messages of a full handshake with a client certificate, TLS 1.2 or 1.3, in
 * their order, nothing behind them. */
bool cs_tls_transcript_parse(struct cs_slice in, struct cs_tls_transcript *ret) CS_MUST_CHECK;

/* The nonce as a distinguished name (DER) that stands among the authorities which the server names:
 * so the client's signature covers it, in TLS 1.2 as in 1.3. */
void cs_client_nonce_name(const uint8_t nonce[static CS_CLIENT_NONCE],
                          uint8_t ret[static CS_NONCE_NAME]);

/* NULL, and whose certificate it is (64 characters at most, and a NUL), or why not. Needs a large
 * stack: call it on the big one. */
const char *cs_client_certificate_check(struct cs_slice transcript,
                                        const uint8_t nonce[static CS_CLIENT_NONCE],
                                        const struct cs_client_rule *rule,
                                        char ret_name[static 65]);

/* What stands at "{name}" when `san` fits the pattern; empty when it does not. */
struct cs_slice cs_san_pattern_match(struct cs_slice pattern, struct cs_slice san);
/* NULL, or what a pattern of this form must be. */
const char *cs_san_pattern_wrong(enum cs_san_form form, struct cs_slice pattern);
/* PEM: at least one certificate, and each an authority. */
bool cs_certificate_authorities(struct cs_slice pem) CS_MUST_CHECK;

#endif
