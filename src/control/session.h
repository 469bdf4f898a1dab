/* The table of live sessions in memory. The store has them too: this is what control knows beyond
 * the store (connections handed out, grants consumed), and what it needs at every message. */
#ifndef CS_CONTROL_SESSION_H
#define CS_CONTROL_SESSION_H

#include "action/chain.h"
#include "base/id.h"

enum { CS_SESSION_BUCKETS = 4096, CS_SESSION_CONNECTIONS = 8, CS_SESSION_GRANTS = 8 };

/* A connection handed to a gate, until its credential was proved (once). The credential is the one
 * that the connection was made for, whatever the configuration says by then. */
struct cs_ctl_connection {
    uint64_t number; /* 0 = free slot */
    bool elevated;
    struct cs_id grant;     /* of an elevated one: what keeper is told it was made for */
    uint64_t consumed_ns;   /* and when that was consumed */
    struct cs_slice secret; /* its name; owned, cs_alloc */
};

/* A grant consumed in this session. Only in memory: after a restart of control no elevated
 * connection is given for it any more (fail closed). */
struct cs_ctl_grant {
    struct cs_id id; /* zero = free slot */
    bool elevated;
    bool connected; /* a connection was made for it, or tried */
    uint64_t consumed_ns;
};

struct cs_ctl_session {
    struct cs_id id;
    uint64_t gate_key;
    bool killed;
    bool unnamed;          /* found in the store: its gate has not yet said that it lives */
    struct cs_arena arena; /* of the next line */
    struct cs_slice chain, target, address; /* chain: binary form, known to be valid */
    struct cs_ctl_connection connections[CS_SESSION_CONNECTIONS];
    struct cs_ctl_grant grants[CS_SESSION_GRANTS];
    struct cs_ctl_session *next; /* in the bucket */
};

struct cs_sessions {
    struct cs_ctl_session *bucket[CS_SESSION_BUCKETS]; /* owned */
    size_t n;
};

/* Copies everything; `chain` in its binary form. NULL when memory is out or the chain is none. */
struct cs_ctl_session *cs_sessions_add(struct cs_sessions *t, const struct cs_id *id,
                                       uint64_t gate_key, struct cs_slice chain,
                                       struct cs_slice target, struct cs_slice address);
struct cs_ctl_session *cs_sessions_get(const struct cs_sessions *t, const struct cs_id *id);
void cs_sessions_remove(struct cs_sessions *t, const struct cs_id *id);
void cs_sessions_remove_gate(struct cs_sessions *t, uint64_t gate_key);
void cs_sessions_done(struct cs_sessions *t);

/* What a handler needs of a session over a wait, copied: the session may be gone when it wakes. */
struct cs_ctl_who {
    struct cs_chain chain;
    struct cs_slice target, address;
};
bool cs_ctl_session_who(const struct cs_ctl_session *s, struct cs_arena *a, struct cs_ctl_who *ret);

/* Remembers a connection (copies); the oldest of too many is forgotten. False when memory is out.
 */
bool cs_ctl_connection_add(struct cs_ctl_session *s, const struct cs_ctl_connection *made);
/* Takes it out: the second time there is none. The secret's name goes to the caller (cs_free). */
bool cs_ctl_connection_take(struct cs_ctl_session *s, uint64_t number,
                            struct cs_ctl_connection *ret);

/* False when too many are unfinished. */
bool cs_ctl_grant_add(struct cs_ctl_session *s, const struct cs_id *id, bool elevated);
/* SECURITY: true once per grant, and only for an elevated one consumed in this very session. */
bool cs_ctl_grant_use(struct cs_ctl_session *s, const struct cs_id *id);
/* When it was consumed (monotonic); 0: not known here. */
uint64_t cs_ctl_grant_consumed(struct cs_ctl_session *s, const struct cs_id *id);
void cs_ctl_grant_end(struct cs_ctl_session *s, const struct cs_id *id);

#endif
