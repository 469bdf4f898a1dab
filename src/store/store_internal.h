/* Inside the store: operations, the connection, prepared statements. Included by this folder only.
 *
 * Who touches what: an operation belongs to the loop's thread, except between its queueing and its
 * completion, when it belongs to the writer thread; the mutex hands it over. struct cs_db belongs
 * to the writer thread from the moment that it runs. */
#ifndef CS_STORE_STORE_INTERNAL_H
#define CS_STORE_STORE_INTERNAL_H

#include "base/assert.h"
#include "base/writer.h"
#include "runtime/process.h"
#include "store/store.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

enum {
    CS_STORE_OP_BYTES = 64 * 1024 * 1024, /* memory of one operation */
    CS_STORE_BATCH = 1024,                /* operations in one commit */
    CS_STORE_WAL_PAGES = 1000,            /* then a checkpoint */
    CS_STORE_LIST_MAX = 1000,
    CS_STORE_ATTACHED_MAX = 64, /* requests that one session waits for */
};
enum cs_grant_state {
    CS_GRANT_NONE,
    CS_GRANT_READY,
    CS_GRANT_CONSUMED,
    CS_GRANT_DONE,
    CS_GRANT_UNKNOWN,
    CS_GRANT_VOID
};
enum { CS_STORE_KIND_PERSON = 1, CS_STORE_KIND_AGENT = 2 }; /* asserted in identity/ */

enum cs_sql {
#define CS_SQL(id, text) CS_SQL_##id,
#include "store/sql.def"
#undef CS_SQL
    CS_SQL_MAX
};

/* ---- the connection ---- */
struct cs_db {
    sqlite3 *handle;                 /* owned */
    sqlite3_stmt *stmts[CS_SQL_MAX]; /* owned */
    int lock_fd;                     /* owned */
    uint64_t (*wall_ms)(void);
    uint64_t clock_wall, clock_mono; /* base of the store's clock */
    uint64_t now;                    /* of this batch */
    uint64_t seq;
    int wal_pages;
    enum cs_err err; /* first failure of this operation, as the caller sees it */
    bool fatal;      /* the file can no longer be trusted */
    char why[200];
};

struct cs_op;
enum cs_err cs_db_open(struct cs_db *db, const char *path, uint64_t (*wall_ms)(void), char *why,
                       size_t why_size) CS_MUST_CHECK;
void cs_db_close(struct cs_db *db);
void cs_db_clock(struct cs_db *db);
/* Plain statements without parameters. */
enum cs_err cs_db_exec(struct cs_db *db, const char *sql) CS_MUST_CHECK;
/* Translates the result code of the last call and remembers it (err, fatal, why). */
enum cs_err cs_db_failed(struct cs_db *db, int rc);
void cs_db_checkpoint(struct cs_db *db, bool all);
/* The transaction is still open (a full disk may have ended it). */
bool cs_db_in_transaction(const struct cs_db *db);
/* schema.c */
enum cs_err cs_db_migrate(struct cs_db *db) CS_MUST_CHECK;

/* ---- one use of a prepared statement ----
 * Bind in order, then read rows in order of columns; failures are sticky in db->err. */
struct cs_q {
    struct cs_db *db;
    struct cs_op *op; /* whose memory results go to */
    sqlite3_stmt *st;
    int in, out;
};
struct cs_q cs_q(struct cs_db *db, struct cs_op *op, enum cs_sql id);
void cs_q_text(struct cs_q *q, struct cs_slice s);
void cs_q_str(struct cs_q *q, const char *s);
void cs_q_blob(struct cs_q *q, const void *p, size_t n);
void cs_q_u64(struct cs_q *q, uint64_t v);
void cs_q_id(struct cs_q *q, const struct cs_id *id); /* zero = NULL */
/* The next row; false at the end and on failure. */
bool cs_q_row(struct cs_q *q);
struct cs_slice cs_q_get(struct cs_q *q); /* text or blob, copied to the operation's memory */
uint64_t cs_q_get_u64(struct cs_q *q);
struct cs_id cs_q_get_id(struct cs_q *q); /* NULL = zero */
/* Exactly n bytes, else CORRUPT. */
void cs_q_get_bytes(struct cs_q *q, void *ret, size_t n);
/* Must be called for every cs_q; returns db->err. */
enum cs_err cs_q_end(struct cs_q *q);
/* The next two read rows of one struct and end: the one row there is, NOT_FOUND without it; or all
 * of them, added to `ret`. `read` takes the columns in their order. */
typedef void (*cs_row_fn)(struct cs_q *q, void *row);
struct cs_rows;
enum cs_err cs_q_one(struct cs_q *q, cs_row_fn read, void *ret);
enum cs_err cs_q_all(struct cs_q *q, cs_row_fn read, size_t size, struct cs_rows *ret);
void cs_q_read_id(struct cs_q *q, void *row); /* rows that are one id */
/* Steps to the end, ends; the number of rows changed in ret_changed (may be NULL). */
enum cs_err cs_q_run(struct cs_q *q, uint64_t *ret_changed);
/* The first column of the one row as a number; 0 without a row. */
enum cs_err cs_q_number(struct cs_q *q, uint64_t *ret);

