/* The control role: knows people, sessions and requests; answers gates and front. One loop, one
 * thread, plus the store's writer thread. Secrets are keeper's, connections dialer's: this process
 * holds ciphertext, and makes no network socket.
 *
 * Who may do what is decided here, on what this process knows itself: a gate's word names a session
 * and an action, never a person, an approver or a right. */
#ifndef CS_CONTROL_CONTROL_H
#define CS_CONTROL_CONTROL_H

#include "action/chain.h"
#include "approval/approval.h"
#include "control/session.h"
#include "crypto/crypto.h"
#include "identity/identity.h"
#include "ipc/ipc.h"
#include "policy/policy.h"
#include "runtime/loop.h"
#include "store/store.h"
#include "wire/snapshot.h"

struct cs_api_call;
struct cs_ctl_catalogue;
struct cs_ctl_check;
struct cs_ctl_probe;
struct cs_impact;
struct cs_job;

enum {
    CS_CONTROL_JOBS = 1024, /* messages of one gate being worked on; then its channel is not read */
    CS_CONTROL_CALLS = 512, /* API calls at once */
    CS_CONTROL_WAITING = 256 /* of them, long polls that wait */
};

/* The whole life of the role; fd is the channel to the supervisor. Returns an exit status. */
int cs_control_run(int supervisor_fd);

/* ---- for tests: the role inside somebody else's loop ---- */
struct cs_control;
enum cs_err cs_control_new(struct cs_loop *loop, int supervisor_fd,
                           struct cs_control **ret) CS_MUST_CHECK;
/* After the loop has ended. */
void cs_control_free(struct cs_control *c);

/* ---- inside the folder ---- */

/* One configuration snapshot. What waits while it uses one keeps a reference: a reload swaps
 * control->view under its feet. */
struct cs_view {
    uint32_t refs;
    struct cs_slice map; /* owned, sealed memory */
    struct cs_arena arena;
    struct cs_snapshot snapshot; /* borrowed from map */
    struct cs_policy *policy;    /* arena */
};
/* `sha256` empty = not checked. Does not take over the descriptor. */
enum cs_err cs_view_new(int memfd, struct cs_slice sha256, struct cs_view **ret) CS_MUST_CHECK;
struct cs_view *cs_view_keep(struct cs_view *v);
void cs_view_drop(struct cs_view *v); /* NULL is fine */

/* A channel to a gate, front, keeper, dialer or probe. Lives until the channel is gone and nothing
 * works for it. */
struct cs_peer {
    struct cs_control *c;
    struct cs_channel *channel; /* NULL once it is gone */
    enum cs_role role;
    uint64_t index, epoch;
    uint64_t key; /* names this run of a gate in the store: epoch << 16 | index */
    int fd;       /* before the role is started: not opened yet; else -1 */
    size_t jobs;
    struct cs_event room;  /* set when one of the jobs has ended */
    bool told;             /* a gate has named its sessions */
    size_t untold_jobs;    /* of the messages before that, those being worked on */
    struct cs_lane *lanes; /* gate.c */
    struct cs_peer *next;
};

/* A long poll that waits for any change. */
struct cs_poll {
    struct cs_event changed;
    struct cs_poll *next, **prev;
};

enum cs_control_phase { CS_CONTROL_BOOT, CS_CONTROL_STARTING, CS_CONTROL_RUN, CS_CONTROL_STOP };

