/* The PROXY protocol header: what is accepted, byte for byte, and everything near it that is not.
 */
#include "runtime/proxy.h"
#include "runtime/sock.h"
#include "tap.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define V4        SIGNATURE "\x21\x11\0\x0c\xc0\x00\x02\x07\x0a\0\0\1\x30\x39\x1d\x08"
#define V6                                                                                         \
    SIGNATURE "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x05"                           \
              "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x30\x39\x1d\x08"
#define BYTES(text) cs_slice(text, sizeof(text) - 1)

static void is(struct cs_slice in, enum cs_proxy_result want, const char *address)
{
    struct cs_proxy p;
    char text[CS_ADDR_TEXT];
    CS_EQ_U64(cs_proxy_parse(in, &p), want);
    if (want == CS_PROXY_OK) {
        CS_EQ_U64(p.local, address == NULL);
    }
    if (want == CS_PROXY_OK && address != NULL) {
        CS_CHECK(strcmp(cs_addr_text((const struct sockaddr *)&p.client, text), address) == 0);
    }
}

CS_TEST(proxy_takes_tcp_over_both_families_and_leaves_what_follows)
{
    struct cs_proxy p;
    is(BYTES(V4), CS_PROXY_OK, "192.0.2.7:12345");
    is(BYTES(V6), CS_PROXY_OK, "[2001:db8::5]:12345");
    is(BYTES(SIGNATURE "\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\7"
                       "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\1\x30\x39\x1d\x08"),
       CS_PROXY_OK, "192.0.2.7:12345"); /* one client has one name */
    CS_EQ_U64(cs_proxy_parse(BYTES(V4 "\x16\x03\x01"), &p), CS_PROXY_OK);
    CS_EQ_U64(p.total, 28);
    is(BYTES(SIGNATURE "\x20\x00\0\0"), CS_PROXY_OK, NULL);
    is(BYTES(SIGNATURE "\x20\x11\0\x0c\xc0\x00\x02\x07\x0a\0\0\1\x30\x39\x1d\x08"), CS_PROXY_OK,
       NULL);
}

CS_TEST(proxy_says_need_for_every_beginning_and_bad_at_the_first_wrong_byte)
{
    for (size_t n = 0; n < sizeof(V4) - 1; n++) {
        is(cs_slice(V4, n), CS_PROXY_NEED, NULL);
    }
    for (size_t i = 0; i < 12; i++) {
        char bytes[] = V4;
        bytes[i] = (char)(bytes[i] ^ 1);
        is(cs_slice(bytes, i), CS_PROXY_NEED, NULL);
        is(cs_slice(bytes, i + 1), CS_PROXY_BAD, NULL);
        is(cs_slice(bytes, sizeof bytes - 1), CS_PROXY_BAD, NULL);
    }
}

CS_TEST(proxy_refuses_version_1_and_other_protocols)
{
    is(BYTES("PROXY TCP4 192.0.2.7 10.0.0.1 12345 7432\r\n"), CS_PROXY_BAD, NULL);
    is(BYTES("\0\0\0\x08\x04\xd2\x16\x2f"), CS_PROXY_BAD, NULL);
    is(BYTES("\x16\x03\x01\x02\0\1"), CS_PROXY_BAD, NULL);
    is(BYTES("GET / HTTP/1.1\r\n"), CS_PROXY_BAD, NULL);
}

CS_TEST(proxy_refuses_commands_families_and_lengths_that_do_not_fit)
{
    static const struct {
        uint8_t command, family, high, low;
    } bad[] = {
        {0x11, 0x11, 0, 12}, {0x31, 0x11, 0, 12},      {0x22, 0x11, 0, 12},
        {0x2f, 0x11, 0, 12}, {0x21, 0x00, 0, 12},      {0x21, 0x12, 0, 12},
        {0x21, 0x22, 0, 36}, {0x21, 0x31, 0, 216},     {0x21, 0xff, 0, 12},
        {0x21, 0x11, 0, 11}, {0x21, 0x11, 0, 0},       {0x21, 0x21, 0, 35},
        {0x21, 0x21, 0, 12}, {0x21, 0x11, 0xff, 0xff}, {0x20, 0x00, 0xff, 0xff},
        {0x21, 0x11, 2, 9},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        uint8_t bytes[600] = SIGNATURE;
        bytes[12] = bad[i].command;
        bytes[13] = bad[i].family;
        bytes[14] = bad[i].high;
        bytes[15] = bad[i].low;
        is(cs_slice(bytes, sizeof bytes), CS_PROXY_BAD, NULL);
    }
}

