/* The ring between a gate and the recorder: what an append costs the gate, and how much passes
 * through it when writer and reader take turns on one processor. Frames as a short query leaves
 * them. Prints lines for bench/run.py. */
#include "ipc/ring.h"

#include "base/time.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { RING = 4 * 1024 * 1024, FRAME = 240, ROUNDS = 200, BATCH = 8000 };

static struct cs_ring writer, reader;
static uint64_t append_ns, read_ns, frames;

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "ring: %s failed\n", what);
        exit(1);
    }
}

static void one_round(void)
{
    static uint8_t frame[FRAME], into[4096];
    struct cs_slice piece = cs_slice(frame, sizeof frame);
    uint64_t seq = 0, last = 0, began = cs_mono_ns();
    unsigned n = 0;
    while (n < BATCH && cs_ring_append(&writer, &piece, 1, &seq) == CS_OK) {
        n++;
    }
    append_ns += cs_mono_ns() - began;
    began = cs_mono_ns();
    size_t size = 0;
    unsigned got = 0;
    while (cs_ring_read(&reader, into, sizeof into, &size, &last) == CS_OK) {
        got++;
    }
    cs_ring_set_durable(&reader, last);
    read_ns += cs_mono_ns() - began;
    must(n > 0 && got == n && last == seq, "reading what was written");
    frames += n;
}

static void run(void *arg)
{
    int fds[3], again[3];
    (void)arg;
    must(cs_ring_make(RING, fds) == CS_OK, "making");
    for (int i = 0; i < 3; i++) {
        again[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    }
    must(cs_ring_open(cs_co_loop(), fds, true, &writer) == CS_OK, "opening for writing");
    must(cs_ring_open(cs_co_loop(), again, false, &reader) == CS_OK, "opening for reading");
    for (unsigned i = 0; i < ROUNDS; i++) {
        one_round();
    }
    cs_ring_close(&writer);
    cs_ring_close(&reader);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    must(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0, "the clock");
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

int main(void)
{
    cs_handle co;
    struct cs_loop *loop = cs_loop_new();
    must(loop != NULL && cs_co_spawn(loop, "ring", run, NULL, &co) == CS_OK, "starting");
    uint64_t before = cpu_ns();
    cs_loop_run(loop);
    uint64_t all = cpu_ns() - before;
    cs_loop_free(loop);
    printf("append_ns %.1f\n", (double)append_ns / (double)frames);
    printf("mb_per_s %.1f\n", (double)frames * FRAME * 1000 / (double)(append_ns + read_ns));
    /* Of the processor, so that what else the machine does counts less; its own loop included. */
    printf("cpu_ns %.1f\n", (double)all / (double)frames);
    return 0;
}
