/* The life of a request: attaching, leaving, expiring, executing, restarting; cards and lists. */
#include "desk.h"

static struct cs_slice rid(const struct cs_approval_held *h)
{
    return cs_slice_str(h->request);
}

static enum cs_err leave(const struct cs_approval_held *h, const struct cs_id *s, enum cs_leave how)
{
    return cs_approval_leave(desk->a, rid(h), s, how, CS_SLICE_LIT("left"));
}

static void repeat(struct world *w)
{
    desk_open(w);
    struct cs_id one = desk_session(), two = desk_session();
    struct cs_approval_held h = desk_hold(&one), again = desk_hold(&two), other;
    CS_CHECK(h.created && h.attached && h.state == CS_REQUEST_PENDING);
    CS_CHECK(!again.created && again.attached);
    CS_CHECK(strcmp(h.request, again.request) == 0);
    CS_CHECK(memcmp(h.digest, again.digest, CS_DIGEST) == 0);
    CS_EQ_U64(desk_card(&h, "")->attached, 2);
    desk->sql = "DROP TABLE orders "; /* one blank more is another question */
    other = desk_hold(&two);
    CS_CHECK(other.created);
    desk->sql = "DROP TABLE orders";
    desk->chain = "alice"; /* and so is another asker */
    other = desk_hold(&two);
    CS_CHECK(other.created);
    struct cs_id dead = cs_id_new();
    CS_EQ_U64(desk_try_hold(&dead, &other), CS_ERR_NOT_FOUND);
    desk_close();
}
CS_TEST(a_repeat_attaches_and_anything_else_is_a_new_request)
{
    world_run(repeat);
}

static void in_transaction(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held outside = desk_hold(&s), one, two;
    desk->in_transaction = true;
    one = desk_hold(&s);
    two = desk_hold(&s);
    CS_CHECK(one.created && two.created && strcmp(one.request, two.request) != 0);
    CS_EQ_U64(leave(&one, &s, CS_LEAVE_DETACH), CS_OK);
    CS_EQ_U64(desk_state(&one), CS_REQUEST_VOID);
    CS_EQ_U64(cs_approval_session_closed(desk->a, &s, CS_SLICE_LIT("lost")), CS_OK);
    CS_EQ_U64(desk_state(&two), CS_REQUEST_VOID);
    CS_EQ_U64(desk_state(&outside), CS_REQUEST_PENDING);
    s = desk_session();
    desk->async = true;
    CS_EQ_U64(desk_try_hold(&s, &one), CS_ERR_DENIED);
    desk->async = false;
    desk->elevated = true;
    CS_EQ_U64(desk_try_hold(&s, &one), CS_ERR_DENIED);
    desk_close();
}
CS_TEST(inside_a_transaction_every_hold_is_its_own_request)
{
    world_run(in_transaction);
}

static void bad_asks(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h;
    desk->n_rules = 0;
    CS_EQ_U64(desk_try_hold(&s, &h), CS_ERR_INVALID);
    desk->n_rules = 1;
    desk->rule[0].approvers.quorum = 0;
    CS_EQ_U64(desk_try_hold(&s, &h), CS_ERR_INVALID);
    desk->rule[0].approvers.quorum = 1;
    desk->rule[0].approvers.n_groups = 0;
    CS_EQ_U64(desk_try_hold(&s, &h), CS_ERR_INVALID);
    desk->rule[0].approvers.n_groups = 1;
    desk->rule[0].then = CS_ALLOW;
    CS_EQ_U64(desk_try_hold(&s, &h), CS_ERR_INVALID);
    desk->rule[0].then = CS_HOLD;
    desk->chain = "";
    CS_EQ_U64(desk_try_hold(&s, &h), CS_ERR_INVALID);
    desk->chain = "alice";
    char *big = cs_arena_alloc(&w->arena, CS_LIMIT_HELD_BYTES + 2);
    memset(big, 'x', CS_LIMIT_HELD_BYTES + 1);
    desk->sql = big;
    CS_EQ_U64(desk_try_hold(&s, &h), CS_ERR_TOO_LARGE);
    big[CS_LIMIT_HELD_BYTES] = '\0';
    CS_EQ_U64(desk_try_hold(&s, &h), CS_OK);
    CS_EQ_U64(desk_card(&h, "")->action.bytes.n, CS_LIMIT_HELD_BYTES);
    desk_close();
}
CS_TEST(a_hold_that_nobody_could_decide_is_refused)
{
    world_run(bad_asks);
}

