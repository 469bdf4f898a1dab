/* The evaluator of conditions: Kleene's three values over checked nodes. Called for every action,
 * so it must never allocate, wait or loop without counting. What it cannot know is UNKNOWN; only
 * the caller turns that into yes or no. */
#include "policy/cel_node.h"

#include "base/attr.h"
#include "base/limits.h"

enum kind { V_UNKNOWN, V_BOOL, V_INT, V_STRING, V_WORDS, V_LITERALS };

struct val {
    enum kind kind;
    bool effects; /* STRING: the element "opaque" of sql.effects; WORDS: the list sql.effects */
    union {
        bool b;
        int64_t i;
        struct cs_slice s;
        struct {
            const struct cs_slice *v;
            size_t n;
        } words;
        struct {
            const struct cs_cel_node *v;
            size_t n;
        } literals;
    } u;
};

struct ev {
    const struct cs_cel_node *n;
    const struct cs_facts *facts;
    const struct cs_cel_input *in;
    uint32_t steps, until; /* until: where there is something to do about them */
    struct val vars[CS_CEL_VARS];
    uint32_t n_vars;
};

/* The rarer cases are functions of their own, so that the usual ones do not pay for their locals.
 */
#define SEPARATE __attribute__((noinline))

static enum cs_tri eval_bool(struct ev *e, uint32_t at);

/* Steps are used up, all of them or those of one piece. True: nothing more is evaluated. */
static SEPARATE bool stops(struct ev *e)
{
    struct cs_cel_pause *pause = e->in->pause;
    if (e->steps > CS_LIMIT_CEL_STEPS || pause == NULL) {
        return true;
    }
    pause->fn(pause->arg);
    e->until = CS_MIN(e->steps + CS_PIECE_STEPS, (uint32_t)CS_LIMIT_CEL_STEPS);
    e->steps--; /* the one that came here is taken again */
    return false;
}

static enum cs_tri tri(bool b)
{
    return b ? CS_TRI_TRUE : CS_TRI_FALSE;
}

static enum cs_tri tri_not(enum cs_tri t)
{
    return t == CS_TRI_UNKNOWN ? t : t == CS_TRI_TRUE ? CS_TRI_FALSE : CS_TRI_TRUE;
}

/* ---- values ---- */

enum { OPAQUE = 1 << 5, OTHER = 1 << 6 };

uint8_t cs_cel_effect_bit(struct cs_slice s)
{
    static const char *const words[] = {"session", "read", "write", "ddl", "admin", "opaque"};
    for (unsigned i = 0; i < CS_ARRAY_LEN(words); i++) {
        if (cs_slice_eq_str(s, words[i])) {
            return (uint8_t)(1U << i);
        }
    }
    return OTHER;
}

static bool is_opaque(struct cs_slice s)
{
    return s.n == 6 && memcmp(s.p, "opaque", 6) == 0;
}

static struct val fact_val(const struct ev *e, const struct cs_cel_node *n)
{
    const struct cs_fact *f = &e->facts->v[n->u.i];
    struct val v = {.kind = V_UNKNOWN};
    if (f->state != CS_FACT_KNOWN) {
        return v;
    }
    switch (n->type) { /* the checker set it */
    case CS_CEL_T_STRING:
        v.kind = V_STRING;
        v.u.s = f->u.string;
        break;
    case CS_CEL_T_STRINGS:
        v.effects = n->u.i == CS_FACT_SQL_EFFECTS;
        /* SECURITY: sql.effects is never empty. An empty one is a classifier's bug, and "all
         * effects are reads" would be true of it. */
        v.kind = v.effects && f->u.strings.n == 0 ? V_UNKNOWN : V_WORDS;
        v.u.words.v = f->u.strings.v;
        v.u.words.n = f->u.strings.n;
        break;
    case CS_CEL_T_INT:
        v.kind = V_INT;
        v.u.i = f->u.integer;
        break;
    case CS_CEL_T_BOOL:
        v.kind = V_BOOL;
        v.u.b = f->u.boolean;
        break;
    default:
        break;
    }
    return v;
}

