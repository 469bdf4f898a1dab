/* TLS connections: a filter between a stream's buffers and its socket. Called by whoever starts a
 * session (gate, front, protocol folders) and then, through the filter table, by the stream. It
 * must never let a byte pass as plain that did not come out of a verified record, nor wait outside
 * the handshake.
 *
 * Memory: the library's record buffers go when they are empty (SSL_MODE_RELEASE_BUFFERS),
 * ciphertext lies in buffers of the process's free list and only while there is some. */
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buf.h"
#include "base/limits.h"
#include "crypto/tls_internal.h"
#include "runtime/stream_filter.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>

enum {
    RECORD = 16384,       /* plain bytes in one record */
    RECORD_OVERHEAD = 32, /* header, explicit nonce or inner type, tag: at most 29 */
    PUT_SLACK = 128,      /* a key update that leaves in front of the data */
    HOST_MAX = 255,
};

struct tls {
    SSL *ssl;               /* owned */
    struct cs_tls_ctx *ctx; /* counted */
    struct cs_stream *s;    /* borrowed for the duration of each call */
    struct cs_iobuf *in;    /* owned while it holds ciphertext */
    uint32_t in_off, in_len;
    struct cs_buf *seen; /* owned: the handshake's messages, where a certificate is asked for */
    bool complete;       /* … up to the client's CertificateVerify */
    bool broken;         /* after an error the library must not be asked again */
};

/* ---- the BIO: the library's view of the buffers ---- */
static int bio_read(BIO *b, char *out, size_t n, size_t *ret_n)
{
    struct tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    *ret_n = CS_MIN(n, t->in_len);
    if (*ret_n == 0) {
        BIO_set_retry_read(b);
        return 0;
    }
    memcpy(out, t->in->bytes + t->in_off, *ret_n);
    t->in_off += (uint32_t)*ret_n;
    t->in_len -= (uint32_t)*ret_n;
    return 1;
}

static int bio_write(BIO *b, const char *p, size_t n, size_t *ret_n)
{
    struct tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (cs_stream_raw_queue(t->s, cs_slice(p, n)) != CS_OK) {
        return 0; /* no retry: callers see to it that there is room, so this is no memory */
    }
    *ret_n = n;
    return 1;
}

static long bio_ctrl(BIO *b, int command, long number, void *p)
{
    (void)b;
    (void)number;
    (void)p;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *method;
static pthread_once_t method_once = PTHREAD_ONCE_INIT;

static void method_make(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "cs_stream");
    if (m != NULL && BIO_meth_set_read_ex(m, bio_read) == 1 &&
        BIO_meth_set_write_ex(m, bio_write) == 1 && BIO_meth_set_ctrl(m, bio_ctrl) == 1) {
        method = m;
    } else {
        BIO_meth_free(m);
    }
}

/* ---- ciphertext from the socket ---- */
static void in_give_if_empty(struct tls *t)
{
    if (t->in_len == 0) {
        cs_iobuf_give(t->in);
        t->in = NULL;
        t->in_off = 0;
    }
}

/* One read of the socket; only when nothing is held. */
static enum cs_io receive(struct cs_stream *s, struct tls *t)
{
    size_t n = 0;
    cs_assert(t->in_len == 0);
    if (!s->fd.readable && s->err == CS_OK) {
        return CS_IO_AGAIN; /* before a buffer is borrowed for nothing */
    }
    if (t->in == NULL) {
        t->in = cs_iobuf_take();
        if (t->in == NULL) {
            s->err = CS_ERR_NO_MEMORY;
            return CS_IO_ERR;
        }
    }
    enum cs_io io = cs_stream_raw_recv(s, t->in->bytes, CS_IOBUF, &n);
    t->in_off = 0;
    t->in_len = io == CS_IO_OK ? (uint32_t)n : 0;
    in_give_if_empty(t);
    return io;
}

/* ---- the filter ---- */
static enum cs_io fail(struct cs_stream *s, struct tls *t)
{
    ERR_clear_error();
    t->broken = true;
    (void)cs_stream_raw_flush(s); /* the alert, if the library made one */
    if (s->err == CS_OK) {
        s->err = CS_ERR_TLS;
    }
    return CS_IO_ERR;
}

/* Decrypts what is held into p. OK: *ret_n bytes, perhaps not all that is held. AGAIN: everything
 * was taken in and a record is not complete. */
