/* Entering a role's sandbox. The table of system calls (sandbox.def) is made into a BPF program
 * here, by hand and without a library: a page of code that runs before the role does anything.
 * Called by every role and job once. It must never succeed with less than it was asked for, except
 * for what sandbox.h says of Landlock and of sanitizers. */
#include "runtime/sandbox.h"

#include "base/assert.h"
#include "runtime/loop_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef CS_SANDBOX_REPORT
#define CS_SANDBOX_REPORT 0
#endif

bool cs_sandbox_reports(void)
{
    const char *word = CS_SANDBOX_REPORT ? getenv("COUNTERSIGN_SANDBOX") : NULL;
    return word != NULL && strcmp(word, "report") == 0;
}

int cs_fstat(int fd, struct stat *ret)
{
    return (int)syscall(SYS_fstat, fd, ret);
}

/* ---- seccomp ---- */

enum {
    G = 1,
    F = 2,
    C = 4,
    R = 8,
    J = 16,
    K = 32,
    D = 64,
    P = 128,
    S = 256,
    EACH = G | F | C | R | J | K | D | P | S
};
static const unsigned letter_of[CS_SANDBOX_MAX] = {
    [CS_SANDBOX_GATE] = G,     [CS_SANDBOX_FRONT] = F, [CS_SANDBOX_CONTROL] = C,
    [CS_SANDBOX_RECORDER] = R, [CS_SANDBOX_JOB] = J,   [CS_SANDBOX_KEEPER] = K,
    [CS_SANDBOX_DIALER] = D,   [CS_SANDBOX_PROBE] = P, [CS_SANDBOX_PARSER] = S};

enum check { CHECK_ANY, CHECK_BITS, CHECK_BITS2, CHECK_NOT_THERE };
#define OWN_PID 0xffffffffu /* stands for it in the table: no mask yields it but a whole word */

struct call {
    uint32_t nr;
    unsigned roles;
    enum check check;
    uint32_t arg, mask, value;
    uint32_t arg2, value2;
};

#define ANY                         CHECK_ANY, 0, 0, 0, 0, 0
#define NOT_THERE                   CHECK_NOT_THERE, 0, 0, 0, 0, 0
#define BITS(a, m, v)               CHECK_BITS, (a), (uint32_t)(m), (uint32_t)(v), 0, 0
#define BITS2(a, m, v, b, w)        CHECK_BITS2, (a), (uint32_t)(m), (uint32_t)(v), (b), (uint32_t)(w)
#define CS_CALL(name, roles, check) {(uint32_t)SYS_##name, (roles), check},
static const struct call calls[] = {
#include "runtime/sandbox.def"
};
#undef CS_CALL

enum { PROGRAM_MAX = 9 * CS_ARRAY_LEN(calls) + 8 };
struct program {
    struct sock_filter at[PROGRAM_MAX];
    unsigned short n;
};

static void emit(struct program *p, unsigned code, uint32_t k, unsigned jt, unsigned jf)
{
    cs_assert(p->n < PROGRAM_MAX);
    p->at[p->n++] =
        (struct sock_filter){(unsigned short)code, (unsigned char)jt, (unsigned char)jf, k};
}

