/* Work that blocks or computes for long, on a helper thread: name look-ups, key derivation with as
 * many rounds as a target asks for. The loop must never do either. One thread and a small queue per
 * struct cs_slow. */
#ifndef CS_CONTROL_SLOW_H
#define CS_CONTROL_SLOW_H

#include "base/err.h"
#include "runtime/loop.h"

enum { CS_SLOW_QUEUE = 64 };

struct cs_slow;

/* Starts the thread and a coroutine that hears of its results. */
enum cs_err cs_slow_new(struct cs_loop *loop, struct cs_slow **ret) CS_MUST_CHECK;
/* Runs fn(arg) on the thread and waits for it in a coroutine. On CS_OK `arg` is the caller's again;
 * on every other result drop(arg) has been or will be called by whoever holds it last, and the
 * caller must not touch it any more. LIMIT: too much waits; TIMEOUT, CANCELLED, NO_MEMORY. */
enum cs_err cs_slow_call(struct cs_slow *s, void (*fn)(void *arg), void (*drop)(void *arg),
                         void *arg, uint64_t deadline_ns) CS_MUST_CHECK;
/* No call may be waiting in a coroutine any more. A thread that is at work (it may hang inside the
 * C library) is left behind, with what it uses: the process is about to end. False then. NULL is
 * fine. */
bool cs_slow_free(struct cs_slow *s);

#endif
