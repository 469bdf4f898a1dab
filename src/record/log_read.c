/* Reads leaves for people (log_read.h). Called by job-replayer. It must never write, follow a link,
 * or show a private value that is not what the leaf has a hash of. */
#include "record/log_read.h"

#include "action/chain.h"
#include "audit/boxes.h"
#include "audit/note.h"
#include "audit/tile.h"
#include "base/alloc.h"
#include "base/secret.h"
#include "base/time.h"
#include "record/json.h"
#include "record/ledger_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum {
    LEAVES_BYTES = 4 * 1024 * 1024,
    OPENED_BYTES = 4 * 1024 * 1024,
    PRIVATE_KEYS = 3, /* of a leaf at most: who, subject, words */
    COUNT_MAX = 4096,
    LOOK_MAX = 256 * 1024, /* leaves looked at for one page */
    CHAIN_ARENA = 64 * 1024
};

struct place { /* in a buffer */
    size_t at, n;
};
struct sealed { /* one private value of the page; its tag is its number here */
    size_t leaf;
    enum cs_leaf_key key;
    bool open;
    struct place value; /* in `opened` */
};

struct cs_log_page {
    int log; /* owned */
    uint64_t size, from, next;
    struct cs_log_filter filter;
    struct cs_buf bytes, rows, opened;
    struct place leaf[COUNT_MAX];
    uint64_t number[COUNT_MAX]; /* of that leaf */
    size_t n;
    struct sealed sealed[COUNT_MAX * PRIVATE_KEYS];
    size_t n_sealed;
};

static struct cs_slice in(const struct cs_buf *b, struct place p)
{
    return cs_slice(b->p + p.at, p.n);
}

static enum cs_err source_get(void *ctx, const char *path, struct cs_buf *out)
{
    const struct cs_log_page *p = ctx;
    return cs_ledger_file_get(p->log, path, out);
}

static enum cs_err read_size(struct cs_log_page *p)
{
    struct cs_buf text = cs_buf(CS_AUDIT_NOTE_MAX);
    struct cs_audit_checkpoint c;
    enum cs_err e = cs_ledger_file_get(p->log, "checkpoint", &text);
    if (e == CS_OK) {
        struct cs_slice rest = cs_buf_slice(&text), line;
        bool ok = true;
        for (int i = 0; i < 3; i++) {
            ok = ok && cs_audit_line(&rest, &line);
        }
        ok = ok &&
             cs_audit_checkpoint_read(cs_slice_head(cs_buf_slice(&text), text.len - rest.n), &c);
        e = ok ? CS_OK : CS_ERR_CORRUPT;
        p->size = ok ? c.size : 0;
    }
    cs_buf_done(&text);
    return e;
}

/* The boxes of a leaf, into the question. False when they have no room there any more. */
static bool ask_for(struct cs_log_page *p, const struct cs_leaf *l)
{
    size_t rows = p->rows.len, sealed = p->n_sealed;
    for (unsigned k = 0; k < CS_LEAF_KEY_MAX; k++) {
        struct cs_leaf_box own;
        if (!cs_leaf_own_box(l, (enum cs_leaf_key)k, &own)) {
            continue;
        }
        if (p->n_sealed == CS_ARRAY_LEN(p->sealed)) {
            p->rows.bad = true;
            break;
        }
        const struct cs_box_row row = {.tag = (uint32_t)p->n_sealed,
                                       .kind = (uint8_t)l->kind,
                                       .key = (uint8_t)k,
                                       .holder = own.holder,
                                       .box = own.box};
        cs_box_row_write(&p->rows, &row);
        p->sealed[p->n_sealed++] = (struct sealed){.leaf = p->n, .key = (enum cs_leaf_key)k};
    }
    if (p->rows.bad) { /* full: this leaf is the next page's first */
        p->rows.bad = false;
        p->rows.len = rows;
        p->n_sealed = sealed;
        return false;
    }
    return true;
}

/* ---- what is wanted ---- */

