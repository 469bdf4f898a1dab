/* Writes a log's tiles and bundles, in the order of the leaves. Called by who keeps the log; only
 * one writer at a time has a log. It must never give a root whose files were not all put. */
#include "audit/tile.h"
#include "base/alloc.h"

struct level {
    unsigned n;
    struct cs_audit_hash hash[CS_AUDIT_WIDTH];
};

struct cs_audit_writer {
    struct cs_audit_sink to;
    struct cs_audit_tree tree;
    struct cs_buf bundle; /* owned: the leaves of the last, incomplete bundle */
    enum cs_err failed;
    struct level levels[CS_AUDIT_LEVELS];
};

struct cs_audit_writer *cs_audit_writer_new(struct cs_audit_sink to)
{
    struct cs_audit_writer *w = cs_alloc(sizeof *w);
    if (w != NULL) {
        w->to = to;
        w->bundle = cs_buf(CS_AUDIT_BUNDLE_MAX);
    }
    return w;
}

void cs_audit_writer_free(struct cs_audit_writer *w)
{
    if (w != NULL) {
        cs_buf_done(&w->bundle);
        cs_free(w);
    }
}

static enum cs_err put(struct cs_audit_writer *w, unsigned level, uint64_t n, unsigned width,
                       struct cs_slice content)
{
    char path[CS_AUDIT_PATH];
    cs_audit_tile_path(level, n, width, path);
    return w->to.put(w->to.ctx, path, content);
}

/* The tile that the first `size` leaves end in, at a level. */
static uint64_t tile_at(uint64_t size, unsigned level)
{
    return ((size - 1) >> (8 * level)) / CS_AUDIT_WIDTH;
}

/* A hash goes to its level; a tile that it completes is put, and its own hash goes one up. */
static enum cs_err climb(struct cs_audit_writer *w, struct cs_audit_hash h)
{
    for (unsigned l = 0; l < CS_AUDIT_LEVELS; l++) {
        struct level *level = &w->levels[l];
        level->hash[level->n++] = h;
        if (level->n < CS_AUDIT_WIDTH) {
            return CS_OK;
        }
        enum cs_err e = put(w, l, tile_at(w->tree.size, l), CS_AUDIT_WIDTH,
                            cs_slice(level->hash, sizeof level->hash));
        if (e != CS_OK) {
            return e;
        }
        cs_audit_fold(level->hash, CS_AUDIT_WIDTH, &h);
        level->n = 0;
    }
    return CS_OK;
}

static enum cs_err add(struct cs_audit_writer *w, struct cs_slice leaf)
{
    struct cs_audit_hash h;
    cs_buf_u8(&w->bundle, (uint8_t)(leaf.n >> 8));
    cs_buf_u8(&w->bundle, (uint8_t)leaf.n);
    cs_buf_add(&w->bundle, leaf);
    if (w->bundle.bad) {
        return CS_ERR_INTERNAL;
    }
    cs_audit_leaf_hash(leaf, &h);
    cs_audit_tree_add(&w->tree, &h);
    if (w->tree.size % CS_AUDIT_WIDTH == 0) {
        enum cs_err e = put(w, CS_AUDIT_ENTRIES, tile_at(w->tree.size, 0), CS_AUDIT_WIDTH,
                            cs_buf_slice(&w->bundle));
        if (e != CS_OK) {
            return e;
        }
        w->bundle.len = 0;
    }
    return climb(w, h);
}

enum cs_err cs_audit_writer_add(struct cs_audit_writer *w, struct cs_slice leaf)
{
    if (leaf.n > CS_AUDIT_LEAF_MAX || w->tree.size >= CS_AUDIT_SIZE_MAX - 1) {
        return CS_ERR_INVALID;
    }
    if (w->failed == CS_OK) {
        w->failed = add(w, leaf);
    }
    return w->failed;
}

static enum cs_err flush(struct cs_audit_writer *w)
{
    enum cs_err e = CS_OK;
    uint64_t size = w->tree.size;
    if (w->levels[0].n > 0) {
        e = put(w, CS_AUDIT_ENTRIES, size / CS_AUDIT_WIDTH, w->levels[0].n,
                cs_buf_slice(&w->bundle));
    }
    for (unsigned l = 0; l < CS_AUDIT_LEVELS && e == CS_OK; l++) {
        const struct level *level = &w->levels[l];
        if (level->n > 0) {
            e = put(w, l, (size >> (8 * l)) / CS_AUDIT_WIDTH, level->n,
                    cs_slice(level->hash, level->n * sizeof level->hash[0]));
        }
    }
    return e;
}

