/* The PROXY protocol, version 2: what a load balancer says in front of a connection about who is
 * behind it. Called by gate and front where the configuration names load balancers. */
#ifndef CS_RUNTIME_PROXY_H
#define CS_RUNTIME_PROXY_H

#include "base/err.h"
#include "base/slice.h"
#include "runtime/loop.h"

#include <sys/socket.h>

enum cs_proxy_result {
    CS_PROXY_BAD, /* not a header that is accepted; it never becomes one */
    CS_PROXY_NEED,
    CS_PROXY_OK
};

struct cs_proxy {
    size_t total; /* bytes of the header; with NEED: how many are needed to say more */
    bool local;   /* from the load balancer itself (a health check): it names nobody */
    struct sockaddr_storage client;
};

/* Pure. `in` may hold more than the header. Strict: version 1, datagrams, unix sockets, an unknown
 * address, TLVs that do not fit exactly are refused. */
enum cs_proxy_result cs_proxy_parse(struct cs_slice in, struct cs_proxy *ret);

/* Networks as the snapshot carries them: for each 18 bytes: 4 or 6, bits of the prefix, address. An
 * IPv4 address in IPv6 form is that IPv4 address. False for anything else than an IP address. */
bool cs_proxy_trusts(struct cs_slice networks, const struct sockaddr *who);

/* Reads the header off a connection of the loop, and not a byte more: what follows (TLS) finds its
 * first byte first. `*ret_client` is left as it is for a load balancer's own connection. PROTOCOL,
 * EOF, TIMEOUT, CANCELLED, IO. */
enum cs_err cs_proxy_read(struct cs_fd *f, uint64_t deadline_ns,
                          struct sockaddr_storage *ret_client) CS_MUST_CHECK;

#endif