static void executed(struct world *w)
{
    desk_open(w);
    struct cs_id one = desk_session(), two = desk_session();
    struct cs_approval_held h = desk_hold(&one), h2 = desk_hold(&two);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    const struct desk_change *c = desk_last(&h);
    CS_EQ_U64(c->state, CS_REQUEST_APPROVED);
    CS_CHECK(cs_id_eq(&c->grant_session, &one) && !cs_id_is_zero(&c->grant));
    CS_CHECK(desk_told(c, &one) && desk_told(c, &two));
    CS_EQ_U64(desk_consume(&h2, &two), CS_ERR_CONFLICT); /* not its grant */
    struct cs_approval_held wrong = h;
    wrong.digest[0] ^= 1;
    CS_EQ_U64(desk_consume(&wrong, &one), CS_ERR_CONFLICT);
    struct cs_id grant = c->grant, zero = {{0}};
    CS_EQ_U64(cs_approval_consume(desk->a, rid(&h), &zero, &one, h.digest), CS_ERR_CONFLICT);
    CS_EQ_U64(cs_approval_consume(desk->a, CS_SLICE_LIT("00000000"), &grant, &one, h.digest),
              CS_ERR_CONFLICT);
    CS_EQ_U64(desk_consume(&h, &one), CS_OK);
    CS_EQ_U64(desk_last(&h)->state, CS_REQUEST_EXECUTING);
    CS_CHECK(desk_told(desk_last(&h), &two));
    CS_EQ_U64(desk_consume(&h, &one), CS_ERR_CONFLICT);
    CS_EQ_U64(leave(&h, &one, CS_LEAVE_CANCEL), CS_ERR_CONFLICT);
    CS_EQ_U64(cs_approval_cancel(desk->a, rid(&h), CS_SLICE_LIT("local:bot"), CS_SLICE_NULL),
              CS_ERR_CONFLICT);
    CS_EQ_U64(cs_approval_finish(desk->a, &grant, &two, CS_EXECUTED_DONE, CS_SLICE_NULL),
              CS_ERR_CONFLICT);
    CS_EQ_U64(
        cs_approval_finish(desk->a, &grant, &one, CS_EXECUTED_FAILED, CS_SLICE_LIT("no table")),
        CS_OK);
    CS_EQ_U64(cs_approval_finish(desk->a, &grant, &one, CS_EXECUTED_DONE, CS_SLICE_LIT("again")),
              CS_OK);
    CS_EQ_U64(cs_approval_finish(desk->a, &grant, &one, CS_EXECUTED_UNKNOWN, CS_SLICE_NULL),
              CS_ERR_CONFLICT);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_DONE);
    CS_EQ_STR(desk_card(&h, "")->words, "failed: no table");
    CS_EQ_STR(desk_card(&h, "")->by, "local:dba1");
    desk_close();
}
CS_TEST(a_grant_is_for_one_session_one_digest_one_time)
{
    world_run(executed);
}

static void moves_on(struct world *w)
{
    desk_open(w);
    struct cs_id one = desk_session(), two = desk_session();
    struct cs_approval_held h = desk_hold(&one);
    (void)desk_hold(&two);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    struct cs_id grant = desk_last(&h)->grant;
    CS_EQ_U64(leave(&h, &one, CS_LEAVE_DETACH), CS_OK);
    CS_EQ_U64(leave(&h, &one, CS_LEAVE_DETACH), CS_ERR_NOT_FOUND);
    CS_EQ_U64(desk_last(&h)->state, CS_REQUEST_APPROVED);
    CS_CHECK(cs_id_eq(&desk_last(&h)->grant_session, &two));
    CS_CHECK(cs_id_eq(&desk_last(&h)->grant, &grant));
    CS_EQ_U64(desk_consume(&h, &one), CS_ERR_CONFLICT);
    CS_EQ_U64(cs_approval_session_closed(desk->a, &two, CS_SLICE_LIT("gone")), CS_OK);
    CS_CHECK(cs_id_is_zero(&desk_last(&h)->grant_session));
    CS_EQ_U64(desk_consume(&h, &two), CS_ERR_CONFLICT); /* never without a live client */
    struct cs_id three = desk_session();
    struct cs_approval_held h3 = desk_hold(&three);
    CS_CHECK(!h3.created && h3.state == CS_REQUEST_APPROVED && cs_id_eq(&h3.grant, &grant));
    CS_EQ_U64(desk_consume(&h3, &three), CS_OK);
    struct cs_approval_held h4 = desk_hold(&three); /* used up: the next one asks anew */
    CS_CHECK(h4.created);
    desk_close();
}
CS_TEST(an_unused_grant_goes_to_the_next_session_that_lives)
{
    world_run(moves_on);
}

