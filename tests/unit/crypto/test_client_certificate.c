/* A client's certificate as control checks it: handshakes of OpenSSL's own, kept as bytes, and all
 * that a gate could do to them. */
#include "base/buf.h"
#include "crypto/client_certificate.h"
#include "tap.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum { CERTIFICATE_VERIFY = 15 };

struct party {
    EVP_PKEY *key;
    X509 *cert;
};

static void extension(X509 *x, X509 *issuer, int nid, const char *text)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, text);
    CS_CHECK(e != NULL && X509_add_ext(x, e, -1) == 1);
    X509_EXTENSION_free(e);
}

/* `by` NULL: by itself. */
static struct party make(const struct party *by, const char *cn, const char *usage, const char *san)
{
    struct party p = {EVP_EC_gen("P-256"), X509_new()};
    X509_NAME *name = X509_get_subject_name(p.cert);
    CS_CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1,
                                        -1, 0) == 1);
    CS_CHECK(X509_set_version(p.cert, 2) == 1);
    CS_CHECK(ASN1_INTEGER_set(X509_get_serialNumber(p.cert), 7) == 1);
    CS_CHECK(X509_gmtime_adj(X509_getm_notBefore(p.cert), -3600) != NULL);
    CS_CHECK(X509_gmtime_adj(X509_getm_notAfter(p.cert), 3600) != NULL);
    const struct party *issuer = by != NULL ? by : &p;
    CS_CHECK(X509_set_issuer_name(p.cert, X509_get_subject_name(issuer->cert)) == 1);
    CS_CHECK(X509_set_pubkey(p.cert, p.key) == 1);
    extension(p.cert, issuer->cert, NID_basic_constraints,
              by == NULL ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (usage != NULL) {
        extension(p.cert, issuer->cert, NID_ext_key_usage, usage);
    }
    if (san != NULL) {
        extension(p.cert, issuer->cert, NID_subject_alt_name, san);
    }
    CS_CHECK(X509_sign(p.cert, issuer->key, EVP_sha256()) > 0);
    return p;
}

static void party_free(struct party *p)
{
    EVP_PKEY_free(p->key);
    X509_free(p->cert);
}

static struct cs_slice pem_of(const struct party *p, char *out, size_t n)
{
    BIO *b = BIO_new(BIO_s_mem());
    CS_CHECK(PEM_write_bio_X509(b, p->cert) == 1);
    int len = BIO_read(b, out, (int)n);
    BIO_free(b);
    CS_CHECK(len > 0 && (size_t)len < n);
    return cs_slice(out, (size_t)len);
}

struct world {
    struct party ca, server, client;
    char ca_pem[2048], server_pem[2048];
    uint8_t nonce[CS_CLIENT_NONCE];
    struct cs_client_rule rule;
    struct cs_buf seen;
    bool complete;
};

static void see(int write_p, int version, int type, const void *buf, size_t len, SSL *ssl,
                void *arg)
{
    struct world *w = arg;
    (void)version;
    (void)ssl;
    if (type == SSL3_RT_HANDSHAKE && !w->complete) {
        cs_buf_add(&w->seen, cs_slice(buf, len));
        w->complete = write_p == 0 && *(const uint8_t *)buf == CERTIFICATE_VERIFY;
    }
}

static int any(int ok, X509_STORE_CTX *ctx)
{
    (void)ok;
    (void)ctx;
    return 1; /* a gate that was taken over accepts everything */
}

static void carry(SSL *from, SSL *to)
{
    char bytes[16384];
    int n;
    while ((n = BIO_read(SSL_get_wbio(from), bytes, sizeof bytes)) > 0) {
        CS_CHECK(BIO_write(SSL_get_rbio(to), bytes, n) == n);
    }
}

static SSL *end(SSL_CTX *ctx, const struct party *own)
{
    CS_CHECK(SSL_CTX_use_certificate(ctx, own->cert) == 1);
    CS_CHECK(SSL_CTX_use_PrivateKey(ctx, own->key) == 1);
    SSL *ssl = SSL_new(ctx);
    CS_CHECK(ssl != NULL);
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    return ssl;
}

