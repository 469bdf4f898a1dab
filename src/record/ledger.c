/* The recorder's audit log (ledger.h): the tree, its files, and what must be remembered over a
 * restart. It must never give out a root of leaves that are not durable in the journal, take a file
 * away that a checkpoint or `head` still needs, or have one event in two leaves.
 *
 * Files are written when their content is complete or is to be signed, without waiting for the
 * disk: until `head` says so the journal has their leaves. */
#include "record/ledger.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/time.h"
#include "record/ledger_files.h"
#include "record/ledger_internal.h"

#include <unistd.h>

static const char cs_ledger_head_name[] = "countersign/head"; /* of the unsigned text */

/* ---- what is remembered ---- */

bool cs_ledger_knows(const struct cs_ledger *l, const struct cs_id *event)
{
    size_t n = CS_MIN(l->n_events, (size_t)CS_LEDGER_EVENTS);
    for (size_t i = 0; i < n; i++) {
        if (cs_id_eq(&l->events[i], event)) {
            return true;
        }
    }
    return false;
}

void cs_ledger_remember_event(struct cs_ledger *l, const struct cs_id *event)
{
    if (!cs_ledger_knows(l, event)) {
        l->events[l->n_events++ % CS_LEDGER_EVENTS] = *event;
    }
}

static size_t use_at(const struct cs_ledger *l, const struct cs_id *session, uint64_t n)
{
    size_t i = 0;
    while (i < l->n_uses && !(l->uses[i].n == n && cs_id_eq(&l->uses[i].session, session))) {
        i++;
    }
    return i;
}

bool cs_ledger_use_of(const struct cs_ledger *l, const struct cs_id *session, uint64_t n,
                      struct cs_ledger_use *ret)
{
    size_t i = l->n_uses > 0 ? use_at(l, session, n) : 0;
    if (i == l->n_uses) {
        return false;
    }
    *ret = l->uses[i];
    return true;
}

static struct cs_id id_of(const struct cs_leaf *leaf, enum cs_leaf_key key)
{
    struct cs_id id = {{0}};
    if (leaf->value[key].bytes.n == sizeof id.b) {
        memcpy(id.b, leaf->value[key].bytes.p, sizeof id.b);
    }
    return id;
}

static void use_drop(struct cs_ledger *l, size_t i)
{
    memmove(&l->uses[i], &l->uses[i + 1], (l->n_uses - i - 1) * sizeof l->uses[0]);
    l->n_uses--;
}

static void note_use(struct cs_ledger *l, const struct cs_leaf *leaf)
{
    struct cs_slice request = leaf->value[CS_KEY_REQUEST].bytes;
    struct cs_ledger_use u = {.session = id_of(leaf, CS_KEY_SESSION),
                              .grant = id_of(leaf, CS_KEY_GRANT),
                              .n = leaf->value[CS_KEY_N].number};
    size_t at = use_at(l, &u.session, u.n);
    if (at < l->n_uses) {
        use_drop(l, at);
    }
    if (leaf->kind == CS_LEAF_GRANT_RESULT || request.n >= sizeof u.request) {
        return;
    }
    memcpy(u.request, request.p, request.n);
    if (l->n_uses == CS_LEDGER_USES) {
        use_drop(l, 0); /* its result will have no leaf: there are too many without one */
    }
    l->uses[l->n_uses++] = u;
}

void cs_ledger_note(struct cs_ledger *l, const struct cs_leaf *leaf)
{
    if (cs_leaf_has(leaf, CS_KEY_EVENT)) {
        struct cs_id event = id_of(leaf, CS_KEY_EVENT);
        cs_ledger_remember_event(l, &event);
    }
    if (leaf->kind == CS_LEAF_GRANT_USE || leaf->kind == CS_LEAF_GRANT_RESULT) {
        note_use(l, leaf);
    }
}

/* ---- files ---- */

static enum cs_err source_get(void *ctx, const char *path, struct cs_buf *out)
{
    const struct cs_ledger *l = ctx;
    return cs_ledger_file_get(l->log, path, out);
}

struct cs_audit_source cs_ledger_source(struct cs_ledger *l)
{
    return (struct cs_audit_source){source_get, l};
}

