#include "base/arena.h"
#include "policy/rules.h"
#include "tap.h"

static struct cs_arena arena;

/* Everything of the policy before is void. */
static void arena_start(void)
{
    static bool started;
    if (started) {
        cs_arena_done(&arena);
    }
    started = true;
    cs_arena_init(&arena, 65536, 64U << 20);
}

/* The buffer's bytes, moved into the arena. */
static struct cs_slice moved(struct cs_buf *b)
{
    struct cs_slice out = cs_arena_dup(&arena, cs_buf_slice(b));
    CS_CHECK(!b->bad && out.p != NULL);
    cs_buf_done(b);
    return out;
}

/* ---- rules as short lines ---- */

static struct cs_names words(const char *s)
{
    struct cs_names out = {NULL, 0};
    struct cs_slice rest = cs_slice_str(s);
    out.v = cs_arena_array(&arena, 16, sizeof *out.v);
    while (rest.n > 0) {
        size_t k = cs_slice_find(rest, ' ');
        out.v[out.n++] = cs_slice_head(rest, k);
        rest = cs_slice_from(rest, k + 1);
    }
    return out;
}

struct line {
    const char *name;
    enum cs_outcome then;
    const char *groups, *except;
    const char *env; /* label of the target, NULL: any */
    const char *when;
    bool elevated, uncovered;
    uint32_t within, valid, attach, wait;
    const char *title;
    enum cs_record record;
    enum cs_durability durability;
};

static struct cs_slice compile(const char *text)
{
    struct cs_buf out = cs_buf(1U << 20);
    struct cs_cel_mistake m;
    if (text == NULL) {
        return CS_SLICE_NULL;
    }
    if (cs_cel_compile(cs_slice_str(text), &arena, &out, &m) != CS_OK) {
        CS_FAIL("%s: %s", text, m.text);
    }
    return moved(&out);
}

static struct cs_rule_full rule_of(const struct line *l)
{
    struct cs_rule_full r;
    memset(&r, 0, sizeof r);
    r.rule.name = cs_slice_str(l->name);
    r.rule.title = cs_slice_str(l->title);
    r.rule.then = l->then;
    r.rule.elevated = l->elevated;
    r.rule.copy_uncovered = l->uncovered;
    r.rule.record = l->record;
    r.rule.durability = l->durability;
    r.who.groups = words(l->groups);
    r.except.groups = words(l->except != NULL ? l->except : "");
    if (l->env != NULL) {
        r.target.label_keys = words("env");
        r.target.label_values = words(l->env);
    }
    r.code = compile(l->when);
    if (l->then == CS_HOLD) {
        struct cs_names dba = words("dba");
        r.rule.approvers = (struct cs_approvers){dba.v,
                                                 dba.n,
                                                 1,
                                                 l->within != 0 ? l->within : 900,
                                                 l->valid != 0 ? l->valid : 600,
                                                 l->attach != 0 ? l->attach : 600,
                                                 l->wait};
    }
    return r;
}

static int by_name(const void *a, const void *b)
{
    const struct cs_rule_full *x = a, *y = b;
    return cs_slice_cmp(x->rule.name, y->rule.name);
}

static struct cs_target targets[2];

static struct cs_slice build(const struct line *lines, size_t n)
{
    struct cs_rule_full *rules = cs_arena_array(&arena, n + 1, sizeof *rules);
    for (size_t i = 0; i < n; i++) {
        rules[i] = rule_of(&lines[i]);
    }
    qsort(rules, n, sizeof *rules, by_name);
    static struct cs_slice env = {(const uint8_t *)"env", 3}, prod = {(const uint8_t *)"prod", 4},
                           test = {(const uint8_t *)"test", 4};
    struct cs_target t = {.kind = CS_SLICE_LIT("postgres"),
                          .address = CS_SLICE_LIT("db:5432"),
                          .label_keys = &env,
                          .n_labels = 1};
    targets[0] = targets[1] = t;
    targets[0].name = CS_SLICE_LIT("orders");
    targets[0].label_values = &prod;
    targets[1].name = CS_SLICE_LIT("play");
    targets[1].label_values = &test;
    struct cs_policy_source src = {42, rules, n, targets, 2};
    struct cs_buf out = cs_buf(1U << 24);
    cs_policy_build(&src, &out);
    return moved(&out);
}

static struct cs_policy *load(const struct line *lines, size_t n)
{
    struct cs_policy *p = NULL;
    arena_start();
    CS_CHECK(cs_policy_load(build(lines, n), &arena, &p) == CS_OK);
    return p;
}

