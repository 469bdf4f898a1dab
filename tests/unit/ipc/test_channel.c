#include "ipc/channel_internal.h"
#include "runtime/sock.h"
#include "runtime/stream_filter.h"
#include "tap.h"

#include <fcntl.h>
#include <sys/socket.h>

static struct cs_loop *loop;
static int pair[2];

/* What the control side of a test does with a message. */
static unsigned seen, gone;
static struct cs_event seen_event, gone_event;

static void count_gone(struct cs_channel *c, void *arg)
{
    (void)arg;
    CS_CHECK(!cs_channel_alive(c));
    gone++;
    cs_event_set(&gone_event);
}

static void no_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c;
    (void)arg;
    CS_FAIL("unexpected %s", cs_msg_name(in->type));
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static struct cs_channel *open_side(int i, enum cs_role self, enum cs_role peer, cs_channel_fn fn)
{
    struct cs_channel *c = NULL;
    CS_CHECK(cs_channel_open(loop, pair[i], self, peer, 3, fn, count_gone, &seen, &c) == CS_OK);
    CS_CHECK(cs_channel_alive(c) && cs_channel_peer(c) == peer);
    CS_CHECK(cs_channel_peer_index(c) == 3 && cs_channel_arg(c) == &seen);
    return c;
}

static void begin(void)
{
    loop = cs_loop_new();
    CS_CHECK(loop != NULL && cs_socketpair(pair) == CS_OK);
}

static void spawn(cs_co_fn fn, void *arg)
{
    cs_handle h;
    CS_CHECK(cs_co_spawn(loop, "test", fn, arg, &h) == CS_OK);
}

static void end(void)
{
    cs_loop_run(loop);
    cs_loop_free(loop);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
}

static void wait_for(struct cs_event *e)
{
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, e);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 5 * CS_NS_PER_S) == CS_WOKE_READY);
    cs_event_clear(e);
}

/* ---- calls ---- */

/* Control answers CONNECT with a descriptor, PROVE not at all, CANCEL with itself as a request. */
static void control(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)arg;
    seen++;
    if (in->type == CS_MSG_CONNECT) {
        const struct cs_msg_connect *m = in->msg;
        CS_CHECK(in->corr != 0 && in->fd[0] == -1);
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        struct cs_msg_connected answer = {.connection = m->which, .user = m->target};
        CS_CHECK(cs_channel_send(c, CS_MSG_CONNECTED, in->corr, &answer, &fd, 1) == CS_OK);
        (void)close(fd);
    } else if (in->type == CS_MSG_PROVE) {
        /* a request of its own, under the number of the peer's call: not an answer */
        struct cs_msg_session_kill kill = {.why = CS_SLICE_LIT("no")};
        CS_CHECK(cs_channel_send_as(c, CS_MSG_SESSION_KILL, in->corr, false, &kill, NULL, 0) ==
                 CS_OK);
    }
    cs_event_set(&seen_event);
}

static struct cs_channel *gate_side, *control_side;
static unsigned killed;

static void gate(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c;
    (void)arg;
    CS_CHECK(in->type == CS_MSG_SESSION_KILL);
    killed++;
}

static unsigned callers;

static void one_call(void *arg)
{
    struct cs_call call;
    struct cs_msg_connect m = {.target = CS_SLICE_LIT("orders"), .which = (uintptr_t)arg};
    CS_CHECK(cs_channel_call(gate_side, CS_MSG_CONNECT, &m, NULL, 0, CS_FOREVER, &call) == CS_OK);
    CS_CHECK(call.type == CS_MSG_CONNECTED && call.fd[0] >= 0 && call.fd[1] == -1);
    CS_CHECK((fcntl(call.fd[0], F_GETFD) & FD_CLOEXEC) != 0);
    const struct cs_msg_connected *answer = (const void *)call.msg.raw;
    CS_EQ_U64(answer->connection, (uintptr_t)arg);
    CS_EQ_STR(answer->user, "orders");
    cs_call_done(&call);
    cs_call_done(&call);
    if (--callers == 0) {
        cs_event_set(&seen_event);
    }
}

static void open_gate_and_control(void)
{
    gate_side = open_side(0, CS_ROLE_GATE, CS_ROLE_CONTROL, gate);
    control_side = open_side(1, CS_ROLE_CONTROL, CS_ROLE_GATE, control);
    cs_channel_run_phase(gate_side);
    cs_channel_run_phase(control_side);
}

static void many_calls(void *arg)
{
    (void)arg;
    callers = 500;
    for (uintptr_t i = 0; i < 500; i++) {
        spawn(one_call, (void *)i); /* NOLINT */
    }
    while (callers > 0) {
        wait_for(&seen_event);
    }
    cs_channel_close(gate_side);
    cs_channel_close(control_side);
}

