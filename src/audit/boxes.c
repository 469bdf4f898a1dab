/* Rows of boxes (boxes.h). Called by keeper, for whom they come from control, and by the job that
 * reads the log. It must never give out a plain value but to the key that was named, or believe a
 * length in a row. */
#include "audit/boxes.h"

#include "base/reader.h"
#include "base/secret.h"
#include "base/writer.h"

enum { ROW_HEAD = 4 + 1 + 1 + CS_LEAF_HOLDER_ID, PLAIN_MAX = CS_LEAF_SALT + CS_LEAF_PRIVATE_MAX };

void cs_box_row_write(struct cs_buf *out, const struct cs_box_row *row)
{
    size_t n = ROW_HEAD + 4 + row->box.n;
    uint8_t *p = row->holder.n == CS_LEAF_HOLDER_ID && row->box.n <= CS_LEAF_BOX_MAX
                     ? cs_buf_room(out, n)
                     : NULL;
    if (p == NULL) {
        out->bad = true;
        return;
    }
    struct cs_writer w = cs_writer(p, n);
    cs_writer_u32le(&w, row->tag);
    cs_writer_u8(&w, row->kind);
    cs_writer_u8(&w, row->key);
    cs_writer_bytes(&w, row->holder);
    cs_writer_slice(&w, row->box);
    out->len += cs_writer_done(&w).n;
}

bool cs_box_row_next(struct cs_slice *rows, struct cs_box_row *ret)
{
    struct cs_reader r = cs_reader(*rows);
    struct cs_box_row row = {.tag = cs_reader_u32le(&r)};
    row.kind = cs_reader_u8(&r);
    row.key = cs_reader_u8(&r);
    row.holder = cs_reader_take(&r, CS_LEAF_HOLDER_ID);
    row.box = cs_reader_slice(&r);
    if (r.bad || row.box.n < CS_LEAF_SALT + CS_SEAL_TO_OVERHEAD || row.box.n > CS_LEAF_BOX_MAX) {
        return false;
    }
    *rows = cs_slice_from(*rows, ROW_HEAD + 4 + row.box.n);
    *ret = row;
    return true;
}

/* On the way to the reader a value is bound to its place in the question, too. */
static struct cs_slice reader_aad(const struct cs_box_row *row, uint8_t out[static CS_LEAF_AAD])
{
    struct cs_writer w = cs_writer(out, CS_LEAF_AAD);
    cs_writer_bytes(&w, CS_SLICE_LIT("countersign/log/read/1"));
    cs_writer_u8(&w, row->kind);
    cs_writer_u8(&w, row->key);
    cs_writer_u32le(&w, row->tag);
    return cs_writer_done(&w);
}

enum cs_err cs_box_row_pass(const uint8_t private[static CS_X25519], const struct cs_box_row *row,
                            const uint8_t reader[static CS_X25519], struct cs_buf *out)
{
    uint8_t mem[CS_LEAF_AAD], public[CS_X25519], holder[CS_SHA256];
    enum cs_err e = cs_x25519_public(private, public);
    cs_sha256(cs_slice(public, sizeof public), holder);
    if (e != CS_OK || !cs_slice_eq(row->holder, cs_slice(holder, CS_LEAF_HOLDER_ID))) {
        return e != CS_OK ? e : CS_ERR_NOT_FOUND;
    }
    struct cs_buf plain = cs_buf(PLAIN_MAX), sealed = cs_buf(CS_LEAF_BOX_MAX);
    size_t n = row->box.n - CS_SEAL_TO_OVERHEAD;
    uint8_t *p = cs_buf_room(&plain, n), *to = cs_buf_room(&sealed, row->box.n);
    e = p == NULL || to == NULL ? CS_ERR_NO_MEMORY : CS_OK;
    if (e == CS_OK) {
        struct cs_slice aad =
            cs_leaf_private_aad((enum cs_leaf_kind)row->kind, (enum cs_leaf_key)row->key, mem);
        e = cs_unseal_to(private, aad, row->box, p) == CS_OK ? CS_OK : CS_ERR_CORRUPT;
        e = e == CS_OK ? cs_seal_to(reader, reader_aad(row, mem), cs_slice(p, n), to) : e;
        cs_wipe(p, n);
    }
    if (e == CS_OK) {
        struct cs_box_row passed = *row;
        passed.box = cs_slice(to, row->box.n);
        cs_box_row_write(out, &passed);
        e = out->bad ? CS_ERR_NO_MEMORY : CS_OK;
    }
    cs_buf_done(&plain);
    cs_buf_done(&sealed);
    return e;
}

enum cs_err cs_box_row_open(const uint8_t private[static CS_X25519], const struct cs_box_row *row,
                            struct cs_slice hash, struct cs_buf *out)
{
    uint8_t mem[CS_LEAF_AAD], is[CS_SHA256];
    struct cs_buf plain = cs_buf(PLAIN_MAX);
    size_t n = row->box.n - CS_SEAL_TO_OVERHEAD;
    uint8_t *p = cs_buf_room(&plain, n);
    enum cs_err e = p == NULL ? CS_ERR_NO_MEMORY
                    : cs_unseal_to(private, reader_aad(row, mem), row->box, p) == CS_OK
                        ? CS_OK
                        : CS_ERR_CORRUPT;
    if (e == CS_OK) {
        struct cs_slice value = cs_slice(p + CS_LEAF_SALT, n - CS_LEAF_SALT);
        cs_hmac_sha256(cs_slice(p, CS_LEAF_SALT), value, is);
        /* SECURITY: nobody on the way can have another story told than the log has a hash of. */
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
