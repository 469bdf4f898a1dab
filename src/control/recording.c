/* Keys of recordings, as far as control has to do with them: each month it has keeper make a new
 * one, keeps the box, and tells keeper to announce it to the recorder; for a replay it brings the
 * wrapped keys to keeper and what keeper sealed for that one replayer back. Called by role.c and
 * api_sessions.c. It never sees a private half or a recording's key.
 *
 * The boxes are rows of the secrets' table: a change of the master key finds all boxes there. Their
 * names have a slash, which no secret's name may have. */
#include "control/control.h"

#include "base/log.h"
#include "base/time.h"
#include "crypto/wrapped.h"

#include <stdio.h>

#define KEEPER_CALL_NS (10 * CS_NS_PER_S)

enum {
    BOX_MAX = 512,
    TRIES = 3,
    KEYS_OF_A_MONTH = 9,
    ARENA_MAX = 256 * 1024,
    LIST_ARENA = 8 * 1024 * 1024
};

/* An empty box asks for a new one, which *ret_box gets (in the arena); with one, keeper announces
 * it. */
static enum cs_err ask_keeper(struct cs_control *c, struct cs_slice name, struct cs_slice box,
                              struct cs_arena *a, struct cs_slice *ret_box, char *why,
                              size_t why_size)
{
    struct cs_msg_recording_key m = {.name = name, .box = box};
    struct cs_call call;
    enum cs_err e = cs_helper_call(c, CS_ROLE_KEEPER, CS_MSG_RECORDING_KEY, &m,
                                   cs_mono_ns() + KEEPER_CALL_NS, &call);
    if (e == CS_OK) {
        const struct cs_msg_recording_key_is *r = (const void *)call.msg.raw;
        if (call.type != CS_MSG_RECORDING_KEY_IS || r->err >= CS_ERR_MAX || r->box.n > BOX_MAX) {
            e = CS_ERR_PROTOCOL;
        } else if (r->err != CS_OK) {
            e = (enum cs_err)r->err;
            (void)snprintf(why, why_size, "%.*s", CS_SLICE_FMT(r->text));
        } else {
            *ret_box = cs_arena_dup(a, r->box);
            e = ret_box->p != NULL ? CS_OK : CS_ERR_NO_MEMORY;
        }
    }
    cs_call_done(&call);
    return e;
}

static enum cs_err use_month(struct cs_control *c, struct cs_slice name, struct cs_arena *a,
                             char *why, size_t why_size)
{
    struct cs_store_secret row;
    struct cs_slice made = CS_SLICE_NULL;
    enum cs_err e = cs_store_secret_get(c->store, name, a, &row);
    if (e == CS_ERR_NOT_FOUND) {
        e = ask_keeper(c, name, CS_SLICE_NULL, a, &made, why, why_size);
        if (e == CS_OK) {
            e = cs_store_secret_put(c->store, name, 1, made);
        }
        row.box = made;
    }
    /* Stored first: a key that recordings are sealed to must not be lost with this process. */
    return e == CS_OK ? ask_keeper(c, name, row.box, a, &made, why, why_size) : e;
}

/* One whose master key is lost stays where it is, unopened: the master key may be found again.
 * Recordings go on with another one of that month. */
enum cs_err cs_recording_month(struct cs_control *c, uint64_t wall_ms, char *why, size_t why_size)
{
    char month[CS_WRAPPED_NAME], name[CS_WRAPPED_NAME];
    struct cs_arena a;
    enum cs_err e = CS_ERR_NOT_FOUND; /* sealed under a master key that is not configured */
    (void)cs_wrapped_key_name(wall_ms, month);
    if (strcmp(month, c->recording_key) == 0) {
        return CS_OK;
    }
    cs_arena_init(&a, 4096, ARENA_MAX);
    memcpy(name, month, sizeof name);
    for (unsigned nth = 2; e == CS_ERR_NOT_FOUND && nth <= KEYS_OF_A_MONTH; nth++) {
        e = CS_ERR_CONFLICT;
        for (int i = 0; e == CS_ERR_CONFLICT && i < TRIES; i++) {
            e = use_month(c, cs_slice_str(name), &a, why, why_size);
        }
        if (e == CS_ERR_NOT_FOUND) {
            cs_log(CS_EV_RECORD_KEY_FAILED, NULL,
                   "name=%s why=\"it is sealed under a master key that is not configured\"", name);
            (void)cs_wrapped_key_other(month, nth, name);
        }
    }
    cs_arena_done(&a);
    if (e == CS_OK) {
        (void)snprintf(c->recording_key, sizeof c->recording_key, "%s", month);
    }
    return e;
}

/* ---- replay ---- */

