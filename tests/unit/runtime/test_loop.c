#include "base/id.h"
#include "runtime/loop.h"
#include "runtime/sock.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

/* ---- helpers ---- */

static char trace[256];
static size_t trace_n;

static void say(char c)
{
    CS_CHECK(trace_n + 1 < sizeof trace);
    trace[trace_n++] = c;
    trace[trace_n] = 0;
}

static struct cs_loop *the_loop;

static cs_handle spawn(cs_co_fn fn, void *arg)
{
    cs_handle h = 0;
    CS_CHECK(cs_co_spawn(the_loop, "test", fn, arg, &h) == CS_OK);
    return h;
}

static void begin(void)
{
    the_loop = cs_loop_new();
    CS_CHECK(the_loop != NULL);
}

static void end(void)
{
    cs_loop_run(the_loop);
    cs_loop_free(the_loop);
    CS_EQ_U64(cs_alloc_live(), 0);
}

/* ---- order ---- */

static void abc(void *arg)
{
    const char *c = arg;
    say(c[0]);
    CS_CHECK(cs_co_yield());
    say(c[1]);
}

CS_TEST(coroutines_run_in_the_order_in_which_they_came)
{
    begin();
    static char x[3][3] = {"aA", "bB", "cC"};
    for (int i = 0; i < 3; i++) {
        spawn(abc, x[i]);
    }
    end();
    CS_EQ_STR(cs_slice_str(trace), "abcABC");
}

static void breather(void *arg)
{
    const char *c = arg;
    say(c[0]);
    CS_CHECK(cs_co_breathe());
    say(c[1]);
}

static void two_breathe(uint64_t share_ns)
{
    static char x[2][3] = {"aA", "bB"};
    begin();
    cs_loop_share(the_loop, share_ns);
    spawn(breather, x[0]);
    spawn(breather, x[1]);
    end();
}

CS_TEST(who_has_spent_its_share_lets_others_run)
{
    two_breathe(0);
    CS_EQ_STR(cs_slice_str(trace), "abAB");
}

CS_TEST(who_has_not_spent_its_share_goes_on)
{
    two_breathe(CS_NS_PER_S * 3600);
    CS_EQ_STR(cs_slice_str(trace), "aAbB");
}

static void long_work(void *arg)
{
    int *fd = arg;
    unsigned n = 0;
    CS_CHECK(write(fd[1], "x", 1) == 1);
    while (fd[2] == 0) { /* until the other has read it: the kernel was asked, and it ran */
        CS_CHECK(n++ < 100000000 && cs_co_breathe());
    }
    say('w');
}

static void reads(void *arg)
{
    int *fd = arg;
    struct cs_fd f;
    char byte;
    CS_CHECK(cs_fd_open(the_loop, &f, fd[0]) == CS_OK);
    struct cs_wait item = CS_WAIT_ON(CS_WAIT_READ, &f);
    CS_CHECK(cs_wait(&item, 1, CS_FOREVER) == CS_WOKE_READY);
    CS_CHECK(read(f.fd, &byte, 1) == 1);
    say('r');
    fd[2] = 1;
    cs_fd_close(&f);
}

CS_TEST(long_work_in_pieces_keeps_nobody_from_what_the_kernel_has_for_them)
{
    static int fd[3];
    begin();
    CS_CHECK(pipe2(fd, O_CLOEXEC) == 0);
    spawn(reads, fd);
    spawn(long_work, fd);
    end();
    CS_EQ_STR(cs_slice_str(trace), "rw");
    (void)close(fd[1]);
}

static void cancelled_breather(void *arg)
{
    (void)arg;
    cs_co_cancel(the_loop, cs_co_self());
    CS_CHECK(!cs_co_breathe() && !cs_co_spent());
    say('c');
}

CS_TEST(who_is_cancelled_lets_nobody_run_and_is_told)
{
    begin();
    cs_loop_share(the_loop, 0);
    spawn(cancelled_breather, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "c");
}

static void on_main_stack(void *arg)
{
    (void)arg;
    CS_CHECK(cs_co_breathe() && !cs_co_spent()); /* nobody may wait here */
}

