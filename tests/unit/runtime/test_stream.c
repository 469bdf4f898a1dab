#include "base/id.h"
#include "runtime/sock.h"
#include "runtime/stream_filter.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>

static struct cs_loop *loop;
static struct cs_stream a; /* ours; the other end is raw */
static int peer;

static void spawn(cs_co_fn fn, void *arg)
{
    cs_handle h;
    CS_CHECK(cs_co_spawn(loop, "test", fn, arg, &h) == CS_OK);
}

static unsigned ran;

/* Runs fn with `a` open on one end of a socket and `peer` (non-blocking) as the other. */
static void with_stream(cs_co_fn fn, bool tcp)
{
    int p[2];
    loop = cs_loop_new();
    CS_CHECK(loop != NULL);
    if (tcp) {
        int l;
        CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &l) == CS_OK);
        struct sockaddr_storage sa;
        socklen_t len;
        CS_CHECK(cs_addr_parse(CS_SLICE_LIT("127.0.0.1"), cs_sock_port(l), &sa, &len));
        p[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CS_CHECK(connect(p[1], (struct sockaddr *)&sa, len) == 0);
        CS_CHECK(fcntl(p[1], F_SETFL, O_NONBLOCK) == 0);
        while ((p[0] = accept(l, NULL, NULL)) < 0) {
            CS_CHECK(errno == EAGAIN);
        }
        (void)close(l);
    } else {
        CS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p) == 0);
    }
    CS_CHECK(cs_stream_open(loop, &a, p[0]) == CS_OK);
    peer = p[1];
    spawn(fn, NULL);
    cs_loop_run(loop);
    cs_stream_close(&a);
    cs_stream_close(&a);
    CS_CHECK(a.in == NULL && a.out == NULL && a.fd.fd == -1);
    (void)close(peer);
    cs_loop_free(loop);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
    ran++;
}

static void both_kinds(cs_co_fn fn)
{
    with_stream(fn, false);
    with_stream(fn, true);
    CS_EQ_U64(ran, 2);
}

