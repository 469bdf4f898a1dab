/* The API: who may call what, strict input, waiting, and what is passed on to the supervisor. */
#include "audit/leaf.h"
#include "world.h"

static unsigned call(struct world *w, const char *method, const char *path, const char *query,
                     const char *token, const char *body, json_t **ret)
{
    struct world_call c = {
        .method = method, .path = path, .query = query, .token = token, .body = body};
    return world_api(w, &c, ret);
}

static unsigned status_of(struct world *w, const char *method, const char *path, const char *token,
                          const char *body)
{
    json_t *o = NULL;
    unsigned status = call(w, method, path, NULL, token, body, &o);
    CS_CHECK(status < 400 || (world_text(o, "error")[0] != 0 && world_text(o, "message")[0] != 0));
    json_decref(o);
    return status;
}

static void who(struct world *w)
{
    json_t *o = NULL;
    CS_EQ_U64(call(w, "GET", "/v1/whoami", NULL, w->bot, NULL, &o), 200);
    CS_CHECK(strcmp(world_text(o, "id"), "local:bot") == 0);
    CS_CHECK(strcmp(world_text(o, "kind"), "agent") == 0);
    CS_CHECK(json_is_false(json_object_get(o, "may_set_up")));
    CS_CHECK(json_is_null(json_object_get(o, "local_uid")));
    json_decref(o);
    struct world_call root = {.method = "GET", .path = "/v1/whoami", .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &root, &o), 200);
    CS_CHECK(json_is_null(json_object_get(o, "id")));
    CS_CHECK(json_is_true(json_object_get(o, "may_set_up")));
    json_decref(o);
    struct world_call stranger = {
        .method = "GET", .path = "/v1/whoami", .local = true, .uid = 54321};
    CS_EQ_U64(world_api(w, &stranger, &o), 401);
    json_decref(o);
    /* SECURITY: a user id counts only on the local socket. */
    struct world_call remote = {.method = "GET", .path = "/v1/users", .local = false, .uid = 0};
    CS_EQ_U64(world_api(w, &remote, &o), 401);
    json_decref(o);
    /* A wrong token is wrong, also for root. */
    root.token = "cs_p_wrong";
    CS_EQ_U64(world_api(w, &root, &o), 401);
    json_decref(o);
    CS_EQ_U64(status_of(w, "GET", "/v1/health", NULL, NULL), 200);
}

CS_TEST(api_knows_who_calls)
{
    world_run(who);
}

static void set_up_rights(struct world *w)
{
    static const char *const calls[][3] = {
        {"POST", "/v1/users", "{\"name\":\"x\"}"},
        {"GET", "/v1/users", NULL},
        {"POST", "/v1/users/alice/token", NULL},
        {"POST", "/v1/users/alice/groups", "{\"groups\":[]}"},
        {"POST", "/v1/users/alice/disable", NULL},
        {"POST", "/v1/agents", "{\"name\":\"x\",\"owner\":\"alice\"}"},
        {"PUT", "/v1/secrets/x", "{\"value\":\"x\"}"},
        {"GET", "/v1/secrets", NULL},
        {"GET", "/v1/secrets/key", NULL},
        {"POST", "/v1/reload", NULL},
        {"GET", "/v1/status", NULL},
        {"GET", "/v1/sessions/00000000000000000000000000000000/recording", NULL},
    };
    /* An agent of an administrator is no administrator. */
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/alice/groups",
                          "{\"groups\":[\"engineers\",\"countersign-admins\"]}"),
              200);
    for (size_t i = 0; i < CS_ARRAY_LEN(calls); i++) {
        CS_EQ_U64(status_of(w, calls[i][0], calls[i][1], w->bot, calls[i][2]), 403);
        CS_EQ_U64(status_of(w, calls[i][0], calls[i][1], w->carol, calls[i][2]), 403);
        CS_EQ_U64(status_of(w, calls[i][0], calls[i][1], NULL, calls[i][2]), 401);
    }
    CS_EQ_U64(status_of(w, "GET", "/v1/users", w->alice, NULL), 200);
    /* Nor an agent in that group itself. */
    CS_EQ_U64(
        world_setup(w, "POST", "/v1/users/bot/groups", "{\"groups\":[\"countersign-admins\"]}"),
        200);
    CS_EQ_U64(status_of(w, "GET", "/v1/users", w->bot, NULL), 403);
}

CS_TEST(api_set_up_needs_the_right)
{
    world_run(set_up_rights);
}

