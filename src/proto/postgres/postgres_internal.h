/* Inside proto/postgres: one session's protocol state and the calls between the files.
 *
 *   startup.c   the client's first bytes: TLS, startup packet, authentication
 *   login.c     logging in at a target, for whoever has a connection to it
 *   upstream.c  a session's connections to its target
 *   relay.c     the loop: both directions, one coroutine
 *   frontend.c  the client's messages: which one, in what order (frontend.h: shared by these four)
 *   simple.c    the simple query: a verdict for each text
 *   extended.c  the extended query: Parse, Bind, Execute
 *   prepare.c   what the target prepares when: later, or again
 *   call.c      FunctionCall
 *   action.c    what a text is: classification, facts, what ran before
 *   backend.c   the target's messages: matched with what was asked
 *   record.c    what they hold, into the record
 *   replies.c   the queue of answers that are expected
 *   names.c     prepared statements and portals
 *   cursors.c   what FETCH runs
 *   copy.c      the data of a COPY FROM STDIN that is held
 *   hold.c      holding and refusing
 *   elevated.c  the connection of a grant
 *   message.c   writing and reading single messages (pure)
 *   cancel.c    cancel requests */
#ifndef CS_PROTO_POSTGRES_INTERNAL_H
#define CS_PROTO_POSTGRES_INTERNAL_H

#include "base/buf.h"
#include "gate/protocol.h"
#include "proto/postgres/message.h"
#include "sql/sql.h"

struct pg_told {      /* what a description said: the same sum, the same description */
    bool any, beyond; /* beyond: too large to be compared */
    uint8_t sum[CS_SHA256];
};

struct pg_statement { /* a prepared statement; reference-counted */
    unsigned refs;
    const struct cs_sql_class *class; /* reference; NULL: made by SQL PREPARE, see effects */
    uint8_t effects;                  /* of one made by SQL PREPARE */
    bool doubted;                     /* parsed by the target while p->unsettled */
    uint32_t *types;                  /* owned */
    size_t n_types;
    bool stale; /* prepared again before it is used: something unreadable ran since, or the target
                   has only a place-holder under its name (prepare.c) */
    struct cs_memo memo;  /* what the rules said of it last */
    struct pg_told told;  /* how the target described it to the client */
    struct cs_slice text; /* behind the struct */
    char name[CS_LIMIT_PG_NAME_BYTES + 1];
};

enum pg_copy { /* what CopyInResponse may come to, of a statement that ran by a grant */
               PG_COPY_NONE = 0,  /* nothing: nobody has signed what would come */
               PG_COPY_UNCOVERED, /* the client's data passes: the rule says so, and the card did */
               PG_COPY_COVERED,   /* the data that was approved is sent, and nothing else */
               PG_COPY_BOTH,      /* CopyBothResponse: changes come, reports of their reader go */
};

struct pg_portal {
    struct pg_portal *next;
    uint64_t n; /* action that bound it */
    bool changing, executed, suspended;
    bool granted;
    bool redacted;
    bool strict;    /* as the verdict said */
    bool doubted;   /* it may do otherwise than its class says: every name is stale */
    uint8_t record; /* … */
    struct cs_id grant;
    const struct cs_sql_class *class; /* reference: of one whose Execute changes names */
    char *text;                       /* owned: its text then */
    struct pg_statement *copies;      /* reference: a COPY that is judged with its data, when it is
                                         executed; its Bind was not judged: it runs nothing */
    enum pg_copy copy;                /* … else what was approved of its data */
    char name[CS_LIMIT_PG_NAME_BYTES + 1];
};

enum pg_reply_kind {
    PG_REPLY_QUERY,
    PG_REPLY_PARSE,
    PG_REPLY_BIND,
    PG_REPLY_DESCRIBE,
    PG_REPLY_EXECUTE,
    PG_REPLY_CLOSE,
    PG_REPLY_SYNC
};

