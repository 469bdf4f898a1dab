/* A recordings directory: its log, its files, and what of one the other lacks. Called by
 * job-verify. It must never follow a link, nor end INTACT with a file unread. */
#include "base/time.h"
#include "record/files.h"
#include "verify/verify.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE "log.pub"
enum { KEY_TEXT_MAX = 512 };

/* ---- files ---- */

enum cs_err cs_verify_open(int dir, const char *name, int *ret_fd, uint64_t *ret_size)
{
    struct stat st;
    /* NONBLOCK: a FIFO put there under that name must not stop us. */
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOTDIR ? CS_ERR_NOT_FOUND
               : errno == ELOOP ? CS_ERR_CORRUPT
                                : cs_err_from_errno(errno);
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 0) {
        (void)close(fd);
        return CS_ERR_CORRUPT;
    }
    *ret_fd = fd;
    *ret_size = (uint64_t)st.st_size;
    return CS_OK;
}

static enum cs_err get(void *ctx, const char *path, struct cs_buf *out)
{
    const int *dir = ctx;
    int fd = -1;
    uint64_t size = 0;
    enum cs_err err = cs_verify_open(*dir, path, &fd, &size);
    if (err != CS_OK) {
        return err;
    }
    if (size > out->max) {
        (void)close(fd);
        return CS_ERR_TOO_LARGE;
    }
    uint8_t *p = cs_buf_room(out, (size_t)size);
    if (p == NULL) {
        err = CS_ERR_NO_MEMORY;
    } else {
        struct cs_csr_source in = cs_csr_descriptor(&fd, size);
        size_t n = in.read_at(in.arg, 0, p, (size_t)size);
        out->len += n;
        err = n == size ? CS_OK : CS_ERR_IO;
    }
    (void)close(fd);
    return err;
}

struct cs_audit_source cs_verify_files(const int *dir)
{
    return (struct cs_audit_source){get, (void *)(uintptr_t)dir};
}