static void users(struct world *w)
{
    json_t *o = NULL;
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", "{\"name\":\"alice\"}"), 409);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", "{\"name\":\"Al ice\"}"), 400);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", "{\"name\":\"x\",\"groups\":[\"A B\"]}"), 400);
    CS_EQ_U64(world_setup(w, "POST", "/v1/agents", "{\"name\":\"x\",\"owner\":\"bot\"}"), 409);
    CS_EQ_U64(world_setup(w, "POST", "/v1/agents", "{\"name\":\"x\",\"owner\":\"nobody\"}"), 409);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/nobody/token", ""), 404);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/nobody/disable", ""), 404);
    /* A new token makes the old one void at once. */
    struct world_call renew = {
        .method = "POST", .path = "/v1/users/carol/token", .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &renew, &o), 200);
    CS_EQ_U64(status_of(w, "GET", "/v1/whoami", w->carol, NULL), 401);
    CS_EQ_U64(status_of(w, "GET", "/v1/whoami", world_text(o, "token"), NULL), 200);
    json_decref(o);
    struct world_call list = {.method = "GET", .path = "/v1/users", .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &list, &o), 200);
    const json_t *all = json_object_get(o, "users");
    CS_EQ_U64(json_array_size(all), 4);
    size_t i;
    const json_t *u;
    json_array_foreach(all, i, u)
    {
        CS_CHECK(json_object_get(u, "token") == NULL);
        if (strcmp(world_text(u, "name"), "bot") == 0) {
            CS_CHECK(strcmp(world_text(u, "owner"), "alice") == 0);
            CS_CHECK(strcmp(world_text(u, "kind"), "agent") == 0);
        }
    }
    json_decref(o);
}

CS_TEST(api_sets_up_people_and_agents)
{
    world_run(users);
}

static void secrets(struct world *w)
{
    json_t *o = NULL;
    CS_EQ_U64(world_secret(w, "db", "hunter2hunter2"), 200);
    CS_EQ_U64(world_secret(w, "db", "hunter3hunter3"), 200);
    CS_EQ_U64(world_secret(w, "db", ""), 400);
    CS_EQ_U64(world_setup(w, "PUT", "/v1/secrets/db", "{}"), 400);
    /* In clear it is not taken, nor what was not sealed to keeper's key. */
    CS_EQ_U64(world_setup(w, "PUT", "/v1/secrets/db", "{\"value\":\"hunter4\"}"), 400);
    CS_EQ_U64(world_setup(w, "PUT", "/v1/secrets/db", "{\"sealed\":\"hunter4!\"}"), 400);
    char junk[140];
    memset(junk, 'A', sizeof junk - 1);
    junk[sizeof junk - 1] = 0;
    memcpy(junk, "{\"sealed\":\"", 11);
    memcpy(junk + sizeof junk - 3, "\"}", 3);
    CS_EQ_U64(world_setup(w, "PUT", "/v1/secrets/db", junk), 400);
    CS_EQ_U64(world_secret(w, "D%20B", "x"), 400);
    struct world_call list = {.method = "GET", .path = "/v1/secrets", .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &list, &o), 200);
    char *text = json_dumps(o, 0);
    CS_CHECK(strstr(text, "\"db\"") != NULL && strstr(text, "hunter") == NULL);
    const json_t *row = json_array_get(json_object_get(o, "secrets"), 0);
    CS_EQ_U64((uint64_t)json_integer_value(json_object_get(row, "version")), 2);
    json_decref(o);
    /* On disk there is only the sealed form. */
    char path[128];
    static char file[1 << 20];
    static const char *const names[] = {"state.db", "state.db-wal"};
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", w->dir, names[i]);
        FILE *f = fopen(path, "r");
        size_t n = f != NULL ? fread(file, 1, sizeof file, f) : 0;
        CS_CHECK(memmem(file, n, "hunter", 6) == NULL);
        if (f != NULL) {
            (void)fclose(f);
        }
    }
    json_free_t free_it;
    json_get_alloc_funcs(NULL, &free_it);
    free_it(text);
}

CS_TEST(api_seals_secrets_and_never_shows_them)
{
    world_run(secrets);
}

