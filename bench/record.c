/* Figures of recordings (docs/performance.md): writing, compressing, checking, seeking. Run by
 * bench/run.py, or by hand: record [DIRECTORY [MEGABYTES [noise]]]. Figures are ratios of an
 * interleaved run, or CPU time of this process; the absolute speed of a disk means nothing here.
 * With "noise" nothing compresses, so that the file is as large as what is in it: for one of 10 GB.
 */
#include "action/frame.h"
#include "base/alloc.h"
#include "base/time.h"
#include "record/csr_read.h"
#include "record/replay.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { TEXT = 600, NOISE = 2 * 1024 };

static void demand(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "record: %s\n", what);
        exit(1);
    }
}

static double cpu_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void figure(const char *name, double value, const char *unit, bool most, double bound)
{
    bool good = most ? value <= bound : value >= bound;
    printf("figure: %-34s %8.2f %-10s must %s %-6g %s\n", name, value, unit,
           most ? "<=" : ">=", bound, good ? "ok" : "short");
    (void)fflush(stdout);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return v[n / 2];
}

static uint64_t random_state = 88172645463325252ULL;
static uint64_t any(uint64_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

/* An action as a gate writes it, with text as applications send it. */
static size_t event_make(uint8_t *out, size_t cap, const struct cs_id *session, uint64_t i,
                         uint64_t wall_ms)
{
    static const char *const tables[] = {"orders", "customers", "invoices", "items", "payments"};
    char text[TEXT];
    (void)snprintf(
        text, sizeof text,
        "select t.id, t.name, t.state, t.price, t.changed_at from %s t where t.customer_id "
        "= %llu and t.state in ('open', 'sent', 'paid') and t.changed_at > '2026-11-%02u' "
        "order by t.changed_at desc limit %u",
        tables[any(5)], (unsigned long long)any(10000000), (unsigned)(1 + any(28)),
        (unsigned)(10 * any(10)));
    struct cs_frame_head head = {CS_FRAME_ACTION, wall_ms, *session};
    struct cs_frame_action a = {.n = i,
                                .outcome = 2,
                                .rules = CS_SLICE_LIT("read-orders"),
                                .policy = 0x1234567890abcdef,
                                .effects = CS_SLICE_LIT("read"),
                                .verb = CS_SLICE_LIT("SELECT"),
                                .text = cs_slice_str(text),
                                .tx = CS_SLICE_LIT("none")};
    struct cs_writer w = cs_writer(out, cap);
    cs_frame_encode(&w, &head, &a);
    return cs_writer_done(&w).n;
}

/* What nothing can compress, for a file of many gigabytes. */
static size_t noise_make(uint8_t *out, size_t cap, const struct cs_id *session, uint64_t i,
                         uint64_t wall_ms)
{
    static uint8_t text[NOISE];
    for (size_t k = 0; k < sizeof text; k += sizeof random_state) {
        (void)any(2);
        memcpy(text + k, &random_state, sizeof random_state);
    }
    struct cs_frame_head head = {CS_FRAME_RESULT, wall_ms, *session};
    struct cs_frame_result r = {.n = i, .ok = 1, .message = cs_slice(text, sizeof text)};
    struct cs_writer w = cs_writer(out, cap);
    cs_frame_encode(&w, &head, &r);
    return cs_writer_done(&w).n;
}

static struct cs_csr_to keys_for(uint8_t private[static CS_X25519])
{
    struct cs_csr_to to = {.n = 1};
    cs_random(private, CS_X25519);
    (void)cs_wrapped_key_name(cs_wall_ms(), to.key[0].name);
    demand(cs_x25519_public(private, to.key[0].public) == CS_OK, "no key");
    return to;
}

/* About 64 KiB of text, or 192 of noise, as one frame. */
static void frame_fill(struct cs_csr_writer *w, struct cs_csr_stream *s,
                       const struct cs_id *session, uint64_t *i, uint64_t now, bool noise)
{
    static uint8_t event[2 * NOISE];
    for (unsigned k = 0; k < (noise ? 96 : 100); k++) {
        (*i)++;
        size_t n = noise ? noise_make(event, sizeof event, session, *i, now + *i)
                         : event_make(event, sizeof event, session, *i, now + *i);
        demand(cs_csr_add(w, s, cs_slice(event, n), true, (now + *i) * CS_NS_PER_MS) == CS_OK,
               "add");
    }
}

/* One recording of so many plain bytes: how fast it is made, how small it is. */
static void one_file(const char *path, const struct cs_csr_to *to, const struct cs_id *session,
                     uint64_t plain, bool noise)
{
    static uint8_t out[CS_CSR_FRAME_MAX];
    struct cs_csr_writer w;
    struct cs_gcm *gcm = cs_gcm_new();
    struct cs_csr_stream *s = cs_csr_stream_new();
    size_t n = 0;
    uint64_t now = cs_wall_ms(), i = 0;
    double cpu = 0;
    FILE *f = fopen(path, "wb");
    demand(f != NULL && gcm != NULL && s != NULL, "the file cannot be made");
    demand(cs_csr_begin(&w, to, session, 1, now, out, sizeof out, &n) == CS_OK, "begin");
    demand(fwrite(out, 1, n, f) == n, "write");
    while (w.plain_bytes < plain) {
        double before = cpu_s();
        n = 0;
        frame_fill(&w, s, session, &i, now, noise);
        demand(cs_csr_flush(&w, gcm, out, sizeof out, &n) == CS_OK, "flush");
        cpu += cpu_s() - before;
        demand(fwrite(out, 1, n, f) == n, "write");
        if (cs_csr_index_is_due(&w)) {
            demand(cs_csr_index_frame(&w, gcm, out, sizeof out, &n) == CS_OK, "index");
            demand(fwrite(out, 1, n, f) == n, "write");
        }
    }
    if (w.n_entries > 0) {
        demand(cs_csr_index_frame(&w, gcm, out, sizeof out, &n) == CS_OK, "index");
        demand(fwrite(out, 1, n, f) == n, "write");
    }
    demand(cs_csr_end_frame(&w, gcm, CS_CSR_END_CLOSED, now, out, sizeof out, &n) == CS_OK, "end");
    demand(fwrite(out, 1, n, f) == n && fclose(f) == 0, "write");
    double mb = (double)w.plain_bytes / 1e6;
    if (!noise) {
        figure("record-write", mb / cpu, "MB/s", false, 100); /* making the text included */
        figure("record-compression", (double)w.plain_bytes / (double)w.offset, "x", false, 4);
    }
    printf("        %.0f MB plain, %.0f MB on disk, %llu frames\n", mb, (double)w.offset / 1e6,
           (unsigned long long)w.seq);
    cs_csr_writer_done(&w);
    cs_csr_stream_free(s);
    cs_gcm_free(gcm);
}

/* Checking without keys against nothing but SHA-256 of the same bytes. */
static void check(const char *path, unsigned rounds, uint64_t *ret_ms)
{
    static uint8_t room[1 << 20];
    double ratios[5], sha = 0, scan = 0;
    int fd = open(path, O_RDONLY);
    uint64_t size = (uint64_t)lseek(fd, 0, SEEK_END), last_ns = 0;
    for (size_t k = 0; k < rounds; k++) {
        struct cs_hasher h;
        struct cs_csr_scanner s;
        uint8_t digest[CS_SHA256];
        double t0 = cpu_s();
        cs_hasher_start(&h);
        for (uint64_t at = 0; at < size;) {
            ssize_t n = pread(fd, room, sizeof room, (off_t)at);
            demand(n > 0, "read");
            cs_hasher_add(&h, cs_slice(room, (size_t)n));
            at += (uint64_t)n;
        }
        cs_hasher_finish(&h, digest);
        double t1 = cpu_s();
        demand(cs_csr_scan_start(&s, cs_csr_descriptor(&fd, size)) == CS_OK, "scan");
        while (cs_csr_scan_next(&s) == CS_CSR_SCAN_FRAME) {
        }
        demand(s.ended, "the recording is not good");
        last_ns = s.last_ns;
        *ret_ms = last_ns / CS_NS_PER_MS - s.head.started_ms;
        cs_csr_scan_done(&s);
        double t2 = cpu_s();
        sha = t1 - t0;
        scan = t2 - t1;
        ratios[k] = sha / scan;
    }
    (void)close(fd);
    figure(rounds == 1 ? "record-check-to-sha256-10gb" : "record-check-to-sha256",
           median(ratios, rounds), "ratio", false, 0.6);
}

static void seek(const char *directory, const struct cs_id *session,
                 const uint8_t private[static CS_X25519], uint64_t length_ms, const char *name)
{
    double ms[15];
    for (size_t k = 0; k < 15; k++) {
        struct cs_replay *r = NULL;
        struct cs_replay_query q = {.from_ms = 1 + any(length_ms - 1), .cap = 64 * 1024};
        struct cs_buf out = cs_buf((size_t)8 << 20);
        uint64_t before = cs_mono_ns();
        demand(cs_replay_open(directory, session, &r) == CS_OK, "open");
        demand(cs_replay_own_key(r, private) == 1, "its key");
        demand(cs_replay_json(r, &q, &out) == CS_OK && out.len > 30000, "nothing was read");
        ms[k] = (double)(cs_mono_ns() - before) / 1e6;
        cs_replay_close(r);
        cs_buf_done(&out);
    }
    figure(name, median(ms, 15), "ms", true, 200);
}

int main(int argc, char **argv)
{
    char made[] = "/tmp/cs-bench-record-XXXXXX", path[600], name[CS_CSR_NAME], command[700];
    const char *directory = argc > 1 ? argv[1] : mkdtemp(made);
    uint64_t mb = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000, length_ms = 0;
    uint8_t private[CS_X25519];
    struct cs_id session = cs_id_new();
    demand(directory != NULL, "no directory");
    struct cs_csr_to to = keys_for(private);
    (void)snprintf(path, sizeof path, "%s/%s", directory, cs_csr_name(&session, false, 0, name));
    bool noise = argc > 3 && strcmp(argv[3], "noise") == 0;
    one_file(path, &to, &session, mb * 1000000, noise);
    check(path, noise ? 1 : 5, &length_ms);
    seek(directory, &session, private, length_ms, noise ? "record-seek-10gb" : "record-seek");
    if (noise) {
        struct rusage used;
        demand(getrusage(RUSAGE_SELF, &used) == 0, "memory");
        figure("record-10gb-memory", (double)used.ru_maxrss / 1024, "MB", true, 64);
    }
    (void)unlink(path);
    if (argc <= 1) {
        (void)snprintf(command, sizeof command, "rm -rf %s", directory);
        return system(command) == 0 ? 0 : 1;
    }
    return 0;
}
