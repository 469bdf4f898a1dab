/* The decision. At the opening of a session the rules that can concern it are selected, with the
 * members of the chain that each one matches; a decision evaluates only those: denies, then holds,
 * then allows, so that the strictest is known first. Called by gate/decide.c; it must never
 * allocate, and a forgotten case must come out as a deny. */
#include "policy/rules.h"

#include "base/attr.h"
#include "base/limits.h"

#include <stdarg.h>
#include <stdio.h>

struct entry {
    uint16_t rule;
    uint8_t members; /* bit i: it matches chain->p[i] */
};

struct cs_policy_session {
    const struct cs_rule_full *rules; /* borrowed from the policy */
    const struct cs_chain *chain;     /* borrowed from the caller */
    const struct cs_principal *lacks; /* the member that may not open, NULL: none */
    bool may_open;
    uint8_t everyone;
    uint32_t end[CS_ALLOW + 1]; /* entries up to here are of this outcome or stricter */
    struct entry e[];
};

_Static_assert((int)CS_LIMIT_CHAIN <= 8, "members are bits of a byte");
_Static_assert((int)CS_LIMIT_RULES <= UINT16_MAX, "rules are numbered in 16 bits");

/* ---- selection ---- */

static uint8_t members_of(const struct cs_rule_full *r, const struct cs_chain *chain,
                          const struct cs_target *target)
{
    uint8_t who = 0;
    bool all_except = r->except.groups.n + r->except.users.n > 0;
    if (!cs_rule_concerns(r, target)) {
        return 0;
    }
    for (size_t i = 0; i < chain->n; i++) {
        if (cs_who_matches(&r->who, &chain->p[i])) {
            who |= (uint8_t)(1U << i);
        }
        all_except = all_except && cs_who_matches(&r->except, &chain->p[i]);
    }
    /* SECURITY: an exception counts only for a chain in which everybody has it. */
    return all_except ? 0 : who;
}

/* Every member needs some allow or hold rule; a deny that asks no condition keeps everybody out
 * whom it names. */
static void check_opening(struct cs_policy_session *s)
{
    uint8_t let_in = 0, kept_out = 0;
    for (uint32_t i = 0; i < s->end[CS_ALLOW]; i++) {
        const struct cs_rule_full *r = &s->rules[s->e[i].rule];
        if (r->rule.then != CS_DENY) {
            let_in |= s->e[i].members;
        } else if (r->when.n_nodes == 0) {
            kept_out |= s->e[i].members;
        }
    }
    uint8_t ok = let_in & (uint8_t)~kept_out;
    s->may_open = s->everyone != 0 && ok == s->everyone;
    for (size_t i = 0; i < s->chain->n && s->lacks == NULL; i++) {
        if ((ok & (1U << i)) == 0) {
            s->lacks = &s->chain->p[i];
        }
    }
}

struct cs_policy_session *cs_policy_session_new(const struct cs_policy *p,
                                                const struct cs_chain *chain,
                                                const struct cs_target *target, struct cs_arena *a)
{
    const struct cs_rule_full *rules = NULL;
    size_t n_rules = cs_policy_rules(p, &rules), n = 0;
    if (chain->n > CS_LIMIT_CHAIN) {
        return NULL;
    }
    for (size_t i = 0; i < n_rules; i++) {
        n += members_of(&rules[i], chain, target) != 0;
    }
    struct cs_policy_session *s =
        cs_arena_alloc(a, sizeof(struct cs_policy_session) + n * sizeof(struct entry));
    if (s == NULL) {
        return NULL;
    }
    s->rules = rules;
    s->chain = chain;
    s->everyone = (uint8_t)((1U << chain->n) - 1);
    uint32_t at = 0;
    for (unsigned then = CS_DENY; then <= CS_ALLOW; then++) {
        for (size_t i = 0; i < n_rules && at < n; i++) {
            uint8_t members = rules[i].rule.then == then ? members_of(&rules[i], chain, target) : 0;
            if (members != 0) {
                s->e[at++] = (struct entry){(uint16_t)i, members};
            }
        }
        s->end[then] = at;
    }
    check_opening(s);
    return s;
}

bool cs_policy_may_open(const struct cs_policy_session *s, const struct cs_principal **ret_who)
{
    if (ret_who != NULL) {
        *ret_who = s != NULL ? s->lacks : NULL;
    }
    return s != NULL && s->may_open;
}

/* ---- the sentence ---- */

static void say(struct cs_decision *d, size_t *n, const char *fmt, ...) CS_PRINTF(3, 4);
static void say(struct cs_decision *d, size_t *n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int k = vsnprintf(d->why + *n, sizeof d->why - *n, fmt, ap);
    va_end(ap);
    *n = CS_MIN(sizeof d->why - 1, *n + (k > 0 ? (size_t)k : 0));
}