static void unput_add(struct cs_ledger *l, const char *path, struct cs_slice content)
{
    uint64_t n[2] = {strlen(path) + 1, content.n};
    cs_buf_add(&l->unput, cs_slice(n, sizeof n));
    cs_buf_add(&l->unput, cs_slice(path, n[0]));
    cs_buf_add(&l->unput, content);
}

static enum cs_err put_now(struct cs_ledger *l, const char *path, struct cs_slice content)
{
    enum cs_err e = cs_ledger_file_put(l->log, path, content, false);
    if (e == CS_OK && strstr(path, ".p/") == NULL) {
        cs_buf_add(&l->dirty, cs_slice(path, strlen(path) + 1));
        e = l->dirty.bad ? CS_ERR_NO_MEMORY : CS_OK;
    }
    return e;
}

/* A full disk is no failure of the writer's: what did not fit is put later, in order. */
enum cs_err cs_ledger_sink_put(void *ctx, const char *path, struct cs_slice content)
{
    struct cs_ledger *l = ctx;
    enum cs_err e = l->unput.len == 0 ? put_now(l, path, content) : CS_ERR_NO_SPACE;
    if (e == CS_ERR_NO_SPACE) {
        unput_add(l, path, content);
        e = l->unput.bad ? CS_ERR_NO_MEMORY : CS_OK;
    }
    return e;
}

static enum cs_err put_unput(struct cs_ledger *l)
{
    while (l->unput.len > 0) {
        uint64_t n[2];
        memcpy(n, l->unput.p, sizeof n);
        const char *path = (const char *)l->unput.p + sizeof n;
        enum cs_err e =
            put_now(l, path, cs_slice(l->unput.p + sizeof n + (size_t)n[0], (size_t)n[1]));
        if (e != CS_OK) {
            return e;
        }
        cs_buf_drop(&l->unput, sizeof n + (size_t)n[0] + (size_t)n[1]);
    }
    return CS_OK;
}

/* The partial file of a level in a log of `size` leaves; false when it has none. Level LEVELS is
 * that of the entries. */
static bool partial_path(uint64_t size, unsigned level, char out[static CS_AUDIT_PATH])
{
    unsigned l = level == CS_AUDIT_LEVELS ? (unsigned)CS_AUDIT_ENTRIES : level;
    uint64_t n = (size >> (level == CS_AUDIT_LEVELS ? 0 : 8 * level)) / CS_AUDIT_WIDTH;
    unsigned width = cs_audit_tile_width(l, n, size);
    if (width == 0) {
        return false;
    }
    cs_audit_tile_path(l, n, width, out);
    return true;
}

static bool is_kept(const struct cs_ledger *l, uint64_t size)
{
    return size == l->head || size == l->job_size || size == l->signed_to || size == l->flushed;
}

static bool path_is_kept(const struct cs_ledger *l, unsigned level, const char *path)
{
    const uint64_t kept[] = {l->head, l->job_size, l->signed_to, l->flushed};
    char other[CS_AUDIT_PATH];
    for (size_t i = 0; i < CS_ARRAY_LEN(kept); i++) {
        if (partial_path(kept[i], level, other) && strcmp(other, path) == 0) {
            return true;
        }
    }
    return false;
}

/* Partial files of sizes that neither the checkpoint nor the head nor what is about to be one of
 * them stands for. */
static void remove_old(struct cs_ledger *l)
{
    char path[CS_AUDIT_PATH];
    size_t left = 0;
    for (size_t i = 0; i < l->n_sizes; i++) {
        if (is_kept(l, l->sizes[i])) {
            l->sizes[left++] = l->sizes[i];
            continue;
        }
        for (unsigned level = 0; level <= CS_AUDIT_LEVELS; level++) {
            if (partial_path(l->sizes[i], level, path) && !path_is_kept(l, level, path)) {
                cs_ledger_file_remove(l->log, path);
            }
        }
    }
    l->n_sizes = left;
}

void cs_ledger_note_size(struct cs_ledger *l, uint64_t size)
{
    for (size_t i = 0; i < l->n_sizes; i++) {
        if (l->sizes[i] == size) {
            return;
        }
    }
    if (l->n_sizes < CS_LEDGER_SIZES) { /* else its files stay: they do no harm */
        l->sizes[l->n_sizes++] = size;
    }
}

