/* Front in this process against a fake control over a socketpair; a client with blocking sockets in
 * a thread of its own. */
#include "crypto/crypto.h"
#include "front/front.h"
#include "ipc/ipc.h"
#include "runtime/sock.h"
#include "tap.h"
#include "wire/snapshot.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/un.h>

#define URL "https://gate.example.com:7443"

static struct {
    struct cs_loop *loop;
    struct cs_front *front;
    struct cs_channel *control; /* the fake one's end */
    uint16_t port;
    char local[100];
    void (*client)(void);
    pthread_t thread;
    /* what control saw last */
    char method[16], path[300], query[300], address[64];
    uint8_t token[64];
    size_t token_n, body_n;
    uint64_t is_local, uid;
    unsigned calls, gone;
    uint32_t gone_call, last_corr;
} t;

/* ---- the fake control ---- */
static void copy(char *to, size_t cap, struct cs_slice from)
{
    size_t n = from.n < cap - 1 ? from.n : cap - 1;
    if (n > 0) {
        memcpy(to, from.p, n);
    }
    to[n] = 0;
}

static void note(const struct cs_msg_api *m)
{
    copy(t.method, sizeof t.method, m->method);
    copy(t.path, sizeof t.path, m->path);
    copy(t.query, sizeof t.query, m->query);
    copy(t.address, sizeof t.address, m->address);
    t.token_n = m->token_sha256.n;
    if (m->token_sha256.n == 32) {
        memcpy(t.token, m->token_sha256.p, 32);
    }
    t.body_n = m->body.n;
    t.is_local = m->local;
    t.uid = m->uid;
    t.calls++;
}

static void answer_large(struct cs_channel *c, uint32_t corr)
{
    static uint8_t big[3 * 1024 * 1024];
    struct cs_msg_api_reply_large m = {.status = 200, .type = CS_SLICE_LIT("application/json")};
    int fd;
    memset(big, 'x', sizeof big);
    CS_CHECK(cs_sealed_make("big", cs_slice(big, sizeof big), &fd) == CS_OK);
    CS_CHECK(cs_channel_send(c, CS_MSG_API_REPLY_LARGE, corr, &m, &fd, 1) == CS_OK);
    (void)close(fd);
}

static void control_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)arg;
    if (in->type == CS_MSG_API_GONE) {
        t.gone++;
        t.gone_call = (uint32_t)((const struct cs_msg_api_gone *)in->msg)->call;
        return;
    }
    CS_CHECK(in->type == CS_MSG_API);
    const struct cs_msg_api *m = in->msg;
    struct cs_msg_api_reply r = {.status = 200, .type = CS_SLICE_LIT("application/json")};
    note(m);
    t.last_corr = in->corr;
    if (strcmp(t.path, "/never") == 0) {
        return;
    }
    if (strcmp(t.path, "/large") == 0) {
        answer_large(c, in->corr);
        return;
    }
    if (strcmp(t.path, "/html") == 0) {
        r.type = CS_SLICE_LIT("text/html");
    }
    if (strcmp(t.path, "/split") == 0) {
        r.type = CS_SLICE_LIT("text/plain\r\nSet-Cookie: evil");
    }
    if (strcmp(t.path, "/nobody") == 0) {
        r.status = 401;
    }
    r.body = m->body.n > 0 ? m->body : CS_SLICE_LIT("{\"ok\": 1}");
    CS_CHECK(cs_channel_send(c, CS_MSG_API_REPLY, in->corr, &r, NULL, 0) == CS_OK);
}

static void control_gone(struct cs_channel *c, void *arg)
{
    (void)c;
    (void)arg;
}

static void connect_control(void)
{
    int fds[2];
    CS_CHECK(cs_socketpair(fds) == CS_OK);
    CS_CHECK(cs_channel_open(t.loop, fds[1], CS_ROLE_CONTROL, CS_ROLE_FRONT, 0, control_message,
                             control_gone, NULL, &t.control) == CS_OK);
    cs_channel_run_phase(t.control);
    CS_CHECK(cs_front_set_control(t.front, fds[0], 0) == CS_OK);
}

