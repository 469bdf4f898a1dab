/* Connections to targets and the proof of their credentials. */
#include "runtime/sock.h"
#include "world.h"

struct got {
    int fd;
    uint64_t number;
    char user[64], text[256];
    enum cs_err err;
};

static struct got get(struct world *w, unsigned g, const struct cs_id *id, const char *target,
                      enum cs_credential which, const struct cs_id *grant)
{
    struct got r;
    memset(&r, 0, sizeof r);
    r.fd = world_connect(w, g, id, target, which, grant, &r.number, r.user, r.text, &r.err);
    if (r.fd >= 0) {
        (void)close(r.fd);
    }
    return r;
}

static void everyday(struct world *w)
{
    struct cs_id id;
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    struct got r = get(w, 0, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL);
    CS_CHECK(r.err == CS_OK && r.number > 0);
    CS_CHECK(strcmp(r.user, "orders_ro") == 0);
    /* SECURITY: not by another gate, not to another target, not for an unknown session. */
    struct cs_id other = cs_id_new();
    CS_CHECK(get(w, 1, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL).err == CS_ERR_DENIED);
    CS_CHECK(get(w, 0, &id, "closed", CS_CREDENTIAL_EVERYDAY, NULL).err == CS_ERR_NOT_FOUND);
    CS_CHECK(get(w, 0, &id, "nowhere", CS_CREDENTIAL_EVERYDAY, NULL).err == CS_ERR_NOT_FOUND);
    CS_CHECK(get(w, 0, &other, "orders", CS_CREDENTIAL_EVERYDAY, NULL).err == CS_ERR_DENIED);
    CS_CHECK(get(w, 0, &id, "orders", (enum cs_credential)7, NULL).err == CS_ERR_DENIED);
}

CS_TEST(connection_is_for_the_session_and_its_target)
{
    world_run(everyday);
}

static void refusing(struct world *w)
{
    struct cs_id id;
    char want[128];
    CS_CHECK(world_login(w, 0, "bot", w->bot, "closed", &id) == CS_OK);
    struct got r = get(w, 0, &id, "closed", CS_CREDENTIAL_EVERYDAY, NULL);
    CS_CHECK(r.err == CS_ERR_REFUSED);
    (void)snprintf(want, sizeof want, "target \"closed\" at 127.0.0.1:%u refuses connections",
                   w->closed_port);
    CS_EQ_STR(cs_slice_str(r.text), want);
}

CS_TEST(connection_refused_by_the_target_is_told_clearly)
{
    world_run(refusing);
}

static void elevated(struct world *w)
{
    struct cs_id id, two, wrong = cs_id_new();
    struct world_held held;
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &two) == CS_OK);
    CS_CHECK(get(w, 0, &id, "orders", CS_CREDENTIAL_ELEVATED, NULL).err == CS_ERR_DENIED);
    CS_CHECK(get(w, 0, &id, "orders", CS_CREDENTIAL_ELEVATED, &wrong).err == CS_ERR_DENIED);
    world_hold(w, &(struct world_hold){.session = id, .sql = "DROP TABLE orders"}, &held);
    CS_EQ_U64(world_vote(w, w->carol, "approve", held.request, held.digest, ""), 200);
    const struct world_news *n = world_news(w, &id, held.request, CS_REQUEST_APPROVED);
    CS_CHECK(n != NULL);
    struct cs_id grant = n->grant;
    /* Approved is not consumed. */
    CS_CHECK(get(w, 0, &id, "orders", CS_CREDENTIAL_ELEVATED, &grant).err == CS_ERR_DENIED);
    CS_CHECK(world_consume(w, 0, &id, &held, &grant) == CS_OK);
    CS_CHECK(get(w, 0, &two, "orders", CS_CREDENTIAL_ELEVATED, &grant).err == CS_ERR_DENIED);
    CS_CHECK(get(w, 1, &id, "orders", CS_CREDENTIAL_ELEVATED, &grant).err == CS_ERR_DENIED);
    CS_CHECK(get(w, 0, &id, "orders", CS_CREDENTIAL_ELEVATED, &wrong).err == CS_ERR_DENIED);
    struct got r = get(w, 0, &id, "orders", CS_CREDENTIAL_ELEVATED, &grant);
    CS_CHECK(r.err == CS_OK);
    CS_CHECK(strcmp(r.user, "orders_owner") == 0);
    /* Once. */
    CS_CHECK(get(w, 0, &id, "orders", CS_CREDENTIAL_ELEVATED, &grant).err == CS_ERR_DENIED);
}

CS_TEST(elevated_connection_needs_a_consumed_grant_and_is_given_once)
{
    world_run(elevated);
}

/* ---- proofs ---- */

struct proof {
    enum cs_err err;
    uint8_t proof[32], signature[32];
    char text[256];
};

#define FIRST_BARE "n=,r=fyko+d2lbbFgONRv9qkxdawL"
#define NONCE      "fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"

static struct cs_slice server_first(struct world *w, const struct cs_scram_verifier *v)
{
    char salt[64];
    size_t n = cs_base64_encode(cs_slice(v->salt, sizeof v->salt), false, salt);
    return cs_arena_printf(&w->arena, "r=" NONCE ",s=%.*s,i=%u", (int)n, salt,
                           (unsigned)v->iterations);
}

