/* The whole of a rule, and the policy part of a snapshot as bytes: what config/ builds and policy.c
 * loads. Sessions see policy/policy.h only. */
#ifndef CS_POLICY_RULES_H
#define CS_POLICY_RULES_H

#include "base/buf.h"
#include "policy/cel.h"
#include "policy/policy.h"

enum { CS_POLICY_TARGETS = 10000, CS_QUORUM_MAX = 16 };

struct cs_names {
    struct cs_slice *v;
    size_t n;
};

/* A principal matches when it is in one of the groups or is one of the users ("local:alice").
 * Empty: nobody. */
struct cs_who {
    struct cs_names groups, users;
};

/* Empty lists select every target. Labels: all of them. */
struct cs_target_selector {
    struct cs_names kinds, names, label_keys, label_values;
};

struct cs_rule_full {
    struct cs_rule rule;
    struct cs_who who, except;
    struct cs_target_selector target;
    struct cs_slice code; /* compiled condition, empty: always */
    struct cs_cel when;   /* loaded */
};

struct cs_policy_source {
    uint64_t version;
    const struct cs_rule_full *rules; /* ascending by name, no name twice */
    size_t n_rules;
    const struct cs_target *targets; /* ascending by name, no name twice */
    size_t n_targets;
};

/* `out` goes bad when something exceeds a limit. */
void cs_policy_build(const struct cs_policy_source *s, struct cs_buf *out);

/* [a-z0-9-]{1,64}: fits the wait line, a URL and a shell. */
bool cs_rule_name_valid(struct cs_slice s);
/* The fact families that targets of this kind supply, as bits; 0: there is no such kind. */
uint32_t cs_target_kind_families(struct cs_slice kind);
/* Does the rule concern this target: selector, and families that its condition names? */
bool cs_rule_concerns(const struct cs_rule_full *r, const struct cs_target *t);
bool cs_who_matches(const struct cs_who *w, const struct cs_principal *p);
/* For policy/ itself. */
size_t cs_policy_rules(const struct cs_policy *p, const struct cs_rule_full **ret);

#endif
