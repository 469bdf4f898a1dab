/* The audit log's key in keeper (log_key.h). It must never sign a log that is shorter than the one
 * signed last, or that does not go on from it, nor give the private half away. */
#include "vault/log_key.h"

#include "base/id.h"
#include "base/reader.h"
#include "base/writer.h"

#include <stdio.h>

#define ROW CS_SLICE_LIT("log/key") /* no secret may have a slash in its name */

/* The log's name is made of its key, so that no two logs ever have one name. */
static enum cs_err name_key(const uint8_t private[static CS_ED25519_KEY], struct cs_audit_key *ret)
{
    uint8_t public[CS_ED25519_KEY], hash[CS_SHA256];
    char hex[17], name[40];
    enum cs_err e = cs_ed25519_public(private, public);
    if (e != CS_OK) {
        return e;
    }
    cs_sha256(cs_slice(public, sizeof public), hash);
    cs_hex(cs_slice(hash, 8), hex);
    (void)snprintf(name, sizeof name, "countersign/%s", hex);
    return cs_audit_key_make(cs_slice_str(name), public, ret);
}

static enum cs_err seal(struct cs_vault *v, uint64_t version,
                        const uint8_t private[static CS_ED25519_KEY], uint64_t size,
                        const struct cs_audit_hash *root, uint8_t box[static CS_LOG_KEY_BOX])
{
    uint8_t plain[CS_LOG_KEY_PLAIN];
    struct cs_writer w = cs_writer(plain, sizeof plain);
    cs_writer_bytes(&w, cs_slice(private, CS_ED25519_KEY));
    cs_writer_u64le(&w, size);
    cs_writer_bytes(&w, cs_slice(root->b, sizeof root->b));
    enum cs_err e = cs_vault_seal(v, ROW, version, cs_slice(plain, sizeof plain), box);
    cs_wipe(plain, sizeof plain);
    return e;
}

enum cs_err cs_log_key_make(struct cs_vault *v, uint64_t version,
                            uint8_t ret_box[static CS_LOG_KEY_BOX], struct cs_audit_key *ret_key)
{
    uint8_t private[CS_ED25519_KEY];
    struct cs_audit_tree none = {.size = 0};
    struct cs_audit_hash root;
    cs_audit_tree_root(&none, &root);
    cs_random(private, sizeof private);
    enum cs_err e = name_key(private, ret_key);
    e = e == CS_OK ? seal(v, version, private, 0, &root, ret_box) : e;
    cs_wipe(private, sizeof private);
    return e;
}

/* SECURITY: the newest of what the box says and what this process has signed itself. */
static void newest(const struct cs_log_signed *last, struct cs_log_signed *was)
{
    if (last->known && memcmp(last->public, was->public, sizeof was->public) == 0 &&
        last->size > was->size) {
        *was = *last;
    }
}

static bool goes_on(const struct cs_log_signed *was, const struct cs_log_ask *ask,
                    const struct cs_audit_hash *root)
{
    struct cs_audit_path path = {.n = ask->proof.n / CS_AUDIT_HASH};
    if (ask->size < was->size || ask->size >= CS_AUDIT_SIZE_MAX || ask->old != was->size ||
        ask->proof.n % CS_AUDIT_HASH != 0 || path.n > CS_AUDIT_PROOF_MAX) {
        return false;
    }
    if (ask->size == was->size) { /* the answer was lost: the same signature again */
        return cs_audit_hash_eq(root, &was->root);
    }
    if (was->size == 0) {
        return path.n == 0; /* every log goes on from none */
    }
    memcpy(path.hash, ask->proof.p, ask->proof.n);
    return cs_audit_check_consistency(was->size, ask->size, &was->root, root, &path);
}

static enum cs_err sign(const uint8_t private[static CS_ED25519_KEY],
                        const struct cs_audit_key *key, uint64_t size,
                        const struct cs_audit_hash *root, struct cs_buf *note)
{
    struct cs_buf text = cs_buf(CS_AUDIT_CHECKPOINT_MAX);
    const struct cs_audit_checkpoint c = {cs_slice_str(key->name), size, *root};
    cs_audit_checkpoint_write(&c, &text);
    enum cs_err e =
        text.bad ? CS_ERR_NO_MEMORY : cs_audit_note_sign(cs_buf_slice(&text), key, private, note);
    cs_buf_done(&text);
    return e;
}

static enum cs_err sign_with(struct cs_vault *v, struct cs_log_signed *last,
                             const struct cs_log_ask *ask, const uint8_t *plain, uint64_t *ret_size,
                             struct cs_audit_key *ret_key, struct cs_buf *note, uint8_t *box)
{
    struct cs_reader r = cs_reader(cs_slice(plain, CS_LOG_KEY_PLAIN));
    struct cs_log_signed was = {.known = true};
    struct cs_audit_hash root;
    (void)cs_reader_take(&r, CS_ED25519_KEY);
    was.size = cs_reader_u64le(&r);
    memcpy(was.root.b, cs_reader_take(&r, CS_AUDIT_HASH).p, CS_AUDIT_HASH);
    enum cs_err e = name_key(plain, ret_key);
    if (e != CS_OK) {
        return e;
    }
    memcpy(was.public, ret_key->public, sizeof was.public);
    newest(last, &was);
    *ret_size = was.size;
    memcpy(root.b, ask->root.p, sizeof root.b);
    if (!goes_on(&was, ask, &root)) {
        return CS_ERR_CONFLICT;
    }
    e = seal(v, ask->version + 1, plain, ask->size, &root, box);
    e = e == CS_OK ? sign(plain, ret_key, ask->size, &root, note) : e;
    if (e == CS_OK) {
        was.size = *ret_size = ask->size;
        was.root = root;
        *last = was;
    }
    return e;
}

enum cs_err cs_log_sign(struct cs_vault *v, struct cs_log_signed *last,
                        const struct cs_log_ask *ask, uint64_t *ret_size,
                        struct cs_audit_key *ret_key, struct cs_buf *note,
                        uint8_t box[static CS_LOG_KEY_BOX])
{
    struct cs_secret secret;
    uint8_t plain[CS_LOG_KEY_PLAIN];
    *ret_size = 0;
    if (ask->root.n != CS_AUDIT_HASH || ask->version == 0 || ask->version == UINT64_MAX) {
        return CS_ERR_INVALID;
    }
    enum cs_err e = cs_vault_unseal(v, ROW, ask->version, ask->box, &secret);
    if (e == CS_OK && cs_secret_reveal(&secret).n != sizeof plain) {
        e = CS_ERR_CORRUPT;
    }
    if (e == CS_OK) {
        memcpy(plain, cs_secret_reveal(&secret).p, sizeof plain);
    }
    cs_vault_forget(v);
    if (e == CS_OK) {
        e = sign_with(v, last, ask, plain, ret_size, ret_key, note, box);
    }
    cs_wipe(plain, sizeof plain);
    return e;
}