static void calls_main_stack(void *arg)
{
    (void)arg;
    cs_big_stack_call(on_main_stack, NULL);
}

CS_TEST(on_the_main_stack_and_outside_a_coroutine_nobody_is_let_run)
{
    CS_CHECK(cs_co_breathe() && !cs_co_spent());
    begin();
    cs_loop_share(the_loop, 0);
    spawn(calls_main_stack, NULL);
    end();
}

CS_TEST(loop_without_coroutines_returns)
{
    begin();
    end();
}

static uint64_t start_ns;

static void sleeper(void *arg)
{
    uint64_t ms = (uint64_t)(uintptr_t)arg;
    CS_CHECK(cs_co_sleep(ms * CS_NS_PER_MS));
    CS_CHECK(cs_mono_ns() - start_ns >= ms * CS_NS_PER_MS);
    say((char)('0' + ms / 10));
}

CS_TEST(deadlines_come_in_order_and_never_early)
{
    begin();
    start_ns = cs_mono_ns();
    static const uintptr_t ms[] = {50, 10, 40, 30, 20, 60, 0};
    for (size_t i = 0; i < CS_ARRAY_LEN(ms); i++) {
        spawn(sleeper, (void *)ms[i]); /* NOLINT: a number in a pointer */
    }
    end();
    CS_EQ_STR(cs_slice_str(trace), "0123456");
}

static unsigned many_left;
static uint64_t many_last;

static void many_one(void *arg)
{
    (void)arg;
    uint16_t r;
    cs_random(&r, sizeof r);
    uint64_t deadline = start_ns + (uint64_t)r * 2000; /* 0 … 131 ms */
    CS_CHECK(cs_wait(NULL, 0, deadline) == CS_WOKE_DEADLINE);
    CS_CHECK(cs_loop_now(the_loop) >= deadline);
    many_left--;
    many_last = deadline;
}

CS_TEST(ten_thousand_coroutines_wait_for_random_deadlines)
{
    begin();
    start_ns = cs_mono_ns();
    many_left = 10000;
    for (unsigned i = 0; i < 10000; i++) {
        spawn(many_one, NULL);
    }
    cs_loop_run(the_loop);
    CS_EQ_U64(many_left, 0);
    /* and again, on pooled stacks */
    many_left = 10000;
    for (unsigned i = 0; i < 10000; i++) {
        spawn(many_one, NULL);
    }
    end();
    CS_EQ_U64(many_left, 0);
}

/* ---- events ---- */

static struct cs_event ev, ev2;

static void waits_for_ev(void *arg)
{
    struct cs_wait w[2] = {CS_WAIT_ON(CS_WAIT_EVENT, &ev2), CS_WAIT_ON(CS_WAIT_EVENT, &ev)};
    CS_CHECK(cs_wait(w, 2, CS_FOREVER) == CS_WOKE_READY);
    CS_CHECK(!w[0].ready && w[1].ready);
    say(*(const char *)arg);
}

static void sets_ev(void *arg)
{
    (void)arg;
    uint64_t turn = cs_loop_now(the_loop);
    say('s');
    cs_event_set(&ev);
    /* What yields runs after the kernel was asked; those woken ran before, in this turn. */
    CS_CHECK(cs_co_yield());
    say('.');
    CS_CHECK(cs_loop_now(the_loop) >= turn);
}

CS_TEST(event_wakes_all_waiters_in_order_in_the_same_turn)
{
    begin();
    static char x[3] = {'a', 'b', 'c'};
    for (int i = 0; i < 3; i++) {
        spawn(waits_for_ev, &x[i]);
    }
    spawn(sets_ev, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "sabc.");
}

static void pulses_ev(void *arg)
{
    (void)arg;
    cs_event_set(&ev);
    cs_event_clear(&ev);
}

CS_TEST(event_set_and_cleared_before_the_waiter_runs_still_wakes_it)
{
    begin();
    static char a = 'a';
    spawn(waits_for_ev, &a);
    spawn(pulses_ev, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "a");
}