struct cs_control {
    struct cs_loop *loop;
    struct cs_channel *supervisor; /* NULL once it is gone */
    enum cs_control_phase phase;
    bool failed; /* exit status 1 */
    bool alone;  /* the process is this role's: it goes into its sandbox */
    uint64_t epoch;
    bool keep;              /* gates kept their sessions over a restart of control */
    uint64_t no_space_seen; /* of the store: so often it had no room */
    bool store_full;
    uint64_t service_uid; /* who may set up besides root, on the local socket */
    uint64_t started_ms;
    struct cs_view *view;
    struct cs_store *store; /* owned, as all below */
    struct cs_identity *identity;
    struct cs_approval *approval;
    struct cs_event joined;          /* keeper or dialer has come */
    char recording_key[32];          /* name of the one that the recorder has */
    uint8_t rules_sha256[CS_SHA256]; /* of the file of the configuration in force */
    bool rules_said;                 /* the log has heard of it */
    uint64_t failed_s, failed_said,
        failed_more; /* log-ins that failed: this second's, and others */
    bool relaying;   /* a checkpoint is on its way to keeper and back */
    struct cs_peer *peers;
    struct cs_sessions sessions;
    struct cs_attempt *attempts; /* auth.c */
    size_t n_attempts;
    struct cs_ctl_catalogue *catalogues; /* catalogue.c */
    struct cs_event catalogue_moved;     /* one is wanted, or a task has ended */
    uint64_t connections;                /* the last number given to one */
    struct cs_impact *impacts;           /* the newest first; impact.c */
    size_t impacts_asked;                /* that probe works on */
    struct cs_ctl_probe *probes;         /* tasks that probe works on; probe.c */
    struct cs_ctl_check *checks;         /* the last one of each target; check.c */
    bool checking;                       /* a coroutine looks at targets again */
    struct cs_poll *polls;
    struct cs_api_call *calls;
    size_t n_calls, n_waiting;
    unsigned
        redeciding; /* reloads whose requests are not yet decided again: no grant is consumed */
};

/* The message type must fit the channel. False when the peer is gone; one that does not read is cut
 * off. */
bool cs_peer_send(struct cs_peer *p, enum cs_msg_type t, uint32_t corr, const void *msg,
                  const int *fds, size_t n_fds);
/* Ends a channel that cannot be served any more. */
void cs_peer_cut(struct cs_peer *p, const char *why);
/* This role cannot go on: it ends with status 1, and the supervisor starts another one. */
void cs_control_fail(struct cs_control *c, const char *why);
/* The gate with this key, NULL when it is gone. */
struct cs_peer *cs_peer_by_key(struct cs_control *c, uint64_t key);
/* Frees it when it is gone and nothing works for it. */
void cs_peer_release(struct cs_peer *p);

/* Waits until something changed, the deadline, or cancellation (CS_ERR_TIMEOUT, CANCELLED). The
 * poll is registered before the caller looks at the state, so that no change falls between. */
void cs_poll_begin(struct cs_control *c, struct cs_poll *p);
void cs_poll_end(struct cs_poll *p);
enum cs_err cs_poll_wait(struct cs_poll *p, uint64_t deadline_ns) CS_MUST_CHECK;
/* Every long poll looks again. */
void cs_control_wake(struct cs_control *c);

/* ---- helpers.c: what keeper and dialer do for this role. UNAVAILABLE while they are away ---- */
/* cs_channel_call to the helper of that role. */
enum cs_err cs_helper_call(struct cs_control *c, enum cs_role role, enum cs_msg_type t,
                           const void *msg, uint64_t deadline_ns,
                           struct cs_call *ret) CS_MUST_CHECK;
/* The same with a descriptor, which stays the caller's. */
enum cs_err cs_helper_call_fd(struct cs_control *c, enum cs_role role, enum cs_msg_type t,
                              const void *msg, int fd, uint64_t deadline_ns,
                              struct cs_call *ret) CS_MUST_CHECK;
/* The public key to which secrets are sealed. `create`: no secret is sealed yet, keeper may make a
 * missing master key. `why` gets keeper's sentence when it says no. */
enum cs_err cs_helper_seal_key(struct cs_control *c, uint64_t deadline_ns,
                               uint8_t ret[static CS_X25519], char *why,
                               size_t why_size) CS_MUST_CHECK;

/* The newest one of that role; NULL while it is away. */
struct cs_peer *cs_helper_peer(struct cs_control *c, enum cs_role role);

