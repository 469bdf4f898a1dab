/* The sandbox from inside: what a role may still do, what it dies of, which files it reaches. Each
 * attempt in a child of its own, because there is no way back. What a hostile gate and front try is
 * in tests/attack/. */
#include "base/time.h"
#include "runtime/sandbox.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WALLED = 90, NOT_ENTERED = 91 };

static char own[64], file[96], other[96];

static bool make_files(void)
{
    (void)snprintf(own, sizeof own, "/tmp/countersign-sandbox-XXXXXX");
    if (mkdtemp(own) == NULL) {
        return false;
    }
    (void)snprintf(file, sizeof file, "%s/inside", own);
    (void)snprintf(other, sizeof other, "%s-outside", own);
    int a = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    int b = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    bool ok = a >= 0 && b >= 0;
    (void)close(a);
    (void)close(b);
    return ok;
}

static void drop_files(void)
{
    (void)unlink(file);
    (void)unlink(other);
    (void)rmdir(own);
}

/* How a child ends that enters `role` and then calls fn: its exit status, or 128 + its signal. */
static int end_of(enum cs_sandbox role, enum cs_sandbox_access access, int (*fn)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        const struct cs_sandbox_path paths[] = {{own, access}};
        bool alone = role == CS_SANDBOX_GATE || role == CS_SANDBOX_FRONT ||
                     role == CS_SANDBOX_PROBE || role == CS_SANDBOX_PARSER;
        _exit(cs_sandbox_enter(role, paths, alone ? 0 : 1) == CS_OK ? fn() : NOT_ENTERED);
    }
    (void)waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int opens(const char *path, int flags)
{
    return open(path, flags | O_CLOEXEC, 0600) >= 0 ? 0 : errno == EACCES ? WALLED : 1;
}

static int reads_own(void)
{
    return opens(file, O_RDONLY);
}

static int writes_own(void)
{
    return opens(file, O_RDWR | O_TRUNC);
}

static int reads_other(void)
{
    return opens(other, O_RDONLY);
}

static int writes_other(void)
{
    return opens(other, O_WRONLY);
}

static int makes_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : 1;
}

static int makes_process(void)
{
    return fork() >= 0 ? 0 : 1;
}

static int runs_program(void)
{
    (void)execl("/bin/true", "true", NULL);
    return 1;
}

static int maps_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
           MAP_FAILED;
}

static int maps_writable_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0) == MAP_FAILED;
}

static void *nothing(void *arg)
{
    return arg;
}

static int starts_thread(void)
{
    pthread_t t;
    return pthread_create(&t, NULL, nothing, NULL) == 0 ? pthread_join(t, NULL) : 1;
}

static int daily_work(void)
{
    char when[CS_TIME_TEXT];
    struct stat st;
    void *p = malloc(1 << 20);
    bool ok = p != NULL && cs_time_text(cs_wall_ms(), when)[0] != 0 && cs_fstat(2, &st) == 0;
    free(p);
    return ok ? 0 : 1;
}

static int aborts(void)
{
    abort();
}

#define KILLED (128 + SIGSYS)
#define W      CS_SANDBOX_WRITE

CS_TEST(sandbox_needs_a_role_and_gives_gate_and_front_no_files)
{
    const struct cs_sandbox_path paths[] = {{"/", CS_SANDBOX_READ}};
    CS_EQ_U64(cs_sandbox_enter(CS_SANDBOX_NONE, NULL, 0), CS_ERR_INVALID);
    CS_EQ_U64(cs_sandbox_enter(CS_SANDBOX_MAX, NULL, 0), CS_ERR_INVALID);
    CS_EQ_U64(cs_sandbox_enter(CS_SANDBOX_GATE, paths, 1), CS_ERR_INVALID);
    CS_EQ_U64(cs_sandbox_enter(CS_SANDBOX_FRONT, paths, 1), CS_ERR_INVALID);
    CS_EQ_U64(cs_sandbox_enter(CS_SANDBOX_PARSER, paths, 1), CS_ERR_INVALID);
}

CS_TEST(sandbox_leaves_the_daily_work)
{
    for (int role = CS_SANDBOX_GATE; role < CS_SANDBOX_MAX; role++) {
        CS_EQ_U64(end_of((enum cs_sandbox)role, W, daily_work), 0);
    }
}

