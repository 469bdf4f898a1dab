/* The single-process gateway that bench/run.py measures the real one against
 * (separation-throughput): gate and recorder in one process, on one loop. The supervisor starts it
 * as the recorder; its gate (bench/one/gate.c) hands over its own channel. From there on a
 * session's coroutine appends to the ring and the recorder's takes from it in turns of the same
 * loop; compression, encryption and the barrier are on the way of the sessions.
 *
 * Never installed: without walls, for one process would need those of both. Nobody else may call
 * it. */
#include "record/recorder.h"
#include "base/log.h"
#include "gate/gate.h"
#include "proto/postgres/postgres.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"
#include "runtime/sock.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum { SUPERVISOR_FD = 3 };

const struct cs_protocol *const cs_protocols[] = {&cs_proto_postgres, NULL};

/* In place of the walls (meson.build). */
enum cs_err __wrap_cs_sandbox_enter(enum cs_sandbox role, const struct cs_sandbox_path *paths,
                                    size_t n_paths);
enum cs_err __wrap_cs_sandbox_enter(enum cs_sandbox role, const struct cs_sandbox_path *paths,
                                    size_t n_paths)
{
    (void)role;
    (void)paths;
    (void)n_paths;
    return CS_OK;
}

struct one {
    struct cs_loop *loop;
    struct cs_fd door;
    struct cs_gate *gate;
};

static int door_open(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int n = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "countersign-one-%d", (int)getppid());
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && (bind(fd, (const struct sockaddr *)&at, len) != 0 || listen(fd, 1) != 0)) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* The descriptor that came with the only message; -1. */
static int take_channel(int from)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    char byte;
    int fd = -1;
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    int flags = 0; /* it waits: the other side sends right away */
    if (recvmsg(from, &m, flags) == 1 && CMSG_FIRSTHDR(&m) != NULL) {
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    }
    return fd;
}

static void gate_co(void *arg)
{
    struct one *one = arg;
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &one->door);
    if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
        return;
    }
    int from = accept4(one->door.fd, NULL, NULL, SOCK_CLOEXEC);
    int channel = from >= 0 ? take_channel(from) : -1;
    if (channel < 0 || cs_gate_new(one->loop, channel, &one->gate) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "why=\"no gate came\"");
        cs_loop_stop(one->loop);
    }
    /* `from` stays open: by its end the other process sees ours. */
}

int main(void)
{
    static struct one one;
    cs_handle co;
    cs_log_init("recorder", CS_LEVEL_INFO);
    cs_process_harden();
    one.loop = cs_loop_new();
    if (one.loop == NULL || cs_fd_open(one.loop, &one.door, door_open()) != CS_OK ||
        cs_co_spawn(one.loop, "gate", gate_co, &one, &co) != CS_OK ||
        cs_recorder_start(one.loop, SUPERVISOR_FD) != CS_OK) {
        return 1;
    }
    cs_loop_run(one.loop);
    return 0;
}
