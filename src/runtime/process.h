/* Starting child processes and hearing of signals and deaths through the loop. */
#ifndef CS_RUNTIME_PROCESS_H
#define CS_RUNTIME_PROCESS_H

#include "base/err.h"
#include "runtime/loop.h"

#include <sys/types.h>

/* Starts `path` with argv (NULL-terminated, argv[0] included) and the given descriptors as 3, 4, …;
 * standard input is /dev/null, output and error are inherited; every other descriptor is closed.
 * The environment holds only PATH, TZ, COUNTERSIGN_LOG, COUNTERSIGN_SANDBOX, COUNTERSIGN_LIBEXEC,
 * JOURNAL_STREAM and sanitizer options. The child dies with its parent (PR_SET_PDEATHSIG) and gains
 * no rights by exec. The caller keeps its own copies of the descriptors. A program that cannot be
 * executed is an error of the start (NOT_FOUND, DENIED). */
enum cs_err cs_process_start(const char *path, const char *const argv[], const int *fds,
                             size_t n_fds, pid_t *ret_pid) CS_MUST_CHECK;
struct cs_process {
    const char *path;
    int program; /* the same, open (O_PATH): it is run whatever lies at `path` by now, but for a
                    script, which only its path can run; -1: by its path */
    const char *const *argv;
    const int *fds;
    size_t n_fds;
    uid_t uid; /* and the group of that number; 0: as cs_process_run_as says */
};
/* The same, of a program that is open, as another user. */
enum cs_err cs_process_begin(const struct cs_process *p, pid_t *ret_pid) CS_MUST_CHECK;
/* The same with no descriptors but standard output, which becomes `output`. */
enum cs_err cs_process_start_output(const char *path, const char *const argv[], int output,
                                    pid_t *ret_pid) CS_MUST_CHECK;
/* The directory of our other programs, by looking for `program` in it: COUNTERSIGN_LIBEXEC; beside
 * our own executable (a build tree); ../libexec/countersign from there. False: not there; `out` is
 * the directory that was looked into first then. */
bool cs_process_libexec(const char *program, char *out, size_t n);
/* Every process that is started from now on runs as this user and group, with no other groups. Only
 * for a process that may do so (root). */
void cs_process_run_as(uid_t uid, gid_t gid);
/* Gives up, for this process and all that it starts, every capability but those for starting others
 * as another user, ending them, making their directories and listening on low ports. */
bool cs_process_shed(void) CS_MUST_CHECK;
/* As whom they run. */
uid_t cs_process_uid(void);
/* A pidfd in the loop: becomes readable when the child has ended. */
enum cs_err cs_process_watch(struct cs_loop *loop, pid_t pid, struct cs_fd *ret) CS_MUST_CHECK;
enum { CS_WHY = 160 }; /* room for the longest reason below */
/* Reaps without waiting; false when it still runs. `why` gets "exit status 1", "signal 11
 * (Segmentation fault)". */
bool cs_process_reap(pid_t pid, char *why, size_t why_size, bool *ret_clean);
/* Blocks the given signals and gives a descriptor from which struct signalfd_siginfo are read. */
enum cs_err cs_signals_open(struct cs_loop *loop, const int *signals, size_t n,
                            struct cs_fd *ret) CS_MUST_CHECK;
/* The next signal's number, or 0 when there is none now. Never waits. */
int cs_signals_next(struct cs_fd *f);
/* What every role does first: no core file, not dumpable, dies with its parent, ignores SIGPIPE and
 * the signals that a terminal or a service manager sends to a whole group (TERM, INT, HUP, USR1,
 * USR2): those are the supervisor's to act on. */
void cs_process_harden(void);
/* Marks a descriptor close-on-exec or not. */
void cs_fd_cloexec(int fd, bool on);

#endif
