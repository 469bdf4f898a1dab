/* `countersign serve`: arguments, where the programs are, the start in stages, signals, the stop in
 * stages. The supervisor parses nothing from the network, keeps every descriptor that must outlive
 * a role, and dies last; its children die with it (PR_SET_PDEATHSIG). */
#include "roles/serve.h"

#include "base/alloc.h"
#include "base/log.h"
#include "roles/supervisor.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { TEXT_MAX = 64 * 1024, OK = 0, FAILED = 1, USAGE = 2 };
#define START_NS (60 * CS_NS_PER_S) /* of one stage */
#define HURRY_NS CS_NS_PER_S        /* a signal this long after the first one: stop at once */
#define STOP_NS  (10 * CS_NS_PER_S) /* of one stage, then SIGKILL */

/* ---- arguments and programs ---- */

static const char usage[] =
    "usage: countersign serve --config FILE [--gates N] [--user NAME [--role-users UID]]\n"
    "  --config FILE   the configuration (countersign init writes one)\n"
    "  --gates N       processes that carry client connections; default: one per processor\n"
    "  --user NAME     started as root: everything but this process runs as NAME, who must own "
    "the\n"
    "                  configuration, keys, state and recordings\n"
    "  --role-users UID  with --user: each role's process has a user id of its own, from UID on;\n"
    "                  the store's directory and the recordings belong to two of them\n"
    "example: countersign serve --config /etc/countersign/countersign.yaml\n"
    "SIGHUP reloads the configuration, SIGTERM or SIGINT stops in order, another one a second\n"
    "later at once. SIGUSR2 upgrades: the program that now lies at this one's path takes over,\n"
    "open sessions live on.\n";

static unsigned processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : CS_MIN((unsigned)n, (unsigned)CS_GATES_MAX);
}

/* Negative: go on; else the exit status. */
static int read_arguments(struct cs_supervisor *sv, int argc, char **argv)
{
    uint64_t gates = processors();
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--help") == 0) {
            (void)fputs(usage, stdout);
            return OK;
        }
        uint64_t fd = 0, uid = 0;
        if (strcmp(argv[i], "--trial") == 0) {
            sv->trial = true;
        } else if (strcmp(argv[i], "--resume") == 0 && more &&
                   cs_slice_to_u64(cs_slice_str(argv[i + 1]), &fd) && fd > 2 && fd < INT32_MAX) {
            sv->resume_fd = (int)fd;
            i++;
        } else if (strcmp(argv[i], "--config") == 0 && more) {
            sv->config_path = argv[++i];
        } else if (strcmp(argv[i], "--user") == 0 && more) {
            sv->user = argv[++i];
        } else if (strcmp(argv[i], "--role-users") == 0 && more &&
                   cs_slice_to_u64(cs_slice_str(argv[i + 1]), &uid) && uid > 0 && uid < INT32_MAX) {
            sv->first_uid = (uid_t)uid;
            i++;
        } else if (strcmp(argv[i], "--gates") == 0 && more) {
            if (!cs_slice_to_u64(cs_slice_str(argv[++i]), &gates) || gates < 1 ||
                gates > CS_GATES_MAX) {
                (void)fprintf(stderr,
                              "countersign serve: --gates is a number from 1 to %d, not %s\n",
                              CS_GATES_MAX, argv[i]);
                return USAGE;
            }
        } else {
            (void)fprintf(stderr, "countersign serve: what is %s?\n%s", argv[i], usage);
            return USAGE;
        }
    }
    if (sv->config_path == NULL) {
        (void)fprintf(stderr, "countersign serve: --config FILE is missing\n%s", usage);
        return USAGE;
    }
    sv->n_gates = (unsigned)gates;
    return cs_users_set(sv) ? -1 : USAGE;
}

/* The path that we were started by, for an upgrade: what a link leads to then is what comes. */
static void find_self(struct cs_supervisor *sv)
{
    union {
        unsigned long number;
        const char *path;
    } given = {getauxval(AT_EXECFN)};
    char here[CS_PATH];
    if (given.path == NULL || strncmp(given.path, "/dev/fd/", 8) == 0) {
        return;
    }
    if (given.path[0] == '/') {
        (void)snprintf(sv->self, sizeof sv->self, "%s", given.path);
    } else if (getcwd(here, sizeof here) != NULL) {
        int n = snprintf(sv->self, sizeof sv->self, "%.255s/%.250s", here, given.path);
        sv->self[n > 0 && (size_t)n < sizeof sv->self ? n : 0] = 0;
    }
}

