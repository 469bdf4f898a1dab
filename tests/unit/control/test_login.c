/* Logging in, sessions, and what a gate may and may not say about them. */
#include "world.h"

static unsigned sessions(struct world *w, const char *token, bool root, unsigned *ret_status)
{
    json_t *o = NULL;
    struct world_call call = {
        .method = "GET", .path = "/v1/sessions", .token = token, .local = root, .uid = 0};
    *ret_status = world_api(w, &call, &o);
    unsigned n = (unsigned)json_array_size(json_object_get(o, "sessions"));
    json_decref(o);
    return n;
}

static void token_opens(struct world *w)
{
    struct cs_id one, two;
    unsigned status;
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &one) == CS_OK);
    CS_CHECK(world_login(w, 1, "carol", w->carol, "orders", &two) == CS_OK);
    CS_CHECK(!cs_id_eq(&one, &two));
    CS_EQ_U64(sessions(w, NULL, true, &status), 2);
    CS_EQ_U64(sessions(w, w->bot, false, &status), 1);
    CS_EQ_U64(sessions(w, w->alice, false, &status), 1); /* her agent's */
    CS_EQ_U64(sessions(w, w->dan, false, &status), 0);
    CS_EQ_U64(status, 200);
    CS_EQ_U64(sessions(w, NULL, false, &status), 0);
    CS_EQ_U64(status, 401);
}

CS_TEST(login_opens_a_session_with_the_right_token)
{
    world_run(token_opens);
}

static void wrong_is_wrong(struct world *w)
{
    struct cs_id id;
    CS_CHECK(world_login(w, 0, "bot", w->carol, "orders", &id) == CS_ERR_UNAUTHENTICATED);
    CS_CHECK(world_login(w, 0, "bot", "", "orders", &id) == CS_ERR_UNAUTHENTICATED);
    CS_CHECK(world_login(w, 0, "nobody", w->bot, "orders", &id) == CS_ERR_UNAUTHENTICATED);
    CS_CHECK(world_login(w, 0, "", w->bot, "orders", &id) == CS_ERR_UNAUTHENTICATED);
    CS_CHECK(world_login(w, 0, "local:bot", w->bot, "orders", &id) == CS_ERR_UNAUTHENTICATED);
    /* Which targets exist is told to nobody who has not proved who they are. */
    CS_CHECK(world_login(w, 0, "nobody", w->bot, "nowhere", &id) == CS_ERR_UNAUTHENTICATED);
    CS_CHECK(world_login(w, 0, "bot", w->carol, "nowhere", &id) == CS_ERR_UNAUTHENTICATED);
    CS_CHECK(world_login(w, 0, "bot", w->bot, "nowhere", &id) == CS_ERR_NOT_FOUND);
    CS_EQ_U64(w->control->sessions.n, 0);
    CS_EQ_U64(w->control->n_attempts, 0);
}

CS_TEST(login_refuses_wrong_tokens_and_unknown_names_alike)
{
    world_run(wrong_is_wrong);
}

static void start_auth(struct world *w, unsigned g, const char *user, struct cs_call *ret)
{
    struct cs_msg_auth_start m = {.protocol = CS_SLICE_LIT("postgres"),
                                  .user = cs_slice_str(user),
                                  .target = CS_SLICE_LIT("orders"),
                                  .address = CS_SLICE_LIT("10.0.0.1:1"),
                                  .client_nonce = CS_SLICE_LIT("abcdefgh")};
    memset(ret, 0, sizeof *ret);
    ret->fd[0] = ret->fd[1] = ret->fd[2] = -1;
    CS_CHECK(cs_channel_call(w->gate[g], CS_MSG_AUTH_START, &m, NULL, 0,
                             cs_mono_ns() + 5 * CS_NS_PER_S, ret) == CS_OK);
    CS_CHECK(ret->type == CS_MSG_AUTH_CHALLENGE);
}