/* "person:alice:dba engineers|agent:bot:agents" */
static struct cs_chain *chain_of(const char *text)
{
    struct cs_chain *c = CS_NEW(&arena, struct cs_chain);
    struct cs_slice rest = cs_slice_str(text);
    while (rest.n > 0) {
        size_t k = cs_slice_find(rest, '|');
        struct cs_slice one = cs_slice_head(rest, k);
        rest = cs_slice_from(rest, k + 1);
        struct cs_principal *p = &c->p[c->n++];
        p->kind =
            cs_slice_starts(one, CS_SLICE_LIT("agent")) ? CS_PRINCIPAL_AGENT : CS_PRINCIPAL_PERSON;
        one = cs_slice_from(one, cs_slice_find(one, ':') + 1);
        k = cs_slice_find(one, ':');
        p->name = cs_slice_head(one, k);
        p->id = cs_arena_printf(&arena, "local:%.*s", CS_SLICE_FMT(p->name));
        one = cs_slice_from(one, k + 1);
        struct cs_names groups =
            words((const char *)cs_arena_printf(&arena, "%.*s", CS_SLICE_FMT(one)).p);
        p->groups = groups.v;
        p->n_groups = groups.n;
    }
    return c;
}

static struct cs_policy_session *session(const struct cs_policy *p, const char *chain,
                                         const char *target)
{
    const struct cs_target *t = cs_policy_target(p, cs_slice_str(target));
    CS_CHECK(t != NULL);
    return cs_policy_session_new(p, chain_of(chain), t, &arena);
}

static struct cs_decision decide(const struct cs_policy *p, const char *chain, const char *effects)
{
    struct cs_facts f;
    memset(&f, 0, sizeof f);
    struct cs_names e = words(effects);
    f.v[CS_FACT_SQL_EFFECTS].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.v = e.v;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.n = e.n;
    f.v[CS_FACT_SQL_TEXT].state = CS_FACT_UNKNOWN;
    struct cs_decision d;
    memset(&d, 0xff, sizeof d);
    cs_policy_decide(session(p, chain, "orders"), &f, &d);
    return d;
}

#define OUTCOME(p, chain, effects, want)                                                           \
    do {                                                                                           \
        struct cs_decision d_ = decide(p, chain, effects);                                         \
        if (d_.outcome != (want)) {                                                                \
            CS_FAIL("%s %s: %u, not %d: %s", chain, effects, d_.outcome, (int)(want), d_.why);     \
        }                                                                                          \
    } while (0)

/* ---- the table of the product's description ---- */

#define READS   "sql.effects.all(e, e in [\"session\", \"read\"])"
#define CHANGES "sql.effects.exists(e, !(e in [\"session\", \"read\"]))"

static const struct line product[] = {
    {.name = "read-orders",
     .then = CS_ALLOW,
     .groups = "agents support engineers",
     .env = "prod",
     .when = READS,
     .title = "People and agents read production, masked"},
    {.name = "change-data",
     .then = CS_HOLD,
     .groups = "agents engineers",
     .except = "dba",
     .env = "prod",
     .when = CHANGES,
     .elevated = true,
     .title = "Changing data needs a countersign"},
    {.name = "dba-read", .then = CS_ALLOW, .groups = "dba", .when = READS},
    {.name = "dba-change",
     .then = CS_HOLD,
     .groups = "dba",
     .env = "prod",
     .when = CHANGES,
     .elevated = true,
     .title = "A DBA's change needs a second DBA"},
};

#define AGENT_FOR_ENGINEER "person:eve:engineers|agent:bot:agents"
#define DBA                "person:dora:dba"
#define DBA_ENGINEER       "person:dan:dba engineers"
#define AGENT_FOR_DBA      "person:dora:dba|agent:bot:agents"
#define NOBODY             "person:nina:visitors"

CS_TEST(table_agent_acting_for_an_engineer)
{
    struct cs_policy *p = load(product, CS_ARRAY_LEN(product));
    CS_CHECK(cs_policy_may_open(session(p, AGENT_FOR_ENGINEER, "orders"), NULL));
    OUTCOME(p, AGENT_FOR_ENGINEER, "read", CS_ALLOW);
    OUTCOME(p, AGENT_FOR_ENGINEER, "session", CS_ALLOW);
    OUTCOME(p, AGENT_FOR_ENGINEER, "write", CS_HOLD);
    OUTCOME(p, AGENT_FOR_ENGINEER, "read ddl", CS_HOLD);
    OUTCOME(p, AGENT_FOR_ENGINEER, "opaque", CS_HOLD);
    struct cs_decision d = decide(p, AGENT_FOR_ENGINEER, "ddl");
    CS_EQ_U64(d.n_rules, 1);
    CS_EQ_STR(d.rules[0]->name, "change-data");
    CS_CHECK(d.elevated);
    CS_EQ_STR(cs_slice_str(d.why),
              "rule \"change-data\" holds this: Changing data needs a countersign");
}

CS_TEST(table_dba)
{
    struct cs_policy *p = load(product, CS_ARRAY_LEN(product));
    CS_CHECK(cs_policy_may_open(session(p, DBA, "orders"), NULL));
    OUTCOME(p, DBA, "read", CS_ALLOW);
    OUTCOME(p, DBA, "session", CS_ALLOW);
    OUTCOME(p, DBA, "ddl", CS_HOLD);
    struct cs_decision d = decide(p, DBA, "write");
    CS_EQ_U64(d.n_rules, 1);
    CS_EQ_STR(d.rules[0]->name, "dba-change");
}

