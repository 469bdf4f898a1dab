/* The keeper role in the test's process: the test plays supervisor and control. */
#include "audit/boxes.h"
#include "base/id.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/time.h"
#include "crypto/scram.h"
#include "crypto/wrapped.h"
#include "ipc/ipc.h"
#include "runtime/sock.h"
#include "runtime/stream_filter.h"
#include "tap.h"
#include "vault/keeper.h"
#include "vault/vault.h"

#include <fcntl.h>

#define CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define NONCE        CLIENT_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"

static struct {
    struct cs_loop *loop;
    struct cs_keeper *keeper;
    struct cs_channel *supervisor, *control;
    struct cs_event ready;
    bool gone, control_gone, without_key;
    uint8_t master[2][CS_SEAL_KEY]; /* the present one, the previous one (all zero: none) */
    void (*script)(void);
    uint8_t box[6 + CS_VAULT_BOX_OVERHEAD],
        owner_box[6 + CS_VAULT_BOX_OVERHEAD]; /* "pencil", version 3 of orders-ro, as the store has
                                                 it */
} k;

static uint8_t announced[CS_X25519];
static unsigned n_announced;

static void on_supervisor(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)arg;
    if (in->type == CS_MSG_READY) {
        cs_channel_run_phase(c);
        cs_event_set(&k.ready);
    } else if (in->type == CS_MSG_RECORD_KEY_NEW) {
        const struct cs_msg_record_key_new *m = in->msg;
        CS_CHECK(m->public.n == CS_X25519 && cs_slice_eq_str(m->name, "recording/2026-11"));
        memcpy(announced, m->public.p, CS_X25519);
        n_announced++;
    }
}

static void on_gone(struct cs_channel *c, void *arg)
{
    (void)arg;
    if (c == k.supervisor) {
        k.gone = true;
    } else if (c == k.control) {
        k.control_gone = true;
    }
}

static void on_control(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c;
    (void)in;
    (void)arg;
}

static struct cs_channel *join(enum cs_role role)
{
    int pair[2];
    struct cs_channel *c = NULL;
    const struct cs_msg_peer m = {.role = (uint64_t)role, .epoch = 1};
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_channel_send(k.supervisor, CS_MSG_PEER, 0, &m, &pair[1], 1) == CS_OK);
    (void)close(pair[1]);
    CS_CHECK(cs_channel_open(k.loop, pair[0], CS_ROLE_CONTROL, CS_ROLE_KEEPER, 0, on_control,
                             on_gone, NULL, &c) == CS_OK);
    cs_channel_run_phase(c);
    return c;
}

/* Keeper's turn, in this same loop: what comes next on another channel comes after it. */
static void settle(void)
{
    CS_CHECK(cs_co_sleep(20 * CS_NS_PER_MS));
}

static void give_key(bool previous, bool last, struct cs_slice text)
{
    int ends[2];
    const struct cs_msg_master_key m = {.previous = previous ? 1 : 0, .last = last ? 1 : 0};
    CS_CHECK(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
    CS_CHECK(write(ends[1], text.p, text.n) == (ssize_t)text.n);
    CS_CHECK(cs_channel_send(k.supervisor, CS_MSG_MASTER_KEY, 0, &m, &ends[0], 1) == CS_OK);
    (void)close(ends[0]);
    (void)close(ends[1]);
    settle();
}

/* `pins`: of the target "pinned". */
static void give_table(struct cs_slice pins, bool spoiled)
{
    uint8_t hash[CS_SHA256];
    int fd = -1;
    const struct cs_credential_row rows[] = {
        {.target = CS_SLICE_LIT("billing"),
         .secret = CS_SLICE_LIT("billing-ro"),
         .binding = CS_BINDING_PREFER},
        {.target = CS_SLICE_LIT("bound"),
         .secret = CS_SLICE_LIT("orders-ro"),
         .binding = CS_BINDING_REQUIRE},
        {.target = CS_SLICE_LIT("looked-at"),
         .secret = CS_SLICE_LIT("billing-ro"),
         .elevated = CS_SLICE_LIT("orders-owner"),
         .probe = CS_SLICE_LIT("orders-ro"),
         .binding = CS_BINDING_PREFER},
        {.target = CS_SLICE_LIT("orders"),
         .secret = CS_SLICE_LIT("orders-ro"),
         .elevated = CS_SLICE_LIT("orders-owner"),
         .binding = CS_BINDING_PREFER},
        {.target = CS_SLICE_LIT("pinned"),
         .secret = CS_SLICE_LIT("orders-ro"),
         .binding = CS_BINDING_REQUIRE,
         .pins = pins},
        {.target = CS_SLICE_LIT("weak"),
         .secret = CS_SLICE_LIT("orders-ro"),
         .elevated = CS_SLICE_LIT("orders-owner"),
         .probe = CS_SLICE_LIT("orders-ro"),
         .binding = CS_BINDING_PREFER,
         .way = CS_WAY_CLEARTEXT,
         .user = CS_SLICE_LIT("ro"),
         .probe_way = CS_WAY_MD5,
         .probe_user = CS_SLICE_LIT("ro")},
    };
    struct cs_buf out = cs_buf(CS_CREDENTIALS_MAX);
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        cs_credentials_write(&out, &rows[i]);
    }
    cs_sha256(cs_buf_slice(&out), hash);
    hash[0] ^= spoiled ? 1 : 0;
    CS_CHECK(!out.bad && cs_sealed_make("table", cs_buf_slice(&out), &fd) == CS_OK);
    const struct cs_msg_credentials m = {.version = 1, .sha256 = cs_slice(hash, sizeof hash)};
    CS_CHECK(cs_channel_send(k.supervisor, CS_MSG_CREDENTIALS, 0, &m, &fd, 1) == CS_OK);
    (void)close(fd);
    cs_buf_done(&out);
    settle();
}

