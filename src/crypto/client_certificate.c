/* Verifies what a client proved in a TLS handshake, from the handshake's messages. Called by
 * control, and its pure parts by the compile job.
 *
 * SECURITY: the messages come from a gate, which is not trusted with who somebody is: a
 * certificate is no secret, so only the client's signature counts, over a handshake that names a
 * nonce which control gave for this one attempt, with the listener's own certificate. It must never
 * take a name from anything but the certificate whose key has signed. */
#include "crypto/client_certificate.h"

#include "base/reader.h"
#include "crypto/crypto.h"
#include "crypto/init.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>

enum { CHAIN_MAX = 8, NAME_BYTES = 64, AUTH_LEVEL = 2 };

/* ---- the nonce ---- */

void cs_client_nonce_name(const uint8_t nonce[static CS_CLIENT_NONCE],
                          uint8_t ret[static CS_NONCE_NAME])
{
    /* SEQUENCE { SET { SEQUENCE { id-at-commonName, UTF8String "cs-" and the nonce in base 64 }}}
     */
    static const uint8_t head[] = {0x30, 0x39, 0x31, 0x37, 0x30, 0x35, 0x06, 0x03,
                                   0x55, 0x04, 0x03, 0x0c, 0x2e, 'c',  's',  '-'};
    char text[48];
    size_t n = cs_base64_encode(cs_slice(nonce, CS_CLIENT_NONCE), true, text);
    memcpy(ret, head, sizeof head);
    memcpy(ret + sizeof head, text, CS_MIN(n, CS_NONCE_NAME - sizeof head));
}

static bool names_nonce(struct cs_slice authorities, const uint8_t nonce[static CS_CLIENT_NONCE])
{
    uint8_t want[CS_NONCE_NAME];
    struct cs_reader r = cs_reader(authorities);
    bool found = false;
    cs_client_nonce_name(nonce, want);
    while (!r.bad && r.p < r.end) {
        uint16_t n = cs_reader_u16(&r);
        struct cs_slice name = cs_reader_take(&r, n);
        found = found || cs_slice_eq(name, cs_slice(want, sizeof want));
    }
    return found && !r.bad;
}

/* ---- patterns ---- */

static const struct cs_slice mark = {(const uint8_t *)"{name}", 6};

/* Where "{name}" begins, pattern.n when nowhere. */
static size_t mark_at(struct cs_slice pattern)
{
    const uint8_t *at = pattern.n > 0 ? memmem(pattern.p, pattern.n, mark.p, mark.n) : NULL;
    return at != NULL ? (size_t)(at - pattern.p) : pattern.n;
}

struct cs_slice cs_san_pattern_match(struct cs_slice pattern, struct cs_slice san)
{
    size_t at = mark_at(pattern);
    if (at == pattern.n) {
        return CS_SLICE_NULL;
    }
    struct cs_slice before = cs_slice_head(pattern, at);
    struct cs_slice after = cs_slice_from(pattern, at + mark.n);
    if (san.n <= before.n || san.n - before.n <= after.n || !cs_slice_starts(san, before) ||
        !cs_slice_eq(cs_slice_from(san, san.n - after.n), after)) {
        return CS_SLICE_NULL;
    }
    return cs_slice_head(cs_slice_from(san, before.n), san.n - before.n - after.n);
}

