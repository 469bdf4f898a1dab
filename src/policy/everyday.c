/* What a target's everyday credential is needed for: could the rules let an action through with it,
 * for anybody? Read by the checks of a target (check/), which compare the answer with the rights
 * that the role has. A question about the configuration, not a decision: nothing is let through on
 * its answer. */
#include "policy/rules.h"

static bool contains(const struct cs_names *all, const struct cs_names *some)
{
    for (size_t i = 0; i < some->n; i++) {
        size_t k = 0;
        while (k < all->n && !cs_slice_eq(all->v[k], some->v[i])) {
            k++;
        }
        if (k == all->n) {
            return false;
        }
    }
    return true;
}

static bool who_contains(const struct cs_who *all, const struct cs_who *some)
{
    return contains(&all->groups, &some->groups) && contains(&all->users, &some->users);
}

/* Is everybody whom `r` concerns surely concerned by `b` too? */
static bool covers(const struct cs_rule_full *b, const struct cs_rule_full *r)
{
    return who_contains(&b->who, &r->who) && who_contains(&r->except, &b->except);
}

static bool with_everyday(const struct cs_rule *r)
{
    return r->then == CS_ALLOW || (r->then == CS_HOLD && !r->elevated);
}

/* Does `b`, when it fires too, keep `r` from letting the action run with the everyday credential?
 * Elevated needs every hold to say so. */
static bool beats(const struct cs_rule *b, const struct cs_rule *r)
{
    return b->then == CS_DENY || (b->then == CS_HOLD && b->elevated && r->then == CS_ALLOW);
}

static bool beaten(const struct cs_rule_full *rules, size_t n, const struct cs_rule_full *r,
                   const struct cs_target *t, const struct cs_cel_input *in)
{
    for (size_t i = 0; i < n; i++) {
        const struct cs_rule_full *b = &rules[i];
        if (beats(&b->rule, &r->rule) && cs_rule_concerns(b, t) && covers(b, r) &&
            cs_cel_eval(&b->when, in) == CS_TRI_TRUE) {
            return true;
        }
    }
    return false;
}

enum cs_tri cs_policy_everyday(const struct cs_policy *p, const struct cs_target *target,
                               const struct cs_facts *facts)
{
    const struct cs_rule_full *rules = NULL;
    size_t n = cs_policy_rules(p, &rules);
    struct cs_cel_input in;
    enum cs_tri best = CS_TRI_FALSE;
    cs_cel_prepare(facts, &in);
    for (size_t i = 0; i < n && best != CS_TRI_TRUE; i++) {
        if (!with_everyday(&rules[i].rule) || !cs_rule_concerns(&rules[i], target)) {
            continue;
        }
        enum cs_tri v = cs_cel_eval(&rules[i].when, &in);
        if (v != CS_TRI_FALSE && !beaten(rules, n, &rules[i], target, &in)) {
            best = v;
        }
    }
    return best;
}
