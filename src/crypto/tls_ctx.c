/* TLS contexts: what is the same for all connections of a listener or of a kind of target. Called
 * when a configuration comes into force. It must never read a file, ask for a password, or fall
 * back to the system's trust anchors or settings.
 *
 * Session tickets and the session cache are off: a resumed session skips the certificate, and every
 * connection here is to be authenticated and authorised anew. */
#include "crypto/tls_internal.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "crypto/init.h"

#include <openssl/err.h>
#include <openssl/pem.h>

/* ECDHE for forward secrecy, AEAD only; TLS 1.3 has nothing else. */
#define CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS  "X25519:P-256:P-384"

struct cs_tls_ctx *cs_tls_ctx_ref(struct cs_tls_ctx *ctx)
{
    ctx->refs++;
    return ctx;
}

void cs_tls_ctx_free(struct cs_tls_ctx *ctx)
{
    if (ctx != NULL && --ctx->refs == 0) {
        SSL_CTX_free(ctx->ssl);
        sk_X509_NAME_pop_free(ctx->authorities, X509_NAME_free);
        cs_free(ctx);
    }
}

/* "a,b" as length-prefixed names; false when it does not fit or a name is empty. */
static bool alpn_encode(const char *names, struct cs_tls_ctx *ctx)
{
    struct cs_slice rest = cs_slice_str(names);
    while (rest.n > 0) {
        size_t n = cs_slice_find(rest, ',');
        if (n == 0 || n > UINT8_MAX || n + 1 > sizeof ctx->alpn - ctx->alpn_n) {
            return false;
        }
        ctx->alpn[ctx->alpn_n++] = (uint8_t)n;
        memcpy(ctx->alpn + ctx->alpn_n, rest.p, n);
        ctx->alpn_n += (unsigned)n;
        rest = cs_slice_from(rest, n + 1);
    }
    return true;
}

/* SECURITY: going on without a common name would let a browser's request be taken for the other
 * protocol of the same certificate. */
static int alpn_select(SSL *ssl, const unsigned char **out, unsigned char *out_n,
                       const unsigned char *in, unsigned in_n, void *arg)
{
    const struct cs_tls_ctx *ctx = arg;
    unsigned char *chosen;
    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_n, ctx->alpn, ctx->alpn_n, in, in_n) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static enum cs_err new_ctx(const SSL_METHOD *method, const char *alpn, struct cs_tls_ctx **ret)
{
    cs_crypto_once();
    if (OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1) {
        return CS_ERR_INTERNAL;
    }
    struct cs_tls_ctx *ctx = cs_alloc(sizeof *ctx);
    if (ctx == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    ctx->refs = 1;
    ctx->ssl = SSL_CTX_new(method);
    if (ctx->ssl == NULL || SSL_CTX_set_min_proto_version(ctx->ssl, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(ctx->ssl, CIPHERS) != 1 ||
        SSL_CTX_set1_groups_list(ctx->ssl, GROUPS) != 1) {
        cs_tls_ctx_free(ctx);
        return CS_ERR_INTERNAL;
    }
    if (alpn != NULL && !alpn_encode(alpn, ctx)) {
        cs_tls_ctx_free(ctx);
        return CS_ERR_INVALID;
    }
    (void)SSL_CTX_set_options(ctx->ssl, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                            SSL_OP_NO_COMPRESSION |
                                            SSL_OP_CIPHER_SERVER_PREFERENCE);
    (void)SSL_CTX_set_mode(ctx->ssl, SSL_MODE_RELEASE_BUFFERS);
    (void)SSL_CTX_set_session_cache_mode(ctx->ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_security_level(ctx->ssl, 2);
    *ret = ctx;
    return CS_OK;
}

/* ---- PEM ---- */
static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1; /* the library's own way would be to ask on the terminal */
}

static BIO *pem_open(struct cs_slice pem)
{
    return pem.n > 0 && pem.n <= INT32_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
}

/* True when the last read failed only because there is no further block. */
static bool pem_ended(void)
{
    unsigned long e = ERR_peek_last_error();
    ERR_clear_error();
    return ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
}

/* The server's own certificate, then those that lead to a root. */
static bool use_chain(SSL_CTX *ssl, BIO *pem)
{
    X509 *x = PEM_read_bio_X509(pem, NULL, no_password, NULL);
    bool ok = x != NULL && SSL_CTX_use_certificate(ssl, x) == 1;
    X509_free(x);
    while (ok && (x = PEM_read_bio_X509(pem, NULL, no_password, NULL)) != NULL) {
        if (SSL_CTX_add0_chain_cert(ssl, x) != 1) {
            X509_free(x);
            ok = false;
        }
    }
    return pem_ended() && ok;
}

static bool use_key(SSL_CTX *ssl, BIO *pem)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, no_password, NULL);
    bool ok =
        key != NULL && SSL_CTX_use_PrivateKey(ssl, key) == 1 && SSL_CTX_check_private_key(ssl) == 1;
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ok;
}