CS_TEST(table_dba_who_is_also_an_engineer_is_held_once)
{
    struct cs_policy *p = load(product, CS_ARRAY_LEN(product));
    OUTCOME(p, DBA_ENGINEER, "read", CS_ALLOW);
    OUTCOME(p, DBA_ENGINEER, "session", CS_ALLOW);
    struct cs_decision d = decide(p, DBA_ENGINEER, "ddl");
    CS_EQ_U64(d.outcome, CS_HOLD);
    CS_EQ_U64(d.n_rules, 1);
    CS_EQ_STR(d.rules[0]->name, "dba-change");
}

CS_TEST(table_agent_acting_for_a_dba_is_held)
{
    struct cs_policy *p = load(product, CS_ARRAY_LEN(product));
    OUTCOME(p, AGENT_FOR_DBA, "read", CS_ALLOW);
    OUTCOME(p, AGENT_FOR_DBA, "session", CS_ALLOW);
    struct cs_decision d = decide(p, AGENT_FOR_DBA, "ddl");
    CS_EQ_U64(d.outcome, CS_HOLD);
    CS_EQ_U64(d.n_rules, 2); /* the bot's and the DBA's: except does not help the bot */
}

CS_TEST(table_person_in_no_group_gets_no_session)
{
    struct cs_policy *p = load(product, CS_ARRAY_LEN(product));
    const struct cs_principal *who = NULL;
    CS_CHECK(!cs_policy_may_open(session(p, NOBODY, "orders"), &who));
    CS_CHECK(who != NULL);
    CS_EQ_STR(who->name, "nina");
    OUTCOME(p, NOBODY, "read", CS_DENY);
}

/* ---- the sentences of "Semantics, each a test" ---- */

CS_TEST(strictest_wins_in_any_order)
{
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "g"},
                       {.name = "b", .then = CS_HOLD, .groups = "g"},
                       {.name = "c", .then = CS_DENY, .groups = "g", .title = "Never"}};
    static const int orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}};
    static const char *const names[] = {"x1", "x2", "x3"};
    for (size_t i = 0; i < CS_ARRAY_LEN(orders); i++) {
        struct line m[3];
        for (int k = 0; k < 3; k++) {
            m[orders[i][k]] = l[k];
            m[orders[i][k]].name = names[orders[i][k]];
        }
        struct cs_policy *p = load(m, 3);
        OUTCOME(p, "person:a:g", "read", CS_DENY);
        struct cs_decision d = decide(p, "person:a:g", "read");
        CS_EQ_U64(d.n_rules, 1);
        CS_CHECK(strstr(d.why, "denies this: Never") != NULL);
    }
    struct cs_policy *p = load(l, 2);
    OUTCOME(p, "person:a:g", "read", CS_HOLD);
    p = load(l, 1);
    OUTCOME(p, "person:a:g", "read", CS_ALLOW);
    CS_EQ_STR(cs_slice_str(decide(p, "person:a:g", "read").why), "rule \"a\" allows this");
}

CS_TEST(nothing_matched_means_deny)
{
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "g", .when = READS}};
    struct cs_policy *p = load(l, 1);
    struct cs_decision d = decide(p, "person:a:g", "write");
    CS_EQ_U64(d.outcome, CS_DENY);
    CS_EQ_U64(d.n_rules, 0);
    CS_EQ_STR(cs_slice_str(d.why), "no rule allows this for person a");
    p = load(l, 0);
    OUTCOME(p, "person:a:g", "read", CS_DENY);
    CS_CHECK(!cs_policy_may_open(session(p, "person:a:g", "orders"), NULL));
}

CS_TEST(the_most_recording_and_the_strictest_of_the_matching_rules_count)
{
    struct line l[] = {
        {.name = "a",
         .then = CS_ALLOW,
         .groups = "g",
         .record = CS_RECORD_NONE,
         .durability = CS_DURABLE_ASYNC},
        {.name = "b", .then = CS_ALLOW, .groups = "h", .record = CS_RECORD_FULL},
        {.name = "c", .then = CS_ALLOW, .groups = "i", .durability = CS_DURABLE_STRICT},
        {.name = "d", .then = CS_HOLD, .groups = "j", .record = CS_RECORD_FULL, .when = CHANGES},
        {.name = "e", .then = CS_HOLD, .groups = "k", .record = CS_RECORD_NONE, .when = CHANGES}};
    struct cs_policy *p = load(l, 5);
    struct cs_decision d = decide(p, "person:a:g", "read");
    CS_EQ_U64(d.record, CS_RECORD_NONE);
    CS_EQ_U64(d.durability, CS_DURABLE_ASYNC);
    CS_CHECK(!d.durable_by_class);
    d = decide(p, "person:a:g h", "read");
    CS_EQ_U64(d.record, CS_RECORD_FULL);
    CS_CHECK(d.durable_by_class); /* one of them says nothing */
    d = decide(p, "person:a:g i", "read");
    CS_EQ_U64(d.record,
              CS_RECORD_HEAD); /* saying nothing is the default, which is more than none */
    CS_EQ_U64(d.durability, CS_DURABLE_STRICT);
    /* Members of a chain: what any of their rules asks for. */
    d = decide(p, "person:a:g|agent:b:h", "read");
    CS_EQ_U64(d.record, CS_RECORD_FULL);
    /* A hold: its own rules, whatever the allows beside it say. */
    d = decide(p, "person:a:h k", "write");
    CS_EQ_U64(d.record, CS_RECORD_NONE);
    d = decide(p, "person:a:k j", "write");
    CS_EQ_U64(d.record, CS_RECORD_FULL);
}

