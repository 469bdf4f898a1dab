/* SCRAM log-ins against the store: the right proof, and everything that must not pass. */
#include "identity/identity.h"
#include "store/world.h"

static struct cs_identity *identity;
static char token[CS_TOKEN_TEXT];

/* What a client and its gate do between start and finish. */
struct dialogue {
    struct cs_identity_challenge challenge;
    struct cs_identity_proof proof;
    uint8_t bytes[CS_SHA256];
    uint8_t server_signature[CS_SHA256];
    char bare[200];
};

static void begin(struct world *w, char *t)
{
    (void)w;
    CS_EQ_U64(cs_identity_new(w->store, &identity), CS_OK);
    CS_EQ_U64(cs_identity_person_add(identity, CS_SLICE_LIT("alice"), NULL, 0, t), CS_OK);
}

static void start(struct dialogue *d, const char *name)
{
    CS_EQ_U64(cs_identity_scram_start(identity, 1, cs_slice_str(name),
                                      CS_SLICE_LIT("fyko+d2lbbFgONRv9qkxdawL"), &d->challenge),
              CS_OK);
}

static void prove(struct world *w, struct dialogue *d, const char *password, const char *gs2,
                  const char *c)
{
    char salt[64];
    uint8_t salted[CS_SHA256];
    struct cs_slice raw = cs_slice(d->challenge.salt, sizeof d->challenge.salt);
    (void)snprintf(d->bare, sizeof d->bare, "n=,r=fyko+d2lbbFgONRv9qkxdawL");
    size_t n = cs_base64_encode(raw, false, salt);
    struct cs_slice message =
        cs_arena_printf(&w->arena, "%s,r=%s,s=%.*s,i=4096,c=%s,r=%s", d->bare, d->challenge.nonce,
                        (int)n, salt, c, d->challenge.nonce);
    CS_EQ_U64(cs_scram_salted_password(cs_slice_str(password), raw, 4096, salted), CS_OK);
    cs_scram_client_proof(salted, message, d->bytes, d->server_signature);
    d->proof = (struct cs_identity_proof){.attempt = d->challenge.attempt,
                                          .client_first_bare = cs_slice_str(d->bare),
                                          .gs2_header = cs_slice_str(gs2),
                                          .channel_binding = cs_slice_str(c),
                                          .proof = cs_slice(d->bytes, sizeof d->bytes)};
}

static enum cs_err finish(struct world *w, struct dialogue *d)
{
    uint8_t signature[CS_SHA256] = {0};
    struct cs_chain chain = {.n = 0};
    struct cs_identity_mark mark;
    enum cs_err err =
        cs_identity_scram_finish(identity, 1, &d->proof, &w->arena, signature, &chain, &mark);
    CS_EQ_U64(chain.n > 0, err == CS_OK);
    if (err == CS_OK) {
        CS_CHECK(memcmp(signature, d->server_signature, sizeof signature) == 0);
        CS_EQ_STR(chain.p[0].id, "local:alice");
    }
    return err;
}

static void right(struct world *w)
{
    struct dialogue d;
    begin(w, token);
    start(&d, "alice");
    CS_EQ_U64(cs_identity_attempts(identity), 1);
    prove(w, &d, token, "n,,", "biws");
    CS_EQ_U64(finish(w, &d), CS_OK);
    CS_EQ_U64(cs_identity_attempts(identity), 0);
    CS_EQ_U64(finish(w, &d), CS_ERR_UNAUTHENTICATED); /* once */
    start(&d, "alice");
    prove(w, &d, token, "y,,", "eSws");
    CS_EQ_U64(finish(w, &d), CS_OK);
    cs_identity_free(identity);
}
CS_TEST(the_right_proof_opens_once)
{
    world_run(right);
}