/* ---- audit.c: the audit log (docs/format.md) ---- */
/* An event of that kind (enum cs_leaf_kind), now; the caller fills in the rest and the bits of
 * `has`. Said again with the same `event` it is the same. */
struct cs_msg_audit cs_audit_event(unsigned kind);
/* Waits until its leaf is durable. After any error what it is about must not be done. */
enum cs_err cs_audit_say(struct cs_control *c, const struct cs_msg_audit *m) CS_MUST_CHECK;
/* The witness of votes (approval/approval.h). arg is the control. */
enum cs_err cs_audit_vote(const struct cs_approval_said *v, void *control);
/* Who has logged in, before they are told; and who has not, of whom only so many a second. */
enum cs_err cs_audit_login(struct cs_control *c, const struct cs_id *session, struct cs_slice who,
                           struct cs_slice target) CS_MUST_CHECK;
void cs_audit_login_failed(struct cs_control *c, struct cs_slice user, struct cs_slice target);
/* About once a second: the rules in force, and what could not be said before. */
void cs_audit_tick(struct cs_control *c);
/* Waits until all that was recorded up to now is under a signature. */
void cs_audit_settle(struct cs_control *c, uint64_t deadline_ns);
void cs_audit_on_recorder(struct cs_channel *ch, const struct cs_channel_in *in, void *peer);

/* ---- connect.c: what gates' sessions and probe's tasks share ---- */
/* A connection to a target's address, by dialer; and why there is none, in words. */
enum cs_err cs_connect_reach(struct cs_control *c, struct cs_slice address,
                             int *ret_fd) CS_MUST_CHECK;
void cs_connect_unreachable(const struct cs_target *t, enum cs_err e, char *text, size_t size);
/* Has keeper prove a credential: everything of `ask` but the stored secret and the deadline is the
 * caller's own knowledge. `why` (kept as it is otherwise) when the secret is not to be had. Free
 * *ret in every case. */
enum cs_err cs_connect_proof(struct cs_control *c, struct cs_msg_prove_for *ask, struct cs_arena *a,
                             struct cs_call *ret, char *why, size_t why_size) CS_MUST_CHECK;

/* ---- probe.c ---- */
/* Has probe look at a target; waits, in a coroutine. On CS_OK *ret is the result (cs_rows), sealed
 * memory that the caller unmaps; `why` (NUL-terminated) otherwise. `text`, `names`: see
 * wire/probe_task.h, for an impact task. UNAVAILABLE while probe is away. */
enum cs_err cs_probe_ask(struct cs_control *c, struct cs_slice target, enum cs_probe_kind kind,
                         struct cs_slice text, struct cs_slice names, struct cs_slice *ret,
                         char *why, size_t why_size) CS_MUST_CHECK;
/* The same for a task whose result is not rows: the sealed memory itself, which the caller closes.
 */
enum cs_err cs_probe_ask_memory(struct cs_control *c, struct cs_slice target,
                                enum cs_probe_kind kind, int *ret_fd, char *why,
                                size_t why_size) CS_MUST_CHECK;
void cs_probe_connect(struct cs_job *j);
void cs_probe_prove(struct cs_job *j);

/* ---- recording.c ---- */
/* The key of the month of that time: made if there is none, and announced to the recorder by
 * keeper. Nothing is done when it was already. */
enum cs_err cs_recording_month(struct cs_control *c, uint64_t wall_ms, char *why,
                               size_t why_size) CS_MUST_CHECK;
/* A replayer's wrapped keys (crypto/wrapped.h): `out` gets those that keeper opened, sealed to the
 * reader's key. */
enum cs_err cs_recording_unwrap(struct cs_control *c, const struct cs_id *session,
                                struct cs_slice reader, struct cs_slice rows,
                                struct cs_buf *out) CS_MUST_CHECK;
/* The same for private values of the audit log (audit/boxes.h). */
enum cs_err cs_recording_open_log(struct cs_control *c, struct cs_slice reader,
                                  struct cs_slice rows, struct cs_buf *out) CS_MUST_CHECK;

