/* Makes a bundle: one session's recording with the leaves about it, each with its proof. Called by
 * job-verify. It must never make one of evidence that does not verify: what goes out is read as
 * proof. */
#include "audit/proof.h"
#include "verify/bundle.h"
#include "verify/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { ARENA_CHUNK = 16 * 1024, PIECE = 64 * 1024 };
#define ARENA_MAX ((size_t)256 << 20)

struct export
{
    const struct cs_verify *v;
    struct cs_verify_sink to;
    struct cs_report *report;
    int log;
    struct cs_buf note; /* owned: the checkpoint that all proofs go to */
    struct cs_audit_checkpoint head;
    struct cs_arena arena;
    struct cs_map requests, policies; /* of the session */
    struct cs_history *history;
    struct cs_audit_tiles tiles;
    struct cs_verify_journal journal;
    struct cs_verify_log_files files; /* of the log */
    bool writing, failed, no_memory;
};

/* ---- writing ---- */

static bool put(struct export *x, struct cs_slice s)
{
    x->failed = x->failed || (s.n > 0 && !x->to.put(x->to.ctx, s));
    return !x->failed;
}

static bool zeros(struct export *x, size_t n)
{
    static const uint8_t zero[2 * CS_USTAR_BLOCK];
    return put(x, cs_slice(zero, n));
}

static bool head(struct export *x, const char *name, uint64_t size)
{
    uint8_t block[CS_USTAR_BLOCK];
    cs_ustar_write(name, size, block);
    return put(x, cs_slice(block, sizeof block));
}

static bool member(struct export *x, const char *name, struct cs_slice content)
{
    return head(x, name, content.n) && put(x, content) && zeros(x, cs_ustar_padding(content.n));
}

static bool begin(struct export *x, const struct cs_audit_key *key)
{
    char id[CS_ID_TEXT];
    struct cs_buf text = cs_buf(CS_BUNDLE_MANIFEST_MAX);
    cs_buf_printf(&text, CS_BUNDLE_MAGIC "\nsession %s\nkey ", cs_id_text(x->v->session, id));
    cs_audit_key_write(key, &text);
    cs_buf_u8(&text, '\n');
    x->no_memory |= text.bad;
    bool ok = !text.bad && member(x, CS_BUNDLE_MANIFEST, cs_buf_slice(&text)) &&
              member(x, CS_BUNDLE_CHECKPOINT, cs_buf_slice(&x->note));
    cs_buf_done(&text);
    return ok;
}

static void write_leaf(struct export *x, uint64_t index, struct cs_slice bytes)
{
    char name[CS_USTAR_NAME_MAX + 1];
    struct cs_buf text = cs_buf(CS_AUDIT_PROOF_FILE_MAX);
    struct cs_audit_nodes nodes = cs_audit_tiles_nodes(&x->tiles);
    struct cs_audit_proof p = {
        .leaf = cs_buf(CS_AUDIT_LEAF_MAX), .index = index, .checkpoint = cs_buf_slice(&x->note)};
    cs_buf_add(&p.leaf, bytes);
    if (!cs_audit_prove_inclusion(&nodes, index, x->head.size, &p.path)) {
        x->failed = true;
    } else {
        cs_audit_proof_write(&p, &text);
        (void)snprintf(name, sizeof name, CS_BUNDLE_LEAF, index);
        x->no_memory |= text.bad || p.leaf.bad;
        if (!x->no_memory) {
            (void)member(x, name, cs_buf_slice(&text));
        }
    }
    cs_audit_proof_done(&p);
    cs_buf_done(&text);
}

/* ---- which leaves ---- */

static struct cs_slice number(const struct cs_leaf *l, enum cs_leaf_key key)
{
    return cs_slice(&l->value[key].number, sizeof l->value[key].number);
}

static bool of_session(const struct export *x, const struct cs_leaf *l)
{
    return cs_leaf_has(l, CS_KEY_SESSION) &&
           cs_slice_eq(l->value[CS_KEY_SESSION].bytes, cs_slice(x->v->session->b, CS_ID_BYTES));
}