static void prove_junk(struct world *w, unsigned g, uint64_t attempt, struct cs_call *ret)
{
    uint8_t junk[32] = {1};
    struct cs_msg_auth_proof m = {.attempt = attempt,
                                  .client_first_bare = CS_SLICE_LIT("n=,r=abcdefgh"),
                                  .gs2_header = CS_SLICE_LIT("n,,"),
                                  .channel_binding = CS_SLICE_LIT("biws"),
                                  .proof = cs_slice(junk, sizeof junk)};
    memset(ret, 0, sizeof *ret);
    ret->fd[0] = ret->fd[1] = ret->fd[2] = -1;
    CS_CHECK(cs_channel_call(w->gate[g], CS_MSG_AUTH_PROOF, &m, NULL, 0,
                             cs_mono_ns() + 5 * CS_NS_PER_S, ret) == CS_OK);
    CS_CHECK(ret->type == CS_MSG_AUTH_RESULT);
}

static void unknown_looks_known(struct world *w)
{
    static const char *const names[] = {"bot", "nobody", "bot", "nobody"};
    uint8_t salt[4][CS_SCRAM_SALT];
    char text[4][200];
    for (size_t i = 0; i < 4; i++) {
        struct cs_call call, result;
        start_auth(w, 0, names[i], &call);
        const struct cs_msg_auth_challenge *c = (const void *)call.msg.raw;
        CS_EQ_U64(c->salt.n, CS_SCRAM_SALT);
        CS_EQ_U64(c->iterations, CS_SCRAM_ROUNDS);
        CS_CHECK(c->nonce.n > 20);
        memcpy(salt[i], c->salt.p, CS_SCRAM_SALT);
        prove_junk(w, 0, c->attempt, &result);
        const struct cs_msg_auth_result *r = (const void *)result.msg.raw;
        CS_EQ_U64(r->err, CS_ERR_UNAUTHENTICATED);
        (void)snprintf(text[i], sizeof text[i], "%.*s", CS_SLICE_FMT(r->text));
        cs_call_done(&call);
        cs_call_done(&result);
    }
    /* The same name has the same salt each time, known or not. */
    CS_CHECK(memcmp(salt[0], salt[2], CS_SCRAM_SALT) == 0);
    CS_CHECK(memcmp(salt[1], salt[3], CS_SCRAM_SALT) == 0);
    CS_CHECK(memcmp(salt[0], salt[1], CS_SCRAM_SALT) != 0);
    CS_CHECK(strcmp(text[0], text[1]) == 0);
}

CS_TEST(login_of_an_unknown_name_looks_like_a_wrong_token)
{
    world_run(unknown_looks_known);
}

static void attempt_is_one_gates(struct world *w)
{
    struct cs_call call, result;
    start_auth(w, 0, "bot", &call);
    uint64_t attempt = ((const struct cs_msg_auth_challenge *)(const void *)call.msg.raw)->attempt;
    cs_call_done(&call);
    prove_junk(w, 1, attempt, &result);
    CS_EQ_U64(((const struct cs_msg_auth_result *)(const void *)result.msg.raw)->err,
              CS_ERR_UNAUTHENTICATED);
    cs_call_done(&result);
    CS_EQ_U64(w->control->n_attempts, 1); /* gate 0's own is still there */
    prove_junk(w, 0, attempt + 4096, &result);
    cs_call_done(&result);
    prove_junk(w, 0, attempt, &result);
    cs_call_done(&result);
    CS_EQ_U64(w->control->n_attempts, 0);
}

CS_TEST(login_attempt_belongs_to_the_gate_that_began_it)
{
    world_run(attempt_is_one_gates);
}

static void call_with(struct world *w, unsigned g, enum cs_msg_type t, const void *m,
                      struct cs_call *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->fd[0] = ret->fd[1] = ret->fd[2] = -1;
    CS_CHECK(cs_channel_call(w->gate[g], t, m, NULL, 0, cs_mono_ns() + 5 * CS_NS_PER_S, ret) ==
             CS_OK);
}

static void show_certificate(struct world *w, unsigned g, uint64_t attempt)
{
    static const uint8_t junk[4096] = {1, 0, 0, 1, 0};
    struct cs_msg_auth_certificate m = {.attempt = attempt,
                                        .protocol = CS_SLICE_LIT("postgres"),
                                        .user = CS_SLICE_LIT("bot"),
                                        .target = CS_SLICE_LIT("orders"),
                                        .transcript = cs_slice(junk, sizeof junk)};
    struct cs_call call;
    call_with(w, g, CS_MSG_AUTH_CERTIFICATE, &m, &call);
    CS_CHECK(call.type == CS_MSG_AUTH_RESULT);
    CS_EQ_U64(((const struct cs_msg_auth_result *)(const void *)call.msg.raw)->err,
              CS_ERR_UNAUTHENTICATED);
    cs_call_done(&call);
}

