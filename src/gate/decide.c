/* Enforcement: the one place where an action becomes allow, hold or deny, and where it is recorded
 * before anything of it goes upstream. Reviewable alone.
 *
 * The order: limits → configuration in force → the free effects → the rules → the record. Whatever
 * fails on the way denies: struct cs_verdict starts as zeros, and zero is DENY. */
#include "action/frame.h"
#include "base/alloc.h"
#include "base/log.h"
#include "gate/gate.h"
#include "gate/protocol.h"

#include <stdio.h>

_Static_assert(sizeof(struct cs_decision) <= CS_DECISION_BYTES, "a verdict carries a decision");

static void say(char *out, size_t n, const char *text)
{
    (void)snprintf(out, n, "%s", text);
}

/* Between two pieces of a judgement others run, and with them whoever brings new rules, a new
 * catalogue, or the end of this session.
 *
 * SECURITY: what a judgement reads stays as it is: the rules are the session's own view, which only
 * its own coroutine moves (cs_session_refresh), and its reference keeps the configuration; the
 * action is the caller's, who waits for us. What came meanwhile is looked for behind the last piece
 * (is_current), and whoever finds something has judged nothing. */
static void let_others_run(void *session)
{
    struct cs_session *s = session;
    if (!s->at_once) {
        (void)cs_co_breathe(); /* cancelled: the next wait says so */
    }
}

struct basis { /* what a judgement rests on beside the action */
    const struct cs_gate_config *config;
    uint64_t catalogue; /* the action's facts were made by it */
};

static struct basis basis_of(const struct cs_session *s)
{
    return (struct basis){s->gate->config, s->gate->catalogue_generation};
}

/* Only once in a row: whoever makes the catalogue another all the time must not keep a session from
 * ever being judged, and the next time it takes as long as it takes. */
static bool is_current(struct cs_session *s, struct basis b)
{
    struct basis now = basis_of(s);
    bool same = now.config == b.config && now.catalogue == b.catalogue;
    s->at_once = !same;
    return same;
}

/* What the rules say; false: they are others by now, or what the action's facts came from is, and
 * `ret` is a deny. Two things need no rule on an open session (product.md, Semantics): an action
 * that is only `session`, and one that is only ROLLBACK, which is never denied or held because
 * refusing it would keep locks and a half-done transaction alive. */
static bool rules_say(struct cs_session *s, const struct cs_action *a, struct cs_decision *ret)
{
    struct basis basis = basis_of(s);
    *ret = (struct cs_decision){.outcome = CS_DENY};
    if (!cs_session_refresh(s)) {
        say(ret->why, sizeof ret->why, "the target is no longer in the configuration");
        if (a->only_rollback) {
            ret->outcome = CS_ALLOW;
        }
        return true;
    }
    if (a->only_rollback || a->only_session) {
        ret->outcome = CS_ALLOW;
        say(ret->why, sizeof ret->why, "no effect beyond the session");
        return true;
    }
    cs_policy_decide_in_pieces(s->policy, &a->facts, let_others_run, s, ret);
    if (!is_current(s, basis)) {
        *ret = (struct cs_decision){.outcome = CS_DENY};
        say(ret->why, sizeof ret->why, "the rules changed while it was judged");
        return false;
    }
    return true;
}

static struct cs_slice joined_rules(const struct cs_decision *d, struct cs_writer *w)
{
    for (size_t i = 0; i < d->n_rules; i++) {
        if (i > 0) {
            cs_writer_u8(w, ',');
        }
        cs_writer_bytes(w, d->rules[i]->name);
    }
    return cs_writer_done(w);
}

static struct cs_slice joined_effects(const struct cs_action *a, struct cs_writer *w)
{
    const struct cs_fact *f = &a->facts.v[CS_FACT_SQL_EFFECTS];
    for (size_t i = 0; f->state == CS_FACT_KNOWN && i < f->u.strings.n; i++) {
        if (i > 0) {
            cs_writer_u8(w, ',');
        }
        cs_writer_bytes(w, f->u.strings.v[i]);
    }
    return cs_writer_done(w);
}

