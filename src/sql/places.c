/* Secret places in the parse tree (places.h). Called by secrets.c, for texts in which a word says
 * that there may be one. It must never call a function of PostgreSQL, and in doubt it takes more: a
 * tree that it cannot walk to its end has secrets everywhere.
 *
 * SECURITY: names are all there is to go by. A column that is not called what it holds, an INSERT
 * without a list of columns, a function of one's own with a name of one's own are not known. */
#include "sql/places.h"

#include "sql/walk.h"

enum { NODES_MAX = 200000 };

static const struct {
    const char *name;
    uint8_t secret, connection;
} functions[] = {
#define CS_SQL_SECRET(name, secret, connection) {name, secret, connection},
#include "sql/secret_arguments.def"
#undef CS_SQL_SECRET
};

enum how {
    FREE = 0,   /* not secret */
    SECRET,     /* all constants and parameters in it */
    CALCULATED, /* the same, but numbers: inside a call they say how, not what */
};

struct search {
    struct cs_sql_places *out;
    bool (*sounds)(const char *name);
    unsigned depth;
    size_t nodes;
};

static void visit(struct search *s, const void *node, enum how how);

static void place(struct search *s, const A_Const *c, bool connection)
{
    struct cs_sql_places *out = s->out;
    if (out->n == CS_ARRAY_LEN(out->v) || c->location < 0) {
        out->over = true;
        return;
    }
    int tag = (int)nodeTag(&c->val);
    out->v[out->n++] = (struct cs_sql_place){(uint32_t)c->location, connection,
                                             tag == T_Integer || tag == T_Float};
}

static void constant(struct search *s, const A_Const *c, enum how how)
{
    int tag = c->isnull ? 0 : (int)nodeTag(&c->val);
    bool number = tag == T_Integer || tag == T_Float;
    if (tag == T_String || tag == T_BitString || (number && how == SECRET)) {
        place(s, c, false);
    }
}

static void parameter(struct search *s, const ParamRef *p)
{
    s->out->params |= UINT64_C(1) << (p->number < 1 || p->number > 63 ? 63 : p->number - 1);
}

static const Node *uncast(const void *node)
{
    const Node *n = node;
    for (unsigned i = 0; n != NULL && nodeTag(n) == T_TypeCast && i < CS_LIMIT_SQL_WALK_DEPTH;
         i++) {
        n = ((const TypeCast *)(const void *)n)->arg;
    }
    return n;
}

static const char *last_name(const List *l)
{
    return cs_sql_items(l) > 0 ? cs_sql_string(cs_sql_item(l, cs_sql_items(l) - 1)) : NULL;
}

static bool sounds(const struct search *s, const char *name)
{
    return name != NULL && s->sounds(name);
}

/* ---- calls ---- */

/* A string that says where something connects to: secrets.c looks into one that stands there as it
 * is, and the gate into a parameter; what is put together is taken. */
static void connection(struct search *s, const Node *arg)
{
    const Node *n = uncast(arg);
    if (n != NULL && nodeTag(n) == T_A_Const) {
        const A_Const *c = (const void *)n;
        if (!c->isnull && nodeTag(&c->val) == T_String) {
            place(s, c, true);
        }
    } else if (n != NULL && nodeTag(n) != T_ParamRef) {
        visit(s, n, CALCULATED);
    }
}

/* set_config(name, value, …): of a setting that sounds secret, or that nobody knows yet. */
static bool sets_secret(const struct search *s, const List *args)
{
    const Node *name = cs_sql_items(args) > 1 ? uncast(cs_sql_item(args, 0)) : NULL;
    if (name != NULL && nodeTag(name) == T_A_Const) {
        const A_Const *c = (const void *)name;
        return !c->isnull && nodeTag(&c->val) == T_String && sounds(s, c->val.sval.sval);
    }
    return name != NULL && nodeTag(name) == T_ParamRef;
}

