/* TLS over streams: two coroutines shake hands over a socket pair. */
#include "crypto/crypto.h"
#include "crypto/tls.h"
#include "runtime/sock.h"
#include "runtime/stream_filter.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/stat.h>

enum { MEGABYTE = 1 << 20, WHY = 200 };

struct pem {
    uint8_t cert[4096], key[4096];
    size_t cert_n, key_n;
};

static size_t read_file(const char *path, uint8_t *out, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, cap) : -1;
    CS_CHECK(n > 0 && (size_t)n < cap);
    (void)close(fd);
    return (size_t)n;
}

static void make_pem(struct pem *pem, const char *const *names, size_t n)
{
    char dir[] = "/tmp/cs-tls-XXXXXX", cert[64], key[64];
    CS_CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(cert, sizeof cert, "%s/cert.pem", dir);
    (void)snprintf(key, sizeof key, "%s/key.pem", dir);
    CS_CHECK(cs_certificate_make(names, n, 2, cert, key) == CS_OK);
    pem->cert_n = read_file(cert, pem->cert, sizeof pem->cert);
    pem->key_n = read_file(key, pem->key, sizeof pem->key);
    CS_CHECK(unlink(cert) == 0 && unlink(key) == 0 && rmdir(dir) == 0);
}

static const char *const names[] = {"db.example.com", "127.0.0.1", "::1"};

/* One handshake, and what each side then does. */
struct pair {
    struct cs_loop *loop;
    struct cs_stream server, client;
    struct cs_tls_ctx *server_ctx, *client_ctx;
    const char *host;
    enum cs_err server_err, client_err;
    char server_why[WHY], client_why[WHY];
    uint8_t server_end[64], client_end[64];
    size_t server_end_n, client_end_n;
    char description[100];
    bool bulk;  /* 1 MB each way */
    bool early; /* the client's first bytes are in the server's buffer before the handshake */
    bool server_ok, client_ok;
    char subject[64];
    uint64_t until_ms;
    bool shown;
};

static uint64_t soon(void)
{
    return cs_mono_ns() + 10 * CS_NS_PER_S;
}

static bool send_much(struct cs_stream *s, uint8_t seed)
{
    static uint8_t block[2][10000];
    uint8_t *b = block[seed & 1];
    for (size_t at = 0; at < MEGABYTE;) {
        size_t n = CS_MIN(sizeof block[0], MEGABYTE - at);
        for (size_t i = 0; i < n; i++) {
            b[i] = (uint8_t)((at + i) * 7 + seed);
        }
        if (cs_stream_write(s, cs_slice(b, n), soon()) != CS_OK) {
            return false;
        }
        at += n;
    }
    return cs_stream_drain(s, soon()) == CS_OK;
}

static bool receive_much(struct cs_stream *s, uint8_t seed)
{
    for (size_t at = 0; at < MEGABYTE;) {
        if (cs_stream_need(s, 1, soon()) != CS_OK) {
            return false;
        }
        struct cs_slice got = cs_stream_peek(s);
        for (size_t i = 0; i < got.n; i++) {
            if (got.p[i] != (uint8_t)((at + i) * 7 + seed)) {
                return false;
            }
        }
        at += got.n;
        cs_stream_consume(s, got.n);
    }
    return true;
}

static void server_co(void *arg)
{
    struct pair *p = arg;
    if (p->early) {
        CS_CHECK(cs_stream_need(&p->server, 5, soon()) == CS_OK);
    }
    p->server_err = cs_tls_accept(&p->server, p->server_ctx, soon(), p->server_why, WHY);
    if (p->server_err == CS_OK) {
        p->server_end_n = cs_tls_server_end_point(&p->server, p->server_end);
        char none[8];
        uint64_t never = 0; /* the client showed no certificate */
        CS_CHECK(!cs_tls_peer_certificate(&p->server, none, sizeof none, &never) && never == 0);
        p->server_ok = cs_stream_need(&p->server, 5, soon()) == CS_OK &&
                       cs_slice_eq_str(cs_stream_peek(&p->server), "hello");
        cs_stream_consume(&p->server, p->server_ok ? 5 : 0);
        p->server_ok = p->server_ok && cs_stream_put(&p->server, CS_SLICE_LIT("world")) == CS_OK;
        if (p->bulk) {
            p->server_ok = p->server_ok && receive_much(&p->server, 1) && send_much(&p->server, 2);
        }
        /* The client's close_notify, not only its FIN. */
        p->server_ok = p->server_ok && cs_stream_need(&p->server, 1, soon()) == CS_ERR_EOF;
    }
    cs_stream_close(&p->server);
}

