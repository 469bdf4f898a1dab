/* Durable state of the control role: principals, sealed secrets, sessions, requests, votes, grants.
 *
 * One SQLite file, one connection, one writer thread that does everything. Every function below
 * that says "waits" is called from a coroutine on the loop's thread and returns when its operation
 * is committed (fdatasync included) or has failed; operations that wait at the same time share one
 * commit. A cancelled waiter gets CS_ERR_CANCELLED at once and must assume either outcome.
 *
 * Errors common to all: CANCELLED; NO_MEMORY; NO_SPACE (disk full: nothing was changed, the store
 * stays up); IO (the disk or the file failed: final, see cs_store_failure); UNAVAILABLE (closed).
 *
 * Results (ret_*) are deep copies in the arena that the caller gives. Times are wall-clock ms; the
 * store's clock never runs backwards and never slower than the monotonic one, so that setting back
 * the machine's clock revives nothing. There is no SQL outside this folder. */
#ifndef CS_STORE_STORE_H
#define CS_STORE_STORE_H

#include "base/arena.h"
#include "base/err.h"
#include "base/id.h"
#include "runtime/loop.h"

struct cs_store;

enum { CS_STORE_DIGEST = 32, CS_STORE_NONCE = 16, CS_STORE_SALT = 16 };

struct cs_store_options {
    uint64_t (*wall_ms)(void); /* for tests; called on the writer thread. NULL = cs_wall_ms */
};

/* Opens or creates the file (0600), takes the lock beside it (PATH.lock), checks, migrates, starts
 * the thread and a coroutine in `loop`. Blocks: at start only; need not be in a coroutine. `opt`
 * may be NULL. CONFLICT: another process has it. UNSUPPORTED: written by a newer version. CORRUPT,
 * IO, NO_SPACE. `why` gets a sentence. */
enum cs_err cs_store_open(struct cs_loop *loop, const char *path,
                          const struct cs_store_options *opt, char *why, size_t why_size,
                          struct cs_store **ret) CS_MUST_CHECK;
/* Finishes what is queued, checkpoints, closes, joins the thread. From anywhere on the loop's
 * thread; waiters get CS_ERR_UNAVAILABLE or their answer. NULL is fine. */
void cs_store_close(struct cs_store *s);
/* Set once and for all when the file can no longer be trusted (an fsync that failed must not be
 * tried again): the role reports the text and exits; recovery happens at the next start. */
struct cs_event *cs_store_failure(struct cs_store *s);
const char *cs_store_failure_text(const struct cs_store *s);

struct cs_store_stats { /* for status */
    uint64_t commits, operations, batch_max, no_space, queued;
};
struct cs_store_stats cs_store_stats(struct cs_store *s);

/* Copies the file as it is into PATH.backup beside it, while others go on; what was there before is
 * replaced. Waits. CONFLICT: one is being made. The text belongs to the store. */
enum cs_err cs_store_backup(struct cs_store *s, const char **ret_path) CS_MUST_CHECK;

/* ---- meta: small named values of the installation ---- */
/* The value; when there is none yet, `initial` is stored and returned (waits; INSERT OR IGNORE). */
enum cs_err cs_store_meta_init(struct cs_store *s, struct cs_slice name, struct cs_slice initial,
                               struct cs_arena *a, struct cs_slice *ret) CS_MUST_CHECK;
/* A change that always writes and that nobody reads: whether the disk takes one again. Waits. */
enum cs_err cs_store_touch(struct cs_store *s) CS_MUST_CHECK;

