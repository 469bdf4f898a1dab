/* One role's process: its start, its channel, its death, its next start. One coroutine per role,
 * begun by serve.c. It must never restart a role while the gateway stops, nor faster than the
 * back-off allows, nor leave a process behind that does not answer. */
#include "base/assert.h"
#include "base/log.h"
#include "roles/supervisor.h"
#include "runtime/process.h"
#include "runtime/sock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { REAP_POLL_MS = 100 };
#define READY_NS      (30 * CS_NS_PER_S)   /* from the start to READY */
#define GONE_NS       (2 * CS_NS_PER_S)    /* from the channel's end to the process's */
#define BACKOFF_FIRST (100 * CS_NS_PER_MS) /* of the second restart; the first is immediate */
#define BACKOFF_LAST  (5 * CS_NS_PER_S)
#define STEADY_NS     (10 * CS_NS_PER_S) /* lived this long: the next death is a first one */

const struct cs_role_row cs_role_rows[] = {
#define GETS_SNAPSHOT                         CS_GETS_SNAPSHOT
#define GETS_WEB                              CS_GETS_WEB
#define GETS_PROTOCOLS                        CS_GETS_PROTOCOLS
#define GETS_RING                             CS_GETS_RING
#define GETS_RINGS                            CS_GETS_RINGS
#define GETS_CONTROL                          CS_GETS_CONTROL
#define GETS_KEY                              CS_GETS_KEY
#define PER_GATE                              CS_PER_GATE
#define CS_ROLE_ROW(id, program, stage, gets) {CS_ROLE_##id, program, stage, gets},
#include "roles/roles.def"
#undef CS_ROLE_ROW
};
const size_t cs_role_row_count = CS_ARRAY_LEN(cs_role_rows);

struct cs_child *cs_child_of(struct cs_supervisor *sv, enum cs_role role, uint64_t index)
{
    for (size_t i = 0; i < sv->n_children; i++) {
        if (sv->children[i].row->role == role && sv->children[i].index == index) {
            return &sv->children[i];
        }
    }
    return NULL;
}

void cs_child_kill(struct cs_child *c, const char *why)
{
    if (c->pid > 0) {
        cs_log(CS_EV_IPC_BROKEN, NULL, "role=%s pid=%d why=\"%s\"", c->name, (int)c->pid, why);
        (void)kill(c->pid, SIGKILL);
    }
}

/* ---- its channel ---- */

static void on_ready(struct cs_child *c)
{
    c->ready = true;
    c->ready_ns = cs_mono_ns();
    cs_metrics_changed(c);
    cs_channel_run_phase(c->channel);
    cs_event_set(&c->poke);
    cs_event_set(&c->sv->changed);
}

static void on_message(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_child *c = arg;
    (void)ch;
    switch ((int)in->type) {
    case CS_MSG_READY:
        on_ready(c);
        break;
    case CS_MSG_QUIESCED:
        c->quiesced = true;
        cs_event_set(&c->sv->changed);
        break;
    case CS_MSG_RELOAD:
        cs_reload(c->sv, c, in->corr);
        break;
    case CS_MSG_STATUS:
        cs_answer_status(c, in->corr);
        break;
    case CS_MSG_REPLAY:
        cs_answer_replay(c, in->corr, in->msg);
        break;
    case CS_MSG_REPLAY_GO:
        cs_answer_replay_go(c, in->corr, in->msg);
        break;
    case CS_MSG_PARSE:
        cs_parse(c, in->corr, in->fd[0]);
        break;
    case CS_MSG_PARSER:
        cs_own_parser(c, in->corr);
        break;
    case CS_MSG_REDACT_KEY_NEW:
        cs_wire_redact_key(c->sv, in->msg);
        break;
    case CS_MSG_RECORD_KEY_NEW:
        cs_wire_record_key(c->sv, in->msg);
        break;
    default: /* the table lets nothing else through */
        for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
            if (in->fd[i] >= 0) {
                (void)close(in->fd[i]);
            }
        }
        break;
    }
}