static void async(struct world *w)
{
    desk_open(w);
    desk->async = true;
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s), again = desk_hold(&s);
    CS_CHECK(h.created && !h.attached && !again.created && !again.attached);
    CS_EQ_U64(desk_card(&h, "")->attached, 0);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    CS_EQ_U64(desk_last(&h)->n_sessions, 0);
    struct cs_id other = desk_session();
    struct cs_approval_held first = desk_hold(&other), second = desk_hold(&s);
    CS_CHECK(first.attached && !cs_id_is_zero(&first.grant));
    CS_CHECK(!second.attached && cs_id_is_zero(&second.grant));
    CS_EQ_U64(second.state, CS_REQUEST_APPROVED);
    CS_EQ_U64(desk_consume(&h, &other), CS_OK);
    desk_close();
}
CS_TEST(async_repeats_after_approval_and_runs_once)
{
    world_run(async);
}

/* Asks until it is refused; how many were accepted. Whoever waits hangs up at once. */
static size_t ask_all(struct world *w, const char *what)
{
    struct cs_approval_held h;
    enum cs_err err = CS_OK;
    size_t n = 0;
    while (n < 1000) {
        struct cs_id s = desk_session();
        desk->sql = (const char *)cs_arena_printf(&w->arena, "DROP TABLE %s%zu", what, n).p;
        err = desk_try_hold(&s, &h);
        if (err != CS_OK) {
            break;
        }
        n++;
        CS_EQ_U64(cs_approval_session_closed(desk->a, &s, CS_SLICE_LIT("gone")), CS_OK);
    }
    CS_EQ_U64(err, CS_ERR_LIMIT);
    return n;
}

static void bounded(struct world *w)
{
    desk_open(w);
    desk->async = true;
    CS_EQ_U64(ask_all(w, "async"), CS_LIMIT_REQUESTS_ASYNC);
    desk->async = false; /* who waits finds room, but hanging up does not make any */
    CS_EQ_U64(ask_all(w, "wait"), CS_LIMIT_REQUESTS_PER_PERSON - CS_LIMIT_REQUESTS_ASYNC);
    desk->async = true;
    CS_EQ_U64(ask_all(w, "again"), 0);
    desk->chain = "alice bot2"; /* another agent of hers, or she herself: no more room */
    CS_EQ_U64(ask_all(w, "second agent"), 0);
    desk->chain = "alice";
    CS_EQ_U64(ask_all(w, "herself"), 0);
    desk->chain = "dba1"; /* somebody else's share is untouched */
    CS_EQ_U64(ask_all(w, "other"), CS_LIMIT_REQUESTS_ASYNC);
    desk_close();
}
CS_TEST(what_one_person_and_its_agents_leave_pending_is_bounded)
{
    world_run(bounded);
}

static void pages(struct world *w)
{
    desk_open(w);
    desk->async = true;
    struct cs_id s = desk_session();
    for (size_t i = 0; i < 10; i++) {
        desk->sql = (const char *)cs_arena_printf(&w->arena, "DROP TABLE t%zu", i).p;
        (void)desk_hold(&s);
    }
    struct cs_approval_query q = {
        .state = CS_REQUEST_PENDING, .all = true, .limit = 4, .oldest_first = true};
    struct cs_card *cards = NULL;
    size_t n = 0, seen = 0;
    uint64_t seq = 0;
    do {
        CS_EQ_U64(cs_approval_list(desk->a, &q, &w->arena, &cards, &n, &seq), CS_OK);
        for (size_t i = 0; i < n; i++, seen++) {
            char text[32];
            (void)snprintf(text, sizeof text, "DROP TABLE t%zu", seen);
            CS_EQ_STR(cards[i].action.bytes, text);
            q.since = cards[i].seq;
        }
    } while (n > 0);
    CS_EQ_U64(seen, 10);
    desk_close();
}
CS_TEST(pages_from_the_oldest_on_pass_nothing_over)
{
    world_run(pages);
}

