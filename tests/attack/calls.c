/* Every system call by which code that has taken over a gate or a front could leave its process.
 * Made raw, so that no library is in the way. A call that comes back at all, even with an error, is
 * a finding. */
#include "attack.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N(x) ((const void *)(uintptr_t)(x))
enum { SUPERVISOR = 0x7001, MEMFD = 0x7002, COME_BACK = 77, REFUSED = 78, X32 = 0x40000000 };

struct call {
    const char *name;
    long nr;
    const void *arg[6];
};

static const struct sockaddr_in somewhere = {.sin_family = AF_INET};
static const char *const no_args[] = {"sh", NULL};
static char room[4096];
static struct iovec piece = {room, sizeof room};
static struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};

static const struct call calls[] = {
    {"open", SYS_open, {"/etc/passwd", N(O_RDONLY)}},
    {"openat", SYS_openat, {N(AT_FDCWD), "/etc/passwd", N(O_RDONLY)}},
    {"openat own descriptor", SYS_openat, {N(AT_FDCWD), "/proc/self/fd/3", N(O_RDWR)}},
    {"openat own memory", SYS_openat, {N(AT_FDCWD), "/proc/self/mem", N(O_RDWR)}},
    {"openat2", SYS_openat2, {N(AT_FDCWD), "/etc/passwd", room, N(24)}},
    {"open_by_handle_at", SYS_open_by_handle_at, {N(AT_FDCWD), room, N(0)}},
    {"creat", SYS_creat, {"/tmp/attack", N(0600)}},
    {"stat", SYS_stat, {"/etc/passwd", room}},
    {"newfstatat", SYS_newfstatat, {N(AT_FDCWD), "/etc/passwd", room, N(0)}},
    {"statx", SYS_statx, {N(AT_FDCWD), "/etc/passwd", N(0), N(0), room}},
    {"access", SYS_access, {"/etc/passwd", N(0)}},
    {"readlink", SYS_readlink, {"/proc/self/exe", room, N(100)}},
    {"unlink", SYS_unlink, {"/tmp/attack"}},
    {"rename", SYS_rename, {"/tmp/attack", "/tmp/attack2"}},
    {"mkdir", SYS_mkdir, {"/tmp/attack", N(0700)}},
    {"symlink", SYS_symlink, {"/etc/passwd", "/tmp/attack"}},
    {"chmod", SYS_chmod, {"/tmp", N(0777)}},
    {"chdir", SYS_chdir, {"/"}},
    {"inotify_init1", SYS_inotify_init1, {N(0)}},
    {"fanotify_init", SYS_fanotify_init, {N(0), N(0)}},
    {"ftruncate of the log", SYS_ftruncate, {N(2), N(0)}},
    {"lseek of the log", SYS_lseek, {N(2), N(0), N(0)}},
    {"socket", SYS_socket, {N(AF_INET), N(SOCK_STREAM), N(0)}},
    {"socket unix", SYS_socket, {N(AF_UNIX), N(SOCK_STREAM), N(0)}},
    {"socket netlink", SYS_socket, {N(AF_NETLINK), N(SOCK_RAW), N(0)}},
    {"socketpair", SYS_socketpair, {N(AF_UNIX), N(SOCK_STREAM), N(0), room}},
    {"connect", SYS_connect, {N(3), &somewhere, N(sizeof somewhere)}},
    {"bind", SYS_bind, {N(3), &somewhere, N(sizeof somewhere)}},
    {"listen", SYS_listen, {N(3), N(1)}},
    {"accept", SYS_accept, {N(3), N(0), N(0)}},
    {"shutdown for reading", SYS_shutdown, {N(3), N(SHUT_RDWR)}},
    {"sendto as connect", SYS_sendto, {N(3), room, N(1), N(MSG_FASTOPEN), &somewhere, N(16)}},
    {"sendmsg as connect", SYS_sendmsg, {N(3), &message, N(MSG_FASTOPEN)}},
    {"sendmmsg", SYS_sendmmsg, {N(3), &message, N(1), N(0)}},
    {"setsockopt filter", SYS_setsockopt, {N(3), N(SOL_SOCKET), N(SO_ATTACH_FILTER), room, N(16)}},
    {"setsockopt ulp", SYS_setsockopt, {N(3), N(IPPROTO_TCP), N(31), "tls", N(4)}},
    {"getsockopt of TCP", SYS_getsockopt, {N(3), N(IPPROTO_TCP), N(35), room, room + 64}},
    {"fcntl blocking", SYS_fcntl, {N(3), N(F_SETFL), N(0)}},
    {"fcntl owner", SYS_fcntl, {N(3), N(F_SETOWN), N(SUPERVISOR)}},
    {"ioctl terminal input", SYS_ioctl, {N(2), N(TIOCSTI), "x"}},
    {"execve", SYS_execve, {"/bin/sh", no_args, no_args + 1}},
    {"execveat memfd", SYS_execveat, {N(MEMFD), "", no_args, no_args + 1, N(AT_EMPTY_PATH)}},
    {"fork", SYS_fork, {NULL}},
    {"vfork", SYS_vfork, {NULL}},
    {"clone", SYS_clone, {N(SIGCHLD)}},
    {"clone thread", SYS_clone, {N(CLONE_VM | CLONE_SIGHAND | CLONE_THREAD), room + 4000}},
    {"clone3", SYS_clone3, {room, N(64)}},
    {"unshare", SYS_unshare, {N(CLONE_NEWUSER)}},
    {"setns", SYS_setns, {N(3), N(0)}},
    {"ptrace", SYS_ptrace, {N(PTRACE_ATTACH), N(SUPERVISOR)}},
    {"ptrace me", SYS_ptrace, {N(PTRACE_TRACEME)}},
    {"kill", SYS_kill, {N(SUPERVISOR), N(SIGTERM)}},
    {"tkill", SYS_tkill, {N(SUPERVISOR), N(SIGTERM)}},
    {"tgkill another", SYS_tgkill, {N(SUPERVISOR), N(SUPERVISOR), N(SIGTERM)}},
    {"rt_sigqueueinfo", SYS_rt_sigqueueinfo, {N(SUPERVISOR), N(SIGTERM), room}},
    {"pidfd_open", SYS_pidfd_open, {N(SUPERVISOR), N(0)}},
    {"pidfd_getfd", SYS_pidfd_getfd, {N(3), N(3), N(0)}},
    {"pidfd_send_signal", SYS_pidfd_send_signal, {N(3), N(SIGTERM), N(0), N(0)}},
    {"process_vm_readv", SYS_process_vm_readv, {N(SUPERVISOR), &piece, N(1), &piece, N(1), N(0)}},
    {"process_vm_writev", SYS_process_vm_writev, {N(SUPERVISOR), &piece, N(1), &piece, N(1), N(0)}},
    {"kcmp", SYS_kcmp, {N(SUPERVISOR), N(SUPERVISOR), N(0), N(0), N(0)}},
    {"prlimit64", SYS_prlimit64, {N(SUPERVISOR), N(0), N(0), room}},
    {"setpriority", SYS_setpriority, {N(0), N(SUPERVISOR), N(0)}},
    {"mmap executable",
     SYS_mmap,
     {N(0), N(4096), N(PROT_READ | PROT_EXEC), N(MAP_PRIVATE | MAP_ANONYMOUS), N(-1)}},
    {"mmap executable memfd", SYS_mmap, {N(0), N(4096), N(PROT_EXEC), N(MAP_SHARED), N(MEMFD)}},
    {"mprotect executable", SYS_mprotect, {N(0), N(4096), N(PROT_READ | PROT_EXEC)}},
    {"pkey_mprotect", SYS_pkey_mprotect, {N(0), N(4096), N(PROT_EXEC), N(-1)}},
    {"shmget", SYS_shmget, {N(0), N(4096), N(0600)}},
    {"remap_file_pages", SYS_remap_file_pages, {N(0), N(4096), N(0), N(0), N(0)}},
    {"memfd_secret", SYS_memfd_secret, {N(0)}},
    {"userfaultfd", SYS_userfaultfd, {N(0)}},
    {"io_uring_setup", SYS_io_uring_setup, {N(8), room}},
    {"io_setup", SYS_io_setup, {N(8), room}},
    {"bpf", SYS_bpf, {N(0), room, N(64)}},
    {"perf_event_open", SYS_perf_event_open, {room, N(0), N(-1), N(-1), N(0)}},
    {"keyctl", SYS_keyctl, {N(0), N(0)}},
    {"add_key", SYS_add_key, {"user", "a", "b", N(1), N(-3)}},
    {"request_key", SYS_request_key, {"user", "a", "b", N(-3)}},
    {"mount", SYS_mount, {"none", "/tmp", "tmpfs", N(0), ""}},
    {"umount2", SYS_umount2, {"/tmp", N(0)}},
    {"pivot_root", SYS_pivot_root, {"/", "/"}},
    {"chroot", SYS_chroot, {"/"}},
    {"fsopen", SYS_fsopen, {"tmpfs", N(0)}},
    {"setuid", SYS_setuid, {N(0)}},
    {"setresuid", SYS_setresuid, {N(0), N(0), N(0)}},
    {"setgroups", SYS_setgroups, {N(0), N(0)}},
    {"capset", SYS_capset, {room, room}},
    {"prctl dumpable", SYS_prctl, {N(PR_SET_DUMPABLE), N(1)}},
    {"prctl outlive", SYS_prctl, {N(PR_SET_PDEATHSIG), N(0)}},
    {"prctl tracer", SYS_prctl, {N(PR_SET_PTRACER), N(-1)}},
    {"arch_prctl", SYS_arch_prctl, {N(0x1001), room}},
    {"seccomp", SYS_seccomp, {N(1), N(0), room}},
    {"personality", SYS_personality, {N(0x0400000)}},
    {"modify_ldt", SYS_modify_ldt, {N(0), room, N(16)}},
    {"iopl", SYS_iopl, {N(3)}},
    {"init_module", SYS_init_module, {room, N(16), ""}},
    {"finit_module", SYS_finit_module, {N(3), "", N(0)}},
    {"kexec_load", SYS_kexec_load, {N(0), N(0), N(0), N(0)}},
    {"syslog", SYS_syslog, {N(3), room, N(100)}},
    {"clock_settime", SYS_clock_settime, {N(0), room}},
    {"sethostname", SYS_sethostname, {"a", N(1)}},
    {"quotactl", SYS_quotactl, {N(0), "", N(0), room}},
    {"timer_create", SYS_timer_create, {N(0), N(0), room}},
    {"splice", SYS_splice, {N(3), N(0), N(2), N(0), N(1), N(0)}},
    {"sendfile", SYS_sendfile, {N(2), N(3), N(0), N(1)}},
    {"a number of the x32 table", SYS_open | X32, {"/etc/passwd", N(O_RDONLY)}},
    {"a number that does not exist", 9999, {NULL}},
    {"open by the 32-bit entry", -1, {NULL}},
};

size_t attack_calls(void)
{
    return sizeof calls / sizeof calls[0];
}

const char *attack_call_name(size_t i)
{
    return calls[i].name;
}

static long value(const void *arg)
{
    long v = (long)(uintptr_t)arg;
    if (v == SUPERVISOR) {
        return attack_plan.supervisor;
    }
    /* A front may not even make one: it dies of that. */
    return v == MEMFD ? syscall(SYS_memfd_create, "attack", 0) : v;
}

_Noreturn void attack_call(size_t i)
{
    const struct call *c = &calls[i];
    long rc;
    if (c->nr < 0) {
        __asm__ volatile("int $0x80" : "=a"(rc) : "a"(5L), "b"(0L), "c"(0L), "d"(0L) : "memory");
    } else {
        rc = syscall(c->nr, value(c->arg[0]), value(c->arg[1]), value(c->arg[2]), value(c->arg[3]),
                     value(c->arg[4]), value(c->arg[5]));
    }
    _exit(rc < 0 ? REFUSED : COME_BACK);
}
