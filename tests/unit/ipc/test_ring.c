#include "base/id.h"
#include "ipc/ring.h"
#include "tap.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

enum { SMALL = 4096 };

static struct cs_loop *loop;
static int fds[3];
static struct cs_ring w, r; /* the two sides */

static void dup_all(int out[3])
{
    for (int i = 0; i < 3; i++) {
        out[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        CS_CHECK(out[i] >= 0);
    }
}

static void make(size_t bytes)
{
    CS_CHECK(cs_ring_make(bytes, fds) == CS_OK);
    loop = cs_loop_new();
}

static void open_side(bool writer)
{
    int d[3];
    dup_all(d);
    CS_CHECK(cs_ring_open(loop, d, writer, writer ? &w : &r) == CS_OK);
}

static void open_both(size_t bytes)
{
    make(bytes);
    open_side(true);
    open_side(false);
}

static uint64_t append(const char *a, const char *b)
{
    struct cs_slice p[2] = {cs_slice_str(a), cs_slice_str(b)};
    uint64_t seq = 0;
    CS_CHECK(cs_ring_append(&w, p, 2, &seq) == CS_OK);
    return seq;
}

static void expect(const char *text, uint64_t seq)
{
    char got[SMALL];
    size_t n;
    uint64_t s;
    CS_CHECK(cs_ring_read(&r, got, sizeof got, &n, &s) == CS_OK);
    CS_EQ_SLICE(cs_slice(got, n), cs_slice_str(text));
    CS_EQ_U64(s, seq);
}

static void expect_nothing(void)
{
    char got[8];
    size_t n;
    uint64_t s;
    CS_CHECK(cs_ring_read(&r, got, sizeof got, &n, &s) == CS_ERR_NOT_FOUND);
}

CS_TEST(records_come_out_as_they_went_in)
{
    open_both(SMALL);
    expect_nothing();
    CS_EQ_U64(append("hello ", "world"), 1);
    CS_EQ_U64(append("", ""), 2);
    CS_EQ_U64(append("x", ""), 3);
    expect("hello world", 1);
    expect("", 2);
    expect("x", 3);
    expect_nothing();
    CS_CHECK(!cs_ring_is_durable(&w, 1));
    cs_ring_set_durable(&r, 3);
    CS_CHECK(cs_ring_is_durable(&w, 1) && cs_ring_is_durable(&w, 3) && !cs_ring_is_durable(&w, 4));
    cs_ring_close(&w);
    cs_ring_close(&r);
    cs_ring_close(&r);
    cs_loop_free(loop);
}

CS_TEST(records_of_every_size_survive_the_wrap)
{
    static uint8_t in[SMALL], out[SMALL];
    cs_random(in, sizeof in);
    open_both(SMALL);
    uint64_t seq = 0, got_seq;
    for (unsigned round = 0; round < 20; round++) {
        for (size_t n = 0; n <= SMALL - 16; n += 1 + n / 16) {
            size_t cut = n / 3, got;
            struct cs_slice p[3] = {cs_slice(in, cut), cs_slice(in + cut, cut),
                                    cs_slice(in + 2 * cut, n - 2 * cut)};
            CS_CHECK(cs_ring_append(&w, p, 3, &seq) == CS_OK);
            CS_CHECK(cs_ring_read(&r, out, sizeof out, &got, &got_seq) == CS_OK);
            CS_CHECK(got == n && got_seq == seq && memcmp(in, out, n) == 0);
            cs_ring_set_durable(&r, seq);
        }
    }
    struct cs_slice too_large = cs_slice(in, SMALL - 15);
    CS_CHECK(cs_ring_append(&w, &too_large, 1, &seq) == CS_ERR_TOO_LARGE);
    too_large.n = SIZE_MAX / 2;
    CS_CHECK(cs_ring_append(&w, &too_large, 1, &seq) == CS_ERR_TOO_LARGE);
}

CS_TEST(full_ring_says_so_and_only_durability_makes_room)
{
    static const uint8_t block[1000];
    struct cs_slice p = cs_slice(block, sizeof block);
    uint8_t out[1000];
    size_t n;
    uint64_t seq;
    open_both(SMALL);
    for (unsigned i = 0; i < 4; i++) {
        CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_OK);
    }
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_ERR_LIMIT);
    CS_CHECK(cs_ring_read(&r, out, sizeof out, &n, &seq) == CS_OK);
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_ERR_LIMIT); /* read is not durable */
    cs_ring_set_durable(&r, 1);
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_OK);
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_ERR_LIMIT);
    CS_EQ_U64(seq, 5);
}