struct owner {
    struct cs_event done;
};

static void waits_for_owned(void *arg)
{
    struct owner *o = arg;
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &o->done);
    CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY && w.ready);
    say('w');
}

static void sets_and_frees(void *arg)
{
    struct owner *o = arg;
    cs_event_set(&o->done);
    cs_free(o);
}

CS_TEST(event_may_be_freed_right_after_it_was_set)
{
    begin();
    struct owner *o = cs_alloc(sizeof *o);
    CS_CHECK(o != NULL);
    spawn(waits_for_owned, o);
    spawn(sets_and_frees, o);
    end();
    CS_EQ_STR(cs_slice_str(trace), "w");
}

static void deadline_vs_ready(void *arg)
{
    (void)arg;
    cs_event_set(&ev);
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &ev);
    CS_CHECK(cs_wait(&w, 1, 1) == CS_WOKE_READY); /* readiness over the deadline */
    cs_event_clear(&ev);
    CS_CHECK(cs_wait(&w, 1, 1) == CS_WOKE_DEADLINE && !w.ready);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 2 * CS_NS_PER_MS) == CS_WOKE_DEADLINE && !w.ready);
    cs_event_set(&ev);
    cs_co_cancel(the_loop, cs_co_self());
    CS_CHECK(cs_wait(&w, 1, 1) == CS_WOKE_CANCELLED && !w.ready); /* cancellation over both */
    say('k');
}

CS_TEST(cancellation_beats_readiness_beats_the_deadline)
{
    begin();
    spawn(deadline_vs_ready, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "k");
}

/* ---- cancelling ---- */

static void waits_until_cancelled(void *arg)
{
    (void)arg;
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &ev);
    CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED);
    /* sticky */
    CS_CHECK(cs_wait(NULL, 0, CS_FOREVER) == CS_WOKE_CANCELLED);
    CS_CHECK(!cs_co_sleep(CS_NS_PER_S));
    CS_CHECK(!cs_co_yield());
    say('c');
}

static void cancels(void *arg)
{
    cs_handle h = *(cs_handle *)arg;
    cs_co_cancel(the_loop, h);
    cs_co_cancel(the_loop, h);
    CS_CHECK(cs_co_yield());
    cs_co_cancel(the_loop, h); /* stale by now */
    cs_co_cancel(the_loop, 0);
    say('d');
}

CS_TEST(cancel_ends_the_present_wait_and_all_later_ones)
{
    begin();
    cs_handle h = spawn(waits_until_cancelled, NULL);
    spawn(cancels, &h);
    end();
    CS_CHECK(ev.waiters == NULL);
    CS_EQ_STR(cs_slice_str(trace), "cd");
}

static void stops(void *arg)
{
    (void)arg;
    cs_loop_stop(the_loop);
    CS_CHECK(!cs_co_yield());
    /* one that is born into a stopped loop cannot hold it up */
    spawn(waits_until_cancelled, NULL);
    say('s');
}

CS_TEST(stop_cancels_everyone_and_the_loop_ends)
{
    begin();
    spawn(waits_until_cancelled, NULL);
    spawn(stops, NULL);
    spawn(waits_until_cancelled, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "sccc");
}

/* ---- starvation ---- */

static bool hog_stop;

static void hog(void *arg)
{
    (void)arg;
    struct cs_event set = {true, NULL};
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &set);
    while (!hog_stop) {
        CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY);
    }
    say('h');
}

static void late_hog(void *arg)
{
    (void)arg;
    while (!hog_stop) {
        CS_CHECK(cs_wait(NULL, 0, 1) == CS_WOKE_DEADLINE);
    }
    say('h');
}

static void modest(void *arg)
{
    (void)arg;
    CS_CHECK(cs_co_sleep(5 * CS_NS_PER_MS));
    hog_stop = true;
    say('m');
}

CS_TEST(coroutine_whose_waits_return_at_once_does_not_starve_others)
{
    begin();
    spawn(hog, NULL);
    spawn(late_hog, NULL);
    spawn(modest, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "mhh");
}