static struct val literal_val(const struct cs_cel_node *n)
{
    struct val v = {.kind = V_UNKNOWN};
    if (n->op == CS_CEL_STRING) {
        v.kind = V_STRING;
        v.u.s = n->u.s;
    } else if (n->op == CS_CEL_INT) {
        v.kind = V_INT;
        v.u.i = n->u.i;
    } else if (n->op == CS_CEL_BOOL) {
        v.kind = V_BOOL;
        v.u.b = n->u.i != 0;
    }
    return v;
}

static size_t list_n(const struct val *list)
{
    return list->kind == V_WORDS ? list->u.words.n : list->u.literals.n;
}

static struct val list_at(const struct val *list, size_t i)
{
    if (list->kind == V_LITERALS) {
        return literal_val(&list->u.literals.v[i]);
    }
    struct val v = {.kind = V_STRING, .u.s = list->u.words.v[i]};
    v.effects = list->effects && is_opaque(v.u.s);
    return v;
}

static bool has_opaque(const struct val *list)
{
    for (size_t i = 0; list->effects && i < list->u.words.n; i++) {
        if (is_opaque(list->u.words.v[i])) {
            return true;
        }
    }
    return false;
}

static enum cs_tri equal_lists(struct ev *e, const struct val *a, const struct val *b);

static enum cs_tri equal(struct ev *e, const struct val *a, const struct val *b)
{
    if (a->kind == V_UNKNOWN || b->kind == V_UNKNOWN) {
        return CS_TRI_UNKNOWN;
    }
    if (a->kind == V_STRING && b->kind == V_STRING) {
        e->steps += (uint32_t)(CS_MIN(a->u.s.n, b->u.s.n) / 64);
        bool same = cs_slice_eq(a->u.s, b->u.s);
        return a->effects || b->effects ? (same ? CS_TRI_TRUE : CS_TRI_UNKNOWN) : tri(same);
    }
    if (a->kind == V_INT && b->kind == V_INT) {
        return tri(a->u.i == b->u.i);
    }
    if (a->kind == V_BOOL && b->kind == V_BOOL) {
        return tri(a->u.b == b->u.b);
    }
    return equal_lists(e, a, b);
}

static SEPARATE enum cs_tri equal_lists(struct ev *e, const struct val *a, const struct val *b)
{
    if (a->kind < V_WORDS || b->kind < V_WORDS) {
        return CS_TRI_UNKNOWN; /* the checker does not let this happen */
    }
    if (list_n(a) != list_n(b)) {
        /* An opaque effect stands for any number of them. */
        return has_opaque(a) || has_opaque(b) ? CS_TRI_UNKNOWN : CS_TRI_FALSE;
    }
    enum cs_tri all = CS_TRI_TRUE;
    for (size_t i = 0; i < list_n(a) && e->steps++ < CS_LIMIT_CEL_STEPS; i++) {
        struct val x = list_at(a, i), y = list_at(b, i);
        enum cs_tri t = equal(e, &x, &y);
        if (t == CS_TRI_FALSE) {
            return t;
        }
        all = t == CS_TRI_UNKNOWN ? t : all;
    }
    return all;
}

static enum cs_tri is_in(struct ev *e, const struct val *v, const struct val *list)
{
    if (list->kind < V_WORDS) {
        return CS_TRI_UNKNOWN;
    }
    enum cs_tri any = CS_TRI_FALSE;
    for (size_t i = 0; i < list_n(list) && e->steps++ < CS_LIMIT_CEL_STEPS; i++) {
        struct val x = list_at(list, i);
        enum cs_tri t = equal(e, v, &x);
        if (t == CS_TRI_TRUE) {
            return t;
        }
        any = t == CS_TRI_UNKNOWN ? t : any;
    }
    return any;
}