enum cs_err cs_ledger_flush(struct cs_ledger *l, uint64_t *ret_size, struct cs_audit_hash *ret_root)
{
    enum cs_err e = CS_OK;
    if (l->flushed != l->size || l->unput.len > 0) {
        e = cs_audit_writer_flush(l->writer, &l->flushed, &l->root);
        e = e == CS_OK ? put_unput(l) : e;
        cs_ledger_note_size(l, l->flushed);
    }
    if (e == CS_OK) {
        *ret_size = l->flushed;
        *ret_root = l->root;
    }
    return e;
}

void cs_ledger_flushed(const struct cs_ledger *l, uint64_t *ret_size,
                       struct cs_audit_hash *ret_root)
{
    *ret_size = l->flushed;
    *ret_root = l->root;
}

enum cs_err cs_ledger_consistency(struct cs_ledger *l, uint64_t old, uint64_t size,
                                  struct cs_audit_path *ret)
{
    struct cs_audit_tiles tiles;
    if (old == 0 || old > size || size != l->flushed || l->unput.len > 0) {
        return CS_ERR_INVALID;
    }
    cs_audit_tiles_init(&tiles, cs_ledger_source(l), size);
    struct cs_audit_nodes nodes = cs_audit_tiles_nodes(&tiles);
    bool ok = cs_audit_prove_consistency(&nodes, old, size, ret);
    cs_audit_tiles_done(&tiles);
    return ok ? CS_OK : CS_ERR_CORRUPT;
}

/* The key that the log is known by. It is written once; later it must be the same. */
static enum cs_err pin(struct cs_ledger *l, const struct cs_audit_key *key)
{
    struct cs_buf text = cs_buf(CS_AUDIT_NAME_MAX + 128);
    enum cs_err e = CS_OK;
    if (l->pinned) {
        return strcmp(l->key.name, key->name) == 0 &&
                       memcmp(l->key.public, key->public, sizeof key->public) == 0
                   ? CS_OK
                   : CS_ERR_CONFLICT;
    }
    cs_audit_key_write(key, &text);
    cs_buf_u8(&text, '\n');
    e = text.bad ? CS_ERR_NO_MEMORY
                 : cs_ledger_file_put(l->log, "log.pub", cs_buf_slice(&text), true);
    cs_buf_done(&text);
    if (e == CS_OK) {
        l->key = *key;
        l->pinned = true;
    }
    return e;
}

enum cs_err cs_ledger_checkpoint(struct cs_ledger *l, uint64_t size, struct cs_slice note_text,
                                 const struct cs_audit_key *key)
{
    enum cs_err e = pin(l, key);
    if (e == CS_OK) {
        e = cs_ledger_file_put(l->log, "checkpoint", note_text, true);
    }
    if (e == CS_OK) {
        l->signed_to = size;
        l->hurry = false;
        /* What came since waits from now on: the bound is about no signature at all. */
        l->unsigned_ns = l->size > size ? cs_mono_ns() : 0;
        remove_old(l);
    }
    return e;
}

/* ---- durable files ---- */

static void head_write(const struct cs_ledger *l, struct cs_buf *out)
{
    struct cs_audit_checkpoint c = {cs_slice_str(cs_ledger_head_name), l->flushed, l->root};
    size_t n = CS_MIN(l->n_events, (size_t)CS_LEDGER_EVENTS);
    char hex[CS_ID_TEXT];
    cs_audit_checkpoint_write(&c, out);
    for (size_t i = l->n_events - n; i < l->n_events; i++) {
        cs_buf_printf(out, "event %s\n", cs_id_text(&l->events[i % CS_LEDGER_EVENTS], hex));
    }
}

enum cs_err cs_ledger_sync_prepare(struct cs_ledger *l)
{
    char path[CS_AUDIT_PATH];
    uint64_t size = 0;
    struct cs_audit_hash root;
    enum cs_err e = cs_ledger_flush(l, &size, &root);
    if (e != CS_OK) {
        return e;
    }
    cs_buf_add(&l->job_paths, cs_buf_slice(&l->dirty));
    l->dirty.len = 0;
    for (unsigned level = 0; level <= CS_AUDIT_LEVELS; level++) {
        if (partial_path(size, level, path)) {
            cs_buf_add(&l->job_paths, cs_slice(path, strlen(path) + 1));
        }
    }
    l->job_head.len = 0;
    head_write(l, &l->job_head);
    l->job_size = size;
    return l->job_paths.bad || l->job_head.bad ? CS_ERR_NO_MEMORY : CS_OK;
}