static void client_co(void *arg)
{
    struct pair *p = arg;
    p->client_err = cs_tls_connect(&p->client, p->client_ctx, cs_slice_str(p->host), soon(),
                                   p->client_why, WHY);
    if (p->client_err == CS_OK) {
        p->client_end_n = cs_tls_server_end_point(&p->client, p->client_end);
        (void)cs_tls_describe(&p->client, p->description, sizeof p->description);
        p->shown = cs_tls_peer_certificate(&p->client, p->subject, sizeof p->subject, &p->until_ms);
        p->client_ok = cs_stream_put(&p->client, CS_SLICE_LIT("hello")) == CS_OK &&
                       cs_stream_need(&p->client, 5, soon()) == CS_OK &&
                       cs_slice_eq_str(cs_slice_head(cs_stream_peek(&p->client), 5), "world");
        cs_stream_consume(&p->client, p->client_ok ? 5 : 0);
        if (p->bulk) {
            p->client_ok = p->client_ok && send_much(&p->client, 1) && receive_much(&p->client, 2);
        }
    }
    cs_stream_close(&p->client);
}

static void open_pair(struct pair *p, int buffer)
{
    int fds[2];
    p->loop = cs_loop_new();
    CS_CHECK(p->loop != NULL && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    for (int i = 0; buffer > 0 && i < 2; i++) {
        (void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    }
    CS_CHECK(cs_stream_open(p->loop, &p->server, fds[0]) == CS_OK);
    CS_CHECK(cs_stream_open(p->loop, &p->client, fds[1]) == CS_OK);
}

static void close_pair(struct pair *p)
{
    cs_loop_free(p->loop);
    cs_tls_ctx_free(p->server_ctx);
    cs_tls_ctx_free(p->client_ctx);
    p->server_ctx = p->client_ctx = NULL;
}

static void run_pair(struct pair *p, int buffer)
{
    cs_handle co;
    open_pair(p, buffer);
    CS_CHECK(cs_co_spawn(p->loop, "client", client_co, p, &co) == CS_OK);
    CS_CHECK(cs_co_spawn(p->loop, "server", server_co, p, &co) == CS_OK);
    cs_loop_run(p->loop);
    close_pair(p);
}

static void contexts(struct pair *p, const struct pem *own, const struct pem *roots,
                     const char *server_alpn, const char *client_alpn)
{
    CS_CHECK(cs_tls_server_new(cs_slice(own->cert, own->cert_n), cs_slice(own->key, own->key_n),
                               server_alpn, &p->server_ctx) == CS_OK);
    struct cs_slice anchors = roots != NULL ? cs_slice(roots->cert, roots->cert_n) : CS_SLICE_NULL;
    CS_CHECK(cs_tls_client_new(anchors, true, client_alpn, &p->client_ctx) == CS_OK);
}

static void expect_ok(const struct pair *p)
{
    if (p->client_err != CS_OK || p->server_err != CS_OK) {
        CS_FAIL("client: %s; server: %s", p->client_why, p->server_why);
    }
    CS_CHECK(p->client_ok && p->server_ok);
}

static void expect_refused(const char *host, const struct pem *own, const struct pem *roots,
                           const char *why)
{
    struct pair p = {.host = host};
    contexts(&p, own, roots, NULL, NULL);
    run_pair(&p, 0);
    CS_CHECK(p.client_err == CS_ERR_TLS && p.server_err == CS_ERR_TLS);
    if (strstr(p.client_why, why) == NULL) {
        CS_FAIL("why: %s", p.client_why);
    }
}

CS_TEST(tls_connects_by_name_and_both_ends_see_the_same_binding)
{
    struct pem pem;
    struct pair p = {.host = "db.example.com"};
    make_pem(&pem, names, 3);
    contexts(&p, &pem, &pem, NULL, NULL);
    run_pair(&p, 0);
    expect_ok(&p);
    CS_EQ_U64(p.client_end_n, 32);
    CS_EQ_SLICE(cs_slice(p.client_end, p.client_end_n), cs_slice(p.server_end, p.server_end_n));
    CS_CHECK(strncmp(p.description, "TLSv1.3 TLS_", 12) == 0);
}

CS_TEST(tls_connects_by_address_and_by_name_with_a_dot_at_its_end)
{
    static const char *const hosts[] = {"127.0.0.1", "::1", "db.example.com.", "DB.example.com"};
    struct pem pem;
    make_pem(&pem, names, 3);
    for (size_t i = 0; i < CS_ARRAY_LEN(hosts); i++) {
        struct pair p = {.host = hosts[i]};
        contexts(&p, &pem, &pem, NULL, NULL);
        run_pair(&p, 0);
        expect_ok(&p);
    }
}

CS_TEST(tls_refuses_a_wrong_name_or_address)
{
    struct pem pem;
    make_pem(&pem, names, 3);
    expect_refused("other.example.com", &pem, &pem, "hostname mismatch");
    expect_refused("xdb.example.com", &pem, &pem, "hostname mismatch");
    expect_refused("127.0.0.2", &pem, &pem, "IP address mismatch");
}

CS_TEST(tls_refuses_an_untrusted_certificate)
{
    struct pem pem, other;
    make_pem(&pem, names, 3);
    make_pem(&other, names, 3);
    expect_refused("db.example.com", &pem, &other, "self-signed certificate");
    expect_refused("db.example.com", &pem, NULL, "self-signed certificate");
}

CS_TEST(tls_tells_whom_the_servers_certificate_is_for_and_until_when)
{
    struct pem pem;
    struct pair p = {.host = "db.example.com"};
    make_pem(&pem, names, 3);
    contexts(&p, &pem, &pem, NULL, NULL);
    run_pair(&p, 0);
    expect_ok(&p);
    CS_CHECK(p.shown && p.until_ms > cs_wall_ms() &&
             p.until_ms < cs_wall_ms() + (40000ULL * 86400000));
    CS_CHECK(strncmp(p.subject, "CN=", 3) == 0 && strstr(p.subject, names[0]) != NULL);
}

CS_TEST(tls_needs_a_name_to_verify)
{
    struct pem pem;
    struct pair p = {.host = ""};
    make_pem(&pem, names, 3);
    contexts(&p, &pem, &pem, NULL, NULL);
    run_pair(&p, 0);
    CS_CHECK(p.client_err == CS_ERR_INVALID && p.server_err == CS_ERR_TLS);
}

CS_TEST(tls_without_verification_takes_any_certificate)
{
    struct pem pem;
    struct pair p = {.host = ""};
    make_pem(&pem, names, 3);
    contexts(&p, &pem, &pem, NULL, NULL);
    cs_tls_ctx_free(p.client_ctx);
    CS_CHECK(cs_tls_client_new(CS_SLICE_NULL, false, NULL, &p.client_ctx) == CS_OK);
    run_pair(&p, 0);
    expect_ok(&p);
}

CS_TEST(tls_carries_a_megabyte_each_way_through_small_sockets)
{
    struct pem pem;
    struct pair p = {.host = "db.example.com", .bulk = true};
    make_pem(&pem, names, 3);
    contexts(&p, &pem, &pem, NULL, NULL);
    run_pair(&p, 4096);
    expect_ok(&p);
}

CS_TEST(tls_takes_first_bytes_that_are_already_in_the_buffer)
{
    struct pem pem;
    struct pair p = {.host = "db.example.com", .early = true};
    make_pem(&pem, names, 3);
    contexts(&p, &pem, &pem, NULL, NULL);
    run_pair(&p, 0);
    expect_ok(&p);
}

CS_TEST(tls_alpn_must_match_only_if_both_speak_it)
{
    static const struct {
        const char *server, *client;
        bool ok;
    } rows[] = {{"postgresql", "postgresql", true}, {"postgresql", NULL, true},
                {NULL, "postgresql", true},         {"h2,http/1.1", "x,http/1.1", true},
                {"postgresql", "http/1.1", false},  {"postgresql", "postgres", false}};
    struct pem pem;
    make_pem(&pem, names, 3);
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct pair p = {.host = "db.example.com"};
        contexts(&p, &pem, &pem, rows[i].server, rows[i].client);
        run_pair(&p, 0);
        CS_EQ_U64(p.client_err == CS_OK, rows[i].ok);
        CS_EQ_U64(p.server_err == CS_OK, rows[i].ok);
        CS_CHECK(rows[i].ok || strstr(p.client_why, "no application protocol") != NULL);
    }
}

CS_TEST(tls_contexts_refuse_bad_material)
{
    struct pem a, b;
    struct cs_tls_ctx *ctx = NULL;
    make_pem(&a, names, 3);
    make_pem(&b, names, 3);
    struct cs_slice cert = cs_slice(a.cert, a.cert_n), key = cs_slice(a.key, a.key_n);
    CS_CHECK(cs_tls_server_new(cert, cs_slice(b.key, b.key_n), NULL, &ctx) == CS_ERR_INVALID);
    CS_CHECK(cs_tls_server_new(key, key, NULL, &ctx) == CS_ERR_INVALID);
    CS_CHECK(cs_tls_server_new(CS_SLICE_NULL, key, NULL, &ctx) == CS_ERR_INVALID);
    CS_CHECK(cs_tls_server_new(cert, CS_SLICE_LIT("junk"), NULL, &ctx) == CS_ERR_INVALID);
    CS_CHECK(cs_tls_server_new(cert, key, "a,,b", &ctx) == CS_ERR_INVALID);
    CS_CHECK(cs_tls_client_new(CS_SLICE_LIT("junk"), true, NULL, &ctx) == CS_ERR_INVALID);
    a.cert[a.cert_n / 2] = '!';
    CS_CHECK(cs_tls_client_new(cert, true, NULL, &ctx) == CS_ERR_INVALID);
    CS_CHECK(ctx == NULL);
}

/* ---- hostile peers: the other side writes bytes of its own ---- */
struct hostile {
    struct pair p;
    struct cs_slice bytes;
    bool tail; /* the bytes come behind a proper handshake */
    bool fin;  /* … and then the end, without close_notify */
    enum cs_err after;
};

static void accept_co(void *arg)
{
    struct hostile *h = arg;
    h->p.server_err = cs_tls_accept(&h->p.server, h->p.server_ctx, soon(), h->p.server_why, WHY);
    if (h->p.server_err == CS_OK) {
        h->after = cs_stream_need(&h->p.server, 1, soon());
    } else {
        /* Nothing may go on in plain. */
        CS_CHECK(cs_stream_put(&h->p.server, CS_SLICE_LIT("plain")) != CS_OK);
    }
    cs_stream_close(&h->p.server);
}

static void hostile_co(void *arg)
{
    struct hostile *h = arg;
    if (h->tail) {
        CS_CHECK(cs_tls_connect(&h->p.client, h->p.client_ctx, cs_slice_str("db.example.com"),
                                soon(), h->p.client_why, WHY) == CS_OK);
    }
    int fd = h->p.client.fd.fd;
    CS_CHECK(write(fd, h->bytes.p, h->bytes.n) == (ssize_t)h->bytes.n);
    if (h->fin) {
        CS_CHECK(shutdown(fd, SHUT_WR) == 0);
    }
    uint8_t sink[256];
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &h->p.client.fd);
    for (;;) { /* until the server has gone */
        ssize_t n = read(fd, sink, sizeof sink);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            break;
        }
        if (n < 0) {
            h->p.client.fd.readable = false;
            CS_CHECK(cs_wait(&w, 1, soon()) == CS_WOKE_READY);
        }
    }
    h->p.client.err = CS_ERR_IO; /* no close_notify */
    cs_stream_close(&h->p.client);
}

