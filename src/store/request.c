/* Requests: made or found by their match, changed, ended. Everything here runs inside the
 * writer thread's transaction but for the cs_store_ functions at the end. The rules of voting are
 * in vote.c, grants in grant.c. Must never turn a final state into another one. */
#include "store/store_internal.h"

#include "base/limits.h"

#include <stdio.h>

struct hold_args {
    struct cs_store_request r;
    struct cs_slice rule_names;
    bool waiting;
};

static const struct cs_shape held_shape = {sizeof(struct cs_store_held),
                                           3,
                                           {offsetof(struct cs_store_held, by),
                                            offsetof(struct cs_store_held, words),
                                            offsetof(struct cs_store_held, claimed)}};

void cs_request_id_copy(struct cs_slice id, char ret[static CS_REQUEST_ID_TEXT])
{
    (void)snprintf(ret, CS_REQUEST_ID_TEXT, "%.*s", CS_SLICE_FMT(id));
}

/* ---- shared steps ---- */

enum cs_err cs_request_row(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                           struct cs_request_row *ret)
{
    *ret = (struct cs_request_row){.state = CS_STORE_NONE};
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_ROW);
    cs_q_text(&q, id);
    bool found = cs_q_row(&q);
    if (found) {
        ret->id = cs_q_get(&q);
        ret->rule_names = cs_q_get(&q);
        ret->state = cs_q_get_u64(&q);
        ret->in_transaction = cs_q_get_u64(&q);
        ret->elevated = cs_q_get_u64(&q);
        ret->expires = cs_q_get_u64(&q);
        ret->lost = cs_q_get_u64(&q);
        ret->valid_ms = cs_q_get_u64(&q);
        cs_q_get_bytes(&q, ret->digest, sizeof ret->digest);
        cs_q_get_bytes(&q, ret->nonce, sizeof ret->nonce);
        ret->policy_version = cs_q_get_u64(&q);
        ret->grant = cs_q_get_id(&q);
        ret->grant_session = cs_q_get_id(&q);
        ret->grant_state = cs_q_get_u64(&q);
        ret->attached = cs_q_get_u64(&q);
        ret->by = cs_q_get(&q);
        ret->words = cs_q_get(&q);
        ret->seq = cs_q_get_u64(&q);
        ret->claimed = cs_q_get(&q);
    }
    enum cs_err err = cs_q_end(&q);
    return err == CS_OK && !found ? CS_ERR_NOT_FOUND : err;
}

static enum cs_err change_fill(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                               struct cs_store_change *c)
{
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_CHANGE);
    cs_q_text(&q, id);
    if (cs_q_row(&q)) {
        c->state = cs_q_get_u64(&q);
        c->expires_ms = cs_q_get_u64(&q);
        c->by = cs_q_get(&q);
        c->words = cs_q_get(&q);
        c->grant = cs_q_get_id(&q);
        c->grant_session = cs_q_get_id(&q);
    }
    return cs_q_end(&q);
}

static enum cs_err change_sessions(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                                   struct cs_store_change *c)
{
    struct cs_rows rows = {0};
    struct cs_q q = cs_q(db, op, CS_SQL_ATTACHED_SESSIONS);
    cs_q_text(&q, id);
    enum cs_err err = cs_q_all(&q, cs_q_read_id, sizeof(struct cs_id), &rows);
    c->sessions = rows.v;
    c->n_sessions = rows.n;
    return err;
}

enum cs_err cs_request_changed(struct cs_db *db, struct cs_op *op, struct cs_slice id, bool tell)
{
    struct cs_change *change = cs_op_array(op, 1, sizeof *change);
    if (change == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    change->c.seq = ++db->seq;
    cs_request_id_copy(id, change->c.request);
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_SEQ);
    cs_q_text(&q, id);
    cs_q_u64(&q, change->c.seq);
    enum cs_err err = cs_q_run(&q, NULL);
    err = err != CS_OK ? err : change_fill(db, op, id, &change->c);
    if (err == CS_OK && tell) {
        err = change_sessions(db, op, id, &change->c);
    }
    *op->changes_end = change;
    op->changes_end = &change->next;
    return err;
}

