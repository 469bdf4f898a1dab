/* Children, signals, and what every role does to itself first. Between fork and exec only plain
 * system calls are made, and the child owns nothing but what it was given by number. */
#include "runtime/process.h"

#include "base/assert.h"
#include "runtime/loop_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST_FD = 3, FDS_MAX = 64, ENV_MAX = 16, ENV_BYTES = 8192 };

/* What a child may know of our environment; everything else may hold secrets. */
static const char *const env_names[] = {"PATH",
                                        "TZ",
                                        "COUNTERSIGN_LOG",
                                        "COUNTERSIGN_SANDBOX",
                                        "COUNTERSIGN_LIBEXEC",
                                        "JOURNAL_STREAM",
                                        "ASAN_OPTIONS",
                                        "UBSAN_OPTIONS",
                                        "LSAN_OPTIONS",
                                        "MSAN_OPTIONS"};
_Static_assert(CS_ARRAY_LEN(env_names) < ENV_MAX, "with the NULL behind");

static struct {
    bool set;
    uid_t uid;
    gid_t gid;
} run_as;

struct child {
    const char *path;
    int program; /* the same, open; -1: by its path */
    uid_t uid;   /* 0: as run_as says */
    const char *const *argv;
    const int *fds;
    size_t n_fds;
    char *env[ENV_MAX];
    int null_fd, error_fd;
    int output_fd; /* -1: ours */
    pid_t parent;
};

/* Static, because a coroutine's stack is small. Made before the fork. */
static bool make_environment(char *env[ENV_MAX])
{
    static char text[ENV_BYTES];
    size_t used = 0, n = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(env_names); i++) {
        const char *value = getenv(env_names[i]);
        if (value == NULL) {
            continue;
        }
        int len = snprintf(text + used, sizeof text - used, "%s=%s", env_names[i], value);
        if (len < 0 || (size_t)len >= sizeof text - used) {
            return false;
        }
        env[n++] = text + used;
        used += (size_t)len + 1;
    }
    env[n] = NULL;
    return true;
}

/* ---- in the child ---- */

static _Noreturn void child_fail(const struct child *c)
{
    int error_number = errno;
    ssize_t n = write(c->error_fd, &error_number, sizeof error_number);
    (void)n;
    _exit(127);
}

static void child_signals(const struct child *c)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++) {
        (void)sigaction(s, &dfl, NULL); /* SIGKILL and SIGSTOP say no; that is fine */
    }
    sigset_t none;
    (void)sigemptyset(&none);
    if (sigprocmask(SIG_SETMASK, &none, NULL) != 0) {
        child_fail(c);
    }
}

/* Sources and targets may overlap, so everything is first moved above all targets. */
static void child_descriptors(struct child *c)
{
    int moved[FDS_MAX];
    int above = FIRST_FD + (int)c->n_fds;
    c->error_fd = fcntl(c->error_fd, F_DUPFD_CLOEXEC, above);
    if (c->error_fd < 0) {
        _exit(127);
    }
    int null_fd = fcntl(c->null_fd, F_DUPFD_CLOEXEC, above);
    if (null_fd < 0) {
        child_fail(c);
    }
    if (c->program >= 0) {
        c->program = fcntl(c->program, F_DUPFD_CLOEXEC, above);
        if (c->program < 0) {
            child_fail(c);
        }
    }
    for (size_t i = 0; i < c->n_fds; i++) {
        moved[i] = fcntl(c->fds[i], F_DUPFD_CLOEXEC, above);
        if (moved[i] < 0) {
            child_fail(c);
        }
    }
    if (dup2(null_fd, STDIN_FILENO) < 0 ||
        (c->output_fd >= 0 && dup2(c->output_fd, STDOUT_FILENO) < 0)) {
        child_fail(c);
    }
    for (size_t i = 0; i < c->n_fds; i++) {
        if (dup2(moved[i], FIRST_FD + (int)i) < 0) {
            child_fail(c);
        }
    }
    /* SECURITY: a descriptor that leaks here is a socket or a file that the sandbox was to take
     * away. Marked instead of closed, because the report of a failed exec still has to pass. */
    if (close_range((unsigned)above, ~0u, CLOSE_RANGE_CLOEXEC) != 0) {
        child_fail(c);
    }
}

/* SECURITY: groups first, while that is still permitted; all three ids, so that no way leads back.
 */
static void child_user(const struct child *c)
{
    uid_t uid = c->uid != 0 ? c->uid : run_as.uid;
    gid_t gid = c->uid != 0 ? (gid_t)c->uid : run_as.gid;
    if ((run_as.set || c->uid != 0) && (setgroups(0, NULL) != 0 || setresgid(gid, gid, gid) != 0 ||
                                        setresuid(uid, uid, uid) != 0)) {
        child_fail(c);
    }
}