/* About the session, a request of it, or the rules that decided in it. */
static bool wanted(const struct export *x, const struct cs_leaf *l)
{
    return of_session(x, l) ||
           (cs_leaf_has(l, CS_KEY_REQUEST) &&
            cs_map_find(&x->requests, l->value[CS_KEY_REQUEST].bytes) != NULL) ||
           (l->kind == CS_LEAF_RULES &&
            cs_map_find(&x->policies, number(l, CS_KEY_POLICY)) != NULL);
}

static void remember(struct export *x, const struct cs_leaf *l)
{
    bool ok = true;
    if (of_session(x, l) && cs_leaf_has(l, CS_KEY_REQUEST)) {
        ok = cs_map_get(&x->requests, &x->arena, l->value[CS_KEY_REQUEST].bytes,
                        sizeof(struct cs_map_node)) != NULL;
    }
    if (ok && of_session(x, l) && cs_leaf_has(l, CS_KEY_POLICY)) {
        ok = cs_map_get(&x->policies, &x->arena, number(l, CS_KEY_POLICY),
                        sizeof(struct cs_map_node)) != NULL;
    }
    x->no_memory |= !ok;
}

static void take_leaf(void *ctx, uint64_t index, const struct cs_leaf *leaf, struct cs_slice bytes)
{
    struct export *x = ctx;
    if (!x->writing) {
        cs_history_add(x->history, index, leaf);
        remember(x, leaf);
    } else if (!x->failed && !x->no_memory && wanted(x, leaf)) {
        write_leaf(x, index, bytes);
    }
}

/* The log's files, but with the checkpoint that was read first: the log may go on meanwhile. */
static enum cs_err get(void *ctx, const char *path, struct cs_buf *out)
{
    struct export *x = ctx;
    if (strcmp(path, "checkpoint") == 0 && x->note.len > 0) {
        cs_buf_add(out, cs_buf_slice(&x->note));
        return out->bad ? CS_ERR_NO_MEMORY : CS_OK;
    }
    struct cs_audit_source files = cs_verify_log_source(&x->files);
    return files.get(files.ctx, path, out);
}

/* All leaves once: to look, then to write. */
static bool pass(struct export *x, bool writing)
{
    struct cs_audit_check c = {
        .from = {get, x}, .key = x->v->key, .since = x->v->since, .leaf = take_leaf, .ctx = x};
    x->writing = writing;
    enum cs_audit_verdict got = cs_audit_check(&c);
    if (got == CS_AUDIT_INTACT) {
        return true;
    }
    struct cs_finding *f = cs_report_add(
        x->report, got == CS_AUDIT_TAMPERED ? CS_VERDICT_TAMPERED : CS_VERDICT_MISSING, NULL, "%s",
        c.why);
    f->file = cs_report_safe(x->report, cs_slice_str(c.path));
    f->leaf = c.index;
    f->has_leaf = true;
    return false;
}

/* ---- the recording ---- */

static bool copy(struct export *x, struct cs_csr_source in, uint64_t size)
{
    struct cs_buf piece = cs_buf(PIECE);
    uint8_t *p = cs_buf_room(&piece, PIECE);
    x->no_memory |= p == NULL;
    for (uint64_t at = 0; p != NULL && at < size && !x->failed;) {
        size_t n = (size_t)CS_MIN(size - at, (uint64_t)PIECE);
        /* A file that got shorter meanwhile makes no bundle. */
        x->failed = in.read_at(in.arg, at, p, n) != n || !put(x, cs_slice(p, n));
        at += n;
    }
    cs_buf_done(&piece);
    return !x->failed && !x->no_memory;
}

static bool missing(struct export *x, const char *why)
{
    (void)cs_report_add(x->report, CS_VERDICT_MISSING, x->v->session, "%s", why);
    return false;
}

