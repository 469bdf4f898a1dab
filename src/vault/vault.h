/* Secrets at rest: the master keys, sealed boxes, and SCRAM proofs made from a secret without
 * giving it away. Used by the keeper role: nothing else includes this. All that is in clear lies in
 * locked memory.
 *
 * The store holds boxes only. A box has a key of its own, and that key is wrapped by a master key,
 * so that a new master key wraps it anew without touching what it seals: "CSBOX" 0 0 2 ‖ id of the
 * master key (8) ‖ wrapped key (60) ‖ sealed secret Both are AES-256-GCM boxes (crypto/crypto.h),
 * bound to the secret's name, version and kind, the first to the master key's id too: a box moved
 * to another name, or an old version put back, does not open. Boxes of the first form, sealed under
 * the master key itself, still open; a rotation makes them new.
 *
 * Which target a secret is for is not in the box, because the configuration may change it: keeper
 * has that from the supervisor (wire/credentials.h). */
#ifndef CS_VAULT_VAULT_H
#define CS_VAULT_VAULT_H

#include "base/err.h"
#include "base/secret.h"
#include "crypto/crypto.h"
#include "wire/credentials.h"

enum {
    CS_VAULT_NAME_MAX = 128,
    CS_VAULT_KEY_ID = 8,
    CS_VAULT_BOX_OVERHEAD = 8 + CS_VAULT_KEY_ID + CS_SEAL_KEY + CS_SEAL_OVERHEAD + CS_SEAL_OVERHEAD,
    CS_VAULT_KEY_TEXT_MAX = 128 /* of what a master key is read from */
};

struct cs_vault;

/* Without a key: nothing can be sealed or opened yet. NULL when no memory may be locked. */
struct cs_vault *cs_vault_new(void);
/* Wipes. NULL is fine. */
void cs_vault_close(struct cs_vault *v);
/* A master key: the one that new boxes are made under, or `previous`, which only opens. */
void cs_vault_set_key(struct cs_vault *v, bool previous, const uint8_t key[static CS_SEAL_KEY]);
/* The same, read to its end from a descriptor: 32 bytes, or 64 hexadecimal digits or 44 characters
 * of base 64 with or without a line end behind. Who may have written it is the business of whoever
 * opened it. On failure *ret_why is a sentence without what was read. */
enum cs_err cs_vault_read_key(struct cs_vault *v, bool previous, int fd,
                              const char **ret_why) CS_MUST_CHECK;
bool cs_vault_has_key(const struct cs_vault *v);
bool cs_vault_has_previous(const struct cs_vault *v);
/* Says which key it is and nothing about it. */
void cs_vault_key_id(const struct cs_vault *v, uint8_t ret[static CS_VAULT_KEY_ID]);

static inline size_t cs_vault_box_size(size_t secret_n)
{
    return secret_n + CS_VAULT_BOX_OVERHEAD;
}
/* `name` has 1 to CS_VAULT_NAME_MAX bytes, the secret at most CS_SECRET_MAX; box gets
 * cs_vault_box_size(secret.n) bytes. */
enum cs_err cs_vault_seal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                          struct cs_slice secret, uint8_t *box) CS_MUST_CHECK;
/* CS_ERR_CORRUPT when it does not open, CS_ERR_NOT_FOUND when it is under a master key that is not
 * here. *ret is borrowed: it lasts until the next unseal, or until cs_vault_forget, with which the
 * caller ends in every case. */
enum cs_err cs_vault_unseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice box, struct cs_secret *ret) CS_MUST_CHECK;
void cs_vault_forget(struct cs_vault *v);
/* The same secret under the present master key: out gets *ret_n bytes, none when the box is under
 * it already. Only a box that opens is passed on. `out` has room for box.n + CS_VAULT_BOX_OVERHEAD.
 */
enum cs_err cs_vault_rewrap(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice box, uint8_t *out, size_t *ret_n) CS_MUST_CHECK;
/* The public key to which commands seal a secret, of an X25519 pair derived from the master key. */
enum cs_err cs_vault_put_public(const struct cs_vault *v,
                                uint8_t ret[static CS_X25519]) CS_MUST_CHECK;
/* What such a box (crypto/crypto.h, cs_seal_to) is bound to: "countersign/secret-put/1" ‖ name. */
struct cs_slice cs_vault_put_aad(struct cs_slice name, uint8_t *mem, size_t cap);
/* From such a box to one for the store, which gets *ret_n bytes. INVALID when name or length do not
 * fit, CORRUPT when it does not open under this name. */
enum cs_err cs_vault_reseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice sealed, uint8_t *box, size_t *ret_n) CS_MUST_CHECK;
/* A key for one purpose, the same for ever for this master key: HKDF-SHA-256. */
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
 * limits, a channel binding that is not the mechanism's. CS_ERR_DENIED when it is bound to less, or
 * to another certificate, than `target` demands. *ret_why is a sentence, "" on success.
 * With a million rounds (the limit) and a new salt it computes for about half a second: keeper
 * accepts that a hostile target can stall it that long. */
enum cs_err cs_vault_scram_prove(struct cs_vault_prover *p, const struct cs_secret *password,
                                 const struct cs_credential_row *target,
                                 const struct cs_vault_exchange *x, struct cs_vault_proof *ret,
                                 const char **ret_why) CS_MUST_CHECK;

#endif