/* The rows that are wrapped for `name`, opened by keeper. */
static enum cs_err unwrap_named(struct cs_control *c, const struct cs_id *session,
                                struct cs_slice reader, struct cs_slice name, struct cs_slice rows,
                                struct cs_arena *a, struct cs_buf *out)
{
    struct cs_store_secret row;
    enum cs_err e = cs_store_secret_get(c->store, name, a, &row);
    if (e != CS_OK) {
        return e;
    }
    struct cs_msg_unwrap m = {
        .session = *session, .reader = reader, .name = name, .box = row.box, .rows = rows};
    struct cs_call call;
    e = cs_helper_call(c, CS_ROLE_KEEPER, CS_MSG_UNWRAP, &m, cs_mono_ns() + KEEPER_CALL_NS, &call);
    if (e == CS_OK) {
        const struct cs_msg_unwrapped *r = (const void *)call.msg.raw;
        if (call.type != CS_MSG_UNWRAPPED || r->err >= CS_ERR_MAX) {
            e = CS_ERR_PROTOCOL;
        } else if (r->err != CS_OK) {
            e = (enum cs_err)r->err;
        } else {
            cs_buf_add(out, r->rows);
        }
    }
    cs_call_done(&call);
    return e;
}

enum cs_err cs_recording_unwrap(struct cs_control *c, const struct cs_id *session,
                                struct cs_slice reader, struct cs_slice rows, struct cs_buf *out)
{
    struct cs_slice left = rows;
    struct cs_wrapped w, other;
    struct cs_buf mine = cs_buf((size_t)CS_WRAPPED_ROW * CS_WRAPPED_MAX);
    struct cs_arena a;
    enum cs_err first = CS_OK;
    cs_arena_init(&a, 4096, ARENA_MAX);
    while (rows.n <= mine.max && cs_wrapped_next(&left, &w)) {
        struct cs_slice all = rows;
        bool seen = false;
        uint8_t row[CS_WRAPPED_ROW];
        mine.len = 0;
        while (cs_wrapped_next(&all, &other)) {
            if (strcmp(other.name, w.name) == 0) {
                /* Each name once: with the first of its rows. */
                seen = seen || (mine.len == 0 && all.p < left.p);
                cs_wrapped_write(&other, row);
                cs_buf_add(&mine, cs_slice(row, sizeof row));
            }
        }
        if (seen || !cs_wrapped_is_key_name(cs_slice_str(w.name))) {
            continue; /* escrow's are not for us */
        }
        enum cs_err e =
            unwrap_named(c, session, reader, cs_slice_str(w.name), cs_buf_slice(&mine), &a, out);
        first = first == CS_OK ? e : first;
    }
    cs_arena_done(&a);
    cs_buf_done(&mine);
    /* One month's key that is missing does not hide what the others open. */
    return out->len > 0 ? CS_OK : first;
}

/* ---- the audit log's private values ---- */

static enum cs_err log_open_named(struct cs_control *c, struct cs_slice reader,
                                  const struct cs_store_secret *row, struct cs_slice rows,
                                  struct cs_buf *out)
{
    const struct cs_msg_log_open m = {
        .reader = reader, .name = row->name, .box = row->box, .rows = rows};
    struct cs_call call;
    enum cs_err e = cs_helper_call(c, CS_ROLE_KEEPER, CS_MSG_LOG_OPEN, &m,
                                   cs_mono_ns() + KEEPER_CALL_NS, &call);
    if (e == CS_OK) {
        const struct cs_msg_log_opened *r = (const void *)call.msg.raw;
        if (call.type != CS_MSG_LOG_OPENED || r->err >= CS_ERR_MAX) {
            e = CS_ERR_PROTOCOL;
        } else if (r->err != CS_OK) {
            e = (enum cs_err)r->err;
        } else {
            cs_buf_add(out, r->rows);
        }
    }
    cs_call_done(&call);
    return e;
}

/* Each month's key opens what was sealed to it. A row keeps its length on the way: when all have
 * come back, no other key is asked for. */
enum cs_err cs_recording_open_log(struct cs_control *c, struct cs_slice reader,
                                  struct cs_slice rows, struct cs_buf *out)
{
    struct cs_store_secret *all = NULL, row = {.version = 0};
    struct cs_arena a;
    size_t n = 0;
    enum cs_err first = CS_OK;
    cs_arena_init(&a, 4096, LIST_ARENA);
    enum cs_err e = cs_store_secret_list(c->store, &a, &all, &n);
    for (size_t i = n; e == CS_OK && i > 0 && out->len < rows.n; i--) {
        if (!cs_wrapped_is_key_name(all[i - 1].name)) {
            continue;
        }
        e = cs_store_secret_get(c->store, all[i - 1].name, &a, &row);
        row.name = all[i - 1].name;
        enum cs_err one = e == CS_OK ? log_open_named(c, reader, &row, rows, out) : CS_OK;
        first = first == CS_OK ? one : first; /* one month's key that is missing hides no other */
    }
    cs_arena_done(&a);
    return e != CS_OK || out->len > 0 ? e : first;
}
