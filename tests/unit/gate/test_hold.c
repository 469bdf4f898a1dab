/* Holding, against a control that is late, early, wrong, silent, or another one. */
#include "gate/hold_internal.h"
#include "world.h"

#include "base/time.h"

static const char *const id_one = "AAAAAAAA", *const id_two = "BBBBBBBB";

static void refused(const struct world_client *c, enum cs_refusal why)
{
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(c->v.refusal, why);
    CS_CHECK(!c->v.granted);
}

static void allowed(const struct world_client *c)
{
    if (c->v.outcome != CS_ALLOW) {
        CS_FAIL("refused: %s", c->v.message);
    }
    CS_CHECK(c->v.granted && cs_id_eq(&c->v.grant, &c->grant));
    CS_EQ_STR(cs_slice_str(c->v.request), c->request);
}

static const struct cs_msg_hold_leave *left(struct world *w, enum cs_leave how)
{
    const struct cs_msg_hold_leave *m = (const void *)world_expect(w, CS_MSG_HOLD_LEAVE)->msg.raw;
    CS_EQ_U64(m->how, how);
    return m;
}

static uint64_t executed(struct world *w, const struct world_client *c)
{
    const struct cs_msg_executed *m = (const void *)world_expect(w, CS_MSG_EXECUTED)->msg.raw;
    CS_CHECK(cs_id_eq(&m->session, &c->id) && cs_id_eq(&m->grant, &c->grant));
    return m->outcome;
}

/* ---- the usual way ---- */

static void approved(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    CS_EQ_U64(w->gate->state_count[CS_SESSION_HELD], 1);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    world_consume(w, c, CS_OK);
    world_wait(c);
    allowed(c);
    CS_EQ_U64(world_frames(w, CS_FRAME_HELD), 1);
    CS_EQ_U64(world_frames(w, CS_FRAME_DECIDED), 1);
    CS_EQ_U64(world_frames(w, CS_FRAME_EXECUTE), 1);
    CS_EQ_U64(w->gate->state_count[CS_SESSION_READY], 1);
    CS_EQ_U64(world_count(w, CS_MSG_EXECUTED), 0);
    CS_EQ_U64(world_count(w, CS_MSG_HOLD_LEAVE), 0);
}
CS_TEST(an_approved_action_is_allowed_once_after_its_record_and_the_consumption)
{
    world_run(approved);
}

static void denied(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    world_state(w, c, CS_REQUEST_DENIED, NULL);
    world_wait(c);
    refused(c, CS_REFUSAL_PERSON);
    CS_EQ_STR(cs_slice_str(c->v.detail), "her words");
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
}
CS_TEST(a_denied_action_is_refused_with_the_approvers_words)
{
    world_run(denied);
}

static void not_ours(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    world_state(w, c, CS_REQUEST_APPROVED, NULL); /* another session got the grant */
    struct cs_msg_request_state m = {
        .session = c->id, .request = CS_SLICE_LIT("BBBBBBBB"), .state = CS_REQUEST_DENIED};
    world_send(w, CS_MSG_REQUEST_STATE, &m); /* of another request */
    m.request = cs_slice_str(id_one);
    m.state = CS_REQUEST_MAX;
    world_send(w, CS_MSG_REQUEST_STATE, &m); /* no state at all */
    m.session = cs_id_new();
    m.state = CS_REQUEST_DENIED;
    world_send(w, CS_MSG_REQUEST_STATE, &m); /* of nobody's session */
    struct world_client *other = world_session(w);
    world_state(w, other, CS_REQUEST_DENIED, NULL); /* of one that waits for nothing */
    CS_CHECK(!c->done.set && c->s->state == CS_SESSION_HELD);
    world_state(w, c, CS_REQUEST_DONE, NULL);
    world_wait(c);
    refused(c, CS_REFUSAL_VOID);
}
CS_TEST(news_of_another_request_session_or_state_ends_no_wait)
{
    world_run(not_ours);
}

