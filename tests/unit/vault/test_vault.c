/* Master keys, boxes under them, and SCRAM proofs. */
#include "base/limits.h"
#include "base/time.h"
#include "base/writer.h"
#include "tap.h"
#include "vault/vault.h"

#include <fcntl.h>

static const uint8_t key_a[CS_SEAL_KEY] = {1, 2, 3}, key_b[CS_SEAL_KEY] = {4, 5, 6};
#define LIT(s)                                                                                     \
    {                                                                                              \
        (const uint8_t *)(s), sizeof(s) - 1                                                        \
    }
static const struct cs_credential_row anywhere = {
    .target = LIT("orders"), .secret = LIT("orders-ro"), .binding = CS_BINDING_PREFER};

static struct cs_vault *fresh(void)
{
    struct cs_vault *v = cs_vault_new();
    CS_CHECK(v != NULL && !cs_vault_has_key(v));
    cs_vault_set_key(v, false, key_a);
    CS_CHECK(cs_vault_has_key(v) && !cs_vault_has_previous(v));
    return v;
}

/* ---- where a key comes from ---- */

static enum cs_err read_text(struct cs_vault *v, struct cs_slice text)
{
    int ends[2];
    const char *why = NULL;
    CS_CHECK(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
    CS_CHECK(write(ends[1], text.p, text.n) == (ssize_t)text.n);
    (void)close(ends[1]);
    enum cs_err e = cs_vault_read_key(v, false, ends[0], &why);
    (void)close(ends[0]);
    CS_CHECK((e == CS_OK) == (strlen(why) == 0));
    /* SECURITY: what was wrongly given for a key may still be a secret. */
    CS_CHECK(text.n < 8 || strstr(why, "0102") == NULL);
    return e;
}

CS_TEST(vault_reads_a_key_as_bytes_hexadecimal_or_base_64)
{
    const struct cs_slice same[] = {
        CS_SLICE_LIT("\1\2\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        CS_SLICE_LIT("0102030000000000000000000000000000000000000000000000000000000000"),
        CS_SLICE_LIT("0102030000000000000000000000000000000000000000000000000000000000\n"),
        CS_SLICE_LIT("AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"),
        CS_SLICE_LIT("AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")};
    struct cs_vault *a = fresh();
    uint8_t want[CS_VAULT_KEY_ID], got[CS_VAULT_KEY_ID];
    cs_vault_key_id(a, want);
    for (size_t i = 0; i < CS_ARRAY_LEN(same); i++) {
        struct cs_vault *v = cs_vault_new();
        CS_CHECK(v != NULL && read_text(v, same[i]) == CS_OK);
        cs_vault_key_id(v, got);
        CS_CHECK(memcmp(got, want, sizeof got) == 0);
        cs_vault_close(v);
    }
    cs_vault_close(a);
}

CS_TEST(vault_refuses_what_is_no_key)
{
    const struct cs_slice wrong[] = {
        CS_SLICE_NULL,
        CS_SLICE_LIT("\n"),
        CS_SLICE_LIT("0102030000000000000000000000000"),
        CS_SLICE_LIT("01020300000000000000000000000000\n"), /* 33 bytes: which of the two? */
        CS_SLICE_LIT("010203000000000000000000000000000000000000000000000000000000000g"),
        CS_SLICE_LIT("0102030000000000000000000000000000000000000000000000000000000000\n\n"),
        CS_SLICE_LIT("AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB="), /* bits left over */
        CS_SLICE_LIT("0102030000000000000000000000000000000000000000000000000000000000"
                     "0102030000000000000000000000000000000000000000000000000000000000"
                     "0102030000000000000000000000000000000000000000000000000000000000")};
    for (size_t i = 0; i < CS_ARRAY_LEN(wrong); i++) {
        struct cs_vault *v = cs_vault_new();
        CS_CHECK(v != NULL && read_text(v, wrong[i]) == CS_ERR_INVALID && !cs_vault_has_key(v));
        cs_vault_close(v);
    }
    const char *why;
    struct cs_vault *v = cs_vault_new();
    CS_CHECK(cs_vault_read_key(v, false, -1, &why) == CS_ERR_IO);
    cs_vault_close(v);
}

CS_TEST(vault_without_a_key_does_nothing)
{
    struct cs_vault *v = cs_vault_new();
    struct cs_secret s;
    uint8_t box[300] = {0}, key[CS_SEAL_KEY];
    size_t n;
    cs_vault_set_key(v, true, key_a); /* the previous one opens, and makes nothing */
    CS_CHECK(cs_vault_seal(v, CS_SLICE_LIT("a"), 1, CS_SLICE_LIT("x"), box) == CS_ERR_UNAVAILABLE);
    CS_CHECK(cs_vault_put_public(v, key) == CS_ERR_UNAVAILABLE);
    CS_CHECK(cs_vault_derive(v, "a", key) == CS_ERR_UNAVAILABLE);
    CS_CHECK(cs_vault_reseal(v, CS_SLICE_LIT("a"), 1, cs_slice(box, 100), box, &n) ==
             CS_ERR_UNAVAILABLE);
    cs_vault_close(v);
    v = cs_vault_new();
    CS_CHECK(cs_vault_unseal(v, CS_SLICE_LIT("a"), 1, cs_slice(box, 100), &s) ==
             CS_ERR_UNAVAILABLE);
    cs_vault_close(v);
}

/* ---- rotation ---- */

/* A box of the form that was made before keys of their own. */
static void box_1(const uint8_t *key, struct cs_slice name, uint64_t version,
                  struct cs_slice secret, uint8_t *box)
{
    uint8_t aad[100];
    struct cs_writer w = cs_writer(aad, sizeof aad);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/secret/1"));
    cs_writer_slice(&w, name);
    cs_writer_u64le(&w, version);
    CS_CHECK(cs_seal(key, cs_writer_done(&w), secret, box) == CS_OK);
}

static void opens(struct cs_vault *v, struct cs_slice name, struct cs_slice box, const char *want)
{
    struct cs_secret s = {0};
    CS_CHECK(cs_vault_unseal(v, name, 3, box, &s) == CS_OK);
    CS_EQ_STR(cs_secret_reveal(&s), want);
    cs_vault_forget(v);
}

CS_TEST(vault_rotation_wraps_anew_and_seals_nothing_again)
{
    struct cs_slice name = CS_SLICE_LIT("orders-ro");
    uint8_t old[8 + CS_VAULT_BOX_OVERHEAD], made[2 * sizeof old];
    size_t n = 0;
    struct cs_secret s;
    struct cs_vault *v = fresh();
    CS_CHECK(cs_vault_seal(v, name, 3, CS_SLICE_LIT("hunter22"), old) == CS_OK);
    CS_CHECK(cs_vault_rewrap(v, name, 3, cs_slice(old, sizeof old), made, &n) == CS_OK && n == 0);
    cs_vault_set_key(v, true, key_a);
    cs_vault_set_key(v, false, key_b);
    opens(v, name, cs_slice(old, sizeof old), "hunter22"); /* before … */
    CS_CHECK(cs_vault_rewrap(v, name, 3, cs_slice(old, sizeof old), made, &n) == CS_OK);
    CS_EQ_U64(n, sizeof old);
    opens(v, name, cs_slice(made, n), "hunter22"); /* … and after, with both keys there */
    CS_CHECK(memcmp(old + sizeof old - 36, made + n - 36, 36) == 0);
    CS_CHECK(memcmp(old, made, n - 36) != 0);
    CS_CHECK(cs_vault_rewrap(v, name, 3, cs_slice(made, n), old, &n) == CS_OK && n == 0);
    /* Not a box that does not open, nor as another name's or version's. */
    CS_CHECK(cs_vault_rewrap(v, name, 2, cs_slice(made, sizeof old), old, &n) == CS_ERR_CORRUPT);
    CS_CHECK(n == 0);
    made[sizeof old - 1] ^= 1;
    CS_CHECK(cs_vault_rewrap(v, name, 3, cs_slice(made, sizeof old), old, &n) == CS_ERR_CORRUPT);
    made[sizeof old - 1] ^= 1;
    cs_vault_close(v);
    v = fresh(); /* the old key alone does not open what was made anew */
    CS_CHECK(cs_vault_unseal(v, name, 3, cs_slice(made, sizeof old), &s) == CS_ERR_NOT_FOUND);
    CS_CHECK(cs_vault_rewrap(v, name, 3, cs_slice(made, sizeof old), old, &n) == CS_ERR_NOT_FOUND);
    cs_vault_close(v);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(vault_opens_boxes_of_the_first_form_and_rotation_makes_them_new)
{
    struct cs_slice name = CS_SLICE_LIT("orders-ro");
    uint8_t old[8 + CS_SEAL_OVERHEAD], made[8 + CS_VAULT_BOX_OVERHEAD];
    size_t n = 0;
    struct cs_secret s;
    struct cs_vault *v = fresh();
    box_1(key_a, name, 3, CS_SLICE_LIT("hunter22"), old);
    opens(v, name, cs_slice(old, sizeof old), "hunter22");
    CS_CHECK(cs_vault_unseal(v, name, 4, cs_slice(old, sizeof old), &s) == CS_ERR_CORRUPT);
    cs_vault_set_key(v, true, key_a);
    cs_vault_set_key(v, false, key_b);
    opens(v, name, cs_slice(old, sizeof old), "hunter22");
    CS_CHECK(cs_vault_rewrap(v, name, 3, cs_slice(old, sizeof old), made, &n) == CS_OK);
    CS_EQ_U64(n, sizeof made);
    cs_vault_close(v);
    v = cs_vault_new();
    cs_vault_set_key(v, false, key_b);
    opens(v, name, cs_slice(made, n), "hunter22");
    CS_CHECK(cs_vault_unseal(v, name, 3, cs_slice(old, sizeof old), &s) == CS_ERR_CORRUPT);
    cs_vault_close(v);
}

/* ---- boxes ---- */

CS_TEST(vault_box_opens_only_as_itself)
{
    struct cs_vault *v = fresh();
    struct cs_secret s = {0};
    uint8_t box[8 + CS_VAULT_BOX_OVERHEAD];
    struct cs_slice name = CS_SLICE_LIT("orders-ro"), boxed = cs_slice(box, sizeof box);
    CS_EQ_U64(cs_vault_box_size(8), sizeof box);
    CS_CHECK(cs_vault_seal(v, name, 3, CS_SLICE_LIT("hunter22"), box) == CS_OK);
    CS_CHECK(cs_vault_unseal(v, name, 3, boxed, &s) == CS_OK);
    CS_EQ_STR(cs_secret_reveal(&s), "hunter22");
    cs_vault_forget(v);
    CS_CHECK(cs_vault_unseal(v, name, 2, boxed, &s) == CS_ERR_CORRUPT);
    CS_CHECK(cs_vault_unseal(v, CS_SLICE_LIT("orders-rw"), 3, boxed, &s) == CS_ERR_CORRUPT);
    CS_CHECK(cs_vault_unseal(v, name, 3, cs_slice_head(boxed, 20), &s) == CS_ERR_CORRUPT);
    for (size_t i = 16; i < sizeof box; i++) { /* behind magic and key's id */
        box[i] ^= 1;
        CS_CHECK(cs_vault_unseal(v, name, 3, boxed, &s) == CS_ERR_CORRUPT);
        box[i] ^= 1;
    }
    box[8] ^= 1;
    CS_CHECK(cs_vault_unseal(v, name, 3, boxed, &s) == CS_ERR_NOT_FOUND); /* another master key */
    box[8] ^= 1;
    box[0] ^= 1;
    CS_CHECK(cs_vault_unseal(v, name, 3, boxed, &s) == CS_ERR_CORRUPT);
    CS_CHECK(s.n == 8 && s.hidden[0] == 0); /* nothing of it is left in the room */
    CS_CHECK(cs_vault_seal(v, CS_SLICE_NULL, 1, name, box) == CS_ERR_INVALID);
    uint8_t big[CS_SECRET_MAX + 1] = {0};
    CS_CHECK(cs_vault_seal(v, cs_slice(big, CS_VAULT_NAME_MAX + 1), 1, name, box) ==
             CS_ERR_INVALID);
    CS_CHECK(cs_vault_seal(v, name, 1, cs_slice(big, sizeof big), box) == CS_ERR_TOO_LARGE);
    cs_vault_close(v);
    CS_EQ_U64(cs_alloc_live(), 0);
}

#define CLIENT_NONCE "rOprNGfwEbeRWgbNEkqO"
#define NONCE        CLIENT_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define SALT         "W22ZaJ0SNY7soEsUEjb6gQ=="

/* The exchange of RFC 7677. */
static struct cs_vault_exchange sample(void)
{
    return (struct cs_vault_exchange){
        CS_SLICE_LIT("SCRAM-SHA-256"), CS_SLICE_LIT("n=user,r=" CLIENT_NONCE),
        CS_SLICE_LIT("r=" NONCE ",s=" SALT ",i=4096"), CS_SLICE_LIT("c=biws,r=" NONCE)};
}

static void expect_proof(const struct cs_vault_proof *proof, const char *base64, const char *server)
{
    char text[64];
    size_t n = cs_base64_encode(cs_slice(proof->proof, CS_SHA256), false, text);
    CS_EQ_STR(cs_slice(text, n), base64);
    n = cs_base64_encode(cs_slice(proof->server_signature, CS_SHA256), false, text);
    CS_EQ_STR(cs_slice(text, n), server);
}

CS_TEST(prover_proves_the_exchange_of_rfc_7677_again_and_again)
{
    struct cs_vault_prover *p = cs_vault_prover_new();
    struct cs_secret secret = {0}, other = {0};
    struct cs_vault_exchange x = sample();
    struct cs_vault_proof proof, wrong;
    const char *words = NULL;
    CS_CHECK(p != NULL && cs_secret_set(&secret, CS_SLICE_LIT("pencil")) &&
             cs_secret_set(&other, CS_SLICE_LIT("pencil2")));
    for (int i = 0; i < 3; i++) {
        CS_CHECK(cs_vault_scram_prove(p, &secret, &anywhere, &x, &proof, &words) == CS_OK);
        CS_EQ_STR(cs_slice_str(words), "");
        expect_proof(&proof, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                     "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        /* Another password with the same salt has an entry of its own. */
        CS_CHECK(cs_vault_scram_prove(p, &other, &anywhere, &x, &wrong, &words) == CS_OK);
        CS_CHECK(memcmp(proof.proof, wrong.proof, CS_SHA256) != 0);
    }
    cs_secret_done(&secret);
    cs_secret_done(&other);
    cs_vault_prover_free(p);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(prover_remembers_salted_passwords)
{
    struct cs_vault_prover *p = cs_vault_prover_new();
    struct cs_secret secret = {0};
    struct cs_vault_exchange x = sample();
    struct cs_vault_proof first, proof;
    const char *words = NULL;
    char text[128];
    x.server_first = CS_SLICE_LIT("r=" NONCE ",s=" SALT ",i=200000");
    CS_CHECK(p != NULL && cs_secret_set(&secret, CS_SLICE_LIT("pencil")));
    uint64_t t0 = cs_mono_ns();
    CS_CHECK(cs_vault_scram_prove(p, &secret, &anywhere, &x, &first, &words) == CS_OK);
    uint64_t t1 = cs_mono_ns();
    for (int i = 0; i < 10; i++) {
        CS_CHECK(cs_vault_scram_prove(p, &secret, &anywhere, &x, &proof, &words) == CS_OK);
        CS_CHECK(memcmp(&first, &proof, sizeof proof) == 0);
    }
    CS_CHECK(cs_mono_ns() - t1 < t1 - t0);
    for (int i = 0; i < 100;
         i++) { /* more salts than entries: the old ones go, results stay right */
        (void)snprintf(text, sizeof text, "r=%s,s=%08d,i=4096", NONCE, i * 4);
        struct cs_vault_exchange y = sample();
        y.server_first = cs_slice_str(text);
        CS_CHECK(cs_vault_scram_prove(p, &secret, &anywhere, &y, &proof, &words) == CS_OK);
    }
    x = sample();
    CS_CHECK(cs_vault_scram_prove(p, &secret, &anywhere, &x, &proof, &words) == CS_OK);
    expect_proof(&proof, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                 "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    cs_secret_done(&secret);
    cs_vault_prover_free(p);
}

static void expect_no_proof(const struct cs_vault_exchange *x)
{
    struct cs_vault_prover *p = cs_vault_prover_new();
    struct cs_secret secret = {0};
    struct cs_vault_proof proof;
    const char *words = "";
    CS_CHECK(p != NULL && cs_secret_set(&secret, CS_SLICE_LIT("pencil")));
    CS_CHECK(cs_vault_scram_prove(p, &secret, &anywhere, x, &proof, &words) == CS_ERR_PROTOCOL);
    CS_CHECK(strlen(words) > 20);
    cs_secret_done(&secret);
    cs_vault_prover_free(p);
}

CS_TEST(prover_refuses_parts_that_do_not_belong_together)
{
    const struct cs_slice firsts[] = {CS_SLICE_LIT("n=user,r=other"),
                                      CS_SLICE_LIT("n=user,r=" NONCE),
                                      CS_SLICE_LIT("n=user,r=" CLIENT_NONCE ",x=y"), CS_SLICE_NULL};
    const struct cs_slice servers[] = {CS_SLICE_LIT("r=" CLIENT_NONCE ",s=" SALT ",i=4096"),
                                       CS_SLICE_LIT("r=" NONCE ",s=" SALT ",i=4095"),
                                       CS_SLICE_LIT("r=" NONCE ",s=" SALT ",i=1000001"),
                                       CS_SLICE_LIT("e=other-error")};
    const struct cs_slice finals[] = {
        CS_SLICE_LIT("c=biws,r=" CLIENT_NONCE), CS_SLICE_LIT("c=biws,r=" NONCE "x"),
        CS_SLICE_LIT("c=bixh,r=" NONCE), CS_SLICE_LIT("c=biws,r=" NONCE ",p=AAAA"),
        CS_SLICE_LIT("r=" NONCE)};
    for (size_t i = 0; i < CS_ARRAY_LEN(firsts); i++) {
        struct cs_vault_exchange x = sample();
        x.client_first_bare = firsts[i];
        expect_no_proof(&x);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(servers); i++) {
        struct cs_vault_exchange x = sample();
        x.server_first = servers[i];
        expect_no_proof(&x);
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(finals); i++) {
        struct cs_vault_exchange x = sample();
        x.client_final_bare = finals[i];
        expect_no_proof(&x);
    }
    struct cs_vault_exchange x = sample();
    x.mechanism = CS_SLICE_LIT("SCRAM-SHA-1");
    expect_no_proof(&x);
}

CS_TEST(prover_binds_plus_to_a_certificate)
{
    struct cs_vault_prover *p = cs_vault_prover_new();
    struct cs_secret secret = {0};
    struct cs_vault_exchange x = sample();
    struct cs_vault_proof proof;
    const char *words = NULL;
    uint8_t raw[24 + CS_SHA256] = "p=tls-server-end-point,,";
    char text[200] = "c=";
    CS_CHECK(p != NULL && cs_secret_set(&secret, CS_SLICE_LIT("pencil")));
    x.mechanism = CS_SLICE_LIT("SCRAM-SHA-256-PLUS");
    expect_no_proof(&x); /* "n,," under PLUS */
    size_t n = 2 + cs_base64_encode(cs_slice(raw, sizeof raw), false, text + 2);
    (void)snprintf(text + n, sizeof text - n, ",r=%s", NONCE);
    x.client_final_bare = cs_slice_str(text);
    CS_CHECK(cs_vault_scram_prove(p, &secret, &anywhere, &x, &proof, &words) == CS_OK);
    x.mechanism = CS_SLICE_LIT("SCRAM-SHA-256"); /* a binding where none is */
    expect_no_proof(&x);
    x.mechanism = CS_SLICE_LIT("SCRAM-SHA-256-PLUS");
    n = 2 + cs_base64_encode(cs_slice(raw, 24 + 16), false, text + 2); /* half a hash */
    (void)snprintf(text + n, sizeof text - n, ",r=%s", NONCE);
    x.client_final_bare = cs_slice_str(text);
    expect_no_proof(&x);
    cs_secret_done(&secret);
    cs_vault_prover_free(p);
}

/* ---- what the configuration demands of an exchange ---- */

struct demand {
    enum cs_channel_binding word;
    const char *pin;       /* NULL: none */
    const char *mechanism; /* "" or "-PLUS" */
    const char *header;
    enum cs_err want;
};

static const struct demand demands[] = {
    {CS_BINDING_PREFER, NULL, "", "n,,", CS_OK},
    {CS_BINDING_PREFER, NULL, "", "y,,", CS_OK},
    {CS_BINDING_PREFER, NULL, "-PLUS", "p=tls-server-end-point,,", CS_OK},
    {CS_BINDING_PREFER, NULL, "-PLUS", "p=tls-unique,,", CS_ERR_PROTOCOL},
    {CS_BINDING_PREFER, NULL, "", "p=tls-server-end-point,,", CS_ERR_PROTOCOL},
    {CS_BINDING_PREFER, NULL, "-PLUS", "y,,", CS_ERR_PROTOCOL},
    {CS_BINDING_DISABLE, NULL, "", "n,,", CS_OK},
    {CS_BINDING_DISABLE, NULL, "", "y,,", CS_ERR_DENIED},
    {CS_BINDING_DISABLE, NULL, "-PLUS", "p=tls-server-end-point,,", CS_ERR_DENIED},
    {CS_BINDING_REQUIRE, NULL, "", "n,,", CS_ERR_DENIED},
    {CS_BINDING_REQUIRE, NULL, "", "y,,", CS_ERR_DENIED},
    {CS_BINDING_REQUIRE, NULL, "-PLUS", "p=tls-server-end-point,,", CS_OK},
    {CS_BINDING_REQUIRE, "other", "-PLUS", "p=tls-server-end-point,,", CS_ERR_DENIED},
    {CS_BINDING_REQUIRE, "this", "-PLUS", "p=tls-server-end-point,,", CS_OK},
    {CS_BINDING_REQUIRE, "both", "-PLUS", "p=tls-server-end-point,,", CS_OK},
    {CS_BINDING_REQUIRE, "this", "", "n,,", CS_ERR_DENIED},
    {CS_BINDING_NONE, NULL, "", "n,,", CS_ERR_DENIED},
    {CS_BINDING_NONE, NULL, "-PLUS", "p=tls-server-end-point,,", CS_ERR_DENIED},
};

static enum cs_err demand_meets(const struct demand *d)
{
    struct cs_vault_prover *p = cs_vault_prover_new();
    struct cs_secret secret = {0};
    struct cs_vault_exchange x = sample();
    struct cs_vault_proof proof;
    const char *words = NULL;
    uint8_t raw[64], hash[CS_SHA256] = {7}, other[CS_SHA256] = {8};
    char text[200] = "c=", mechanism[40];
    struct cs_buf pins = cs_buf(400);
    struct cs_credential_row row = anywhere;
    size_t head = strlen(d->header), plus = head > 3 ? sizeof hash : 0;
    CS_CHECK(p != NULL && cs_secret_set(&secret, CS_SLICE_LIT("pencil")));
    memcpy(raw, d->header, head);
    memcpy(raw + head, hash, plus);
    size_t n = 2 + cs_base64_encode(cs_slice(raw, head + plus), false, text + 2);
    (void)snprintf(text + n, sizeof text - n, ",r=%s", NONCE);
    (void)snprintf(mechanism, sizeof mechanism, "SCRAM-SHA-256%s", d->mechanism);
    x.client_final_bare = cs_slice_str(text);
    x.mechanism = cs_slice_str(mechanism);
    if (d->pin != NULL && strcmp(d->pin, "this") != 0) {
        CS_CHECK(cs_credential_pin_add(&pins, cs_slice(other, sizeof other)));
    }
    if (d->pin != NULL && strcmp(d->pin, "other") != 0) {
        CS_CHECK(cs_credential_pin_add(&pins, cs_slice(hash, sizeof hash)));
    }
    row.binding = d->word;
    row.pins = cs_buf_slice(&pins);
    enum cs_err e = cs_vault_scram_prove(p, &secret, &row, &x, &proof, &words);
    CS_CHECK((e == CS_OK) == (words[0] == 0));
    cs_buf_done(&pins);
    cs_secret_done(&secret);
    cs_vault_prover_free(p);
    return e;
}

CS_TEST(prover_goes_no_lower_than_the_configuration_demands)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(demands); i++) {
        enum cs_err e = demand_meets(&demands[i]);
        if (e != demands[i].want) {
            CS_FAIL("%zu: %s, not %s", i, cs_err_name(e), cs_err_name(demands[i].want));
        }
    }
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(vault_survives_a_lack_of_memory)
{
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_vault *v = cs_vault_new();
        struct cs_vault_prover *p = cs_vault_prover_new();
        struct cs_secret s = {0};
        struct cs_vault_exchange x = sample();
        struct cs_vault_proof proof;
        const char *words = NULL;
        uint8_t box[6 + CS_VAULT_BOX_OVERHEAD];
        done = p != NULL && v != NULL;
        if (done) {
            cs_vault_set_key(v, false, key_a);
        }
        done = done &&
               cs_vault_seal(v, CS_SLICE_LIT("n"), 1, CS_SLICE_LIT("pencil"), box) == CS_OK &&
               cs_vault_unseal(v, CS_SLICE_LIT("n"), 1, cs_slice(box, sizeof box), &s) == CS_OK &&
               cs_vault_scram_prove(p, &s, &anywhere, &x, &proof, &words) == CS_OK;
        cs_vault_prover_free(p);
        cs_vault_close(v);
    }
    CS_CHECK(done);
    CS_EQ_U64(cs_alloc_live(), 0);
}
