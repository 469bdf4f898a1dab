/* The recorder role's own structures: for recorder.c, source.c, pump.c and batch.c, nobody else. */
#ifndef CS_RECORD_RECORDER_INTERNAL_H
#define CS_RECORD_RECORDER_INTERNAL_H

#include "ipc/ipc.h"
#include "ipc/ring.h"
#include "record/copier.h"
#include "record/journal.h"
#include "record/ledger.h"
#include "record/recordings.h"

enum { CS_RECORDER_RINGS = 256 };
/* So long the log may grow without a signature; then nothing more is recorded, so nothing runs. */
#define CS_RECORDER_UNSIGNED_NS (60 * CS_NS_PER_S)
#define CS_RECORDER_KEY_NS      (10 * CS_NS_PER_S) /* after the start a recording key is there */

struct cs_recorder;

struct cs_source { /* one ring */
    struct cs_ring ring;
    uint64_t gate, epoch;
    uint64_t skip_to; /* up to here its frames are in the journal since before the last crash */
    uint64_t marked;  /* published as durable */
    uint64_t handed;  /* position in the ring: up to here its frames were handed to the copier */
    bool retiring;    /* its gate is dead: drained, then closed */
    bool closed;      /* its coroutine frees it */
    struct cs_recorder *rec;
    struct cs_source *next;
};

struct cs_gone {         /* a ring that was dropped, whose recordings are to be ended */
    uint64_t epoch, seq; /* up to where it counts */
    bool committed;
};

enum { CS_RECORDER_ASKS = 256, CS_RECORDER_SETTLES = 16 };

struct cs_ask { /* of control: a leaf */
    struct cs_ask *next;
    uint32_t corr;
    bool in_batch; /* answered when that is durable */
    struct cs_msg_audit msg;
    uint8_t bytes[]; /* what the message's slices point to */
};
struct cs_settle { /* of control: answered when all up to here is signed */
    uint32_t corr;
    uint64_t rests;
};

struct cs_recorder {
    struct cs_loop *loop;
    struct cs_channel *supervisor;
    struct cs_channel *control; /* NULL = none */
    struct cs_ledger *ledger;   /* owned */
    struct cs_ask *asks;        /* owned, in order */
    size_t n_asks;
    struct cs_settle settles[CS_RECORDER_SETTLES];
    size_t n_settles;
    struct cs_event sign;     /* there may be something to sign */
    uint64_t head_size;       /* leaves in files when the log was opened */
    uint64_t keeper_size;     /* that keeper signed last, as far as is known */
    uint64_t rests;           /* how often the pump found nothing to do */
    const char *unsigned_why; /* NULL = signatures come; else why not, for the log */
    bool crashed;             /* what was before did not end in order */
    bool say_start;           /* the log has not heard of this start yet */
    bool say_key;             /* nor of this key */
    bool unsigned_long, log_refused;
    struct cs_journal journal;
    struct cs_copier *copier;         /* owned */
    struct cs_recordings *recordings; /* owned */
    uint8_t *frame;                   /* owned: one as it came out of a ring */
    struct cs_csr_to to;              /* the month's key, then escrow's; n 0: none yet */
    struct cs_csr_to escrow;
    struct cs_gone dropped[CS_RECORDER_RINGS];
    size_t n_dropped;
    uint8_t rows[16 * CS_RECORDINGS_ROWS]; /* of a COMMIT */
    uint64_t live[CS_RECORDER_RINGS];
    struct cs_source *sources; /* owned by their coroutines once closed */
    size_t n_sources;
    uint64_t turn;        /* whose turn it is first: fairness */
    struct cs_event work; /* a kick, a ring, an order came */
    char *directory;      /* owned */
    uint64_t segment_bytes;
    uint64_t unsynced_since; /* monotonic; 0 = nothing is unsynced */
    uint64_t opened_ns;
    uint32_t first_kept; /* the oldest segment that is still there */
    long processors;     /* of the machine */
    size_t help_from;    /* cs_recordings_help's; a test's that has few sessions */
    bool booted, gone, open, stopping;
    bool no_space;   /* writing waits for room */
    bool failed;     /* final */
    bool sealed;     /* the batch has its COMMIT and waits for the disk */
    bool copying;    /* the batch before it is durable, and on its way into the files */
    bool rotated;    /* and nothing was synced in the new segment yet */
    bool keyless;    /* no key came in time: every action is refused until one does */
    bool rings_told; /* whose ring is not here is gone */
    bool lost_done;  /* recordings of gates that were gone at the start have their end */
};