/* More matching rules than a card names: the others count here all the same. */
CS_TEST(a_rule_beyond_those_that_are_named_still_records)
{
    static char names[CS_RULES_FIRED + 2][8];
    struct line l[CS_RULES_FIRED + 2];
    for (size_t i = 0; i < CS_ARRAY_LEN(l); i++) {
        (void)snprintf(names[i], sizeof names[i], "r%02zu", i);
        l[i] = (struct line){
            .name = names[i], .then = CS_ALLOW, .groups = "g", .record = CS_RECORD_NONE};
    }
    l[CS_ARRAY_LEN(l) - 1].record = CS_RECORD_FULL;
    struct cs_policy *p = load(l, CS_ARRAY_LEN(l));
    struct cs_decision d = decide(p, "person:a:g", "read");
    CS_EQ_U64(d.n_rules, CS_RULES_FIRED);
    CS_EQ_U64(d.record, CS_RECORD_FULL);
}

CS_TEST(an_agent_has_at_most_what_both_have)
{
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "agents", .when = READS},
                       {.name = "p", .then = CS_ALLOW, .groups = "people"},
                       {.name = "h", .then = CS_HOLD, .groups = "agents", .when = CHANGES}};
    struct cs_policy *p = load(l, 3);
    OUTCOME(p, "person:x:people|agent:bot:agents", "read", CS_ALLOW);
    OUTCOME(p, "person:x:people|agent:bot:agents", "write", CS_HOLD);
    OUTCOME(p, "person:x:people", "write", CS_ALLOW);
    /* The person has nothing: neither has the agent, even where it would only be held. */
    const struct cs_principal *who = NULL;
    CS_CHECK(!cs_policy_may_open(session(p, "person:x:none|agent:bot:agents", "orders"), &who));
    CS_EQ_STR(who->name, "x");
    struct cs_decision d = decide(p, "person:x:none|agent:bot:agents", "write");
    CS_EQ_U64(d.outcome, CS_DENY);
    CS_EQ_U64(d.n_rules, 0);
    CS_EQ_STR(cs_slice_str(d.why), "no rule allows this for person x");
    d = decide(p, "person:x:people|agent:bot:none", "read");
    CS_EQ_STR(cs_slice_str(d.why), "no rule allows this for agent bot");
}

CS_TEST(nobody_is_denied)
{
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "g"}};
    struct cs_policy *p = load(l, 1);
    OUTCOME(p, "", "read", CS_DENY);
    CS_CHECK(!cs_policy_may_open(session(p, "", "orders"), NULL));
    struct cs_decision d;
    memset(&d, 0xff, sizeof d);
    struct cs_facts f;
    memset(&f, 0, sizeof f);
    cs_policy_decide(NULL, &f, &d);
    CS_EQ_U64(d.outcome, CS_DENY);
    CS_CHECK(!cs_policy_may_open(NULL, NULL));
}

CS_TEST(except_counts_only_for_a_whole_chain)
{
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "dba agents"},
                       {.name = "h", .then = CS_HOLD, .groups = "dba agents", .except = "dba"}};
    struct cs_policy *p = load(l, 2);
    OUTCOME(p, "person:d:dba", "write", CS_ALLOW);
    OUTCOME(p, "person:d:dba|agent:bot:agents", "write", CS_HOLD);
    OUTCOME(p, "person:d:dba|agent:bot:agents dba", "write", CS_ALLOW);
    /* The rule matches the DBA as well once the exception does not count: one hold, not two. */
    CS_EQ_U64(decide(p, "person:d:dba|agent:bot:agents", "write").n_rules, 1);
}

CS_TEST(users_are_matched_by_identity)
{
    arena_start();
    struct cs_who w = {{NULL, 0}, words("local:alice okta:bob")};
    struct cs_chain *c = chain_of("person:alice:|person:bob:");
    CS_CHECK(cs_who_matches(&w, &c->p[0]));
    CS_CHECK(!cs_who_matches(&w, &c->p[1])); /* local:bob is not okta:bob */
}

