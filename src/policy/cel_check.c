/* The checker of conditions: shape, types, closed sets of words. The compiler runs it for its
 * messages, the loader runs it on bytes it does not trust: what it accepts can be evaluated without
 * any further test of bounds. */
#include "policy/cel_node.h"

#include "base/attr.h"
#include "base/limits.h"

#include <stdarg.h>
#include <stdio.h>

enum domain { DOMAIN_NONE, DOMAIN_EFFECT, DOMAIN_TX, DOMAIN_VERB };

static const struct {
    uint8_t n;
    const char *words[6];
    const char *list;
} domains[] = {
    [DOMAIN_EFFECT] = {6,
                       {"session", "read", "write", "ddl", "admin", "opaque"},
                       "session, read, write, ddl, admin, opaque"},
    [DOMAIN_TX] = {3, {"idle", "open", "failed"}, "idle, open, failed"},
};

/* What a target is never asked, whatever the rules say. A rule that names it would look as if it
 * permitted it. */
static const struct {
    const char *word, *what;
} refused_verbs[] = {
    {"FUNCTIONCALL", "the verb is \"FUNCTION CALL\"; by another name it is"},
};

/* A rule that must name such a verb would silently permit nothing. */
static const char *const named_verbs[] = {
#define CS_NAMED_VERB(verb, family, effects, text) verb,
#include "action/named.def"
#undef CS_NAMED_VERB
};

struct checker {
    struct cs_cel_node *n;
    struct cs_cel_fault *fault;
    uint32_t families;
    uint8_t var_type[CS_CEL_VARS], var_domain[CS_CEL_VARS];
    uint32_t n_vars;
};

static bool fault(struct checker *c, uint32_t at, const char *fmt, ...) CS_PRINTF(3, 4);
static bool fault(struct checker *c, uint32_t at, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(c->fault->text, sizeof c->fault->text, fmt, ap);
    va_end(ap);
    c->fault->at = at;
    return false;
}

static const char *type_name(uint8_t t)
{
    static const char *const names[] = {"nothing",        "a bool",           "an int",
                                        "a string",       "a list",           "a list of bools",
                                        "a list of ints", "a list of strings"};
    return t < CS_ARRAY_LEN(names) ? names[t] : "?";
}

static const char *op_name(uint8_t op)
{
    static const char *const names[] = {
#define CS_CEL_OP(id, args, name) name,
        CS_CEL_OPS(CS_CEL_OP)
#undef CS_CEL_OP
    };
    return op < CS_ARRAY_LEN(names) ? names[op] : "?";
}

static uint8_t element_of(uint8_t list)
{
    switch (list) {
    case CS_CEL_T_BOOLS:
        return CS_CEL_T_BOOL;
    case CS_CEL_T_INTS:
        return CS_CEL_T_INT;
    case CS_CEL_T_STRINGS:
        return CS_CEL_T_STRING;
    default:
        return CS_CEL_T_NONE;
    }
}

static bool is_list(uint8_t t)
{
    return t == CS_CEL_T_EMPTY || element_of(t) != CS_CEL_T_NONE;
}

static bool same(uint8_t a, uint8_t b)
{
    return a == b || (a == CS_CEL_T_EMPTY && is_list(b)) || (b == CS_CEL_T_EMPTY && is_list(a));
}

static bool check_verb(struct checker *c, uint32_t at)
{
    struct cs_cel_node *n = &c->n[at];
    n->domain = DOMAIN_VERB;
    for (size_t i = 0; i < CS_ARRAY_LEN(named_verbs); i++) {
        struct cs_slice verb = cs_slice_str(named_verbs[i]);
        if (cs_slice_eq_nocase(n->u.s, verb) && !cs_slice_eq(n->u.s, verb)) {
            return fault(c, at, "verbs are written in capitals: \"%s\"", named_verbs[i]);
        }
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(refused_verbs); i++) {
        if (cs_slice_eq_nocase(n->u.s, cs_slice_str(refused_verbs[i].word))) {
            return fault(c, at, "not in this version: %s always refused; \"%s\" is no verb",
                         refused_verbs[i].what, refused_verbs[i].word);
        }
    }
    return true;
}

