/* An upgrade, as the program sees it that goes. The supervisor stays the same process and becomes
 * another program: gates are its children before and after, and carry their sessions on. There is
 * at no time more than one control, keeper or recorder: those of this generation end, in order,
 * before the next one starts; gates meanwhile accept nobody (who comes waits in the kernel's queue)
 * and keep their questions. Until the other program has begun, everything can still go on as it
 * was. */
#include "base/alloc.h"
#include "base/log.h"
#include "roles/supervisor.h"
#include "runtime/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { STATE_MAX = 64 * 1024, ARGUMENTS = 64, WHY_MAX = 20 * 1024 };
#define RETIRE_NS (10 * CS_NS_PER_S) /* of one stage, then SIGKILL */
#define BUSY_NS   (60 * CS_NS_PER_S) /* for reloads and replays under way */
#define FLUSH_NS  CS_NS_PER_S

static bool is_gate(const struct cs_child *c)
{
    return (c->row->gets & CS_PER_GATE) != 0;
}

/* ---- waiting ---- */

typedef bool pending_fn(const struct cs_supervisor *sv, unsigned stage);

/* True when nothing is pending; false when the time is over or the gateway is to stop. */
static bool await_none(struct cs_supervisor *sv, pending_fn *pending, unsigned stage,
                       uint64_t deadline)
{
    for (;;) {
        cs_event_clear(&sv->changed);
        if (!pending(sv, stage)) {
            return true;
        }
        struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_EVENT, &sv->changed),
                              CS_WAIT_ON(CS_WAIT_EVENT, &sv->stop)};
        if (sv->stop.set || cs_wait(w, 2, deadline) != CS_WOKE_READY) {
            return false;
        }
    }
}

static bool jobs_pending(const struct cs_supervisor *sv, unsigned stage)
{
    (void)stage;
    return sv->reloading || sv->replays > 0 || sv->parsers.n > 0;
}

static bool stage_pending(const struct cs_supervisor *sv, unsigned stage)
{
    for (size_t i = 0; i < sv->n_children; i++) {
        const struct cs_child *c = &sv->children[i];
        if (c->row->stage == stage && !is_gate(c) && c->alive) {
            return true;
        }
    }
    return false;
}

static bool gates_pending(const struct cs_supervisor *sv, unsigned stage)
{
    (void)stage;
    for (size_t i = 0; i < sv->n_children; i++) {
        const struct cs_child *c = &sv->children[i];
        if (is_gate(c) && c->ready && !c->quiesced) {
            return true;
        }
    }
    return false;
}

/* A gate that cannot be handed over: it is starting, or does not take its messages. */
static bool odd_gates_pending(const struct cs_supervisor *sv, unsigned stage)
{
    (void)stage;
    for (size_t i = 0; i < sv->n_children; i++) {
        const struct cs_child *c = &sv->children[i];
        if (is_gate(c) && c->alive &&
            (!c->ready || c->channel == NULL || cs_channel_fd(c->channel) < 0)) {
            return true;
        }
    }
    return false;
}

/* ---- the stages go ---- */

static void retire_each(struct cs_supervisor *sv, unsigned stage, bool kill_it)
{
    const struct cs_msg_shutdown m = {.end_ = 0};
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        if (c->row->stage != stage || is_gate(c)) {
            continue;
        }
        c->retired = true;
        cs_event_set(&c->poke);
        if (c->pid > 0 && (kill_it || c->channel == NULL ||
                           cs_channel_send(c->channel, CS_MSG_SHUTDOWN, 0, &m, NULL, 0) != CS_OK)) {
            (void)kill(c->pid, SIGKILL);
        }
    }
}

static bool retire_stage(struct cs_supervisor *sv, unsigned stage)
{
    retire_each(sv, stage, false);
    if (await_none(sv, stage_pending, stage, cs_mono_ns() + RETIRE_NS)) {
        return true;
    }
    retire_each(sv, stage, true);
    return await_none(sv, stage_pending, stage, CS_FOREVER);
}

