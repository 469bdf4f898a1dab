/* Checks a whole log, from its files and its public key: signature, every leaf, every tile, the
 * root, and that it goes on from an older checkpoint. */
#ifndef CS_AUDIT_CHECK_H
#define CS_AUDIT_CHECK_H

#include "audit/leaf.h"
#include "audit/note.h"
#include "audit/tile.h"

/* Zero refuses. */
enum cs_audit_verdict {
    CS_AUDIT_TAMPERED = 0,
    CS_AUDIT_MISSING, /* a file that the checkpoint promises is not there or cannot be read */
    CS_AUDIT_FAILED,  /* no memory: nothing is known */
    CS_AUDIT_INTACT
};

struct cs_audit_check {
    /* given */
    struct cs_audit_source from;
    const struct cs_audit_key *key; /* borrowed */
    struct cs_slice since;          /* an older checkpoint as it was signed, or empty */
    /* Called for each leaf in order, before the root is known to be right: what it collects counts
     * only if the verdict is INTACT. May be NULL. */
    void (*leaf)(void *ctx, uint64_t index, const struct cs_leaf *leaf, struct cs_slice bytes);
    void *ctx; /* borrowed */
    /* found */
    uint64_t size;
    struct cs_audit_hash root;
    uint64_t index;           /* the first leaf that is in doubt */
    const char *why;          /* what is wrong, as a sentence without an end; static */
    char path[CS_AUDIT_PATH]; /* in which file; empty: in none of them */
};
enum cs_audit_verdict cs_audit_check(struct cs_audit_check *c) CS_MUST_CHECK;

#endif
