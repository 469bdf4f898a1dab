/* Checks a log. Called by verify, and by the recorder before it goes on with a log. It recomputes
 * everything from the leaves: a tile is compared, never believed. It must never end INTACT with a
 * leaf unread or a signature unchecked. */
#include "audit/check.h"

#include "base/alloc.h"

/* One level of tiles on the way up: hashes as they come, compared when the tile is full. */
struct level {
    unsigned n;
    struct cs_audit_hash hash[CS_AUDIT_WIDTH];
};

struct state {
    struct cs_audit_check *c;
    struct cs_audit_tree tree;
    struct cs_audit_checkpoint since;
    struct cs_buf bundle, tile; /* owned */
    struct level levels[CS_AUDIT_LEVELS];
};

static enum cs_audit_verdict say(struct cs_audit_check *c, enum cs_audit_verdict v, const char *why,
                                 uint64_t index)
{
    c->why = why;
    c->index = index;
    return v;
}

static enum cs_audit_verdict fetched(struct cs_audit_check *c, enum cs_err e, uint64_t index)
{
    switch ((int)e) {
    case CS_OK:
        return CS_AUDIT_INTACT;
    case CS_ERR_NO_MEMORY:
    case CS_ERR_INTERNAL:
        return say(c, CS_AUDIT_FAILED, "there was no memory to read it", index);
    case CS_ERR_NOT_FOUND:
        return say(c, CS_AUDIT_MISSING, "a file that the checkpoint promises is missing", index);
    case CS_ERR_TOO_LARGE:
        return say(c, CS_AUDIT_TAMPERED, "the file is longer than such a file can be", index);
    default:
        return say(c, CS_AUDIT_MISSING, "the file could not be read", index);
    }
}

/* Tile n of a level against what the leaves give. A file with more in it than this log's size asks
 * for is that of a log that went on; what is behind is not looked at. */
static enum cs_audit_verdict compare(struct state *s, unsigned l, uint64_t n)
{
    struct cs_audit_check *c = s->c;
    struct level *level = &s->levels[l];
    uint64_t first = (n * CS_AUDIT_WIDTH) << (8 * l);
    enum cs_audit_verdict v =
        fetched(c, cs_audit_tile_get(&c->from, l, n, c->size, &s->tile, c->path), first);
    if (v != CS_AUDIT_INTACT) {
        return v;
    }
    if (s->tile.len != cs_audit_path_width(c->path) * sizeof level->hash[0]) {
        return say(c, CS_AUDIT_TAMPERED, "the tile has the wrong length", first);
    }
    for (unsigned i = 0; i < level->n; i++) {
        if (memcmp(s->tile.p + i * sizeof level->hash[0], level->hash[i].b, CS_AUDIT_HASH) != 0) {
            return say(c, CS_AUDIT_TAMPERED, "the tile is not that of the leaves",
                       first + ((uint64_t)i << (8 * l)));
        }
    }
    return CS_AUDIT_INTACT;
}

static enum cs_audit_verdict climb(struct state *s, struct cs_audit_hash h)
{
    for (unsigned l = 0; l < CS_AUDIT_LEVELS; l++) {
        struct level *level = &s->levels[l];
        level->hash[level->n++] = h;
        if (level->n < CS_AUDIT_WIDTH) {
            break;
        }
        enum cs_audit_verdict v = compare(s, l, ((s->tree.size - 1) >> (8 * l)) / CS_AUDIT_WIDTH);
        if (v != CS_AUDIT_INTACT) {
            return v;
        }
        cs_audit_fold(level->hash, CS_AUDIT_WIDTH, &h);
        level->n = 0;
    }
    return CS_AUDIT_INTACT;
}

static enum cs_audit_verdict take_leaf(struct state *s, struct cs_slice bytes)
{
    struct cs_audit_check *c = s->c;
    struct cs_audit_hash h, was;
    struct cs_leaf leaf;
    uint64_t index = s->tree.size;
    if (!cs_leaf_read(bytes, &leaf)) {
        return say(c, CS_AUDIT_TAMPERED, "the leaf is malformed", index);
    }
    cs_audit_leaf_hash(bytes, &h);
    cs_audit_tree_add(&s->tree, &h);
    if (c->since.n > 0 && s->tree.size == s->since.size) {
        cs_audit_tree_root(&s->tree, &was);
        if (!cs_audit_hash_eq(&was, &s->since.root)) {
            return say(c, CS_AUDIT_TAMPERED, "the log is not the one of the older checkpoint", 0);
        }
    }
    if (c->leaf != NULL) {
        c->leaf(c->ctx, index, &leaf, bytes);
    }
    return climb(s, h);
}