/* ---- catalogue.c ---- */
void cs_catalogue_run(void *control);         /* coroutine */
void cs_catalogue_tell(struct cs_peer *gate); /* all there are, to a gate that has come */
void cs_catalogue_wanted(struct cs_job *j);
/* The n-th: its target and how old it is, UINT64_MAX for one that has not come. False: no more. */
bool cs_catalogue_at(const struct cs_control *c, size_t n, struct cs_slice *ret_target,
                     uint64_t *ret_age_ns);
void cs_catalogue_free(struct cs_control *c);

/* ---- impact.c: what a held action would touch, as the target estimates it ---- */
enum { CS_IMPACT_RELATIONS = 8 };
struct cs_impact_relation { /* texts NUL-terminated, the target's words */
    char name[132], dependants[400];
    char kind; /* relkind */
    bool has_rows, has_bytes;
    uint64_t rows, bytes;
};
struct cs_impact {
    struct cs_impact *next;
    char request[CS_REQUEST_ID_TEXT];
    uint64_t at_ms;
    bool has_rows; /* of the statement's plan */
    uint64_t rows;
    struct cs_impact_relation relations[CS_IMPACT_RELATIONS];
    size_t n_relations;
};
/* A request is new: asks, for which nobody waits. Copies what it needs. */
void cs_impact_begin(struct cs_control *c, const char *request, struct cs_slice target,
                     const struct cs_action *act);
/* NULL when there is none (yet). */
const struct cs_impact *cs_impact_find(const struct cs_control *c, const char *request);
void cs_impact_free(struct cs_control *c);

/* ---- gate.c ---- */
void cs_gate_on_message(struct cs_channel *ch, const struct cs_channel_in *in, void *peer);
/* Its sessions are closed and their requests left, once its last job has ended. */
void cs_gate_on_gone(struct cs_peer *p);
void cs_gate_on_change(const struct cs_approval_change *ch, void *control);
/* Waits. A session by the gate that names it: in memory, or (control was restarted) in the store.
 * NULL when there is no live one of this gate, or it was killed. */
struct cs_ctl_session *cs_gate_session(struct cs_peer *p, const struct cs_id *id);
/* Waits. Ends the session wherever it is: store, requests, memory, gate. */
enum cs_err cs_gate_kill(struct cs_control *c, const struct cs_id *id, uint64_t gate_key,
                         struct cs_slice why) CS_MUST_CHECK;
/* Waits. Ends every live session that has this principal as root or actor. */
enum cs_err cs_gate_kill_of(struct cs_control *c, struct cs_slice principal_id,
                            struct cs_slice why) CS_MUST_CHECK;
/* Waits. Closes sessions of the last run that no gate of this one carries. */
void cs_gate_sweep(struct cs_control *c);

/* ---- a message of a gate, copied, and worked on in a coroutine ---- */
struct cs_job {
    struct cs_peer *peer;
    enum cs_msg_type type;
    uint32_t corr;
    int fd; /* owned; -1 = none */
    uint8_t *bytes;
    size_t n_bytes;
    union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        uint64_t align;
    } msg;
    struct cs_arena arena;
    bool untold;
    struct cs_job *next;
};

void cs_auth_start(struct cs_job *j);
void cs_auth_proof(struct cs_job *j);
void cs_auth_token(struct cs_job *j);
void cs_auth_ask(struct cs_job *j);
void cs_auth_certificate(struct cs_job *j);
void cs_auth_tick(struct cs_control *c);
void cs_auth_free(struct cs_control *c);
void cs_connect_dial(struct cs_job *j);
void cs_connect_prove(struct cs_job *j);
void cs_hold_ask(struct cs_job *j);
void cs_hold_leave(struct cs_job *j);
void cs_hold_consume(struct cs_job *j);
void cs_hold_executed(struct cs_job *j);
/* Waits. After a reload: what the new rules decide differently is void. */
void cs_hold_redecide(struct cs_control *c);

#endif
