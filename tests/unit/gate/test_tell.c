/* What a new control hears of the sessions that went on without it. */
#include "world.h"

static const struct cs_msg_session_live *live(struct world *w)
{
    return (const void *)world_expect(w, CS_MSG_SESSION_LIVE)->msg.raw;
}

/* Position of the n-th message of a type at the present control, from 1; 0: there is none. */
static size_t place(const struct world *w, enum cs_msg_type type, unsigned n)
{
    for (size_t i = 0; i < w->n_in; i++) {
        if (w->in[i].control == w->controls && w->in[i].type == type && --n == 0) {
            return i + 1;
        }
    }
    return 0;
}

static void names_all(struct world *w)
{
    struct world_client *idle = world_session(w), *held = world_session(w);
    struct world_client *gone = world_session(w), *stranger = world_client(w);
    world_wait_for(w, held, "AAAAAAAA");
    world_hang_up(gone);
    world_ended(gone);
    (void)world_expect(w, CS_MSG_SESSION_CLOSED);
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD); /* of the first control, which heard nothing */
    CS_EQ_U64(world_count(w, CS_MSG_SESSION_LIVE), 0);
    world_control_dies(w);
    world_control_new(w);
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    CS_EQ_U64(world_count(w, CS_MSG_SESSION_LIVE), 2); /* not the one without a name */
    for (size_t i = 0; i < 2; i++) {
        const struct cs_msg_session_live *m = live(w);
        bool is_held = cs_id_eq(&m->session, &held->id);
        CS_CHECK(is_held || cs_id_eq(&m->session, &idle->id));
        CS_EQ_STR(m->request, is_held ? "AAAAAAAA" : "");
        CS_EQ_U64(m->grants.n, 0);
        CS_EQ_U64(m->asking, 0);
    }
    CS_CHECK(place(w, CS_MSG_SESSION_LIVE, 2) < place(w, CS_MSG_SESSIONS_TOLD, 1));
    CS_CHECK(stranger->s != NULL);
}
CS_TEST(a_new_control_hears_of_every_session_once_and_then_that_these_were_all)
{
    world_run(names_all);
}

static bool is_parked(struct world *w, void *arg)
{
    (void)arg;
    return w->gate->parked;
}

static bool is_holding(struct world *w, void *arg)
{
    const struct world_client *c = arg;
    (void)w;
    return c->s->hold != NULL;
}

/* What a session asked may reach the new control before the word about that session does, when
 * many are to be named: it must not sound as if it asked nothing. */
static void asks_first(struct world *w)
{
    struct world_client *c = world_session(w);
    struct cs_msg_quiesce quiet = {0};
    struct cs_msg_held m;
    struct cs_slice request;
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_QUIESCE, 0, &quiet, NULL, 0) == CS_OK);
    world_until(w, is_parked, NULL);
    world_do(c, do_hold);
    world_until(w, is_holding, c);
    CS_CHECK(!cs_hold_asking(c->s, &request)); /* nobody has heard of it */
    world_control_new(w);
    struct world_in *in = world_hold(w, c, "AAAAAAAA", &m);
    CS_EQ_U64(in->control, w->controls);
    CS_CHECK(cs_hold_asking(c->s, &request) && request.n == 0);
    world_answer(w, in, CS_MSG_HELD, &m);
    world_state(w, c, CS_REQUEST_CANCELLED, NULL);
    world_wait(c);
    CS_EQ_U64(c->v.refusal, CS_REFUSAL_CANCELLED);
    CS_CHECK(!cs_hold_asking(c->s, &request));
}
CS_TEST(what_waited_for_the_new_control_is_told_as_asked_of_it)
{
    world_run(asks_first);
}

static void grants(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, "AAAAAAAA");
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    world_consume(w, c, CS_OK);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_ALLOW);
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    world_control_dies(w);
    world_control_new(w);
    const struct cs_msg_session_live *m = live(w);
    CS_EQ_SLICE(m->grants, cs_slice(c->grant.b, CS_ID_BYTES));
    CS_EQ_U64(m->request.n, 0);
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    world_control_dies(w);
    cs_gate_executed(c->s, &c->grant, CS_RAN_OK, CS_SLICE_LIT("DROP TABLE")); /* to nobody */
    world_control_new(w);
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    const struct cs_msg_executed *x = (const void *)world_expect(w, CS_MSG_EXECUTED)->msg.raw;
    CS_CHECK(cs_id_eq(&x->grant, &c->grant) && cs_id_eq(&x->session, &c->id));
    CS_EQ_U64(x->outcome, CS_EXECUTED_DONE);
    CS_EQ_STR(x->text, "DROP TABLE");
    CS_EQ_U64(live(w)->grants.n, 0); /* used and reported: no longer in use */
    CS_CHECK(place(w, CS_MSG_EXECUTED, 1) < place(w, CS_MSG_SESSION_LIVE, 1));
    world_control_dies(w);
    world_control_new(w); /* the one before may have died unread: said again */
    (void)world_expect(w, CS_MSG_EXECUTED);
}
CS_TEST(a_grant_is_named_until_its_result_is_told_and_the_result_is_told_again)
{
    world_run(grants);
}

