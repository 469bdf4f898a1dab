/* A program that plays every role and job for the supervisor's tests. Its name (argv[0]) says
 * which. It works in the current directory: "log" gets a line for whatever happens to it; files
 * tell it to misbehave ("gate-0.die": exits at once; .noready: never says READY; .hang: ignores
 * SHUTDOWN; .garbage: breaks the message table once). The fake control does what files "ask-…" tell
 * it. */
#include "base/writer.h"
#include "ipc/metrics.h"
#include "runtime/process.h"
#include "wire/snapshot.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static struct {
    struct cs_loop *loop;
    struct cs_channel *supervisor;
    char name[32], file[32]; /* "gate/0", "gate-0" */
    enum cs_role role;
    unsigned got, needed; /* messages before READY */
    bool ready;
} me;

static void note(const char *fmt, ...) CS_PRINTF(1, 2);
static void note(const char *fmt, ...)
{
    char line[8192];
    va_list ap;
    int n = snprintf(line, sizeof line, "%llu %s %d ", (unsigned long long)(cs_mono_ns() / 1000000),
                     me.name, (int)getpid());
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    line[n++] = '\n';
    int fd = open("log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0 && write(fd, line, (size_t)n) == n) {
        (void)close(fd);
    }
}

static bool told(const char *what)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%s.%s", me.file, what);
    return access(path, F_OK) == 0;
}

/* ---- jobs ---- */

static void answer(struct cs_slice bytes, int memfd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    union {
        const void *in;
        void *out;
    } p = {bytes.p};
    struct iovec piece = {p.out, bytes.n};
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
    if (sendmsg(3, &m, MSG_NOSIGNAL) < 0) {
        note("cannot answer");
    }
}

static int snapshot_make(uint64_t version, const char *postgres)
{
    static char cwd[200], recordings[256], store[256], local[256], key[256];
    if (getcwd(cwd, sizeof cwd) == NULL) {
        return -1;
    }
    (void)snprintf(recordings, sizeof recordings, "%s/recordings", cwd);
    (void)snprintf(store, sizeof store, "%s/state/state.db", cwd);
    (void)snprintf(local, sizeof local, "%s/run/local.sock", cwd);
    (void)snprintf(key, sizeof key, "%s/master.key", cwd);
    struct cs_snapshot s = {.version = version,
                            .store = cs_slice_str(store),
                            .recordings = cs_slice_str(recordings),
                            .master_key = {.source = CS_KEY_FILE, .what = cs_slice_str(key)},
                            .credentials = CS_SLICE_LIT("table"),
                            .n_listeners = 3};
    s.listeners[0] = (struct cs_snapshot_listener){.name = CS_SLICE_LIT("control"),
                                                   .kind = CS_SLICE_LIT("control"),
                                                   .address = CS_SLICE_LIT("127.0.0.1:0")};
    s.listeners[1] = (struct cs_snapshot_listener){.name = CS_SLICE_LIT("local"),
                                                   .kind = CS_SLICE_LIT("local"),
                                                   .address = cs_slice_str(local)};
    s.listeners[2] = (struct cs_snapshot_listener){.name = CS_SLICE_LIT("postgres"),
                                                   .kind = CS_SLICE_LIT("postgres"),
                                                   .address = cs_slice_str(postgres)};
    struct cs_buf out = cs_buf(65536);
    int fd = -1;
    cs_snapshot_write(&out, &s);
    if (out.bad || cs_sealed_make("snapshot", cs_buf_slice(&out), &fd) != CS_OK) {
        fd = -1;
    }
    cs_buf_done(&out);
    return fd;
}

/* The file's first word: good, bad, warn, silent, hang; then a version, then postgres' address. */
static int compile(const char *path)
{
    char text[200] = "", word[20] = "", postgres[100] = "127.0.0.1:0";
    char bytes[1000];
    unsigned version = 0;
    FILE *f = fopen(path, "r");
    if (f == NULL || fgets(text, sizeof text, f) == NULL ||
        sscanf(text, "%19s %u %99s", word, &version, postgres) < 1) {
        return 1;
    }
    (void)fclose(f);
    note("compile %s", word);
    if (strcmp(word, "silent") == 0) {
        return 7;
    }
    bool bad = strcmp(word, "bad") == 0, warn = strcmp(word, "warn") == 0;
    struct cs_writer w = cs_writer(bytes, sizeof bytes);
    cs_writer_u64le(&w, bad ? CS_ERR_INVALID : CS_OK);
    cs_writer_u64le(&w, bad ? 0 : version);
    cs_writer_slice(&w,
                    bad    ? CS_SLICE_LIT("c.yaml:1:1: error: it is bad\x1b[2J\nc.yaml:2:1: error: "
                                             "and worse\n")
                    : warn ? CS_SLICE_LIT("c.yaml:3:1: warning: hm\n")
                           : CS_SLICE_NULL);
    answer(cs_writer_done(&w), bad ? -1 : snapshot_make(version, postgres));
    return 0;
}

