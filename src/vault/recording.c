/* Keys of recordings in keeper (vault/recording.h): made, sealed and used here, in locked memory.
 * It must never give a private half away, nor a recording's key to anybody but the reader that was
 * named, nor for another session than it belongs to. */
#include "vault/recording.h"

#include "base/id.h"

enum { VERSION = 1 };

enum cs_err cs_recording_key_make(struct cs_vault *v, struct cs_slice name,
                                  uint8_t ret_box[static CS_RECORDING_BOX_MAX], size_t *ret_n)
{
    uint8_t private[CS_X25519];
    if (!cs_wrapped_is_key_name(name) || cs_vault_box_size(CS_X25519) > CS_RECORDING_BOX_MAX) {
        return CS_ERR_INVALID;
    }
    cs_random(private, sizeof private);
    enum cs_err e = cs_vault_seal(v, name, VERSION, cs_slice(private, sizeof private), ret_box);
    cs_wipe(private, sizeof private);
    *ret_n = cs_vault_box_size(CS_X25519);
    return e;
}

/* Borrowed until cs_vault_forget. */
static enum cs_err open_box(struct cs_vault *v, struct cs_slice name, struct cs_slice box,
                            const uint8_t **ret)
{
    struct cs_secret secret;
    if (!cs_wrapped_is_key_name(name)) {
        return CS_ERR_INVALID; /* no other secret is a key */
    }
    enum cs_err e = cs_vault_unseal(v, name, VERSION, box, &secret);
    if (e == CS_OK && cs_secret_reveal(&secret).n != CS_X25519) {
        e = CS_ERR_CORRUPT;
    }
    if (e == CS_OK) {
        *ret = cs_secret_reveal(&secret).p;
    }
    return e;
}

enum cs_err cs_recording_key_public(struct cs_vault *v, struct cs_slice name, struct cs_slice box,
                                    uint8_t ret[static CS_X25519])
{
    const uint8_t *private = NULL;
    enum cs_err e = open_box(v, name, box, &private);
    if (e == CS_OK) {
        e = cs_x25519_public(private, ret);
    }
    cs_vault_forget(v);
    return e;
}

static bool rewrap_row(const uint8_t *private, const struct cs_id *session,
                       const uint8_t reader[static CS_X25519], struct cs_wrapped *row)
{
    uint8_t mem[CS_WRAPPED_AAD], key[CS_WRAPPED_KEY];
    bool ok = cs_unseal_to(private, cs_wrapped_aad(false, session, row->epoch, mem),
                           cs_slice(row->box, sizeof row->box), key) == CS_OK &&
              cs_seal_to(reader, cs_wrapped_aad(true, session, row->epoch, mem),
                         cs_slice(key, sizeof key), row->box) == CS_OK;
    cs_wipe(key, sizeof key);
    return ok;
}

enum cs_err cs_recording_rewrap(struct cs_vault *v, const struct cs_id *session,
                                struct cs_slice reader, struct cs_slice name, struct cs_slice box,
                                struct cs_slice rows, uint8_t *out, size_t cap, size_t *ret_n)
{
    const uint8_t *private = NULL;
    struct cs_wrapped row;
    size_t n = 0;
    if (reader.n != CS_X25519 || cs_id_is_zero(session) ||
        rows.n > (size_t)CS_WRAPPED_ROW * CS_WRAPPED_MAX) {
        return CS_ERR_INVALID;
    }
    enum cs_err e = open_box(v, name, box, &private);
    while (e == CS_OK && cs_wrapped_next(&rows, &row)) {
        if (!cs_slice_eq_str(name, row.name) || cap - n < CS_OPENED_ROW) {
            e = CS_ERR_INVALID;
        } else if (rewrap_row(private, session, reader.p, &row)) {
            cs_opened_write(&row, out + n);
            n += CS_OPENED_ROW;
        }
    }
    cs_vault_forget(v);
    *ret_n = n;
    return e == CS_OK && rows.n > 0 ? CS_ERR_INVALID : e;
}

enum cs_err cs_recording_log_open(struct cs_vault *v, struct cs_slice reader, struct cs_slice name,
                                  struct cs_slice box, struct cs_slice rows, struct cs_buf *out)
{
    const uint8_t *private = NULL;
    struct cs_box_row row;
    if (reader.n != CS_X25519 || rows.n > CS_BOXES_MAX) {
        return CS_ERR_INVALID;
    }
    enum cs_err e = open_box(v, name, box, &private);
    while (e == CS_OK && cs_box_row_next(&rows, &row)) {
        e = cs_box_row_pass(private, &row, reader.p, out);
        e = e == CS_ERR_NOT_FOUND || e == CS_ERR_CORRUPT ? CS_OK : e;
    }
    cs_vault_forget(v);
    return e == CS_OK && rows.n > 0 ? CS_ERR_INVALID : e;
}
