/* A blocking connection to the gateway: the local socket, TCP, or TLS over TCP. */
#ifndef CS_CLI_CONNECTION_H
#define CS_CLI_CONNECTION_H

#include "base/attr.h"
#include "cli/client.h"

struct cs_cli_connection {
    int fd;         /* owned; -1 = none */
    void *ssl;      /* owned; NULL = plain */
    void *ctx;      /* owned */
    char host[300]; /* for the Host field */
};

/* False: `why` says what failed, with what value, and what to do. */
bool cs_cli_connect(const struct cs_cli_place *p, struct cs_cli_connection *ret, char *why,
                    size_t why_size) CS_MUST_CHECK;
bool cs_cli_write(struct cs_cli_connection *n, struct cs_slice bytes) CS_MUST_CHECK;
/* At least one byte into out; 0 at the end, negative on an error or after too long. */
long cs_cli_read(struct cs_cli_connection *n, void *out, size_t cap);
void cs_cli_disconnect(struct cs_cli_connection *n);

#endif