/* ---- principals ---- */
struct cs_store_principal {
    struct cs_slice id;     /* "local:alice" */
    struct cs_slice name;   /* "alice" */
    struct cs_slice owner;  /* id of the person an agent acts for; empty for a person */
    struct cs_slice groups; /* names, each followed by '\n', sorted */
    uint64_t kind;          /* enum cs_principal_kind */
    uint64_t created_ms;    /* set by add */
    uint64_t disabled_ms;   /* 0 = not disabled */
    uint8_t token_sha256[CS_STORE_DIGEST];
    uint8_t salt[CS_STORE_SALT]; /* SCRAM verifier */
    uint64_t iterations;
    uint8_t stored_key[CS_STORE_DIGEST], server_key[CS_STORE_DIGEST];
};
/* EXISTS; CONFLICT when the owner is missing, disabled or not a person. Waits. */
enum cs_err cs_store_principal_add(struct cs_store *s,
                                   const struct cs_store_principal *p) CS_MUST_CHECK;
/* NOT_FOUND. Wait. Disabled ones are found too. */
enum cs_err cs_store_principal_get(struct cs_store *s, struct cs_slice id, struct cs_arena *a,
                                   struct cs_store_principal *ret) CS_MUST_CHECK;
enum cs_err cs_store_principal_by_token(struct cs_store *s,
                                        const uint8_t token_sha256[static CS_STORE_DIGEST],
                                        struct cs_arena *a,
                                        struct cs_store_principal *ret) CS_MUST_CHECK;
/* By id. Token hash and verifier are zero in the list. */
enum cs_err cs_store_principal_list(struct cs_store *s, struct cs_arena *a,
                                    struct cs_store_principal **ret, size_t *ret_n) CS_MUST_CHECK;
/* Idempotent: the first time stays. */
enum cs_err cs_store_principal_disable(struct cs_store *s, struct cs_slice id) CS_MUST_CHECK;
enum cs_err cs_store_principal_set_groups(struct cs_store *s, struct cs_slice id,
                                          struct cs_slice groups) CS_MUST_CHECK;
/* Takes token_sha256 and the verifier from `p` (found by p->id). */
enum cs_err cs_store_principal_set_token(struct cs_store *s,
                                         const struct cs_store_principal *p) CS_MUST_CHECK;

/* ---- secrets: sealed by the vault before they come here ---- */
struct cs_store_secret {
    struct cs_slice name;
    struct cs_slice box; /* empty in the list */
    uint64_t version;    /* counts from 1 */
    uint64_t changed_ms;
};
/* The box is bound to name and version (its aad): `version` must be the present one + 1 (1 when
 * new), else CONFLICT: somebody else was faster; read again. Waits. */
enum cs_err cs_store_secret_put(struct cs_store *s, struct cs_slice name, uint64_t version,
                                struct cs_slice box) CS_MUST_CHECK;
/* The same secret in another box: name and version stay, and so does when it was set. CONFLICT when
 * that is no longer its version. Waits. */
enum cs_err cs_store_secret_rewrap(struct cs_store *s, struct cs_slice name, uint64_t version,
                                   struct cs_slice box) CS_MUST_CHECK;
enum cs_err cs_store_secret_get(struct cs_store *s, struct cs_slice name, struct cs_arena *a,
                                struct cs_store_secret *ret) CS_MUST_CHECK;
enum cs_err cs_store_secret_list(struct cs_store *s, struct cs_arena *a,
                                 struct cs_store_secret **ret, size_t *ret_n) CS_MUST_CHECK;

/* ---- sessions ---- */
struct cs_store_session {
    struct cs_id id;
    struct cs_slice chain;       /* action/chain.h's binary form */
    struct cs_slice root, actor; /* principal ids: first and last of the chain */
    struct cs_slice target, address, database, application, why; /* why it ended */
    uint64_t gate;
    uint64_t opened_ms, closed_ms; /* closed 0 = live. Set by the store */
};
enum cs_err cs_store_session_open(struct cs_store *s,
                                  const struct cs_store_session *in) CS_MUST_CHECK;
/* What is known only later: database and application. NOT_FOUND. */
enum cs_err cs_store_session_update(struct cs_store *s, const struct cs_id *id,
                                    struct cs_slice database,
                                    struct cs_slice application) CS_MUST_CHECK;
