/* The master keys and the boxes under them. Called by keeper, for whom everything in clear is in
 * one piece of locked memory. It must never give out bytes of a box that did not open, nor say
 * anything of what it read that was no key. */
#include "vault/vault.h"

#include "base/id.h"
#include "base/writer.h"
#include "vault/locked.h"

#include <errno.h>
#include <unistd.h>

enum {
    MAGIC = 8,
    WRAPPED = CS_SEAL_KEY + CS_SEAL_OVERHEAD,
    HEAD = MAGIC + CS_VAULT_KEY_ID + WRAPPED,
    AAD_MAX = 24 + 4 + CS_VAULT_NAME_MAX + 8 + 8 + CS_VAULT_KEY_ID,
    PUT_AAD_MAX = 24 + CS_VAULT_NAME_MAX,
    KIND_PASSWORD = 1
};
_Static_assert(HEAD + CS_SEAL_OVERHEAD == CS_VAULT_BOX_OVERHEAD, "as the header says");

/* A box of the first form starts with a random nonce: it is this one time in 2^64. */
static const uint8_t magic[MAGIC] = {'C', 'S', 'B', 'O', 'X', 0, 0, 2};

struct master {
    bool set;
    uint8_t id[CS_VAULT_KEY_ID];
    uint8_t key[CS_SEAL_KEY];
};

struct cs_vault {
    struct master master[2];      /* the present one, the previous one */
    uint8_t put_key[CS_X25519];   /* private half of the key that commands seal to */
    uint8_t row_key[CS_SEAL_KEY]; /* of the box at hand */
    uint8_t room[CS_SECRET_MAX];  /* the one secret that is in clear at a time */
    uint8_t text[CS_VAULT_KEY_TEXT_MAX];
};

struct cs_vault *cs_vault_new(void)
{
    return cs_locked_alloc(sizeof(struct cs_vault));
}

void cs_vault_close(struct cs_vault *v)
{
    cs_locked_free(v, sizeof *v);
}

/* ---- master keys ---- */

static enum cs_err derive(const struct master *m, const char *purpose, uint8_t *ret, size_t n)
{
    return cs_hkdf_sha256(cs_slice(m->key, sizeof m->key), CS_SLICE_LIT("countersign/derive/1"),
                          cs_slice_str(purpose), ret, n);
}

void cs_vault_set_key(struct cs_vault *v, bool previous, const uint8_t key[static CS_SEAL_KEY])
{
    struct master *m = &v->master[previous ? 1 : 0];
    memmove(m->key, key, sizeof m->key);
    m->set = derive(m, "key-id", m->id, sizeof m->id) == CS_OK;
    if (!previous) {
        m->set = m->set && derive(m, "secret-put", v->put_key, sizeof v->put_key) == CS_OK;
    }
}

bool cs_vault_has_key(const struct cs_vault *v)
{
    return v != NULL && v->master[0].set;
}

bool cs_vault_has_previous(const struct cs_vault *v)
{
    return v != NULL && v->master[1].set;
}

