/* Every use of a secret is in keeper's log. Whoever asks for a thousand a second must neither hide
 * one among them nor fill the disk: beyond so many lines a second the rest is counted, and the
 * counts are told. What was done and what was refused are counted apart, so that refusals cannot
 * crowd out the log of uses. */
#include "base/log.h"
#include "base/time.h"
#include "vault/keeper_internal.h"

enum { LINES = CS_LIMIT_KEEPER_LOG_LINES };

void cs_uses_tell(struct cs_uses *u)
{
    if (u->more[CS_USE_DONE] == 0 && u->more[CS_USE_REFUSED] == 0) {
        return;
    }
    cs_log(u->more[CS_USE_REFUSED] > 0 ? CS_EV_SECRET_REFUSED : CS_EV_SECRET_USED, NULL,
           "for=many used=%llu refused=%llu why=\"more within a second than have a line each\"",
           (unsigned long long)u->more[CS_USE_DONE], (unsigned long long)u->more[CS_USE_REFUSED]);
    u->more[CS_USE_DONE] = u->more[CS_USE_REFUSED] = 0;
}

bool cs_use_may_log(struct cs_uses *u, enum cs_use kind, bool must)
{
    uint64_t now = cs_mono_ns();
    if (now - u->window_ns >= CS_NS_PER_S) {
        cs_uses_tell(u);
        u->window_ns = now;
        u->lines[CS_USE_DONE] = u->lines[CS_USE_REFUSED] = 0;
    }
    if (must || u->lines[kind] < LINES) {
        u->lines[kind]++;
        return true;
    }
    u->more[kind]++;
    cs_event_set(&u->pending);
    return false;
}

void cs_uses_run(void *arg)
{
    struct cs_uses *u = arg;
    for (;;) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &u->pending);
        if (cs_wait(&w, 1, CS_FOREVER) != CS_WOKE_READY || !cs_co_sleep(CS_NS_PER_S)) {
            return; /* the end of the role tells the rest */
        }
        cs_event_clear(&u->pending);
        cs_uses_tell(u);
    }
}
