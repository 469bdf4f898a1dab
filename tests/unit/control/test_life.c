/* The life of a held action: asked, decided by people, consumed once, reported. */
#include "world.h"

static struct cs_id login_bot(struct world *w)
{
    struct cs_id id;
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    return id;
}

static void card(struct world *w, const char *request, const char *token, json_t **ret)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/v1/requests/%s", request);
    struct world_call call = {.method = "GET", .path = path, .token = token};
    CS_EQ_U64(world_api(w, &call, ret), 200);
}

static void state_is(struct world *w, const char *request, const char *state)
{
    json_t *o = NULL;
    for (int i = 0; i < 100; i++) {
        card(w, request, w->carol, &o);
        if (strcmp(world_text(o, "state"), state) == 0) {
            json_decref(o);
            return;
        }
        json_decref(o);
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
    CS_FAIL("request %s did not become %s", request, state);
}

static void whole_life(struct world *w)
{
    struct cs_id id = login_bot(w), zero = {{0}};
    struct world_hold ask = {.session = id, .sql = "DROP TABLE orders"};
    struct world_held held;
    world_hold(w, &ask, &held);
    CS_CHECK(held.err == CS_OK && held.state == CS_REQUEST_PENDING && held.attached);
    CS_CHECK(strstr(held.url, "https://gate.example:7443/r/") == held.url);
    CS_CHECK(world_consume(w, 0, &id, &held, &zero) == CS_ERR_CONFLICT);

    CS_EQ_U64(world_vote(w, w->carol, "approve", held.request, held.digest, "fine"), 200);
    const struct world_news *n = world_news(w, &id, held.request, CS_REQUEST_APPROVED);
    CS_CHECK(n != NULL && n->gate == 0 && !cs_id_is_zero(&n->grant));
    struct cs_id grant = n->grant, wrong = cs_id_new();

    CS_CHECK(world_consume(w, 0, &id, &held, &wrong) == CS_ERR_CONFLICT);
    CS_CHECK(world_consume(w, 1, &id, &held, &grant) == CS_ERR_CONFLICT);
    struct world_held other = held;
    other.raw_digest[3] ^= 1;
    CS_CHECK(world_consume(w, 0, &id, &other, &grant) == CS_ERR_CONFLICT);
    CS_CHECK(world_consume(w, 0, &id, &held, &grant) == CS_OK);
    CS_CHECK(world_consume(w, 0, &id, &held, &grant) == CS_ERR_CONFLICT);
    state_is(w, held.request, "executing");

    struct cs_msg_executed done = {.session = id,
                                   .grant = grant,
                                   .outcome = CS_EXECUTED_DONE,
                                   .text = CS_SLICE_LIT("DROP TABLE")};
    CS_CHECK(cs_channel_send(w->gate[0], CS_MSG_EXECUTED, 0, &done, NULL, 0) == CS_OK);
    state_is(w, held.request, "done");
    CS_CHECK(world_consume(w, 0, &id, &held, &grant) == CS_ERR_CONFLICT);
}

CS_TEST(approved_action_is_consumed_exactly_once)
{
    world_run(whole_life);
}

static void digest_covers(struct world *w)
{
    struct cs_id id = login_bot(w);
    struct world_hold ask = {.session = id, .sql = "DROP TABLE orders"};
    struct world_held held;
    world_hold(w, &ask, &held);
    CS_CHECK(held.err == CS_OK);
    /* As the gate computes it from the bytes that it will forward. */
    struct cs_action *a = CS_NEW(&w->arena, struct cs_action);
    struct cs_ctl_who who;
    uint8_t match[CS_DIGEST], digest[CS_DIGEST];
    world_action(w, &ask, a);
    CS_CHECK(cs_ctl_session_who(cs_sessions_get(&w->control->sessions, &id), &w->arena, &who));
    cs_action_match(a, &who.chain, CS_SLICE_LIT("orders"), match);
    cs_action_digest(match, cs_slice_str(held.request), held.nonce, w->version, a->tx,
                     CS_SLICE_NULL, digest);
    CS_CHECK(memcmp(digest, held.raw_digest, CS_DIGEST) == 0);
}

CS_TEST(digest_is_the_one_that_the_gate_computes)
{
    world_run(digest_covers);
}

static void denied(struct world *w)
{
    struct cs_id id = login_bot(w);
    struct world_held held;
    world_hold(w, &(struct world_hold){.session = id, .sql = "DROP TABLE orders"}, &held);
    CS_EQ_U64(world_vote(w, w->dan, "deny", held.request, held.digest, "use the archive"), 200);
    const struct world_news *n = world_news(w, &id, held.request, CS_REQUEST_DENIED);
    CS_CHECK(n != NULL && cs_id_is_zero(&n->grant));
    CS_CHECK(strcmp(n->words, "use the archive") == 0);
    CS_CHECK(strstr(n->by, "dan") != NULL);
    CS_EQ_U64(world_vote(w, w->carol, "approve", held.request, held.digest, ""), 409);
}

CS_TEST(denial_reaches_the_requester_with_its_words)
{
    world_run(denied);
}

static void votes_refused(struct world *w)
{
    struct cs_id id = login_bot(w);
    struct world_held held;
    json_t *o = NULL;
    char other[CS_DIGEST * 2 + 1], path[64], body[128];
    world_hold(w, &(struct world_hold){.session = id, .sql = "DROP TABLE orders"}, &held);
    CS_CHECK(held.err == CS_OK);
    static const char *const verbs[] = {"approve", "deny"};
    for (size_t i = 0; i < 2; i++) {
        CS_EQ_U64(world_vote(w, w->bot, verbs[i], held.request, held.digest, ""), 403);
        CS_EQ_U64(world_vote(w, w->alice, verbs[i], held.request, held.digest, ""), 403);
        CS_EQ_U64(world_vote(w, NULL, verbs[i], held.request, held.digest, ""), 403); /* root */
        CS_EQ_U64(world_vote(w, "cs_p_junk", verbs[i], held.request, held.digest, ""), 401);
        memset(other, 'a', sizeof other - 1);
        other[sizeof other - 1] = 0;
        CS_EQ_U64(world_vote(w, w->carol, verbs[i], held.request, other, ""), 409);
        CS_EQ_U64(world_vote(w, w->carol, verbs[i], held.request, "abc", ""), 400);
        CS_EQ_U64(world_vote(w, w->carol, verbs[i], "ZZZZZZZZ", held.digest, ""), 404);
        CS_EQ_U64(world_vote(w, w->carol, verbs[i], "x", held.digest, ""), 404);
    }
    /* Root on the local socket with somebody's token is that somebody. */
    (void)snprintf(path, sizeof path, "/v1/requests/%s/approve", held.request);
    (void)snprintf(body, sizeof body, "{\"digest\":\"%s\"}", held.digest);
    struct world_call root = {
        .method = "POST", .path = path, .body = body, .token = w->alice, .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &root, &o), 403);
    json_decref(o);
    /* Without any identity at all. */
    struct world_call nobody = {.method = "POST", .path = path, .body = body};
    CS_EQ_U64(world_api(w, &nobody, &o), 401);
    json_decref(o);
    state_is(w, held.request, "pending");
    /* An administrator who is the requester's person does not get around it either. */
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/alice/groups",
                          "{\"groups\":[\"engineers\",\"dba\",\"countersign-admins\"]}"),
              200);
    CS_EQ_U64(world_vote(w, w->alice, "approve", held.request, held.digest, ""), 403);
    state_is(w, held.request, "pending");
}