static void run_hostile(struct hostile *h)
{
    struct pem pem;
    cs_handle co;
    make_pem(&pem, names, 3);
    contexts(&h->p, &pem, &pem, NULL, NULL);
    open_pair(&h->p, 0);
    CS_CHECK(cs_co_spawn(h->p.loop, "hostile", hostile_co, h, &co) == CS_OK);
    CS_CHECK(cs_co_spawn(h->p.loop, "server", accept_co, h, &co) == CS_OK);
    cs_loop_run(h->p.loop);
    close_pair(&h->p);
}

CS_TEST(tls_refuses_what_is_no_client_hello)
{
    const struct cs_slice rows[] = {CS_SLICE_LIT("GET / HTTP/1.1\r\n\r\n"),
                                    CS_SLICE_LIT("\x00\x00\x00\x08\x04\xd2\x16\x2f"),
                                    CS_SLICE_LIT("\x16\x03\x01\x00\x04\x01\x00\x00\x00"),
                                    CS_SLICE_LIT("\x16\x03\x01\xff\xff\x01\x00\x00\x00")};
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct hostile h = {.bytes = rows[i]};
        run_hostile(&h);
        CS_CHECK(h.p.server_err == CS_ERR_TLS);
        CS_CHECK(h.p.server_why[0] != 0);
    }
}

