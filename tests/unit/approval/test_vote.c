/* Every rule of voting. */
#include "desk.h"

#define REFUSED(h, who, err, sentence)                                                             \
    do {                                                                                           \
        CS_EQ_U64(desk_vote((h), (who), true), (err));                                             \
        CS_CHECK(strstr(desk_why(), (sentence)) != NULL);                                          \
        CS_CHECK(strcmp(desk_card((h), (who))->may_not_vote_because, desk_why()) == 0);            \
        CS_EQ_U64(desk_vote((h), (who), false), (err));                                            \
    } while (0)

static void set_groups(const char *name, const char *groups)
{
    struct cs_slice id = cs_arena_printf(&desk->w->arena, "local:%s", name);
    CS_EQ_U64(cs_store_principal_set_groups(desk->w->store, id, cs_slice_str(groups)), CS_OK);
}

static void disable(const char *name)
{
    struct cs_slice id = cs_arena_printf(&desk->w->arena, "local:%s", name);
    CS_EQ_U64(cs_store_principal_disable(desk->w->store, id), CS_OK);
}

static void requester(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    desk->chain = "dba1";
    struct cs_approval_held h = desk_hold(&s);
    REFUSED(&h, "dba1", CS_ERR_DENIED, "their own request");
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING);
    CS_EQ_U64(desk_vote(&h, "dba2", true), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_APPROVED);
    desk_close();
}
CS_TEST(nobody_approves_their_own_request)
{
    world_run(requester);
}

static void owner_in_chain(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    desk->chain = "dba1 dbot";
    struct cs_approval_held h = desk_hold(&s);
    REFUSED(&h, "dba1", CS_ERR_DENIED, "agent acting for them");
    REFUSED(&h, "dbot", CS_ERR_DENIED, "only people");
    desk_close();
}
CS_TEST(nobody_approves_what_their_agent_asks)
{
    world_run(owner_in_chain);
}

static void owner_not_in_chain(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    desk->chain = "alice dbot"; /* a chain that does not name the agent's owner */
    struct cs_approval_held h = desk_hold(&s);
    REFUSED(&h, "dba1", CS_ERR_DENIED, "agent acting for them");
    CS_EQ_U64(desk_vote(&h, "dba2", true), CS_OK);
    desk_close();
}
CS_TEST(the_owner_of_an_agent_is_a_party_even_when_the_chain_leaves_it_out)
{
    world_run(owner_not_in_chain);
}

static void agents(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    REFUSED(&h, "dbot", CS_ERR_DENIED, "only people"); /* in the right group, and still */
    desk_close();
}
CS_TEST(agents_never_vote)
{
    world_run(agents);
}

static void strangers(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    REFUSED(&h, "eve", CS_ERR_DENIED, "not in a group");
    REFUSED(&h, "sec", CS_ERR_DENIED, "not in a group");
    REFUSED(&h, "nobody", CS_ERR_DENIED, "disabled or unknown");
    struct cs_approval_held none = h;
    (void)snprintf(none.request, sizeof none.request, "00000000");
    CS_EQ_U64(desk_vote(&none, "dba1", true), CS_ERR_NOT_FOUND);
    set_groups("dba1", "ops\n"); /* was in it until now */
    REFUSED(&h, "dba1", CS_ERR_DENIED, "not in a group");
    desk_close();
}
CS_TEST(only_members_of_the_approver_groups_vote)
{
    world_run(strangers);
}

static void disabled(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    disable("dba1");
    REFUSED(&h, "dba1", CS_ERR_DENIED, "disabled");
    desk_close();
}
CS_TEST(the_disabled_never_vote)
{
    world_run(disabled);
}

static void digest(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s), other;
    desk->sql = "SELECT 1";
    other = desk_hold(&s);
    h.digest[31] ^= 1;
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_ERR_CONFLICT);
    CS_CHECK(strstr(desk_why(), "digest") != NULL);
    CS_EQ_U64(desk_vote(&h, "dba1", false), CS_ERR_CONFLICT);
    memcpy(h.digest, other.digest, sizeof h.digest); /* another request's digest */
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_ERR_CONFLICT);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING);
    CS_EQ_U64(desk_card(&h, "")->n_votes, 0);
    desk_close();
}
CS_TEST(a_vote_on_another_digest_is_refused)
{
    world_run(digest);
}