enum cs_err cs_verify_log_open(int dir, int *ret_fd)
{
    static const char *const names[] = {"log", "."};
    for (size_t i = 0; i < CS_ARRAY_LEN(names); i++) {
        int fd = openat(dir, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        struct stat st;
        if (fd >= 0 && (i == 0 || fstatat(fd, "checkpoint", &st, AT_SYMLINK_NOFOLLOW) == 0)) {
            *ret_fd = fd;
            return CS_OK;
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    return CS_ERR_NOT_FOUND;
}

enum cs_err cs_verify_key(int log, struct cs_audit_key *ret)
{
    struct cs_buf text = cs_buf(KEY_TEXT_MAX);
    enum cs_err err = get(&log, KEY_FILE, &text);
    if (err == CS_OK) {
        err = cs_audit_key_read(cs_slice_trim(cs_buf_slice(&text)), ret);
    }
    cs_buf_done(&text);
    return err;
}

/* ---- the log ---- */

struct reading {
    struct cs_history *h;
};

static void take_leaf(void *ctx, uint64_t index, const struct cs_leaf *leaf, struct cs_slice bytes)
{
    struct reading *r = ctx;
    (void)bytes;
    cs_history_add(r->h, index, leaf);
}

bool cs_verify_log(const struct cs_verify *v, int log, struct cs_verify_journal *j,
                   struct cs_history *h, struct cs_report *report)
{
    struct reading r = {h};
    struct cs_report before = *report;
    struct cs_verify_log_files files;
    cs_verify_log_files_init(&files, log, j, v->key);
    struct cs_audit_check c = {.from = cs_verify_log_source(&files),
                               .key = v->key,
                               .since = v->since,
                               .leaf = take_leaf,
                               .ctx = &r};
    enum cs_audit_verdict got = cs_audit_check(&c);
    report->in_journal.leaves = files.used ? files.to - files.from : 0;
    cs_verify_log_files_done(&files);
    (void)snprintf(report->log_name, sizeof report->log_name, "%s",
                   cs_report_safe(report, cs_slice_str(v->key->name)));
    report->log_size = c.size;
    report->log_last_ms = h->last_ms;
    if (got == CS_AUDIT_INTACT && !h->failed) {
        return true;
    }
    /* What the leaves said counts only when they are the ones that were signed. */
    cs_report_undo(report, &before);
    char path[CS_AUDIT_PATH + 8];
    (void)snprintf(path, sizeof path, "%s%s", c.path[0] != '\0' ? "log/" : "log", c.path);
    struct cs_finding *f =
        cs_report_add(report, got == CS_AUDIT_TAMPERED ? CS_VERDICT_TAMPERED : CS_VERDICT_MISSING,
                      NULL, "%s", h->failed ? "there was no memory for all of it" : c.why);
    f->file = cs_report_safe(report, cs_slice_str(path));
    f->leaf = c.index;
    f->has_leaf = h->leaves > 0;
    f->good_ms = h->last_ms;
    return false;
}

/* ---- the directory ---- */

struct walk {
    const struct cs_verify *v;
    struct cs_report *report;
    const struct cs_history *history; /* NULL: without */
    struct cs_verify_journal *journal;
};

static void see(const struct walk *w, const struct cs_id *session)
{
    struct cs_known_session *s =
        w->history != NULL ? cs_history_session(w->history, session) : NULL;
    if (s != NULL) {
        s->seen = true;
    }
}

/* A file (-1: there is none) with what the journal has of it. */
static void one_recording(const struct walk *w, struct cs_verify_recording *x, int fd,
                          uint64_t size, struct cs_verify_part *part)
{
    struct cs_verify_overlay o = {w->journal, part, fd, size, 0, 0};
    x->in = cs_verify_overlay(&o);
    x->overlay = &o;
    cs_verify_recording(x, w->report);
}

static void one_file(const struct walk *w, const char *name)
{
    struct cs_verify_recording x = {.history = w->history};
    int fd = -1;
    uint64_t size = 0;
    if (!cs_csr_name_parse(name, &x.session, &x.foreign, &x.epoch)) {
        if (cs_slice_ends(cs_slice_str(name), CS_SLICE_LIT(".csr"))) {
            cs_report_note(w->report, "there are files whose name ends in .csr and is not that of "
                                      "a recording; they were not looked at");
        } else if (cs_slice_ends(cs_slice_str(name), CS_SLICE_LIT(".torn"))) {
            cs_report_note(w->report,
                           "there are .torn files: what was cut off or set aside after a crash");
        }
        return;
    }
    if (w->v->session != NULL && !cs_id_eq(w->v->session, &x.session)) {
        return;
    }
    x.file = cs_report_safe(w->report, cs_slice_str(name));
    struct cs_verify_part *part =
        cs_verify_journal_find(w->journal, &x.session, x.foreign, x.epoch);
    if (part != NULL) {
        part->seen = true;
    }
    enum cs_err err = cs_verify_open(w->v->dir, name, &fd, &size);
    if (err != CS_OK) {
        see(w, &x.session);
        cs_report_add(w->report, err == CS_ERR_CORRUPT ? CS_VERDICT_TAMPERED : CS_VERDICT_MISSING,
                      &x.session,
                      err == CS_ERR_CORRUPT ? "it is not a file, but a link or a device"
                                            : "the file could not be read")
            ->file = x.file;
        return;
    }
    one_recording(w, &x, fd, size, part);
    (void)close(fd);
}

/* Recordings of which only the journal has anything, from their beginning on. */
static void journal_only(const struct walk *w)
{
    char name[CS_CSR_NAME];
    for (struct cs_verify_part *p = w->journal->all; p != NULL; p = p->next) {
        if (p->seen || p->pieces.n == 0 || p->pieces.v[0].offset != 0 ||
            (w->v->session != NULL && !cs_id_eq(w->v->session, &p->file.session))) {
            continue;
        }
        struct cs_verify_recording x = {.history = w->history,
                                        .session = p->file.session,
                                        .foreign = p->file.foreign,
                                        .epoch = p->file.epoch};
        (void)cs_csr_name(&x.session, x.foreign, x.epoch, name);
        x.file = cs_report_safe(w->report, cs_slice_str(name));
        if (!x.foreign) {
            see(w, &x.session);
        }
        one_recording(w, &x, -1, 0, p);
    }
}

static void all_files(const struct walk *w)
{
    int fd = openat(w->v->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    errno = 0;
    for (struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        one_file(w, e->d_name);
        errno = 0;
    }
    if (d == NULL || errno != 0) {
        (void)cs_report_add(w->report, CS_VERDICT_MISSING, NULL,
                            "the directory could not be read to its end");
    }
    if (d != NULL) {
        (void)closedir(d);
    } else if (fd >= 0) {
        (void)close(fd);
    }
    journal_only(w);
    if (w->journal->unread) {
        cs_report_note(w->report, "a part of the recorder's journal (journal-*.csj) could not be "
                                  "read; it was left out");
    }
}

/* A session that has a leaf must have a file. */
static void missed(void *arg, struct cs_known_session *s)
{
    const struct walk *w = arg;
    char name[CS_CSR_NAME], when[CS_TIME_TEXT];
    if (!s->recorded || s->seen) {
        return;
    }
    struct cs_finding *f = cs_report_add(
        w->report, CS_VERDICT_MISSING, &s->id, "the recording is not there; the session %s %s",
        s->closed ? "ended at" : "is in the log since",
        cs_time_text(s->end != NULL ? s->end->time_ms : s->time_ms, when));
    f->file = cs_report_safe(w->report, cs_slice_str(cs_csr_name(&s->id, false, 0, name)));
    f->leaf = s->end != NULL ? s->end->leaf : s->leaf;
    f->has_leaf = true;
}

static void with_log(const struct cs_verify *v, int log, struct cs_verify_journal *journal,
                     struct cs_report *report)
{
    struct cs_history h;
    struct cs_audit_key own;
    struct cs_verify mine = *v;
    struct walk w = {.v = v, .report = report, .journal = journal};
    cs_history_init(&h, report);
    bool intact = false;
    enum cs_err err = v->key == NULL ? cs_verify_key(log, &own) : CS_ERR_NOT_FOUND;
    if (err == CS_OK) {
        mine.key = &own;
        cs_report_note(report, "the public key was taken from the directory itself; whoever could "
                               "change all of it could have put another one there: give the key "
                               "that was kept elsewhere with --key");
    }
    if (mine.key == NULL) {
        bool is_none = err == CS_ERR_INVALID || err == CS_ERR_TOO_LARGE || err == CS_ERR_CORRUPT;
        cs_report_add(report, is_none ? CS_VERDICT_TAMPERED : CS_VERDICT_MISSING, NULL,
                      is_none ? "this is no public key of a log; give the right one with --key"
                              : "the log's public key is not there; give it with --key")
            ->file = "log/" KEY_FILE;
    } else {
        intact = cs_verify_log(&mine, log, journal, &h, report);
    }
    if (intact) {
        w.history = &h;
        if (v->since.n == 0) {
            cs_report_note(report, "without an older checkpoint (--since) nobody can tell whether "
                                   "the log was rolled back to an earlier state as a whole");
        }
    } else {
        cs_report_note(report, "without an intact log, recordings were checked in themselves only: "
                               "nothing says which there must be");
    }
    all_files(&w);
    if (intact) {
        cs_history_each(&h, missed, &w);
        if (v->session != NULL && cs_history_session(&h, v->session) == NULL) {
            (void)cs_report_add(report, CS_VERDICT_MISSING, v->session,
                                "the log knows no such session");
        }
    }
    cs_history_done(&h);
}

void cs_verify_directory(const struct cs_verify *v, struct cs_report *report)
{
    int log = -1;
    struct cs_verify_journal journal;
    report->only = v->session;
    cs_verify_journal_open(&journal, v->dir);
    if (cs_verify_log_open(v->dir, &log) == CS_OK) {
        with_log(v, log, &journal, report);
        (void)close(log);
    } else {
        const struct walk w = {.v = v, .report = report, .journal = &journal};
        cs_report_add(report, CS_VERDICT_MISSING, NULL,
                      "there is no log: recordings were checked in themselves only, and nothing "
                      "says which there must be")
            ->file = "log";
        all_files(&w);
    }
    cs_verify_journal_close(&journal);
}