CS_TEST(votes_of_agents_requesters_and_root_are_refused)
{
    world_run(votes_refused);
}

static void dba_needs_another(struct world *w)
{
    struct cs_id id;
    struct world_held held;
    CS_CHECK(world_login(w, 1, "carol", w->carol, "orders", &id) == CS_OK);
    world_hold(w,
               &(struct world_hold){
                   .gate = 1, .session = id, .sql = "DROP TABLE orders", .rules = "dba-change"},
               &held);
    CS_CHECK(held.err == CS_OK);
    CS_EQ_U64(world_vote(w, w->carol, "approve", held.request, held.digest, ""), 403);
    CS_EQ_U64(world_vote(w, w->dan, "approve", held.request, held.digest, ""), 200);
    CS_CHECK(world_news(w, &id, held.request, CS_REQUEST_APPROVED) != NULL);
}

CS_TEST(approver_who_asks_needs_a_second_one)
{
    world_run(dba_needs_another);
}

static void lies(struct world *w)
{
    struct cs_id id = login_bot(w);
    struct world_held held;
    struct world_hold ask = {.session = id, .sql = "DROP TABLE orders"};
    struct world_hold bad = ask;
    bad.rules = "dba-change"; /* other approvers */
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_CONFLICT);
    bad.rules = "no-such-rule";
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_CONFLICT);
    bad.rules = "";
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_CONFLICT);
    bad.rules = "change-data,change-data";
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_CONFLICT);
    bad = ask;
    bad.everyday = true;
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_CONFLICT);
    bad = ask;
    bad.snapshot = w->version + 7;
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_CONFLICT);
    bad = ask;
    bad.sql = "SELECT 1"; /* nothing to hold */
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_CONFLICT);
    bad = ask;
    bad.gate = 1; /* gate 0's session */
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
    bad = ask;
    bad.session = cs_id_new();
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
    bad = ask;
    bad.in_transaction = true; /* elevated, in a transaction */
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_DENIED);
    world_hold(w, &ask, &held);
    CS_CHECK(held.err == CS_OK);
}