CS_TEST(what_is_acknowledged_is_durable_and_keeps_its_room_until_it_is_freed)
{
    static const uint8_t block[1000];
    struct cs_slice p = cs_slice(block, sizeof block);
    uint8_t out[1000];
    size_t n;
    uint64_t seq, written, there;
    open_both(SMALL);
    for (unsigned i = 0; i < 4; i++) {
        CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_OK);
    }
    CS_CHECK(cs_ring_read(&r, out, sizeof out, &n, &seq) == CS_OK);
    uint64_t first = r.tail;
    CS_CHECK(cs_ring_read(&r, out, sizeof out, &n, &seq) == CS_OK);
    cs_ring_acknowledge(&r, 2);
    CS_CHECK(cs_ring_is_durable(&w, 2) && !cs_ring_is_durable(&w, 3));
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_ERR_LIMIT);
    cs_ring_free(&r, first);
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_OK);
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_ERR_LIMIT);
    CS_CHECK(cs_ring_peek(fds[0], &written, &there) && there == first && written == w.head);
    cs_ring_free(&r, r.tail);
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_OK);
}

/* ---- waiting ---- */

static unsigned done;
static enum cs_err outcome;

static void waits_durable(void *arg)
{
    uint64_t seq = (uintptr_t)arg;
    outcome = cs_ring_wait_durable(&w, seq, cs_mono_ns() + 5 * CS_NS_PER_S);
    CS_CHECK(outcome != CS_OK || cs_ring_is_durable(&w, seq));
    done++;
}

static void waits_room(void *arg)
{
    (void)arg;
    outcome = cs_ring_wait_room(&w, 1000, cs_mono_ns() + 5 * CS_NS_PER_S);
    done++;
}

static void spawn(cs_co_fn fn, uintptr_t arg)
{
    cs_handle h;
    CS_CHECK(cs_co_spawn(loop, "test", fn, (void *)arg, &h) == CS_OK); /* NOLINT */
}

/* A recorder that makes one record durable after the other. */
static void recorder(void *arg)
{
    uint64_t last = (uintptr_t)arg;
    while (r.seq < last) {
        char buf[2000];
        size_t n;
        uint64_t seq;
        enum cs_err err = cs_ring_read(&r, buf, sizeof buf, &n, &seq);
        if (err == CS_OK) {
            CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
            cs_ring_set_durable(&r, seq);
            continue;
        }
        CS_CHECK(err == CS_ERR_NOT_FOUND);
        if (cs_ring_sleep(&r)) {
            struct cs_wait k = CS_WAIT_ON(CS_WAIT_READ, &r.kick);
            CS_CHECK(cs_wait(&k, 1, cs_mono_ns() + 5 * CS_NS_PER_S) == CS_WOKE_READY);
        }
    }
}

CS_TEST(many_wait_for_different_records_and_each_is_woken)
{
    open_both(SMALL);
    for (uintptr_t i = 1; i <= 20; i++) {
        append("record", "");
    }
    for (uintptr_t i = 20; i >= 1; i--) {
        spawn(waits_durable, i);
        spawn(waits_durable, i);
    }
    spawn(recorder, 20);
    cs_loop_run(loop);
    CS_EQ_U64(done, 40);
    CS_CHECK(outcome == CS_OK);
}

CS_TEST(waiter_for_room_is_woken)
{
    static const uint8_t block[1000];
    struct cs_slice p = cs_slice(block, sizeof block);
    uint64_t seq;
    open_both(SMALL);
    while (cs_ring_append(&w, &p, 1, &seq) == CS_OK) {
    }
    spawn(waits_room, 0);
    spawn(recorder, 1);
    cs_loop_run(loop);
    CS_CHECK(done == 1 && outcome == CS_OK);
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_OK);
    CS_CHECK(cs_ring_wait_room(&w, SMALL, 0) == CS_ERR_TOO_LARGE);
}

