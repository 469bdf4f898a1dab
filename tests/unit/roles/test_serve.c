/* The supervisor with fake roles (fake_role.c): order of start and stop, deaths and restarts,
 * wiring, reload, control's questions. Each test runs cs_serve in a process of its own, in a
 * scratch directory where the fakes keep their common log. */
#include "base/time.h"
#include "roles/serve.h"
#include "runtime/sock.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

enum { LOG_MAX = 256 * 1024, PATIENCE_MS = 20000 };

static char dir[64];
static pid_t server;
static char text[LOG_MAX];

/* ---- the scratch directory ---- */

static void put(const char *name, const char *content)
{
    char temporary[100];
    (void)snprintf(temporary, sizeof temporary, "%s.tmp", name);
    FILE *f = fopen(temporary, "w");
    CS_CHECK(f != NULL && fputs(content, f) >= 0 && fclose(f) == 0);
    CS_CHECK(rename(temporary, name) == 0);
}

static const char *get(const char *name)
{
    FILE *f = fopen(name, "r");
    size_t n = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
    text[n] = 0;
    if (f != NULL) {
        (void)fclose(f);
    }
    return text;
}

static void scratch(const char *configuration)
{
    static const char *const names[] = {"recorder", "keeper",      "dialer",
                                        "probe",    "control",     "front",
                                        "gate",     "job-compile", "job-replayer"};
    (void)snprintf(dir, sizeof dir, "/tmp/cs-roles-XXXXXX");
    CS_CHECK(mkdtemp(dir) != NULL && chdir(dir) == 0 && mkdir("libexec", 0700) == 0);
    for (size_t i = 0; i < CS_ARRAY_LEN(names); i++) {
        char path[64];
        (void)snprintf(path, sizeof path, "libexec/%s", names[i]);
        CS_CHECK(symlink(CS_FAKE_ROLE, path) == 0);
    }
    put("c.yaml", configuration);
}

static void clean(void)
{
    char command[200];
    CS_CHECK(chdir("/") == 0 && strncmp(dir, "/tmp/cs-roles-", 14) == 0);
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    CS_CHECK(system(command) == 0);
}

/* ---- the gateway ---- */