/* ---- operations ---- */
struct cs_change {
    struct cs_change *next;
    struct cs_store_change c;
};
typedef enum cs_err (*cs_op_fn)(struct cs_db *db, struct cs_op *op);
struct cs_op_kind {
    const char *name;
    cs_op_fn run;
    bool mutates;
    uint16_t args, result; /* sizes */
};
struct cs_op {
    struct cs_op *next;
    const struct cs_op_kind *kind;
    int refs;            /* loop's thread only */
    struct cs_arena mem; /* args, results, changes */
    bool out_of_memory;  /* sticky */
    bool finished;
    enum cs_err err;
    void *args, *result; /* arena: mem */
    struct cs_change *changes, **changes_end;
    void (*placed)(const char *request, void *arg); /* cleared when the waiter goes */
    void *placed_arg;
    struct cs_event done;
};
/* One reference; NULL when there is no memory. */
struct cs_op *cs_op_new(const struct cs_op_kind *kind);
void cs_op_unref(struct cs_op *op);
void cs_op_done(struct cs_op **op);                              /* for CS_CLEANUP */
struct cs_slice cs_op_keep(struct cs_op *op, struct cs_slice s); /* a copy; sticky failure */
void *cs_op_array(struct cs_op *op, size_t n, size_t size);      /* the same */
/* Queues, waits for the commit, returns the operation's outcome. */
enum cs_err cs_op_submit(struct cs_store *s, struct cs_op *op) CS_MUST_CHECK;
/* Submits and lets go, for operations without a result. */
enum cs_err cs_op_finish(struct cs_store *s, struct cs_op *op) CS_MUST_CHECK;

/* ---- flat structs: scalars and slices; a table says where the slices are ---- */
struct cs_shape {
    uint16_t size, n;
    uint16_t slices[12];
};
/* Copies n structs with their slices into the arena. NULL (n > 0) when out of memory. */
void *cs_shape_dup(const struct cs_shape *shape, const void *from, size_t n, struct cs_arena *a);
bool cs_shape_copy(const struct cs_shape *shape, const void *from, void *to, struct cs_arena *a);
/* A growing list in an operation's memory. */
struct cs_rows {
    void *v;
    size_t n, cap;
};
void *cs_rows_add(struct cs_op *op, struct cs_rows *rows, size_t size);
/* Submit an operation that reads, and copy its result into the caller's arena: one struct, or a
 * list. A NULL op is one that found no memory. On failure *ret is as it was. */
enum cs_err cs_op_one(struct cs_store *s, struct cs_op *op, const struct cs_shape *shape,
                      struct cs_arena *a, void *ret) CS_MUST_CHECK;
enum cs_err cs_op_all(struct cs_store *s, struct cs_op *op, const struct cs_shape *shape,
                      struct cs_arena *a, struct cs_rows *ret) CS_MUST_CHECK;

/* "a\nb\n" → the next name; empty at the end. */
struct cs_slice cs_line_next(struct cs_slice *left);

/* ---- requests, shared by request.c, vote.c, grant.c ---- */
extern const struct cs_shape cs_request_shape, cs_rule_shape;
void cs_request_id_copy(struct cs_slice id, char ret[static CS_REQUEST_ID_TEXT]);
/* The columns that decide, without the blobs. */
struct cs_request_row {
    struct cs_slice id, rule_names;
    uint64_t state, in_transaction, elevated, expires, lost, valid_ms;
    uint8_t digest[CS_STORE_DIGEST], nonce[CS_STORE_NONCE];
    uint64_t policy_version;
    struct cs_id grant, grant_session;
    uint64_t grant_state, attached;
    struct cs_slice by, words;
    uint64_t seq;
    struct cs_slice claimed;
};
enum cs_err cs_request_row(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                           struct cs_request_row *ret);
/* Raises seq, remembers the change for delivery after the commit. `tell` lists the sessions. */
enum cs_err cs_request_changed(struct cs_db *db, struct cs_op *op, struct cs_slice id, bool tell);
/* A final state: voids a ready grant, tells and detaches every session. */
enum cs_err cs_request_end(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                           enum cs_store_state state, struct cs_slice by, struct cs_slice words);
/* One session goes: void inside a transaction, else detached; a ready grant moves on. */
enum cs_err cs_request_detach(struct cs_db *db, struct cs_op *op, const struct cs_request_row *row,
                              const struct cs_id *session, struct cs_slice words);
/* vote.c */
enum cs_err cs_vote_refusal(struct cs_db *db, struct cs_op *op, struct cs_slice request,
                            struct cs_slice approver, enum cs_store_vote_refusal *ret);

/* ---- the store ---- */
/* ---- backup.c, on the writer thread ---- */
struct cs_backup {
    char path[600];
    struct sqlite3 *to;          /* owned while it lasts */
    struct sqlite3_backup *copy; /* owned while it lasts */
    enum cs_err err;
};
/* Copies some more; true when it has ended, b->err says how. `stop`: it ends now. */
bool cs_backup_turn(struct cs_db *db, struct cs_backup *b, bool stop);

struct cs_store {
    struct cs_loop *loop;
    int refs; /* the owner and the delivering coroutine */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct cs_op *queue, **queue_end; /* lock */
    struct cs_op *ready, **ready_end; /* lock: finished, to be delivered */
    uint64_t queued;                  /* lock */
    bool stop;                        /* lock */
    enum { CS_BACKUP_NONE, CS_BACKUP_RUNS, CS_BACKUP_ENDED } backing_up; /* lock */
    struct cs_backup backup; /* the writer's while it runs */
    struct cs_event backed_up;
    struct cs_store_stats stats; /* lock */
    bool fatal;                  /* lock; text in fatal_why */
    char fatal_why[200];
    bool closed; /* loop's thread */
    int wake_fd; /* owned: the thread's own copy of the eventfd */
    struct cs_fd wake;
    cs_handle pump;
    struct cs_event failure;
    cs_store_change_fn on_change;
    void *on_change_arg;
    uint64_t seq; /* delivered */
    struct cs_db db;
};

#endif
