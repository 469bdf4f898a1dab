/* The parser of conditions: tokens to a tree, the tree to nodes in prefix order. Called by
 * cel_compile.c alone. Nesting and size are limited here (CEL_DEPTH, CEL_NODES): everything behind
 * may recurse. It must never accept what it does not understand: unknown CEL is an error with its
 * place. */
#include "policy/cel_lex.h"
#include "policy/cel_node.h"

#include "base/limits.h"

#include <stdarg.h>
#include <stdio.h>

struct tree {
    uint8_t op;
    uint32_t at;
    uint32_t depth;
    uint32_t n_args;
    uint32_t size;
    int64_t i;
    struct cs_slice s; /* STRING: value; NAME: dotted name */
    struct tree *first, *last, *next;
};
enum { NAME = CS_CEL_OP_MAX + 10 }; /* a name not yet resolved */

struct parser {
    struct cs_cel_lexer lex;
    struct cs_arena *arena;
    uint32_t depth; /* of recursion */
    uint32_t n_nodes;
    struct cs_slice vars[CS_CEL_VARS];
    uint32_t n_vars;
    bool failed, no_memory;
    uint32_t at;
    char *text; /* 240 bytes */
};

static struct tree *parse_expr(struct parser *p);

/* The first mistake counts; NULL, so that callers can return it. */
static struct tree *fail(struct parser *p, size_t at, const char *fmt, ...) CS_PRINTF(3, 4);
static struct tree *fail(struct parser *p, size_t at, const char *fmt, ...)
{
    if (!p->failed) {
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(p->text, 240, fmt, ap);
        va_end(ap);
        p->failed = true;
        p->at = (uint32_t)at;
    }
    return NULL;
}

static int shown(struct cs_slice s)
{
    return (int)CS_MIN(s.n, 60);
}

static struct tree *unexpected(struct parser *p, const char *wanted)
{
    const struct cs_cel_lexer *l = &p->lex;
    if (l->tok == CS_CEL_TOK_BAD) {
        return fail(p, l->at, "%s", l->why);
    }
    if (l->tok == CS_CEL_TOK_END) {
        return fail(p, l->at, "the condition ends where %s is expected", wanted);
    }
    if (l->tok == CS_CEL_TOK_STRING) {
        return fail(p, l->at, "a string stands where %s is expected", wanted);
    }
    return fail(p, l->at, "\"%.*s\" stands where %s is expected", shown(l->s), (const char *)l->s.p,
                wanted);
}

static bool is_punct(const struct parser *p, const char *s)
{
    return p->lex.tok == CS_CEL_TOK_PUNCT && cs_slice_eq_str(p->lex.s, s);
}

static bool is_name(const struct parser *p, const char *s)
{
    return p->lex.tok == CS_CEL_TOK_NAME && cs_slice_eq_str(p->lex.s, s);
}

static bool take(struct parser *p, const char *s)
{
    if (!is_punct(p, s)) {
        return false;
    }
    cs_cel_lex_next(&p->lex);
    return true;
}

static struct tree *node(struct parser *p, unsigned op, size_t at)
{
    if (p->failed) {
        return NULL;
    }
    if (++p->n_nodes > CS_LIMIT_CEL_NODES) {
        return fail(p, at, "the condition is too large (%d elements at most)", CS_LIMIT_CEL_NODES);
    }
    struct tree *t = CS_NEW(p->arena, struct tree);
    if (t == NULL) {
        p->no_memory = true;
        return fail(p, at, "no memory is left");
    }
    t->op = (uint8_t)op;
    t->at = (uint32_t)at;
    t->depth = 1;
    t->size = 1;
    return t;
}

