/* Who somebody is: local people and their agents, tokens, SCRAM log-ins, chains.
 *
 * A principal's token is its password everywhere (Bearer in the API, password in a protocol).
 * Stored are SHA-256(token) and a SCRAM verifier made from it; neither is enough to log in. Called
 * by the control role only. Functions that say "waits" run in a coroutine and can also fail as the
 * store does (store/store.h). */
#ifndef CS_IDENTITY_IDENTITY_H
#define CS_IDENTITY_IDENTITY_H

#include "action/chain.h"
#include "crypto/crypto.h"
#include "crypto/scram.h"
#include "store/store.h"

struct cs_identity;

enum { CS_NAME_MAX = 64, CS_SCRAM_ROUNDS = 4096, CS_ATTEMPTS_MAX = 4096, CS_ATTEMPT_S = 60 };

/* Loads the installation's mock secret (waits). `s` is borrowed. */
enum cs_err cs_identity_new(struct cs_store *s, struct cs_identity **ret) CS_MUST_CHECK;
void cs_identity_free(struct cs_identity *i);

/* ---- pure ---- */
/* [a-z0-9._-]{1,64}: of people and agents; groups the same. */
bool cs_identity_name_valid(struct cs_slice name);
/* "local:NAME" in the arena; empty when out of memory. */
struct cs_slice cs_identity_id(struct cs_slice name, struct cs_arena *a);
/* "a\nb\n" → array in the arena. False when out of memory or malformed. */
bool cs_identity_groups_split(struct cs_slice joined, struct cs_arena *a, struct cs_slice **ret,
                              size_t *ret_n);
/* Sorts, drops doubles, checks names and CS_LIMIT_GROUPS; false when one is not valid. */
bool cs_identity_groups_join(const struct cs_slice *groups, size_t n, struct cs_arena *a,
                             struct cs_slice *ret);
/* `p` and, for an agent, its owner → chain. UNAUTHENTICATED when either is disabled, the owner is
 * missing or no person, or the kind is unknown. Slices borrow from the principals. */
enum cs_err cs_identity_chain_build(const struct cs_store_principal *p,
                                    const struct cs_store_principal *owner, struct cs_arena *a,
                                    struct cs_chain *ret) CS_MUST_CHECK;

/* ---- set-up (wait) ---- */
/* INVALID (name, group), EXISTS. The token is given back this once: wipe it after use. */
enum cs_err cs_identity_person_add(struct cs_identity *i, struct cs_slice name,
                                   const struct cs_slice *groups, size_t n_groups,
                                   char ret_token[static CS_TOKEN_TEXT]) CS_MUST_CHECK;
/* `owner`: the name of a person; CONFLICT when it is not one that is enabled. */
enum cs_err cs_identity_agent_add(struct cs_identity *i, struct cs_slice name,
                                  struct cs_slice owner, const struct cs_slice *groups,
                                  size_t n_groups,
                                  char ret_token[static CS_TOKEN_TEXT]) CS_MUST_CHECK;
/* By name; NOT_FOUND. */
enum cs_err cs_identity_token_renew(struct cs_identity *i, struct cs_slice name,
                                    char ret_token[static CS_TOKEN_TEXT]) CS_MUST_CHECK;
enum cs_err cs_identity_groups_set(struct cs_identity *i, struct cs_slice name,
                                   const struct cs_slice *groups, size_t n_groups) CS_MUST_CHECK;
/* Nobody can use it, or an agent of it, any more. Ending live sessions is the caller's part. */
enum cs_err cs_identity_disable(struct cs_identity *i, struct cs_slice name) CS_MUST_CHECK;
enum cs_err cs_identity_list(struct cs_identity *i, struct cs_arena *a,
                             struct cs_store_principal **ret, size_t *ret_n) CS_MUST_CHECK;
enum cs_err cs_identity_get(struct cs_identity *i, struct cs_slice name, struct cs_arena *a,
                            struct cs_store_principal *ret) CS_MUST_CHECK;

