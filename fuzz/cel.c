/* Fuzzes the compiler of conditions. Properties: a mistake has a place inside the text and a
 * sentence; what compiles loads again; loaded (lowered) and plain nodes evaluate to the same; the
 * code alone, taken as hostile bytes, is refused or evaluated. */
#include "policy/cel.h"
#include "policy/cel_node.h"

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

/* Facts that depend on one byte of the input. */
static void facts_of(uint8_t seed, struct cs_facts *f)
{
    static const struct cs_slice effects[] = {WORD("read"), WORD("opaque"), WORD("ddl")};
    static const struct cs_slice names[] = {WORD("public.a"), WORD("b")};
    memset(f, 0, sizeof *f);
    for (unsigned i = 0; i < CS_FACT_MAX; i++) {
        f->v[i].state = (seed & (1U << (i % 8))) != 0 ? CS_FACT_KNOWN : CS_FACT_UNKNOWN;
        if (cs_fact_info((enum cs_fact_id)i)->type == CS_FACT_STRINGS) {
            f->v[i].u.strings.v = i == CS_FACT_SQL_EFFECTS ? effects : names;
            f->v[i].u.strings.n = seed % 3;
        } else if (cs_fact_info((enum cs_fact_id)i)->type == CS_FACT_STRING) {
            f->v[i].u.string = names[seed % 2];
        } else {
            f->v[i].u.integer = seed;
        }
    }
}

static void plain_is_the_same(struct cs_slice text, struct cs_arena *a, enum cs_tri want,
                              const struct cs_cel_input *in)
{
    struct cs_cel_parsed p = {NULL, NULL, 0};
    struct cs_cel_fault fault;
    char why[240];
    uint32_t at = 0, families = 0;
    check(cs_cel_parse(text, a, &p, &at, why) == CS_OK);
    check(cs_cel_check(p.nodes, p.n, &families, &fault));
    struct cs_cel plain = {p.nodes, p.n, families};
    enum cs_tri got = cs_cel_eval(&plain, in);
    /* Lowered nodes take fewer steps: only running out of them may differ. */
    check(got == want || got == CS_TRI_UNKNOWN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_arena a;
    struct cs_buf code = cs_buf(1U << 22);
    struct cs_cel_mistake m;
    struct cs_cel c;
    struct cs_facts f;
    struct cs_cel_input in;
    cs_arena_init(&a, 4096, 8U << 20);
    facts_of(size > 0 ? data[0] : 0, &f);
    cs_cel_prepare(&f, &in);
    struct cs_slice text = cs_slice(data, size);
    enum cs_err err = cs_cel_compile(text, &a, &code, &m);
    if (err == CS_OK) {
        check(cs_cel_load(cs_buf_slice(&code), &a, &c) == CS_OK);
        plain_is_the_same(text, &a, cs_cel_eval(&c, &in), &in);
    } else if (err == CS_ERR_INVALID) {
        check(m.line >= 1 && m.column >= 1 && m.text[0] != 0 && code.len == 0);
    }
    if (cs_cel_load(text, &a, &c) == CS_OK) {
        (void)cs_cel_eval(&c, &in);
    }
    cs_buf_done(&code);
    cs_arena_done(&a);
    return 0;
}
