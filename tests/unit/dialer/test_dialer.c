/* The dialer role in the test's process: the test plays supervisor and control. */
#include "base/limits.h"
#include "base/log.h"
#include "base/time.h"
#include "crypto/crypto.h"
#include "dialer/dialer.h"
#include "ipc/ipc.h"
#include "policy/policy.h"
#include "policy/rules.h"
#include "runtime/sock.h"
#include "runtime/stream_filter.h"
#include "tap.h"
#include "wire/snapshot.h"

#include <netinet/in.h>
#include <sys/resource.h>

#ifdef __SANITIZE_ADDRESS__
enum { SLOW = 1 };
#else
enum { SLOW = 0 };
#endif
enum { DEAD = 1000, PER_DEAD = 6 };

static struct {
    struct cs_loop *loop;
    struct cs_dialer *dialer;
    struct cs_channel *supervisor, *control;
    struct cs_event ready;
    struct cs_arena arena;
    void (*script)(void);
    char alive[40], closed[40];
    struct cs_slice address[DEAD + 16];
    size_t n_addresses;
    uint64_t version;
} d;

static void address(const char *text)
{
    d.address[d.n_addresses++] = cs_arena_dup(&d.arena, cs_slice_str(text));
}

static void on_supervisor(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)arg;
    if (in->type == CS_MSG_READY) {
        cs_channel_run_phase(c);
        cs_event_set(&d.ready);
    }
}

static void nothing(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c;
    (void)in;
    (void)arg;
}

static void nobody(struct cs_channel *c, void *arg)
{
    (void)c;
    (void)arg;
}

static struct cs_slice policy(void)
{
    struct cs_target *t = cs_arena_alloc(&d.arena, d.n_addresses * sizeof *t);
    for (size_t i = 0; i < d.n_addresses; i++) {
        t[i] = (struct cs_target){.name = cs_arena_printf(&d.arena, "t%06zu", i),
                                  .kind = CS_SLICE_LIT("postgres"),
                                  .database = CS_SLICE_LIT("db"),
                                  .tls = CS_SLICE_LIT("off"),
                                  .user = CS_SLICE_LIT("u"),
                                  .password = CS_SLICE_LIT("p"),
                                  .address = d.address[i]};
    }
    struct cs_policy_source src = {++d.version, NULL, 0, t, d.n_addresses};
    struct cs_buf out = cs_buf(4U << 20);
    cs_policy_build(&src, &out);
    CS_CHECK(!out.bad);
    struct cs_slice kept = cs_arena_dup(&d.arena, cs_buf_slice(&out));
    cs_buf_done(&out);
    return kept;
}

static void snapshot(void)
{
    uint8_t hash[CS_SHA256];
    int fd = -1;
    struct cs_slice p = policy();
    struct cs_snapshot s = {.version = d.version, .policy = p};
    struct cs_buf out = cs_buf(4U << 20);
    cs_snapshot_write(&out, &s);
    CS_CHECK(!out.bad);
    cs_sha256(cs_buf_slice(&out), hash);
    CS_CHECK(cs_sealed_make("snapshot", cs_buf_slice(&out), &fd) == CS_OK);
    cs_buf_done(&out);
    struct cs_msg_snapshot m = {.version = d.version, .sha256 = cs_slice(hash, sizeof hash)};
    CS_CHECK(cs_channel_send(d.supervisor, CS_MSG_SNAPSHOT, 0, &m, &fd, 1) == CS_OK);
    (void)close(fd);
}

static void play(void *arg)
{
    int pair[2];
    (void)arg;
    snapshot();
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &d.ready);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 10 * CS_NS_PER_S) == CS_WOKE_READY);
    const struct cs_msg_peer m = {.role = CS_ROLE_CONTROL, .epoch = 1};
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_channel_send(d.supervisor, CS_MSG_PEER, 0, &m, &pair[1], 1) == CS_OK);
    (void)close(pair[1]);
    CS_CHECK(cs_channel_open(d.loop, pair[0], CS_ROLE_CONTROL, CS_ROLE_DIALER, 0, nothing, nobody,
                             NULL, &d.control) == CS_OK);
    cs_channel_run_phase(d.control);
    d.script();
    const struct cs_msg_shutdown end = {0};
    CS_CHECK(cs_channel_send(d.supervisor, CS_MSG_SHUTDOWN, 0, &end, NULL, 0) == CS_OK);
    while (cs_co_sleep(CS_NS_PER_S)) {
    }
}