/* ---- answers to HOLD that do not fit ---- */

static void bad_held(struct world *w, void (*spoil)(struct cs_msg_held *m), enum cs_refusal why)
{
    struct world_client *c = world_session(w);
    struct cs_msg_held m;
    world_do(c, do_hold);
    struct world_in *in = world_hold(w, c, id_one, &m);
    m.state = CS_REQUEST_APPROVED; /* however willing it sounds */
    m.grant = c->grant;
    spoil(&m);
    world_answer(w, in, CS_MSG_HELD, &m);
    world_wait(c);
    refused(c, why);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
    CS_EQ_U64(world_frames(w, CS_FRAME_EXECUTE), 0);
}

static void spoil_digest(struct cs_msg_held *m)
{
    static uint8_t other[CS_DIGEST];
    memcpy(other, m->digest.p, sizeof other);
    other[31] ^= 1;
    m->digest = cs_slice(other, sizeof other);
}

static void spoil_digest_size(struct cs_msg_held *m)
{
    m->digest.n--;
}

static void spoil_nonce(struct cs_msg_held *m)
{
    static const uint8_t other[CS_NONCE] = {8};
    m->nonce = cs_slice(other, sizeof other);
}

static void spoil_nonce_size(struct cs_msg_held *m)
{
    m->nonce = CS_SLICE_NULL;
}

static void spoil_policy(struct cs_msg_held *m)
{
    m->policy++;
}

static void spoil_request(struct cs_msg_held *m)
{
    m->request = CS_SLICE_LIT("CCCCCCCC");
}

static void spoil_request_size(struct cs_msg_held *m)
{
    m->request.n--;
}

static void spoil_state(struct cs_msg_held *m)
{
    m->state = CS_REQUEST_MAX;
}

static void spoil_error(struct cs_msg_held *m)
{
    m->err = CS_ERR_MAX;
}

static void every_bad_held(struct world *w)
{
    static const struct {
        void (*spoil)(struct cs_msg_held *m);
        enum cs_refusal why;
    } rows[] = {
        {spoil_digest, CS_REFUSAL_RULE},
        {spoil_digest_size, CS_REFUSAL_RULE},
        {spoil_nonce, CS_REFUSAL_RULE},
        {spoil_nonce_size, CS_REFUSAL_RULE},
        {spoil_policy, CS_REFUSAL_RULE},
        {spoil_request, CS_REFUSAL_RULE},
        {spoil_request_size, CS_REFUSAL_UNAVAILABLE},
        {spoil_state, CS_REFUSAL_UNAVAILABLE},
        {spoil_error, CS_REFUSAL_UNAVAILABLE},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        bad_held(w, rows[i].spoil, rows[i].why);
    }
}
CS_TEST(a_held_whose_digest_nonce_policy_or_name_does_not_fit_is_refused)
{
    world_run(every_bad_held);
}

static void wrong_answer(struct world *w)
{
    struct world_client *c = world_session(w);
    world_do(c, do_hold);
    struct cs_msg_consumed m = {.err = CS_OK};
    world_answer(w, world_expect(w, CS_MSG_HOLD), CS_MSG_CONSUMED, &m);
    world_wait(c);
    refused(c, CS_REFUSAL_UNAVAILABLE);
    world_wait_for(w, c, id_one);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    struct cs_msg_held h = {.err = CS_OK};
    world_answer(w, world_expect(w, CS_MSG_CONSUME), CS_MSG_HELD, &h);
    world_wait(c);
    refused(c, CS_REFUSAL_VOID);
    CS_EQ_U64(executed(w, c), CS_EXECUTED_NOT_RUN);
}
CS_TEST(an_answer_of_another_type_is_no_answer)
{
    world_run(wrong_answer);
}

static void not_consumed(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    world_consume(w, c, CS_ERR_CONFLICT);
    world_wait(c);
    refused(c, CS_REFUSAL_VOID);
    CS_EQ_U64(executed(w, c), CS_EXECUTED_NOT_RUN);
}
CS_TEST(a_grant_that_cannot_be_consumed_runs_nothing)
{
    world_run(not_consumed);
}

