/* Measures a decision: 1,000 rules, 200 of them match who and target, each with a condition over
 * relations; statements of several kinds in turn. Prints the 99th percentile of single decisions,
 * each timed on its own (the clock's own cost is inside). figure: decide-1000-rules VALUE us must
 * 20 ok|short */
#include "base/time.h"
#include "policy/rules.h"

#include <stdio.h>
#include <stdlib.h>

/* A literal for static tables. */
#define WORD(s)                                                                                    \
    {                                                                                              \
        (const uint8_t *)(s), sizeof(s) - 1                                                        \
    }

enum { RULES = 1000, MATCHING = 200, ROUNDS = 20000, KINDS = 4 };

static struct cs_arena arena;

static struct cs_slice text(const char *fmt, unsigned i)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return cs_arena_printf(&arena, fmt, i, i + 1, i);
#pragma GCC diagnostic pop
}

static struct cs_slice compile(struct cs_slice when)
{
    struct cs_cel_mistake m;
    struct cs_buf out = cs_buf(1 << 16);
    if (cs_cel_compile(when, &arena, &out, &m) != CS_OK) {
        fprintf(stderr, "%.*s: %s\n", CS_SLICE_FMT(when), m.text);
        exit(1);
    }
    struct cs_slice code = cs_arena_dup(&arena, cs_buf_slice(&out));
    cs_buf_done(&out);
    return code;
}

/* Every fifth rule concerns our agent; conditions in four shapes that people write. */
static void make_rule(unsigned i, struct cs_rule_full *r)
{
    static const char *const conditions[KINDS] = {
        "sql.effects.exists(e, e in [\"write\", \"ddl\"]) && "
        "sql.writes.exists(w, w in [\"public.t%u\", \"public.t%u\"])",
        "sql.reads.exists(r, r == \"public.t%u\") && !sql.effects.all(e, e in [\"session\", "
        "\"read\"])",
        "sql.effects.exists(e, !(e in [\"session\", \"read\"])) && "
        "sql.writes.exists(w, w.startsWith(\"s%u.\") || w.endsWith(\".t%u\"))",
        "sql.verb in [\"DROP TABLE\", \"TRUNCATE\"] && \"public.t%u\" in sql.writes",
    };
    static struct cs_slice agents = WORD("agents"), others = WORD("others"), dba = WORD("dba");
    memset(r, 0, sizeof *r);
    r->rule.name = text("rule-%05u", i);
    r->rule.then = i % 10 == 0 ? CS_DENY : CS_HOLD;
    r->who.groups = (struct cs_names){i % (RULES / MATCHING) == 0 ? &agents : &others, 1};
    if (r->rule.then == CS_HOLD) {
        r->rule.approvers = (struct cs_approvers){&dba, 1, 1, 900, 600, 600, 0};
    }
    r->code = compile(text(conditions[i / 5 % KINDS], i));
}

static struct cs_policy *make_policy(void)
{
    static struct cs_rule_full rules[RULES + 1];
    static struct cs_target target = {.name = WORD("t"), .kind = WORD("postgres")};
    static struct cs_slice agents = WORD("agents");
    for (unsigned i = 0; i < RULES - 1; i++) {
        make_rule(i, &rules[i]);
    }
    /* And one that lets reads through, so that all of them are evaluated. */
    rules[RULES - 1].rule.name = CS_SLICE_LIT("zz-read");
    rules[RULES - 1].rule.then = CS_ALLOW;
    rules[RULES - 1].who.groups = (struct cs_names){&agents, 1};
    rules[RULES - 1].code =
        compile(CS_SLICE_LIT("sql.effects.all(e, e in [\"session\", \"read\"])"));
    struct cs_policy_source src = {1, rules, RULES, &target, 1};
    struct cs_buf out = cs_buf(1 << 24);
    struct cs_policy *p = NULL;
    cs_policy_build(&src, &out);
    if (out.bad || cs_policy_load(cs_arena_dup(&arena, cs_buf_slice(&out)), &arena, &p) != CS_OK) {
        fputs("the rules do not load\n", stderr);
        exit(1);
    }
    cs_buf_done(&out);
    return p;
}

static void set_words(struct cs_facts *f, enum cs_fact_id id, const struct cs_slice *v, size_t n)
{
    f->v[id].state = CS_FACT_KNOWN;
    f->v[id].u.strings.v = v;
    f->v[id].u.strings.n = n;
}

static void make_facts(struct cs_facts f[KINDS])
{
    static const struct cs_slice read = WORD("read"), both[] = {WORD("read"), WORD("write")},
                                 tables[] = {WORD("public.t7"), WORD("public.t9999"),
                                             WORD("public.orders")};
    memset(f, 0, KINDS * sizeof *f);
    for (int i = 0; i < KINDS; i++) {
        bool writes = i % 2 == 1;
        set_words(&f[i], CS_FACT_SQL_EFFECTS, writes ? both : &read, writes ? 2 : 1);
        set_words(&f[i], CS_FACT_SQL_READS, tables, i < 2 ? 1 : 3);
        set_words(&f[i], CS_FACT_SQL_WRITES, tables + 2, writes ? 1 : 0);
        f[i].v[CS_FACT_SQL_VERB].state = CS_FACT_KNOWN;
        f[i].v[CS_FACT_SQL_VERB].u.string =
            writes ? CS_SLICE_LIT("UPDATE") : CS_SLICE_LIT("SELECT");
    }
}

static int by_size(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int main(void)
{
    static uint64_t took[ROUNDS];
    cs_arena_init(&arena, 1 << 20, 1 << 28);
    const struct cs_policy *p = make_policy();
    struct cs_slice agents = CS_SLICE_LIT("agents");
    struct cs_chain chain = {.n = 1};
    chain.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:a"),
                                       CS_SLICE_LIT("a"), &agents, 1};
    const struct cs_policy_session *s =
        cs_policy_session_new(p, &chain, cs_policy_target_at(p, 0), &arena);
    struct cs_facts f[KINDS];
    unsigned outcomes[3] = {0, 0, 0};
    make_facts(f);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct cs_decision d;
        uint64_t start = cs_mono_ns();
        cs_policy_decide(s, &f[i % KINDS], &d);
        took[i] = cs_mono_ns() - start;
        outcomes[d.outcome]++;
    }
    qsort(took, ROUNDS, sizeof took[0], by_size);
    double p99 = (double)took[ROUNDS * 99 / 100] / 1000, median = (double)took[ROUNDS / 2] / 1000;
    printf("# decide: median %.2f us, p99 %.2f us, goal 5 us; deny %u, hold %u, allow %u\n", median,
           p99, outcomes[CS_DENY], outcomes[CS_HOLD], outcomes[CS_ALLOW]);
    printf("figure: decide-1000-rules %.2f us must 20 %s\n", p99, p99 <= 20 ? "ok" : "short");
    cs_arena_done(&arena);
    return 0;
}