static struct cs_event ping, pong;

static void player(void *arg)
{
    struct cs_event *mine = arg;
    struct cs_event *other = mine == &ping ? &pong : &ping;
    while (!hog_stop) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, mine);
        cs_event_set(other);
        CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY);
        cs_event_clear(mine);
    }
    cs_event_set(other);
    say('p');
}

CS_TEST(two_that_keep_waking_each_other_do_not_starve_deadlines)
{
    begin();
    spawn(player, &ping);
    spawn(player, &pong);
    spawn(modest, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "mpp");
}

/* ---- descriptors ---- */

static int pair[2];

static void unix_pair(void)
{
    CS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
}

static void reads_one(void *arg)
{
    (void)arg;
    struct cs_fd f;
    CS_CHECK(cs_fd_open(the_loop, &f, pair[0]) == CS_OK);
    CS_CHECK((fcntl(f.fd, F_GETFL) & O_NONBLOCK) != 0);
    struct cs_wait w[2] = {CS_WAIT_ON(CS_WAIT_READ, &f), CS_WAIT_ON(CS_WAIT_HUP, &f)};
    CS_CHECK(cs_wait(w, 2, CS_FOREVER) == CS_WOKE_READY);
    CS_CHECK(w[0].ready && !w[1].ready && f.readable && !f.hup);
    char c[8];
    CS_EQ_U64(read(f.fd, c, sizeof c), 1);
    f.readable = false;
    CS_CHECK(cs_wait(w, 2, CS_FOREVER) == CS_WOKE_READY);
    CS_CHECK(w[0].ready && w[1].ready && f.hup);
    CS_EQ_U64(read(f.fd, c, sizeof c), 0);
    cs_fd_close(&f);
    cs_fd_close(&f);
    CS_CHECK(f.fd == -1);
    say('r');
}

static void writes_one(void *arg)
{
    (void)arg;
    CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    CS_EQ_U64(write(pair[1], "x", 1), 1);
    CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    (void)close(pair[1]);
}

CS_TEST(descriptor_reports_bytes_and_the_end)
{
    unix_pair();
    begin();
    spawn(reads_one, NULL);
    spawn(writes_one, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "r");
}

static void echoes(void *arg)
{
    (void)arg;
    struct cs_fd f;
    CS_CHECK(cs_fd_open(the_loop, &f, pair[0]) == CS_OK);
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &f);
    for (char c = 0, want = 0; c < 100; want++) {
        CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY);
        CS_EQ_U64(read(f.fd, &c, 1), 1);
        CS_CHECK(c == want);
        CS_EQ_U64(write(f.fd, &c, 1), 1);
        f.readable = false;
    }
    cs_fd_close(&f);
    say('e');
}

CS_TEST(loop_that_looks_again_before_it_sleeps_hears_each_byte_once)
{
    unix_pair();
    pid_t child = fork();
    if (child == 0) {
        bool good = true;
        for (char c = 0, back = 0; c <= 100 && good; c++) {
            good = write(pair[1], &c, 1) == 1 && read(pair[1], &back, 1) == 1 && back == c;
        }
        _exit(good ? 0 : 1);
    }
    (void)close(pair[1]);
    begin();
    cs_loop_busy_poll(the_loop, 100 * CS_NS_PER_US);
    spawn(echoes, NULL);
    end();
    int status = -1;
    CS_CHECK(waitpid(child, &status, 0) == child && status == 0);
    CS_EQ_STR(cs_slice_str(trace), "e");
}

static uint64_t processor_ns(void)
{
    struct timespec t;
    CS_CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
    return (uint64_t)t.tv_sec * CS_NS_PER_S + (uint64_t)t.tv_nsec;
}

static void naps(void *arg)
{
    (void)arg;
    for (int i = 0; i < 200; i++) {
        CS_CHECK(cs_co_sleep(3 * CS_NS_PER_MS));
    }
}