/* Adds an argument; NULL on either side means that something failed before. */
static struct tree *add(struct parser *p, struct tree *t, struct tree *arg)
{
    if (t == NULL || arg == NULL) {
        return NULL;
    }
    if (t->last == NULL) {
        t->first = arg;
    } else {
        t->last->next = arg;
    }
    t->last = arg;
    t->n_args++;
    t->size += arg->size;
    t->depth = CS_MAX(t->depth, arg->depth + 1);
    if (t->depth > CS_LIMIT_CEL_DEPTH) {
        return fail(p, arg->at, "the condition is nested too deeply (%d levels at most)",
                    CS_LIMIT_CEL_DEPTH);
    }
    return t;
}

static struct tree *binary(struct parser *p, unsigned op, size_t at, struct tree *a, struct tree *b)
{
    return add(p, add(p, node(p, op, at), a), b);
}

/* ---- names ---- */

static struct tree *resolve(struct parser *p, struct tree *t)
{
    if (t == NULL || t->op != NAME) {
        return t;
    }
    for (uint32_t i = p->n_vars; i > 0; i--) {
        if (cs_slice_eq(p->vars[i - 1], t->s)) {
            t->op = CS_CEL_VAR;
            t->i = i - 1;
            return t;
        }
    }
    enum cs_fact_id id = cs_fact_by_name(t->s);
    if (id == CS_FACT_MAX) {
        return fail(p, t->at, "there is no fact \"%.*s\"", shown(t->s), (const char *)t->s.p);
    }
    t->op = CS_CEL_FACT;
    t->i = id;
    return t;
}

static bool close_call(struct parser *p, const char *name)
{
    if (take(p, ")")) {
        return true;
    }
    char wanted[60];
    (void)snprintf(wanted, sizeof wanted, "the \")\" of %s(…)", name);
    (void)unexpected(p, wanted);
    return false;
}

/* e.exists(v, P) and its sisters; the "(" is taken. */
static struct tree *parse_macro(struct parser *p, unsigned op, const char *name, size_t at,
                                struct tree *list)
{
    if (p->lex.tok != CS_CEL_TOK_NAME) {
        return unexpected(p, "a name for the element");
    }
    if (p->n_vars == CS_CEL_VARS) {
        return fail(p, at, "more than %d of exists, all and exists_one inside each other",
                    CS_CEL_VARS);
    }
    struct cs_slice var = p->lex.s;
    cs_cel_lex_next(&p->lex);
    if (!take(p, ",")) {
        return unexpected(p, "a \",\" and then a condition on the element");
    }
    p->vars[p->n_vars++] = var;
    struct tree *pred = parse_expr(p);
    p->n_vars--;
    if (pred == NULL || !close_call(p, name)) {
        return NULL;
    }
    return binary(p, op, at, list, pred);
}

static struct tree *parse_method(struct parser *p, struct tree *on, struct cs_slice name, size_t at)
{
    static const struct {
        const char *name;
        uint8_t op;
        uint8_t args;
    } methods[] = {{"exists", CS_CEL_EXISTS, 2},  {"all", CS_CEL_ALL, 2},
                   {"exists_one", CS_CEL_ONE, 2}, {"startsWith", CS_CEL_STARTS, 1},
                   {"endsWith", CS_CEL_ENDS, 1},  {"contains", CS_CEL_CONTAINS, 1},
                   {"size", CS_CEL_SIZE, 0}};
    on = resolve(p, on);
    for (size_t i = 0; on != NULL && i < CS_ARRAY_LEN(methods); i++) {
        if (!cs_slice_eq_str(name, methods[i].name)) {
            continue;
        }
        if (methods[i].args == 2) {
            return parse_macro(p, methods[i].op, methods[i].name, at, on);
        }
        struct tree *t = add(p, node(p, methods[i].op, at), on);
        if (methods[i].args == 1) {
            t = add(p, t, parse_expr(p));
        }
        return t != NULL && close_call(p, methods[i].name) ? t : NULL;
    }
    return on == NULL ? NULL
                      : fail(p, at, "not in this version: the method \"%.*s\"", shown(name),
                             (const char *)name.p);
}

