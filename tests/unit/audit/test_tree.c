/* Tree hashing and proofs: published vectors, and every small tree against the recursive definition
 * of RFC 6962, section 2.1, written down once more, naively. */
#include "audit/tree.h"
#include "base/id.h"
#include "tap.h"

enum { MOST = 70 };

static struct cs_audit_hash leaves[MOST];

static void make_leaves(void)
{
    for (unsigned i = 0; i < MOST; i++) {
        uint8_t b[2] = {(uint8_t)i, 7};
        cs_audit_leaf_hash(cs_slice(b, 2), &leaves[i]);
    }
}

/* ---- the definition, naively ---- */

static unsigned half(unsigned n)
{
    unsigned k = 1;
    while (k * 2 < n) {
        k *= 2;
    }
    return k;
}

static struct cs_audit_hash mth(unsigned lo, unsigned hi)
{
    struct cs_audit_hash l, r, h;
    if (hi - lo == 1) {
        return leaves[lo];
    }
    unsigned mid = lo + half(hi - lo);
    l = mth(lo, mid);
    r = mth(mid, hi);
    cs_audit_node_hash(&l, &r, &h);
    return h;
}

static void path(unsigned m, unsigned lo, unsigned hi, struct cs_audit_path *p)
{
    if (hi - lo == 1) {
        return;
    }
    unsigned k = half(hi - lo);
    if (m < k) {
        path(m, lo, lo + k, p);
        p->hash[p->n++] = mth(lo + k, hi);
    } else {
        path(m - k, lo + k, hi, p);
        p->hash[p->n++] = mth(lo, lo + k);
    }
}

static void subproof(unsigned m, unsigned lo, unsigned hi, bool whole, struct cs_audit_path *p)
{
    if (m == hi - lo) {
        if (!whole) {
            p->hash[p->n++] = mth(lo, hi);
        }
        return;
    }
    unsigned k = half(hi - lo);
    if (m <= k) {
        subproof(m, lo, lo + k, whole, p);
        p->hash[p->n++] = mth(lo + k, hi);
    } else {
        subproof(m - k, lo + k, hi, false, p);
        p->hash[p->n++] = mth(lo, lo + k);
    }
}

static bool node(void *ctx, unsigned height, uint64_t index, struct cs_audit_hash *ret)
{
    unsigned lo = (unsigned)index << height;
    (void)ctx;
    *ret = mth(lo, lo + (1u << height));
    return true;
}

static const struct cs_audit_nodes nodes = {node, NULL};

static bool same(const struct cs_audit_path *a, const struct cs_audit_path *b)
{
    return a->n == b->n && memcmp(a->hash, b->hash, a->n * sizeof a->hash[0]) == 0;
}

/* ---- tests ---- */

