/* Requests: held actions waiting for people; votes; grants. The wait contract of the product, on
 * top of the store. Called by the control role, in coroutines: functions that return enum cs_err
 * wait, and can also fail as the store does (store/store.h: CANCELLED, NO_SPACE, IO, …): then
 * refuse.
 *
 *   PENDING → APPROVED → EXECUTING → DONE | UNKNOWN
 *           → DENIED | EXPIRED | CANCELLED | VOID      (APPROVED too, but DENIED)
 *
 * At most once: a grant is consumed by one compare-and-set that is durable before the answer; what
 * is consumed is never armed again. This folder never executes, and never decides by rules. */
#ifndef CS_APPROVAL_APPROVAL_H
#define CS_APPROVAL_APPROVAL_H

#include "action/action.h"
#include "action/chain.h"
#include "action/request.h"
#include "approval/card.h"
#include "ipc/ipc.h"
#include "policy/policy.h"
#include "store/store.h"

struct cs_approval;

/* One committed change, in commit order, for everybody: control sends REQUEST_STATE to each of
 * `sessions` and wakes long polls (compare `seq`). Must not wait. Borrowed for the call.
 *   - A new request is reported too (PENDING); the asking session is told by HELD, so that
 *     `sessions` is empty then.
 *   - APPROVED names the session that gets the grant; the others go on waiting. When that one
 * leaves before it consumes, APPROVED comes again with another grant_session.
 *   - EXECUTING: for sessions other than grant_session it means "already executed as this id".
 * Changes that a session must hear but that happened before cs_approval_hold returned to it are
 * also reported here, and are contained in what hold returns: REQUEST_STATE for a session whose
 * HELD has not been sent may be left out or sent, the gate ignores a request that it does not know.
 */
struct cs_approval_change {
    uint64_t seq;
    struct cs_slice request;
    enum cs_request_state state;
    uint64_t expires_ms;        /* of the request; once approved: of the grant */
    struct cs_slice by, words;  /* principal id or ""; what was said */
    struct cs_id grant;         /* non-zero when APPROVED */
    struct cs_id grant_session; /* who may consume it (REQUEST_STATE's grant is zero for others) */
    const struct cs_id *sessions;
    size_t n_sessions;
};
typedef void (*cs_approval_change_fn)(const struct cs_approval_change *c, void *arg);

/* Recovers (waits): sessions of the last run are closed, their requests detached (in a transaction:
 * void), grants that were consumed become unknown. Call before any gate is served. One per store.
 */
enum cs_err cs_approval_new(struct cs_store *s, cs_approval_change_fn on_change, void *arg,
                            struct cs_approval **ret) CS_MUST_CHECK;
/* As new, without the recovery: for a control that was restarted while the gates went on. Sessions
 * stay live, attachments stay, consumed grants stay consumed: their gate still reports. */
enum cs_err cs_approval_resume(struct cs_store *s, cs_approval_change_fn fn, void *arg,
                               struct cs_approval **ret) CS_MUST_CHECK;
/* After resume, once the gates are connected again: the last control may have died between a commit
 * and its message. Reports again what waiting sessions may not have heard (a gate ignores what it
 * knows already or does not know at all). */
enum cs_err cs_approval_retell(struct cs_approval *a) CS_MUST_CHECK;
void cs_approval_free(struct cs_approval *a);
/* The newest seq delivered: what "since" of the list starts from. */
uint64_t cs_approval_seq(const struct cs_approval *a);

/* ---- a gate's side ---- */
struct cs_approval_ask {
    struct cs_id session; /* live in the store */
    const struct cs_chain *chain;
    struct cs_slice target;  /* its name */
    struct cs_slice address; /* the client's */
    struct cs_slice claimed; /* the requester's reason, may be empty */
    const struct cs_action *action;
    const struct cs_rule *const *rules; /* the matching holds: at least one */
    size_t n_rules;
    bool in_transaction; /* or-ed with action->in_transaction */
    bool waiting;        /* stays attached; false = async: only asks */
    bool elevated;
    uint64_t policy_version;
    struct cs_slice again; /* not empty: the request that it waited for before */
};
struct cs_approval_held {
    char request[CS_REQUEST_ID_TEXT];
    enum cs_request_state
        state; /* PENDING, APPROVED; or already ended (others decided in between) */
    uint64_t expires_ms;
    uint8_t digest[CS_DIGEST]; /* what consume must show */
    uint8_t nonce[CS_NONCE];   /* the request's own, also when it was found by its match */
    uint64_t policy_version;
    struct cs_slice by, words; /* in the arena */
    struct cs_slice claimed;   /* the request's own, also when it was found by its match */
    struct cs_id grant;        /* non-zero: this session may consume now */
    bool created;              /* false: found by its match */
    bool attached;             /* this session hears of changes */
};
/* Outside a transaction attaches to the request with the same match that is pending or approved and
 * unused; else makes one. INVALID (no rules, no chain, quorum 0, no group), TOO_LARGE, NOT_FOUND
 * (session), LIMIT, DENIED: in a transaction and not waiting, or in a transaction and elevated
 * ("run it outside the transaction"). With `again`: that very request as it stands now, ended or
 * not; NOT_FOUND when it is not the same question; never a new one. The action is kept unsealed in
 * this version. */
enum cs_err cs_approval_hold(struct cs_approval *a, const struct cs_approval_ask *ask,
                             struct cs_arena *arena, struct cs_approval_held *ret) CS_MUST_CHECK;
/* cancel ends it; detach leaves it pending for others and for `attach` (void inside a transaction);
 * void ends it. CONFLICT: it is decided or in use. NOT_FOUND: not attached. */
