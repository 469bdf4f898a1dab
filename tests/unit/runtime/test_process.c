#include "runtime/process.h"
#include "runtime/sock.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static struct cs_loop *loop;

static void spawn(cs_co_fn fn, void *arg)
{
    cs_handle h;
    CS_CHECK(cs_co_spawn(loop, "test", fn, arg, &h) == CS_OK);
}

static void run(cs_co_fn fn, void *arg)
{
    loop = cs_loop_new();
    CS_CHECK(loop != NULL);
    spawn(fn, arg);
    cs_loop_run(loop);
    cs_loop_free(loop);
    CS_EQ_U64(cs_alloc_live(), 0);
}

static size_t read_all(int fd, char *out, size_t cap)
{
    size_t n = 0;
    ssize_t got;
    while ((got = read(fd, out + n, cap - 1 - n)) > 0) {
        n += (size_t)got;
    }
    out[n] = 0;
    return n;
}

/* Runs a shell line with these descriptors as 3, 4, … and gives its exit status. */
static int shell(const char *line, const int *fds, size_t n)
{
    const char *argv[] = {"sh", "-c", line, NULL};
    pid_t pid;
    CS_CHECK(cs_process_start("/bin/sh", argv, fds, n, &pid) == CS_OK);
    int status;
    CS_CHECK(waitpid(pid, &status, 0) == pid);
    CS_CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

CS_TEST(child_gets_its_descriptors_in_order_and_no_other)
{
    int p[2], q[2];
    CS_CHECK(pipe(p) == 0 && pipe(q) == 0); /* not close-on-exec, on purpose */
    int fds[2] = {q[1], p[1]};
    char out[64];
    CS_EQ_U64(shell("echo three >&3; echo four >&4; read x && exit 9; ls /proc/self/fd | wc -l >&3",
                    fds, 2),
              0);
    (void)close(p[1]);
    (void)close(q[1]);
    read_all(p[0], out, sizeof out);
    CS_EQ_STR(cs_slice_str(out), "four\n");
    read_all(q[0], out, sizeof out);
    /* ls has 0 to 4 (its 1 is the pipe to wc) and the directory it reads */
    CS_EQ_STR(cs_slice_str(out), "three\n6\n");
}

CS_TEST(overlapping_descriptor_numbers_are_not_mixed_up)
{
    int p[2], q[2];
    CS_CHECK(pipe(p) == 0 && pipe(q) == 0);
    /* put the ends where the targets are, crosswise */
    CS_CHECK(dup2(p[0], 20) == 20 && dup2(q[0], 21) == 21 && dup2(p[1], 22) == 22 &&
             dup2(q[1], 23) == 23);
    for (int fd = 3; fd < 20; fd++) {
        (void)close(fd);
    }
    CS_CHECK(dup2(22, 4) == 4 && dup2(23, 3) == 3);
    (void)close(22);
    (void)close(23);
    int fds[2] = {4, 3};
    CS_EQ_U64(shell("echo p >&3; echo q >&4", fds, 2), 0);
    (void)close(3);
    (void)close(4);
    char out[16];
    read_all(20, out, sizeof out);
    CS_EQ_STR(cs_slice_str(out), "p\n");
    read_all(21, out, sizeof out);
    CS_EQ_STR(cs_slice_str(out), "q\n");
}

CS_TEST(same_descriptor_can_be_given_twice)
{
    int p[2];
    CS_CHECK(pipe2(p, O_CLOEXEC) == 0);
    int fds[3] = {p[1], p[1], p[1]};
    CS_EQ_U64(shell("echo a >&3; echo b >&4; echo c >&5", fds, 3), 0);
    (void)close(p[1]);
    char out[16];
    read_all(p[0], out, sizeof out);
    CS_EQ_STR(cs_slice_str(out), "a\nb\nc\n");
}

CS_TEST(environment_holds_only_what_is_listed)
{
    int p[2];
    CS_CHECK(pipe2(p, O_CLOEXEC) == 0);
    CS_CHECK(setenv("SECRET", "x", 1) == 0 && setenv("TZ", "UTC", 1) == 0);
    CS_EQ_U64(shell("echo \"[$SECRET][$TZ]\" >&3; test -n \"$PATH\"", &p[1], 1), 0);
    (void)close(p[1]);
    char out[64];
    read_all(p[0], out, sizeof out);
    CS_EQ_STR(cs_slice_str(out), "[][UTC]\n");
}

CS_TEST(missing_program_is_reported_by_the_start)
{
    const char *argv[] = {"x", NULL};
    pid_t pid = -7;
    CS_CHECK(cs_process_start("/does/not/exist", argv, NULL, 0, &pid) == CS_ERR_NOT_FOUND);
    CS_CHECK(cs_process_start("/etc/passwd", argv, NULL, 0, &pid) == CS_ERR_DENIED);
    CS_CHECK(pid == -7);
    int bad = 9999;
    CS_CHECK(cs_process_start("/bin/true", argv, &bad, 1, &pid) != CS_OK);
    CS_CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD); /* no zombie */
}