static struct proof prove(struct world *w, unsigned g, const struct cs_id *id, uint64_t number,
                          struct cs_slice first)
{
    struct cs_msg_prove m = {.session = *id,
                             .connection = number,
                             .mechanism = CS_SLICE_LIT("SCRAM-SHA-256"),
                             .client_first_bare = CS_SLICE_LIT(FIRST_BARE),
                             .server_first = first,
                             .client_final_bare = CS_SLICE_LIT("c=biws,r=" NONCE)};
    struct cs_call call;
    struct proof r;
    memset(&r, 0, sizeof r);
    memset(&call, 0, sizeof call);
    call.fd[0] = call.fd[1] = call.fd[2] = -1;
    CS_CHECK(cs_channel_call(w->gate[g], CS_MSG_PROVE, &m, NULL, 0, cs_mono_ns() + 10 * CS_NS_PER_S,
                             &call) == CS_OK);
    CS_CHECK(call.type == CS_MSG_PROOF);
    const struct cs_msg_proof *p = (const void *)call.msg.raw;
    r.err = (enum cs_err)p->err;
    (void)snprintf(r.text, sizeof r.text, "%.*s", CS_SLICE_FMT(p->text));
    if (r.err == CS_OK) {
        CS_CHECK(p->proof.n == 32 && p->server_signature.n == 32);
        memcpy(r.proof, p->proof.p, 32);
        memcpy(r.signature, p->server_signature.p, 32);
    } else {
        CS_CHECK(p->proof.n == 0 && p->server_signature.n == 0);
    }
    cs_call_done(&call);
    return r;
}

static void proofs(struct world *w)
{
    struct cs_id id, two;
    struct cs_scram_verifier v;
    uint8_t salt[CS_SCRAM_SALT] = {1, 2, 3}, signature[32];
    CS_CHECK(cs_scram_verifier_make(CS_SLICE_LIT("s3cret!"), salt, 4096, &v) == CS_OK);
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &two) == CS_OK);
    struct cs_slice first = server_first(w, &v);
    struct cs_slice message =
        cs_arena_printf(&w->arena, FIRST_BARE ",%.*s,c=biws,r=" NONCE, CS_SLICE_FMT(first));

    uint64_t number = get(w, 0, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL).number;
    struct proof p = prove(w, 0, &id, number, first);
    CS_CHECK(p.err == CS_ERR_NOT_FOUND && strstr(p.text, "orders-ro") != NULL); /* not set yet */

    CS_EQ_U64(world_secret(w, "orders-ro", "s3cret!"), 200);
    number = get(w, 0, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL).number;
    /* SECURITY: the connection is that session's, and that gate's. */
    CS_CHECK(prove(w, 0, &two, number, first).err == CS_ERR_DENIED);
    CS_CHECK(prove(w, 1, &id, number, first).err == CS_ERR_DENIED);
    CS_CHECK(prove(w, 0, &id, number + 1, first).err == CS_ERR_DENIED);
    CS_CHECK(prove(w, 0, &id, 0, first).err == CS_ERR_DENIED);
    p = prove(w, 0, &id, number, first);
    CS_CHECK(p.err == CS_OK);
    CS_CHECK(cs_scram_server_check(&v, message, p.proof, signature));
    CS_CHECK(memcmp(signature, p.signature, 32) == 0);
    CS_CHECK(prove(w, 0, &id, number, first).err == CS_ERR_DENIED); /* once */

    /* A hostile target: another nonce, too many rounds. */
    number = get(w, 0, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL).number;
    CS_CHECK(prove(w, 0, &id, number, CS_SLICE_LIT("r=zzzz,s=AQID,i=4096")).err == CS_ERR_PROTOCOL);
    CS_CHECK(prove(w, 0, &id, number, first).err == CS_ERR_DENIED); /* that was its chance */
    number = get(w, 0, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL).number;
    CS_CHECK(prove(w, 0, &id, number, CS_SLICE_LIT("r=" NONCE ",s=AQID,i=2000000000")).err ==
             CS_ERR_PROTOCOL);
}

CS_TEST(proof_is_made_once_for_a_connection_of_the_session)
{
    world_run(proofs);
}

static void helpers_away(struct world *w)
{
    struct cs_id id;
    CS_EQ_U64(world_secret(w, "orders-ro", "s3cret!"), 200);
    CS_CHECK(world_login(w, 0, "bot", w->bot, "orders", &id) == CS_OK);
    struct got before = get(w, 0, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL);
    CS_CHECK(before.err == CS_OK);
    world_helpers_die(w);
    struct got r = get(w, 0, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL);
    CS_CHECK(r.err == CS_ERR_UNAVAILABLE && strstr(r.text, "dialer is starting") != NULL);
    struct proof p = prove(w, 0, &id, before.number, CS_SLICE_LIT("r=" NONCE ",s=AQID,i=4096"));
    CS_CHECK(p.err == CS_ERR_UNAVAILABLE && strstr(p.text, "keeper is starting") != NULL);
    world_helpers_start(w);
    r = get(w, 0, &id, "orders", CS_CREDENTIAL_EVERYDAY, NULL);
    CS_CHECK(r.err == CS_OK);
    CS_CHECK(prove(w, 0, &id, r.number, CS_SLICE_LIT("r=" NONCE ",s=AQID,i=4096")).err == CS_OK);
}

CS_TEST(connection_fails_clearly_while_keeper_and_dialer_are_away)
{
    world_run(helpers_away);
}
