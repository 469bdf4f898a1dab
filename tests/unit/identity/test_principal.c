/* People and agents in a store. */
#include "identity/identity.h"
#include "store/world.h"

static struct cs_identity *identity;
static char token[CS_TOKEN_TEXT];

static enum cs_err by_token(struct world *w, const char *t, struct cs_chain *ret)
{
    uint8_t hash[CS_SHA256];
    cs_sha256(cs_slice_str(t), hash);
    return cs_identity_by_token(identity, hash, &w->arena, ret);
}

static void people(struct world *w)
{
    struct cs_slice groups[] = {CS_SLICE_LIT("dba")};
    struct cs_chain c;
    char bot[CS_TOKEN_TEXT], fresh[CS_TOKEN_TEXT];
    CS_EQ_U64(cs_identity_new(w->store, &identity), CS_OK);
    CS_EQ_U64(cs_identity_person_add(identity, CS_SLICE_LIT("alice"), groups, 1, token), CS_OK);
    CS_CHECK(strncmp(token, "cs_p_", 5) == 0);
    CS_EQ_U64(cs_identity_person_add(identity, CS_SLICE_LIT("alice"), NULL, 0, fresh),
              CS_ERR_EXISTS);
    CS_EQ_U64(cs_identity_person_add(identity, CS_SLICE_LIT("Al"), NULL, 0, fresh), CS_ERR_INVALID);
    groups[0] = CS_SLICE_LIT("a b");
    CS_EQ_U64(cs_identity_person_add(identity, CS_SLICE_LIT("al"), groups, 1, fresh),
              CS_ERR_INVALID);
    CS_EQ_U64(
        cs_identity_agent_add(identity, CS_SLICE_LIT("bot"), CS_SLICE_LIT("alice"), NULL, 0, bot),
        CS_OK);
    CS_CHECK(strncmp(bot, "cs_a_", 5) == 0);
    CS_EQ_U64(
        cs_identity_agent_add(identity, CS_SLICE_LIT("b2"), CS_SLICE_LIT("bot"), NULL, 0, fresh),
        CS_ERR_CONFLICT);
    CS_EQ_U64(
        cs_identity_agent_add(identity, CS_SLICE_LIT("b2"), CS_SLICE_LIT("eve"), NULL, 0, fresh),
        CS_ERR_CONFLICT);
    CS_EQ_U64(by_token(w, bot, &c), CS_OK);
    CS_EQ_U64(c.n, 2);
    CS_EQ_STR(c.p[0].name, "alice");
    CS_EQ_U64(by_token(w, "cs_p_wrong", &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(cs_identity_token_renew(identity, CS_SLICE_LIT("bot"), fresh), CS_OK);
    CS_EQ_U64(by_token(w, bot, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(by_token(w, fresh, &c), CS_OK);
    CS_EQ_U64(cs_identity_token_renew(identity, CS_SLICE_LIT("eve"), fresh), CS_ERR_NOT_FOUND);
    groups[0] = CS_SLICE_LIT("night");
    CS_EQ_U64(cs_identity_groups_set(identity, CS_SLICE_LIT("bot"), groups, 1), CS_OK);
    CS_EQ_U64(cs_identity_chain(identity, CS_SLICE_LIT("local:bot"), &w->arena, &c), CS_OK);
    CS_CHECK(cs_identity_in_group(&c, CS_SLICE_LIT("night")));
    CS_EQ_U64(cs_identity_disable(identity, CS_SLICE_LIT("alice")), CS_OK);
    CS_EQ_U64(cs_identity_disable(identity, CS_SLICE_LIT("eve")), CS_ERR_NOT_FOUND);
    CS_EQ_U64(by_token(w, token, &c), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(by_token(w, fresh, &c), CS_ERR_UNAUTHENTICATED); /* the agent goes with its person */
    cs_identity_free(identity);
}
CS_TEST(tokens_open_until_renewed_or_disabled)
{
    world_run(people);
}

static enum cs_err log_in(struct world *w, const char *user, const char *t)
{
    uint8_t hash[CS_SHA256];
    struct cs_chain c;
    struct cs_identity_mark mark;
    cs_sha256(cs_slice_str(t), hash);
    enum cs_err e =
        cs_identity_token_login(identity, cs_slice_str(user), hash, &w->arena, &c, &mark);
    if (e == CS_OK) {
        CS_EQ_STR(c.p[c.n - 1].name, "alice");
        e = cs_identity_still(identity, c.p[c.n - 1].id, &mark, &w->arena);
    }
    return e;
}

static void password(struct world *w)
{
    static const char *const wrong[] = {"",        "alice",        "+token",  "bob+token",
                                        "Token",   "alice+Token",  "token ",  "alice+token ",
                                        " +token", "alice+tokens", "e+token", "alice+token+token"};
    char fresh[CS_TOKEN_TEXT];
    CS_EQ_U64(cs_identity_new(w->store, &identity), CS_OK);
    CS_EQ_U64(cs_identity_person_add(identity, CS_SLICE_LIT("alice"), NULL, 0, token), CS_OK);
    CS_EQ_U64(cs_identity_person_add(identity, CS_SLICE_LIT("bob"), NULL, 0, fresh), CS_OK);
    CS_EQ_U64(log_in(w, "token", token), CS_OK);
    CS_EQ_U64(log_in(w, "alice+token", token), CS_OK);
    CS_EQ_U64(log_in(w, "alice+token", fresh), CS_ERR_UNAUTHENTICATED);
    for (size_t i = 0; i < CS_ARRAY_LEN(wrong); i++) {
        CS_EQ_U64(log_in(w, wrong[i], token), CS_ERR_UNAUTHENTICATED);
    }
    CS_EQ_U64(cs_identity_token_renew(identity, CS_SLICE_LIT("alice"), fresh), CS_OK);
    CS_EQ_U64(log_in(w, "alice+token", token), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(log_in(w, "alice+token", fresh), CS_OK);
    CS_EQ_U64(cs_identity_disable(identity, CS_SLICE_LIT("alice")), CS_OK);
    CS_EQ_U64(log_in(w, "alice+token", fresh), CS_ERR_UNAUTHENTICATED);
    CS_EQ_U64(log_in(w, "token", fresh), CS_ERR_UNAUTHENTICATED);
    cs_identity_free(identity);
}
CS_TEST(a_token_as_a_password_is_that_of_the_name_in_front_of_it)
{
    world_run(password);
}

static void only_hashes(struct world *w)
{
    CS_EQ_U64(cs_identity_new(w->store, &identity), CS_OK);
    CS_EQ_U64(cs_identity_person_add(identity, CS_SLICE_LIT("alice"), NULL, 0, token), CS_OK);
    cs_identity_free(identity);
    cs_store_close(w->store);
    FILE *f = fopen(w->path, "rb");
    static char bytes[1 << 20];
    size_t n = fread(bytes, 1, sizeof bytes, f);
    (void)fclose(f);
    CS_CHECK(n > 4096 && memmem(bytes, n, "alice", 5) != NULL);
    CS_CHECK(memmem(bytes, n, token + 5, strlen(token) - 5) == NULL);
    world_open(w);
}
CS_TEST(the_token_is_nowhere_in_the_file)
{
    world_run(only_hashes);
}

static void oom(struct world *w)
{
    CS_EQ_U64(cs_identity_new(w->store, &identity), CS_OK);
    struct cs_slice groups[] = {CS_SLICE_LIT("dba")};
    bool done = false;
    CS_OOM_LOOP(done)
    {
        enum cs_err err = cs_identity_person_add(identity, CS_SLICE_LIT("alice"), groups, 1, token);
        done = err == CS_OK;
        CS_CHECK(done || err == CS_ERR_NO_MEMORY || err == CS_ERR_INVALID);
    }
    CS_CHECK(done);
    cs_identity_free(identity);
}
CS_TEST(a_lack_of_memory_adds_nobody_by_half)
{
    world_run(oom);
}