struct pg_reply { /* one message forwarded, whose answer has not come */
    enum pg_reply_kind kind;
    bool swallow;                     /* ours: its answers are not for the client */
    bool granted;                     /* ends a grant */
    bool redacted;                    /* its text has a password: errors may repeat it */
    uint8_t what;                     /* CLOSE: 'S' or 'P'; QUERY: statements completed so far */
    bool strict;                      /* as the verdict said */
    uint8_t record;                   /* … */
    uint64_t n;                       /* action whose result this is; 0 = none */
    uint64_t of;                      /* action whose data this is; 0 = none */
    struct cs_buf *denial;            /* owned: the ErrorResponse that replaces the target's */
    struct pg_statement *statement;   /* reference: PARSE; DESCRIBE of one that is known */
    struct pg_portal *portal;         /* owned until answered: BIND; EXECUTE: borrowed by name */
    const struct cs_sql_class *class; /* reference: QUERY and EXECUTE that change names */
    bool call;    /* QUERY: it is a FunctionCall, and FunctionCallResponse an answer to it */
    bool doubted; /* QUERY, EXECUTE: perhaps not as its class says: every name is stale */
    char *text;   /* owned: its text then */
    enum pg_copy copy;
    struct cs_id grant;
    char *name; /* owned: CLOSE and EXECUTE: the name, NULL for "" */
};

enum { PG_REPLIES_INLINE = 4, PG_TURN_BATCHES = 2 /* buffers one direction handles in a turn */ };

struct pg_replies {
    struct pg_reply *v; /* owned; NULL while empty */
    uint32_t cap, head, count;
};

/* Cursors and named portals of the open transaction that do more than read: FETCH runs their query,
 * for each row, and again after going back. Behind its end what is left of them was stored. */
struct pg_cursors {
    const struct cs_sql_class *described; /* reference: what the last description borrows from */
    uint8_t any; /* effects that any cursor may have: something unreadable may have opened it */
    size_t n;
    struct pg_cursor {
        uint8_t effects;
        bool names_known, writes_known;
        const struct cs_sql_class *class; /* reference; NULL: what it reads and writes is unknown */
        char name[CS_LIMIT_PG_NAME_BYTES + 1];
    } * v; /* owned */
};

struct pg_names {
    struct pg_statement **statements; /* owned references, sorted by name */
    size_t n_statements, cap_statements;
    struct pg_portal *portals; /* owned list */
    size_t bytes;              /* of the texts of all statements that live */
    struct pg_cursors cursors;
};

struct pg_upstream {
    struct cs_stream stream;
    uint32_t pid, secret; /* the target's own cancel key: never shown to a client */
    uint8_t tx;           /* 'I', 'T', 'E' as its last ReadyForQuery said */
    uint32_t skip;        /* bytes of the message in transit that have not come yet */
};

struct pg_pins { /* settings of the session, as the target last reported them */
    char date_style[32], interval_style[24], time_zone[48], application_name[64];
};

enum pg_replication { PG_REPLICATION_NONE, PG_REPLICATION_PHYSICAL, PG_REPLICATION_LOGICAL };