/* ---- set-up ---- */
static char certificate[4096], key[4096];

static struct cs_slice slurp(const char *path, char *into, size_t cap)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, into, cap);
    (void)close(fd);
    CS_CHECK(n > 0);
    return cs_slice(into, (size_t)n);
}

static void configure(bool tls)
{
    struct cs_snapshot s = {.url = CS_SLICE_LIT(URL), .n_listeners = 3};
    s.listeners[0].kind = CS_SLICE_LIT("control");
    s.listeners[1].kind = CS_SLICE_LIT("local");
    s.listeners[2].kind = CS_SLICE_LIT("postgres");
    s.listeners[2].tls = 1;
    if (tls) {
        static const char *const names[] = {"localhost", "127.0.0.1"};
        char dir[] = "/tmp/front-test-XXXXXX", cert_path[64], key_path[64];
        CS_CHECK(mkdtemp(dir) != NULL);
        (void)snprintf(cert_path, sizeof cert_path, "%s/c", dir);
        (void)snprintf(key_path, sizeof key_path, "%s/k", dir);
        CS_CHECK(cs_certificate_make(names, 2, 30, cert_path, key_path) == CS_OK);
        s.listeners[0].tls = 1;
        s.listeners[0].cert_pem = slurp(cert_path, certificate, sizeof certificate);
        s.listeners[0].key_pem = slurp(key_path, key, sizeof key);
        (void)unlink(cert_path);
        (void)unlink(key_path);
        (void)rmdir(dir);
    }
    struct cs_buf b = cs_buf(CS_SNAPSHOT_MAX);
    cs_snapshot_write(&b, &s);
    CS_CHECK(cs_front_configure(t.front, cs_buf_slice(&b)) == CS_OK);
    cs_buf_done(&b);
}

static void stop_now(void *arg)
{
    (void)arg;
    cs_front_drain(t.front);
}

/* The client's end is seen by the loop through a pipe. */
static int done_pipe[2];

static void *client_main(void *arg)
{
    (void)arg;
    t.client();
    CS_CHECK(write(done_pipe[1], "x", 1) == 1);
    return NULL;
}

static void watch_client(void *arg)
{
    struct cs_fd f;
    (void)arg;
    CS_CHECK(cs_fd_open(cs_co_loop(), &f, done_pipe[0]) == CS_OK);
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &f);
    enum cs_woke woke = cs_wait(&w, 1, CS_FOREVER);
    (void)woke;
    cs_fd_close(&f);
    stop_now(NULL);
}

enum { TLS = 1, NO_CONTROL = 2 };

static void run(void (*client)(void), unsigned how)
{
    struct cs_front_times times = {.head_ms = 300, .idle_ms = 600, .call_ms = 400};
    cs_handle co;
    int fd;
    t.loop = cs_loop_new();
    t.front = cs_front_new(t.loop, &times);
    CS_CHECK(t.loop != NULL && t.front != NULL);
    configure((how & TLS) != 0);
    CS_EQ_U64(cs_front_listeners_wanted(t.front), 2);
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &fd) == CS_OK);
    t.port = cs_sock_port(fd);
    CS_CHECK(cs_front_add_listener(t.front, fd, false) == CS_OK);
    (void)snprintf(t.local, sizeof t.local, "/tmp/front-test-%d.sock", (int)getpid());
    CS_CHECK(cs_listen_unix(t.local, 0600, &fd) == CS_OK);
    CS_CHECK(cs_front_add_listener(t.front, fd, true) == CS_OK);
    if ((how & NO_CONTROL) == 0) {
        connect_control();
    }
    CS_CHECK(cs_front_accept(t.front) == CS_OK);
    t.client = client;
    CS_CHECK(pipe(done_pipe) == 0);
    CS_CHECK(cs_co_spawn(t.loop, "watch", watch_client, NULL, &co) == CS_OK);
    CS_CHECK(pthread_create(&t.thread, NULL, client_main, NULL) == 0);
    cs_loop_run(t.loop);
    (void)pthread_join(t.thread, NULL);
    cs_front_free(t.front);
    cs_loop_free(t.loop);
    (void)unlink(t.local);
}