static void on_gone(struct cs_channel *ch, void *arg)
{
    struct cs_child *c = arg;
    const char *why = cs_channel_broken_why(ch);
    if (why != NULL) {
        cs_child_kill(c, why);
    }
    c->gone = true;
    cs_event_set(&c->poke);
}

/* ---- start and end ---- */

static void reap(pid_t pid, int pidfd, char *why, size_t why_size, bool *ret_clean)
{
    while (!cs_process_reap(pid, why, why_size, ret_clean)) {
        struct pollfd p = {pidfd, POLLIN, 0};
        (void)poll(&p, pidfd >= 0 ? 1 : 0, REAP_POLL_MS); /* it is dying: moments */
    }
}

/* A process with one end of a channel, watched. */
static enum cs_err launch(struct cs_child *c, int ours, int theirs, struct cs_fd *ret_pidfd)
{
    char path[CS_PATH], why[CS_WHY];
    bool clean;
    const char *const argv[] = {c->row->program, c->name, NULL};
    const struct cs_process what = {cs_program_path(c->sv, c->row->program, path),
                                    cs_program_open(c->sv, c->row->program),
                                    argv,
                                    &theirs,
                                    1,
                                    cs_users_of(c->sv, c->row->role, c->index)};
    enum cs_err err = cs_process_begin(&what, &c->pid);
    if (err != CS_OK) {
        c->pid = 0;
        (void)close(ours);
        return err;
    }
    err = cs_process_watch(c->sv->loop, c->pid, ret_pidfd);
    if (err != CS_OK) {
        (void)kill(c->pid, SIGKILL);
        reap(c->pid, -1, why, sizeof why, &clean);
        (void)close(ours);
        return err;
    }
    c->ready = c->gone = false;
    c->started_ns = cs_mono_ns();
    do {
        cs_random(&c->epoch, sizeof c->epoch);
    } while (c->epoch == 0); /* 0 stands for "none" */
    err = cs_channel_open(c->sv->loop, ours, CS_ROLE_SUPERVISOR, c->row->role, c->index, on_message,
                          on_gone, c, &c->channel);
    if (err == CS_OK) {
        err = cs_wire(c);
    }
    if (err != CS_OK) {
        cs_child_kill(c, cs_err_text(err)); /* it is watched: its end is like any other */
    }
    return CS_OK;
}

/* When the process has outstayed its time; CS_FOREVER while all is well. */
static uint64_t patience(const struct cs_child *c, uint64_t gone_ns)
{
    if (c->gone) {
        return gone_ns + GONE_NS;
    }
    return c->ready || c->sv->stopping ? CS_FOREVER : c->started_ns + READY_NS;
}

/* Returns when the process has ended. */
static void watch(struct cs_child *c, struct cs_fd *pidfd)
{
    uint64_t gone_ns = 0;
    for (;;) {
        struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_READ, pidfd), CS_WAIT_ON(CS_WAIT_EVENT, &c->poke)};
        cs_event_clear(&c->poke);
        gone_ns = c->gone && gone_ns == 0 ? cs_mono_ns() : gone_ns;
        enum cs_woke woke = cs_wait(w, 2, patience(c, gone_ns));
        if (woke == CS_WOKE_READY && w[0].ready) {
            return;
        }
        if (woke != CS_WOKE_READY) {
            if (woke == CS_WOKE_DEADLINE) {
                cs_log(CS_EV_ROLE_DIED, NULL, "role=%s pid=%d why=\"%s\"", c->name, (int)c->pid,
                       c->gone ? "closed its channel and did not end" : "did not become ready");
            }
            (void)kill(c->pid, SIGKILL);
            struct pollfd p = {pidfd->fd, POLLIN, 0};
            (void)poll(&p, 1, REAP_POLL_MS);
            return;
        }
    }
}

static void report_end(const struct cs_child *c, const char *why, bool clean)
{
    if ((c->sv->stopping || c->retired || c->draining) && clean) {
        cs_log(CS_EV_STOPPED, NULL, "role=%s pid=%d", c->name, (int)c->pid);
    } else {
        cs_log(CS_EV_ROLE_DIED, NULL, "role=%s pid=%d why=\"%s\" restarts=%llu lived_ms=%llu",
               c->name, (int)c->pid, why, (unsigned long long)c->restarts,
               (unsigned long long)((cs_mono_ns() - c->started_ns) / CS_NS_PER_MS));
    }
}