/* The sentence goes into protocol errors: no control bytes, no half a character at the end. */
static void tidy(struct cs_decision *d, size_t n)
{
    size_t good = 0;
    for (size_t at = 0; at < n;) {
        uint32_t cp = 0;
        size_t start = at;
        if (!cs_utf8_next(cs_slice(d->why, n), &at, &cp)) {
            d->why[start] = '?';
            if (n == sizeof d->why - 1 && start + 4 > n) {
                break; /* cut in the middle */
            }
        } else if (cp < 0x20 || cp == 0x7f) {
            d->why[start] = '?';
        }
        good = at;
    }
    d->why[good] = 0;
}

static void say_rule(struct cs_decision *d, const char *verb)
{
    size_t n = 0;
    const struct cs_rule *r = d->rules[0];
    say(d, &n, "rule \"%.*s\" %s this", CS_SLICE_FMT(r->name), verb);
    if (r->title.n > 0) {
        say(d, &n, ": %.*s", CS_SLICE_FMT(r->title));
    }
    if (d->n_rules > 1) {
        say(d, &n, " (and %zu more rule%s)", d->n_rules - 1, d->n_rules > 2 ? "s" : "");
    }
    tidy(d, n);
}

static void deny(struct cs_decision *d, const struct cs_principal *lacks, struct cs_slice named)
{
    size_t n = 0;
    *d = (struct cs_decision){.outcome = CS_DENY};
    if (lacks != NULL && named.n > 0) {
        say(d, &n, "no rule that names \"%.*s\" allows this for %s %.*s", CS_SLICE_FMT(named),
            cs_principal_kind_name(lacks->kind), CS_SLICE_FMT(lacks->name));
    } else if (lacks != NULL) {
        say(d, &n, "no rule allows this for %s %.*s", cs_principal_kind_name(lacks->kind),
            CS_SLICE_FMT(lacks->name));
    } else {
        say(d, &n, "no rule allows this for nobody");
    }
    tidy(d, n);
}

/* ---- the decision ---- */

static uint32_t shortest(uint32_t so_far, uint32_t s)
{
    return so_far == 0 || (s != 0 && s < so_far) ? s : so_far;
}

/* What one more rule asks of the record. */
static void add_record(struct cs_decision *d, const struct cs_rule *r)
{
    enum cs_record record = r->record == CS_RECORD_UNSAID ? CS_RECORD_HEAD : r->record;
    d->record = CS_MAX(d->record, record);
    d->durability = CS_MAX(d->durability, r->durability);
    d->durable_by_class = d->durable_by_class || r->durability == CS_DURABLE_UNSAID;
}

static void add_hold(struct cs_decision *d, const struct cs_rule *r)
{
    const struct cs_approvers *a = &r->approvers;
    d->elevated = (d->n_rules == 0 || d->elevated) && r->elevated;
    d->copy_uncovered = (d->n_rules == 0 || d->copy_uncovered) && r->copy_uncovered;
    add_record(d, r);
    d->within_s = shortest(d->within_s, a->within_s);
    d->valid_s = shortest(d->valid_s, a->valid_s);
    d->attach_s = shortest(d->attach_s, a->attach_s);
    d->wait_s = shortest(d->wait_s, a->wait_s);
    if (d->n_rules < CS_RULES_FIRED) {
        d->rules[d->n_rules] = r;
    }
    d->n_rules++;
}

/* SECURITY: some verbs a rule must name to permit them (action/named.def): "allow everything" was
 * not written with them in mind. What is unknown may be one, but an allow does not match it and a
 * person sees a hold. */
static bool permits(const struct cs_rule_full *r, struct cs_slice named)
{
    return named.n == 0 || cs_cel_names_verb(&r->when, named);
}

static struct cs_slice must_be_named(const struct cs_facts *facts)
{
    const struct cs_fact *verb = &facts->v[CS_FACT_SQL_VERB];
    bool named = verb->state == CS_FACT_KNOWN && cs_verb_named(verb->u.string) != CS_NAMED_NONE;
    return named ? verb->u.string : CS_SLICE_NULL;
}