/* ---- HELD and news of it in one read ---- */

static void at_once(struct world *w, enum cs_request_state state)
{
    struct world_client *c = world_session(w);
    struct cs_msg_held m;
    world_do(c, do_hold);
    struct world_in *in = world_hold(w, c, id_one, &m);
    world_answer(w, in, CS_MSG_HELD, &m);                                      /* pending … */
    world_state(w, c, state, state == CS_REQUEST_APPROVED ? &c->grant : NULL); /* … and no more */
    if (state == CS_REQUEST_APPROVED) {
        world_consume(w, c, CS_OK);
        world_wait(c);
        allowed(c);
    } else {
        world_wait(c);
        refused(c, CS_REFUSAL_PERSON);
        CS_EQ_STR(cs_slice_str(c->v.detail), "her words");
    }
}

static void both_at_once(struct world *w)
{
    at_once(w, CS_REQUEST_APPROVED);
    at_once(w, CS_REQUEST_DENIED);
}
CS_TEST(a_decision_that_follows_held_in_the_same_read_is_not_lost)
{
    world_run(both_at_once);
}

static void old_news(struct world *w)
{
    struct world_client *c = world_session(w);
    struct cs_msg_held m;
    world_wait_for(w, c, id_two);
    c->s->async = false;
    cs_event_set(&c->s->cancel);
    world_wait(c);
    refused(c, CS_REFUSAL_CANCELLED);
    world_do(c, do_hold);
    (void)snprintf(c->request, sizeof c->request, "%s", id_two);
    struct world_in *in = world_expect(w, CS_MSG_HOLD);
    world_state(w, c, CS_REQUEST_DENIED, NULL); /* of the wait before */
    in->taken = false;
    in = world_hold(w, c, id_one, &m);
    m.state = CS_REQUEST_APPROVED;
    m.grant = c->grant;
    world_state(w, c, CS_REQUEST_PENDING, NULL); /* older than the answer */
    world_answer(w, in, CS_MSG_HELD, &m);
    world_consume(w, c, CS_OK);
    world_wait(c);
    allowed(c);
}
CS_TEST(news_older_than_held_or_of_an_earlier_wait_change_nothing)
{
    world_run(old_news);
}

static void again_at_once(struct world *w)
{
    struct world_client *c = world_session(w);
    struct cs_msg_held m;
    world_wait_for(w, c, id_one);
    world_control_dies(w);
    world_control_new(w);
    struct world_in *in = world_hold(w, c, id_one, &m);
    CS_EQ_STR(((const struct cs_msg_hold *)(const void *)in->msg.raw)->again, id_one);
    world_answer(w, in, CS_MSG_HELD, &m);
    world_state(w, c, CS_REQUEST_DENIED, NULL);
    world_wait(c);
    refused(c, CS_REFUSAL_PERSON);
}
CS_TEST(a_decision_that_follows_the_answer_of_a_new_control_is_not_lost)
{
    world_run(again_at_once);
}

/* ---- who has gone ---- */

static bool is_gone(struct world *w, void *arg)
{
    const struct world_client *c = arg;
    (void)w;
    return c->s == NULL || c->s->client.fd.hup;
}

/* The decision and the end of the connection are seen in one turn. */
static void gone_and_decided(struct world *w, enum cs_request_state state)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    struct cs_msg_request_state m = {.session = c->id,
                                     .request = cs_slice_str(id_one),
                                     .state = (uint64_t)state,
                                     .grant = c->grant};
    c->s->client.fd.hup = true;
    cs_hold_on_state(w->gate, &m);
    world_wait(c);
    refused(c, CS_REFUSAL_CLOSED);
    (void)left(w, CS_LEAVE_DETACH);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
    CS_EQ_U64(world_frames(w, CS_FRAME_EXECUTE), 0);
    world_hang_up(c);
    world_ended(c);
}