static void wrong(struct world *w)
{
    struct dialogue d;
    begin(w, token);
    start(&d, "alice");
    prove(w, &d, "cs_p_wrong", "n,,", "biws");
    CS_EQ_U64(finish(w, &d), CS_ERR_UNAUTHENTICATED);
    start(&d, "alice");
    prove(w, &d, token, "n,,", "biws");
    d.bytes[3] ^= 1;
    CS_EQ_U64(finish(w, &d), CS_ERR_UNAUTHENTICATED);
    d.bytes[3] ^= 1;
    CS_EQ_U64(finish(w, &d), CS_ERR_UNAUTHENTICATED); /* no second try on one attempt */
    start(&d, "alice");
    prove(w, &d, token, "n,,", "biws");
    d.proof.proof.n--;
    CS_EQ_U64(finish(w, &d), CS_ERR_PROTOCOL);
    start(&d, "alice");
    prove(w, &d, token, "n,,", "biws");
    uint8_t signature[CS_SHA256];
    struct cs_chain chain;
    struct cs_identity_mark mark;
    CS_EQ_U64(cs_identity_scram_finish(identity, 2, &d.proof, &w->arena, signature, &chain, &mark),
              CS_ERR_UNAUTHENTICATED); /* another gate's attempt */
    CS_EQ_U64(finish(w, &d), CS_OK);   /* which it could not spoil */
    d.proof.attempt = 0;
    CS_EQ_U64(finish(w, &d), CS_ERR_UNAUTHENTICATED);
    cs_identity_free(identity);
}
CS_TEST(a_wrong_proof_opens_nothing_and_ends_the_attempt)
{
    world_run(wrong);
}

static void contradictions(struct world *w)
{
    static const struct {
        const char *gs2, *c;
        enum cs_err err;
    } cases[] = {
        {"n,,", "eSws", CS_ERR_PROTOCOL}, /* the client said y, somebody changed it to n */
        {"y,,", "biws", CS_ERR_PROTOCOL},
        {"n,,", "biws=", CS_ERR_PROTOCOL},
        {"n,,", "", CS_ERR_PROTOCOL},
        {"n,a=eve,", "bixhPWV2ZSw=", CS_ERR_PROTOCOL},
        {"", "", CS_ERR_PROTOCOL},
        {"p=tls-server-end-point,,", "cD10bHMtc2VydmVyLWVuZC1wb2ludCwsAAA=", CS_ERR_PROTOCOL},
        {"p=tls-unique,,", "cD10bHMtdW5pcXVlLCwAAA==", CS_ERR_UNSUPPORTED},
    };
    struct dialogue d;
    begin(w, token);
    for (size_t i = 0; i < CS_ARRAY_LEN(cases); i++) {
        start(&d, "alice");
        prove(w, &d, token, cases[i].gs2, cases[i].c);
        CS_EQ_U64(finish(w, &d), cases[i].err);
    }
    static const char *const bares[] = {"n=,r=other", "n=,r=", "r=fyko+d2lbbFgONRv9qkxdawL", "",
                                        "n=,r=fyko+d2lbbFgONRv9qkxdawLx"};
    for (size_t i = 0; i < CS_ARRAY_LEN(bares); i++) {
        start(&d, "alice");
        prove(w, &d, token, "n,,", "biws");
        d.proof.client_first_bare = cs_slice_str(bares[i]);
        CS_EQ_U64(finish(w, &d), CS_ERR_PROTOCOL);
    }
    cs_identity_free(identity);
}
CS_TEST(messages_that_contradict_each_other_are_refused)
{
    world_run(contradictions);
}

