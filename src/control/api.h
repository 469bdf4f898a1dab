/* The API of docs/api.md: one table of routes, each with who may call it, what its query and body
 * may hold, and the function that answers. What is not in the table is refused.
 *
 * A call runs in a coroutine of its own on an arena of its own; a handler fills in the reply or
 * returns an error, and never answers twice. */
#ifndef CS_CONTROL_API_H
#define CS_CONTROL_API_H

#include "control/control.h"
#include "control/json.h"

enum {
    CS_API_ARENA_MAX = 64 * 1024 * 1024,
    CS_API_QUERY_MAX = 7,
    CS_API_INLINE_MAX = 60 * 1024,
    CS_API_WAIT_MAX_S = 45
};

/* Who may call. Zero refuses. */
enum cs_api_who {
    CS_API_NOBODY,
    CS_API_ANYONE,
    CS_API_TOKEN,  /* a principal by its token, or somebody who may set up */
    CS_API_PERSON, /* a person by its own token; never the local socket's user id alone */
    CS_API_AUDIT,  /* may set up, or an auditor */
    CS_API_SETUP,
};

struct cs_api_call;
typedef enum cs_err (*cs_api_fn)(struct cs_api_call *call);

/* What the audit log hears before the call is made. A call that is no GET changes something, or
 * says why it needs no leaf. */
struct cs_api_says {
    const char *change;  /* `what` of its leaf; NULL = nothing is said */
    bool secret;         /* its body is not for the log, sealed as it may be */
    const char *why_not; /* of one that is no GET and has no `change` */
};

struct cs_api_route {
    const char *method;
    const char *pattern; /* segments; "{}" stands for one, which becomes call->name */
    enum cs_api_who who;
    cs_api_fn fn;
    struct cs_api_says says;
    const char *query[CS_API_QUERY_MAX]; /* names permitted */
    struct cs_json_field body[CS_JSON_FIELDS_MAX];
};

struct cs_api_caller {
    struct cs_chain chain; /* n == 0: no token; else the last member is the token's own principal */
    const struct cs_principal *who; /* that member, or NULL */
    bool local;
    uint64_t uid; /* when local */
    bool may_set_up;
    bool may_audit;
};

struct cs_api_call {
    struct cs_control *c;
    struct cs_peer *front;
    uint32_t corr;
    struct cs_msg_api msg; /* slices point into `bytes` */
    uint8_t *bytes;        /* owned; wiped */
    size_t n_bytes;
    cs_handle co;
    bool waiting; /* in a long poll: may be cancelled */
    bool gone;    /* the caller has left: no (further) long poll */
    struct cs_api_call *next;

    struct cs_arena arena;
    const struct cs_api_route *route;
    struct cs_api_caller caller;
    struct cs_slice name; /* the path's {} */
    struct cs_slice query[CS_API_QUERY_MAX];
    struct cs_json_value body[CS_JSON_FIELDS_MAX];
    json_t *body_root; /* owned */

    uint64_t status;          /* 0 = 200 */
    json_t *reply;            /* owned */
    int reply_fd;             /* owned: a sealed body instead of `reply`; -1 = none */
    char why[512];            /* the sentence of an error; "" = the error's own */
    struct cs_slice long_why; /* instead of it, when it is long; arena */
};

/* Takes a message of front's channel: starts the call. */
void cs_api_start(struct cs_peer *front, uint32_t corr, const struct cs_msg_api *msg);
/* Front is gone: its calls are cancelled. */
void cs_api_front_gone(struct cs_peer *front);
/* The caller of that call has left. */
void cs_api_gone(struct cs_peer *front, uint64_t corr);

/* Sets the sentence and returns the error: return cs_api_fail(call, CS_ERR_…, "…"). */
enum cs_err cs_api_fail(struct cs_api_call *call, enum cs_err e, const char *fmt, ...)
    CS_PRINTF(3, 4);
/* A query value as a number ≤ max; `otherwise` when it is not there. False (and why set) when it is
 * no number. */
bool cs_api_number(struct cs_api_call *call, size_t i, uint64_t otherwise, uint64_t max,
                   uint64_t *ret);
/* Takes over `object`; CS_ERR_NO_MEMORY when it is NULL or `ok` is false. */
enum cs_err cs_api_reply(struct cs_api_call *call, uint64_t status, json_t *object, bool ok);
/* Who calls, for log lines and records: the principal's id, or "uid 0 (local socket)". */
struct cs_slice cs_api_caller_text(struct cs_api_call *call);
/* A long poll: true when the caller may wait (more) until `deadline_ns`; then wait with
 * cs_poll_wait. LIMIT when too many wait already. */
enum cs_err cs_api_wait(struct cs_api_call *call, struct cs_poll *p,
                        uint64_t deadline_ns) CS_MUST_CHECK;
/* Has a job read a recording, or the audit log; its JSON becomes the reply. Who asked must be in
 * the audit log by then. */
enum cs_err cs_api_read(struct cs_api_call *call, const struct cs_msg_replay *ask);

extern const struct cs_api_route cs_api_routes[];
extern const size_t cs_api_routes_n;

/* Pure: finds the route. CS_ERR_NOT_FOUND, CS_ERR_UNSUPPORTED (the path exists, not the method). */
enum cs_err cs_api_find(const struct cs_api_route *routes, size_t n, struct cs_slice method,
                        struct cs_slice path, struct cs_arena *a, const struct cs_api_route **ret,
                        struct cs_slice *ret_name) CS_MUST_CHECK;
/* Pure: splits and decodes a query by the route's names. */
bool cs_api_query(const struct cs_api_route *route, struct cs_slice query, struct cs_arena *a,
                  struct cs_slice ret[static CS_API_QUERY_MAX]);

/* ---- handlers, by noun ---- */
enum cs_err cs_api_health(struct cs_api_call *call);
enum cs_err cs_api_whoami(struct cs_api_call *call);
enum cs_err cs_api_user_add(struct cs_api_call *call);
enum cs_err cs_api_user_list(struct cs_api_call *call);
enum cs_err cs_api_user_token(struct cs_api_call *call);
enum cs_err cs_api_user_groups(struct cs_api_call *call);
enum cs_err cs_api_user_disable(struct cs_api_call *call);
enum cs_err cs_api_agent_add(struct cs_api_call *call);
enum cs_err cs_api_secret_put(struct cs_api_call *call);
enum cs_err cs_api_secret_key(struct cs_api_call *call);
enum cs_err cs_api_secret_list(struct cs_api_call *call);
enum cs_err cs_api_secret_rotate(struct cs_api_call *call);
enum cs_err cs_api_request_list(struct cs_api_call *call);
enum cs_err cs_api_request_show(struct cs_api_call *call);
enum cs_err cs_api_request_approve(struct cs_api_call *call);
enum cs_err cs_api_request_deny(struct cs_api_call *call);
enum cs_err cs_api_request_cancel(struct cs_api_call *call);
enum cs_err cs_api_session_list(struct cs_api_call *call);
enum cs_err cs_api_session_kill(struct cs_api_call *call);
enum cs_err cs_api_session_recording(struct cs_api_call *call);
enum cs_err cs_api_log(struct cs_api_call *call);
enum cs_err cs_api_target_answers(struct cs_api_call *call);
enum cs_err cs_api_target_check(struct cs_api_call *call);
enum cs_err cs_api_target_sql(struct cs_api_call *call);
enum cs_err cs_api_backup(struct cs_api_call *call);
enum cs_err cs_api_reload(struct cs_api_call *call);
enum cs_err cs_api_status(struct cs_api_call *call);

#endif