/* "name=VALUE " off the text, if it is next; the last value goes to the text's end. */
static bool part(struct cs_slice *text, const char *name, bool last, struct cs_slice *ret)
{
    struct cs_slice head = cs_slice_str(name);
    if (!cs_slice_starts(*text, head)) {
        return false;
    }
    struct cs_slice rest = cs_slice_from(*text, head.n);
    size_t end = last ? rest.n : cs_slice_find(rest, ' ');
    *ret = cs_slice_head(rest, end);
    *text = cs_slice_from(rest, CS_MIN(end + 1, rest.n));
    return true;
}

bool cs_log_filter_read(struct cs_slice text, struct cs_log_filter *ret)
{
    struct cs_log_filter f = {.kind = 0};
    struct cs_slice v;
    bool ok = true;
    if (part(&text, "since=", false, &v)) {
        ok = cs_slice_to_u64(v, &f.since_ms);
    }
    if (ok && part(&text, "until=", false, &v)) {
        ok = cs_slice_to_u64(v, &f.until_ms) && f.until_ms > 0;
    }
    if (ok && part(&text, "kind=", false, &v)) {
        f.kind = (unsigned)cs_leaf_kind_of(v);
        ok = f.kind != 0;
    }
    if (ok && part(&text, "session=", false, &v)) {
        ok = f.has_session = cs_id_parse(v, &f.session);
    }
    if (ok && part(&text, "who=", true, &v)) {
        ok = v.n > 0 && v.n < sizeof f.who && memchr(v.p, 0, v.n) == NULL;
        memcpy(f.who, v.p, ok ? v.n : 0);
    }
    if (!ok || text.n > 0) {
        return false;
    }
    *ret = f;
    return true;
}

static bool fits(const struct cs_log_filter *f, struct cs_slice bytes)
{
    static const struct cs_log_filter all = {.kind = 0};
    struct cs_leaf l;
    if (memcmp(f, &all, sizeof all) == 0) {
        return true; /* a malformed one, too */
    }
    if (!cs_leaf_read(bytes, &l) || l.time_ms < f->since_ms ||
        (f->until_ms > 0 && l.time_ms >= f->until_ms) ||
        (f->kind != 0 && (unsigned)l.kind != f->kind)) {
        return false;
    }
    return !f->has_session ||
           (cs_leaf_has(&l, CS_KEY_SESSION) &&
            cs_slice_eq(l.value[CS_KEY_SESSION].bytes, cs_slice(f->session.b, CS_ID_BYTES)));
}

/* False when the page is full. */
static bool add_leaf(struct cs_log_page *p, uint64_t number, struct cs_slice bytes)
{
    struct cs_leaf l;
    size_t at = p->bytes.len;
    if (!fits(&p->filter, bytes)) {
        return true;
    }
    if (bytes.n > p->bytes.max - at || p->n == COUNT_MAX) {
        return false;
    }
    cs_buf_add(&p->bytes, bytes);
    if (!p->bytes.bad && cs_leaf_read(cs_slice(p->bytes.p + at, bytes.n), &l) && !ask_for(p, &l)) {
        p->bytes.len = at;
        return false;
    }
    p->number[p->n] = number;
    p->leaf[p->n++] = (struct place){at, bytes.n};
    return true;
}

static enum cs_err read_leaves(struct cs_log_page *p, uint64_t count)
{
    const struct cs_audit_source from = {source_get, p};
    struct cs_buf bundle = cs_buf(CS_AUDIT_BUNDLE_MAX);
    char path[CS_AUDIT_PATH];
    enum cs_err e = CS_OK;
    bool more = true;
    uint64_t until = p->from + CS_MIN((uint64_t)LOOK_MAX, p->size - p->from), at = p->from;
    while (more && p->n < count && at < until && e == CS_OK) {
        struct cs_slice rest, one;
        uint64_t i = at / CS_AUDIT_WIDTH * CS_AUDIT_WIDTH;
        bundle.len = 0;
        e = cs_audit_tile_get(&from, CS_AUDIT_ENTRIES, at / CS_AUDIT_WIDTH, p->size, &bundle, path);
        rest = cs_buf_slice(&bundle);
        for (; more && p->n < count && e == CS_OK && at < until &&
               i / CS_AUDIT_WIDTH == at / CS_AUDIT_WIDTH;
             i++) {
            e = cs_audit_bundle_next(&rest, &one) ? CS_OK : CS_ERR_CORRUPT;
            if (e == CS_OK && i == at) {
                more = add_leaf(p, at, one);
                at += more ? 1 : 0;
            }
        }
    }
    p->next = at;
    cs_buf_done(&bundle);
    return e == CS_OK && p->bytes.bad ? CS_ERR_NO_MEMORY : e;
}