CS_TEST(unknown_never_allows_and_always_holds_or_denies)
{
    struct line allow[] = {
        {.name = "a", .then = CS_ALLOW, .groups = "g", .when = "sql.text == 'x'"}};
    struct line deny[] = {{.name = "a", .then = CS_ALLOW, .groups = "g"},
                          {.name = "d", .then = CS_DENY, .groups = "g", .when = "sql.text == 'x'"}};
    struct line hold[] = {{.name = "a", .then = CS_ALLOW, .groups = "g"},
                          {.name = "h", .then = CS_HOLD, .groups = "g", .when = "sql.text != 'x'"}};
    OUTCOME(load(allow, 1), "person:a:g", "read", CS_DENY);
    OUTCOME(load(deny, 2), "person:a:g", "read", CS_DENY);
    OUTCOME(load(hold, 2), "person:a:g", "read", CS_HOLD);
    /* A DO block does not slip past "no DDL". */
    struct line no_ddl[] = {{.name = "a",
                             .then = CS_ALLOW,
                             .groups = "g",
                             .when = "!sql.effects.exists(e, e == \"ddl\")"}};
    OUTCOME(load(no_ddl, 1), "person:a:g", "opaque", CS_DENY);
    OUTCOME(load(no_ddl, 1), "person:a:g", "write", CS_ALLOW);
}

CS_TEST(a_rule_without_a_condition_matches_always)
{
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "g"}};
    OUTCOME(load(l, 1), "person:a:g", "opaque", CS_ALLOW);
}

static struct cs_decision decide_verb(const struct cs_policy *p, const char *chain,
                                      const char *verb)
{
    struct cs_facts f;
    memset(&f, 0, sizeof f);
    struct cs_names e = words("read admin opaque");
    f.v[CS_FACT_SQL_EFFECTS].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.v = e.v;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.n = e.n;
    f.v[CS_FACT_SQL_VERB].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_VERB].u.string = cs_slice_str(verb);
    struct cs_decision d;
    cs_policy_decide(session(p, chain, "orders"), &f, &d);
    return d;
}

CS_TEST(what_must_be_named_is_permitted_by_no_rule_that_does_not)
{
    static const char *const conditions[] = {
        NULL,
        "sql.verb != \"SELECT\"",
        "sql.verb in [\"SELECT\", \"IDENTIFY_SYSTEM\"] || sql.effects.exists(e, e == \"admin\")",
        "sql.verb.startsWith(\"START_\")",
        "sql.verb != \"START_REPLICATION\"",
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(conditions); i++) {
        for (unsigned then = CS_HOLD; then <= CS_ALLOW; then++) {
            struct line l[] = {{.name = "a", .then = then, .groups = "g", .when = conditions[i]}};
            const struct cs_policy *p = load(l, 1);
            struct cs_decision d = decide_verb(p, "person:a:g", "START_REPLICATION");
            CS_EQ_U64(d.outcome, CS_DENY);
            CS_CHECK(strstr(d.why, "no rule that names \"START_REPLICATION\"") != NULL);
        }
    }
}

CS_TEST(what_must_be_named_is_permitted_by_the_rule_that_does)
{
    struct line l[] = {
        {.name = "n", .then = CS_ALLOW, .groups = "g", .when = "sql.verb == \"START_REPLICATION\""},
        {.name = "s",
         .then = CS_HOLD,
         .groups = "g",
         .when = "sql.verb in [\"DROP_REPLICATION_SLOT\", \"BASE_BACKUP\"]"}};
    const struct cs_policy *p = load(l, 2);
    CS_EQ_U64(decide_verb(p, "person:a:g", "START_REPLICATION").outcome, CS_ALLOW);
    CS_EQ_U64(decide_verb(p, "person:a:g", "BASE_BACKUP").outcome, CS_HOLD);
    CS_EQ_U64(decide_verb(p, "person:a:g", "IDENTIFY_SYSTEM").outcome, CS_DENY);
    CS_EQ_U64(decide_verb(p, "person:a:h", "START_REPLICATION").outcome, CS_DENY);
    CS_CHECK(cs_policy_names(session(p, "person:a:g", "orders"), CS_NAMED_REPLICATION));
    CS_CHECK(!cs_policy_names(session(p, "person:a:h", "orders"), CS_NAMED_REPLICATION));
    /* Everybody of the chain needs such a rule, and a hold counts whether it names the verb or not.
     */
    CS_EQ_U64(decide_verb(p, "person:a:g|agent:b:h", "START_REPLICATION").outcome, CS_DENY);
    struct line held[] = {
        {.name = "n", .then = CS_ALLOW, .groups = "g", .when = "sql.verb == \"START_REPLICATION\""},
        {.name = "all", .then = CS_HOLD, .groups = "g"}};
    CS_EQ_U64(decide_verb(load(held, 2), "person:a:g", "START_REPLICATION").outcome, CS_HOLD);
    /* Ordinary verbs need no name. */
    struct line any[] = {{.name = "a", .then = CS_ALLOW, .groups = "g"}};
    CS_EQ_U64(decide_verb(load(any, 1), "person:a:g", "DROP TABLE").outcome, CS_ALLOW);
}