struct pg { /* the protocol's state of one session */
    struct cs_session *s;
    struct pg_upstream up;
    struct pg_upstream *elevated; /* owned; non-NULL while an approved action runs on it */
    struct pg_replies replies;
    struct pg_names names;
    struct pg_pins pins;
    enum pg_replication replication; /* the target takes replication commands */
    uint64_t handshake;              /* control's number for it, where a certificate is asked for */
    uint32_t client_skip;            /* bytes of a CopyData in transit */
    char *reason; /* owned: countersign.reason as it was SET; NULL: as at the start */
    const char *reason_at_start; /* the session's arena, or NULL */
    bool skip_passes;            /* … and whether they are forwarded */
    bool blocked;  /* the next message of the client waits for an answer of the target */
    bool skipping; /* the target ignores everything up to the next Sync */
    bool copy_in;
    bool group_open;      /* extended messages were sent since the last Sync */
    bool group_ran;       /* one of them was an Execute: an implicit transaction may be open */
    bool unsettled;       /* something that may have changed how the target reads a text has been
                             sent since it last reported its settings, with ReadyForQuery */
    bool cancel_waits;    /* a cancel is for the approved statement that is about to go */
    bool ending;          /* leave the loop */
    bool unrecorded;      /* … because a result could not be recorded */
    bool elevated_over;   /* its ReadyForQuery has come */
    bool elevated_simple; /* it runs a simple Query: the client is not read meanwhile */
    struct pg_copying *copying; /* owned: copy.c's; NULL: no data is being collected or sent */
    struct cs_buf big;          /* a client message larger than a stream buffer, being assembled */
    size_t big_need;
    struct cs_buf shown;        /* the text of the present action without its passwords */
    uint64_t ran_since;         /* monotonic ns: the first of what stands in `ran` */
    struct cs_buf ran;          /* what already ran in the open transaction, for the digest */
    struct pg_told telling;     /* of the description that is passing through */
    bool more;                  /* a direction stopped to let others run: it has more to do */
    struct cs_answer answer;    /* of the action whose data passes */
    struct cs_slice passing[2]; /* data from the target, from the client, that goes on with the
                                   next write and into the record before: in their buffers */
    bool records_skip, records_client_skip; /* the message in transit is such data */
    bool lost;            /* data could not be recorded: nothing more is sent on */
    uint64_t reported;    /* the action whose result was recorded last */
    uint64_t rows, bytes; /* of the answer that is passing through */
    uint16_t tag_n;
    char tag[40];
};

static inline struct pg_upstream *pg_now(struct pg *p)
{
    return p->elevated != NULL ? p->elevated : &p->up;
}

/* ---- startup.c: false when the connection is to be closed ---- */
struct pg_startup {
    char user[128], database[128], application[64];
    struct pg_pins pins;
    char extra_float_digits[8], statement_timeout[16], lock_timeout[16], idle_in_transaction[16];
    char isolation[24], read_only[8], jit[8], target[128];
    enum pg_replication replication;
    bool async;
    char reason[CS_LIMIT_REASON_BYTES + 1];
    char option[CS_LIMIT_REASON_BYTES + 64]; /* one of `options`, while it is read */
};
bool pg_greet(struct pg *p, struct pg_startup *ret);
bool pg_authenticate(struct pg *p, const struct pg_startup *st, uint64_t deadline_ns);

/* ---- upstream.c ---- */
/* Connects and logs in at the target; ParameterStatus messages for the client are added to
 * `greeting` unless NULL. On failure `why` says it for the client. */
enum cs_err pg_login(struct pg *p, const struct pg_startup *st, bool elevated,
                     const struct cs_id *grant, struct pg_upstream *ret, struct cs_buf *greeting,
                     char *why, size_t why_size) CS_MUST_CHECK;
void pg_upstream_close(struct pg_upstream *u, bool polite);
/* Keeps what a ParameterStatus reports. False: it breaks a pin (encoding, standard strings, role)
 * and the session must end. */
bool pg_pin_check(struct pg *p, struct cs_slice name, struct cs_slice value, bool elevated);

/* ---- relay.c ---- */
void pg_relay(struct pg *p);
/* Lets others run after a turn that stopped with more to do. False: the session is over. */
bool pg_breathe(struct pg *p);
/* Relays until the target owes no answer. False: the session is over. */
bool pg_settle(struct pg *p);
/* The same, or until it takes COPY data. */
bool pg_settle_or_copy(struct pg *p);
/* Sends to the target / the client, waiting for room as needed. False: the connection is broken. */
bool pg_to_server(struct pg *p, struct cs_slice bytes);
bool pg_to_client(struct pg *p, struct cs_slice bytes);
/* The same on the connection that is in use now, relaying what comes from it meanwhile: a target
 * that answers before it has taken all must not wait for us. False: it is over. */
bool pg_to_server_both(struct pg *p, struct cs_slice bytes);
void pg_end(struct pg *p, const char *why);
/* FATAL to the client, and the end. */
void pg_fatal(struct pg *p, const char *sqlstate, const char *message);

/* ---- frontend.c / backend.c: consume what is there. ---- */
void pg_frontend(struct pg *p);
void pg_backend(struct pg *p);