static void stops_health(void *arg)
{
    (void)arg;
    CS_CHECK(cs_co_sleep(2 * CS_NS_PER_MS));
    cs_ring_set_health(&r, CS_RECORD_STOPPED);
}

CS_TEST(stopped_recorder_refuses_and_wakes_the_waiters)
{
    open_both(SMALL);
    append("x", "");
    spawn(waits_durable, 1);
    spawn(stops_health, 0);
    cs_loop_run(loop);
    CS_CHECK(done == 1 && outcome == CS_ERR_NO_SPACE);
    struct cs_slice p = CS_SLICE_LIT("y");
    uint64_t seq = 9;
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_ERR_NO_SPACE && seq == 9);
    CS_CHECK(cs_ring_health(&w) == CS_RECORD_STOPPED);
    cs_ring_set_health(&r, CS_RECORD_HEALTHY);
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_OK && seq == 2);
    expect("x", 1);
    expect("y", 2);
}

static void waits_too_long(void *arg)
{
    (void)arg;
    CS_CHECK(cs_ring_wait_durable(&w, 1, cs_mono_ns() + 2 * CS_NS_PER_MS) == CS_ERR_TIMEOUT);
    cs_co_cancel(loop, cs_co_self());
    CS_CHECK(cs_ring_wait_durable(&w, 1, CS_FOREVER) == CS_ERR_CANCELLED);
    done++;
}

CS_TEST(wait_ends_by_deadline_or_cancellation)
{
    open_both(SMALL);
    append("x", "");
    spawn(waits_too_long, 0);
    cs_loop_run(loop);
    CS_EQ_U64(done, 1);
}

static unsigned kicks(int fd)
{
    uint64_t n = 0;
    return read(fd, &n, sizeof n) == sizeof n ? (unsigned)n : 0;
}

CS_TEST(system_calls_are_made_only_for_a_sleeping_reader)
{
    open_both(SMALL);
    append("a", "");
    CS_EQ_U64(kicks(fds[1]), 0);  /* awake: it will look before it sleeps */
    CS_CHECK(!cs_ring_sleep(&r)); /* and so it sees it */
    expect("a", 1);
    CS_CHECK(cs_ring_sleep(&r));
    append("b", "");
    append("c", "");
    CS_EQ_U64(kicks(fds[1]), 1);
    expect("b", 2);
    expect("c", 3);
    cs_ring_set_durable(&r, 3);
    CS_EQ_U64(kicks(fds[2]), 0); /* nobody waits */
}

CS_TEST(early_sync_is_asked_for_only_when_there_is_something_to_sync)
{
    open_both(SMALL);
    append("a", "");
    CS_CHECK(!cs_ring_wanted(&r));
    spawn(waits_too_long, 0);
    cs_loop_run(loop);             /* leaves its wish behind */
    CS_CHECK(!cs_ring_wanted(&r)); /* nothing read yet */
    expect("a", 1);
    CS_CHECK(cs_ring_wanted(&r) && !cs_ring_sleep(&r));
    cs_ring_set_durable(&r, 1);
    CS_CHECK(!cs_ring_wanted(&r) && cs_ring_sleep(&r));
}

/* ---- opening ---- */

CS_TEST(reader_goes_on_behind_the_last_durable_record)
{
    open_both(SMALL);
    append("a", "");
    append("b", "");
    append("c", "");
    expect("a", 1);
    expect("b", 2);
    cs_ring_set_durable(&r, 2);
    expect("c", 3); /* read, but never published */
    cs_ring_close(&r);
    append("d", "");
    open_side(false);
    expect("c", 3);
    expect("d", 4);
    expect_nothing();
}

CS_TEST(writer_does_not_get_a_used_ring)
{
    open_both(SMALL);
    append("a", "");
    int d[3];
    dup_all(d);
    struct cs_ring second;
    CS_CHECK(cs_ring_open(loop, d, true, &second) == CS_ERR_CONFLICT);
    CS_CHECK(fcntl(d[0], F_GETFD) < 0 && fcntl(d[1], F_GETFD) < 0 && fcntl(d[2], F_GETFD) < 0);
}