void cs_vault_key_id(const struct cs_vault *v, uint8_t ret[static CS_VAULT_KEY_ID])
{
    memcpy(ret, v->master[0].id, CS_VAULT_KEY_ID);
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool from_hex(struct cs_slice text, uint8_t out[static CS_SEAL_KEY])
{
    for (size_t i = 0; i < CS_SEAL_KEY; i++) {
        int high = hex_digit(text.p[2 * i]), low = hex_digit(text.p[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* Into row_key, which is free meanwhile. */
static bool key_of_text(struct cs_vault *v, size_t n)
{
    size_t got = 0;
    if (n == CS_SEAL_KEY) {
        memcpy(v->row_key, v->text, CS_SEAL_KEY);
        return true;
    }
    n -= n > 0 && v->text[n - 1] == '\n' ? 1 : 0;
    n -= n > 0 && v->text[n - 1] == '\r' ? 1 : 0;
    struct cs_slice text = cs_slice(v->text, n);
    if (n == (size_t)2 * CS_SEAL_KEY) {
        return from_hex(text, v->row_key);
    }
    return n == (CS_SEAL_KEY + 2) / 3 * 4 &&
           cs_base64_decode(text, false, v->row_key, sizeof v->row_key, &got) && got == CS_SEAL_KEY;
}

enum cs_err cs_vault_read_key(struct cs_vault *v, bool previous, int fd, const char **ret_why)
{
    size_t n = 0;
    enum cs_err e = CS_OK;
    for (;;) {
        ssize_t got = read(fd, v->text + n, sizeof v->text - n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        /* EAGAIN: a pipe that somebody still holds open; what is in it is all there will be. */
        e = got < 0 && errno != EAGAIN ? CS_ERR_IO : CS_OK;
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    if (e != CS_OK) {
        *ret_why = "the master key cannot be read";
    } else if (n == sizeof v->text || !key_of_text(v, n)) {
        *ret_why = "what was read is no master key: that is 32 bytes, or 64 hexadecimal digits, or "
                   "44 characters of base 64";
        e = CS_ERR_INVALID;
    } else {
        cs_vault_set_key(v, previous, v->row_key);
        e = v->master[previous ? 1 : 0].set ? CS_OK : CS_ERR_INTERNAL;
        *ret_why = e == CS_OK ? "" : "the master key cannot be used";
    }
    cs_wipe(v->text, sizeof v->text);
    cs_wipe(v->row_key, sizeof v->row_key);
    return e;
}

enum cs_err cs_vault_derive(const struct cs_vault *v, const char *purpose,
                            uint8_t ret[static CS_SEAL_KEY])
{
    return v->master[0].set ? derive(&v->master[0], purpose, ret, CS_SEAL_KEY) : CS_ERR_UNAVAILABLE;
}

/* ---- what boxes are bound to ---- */

/* Of boxes of the first form. */
static struct cs_slice aad_1(struct cs_slice name, uint64_t version, uint8_t mem[static AAD_MAX])
{
    struct cs_writer w = cs_writer(mem, AAD_MAX);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/secret/1"));
    cs_writer_slice(&w, name);
    cs_writer_u64le(&w, version);
    return cs_writer_done(&w); /* empty only for a name that is too long, which was checked */
}

static struct cs_slice aad_secret(struct cs_slice name, uint64_t version,
                                  uint8_t mem[static AAD_MAX])
{
    struct cs_writer w = cs_writer(mem, AAD_MAX);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/secret/2"));
    cs_writer_slice(&w, name);
    cs_writer_u64le(&w, version);
    cs_writer_u64le(&w, KIND_PASSWORD);
    return cs_writer_done(&w);
}

static struct cs_slice aad_key(struct cs_slice name, uint64_t version, const uint8_t *id,
                               uint8_t mem[static AAD_MAX])
{
    struct cs_writer w = cs_writer(mem, AAD_MAX);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/row-key/2"));
    cs_writer_slice(&w, name);
    cs_writer_u64le(&w, version);
    cs_writer_u64le(&w, KIND_PASSWORD);
    cs_writer_bytes(&w, cs_slice(id, CS_VAULT_KEY_ID));
    return cs_writer_done(&w);
}

static bool name_fits(struct cs_slice name)
{
    return name.n > 0 && name.n <= CS_VAULT_NAME_MAX;
}

/* ---- boxes ---- */

/* magic, id and row_key wrapped by the present master key. */
static enum cs_err put_head(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            uint8_t *box)
{
    uint8_t mem[AAD_MAX];
    const struct master *m = &v->master[0];
    if (!m->set) {
        return CS_ERR_UNAVAILABLE;
    }
    memcpy(box, magic, MAGIC);
    memcpy(box + MAGIC, m->id, CS_VAULT_KEY_ID);
    return cs_seal(m->key, aad_key(name, version, m->id, mem),
                   cs_slice(v->row_key, sizeof v->row_key), box + MAGIC + CS_VAULT_KEY_ID);
}

enum cs_err cs_vault_seal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                          struct cs_slice secret, uint8_t *box)
{
    uint8_t mem[AAD_MAX];
    if (!name_fits(name)) {
        return CS_ERR_INVALID;
    }
    if (secret.n > CS_SECRET_MAX) {
        return CS_ERR_TOO_LARGE;
    }
    cs_random(v->row_key, sizeof v->row_key);
    enum cs_err e = put_head(v, name, version, box);
    if (e == CS_OK) {
        e = cs_seal(v->row_key, aad_secret(name, version, mem), secret, box + HEAD);
    }
    cs_wipe(v->row_key, sizeof v->row_key);
    return e;
}

static bool is_new(struct cs_slice box)
{
    return box.n >= CS_VAULT_BOX_OVERHEAD && memcmp(box.p, magic, MAGIC) == 0;
}

/* The first form: under a master key itself, which one is not said. */
static enum cs_err unseal_1(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice box, size_t *ret_n)
{
    uint8_t mem[AAD_MAX];
    enum cs_err e = CS_ERR_UNAVAILABLE;
    if (box.n < CS_SEAL_OVERHEAD || box.n - CS_SEAL_OVERHEAD > sizeof v->room) {
        return CS_ERR_CORRUPT;
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(v->master) && e != CS_OK; i++) {
        if (v->master[i].set) {
            e = cs_unseal(v->master[i].key, aad_1(name, version, mem), box, v->room);
        }
    }
    *ret_n = e == CS_OK ? box.n - CS_SEAL_OVERHEAD : 0;
    return e;
}

/* Leaves the box's own key in row_key. */
static enum cs_err unseal_2(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice box, size_t *ret_n)
{
    uint8_t mem[AAD_MAX];
    const uint8_t *id = box.p + MAGIC;
    struct cs_slice wrapped = cs_slice(id + CS_VAULT_KEY_ID, WRAPPED);
    struct cs_slice sealed = cs_slice_from(box, HEAD);
    const struct master *m = NULL;
    for (size_t i = 0; i < CS_ARRAY_LEN(v->master); i++) {
        if (v->master[i].set && memcmp(v->master[i].id, id, CS_VAULT_KEY_ID) == 0) {
            m = &v->master[i];
        }
    }
    if (m == NULL) {
        return CS_ERR_NOT_FOUND;
    }
    if (sealed.n - CS_SEAL_OVERHEAD > sizeof v->room) {
        return CS_ERR_CORRUPT;
    }
    enum cs_err e = cs_unseal(m->key, aad_key(name, version, id, mem), wrapped, v->row_key);
    if (e == CS_OK) {
        e = cs_unseal(v->row_key, aad_secret(name, version, mem), sealed, v->room);
    }
    *ret_n = e == CS_OK ? sealed.n - CS_SEAL_OVERHEAD : 0;
    return e;
}

static enum cs_err unseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                          struct cs_slice box, size_t *ret_n)
{
    *ret_n = 0;
    if (!name_fits(name)) {
        return CS_ERR_INVALID;
    }
    return is_new(box) ? unseal_2(v, name, version, box, ret_n)
                       : unseal_1(v, name, version, box, ret_n);
}

enum cs_err cs_vault_unseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice box, struct cs_secret *ret)
{
    size_t n;
    cs_vault_forget(v);
    enum cs_err e = unseal(v, name, version, box, &n);
    cs_wipe(v->row_key, sizeof v->row_key);
    if (e == CS_OK) {
        *ret = (struct cs_secret){v->room, n};
    }
    return e;
}

void cs_vault_forget(struct cs_vault *v)
{
    cs_wipe(v->room, sizeof v->room);
}

enum cs_err cs_vault_rewrap(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice box, uint8_t *out, size_t *ret_n)
{
    size_t n;
    *ret_n = 0;
    enum cs_err e = unseal(v, name, version, box, &n);
    if (e == CS_OK && !is_new(box)) {
        e = cs_vault_seal(v, name, version, cs_slice(v->room, n), out);
        *ret_n = e == CS_OK ? cs_vault_box_size(n) : 0;
    } else if (e == CS_OK && memcmp(box.p + MAGIC, v->master[0].id, CS_VAULT_KEY_ID) != 0) {
        e = put_head(v, name, version, out);
        memcpy(out + HEAD, box.p + HEAD, box.n - HEAD);
        *ret_n = e == CS_OK ? box.n : 0;
    }
    cs_wipe(v->row_key, sizeof v->row_key);
    cs_vault_forget(v);
    return e;
}

/* ---- secrets as commands seal them ---- */
struct cs_slice cs_vault_put_aad(struct cs_slice name, uint8_t *mem, size_t cap)
{
    struct cs_writer w = cs_writer(mem, cap);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/secret-put/1"));
    cs_writer_bytes(&w, name);
    return cs_writer_done(&w);
}

enum cs_err cs_vault_put_public(const struct cs_vault *v, uint8_t ret[static CS_X25519])
{
    return v->master[0].set ? cs_x25519_public(v->put_key, ret) : CS_ERR_UNAVAILABLE;
}

enum cs_err cs_vault_reseal(struct cs_vault *v, struct cs_slice name, uint64_t version,
                            struct cs_slice sealed, uint8_t *box, size_t *ret_n)
{
    uint8_t mem[PUT_AAD_MAX];
    if (!v->master[0].set) {
        return CS_ERR_UNAVAILABLE;
    }
    if (!name_fits(name) || sealed.n <= CS_SEAL_TO_OVERHEAD ||
        sealed.n - CS_SEAL_TO_OVERHEAD > sizeof v->room) {
        return CS_ERR_INVALID;
    }
    size_t n = sealed.n - CS_SEAL_TO_OVERHEAD;
    struct cs_slice aad = cs_vault_put_aad(name, mem, sizeof mem);
    enum cs_err e = cs_unseal_to(v->put_key, aad, sealed, v->room);
    if (e == CS_OK) {
        e = cs_vault_seal(v, name, version, cs_slice(v->room, n), box);
    }
    cs_vault_forget(v);
    *ret_n = e == CS_OK ? cs_vault_box_size(n) : 0;
    return e;
}