static void withdrawn(struct world *w)
{
    desk_open(w);
    struct cs_id one = desk_session(), two = desk_session();
    struct cs_approval_held h = desk_hold(&one), h2;
    (void)desk_hold(&two);
    CS_EQ_U64(leave(&h, &one, CS_LEAVE_CANCEL), CS_OK);
    CS_EQ_U64(desk_last(&h)->state, CS_REQUEST_CANCELLED);
    CS_CHECK(desk_told(desk_last(&h), &two) && !desk_told(desk_last(&h), &one));
    h2 = desk_hold(&one);
    CS_EQ_U64(leave(&h2, &one, CS_LEAVE_VOID), CS_OK);
    CS_EQ_U64(desk_state(&h2), CS_REQUEST_VOID);
    CS_EQ_U64(leave(&h2, &one, (enum cs_leave)77), CS_ERR_INVALID);
    h2 = desk_hold(&one);
    CS_EQ_U64(desk_vote(&h2, "dba1", true), CS_OK);
    CS_EQ_U64(cs_approval_cancel(desk->a, rid(&h2), CS_SLICE_LIT("local:dba1"), CS_SLICE_NULL),
              CS_ERR_DENIED);
    CS_EQ_U64(cs_approval_cancel(desk->a, rid(&h2), CS_SLICE_NULL, CS_SLICE_NULL), CS_ERR_DENIED);
    CS_EQ_U64(
        cs_approval_cancel(desk->a, rid(&h2), CS_SLICE_LIT("local:alice"), CS_SLICE_LIT("no")),
        CS_OK);
    CS_EQ_U64(desk_consume(&h2, &one), CS_ERR_CONFLICT); /* the grant went with it */
    desk_close();
}
CS_TEST(the_requester_withdraws_and_nobody_else)
{
    world_run(withdrawn);
}

static void times(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    CS_EQ_U64(h.expires_ms, world_now + 900000);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    CS_EQ_U64(desk_card(&h, "")->expires_ms, world_now + 600000);
    world_now += 600000;
    CS_EQ_U64(desk_consume(&h, &s), CS_ERR_CONFLICT); /* too late, ticked or not */
    CS_EQ_U64(cs_approval_tick(desk->a), CS_OK);
    CS_EQ_U64(desk_last(&h)->state, CS_REQUEST_EXPIRED);
    h = desk_hold(&s);
    CS_EQ_U64(leave(&h, &s, CS_LEAVE_DETACH), CS_OK);
    CS_EQ_U64(desk_card(&h, "")->expires_ms, world_now + 300000);
    world_now += 299999;
    CS_EQ_U64(cs_approval_tick(desk->a), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING);
    struct cs_approval_held back =
        desk_hold(&s); /* came back in time: the clock of leaving stops */
    CS_CHECK(!back.created);
    world_now += 299999;
    CS_EQ_U64(cs_approval_tick(desk->a), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING);
    CS_EQ_U64(cs_approval_session_closed(desk->a, &s, CS_SLICE_LIT("gone")), CS_OK);
    world_now += 300000;
    s = desk_session();
    back = desk_hold(&s); /* too late, although nothing ticked */
    CS_CHECK(back.created);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_EXPIRED);
    desk_close();
}
CS_TEST(within_valid_and_attach_each_end_it)
{
    world_run(times);
}