enum cs_err cs_request_end(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                           enum cs_store_state state, struct cs_slice by, struct cs_slice words)
{
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_END);
    cs_q_text(&q, id);
    cs_q_u64(&q, state);
    cs_q_text(&q, by);
    cs_q_text(&q, words);
    cs_q_u64(&q, db->now);
    enum cs_err err = cs_q_run(&q, NULL);
    if (err != CS_OK) {
        return err;
    }
    q = cs_q(db, op, CS_SQL_GRANT_VOID);
    cs_q_text(&q, id);
    err = cs_q_run(&q, NULL);
    err = err != CS_OK ? err : cs_request_changed(db, op, id, true);
    if (err != CS_OK) {
        return err;
    }
    q = cs_q(db, op, CS_SQL_DETACH_ALL);
    cs_q_text(&q, id);
    return cs_q_run(&q, NULL);
}

static enum cs_err lost_set(struct cs_db *db, struct cs_op *op, struct cs_slice id, uint64_t when)
{
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_LOST);
    cs_q_text(&q, id);
    cs_q_u64(&q, when);
    return cs_q_run(&q, NULL);
}

static enum cs_err grant_assign(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                                const struct cs_id *session)
{
    struct cs_q q = cs_q(db, op, CS_SQL_GRANT_ASSIGN);
    cs_q_text(&q, id);
    cs_q_id(&q, session);
    return cs_q_run(&q, NULL);
}

static bool open_state(uint64_t state)
{
    return state == CS_STORE_PENDING || state == CS_STORE_APPROVED;
}

enum cs_err cs_request_detach(struct cs_db *db, struct cs_op *op, const struct cs_request_row *row,
                              const struct cs_id *session, struct cs_slice words)
{
    struct cs_q q = cs_q(db, op, CS_SQL_DETACH);
    cs_q_text(&q, row->id);
    cs_q_id(&q, session);
    enum cs_err err = cs_q_run(&q, NULL);
    if (err != CS_OK || !open_state(row->state)) {
        return err;
    }
    if (row->in_transaction != 0) {
        return cs_request_end(db, op, row->id, CS_STORE_VOID, CS_SLICE_NULL, words);
    }
    struct cs_store_change left = {.n_sessions = 0};
    err = change_sessions(db, op, row->id, &left);
    if (err != CS_OK) {
        return err;
    }
    bool mine = row->grant_state == CS_GRANT_READY && cs_id_eq(&row->grant_session, session);
    if (mine) {
        static const struct cs_id nobody;
        err = grant_assign(db, op, row->id, left.n_sessions > 0 ? &left.sessions[0] : &nobody);
    }
    if (err == CS_OK && left.n_sessions == 0) {
        err = lost_set(db, op, row->id, db->now);
    }
    if (err == CS_OK && (mine || left.n_sessions == 0)) {
        err = cs_request_changed(db, op, row->id, true);
    }
    return err;
}

/* ---- hold ---- */

static enum cs_err count_of(struct cs_db *db, struct cs_op *op, enum cs_sql sql, struct cs_slice a,
                            uint64_t *ret)
{
    struct cs_q q = cs_q(db, op, sql);
    cs_q_text(&q, a);
    return cs_q_number(&q, ret);
}

static enum cs_err count_of_session(struct cs_db *db, struct cs_op *op, enum cs_sql sql,
                                    const struct cs_id *session, uint64_t *ret)
{
    struct cs_q q = cs_q(db, op, sql);
    cs_q_id(&q, session);
    return cs_q_number(&q, ret);
}

static enum cs_err attach(struct cs_db *db, struct cs_op *op, struct cs_slice request,
                          const struct cs_id *session)
{
    struct cs_q q = cs_q(db, op, CS_SQL_ATTACH);
    cs_q_text(&q, request);
    cs_q_id(&q, session);
    enum cs_err err = cs_q_run(&q, NULL);
    return err != CS_OK ? err : lost_set(db, op, request, 0);
}