static void peer_send(const void *p, size_t n)
{
    CS_CHECK(send(peer, p, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void wait_readable(void)
{
    struct cs_wait w = cs_stream_wait_read(&a);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 5 * CS_NS_PER_S) == CS_WOKE_READY);
}

static uint64_t soon(void)
{
    return cs_mono_ns() + 5 * CS_NS_PER_S;
}

/* ---- reading ---- */

static void reads(void *arg)
{
    (void)arg;
    CS_CHECK(cs_stream_fill(&a) == CS_IO_AGAIN);
    CS_CHECK(a.in == NULL && cs_stream_peek(&a).n == 0);
    peer_send("hello", 5);
    wait_readable();
    CS_CHECK(cs_stream_fill(&a) == CS_IO_OK);
    CS_CHECK(!a.fd.readable); /* a short read: no second one only to hear EAGAIN */
    CS_CHECK(cs_stream_fill(&a) == CS_IO_AGAIN);
    CS_EQ_STR(cs_stream_peek(&a), "hello");
    cs_stream_consume(&a, 2);
    CS_EQ_STR(cs_stream_peek(&a), "llo");
    peer_send(" you", 4);
    wait_readable();
    CS_CHECK(cs_stream_fill(&a) == CS_IO_OK);
    CS_EQ_STR(cs_stream_peek(&a), "llo you");
    cs_stream_consume(&a, 7);
    CS_CHECK(a.in == NULL); /* an idle stream owns no buffer */
    CS_EQ_U64(a.bytes_in, 9);
    /* bytes and the end in one go: both are seen */
    peer_send("bye", 3);
    CS_CHECK(shutdown(peer, SHUT_WR) == 0);
    wait_readable();
    CS_CHECK(cs_stream_fill(&a) == CS_IO_OK);
    CS_EQ_STR(cs_stream_peek(&a), "bye");
    wait_readable();
    CS_CHECK(cs_stream_fill(&a) == CS_IO_EOF && a.eof);
    CS_CHECK(cs_stream_fill(&a) == CS_IO_EOF);
    CS_EQ_STR(cs_stream_peek(&a), "bye");
    wait_readable(); /* at the end it stays ready */
    CS_CHECK(a.err == CS_OK);
    /* half closed: sending still works */
    CS_CHECK(cs_stream_put(&a, CS_SLICE_LIT("ok")) == CS_OK);
}

CS_TEST(reading_gives_bytes_then_the_end_and_borrows_a_buffer_only_meanwhile)
{
    both_kinds(reads);
}

static void fills_up(void *arg)
{
    (void)arg;
    static uint8_t chunk[30000];
    size_t got = 0;
    enum cs_io io = CS_IO_OK;
    while (io != CS_IO_FULL) {
        (void)send(peer, chunk, sizeof chunk, MSG_NOSIGNAL);
        wait_readable();
        io = cs_stream_fill(&a);
        CS_CHECK(io == CS_IO_OK || io == CS_IO_FULL || io == CS_IO_AGAIN);
        got = cs_stream_peek(&a).n;
    }
    CS_EQ_U64(got, CS_IOBUF);
    /* a consumed byte makes room for one */
    cs_stream_consume(&a, 1);
    wait_readable();
    CS_CHECK(cs_stream_fill(&a) == CS_IO_OK);
    CS_EQ_U64(cs_stream_peek(&a).n, CS_IOBUF);
    cs_stream_consume(&a, CS_IOBUF);
}

CS_TEST(unconsumed_bytes_are_bounded)
{
    both_kinds(fills_up);
}

static void needs(void *arg)
{
    (void)arg;
    CS_CHECK(cs_stream_need(&a, 0, 0) == CS_OK);
    CS_CHECK(cs_stream_need(&a, 1, cs_mono_ns() + CS_NS_PER_MS) == CS_ERR_TIMEOUT);
    peer_send("abc", 3);
    CS_CHECK(cs_stream_need(&a, 3, soon()) == CS_OK);
    CS_CHECK(cs_stream_need(&a, 4, cs_mono_ns() + CS_NS_PER_MS) == CS_ERR_TIMEOUT);
    CS_EQ_STR(cs_stream_peek(&a), "abc");
    CS_CHECK(shutdown(peer, SHUT_WR) == 0);
    CS_CHECK(cs_stream_need(&a, 4, soon()) == CS_ERR_EOF);
    CS_CHECK(cs_stream_need(&a, 3, soon()) == CS_OK);
    cs_co_cancel(loop, cs_co_self());
    a.eof = false;
    a.fd.readable = false;
    CS_CHECK(cs_stream_need(&a, 4, soon()) == CS_ERR_CANCELLED);
}

CS_TEST(need_ends_by_bytes_deadline_end_or_cancellation)
{
    both_kinds(needs);
}

/* ---- writing ---- */

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)(i * 131 >> 3);
}

static uint64_t drained;

static void peer_drain(size_t most)
{
    static uint8_t buf[50000];
    ssize_t n;
    size_t all = 0;
    while (all < most && (n = recv(peer, buf, CS_MIN(sizeof buf, most - all), 0)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            CS_CHECK(buf[i] == pattern(drained));
            drained++;
        }
        all += (size_t)n;
    }
}

static void writes_partially(void *arg)
{
    (void)arg;
    int small = 4096;
    CS_CHECK(setsockopt(a.fd.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
    drained = 0;
    static uint8_t block[20000];
    uint64_t sent = 0;
    while (sent < 3000000) {
        uint32_t r;
        cs_random(&r, sizeof r);
        size_t n = 1 + r % sizeof block;
        for (size_t i = 0; i < n; i++) {
            block[i] = pattern(sent + i);
        }
        size_t room = cs_stream_room(&a), queued = cs_stream_queued(&a);
        enum cs_err err = r & 0x10000000 ? cs_stream_put(&a, cs_slice(block, n))
                                         : cs_stream_queue(&a, cs_slice(block, n));
        if (n > room) {
            CS_CHECK(err == CS_ERR_LIMIT && cs_stream_queued(&a) == queued);
            peer_drain(r % 60000);
            struct cs_wait w = cs_stream_wait_write(&a);
            (void)!cs_wait(&w, 1, cs_mono_ns() + CS_NS_PER_MS);
            CS_CHECK(cs_stream_flush(&a) != CS_IO_ERR);
            continue;
        }
        CS_CHECK(err == CS_OK);
        sent += n;
    }
    while (cs_stream_flush(&a) != CS_IO_OK) {
        peer_drain(SIZE_MAX);
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS / 10));
    }
    CS_CHECK(a.out == NULL && cs_stream_queued(&a) == 0);
    while (drained < sent) {
        peer_drain(SIZE_MAX);
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS / 10));
    }
    CS_EQ_U64(a.bytes_out, sent);
}

