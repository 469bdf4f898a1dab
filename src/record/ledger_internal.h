/* The ledger's own structure and what its two files share: for ledger.c and ledger_open.c, nobody
 * else. */
#ifndef CS_RECORD_LEDGER_INTERNAL_H
#define CS_RECORD_LEDGER_INTERNAL_H

#include "record/ledger.h"

enum {
    CS_LEDGER_SIZES = 16, /* whose partial files are there */
};

struct cs_ledger {
    int log; /* owned */
    struct cs_audit_writer *writer;
    uint64_t size;    /* of the tree: durable in the journal */
    uint64_t next;    /* of the leaf that is put into the batch next */
    uint64_t flushed; /* leaves that are in files */
    uint64_t signed_to;
    uint64_t head;             /* leaves that are durable in files */
    struct cs_audit_hash root; /* of `flushed` */
    uint64_t unsigned_ns;
    bool hurry, pinned;
    struct cs_audit_key key; /* if pinned: what log.pub says */
    struct cs_id events[CS_LEDGER_EVENTS];
    size_t n_events; /* ever; the latest at (n_events - 1) % CS_LEDGER_EVENTS */
    struct cs_ledger_use uses[CS_LEDGER_USES];
    size_t n_uses;
    uint64_t sizes[CS_LEDGER_SIZES];
    size_t n_sizes;
    struct cs_buf dirty; /* paths, each with a NUL: in files, not durable */
    struct cs_buf unput; /* files for which there was no space: u64 path, u64 content, bytes */
    /* the job's own, from prepare to done */
    struct cs_buf job_paths, job_head;
    uint64_t job_size;
};

/* What a leaf that is in the log means for those to come: its event, its grant. */
void cs_ledger_note(struct cs_ledger *l, const struct cs_leaf *leaf);
void cs_ledger_remember_event(struct cs_ledger *l, const struct cs_id *event);
/* There are partial files of this size. */
void cs_ledger_note_size(struct cs_ledger *l, uint64_t size);
struct cs_audit_source cs_ledger_source(struct cs_ledger *l);
enum cs_err cs_ledger_sink_put(void *ledger, const char *path, struct cs_slice content);

#endif
