/* A stretch of the audit log as JSON for people and the API:
 *   {"size": N, "from": N, "next": N or null, "passed_over": N, "leaves": [{"leaf": N, "t": RFC
 * 3339, "kind": "vote", …keys of audit/leaf_keys.def…}]} where size is what the newest checkpoint
 * signs, next where to go on, and passed_over how many leaves were looked at that are not what was
 * asked for. Numbers stand as numbers, ids and hashes as hex, text as strings; a private value as
 * the string that it is (a chain as in "agent bot on behalf of person alice"), or, when it was not
 * opened, {"sealed": its hash}. A leaf that is malformed stands there with "kind": null. Nothing is
 * verified here: that is verify's.
 */
#ifndef CS_RECORD_LOG_READ_H
#define CS_RECORD_LOG_READ_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "crypto/crypto.h"

struct cs_log_page;

/* Which leaves are wanted; all of it must fit. */
struct cs_log_filter {
    uint64_t since_ms, until_ms; /* until_ms 0: no end */
    unsigned kind;               /* enum cs_leaf_kind; 0: each */
    bool has_session;
    struct cs_id session;
    char who[64]; /* in a private value that was opened; "": each */
};
enum { CS_LOG_FILTER_TEXT = 128 };
/* "since=MS until=MS kind=NAME session=HEX who=TEXT", each where it is wanted, in this order.
 * False: it is none. An empty text wants everything. */
bool cs_log_filter_read(struct cs_slice text, struct cs_log_filter *ret) CS_MUST_CHECK;

/* At most `count` signed leaves from number `from` on that fit, fewer when their boxes are many or
 * many leaves were passed over; from UINT64_MAX: of the last `count` ones. What does not fit is not
 * asked to be opened, but for `who`, which stands in what is opened. NOT_FOUND: there is no log, or
 * nothing in it is signed yet. */
enum cs_err cs_log_page_open(const char *directory, uint64_t from, uint64_t count,
                             const struct cs_log_filter *filter,
                             struct cs_log_page **ret) CS_MUST_CHECK;
void cs_log_page_close(struct cs_log_page *p); /* wipes what was opened */
/* The boxes of its private values (audit/boxes.h), and those of them that came back. */
struct cs_slice cs_log_page_rows(const struct cs_log_page *p);
void cs_log_page_opened(struct cs_log_page *p, const uint8_t private[static CS_X25519],
                        struct cs_slice rows);
/* Opened with a holder's own key instead. */
void cs_log_page_own_key(struct cs_log_page *p, const uint8_t private[static CS_X25519]);
void cs_log_page_json(const struct cs_log_page *p, struct cs_buf *out);

#endif