/* ---- record.c: data of actions into the record ---- */
/* These bytes, of the message that is being looked at, are data for or of the oldest action that is
 * not answered. They are recorded with what comes next, at the latest before they are sent on. */
void pg_record(struct pg *p, const struct pg_reply *r, bool from_client, struct cs_slice bytes);
/* What was noted goes into the record now. False: it cannot; the session is ending. */
bool pg_record_flush(struct pg *p);
/* The same, and the result of action n. False: that is not in the record. */
bool pg_record_result(struct pg *p, uint64_t n, struct cs_result *res);

/* ---- replies.c ---- */
/* NULL when PG_PIPELINE answers are outstanding or memory is out. Zeroed. */
struct pg_reply *pg_replies_push(struct pg_replies *q, enum pg_reply_kind kind);
struct pg_reply *pg_replies_head(struct pg_replies *q);
/* The i-th from the oldest. */
struct pg_reply *pg_replies_at(struct pg_replies *q, uint32_t i);
/* Drops the oldest with everything it owns. */
void pg_replies_pop(struct pg *p);
void pg_replies_done(struct pg *p);

/* ---- names.c ---- */
struct pg_statement *pg_statement_new(struct pg *p, struct cs_slice name, struct cs_slice text);
struct pg_statement *pg_statement_ref(struct pg_statement *st);
void pg_statement_unref(struct pg *p, struct pg_statement *st);
/* What the target will find under this name when the next message reaches it. NULL: not known. With
 * *ret_wait: it depends on answers that are still owed (a Parse of an earlier group may fail, and
 * the Sync behind it makes the target go on with what it had): settle, then ask again. */
struct pg_statement *pg_statement_find(struct pg *p, struct cs_slice name, bool *ret_wait);
struct pg_portal *pg_portal_find(struct pg *p, struct cs_slice name);
/* On the target's word only: takes over the reference / the object. False: no memory or too many.
 */
bool pg_names_set(struct pg *p, struct pg_statement *st);
void pg_names_drop(struct pg *p, struct cs_slice name);
void pg_names_drop_all(struct pg *p);
/* Something ran that may have put any statement under any name. What was made by PREPARE is unknown
 * from now on, what was made by Parse is stale; the unnamed statement has no name to SQL. */
void pg_names_stale_all(struct pg *p);
/* The Parse message that makes this statement: the client's name, text and types. */
void pg_put_parse(struct cs_buf *b, const struct pg_statement *st);
void pg_portals_set(struct pg *p, struct pg_portal *po);
void pg_portals_drop(struct pg *p, struct cs_slice name);
void pg_portals_drop_all(struct pg *p);
size_t pg_portal_count(const struct pg *p);
/* countersign.reason was set; empty: as it was at the start. */
void pg_reason_set(struct pg *p, struct cs_slice words);
void pg_portal_free(struct pg *p, struct pg_portal *po);
/* May running this leave other names behind than before? PREPARE, DEALLOCATE, DISCARD ALL; and
 * whatever we cannot look into: opaque (but not if the catalogue has `narrowed` it), unparsed, more
 * statements than are kept. */
bool pg_names_change(const struct cs_sql_class *class, bool narrowed);
/* Can what it does to names be followed statement by statement? */
bool pg_names_follow(const struct cs_sql_class *class);
/* Does it use what only the session has: a statement that was prepared before it, a cursor that was
 * opened before it? On a connection of its own it finds neither. */
bool pg_needs_session(const struct cs_sql_class *class);
/* The n-th statement of such a text has succeeded. What cannot be followed makes every name
 * stale. Called for each of thousands of statements: only where one needs the text is its length
 * looked for. */
void pg_names_after(struct pg *p, const struct cs_sql_class *class, const char *text, unsigned n);
void pg_names_done(struct pg *p);

/* ---- cursors.c ---- */
/* This action is on its way: cursors that it may open, and the portal that it binds (empty: none).
 * `class` NULL: of a statement that SQL's PREPARE made. */
void pg_cursors_sent(struct pg *p, const struct cs_sql_class *class, const struct cs_action *a,
                     struct cs_slice portal);