static struct tree *parse_function(struct parser *p, struct cs_slice name, size_t at)
{
    if (cs_slice_eq_str(name, "size")) {
        struct tree *t = add(p, node(p, CS_CEL_SIZE, at), parse_expr(p));
        return t != NULL && close_call(p, "size") ? t : NULL;
    }
    if (cs_slice_eq_str(name, "has")) {
        struct tree *t = parse_expr(p);
        if (t == NULL || !close_call(p, "has")) {
            return NULL;
        }
        if (t->op != CS_CEL_FACT) {
            return fail(p, at, "has(…) takes the name of a fact");
        }
        t->op = CS_CEL_HAS;
        return t;
    }
    return fail(p, at, "not in this version: the function \"%.*s\"", shown(name),
                (const char *)name.p);
}

/* ---- expressions, the tightest first ---- */

static struct tree *parse_list(struct parser *p, size_t at)
{
    struct tree *t = node(p, CS_CEL_LIST, at);
    while (t != NULL && !is_punct(p, "]")) {
        struct tree *e = parse_expr(p);
        if (e != NULL && e->op != CS_CEL_STRING && e->op != CS_CEL_INT && e->op != CS_CEL_BOOL) {
            return fail(p, e->at,
                        "not in this version: a list with an element that is not a "
                        "literal string, number, true or false");
        }
        t = add(p, t, e);
        if (t != NULL && !is_punct(p, "]") && !take(p, ",")) {
            return unexpected(p, "\",\" or \"]\"");
        }
    }
    return t != NULL && take(p, "]") ? t : NULL;
}

static bool is_reserved(struct cs_slice s)
{
    static const char *const words[] = {"as",   "break",     "const", "continue", "else",
                                        "for",  "function",  "if",    "import",   "let",
                                        "loop", "namespace", "null",  "package",  "return",
                                        "var",  "void",      "while", "in"};
    for (size_t i = 0; i < CS_ARRAY_LEN(words); i++) {
        if (cs_slice_eq_str(s, words[i])) {
            return true;
        }
    }
    return false;
}

static struct tree *parse_name(struct parser *p)
{
    struct cs_slice name = p->lex.s;
    size_t at = p->lex.at;
    if (cs_slice_eq_str(name, "null")) {
        return fail(p, at,
                    "not in this version: null (a fact is never null; has(…) asks whether "
                    "there is one)");
    }
    if (is_reserved(name)) {
        return unexpected(p, "a value");
    }
    cs_cel_lex_next(&p->lex);
    bool yes = cs_slice_eq_str(name, "true");
    if (yes || cs_slice_eq_str(name, "false")) {
        struct tree *t = node(p, CS_CEL_BOOL, at);
        if (t != NULL) {
            t->i = yes;
        }
        return t;
    }
    if (take(p, "(")) {
        return parse_function(p, name, at);
    }
    struct tree *t = node(p, NAME, at);
    if (t != NULL) {
        t->s = name;
    }
    return t;
}

static struct tree *parse_int(struct parser *p, bool negative, size_t at)
{
    uint64_t u = p->lex.u;
    if (!negative && u > INT64_MAX) {
        return fail(p, at, "the number does not fit 64 bits");
    }
    struct tree *t = node(p, CS_CEL_INT, at);
    if (t != NULL) {
        t->i = !negative ? (int64_t)u : u > INT64_MAX ? INT64_MIN : -(int64_t)u;
        cs_cel_lex_next(&p->lex);
    }
    return t;
}

