/* Calls from connections to control: many at a time over one channel, each with a number of its
 * own, so that control can be told when the caller of a long poll has left. Called by conn.c and by
 * the channel's reader. Must never let an answer reach another connection than the one that asked.
 */
#include "front/internal.h"

#include "base/alloc.h"

#include <unistd.h>

static struct cs_front_call **find(struct cs_front *f, uint32_t corr)
{
    struct cs_front_call **at = &f->calls;
    while (*at != NULL && (*at)->corr != corr) {
        at = &(*at)->next;
    }
    return at;
}

static void finish(struct cs_front *f, struct cs_front_call **at, enum cs_err err)
{
    struct cs_front_call *call = *at;
    *at = call->next;
    call->corr = 0;
    call->err = err;
    cs_event_set(&call->done);
    (void)f;
}

/* Keeps a copy: the message lives only until the handler returns. */
static enum cs_err keep(struct cs_front_call *call, uint64_t status, struct cs_slice type,
                        struct cs_slice body)
{
    call->bytes = cs_alloc(type.n + body.n + 1);
    if (call->bytes == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    if (type.n > 0) {
        memcpy(call->bytes, type.p, type.n);
    }
    if (body.n > 0) {
        memcpy(call->bytes + type.n, body.p, body.n);
    }
    call->type = cs_slice(call->bytes, type.n);
    call->body = cs_slice(call->bytes + type.n, body.n);
    /* Control's own table has these; anything else would be our bug, not the caller's. */
    call->status = status >= 200 && status <= 599 ? (unsigned)status : 500;
    return CS_OK;
}

static void on_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct cs_front *f = arg;
    (void)c;
    struct cs_front_call **at = in->corr != 0 ? find(f, in->corr) : NULL;
    if (at == NULL || *at == NULL) { /* the caller has left */
        for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
            if (in->fd[i] >= 0) {
                (void)close(in->fd[i]);
            }
        }
        return;
    }
    enum cs_err err = CS_ERR_PROTOCOL;
    if (in->type == CS_MSG_API_REPLY) {
        const struct cs_msg_api_reply *m = in->msg;
        err = keep(*at, m->status, m->type, m->body);
    } else if (in->type == CS_MSG_API_REPLY_LARGE) {
        const struct cs_msg_api_reply_large *m = in->msg;
        (*at)->fd = in->fd[0];
        err = keep(*at, m->status, m->type, CS_SLICE_NULL);
    }
    finish(f, at, err);
}

static void fail_all(struct cs_front *f)
{
    while (f->calls != NULL) {
        finish(f, &f->calls, CS_ERR_UNAVAILABLE);
    }
}

static void on_gone(struct cs_channel *c, void *arg)
{
    struct cs_front *f = arg;
    if (f->control == c) {
        f->control = NULL;
        fail_all(f);
    }
    cs_channel_close(c);
}

enum cs_err cs_front_set_control(struct cs_front *f, int fd, uint64_t index)
{
    struct cs_channel *c;
    enum cs_err err = cs_channel_open(f->loop, fd, CS_ROLE_FRONT, CS_ROLE_CONTROL, index,
                                      on_message, on_gone, f, &c);
    if (err != CS_OK) {
        return err;
    }
    cs_channel_run_phase(c);
    struct cs_channel *old = f->control;
    f->control = c;
    if (old != NULL) {
        fail_all(f);
        cs_channel_close(old);
    }
    return CS_OK;
}

bool cs_front_has_control(const struct cs_front *f)
{
    return f->control != NULL && cs_channel_alive(f->control);
}

enum cs_err cs_front_call_start(struct cs_front *f, struct cs_front_call *call,
                                const struct cs_msg_api *msg)
{
    if (!cs_front_has_control(f)) {
        return CS_ERR_UNAVAILABLE;
    }
    do {
        f->next_corr++;
    } while (f->next_corr == 0 || *find(f, f->next_corr) != NULL);
    *call = (struct cs_front_call){.fd = -1, .corr = f->next_corr, .next = f->calls};
    enum cs_err err = cs_channel_send(f->control, CS_MSG_API, call->corr, msg, NULL, 0);
    if (err != CS_OK) {
        call->corr = 0;
        return err;
    }
    f->calls = call;
    return CS_OK;
}

void cs_front_call_end(struct cs_front *f, struct cs_front_call *call)
{
    if (call->corr != 0) {
        struct cs_front_call **at = find(f, call->corr);
        if (cs_front_has_control(f)) {
            struct cs_msg_api_gone gone = {.call = call->corr};
            /* When it cannot be sent, control finds out at the end of its own wait. */
            enum cs_err err = cs_channel_send(f->control, CS_MSG_API_GONE, 0, &gone, NULL, 0);
            (void)err;
        }
        if (*at != NULL) {
            *at = call->next;
        }
    }
    if (call->fd >= 0) {
        (void)close(call->fd);
    }
    cs_free(call->bytes);
    *call = (struct cs_front_call){.fd = -1};
}
