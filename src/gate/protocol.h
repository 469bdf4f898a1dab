/* The seam between gate and the protocol folders. A protocol folder turns bytes into struct
 * cs_action and a verdict into bytes; it never sees rules, approval, masking rules or storage. What
 * is allowed is decided in gate/decide.c and nowhere else.
 *
 * The path of one action, in the protocol's own straight-line code:
 *     cs_gate_decide()  → ALLOW: recorded (and durable where it changes something): forward it
 *                       → DENY:  tell the client; nothing goes upstream
 *                       → HOLD:  settle what was sent before, then
 *     cs_gate_hold()    → ALLOW: the grant is consumed, run exactly the action's bytes, once
 *                       → DENY:  refused, expired, cancelled, void …
 *     cs_gate_result()  when the target has answered */
#ifndef CS_GATE_PROTOCOL_H
#define CS_GATE_PROTOCOL_H

#include "action/action.h"
#include "action/outcome.h"
#include "action/request.h"
#include "base/buf.h"
#include "base/err.h"
#include "crypto/client_certificate.h"
#include "crypto/crypto.h"
#include "gate/session.h"
#include "runtime/stream.h"
#include "sql/catalogue.h"
#include "wire/credentials.h"

struct cs_gate;
struct cs_sql;
struct cs_sql_class;
struct cs_decision;

struct cs_protocol {
    const char *name; /* also the kind of its targets and listeners */
    const char *alpn; /* accepted on TLS */
    size_t state_size;
    /* The whole life of a session, in its coroutine. */
    void (*serve)(struct cs_session *s);
    /* A cancel key arrived for a session of this gate, from whichever gate received it; `from` is
     * the address of who sent it. */
    void (*cancel)(struct cs_gate *g, struct cs_slice key, struct cs_slice from);
};

/* proto/protocols.list, in order; NULL-terminated. Defined by the gate program. */
extern const struct cs_protocol *const cs_protocols[];

/* ---- opening ---- */
struct cs_auth { /* what a SCRAM exchange needs between its two steps */
    uint64_t attempt;
    char nonce[256]; /* client's and ours, NUL-terminated */
    uint8_t salt[64];
    size_t salt_n;
    uint32_t iterations;
};
/* Asks control for a challenge; unknown names get one too. */
enum cs_err cs_gate_auth_start(struct cs_session *s, struct cs_slice user, struct cs_slice target,
                               struct cs_slice client_nonce, struct cs_auth *ret) CS_MUST_CHECK;
/* Checks the proof. On CS_OK the session has its id and chain; ret_signature is the server's. On
 * CS_ERR_UNAUTHENTICATED say only that; on CS_ERR_NOT_FOUND the caller is known, the target is not.
 */
enum cs_err cs_gate_auth_finish(struct cs_session *s, const struct cs_auth *auth,
                                struct cs_slice client_first_bare, struct cs_slice gs2_header,
                                struct cs_slice channel_binding,
                                const uint8_t proof[static CS_SHA256],
                                uint8_t ret_signature[static CS_SHA256]) CS_MUST_CHECK;
/* A token that came as a password, hashed; `user` as the client gave it ("token", NAME+token).
 * Answers as cs_gate_auth_finish. */
enum cs_err cs_gate_auth_token(struct cs_session *s, struct cs_slice user, struct cs_slice target,
                               const uint8_t token_sha256[static CS_SHA256]) CS_MUST_CHECK;
/* Before a TLS handshake in which the client is asked for a certificate: what it must sign. Not OK:
 * control is not there; do without. */
enum cs_err cs_gate_auth_ask(struct cs_session *s, uint64_t *ret_attempt,
                             uint8_t ret_nonce[static CS_CLIENT_NONCE]) CS_MUST_CHECK;
/* It has shown one: control looks at the handshake's messages (cs_tls_client_proof) and decides.
 * Answers as cs_gate_auth_finish. */
enum cs_err cs_gate_auth_certificate(struct cs_session *s, struct cs_slice user,
                                     struct cs_slice target, uint64_t attempt) CS_MUST_CHECK;
/* May this chain open a session at this target? `why` (NUL-terminated) when not. */
enum cs_err cs_gate_may_open(struct cs_session *s, char *why, size_t why_size) CS_MUST_CHECK;
/* Is there a rule for this session that may permit one of these verbs (action/named.def)? */
bool cs_gate_names(const struct cs_session *s, enum cs_named family);
/* Does a rule of this session look at the values of parameters? Else nobody needs that fact, and
 * it may stay unknown. */