CS_TEST(who_looks_at_a_fact_is_known_whatever_became_of_the_condition)
{
    static const char *const conditions[] = {
        "sql.params.exists(p, p == 'a')",
        "sql.params.all(p, p in ['a', 'b'])",
        "'a' in sql.params",
        "size(sql.params) == 1 && sql.verb == 'SELECT'",
        "sql.params.exists_one(p, p != 'a')",
        "sql.verb != 'SELECT' || has(sql.params)",
        "sql.params == sql.reads",
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(conditions); i++) {
        for (unsigned then = CS_DENY; then <= CS_ALLOW; then++) {
            struct line l[] = {
                {.name = "n", .then = CS_ALLOW, .groups = "g", .when = "sql.verb == 'SELECT'"},
                {.name = "p", .then = then, .groups = "h", .when = conditions[i]}};
            const struct cs_policy *p = load(l, 2);
            CS_CHECK(
                cs_policy_reads(session(p, "person:a:g|agent:b:h", "orders"), CS_FACT_SQL_PARAMS));
            CS_CHECK(cs_policy_reads(session(p, "person:b:h", "orders"), CS_FACT_SQL_PARAMS));
            CS_CHECK(!cs_policy_reads(session(p, "person:a:g", "orders"), CS_FACT_SQL_PARAMS));
            CS_CHECK(cs_policy_reads(session(p, "person:a:g", "orders"), CS_FACT_SQL_VERB));
        }
    }
}

static unsigned decide_call(const struct line *lines, size_t n)
{
    struct cs_facts f;
    struct cs_decision d;
    struct cs_policy *p = load(lines, n);
    struct cs_names e = words("read write");
    memset(&f, 0, sizeof f);
    f.v[CS_FACT_SQL_EFFECTS].state = f.v[CS_FACT_SQL_VERB].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.v = e.v;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.n = e.n;
    f.v[CS_FACT_SQL_VERB].u.string = CS_SLICE_LIT(CS_VERB_FUNCTION_CALL);
    cs_policy_decide(session(p, "person:a:g", "orders"), &f, &d);
    return d.outcome;
}

#define CALLS "sql.verb == \"FUNCTION CALL\""
CS_TEST(a_call_by_number_needs_a_rule_that_names_it)
{
    struct line all[] = {{.name = "a", .then = CS_ALLOW, .groups = "g"}};
    struct line held[] = {{.name = "h", .then = CS_HOLD, .groups = "g"}};
    struct line named[] = {{.name = "a", .then = CS_ALLOW, .groups = "g", .when = CALLS}};
    struct line named_held[] = {{.name = "h", .then = CS_HOLD, .groups = "g", .when = CALLS}};
    struct line other[] = {
        {.name = "a", .then = CS_ALLOW, .groups = "g", .when = "sql.verb != \"FUNCTION CALL\""}};
    CS_EQ_U64(decide_call(all, 1), CS_DENY);
    CS_EQ_U64(decide_call(held, 1), CS_DENY);
    CS_EQ_U64(decide_call(named, 1), CS_ALLOW);
    CS_EQ_U64(decide_call(named_held, 1), CS_HOLD);
    CS_EQ_U64(decide_call(other, 1), CS_DENY);
}

CS_TEST(a_call_by_number_meets_every_rule_that_holds_or_denies)
{
    struct line held[] = {{.name = "a", .then = CS_ALLOW, .groups = "g", .when = CALLS},
                          {.name = "h", .then = CS_HOLD, .groups = "g", .when = CHANGES}};
    struct line denied[] = {{.name = "a", .then = CS_ALLOW, .groups = "g", .when = CALLS},
                            {.name = "d", .then = CS_DENY, .groups = "g", .when = CHANGES}};
    CS_EQ_U64(decide_call(held, 2), CS_HOLD);
    CS_EQ_U64(decide_call(denied, 2), CS_DENY);
}

CS_TEST(several_holds_accumulate)
{
    struct line l[] = {{.name = "h1",
                        .then = CS_HOLD,
                        .groups = "g",
                        .elevated = true,
                        .within = 100,
                        .valid = 50,
                        .attach = 70,
                        .wait = 0},
                       {.name = "h2",
                        .then = CS_HOLD,
                        .groups = "g",
                        .within = 90,
                        .valid = 60,
                        .attach = 60,
                        .wait = 30},
                       {.name = "h3",
                        .then = CS_HOLD,
                        .groups = "g",
                        .elevated = true,
                        .wait = 40,
                        .when = CHANGES}};
    struct cs_policy *p = load(l, 3);
    struct cs_decision d = decide(p, "person:a:g", "write");
    CS_EQ_U64(d.outcome, CS_HOLD);
    CS_EQ_U64(d.n_rules, 3);
    CS_CHECK(!d.elevated);
    CS_EQ_U64(d.within_s, 90);
    CS_EQ_U64(d.valid_s, 50);
    CS_EQ_U64(d.attach_s, 60);
    CS_EQ_U64(d.wait_s, 30);
    CS_CHECK(strstr(d.why, "(and 2 more rules)") != NULL);
    d = decide(load(l, 1), "person:a:g", "write");
    CS_CHECK(d.elevated);
    CS_EQ_U64(d.wait_s, 0);
}