static void gate_dies(struct world *w)
{
    desk_open(w);
    struct cs_id one = desk_session(), two = desk_session();
    struct cs_approval_held run = desk_hold(&one), wait;
    CS_EQ_U64(desk_vote(&run, "dba1", true), CS_OK);
    CS_EQ_U64(desk_consume(&run, &one), CS_OK);
    struct cs_id grant = desk_last(&run)->grant;
    wait = desk_hold(&two);
    CS_EQ_U64(cs_approval_gate_gone(desk->a, 2, CS_SLICE_LIT("gate died")), CS_OK);
    CS_EQ_U64(desk_state(&run), CS_REQUEST_UNKNOWN);
    CS_EQ_U64(desk_state(&wait), CS_REQUEST_PENDING);
    CS_EQ_U64(desk_card(&wait, "")->attached, 0);
    CS_EQ_U64(cs_approval_finish(desk->a, &grant, &one, CS_EXECUTED_DONE, CS_SLICE_NULL),
              CS_ERR_CONFLICT); /* nobody can know any more */
    desk_close();
}
CS_TEST(a_dead_gate_leaves_unknown_what_it_was_executing)
{
    world_run(gate_dies);
}

static void restart(struct world *w)
{
    desk_open(w);
    struct cs_id one = desk_session(), two = desk_session(), three = desk_session();
    struct cs_approval_held used = desk_hold(&one), pending, ready, tx;
    CS_EQ_U64(desk_vote(&used, "dba1", true), CS_OK);
    CS_EQ_U64(desk_consume(&used, &one), CS_OK);
    struct cs_id used_grant = desk_last(&used)->grant;
    pending = desk_hold(&two);
    desk->sql = "DROP TABLE ready";
    ready = desk_hold(&three);
    CS_EQ_U64(desk_vote(&ready, "dba1", true), CS_OK);
    desk->in_transaction = true;
    tx = desk_hold(&three);
    desk->in_transaction = false;
    uint64_t seq = cs_approval_seq(desk->a);
    desk_restart();
    CS_CHECK(cs_approval_seq(desk->a) > seq);
    CS_EQ_U64(desk_state(&used), CS_REQUEST_UNKNOWN);
    CS_EQ_U64(desk_last(&used)->state, CS_REQUEST_UNKNOWN);
    CS_EQ_U64(desk_state(&tx), CS_REQUEST_VOID);
    CS_EQ_U64(desk_state(&pending), CS_REQUEST_PENDING);
    CS_EQ_U64(desk_state(&ready), CS_REQUEST_APPROVED);
    CS_EQ_U64(cs_approval_consume(desk->a, rid(&used), &used_grant, &one, used.digest),
              CS_ERR_CONFLICT);
    CS_EQ_U64(desk_consume(&ready, &three), CS_ERR_CONFLICT); /* its session is of the last run */
    one = desk_session();
    struct cs_approval_held back = desk_hold(&one);
    CS_CHECK(!back.created && !cs_id_is_zero(&back.grant));
    CS_EQ_U64(desk_consume(&ready, &one), CS_OK);
    desk->sql = "DROP TABLE orders";
    back = desk_hold(&one);
    CS_CHECK(!back.created && strcmp(back.request, pending.request) == 0);
    CS_EQ_U64(desk_vote(&pending, "dba2", true), CS_OK);
    CS_EQ_U64(desk_consume(&pending, &one), CS_OK);
    desk_close();
}
CS_TEST(a_restart_keeps_what_waits_and_never_arms_what_was_used)
{
    world_run(restart);
}

static void resumed(struct world *w)
{
    desk_open(w);
    struct cs_id one = desk_session(), two = desk_session(), gone = desk_session();
    struct cs_approval_held ready = desk_hold(&one), denied, old, lost;
    CS_EQ_U64(desk_vote(&ready, "dba1", true), CS_OK);
    struct cs_id grant = desk_last(&ready)->grant;
    desk->sql = "DROP TABLE old";
    old = desk_hold(&two);
    CS_EQ_U64(desk_vote(&old, "dba1", false), CS_OK);
    world_now += 200000;
    desk->sql = "DROP TABLE denied";
    denied = desk_hold(&two);
    CS_EQ_U64(desk_vote(&denied, "dba1", false), CS_OK);
    desk->sql = "DROP TABLE lost";
    lost = desk_hold(&gone);
    CS_EQ_U64(desk_vote(&lost, "dba1", false), CS_OK);
    CS_EQ_U64(cs_approval_session_closed(desk->a, &gone, CS_SLICE_LIT("left")), CS_OK);
    cs_approval_free(desk->a);
    world_restart(w);
    CS_EQ_U64(cs_approval_resume(w->store, desk_change, NULL, &desk->a), CS_OK);
    desk->n_changes = 0;
    CS_EQ_U64(cs_approval_retell(desk->a), CS_OK);
    CS_EQ_U64(desk->n_changes, 2);
    CS_CHECK(desk_told(desk_last(&ready), &one) && desk_told(desk_last(&denied), &two));
    CS_EQ_U64(desk_last(&denied)->state, CS_REQUEST_DENIED);
    CS_CHECK(cs_id_eq(&desk_last(&ready)->grant, &grant));
    CS_EQ_U64(desk_consume(&ready, &one), CS_OK);
    desk_close();
}
CS_TEST(a_resumed_control_tells_again_what_may_be_unheard)
{
    world_run(resumed);
}