/* Gates stay; none is started again from here on. */
static void gates_quiesce(struct cs_supervisor *sv)
{
    const struct cs_msg_quiesce m = {.end_ = 0};
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        if (!is_gate(c)) {
            continue;
        }
        c->retired = true;
        c->quiesced = false;
        if (c->ready && cs_channel_send(c->channel, CS_MSG_QUIESCE, 0, &m, NULL, 0) != CS_OK) {
            cs_child_kill(c, "does not take its messages");
        }
    }
    if (!await_none(sv, gates_pending, 0, cs_mono_ns() + CS_LIMIT_QUIESCE_S * CS_NS_PER_S)) {
        cs_log(CS_EV_CONFIG_WARNING, NULL,
               "why=\"a login or a question of a gate did not end in time; it is refused\"");
    }
}

static bool odd_gates_go(struct cs_supervisor *sv)
{
    if (await_none(sv, odd_gates_pending, 0, cs_mono_ns() + FLUSH_NS)) {
        return true;
    }
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        if (is_gate(c) && c->pid > 0 &&
            (!c->ready || c->channel == NULL || cs_channel_fd(c->channel) < 0)) {
            cs_child_kill(c, "cannot be handed over");
        }
    }
    return await_none(sv, odd_gates_pending, 0, CS_FOREVER);
}

/* ---- the hand-over ---- */

static void fill_gate(const struct cs_child *c, struct cs_generation_gate *t)
{
    *t = (struct cs_generation_gate){.index = c->index,
                                     .pid = (uint64_t)c->pid,
                                     .epoch = c->epoch,
                                     .restarts = c->restarts,
                                     .started_ns = c->started_ns,
                                     .draining = c->draining ? 1 : 0,
                                     .channel = (uint64_t)cs_channel_fd(c->channel),
                                     .metrics = c->metrics_fd > 0 ? c->metrics_fd : -1,
                                     .ring = c->ring,
                                     .old_ring = c->old_ring};
}

static void fill(const struct cs_supervisor *sv, struct cs_generation *g, bool rollback)
{
    memset(g, 0, sizeof *g);
    g->self = cs_slice_str(sv->self);
    g->started_ms = sv->started_ms;
    g->number = sv->generation;
    g->rollback = rollback ? 1 : 0;
    /* The way back: this program itself, whatever lies at its path by now. */
    g->program = rollback ? -1 : open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    g->configuration = rollback ? sv->legacy.configuration : sv->config.fd;
    g->version = rollback ? sv->legacy.version : sv->config.snapshot.version;
    /* … and so are the programs of its roles. */
    g->programs = rollback ? sv->legacy.programs : sv->programs;
    for (size_t i = 0; i < sv->n_listeners; i++) {
        g->listeners[g->n_listeners++] = sv->listeners[i];
    }
    for (size_t i = 0; i < sv->legacy.n_listeners && g->n_listeners < CS_SNAPSHOT_LISTENERS; i++) {
        g->listeners[g->n_listeners++] = sv->legacy.listeners[i];
    }
    for (size_t i = 0; i < sv->n_children && g->n_gates < CS_GATES_MAX; i++) {
        const struct cs_child *c = &sv->children[i];
        if (is_gate(c) && c->alive && c->ready && c->channel != NULL) {
            fill_gate(c, &g->gates[g->n_gates++]);
        }
    }
}

/* Every descriptor that the next program is to find open. */
static void keep_open(const struct cs_generation *g, int state, bool open_there)
{
    cs_fd_cloexec(state, !open_there);
    cs_fd_cloexec(g->configuration, !open_there);
    if (g->program >= 0) {
        cs_fd_cloexec(g->program, !open_there);
    }
    for (size_t i = 0; i < g->n_listeners; i++) {
        cs_fd_cloexec(g->listeners[i].fd, !open_there);
    }
    for (size_t i = 0; i < g->programs.n; i++) {
        cs_fd_cloexec(g->programs.at[i].fd, !open_there);
    }
    for (size_t i = 0; i < g->n_gates; i++) {
        const struct cs_generation_gate *t = &g->gates[i];
        cs_fd_cloexec((int)t->channel, !open_there);
        if (t->metrics > 0) {
            cs_fd_cloexec(t->metrics, !open_there);
        }
        for (size_t k = 0; k < 3; k++) {
            cs_fd_cloexec(t->ring.fd[k], !open_there);
            if (t->old_ring.epoch != 0) {
                cs_fd_cloexec(t->old_ring.fd[k], !open_there);
            }
        }
    }
}