/* `script` runs with one target that listens (d.alive), one that refuses (d.closed), and whatever
 * the test named with address() before. */
static void run(void (*script)(void))
{
    int pair[2], listener = -1, other = -1;
    cs_handle co;
    cs_log_init("dialer", CS_LEVEL_ERROR);
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &listener) == CS_OK);
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &other) == CS_OK);
    (void)snprintf(d.alive, sizeof d.alive, "127.0.0.1:%u", cs_sock_port(listener));
    (void)snprintf(d.closed, sizeof d.closed, "127.0.0.1:%u", cs_sock_port(other));
    (void)close(other);
    address(d.alive);
    address(d.closed);
    d.script = script;
    d.loop = cs_loop_new();
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_dialer_new(d.loop, pair[1], &d.dialer) == CS_OK);
    CS_CHECK(cs_channel_open(d.loop, pair[0], CS_ROLE_SUPERVISOR, CS_ROLE_DIALER, 0, on_supervisor,
                             nobody, NULL, &d.supervisor) == CS_OK);
    CS_CHECK(cs_co_spawn(d.loop, "script", play, NULL, &co) == CS_OK);
    cs_loop_run(d.loop);
    cs_dialer_free(d.dialer);
    cs_channel_close(d.supervisor);
    cs_channel_close(d.control);
    cs_loop_free(d.loop);
    (void)close(listener);
    cs_arena_done(&d.arena);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
}

static enum cs_err dial(const char *to, uint64_t within_ns)
{
    struct cs_call c;
    const struct cs_msg_dial m = {.address = cs_slice_str(to),
                                  .deadline = cs_mono_ns() + within_ns};
    enum cs_err e =
        cs_channel_call(d.control, CS_MSG_DIAL, &m, NULL, 0, cs_mono_ns() + 30 * CS_NS_PER_S, &c);
    CS_EQ_U64(e, CS_OK);
    if (c.type == CS_MSG_DIALED) {
        struct sockaddr_storage sa;
        socklen_t n = sizeof sa;
        CS_CHECK(getpeername(c.fd[0], (struct sockaddr *)&sa, &n) == 0);
    } else {
        CS_CHECK(c.type == CS_MSG_NOT_DIALED);
        e = (enum cs_err)((const struct cs_msg_not_dialed *)(const void *)c.msg.raw)->err;
        CS_CHECK(e != CS_OK);
    }
    cs_call_done(&c);
    return e;
}

static void script_registered(void)
{
    char text[64];
    CS_EQ_U64(dial(d.alive, CS_NS_PER_S), CS_OK);
    CS_EQ_U64(dial(d.closed, CS_NS_PER_S), CS_ERR_REFUSED);
    /* SECURITY: whatever control asks for, only what the configuration names, as it names it. */
    CS_EQ_U64(dial("127.0.0.1:1", CS_NS_PER_S), CS_ERR_DENIED);
    CS_EQ_U64(dial("", CS_NS_PER_S), CS_ERR_DENIED);
    (void)snprintf(text, sizeof text, "localhost:%s", strchr(d.alive, ':') + 1);
    CS_EQ_U64(dial(text, CS_NS_PER_S), CS_ERR_DENIED);
    (void)snprintf(text, sizeof text, "%s0", d.alive);
    CS_EQ_U64(dial(text, CS_NS_PER_S), CS_ERR_DENIED);
    address(text);
    address("127.0.0.1:1");
    snapshot(); /* a reload */
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    CS_EQ_U64(dial("127.0.0.1:1", CS_NS_PER_S), CS_ERR_REFUSED);
    d.n_addresses = 0;
    address("127.0.0.1:2");
    snapshot();
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    CS_EQ_U64(dial(d.alive, CS_NS_PER_S), CS_ERR_DENIED);
    CS_EQ_U64(dial("127.0.0.1:2", 0), CS_ERR_TIMEOUT); /* asked too late */
}

