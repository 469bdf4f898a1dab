/* Fuzzing of verify on a hostile journal beside a recording. The input: u16le n, n bytes of the
 * recording's file as the disk has it (0: no file), then the bytes of the segment.
 *
 * Properties: the file with the journal laid over it is at least as long as the file and can be
 * read to its end; where there is nothing of the journal it is the file; without a leaf nothing is
 * intact; a log without a signed checkpoint gets no file from the journal. */
#include "base/alloc.h"
#include "base/reader.h"
#include "verify/verify.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static char path[64];

static void leave(void)
{
    char name[96];
    (void)snprintf(name, sizeof name, "%s/journal-00000001.csj", path);
    (void)unlink(name);
    (void)snprintf(name, sizeof name, "%s/file", path);
    (void)unlink(name);
    (void)rmdir(path);
}

/* One directory for all inputs of a process. */
static int folder(void)
{
    static int dir = -1;
    if (dir < 0) {
        (void)snprintf(path, sizeof path, "/tmp/cs-fuzz-XXXXXX");
        demand(mkdtemp(path) != NULL && atexit(leave) == 0);
        dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        demand(dir >= 0);
    }
    return dir;
}

static int put(int dir, const char *name, struct cs_slice bytes)
{
    int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    demand(fd >= 0 && (bytes.n == 0 || write(fd, bytes.p, bytes.n) == (ssize_t)bytes.n));
    return fd;
}

static void one_part(struct cs_verify_journal *j, const struct cs_verify_part *part, int fd,
                     struct cs_slice file)
{
    struct cs_verify_overlay o = {j, part, fd, file.n, 0, 0};
    struct cs_csr_source in = cs_verify_overlay(&o);
    struct cs_report report;
    struct cs_history h;
    uint8_t piece[256];
    demand(in.size >= file.n);
    for (uint64_t at = 0; at < in.size;) {
        size_t want = (size_t)CS_MIN(in.size - at, (uint64_t)sizeof piece);
        demand(in.read_at(in.arg, at, piece, want) == want);
        demand(o.lacks != UINT64_MAX || o.odd != UINT64_MAX || at + want > file.n ||
               memcmp(piece, file.p + at, want) == 0);
        at += want;
    }
    cs_report_init(&report, "recording");
    cs_history_init(&h, &report);
    struct cs_verify_recording x = {.in = in, .file = "x.csr", .history = &h, .overlay = &o};
    x.session = part->file.session;
    cs_verify_recording(&x, &report);
    demand(x.good <= in.size && report.worst != CS_VERDICT_INTACT);
    demand(report.in_journal.frames <= report.frames);
    cs_history_done(&h);
    cs_report_done(&report);
}

static void check(struct cs_slice file, struct cs_slice segment)
{
    static const uint8_t public[CS_ED25519_KEY] = {1};
    int dir = folder(), fd = put(dir, "file", file);
    (void)close(put(dir, "journal-00000001.csj", segment));
    struct cs_verify_journal j;
    struct cs_verify_log_files log;
    struct cs_audit_key key;
    cs_verify_journal_open(&j, dir);
    for (const struct cs_verify_part *p = j.all; p != NULL; p = p->next) {
        demand(p->pieces.n > 0);
        for (size_t i = 1; i < p->pieces.n; i++) {
            demand(p->pieces.v[i - 1].offset + p->pieces.v[i - 1].n <= p->pieces.v[i].offset);
        }
        demand(cs_verify_journal_find(&j, &p->file.session, p->file.foreign, p->file.epoch) == p);
        one_part(&j, p, fd, file);
    }
    demand(cs_audit_key_make(CS_SLICE_LIT("a/b"), public, &key) == CS_OK);
    cs_verify_log_files_init(&log, dir, &j, &key);
    demand(log.to == 0 && !log.used);
    cs_verify_log_files_done(&log);
    cs_verify_journal_close(&j);
    (void)close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_reader r = cs_reader(cs_slice(data, size));
    uint16_t n = cs_reader_u16le(&r);
    struct cs_slice file = cs_reader_take(&r, n), segment = cs_reader_rest(&r);
    if (r.bad) {
        return 0;
    }
    check(file, segment);
    demand(cs_alloc_live() == 0);
    return 0;
}
