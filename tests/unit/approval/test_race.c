/* Many at once: one grant, one consumption; and nothing that happens goes unheard. */
#include "desk.h"

static struct {
    struct cs_approval_held h;
    struct cs_id session, grant;
    int left, ok;
} race;

static void consume_one(void *arg)
{
    (void)arg;
    race.ok += cs_approval_consume(desk->a, cs_slice_str(race.h.request), &race.grant,
                                   &race.session, race.h.digest) == CS_OK;
    race.left--;
}

static void vote_one(void *arg)
{
    race.ok += desk_vote(&race.h, arg, true) == CS_OK;
    race.left--;
}

static void start(void (*fn)(void *arg), const char *who)
{
    static char names[8][8];
    static size_t at;
    char *name = names[at++ % 8];
    (void)snprintf(name, sizeof names[0], "%s", who);
    cs_handle co;
    race.left++;
    CS_EQ_U64(cs_co_spawn(desk->w->loop, "race", fn, name, &co), CS_OK);
}

static void finish(void)
{
    while (race.left > 0) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
}

static void consumers(struct world *w)
{
    desk_open(w);
    race.session = desk_session();
    for (int round = 0; round < 20; round++) {
        race.h = desk_hold(&race.session);
        CS_CHECK(race.h.created);
        CS_EQ_U64(desk_vote(&race.h, "dba1", true), CS_OK);
        race.grant = desk_last(&race.h)->grant;
        race.ok = 0;
        for (int i = 0; i < 100; i++) {
            start(consume_one, "");
        }
        finish();
        CS_EQ_U64(race.ok, 1);
    }
    desk_close();
}
CS_TEST(of_a_hundred_consumers_one_wins)
{
    world_run(consumers);
}

static void voters(struct world *w)
{
    desk_open(w);
    race.session = desk_session();
    for (int round = 0; round < 20; round++) {
        desk->sql = (const char *)cs_arena_printf(&w->arena, "DROP TABLE t%d", round).p;
        desk->rules[0] = &desk->rule[round % 2 == 0 ? 0 : 2];
        race.h = desk_hold(&race.session);
        race.ok = 0;
        size_t before = desk->n_changes, approved = 0;
        start(vote_one, "dba1");
        start(vote_one, "dba2");
        start(vote_one, "both");
        start(vote_one, "dba1");
        finish();
        /* Votes that were stored before the first one was in the log are votes, too. */
        CS_CHECK(race.ok >= (round % 2 == 0 ? 1 : 2) && race.ok <= 3);
        for (size_t i = before; i < desk->n_changes; i++) {
            approved += desk->changes[i].state == CS_REQUEST_APPROVED;
        }
        CS_EQ_U64(approved, 1);
    }
    desk_close();
}
CS_TEST(voters_at_once_make_one_grant)
{
    world_run(voters);
}

/* ---- a change between the commit of a hold and its answer ---- */

static struct {
    struct cs_approval_held h;
    struct cs_id session;
    size_t heard; /* changes delivered before the answer */
    bool answered;
} early;

static void hold_one(void *arg)
{
    (void)arg;
    early.h = desk_hold(&early.session);
    early.heard = desk->n_changes;
    early.answered = true;
    race.left--;
}

static void tick_one(void *arg)
{
    (void)arg;
    CS_EQ_U64(cs_approval_tick(desk->a), CS_OK);
    race.left--;
}

static void unheard(struct world *w)
{
    desk_open(w);
    desk->rule[0].approvers.within_s = 0; /* overdue at once */
    early.session = desk_session();
    int in_answer = 0, after = 0;
    for (int round = 0; round < 300; round++) {
        desk->sql = (const char *)cs_arena_printf(&w->arena, "DROP TABLE t%d", round).p;
        desk->n_changes = 0;
        early.answered = false;
        start(hold_one, "");
        start(tick_one, "");
        finish();
        CS_CHECK(early.answered);
        CS_EQ_U64(cs_approval_tick(desk->a), CS_OK);
        /* What the gate knows: the answer, then the changes after it that name its session. */
        bool told = false;
        for (size_t i = early.heard; i < desk->n_changes; i++) {
            told = told || (desk->changes[i].state == CS_REQUEST_EXPIRED &&
                            desk_told(&desk->changes[i], &early.session));
        }
        CS_CHECK(told == (early.h.state == CS_REQUEST_PENDING));
        CS_CHECK(told || (early.h.state == CS_REQUEST_EXPIRED && !early.h.attached));
        in_answer += !told;
        after += told;
    }
    printf("# ended before the answer: %d, after: %d\n", in_answer, after);
    desk_close();
}
CS_TEST(no_change_is_lost_between_a_hold_and_its_answer)
{
    world_run(unheard);
}
