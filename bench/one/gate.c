/* In the place of the gate in the single-process gateway of bench/run.py (bench/one/recorder.c):
 * the supervisor starts it as a gate and talks to it as to one, but all it does is to hand its
 * channel on to the process that does both, and to end when that does. Never installed; it must
 * never be taken for a gate: it has no walls. */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SUPERVISOR_FD = 3, TRIES = 1000 };

static int one_connect(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int n = snprintf(to.sun_path + 1, sizeof to.sun_path - 1, "countersign-one-%d", (int)getppid());
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    const struct timespec pause = {0, 10 * 1000 * 1000};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    for (int i = 0; fd >= 0 && i < TRIES; i++) {
        if (connect(fd, (const struct sockaddr *)&to, len) == 0) {
            return fd;
        }
        (void)nanosleep(&pause, NULL);
    }
    return -1;
}

int main(void)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    char byte = 1;
    const int channel = SUPERVISOR_FD;
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof channel);
    memcpy(CMSG_DATA(c), &channel, sizeof channel);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = one_connect();
    if (fd < 0 || sendmsg(fd, &m, 0) != 1 || close(SUPERVISOR_FD) != 0) {
        (void)fprintf(stderr, "one/gate: no process to hand its channel to\n");
        return 1;
    }
    return read(fd, &byte, 1) == 0 ? 0 : 1; /* until the other one ends */
}