static enum cs_audit_verdict take_bundle(struct state *s, uint64_t n)
{
    struct cs_audit_check *c = s->c;
    struct cs_slice leaf;
    unsigned width = cs_audit_tile_width(CS_AUDIT_ENTRIES, n, c->size);
    char path[CS_AUDIT_PATH];
    enum cs_audit_verdict v =
        fetched(c, cs_audit_tile_get(&c->from, CS_AUDIT_ENTRIES, n, c->size, &s->bundle, c->path),
                s->tree.size);
    memcpy(path, c->path, sizeof path);
    struct cs_slice rest = cs_buf_slice(&s->bundle);
    for (unsigned i = 0; i < width && v == CS_AUDIT_INTACT; i++) {
        memcpy(c->path, path, sizeof path);
        if (!cs_audit_bundle_next(&rest, &leaf)) {
            return say(c, CS_AUDIT_TAMPERED, "the bundle has fewer leaves than the checkpoint says",
                       s->tree.size);
        }
        v = take_leaf(s, leaf);
    }
    if (v == CS_AUDIT_INTACT && rest.n > 0 && width == cs_audit_path_width(path)) {
        memcpy(c->path, path, sizeof path);
        return say(c, CS_AUDIT_TAMPERED, "bytes stand behind the bundle's last leaf", s->tree.size);
    }
    return v;
}

static enum cs_audit_verdict take_all(struct state *s)
{
    struct cs_audit_check *c = s->c;
    enum cs_audit_verdict v = CS_AUDIT_INTACT;
    for (uint64_t n = 0; s->tree.size < c->size && v == CS_AUDIT_INTACT; n++) {
        v = take_bundle(s, n);
    }
    for (unsigned l = 0; l < CS_AUDIT_LEVELS && v == CS_AUDIT_INTACT; l++) {
        if (s->levels[l].n > 0) {
            v = compare(s, l, (c->size >> (8 * l)) / CS_AUDIT_WIDTH);
        }
    }
    if (v != CS_AUDIT_INTACT) {
        return v;
    }
    struct cs_audit_hash root;
    cs_audit_tree_root(&s->tree, &root);
    if (!cs_audit_hash_eq(&root, &c->root)) {
        return say(c, CS_AUDIT_TAMPERED, "leaves and tiles do not give the root that was signed",
                   0);
    }
    return CS_AUDIT_INTACT;
}

/* The signed heads: the log's own, and the older one that it must go on from. */
static enum cs_audit_verdict open_heads(struct state *s, struct cs_buf *note)
{
    struct cs_audit_check *c = s->c;
    struct cs_audit_checkpoint head;
    memcpy(c->path, "checkpoint", sizeof "checkpoint");
    enum cs_audit_verdict v = fetched(c, c->from.get(c->from.ctx, c->path, note), 0);
    if (v != CS_AUDIT_INTACT) {
        return v;
    }
    if (note->bad || !cs_audit_checkpoint_open(cs_buf_slice(note), c->key, &head)) {
        return say(c, CS_AUDIT_TAMPERED, "the checkpoint is not signed with this key", 0);
    }
    c->size = head.size;
    c->root = head.root;
    if (c->since.n == 0) {
        return CS_AUDIT_INTACT;
    }
    if (!cs_audit_checkpoint_open(c->since, c->key, &s->since)) {
        return say(c, CS_AUDIT_TAMPERED, "the older checkpoint is not signed with this key", 0);
    }
    struct cs_audit_hash empty;
    cs_audit_tree_root(&s->tree, &empty);
    if (s->since.size == 0 && !cs_audit_hash_eq(&empty, &s->since.root)) {
        return say(c, CS_AUDIT_TAMPERED, "the older checkpoint's root is not that of no leaves", 0);
    }
    if (s->since.size > head.size) {
        return say(c, CS_AUDIT_TAMPERED, "the log is shorter than at the older checkpoint",
                   head.size);
    }
    return CS_AUDIT_INTACT;
}

enum cs_audit_verdict cs_audit_check(struct cs_audit_check *c)
{
    struct cs_buf note = cs_buf(CS_AUDIT_NOTE_MAX);
    struct state *s = cs_alloc(sizeof *s);
    c->path[0] = '\0';
    c->size = 0;
    c->root = (struct cs_audit_hash){{0}};
    if (s == NULL) {
        return say(c, CS_AUDIT_FAILED, "there is no memory", 0);
    }
    s->c = c;
    s->bundle = cs_buf(CS_AUDIT_BUNDLE_MAX);
    s->tile = cs_buf(CS_AUDIT_TILE_MAX);
    enum cs_audit_verdict v = open_heads(s, &note);
    if (v == CS_AUDIT_INTACT) {
        c->path[0] = '\0';
        v = take_all(s);
    }
    if (v == CS_AUDIT_INTACT) {
        c->path[0] = '\0';
        c->why = "";
        c->index = 0;
    }
    cs_buf_done(&note);
    cs_buf_done(&s->bundle);
    cs_buf_done(&s->tile);
    cs_free(s);
    return v;
}
