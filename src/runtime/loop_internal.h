/* What the files of the loop share: coroutine control blocks, stacks, the switch, the deadline
 * heap. Nobody outside runtime/ includes this. */
#ifndef CS_RUNTIME_LOOP_INTERNAL_H
#define CS_RUNTIME_LOOP_INTERNAL_H

#include "runtime/loop.h"

#include <sys/epoll.h>

#if defined(__SANITIZE_ADDRESS__)
#define CS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CS_ASAN 1
#endif
#endif
#ifndef CS_ASAN
#define CS_ASAN 0
#endif

enum {
    CS_CO_MAX = 1 << 20,
    CS_FD_MAX = 1 << 20,
    CS_EPOLL_BATCH = 256,
    CS_TURN_SWITCHES = 4096, /* coroutines that set each other's events still let the kernel in */
    CS_LOOKS_PAY_MAX = 16,
    CS_LEAVE_OUT_MAX = 254, /* waits in a row without a look before sleep */
    CS_FEW = 4,             /* descriptors of two sessions */
    CS_CROWD_LASTS = 32,
    CS_INSTANT_MAX = 64, /* waits of one coroutine that return at once before others may run */
    CS_STACK_BYTES = CS_ASAN ? 4 * CS_CO_STACK : CS_CO_STACK, /* ASan's frames are larger */
};

enum cs_co_state { CS_CO_QUEUED, CS_CO_RUNNING, CS_CO_PARKED };

struct cs_co {
    void *sp; /* saved stack pointer while it does not run */
    struct cs_loop *loop;
    const char *name; /* literal */
    cs_co_fn fn;
    void *arg;
    struct cs_co *next; /* in a run queue */
    cs_handle self;
    uint8_t *stack; /* owned: its lowest byte */
    uint64_t deadline_ns;
    uint64_t since_ns; /* when it got the processor; 0: nobody has looked yet */
    uint32_t heap_at;  /* index + 1 in the heap of deadlines, 0 = not in it */
    enum cs_co_state state;
    uint32_t instant;
    bool cancelled, timed_out, done;
    void *fake_stack; /* ASan's */
};

struct cs_co_queue {
    struct cs_co *first, **last;
};

/* One item of a wait of a parked coroutine; lives on its stack. Unlinked (at == NULL) by whoever
 * makes it ready, so that an event or descriptor that is set or closed may go at once. */
struct cs_waiter {
    struct cs_waiter *next, **at;
    struct cs_co *co;
    struct cs_wait *item;
};

struct cs_fd_slot {
    struct cs_fd *f; /* borrowed: its owner closes before it goes */
    struct cs_waiter *waiters;
    bool listener, armed;
    struct cs_fd_slot *next_listener;
};

struct cs_heap {
    struct cs_co **at; /* owned */
    uint32_t n, cap;
};

struct cs_loop {
    int epfd;              /* owned */
    int timer;             /* owned: a timerfd, heard by epfd */
    uint64_t rings_ns;     /* when it does; 0: never */
    uint64_t share_ns;     /* how long one that asks may have the processor */
    uint64_t busy_poll_ns; /* how long it looks before it sleeps; 0: not at all */
    uint32_t looks_pay, leave_out, looks_left_out, crowd, few_next;
    uint64_t few[CS_FEW];
    bool running, stopping;
    uint64_t now_ns;
    struct cs_pool cos, slots;
    struct cs_co_queue run, next; /* this turn; after the kernel was asked again */
    struct cs_heap deadlines;
    struct cs_fd_slot *listeners;
    void *main_sp;
    void (*big_fn)(void *arg); /* request of the running coroutine for the main stack */
    void *big_arg;
    /* ASan's view of the main stack */
    void *main_fake;
    const void *main_bottom;
    size_t main_size;
    struct epoll_event events[CS_EPOLL_BATCH];
};

/* ---- co.c ---- */
struct cs_co *cs_co_running(void);
bool cs_co_on_big_stack(void);
/* Gives the processor to the scheduler; returns when the scheduler resumes this coroutine. */
void cs_co_pause(struct cs_co *co);
/* Puts a parked coroutine into this turn's queue; nothing for any other. */
void cs_co_wake(struct cs_co *co);
/* Lets the running coroutine go on after the kernel was asked again. */
void cs_co_later(struct cs_co *co);
/* Runs it until it pauses or ends. `since_ns`: the present time, 0 where that is not known. */
void cs_co_resume(struct cs_co *co, uint64_t since_ns);
void cs_co_free(struct cs_co *co);

void cs_co_queue_init(struct cs_co_queue *q);
void cs_co_queue_push(struct cs_co_queue *q, struct cs_co *co);
struct cs_co *cs_co_queue_pop(struct cs_co_queue *q);

/* ---- stack.c ---- */
/* CS_STACK_BYTES above a guard page; NULL when the kernel has none. */
uint8_t *cs_stack_take(void);
void cs_stack_give(uint8_t *stack);
/* Prepares the first switch to it; entry must never return. */
void *cs_stack_prepare(uint8_t *stack, void (*entry)(void));
/* Saves the callee-saved registers and the stack pointer into *save, and goes on at `to`. */
void cs_stack_switch(void **save, void *to);
/* Gives back the pages of the running stack below what is in use. */
void cs_stack_trim(uint8_t *stack);

/* ---- heap.c: deadlines, earliest first ---- */
/* Room for n coroutines: a wait must not fail for want of memory. */
bool cs_heap_reserve(struct cs_heap *h, uint32_t n);
void cs_heap_add(struct cs_heap *h, struct cs_co *co);
void cs_heap_remove(struct cs_heap *h, struct cs_co *co);
void cs_heap_done(struct cs_heap *h);

/* ---- wait.c ---- */
/* Notes what epoll says about a slot and wakes who waits for it; a stale handle is ignored. */
void cs_fd_happened(struct cs_loop *loop, cs_handle slot, uint32_t events);
/* Level-triggered listeners report again: forgets what they said before. */
void cs_listeners_forget(struct cs_loop *loop);

#endif