static void handshake_is_one_gates(struct world *w)
{
    const struct cs_msg_auth_ask ask = {.address = CS_SLICE_LIT("10.0.0.1:1")};
    uint8_t nonce[2][CS_SHA256];
    struct cs_call call;
    uint64_t attempt = 0;
    for (size_t i = 0; i < 2; i++) {
        call_with(w, 0, CS_MSG_AUTH_ASK, &ask, &call);
        CS_CHECK(call.type == CS_MSG_AUTH_NONCE);
        const struct cs_msg_auth_nonce *n = (const void *)call.msg.raw;
        CS_EQ_U64(n->nonce.n, CS_SHA256);
        memcpy(nonce[i], n->nonce.p, CS_SHA256);
        CS_CHECK(n->attempt != attempt);
        attempt = n->attempt;
        cs_call_done(&call);
    }
    CS_CHECK(memcmp(nonce[0], nonce[1], CS_SHA256) != 0);
    CS_EQ_U64(w->control->n_attempts, 2);
    show_certificate(w, 1, attempt); /* another gate's: it is still there */
    CS_EQ_U64(w->control->n_attempts, 2);
    prove_junk(w, 0, attempt, &call); /* no SCRAM exchange was begun: it is gone now */
    cs_call_done(&call);
    CS_EQ_U64(w->control->n_attempts, 1);
    show_certificate(w, 0, attempt);
    CS_EQ_U64(w->control->n_attempts, 1);
    start_auth(w, 0, "bot", &call);
    uint64_t scram = ((const struct cs_msg_auth_challenge *)(const void *)call.msg.raw)->attempt;
    cs_call_done(&call);
    show_certificate(w, 0, scram); /* no nonce was given for that one */
    CS_EQ_U64(w->control->n_attempts, 1);
    CS_EQ_U64(w->control->sessions.n, 0);
}

CS_TEST(a_handshake_with_a_certificate_is_good_once_and_for_its_gate)
{
    world_run(handshake_is_one_gates);
}

static void disabled_out(struct world *w)
{
    struct cs_id bot, carol, again;
    unsigned status;
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &bot) == CS_OK);
    CS_CHECK(world_login(w, 1, "carol", w->carol, "orders", &carol) == CS_OK);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/alice/disable", ""), 200);
    /* Her agent's session ends with her, and it cannot log in any more. */
    CS_EQ_U64(w->n_killed, 1);
    CS_CHECK(cs_id_eq(&w->killed[0], &bot));
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &again) == CS_ERR_UNAUTHENTICATED);
    CS_CHECK(world_login(w, 0, "alice", w->alice, "orders", &again) == CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(sessions(w, NULL, true, &status), 1);
    CS_EQ_U64(sessions(w, w->alice, false, &status), 0);
    CS_EQ_U64(status, 401);
    /* Whatever the gate says: the session is over. */
    struct world_held held;
    world_hold(w, &(struct world_hold){.gate = 0, .session = bot, .sql = "DROP TABLE a"}, &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
}

CS_TEST(disabling_a_person_ends_the_sessions_of_its_agents)
{
    world_run(disabled_out);
}

static void killed(struct world *w)
{
    struct cs_id id;
    char path[100], hex[CS_ID_TEXT];
    unsigned status;
    CS_CHECK(world_login(w, 1, "bot", w->bot, "orders", &id) == CS_OK);
    (void)snprintf(path, sizeof path, "/v1/sessions/%s/kill", cs_id_text(&id, hex));
    json_t *o = NULL;
    struct world_call agent = {.method = "POST", .path = path, .token = w->bot};
    CS_EQ_U64(world_api(w, &agent, &o), 403);
    json_decref(o);
    CS_EQ_U64(w->n_killed, 0);
    CS_EQ_U64(world_setup(w, "POST", path, "{\"reason\":\"enough\"}"), 200);
    CS_EQ_U64(w->n_killed, 1);
    CS_EQ_U64(world_setup(w, "POST", path, ""), 409);
    CS_EQ_U64(sessions(w, NULL, true, &status), 0);
    CS_EQ_U64(world_setup(w, "POST", "/v1/sessions/00000000000000000000000000000000/kill", ""),
              404);
    CS_EQ_U64(world_setup(w, "POST", "/v1/sessions/x/kill", ""), 404);
}

CS_TEST(session_is_killed_by_set_up_only)
{
    world_run(killed);
}

static void gate_dies(struct world *w)
{
    struct cs_id one, two;
    struct world_held held;
    unsigned status;
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &one) == CS_OK);
    CS_CHECK(world_login(w, 1, "carol", w->carol, "orders", &two) == CS_OK);
    world_hold(w, &(struct world_hold){.gate = 0, .session = one, .sql = "DROP TABLE a"}, &held);
    CS_CHECK(held.err == CS_OK);
    cs_channel_close(w->gate[0]);
    w->gate[0] = NULL;
    for (int i = 0; i < 100 && sessions(w, NULL, true, &status) != 1; i++) {
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
    CS_EQ_U64(sessions(w, NULL, true, &status), 1);
    /* Outside a transaction the request stays, unattached. */
    json_t *o = NULL;
    char path[64];
    (void)snprintf(path, sizeof path, "/v1/requests/%s", held.request);
    struct world_call call = {.method = "GET", .path = path, .token = w->carol};
    CS_EQ_U64(world_api(w, &call, &o), 200);
    CS_CHECK(strcmp(world_text(o, "state"), "pending") == 0);
    CS_EQ_U64((uint64_t)json_integer_value(json_object_get(o, "attached")), 0);
    json_decref(o);
}

