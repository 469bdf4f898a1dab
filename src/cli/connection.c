/* Connecting (connection.h). Called by client.c. Must never talk over TLS to a server that was not
 * verified: the first thing we would send it is a token. */
#include "cli/connection.h"

#include "wire/url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { CONNECT_S = 10, ANSWER_S = 120 };

static void set_timeout(int fd, long seconds)
{
    struct timeval t = {.tv_sec = seconds};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t); /* connect heeds it too */
}

static bool connect_local(const char *path, struct cs_cli_connection *n, char *why, size_t why_size)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sa.sun_path) {
        (void)snprintf(why, why_size, "the socket's path is too long: %s", path);
        return false;
    }
    memcpy(sa.sun_path, path, strlen(path) + 1);
    n->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (n->fd >= 0) {
        set_timeout(n->fd, ANSWER_S);
    }
    if (n->fd < 0 || connect(n->fd, (const struct sockaddr *)&sa, sizeof sa) != 0) {
        (void)snprintf(why, why_size,
                       "cannot reach the gateway's local socket %s: %s. Is `countersign serve` "
                       "running here? Another gateway: --url, or COUNTERSIGN_URL",
                       path, strerror(errno));
        return false;
    }
    (void)snprintf(n->host, sizeof n->host, "local");
    return true;
}

static int connect_any(const struct addrinfo *list)
{
    int last = ECONNREFUSED;
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) {
            last = errno;
            continue;
        }
        set_timeout(fd, CONNECT_S);
        if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) {
            set_timeout(fd, ANSWER_S);
            return fd;
        }
        last = errno;
        (void)close(fd);
    }
    errno = last == EINPROGRESS ? ETIMEDOUT : last;
    return -1;
}

static bool connect_tcp(const char *host, uint16_t port, struct cs_cli_connection *n, char *why,
                        size_t why_size)
{
    char service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    (void)snprintf(service, sizeof service, "%u", port);
    int got = getaddrinfo(host, service, &hints, &list);
    if (got != 0) {
        (void)snprintf(why, why_size, "cannot find the host %s: %s. Check --url or COUNTERSIGN_URL",
                       host, gai_strerror(got));
        return false;
    }
    n->fd = connect_any(list);
    int saved = errno;
    freeaddrinfo(list);
    if (n->fd < 0) {
        (void)snprintf(why, why_size, "cannot reach %s port %u: %s", host, port, strerror(saved));
        return false;
    }
    return true;
}

static bool set_name(SSL *ssl, const char *host)
{
    uint8_t address[16];
    bool numeric =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
    if (numeric) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    }
    /* The macro of SSL_set_tlsext_host_name casts const away. */
    union {
        const char *in;
        void *out;
    } u = {host};
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, host) == 1 &&
           SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, u.out) == 1;
}

static void tls_why(const struct cs_cli_connection *n, const char *host, const char *ca, char *why,
                    size_t why_size)
{
    long verify = n->ssl != NULL ? SSL_get_verify_result(n->ssl) : X509_V_OK;
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    if (verify != X509_V_OK) {
        (void)snprintf(why, why_size, "the certificate of %s is not trusted: %s. %s", host,
                       X509_verify_cert_error_string(verify),
                       ca != NULL ? "It does not fit the file given with --ca or COUNTERSIGN_CA"
                                  : "If it is the gateway's own, give it with --ca FILE or "
                                    "COUNTERSIGN_CA");
    } else {
        (void)snprintf(why, why_size, "no TLS with %s: %s. Does the url begin rightly with https?",
                       host, reason != NULL ? reason : "the connection was closed");
    }
}

static bool start_tls(struct cs_cli_connection *n, const char *host, const char *ca, char *why,
                      size_t why_size)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    n->ctx = ctx;
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
        (void)snprintf(why, why_size, "no memory for TLS");
        return false;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    /* With a file, only that: who names a certificate does not mean "or any other". */
    if ((ca != NULL ? SSL_CTX_load_verify_locations(ctx, ca, NULL)
                    : SSL_CTX_set_default_verify_paths(ctx)) != 1) {
        (void)snprintf(why, why_size, "cannot read the certificates to trust: %s",
                       ca != NULL ? ca : "the system's");
        return false;
    }
    SSL *ssl = SSL_new(ctx);
    n->ssl = ssl;
    static const uint8_t alpn[] = "\x08http/1.1";
    bool ok = ssl != NULL && set_name(ssl, host) && SSL_set_fd(ssl, n->fd) == 1 &&
              SSL_set_alpn_protos(ssl, alpn, sizeof alpn - 1) == 0;
    if (!ok || SSL_connect(ssl) != 1) {
        tls_why(n, host, ca, why, why_size);
        return false;
    }
    return true;
}

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           strncmp(host, "127.", 4) == 0;
}

bool cs_cli_connect(const struct cs_cli_place *p, struct cs_cli_connection *ret, char *why,
                    size_t why_size)
{
    struct cs_url_base base;
    char host[256];
    *ret = (struct cs_cli_connection){.fd = -1};
    if (p->socket != NULL) {
        if (!connect_local(p->socket, ret, why, why_size)) {
            cs_cli_disconnect(ret);
            return false;
        }
        return true;
    }
    if (!cs_url_base_parse(cs_slice_str(p->url), &base)) {
        (void)snprintf(why, why_size, "\"%s\" is no url like https://gate.example.com:7443",
                       p->url);
        return false;
    }
    memcpy(host, base.host.p, base.host.n);
    host[base.host.n] = 0;
    /* SECURITY: the token would cross the network for everybody to read. */
    if (!base.tls && !is_loopback(host)) {
        (void)snprintf(why, why_size, "%s would carry the token in clear: use https", p->url);
        return false;
    }
    bool v6 = strchr(host, ':') != NULL;
    (void)snprintf(ret->host, sizeof ret->host, "%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
                   base.port);
    if (!connect_tcp(host, base.port, ret, why, why_size) ||
        (base.tls && !start_tls(ret, host, p->ca, why, why_size))) {
        cs_cli_disconnect(ret);
        return false;
    }
    return true;
}

bool cs_cli_write(struct cs_cli_connection *n, struct cs_slice bytes)
{
    while (bytes.n > 0) {
        size_t part = CS_MIN(bytes.n, (size_t)(1 << 20));
        long got = n->ssl != NULL ? SSL_write(n->ssl, bytes.p, (int)part)
                                  : (long)write(n->fd, bytes.p, part);
        if (got <= 0) {
            return false;
        }
        bytes = cs_slice_from(bytes, (size_t)got);
    }
    return true;
}

long cs_cli_read(struct cs_cli_connection *n, void *out, size_t cap)
{
    cap = CS_MIN(cap, (size_t)(1 << 20));
    return n->ssl != NULL ? SSL_read(n->ssl, out, (int)cap) : (long)read(n->fd, out, cap);
}

void cs_cli_disconnect(struct cs_cli_connection *n)
{
    SSL_free(n->ssl);
    SSL_CTX_free(n->ctx);
    if (n->fd >= 0) {
        (void)close(n->fd);
    }
    *n = (struct cs_cli_connection){.fd = -1};
}
