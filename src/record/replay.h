/* One session's frames out of the journal, as JSON for people and the API:
 *   {"session": ID, "frames": [{"t": RFC 3339, "kind": "action", …fields of action/frames.def…}]}
 * and, where it applies, "truncated": true (more than the cap), "damaged": N (places in the journal
 * that could not be read) and "foreign": N (frames of another gate than the session's, left out).
 *
 * Numbers stand as numbers, ids and digests as hex, policy versions as 16 hex digits, bytes as a
 * string where they are UTF-8, else {"base64": …}; a chain is an array of {kind, id, name, groups}.
 */
#ifndef CS_RECORD_REPLAY_H
#define CS_RECORD_REPLAY_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"

/* Reads every segment of the directory, without a lock: the last one may grow meanwhile, what is
 * not complete yet is left out. At most `cap` bytes and the closing ones. NOT_FOUND when the
 * journal holds nothing of this session. The caller gives `out` a ceiling above cap and frees it.
 */
enum cs_err cs_replay_session(const char *directory, const struct cs_id *session, size_t cap,
                              struct cs_buf *out) CS_MUST_CHECK;

struct cs_json;
/* One frame's bytes (action/frame.h) as an object. False when they are none of any known kind;
 * nothing is written then. */
bool cs_replay_frame(struct cs_json *j, struct cs_slice frame);

#endif