/* ---- for the service manager ---- */

/* systemd's readiness protocol: a datagram to the socket it names. No socket, nothing to do. */
static void notify(const char *state)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t n = path != NULL ? strlen(path) : 0;
    if (n == 0 || n >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@')) {
        return;
    }
    memcpy(to.sun_path, path, n);
    if (to.sun_path[0] == '@') {
        to.sun_path[0] = 0; /* an abstract name */
    }
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to,
                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
        (void)close(fd);
    }
}

/* ---- the start ---- */

static bool children_make(struct cs_supervisor *sv)
{
    /* With room for the gates of a generation before. */
    sv->children =
        cs_alloc(sizeof *sv->children * (cs_role_row_count + sv->n_gates + CS_GATES_MAX));
    if (sv->children == NULL) {
        return false;
    }
    unsigned next = 0;
    for (size_t i = 0; i < cs_role_row_count; i++) {
        const struct cs_role_row *row = &cs_role_rows[i];
        unsigned many = (row->gets & CS_PER_GATE) != 0 ? sv->n_gates : 1;
        for (unsigned k = 0; k < many; k++) {
            struct cs_child *c = &sv->children[sv->n_children++];
            *c = (struct cs_child){.sv = sv, .row = row, .index = k};
            if ((row->gets & CS_PER_GATE) != 0) {
                c->index = cs_resume_index(sv, k, &next);
                sv->first_gate = k == 0 ? c->index : sv->first_gate;
                (void)snprintf(c->name, sizeof c->name, "%s/%u", row->program, c->index);
            } else {
                (void)snprintf(c->name, sizeof c->name, "%s", row->program);
            }
        }
    }
    return true;
}

/* Everybody of the stage is ready / has failed / the time or the patience of the caller is over. */
static bool await_ready(struct cs_supervisor *sv, unsigned stage)
{
    uint64_t deadline = cs_mono_ns() + START_NS;
    for (;;) {
        bool all = true;
        cs_event_clear(&sv->changed);
        for (size_t i = 0; i < sv->n_children; i++) {
            struct cs_child *c = &sv->children[i];
            if (c->failed) {
                (void)fprintf(stderr,
                              "countersign: the role %s did not start; its reason stands above\n",
                              c->name);
                return false;
            }
            all = all && (c->row->stage != stage || c->ready || c->draining);
        }
        if (all || sv->stop.set) {
            return all;
        }
        struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_EVENT, &sv->changed),
                              CS_WAIT_ON(CS_WAIT_EVENT, &sv->stop)};
        if (cs_wait(w, 2, deadline) != CS_WOKE_READY) {
            (void)fprintf(stderr, "countersign: the start takes too long\n");
            return false;
        }
    }
}

static bool start_stages(struct cs_supervisor *sv)
{
    for (unsigned stage = 1; stage <= CS_STAGES; stage++) {
        for (size_t i = 0; i < sv->n_children; i++) {
            struct cs_child *c = &sv->children[i];
            if (c->row->stage == stage && !c->alive && !c->draining && cs_child_begin(c) != CS_OK) {
                return false;
            }
        }
        if (!await_ready(sv, stage)) {
            return false;
        }
    }
    return true;
}

/* Less than all walls is said aloud, once a start; doctor shows it too. */
static void tell_walls(void)
{
    if (cs_sandbox_is_off()) {
        cs_log(CS_EV_SANDBOX_WEAK, NULL, "seccomp=off landlock=off why=\"sanitizer build\"");
    } else if (cs_sandbox_reports()) {
        cs_log(CS_EV_SANDBOX_WEAK, NULL, "seccomp=report why=\"COUNTERSIGN_SANDBOX\"");
    }
    if (cs_sandbox_landlock() == 0) {
        cs_log(CS_EV_SANDBOX_WEAK, NULL,
               "landlock=none why=\"the kernel has none, or not enabled\"");
    }
}