static void become(const struct cs_supervisor *sv, int state, bool rollback)
{
    static char program[] = "countersign", word[] = "--resume";
    static char *argv[ARGUMENTS];
    char number[16];
    size_t n = 0;
    (void)snprintf(number, sizeof number, "%d", state);
    argv[n++] = program;
    for (int i = 0; i < sv->argc && n + 3 < ARGUMENTS; i++) {
        if (strcmp(sv->argv[i], "--resume") == 0) {
            i++; /* of the upgrade before */
            continue;
        }
        argv[n++] = sv->argv[i];
    }
    argv[n++] = word;
    argv[n++] = number;
    argv[n] = NULL;
    if (rollback) {
        (void)fexecve(sv->legacy.program, argv, environ);
    } else {
        (void)execv(sv->self, argv);
    }
}

void cs_hand_over(struct cs_supervisor *sv, bool rollback)
{
    static struct cs_generation g; /* too large for a stack */
    struct cs_buf bytes = cs_buf(STATE_MAX);
    int state = -1;
    fill(sv, &g, rollback);
    cs_generation_write(&bytes, &g);
    if (!bytes.bad && cs_sealed_make("generation", cs_buf_slice(&bytes), &state) == CS_OK) {
        keep_open(&g, state, true);
        become(sv, state, rollback);
        int kept = errno;
        keep_open(&g, state, false);
        cs_log(CS_EV_UPGRADE_FAILED, NULL, "why=\"%s does not start\" errno=%d", sv->self, kept);
        (void)close(state);
    }
    if (g.program >= 0) {
        (void)close(g.program);
    }
    cs_buf_done(&bytes);
}

/* ---- all of it ---- */

/* Nothing was given away: what had to end is started again. */
static void go_on(struct cs_supervisor *sv)
{
    const struct cs_msg_resume m = {.end_ = 0};
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        c->retired = false;
        if (!c->alive && !c->draining) {
            c->restarts++;
            if (cs_child_begin(c) != CS_OK) {
                cs_log(CS_EV_INTERNAL, NULL, "role=%s why=\"no memory to start it\"", c->name);
            }
        } else if (is_gate(c) && !c->draining && c->ready &&
                   cs_channel_send(c->channel, CS_MSG_RESUME, 0, &m, NULL, 0) != CS_OK) {
            cs_child_kill(c, "does not take its messages");
        }
    }
}

static void upgrade(struct cs_supervisor *sv)
{
    struct cs_buf why = cs_buf(WHY_MAX);
    bool ok = await_none(sv, jobs_pending, 0, cs_mono_ns() + BUSY_NS) && cs_trial_run(sv, &why);
    if (!ok) {
        cs_log(CS_EV_UPGRADE_FAILED, NULL, "why=%s",
               cs_log_quote(cs_slice_trim(cs_buf_slice(&why))).text);
    }
    cs_buf_done(&why);
    if (!ok || sv->stop.set || !retire_stage(sv, CS_STAGES)) {
        return;
    }
    gates_quiesce(sv);
    for (unsigned stage = CS_STAGES - 1; stage >= 1; stage--) {
        ok = ok && retire_stage(sv, stage);
    }
    if (ok && odd_gates_go(sv)) {
        cs_hand_over(sv, false);
    }
    if (!sv->stop.set) {
        go_on(sv);
    }
}

static void upgrade_co(void *arg)
{
    struct cs_supervisor *sv = arg;
    upgrade(sv);
    sv->upgrading = false;
    cs_event_set(&sv->changed);
}

void cs_upgrade(struct cs_supervisor *sv)
{
    cs_handle co;
    unsigned gates = 0;
    for (size_t i = 0; i < sv->n_children; i++) {
        gates += is_gate(&sv->children[i]) && sv->children[i].alive ? 1 : 0;
    }
    const char *why = sv->starting || sv->stopping || sv->upgrading
                          ? "a start, a stop or an upgrade is under way"
                      : sv->self[0] == 0 ? "the program's own path is not known"
                      : gates + sv->n_gates > CS_GATES_MAX
                          ? "too many gates of upgrades before still have sessions"
                          : NULL;
    if (why == NULL) {
        sv->upgrading = true;
        cs_parsers_leave(sv);
        if (cs_co_spawn(sv->loop, "upgrade", upgrade_co, sv, &co) != CS_OK) {
            sv->upgrading = false;
            why = "memory is out";
        }
    }
    if (why != NULL) {
        cs_log(CS_EV_UPGRADE_FAILED, NULL, "why=\"%s\"", why);
    }
}