static void serve(const char *gates)
{
    server = fork();
    if (server == 0) {
        char a0[] = "serve", a1[] = "--config", a2[] = "c.yaml", a3[] = "--gates", a4[8];
        char *argv[] = {a0, a1, a2, a3, a4, NULL};
        (void)snprintf(a4, sizeof a4, "%s", gates);
        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves nothing behind */
        (void)setenv("COUNTERSIGN_LIBEXEC", "libexec", 1);
        int out = open("out", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int err = open("err", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (dup2(out, 1) < 0 || dup2(err, 2) < 0) {
            _exit(99);
        }
        exit(cs_serve(5, argv));
    }
}

/* The exit status, or 1000 + signal. */
static int ended(void)
{
    for (int ms = 0; ms < PATIENCE_MS; ms += 10) {
        int status = 0;
        if (waitpid(server, &status, WNOHANG) == server) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
        }
        (void)usleep(10000);
    }
    CS_FAIL("it did not end; its messages:\n%s", get("err"));
}

static unsigned count(const char *file, const char *part)
{
    unsigned n = 0;
    for (const char *p = get(file); (p = strstr(p, part)) != NULL; p++) {
        n++;
    }
    return n;
}

static void await(const char *file, const char *part, unsigned times)
{
    for (int ms = 0; ms < PATIENCE_MS; ms += 10) {
        if (count(file, part) >= times) {
            return;
        }
        (void)usleep(10000);
    }
    CS_FAIL("no \"%s\" in %s:\n%s\n%s", part, file, get(file), get("err"));
}

static void up(const char *gates)
{
    serve(gates);
    await("out", "countersign is serving", 1);
}

static void down(void)
{
    CS_CHECK(kill(server, SIGTERM) == 0);
    CS_EQ_U64(ended(), 0);
}

/* A line of the log: `name` and the beginning of the event; its pid and time. `nth` from 1. */
static bool line(const char *name, const char *event, unsigned nth, int *ret_pid, uint64_t *ret_ms)
{
    for (const char *p = get("log"); *p != 0; p = strchr(p, '\n') + 1) {
        unsigned long long ms = 0;
        char who[40];
        int pid = 0, at = 0;
        if (sscanf(p, "%llu %39s %d %n", &ms, who, &pid, &at) == 3 && strcmp(who, name) == 0 &&
            strncmp(p + at, event, strlen(event)) == 0 && --nth == 0) {
            *ret_pid = pid;
            *ret_ms = ms;
            return true;
        }
    }
    return false;
}

static int pid_of(const char *name, unsigned nth)
{
    int pid = 0;
    uint64_t ms = 0;
    for (int i = 0; i < PATIENCE_MS && !line(name, "ready", nth, &pid, &ms); i += 10) {
        (void)usleep(10000);
    }
    CS_CHECK(pid > 0);
    return pid;
}

/* Where in the log the line stands; fails when there is none. */
static size_t place(const char *part)
{
    const char *all = get("log");
    const char *p = strstr(all, part);
    if (p == NULL) {
        CS_FAIL("no \"%s\" in the log:\n%s", part, all);
    }
    return (size_t)(p - all);
}

/* The nth event of this name, as a place in the log. */
static bool find_event(const char *name, const char *what, size_t *ret_at)
{
    const char *all = get("log");
    for (const char *p = all; *p != 0; p = strchr(p, '\n') + 1) {
        unsigned long long ms = 0;
        char who[40];
        int pid = 0, at = 0;
        if (sscanf(p, "%llu %39s %d %n", &ms, who, &pid, &at) == 3 && strcmp(who, name) == 0 &&
            strncmp(p + at, what, strlen(what)) == 0) {
            *ret_at = (size_t)(p - all);
            return true;
        }
    }
    return false;
}

static bool has_event(const char *name, const char *what)
{
    size_t at;
    return find_event(name, what, &at);
}

static size_t event(const char *name, const char *what)
{
    size_t at = 0;
    if (!find_event(name, what, &at)) {
        CS_FAIL("%s has no event %s:\n%s", name, what, get("log"));
    }
    return at;
}

/* ---- order ---- */

CS_TEST(serve_starts_and_stops_in_order)
{
    struct stat st;
    scratch("good 1");
    up("2");
    CS_CHECK(strstr(get("out"), "postgres on 127.0.0.1:") != NULL);
    CS_CHECK(strstr(get("out"), "127.0.0.1:0") == NULL); /* the real port is told */
    CS_CHECK(strstr(get("out"), "run/local.sock") != NULL);
    static const char *const early[] = {"recorder", "keeper", "dialer", "probe"};
    for (size_t i = 0; i < CS_ARRAY_LEN(early); i++) {
        CS_CHECK(event(early[i], "ready") < event("control", "started"));
    }
    CS_CHECK(event("control", "ready") < event("gate/0", "started"));
    CS_CHECK(event("control", "ready") < event("gate/1", "started"));
    CS_CHECK(event("control", "ready") < event("front", "started"));
    CS_CHECK(stat("recordings", &st) == 0 && (st.st_mode & 0777) == 0700);
    CS_CHECK(stat("state", &st) == 0 && (st.st_mode & 0777) == 0700);
    CS_CHECK(stat("run/local.sock", &st) == 0 && (st.st_mode & 0777) == 0666);
    down();
    static const char *const first[] = {"gate/0", "gate/1", "front"};
    for (size_t i = 0; i < CS_ARRAY_LEN(first); i++) {
        CS_CHECK(event(first[i], "ended") < event("control", "shutdown"));
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(early); i++) {
        CS_CHECK(event("control", "ended") < event(early[i], "shutdown"));
        (void)event(early[i], "ended");
    }
    CS_EQ_U64(count("err", "role-died"), 0);
    CS_CHECK(access("run/local.sock", F_OK) != 0);
    clean();
}

CS_TEST(serve_stops_in_order_when_the_whole_group_is_signalled)
{
    scratch("good 1");
    up("1");
    CS_CHECK(kill(-server, SIGINT) == 0); /* Ctrl-C */
    CS_EQ_U64(ended(), 0);
    CS_CHECK(event("gate/0", "ended") < event("control", "shutdown"));
    CS_CHECK(event("control", "ended") < event("recorder", "shutdown"));
    (void)event("recorder", "ended");
    CS_EQ_U64(count("err", "role-died"), 0);
    clean();
}

CS_TEST(serve_gives_each_role_what_its_row_names)
{
    scratch("good 1");
    up("2");
    char part[300];
    (void)snprintf(part, sizeof part, "boot recorder 0 directory=%s/recordings", dir);
    (void)place(part);
    await("log", "peer gate 1", 1);
    await("log", " ring ", 4);
    (void)event("control", "snapshot 1");
    (void)event("control", "peer gate 0");
    (void)event("control", "peer gate 1");
    (void)event("control", "peer front 0");
    (void)event("control", "peer keeper 0");
    (void)event("control", "peer dialer 0");
    (void)event("control", "peer probe 0");
    (void)event("keeper", "boot keeper 0");
    (void)event("keeper", "key previous=0 last=1 bytes=32");
    (void)event("keeper", "credentials 1");
    (void)event("keeper", "peer control 0");
    (void)event("dialer", "snapshot 1");
    (void)event("dialer", "peer control 0");
    (void)event("probe", "peer control 0");
    CS_CHECK(!has_event("probe", "snapshot")); /* it has no configuration, and no key in it */
    CS_EQ_U64(count("log", " key "), 1);       /* nobody else hears of it */
    CS_EQ_U64(count("log", "credentials"), 1);
    (void)event("front", "listener control");
    (void)event("front", "listener local");
    (void)event("front", "peer control 0");
    (void)event("gate/1", "listener postgres");
    (void)event("gate/1", "ring 1");
    (void)event("gate/1", "peer control 0");
    (void)event("recorder", "ring 0");
    (void)event("recorder", "ring 1");
    static const char *const told[] = {"supervisor 0", "recorder 0", "keeper 0",
                                       "dialer 0",     "probe 0",    "control 0",
                                       "front 0",      "gate 0",     "gate 1"};
    for (size_t i = 0; i < CS_ARRAY_LEN(told); i++) {
        char numbers[80];
        (void)snprintf(numbers, sizeof numbers, "numbers of %s readable=1 writable=0", told[i]);
        await("log", numbers, 1);
        (void)event("front", numbers);
    }
    CS_EQ_U64(count("log", "metrics writable=1"), 8); /* to each its own, and front all to read */
    CS_EQ_U64(count("log", "numbers of"), CS_ARRAY_LEN(told));
    CS_EQ_U64(count("log", "listener postgres"), 2);
    CS_EQ_U64(count("log", "listener control"), 1);
    CS_EQ_U64(count("log", "gates=keep"), 0);
    CS_EQ_U64(count("log", " ring "), 4);
    down();
    clean();
}

CS_TEST(serve_refuses_a_wrong_configuration)
{
    scratch("bad");
    serve("1");
    CS_EQ_U64(ended(), 1);
    CS_CHECK(strstr(get("err"),
                    "c.yaml:1:1: error: it is bad?[2J\nc.yaml:2:1: error: and worse\n") != NULL);
    CS_EQ_U64(count("log", "started"), 0);
    put("c.yaml", "silent");
    serve("1");
    CS_EQ_U64(ended(), 1);
    CS_CHECK(strstr(get("err"), "compiler failed") != NULL);
    clean();
}

CS_TEST(serve_says_which_address_is_in_use)
{
    int fd = -1;
    char configuration[100];
    scratch("good 1");
    CS_EQ_U64(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &fd), CS_OK);
    (void)snprintf(configuration, sizeof configuration, "good 1 127.0.0.1:%u", cs_sock_port(fd));
    put("c.yaml", configuration);
    serve("1");
    CS_EQ_U64(ended(), 1);
    CS_CHECK(strstr(get("err"), configuration + 7) != NULL);
    CS_CHECK(strstr(get("err"), "Another program") != NULL);
    CS_EQ_U64(count("log", "started"), 0);
    (void)close(fd);
    clean();
}