static void tell_serving(const struct cs_supervisor *sv)
{
    struct cs_buf line = cs_buf(TEXT_MAX);
    cs_listeners_tell(sv, &line);
    (void)fputs(cs_buf_cstr(&line), stdout);
    (void)fflush(stdout);
    cs_buf_done(&line);
    tell_walls();
    notify("READY=1\n");
    cs_log(CS_EV_STARTED, NULL, "version=%s gates=%u configuration=%016llx", CS_VERSION,
           sv->n_gates, (unsigned long long)sv->config.snapshot.version);
}

/* Text from the configuration file: shown as it is, but for bytes that would command a terminal. */
static void show(struct cs_slice text)
{
    for (size_t i = 0; i < text.n; i++) {
        uint8_t c = text.p[i];
        (void)fputc((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : c, stderr);
    }
}

/* ---- the stop ---- */

static bool stage_alive(const struct cs_supervisor *sv, unsigned stage)
{
    for (size_t i = 0; i < sv->n_children; i++) {
        if (sv->children[i].row->stage == stage && sv->children[i].alive) {
            return true;
        }
    }
    return false;
}

static void stage_each(struct cs_supervisor *sv, unsigned stage, bool kill_it)
{
    const struct cs_msg_shutdown m = {.end_ = 0};
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        if (c->row->stage != stage || c->pid == 0) {
            continue;
        }
        cs_event_set(&c->poke);
        if (kill_it || c->channel == NULL ||
            cs_channel_send(c->channel, CS_MSG_SHUTDOWN, 0, &m, NULL, 0) != CS_OK) {
            (void)kill(c->pid, SIGKILL);
        }
    }
}

static void stop_stage(struct cs_supervisor *sv, unsigned stage)
{
    uint64_t deadline = cs_mono_ns() + STOP_NS;
    bool killed = false;
    stage_each(sv, stage, sv->hurry);
    while (stage_alive(sv, stage)) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &sv->changed);
        cs_event_clear(&sv->changed);
        enum cs_woke woke = cs_wait(&w, 1, killed ? CS_FOREVER : deadline);
        if (woke == CS_WOKE_CANCELLED) {
            return;
        }
        if (!killed && (woke == CS_WOKE_DEADLINE || sv->hurry)) {
            killed = true;
            stage_each(sv, stage, true);
        }
    }
}

static void stop_all(struct cs_supervisor *sv)
{
    sv->stopping = true;
    cs_event_set(&sv->stop);
    notify("STOPPING=1\n");
    while (sv->upgrading) { /* it gives up at once */
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &sv->changed);
        cs_event_clear(&sv->changed);
        if (sv->upgrading && cs_wait(&w, 1, CS_FOREVER) != CS_WOKE_READY) {
            break;
        }
    }
    for (unsigned stage = CS_STAGES; stage >= 1; stage--) {
        stop_stage(sv, stage);
    }
    cs_parsers_leave(sv);
    while (sv->reloading || sv->replays > 0 || sv->parsers.n > 0 || sv->parsers.own != NULL) {
        /* their jobs end by themselves, or are killed */
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &sv->changed);
        cs_event_clear(&sv->changed);
        if (cs_wait(&w, 1, cs_mono_ns() + CS_NS_PER_S) != CS_WOKE_READY) {
            break;
        }
    }
}

/* ---- coroutines ---- */

static void signals_co(void *arg)
{
    struct cs_supervisor *sv = arg;
    for (;;) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &sv->signals);
        if (cs_wait(&w, 1, CS_FOREVER) != CS_WOKE_READY || sv->signals.fd < 0) {
            return;
        }
        for (int s = cs_signals_next(&sv->signals); s != 0; s = cs_signals_next(&sv->signals)) {
            if (s == SIGHUP) {
                cs_reload(sv, NULL, 0);
                continue;
            }
            if (s == SIGUSR2) {
                cs_upgrade(sv);
                continue;
            }
            /* Some senders signal a process and its group: two within a moment are one. */
            uint64_t now = cs_mono_ns();
            sv->stop_ns = sv->stop_ns == 0 ? now : sv->stop_ns;
            sv->hurry = sv->hurry || now - sv->stop_ns >= HURRY_NS;
            cs_log(CS_EV_STOPPED, NULL, "why=\"signal %d\"%s", s, sv->hurry ? " at_once=yes" : "");
            cs_event_set(&sv->stop);
            cs_event_set(&sv->changed);
        }
    }
}

