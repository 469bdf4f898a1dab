/* Between the files that read the client's messages: what becomes of a message, the run of messages
 * with one fate, and the action that a text is. Not for other files of the folder. */
#ifndef CS_PROTO_POSTGRES_FRONTEND_H
#define CS_PROTO_POSTGRES_FRONTEND_H

#include "proto/postgres/postgres_internal.h"

enum pg_act {
    PG_STOP = 0, /* leave it where it is: something else must happen first, or the session ends */
    PG_PASS,     /* part of the run that is forwarded as it is */
    PG_DONE,     /* dealt with: not forwarded from here */
};

struct pg_batch {
    struct cs_slice in;
    size_t at, pass_from;
    unsigned judged; /* messages that take some time: those of texts and parameters */
    uint8_t last;    /* type of the last message */
};

/* ---- action.c ---- */
/* The client broke the protocol: FATAL, and the end. */
enum pg_act pg_violation(struct pg *p, const char *what);
/* Forwards what has its verdict already. False: the connection is broken. */
bool pg_pass(struct pg *p, struct pg_batch *b);
/* Everything that was sent is answered; then what is judged next is judged in the state that it
 * will really meet. PG_DONE: the target would skip the next message anyway. */
enum pg_act pg_settle_first(struct pg *p, struct pg_batch *b);
/* An answer that is owed from here on. NULL: out of memory, the session ends. */
struct pg_reply *pg_push(struct pg *p, enum pg_reply_kind kind);
/* The verdict is a refusal of our own making (not of the rules), and recorded as a note. The caller
 * sends it. `hint`: what to do instead. */
void pg_refuse(struct pg *p, struct cs_verdict *v, const char *why, const char *hint);
#define PG_NEEDS_SESSION                                                                           \
    "what it uses was prepared or declared in this session, and a rule wants it on a connection "  \
    "with the elevated credential, which has none of that"
#define PG_NEEDS_SESSION_HINT "Send the statement itself instead."
/* NUL-terminated and owned; NULL for an empty one. */
char *pg_name_copy(struct cs_slice s);
/* A reference; NULL when memory is out. Waits where the text is long: nothing may be half described
 * meanwhile, since what a description borrows may move. */
const struct cs_sql_class *pg_classify(struct pg *p, struct cs_slice text);
/* Never waits: a long text is opaque. */
const struct cs_sql_class *pg_classify_now(struct pg *p, struct cs_slice text);
/* The action that this text is, in the session's present state. `doubted`: the target may read it
 * otherwise than we do, so it is opaque. `st`: whose text it is; NULL for none. */
void pg_describe(struct pg *p, const struct cs_sql_class *class, struct cs_slice text, bool doubted,
                 struct pg_statement *st, struct cs_action *a);
/* Effects of executing what was prepared, with what is known of the target now. `class`: of its
 * text; NULL when there is none for lack of memory. */
uint8_t pg_prepared_effects(struct pg *p, const struct pg_statement *st,
                            const struct cs_sql_class *class);
/* The action that a FunctionCall is. `class` says nothing of it and is not looked at but for what
 * every action needs; `names` get those of the effects. */
enum { CS_SQL_EFFECT_NAMES = 6 };
void pg_describe_call(struct pg *p, const struct cs_sql_class *class, struct cs_slice text,
                      uint8_t effects, const struct cs_slice *function,
                      struct cs_slice names[static CS_SQL_EFFECT_NAMES], struct cs_action *a);
/* The facts of a prepared statement stand for EXECUTE of its name and for Bind of an SQL-level one:
 * what it does was classified when it was prepared. Its text becomes part of what is approved. */
void pg_describe_prepared(struct pg *p, struct cs_action *a, const struct pg_statement *st,
                          struct cs_slice effect_name[static 6], struct cs_buf *settings);
/* Would it be allowed as it was described? It may be described again after this. */
bool pg_surely_allowed(struct pg *p, const struct cs_action *a);
/* Remembers what ran since the target was last idle: part of the digest of whatever is held later
 * in the same transaction, and on its card. */
void pg_remember(struct pg *p, const struct cs_action *a);

/* ---- simple.c ---- */
enum pg_act pg_on_query(struct pg *p, struct pg_batch *b, const struct pg_frame *f);

/* ---- call.c ---- */
enum pg_act pg_on_call(struct pg *p, struct pg_batch *b, const struct pg_frame *f);

/* ---- extended.c ---- */
enum pg_act pg_on_parse(struct pg *p, struct pg_batch *b, const struct pg_frame *f);
enum pg_act pg_on_bind(struct pg *p, struct pg_batch *b, const struct pg_frame *f);
enum pg_act pg_on_execute(struct pg *p, struct pg_batch *b, const struct pg_frame *f);
enum pg_act pg_on_describe_or_close(struct pg *p, struct pg_batch *b, const struct pg_frame *f);

/* ---- prepare.c ---- */
/* pg_refuse, sent. */
enum pg_act pg_refuse_extended(struct pg *p, struct pg_batch *b, const char *message);
/* May to prepare the text run code already? `a`: what it is, by pg_describe. */
bool pg_prepare_runs(struct pg *p, const struct cs_sql_class *class, struct cs_slice text,
                     const struct cs_action *a);
/* Takes over the reference to a new statement, which the target prepares when its Bind is allowed
 * or approved. */
enum pg_act pg_prepare_later(struct pg *p, struct pg_batch *b, struct pg_statement *st);
/* PG_PASS: the target may describe it. */
enum pg_act pg_before_describe(struct pg *p, struct pg_batch *b, struct pg_statement *st);
/* Close and Parse of a stale statement, unseen by the client. False: the session is over. */
bool pg_prepare_again(struct pg *p, const struct pg_statement *st);
/* The same where it is stale, behind what has its verdict. */
bool pg_freshen(struct pg *p, struct pg_batch *b, const struct pg_statement *st);
/* Does the target read the text otherwise than we do, or may it, when it is prepared again now? Or
 * is it a FETCH of what nobody can look into? */
bool pg_in_doubt(const struct pg *p, const struct pg_statement *st);

/* ---- copy.c ---- */
/* Tells the client to send its data. `st` NULL: `message` is a Query; else it is the Execute of
 * that statement's portal. */
enum pg_act pg_copy_begin(struct pg *p, const struct cs_sql_class *class, struct pg_statement *st,
                          struct cs_slice portal, struct cs_slice message);
/* A message of the client while its data is collected. */
enum pg_act pg_copy_message(struct pg *p, const struct pg_frame *f);

#endif
