/* SCRAM-SHA-256: the example of RFC 7677, and messages that must be refused. */
#include "base/limits.h"
#include "crypto/scram.h"
#include "tap.h"

#define CLIENT_NONCE  "rOprNGfwEbeRWgbNEkqO"
#define NONCE         CLIENT_NONCE "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
#define BARE          "n=user,r=" CLIENT_NONCE
#define SERVER_FIRST  "r=" NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define WITHOUT_PROOF "c=biws,r=" NONCE
#define AUTH          BARE "," SERVER_FIRST "," WITHOUT_PROOF
#define FINAL         WITHOUT_PROOF ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
#define SERVER_FINAL  "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

CS_TEST(scram_exchange_of_rfc_7677_from_both_sides)
{
    struct cs_scram_client_first first;
    struct cs_scram_server_first server;
    struct cs_scram_client_final final;
    struct cs_scram_verifier v;
    uint8_t salted[CS_SHA256], proof[CS_SHA256], expected[CS_SHA256], signature[CS_SHA256];
    CS_CHECK(cs_scram_parse_client_first(CS_SLICE_LIT("n,," BARE), &first));
    CS_CHECK(first.binding == 'n' && first.binding_name.n == 0);
    CS_EQ_STR(first.gs2_header, "n,,");
    CS_EQ_STR(first.bare, BARE);
    CS_EQ_STR(first.name, "user");
    CS_EQ_STR(first.nonce, CLIENT_NONCE);
    CS_CHECK(cs_scram_parse_server_first(CS_SLICE_LIT(SERVER_FIRST), first.nonce, &server));
    CS_EQ_STR(server.nonce, NONCE);
    CS_EQ_U64(server.iterations, 4096);
    CS_EQ_U64(server.salt_n, 16);
    CS_CHECK(cs_scram_parse_client_final(CS_SLICE_LIT(FINAL), &final));
    CS_EQ_STR(final.without_proof, WITHOUT_PROOF);
    CS_EQ_STR(final.channel_binding, "biws");
    CS_EQ_STR(final.nonce, NONCE);
    CS_CHECK(cs_scram_salted_password(CS_SLICE_LIT("pencil"), cs_slice(server.salt, server.salt_n),
                                      server.iterations, salted) == CS_OK);
    cs_scram_client_proof(salted, CS_SLICE_LIT(AUTH), proof, expected);
    CS_CHECK(memcmp(proof, final.proof, sizeof proof) == 0);
    CS_CHECK(cs_scram_verifier_make(CS_SLICE_LIT("pencil"), server.salt, 4096, &v) == CS_OK);
    CS_CHECK(cs_scram_server_check(&v, CS_SLICE_LIT(AUTH), final.proof, signature));
    CS_CHECK(memcmp(signature, expected, sizeof signature) == 0);
    CS_CHECK(cs_scram_parse_server_final(CS_SLICE_LIT(SERVER_FINAL), signature));
    CS_CHECK(memcmp(signature, expected, sizeof signature) == 0);
}

CS_TEST(scram_server_refuses_a_wrong_proof_or_another_exchange)
{
    struct cs_scram_verifier v;
    struct cs_scram_client_final final;
    uint8_t salt[CS_SCRAM_SALT] = {0}, signature[CS_SHA256] = {7};
    size_t n;
    CS_CHECK(
        cs_base64_decode(CS_SLICE_LIT("W22ZaJ0SNY7soEsUEjb6gQ=="), false, salt, sizeof salt, &n));
    CS_CHECK(cs_scram_verifier_make(CS_SLICE_LIT("pencil"), salt, 4096, &v) == CS_OK);
    CS_CHECK(cs_scram_parse_client_final(CS_SLICE_LIT(FINAL), &final));
    final.proof[31] ^= 1;
    CS_CHECK(!cs_scram_server_check(&v, CS_SLICE_LIT(AUTH), final.proof, signature));
    CS_EQ_U64(signature[0], 7);
    final.proof[31] ^= 1;
    CS_CHECK(!cs_scram_server_check(&v, CS_SLICE_LIT(AUTH "x"), final.proof, signature));
    CS_CHECK(cs_scram_server_check(&v, CS_SLICE_LIT(AUTH), final.proof, signature));
}

CS_TEST(scram_mock_is_steady_by_name_and_never_lets_in)
{
    struct cs_scram_verifier a, b, c;
    struct cs_slice key = CS_SLICE_LIT("installation secret");
    uint8_t salted[CS_SHA256], proof[CS_SHA256], signature[CS_SHA256];
    cs_scram_verifier_mock(key, CS_SLICE_LIT("nobody"), &a);
    cs_scram_verifier_mock(key, CS_SLICE_LIT("nobody"), &b);
    cs_scram_verifier_mock(key, CS_SLICE_LIT("nobody2"), &c);
    CS_CHECK(memcmp(a.salt, b.salt, sizeof a.salt) == 0 && a.iterations == b.iterations);
    CS_CHECK(memcmp(a.salt, c.salt, sizeof a.salt) != 0);
    cs_scram_verifier_mock(CS_SLICE_LIT("another"), CS_SLICE_LIT("nobody"), &c);
    CS_CHECK(memcmp(a.salt, c.salt, sizeof a.salt) != 0);
    CS_CHECK(cs_scram_salted_password(CS_SLICE_LIT("pencil"), cs_slice(a.salt, sizeof a.salt), 4096,
                                      salted) == CS_OK);
    cs_scram_client_proof(salted, CS_SLICE_LIT(AUTH), proof, signature);
    CS_CHECK(!cs_scram_server_check(&a, CS_SLICE_LIT(AUTH), proof, signature));
}