CS_TEST(hold_trusts_no_gate_for_rules_and_sessions)
{
    world_run(lies);
}

static void unsealed(struct world *w)
{
    struct cs_id id = login_bot(w);
    int pair[2];
    CS_CHECK(pipe(pair) == 0);
    struct cs_msg_hold m = {.session = id,
                            .waiting = 1,
                            .rules = CS_SLICE_LIT("change-data"),
                            .elevated = 1,
                            .snapshot = w->version};
    int junk = -1;
    CS_CHECK(cs_sealed_make("junk", CS_SLICE_LIT("not an action"), &junk) == CS_OK);
    int fds[2] = {pair[0], junk};
    for (size_t i = 0; i < 2; i++) {
        struct cs_call call;
        memset(&call, 0, sizeof call);
        call.fd[0] = call.fd[1] = call.fd[2] = -1;
        CS_CHECK(cs_channel_call(w->gate[0], CS_MSG_HOLD, &m, &fds[i], 1,
                                 cs_mono_ns() + 5 * CS_NS_PER_S, &call) == CS_OK);
        CS_EQ_U64(((const struct cs_msg_held *)(const void *)call.msg.raw)->err, CS_ERR_INVALID);
        cs_call_done(&call);
    }
    (void)close(pair[0]);
    (void)close(pair[1]);
    (void)close(junk);
}

CS_TEST(hold_refuses_memory_that_is_not_sealed_or_no_action)
{
    world_run(unsealed);
}

static void repeats(struct world *w)
{
    struct cs_id one = login_bot(w), two = login_bot(w);
    struct world_hold ask = {.session = one, .sql = "DROP TABLE orders"};
    struct world_held first, second;
    world_hold(w, &ask, &first);
    ask.session = two;
    world_hold(w, &ask, &second);
    CS_CHECK(strcmp(first.request, second.request) == 0 && second.attached);
    CS_CHECK(memcmp(first.raw_digest, second.raw_digest, CS_DIGEST) == 0);
    CS_CHECK(memcmp(first.nonce, second.nonce, CS_NONCE) == 0);
    CS_EQ_U64(world_vote(w, w->carol, "approve", first.request, first.digest, ""), 200);
    /* The oldest live one gets the grant, the other hears that it ran. */
    const struct world_news *n = world_news(w, &one, first.request, CS_REQUEST_APPROVED);
    CS_CHECK(n != NULL && !cs_id_is_zero(&n->grant));
    struct cs_id grant = n->grant;
    n = world_news(w, &two, first.request, CS_REQUEST_APPROVED);
    CS_CHECK(n == NULL || cs_id_is_zero(&n->grant));
    CS_CHECK(world_consume(w, 0, &two, &second, &grant) == CS_ERR_CONFLICT);
    CS_CHECK(world_consume(w, 0, &one, &first, &grant) == CS_OK);
    CS_CHECK(world_news(w, &two, first.request, CS_REQUEST_EXECUTING) != NULL);
}

CS_TEST(repeat_attaches_and_only_one_gets_the_grant)
{
    world_run(repeats);
}