enum cs_err cs_store_session_get(struct cs_store *s, const struct cs_id *id, struct cs_arena *a,
                                 struct cs_store_session *ret) CS_MUST_CHECK;
struct cs_store_session_query {
    bool closed_too;
    struct cs_slice principal; /* only those with this root or actor; empty = all */
    uint64_t limit;            /* the latest N; 0 or more than 1000 = 1000 */
};
/* Latest first. */
enum cs_err cs_store_session_list(struct cs_store *s, const struct cs_store_session_query *q,
                                  struct cs_arena *a, struct cs_store_session **ret,
                                  size_t *ret_n) CS_MUST_CHECK;
/* (Closing sessions also concerns their requests: below.) */

/* ---- requests: used by approval/ alone; control calls approval/approval.h ---- */
/* The same numbers as enum cs_request_state (action/request.h), which this folder does not see. */
enum cs_store_state {
    CS_STORE_NONE,
    CS_STORE_PENDING,
    CS_STORE_APPROVED,
    CS_STORE_EXECUTING,
    CS_STORE_DONE,
    CS_STORE_DENIED,
    CS_STORE_EXPIRED,
    CS_STORE_CANCELLED,
    CS_STORE_UNKNOWN,
    CS_STORE_VOID
};
enum cs_store_leave { CS_STORE_LEAVE_CANCEL, CS_STORE_LEAVE_DETACH, CS_STORE_LEAVE_VOID };
enum cs_store_vote_refusal {
#define CS_VOTE(id, err, text) CS_STORE_VOTE_##id,
#include "store/votes.def"
#undef CS_VOTE
    CS_STORE_VOTE_MAX
};

struct cs_store_rule { /* one matching hold rule's requirement */
    struct cs_slice name, title;
    struct cs_slice groups; /* of approvers: names, each followed by '\n' */
    uint64_t quorum;        /* distinct people in any of the groups; at least 1 */
};
struct cs_store_vote {
    struct cs_slice approver, reason;
    uint64_t approve; /* 0 = deny */
    uint64_t at_ms;
};
struct cs_store_request {
    char id[CS_REQUEST_ID_TEXT];
    uint64_t state;                                          /* enum cs_store_state */
    uint64_t seq;                                            /* of its last change */
    struct cs_id session;                                    /* that opened it */
    struct cs_slice chain, target, action, address, claimed; /* claimed: the requester's reason */
    struct cs_slice parties; /* ids of the chain, each followed by '\n' */
    uint8_t match[CS_STORE_DIGEST], digest[CS_STORE_DIGEST], nonce[CS_STORE_NONCE];
    uint64_t policy_version;
    uint64_t in_transaction, elevated;
    uint64_t within_ms, valid_ms, attach_ms;
    uint64_t created_ms, expires_ms, decided_ms;
    uint64_t lost_ms;          /* since when no session is attached that once was; 0 = not lost */
    struct cs_slice by, words; /* who ended the wait, and what was said */
    struct cs_id grant, grant_session; /* grant_session zero: waits for a session */
    uint64_t attached;                 /* live sessions */
    uint64_t action_bytes;             /* of `action`, also where it was left out */
    char again[CS_REQUEST_ID_TEXT];    /* only asked: see cs_store_request_hold */
    uint64_t refusal; /* enum cs_store_vote_refusal: what a vote of the viewer would meet */
    struct cs_store_rule *rules;
    size_t n_rules;
    struct cs_store_vote *votes;
    size_t n_votes;
};

/* One committed change of a request. `seq` rises by one with every change in the store. */
struct cs_store_change {
    uint64_t seq;
    char request[CS_REQUEST_ID_TEXT];
    uint64_t state, expires_ms;
    struct cs_slice by, words;
    struct cs_id grant, grant_session;
    struct cs_id *sessions; /* attached ones that must hear of it, oldest first */
    size_t n_sessions;
};
/* Called on the loop's thread for every committed change, in commit order, before the operation's
 * own waiter runs (and also when that waiter is gone). Must not wait. Slices are borrowed for the
 * call. */
