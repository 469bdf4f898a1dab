/* Secrets at rest: the master key, sealed boxes, and SCRAM proofs made from a secret without giving
 * it away. Used by the keeper role: nothing else includes this. All that is in clear lies in locked
 * memory.
 *
 * The store holds boxes only. A box is AES-256-GCM (crypto/crypto.h) under the master key, bound to
 *   "countersign/secret/1" ‖ u32le length of name ‖ name ‖ u64le version
 * so that a box moved to another name, or an old version put back, does not open. */
#ifndef CS_VAULT_VAULT_H
#define CS_VAULT_VAULT_H

#include "base/err.h"
#include "base/secret.h"
#include "crypto/crypto.h"

enum { CS_VAULT_NAME_MAX = 128 };

struct cs_vault;

/* Reads the master key: a regular file of exactly 32 bytes that belongs to this user or to root and
 * that nobody else may read or write; symbolic links are refused. `create` makes a new one (mode
 * 0600, synced) if there is no file: only to be asked for while the store holds no box, because
 * boxes under a lost key are lost. On failure `why` gets a sentence. */
enum cs_err cs_vault_open(const char *path, bool create, struct cs_vault **ret, char *why,
                          size_t why_size) CS_MUST_CHECK;
/* Wipes. NULL is fine. */
void cs_vault_close(struct cs_vault *v);

static inline size_t cs_vault_box_size(size_t secret_n)
{
    return secret_n + CS_SEAL_OVERHEAD;
}
/* `name` has 1 to CS_VAULT_NAME_MAX bytes, the secret at most CS_SECRET_MAX; box gets
 * cs_vault_box_size(secret.n) bytes. */
enum cs_err cs_vault_seal(const struct cs_vault *v, struct cs_slice name, uint64_t version,
                          struct cs_slice secret, uint8_t *box) CS_MUST_CHECK;
/* CS_ERR_CORRUPT when it does not open. *ret is borrowed: it lasts until the next unseal, or until
 * cs_vault_forget, with which the caller ends in every case. */
enum cs_err cs_vault_unseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice box, struct cs_secret *ret) CS_MUST_CHECK;
void cs_vault_forget(struct cs_vault *v);
/* The public key to which commands seal a secret, of an X25519 pair derived from the master key. */
enum cs_err cs_vault_put_public(const struct cs_vault *v,
                                uint8_t ret[static CS_X25519]) CS_MUST_CHECK;
/* What such a box (crypto/crypto.h, cs_seal_to) is bound to: "countersign/secret-put/1" ‖ name. */
struct cs_slice cs_vault_put_aad(struct cs_slice name, uint8_t *mem, size_t cap);
/* From such a box to one for the store, which gets sealed.n - CS_X25519 bytes. INVALID when name or
 * length do not fit, CORRUPT when it does not open under this name. */
enum cs_err cs_vault_reseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice sealed, uint8_t *box) CS_MUST_CHECK;
/* A key for one purpose, the same for ever for this master key ("scram-mock" …): HKDF-SHA-256. */
enum cs_err cs_vault_derive(const struct cs_vault *v, const char *purpose,
                            uint8_t ret[static CS_SEAL_KEY]) CS_MUST_CHECK;

/* ---- SCRAM proofs for targets ---- */
/* Remembers salted passwords by (password, salt, rounds), so that a new connection to a known
 * target costs a few hashes. Not for several threads at once. */
struct cs_vault_prover;

struct cs_vault_exchange {             /* as the gate saw and will send it; all of it is checked */
    struct cs_slice mechanism;         /* "SCRAM-SHA-256" or "SCRAM-SHA-256-PLUS" */
    struct cs_slice client_first_bare; /* "n=,r=…" */
    struct cs_slice server_first;
    struct cs_slice client_final_bare; /* "c=biws,r=…" */
};
struct cs_vault_proof {
    uint8_t proof[CS_SHA256];
    uint8_t server_signature[CS_SHA256]; /* what the target must show */
};

struct cs_vault_prover *cs_vault_prover_new(void);
void cs_vault_prover_free(struct cs_vault_prover *p);
/* CS_ERR_PROTOCOL when the exchange is not one: nonces that do not fit together, rounds beyond the
 * limits, a channel binding that is not the mechanism's. *ret_why is a sentence, "" on success.
 * With a million rounds (the limit) and a new salt it computes for about half a second: keeper
 * accepts that a hostile target can stall it that long. */
enum cs_err cs_vault_scram_prove(struct cs_vault_prover *p, const struct cs_secret *password,
                                 const struct cs_vault_exchange *x, struct cs_vault_proof *ret,
                                 const char **ret_why) CS_MUST_CHECK;

#endif