static void helpers(struct world *w)
{
    CS_EQ_U64(world_secret(w, "db", "one"), 200);
    world_helpers_die(w);
    struct world_call key = {.method = "GET", .path = "/v1/secrets/key", .local = true};
    json_t *o = NULL;
    CS_EQ_U64(world_api(w, &key, &o), 503);
    CS_CHECK(strstr(world_text(o, "message"), "keeper") != NULL);
    json_decref(o);
    world_helpers_start(w);
    CS_EQ_U64(world_secret(w, "db", "two"), 200);
}

CS_TEST(api_says_that_keeper_is_away_and_works_again_afterwards)
{
    world_run(helpers);
}

static void bad_input(struct world *w)
{
    static const char *const bodies[] = {"{",
                                         "[]",
                                         "{\"name\":\"a\",\"name\":\"b\"}",
                                         "{\"name\":\"a\",\"admin\":1}",
                                         "{\"name\":1}",
                                         "{\"name\":\"a\xff\"}",
                                         "{\"name\":\"a\"}{}",
                                         "null",
                                         "",
                                         "{\"name\":\"a\",\"groups\":{}}"};
    for (size_t i = 0; i < CS_ARRAY_LEN(bodies); i++) {
        if (world_setup(w, "POST", "/v1/users", bodies[i]) != 400) {
            CS_FAIL("accepted: %s", bodies[i]);
        }
    }
    static char big[60000];
    (void)snprintf(big, sizeof big, "{\"name\":\"%0*d\"}", 50000, 7);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", big), 400);
    memset(big, '[', sizeof big - 1);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", big), 400);
    json_t *o = NULL;
    static const char *const queries[] = {"wait=46", "wait=-1",      "wait=1&wait=1", "x=1",
                                          "since=a", "state=asleep", "wait"};
    for (size_t i = 0; i < CS_ARRAY_LEN(queries); i++) {
        if (call(w, "GET", "/v1/requests", queries[i], w->carol, NULL, &o) != 400) {
            CS_FAIL("accepted: %s", queries[i]);
        }
        json_decref(o);
    }
    CS_EQ_U64(status_of(w, "GET", "/v1/nothing", w->carol, NULL), 404);
    CS_EQ_U64(status_of(w, "DELETE", "/v1/users", w->carol, NULL), 404);
    CS_EQ_U64(status_of(w, "GET", "/v1/whoami", w->carol, "{}"), 400);
}

CS_TEST(api_refuses_bad_input)
{
    world_run(bad_input);
}

/* ---- requests as seen by people ---- */

static void hold_one(struct world *w, struct cs_id *id, struct world_held *held, const char *sql)
{
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", id) == CS_OK);
    world_hold(w, &(struct world_hold){.session = *id, .sql = sql}, held);
    CS_CHECK(held->err == CS_OK);
}

static void cards(struct world *w)
{
    struct cs_id id;
    struct world_held held;
    json_t *o = NULL;
    char path[64];
    hold_one(w, &id, &held, "DROP TABLE a; -- \xe2\x80\xae evil\x1b[2K");
    (void)snprintf(path, sizeof path, "/v1/requests/%s", held.request);
    CS_EQ_U64(call(w, "GET", path, NULL, w->carol, NULL, &o), 200);
    CS_CHECK(strcmp(world_text(o, "digest"), held.digest) == 0);
    CS_CHECK(strcmp(world_text(o, "rule"), "change-data") == 0);
    CS_CHECK(strcmp(world_text(o, "target"), "orders") == 0);
    CS_CHECK(strstr(world_text(o, "text"), "\xe2\x80\xae") != NULL);
    CS_CHECK(strstr(world_text(o, "text_shown"), "\xe2\x80\xae") == NULL);
    CS_CHECK(strchr(world_text(o, "text_shown"), 0x1b) == NULL);
    CS_CHECK(json_is_true(json_object_get(o, "may_vote")));
    CS_EQ_U64(json_array_size(json_object_get(o, "chain")), 2);
    const json_t *facts = json_object_get(o, "facts");
    CS_CHECK(strcmp(world_text(facts, "sql.verb"), "DROP TABLE") == 0);
    json_decref(o);
    CS_EQ_U64(call(w, "GET", path, NULL, w->alice, NULL, &o), 200);
    CS_CHECK(json_is_false(json_object_get(o, "may_vote")));
    CS_CHECK(world_text(o, "may_not_vote_because")[0] != 0);
    json_decref(o);
    /* Somebody whom it does not concern is told that there is no such thing. */
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/dan/groups", "{\"groups\":[]}"), 200);
    CS_EQ_U64(status_of(w, "GET", path, w->dan, NULL), 404);
    CS_EQ_U64(call(w, "GET", "/v1/requests", NULL, w->dan, NULL, &o), 200);
    CS_EQ_U64(json_array_size(json_object_get(o, "requests")), 0);
    json_decref(o);
    CS_EQ_U64(call(w, "GET", "/v1/requests", "state=pending", w->bot, NULL, &o), 200);
    CS_EQ_U64(json_array_size(json_object_get(o, "requests")), 1);
    json_decref(o);
}