/* Each path; `folders`: the folder it is in, unless that was the last but one. */
static enum cs_err sync_paths(int log, struct cs_slice paths, bool folders)
{
    enum cs_err e = CS_OK;
    char last[2][CS_AUDIT_PATH] = {"", ""};
    size_t turn = 0;
    while (paths.n > 0 && e == CS_OK) {
        const char *path = (const char *)paths.p;
        const char *slash = strrchr(path, '/');
        size_t n = slash != NULL ? (size_t)(slash - path) : 0;
        if (!folders) {
            e = cs_ledger_file_sync(log, path);
        } else if (!(strncmp(path, last[0], n) == 0 && last[0][n] == '\0') &&
                   !(strncmp(path, last[1], n) == 0 && last[1][n] == '\0')) {
            e = cs_ledger_folder_sync(log, path);
            memcpy(last[turn], path, n);
            last[turn][n] = '\0';
            turn = 1 - turn;
        }
        paths = cs_slice_from(paths, strlen(path) + 1);
    }
    return e;
}

enum cs_err cs_ledger_sync_run(void *ledger)
{
    const struct cs_ledger *l = ledger;
    enum cs_err e = sync_paths(l->log, cs_buf_slice(&l->job_paths), false);
    return e == CS_OK ? sync_paths(l->log, cs_buf_slice(&l->job_paths), true) : e;
}

enum cs_err cs_ledger_sync_done(struct cs_ledger *l)
{
    l->job_paths.len = 0;
    /* In one step, and before the journal lets go of what it says. */
    enum cs_err e = cs_ledger_file_put(l->log, "head", cs_buf_slice(&l->job_head), true);
    if (e == CS_OK) {
        l->head = l->job_size;
        remove_old(l);
    }
    return e;
}

/* ---- leaves ---- */

uint64_t cs_ledger_size(const struct cs_ledger *l)
{
    return l->size;
}

uint64_t cs_ledger_signed(const struct cs_ledger *l)
{
    return l->signed_to;
}

uint64_t cs_ledger_unsigned_since(const struct cs_ledger *l)
{
    return l->unsigned_ns;
}

bool cs_ledger_has_key(const struct cs_ledger *l)
{
    return l->pinned;
}

bool cs_ledger_hurries(const struct cs_ledger *l)
{
    return l->hurry;
}

enum cs_err cs_ledger_put(struct cs_ledger *l, struct cs_journal *j, const struct cs_leaf *leaf)
{
    struct cs_buf bytes = cs_buf(CS_LEDGER_LEAF_MAX);
    enum cs_err e = cs_leaf_write(leaf, &bytes);
    if (e == CS_OK) {
        cs_assert(cs_journal_room(j) >= CS_JOURNAL_HEAD + bytes.len);
        memcpy(cs_journal_slot(j), bytes.p, bytes.len);
        cs_journal_add(j, CS_JOURNAL_LEAF, l->next++, bytes.len);
        cs_ledger_note(l, leaf);
    }
    cs_buf_done(&bytes);
    return e;
}

enum cs_err cs_ledger_add(struct cs_ledger *l, uint64_t index, struct cs_slice bytes)
{
    struct cs_leaf leaf;
    if (index < l->size) {
        return CS_OK;
    }
    if (index > l->size || !cs_leaf_read(bytes, &leaf)) {
        return CS_ERR_CORRUPT;
    }
    enum cs_err e = cs_audit_writer_add(l->writer, bytes);
    if (e != CS_OK) {
        return e;
    }
    cs_ledger_note(l, &leaf);
    l->size++;
    l->next = CS_MAX(l->next, l->size);
    l->hurry |= leaf.kind == CS_LEAF_SESSION_CLOSE;
    if (l->unsigned_ns == 0) {
        l->unsigned_ns = cs_mono_ns();
    }
    return CS_OK;
}