static void gone_first(struct world *w)
{
    gone_and_decided(w, CS_REQUEST_APPROVED);
    gone_and_decided(w, CS_REQUEST_DENIED);
}
CS_TEST(who_has_gone_gets_nothing_run_and_leaves_the_grant_to_others)
{
    world_run(gone_first);
}

static void gone_in_record(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    w->undurable = true;
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    world_frame(w, CS_FRAME_EXECUTE, 1);
    world_hang_up(c);
    world_until(w, is_gone, c);
    w->undurable = false;
    cs_event_set(&w->recorder);
    (void)left(w, CS_LEAVE_DETACH);
    world_ended(c);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
}
CS_TEST(who_goes_while_the_record_is_written_gets_nothing_run)
{
    world_run(gone_in_record);
}

static void gone_in_consume(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    struct world_in *in = world_expect(w, CS_MSG_CONSUME);
    world_hang_up(c);
    world_until(w, is_gone, c);
    struct cs_msg_consumed m = {.err = CS_OK};
    world_answer(w, in, CS_MSG_CONSUMED, &m);
    CS_EQ_U64(executed(w, c), CS_EXECUTED_NOT_RUN);
    world_ended(c);
    CS_EQ_U64(c->v.outcome, CS_DENY);
}
CS_TEST(who_goes_while_the_grant_is_consumed_gets_nothing_run)
{
    world_run(gone_in_consume);
}

static void gone_in_transaction(struct world *w)
{
    struct world_client *c = world_session(w);
    c->in_transaction = true;
    world_wait_for(w, c, id_one);
    world_hang_up(c);
    (void)left(w, CS_LEAVE_VOID);
    world_ended(c);
}
CS_TEST(who_goes_inside_a_transaction_leaves_nothing_behind)
{
    world_run(gone_in_transaction);
}

static void budget_in_transaction(struct world *w)
{
    struct world_client *c = world_session(w), *outside = world_session(w);
    c->in_transaction = true;
    world_wait_for(w, outside, "BBBBBBBB");
    CS_CHECK(outside->s->hold->budget_ns > CS_LIMIT_TX_HOLD_S * CS_NS_PER_S);
    world_wait_for(w, c, id_one);
    CS_EQ_U64(c->s->hold->budget_ns, CS_LIMIT_TX_HOLD_S * CS_NS_PER_S);
    c->s->hold->budget_ns = 1; /* over */
    cs_event_set(&c->s->hold->changed);
    world_wait(c);
    refused(c, CS_REFUSAL_VOID);
    CS_CHECK(strstr(c->v.message, "outside the transaction") != NULL);
    (void)left(w, CS_LEAVE_VOID);
}
CS_TEST(inside_a_transaction_the_wait_is_short_and_its_end_voids_it)
{
    world_run(budget_in_transaction);
}

static void killed(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    struct cs_msg_session_kill m = {.session = c->id, .why = CS_SLICE_LIT("disabled")};
    struct cs_msg_request_state st = {.session = c->id,
                                      .request = cs_slice_str(id_one),
                                      .state = CS_REQUEST_APPROVED,
                                      .grant = c->grant};
    world_send(w, CS_MSG_SESSION_KILL, &m);
    world_send(w, CS_MSG_REQUEST_STATE, &st);
    world_ended(c);
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
}
CS_TEST(a_killed_session_uses_no_grant)
{
    world_run(killed);
}

/* ---- cancel ---- */

static void cancelled(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    cs_event_set(&c->s->cancel);
    world_wait(c);
    refused(c, CS_REFUSAL_CANCELLED);
    CS_EQ_STR(left(w, CS_LEAVE_CANCEL)->request, id_one);
    CS_CHECK(!c->s->cancel.set); /* it has had its effect: not on what comes next */
    world_wait_for(w, c, id_two);
    CS_CHECK(!c->done.set);
}
CS_TEST(a_cancel_withdraws_the_request_and_nothing_after_it)
{
    world_run(cancelled);
}