/* The reference vectors of Certificate Transparency's Merkle tree tests. */
CS_TEST(roots_are_those_of_the_published_vectors)
{
    static const char *const in[] = {"",
                                     "00",
                                     "10",
                                     "2021",
                                     "3031",
                                     "40414243",
                                     "5051525354555657",
                                     "606162636465666768696a6b6c6d6e6f"};
    static const char *const want[] = {
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
    struct cs_audit_tree t = {0};
    for (size_t i = 0;; i++) {
        struct cs_audit_hash root, leaf;
        char text[65];
        uint8_t bytes[16];
        cs_audit_tree_root(&t, &root);
        cs_hex(cs_slice(root.b, 32), text);
        CS_EQ_STR(cs_slice_str(text), want[i]);
        if (i == 8) {
            break;
        }
        CS_CHECK(cs_unhex(cs_slice_str(in[i]), bytes, strlen(in[i]) / 2));
        cs_audit_leaf_hash(cs_slice(bytes, strlen(in[i]) / 2), &leaf);
        cs_audit_tree_add(&t, &leaf);
    }
}

CS_TEST(root_of_every_size_is_the_definitions)
{
    struct cs_audit_tree t = {0};
    make_leaves();
    for (unsigned n = 1; n <= MOST; n++) {
        struct cs_audit_hash a, b, want = mth(0, n);
        cs_audit_tree_add(&t, &leaves[n - 1]);
        cs_audit_tree_root(&t, &a);
        CS_CHECK(cs_audit_root_at(&nodes, n, &b));
        CS_CHECK(cs_audit_hash_eq(&a, &want) && cs_audit_hash_eq(&b, &want));
    }
}

CS_TEST(inclusion_of_every_leaf_in_every_size_is_proved_as_defined_and_checks)
{
    make_leaves();
    for (unsigned n = 1; n <= MOST; n++) {
        struct cs_audit_hash root = mth(0, n);
        for (unsigned i = 0; i < n; i++) {
            struct cs_audit_path want = {0}, is;
            path(i, 0, n, &want);
            CS_CHECK(cs_audit_prove_inclusion(&nodes, i, n, &is));
            CS_CHECK(same(&want, &is));
            CS_CHECK(cs_audit_check_inclusion(i, n, &leaves[i], &is, &root));
        }
    }
}

CS_TEST(inclusion_refuses_another_leaf_index_size_root_and_every_changed_path)
{
    make_leaves();
    for (unsigned n = 2; n <= 33; n++) {
        struct cs_audit_hash root = mth(0, n), other = mth(0, n + 1);
        for (unsigned i = 0; i < n; i++) {
            struct cs_audit_path p, q;
            CS_CHECK(cs_audit_prove_inclusion(&nodes, i, n, &p));
            for (unsigned j = 0; j < n + 2; j++) {
                CS_CHECK(j == i || !cs_audit_check_inclusion(j, n, &leaves[i], &p, &root));
            }
            CS_CHECK(!cs_audit_check_inclusion(i, n, &leaves[i + 1], &p, &root));
            CS_CHECK(!cs_audit_check_inclusion(i, n, &leaves[i], &p, &other));
            CS_CHECK(!cs_audit_check_inclusion(i, 2 * n + 2, &leaves[i], &p, &root));
            for (size_t k = 0; k < p.n; k++) {
                q = p;
                q.hash[k].b[k % 32] ^= 1;
                CS_CHECK(!cs_audit_check_inclusion(i, n, &leaves[i], &q, &root));
            }
            q = p;
            q.n--;
            CS_CHECK(!cs_audit_check_inclusion(i, n, &leaves[i], &q, &root));
            q = p;
            q.hash[q.n++] = leaves[0];
            CS_CHECK(!cs_audit_check_inclusion(i, n, &leaves[i], &q, &root));
        }
    }
}

CS_TEST(consistency_of_every_two_sizes_is_proved_as_defined_and_checks)
{
    make_leaves();
    for (unsigned n = 1; n <= MOST; n++) {
        struct cs_audit_hash root = mth(0, n);
        for (unsigned m = 1; m <= n; m++) {
            struct cs_audit_hash old = mth(0, m);
            struct cs_audit_path want = {0}, is;
            subproof(m, 0, n, true, &want);
            CS_CHECK(cs_audit_prove_consistency(&nodes, m, n, &is));
            CS_CHECK(same(&want, &is));
            CS_CHECK(cs_audit_check_consistency(m, n, &old, &root, &is));
        }
    }
}

CS_TEST(consistency_refuses_other_roots_sizes_and_every_changed_path)
{
    make_leaves();
    for (unsigned n = 2; n <= 33; n++) {
        struct cs_audit_hash root = mth(0, n), newer = mth(0, n + 1);
        for (unsigned m = 1; m < n; m++) {
            struct cs_audit_hash old = mth(0, m), not_old = mth(1, m + 1);
            struct cs_audit_path p, q;
            CS_CHECK(cs_audit_prove_consistency(&nodes, m, n, &p));
            CS_CHECK(!cs_audit_check_consistency(m, n, &not_old, &root, &p));
            CS_CHECK(!cs_audit_check_consistency(m, n, &old, &newer, &p));
            CS_CHECK(!cs_audit_check_consistency(n, m, &root, &old, &p));
            CS_CHECK(!cs_audit_check_consistency(0, n, &old, &root, &p));
            for (size_t k = 0; k < p.n; k++) {
                q = p;
                q.hash[k].b[31] ^= 0x80;
                CS_CHECK(!cs_audit_check_consistency(m, n, &old, &root, &q));
            }
            q = p;
            q.n--;
            CS_CHECK(!cs_audit_check_consistency(m, n, &old, &root, &q));
            q = p;
            q.hash[q.n++] = leaves[0];
            CS_CHECK(!cs_audit_check_consistency(m, n, &old, &root, &q));
        }
    }
}

CS_TEST(proofs_of_what_cannot_be_are_refused)
{
    struct cs_audit_path p = {0};
    struct cs_audit_hash h = {{0}};
    make_leaves();
    CS_CHECK(!cs_audit_prove_inclusion(&nodes, 5, 5, &p));
    CS_CHECK(!cs_audit_prove_inclusion(&nodes, 0, 0, &p));
    CS_CHECK(!cs_audit_prove_consistency(&nodes, 0, 5, &p));
    CS_CHECK(!cs_audit_prove_consistency(&nodes, 6, 5, &p));
    CS_CHECK(!cs_audit_check_inclusion(0, 0, &h, &p, &h));
    CS_CHECK(!cs_audit_check_inclusion(0, UINT64_MAX, &h, &p, &h));
    CS_CHECK(!cs_audit_check_consistency(1, UINT64_MAX, &h, &h, &p));
    p.n = CS_AUDIT_PROOF_MAX + 1; /* nothing behind the array is read */
    CS_CHECK(!cs_audit_check_inclusion(0, 3, &h, &p, &h));
    CS_CHECK(!cs_audit_check_consistency(1, 3, &h, &h, &p));
}

CS_TEST(a_node_is_not_taken_for_a_leaf)
{
    uint8_t both[64];
    struct cs_audit_hash node_hash, leaf_hash;
    make_leaves();
    memcpy(both, leaves[0].b, 32);
    memcpy(both + 32, leaves[1].b, 32);
    cs_audit_node_hash(&leaves[0], &leaves[1], &node_hash);
    cs_audit_leaf_hash(cs_slice(both, 64), &leaf_hash);
    CS_CHECK(!cs_audit_hash_eq(&node_hash, &leaf_hash));
}