CS_TEST(partial_writes_keep_every_byte_in_order)
{
    both_kinds(writes_partially);
}

static void put_behind_queue(void *arg)
{
    (void)arg;
    char got[16];
    CS_CHECK(cs_stream_queue(&a, CS_SLICE_LIT("one ")) == CS_OK);
    CS_CHECK(cs_stream_queue(&a, CS_SLICE_LIT("two ")) == CS_OK);
    CS_CHECK(recv(peer, got, sizeof got, 0) == -1 && errno == EAGAIN); /* only queued */
    CS_EQ_U64(cs_stream_queued(&a), 8);
    CS_CHECK(cs_stream_put(&a, CS_SLICE_LIT("three")) == CS_OK);
    CS_EQ_U64(cs_stream_queued(&a), 0);
    CS_CHECK(a.out == NULL);
    CS_EQ_U64(recv(peer, got, sizeof got, 0), 13);
    CS_CHECK(memcmp(got, "one two three", 13) == 0);
    CS_CHECK(cs_stream_put(&a, CS_SLICE_NULL) == CS_OK);
    static uint8_t large[CS_IOBUF + CS_IOBUF_SLACK + 1];
    CS_CHECK(cs_stream_put(&a, cs_slice(large, sizeof large)) == CS_ERR_LIMIT);
    CS_CHECK(cs_stream_queue(&a, cs_slice(large, sizeof large)) == CS_ERR_LIMIT);
    CS_EQ_U64(a.bytes_out, 13);
}

CS_TEST(put_sends_what_was_queued_first)
{
    both_kinds(put_behind_queue);
}

static void put_to_the_dead(void *arg)
{
    (void)arg;
    (void)close(peer);
    peer = -1;
    enum cs_err err = CS_OK;
    for (int i = 0; i < 100 && err == CS_OK; i++) {
        err = cs_stream_put(&a, CS_SLICE_LIT("x"));
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS / 10));
    }
    CS_CHECK(err != CS_OK && a.err == err);
    CS_CHECK(cs_stream_put(&a, CS_SLICE_LIT("x")) == err); /* sticky */
    CS_CHECK(cs_stream_queue(&a, CS_SLICE_LIT("x")) == err);
    CS_CHECK(cs_stream_flush(&a) == CS_IO_ERR);
    CS_CHECK(cs_stream_fill(&a) == CS_IO_ERR || a.eof);
    CS_CHECK(cs_stream_need(&a, 1, CS_FOREVER) == err || a.eof);
    CS_CHECK(cs_stream_write(&a, CS_SLICE_LIT("x"), CS_FOREVER) == err);
}

CS_TEST(error_of_the_socket_is_sticky)
{
    both_kinds(put_to_the_dead);
}

static void drains_slowly(void *arg)
{
    uint64_t all = *(uint64_t *)arg;
    while (drained < all) {
        peer_drain(40000);
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS / 5));
    }
}

static void writes_large(void *arg)
{
    (void)arg;
    static uint8_t large[1000000];
    static uint64_t all = sizeof large;
    for (size_t i = 0; i < sizeof large; i++) {
        large[i] = pattern(i);
    }
    drained = 0;
    CS_CHECK(cs_stream_write(&a, cs_slice(large, sizeof large), cs_mono_ns() + CS_NS_PER_MS) ==
             CS_ERR_TIMEOUT);
    cs_stream_close(&a);
    (void)close(peer);
    int p[2];
    CS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p) == 0);
    CS_CHECK(cs_stream_open(loop, &a, p[0]) == CS_OK);
    peer = p[1];
    spawn(drains_slowly, &all);
    CS_CHECK(cs_stream_write(&a, cs_slice(large, sizeof large), soon()) == CS_OK);
    CS_CHECK(cs_stream_drain(&a, soon()) == CS_OK);
    CS_EQ_U64(a.bytes_out, sizeof large);
}

