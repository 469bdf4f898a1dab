/* The compile job: reads one configuration file, checks all of it, and answers with a sealed
 * snapshot or with every mistake. Started by the supervisor at start and on reload; by hand it is a
 * checker: `job-compile FILE`. It must never outlive its one task, and never sees the network.
 *
 * argv[1]: path of the file; relative paths in it start at its directory. fd 3: the job's end of a
 * SOCK_SEQPACKET socketpair, on which it sends exactly ONE message, at most 64 KiB:
 *
 *   - u64le err: enum cs_err. 0: a snapshot is attached. CS_ERR_INVALID: the file has mistakes.
 *     CS_ERR_NOT_FOUND, CS_ERR_IO …: it could not be read at all.
 *   - u64le version of the snapshot, 0 when err is not 0: the first 8 bytes of a SHA-256 over the
 *     whole content, so that an unchanged file gives the same version.
 *   - u32le length of the text, at most 60 KiB, then the text: a line each "FILE:LINE:COL: error:
 *     sentence" or "… warning: sentence", sorted by position, cut at a line's end.
 *   - With err 0, SCM_RIGHTS with one descriptor: a memfd by cs_sealed_make() with a blob of
 *     wire/snapshot.h.
 *
 * No message, a second or a malformed one means: the job failed, keep the old snapshot. When fd 3
 * is not a socket, the text goes to standard output and the exit status is 0 (valid, maybe with
 * warnings), 1 (mistakes) or 2 (usage). */
#include "base/alloc.h"
#include "config/config.h"
#include "crypto/crypto.h"
#include "ipc/ipc.h"
#include "runtime/sandbox.h"
#include "wire/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ANSWER_FD = 3, TEXT_MAX = 60 * 1024 };

struct job {
    const char *path;
    struct cs_arena arena;
    struct cs_buf snapshot, text;
    uint64_t version;
};

/* A failure before there is a file to complain about. */
static enum cs_err cannot_read(struct job *j, enum cs_err err)
{
    cs_buf_printf(&j->text, "%s:1:1: error: the file cannot be read: %s\n", j->path,
                  cs_config_file_problem(err));
    return err;
}

static enum cs_err compile(struct job *j)
{
    struct cs_slice text = CS_SLICE_NULL;
    struct cs_config_report report;
    struct cs_slice path = cs_slice_str(j->path);
    enum cs_err err = cs_config_read_file(NULL, path, CS_LIMIT_CONFIG_BYTES, &j->arena, &text);
    if (err != CS_OK) {
        return cannot_read(j, err);
    }
    char *full = realpath(j->path, NULL); /* of libc: freed with free */
    if (full == NULL) {
        return cannot_read(j, CS_ERR_NOT_FOUND);
    }
    struct cs_slice directory = cs_slice_str(full);
    while (directory.n > 1 && directory.p[directory.n - 1] != '/') {
        directory.n--;
    }
    directory.n -= directory.n > 1;
    struct cs_config_files files = {
        .read = cs_config_read_file, .fits = cs_certificate_fits, .directory = directory};
    err = cs_config_compile(text, &files, &j->arena, &j->snapshot, &j->version, &report);
    free(full);
    cs_config_report_text(&report, path, TEXT_MAX, &j->text);
    if (err != CS_OK && report.errors == 0) {
        cs_buf_printf(&j->text, "%s:1:1: error: %s\n", j->path, cs_err_text(err));
    }
    return err;
}

/* One message, with the snapshot's memfd when there is one. */
static bool answer(const struct job *j, enum cs_err err)
{
    int fd = -1;
    if (err == CS_OK) {
        err = cs_sealed_make("countersign-snapshot", cs_buf_slice(&j->snapshot), &fd);
    }
    uint8_t head[20];
    struct cs_writer w = cs_writer(head, sizeof head);
    cs_writer_u64le(&w, (uint64_t)err);
    cs_writer_u64le(&w, err == CS_OK ? j->version : 0);
    cs_writer_u32le(&w, (uint32_t)j->text.len);
    struct iovec iov[2] = {{head, sizeof head}, {j->text.p, j->text.len}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = j->text.len > 0 ? 2 : 1};
    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t sent = sendmsg(ANSWER_FD, &msg, MSG_NOSIGNAL);
    if (fd >= 0) {
        (void)close(fd);
    }
    return sent == (ssize_t)(sizeof head + j->text.len);
}

static bool answers_by_socket(void)
{
    struct stat st;
    return fstat(ANSWER_FD, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int keys(void)
{
    struct cs_buf out = cs_buf(TEXT_MAX);
    cs_config_keys_text(&out);
    int status = out.bad || fwrite(out.p, 1, out.len, stdout) != out.len;
    cs_buf_done(&out);
    return status;
}

int main(int argc, char **argv)
{
    struct job j = {.snapshot = cs_buf(CS_SNAPSHOT_MAX), .text = cs_buf(2 * TEXT_MAX)};
    if (argc != 2 || argv[1][0] == 0) {
        fputs("usage: job-compile FILE      check a configuration file\n"
              "       job-compile --keys    print the table of keys\n",
              stderr);
        return 2;
    }
    if (strcmp(argv[1], "--keys") == 0) {
        return keys();
    }
    j.path = argv[1];
    /* It may read any file that the configuration names, and change none. */
    const struct cs_sandbox_path paths[] = {{"/", CS_SANDBOX_READ}};
    if (cs_sandbox_enter(CS_SANDBOX_JOB, paths, CS_ARRAY_LEN(paths)) != CS_OK) {
        fputs("job-compile: the sandbox cannot be entered\n", stderr);
        return 1;
    }
    cs_arena_init(&j.arena, 1 << 20, CS_CONFIG_ARENA);
    enum cs_err err = compile(&j);
    int status = 0;
    if (j.text.bad || j.text.len > TEXT_MAX) {
        j.text.len = 0;
        err = err == CS_OK ? CS_ERR_INTERNAL : err;
    }
    if (answers_by_socket()) {
        status = answer(&j, err) ? 0 : 1;
    } else {
        (void)fwrite(j.text.p, 1, j.text.len, stdout);
        status = err == CS_OK ? 0 : 1;
    }
    cs_buf_done(&j.snapshot);
    cs_buf_done(&j.text);
    cs_arena_done(&j.arena);
    return status;
}
