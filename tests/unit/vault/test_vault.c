/* The master key file, boxes, and SCRAM proofs. */
#include "base/limits.h"
#include "base/time.h"
#include "tap.h"
#include "vault/vault.h"

#include <fcntl.h>
#include <sys/stat.h>

enum { WHY = 300 };

static char dir[] = "/tmp/cs-vault-XXXXXX";
static char path[64], link_path[64], why[WHY];

static struct cs_vault *fresh(void)
{
    struct cs_vault *v = NULL;
    CS_CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(path, sizeof path, "%s/master.key", dir);
    (void)snprintf(link_path, sizeof link_path, "%s/link", dir);
    CS_CHECK(cs_vault_open(path, true, &v, why, WHY) == CS_OK);
    return v;
}

static void clean(void)
{
    (void)unlink(link_path);
    (void)unlink(path);
    (void)rmdir(dir);
}

static void expect_refused(const char *file, enum cs_err err, const char *words)
{
    struct cs_vault *v = NULL;
    CS_CHECK(cs_vault_open(file, false, &v, why, WHY) == err && v == NULL);
    if (strstr(why, words) == NULL || strstr(why, file) == NULL) {
        CS_FAIL("why: %s", why);
    }
}

CS_TEST(vault_key_is_made_once_and_private)
{
    struct stat st;
    struct cs_vault *v = fresh(), *again = NULL;
    uint8_t a[CS_SEAL_KEY], b[CS_SEAL_KEY];
    CS_CHECK(stat(path, &st) == 0 && st.st_size == CS_SEAL_KEY);
    CS_EQ_U64(st.st_mode & 07777, 0600);
    CS_CHECK(cs_vault_open(path, true, &again, why, WHY) == CS_OK);
    CS_CHECK(cs_vault_derive(v, "test", a) == CS_OK && cs_vault_derive(again, "test", b) == CS_OK);
    CS_CHECK(memcmp(a, b, sizeof a) == 0);
    CS_CHECK(cs_vault_derive(v, "other", b) == CS_OK && memcmp(a, b, sizeof a) != 0);
    cs_vault_close(v);
    cs_vault_close(again);
    clean();
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(vault_refuses_a_key_that_others_could_reach)
{
    static const mode_t modes[] = {0640, 0604, 0620, 0602, 0610, 0601, 0777};
    cs_vault_close(fresh());
    for (size_t i = 0; i < CS_ARRAY_LEN(modes); i++) {
        CS_CHECK(chmod(path, modes[i]) == 0);
        expect_refused(path, CS_ERR_DENIED, "can be reached by others");
    }
    struct cs_vault *v = NULL;
    CS_CHECK(chmod(path, 0400) == 0);
    CS_CHECK(cs_vault_open(path, false, &v, why, WHY) == CS_OK);
    cs_vault_close(v);
    clean();
}

CS_TEST(vault_refuses_links_and_what_is_no_key)
{
    struct cs_vault *v = NULL;
    cs_vault_close(fresh());
    CS_CHECK(symlink(path, link_path) == 0);
    expect_refused(link_path, CS_ERR_DENIED, "is a symbolic link");
    CS_CHECK(cs_vault_open(link_path, true, &v, why, WHY) == CS_ERR_DENIED);
    CS_CHECK(truncate(path, 31) == 0);
    expect_refused(path, CS_ERR_DENIED, "32 bytes");
    CS_CHECK(truncate(path, 33) == 0);
    expect_refused(path, CS_ERR_DENIED, "32 bytes");
    CS_CHECK(unlink(path) == 0);
    /* A link that leads nowhere must not be a way to create a file elsewhere. */
    CS_CHECK(cs_vault_open(link_path, true, &v, why, WHY) != CS_OK && access(path, F_OK) != 0);
    expect_refused(path, CS_ERR_NOT_FOUND, "does not exist");
    CS_CHECK(mkfifo(path, 0600) == 0);
    expect_refused(path, CS_ERR_DENIED, "is not a regular file");
    expect_refused(dir, CS_ERR_DENIED, "is not a regular file");
    clean();
}

CS_TEST(vault_box_opens_only_as_itself)
{
    struct cs_vault *v = fresh();
    struct cs_secret s = {0};
    uint8_t box[8 + CS_SEAL_OVERHEAD];
    struct cs_slice name = CS_SLICE_LIT("orders-ro"), boxed = cs_slice(box, sizeof box);
    CS_EQ_U64(cs_vault_box_size(8), sizeof box);
    CS_CHECK(cs_vault_seal(v, name, 3, CS_SLICE_LIT("hunter22"), box) == CS_OK);
    CS_CHECK(cs_vault_unseal(v, name, 3, boxed, &s) == CS_OK);
    CS_EQ_STR(cs_secret_reveal(&s), "hunter22");
    cs_vault_forget(v);
    CS_CHECK(cs_vault_unseal(v, name, 2, boxed, &s) == CS_ERR_CORRUPT);
    CS_CHECK(cs_vault_unseal(v, CS_SLICE_LIT("orders-rw"), 3, boxed, &s) == CS_ERR_CORRUPT);
    CS_CHECK(cs_vault_unseal(v, name, 3, cs_slice_head(boxed, 20), &s) == CS_ERR_CORRUPT);
    box[CS_SEAL_NONCE] ^= 1;
    CS_CHECK(cs_vault_unseal(v, name, 3, boxed, &s) == CS_ERR_CORRUPT);
    CS_CHECK(s.n == 8 && s.hidden[0] == 0); /* nothing of it is left in the room */
    CS_CHECK(cs_vault_seal(v, CS_SLICE_NULL, 1, name, box) == CS_ERR_INVALID);
    uint8_t big[CS_SECRET_MAX + 1] = {0};
    CS_CHECK(cs_vault_seal(v, cs_slice(big, CS_VAULT_NAME_MAX + 1), 1, name, box) ==
             CS_ERR_INVALID);
    CS_CHECK(cs_vault_seal(v, name, 1, cs_slice(big, sizeof big), box) == CS_ERR_TOO_LARGE);
    cs_vault_close(v);
    clean();
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
        CS_CHECK(cs_vault_scram_prove(p, &secret, &x, &proof, &words) == CS_OK);
        CS_EQ_STR(cs_slice_str(words), "");
        expect_proof(&proof, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                     "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        /* Another password with the same salt has an entry of its own. */
        CS_CHECK(cs_vault_scram_prove(p, &other, &x, &wrong, &words) == CS_OK);
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
    CS_CHECK(cs_vault_scram_prove(p, &secret, &x, &first, &words) == CS_OK);
    uint64_t t1 = cs_mono_ns();
    for (int i = 0; i < 10; i++) {
        CS_CHECK(cs_vault_scram_prove(p, &secret, &x, &proof, &words) == CS_OK);
        CS_CHECK(memcmp(&first, &proof, sizeof proof) == 0);
    }
    CS_CHECK(cs_mono_ns() - t1 < t1 - t0);
    for (int i = 0; i < 100;
         i++) { /* more salts than entries: the old ones go, results stay right */
        (void)snprintf(text, sizeof text, "r=%s,s=%08d,i=4096", NONCE, i * 4);
        struct cs_vault_exchange y = sample();
        y.server_first = cs_slice_str(text);
        CS_CHECK(cs_vault_scram_prove(p, &secret, &y, &proof, &words) == CS_OK);
    }
    x = sample();
    CS_CHECK(cs_vault_scram_prove(p, &secret, &x, &proof, &words) == CS_OK);
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
    CS_CHECK(cs_vault_scram_prove(p, &secret, x, &proof, &words) == CS_ERR_PROTOCOL);
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
        CS_SLICE_LIT("c=eSws,r=" NONCE), CS_SLICE_LIT("c=biws,r=" NONCE ",p=AAAA"),
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
    CS_CHECK(cs_vault_scram_prove(p, &secret, &x, &proof, &words) == CS_OK);
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

CS_TEST(vault_makes_no_key_without_memory_and_leaves_none_behind)
{
    cs_vault_close(fresh());
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_vault *v = NULL;
        (void)unlink(path);
        done = cs_vault_open(path, true, &v, why, WHY) == CS_OK;
        CS_CHECK(done == (access(path, F_OK) == 0));
        cs_vault_close(v);
    }
    CS_CHECK(done);
    clean();
}

CS_TEST(vault_survives_a_lack_of_memory)
{
    cs_vault_close(fresh());
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_vault *v = NULL;
        struct cs_vault_prover *p = cs_vault_prover_new();
        struct cs_secret s = {0};
        struct cs_vault_exchange x = sample();
        struct cs_vault_proof proof;
        const char *words = NULL;
        uint8_t box[6 + CS_SEAL_OVERHEAD];
        done = p != NULL && cs_vault_open(path, false, &v, why, WHY) == CS_OK &&
               cs_vault_seal(v, CS_SLICE_LIT("n"), 1, CS_SLICE_LIT("pencil"), box) == CS_OK &&
               cs_vault_unseal(v, CS_SLICE_LIT("n"), 1, cs_slice(box, sizeof box), &s) == CS_OK &&
               cs_vault_scram_prove(p, &s, &x, &proof, &words) == CS_OK;
        cs_vault_prover_free(p);
        cs_vault_close(v);
    }
    CS_CHECK(done);
    clean();
    CS_EQ_U64(cs_alloc_live(), 0);
}