CS_TEST(dialer_dials_only_what_its_configuration_names)
{
    cs_arena_init(&d.arena, 65536, 64U << 20);
    run(script_registered);
}

static void script_names(void)
{
    char port[8], text[64];
    (void)snprintf(port, sizeof port, "%s", strchr(d.alive, ':') + 1);
    (void)snprintf(text, sizeof text, "localhost:%s", port);
    address(text);
    address("no-such-host.invalid:5432");
    address("169.254.169.254:9");
    /* What is no address to us is one to the C library: it is looked up, and refused for what it
     * is. */
    static const char *const odd[] = {"2852039166:9",      "0xa9fea9fe:9",
                                      "169.254.43518:9",   "0251.0376.0251.0376:9",
                                      "0xa9.0xfe.43518:9", "0:9"};
    for (size_t i = 0; i < CS_ARRAY_LEN(odd); i++) {
        address(odd[i]);
    }
    snapshot();
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    CS_EQ_U64(dial(text, 5 * CS_NS_PER_S), CS_OK);
    enum cs_err e = dial("no-such-host.invalid:5432", 5 * CS_NS_PER_S);
    CS_CHECK(e == CS_ERR_NOT_FOUND || e == CS_ERR_TIMEOUT);
    for (size_t i = 0; i < CS_ARRAY_LEN(odd); i++) {
        e = dial(odd[i], 5 * CS_NS_PER_S);
        if (e != CS_ERR_DENIED) {
            CS_FAIL("%s: %s", odd[i], cs_err_name(e));
        }
    }
    /* Registered as a number it is what somebody wants. Whether it can be reached is another
     * matter. */
    CS_CHECK(dial("169.254.169.254:9", CS_NS_PER_S / 5) != CS_ERR_DENIED);
}

CS_TEST(dialer_resolves_names_and_takes_a_registered_number_as_it_is)
{
    cs_arena_init(&d.arena, 65536, 64U << 20);
    run(script_names);
}

CS_TEST(dialer_knows_link_local_and_metadata_addresses)
{
    static const struct {
        const char *host;
        bool forbidden;
    } rows[] = {{"169.254.169.254", true},
                {"169.254.0.0", true},
                {"169.254.255.255", true},
                {"169.253.255.255", false},
                {"169.255.0.0", false},
                {"127.0.0.1", false},
                {"10.1.2.3", false},
                {"fe80::1", true},
                {"febf:ffff::1", true},
                {"fec0::1", false},
                {"fe7f::1", false},
                {"fd00:ec2::254", true},
                {"fd00:ec2::253", false},
                {"fd00::254", false},
                {"::ffff:169.254.169.254", true},
                {"::ffff:10.0.0.1", false},
                {"::169.254.169.254", true},
                {"64:ff9b::a9fe:a9fe", true},
                {"64:ff9b::a00:1", false},
                {"0.0.0.0", true},
                {"0.1.2.3", true},
                {"1.0.0.1", false},
                {"::", true},
                {"::2", true},
                {"::ffff:0.0.0.0", true},
                {"100.100.100.200", true},
                {"100.100.100.201", false},
                {"168.63.129.16", true},
                {"192.0.0.192", true},
                {"64:ff9b::100.100.100.200", true},
                {"64:ff9b::0.0.0.0", true},
                {"64:ff9b:1:a9fe:a9:fe00::", true},
                {"64:ff9b:1::169.254.169.254", true},
                {"64:ff9b:1:a00:0:100:a00:1", false},
                {"2002:a9fe:a9fe::1", true},
                {"2002:a00:1::1", false},
                {"::127.0.0.1", false},
                {"::1", false},
                {"2001:db8::1", false}};
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct sockaddr_storage sa;
        socklen_t len;
        CS_CHECK(cs_addr_parse(cs_slice_str(rows[i].host), 80, &sa, &len));
        if (cs_dial_forbidden((const struct sockaddr *)&sa) != rows[i].forbidden) {
            CS_FAIL("%s", rows[i].host);
        }
    }
    const struct sockaddr other = {.sa_family = AF_UNIX};
    CS_CHECK(cs_dial_forbidden(&other));
}

