/* What happens while a judgement lets others run: new rules, another catalogue, the end of the
 * session. Here it does so after each piece. */
#include "world.h"

enum { TABLES = 15000 };

static struct cs_slice tables[TABLES];
static bool decided;

/* The rules take most of the steps that a condition may take. */
static void describe(struct world_client *c)
{
    static struct cs_slice ddl = {(const uint8_t *)"ddl", 3};
    struct cs_action *a = &c->action;
    memset(a, 0, sizeof *a);
    a->protocol = CS_SLICE_LIT("postgres");
    a->bytes = CS_SLICE_LIT("DROP TABLE t");
    a->changing = true;
    for (size_t i = 0; i < TABLES; i++) {
        tables[i] = CS_SLICE_LIT("public.t");
    }
    struct cs_fact *f = a->facts.v;
    f[CS_FACT_SQL_EFFECTS].state = f[CS_FACT_SQL_WRITES].state = CS_FACT_KNOWN;
    f[CS_FACT_SQL_EFFECTS].u.strings.v = &ddl;
    f[CS_FACT_SQL_EFFECTS].u.strings.n = 1;
    f[CS_FACT_SQL_WRITES].u.strings.v = tables;
    f[CS_FACT_SQL_WRITES].u.strings.n = TABLES;
    (void)cs_session_refresh(c->s);
}

static void do_judge(struct world_client *c)
{
    describe(c);
    decided = cs_gate_decide(c->s, &c->action, NULL, &c->v);
}

static void do_preview(struct world_client *c)
{
    enum cs_outcome o = CS_ALLOW;
    describe(c);
    decided = cs_gate_preview(c->s, &c->action, &o);
    c->v.outcome = o;
}

/* A session whose next judgement is in its middle when this returns. */
static struct world_client *judging(struct world *w, void (*fn)(struct world_client *c))
{
    w->slow = true;
    world_snapshot(w, true);
    struct world_client *c = world_session(w);
    cs_loop_share(w->loop, 0);
    decided = false;
    world_do(c, fn);
    uint64_t generation = c->s->policy_generation;
    for (int i = 0; i < 3; i++) {
        CS_CHECK(cs_co_yield());
    }
    CS_CHECK(!c->done.set && c->s->policy_generation >= generation);
    return c;
}

static void undisturbed(struct world *w)
{
    struct world_client *c = judging(w, do_judge);
    world_wait(c);
    CS_CHECK(decided);
    CS_EQ_U64(c->v.outcome, CS_HOLD);
    CS_EQ_U64(c->v.n, 1);
}
CS_TEST(a_judgement_in_pieces_is_the_same_as_one_at_once)
{
    world_run(undisturbed);
}

/* Until the gate has other rules than these, one turn of the loop after the other: those of the
 * judgement are as many. */
static void until_other_rules(struct world *w, const struct cs_gate_config *old)
{
    for (unsigned i = 0; w->gate->config == old; i++) {
        CS_CHECK(i < TABLES && cs_co_yield());
    }
}

static void reload(struct world *w)
{
    struct world_client *c = judging(w, do_judge);
    struct cs_gate_config *old = c->s->config;
    CS_CHECK(old == w->gate->config);
    size_t before = world_frames(w, CS_FRAME_ACTION);
    world_snapshot(w, false); /* these would allow it */
    until_other_rules(w, old);
    CS_CHECK(!c->done.set && c->s->config == old); /* what it reads is still there */
    world_wait(c);
    CS_CHECK(!decided);
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(c->s->actions, 0);
    CS_EQ_U64(world_frames(w, CS_FRAME_ACTION), before);
    world_do(c, do_judge);
    world_wait(c);
    CS_CHECK(decided && c->s->config == w->gate->config);
    CS_EQ_U64(c->v.outcome, CS_ALLOW);
    CS_EQ_U64(c->v.n, 1);
}
CS_TEST(rules_that_come_in_the_middle_of_a_judgement_make_it_none)
{
    world_run(reload);
}

static void stricter(struct world *w)
{
    struct world_client *c = judging(w, do_preview);
    struct cs_gate_config *old = c->s->config;
    world_snapshot(w, false);
    until_other_rules(w, old);
    world_wait(c);
    CS_CHECK(!decided);
    CS_EQ_U64(c->v.outcome, CS_DENY);
}
CS_TEST(rules_that_come_in_the_middle_of_a_preview_make_it_none)
{
    world_run(stricter);
}

static void catalogue(struct world *w)
{
    struct world_client *other = world_session(w), *c = judging(w, do_judge);
    cs_gate_defining(other->s, false); /* what was harmless by the catalogue may be no more */
    world_wait(c);
    CS_CHECK(!decided);
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(c->s->actions, 0);
}
CS_TEST(definitions_that_change_in_the_middle_of_a_judgement_make_it_none)
{
    world_run(catalogue);
}

static unsigned turns_of_others;
static bool counts;

static void count(void *arg)
{
    (void)arg;
    while (counts && cs_co_yield()) {
        turns_of_others++;
    }
}

static void do_preview_again(struct world_client *c)
{
    turns_of_others = 0;
    do_preview(c);
    c->err = turns_of_others == 0 ? CS_OK : CS_ERR_CONFLICT;
}

static void livelock(struct world *w)
{
    cs_handle co;
    struct world_client *other = world_session(w), *c = judging(w, do_judge);
    cs_gate_defining(other->s, false);
    world_wait(c);
    CS_CHECK(!decided);
    counts = true;
    CS_CHECK(cs_co_spawn(w->loop, "count", count, NULL, &co) == CS_OK);
    world_do(c, do_preview_again);
    world_wait(c);
    CS_CHECK(decided && c->v.outcome == CS_HOLD);
    CS_EQ_U64(c->err, CS_OK);
    world_do(c, do_preview_again); /* and the time after that in pieces */
    world_wait(c);
    CS_CHECK(decided && c->v.outcome == CS_HOLD);
    CS_EQ_U64(c->err, CS_ERR_CONFLICT);
    counts = false;
}
CS_TEST(who_was_disturbed_once_is_judged_at_once)
{
    world_run(livelock);
}

static void killed(struct world *w)
{
    struct world_client *c = judging(w, do_judge);
    cs_session_kill(c->s, CS_SLICE_LIT("by a test"));
    world_wait(c);
    CS_CHECK(decided);
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(c->v.refusal, CS_REFUSAL_CLOSED);
}
CS_TEST(a_session_that_is_killed_in_the_middle_of_a_judgement_may_nothing_more)
{
    world_run(killed);
}