CS_TEST(ring_of_a_wrong_shape_is_refused)
{
    int d[3];
    CS_CHECK(cs_ring_make(100, d) == CS_ERR_INVALID);
    CS_CHECK(cs_ring_make(SMALL + 1, d) == CS_ERR_INVALID);
    CS_CHECK(cs_ring_make(0, d) == CS_ERR_INVALID);
    loop = cs_loop_new();
    for (unsigned i = 0; i < 4; i++) {
        int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        static const off_t sizes[] = {8192, 4096, 8193, 8192};
        CS_CHECK(ftruncate(fd, sizes[i]) == 0);
        /* 0: no seals · 1: no data · 2: odd size · 3: no magic */
        CS_CHECK(i == 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) == 0);
        int t[3] = {fd, eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)};
        CS_CHECK(cs_ring_open(loop, t, false, &r) == CS_ERR_PROTOCOL);
        CS_CHECK(fcntl(t[0], F_GETFD) < 0 && fcntl(t[1], F_GETFD) < 0);
    }
}

CS_TEST(ring_cannot_be_resized)
{
    make(SMALL);
    CS_CHECK(ftruncate(fds[0], 4096) != 0 && ftruncate(fds[0], 1 << 20) != 0);
    CS_CHECK(fcntl(fds[0], F_ADD_SEALS, F_SEAL_WRITE) != 0);
}

/* ---- a writer that lies ---- */

/* Where head and the data are: what a hostile gate knows. */
enum { HEAD_AT = 64, DATA_AT = 4096 };

