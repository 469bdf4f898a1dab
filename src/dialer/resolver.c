/* Name look-ups for targets. A numeric address never leaves the loop's thread; a name is looked up
 * by getaddrinfo on a helper thread. Only addresses that the configuration names come here. */
#include "dialer/resolver.h"

#include "base/alloc.h"
#include "runtime/sock.h"

#include <netdb.h>
#include <stdio.h>

enum { HOST_MAX = 253 };

struct lookup {
    char host[HOST_MAX + 1];
    char port[8];
    struct cs_resolved found;
    enum cs_err err;
};

static void lookup_run(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_family = AF_UNSPEC,
                             .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(l->host, l->port, &hints, &list);
    if (rc != 0) {
        l->err = rc == EAI_AGAIN ? CS_ERR_TIMEOUT : CS_ERR_NOT_FOUND;
        return;
    }
    for (struct addrinfo *a = list; a != NULL && l->found.n < CS_RESOLVED_MAX; a = a->ai_next) {
        if (a->ai_addrlen <= sizeof l->found.sa[0]) {
            memcpy(&l->found.sa[l->found.n], a->ai_addr, a->ai_addrlen);
            l->found.len[l->found.n++] = a->ai_addrlen;
        }
    }
    freeaddrinfo(list);
    l->err = l->found.n > 0 ? CS_OK : CS_ERR_NOT_FOUND;
}

enum cs_err cs_resolve(struct cs_slow *thread, struct cs_slice address, uint64_t deadline_ns,
                       struct cs_resolved *ret)
{
    struct cs_slice host;
    uint16_t port;
    if (!cs_addr_split(address, false, &host, &port)) {
        return CS_ERR_INVALID;
    }
    if (cs_addr_parse(host, port, &ret->sa[0], &ret->len[0])) {
        ret->n = 1;
        ret->literal = true;
        return CS_OK;
    }
    if (host.n == 0 || host.n > HOST_MAX || cs_slice_find(host, 0) != host.n) {
        return CS_ERR_NOT_FOUND;
    }
    struct lookup *l = cs_alloc(sizeof *l);
    if (l == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    memcpy(l->host, host.p, host.n);
    (void)snprintf(l->port, sizeof l->port, "%u", (unsigned)port);
    enum cs_err e = cs_slow_call(thread, lookup_run, cs_free, l, deadline_ns);
    if (e != CS_OK) {
        return e;
    }
    e = l->err;
    if (e == CS_OK) {
        *ret = l->found;
    }
    cs_free(l);
    return e;
}