CS_TEST(gate_that_ends_takes_its_sessions_along)
{
    world_run(gate_dies);
}

static void closes(struct world *w)
{
    struct cs_id id;
    unsigned status;
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    struct cs_msg_session_opened opened = {
        .session = id, .database = CS_SLICE_LIT("orders"), .application = CS_SLICE_LIT("psql")};
    CS_CHECK(cs_channel_send(w->gate[0], CS_MSG_SESSION_OPENED, 0, &opened, NULL, 0) == CS_OK);
    struct cs_msg_session_closed closed = {.session = id, .why = CS_SLICE_LIT("client left")};
    /* SECURITY: another gate cannot end it. */
    CS_CHECK(cs_channel_send(w->gate[1], CS_MSG_SESSION_CLOSED, 0, &closed, NULL, 0) == CS_OK);
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    CS_EQ_U64(sessions(w, NULL, true, &status), 1);
    CS_CHECK(cs_channel_send(w->gate[0], CS_MSG_SESSION_CLOSED, 0, &closed, NULL, 0) == CS_OK);
    for (int i = 0; i < 100 && sessions(w, NULL, true, &status) != 0; i++) {
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
    json_t *o = NULL;
    struct world_call all = {
        .method = "GET", .path = "/v1/sessions", .query = "all=1&limit=5", .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &all, &o), 200);
    const json_t *s = json_array_get(json_object_get(o, "sessions"), 0);
    CS_CHECK(strcmp(world_text(s, "state"), "ended") == 0);
    CS_CHECK(strcmp(world_text(s, "application"), "psql") == 0);
    CS_CHECK(strcmp(world_text(s, "why"), "client left") == 0);
    json_decref(o);
    CS_EQ_U64(w->control->sessions.n, 0);
}

CS_TEST(session_is_closed_by_its_own_gate_only)
{
    world_run(closes);
}

static void leaves_open(struct world *w)
{
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &w->kept) == CS_OK);
}