CS_TEST(write_of_any_size_waits_as_needed)
{
    with_stream(writes_large, false);
}

static void buffers_fail(void *arg)
{
    (void)arg;
    peer_send("abc", 3);
    wait_readable();
    cs_iobuf_trim();
    cs_alloc_fail_after(0);
    CS_CHECK(cs_stream_fill(&a) == CS_IO_ERR && a.err == CS_ERR_NO_MEMORY);
    cs_alloc_fail_after(-1);
    a.err = CS_OK;
    CS_CHECK(cs_stream_fill(&a) == CS_IO_OK);
    cs_iobuf_trim();
    cs_alloc_fail_after(0);
    CS_CHECK(cs_stream_queue(&a, CS_SLICE_LIT("x")) == CS_ERR_NO_MEMORY);
    CS_CHECK(cs_stream_put(&a, CS_SLICE_LIT("x")) == CS_OK); /* leaves without a buffer */
    cs_alloc_fail_after(-1);
}

CS_TEST(stream_survives_want_of_memory)
{
    both_kinds(buffers_fail);
}

/* ---- the relay: the way of every byte ---- */

static struct cs_stream left, right;
static int far[2];
static uint64_t relay_goal;

static void relay(void *arg)
{
    (void)arg;
    for (;;) {
        bool idle = true;
        struct cs_stream *from[2] = {&left, &right}, *to[2] = {&right, &left};
        for (int i = 0; i < 2; i++) {
            if (cs_stream_flush(to[i]) == CS_IO_OK && cs_stream_fill(from[i]) == CS_IO_OK) {
                struct cs_slice s = cs_stream_peek(from[i]);
                CS_CHECK(cs_stream_put(to[i], s) == CS_OK);
                cs_stream_consume(from[i], s.n);
                idle = false;
            }
        }
        if (left.eof && cs_stream_queued(&right) == 0) {
            break;
        }
        if (idle) {
            struct cs_wait w[2];
            for (int i = 0; i < 2; i++) {
                w[i] = cs_stream_queued(to[i]) > 0 ? cs_stream_wait_write(to[i])
                                                   : cs_stream_wait_read(from[i]);
            }
            CS_CHECK(cs_wait(w, 2, soon()) == CS_WOKE_READY);
        }
    }
    cs_stream_close(&left);
    cs_stream_close(&right);
}

static void source(void *arg)
{
    (void)arg;
    struct cs_stream s;
    CS_CHECK(cs_stream_open(loop, &s, far[0]) == CS_OK);
    static uint8_t block[33333];
    for (uint64_t sent = 0; sent < relay_goal; sent += sizeof block) {
        for (size_t i = 0; i < sizeof block; i++) {
            block[i] = pattern(sent + i);
        }
        CS_CHECK(cs_stream_write(&s, cs_slice(block, sizeof block), soon()) == CS_OK);
    }
    CS_CHECK(cs_stream_drain(&s, soon()) == CS_OK);
    cs_stream_close(&s);
}

static void sink(void *arg)
{
    (void)arg;
    struct cs_stream s;
    CS_CHECK(cs_stream_open(loop, &s, far[1]) == CS_OK);
    drained = 0;
    while (cs_stream_need(&s, 1, soon()) == CS_OK) {
        struct cs_slice got = cs_stream_peek(&s);
        for (size_t i = 0; i < got.n; i++) {
            CS_CHECK(got.p[i] == pattern(drained + i));
        }
        drained += got.n;
        cs_stream_consume(&s, got.n);
    }
    CS_CHECK(s.eof);
    cs_stream_close(&s);
}

