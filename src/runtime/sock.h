/* Sockets and descriptors: opening, listening, connecting, passing. Errors are enum cs_err; errno
 * is kept for the log. All descriptors are close-on-exec. */
#ifndef CS_RUNTIME_SOCK_H
#define CS_RUNTIME_SOCK_H

#include "base/err.h"
#include "base/slice.h"
#include "runtime/loop.h"

#include <sys/socket.h>

/* "host:port", "[v6]:port" → parts (borrowed). False on anything else or port 0 / > 65535; a port
 * of 0 is accepted where `zero_ok` (listen on any free port). */
bool cs_addr_split(struct cs_slice text, bool zero_ok, struct cs_slice *ret_host,
                   uint16_t *ret_port);
/* A numeric address only (no look-ups). */
bool cs_addr_parse(struct cs_slice host, uint16_t port, struct sockaddr_storage *ret,
                   socklen_t *ret_len);
/* "127.0.0.1:5432" / "[::1]:5432" / "unix" with a NUL. */
enum { CS_ADDR_TEXT = 64 };
char *cs_addr_text(const struct sockaddr *sa, char out[static CS_ADDR_TEXT]);
/* An IPv4 address that came in IPv6 form is that IPv4 address. */
void cs_addr_plain(struct sockaddr_storage *sa);
/* What limits per address count by: one that owns an IPv6 network of 64 bits has as many addresses
 * as it likes, so the rest does not count, nor does the port. All that are no IP address are one
 * and the same. */
struct cs_addr_net {
    uint8_t family; /* 4 or 6; 0: no IP address */
    uint8_t b[8];   /* of an IPv4 address the first four */
};
struct cs_addr_net cs_addr_net(const struct sockaddr *sa);
bool cs_addr_net_eq(const struct cs_addr_net *a, const struct cs_addr_net *b);

enum cs_err cs_listen_tcp(struct cs_slice address, int *ret_fd) CS_MUST_CHECK;
/* Replaces a stale socket file; mode is the file's permission. */
enum cs_err cs_listen_unix(const char *path, unsigned mode, int *ret_fd) CS_MUST_CHECK;
/* accept4 on a listener of the loop; waits, also while descriptors are out. Sets TCP_NODELAY and
 * keep-alive. CANCELLED; EOF when the listener was closed. ret_peer may be NULL. */
enum cs_err cs_accept(struct cs_fd *listener, int *ret_fd, struct sockaddr_storage *ret_peer);
/* Non-blocking connect in a coroutine. UNREACHABLE, REFUSED, TIMEOUT, CANCELLED. */
enum cs_err cs_connect(const struct sockaddr *sa, socklen_t len, uint64_t deadline_ns,
                       int *ret_fd) CS_MUST_CHECK;
/* AF_UNIX SOCK_SEQPACKET pair. */
enum cs_err cs_socketpair(int ret_fds[static 2]) CS_MUST_CHECK;
/* The local port of a bound socket, 0 on failure. */
uint16_t cs_sock_port(int fd);

#endif