CS_TEST(sandbox_keeps_processes_programs_and_code_from_every_role)
{
    if (cs_sandbox_is_off()) {
        return;
    }
    for (int role = CS_SANDBOX_GATE; role < CS_SANDBOX_MAX; role++) {
        CS_EQ_U64(end_of((enum cs_sandbox)role, W, makes_process), KILLED);
        CS_EQ_U64(end_of((enum cs_sandbox)role, W, runs_program), KILLED);
        CS_EQ_U64(end_of((enum cs_sandbox)role, W, maps_writable_code), KILLED);
        CS_EQ_U64(end_of((enum cs_sandbox)role, W, aborts), 128 + SIGABRT);
        if (role != CS_SANDBOX_DIALER) {
            CS_EQ_U64(end_of((enum cs_sandbox)role, W, makes_socket), KILLED);
            CS_EQ_U64(end_of((enum cs_sandbox)role, W, maps_code), KILLED);
        }
        if (role != CS_SANDBOX_DIALER && role != CS_SANDBOX_CONTROL &&
            role != CS_SANDBOX_RECORDER) {
            CS_EQ_U64(end_of((enum cs_sandbox)role, W, starts_thread), KILLED);
        }
    }
    CS_EQ_U64(end_of(CS_SANDBOX_CONTROL, W, starts_thread), 0);
    CS_EQ_U64(end_of(CS_SANDBOX_DIALER, W, starts_thread), 0);
    CS_EQ_U64(end_of(CS_SANDBOX_RECORDER, W, starts_thread), 0);
    CS_EQ_U64(end_of(CS_SANDBOX_DIALER, W, makes_socket), 0);
}

CS_TEST(sandbox_gives_files_as_told_and_none_to_gate_and_front)
{
    if (cs_sandbox_is_off()) {
        return;
    }
    CS_CHECK(make_files());
    int walled = cs_sandbox_landlock() > 0 ? WALLED : 0;
    CS_EQ_U64(end_of(CS_SANDBOX_GATE, W, reads_own), KILLED);
    CS_EQ_U64(end_of(CS_SANDBOX_FRONT, W, reads_own), KILLED);
    CS_EQ_U64(end_of(CS_SANDBOX_RECORDER, W, writes_own), 0);
    CS_EQ_U64(end_of(CS_SANDBOX_RECORDER, W, reads_other), walled);
    CS_EQ_U64(end_of(CS_SANDBOX_RECORDER, W, writes_other), walled);
    CS_EQ_U64(end_of(CS_SANDBOX_CONTROL, W, writes_own), 0);
    CS_EQ_U64(end_of(CS_SANDBOX_CONTROL, W, reads_other), walled);
    CS_EQ_U64(end_of(CS_SANDBOX_CONTROL, CS_SANDBOX_READ, reads_own), 0);
    CS_EQ_U64(end_of(CS_SANDBOX_CONTROL, CS_SANDBOX_READ, writes_own), walled);
    CS_EQ_U64(end_of(CS_SANDBOX_JOB, CS_SANDBOX_READ, reads_own), 0);
    CS_EQ_U64(end_of(CS_SANDBOX_JOB, CS_SANDBOX_READ, reads_other), walled);
    CS_EQ_U64(end_of(CS_SANDBOX_JOB, CS_SANDBOX_READ, writes_own), KILLED);
    drop_files();
}

CS_TEST(sandbox_is_seen_from_outside)
{
    int up[2], down[2];
    char c = 0;
    CS_CHECK(pipe(up) == 0 && pipe(down) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        bool in = cs_sandbox_enter(CS_SANDBOX_GATE, NULL, 0) == CS_OK;
        (void)!write(up[1], in ? "y" : "n", 1);
        (void)close(down[1]);
        (void)!read(down[0], &c, 1);
        _exit(0);
    }
    (void)close(down[0]);
    CS_CHECK(read(up[0], &c, 1) == 1 && c == 'y');
    struct cs_sandbox_seen seen = cs_sandbox_look(pid), none = cs_sandbox_look(-1);
    CS_CHECK(seen.seccomp == (cs_sandbox_is_off() ? 0 : 2));
    CS_CHECK(seen.no_new_privs);
    CS_CHECK(none.seccomp == -1);
    CS_CHECK(!none.no_new_privs);
    (void)close(down[1]);
    (void)waitpid(pid, NULL, 0);
    (void)close(up[0]);
    (void)close(up[1]);
}
