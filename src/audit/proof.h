/* An offline proof (C2SP tlog-proof): one leaf, its path to the root, and the checkpoint that was
 * signed for it, in one text file. It verifies with the log's public key alone. The leaf itself
 * stands in the line `extra`. */
#ifndef CS_AUDIT_PROOF_H
#define CS_AUDIT_PROOF_H

#include "audit/note.h"
#include "audit/tile.h"

enum { CS_AUDIT_PROOF_FILE_MAX = 128 * 1024 };

struct cs_audit_proof {
    struct cs_buf leaf; /* owned */
    uint64_t index;
    struct cs_audit_path path;
    struct cs_slice checkpoint; /* the note; borrowed */
};
void cs_audit_proof_done(struct cs_audit_proof *p);
void cs_audit_proof_write(const struct cs_audit_proof *p, struct cs_buf *out);
/* INVALID when malformed. ret->leaf is allocated then, and only then, when OK. */
enum cs_err cs_audit_proof_read(struct cs_slice text, struct cs_audit_proof *ret) CS_MUST_CHECK;
/* Reads the text and checks all of it: signature, origin, path. CORRUPT when it proves nothing. */
enum cs_err cs_audit_proof_open(struct cs_slice text, const struct cs_audit_key *key,
                                struct cs_audit_proof *ret) CS_MUST_CHECK;

#endif
