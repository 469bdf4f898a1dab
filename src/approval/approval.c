/* Requests, votes and grants for the control role: thin over the store, whose transactions hold the
 * rules; here are their names in the product's words, and the way of every change to whom it
 * concerns. */
#include "approval/approval_internal.h"

#include "base/alloc.h"

#include <stdio.h>

enum { SAY_AGAIN_BYTES = 1024 * 1024 };

_Static_assert((int)CS_STORE_NONE == (int)CS_REQUEST_NONE &&
                   (int)CS_STORE_PENDING == (int)CS_REQUEST_PENDING &&
                   (int)CS_STORE_APPROVED == (int)CS_REQUEST_APPROVED &&
                   (int)CS_STORE_EXECUTING == (int)CS_REQUEST_EXECUTING &&
                   (int)CS_STORE_DONE == (int)CS_REQUEST_DONE &&
                   (int)CS_STORE_DENIED == (int)CS_REQUEST_DENIED &&
                   (int)CS_STORE_EXPIRED == (int)CS_REQUEST_EXPIRED &&
                   (int)CS_STORE_CANCELLED == (int)CS_REQUEST_CANCELLED &&
                   (int)CS_STORE_UNKNOWN == (int)CS_REQUEST_UNKNOWN &&
                   (int)CS_STORE_VOID == (int)CS_REQUEST_VOID &&
                   (int)CS_REQUEST_MAX == CS_STORE_VOID + 1,
               "the store keeps the states by number");
_Static_assert((int)CS_STORE_LEAVE_CANCEL == (int)CS_LEAVE_CANCEL &&
                   (int)CS_STORE_LEAVE_DETACH == (int)CS_LEAVE_DETACH &&
                   (int)CS_STORE_LEAVE_VOID == (int)CS_LEAVE_VOID,
               "one enumeration in two folders");
_Static_assert((int)CS_STORE_DIGEST == (int)CS_DIGEST && (int)CS_STORE_NONCE == (int)CS_NONCE,
               "sizes of the same things");

/* ---- changes ---- */

static bool concerns(const struct cs_placing *p, const struct cs_store_change *c)
{
    if (strcmp(p->request, c->request) != 0) {
        return false;
    }
    for (size_t i = 0; i < c->n_sessions; i++) {
        if (cs_id_eq(&c->sessions[i], &p->session)) {
            return true;
        }
    }
    return false;
}

static void placing_note(struct cs_placing *p, const struct cs_approval_change *c)
{
    p->later = true;
    p->change = *c;
    p->change.by = cs_arena_dup(p->arena, c->by);
    p->change.words = cs_arena_dup(p->arena, c->words);
    if (p->change.by.p == NULL || p->change.words.p == NULL) {
        p->out_of_memory = true;
    }
}

static void on_change(const struct cs_store_change *from, void *arg)
{
    struct cs_approval *a = arg;
    struct cs_approval_change c = {.seq = from->seq,
                                   .request = cs_slice_str(from->request),
                                   .state = (enum cs_request_state)from->state,
                                   .expires_ms = from->expires_ms,
                                   .by = from->by,
                                   .words = from->words,
                                   .grant = from->grant,
                                   .grant_session = from->grant_session,
                                   .sessions = from->sessions,
                                   .n_sessions = from->n_sessions};
    for (struct cs_placing *p = a->placing; p != NULL; p = p->next) {
        if (concerns(p, from)) {
            placing_note(p, &c);
        }
    }
    if (a->on_change != NULL) {
        a->on_change(&c, a->arg);
    }
}