/* ---- the client ---- */
static int dial(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(t.port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CS_CHECK(connect(fd, (const struct sockaddr *)&sa, sizeof sa) == 0);
    struct timeval tv = {.tv_sec = 20};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    return fd;
}

static int dial_local(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    memcpy(sa.sun_path, t.local, strlen(t.local) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    CS_CHECK(connect(fd, (const struct sockaddr *)&sa, sizeof sa) == 0);
    return fd;
}

static void put(int fd, const char *text)
{
    size_t n = strlen(text);
    CS_CHECK(write(fd, text, n) == (ssize_t)n);
}

/* One response into `into`, with a NUL: head and body. */
static size_t get(int fd, char *into, size_t cap)
{
    size_t n = 0, all = SIZE_MAX;
    while (n < all) {
        CS_CHECK(n < cap - 1);
        /* a byte at a time: a second response must stay in the socket */
        ssize_t got = read(fd, into + n, 1);
        if (got <= 0) {
            break;
        }
        n++;
        into[n] = 0;
        const char *end = all == SIZE_MAX ? strstr(into, "\r\n\r\n") : NULL;
        if (end != NULL) {
            const char *len = strstr(into, "Content-Length: ");
            all = (size_t)(end - into) + 4 + (len != NULL ? strtoul(len + 16, NULL, 10) : 0);
        }
    }
    into[n] = 0;
    return n;
}

static unsigned status_of(const char *response)
{
    return strncmp(response, "HTTP/1.1 ", 9) == 0 ? (unsigned)strtoul(response + 9, NULL, 10) : 0;
}

static bool closed(int fd)
{
    char c;
    return read(fd, &c, 1) <= 0;
}

static char buf[65536];

static unsigned ask(int fd, const char *request)
{
    put(fd, request);
    (void)get(fd, buf, sizeof buf);
    return status_of(buf);
}

#define H "Host: gate\r\n"

static void client_plain(void)
{
    int fd = dial();
    CS_EQ_U64(ask(fd, "GET /v1/whoami?a=b HTTP/1.1\r\n" H "Authorization: Bearer abc\r\n\r\n"),
              200);
    CS_CHECK(strstr(buf, "\r\n\r\n{\"ok\": 1}") != NULL);
    CS_CHECK(strstr(buf, "Cache-Control: no-store") != NULL);
    CS_CHECK(strstr(buf, "X-Content-Type-Options: nosniff") != NULL);
    CS_CHECK(strstr(buf, "Content-Security-Policy") == NULL);
    CS_EQ_STR(cs_slice_str(t.method), "GET");
    CS_EQ_STR(cs_slice_str(t.path), "/v1/whoami");
    CS_EQ_STR(cs_slice_str(t.query), "a=b");
    uint8_t hash[32];
    cs_sha256(CS_SLICE_LIT("abc"), hash);
    CS_EQ_SLICE(cs_slice(t.token, t.token_n), cs_slice(hash, 32));
    CS_EQ_U64(t.is_local, 0);
    CS_CHECK(strncmp(t.address, "127.0.0.1:", 10) == 0);
    /* keep-alive: the same connection, now a body, then the end */
    CS_EQ_U64(ask(fd, "POST /v1/x HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello"), 200);
    CS_CHECK(strstr(buf, "\r\n\r\nhello") != NULL);
    CS_EQ_U64(t.token_n, 0);
    CS_EQ_U64(ask(fd, "GET /nobody HTTP/1.1\r\n" H "Connection: close\r\n\r\n"), 401);
    CS_CHECK(strstr(buf, "WWW-Authenticate: Bearer") != NULL);
    CS_CHECK(closed(fd));
    (void)close(fd);
    CS_EQ_U64(t.calls, 3);
}

CS_TEST(front_passes_requests_on_and_keeps_the_connection)
{
    run(client_plain, 0);
}

static void client_local(void)
{
    int fd = dial_local();
    CS_EQ_U64(ask(fd, "PUT /v1/secrets/a HTTP/1.1\r\n" H "Content-Length: 2\r\n\r\n{}"), 200);
    CS_EQ_U64(t.is_local, 1);
    CS_EQ_U64(t.uid, getuid());
    (void)close(fd);
}

CS_TEST(front_knows_a_local_peer_by_the_kernels_word)
{
    run(client_local, TLS); /* TLS is the other listener's */
}

static void client_pipelined(void)
{
    int fd = dial();
    put(fd, "GET /a HTTP/1.1\r\n" H "\r\nPOST /b HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nxyz"
            "GET /c HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    (void)get(fd, buf, sizeof buf);
    CS_EQ_U64(status_of(buf), 200);
    (void)get(fd, buf, sizeof buf);
    CS_CHECK(strstr(buf, "\r\n\r\nxyz") != NULL);
    (void)get(fd, buf, sizeof buf);
    CS_EQ_U64(status_of(buf), 200);
    CS_CHECK(closed(fd));
    CS_EQ_STR(cs_slice_str(t.path), "/c");
    CS_EQ_U64(t.calls, 3);
    (void)close(fd);
}

CS_TEST(front_answers_pipelined_requests_in_order)
{
    run(client_pipelined, 0);
}

static void client_split(void)
{
    static const char request[] = "POST /v1/x HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello";
    int fd = dial();
    for (size_t i = 0; i < sizeof request - 1; i++) {
        CS_CHECK(write(fd, request + i, 1) == 1);
        usleep(1000);
    }
    (void)get(fd, buf, sizeof buf);
    CS_EQ_U64(status_of(buf), 200);
    CS_CHECK(strstr(buf, "hello") != NULL);
    (void)close(fd);
}

CS_TEST(front_takes_requests_in_any_pieces)
{
    run(client_split, 0);
}

static void client_bad(void)
{
    static const struct {
        unsigned status;
        const char *request;
    } bad[] = {
        {400, "GET / HTTP/1.1\r\n\r\n"},
        {400, "nonsense\r\n\r\n"},
        {400, "GET / HTTP/1.1\nHost: a\n\n"},
        {400, "GET /a/../b HTTP/1.1\r\n" H "\r\n"},
        {400, "GET /a%2fb HTTP/1.1\r\n" H "\r\n"},
        {400, "GET /%00 HTTP/1.1\r\n" H "\r\n"},
        {400, "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 2\r\n\r\n"},
        {400, "POST / HTTP/1.1\r\n" H "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {501, "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
        {405, "HEAD / HTTP/1.1\r\n" H "\r\n"},
        {405, "OPTIONS / HTTP/1.1\r\n" H "\r\n"},
        {413, "POST / HTTP/1.1\r\n" H "Content-Length: 65537\r\n\r\n"},
        {413, "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551615\r\n\r\n"},
        {403, "POST / HTTP/1.1\r\n" H "Origin: https://evil.example\r\nContent-Length: 0\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\n" H "Origin: null\r\n\r\n"},
        {403, "GET / HTTP/1.1\r\n" H "Origin: " URL ".evil\r\n\r\n"},
        {417, "POST / HTTP/1.1\r\n" H "Expect: x\r\nContent-Length: 1\r\n\r\n"},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        int fd = dial();
        unsigned got = ask(fd, bad[i].request);
        if (got != bad[i].status) {
            CS_FAIL("%s -> %u", bad[i].request, got);
        }
        CS_CHECK(strstr(buf, "\"error\": \"") != NULL);
        CS_CHECK(closed(fd)); /* what follows could be read as a request */
        (void)close(fd);
    }
    CS_EQ_U64(t.calls, 0);
    int fd = dial();
    CS_EQ_U64(ask(fd, "GET / HTTP/1.1\r\n" H "Origin: " URL "\r\n\r\n"), 200);
    CS_EQ_U64(ask(fd, "GET / HTTP/1.1\r\n" H "Authorization: Basic YTpi\r\n\r\n"), 401);
    CS_EQ_U64(ask(fd, "GET / HTTP/1.1\r\n" H "\r\n"), 200);
    CS_EQ_U64(t.calls, 2);
    (void)close(fd);
}

CS_TEST(front_refuses_bad_requests_and_closes)
{
    run(client_bad, 0);
}

static void client_big(void)
{
    static char big[65000];
    char head[100];
    int fd = dial();
    memset(big, 'x', sizeof big);
    (void)snprintf(head, sizeof head, "POST /x HTTP/1.1\r\n" H "Content-Length: %zu\r\n\r\n",
                   sizeof big);
    put(fd, head);
    CS_CHECK(write(fd, big, sizeof big) == (ssize_t)sizeof big);
    (void)get(fd, buf, sizeof buf);
    CS_EQ_U64(status_of(buf), 200);
    CS_EQ_U64(t.body_n, sizeof big);
    (void)close(fd);
}

CS_TEST(front_takes_a_body_up_to_the_limit)
{
    run(client_big, 0);
}

static void client_continue(void)
{
    int fd = dial();
    put(fd, "POST /x HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    (void)get(fd, buf, sizeof buf);
    CS_EQ_U64(status_of(buf), 100);
    put(fd, "hi");
    (void)get(fd, buf, sizeof buf);
    CS_EQ_U64(status_of(buf), 200);
    CS_CHECK(strstr(buf, "\r\n\r\nhi") != NULL);
    (void)close(fd);
}

CS_TEST(front_says_continue)
{
    run(client_continue, 0);
}

static void client_slow(void)
{
    int fd = dial(), idle = dial(), body = dial();
    put(fd, "GET / HTTP/1.1\r\n");
    put(body, "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhe");
    (void)get(fd, buf, sizeof buf);
    CS_EQ_U64(status_of(buf), 408);
    CS_CHECK(closed(fd));
    CS_CHECK(closed(idle)); /* never said a thing */
    (void)get(body, buf, sizeof buf);
    CS_EQ_U64(status_of(buf), 408);
    (void)close(fd);
    (void)close(idle);
    (void)close(body);
    CS_EQ_U64(t.calls, 0);
}

CS_TEST(front_does_not_wait_for_slow_senders)
{
    run(client_slow, 0);
}

static void client_without_control(void)
{
    int fd = dial();
    CS_EQ_U64(ask(fd, "GET /v1/health HTTP/1.1\r\n" H "\r\n"), 503);
    CS_CHECK(strstr(buf, "\"error\": \"unavailable\"") != NULL);
    CS_EQ_U64(ask(fd, "GET /r/7Q2KD4M9 HTTP/1.1\r\n" H "\r\n"), 200);
    (void)close(fd);
}

CS_TEST(front_says_503_without_control)
{
    run(client_without_control, NO_CONTROL);
}

static void client_timeout(void)
{
    int fd = dial();
    CS_EQ_U64(ask(fd, "GET /never HTTP/1.1\r\n" H "\r\n"), 504);
    CS_EQ_U64(ask(fd, "GET /ok HTTP/1.1\r\n" H "\r\n"), 200);
    (void)close(fd);
    CS_EQ_U64(t.gone, 1);
}

CS_TEST(front_gives_up_on_a_control_that_does_not_answer)
{
    run(client_timeout, 0);
}

static void client_leaves(void)
{
    int fd = dial();
    put(fd, "GET /never?wait=30 HTTP/1.1\r\n" H "\r\n");
    usleep(100000);
    CS_EQ_U64(t.gone, 0);
    (void)close(fd);
    usleep(100000);
    CS_EQ_U64(t.gone, 1);
    CS_EQ_U64(t.gone_call, t.last_corr);
}

CS_TEST(front_tells_control_when_a_long_poll_is_left)
{
    run(client_leaves, 0);
}

static void lose_control(void *arg)
{
    (void)arg;
    if (!cs_co_sleep(100 * CS_NS_PER_MS)) {
        return;
    }
    cs_channel_close(t.control);
    if (!cs_co_sleep(100 * CS_NS_PER_MS)) {
        return;
    }
    connect_control();
}

static void client_control_restarts(void)
{
    int fd = dial();
    CS_EQ_U64(ask(fd, "GET /never HTTP/1.1\r\n" H "\r\n"), 503);
    usleep(300000);
    CS_EQ_U64(ask(fd, "GET /again HTTP/1.1\r\n" H "\r\n"), 200);
    (void)close(fd);
}

static void client_control_restarts_start(void)
{
    client_control_restarts();
}

CS_TEST(front_survives_a_restart_of_control)
{
    /* The spawn must come before the loop runs: a second run() set-up by hand. */
    struct cs_front_times times = {.head_ms = 1000, .idle_ms = 2000, .call_ms = 3000};
    cs_handle co;
    int fd;
    t.loop = cs_loop_new();
    t.front = cs_front_new(t.loop, &times);
    configure(false);
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &fd) == CS_OK);
    t.port = cs_sock_port(fd);
    CS_CHECK(cs_front_add_listener(t.front, fd, false) == CS_OK);
    connect_control();
    CS_CHECK(cs_front_accept(t.front) == CS_OK);
    CS_CHECK(cs_co_spawn(t.loop, "lose", lose_control, NULL, &co) == CS_OK);
    t.client = client_control_restarts_start;
    CS_CHECK(pipe(done_pipe) == 0);
    CS_CHECK(cs_co_spawn(t.loop, "watch", watch_client, NULL, &co) == CS_OK);
    CS_CHECK(pthread_create(&t.thread, NULL, client_main, NULL) == 0);
    cs_loop_run(t.loop);
    (void)pthread_join(t.thread, NULL);
    cs_front_free(t.front);
    cs_loop_free(t.loop);
}

static void client_large(void)
{
    static char big[4 * 1024 * 1024];
    int fd = dial();
    put(fd, "GET /large HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    size_t n = 0;
    ssize_t got;
    while ((got = read(fd, big + n, sizeof big - n)) > 0) {
        n += (size_t)got;
    }
    big[300] = 0;
    CS_EQ_U64(status_of(big), 200);
    CS_CHECK(strstr(big, "Content-Length: 3145728\r\n") != NULL);
    CS_CHECK(n > 3145728 && n < 3145728 + 500);
    (void)close(fd);
}

CS_TEST(front_writes_large_answers_from_sealed_memory)
{
    run(client_large, 0);
}

static void client_page(void)
{
    int fd = dial();
    CS_EQ_U64(ask(fd, "GET /r/7q2kd4m9 HTTP/1.1\r\n" H "\r\n"), 200);
    CS_CHECK(strstr(buf, "countersign show 7Q2KD4M9") != NULL);
    CS_CHECK(strstr(buf, "countersign approve 7Q2KD4M9") != NULL);
    CS_CHECK(strstr(buf, "Content-Type: text/html") != NULL);
    CS_CHECK(strstr(buf, "Content-Security-Policy: default-src 'none'; style-src 'sha256-") !=
             NULL);
    CS_CHECK(strstr(buf, "script") == NULL);
    CS_CHECK(strstr(buf, "width=device-width") != NULL);
    CS_EQ_U64(ask(fd, "GET /r/%3Cscript%3E HTTP/1.1\r\n" H "\r\n"), 404);
    CS_CHECK(strstr(buf, "<script") == NULL && strstr(buf, "%3C") == NULL);
    CS_EQ_U64(ask(fd, "GET /r/7Q2KD4M9x HTTP/1.1\r\n" H "\r\n"), 404);
    CS_EQ_U64(t.calls, 0);
    CS_EQ_U64(ask(fd, "GET /html HTTP/1.1\r\n" H "\r\n"), 200);
    CS_CHECK(strstr(buf, "Content-Security-Policy: default-src 'none'") != NULL);
    CS_EQ_U64(ask(fd, "GET /split HTTP/1.1\r\n" H "\r\n"), 500);
    CS_CHECK(strstr(buf, "Set-Cookie") == NULL);
    (void)close(fd);
}

CS_TEST(front_shows_a_page_that_gives_nothing_away)
{
    run(client_page, 0);
}

static void client_tls(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    int fd = dial();
    static const uint8_t alpn[] = "\x08http/1.1";
    CS_CHECK(SSL_set_alpn_protos(ssl, alpn, 9) == 0);
    CS_CHECK(SSL_set_fd(ssl, fd) == 1 && SSL_connect(ssl) == 1);
    for (int i = 0; i < 3; i++) {
        static const char request[] = "GET /v1/health HTTP/1.1\r\n" H "\r\n";
        CS_CHECK(SSL_write(ssl, request, sizeof request - 1) == (int)sizeof request - 1);
        int n = SSL_read(ssl, buf, sizeof buf - 1);
        CS_CHECK(n > 0);
        buf[n] = 0;
        CS_EQ_U64(status_of(buf), 200);
        CS_CHECK(strstr(buf, "{\"ok\": 1}") != NULL);
    }
    SSL_free(ssl);
    (void)close(fd);
    SSL_CTX_free(ctx);
    /* plain bytes on a TLS listener */
    fd = dial();
    put(fd, "GET / HTTP/1.1\r\n" H "\r\n");
    CS_CHECK(get(fd, buf, sizeof buf) == 0 || status_of(buf) == 0);
    (void)close(fd);
    CS_EQ_U64(t.calls, 3);
}

CS_TEST(front_speaks_tls_with_the_snapshots_certificate)
{
    run(client_tls, TLS);
}

CS_TEST(front_refuses_a_snapshot_that_is_none)
{
    struct cs_loop *loop = cs_loop_new();
    struct cs_front *f = cs_front_new(loop, NULL);
    CS_CHECK(cs_front_configure(f, CS_SLICE_LIT("nonsense")) == CS_ERR_CORRUPT);
    CS_CHECK(cs_front_listeners_wanted(f) == SIZE_MAX);
    struct cs_snapshot s = {.url = CS_SLICE_LIT(URL), .n_listeners = 1};
    s.listeners[0].kind = CS_SLICE_LIT("control");
    s.listeners[0].tls = 1;
    s.listeners[0].cert_pem = CS_SLICE_LIT("no certificate");
    struct cs_buf b = cs_buf(CS_SNAPSHOT_MAX);
    cs_snapshot_write(&b, &s);
    CS_CHECK(cs_front_configure(f, cs_buf_slice(&b)) != CS_OK);
    CS_CHECK(cs_front_listeners_wanted(f) == SIZE_MAX);
    cs_buf_done(&b);
    cs_front_free(f);
    cs_loop_free(loop);
}

/* ---- the role, as a process of its own behind a fake supervisor ---- */
static struct {
    struct cs_channel *supervisor;
    bool ready;
    pid_t pid;
} role;

static void role_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)arg;
    CS_CHECK(in->type == CS_MSG_READY);
    cs_channel_run_phase(c);
    role.ready = true;
    cs_loop_stop(t.loop);
}

static void role_gone(struct cs_channel *c, void *arg)
{
    (void)c;
    (void)arg;
    cs_loop_stop(t.loop);
}

static void send_fd(enum cs_msg_type type, const void *msg, int fd)
{
    CS_CHECK(cs_channel_send(role.supervisor, type, 0, msg, fd >= 0 ? &fd : NULL, fd >= 0) ==
             CS_OK);
    if (fd >= 0) {
        (void)close(fd);
    }
}

static void send_snapshot(void)
{
    struct cs_snapshot s = {.url = CS_SLICE_LIT(URL), .n_listeners = 1};
    struct cs_msg_snapshot m = {.version = 1};
    uint8_t hash[32];
    int fd;
    s.listeners[0].kind = CS_SLICE_LIT("local");
    struct cs_buf b = cs_buf(CS_SNAPSHOT_MAX);
    cs_snapshot_write(&b, &s);
    cs_sha256(cs_buf_slice(&b), hash);
    m.sha256 = cs_slice(hash, 32);
    CS_CHECK(cs_sealed_make("snapshot", cs_buf_slice(&b), &fd) == CS_OK);
    cs_buf_done(&b);
    send_fd(CS_MSG_SNAPSHOT, &m, fd);
}

static void start_role(void)
{
    int fds[2];
    CS_CHECK(cs_socketpair(fds) == CS_OK);
    role.pid = fork();
    if (role.pid == 0) {
        (void)close(fds[0]);
        _exit(cs_front_main(fds[1], "front"));
    }
    (void)close(fds[1]);
    t.loop = cs_loop_new();
    CS_CHECK(cs_channel_open(t.loop, fds[0], CS_ROLE_SUPERVISOR, CS_ROLE_FRONT, 0, role_message,
                             role_gone, NULL, &role.supervisor) == CS_OK);
}

CS_TEST(front_role_is_ready_when_it_has_everything_and_stops_in_order)
{
    struct cs_msg_boot boot = {.role = CS_ROLE_FRONT};
    struct cs_msg_listener listener = {.name = CS_SLICE_LIT("local"),
                                       .kind = CS_SLICE_LIT("local")};
    struct cs_msg_peer peer = {.role = CS_ROLE_CONTROL};
    struct cs_msg_shutdown bye = {0};
    int fds[2], fd, status;
    start_role();
    send_fd(CS_MSG_BOOT, &boot, -1);
    CS_CHECK(cs_socketpair(fds) == CS_OK);
    send_fd(CS_MSG_PEER, &peer, fds[0]);
    send_snapshot();
    (void)snprintf(t.local, sizeof t.local, "/tmp/front-test-%d.sock", (int)getpid());
    CS_CHECK(cs_listen_unix(t.local, 0600, &fd) == CS_OK);
    send_fd(CS_MSG_LISTENER, &listener, fd);
    cs_loop_run(t.loop);
    CS_CHECK(role.ready);
    fd = dial_local();
    CS_EQ_U64(ask(fd, "GET /r/7Q2KD4M9 HTTP/1.1\r\n" H "\r\n"), 200);
    send_fd(CS_MSG_SHUTDOWN, &bye, -1);
    CS_CHECK(closed(fd));
    CS_CHECK(waitpid(role.pid, &status, 0) == role.pid);
    CS_EQ_U64(status, 0);
    (void)close(fd);
    (void)close(fds[1]);
    (void)unlink(t.local);
}

CS_TEST(front_role_ends_with_its_supervisor)
{
    int status;
    start_role();
    cs_channel_close(role.supervisor);
    cs_loop_run(t.loop);
    CS_CHECK(waitpid(role.pid, &status, 0) == role.pid);
    CS_EQ_U64(status, 0);
    CS_CHECK(!role.ready);
}