CS_TEST(tls_peer_that_leaves_in_the_handshake_is_told_apart)
{
    struct hostile h = {.bytes = CS_SLICE_LIT("\x16\x03"), .fin = true};
    run_hostile(&h);
    CS_CHECK(h.p.server_err == CS_ERR_TLS);
    CS_CHECK(strstr(h.p.server_why, "the peer closed the connection") != NULL);
}

CS_TEST(tls_record_that_nobody_sealed_ends_the_connection)
{
    struct hostile h = {.bytes = CS_SLICE_LIT("\x17\x03\x03\x00\x18"
                                              "0123456789abcdef01234567"),
                        .tail = true};
    run_hostile(&h);
    CS_CHECK(h.p.server_err == CS_OK && h.after == CS_ERR_TLS);
}

CS_TEST(tls_bare_fin_is_an_end)
{
    struct hostile h = {.bytes = CS_SLICE_LIT("\x17\x03\x03"), .tail = true, .fin = true};
    run_hostile(&h);
    CS_CHECK(h.p.server_err == CS_OK && h.after == CS_ERR_EOF);
}

static void slow_co(void *arg)
{
    struct pair *p = arg;
    p->server_err = cs_tls_accept(&p->server, p->server_ctx, cs_mono_ns() + 20 * CS_NS_PER_MS,
                                  p->server_why, 4); /* also: `why` is cut, never overrun */
    cs_stream_close(&p->server);
    cs_stream_close(&p->client);
}