static _Noreturn void child_main(struct child *c)
{
    child_signals(c);
    child_descriptors(c);
    child_user(c); /* before PDEATHSIG, which a change of user clears */
    /* Kept by the exec: no program that it could start gives it more rights than it has. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) {
        child_fail(c);
    }
    if (getppid() != c->parent) {
        _exit(127); /* it died before the line above: nobody would tell us */
    }
    union {
        const char *const *in;
        char *const *out; /* execve's type is older than const */
    } argv = {c->argv};
    if (c->program >= 0) {
        (void)syscall(SYS_execveat, c->program, "", argv.out, c->env, AT_EMPTY_PATH);
        if (errno != ENOENT) { /* else a script: its interpreter would find the descriptor closed */
            child_fail(c);
        }
    }
    (void)execve(c->path, argv.out, c->env);
    child_fail(c);
}

/* ---- in the parent ---- */

void cs_process_run_as(uid_t uid, gid_t gid)
{
    run_as.set = true;
    run_as.uid = uid;
    run_as.gid = gid;
}

bool cs_process_shed(void)
{
    static const int kept[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,          CAP_KILL,
                               CAP_SETGID, CAP_SETUID,       CAP_NET_BIND_SERVICE};
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    uint64_t all = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(kept); i++) {
        all |= (uint64_t)1 << kept[i];
    }
    int there = 0;
    for (int cap = 0; (there = prctl(PR_CAPBSET_READ, cap, 0, 0, 0)) >= 0; cap++) {
        /* Behind an upgrade all of it was given up before, and with it the right to give up more.
         */
        if (there > 0 && (cap > 63 || (all >> cap & 1) == 0) &&
            prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) {
            return false;
        }
    }
    if (syscall(SYS_capget, &head, data) != 0) {
        return false;
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(data); i++) {
        uint32_t mine = (uint32_t)(all >> (32 * i));
        data[i].permitted &= mine; /* whoever started us may have left out some */
        data[i].effective &= mine;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &head, data) == 0;
}

uid_t cs_process_uid(void)
{
    return run_as.set ? run_as.uid : geteuid();
}

static enum cs_err start(struct child *c, int report, pid_t *ret_pid)
{
    pid_t pid = fork();
    if (pid < 0) {
        enum cs_err err = cs_err_from_errno(errno);
        (void)close(c->error_fd);
        return err;
    }
    if (pid == 0) {
        child_main(c);
    }
    (void)close(c->error_fd);
    int error_number = 0;
    ssize_t n;
    do {
        n = read(report, &error_number, sizeof error_number);
    } while (n < 0 && errno == EINTR);
    if (n != 0) { /* 0: the exec has closed it */
        (void)waitpid(pid, NULL, 0);
        errno = n == sizeof error_number ? error_number : EIO;
        return cs_err_from_errno(errno);
    }
    *ret_pid = pid;
    return CS_OK;
}

static enum cs_err start_any(struct child *c, pid_t *ret_pid)
{
    if (c->n_fds > FDS_MAX) {
        return CS_ERR_LIMIT;
    }
    if (!make_environment(c->env)) {
        return CS_ERR_TOO_LARGE;
    }
    c->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (c->null_fd < 0) {
        return cs_err_from_errno(errno);
    }
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) {
        enum cs_err err = cs_err_from_errno(errno);
        (void)close(c->null_fd);
        return err;
    }
    c->error_fd = report[1];
    enum cs_err err = start(c, report[0], ret_pid);
    int kept = errno;
    (void)close(report[0]);
    (void)close(c->null_fd);
    errno = kept;
    return err;
}

enum cs_err cs_process_start(const char *path, const char *const argv[], const int *fds,
                             size_t n_fds, pid_t *ret_pid)
{
    const struct cs_process p = {path, -1, argv, fds, n_fds, 0};
    return cs_process_begin(&p, ret_pid);
}

enum cs_err cs_process_begin(const struct cs_process *p, pid_t *ret_pid)
{
    struct child c = {.path = p->path,
                      .program = p->program,
                      .uid = p->uid,
                      .argv = p->argv,
                      .fds = p->fds,
                      .n_fds = p->n_fds,
                      .output_fd = -1,
                      .parent = getpid()};
    return start_any(&c, ret_pid);
}

enum cs_err cs_process_start_output(const char *path, const char *const argv[], int output,
                                    pid_t *ret_pid)
{
    struct child c = {
        .path = path, .program = -1, .argv = argv, .output_fd = output, .parent = getpid()};
    return start_any(&c, ret_pid);
}