typedef void (*cs_store_change_fn)(const struct cs_store_change *c, void *arg);
void cs_store_on_change(struct cs_store *s, cs_store_change_fn fn, void *arg);
uint64_t cs_store_seq(const struct cs_store *s); /* of the last change delivered */

struct cs_store_held {
    char request[CS_REQUEST_ID_TEXT];
    bool created;  /* false: an existing one was found */
    bool attached; /* this session will be told of changes */
    uint64_t state, expires_ms, seq;
    uint8_t digest[CS_STORE_DIGEST];
    uint8_t nonce[CS_STORE_NONCE]; /* with it and its policy version anybody computes the digest */
    uint64_t policy_version;
    struct cs_slice by, words, claimed; /* claimed: the request's own, part of its digest */
    struct cs_id grant;                 /* non-zero: this session may consume it now */
};
/* Inserts `r` (id, digests, rules … filled in; times set here), or, outside a transaction, finds
 * the pending or approved one with the same match, rules and elevation and attaches r->session to
 * it when `waiting`. One with the same match under other rules becomes void first. EXISTS: r->id is
 * taken, try another. NOT_FOUND: the session is not live. LIMIT. With r->again, the present state
 * of exactly that request, ended or not (open: attached as above); NOT_FOUND when its match
 * differs. `placed` (may be NULL) is called with the request's id on the loop's thread, between the
 * changes that came before and after. */
enum cs_err cs_store_request_hold(struct cs_store *s, const struct cs_store_request *r,
                                  bool waiting, void (*placed)(const char *request, void *arg),
                                  void *arg, struct cs_arena *a,
                                  struct cs_store_held *ret) CS_MUST_CHECK;
/* `viewer` (may be empty: DISABLED) fills `refusal`. */
enum cs_err cs_store_request_get(struct cs_store *s, struct cs_slice id, struct cs_slice viewer,
                                 struct cs_arena *a, struct cs_store_request *ret) CS_MUST_CHECK;
struct cs_store_request_query {
    uint64_t state;         /* CS_STORE_NONE = every one */
    bool open_only;         /* pending or approved */
    uint64_t since;         /* seq greater than this */
    struct cs_slice viewer; /* fills `refusal`; may be empty */
    bool viewers_only;      /* those of whose chain the viewer is, or that it may decide or has */
    uint64_t limit;         /* 0 or more than 1000 = 1000 */
    uint64_t action_max;    /* longer action blobs are left out (empty) */
    bool oldest_first;      /* by seq; else the newest first */
};
enum cs_err cs_store_request_list(struct cs_store *s, const struct cs_store_request_query *q,
                                  struct cs_arena *a, struct cs_store_request **ret, size_t *ret_n,
                                  uint64_t *ret_seq) CS_MUST_CHECK;
/* How many wait for people now. */
enum cs_err cs_store_requests_pending(struct cs_store *s, uint64_t *ret) CS_MUST_CHECK;
/* Checks every rule of voting and stores the vote: one transaction. A deny ends the request in it;
 * an approval counts from cs_store_vote_logged on. Refusals are reported as the error of votes.def
 * and in ret_refusal; then nothing was stored. */
enum cs_err cs_store_vote(struct cs_store *s, struct cs_slice request, struct cs_slice approver,
                          bool approve, const uint8_t digest[static CS_STORE_DIGEST],
                          struct cs_slice reason, uint64_t *ret_state,
                          enum cs_store_vote_refusal *ret_refusal) CS_MUST_CHECK;
/* The vote is in the audit log: now it counts, and may decide. Idempotent. `reason` is the vote's.
 */
enum cs_err cs_store_vote_logged(struct cs_store *s, struct cs_slice request,
                                 struct cs_slice approver, struct cs_slice reason,
                                 uint64_t *ret_state) CS_MUST_CHECK;