/* The certificate that the listener showed, and the one that the client saw. */
static void bindings(struct world *w)
{
    uint8_t ours[CS_SHA256] = {7}, seen[24 + CS_SHA256] = "p=tls-server-end-point,,";
    char c[100];
    struct dialogue d;
    begin(w, token);
    for (int other = 0; other < 2; other++) {
        seen[24] = other == 0 ? 7 : 8;
        c[cs_base64_encode(cs_slice(seen, sizeof seen), false, c)] = 0;
        start(&d, "alice");
        prove(w, &d, token, "p=tls-server-end-point,,", c);
        d.proof.end_point = cs_slice(ours, sizeof ours);
        /* SECURITY: another certificate: the client speaks to somebody in between. */
        CS_EQ_U64(finish(w, &d), other == 0 ? CS_OK : CS_ERR_PROTOCOL);
    }
    seen[24] = 7;
    c[cs_base64_encode(cs_slice(seen, sizeof seen - 1), false, c)] = 0; /* cut */
    start(&d, "alice");
    prove(w, &d, token, "p=tls-server-end-point,,", c);
    d.proof.end_point = cs_slice(ours, sizeof ours);
    CS_EQ_U64(finish(w, &d), CS_ERR_PROTOCOL);
    d.proof.end_point = cs_slice(ours, sizeof ours - 1);
    start(&d, "alice");
    prove(w, &d, token, "p=tls-server-end-point,,", c);
    d.proof.end_point = cs_slice(ours, sizeof ours - 1); /* half a hash binds nothing */
    CS_EQ_U64(finish(w, &d), CS_ERR_PROTOCOL);
    start(&d, "alice");
    prove(w, &d, token, "y,,", "eSws"); /* SECURITY: the offer was taken away on the way */
    d.proof.end_point = cs_slice(ours, sizeof ours);
    CS_EQ_U64(finish(w, &d), CS_ERR_PROTOCOL);
    start(&d, "alice");
    prove(w, &d, token, "n,,", "biws"); /* a client that cannot */
    d.proof.end_point = cs_slice(ours, sizeof ours);
    CS_EQ_U64(finish(w, &d), CS_OK);
    cs_identity_free(identity);
}
CS_TEST(a_bound_proof_is_for_the_listeners_certificate)
{
    world_run(bindings);
}

static void nonces(struct world *w)
{
    struct cs_identity_challenge c;
    char longest[CS_SCRAM_NONCE_MAX];
    memset(longest, 'x', sizeof longest);
    begin(w, token);
    struct cs_slice name = CS_SLICE_LIT("alice");
    CS_EQ_U64(cs_identity_scram_start(identity, 1, name, CS_SLICE_NULL, &c), CS_ERR_INVALID);
    CS_EQ_U64(cs_identity_scram_start(identity, 1, name, CS_SLICE_LIT("a,b"), &c), CS_ERR_INVALID);
    CS_EQ_U64(cs_identity_scram_start(identity, 1, name, CS_SLICE_LIT("a b"), &c), CS_ERR_INVALID);
    CS_EQ_U64(cs_identity_scram_start(identity, 1, name, cs_slice(longest, 232), &c),
              CS_ERR_INVALID);
    CS_EQ_U64(cs_identity_scram_start(identity, 1, name, cs_slice(longest, 231), &c), CS_OK);
    CS_EQ_U64(strlen(c.nonce), 255);
    cs_identity_free(identity);
}
CS_TEST(a_client_nonce_is_checked)
{
    world_run(nonces);
}

static void unknown(struct world *w)
{
    struct dialogue one, two, known;
    begin(w, token);
    start(&one, "nobody");
    start(&two, "nobody");
    start(&known, "alice");
    CS_CHECK(memcmp(one.challenge.salt, two.challenge.salt, CS_SCRAM_SALT) == 0);
    CS_EQ_U64(one.challenge.iterations, known.challenge.iterations);
    CS_EQ_U64(strlen(one.challenge.nonce), strlen(known.challenge.nonce));
    CS_CHECK(strcmp(one.challenge.nonce, two.challenge.nonce) != 0);
    prove(w, &one, token, "n,,", "biws");
    CS_EQ_U64(finish(w, &one), CS_ERR_UNAUTHENTICATED);
    start(&two, "Not A Name\n");
    prove(w, &two, token, "n,,", "biws");
    CS_EQ_U64(finish(w, &two), CS_ERR_UNAUTHENTICATED);
    cs_identity_free(identity);
    /* The same mock salt after a restart: it is the installation's, not the process's. */
    CS_EQ_U64(cs_identity_new(w->store, &identity), CS_OK);
    start(&two, "nobody");
    CS_CHECK(memcmp(one.challenge.salt, two.challenge.salt, CS_SCRAM_SALT) == 0);
    cs_identity_free(identity);
}
CS_TEST(unknown_names_look_like_known_ones)
{
    world_run(unknown);
}

