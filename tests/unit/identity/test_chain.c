/* The pure part: names, groups, chains. No store. */
#include "identity/identity.h"
#include "tap.h"

static struct cs_arena arena(void)
{
    struct cs_arena a;
    cs_arena_init(&a, 4096, 1 << 20);
    return a;
}

CS_TEST(names_are_short_lower_case_words)
{
    static const char *const good[] = {"a", "alice", "ci-bot_2.x", "0"};
    static const char *const bad[] = {"", "Alice", "a b", "a\n", "a:b", "\xc3\xa4", "a/b"};
    for (size_t i = 0; i < CS_ARRAY_LEN(good); i++) {
        CS_CHECK(cs_identity_name_valid(cs_slice_str(good[i])));
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        CS_CHECK(!cs_identity_name_valid(cs_slice_str(bad[i])));
    }
    char name[66];
    memset(name, 'x', sizeof name);
    CS_CHECK(cs_identity_name_valid(cs_slice(name, 64)));
    CS_CHECK(!cs_identity_name_valid(cs_slice(name, 65)));
    CS_CHECK(!cs_identity_name_valid(cs_slice("a\0b", 3)));
}

CS_TEST(groups_are_sorted_and_distinct)
{
    struct cs_arena a = arena();
    struct cs_slice in[] = {CS_SLICE_LIT("ops"), CS_SLICE_LIT("dba"), CS_SLICE_LIT("ops")}, out;
    CS_CHECK(cs_identity_groups_join(in, 3, &a, &out));
    CS_EQ_STR(out, "dba\nops\n");
    struct cs_slice *v;
    size_t n;
    CS_CHECK(cs_identity_groups_split(out, &a, &v, &n));
    CS_EQ_U64(n, 2);
    CS_EQ_STR(v[1], "ops");
    CS_CHECK(cs_identity_groups_split(CS_SLICE_NULL, &a, &v, &n));
    CS_EQ_U64(n, 0);
    CS_CHECK(!cs_identity_groups_split(CS_SLICE_LIT("dba"), &a, &v, &n));
    CS_CHECK(!cs_identity_groups_split(CS_SLICE_LIT("\n"), &a, &v, &n));
    in[0] = CS_SLICE_LIT("no\nno");
    CS_CHECK(!cs_identity_groups_join(in, 3, &a, &out));
    static struct cs_slice many[CS_LIMIT_GROUPS + 1];
    for (size_t i = 0; i < CS_ARRAY_LEN(many); i++) {
        many[i] = cs_arena_printf(&a, "g%zu", i);
    }
    CS_CHECK(cs_identity_groups_join(many, CS_LIMIT_GROUPS, &a, &out));
    CS_CHECK(!cs_identity_groups_join(many, CS_LIMIT_GROUPS + 1, &a, &out));
    cs_arena_done(&a);
}

static struct cs_store_principal person_make(void)
{
    return (struct cs_store_principal){.id = CS_SLICE_LIT("local:alice"),
                                       .name = CS_SLICE_LIT("alice"),
                                       .groups = CS_SLICE_LIT("dba\n"),
                                       .kind = CS_PRINCIPAL_PERSON};
}

static struct cs_store_principal agent_make(void)
{
    return (struct cs_store_principal){.id = CS_SLICE_LIT("local:bot"),
                                       .name = CS_SLICE_LIT("bot"),
                                       .owner = CS_SLICE_LIT("local:alice"),
                                       .groups = CS_SLICE_LIT("agents\n"),
                                       .kind = CS_PRINCIPAL_AGENT};
}

CS_TEST(an_agent_acts_on_behalf_of_its_person)
{
    struct cs_arena a = arena();
    struct cs_chain c = {.n = 9};
    struct cs_store_principal person = person_make(), agent = agent_make();
    CS_EQ_U64(cs_identity_chain_build(&person, NULL, &a, &c), CS_OK);
    CS_EQ_U64(c.n, 1);
    CS_EQ_U64(cs_identity_chain_build(&agent, &person, &a, &c), CS_OK);
    CS_EQ_U64(c.n, 2);
    CS_EQ_STR(c.p[0].id, "local:alice");
    CS_EQ_STR(c.p[1].id, "local:bot");
    CS_CHECK(cs_identity_in_group(&c, CS_SLICE_LIT("agents")));
    CS_CHECK(!cs_identity_in_group(&c, CS_SLICE_LIT("dba"))); /* the person's, not the agent's */
    cs_arena_done(&a);
}

CS_TEST(no_chain_without_every_member)
{
    struct cs_arena a = arena();
    struct cs_chain c = {.n = 9};
    struct cs_store_principal person = person_make(), agent = agent_make();
    struct cs_store_principal off = person, off_agent = agent, odd = person, stranger = person;
    off.disabled_ms = 1;
    off_agent.disabled_ms = 1;
    odd.kind = CS_PRINCIPAL_WORKLOAD;
    stranger.id = CS_SLICE_LIT("local:eve");
    CS_EQ_U64(cs_identity_chain_build(&off, NULL, &a, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(cs_identity_chain_build(&agent, NULL, &a, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(cs_identity_chain_build(&agent, &off, &a, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(cs_identity_chain_build(&off_agent, &person, &a, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(cs_identity_chain_build(&agent, &agent, &a, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(cs_identity_chain_build(&agent, &stranger, &a, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(cs_identity_chain_build(&odd, NULL, &a, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(c.n, 9);
    CS_CHECK(!cs_identity_in_group(&(struct cs_chain){.n = 0}, CS_SLICE_LIT("dba")));
    cs_arena_done(&a);
}