static void cancelled_before(struct world *w)
{
    struct world_client *c = world_session(w);
    w->unread = true; /* the action's frame waits for room: the decision is not yet a wait */
    struct cs_slice big = {.n = 0};
    uint64_t seq;
    static uint8_t filler[64 * 1024];
    big = cs_slice(filler, sizeof filler);
    struct cs_frame_note note = {.text = cs_slice_head(big, 60000)};
    struct cs_frame_head head = {CS_FRAME_NOTE, 1, c->id};
    struct cs_writer wr = cs_writer(filler, sizeof filler);
    static uint8_t text[60000];
    memset(text, 'x', sizeof text);
    note.text = cs_slice(text, sizeof text);
    cs_frame_encode(&wr, &head, &note);
    struct cs_slice piece = cs_writer_done(&wr);
    while (cs_ring_append(&w->gate->ring, &piece, 1, &seq) == CS_OK) {
    }
    note.text.n = 1;
    do {
        wr = cs_writer(filler, sizeof filler);
        cs_frame_encode(&wr, &head, &note);
        piece = cs_writer_done(&wr);
    } while (cs_ring_append(&w->gate->ring, &piece, 1, &seq) == CS_OK);
    world_do(c, do_hold);
    CS_CHECK(cs_co_yield());
    CS_CHECK(cs_co_yield());
    CS_EQ_U64(world_count(w, CS_MSG_HOLD), 0);
    cs_event_set(&c->s->cancel);
    w->unread = false;
    cs_event_set(&w->recorder);
    world_held(w, c, id_one);
    world_wait(c);
    refused(c, CS_REFUSAL_CANCELLED);
    (void)left(w, CS_LEAVE_CANCEL);
}
CS_TEST(a_cancel_that_comes_while_the_action_is_being_recorded_counts)
{
    world_run(cancelled_before);
}

static void cancelled_in_record(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    w->undurable = true;
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    world_frame(w, CS_FRAME_EXECUTE, 1);
    cs_event_set(&c->s->cancel);
    w->undurable = false;
    cs_event_set(&w->recorder);
    world_wait(c);
    refused(c, CS_REFUSAL_CANCELLED);
    (void)left(w, CS_LEAVE_CANCEL);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
}
CS_TEST(a_cancel_that_comes_before_the_grant_is_consumed_counts)
{
    world_run(cancelled_in_record);
}

static void cancelled_in_consume(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    struct world_in *in = world_expect(w, CS_MSG_CONSUME);
    cs_event_set(&c->s->cancel);
    struct cs_msg_consumed m = {.err = CS_OK};
    world_answer(w, in, CS_MSG_CONSUMED, &m);
    world_wait(c);
    refused(c, CS_REFUSAL_CANCELLED);
    CS_EQ_U64(executed(w, c), CS_EXECUTED_NOT_RUN);
}
CS_TEST(a_cancel_that_comes_while_the_grant_is_consumed_counts)
{
    world_run(cancelled_in_consume);
}

static bool is_parked(struct world *w, void *arg)
{
    (void)arg;
    return w->gate->parked;
}

/* Approved in the middle of an upgrade: the consumption waits for the next control. */
static struct world_client *parked_consume(struct world *w)
{
    struct world_client *c = world_session(w), *other = world_session(w);
    struct cs_msg_quiesce quiet = {0};
    world_wait_for(w, c, id_one);
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_QUIESCE, 0, &quiet, NULL, 0) == CS_OK);
    world_until(w, is_parked, NULL);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    world_frame(w, CS_FRAME_EXECUTE, 1);
    world_do(other, do_result); /* behind it in the record */
    world_wait(other);
    for (unsigned i = 0; i < 10; i++) { /* what is durable has woken who waited for it */
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    CS_CHECK(!c->done.set && world_count(w, CS_MSG_CONSUME) == 0);
    return c;
}