static void call(struct search *s, const FuncCall *f, enum how how)
{
    const char *name = last_name(f->funcname);
    unsigned secret = 0, connects = 0;
    enum how inner = how == FREE ? FREE : CALCULATED;
    for (size_t i = 0; name != NULL && i < CS_ARRAY_LEN(functions); i++) {
        if (strcmp(functions[i].name, name) == 0) {
            secret = functions[i].secret;
            connects = functions[i].connection;
        }
    }
    if (name != NULL && strcmp(name, "set_config") == 0 && sets_secret(s, f->args)) {
        secret = 2;
    } else if (name != NULL && strstr(name, "passw") != NULL) {
        secret = UINT8_MAX; /* set_password('bob', '…') */
    }
    for (int i = 0; i < cs_sql_items(f->args); i++) {
        const Node *arg = cs_sql_item(f->args, i);
        unsigned bit = i < 8 ? 1U << i : 0;
        bool named = arg != NULL && nodeTag(arg) == T_NamedArgExpr;
        if ((secret & bit) != 0 || (named && secret != 0) || (i >= 8 && secret == UINT8_MAX)) {
            visit(s, arg, SECRET);
        } else if ((connects & bit) != 0 || (named && connects != 0)) {
            connection(s,
                       named ? (const Node *)((const NamedArgExpr *)(const void *)arg)->arg : arg);
        } else {
            visit(s, arg, inner);
        }
    }
    visit(s, f->agg_order, inner);
    visit(s, f->agg_filter, inner);
    visit(s, f->over, inner);
}

/* ---- columns ---- */

static const char *column_of(const void *node)
{
    const Node *n = uncast(node);
    return n != NULL && nodeTag(n) == T_ColumnRef
               ? last_name(((const ColumnRef *)(const void *)n)->fields)
               : NULL;
}

static void compare(struct search *s, const A_Expr *e, enum how how)
{
    bool left = sounds(s, column_of(e->lexpr)), right = sounds(s, column_of(e->rexpr));
    visit(s, e->lexpr, right ? SECRET : how);
    visit(s, e->rexpr, left ? SECRET : how);
}

/* (a, b) = (1, 2) gives each name the same source: it is visited with the first, and once more for
 * a secret one. */
static void target(struct search *s, const ResTarget *t, enum how how)
{
    bool secret = sounds(s, t->name);
    const Node *val = t->val;
    if (val != NULL && nodeTag(val) == T_MultiAssignRef) {
        const MultiAssignRef *m = (const void *)val;
        const Node *source = m->source;
        if (secret && source != NULL && nodeTag(source) == T_RowExpr) {
            const List *row = ((const RowExpr *)(const void *)source)->args;
            visit(s, m->colno <= cs_sql_items(row) ? cs_sql_item(row, m->colno - 1) : NULL, SECRET);
        } else if (secret || m->colno == 1) {
            visit(s, source, secret ? SECRET : how);
        }
        if (m->colno == 1 && secret) {
            visit(s, source, how);
        }
        return;
    }
    visit(s, t->indirection, how);
    visit(s, val, secret ? SECRET : how);
}

/* One row for these columns; `row` holds expressions, or targets of a SELECT. */
static void row_for(struct search *s, const List *columns, const List *row)
{
    for (int i = 0; i < cs_sql_items(row); i++) {
        const ResTarget *c = i < cs_sql_items(columns) ? cs_sql_item(columns, i) : NULL;
        bool secret = c != NULL && nodeTag(c) == T_ResTarget && sounds(s, c->name);
        visit(s, cs_sql_item(row, i), secret ? SECRET : FREE);
    }
}

static bool any_sounds(const struct search *s, const List *columns)
{
    bool yes = false;
    for (int i = 0; i < cs_sql_items(columns) && !yes; i++) {
        const ResTarget *c = cs_sql_item(columns, i);
        yes = c != NULL && nodeTag(c) == T_ResTarget && sounds(s, c->name);
    }
    return yes;
}