static bool stale(const struct cs_card *c, void *arg)
{
    CS_CHECK(c->chain.n == 2 && c->n_rules == 1);
    return cs_slice_eq_str(c->action.bytes, arg);
}

static void reload(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held keep = desk_hold(&s), lose[20];
    char bad[] = "DROP TABLE bad";
    desk->sql = bad;
    desk->async = false;
    desk->in_transaction = true; /* so that there may be many of one kind */
    for (size_t i = 0; i < CS_ARRAY_LEN(lose); i++) {
        lose[i] = desk_hold(&s);
    }
    CS_EQ_U64(desk_vote(&lose[3], "dba1", true), CS_OK);
    uint64_t n = 0;
    CS_EQ_U64(cs_approval_void_where(desk->a, stale, bad, CS_SLICE_LIT("the rules changed"), &n),
              CS_OK);
    CS_EQ_U64(n, CS_ARRAY_LEN(lose));
    for (size_t i = 0; i < CS_ARRAY_LEN(lose); i++) {
        CS_EQ_U64(desk_state(&lose[i]), CS_REQUEST_VOID);
    }
    CS_EQ_U64(desk_consume(&lose[3], &s), CS_ERR_CONFLICT);
    CS_EQ_U64(desk_state(&keep), CS_REQUEST_PENDING);
    desk_close();
}
CS_TEST(a_reload_voids_what_it_would_decide_otherwise)
{
    world_run(reload);
}

static void other_rules(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s), next;
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    desk->rules[1] = &desk->rule[1];
    desk->n_rules = 2; /* one more rule holds it now */
    next = desk_hold(&s);
    CS_CHECK(next.created && next.state == CS_REQUEST_PENDING);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_VOID);
    desk->rules[0] = &desk->rule[1]; /* the same two in another order are the same two */
    desk->rules[1] = &desk->rule[0];
    h = desk_hold(&s);
    CS_CHECK(!h.created);
    desk->elevated = true;
    h = desk_hold(&s);
    CS_CHECK(h.created);
    desk_close();
}
CS_TEST(an_approval_under_other_rules_is_not_taken_over)
{
    world_run(other_rules);
}

static void card(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    desk->sql = "DROP TABLE \x1b[2Jorders";
    struct cs_approval_held h = desk_hold(&s);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    const struct cs_card *c = desk_card(&h, "alice");
    CS_EQ_STR(c->rules[0].name, "change-data");
    CS_EQ_STR(c->rules[0].groups[0], "dba");
    CS_EQ_STR(c->chain.p[1].id, "local:bot");
    CS_EQ_STR(c->target, "orders");
    CS_EQ_STR(c->action.bytes, desk->sql);
    CS_CHECK(cs_slice_find(c->text_shown, 0x1b) == c->text_shown.n);
    CS_EQ_STR(c->action.role, "orders_owner");
    CS_EQ_STR(c->address, "10.1.1.1:5");
    CS_EQ_U64(strlen(c->digest_short), 8);
    CS_EQ_U64(c->n_votes, 1);
    CS_CHECK(c->votes[0].approve && c->votes[0].at_ms == world_now);
    CS_EQ_STR(c->votes[0].by, "local:dba1");
    CS_EQ_STR(c->words, "because");
    CS_EQ_U64(c->decided_ms, world_now);
    CS_EQ_U64(c->policy_version, 7);
    CS_CHECK(cs_id_eq(&c->session, &s));
    CS_CHECK(!c->may_vote && strstr(c->may_not_vote_because, "their own") != NULL);
    CS_CHECK(desk_card(&h, "")->may_not_vote_because == NULL);
    CS_CHECK(cs_approval_may_see(c, CS_SLICE_LIT("local:alice")));
    CS_CHECK(cs_approval_may_see(c, CS_SLICE_LIT("local:dba1")));
    CS_CHECK(!cs_approval_may_see(desk_card(&h, "eve"), CS_SLICE_LIT("local:eve")));
    CS_CHECK(!cs_approval_may_see(c, CS_SLICE_NULL));
    struct cs_card none;
    CS_EQ_U64(cs_approval_card(desk->a, CS_SLICE_LIT("00000000"), CS_SLICE_NULL, &w->arena, &none),
              CS_ERR_NOT_FOUND);
    desk_close();
}
CS_TEST(the_card_shows_what_was_stored)
{
    world_run(card);
}

