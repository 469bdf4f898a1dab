/* Leaves to bytes and back. Called by who writes the log and by every check of it. It must never
 * write what it would not read, nor read two spellings as one leaf. */
#include "audit/leaf.h"

#include "base/assert.h"
#include "base/secret.h"
#include "wire/cbor.h"

static const enum cs_leaf_type types[CS_LEAF_KEY_MAX] = {
#define CS_LEAF_KEY(id, number, name, type, help) [number] = CS_LEAF_TYPE_##type,
#include "audit/leaf_keys.def"
#undef CS_LEAF_KEY
};

static const char *const key_names[CS_LEAF_KEY_MAX] = {
#define CS_LEAF_KEY(id, number, name, type, help) [number] = name,
#include "audit/leaf_keys.def"
#undef CS_LEAF_KEY
};

static const struct {
    const char *name;
    uint32_t must, may;
} kinds[CS_LEAF_KIND_MAX] = {
#define K(key)                                     | UINT32_C(1) << CS_KEY_##key
#define CS_LEAF(id, number, name, must, may, help) [number] = {name, 0 must, 0 may},
#include "audit/leaves.def"
#undef CS_LEAF
#undef K
};

_Static_assert(CS_LEAF_KEY_MAX <= 32, "keys are bits of a 32-bit set");

const char *cs_leaf_kind_name(enum cs_leaf_kind kind)
{
    return (unsigned)kind < CS_LEAF_KIND_MAX ? kinds[kind].name : NULL;
}

enum cs_leaf_kind cs_leaf_kind_of(struct cs_slice name)
{
    for (unsigned k = 1; k < CS_LEAF_KIND_MAX; k++) {
        if (kinds[k].name != NULL && cs_slice_eq_str(name, kinds[k].name)) {
            return (enum cs_leaf_kind)k;
        }
    }
    return CS_LEAF_NONE;
}

const char *cs_leaf_key_name(enum cs_leaf_key key)
{
    return (unsigned)key < CS_LEAF_KEY_MAX ? key_names[key] : NULL;
}

enum cs_leaf_type cs_leaf_key_type(enum cs_leaf_key key)
{
    return (unsigned)key < CS_LEAF_KEY_MAX ? types[key] : CS_LEAF_TYPE_NONE;
}

void cs_leaf_set_uint(struct cs_leaf *l, enum cs_leaf_key key, uint64_t v)
{
    cs_assert(types[key] == CS_LEAF_TYPE_UINT);
    l->value[key].number = v;
    l->has |= UINT32_C(1) << key;
}

void cs_leaf_set(struct cs_leaf *l, enum cs_leaf_key key, struct cs_slice v)
{
    cs_assert(types[key] != CS_LEAF_TYPE_UINT && types[key] != CS_LEAF_TYPE_NONE);
    l->value[key].bytes = v;
    l->has |= UINT32_C(1) << key;
}

/* ---- reading ---- */

static struct cs_slice read_sized(struct cs_reader *r, size_t least, size_t most)
{
    struct cs_slice s = cs_cbor_read_bytes(r);
    r->bad |= s.n < least || s.n > most;
    return s;
}

struct private
{
    struct cs_slice hash;
    size_t n;
    struct {
        struct cs_slice holder, box;
    } boxes[CS_LEAF_HOLDERS_MAX];
};

static void read_private(struct cs_reader *r, struct private *ret)
{
    *ret = (struct private){.n = 0};
    r->bad |= cs_cbor_read_array(r) != 2;
    ret->hash = read_sized(r, CS_SHA256, CS_SHA256);
    uint64_t n = cs_cbor_read_array(r);
    if (r->bad || n == 0 || n > CS_LEAF_HOLDERS_MAX) {
        r->bad = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        r->bad |= cs_cbor_read_array(r) != 2;
        ret->boxes[i].holder = read_sized(r, CS_LEAF_HOLDER_ID, CS_LEAF_HOLDER_ID);
        ret->boxes[i].box = read_sized(r, CS_LEAF_SALT + CS_SEAL_TO_OVERHEAD, CS_LEAF_BOX_MAX);
    }
    ret->n = (size_t)n;
}

static void read_value(struct cs_reader *r, enum cs_leaf_type type, struct cs_leaf_value *ret)
{
    const uint8_t *from = r->p;
    struct private private;
    switch (type) {
    case CS_LEAF_TYPE_UINT:
        ret->number = cs_cbor_read_uint(r);
        return;
    case CS_LEAF_TYPE_ID:
        ret->bytes = read_sized(r, CS_ID_BYTES, CS_ID_BYTES);
        return;
    case CS_LEAF_TYPE_HASH:
        ret->bytes = read_sized(r, CS_SHA256, CS_SHA256);
        return;
    case CS_LEAF_TYPE_TEXT:
        ret->bytes = cs_cbor_read_text(r);
        r->bad |= ret->bytes.n > CS_LEAF_TEXT_MAX;
        return;
    case CS_LEAF_TYPE_PRIVATE:
        read_private(r, &private);
        ret->bytes = r->bad ? CS_SLICE_NULL : cs_slice(from, (size_t)(r->p - from));
        return;
    case CS_LEAF_TYPE_NONE:
        break;
    }
    r->bad = true;
}