static struct val eval_val(struct ev *e, uint32_t at);

static SEPARATE struct val eval_size(struct ev *e, uint32_t at)
{
    struct val v = eval_val(e, at + 1);
    struct val out = {.kind = V_INT};
    if (v.kind == V_WORDS || v.kind == V_LITERALS) {
        out.u.i = (int64_t)list_n(&v);
        out.kind = has_opaque(&v) ? V_UNKNOWN : V_INT;
    } else if (v.kind == V_STRING && !v.effects) {
        e->steps += (uint32_t)(v.u.s.n / 16);
        for (size_t i = 0; i < v.u.s.n; i++) {
            out.u.i += (v.u.s.p[i] & 0xc0) != 0x80; /* code points */
        }
    } else {
        out.kind = V_UNKNOWN;
    }
    return out;
}

static SEPARATE struct val eval_sum(struct ev *e, uint32_t at)
{
    const struct cs_cel_node *n = &e->n[at];
    struct val a = eval_val(e, at + 1);
    struct val b = eval_val(e, at + 1 + e->n[at + 1].size);
    struct val out = {.kind = V_INT};
    bool over = a.kind != V_INT || b.kind != V_INT ||
                (n->op == CS_CEL_ADD ? __builtin_add_overflow(a.u.i, b.u.i, &out.u.i)
                                     : __builtin_sub_overflow(a.u.i, b.u.i, &out.u.i));
    out.kind = over ? V_UNKNOWN : V_INT;
    return out;
}

static SEPARATE struct val eval_cond(struct ev *e, uint32_t at)
{
    uint32_t yes = at + 1 + e->n[at + 1].size;
    uint32_t no = yes + e->n[yes].size;
    enum cs_tri t = eval_bool(e, at + 1);
    if (t != CS_TRI_UNKNOWN) {
        return eval_val(e, t == CS_TRI_TRUE ? yes : no);
    }
    struct val a = eval_val(e, yes);
    struct val b = eval_val(e, no);
    return equal(e, &a, &b) == CS_TRI_TRUE && !a.effects && !b.effects
               ? a
               : (struct val){.kind = V_UNKNOWN};
}

/* Apart, or each step would pay for what one in hundreds does. */
static SEPARATE struct val next_val(struct ev *e, uint32_t at)
{
    if (stops(e)) {
        return (struct val){.kind = V_UNKNOWN};
    }
    return eval_val(e, at);
}

static struct val eval_val(struct ev *e, uint32_t at)
{
    const struct cs_cel_node *n = &e->n[at];
    if (e->steps++ >= e->until) {
        return next_val(e, at);
    }
    switch (n->op) {
    case CS_CEL_FACT:
        return fact_val(e, n);
    case CS_CEL_VAR:
        return e->vars[n->u.i];
    case CS_CEL_STRING:
    case CS_CEL_INT:
    case CS_CEL_BOOL:
        return literal_val(n);
    case CS_CEL_LIST:
        return (struct val){.kind = V_LITERALS, .u.literals = {n + 1, n->n_args}};
    case CS_CEL_SIZE:
        return eval_size(e, at);
    case CS_CEL_ADD:
    case CS_CEL_SUB:
        return eval_sum(e, at);
    case CS_CEL_COND:
        return eval_cond(e, at);
    default: { /* the rest is of type bool */
        enum cs_tri t = eval_bool(e, at);
        return (struct val){.kind = t == CS_TRI_UNKNOWN ? V_UNKNOWN : V_BOOL,
                            .u.b = t == CS_TRI_TRUE};
    }
    }
}

/* ---- conditions ---- */