static enum cs_err held_fill(struct cs_db *db, struct cs_op *op, struct cs_slice id,
                             const struct cs_id *session, struct cs_store_held *out)
{
    struct cs_request_row row;
    enum cs_err err = cs_request_row(db, op, id, &row);
    if (err != CS_OK) {
        return err;
    }
    cs_request_id_copy(id, out->request);
    out->state = row.state;
    out->expires_ms = row.expires;
    out->seq = row.seq;
    out->by = row.by;
    out->words = row.words;
    out->claimed = row.claimed;
    memcpy(out->digest, row.digest, sizeof out->digest);
    memcpy(out->nonce, row.nonce, sizeof out->nonce);
    out->policy_version = row.policy_version;
    if (row.grant_state == CS_GRANT_READY && cs_id_eq(&row.grant_session, session)) {
        out->grant = row.grant;
    }
    uint64_t attached = 0;
    struct cs_q q = cs_q(db, op, CS_SQL_ATTACHED);
    cs_q_text(&q, id);
    cs_q_id(&q, session);
    err = cs_q_number(&q, &attached);
    out->attached = attached > 0;
    return err;
}

static enum cs_err rules_insert(struct cs_db *db, struct cs_op *op,
                                const struct cs_store_request *r)
{
    enum cs_err err = CS_OK;
    for (size_t i = 0; err == CS_OK && i < r->n_rules; i++) {
        struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_RULE_ADD);
        cs_q_str(&q, r->id);
        cs_q_u64(&q, i);
        cs_q_text(&q, r->rules[i].name);
        cs_q_text(&q, r->rules[i].title);
        cs_q_u64(&q, r->rules[i].quorum);
        err = cs_q_run(&q, NULL);
        struct cs_slice left = r->rules[i].groups;
        while (err == CS_OK && left.n > 0) {
            q = cs_q(db, op, CS_SQL_REQUEST_RULE_GROUP_ADD);
            cs_q_str(&q, r->id);
            cs_q_u64(&q, i);
            cs_q_text(&q, cs_line_next(&left));
            err = cs_q_run(&q, NULL);
        }
    }
    return err;
}

/* The chain's ids; ret_actor is the last one. */
static enum cs_err parties_insert(struct cs_db *db, struct cs_op *op,
                                  const struct cs_store_request *r)
{
    struct cs_slice left = r->parties;
    enum cs_err err = CS_OK;
    while (err == CS_OK && left.n > 0) {
        struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_PARTY_ADD);
        cs_q_str(&q, r->id);
        cs_q_text(&q, cs_line_next(&left));
        err = cs_q_run(&q, NULL);
    }
    return err;
}

static struct cs_slice last_line(struct cs_slice lines)
{
    struct cs_slice last = CS_SLICE_NULL;
    while (lines.n > 0) {
        last = cs_line_next(&lines);
    }
    return last;
}

static enum cs_err request_insert(struct cs_db *db, struct cs_op *op, const struct hold_args *in)
{
    const struct cs_store_request *r = &in->r;
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_ADD);
    cs_q_str(&q, r->id);
    cs_q_id(&q, &r->session);
    cs_q_blob(&q, r->chain.p, r->chain.n);
    cs_q_text(&q, last_line(r->parties));
    cs_q_text(&q, r->target);
    cs_q_blob(&q, r->action.p, r->action.n);
    cs_q_text(&q, r->address);
    cs_q_text(&q, r->claimed);
    cs_q_blob(&q, r->match, sizeof r->match);
    cs_q_blob(&q, r->digest, sizeof r->digest);
    cs_q_blob(&q, r->nonce, sizeof r->nonce);
    cs_q_u64(&q, r->policy_version);
    cs_q_u64(&q, r->in_transaction != 0);
    cs_q_u64(&q, r->elevated != 0);
    cs_q_text(&q, in->rule_names);
    cs_q_u64(&q, r->within_ms);
    cs_q_u64(&q, r->valid_ms);
    cs_q_u64(&q, r->attach_ms);
    cs_q_u64(&q, db->now);
    cs_q_u64(&q, db->now + r->within_ms);
    return cs_q_run(&q, NULL);
}

