/* Keeper's part in the audit log: the key that signs its checkpoints. Used by keeper.c alone.
 *
 * The box in the store holds the private key, and the size and root that it signed last: a
 * signature is a new box. Keeper has no store, so it remembers the last one besides: what control
 * brings may be older, and is not believed then. */
#ifndef CS_VAULT_LOG_KEY_H
#define CS_VAULT_LOG_KEY_H

#include "audit/note.h"
#include "vault/vault.h"

enum {
    CS_LOG_KEY_PLAIN = CS_ED25519_KEY + 8 + CS_AUDIT_HASH,
    CS_LOG_KEY_BOX = CS_LOG_KEY_PLAIN + CS_VAULT_BOX_OVERHEAD
};

/* The log that this process signed last. Zeroed: none yet. */
struct cs_log_signed {
    bool known;
    uint8_t public[CS_ED25519_KEY];
    uint64_t size;
    struct cs_audit_hash root;
};

/* A new key that has signed nothing, sealed for that version. */
enum cs_err cs_log_key_make(struct cs_vault *v, uint64_t version,
                            uint8_t ret_box[static CS_LOG_KEY_BOX],
                            struct cs_audit_key *ret_key) CS_MUST_CHECK;

struct cs_log_ask {
    uint64_t version; /* of the box */
    struct cs_slice box;
    uint64_t size, old;
    struct cs_slice root, proof; /* proof: hashes, joined: from the first `old` leaves to `size` */
};
/* Signs, if this is the log that was signed last, gone on with. CONFLICT: it is not, or `old` is
 * not what was signed last; *ret_size is, then and when OK. CORRUPT: the box does not open. `note`
 * gets the checkpoint, `box` the one for version + 1. */
enum cs_err cs_log_sign(struct cs_vault *v, struct cs_log_signed *last,
                        const struct cs_log_ask *ask, uint64_t *ret_size,
                        struct cs_audit_key *ret_key, struct cs_buf *note,
                        uint8_t box[static CS_LOG_KEY_BOX]) CS_MUST_CHECK;

#endif
