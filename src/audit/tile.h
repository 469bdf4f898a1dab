/* The files of a log (tlog-tiles): tiles of up to 256 hashes, bundles of up to 256 leaves, paths.
 * Files are got and put through callbacks: this folder opens none. */
#ifndef CS_AUDIT_TILE_H
#define CS_AUDIT_TILE_H

#include "audit/tree.h"
#include "base/buf.h"
#include "base/err.h"

enum {
    CS_AUDIT_WIDTH = 256,
    CS_AUDIT_LEVELS = 8,     /* 256^8 leaves is more than there can be */
    CS_AUDIT_ENTRIES = 0xff, /* the "level" of entry bundles */
    CS_AUDIT_PATH = 64,
    CS_AUDIT_LEAF_MAX = 65535, /* a bundle has 16 bits for a length */
    CS_AUDIT_BUNDLE_MAX = CS_AUDIT_WIDTH * (2 + CS_AUDIT_LEAF_MAX),
    CS_AUDIT_TILE_MAX = CS_AUDIT_WIDTH * CS_AUDIT_HASH
};

/* A whole file appended to an empty buffer. NOT_FOUND when it is not there. */
struct cs_audit_source {
    enum cs_err (*get)(void *ctx, const char *path, struct cs_buf *out);
    void *ctx; /* borrowed */
};

/* "tile/0/x001/x234/067", with ".p/WIDTH" behind it below 256. */
void cs_audit_tile_path(unsigned level, uint64_t n, unsigned width, char out[static CS_AUDIT_PATH]);
/* How many hashes (or leaves) tile n of a level has in a log of `size` leaves: 0 to 256. */
unsigned cs_audit_tile_width(unsigned level, uint64_t n, uint64_t size);
/* Gets that tile or bundle, as a log of `size` leaves has it: the partial file of just that width,
 * or, if the log has gone on since, a wider or the complete one, in which more stands behind what
 * was asked for. The path that was read goes to `path`. */
enum cs_err cs_audit_tile_get(const struct cs_audit_source *from, unsigned level, uint64_t n,
                              uint64_t size, struct cs_buf *out,
                              char path[static CS_AUDIT_PATH]) CS_MUST_CHECK;
/* How many hashes or leaves the file of that path has. */
unsigned cs_audit_path_width(const char *path);
/* Takes the first leaf off a bundle; false at its end and when it is malformed (then not empty). */
bool cs_audit_bundle_next(struct cs_slice *bundle, struct cs_slice *ret);

/* Hashes for proofs, out of tiles. One tile is kept: neighbours are cheap. */
struct cs_audit_tiles {
    struct cs_audit_source from;
    uint64_t size;
    struct cs_buf tile; /* owned */
    unsigned level;
    uint64_t n;
};
void cs_audit_tiles_init(struct cs_audit_tiles *t, struct cs_audit_source from, uint64_t size);
void cs_audit_tiles_done(struct cs_audit_tiles *t);
struct cs_audit_nodes cs_audit_tiles_nodes(struct cs_audit_tiles *t);

/* A growing log. Complete tiles are put as they come; cs_audit_writer_flush puts the partial ones,
 * after which the root may be signed. Failure is sticky: nothing is signed behind a lost leaf. */
struct cs_audit_sink {
    enum cs_err (*put)(void *ctx, const char *path, struct cs_slice content);
    void *ctx; /* borrowed */
};
struct cs_audit_writer;
struct cs_audit_writer *cs_audit_writer_new(struct cs_audit_sink to);
void cs_audit_writer_free(struct cs_audit_writer *w);
/* A writer that goes on behind the first `size` leaves of what is there, which has this root.
 * CORRUPT when the files do not give that root; then nothing may be appended. */
enum cs_err cs_audit_writer_resume(struct cs_audit_writer *w, struct cs_audit_source from,
                                   uint64_t size, const struct cs_audit_hash *root) CS_MUST_CHECK;
enum cs_err cs_audit_writer_add(struct cs_audit_writer *w, struct cs_slice leaf) CS_MUST_CHECK;
enum cs_err cs_audit_writer_flush(struct cs_audit_writer *w, uint64_t *ret_size,
                                  struct cs_audit_hash *ret_root) CS_MUST_CHECK;

#endif