CS_TEST(proxy_takes_tlvs_that_fit_and_refuses_those_that_do_not)
{
#define WITH(n, tlvs)                                                                              \
    BYTES(SIGNATURE "\x21\x11\0" n "\xc0\x00\x02\x07\x0a\0\0\1\x30\x39\x1d\x08" tlvs)
    is(WITH("\x0f", "\x04\0\0"), CS_PROXY_OK, "192.0.2.7:12345");
    is(WITH("\x12", "\x04\0\3abc"), CS_PROXY_OK, "192.0.2.7:12345");
    is(WITH("\x0d", "\x04"), CS_PROXY_BAD, NULL);
    is(WITH("\x0f", "\x04\0\1"), CS_PROXY_BAD, NULL);
    is(WITH("\x12", "\x04\xff\xff"
                    "abc"),
       CS_PROXY_BAD, NULL);
    is(WITH("\x13", "\x04\0\3abcd"), CS_PROXY_BAD, NULL);
}

static bool trusts(const char *networks, size_t n, const char *who)
{
    struct sockaddr_storage sa;
    socklen_t len;
    CS_CHECK(cs_addr_parse(cs_slice_str(who), 1, &sa, &len));
    return cs_proxy_trusts(cs_slice(networks, n), (const struct sockaddr *)&sa);
}

CS_TEST(proxy_trusts_the_named_networks_alone)
{
    static const char nets[] = "\4\x08\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                               "\4\x20\xc0\0\2\7\0\0\0\0\0\0\0\0\0\0\0\0"
                               "\4\x0f\xac\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                               "\6\x40\xfd\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0";
    const size_t n = sizeof nets - 1;
    CS_CHECK(trusts(nets, n, "10.255.0.1") && !trusts(nets, n, "11.0.0.1"));
    CS_CHECK(trusts(nets, n, "192.0.2.7") && !trusts(nets, n, "192.0.2.8"));
    CS_CHECK(trusts(nets, n, "172.17.255.255") && !trusts(nets, n, "172.18.0.0"));
    CS_CHECK(trusts(nets, n, "fd00:0:0:1::9") && !trusts(nets, n, "fd00:0:0:2::9"));
    CS_CHECK(trusts(nets, n, "::ffff:10.1.2.3") && !trusts(nets, n, "::ffff:11.1.2.3"));
    CS_CHECK(!trusts(nets, n, "a00::") && !trusts("", 0, "10.0.0.1"));
    struct sockaddr local = {.sa_family = AF_UNIX};
    CS_CHECK(!cs_proxy_trusts(cs_slice(nets, n), &local));
}

struct reading {
    int pair[2];
    struct sockaddr_storage client;
    enum cs_err err;
    char rest[8];
    ssize_t n;
};

static void read_co(void *arg)
{
    struct reading *r = arg;
    struct cs_fd f;
    CS_EQ_U64(cs_fd_open(cs_co_loop(), &f, r->pair[0]), CS_OK);
    r->err = cs_proxy_read(&f, cs_mono_ns() + CS_NS_PER_S / 4, &r->client);
    r->n = read(f.fd, r->rest, sizeof r->rest);
    cs_fd_close(&f);
}

static struct reading read_after(struct cs_slice bytes, bool end)
{
    struct reading r = {.client.ss_family = AF_UNSPEC};
    struct cs_loop *loop = cs_loop_new();
    cs_handle co;
    CS_CHECK(loop != NULL && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, r.pair) == 0);
    CS_CHECK(write(r.pair[1], bytes.p, bytes.n) == (ssize_t)bytes.n);
    CS_CHECK(!end || shutdown(r.pair[1], SHUT_WR) == 0);
    CS_EQ_U64(cs_co_spawn(loop, "read", read_co, &r, &co), CS_OK);
    cs_loop_run(loop);
    cs_loop_free(loop);
    (void)close(r.pair[1]);
    return r;
}

CS_TEST(proxy_read_takes_the_header_and_not_a_byte_more)
{
    struct reading r = read_after(BYTES(V4 "after"), false);
    CS_EQ_U64(r.err, CS_OK);
    CS_EQ_U64(r.client.ss_family, AF_INET);
    CS_CHECK(r.n == 5 && memcmp(r.rest, "after", 5) == 0);
    r = read_after(BYTES(SIGNATURE "\x20\x00\0\0after"), false);
    CS_EQ_U64(r.err, CS_OK);
    CS_EQ_U64(r.client.ss_family, AF_UNSPEC);
    CS_CHECK(r.n == 5);
}

CS_TEST(proxy_read_tells_what_was_wrong_and_waits_no_longer_than_it_may)
{
    CS_EQ_U64(read_after(BYTES("\0\0\0\x08"), false).err, CS_ERR_PROTOCOL);
    CS_EQ_U64(read_after(BYTES("PROXY TCP4 "), false).err, CS_ERR_PROTOCOL);
    CS_EQ_U64(read_after(BYTES(SIGNATURE), true).err, CS_ERR_EOF);
    CS_EQ_U64(read_after(BYTES(SIGNATURE), false).err, CS_ERR_TIMEOUT);
}