static struct tree *parse_primary(struct parser *p)
{
    size_t at = p->lex.at;
    struct tree *t = NULL;
    if (take(p, "(")) {
        t = parse_expr(p);
        if (t != NULL && !take(p, ")")) {
            return unexpected(p, "\")\"");
        }
        return t;
    }
    if (take(p, "[")) {
        return parse_list(p, at);
    }
    if (is_punct(p, "{")) {
        return fail(p, at, "not in this version: maps {…}");
    }
    switch (p->lex.tok) {
    case CS_CEL_TOK_NAME:
        return parse_name(p);
    case CS_CEL_TOK_INT:
        return parse_int(p, false, at);
    case CS_CEL_TOK_STRING:
        t = node(p, CS_CEL_STRING, at);
        if (t != NULL) {
            t->s = p->lex.s;
            cs_cel_lex_next(&p->lex);
        }
        return t;
    case CS_CEL_TOK_END:
    case CS_CEL_TOK_BAD:
    case CS_CEL_TOK_PUNCT:
    default:
        return unexpected(p, "a value");
    }
}

static struct tree *parse_member(struct parser *p)
{
    struct tree *t = parse_primary(p);
    while (t != NULL) {
        size_t at = p->lex.at;
        if (is_punct(p, "[")) {
            return fail(p, at, "not in this version: taking an element by its index […]");
        }
        if (is_punct(p, "{")) {
            return fail(p, at, "not in this version: maps and messages {…}");
        }
        if (!take(p, ".")) {
            break;
        }
        at = p->lex.at;
        struct cs_slice name = p->lex.s;
        if (p->lex.tok != CS_CEL_TOK_NAME) {
            return unexpected(p, "a name");
        }
        cs_cel_lex_next(&p->lex);
        if (take(p, "(")) {
            t = parse_method(p, t, name, at);
        } else if (t->op == NAME) {
            t->s = cs_arena_printf(p->arena, "%.*s.%.*s", CS_SLICE_FMT(t->s), CS_SLICE_FMT(name));
            if (t->s.p == NULL) {
                p->no_memory = true;
                return fail(p, at, "no memory is left");
            }
        } else {
            return fail(p, at, "this value has no fields, so \".%.*s\" means nothing", shown(name),
                        (const char *)name.p);
        }
    }
    return resolve(p, t);
}

static struct tree *parse_unary(struct parser *p)
{
    size_t at = p->lex.at;
    if (++p->depth > 2 * CS_LIMIT_CEL_DEPTH) {
        return fail(p, at, "the condition is nested too deeply (%d levels at most)",
                    CS_LIMIT_CEL_DEPTH);
    }
    struct tree *t = NULL;
    if (take(p, "!")) {
        t = add(p, node(p, CS_CEL_NOT, at), parse_unary(p));
    } else if (take(p, "-")) {
        t = p->lex.tok == CS_CEL_TOK_INT
                ? parse_int(p, true, at)
                : fail(p, at, "not in this version: \"-\" in front of anything but a number");
    } else {
        t = parse_member(p);
    }
    p->depth--;
    return t;
}

static struct tree *parse_sum(struct parser *p)
{
    struct tree *t = parse_unary(p);
    while (t != NULL) {
        size_t at = p->lex.at;
        if (is_punct(p, "*") || is_punct(p, "/") || is_punct(p, "%")) {
            return fail(p, at, "not in this version: the operator \"%.*s\"", shown(p->lex.s),
                        (const char *)p->lex.s.p);
        }
        if (take(p, "+")) {
            t = binary(p, CS_CEL_ADD, at, t, parse_unary(p));
        } else if (take(p, "-")) {
            t = binary(p, CS_CEL_SUB, at, t, parse_unary(p));
        } else {
            break;
        }
    }
    return t;
}

static struct tree *parse_relation(struct parser *p)
{
    static const struct {
        const char *text;
        uint8_t op;
    } ops[] = {{"==", CS_CEL_EQ}, {"!=", CS_CEL_NE}, {"<", CS_CEL_LT},
               {"<=", CS_CEL_LE}, {">", CS_CEL_GT},  {">=", CS_CEL_GE}};
    struct tree *t = parse_sum(p);
    while (t != NULL) {
        size_t at = p->lex.at;
        unsigned op = CS_CEL_NONE;
        for (size_t i = 0; i < CS_ARRAY_LEN(ops); i++) {
            if (is_punct(p, ops[i].text)) {
                op = ops[i].op;
            }
        }
        if (is_name(p, "in")) {
            op = CS_CEL_IN;
        }
        if (op == CS_CEL_NONE) {
            break;
        }
        cs_cel_lex_next(&p->lex);
        t = binary(p, op, at, t, parse_sum(p));
    }
    return t;
}

