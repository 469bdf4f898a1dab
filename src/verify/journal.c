/* Reading the recorder's journal for a check (journal.h): which bytes of which file it has, and the
 * files with them laid over. Called for a recordings directory and for an export. It must never
 * hide a byte that somebody changed: where a file has something else than the journal, and not just
 * nothing, that is said, and the file's own bytes of the log are what is checked. */
#include "verify/journal.h"

#include "base/alloc.h"
#include "record/files.h"
#include "record/ledger.h"
#include "verify/verify.h"

#include <fcntl.h>
#include <unistd.h>

enum { ARENA_CHUNK = 64 * 1024, FILE_KEY = CS_JOURNAL_FILE, COMPARE = 64 * 1024 };
#define ARENA_MAX ((size_t)256 << 20)
enum { PIECES_MAX = 4 * 1024 * 1024 }; /* a hostile journal ends here: 96 MB of them */

/* ---- which bytes there are ---- */

static bool append(struct cs_verify_journal *j, struct cs_verify_pieces *p,
                   struct cs_verify_piece piece)
{
    if (p->n == p->cap) {
        size_t cap = p->cap == 0 ? 16 : 2 * p->cap;
        struct cs_verify_piece *more =
            j->n_pieces < PIECES_MAX ? cs_realloc(p->v, cap * sizeof *more) : NULL;
        if (more == NULL) {
            return false;
        }
        p->v = more;
        p->cap = cap;
    }
    p->v[p->n++] = piece;
    j->n_pieces++;
    return true;
}

/* A recording only grows. Where one was cut, or begun again under its name, what the journal had
 * behind that place is void. */
static void cut(struct cs_verify_journal *j, struct cs_verify_pieces *p, uint64_t offset)
{
    while (p->n > 0 && p->v[p->n - 1].offset >= offset) {
        p->n--;
        j->n_pieces--;
    }
    if (p->n > 0 && offset - p->v[p->n - 1].offset < p->v[p->n - 1].n) {
        p->v[p->n - 1].n = (uint32_t)(offset - p->v[p->n - 1].offset);
    }
}

static void key_of(const struct cs_journal_file *f, uint8_t out[static FILE_KEY])
{
    struct cs_journal_file name = *f;
    name.epoch = f->foreign ? f->epoch : 0; /* the file's name has no other */
    cs_journal_file_write(&name, out);
}

static bool take_bytes(struct cs_verify_journal *j, struct cs_slice body, uint64_t offset,
                       uint32_t segment, uint32_t at)
{
    struct cs_journal_file f;
    uint8_t key[FILE_KEY];
    /* The end of what no file is as long as: an offset from here on is none of the recorder's. */
    if (!cs_journal_file_read(&body, &f) || body.n == 0 || offset > INT64_MAX - body.n) {
        return true; /* recovery stops here with an error: nothing of it gets into a file */
    }
    key_of(&f, key);
    struct cs_verify_part *part =
        cs_map_get(&j->files, &j->arena, cs_slice(key, sizeof key), sizeof *part);
    if (part == NULL) {
        return false;
    }
    if (!part->listed) {
        part->listed = true;
        part->file = f;
        part->next = j->all;
        j->all = part;
    }
    cut(j, &part->pieces, offset);
    return append(j, &part->pieces,
                  (struct cs_verify_piece){offset, (uint32_t)body.n, segment, at});
}

/* The first one of a number counts, as in recovery; behind a hole a new run begins. */
static bool take_leaf(struct cs_verify_journal *j, struct cs_verify_piece leaf)
{
    struct cs_verify_pieces *l = &j->leaves;
    if (l->n > 0 && leaf.offset <= l->v[l->n - 1].offset) {
        return true;
    }
    if (l->n > 0 && leaf.offset != l->v[l->n - 1].offset + 1) {
        j->n_pieces -= l->n;
        l->n = 0;
    }
    return append(j, l, leaf);
}

static size_t committed(struct cs_segment_scan scan)
{
    struct cs_journal_entry e;
    size_t at = scan.at;
    while (cs_segment_scan_next(&scan, &e) == CS_SCAN_ENTRY) {
        at = e.kind == CS_JOURNAL_COMMIT ? scan.at : at;
    }
    return at;
}