CS_TEST(serve_has_a_usage)
{
    char serve_[] = "serve", gates[] = "--gates", zero[] = "0", config[] = "--config", f[] = "f",
         odd[] = "--odd";
    char *none[] = {serve_, NULL}, *bad[] = {serve_, config, f, gates, zero, NULL},
         *what[] = {serve_, odd, NULL};
    CS_EQ_U64(cs_serve(1, none), 2);
    CS_EQ_U64(cs_serve(5, bad), 2);
    CS_EQ_U64(cs_serve(2, what), 2);
}

CS_TEST(serve_ends_when_a_role_does_not_start)
{
    scratch("good 1");
    put("gate-1.die", "");
    serve("2");
    CS_EQ_U64(ended(), 1);
    CS_CHECK(strstr(get("err"), "gate/1 did not start") != NULL);
    CS_CHECK(strstr(get("err"), "exit status 3") != NULL);
    (void)event("recorder", "ended"); /* what ran was stopped in order */
    CS_CHECK(event("control", "ended") < event("recorder", "shutdown"));
    clean();
}

/* ---- deaths ---- */

CS_TEST(serve_restarts_keeper_dialer_and_probe_with_new_channels)
{
    static const char *const names[] = {"keeper", "dialer", "probe"};
    scratch("good 1");
    up("1");
    for (size_t i = 0; i < CS_ARRAY_LEN(names); i++) {
        char part[40];
        (void)snprintf(part, sizeof part, "peer %s 0", names[i]);
        await("log", part, 1);
        CS_CHECK(kill(pid_of(names[i], 1), SIGKILL) == 0);
        (void)pid_of(names[i], 2);
        await("log", part, 2); /* control has a channel to the new one */
    }
    down();
    clean();
}