static size_t listed(const char *viewer, bool all, uint64_t since, enum cs_request_state state)
{
    struct cs_approval_query q = {
        .state = state, .since = since, .viewer_id = cs_slice_str(viewer), .all = all};
    struct cs_card *cards;
    size_t n = 0;
    uint64_t seq = 0;
    CS_EQ_U64(cs_approval_list(desk->a, &q, &desk->w->arena, &cards, &n, &seq), CS_OK);
    CS_CHECK(seq >= cs_approval_seq(desk->a));
    for (size_t i = 1; i < n; i++) {
        CS_CHECK(cards[i - 1].seq > cards[i].seq);
    }
    return n;
}

static void lists(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held one = desk_hold(&s);
    desk->sql = "DROP TABLE other";
    uint64_t seq = cs_approval_seq(desk->a);
    struct cs_approval_held two = desk_hold(&s);
    CS_EQ_U64(desk_vote(&one, "dba1", false), CS_OK);
    CS_EQ_U64(listed("", true, 0, CS_REQUEST_NONE), 2);
    CS_EQ_U64(listed("local:alice", false, 0, CS_REQUEST_NONE), 2);
    CS_EQ_U64(listed("local:bot", false, 0, CS_REQUEST_PENDING), 1);
    CS_EQ_U64(listed("local:dba2", false, 0, CS_REQUEST_NONE), 2);
    CS_EQ_U64(listed("local:eve", false, 0, CS_REQUEST_NONE), 0);
    CS_EQ_U64(listed("local:dbot", false, 0, CS_REQUEST_NONE), 0); /* an agent decides nothing */
    CS_EQ_U64(listed("local:eve", true, seq, CS_REQUEST_NONE), 2);
    CS_EQ_U64(listed("local:eve", true, cs_approval_seq(desk->a), CS_REQUEST_NONE), 0);
    struct cs_approval_query q = {.all = false};
    struct cs_card *cards;
    size_t n;
    CS_EQ_U64(cs_approval_list(desk->a, &q, &w->arena, &cards, &n, &seq), CS_ERR_INVALID);
    CS_EQ_U64(desk_state(&two), CS_REQUEST_PENDING);
    desk_close();
}
CS_TEST(lists_show_what_concerns_the_viewer)
{
    world_run(lists);
}

static void oom(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h;
    bool done = false;
    CS_OOM_LOOP(done)
    {
        enum cs_err err = desk_try_hold(&s, &h);
        /* INVALID: the helper had no memory for a name. */
        if (err != CS_OK && err != CS_ERR_NO_MEMORY && err != CS_ERR_TOO_LARGE &&
            err != CS_ERR_INVALID) {
            CS_FAIL("%s", cs_err_name(err));
        }
        done = err == CS_OK;
    }
    CS_CHECK(done);
    done = false;
    CS_OOM_LOOP(done)
    {
        enum cs_err err = desk_vote(&h, "dba1", true);
        if (err == CS_ERR_CONFLICT) { /* it is stored, and was not said */
            err = cs_approval_say_again(desk->a);
        }
        CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
        done = err == CS_OK;
    }
    CS_CHECK(done && desk_state(&h) == CS_REQUEST_APPROVED);
    desk_close();
}
CS_TEST(a_lack_of_memory_approves_nothing)
{
    world_run(oom);
}
