/* job-replayer DIRECTORY SESSION: one session's recording as JSON (record/replay.h). Started by the
 * supervisor on control's word, lives for one answer. Descriptor 3 is a SOCK_SEQPACKET socket. It
 * asks there to have its keys opened: u64le CS_JOB_ASKS (roles/job.h), then, u32le length and bytes
 * each, a public key made for this once and the wrapped keys (crypto/wrapped.h). The reply: u64le
 * enum cs_err, the opened keys, u64le milliseconds to begin at, u64le 1 for actions only, the text
 * to look for. Its answer: u64le enum cs_err, u32le length and a sentence, and, when the error is
 * 0, the JSON in a sealed memfd.
 *
 * job-replayer DIRECTORY SESSION --key FILE: by hand, with the private half of a key that
 * recordings are wrapped for (escrow's): the JSON goes to standard output. No gateway is needed.
 *
 * job-replayer DIRECTORY log FROM COUNT [FILTER] [--key FILE]: that many leaves of the audit log
 * from that number on that fit, or, with 18446744073709551615, of the last ones; an empty FILTER is
 * everything (record/log_read.h). It asks in the same
 * way to have their private values opened (audit/boxes.h); the reply is u64le enum cs_err and the
 * opened rows, and what stands behind them is not for it.
 *
 * It must never write to the directory. */
#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/reader.h"
#include "base/secret.h"
#include "base/writer.h"
#include "ipc/ipc.h"
#include "record/log_read.h"
#include "record/replay.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ANSWER_FD = 3, CLOSING_BYTES = 4096, MESSAGE_MAX = 64 * 1024 };
#define JOB_ASKS UINT64_MAX /* roles/job.h */

static uint8_t message[MESSAGE_MAX];

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

/* Has these rows opened for a key that is made for this once. The reply is left in `message`, and
 * what it begins with is read off. */
static enum cs_err ask_open(struct cs_slice asked, uint8_t private[static CS_X25519],
                            struct cs_reader *ret, struct cs_slice *ret_rows)
{
    uint8_t public[CS_X25519];
    cs_random(private, CS_X25519);
    if (cs_x25519_public(private, public) != CS_OK) {
        return CS_ERR_INTERNAL;
    }
    struct cs_writer w = cs_writer(message, sizeof message);
    cs_writer_u64le(&w, JOB_ASKS);
    cs_writer_slice(&w, cs_slice(public, sizeof public));
    cs_writer_slice(&w, asked);
    struct cs_slice question = cs_writer_done(&w);
    ssize_t n = question.n > 0 ? send(ANSWER_FD, question.p, question.n, MSG_NOSIGNAL) : -1;
    if (n == (ssize_t)question.n) {
        struct pollfd p = {ANSWER_FD, POLLIN, 0}; /* the socket does not block */
        do {
            (void)poll(&p, 1, -1);
            n = recv(ANSWER_FD, message, sizeof message, 0);
        } while (n < 0 && (errno == EINTR || errno == EAGAIN));
    }
    if (n <= 0) {
        return CS_ERR_UNAVAILABLE;
    }
    *ret = cs_reader(cs_slice(message, (size_t)n));
    uint64_t err = cs_reader_u64le(ret);
    *ret_rows = cs_reader_slice(ret);
    return ret->bad || err >= CS_ERR_MAX ? CS_ERR_PROTOCOL : (enum cs_err)err;
}

/* Asks for the keys; ret_query's text borrows from `message`. */
static enum cs_err ask(struct cs_replay *r, struct cs_replay_query *ret_query)
{
    uint8_t private[CS_X25519];
    struct cs_reader rd;
    struct cs_slice rows;
    enum cs_err err = ask_open(cs_replay_rows(r), private, &rd, &rows);
    if (err == CS_OK) {
        ret_query->from_ms = cs_reader_u64le(&rd);
        ret_query->actions = cs_reader_u64le(&rd) == 1;
        ret_query->find = cs_reader_slice(&rd);
        err = cs_reader_done(&rd) ? CS_OK : CS_ERR_PROTOCOL;
    }
    if (err == CS_OK) {
        (void)cs_replay_keys(r, private, rows);
    }
    cs_wipe(private, sizeof private);
    return err;
}

/* 32 bytes, or 64 hexadecimal digits. */
static bool read_key(int fd, uint8_t private[static CS_X25519])
{
    uint8_t text[80];
    ssize_t n = read(fd, text, sizeof text);
    struct cs_slice s = cs_slice_trim(cs_slice(text, n > 0 ? (size_t)n : 0));
    bool ok = n == CS_X25519;
    if (ok) {
        memcpy(private, text, CS_X25519);
    } else {
        ok = cs_unhex(s, private, CS_X25519);
    }
    cs_wipe(text, sizeof text);
    return ok;
}

