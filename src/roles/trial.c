/* Before an upgrade the program that is to come is asked whether it could serve: it compiles the
 * configuration with its own compiler, starts each of its role programs for a moment, and says
 * which format it speaks. Nothing that serves is touched meanwhile. */
#include "base/log.h"
#include "base/reader.h"
#include "base/writer.h"
#include "roles/job.h"
#include "roles/supervisor.h"
#include "runtime/process.h"
#include "runtime/sock.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { ANSWER_FD = 3, TEXT_MAX = 16 * 1024, ANSWER_MAX = TEXT_MAX + 1024, REAP_POLL_MS = 100 };
#define TRIAL_NS (30 * CS_NS_PER_S)
#define ROLE_NS  (10 * CS_NS_PER_S)

/* ---- in the program that is tried ---- */

/* A role whose supervisor is gone ends by itself. What cannot be loaded, or dies, says so. */
static bool role_starts(struct cs_supervisor *sv, const char *program, struct cs_buf *text)
{
    char path[CS_PATH], why[CS_WHY] = "it does not end";
    const char *const argv[] = {program, "trial", NULL};
    struct cs_fd pidfd;
    int pair[2];
    pid_t pid = 0;
    bool clean = false;
    if (cs_socketpair(pair) != CS_OK) {
        return false;
    }
    const struct cs_process what = {
        cs_program_path(sv, program, path), cs_program_open(sv, program), argv, &pair[1], 1, 0};
    enum cs_err err = cs_process_begin(&what, &pid);
    (void)close(pair[0]);
    (void)close(pair[1]);
    if (err == CS_OK && cs_process_watch(sv->loop, pid, &pidfd) == CS_OK) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &pidfd);
        if (cs_wait(&w, 1, cs_mono_ns() + ROLE_NS) != CS_WOKE_READY) {
            (void)kill(pid, SIGKILL);
        }
        while (!cs_process_reap(pid, why, sizeof why, &clean)) {
            struct pollfd p = {pidfd.fd, POLLIN, 0};
            (void)poll(&p, 1, REAP_POLL_MS); /* it is dying: moments */
        }
        cs_fd_close(&pidfd);
    } else if (err != CS_OK) {
        (void)snprintf(why, sizeof why, "%s", cs_err_text(err));
    }
    /* 127: what the loader says when a library is missing. */
    bool ok = err == CS_OK && strncmp(why, "signal", 6) != 0 && strcmp(why, "exit status 127") != 0;
    if (!ok) {
        cs_buf_printf(text, "the program %s does not start: %s\n", path, why);
    }
    return ok;
}

static bool programs_start(struct cs_supervisor *sv, struct cs_buf *text)
{
    static const char *const jobs[] = {"job-replayer", "job-parser"};
    bool ok = true;
    for (size_t i = 0; i < CS_ARRAY_LEN(jobs); i++) {
        if (cs_program_open(sv, jobs[i]) < 0) {
            cs_buf_printf(text, "the program %s is missing\n", jobs[i]);
            ok = false;
        }
    }
    for (size_t i = 0; i < cs_role_row_count; i++) {
        ok = role_starts(sv, cs_role_rows[i].program, text) && ok;
    }
    return ok;
}

static void trial_co(void *arg)
{
    struct cs_supervisor *sv = arg;
    struct cs_buf text = cs_buf(TEXT_MAX), answer = cs_buf(ANSWER_MAX);
    enum cs_err err = cs_configuration_load(sv, &sv->config, &text);
    if (err == CS_OK && !programs_start(sv, &text)) {
        err = CS_ERR_UNAVAILABLE;
    }
    uint8_t *room = cs_buf_room(&answer, ANSWER_MAX);
    if (room != NULL) {
        struct cs_writer w = cs_writer(room, ANSWER_MAX);
        cs_writer_u64le(&w, (uint64_t)err);
        cs_writer_slice(&w, cs_slice_str(cs_generation_format()));
        cs_writer_slice(&w, cs_slice_head(cs_buf_slice(&text), TEXT_MAX));
        struct cs_slice all = cs_writer_done(&w);
        bool told = write(ANSWER_FD, all.p, all.n) >= 0; /* one message */
        sv->status = told && err == CS_OK ? 0 : 1;
    }
    cs_buf_done(&answer);
    cs_buf_done(&text);
    cs_loop_stop(sv->loop);
}

int cs_trial(struct cs_supervisor *sv)
{
    cs_handle co;
    sv->loop = cs_loop_new();
    if (sv->loop != NULL && cs_co_spawn(sv->loop, "trial", trial_co, sv, &co) == CS_OK) {
        cs_loop_run(sv->loop);
    }
    cs_loop_free(sv->loop);
    cs_configuration_done(&sv->config);
    return sv->status;
}

/* ---- in the program that tries it ---- */

static bool understand(struct cs_slice answer, struct cs_buf *why)
{
    struct cs_reader r = cs_reader(answer);
    uint64_t err = cs_reader_u64le(&r);
    struct cs_slice format = cs_reader_slice(&r), text = cs_reader_slice(&r);
    if (!cs_reader_done(&r)) {
        cs_buf_str(why, "its answer is not understood: restart instead");
        return false;
    }
    if (err != CS_OK) {
        cs_buf_add(why, text);
        return false;
    }
    if (!cs_slice_eq_str(format, cs_generation_format())) {
        cs_buf_str(why, "its processes and the running ones would not understand each other, and "
                        "sessions would be lost: restart instead");
        return false;
    }
    return true;
}

bool cs_trial_run(struct cs_supervisor *sv, struct cs_buf *why)
{
    static const char *argv[64]; /* one trial at a time */
    size_t n = 0;
    argv[n++] = "countersign";
    for (int i = 0; i < sv->argc && n + 2 < CS_ARRAY_LEN(argv); i++) {
        if (strcmp(sv->argv[i], "--resume") == 0) {
            i++;
            continue;
        }
        argv[n++] = sv->argv[i];
    }
    argv[n++] = "--trial";
    argv[n] = NULL;
    struct cs_buf answer = cs_buf(ANSWER_MAX);
    const struct cs_job job = {.path = sv->self,
                               .program = -1, /* what lies there now is what would come */
                               .argv = argv,
                               .deadline_ns = cs_mono_ns() + TRIAL_NS,
                               .stop = &sv->stop};
    int fd = -1;
    enum cs_err err = cs_job_run(sv->loop, &job, &answer, &fd);
    bool ok = false;
    if (err == CS_OK) {
        ok = understand(cs_buf_slice(&answer), why);
    } else {
        cs_buf_printf(why, "%s does not run: %s", sv->self, cs_err_text(err));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    cs_buf_done(&answer);
    return ok;
}