CS_TEST(api_shows_a_card_to_those_it_concerns)
{
    world_run(cards);
}

static void large(struct world *w)
{
    struct cs_id id;
    struct world_held held;
    json_t *o = NULL;
    char path[64];
    size_t n = 300000;
    char *sql = cs_arena_alloc(&w->arena, n + 1);
    memset(sql, 'x', n);
    memcpy(sql, "DROP TABLE ", 11);
    hold_one(w, &id, &held, sql);
    (void)snprintf(path, sizeof path, "/v1/requests/%s", held.request);
    CS_EQ_U64(call(w, "GET", path, NULL, w->carol, NULL, &o), 200); /* in sealed memory */
    CS_EQ_U64(json_string_length(json_object_get(o, "text")), n);
    json_decref(o);
}

static void taken_away(struct world *w)
{
    struct cs_id id;
    /* Of an agent when its owner's groups change, and of whoever has a new token. */
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/alice/groups", "{\"groups\":[\"engineers\"]}"),
              200);
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    CS_EQ_U64(w->n_killed, 1);
    CS_CHECK(cs_id_eq(&w->killed[0], &id));
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/bot/token", ""), 200);
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    CS_EQ_U64(w->n_killed, 2);
    CS_CHECK(cs_id_eq(&w->killed[1], &id));
}

CS_TEST(api_changes_of_groups_and_tokens_end_live_sessions)
{
    world_run(taken_away);
}

static void hidden(struct world *w)
{
    struct cs_id id;
    struct world_held held;
    char path[64], body[128];
    hold_one(w, &id, &held, "DROP TABLE a");
    CS_EQ_U64(world_setup(w, "POST", "/v1/users/dan/groups", "{\"groups\":[]}"), 200);
    (void)snprintf(body, sizeof body, "{\"digest\":\"%s\"}", held.digest);
    static const char *const calls[] = {"approve", "deny", "cancel"};
    for (size_t i = 0; i < CS_ARRAY_LEN(calls); i++) {
        (void)snprintf(path, sizeof path, "/v1/requests/%s/%s", held.request, calls[i]);
        CS_EQ_U64(status_of(w, "POST", path, w->dan, i < 2 ? body : NULL), 404);
    }
}

CS_TEST(api_hides_a_request_whatever_is_asked_of_it)
{
    world_run(hidden);
}

CS_TEST(api_sends_large_answers_in_sealed_memory)
{
    world_run(large);
}

struct poller {
    struct world *w;
    const char *path, *query, *token;
    unsigned status;
    json_t *answer;
    struct cs_event done;
};

static void poll_run(void *arg)
{
    struct poller *p = arg;
    p->status = call(p->w, "GET", p->path, p->query, p->token, NULL, &p->answer);
    cs_event_set(&p->done);
}

static void poll_start(struct poller *p)
{
    cs_handle co;
    CS_CHECK(cs_co_spawn(p->w->loop, "poll", poll_run, p, &co) == CS_OK);
    CS_CHECK(cs_co_sleep(100 * CS_NS_PER_MS));
    CS_CHECK(!p->done.set);
}

static void poll_end(struct poller *p)
{
    struct cs_wait wait = CS_WAIT_ON(CS_WAIT_EVENT, &p->done);
    CS_CHECK(cs_wait(&wait, 1, cs_mono_ns() + 20 * CS_NS_PER_S) == CS_WOKE_READY);
    CS_EQ_U64(p->status, 200);
}