static void withdrawn(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, "AAAAAAAA");
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    world_control_dies(w);
    cs_event_set(&c->s->cancel);
    world_wait(c);
    CS_EQ_U64(c->v.refusal, CS_REFUSAL_CANCELLED);
    world_control_new(w);
    const struct cs_msg_hold_leave *m = (const void *)world_expect(w, CS_MSG_HOLD_LEAVE)->msg.raw;
    CS_EQ_STR(m->request, "AAAAAAAA");
    CS_EQ_U64(m->how, CS_LEAVE_CANCEL);
    CS_EQ_U64(live(w)->request.n, 0);
    CS_EQ_U64(world_count(w, CS_MSG_HOLD), 1);
}
CS_TEST(what_was_withdrawn_while_no_control_was_there_is_withdrawn)
{
    world_run(withdrawn);
}

static void detached(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, "AAAAAAAA");
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    world_control_dies(w);
    world_hang_up(c);
    world_ended(c);
    world_control_new(w);
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    /* That it is not named says it all; a late "detach" could meet a new wait for the same. */
    CS_EQ_U64(world_count(w, CS_MSG_HOLD_LEAVE), 0);
    CS_EQ_U64(world_count(w, CS_MSG_SESSION_LIVE), 0);
}
CS_TEST(who_left_while_no_control_was_there_is_not_named)
{
    world_run(detached);
}

static void too_many(struct world *w)
{
    struct world_client *c = world_session(w);
    struct cs_id id = cs_id_new(), last = {{0}};
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    world_control_dies(w);
    for (size_t i = 0; i < CS_GATE_REPORTS + 10; i++) {
        id = cs_id_new();
        cs_gate_executed(c->s, &id, CS_RAN_FAILED, CS_SLICE_LIT("no"));
        last = id;
    }
    world_control_new(w);
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    CS_EQ_U64(world_count(w, CS_MSG_EXECUTED), CS_GATE_REPORTS); /* the latest */
    const struct cs_msg_executed *m = NULL;
    for (size_t i = 0; i < CS_GATE_REPORTS; i++) {
        m = (const void *)world_expect(w, CS_MSG_EXECUTED)->msg.raw;
    }
    CS_CHECK(m != NULL && cs_id_eq(&m->grant, &last));
    for (size_t i = 0; i < CS_SESSION_GRANTS_USED; i++) {
        id = cs_id_new();
        CS_CHECK(cs_tell_using(c->s, &id));
    }
    last = cs_id_new();
    CS_CHECK(!cs_tell_using(c->s, &last));
    cs_gate_executed(c->s, &id, CS_RAN_NOT, CS_SLICE_NULL);
    CS_CHECK(cs_tell_using(c->s, &last));
}
CS_TEST(reports_and_grants_in_use_are_bounded_and_the_latest_reports_win)
{
    world_run(too_many);
}

static void cut_text(struct world *w)
{
    struct world_client *c = world_session(w);
    char text[700];
    for (size_t i = 0; i + 2 < sizeof text; i += 2) {
        memcpy(text + i, "\xc3\xa4", 2);
    }
    text[0] = 'x'; /* the limit falls into a character */
    text[1] = 'y';
    memmove(text + 1, text + 2, sizeof text - 3);
    cs_gate_executed(c->s, &c->grant, CS_RAN_OK, cs_slice(text, 690));
    const struct cs_msg_executed *m = (const void *)world_expect(w, CS_MSG_EXECUTED)->msg.raw;
    CS_CHECK(m->text.n <= 511 && m->text.n >= 508);
    CS_CHECK((m->text.p[m->text.n - 1] & 0xc0) == 0x80); /* ends with a whole one */
    CS_EQ_U64(m->text.n % 2, 1);
}
CS_TEST(a_long_result_is_cut_between_characters)
{
    world_run(cut_text);
}

static void restarts(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, "AAAAAAAA");
    (void)world_expect(w, CS_MSG_SESSIONS_TOLD);
    for (unsigned i = 0; i < 20; i++) {
        world_control_new(w); /* without a pause between them */
    }
    for (;;) { /* each asked again; the last one is answered */
        struct world_in *in = world_expect(w, CS_MSG_HOLD);
        if (in->control == w->controls) {
            in->taken = false;
            break;
        }
    }
    struct cs_msg_held m;
    struct world_in *in = world_hold(w, c, "AAAAAAAA", &m);
    world_answer(w, in, CS_MSG_HELD, &m);
    world_state(w, c, CS_REQUEST_APPROVED, &c->grant);
    world_consume(w, c, CS_OK);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_ALLOW);
}
CS_TEST(many_controls_in_a_row_lose_no_wait)
{
    world_run(restarts);
}
