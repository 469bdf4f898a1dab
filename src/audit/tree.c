/* Tree hashing and proofs (RFC 6962, checks by RFC 9162). Called by what writes and what checks the
 * audit log. It must never accept a path that is longer or shorter than the sizes say. */
#include "audit/tree.h"

#include "base/assert.h"
#include "crypto/crypto.h"

_Static_assert((int)CS_AUDIT_HASH == (int)CS_SHA256, "the tree hashes with SHA-256");

void cs_audit_leaf_hash(struct cs_slice leaf, struct cs_audit_hash *ret)
{
    const struct cs_slice pieces[] = {cs_slice("\0", 1), leaf};
    cs_sha256_pieces(pieces, 2, ret->b);
}

void cs_audit_node_hash(const struct cs_audit_hash *left, const struct cs_audit_hash *right,
                        struct cs_audit_hash *ret)
{
    uint8_t in[1 + 2 * CS_AUDIT_HASH] = {1};
    memcpy(in + 1, left->b, CS_AUDIT_HASH);
    memcpy(in + 1 + CS_AUDIT_HASH, right->b, CS_AUDIT_HASH);
    cs_sha256(cs_slice(in, sizeof in), ret->b);
}

bool cs_audit_hash_eq(const struct cs_audit_hash *a, const struct cs_audit_hash *b)
{
    return memcmp(a->b, b->b, CS_AUDIT_HASH) == 0;
}

void cs_audit_tree_add(struct cs_audit_tree *t, const struct cs_audit_hash *leaf)
{
    cs_assert(t->size < CS_AUDIT_SIZE_MAX);
    struct cs_audit_hash h = *leaf;
    unsigned height = 0;
    while ((t->size >> height & 1) != 0) {
        cs_audit_node_hash(&t->peak[height], &h, &h);
        height++;
    }
    t->peak[height] = h;
    t->size++;
}

void cs_audit_tree_root(const struct cs_audit_tree *t, struct cs_audit_hash *ret)
{
    if (t->size == 0) {
        cs_sha256(CS_SLICE_NULL, ret->b);
        return;
    }
    bool some = false;
    struct cs_audit_hash h = {{0}};
    for (unsigned height = 0; height < CS_ARRAY_LEN(t->peak); height++) {
        if ((t->size >> height & 1) == 0) {
            continue;
        }
        if (some) {
            cs_audit_node_hash(&t->peak[height], &h, &h);
        } else {
            h = t->peak[height];
        }
        some = true;
    }
    *ret = h;
}

void cs_audit_fold(const struct cs_audit_hash *hashes, size_t n, struct cs_audit_hash *ret)
{
    struct cs_audit_hash peak[9] = {0};
    cs_assert(n > 0 && n <= 256 && (n & (n - 1)) == 0);
    for (size_t i = 0; i < n; i++) {
        struct cs_audit_hash h = hashes[i];
        unsigned height = 0;
        for (; (i >> height & 1) != 0; height++) {
            cs_audit_node_hash(&peak[height], &h, &h);
        }
        peak[height] = h;
    }
    *ret = peak[__builtin_ctzll(n)];
}

/* The hash over leaves lo to hi, where RFC 6962 makes a subtree of them: lo is a multiple of every
 * power of two up to the next one above hi - lo. Complete subtrees from the right, joined. */
static bool range(const struct cs_audit_nodes *from, uint64_t lo, uint64_t hi,
                  struct cs_audit_hash *ret)
{
    bool some = false;
    uint64_t n = hi - lo, end = hi;
    struct cs_audit_hash h = {{0}}, left;
    for (unsigned height = 0; n >> height != 0; height++) {
        if ((n >> height & 1) == 0) {
            continue;
        }
        if (!from->node(from->ctx, height, (end >> height) - 1, &left)) {
            return false;
        }
        if (some) {
            cs_audit_node_hash(&left, &h, &h);
        } else {
            h = left;
        }
        some = true;
        end -= UINT64_C(1) << height;
    }
    *ret = h;
    return some;
}

bool cs_audit_root_at(const struct cs_audit_nodes *from, uint64_t size, struct cs_audit_hash *ret)
{
    static const struct cs_audit_tree empty;
    if (size == 0) {
        cs_audit_tree_root(&empty, ret);
        return true;
    }
    return size < CS_AUDIT_SIZE_MAX && range(from, 0, size, ret);
}

/* The largest power of two below n; n is at least 2. */
static uint64_t split(uint64_t n)
{
    return UINT64_C(1) << (63 - __builtin_clzll(n - 1));
}

