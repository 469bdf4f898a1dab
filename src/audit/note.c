/* Signed notes and checkpoints, read strictly. Called by who signs, and by every check of the log.
 * It must never give out a text whose signature it has not verified, nor read two spellings as one.
 */
#include "audit/note.h"

#include "base/assert.h"

#include <inttypes.h>

enum { ED25519_NOTE = 1, SIGNATURE_BYTES = 4 + CS_ED25519_SIGNATURE };
#define DASH "\xe2\x80\x94 "

bool cs_audit_line(struct cs_slice *text, struct cs_slice *ret)
{
    size_t n = cs_slice_find(*text, '\n');
    if (n == text->n) {
        return false;
    }
    *ret = cs_slice_head(*text, n);
    *text = cs_slice_from(*text, n + 1);
    return true;
}

bool cs_audit_number(struct cs_slice text, uint64_t *ret)
{
    uint64_t v;
    if ((text.n > 1 && text.p[0] == '0') || !cs_slice_to_u64(text, &v) || v >= CS_AUDIT_SIZE_MAX) {
        return false;
    }
    *ret = v;
    return true;
}

bool cs_audit_hash_read(struct cs_slice text, struct cs_audit_hash *ret)
{
    size_t n;
    struct cs_audit_hash h;
    if (!cs_base64_decode(text, false, h.b, sizeof h.b, &n) || n != sizeof h.b) {
        return false;
    }
    *ret = h;
    return true;
}

void cs_audit_base64(struct cs_slice in, struct cs_buf *out)
{
    size_t n = cs_base64_size(in.n);
    uint8_t *room = cs_buf_room(out, n);
    if (room != NULL) {
        out->len += cs_base64_encode(in, false, (char *)room);
    }
}

/* ---- keys ---- */