static uint8_t *raw_map(void)
{
    uint8_t *p = mmap(NULL, DATA_AT + SMALL, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    CS_CHECK(p != MAP_FAILED);
    return p;
}

static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static void must_be_corrupt(void)
{
    char got[64];
    size_t n = 99;
    uint64_t s = 99;
    CS_CHECK(cs_ring_read(&r, got, sizeof got, &n, &s) == CS_ERR_CORRUPT);
    CS_CHECK(r.broken && n == 99 && s == 99);
    CS_CHECK(cs_ring_read(&r, got, sizeof got, &n, &s) == CS_ERR_CORRUPT); /* for ever */
    CS_CHECK(!cs_ring_wanted(&r) && cs_ring_sleep(&r));
}

CS_TEST(lying_indices_and_headers_break_the_ring_for_ever)
{
    struct lie {
        uint64_t head;
        uint32_t n, zero;
        uint64_t seq;
    };
    static const struct lie lies[] = {
        {UINT64_MAX & ~(uint64_t)7, 8, 0, 2}, /* backwards */
        {24 + SMALL + 8, 8, 0, 2},            /* more than the ring holds */
        {UINT64_C(1) << 40, 8, 0, 2},
        {24 + 25, 8, 0, 2}, /* unaligned */
        {24 + 8, 8, 0, 2},  /* less than a header */
        {16, 8, 0, 2},      /* before what was read */
        {48, 9, 0, 2},      /* length beyond head */
        {48, UINT32_MAX, 0, 2},
        {48, UINT32_MAX - 7, 0, 2},
        {48, 8, 1, 2}, /* not zero */
        {48, 8, 0, 1}, /* the same number again */
        {48, 8, 0, 3}, /* one left out */
        {48, 8, 0, 0},
        {24 + 16 + 72, 72, 0, 2}, /* more than the reader's buffer */
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(lies); i++) {
        open_both(SMALL);
        append("12345678", "");
        expect("12345678", 1);
        uint8_t *raw = raw_map();
        put32(raw + DATA_AT + 24, lies[i].n);
        put32(raw + DATA_AT + 28, lies[i].zero);
        put64(raw + DATA_AT + 32, lies[i].seq);
        put64(raw + HEAD_AT, lies[i].head);
        must_be_corrupt();
        cs_ring_close(&w);
        cs_ring_close(&r);
        (void)munmap(raw, DATA_AT + SMALL);
        for (int k = 0; k < 3; k++) {
            (void)close(fds[k]);
        }
        cs_loop_free(loop);
    }
}

CS_TEST(random_garbage_never_leads_the_reader_outside)
{
    unsigned read_ok = 0, corrupt = 0;
    for (unsigned round = 0; round < 3000; round++) {
        open_both(SMALL);
        uint8_t *raw = raw_map();
        uint8_t noise[512];
        cs_random(noise, sizeof noise);
        /* indices, and the first records; small numbers now and then, to come past the checks */
        for (unsigned i = 0; i < 8; i++) {
            uint64_t v;
            memcpy(&v, noise + i * 8, sizeof v);
            put64(raw + HEAD_AT + 8 * (v % 48), noise[100 + i] % 2 ? v : v % 128 * 8);
            put64(raw + DATA_AT + 8 * (size_t)noise[200 + i], noise[120 + i] % 3 ? v % 64 : v);
        }
        if (round % 2 == 0) {
            put32(raw + DATA_AT, noise[0]);
            put32(raw + DATA_AT + 4, 0);
            put64(raw + DATA_AT + 8, 1);
        }
        char *got = cs_alloc(256);
        size_t n;
        uint64_t s;
        for (unsigned i = 0; i < 20; i++) {
            enum cs_err err = cs_ring_read(&r, got, 256, &n, &s);
            CS_CHECK(err != CS_OK || n <= 256);
            read_ok += err == CS_OK;
            corrupt += err == CS_ERR_CORRUPT;
            if (err != CS_OK) {
                break;
            }
            cs_ring_set_durable(&r, s);
        }
        /* and the same for a new reader, and for the writer */
        cs_ring_close(&r);
        open_side(false);
        enum cs_err again = cs_ring_read(&r, got, 256, &n, &s);
        CS_CHECK(again != CS_OK || n <= 256);
        struct cs_slice p = cs_slice(noise, 200);
        again = cs_ring_append(&w, &p, 1, &s);
        CS_CHECK(again != CS_ERR_TOO_LARGE);
        cs_free(got);
        cs_ring_close(&w);
        cs_ring_close(&r);
        (void)munmap(raw, DATA_AT + SMALL);
        for (int i = 0; i < 3; i++) {
            (void)close(fds[i]);
        }
        cs_loop_free(loop);
    }
    printf("# %u records read, %u rings found corrupt\n", read_ok, corrupt);
    CS_CHECK(read_ok > 0 && corrupt > 100);
}

CS_TEST(writer_refuses_a_tail_that_lies)
{
    open_both(SMALL);
    uint8_t *raw = raw_map();
    static const uint8_t block[1000];
    struct cs_slice p = cs_slice(block, sizeof block);
    uint64_t seq;
    while (cs_ring_append(&w, &p, 1, &seq) == CS_OK) {
    }
    put64(raw + 128, UINT64_C(1) << 50); /* tail, beyond head */
    CS_CHECK(cs_ring_append(&w, &p, 1, &seq) == CS_ERR_NO_SPACE);
    CS_CHECK(w.broken && cs_ring_health(&w) == CS_RECORD_STOPPED && !cs_ring_is_durable(&w, 1));
}

/* ---- two processes ---- */

/* What record number `seq` holds, so that the other process can check it. */
static size_t content(uint64_t seq, uint8_t *out)
{
    uint64_t x = seq * UINT64_C(0x9e3779b97f4a7c15);
    size_t n = (size_t)(x >> 40) % 700;
    for (size_t i = 0; i < n; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(out + i, &x, sizeof x);
    }
    return n;
}

struct shared {
    uint64_t last; /* the writer's last number, 0 = not yet known */
    uint64_t first_seen, seen, durable;
};
static struct shared *shared;

static void reading_process(void *arg)
{
    bool hurry = arg != NULL;
    static uint8_t got[1024], want[1024];
    size_t n;
    uint64_t seq;
    for (;;) {
        enum cs_err err = cs_ring_read(&r, got, sizeof got, &n, &seq);
        if (err == CS_OK) {
            CS_CHECK(shared->first_seen != 0 || (shared->first_seen = seq) != 0);
            CS_CHECK(n == content(seq, want) && memcmp(got, want, n) == 0);
            shared->seen = seq;
            if (cs_ring_wanted(&r) || seq % 64 == 0) {
                cs_ring_set_durable(&r, seq);
                shared->durable = seq;
            }
            continue;
        }
        CS_CHECK(err == CS_ERR_NOT_FOUND);
        cs_ring_set_durable(&r, r.seq);
        shared->durable = r.seq;
        if (hurry && shared->last != 0 && r.seq == shared->last) {
            return;
        }
        if (cs_ring_sleep(&r)) {
            struct cs_wait k = CS_WAIT_ON(CS_WAIT_READ, &r.kick);
            enum cs_woke woke = cs_wait(&k, 1, cs_mono_ns() + 20 * CS_NS_PER_MS);
            CS_CHECK(woke != CS_WOKE_CANCELLED);
        }
    }
}

static pid_t start_reader(void)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        loop = cs_loop_new();
        open_side(false);
        spawn(reading_process, 1);
        cs_loop_run(loop);
        fflush(NULL);
        _exit(0);
    }
    return pid;
}