static void long_polls(struct world *w)
{
    struct cs_id id;
    struct world_held held;
    json_t *o = NULL;
    char path[64];
    static struct poller list, show;
    list = (struct poller){
        .w = w, .path = "/v1/requests", .query = "state=pending&wait=30", .token = w->carol};
    poll_start(&list);
    CS_EQ_U64(w->control->n_waiting, 1);
    hold_one(w, &id, &held, "DROP TABLE a");
    poll_end(&list);
    CS_EQ_U64(json_array_size(json_object_get(list.answer, "requests")), 1);
    json_int_t seq = json_integer_value(json_object_get(list.answer, "seq"));
    json_decref(list.answer);

    /* Nothing newer than what was seen: it waits until its time is over. */
    char query[64];
    (void)snprintf(query, sizeof query, "since=%lld&wait=1", (long long)seq);
    uint64_t begun = cs_mono_ns();
    CS_EQ_U64(call(w, "GET", "/v1/requests", query, w->carol, NULL, &o), 200);
    CS_CHECK(cs_mono_ns() - begun > 900 * CS_NS_PER_MS);
    CS_EQ_U64(json_array_size(json_object_get(o, "requests")), 0);
    json_decref(o);

    (void)snprintf(path, sizeof path, "/v1/requests/%s", held.request);
    show = (struct poller){.w = w, .path = path, .query = "state=pending&wait=30", .token = w->bot};
    poll_start(&show);
    CS_EQ_U64(world_vote(w, w->carol, "deny", held.request, held.digest, "no"), 200);
    poll_end(&show);
    CS_CHECK(strcmp(world_text(show.answer, "state"), "denied") == 0);
    CS_CHECK(strcmp(world_text(show.answer, "words"), "no") == 0);
    json_decref(show.answer);
    CS_EQ_U64(w->control->n_waiting, 0);
}

CS_TEST(api_long_poll_wakes_on_a_change)
{
    world_run(long_polls);
}

struct left { /* a caller that leaves: front then says so */
    struct world *w;
    uint8_t hash[CS_SHA256];
    struct cs_msg_api msg;
    struct cs_call call;
};

static void left_run(void *arg)
{
    struct left *l = arg;
    enum cs_err e = cs_channel_call(l->w->front, CS_MSG_API, &l->msg, NULL, 0,
                                    cs_mono_ns() + 60 * CS_NS_PER_S, &l->call);
    CS_CHECK(e == CS_OK || e == CS_ERR_CANCELLED || e == CS_ERR_UNAVAILABLE);
    cs_call_done(&l->call);
}

static cs_handle left_start(struct world *w, struct left *l, const char *token)
{
    cs_handle co;
    memset(l, 0, sizeof *l);
    l->w = w;
    cs_sha256(cs_slice_str(token), l->hash);
    l->msg = (struct cs_msg_api){.method = CS_SLICE_LIT("GET"),
                                 .path = CS_SLICE_LIT("/v1/requests"),
                                 .query = CS_SLICE_LIT("wait=45"),
                                 .token_sha256 = cs_slice(l->hash, sizeof l->hash),
                                 .address = CS_SLICE_LIT("127.0.0.1:9")};
    CS_CHECK(cs_co_spawn(w->loop, "left", left_run, l, &co) == CS_OK);
    return co;
}

static void gone(struct world *w)
{
    static struct left l;
    cs_handle co = left_start(w, &l, w->carol);
    CS_CHECK(cs_co_sleep(100 * CS_NS_PER_MS));
    CS_EQ_U64(w->control->n_waiting, 1);
    uint32_t corr = l.call.corr;
    struct cs_msg_api_gone other = {.call = corr + 1}, mine = {.call = corr};
    CS_CHECK(cs_channel_send(w->front, CS_MSG_API_GONE, 0, &other, NULL, 0) == CS_OK);
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    CS_EQ_U64(w->control->n_waiting, 1);
    cs_co_cancel(w->loop, co);
    CS_CHECK(cs_channel_send(w->front, CS_MSG_API_GONE, 0, &mine, NULL, 0) == CS_OK);
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
    CS_EQ_U64(w->control->n_waiting, 0);
    CS_EQ_U64(w->control->n_calls, 0);
}

CS_TEST(api_long_poll_ends_when_its_caller_leaves)
{
    world_run(gone);
}

static void many(struct world *w)
{
    static struct left l[CS_CONTROL_CALLS + 50];
    for (size_t i = 0; i < CS_ARRAY_LEN(l); i++) {
        (void)left_start(w, &l[i], w->carol);
    }
    CS_CHECK(cs_co_sleep(CS_NS_PER_S));
    CS_EQ_U64(w->control->n_waiting, CS_LIMIT_WAITS_PER_CALLER);
    CS_EQ_U64(status_of(w, "GET", "/v1/health", NULL, NULL), 200); /* others are served */
    json_t *o = NULL;
    CS_EQ_U64(call(w, "GET", "/v1/requests", "wait=1", w->carol, NULL, &o), 429);
    json_decref(o);
    CS_EQ_U64(call(w, "GET", "/v1/requests", "wait=1", w->dan, NULL, &o), 200); /* and may wait */
    json_decref(o);
    CS_EQ_U64(status_of(w, "GET", "/v1/requests", w->carol, NULL), 200);
}

