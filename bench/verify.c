/* Figures of verify (docs/performance.md): a long recording against its log, and a long log. Run by
 * bench/run.py, or by hand: verify [MEGABYTES [LEAVES]]. CPU time of this process, in turn with
 * what it is compared with. */
#include "verify/verify.h"
#include "base/alloc.h"
#include "evidence.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 5 };

static void demand(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "verify: %s\n", what);
        exit(1);
    }
}

static double cpu_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void figure(const char *name, double value, const char *unit, double least)
{
    printf("figure: %-34s %8.2f %-10s must >= %-6g %s\n", name, value, unit, least,
           value >= least ? "ok" : "short");
    (void)fflush(stdout);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof *v, by_value);
    return v[ROUNDS / 2];
}

static void check(const char *path)
{
    struct cs_report report;
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct cs_verify v = {.dir = dir};
    cs_report_init(&report, path);
    demand(dir >= 0, "the directory cannot be opened");
    cs_verify_directory(&v, &report);
    demand(report.worst == CS_VERDICT_INTACT, "the evidence is not intact");
    cs_report_done(&report);
    (void)close(dir);
}

/* The file's bytes and nothing but SHA-256. */
static void bare(const char *path, const char *name)
{
    static uint8_t piece[1024 * 1024];
    char file[300];
    struct cs_hasher h;
    uint8_t out[CS_SHA256];
    (void)snprintf(file, sizeof file, "%s/%s", path, name);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    demand(fd >= 0, "the recording cannot be opened");
    cs_hasher_start(&h);
    for (ssize_t n; (n = read(fd, piece, sizeof piece)) > 0;) {
        cs_hasher_add(&h, cs_slice(piece, (size_t)n));
    }
    cs_hasher_finish(&h, out);
    (void)close(fd);
}

static void recording(const char *path, unsigned megabytes)
{
    struct evidence e;
    static struct evidence_session s;
    double ratio[ROUNDS];
    evidence_begin(&e, path);
    evidence_open(&s, &e, 1);
    for (unsigned i = 0; i < megabytes * 4; i++) {
        evidence_frame(&s, 256 * 1024);
    }
    evidence_close(&s, false);
    evidence_save(&s);
    evidence_done(&e);
    for (size_t i = 0; i < ROUNDS; i++) {
        double a = cpu_s();
        bare(path, "01010101010101010101010101010101.csr");
        double b = cpu_s();
        check(path);
        ratio[i] = (b - a) / (cpu_s() - b);
    }
    figure("verify-to-sha256", median(ratio), "of it", 0.6);
}

/* Leaves as a busy gateway writes them: a login with a sealed name, a held action, a vote. */
static void leaves(const char *path, uint64_t n)
{
    struct evidence e;
    uint8_t public[1][CS_X25519], digest[CS_SHA256] = {1};
    struct cs_buf who = cs_buf(CS_LEAF_SEALED_MAX);
    double rate[ROUNDS];
    evidence_begin(&e, path);
    demand(cs_x25519_public(e.holder, public[0]) == CS_OK &&
               cs_leaf_seal(CS_LEAF_LOGIN, CS_KEY_WHO, CS_SLICE_LIT("alice@example.com"),
                            (const uint8_t(*)[CS_X25519]) public, 1, &who) == CS_OK,
           "sealing failed");
    for (uint64_t i = 0; i < n; i++) {
        struct cs_leaf l = {.kind = i % 3 == 0 ? CS_LEAF_LOGIN : CS_LEAF_VOTE};
        char request[24];
        (void)snprintf(request, sizeof request, "%08llu", (unsigned long long)i);
        cs_leaf_set(&l, CS_KEY_WHO, cs_buf_slice(&who));
        cs_leaf_set_uint(&l, CS_KEY_OUTCOME, 2);
        if (l.kind == CS_LEAF_LOGIN) {
            cs_leaf_set(&l, CS_KEY_WHAT, CS_SLICE_LIT("token"));
        } else {
            cs_leaf_set(&l, CS_KEY_REQUEST, cs_slice_str(request));
            cs_leaf_set(&l, CS_KEY_DIGEST, cs_slice(digest, sizeof digest));
        }
        evidence_leaf(&e, &l);
    }
    evidence_done(&e);
    cs_buf_done(&who);
    for (size_t i = 0; i < ROUNDS; i++) {
        double a = cpu_s();
        check(path);
        rate[i] = (double)n / (cpu_s() - a);
    }
    figure("verify-leaves", median(rate), "leaves/s", 500000);
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/cs-bench-verify-XXXXXX", command[128];
    unsigned megabytes = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 64;
    uint64_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 200000;
    demand(mkdtemp(dir) != NULL, "no directory");
    recording(dir, megabytes);
    (void)snprintf(command, sizeof command, "rm -rf %s/*", dir);
    demand(system(command) == 0, "cleaning failed");
    leaves(dir, n);
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) == 0 ? 0 : 1;
}
