/* The whole control role in the test's process, with a real keeper and a real dialer beside it: the
 * test plays supervisor, two gates and front at the other ends of its channels, and a target that
 * accepts connections. */
#ifndef CS_TEST_WORLD_H
#define CS_TEST_WORLD_H

#include "control/control.h"
#include "control/json.h"
#include "crypto/scram.h"
#include "tap.h"

enum { WORLD_NEWS = 64 };

enum world_rules { WORLD_RULES, WORLD_OTHER_APPROVERS, WORLD_SAME_RULES_NEWER };

struct world_news { /* one REQUEST_STATE at a gate */
    unsigned gate;
    struct cs_id session, grant;
    char request[CS_REQUEST_ID_TEXT], words[200], by[80];
    enum cs_request_state state;
};

struct world_held;

struct world_catalogue { /* one CATALOGUE at a gate */
    unsigned gate;
    char target[32], address[40], bytes[80];
    uint64_t taken;
};

struct world_audit { /* one AUDIT at the recorder */
    struct cs_id event, session;
    uint64_t kind, outcome;
    bool has_outcome;
    char request[CS_REQUEST_ID_TEXT], what[40], who[80], subject[40];
};

struct world {
    struct cs_loop *loop;
    struct cs_control *control;
    struct cs_channel *supervisor, *gate[2], *front; /* our ends */
    struct cs_channel *recorder;                     /* ours, too */
    enum cs_err log_err;                             /* what the recorder says to each AUDIT */
    struct world_audit audits[256];
    size_t n_audits;
    const char *probe_says; /* what a look at a target brings; NULL: it fails */
    size_t n_looks;
    struct world_catalogue catalogues[WORLD_NEWS];
    size_t n_catalogues, n_old[2];
    struct cs_channel *more[4]; /* of world_probe and world_gate */
    size_t n_more;
    struct cs_keeper *keeper;
    struct cs_dialer *dialer;
    struct cs_channel *to_keeper, *to_dialer; /* the supervisor's ends */
    char dir[64];
    int listener; /* the target "orders" */
    uint16_t port, closed_port;
    uint64_t version;
    struct cs_event ready, news;
    struct world_news seen[WORLD_NEWS];
    size_t n_seen;
    struct cs_id killed[WORLD_NEWS];
    size_t n_killed, n_cancels[2];
    bool keep;                 /* gates=keep at boot */
    bool again;                /* the second start */
    enum world_rules rules[2]; /* at the first and the second start */
    const char *reload_mistakes;
    void (*script)(struct world *w);
    char alice[CS_TOKEN_TEXT], bot[CS_TOKEN_TEXT], carol[CS_TOKEN_TEXT], dan[CS_TOKEN_TEXT];
    struct cs_id kept; /* for the script's own use */
    struct world_held *kept_held;
    struct cs_arena arena;
};

/* Boots, creates alice (engineer), bot (her agent), carol and dan (DBAs), runs the script in a
 * coroutine, shuts down, checks that no memory is left. */
void world_run(void (*script)(struct world *w));
/* The same, and then control once more on the same store, with or without gates=keep: what the
 * first left open is what a gate would still have. */
void world_run_twice(void (*first)(struct world *w), void (*second)(struct world *w), bool keep);
/* PUT /v1/secrets/NAME, sealed to keeper's key as the command does; the status. */
unsigned world_secret(struct world *w, const char *name, const char *value);
/* The supervisor gives keeper other master keys, each of one repeated byte; at first it has 1. */
void world_keeper_keys(struct world *w, uint8_t present, uint8_t previous);
/* Keeper and dialer die, as control sees it; and new ones come. */
void world_helpers_die(struct world *w);
void world_helpers_start(struct world *w);
/* The latest thing of that kind (enum cs_leaf_kind) that was said to the log; NULL: none. */
const struct world_audit *world_said(const struct world *w, unsigned kind);
size_t world_said_n(const struct world *w, unsigned kind);
/* A probe that answers w->probe_says to every look at a target. */
void world_probe(struct world *w);
/* One more gate. */
void world_gate(struct world *w, unsigned g);
/* A new configuration from the supervisor. */
void world_snapshot(struct world *w, enum world_rules rules);

struct world_call {
    const char *method, *path, *query, *token, *body;
    bool local;
    uint64_t uid;
};
/* The status; the JSON answer in *ret (json_decref), NULL when it is none. */
unsigned world_api(struct world *w, const struct world_call *call, json_t **ret);
/* Without looking at the answer; as uid 0 on the local socket. */
unsigned world_setup(struct world *w, const char *method, const char *path, const char *body);
const char *world_text(const json_t *o, const char *key);

/* Logs in by SCRAM through gate `g`. */
enum cs_err world_login(struct world *w, unsigned g, const char *user, const char *token,
                        const char *target, struct cs_id *ret);
struct world_hold {
    unsigned gate;
    struct cs_id session;
    const char *sql, *rules, *again;
    bool async, everyday, in_transaction;
    uint64_t snapshot; /* 0 = the right one */
};
struct world_held {
    enum cs_err err;
    char text[200], by[80];
    char request[CS_REQUEST_ID_TEXT];
    char digest[CS_DIGEST * 2 + 1], url[128];
    uint8_t raw_digest[CS_DIGEST], nonce[CS_NONCE];
    enum cs_request_state state;
    struct cs_id grant;
    bool attached;
};
void world_hold(struct world *w, const struct world_hold *h, struct world_held *ret);
/* The action that world_hold makes of a text. */
void world_action(struct world *w, const struct world_hold *h, struct cs_action *ret);
/* Waits (2 s) for news of this request at this session. */
const struct world_news *world_news(struct world *w, const struct cs_id *session,
                                    const char *request, enum cs_request_state state);
enum cs_err world_consume(struct world *w, unsigned g, const struct cs_id *session,
                          const struct world_held *held, const struct cs_id *grant);
/* Descriptor ≥ 0, or -1 with the error and sentence. */
int world_connect(struct world *w, unsigned g, const struct cs_id *session, const char *target,
                  enum cs_credential which, const struct cs_id *grant, uint64_t *ret_connection,
                  char *ret_user, char *text, enum cs_err *ret_err);
unsigned world_vote(struct world *w, const char *token, const char *verb, const char *request,
                    const char *digest, const char *reason);

#endif
