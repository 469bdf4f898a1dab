/* One entry of the audit log as bytes: deterministic CBOR, [version, kind, time, {key: value}]. The
 * kinds and their keys are tables (leaves.def, leaf_keys.def). What could identify a person or
 * shows data stands in a leaf as a hash and as boxes that only its holders open, so that destroying
 * a key leaves the tree as it is. */
#ifndef CS_AUDIT_LEAF_H
#define CS_AUDIT_LEAF_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "crypto/crypto.h"

enum cs_leaf_kind {
    CS_LEAF_NONE = 0,
#define CS_LEAF(id, number, name, must, may, help) CS_LEAF_##id = (number),
#include "audit/leaves.def"
#undef CS_LEAF
    CS_LEAF_KIND_MAX
};
enum cs_leaf_key {
#define CS_LEAF_KEY(id, number, name, type, help) CS_KEY_##id = (number),
#include "audit/leaf_keys.def"
#undef CS_LEAF_KEY
    CS_LEAF_KEY_MAX
};
enum {
    CS_LEAF_VERSION = 1,
    CS_LEAF_TEXT_MAX = 256,
    CS_LEAF_PRIVATE_MAX = 4096, /* the plain value */
    CS_LEAF_HOLDERS_MAX = 4,
    CS_LEAF_SALT = 32,
    CS_LEAF_HOLDER_ID = 8,
    CS_LEAF_BOX_MAX = CS_LEAF_SALT + CS_LEAF_PRIVATE_MAX + CS_SEAL_TO_OVERHEAD,
    /* hash and heads, and for each holder: id, box and heads */
    CS_LEAF_SEALED_MAX = 40 + CS_LEAF_HOLDERS_MAX * (CS_LEAF_BOX_MAX + CS_LEAF_HOLDER_ID + 8)
};

enum cs_leaf_type {
    CS_LEAF_TYPE_NONE = 0,
    CS_LEAF_TYPE_UINT,
    CS_LEAF_TYPE_ID,
    CS_LEAF_TYPE_HASH,
    CS_LEAF_TYPE_TEXT,
    CS_LEAF_TYPE_PRIVATE
};

struct cs_leaf_value {
    uint64_t number;       /* UINT */
    struct cs_slice bytes; /* all others; borrowed. PRIVATE: the CBOR of it */
};
struct cs_leaf {
    enum cs_leaf_kind kind;
    uint64_t time_ms;
    uint32_t has; /* bit CS_KEY_… */
    struct cs_leaf_value value[CS_LEAF_KEY_MAX];
};

void cs_leaf_set_uint(struct cs_leaf *l, enum cs_leaf_key key, uint64_t v);
void cs_leaf_set(struct cs_leaf *l, enum cs_leaf_key key, struct cs_slice v);
static inline bool cs_leaf_has(const struct cs_leaf *l, enum cs_leaf_key key)
{
    return (l->has >> (unsigned)key & 1) != 0;
}
const char *cs_leaf_kind_name(enum cs_leaf_kind kind);   /* NULL: there is no such kind */
enum cs_leaf_kind cs_leaf_kind_of(struct cs_slice name); /* NONE: there is no such kind */
const char *cs_leaf_key_name(enum cs_leaf_key key);
enum cs_leaf_type cs_leaf_key_type(enum cs_leaf_key key);

/* Appends the leaf. INVALID for one that cs_leaf_read would refuse: nothing else gets into a log.
 */
enum cs_err cs_leaf_write(const struct cs_leaf *l, struct cs_buf *out) CS_MUST_CHECK;
/* Strict: another version, an unknown kind or key, a key too many or too few, a wrong type or
 * length, another spelling or bytes left over are all false. Slices borrow from `in`. */
bool cs_leaf_read(struct cs_slice in, struct cs_leaf *ret) CS_MUST_CHECK;

/* ---- PRIVATE values: [hash, [[holder, box], …]] ---- */

/* hash = HMAC-SHA-256(salt, value), the salt being 32 random bytes that stand only in the boxes:
 * without one nobody can try values. Each box is sealed to one X25519 key; kind and key are bound.
 */
enum cs_err cs_leaf_seal(enum cs_leaf_kind kind, enum cs_leaf_key key, struct cs_slice value,
                         const uint8_t (*holders)[CS_X25519], size_t n_holders,
                         struct cs_buf *out) CS_MUST_CHECK;
/* Hash and first box of a private value: the gateway's own key comes first. False: there is none.
 */
struct cs_leaf_box {
    struct cs_slice hash, holder, box; /* borrowed from the leaf */
};
bool cs_leaf_own_box(const struct cs_leaf *l, enum cs_leaf_key key, struct cs_leaf_box *ret);
/* What a box is bound to. */
enum { CS_LEAF_AAD = 40 };
struct cs_slice cs_leaf_private_aad(enum cs_leaf_kind kind, enum cs_leaf_key key,
                                    uint8_t out[static CS_LEAF_AAD]);
/* The value, for the holder of a private key. NOT_FOUND: no box for that key. CORRUPT: it does not
 * open, or what is in it is not what was hashed. */
enum cs_err cs_leaf_unseal(const struct cs_leaf *l, enum cs_leaf_key key,
                           const uint8_t private[static CS_X25519],
                           struct cs_buf *out) CS_MUST_CHECK;

#endif