static enum cs_tri eval_logic(struct ev *e, uint32_t at)
{
    const struct cs_cel_node *n = &e->n[at];
    enum cs_tri decides = n->op == CS_CEL_AND ? CS_TRI_FALSE : CS_TRI_TRUE;
    enum cs_tri out = tri_not(decides);
    uint32_t arg = at + 1;
    for (uint32_t i = 0; i < n->n_args; i++, arg += e->n[arg].size) {
        enum cs_tri t = eval_bool(e, arg);
        if (t == decides) {
            return t;
        }
        out = t == CS_TRI_UNKNOWN ? t : out;
    }
    return out;
}

static SEPARATE enum cs_tri eval_compare(struct ev *e, uint32_t at)
{
    const struct cs_cel_node *n = &e->n[at];
    struct val a = eval_val(e, at + 1);
    struct val b = eval_val(e, at + 1 + e->n[at + 1].size);
    if (n->op == CS_CEL_EQ) {
        return equal(e, &a, &b);
    }
    if (n->op == CS_CEL_NE) {
        return tri_not(equal(e, &a, &b));
    }
    if (n->op == CS_CEL_IN) {
        return is_in(e, &a, &b);
    }
    if (a.kind != b.kind || a.kind == V_UNKNOWN || a.effects || b.effects) {
        return CS_TRI_UNKNOWN;
    }
    int c = a.kind == V_INT ? (a.u.i > b.u.i) - (a.u.i < b.u.i) : cs_slice_cmp(a.u.s, b.u.s);
    switch (n->op) {
    case CS_CEL_LT:
        return tri(c < 0);
    case CS_CEL_LE:
        return tri(c <= 0);
    case CS_CEL_GT:
        return tri(c > 0);
    default:
        return tri(c >= 0);
    }
}

static SEPARATE enum cs_tri eval_text(struct ev *e, uint32_t at)
{
    struct val a = eval_val(e, at + 1);
    struct val b = eval_val(e, at + 1 + e->n[at + 1].size);
    if (a.kind != V_STRING || b.kind != V_STRING || a.effects || b.effects) {
        return CS_TRI_UNKNOWN;
    }
    e->steps += (uint32_t)CS_MIN(a.u.s.n / 64, CS_LIMIT_CEL_STEPS);
    if (e->n[at].op == CS_CEL_STARTS) {
        return tri(cs_slice_starts(a.u.s, b.u.s));
    }
    if (e->n[at].op == CS_CEL_ENDS) {
        return tri(cs_slice_ends(a.u.s, b.u.s));
    }
    if (b.u.s.n == 0) {
        return CS_TRI_TRUE;
    }
    return tri(a.u.s.n >= b.u.s.n && memmem(a.u.s.p, a.u.s.n, b.u.s.p, b.u.s.n) != NULL);
}

/* exists: any true; all: no false; exists_one: exactly one true. With the list unknown, the
 * predicate can still decide: one that is false whatever the element makes exists false. */
static SEPARATE enum cs_tri eval_macro(struct ev *e, uint32_t at)
{
    const struct cs_cel_node *n = &e->n[at];
    uint32_t pred = at + 1 + e->n[at + 1].size;
    struct val list = eval_val(e, at + 1);
    struct val *var = &e->vars[e->n_vars++];
    enum cs_tri decides = n->op == CS_CEL_ALL ? CS_TRI_FALSE : CS_TRI_TRUE;
    enum cs_tri out = tri_not(decides);
    size_t yes = 0;
    if (list.kind < V_WORDS) {
        *var = (struct val){.kind = V_UNKNOWN};
        enum cs_tri t = eval_bool(e, pred);
        e->n_vars--;
        return t == out ? out : CS_TRI_UNKNOWN;
    }
    for (size_t i = 0; i < list_n(&list); i++) {
        *var = list_at(&list, i);
        enum cs_tri t = eval_bool(e, pred);
        if (e->steps >= CS_LIMIT_CEL_STEPS) {
            out = CS_TRI_UNKNOWN;
            break;
        }
        if (n->op == CS_CEL_ONE) {
            /* An opaque effect stands for any number of them. */
            yes += t == CS_TRI_TRUE && !var->effects;
            out = t == CS_TRI_UNKNOWN || var->effects ? CS_TRI_UNKNOWN : out;
        } else if (t == decides) {
            out = t;
            break;
        } else if (t == CS_TRI_UNKNOWN) {
            out = t;
        }
    }
    e->n_vars--;
    if (n->op == CS_CEL_ONE && e->steps < CS_LIMIT_CEL_STEPS) {
        return yes > 1 ? CS_TRI_FALSE : out == CS_TRI_UNKNOWN ? out : tri(yes == 1);
    }
    return out;
}