/* Evaluates the entries [from, to) whose rules deny or hold: what is unknown matches. */
static void match_strict(const struct cs_policy_session *s, const struct cs_cel_input *in,
                         struct cs_slice named, uint32_t from, uint32_t to, uint8_t *covered,
                         struct cs_decision *ret)
{
    for (uint32_t i = from; i < to; i++) {
        const struct cs_rule_full *r = &s->rules[s->e[i].rule];
        if (cs_cel_eval(&r->when, in) == CS_TRI_FALSE) {
            continue;
        }
        *covered |= permits(r, named) ? s->e[i].members : 0;
        if (r->rule.then == CS_HOLD) {
            add_hold(ret, &r->rule);
        } else if (ret->n_rules < CS_RULES_FIRED) {
            ret->rules[ret->n_rules++] = &r->rule;
        } else {
            return; /* denied, and the card is full */
        }
    }
}

/* Allows: what is unknown does not match. Behind a hold they only have to cover the members that no
 * hold covers. */
static void match_allow(const struct cs_policy_session *s, const struct cs_cel_input *in,
                        struct cs_slice named, bool held, uint8_t *covered, struct cs_decision *ret)
{
    for (uint32_t i = s->end[CS_HOLD]; i < s->end[CS_ALLOW]; i++) {
        const struct cs_rule_full *r = &s->rules[s->e[i].rule];
        if (*covered == s->everyone && (held || ret->n_rules == CS_RULES_FIRED)) {
            if (held) {
                return;
            }
            add_record(ret, &r->rule); /* too many to be judged: it may match */
            continue;
        }
        if (!permits(r, named) || cs_cel_eval(&r->when, in) != CS_TRI_TRUE) {
            continue;
        }
        *covered |= s->e[i].members;
        if (!held) { /* a hold's own rules say what is recorded: which allows are met hangs on order
                      */
            add_record(ret, &r->rule);
        }
        if (!held && ret->n_rules < CS_RULES_FIRED) {
            ret->rules[ret->n_rules++] = &r->rule;
        }
    }
}

static const struct cs_principal *uncovered(const struct cs_policy_session *s, uint8_t covered)
{
    for (size_t i = 0; i < s->chain->n; i++) {
        if ((covered & (1U << i)) == 0) {
            return &s->chain->p[i];
        }
    }
    return NULL;
}

static void decide(const struct cs_policy_session *s, const struct cs_facts *facts,
                   struct cs_cel_pause *pause, struct cs_decision *ret)
{
    uint8_t covered = 0;
    *ret = (struct cs_decision){.outcome = CS_DENY};
    if (s == NULL || s->everyone == 0) {
        deny(ret, NULL, CS_SLICE_NULL);
        return;
    }
    struct cs_cel_input in;
    cs_cel_prepare(facts, &in);
    in.pause = pause;
    struct cs_slice named = must_be_named(facts);
    match_strict(s, &in, named, 0, s->end[CS_DENY], &covered, ret);
    if (ret->n_rules > 0) {
        say_rule(ret, "denies");
        return;
    }
    match_strict(s, &in, named, s->end[CS_DENY], s->end[CS_HOLD], &covered, ret);
    bool held = ret->n_rules > 0;
    if (ret->n_rules > CS_RULES_FIRED) {
        size_t n = 0;
        size_t holds = ret->n_rules;
        *ret = (struct cs_decision){.outcome = CS_DENY};
        say(ret, &n, "%zu rules hold this at once, more than the %d that an approver could read",
            holds, CS_RULES_FIRED);
        return;
    }
    match_allow(s, &in, named, held, &covered, ret);
    if (covered != s->everyone) {
        deny(ret, uncovered(s, covered), named);
        return;
    }
    ret->outcome = held ? CS_HOLD : CS_ALLOW;
    say_rule(ret, held ? "holds" : "allows");
}

void cs_policy_decide(const struct cs_policy_session *s, const struct cs_facts *facts,
                      struct cs_decision *ret)
{
    decide(s, facts, NULL, ret);
}

void cs_policy_decide_in_pieces(const struct cs_policy_session *s, const struct cs_facts *facts,
                                void (*fn)(void *arg), void *arg, struct cs_decision *ret)
{
    struct cs_cel_pause pause = {.fn = fn, .arg = arg, .left = CS_PIECE_STEPS};
    decide(s, facts, &pause, ret);
}

bool cs_policy_names(const struct cs_policy_session *s, enum cs_named family)
{
    for (uint32_t i = s->end[CS_DENY]; i < s->end[CS_ALLOW]; i++) {
        if (cs_cel_names_family(&s->rules[s->e[i].rule].when, family)) {
            return true;
        }
    }
    return false;
}

bool cs_policy_reads(const struct cs_policy_session *s, enum cs_fact_id fact)
{
    for (uint32_t i = 0; i < s->end[CS_ALLOW]; i++) {
        if (cs_cel_reads(&s->rules[s->e[i].rule].when, fact)) {
            return true;
        }
    }
    return false;
}
