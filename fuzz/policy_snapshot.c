/* Fuzzes the loader of the policy part of a snapshot. Properties: refused, or every target can be
 * opened and decided on without a crash; an allow or a hold always names its rules; a hold can be
 * approved. */
#include "policy/policy.h"

#include <stdlib.h>

/* A literal for static tables. */
#define WORD(s)                                                                                    \
    {                                                                                              \
        (const uint8_t *)(s), sizeof(s) - 1                                                        \
    }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void decide(const struct cs_policy *p, const struct cs_target *t, struct cs_arena *a)
{
    static struct cs_slice groups[] = {WORD("agents"), WORD("dba")};
    static struct cs_slice effects[] = {WORD("write"), WORD("opaque")};
    struct cs_chain chain = {.n = 2};
    struct cs_facts f;
    struct cs_decision d;
    chain.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:a"),
                                       CS_SLICE_LIT("a"), &groups[1], 1};
    chain.p[1] = (struct cs_principal){CS_PRINCIPAL_AGENT, CS_SLICE_LIT("local:b"),
                                       CS_SLICE_LIT("b"), &groups[0], 1};
    const struct cs_policy_session *s = cs_policy_session_new(p, &chain, t, a);
    memset(&f, 0, sizeof f);
    f.v[CS_FACT_SQL_EFFECTS].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.v = effects;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.n = 2;
    cs_policy_decide(s, &f, &d);
    check(d.outcome == CS_DENY || (d.n_rules > 0 && d.n_rules <= CS_RULES_FIRED));
    check(d.outcome != CS_HOLD || (d.within_s > 0 && d.rules[0]->approvers.quorum > 0));
    check(strlen(d.why) > 0 && cs_utf8_valid(cs_slice_str(d.why)));
    (void)cs_policy_may_open(s, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_arena a;
    struct cs_policy *p = NULL;
    cs_arena_init(&a, 4096, 64U << 20);
    if (cs_policy_load(cs_slice(data, size), &a, &p) == CS_OK) {
        for (size_t i = 0; i < cs_policy_target_count(p) && i < 8; i++) {
            decide(p, cs_policy_target_at(p, i), &a);
        }
        for (size_t i = 0; i < cs_policy_rule_count(p) && i < 8; i++) {
            (void)cs_policy_rule(p, CS_SLICE_LIT("read"));
        }
    }
    cs_arena_done(&a);
    return 0;
}
