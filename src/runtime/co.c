/* Coroutines: their life, who runs now, and the way to the main stack. The scheduler (loop.c) runs
 * on the process's main stack and resumes one coroutine at a time; a coroutine comes back to it
 * when it waits, when it ends, or to have a function run on the main stack. Never runs a coroutine
 * from inside another one. */
#include "base/assert.h"
#include "runtime/loop_internal.h"

#if CS_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

/* Per thread, because a helper thread may call cs_big_stack_call, which then is a plain call. */
static _Thread_local struct cs_co *running;
static _Thread_local bool on_big_stack;

struct cs_co *cs_co_running(void)
{
    return running;
}

bool cs_co_on_big_stack(void)
{
    return on_big_stack;
}

void cs_co_queue_init(struct cs_co_queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

void cs_co_queue_push(struct cs_co_queue *q, struct cs_co *co)
{
    cs_assert(co->next == NULL);
    *q->last = co;
    q->last = &co->next;
}

struct cs_co *cs_co_queue_pop(struct cs_co_queue *q)
{
    struct cs_co *co = q->first;
    if (co != NULL) {
        q->first = co->next;
        if (q->first == NULL) {
            q->last = &q->first;
        }
        co->next = NULL;
    }
    return co;
}

/* ---- switching ---- */

static void to_main(struct cs_co *co)
{
#if CS_ASAN
    __sanitizer_start_switch_fiber(co->done ? NULL : &co->fake_stack, co->loop->main_bottom,
                                   co->loop->main_size);
#endif
    cs_stack_switch(&co->sp, co->loop->main_sp);
#if CS_ASAN
    __sanitizer_finish_switch_fiber(co->fake_stack, NULL, NULL);
#endif
}

static void to_co(struct cs_co *co)
{
    struct cs_loop *loop = co->loop;
#if CS_ASAN
    __sanitizer_start_switch_fiber(&loop->main_fake, co->stack, CS_STACK_BYTES);
#endif
    cs_stack_switch(&loop->main_sp, co->sp);
#if CS_ASAN
    __sanitizer_finish_switch_fiber(loop->main_fake, NULL, NULL);
#endif
}

static void entry(void)
{
    struct cs_co *co = running;
#if CS_ASAN
    __sanitizer_finish_switch_fiber(NULL, &co->loop->main_bottom, &co->loop->main_size);
#endif
    co->fn(co->arg);
    co->done = true;
    to_main(co);
    cs_assert(false); /* nobody resumes a dead one */
}

void cs_co_pause(struct cs_co *co)
{
    cs_assert(running == co && !on_big_stack);
    to_main(co);
}

void cs_co_resume(struct cs_co *co, uint64_t since_ns)
{
    cs_assert(running == NULL && co->state == CS_CO_QUEUED);
    struct cs_loop *loop = co->loop;
    co->state = CS_CO_RUNNING;
    co->instant = 0;
    co->since_ns = since_ns;
    running = co;
    to_co(co);
    while (loop->big_fn != NULL) {
        void (*fn)(void *) = loop->big_fn;
        loop->big_fn = NULL;
        on_big_stack = true;
        fn(loop->big_arg);
        on_big_stack = false;
        to_co(co);
    }
    running = NULL;
    if (co->done) {
        cs_co_free(co);
    }
}

void cs_big_stack_call(void (*fn)(void *arg), void *arg)
{
    struct cs_co *co = running;
    if (co == NULL || on_big_stack) {
        fn(arg);
        return;
    }
    co->loop->big_fn = fn;
    co->loop->big_arg = arg;
    to_main(co);
}

/* ---- life ---- */

enum cs_err cs_co_spawn(struct cs_loop *loop, const char *name, cs_co_fn fn, void *arg,
                        cs_handle *ret)
{
    if (loop->cos.live >= CS_CO_MAX) {
        return CS_ERR_LIMIT;
    }
    if (!cs_heap_reserve(&loop->deadlines, loop->cos.live + 1)) {
        return CS_ERR_NO_MEMORY;
    }
    cs_handle self;
    struct cs_co *co = cs_pool_take(&loop->cos, &self);
    if (co == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    co->stack = cs_stack_take();
    if (co->stack == NULL) {
        cs_pool_give(&loop->cos, self);
        return CS_ERR_NO_MEMORY;
    }
    co->sp = cs_stack_prepare(co->stack, entry);
    co->loop = loop;
    co->name = name;
    co->fn = fn;
    co->arg = arg;
    co->self = self;
    co->state = CS_CO_QUEUED;
    co->cancelled = loop->stopping;
    cs_co_queue_push(&loop->run, co);
    *ret = self;
    return CS_OK;
}

void cs_co_free(struct cs_co *co)
{
    cs_heap_remove(&co->loop->deadlines, co);
    cs_stack_give(co->stack);
    cs_pool_give(&co->loop->cos, co->self);
}

void cs_co_wake(struct cs_co *co)
{
    if (co->state == CS_CO_PARKED) {
        co->state = CS_CO_QUEUED;
        cs_co_queue_push(&co->loop->run, co);
    }
}

void cs_co_later(struct cs_co *co)
{
    co->state = CS_CO_QUEUED;
    cs_co_queue_push(&co->loop->next, co);
    cs_co_pause(co);
}

void cs_co_cancel(struct cs_loop *loop, cs_handle h)
{
    struct cs_co *co = cs_pool_get(&loop->cos, h);
    if (co != NULL) {
        co->cancelled = true;
        cs_co_wake(co);
    }
}

struct cs_loop *cs_co_loop(void)
{
    cs_assert(running != NULL);
    return running->loop;
}

cs_handle cs_co_self(void)
{
    cs_assert(running != NULL);
    return running->self;
}

bool cs_co_yield(void)
{
    struct cs_co *co = running;
    cs_assert(co != NULL);
    if (!co->cancelled) {
        cs_co_later(co);
    }
    return !co->cancelled;
}

/* Not the turn's time: behind others in it, one would have spent its share before it began, and
 * would go round the loop for each piece. Who is not the first in its turn is counted from where it
 * asks for the first time, so that those who never ask pay for no look at the clock. */
bool cs_co_spent(void)
{
    struct cs_co *co = running;
    if (co == NULL || on_big_stack || co->cancelled) {
        return false;
    }
    uint64_t now = cs_mono_ns();
    if (co->since_ns == 0) {
        co->since_ns = now;
    }
    return now - co->since_ns >= co->loop->share_ns;
}

bool cs_co_breathe(void)
{
    return cs_co_spent() ? cs_co_yield() : running == NULL || !running->cancelled;
}

bool cs_co_sleep(uint64_t ns)
{
    cs_assert(running != NULL);
    /* The true time, not the turn's: a sleep is never shorter than asked. */
    uint64_t now = cs_mono_ns();
    uint64_t deadline = ns > CS_FOREVER - now ? CS_FOREVER : now + ns;
    return cs_wait(NULL, 0, deadline) != CS_WOKE_CANCELLED;
}

void cs_co_trim(void)
{
    cs_assert(running != NULL && !on_big_stack);
    cs_stack_trim(running->stack);
}
