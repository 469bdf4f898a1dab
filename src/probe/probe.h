/* The probe role: read-only connections to targets, for what the gateway wants to know about them:
 * the catalogue, what a held action would touch, how the credentials are set up. A task comes from
 * control and its results go there; a connection comes from control as a descriptor, the proof of
 * its credential too.
 *
 * SECURITY: it reads bytes of servers that may be hostile, so it has nothing else: no file, no
 * socket of its own, no configuration, no secret, never the elevated credential. The queries are
 * constants of this folder; names reach them as parameters. */
#ifndef CS_PROBE_PROBE_H
#define CS_PROBE_PROBE_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "ipc/ipc.h"
#include "runtime/loop.h"
#include "runtime/stream.h"
#include "sql/sql.h"
#include "wire/probe_task.h"
#include "wire/rows.h"

/* The whole life of the role; fd is the channel to the supervisor. Returns an exit status. From the
 * supervisor: BOOT (answered by READY) and a PEER that is control, which replaces the one before.
 */
int cs_probe_run(int supervisor_fd);

/* ---- for tests: the role inside somebody else's loop ---- */
struct cs_probe;
enum cs_err cs_probe_new(struct cs_loop *loop, int supervisor_fd,
                         struct cs_probe **ret) CS_MUST_CHECK;
/* After the loop has ended. */
void cs_probe_free(struct cs_probe *p);

/* ---- inside the folder ---- */

struct cs_probe {
    struct cs_loop *loop;
    struct cs_channel *supervisor, *control; /* NULL = none */
    uint64_t control_epoch;                  /* counts the controls */
    bool stopping, failed, alone;
    size_t n_tasks;
    struct cs_sql *sql; /* owned: reads definitions */
};

/* A constant query. Its parameters, all text: $1 the everyday role's name, $2 the elevated one's
 * ("" = none), $3 the names of an impact task. */
struct cs_probe_query {
    const char *name; /* of its table in the result */
    const char *sql;
    uint32_t max_rows;
    uint32_t since; /* server_version_num; an older server is not asked */
};

struct cs_probe_task_run { /* one task under way */
    struct cs_probe *probe;
    uint64_t control_epoch; /* which control asked */
    uint32_t corr;
    struct cs_id id;
    uint64_t kind;             /* enum cs_probe_kind */
    struct cs_slice map;       /* owned, sealed memory */
    struct cs_probe_task task; /* borrows from map */
    uint64_t deadline;
    uint64_t connection;
    uint32_t server_version; /* server_version_num, as far as the target says */
    struct cs_stream stream;
    char why[CS_ROWS_WHY];
};

/* ---- task.c ---- */
/* A task, in a coroutine of its own; takes over the memory. */
enum cs_err cs_probe_task_start(struct cs_probe *p, uint32_t corr, const struct cs_msg_probe *m,
                                int fd) CS_MUST_CHECK;

/* ---- query.c: on a connection that is logged in ---- */
/* BEGIN and ROLLBACK around what is asked: read only, one snapshot. */
enum cs_err cs_probe_begin(struct cs_probe_task_run *t) CS_MUST_CHECK;
void cs_probe_rollback(struct cs_probe_task_run *t);
/* Runs the query and appends its table. A server's refusal is a failed table and CS_OK (the
 * transaction has been started again); anything else means that connection and `out` are of no use
 * any more. */
enum cs_err cs_probe_query(struct cs_probe_task_run *t, const struct cs_probe_query *q,
                           struct cs_buf *out) CS_MUST_CHECK;

/* ---- certificate.c ---- */
/* Appends the table "certificate": subject and end (ms since 1970) of the one that the server
 * showed; none without TLS. */
void cs_probe_certificate(struct cs_probe_task_run *t, struct cs_buf *out);

/* ---- catalogue.c ---- */
/* The catalogue out of the answers of its kind of task. */
enum cs_err cs_probe_catalogue(struct cs_probe_task_run *t, struct cs_slice answers,
                               struct cs_buf *out) CS_MUST_CHECK;

/* ---- impact.c ---- */
/* The plan of the task's text, as the table "plan"; nothing when there is none. */
enum cs_err cs_probe_plan(struct cs_probe_task_run *t, struct cs_buf *out) CS_MUST_CHECK;

/* ---- the tables of queries: n of them for this kind of task; 0 = no such kind ---- */
size_t cs_probe_queries(uint64_t kind, const struct cs_probe_query **ret);

#endif