bool cs_leaf_read(struct cs_slice in, struct cs_leaf *ret)
{
    struct cs_reader r = cs_reader(in);
    uint64_t next = 0;
    struct cs_leaf l = {0};
    r.bad |= cs_cbor_read_array(&r) != 4;
    r.bad |= cs_cbor_read_uint(&r) != CS_LEAF_VERSION;
    uint64_t kind = cs_cbor_read_uint(&r);
    l.time_ms = cs_cbor_read_uint(&r);
    uint64_t n = cs_cbor_read_map(&r);
    if (r.bad || kind >= CS_LEAF_KIND_MAX || kinds[kind].name == NULL) {
        return false;
    }
    l.kind = (enum cs_leaf_kind)kind;
    for (uint64_t i = 0; i < n && !r.bad; i++) {
        uint64_t key = cs_cbor_read_key(&r, &next);
        if (r.bad || key >= CS_LEAF_KEY_MAX) {
            return false;
        }
        read_value(&r, types[key], &l.value[key]);
        l.has |= UINT32_C(1) << key;
    }
    uint32_t must = kinds[kind].must, may = kinds[kind].may;
    if (!cs_reader_done(&r) || (l.has & must) != must || (l.has & ~(must | may)) != 0) {
        return false;
    }
    *ret = l;
    return true;
}

/* ---- writing ---- */

static void write_value(struct cs_writer *w, enum cs_leaf_type type, const struct cs_leaf_value *v)
{
    switch (type) {
    case CS_LEAF_TYPE_UINT:
        cs_cbor_uint(w, v->number);
        return;
    case CS_LEAF_TYPE_ID:
    case CS_LEAF_TYPE_HASH:
        cs_cbor_bytes(w, v->bytes);
        return;
    case CS_LEAF_TYPE_TEXT:
        cs_cbor_text(w, v->bytes);
        return;
    case CS_LEAF_TYPE_PRIVATE:
        cs_writer_bytes(w, v->bytes);
        return;
    case CS_LEAF_TYPE_NONE:
        break;
    }
    w->overflow = true;
}

