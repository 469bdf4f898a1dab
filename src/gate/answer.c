/* What a target answers, and what a client sends for an action, on its way into the record: all of
 * it, its first bytes and a hash of the others, or none, as the rules say. Called by protocol
 * folders for each piece, before the piece is sent on.
 *
 * It must never let a piece go by unrecorded: what cannot be recorded is the caller's reason to end
 * the session. */
#include "action/frame.h"
#include "base/limits.h"
#include "gate/gate.h"
#include "gate/protocol.h"

void cs_answer_done(struct cs_answer *a)
{
    uint8_t unused[CS_SHA256];
    for (size_t i = 0; i < CS_ARRAY_LEN(a->hash); i++) {
        if (a->hash[i].ctx != NULL) {
            cs_hasher_finish(&a->hash[i], unused);
            a->hash[i].ctx = NULL;
        }
    }
}

void cs_answer_of(struct cs_answer *a, uint64_t n, uint8_t record)
{
    if (a->n == n) {
        return;
    }
    cs_answer_done(a);
    *a = (struct cs_answer){.n = n, .record = record};
    a->room = record == CS_RECORD_FULL   ? UINT64_MAX
              : record == CS_RECORD_NONE ? 0
                                         : CS_LIMIT_RECORD_HEAD_BYTES;
}

static enum cs_err add_data(struct cs_session *s, struct cs_answer *a, bool from_client,
                            struct cs_slice bytes)
{
    const size_t most = CS_LIMIT_RECORD_DATA_BYTES;
    enum cs_err e = CS_OK;
    while (bytes.n > 0 && e == CS_OK) {
        struct cs_frame_data f = {.n = a->n,
                                  .from = from_client ? 1 : 0,
                                  .at = a->at[from_client],
                                  .data = cs_slice_head(bytes, most)};
        e = cs_gate_append(s, CS_FRAME_DATA, &f, false);
        a->at[from_client] += f.data.n;
        bytes = cs_slice_from(bytes, f.data.n);
        (void)cs_co_breathe(); /* safe where appending is, which may wait */
    }
    return e;
}

/* Others run between the pieces: the bytes lie in the session's own buffer, and are sent on behind
 * this. */
static void add_hash(struct cs_hasher *h, struct cs_slice bytes)
{
    while (bytes.n > 0) {
        struct cs_slice piece = cs_slice_head(bytes, CS_LIMIT_PIECE_BYTES);
        cs_hasher_add(h, piece);
        bytes = cs_slice_from(bytes, piece.n);
        (void)cs_co_breathe();
    }
}

enum cs_err cs_answer_add(struct cs_session *s, struct cs_answer *a, bool from_client,
                          struct cs_slice bytes)
{
    struct cs_slice kept = cs_slice_head(bytes, (size_t)CS_MIN(a->room, (uint64_t)bytes.n));
    struct cs_slice rest = cs_slice_from(bytes, kept.n);
    enum cs_err e = add_data(s, a, from_client, kept);
    if (a->record != CS_RECORD_FULL) {
        a->room -= kept.n;
    }
    if (rest.n == 0 || e != CS_OK) {
        return e;
    }
    if (a->record == CS_RECORD_HEAD) {
        struct cs_hasher *h = &a->hash[from_client];
        if (h->ctx == NULL) {
            cs_hasher_start(h);
        }
        add_hash(h, rest);
    }
    a->rest[from_client] += rest.n;
    return CS_OK;
}

bool cs_answer_small(const struct cs_answer *a, struct cs_slice bytes)
{
    return bytes.n > 0 && bytes.n <= CS_MIN(a->room, (uint64_t)CS_LIMIT_RECORD_DATA_BYTES) &&
           a->at[0] + a->at[1] + a->rest[0] + a->rest[1] == 0;
}

enum cs_err cs_answer_end(struct cs_session *s, struct cs_answer *a)
{
    enum cs_err e = CS_OK;
    for (size_t i = 0; i < CS_ARRAY_LEN(a->rest) && e == CS_OK; i++) {
        uint8_t hash[CS_SHA256];
        struct cs_frame_rest f = {.n = a->n, .from = i, .at = a->at[i], .bytes = a->rest[i]};
        if (a->rest[i] == 0 || (i == 0 && a->record == CS_RECORD_NONE)) {
            continue; /* a result tells of what came from the target by itself */
        }
        if (a->hash[i].ctx != NULL) {
            cs_hasher_finish(&a->hash[i], hash);
            a->hash[i].ctx = NULL;
            f.hash = cs_slice(hash, sizeof hash);
        }
        a->at[i] += a->rest[i];
        a->rest[i] = 0;
        e = cs_gate_append(s, CS_FRAME_REST, &f, false);
    }
    return e;
}