CS_TEST(relay_passes_everything_without_allocating)
{
    int p[2], q[2];
    loop = cs_loop_new();
    CS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) == 0);
    CS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, q) == 0);
    far[0] = p[1];
    far[1] = q[1];
    CS_CHECK(cs_stream_open(loop, &left, p[0]) == CS_OK);
    CS_CHECK(cs_stream_open(loop, &right, q[0]) == CS_OK);
    relay_goal = 20 * UINT64_C(33333) * 30;
    struct cs_iobuf *warm[8];
    for (int i = 0; i < 8; i++) {
        warm[i] = cs_iobuf_take();
    }
    for (int i = 0; i < 8; i++) {
        cs_iobuf_give(warm[i]);
    }
    spawn(relay, NULL);
    spawn(source, NULL);
    spawn(sink, NULL);
    cs_alloc_fail_after(2); /* the slots of source's and sink's descriptors may need a slab */
    cs_loop_run(loop);
    cs_alloc_fail_after(-1);
    CS_EQ_U64(drained, relay_goal);
    cs_loop_free(loop);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
}

/* ---- a filter: every byte XOR 1, in records of one length byte and up to 100 bytes ---- */

struct toy {
    struct cs_iobuf *held; /* owned while it holds bytes */
    size_t n;
};
static struct toy toy;

static enum cs_io toy_decrypt(struct cs_stream *s)
{
    size_t room, out = 0, at = 0;
    uint8_t *p = cs_stream_in_room(s, &room);
    if (p == NULL) {
        return s->err != CS_OK ? CS_IO_ERR : CS_IO_FULL;
    }
    const uint8_t *in = toy.held->bytes;
    size_t records = 0;
    /* at most two records a time, so that some are left for the next fill */
    while (records < 2 && at < toy.n && toy.n - at > in[at] && in[at] <= room - out) {
        for (size_t i = 0; i < in[at]; i++) {
            p[out++] = in[at + 1 + i] ^ 1;
        }
        at += 1 + (size_t)in[at];
        records++;
    }
    toy.n -= at;
    memmove(toy.held->bytes, toy.held->bytes + at, toy.n);
    cs_stream_in_add(s, out);
    s->filter_pending = toy.n > 0 && toy.n > toy.held->bytes[0];
    if (toy.n == 0) {
        cs_iobuf_give(toy.held);
        toy.held = NULL;
    }
    return out > 0 ? CS_IO_OK : CS_IO_AGAIN;
}

static enum cs_io toy_fill(struct cs_stream *s)
{
    if (toy.n > 0) {
        enum cs_io io = toy_decrypt(s);
        if (io != CS_IO_AGAIN) {
            return io;
        }
    }
    if (toy.held == NULL) {
        toy.held = cs_iobuf_take();
    }
    size_t n = 0;
    enum cs_io io = cs_stream_raw_recv(s, toy.held->bytes + toy.n, CS_IOBUF_SIZE - toy.n, &n);
    toy.n += n;
    if (io == CS_IO_OK) {
        return toy_decrypt(s);
    }
    if (toy.n == 0) {
        cs_iobuf_give(toy.held);
        toy.held = NULL;
    }
    return io;
}

static enum cs_io toy_put(struct cs_stream *s, struct cs_slice bytes)
{
    for (size_t at = 0; at < bytes.n;) {
        uint8_t rec[101];
        size_t n = CS_MIN(bytes.n - at, (size_t)100);
        rec[0] = (uint8_t)n;
        for (size_t i = 0; i < n; i++) {
            rec[1 + i] = bytes.p[at + i] ^ 1;
        }
        if (cs_stream_raw_queue(s, cs_slice(rec, n + 1)) != CS_OK) {
            return CS_IO_ERR;
        }
        at += n;
    }
    return CS_IO_OK;
}

static size_t toy_grown(size_t n)
{
    return n + n / 100 + 1;
}

static void toy_close(struct cs_stream *s)
{
    cs_iobuf_give(toy.held);
    toy.held = NULL;
    CS_CHECK(cs_stream_raw_queue(s, CS_SLICE_LIT("\x01Z")) == CS_OK); /* a last word */
}

static const struct cs_stream_filter toy_filter = {toy_fill, toy_put, toy_grown, toy_close};

