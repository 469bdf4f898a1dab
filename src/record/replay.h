/* One session's recording, decrypted, as JSON for people and the API:
 *   {"session": ID, "frames": [{"t": RFC 3339, "kind": "action", …fields of action/frames.def…}],
 *    "began": RFC 3339, "finished": true or false}
 * and, where it applies, "truncated": true (more than the cap), "damaged": a sentence (from there
 * on it could not be read), "unreadable": N (events whose key was not given) and "foreign": N
 * (events that another gate wrote about this session, left out).
 *
 * Numbers stand as numbers, ids and digests as hex, policy versions as 16 hex digits, bytes as a
 * string where they are UTF-8, else {"base64": …}; a chain is an array of {kind, id, name, groups}.
 * Data of PostgreSQL sessions is shown as rows (rows.h), with its size in "bytes". */
#ifndef CS_RECORD_REPLAY_H
#define CS_RECORD_REPLAY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "crypto/wrapped.h"

struct cs_replay;

/* The recording as it stands on disk now; it may grow meanwhile, what is not complete yet is left
 * out. NOT_FOUND when there is none. CORRUPT when it is no recording, or its end was changed. */
enum cs_err cs_replay_open(const char *directory, const struct cs_id *session,
                           struct cs_replay **ret) CS_MUST_CHECK;
void cs_replay_close(struct cs_replay *r); /* wipes its keys */
/* Its wrapped keys, CS_WRAPPED_ROW bytes each, at most CS_WRAPPED_MAX of them. */
struct cs_slice cs_replay_rows(const struct cs_replay *r);
/* Opened rows for `private`, or the wrapped ones opened with a holder's own key. Rows that do not
 * open are left out. How many keys are known now. */
size_t cs_replay_keys(struct cs_replay *r, const uint8_t private[static CS_X25519],
                      struct cs_slice opened);
size_t cs_replay_own_key(struct cs_replay *r, const uint8_t private[static CS_X25519]);

struct cs_replay_query {
    uint64_t from_ms;     /* since the recording began */
    struct cs_slice find; /* only events that hold these bytes, upper or lower case */
    bool actions;         /* only what was asked, decided and answered */
    size_t cap;           /* at most so many bytes, and the closing ones */
};
/* The caller gives `out` a ceiling above the cap and frees it. */
enum cs_err cs_replay_json(struct cs_replay *r, const struct cs_replay_query *q,
                           struct cs_buf *out) CS_MUST_CHECK;

struct cs_json;
/* One event's bytes (action/frame.h) as an object. False when they are none of any known kind;
 * nothing is written then. */
bool cs_replay_frame(struct cs_json *j, struct cs_slice frame);

#endif