CS_TEST(serve_restarts_a_gate_with_a_new_ring_and_channel)
{
    uint64_t back = 0;
    int pid = 0;
    scratch("good 1");
    up("2");
    int other = pid_of("gate/1", 1), control = pid_of("control", 1);
    await("log", "peer gate 0", 1);
    CS_CHECK(kill(pid_of("gate/0", 1), SIGKILL) == 0);
    await("log", "peer gate 0", 2);
    (void)pid_of("gate/0", 2);
    await("log", "ring 0 ", 4); /* gate and recorder, twice */
    CS_CHECK(line("gate/0", "ring 0", 2, &pid, &back));
    CS_EQ_U64(count("log", "peer gate 1"), 1);
    CS_CHECK(strstr(get("err"), "signal 9") != NULL);
    CS_CHECK(kill(other, 0) == 0 && kill(control, 0) == 0);
    down();
    clean();
}

/* The epochs that a role's ring lines name, in order. */
static unsigned rings_of(const char *name, uint64_t *ret, unsigned max)
{
    unsigned n = 0;
    for (const char *p = get("log"); *p != 0; p = strchr(p, '\n') + 1) {
        unsigned long long ms = 0, gate = 0, epoch = 0;
        char who[40];
        int pid = 0;
        if (sscanf(p, "%llu %39s %d ring %llu %llx", &ms, who, &pid, &gate, &epoch) == 5 &&
            strcmp(who, name) == 0 && n < max) {
            ret[n++] = epoch;
        }
    }
    return n;
}

CS_TEST(serve_gives_a_restarted_recorder_the_same_rings)
{
    uint64_t at_gate[8], at_recorder[8];
    scratch("good 1");
    up("1");
    CS_CHECK(kill(pid_of("gate/0", 1), SIGKILL) == 0);
    (void)pid_of("gate/0", 2);
    await("log", " ring ", 4);
    int gate = pid_of("gate/0", 2);
    CS_CHECK(kill(pid_of("recorder", 1), SIGKILL) == 0);
    (void)pid_of("recorder", 2);
    await("log", " ring ", 6);
    CS_EQ_U64(rings_of("gate/0", at_gate, 8), 2);
    CS_EQ_U64(rings_of("recorder", at_recorder, 8), 4);
    /* The dead gate's first, then the one in use: both are still there to be drained. */
    CS_EQ_U64(at_recorder[0], at_gate[0]);
    CS_EQ_U64(at_recorder[1], at_gate[1]);
    CS_EQ_U64(at_recorder[2], at_gate[0]);
    CS_EQ_U64(at_recorder[3], at_gate[1]);
    CS_CHECK(kill(gate, 0) == 0);
    down();
    clean();
}

CS_TEST(serve_joins_a_restarted_control_with_everybody)
{
    scratch("good 1");
    up("2");
    await("log", "peer front 0", 1);
    int gate = pid_of("gate/0", 1), front = pid_of("front", 1);
    /* Each process writes its own lines: what one has seen says nothing of the others. */
    await("log", "peer control 0", 7);
    await("log", "peer gate 0", 1);
    await("log", "peer gate 1", 1);
    CS_CHECK(kill(pid_of("control", 1), SIGKILL) == 0);
    (void)pid_of("control", 2);
    await("log", "peer control 0", 14);
    await("log", "peer front 0", 2);
    await("log", "peer gate 0", 2);
    await("log", "peer gate 1", 2);
    CS_EQ_U64(count("log", "peer control 0"), 14);
    CS_EQ_U64(count("log", "gates=keep"), 1);
    CS_CHECK(kill(gate, 0) == 0 && kill(front, 0) == 0);
    down();
    clean();
}

CS_TEST(serve_backs_off_from_a_role_that_keeps_dying)
{
    scratch("good 1");
    up("1");
    int gate = pid_of("gate/0", 1);
    put("gate-0.die", "");
    CS_CHECK(kill(gate, SIGKILL) == 0);
    (void)usleep(1700000); /* at 0, 0.1, 0.3, 0.7, 1.5 s */
    unsigned starts = count("err", "role=gate/0");
    CS_CHECK(starts >= 3 && starts <= 7);
    CS_CHECK(unlink("gate-0.die") == 0);
    (void)pid_of("gate/0", 2); /* and comes back when it can */
    down();
    clean();
}