bool cs_gate_reads_params(const struct cs_session *s);
/* A connection to the session's target, TCP only; the name to log in with there. For the elevated
 * credential `grant` is one that was consumed for this session. */
struct cs_upstream {
    uint64_t connection; /* for cs_gate_prove */
    int fd;              /* owned by the caller */
    char user[128];
};
enum cs_err cs_gate_connect(struct cs_session *s, bool elevated, const struct cs_id *grant,
                            struct cs_upstream *ret, char *why, size_t why_size) CS_MUST_CHECK;
/* TLS context for the session's target. NULL where its tls is off, which *ret_plain says, and where
 * none can be made: then nothing may be sent. */
struct cs_tls_ctx *cs_gate_target_tls(struct cs_session *s, bool *ret_plain);
/* Whether a log-in at the session's target is to be bound to its TLS connection. */
enum cs_channel_binding cs_gate_target_binding(const struct cs_session *s);
/* The SCRAM proof for the connection's credential; the gate never sees the secret. */
enum cs_err cs_gate_prove(struct cs_session *s, uint64_t connection, const char *mechanism,
                          struct cs_slice client_first_bare, struct cs_slice server_first,
                          struct cs_slice client_final_bare, uint8_t ret_proof[static CS_SHA256],
                          uint8_t ret_server_signature[static CS_SHA256], char *why,
                          size_t why_size) CS_MUST_CHECK;
/* The answer to a server that asks for an MD5 hash (with its salt) or the password itself, sealed
 * to `reader`, an X25519 key of the caller's (CS_LOGIN_ANSWER). Only where the configuration
 * permits it for the everyday credential. */
enum cs_err cs_gate_prove_weakly(struct cs_session *s, uint64_t connection, enum cs_way way,
                                 struct cs_slice reader, struct cs_slice salt, struct cs_buf *ret,
                                 char *why, size_t why_size) CS_MUST_CHECK;
/* The weakest way in which the credential may be proved at the session's target. */
enum cs_way cs_gate_target_way(const struct cs_session *s, bool elevated);
/* The session is open: recorded and reported. CS_ERR_NO_SPACE when it cannot be recorded. */
enum cs_err cs_gate_opened(struct cs_session *s, struct cs_slice database, struct cs_slice role,
                           struct cs_slice application) CS_MUST_CHECK;

/* ---- actions ---- */
enum cs_refusal { /* why an action does not run: each protocol has its own code for each */
                  CS_REFUSAL_RULE,      /* a rule, or the lack of one */
                  CS_REFUSAL_PERSON,    /* an approver said no */
                  CS_REFUSAL_EXPIRED,   /* nobody decided in time */
                  CS_REFUSAL_CANCELLED, /* the client withdrew it */
                  CS_REFUSAL_WAITING, /* still pending, this connection no longer waits: repeat the
                                         same request */
                  CS_REFUSAL_VOID,    /* something it depended on changed */
                  CS_REFUSAL_RECORD,  /* it cannot be recorded */
                  CS_REFUSAL_LIMIT,   /* too large to be held */
                  CS_REFUSAL_UNAVAILABLE, /* a part of the gateway is not available */
                  CS_REFUSAL_CLOSED, /* client or target is gone, or the session is being ended:
                                        close it */
};

enum { CS_DECISION_BYTES = 448 };

struct cs_verdict {
    enum cs_outcome outcome; /* zero is DENY */
    enum cs_refusal refusal; /* of a DENY */
    uint64_t n;              /* number of the action in its session */
    bool elevated;           /* run it on an elevated connection */
    bool uncovered;          /* data that a client sends for it is not part of what is approved */
    bool granted;            /* ran by a grant: `grant` and `request` are set */
    struct cs_id grant;
    uint8_t record; /* what the rules want of the answer in the record: for cs_answer_of */
    bool strict;    /* … and its end only when that is on disk */
    char request[CS_REQUEST_ID_TEXT];
    char message[256]; /* NUL-terminated sentences for the client */
    char hint[256];
    char detail[1200]; /* approver's words, or the wait line; already safe to show */
    _Alignas(8) uint8_t decision[CS_DECISION_BYTES]; /* gate's own struct cs_decision */
};

/* A decision remembered for a prepared statement: its facts cannot change but with the state of the
 * transaction, so what the rules said last time holds until the rules or that state are others.
 * Only an ALLOW is remembered. Owned by the protocol folder; zeroed at first. */
