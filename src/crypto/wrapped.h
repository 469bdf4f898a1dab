/* Keys of recordings on their way: wrapped as a recording holds them, from the replayer by way of
 * supervisor and control to keeper; and back, sealed to a key that the replayer made for this once.
 * Nobody in between can read one. Rows of fixed size, so that passing them on needs no parsing. */
#ifndef CS_CRYPTO_WRAPPED_H
#define CS_CRYPTO_WRAPPED_H

#include "base/id.h"
#include "crypto/crypto.h"

enum {
    CS_WRAPPED_KEY = 32,
    CS_WRAPPED_BOX = CS_WRAPPED_KEY + CS_SEAL_TO_OVERHEAD,
    CS_WRAPPED_NAME = 32, /* of the key it is wrapped for, NUL-padded: "recording/2026-11" */
    CS_WRAPPED_ROW = 4 + CS_WRAPPED_NAME + CS_WRAPPED_BOX,
    CS_OPENED_ROW = 4 + CS_WRAPPED_BOX,
    CS_WRAPPED_MAX = 256, /* rows */
    CS_WRAPPED_AAD = 24 + CS_ID_BYTES + 4,
};
struct cs_wrapped { /* both sorts of row */
    uint32_t epoch;
    char name[CS_WRAPPED_NAME]; /* NUL-terminated; empty in an opened row */
    uint8_t box[CS_WRAPPED_BOX];
};
void cs_wrapped_write(const struct cs_wrapped *row, uint8_t out[static CS_WRAPPED_ROW]);
void cs_opened_write(const struct cs_wrapped *row, uint8_t out[static CS_OPENED_ROW]);
/* The next row off `rows`; false at the end, or when what is left is no row. */
bool cs_wrapped_next(struct cs_slice *rows, struct cs_wrapped *ret);
bool cs_opened_next(struct cs_slice *rows, struct cs_wrapped *ret);

/* What a box is bound to: the session and the epoch; `opened`: on its way to a replayer. */
struct cs_slice cs_wrapped_aad(bool opened, const struct cs_id *session, uint32_t epoch,
                               uint8_t mem[static CS_WRAPPED_AAD]);

/* "recording/2026-11" for a time in that month, UTC. */
char *cs_wrapped_key_name(uint64_t wall_ms, char out[static CS_WRAPPED_NAME]);
/* "recording/2026-11.2", nth 2 to 9: another one for that month, when the master key of the one
 * before is lost. `month` is what cs_wrapped_key_name made. */
char *cs_wrapped_key_other(const char *month, unsigned nth, char out[static CS_WRAPPED_NAME]);
/* True for such names and no other. */
bool cs_wrapped_is_key_name(struct cs_slice name);

#endif
