/* Figures of group commit (docs/performance.md): many sessions that wait for one barrier. Run by
 * bench/run.py, or by hand: commit [DIRECTORY [ROUNDS]]. Each side of a ratio is measured in turn
 * in one run on one disk: many waiters as a loop of RUN commits without a pause, which ends when
 * all is in its files; a single one until it may go on.
 *
 * The bound was set for a disk whose barrier takes about 3 ms; what 128 sessions cost in processor
 * time is the same on each disk, so on one that answers at once the ratio says nothing about the
 * commit. Therefore both: on the disk as it is, and with every fdatasync, ours and the raw one's,
 * made to take 3 ms at least (the linker puts ours in its place). */
#include "base/alloc.h"
#include "base/time.h"
#include "record/copier.h"
#include "record/files.h"
#include "record/journal.h"
#include "record/recordings.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { WAITING = 128, RUN = 8, ROUNDS_MAX = 10000, EVENT = 1024, TEXT = 600 };

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
static uint64_t barrier_ns; /* takes at least so long */

int __wrap_fdatasync(int fd)
{
    uint64_t until = cs_mono_ns() + barrier_ns;
    int got = __real_fdatasync(fd);
    uint64_t now = cs_mono_ns();
    if (now < until) {
        struct timespec rest = {0, (long)(until - now)};
        (void)nanosleep(&rest, NULL);
    }
    return got;
}

static void demand(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "commit: %s\n", what);
        exit(1);
    }
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
static size_t event_make(uint8_t *out, size_t cap, const struct cs_id *session, uint64_t i)
{
    static const char *const tables[] = {"orders", "customers", "invoices", "items", "payments"};
    char text[TEXT];
    (void)snprintf(text, sizeof text,
                   "update %s t set state = 'paid', changed_at = now() where t.customer_id = %llu "
                   "and t.state in ('open', 'sent') and t.changed_at > '2026-11-%02u'",
                   tables[any(5)], (unsigned long long)any(10000000), (unsigned)(1 + any(28)));
    struct cs_frame_head head = {CS_FRAME_ACTION, cs_wall_ms(), *session};
    struct cs_frame_action a = {.n = i,
                                .outcome = 2,
                                .rules = CS_SLICE_LIT("change-orders"),
                                .policy = 0x1234567890abcdef,
                                .effects = CS_SLICE_LIT("write"),
                                .verb = CS_SLICE_LIT("UPDATE"),
                                .text = cs_slice_str(text),
                                .tx = CS_SLICE_LIT("none")};
    struct cs_writer w = cs_writer(out, cap);
    cs_frame_encode(&w, &head, &a);
    return cs_writer_done(&w).n;
}

static enum cs_err nothing(void *arg, const struct cs_journal_entry *e)
{
    (void)arg;
    (void)e;
    return CS_OK;
}

enum step { STEP_TAKE, STEP_SEAL, STEP_SYNC, STEP_HAND, STEPS };

struct commit {
    struct cs_journal journal;
    struct cs_copier *copier;
    struct cs_recordings *recordings;
    struct cs_id sessions[WAITING];
    uint8_t events[RUN][WAITING][EVENT];
    size_t lengths[RUN][WAITING];
    uint64_t seq;
    uint64_t released_ns;  /* when who waited for the last one could go on */
    uint64_t steps[STEPS]; /* ns, of all commits of WAITING */
};

/* What waits in the rings when the commits begin. */
static void events_make(struct commit *c, size_t runs, size_t n)
{
    for (size_t k = 0; k < runs; k++) {
        for (size_t i = 0; i < n; i++) {
            c->lengths[k][i] = event_make(c->events[k][i], EVENT, &c->sessions[i], ++c->seq);
        }
    }
}

static void take(struct commit *c, size_t k, size_t n)
{
    const char *look = NULL;
    for (size_t i = 0; i < n; i++) {
        struct cs_slice event = cs_slice(c->events[k][i], c->lengths[k][i]);
        struct cs_frame_head head;
        demand(cs_frame_decode_head(event, &head), "event");
        demand(cs_recordings_have_room(c->recordings), "the batch is full");
        demand(cs_recordings_add(c->recordings, 1, &head, event, &look) == CS_OK, "add");
    }
}

static void copied(struct commit *c)
{
    struct cs_copied got = {CS_OK, 0};
    demand(cs_copier_copied(c->copier, true, &got) && got.err == CS_OK, "copy");
    cs_recordings_copied(c->recordings);
}

/* As the recorder does it (record/batch.c): who waited goes on, and the batch is copied beside the
 * work on the next one, if the one before is there. */
static void hand_over(struct commit *c)
{
    copied(c);
    cs_copier_copy(c->copier, cs_journal_hand_over(&c->journal));
    cs_recordings_handed(c->recordings);
}

static size_t commit(struct commit *c, size_t k, size_t n)
{
    uint8_t row[16] = {1};
    uint64_t t[STEPS + 1];
    t[0] = cs_mono_ns();
    take(c, k, n);
    t[1] = cs_mono_ns();
    demand(cs_recordings_finish(c->recordings, cs_slice(row, sizeof row)) == CS_OK, "finish");
    size_t bytes = c->journal.batch_len;
    t[2] = cs_mono_ns();
    demand(cs_journal_sync(&c->journal) == CS_OK, "sync");
    c->released_ns = t[3] = cs_mono_ns();
    hand_over(c);
    t[4] = cs_mono_ns();
    for (size_t i = 0; i < STEPS && n == WAITING; i++) {
        c->steps[i] += t[i + 1] - t[i];
    }
    return bytes;
}