CS_TEST(loop_that_looks_again_in_vain_soon_sleeps_at_once)
{
    begin();
    cs_loop_busy_poll(the_loop, CS_NS_PER_MS);
    spawn(naps, NULL);
    uint64_t before = processor_ns();
    end();
    uint64_t took = processor_ns() - before;
    printf("# 200 waits in vain took %llu us of the processor\n",
           (unsigned long long)(took / CS_NS_PER_US));
    CS_CHECK(took < 60 * CS_NS_PER_MS); /* 200 ms, if it looked each time */
}

static struct cs_fd shared_fd;

static void waits_on_shared(void *arg)
{
    (void)arg;
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &shared_fd);
    CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY && w.ready);
    CS_CHECK(shared_fd.fd == -1 && shared_fd.hup);
    /* a closed one is ready at once */
    CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY && w.ready);
    say('w');
}

static void closes_shared(void *arg)
{
    (void)arg;
    cs_fd_close(&shared_fd);
}

CS_TEST(closing_wakes_the_waiters)
{
    unix_pair();
    begin();
    CS_CHECK(cs_fd_open(the_loop, &shared_fd, pair[0]) == CS_OK);
    spawn(waits_on_shared, NULL);
    spawn(waits_on_shared, NULL);
    spawn(closes_shared, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "ww");
}

/* Two descriptors become readable in one batch. Whoever runs first closes the other and opens a new
 * one, which gets the same number and often the same slot: it must not see the old one's event. */
static struct cs_fd stale[2];

static void closes_the_other(void *arg)
{
    size_t me = (size_t)(uintptr_t)arg, other = 1 - me;
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &stale[me]);
    CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY);
    if (stale[me].fd < 0) {
        say('c'); /* closed by the other */
        return;
    }
    say('r');
    cs_fd_close(&stale[other]);
    int fd = eventfd(0, EFD_CLOEXEC);
    struct cs_fd fresh;
    CS_CHECK(cs_fd_open(the_loop, &fresh, fd) == CS_OK);
    struct cs_wait f = CS_WAIT_ON(CS_WAIT_READ, &fresh);
    CS_CHECK(cs_wait(&f, 1, cs_mono_ns() + 5 * CS_NS_PER_MS) == CS_WOKE_DEADLINE);
    CS_CHECK(!fresh.readable);
    cs_fd_close(&fresh);
    cs_fd_close(&stale[me]);
}

CS_TEST(event_of_a_closed_descriptor_does_not_reach_its_successor)
{
    begin();
    for (size_t i = 0; i < 2; i++) {
        CS_CHECK(cs_fd_open(the_loop, &stale[i], eventfd(1, EFD_CLOEXEC)) == CS_OK);
        spawn(closes_the_other, (void *)(uintptr_t)i); /* NOLINT */
    }
    end();
    CS_EQ_STR(cs_slice_str(trace), "rc");
}

CS_TEST(descriptor_that_epoll_refuses_is_an_error_and_closed)
{
    begin();
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int file = open(CS_SOURCE_DIR "/meson.build", O_RDONLY | O_CLOEXEC);
    struct cs_fd f;
    CS_CHECK(cs_fd_open(the_loop, &f, file) != CS_OK);
    CS_CHECK(f.fd == -1 && fcntl(file, F_GETFD) == -1);
    CS_CHECK(cs_fd_open(the_loop, &f, 999999) != CS_OK);
    (void)close(fd);
    end();
}

static void released(void *arg)
{
    (void)arg;
    struct cs_fd f;
    CS_CHECK(cs_fd_open(the_loop, &f, pair[0]) == CS_OK);
    CS_CHECK(cs_fd_release(&f) == pair[0]);
    CS_CHECK(f.fd == -1 && fcntl(pair[0], F_GETFD) >= 0);
    CS_CHECK(cs_fd_open(the_loop, &f, pair[0]) == CS_OK); /* no registration is left behind */
    cs_fd_close(&f);
    say('r');
}

CS_TEST(released_descriptor_stays_open_and_can_be_opened_again)
{
    unix_pair();
    begin();
    spawn(released, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "r");
}

/* ---- the big stack ---- */

