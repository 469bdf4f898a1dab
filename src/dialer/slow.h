/* Work that blocks, on a fixed pool of helper threads: name look-ups, which the loop must never
 * do. One queue per struct cs_slow. */
#ifndef CS_DIALER_SLOW_H
#define CS_DIALER_SLOW_H

#include "base/err.h"
#include "runtime/loop.h"

enum { CS_SLOW_QUEUE = 1024, CS_SLOW_THREADS = 8 };

struct cs_slow;

/* Starts 1 to CS_SLOW_THREADS threads and a coroutine that hears of their results. */
enum cs_err cs_slow_new(struct cs_loop *loop, size_t threads, struct cs_slow **ret) CS_MUST_CHECK;
/* Runs fn(arg) on a thread and waits for it in a coroutine. On CS_OK `arg` is the caller's again;
 * on every other result drop(arg) has been or will be called by whoever holds it last, and the
 * caller must not touch it any more. LIMIT: too much waits; TIMEOUT, CANCELLED, NO_MEMORY. */
enum cs_err cs_slow_call(struct cs_slow *s, void (*fn)(void *arg), void (*drop)(void *arg),
                         void *arg, uint64_t deadline_ns) CS_MUST_CHECK;
/* No call may be waiting in a coroutine any more. A thread that is at work (it may hang inside the
 * C library) is left behind, with what it uses: the process is about to end. False then. NULL is
 * fine. */
bool cs_slow_free(struct cs_slow *s);

#endif