static bool has_program(const char *dir, const char *program)
{
    char path[1024];
    int n = snprintf(path, sizeof path, "%s/%s", dir, program);
    return n > 0 && (size_t)n < sizeof path && access(path, X_OK) == 0;
}

bool cs_process_libexec(const char *program, char *out, size_t n)
{
    char self[512];
    const char *given = getenv("COUNTERSIGN_LIBEXEC");
    if (given != NULL) {
        (void)snprintf(out, n, "%s", given);
        return has_program(out, program);
    }
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = 0;
    char *slash = strrchr(self, '/');
    if (slash == NULL) {
        (void)snprintf(out, n, "%s", self);
        return false;
    }
    *slash = 0;
    (void)snprintf(out, n, "%s/../libexec/countersign", self);
    if (!has_program(self, program) && has_program(out, program)) {
        return true;
    }
    (void)snprintf(out, n, "%s", self);
    return has_program(out, program);
}

enum cs_err cs_process_watch(struct cs_loop *loop, pid_t pid, struct cs_fd *ret)
{
    int fd = pidfd_open(pid, 0); /* close-on-exec by definition */
    if (fd < 0) {
        *ret = (struct cs_fd){.fd = -1};
        return cs_err_from_errno(errno);
    }
    return cs_fd_open(loop, ret, fd);
}

bool cs_process_reap(pid_t pid, char *why, size_t why_size, bool *ret_clean)
{
    int status = 0;
    pid_t got;
    do {
        got = waitpid(pid, &status, WNOHANG);
    } while (got < 0 && errno == EINTR);
    if (got == 0) {
        return false;
    }
    if (got < 0) {
        (void)snprintf(why, why_size, "no such child");
        *ret_clean = false;
        return true;
    }
    if (WIFEXITED(status)) {
        (void)snprintf(why, why_size, "exit status %d", WEXITSTATUS(status));
    } else {
        (void)snprintf(why, why_size, "signal %d (%s)%s", WTERMSIG(status),
                       sigdescr_np(WTERMSIG(status)),
                       WTERMSIG(status) == SIGSYS
                           ? ": a system call that its sandbox does not permit; the kernel's log "
                             "(audit) names it"
                           : "");
    }
    *ret_clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return true;
}

/* ---- signals ---- */

enum cs_err cs_signals_open(struct cs_loop *loop, const int *signals, size_t n, struct cs_fd *ret)
{
    sigset_t set;
    *ret = (struct cs_fd){.fd = -1};
    (void)sigemptyset(&set);
    for (size_t i = 0; i < n; i++) {
        if (sigaddset(&set, signals[i]) != 0) {
            return CS_ERR_INVALID;
        }
    }
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) {
        return cs_err_from_errno(errno);
    }
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    return cs_fd_open(loop, ret, fd);
}

int cs_signals_next(struct cs_fd *f)
{
    struct signalfd_siginfo info;
    ssize_t n;
    do {
        n = read(f->fd, &info, sizeof info);
    } while (n < 0 && errno == EINTR);
    if (n != sizeof info) {
        f->readable = false;
        return 0;
    }
    return (int)info.ssi_signo;
}

/* ---- ourselves ---- */

void cs_process_harden(void)
{
    /* SECURITY: a core file or a debugger would show keys and clients' data to whoever reads files
     * or runs as the same user. */
    struct rlimit none = {0, 0};
    int rc = setrlimit(RLIMIT_CORE, &none);
    cs_assert(rc == 0);
    if (!CS_ASAN) { /* its leak check traces the process */
        rc = prctl(PR_SET_DUMPABLE, 0);
        cs_assert(rc == 0);
    }
    rc = prctl(PR_SET_PDEATHSIG, SIGKILL);
    cs_assert(rc == 0);
    /* Started by a descriptor, it would be listed under that number. */
    rc = prctl(PR_SET_NAME, program_invocation_short_name);
    cs_assert(rc == 0);
    /* A terminal's Ctrl-C and service managers signal whole groups. Only the supervisor acts on
     * that and stops its roles in order by message; a role that fell at once would lose what it
     * holds. */
    /* A disk quota or file size limit that is reached is an error of the write, not a death. */
    static const int ignored[] = {SIGPIPE, SIGXFSZ, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    struct sigaction ign = {.sa_handler = SIG_IGN};
    for (size_t i = 0; i < CS_ARRAY_LEN(ignored); i++) {
        rc = sigaction(ignored[i], &ign, NULL);
        cs_assert(rc == 0);
    }
}

void cs_fd_cloexec(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0) {
        (void)fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC);
    }
}
