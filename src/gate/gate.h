/* The gate role's process-wide state, and its entry. */
#ifndef CS_GATE_GATE_H
#define CS_GATE_GATE_H

#include "action/redact.h"
#include "gate/parser.h"
#include "gate/session.h"
#include "ipc/ipc.h"
#include "ipc/ring.h"
#include "policy/policy.h"
#include "wire/snapshot.h"

enum { CS_GATE_LISTENERS = 4, CS_GATE_REPORTS = 256, CS_GATE_CANCEL_BUCKETS = 64 };

struct cs_action;
struct cs_verdict;
struct cs_gate_catalogue;
struct cs_tls_ctx;
struct cs_sql;

/* One configuration snapshot as this gate uses it. Sessions hold references: a reload swaps
 * gate->config, and a session moves over at its next action. */
struct cs_gate_config {
    uint32_t refs;
    struct cs_slice mapped;
    struct cs_snapshot snapshot;
    struct cs_arena arena;
    struct cs_policy *policy;
    struct cs_tls_ctx *listener_tls[CS_SNAPSHOT_LISTENERS]; /* owned; NULL = plain */
    struct cs_tls_ctx **target_tls; /* owned, by target index, made lazily */
};

struct cs_gate_listener {
    struct cs_fd fd;
    struct cs_gate *gate;
    char name[64];
    const struct cs_protocol *protocol;
};

/* Something that control must hear exactly once, kept in case it dies before it has (tell.c). */
struct cs_report {
    enum cs_msg_type type; /* NONE = free; EXECUTED, HOLD_LEAVE */
    struct cs_id session, grant;
    char request[CS_REQUEST_ID_TEXT];
    uint64_t how; /* enum cs_executed, enum cs_leave */
    char text[512];
};

/* Wrong cancel keys, and keys of other gates, of the addresses that share this bucket, since then
 * (cancel.c). */
struct cs_cancel_misses {
    uint64_t since_ns;
    unsigned n, passed_on;
};

struct cs_gate {
    struct cs_loop *loop;
    uint64_t index, epoch;
    struct cs_channel *supervisor, *control; /* control: NULL while it is being restarted */
    uint64_t control_generation;             /* counts the channels to control so far */
    struct cs_ring ring;
    bool have_ring, ready, stopping;
    struct cs_gate_config *config;
    struct cs_gate_listener listeners[CS_GATE_LISTENERS];
    unsigned n_listeners;
    struct cs_pool sessions;
    struct cs_session *by_state[CS_SESSION_STATES];
    uint32_t state_count[CS_SESSION_STATES];
    uint64_t decisions; /* so far (count.c) */
    struct cs_sql *sql;
    struct cs_gate_parser parser;         /* for what would take `sql` too long (parser.c) */
    struct cs_gate_catalogue *catalogues; /* catalogue.c */
    struct cs_verdict *spare_verdict;     /* owned: of cs_verdict_new */
    uint64_t catalogue_generation;        /* counts whatever may change a judgement */
    uint8_t *scratch;                     /* one frame being encoded: CS_LIMIT_RECORD_FRAME_BYTES */
    uint8_t redact_key[CS_REDACT_KEY];    /* for passwords in texts; when there is one */
    bool has_redact_key;
    uint64_t cancel_seed; /* 0 = not drawn yet */
    struct cs_cancel_misses cancel_misses[CS_GATE_CANCEL_BUCKETS];
    struct cs_report reports[CS_GATE_REPORTS]; /* the latest, in a ring */
    /* An upgrade (drain.c). */
    cs_handle accepting[CS_GATE_LISTENERS]; /* coroutines */
    bool quiet;                             /* accepts nobody */
    bool parked;                            /* questions wait for the next control */
    bool quiesced;                          /* said so */
    bool draining;                          /* ends with its last session */
    unsigned parsing;                       /* texts that a job reads for a session (parse.c) */
    unsigned asking;          /* calls to control under way, and sessions `in_exchange` */
    struct cs_event unparked; /* there is another control, or the old one again */
    struct cs_event emptied;  /* a session has ended */
    size_t next_report;
    struct cs_late_end *late, *late_end; /* owned, oldest first (append.c) */
};

/* The whole life of the role; fd is the channel to the supervisor. Returns an exit status. */
int cs_gate_run(int supervisor_fd);

/* ---- for tests: the role inside somebody else's loop ---- */
enum cs_err cs_gate_new(struct cs_loop *loop, int supervisor_fd,
                        struct cs_gate **ret) CS_MUST_CHECK;
/* After the loop has ended. */
void cs_gate_free(struct cs_gate *g);

