/* Opening the recorder's audit log (ledger.h): at `head`, or at a checkpoint that says more, and
 * what must be remembered of its last leaves. Called by the recorder at its start. It must never go
 * on from files that do not give the root that is said of them, or believe a line that it finds. */
#include "record/ledger.h"

#include "base/alloc.h"
#include "base/time.h"
#include "record/ledger_files.h"
#include "record/ledger_internal.h"

#include <unistd.h>

enum {
    TAIL = 2048, /* leaves looked at for grants that are under way */
    PATHS_MAX = 64 * 1024 * 1024,
    UNPUT_MAX = 64 * 1024 * 1024,
};

static enum cs_err read_text(struct cs_ledger *l, const char *name, struct cs_buf *out)
{
    out->len = 0;
    return cs_ledger_file_get(l->log, name, out);
}

/* The first three lines of a text that begins with a checkpoint. */
static bool checkpoint_of(struct cs_slice *text, struct cs_audit_checkpoint *ret)
{
    struct cs_slice rest = *text, line;
    for (int i = 0; i < 3; i++) {
        if (!cs_audit_line(&rest, &line)) {
            return false;
        }
    }
    struct cs_slice lines = cs_slice(text->p, text->n - rest.n);
    *text = rest;
    return cs_audit_checkpoint_read(lines, ret);
}

bool cs_ledger_head_read(struct cs_slice text, struct cs_audit_checkpoint *ret,
                         struct cs_slice *ret_events)
{
    struct cs_slice rest = text, line, word = CS_SLICE_LIT("event ");
    struct cs_id id;
    if (!checkpoint_of(&rest, ret)) {
        return false;
    }
    *ret_events = rest;
    while (cs_audit_line(&rest, &line)) {
        if (!cs_slice_starts(line, word) || !cs_id_parse(cs_slice_from(line, word.n), &id)) {
            return false;
        }
    }
    return rest.n == 0;
}

static void take_events(struct cs_ledger *l, struct cs_slice events)
{
    struct cs_slice line, word = CS_SLICE_LIT("event ");
    struct cs_id id;
    while (cs_audit_line(&events, &line)) {
        if (cs_id_parse(cs_slice_from(line, word.n), &id)) {
            cs_ledger_remember_event(l, &id);
        }
    }
}

struct heads {
    struct cs_audit_checkpoint head, checkpoint; /* size 0: there is none */
};

static enum cs_err read_heads(struct cs_ledger *l, struct heads *ret, struct cs_buf *text)
{
    *ret = (struct heads){.head = {.size = 0}};
    enum cs_err e = read_text(l, "checkpoint", text);
    struct cs_slice rest = cs_buf_slice(text);
    if (e == CS_OK && !checkpoint_of(&rest, &ret->checkpoint)) {
        return CS_ERR_CORRUPT;
    }
    if (e != CS_OK && e != CS_ERR_NOT_FOUND) {
        return e;
    }
    l->signed_to = ret->checkpoint.size;
    e = read_text(l, "head", text);
    if (e == CS_OK && !cs_ledger_head_read(cs_buf_slice(text), &ret->head, &rest)) {
        return CS_ERR_CORRUPT;
    }
    if (e == CS_OK) {
        take_events(l, rest);
    }
    return e == CS_ERR_NOT_FOUND ? CS_OK : e;
}

