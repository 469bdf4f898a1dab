/* The compile job: reads one configuration file, checks all of it, and answers with a sealed
 * snapshot or with every mistake. Started by the supervisor at start and on reload; by hand it is
 * a checker: `job-compile FILE`. It must never outlive its one task, and never sees the network.
 *
 *   argv[1]  path of the configuration file. Relative paths in the file are relative to its directory.
 *   fd 3     the job's end of a socketpair(AF_UNIX, SOCK_SEQPACKET). The job sends exactly ONE message
 *            and exits 0; the receiver should wait for it (10 s are plenty) and reap the child. No
 *            message, a second one or a malformed one means: the job failed, keep the old snapshot.
 *
 *   The message, at most 64 KiB:
 *     u64le  err      enum cs_err. 0: a snapshot is attached. CS_ERR_INVALID: the file has mistakes.
 *                     CS_ERR_NOT_FOUND, CS_ERR_IO …: it could not be read at all.
 *     u64le  version  of the snapshot (equal to its own field), 0 when err is not 0. It is the first 8
 *                     bytes of a SHA-256 over the whole content, so an unchanged file (and unchanged
 *                     files named in it) gives the same version.
 *     u32le  length   of the text, at most 60 KiB
 *     text            one line each "FILE:LINE:COL: error: sentence" or "… warning: sentence", sorted by
 *                     position, each ended by a newline; cut at a line's end if there is more. With
 *                     err = 0 it holds the warnings, if any.
 *   With err = 0, SCM_RIGHTS carries exactly one descriptor: a memfd made by cs_sealed_make() with a
 *   blob of wire/snapshot.h (cs_sealed_map() with CS_SNAPSHOT_MAX). With any other err: none.
 *
 * When fd 3 is not a socket, the text goes to standard output and the exit status is 0 (valid, maybe
 * with warnings), 1 (mistakes) or 2 (usage). */
#include <stdio.h>

int main(void)
{
    fputs("job-compile: not finished yet\n", stderr);
    return 1;
}
