/* Signed notes (C2SP signed-note) with Ed25519, and the checkpoint in one (tlog-checkpoint): the
 * log's name, its size and its root. */
#ifndef CS_AUDIT_NOTE_H
#define CS_AUDIT_NOTE_H

#include "audit/tree.h"
#include "base/buf.h"
#include "base/err.h"
#include "crypto/crypto.h"

enum {
    CS_AUDIT_NAME_MAX = 128,
    CS_AUDIT_NOTE_MAX = 16384, /* 16 signatures of witnesses fit */
    CS_AUDIT_SIGNATURES_MAX = 32,
    CS_AUDIT_CHECKPOINT_MAX = CS_AUDIT_NAME_MAX + 80
};

/* A public key with the name it signs under; the name is the log's origin. */
struct cs_audit_key {
    char name[CS_AUDIT_NAME_MAX + 1];
    uint8_t id[4];
    uint8_t public[CS_ED25519_KEY];
};
/* INVALID: a name that is empty, too long, no UTF-8, or with a blank, control byte or plus in it.
 */
enum cs_err cs_audit_key_make(struct cs_slice name, const uint8_t public[static CS_ED25519_KEY],
                              struct cs_audit_key *ret) CS_MUST_CHECK;
/* "NAME+0123abcd+BASE64", without a newline. */
enum cs_err cs_audit_key_read(struct cs_slice text, struct cs_audit_key *ret) CS_MUST_CHECK;
void cs_audit_key_write(const struct cs_audit_key *key, struct cs_buf *out);

struct cs_audit_checkpoint {
    struct cs_slice origin; /* borrowed from the text */
    uint64_t size;
    struct cs_audit_hash root;
};
/* The three lines, no more: what a signature says must have one spelling. */
void cs_audit_checkpoint_write(const struct cs_audit_checkpoint *c, struct cs_buf *out);
bool cs_audit_checkpoint_read(struct cs_slice text, struct cs_audit_checkpoint *ret) CS_MUST_CHECK;

/* Appends text, blank line and one signature; `text` ends with a newline. */
enum cs_err cs_audit_note_sign(struct cs_slice text, const struct cs_audit_key *key,
                               const uint8_t private[static CS_ED25519_KEY],
                               struct cs_buf *out) CS_MUST_CHECK;
/* The text, if this key signed it. Lines of other keys are witnesses' and not looked at; a line of
 * this key that does not verify refuses the note, whatever else signs it. */
bool cs_audit_note_open(struct cs_slice note, const struct cs_audit_key *key,
                        struct cs_slice *ret_text) CS_MUST_CHECK;
/* The same, and the text is a checkpoint of the key's own log. */
bool cs_audit_checkpoint_open(struct cs_slice note, const struct cs_audit_key *key,
                              struct cs_audit_checkpoint *ret) CS_MUST_CHECK;

/* A line of `text` without its newline, taken off; false when there is none. */
bool cs_audit_line(struct cs_slice *text, struct cs_slice *ret);
/* Decimal without leading zeros, below CS_AUDIT_SIZE_MAX. */
bool cs_audit_number(struct cs_slice text, uint64_t *ret);
/* Exactly 32 bytes in base 64. */
bool cs_audit_hash_read(struct cs_slice text, struct cs_audit_hash *ret);
void cs_audit_base64(struct cs_slice in, struct cs_buf *out);

#endif
