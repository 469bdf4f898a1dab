/* The configuration file: YAML in, snapshot out, or every mistake at once with line and column.
 * Used by the compile job alone; no other process sees YAML.
 *
 * Strict: unknown and repeated keys, wrong types, tags, anchors, aliases, merge keys, a second
 * document, an empty condition are errors; so is a key of a feature that this version does not
 * have. */
#ifndef CS_CONFIG_CONFIG_H
#define CS_CONFIG_CONFIG_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum {
    CS_CONFIG_MISTAKES = 100,            /* shown */
    CS_CONFIG_FILE_BYTES = 1024 * 1024,  /* a file named in the configuration */
    CS_CONFIG_ARENA = 128 * 1024 * 1024, /* what the arena must be able to hand out */
};

struct cs_config_mistake {
    uint32_t line, column; /* from 1; columns in code points */
    bool warning;
    struct cs_slice text; /* one sentence, no newline */
};
struct cs_config_report {
    struct cs_config_mistake *v; /* sorted by position; at most CS_CONFIG_MISTAKES */
    size_t n;
    size_t errors;   /* all of them, also those left out */
    size_t left_out; /* not in v */
};

/* Where certificates, keys and trust roots come from. */
struct cs_config_files {
    /* At most `max` bytes, allocated in the arena. */
    enum cs_err (*read)(void *arg, struct cs_slice path, size_t max, struct cs_arena *a,
                        struct cs_slice *ret);
    void *arg;
    /* Does a certificate fit its key? NULL: not asked (tests, whose files are none). */
    bool (*fits)(struct cs_slice cert_pem, struct cs_slice key_pem);
    struct cs_slice directory; /* absolute; relative paths start here */
};
/* The `read` that opens files; arg is not used. Regular files only: a FIFO would hang the job. */
enum cs_err cs_config_read_file(void *arg, struct cs_slice path, size_t max, struct cs_arena *a,
                                struct cs_slice *ret) CS_MUST_CHECK;

/* What went wrong with a file, as the end of a sentence. */
const char *cs_config_file_problem(enum cs_err err);

/* CS_OK (perhaps with warnings): `out` gets the snapshot (wire/snapshot.h). CS_ERR_INVALID:
 * ret_report has at least one error. CS_ERR_NO_MEMORY. */
enum cs_err cs_config_compile(struct cs_slice text, const struct cs_config_files *files,
                              struct cs_arena *a, struct cs_buf *out, uint64_t *ret_version,
                              struct cs_config_report *ret_report) CS_MUST_CHECK;
/* "FILE:LINE:COL: error: sentence\n" for each; `max` bytes at most, cut at a line's end. */
void cs_config_report_text(const struct cs_config_report *r, struct cs_slice file, size_t max,
                           struct cs_buf *out);
/* The tables of docs/configuration.md, from config.def. */
void cs_config_keys_text(struct cs_buf *out);

#endif