static void emit_load(struct program *p, size_t offset)
{
    emit(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

/* The low word: what the table checks are ints and flags, of which the kernel looks at no more. */
static void emit_load_arg(struct program *p, uint32_t arg)
{
    emit_load(p, offsetof(struct seccomp_data, args) + 8 * (size_t)arg);
}

/* One row: on a match it returns, else the number is in the accumulator again for the next row. */
static void emit_row(struct program *p, const struct call *c)
{
    uint32_t value = c->value == OWN_PID ? (uint32_t)getpid() : c->value;
    switch (c->check) {
    case CHECK_ANY:
    case CHECK_NOT_THERE:
        emit(p, BPF_JMP | BPF_JEQ | BPF_K, c->nr, 0, 1);
        emit(p, BPF_RET | BPF_K,
             c->check == CHECK_ANY ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | ENOSYS, 0, 0);
        return;
    case CHECK_BITS:
    case CHECK_BITS2:
        break;
    }
    bool two = c->check == CHECK_BITS2;
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, c->nr, 0, two ? 7 : 5);
    emit_load_arg(p, c->arg);
    emit(p, BPF_ALU | BPF_AND | BPF_K, c->mask, 0, 0);
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, value, 0, two ? 3 : 1);
    if (two) {
        emit_load_arg(p, c->arg2);
        emit(p, BPF_JMP | BPF_JEQ | BPF_K, c->value2, 0, 1);
    }
    emit(p, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
    emit_load(p, offsetof(struct seccomp_data, nr));
}

static int seccomp_enter(unsigned letter)
{
    static struct program program; /* too large for a stack; entered once */
    struct program *p = &program;
    /* SECURITY: another architecture's numbers mean other calls; x32's are above the table's. */
    emit_load(p, offsetof(struct seccomp_data, arch));
    emit(p, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    emit(p, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    emit_load(p, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < CS_ARRAY_LEN(calls); i++) {
        if ((calls[i].roles & letter) != 0) {
            emit_row(p, &calls[i]);
        }
    }
    emit(p, BPF_RET | BPF_K, cs_sandbox_reports() ? SECCOMP_RET_LOG : SECCOMP_RET_KILL_PROCESS, 0,
         0);
    struct sock_fprog prog = {p->n, p->at};
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
    if (rc > 0) {
        errno = EBUSY; /* a thread that could not be brought in */
    }
    return rc == 0 ? 0 : -1;
}

/* ---- Landlock: numbers of our own, because the headers in use are older than the kernels ---- */

enum { LL_CREATE = 444, LL_ADD_RULE = 445, LL_RESTRICT = 446, LL_PATH_BENEATH = 1, LL_VERSION = 1 };
enum {
    FS_EXECUTE = 1 << 0,
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_READ_DIR = 1 << 3,
    FS_REMOVE_FILE = 1 << 5,
    FS_MAKE_DIR = 1 << 7,
    FS_MAKE_REG = 1 << 8,
    FS_REFER = 1 << 13,     /* ABI 2 */
    FS_TRUNCATE = 1 << 14,  /* ABI 3 */
    FS_IOCTL_DEV = 1 << 15, /* ABI 5 */
    FS_FIRST = (1 << 13) - 1,
    FS_OF_FILE = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV,
    FS_READ = FS_READ_FILE | FS_READ_DIR,
    FS_WRITE = FS_READ | FS_WRITE_FILE | FS_REMOVE_FILE | FS_MAKE_DIR | FS_MAKE_REG | FS_REFER |
               FS_TRUNCATE,
    NET_BIND = 1, /* ABI 4 */
    NET_CONNECT = 2,
    SCOPE_ABSTRACT = 1, /* ABI 6 */
    SCOPE_SIGNAL = 2,
};

struct ruleset {
    uint64_t fs, net, scoped;
};
struct path_beneath {
    uint64_t access;
    int32_t fd;
} __attribute__((packed));

int cs_sandbox_landlock(void)
{
    long abi = syscall(LL_CREATE, NULL, 0, LL_VERSION);
    return abi > 0 ? (int)abi : 0;
}

static int add_path(int ruleset, uint64_t handled, const struct cs_sandbox_path *p)
{
    struct stat st;
    struct path_beneath rule = {p->access == CS_SANDBOX_WRITE ? FS_WRITE : FS_READ,
                                open(p->path, O_PATH | O_CLOEXEC)};
    if (rule.fd < 0) {
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -1;
    }
    int rc = cs_fstat(rule.fd, &st);
    if (rc == 0) {
        rule.access &= handled & (S_ISDIR(st.st_mode) ? ~UINT64_C(0) : (uint64_t)FS_OF_FILE);
        rc = (int)syscall(LL_ADD_RULE, ruleset, LL_PATH_BENEATH, &rule, 0);
    }
    int kept = errno;
    (void)close(rule.fd);
    errno = kept;
    return rc;
}

static int landlock_enter(enum cs_sandbox role, const struct cs_sandbox_path *paths, size_t n)
{
    int abi = cs_sandbox_landlock();
    struct ruleset r = {.fs = FS_FIRST};
    size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
    if (abi == 0) {
        return 0;
    }
    r.fs |=
        (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) | (abi >= 5 ? FS_IOCTL_DEV : 0);
    r.net = NET_BIND | (role == CS_SANDBOX_DIALER ? 0 : NET_CONNECT);
    r.scoped = SCOPE_ABSTRACT | SCOPE_SIGNAL;
    int fd = (int)syscall(LL_CREATE, &r, size, 0);
    int rc = fd < 0 ? -1 : 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = add_path(fd, r.fs, &paths[i]);
    }
    if (rc == 0) {
        rc = (int)syscall(LL_RESTRICT, fd, 0);
    }
    if (fd >= 0) {
        int kept = errno;
        (void)close(fd);
        errno = kept;
    }
    return rc;
}

/* ---- all of it ---- */

/* What libraries do the first time only. libc reads the time zone's file even for UTC, which
 * OpenSSL asks for when it looks at a certificate's dates. */
static void warm_up(void)
{
    struct tm tm;
    time_t epoch = 0;
    (void)gmtime_r(&epoch, &tm);
}

enum cs_err cs_sandbox_enter(enum cs_sandbox role, const struct cs_sandbox_path *paths,
                             size_t n_paths)
{
    struct rlimit none = {0, 0};
    unsigned letter = (unsigned)role < CS_SANDBOX_MAX ? letter_of[role] : 0;
    bool alone = role == CS_SANDBOX_GATE || role == CS_SANDBOX_FRONT || role == CS_SANDBOX_PROBE ||
                 role == CS_SANDBOX_PARSER;
    if (letter == 0 || (alone && n_paths > 0)) {
        return CS_ERR_INVALID;
    }
    warm_up();
    int rc = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (rc == 0) {
        rc = setrlimit(RLIMIT_CORE, &none);
    }
    /* The limit counts threads too, for everybody but root: the recorder has one that copies. */
    bool threads =
        role == CS_SANDBOX_CONTROL || role == CS_SANDBOX_DIALER || role == CS_SANDBOX_RECORDER;
    if (rc == 0 && !CS_ASAN && !threads) {
        rc = setrlimit(RLIMIT_NPROC, &none);
    }
    if (rc == 0 && !CS_ASAN) {
        rc = landlock_enter(role, paths, n_paths);
    }
    if (rc == 0 && !CS_ASAN) {
        rc = seccomp_enter(letter);
    }
    if (rc != 0) {
        return cs_err_from_errno(errno);
    }
    if (cs_sandbox_entered != NULL) {
        cs_sandbox_entered(role);
    }
    return CS_OK;
}

/* ---- looking ---- */

bool cs_sandbox_is_off(void)
{
    return CS_ASAN;
}

static int number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at != NULL && at[strlen(name)] == '\t' ? at[strlen(name) + 1] - '0' : -1;
}

struct cs_sandbox_seen cs_sandbox_look(pid_t pid)
{
    char path[40], text[3072];
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    text[n > 0 ? n : 0] = 0;
    return (struct cs_sandbox_seen){number_after(text, "\nSeccomp:"),
                                    number_after(text, "\nNoNewPrivs:") == 1};
}