CS_TEST(many_calls_at_once_get_each_its_own_answer)
{
    unsigned before = open_fds();
    begin();
    open_gate_and_control();
    spawn(many_calls, NULL);
    end();
    CS_EQ_U64(seen, 500);
    CS_EQ_U64(open_fds(), before);
}

static void unanswered(void *arg)
{
    (void)arg;
    struct cs_call call;
    struct cs_msg_prove m = {0};
    CS_CHECK(cs_channel_call(gate_side, CS_MSG_PROVE, &m, NULL, 0, cs_mono_ns() + 5 * CS_NS_PER_MS,
                             &call) == CS_ERR_TIMEOUT);
    cs_call_done(&call);
    CS_EQ_U64(killed, 1); /* the peer's request came to the handler, not to the call */
    /* too late: dropped, and its descriptor closed */
    unsigned before = open_fds();
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct cs_msg_connected late = {0};
    CS_CHECK(cs_channel_send(control_side, CS_MSG_CONNECTED, 1, &late, &fd, 1) == CS_OK);
    (void)close(fd);
    CS_CHECK(cs_co_sleep(5 * CS_NS_PER_MS));
    CS_EQ_U64(open_fds(), before);
    CS_CHECK(cs_channel_alive(gate_side));
    cs_channel_close(gate_side);
    cs_channel_close(control_side);
}

CS_TEST(call_times_out_and_a_late_answer_is_dropped)
{
    begin();
    open_gate_and_control();
    spawn(unanswered, NULL);
    end();
    CS_EQ_U64(gone, 0);
}

static void call_that_loses_its_peer(void *arg)
{
    (void)arg;
    struct cs_call call;
    struct cs_msg_prove m = {0};
    CS_CHECK(cs_channel_call(gate_side, CS_MSG_PROVE, &m, NULL, 0, CS_FOREVER, &call) ==
             CS_ERR_UNAVAILABLE);
    cs_call_done(&call);
    CS_CHECK(cs_channel_call(gate_side, CS_MSG_PROVE, &m, NULL, 0, CS_FOREVER, &call) ==
             CS_ERR_UNAVAILABLE);
    cs_call_done(&call);
    struct cs_msg_session_closed closed = {0};
    CS_CHECK(cs_channel_send(gate_side, CS_MSG_SESSION_CLOSED, 0, &closed, NULL, 0) ==
             CS_ERR_UNAVAILABLE);
    CS_CHECK(gone == 1 && cs_channel_broken_why(gate_side) == NULL);
    cs_channel_close(gate_side);
}

static void closes_control(void *arg)
{
    (void)arg;
    wait_for(&seen_event);
    cs_channel_close(control_side);
}

CS_TEST(pending_call_hears_that_the_peer_is_gone)
{
    begin();
    open_gate_and_control();
    spawn(call_that_loses_its_peer, NULL);
    spawn(closes_control, NULL);
    end();
    CS_EQ_U64(gone, 1);
}

static cs_handle victim;

static void cancelled_call(void *arg)
{
    (void)arg;
    struct cs_call call;
    struct cs_msg_prove m = {0};
    victim = cs_co_self();
    CS_CHECK(cs_channel_call(gate_side, CS_MSG_PROVE, &m, NULL, 0, CS_FOREVER, &call) ==
             CS_ERR_CANCELLED);
    cs_call_done(&call);
    unsigned before = seen;
    CS_CHECK(cs_channel_call(gate_side, CS_MSG_PROVE, &m, NULL, 0, CS_FOREVER, &call) ==
             CS_ERR_CANCELLED);
    CS_EQ_U64(seen, before); /* it did not even ask */
    cs_channel_close(gate_side);
    cs_channel_close(control_side);
}

static void cancels_call(void *arg)
{
    (void)arg;
    wait_for(&seen_event);
    cs_co_cancel(loop, victim);
}

CS_TEST(call_can_be_cancelled_and_a_cancelled_coroutine_asks_nothing)
{
    begin();
    open_gate_and_control();
    spawn(cancelled_call, NULL);
    spawn(cancels_call, NULL);
    end();
    CS_EQ_U64(seen, 1);
}

CS_TEST(loop_stop_ends_open_channels)
{
    begin();
    open_gate_and_control();
    cs_loop_stop(loop);
    cs_loop_run(loop);
    cs_channel_close(gate_side);
    cs_channel_close(control_side);
    end();
    CS_EQ_U64(gone, 0);
}

