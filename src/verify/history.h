/* What a log says of sessions, requests and grants, collected leaf by leaf, and whether it can have
 * been so: a vote before what it permits, one digest from question to execution, a grant once. Its
 * memory grows with the number of sessions and held actions in the log, not with their length. */
#ifndef CS_VERIFY_HISTORY_H
#define CS_VERIFY_HISTORY_H

#include "audit/leaf.h"
#include "verify/map.h"
#include "verify/report.h"

/* A value of a recording's chain that a leaf holds. */
struct cs_anchor {
    struct cs_anchor *next; /* with as many frames or more */
    uint64_t frames, leaf, time_ms;
    uint8_t chain[CS_SHA256];
    bool last; /* the END frame is that one */
};
struct cs_known_session {
    struct cs_map_node node;
    struct cs_id id;
    struct cs_anchor *first, *end; /* of its recording, in order */
    uint64_t leaf, time_ms;        /* the first leaf that needs its recording */
    bool recorded;                 /* there is such a leaf */
    bool closed;
    bool seen; /* for the caller: its file was there */
};

struct cs_history {
    struct cs_report *report; /* borrowed: gets what cannot have been so */
    struct cs_arena arena;    /* owned */
    struct cs_map sessions, requests, actions, grants, events;
    uint64_t first_ms, last_ms; /* times of the first and the last leaf */
    uint64_t leaves;
    bool failed; /* no memory: nothing is known */
};
void cs_history_init(struct cs_history *h, struct cs_report *report);
void cs_history_done(struct cs_history *h);
/* The next leaf, in order; `index` is its number. */
void cs_history_add(struct cs_history *h, uint64_t index, const struct cs_leaf *leaf);
/* NULL: no leaf names it. */
struct cs_known_session *cs_history_session(const struct cs_history *h, const struct cs_id *id);
/* Calls fn for each session, in no order. */
void cs_history_each(const struct cs_history *h, void (*fn)(void *arg, struct cs_known_session *s),
                     void *arg);

#endif