static enum cs_err own_key(struct cs_replay *r, int fd)
{
    uint8_t private[CS_X25519];
    enum cs_err err = CS_ERR_INVALID;
    if (read_key(fd, private)) {
        err = cs_replay_own_key(r, private) > 0 ? CS_OK : CS_ERR_DENIED;
    }
    cs_wipe(private, sizeof private);
    return err;
}

static enum cs_err read_log(const char *directory, uint64_t from, uint64_t count,
                            const struct cs_log_filter *filter, int key_fd, struct cs_buf *json)
{
    uint8_t private[CS_X25519];
    struct cs_log_page *page = NULL;
    struct cs_reader rd;
    struct cs_slice rows;
    enum cs_err err = cs_log_page_open(directory, from, count, filter, &page);
    if (err == CS_OK && key_fd >= 0) {
        err = read_key(key_fd, private) ? CS_OK : CS_ERR_INVALID;
        if (err == CS_OK) {
            cs_log_page_own_key(page, private);
        }
    } else if (err == CS_OK && asked_by_socket()) {
        err = ask_open(cs_log_page_rows(page), private, &rd, &rows);
        if (err == CS_OK) {
            cs_log_page_opened(page, private, rows);
        }
    }
    cs_wipe(private, sizeof private);
    if (err == CS_OK) {
        cs_log_page_json(page, json);
        err = json->bad ? CS_ERR_NO_MEMORY : CS_OK;
    }
    cs_log_page_close(page);
    return err;
}

static enum cs_err read_recording(const char *directory, const struct cs_id *session, int key_fd,
                                  struct cs_buf *json)
{
    struct cs_replay *r = NULL;
    struct cs_replay_query q = {.cap = CS_LIMIT_REPLAY_BYTES};
    enum cs_err err = cs_replay_open(directory, session, &r);
    if (err == CS_OK && key_fd >= 0) {
        err = own_key(r, key_fd);
    } else if (err == CS_OK && asked_by_socket()) {
        /* What goes on through the API must fit a sealed payload there: cut, and said, not refused.
         */
        q.cap = (size_t)CS_LIMIT_IPC_BLOB_BYTES - CLOSING_BYTES;
        err = ask(r, &q);
    }
    if (err == CS_OK) {
        err = cs_replay_json(r, &q, json);
    }
    cs_replay_close(r);
    return err;
}

int main(int argc, char **argv)
{
    struct cs_id session;
    int key_fd = -1;
    cs_log_init("job-replayer", CS_LEVEL_INFO);
    bool log = argc >= 5 && strcmp(argv[2], "log") == 0;
    bool selects = log && argc >= 6 && strcmp(argv[5], "--key") != 0;
    int given = selects ? 6 : log ? 5 : 3;
    struct cs_log_filter filter;
    bool with_key = argc == given + 2 && strcmp(argv[given], "--key") == 0;
    uint64_t from = 0, count = 0;
    bool known = log ? cs_slice_to_u64(cs_slice_str(argv[3]), &from) &&
                           cs_slice_to_u64(cs_slice_str(argv[4]), &count) && count > 0 &&
                           cs_log_filter_read(cs_slice_str(selects ? argv[5] : ""), &filter)
                     : argc >= 3 && cs_id_parse(cs_slice_str(argv[2]), &session);
    if ((argc != given && !with_key) || !known) {
        (void)fprintf(stderr,
                      "usage: job-replayer DIRECTORY SESSION [--key FILE]\n"
                      "       job-replayer DIRECTORY log FROM COUNT [FILTER] [--key FILE]\n");
        return 2;
    }
    if (with_key) {
        key_fd = open(argv[given + 1], O_RDONLY | O_CLOEXEC);
        if (key_fd < 0) {
            (void)fprintf(stderr, "job-replayer: %s cannot be opened\n", argv[given + 1]);
            return 1;
        }
    }
    cs_process_harden();
    const struct cs_sandbox_path paths[] = {{argv[1], CS_SANDBOX_READ}};
    if (cs_sandbox_enter(CS_SANDBOX_JOB, paths, CS_ARRAY_LEN(paths)) != CS_OK) {
        (void)fprintf(stderr, "job-replayer: the sandbox cannot be entered\n");
        return 1;
    }
    struct cs_buf json = cs_buf((size_t)CS_LIMIT_REPLAY_BYTES + CS_LIMIT_RECORD_FRAME_BYTES * 6 +
                                (size_t)CLOSING_BYTES);
    enum cs_err err = log ? read_log(argv[1], from, count, &filter, key_fd, &json)
                          : read_recording(argv[1], &session, key_fd, &json);
    bool ok = answer(err, cs_buf_slice(&json));
    cs_buf_done(&json);
    return ok ? 0 : 1;
}