static bool take_segment(struct cs_verify_journal *j, uint32_t number, struct cs_slice file)
{
    struct cs_segment_scan scan;
    struct cs_segment_head head;
    struct cs_journal_entry e;
    bool ok = cs_segment_scan_start(file, &scan, &head) && head.number == number;
    /* What has no COMMIT behind it was acknowledged to nobody, and the next start cuts it off. */
    size_t end = ok ? committed(scan) : 0;
    while (ok && scan.at < end && cs_segment_scan_next(&scan, &e) == CS_SCAN_ENTRY) {
        uint32_t at = (uint32_t)(scan.at - e.body.n);
        if (e.kind == CS_JOURNAL_BYTES) {
            ok = take_bytes(j, e.body, e.offset, number, at + CS_JOURNAL_FILE);
        } else if (e.kind == CS_JOURNAL_LEAF) {
            ok = take_leaf(j, (struct cs_verify_piece){e.offset, (uint32_t)e.body.n, number, at});
        }
    }
    return ok;
}

void cs_verify_journal_open(struct cs_verify_journal *j, int dir)
{
    *j = (struct cs_verify_journal){.dir = dir, .fd = -1};
    cs_arena_init(&j->arena, ARENA_CHUNK, ARENA_MAX);
    cs_map_init(&j->files);
    struct cs_segment_list l = {NULL, 0, 0};
    j->unread = cs_segments_list(dir, &l) != CS_OK;
    for (size_t i = 0; i < l.n; i++) {
        char name[CS_SEGMENT_NAME];
        uint8_t *bytes = NULL;
        size_t n = 0;
        enum cs_err err = cs_file_read(dir, cs_segment_name(l.numbers[i], name), &bytes, &n);
        /* One that is gone meanwhile is durable in its files. */
        j->unread |= err != CS_OK ? err != CS_ERR_NOT_FOUND
                                  : !take_segment(j, l.numbers[i], cs_slice(bytes, n));
        cs_free(bytes);
    }
    cs_segments_done(&l);
}

void cs_verify_journal_close(struct cs_verify_journal *j)
{
    for (struct cs_verify_part *p = j->all; p != NULL; p = p->next) {
        cs_free(p->pieces.v);
    }
    cs_free(j->leaves.v);
    if (j->fd >= 0) {
        (void)close(j->fd);
    }
    cs_map_done(&j->files);
    cs_arena_done(&j->arena);
}

struct cs_verify_part *cs_verify_journal_find(const struct cs_verify_journal *j,
                                              const struct cs_id *session, bool foreign,
                                              uint64_t epoch)
{
    const struct cs_journal_file f = {.session = *session, .epoch = epoch, .foreign = foreign};
    uint8_t key[FILE_KEY];
    key_of(&f, key);
    return (struct cs_verify_part *)cs_map_find(&j->files, cs_slice(key, sizeof key));
}

/* `n` bytes of a piece, from `skip` on. False: its segment is not there any more. */
static bool piece_read(struct cs_verify_journal *j, const struct cs_verify_piece *p, uint64_t skip,
                       uint8_t *out, size_t n)
{
    char name[CS_SEGMENT_NAME];
    uint64_t size = 0;
    if (j->fd < 0 || j->fd_segment != p->segment) {
        if (j->fd >= 0) {
            (void)close(j->fd);
        }
        j->fd = -1;
        j->fd_segment = p->segment;
        if (cs_verify_open(j->dir, cs_segment_name(p->segment, name), &j->fd, &size) != CS_OK) {
            j->fd = -1;
            return false;
        }
    }
    struct cs_csr_source in = cs_csr_descriptor(&j->fd, UINT64_MAX);
    return in.read_at(in.arg, p->at + skip, out, n) == n;
}

/* ---- one recording ---- */

