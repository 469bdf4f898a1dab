/* A cancel request for a session of this gate. The session's own coroutine acts on it: a held
 * action is withdrawn, a running one is cancelled at the target with the target's real key. */
#include "proto/postgres/postgres_internal.h"

void pg_cancel(struct cs_gate *g, struct cs_slice key, struct cs_slice from)
{
    struct cs_session *s = cs_gate_cancel_find(g, key, from);
    if (s != NULL) {
        cs_event_set(&s->cancel);
    }
}
