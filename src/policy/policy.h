/* Rules: who + target + condition → allow, hold or deny. Pure. Strictest wins; order never matters;
 * nothing matched means deny (design/product.md, Configuration: every sentence there is a test).
 *
 * A struct cs_policy is a view into a snapshot (config/ compiles it, sealed memory carries it). At
 * the opening of a session the rules that can concern it are selected once (cs_policy_session); a
 * decision then evaluates only those. */
#ifndef CS_POLICY_POLICY_H
#define CS_POLICY_POLICY_H

#include "action/chain.h"
#include "action/facts.h"
#include "action/outcome.h"
#include "base/arena.h"
#include "base/err.h"
#include "base/slice.h"
#include "policy/cel.h"

struct cs_policy;

/* What a hold rule asks for. */
struct cs_approvers {
    struct cs_slice *groups; /* any of them */
    size_t n_groups;
    uint32_t quorum;
    uint32_t within_s, valid_s, attach_s;
    uint32_t wait_s; /* how long a connection waits; 0 = as long as the request lives */
};

/* How much of an answer is recorded, and when what is recorded must be on disk. Of several rules
 * the one that asks for more counts: of one that says nothing, the default. */
enum cs_record {
    CS_RECORD_UNSAID, /* head */
    CS_RECORD_NONE,   /* the action, its facts, counts */
    CS_RECORD_HEAD,   /* … and the first bytes of its data, and the hash of the others */
    CS_RECORD_FULL,
};
enum cs_durability {
    CS_DURABLE_UNSAID,  /* by what the action does: command if it changes something, else async */
    CS_DURABLE_ASYNC,   /* soon: at most 200 ms, or 1 MiB, behind */
    CS_DURABLE_COMMAND, /* what is asked, before the target gets it */
    CS_DURABLE_STRICT,  /* … and the answer, before its end is released */
};

struct cs_rule {
    struct cs_slice name, title;
    enum cs_outcome then;
    bool elevated;
    bool copy_uncovered; /* the data of a COPY FROM STDIN is not part of what is approved */
    enum cs_record record;
    enum cs_durability durability;
    struct cs_approvers approvers; /* of a hold */
};

struct cs_target {
    struct cs_slice name, kind; /* kind: "postgres" */
    struct cs_slice address;    /* host:port */
    struct cs_slice database;
    struct cs_slice tls;             /* off, require, verify-ca, verify-full */
    struct cs_slice channel_binding; /* disable, prefer, require */
    struct cs_slice authentication;  /* of the everyday credential: scram-sha-256, md5, cleartext */
    struct cs_slice tls_roots;       /* PEM, empty = the system's (in the snapshot) */
    struct cs_slice *label_keys, *label_values;
    size_t n_labels;
    struct cs_slice user, password; /* everyday credential; password: secret's name */
    bool has_elevated;
    struct cs_slice elevated_user, elevated_password; /* database of the elevated one: below */
    struct cs_slice elevated_database;
    bool has_probe; /* else what is looked at is looked at with the everyday one */
    struct cs_slice probe_user, probe_password, probe_authentication;
};

/* Parses and checks the policy part of a snapshot; slices borrow from `snapshot`, arrays come from
 * the arena. CS_ERR_CORRUPT when it is not one. */
enum cs_err cs_policy_load(struct cs_slice snapshot, struct cs_arena *a,
                           struct cs_policy **ret) CS_MUST_CHECK;
uint64_t cs_policy_version(const struct cs_policy *p); /* set by the compiler: from the content */
const struct cs_target *cs_policy_target(const struct cs_policy *p, struct cs_slice name);
const struct cs_rule *cs_policy_rule(const struct cs_policy *p, struct cs_slice name);
size_t cs_policy_rule_count(const struct cs_policy *p);
size_t cs_policy_target_count(const struct cs_policy *p);
const struct cs_target *cs_policy_target_at(const struct cs_policy *p, size_t i);

/* ---- a session's view ---- */
struct cs_policy_session;
/* Selects the rules for this chain and target. NULL when memory is out (then: deny). Policy and
 * chain are borrowed: they must live as long as the session's view. */
struct cs_policy_session *cs_policy_session_new(const struct cs_policy *p,
                                                const struct cs_chain *chain,
                                                const struct cs_target *target, struct cs_arena *a);
/* Opening a session: every member of the chain needs some allow or hold rule whose who and target
 * match it, and no deny rule without a condition. `ret_who` (may be NULL) gets the member that may
 * not. */
bool cs_policy_may_open(const struct cs_policy_session *s, const struct cs_principal **ret_who);
/* Is there a rule that may permit one of these verbs, which rules must name? */
bool cs_policy_names(const struct cs_policy_session *s, enum cs_named family);
/* Does one of them look at this fact? */
bool cs_policy_reads(const struct cs_policy_session *s, enum cs_fact_id fact);

enum { CS_RULES_FIRED = 16 };
struct cs_decision {
    enum cs_outcome outcome;
    const struct cs_rule
        *rules[CS_RULES_FIRED]; /* the matching ones of the outcome; deny by none: 0 */
    size_t n_rules;
    bool elevated;                                /* every matching hold says so */
    bool copy_uncovered;                          /* … this too */
    enum cs_record record;                        /* of allow and hold; never UNSAID */
    enum cs_durability durability;                /* the strictest that a rule says */
    bool durable_by_class;                        /* one of the rules says nothing of it */
    uint32_t within_s, valid_s, attach_s, wait_s; /* the shortest of the matching holds */
    char why[200];                                /* one sentence for people, NUL-terminated */
};
/* Evaluates. More than CS_RULES_FIRED matching holds is a deny (nobody could read the card). Does
 * not allocate. */
void cs_policy_decide(const struct cs_policy_session *s, const struct cs_facts *facts,
                      struct cs_decision *ret);
/* The same in pieces: calls fn(arg) between them, which may let others run. The session's view, its
 * policy and the facts must be the same when it returns. */
void cs_policy_decide_in_pieces(const struct cs_policy_session *s, const struct cs_facts *facts,
                                void (*fn)(void *arg), void *arg, struct cs_decision *ret);

/* ---- about the configuration, for checks of a target; no decision rests on these ---- */
/* Could an action with these facts run with the target's everyday credential, for anybody, after
 * approval or without? FALSE: no rule lets it. UNKNOWN: that hangs on facts which are unknown. */
enum cs_tri cs_policy_everyday(const struct cs_policy *p, const struct cs_target *target,
                               const struct cs_facts *facts);

#endif