static void leaves(struct world *w)
{
    struct cs_id id = login_bot(w);
    struct world_held held;
    json_t *o = NULL;
    char path[64];
    world_hold(w, &(struct world_hold){.session = id, .sql = "DROP TABLE a"}, &held);
    struct cs_msg_hold_leave m = {
        .session = id, .request = cs_slice_str(held.request), .how = CS_LEAVE_CANCEL};
    CS_CHECK(cs_channel_send(w->gate[1], CS_MSG_HOLD_LEAVE, 0, &m, NULL, 0) == CS_OK);
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    state_is(w, held.request, "pending"); /* another gate's word counts for nothing */
    CS_CHECK(cs_channel_send(w->gate[0], CS_MSG_HOLD_LEAVE, 0, &m, NULL, 0) == CS_OK);
    state_is(w, held.request, "cancelled");

    world_hold(w, &(struct world_hold){.session = id, .sql = "DROP TABLE b"}, &held);
    (void)snprintf(path, sizeof path, "/v1/requests/%s/cancel", held.request);
    struct world_call call = {.method = "POST", .path = path, .token = w->dan};
    CS_EQ_U64(world_api(w, &call, &o), 403);
    json_decref(o);
    CS_EQ_U64(world_setup(w, "POST", path, ""), 403);
    call.token = w->bot;
    CS_EQ_U64(world_api(w, &call, &o), 200);
    json_decref(o);
    CS_CHECK(world_news(w, &id, held.request, CS_REQUEST_CANCELLED) != NULL);
}

CS_TEST(request_is_withdrawn_by_its_requester_only)
{
    world_run(leaves);
}

static void cancel_keys(struct world *w)
{
    struct cs_msg_cancel m = {.gate = 9, .key = CS_SLICE_LIT("12345678")};
    struct cs_id id;
    CS_CHECK(cs_channel_send(w->gate[1], CS_MSG_CANCEL, 0, &m, NULL, 0) == CS_OK);
    m.gate = 0;
    CS_CHECK(cs_channel_send(w->gate[1], CS_MSG_CANCEL, 0, &m, NULL, 0) == CS_OK);
    /* Both channels still serve. */
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    CS_CHECK(world_login(w, 1, "bot", w->bot, "orders", &id) == CS_OK);
    CS_EQ_U64(w->n_cancels[0], 1);
    CS_EQ_U64(w->n_cancels[1], 0);
}

CS_TEST(cancel_goes_to_the_gate_that_it_names)
{
    world_run(cancel_keys);
}

static void reloads(struct world *w)
{
    struct cs_id id = login_bot(w);
    struct world_held held;
    world_hold(w, &(struct world_hold){.session = id, .sql = "DROP TABLE a"}, &held);
    world_snapshot(w, WORLD_SAME_RULES_NEWER);
    CS_CHECK(cs_co_sleep(200 * CS_NS_PER_MS));
    state_is(w, held.request, "pending");
    world_snapshot(w, WORLD_OTHER_APPROVERS);
    CS_CHECK(world_news(w, &id, held.request, CS_REQUEST_VOID) != NULL);
    CS_EQ_U64(world_vote(w, w->carol, "approve", held.request, held.digest, ""), 409);
}

CS_TEST(reload_voids_what_the_new_rules_decide_differently)
{
    world_run(reloads);
}

static void leaves_pending(struct world *w)
{
    static struct world_held held;
    struct cs_id id = login_bot(w);
    world_hold(w, &(struct world_hold){.session = id, .sql = "DROP TABLE a"}, &held);
    CS_CHECK(held.err == CS_OK);
    w->kept_held = &held;
    w->kept = id;
    w->rules[1] = WORLD_OTHER_APPROVERS;
}

static void finds_void(struct world *w)
{
    state_is(w, w->kept_held->request, "void");
}

CS_TEST(requests_of_the_last_run_are_decided_again_at_a_start)
{
    world_run_twice(leaves_pending, finds_void, false);
}

static void leaves_approved(struct world *w)
{
    leaves_pending(w);
    w->rules[1] = WORLD_RULES;
    CS_EQ_U64(world_vote(w, w->carol, "approve", w->kept_held->request, w->kept_held->digest, ""),
              200);
    CS_CHECK(world_news(w, &w->kept, w->kept_held->request, CS_REQUEST_APPROVED) != NULL);
    w->n_seen = 0;
}

static void hears_again(struct world *w)
{
    CS_CHECK(cs_co_sleep(CS_NS_PER_S));
    const struct world_news *n =
        world_news(w, &w->kept, w->kept_held->request, CS_REQUEST_APPROVED);
    CS_CHECK(n != NULL && n->gate == 0 && !cs_id_is_zero(&n->grant));
    struct cs_id grant = n->grant;
    CS_CHECK(world_consume(w, 1, &w->kept, w->kept_held, &grant) == CS_ERR_CONFLICT);
    CS_CHECK(world_consume(w, 0, &w->kept, w->kept_held, &grant) == CS_OK);
    CS_CHECK(world_consume(w, 0, &w->kept, w->kept_held, &grant) == CS_ERR_CONFLICT);
}