static int replay(const char *directory, const char *session)
{
    char bytes[200];
    int fd = -1;
    bool known = strncmp(session, "00", 2) != 0;
    struct cs_writer w = cs_writer(bytes, sizeof bytes);
    note("replay %s %s", directory, session);
    cs_writer_u64le(&w, known ? CS_OK : CS_ERR_NOT_FOUND);
    cs_writer_slice(&w, known ? CS_SLICE_LIT("ok") : CS_SLICE_LIT("nothing there"));
    if (known && cs_sealed_make("r", CS_SLICE_LIT("{\"frames\": []}"), &fd) != CS_OK) {
        return 1;
    }
    answer(cs_writer_done(&w), fd);
    return 0;
}

/* ---- control's questions ---- */

static void ask_one(const char *file)
{
    struct cs_call call;
    struct cs_msg_status status = {.end_ = 0};
    struct cs_msg_reload reload = {.end_ = 0};
    struct cs_msg_replay replayed = {.end_ = 0};
    enum cs_err err = CS_ERR_INVALID;
    uint64_t until = cs_mono_ns() + 10 * CS_NS_PER_S;
    if (strcmp(file, "ask-status") == 0) {
        err = cs_channel_call(me.supervisor, CS_MSG_STATUS, &status, NULL, 0, until, &call);
    } else if (strcmp(file, "ask-reload") == 0) {
        err = cs_channel_call(me.supervisor, CS_MSG_RELOAD, &reload, NULL, 0, until, &call);
    } else {
        memset(replayed.session.b, strcmp(file, "ask-replay") == 0 ? 0xab : 0, CS_ID_BYTES);
        replayed.session.b[CS_ID_BYTES - 1] |= 1; /* all zero is the audit log */
        err = cs_channel_call(me.supervisor, CS_MSG_REPLAY, &replayed, NULL, 0, until, &call);
    }
    if (err != CS_OK) {
        note("asked %s: %s", file, cs_err_name(err));
        return;
    }
    if (call.type == CS_MSG_STATUS_IS) {
        const struct cs_msg_status_is *m = (const void *)call.msg.raw;
        note("status_is %.*s", CS_SLICE_FMT(m->json));
    } else if (call.type == CS_MSG_RELOADED) {
        const struct cs_msg_reloaded *m = (const void *)call.msg.raw;
        note("reloaded %s %llu %.*s", cs_err_name((enum cs_err)m->err),
             (unsigned long long)m->version, CS_SLICE_FMT(m->text));
    } else {
        const struct cs_msg_replayed *m = (const void *)call.msg.raw;
        struct cs_slice s = CS_SLICE_NULL;
        if (cs_sealed_map(call.fd[0], 1000, &s) != CS_OK) {
            note("replay unreadable");
        }
        note("replayed %s %.*s: %.*s", cs_err_name((enum cs_err)m->err), CS_SLICE_FMT(m->text),
             CS_SLICE_FMT(s));
    }
    cs_call_done(&call);
}

static void ask_co(void *arg)
{
    static const char *const files[] = {"ask-status", "ask-reload", "ask-replay", "ask-unknown"};
    (void)arg;
    while (cs_co_sleep(20 * CS_NS_PER_MS)) {
        for (size_t i = 0; i < CS_ARRAY_LEN(files); i++) {
            if (unlink(files[i]) == 0) {
                ask_one(files[i]);
            }
        }
    }
}

/* ---- roles ---- */

static void snapshot_seen(int fd)
{
    struct cs_slice bytes;
    struct cs_snapshot s;
    if (cs_sealed_map(fd, CS_SNAPSHOT_MAX, &bytes) == CS_OK && cs_snapshot_read(bytes, &s)) {
        note("snapshot %llu", (unsigned long long)s.version);
    } else {
        note("snapshot unreadable");
    }
}

static void maybe_ready(void)
{
    const struct cs_msg_ready m = {.end_ = 0};
    if (me.ready || me.got < me.needed || told("noready")) {
        return;
    }
    me.ready = true;
    note("ready");
    if (cs_channel_send(me.supervisor, CS_MSG_READY, 0, &m, NULL, 0) == CS_OK) {
        cs_channel_run_phase(me.supervisor);
    }
    if (told("garbage")) {
        char path[64];
        (void)snprintf(path, sizeof path, "%s.garbage", me.file);
        (void)unlink(path);
        (void)!write(3, "garbage", 7);
    }
}