CS_TEST(api_bounds_the_number_of_long_polls)
{
    world_run(many);
}

static void supervised(struct world *w)
{
    json_t *o = NULL;
    char path[80], hex[CS_ID_TEXT];
    struct cs_id id;
    struct world_call status = {.method = "GET", .path = "/v1/status", .local = true, .uid = 0};
    CS_EQ_U64(world_secret(w, "orders-ro", "x"), 200);
    CS_EQ_U64(world_api(w, &status, &o), 200);
    CS_EQ_U64((uint64_t)json_integer_value(json_object_get(o, "pid")), 7); /* the supervisor's */
    const json_t *t = json_array_get(json_object_get(o, "targets"), 1);
    CS_CHECK(strcmp(world_text(t, "name"), "orders") == 0);
    CS_CHECK(json_is_true(json_object_get(json_object_get(t, "credential"), "set")));
    CS_CHECK(json_is_false(json_object_get(json_object_get(t, "elevated"), "set")));
    json_decref(o);

    struct world_call reload = {.method = "POST", .path = "/v1/reload", .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &reload, &o), 200);
    CS_EQ_U64(json_array_size(json_object_get(o, "warnings")), 1);
    json_decref(o);
    w->reload_mistakes = "countersign.yaml:3:1: unknown key\ncountersign.yaml:9:1: another\n";
    CS_EQ_U64(world_api(w, &reload, &o), 400);
    CS_CHECK(strstr(world_text(o, "message"), "9:1") != NULL);
    json_decref(o);

    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    (void)snprintf(path, sizeof path, "/v1/sessions/%s/recording", cs_id_text(&id, hex));
    CS_EQ_U64(status_of(w, "GET", path, w->bot, NULL), 403);
    CS_EQ_U64(status_of(w, "GET", path, w->dan, NULL), 403);
    CS_EQ_U64(
        world_setup(w, "POST", "/v1/users/dan/groups", "{\"groups\":[\"countersign-auditors\"]}"),
        200);
    CS_EQ_U64(call(w, "GET", path, NULL, w->dan, NULL, &o), 200);
    CS_CHECK(json_is_array(json_object_get(o, "frames")));
    json_decref(o);
    CS_EQ_U64(status_of(w, "GET", "/v1/users", w->dan, NULL), 403); /* an auditor sets nothing up */
}

CS_TEST(api_passes_on_what_the_supervisor_knows)
{
    world_run(supervised);
}

static void checks(struct world *w)
{
    json_t *o = NULL;
    struct world_call sql = {.method = "GET",
                             .path = "/v1/targets/orders/sql",
                             .query = "schema=app,public",
                             .local = true,
                             .uid = 0};
    CS_EQ_U64(world_api(w, &sql, &o), 200);
    CS_CHECK(strstr(world_text(o, "sql"), "GRANT USAGE ON SCHEMA \"app\" TO \"orders_ro\";") !=
             NULL);
    json_decref(o);
    sql.query = "schema=,";
    CS_EQ_U64(world_api(w, &sql, &o), 400);
    json_decref(o);
    sql.query = "schema=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q";
    CS_EQ_U64(world_api(w, &sql, &o), 400);
    json_decref(o);
    CS_EQ_U64(world_setup(w, "GET", "/v1/targets/nope/sql", ""), 404);
    CS_EQ_U64(world_setup(w, "GET", "/v1/targets/nope/check", ""), 404);
    /* No probe in this world: said, and remembered for doctor. */
    CS_EQ_U64(world_setup(w, "GET", "/v1/targets/orders/check", ""), 503);
    CS_EQ_U64(status_of(w, "GET", "/v1/targets/orders/check", w->bot, NULL), 403);
    CS_EQ_U64(status_of(w, "GET", "/v1/targets/orders/sql", w->alice, NULL), 403);
    struct world_call status = {.method = "GET", .path = "/v1/status", .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &status, &o), 200);
    size_t i, seen = 0;
    const json_t *t;
    json_array_foreach(json_object_get(o, "targets"), i, t)
    {
        const json_t *last = json_object_get(t, "check");
        if (strcmp(world_text(t, "name"), "orders") == 0) {
            seen++;
            CS_CHECK(strstr(world_text(last, "error"), "probe") != NULL);
            CS_CHECK(world_text(last, "at")[0] != 0);
        }
    }
    CS_EQ_U64(seen, 1);
    json_decref(o);
}

