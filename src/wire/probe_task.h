/* What control tells probe with a task, in sealed memory: the target as a connection needs it, and
 * what the queries of that kind of task are about. Probe gets no configuration of its own, and so
 * none of the keys in it. */
#ifndef CS_WIRE_PROBE_TASK_H
#define CS_WIRE_PROBE_TASK_H

#include "base/buf.h"

enum { CS_PROBE_TASK_MAX = 4 * 1024 * 1024 };

struct cs_probe_task {
    struct cs_slice target;          /* its name, for sentences and the log */
    struct cs_slice host;            /* for TLS to verify */
    struct cs_slice tls;             /* off, require, verify-ca, verify-full */
    struct cs_slice roots;           /* PEM, of trust anchors */
    struct cs_slice channel_binding; /* disable, prefer, require */
    struct cs_slice authentication;  /* of the credential: scram-sha-256, md5, cleartext */
    struct cs_slice database;        /* at the server */
    struct cs_slice everyday; /* roles of the target's credentials: parameters $1 and $2 of every */
    struct cs_slice elevated; /* query; elevated empty = none */
    struct cs_slice text;  /* IMPACT: the statement that plain EXPLAIN is asked about, or empty */
    struct cs_slice names; /* IMPACT: parameter $3: relations, one a line, as SQL names them */
};

void cs_probe_task_write(struct cs_buf *out, const struct cs_probe_task *t);
/* Strict; slices borrow from `in`. */
bool cs_probe_task_read(struct cs_slice in, struct cs_probe_task *ret);

#endif