static enum cs_err hold_insert(struct cs_db *db, struct cs_op *op, const struct hold_args *in)
{
    const struct cs_store_request *r = &in->r;
    struct cs_slice id = cs_slice_str(r->id);
    uint64_t taken = 0, pending = 0;
    enum cs_err err = count_of(db, op, CS_SQL_REQUEST_TAKEN, id, &taken);
    if (err != CS_OK || taken > 0) {
        return err != CS_OK ? err : CS_ERR_EXISTS;
    }
    /* SECURITY: counted whether somebody waits or not: who asks and hangs up would otherwise leave
     * as many behind as it likes, and bury what the approvers should see. By the person at the root
     * of the chain: more agents are no more room. */
    struct cs_slice parties = r->parties;
    err = count_of(db, op, CS_SQL_REQUEST_PENDING_OF, cs_line_next(&parties), &pending);
    uint64_t max = in->waiting ? CS_LIMIT_REQUESTS_PER_PERSON : CS_LIMIT_REQUESTS_ASYNC;
    if (err != CS_OK || pending >= max) {
        return err != CS_OK ? err : CS_ERR_LIMIT;
    }
    err = request_insert(db, op, in);
    err = err != CS_OK ? err : parties_insert(db, op, r);
    err = err != CS_OK ? err : rules_insert(db, op, r);
    if (err == CS_OK && in->waiting) {
        err = attach(db, op, id, &r->session);
    }
    err = err != CS_OK ? err : cs_request_changed(db, op, id, false);
    struct cs_store_held *out = op->result;
    out->created = true;
    return err != CS_OK ? err : held_fill(db, op, id, &r->session, out);
}

/* A repeat of the same question: waits with the others, or takes a grant that nobody else has. */
static enum cs_err hold_attach(struct cs_db *db, struct cs_op *op, const struct hold_args *in,
                               const struct cs_request_row *row)
{
    const struct cs_id *session = &in->r.session;
    bool unused = row->state == CS_STORE_APPROVED && cs_id_is_zero(&row->grant_session);
    enum cs_err err = CS_OK;
    if (unused) {
        err = grant_assign(db, op, row->id, session);
    }
    if (err == CS_OK && (unused || in->waiting)) {
        err = attach(db, op, row->id, session);
    } else if (err == CS_OK && row->lost != 0) {
        err = lost_set(db, op, row->id, db->now); /* somebody came back, if only to ask */
    }
    return err != CS_OK ? err : held_fill(db, op, row->id, session, op->result);
}

/* The request that the same question finds; ret->state NONE when a new one must be made. */
static enum cs_err hold_find(struct cs_db *db, struct cs_op *op, const struct hold_args *in,
                             struct cs_request_row *ret)
{
    *ret = (struct cs_request_row){.state = CS_STORE_NONE};
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_BY_MATCH);
    cs_q_blob(&q, in->r.match, sizeof in->r.match);
    bool found = cs_q_row(&q);
    struct cs_slice id = found ? cs_q_get(&q) : CS_SLICE_NULL;
    enum cs_err err = cs_q_end(&q);
    if (err != CS_OK || !found) {
        return err;
    }
    err = cs_request_row(db, op, id, ret);
    if (err != CS_OK) {
        return err;
    }
    if (ret->expires <= db->now) {
        ret->state = CS_STORE_NONE;
        return cs_request_end(db, op, id, CS_STORE_EXPIRED, CS_SLICE_NULL,
                              CS_SLICE_LIT("nobody decided in time"));
    }
    /* SECURITY: an approval under one set of rules must not serve a question under another. */
    if (!cs_slice_eq(ret->rule_names, in->rule_names) || ret->elevated != in->r.elevated) {
        ret->state = CS_STORE_NONE;
        return cs_request_end(db, op, id, CS_STORE_VOID, CS_SLICE_NULL,
                              CS_SLICE_LIT("the rules changed"));
    }
    return CS_OK;
}