/* A word that the closed set does not have is a typing mistake that would silently never match. */
static bool check_word(struct checker *c, uint32_t at, uint8_t domain)
{
    const struct cs_cel_node *n = &c->n[at];
    if (domain == DOMAIN_NONE) {
        return true;
    }
    if (n->op == CS_CEL_LIST) {
        for (uint32_t i = 0; i < n->n_args; i++) {
            if (!check_word(c, at + 1 + i, domain)) {
                return false;
            }
        }
        return true;
    }
    if (n->op != CS_CEL_STRING) {
        return true;
    }
    if (domain == DOMAIN_VERB) {
        return check_verb(c, at);
    }
    for (size_t i = 0; i < domains[domain].n; i++) {
        if (cs_slice_eq_str(n->u.s, domains[domain].words[i])) {
            return true;
        }
    }
    return fault(c, at, "\"%.*s\" is never one of these values; they are: %s",
                 (int)CS_MIN(n->u.s.n, 40), (const char *)n->u.s.p, domains[domain].list);
}

static bool check_leaf(struct checker *c, uint32_t at)
{
    static const uint8_t fact_types[] = {[CS_FACT_STRING] = CS_CEL_T_STRING,
                                         [CS_FACT_STRINGS] = CS_CEL_T_STRINGS,
                                         [CS_FACT_INT] = CS_CEL_T_INT,
                                         [CS_FACT_BOOL] = CS_CEL_T_BOOL};
    struct cs_cel_node *n = &c->n[at];
    switch (n->op) {
    case CS_CEL_BOOL:
        n->type = CS_CEL_T_BOOL;
        return n->u.i == 0 || n->u.i == 1;
    case CS_CEL_INT:
        n->type = CS_CEL_T_INT;
        return true;
    case CS_CEL_STRING:
        n->type = CS_CEL_T_STRING;
        return true;
    case CS_CEL_VAR:
        if (n->u.i < 0 || n->u.i >= (int64_t)c->n_vars) {
            return fault(c, at, "unknown variable");
        }
        n->type = c->var_type[n->u.i];
        n->domain = c->var_domain[n->u.i];
        return true;
    default: /* FACT, HAS */
        break;
    }
    if (n->u.i < 0 || n->u.i >= CS_FACT_MAX) {
        return fault(c, at, "unknown fact");
    }
    const struct cs_fact_info *info = cs_fact_info((enum cs_fact_id)n->u.i);
    c->families |= 1U << info->family;
    n->type = n->op == CS_CEL_HAS ? CS_CEL_T_BOOL : fact_types[info->type];
    n->domain = n->op == CS_CEL_HAS             ? DOMAIN_NONE
                : n->u.i == CS_FACT_SQL_EFFECTS ? DOMAIN_EFFECT
                : n->u.i == CS_FACT_SQL_TX      ? DOMAIN_TX
                : n->u.i == CS_FACT_SQL_VERB    ? DOMAIN_VERB
                                                : DOMAIN_NONE;
    return true;
}

static bool check_list(struct checker *c, uint32_t at)
{
    struct cs_cel_node *n = &c->n[at];
    n->type = CS_CEL_T_EMPTY;
    for (uint32_t i = 0; i < n->n_args; i++) {
        const struct cs_cel_node *e = &c->n[at + 1 + i];
        uint8_t type = e->op == CS_CEL_STRING ? CS_CEL_T_STRINGS
                       : e->op == CS_CEL_INT  ? CS_CEL_T_INTS
                       : e->op == CS_CEL_BOOL ? CS_CEL_T_BOOLS
                                              : CS_CEL_T_NONE;
        if (e->size != 1 || type == CS_CEL_T_NONE) {
            return fault(c, at + 1 + i, "a list holds literals only");
        }
        if (i > 0 && type != n->type) {
            return fault(c, at + 1 + i, "the elements of a list must be of one type");
        }
        n->type = type;
    }
    return true;
}

static bool check_compare(struct checker *c, uint32_t at, uint32_t a, uint32_t b)
{
    const struct cs_cel_node *x = &c->n[a], *y = &c->n[b];
    bool order = c->n[at].op >= CS_CEL_LT && c->n[at].op <= CS_CEL_GE;
    if (!same(x->type, y->type)) {
        return fault(c, at, "\"%s\" compares %s with %s", op_name(c->n[at].op), type_name(x->type),
                     type_name(y->type));
    }
    if (order && x->type != CS_CEL_T_INT && x->type != CS_CEL_T_STRING) {
        return fault(c, at, "\"%s\" orders ints or strings, not %s", op_name(c->n[at].op),
                     type_name(x->type));
    }
    return order || (check_word(c, b, x->domain) && check_word(c, a, y->domain));
}

