/* Keeper's signature on the audit log: on one that grows, and on no other. */
#include "base/alloc.h"
#include "tap.h"
#include "vault/log_key.h"

static struct cs_vault *v;
static struct cs_log_signed last;
static uint8_t box[CS_LOG_KEY_BOX], next[CS_LOG_KEY_BOX];
static uint64_t version;
static struct cs_audit_tree tree;
static struct cs_audit_hash leaves[64];
static struct cs_audit_key key;

static void begin(void)
{
    const uint8_t master[CS_SEAL_KEY] = {9};
    v = cs_vault_new();
    CS_CHECK(v != NULL);
    cs_vault_set_key(v, false, master);
    CS_EQ_U64(cs_log_key_make(v, 1, box, &key), CS_OK);
    version = 1;
    last = (struct cs_log_signed){.known = false};
    tree = (struct cs_audit_tree){.size = 0};
}

static void end(void)
{
    cs_vault_close(v);
    CS_EQ_U64(cs_alloc_live(), 0);
}

static void grow(uint64_t to, uint8_t salt)
{
    while (tree.size < to) {
        uint8_t leaf[2] = {(uint8_t)tree.size, salt};
        cs_audit_leaf_hash(cs_slice(leaf, 2), &leaves[tree.size]);
        cs_audit_tree_add(&tree, &leaves[tree.size]);
    }
}

static void set_back(uint64_t to)
{
    tree = (struct cs_audit_tree){.size = 0};
    grow(to, 0);
}

static bool node(void *ctx, unsigned height, uint64_t index, struct cs_audit_hash *ret)
{
    (void)ctx;
    cs_audit_fold(&leaves[index << height], (size_t)1 << height, ret);
    return true;
}

/* Asks for the tree as it is, with the proof from `old`; a signature takes over the new box. */
static enum cs_err sign(uint64_t old, uint64_t *ret_size)
{
    struct cs_audit_path path = {.n = 0};
    struct cs_audit_hash root;
    struct cs_audit_key is;
    struct cs_audit_checkpoint c;
    struct cs_buf note = cs_buf(CS_AUDIT_NOTE_MAX);
    const struct cs_audit_nodes nodes = {node, NULL};
    if (old > 0 && old < tree.size) {
        CS_CHECK(cs_audit_prove_consistency(&nodes, old, tree.size, &path));
    }
    cs_audit_tree_root(&tree, &root);
    const struct cs_log_ask ask = {
        .version = version,
        .box = cs_slice(box, sizeof box),
        .size = tree.size,
        .old = old,
        .root = cs_slice(root.b, sizeof root.b),
        .proof = cs_slice(path.hash, path.n * sizeof path.hash[0]),
    };
    enum cs_err e = cs_log_sign(v, &last, &ask, ret_size, &is, &note, next);
    if (e == CS_OK) {
        memcpy(box, next, sizeof box);
        version++;
        CS_CHECK(strcmp(is.name, key.name) == 0);
        CS_CHECK(cs_audit_checkpoint_open(cs_buf_slice(&note), &key, &c));
        CS_EQ_U64(c.size, tree.size);
    } else {
        CS_EQ_U64(note.len, 0);
    }
    cs_buf_done(&note);
    return e;
}

CS_TEST(a_growing_log_is_signed_each_time)
{
    uint64_t size = 0;
    begin();
    grow(1, 0);
    CS_EQ_U64(sign(0, &size), CS_OK);
    grow(7, 0);
    CS_EQ_U64(sign(1, &size), CS_OK);
    CS_EQ_U64(size, 7);
    CS_EQ_U64(sign(7, &size), CS_OK); /* the answer was lost: the same once more */
    grow(64, 0);
    CS_EQ_U64(sign(7, &size), CS_OK);
    end();
}

CS_TEST(a_log_that_was_set_back_is_not_signed)
{
    uint64_t size = 0;
    begin();
    grow(20, 0);
    CS_EQ_U64(sign(0, &size), CS_OK);
    set_back(12);
    CS_EQ_U64(sign(0, &size), CS_ERR_CONFLICT);
    CS_EQ_U64(size, 20); /* and what was signed is said */
    CS_EQ_U64(sign(12, &size), CS_ERR_CONFLICT);
    grow(30, 0);
    CS_EQ_U64(sign(12, &size), CS_ERR_CONFLICT); /* not from there */
    CS_EQ_U64(sign(20, &size), CS_OK);
    end();
}

