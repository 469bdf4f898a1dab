/* Calls from connections to control. Each runs in a coroutine of its own, so that a connection can
 * wait for the answer and for its client to leave at the same time; a call that nobody wants any
 * more is cancelled, control is told, and the call frees itself. Called by conn.c. Must never let
 * an answer reach another connection than the one that asked. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/secret.h"
#include "front/internal.h"

static void on_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c;
    (void)arg;
    cs_channel_in_close(in); /* an answer's message that answers nothing */
}

static void on_gone(struct cs_channel *c, void *arg)
{
    struct cs_front *f = arg;
    const char *why = cs_channel_broken_why(c);
    if (why != NULL) {
        cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control why=\"%s\"", why);
    }
    if (f->control == c) {
        f->control = NULL;
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
        cs_channel_close(old);
    }
    return CS_OK;
}

bool cs_front_has_control(const struct cs_front *f)
{
    return f->control != NULL && cs_channel_alive(f->control);
}

static void free_call(struct cs_front_call *call)
{
    cs_call_done(&call->call);
    /* The body may have carried a secret on its way to be sealed. */
    cs_wipe(call->bytes, call->n_bytes);
    cs_free(call->bytes);
    cs_free(call);
}

static enum cs_err take_answer(struct cs_front_call *call)
{
    uint64_t status;
    call->fd = -1;
    if (call->call.type == CS_MSG_API_REPLY) {
        const struct cs_msg_api_reply *m = (const void *)call->call.msg.raw;
        status = m->status;
        call->type = m->type;
        call->body = m->body;
    } else if (call->call.type == CS_MSG_API_REPLY_LARGE) {
        const struct cs_msg_api_reply_large *m = (const void *)call->call.msg.raw;
        status = m->status;
        call->type = m->type;
        call->fd = call->call.fd[0];
    } else {
        return CS_ERR_PROTOCOL;
    }
    /* Control's own table has these; anything else would be our bug, not the caller's. */
    call->status = status >= 200 && status <= 599 ? (unsigned)status : 500;
    return CS_OK;
}

static void call_main(void *arg)
{
    struct cs_front_call *call = arg;
    struct cs_front *f = call->front;
    struct cs_channel *control = f->control;
    call->err = CS_ERR_UNAVAILABLE;
    if (cs_front_has_control(f)) {
        call->err =
            cs_channel_call(control, CS_MSG_API, &call->msg, NULL, 0, call->deadline, &call->call);
    }
    bool unanswered = call->err == CS_ERR_TIMEOUT || call->err == CS_ERR_CANCELLED;
    if (unanswered && call->call.corr != 0 && control == f->control && cs_front_has_control(f)) {
        struct cs_msg_api_gone gone = {.call = call->call.corr};
        /* When it cannot be sent, control finds out at the end of its own wait. */
        enum cs_err err = cs_channel_send(control, CS_MSG_API_GONE, 0, &gone, NULL, 0);
        (void)err;
    }
    if (call->abandoned) {
        free_call(call);
        return;
    }
    if (call->err == CS_OK) {
        call->err = take_answer(call);
    }
    cs_event_set(&call->done);
}

/* The message outlives the buffer that it was read into: a long poll must not keep one. */
static bool copy_message(struct cs_front_call *call, const struct cs_msg_api *msg)
{
    const struct cs_slice from[] = {msg->method,       msg->path,    msg->query,
                                    msg->token_sha256, msg->address, msg->body};
    struct cs_slice *const to[] = {&call->msg.method,       &call->msg.path,    &call->msg.query,
                                   &call->msg.token_sha256, &call->msg.address, &call->msg.body};
    for (size_t i = 0; i < CS_ARRAY_LEN(from); i++) {
        call->n_bytes += from[i].n; /* each is a part of one buffer */
    }
    call->bytes = cs_alloc(call->n_bytes + 1);
    if (call->bytes == NULL) {
        return false;
    }
    uint8_t *at = call->bytes;
    call->msg = *msg;
    for (size_t i = 0; i < CS_ARRAY_LEN(from); i++) {
        if (from[i].n > 0) {
            memcpy(at, from[i].p, from[i].n);
        }
        *to[i] = cs_slice(at, from[i].n);
        at += from[i].n;
    }
    return true;
}

enum cs_err cs_front_call_start(struct cs_front *f, const struct cs_msg_api *msg,
                                uint64_t deadline_ns, struct cs_front_call **ret)
{
    struct cs_front_call *call = cs_alloc(sizeof *call);
    if (call == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *call = (struct cs_front_call){.front = f, .deadline = deadline_ns, .fd = -1};
    call->call = (struct cs_call){.fd = {-1, -1, -1}};
    enum cs_err err = CS_ERR_NO_MEMORY;
    if (copy_message(call, msg)) {
        err = cs_co_spawn(f->loop, "front-call", call_main, call, &call->co);
    }
    if (err != CS_OK) {
        free_call(call);
        return err;
    }
    *ret = call;
    return CS_OK;
}

void cs_front_call_end(struct cs_front_call *call)
{
    if (call == NULL) {
        return;
    }
    if (call->done.set) {
        free_call(call);
        return;
    }
    call->abandoned = true; /* from here on it belongs to its own coroutine */
    cs_co_cancel(call->front->loop, call->co);
}
