/* The whole gate role in the test's process, with a protocol that does what the test says: the test
 * plays supervisor, control (as many as come one after the other) and recorder at the other ends of
 * real channels and a real ring. A script is straight-line code beside the sessions' coroutines:
 * it gives a session something to do, reads what control is told, answers as it likes. */
#ifndef CS_TEST_WORLD_H
#define CS_TEST_WORLD_H

#include "action/frame.h"
#include "gate/gate.h"
#include "gate/protocol.h"
#include "tap.h"

enum { WORLD_MESSAGES = 2048, WORLD_FRAMES = 4096, WORLD_CLIENTS = 300, WORLD_RING = 4 << 20 };

struct world;

struct world_in { /* a message that control received */
    enum cs_msg_type type;
    uint32_t corr;
    unsigned control; /* which control, counted from 1 */
    uint8_t *bytes;   /* owned */
    union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        uint64_t align;
    } msg;
    int fd;
    bool taken;
};

struct world_client { /* a client, and its session at the gate */
    struct world *w;
    int fd;                             /* the client's end, -1 once it has hung up */
    struct cs_session *s;               /* NULL once it has ended */
    void (*fn)(struct world_client *c); /* to be done in the session's coroutine */
    struct cs_event go, done;
    struct cs_verdict v;
    struct cs_action action;
    enum cs_err err;
    struct cs_auth auth;
    struct cs_upstream up;
    char why[200];
    const char *target, *sql;
    bool in_transaction, elevated;
    struct cs_id id, grant;
    char request[CS_REQUEST_ID_TEXT];
    uint8_t digest[CS_DIGEST];
    unsigned notices;
};

struct world {
    struct cs_loop *loop;
    struct cs_gate *gate;
    struct cs_channel *supervisor, *control; /* our ends */
    unsigned controls;
    struct cs_ring ring; /* the reader's end */
    int listener;
    uint16_t port;
    uint64_t version, busy_poll_us; /* of the next snapshot */
    bool slow; /* … it has a rule that takes time, and denies what writes a long name */
    struct cs_event ready, news, recorder, accepted;
    struct world_in in[WORLD_MESSAGES];
    size_t n_in;
    bool deaf;                     /* control reads nothing */
    bool undurable;                /* the recorder reads and does not sync */
    bool unread;                   /* the recorder does not read */
    unsigned frames[WORLD_FRAMES]; /* kinds, in order */
    struct cs_id frame_session[WORLD_FRAMES];
    size_t n_frames;
    struct world_client clients[WORLD_CLIENTS];
    size_t n_clients, n_served;
    void (*script)(struct world *w);
    struct cs_arena arena;
};

/* Boots the gate, runs the script in a coroutine, stops the gate, checks that no memory is left. */
void world_run(void (*script)(struct world *w));

/* ---- supervisor ---- */
/* `hold` false: a configuration that allows what the first one holds. */
void world_snapshot(struct world *w, bool hold);
void world_control_dies(struct world *w);
void world_control_new(struct world *w);

/* ---- control ---- */
/* The next message of this type that was not taken, within 10 s. */
struct world_in *world_expect(struct world *w, enum cs_msg_type type);
size_t world_count(const struct world *w, enum cs_msg_type type);
void world_answer(struct world *w, const struct world_in *to, enum cs_msg_type type,
                  const void *msg);
void world_send(struct world *w, enum cs_msg_type type, const void *msg);
/* Expects HOLD of this client and fills an answer: PENDING, with the right digest. */
struct world_in *world_hold(struct world *w, struct world_client *c, const char *request,
                            struct cs_msg_held *ret);
/* The same, and answers. */
void world_held(struct world *w, struct world_client *c, const char *request);
void world_state(struct world *w, const struct world_client *c, enum cs_request_state state,
                 const struct cs_id *grant);
/* Expects CONSUME, checks request, grant and digest, answers `e`. */
void world_consume(struct world *w, const struct world_client *c, enum cs_err e);

/* ---- recorder ---- */
size_t world_frames(const struct world *w, enum cs_frame_kind kind);
/* Waits until there are n frames of this kind. */
void world_frame(struct world *w, enum cs_frame_kind kind, size_t n);
void world_health(struct world *w, enum cs_record_health h);

/* ---- sessions ---- */
/* Connects; the session waits for something to do. */
struct world_client *world_client(struct world *w);
/* Logged in, not opened. */
struct world_client *world_login(struct world *w);
/* Logged in and opened. */
struct world_client *world_session(struct world *w);
void world_do(struct world_client *c, void (*fn)(struct world_client *c));
void world_wait(struct world_client *c);
void world_hang_up(struct world_client *c);
/* Waits until the session has ended. */
void world_ended(struct world_client *c);
/* Until `ok` is true, at most 10 s: the condition of a test, never a measure of time. */
void world_until(struct world *w, bool (*ok)(struct world *w, void *arg), void *arg);

/* Things for a session to do. */
void do_auth_start(struct world_client *c);
void do_auth_finish(struct world_client *c);
void do_opened(struct world_client *c);
void do_connect(struct world_client *c);
void do_decide(struct world_client *c); /* c->sql: a SELECT reads, anything else changes */
void do_hold(struct world_client *c);   /* decide, and hold if so decided */
void do_result(struct world_client *c);

/* Starts a wait with do_hold and answers HOLD with this request's id. */
void world_wait_for(struct world *w, struct world_client *c, const char *request);

#endif