/* ---- inside the folder ---- */
/* The decision inside a verdict, which the protocol folders carry but cannot see into. */
#define CS_VERDICT_DECISION(v)       ((struct cs_decision *)(void *)(v)->decision)
#define CS_VERDICT_DECISION_CONST(v) ((const struct cs_decision *)(const void *)(v)->decision)
enum cs_err cs_gate_config_new(int memfd, struct cs_gate_config **ret) CS_MUST_CHECK;
struct cs_gate_config *cs_gate_config_ref(struct cs_gate_config *c);
void cs_gate_config_unref(struct cs_gate_config *c);
/* The load balancers that alone may connect to a listener; empty: anybody may. */
struct cs_slice cs_gate_proxy_from(const struct cs_gate_listener *l);
/* Connections of one address, or one IPv6 network, that have not said who they are. */
unsigned cs_gate_unknown_of(const struct cs_gate *g, const struct cs_addr_net *net);

void cs_session_run(void *session); /* coroutine */
struct cs_session *cs_session_by_id(struct cs_gate *g, const struct cs_id *id);
void cs_session_kill(struct cs_session *s, struct cs_slice why);

/* Appends a frame; waits for room. `durable`: waits until it is on disk. NO_SPACE: it cannot be
 * recorded, and nothing may run. */
enum cs_err cs_gate_append(struct cs_session *s, unsigned kind, const void *frame,
                           bool durable) CS_MUST_CHECK;
/* The session's last frame. When the recorder has stopped it is kept, and appended when it writes
 * again: a session that was cut off because the disk is full has an end in the record. */
struct cs_frame_session_close;
void cs_gate_append_end(struct cs_session *s, const struct cs_frame_session_close *f);
/* ---- drain.c: calls to control, and what an upgrade makes of them ---- */
/* cs_channel_call() to control for a session; while an upgrade replaces control, it waits for the
 * next one first. UNAVAILABLE when there is none. */
/* True when control may be asked now. Waits for that while an upgrade is under way; false when the
 * time is over, or the session is killed, its client gone, or a cancel has come. */
bool cs_gate_wait_unparked(struct cs_session *s, uint64_t deadline_ns);
enum cs_err cs_gate_call(struct cs_session *s, enum cs_msg_type t, const void *msg, const int *fds,
                         size_t n_fds, uint64_t timeout_ns, struct cs_call *ret) CS_MUST_CHECK;
/* The session is in the middle of an exchange of which control keeps a part in memory (a login, an
 * elevated connection being made): an upgrade waits for its end. */
void cs_gate_exchange(struct cs_session *s, bool begins);
enum cs_err cs_gate_accept(struct cs_gate *g) CS_MUST_CHECK; /* starts accepting on all listeners */
void cs_gate_quiesce(struct cs_gate *g);
void cs_gate_resume(struct cs_gate *g);
void cs_gate_drain(struct cs_gate *g, uint64_t seconds);
void cs_gate_unpark(struct cs_gate *g);
/* Accepts until it is cancelled (role.c); arg: a struct cs_gate_listener. */
void cs_gate_accept_loop(void *arg);

/* The channel to control is another one, or gone: every held session looks. */
void cs_hold_on_control(struct cs_gate *g);
/* A REQUEST_STATE message for a held session. */
void cs_hold_on_state(struct cs_gate *g, const struct cs_msg_request_state *m);
/* The request that the session waits for, "" for none. True: it is asking the present control for
 * one and does not know it yet. */
bool cs_hold_asking(const struct cs_session *s, struct cs_slice *ret_request);

/* ---- count.c: the metrics ---- */
/* When this decision began, or 0: not every one is timed. */
uint64_t cs_count_begin(struct cs_gate *g);
void cs_count_decision(struct cs_session *s, const struct cs_action *a, unsigned outcome,
                       uint64_t began_ns);
void cs_count_hold(const struct cs_verdict *v, uint64_t began_ns);
void cs_count_session_end(struct cs_session *s);

/* ---- catalogue.c ---- */
void cs_gate_catalogue_new(struct cs_gate *g, const struct cs_msg_catalogue *m, int fd);
/* From here on the session may change definitions; `elsewhere`: on a connection of its own. */
void cs_gate_defining(struct cs_session *s, bool elsewhere);
/* The session ends: what it was changing may still take effect for a while. */
void cs_gate_define_lost(struct cs_session *s);
void cs_gate_catalogue_old(struct cs_gate *g, struct cs_slice target);
/* Something is held at the session's target: a catalogue that is a little old is asked for anew, so
 * that what changes behind its back is known when it may run. */
void cs_gate_definitions_watch(struct cs_session *s);
void cs_gate_catalogues_free(struct cs_gate *g);

/* ---- tell.c: what control must hear, whichever control it is ---- */
void cs_tell_leave(struct cs_session *s, struct cs_slice request, enum cs_leave how);
void cs_tell_closed(struct cs_session *s, struct cs_slice why);
/* Before a grant is consumed; false when too many of the session's have no result yet. From then on
 * the grant is named to a new control until cs_gate_executed(). */
bool cs_tell_using(struct cs_session *s, const struct cs_id *grant) CS_MUST_CHECK;
/* The channel to control is a new one. */
void cs_tell_control(struct cs_gate *g);

#endif
