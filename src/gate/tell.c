/* What control must hear of sessions, whichever control it is: one may die with messages unread,
 * and for a while there may be none. Results and withdrawals are kept and sent again; everything
 * else follows from saying to a new control which sessions go on, and what each of them waits for
 * and uses: what it does not name has ended.
 *
 * Called by the session, by holds and by role.c. Never waits, but in its own coroutine. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/writer.h"
#include "gate/gate.h"
#include "gate/protocol.h"

#include <stdio.h>

#define TELL_PAUSE_NS (2 * CS_NS_PER_MS)

/* ---- reports ---- */

static enum cs_err report_send(struct cs_gate *g, const struct cs_report *r)
{
    if (g->control == NULL) {
        return CS_ERR_UNAVAILABLE;
    }
    if (r->type == CS_MSG_EXECUTED) {
        struct cs_msg_executed m = {.session = r->session,
                                    .grant = r->grant,
                                    .outcome = r->how,
                                    .text = cs_slice_str(r->text)};
        return cs_channel_send(g->control, CS_MSG_EXECUTED, 0, &m, NULL, 0);
    }
    struct cs_msg_hold_leave m = {
        .session = r->session, .request = cs_slice_str(r->request), .how = r->how};
    return cs_channel_send(g->control, CS_MSG_HOLD_LEAVE, 0, &m, NULL, 0);
}

/* Kept also when it was sent: control may die before it reads it. To hear it twice changes nothing:
 * a grant is finished once, a request ended once. */
static void report(struct cs_gate *g, const struct cs_report *r)
{
    g->reports[g->next_report++ % CS_GATE_REPORTS] = *r;
    if (g->control != NULL && report_send(g, r) != CS_OK) {
        cs_log(CS_EV_INTERNAL, &r->session, "message=%s lost until control is another one",
               cs_msg_name(r->type));
    }
}

void cs_gate_executed(struct cs_session *s, const struct cs_id *grant, enum cs_ran ran,
                      struct cs_slice text)
{
    static const enum cs_executed outcome[] = {[CS_RAN_UNKNOWN] = CS_EXECUTED_UNKNOWN,
                                               [CS_RAN_NOT] = CS_EXECUTED_NOT_RUN,
                                               [CS_RAN_FAILED] = CS_EXECUTED_FAILED,
                                               [CS_RAN_OK] = CS_EXECUTED_DONE};
    struct cs_report r = {
        .type = CS_MSG_EXECUTED, .session = s->id, .grant = *grant, .how = (uint64_t)outcome[ran]};
    size_t n = CS_MIN(text.n, sizeof r.text - 1);
    while (n > 0 && n < text.n && (text.p[n] & 0xc0) == 0x80) {
        n--; /* not inside a character */
    }
    (void)snprintf(r.text, sizeof r.text, "%.*s", CS_SLICE_FMT(cs_slice_head(text, n)));
    for (size_t i = 0; i < CS_SESSION_GRANTS_USED; i++) {
        if (cs_id_eq(&s->grants[i], grant)) {
            s->grants[i] = (struct cs_id){{0}};
        }
    }
    cs_gate_exchange(s, false);
    report(s->gate, &r);
}

bool cs_tell_using(struct cs_session *s, const struct cs_id *grant)
{
    for (size_t i = 0; i < CS_SESSION_GRANTS_USED; i++) {
        if (cs_id_is_zero(&s->grants[i])) {
            s->grants[i] = *grant;
            return true;
        }
    }
    return false;
}

void cs_tell_leave(struct cs_session *s, struct cs_slice request, enum cs_leave how)
{
    struct cs_gate *g = s->gate;
    struct cs_report r = {.type = CS_MSG_HOLD_LEAVE, .session = s->id, .how = (uint64_t)how};
    (void)snprintf(r.request, sizeof r.request, "%.*s", CS_SLICE_FMT(request));
    if (how != CS_LEAVE_DETACH) {
        report(g, &r);
    } else if (g->control != NULL && report_send(g, &r) != CS_OK) {
        /* Not kept: the session may wait for the same request again. A new control hears that it
         * does not wait now. */
        cs_log(CS_EV_INTERNAL, &s->id, "message=hold-leave lost; control sees the session's end");
    }
}