struct cs_memo {
    struct cs_decision *decision; /* owned: cs_memo_done */
    uint64_t generation;          /* of the session's rules */
    uint64_t catalogue;           /* of the targets' catalogues */
    struct cs_slice tx;           /* a literal: the fact sql.tx */
    /* What cs_gate_judge said, while no freshness of the catalogue could make it say another. */
    bool has_judged;
    uint64_t judged_generation, judged_catalogue;
    struct cs_sql_judged judged;
};
void cs_memo_done(struct cs_memo *m);

/* A verdict to be filled in, DENY until then; the gate keeps one at hand. NULL without memory. */
struct cs_verdict *cs_verdict_new(struct cs_session *s);
void cs_verdict_free(struct cs_session *s, struct cs_verdict *v);

/* Decides and records; `memo` may be NULL. Never allocates for an allowed action; waits for
 * durability where the action changes something, and lets others run while many rules are asked, or
 * much is recorded. Nothing may wait between the description of the action and this. False: nothing
 * is decided (`ret` is a DENY) nor recorded, because the rules or a catalogue changed meanwhile:
 * describe the action again, and call it again. That does not come twice in a row. */
bool cs_gate_decide(struct cs_session *s, const struct cs_action *a, struct cs_memo *memo,
                    struct cs_verdict *ret);

/* Looks only: the outcome that the action would get now, unrecorded. For messages that prepare an
 * action (PostgreSQL's Parse): a DENY is refused there already, anything else is decided when it is
 * about to run. False, and DENY: as cs_gate_decide, describe it again first. */
bool cs_gate_preview(struct cs_session *s, const struct cs_action *a,
                     enum cs_outcome *ret) CS_MUST_CHECK;
/* Looks only: it would be held, and the data that a client sends for it is part of what is approved
 * (a rule's `copy`): it must be there before the action is asked. */
bool cs_gate_covers_data(struct cs_session *s, const struct cs_action *a);

struct cs_hold_ops {
    /* Sends a wait line to the client, queued or sent; `first` = the one told at once. */
    void (*notice)(struct cs_session *s, bool first, struct cs_slice line);
    /* Items of the protocol's own to wait for (the upstream's reading side …), at most two. */
    size_t (*items)(struct cs_session *s, struct cs_wait items[static 2]);
    /* One of them is ready, or time passed: relay what came. False when the upstream is gone. */
    bool (*pump)(struct cs_session *s);
};
/* Parks the session until people, time or the client end the wait (v is the verdict of decide). The
 * action's slices must stay valid: the caller owns a copy. */
void cs_gate_hold(struct cs_session *s, const struct cs_action *a, const struct cs_hold_ops *ops,
                  struct cs_verdict *v);

struct cs_result {
    bool ok;
    struct cs_slice tag;
    uint64_t rows, bytes;
    struct cs_slice sqlstate, message; /* of an error */
    bool strict;                       /* as the verdict said: returns when it is on disk */
    struct cs_slice data;              /* all of it, where cs_answer_small() said so */
};
/* What the target answered to action n. Waits when the ring is full. */
enum cs_err cs_gate_result(struct cs_session *s, uint64_t n,
                           const struct cs_result *r) CS_MUST_CHECK;
/* The data that belongs to an action, on its way into the record: what the target answers, and what
 * the client sends for it (COPY). Each piece goes in before it is sent on; it waits when the ring
 * is full. One for each session; zeroed at first. */
struct cs_answer {
    uint64_t n; /* the action; 0 = none yet */
    uint8_t record;
    uint64_t room;            /* bytes that may still be recorded whole */
    uint64_t at[2], rest[2];  /* of the target's, of the client's bytes: seen; not recorded */
    struct cs_hasher hash[2]; /* owned; over the rest */
};
/* From here on it is this action's. `record` as in its verdict. */
void cs_answer_of(struct cs_answer *a, uint64_t n, uint8_t record);
enum cs_err cs_answer_add(struct cs_session *s, struct cs_answer *a, bool from_client,
                          struct cs_slice bytes) CS_MUST_CHECK;
/* True when these are the first bytes of the action's data that are recorded, and few: if they are
 * all, they may go into its result. */
bool cs_answer_small(const struct cs_answer *a, struct cs_slice bytes);
/* Its result comes next: says what was not recorded. */
enum cs_err cs_answer_end(struct cs_session *s, struct cs_answer *a) CS_MUST_CHECK;
void cs_answer_done(struct cs_answer *a);
/* What became of a grant. UNKNOWN: the connection died between use and result. NOT: nothing of it
 * reached the target, for certain. FAILED: the target refused it. */
