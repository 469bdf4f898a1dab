/* TLS over a stream's own buffers (OpenSSL 3, custom BIOs, no SSL_set_fd). After a handshake the
 * stream is used as before; the filter encrypts and decrypts. TLS 1.2 (AEAD, ECDHE) at least, 1.3
 * preferred, no 0-RTT, no renegotiation, no compression, SSL_MODE_RELEASE_BUFFERS.
 *
 * Handshake steps run on the big stack. A truncated stream (FIN without close_notify) is reported
 * as CS_IO_EOF: both protocols here have their own framing. */
#ifndef CS_CRYPTO_TLS_H
#define CS_CRYPTO_TLS_H

#include "base/err.h"
#include "crypto/client_certificate.h"
#include "runtime/stream.h"

struct cs_tls_ctx;

/* Server context from PEM bytes (gate and front open no files). `alpn`: comma-separated names that
 * are accepted when the client offers ALPN; an offer without a match ends the handshake. */
enum cs_err cs_tls_server_new(struct cs_slice cert_pem, struct cs_slice key_pem, const char *alpn,
                              struct cs_tls_ctx **ret) CS_MUST_CHECK;
/* Client context. roots_pem: trust anchors. `verify`: chain and name are checked against the name
 * given at connect; without it nothing is checked (only where the configuration says so). Without
 * roots nothing is trusted. A certificate's common name counts only if it has no DNS names. */
enum cs_err cs_tls_client_new(struct cs_slice roots_pem, bool verify, const char *alpn,
                              struct cs_tls_ctx **ret) CS_MUST_CHECK;
void cs_tls_ctx_free(struct cs_tls_ctx *ctx);
/* Connections of this server context that are accepted with a nonce ask for a certificate: one that
 * these authorities (PEM) lead to, for authenticating clients. */
enum cs_err cs_tls_server_ask(struct cs_tls_ctx *ctx, struct cs_slice authorities) CS_MUST_CHECK;

/* Handshakes on the stream in a coroutine and installs the filter. Bytes already in the stream's in
 * buffer are the peer's first TLS bytes. `host` (client side): SNI and name to verify, a name or a
 * numeric address. CS_ERR_TLS with a reason in `why` (NUL-terminated; also for TIMEOUT and
 * CANCELLED). After a failure the stream only takes cs_stream_close: nothing goes on in plain. The
 * context may be freed while connections made with it live on. */
enum cs_err cs_tls_accept(struct cs_stream *s, struct cs_tls_ctx *ctx, uint64_t deadline_ns,
                          char *why, size_t why_size) CS_MUST_CHECK;
enum cs_err cs_tls_connect(struct cs_stream *s, struct cs_tls_ctx *ctx, struct cs_slice host,
                           uint64_t deadline_ns, char *why, size_t why_size) CS_MUST_CHECK;

/* As cs_tls_accept, and asks the client for a certificate; going on without one is its right, one
 * that is not accepted ends the handshake. The nonce stands among the names of the authorities, so
 * that the client signs it. */
enum cs_err cs_tls_accept_asking(struct cs_stream *s, struct cs_tls_ctx *ctx,
                                 const uint8_t nonce[static CS_CLIENT_NONCE], uint64_t deadline_ns,
                                 char *why, size_t why_size) CS_MUST_CHECK;
/* Is this context one that asks? */
bool cs_tls_asks(const struct cs_tls_ctx *ctx);
/* The handshake's messages, for cs_client_certificate_check; empty when the client showed no
 * certificate. Borrowed until the next call. */
struct cs_slice cs_tls_client_proof(const struct cs_stream *s);
/* It has been used: its memory goes. */
void cs_tls_client_proof_drop(struct cs_stream *s);

bool cs_tls_on(const struct cs_stream *s);
/* Did both sides agree on a protocol by ALPN? */
bool cs_tls_alpn_agreed(const struct cs_stream *s);
/* tls-server-end-point (RFC 5929): hash of the server's certificate, as SCRAM-PLUS binds it: our
 * own on a server stream, the peer's on a client stream. Length 0 when there is none. */
size_t cs_tls_server_end_point(const struct cs_stream *s, uint8_t out[static 64]);
/* Of a client stream: whom the certificate that the server showed is for, as "CN=…" with control
 * characters escaped (cut to fit), and until when. False when there is none. */
bool cs_tls_peer_certificate(const struct cs_stream *s, char *subject, size_t n,
                             uint64_t *ret_until_ms) CS_MUST_CHECK;
/* "TLSv1.3 TLS_AES_256_GCM_SHA384", "" without TLS. */
const char *cs_tls_describe(const struct cs_stream *s, char *out, size_t n);

#endif