CS_TEST(api_checks_of_targets_are_for_who_sets_up_and_fail_without_a_probe)
{
    world_run(checks);
}

/* The change's leaf is written before it is made; one that is then not made gets a second. */
static void failed_changes(struct world *w)
{
    static const struct {
        const char *path, *body, *what, *subject;
        uint64_t status;
    } changes[] = {
        {"/v1/users", "{\"name\":\"alice\"}", "user-add", "alice", 409},
        {"/v1/agents", "{\"name\":\"x\",\"owner\":\"nobody\"}", "agent-add", "x", 409},
        {"/v1/users/nobody/disable", "", "user-disable", "nobody", 404},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(changes); i++) {
        size_t before = w->n_audits;
        CS_EQ_U64(world_setup(w, "POST", changes[i].path, changes[i].body), changes[i].status);
        CS_EQ_U64(w->n_audits, before + 2);
        const struct world_audit *said = &w->audits[before], *undone = &w->audits[before + 1];
        CS_CHECK(said->kind == CS_LEAF_CHANGE && !said->has_outcome);
        CS_CHECK(undone->kind == CS_LEAF_CHANGE && undone->has_outcome && undone->outcome == 0);
        CS_CHECK(strcmp(said->what, changes[i].what) == 0 && strcmp(undone->what, said->what) == 0);
        CS_CHECK(strcmp(said->subject, changes[i].subject) == 0 &&
                 strcmp(undone->subject, said->subject) == 0);
        CS_CHECK(strcmp(undone->who, said->who) == 0 && !cs_id_eq(&undone->event, &said->event));
    }
    /* One that is made has one; one that is refused before it is begun has none. */
    size_t before = w->n_audits;
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", "{\"name\":\"erin\"}"), 201);
    CS_CHECK(w->n_audits == before + 1 && !w->audits[before].has_outcome);
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", "{\"nonsense\":1}"), 400);
    CS_EQ_U64(w->n_audits, before + 1);
    /* A log that cannot be written: asked once, and nothing is changed. */
    w->log_err = CS_ERR_UNAVAILABLE;
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", "{\"name\":\"frank\"}"), 503);
    CS_EQ_U64(w->n_audits, before + 2);
    w->log_err = CS_OK;
    CS_EQ_U64(world_setup(w, "POST", "/v1/users", "{\"name\":\"frank\"}"), 201);
}

CS_TEST(api_a_change_that_fails_has_a_second_leaf_that_says_so)
{
    world_run(failed_changes);
}

static void log_read(struct world *w)
{
    json_t *o = NULL;
    CS_EQ_U64(status_of(w, "GET", "/v1/log", w->bot, NULL), 403);
    CS_EQ_U64(status_of(w, "GET", "/v1/log", w->alice, NULL), 403);
    CS_EQ_U64(
        world_setup(w, "POST", "/v1/users/dan/groups", "{\"groups\":[\"countersign-auditors\"]}"),
        200);
    CS_EQ_U64(call(w, "GET", "/v1/log", "limit=3", w->dan, NULL, &o), 200);
    json_decref(o);
    CS_EQ_U64(call(w, "GET", "/v1/log", "from=1&limit=500", w->dan, NULL, &o), 200);
    json_decref(o);
    CS_EQ_U64(call(w, "GET", "/v1/log",
                   "since=1&until=2&kind=vote&session=000102030405060708090a0b0c0d0e0f&who=ann",
                   w->dan, NULL, &o),
              200);
    json_decref(o);
    static const char *const wrong[] = {
        "limit=0",   "limit=501", "from=-1",   "from=x", "since=x", "until=99999999999999999",
        "kind=none", "kind=",     "session=1", "who=",   "other=1"};
    for (size_t i = 0; i < CS_ARRAY_LEN(wrong); i++) {
        CS_EQ_U64(call(w, "GET", "/v1/log", wrong[i], w->dan, NULL, &o), 400);
        json_decref(o);
    }
}

CS_TEST(api_opens_the_audit_log_for_auditors_only)
{
    world_run(log_read);
}