static void twice(struct world *w)
{
    desk_open(w);
    desk->rules[0] = &desk->rule[2];
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING);
    REFUSED(&h, "dba1", CS_ERR_CONFLICT, "has voted");
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING); /* not counted twice, and no way back to deny */
    CS_EQ_U64(desk_vote(&h, "dba2", true), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_APPROVED);
    CS_EQ_U64(desk_card(&h, "")->n_votes, 2);
    desk_close();
}
CS_TEST(a_quorum_is_of_distinct_people)
{
    world_run(twice);
}

static void dismissed(struct world *w)
{
    desk_open(w);
    desk->rules[0] = &desk->rule[2];
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s), h2;
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    disable("dba1");
    CS_EQ_U64(desk_vote(&h, "dba2", true), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING);
    CS_EQ_U64(desk_vote(&h, "both", true), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_APPROVED);
    desk->sql = "DROP TABLE other";
    h2 = desk_hold(&s);
    CS_EQ_U64(desk_vote(&h2, "dba2", true), CS_OK);
    set_groups("dba2", "");
    CS_EQ_U64(desk_vote(&h2, "both", true), CS_OK);
    CS_EQ_U64(desk_state(&h2), CS_REQUEST_PENDING);
    desk_close();
}
CS_TEST(the_vote_of_somebody_dismissed_since_does_not_count)
{
    world_run(dismissed);
}

static void two_rules(struct world *w)
{
    desk_open(w);
    desk->rules[1] = &desk->rule[1];
    desk->n_rules = 2;
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s), h2;
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    CS_EQ_U64(desk_vote(&h, "dba2", true), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING); /* as many DBAs as you like */
    CS_EQ_U64(desk_vote(&h, "sec", true), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_APPROVED);
    desk->sql = "DROP TABLE other";
    h2 = desk_hold(&s);
    CS_EQ_U64(desk_vote(&h2, "both", true), CS_OK);
    CS_EQ_U64(desk_state(&h2), CS_REQUEST_APPROVED);
    desk_close();
}
CS_TEST(every_rules_own_requirement_must_be_met_and_one_person_may_meet_several)
{
    world_run(two_rules);
}

static void deny(struct world *w)
{
    desk_open(w);
    desk->rules[0] = &desk->rule[2];
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    CS_EQ_U64(desk_vote(&h, "dba2", false), CS_OK);
    CS_EQ_U64(desk_last(&h)->state, CS_REQUEST_DENIED);
    CS_CHECK(desk_told(desk_last(&h), &s));
    CS_EQ_STR(cs_slice_str(desk_last(&h)->words), "because");
    REFUSED(&h, "both", CS_ERR_CONFLICT, "decided already");
    struct cs_approval_held again = desk_hold(&s); /* asking again is a new request */
    CS_CHECK(again.created && strcmp(again.request, h.request) != 0);
    desk_close();
}
CS_TEST(one_deny_ends_it_at_once)
{
    world_run(deny);
}

static void after_decision(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_OK);
    REFUSED(&h, "dba2", CS_ERR_CONFLICT, "decided already");
    CS_EQ_U64(desk_consume(&h, &s), CS_OK);
    REFUSED(&h, "dba2", CS_ERR_CONFLICT, "decided already");
    desk_close();
}
CS_TEST(no_votes_after_the_decision)
{
    world_run(after_decision);
}

static void after_expiry(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    world_now += 900 * 1000 - 1;
    CS_CHECK(desk_card(&h, "dba1")->may_vote);
    world_now += 1;
    REFUSED(&h, "dba1", CS_ERR_CONFLICT, "expired"); /* whether or not anything ticked */
    CS_EQ_U64(cs_approval_tick(desk->a), CS_OK);
    CS_EQ_U64(desk_last(&h)->state, CS_REQUEST_EXPIRED);
    CS_CHECK(desk_told(desk_last(&h), &s));
    REFUSED(&h, "dba1", CS_ERR_CONFLICT, "expired");
    desk_close();
}
CS_TEST(no_votes_after_expiry)
{
    world_run(after_expiry);
}

