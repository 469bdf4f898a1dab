/* job-parser: classifies one text that is too long to be parsed in a gate, and ends. Started by the
 * supervisor (roles/parse.c). Descriptor 3 is a SOCK_SEQPACKET socket: it says u64le CS_JOB_ASKS
 * (roles/job.h) when it is within its walls, gets the text in a sealed memfd, and answers u64le 0
 * with what it made of it (sql/parsed.h) in another. Started with the name of a gate
 * (roles/own_parser.c) it is that gate's own parser: descriptor 3 is a socket to the gate, and it
 * goes on from text to text (ipc/parcel.h) until nobody is there.
 *
 * SECURITY: what it reads is a stranger's, by a parser in C that takes its time. So it has its own
 * walls (S in runtime/sandbox.def). The one that reads a single text has so much processor time and
 * memory: the kernel ends it, with a timer that it cannot reach any more; it must never read a
 * second text. The gate's own reads no text over 64 KiB, and the gate has it killed when it is
 * late; it must keep nothing of a text for the next. */
#include "base/limits.h"
#include "base/log.h"
#include "base/reader.h"
#include "base/writer.h"
#include "ipc/ipc.h"
#include "ipc/parcel.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"
#include "sql/classify.h"
#include "sql/parsed.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SOCKET = 3 };
#define JOB_ASKS UINT64_MAX /* roles/job.h */

union fd_room {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static bool memory_bounded(void)
{
    struct rlimit memory = {CS_LIMIT_PARSER_BYTES, CS_LIMIT_PARSER_BYTES};
    return cs_sandbox_is_off() || setrlimit(RLIMIT_AS, &memory) == 0;
}

/* The process is killed when it has used so much of the processor from now on, in memory of that
 * size. A sanitizer needs many times as much of both. */
static bool bounded(void)
{
    struct sigevent kills = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    uint64_t ns = CS_LIMIT_PARSER_MS * CS_NS_PER_MS * (cs_sandbox_is_off() ? 20 : 1);
    struct itimerspec when = {.it_value = {(time_t)(ns / CS_NS_PER_S), (long)(ns % CS_NS_PER_S)}};
    timer_t timer;
    return timer_create(CLOCK_PROCESS_CPUTIME_ID, &kills, &timer) == 0 &&
           timer_settime(timer, 0, &when, NULL) == 0 && memory_bounded();
}

static bool say(uint64_t word, int fd)
{
    uint8_t bytes[8];
    union fd_room control = {{0}};
    struct cs_writer w = cs_writer(bytes, sizeof bytes);
    cs_writer_u64le(&w, word);
    struct iovec piece = {bytes, cs_writer_done(&w).n};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = control.room;
        m.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n = 0;
    do {
        n = sendmsg(SOCKET, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n == (ssize_t)piece.iov_len;
}

/* False: the supervisor has no text for it, and it goes. */
static bool get_text(struct cs_slice *ret)
{
    uint8_t byte;
    union fd_room control;
    struct iovec piece = {&byte, 1};
    struct msghdr m = {.msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    struct pollfd waits = {SOCKET, POLLIN, 0};
    ssize_t n = 0;
    int fd = -1;
    do {
        n = poll(&waits, 1, -1);
    } while (n < 0 && errno == EINTR);
    do {
        n = recvmsg(SOCKET, &m, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof fd)) {
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    }
    return fd >= 0 && cs_sealed_map(fd, CS_LIMIT_PG_QUERY_BYTES, ret) == CS_OK;
}

static bool classify(struct cs_sql *sql, struct cs_slice text)
{
    struct cs_buf out = cs_buf(CS_LIMIT_PARSED_BYTES);
    int fd = -1;
    cs_sql_class_write(&out, cs_sql_classify(sql, text), text.n);
    return !out.bad && cs_sealed_make("parsed", cs_buf_slice(&out), &fd) == CS_OK && say(0, fd);
}

/* ---- a gate's own ---- */

static bool answer(struct cs_sql *sql, struct cs_slice in, struct cs_buf *out)
{
    struct cs_reader r = cs_reader(in);
    uint64_t id = cs_reader_u64le(&r);
    struct cs_slice text = cs_reader_rest(&r);
    if (r.bad) {
        return false;
    }
    /* Without a cache: one session's text must leave nothing behind for another's. */
    struct cs_sql_record *record = cs_sql_classify_fresh(sql, text, false);
    out->len = 0;
    cs_sql_class_write(out, &record->class, text.n);
    cs_sql_release(sql, &record->class);
    return !out->bad &&
           cs_parcel_send_record(SOCKET, id, cs_parcel_mark(id, text), cs_buf_slice(out));
}

static int serve_gate(void)
{
    static uint8_t room[CS_PARCEL_TEXT_HEAD + CS_LIMIT_SQL_INLINE_BYTES];
    struct cs_sql *sql = NULL;
    struct cs_slice in;
    struct cs_buf out = cs_buf(CS_LIMIT_PARSER_RECORD_BYTES);
    if (cs_sql_new(&sql) != CS_OK || !memory_bounded() ||
        cs_sandbox_enter(CS_SANDBOX_PARSER, NULL, 0) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "start failed");
        return 1;
    }
    bool ok = cs_parcel_send_record(SOCKET, 0, 0, CS_SLICE_NULL);
    while (ok) {
        struct pollfd waits = {SOCKET, POLLIN, 0};
        enum cs_parcel got = cs_parcel_receive(SOCKET, room, sizeof room, &in);
        if (got == CS_PARCEL_BROKEN) {
            return 0; /* the gate has done with it */
        }
        ok = got == CS_PARCEL_NONE ? poll(&waits, 1, -1) >= 0 || errno == EINTR
                                   : answer(sql, in, &out);
    }
    return 1;
}

/* ---- one text ---- */

int main(int argc, char **argv)
{
    struct cs_sql *sql = NULL;
    struct cs_slice text;
    cs_log_init("job-parser", CS_LEVEL_INFO);
    cs_process_harden();
    if (argc > 1 && strncmp(argv[1], "gate/", 5) == 0) {
        return serve_gate();
    }
    if (cs_sql_new_large(&sql) != CS_OK || !bounded() ||
        cs_sandbox_enter(CS_SANDBOX_PARSER, NULL, 0) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "start failed");
        return 1;
    }
    if (!say(JOB_ASKS, -1) || !get_text(&text)) {
        return 0;
    }
    return classify(sql, text) ? 0 : 1; /* what is left goes with the process */
}