CS_TEST(data_of_a_copy_is_uncovered_only_where_every_hold_says_so)
{
    struct line l[] = {{.name = "h1", .then = CS_HOLD, .groups = "g", .uncovered = true},
                       {.name = "h2", .then = CS_HOLD, .groups = "g", .when = CHANGES},
                       {.name = "h3", .then = CS_HOLD, .groups = "g", .uncovered = true}};
    struct cs_decision d = decide(load(l, 3), "person:a:g", "write");
    CS_EQ_U64(d.n_rules, 3);
    CS_CHECK(!d.copy_uncovered);
    CS_CHECK(!decide(load(l + 1, 1), "person:a:g", "write").copy_uncovered);
    CS_CHECK(decide(load(l, 1), "person:a:g", "write").copy_uncovered);
    l[1].uncovered = true;
    CS_CHECK(decide(load(l, 3), "person:a:g", "write").copy_uncovered);
}

CS_TEST(more_holds_than_a_card_shows_is_a_deny)
{
    struct line l[CS_RULES_FIRED + 1];
    char names[CS_RULES_FIRED + 1][8];
    memset(l, 0, sizeof l);
    for (size_t i = 0; i < CS_ARRAY_LEN(l); i++) {
        (void)snprintf(names[i], sizeof names[i], "h%zu", i);
        l[i] = (struct line){.name = names[i], .then = CS_HOLD, .groups = "g"};
    }
    struct cs_decision d = decide(load(l, CS_RULES_FIRED), "person:a:g", "write");
    CS_EQ_U64(d.outcome, CS_HOLD);
    CS_EQ_U64(d.n_rules, CS_RULES_FIRED);
    d = decide(load(l, CS_RULES_FIRED + 1), "person:a:g", "write");
    CS_EQ_U64(d.outcome, CS_DENY);
    CS_EQ_U64(d.n_rules, 0);
}

CS_TEST(targets_are_selected_by_labels)
{
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "g", .env = "prod"}};
    struct cs_policy *p = load(l, 1);
    CS_CHECK(cs_policy_may_open(session(p, "person:a:g", "orders"), NULL));
    CS_CHECK(!cs_policy_may_open(session(p, "person:a:g", "play"), NULL));
}

CS_TEST(a_rule_of_another_family_does_not_apply)
{
    arena_start();
    struct line l = {.name = "a", .then = CS_ALLOW, .groups = "g", .when = READS};
    struct cs_rule_full r = rule_of(&l);
    CS_CHECK(cs_cel_load(r.code, &arena, &r.when) == CS_OK);
    struct cs_target t = {.name = CS_SLICE_LIT("x"), .kind = CS_SLICE_LIT("postgres")};
    CS_CHECK(cs_rule_concerns(&r, &t));
    t.kind = CS_SLICE_LIT("http"); /* supplies no sql facts */
    CS_CHECK(!cs_rule_concerns(&r, &t));
}

CS_TEST(an_unconditional_deny_keeps_the_session_shut)
{
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "g"},
                       {.name = "d", .then = CS_DENY, .groups = "out"},
                       {.name = "e", .then = CS_DENY, .groups = "g", .when = CHANGES}};
    struct cs_policy *p = load(l, 3);
    CS_CHECK(cs_policy_may_open(session(p, "person:a:g", "orders"), NULL));
    CS_CHECK(!cs_policy_may_open(session(p, "person:a:g out", "orders"), NULL));
    CS_CHECK(!cs_policy_may_open(session(p, "person:a:g|agent:b:g out", "orders"), NULL));
}

CS_TEST(a_hold_rule_is_enough_to_open)
{
    struct line l[] = {{.name = "h", .then = CS_HOLD, .groups = "g", .when = CHANGES}};
    CS_CHECK(cs_policy_may_open(session(load(l, 1), "person:a:g", "orders"), NULL));
}

CS_TEST(the_sentence_has_no_control_bytes_and_no_half_characters)
{
    char title[400];
    for (size_t i = 0; i < 399; i += 3) {
        memcpy(title + i, "\xe2\x82\xac", 3);
    }
    title[399] = 0;
    struct line l[] = {{.name = "a", .then = CS_ALLOW, .groups = "g", .title = title}};
    struct cs_decision d = decide(load(l, 1), "person:a:g", "read");
    CS_CHECK(strlen(d.why) > 190 && strlen(d.why) < sizeof d.why);
    CS_CHECK(cs_utf8_valid(cs_slice_str(d.why)));
    d = decide(load(l, 1), "person:e\nve\x7f\xff:none", "read");
    CS_EQ_STR(cs_slice_str(d.why), "no rule allows this for person e?ve??");
}

/* ---- the snapshot ---- */