static void close_in_handler(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)in;
    (void)arg;
    seen++;
    cs_channel_close(c);
}

static void sends_two(void *arg)
{
    (void)arg;
    struct cs_msg_session_closed m = {0};
    CS_CHECK(cs_channel_send(gate_side, CS_MSG_SESSION_CLOSED, 0, &m, NULL, 0) == CS_OK);
    CS_CHECK(cs_channel_send(gate_side, CS_MSG_SESSION_CLOSED, 0, &m, NULL, 0) == CS_OK);
    wait_for(&gone_event);
    cs_channel_close(gate_side);
}

CS_TEST(channel_may_be_closed_in_its_own_handler)
{
    begin();
    gate_side = open_side(0, CS_ROLE_GATE, CS_ROLE_CONTROL, no_message);
    control_side = open_side(1, CS_ROLE_CONTROL, CS_ROLE_GATE, close_in_handler);
    cs_channel_run_phase(gate_side);
    cs_channel_run_phase(control_side);
    spawn(sends_two, NULL);
    end();
    CS_EQ_U64(seen, 1);
    CS_EQ_U64(gone, 1);
}

/* ---- what the table forbids: a raw peer that sends anything ---- */

static void raw_send(const void *bytes, size_t n, unsigned n_fds)
{
    union {
        const void *in;
        void *out;
    } p = {bytes};
    struct iovec iov = {p.out, n};
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 64)];
        struct cmsghdr align;
    } control_bytes = {{0}};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        msg.msg_control = control_bytes.bytes;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        for (unsigned i = 0; i < n_fds; i++) {
            int fd = 0;
            memcpy(CMSG_DATA(h) + i * sizeof(int), &fd, sizeof fd);
        }
    }
    CS_CHECK(sendmsg(pair[1], &msg, MSG_NOSIGNAL) == (ssize_t)n);
}

struct evil {
    enum cs_msg_type type;
    bool run;
    unsigned n_fds;
    size_t extra; /* bytes behind a well-formed message */
    bool ok;
};

static const struct evil evils[] = {
    {CS_MSG_CONNECTED, true, 1, 0, true},   {CS_MSG_CONNECTED, true, 0, 0, false},
    {CS_MSG_CONNECTED, true, 2, 0, false},  {CS_MSG_CONNECTED, true, 16, 0, false},
    {CS_MSG_CONNECTED, true, 40, 0, false}, /* cut off: MSG_CTRUNC */
    {CS_MSG_HELD, true, 0, 0, true},        {CS_MSG_HELD, true, 1, 0, false},
    {CS_MSG_HELD, false, 0, 0, false},    /* phase */
    {CS_MSG_HOLD, true, 1, 0, false},     /* our own direction */
    {CS_MSG_API, true, 0, 0, false},      /* somebody else's */
    {CS_MSG_SHUTDOWN, true, 0, 0, false}, /* not the supervisor */
    {CS_MSG_HELD, true, 0, 1, false},     /* trailing */
    {CS_MSG_HELD, true, 0, 5000, false},  /* beyond its maximum */
    {CS_MSG_HELD, true, 0, 66000, false}, /* beyond every maximum: MSG_TRUNC */
};

static void evil_peer(void *arg)
{
    const struct evil *e = arg;
    static uint8_t bytes[CS_LIMIT_IPC_BYTES * 2];
    union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        uint64_t align;
    } zero = {{0}};
    size_t n = cs_msg_encode(e->type, 0, zero.raw, bytes, sizeof bytes);
    CS_CHECK(n > 0);
    raw_send(bytes, n + e->extra, e->n_fds);
    CS_CHECK(cs_co_sleep(5 * CS_NS_PER_MS));
    CS_EQ_U64(seen, e->ok ? 1 : 0);
    CS_EQ_U64(gone, e->ok ? 0 : 1);
    CS_CHECK((cs_channel_broken_why(gate_side) == NULL) == e->ok);
    cs_channel_close(gate_side);
    (void)close(pair[1]);
}

static void takes_anything(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c;
    (void)arg;
    seen++;
    for (unsigned i = 0; i < 3; i++) {
        if (in->fd[i] >= 0) {
            (void)close(in->fd[i]);
        }
    }
}

CS_TEST(message_that_the_table_forbids_ends_the_channel_and_leaks_nothing)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(evils); i++) {
        struct evil e = evils[i];
        unsigned before = open_fds();
        seen = gone = 0;
        begin();
        gate_side = open_side(0, CS_ROLE_GATE, CS_ROLE_CONTROL, takes_anything);
        if (e.run) {
            cs_channel_run_phase(gate_side);
        }
        spawn(evil_peer, &e);
        end();
        CS_EQ_U64(open_fds(), before);
    }
}

