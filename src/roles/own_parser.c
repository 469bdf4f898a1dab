/* A gate's own parser: a job-parser that goes on from text to text, with a socket to its gate and
 * to nobody else. Started when the gate asks for one, which it does at its start and whenever the
 * last was of no use; ended when it asks for the next, when it ends itself, and before the
 * supervisor does or is replaced (a gate that lives on asks the next one). Called by child.c. Must
 * never leave one behind that its gate has given up. */
#include "base/alloc.h"
#include "base/log.h"
#include "roles/supervisor.h"
#include "runtime/process.h"
#include "runtime/sock.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

enum { REAP_POLL_MS = 100 };
#define LEAST_NS (50 * CS_NS_PER_MS) /* between two starts for one gate: it waits longer itself */

struct cs_own_parser {
    struct cs_supervisor *sv;
    const struct cs_child *gate;
    pid_t pid;
    struct cs_fd pidfd;
    struct cs_event end;
    struct cs_own_parser *next;
};

static void unlink_it(struct cs_own_parser *p)
{
    struct cs_own_parser **at = &p->sv->parsers.own;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    cs_event_set(&p->sv->changed);
}

static void own_parser_co(void *arg)
{
    struct cs_own_parser *p = arg;
    struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_READ, &p->pidfd), CS_WAIT_ON(CS_WAIT_EVENT, &p->end)};
    char why[CS_WHY];
    bool clean = false;
    bool ended = cs_wait(w, CS_ARRAY_LEN(w), CS_FOREVER) == CS_WOKE_READY && w[0].ready;
    if (!ended) {
        (void)kill(p->pid, SIGKILL);
    }
    while (!cs_process_reap(p->pid, why, sizeof why, &clean)) {
        struct pollfd dying = {p->pidfd.fd, POLLIN, 0};
        (void)poll(&dying, 1, REAP_POLL_MS); /* moments */
    }
    if (ended && !clean) {
        cs_log(CS_EV_ROLE_DIED, NULL, "job=job-parser of=%s why=\"%s\"", p->gate->name, why);
    }
    cs_fd_close(&p->pidfd);
    unlink_it(p);
    cs_free(p);
}

static enum cs_err start(struct cs_own_parser *p, int socket)
{
    char path[CS_PATH], why[CS_WHY];
    cs_handle co;
    bool clean;
    const char *const argv[] = {"job-parser", p->gate->name, NULL};
    const struct cs_process what = {cs_program_path(p->sv, "job-parser", path),
                                    cs_program_open(p->sv, "job-parser"),
                                    argv,
                                    &socket,
                                    1,
                                    cs_users_of(p->sv, CS_ROLE_JOB, 0)};
    enum cs_err err = cs_process_begin(&what, &p->pid);
    if (err != CS_OK) {
        return err;
    }
    err = cs_process_watch(p->sv->loop, p->pid, &p->pidfd);
    if (err == CS_OK) {
        err = cs_co_spawn(p->sv->loop, "own-parser", own_parser_co, p, &co);
        if (err != CS_OK) {
            cs_fd_close(&p->pidfd);
        }
    }
    if (err != CS_OK) {
        (void)kill(p->pid, SIGKILL);
        while (!cs_process_reap(p->pid, why, sizeof why, &clean)) {
            (void)poll(NULL, 0, 1);
        }
    }
    return err;
}

static void refuse(struct cs_child *gate, uint32_t corr, enum cs_err err)
{
    struct cs_msg_not_parsed m = {.err = (uint64_t)err};
    cs_answer(gate, gate->epoch, CS_MSG_NOT_PARSED, corr, &m, NULL, 0);
}

void cs_own_parser(struct cs_child *gate, uint32_t corr)
{
    struct cs_supervisor *sv = gate->sv;
    const struct cs_msg_parser_is m = {.end_ = 0};
    uint64_t now = cs_mono_ns();
    int pair[2];
    cs_own_parsers_end(sv, gate);
    if (sv->stopping || sv->upgrading || now - gate->parser_ns < LEAST_NS) {
        refuse(gate, corr, CS_ERR_UNAVAILABLE);
        return;
    }
    gate->parser_ns = now;
    struct cs_own_parser *p = cs_alloc(sizeof *p);
    enum cs_err err = p != NULL ? cs_socketpair(pair) : CS_ERR_NO_MEMORY;
    if (err == CS_OK) {
        p->sv = sv;
        p->gate = gate;
        err = start(p, pair[1]);
        (void)close(pair[1]);
        if (err == CS_OK) {
            p->next = sv->parsers.own;
            sv->parsers.own = p;
            cs_answer(gate, gate->epoch, CS_MSG_PARSER_IS, corr, &m, &pair[0], 1);
        }
        (void)close(pair[0]);
    }
    if (err != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "parser of=%s error=%s", gate->name, cs_err_name(err));
        cs_free(p);
        refuse(gate, corr, err);
    }
}

void cs_own_parsers_end(struct cs_supervisor *sv, const struct cs_child *gate)
{
    for (struct cs_own_parser *p = sv->parsers.own; p != NULL; p = p->next) {
        if (gate == NULL || p->gate == gate) {
            cs_event_set(&p->end);
        }
    }
}
