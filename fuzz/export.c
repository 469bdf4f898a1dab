/* Fuzzing of export on a hostile recordings directory whose log somebody signed: leaves (u16le
 * length and bytes, again and again, up to a length of 0), then the recording of the session that
 * is exported.
 *
 * Properties: what was exported verifies alone, with the verdict that export gave; of what does not
 * verify not a byte goes out; what is said about it is printable. */
#include "base/alloc.h"
#include "base/reader.h"
#include "verify/verify.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LEAVES = 200, FILES = 16, PATH = 160 };

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* ---- a directory for all inputs of a process, and the files of one ---- */

static char path[64];
static struct {
    char name[FILES][PATH];
    size_t n;
} files;

static const char *const folders[] = {"log",
                                      "log/tile",
                                      "log/tile/0",
                                      "log/tile/entries",
                                      "log/tile/0/000.p",
                                      "log/tile/entries/000.p"};

static void leave(void)
{
    char name[PATH];
    for (size_t i = CS_ARRAY_LEN(folders); i > 0; i--) {
        (void)snprintf(name, sizeof name, "%s/%s", path, folders[i - 1]);
        (void)rmdir(name);
    }
    (void)rmdir(path);
}

static int folder(void)
{
    static int dir = -1;
    if (dir < 0) {
        (void)snprintf(path, sizeof path, "/tmp/cs-fuzz-XXXXXX");
        demand(mkdtemp(path) != NULL && atexit(leave) == 0);
        dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        demand(dir >= 0);
        for (size_t i = 0; i < CS_ARRAY_LEN(folders); i++) {
            demand(mkdirat(dir, folders[i], 0700) == 0);
        }
    }
    return dir;
}

static void put_file(const char *name, struct cs_slice bytes)
{
    demand(files.n < FILES);
    (void)snprintf(files.name[files.n], PATH, "%s", name);
    int fd =
        openat(folder(), files.name[files.n++], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    demand(fd >= 0 && (bytes.n == 0 || write(fd, bytes.p, bytes.n) == (ssize_t)bytes.n));
    (void)close(fd);
}

static void files_remove(void)
{
    while (files.n > 0) {
        (void)unlinkat(folder(), files.name[--files.n], 0);
    }
}

/* ---- the log ---- */

static enum cs_err put_tile(void *ctx, const char *name, struct cs_slice content)
{
    char under[PATH];
    (void)ctx;
    (void)snprintf(under, sizeof under, "log/%s", name);
    put_file(under, content);
    return CS_OK;
}

static void log_sign(struct cs_audit_writer *w, struct cs_audit_key *ret)
{
    static const uint8_t private[CS_ED25519_KEY] = {7};
    uint8_t public[CS_ED25519_KEY];
    struct cs_buf text = cs_buf(1024), note = cs_buf(CS_AUDIT_NOTE_MAX);
    demand(cs_ed25519_public(private, public) == CS_OK);
    demand(cs_audit_key_make(CS_SLICE_LIT("test/gw1"), public, ret) == CS_OK);
    struct cs_audit_checkpoint c = {.origin = cs_slice_str(ret->name)};
    demand(cs_audit_writer_flush(w, &c.size, &c.root) == CS_OK);
    cs_audit_checkpoint_write(&c, &text);
    demand(cs_audit_note_sign(cs_buf_slice(&text), ret, private, &note) == CS_OK);
    put_file("log/checkpoint", cs_buf_slice(&note));
    cs_buf_done(&text);
    cs_buf_done(&note);
}

/* What follows the leaves is the recording. */
static struct cs_slice log_make(struct cs_slice in, struct cs_audit_key *ret)
{
    struct cs_reader r = cs_reader(in);
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){put_tile, NULL});
    demand(w != NULL);
    unsigned n = 0;
    for (uint16_t len; (len = cs_reader_u16le(&r)) > 0;) {
        struct cs_slice leaf = cs_reader_take(&r, len);
        if (!r.bad && n < LEAVES) {
            n++;
            demand(cs_audit_writer_add(w, leaf) == CS_OK);
        }
    }
    log_sign(w, ret);
    cs_audit_writer_free(w);
    return cs_reader_rest(&r);
}

/* ---- export ---- */

static bool put(void *ctx, struct cs_slice bytes)
{
    cs_buf_add(ctx, bytes);
    return !((struct cs_buf *)ctx)->bad;
}

static void printable(const struct cs_report *r)
{
    struct cs_buf text = cs_buf((size_t)16 << 20);
    cs_report_json(r, &text);
    for (size_t i = 0; i < text.len; i++) {
        demand((text.p[i] >= 0x20 && text.p[i] < 0x7f) || text.p[i] == '\n');
    }
    cs_buf_done(&text);
}

static void check(struct cs_slice in)
{
    struct cs_audit_key key;
    struct cs_csr_head head = {.n = 0};
    struct cs_report made, seen;
    char name[CS_CSR_NAME];
    struct cs_slice recording = log_make(in, &key);
    (void)cs_csr_head_read(recording, &head);
    put_file(cs_csr_name(&head.session, false, 0, name), recording);
    const struct cs_verify v = {.dir = folder(), .key = &key, .session = &head.session};
    struct cs_buf out = cs_buf((size_t)64 << 20);
    cs_report_init(&made, "export");
    bool ok = cs_verify_export(&v, (struct cs_verify_sink){put, &out}, &made);
    demand(ok || out.len == 0);
    demand(!ok || made.worst == CS_VERDICT_INTACT || made.worst == CS_VERDICT_UNFINISHED);
    printable(&made);
    if (ok) {
        struct cs_slice bundle = cs_buf_slice(&out);
        cs_report_init(&seen, "bundle");
        cs_verify_bundle(cs_csr_memory(&bundle), &key, &seen);
        demand(seen.worst == made.worst);
        cs_report_done(&seen);
    }
    cs_report_done(&made);
    cs_buf_done(&out);
    files_remove();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(cs_slice(data, size));
    demand(cs_alloc_live() == 0);
    return 0;
}