static uintptr_t main_frame;
static unsigned big_calls;

static void deep(void *arg)
{
    volatile char large[256 * 1024]; /* four times a coroutine's stack */
    for (size_t i = 0; i < sizeof large; i += 4096) {
        large[i] = 1;
    }
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    CS_CHECK(main_frame - here < (uintptr_t)4 * 1024 * 1024);
    *(unsigned *)arg += (unsigned)large[4096];
    big_calls++;
    cs_event_set(&ev); /* allowed there: it does not wait */
}

static void calls_deep(void *arg)
{
    (void)arg;
    unsigned mine = 0;
    for (unsigned i = 0; i < 20; i++) {
        cs_handle self = cs_co_self();
        cs_big_stack_call(deep, &mine);
        CS_EQ_U64(mine, i + 1);
        CS_EQ_U64(cs_co_self(), self);
        CS_CHECK(i % 4 != 0 || cs_co_yield());
    }
}

CS_TEST(big_stack_calls_of_many_coroutines)
{
    main_frame = (uintptr_t)__builtin_frame_address(0);
    begin();
    for (unsigned i = 0; i < 100; i++) {
        spawn(calls_deep, NULL);
    }
    end();
    CS_EQ_U64(big_calls, 2000);
    unsigned outside = 0;
    cs_big_stack_call(deep, &outside);
    CS_EQ_U64(outside, 1);
}

/* ---- stacks ---- */

static __attribute__((noinline)) void goes_deep(void)
{
    volatile char used[30000];
    for (size_t i = 0; i < sizeof used; i += 512) {
        used[i] = 1;
    }
}

static void uses_and_trims(void *arg)
{
    (void)arg;
    volatile uint64_t kept[8];
    for (unsigned i = 0; i < 8; i++) {
        kept[i] = i * 7;
    }
    goes_deep();
    cs_co_trim();
    CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    for (unsigned i = 0; i < 8; i++) {
        CS_EQ_U64(kept[i], i * 7);
    }
    say('t');
}

CS_TEST(trim_keeps_what_is_in_use)
{
    begin();
    spawn(uses_and_trims, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "t");
}

static long resident_kb(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long size = 0, resident = 0;
    CS_CHECK(f != NULL && fscanf(f, "%ld %ld", &size, &resident) == 2);
    fclose(f);
    return resident * 4;
}

static long before_kb;

static void idles(void *arg)
{
    (void)arg;
    goes_deep();
    cs_co_trim();
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &ev);
    CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY);
}

static void measures(void *arg)
{
    (void)arg;
    long each = (resident_kb() - before_kb) * 1024 / 4000;
    printf("# an idle coroutine holds %ld bytes\n", each);
#if !defined(__SANITIZE_ADDRESS__)
    CS_CHECK(each < 8192 + 512);
#endif
    cs_event_set(&ev);
}

CS_TEST(idle_coroutine_holds_two_pages_at_most)
{
    begin();
    before_kb = resident_kb();
    for (unsigned i = 0; i < 4000; i++) {
        spawn(idles, NULL);
    }
    spawn(measures, NULL);
    end();
}

static unsigned overflow_depth = 1000000;

static void overflows(void *arg)
{
    volatile char page[8000];
    page[0] = *(char *)arg;
    char next = page[0];
    if (overflow_depth-- > 0) {
        overflows(&next);
    }
    page[1] = next;
}

static void overflow_child(void *arg)
{
    char c = 0;
    (void)arg;
    overflows(&c);
}

CS_TEST(stack_overflow_ends_the_process)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(2);
        begin();
        spawn(overflow_child, NULL);
        cs_loop_run(the_loop);
        _exit(0);
    }
    int status = 0;
    CS_CHECK(waitpid(pid, &status, 0) == pid);
    CS_CHECK(status != 0);
}

CS_TEST(spawn_survives_every_allocation_failure)
{
    begin();
    bool done = false;
    CS_OOM_LOOP(done)
    {
        cs_handle h;
        enum cs_err err = cs_co_spawn(the_loop, "x", abc, (char[]){"aA"}, &h);
        CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
        done = err == CS_OK;
    }
    cs_loop_free(the_loop); /* with a coroutine that never ran */
    CS_EQ_U64(cs_alloc_live(), 0);
}