static void shake(struct world *w, int version, bool retry)
{
    SSL_CTX *s = SSL_CTX_new(TLS_server_method()), *c = SSL_CTX_new(TLS_client_method());
    uint8_t der[CS_NONCE_NAME];
    const unsigned char *p = der;
    cs_client_nonce_name(w->nonce, der);
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    CS_CHECK(sk_X509_NAME_push(names, d2i_X509_NAME(NULL, &p, sizeof der)) > 0);
    SSL_CTX_set0_CA_list(s, names);
    SSL_CTX_set_verify(s, SSL_VERIFY_PEER, any);
    CS_CHECK(SSL_CTX_set_min_proto_version(s, version) == 1);
    CS_CHECK(SSL_CTX_set_max_proto_version(s, version) == 1);
    CS_CHECK(SSL_CTX_set1_groups_list(s, "P-256") == 1);
    CS_CHECK(SSL_CTX_set1_groups_list(c, retry ? "P-384:P-256" : "P-256") == 1);
    SSL *server = end(s, &w->server), *client = end(c, &w->client);
    SSL_set_msg_callback(server, see);
    SSL_set_msg_callback_arg(server, w);
    SSL_set_accept_state(server);
    SSL_set_connect_state(client);
    w->seen = cs_buf(65536);
    w->complete = false;
    for (int i = 0; i < 10 && !w->complete; i++) {
        (void)SSL_do_handshake(client);
        carry(client, server);
        (void)SSL_do_handshake(server);
        carry(server, client);
    }
    CS_CHECK(w->complete && !w->seen.bad);
    SSL_free(server);
    SSL_free(client);
    SSL_CTX_free(s);
    SSL_CTX_free(c);
    ERR_clear_error();
}

static void world_make(struct world *w, const char *usage, const char *san)
{
    memset(w, 0, sizeof *w);
    w->ca = make(NULL, "clients", NULL, NULL);
    w->server = make(NULL, "gate", "serverAuth", "DNS:localhost");
    w->client = make(&w->ca, "client", usage, san);
    for (size_t i = 0; i < sizeof w->nonce; i++) {
        w->nonce[i] = (uint8_t)(i * 7 + 1);
    }
    w->rule = (struct cs_client_rule){.authorities = pem_of(&w->ca, w->ca_pem, sizeof w->ca_pem),
                                      .form = CS_SAN_EMAIL,
                                      .pattern = CS_SLICE_LIT("{name}@example.com"),
                                      .server_pem =
                                          pem_of(&w->server, w->server_pem, sizeof w->server_pem)};
}

static void world_end(struct world *w)
{
    cs_buf_done(&w->seen);
    party_free(&w->ca);
    party_free(&w->server);
    party_free(&w->client);
}

/* What the check says; "bot" when it is bot's. */
static const char *says(struct world *w, struct cs_slice transcript)
{
    static char name[65];
    const char *why = cs_client_certificate_check(transcript, w->nonce, &w->rule, name);
    return why != NULL ? why : name;
}

static const struct {
    int version;
    bool retry;
} kinds[] = {{TLS1_2_VERSION, false}, {TLS1_3_VERSION, false}, {TLS1_3_VERSION, true}};

CS_TEST(client_certificate_says_whose_handshake_it_was)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(kinds); i++) {
        struct world w;
        world_make(&w, "clientAuth", "email:bot@example.com");
        shake(&w, kinds[i].version, kinds[i].retry);
        CS_EQ_STR(cs_slice_str(says(&w, cs_buf_slice(&w.seen))), "bot");
        world_end(&w);
    }
}