/* As cs_writer_slice. Others run between the pieces of a long one: it lies with the caller, who
 * waits, and goes into memory of this call's. */
static void pack_bytes(struct cs_writer *w, struct cs_slice bytes)
{
    cs_writer_u32le(w, (uint32_t)bytes.n);
    while (bytes.n > 0) {
        struct cs_slice piece = cs_slice_head(bytes, CS_LIMIT_PIECE_BYTES);
        cs_writer_bytes(w, piece);
        bytes = cs_slice_from(bytes, piece.n);
        if (bytes.n > 0) {
            (void)cs_co_breathe();
        }
    }
}

/* Parameters as the record keeps them: per parameter u8 null, u16le format, u32le type, slice. The
 * memory is this call's own: appending to a full ring waits, and other sessions run meanwhile. */
static struct cs_slice packed_params(const struct cs_action *a, uint8_t *mem, size_t cap)
{
    struct cs_writer w = cs_writer(mem, cap);
    for (size_t i = 0; i < a->n_params; i++) {
        cs_writer_u8(&w, a->params[i].null ? 1 : 0);
        cs_writer_u16le(&w, a->params[i].format);
        cs_writer_u32le(&w, a->params[i].type);
        pack_bytes(&w, a->params[i].bytes);
    }
    return cs_writer_done(&w);
}

static size_t params_size(const struct cs_action *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n_params; i++) {
        n += 1 + 2 + 4 + 4 + a->params[i].bytes.n;
    }
    return n;
}

/* When it must be on disk (identity-audit 5.4): as the rules say, and by what it does where one of
 * them, or none, does not say. */
static enum cs_durability durability(const struct cs_action *a, const struct cs_decision *d)
{
    bool by_class = d->durable_by_class || d->n_rules == 0;
    enum cs_durability least = by_class && a->changing ? CS_DURABLE_COMMAND : CS_DURABLE_ASYNC;
    return CS_MAX(least, d->durability);
}