/* ---- listeners and connecting ---- */

static uint16_t port;

static void serves_two(void *arg)
{
    (void)arg;
    struct cs_fd l;
    int fd;
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &fd) == CS_OK);
    port = cs_sock_port(fd);
    CS_CHECK(port != 0);
    CS_CHECK(cs_fd_open_listener(the_loop, &l, fd) == CS_OK);
    cs_event_set(&ev);
    for (int i = 0; i < 2; i++) {
        struct sockaddr_storage peer;
        int c;
        CS_CHECK(cs_accept(&l, &c, &peer) == CS_OK);
        char text[CS_ADDR_TEXT];
        CS_CHECK(strncmp(cs_addr_text((struct sockaddr *)&peer, text), "127.0.0.1:", 10) == 0);
        CS_CHECK((fcntl(c, F_GETFL) & O_NONBLOCK) != 0 && (fcntl(c, F_GETFD) & FD_CLOEXEC) != 0);
        (void)close(c);
        say('a');
        /* nobody accepts for a while, with one more waiting: the loop must sleep, not spin */
        struct timespec t0, t1;
        CS_CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t0) == 0);
        CS_CHECK(cs_co_sleep(100 * CS_NS_PER_MS));
        CS_CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t1) == 0);
        long us = (t1.tv_sec - t0.tv_sec) * 1000000 + (t1.tv_nsec - t0.tv_nsec) / 1000;
        CS_CHECK(us < 50000);
    }
    cs_fd_close(&l);
}

static void connects(void *arg)
{
    (void)arg;
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &ev);
    CS_CHECK(cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_READY);
    struct sockaddr_storage sa;
    socklen_t len;
    CS_CHECK(cs_addr_parse(CS_SLICE_LIT("127.0.0.1"), port, &sa, &len));
    int fd;
    CS_CHECK(cs_connect((struct sockaddr *)&sa, len, cs_mono_ns() + CS_NS_PER_S, &fd) == CS_OK);
    CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    (void)close(fd);
    say('c');
}

CS_TEST(listener_accepts_and_an_ignored_one_does_not_spin)
{
    begin();
    spawn(serves_two, NULL);
    spawn(connects, NULL);
    spawn(connects, NULL);
    end();
    CS_EQ_U64(trace_n, 4);
}

struct sharer { /* a process that waits on the shared listener and says what it does */
    int listener, says;
};

static void accepts_one(void *arg)
{
    const struct sharer *s = arg;
    struct cs_fd l;
    int c = -1;
    CS_CHECK(cs_fd_open_listener(the_loop, &l, s->listener) == CS_OK);
    CS_CHECK(write(s->says, "w", 1) == 1);
    CS_CHECK(cs_accept(&l, &c, NULL) == CS_OK);
    CS_CHECK(write(s->says, "a", 1) == 1);
    (void)close(c);
    cs_fd_close(&l);
}

/* On our processor, and only when we leave it idle: what wakes it does not run it. */
static void stay_behind(void)
{
    cpu_set_t here;
    const struct sched_param param = {.sched_priority = 0};
    CPU_ZERO(&here);
    CPU_SET((size_t)sched_getcpu(), &here);
    CS_CHECK(sched_setaffinity(0, sizeof here, &here) == 0);
    CS_CHECK(sched_setscheduler(0, SCHED_IDLE, &param) == 0);
}

static pid_t share(int listener, bool slow, int *ret_says)
{
    int p[2];
    cpu_set_t here;
    CS_CHECK(pipe(p) == 0);
    if (slow) { /* both on one processor from here on */
        CPU_ZERO(&here);
        CPU_SET((size_t)sched_getcpu(), &here);
        CS_CHECK(sched_setaffinity(0, sizeof here, &here) == 0);
    }
    pid_t pid = fork();
    if (pid == 0) {
        struct sharer s = {dup(listener), p[1]};
        if (slow) {
            stay_behind();
        }
        begin();
        spawn(accepts_one, &s);
        end();
        _exit(0);
    }
    (void)close(p[1]);
    char byte = 0;
    CS_CHECK(read(p[0], &byte, 1) == 1 && byte == 'w');
    *ret_says = p[0];
    return pid;
}

