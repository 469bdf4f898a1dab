/* Writes, reads and checks offline proofs. Called by export and verify. It must never call a proof
 * good whose leaf is not the one that was hashed. */
#include "audit/proof.h"

#include "base/alloc.h"

#include <inttypes.h>

#define MAGIC "c2sp.org/tlog-proof@v1"

void cs_audit_proof_done(struct cs_audit_proof *p)
{
    cs_buf_done(&p->leaf);
}

void cs_audit_proof_write(const struct cs_audit_proof *p, struct cs_buf *out)
{
    cs_buf_str(out, MAGIC "\nextra ");
    cs_audit_base64(cs_buf_slice(&p->leaf), out);
    cs_buf_printf(out, "\nindex %" PRIu64 "\n", p->index);
    for (size_t i = 0; i < p->path.n; i++) {
        cs_audit_base64(cs_slice(p->path.hash[i].b, CS_AUDIT_HASH), out);
        cs_buf_str(out, "\n");
    }
    cs_buf_str(out, "\n");
    cs_buf_add(out, p->checkpoint);
}

/* A line that begins with these words; what is behind them. */
static bool field(struct cs_slice *text, struct cs_slice words, struct cs_slice *ret)
{
    struct cs_slice line;
    if (!cs_audit_line(text, &line) || !cs_slice_starts(line, words)) {
        return false;
    }
    *ret = cs_slice_from(line, words.n);
    return true;
}

static bool read_path(struct cs_slice *text, struct cs_audit_path *ret)
{
    struct cs_slice line;
    for (ret->n = 0; cs_audit_line(text, &line); ret->n++) {
        if (line.n == 0) {
            return true;
        }
        if (ret->n == CS_AUDIT_PROOF_MAX || !cs_audit_hash_read(line, &ret->hash[ret->n])) {
            return false;
        }
    }
    return false;
}

enum cs_err cs_audit_proof_read(struct cs_slice text, struct cs_audit_proof *ret)
{
    struct cs_slice line, extra, index;
    if (text.n > CS_AUDIT_PROOF_FILE_MAX || !cs_audit_line(&text, &line) ||
        !cs_slice_eq_str(line, MAGIC) || !field(&text, CS_SLICE_LIT("extra "), &extra) ||
        !field(&text, CS_SLICE_LIT("index "), &index) || !cs_audit_number(index, &ret->index) ||
        !read_path(&text, &ret->path)) {
        return CS_ERR_INVALID;
    }
    ret->checkpoint = text;
    ret->leaf = cs_buf(CS_AUDIT_LEAF_MAX);
    size_t most = extra.n / 4 * 3, n = 0;
    uint8_t *p = most > CS_AUDIT_LEAF_MAX + 2 ? NULL : cs_alloc(most + 1);
    if (p == NULL) {
        return most > CS_AUDIT_LEAF_MAX + 2 ? CS_ERR_INVALID : CS_ERR_NO_MEMORY;
    }
    bool good = cs_base64_decode(extra, false, p, most, &n) && n <= CS_AUDIT_LEAF_MAX;
    if (good) {
        cs_buf_add(&ret->leaf, cs_slice(p, n));
    }
    cs_free(p);
    enum cs_err e = !good ? CS_ERR_INVALID : ret->leaf.bad ? CS_ERR_NO_MEMORY : CS_OK;
    if (e != CS_OK) {
        cs_audit_proof_done(ret);
    }
    return e;
}

enum cs_err cs_audit_proof_open(struct cs_slice text, const struct cs_audit_key *key,
                                struct cs_audit_proof *ret)
{
    struct cs_audit_checkpoint c;
    struct cs_audit_hash leaf;
    enum cs_err e = cs_audit_proof_read(text, ret);
    if (e != CS_OK) {
        return e;
    }
    cs_audit_leaf_hash(cs_buf_slice(&ret->leaf), &leaf);
    if (!cs_audit_checkpoint_open(ret->checkpoint, key, &c) ||
        !cs_audit_check_inclusion(ret->index, c.size, &leaf, &ret->path, &c.root)) {
        cs_audit_proof_done(ret);
        return CS_ERR_CORRUPT;
    }
    return CS_OK;
}