CS_TEST(approval_outlives_a_restart_of_control_and_is_told_again)
{
    world_run_twice(leaves_approved, hears_again, true);
}

/* ---- control was restarted, the gates were not ---- */

static struct { /* what the first life leaves to the second */
    struct cs_id gone, here;
    struct world_held asked, used, lost, running;
    struct cs_id used_grant, lost_grant, running_grant;
} was;

static void consumed(struct world *w, const struct cs_id *id, const char *sql,
                     struct world_held *ret, struct cs_id *ret_grant)
{
    world_hold(w, &(struct world_hold){.session = *id, .sql = sql}, ret);
    CS_EQ_U64(world_vote(w, w->carol, "approve", ret->request, ret->digest, ""), 200);
    const struct world_news *n = world_news(w, id, ret->request, CS_REQUEST_APPROVED);
    CS_CHECK(n != NULL);
    *ret_grant = n->grant;
    CS_CHECK(world_consume(w, 0, id, ret, ret_grant) == CS_OK);
}

static void leaves_much(struct world *w)
{
    memset(&was, 0, sizeof was);
    was.gone = login_bot(w);
    was.here = login_bot(w);
    world_hold(w, &(struct world_hold){.session = was.gone, .sql = "DROP TABLE a"}, &was.asked);
    world_hold(w, &(struct world_hold){.session = was.here, .sql = "DROP TABLE a"}, &was.asked);
    CS_CHECK(was.asked.err == CS_OK && was.asked.attached);
    consumed(w, &was.gone, "DROP TABLE b", &was.used, &was.used_grant);
    consumed(w, &was.here, "DROP TABLE c", &was.lost, &was.lost_grant);
    consumed(w, &was.here, "DROP TABLE d", &was.running, &was.running_grant);
    w->n_seen = 0;
}

static void live(struct world *w, const struct cs_id *id, const char *request,
                 const struct cs_id *grant)
{
    struct cs_msg_session_live m = {.session = *id,
                                    .request = cs_slice_str(request),
                                    .grants = grant != NULL ? cs_slice(grant->b, CS_ID_BYTES)
                                                            : CS_SLICE_NULL};
    CS_CHECK(cs_channel_send(w->gate[0], CS_MSG_SESSION_LIVE, 0, &m, NULL, 0) == CS_OK);
}

static void told(struct world *w, unsigned gate)
{
    struct cs_msg_sessions_told m = {0};
    CS_CHECK(cs_channel_send(w->gate[gate], CS_MSG_SESSIONS_TOLD, 0, &m, NULL, 0) == CS_OK);
}

static void executed(struct world *w, const struct cs_id *id, const struct cs_id *grant)
{
    struct cs_msg_executed m = {.session = *id,
                                .grant = *grant,
                                .outcome = CS_EXECUTED_DONE,
                                .text = CS_SLICE_LIT("DROP TABLE")};
    CS_CHECK(cs_channel_send(w->gate[0], CS_MSG_EXECUTED, 0, &m, NULL, 0) == CS_OK);
}