CS_TEST(serve_kills_a_role_that_breaks_the_message_table)
{
    scratch("good 1");
    up("1");
    int gate = pid_of("gate/0", 1);
    put("gate-0.garbage", "");
    CS_CHECK(kill(gate, SIGKILL) == 0);
    (void)pid_of("gate/0", 3);
    CS_EQ_U64(count("err", "ipc-broken role=gate/0"), 1);
    down();
    clean();
}

CS_TEST(serve_killed_takes_everybody_with_it)
{
    static const char *const names[] = {"recorder", "control", "front", "gate/0"};
    int pids[4];
    scratch("good 1");
    up("1");
    for (size_t i = 0; i < 4; i++) {
        pids[i] = pid_of(names[i], 1);
    }
    CS_CHECK(kill(server, SIGKILL) == 0);
    CS_EQ_U64(ended(), 1000 + SIGKILL);
    for (size_t i = 0; i < 4; i++) {
        for (int ms = 0; kill(pids[i], 0) == 0; ms += 10) {
            char stat_path[40];
            (void)snprintf(stat_path, sizeof stat_path, "/proc/%d/stat", pids[i]);
            if (strstr(get(stat_path), ") Z ") != NULL) {
                break; /* dead; whoever is init here has not looked yet */
            }
            CS_CHECK(ms < PATIENCE_MS);
            (void)usleep(10000);
        }
    }
    clean();
}

CS_TEST(serve_told_twice_to_stop_does_not_wait)
{
    scratch("good 1");
    up("1");
    put("gate-0.hang", "");
    put("recorder.hang", "");
    CS_CHECK(kill(server, SIGTERM) == 0);
    CS_CHECK(kill(server, SIGTERM) == 0); /* at once: the same order, said twice */
    await("log", "shutdown", 1);
    (void)usleep(1100000);
    CS_EQ_U64(count("err", "at_once=yes"), 0);
    CS_CHECK(kill(server, SIGINT) == 0);
    CS_EQ_U64(ended(), 0);
    CS_CHECK(strstr(get("err"), "at_once=yes") != NULL);
    clean();
}

/* ---- reload ---- */

CS_TEST(serve_hands_out_a_new_configuration)
{
    scratch("good 1");
    up("1");
    put("c.yaml", "warn 2");
    CS_CHECK(kill(server, SIGHUP) == 0);
    await("log", "snapshot 2", 3);
    (void)event("gate/0", "snapshot 2");
    (void)event("front", "snapshot 2");
    (void)event("control", "snapshot 2");
    CS_EQ_U64(count("err", "config-warning"), 1);
    /* One that dies later starts with the new one. */
    CS_CHECK(kill(pid_of("gate/0", 1), SIGKILL) == 0);
    await("log", "snapshot 2", 4);
    down();
    clean();
}

CS_TEST(serve_keeps_the_old_configuration_when_the_new_one_is_wrong)
{
    scratch("good 1");
    up("1");
    put("c.yaml", "bad 2");
    CS_CHECK(kill(server, SIGHUP) == 0);
    await("err", "reload-failed", 2);
    put("ask-reload", "");
    await("log", "reloaded invalid 1 c.yaml:1:1: error", 1);
    put("c.yaml", "silent");
    put("ask-reload", "");
    await("log", "reloaded unavailable 1", 1);
    CS_EQ_U64(count("log", "snapshot 2"), 0);
    put("c.yaml", "good 3 127.0.0.1:1");
    put("ask-reload", "");
    await("log",
          "reloaded ok 3 warning: postgres changes from \"127.0.0.1:0\" to \"127.0.0.1:1\" "
          "only with a restart",
          1);
    await("log", "snapshot 3", 3);
    down();
    clean();
}

/* ---- questions ---- */

CS_TEST(serve_answers_control)
{
    scratch("good 1");
    up("1");
    CS_CHECK(kill(pid_of("gate/0", 1), SIGKILL) == 0);
    int gate = pid_of("gate/0", 2);
    char part[200];
    (void)usleep(100000);
    put("ask-status", "");
    await("log", "status_is {\"version\": \"", 1);
    (void)snprintf(
        part, sizeof part,
        "{\"role\": \"gate\", \"index\": 0, \"pid\": %d, \"ready\": true, \"restarts\": 1, ", gate);
    (void)place(part);
    (void)place("\"record\": \"healthy\"");
    (void)place("\"configuration\": \"0000000000000001\"");
    put("ask-replay", "");
    await("log", "replayed ok ok: {\"frames\": []}", 1);
    (void)place("recordings abababababababababababababababab");
    put("ask-unknown", "");
    await("log", "replayed not-found nothing there: ", 1);
    down();
    clean();
}