/* The first piece that ends behind `at`. */
static size_t piece_at(const struct cs_verify_pieces *p, uint64_t at)
{
    size_t low = 0, high = p->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (p->v[mid].offset + p->v[mid].n <= at) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static size_t file_read(const struct cs_verify_overlay *o, uint64_t at, uint8_t *out, size_t n)
{
    if (o->fd < 0 || at >= o->size) {
        return 0;
    }
    struct cs_csr_source file = cs_csr_descriptor(&o->fd, o->size);
    return file.read_at(file.arg, at, out, (size_t)CS_MIN((uint64_t)n, o->size - at));
}

static size_t overlay_read(void *arg, uint64_t at, void *into, size_t n)
{
    const struct cs_verify_overlay *o = arg;
    uint8_t *out = into;
    size_t done = file_read(o, at, out, n);
    for (size_t i = piece_at(&o->part->pieces, at); i < o->part->pieces.n; i++) {
        const struct cs_verify_piece *p = &o->part->pieces.v[i];
        uint64_t skip = p->offset < at ? at - p->offset : 0;
        uint64_t to = p->offset + skip - at; /* in `out` */
        if (to > done || to >= n) {
            break; /* a hole, or enough */
        }
        size_t part = (size_t)CS_MIN(p->n - skip, (uint64_t)n - to);
        if (!piece_read(o->journal, p, skip, out + to, part)) {
            break;
        }
        done = CS_MAX(done, (size_t)to + part);
    }
    return done;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return cs_zeros_trimmed(cs_slice(p, n)) == 0;
}

/* What a disk that lost power has of `right`: each sector, or nothing of it. `at`: where it stands
 * in the file. Offsets are of the first byte that is not so. */
static void compare(struct cs_slice disk, struct cs_slice right, uint64_t at, uint64_t *lacks,
                    uint64_t *odd)
{
    for (size_t i = 0; i < disk.n;) {
        size_t n = CS_MIN((size_t)(CS_VERIFY_SECTOR - (at + i) % CS_VERIFY_SECTOR), disk.n - i);
        if (i + n > right.n || memcmp(disk.p + i, right.p + i, n) != 0) {
            uint64_t *what = is_zero(disk.p + i, n) && i + n <= right.n ? lacks : odd;
            *what = CS_MIN(*what, at + i);
        }
        i += n;
    }
    if (disk.n < right.n) {
        *lacks = CS_MIN(*lacks, at + disk.n);
    }
}

static void compare_piece(struct cs_verify_overlay *o, const struct cs_verify_piece *p,
                          uint8_t *room)
{
    uint8_t *disk = room, *right = room + COMPARE;
    for (uint64_t skip = 0; skip < p->n;) {
        uint64_t at = p->offset + skip;
        size_t n = (size_t)CS_MIN(COMPARE - at % CS_VERIFY_SECTOR, p->n - skip);
        size_t there = file_read(o, at, disk, n);
        if (!piece_read(o->journal, p, skip, right, n)) {
            return;
        }
        compare(cs_slice(disk, there), cs_slice(right, n), at, &o->lacks, &o->odd);
        if (there < n) {
            return; /* nothing further is in the file */
        }
        skip += n;
    }
}

struct cs_csr_source cs_verify_overlay(struct cs_verify_overlay *o)
{
    uint64_t size = o->fd >= 0 ? o->size : 0;
    o->lacks = o->odd = UINT64_MAX;
    uint8_t *room = o->part != NULL ? cs_alloc((size_t)2 * COMPARE) : NULL;
    if (room == NULL) { /* without memory what the file lacks is missing */
        return cs_csr_descriptor(&o->fd, size);
    }
    const struct cs_verify_pieces *p = &o->part->pieces;
    /* Only what goes on from the file without a hole: in a copy the journal may be newer. */
    for (size_t i = 0; i < p->n && p->v[i].offset <= size; i++) {
        compare_piece(o, &p->v[i], room);
        size = CS_MAX(size, p->v[i].offset + p->v[i].n);
    }
    cs_free(room);
    if (o->odd != UINT64_MAX) {
        return cs_csr_descriptor(&o->fd, o->size); /* and that is said */
    }
    return (struct cs_csr_source){o, size, overlay_read};
}

/* ---- the log ---- */

struct log_file {
    struct cs_map_node node;
    struct cs_slice content;
};

static enum cs_err keep(void *ctx, const char *path, struct cs_slice content)
{
    struct cs_verify_log_files *f = ctx;
    struct log_file *file =
        cs_map_get(&f->files, &f->arena, cs_slice_str(path), sizeof(struct log_file));
    struct cs_slice copy = cs_arena_dup(&f->arena, content);
    f->failed |= file == NULL || copy.p == NULL;
    if (!f->failed) {
        file->content = copy;
    }
    return f->failed ? CS_ERR_NO_MEMORY : CS_OK;
}

static enum cs_err get(void *ctx, const char *path, struct cs_buf *out)
{
    struct cs_verify_log_files *f = ctx;
    struct cs_audit_source files = cs_verify_files(&f->log);
    enum cs_err err = files.get(files.ctx, path, out);
    const struct log_file *file =
        f->to > f->from ? (const struct log_file *)cs_map_find(&f->files, cs_slice_str(path))
                        : NULL;
    if (file == NULL || (err != CS_OK && err != CS_ERR_NOT_FOUND)) {
        return err;
    }
    uint64_t lacks = UINT64_MAX, odd = UINT64_MAX;
    if (err == CS_OK) {
        compare(cs_buf_slice(out), file->content, 0, &lacks, &odd);
        if (odd != UINT64_MAX || lacks == UINT64_MAX) {
            return CS_OK; /* its own bytes: right, or changed, and then found to be */
        }
    }
    f->used = true;
    out->len = 0;
    cs_buf_add(out, file->content);
    return out->bad ? CS_ERR_NO_MEMORY : CS_OK;
}

struct cs_audit_source cs_verify_log_source(struct cs_verify_log_files *f)
{
    return (struct cs_audit_source){get, f};
}

/* The files that the recorder would write with these leaves. Whether they are the right ones, the
 * signature tells. */
static bool make_files(struct cs_verify_log_files *f, struct cs_verify_journal *j,
                       const struct cs_audit_checkpoint *head, uint64_t to)
{
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){keep, f});
    struct cs_buf leaf = cs_buf(CS_AUDIT_LEAF_MAX);
    uint64_t size = 0;
    struct cs_audit_hash root;
    bool ok =
        w != NULL && (head->size == 0 || cs_audit_writer_resume(w, cs_verify_files(&f->log),
                                                                head->size, &head->root) == CS_OK);
    for (uint64_t i = head->size; ok && i < to; i++) {
        const struct cs_verify_piece *p = &j->leaves.v[i - j->leaves.v[0].offset];
        leaf.len = 0;
        uint8_t *room = p->n <= CS_AUDIT_LEAF_MAX ? cs_buf_room(&leaf, p->n) : NULL;
        ok = room != NULL && piece_read(j, p, 0, room, p->n) &&
             cs_audit_writer_add(w, cs_slice(room, p->n)) == CS_OK;
    }
    ok = ok && cs_audit_writer_flush(w, &size, &root) == CS_OK && size == to && !f->failed;
    cs_audit_writer_free(w);
    cs_buf_done(&leaf);
    return ok;
}

