/* Compiling configurations from memory: files are a table, so that no test touches a disk. */
#ifndef CS_TEST_CONFIG_SUPPORT_H
#define CS_TEST_CONFIG_SUPPORT_H

#include "config/config.h"
#include "policy/rules.h"
#include "tap.h"
#include "wire/snapshot.h"

#define CERT "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
#define KEY  "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"

/* Real ones: of an ECDSA key, with the SHA-256 of it below, and of an Ed25519 key. */
#define SERVER                                                                                     \
    "-----BEGIN CERTIFICATE-----\n"                                                                \
    "MIIBgTCCASegAwIBAgIUOHIrSNFJt029x68KY9+iFT6X8rYwCgYIKoZIzj0EAwIw\n"                           \
    "FTETMBEGA1UEAwwKZGIuZXhhbXBsZTAgFw0yNjExMjIxNjUzMzRaGA8yMTI2MTAy\n"                           \
    "OTE2NTMzNFowFTETMBEGA1UEAwwKZGIuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqG\n"                           \
    "SM49AwEHA0IABGSAqUptICCSP7NEnFXNLMb5skDYybuZpyPbS4Gai0RtB+8WSUQV\n"                           \
    "i7uv15FplyO9MC3bugl5XGAINk5pasUK6B6jUzBRMB0GA1UdDgQWBBT2//oCdX13\n"                           \
    "i3Tyy6dS9E9W23smXDAfBgNVHSMEGDAWgBT2//oCdX13i3Tyy6dS9E9W23smXDAP\n"                           \
    "BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCnSjRqI0LTPrFV/1aJ\n"                           \
    "uYzOVRjM3o2N2nCPFlSAmpEH6AIgH0Dk8gE+2f5Gf+a4lWgQi5NN1hYMb2n6GjJ6\n"                           \
    "MPTD/M0=\n"                                                                                   \
    "-----END CERTIFICATE-----\n"
#define SERVER_SHA256                                                                              \
    "\xe7\x94\xbd\x1f\x36\xbe\xd8\x0c\x21\xa9\x56\x72\xc9\x36\xf4\x4d\x6b\xe3\x9f\x11\xf6\x87"     \
    "\x2d\xc6\x8b\x38\x97\xa3\xb8\xf6\x2d\x5c"
#define ED25519                                                                                    \
    "-----BEGIN CERTIFICATE-----\n"                                                                \
    "MIIBMDCB46ADAgECAhQ8UoXMvBn1MV/M227py9+iUwaBvjAFBgMrZXAwDTELMAkG\n"                           \
    "A1UEAwwCZGIwIBcNMjYxMTIyMTY1MzM0WhgPMjEyNjEwMjkxNjUzMzRaMA0xCzAJ\n"                           \
    "BgNVBAMMAmRiMCowBQYDK2VwAyEA4Hk/AwGgp+w+Uj9jeg8Vwbzlc3Li8G7fTeAG\n"                           \
    "x2dYWu6jUzBRMB0GA1UdDgQWBBQdVxvrwpefFEKlAE3hmqRlpn7/vDAfBgNVHSME\n"                           \
    "GDAWgBQdVxvrwpefFEKlAE3hmqRlpn7/vDAPBgNVHRMBAf8EBTADAQH/MAUGAytl\n"                           \
    "cANBABcYd5W8ub/BeRwDRtY4MutZ4JE51FFQRbuL8bqKTe54N5KOXRaj2Vd7/1uG\n"                           \
    "Q2YCPJUvFbt6Bw+p1LydTW4xcg8=\n"                                                               \
    "-----END CERTIFICATE-----\n"

struct compiled {
    struct cs_arena arena;
    enum cs_err err;
    struct cs_buf blob;
    uint64_t version;
    struct cs_config_report report;
    struct cs_snapshot snapshot; /* with err = CS_OK */
    struct cs_policy *policy;
};

static inline enum cs_err memory_read(void *arg, struct cs_slice path, size_t max,
                                      struct cs_arena *a, struct cs_slice *ret)
{
    static const struct {
        const char *path, *bytes;
    } files[] = {{"/etc/gate/tls/gate.pem", CERT},
                 {"/etc/gate/tls/gate.key", KEY},
                 {"/etc/gate/tls/internal-ca.pem", CERT "internal"},
                 {"/etc/gate/tls/other.pem", CERT "other"},
                 {"/etc/gate/tls/empty.pem", ""},
                 {"/etc/gate/tls/server.pem", SERVER},
                 {"/etc/gate/tls/both.pem", SERVER SERVER},
                 {"/etc/gate/tls/five.pem", SERVER SERVER SERVER SERVER SERVER},
                 {"/etc/gate/tls/ed25519.pem", ED25519},
                 {"/etc/ssl/certs/ca-certificates.crt", CERT "system"}};
    const bool *no_system_roots = arg;
    (void)a;
    for (size_t i = 0; i < CS_ARRAY_LEN(files); i++) {
        if (cs_slice_eq_str(path, files[i].path) && strlen(files[i].bytes) <= max &&
            !(no_system_roots != NULL && *no_system_roots && i == CS_ARRAY_LEN(files) - 1)) {
            *ret = cs_slice_str(files[i].bytes);
            return CS_OK;
        }
    }
    return CS_ERR_NOT_FOUND;
}

static inline struct compiled compile_with(struct cs_slice text, bool *no_system_roots)
{
    struct compiled c;
    memset(&c, 0, sizeof c);
    struct cs_config_files files = {
        .read = memory_read, .arg = no_system_roots, .directory = CS_SLICE_LIT("/etc/gate")};
    cs_arena_init(&c.arena, 1 << 20, CS_CONFIG_ARENA);
    c.blob = cs_buf(CS_SNAPSHOT_MAX);
    c.err = cs_config_compile(text, &files, &c.arena, &c.blob, &c.version, &c.report);
    if (c.err == CS_OK) {
        CS_CHECK(cs_snapshot_read(cs_buf_slice(&c.blob), &c.snapshot));
        CS_CHECK(cs_policy_load(c.snapshot.policy, &c.arena, &c.policy) == CS_OK);
    }
    return c;
}

static inline struct compiled compile_text(const char *text)
{
    return compile_with(cs_slice_str(text), NULL);
}

static inline void compiled_done(struct compiled *c)
{
    cs_buf_done(&c->blob);
    cs_arena_done(&c->arena);
}

/* All mistakes, for messages of failed tests. */
static inline void print_report(const struct compiled *c)
{
    for (size_t i = 0; i < c->report.n; i++) {
        const struct cs_config_mistake *m = &c->report.v[i];
        printf("#   %u:%u: %s: %.*s\n", m->line, m->column, m->warning ? "warning" : "error",
               CS_SLICE_FMT(m->text));
    }
}

#endif
