/* Calls: a request over a channel and the wait for its answer. */
#include "base/alloc.h"
#include "base/assert.h"
#include "ipc/channel_internal.h"

#include <unistd.h>

/* A number that no call waits under; after 2^32 calls an old one may still be waiting. */
static uint32_t fresh_corr(struct cs_channel *c)
{
    for (;;) {
        c->last_corr++;
        const struct cs_pending *p = c->pending;
        while (p != NULL && p->corr != c->last_corr) {
            p = p->next;
        }
        if (c->last_corr != 0 && p == NULL) {
            return c->last_corr;
        }
    }
}

static void link_pending(struct cs_channel *c, struct cs_pending *p)
{
    p->next = c->pending;
    p->at = &c->pending;
    if (p->next != NULL) {
        p->next->at = &p->next;
    }
    c->pending = p;
}

static void unlink_pending(struct cs_pending *p)
{
    if (p->at != NULL) {
        *p->at = p->next;
        if (p->next != NULL) {
            p->next->at = p->at;
        }
        p->at = NULL;
    }
}

enum cs_err cs_channel_call(struct cs_channel *c, enum cs_msg_type t, const void *msg,
                            const int *fds, size_t n_fds, uint64_t deadline_ns, struct cs_call *ret)
{
    *ret = (struct cs_call){.fd = {-1, -1, -1}};
    /* The reading coroutine would wait for an answer that only it can read. */
    cs_assert(cs_co_self() != c->reader);
    /* A cancelled coroutine must not ask for something (a connection, the use of a grant) whose
     * answer it will not take. */
    if (cs_wait(NULL, 0, 0) == CS_WOKE_CANCELLED) {
        return CS_ERR_CANCELLED;
    }
    struct cs_pending p = {.corr = fresh_corr(c), .call = ret};
    enum cs_err err = cs_channel_send_as(c, t, p.corr, false, msg, fds, n_fds);
    if (err != CS_OK) {
        return err;
    }
    ret->corr = p.corr;
    link_pending(c, &p);
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &p.done);
    enum cs_woke woke = cs_wait(&w, 1, deadline_ns);
    unlink_pending(&p);
    if (p.done.set) {
        return p.err; /* it came, even if a cancellation came too: nothing is lost */
    }
    return woke == CS_WOKE_DEADLINE ? CS_ERR_TIMEOUT : CS_ERR_CANCELLED;
}

void cs_call_done(struct cs_call *call)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(call->fd); i++) {
        if (call->fd[i] >= 0) {
            (void)close(call->fd[i]);
        }
        call->fd[i] = -1;
    }
    cs_free(call->bytes);
    call->bytes = NULL;
}
