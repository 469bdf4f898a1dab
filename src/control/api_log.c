/* Reading the audit log with its private values opened: GET /v1/log. A job reads the files, keeper
 * opens the values for that job alone (audit/boxes.h): here passes what cannot be read. It must
 * never have one opened before the log says, durably, who asked. */
#include "control/api.h"

#include "audit/leaf.h"
#include "base/log.h"

#include <stdio.h>

enum { LEAVES_USUAL = 50, LEAVES_MAX = 500 };
#define LEAF_MAX (UINT64_C(1) << 53)

enum cs_err cs_api_log(struct cs_api_call *call)
{
    uint64_t from = UINT64_MAX, limit = 0;
    char what[64];
    bool last = call->query[0].p == NULL;
    if ((!last && !cs_api_number(call, 0, 0, LEAF_MAX, &from)) ||
        !cs_api_number(call, 1, LEAVES_USUAL, LEAVES_MAX, &limit)) {
        return CS_ERR_INVALID;
    }
    if (limit == 0) {
        return cs_api_fail(call, CS_ERR_INVALID, "limit: a number from 1 to %d is possible",
                           LEAVES_MAX);
    }
    if (call->c->supervisor == NULL) {
        return CS_ERR_UNAVAILABLE;
    }
    struct cs_slice who = cs_api_caller_text(call);
    struct cs_msg_audit m = cs_audit_event(CS_LEAF_READ);
    if (last) {
        (void)snprintf(what, sizeof what, "the last %llu leaves", (unsigned long long)limit);
    } else {
        (void)snprintf(what, sizeof what, "%llu leaves from %llu on", (unsigned long long)limit,
                       (unsigned long long)from);
    }
    m.who = who;
    m.what = cs_slice_str(what);
    m.has = (UINT64_C(1) << CS_KEY_WHO) | (UINT64_C(1) << CS_KEY_WHAT);
    enum cs_err e = cs_audit_say(call->c, &m);
    if (e != CS_OK) {
        return cs_api_fail(call, e,
                           "nothing in the audit log is opened while it cannot be written");
    }
    cs_log(CS_EV_ADMIN, NULL, "by=%s did=log-read what=\"%s\"", cs_log_quote(who).text, what);
    const struct cs_msg_replay ask = {.from_ms = from, .actions = limit};
    return cs_api_read(call, &ask);
}
