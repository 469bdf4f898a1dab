/* The scheduler: turns of the loop, epoll, deadlines. A turn wakes whose deadline has come, runs
 * the queue until it is empty, and asks the kernel; an idle turn makes one system call, epoll_wait.
 * Deadlines ring by a timerfd that stands where it is until an earlier one comes: a relay's turns,
 * thousands of them before any deadline, neither look at the clock for it nor have the kernel start
 * and stop a timer each. */
#include "base/alloc.h"
#include "base/assert.h"
#include "base/limits.h"
#include "runtime/loop_internal.h"

#include <errno.h>
#include <signal.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* A build with -DCS_SHARE_NS=0 lets others run wherever it may: all suites must pass in it too. */
#ifndef CS_SHARE_NS
#define CS_SHARE_NS (CS_LIMIT_SHARE_US * CS_NS_PER_US)
#endif

#define TIMER UINT64_MAX /* in epoll's data, where a descriptor has its handle */

static void close_both(struct cs_loop *loop)
{
    if (loop->timer >= 0) {
        (void)close(loop->timer);
    }
    if (loop->epfd >= 0) {
        (void)close(loop->epfd);
    }
}

struct cs_loop *cs_loop_new(void)
{
    struct cs_loop *loop = cs_alloc(sizeof *loop);
    if (loop == NULL) {
        return NULL;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* a peer that has gone is an error of the write */
    struct epoll_event ring = {.events = EPOLLIN | EPOLLET, .data.u64 = TIMER};
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (loop->epfd < 0 || loop->timer < 0 ||
        epoll_ctl(loop->epfd, EPOLL_CTL_ADD, loop->timer, &ring) != 0) {
        close_both(loop);
        cs_free(loop);
        return NULL;
    }
    cs_pool_init(&loop->cos, sizeof(struct cs_co), CS_CO_MAX);
    cs_pool_init(&loop->slots, sizeof(struct cs_fd_slot), CS_FD_MAX);
    cs_co_queue_init(&loop->run);
    cs_co_queue_init(&loop->next);
    loop->now_ns = cs_mono_ns();
    loop->share_ns = CS_SHARE_NS;
    return loop;
}

static void free_one(void *object, cs_handle h, void *arg)
{
    (void)h;
    (void)arg;
    cs_co_free(object);
}

void cs_loop_free(struct cs_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    cs_assert(!loop->running);
    cs_pool_each(&loop->cos, free_one, NULL);
    cs_pool_done(&loop->cos);
    cs_pool_done(&loop->slots);
    cs_heap_done(&loop->deadlines);
    close_both(loop);
    cs_free(loop);
}

void cs_loop_busy_poll(struct cs_loop *loop, uint64_t ns)
{
    loop->busy_poll_ns = ns;
}

void cs_loop_share(struct cs_loop *loop, uint64_t ns)
{
    loop->share_ns = ns;
}

uint64_t cs_loop_now(const struct cs_loop *loop)
{
    return loop->now_ns;
}

static void cancel_one(void *object, cs_handle h, void *arg)
{
    struct cs_co *co = object;
    (void)arg;
    cs_co_cancel(co->loop, h);
}

void cs_loop_stop(struct cs_loop *loop)
{
    loop->stopping = true;
    cs_pool_each(&loop->cos, cancel_one, NULL);
}

static void wake_expired(struct cs_loop *loop)
{
    struct cs_heap *h = &loop->deadlines;
    while (h->n > 0 && h->at[0]->deadline_ns <= loop->now_ns) {
        struct cs_co *co = h->at[0];
        cs_heap_remove(h, co);
        co->timed_out = true;
        cs_co_wake(co);
    }
}

static void run_queue(struct cs_loop *loop)
{
    for (unsigned i = 0; i < CS_TURN_SWITCHES; i++) {
        struct cs_co *co = cs_co_queue_pop(&loop->run);
        if (co == NULL) {
            break;
        }
        cs_co_resume(co, i == 0 ? loop->now_ns : 0);
    }
}

/* How long the kernel may keep us: not at all, or until something happens, the timer's ringing
 * among it. It may ring for a deadline that is no more; nobody is woken then. */
static int poll_timeout(struct cs_loop *loop)
{
    if (loop->run.first != NULL || loop->next.first != NULL) {
        return 0;
    }
    if (loop->deadlines.n == 0) {
        return -1;
    }
    uint64_t deadline = loop->deadlines.at[0]->deadline_ns;
    if (loop->rings_ns != 0 && loop->rings_ns <= deadline) {
        return -1;
    }
    if (deadline <= loop->now_ns) {
        return 0;
    }
    struct itimerspec at = {.it_value = {.tv_sec = (time_t)(deadline / CS_NS_PER_S),
                                         .tv_nsec = (long)(deadline % CS_NS_PER_S)}};
    int set = timerfd_settime(loop->timer, TFD_TIMER_ABSTIME, &at, NULL);
    cs_assert(set == 0);
    loop->rings_ns = deadline;
    return -1;
}

/* Before sleep, for some microseconds: has anything happened? Being woken takes the kernel as long
 * as a short statement takes the server, so a relay that has just sent one is better awake.
 * While no more looks find something than do not, each that does not is followed by twice as many
 * waits without one: who waits for people, or for long statements, hardly pays for it. With more
 * than two busy sessions the processors have other work, which this would only take them from. */
static int look_again(struct cs_loop *loop)
{
    if (loop->crowd > 0 || loop->looks_left_out > 0) {
        loop->looks_left_out -= loop->looks_left_out > 0;
        return 0;
    }
    uint64_t until = cs_mono_ns() + loop->busy_poll_ns;
    do {
        int n = epoll_wait(loop->epfd, loop->events, CS_EPOLL_BATCH, 0);
        if (n != 0) {
            loop->looks_pay = CS_MIN(loop->looks_pay + 1, (uint32_t)CS_LOOKS_PAY_MAX);
            loop->leave_out = 0;
            return n;
        }
    } while (cs_mono_ns() < until);
    if (loop->looks_pay > 0) {
        loop->looks_pay--;
    } else {
        /* An even number, so that the next look is at the other of two that take turns. */
        loop->leave_out = CS_MIN(2 * loop->leave_out + 2, (uint32_t)CS_LEAVE_OUT_MAX);
        loop->looks_left_out = loop->leave_out;
    }
    return 0;
}

/* Is it one of the few that something happens to over and over? */
static void note_crowd(struct cs_loop *loop, uint64_t handle)
{
    for (unsigned i = 0; i < CS_FEW; i++) {
        if (loop->few[i] == handle) {
            loop->crowd -= loop->crowd > 0;
            return;
        }
    }
    loop->few[loop->few_next++ % CS_FEW] = handle;
    loop->crowd = CS_CROWD_LASTS;
}

static void ask_kernel(struct cs_loop *loop)
{
    cs_listeners_forget(loop);
    int timeout = poll_timeout(loop);
    int n = timeout != 0 && loop->busy_poll_ns != 0 ? look_again(loop) : 0;
    n = n != 0 ? n : epoll_wait(loop->epfd, loop->events, CS_EPOLL_BATCH, timeout);
    cs_assert(n >= 0 || errno == EINTR);
    loop->now_ns = cs_mono_ns();
    for (int i = 0; i < n; i++) {
        if (loop->events[i].data.u64 == TIMER) {
            loop->rings_ns = 0; /* not read: setting it again makes the next edge */
            continue;
        }
        note_crowd(loop, loop->events[i].data.u64);
        cs_fd_happened(loop, loop->events[i].data.u64, loop->events[i].events);
    }
    /* Those who let others run come behind the ones that the kernel has woken. */
    struct cs_co *co;
    while ((co = cs_co_queue_pop(&loop->next)) != NULL) {
        cs_co_queue_push(&loop->run, co);
    }
}

void cs_loop_run(struct cs_loop *loop)
{
    cs_assert(!loop->running && cs_co_running() == NULL);
    loop->running = true;
    loop->now_ns = cs_mono_ns();
    while (loop->cos.live > 0) {
        wake_expired(loop);
        run_queue(loop);
        if (loop->cos.live > 0) {
            ask_kernel(loop);
        }
    }
    loop->running = false;
}