static void clock_back(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    world_now += 900 * 1000;
    REFUSED(&h, "dba1", CS_ERR_CONFLICT, "expired");
    world_now -= 800 * 1000;
    REFUSED(&h, "dba1", CS_ERR_CONFLICT, "expired");
    desk_close();
}
CS_TEST(setting_the_clock_back_revives_nothing)
{
    world_run(clock_back);
}

static void reasons(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    enum cs_request_state state;
    const char *why;
    static uint8_t big[CS_LIMIT_REASON_BYTES + 1];
    memset(big, 'x', sizeof big);
    CS_EQ_U64(cs_approval_vote(desk->a, cs_slice_str(h.request), CS_SLICE_LIT("local:dba1"), true,
                               h.digest, cs_slice(big, sizeof big), &state, &why),
              CS_ERR_TOO_LARGE);
    CS_EQ_U64(cs_approval_vote(desk->a, cs_slice_str(h.request), CS_SLICE_LIT("local:dba1"), true,
                               h.digest, CS_SLICE_LIT("\xff"), &state, &why),
              CS_ERR_INVALID);
    CS_EQ_U64(cs_approval_vote(desk->a, cs_slice_str(h.request), CS_SLICE_LIT("local:dba1"), true,
                               h.digest, cs_slice(big, sizeof big - 1), &state, &why),
              CS_OK);
    CS_EQ_U64(state, CS_REQUEST_APPROVED);
    desk_close();
}
CS_TEST(a_reason_is_short_valid_text)
{
    world_run(reasons);
}

/* ---- the audit log is the witness ---- */

static void unheard(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    desk->log_away = true;
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_ERR_UNAVAILABLE);
    CS_CHECK(strstr(desk_why(), "audit log") != NULL);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING);
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_ERR_CONFLICT); /* it is stored */
    CS_EQ_U64(cs_approval_say_again(desk->a), CS_ERR_UNAVAILABLE);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_PENDING);
    /* Over a restart, too. */
    desk_restart();
    desk->log_away = false;
    CS_EQ_U64(desk->n_said, 0);
    CS_EQ_U64(cs_approval_say_again(desk->a), CS_OK);
    CS_EQ_U64(desk->n_said, 1);
    CS_CHECK(memcmp(desk->said_digest, h.digest, sizeof h.digest) == 0);
    CS_EQ_U64(cs_approval_say_again(desk->a), CS_OK);
    CS_EQ_U64(desk->n_said, 1); /* nothing is left to be said */
    desk_close();
}
CS_TEST(a_vote_that_the_audit_log_does_not_have_approves_nothing)
{
    world_run(unheard);
}

static void counted_late(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    desk->log_away = true;
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_ERR_UNAVAILABLE);
    desk->log_away = false;
    CS_EQ_U64(cs_approval_say_again(desk->a), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_APPROVED);
    struct cs_id grant = desk_last(&h)->grant;
    CS_CHECK(!cs_id_is_zero(&grant));
    desk_close();
}
CS_TEST(a_vote_counts_as_soon_as_the_audit_log_has_it)
{
    world_run(counted_late);
}

static void no_is_no(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    desk->log_away = true;
    CS_EQ_U64(desk_vote(&h, "dba1", false), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_DENIED);
    desk->log_away = false;
    CS_EQ_U64(cs_approval_say_again(desk->a), CS_OK);
    CS_EQ_U64(desk->n_said, 1); /* and the log has it in the end */
    CS_EQ_U64(desk_state(&h), CS_REQUEST_DENIED);
    desk_close();
}
CS_TEST(a_no_needs_no_audit_log)
{
    world_run(no_is_no);
}

static void too_late(struct world *w)
{
    desk_open(w);
    struct cs_id s = desk_session();
    struct cs_approval_held h = desk_hold(&s);
    desk->log_away = true;
    CS_EQ_U64(desk_vote(&h, "dba1", true), CS_ERR_UNAVAILABLE);
    CS_EQ_U64(cs_approval_cancel(desk->a, cs_slice_str(h.request), CS_SLICE_LIT("local:alice"),
                                 CS_SLICE_NULL),
              CS_OK);
    desk->log_away = false;
    CS_EQ_U64(cs_approval_say_again(desk->a), CS_OK);
    CS_EQ_U64(desk_state(&h), CS_REQUEST_CANCELLED);
    desk_close();
}
CS_TEST(a_vote_that_is_heard_too_late_revives_nothing)
{
    world_run(too_late);
}