/* ---- who is this (wait) ---- */
/* The chain as it is now, by principal id. UNAUTHENTICATED for unknown and disabled ones alike. */
enum cs_err cs_identity_chain(struct cs_identity *i, struct cs_slice principal_id,
                              struct cs_arena *a, struct cs_chain *ret) CS_MUST_CHECK;
/* The last member of the chain is the token's own principal. UNAUTHENTICATED. */
enum cs_err cs_identity_by_token(struct cs_identity *i,
                                 const uint8_t token_sha256[static CS_SHA256], struct cs_arena *a,
                                 struct cs_chain *ret) CS_MUST_CHECK;
/* A token as a password. `user` is what the client gave as its name: "token", or NAME+token, where
 * NAME must be the token's own. UNAUTHENTICATED for every kind of wrong. */
struct cs_identity_mark;
enum cs_err cs_identity_token_login(struct cs_identity *i, struct cs_slice user,
                                    const uint8_t token_sha256[static CS_SHA256],
                                    struct cs_arena *a, struct cs_chain *ret,
                                    struct cs_identity_mark *ret_mark) CS_MUST_CHECK;
/* Somebody whose certificate was verified: the local principal of that name, as it is now.
 * UNAUTHENTICATED for unknown and disabled ones alike. */
enum cs_err cs_identity_named_login(struct cs_identity *i, struct cs_slice name, struct cs_arena *a,
                                    struct cs_chain *ret,
                                    struct cs_identity_mark *ret_mark) CS_MUST_CHECK;
/* True when the acting principal has the group. */
bool cs_identity_in_group(const struct cs_chain *c, struct cs_slice group);

/* ---- SCRAM-SHA-256, server side (wait) ----
 * Unknown and disabled names get a challenge like any other (same salt each time, same steps) and
 * fail at the proof. */
struct cs_identity_challenge {
    uint64_t attempt; /* random, never 0 */
    uint8_t salt[CS_SCRAM_SALT];
    uint64_t iterations;
    char nonce[CS_SCRAM_NONCE_MAX]; /* client's, then ours; NUL-terminated */
};
/* `owner` is whoever may finish the attempt (a gate's index): another one's finish is refused.
 * INVALID: the client nonce is empty, too long or not printable. */
enum cs_err cs_identity_scram_start(struct cs_identity *i, uint64_t owner, struct cs_slice name,
                                    struct cs_slice client_nonce,
                                    struct cs_identity_challenge *ret) CS_MUST_CHECK;
struct cs_identity_proof {
    uint64_t attempt;
    struct cs_slice client_first_bare;
    struct cs_slice gs2_header; /* "n,,", "y,,", "p=tls-server-end-point,,"; others: UNSUPPORTED */
    struct cs_slice
        channel_binding;       /* the c= value, base64: the header, and after "p=" end_point */
    struct cs_slice end_point; /* of the listener's certificate; empty: no binding was offered */
    struct cs_slice proof;     /* 32 bytes */
};
/* What a log-in rests on: the token that was proved, and the chain with its groups. */
struct cs_identity_mark {
    uint8_t of[CS_SHA256];
};
/* Rebuilds the auth message itself and checks. An attempt is good for one call. UNAUTHENTICATED for
 * every kind of wrong; PROTOCOL when the messages contradict each other. */
enum cs_err cs_identity_scram_finish(struct cs_identity *i, uint64_t owner,
                                     const struct cs_identity_proof *p, struct cs_arena *a,
                                     uint8_t ret_signature[static CS_SHA256], struct cs_chain *ret,
                                     struct cs_identity_mark *ret_mark) CS_MUST_CHECK;
/* Does what that log-in rests on still hold? CONFLICT when token or groups have changed since,
 * UNAUTHENTICATED when somebody in the chain was disabled. */
enum cs_err cs_identity_still(struct cs_identity *i, struct cs_slice principal_id,
                              const struct cs_identity_mark *mark,
                              struct cs_arena *a) CS_MUST_CHECK;
/* Attempts now open (for tests and status). */
size_t cs_identity_attempts(const struct cs_identity *i);

#endif