/* ---- dead targets ---- */

static unsigned ended, wrong;

static void dead_one(void *arg)
{
    enum cs_err e = dial(arg, CS_LIMIT_CONNECT_S * CS_NS_PER_S);
    wrong += e != CS_ERR_TIMEOUT;
    ended++;
}

static void script_dead(void)
{
    cs_handle co;
    for (unsigned i = 0; i < DEAD * PER_DEAD; i++) {
        char *to = (char *)(uintptr_t)d.address[i % DEAD].p;
        CS_CHECK(cs_co_spawn(d.loop, "dead", dead_one, to, &co) == CS_OK);
        if (i % 10 == 0) {
            CS_CHECK(cs_co_sleep(CS_NS_PER_MS)); /* a channel queues so many */
        }
    }
    uint64_t slowest = 0;
    for (unsigned i = 0; i < 50; i++) {
        uint64_t began = cs_mono_ns();
        CS_EQ_U64(dial(d.alive, 5 * CS_NS_PER_S), CS_OK);
        slowest = CS_MAX(slowest, cs_mono_ns() - began);
    }
    CS_CHECK(slowest < CS_NS_PER_S); /* a dead one takes five */
    unsigned total = DEAD * PER_DEAD, refused = 0;
    if (SLOW == 0) { /* else the first have ended by now, and there is room again */
        /* One address gets no more than its share while most is in use. */
        CS_EQ_U64(ended, 0);
        total += 2 * CS_LIMIT_DIALS_PER_ADDRESS;
        for (unsigned i = DEAD * PER_DEAD; i < total; i++) {
            char *to = (char *)(uintptr_t)d.address[0].p;
            CS_CHECK(cs_co_spawn(d.loop, "dead", dead_one, to, &co) == CS_OK);
        }
        CS_CHECK(cs_co_sleep(300 * CS_NS_PER_MS));
        refused = wrong;
        CS_CHECK(refused >= CS_LIMIT_DIALS_PER_ADDRESS);
    }
    while (ended < total) {
        CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    }
    CS_EQ_U64(wrong, refused);
    CS_EQ_U64(dial(d.alive, 5 * CS_NS_PER_S), CS_OK);
}

/* A listener whose queue is full, reachable by every number of 127.0.0.0/8: connections to it
 * hang. */
CS_TEST(dialer_serves_others_while_a_thousand_targets_are_dead)
{
    struct sockaddr_in sa = {.sin_family = AF_INET};
    socklen_t n = sizeof sa;
    int fill[4];
    struct rlimit files;
    CS_CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max; /* as the supervisor does */
    CS_CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur > 2 * DEAD * PER_DEAD);
    cs_arena_init(&d.arena, 65536, 256U << 20);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CS_CHECK(bind(fd, (const struct sockaddr *)&sa, sizeof sa) == 0 && listen(fd, 0) == 0);
    CS_CHECK(getsockname(fd, (struct sockaddr *)&sa, &n) == 0);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (size_t i = 0; i < CS_ARRAY_LEN(fill); i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)connect(fill[i], (const struct sockaddr *)&sa, sizeof sa);
    }
    for (unsigned i = 0; i < DEAD; i++) {
        char text[40];
        (void)snprintf(text, sizeof text, "127.1.%u.%u:%u", i / 250, i % 250 + 1,
                       (unsigned)ntohs(sa.sin_port));
        address(text);
    }
    run(script_dead);
    for (size_t i = 0; i < CS_ARRAY_LEN(fill); i++) {
        (void)close(fill[i]);
    }
    (void)close(fd);
}
