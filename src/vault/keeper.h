/* The keeper role: the master key, and what may be done with the secrets under it, on control's
 * word alone. It has no store, no network and no parser but the one of its own messages. */
#ifndef CS_VAULT_KEEPER_H
#define CS_VAULT_KEEPER_H

#include "base/err.h"
#include "runtime/loop.h"

/* The whole life of the role; fd is the channel to the supervisor. Returns an exit status.
 *
 * From the supervisor: BOOT, a descriptor for each master key (MASTER_KEY), the table of which
 * secret is which target's (CREDENTIALS), then READY is answered; on reload keys and table again. A
 * PEER that is control, at any time, replaces the one before. What cannot be used ends the role at
 * its start; later the keys that it has stay. */
int cs_keeper_run(int supervisor_fd);

/* ---- for tests: the role inside somebody else's loop ---- */
struct cs_keeper;
enum cs_err cs_keeper_new(struct cs_loop *loop, int supervisor_fd,
                          struct cs_keeper **ret) CS_MUST_CHECK;
/* After the loop has ended, or when its channels' ends are gone. */
void cs_keeper_free(struct cs_keeper *k);

#endif
