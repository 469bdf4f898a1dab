/* Lowering: patterns that people write in nearly every rule become single operations. Called by the
 * loader on checked nodes; it must never change what a condition means (tests and the fuzzer
 * compare lowered and plain nodes). */
#include "policy/cel_node.h"

/* The literals on the right of `var == L`, `L == var`, `var in [L, …]`; false when it is another
 * shape. */
static bool literals_of(const struct cs_cel_node *n, uint32_t at, bool *negate, uint32_t *lit,
                        uint32_t *lits)
{
    while (n[at].op == CS_CEL_NOT) {
        *negate = !*negate;
        at++;
    }
    if (n[at].op != CS_CEL_EQ && n[at].op != CS_CEL_NE && n[at].op != CS_CEL_IN) {
        return false;
    }
    *negate ^= n[at].op == CS_CEL_NE;
    const struct cs_cel_node *a = &n[at + 1], *b = &n[at + 1 + n[at + 1].size];
    if (n[at].op == CS_CEL_IN) {
        *lit = at + 3;
        *lits = b->n_args;
        return a->op == CS_CEL_VAR && b->op == CS_CEL_LIST && b->type == CS_CEL_T_STRINGS;
    }
    bool swapped = a->op == CS_CEL_STRING;
    *lit = swapped ? at + 1 : at + 2;
    *lits = 1;
    return swapped ? b->op == CS_CEL_VAR : a->op == CS_CEL_VAR && b->op == CS_CEL_STRING;
}

static void lower_effects(struct cs_cel_node *n, uint32_t at)
{
    unsigned bits = 0;
    if (n[at].u.i != CS_FACT_SQL_EFFECTS) {
        return;
    }
    for (uint32_t i = 0; i < n[at].lits; i++) {
        bits |= cs_cel_effect_bit(n[n[at].lit + i].u.s); /* the checker knows them all */
    }
    n[at].op = n[at].op == CS_CEL_ANY_OF ? CS_CEL_EFFECTS_ANY : CS_CEL_EFFECTS_ALL;
    n[at].lits = (uint16_t)bits;
}

/* exists(e, e == L) and its like, over a list fact. The variable is the macro's own: a comparison
 * of an outer variable keeps its nodes. */
static void lower_macro(struct cs_cel_node *n, uint32_t at, uint32_t level)
{
    bool negate = false;
    uint32_t lit = 0, lits = 0;
    uint32_t pred = at + 1 + n[at + 1].size;
    if (n[at + 1].op != CS_CEL_FACT || n[at].op == CS_CEL_ONE ||
        !literals_of(n, pred, &negate, &lit, &lits)) {
        return;
    }
    for (uint32_t i = pred; i < pred + n[pred].size; i++) {
        if (n[i].op == CS_CEL_VAR && n[i].u.i != (int64_t)level) {
            return;
        }
    }
    /* exists(!(e in L)) = !all(e in L); all(!(e in L)) = !exists(e in L): true in Kleene's logic
     * too. */
    bool all = n[at].op == CS_CEL_ALL;
    n[at].u.i = n[at + 1].u.i;
    n[at].op = all != negate ? CS_CEL_ALL_OF : CS_CEL_ANY_OF;
    n[at].negate = negate;
    n[at].lit = lit;
    n[at].lits = (uint16_t)lits;
    lower_effects(n, at);
}

/* fact == L, fact != L, L == fact, fact in [L, …] for a fact that is a string. */
static void lower_string(struct cs_cel_node *n, uint32_t at)
{
    const struct cs_cel_node *a = &n[at + 1], *b = &n[at + 1 + n[at + 1].size];
    bool in = n[at].op == CS_CEL_IN, swapped = !in && a->op == CS_CEL_STRING;
    const struct cs_cel_node *fact = swapped ? b : a, *lit = swapped ? a : b;
    if (fact->op != CS_CEL_FACT || fact->type != CS_CEL_T_STRING ||
        (in ? lit->type != CS_CEL_T_STRINGS || lit->op != CS_CEL_LIST : lit->op != CS_CEL_STRING)) {
        return;
    }
    n[at].lit = (uint32_t)(lit - n) + (in ? 1 : 0);
    n[at].lits = in ? lit->n_args : 1;
    n[at].negate = n[at].op == CS_CEL_NE;
    n[at].u.i = fact->u.i;
    n[at].op = CS_CEL_STRING_OF;
}

static void lower(struct cs_cel_node *n, uint32_t at, uint32_t level)
{
    uint32_t end = at + n[at].size;
    bool macro = n[at].op == CS_CEL_EXISTS || n[at].op == CS_CEL_ALL || n[at].op == CS_CEL_ONE;
    if (macro) {
        lower(n, at + 1 + n[at + 1].size, level + 1);
        lower_macro(n, at, level);
        return;
    }
    if (n[at].op == CS_CEL_IN && n[at + 1].op == CS_CEL_STRING && n[at + 2].op == CS_CEL_FACT) {
        n[at].op = CS_CEL_ANY_OF;
        n[at].u.i = n[at + 2].u.i;
        n[at].lit = at + 1;
        n[at].lits = 1;
        lower_effects(n, at);
        return;
    }
    if (n[at].op == CS_CEL_EQ || n[at].op == CS_CEL_NE || n[at].op == CS_CEL_IN) {
        lower_string(n, at);
        return; /* their operands hold nothing to lower but in rare cases, which stay as they are */
    }
    for (uint32_t i = at + 1; i < end; i += n[i].size) {
        lower(n, i, level);
    }
}

void cs_cel_lower(struct cs_cel_node *nodes, uint32_t n)
{
    if (n > 0) {
        lower(nodes, 0, 0);
    }
}
