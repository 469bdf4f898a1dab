/* Paths, widths and reading of tiles and bundles. Called by the checker and by proofs. It must
 * never take more hashes from a tile than the log's size gives it. */
#include "audit/tile.h"

#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>

void cs_audit_tile_path(unsigned level, uint64_t n, unsigned width, char out[static CS_AUDIT_PATH])
{
    char level_text[12] = "entries", groups[36] = "", partial[8] = "";
    unsigned part[7];
    size_t n_parts = 0, at = 0;
    cs_assert(width > 0 && width <= CS_AUDIT_WIDTH && n < CS_AUDIT_SIZE_MAX);
    if (level != CS_AUDIT_ENTRIES) {
        (void)snprintf(level_text, sizeof level_text, "%u", level);
    }
    do {
        part[n_parts++] = (unsigned)(n % 1000);
        n /= 1000;
    } while (n > 0);
    while (n_parts-- > 0) {
        at += (size_t)snprintf(groups + at, sizeof groups - at, n_parts > 0 ? "x%03u/" : "%03u",
                               part[n_parts]);
    }
    if (width < CS_AUDIT_WIDTH) {
        (void)snprintf(partial, sizeof partial, ".p/%u", width);
    }
    int len = snprintf(out, CS_AUDIT_PATH, "tile/%s/%s%s", level_text, groups, partial);
    cs_assert(len > 0 && len < CS_AUDIT_PATH);
}

unsigned cs_audit_tile_width(unsigned level, uint64_t n, uint64_t size)
{
    uint64_t in_level = level == CS_AUDIT_ENTRIES ? size
                        : level < CS_AUDIT_LEVELS ? size >> (8 * level)
                                                  : 0;
    if (n > in_level / CS_AUDIT_WIDTH) {
        return 0;
    }
    uint64_t left = in_level - n * CS_AUDIT_WIDTH;
    return left < CS_AUDIT_WIDTH ? (unsigned)left : CS_AUDIT_WIDTH;
}

unsigned cs_audit_path_width(const char *path)
{
    const char *p = strstr(path, ".p/");
    uint64_t width = 0;
    return p != NULL && cs_slice_to_u64(cs_slice_str(p + 3), &width) && width < CS_AUDIT_WIDTH
               ? (unsigned)width
               : CS_AUDIT_WIDTH;
}

/* A writer takes the partial file of an earlier size away once a wider one is there, also while we
 * look, and so does a copy that was made of a growing log lack it: upwards there is always one. */
enum cs_err cs_audit_tile_get(const struct cs_audit_source *from, unsigned level, uint64_t n,
                              uint64_t size, struct cs_buf *out, char path[static CS_AUDIT_PATH])
{
    unsigned width = cs_audit_tile_width(level, n, size);
    enum cs_err e = width == 0 ? CS_ERR_INVALID : CS_ERR_NOT_FOUND;
    char first[CS_AUDIT_PATH];
    for (unsigned w = width; w > 0 && w <= CS_AUDIT_WIDTH && e == CS_ERR_NOT_FOUND; w++) {
        out->len = 0;
        cs_audit_tile_path(level, n, w, path);
        if (w == width) {
            memcpy(first, path, sizeof first);
        }
        e = from->get(from->ctx, path, out);
    }
    if (e == CS_ERR_NOT_FOUND) {
        memcpy(path, first, sizeof first); /* that one should be there */
    }
    return e == CS_OK && out->bad ? CS_ERR_INTERNAL : e;
}

bool cs_audit_bundle_next(struct cs_slice *bundle, struct cs_slice *ret)
{
    if (bundle->n < 2) {
        return false;
    }
    size_t n = (size_t)bundle->p[0] << 8 | bundle->p[1];
    if (n > bundle->n - 2) {
        return false;
    }
    *ret = cs_slice(bundle->p + 2, n);
    *bundle = cs_slice_from(*bundle, 2 + n);
    return true;
}

/* ---- hashes for proofs ---- */

void cs_audit_tiles_init(struct cs_audit_tiles *t, struct cs_audit_source from, uint64_t size)
{
    *t = (struct cs_audit_tiles){
        .from = from, .size = size, .tile = cs_buf(CS_AUDIT_TILE_MAX), .level = CS_AUDIT_LEVELS};
}

void cs_audit_tiles_done(struct cs_audit_tiles *t)
{
    cs_buf_done(&t->tile);
}

static bool node(void *ctx, unsigned height, uint64_t index, struct cs_audit_hash *ret)
{
    struct cs_audit_tiles *t = ctx;
    unsigned level = height / 8, up = height % 8;
    uint64_t first = index << up, n = first / CS_AUDIT_WIDTH;
    size_t at = (size_t)(first % CS_AUDIT_WIDTH), count = (size_t)1 << up;
    char path[CS_AUDIT_PATH];
    if (index >= t->size >> height) {
        return false; /* no complete subtree of this log */
    }
    if (t->level != level || t->n != n) {
        t->level = CS_AUDIT_LEVELS;
        if (cs_audit_tile_get(&t->from, level, n, t->size, &t->tile, path) != CS_OK) {
            return false;
        }
        t->level = level;
        t->n = n;
    }
    if (t->tile.len < (at + count) * CS_AUDIT_HASH) {
        return false;
    }
    cs_audit_fold((const struct cs_audit_hash *)(const void *)t->tile.p + at, count, ret);
    return true;
}

struct cs_audit_nodes cs_audit_tiles_nodes(struct cs_audit_tiles *t)
{
    return (struct cs_audit_nodes){node, t};
}