struct cs_store_unlogged { /* a vote that waits for that */
    struct cs_slice request, approver, reason;
    uint64_t approve, at_ms;
    uint8_t digest[CS_STORE_DIGEST];
};
/* The oldest of them. */
enum cs_err cs_store_votes_unlogged(struct cs_store *s, struct cs_arena *a,
                                    struct cs_store_unlogged **ret, size_t *ret_n) CS_MUST_CHECK;
/* Compare-and-set ready → consumed. CONFLICT unless exactly this grant, of this request, is ready,
 * for this session and digest, and in time. */
enum cs_err cs_store_grant_consume(struct cs_store *s, struct cs_slice request,
                                   const struct cs_id *grant, const struct cs_id *session,
                                   const uint8_t digest[static CS_STORE_DIGEST]) CS_MUST_CHECK;
/* consumed → done or unknown. Idempotent for the same outcome; else CONFLICT. */
enum cs_err cs_store_grant_finish(struct cs_store *s, const struct cs_id *grant,
                                  const struct cs_id *session, uint64_t state,
                                  struct cs_slice words) CS_MUST_CHECK;
/* The session no longer waits. CANCEL and VOID end the request; DETACH does so inside a
 * transaction. CONFLICT when it is decided or consumed, NOT_FOUND when the session is not attached.
 */
enum cs_err cs_store_request_leave(struct cs_store *s, struct cs_slice request,
                                   const struct cs_id *session, enum cs_store_leave how,
                                   struct cs_slice words) CS_MUST_CHECK;
/* Ends a pending or approved request as `state` (CANCELLED or VOID). CONFLICT when neither. `by`
 * not empty and `party_only`: DENIED unless it is one of the chain. */
enum cs_err cs_store_request_end(struct cs_store *s, struct cs_slice request, uint64_t state,
                                 bool party_only, struct cs_slice by,
                                 struct cs_slice words) CS_MUST_CHECK;
/* Everything that is overdue expires. */
enum cs_err cs_store_expire(struct cs_store *s, uint64_t *ret_n) CS_MUST_CHECK;
/* Closes a session: it leaves its requests (in a transaction: void; else detached); grants consumed
 * in it and not finished become unknown. Idempotent. */
enum cs_err cs_store_session_close(struct cs_store *s, const struct cs_id *id,
                                   struct cs_slice why) CS_MUST_CHECK;
/* The same for every live session of a gate that is gone. */
enum cs_err cs_store_sessions_close_gate(struct cs_store *s, uint64_t gate, struct cs_slice why,
                                         uint64_t *ret_n) CS_MUST_CHECK;
/* The ids of a gate's live sessions. */
enum cs_err cs_store_sessions_of_gate(struct cs_store *s, uint64_t gate, struct cs_arena *a,
                                      struct cs_id **ret, size_t *ret_n) CS_MUST_CHECK;
/* As session_close, for each of these. */
enum cs_err cs_store_sessions_close(struct cs_store *s, const struct cs_id *ids, size_t n,
                                    struct cs_slice why) CS_MUST_CHECK;
/* What a live session really does: it leaves every request but `request` (may be empty), and grants
 * consumed in it become unknown but for those named. */
enum cs_err cs_store_session_keeps(struct cs_store *s, const struct cs_id *id,
                                   struct cs_slice request, const struct cs_id *grants,
                                   size_t n_grants, struct cs_slice words) CS_MUST_CHECK;
/* Delivers again what sessions may not have heard: approved requests to those that wait for them,
 * and requests that ended in the last two minutes to the session that opened them, if it lives. */
enum cs_err cs_store_retell(struct cs_store *s) CS_MUST_CHECK;
/* At start, once: closes every session ("gateway restarted") with all that follows from it. */
enum cs_err cs_store_recover(struct cs_store *s, uint64_t *ret_sessions) CS_MUST_CHECK;

const char *cs_store_vote_text(enum cs_store_vote_refusal r);
enum cs_err cs_store_vote_err(enum cs_store_vote_refusal r);

#endif