static uint64_t total;

static void writing(void *arg)
{
    (void)arg;
    static uint8_t bytes[1024];
    uint64_t seq = 0;
    while (seq < total) {
        size_t n = content(seq + 1, bytes);
        struct cs_slice p = cs_slice(bytes, n);
        enum cs_err err = cs_ring_append(&w, &p, 1, &seq);
        if (err == CS_ERR_LIMIT) {
            CS_CHECK(cs_ring_wait_room(&w, n, cs_mono_ns() + 20 * CS_NS_PER_S) == CS_OK);
            continue;
        }
        CS_CHECK(err == CS_OK);
        if (seq % 1000 == 0) {
            CS_CHECK(cs_ring_wait_durable(&w, seq, cs_mono_ns() + 20 * CS_NS_PER_S) == CS_OK);
        }
    }
    shared->last = seq;
    CS_CHECK(cs_ring_wait_durable(&w, seq, cs_mono_ns() + 20 * CS_NS_PER_S) == CS_OK);
    done++;
}

static void share(void)
{
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CS_CHECK(shared != MAP_FAILED);
}

static void check_exit(pid_t pid)
{
    int status = -1;
    CS_CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

CS_TEST(two_processes_pass_every_record)
{
    share();
    make(64 * 1024);
    open_side(true);
    pid_t pid = start_reader();
    total = 100000;
    spawn(writing, 0);
    uint64_t start = cs_mono_ns();
    cs_loop_run(loop);
    CS_EQ_U64(done, 1);
    check_exit(pid);
    CS_EQ_U64(shared->seen, total);
    printf("# %.0f records a second\n", (double)total * 1e9 / (double)(cs_mono_ns() - start));
}

CS_TEST(reader_killed_at_any_time_loses_nothing)
{
    share();
    make(64 * 1024);
    total = 400000;
    fflush(NULL);
    pid_t writer = fork();
    if (writer == 0) {
        alarm(60);
        loop = cs_loop_new();
        open_side(true);
        spawn(writing, 0);
        cs_loop_run(loop);
        fflush(NULL);
        _exit(done != 1);
    }
    pid_t reader = start_reader();
    unsigned killed = 0;
    while (shared->last == 0) {
        uint16_t rnd;
        cs_random(&rnd, sizeof rnd);
        CS_CHECK(usleep(1000u + rnd / 8u) == 0);
        CS_CHECK(kill(reader, SIGKILL) == 0);
        int status;
        CS_CHECK(waitpid(reader, &status, 0) == reader);
        CS_CHECK(!WIFEXITED(status) || WEXITSTATUS(status) == 0);
        killed++;
        uint64_t durable = shared->durable;
        shared->first_seen = 0;
        reader = start_reader();
        CS_CHECK(usleep(1000) == 0);
        uint64_t first = shared->first_seen;
        CS_CHECK(first == 0 || first > durable);
    }
    check_exit(writer);
    check_exit(reader);
    CS_EQ_U64(shared->durable, total);
    printf("# killed %u times\n", killed);
    CS_CHECK(killed > 3);
}