/* Every byte is signed, or the signature itself, or a length that no longer fits. */
CS_TEST(client_certificate_refuses_a_handshake_with_any_byte_changed)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(kinds); i++) {
        struct world w;
        world_make(&w, "clientAuth", "email:bot@example.com");
        shake(&w, kinds[i].version, kinds[i].retry);
        for (size_t at = 0; at < w.seen.len; at++) {
            w.seen.p[at] ^= 0x01;
            if (strcmp(says(&w, cs_buf_slice(&w.seen)), "bot") == 0) {
                CS_FAIL("byte %zu of handshake %zu", at, i);
            }
            w.seen.p[at] ^= 0x01;
        }
        CS_EQ_STR(cs_slice_str(says(&w, cs_buf_slice(&w.seen))), "bot");
        world_end(&w);
    }
}

CS_TEST(client_certificate_refuses_a_handshake_that_was_cut_or_grew)
{
    struct world w;
    world_make(&w, "clientAuth", "email:bot@example.com");
    shake(&w, TLS1_3_VERSION, false);
    for (size_t n = 0; n < w.seen.len; n++) {
        uint8_t *exact = malloc(n + 1); /* so that a read past the end is seen */
        CS_CHECK(exact != NULL);
        memcpy(exact, w.seen.p, n);
        CS_EQ_STR(cs_slice_str(says(&w, cs_slice(exact, n))),
                  "the handshake's messages are malformed");
        free(exact);
    }
    cs_buf_u8(&w.seen, 0);
    CS_EQ_STR(cs_slice_str(says(&w, cs_buf_slice(&w.seen))),
              "the handshake's messages are malformed");
    world_end(&w);
}

CS_TEST(client_certificate_is_good_for_its_nonce_and_its_server_only)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(kinds); i++) {
        struct world w, other;
        world_make(&w, "clientAuth", "email:bot@example.com");
        shake(&w, kinds[i].version, kinds[i].retry);
        w.nonce[31] ^= 1;
        CS_EQ_STR(cs_slice_str(says(&w, cs_buf_slice(&w.seen))),
                  "the handshake is not the one that was asked for");
        w.nonce[31] ^= 1;
        /* bot's client was led to another server, which got the nonce from a gate. */
        world_make(&other, "clientAuth", "email:bot@example.com");
        w.rule.server_pem = other.rule.server_pem;
        CS_EQ_STR(cs_slice_str(says(&w, cs_buf_slice(&w.seen))),
                  "the handshake was with another server's certificate");
        world_end(&other);
        world_end(&w);
    }
}

/* Certificates are public: a gate shows bot's, and signs with a key of its own. */
CS_TEST(client_certificate_counts_only_with_its_key)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(kinds); i++) {
        struct world w;
        world_make(&w, "clientAuth", "email:bot@example.com");
        struct party own = make(NULL, "own", NULL, NULL);
        struct party bots = w.client;
        shake(&w, kinds[i].version, kinds[i].retry);
        struct cs_buf theirs = w.seen;
        w.client = own;
        shake(&w, kinds[i].version, kinds[i].retry);
        CS_CHECK(strcmp(says(&w, cs_buf_slice(&w.seen)), "bot") != 0);
        /* bot's handshake with the last message of the other. */
        struct cs_tls_transcript t;
        CS_CHECK(cs_tls_transcript_parse(cs_buf_slice(&theirs), &t));
        struct cs_buf mixed = cs_buf(65536);
        cs_buf_add(&mixed, t.all);
        CS_CHECK(cs_tls_transcript_parse(cs_buf_slice(&w.seen), &t));
        cs_buf_add(&mixed, cs_slice_from(cs_buf_slice(&w.seen), t.all.n));
        CS_EQ_STR(cs_slice_str(says(&w, cs_buf_slice(&mixed))),
                  "the client did not prove that it has the certificate's key");
        cs_buf_done(&mixed);
        cs_buf_done(&theirs);
        party_free(&own);
        w.client = bots;
        world_end(&w);
    }
}

