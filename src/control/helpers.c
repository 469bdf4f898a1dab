/* Calls to keeper and dialer. Called by connect.c, api_system.c and role.c's start. While such a
 * role is away (the supervisor starts another one at once) a call fails; it never waits for one to
 * come, and nothing is done here instead of there. */
#include "control/control.h"

#include "base/time.h"

#include <stdio.h>

struct cs_peer *cs_helper_peer(struct cs_control *c, enum cs_role role)
{
    struct cs_peer *p = c->peers; /* the newest first */
    while (p != NULL && !(p->role == role && p->channel != NULL)) {
        p = p->next;
    }
    return p;
}

enum cs_err cs_helper_call(struct cs_control *c, enum cs_role role, enum cs_msg_type t,
                           const void *msg, uint64_t deadline_ns, struct cs_call *ret)
{
    struct cs_peer *p = cs_helper_peer(c, role);
    *ret = (struct cs_call){.fd = {-1, -1, -1}};
    return p != NULL ? cs_channel_call(p->channel, t, msg, NULL, 0, deadline_ns, ret)
                     : CS_ERR_UNAVAILABLE;
}

enum cs_err cs_helper_call_fd(struct cs_control *c, enum cs_role role, enum cs_msg_type t,
                              const void *msg, int fd, uint64_t deadline_ns, struct cs_call *ret)
{
    struct cs_peer *p = cs_helper_peer(c, role);
    *ret = (struct cs_call){.fd = {-1, -1, -1}};
    return p != NULL ? cs_channel_call(p->channel, t, msg, &fd, 1, deadline_ns, ret)
                     : CS_ERR_UNAVAILABLE;
}

enum cs_err cs_helper_seal_key(struct cs_control *c, uint64_t deadline_ns,
                               uint8_t ret[static CS_X25519], char *why, size_t why_size)
{
    struct cs_msg_seal_key m = {.end_ = 0};
    struct cs_call call;
    enum cs_err e = cs_helper_call(c, CS_ROLE_KEEPER, CS_MSG_SEAL_KEY, &m, deadline_ns, &call);
    if (e == CS_OK) {
        const struct cs_msg_seal_key_is *r = (const void *)call.msg.raw;
        if (call.type != CS_MSG_SEAL_KEY_IS || r->err >= CS_ERR_MAX ||
            (r->err == CS_OK && r->key.n != CS_X25519)) {
            e = CS_ERR_PROTOCOL;
        } else if (r->err != CS_OK) {
            e = (enum cs_err)r->err;
            (void)snprintf(why, why_size, "%s", "the keeper has no master key");
        } else {
            memcpy(ret, r->key.p, CS_X25519);
        }
    }
    cs_call_done(&call);
    return e;
}
