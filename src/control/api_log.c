/* Reading the audit log with its private values opened: GET /v1/log. A job reads the files, keeper
 * opens the values for that job alone (audit/boxes.h): here passes what cannot be read. It must
 * never have one opened before the log says, durably, who asked. */
#include "control/api.h"

#include "audit/leaf.h"
#include "base/log.h"

#include <stdio.h>

enum { LEAVES_USUAL = 50, LEAVES_MAX = 500, FILTER_MAX = 128, WHO_MAX = 40 };
#define LEAF_MAX (UINT64_C(1) << 53)

/* Which leaves, as the job reads it (record/log_read.h): "" for all. False: the answer says why. */
static bool filter_of(struct cs_api_call *call, char out[static FILTER_MAX])
{
    struct cs_slice kind = call->query[4], session = call->query[5], who = call->query[6];
    uint64_t since = 0, until = 0;
    struct cs_id id;
    struct cs_slice text = CS_SLICE_LIT("");
    if (!cs_api_number(call, 2, 0, LEAF_MAX, &since) ||
        !cs_api_number(call, 3, 0, LEAF_MAX, &until)) {
        return false;
    }
    if (kind.p != NULL && cs_leaf_kind_of(kind) == CS_LEAF_NONE) {
        (void)cs_api_fail(call, CS_ERR_INVALID, "kind: there is no such kind of leaf");
        return false;
    }
    if (session.p != NULL && !cs_id_parse(session, &id)) {
        (void)cs_api_fail(call, CS_ERR_INVALID, "session: an id is 32 hexadecimal digits");
        return false;
    }
    if (who.p != NULL && (who.n == 0 || who.n > WHO_MAX || !cs_utf8_valid(who))) {
        (void)cs_api_fail(call, CS_ERR_INVALID, "who: a text of 1 to %d bytes is possible",
                          WHO_MAX);
        return false;
    }
    if (since > 0) {
        text = cs_arena_printf(&call->arena, "since=%llu ", (unsigned long long)since);
    }
    if (until > 0) {
        text = cs_arena_printf(&call->arena, "%.*suntil=%llu ", CS_SLICE_FMT(text),
                               (unsigned long long)until);
    }
    text = cs_arena_printf(&call->arena, "%.*s%s%.*s%s%s%.*s%s%s%.*s", CS_SLICE_FMT(text),
                           kind.p != NULL ? "kind=" : "", CS_SLICE_FMT(kind),
                           kind.p != NULL ? " " : "", session.p != NULL ? "session=" : "",
                           CS_SLICE_FMT(session), session.p != NULL ? " " : "",
                           who.p != NULL ? "who=" : "", CS_SLICE_FMT(who));
    if (text.p == NULL || text.n >= FILTER_MAX) {
        (void)cs_api_fail(call, CS_ERR_INVALID, "too much to look for at once");
        return false;
    }
    (void)snprintf(out, FILTER_MAX, "%.*s", CS_SLICE_FMT(text));
    return true;
}

enum cs_err cs_api_log(struct cs_api_call *call)
{
    uint64_t from = UINT64_MAX, limit = 0;
    char what[64 + FILTER_MAX], filter[FILTER_MAX];
    bool last = call->query[0].p == NULL;
    if ((!last && !cs_api_number(call, 0, 0, LEAF_MAX, &from)) ||
        !cs_api_number(call, 1, LEAVES_USUAL, LEAVES_MAX, &limit)) {
        return CS_ERR_INVALID;
    }
    if (limit == 0) {
        return cs_api_fail(call, CS_ERR_INVALID, "limit: a number from 1 to %d is possible",
                           LEAVES_MAX);
    }
    if (!filter_of(call, filter)) {
        return CS_ERR_INVALID;
    }
    if (call->c->supervisor == NULL) {
        return CS_ERR_UNAVAILABLE;
    }
    struct cs_slice who = cs_api_caller_text(call);
    /* Whom somebody looked for is no more public than who that is. */
    const char *name = strstr(filter, "who=");
    int shown = name != NULL ? (int)(name - filter) + 3 : FILTER_MAX;
    struct cs_msg_audit m = cs_audit_event(CS_LEAF_READ);
    if (last) {
        (void)snprintf(what, sizeof what, "the last %llu leaves%s%.*s", (unsigned long long)limit,
                       filter[0] != '\0' ? " with " : "", shown, filter);
    } else {
        (void)snprintf(what, sizeof what, "%llu leaves from %llu on%s%.*s",
                       (unsigned long long)limit, (unsigned long long)from,
                       filter[0] != '\0' ? " with " : "", shown, filter);
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
    const struct cs_msg_replay ask = {
        .from_ms = from, .actions = limit, .find = cs_slice_str(filter)};
    return cs_api_read(call, &ask);
}
