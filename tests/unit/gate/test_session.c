/* A session's life: states, lists, stale names, the configuration under its feet, the end. */
#include "world.h"

#include "base/time.h"

static size_t in_lists(const struct world *w)
{
    size_t n = 0;
    for (size_t i = 0; i < CS_SESSION_STATES; i++) {
        size_t here = 0;
        for (const struct cs_session *s = w->gate->by_state[i]; s != NULL; s = s->next) {
            CS_CHECK((size_t)s->state == i && (s->next == NULL || s->next->prev == s));
            here++;
        }
        CS_EQ_U64(here, w->gate->state_count[i]);
        n += here;
    }
    return n;
}

static void stale(struct world *w)
{
    struct world_client *a = world_session(w), *b = world_session(w);
    cs_handle old = a->s->handle;
    struct cs_id id = a->id;
    CS_CHECK(cs_session_by_id(w->gate, &a->id) == a->s);
    CS_CHECK(cs_pool_get(&w->gate->sessions, old) == a->s);
    world_hang_up(a);
    world_ended(a);
    CS_CHECK(cs_session_by_id(w->gate, &id) == NULL);
    CS_CHECK(cs_pool_get(&w->gate->sessions, old) == NULL);
    struct world_client *c = world_session(w); /* may well have the slot of the first */
    CS_CHECK(cs_pool_get(&w->gate->sessions, old) == NULL);
    struct cs_msg_session_kill m = {.session = id, .why = CS_SLICE_LIT("late")};
    world_send(w, CS_MSG_SESSION_KILL, &m);
    struct world_client *d = world_session(w);
    CS_CHECK(!b->s->kill.set && !c->s->kill.set && !d->s->kill.set);
    CS_EQ_U64(in_lists(w), 3);
    struct cs_id zero = {{0}};
    struct world_client *nobody = world_client(w);
    CS_CHECK(cs_session_by_id(w->gate, &zero) == NULL && nobody->s != NULL);
}
CS_TEST(a_stale_id_or_handle_names_nobody)
{
    world_run(stale);
}

static void kill_one(struct world *w)
{
    struct world_client *a = world_session(w), *b = world_session(w);
    char why[200];
    memset(why, 'x', sizeof why);
    struct cs_msg_session_kill m = {.session = a->id, .why = cs_slice(why, sizeof why)};
    world_send(w, CS_MSG_SESSION_KILL, &m);
    world_send(w, CS_MSG_SESSION_KILL, &m);
    world_ended(a);
    const struct cs_msg_session_closed *x =
        (const void *)world_expect(w, CS_MSG_SESSION_CLOSED)->msg.raw;
    CS_CHECK(cs_id_eq(&x->session, &a->id));
    CS_EQ_U64(x->why.n, sizeof((struct cs_session *)0)->kill_why - 1);
    world_frame(w, CS_FRAME_SESSION_CLOSE, 1);
    CS_CHECK(b->s != NULL && b->s->state == CS_SESSION_READY);
    CS_EQ_U64(world_count(w, CS_MSG_SESSION_CLOSED), 1);
}
CS_TEST(a_kill_ends_one_session_once)
{
    world_run(kill_one);
}

static void never_named(struct world *w)
{
    struct world_client *c = world_client(w);
    world_hang_up(c);
    world_ended(c);
    struct world_client *d = world_session(w); /* what was said before it has been read */
    CS_CHECK(d->s != NULL);
    CS_EQ_U64(world_count(w, CS_MSG_SESSION_CLOSED), 0);
    CS_EQ_U64(world_frames(w, CS_FRAME_SESSION_CLOSE), 0);
}
CS_TEST(who_never_logged_in_leaves_nothing_in_the_record)
{
    world_run(never_named);
}

static void reload(struct world *w)
{
    struct world_client *c = world_session(w);
    const struct cs_gate_config *first = c->s->config;
    world_do(c, do_decide);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_HOLD);
    world_snapshot(w, false);
    while (w->gate->config == first) {
        CS_CHECK(cs_co_yield());
    }
    CS_CHECK(c->s->config == first); /* it stands on the old one until its next action */
    uint64_t generation = c->s->policy_generation;
    world_do(c, do_decide);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_ALLOW);
    CS_CHECK(c->s->config == w->gate->config && c->s->policy_generation == generation + 1);
}
CS_TEST(a_session_moves_to_new_rules_at_its_next_action)
{
    world_run(reload);
}

static bool closed_all(struct world *w, void *arg)
{
    return world_frames(w, CS_FRAME_SESSION_CLOSE) == *(const size_t *)arg;
}

static void full(struct world *w)
{
    struct world_client *a = world_session(w), *b = world_session(w);
    size_t n = 2;
    world_health(w, CS_RECORD_STOPPED);
    world_hang_up(a);
    world_ended(a);
    world_hang_up(b);
    world_ended(b);
    CS_EQ_U64(world_frames(w, CS_FRAME_SESSION_CLOSE), 0);
    world_health(w, CS_RECORD_HEALTHY);
    world_until(w, closed_all, &n); /* said when it can be recorded again */
    bool seen[2] = {false, false};
    for (size_t i = 0; i < w->n_frames; i++) {
        if (w->frames[i] == CS_FRAME_SESSION_CLOSE) {
            seen[0] |= cs_id_eq(&w->frame_session[i], &a->id);
            seen[1] |= cs_id_eq(&w->frame_session[i], &b->id);
        }
    }
    CS_CHECK(seen[0] && seen[1]);
}
CS_TEST(the_end_of_a_session_is_recorded_when_the_record_is_writable_again)
{
    world_run(full);
}

static void full_at_stop(struct world *w)
{
    struct world_client *a = world_session(w);
    world_health(w, CS_RECORD_STOPPED);
    world_hang_up(a);
    world_ended(a);
}
CS_TEST(an_end_that_cannot_be_recorded_does_not_keep_the_gate_from_stopping)
{
    world_run(full_at_stop);
}