/* && and || take any number of arguments: long chains stay flat. */
static struct tree *parse_and(struct parser *p)
{
    struct tree *t = parse_relation(p);
    size_t at = p->lex.at;
    if (t == NULL || !is_punct(p, "&&")) {
        return t;
    }
    t = add(p, node(p, CS_CEL_AND, at), t);
    while (t != NULL && take(p, "&&")) {
        t = add(p, t, parse_relation(p));
    }
    return t;
}

static struct tree *parse_or(struct parser *p)
{
    struct tree *t = parse_and(p);
    size_t at = p->lex.at;
    if (t == NULL || !is_punct(p, "||")) {
        return t;
    }
    t = add(p, node(p, CS_CEL_OR, at), t);
    while (t != NULL && take(p, "||")) {
        t = add(p, t, parse_and(p));
    }
    return t;
}

static struct tree *parse_expr(struct parser *p)
{
    /* Counted here and in parse_unary, so twice a level; the tree has its own exact limit. */
    if (++p->depth > 2 * CS_LIMIT_CEL_DEPTH) {
        return fail(p, p->lex.at, "the condition is nested too deeply (%d levels at most)",
                    CS_LIMIT_CEL_DEPTH);
    }
    struct tree *t = parse_or(p);
    size_t at = p->lex.at;
    if (t != NULL && take(p, "?")) {
        t = add(p, add(p, node(p, CS_CEL_COND, at), t), parse_or(p));
        if (t != NULL && !take(p, ":")) {
            return unexpected(p, "the \":\" of \"… ? … : …\"");
        }
        t = add(p, t, parse_expr(p));
    }
    p->depth--;
    return t;
}

/* ---- to nodes ---- */

static void flatten(const struct tree *t, struct cs_cel_parsed *out)
{
    struct cs_cel_node *n = &out->nodes[out->n];
    out->at[out->n++] = t->at;
    n->op = t->op;
    n->n_args = (uint16_t)t->n_args; /* at most CEL_NODES */
    n->size = t->size;
    if (t->op == CS_CEL_STRING) {
        n->u.s = t->s;
    } else {
        n->u.i = t->i;
    }
    for (const struct tree *arg = t->first; arg != NULL; arg = arg->next) {
        flatten(arg, out);
    }
}

enum cs_err cs_cel_parse(struct cs_slice text, struct cs_arena *a, struct cs_cel_parsed *ret,
                         uint32_t *ret_at, char ret_text[static 240])
{
    _Static_assert((int)CS_LIMIT_CEL_NODES <= UINT16_MAX, "n_args is 16 bits wide");
    struct parser p = {.arena = a, .text = ret_text};
    cs_cel_lex_init(&p.lex, text, a);
    struct tree *t = parse_expr(&p);
    if (t != NULL && p.lex.tok != CS_CEL_TOK_END) {
        t = unexpected(&p, "an operator or the end");
    }
    if (t == NULL) {
        if (!p.failed) {
            (void)unexpected(&p, "something else");
        }
        *ret_at = p.at;
        return p.no_memory || p.lex.no_memory ? CS_ERR_NO_MEMORY : CS_ERR_INVALID;
    }
    struct cs_cel_parsed out = {CS_NEW_ARRAY(a, struct cs_cel_node, t->size),
                                CS_NEW_ARRAY(a, uint32_t, t->size), 0};
    if (out.nodes == NULL || out.at == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    flatten(t, &out);
    *ret = out;
    return CS_OK;
}
