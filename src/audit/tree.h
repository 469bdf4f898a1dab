/* The Merkle tree of RFC 6962: hashes, the root as leaves come, proofs and their checks. Pure
 * arithmetic over hashes: no files, no allocation. */
#ifndef CS_AUDIT_TREE_H
#define CS_AUDIT_TREE_H

#include "base/attr.h"
#include "base/slice.h"

enum { CS_AUDIT_HASH = 32, CS_AUDIT_PROOF_MAX = 63 };
/* A log has fewer leaves than this: no sum or shift below can overflow. */
#define CS_AUDIT_SIZE_MAX (UINT64_C(1) << 62)

struct cs_audit_hash {
    uint8_t b[CS_AUDIT_HASH];
};

/* SECURITY: leaves and inner nodes are hashed with different first bytes; without that, an inner
 * node could be passed off as a leaf. */
void cs_audit_leaf_hash(struct cs_slice leaf, struct cs_audit_hash *ret);
void cs_audit_node_hash(const struct cs_audit_hash *left, const struct cs_audit_hash *right,
                        struct cs_audit_hash *ret);
bool cs_audit_hash_eq(const struct cs_audit_hash *a, const struct cs_audit_hash *b);

/* The right edge of a growing tree: all that is needed to go on. Zeroed is the empty tree. */
struct cs_audit_tree {
    uint64_t size;
    struct cs_audit_hash peak[63]; /* [h]: of 2^h leaves, where bit h of size is set */
};
void cs_audit_tree_add(struct cs_audit_tree *t, const struct cs_audit_hash *leaf);
void cs_audit_tree_root(const struct cs_audit_tree *t, struct cs_audit_hash *ret);

/* The hash of a complete subtree over `n` hashes, a power of two up to 256. */
void cs_audit_fold(const struct cs_audit_hash *hashes, size_t n, struct cs_audit_hash *ret);

/* Where proofs get hashes from: that of the complete subtree number `index` of 2^height leaves.
 * False when it cannot be had. */
struct cs_audit_nodes {
    bool (*node)(void *ctx, unsigned height, uint64_t index, struct cs_audit_hash *ret);
    void *ctx; /* borrowed */
};
struct cs_audit_path {
    size_t n;
    struct cs_audit_hash hash[CS_AUDIT_PROOF_MAX];
};
/* That leaf `index` is in the tree of `size` leaves (RFC 6962, 2.1.1), lowest sibling first. */
bool cs_audit_prove_inclusion(const struct cs_audit_nodes *from, uint64_t index, uint64_t size,
                              struct cs_audit_path *ret) CS_MUST_CHECK;
/* That the tree of `old` leaves is the beginning of that of `size` (2.1.2); 0 < old. */
bool cs_audit_prove_consistency(const struct cs_audit_nodes *from, uint64_t old, uint64_t size,
                                struct cs_audit_path *ret) CS_MUST_CHECK;
/* The root of the first `size` leaves. */
bool cs_audit_root_at(const struct cs_audit_nodes *from, uint64_t size,
                      struct cs_audit_hash *ret) CS_MUST_CHECK;

/* RFC 9162, 2.1.3.2 and 2.1.4.2. The path has exactly the hashes that are needed, or it is wrong.
 */
bool cs_audit_check_inclusion(uint64_t index, uint64_t size, const struct cs_audit_hash *leaf,
                              const struct cs_audit_path *path,
                              const struct cs_audit_hash *root) CS_MUST_CHECK;
bool cs_audit_check_consistency(uint64_t old, uint64_t size, const struct cs_audit_hash *old_root,
                                const struct cs_audit_hash *root,
                                const struct cs_audit_path *path) CS_MUST_CHECK;

#endif