static bool push(const struct cs_audit_nodes *from, uint64_t lo, uint64_t hi,
                 struct cs_audit_path *path)
{
    return path->n < CS_AUDIT_PROOF_MAX && range(from, lo, hi, &path->hash[path->n++]);
}

/* Collected from the root down, wanted from the bottom up. */
static void reverse(struct cs_audit_path *path)
{
    for (size_t i = 0; i < path->n / 2; i++) {
        struct cs_audit_hash h = path->hash[i];
        path->hash[i] = path->hash[path->n - 1 - i];
        path->hash[path->n - 1 - i] = h;
    }
}

bool cs_audit_prove_inclusion(const struct cs_audit_nodes *from, uint64_t index, uint64_t size,
                              struct cs_audit_path *ret)
{
    uint64_t lo = 0, hi = size;
    ret->n = 0;
    if (index >= size || size >= CS_AUDIT_SIZE_MAX) {
        return false;
    }
    while (hi - lo > 1) {
        uint64_t mid = lo + split(hi - lo);
        if (index < mid) {
            if (!push(from, mid, hi, ret)) {
                return false;
            }
            hi = mid;
        } else {
            if (!push(from, lo, mid, ret)) {
                return false;
            }
            lo = mid;
        }
    }
    reverse(ret);
    return true;
}

bool cs_audit_prove_consistency(const struct cs_audit_nodes *from, uint64_t old, uint64_t size,
                                struct cs_audit_path *ret)
{
    uint64_t lo = 0, hi = size;
    ret->n = 0;
    if (old == 0 || old > size || size >= CS_AUDIT_SIZE_MAX) {
        return false;
    }
    while (old != hi) {
        uint64_t mid = lo + split(hi - lo);
        if (old <= mid) {
            if (!push(from, mid, hi, ret)) {
                return false;
            }
            hi = mid;
        } else {
            if (!push(from, lo, mid, ret)) {
                return false;
            }
            lo = mid;
        }
    }
    /* Left of all: the old root itself, which the checker has. */
    if (lo != 0 && !push(from, lo, hi, ret)) {
        return false;
    }
    reverse(ret);
    return true;
}

bool cs_audit_check_inclusion(uint64_t index, uint64_t size, const struct cs_audit_hash *leaf,
                              const struct cs_audit_path *path, const struct cs_audit_hash *root)
{
    if (index >= size || size >= CS_AUDIT_SIZE_MAX || path->n > CS_AUDIT_PROOF_MAX) {
        return false;
    }
    uint64_t fn = index, sn = size - 1;
    struct cs_audit_hash h = *leaf;
    for (size_t i = 0; i < path->n; i++) {
        if (sn == 0) {
            return false; /* a path that goes on above the root */
        }
        if ((fn & 1) != 0 || fn == sn) {
            cs_audit_node_hash(&path->hash[i], &h, &h);
            while (fn != 0 && (fn & 1) == 0) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            cs_audit_node_hash(&h, &path->hash[i], &h);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && cs_audit_hash_eq(&h, root);
}

bool cs_audit_check_consistency(uint64_t old, uint64_t size, const struct cs_audit_hash *old_root,
                                const struct cs_audit_hash *root, const struct cs_audit_path *path)
{
    if (old == 0 || old > size || size >= CS_AUDIT_SIZE_MAX || path->n > CS_AUDIT_PROOF_MAX) {
        return false;
    }
    if (old == size) {
        return path->n == 0 && cs_audit_hash_eq(old_root, root);
    }
    uint64_t fn = old - 1, sn = size - 1;
    size_t i = 0;
    while ((fn & 1) != 0) {
        fn >>= 1;
        sn >>= 1;
    }
    if (fn != 0 && path->n == 0) {
        return false;
    }
    /* A complete old tree is the first hash of its own path. */
    struct cs_audit_hash was = fn == 0 ? *old_root : path->hash[i++];
    struct cs_audit_hash is = was;
    for (; i < path->n; i++) {
        const struct cs_audit_hash *p = &path->hash[i];
        if (sn == 0) {
            return false;
        }
        if ((fn & 1) != 0 || fn == sn) {
            cs_audit_node_hash(p, &was, &was);
            cs_audit_node_hash(p, &is, &is);
            while (fn != 0 && (fn & 1) == 0) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            cs_audit_node_hash(&is, p, &is);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && cs_audit_hash_eq(&was, old_root) && cs_audit_hash_eq(&is, root);
}