void cs_tell_closed(struct cs_session *s, struct cs_slice why)
{
    struct cs_gate *g = s->gate;
    struct cs_msg_session_closed m = {.session = s->id, .why = why};
    if (g->control != NULL &&
        cs_channel_send(g->control, CS_MSG_SESSION_CLOSED, 0, &m, NULL, 0) != CS_OK) {
        cs_log(CS_EV_INTERNAL, &s->id, "message=session-closed lost");
    }
}

/* ---- a new control ---- */

struct telling {
    struct cs_gate *gate;
    uint64_t generation; /* of the channel that this is for */
    size_t n;
    cs_handle session[];
};

static enum cs_err live_send(struct cs_session *s)
{
    uint8_t ids[CS_SESSION_GRANTS_USED * CS_ID_BYTES];
    struct cs_writer w = cs_writer(ids, sizeof ids);
    struct cs_msg_session_live m = {.session = s->id};
    for (size_t i = 0; i < CS_SESSION_GRANTS_USED; i++) {
        if (!cs_id_is_zero(&s->grants[i])) {
            cs_writer_bytes(&w, cs_slice(s->grants[i].b, CS_ID_BYTES));
        }
    }
    m.grants = cs_writer_done(&w);
    m.asking = cs_hold_asking(s, &m.request) ? 1 : 0;
    return cs_channel_send(s->gate->control, CS_MSG_SESSION_LIVE, 0, &m, NULL, 0);
}

/* Sessions that are none any more have said so themselves, or are not named. False: this control is
 * gone too, or this process ends. */
static bool tell_one(const struct telling *t, cs_handle h)
{
    struct cs_gate *g = t->gate;
    while (g->control != NULL && g->control_generation == t->generation) {
        struct cs_session *s = cs_pool_get(&g->sessions, h);
        if (s == NULL || s->state == CS_SESSION_CLOSING || cs_id_is_zero(&s->id) ||
            live_send(s) == CS_OK) {
            return true;
        }
        if (!cs_co_sleep(TELL_PAUSE_NS)) { /* its queue is full */
            return false;
        }
    }
    return false;
}

static void tell_run(void *arg)
{
    struct telling *t = arg;
    struct cs_gate *g = t->gate;
    bool go_on = true;
    for (size_t i = 0; go_on && i < t->n; i++) {
        go_on = tell_one(t, t->session[i]);
    }
    struct cs_msg_sessions_told all = {0};
    while (go_on && g->control != NULL && g->control_generation == t->generation &&
           cs_channel_send(g->control, CS_MSG_SESSIONS_TOLD, 0, &all, NULL, 0) != CS_OK) {
        go_on = cs_co_sleep(TELL_PAUSE_NS);
    }
    cs_free(t);
}

void cs_tell_control(struct cs_gate *g)
{
    /* Before anything new: a withdrawal must not meet a later wait for the same request. The oldest
     * first; they fit the queue of a channel that was just opened. */
    for (size_t i = 0; i < CS_GATE_REPORTS; i++) {
        const struct cs_report *r = &g->reports[(g->next_report + i) % CS_GATE_REPORTS];
        if (r->type != CS_MSG_NONE && report_send(g, r) != CS_OK) {
            cs_log(CS_EV_INTERNAL, &r->session, "message=%s lost", cs_msg_name(r->type));
        }
    }
    size_t n = 0;
    for (size_t i = 0; i < CS_SESSION_STATES; i++) {
        n += g->state_count[i];
    }
    struct telling *t = cs_alloc(sizeof *t + n * sizeof t->session[0]);
    cs_handle co;
    if (t != NULL) {
        t->gate = g;
        t->generation = g->control_generation;
        for (size_t i = 0; i < CS_SESSION_STATES; i++) {
            for (const struct cs_session *s = g->by_state[i]; s != NULL && t->n < n; s = s->next) {
                t->session[t->n++] = s->handle;
            }
        }
    }
    if (t == NULL || cs_co_spawn(g->loop, "tell", tell_run, t, &co) != CS_OK) {
        cs_free(t);
        cs_log(CS_EV_INTERNAL, NULL, "control does not hear which sessions live");
    }
}