static void boot(void)
{
    const struct cs_msg_boot m = {.role = CS_ROLE_KEEPER, .epoch = 1};
    CS_CHECK(cs_channel_send(k.supervisor, CS_MSG_BOOT, 0, &m, NULL, 0) == CS_OK);
    if (!k.without_key) {
        give_key(false, true, cs_slice(k.master[0], CS_SEAL_KEY));
    }
    give_table(CS_SLICE_NULL, false);
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &k.ready);
    CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 10 * CS_NS_PER_S) == CS_WOKE_READY);
    k.control = join(CS_ROLE_CONTROL);
}

static void play(void *arg)
{
    (void)arg;
    boot();
    k.script();
    const struct cs_msg_shutdown m = {0};
    CS_CHECK(cs_channel_send(k.supervisor, CS_MSG_SHUTDOWN, 0, &m, NULL, 0) == CS_OK);
    while (cs_co_sleep(CS_NS_PER_S)) {
    }
}

/* With a master key on disk, and a box made under it, unless `without_key`. */
static void run(void (*script)(void), bool without_key)
{
    int pair[2];
    cs_handle co;
    cs_log_init("keeper", CS_LEVEL_ERROR);
    cs_random(k.master, sizeof k.master);
    k.without_key = without_key;
    struct cs_vault *v = cs_vault_new();
    cs_vault_set_key(v, false, k.master[0]);
    CS_CHECK(cs_vault_seal(v, CS_SLICE_LIT("orders-ro"), 3, CS_SLICE_LIT("pencil"), k.box) ==
             CS_OK);
    CS_CHECK(cs_vault_seal(v, CS_SLICE_LIT("orders-owner"), 3, CS_SLICE_LIT("pencil"),
                           k.owner_box) == CS_OK);
    cs_vault_close(v);
    k.script = script;
    k.loop = cs_loop_new();
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_keeper_new(k.loop, pair[1], &k.keeper) == CS_OK);
    CS_CHECK(cs_channel_open(k.loop, pair[0], CS_ROLE_SUPERVISOR, CS_ROLE_KEEPER, 0, on_supervisor,
                             on_gone, NULL, &k.supervisor) == CS_OK);
    CS_CHECK(cs_co_spawn(k.loop, "script", play, NULL, &co) == CS_OK);
    cs_loop_run(k.loop);
    cs_keeper_free(k.keeper);
    cs_channel_close(k.supervisor);
    cs_channel_close(k.control);
    cs_loop_free(k.loop);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
}

static void call(enum cs_msg_type t, const void *m, enum cs_msg_type want, struct cs_call *ret)
{
    CS_CHECK(cs_channel_call(k.control, t, m, NULL, 0, cs_mono_ns() + 10 * CS_NS_PER_S, ret) ==
             CS_OK);
    CS_CHECK(ret->type == want);
}

static enum cs_err seal_key(uint8_t *key)
{
    struct cs_call c;
    const struct cs_msg_seal_key m = {.end_ = 0};
    call(CS_MSG_SEAL_KEY, &m, CS_MSG_SEAL_KEY_IS, &c);
    const struct cs_msg_seal_key_is *r = (const void *)c.msg.raw;
    enum cs_err e = (enum cs_err)r->err;
    CS_EQ_U64(r->key.n, e == CS_OK ? CS_X25519 : 0);
    if (e == CS_OK) {
        memcpy(key, r->key.p, CS_X25519);
    }
    cs_call_done(&c);
    return e;
}