enum cs_err cs_audit_writer_flush(struct cs_audit_writer *w, uint64_t *ret_size,
                                  struct cs_audit_hash *ret_root)
{
    if (w->failed == CS_OK) {
        w->failed = flush(w);
    }
    if (w->failed == CS_OK) {
        *ret_size = w->tree.size;
        cs_audit_tree_root(&w->tree, ret_root);
    }
    return w->failed;
}

/* ---- going on ---- */

/* The last, incomplete tile of a level, cut to the log's size. */
static enum cs_err resume_level(struct cs_audit_writer *w, const struct cs_audit_source *from,
                                unsigned l, uint64_t size, struct cs_buf *scratch)
{
    char path[CS_AUDIT_PATH];
    uint64_t n = (size >> (8 * l)) / CS_AUDIT_WIDTH;
    unsigned width = cs_audit_tile_width(l, n, size);
    w->levels[l].n = width;
    if (width == 0) {
        return CS_OK;
    }
    enum cs_err e = cs_audit_tile_get(from, l, n, size, scratch, path);
    if (e == CS_OK && scratch->len < width * sizeof w->levels[l].hash[0]) {
        e = CS_ERR_CORRUPT;
    }
    if (e == CS_OK) {
        memcpy(w->levels[l].hash, scratch->p, width * sizeof w->levels[l].hash[0]);
    }
    return e;
}

/* The leaves behind the last complete bundle, each compared with its hash in the tile. */
static enum cs_err resume_bundle(struct cs_audit_writer *w, const struct cs_audit_source *from,
                                 uint64_t size)
{
    char path[CS_AUDIT_PATH];
    struct cs_slice leaf;
    struct cs_audit_hash h;
    if (w->levels[0].n == 0) {
        return CS_OK;
    }
    enum cs_err e =
        cs_audit_tile_get(from, CS_AUDIT_ENTRIES, size / CS_AUDIT_WIDTH, size, &w->bundle, path);
    if (e != CS_OK) {
        return e;
    }
    struct cs_slice rest = cs_buf_slice(&w->bundle);
    for (unsigned i = 0; i < w->levels[0].n; i++) {
        if (!cs_audit_bundle_next(&rest, &leaf)) {
            return CS_ERR_CORRUPT;
        }
        cs_audit_leaf_hash(leaf, &h);
        if (!cs_audit_hash_eq(&h, &w->levels[0].hash[i])) {
            return CS_ERR_CORRUPT;
        }
    }
    w->bundle.len -= rest.n;
    return CS_OK;
}

/* The right edge of the tree is the right edges of the tiles, level by level. */
static void resume_tree(struct cs_audit_writer *w, uint64_t size)
{
    w->tree.size = size;
    for (unsigned l = 0; l < CS_AUDIT_LEVELS; l++) {
        const struct cs_audit_hash *at = w->levels[l].hash;
        for (unsigned h = 8; h-- > 0;) {
            if ((w->levels[l].n >> h & 1) != 0) {
                cs_audit_fold(at, (size_t)1 << h, &w->tree.peak[8 * l + h]);
                at += (size_t)1 << h;
            }
        }
    }
}

enum cs_err cs_audit_writer_resume(struct cs_audit_writer *w, struct cs_audit_source from,
                                   uint64_t size, const struct cs_audit_hash *root)
{
    struct cs_audit_hash is;
    struct cs_buf scratch = cs_buf(CS_AUDIT_TILE_MAX);
    enum cs_err e = w->tree.size == 0 && size < CS_AUDIT_SIZE_MAX ? CS_OK : CS_ERR_INVALID;
    for (unsigned l = 0; l < CS_AUDIT_LEVELS && e == CS_OK; l++) {
        e = resume_level(w, &from, l, size, &scratch);
    }
    if (e == CS_OK) {
        e = resume_bundle(w, &from, size);
    }
    if (e == CS_OK) {
        resume_tree(w, size);
        cs_audit_tree_root(&w->tree, &is);
        e = cs_audit_hash_eq(&is, root) ? CS_OK : CS_ERR_CORRUPT;
    }
    cs_buf_done(&scratch);
    w->failed = e;
    return e;
}