static enum cs_err resume_at(struct cs_ledger *l, const struct cs_audit_checkpoint *at)
{
    cs_audit_writer_free(l->writer); /* one that failed is of no use any more */
    l->writer = cs_audit_writer_new((struct cs_audit_sink){cs_ledger_sink_put, l});
    if (l->writer == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err e =
        at->size > 0 ? cs_audit_writer_resume(l->writer, cs_ledger_source(l), at->size, &at->root)
                     : CS_OK;
    if (e == CS_OK) {
        l->size = l->next = l->flushed = l->job_size = at->size;
        l->root = at->root;
        cs_ledger_note_size(l, at->size);
    }
    return e;
}

/* Complete files between the two sizes: nobody has waited for the disk with them yet. */
static enum cs_err note_dirty(struct cs_ledger *l, uint64_t from, uint64_t to)
{
    char path[CS_AUDIT_PATH];
    for (unsigned i = 0; i <= CS_AUDIT_LEVELS; i++) {
        unsigned level = i == CS_AUDIT_LEVELS ? (unsigned)CS_AUDIT_ENTRIES : i;
        unsigned shift = i == CS_AUDIT_LEVELS ? 0 : 8 * i;
        for (uint64_t n = (from >> shift) / CS_AUDIT_WIDTH;
             cs_audit_tile_width(level, n, to) == CS_AUDIT_WIDTH; n++) {
            cs_audit_tile_path(level, n, CS_AUDIT_WIDTH, path);
            cs_buf_add(&l->dirty, cs_slice(path, strlen(path) + 1));
        }
    }
    return l->dirty.bad ? CS_ERR_NO_MEMORY : CS_OK;
}

/* At the checkpoint, if it says more than `head` and its files are there: so they are after most
 * crashes, and in a copy that was made while the log grew. Otherwise the journal has what is behind
 * `head`. */
static enum cs_err resume(struct cs_ledger *l, const struct heads *h)
{
    l->head = h->head.size;
    if (h->checkpoint.size > h->head.size && resume_at(l, &h->checkpoint) == CS_OK) {
        return note_dirty(l, h->head.size, h->checkpoint.size);
    }
    return resume_at(l, &h->head);
}

static enum cs_err read_key(struct cs_ledger *l, struct cs_buf *text)
{
    enum cs_err e = read_text(l, "log.pub", text);
    if (e == CS_OK) {
        struct cs_slice rest = cs_buf_slice(text), line;
        l->pinned =
            cs_audit_line(&rest, &line) && rest.n == 0 && cs_audit_key_read(line, &l->key) == CS_OK;
        e = l->pinned ? CS_OK : CS_ERR_CORRUPT;
    }
    return e == CS_ERR_NOT_FOUND ? CS_OK : e;
}

static enum cs_err read_tail(struct cs_ledger *l)
{
    struct cs_buf bundle = cs_buf(CS_AUDIT_BUNDLE_MAX);
    struct cs_audit_source from = cs_ledger_source(l);
    enum cs_err e = CS_OK;
    uint64_t first = l->size > TAIL ? (l->size - TAIL) / CS_AUDIT_WIDTH : 0;
    for (uint64_t n = first; n * CS_AUDIT_WIDTH < l->size && e == CS_OK; n++) {
        char path[CS_AUDIT_PATH];
        struct cs_slice bytes;
        struct cs_leaf leaf;
        bundle.len = 0;
        e = cs_audit_tile_get(&from, CS_AUDIT_ENTRIES, n, l->size, &bundle, path);
        struct cs_slice rest = cs_buf_slice(&bundle);
        while (e == CS_OK && cs_audit_bundle_next(&rest, &bytes)) {
            if (cs_leaf_read(bytes, &leaf)) {
                cs_ledger_note(l, &leaf);
            }
        }
    }
    cs_buf_done(&bundle);
    return e;
}

static enum cs_err open_files(struct cs_ledger *l, const char **ret_why)
{
    struct cs_buf text = cs_buf(CS_LEDGER_HEAD_MAX);
    struct heads heads;
    enum cs_err e = read_heads(l, &heads, &text);
    *ret_why = "the audit log's head cannot be read";
    if (e == CS_OK) {
        *ret_why = "the audit log's files are not what its head says";
        e = resume(l, &heads);
    }
    if (e == CS_OK) {
        e = read_tail(l);
    }
    if (e == CS_OK) {
        *ret_why = "log.pub is not a key";
        e = read_key(l, &text);
    }
    if (e == CS_OK && l->size == 0) {
        struct cs_audit_tree none = {.size = 0};
        cs_audit_tree_root(&none, &l->root);
    }
    if (e == CS_OK && l->size > l->signed_to) {
        l->unsigned_ns = cs_mono_ns();
    }
    cs_buf_done(&text);
    return e;
}

enum cs_err cs_ledger_open(int dir, struct cs_ledger **ret, const char **ret_why)
{
    struct cs_ledger *l = cs_alloc(sizeof *l);
    *ret_why = "the audit log's directory cannot be opened";
    if (l == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    l->log = -1;
    l->dirty = cs_buf(PATHS_MAX);
    l->job_paths = cs_buf(PATHS_MAX);
    l->job_head = cs_buf(CS_LEDGER_HEAD_MAX);
    l->unput = cs_buf(UNPUT_MAX);
    enum cs_err e = cs_ledger_dir_open(dir, &l->log);
    if (e == CS_OK) {
        e = open_files(l, ret_why);
    }
    if (e != CS_OK) {
        cs_ledger_free(l);
        return e == CS_ERR_NOT_FOUND || e == CS_ERR_INVALID || e == CS_ERR_TOO_LARGE
                   ? CS_ERR_CORRUPT
                   : e;
    }
    *ret = l;
    return CS_OK;
}

void cs_ledger_free(struct cs_ledger *l)
{
    if (l == NULL) {
        return;
    }
    cs_audit_writer_free(l->writer);
    cs_buf_done(&l->dirty);
    cs_buf_done(&l->unput);
    cs_buf_done(&l->job_paths);
    cs_buf_done(&l->job_head);
    if (l->log >= 0) {
        (void)close(l->log);
    }
    cs_free(l);
}