CS_TEST(scram_client_first_of_real_clients_is_read)
{
    struct cs_scram_client_first m;
    CS_CHECK(cs_scram_parse_client_first(CS_SLICE_LIT("n,,n=,r=abc"), &m)); /* libpq */
    CS_EQ_U64(m.name.n, 0);
    CS_CHECK(cs_scram_parse_client_first(CS_SLICE_LIT("y,,n=*,r=abc"), &m)); /* the JDBC driver */
    CS_CHECK(m.binding == 'y');
    CS_EQ_STR(m.gs2_header, "y,,");
    CS_CHECK(
        cs_scram_parse_client_first(CS_SLICE_LIT("p=tls-server-end-point,,n=a=2Cb=3D,r=abc"), &m));
    CS_CHECK(m.binding == 'p');
    CS_EQ_STR(m.binding_name, "tls-server-end-point");
    CS_EQ_STR(m.gs2_header, "p=tls-server-end-point,,");
    CS_EQ_STR(m.bare, "n=a=2Cb=3D,r=abc");
}

CS_TEST(scram_client_first_is_refused_when_it_is_anything_else)
{
    static const char *const bad[] = {
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=,r=",
        "n,,n=",
        "n,,n=u,r=abc,",
        "n,,n=u,r=abc,x=y",    /* extension */
        "n,,m=x,n=u,r=abc",    /* mandatory extension */
        "n,a=admin,n=u,r=abc", /* authorisation identity */
        "p,,n=u,r=abc",
        "p=,,n=u,r=abc",
        "p=a b,,n=u,r=abc",
        "x,,n=u,r=abc",
        "n=x,,n=u,r=abc",
        "n,,n=a=b,r=abc",
        "n,,n=a=2c,r=abc",
        "n,,n=a=,r=abc",
        "n,,r=abc,n=u",
        "n,,n=\xff,r=abc",
        "n,,n=u,r=a b",
        "n,,n=u,r=a\x7f",
    };
    struct cs_scram_client_first m;
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        if (cs_scram_parse_client_first(cs_slice_str(bad[i]), &m)) {
            CS_FAIL("accepted: %s", bad[i]);
        }
    }
    CS_CHECK(!cs_scram_parse_client_first(cs_slice("n,,n=\0,r=abc", 12), &m));
    char big[CS_LIMIT_SCRAM_MESSAGE_BYTES + 2];
    memset(big, 'a', sizeof big);
    memcpy(big, "n,,n=u,r=", 9);
    CS_CHECK(!cs_scram_parse_client_first(cs_slice(big, sizeof big), &m));
    CS_CHECK(!cs_scram_parse_client_first(cs_slice(big, 9 + CS_SCRAM_NONCE_MAX + 1), &m));
    CS_CHECK(cs_scram_parse_client_first(cs_slice(big, 9 + CS_SCRAM_NONCE_MAX), &m));
}

CS_TEST(scram_client_final_is_refused_when_it_is_anything_else)
{
    static const char *const bad[] = {
        "",
        "c=biws",
        "c=biws,r=abc",
        "c=biws,r=abc,p=",
        "c=,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "r=abc,c=biws,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "c=biws,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ",
        "c=biws,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVR=", /* trailing bits */
        "c=biws,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndQ==", /* 31 bytes */
        "c=biws,r=abc,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=,x=y",
        "c=biws,r=abc,x=y,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    };
    struct cs_scram_client_final m;
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        if (cs_scram_parse_client_final(cs_slice_str(bad[i]), &m)) {
            CS_FAIL("accepted: %s", bad[i]);
        }
    }
}

CS_TEST(scram_server_first_is_refused_when_it_is_hostile)
{
    static const char *const bad[] = {
        "",
        "r=abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",  /* adds nothing to our nonce */
        "r=xbcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", /* not ours */
        "r=abcd,s=,i=4096",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ,i=4096",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1000001",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=2147483648",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=18446744073709555712",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=04096",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-4096",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==",
        "r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,x=y",
        "m=x,r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "e=other-error",
    };
    struct cs_scram_server_first m;
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        if (cs_scram_parse_server_first(cs_slice_str(bad[i]), CS_SLICE_LIT("abc"), &m)) {
            CS_FAIL("accepted: %s", bad[i]);
        }
    }
    CS_CHECK(cs_scram_parse_server_first(CS_SLICE_LIT("r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
                                         CS_SLICE_LIT("abc"), &m));
    CS_CHECK(!cs_scram_parse_server_first(CS_SLICE_LIT("r=abcd,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
                                          CS_SLICE_NULL, &m));
    char big[200];
    (void)snprintf(big, sizeof big, "r=abcd,s=%0*d,i=4096", 88, 0); /* a salt of 66 bytes */
    CS_CHECK(!cs_scram_parse_server_first(cs_slice_str(big), CS_SLICE_LIT("abc"), &m));
}

CS_TEST(scram_server_final_error_is_no_signature)
{
    uint8_t out[CS_SHA256] = {7};
    CS_CHECK(!cs_scram_parse_server_final(CS_SLICE_LIT("e=invalid-proof"), out));
    CS_CHECK(!cs_scram_parse_server_final(CS_SLICE_LIT("v=AAAA"), out));
    CS_CHECK(!cs_scram_parse_server_final(CS_SLICE_LIT(SERVER_FINAL ",x=y"), out));
    CS_CHECK(!cs_scram_parse_server_final(CS_SLICE_LIT(""), out));
    CS_EQ_U64(out[0], 7);
}
