/* The PROXY protocol, version 2. Must never believe a header before its sender is known to be a
 * load balancer (cs_proxy_trusts; the caller's duty), and never take a byte that belongs to the
 * client. */
#include "runtime/proxy.h"

#include "base/limits.h"
#include "base/reader.h"
#include "runtime/sock.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

enum {
    HEAD = 16,
    NETWORK = 18,
    VERSION_2 = 0x20,
    LOCAL = 0,
    PROXY = 1,
    TCP4 = 0x11,
    TCP6 = 0x21,
    ADDRESSES4 = 12,
    ADDRESSES6 = 36
};
static const uint8_t signature[12] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                      '\n', 'Q',  'U',  'I',  'T', '\n'};
_Static_assert((int)CS_LIMIT_PROXY_BYTES >= HEAD + ADDRESSES6, "a header without TLVs fits");

/* Type, length, value, one behind the other to the last byte. What they say is not used. */
static bool tlvs_fit(struct cs_reader *r)
{
    while (cs_reader_left(r) > 0) {
        (void)cs_reader_u8(r);
        (void)cs_reader_take(r, cs_reader_u16(r));
    }
    return cs_reader_done(r);
}

static bool addresses(struct cs_reader *r, unsigned family, struct sockaddr_storage *ret)
{
    if (family == TCP4) {
        struct sockaddr_in sin = {.sin_family = AF_INET};
        struct cs_slice source = cs_reader_take(r, 4);
        (void)cs_reader_take(r, 4);
        sin.sin_port = htons(cs_reader_u16(r));
        (void)cs_reader_u16(r);
        if (r->bad) {
            return false;
        }
        memcpy(&sin.sin_addr, source.p, 4);
        memcpy(ret, &sin, sizeof sin);
        return true;
    }
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6};
    struct cs_slice source = cs_reader_take(r, 16);
    (void)cs_reader_take(r, 16);
    sin6.sin6_port = htons(cs_reader_u16(r));
    (void)cs_reader_u16(r);
    if (family != TCP6 || r->bad) {
        return false;
    }
    memcpy(&sin6.sin6_addr, source.p, 16);
    memcpy(ret, &sin6, sizeof sin6);
    cs_addr_plain(ret);
    return true;
}

enum cs_proxy_result cs_proxy_parse(struct cs_slice in, struct cs_proxy *ret)
{
    *ret = (struct cs_proxy){.total = HEAD};
    /* A wrong byte is told at once: who speaks another protocol first waits for nothing. */
    if (!cs_slice_eq(cs_slice_head(in, sizeof signature),
                     cs_slice(signature, CS_MIN(in.n, sizeof signature)))) {
        return CS_PROXY_BAD;
    }
    if (in.n < HEAD) {
        return CS_PROXY_NEED;
    }
    struct cs_reader r = cs_reader(cs_slice_from(in, sizeof signature));
    unsigned command = cs_reader_u8(&r), family = cs_reader_u8(&r);
    size_t n = cs_reader_u16(&r);
    if ((command & 0xf0U) != VERSION_2 || (command & 0x0fU) > PROXY ||
        n > (size_t)CS_LIMIT_PROXY_BYTES - HEAD) {
        return CS_PROXY_BAD;
    }
    ret->total = HEAD + n;
    if (in.n < ret->total) {
        return CS_PROXY_NEED;
    }
    r = cs_reader(cs_slice_head(cs_slice_from(in, HEAD), n));
    ret->local = (command & 0x0fU) == LOCAL;
    if (ret->local) { /* whatever addresses it carries mean nothing */
        return CS_PROXY_OK;
    }
    /* SECURITY: a balancer that does not know who its client is (UNSPEC) would make everybody one
     * and the same. */
    return addresses(&r, family, &ret->client) && tlvs_fit(&r) ? CS_PROXY_OK : CS_PROXY_BAD;
}

/* 4 or 6 and 16 bytes; 0 for what is no IP address. */
static unsigned bytes_of(const struct sockaddr *who, uint8_t ret[static 16])
{
    struct sockaddr_storage plain = {0};
    if (who->sa_family != AF_INET && who->sa_family != AF_INET6) {
        return 0;
    }
    memcpy(&plain, who,
           who->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    cs_addr_plain(&plain);
    if (plain.ss_family == AF_INET) {
        struct sockaddr_in sin;
        memcpy(&sin, &plain, sizeof sin);
        memcpy(ret, &sin.sin_addr, 4);
        return 4;
    }
    struct sockaddr_in6 sin6;
    memcpy(&sin6, &plain, sizeof sin6);
    memcpy(ret, &sin6.sin6_addr, 16);
    return 6;
}

static bool is_in(const uint8_t *network, unsigned family, const uint8_t address[static 16])
{
    unsigned bits = network[1], bytes = bits / 8, rest = bits % 8;
    if (network[0] != family || bits > (family == 4 ? 32U : 128U) ||
        memcmp(network + 2, address, bytes) != 0) {
        return false;
    }
    unsigned mask = 0xffU & ~(0xffU >> rest);
    return rest == 0 || ((network[2 + bytes] ^ address[bytes]) & mask) == 0;
}

bool cs_proxy_trusts(struct cs_slice networks, const struct sockaddr *who)
{
    uint8_t address[16] = {0};
    unsigned family = bytes_of(who, address);
    for (size_t at = 0; family != 0 && networks.n - at >= NETWORK; at += NETWORK) {
        if (is_in(networks.p + at, family, address)) {
            return true;
        }
    }
    return false;
}

/* Exactly until `n` bytes are there. */
static enum cs_err read_to(struct cs_fd *f, uint8_t *buf, size_t *have, size_t n, uint64_t deadline)
{
    while (*have < n) {
        ssize_t got = read(f->fd, buf + *have, n - *have);
        if (got > 0) {
            *have += (size_t)got;
            continue;
        }
        if (got == 0) {
            return CS_ERR_EOF;
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN) {
            return CS_ERR_IO;
        }
        f->readable = false;
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, f);
        enum cs_woke woke = cs_wait(&w, 1, deadline);
        if (woke != CS_WOKE_READY) {
            return woke == CS_WOKE_DEADLINE ? CS_ERR_TIMEOUT : CS_ERR_CANCELLED;
        }
    }
    return CS_OK;
}

enum cs_err cs_proxy_read(struct cs_fd *f, uint64_t deadline_ns,
                          struct sockaddr_storage *ret_client)
{
    uint8_t buf[CS_LIMIT_PROXY_BYTES];
    struct cs_proxy p = {.total = HEAD};
    size_t have = 0;
    enum cs_proxy_result got = CS_PROXY_NEED;
    while (got == CS_PROXY_NEED) {
        /* The signature first: a client that says less, and waits, is told by its first bytes. */
        size_t want = have == 0 ? 1 : p.total;
        enum cs_err err = read_to(f, buf, &have, want, deadline_ns);
        if (err != CS_OK) {
            return err;
        }
        got = cs_proxy_parse(cs_slice(buf, have), &p);
    }
    if (got != CS_PROXY_OK) {
        return CS_ERR_PROTOCOL;
    }
    if (!p.local) {
        *ret_client = p.client;
    }
    return CS_OK;
}