static bool check_in(struct checker *c, uint32_t at, uint32_t a, uint32_t b)
{
    const struct cs_cel_node *x = &c->n[a], *y = &c->n[b];
    if (!is_list(y->type)) {
        return fault(c, at, "\"in\" needs a list on its right side, not %s", type_name(y->type));
    }
    if (is_list(x->type) || (y->type != CS_CEL_T_EMPTY && element_of(y->type) != x->type)) {
        return fault(c, at, "\"in\" looks for %s in %s", type_name(x->type), type_name(y->type));
    }
    return check_word(c, b, x->domain) && check_word(c, a, y->domain);
}

/* Operands whose types are fixed by the operator. */
static bool check_operands(struct checker *c, uint32_t at, const uint32_t *arg, uint8_t want)
{
    for (uint32_t i = 0; i < 2 && i < c->n[at].n_args; i++) {
        if (c->n[arg[i]].type != want) {
            return fault(c, arg[i], "%s needs %s here, not %s%s", op_name(c->n[at].op),
                         type_name(want), type_name(c->n[arg[i]].type),
                         c->n[at].op == CS_CEL_ADD && c->n[arg[i]].type == CS_CEL_T_STRING
                             ? " (joining strings: not in this version)"
                             : "");
        }
    }
    return true;
}

/* A node whose arguments are checked already; arg holds the first three. */
static bool check_op(struct checker *c, uint32_t at, const uint32_t arg[static 3])
{
    struct cs_cel_node *n = &c->n[at];
    n->type = CS_CEL_T_BOOL;
    switch (n->op) {
    case CS_CEL_NOT:
        return check_operands(c, at, arg, CS_CEL_T_BOOL);
    case CS_CEL_EQ:
    case CS_CEL_NE:
    case CS_CEL_LT:
    case CS_CEL_LE:
    case CS_CEL_GT:
    case CS_CEL_GE:
        return check_compare(c, at, arg[0], arg[1]);
    case CS_CEL_IN:
        return check_in(c, at, arg[0], arg[1]);
    case CS_CEL_ADD:
    case CS_CEL_SUB:
        n->type = CS_CEL_T_INT;
        return check_operands(c, at, arg, CS_CEL_T_INT);
    case CS_CEL_STARTS:
    case CS_CEL_ENDS:
    case CS_CEL_CONTAINS:
        return check_operands(c, at, arg, CS_CEL_T_STRING);
    case CS_CEL_SIZE:
        n->type = CS_CEL_T_INT;
        return is_list(c->n[arg[0]].type) || c->n[arg[0]].type == CS_CEL_T_STRING
                   ? true
                   : fault(c, arg[0], "size() measures a list or a string, not %s",
                           type_name(c->n[arg[0]].type));
    case CS_CEL_COND:
        n->type = c->n[arg[1]].type;
        if (c->n[arg[0]].type != CS_CEL_T_BOOL) {
            return fault(c, arg[0], "the condition of \"?:\" must be a bool, not %s",
                         type_name(c->n[arg[0]].type));
        }
        return !is_list(n->type) && n->type == c->n[arg[2]].type
                   ? true
                   : fault(c, at, "the two sides of \":\" must be of one type that is no list");
    default:
        return fault(c, at, "unknown operator");
    }
}

static bool check_node(struct checker *c, uint32_t at, uint32_t end, uint32_t depth);

/* EXISTS, ALL, ONE: the list, then the predicate with one variable more. */
static bool check_macro(struct checker *c, uint32_t at, uint32_t end, uint32_t depth)
{
    struct cs_cel_node *n = &c->n[at];
    if (!check_node(c, at + 1, end, depth + 1)) {
        return false;
    }
    uint32_t pred = at + 1 + c->n[at + 1].size;
    const struct cs_cel_node *list = &c->n[at + 1];
    if (!is_list(list->type)) {
        return fault(c, at, "%s() works on a list, not on %s", op_name(n->op),
                     type_name(list->type));
    }
    if (list->type == CS_CEL_T_EMPTY) {
        return fault(c, at, "%s() on an empty list means nothing", op_name(n->op));
    }
    if (c->n_vars == CS_CEL_VARS || pred >= end) {
        return fault(c, at, "malformed macro");
    }
    c->var_type[c->n_vars] = element_of(list->type);
    c->var_domain[c->n_vars] = list->domain;
    c->n_vars++;
    bool ok = check_node(c, pred, end, depth + 1);
    c->n_vars--;
    if (!ok) {
        return false;
    }
    if (c->n[pred].type != CS_CEL_T_BOOL) {
        return fault(c, pred, "%s() needs a condition on the element, not %s", op_name(n->op),
                     type_name(c->n[pred].type));
    }
    n->type = CS_CEL_T_BOOL;
    return n->size == pred + c->n[pred].size - at ? true : fault(c, at, "malformed macro");
}

