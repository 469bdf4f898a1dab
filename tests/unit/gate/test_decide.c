/* Decisions and their record: what is not recorded does not run. */
#include "world.h"

static void reads_and_changes(struct world *w)
{
    struct world_client *c = world_session(w);
    c->sql = "SELECT 1";
    w->undurable = true; /* a read waits for no disk */
    world_do(c, do_decide);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_ALLOW);
    CS_EQ_U64(c->v.n, 1);
    w->undurable = false;
    cs_event_set(&w->recorder);
    c->sql = "DROP TABLE t";
    world_do(c, do_decide);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_HOLD);
    CS_EQ_U64(c->v.n, 2);
    world_frame(w, CS_FRAME_ACTION, 2);
    world_do(c, do_result);
    world_wait(c);
    CS_EQ_U64(c->err, CS_OK);
    world_frame(w, CS_FRAME_RESULT, 1);
}
CS_TEST(a_read_is_allowed_and_a_change_held_both_recorded)
{
    world_run(reads_and_changes);
}

static void durable_first(struct world *w)
{
    struct world_client *c = world_session(w);
    const struct cs_gate_config *first = w->gate->config;
    world_snapshot(w, false); /* changes are allowed */
    while (w->gate->config == first) {
        CS_CHECK(cs_co_yield());
    }
    w->undurable = true;
    world_do(c, do_decide);
    world_frame(w, CS_FRAME_ACTION, 1);
    CS_CHECK(!c->done.set); /* read by the recorder, not on disk: it does not run yet */
    w->undurable = false;
    cs_event_set(&w->recorder);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_ALLOW);
    w->undurable = true;
    world_do(c, do_decide);
    world_frame(w, CS_FRAME_ACTION, 2);
    world_health(w, CS_RECORD_STOPPED);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(c->v.refusal, CS_REFUSAL_RECORD);
}
CS_TEST(an_allowed_change_waits_until_its_record_is_durable)
{
    world_run(durable_first);
}

static void unrecorded(struct world *w)
{
    struct world_client *c = world_session(w);
    world_health(w, CS_RECORD_STOPPED);
    c->sql = "SELECT 1";
    world_do(c, do_decide);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(c->v.refusal, CS_REFUSAL_RECORD);
    world_do(c, do_result);
    world_wait(c);
    CS_EQ_U64(c->err, CS_ERR_NO_SPACE);
    world_health(w, CS_RECORD_HEALTHY);
    world_do(c, do_decide);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_ALLOW);
}
CS_TEST(a_read_that_cannot_be_recorded_does_not_run)
{
    world_run(unrecorded);
}

static void memo(struct world *w)
{
    struct world_client *c = world_session(w);
    struct cs_memo m = {0};
    c->sql = "SELECT 1";
    world_do(c, do_decide); /* fills c->action */
    world_wait(c);
    struct cs_verdict *v = cs_alloc(sizeof *v);
    cs_gate_decide(c->s, &c->action, &m, v);
    CS_EQ_U64(v->outcome, CS_ALLOW);
    CS_CHECK(m.decision != NULL && m.generation == c->s->policy_generation);
    cs_gate_decide(c->s, &c->action, &m, v);
    CS_EQ_U64(v->outcome, CS_ALLOW);
    m.decision->outcome = CS_DENY; /* what is remembered is what counts … */
    cs_gate_decide(c->s, &c->action, &m, v);
    CS_EQ_U64(v->outcome, CS_DENY);
    m.generation--; /* … under these rules only */
    cs_gate_decide(c->s, &c->action, &m, v);
    CS_EQ_U64(v->outcome, CS_ALLOW);
    m.tx = CS_SLICE_LIT("other");
    m.decision->outcome = CS_DENY; /* … and in this state of the transaction only */
    cs_gate_decide(c->s, &c->action, &m, v);
    CS_EQ_U64(v->outcome, CS_ALLOW);
    cs_memo_done(&m);
    cs_free(v);
}
CS_TEST(a_remembered_decision_holds_for_its_rules_and_transaction_state)
{
    world_run(memo);
}

static void memory(struct world *w)
{
    struct world_client *c = world_session(w);
    static uint8_t bytes[2000];
    struct cs_param big = {.bytes = cs_slice(bytes, sizeof bytes)};
    struct cs_verdict *v = cs_alloc(sizeof *v);
    c->sql = "SELECT 1";
    world_do(c, do_decide);
    world_wait(c);
    c->action.params = &big; /* too many for the stack */
    c->action.n_params = 1;
    cs_alloc_fail_after(0);
    cs_gate_decide(c->s, &c->action, NULL, v);
    cs_alloc_fail_after(-1);
    CS_EQ_U64(v->outcome, CS_DENY);
    CS_EQ_U64(v->refusal, CS_REFUSAL_RECORD);
    cs_gate_decide(c->s, &c->action, NULL, v);
    CS_EQ_U64(v->outcome, CS_ALLOW);
    cs_free(v);
}
CS_TEST(without_memory_for_the_record_nothing_runs)
{
    world_run(memory);
}

static void too_large(struct world *w)
{
    struct world_client *c = world_session(w);
    char *sql = cs_arena_alloc(&w->arena, CS_LIMIT_HELD_BYTES + 16);
    memset(sql, 'x', CS_LIMIT_HELD_BYTES + 15);
    sql[CS_LIMIT_HELD_BYTES + 15] = 0;
    c->sql = sql;
    world_do(c, do_hold);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(c->v.refusal, CS_REFUSAL_LIMIT);
    CS_EQ_U64(world_count(w, CS_MSG_HOLD), 0);
}
CS_TEST(what_is_too_large_to_be_held_is_refused)
{
    world_run(too_large);
}