CS_TEST(policy_gives_back_what_was_built)
{
    struct cs_policy *p = load(product, CS_ARRAY_LEN(product));
    CS_EQ_U64(cs_policy_version(p), 42);
    CS_EQ_U64(cs_policy_rule_count(p), 4);
    CS_EQ_U64(cs_policy_target_count(p), 2);
    CS_CHECK(cs_policy_rule(p, CS_SLICE_LIT("nope")) == NULL);
    const struct cs_rule *r = cs_policy_rule(p, CS_SLICE_LIT("change-data"));
    CS_CHECK(r != NULL && r->then == CS_HOLD && r->elevated && r->approvers.quorum == 1);
    CS_EQ_STR(r->approvers.groups[0], "dba");
    const struct cs_target *t = cs_policy_target(p, CS_SLICE_LIT("play"));
    CS_CHECK(t == cs_policy_target_at(p, 1));
    CS_EQ_STR(t->label_values[0], "test");
    CS_CHECK(cs_policy_target_at(p, 2) == NULL);
    CS_CHECK(cs_policy_target(p, CS_SLICE_LIT("")) == NULL);
}

CS_TEST(policy_loader_refuses_a_hold_without_quorum_or_approvers)
{
    for (int i = 0; i < 4; i++) {
        arena_start();
        struct line l = {.name = "h", .then = CS_HOLD, .groups = "g"};
        struct cs_rule_full r = rule_of(&l);
        r.rule.approvers.quorum = i == 0 ? 0 : 1;
        r.rule.approvers.n_groups = i == 1 ? 0 : 1;
        r.rule.approvers.within_s = i == 2 ? 0 : 1;
        struct cs_policy_source src = {1, &r, 1, NULL, 0};
        struct cs_buf out = cs_buf(1U << 20);
        cs_policy_build(&src, &out);
        struct cs_policy *p = NULL;
        CS_EQ_U64(cs_policy_load(cs_buf_slice(&out), &arena, &p), i == 3 ? CS_OK : CS_ERR_CORRUPT);
        cs_buf_done(&out);
    }
}

CS_TEST(policy_loader_refuses_names_out_of_order_or_twice)
{
    arena_start();
    struct line a = {.name = "a", .then = CS_ALLOW, .groups = "g"};
    struct line b = {.name = "b", .then = CS_ALLOW, .groups = "g"};
    struct cs_rule_full two[2][2] = {{rule_of(&b), rule_of(&a)}, {rule_of(&a), rule_of(&a)}};
    for (int i = 0; i < 2; i++) {
        struct cs_policy_source src = {1, two[i], 2, NULL, 0};
        struct cs_buf out = cs_buf(1U << 20);
        cs_policy_build(&src, &out);
        struct cs_policy *p = NULL;
        CS_CHECK(cs_policy_load(cs_buf_slice(&out), &arena, &p) == CS_ERR_CORRUPT);
        cs_buf_done(&out);
    }
}

CS_TEST(policy_loader_survives_hostile_bytes)
{
    arena_start();
    struct cs_slice good = build(product, CS_ARRAY_LEN(product));
    struct cs_arena a;
    cs_arena_init(&a, 65536, 8U << 20);
    for (size_t n = 0; n < good.n; n++) {
        uint8_t *cut = cs_alloc(n + 1);
        memcpy(cut, good.p, n);
        struct cs_policy *p = NULL;
        CS_CHECK(cs_policy_load(cs_slice(cut, n), &a, &p) == CS_ERR_CORRUPT);
        cs_free(cut);
        cs_arena_reset(&a);
    }
    static const uint8_t with[] = {0, 1, 2, 3, 0x7f, 0xff};
    for (size_t i = 0; i < good.n; i++) {
        for (size_t k = 0; k < CS_ARRAY_LEN(with); k++) {
            uint8_t *copy = cs_alloc(good.n);
            memcpy(copy, good.p, good.n);
            copy[i] = with[k];
            struct cs_policy *p = NULL;
            if (cs_policy_load(cs_slice(copy, good.n), &a, &p) == CS_OK &&
                cs_policy_target_count(p) > 0) {
                struct cs_policy_session *s = cs_policy_session_new(p, chain_of(AGENT_FOR_ENGINEER),
                                                                    cs_policy_target_at(p, 0), &a);
                struct cs_facts f;
                struct cs_decision d;
                memset(&f, 0, sizeof f);
                cs_policy_decide(s, &f, &d);
                CS_CHECK(d.outcome != CS_ALLOW || d.n_rules > 0);
            }
            cs_free(copy);
            cs_arena_reset(&a);
        }
    }
    cs_arena_done(&a);
}

CS_TEST(policy_loader_survives_a_lack_of_memory)
{
    arena_start();
    struct cs_slice good = build(product, CS_ARRAY_LEN(product));
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_arena a;
        struct cs_policy *p = NULL;
        cs_arena_init(&a, 64, 1U << 20);
        enum cs_err err = cs_policy_load(good, &a, &p);
        CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
        done = err == CS_OK;
        cs_arena_done(&a);
    }
    CS_CHECK(done);
}
