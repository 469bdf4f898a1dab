/* The recorder role: reads every gate's ring, writes the journal, publishes what is durable. */
#ifndef CS_RECORD_RECORDER_H
#define CS_RECORD_RECORDER_H

#include "base/err.h"

struct cs_loop;

/* Runs the role over the channel to the supervisor `fd` (taken over). Returns the exit status: 0
 * after an ordered end with everything on disk, 1 otherwise.
 *
 * From the supervisor: BOOT with "directory=PATH" (and, for tests, "segment=BYTES") in its params,
 * one RING per gate at any time; a RING for a gate that has one already replaces it, the old one is
 * drained and closed. READY is answered when the journal is open, or when it cannot be for lack of
 * space: then every ring is STOPPED until it can. */
int cs_recorder_run(int fd);
/* The same on a loop of the caller's, one in a process; it stops the loop when it ends. */
enum cs_err cs_recorder_start(struct cs_loop *loop, int fd) CS_MUST_CHECK;

#endif