/* `names`, unless NULL, gets their subjects. */
static bool use_roots(SSL_CTX *ssl, BIO *pem, STACK_OF(X509_NAME) * names)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ssl);
    X509 *x;
    bool ok = true;
    size_t n = 0;
    while (ok && (x = PEM_read_bio_X509(pem, NULL, no_password, NULL)) != NULL) {
        ok = X509_STORE_add_cert(store, x) == 1;
        X509_NAME *name = ok && names != NULL ? X509_NAME_dup(X509_get_subject_name(x)) : NULL;
        if (ok && names != NULL && (name == NULL || sk_X509_NAME_push(names, name) <= 0)) {
            X509_NAME_free(name);
            ok = false;
        }
        X509_free(x);
        n++;
    }
    return pem_ended() && ok && n > 0;
}

enum cs_err cs_tls_server_new(struct cs_slice cert_pem, struct cs_slice key_pem, const char *alpn,
                              struct cs_tls_ctx **ret)
{
    struct cs_tls_ctx *ctx;
    enum cs_err e = new_ctx(TLS_server_method(), alpn, &ctx);
    if (e != CS_OK) {
        return e;
    }
    ctx->server = true;
    (void)SSL_CTX_set_num_tickets(ctx->ssl, 0);
    if (ctx->alpn_n > 0) {
        SSL_CTX_set_alpn_select_cb(ctx->ssl, alpn_select, ctx);
    }
    BIO *cert = pem_open(cert_pem), *key = pem_open(key_pem);
    bool ok = cert != NULL && key != NULL && use_chain(ctx->ssl, cert) && use_key(ctx->ssl, key);
    BIO_free(cert);
    BIO_free(key);
    if (!ok) {
        cs_tls_ctx_free(ctx);
        return CS_ERR_INVALID;
    }
    *ret = ctx;
    return CS_OK;
}

bool cs_tls_asks(const struct cs_tls_ctx *ctx)
{
    return ctx != NULL && ctx->authorities != NULL;
}

/* What client_certificate.c can verify, no more. */
#define CLIENT_ALGORITHMS                                                                          \
    "ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:"      \
    "rsa_pss_rsae_sha512:RSA+SHA256:RSA+SHA384:RSA+SHA512"

enum cs_err cs_tls_server_ask(struct cs_tls_ctx *ctx, struct cs_slice authorities)
{
    BIO *pem = pem_open(authorities);
    ctx->authorities = sk_X509_NAME_new_null();
    bool ok = pem != NULL && ctx->authorities != NULL &&
              use_roots(ctx->ssl, pem, ctx->authorities) &&
              SSL_CTX_set1_client_sigalgs_list(ctx->ssl, CLIENT_ALGORITHMS) == 1;
    (void)X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx->ssl), X509_V_FLAG_PARTIAL_CHAIN);
    SSL_CTX_set_max_cert_list(ctx->ssl, CS_LIMIT_TLS_TRANSCRIPT_BYTES);
    BIO_free(pem);
    ERR_clear_error();
    return ok ? CS_OK : CS_ERR_INVALID;
}

enum cs_err cs_tls_client_new(struct cs_slice roots_pem, bool verify, const char *alpn,
                              struct cs_tls_ctx **ret)
{
    struct cs_tls_ctx *ctx;
    enum cs_err e = new_ctx(TLS_client_method(), alpn, &ctx);
    if (e != CS_OK) {
        return e;
    }
    ctx->verify = verify;
    SSL_CTX_set_verify(ctx->ssl, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    /* Every certificate given is an anchor, also one that is no root: pinning works. */
    (void)X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx->ssl), X509_V_FLAG_PARTIAL_CHAIN);
    bool ok = ctx->alpn_n == 0 || SSL_CTX_set_alpn_protos(ctx->ssl, ctx->alpn, ctx->alpn_n) == 0;
    if (roots_pem.n > 0) {
        BIO *pem = pem_open(roots_pem);
        ok = pem != NULL && use_roots(ctx->ssl, pem, NULL) && ok;
        BIO_free(pem);
    }
    if (!ok) {
        cs_tls_ctx_free(ctx);
        return CS_ERR_INVALID;
    }
    *ret = ctx;
    return CS_OK;
}
