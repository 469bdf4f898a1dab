/* A session: one client connection to one target, carried by one coroutine. */
#ifndef CS_GATE_SESSION_H
#define CS_GATE_SESSION_H

#include "action/chain.h"
#include "base/arena.h"
#include "base/id.h"
#include "runtime/sock.h"
#include "runtime/stream.h"

enum cs_session_state {
#define CS_STATE(id, name, text) CS_SESSION_##id,
#include "gate/session_state.def"
#undef CS_STATE
    CS_SESSION_STATES
};

struct cs_gate;
struct cs_gate_config;
struct cs_policy_session;
struct cs_protocol;
struct cs_target;
struct cs_hold;

enum { CS_SESSION_GRANTS_USED = 8 };

struct cs_session {
    struct cs_gate *gate;
    const struct cs_protocol *protocol;
    void *proto; /* the protocol's own state, state_size bytes, zeroed at start */
    cs_handle handle;
    cs_handle co;
    enum cs_session_state state;
    struct cs_session *prev, *next; /* in the gate's list of this state */

    struct cs_stream client;
    char address[CS_ADDR_TEXT];
    struct cs_addr_net net; /* the same, as limits per address count it */
    unsigned listener;      /* index in the gate */
    bool behind_proxy;      /* its address stands in a PROXY header that is still to be read */
    uint32_t cancel_secret;

    struct cs_id id; /* zero until authenticated */
    struct cs_arena arena;
    struct cs_chain *chain;      /* arena */
    struct cs_slice chain_bytes; /* arena: the same, encoded */
    const char *claimed;         /* the protocol's: the requester's reason, NULL for none */
    bool async;                  /* the client does not want to wait (countersign.mode=async) */
    struct cs_slice user;        /* arena: as the client gave it */
    struct cs_slice target_name; /* arena */

    struct cs_gate_config
        *config; /* reference: the snapshot that `target` and `policy` come from */
    const struct cs_target *target;
    struct cs_policy_session *policy;
    bool reads_params;          /* a rule of `policy` looks at sql.params */
    bool at_once;               /* the next judgement is made without a pause (decide.c) */
    uint64_t policy_generation; /* counts the views that `policy` has been */
    struct cs_arena policy_arena;

    uint64_t counted[2]; /* of the client's bytes, in and out (count.c) */
    uint64_t actions;
    bool defining; /* what runs may change definitions, and is not over (catalogue.c) */
    bool defined;  /* something like that ran in this session */
    uint64_t opened_ms;
    bool reported;             /* SESSION_OPENED was sent */
    bool recorded;             /* SESSION_OPEN is in the record */
    uint64_t asked_generation; /* of the control that the last call went to */
    bool in_exchange;          /* control keeps a part of what is under way (drain.c) */
    struct cs_event cancel;    /* the client asked to cancel what is running or held */
    struct cs_event kill;      /* the session must end: kill_why */
    char kill_why[120];
    const char *end_why;                         /* literal: why it ended */
    struct cs_hold *hold;                        /* the wait that it is in, if any */
    struct cs_id grants[CS_SESSION_GRANTS_USED]; /* consumed, result not reported; zero = free */
};

const char *cs_session_state_name(enum cs_session_state s);
/* Moves the session to the gate's present configuration; what was borrowed from the old one is
 * void. False: its target no longer exists. */
bool cs_session_refresh(struct cs_session *s);
/* The one place that changes a state: checks the transition, moves the list. */
void cs_session_set_state(struct cs_session *s, enum cs_session_state to);

#endif