static void gate_tells(struct world *w)
{
    told(w, 1); /* another gate's word closes nothing of this one's */
    executed(w, &was.gone, &was.used_grant);
    live(w, &was.here, was.asked.request, &was.running_grant);
    told(w, 0);
    state_is(w, was.used.request, "done");
    state_is(w, was.lost.request, "unknown");
    struct world_held held;
    for (int i = 0; i < 100; i++) {
        world_hold(w, &(struct world_hold){.session = was.gone, .sql = "DROP TABLE e"}, &held);
        if (held.err == CS_ERR_NOT_FOUND) {
            break;
        }
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
    state_is(w, was.running.request, "executing");
    executed(w, &was.here, &was.running_grant);
    executed(w, &was.here, &was.running_grant); /* said twice, to be sure */
    state_is(w, was.running.request, "done");
    /* The oldest that waited is gone: the grant goes to the one that is there. */
    CS_EQ_U64(world_vote(w, w->carol, "approve", was.asked.request, was.asked.digest, ""), 200);
    const struct world_news *n = world_news(w, &was.here, was.asked.request, CS_REQUEST_APPROVED);
    CS_CHECK(n != NULL && !cs_id_is_zero(&n->grant));
    struct cs_id grant = n->grant;
    CS_CHECK(world_consume(w, 0, &was.here, &was.asked, &grant) == CS_OK);
    CS_EQ_U64(w->n_killed, 0);
}

CS_TEST(what_a_gate_does_not_name_after_a_restart_has_ended)
{
    world_run_twice(leaves_much, gate_tells, true);
}

static void gate_tells_late(struct world *w)
{
    CS_EQ_U64(world_vote(w, w->carol, "approve", was.asked.request, was.asked.digest, ""), 200);
    CS_CHECK(cs_co_sleep(100 * CS_NS_PER_MS));
    const struct world_news *n = world_news(w, &was.gone, was.asked.request, CS_REQUEST_APPROVED);
    CS_CHECK(n != NULL && !cs_id_is_zero(&n->grant)); /* nobody knows yet that it is gone */
    w->n_seen = 0;
    struct cs_id later = login_bot(w);
    live(w, &was.here, was.asked.request, NULL);
    told(w, 0);
    n = world_news(w, &was.here, was.asked.request, CS_REQUEST_APPROVED);
    CS_CHECK(n != NULL && !cs_id_is_zero(&n->grant));
    state_is(w, was.running.request, "unknown");
    struct world_held held; /* who logged in at this control is nobody's to name */
    world_hold(w, &(struct world_hold){.session = later, .sql = "DROP TABLE e"}, &held);
    CS_CHECK(held.err == CS_OK);
}

CS_TEST(grant_of_a_session_that_ended_unheard_moves_on)
{
    world_run_twice(leaves_much, gate_tells_late, true);
}

static void gate_waits_no_more(struct world *w)
{
    struct cs_id unknown = cs_id_new();
    json_t *o = NULL;
    live(w, &was.here, "", NULL);
    live(w, &was.gone, "", NULL);
    live(w, &unknown, "", NULL);
    told(w, 0);
    json_int_t attached = 1;
    for (int i = 0; i < 100 && attached != 0; i++) {
        card(w, was.asked.request, w->carol, &o);
        attached = json_integer_value(json_object_get(o, "attached"));
        json_decref(o);
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
    CS_CHECK(attached == 0);
    state_is(w, was.asked.request, "pending"); /* for whoever asks the same */
    /* A session that has ended here is ended there. */
    CS_EQ_U64(w->n_killed, 1);
    CS_CHECK(cs_id_eq(&w->killed[0], &unknown));
}

CS_TEST(waits_that_a_gate_does_not_name_are_left)
{
    world_run_twice(leaves_much, gate_waits_no_more, true);
}

static void asks_again(struct world *w)
{
    struct cs_id id = login_bot(w), carols;
    struct world_held first, held;
    struct world_hold ask = {.session = id, .sql = "DROP TABLE orders"};
    world_hold(w, &ask, &first);
    ask.again = first.request;
    ask.snapshot = w->version + 7; /* held under another one: control's counts */
    world_hold(w, &ask, &held);
    CS_CHECK(held.err == CS_OK && held.state == CS_REQUEST_PENDING && held.attached);
    CS_CHECK(strcmp(held.request, first.request) == 0);
    /* Another question, another requester, no such name: never a new request, never this one. */
    struct world_hold bad = ask;
    bad.sql = "DROP TABLE customers";
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
    CS_CHECK(world_login(w, 1, "carol", w->carol, "orders", &carols) == CS_OK);
    bad = ask;
    bad.gate = 1;
    bad.session = carols;
    bad.rules = "dba-change";
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
    bad = ask;
    bad.again = "ZZZZZZZZ";
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
    bad.again = "x";
    world_hold(w, &bad, &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);

    CS_EQ_U64(world_vote(w, w->dan, "deny", first.request, first.digest, "no"), 200);
    world_hold(w, &ask, &held);
    CS_CHECK(held.err == CS_OK && held.state == CS_REQUEST_DENIED && !held.attached);
    CS_CHECK(strcmp(held.request, first.request) == 0 && strstr(held.by, "dan") != NULL);
    CS_CHECK(cs_id_is_zero(&held.grant));
    /* A client that repeats it of its own accord does ask anew. */
    ask.again = NULL;
    ask.snapshot = 0;
    world_hold(w, &ask, &held);
    CS_CHECK(held.err == CS_OK && strcmp(held.request, first.request) != 0);
}

CS_TEST(question_asked_again_by_name_never_makes_a_new_request)
{
    world_run(asks_again);
}