const char *cs_san_pattern_wrong(enum cs_san_form form, struct cs_slice pattern)
{
    size_t at = mark_at(pattern);
    if (pattern.n > CS_SAN_PATTERN_MAX || at == pattern.n ||
        mark_at(cs_slice_from(pattern, at + mark.n)) != pattern.n - at - mark.n) {
        return "a text with {name} in it once, where the principal's name stands";
    }
    struct cs_slice before = cs_slice_head(pattern, at);
    struct cs_slice after = cs_slice_from(pattern, at + mark.n);
    for (size_t i = 0; i < pattern.n; i++) {
        bool in_mark = i >= at && i < at + mark.n;
        uint8_t c = pattern.p[i];
        if (!in_mark && (c <= ' ' || c >= 0x7f || c == '{' || c == '}' || c == '*')) {
            return "printable ASCII without blanks, braces and *";
        }
    }
    /* SECURITY: what follows the name must pin the domain: "{name}@" would be anybody's. */
    switch ((int)form) {
    case CS_SAN_EMAIL:
        return after.n > 1 && after.p[0] == '@' ? NULL : "like {name}@example.com";
    case CS_SAN_URI:
        return cs_slice_find(before, ':') > 0 && cs_slice_find(before, ':') < before.n
                   ? NULL
                   : "like spiffe://example.com/agents/{name}";
    case CS_SAN_DNS:
        return after.n > 1 && after.p[0] == '.' ? NULL : "like {name}.agents.example.com";
    default:
        return "of a form that there is";
    }
}

/* ---- certificates ---- */

static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

/* Calls fn for each certificate of the PEM text; false when one cannot be read or fn says no. */
static bool each_pem(struct cs_slice pem, bool (*fn)(X509 *x, void *arg), void *arg)
{
    BIO *b = pem.n > 0 && pem.n <= INT32_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
    bool ok = b != NULL;
    size_t n = 0;
    X509 *x;
    ERR_clear_error();
    while (ok && (x = PEM_read_bio_X509(b, NULL, no_password, NULL)) != NULL) {
        ok = fn(x, arg);
        X509_free(x);
        n++;
    }
    unsigned long e = ERR_peek_last_error();
    bool ended = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(b);
    return ok && ended && n > 0;
}

static bool is_authority(X509 *x, void *arg)
{
    (void)arg;
    return X509_check_ca(x) > 0;
}

bool cs_certificate_authorities(struct cs_slice pem)
{
    cs_crypto_once();
    return each_pem(pem, is_authority, NULL);
}

static bool add_anchor(X509 *x, void *arg)
{
    return X509_STORE_add_cert(arg, x) == 1;
}

static X509 *der(struct cs_slice bytes)
{
    const unsigned char *p = bytes.p;
    X509 *x = bytes.n <= INT32_MAX ? d2i_X509(NULL, &p, (long)bytes.n) : NULL;
    if (x != NULL && p != bytes.p + bytes.n) {
        X509_free(x);
        return NULL;
    }
    return x;
}

/* The client's certificates, its own first. NULL when they are malformed or too many. */
static STACK_OF(X509) * chain_of(const struct cs_tls_transcript *t)
{
    struct cs_reader r = cs_reader(t->certificates);
    STACK_OF(X509) *out = sk_X509_new_null();
    bool ok = out != NULL;
    while (ok && r.p < r.end) {
        uint32_t high = cs_reader_u8(&r);
        uint32_t n = high << 16 | cs_reader_u16(&r);
        X509 *x = der(cs_reader_take(&r, n));
        if (t->v13) {
            uint16_t extensions = cs_reader_u16(&r);
            (void)cs_reader_take(&r, extensions);
        }
        ok = x != NULL && !r.bad && sk_X509_num(out) < CHAIN_MAX && sk_X509_push(out, x) > 0;
        if (!ok) {
            X509_free(x);
        }
    }
    if (!ok || sk_X509_num(out) == 0) {
        sk_X509_pop_free(out, X509_free);
        return NULL;
    }
    return out;
}

static const char *chain_wrong(STACK_OF(X509) * chain, struct cs_slice authorities)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    const char *why = "the certificate cannot be checked";
    if (store != NULL && ctx != NULL && each_pem(authorities, add_anchor, store) &&
        X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0), chain) == 1) {
        X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
        (void)X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
        X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
        X509_VERIFY_PARAM_set_depth(param, CHAIN_MAX);
        if (X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_CLIENT) == 1) {
            why = X509_verify_cert(ctx) == 1
                      ? NULL
                      : X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx));
        }
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return why;
}

