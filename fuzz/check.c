/* Fuzzes the judging of a target's answers, and the names in what is printed. Input: the bytes of
 * the answers; the first of them also stand for the names of roles and schemas. Properties:
 * corrupt, or every check of the table is found, seen as fine or said to be unseen, in order of
 * severity; no name leaves its quotes; printed SQL holds no control character but line ends. */
#include "check/check.h"
#include "policy/rules.h"
#include "wire/rows.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* One rule that allows reading and one that holds by a condition on single tables. */
static struct cs_policy *policy(struct cs_arena *a, struct cs_target *t)
{
    static const char *const conditions[] = {"sql.effects.all(e, e in [\"session\", \"read\"])",
                                             "sql.writes.exists(w, w == \"public.orders\")"};
    static struct cs_slice group = {(const uint8_t *)"agents", 6};
    struct cs_rule_full rules[2];
    struct cs_policy *p = NULL;
    struct cs_cel_mistake mistake;
    memset(rules, 0, sizeof rules);
    for (size_t i = 0; i < 2; i++) {
        struct cs_buf code = cs_buf(65536);
        check(cs_cel_compile(cs_slice_str(conditions[i]), a, &code, &mistake) == CS_OK);
        rules[i].rule.name = i == 0 ? CS_SLICE_LIT("a") : CS_SLICE_LIT("b");
        rules[i].rule.then = CS_ALLOW;
        rules[i].who.groups = (struct cs_names){&group, 1};
        rules[i].code = cs_arena_dup(a, cs_buf_slice(&code));
        cs_buf_done(&code);
    }
    struct cs_policy_source src = {1, rules, 2, t, 1};
    struct cs_buf out = cs_buf(1U << 20);
    cs_policy_build(&src, &out);
    struct cs_slice bytes = cs_arena_dup(a, cs_buf_slice(&out));
    cs_buf_done(&out);
    check(cs_policy_load(bytes, a, &p) == CS_OK);
    return p;
}

static void quotes(struct cs_slice name)
{
    struct cs_buf b = cs_buf(1U << 20);
    cs_check_ident(&b, name);
    check(b.len >= 2 && b.p[0] == '"' && b.p[b.len - 1] == '"');
    for (size_t i = 1; i + 1 < b.len; i++) {
        if (b.p[i] == '"') { /* only ever in twos */
            check(i + 2 < b.len && b.p[i + 1] == '"');
            i++;
        }
    }
    cs_buf_done(&b);
}

static void print(const struct cs_policy *p, const struct cs_target *t, struct cs_slice schema)
{
    struct cs_buf out = cs_buf(1U << 20);
    char why[300] = "";
    enum cs_err e = cs_check_sql(p, t, &schema, 1, &out, why, sizeof why);
    check(e == CS_OK || (e == CS_ERR_INVALID && why[0] != 0 && out.len == 0));
    for (size_t i = 0; i < out.len; i++) {
        check(out.p[i] == '\n' || (out.p[i] >= 0x20 && out.p[i] != 0x7f));
    }
    cs_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_arena a;
    struct cs_check_result r;
    struct cs_slice in = cs_slice(data, size), name = cs_slice_head(in, 20);
    struct cs_target t = {.name = CS_SLICE_LIT("orders"),
                          .kind = CS_SLICE_LIT("postgres"),
                          .address = CS_SLICE_LIT("db:5432"),
                          .database = CS_SLICE_LIT("orders"),
                          .tls = CS_SLICE_LIT("verify-full"),
                          .user = CS_SLICE_LIT("ro"),
                          .password = CS_SLICE_LIT("x"),
                          .has_elevated = true,
                          .elevated_user = CS_SLICE_LIT("owner"),
                          .elevated_password = CS_SLICE_LIT("y")};
    cs_arena_init(&a, 65536, 256U << 20);
    struct cs_policy *p = policy(&a, &t);
    t.user = name;
    enum cs_err e = cs_check_evaluate(p, &t, in, 1, &a, &r);
    check(e == (cs_rows_valid(in) ? CS_OK : CS_ERR_CORRUPT));
    for (size_t i = 0; e == CS_OK && i < r.n_findings; i++) {
        const struct cs_check_finding *f = &r.findings[i];
        check(i == 0 || r.findings[i - 1].check->severity <= f->check->severity);
        check(f->n_details <= 200 && f->fix.n > 0);
    }
    check(e != CS_OK || r.n_findings + r.n_unseen <= cs_check_count());
    quotes(in);
    print(p, &t, cs_slice_head(cs_slice_from(in, 20), 20));
    cs_arena_done(&a);
    return 0;
}