/* A good question; a test spoils one field of it. */
static struct cs_msg_prove_for good(void)
{
    return (struct cs_msg_prove_for){
        .session = cs_id_new(),
        .target = CS_SLICE_LIT("orders"),
        .connection = 1,
        .which = CS_CREDENTIAL_EVERYDAY,
        .deadline = cs_mono_ns() + 10 * CS_NS_PER_S,
        .name = CS_SLICE_LIT("orders-ro"),
        .version = 3,
        .box = cs_slice(k.box, sizeof k.box),
        .mechanism = CS_SLICE_LIT("SCRAM-SHA-256"),
        .client_first_bare = CS_SLICE_LIT("n=user,r=" CLIENT_NONCE),
        .server_first = CS_SLICE_LIT("r=" NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
        .client_final_bare = CS_SLICE_LIT("c=biws,r=" NONCE)};
}

static enum cs_err prove(const struct cs_msg_prove_for *m, const char *words)
{
    struct cs_call c;
    call(CS_MSG_PROVE_FOR, m, CS_MSG_PROOF_FOR, &c);
    const struct cs_msg_proof_for *r = (const void *)c.msg.raw;
    enum cs_err e = (enum cs_err)r->err;
    CS_CHECK(r->proof.n == (e == CS_OK ? CS_SHA256 : 0) && r->proof.n == r->server_signature.n);
    if (words != NULL) {
        char text[300];
        (void)snprintf(text, sizeof text, "%.*s", CS_SLICE_FMT(r->text));
        if (strstr(text, words) == NULL) {
            CS_FAIL("\"%s\", not \"%s\"", text, words);
        }
    }
    CS_CHECK(memmem(r->text.p, r->text.n, "pencil", 6) == NULL);
    cs_call_done(&c);
    return e;
}

static void script_proves(void)
{
    struct cs_msg_prove_for m = good();
    struct cs_call c;
    struct cs_scram_verifier v;
    uint8_t salt[CS_SCRAM_SALT], signature[CS_SHA256];
    size_t n;
    CS_CHECK(
        cs_base64_decode(CS_SLICE_LIT("W22ZaJ0SNY7soEsUEjb6gQ=="), false, salt, sizeof salt, &n));
    CS_CHECK(cs_scram_verifier_make(CS_SLICE_LIT("pencil"), salt, 4096, &v) == CS_OK);
    call(CS_MSG_PROVE_FOR, &m, CS_MSG_PROOF_FOR, &c);
    const struct cs_msg_proof_for *r = (const void *)c.msg.raw;
    CS_CHECK(r->err == CS_OK && r->proof.n == CS_SHA256);
    CS_CHECK(
        cs_scram_server_check(&v,
                              CS_SLICE_LIT("n=user,r=" CLIENT_NONCE ",r=" NONCE
                                           ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=" NONCE),
                              r->proof.p, signature));
    CS_EQ_SLICE(r->server_signature, cs_slice(signature, sizeof signature));
    cs_call_done(&c);
}

CS_TEST(keeper_proves_what_a_server_accepts)
{
    run(script_proves, false);
}

static void script_spoiled(void)
{
    static uint8_t big[CS_VAULT_NAME_MAX + 1];
    struct cs_msg_prove_for m;
    memset(big, 'a', sizeof big);
#define SPOILED(field, value, err, words)                                                          \
    m = good();                                                                                    \
    m.field = (value);                                                                             \
    CS_EQ_U64(prove(&m, words), err);
    SPOILED(session, (struct cs_id){{0}}, CS_ERR_INVALID, "missing")
    SPOILED(target, CS_SLICE_NULL, CS_ERR_INVALID, "missing")
    SPOILED(target, cs_slice(big, sizeof big), CS_ERR_INVALID, "missing")
    SPOILED(connection, 0, CS_ERR_INVALID, "missing")
    SPOILED(which, 3, CS_ERR_INVALID, "no such credential")
    SPOILED(which, UINT64_MAX, CS_ERR_INVALID, "no such credential")
    SPOILED(which, CS_CREDENTIAL_ELEVATED, CS_ERR_INVALID, "consumed grant")
    SPOILED(grant, cs_id_new(), CS_ERR_INVALID, "has no grant")
    SPOILED(deadline, cs_mono_ns(), CS_ERR_TIMEOUT, "too late")
    SPOILED(name, CS_SLICE_NULL, CS_ERR_INVALID, "missing")
    SPOILED(name, cs_slice(big, sizeof big), CS_ERR_INVALID, "missing")
    SPOILED(version, 0, CS_ERR_INVALID, "missing")
    /* SECURITY: another row's box, an older version's, a changed, cut or empty one. */
    SPOILED(box, cs_slice(k.owner_box, sizeof k.owner_box), CS_ERR_CORRUPT, "does not open")
    SPOILED(version, 2, CS_ERR_CORRUPT, "does not open")
    SPOILED(version, 4, CS_ERR_CORRUPT, "does not open")
    SPOILED(box, cs_slice(k.box, sizeof k.box - 1), CS_ERR_CORRUPT, "does not open")
    SPOILED(box, CS_SLICE_NULL, CS_ERR_CORRUPT, "does not open")
    k.box[sizeof k.box - 1] ^= 1;
    SPOILED(connection, 1, CS_ERR_CORRUPT, "does not open")
    k.box[sizeof k.box - 1] ^= 1;
    SPOILED(mechanism, CS_SLICE_LIT("PLAIN"), CS_ERR_PROTOCOL, "binding")
    SPOILED(mechanism, CS_SLICE_LIT("SCRAM-SHA-256-PLUS"), CS_ERR_PROTOCOL, "binding")
    SPOILED(client_first_bare, CS_SLICE_LIT("n=user"), CS_ERR_PROTOCOL, "malformed")
    SPOILED(client_first_bare, CS_SLICE_LIT("n=user,r=other"), CS_ERR_PROTOCOL, "nonce")
    SPOILED(server_first, CS_SLICE_LIT("r=" NONCE ",s=AQID,i=1"), CS_ERR_PROTOCOL, "rounds")
    SPOILED(server_first, CS_SLICE_LIT("r=" NONCE ",s=AQID,i=2000000"), CS_ERR_PROTOCOL, "rounds")
    SPOILED(client_final_bare, CS_SLICE_LIT("c=biws,r=x"), CS_ERR_PROTOCOL, "another challenge")
    m = good();
    CS_EQ_U64(prove(&m, NULL), CS_OK); /* and it goes on serving */
}

CS_TEST(keeper_refuses_every_wrong_field_of_a_proof)
{
    run(script_spoiled, false);
}

static struct cs_msg_prove_for elevated_one(void)
{
    struct cs_msg_prove_for m = good();
    m.which = CS_CREDENTIAL_ELEVATED;
    m.grant = cs_id_new();
    m.consumed = cs_mono_ns();
    m.name = CS_SLICE_LIT("orders-owner");
    m.box = cs_slice(k.owner_box, sizeof k.owner_box);
    return m;
}

static const uint8_t reader_private[CS_X25519] = {7, 7, 7};
static uint8_t reader_public[CS_X25519];

/* A good question for an answer by a weaker way. */
static struct cs_msg_prove_for weak(const char *mechanism, bool probe)
{
    struct cs_msg_prove_for m = good();
    bool md5 = strcmp(mechanism, "md5") == 0;
    CS_CHECK(cs_x25519_public(reader_private, reader_public) == CS_OK);
    m.target = CS_SLICE_LIT("weak");
    m.which = probe ? CS_CREDENTIAL_PROBE : CS_CREDENTIAL_EVERYDAY;
    m.mechanism = cs_slice_str(mechanism);
    m.client_first_bare = cs_slice(reader_public, sizeof reader_public);
    m.server_first = md5 ? CS_SLICE_LIT("\1\2\3\4") : CS_SLICE_NULL;
    m.client_final_bare = CS_SLICE_NULL;
    return m;
}

static void expect_answer(const struct cs_msg_prove_for *m, const char *want)
{
    struct cs_call c;
    uint8_t plain[600];
    call(CS_MSG_PROVE_FOR, m, CS_MSG_PROOF_FOR, &c);
    const struct cs_msg_proof_for *r = (const void *)c.msg.raw;
    CS_EQ_U64(r->err, CS_OK);
    CS_EQ_U64(r->server_signature.n, 0);
    CS_EQ_U64(r->proof.n, strlen(want) + CS_SEAL_TO_OVERHEAD);
    CS_CHECK(memmem(r->proof.p, r->proof.n, want, strlen(want)) == NULL); /* control carries it */
    CS_CHECK(cs_unseal_to(reader_private, CS_SLICE_LIT(CS_LOGIN_ANSWER), r->proof, plain) == CS_OK);
    CS_EQ_STR(cs_slice(plain, strlen(want)), want);
    cs_call_done(&c);
}

static void script_weak(void)
{
    struct cs_msg_prove_for m = weak("cleartext", false);
    expect_answer(&m, "pencil");
    m = weak("md5", false);
    expect_answer(&m, "md53f016864c906ad9ee9a21f23845da641");
    m = weak("md5", true);
    expect_answer(&m, "md53f016864c906ad9ee9a21f23845da641");
    m = weak("cleartext", true); /* of that one only md5 is said */
    CS_EQ_U64(prove(&m, "does not permit"), CS_ERR_DENIED);
    for (size_t i = 0; i < 2; i++) {
        m = weak(i == 0 ? "md5" : "cleartext", false);
        m.target = CS_SLICE_LIT("orders");
        CS_EQ_U64(prove(&m, "does not permit"), CS_ERR_DENIED);
        m.target = CS_SLICE_LIT("bound");
        CS_EQ_U64(prove(&m, "does not permit"), CS_ERR_DENIED);
        m = weak(i == 0 ? "md5" : "cleartext", false);
        m.which = CS_CREDENTIAL_ELEVATED;
        m.grant = cs_id_new();
        m.consumed = cs_mono_ns();
        m.name = CS_SLICE_LIT("orders-owner");
        m.box = cs_slice(k.owner_box, sizeof k.owner_box);
        CS_EQ_U64(prove(&m, "by SCRAM only"), CS_ERR_DENIED);
        m = weak(i == 0 ? "md5" : "cleartext", false);
        m.client_first_bare = cs_slice_head(m.client_first_bare, CS_X25519 - 1);
        CS_EQ_U64(prove(&m, "malformed"), CS_ERR_DENIED);
        m = weak(i == 0 ? "md5" : "cleartext", false);
        m.server_first = CS_SLICE_LIT("\1\2\3\4\5");
        CS_EQ_U64(prove(&m, "malformed"), CS_ERR_DENIED);
    }
    m = weak("MD5", false); /* no way that there is: a SCRAM exchange, and none */
    CS_EQ_U64(prove(&m, NULL), CS_ERR_PROTOCOL);
}

CS_TEST(keeper_answers_by_a_weaker_way_where_the_configuration_says_so)
{
    run(script_weak, false);
}

/* SECURITY: keeper forgets with its life which grants had their proof: those from before get none.
 */
static void script_old_grants(void)
{
    struct cs_msg_prove_for m = elevated_one();
    m.consumed = 1;
    CS_EQ_U64(prove(&m, "before the keeper started"), CS_ERR_DENIED);
    m.consumed = cs_mono_ns() + 10 * CS_NS_PER_S;
    CS_EQ_U64(prove(&m, "is not said"), CS_ERR_INVALID);
    m.consumed = 0;
    CS_EQ_U64(prove(&m, "is not said"), CS_ERR_INVALID);
    m.consumed = cs_mono_ns();
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    m = good();
    m.consumed = cs_mono_ns();
    CS_EQ_U64(prove(&m, "has no grant"), CS_ERR_INVALID);
}

CS_TEST(keeper_proves_no_grant_from_before_its_own_start)
{
    run(script_old_grants, false);
}

static void script_grants(void)
{
    struct cs_msg_prove_for m = elevated_one();
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    CS_EQ_U64(prove(&m, "has had its proof"), CS_ERR_DENIED);
    /* SECURITY: not for another session, connection or control either. */
    m.session = cs_id_new();
    m.connection = 9;
    CS_EQ_U64(prove(&m, "has had its proof"), CS_ERR_DENIED);
    struct cs_channel *old = k.control;
    k.control = join(CS_ROLE_CONTROL);
    CS_EQ_U64(prove(&m, "has had its proof"), CS_ERR_DENIED);
    cs_channel_close(old);
    /* A failed try was the grant's chance. */
    m.grant = cs_id_new();
    m.version = 99;
    CS_EQ_U64(prove(&m, NULL), CS_ERR_CORRUPT);
    m.version = 3;
    CS_EQ_U64(prove(&m, "has had its proof"), CS_ERR_DENIED);
}

CS_TEST(keeper_proves_once_for_a_grant)
{
    run(script_grants, false);
}

static void script_many_grants(void)
{
    struct cs_msg_prove_for m = elevated_one();
    struct cs_id first = m.grant;
    for (size_t i = 0; i < CS_LIMIT_KEEPER_GRANTS; i++) {
        CS_EQ_U64(prove(&m, NULL), CS_OK);
        m.grant = cs_id_new();
        m.consumed = cs_mono_ns();
        m.deadline = m.consumed + 60 * CS_NS_PER_S; /* a busy machine takes its time */
    }
    CS_EQ_U64(prove(&m, "too many"), CS_ERR_LIMIT);
    m.grant = first; /* nothing was forgotten to make room */
    CS_EQ_U64(prove(&m, "has had its proof"), CS_ERR_DENIED);
    m = good();
    CS_EQ_U64(prove(&m, NULL), CS_OK);
}

CS_TEST(keeper_remembers_a_bounded_number_of_grants_and_refuses_more)
{
    run(script_many_grants, false);
}

/* ---- resealing ---- */

static enum cs_err reseal(const uint8_t *key, const char *aad_name, const char *name,
                          uint64_t version, struct cs_slice value, struct cs_slice *ret)
{
    static uint8_t sealed[CS_SECRET_MAX + 200], box[CS_SECRET_MAX + 200];
    struct cs_call c;
    char aad[100];
    (void)snprintf(aad, sizeof aad, "countersign/secret-put/1%s", aad_name);
    CS_CHECK(cs_seal_to(key, cs_slice_str(aad), value, sealed) == CS_OK);
    const struct cs_msg_reseal m = {.name = cs_slice_str(name),
                                    .version = version,
                                    .sealed = cs_slice(sealed, value.n + CS_SEAL_TO_OVERHEAD)};
    call(CS_MSG_RESEAL, &m, CS_MSG_RESEALED, &c);
    const struct cs_msg_resealed *r = (const void *)c.msg.raw;
    enum cs_err e = (enum cs_err)r->err;
    CS_EQ_U64(r->box.n, e == CS_OK ? cs_vault_box_size(value.n) : 0);
    if (e == CS_OK) {
        memcpy(box, r->box.p, r->box.n);
        *ret = cs_slice(box, r->box.n);
    }
    cs_call_done(&c);
    return e;
}

static void script_reseals(void)
{
    static uint8_t big[CS_SECRET_MAX + 1];
    uint8_t key[CS_X25519], other[CS_X25519] = {5};
    struct cs_slice box = CS_SLICE_NULL, pencil = CS_SLICE_LIT("pencil");
    CS_EQ_U64(seal_key(key), CS_OK);
    CS_EQ_U64(reseal(key, "orders-ro", "orders-ro", 7, pencil, &box), CS_OK);
    CS_CHECK(memmem(box.p, box.n, "pencil", 6) == NULL);
    struct cs_msg_prove_for m = good();
    m.version = 7;
    m.box = box;
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    /* SECURITY: sealed for another name, to another key; no name, no version, nothing, too much. */
    CS_CHECK(cs_x25519_public(other, other) == CS_OK);
    CS_EQ_U64(reseal(key, "db", "owner", 1, pencil, &box), CS_ERR_INVALID);
    CS_EQ_U64(reseal(other, "db", "db", 1, pencil, &box), CS_ERR_INVALID);
    CS_EQ_U64(reseal(key, "", "", 1, pencil, &box), CS_ERR_INVALID);
    CS_EQ_U64(reseal(key, "db", "db", 0, pencil, &box), CS_ERR_INVALID);
    CS_EQ_U64(reseal(key, "db", "db", 1, CS_SLICE_NULL, &box), CS_ERR_INVALID);
    CS_EQ_U64(reseal(key, "db", "db", 1, cs_slice(big, sizeof big), &box), CS_ERR_INVALID);
    CS_EQ_U64(reseal(key, "db", "db", 1, cs_slice(big, CS_SECRET_MAX), &box), CS_OK);
    const struct cs_msg_reseal none = {.name = CS_SLICE_LIT("db"), .version = 1};
    struct cs_call c;
    call(CS_MSG_RESEAL, &none, CS_MSG_RESEALED, &c);
    CS_EQ_U64(((const struct cs_msg_resealed *)(const void *)c.msg.raw)->err, CS_ERR_INVALID);
    cs_call_done(&c);
}

CS_TEST(keeper_reseals_what_was_sealed_to_it_for_that_name)
{
    run(script_reseals, false);
}

static void script_no_key(void)
{
    uint8_t key[CS_X25519];
    struct cs_msg_prove_for m = good();
    struct cs_slice box;
    memset(key, 9, sizeof key);
    CS_EQ_U64(seal_key(key), CS_ERR_UNAVAILABLE);
    CS_EQ_U64(prove(&m, "no master key"), CS_ERR_UNAVAILABLE);
    CS_CHECK(cs_x25519_public(key, key) == CS_OK);
    CS_EQ_U64(reseal(key, "a", "a", 1, CS_SLICE_LIT("x"), &box), CS_ERR_UNAVAILABLE);
    give_key(false, true, cs_slice(k.master[0], CS_SEAL_KEY));
    CS_EQ_U64(seal_key(key), CS_OK);
    CS_EQ_U64(prove(&m, NULL), CS_OK);
}

CS_TEST(keeper_does_nothing_without_a_master_key)
{
    run(script_no_key, true);
}

/* ---- keys and table change while it runs ---- */

static enum cs_err rewrap(struct cs_slice name, uint64_t version, struct cs_slice box,
                          size_t *ret_n)
{
    struct cs_call c;
    const struct cs_msg_rewrap m = {.name = name, .version = version, .box = box};
    call(CS_MSG_REWRAP, &m, CS_MSG_REWRAPPED, &c);
    const struct cs_msg_rewrapped *r = (const void *)c.msg.raw;
    enum cs_err e = (enum cs_err)r->err;
    *ret_n = r->box.n;
    CS_CHECK(e == CS_OK || r->text.n > 0);
    if (r->box.n == sizeof k.box) {
        memcpy(k.box, r->box.p, r->box.n);
    }
    cs_call_done(&c);
    return e;
}

static void script_rotation(void)
{
    struct cs_msg_prove_for m = good();
    const struct cs_slice name = CS_SLICE_LIT("orders-ro"), box = cs_slice(k.box, sizeof k.box);
    uint8_t before[CS_X25519], after[CS_X25519];
    size_t n;
    CS_EQ_U64(seal_key(before), CS_OK);
    CS_EQ_U64(rewrap(name, 3, box, &n), CS_OK);
    CS_EQ_U64(n, 0); /* under the present key already */
    give_key(false, false, cs_slice(k.master[1], CS_SEAL_KEY));
    CS_EQ_U64(seal_key(after), CS_OK);
    CS_CHECK(memcmp(before, after, sizeof after) == 0); /* half a set changes nothing */
    give_key(true, true, cs_slice(k.master[0], CS_SEAL_KEY));
    CS_EQ_U64(seal_key(after), CS_OK);
    CS_CHECK(memcmp(before, after, sizeof after) != 0);
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    CS_EQ_U64(rewrap(name, 2, box, &n), CS_ERR_CORRUPT);
    CS_EQ_U64(rewrap(CS_SLICE_LIT("orders-owner"), 3, box, &n), CS_ERR_CORRUPT);
    CS_EQ_U64(rewrap(name, 0, box, &n), CS_ERR_INVALID);
    CS_EQ_U64(rewrap(name, 3, CS_SLICE_NULL, &n), CS_ERR_CORRUPT);
    CS_EQ_U64(rewrap(name, 3, box, &n), CS_OK);
    CS_EQ_U64(n, sizeof k.box);
    give_key(false, true, cs_slice(k.master[1], CS_SEAL_KEY)); /* the old one goes */
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    m.which = CS_CREDENTIAL_ELEVATED;
    m.grant = cs_id_new();
    m.consumed = cs_mono_ns();
    m.name = CS_SLICE_LIT("orders-owner");
    m.box = cs_slice(k.owner_box, sizeof k.owner_box);
    CS_EQ_U64(prove(&m, "master key that is not configured"), CS_ERR_NOT_FOUND);
    /* What is no key, or comes without the present one, leaves the keys as they are. */
    give_key(false, true, CS_SLICE_LIT("hardly a key"));
    give_key(true, true, cs_slice(k.master[0], CS_SEAL_KEY));
    m = good();
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    CS_CHECK(!k.gone);
}

CS_TEST(keeper_takes_new_keys_as_a_set_and_wraps_boxes_anew)
{
    run(script_rotation, false);
}

/* ---- which secret for which target ---- */

/* SECURITY: control is hostile: each field is a word of its choice. */
static void script_targets(void)
{
    struct cs_msg_prove_for m;
    struct cs_slice owner = cs_slice(k.owner_box, sizeof k.owner_box);
    SPOILED(target, CS_SLICE_LIT("unknown"), CS_ERR_DENIED, "not in the configuration")
    SPOILED(target, CS_SLICE_LIT("billing"), CS_ERR_DENIED, "not that credential")
    SPOILED(target, CS_SLICE_LIT("ORDERS"), CS_ERR_DENIED, "not in the configuration")
    m = good(); /* the elevated one, called everyday: it would need no grant */
    m.name = CS_SLICE_LIT("orders-owner");
    m.box = owner;
    CS_EQ_U64(prove(&m, "not that credential"), CS_ERR_DENIED);
    m = good(); /* the everyday one with a grant */
    m.which = CS_CREDENTIAL_ELEVATED;
    m.grant = cs_id_new();
    m.consumed = cs_mono_ns();
    CS_EQ_U64(prove(&m, "not that credential"), CS_ERR_DENIED);
    m.target = CS_SLICE_LIT("billing"); /* which has no elevated one */
    m.name = CS_SLICE_LIT("orders-owner");
    m.box = owner;
    CS_EQ_U64(prove(&m, "not that credential"), CS_ERR_DENIED);
    m = good(); /* a target that is looked at with its everyday credential has no other for that */
    m.which = CS_CREDENTIAL_PROBE;
    CS_EQ_U64(prove(&m, "not that credential"), CS_ERR_DENIED);
    m = good();
    m.target = CS_SLICE_LIT("looked-at"); /* whose everyday secret this is not */
    CS_EQ_U64(prove(&m, "not that credential"), CS_ERR_DENIED);
    m.which = CS_CREDENTIAL_PROBE;
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    m.grant = cs_id_new();
    CS_EQ_U64(prove(&m, "has no grant"), CS_ERR_INVALID);
    m.grant = (struct cs_id){{0}};
    m.name = CS_SLICE_LIT("orders-owner"); /* the elevated one, called the one for looking */
    m.box = owner;
    CS_EQ_U64(prove(&m, "not that credential"), CS_ERR_DENIED);
    m = good();
    m.which = CS_CREDENTIAL_ELEVATED;
    m.grant = cs_id_new();
    m.consumed = cs_mono_ns();
    m.target = CS_SLICE_LIT("billing"); /* which has no elevated one */
    m.name = CS_SLICE_LIT("orders-owner");
    m.box = owner;
    /* None of these took the grant's chance. */
    m.target = CS_SLICE_LIT("orders");
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    /* An exchange that is bound to nothing, where the configuration demands it. */
    SPOILED(target, CS_SLICE_LIT("bound"), CS_ERR_DENIED, "demands channel binding")
    SPOILED(target, CS_SLICE_LIT("pinned"), CS_ERR_DENIED, "demands channel binding")
    m = good();
    CS_EQ_U64(prove(&m, NULL), CS_OK);
}

CS_TEST(keeper_knows_which_secret_is_for_which_target)
{
    run(script_targets, false);
}

static const char bound[] =
    "c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=,r=" NONCE;

static void script_pins(void)
{
    uint8_t hash[CS_SHA256], other[CS_SHA256] = {8};
    struct cs_buf pins = cs_buf(400);
    memset(hash, 7, sizeof hash);
    CS_CHECK(cs_credential_pin_add(&pins, cs_slice(other, sizeof other)));
    give_table(cs_buf_slice(&pins), false);
    struct cs_msg_prove_for m = good();
    m.target = CS_SLICE_LIT("pinned");
    m.mechanism = CS_SLICE_LIT("SCRAM-SHA-256-PLUS");
    m.client_final_bare = cs_slice_str(bound);
    CS_EQ_U64(prove(&m, "not the one that the configuration names"), CS_ERR_DENIED);
    m.target = CS_SLICE_LIT("bound"); /* no pin: gate's word for the certificate is taken */
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    CS_CHECK(cs_credential_pin_add(&pins, cs_slice(hash, sizeof hash)));
    give_table(cs_buf_slice(&pins), false);
    m.target = CS_SLICE_LIT("pinned");
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    cs_buf_done(&pins);
}

CS_TEST(keeper_proves_to_the_pinned_certificate_only)
{
    run(script_pins, false);
}

/* ---- who is believed, and how much ---- */

static void script_peers(void)
{
    static const enum cs_role others[] = {CS_ROLE_GATE, CS_ROLE_FRONT, CS_ROLE_DIALER};
    struct cs_msg_prove_for m = good();
    for (size_t i = 0; i < CS_ARRAY_LEN(others); i++) {
        int pair[2];
        char byte;
        const struct cs_msg_peer p = {.role = (uint64_t)others[i], .epoch = 1};
        CS_CHECK(cs_socketpair(pair) == CS_OK);
        CS_CHECK(cs_channel_send(k.supervisor, CS_MSG_PEER, 0, &p, &pair[1], 1) == CS_OK);
        (void)close(pair[1]);
        CS_CHECK(cs_co_sleep(20 * CS_NS_PER_MS));
        CS_CHECK(read(pair[0], &byte, 1) == 0); /* closed at once */
        (void)close(pair[0]);
    }
    /* A question that takes no answer is not worked on; garbage ends the channel, not keeper. */
    CS_CHECK(cs_channel_send(k.control, CS_MSG_PROVE_FOR, 0, &m, NULL, 0) == CS_OK);
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    struct cs_channel *old = k.control;
    k.control = join(CS_ROLE_CONTROL);
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    cs_channel_close(old);
    CS_CHECK(!k.gone);
}

CS_TEST(keeper_believes_control_alone)
{
    run(script_peers, false);
}

struct flood {
    unsigned done, failed;
};

static void flood_one(void *arg)
{
    struct flood *f = arg;
    struct cs_call c;
    struct cs_msg_prove_for m = good();
    if (cs_channel_call(k.control, CS_MSG_PROVE_FOR, &m, NULL, 0, cs_mono_ns() + 60 * CS_NS_PER_S,
                        &c) == CS_OK) {
        f->done++;
    } else {
        f->failed++;
    }
    cs_call_done(&c);
}

static void script_flood(void)
{
    struct flood f = {0, 0};
    cs_handle co;
    for (unsigned i = 0; i < 5000; i++) {
        CS_CHECK(cs_co_spawn(k.loop, "flood", flood_one, &f, &co) == CS_OK);
    }
    while (f.done + f.failed < 5000) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    /* What control's side cannot queue fails there; keeper itself queues nothing. */
    CS_CHECK(f.done > 0);
    struct cs_msg_prove_for m = good();
    CS_EQ_U64(prove(&m, NULL), CS_OK);
    CS_CHECK(!k.gone && !k.control_gone);
}

CS_TEST(keeper_survives_a_flood_of_questions)
{
    run(script_flood, false);
}

/* ---- recordings ---- */

static enum cs_err recording_key(const char *name, struct cs_slice box, uint8_t *ret_box,
                                 size_t *ret_n)
{
    struct cs_call c;
    const struct cs_msg_recording_key m = {.name = cs_slice_str(name), .box = box};
    call(CS_MSG_RECORDING_KEY, &m, CS_MSG_RECORDING_KEY_IS, &c);
    const struct cs_msg_recording_key_is *r = (const void *)c.msg.raw;
    enum cs_err e = (enum cs_err)r->err;
    CS_EQ_U64(r->public.n, e == CS_OK && box.n > 0 ? CS_X25519 : 0);
    if (ret_box != NULL) {
        memcpy(ret_box, r->box.p, r->box.n);
        *ret_n = r->box.n;
    }
    cs_call_done(&c);
    return e;
}

static enum cs_err unwrap(const struct cs_msg_unwrap *m, struct cs_wrapped *ret, size_t *ret_n)
{
    struct cs_call c;
    call(CS_MSG_UNWRAP, m, CS_MSG_UNWRAPPED, &c);
    const struct cs_msg_unwrapped *r = (const void *)c.msg.raw;
    enum cs_err e = (enum cs_err)r->err;
    struct cs_slice rows = r->rows;
    *ret_n = 0;
    while (cs_opened_next(&rows, ret)) {
        ++*ret_n;
    }
    cs_call_done(&c);
    return e;
}

static void script_recordings(void)
{
    static const char *const name = "recording/2026-11";
    uint8_t box[256], reader[CS_X25519], public[CS_X25519], dek[CS_WRAPPED_KEY],
        got[CS_WRAPPED_KEY];
    uint8_t row[CS_WRAPPED_ROW], mem[CS_WRAPPED_AAD];
    size_t n = 0, rows = 0;
    struct cs_id session = cs_id_new(), other = cs_id_new();
    CS_EQ_U64(recording_key(name, CS_SLICE_NULL, box, &n), CS_OK);
    CS_EQ_U64(n_announced, 0); /* only when it is stored, and comes back */
    CS_EQ_U64(recording_key(name, cs_slice(box, n), NULL, NULL), CS_OK);
    while (n_announced == 0) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    /* Control cannot announce a key of its own, nor a month's key as another month's. */
    CS_EQ_U64(recording_key("recording/2026-12", cs_slice(box, n), NULL, NULL), CS_ERR_CORRUPT);
    CS_EQ_U64(recording_key(name, cs_slice(k.box, sizeof k.box), NULL, NULL), CS_ERR_CORRUPT);
    CS_EQ_U64(recording_key("orders-ro", cs_slice(k.box, sizeof k.box), NULL, NULL),
              CS_ERR_INVALID);
    CS_EQ_U64(n_announced, 1);

    struct cs_wrapped w = {.epoch = 1};
    cs_random(dek, sizeof dek);
    (void)snprintf(w.name, sizeof w.name, "%s", name);
    CS_EQ_U64(cs_seal_to(announced, cs_wrapped_aad(false, &session, 1, mem),
                         cs_slice(dek, sizeof dek), w.box),
              CS_OK);
    cs_wrapped_write(&w, row);
    cs_random(reader, sizeof reader);
    CS_EQ_U64(cs_x25519_public(reader, public), CS_OK);
    struct cs_msg_unwrap m = {.session = session,
                              .reader = cs_slice(public, sizeof public),
                              .name = cs_slice_str(name),
                              .box = cs_slice(box, n),
                              .rows = cs_slice(row, sizeof row)};
    CS_EQ_U64(unwrap(&m, &w, &rows), CS_OK);
    CS_EQ_U64(rows, 1);
    CS_EQ_U64(cs_unseal_to(reader, cs_wrapped_aad(true, &session, 1, mem),
                           cs_slice(w.box, sizeof w.box), got),
              CS_OK);
    CS_CHECK(memcmp(dek, got, sizeof dek) == 0);
    m.session = other; /* another session's key does not open under this one's name */
    CS_EQ_U64(unwrap(&m, &w, &rows), CS_OK);
    CS_EQ_U64(rows, 0);
    m.session = session;
    m.rows = cs_slice(row, sizeof row - 1);
    CS_EQ_U64(unwrap(&m, &w, &rows), CS_ERR_INVALID);
    m.rows = cs_slice(row, sizeof row);
    m.reader = cs_slice(public, 31);
    CS_EQ_U64(unwrap(&m, &w, &rows), CS_ERR_INVALID);
    CS_CHECK(!k.gone && !k.control_gone);
}

CS_TEST(keeper_opens_a_recordings_keys_for_its_reader_only)
{
    run(script_recordings, false);
}

/* What keeper opens of one row for `reader`; its error. */
static enum cs_err log_open(const struct cs_msg_log_open *m, const uint8_t *reader,
                            struct cs_slice hash, struct cs_buf *ret)
{
    struct cs_call c;
    struct cs_box_row row;
    ret->len = 0;
    call(CS_MSG_LOG_OPEN, m, CS_MSG_LOG_OPENED, &c);
    const struct cs_msg_log_opened *r = (const void *)c.msg.raw;
    enum cs_err e = (enum cs_err)r->err;
    struct cs_slice rows = r->rows;
    CS_CHECK(e == CS_OK || rows.n == 0);
    while (cs_box_row_next(&rows, &row)) {
        CS_EQ_U64(cs_box_row_open(reader, &row, hash, ret), CS_OK);
    }
    cs_call_done(&c);
    return e;
}

static void script_log_read(void)
{
    static const char *const name = "recording/2026-11";
    uint8_t box[256], reader[CS_X25519], public[CS_X25519];
    size_t n = 0;
    struct cs_buf sealed = cs_buf(CS_LEAF_SEALED_MAX), leaf = cs_buf(CS_LEAF_SEALED_MAX + 64),
                  rows = cs_buf(CS_BOXES_MAX), got = cs_buf(1000);
    struct cs_leaf l = {.kind = CS_LEAF_READ}, back;
    struct cs_leaf_box own;
    CS_EQ_U64(recording_key(name, CS_SLICE_NULL, box, &n), CS_OK);
    CS_EQ_U64(recording_key(name, cs_slice(box, n), NULL, NULL), CS_OK);
    while (n_announced == 0) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    uint8_t holder[1][CS_X25519];
    memcpy(holder[0], announced, CS_X25519);
    CS_EQ_U64(cs_leaf_seal(CS_LEAF_READ, CS_KEY_WHO, CS_SLICE_LIT("local:alice"),
                           (const uint8_t(*)[CS_X25519])holder, 1, &sealed),
              CS_OK);
    cs_leaf_set(&l, CS_KEY_WHO, cs_buf_slice(&sealed));
    CS_EQ_U64(cs_leaf_write(&l, &leaf), CS_OK);
    CS_CHECK(cs_leaf_read(cs_buf_slice(&leaf), &back) && cs_leaf_own_box(&back, CS_KEY_WHO, &own));
    const struct cs_box_row row = {3, CS_LEAF_READ, CS_KEY_WHO, own.holder, own.box};
    cs_box_row_write(&rows, &row);
    cs_random(reader, sizeof reader);
    CS_EQ_U64(cs_x25519_public(reader, public), CS_OK);
    struct cs_msg_log_open m = {.reader = cs_slice(public, sizeof public),
                                .name = cs_slice_str(name),
                                .box = cs_slice(box, n),
                                .rows = cs_buf_slice(&rows)};
    CS_EQ_U64(log_open(&m, reader, own.hash, &got), CS_OK);
    CS_EQ_STR(cs_buf_slice(&got), "local:alice");
    m.rows.n--; /* nothing of a question that is malformed */
    CS_EQ_U64(log_open(&m, reader, own.hash, &got), CS_ERR_INVALID);
    m.rows.n++;
    m.reader.n--;
    CS_EQ_U64(log_open(&m, reader, own.hash, &got), CS_ERR_INVALID);
    m.reader.n++;
    m.box = cs_slice(k.box, sizeof k.box); /* a target's secret is no key */
    CS_EQ_U64(log_open(&m, reader, own.hash, &got), CS_ERR_CORRUPT);
    m.name = CS_SLICE_LIT("orders-ro");
    CS_EQ_U64(log_open(&m, reader, own.hash, &got), CS_ERR_INVALID);
    CS_CHECK(!k.gone && !k.control_gone);
    cs_buf_done(&sealed);
    cs_buf_done(&leaf);
    cs_buf_done(&rows);
    cs_buf_done(&got);
}

CS_TEST(keeper_opens_private_values_of_the_log_for_their_reader_only)
{
    run(script_log_read, false);
}

CS_TEST(recording_keys_have_the_name_of_their_month)
{
    char name[CS_WRAPPED_NAME];
    static const char *const bad[] = {"",
                                      "recording/",
                                      "recording/2026-1",
                                      "recording/2026-111",
                                      "recording/2026-11.",
                                      "recording/2026-11.1",
                                      "recording/2026-11.10",
                                      "recording/2026-11-2",
                                      "recording/2026_11",
                                      "Recording/2026-11",
                                      "orders-ro"};
    /* The last and the first millisecond of two months, and a leap day. */
    CS_EQ_STR(cs_slice_str(cs_wrapped_key_name(1764547199999, name)), "recording/2025-11");
    CS_EQ_STR(cs_slice_str(cs_wrapped_key_name(1764547200000, name)), "recording/2025-12");
    CS_EQ_STR(cs_slice_str(cs_wrapped_key_name(1835395200000, name)), "recording/2028-02");
    CS_CHECK(cs_wrapped_is_key_name(cs_slice_str(name)));
    char other[CS_WRAPPED_NAME];
    CS_EQ_STR(cs_slice_str(cs_wrapped_key_other(name, 2, other)), "recording/2028-02.2");
    CS_CHECK(cs_wrapped_is_key_name(cs_slice_str(other)));
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        CS_CHECK(!cs_wrapped_is_key_name(cs_slice_str(bad[i])));
    }
}