CS_TEST(client_certificate_must_be_for_clients_and_have_one_name)
{
    static const struct {
        const char *usage, *san, *says;
    } rows[] = {
        {"serverAuth", "email:bot@example.com", "unsuitable certificate purpose"},
        {"clientAuth", NULL, "it has no e-mail name"},
        {"clientAuth", "DNS:bot", "it has no e-mail name"},
        {"clientAuth", "email:bot@example.com,email:alice@example.com",
         "it has several e-mail names"},
        {"clientAuth", "email:bot@example.org", "its name is not of the configured form"},
        {"clientAuth", "email:bot@example.com,URI:x:y", "bot"},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct world w;
        world_make(&w, rows[i].usage, rows[i].san);
        shake(&w, TLS1_3_VERSION, false);
        CS_EQ_STR(cs_slice_str(says(&w, cs_buf_slice(&w.seen))), rows[i].says);
        w.rule.form = CS_SAN_NONE;
        CS_CHECK(strcmp(says(&w, cs_buf_slice(&w.seen)), "bot") != 0);
        world_end(&w);
    }
}

CS_TEST(client_certificate_of_another_authority_is_refused)
{
    struct world w;
    world_make(&w, "clientAuth", "email:bot@example.com");
    struct party twin = make(NULL, "clients", NULL, NULL); /* the same name, another key */
    w.rule.authorities = pem_of(&twin, w.ca_pem, sizeof w.ca_pem);
    shake(&w, TLS1_3_VERSION, false);
    CS_CHECK(strcmp(says(&w, cs_buf_slice(&w.seen)), "bot") != 0);
    party_free(&twin);
    world_end(&w);
}

CS_TEST(san_pattern_takes_the_name_out)
{
    static const struct {
        const char *pattern, *san, *name;
    } rows[] = {
        {"{name}@example.com", "bot@example.com", "bot"},
        {"{name}@example.com", "@example.com", ""},
        {"{name}@example.com", "bot@example.org", ""},
        {"{name}@example.com", "bot@example.com.evil", ""},
        {"spiffe://e/agents/{name}", "spiffe://e/agents/bot", "bot"},
        {"spiffe://e/agents/{name}", "spiffe://e/agents/", ""},
        {"x{name}x", "x", ""},
        {"x{name}x", "xx", ""},
        {"x{name}x", "xax", "a"},
        {"none", "none", ""},
        {"{name}", "", ""},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        CS_EQ_STR(cs_san_pattern_match(cs_slice_str(rows[i].pattern), cs_slice_str(rows[i].san)),
                  rows[i].name);
    }
}

CS_TEST(san_pattern_that_would_fit_too_much_is_wrong)
{
    static const struct {
        enum cs_san_form form;
        const char *pattern;
        bool right;
    } rows[] = {
        {CS_SAN_EMAIL, "{name}@example.com", true},
        {CS_SAN_EMAIL, "agent-{name}@example.com", true},
        {CS_SAN_EMAIL, "{name}", false},
        {CS_SAN_EMAIL, "{name}@", false},
        {CS_SAN_EMAIL, "x@{name}", false},
        {CS_SAN_EMAIL, "bot@example.com", false},
        {CS_SAN_EMAIL, "{name}@{name}", false},
        {CS_SAN_EMAIL, "{name}@example .com", false},
        {CS_SAN_EMAIL, "{name}@*.com", false},
        {CS_SAN_EMAIL, "", false},
        {CS_SAN_URI, "spiffe://example.com/{name}", true},
        {CS_SAN_URI, "{name}", false},
        {CS_SAN_URI, ":{name}", false},
        {CS_SAN_DNS, "{name}.example.com", true},
        {CS_SAN_DNS, "{name}", false},
        {CS_SAN_DNS, "{name}.", false},
        {CS_SAN_NONE, "{name}@example.com", false},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        bool right = cs_san_pattern_wrong(rows[i].form, cs_slice_str(rows[i].pattern)) == NULL;
        if (right != rows[i].right) {
            CS_FAIL("%s", rows[i].pattern);
        }
    }
}
