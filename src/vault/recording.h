/* Keeper's part in recordings: the private halves of the months' keys. Used by keeper.c alone. */
#ifndef CS_VAULT_RECORDING_H
#define CS_VAULT_RECORDING_H

#include "audit/boxes.h"
#include "crypto/wrapped.h"
#include "vault/vault.h"

enum { CS_RECORDING_BOX_MAX = 256 };

/* A new key of that name ("recording/2026-11"), sealed for the store. */
enum cs_err cs_recording_key_make(struct cs_vault *v, struct cs_slice name,
                                  uint8_t ret_box[static CS_RECORDING_BOX_MAX],
                                  size_t *ret_n) CS_MUST_CHECK;
/* The public half of a box that keeper made. */
enum cs_err cs_recording_key_public(struct cs_vault *v, struct cs_slice name, struct cs_slice box,
                                    uint8_t ret[static CS_X25519]) CS_MUST_CHECK;
/* One session's wrapped keys (crypto/wrapped.h), sealed to the reader's key: rows go to `out` (cap
 * bytes), those that do not open are left out. CORRUPT when the box does not open. */
enum cs_err cs_recording_rewrap(struct cs_vault *v, const struct cs_id *session,
                                struct cs_slice reader, struct cs_slice name, struct cs_slice box,
                                struct cs_slice rows, uint8_t *out, size_t cap,
                                size_t *ret_n) CS_MUST_CHECK;
/* Private values of the audit log that are sealed to that key, for the reader: rows are appended to
 * `out`, those of other keys and those that do not open are left out. */
enum cs_err cs_recording_log_open(struct cs_vault *v, struct cs_slice reader, struct cs_slice name,
                                  struct cs_slice box, struct cs_slice rows,
                                  struct cs_buf *out) CS_MUST_CHECK;

#endif
