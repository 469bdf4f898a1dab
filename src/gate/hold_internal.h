/* One wait for people, as hold.c (the waiting) and ask.c (what is asked of control and what it
 * says) share it. */
#ifndef CS_GATE_HOLD_INTERNAL_H
#define CS_GATE_HOLD_INTERNAL_H

#include "base/limits.h"
#include "gate/gate.h"
#include "gate/protocol.h"

enum { CS_HOLD_EARLY = 4 };

struct cs_hold_news { /* how a request stands */
    char request[CS_REQUEST_ID_TEXT];
    enum cs_request_state state; /* NONE: no news */
    uint64_t expires_ms;
    struct cs_id grant; /* zero: not for this session */
    char by[128];
    char words[CS_LIMIT_REASON_BYTES + 1];
};

struct cs_hold {             /* on the heap, because a coroutine's stack is small */
    struct cs_hold_news now; /* now.request: "" until control has named it */
    uint8_t digest[CS_DIGEST];
    bool attached;
    char url[256];
    struct cs_event changed;
    uint64_t begun_ns, budget_ns, next_notice_ns;
    bool noticed;
    uint64_t control_generation; /* of the control that knows of this wait */
    bool left;                   /* it no longer waits, whether control heard it or not */
    struct cs_id tried;          /* the grant that was tried to consume, answered or not */
    bool asking;                 /* a HOLD is on its way: its answer may be read with later news */
    struct cs_hold_news *early; /* owned, while asking: CS_HOLD_EARLY news that were read meanwhile,
                                   the latest last */
    size_t n_early;
};

void cs_hold_copy(char *out, size_t n, struct cs_slice s);
/* Stores the request with control, or attaches to the one that asks the same. Once it has a
 * request, only that one: who was denied must not ask again by accident. */
enum cs_err cs_hold_ask(struct cs_session *s, const struct cs_action *a, const struct cs_verdict *v,
                        struct cs_hold *h) CS_MUST_CHECK;
/* UNAVAILABLE: control is gone, before or after it consumed the grant. */
enum cs_err cs_hold_consume(struct cs_session *s, struct cs_hold *h) CS_MUST_CHECK;

#endif