/* The same number of bytes, appended to a preallocated file by one write, and one fdatasync. */
static void raw(int fd, uint64_t *at, size_t n)
{
    static uint8_t bytes[CS_JOURNAL_BATCH];
    if (*at + n > CS_SEGMENT_BYTES) {
        *at = 0;
    }
    demand(pwrite(fd, bytes, n, (off_t)*at) == (ssize_t)n && fdatasync(fd) == 0, "raw");
    *at += n;
}

static void open_all(struct commit *c, const char *directory)
{
    struct cs_journal_recovery found = {0, 0, 0};
    struct cs_csr_to to = {.n = 1};
    uint8_t private[CS_X25519];
    char path[600];
    cs_random(private, CS_X25519);
    (void)cs_wrapped_key_name(cs_wall_ms(), to.key[0].name);
    demand(cs_x25519_public(private, to.key[0].public) == CS_OK, "no key");
    (void)snprintf(path, sizeof path, "%s/journal", directory);
    demand(cs_journal_open(&c->journal, path, 0, nothing, NULL, &found) == CS_OK, "journal");
    c->copier = cs_copier_new(c->journal.dir);
    c->recordings = cs_recordings_new(&c->journal, c->copier, NULL);
    demand(c->recordings != NULL, "memory");
    cs_recordings_help(c->recordings, 0); /* as the recorder does where there are processors */
    cs_recordings_keys(c->recordings, &to);
    for (size_t i = 0; i < WAITING; i++) {
        c->sessions[i] = cs_id_new();
    }
}

static void room(struct commit *c)
{
    if (cs_journal_full(&c->journal)) {
        demand(cs_journal_rotate(&c->journal) == CS_OK, "rotate");
    }
}

static double us_of(const struct commit *c, enum step step, size_t rounds)
{
    return (double)c->steps[step] / (double)(rounds * RUN) / 1e3;
}

static void measure(struct commit *c, int fd, size_t rounds, const char *many_name,
                    const char *one_name)
{
    static double many[ROUNDS_MAX], one[ROUNDS_MAX];
    uint64_t at = 0;
    events_make(c, 1, WAITING);
    size_t n_many = commit(c, 0, WAITING), n_one = commit(c, 0, 1); /* warm, and their sizes */
    memset(c->steps, 0, sizeof c->steps);
    for (size_t k = 0; k < rounds; k++) {
        events_make(c, RUN, WAITING);
        copied(c);
        uint64_t t0 = cs_mono_ns();
        for (size_t i = 0; i < RUN; i++) {
            raw(fd, &at, n_many);
        }
        uint64_t t1 = cs_mono_ns();
        for (size_t i = 0; i < RUN; i++) {
            room(c);
            n_many = commit(c, i, WAITING);
        }
        copied(c);
        uint64_t t2 = cs_mono_ns();
        events_make(c, 1, 1);
        room(c);
        uint64_t t3 = cs_mono_ns();
        raw(fd, &at, n_one);
        uint64_t t4 = cs_mono_ns();
        n_one = commit(c, 0, 1);
        many[k] = (double)(t1 - t0) / (double)(t2 - t1);
        one[k] = (double)(c->released_ns - t4) / (double)(t4 - t3);
    }
    figure(many_name, median(many, rounds), "ratio", false, 0.7);
    figure(one_name, median(one, rounds), "ratio", true, 1.3);
    printf("        %d waiting: %zu bytes a batch; one: %zu bytes\n", WAITING, n_many, n_one);
    printf(
        "        of %d: take %.0f us, seal %.0f us, write and barrier %.0f us, hand over %.0f us\n",
        WAITING, us_of(c, STEP_TAKE, rounds), us_of(c, STEP_SEAL, rounds),
        us_of(c, STEP_SYNC, rounds), us_of(c, STEP_HAND, rounds));
}

static void group_commit(const char *directory, size_t rounds)
{
    static struct commit c;
    char path_raw[600];
    open_all(&c, directory);
    (void)snprintf(path_raw, sizeof path_raw, "%s/raw", directory);
    int fd = open(path_raw, O_RDWR | O_CREAT | O_TRUNC, 0600);
    demand(fd >= 0 && posix_fallocate(fd, 0, CS_SEGMENT_BYTES) == 0 && fsync(fd) == 0, "raw file");
    measure(&c, fd, rounds, "record-group-commit-to-raw", "record-one-commit-to-barrier");
    barrier_ns = 3 * CS_NS_PER_MS;
    measure(&c, fd, rounds, "record-group-commit-3ms-barrier", "record-one-commit-3ms-barrier");
    (void)close(fd);
    cs_recordings_free(c.recordings);
    cs_copier_free(c.copier);
    cs_journal_close(&c.journal);
}

int main(int argc, char **argv)
{
    char made[] = "/tmp/cs-bench-commit-XXXXXX", command[700];
    const char *directory = argc > 1 ? argv[1] : mkdtemp(made);
    size_t rounds = argc > 2 ? strtoull(argv[2], NULL, 10) : 60;
    demand(directory != NULL && rounds > 0 && rounds <= ROUNDS_MAX, "no directory");
    group_commit(directory, rounds);
    if (argc <= 1) {
        (void)snprintf(command, sizeof command, "rm -rf %s", directory);
        return system(command) == 0 ? 0 : 1;
    }
    return 0;
}