/* Asked for by name: the answer is about that request or nobody's, and never a new one. The match
 * covers requester, target and action: under another one a name says nothing. */
static enum cs_err hold_again(struct cs_db *db, struct cs_op *op, const struct hold_args *in)
{
    struct cs_slice id = cs_slice_str(in->r.again);
    uint64_t same = 0;
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_SAME);
    cs_q_text(&q, id);
    cs_q_blob(&q, in->r.match, sizeof in->r.match);
    enum cs_err err = cs_q_number(&q, &same);
    if (err != CS_OK || same != 1) {
        return err != CS_OK ? err : CS_ERR_NOT_FOUND;
    }
    struct cs_request_row row;
    err = cs_request_row(db, op, id, &row);
    if (err != CS_OK) {
        return err;
    }
    bool open = open_state(row.state) && row.in_transaction == 0;
    if (open && cs_slice_eq(row.rule_names, in->rule_names) && row.elevated == in->r.elevated) {
        return hold_attach(db, op, in, &row);
    }
    if (open) {
        err = cs_request_end(db, op, id, CS_STORE_VOID, CS_SLICE_NULL,
                             CS_SLICE_LIT("the rules changed"));
    }
    return err != CS_OK ? err : held_fill(db, op, id, &in->r.session, op->result);
}

static enum cs_err hold(struct cs_db *db, struct cs_op *op)
{
    const struct hold_args *in = op->args;
    uint64_t live = 0, attached = 0;
    enum cs_err err = count_of_session(db, op, CS_SQL_SESSION_LIVE, &in->r.session, &live);
    if (err != CS_OK || live != 1) {
        return err != CS_OK ? err : CS_ERR_NOT_FOUND;
    }
    if (in->r.again[0] != 0) {
        return hold_again(db, op, in);
    }
    err = count_of_session(db, op, CS_SQL_ATTACHED_OF, &in->r.session, &attached);
    if (err != CS_OK || attached >= CS_STORE_ATTACHED_MAX) {
        return err != CS_OK ? err : CS_ERR_LIMIT;
    }
    struct cs_request_row row = {.state = CS_STORE_NONE};
    if (in->r.in_transaction == 0) {
        err = hold_find(db, op, in, &row);
    }
    if (err != CS_OK) {
        return err;
    }
    return row.state != CS_STORE_NONE ? hold_attach(db, op, in, &row) : hold_insert(db, op, in);
}

static struct cs_slice rule_names(struct cs_op *op, const struct cs_store_request *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_rules; i++) {
        n += r->rules[i].name.n + 1;
    }
    struct cs_writer w = cs_writer(cs_op_array(op, n, 1), n);
    for (size_t i = 0; w.p != NULL && i < r->n_rules; i++) {
        cs_writer_bytes(&w, r->rules[i].name);
        cs_writer_u8(&w, '\n');
    }
    return cs_writer_done(&w);
}