static enum cs_io decrypt(struct cs_stream *s, struct tls *t, uint8_t *p, size_t room,
                          size_t *ret_n)
{
    size_t total = 0;
    int error = SSL_ERROR_NONE;
    ERR_clear_error();
    while (total < room) {
        size_t n = 0;
        if (SSL_read_ex(t->ssl, p + total, room - total, &n) != 1) {
            error = SSL_get_error(t->ssl, 0);
            break;
        }
        total += n;
    }
    *ret_n = total;
    if (error == SSL_ERROR_NONE || (total > 0 && error != SSL_ERROR_SSL)) {
        return CS_IO_OK; /* an end behind these bytes comes up again at the next call */
    }
    if (error == SSL_ERROR_WANT_READ) {
        return CS_IO_AGAIN;
    }
    return error == SSL_ERROR_ZERO_RETURN ? CS_IO_EOF : fail(s, t);
}

/* The peer has said close_notify: the end comes with or without its FIN. */
static bool ended(const struct tls *t)
{
    return (SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
}

static enum cs_io tls_fill(struct cs_stream *s)
{
    struct tls *t = s->filter_state;
    bool idle = s->out_len == 0;
    t->s = s;
    if (t->broken) {
        return fail(s, t);
    }
    enum cs_io io = CS_IO_AGAIN;
    if (ended(t) && SSL_pending(t->ssl) == 0) {
        return CS_IO_EOF;
    }
    for (int received = 0;; received++) {
        if (t->in_len > 0 || SSL_pending(t->ssl) > 0) {
            size_t room, n = 0;
            uint8_t *p = cs_stream_in_room(s, &room);
            if (p == NULL) {
                io = s->err != CS_OK ? CS_IO_ERR : CS_IO_FULL;
                break;
            }
            io = decrypt(s, t, p, room, &n);
            cs_stream_in_add(s, io == CS_IO_OK ? n : 0);
            in_give_if_empty(t);
        }
        if (io != CS_IO_AGAIN || received > 0) {
            break;
        }
        io = receive(s, t);
        if (io != CS_IO_OK) {
            break;
        }
    }
    if (idle && io != CS_IO_ERR) {
        (void)cs_stream_raw_flush(s); /* the refusal of a renegotiation, for which the peer waits */
    }
    s->filter_pending = io != CS_IO_ERR && (t->in_len > 0 || SSL_pending(t->ssl) > 0 || ended(t));
    return io;
}

struct put {
    struct tls *t;
    struct cs_slice bytes;
    bool ok;
};

static void put(void *arg)
{
    struct put *x = arg;
    size_t n = 0;
    ERR_clear_error();
    x->ok = SSL_write_ex(x->t->ssl, x->bytes.p, x->bytes.n, &n) == 1 && n == x->bytes.n;
}

/* On the big stack: the library takes 6 KB for a record that leaves (and 1.5 KB for one that
 * comes), which every idle session's stack would keep. The two switches cost less than 1 % of the
 * sealing. */
static enum cs_io tls_put(struct cs_stream *s, struct cs_slice bytes)
{
    struct tls *t = s->filter_state;
    struct put x = {t, bytes, false};
    t->s = s;
    if (t->broken) {
        return fail(s, t);
    }
    cs_big_stack_call(put, &x);
    return x.ok ? CS_IO_OK : fail(s, t);
}

static size_t tls_grown(size_t n)
{
    return n + (n / RECORD + 1) * RECORD_OVERHEAD + PUT_SLACK;
}

static void seen_drop(struct tls *t)
{
    if (t->seen != NULL) {
        cs_buf_done(t->seen);
        cs_free(t->seen);
        t->seen = NULL;
    }
}

static void tls_free(struct tls *t)
{
    seen_drop(t);
    SSL_free(t->ssl); /* frees the BIO */
    cs_iobuf_give(t->in);
    cs_tls_ctx_free(t->ctx);
    cs_free(t);
}

static void say_goodbye(void *arg)
{
    struct tls *t = arg;
    (void)SSL_shutdown(t->ssl); /* close_notify; nobody waits for the answer */
}

static void tls_close(struct cs_stream *s)
{
    struct tls *t = s->filter_state;
    t->s = s;
    if (!t->broken && s->err == CS_OK && cs_stream_raw_room(s) > PUT_SLACK) {
        cs_big_stack_call(say_goodbye, t);
    }
    ERR_clear_error();
    tls_free(t);
    s->filter_state = NULL;
}

static const struct cs_stream_filter filter = {tls_fill, tls_put, tls_grown, tls_close};

/* ---- the handshake ---- */
static void say(char *why, size_t size, const char *a, const char *b)
{
    if (size > 0) {
        (void)snprintf(why, size, "%s%s%s", a, b[0] != 0 ? ": " : "", b);
    }
}

struct step {
    struct tls *t;
    int result; /* SSL_ERROR_… */
    char *why;
    size_t why_size;
};

/* On the big stack: certificate parsing and chain building are deep. */
static void step(void *arg)
{
    struct step *x = arg;
    SSL *ssl = x->t->ssl;
    ERR_clear_error();
    int r = SSL_do_handshake(ssl);
    x->result = r == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl, r);
    if (x->result == SSL_ERROR_NONE || x->result == SSL_ERROR_WANT_READ) {
        return;
    }
    long verify = SSL_get_verify_result(ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    if ((x->t->ctx->verify || x->t->seen != NULL) && verify != X509_V_OK) {
        say(x->why, x->why_size, "the certificate is not accepted",
            X509_verify_cert_error_string(verify));
    } else {
        say(x->why, x->why_size, "the TLS handshake failed", reason != NULL ? reason : "");
    }
    ERR_clear_error();
}

/* Until the socket had something to say, or the deadline. */
static enum cs_err next_bytes(struct cs_stream *s, struct tls *t, uint64_t deadline_ns, char *why,
                              size_t why_size)
{
    for (;;) {
        enum cs_io flushed = cs_stream_raw_flush(s);
        enum cs_io io = flushed == CS_IO_ERR ? CS_IO_ERR : receive(s, t);
        if (io == CS_IO_OK) {
            return CS_OK;
        }
        if (io != CS_IO_AGAIN) {
            say(why, why_size, "the TLS handshake failed",
                io == CS_IO_EOF ? "the peer closed the connection" : "the connection broke");
            return CS_ERR_TLS;
        }
        struct cs_wait w[2] = {CS_WAIT_ON(CS_WAIT_READ, &s->fd), CS_WAIT_ON(CS_WAIT_WRITE, &s->fd)};
        enum cs_woke woke = cs_wait(w, flushed == CS_IO_AGAIN ? 2 : 1, deadline_ns);
        if (woke != CS_WOKE_READY) {
            say(why, why_size, "the TLS handshake failed",
                woke == CS_WOKE_DEADLINE ? "it took too long" : "it was cancelled");
            return woke == CS_WOKE_DEADLINE ? CS_ERR_TIMEOUT : CS_ERR_CANCELLED;
        }
    }
}

static enum cs_err handshake(struct cs_stream *s, struct tls *t, uint64_t deadline_ns, char *why,
                             size_t why_size)
{
    struct step x = {t, SSL_ERROR_NONE, why, why_size};
    for (;;) {
        cs_big_stack_call(step, &x);
        in_give_if_empty(t);
        if (x.result == SSL_ERROR_NONE) {
            break;
        }
        if (x.result != SSL_ERROR_WANT_READ) {
            (void)cs_stream_raw_flush(s); /* the alert */
            return CS_ERR_TLS;
        }
        enum cs_err e = next_bytes(s, t, deadline_ns, why, why_size);
        if (e != CS_OK) {
            return e;
        }
    }
    enum cs_err e = cs_stream_drain(s, deadline_ns);
    if (e != CS_OK) {
        say(why, why_size, "the TLS handshake failed", cs_err_text(e));
    }
    return e;
}

static struct tls *tls_new(struct cs_stream *s, struct cs_tls_ctx *ctx)
{
    (void)pthread_once(&method_once, method_make);
    struct tls *t = cs_alloc(sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    t->ctx = cs_tls_ctx_ref(ctx);
    t->s = s;
    t->ssl = SSL_new(ctx->ssl);
    BIO *b = method != NULL ? BIO_new(method) : NULL;
    if (t->ssl == NULL || b == NULL) {
        BIO_free(b);
        tls_free(t);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_data(b, t);
    BIO_set_init(b, 1);
    SSL_set_bio(t->ssl, b, b);
    return t;
}

/* Every message of the handshake, in both directions, in order: what the client signs. */
static void see(int write_p, int version, int content_type, const void *buf, size_t len, SSL *ssl,
                void *arg)
{
    enum { CERTIFICATE_VERIFY = 15 };
    struct tls *t = arg;
    (void)version;
    (void)ssl;
    if (content_type != SSL3_RT_HANDSHAKE || t->seen == NULL || t->complete || len == 0) {
        return;
    }
    cs_buf_add(t->seen, cs_slice(buf, len));
    t->complete = write_p == 0 && *(const uint8_t *)buf == CERTIFICATE_VERIFY && !t->seen->bad;
}

/* Asks for a certificate; false when memory is out. */
static bool ask(struct tls *t, const uint8_t nonce[static CS_CLIENT_NONCE])
{
    uint8_t der[CS_NONCE_NAME];
    const unsigned char *p = der;
    cs_client_nonce_name(nonce, der);
    t->seen = cs_alloc(sizeof *t->seen);
    STACK_OF(X509_NAME) *names =
        sk_X509_NAME_deep_copy(t->ctx->authorities, X509_NAME_dup, X509_NAME_free);
    X509_NAME *name = d2i_X509_NAME(NULL, &p, (long)sizeof der);
    if (t->seen == NULL || names == NULL || name == NULL || sk_X509_NAME_push(names, name) <= 0) {
        X509_NAME_free(name);
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        ERR_clear_error();
        return false;
    }
    *t->seen = cs_buf(CS_LIMIT_TLS_TRANSCRIPT_BYTES);
    SSL_set0_CA_list(t->ssl, names);
    SSL_set_verify(t->ssl, SSL_VERIFY_PEER, NULL);
    SSL_set_msg_callback(t->ssl, see);
    SSL_set_msg_callback_arg(t->ssl, t);
    return true;
}

static enum cs_err run(struct cs_stream *s, struct tls *t, uint64_t deadline_ns, char *why,
                       size_t why_size)
{
    /* The peer may have sent its first flight behind its request for TLS: those bytes are
     * ciphertext. Whether a protocol permits them is the protocol's business. */
    t->in = s->in;
    t->in_off = s->in_off;
    t->in_len = s->in_len;
    s->in = NULL;
    s->in_off = s->in_len = 0;
    enum cs_err e = handshake(s, t, deadline_ns, why, why_size);
    if (e != CS_OK) {
        tls_free(t);
        if (s->err == CS_OK) {
            s->err = e; /* SECURITY: nothing may go on in plain on this connection */
        }
        return e;
    }
    SSL_set_msg_callback(t->ssl, NULL);
    if (!t->complete) {
        seen_drop(t);
    }
    s->filter = &filter;
    s->filter_state = t;
    s->filter_pending = t->in_len > 0 || SSL_pending(t->ssl) > 0;
    return CS_OK;
}

static enum cs_err tls_accept(struct cs_stream *s, struct cs_tls_ctx *ctx, const uint8_t *nonce,
                              uint64_t deadline_ns, char *why, size_t why_size)
{
    cs_assert(ctx->server && s->filter == NULL);
    say(why, why_size, "", "");
    struct tls *t = tls_new(s, ctx);
    if (t == NULL || (nonce != NULL && !ask(t, nonce))) {
        say(why, why_size, "no memory for TLS", "");
        if (t != NULL) {
            tls_free(t);
        }
        return CS_ERR_NO_MEMORY;
    }
    SSL_set_accept_state(t->ssl);
    return run(s, t, deadline_ns, why, why_size);
}

enum cs_err cs_tls_accept(struct cs_stream *s, struct cs_tls_ctx *ctx, uint64_t deadline_ns,
                          char *why, size_t why_size)
{
    return tls_accept(s, ctx, NULL, deadline_ns, why, why_size);
}

enum cs_err cs_tls_accept_asking(struct cs_stream *s, struct cs_tls_ctx *ctx,
                                 const uint8_t nonce[static CS_CLIENT_NONCE], uint64_t deadline_ns,
                                 char *why, size_t why_size)
{
    cs_assert(ctx->authorities != NULL);
    return tls_accept(s, ctx, nonce, deadline_ns, why, why_size);
}

/* The peer's name: what is asked for (SNI, never an address) and what is verified. */
static bool set_host(struct tls *t, struct cs_slice host)
{
    char name[HOST_MAX + 1];
    uint8_t address[16];
    if (host.n > 0 && host.p[host.n - 1] == '.') {
        host.n--; /* "db.example.com." is the same name; certificates and SNI have it without */
    }
    if (host.n > HOST_MAX || cs_slice_find(host, 0) != host.n) {
        return false;
    }
    if (host.n == 0) {
        return !t->ctx->verify;
    }
    memcpy(name, host.p, host.n);
    name[host.n] = 0;
    bool numeric =
        inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
    if (!numeric && SSL_set_tlsext_host_name(t->ssl, name) != 1) {
        return false;
    }
    if (!t->ctx->verify) {
        return true;
    }
    X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return numeric ? X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1
                   : X509_VERIFY_PARAM_set1_host(param, name, host.n) == 1;
}

enum cs_err cs_tls_connect(struct cs_stream *s, struct cs_tls_ctx *ctx, struct cs_slice host,
                           uint64_t deadline_ns, char *why, size_t why_size)
{
    cs_assert(!ctx->server && s->filter == NULL);
    say(why, why_size, "", "");
    struct tls *t = tls_new(s, ctx);
    if (t == NULL) {
        say(why, why_size, "no memory for TLS", "");
        return CS_ERR_NO_MEMORY;
    }
    if (!set_host(t, host)) {
        say(why, why_size, "there is no valid host name to verify", "");
        ERR_clear_error();
        tls_free(t);
        return CS_ERR_INVALID;
    }
    SSL_set_connect_state(t->ssl);
    return run(s, t, deadline_ns, why, why_size);
}

/* ---- what is known about a connection ---- */
bool cs_tls_on(const struct cs_stream *s)
{
    return s->filter == &filter;
}

struct cs_slice cs_tls_client_proof(const struct cs_stream *s)
{
    const struct tls *t = s->filter_state;
    return cs_tls_on(s) && t->seen != NULL ? cs_buf_slice(t->seen) : CS_SLICE_NULL;
}

void cs_tls_client_proof_drop(struct cs_stream *s)
{
    if (cs_tls_on(s)) {
        seen_drop(s->filter_state);
    }
}

bool cs_tls_alpn_agreed(const struct cs_stream *s)
{
    const unsigned char *name = NULL;
    unsigned n = 0;
    if (cs_tls_on(s)) {
        SSL_get0_alpn_selected(((const struct tls *)s->filter_state)->ssl, &name, &n);
    }
    return n > 0;
}

size_t cs_tls_server_end_point(const struct cs_stream *s, uint8_t out[static 64])
{
    if (!cs_tls_on(s)) {
        return 0;
    }
    const struct tls *t = s->filter_state;
    X509 *x = t->ctx->server ? SSL_get_certificate(t->ssl) : SSL_get0_peer_certificate(t->ssl);
    return x != NULL ? cs_x509_end_point(x, out) : 0;
}

static bool subject_text(X509 *x, char *out, size_t n)
{
    char *text = NULL;
    BIO *b = BIO_new(BIO_s_mem());
    bool ok = b != NULL && X509_NAME_print_ex(b, X509_get_subject_name(x), 0, XN_FLAG_RFC2253) >= 0;
    long len = ok ? BIO_get_mem_data(b, &text) : 0;
    (void)snprintf(out, n, "%.*s", len > 0 && len < 65536 ? (int)len : 0, len > 0 ? text : "");
    BIO_free(b);
    return ok;
}

bool cs_tls_peer_certificate(const struct cs_stream *s, char *subject, size_t n,
                             uint64_t *ret_until_ms)
{
    const struct tls *t = s->filter_state;
    struct tm tm = {0};
    if (!cs_tls_on(s) || t->ctx->server) {
        return false;
    }
    X509 *x = SSL_get0_peer_certificate(t->ssl);
    bool ok = x != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1 &&
              subject_text(x, subject, n);
    time_t until = ok ? timegm(&tm) : 0;
    ERR_clear_error();
    if (!ok || until < 0) {
        return false;
    }
    *ret_until_ms = (uint64_t)until * 1000;
    return true;
}

const char *cs_tls_describe(const struct cs_stream *s, char *out, size_t n)
{
    cs_assert(n > 0);
    out[0] = 0;
    if (cs_tls_on(s)) {
        const struct tls *t = s->filter_state;
        (void)snprintf(out, n, "%s %s", SSL_get_version(t->ssl), SSL_get_cipher_name(t->ssl));
    }
    return out;
}