enum cs_ran { CS_RAN_UNKNOWN, CS_RAN_NOT, CS_RAN_FAILED, CS_RAN_OK };
void cs_gate_executed(struct cs_session *s, const struct cs_id *grant, enum cs_ran ran,
                      struct cs_slice text);
/* Something worth knowing, in the record. */
void cs_gate_note(struct cs_session *s, const char *fmt, ...) CS_PRINTF(2, 3);

/* ---- cancel keys ---- */
/* A key of eight bytes that names gate and session. */
void cs_gate_cancel_key(struct cs_session *s, uint8_t ret[static 8]);
/* The session of this gate that the key names, NULL for a wrong key, and for any key from an
 * address that has just sent many wrong ones. */
struct cs_session *cs_gate_cancel_find(struct cs_gate *g, struct cs_slice key,
                                       struct cs_slice from);
/* A cancel request came in on this connection: to the right gate, ours or another. */
void cs_gate_cancel_route(struct cs_session *s, struct cs_slice key);

/* Where the session's actions run at the target: database and role, for its everyday or its
 * elevated credential. Borrowed from the configuration in force: copy to keep over a wait. */
struct cs_slice cs_gate_database(const struct cs_session *s, bool elevated);
struct cs_slice cs_gate_role(const struct cs_session *s, bool elevated);
/* "target=ADDRESS tls=MODE": which server it is and how it is known, part of what is approved: a
 * reload that moves the target must not take an approval along. */
struct cs_slice cs_gate_server(const struct cs_session *s, struct cs_arena *a);
/* Name or address of the target, for TLS verification. */
struct cs_slice cs_gate_target_host(const struct cs_session *s);

/* ---- passwords in texts ---- */
/* The text without its passwords, as everything but the target gets it: `text` itself when it has
 * none, else in `mem`. *ret_unkeyed: there is no key yet, and the result says nothing of the text.
 */
struct cs_slice cs_gate_redact(struct cs_session *s, const struct cs_sql_class *class,
                               struct cs_slice text, struct cs_buf *mem, bool *ret_unkeyed);

/* The same for a parameter's value; spans as of cs_redact, at least one. Appended to `mem`. */
void cs_gate_redact_value(struct cs_session *s, const struct cs_redact_span *spans, size_t n,
                          struct cs_slice value, struct cs_buf *mem, bool *ret_unkeyed);

/* ---- the target's catalogue ---- */
struct cs_sql_judged;
/* The class of a text with what is known of the session's target; `types`: those of parameters that
 * the client declared, by number. `memo` may be NULL; if not, it has only ever been used with this
 * class and these types. */
void cs_gate_judge(struct cs_session *s, const struct cs_sql_class *class, const uint32_t *types,
                   size_t n_types, struct cs_memo *memo, struct cs_sql_judged *ret);
/* The same, without declared types, by what the newest catalogue says, however old it is: two
 * answers for one class differ when definitions behind its names have changed in between. Where it
 * is opaque, nobody can say which definitions those are: then it returns the print of all of them
 * (borrowed until the next wait; NULL where it is not known). */
struct cs_slice cs_gate_definitions(struct cs_session *s, const struct cs_sql_class *class,
                                    struct cs_sql_judged *ret);
/* May to make a value of a literal run code of a user's, for all that is known of the target now?
 * False only while a fresh catalogue knows every type to be harmless. */
bool cs_gate_literals_run(struct cs_session *s);
/* Nothing is owed and no transaction is open on any of the session's connections: definitions that
 * its actions changed are in force now. Cheap; call it whenever that is so. */
void cs_gate_defined(struct cs_session *s);

/* The class of a text of more than CS_SQL_QUICK_BYTES, from the cache, or from another process if
 * it takes the classifier longer than a moment. That waits: nothing may be decided half before and
 * half after. NULL: cs_sql_classify() is to say; it makes a text opaque that is too long for a
 * gate. One reference for the caller. */
const struct cs_sql_class *cs_gate_parse(struct cs_session *s, struct cs_slice text);
struct cs_sql *cs_gate_sql(struct cs_gate *g);
struct cs_loop *cs_gate_loop(struct cs_gate *g);
/* TLS context of the listener that this session came in by; NULL = plain. */
struct cs_tls_ctx *cs_gate_listener_tls(struct cs_session *s);

#endif