static void on_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c;
    (void)arg;
    switch ((int)in->type) {
    case CS_MSG_BOOT: {
        const struct cs_msg_boot *m = in->msg;
        note("boot %s %llu %.*s", cs_role_name((enum cs_role)m->role), (unsigned long long)m->index,
             CS_SLICE_FMT(cs_slice_trim(m->params)));
        break;
    }
    case CS_MSG_SNAPSHOT:
        snapshot_seen(in->fd[0]);
        break;
    case CS_MSG_MASTER_KEY: {
        const struct cs_msg_master_key *m = in->msg;
        char bytes[64];
        note("key previous=%llu last=%llu bytes=%d", (unsigned long long)m->previous,
             (unsigned long long)m->last, (int)read(in->fd[0], bytes, sizeof bytes));
        break;
    }
    case CS_MSG_CREDENTIALS: {
        struct cs_slice bytes;
        note("credentials %d", cs_sealed_map(in->fd[0], CS_SNAPSHOT_MAX, &bytes) == CS_OK &&
                                   cs_slice_eq_str(bytes, "table"));
        break;
    }
    case CS_MSG_LISTENER:
        note("listener %.*s", CS_SLICE_FMT(((const struct cs_msg_listener *)in->msg)->name));
        break;
    case CS_MSG_PEER: {
        const struct cs_msg_peer *m = in->msg;
        note("peer %s %llu", cs_role_name((enum cs_role)m->role), (unsigned long long)m->index);
        break;
    }
    case CS_MSG_RING: {
        const struct cs_msg_ring *m = in->msg;
        note("ring %llu %llx", (unsigned long long)m->gate, (unsigned long long)m->epoch);
        break;
    }
    case CS_MSG_METRICS: {
        uint64_t *page = NULL;
        note("metrics writable=%d", cs_metrics_map(in->fd[0], &page) == CS_OK);
        cs_channel_in_close(in);
        return; /* nothing that a role needs */
    }
    case CS_MSG_METRICS_OF: {
        const struct cs_msg_metrics_of *m = in->msg;
        uint64_t *page = NULL;
        const uint64_t *own = NULL, *about = NULL;
        bool readable = cs_metrics_map_readonly(in->fd[0], &own) == CS_OK &&
                        cs_metrics_map_readonly(in->fd[1], &about) == CS_OK;
        bool writable =
            cs_metrics_map(in->fd[0], &page) == CS_OK || cs_metrics_map(in->fd[1], &page) == CS_OK;
        note("numbers of %s %llu readable=%d writable=%d", cs_role_name((enum cs_role)m->role),
             (unsigned long long)m->index, readable, writable);
        cs_channel_in_close(in);
        return;
    }
    case CS_MSG_SHUTDOWN:
        note("shutdown");
        if (!told("hang")) {
            cs_loop_stop(me.loop);
        }
        break;
    default:
        note("unexpected %s", cs_msg_name(in->type));
        break;
    }
    me.got++;
    maybe_ready();
}

static void on_gone(struct cs_channel *c, void *arg)
{
    (void)c;
    (void)arg;
    cs_loop_stop(me.loop);
}

static void role_start(const char *program, const char *name)
{
    static const struct {
        const char *program;
        enum cs_role role;
        unsigned needed; /* messages of a first start */
    } roles[] = {{"recorder", CS_ROLE_RECORDER, 1}, {"keeper", CS_ROLE_KEEPER, 3},
                 {"dialer", CS_ROLE_DIALER, 2},     {"probe", CS_ROLE_PROBE, 1},
                 {"control", CS_ROLE_CONTROL, 5},   {"front", CS_ROLE_FRONT, 5},
                 {"gate", CS_ROLE_GATE, 5}};
    (void)snprintf(me.name, sizeof me.name, "%s", name);
    (void)snprintf(me.file, sizeof me.file, "%s", name);
    for (char *p = me.file; *p != 0; p++) {
        *p = *p == '/' ? '-' : *p;
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(roles); i++) {
        if (strcmp(roles[i].program, program) == 0) {
            me.role = roles[i].role;
            me.needed = roles[i].needed;
        }
    }
}

int main(int argc, char **argv)
{
    cs_handle co;
    (void)snprintf(me.name, sizeof me.name, "%s", argv[0]);
    if (strcmp(argv[0], "job-compile") == 0 && argc == 2) {
        return compile(argv[1]);
    }
    if (strcmp(argv[0], "job-replayer") == 0 && argc == 3) {
        return replay(argv[1], argv[2]);
    }
    if (argc != 2) {
        return 2;
    }
    role_start(argv[0], argv[1]);
    note("started");
    if (told("die")) {
        return 3;
    }
    cs_process_harden();
    me.loop = cs_loop_new();
    if (cs_channel_open(me.loop, 3, me.role, CS_ROLE_SUPERVISOR, 0, on_message, on_gone, NULL,
                        &me.supervisor) != CS_OK ||
        (me.role == CS_ROLE_CONTROL && cs_co_spawn(me.loop, "ask", ask_co, NULL, &co) != CS_OK)) {
        return 1;
    }
    cs_loop_run(me.loop);
    note("ended");
    return 0;
}
