/* Inside crypto only: what tls_ctx.c and end_point.c make and tls.c uses. */
#ifndef CS_CRYPTO_TLS_INTERNAL_H
#define CS_CRYPTO_TLS_INTERNAL_H

#include "crypto/tls.h"

#include <openssl/ssl.h>

enum { CS_TLS_ALPN_MAX = 128 };

/* Counted: a connection outlives the configuration under which it came. */
struct cs_tls_ctx {
    SSL_CTX *ssl; /* owned */
    unsigned refs;
    bool server;
    bool verify;
    STACK_OF(X509_NAME) * authorities; /* owned: of client certificates; NULL: none is asked for */
    unsigned alpn_n;
    uint8_t alpn[CS_TLS_ALPN_MAX]; /* length-prefixed names */
};

struct cs_tls_ctx *cs_tls_ctx_ref(struct cs_tls_ctx *ctx);
/* RFC 5929; 0 where the certificate has no such hash. */
size_t cs_x509_end_point(const X509 *x, uint8_t out[static 64]);

#endif