enum cs_err cs_leaf_write(const struct cs_leaf *l, struct cs_buf *out)
{
    size_t room = 64;
    struct cs_leaf again;
    for (unsigned key = 0; key < CS_LEAF_KEY_MAX; key++) {
        room += cs_leaf_has(l, key) ? l->value[key].bytes.n + 2 * (size_t)CS_CBOR_HEAD_MAX : 0;
    }
    uint8_t *p = cs_buf_room(out, room);
    if (p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_writer w = cs_writer(p, room);
    cs_cbor_array(&w, 4);
    cs_cbor_uint(&w, CS_LEAF_VERSION);
    cs_cbor_uint(&w, (uint64_t)l->kind);
    cs_cbor_uint(&w, l->time_ms);
    cs_cbor_map(&w, (uint64_t)__builtin_popcount(l->has));
    for (unsigned key = 0; key < CS_LEAF_KEY_MAX; key++) {
        if (cs_leaf_has(l, key)) {
            cs_cbor_uint(&w, key);
            write_value(&w, types[key], &l->value[key]);
        }
    }
    if (w.overflow || !cs_leaf_read(cs_writer_done(&w), &again)) {
        return CS_ERR_INVALID;
    }
    out->len += w.len;
    return CS_OK;
}

/* ---- private values ---- */

struct cs_slice cs_leaf_private_aad(enum cs_leaf_kind kind, enum cs_leaf_key key,
                                    uint8_t out[static CS_LEAF_AAD])
{
    struct cs_writer w = cs_writer(out, CS_LEAF_AAD);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/log/private/1"));
    cs_writer_u8(&w, (uint8_t)kind);
    cs_writer_u8(&w, (uint8_t)key);
    return cs_writer_done(&w);
}

static void holder_id(const uint8_t public[static CS_X25519], uint8_t out[static CS_SHA256])
{
    cs_sha256(cs_slice(public, CS_X25519), out);
}

enum cs_err cs_leaf_seal(enum cs_leaf_kind kind, enum cs_leaf_key key, struct cs_slice value,
                         const uint8_t (*holders)[CS_X25519], size_t n_holders, struct cs_buf *out)
{
    uint8_t aad_bytes[CS_LEAF_AAD], hash[CS_SHA256];
    if (n_holders == 0 || n_holders > CS_LEAF_HOLDERS_MAX || value.n > CS_LEAF_PRIVATE_MAX) {
        return CS_ERR_INVALID;
    }
    struct cs_slice aad = cs_leaf_private_aad(kind, key, aad_bytes);
    size_t n_plain = CS_LEAF_SALT + value.n, n_box = n_plain + CS_SEAL_TO_OVERHEAD;
    struct cs_buf plain = cs_buf(CS_LEAF_SALT + CS_LEAF_PRIVATE_MAX);
    size_t room = 40 + n_holders * (n_box + CS_LEAF_HOLDER_ID + 8);
    uint8_t *salt = cs_buf_room(&plain, n_plain), *p = cs_buf_room(out, room);
    if (salt == NULL || p == NULL) {
        cs_buf_done(&plain);
        return CS_ERR_NO_MEMORY;
    }
    cs_random(salt, CS_LEAF_SALT);
    plain.len = CS_LEAF_SALT;
    cs_buf_add(&plain, value);
    cs_hmac_sha256(cs_slice(salt, CS_LEAF_SALT), value, hash);
    struct cs_writer w = cs_writer(p, room);
    cs_cbor_array(&w, 2);
    cs_cbor_bytes(&w, cs_slice(hash, sizeof hash));
    cs_cbor_array(&w, n_holders);
    enum cs_err e = CS_OK;
    for (size_t i = 0; i < n_holders && e == CS_OK; i++) {
        uint8_t id[CS_SHA256], head[CS_CBOR_HEAD_MAX];
        holder_id(holders[i], id);
        cs_cbor_array(&w, 2);
        cs_cbor_bytes(&w, cs_slice(id, CS_LEAF_HOLDER_ID));
        cs_writer_bytes(&w, cs_slice(head, cs_cbor_head(CS_CBOR_BYTES, n_box, head)));
        uint8_t *box = cs_writer_reserve(&w, n_box);
        e = box == NULL ? CS_ERR_INTERNAL : cs_seal_to(holders[i], aad, cs_buf_slice(&plain), box);
    }
    cs_wipe(plain.p, plain.len);
    cs_buf_done(&plain);
    e = e == CS_OK && w.overflow ? CS_ERR_INTERNAL : e;
    out->len += e == CS_OK ? w.len : 0;
    return e;
}

bool cs_leaf_own_box(const struct cs_leaf *l, enum cs_leaf_key key, struct cs_leaf_box *ret)
{
    struct private sealed;
    if (cs_leaf_key_type(key) != CS_LEAF_TYPE_PRIVATE || !cs_leaf_has(l, key)) {
        return false;
    }
    struct cs_reader r = cs_reader(l->value[key].bytes);
    read_private(&r, &sealed);
    if (!cs_reader_done(&r)) {
        return false;
    }
    *ret = (struct cs_leaf_box){sealed.hash, sealed.boxes[0].holder, sealed.boxes[0].box};
    return true;
}

static enum cs_err open_box(struct cs_slice box, struct cs_slice aad, struct cs_slice hash,
                            const uint8_t private[static CS_X25519], struct cs_buf *out)
{
    uint8_t is[CS_SHA256];
    struct cs_buf plain = cs_buf(CS_LEAF_SALT + CS_LEAF_PRIVATE_MAX);
    size_t n = box.n - CS_SEAL_TO_OVERHEAD;
    uint8_t *p = cs_buf_room(&plain, n);
    enum cs_err e = p == NULL ? CS_ERR_NO_MEMORY : cs_unseal_to(private, aad, box, p);
    if (e == CS_OK) {
        struct cs_slice value = cs_slice(p + CS_LEAF_SALT, n - CS_LEAF_SALT);
        cs_hmac_sha256(cs_slice(p, CS_LEAF_SALT), value, is);
        /* SECURITY: two holders must not be given two stories under one leaf. */
        e = cs_slice_eq_secret(cs_slice(is, sizeof is), hash) ? CS_OK : CS_ERR_CORRUPT;
        if (e == CS_OK) {
            cs_buf_add(out, value);
            e = out->bad ? CS_ERR_NO_MEMORY : CS_OK;
        }
        cs_wipe(p, n);
    }
    cs_buf_done(&plain);
    return e;
}

enum cs_err cs_leaf_unseal(const struct cs_leaf *l, enum cs_leaf_key key,
                           const uint8_t private[static CS_X25519], struct cs_buf *out)
{
    uint8_t aad_bytes[CS_LEAF_AAD], public[CS_X25519], id[CS_SHA256];
    struct private sealed;
    if (types[key] != CS_LEAF_TYPE_PRIVATE || !cs_leaf_has(l, key)) {
        return CS_ERR_NOT_FOUND;
    }
    struct cs_reader r = cs_reader(l->value[key].bytes);
    read_private(&r, &sealed);
    if (!cs_reader_done(&r)) {
        return CS_ERR_CORRUPT;
    }
    enum cs_err e = cs_x25519_public(private, public);
    if (e != CS_OK) {
        return e;
    }
    holder_id(public, id);
    for (size_t i = 0; i < sealed.n; i++) {
        if (cs_slice_eq(sealed.boxes[i].holder, cs_slice(id, CS_LEAF_HOLDER_ID))) {
            return open_box(sealed.boxes[i].box, cs_leaf_private_aad(l->kind, key, aad_bytes),
                            sealed.hash, private, out);
        }
    }
    return CS_ERR_NOT_FOUND;
}
