#include "base/alloc.h"
#include "control/session.h"
#include "tap.h"

static struct cs_sessions table;

static struct cs_slice chain_bytes(void)
{
    static uint8_t mem[512];
    static struct cs_slice group = {(const uint8_t *)"dba", 3};
    struct cs_chain c = {.n = 1};
    c.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:alice"),
                                   CS_SLICE_LIT("alice"), &group, 1};
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_chain_encode(&w, &c);
    CS_CHECK(!w.overflow);
    return cs_writer_done(&w);
}

static struct cs_ctl_session *add(const struct cs_id *id, uint64_t gate)
{
    return cs_sessions_add(&table, id, gate, chain_bytes(), CS_SLICE_LIT("orders"),
                           CS_SLICE_LIT("127.0.0.1:9"));
}

static bool connection_add(struct cs_ctl_session *s, uint64_t number, bool elevated,
                           struct cs_slice secret)
{
    const struct cs_ctl_connection made = {
        .number = number, .elevated = elevated, .secret = secret};
    return cs_ctl_connection_add(s, &made);
}

CS_TEST(sessions_are_found_until_removed)
{
    struct cs_id id = cs_id_new(), other = cs_id_new();
    CS_CHECK(add(&id, 7) != NULL);
    CS_CHECK(cs_sessions_get(&table, &id) != NULL);
    CS_CHECK(cs_sessions_get(&table, &other) == NULL);
    struct cs_arena a;
    struct cs_ctl_who who;
    cs_arena_init(&a, 512, 8192);
    CS_CHECK(cs_ctl_session_who(cs_sessions_get(&table, &id), &a, &who));
    CS_EQ_STR(who.chain.p[0].id, "local:alice");
    CS_EQ_STR(who.target, "orders");
    cs_arena_done(&a);
    cs_sessions_remove(&table, &id);
    CS_CHECK(cs_sessions_get(&table, &id) == NULL);
    CS_EQ_U64(table.n, 0);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(sessions_of_a_gate_go_together)
{
    struct cs_id id[300];
    for (size_t i = 0; i < 300; i++) {
        id[i] = cs_id_new();
        CS_CHECK(add(&id[i], i % 2) != NULL);
    }
    cs_sessions_remove_gate(&table, 1);
    CS_EQ_U64(table.n, 150);
    CS_CHECK(cs_sessions_get(&table, &id[0]) != NULL && cs_sessions_get(&table, &id[1]) == NULL);
    cs_sessions_done(&table);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(sessions_refuse_a_damaged_chain)
{
    struct cs_id id = cs_id_new();
    CS_CHECK(cs_sessions_add(&table, &id, 1, CS_SLICE_LIT("junk"), CS_SLICE_LIT("t"),
                             CS_SLICE_LIT("a")) == NULL);
    CS_CHECK(cs_sessions_add(&table, &id, 1, CS_SLICE_NULL, CS_SLICE_LIT("t"), CS_SLICE_LIT("a")) ==
             NULL);
    CS_EQ_U64(table.n, 0);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(sessions_survive_a_lack_of_memory)
{
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_id id = cs_id_new();
        struct cs_ctl_session *s = add(&id, 1);
        done = s != NULL && connection_add(s, 1, false, CS_SLICE_LIT("secret"));
        cs_sessions_done(&table);
    }
    CS_CHECK(done);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(connection_is_taken_once)
{
    struct cs_id id = cs_id_new();
    struct cs_ctl_session *s = add(&id, 1);
    struct cs_ctl_connection c;
    CS_CHECK(connection_add(s, 5, true, CS_SLICE_LIT("owner")));
    CS_CHECK(!cs_ctl_connection_take(s, 6, &c));
    CS_CHECK(!cs_ctl_connection_take(s, 0, &c));
    CS_CHECK(cs_ctl_connection_take(s, 5, &c));
    CS_CHECK(c.elevated);
    CS_EQ_STR(c.secret, "owner");
    cs_free((void *)(uintptr_t)c.secret.p);
    CS_CHECK(!cs_ctl_connection_take(s, 5, &c));
    cs_sessions_done(&table);
}

CS_TEST(connection_oldest_of_too_many_is_forgotten)
{
    struct cs_id id = cs_id_new();
    struct cs_ctl_session *s = add(&id, 1);
    struct cs_ctl_connection c;
    for (uint64_t n = 1; n <= CS_SESSION_CONNECTIONS + 1; n++) {
        CS_CHECK(connection_add(s, n, false, CS_SLICE_LIT("s")));
    }
    CS_CHECK(!cs_ctl_connection_take(s, 1, &c));
    CS_CHECK(cs_ctl_connection_take(s, 2, &c));
    cs_free((void *)(uintptr_t)c.secret.p);
    cs_sessions_done(&table);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(grant_gives_one_elevated_connection)
{
    struct cs_id id = cs_id_new(), grant = cs_id_new(), everyday = cs_id_new(), zero = {{0}};
    struct cs_ctl_session *s = add(&id, 1);
    CS_CHECK(!cs_ctl_grant_use(s, &grant));
    CS_CHECK(!cs_ctl_grant_use(s, &zero));
    CS_CHECK(cs_ctl_grant_add(s, &grant, true) && cs_ctl_grant_add(s, &everyday, false));
    CS_CHECK(!cs_ctl_grant_use(s, &everyday));
    CS_CHECK(cs_ctl_grant_use(s, &grant));
    CS_CHECK(!cs_ctl_grant_use(s, &grant));
    cs_ctl_grant_end(s, &grant);
    CS_CHECK(!cs_ctl_grant_use(s, &grant));
    cs_sessions_done(&table);
}

CS_TEST(grant_is_not_shared_between_sessions)
{
    struct cs_id one = cs_id_new(), two = cs_id_new(), grant = cs_id_new();
    struct cs_ctl_session *a = add(&one, 1), *b = add(&two, 1);
    CS_CHECK(cs_ctl_grant_add(a, &grant, true));
    CS_CHECK(!cs_ctl_grant_use(b, &grant));
    cs_sessions_done(&table);
}
