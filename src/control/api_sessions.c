/* API calls about sessions: listing, ending, and reading a recording. Control never reads a
 * recording itself: the supervisor starts a replayer for one session, and its sealed output is
 * handed on. */
#include "control/api.h"

#include "audit/boxes.h"
#include "base/log.h"
#include "base/time.h"
#include "crypto/wrapped.h"

#include <stdio.h>

#define REPLAY_CALL_NS (60 * CS_NS_PER_S)

enum {
    SESSIONS_MAX = 10000,
    SESSIONS_USUAL = 100,
    REPLAY_FROM_MAX_S = 1000000000,
    REPLAY_FIND_MAX = 128
};

static json_t *chain_json(struct cs_slice bytes, struct cs_arena *a)
{
    struct cs_chain chain;
    struct cs_reader r = cs_reader(bytes);
    json_t *all = json_array();
    if (!cs_chain_decode(&r, a, &chain)) {
        return all; /* a damaged row is shown without people, not hidden */
    }
    for (size_t i = 0; i < chain.n; i++) {
        json_t *o = json_object();
        bool ok = cs_json_put(o, "kind", json_string(cs_principal_kind_name(chain.p[i].kind))) &&
                  cs_json_put(o, "id", cs_json_text(chain.p[i].id, a)) &&
                  cs_json_put(o, "name", cs_json_text(chain.p[i].name, a));
        if (json_array_append_new(all, o) != 0 || !ok) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

static json_t *session_json(const struct cs_store_session *s, struct cs_arena *a)
{
    char id[CS_ID_TEXT];
    json_t *o = json_object();
    bool ok = cs_json_put(o, "id", json_string(cs_id_text(&s->id, id))) &&
              cs_json_put(o, "chain", chain_json(s->chain, a)) &&
              cs_json_put(o, "target", cs_json_text(s->target, a)) &&
              cs_json_put(o, "database", cs_json_text(s->database, a)) &&
              cs_json_put(o, "application", cs_json_text(s->application, a)) &&
              cs_json_put(o, "address", cs_json_text(s->address, a)) &&
              cs_json_put(o, "gate", json_integer((json_int_t)(s->gate & 0xffff))) &&
              cs_json_put(o, "state", json_string(s->closed_ms == 0 ? "live" : "ended")) &&
              cs_json_put(o, "opened", cs_json_time(s->opened_ms)) &&
              cs_json_put(o, "closed", cs_json_time(s->closed_ms)) &&
              cs_json_put(o, "why", cs_json_text(s->why, a));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

enum cs_err cs_api_session_list(struct cs_api_call *call)
{
    uint64_t all = 0;
    struct cs_store_session_query q = {0};
    if (!cs_api_number(call, 0, 0, 1, &all) ||
        !cs_api_number(call, 1, SESSIONS_USUAL, SESSIONS_MAX, &q.limit)) {
        return CS_ERR_INVALID;
    }
    q.closed_too = all == 1;
    /* SECURITY: an empty principal means everybody: only for those who may see everybody. */
    if (!call->caller.may_audit) {
        if (call->caller.who == NULL || call->caller.who->id.n == 0) {
            return CS_ERR_DENIED;
        }
        q.principal = call->caller.who->id;
    }
    struct cs_store_session *list = NULL;
    size_t n = 0;
    enum cs_err e = cs_store_session_list(call->c->store, &q, &call->arena, &list, &n);
    if (e != CS_OK) {
        return e;
    }
    json_t *root = json_object(), *out = json_array();
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) {
        ok = json_array_append_new(out, session_json(&list[i], &call->arena)) == 0;
    }
    ok = cs_json_put(root, "sessions", out) && ok;
    return cs_api_reply(call, 200, root, ok);
}

static enum cs_err session_row(struct cs_api_call *call, struct cs_store_session *ret)
{
    struct cs_id id;
    enum cs_err e = CS_ERR_NOT_FOUND;
    if (cs_id_parse(call->name, &id)) {
        e = cs_store_session_get(call->c->store, &id, &call->arena, ret);
    }
    return e == CS_ERR_NOT_FOUND ? cs_api_fail(call, e, "there is no such session") : e;
}

enum cs_err cs_api_session_kill(struct cs_api_call *call)
{
    struct cs_store_session row;
    enum cs_err e = session_row(call, &row);
    if (e != CS_OK) {
        return e;
    }
    if (row.closed_ms != 0) {
        return cs_api_fail(call, CS_ERR_CONFLICT, "the session has ended already");
    }
    struct cs_slice by = cs_api_caller_text(call), reason = call->body[0].string;
    struct cs_slice why = cs_arena_printf(&call->arena, "ended by %.*s%s%.*s", CS_SLICE_FMT(by),
                                          reason.n > 0 ? ": " : "", CS_SLICE_FMT(reason));
    if (why.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    e = cs_gate_kill(call->c, &row.id, row.gate, why);
    if (e != CS_OK) {
        return e;
    }
    cs_log(CS_EV_ADMIN, &row.id, "by=%s did=session-kill", cs_log_quote(by).text);
    json_t *root = json_object();
    return cs_api_reply(call, 200, root,
                        cs_json_put(root, "id", cs_json_text(call->name, &call->arena)));
}

/* The replayer's first answer is a question: which of its keys keeper opens for it. The second one
 * is the recording. *ret_done is the last call, to be ended by the caller in every case. */
static enum cs_err replay(struct cs_control *c, const struct cs_msg_replay *ask,
                          struct cs_call *ret_done)
{
    uint64_t deadline = cs_mono_ns() + REPLAY_CALL_NS;
    struct cs_buf opened =
        cs_buf(CS_MAX((size_t)CS_OPENED_ROW * CS_WRAPPED_MAX, (size_t)CS_BOXES_MAX));
    enum cs_err e = cs_channel_call(c->supervisor, CS_MSG_REPLAY, ask, NULL, 0, deadline, ret_done);
    if (e == CS_OK && ret_done->type == CS_MSG_REPLAY_ASKS) {
        const struct cs_msg_replay_asks *m = (const void *)ret_done->msg.raw;
        struct cs_msg_replay_go go = {.job = m->job};
        go.err =
            (uint64_t)(cs_id_is_zero(&ask->session)
                           ? cs_recording_open_log(c, m->reader, m->rows, &opened)
                           : cs_recording_unwrap(c, &ask->session, m->reader, m->rows, &opened));
        go.rows = cs_buf_slice(&opened);
        cs_call_done(ret_done);
        *ret_done = (struct cs_call){.fd = {-1, -1, -1}};
        e = c->supervisor != NULL
                ? cs_channel_call(c->supervisor, CS_MSG_REPLAY_GO, &go, NULL, 0, deadline, ret_done)
                : CS_ERR_UNAVAILABLE;
    }
    cs_buf_done(&opened);
    return e == CS_OK && ret_done->type != CS_MSG_REPLAYED ? CS_ERR_PROTOCOL : e;
}

enum cs_err cs_api_read(struct cs_api_call *call, const struct cs_msg_replay *ask)
{
    struct cs_call done = {.fd = {-1, -1, -1}};
    enum cs_err e = replay(call->c, ask, &done);
    if (e == CS_OK) {
        const struct cs_msg_replayed *m = (const void *)done.msg.raw;
        if (m->err != CS_OK) {
            e = m->err < CS_ERR_MAX ? (enum cs_err)m->err : CS_ERR_INTERNAL;
            call->long_why = cs_arena_dup(&call->arena, m->text);
        } else {
            struct cs_slice map; /* sealed, or front could be shown one thing and send another */
            e = cs_sealed_map(done.fd[0], CS_LIMIT_IPC_BLOB_BYTES, &map);
            if (e == CS_OK) {
                cs_sealed_unmap(map);
                call->reply_fd = done.fd[0];
                done.fd[0] = -1;
            }
        }
    }
    cs_call_done(&done);
    return e;
}

static enum cs_err say_replay(struct cs_api_call *call, const struct cs_id *session)
{
    struct cs_msg_audit m = cs_audit_event(CS_LEAF_REPLAY);
    m.session = *session;
    m.who = cs_api_caller_text(call);
    m.has = (UINT64_C(1) << CS_KEY_SESSION) | (UINT64_C(1) << CS_KEY_WHO);
    enum cs_err e = cs_audit_say(call->c, &m);
    return e == CS_OK ? e
                      : cs_api_fail(call, e,
                                    "no recording is opened while the audit log cannot be written");
}

enum cs_err cs_api_session_recording(struct cs_api_call *call)
{
    struct cs_store_session row;
    uint64_t from_s = 0, actions = 0;
    enum cs_err e = session_row(call, &row);
    if (e != CS_OK) {
        return e;
    }
    if (!cs_api_number(call, 0, 0, REPLAY_FROM_MAX_S, &from_s) ||
        !cs_api_number(call, 2, 0, 1, &actions)) {
        return CS_ERR_INVALID;
    }
    if (call->c->supervisor == NULL) {
        return CS_ERR_UNAVAILABLE;
    }
    /* SECURITY: who looked is in the audit log, durable, before anything is opened. */
    e = say_replay(call, &row.id);
    if (e != CS_OK) {
        return e;
    }
    cs_log(CS_EV_ADMIN, &row.id, "by=%s did=replay", cs_log_quote(cs_api_caller_text(call)).text);
    struct cs_msg_replay ask = {.session = row.id,
                                .from_ms = from_s * 1000,
                                .actions = actions,
                                .find = cs_slice_head(call->query[1], REPLAY_FIND_MAX)};
    e = cs_api_read(call, &ask);
    if (e == CS_ERR_NOT_FOUND) {
        /* The session exists (session_row), its first frames are on their way to the disk. */
        json_t *root = json_object();
        bool ok = cs_json_put(root, "session", cs_json_text(call->name, &call->arena)) &&
                  cs_json_put(root, "frames", json_array());
        return cs_api_reply(call, 200, root, ok);
    }
    return e;
}
