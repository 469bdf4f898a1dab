/* job-replayer DIRECTORY SESSION: one session of the journal as JSON (record/replay.h). Started by
 * the supervisor on control's word, lives for one answer. Descriptor 3 is a SOCK_SEQPACKET socket;
 * one message goes back on it: u64le enum cs_err, u32le length and a sentence, and, when the error
 * is 0, the JSON in a sealed memfd. Where 3 is no such socket the JSON goes to standard output.
 * It must never write to the directory. */
#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/writer.h"
#include "ipc/ipc.h"
#include "record/replay.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ANSWER_FD = 3, CLOSING_BYTES = 4096 };

static bool asked_by_socket(void)
{
    int type = 0;
    socklen_t n = sizeof type;
    return getsockopt(ANSWER_FD, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET;
}

static bool send_answer(enum cs_err err, const char *text, int memfd)
{
    uint8_t bytes[512];
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct cs_writer w = cs_writer(bytes, sizeof bytes);
    cs_writer_u64le(&w, (uint64_t)err);
    cs_writer_slice(&w, cs_slice_head(cs_slice_str(text), sizeof bytes - 12));
    struct iovec piece = {bytes, cs_writer_done(&w).n};
    struct msghdr m = {.msg_iov = &piece, .msg_iovlen = 1};
    if (memfd >= 0) {
        m.msg_control = control.room;
        m.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof memfd);
        memcpy(CMSG_DATA(c), &memfd, sizeof memfd);
    }
    ssize_t n = 0;
    do {
        n = sendmsg(ANSWER_FD, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n >= 0;
}

static bool print_all(struct cs_slice s)
{
    return fwrite(s.p, 1, s.n, stdout) == s.n && fputc('\n', stdout) != EOF && fflush(stdout) == 0;
}

static bool answer(enum cs_err err, struct cs_slice json)
{
    int memfd = -1;
    if (!asked_by_socket()) {
        if (err != CS_OK) {
            (void)fprintf(stderr, "job-replayer: %s\n", cs_err_text(err));
        }
        return err == CS_OK && print_all(json);
    }
    if (err == CS_OK) {
        err = cs_sealed_make("replay", json, &memfd);
    }
    return send_answer(err, cs_err_text(err), memfd);
}

int main(int argc, char **argv)
{
    struct cs_id session;
    cs_log_init("job-replayer", CS_LEVEL_INFO);
    if (argc != 3 || !cs_id_parse(cs_slice_str(argv[2]), &session)) {
        (void)fprintf(stderr, "usage: job-replayer DIRECTORY SESSION\n");
        return 2;
    }
    cs_process_harden();
    const struct cs_sandbox_path paths[] = {{argv[1], CS_SANDBOX_READ}};
    if (cs_sandbox_enter(CS_SANDBOX_JOB, paths, CS_ARRAY_LEN(paths)) != CS_OK) {
        (void)fprintf(stderr, "job-replayer: the sandbox cannot be entered\n");
        return 1;
    }
    struct cs_buf json = cs_buf((size_t)CS_LIMIT_REPLAY_BYTES + CS_LIMIT_RECORD_FRAME_BYTES * 6 +
                                (size_t)CLOSING_BYTES);
    /* What goes on through the API must fit a sealed payload there: cut, and said, not refused. */
    size_t cap = asked_by_socket() ? (size_t)CS_LIMIT_IPC_BLOB_BYTES - CLOSING_BYTES
                                   : (size_t)CS_LIMIT_REPLAY_BYTES;
    enum cs_err err = cs_replay_session(argv[1], &session, cap, &json);
    bool ok = answer(err, cs_buf_slice(&json));
    cs_buf_done(&json);
    return ok ? 0 : 1;
}