CS_TEST(tls_silent_peer_meets_the_deadline)
{
    struct pem pem;
    struct pair p = {.host = ""};
    cs_handle co;
    make_pem(&pem, names, 3);
    contexts(&p, &pem, &pem, NULL, NULL);
    open_pair(&p, 0);
    CS_CHECK(cs_co_spawn(p.loop, "server", slow_co, &p, &co) == CS_OK);
    cs_loop_run(p.loop);
    CS_CHECK(p.server_err == CS_ERR_TIMEOUT);
    CS_EQ_STR(cs_slice_str(p.server_why), "the");
    close_pair(&p);
}

/* The library's own client, which may do what ours never does. */
static void *renegotiating(void *arg)
{
    int fd = *(int *)arg;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    CS_CHECK(ssl != NULL && SSL_set_max_proto_version(ssl, TLS1_2_VERSION) == 1);
    CS_CHECK(SSL_set_fd(ssl, fd) == 1 && SSL_connect(ssl) == 1);
    CS_CHECK(SSL_renegotiate(ssl) == 1);
    (void)SSL_do_handshake(
        ssl); /* sends its ClientHello and reads the answer, which is a warning */
    unsigned long why = ERR_peek_last_error();
    CS_EQ_U64(ERR_GET_REASON(why), SSL_R_NO_RENEGOTIATION);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    (void)close(fd);
    return NULL;
}