static void filtered(void *arg)
{
    (void)arg;
    a.filter = &toy_filter;
    /* five records at once come in three fills, the later two without reading the socket */
    peer_send("\x01\x60\x01\x63\x01\x62\x01\x65\x01\x64", 10);
    wait_readable();
    CS_CHECK(cs_stream_fill(&a) == CS_IO_OK && a.filter_pending && !a.fd.readable);
    CS_EQ_STR(cs_stream_peek(&a), "ab");
    struct cs_wait w = cs_stream_wait_read(&a);
    CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY && w.ready);
    CS_CHECK(cs_stream_need(&a, 5, soon()) == CS_OK);
    CS_EQ_STR(cs_stream_peek(&a), "abcde");
    CS_CHECK(!a.filter_pending && toy.held == NULL);
    w = cs_stream_wait_read(&a);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + CS_NS_PER_MS) == CS_WOKE_DEADLINE);
    /* what may be put is what fits after it has grown */
    size_t room = cs_stream_room(&a);
    CS_CHECK(room > CS_IOBUF && toy_grown(room) <= cs_stream_raw_room(&a));
    static uint8_t large[CS_IOBUF_SIZE];
    CS_CHECK(cs_stream_put(&a, cs_slice(large, room + 1)) == CS_ERR_LIMIT);
    CS_CHECK(cs_stream_queue(&a, cs_slice(large, room)) == CS_OK);
    CS_CHECK(cs_stream_drain(&a, soon()) == CS_OK);
    CS_EQ_U64(a.bytes_out, room + (room + 99) / 100);
    static uint8_t sunk[CS_IOBUF_SIZE * 2];
    while (recv(peer, sunk, sizeof sunk, 0) > 0) {
    }
    CS_CHECK(cs_stream_put(&a, CS_SLICE_LIT("hi")) == CS_OK);
    CS_EQ_U64(recv(peer, sunk, sizeof sunk, 0), 3);
    CS_CHECK(memcmp(sunk, "\x02ih", 3) == 0);
    cs_stream_consume(&a, 5);
    cs_stream_close(&a);
    CS_EQ_U64(recv(peer, sunk, sizeof sunk, 0), 2);
    CS_CHECK(memcmp(sunk, "\x01Z", 2) == 0);
}

CS_TEST(filter_sits_between_socket_and_buffers)
{
    with_stream(filtered, false);
}

/* ---- addresses ---- */

static struct cs_addr_net net(const char *address)
{
    struct sockaddr_storage sa;
    socklen_t len;
    CS_CHECK(cs_addr_parse(cs_slice_str(address), 7, &sa, &len));
    return cs_addr_net((struct sockaddr *)&sa);
}

static bool one_client(const char *one, const char *other)
{
    struct cs_addr_net x = net(one), y = net(other);
    return cs_addr_net_eq(&x, &y);
}