static void rows_for(struct search *s, const List *columns, const Node *query)
{
    if (query == NULL || nodeTag(query) != T_SelectStmt || s->depth >= CS_LIMIT_SQL_WALK_DEPTH) {
        return;
    }
    const SelectStmt *q = (const void *)query;
    s->depth++;
    for (int i = 0; i < cs_sql_items(q->valuesLists); i++) {
        row_for(s, columns, cs_sql_item(q->valuesLists, i));
    }
    row_for(s, columns, q->targetList);
    rows_for(s, columns, (const Node *)q->larg); /* UNION */
    rows_for(s, columns, (const Node *)q->rarg);
    s->depth--;
}

/* ---- the walk ---- */

static void fields(struct search *s, const Node *node, enum how how)
{
    const uint16_t *f = cs_sql_node_fields((unsigned)nodeTag(node));
    if (f == NULL) {
        s->out->over = true;
        return;
    }
    for (; *f != 0; f++) {
        const Node *field;
        memcpy(&field, (const char *)node + *f, sizeof field);
        visit(s, field, how);
    }
}

static void dispatch(struct search *s, const Node *node, enum how how)
{
    const void *n = node;
    switch ((int)nodeTag(node)) {
    case T_A_Const:
        if (how != FREE) {
            constant(s, n, how);
        }
        break;
    case T_ParamRef:
        if (how != FREE) {
            parameter(s, n);
        }
        break;
    case T_TypeName:
        break;
    case T_List:
        for (int i = 0; i < cs_sql_items(n); i++) {
            visit(s, cs_sql_item(n, i), how);
        }
        break;
    case T_FuncCall:
        call(s, n, how);
        break;
    case T_NamedArgExpr:
        visit(s, ((const NamedArgExpr *)n)->arg,
              sounds(s, ((const NamedArgExpr *)n)->name) ? SECRET : how);
        break;
    case T_A_Expr:
        compare(s, n, how);
        break;
    case T_ResTarget:
        target(s, n, how);
        break;
    case T_InsertStmt:
        if (any_sounds(s, ((const InsertStmt *)n)->cols)) {
            rows_for(s, ((const InsertStmt *)n)->cols, ((const InsertStmt *)n)->selectStmt);
        }
        fields(s, node, FREE);
        break;
    case T_MergeWhenClause:
        if (any_sounds(s, ((const MergeWhenClause *)n)->targetList)) {
            row_for(s, ((const MergeWhenClause *)n)->targetList,
                    ((const MergeWhenClause *)n)->values);
        }
        fields(s, node, FREE);
        break;
    default:
        fields(s, node, how);
        break;
    }
}

static void visit(struct search *s, const void *node, enum how how)
{
    if (node == NULL || s->out->over) {
        return;
    }
    if (s->depth >= CS_LIMIT_SQL_WALK_DEPTH || ++s->nodes > NODES_MAX) {
        s->out->over = true;
        return;
    }
    s->depth++;
    dispatch(s, node, how);
    s->depth--;
}

static int by_place(const void *a, const void *b)
{
    const struct cs_sql_place *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

void cs_sql_places_find(const List *tree, bool (*is_secret)(const char *name),
                        struct cs_sql_places *ret)
{
    struct search s = {.out = ret, .sounds = is_secret};
    ret->n = 0;
    ret->over = false;
    ret->params = 0;
    for (int i = 0; i < cs_sql_items(tree) && !ret->over; i++) {
        const RawStmt *raw = cs_sql_item(tree, i);
        if (raw != NULL && nodeTag(raw) == T_RawStmt) {
            visit(&s, raw->stmt, FREE);
        }
    }
    if (ret->over) {
        ret->params = UINT64_MAX;
        return;
    }
    /* In order, each once: a place that was found in two ways is one. */
    size_t n = 0;
    if (ret->n > 1) {
        qsort(ret->v, ret->n, sizeof ret->v[0], by_place);
    }
    for (size_t i = 0; i < ret->n; i++) {
        if (n > 0 && ret->v[n - 1].at == ret->v[i].at) {
            ret->v[n - 1].connection &= ret->v[i].connection;
        } else {
            ret->v[n++] = ret->v[i];
        }
    }
    ret->n = n;
}