static void no_answer_co(void *arg)
{
    struct pair *p = arg;
    CS_CHECK(cs_tls_accept(&p->server, p->server_ctx, soon(), p->server_why, WHY) == CS_OK);
    /* Nothing is written here: the refusal must leave by itself, or the client waits with us. */
    CS_EQ_U64(cs_stream_need(&p->server, 1, soon()), CS_ERR_TLS); /* its alert */
    cs_stream_close(&p->server);
}

CS_TEST(tls_refuses_a_renegotiation_while_it_only_reads)
{
    struct pair p = {.loop = cs_loop_new()};
    struct pem own;
    pthread_t client;
    cs_handle co;
    int fds[2];
    make_pem(&own, names, 3);
    CS_CHECK(p.loop != NULL && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    CS_CHECK(cs_tls_server_new(cs_slice(own.cert, own.cert_n), cs_slice(own.key, own.key_n), NULL,
                               &p.server_ctx) == CS_OK);
    CS_CHECK(cs_stream_open(p.loop, &p.server, fds[0]) == CS_OK);
    CS_CHECK(pthread_create(&client, NULL, renegotiating, &fds[1]) == 0);
    CS_CHECK(cs_co_spawn(p.loop, "server", no_answer_co, &p, &co) == CS_OK);
    cs_loop_run(p.loop);
    CS_CHECK(pthread_join(client, NULL) == 0);
    close_pair(&p);
}

CS_TEST(tls_survives_a_lack_of_memory)
{
    struct pem pem;
    bool done = false;
    make_pem(&pem, names, 3);
    CS_OOM_LOOP(done)
    {
        struct pair p = {.host = "db.example.com"};
        cs_handle a = 0, b = 0;
        int fds[2];
        CS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
        p.loop = cs_loop_new();
        bool have =
            p.loop != NULL && cs_stream_open(p.loop, &p.server, fds[0]) == CS_OK &&
            cs_stream_open(p.loop, &p.client, fds[1]) == CS_OK &&
            cs_tls_server_new(cs_slice(pem.cert, pem.cert_n), cs_slice(pem.key, pem.key_n), NULL,
                              &p.server_ctx) == CS_OK &&
            cs_tls_client_new(cs_slice(pem.cert, pem.cert_n), true, NULL, &p.client_ctx) == CS_OK &&
            cs_co_spawn(p.loop, "server", server_co, &p, &a) == CS_OK;
        if (have && cs_co_spawn(p.loop, "client", client_co, &p, &b) == CS_OK) {
            cs_loop_run(p.loop);
            done = p.client_ok && p.server_ok;
        } else if (have) {
            cs_stream_close(&p.client);
            cs_loop_run(p.loop);
        }
        cs_tls_ctx_free(p.server_ctx);
        cs_tls_ctx_free(p.client_ctx);
        if (p.loop != NULL) {
            cs_stream_close(&p.server);
            cs_stream_close(&p.client);
            cs_loop_free(p.loop);
        }
        (void)close(fds[0]); /* those that no stream has taken over */
        (void)close(fds[1]);
    }
    CS_CHECK(done);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
}