CS_TEST(a_forked_log_is_not_signed)
{
    uint64_t size = 0;
    begin();
    grow(20, 0);
    CS_EQ_U64(sign(0, &size), CS_OK);
    set_back(13);
    grow(20, 1); /* other leaves behind the thirteenth */
    CS_EQ_U64(sign(20, &size), CS_ERR_CONFLICT);
    grow(40, 1);
    CS_EQ_U64(sign(20, &size), CS_ERR_CONFLICT);
    CS_EQ_U64(sign(0, &size), CS_ERR_CONFLICT);
    end();
}

CS_TEST(an_older_row_does_not_make_keeper_forget)
{
    uint64_t size = 0, old_version = 0;
    uint8_t old_box[CS_LOG_KEY_BOX];
    begin();
    grow(5, 0);
    CS_EQ_U64(sign(0, &size), CS_OK);
    memcpy(old_box, box, sizeof box);
    old_version = version;
    grow(9, 0);
    CS_EQ_U64(sign(5, &size), CS_OK);
    memcpy(box, old_box, sizeof box); /* what control brings is the row of before */
    version = old_version;
    set_back(5);
    grow(8, 1);
    CS_EQ_U64(sign(5, &size), CS_ERR_CONFLICT);
    CS_EQ_U64(size, 9);
    set_back(11); /* the true one goes on, also behind an older row: the store had no space */
    CS_EQ_U64(sign(9, &size), CS_OK);
    end();
}

CS_TEST(a_row_that_is_not_the_logs_signs_nothing)
{
    uint64_t size = 0;
    uint8_t plain[CS_LOG_KEY_PLAIN] = {1};
    begin();
    grow(3, 0);
    version = 2; /* another version's box */
    CS_EQ_U64(sign(0, &size), CS_ERR_CORRUPT);
    version = 1;
    box[CS_LOG_KEY_BOX - 1] ^= 1;
    CS_EQ_U64(sign(0, &size), CS_ERR_CORRUPT);
    /* A secret of somebody's, of the right length, under its own name. */
    CS_EQ_U64(cs_vault_seal(v, CS_SLICE_LIT("orders-ro"), 1, cs_slice(plain, sizeof plain), box),
              CS_OK);
    CS_EQ_U64(sign(0, &size), CS_ERR_CORRUPT);
    end();
}

CS_TEST(a_malformed_question_about_the_log_is_refused)
{
    struct cs_audit_key is;
    struct cs_buf note = cs_buf(CS_AUDIT_NOTE_MAX);
    uint8_t zeros[64 * 32] = {0};
    uint64_t size = 0;
    begin();
    struct cs_log_ask ask = {.version = 1, .box = cs_slice(box, sizeof box), .size = 1};
    ask.root = cs_slice(zeros, 31);
    CS_EQ_U64(cs_log_sign(v, &last, &ask, &size, &is, &note, next), CS_ERR_INVALID);
    ask.root = cs_slice(zeros, 32);
    ask.proof = cs_slice(zeros, 31);
    CS_EQ_U64(cs_log_sign(v, &last, &ask, &size, &is, &note, next), CS_ERR_CONFLICT);
    ask.proof = cs_slice(zeros, sizeof zeros); /* one hash more than there can be */
    CS_EQ_U64(cs_log_sign(v, &last, &ask, &size, &is, &note, next), CS_ERR_CONFLICT);
    ask.proof = CS_SLICE_NULL;
    ask.size = CS_AUDIT_SIZE_MAX;
    CS_EQ_U64(cs_log_sign(v, &last, &ask, &size, &is, &note, next), CS_ERR_CONFLICT);
    ask.version = 0;
    CS_EQ_U64(cs_log_sign(v, &last, &ask, &size, &is, &note, next), CS_ERR_INVALID);
    cs_buf_done(&note);
    end();
}