static void finds_closed(struct world *w)
{
    unsigned status;
    struct world_held held;
    CS_EQ_U64(sessions(w, NULL, true, &status), 0);
    world_hold(w, &(struct world_hold){.session = w->kept, .sql = "DROP TABLE a"}, &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
}

CS_TEST(sessions_of_the_last_run_are_closed_when_gates_are_new)
{
    world_run_twice(leaves_open, finds_closed, false);
}

static void finds_open(struct world *w)
{
    unsigned status;
    struct world_held held;
    CS_EQ_U64(sessions(w, NULL, true, &status), 1);
    /* SECURITY: still that gate's only. */
    world_hold(w, &(struct world_hold){.gate = 1, .session = w->kept, .sql = "DROP TABLE a"},
               &held);
    CS_CHECK(held.err == CS_ERR_NOT_FOUND);
    world_hold(w, &(struct world_hold){.gate = 0, .session = w->kept, .sql = "DROP TABLE a"},
               &held);
    CS_CHECK(held.err == CS_OK);
}

CS_TEST(sessions_outlive_a_restart_of_control_when_gates_do)
{
    world_run_twice(leaves_open, finds_open, true);
}

/* ---- what is taken away while somebody logs in ---- */

struct racing {
    struct world *w;
    const char *who;
    char token[CS_TOKEN_TEXT];
    struct cs_event done;
    enum cs_err err;
    struct cs_id id;
};

static void race_login(void *arg)
{
    struct racing *r = arg;
    r->err = world_login(r->w, 0, r->who, r->token, "orders", &r->id);
    cs_event_set(&r->done);
}

/* A log-in, and the change after `pause`: whatever the order, no session with what was before is
 * left. `group`: the one that she has afterwards, NULL: the change is a new token. Returns whether
 * a session was opened at all. */
static bool race(struct world *w, uint64_t pause_ns, const char *path, const char *body,
                 const char *group)
{
    struct racing *r = CS_NEW(&w->arena, struct racing);
    cs_handle co;
    *r = (struct racing){.w = w, .who = group != NULL ? "bot" : "alice"};
    (void)snprintf(r->token, sizeof r->token, "%s", group != NULL ? w->bot : w->alice);
    CS_CHECK(cs_co_spawn(w->loop, "racing", race_login, r, &co) == CS_OK);
    CS_CHECK(cs_co_sleep(pause_ns));
    json_t *o = NULL;
    struct world_call call = {.method = "POST", .path = path, .body = body, .local = true};
    CS_EQ_U64(world_api(w, &call, &o), 200);
    if (group == NULL) {
        (void)snprintf(w->alice, sizeof w->alice, "%s", world_text(o, "token"));
    }
    json_decref(o);
    struct cs_wait wait = CS_WAIT_ON(CS_WAIT_EVENT, &r->done);
    CS_CHECK(cs_wait(&wait, 1, cs_mono_ns() + 20 * CS_NS_PER_S) == CS_WOKE_READY);
    if (r->err != CS_OK) {
        CS_CHECK(r->err == CS_ERR_UNAUTHENTICATED || r->err == CS_ERR_UNAVAILABLE);
        return false;
    }
    const struct cs_ctl_session *s = cs_sessions_get(&w->control->sessions, &r->id);
    struct cs_ctl_who who;
    if (s != NULL && !s->killed) {
        CS_CHECK(group != NULL && cs_ctl_session_who(s, &w->arena, &who));
        CS_EQ_STR(who.chain.p[1].groups[0], group);
    }
    return true;
}

enum { RACES = 150 };

/* A log-in here takes some milliseconds (4096 rounds on the client's side): the pauses sweep over
 * all of it, in steps that are short against a commit. */
static uint64_t pause_of(unsigned i, uint64_t took_ns)
{
    return took_ns * i / RACES * 5 / 4;
}

static uint64_t login_takes(struct world *w)
{
    struct cs_id id;
    uint64_t begun = cs_mono_ns();
    CS_CHECK(world_login(w, 0, "alice", w->alice, "orders", &id) == CS_OK);
    return cs_mono_ns() - begun;
}

static void groups_race(struct world *w)
{
    uint64_t took = login_takes(w);
    unsigned opened = 0;
    for (unsigned i = 0; i < RACES; i++) {
        const char *group = i % 2 == 0 ? "others" : "agents";
        char body[64];
        (void)snprintf(body, sizeof body, "{\"groups\":[\"%s\"]}", group);
        opened += race(w, pause_of(i, took), "/v1/users/bot/groups", body, group);
    }
    CS_CHECK(opened > RACES / 20); /* the race was one */
}
CS_TEST(groups_that_change_during_a_login_are_those_of_its_session)
{
    world_run(groups_race);
}

static void token_race(struct world *w)
{
    uint64_t took = login_takes(w);
    unsigned opened = 0;
    for (unsigned i = 0; i < RACES; i++) {
        opened += race(w, pause_of(i, took), "/v1/users/alice/token", "{}", NULL);
    }
    CS_CHECK(opened > RACES / 8);
}
CS_TEST(a_token_that_is_replaced_during_a_login_opens_nothing_that_lasts)
{
    world_run(token_race);
}