/* Is the word one of the literals of a lowered node? */
static inline bool is_literal(const struct cs_cel_node *nodes, const struct cs_cel_node *n,
                              struct cs_slice w)
{
    for (uint32_t k = 0; k < n->lits; k++) {
        const struct cs_slice *l = &nodes[n->lit + k].u.s;
        /* The last bytes differ more often than the first ones ("public.…"). */
        if (l->n == w.n &&
            (w.n == 0 || (l->p[w.n - 1] == w.p[w.n - 1] && memcmp(l->p, w.p, w.n - 1) == 0))) {
            return true;
        }
    }
    return false;
}

/* ANY_OF, ALL_OF (lowered): elements of a list fact against literals. Same results as the nodes
 * that they stand for (a test compares both). */
static SEPARATE enum cs_tri eval_words(struct ev *e, uint32_t at)
{
    const struct cs_cel_node *n = &e->n[at];
    const struct cs_fact *f = &e->facts->v[n->u.i];
    if (f->state != CS_FACT_KNOWN) {
        return CS_TRI_UNKNOWN;
    }
    bool any = n->op == CS_CEL_ANY_OF;
    bool out = !any;
    for (size_t i = 0; i < f->u.strings.n && out != any; i++) {
        struct cs_slice w = f->u.strings.v[i];
        bool hit = is_literal(e->n, n, w);
        e->steps += n->lits + 1U;
        if (hit == any) {
            out = any;
            break;
        }
    }
    return tri(out != n->negate);
}

/* STRING_OF (lowered): a string fact against literals. */
static enum cs_tri eval_string_of(struct ev *e, const struct cs_cel_node *n)
{
    const struct cs_fact *f = &e->facts->v[n->u.i];
    if (f->state != CS_FACT_KNOWN) {
        return CS_TRI_UNKNOWN;
    }
    e->steps += n->lits + (uint32_t)(f->u.string.n / 64);
    return tri(is_literal(e->n, n, f->u.string) != n->negate);
}

/* EFFECTS_ANY, EFFECTS_ALL (lowered): the same for sql.effects, with its element opaque, which is
 * unknown unless the literals name it. */
static enum cs_tri eval_effects(const struct cs_cel_input *in, const struct cs_cel_node *n)
{
    unsigned got = in->effects, want = n->lits;
    if (!in->effects_known) {
        return CS_TRI_UNKNOWN;
    }
    bool unclear = (got & ~want & (unsigned)OPAQUE) != 0;
    enum cs_tri out;
    if (n->op == CS_CEL_EFFECTS_ANY) {
        out = (got & want) != 0 ? CS_TRI_TRUE : unclear ? CS_TRI_UNKNOWN : CS_TRI_FALSE;
    } else {
        out = (got & ~want & ~(unsigned)OPAQUE) != 0 ? CS_TRI_FALSE
              : unclear                              ? CS_TRI_UNKNOWN
                                                     : CS_TRI_TRUE;
    }
    return n->negate ? tri_not(out) : out;
}

static enum cs_tri eval_has(const struct ev *e, int64_t id)
{
    switch (e->facts->v[id].state) {
    case CS_FACT_KNOWN:
        return CS_TRI_TRUE;
    case CS_FACT_ABSENT:
        return CS_TRI_FALSE;
    case CS_FACT_UNKNOWN:
    default:
        return CS_TRI_UNKNOWN;
    }
}