static enum cs_err record_action(struct cs_session *s, const struct cs_action *a,
                                 const struct cs_verdict *v)
{
    CS_UNINIT uint8_t small[512], rules[CS_RULES_FIRED * 65], effects[64];
    size_t size = params_size(a);
    uint8_t *params = size <= sizeof small ? small : cs_alloc(size);
    if (params == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_writer rw = cs_writer(rules, sizeof rules), ew = cs_writer(effects, sizeof effects);
    const struct cs_fact *verb = &a->facts.v[CS_FACT_SQL_VERB];
    struct cs_frame_action f = {
        .n = v->n,
        .outcome = v->outcome,
        .rules = joined_rules(CS_VERDICT_DECISION_CONST(v), &rw),
        .why = cs_slice_str(CS_VERDICT_DECISION_CONST(v)->why),
        .policy = s->config != NULL ? cs_policy_version(s->config->policy) : 0,
        .effects = joined_effects(a, &ew),
        .verb = verb->state == CS_FACT_KNOWN ? verb->u.string : CS_SLICE_NULL,
        .text = a->bytes,
        .params = packed_params(a, params, size),
        .tx = a->tx,
    };
    bool durable = durability(a, CS_VERDICT_DECISION_CONST(v)) >= CS_DURABLE_COMMAND;
    enum cs_err e = cs_gate_append(s, CS_FRAME_ACTION, &f, durable && v->outcome == CS_ALLOW);
    if (params != small) {
        cs_free(params);
    }
    return e;
}

static void refuse(struct cs_verdict *v, enum cs_refusal why, const char *message, const char *hint)
{
    v->outcome = CS_DENY;
    v->refusal = why;
    say(v->message, sizeof v->message, message);
    say(v->hint, sizeof v->hint, hint);
}

static void outcome_to_verdict(struct cs_verdict *v)
{
    const struct cs_decision *d = CS_VERDICT_DECISION(v);
    v->outcome = d->outcome;
    v->elevated = d->outcome == CS_HOLD && d->elevated;
    v->uncovered = d->outcome == CS_HOLD && d->copy_uncovered;
    v->record = d->n_rules > 0 ? (uint8_t)d->record : (uint8_t)CS_RECORD_HEAD;
    v->strict = d->durability == CS_DURABLE_STRICT;
    if (d->outcome == CS_DENY) {
        v->refusal = CS_REFUSAL_RULE;
        (void)snprintf(v->message, sizeof v->message, "Countersign denied this: %s", d->why);
        say(v->hint, sizeof v->hint, "Ask whoever owns the rules if this should be possible.");
    }
}

/* Only what says something: the texts are strings, and the decision is always written whole. */
static void verdict_clear(struct cs_verdict *v)
{
    memset(v, 0, offsetof(struct cs_verdict, message));
    v->message[0] = v->hint[0] = v->detail[0] = 0;
}

struct cs_verdict *cs_verdict_new(struct cs_session *s)
{
    struct cs_verdict *v = s->gate->spare_verdict;
    if (v == NULL) {
        return cs_alloc(sizeof *v);
    }
    s->gate->spare_verdict = NULL;
    verdict_clear(v);
    return v;
}

void cs_verdict_free(struct cs_session *s, struct cs_verdict *v)
{
    if (s->gate->spare_verdict == NULL) {
        s->gate->spare_verdict = v;
    } else {
        cs_free(v);
    }
}

bool cs_gate_preview(struct cs_session *s, const struct cs_action *a, enum cs_outcome *ret)
{
    struct cs_decision d;
    bool current = rules_say(s, a, &d);
    *ret = d.outcome;
    return current;
}

bool cs_gate_covers_data(struct cs_session *s, const struct cs_action *a)
{
    struct cs_decision d;
    bool at_once = s->at_once;
    s->at_once = true; /* one short statement; and no answer would be none */
    bool current = rules_say(s, a, &d);
    s->at_once = at_once;
    return current && d.outcome == CS_HOLD && !d.copy_uncovered;
}

/* True when the memo's decision is still the answer: same view of the rules, same transaction
 * state. */
static bool remembered(struct cs_session *s, const struct cs_action *a, const struct cs_memo *m,
                       struct cs_decision *ret)
{
    if (m == NULL || m->decision == NULL || !cs_session_refresh(s) || s->reads_params ||
        m->generation != s->policy_generation || m->catalogue != s->gate->catalogue_generation ||
        !cs_slice_eq(m->tx, a->facts.v[CS_FACT_SQL_TX].u.string)) {
        return false;
    }
    *ret = *m->decision;
    return true;
}

static void remember(const struct cs_session *s, const struct cs_action *a,
                     const struct cs_decision *d, struct cs_memo *m)
{
    /* SECURITY: by the same statement with other values it may be another decision. */
    if (m == NULL || d->outcome != CS_ALLOW || a->narrowed || s->reads_params) {
        return;
    }
    if (m->decision == NULL) {
        m->decision = cs_alloc(sizeof *m->decision);
    }
    if (m->decision != NULL) {
        *m->decision = *d;
        m->generation = s->policy_generation;
        m->catalogue = s->gate->catalogue_generation;
        m->tx = a->facts.v[CS_FACT_SQL_TX].u.string;
    }
}

void cs_memo_done(struct cs_memo *m)
{
    cs_free(m->decision);
    *m = (struct cs_memo){0};
}

bool cs_gate_decide(struct cs_session *s, const struct cs_action *a, struct cs_memo *memo,
                    struct cs_verdict *ret)
{
    verdict_clear(ret);
    uint64_t began_ns = cs_count_begin(s->gate);
    if (!remembered(s, a, memo, CS_VERDICT_DECISION(ret))) {
        if (!rules_say(s, a, CS_VERDICT_DECISION(ret))) {
            outcome_to_verdict(ret);
            return false;
        }
        remember(s, a, CS_VERDICT_DECISION(ret), memo);
    }
    ret->n = ++s->actions;
    outcome_to_verdict(ret);
    if (s->kill.set && ret->outcome != CS_DENY) {
        /* Also one that came while it was judged. */
        refuse(ret, CS_REFUSAL_CLOSED, "Countersign denied this: the session is being ended", "");
    }
    if (a->unkeyed && ret->outcome != CS_DENY) {
        refuse(ret, CS_REFUSAL_RECORD,
               "Countersign denied this: it may have a password in it, and the key with which "
               "passwords are kept out of the record is not here yet",
               "Try again in a moment.");
    }
    if (ret->outcome == CS_HOLD && !cs_action_fits(a)) {
        refuse(ret, CS_REFUSAL_LIMIT,
               "Countersign denied this: it is larger than what can be held for approval",
               "Split it into smaller statements.");
    }
    enum cs_err e = record_action(s, a, ret);
    if (e == CS_ERR_TOO_LARGE) {
        refuse(ret, CS_REFUSAL_LIMIT,
               "Countersign denied this: it is larger than what can be recorded",
               "Split it into smaller statements.");
    } else if (e != CS_OK) {
        /* Promise 3: what cannot be recorded does not run. */
        bool closing = e == CS_ERR_CANCELLED;
        refuse(ret, closing ? CS_REFUSAL_CLOSED : CS_REFUSAL_RECORD,
               "Countersign denied this: it cannot be recorded now",
               "The gateway's operator must free space or repair its disk; then try again.");
        cs_log(CS_EV_RECORD_FAILED, &s->id, "action=%llu error=%s", (unsigned long long)ret->n,
               cs_err_name(e));
    }
    if (ret->outcome == CS_ALLOW && a->defining) {
        cs_gate_defining(s, false);
    }
    cs_count_decision(s, a, ret->outcome, began_ns);
    if (ret->outcome == CS_DENY) {
        cs_log(CS_EV_ACTION_DENIED, &s->id, "action=%llu why=%s", (unsigned long long)ret->n,
               cs_log_quote(cs_slice_str(ret->message)).text);
    }
    return true;
}

enum cs_err cs_gate_may_open(struct cs_session *s, char *why, size_t why_size)
{
    const struct cs_principal *who = NULL;
    if (!cs_session_refresh(s)) {
        (void)snprintf(why, why_size, "target \"%.*s\" does not exist",
                       CS_SLICE_FMT(s->target_name));
        return CS_ERR_NOT_FOUND;
    }
    if (!cs_slice_eq_str(s->target->kind, s->protocol->name)) {
        (void)snprintf(why, why_size, "target \"%.*s\" does not speak %s",
                       CS_SLICE_FMT(s->target_name), s->protocol->name);
        return CS_ERR_NOT_FOUND;
    }
    if (!cs_policy_may_open(s->policy, &who)) {
        struct cs_slice name = who != NULL ? who->name : CS_SLICE_LIT("?");
        (void)snprintf(why, why_size, "no rule lets %s \"%.*s\" use target \"%.*s\"",
                       who != NULL ? cs_principal_kind_name(who->kind) : "principal",
                       CS_SLICE_FMT(name), CS_SLICE_FMT(s->target_name));
        return CS_ERR_DENIED;
    }
    return CS_OK;
}

bool cs_gate_names(const struct cs_session *s, enum cs_named family)
{
    return s->policy != NULL && cs_policy_names(s->policy, family);
}

bool cs_gate_reads_params(const struct cs_session *s)
{
    return s->reads_params;
}

struct cs_slice cs_gate_database(const struct cs_session *s, bool elevated)
{
    const struct cs_target *t = s->target;
    if (t == NULL) {
        return CS_SLICE_NULL;
    }
    return elevated && t->elevated_database.n > 0 ? t->elevated_database : t->database;
}

struct cs_slice cs_gate_role(const struct cs_session *s, bool elevated)
{
    const struct cs_target *t = s->target;
    if (t == NULL) {
        return CS_SLICE_NULL;
    }
    return elevated ? t->elevated_user : t->user;
}

struct cs_slice cs_gate_target_host(const struct cs_session *s)
{
    struct cs_slice host = CS_SLICE_NULL;
    uint16_t port;
    if (s->target == NULL || !cs_addr_split(s->target->address, false, &host, &port)) {
        return CS_SLICE_NULL;
    }
    return host;
}

struct cs_slice cs_gate_server(const struct cs_session *s, struct cs_arena *a)
{
    return s->target != NULL ? cs_action_server(s->target->address, s->target->tls, a)
                             : CS_SLICE_NULL;
}