enum cs_err cs_store_request_hold(struct cs_store *s, const struct cs_store_request *r,
                                  bool waiting, void (*placed)(const char *request, void *arg),
                                  void *arg, struct cs_arena *a, struct cs_store_held *ret)
{
    static const struct cs_op_kind kind = {"request-hold", hold, true, sizeof(struct hold_args),
                                           sizeof *ret};
    if (r->n_rules == 0 || r->parties.n == 0) {
        return CS_ERR_INVALID;
    }
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct hold_args *in = op->args;
    in->waiting = waiting;
    in->rule_names = rule_names(op, r);
    if (!cs_shape_copy(&cs_request_shape, r, &in->r, &op->mem)) {
        return CS_ERR_NO_MEMORY;
    }
    in->r.rules = cs_shape_dup(&cs_rule_shape, r->rules, r->n_rules, &op->mem);
    if (in->r.rules == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    op->placed = placed;
    op->placed_arg = arg;
    enum cs_err err = cs_op_submit(s, op);
    if (err != CS_OK) {
        return err;
    }
    struct cs_store_held held;
    if (!cs_shape_copy(&held_shape, op->result, &held, a)) {
        return CS_ERR_NO_MEMORY;
    }
    *ret = held;
    return CS_OK;
}

/* ---- leaving, ending, expiring ---- */

struct leave_args {
    struct cs_slice request, by, words;
    struct cs_id session;
    enum cs_store_leave how;
    uint64_t state;
    bool party_only;
};

static enum cs_err leave(struct cs_db *db, struct cs_op *op)
{
    const struct leave_args *in = op->args;
    struct cs_request_row row;
    enum cs_err err = cs_request_row(db, op, in->request, &row);
    if (err != CS_OK || !open_state(row.state)) {
        return err != CS_OK ? err : CS_ERR_CONFLICT;
    }
    uint64_t attached = 0;
    struct cs_q q = cs_q(db, op, CS_SQL_ATTACHED);
    cs_q_text(&q, in->request);
    cs_q_id(&q, &in->session);
    err = cs_q_number(&q, &attached);
    if (err != CS_OK || attached == 0) {
        return err != CS_OK ? err : CS_ERR_NOT_FOUND;
    }
    if (in->how == CS_STORE_LEAVE_DETACH) {
        return cs_request_detach(db, op, &row, &in->session, in->words);
    }
    q = cs_q(db, op, CS_SQL_DETACH); /* who leaves need not be told */
    cs_q_text(&q, in->request);
    cs_q_id(&q, &in->session);
    err = cs_q_run(&q, NULL);
    return err != CS_OK ? err
                        : cs_request_end(db, op, in->request,
                                         in->how == CS_STORE_LEAVE_CANCEL ? CS_STORE_CANCELLED
                                                                          : CS_STORE_VOID,
                                         CS_SLICE_NULL, in->words);
}

static enum cs_err leave_submit(struct cs_store *s, const struct cs_op_kind *kind,
                                const struct leave_args *args)
{
    struct cs_op *op = cs_op_new(kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct leave_args *in = op->args;
    *in = *args;
    in->request = cs_op_keep(op, args->request);
    in->by = cs_op_keep(op, args->by);
    in->words = cs_op_keep(op, args->words);
    return cs_op_finish(s, op);
}

enum cs_err cs_store_request_leave(struct cs_store *s, struct cs_slice request,
                                   const struct cs_id *session, enum cs_store_leave how,
                                   struct cs_slice words)
{
    static const struct cs_op_kind kind = {"request-leave", leave, true, sizeof(struct leave_args),
                                           1};
    if (cs_id_is_zero(session)) {
        return CS_ERR_NOT_FOUND;
    }
    struct leave_args in = {.request = request, .session = *session, .how = how, .words = words};
    return leave_submit(s, &kind, &in);
}

static enum cs_err request_stop(struct cs_db *db, struct cs_op *op)
{
    const struct leave_args *in = op->args;
    struct cs_request_row row;
    enum cs_err err = cs_request_row(db, op, in->request, &row);
    if (err != CS_OK) {
        return err;
    }
    if (in->party_only) {
        uint64_t party = 0;
        struct cs_q q = cs_q(db, op, CS_SQL_PARTY);
        cs_q_text(&q, in->request);
        cs_q_text(&q, in->by);
        err = cs_q_number(&q, &party);
        if (err != CS_OK || party == 0) {
            return err != CS_OK ? err : CS_ERR_DENIED;
        }
    }
    if (!open_state(row.state)) {
        return CS_ERR_CONFLICT;
    }
    return cs_request_end(db, op, in->request, (enum cs_store_state)in->state, in->by, in->words);
}

enum cs_err cs_store_request_end(struct cs_store *s, struct cs_slice request, uint64_t state,
                                 bool party_only, struct cs_slice by, struct cs_slice words)
{
    static const struct cs_op_kind kind = {"request-end", request_stop, true,
                                           sizeof(struct leave_args), 1};
    if (state != CS_STORE_CANCELLED && state != CS_STORE_VOID) {
        return CS_ERR_INVALID;
    }
    struct leave_args in = {
        .request = request, .state = state, .party_only = party_only, .by = by, .words = words};
    return leave_submit(s, &kind, &in);
}

struct due {
    struct cs_slice id;
    uint64_t state;
    bool left; /* nobody came back */
};

static struct cs_slice due_words(const struct due *d)
{
    if (d->left) {
        return CS_SLICE_LIT("nobody came back for it in time");
    }
    return d->state == CS_STORE_APPROVED ? CS_SLICE_LIT("it was not executed in time")
                                         : CS_SLICE_LIT("nobody decided in time");
}

static void due_read(struct cs_q *q, void *row)
{
    struct due *d = row;
    d->id = cs_q_get(q);
    d->state = cs_q_get_u64(q);
    d->left = cs_q_get_u64(q) != 0;
}

static enum cs_err expire(struct cs_db *db, struct cs_op *op)
{
    struct cs_rows rows = {0};
    struct cs_q q = cs_q(db, op, CS_SQL_REQUEST_DUE);
    cs_q_u64(&q, db->now);
    enum cs_err err = cs_q_all(&q, due_read, sizeof(struct due), &rows);
    const struct due *v = rows.v;
    for (size_t i = 0; err == CS_OK && i < rows.n; i++) {
        err = cs_request_end(db, op, v[i].id, CS_STORE_EXPIRED, CS_SLICE_NULL, due_words(&v[i]));
    }
    *(uint64_t *)op->result = rows.n;
    return err;
}

enum cs_err cs_store_expire(struct cs_store *s, uint64_t *ret_n)
{
    static const struct cs_op_kind kind = {"expire", expire, true, 1, sizeof(uint64_t)};
    CS_CLEANUP(cs_op_done) struct cs_op *op = cs_op_new(&kind);
    if (op == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err err = cs_op_submit(s, op);
    if (err == CS_OK) {
        *ret_n = *(const uint64_t *)op->result;
    }
    return err;
}

/* ---- telling again ---- */

enum { RETELL_MS = 120000 };

static enum cs_err retell_ids(struct cs_db *db, struct cs_op *op, struct cs_q *q, bool ended)
{
    struct retold {
        struct cs_slice id;
        struct cs_id session;
    };
    struct cs_rows rows = {0};
    while (cs_q_row(q)) {
        struct retold *row = cs_rows_add(op, &rows, sizeof *row);
        if (row == NULL) {
            break;
        }
        row->id = cs_q_get(q);
        row->session = ended ? cs_q_get_id(q) : (struct cs_id){{0}};
    }
    enum cs_err err = cs_q_end(q);
    struct retold *v = rows.v;
    for (size_t i = 0; err == CS_OK && i < rows.n; i++) {
        err = cs_request_changed(db, op, v[i].id, !ended);
        if (err == CS_OK && ended) { /* nobody is attached any more: whoever opened it */
            struct cs_change *last = CS_CONTAINER(op->changes_end, struct cs_change, next);
            last->c.sessions = &v[i].session;
            last->c.n_sessions = 1;
        }
    }
    return err;
}

static enum cs_err retell(struct cs_db *db, struct cs_op *op)
{
    struct cs_q q = cs_q(db, op, CS_SQL_RETELL_APPROVED);
    enum cs_err err = retell_ids(db, op, &q, false);
    if (err != CS_OK) {
        return err;
    }
    q = cs_q(db, op, CS_SQL_RETELL_ENDED);
    cs_q_u64(&q, db->now > RETELL_MS ? db->now - RETELL_MS : 0);
    return retell_ids(db, op, &q, true);
}

enum cs_err cs_store_retell(struct cs_store *s)
{
    static const struct cs_op_kind kind = {"retell", retell, true, 1, 1};
    struct cs_op *op = cs_op_new(&kind);
    return op != NULL ? cs_op_finish(s, op) : CS_ERR_NO_MEMORY;
}