static void changed(struct world *w)
{
    struct dialogue before, during;
    begin(w, token);
    start(&before, "alice");
    start(&during, "alice");
    prove(w, &during, token, "n,,", "biws");
    char fresh[CS_TOKEN_TEXT];
    CS_EQ_U64(cs_identity_token_renew(identity, CS_SLICE_LIT("alice"), fresh), CS_OK);
    CS_EQ_U64(finish(w, &during), CS_ERR_UNAUTHENTICATED); /* the token is void at once */
    start(&during, "alice");
    prove(w, &during, fresh, "n,,", "biws");
    CS_EQ_U64(cs_identity_disable(identity, CS_SLICE_LIT("alice")), CS_OK);
    CS_EQ_U64(finish(w, &during), CS_ERR_UNAUTHENTICATED);
    struct dialogue after;
    start(&after, "alice");
    CS_CHECK(memcmp(during.challenge.salt, after.challenge.salt, CS_SCRAM_SALT) == 0);
    prove(w, &after, fresh, "n,,", "biws");
    CS_EQ_U64(finish(w, &after), CS_ERR_UNAUTHENTICATED);
    cs_identity_free(identity);
}
CS_TEST(renewed_and_disabled_during_the_dialogue_is_noticed)
{
    world_run(changed);
}

static void bounded(struct world *w)
{
    struct dialogue first, last;
    begin(w, token);
    start(&first, "alice");
    prove(w, &first, token, "n,,", "biws");
    for (int i = 0; i < CS_ATTEMPTS_MAX; i++) {
        start(&last, "alice");
    }
    CS_EQ_U64(cs_identity_attempts(identity), CS_ATTEMPTS_MAX);
    CS_EQ_U64(finish(w, &first), CS_ERR_UNAUTHENTICATED); /* the oldest made room */
    prove(w, &last, token, "n,,", "biws");
    CS_EQ_U64(finish(w, &last), CS_OK);
    cs_identity_free(identity);
}
CS_TEST(open_attempts_are_bounded)
{
    world_run(bounded);
}

/* Logs in; what the log-in rests on. */
static struct cs_identity_mark mark_of_login(struct world *w, const char *t)
{
    struct dialogue d;
    struct cs_chain chain;
    struct cs_identity_mark mark;
    uint8_t signature[CS_SHA256];
    start(&d, "alice");
    prove(w, &d, t, "n,,", "biws");
    CS_EQ_U64(cs_identity_scram_finish(identity, 1, &d.proof, &w->arena, signature, &chain, &mark),
              CS_OK);
    return mark;
}

static enum cs_err still(struct world *w, const struct cs_identity_mark *mark)
{
    return cs_identity_still(identity, CS_SLICE_LIT("local:alice"), mark, &w->arena);
}

static void no_longer(struct world *w)
{
    const struct cs_slice groups[] = {CS_SLICE_LIT("engineers")};
    char fresh[CS_TOKEN_TEXT];
    begin(w, token);
    struct cs_identity_mark mark = mark_of_login(w, token);
    CS_EQ_U64(still(w, &mark), CS_OK);
    CS_EQ_U64(cs_identity_groups_set(identity, CS_SLICE_LIT("alice"), groups, 1), CS_OK);
    CS_EQ_U64(still(w, &mark), CS_ERR_CONFLICT);
    mark = mark_of_login(w, token);
    CS_EQ_U64(still(w, &mark), CS_OK);
    CS_EQ_U64(cs_identity_token_renew(identity, CS_SLICE_LIT("alice"), fresh), CS_OK);
    CS_EQ_U64(still(w, &mark), CS_ERR_CONFLICT);
    mark = mark_of_login(w, fresh);
    CS_EQ_U64(cs_identity_disable(identity, CS_SLICE_LIT("alice")), CS_OK);
    CS_EQ_U64(still(w, &mark), CS_ERR_UNAUTHENTICATED);
    cs_identity_free(identity);
}
CS_TEST(a_login_no_longer_holds_when_groups_token_or_standing_have_changed)
{
    world_run(no_longer);
}