static bool first_configuration(struct cs_supervisor *sv)
{
    struct cs_buf text = cs_buf(TEXT_MAX);
    enum cs_err err = CS_OK;
    if (sv->legacy.rollback) { /* what it served by, whatever the file says now */
        int fd = sv->legacy.configuration;
        sv->legacy.configuration = -1;
        err = cs_configuration_open(fd, sv->legacy.version, &sv->config);
    } else {
        err = cs_configuration_load(sv, &sv->config, &text);
    }
    show(cs_buf_slice(&text));
    if (err != CS_OK) {
        (void)fprintf(stderr, "countersign: the configuration was refused; nothing was started\n");
    }
    cs_buf_done(&text);
    return err == CS_OK;
}

static void serve_co(void *arg)
{
    struct cs_supervisor *sv = arg;
    cs_handle co;
    sv->starting = true;
    cs_metrics_begin(sv);
    bool up = first_configuration(sv) && cs_listeners_open(sv) && children_make(sv) &&
              (!sv->legacy.any || cs_resume_gates(sv)) && start_stages(sv);
    sv->starting = false;
    if (!up) {
        cs_resume_failed(sv);
    }
    if (up) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &sv->stop);
        if (sv->legacy.any) {
            cs_resume_done(sv);
        }
        if (cs_co_spawn(sv->loop, "metrics", cs_metrics_run, sv, &co) != CS_OK) {
            cs_log(CS_EV_INTERNAL, NULL, "what=metrics");
        }
        tell_serving(sv);
        sv->status = cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY ? OK : FAILED;
    }
    stop_all(sv);
    cs_loop_stop(sv->loop);
}

static bool run(struct cs_supervisor *sv)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};
    cs_handle co;
    sv->loop = cs_loop_new();
    if (sv->loop == NULL) {
        return false;
    }
    bool ok = cs_signals_open(sv->loop, signals, CS_ARRAY_LEN(signals), &sv->signals) == CS_OK &&
              cs_co_spawn(sv->loop, "signals", signals_co, sv, &co) == CS_OK &&
              cs_co_spawn(sv->loop, "serve", serve_co, sv, &co) == CS_OK;
    if (ok) {
        cs_loop_run(sv->loop);
    }
    cs_fd_close(&sv->signals);
    cs_loop_free(sv->loop);
    return ok;
}

/* A gate needs two descriptors a session; children inherit the limit. */
static void raise_limits(void)
{
    struct rlimit files, none = {0, 0};
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    (void)setrlimit(RLIMIT_CORE, &none); /* memory holds keys */
}

int cs_serve(int argc, char **argv)
{
    static struct cs_supervisor supervisor; /* one a process, too large for a stack */
    struct cs_supervisor *sv = &supervisor;
    sv->status = FAILED;
    sv->config.fd = sv->resume_fd = sv->signals.fd = -1;
    sv->legacy.program = sv->legacy.configuration = -1;
    sv->generation = 1;
    sv->argc = argc;
    sv->argv = argv;
    int status = read_arguments(sv, argc, argv);
    if (status >= 0) {
        return status;
    }
    cs_log_init("supervisor", CS_LEVEL_INFO);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    raise_limits();
    sv->started_ms = cs_wall_ms();
    find_self(sv);
    if (sv->resume_fd >= 0 && !cs_resume_read(sv)) {
        (void)fprintf(stderr, "countersign serve: --resume is for an upgrade alone\n");
        return FAILED;
    }
    if (!cs_programs_open(sv)) {
        return FAILED;
    }
    if (sv->trial) {
        return cs_trial(sv);
    }
    if (!run(sv)) {
        return FAILED;
    }
    for (size_t i = 0; i < sv->n_children; i++) {
        cs_wire_done(&sv->children[i]);
    }
    cs_listeners_close(sv);
    cs_free(sv->children);
    cs_configuration_done(&sv->config);
    cs_programs_close(&sv->programs);
    cs_legacy_done(&sv->legacy);
    cs_log(CS_EV_STOPPED, NULL, "status=%d", sv->status);
    return sv->status;
}