static bool write_all(struct export *x, struct cs_csr_source in, const char *name, uint64_t size)
{
    bool ok = begin(x, x->v->key) && pass(x, true) && !x->failed && !x->no_memory &&
              head(x, name, size) && copy(x, in, size) && zeros(x, cs_ustar_padding(size)) &&
              zeros(x, 2 * (size_t)CS_USTAR_BLOCK);
    return ok || missing(x, x->no_memory ? "there was no memory for it"
                                         : "the bundle could not be written to its end");
}

static bool with_recording(struct export *x)
{
    char name[CS_CSR_NAME];
    int fd = -1;
    uint64_t size = 0;
    const struct cs_known_session *known = cs_history_session(x->history, x->v->session);
    if (known == NULL || !known->recorded) {
        return missing(x, "the log knows no such session");
    }
    struct cs_verify_part *part = cs_verify_journal_find(&x->journal, x->v->session, false, 0);
    enum cs_err err =
        cs_verify_open(x->v->dir, cs_csr_name(x->v->session, false, 0, name), &fd, &size);
    if (err != CS_OK && (err != CS_ERR_NOT_FOUND || part == NULL)) {
        return missing(x, "its recording is not there");
    }
    struct cs_verify_overlay o = {&x->journal, part, fd, size, 0, 0};
    struct cs_verify_recording r = {.in = cs_verify_overlay(&o),
                                    .file = cs_report_safe(x->report, cs_slice_str(name)),
                                    .session = *x->v->session,
                                    .history = x->history,
                                    .overlay = &o};
    cs_verify_recording(&r, x->report);
    bool ok =
        (x->report->worst == CS_VERDICT_INTACT || x->report->worst == CS_VERDICT_UNFINISHED) &&
        write_all(x, r.in, name, r.good);
    if (fd >= 0) {
        (void)close(fd);
    }
    return ok;
}

static bool with_log(struct export *x)
{
    bool ok = false;
    cs_verify_log_files_init(&x->files, x->log, &x->journal, x->v->key);
    if (pass(x, false)) {
        ok = cs_audit_checkpoint_open(cs_buf_slice(&x->note), x->v->key, &x->head) &&
             !x->history->failed && !x->no_memory;
        cs_audit_tiles_init(&x->tiles, (struct cs_audit_source){get, x}, x->head.size);
        ok = ok ? with_recording(x) : missing(x, "there was no memory for it");
        cs_audit_tiles_done(&x->tiles);
    }
    cs_verify_log_files_done(&x->files);
    return ok;
}

bool cs_verify_export(const struct cs_verify *v, struct cs_verify_sink to, struct cs_report *report)
{
    struct cs_history h;
    struct cs_audit_key own;
    struct cs_verify mine = *v;
    struct export x = {.v = &mine, .to = to, .report = report, .history = &h};
    report->only = v->session;
    if (cs_verify_log_open(v->dir, &x.log) != CS_OK) {
        return missing(&x, "there is no log");
    }
    cs_history_init(&h, report);
    cs_arena_init(&x.arena, ARENA_CHUNK, ARENA_MAX);
    cs_map_init(&x.requests);
    cs_map_init(&x.policies);
    x.note = cs_buf(CS_AUDIT_NOTE_MAX);
    if (mine.key == NULL && cs_verify_key(x.log, &own) == CS_OK) {
        mine.key = &own;
    }
    struct cs_audit_source files = cs_verify_files(&x.log);
    cs_verify_journal_open(&x.journal, v->dir);
    bool ok = false;
    if (mine.key == NULL) {
        (void)missing(&x, "the log's public key is not there; give it with --key");
    } else if (files.get(files.ctx, "checkpoint", &x.note) != CS_OK || x.note.len == 0) {
        (void)missing(&x, "the log has no checkpoint");
    } else {
        ok = with_log(&x);
    }
    cs_verify_journal_close(&x.journal);
    (void)close(x.log);
    cs_buf_done(&x.note);
    cs_map_done(&x.requests);
    cs_map_done(&x.policies);
    cs_arena_done(&x.arena);
    cs_history_done(&h);
    return ok;
}