/* Unicode's spaces outside ASCII, which would make two names look like one or a line like two. */
static bool space(uint32_t c)
{
    return c <= 0x20 || c == 0x7f || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static bool name_good(struct cs_slice name)
{
    size_t at = 0;
    uint32_t c;
    if (name.n == 0 || name.n > CS_AUDIT_NAME_MAX) {
        return false;
    }
    while (at < name.n) {
        if (!cs_utf8_next(name, &at, &c) || space(c) || c == '+') {
            return false;
        }
    }
    return true;
}

enum cs_err cs_audit_key_make(struct cs_slice name, const uint8_t public[static CS_ED25519_KEY],
                              struct cs_audit_key *ret)
{
    uint8_t type = ED25519_NOTE, hash[CS_SHA256];
    if (!name_good(name)) {
        return CS_ERR_INVALID;
    }
    const struct cs_slice pieces[] = {name, CS_SLICE_LIT("\n"), cs_slice(&type, 1),
                                      cs_slice(public, CS_ED25519_KEY)};
    cs_sha256_pieces(pieces, CS_ARRAY_LEN(pieces), hash);
    *ret = (struct cs_audit_key){0};
    memcpy(ret->name, name.p, name.n);
    memcpy(ret->id, hash, sizeof ret->id);
    memcpy(ret->public, public, sizeof ret->public);
    return CS_OK;
}

static void write_id(const struct cs_audit_key *key, struct cs_buf *out)
{
    cs_buf_printf(out, "%02x%02x%02x%02x", key->id[0], key->id[1], key->id[2], key->id[3]);
}

void cs_audit_key_write(const struct cs_audit_key *key, struct cs_buf *out)
{
    uint8_t material[1 + CS_ED25519_KEY] = {ED25519_NOTE};
    memcpy(material + 1, key->public, CS_ED25519_KEY);
    cs_buf_printf(out, "%s+", key->name);
    write_id(key, out);
    cs_buf_str(out, "+");
    cs_audit_base64(cs_slice(material, sizeof material), out);
}

enum cs_err cs_audit_key_read(struct cs_slice text, struct cs_audit_key *ret)
{
    uint8_t material[1 + CS_ED25519_KEY];
    size_t n;
    struct cs_audit_key key;
    struct cs_slice name = cs_slice_head(text, cs_slice_find(text, '+'));
    struct cs_slice rest = cs_slice_from(text, name.n + 1);
    struct cs_slice id = cs_slice_head(rest, 8);
    if (rest.n < 9 || rest.p[8] != '+' ||
        !cs_base64_decode(cs_slice_from(rest, 9), false, material, sizeof material, &n) ||
        n != sizeof material || material[0] != ED25519_NOTE ||
        cs_audit_key_make(name, material + 1, &key) != CS_OK) {
        return CS_ERR_INVALID;
    }
    struct cs_buf want = cs_buf(16);
    write_id(&key, &want);
    bool same = !want.bad && cs_slice_eq(cs_buf_slice(&want), id);
    cs_buf_done(&want);
    if (!same) {
        return CS_ERR_INVALID;
    }
    *ret = key;
    return CS_OK;
}

/* ---- checkpoints ---- */

void cs_audit_checkpoint_write(const struct cs_audit_checkpoint *c, struct cs_buf *out)
{
    cs_buf_add(out, c->origin);
    cs_buf_printf(out, "\n%" PRIu64 "\n", c->size);
    cs_audit_base64(cs_slice(c->root.b, CS_AUDIT_HASH), out);
    cs_buf_str(out, "\n");
}

bool cs_audit_checkpoint_read(struct cs_slice text, struct cs_audit_checkpoint *ret)
{
    struct cs_slice origin, size, root;
    struct cs_audit_checkpoint c;
    if (!cs_audit_line(&text, &origin) || !cs_audit_line(&text, &size) ||
        !cs_audit_line(&text, &root) || text.n > 0 || !name_good(origin) ||
        !cs_audit_number(size, &c.size) || !cs_audit_hash_read(root, &c.root)) {
        return false;
    }
    c.origin = origin;
    *ret = c;
    return true;
}

/* ---- notes ---- */

enum cs_err cs_audit_note_sign(struct cs_slice text, const struct cs_audit_key *key,
                               const uint8_t private[static CS_ED25519_KEY], struct cs_buf *out)
{
    uint8_t signature[SIGNATURE_BYTES];
    if (text.n == 0 || text.p[text.n - 1] != '\n') {
        return CS_ERR_INVALID;
    }
    memcpy(signature, key->id, sizeof key->id);
    enum cs_err e = cs_ed25519_sign(private, text, signature + sizeof key->id);
    if (e != CS_OK) {
        return e;
    }
    cs_buf_add(out, text);
    cs_buf_printf(out, "\n" DASH "%s ", key->name);
    cs_audit_base64(cs_slice(signature, sizeof signature), out);
    cs_buf_str(out, "\n");
    return out->bad ? CS_ERR_INTERNAL : CS_OK;
}

/* The last blank line divides text from signatures. */
static bool divide(struct cs_slice note, struct cs_slice *ret_text, struct cs_slice *ret_signatures)
{
    if (note.n == 0 || note.n > CS_AUDIT_NOTE_MAX || !cs_utf8_valid(note)) {
        return false;
    }
    for (size_t i = 0; i < note.n; i++) {
        if (note.p[i] < 0x20 && note.p[i] != '\n') {
            return false;
        }
    }
    for (size_t i = note.n - 1; i > 0; i--) {
        if (note.p[i] == '\n' && note.p[i - 1] == '\n') {
            *ret_text = cs_slice_head(note, i);
            *ret_signatures = cs_slice_from(note, i + 1);
            return true;
        }
    }
    return false;
}

enum verdict { MALFORMED = 0, BAD, OTHER, GOOD };

static enum verdict judge(struct cs_slice line, struct cs_slice text,
                          const struct cs_audit_key *key)
{
    uint8_t signature[SIGNATURE_BYTES];
    size_t n;
    if (!cs_slice_starts(line, CS_SLICE_LIT(DASH))) {
        return MALFORMED;
    }
    line = cs_slice_from(line, sizeof DASH - 1);
    struct cs_slice name = cs_slice_head(line, cs_slice_find(line, ' '));
    struct cs_slice sig = cs_slice_from(line, name.n + 1);
    if (!name_good(name) || sig.n < 8) {
        return MALFORMED;
    }
    if (!cs_slice_eq_str(name, key->name)) {
        return OTHER;
    }
    bool ours = cs_base64_decode(sig, false, signature, sizeof signature, &n);
    if (ours && (n != sizeof signature || memcmp(signature, key->id, sizeof key->id) != 0)) {
        return OTHER; /* the same name with another key */
    }
    return ours && cs_ed25519_verify(key->public, text, cs_slice(signature + 4, n - 4)) ? GOOD
                                                                                        : BAD;
}

bool cs_audit_note_open(struct cs_slice note, const struct cs_audit_key *key,
                        struct cs_slice *ret_text)
{
    struct cs_slice text, signatures, line;
    unsigned good = 0, n = 0;
    if (!divide(note, &text, &signatures)) {
        return false;
    }
    while (signatures.n > 0) {
        if (!cs_audit_line(&signatures, &line) || ++n > CS_AUDIT_SIGNATURES_MAX) {
            return false;
        }
        enum verdict v = judge(line, text, key);
        if (v == MALFORMED || v == BAD) {
            return false;
        }
        good += v == GOOD;
    }
    if (good != 1) {
        return false;
    }
    *ret_text = text;
    return true;
}

bool cs_audit_checkpoint_open(struct cs_slice note, const struct cs_audit_key *key,
                              struct cs_audit_checkpoint *ret)
{
    struct cs_slice text;
    struct cs_audit_checkpoint c;
    /* SECURITY: a good signature over the checkpoint of another log proves nothing of this one. */
    if (!cs_audit_note_open(note, key, &text) || !cs_audit_checkpoint_read(text, &c) ||
        !cs_slice_eq_str(c.origin, key->name)) {
        return false;
    }
    *ret = c;
    return true;
}
