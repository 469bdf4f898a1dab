/* What the recorder's journal still holds of recordings and of the log (docs/format.md): after a
 * power loss their files may lack what was signed, and the journal has it. Laid over them in
 * memory, as the recorder's next start writes it into them. It is ciphertext with its chain, and
 * leaves: what it gives is checked like the files themselves, so that nothing in it is believed. */
#ifndef CS_VERIFY_JOURNAL_H
#define CS_VERIFY_JOURNAL_H

#include "audit/note.h"
#include "audit/tile.h"
#include "record/csr_read.h"
#include "record/segment.h"
#include "verify/map.h"

enum { CS_VERIFY_SECTOR = 512 }; /* what a disk writes wholly or not at all */

struct cs_verify_piece {
    uint64_t offset;         /* in its file; of a leaf: its number */
    uint32_t n, segment, at; /* where its bytes stand */
};
struct cs_verify_pieces {
    struct cs_verify_piece *v; /* owned; ascending, without overlap */
    size_t n, cap;
};
/* What the journal has of one file of recordings. */
struct cs_verify_part {
    struct cs_map_node node;
    struct cs_verify_part *next; /* of all, in no order */
    struct cs_journal_file file;
    struct cs_verify_pieces pieces;
    bool listed;
    bool seen; /* for the caller */
};
struct cs_verify_journal {
    int dir; /* borrowed */
    struct cs_arena arena;
    struct cs_map files;
    struct cs_verify_part *all;
    struct cs_verify_pieces leaves; /* a run without a hole */
    size_t n_pieces;
    int fd; /* owned: the segment that was read from last; -1 none */
    uint32_t fd_segment;
    bool unread; /* a segment could not be read, or there is too much of it */
};
/* Reads what is there; what cannot be read is left out and makes `unread`. */
void cs_verify_journal_open(struct cs_verify_journal *j, int dir);
void cs_verify_journal_close(struct cs_verify_journal *j);
/* NULL: nothing of this file. */
struct cs_verify_part *cs_verify_journal_find(const struct cs_verify_journal *j,
                                              const struct cs_id *session, bool foreign,
                                              uint64_t epoch);

/* ---- a recording with the journal laid over it ---- */
struct cs_verify_overlay {
    struct cs_verify_journal *journal;
    const struct cs_verify_part *part; /* NULL: the file alone */
    int fd;                            /* borrowed; -1: there is no file */
    uint64_t size;                     /* of the file */
    /* found */
    uint64_t lacks; /* from here on the file lacks something that the journal has; UINT64_MAX */
    uint64_t odd;   /* here it has other bytes, which no crash leaves; UINT64_MAX */
};
/* The file as the next start would leave it; compares the two. Valid as long as `o`. */
struct cs_csr_source cs_verify_overlay(struct cs_verify_overlay *o);

/* ---- the log with the journal laid over it ---- */
struct cs_verify_log_files {
    int log; /* borrowed */
    struct cs_arena arena;
    struct cs_map files; /* from the journal */
    uint64_t from, to;   /* leaves of the journal that they were made with; 0, 0: none */
    bool used;           /* a file on the disk lacks something of it */
    bool failed;         /* for its sink */
};
/* Leaves behind `head` up to the checkpoint's size, where the journal has them all. */
void cs_verify_log_files_init(struct cs_verify_log_files *f, int log, struct cs_verify_journal *j,
                              const struct cs_audit_key *key);
void cs_verify_log_files_done(struct cs_verify_log_files *f);
struct cs_audit_source cs_verify_log_source(struct cs_verify_log_files *f);

#endif