/* A value of type bool. */
static SEPARATE enum cs_tri eval_plain(struct ev *e, uint32_t at)
{
    struct val v = eval_val(e, at);
    return v.kind == V_BOOL ? tri(v.u.b) : CS_TRI_UNKNOWN;
}

static SEPARATE enum cs_tri next_bool(struct ev *e, uint32_t at)
{
    return stops(e) ? CS_TRI_UNKNOWN : eval_bool(e, at);
}

static enum cs_tri eval_bool(struct ev *e, uint32_t at)
{
    const struct cs_cel_node *n = &e->n[at];
    if (e->steps++ >= e->until) {
        return next_bool(e, at);
    }
    switch (n->op) {
    case CS_CEL_EFFECTS_ANY:
    case CS_CEL_EFFECTS_ALL:
        return eval_effects(e->in, n);
    case CS_CEL_STRING_OF:
        return eval_string_of(e, n);
    case CS_CEL_ANY_OF:
    case CS_CEL_ALL_OF:
        return eval_words(e, at);
    case CS_CEL_NOT:
        return tri_not(eval_bool(e, at + 1));
    case CS_CEL_AND:
    case CS_CEL_OR:
        return eval_logic(e, at);
    case CS_CEL_EQ:
    case CS_CEL_NE:
    case CS_CEL_LT:
    case CS_CEL_LE:
    case CS_CEL_GT:
    case CS_CEL_GE:
    case CS_CEL_IN:
        return eval_compare(e, at);
    case CS_CEL_STARTS:
    case CS_CEL_ENDS:
    case CS_CEL_CONTAINS:
        return eval_text(e, at);
    case CS_CEL_EXISTS:
    case CS_CEL_ALL:
    case CS_CEL_ONE:
        return eval_macro(e, at);
    case CS_CEL_HAS:
        return eval_has(e, n->u.i);
    case CS_CEL_BOOL:
    case CS_CEL_FACT:
    case CS_CEL_VAR:
    case CS_CEL_COND:
        return eval_plain(e, at);
    default:
        return CS_TRI_UNKNOWN;
    }
}

void cs_cel_prepare(const struct cs_facts *facts, struct cs_cel_input *ret)
{
    const struct cs_fact *f = &facts->v[CS_FACT_SQL_EFFECTS];
    ret->facts = facts;
    ret->effects = 0;
    ret->pause = NULL;
    /* SECURITY: empty is unknown, as in fact_val. */
    ret->effects_known = f->state == CS_FACT_KNOWN && f->u.strings.n > 0;
    for (size_t i = 0; ret->effects_known && i < f->u.strings.n; i++) {
        ret->effects |= cs_cel_effect_bit(f->u.strings.v[i]);
    }
}

enum cs_tri cs_cel_eval(const struct cs_cel *c, const struct cs_cel_input *in)
{
    if (c->n_nodes == 0) {
        return CS_TRI_TRUE;
    }
    /* The build zeroes every local; the variables here are written before they are read, and
     * zeroing them would cost more than most conditions. */
    struct ev e __attribute__((uninitialized));
    e.n = c->nodes;
    e.facts = in->facts;
    e.in = in;
    e.steps = 0;
    e.until = in->pause != NULL ? in->pause->left : CS_LIMIT_CEL_STEPS;
    e.n_vars = 0;
    enum cs_tri t = eval_bool(&e, 0);
    if (in->pause != NULL) {
        in->pause->left = e.until > e.steps ? e.until - e.steps : 0;
    }
    /* SECURITY: out of steps, part of the answer is missing: an attacker who makes a deny rule
     * expensive must not make it false. */
    return e.steps >= CS_LIMIT_CEL_STEPS ? CS_TRI_UNKNOWN : t;
}
