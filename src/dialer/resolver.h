/* From "host:port" to socket addresses, without blocking the loop. Used by dialer.c only. */
#ifndef CS_DIALER_RESOLVER_H
#define CS_DIALER_RESOLVER_H

#include "dialer/slow.h"

#include <sys/socket.h>

enum { CS_RESOLVED_MAX = 4 };

struct cs_resolved {
    struct sockaddr_storage sa[CS_RESOLVED_MAX];
    socklen_t len[CS_RESOLVED_MAX];
    size_t n;
    bool literal; /* the address is written as a number */
};

/* Numeric addresses at once; names with getaddrinfo on a helper thread, fresh each time (waits
 * in a coroutine).
 * INVALID: not host:port; NOT_FOUND: no such name; LIMIT, TIMEOUT, CANCELLED, NO_MEMORY. */
enum cs_err cs_resolve(struct cs_slow *thread, struct cs_slice address, uint64_t deadline_ns,
                       struct cs_resolved *ret) CS_MUST_CHECK;

#endif
