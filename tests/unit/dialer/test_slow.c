#include "base/alloc.h"
#include "dialer/resolver.h"
#include "tap.h"

#include <unistd.h>

struct work {
    int in, out;
    unsigned nap_ms;
};

static struct cs_slow *slow;
static unsigned dropped;

static void square(void *arg)
{
    struct work *w = arg;
    (void)usleep(w->nap_ms * 1000);
    w->out = w->in * w->in;
}

static void drop(void *arg)
{
    dropped++;
    cs_free(arg);
}

static struct work *work_new(int in, unsigned nap_ms)
{
    struct work *w = cs_alloc(sizeof *w);
    w->in = in;
    w->nap_ms = nap_ms;
    return w;
}

static void in_loop(void (*script)(void *))
{
    struct cs_loop *loop = cs_loop_new();
    cs_handle co;
    CS_CHECK(cs_slow_new(loop, 1, &slow) == CS_OK);
    CS_CHECK(cs_co_spawn(loop, "script", script, loop, &co) == CS_OK);
    cs_loop_run(loop);
    CS_CHECK(cs_slow_free(slow));
    cs_loop_free(loop);
    CS_EQ_U64(cs_alloc_live(), 0);
}

static void script_answers(void *arg)
{
    for (int i = 1; i < 20; i++) {
        struct work *w = work_new(i, 0);
        CS_CHECK(cs_slow_call(slow, square, drop, w, CS_FOREVER) == CS_OK);
        CS_EQ_U64(w->out, i * i);
        cs_free(w);
    }
    cs_loop_stop(arg);
}

CS_TEST(slow_answers)
{
    in_loop(script_answers);
    CS_EQ_U64(dropped, 0);
}

static void script_gives_up(void *arg)
{
    struct work *w = work_new(3, 200);
    CS_CHECK(cs_slow_call(slow, square, drop, w, cs_mono_ns() + 20 * CS_NS_PER_MS) ==
             CS_ERR_TIMEOUT);
    CS_CHECK(cs_co_sleep(400 * CS_NS_PER_MS));
    CS_EQ_U64(dropped, 1);
    w = work_new(5, 0); /* the thread still serves */
    CS_CHECK(cs_slow_call(slow, square, drop, w, CS_FOREVER) == CS_OK);
    cs_free(w);
    cs_loop_stop(arg);
}

CS_TEST(slow_drops_what_nobody_waits_for)
{
    in_loop(script_gives_up);
}

static void script_resolves(void *arg)
{
    struct cs_resolved r;
    uint64_t soon = cs_mono_ns() + 5 * CS_NS_PER_S;
    memset(&r, 0, sizeof r);
    CS_CHECK(cs_resolve(slow, CS_SLICE_LIT("127.0.0.1:5432"), soon, &r) == CS_OK);
    CS_EQ_U64(r.n, 1);
    CS_CHECK(cs_resolve(slow, CS_SLICE_LIT("localhost:5432"), soon, &r) == CS_OK);
    CS_CHECK(r.n >= 1);
    CS_CHECK(cs_resolve(slow, CS_SLICE_LIT("localhost"), soon, &r) == CS_ERR_INVALID);
    CS_CHECK(cs_resolve(slow, CS_SLICE_LIT("no such name:1"), soon, &r) != CS_OK);
    cs_loop_stop(arg);
}

CS_TEST(resolver_takes_names_and_numbers)
{
    in_loop(script_resolves);
}