static void gone_while_parked(struct world *w)
{
    struct world_client *c = parked_consume(w);
    world_hang_up(c);
    world_ended(c);
    (void)left(w, CS_LEAVE_DETACH);
    world_control_new(w);
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
}
CS_TEST(who_goes_while_the_consumption_waits_uses_up_no_grant)
{
    world_run(gone_while_parked);
}

static void cancelled_while_parked(struct world *w)
{
    struct world_client *c = parked_consume(w);
    cs_event_set(&c->s->cancel);
    world_control_new(w);
    world_wait(c);
    refused(c, CS_REFUSAL_CANCELLED);
    (void)left(w, CS_LEAVE_CANCEL);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
}
CS_TEST(a_cancel_while_the_consumption_waits_uses_up_no_grant)
{
    world_run(cancelled_while_parked);
}

static void consumed_after_parking(struct world *w)
{
    struct world_client *c = parked_consume(w);
    world_control_new(w);
    world_consume(w, c, CS_OK);
    world_wait(c);
    allowed(c);
}
CS_TEST(a_consumption_that_waited_for_the_next_control_is_asked_of_it)
{
    world_run(consumed_after_parking);
}

/* ---- the recorder ---- */

static void no_record(struct world *w)
{
    struct world_client *c = world_session(w);
    struct cs_msg_held m;
    world_health(w, CS_RECORD_STOPPED);
    world_do(c, do_hold);
    world_wait(c);
    refused(c, CS_REFUSAL_RECORD); /* not even asked */
    CS_EQ_U64(world_count(w, CS_MSG_HOLD), 0);
    world_health(w, CS_RECORD_HEALTHY);
    world_do(c, do_hold);
    struct world_in *in = world_hold(w, c, id_one, &m);
    world_health(w, CS_RECORD_STOPPED);
    world_answer(w, in, CS_MSG_HELD, &m);
    world_wait(c);
    refused(c, CS_REFUSAL_RECORD);
    (void)left(w, CS_LEAVE_DETACH);
    world_health(w, CS_RECORD_HEALTHY);
    world_wait_for(w, c, id_one);
    world_health(w, CS_RECORD_STOPPED);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    world_wait(c);
    refused(c, CS_REFUSAL_RECORD);
    (void)left(w, CS_LEAVE_DETACH);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
    world_health(w, CS_RECORD_HEALTHY);
}
CS_TEST(what_cannot_be_recorded_is_neither_held_nor_used)
{
    world_run(no_record);
}

/* ---- control goes ---- */

static void no_control(struct world *w)
{
    struct world_client *c = world_session(w);
    world_control_dies(w);
    world_do(c, do_hold);
    world_wait(c);
    refused(c, CS_REFUSAL_UNAVAILABLE);
    CS_EQ_U64(world_frames(w, CS_FRAME_HELD), 0);
}
CS_TEST(without_control_nothing_is_held)
{
    world_run(no_control);
}

static void dies_in_transaction(struct world *w)
{
    struct world_client *c = world_session(w);
    c->in_transaction = true;
    world_wait_for(w, c, id_one);
    world_control_dies(w);
    world_control_new(w);
    world_wait(c);
    refused(c, CS_REFUSAL_VOID);
    (void)left(w, CS_LEAVE_VOID);
    CS_EQ_U64(world_count(w, CS_MSG_HOLD), 1);
}
CS_TEST(inside_a_transaction_a_restart_of_control_voids_the_wait)
{
    world_run(dies_in_transaction);
}

static void lost_consume(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    (void)world_expect(w, CS_MSG_CONSUME);
    world_control_dies(w); /* with the question: consumed or not? */
    world_control_new(w);
    struct cs_msg_held m;
    struct world_in *in = world_hold(w, c, id_one, &m);
    m.state = CS_REQUEST_EXECUTING; /* it was */
    world_answer(w, in, CS_MSG_HELD, &m);
    world_wait(c);
    refused(c, CS_REFUSAL_VOID);
    CS_EQ_U64(executed(w, c), CS_EXECUTED_NOT_RUN);
    CS_EQ_U64(world_frames(w, CS_FRAME_EXECUTE), 1);
}
CS_TEST(a_consumption_whose_answer_is_lost_is_not_taken_for_granted)
{
    world_run(lost_consume);
}