/* ---- a peer that reads slowly, or not at all ---- */

static unsigned ordered;

static void counts_in_order(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c;
    (void)arg;
    CS_CHECK(in->type == CS_MSG_HOLD && in->fd[0] >= 0);
    const struct cs_msg_hold *m = in->msg;
    CS_EQ_U64(m->snapshot, ordered);
    CS_EQ_U64(m->rules.n, 60000);
    ordered++;
    (void)close(in->fd[0]);
    if (ordered == 50) {
        cs_event_set(&seen_event);
    }
}

static void floods(void *arg)
{
    (void)arg;
    static uint8_t rules[60000];
    int fd = 0;
    for (unsigned i = 0; i < 50; i++) {
        struct cs_msg_hold m = {.rules = cs_slice(rules, sizeof rules), .snapshot = i};
        CS_CHECK(cs_channel_send(gate_side, CS_MSG_HOLD, 0, &m, &fd, 1) == CS_OK);
    }
    CS_CHECK(gate_side->out_n > 0);
    wait_for(&seen_event);
    CS_EQ_U64(gate_side->out_n, 0);
    CS_EQ_U64(gate_side->out_bytes, 0);
    cs_channel_close(gate_side);
    cs_channel_close(control_side);
}

CS_TEST(queued_messages_leave_in_order_with_their_descriptors)
{
    unsigned before = open_fds();
    begin();
    gate_side = open_side(0, CS_ROLE_GATE, CS_ROLE_CONTROL, no_message);
    control_side = open_side(1, CS_ROLE_CONTROL, CS_ROLE_GATE, counts_in_order);
    cs_channel_run_phase(gate_side);
    cs_channel_run_phase(control_side);
    spawn(floods, NULL);
    end();
    CS_EQ_U64(ordered, 50);
    CS_EQ_U64(open_fds(), before);
}

static void floods_the_deaf(void *arg)
{
    (void)arg;
    static uint8_t rules[60000];
    int fd = 0;
    unsigned i = 0;
    enum cs_err err = CS_OK;
    for (; i < 1000 && err == CS_OK; i++) {
        struct cs_msg_hold m = {.rules = cs_slice(rules, sizeof rules)};
        err = cs_channel_send(gate_side, CS_MSG_HOLD, 0, &m, &fd, 1);
    }
    CS_CHECK(err == CS_ERR_UNAVAILABLE && i > 50 && i < 100);
    CS_CHECK(cs_channel_alive(gate_side));
    cs_channel_close(gate_side);
    (void)close(pair[1]);
}

CS_TEST(queue_to_a_peer_that_does_not_read_is_bounded)
{
    unsigned before = open_fds();
    begin();
    gate_side = open_side(0, CS_ROLE_GATE, CS_ROLE_CONTROL, no_message);
    cs_channel_run_phase(gate_side);
    spawn(floods_the_deaf, NULL);
    end();
    CS_EQ_U64(open_fds(), before);
}

CS_TEST(too_large_a_message_is_said_to_be)
{
    static uint8_t big[70000];
    begin();
    gate_side = open_side(0, CS_ROLE_GATE, CS_ROLE_CONTROL, no_message);
    struct cs_msg_session_closed m = {.why = cs_slice(big, sizeof big)};
    CS_CHECK(cs_channel_send(gate_side, CS_MSG_SESSION_CLOSED, 0, &m, NULL, 0) ==
             CS_ERR_UNAVAILABLE); /* not yet: phase */
    cs_channel_run_phase(gate_side);
    CS_CHECK(cs_channel_send(gate_side, CS_MSG_SESSION_CLOSED, 0, &m, NULL, 0) == CS_ERR_TOO_LARGE);
    cs_channel_close(gate_side);
    (void)close(pair[1]);
    end();
}

CS_TEST(opening_survives_every_allocation_failure)
{
    unsigned before = open_fds();
    bool done = false;
    CS_OOM_LOOP(done)
    {
        cs_alloc_fail_after(-1);
        begin();
        cs_alloc_fail_after(n_);
        struct cs_channel *c = NULL;
        enum cs_err err = cs_channel_open(loop, pair[0], CS_ROLE_GATE, CS_ROLE_CONTROL, 0,
                                          no_message, count_gone, NULL, &c);
        CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
        cs_alloc_fail_after(-1);
        if (err == CS_OK) {
            cs_channel_close(c);
            done = true;
        }
        (void)close(pair[1]);
        end();
        CS_EQ_U64(open_fds(), before);
    }
}
