/* The dialer role: the only one that makes connections to targets. It resolves and connects, hands
 * the descriptor to control, and never reads a byte of what comes back.
 *
 * SECURITY: it dials addresses of its own snapshot only, whatever control asks for; a name never
 * leads it to link-local or cloud metadata addresses. */
#ifndef CS_DIALER_DIALER_H
#define CS_DIALER_DIALER_H

#include "base/err.h"
#include "base/slice.h"
#include "runtime/loop.h"

#include <sys/socket.h>

/* The whole life of the role; fd is the channel to the supervisor. Returns an exit status. From the
 * supervisor: BOOT, SNAPSHOT (then READY is answered; later ones replace it), and a PEER that is
 * control, which replaces the one before. */
int cs_dialer_run(int supervisor_fd);

/* ---- for tests: the role inside somebody else's loop ---- */
struct cs_dialer;
enum cs_err cs_dialer_new(struct cs_loop *loop, int supervisor_fd,
                          struct cs_dialer **ret) CS_MUST_CHECK;
/* After the loop has ended. */
void cs_dialer_free(struct cs_dialer *d);

/* ---- inside the folder ---- */
/* Pure: link-local (169.254.0.0/16, fe80::/10) and cloud metadata (fd00:ec2::254) addresses, also
 * as IPv4 inside IPv6. Whoever may name a host there could have the gateway fetch credentials of
 * its own machine. */
bool cs_dial_forbidden(const struct sockaddr *sa);

#endif