/* ---- recorder.c ---- */
/* Recovers and opens the journal. False: again after a while (no_space), or never (failed). */
bool cs_recorder_open(struct cs_recorder *rec);
/* The end, ordered when nothing failed: the files say it all, and the journal is left empty. Sets
 * `failed` when it is not that. */
void cs_recorder_close(struct cs_recorder *rec);

/* ---- source.c: rings ---- */
/* Takes over the descriptors of a gate's ring. */
void cs_source_add(struct cs_recorder *rec, const struct cs_msg_ring *m, const int fds[static 3]);
/* It is drained: its memory goes when its coroutine has seen so. */
void cs_source_close(struct cs_source *s);
/* SECURITY: a gate that lies about its ring is cut off from the record; STOPPED makes its own
 * refusal the only thing it can still do honestly. */
void cs_source_drop(struct cs_source *s, const char *why);
enum cs_record_health cs_recorder_health(const struct cs_recorder *rec);
void cs_recorder_health_all(struct cs_recorder *rec, enum cs_record_health h);

/* ---- batch.c: from what was taken to what is durable ---- */
/* What the journal said. True when the work may go on; else no_space or failed is set, said once in
 * the log and to every ring. */
bool cs_recorder_ok(struct cs_recorder *rec, enum cs_err err);
/* Everything read is in the journal, durable, the rings are told, and the files get it. */
enum cs_err cs_batch_sync(struct cs_recorder *rec) CS_MUST_CHECK;
/* Whether the batch before is in the files, and what follows from that; `wait`: until it is so. */
enum cs_err cs_batch_copied(struct cs_recorder *rec, bool wait) CS_MUST_CHECK;
/* What was copied, and the log, is durable in its files when this returns. */
enum cs_err cs_batch_sync_files(struct cs_recorder *rec) CS_MUST_CHECK;
/* Segments whose content is durable in its files go. */
enum cs_err cs_batch_retire(struct cs_recorder *rec) CS_MUST_CHECK;
/* Into the batch, which is empty: what the older segments know and this one must, too, before they
 * may go. Counts as unsynced from now on. */
void cs_batch_begin_segment(struct cs_recorder *rec);
/* Everything read is on disk, and the segment has room for a batch. */
bool cs_batch_make_room(struct cs_recorder *rec);

/* ---- audit_in.c: the channel to control, and what it says to the log ---- */
void cs_recorder_control(struct cs_recorder *rec, const struct cs_msg_peer *m, int fd);
void cs_recorder_control_close(struct cs_recorder *rec);
/* Leaves that wait go into the batch, as far as there is room. */
void cs_asks_take(struct cs_recorder *rec);
/* A batch with leaves that somebody waits for. */
bool cs_asks_wait(const struct cs_recorder *rec);
/* The batch is durable. */
void cs_asks_answer(struct cs_recorder *rec);
/* Nothing can be written: who waits is told so, unless the leaf may still become durable. */
void cs_asks_refuse(struct cs_recorder *rec, enum cs_err err);

/* ---- sign.c ---- */
/* Coroutine: has the log signed; arg is the recorder. */
void cs_sign_run(void *arg);
/* Who asked for all to be signed, and whether it is so. */
void cs_settle_add(struct cs_recorder *rec, uint32_t corr);
void cs_settle_look(struct cs_recorder *rec);

/* ---- pump.c ---- */
/* Until an order to stop and nothing left, or a failure. */
void cs_recorder_pump(struct cs_recorder *rec);
/* Waits for room on the disk: a second, or an order to stop. False when it is time to end. */
bool cs_recorder_wait_for_space(struct cs_recorder *rec);

#endif