CS_TEST(signals_that_we_block_are_not_blocked_in_the_child)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    CS_CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    CS_CHECK(signal(SIGTERM, SIG_IGN) != SIG_ERR);
    const char *argv[] = {"sh", "-c", "kill -TERM $$; exit 0", NULL};
    pid_t pid;
    CS_CHECK(cs_process_start("/bin/sh", argv, NULL, 0, &pid) == CS_OK);
    int status;
    CS_CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
}

static void watch(void *arg)
{
    const char *line = arg;
    const char *argv[] = {"sh", "-c", line, NULL};
    pid_t pid;
    CS_CHECK(cs_process_start("/bin/sh", argv, NULL, 0, &pid) == CS_OK);
    struct cs_fd f;
    char why[64];
    bool clean = false;
    CS_CHECK(cs_process_watch(loop, pid, &f) == CS_OK);
    CS_CHECK(!cs_process_reap(pid, why, sizeof why, &clean));
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &f);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 5 * CS_NS_PER_S) == CS_WOKE_READY);
    CS_CHECK(cs_process_reap(pid, why, sizeof why, &clean));
    printf("# %s\n", why);
    if (strstr(line, "kill") != NULL) {
        CS_CHECK(!clean && strstr(why, "signal 9 (Killed)") != NULL);
    } else if (strstr(line, "exit 3") != NULL) {
        CS_CHECK(!clean && strcmp(why, "exit status 3") == 0);
    } else {
        CS_CHECK(clean && strcmp(why, "exit status 0") == 0);
    }
    CS_CHECK(cs_process_reap(pid, why, sizeof why, &clean) && !clean); /* not twice */
    cs_fd_close(&f);
}

CS_TEST(death_of_a_child_is_heard_with_its_reason)
{
    static char kill9[] = "sleep 0.05; kill -9 $$", exit3[] = "sleep 0.05; exit 3",
                fine[] = "sleep 0.05";
    run(watch, kill9);
    run(watch, exit3);
    run(watch, fine);
}

CS_TEST(child_dies_with_its_parent)
{
    int p[2];
    CS_CHECK(pipe2(p, O_CLOEXEC) == 0);
    fflush(NULL);
    pid_t middle = fork();
    if (middle == 0) {
        const char *argv[] = {"sleep", "100", NULL};
        pid_t pid;
        CS_CHECK(cs_process_start("/bin/sleep", argv, &p[1], 1, &pid) == CS_OK);
        _exit(0);
    }
    CS_CHECK(waitpid(middle, NULL, 0) == middle);
    (void)close(p[1]);
    struct pollfd pfd = {p[0], POLLIN, 0};
    CS_CHECK(poll(&pfd, 1, 5000) == 1 && (pfd.revents & POLLHUP) != 0);
}

static void hears(void *arg)
{
    (void)arg;
    struct cs_fd f;
    int signals[] = {SIGTERM, SIGHUP};
    CS_CHECK(cs_signals_open(loop, signals, 2, &f) == CS_OK);
    CS_EQ_U64(cs_signals_next(&f), 0);
    CS_CHECK(kill(getpid(), SIGHUP) == 0);
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &f);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 5 * CS_NS_PER_S) == CS_WOKE_READY);
    CS_EQ_U64(cs_signals_next(&f), SIGHUP);
    CS_EQ_U64(cs_signals_next(&f), 0);
    CS_CHECK(!f.readable);
    CS_CHECK(kill(getpid(), SIGTERM) == 0);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 5 * CS_NS_PER_S) == CS_WOKE_READY);
    CS_EQ_U64(cs_signals_next(&f), SIGTERM);
    cs_fd_close(&f);
    int wrong = 9999;
    CS_CHECK(cs_signals_open(loop, &wrong, 1, &f) == CS_ERR_INVALID && f.fd == -1);
}

CS_TEST(signals_come_through_the_loop)
{
    run(hears, NULL);
}

CS_TEST(hardened_process_leaves_no_core_and_survives_sigpipe)
{
    cs_process_harden();
    struct rlimit rl;
    CS_CHECK(getrlimit(RLIMIT_CORE, &rl) == 0 && rl.rlim_cur == 0 && rl.rlim_max == 0);
#if !defined(__SANITIZE_ADDRESS__)
    CS_EQ_U64(prctl(PR_GET_DUMPABLE), 0);
#endif
    int sig = 0;
    CS_CHECK(prctl(PR_GET_PDEATHSIG, &sig) == 0 && sig == SIGKILL);
    int p[2];
    CS_CHECK(pipe2(p, O_CLOEXEC) == 0);
    (void)close(p[0]);
    CS_CHECK(write(p[1], "x", 1) == -1 && errno == EPIPE);
}

CS_TEST(close_on_exec_can_be_switched)
{
    int p[2];
    CS_CHECK(pipe2(p, O_CLOEXEC) == 0);
    cs_fd_cloexec(p[0], false);
    CS_CHECK((fcntl(p[0], F_GETFD) & FD_CLOEXEC) == 0);
    cs_fd_cloexec(p[0], true);
    CS_CHECK((fcntl(p[0], F_GETFD) & FD_CLOEXEC) != 0);
    cs_fd_cloexec(-1, true);
}