/* ---- the signature ---- */

struct algorithm {
    uint16_t number;
    int key;
    const char *md; /* NULL: the key's own */
    bool pss, only_v12;
};

/* TLS SignatureScheme. The gate's library offers the same (tls_ctx.c). */
static const struct algorithm algorithms[] = {
    {0x0403, EVP_PKEY_EC, "SHA256", false, false},  {0x0503, EVP_PKEY_EC, "SHA384", false, false},
    {0x0603, EVP_PKEY_EC, "SHA512", false, false},  {0x0804, EVP_PKEY_RSA, "SHA256", true, false},
    {0x0805, EVP_PKEY_RSA, "SHA384", true, false},  {0x0806, EVP_PKEY_RSA, "SHA512", true, false},
    {0x0807, EVP_PKEY_ED25519, NULL, false, false}, {0x0401, EVP_PKEY_RSA, "SHA256", false, true},
    {0x0501, EVP_PKEY_RSA, "SHA384", false, true},  {0x0601, EVP_PKEY_RSA, "SHA512", false, true},
};

static bool digest(const char *name, struct cs_slice in, uint8_t *out, unsigned *ret_n)
{
    EVP_MD *md = EVP_MD_fetch(NULL, name, NULL);
    bool ok = md != NULL && EVP_Digest(in.p, in.n, out, ret_n, md, NULL) == 1;
    EVP_MD_free(md);
    return ok;
}

/* RFC 8446, 4.4.1: behind a HelloRetryRequest a hash stands for the first ClientHello. */
static bool transcript_hash(const struct cs_tls_transcript *t, uint8_t *out, unsigned *ret_n)
{
    const char *name = t->cipher == 0x1302 ? "SHA384" : "SHA256";
    if (t->cipher < 0x1301 || t->cipher > 0x1303) {
        return false;
    }
    if (t->first_hello.n == 0) {
        return digest(name, t->all, out, ret_n);
    }
    uint8_t first[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_MD *md = EVP_MD_fetch(NULL, name, NULL);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = md != NULL && ctx != NULL && digest(name, t->first_hello, first, &n);
    const uint8_t head[4] = {254, 0, 0, (uint8_t)n};
    ok = ok && EVP_DigestInit_ex(ctx, md, NULL) == 1 &&
         EVP_DigestUpdate(ctx, head, sizeof head) == 1 && EVP_DigestUpdate(ctx, first, n) == 1 &&
         EVP_DigestUpdate(ctx, t->rest.p, t->rest.n) == 1 &&
         EVP_DigestFinal_ex(ctx, out, ret_n) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_MD_free(md);
    return ok;
}

static bool signature_good(const struct cs_tls_transcript *t, const struct algorithm *a,
                           EVP_PKEY *key, struct cs_slice message)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *p = NULL;
    bool ok = ctx != NULL && EVP_DigestVerifyInit_ex(ctx, &p, a->md, NULL, NULL, key, NULL) == 1;
    if (ok && a->pss) {
        ok = EVP_PKEY_CTX_set_rsa_padding(p, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_saltlen(p, RSA_PSS_SALTLEN_DIGEST) == 1;
    }
    ok = ok && EVP_DigestVerify(ctx, t->signature.p, t->signature.n, message.p, message.n) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

static bool signed_by(const struct cs_tls_transcript *t, X509 *leaf)
{
    static const char context[] = "TLS 1.3, client CertificateVerify"; /* and its NUL */
    uint8_t message[64 + sizeof context + EVP_MAX_MD_SIZE];
    EVP_PKEY *key = X509_get0_pubkey(leaf);
    const struct algorithm *a = NULL;
    unsigned n = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(algorithms); i++) {
        if (algorithms[i].number == t->algorithm && !(t->v13 && algorithms[i].only_v12)) {
            a = &algorithms[i];
        }
    }
    if (a == NULL || key == NULL || EVP_PKEY_get_base_id(key) != a->key) {
        return false;
    }
    if (!t->v13) {
        return signature_good(t, a, key, t->all);
    }
    memset(message, ' ', 64);
    memcpy(message + 64, context, sizeof context);
    return transcript_hash(t, message + 64 + sizeof context, &n) &&
           signature_good(t, a, key, cs_slice(message, 64 + sizeof context + n));
}

/* ---- names ---- */

static const struct {
    int type;
    const char *none, *several;
} forms[CS_SAN_MAX] = {
    [CS_SAN_NONE] = {GEN_OTHERNAME, "", ""},
    [CS_SAN_EMAIL] = {GEN_EMAIL, "it has no e-mail name", "it has several e-mail names"},
    [CS_SAN_URI] = {GEN_URI, "it has no URI name", "it has several URI names"},
    [CS_SAN_DNS] = {GEN_DNS, "it has no DNS name", "it has several DNS names"},
};

/* SECURITY: one name of the form, and no other: with several, which one counts would be for
 * whoever made the certificate to choose. */
static const char *principal(X509 *leaf, const struct cs_client_rule *rule,
                             char ret_name[static 65])
{
    int critical = 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, &critical, NULL);
    struct cs_slice found = CS_SLICE_NULL;
    int count = 0;
    for (int i = 0; names != NULL && i < sk_GENERAL_NAME_num(names); i++) {
        int type = GEN_OTHERNAME;
        const ASN1_STRING *s = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
        if (type == forms[rule->form].type && s != NULL) {
            found = cs_slice(ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s));
            count++;
        }
    }
    struct cs_slice name = cs_san_pattern_match(rule->pattern, found);
    const char *why = NULL;
    if (count != 1) {
        why = count == 0 ? forms[rule->form].none : forms[rule->form].several;
    } else if (name.n == 0 || name.n > NAME_BYTES || cs_slice_find(name, 0) != name.n) {
        why = "its name is not of the configured form";
    } else {
        (void)snprintf(ret_name, 65, "%.*s", CS_SLICE_FMT(name));
    }
    GENERAL_NAMES_free(names);
    return why;
}

