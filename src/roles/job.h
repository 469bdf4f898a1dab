/* A job: a short-lived program that does one task and answers once on descriptor 3 (a
 * SOCK_SEQPACKET socket). */
#ifndef CS_ROLES_JOB_H
#define CS_ROLES_JOB_H

#include "base/buf.h"
#include "base/err.h"
#include "runtime/loop.h"

#include <sys/types.h>

/* A job may ask one thing before it answers: a message that begins with u64le CS_JOB_ASKS. What
 * `fn` puts into `reply` is sent to it, with the descriptor that it puts into `ret_fd`, -1 = none
 * (borrowed). fn may wait, also for the end of the job's side of `socket`. An error of fn ends the
 * job. */
#define CS_JOB_ASKS UINT64_MAX
struct cs_job_ask {
    enum cs_err (*fn)(void *arg, struct cs_fd *socket, struct cs_slice asked, struct cs_buf *reply,
                      int *ret_fd);
    void *arg;
};

struct cs_job {
    const char *path;
    int program; /* the same, open (O_PATH); -1: by its path */
    uid_t uid;   /* 0: the service's user */
    const char *const *argv;
    uint64_t deadline_ns;  /* `ask` may set another one */
    struct cs_event *stop; /* it is killed when this is set; NULL: nothing but the deadline */
    const struct cs_job_ask *ask; /* NULL: it may ask nothing */
};

/* Starts it, waits in a coroutine for its message and for its end. On CS_OK `ret_message` (given an
 * empty cs_buf with a ceiling) holds the message and ret_fd the descriptor that came with it, or
 * -1. TIMEOUT, CANCELLED: it was killed. UNAVAILABLE: it ended without an answer. PROTOCOL: the
 * answer is larger than the ceiling or carries several descriptors, or the job asks and `ask` is
 * NULL. */
enum cs_err cs_job_run(struct cs_loop *loop, const struct cs_job *job, struct cs_buf *ret_message,
                       int *ret_fd) CS_MUST_CHECK;

#endif