CS_TEST(a_client_is_counted_by_its_address_or_its_ipv6_network)
{
    CS_CHECK(one_client("192.0.2.7", "192.0.2.7") && !one_client("192.0.2.7", "192.0.2.8"));
    CS_CHECK(one_client("::ffff:192.0.2.7", "192.0.2.7"));
    CS_CHECK(!one_client("::ffff:192.0.2.7", "::ffff:192.0.2.8"));
    CS_CHECK(one_client("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
    CS_CHECK(!one_client("2001:db8:1:2::1", "2001:db8:1:3::1"));
    CS_CHECK(!one_client("c000:207::", "192.0.2.7")); /* the same bytes of another family */
    CS_CHECK(!one_client("::192.0.2.7", "192.0.2.7"));
    struct sockaddr local = {.sa_family = AF_UNIX};
    struct cs_addr_net none = cs_addr_net(&local), zero = net("0.0.0.0");
    CS_CHECK(none.family == 0 && !cs_addr_net_eq(&none, &zero));
}

CS_TEST(addresses_are_split_and_parsed_strictly)
{
    struct cs_slice host;
    uint16_t port;
    CS_CHECK(cs_addr_split(CS_SLICE_LIT("127.0.0.1:5432"), false, &host, &port));
    CS_EQ_STR(host, "127.0.0.1");
    CS_EQ_U64(port, 5432);
    CS_CHECK(cs_addr_split(CS_SLICE_LIT("[::1]:1"), false, &host, &port));
    CS_EQ_STR(host, "::1");
    CS_CHECK(cs_addr_split(CS_SLICE_LIT("db.internal:65535"), false, &host, &port));
    CS_CHECK(cs_addr_split(CS_SLICE_LIT("h:0"), true, &host, &port));
    static const char *const bad[] = {"",     "h",      "h:",     ":1",   "h:0",   "h:65536",
                                      "h:x",  "h:-1",   "h: 1",   "h:1 ", "::1:5", "[::1]",
                                      "[::1", "[h]:1",  "[]:1",   "h]:1", "[h:1",  "h:000001",
                                      "h:+1", "[::1]5", "[::1]:", "a[b:1"};
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        if (cs_addr_split(cs_slice_str(bad[i]), false, &host, &port)) {
            CS_FAIL("accepted \"%s\"", bad[i]);
        }
    }
    CS_CHECK(!cs_addr_split(CS_SLICE_NULL, true, &host, &port));
    struct sockaddr_storage sa;
    socklen_t len;
    char text[CS_ADDR_TEXT];
    CS_CHECK(cs_addr_parse(CS_SLICE_LIT("10.1.2.3"), 80, &sa, &len));
    CS_EQ_STR(cs_slice_str(cs_addr_text((struct sockaddr *)&sa, text)), "10.1.2.3:80");
    CS_CHECK(cs_addr_parse(CS_SLICE_LIT("fe80::1"), 80, &sa, &len) &&
             len == sizeof(struct sockaddr_in6));
    CS_EQ_STR(cs_slice_str(cs_addr_text((struct sockaddr *)&sa, text)), "[fe80::1]:80");
    CS_CHECK(!cs_addr_parse(CS_SLICE_LIT("localhost"), 80, &sa, &len));
    CS_CHECK(!cs_addr_parse(CS_SLICE_LIT("1.2.3"), 80, &sa, &len));
    CS_CHECK(!cs_addr_parse(CS_SLICE_LIT("1.2.3.4\0"), 80, &sa, &len));
    CS_CHECK(!cs_addr_parse(CS_SLICE_NULL, 80, &sa, &len));
    sa.ss_family = AF_UNIX;
    CS_EQ_STR(cs_slice_str(cs_addr_text((struct sockaddr *)&sa, text)), "unix");
}

CS_TEST(tcp_listener_refuses_names_and_taken_ports)
{
    int l, second;
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("localhost:0"), &l) == CS_ERR_INVALID);
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &l) == CS_OK);
    char text[64];
    int n = snprintf(text, sizeof text, "127.0.0.1:%u", (unsigned)cs_sock_port(l));
    CS_CHECK(cs_listen_tcp(cs_slice(text, (size_t)n), &second) != CS_OK);
    (void)close(l);
}

CS_TEST(unix_listener_replaces_a_stale_file_and_nothing_else)
{
    char dir[] = "/tmp/cs-test-XXXXXX", path[64];
    CS_CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(path, sizeof path, "%s/s", dir);
    int l, second;
    CS_CHECK(cs_listen_unix(path, 0600, &l) == CS_OK);
    CS_CHECK(cs_listen_unix(path, 0600, &second) == CS_ERR_EXISTS); /* alive */
    (void)close(l);
    CS_CHECK(cs_listen_unix(path, 0660, &l) == CS_OK); /* stale */
    CS_CHECK(unlink(path) == 0);
    (void)close(l);
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    (void)close(file);
    CS_CHECK(cs_listen_unix(path, 0600, &l) == CS_ERR_EXISTS); /* not a socket */
    CS_CHECK(unlink(path) == 0 && rmdir(dir) == 0);
    CS_CHECK(cs_listen_unix("", 0600, &l) == CS_ERR_INVALID);
    static char longer[300];
    memset(longer, 'x', sizeof longer - 1);
    CS_CHECK(cs_listen_unix(longer, 0600, &l) == CS_ERR_INVALID);
}