void cs_verify_log_files_init(struct cs_verify_log_files *f, int log, struct cs_verify_journal *j,
                              const struct cs_audit_key *key)
{
    struct cs_audit_checkpoint head = {.size = 0}, signed_to;
    struct cs_slice events;
    struct cs_buf note = cs_buf(CS_AUDIT_NOTE_MAX), text = cs_buf(CS_LEDGER_HEAD_MAX);
    *f = (struct cs_verify_log_files){.log = log};
    cs_arena_init(&f->arena, ARENA_CHUNK, ARENA_MAX);
    cs_map_init(&f->files);
    struct cs_audit_source files = cs_verify_files(&log);
    bool ok = j->leaves.n > 0 && files.get(files.ctx, "checkpoint", &note) == CS_OK &&
              cs_audit_checkpoint_open(cs_buf_slice(&note), key, &signed_to);
    enum cs_err err = ok ? files.get(files.ctx, "head", &text) : CS_ERR_INVALID;
    /* Without it nothing was durable yet. */
    ok = ok && (err == CS_ERR_NOT_FOUND ||
                (err == CS_OK && cs_ledger_head_read(cs_buf_slice(&text), &head, &events)));
    if (ok && head.size < signed_to.size && j->leaves.v[0].offset <= head.size &&
        signed_to.size - j->leaves.v[0].offset <= j->leaves.n &&
        make_files(f, j, &head, signed_to.size)) {
        f->from = head.size;
        f->to = signed_to.size;
    }
    cs_buf_done(&note);
    cs_buf_done(&text);
}

void cs_verify_log_files_done(struct cs_verify_log_files *f)
{
    cs_map_done(&f->files);
    cs_arena_done(&f->arena);
}