enum cs_err cs_approval_resume(struct cs_store *s, cs_approval_change_fn fn, void *arg,
                               struct cs_approval **ret)
{
    struct cs_approval *a = cs_alloc(sizeof *a);
    if (a == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    a->store = s;
    a->on_change = fn;
    a->arg = arg;
    cs_store_on_change(s, on_change, a);
    *ret = a;
    return CS_OK;
}

enum cs_err cs_approval_new(struct cs_store *s, cs_approval_change_fn fn, void *arg,
                            struct cs_approval **ret)
{
    struct cs_approval *a = NULL;
    uint64_t closed = 0;
    enum cs_err err = cs_approval_resume(s, fn, arg, &a);
    if (err == CS_OK) {
        err = cs_store_recover(s, &closed);
    }
    if (err != CS_OK) {
        cs_approval_free(a);
        return err;
    }
    *ret = a;
    return CS_OK;
}

enum cs_err cs_approval_retell(struct cs_approval *a)
{
    return cs_store_retell(a->store);
}

void cs_approval_free(struct cs_approval *a)
{
    if (a != NULL) {
        cs_store_on_change(a->store, NULL, NULL);
        cs_free(a);
    }
}

uint64_t cs_approval_seq(const struct cs_approval *a)
{
    return cs_store_seq(a->store);
}

/* ---- a gate's side ---- */

/* Words from outside are cut, not refused: that a session ended must be noted in any case. */
static struct cs_slice words_cut(struct cs_slice words)
{
    size_t n = CS_MIN(words.n, (size_t)CS_LIMIT_REASON_BYTES);
    while (n > 0 && n < words.n && (words.p[n] & 0xc0) == 0x80) {
        n--; /* not inside a character */
    }
    return cs_slice_head(words, n);
}

enum cs_err cs_approval_leave(struct cs_approval *a, struct cs_slice request,
                              const struct cs_id *session, enum cs_leave how, struct cs_slice words)
{
    switch (how) {
    case CS_LEAVE_CANCEL:
    case CS_LEAVE_DETACH:
    case CS_LEAVE_VOID:
        return cs_store_request_leave(a->store, request, session, (enum cs_store_leave)how,
                                      words_cut(words));
    default:
        return CS_ERR_INVALID; /* a number off the wire */
    }
}

enum cs_err cs_approval_consume(struct cs_approval *a, struct cs_slice request,
                                const struct cs_id *grant, const struct cs_id *session,
                                const uint8_t digest[static CS_DIGEST])
{
    return cs_store_grant_consume(a->store, request, grant, session, digest);
}

enum cs_err cs_approval_finish(struct cs_approval *a, const struct cs_id *grant,
                               const struct cs_id *session, enum cs_executed outcome,
                               struct cs_slice text)
{
    char failed[CS_LIMIT_REASON_BYTES + 16];
    struct cs_slice words = words_cut(text);
    uint64_t state = CS_STORE_UNKNOWN;
    switch (outcome) {
    case CS_EXECUTED_DONE:
        state = CS_STORE_DONE;
        break;
    case CS_EXECUTED_FAILED:
        state = CS_STORE_DONE;
        (void)snprintf(failed, sizeof failed, "failed: %.*s", CS_SLICE_FMT(words));
        words = words_cut(cs_slice_str(failed));
        break;
    case CS_EXECUTED_NOT_RUN:
        state = CS_STORE_VOID;
        (void)snprintf(failed, sizeof failed, "nothing ran: %.*s", CS_SLICE_FMT(words));
        words = words_cut(cs_slice_str(failed));
        break;
    case CS_EXECUTED_UNKNOWN:
        break;
    default:
        return CS_ERR_INVALID;
    }
    return cs_store_grant_finish(a->store, grant, session, state, words);
}

enum cs_err cs_approval_session_closed(struct cs_approval *a, const struct cs_id *session,
                                       struct cs_slice why)
{
    return cs_store_session_close(a->store, session, words_cut(why));
}

enum cs_err cs_approval_gate_gone(struct cs_approval *a, uint64_t gate, struct cs_slice why)
{
    uint64_t n = 0;
    return cs_store_sessions_close_gate(a->store, gate, words_cut(why), &n);
}

enum cs_err cs_approval_sessions_closed(struct cs_approval *a, const struct cs_id *sessions,
                                        size_t n, struct cs_slice why)
{
    return cs_store_sessions_close(a->store, sessions, n, words_cut(why));
}

enum cs_err cs_approval_session_keeps(struct cs_approval *a, const struct cs_id *session,
                                      struct cs_slice request, const struct cs_id *grants,
                                      size_t n_grants)
{
    return cs_store_session_keeps(a->store, session, request, grants, n_grants,
                                  CS_SLICE_LIT("lost when the gateway's control was restarted"));
}

enum cs_err cs_approval_tick(struct cs_approval *a)
{
    uint64_t n = 0;
    return cs_store_expire(a->store, &n);
}

/* ---- people's side ---- */

void cs_approval_witness(struct cs_approval *a, cs_approval_witness_fn fn, void *arg)
{
    a->witness = fn;
    a->witness_arg = arg;
}

/* SECURITY: in this order. The leaf is durable before the vote counts. */
static enum cs_err say(struct cs_approval *a, const struct cs_approval_said *v, uint64_t *ret_state)
{
    enum cs_err err = a->witness != NULL ? a->witness(v, a->witness_arg) : CS_ERR_UNAVAILABLE;
    return err == CS_OK
               ? cs_store_vote_logged(a->store, v->request, v->approver_id, v->reason, ret_state)
               : err;
}

enum cs_err cs_approval_vote(struct cs_approval *a, struct cs_slice request,
                             struct cs_slice approver_id, bool approve,
                             const uint8_t digest[static CS_DIGEST], struct cs_slice reason,
                             enum cs_request_state *ret_state, const char **ret_why)
{
    *ret_why = "";
    if (reason.n > CS_LIMIT_REASON_BYTES) {
        *ret_why = "the reason is too long";
        return CS_ERR_TOO_LARGE;
    }
    if (!cs_utf8_valid(reason)) {
        *ret_why = "the reason is not valid text";
        return CS_ERR_INVALID;
    }
    uint64_t state = CS_STORE_NONE;
    enum cs_store_vote_refusal refusal = CS_STORE_VOTE_NONE;
    enum cs_err err =
        cs_store_vote(a->store, request, approver_id, approve, digest, reason, &state, &refusal);
    if (err != CS_OK) {
        *ret_why = refusal != CS_STORE_VOTE_NONE ? cs_store_vote_text(refusal) : cs_err_text(err);
        return err;
    }
    const struct cs_approval_said v = {.request = request,
                                       .approver_id = approver_id,
                                       .reason = reason,
                                       .digest = digest,
                                       .approve = approve};
    err = say(a, &v, &state);
    if (err != CS_OK && approve) {
        *ret_why = "the vote is stored, but the audit log cannot be written: it counts as soon as "
                   "the log has it";
        return err;
    }
    /* A no needs no log to be one: the tick says it again. */
    *ret_state = (enum cs_request_state)state;
    return CS_OK;
}

enum cs_err cs_approval_say_again(struct cs_approval *a)
{
    struct cs_store_unlogged *rows = NULL;
    struct cs_arena arena;
    size_t n = 0;
    cs_arena_init(&arena, 1024, SAY_AGAIN_BYTES);
    enum cs_err err = cs_store_votes_unlogged(a->store, &arena, &rows, &n);
    for (size_t i = 0; i < n && err == CS_OK; i++) {
        uint64_t state = CS_STORE_NONE;
        const struct cs_approval_said v = {.request = rows[i].request,
                                           .approver_id = rows[i].approver,
                                           .reason = rows[i].reason,
                                           .digest = rows[i].digest,
                                           .approve = rows[i].approve != 0,
                                           .at_ms = rows[i].at_ms};
        err = say(a, &v, &state);
    }
    cs_arena_done(&arena);
    return err;
}

enum cs_err cs_approval_cancel(struct cs_approval *a, struct cs_slice request,
                               struct cs_slice principal_id, struct cs_slice words)
{
    return cs_store_request_end(a->store, request, CS_STORE_CANCELLED, true, principal_id,
                                words_cut(words));
}

enum cs_err cs_approval_card(struct cs_approval *a, struct cs_slice request,
                             struct cs_slice viewer_id, struct cs_arena *arena, struct cs_card *ret)
{
    struct cs_store_request *r = CS_NEW(arena, struct cs_store_request);
    if (r == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    enum cs_err err = cs_store_request_get(a->store, request, viewer_id, arena, r);
    err = err != CS_OK ? err : cs_card_fill(r, arena, ret);
    if (err == CS_OK && viewer_id.n == 0) {
        ret->may_not_vote_because = NULL;
    }
    return err;
}

enum cs_err cs_approval_list(struct cs_approval *a, const struct cs_approval_query *query,
                             struct cs_arena *arena, struct cs_card **ret, size_t *ret_n,
                             uint64_t *ret_seq)
{
    struct cs_store_request_query q = {.state = query->state,
                                       .since = query->since,
                                       .viewer = query->viewer_id,
                                       .viewers_only = !query->all,
                                       .limit = query->limit,
                                       .action_max = CS_LIST_ACTION_BYTES,
                                       .oldest_first = query->oldest_first};
    struct cs_store_request *rows = NULL;
    size_t n = 0;
    uint64_t seq = 0;
    enum cs_err err = cs_store_request_list(a->store, &q, arena, &rows, &n, &seq);
    if (err != CS_OK) {
        return err;
    }
    struct cs_card *cards = CS_NEW_ARRAY(arena, struct cs_card, n > 0 ? n : 1);
    if (cards == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < n; i++) {
        err = cs_card_fill(&rows[i], arena, &cards[i]);
        if (err != CS_OK) {
            return err;
        }
    }
    *ret = cards;
    *ret_n = n;
    *ret_seq = seq;
    return CS_OK;
}

/* ---- after a reload ---- */

enum { VOID_PAGE = 8, VOID_ARENA = 64 * 1024 * 1024 };

/* One page of open requests, oldest change first; *last is the seq to go on from. */
static enum cs_err void_page(struct cs_approval *a,
                             bool (*stale)(const struct cs_card *c, void *arg), void *arg,
                             struct cs_slice words, struct cs_arena *arena, uint64_t *last,
                             uint64_t *ret_n)
{
    struct cs_store_request_query q = {.open_only = true,
                                       .since = *last,
                                       .limit = VOID_PAGE,
                                       .action_max = INT64_MAX,
                                       .oldest_first = true};
    struct cs_store_request *rows = NULL;
    size_t n = 0;
    uint64_t seq = 0;
    enum cs_err err = cs_store_request_list(a->store, &q, arena, &rows, &n, &seq);
    struct cs_card *card = err == CS_OK ? CS_NEW(arena, struct cs_card) : NULL;
    if (card == NULL) {
        return err != CS_OK ? err : CS_ERR_NO_MEMORY;
    }
    *last = n > 0 ? rows[n - 1].seq : UINT64_MAX;
    for (size_t i = 0; err == CS_OK && i < n; i++) {
        err = cs_card_fill(&rows[i], arena, card);
        /* What cannot be read cannot be decided again either. */
        bool gone = err == CS_ERR_CORRUPT || (err == CS_OK && stale(card, arg));
        if (gone) {
            err = cs_store_request_end(a->store, cs_slice_str(rows[i].id), CS_STORE_VOID, false,
                                       CS_SLICE_NULL, words);
            *ret_n += err == CS_OK;
        }
        err = err == CS_ERR_CONFLICT ? CS_OK : err; /* it ended by itself meanwhile */
    }
    return err;
}

enum cs_err cs_approval_void_where(struct cs_approval *a,
                                   bool (*stale)(const struct cs_card *c, void *arg), void *arg,
                                   struct cs_slice words, uint64_t *ret_n)
{
    struct cs_arena arena;
    cs_arena_init(&arena, 64 * 1024, VOID_ARENA);
    uint64_t last = 0;
    *ret_n = 0;
    enum cs_err err = CS_OK;
    /* What changes meanwhile gets a higher seq and is met later: nothing open is passed over. */
    while (err == CS_OK && last != UINT64_MAX) {
        err = void_page(a, stale, arg, words_cut(words), &arena, &last, ret_n);
        cs_arena_reset(&arena);
    }
    cs_arena_done(&arena);
    return err;
}