/* Effects beyond reading that FETCH or MOVE in a text has; 0: none. */
uint8_t pg_cursors_run(const struct pg *p, const struct cs_sql_class *class);
/* The same of Execute with the name of a cursor. */
uint8_t pg_cursor_runs(const struct pg *p, struct cs_slice name);
/* A text that is one FETCH or MOVE reads and writes what its cursor does, if that is known: the
 * facts of then, which borrow from its class until the next call. */
void pg_cursor_facts(struct pg *p, const struct cs_sql_class *class, struct cs_facts *facts);
/* The transaction is over. */
void pg_cursors_done(struct pg *p);
/* The session is over. */
void pg_cursors_free(struct pg *p);

/* ---- hold.c ---- */
/* Parks the action; `class` is that of the text that says what it does: of the prepared statement,
 * where it executes one. On ALLOW the caller forwards it (or it is on its way on an elevated
 * connection). */
void pg_hold(struct pg *p, struct cs_action *a, const struct cs_sql_class *class,
             struct cs_verdict *v);
/* The ErrorResponse for a refusal. */
void pg_refusal(struct cs_buf *out, const struct cs_verdict *v);
/* Refuses a simple / an extended message so that client and target stay in step. */
bool pg_deny_simple(struct pg *p, const struct cs_verdict *v);
bool pg_deny_extended(struct pg *p, const struct cs_verdict *v);
/* With an ErrorResponse that is ready. */
bool pg_deny_simple_with(struct pg *p, const struct cs_verdict *v, struct cs_slice answer);
/* The same with an ErrorResponse that is ready, unless empty. */
bool pg_deny_extended_with(struct pg *p, const struct cs_verdict *v, struct cs_slice answer);

/* ---- extended.c ---- */
/* The group on the everyday connection is closed, the elevated one opened, the statement prepared
 * there. False: as pg_elevated_prepare, and `ret_error` likewise. */
bool pg_elevated_group(struct pg *p, const struct pg_statement *st, struct cs_verdict *v,
                       struct cs_buf *ret_error);

/* ---- copy.c ---- */
/* Is there a COPY FROM STDIN among its statements? */
bool pg_copies_in(const struct cs_sql_class *class);
/* Is it one alone that would be held with its data? */
bool pg_copy_wanted(struct pg *p, const struct cs_sql_class *class, const struct cs_action *a);
/* More of the data message in transit. False: the session is over. */
bool pg_copy_add(struct pg *p, struct cs_slice bytes);
/* The client cancels while it collects. */
void pg_copy_cancel(struct pg *p);
/* May this CopyInResponse be for that reply? */
bool pg_copy_expected(const struct pg *p, const struct pg_reply *r, struct cs_slice body);
void pg_copy_free(struct pg *p);

/* ---- elevated.c ---- */
/* The grant of an ALLOW is consumed and nothing ran by it: says so to control and the record, and
 * makes the verdict a refusal. The grant is never armed again; the client asks again. `e`: what the
 * target said, or NULL. */
void pg_nothing_ran(struct pg *p, struct cs_verdict *v, enum cs_ran ran, enum cs_refusal refusal,
                    const struct pg_error *e, const char *why);
/* Opens the elevated connection for a consumed grant. False: v is a refusal now, and the session is
 * ending if it was killed or its client went away meanwhile. */
bool pg_elevate(struct pg *p, struct cs_verdict *v);
/* The elevated connection's work is over. */
void pg_elevated_end(struct pg *p);
/* Prepares the statement there and compares its description with what the client was told. False:
 * nothing ran, v is a refusal now, the connection is closed; `ret_error` then has the target's own
 * ErrorResponse if it refused. */
bool pg_elevated_prepare(struct pg *p, const struct pg_statement *st, struct cs_verdict *v,
                         struct cs_buf *ret_error);
/* Adds a message of a description (t, T, n), whole or not. */
void pg_told_add(struct pg_told *t, const struct pg_frame *f);

/* ---- cancel.c ---- */
void pg_cancel(struct cs_gate *g, struct cs_slice key, struct cs_slice from);

#endif
