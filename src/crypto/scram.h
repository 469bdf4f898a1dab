/* SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL uses it: arithmetic for both sides, and strict
 * parsers for its messages. Pure; no randomness but through arguments.
 *
 * Who holds what: control has verifiers and checks clients' proofs; whoever holds a target's
 * password computes client proofs; gate only parses messages and carries values between them. */
#ifndef CS_CRYPTO_SCRAM_H
#define CS_CRYPTO_SCRAM_H

#include "crypto/crypto.h"

enum { CS_SCRAM_SALT = 16, CS_SCRAM_NONCE_RAW = 18, CS_SCRAM_NONCE_MAX = 256 };

struct cs_scram_verifier { /* what a server stores: not enough to log in with */
    uint8_t salt[CS_SCRAM_SALT];
    uint32_t iterations;
    uint8_t stored_key[CS_SHA256];
    uint8_t server_key[CS_SHA256];
};

enum cs_err cs_scram_verifier_make(struct cs_slice password,
                                   const uint8_t salt[static CS_SCRAM_SALT], uint32_t iterations,
                                   struct cs_scram_verifier *ret) CS_MUST_CHECK;
/* A verifier for a name that does not exist: the same name always gets the same salt, so that
 * nobody can tell known from unknown names; no proof ever matches it. It says SCRAM_ITERATIONS_MIN
 * rounds (limits.def): real verifiers must be made with as many, or they could be told apart. */
void cs_scram_verifier_mock(struct cs_slice secret_key, struct cs_slice name,
                            struct cs_scram_verifier *ret);

/* ---- messages: gate's side as a server ---- */
struct cs_scram_client_first {
    struct cs_slice gs2_header; /* "n,," or "p=tls-server-end-point,," or "y,," */
    char binding;               /* 'n', 'y' or 'p' */
    struct cs_slice binding_name;
    struct cs_slice bare; /* from "n=" on */
    struct cs_slice name, nonce;
};
struct cs_scram_client_final {
    struct cs_slice channel_binding; /* c=, still base64 */
    struct cs_slice nonce;
    uint8_t proof[CS_SHA256];
    struct cs_slice without_proof;
};
/* False on anything that is not exactly such a message (extensions "m=" and authzid included). */
bool cs_scram_parse_client_first(struct cs_slice in, struct cs_scram_client_first *ret);
bool cs_scram_parse_client_final(struct cs_slice in, struct cs_scram_client_final *ret);
/* The parts that are signed, alone: "n=…,r=…" and "c=…,r=…" (for whoever proves for another). */
bool cs_scram_parse_client_first_bare(struct cs_slice in, struct cs_slice *ret_name,
                                      struct cs_slice *ret_nonce);
bool cs_scram_parse_client_final_bare(struct cs_slice in, struct cs_slice *ret_channel_binding,
                                      struct cs_slice *ret_nonce);

/* ---- messages: our side as a client of a target ---- */
struct cs_scram_server_first {
    struct cs_slice nonce;
    uint8_t salt[64];
    size_t salt_n;
    uint32_t iterations;
};
/* Checks that the nonce starts with ours and is longer, and the iteration limits of limits.def (a
 * hostile server could ask for 2^31 rounds, or for 1). */
bool cs_scram_parse_server_first(struct cs_slice in, struct cs_slice client_nonce,
                                 struct cs_scram_server_first *ret);
/* "v=…" → 32 bytes; "e=…" and anything else is false. */
bool cs_scram_parse_server_final(struct cs_slice in, uint8_t ret[static CS_SHA256]);

/* ---- arithmetic. auth_message = client-first-bare "," server-first "," client-final-without-proof
 */
/* Server: checks the proof in constant time; ret_signature is written only when it is right. */
bool cs_scram_server_check(const struct cs_scram_verifier *v, struct cs_slice auth_message,
                           const uint8_t proof[static CS_SHA256],
                           uint8_t ret_signature[static CS_SHA256]);
/* Client: salted password (slow: cache it per salt and rounds), then proof and the signature that
 * the server must show. */
enum cs_err cs_scram_salted_password(struct cs_slice password, struct cs_slice salt,
                                     uint32_t iterations,
                                     uint8_t ret[static CS_SHA256]) CS_MUST_CHECK;
void cs_scram_client_proof(const uint8_t salted[static CS_SHA256], struct cs_slice auth_message,
                           uint8_t ret_proof[static CS_SHA256],
                           uint8_t ret_server_signature[static CS_SHA256]);
#endif