enum cs_err cs_log_page_open(const char *directory, uint64_t from, uint64_t count,
                             const struct cs_log_filter *filter, struct cs_log_page **ret)
{
    struct cs_log_page *p = cs_alloc(sizeof *p);
    if (p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    p->filter = *filter;
    p->bytes = cs_buf(LEAVES_BYTES);
    p->rows = cs_buf(CS_BOXES_MAX);
    p->opened = cs_buf(OPENED_BYTES);
    int dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    p->log = dir >= 0 ? openat(dir, "log", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    enum cs_err e = p->log >= 0 ? CS_OK : cs_err_from_errno(errno);
    if (dir >= 0) {
        (void)close(dir);
    }
    e = e == CS_OK ? read_size(p) : e;
    if (e == CS_OK) {
        p->from = from == UINT64_MAX ? p->size - CS_MIN(count, p->size) : CS_MIN(from, p->size);
        e = read_leaves(p, count);
    }
    if (e != CS_OK) {
        cs_log_page_close(p);
        return e;
    }
    *ret = p;
    return CS_OK;
}

void cs_log_page_close(struct cs_log_page *p)
{
    if (p == NULL) {
        return;
    }
    if (p->log >= 0) {
        (void)close(p->log);
    }
    cs_wipe(p->opened.p, p->opened.len);
    cs_buf_done(&p->bytes);
    cs_buf_done(&p->rows);
    cs_buf_done(&p->opened);
    cs_free(p);
}

struct cs_slice cs_log_page_rows(const struct cs_log_page *p)
{
    return cs_buf_slice(&p->rows);
}

static void opened(struct cs_log_page *p, struct sealed *s, size_t at, enum cs_err e)
{
    s->open = e == CS_OK && !p->opened.bad;
    s->value = (struct place){at, s->open ? p->opened.len - at : 0};
}

void cs_log_page_opened(struct cs_log_page *p, const uint8_t private[static CS_X25519],
                        struct cs_slice rows)
{
    struct cs_box_row row;
    struct cs_leaf l;
    struct cs_leaf_box own;
    while (cs_box_row_next(&rows, &row)) {
        struct sealed *s = row.tag < p->n_sealed ? &p->sealed[row.tag] : NULL;
        if (s == NULL || s->open || !cs_leaf_read(in(&p->bytes, p->leaf[s->leaf]), &l) ||
            (unsigned)row.kind != (unsigned)l.kind || (unsigned)row.key != (unsigned)s->key ||
            !cs_leaf_own_box(&l, s->key, &own)) {
            continue;
        }
        size_t at = p->opened.len;
        opened(p, s, at, cs_box_row_open(private, &row, own.hash, &p->opened));
    }
}

void cs_log_page_own_key(struct cs_log_page *p, const uint8_t private[static CS_X25519])
{
    struct cs_leaf l;
    for (size_t i = 0; i < p->n_sealed; i++) {
        struct sealed *s = &p->sealed[i];
        size_t at = p->opened.len;
        if (cs_leaf_read(in(&p->bytes, p->leaf[s->leaf]), &l)) {
            opened(p, s, at, cs_leaf_unseal(&l, s->key, private, &p->opened));
        }
    }
}

/* ---- JSON ---- */

static void value_json(struct cs_json *j, const struct cs_leaf *l, enum cs_leaf_key key,
                       const char *name, struct cs_slice value)
{
    struct cs_reader r = cs_reader(value);
    struct cs_chain chain = {.n = 0};
    struct cs_arena a;
    cs_arena_init(&a, 1024, CHAIN_ARENA);
    bool is_chain = l->kind == CS_LEAF_SESSION_OPEN && key == CS_KEY_WHO &&
                    cs_chain_decode(&r, &a, &chain) && cs_reader_done(&r);
    cs_json_bytes(j, name, is_chain ? cs_chain_text(&chain, &a) : value);
    cs_arena_done(&a);
}

static void private_json(struct cs_json *j, const struct cs_log_page *p, size_t leaf,
                         const struct cs_leaf *l, enum cs_leaf_key key, const char *name)
{
    struct cs_leaf_box own;
    for (size_t i = 0; i < p->n_sealed; i++) {
        const struct sealed *s = &p->sealed[i];
        if (s->leaf == leaf && s->key == key && s->open) {
            value_json(j, l, key, name, in(&p->opened, s->value));
            return;
        }
    }
    if (cs_leaf_own_box(l, key, &own)) {
        cs_json_begin(j, name, '{');
        cs_json_hex(j, "sealed", own.hash);
        cs_json_end(j, '}');
    }
}

static void leaf_json(struct cs_json *j, const struct cs_log_page *p, size_t i)
{
    struct cs_leaf l;
    char when[CS_TIME_TEXT];
    cs_json_begin(j, NULL, '{');
    cs_json_u64(j, "leaf", p->number[i]);
    if (!cs_leaf_read(in(&p->bytes, p->leaf[i]), &l)) {
        cs_json_null(j, "kind");
        cs_json_end(j, '}');
        return;
    }
    cs_json_str(j, "t", cs_time_text(l.time_ms, when));
    cs_json_str(j, "kind", cs_leaf_kind_name(l.kind));
    for (unsigned k = 0; k < CS_LEAF_KEY_MAX; k++) {
        const enum cs_leaf_key key = (enum cs_leaf_key)k;
        const struct cs_leaf_value *v = &l.value[k];
        const char *name = cs_leaf_key_name(key);
        if (!cs_leaf_has(&l, key)) {
            continue;
        }
        switch (cs_leaf_key_type(key)) {
        case CS_LEAF_TYPE_UINT:
            cs_json_u64(j, name, v->number);
            break;
        case CS_LEAF_TYPE_ID:
        case CS_LEAF_TYPE_HASH:
            cs_json_hex(j, name, v->bytes);
            break;
        case CS_LEAF_TYPE_TEXT:
            cs_json_bytes(j, name, v->bytes);
            break;
        case CS_LEAF_TYPE_PRIVATE:
            private_json(j, p, i, &l, key, name);
            break;
        case CS_LEAF_TYPE_NONE:
        default:
            break;
        }
    }
    cs_json_end(j, '}');
}

/* A private value of this leaf that was opened has the text that is looked for. */
static bool has_who(const struct cs_log_page *p, size_t leaf)
{
    struct cs_slice want = cs_slice_str(p->filter.who);
    bool has = want.n == 0;
    for (size_t i = 0; i < p->n_sealed && !has; i++) {
        const struct sealed *s = &p->sealed[i];
        struct cs_slice v = in(&p->opened, s->value);
        has = s->leaf == leaf && s->open && s->key != CS_KEY_WORDS && v.n > 0 &&
              memmem(v.p, v.n, want.p, want.n) != NULL;
    }
    return has;
}

void cs_log_page_json(const struct cs_log_page *p, struct cs_buf *out)
{
    struct cs_json j = {out, false};
    uint64_t next = p->next, shown = 0;
    cs_json_begin(&j, NULL, '{');
    cs_json_u64(&j, "size", p->size);
    cs_json_u64(&j, "from", p->from);
    if (next < p->size) {
        cs_json_u64(&j, "next", next);
    } else {
        cs_json_null(&j, "next");
    }
    cs_json_begin(&j, "leaves", '[');
    for (size_t i = 0; i < p->n; i++) {
        if (has_who(p, i)) {
            leaf_json(&j, p, i);
            shown++;
        }
    }
    cs_json_end(&j, ']');
    cs_json_u64(&j, "passed_over", p->next - p->from - shown);
    cs_json_end(&j, '}');
}
