/* Opening: answers of control that are wrong, late, or none. */
#include "world.h"

#include "crypto/crypto.h"

static const struct cs_msg_auth_challenge good_challenge = {
    .attempt = 9, .iterations = 4096, .nonce = {(const uint8_t *)"nonce", 5}};

static void challenges(struct world *w)
{
    static uint8_t large[300];
    struct cs_msg_auth_challenge rows[] = {good_challenge, good_challenge, good_challenge};
    rows[0].nonce = cs_slice(large, sizeof((struct cs_auth *)0)->nonce);
    rows[1].salt = cs_slice(large, sizeof((struct cs_auth *)0)->salt + 1);
    rows[2].iterations = UINT64_C(1) << 32;
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct world_client *c = world_client(w);
        world_do(c, do_auth_start);
        world_answer(w, world_expect(w, CS_MSG_AUTH_START), CS_MSG_AUTH_CHALLENGE, &rows[i]);
        world_wait(c);
        CS_EQ_U64(c->err, CS_ERR_PROTOCOL);
        CS_EQ_U64(c->auth.attempt, 0); /* nothing of it is kept */
    }
    struct world_client *c = world_client(w);
    world_do(c, do_auth_start);
    struct cs_msg_auth_result other = {.err = CS_OK};
    world_answer(w, world_expect(w, CS_MSG_AUTH_START), CS_MSG_AUTH_RESULT, &other);
    world_wait(c);
    CS_EQ_U64(c->err, CS_ERR_PROTOCOL);
}
CS_TEST(a_challenge_that_does_not_fit_is_refused)
{
    world_run(challenges);
}

struct result {
    struct cs_msg_auth_result m;
    enum cs_err want;
};

static void no_session(const struct world_client *c, enum cs_err want)
{
    CS_EQ_U64(c->err, want);
    CS_CHECK(cs_id_is_zero(&c->s->id) && c->s->chain == NULL);
}

static void results(struct world *w)
{
    static uint8_t mem[256], nobody[16], signature[CS_SHA256];
    struct cs_slice group = CS_SLICE_LIT("engineers");
    struct cs_chain chain = {.n = 1};
    chain.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:alice"),
                                       CS_SLICE_LIT("alice"), &group, 1};
    struct cs_writer wr = cs_writer(mem, sizeof mem - 1);
    cs_chain_encode(&wr, &chain);
    struct cs_slice encoded = cs_writer_done(&wr);
    chain.n = 0;
    wr = cs_writer(nobody, sizeof nobody);
    cs_chain_encode(&wr, &chain);
    struct cs_msg_auth_result good = {.attempt = 9,
                                      .server_signature = cs_slice(signature, sizeof signature),
                                      .session = cs_id_new(),
                                      .chain = encoded};
    struct result rows[8];
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        rows[i] = (struct result){good, CS_ERR_PROTOCOL};
    }
    rows[0].m.err = CS_ERR_UNAUTHENTICATED;
    rows[0].want = CS_ERR_UNAUTHENTICATED;
    rows[1].m.err = CS_ERR_MAX;
    rows[2].m.server_signature.n--;
    rows[3].m.session = (struct cs_id){{0}};
    rows[4].m.chain = CS_SLICE_NULL;
    rows[5].m.chain.n--;
    rows[6].m.chain.n++;
    rows[7].m.chain = cs_writer_done(&wr);
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct world_client *c = world_client(w);
        world_do(c, do_auth_finish);
        world_answer(w, world_expect(w, CS_MSG_AUTH_PROOF), CS_MSG_AUTH_RESULT, &rows[i].m);
        world_wait(c);
        no_session(c, rows[i].want);
    }
}
CS_TEST(a_result_without_a_proper_session_and_chain_opens_nothing)
{
    world_run(results);
}