static bool check_args(struct checker *c, uint32_t at, uint32_t end, uint32_t depth)
{
    struct cs_cel_node *n = &c->n[at];
    uint32_t next = at + 1;
    uint32_t arg[3] = {0, 0, 0};
    bool logic = n->op == CS_CEL_AND || n->op == CS_CEL_OR;
    for (uint32_t i = 0; i < n->n_args; i++) {
        if (next >= end || !check_node(c, next, end, depth + 1)) {
            return next >= end ? fault(c, at, "malformed node") : false;
        }
        if (logic && c->n[next].type != CS_CEL_T_BOOL) {
            return fault(c, next, "%s joins conditions, but this is %s", op_name(n->op),
                         type_name(c->n[next].type));
        }
        if (i < 3) {
            arg[i] = next;
        }
        next += c->n[next].size;
    }
    if (next != end) {
        return fault(c, at, "malformed node");
    }
    if (n->op == CS_CEL_LIST) {
        return check_list(c, at);
    }
    if (logic) {
        n->type = CS_CEL_T_BOOL;
        return n->n_args >= 2 ? true : fault(c, at, "malformed node");
    }
    return check_op(c, at, arg);
}

/* The subtree at `at`, which must end at or before `end`. SECURITY: every index used above comes
 * from sizes that are tested here first. */
static bool check_node(struct checker *c, uint32_t at, uint32_t end, uint32_t depth)
{
    static const uint8_t arity[] = {
#define CS_CEL_OP(id, args, name) args,
        CS_CEL_OPS(CS_CEL_OP)
#undef CS_CEL_OP
    };
    struct cs_cel_node *n = &c->n[at];
    if (n->op == CS_CEL_NONE || n->op >= CS_CEL_OP_MAX || depth > CS_LIMIT_CEL_DEPTH ||
        n->size == 0 || n->size > end - at || (arity[n->op] != 255 && n->n_args != arity[n->op]) ||
        n->size - 1 < n->n_args) {
        return fault(c, at, "malformed node");
    }
    end = at + n->size;
    n->domain = DOMAIN_NONE;
    if (arity[n->op] == 0) {
        return n->size == 1 && check_leaf(c, at) ? true
               : c->fault->text[0] != 0          ? false
                                                 : fault(c, at, "malformed node");
    }
    if (n->op == CS_CEL_EXISTS || n->op == CS_CEL_ALL || n->op == CS_CEL_ONE) {
        return check_macro(c, at, end, depth);
    }
    return check_args(c, at, end, depth);
}

bool cs_cel_check(struct cs_cel_node *nodes, uint32_t n, uint32_t *ret_families,
                  struct cs_cel_fault *ret_fault)
{
    struct checker c = {.n = nodes, .fault = ret_fault};
    ret_fault->text[0] = 0;
    ret_fault->at = 0;
    if (n == 0 || nodes[0].size != n) {
        return fault(&c, 0, "malformed condition");
    }
    if (!check_node(&c, 0, n, 1)) {
        return false;
    }
    if (nodes[0].type != CS_CEL_T_BOOL) {
        return fault(&c, 0, "a condition must be true or false, but this is %s",
                     type_name(nodes[0].type));
    }
    *ret_families = c.families;
    return true;
}

static bool is_verb(const struct cs_cel_node *n)
{
    return n->op == CS_CEL_STRING && n->domain == DOMAIN_VERB;
}

bool cs_cel_names_verb(const struct cs_cel *c, struct cs_slice verb)
{
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        if (is_verb(&c->nodes[i]) && cs_slice_eq(c->nodes[i].u.s, verb)) {
            return true;
        }
    }
    return false;
}

bool cs_cel_names_family(const struct cs_cel *c, enum cs_named family)
{
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        if (is_verb(&c->nodes[i]) && cs_verb_named(c->nodes[i].u.s) == family) {
            return true;
        }
    }
    return false;
}

/* What was lowered keeps the node of its fact. */
bool cs_cel_reads(const struct cs_cel *c, enum cs_fact_id fact)
{
    for (uint32_t i = 0; i < c->n_nodes; i++) {
        uint8_t op = c->nodes[i].op;
        if ((op == CS_CEL_FACT || op == CS_CEL_HAS) && c->nodes[i].u.i == (int64_t)fact) {
            return true;
        }
    }
    return false;
}