/* Sleeping: then its descriptor of the listener is armed. */
static void until_asleep(pid_t pid)
{
    char path[64], text[512];
    const char *state = NULL;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    do {
        int fd = open(path, O_RDONLY);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
        CS_CHECK(n > 0 && close(fd) == 0);
        text[n] = 0;
        state = strrchr(text, ')');
        CS_CHECK(state != NULL && usleep(2000) == 0);
    } while (state[2] != 'S');
}

/* One connection for two that wait; the first is killed before it can accept. False: it was faster
 * this time. */
static bool killed_before_it_accepts(void)
{
    int l, says[2], status;
    struct sockaddr_storage sa;
    socklen_t len;
    char byte = 0;
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &l) == CS_OK);
    pid_t first = share(l, true, &says[0]);
    until_asleep(first);
    pid_t second = share(l, false, &says[1]);
    until_asleep(second);
    CS_CHECK(cs_addr_parse(CS_SLICE_LIT("127.0.0.1"), cs_sock_port(l), &sa, &len));
    (void)close(l);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CS_CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&sa, len) == 0);
    CS_CHECK(kill(first, SIGKILL) == 0 && waitpid(first, &status, 0) == first);
    bool accepted = read(says[0], &byte, 1) == 1;
    struct pollfd p = {.fd = says[1], .events = POLLIN};
    bool served = accepted || poll(&p, 1, 20000) == 1;
    if (accepted || !served) {
        CS_CHECK(kill(second, SIGKILL) == 0);
    }
    CS_CHECK(served && (accepted || read(says[1], &byte, 1) == 1));
    CS_CHECK(waitpid(second, &status, 0) == second && (accepted || status == 0));
    (void)close(fd);
    (void)close(says[0]);
    (void)close(says[1]);
    return !accepted;
}

/* SECURITY: whoever can kill one gate must not make others' connections wait. */
CS_TEST(a_connection_whose_process_dies_before_it_accepts_goes_to_another)
{
    unsigned n = 0;
    for (unsigned i = 0; i < 8; i++) {
        n += killed_before_it_accepts();
    }
    CS_CHECK(n > 0);
}

static void connects_to_nobody(void *arg)
{
    (void)arg;
    int l;
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &l) == CS_OK);
    uint16_t dead = cs_sock_port(l);
    (void)close(l);
    struct sockaddr_storage sa;
    socklen_t len;
    CS_CHECK(cs_addr_parse(CS_SLICE_LIT("127.0.0.1"), dead, &sa, &len));
    int fd = -7;
    CS_CHECK(cs_connect((struct sockaddr *)&sa, len, cs_mono_ns() + CS_NS_PER_S, &fd) ==
             CS_ERR_REFUSED);
    CS_CHECK(fd == -7);
    say('n');
}

CS_TEST(connect_to_a_closed_port_is_refused)
{
    begin();
    spawn(connects_to_nobody, NULL);
    end();
    CS_EQ_STR(cs_slice_str(trace), "n");
}

static void accept_until_cancelled(void *arg)
{
    struct cs_fd *l = arg;
    int fd;
    CS_CHECK(cs_accept(l, &fd, NULL) == CS_ERR_CANCELLED);
    cs_fd_close(l);
    say('x');
}

CS_TEST(accept_can_be_cancelled)
{
    begin();
    static struct cs_fd l;
    int fd;
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("[::1]:0"), &fd) == CS_OK);
    CS_CHECK(cs_fd_open_listener(the_loop, &l, fd) == CS_OK);
    cs_handle h = spawn(accept_until_cancelled, &l);
    spawn(cancels, &h);
    end();
    CS_EQ_STR(cs_slice_str(trace), "xd");
}