static void no_control(struct world *w)
{
    struct world_client *c = world_client(w), *d = world_session(w);
    world_control_dies(w);
    world_do(c, do_auth_start);
    world_wait(c);
    CS_EQ_U64(c->err, CS_ERR_UNAVAILABLE);
    world_do(c, do_auth_finish);
    world_wait(c);
    no_session(c, CS_ERR_UNAVAILABLE);
    world_do(d, do_connect);
    world_wait(d);
    CS_EQ_U64(d->err, CS_ERR_UNAVAILABLE);
    CS_CHECK(d->why[0] != 0);
    world_control_new(w);
    world_do(d, do_connect);
    (void)world_expect(w, CS_MSG_CONNECT);
    world_control_dies(w); /* with the question */
    world_wait(d);
    CS_EQ_U64(d->err, CS_ERR_UNAVAILABLE);
}
CS_TEST(without_control_nobody_logs_in_or_connects)
{
    world_run(no_control);
}

static void not_connected(struct world *w)
{
    struct world_client *c = world_session(w);
    static const uint64_t errors[] = {CS_OK, CS_ERR_MAX, CS_ERR_DENIED};
    static const enum cs_err want[] = {CS_ERR_UNREACHABLE, CS_ERR_UNREACHABLE, CS_ERR_DENIED};
    for (size_t i = 0; i < CS_ARRAY_LEN(errors); i++) {
        struct cs_msg_not_connected m = {.err = errors[i], .text = CS_SLICE_LIT("no")};
        c->elevated = i == 2;
        world_do(c, do_connect);
        struct world_in *in = world_expect(w, CS_MSG_CONNECT);
        const struct cs_msg_connect *q = (const void *)in->msg.raw;
        CS_CHECK(cs_id_eq(&q->session, &c->id));
        CS_EQ_U64(q->which, c->elevated ? CS_CREDENTIAL_ELEVATED : CS_CREDENTIAL_EVERYDAY);
        CS_CHECK(c->elevated ? cs_id_eq(&q->grant, &c->grant) : cs_id_is_zero(&q->grant));
        world_answer(w, in, CS_MSG_NOT_CONNECTED, &m);
        world_wait(c);
        CS_EQ_U64(c->err, want[i]);
        CS_EQ_STR(cs_slice_str(c->why), "no");
    }
}
CS_TEST(a_refusal_to_connect_is_an_error_whatever_number_it_has)
{
    world_run(not_connected);
}

static void unrecorded(struct world *w)
{
    struct world_client *d = world_session(w);
    CS_CHECK(d->s->recorded && d->s->reported);
    struct world_client *c = world_login(w);
    world_health(w, CS_RECORD_STOPPED);
    world_do(c, do_opened);
    world_wait(c);
    CS_EQ_U64(c->err, CS_ERR_NO_SPACE);
    CS_CHECK(!c->s->recorded && !c->s->reported);
    CS_EQ_U64(world_count(w, CS_MSG_SESSION_OPENED), 1);
    world_health(w, CS_RECORD_HEALTHY);
}
CS_TEST(what_cannot_be_recorded_is_not_opened)
{
    world_run(unrecorded);
}

static void no_target(struct world *w)
{
    struct world_client *c = world_login(w);
    c->s->target_name = CS_SLICE_LIT("nowhere");
    world_do(c, do_opened);
    world_wait(c);
    CS_EQ_U64(c->err, CS_ERR_NOT_FOUND);
    c = world_login(w);
    c->s->chain->p[0].groups[0] = CS_SLICE_LIT("others");
    world_do(c, do_opened);
    world_wait(c);
    CS_EQ_U64(c->err, CS_ERR_DENIED);
    CS_EQ_STR(cs_slice_str(c->why), "no rule lets person \"alice\" use target \"orders\"");
    CS_EQ_U64(world_frames(w, CS_FRAME_SESSION_OPEN), 0);
}
CS_TEST(without_a_target_or_a_rule_no_session_opens)
{
    world_run(no_target);
}