/* ---- all of it ---- */

struct wanted {
    struct cs_slice der;
    bool seen, same;
};

static bool first_is(X509 *x, void *arg)
{
    struct wanted *w = arg;
    if (!w->seen) {
        unsigned char *bytes = NULL;
        int n = i2d_X509(x, &bytes);
        w->seen = true;
        w->same = n > 0 && cs_slice_eq(cs_slice(bytes, (size_t)n), w->der);
        OPENSSL_free(bytes);
    }
    return true;
}

const char *cs_client_certificate_check(struct cs_slice transcript,
                                        const uint8_t nonce[static CS_CLIENT_NONCE],
                                        const struct cs_client_rule *rule, char ret_name[static 65])
{
    struct cs_tls_transcript t;
    cs_crypto_once();
    if (rule->form <= CS_SAN_NONE || rule->form >= CS_SAN_MAX) {
        return "no client certificates are accepted here";
    }
    if (!cs_tls_transcript_parse(transcript, &t)) {
        return "the handshake's messages are malformed";
    }
    if (!names_nonce(t.authorities, nonce)) {
        return "the handshake is not the one that was asked for";
    }
    struct wanted own = {.der = t.server_leaf};
    if (!each_pem(rule->server_pem, first_is, &own) || !own.same) {
        return "the handshake was with another server's certificate";
    }
    STACK_OF(X509) *chain = chain_of(&t);
    if (chain == NULL) {
        ERR_clear_error();
        return "the certificates are malformed";
    }
    X509 *leaf = sk_X509_value(chain, 0);
    const char *why = chain_wrong(chain, rule->authorities);
    if (why == NULL && !signed_by(&t, leaf)) {
        why = "the client did not prove that it has the certificate's key";
    }
    why = why != NULL ? why : principal(leaf, rule, ret_name);
    sk_X509_pop_free(chain, X509_free);
    ERR_clear_error();
    return why;
}
