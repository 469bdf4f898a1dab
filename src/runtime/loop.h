/* The event loop and its coroutines: one loop per process, on its main thread.
 *
 * A coroutine is straight-line code with a small guarded stack (CS_CO_STACK bytes, mostly untouched
 * pages). It gives up the processor only in cs_wait() and what is built on it. Nothing deep runs on
 * that stack: cs_big_stack_call() runs a function on the process's own stack (parsers, TLS
 * handshakes); such a function must not wait.
 *
 * Readiness is edge-triggered: a struct cs_fd remembers that it may be readable or writable until
 * an operation on it says EAGAIN (or moves less than asked). Waiting on something already ready
 * returns at once without a system call. */
#ifndef CS_RUNTIME_LOOP_H
#define CS_RUNTIME_LOOP_H

#include "base/err.h"
#include "base/pool.h"
#include "base/slice.h"
#include "base/time.h"

struct cs_loop;
struct cs_co;

enum { CS_CO_STACK = 64 * 1024, CS_WAIT_MAX = 8 };

/* NULL when memory or descriptors are out. From then on the process ignores SIGPIPE. */
struct cs_loop *cs_loop_new(void);
/* Runs until cs_loop_stop() was called and every coroutine has ended, or no coroutine is left. */
void cs_loop_run(struct cs_loop *loop);
/* Cancels every coroutine: each present wait and all later ones return CS_WOKE_CANCELLED. */
void cs_loop_stop(struct cs_loop *loop);
void cs_loop_free(struct cs_loop *loop);
/* Monotonic time of this turn of the loop: cheap, at most one turn old. */
uint64_t cs_loop_now(const struct cs_loop *loop);
/* From now on the loop looks for `ns` again before it sleeps, while that mostly finds something:
 * half the latency of a relay for processor time that is otherwise idle. 0: sleeps at once. */
void cs_loop_busy_poll(struct cs_loop *loop, uint64_t ns);

/* How long one coroutine may keep the others waiting, of those that ask (cs_co_breathe):
 * CS_LIMIT_SHARE_US unless this says otherwise. 0: they let others run each time, which is for
 * tests. */
void cs_loop_share(struct cs_loop *loop, uint64_t ns);

/* ---- coroutines ---- */
typedef void (*cs_co_fn)(void *arg);
/* Starts when the caller gives up the processor. `name` is a literal, for debugging. CS_ERR_LIMIT /
 * CS_ERR_NO_MEMORY; a guarded stack is two mappings of vm.max_map_count (65530 by default), so
 * about 32,000 coroutines fit a process unless that is raised. */
enum cs_err cs_co_spawn(struct cs_loop *loop, const char *name, cs_co_fn fn, void *arg,
                        cs_handle *ret) CS_MUST_CHECK;
/* Its present wait and all later ones return CS_WOKE_CANCELLED. A stale handle does nothing. */
void cs_co_cancel(struct cs_loop *loop, cs_handle co);
/* The loop / the handle of the running coroutine; it must be one. */
struct cs_loop *cs_co_loop(void);
cs_handle cs_co_self(void);
/* Lets others run; false when cancelled. */
bool cs_co_yield(void);
/* The same, but only where this coroutine has had the processor for as long as others should wait
 * for it (cs_loop_share): for long work in pieces, one call after each. What the work rests on may
 * have changed when it returns, as after any wait: say at each call what is pinned and what is
 * looked at again. Outside a coroutine, and on the main stack, nobody can run: true. */
bool cs_co_breathe(void);
/* Would it let others run? For who must put something in order before it may. */
bool cs_co_spent(void);
/* False when cancelled. */
bool cs_co_sleep(uint64_t ns);
/* Runs fn(arg) on the process's main stack and returns when it is done. fn must not wait. Called
 * outside a coroutine it simply calls fn. */
void cs_big_stack_call(void (*fn)(void *arg), void *arg);
/* Gives the untouched part of this coroutine's stack back to the kernel: called once where a
 * session becomes idle for the first time, after the deep calls of its start. */
void cs_co_trim(void);

/* ---- what can be waited for ---- */
/* A descriptor in the loop. The struct lives in its owner; it must be closed before that goes. */
struct cs_fd {
    int fd; /* owned; -1 = none */
    bool readable, writable;
    bool hup; /* the peer closed its sending side, or the whole connection */
    cs_handle slot;
    struct cs_loop *loop;
};
/* An event inside one process. Level: stays set until cleared. Zero-initialised = clear. Setting
 * wakes all who wait now, even if it is cleared or freed before they run. */
struct cs_event {
    bool set;
    struct cs_waiter *waiters; /* borrowed from waiting coroutines */
};

/* Takes over the descriptor (closes it on failure) and makes it non-blocking. It counts as writable
 * until an operation says otherwise. */
enum cs_err cs_fd_open(struct cs_loop *loop, struct cs_fd *f, int fd) CS_MUST_CHECK;
/* A listening socket shared between processes: level-triggered, EPOLLEXCLUSIVE; watched only while
 * somebody waits on it. */
enum cs_err cs_fd_open_listener(struct cs_loop *loop, struct cs_fd *f, int fd) CS_MUST_CHECK;
/* Takes a listener out of the watch until somebody waits on it again. The kernel tells one process
 * of a connection: who will not accept for long must not be the one. Whoever watches it anew is
 * told of those that came meanwhile. */
void cs_fd_unwatch(struct cs_fd *f);
/* Closes; waiters on it wake as ready with hup, and the struct may go at once. Closing twice is
 * fine. */
void cs_fd_close(struct cs_fd *f);
/* Out of the loop without closing: returns the descriptor. */
int cs_fd_release(struct cs_fd *f);

void cs_event_set(struct cs_event *e);
void cs_event_clear(struct cs_event *e);

enum cs_wait_kind { CS_WAIT_READ, CS_WAIT_WRITE, CS_WAIT_HUP, CS_WAIT_EVENT };
struct cs_wait {
    enum cs_wait_kind kind;
    void *on;   /* struct cs_fd * or, for CS_WAIT_EVENT, struct cs_event * */
    bool ready; /* out */
};
#define CS_WAIT_ON(k, x) ((struct cs_wait){(k), (x), false})

enum cs_woke { CS_WOKE_READY, CS_WOKE_DEADLINE, CS_WOKE_CANCELLED };
/* Waits until at least one of the n (≤ CS_WAIT_MAX) is ready, or the monotonic deadline
 * (CS_FOREVER = none) has come, or the coroutine is cancelled; says in `ready` which. Cancellation
 * wins over readiness, readiness over the deadline. CS_WAIT_READ and CS_WAIT_WRITE are also ready
 * when the connection is closed or broken (so that the operation can tell). n may be 0. */
enum cs_woke cs_wait(struct cs_wait *set, size_t n, uint64_t deadline_ns) CS_MUST_CHECK;

#endif