/* For each start anew: nobody but keeper has them for longer than that takes. */
static enum cs_err open_keys(struct cs_child *c)
{
    char why[700] = "";
    if ((c->row->gets & CS_GETS_KEY) == 0) {
        return CS_OK;
    }
    enum cs_err err =
        cs_master_keys_open(c->sv, &c->sv->config.snapshot, &c->keys, why, sizeof why);
    if (err != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "what=%s", cs_log_quote(cs_slice_str(why)).text);
    }
    return err;
}

static enum cs_err begin(struct cs_child *c, struct cs_fd *ret_pidfd)
{
    int pair[2];
    if (c->pid > 0) {
        return cs_process_watch(c->sv->loop, c->pid, ret_pidfd); /* adopted */
    }
    c->adopted = false;
    c->started_ns = cs_mono_ns(); /* also of a start that comes to nothing: the pauses grow */
    enum cs_err err = open_keys(c);
    if (err == CS_OK) {
        err = cs_socketpair(pair);
    }
    if (err == CS_OK) {
        err = launch(c, pair[0], pair[1], ret_pidfd);
        (void)close(pair[1]);
    }
    return err;
}

static void run_once(struct cs_child *c)
{
    struct cs_fd pidfd;
    char why[CS_WHY] = "";
    bool clean = false;
    c->keys = (struct cs_key_fds){{-1, -1}};
    enum cs_err err = begin(c, &pidfd);
    if (err == CS_OK) {
        watch(c, &pidfd);
        reap(c->pid, pidfd.fd, why, sizeof why, &clean);
        cs_fd_close(&pidfd);
        report_end(c, why, clean);
    } else {
        char path[CS_PATH];
        cs_log(CS_EV_ROLE_DIED, NULL, "role=%s why=\"cannot be started\" program=%s error=%s",
               c->name, cs_program_path(c->sv, c->row->program, path), cs_err_name(err));
    }
    cs_own_parsers_end(c->sv, c);
    cs_master_keys_close(&c->keys);
    cs_channel_close(c->channel);
    c->channel = NULL;
    c->pid = 0;
    c->ready = false;
    cs_metrics_changed(c);
}

/* False when the gateway stops. */
static bool rest(struct cs_child *c, uint64_t delay_ns)
{
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &c->sv->stop);
    if (delay_ns == 0) {
        return !c->sv->stop.set;
    }
    return cs_wait(&w, 1, cs_mono_ns() + delay_ns) == CS_WOKE_DEADLINE;
}

static void child_co(void *arg)
{
    struct cs_child *c = arg;
    uint64_t delay = 0;
    for (;;) {
        run_once(c);
        c->failed = c->sv->starting && !c->draining;
        cs_event_set(&c->sv->changed);
        if (c->failed || c->sv->stopping || c->retired || c->draining) {
            break;
        }
        if (cs_mono_ns() - c->started_ns >= STEADY_NS) {
            delay = 0;
        }
        if (!rest(c, delay)) {
            break;
        }
        delay = delay == 0 ? BACKOFF_FIRST : CS_MIN(delay * 2, BACKOFF_LAST);
        c->restarts++;
    }
    c->alive = false;
    cs_metrics_changed(c);
    cs_event_set(&c->sv->changed);
}

enum cs_err cs_child_adopt(struct cs_child *c, int channel)
{
    enum cs_err err = cs_channel_open(c->sv->loop, channel, CS_ROLE_SUPERVISOR, c->row->role,
                                      c->index, on_message, on_gone, c, &c->channel);
    if (err != CS_OK) {
        return err;
    }
    cs_channel_run_phase(c->channel); /* only those were handed over that had said READY */
    c->adopted = c->ready = true;
    return cs_child_begin(c);
}

enum cs_err cs_child_begin(struct cs_child *c)
{
    cs_handle co;
    cs_assert(!c->alive);
    c->alive = true;
    enum cs_err err = cs_co_spawn(c->sv->loop, "child", child_co, c, &co);
    c->alive = err == CS_OK;
    return err;
}