enum cs_err cs_approval_leave(struct cs_approval *a, struct cs_slice request,
                              const struct cs_id *session, enum cs_leave how,
                              struct cs_slice words) CS_MUST_CHECK;
/* OK exactly once per grant. CONFLICT otherwise, whatever is wrong. */
enum cs_err cs_approval_consume(struct cs_approval *a, struct cs_slice request,
                                const struct cs_id *grant, const struct cs_id *session,
                                const uint8_t digest[static CS_DIGEST]) CS_MUST_CHECK;
/* not run → VOID, "nothing ran: TEXT"; done → DONE with `text` as words ("DROP TABLE"); failed →
 * DONE, "failed: TEXT"; unknown → UNKNOWN. */
enum cs_err cs_approval_finish(struct cs_approval *a, const struct cs_id *grant,
                               const struct cs_id *session, enum cs_executed outcome,
                               struct cs_slice text) CS_MUST_CHECK;
/* Use these, not store calls, when a session or a gate ends: they also leave its requests. */
enum cs_err cs_approval_session_closed(struct cs_approval *a, const struct cs_id *session,
                                       struct cs_slice why) CS_MUST_CHECK;
enum cs_err cs_approval_gate_gone(struct cs_approval *a, uint64_t gate,
                                  struct cs_slice why) CS_MUST_CHECK;
enum cs_err cs_approval_sessions_closed(struct cs_approval *a, const struct cs_id *sessions,
                                        size_t n, struct cs_slice why) CS_MUST_CHECK;
/* After a resume: what a live session waits for (may be empty), and the grants that it uses. It
 * leaves every other request, and every other grant consumed in it becomes unknown. */
enum cs_err cs_approval_session_keeps(struct cs_approval *a, const struct cs_id *session,
                                      struct cs_slice request, const struct cs_id *grants,
                                      size_t n_grants) CS_MUST_CHECK;
/* Call about once a second: expires what is due. */
enum cs_err cs_approval_tick(struct cs_approval *a) CS_MUST_CHECK;

/* ---- people's side ---- */
/* A vote that is stored and is to be said to the audit log. */
struct cs_approval_said {
    struct cs_slice request, approver_id, reason;
    const uint8_t *digest; /* CS_DIGEST */
    bool approve;
    uint64_t at_ms; /* 0 = now */
};
/* Waits until the log has it; said again it is the same. Without a witness, or when it says no, an
 * approval does not count. */
typedef enum cs_err (*cs_approval_witness_fn)(const struct cs_approval_said *v, void *arg);
void cs_approval_witness(struct cs_approval *a, cs_approval_witness_fn fn, void *arg);
/* Says again what the log may not have: after a crash, or while it could not be written. */
enum cs_err cs_approval_say_again(struct cs_approval *a) CS_MUST_CHECK;
/* The rules of voting, all checked in the transaction that stores the vote: a person, enabled; not
 * in the chain nor owner of an agent in it; in an approver group of at least one of the matching
 * rules (each rule's own quorum must be reached by people of its own groups; one person may count
 * for several); pending and in time; exactly this digest; once. A deny ends it at once; an approval
 * counts when the witness has it; its error: it is stored, and will count once it can be
 * said. A refusal comes back as DENIED, CONFLICT or NOT_FOUND with the sentence in ret_why (static
 * text).
 */
enum cs_err cs_approval_vote(struct cs_approval *a, struct cs_slice request,
                             struct cs_slice approver_id, bool approve,
                             const uint8_t digest[static CS_DIGEST], struct cs_slice reason,
                             enum cs_request_state *ret_state, const char **ret_why) CS_MUST_CHECK;
/* The requester withdraws (any member of the chain). DENIED, CONFLICT, NOT_FOUND. */
enum cs_err cs_approval_cancel(struct cs_approval *a, struct cs_slice request,
                               struct cs_slice principal_id, struct cs_slice words) CS_MUST_CHECK;
/* `viewer` (may be empty) fills may_vote. Whether the viewer may see it is asked with
 * cs_approval_may_see. */
enum cs_err cs_approval_card(struct cs_approval *a, struct cs_slice request,
                             struct cs_slice viewer_id, struct cs_arena *arena,
                             struct cs_card *ret) CS_MUST_CHECK;
/* One of the chain, or may vote, or has voted. Pure. */
bool cs_approval_may_see(const struct cs_card *card, struct cs_slice viewer_id);
struct cs_approval_query {
    enum cs_request_state state; /* NONE = every one */
    uint64_t since;              /* only changed after this seq */
    struct cs_slice viewer_id;   /* fills may_vote */
    bool all;                    /* false: only those that the viewer asked for or may decide */
    uint64_t limit;              /* at most 1000 */
    bool oldest_first; /* by seq: what is cut off comes with the last one's seq as since */
};
/* Newest change first, unless oldest_first. Long actions are left out (card.action_left_out). */
enum cs_err cs_approval_list(struct cs_approval *a, const struct cs_approval_query *q,
                             struct cs_arena *arena, struct cs_card **ret, size_t *ret_n,
                             uint64_t *ret_seq) CS_MUST_CHECK;

/* ---- after a reload ---- */
/* Voids every pending or approved request for which `stale` is true. `stale` sees the whole card
 * (may_vote not filled) and must not wait. */
enum cs_err cs_approval_void_where(struct cs_approval *a,
                                   bool (*stale)(const struct cs_card *c, void *arg), void *arg,
                                   struct cs_slice words, uint64_t *ret_n) CS_MUST_CHECK;

#endif
