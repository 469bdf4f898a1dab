/* The walls that the kernel keeps around a role: no new rights by exec, only the system calls of
 * sandbox.def (seccomp; anything else kills the process), only the files it is given (Landlock), no
 * children. Entered once, by the role itself, before it reads a byte that others wrote.
 *
 * seccomp is mandatory: a role that cannot enter must not go on. Landlock is too where the kernel
 * has it; where it has none, cs_sandbox_landlock() says 0 and the supervisor says so aloud. */
#ifndef CS_RUNTIME_SANDBOX_H
#define CS_RUNTIME_SANDBOX_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct stat;

enum cs_sandbox {
    CS_SANDBOX_NONE, /* refused */
    CS_SANDBOX_GATE,
    CS_SANDBOX_FRONT,
    CS_SANDBOX_CONTROL,
    CS_SANDBOX_RECORDER,
    CS_SANDBOX_JOB,
    CS_SANDBOX_KEEPER,
    CS_SANDBOX_DIALER,
    CS_SANDBOX_PROBE,
    CS_SANDBOX_PARSER,
    CS_SANDBOX_MAX
};
enum cs_sandbox_access { CS_SANDBOX_READ, CS_SANDBOX_WRITE };

/* A file, or a directory and all below it. One that does not exist gives nothing. */
struct cs_sandbox_path {
    const char *path;
    enum cs_sandbox_access access;
};

/* For good, for this thread and those it starts: there must be no other one yet. Gate, front,
 * probe and parser have no paths. On failure the process is partly confined and must end; errno is
 * kept. In a build with AddressSanitizer only no_new_privs is set: its run-time library opens files
 * and makes processes of its own. */
enum cs_err cs_sandbox_enter(enum cs_sandbox role, const struct cs_sandbox_path *paths,
                             size_t n_paths) CS_MUST_CHECK;
/* What this kernel has of Landlock: its ABI, 0 = none. */
int cs_sandbox_landlock(void);
/* What a word of COUNTERSIGN_SANDBOX would have roles do: true when calls outside the table are
 * only written to the kernel's log and let through. Possible only in builds with -Dsandbox_report.
 */
bool cs_sandbox_reports(void);
/* True in a build whose roles only set no_new_privs, because of its sanitizer. */
bool cs_sandbox_is_off(void);
/* What the kernel says of a process: seccomp's mode (2 = a filter, -1 = unknown), no_new_privs. */
struct cs_sandbox_seen {
    int seccomp;
    bool no_new_privs;
};
struct cs_sandbox_seen cs_sandbox_look(pid_t pid);
/* fstat by the system call that takes no path: libc's goes through one that does, which the
 * strictest sandboxes do not permit. */
int cs_fstat(int fd, struct stat *ret);

/* Called at the end of cs_sandbox_enter where somebody defines it: the attack build does
 * (tests/attack/), no program that is installed does. */
__attribute__((weak, visibility("hidden"))) void cs_sandbox_entered(enum cs_sandbox role);

#endif
