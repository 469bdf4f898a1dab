/* A recordings directory with a log, to be tampered with, and its verdict. */
#ifndef CS_TEST_VERIFY_SCENE_H
#define CS_TEST_VERIFY_SCENE_H

#include "base/alloc.h"
#include "evidence.h"
#include "tap.h"
#include "verify/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ONE   "01010101010101010101010101010101.csr"
#define TWO   "02020202020202020202020202020202.csr"
#define THREE "03030303030303030303030303030303.csr"

struct scene {
    char dir[64];
    struct cs_report report;
};

static inline void scene_make(struct scene *s, unsigned extra, bool finished)
{
    memcpy(s->dir, "/tmp/cs-verify-XXXXXX", 22);
    CS_CHECK(mkdtemp(s->dir) != NULL);
    evidence_usual(s->dir, extra, finished);
    cs_report_init(&s->report, "");
}

static inline void scene_done(struct scene *s)
{
    char *const argv[] = {(char *)(uintptr_t) "rm", (char *)(uintptr_t) "-rf", s->dir, NULL};
    cs_report_done(&s->report);
    pid_t pid = fork();
    if (pid == 0) {
        (void)execvp(argv[0], argv);
        _exit(127);
    }
    CS_CHECK(waitpid(pid, NULL, 0) == pid);
}

static inline void scene_path(const struct scene *s, const char *name, char out[static 300])
{
    (void)snprintf(out, 300, "%s/%s", s->dir, name);
}

static inline struct cs_buf scene_read(const struct scene *s, const char *name)
{
    char path[300];
    struct cs_buf out = cs_buf((size_t)64 << 20);
    scene_path(s, name, path);
    FILE *f = fopen(path, "re");
    CS_CHECK(f != NULL);
    uint8_t piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;) {
        cs_buf_add(&out, cs_slice(piece, n));
    }
    (void)fclose(f);
    CS_CHECK(!out.bad);
    return out;
}

static inline void scene_write(const struct scene *s, const char *name, struct cs_slice content)
{
    char path[300];
    scene_path(s, name, path);
    FILE *f = fopen(path, "we");
    CS_CHECK(f != NULL);
    CS_CHECK(content.n == 0 || fwrite(content.p, 1, content.n, f) == content.n);
    CS_CHECK(fclose(f) == 0);
}

static inline void scene_remove(const struct scene *s, const char *name)
{
    char path[300];
    scene_path(s, name, path);
    CS_CHECK(unlink(path) == 0);
}

/* The whole directory, with an older checkpoint or an empty slice. */
static inline enum cs_verdict scene_check(struct scene *s, struct cs_slice since)
{
    int dir = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct cs_verify v = {.dir = dir, .since = since};
    CS_CHECK(dir >= 0);
    cs_report_done(&s->report);
    cs_report_init(&s->report, "");
    cs_verify_directory(&v, &s->report);
    (void)close(dir);
    return s->report.worst;
}

static inline void scene_expect(struct scene *s, enum cs_verdict want, const char *what, size_t at)
{
    enum cs_verdict is = scene_check(s, CS_SLICE_NULL);
    if (is != want) {
        CS_FAIL("%s, %zu: %s, not %s: %s", what, at, cs_verdict_name(is), cs_verdict_name(want),
                s->report.first != NULL ? s->report.first->why : "");
    }
}

/* Where each frame of a recording begins; the last value is the file's end. */
enum { SCENE_FRAMES = 64 };
static inline size_t scene_frames(struct cs_slice file, size_t at[static SCENE_FRAMES])
{
    struct cs_csr_scanner scan;
    size_t n = 0;
    CS_CHECK(cs_csr_scan_start(&scan, cs_csr_memory(&file)) == CS_OK);
    at[n] = (size_t)scan.at;
    while (cs_csr_scan_next(&scan) == CS_CSR_SCAN_FRAME) {
        CS_CHECK(n + 1 < SCENE_FRAMES);
        at[++n] = (size_t)scan.at;
    }
    cs_csr_scan_done(&scan);
    CS_CHECK(at[n] == file.n);
    return n;
}

#endif