static void lost_question(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, id_one);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    (void)world_expect(w, CS_MSG_CONSUME);
    world_control_dies(w);
    world_control_new(w);
    struct cs_msg_held m;
    struct world_in *in = world_hold(w, c, id_one, &m);
    m.state = CS_REQUEST_APPROVED; /* it was not: the grant is there still */
    m.grant = c->grant;
    world_answer(w, in, CS_MSG_HELD, &m);
    world_consume(w, c, CS_OK);
    world_wait(c);
    allowed(c);
    CS_EQ_U64(world_frames(w, CS_FRAME_EXECUTE), 1); /* said once */
}
CS_TEST(a_grant_that_was_not_consumed_is_asked_for_again)
{
    world_run(lost_question);
}

static void other_request(struct world *w)
{
    struct world_client *c = world_session(w);
    struct cs_msg_held m;
    world_wait_for(w, c, id_one);
    world_control_dies(w);
    world_control_new(w);
    struct world_in *in = world_hold(w, c, id_two, &m); /* another than the one asked for */
    m.state = CS_REQUEST_APPROVED;
    m.grant = c->grant;
    world_answer(w, in, CS_MSG_HELD, &m);
    world_wait(c);
    refused(c, CS_REFUSAL_VOID);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
}
CS_TEST(a_new_control_cannot_exchange_the_request)
{
    world_run(other_request);
}

/* ---- what is refused without asking ---- */

static void in_transaction(struct world *w)
{
    struct world_client *c = world_session(w);
    c->in_transaction = c->elevated = true;
    world_do(c, do_hold);
    world_wait(c);
    refused(c, CS_REFUSAL_RULE);
    c->elevated = false;
    c->s->async = true;
    world_do(c, do_hold);
    world_wait(c);
    refused(c, CS_REFUSAL_RULE);
    CS_EQ_U64(world_count(w, CS_MSG_HOLD), 0);
    c->in_transaction = false;
    world_do(c, do_hold);
    world_held(w, c, id_one);
    world_wait(c);
    refused(c, CS_REFUSAL_WAITING);
    CS_CHECK(cs_slice_starts(cs_slice_str(c->v.detail), CS_SLICE_LIT("COUNTERSIGN held id=")));
}
CS_TEST(in_a_transaction_neither_elevated_nor_async)
{
    world_run(in_transaction);
}

/* ---- memory ---- */

/* Memory is out until the session waits for control: its own coroutine runs next, and nothing else
 * before this one goes on. */
static void no_memory(struct world *w)
{
    struct world_client *c = world_session(w);
    long n = 0;
    bool held = false;
    for (; !held && n < 100; n++) {
        c->v.outcome = CS_ALLOW;
        world_do(c, do_hold);
        cs_alloc_fail_after(n);
        CS_CHECK(cs_co_yield());
        cs_alloc_fail_after(-1);
        held = !c->done.set;
        if (held) {
            world_held(w, c, id_one);
            world_state(w, c, CS_REQUEST_CANCELLED, NULL);
        }
        world_wait(c);
        CS_EQ_U64(c->v.outcome, CS_DENY);
        CS_EQ_U64(c->v.refusal, held ? CS_REFUSAL_CANCELLED : CS_REFUSAL_UNAVAILABLE);
        CS_CHECK(c->s->state == CS_SESSION_READY && c->s->hold == NULL);
    }
    CS_CHECK(held && n > 2);
    CS_EQ_U64(world_count(w, CS_MSG_HOLD), 1);
    CS_EQ_U64(world_count(w, CS_MSG_CONSUME), 0);
}
CS_TEST(without_memory_the_action_is_refused)
{
    world_run(no_memory);
}
