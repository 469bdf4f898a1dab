/* The exhaustive walk: every field of every node that the grammar produces (nodes.def), with checks
 * at those that can call code or name a relation. Called by classify.c for each statement.
 *
 * It must never skip a node because it does not know it: an unknown tag is opaque. It must never
 * call a function of PostgreSQL. Depth is counted, because 1+1+…+1 makes a tree as deep as the text
 * is long and the parser does not mind. */
#include "sql/walk.h"

#include "sql/catalogue.h"

/* ---- the nodes ---- */
/* Offsets of the fields that point to nodes; 0, which is the tag itself, ends. */
#define CS_F(node, field) offsetof(node, field)
#define CS_SQL_NODE(node, ...)                                                                     \
    static const uint16_t fields_##node[] = {__VA_ARGS__ __VA_OPT__(, ) 0};
#include "sql/nodes.def"
#undef CS_SQL_NODE
static const uint16_t *const node_fields[] = {
#define CS_SQL_NODE(node, ...) [T_##node] = fields_##node,
#include "sql/nodes.def"
#undef CS_SQL_NODE
};
#undef CS_F

/* Looks at a node; true: its fields are to be visited as well. */
typedef bool node_check(struct cs_sql_walk *w, const void *node);

static node_check check_leaf, check_range_var, check_function, check_type, check_expression,
    check_sort, check_sub_link, check_sample, check_table_function, check_multi_assign,
    check_locking, check_like, check_alter_command, check_with, check_opclass, check_column,
    check_indirection, check_option;

static node_check *const node_checks[CS_ARRAY_LEN(node_fields)] = {
    [T_A_Const] = check_leaf,
    [T_ColumnRef] = check_column,
    [T_A_Indirection] = check_indirection,
    [T_Alias] = check_leaf,
    [T_ObjectWithArgs] = check_leaf, /* names an object of DDL and calls nothing */
    [T_RangeVar] = check_range_var,
    [T_FuncCall] = check_function,
    [T_TypeName] = check_type,
    [T_A_Expr] = check_expression,
    [T_SortBy] = check_sort,
    [T_SubLink] = check_sub_link,
    [T_RangeTableSample] = check_sample,
    [T_RangeTableFunc] = check_table_function,
    [T_MultiAssignRef] = check_multi_assign,
    [T_LockingClause] = check_locking,
    [T_TableLikeClause] = check_like,
    [T_AlterTableCmd] = check_alter_command,
    [T_WithClause] = check_with,
    [T_IndexElem] = check_opclass,
    [T_DefElem] = check_option,
};

/* ---- effects ---- */
void cs_sql_effect(struct cs_sql_walk *w, uint8_t effects)
{
    if (w->plain_explain && (effects & (CS_SQL_WRITE | CS_SQL_DDL)) != 0) {
        effects = (uint8_t)((effects & ~(CS_SQL_WRITE | CS_SQL_DDL)) | CS_SQL_READ);
    }
    w->effects |= effects;
}

static void opaque(struct cs_sql_walk *w, const char *why)
{
    w->effects |= CS_SQL_OPAQUE;
    if (w->build->why[0] == '\0') {
        w->build->why = why;
    }
}

void cs_sql_opaque(struct cs_sql_walk *w, const char *why)
{
    w->build->opaque_otherwise = true;
    opaque(w, why);
}

static void stop(struct cs_sql_walk *w, const char *why)
{
    cs_sql_opaque(w, why);
    cs_sql_build_opaque(w->build, why);
    w->stop = true;
}

/* ---- names ---- */
static void note(struct cs_sql_walk *w, enum cs_sql_list list, struct cs_slice name)
{
    if (name.p == NULL || !cs_sql_build_name(w->build, list, name)) {
        stop(w, "too many relations or functions");
    }
}

static bool needs_quotes(const char *s)
{
    return strpbrk(s, ".\"") != NULL;
}

/* As SQL would quote it: " around, and doubled inside. */
static const char *quoted(struct cs_arena *a, const char *s)
{
    char *q = cs_arena_array(a, strlen(s) + 2, 2), *to = q;
    if (q == NULL) {
        return NULL;
    }
    *to++ = '"';
    for (; *s != '\0'; s++) {
        if (*s == '"') {
            *to++ = '"';
        }
        *to++ = *s;
    }
    *to = '"';
    return q;
}

/* a.b.c; a part that holds a dot or quote is quoted, so that "a.b" is not a.b. A name of one plain
 * part stays where it is, in the tree. */
static struct cs_slice join(struct cs_sql_walk *w, const char *const *parts, size_t n)
{
    struct cs_arena *a = &w->build->arena;
    struct cs_slice s = cs_slice_str("");
    for (size_t i = 0; i < n && s.p != NULL; i++) {
        const char *part = parts[i];
        if (part != NULL && needs_quotes(part)) {
            part = quoted(a, part);
            if (part == NULL) {
                return CS_SLICE_NULL;
            }
        }
        if (part != NULL) {
            s = s.n == 0 ? cs_slice_str(part)
                         : cs_arena_printf(a, "%.*s.%s", CS_SLICE_FMT(s), part);
        }
    }
    return s;
}

void cs_sql_note_written_parts(struct cs_sql_walk *w, const char *const *parts, size_t n)
{
    w->wrote++;
    note(w, w->plain_explain ? CS_SQL_LIST_READS : CS_SQL_LIST_WRITES, join(w, parts, n));
}

void cs_sql_note_written(struct cs_sql_walk *w, const RangeVar *r)
{
    if (r != NULL) {
        const char *parts[] = {r->catalogname, r->schemaname, r->relname};
        cs_sql_note_written_parts(w, parts, CS_ARRAY_LEN(parts));
    }
}

static bool is_cte(const struct cs_sql_walk *w, const char *name)
{
    if (w->n_ctes == 0) {
        return false;
    }
    uint32_t hash = cs_sql_build_hash(w->build, name, strlen(name));
    for (size_t i = 0; i < w->n_ctes; i++) {
        if (w->cte_hash[i] == hash && strcmp(w->cte_name[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool check_range_var(struct cs_sql_walk *w, const void *node)
{
    const RangeVar *r = (const RangeVar *)node;
    if (w->writing) {
        cs_sql_note_written(w, r);
        return false;
    }
    if (r->schemaname == NULL && r->catalogname == NULL && is_cte(w, r->relname)) {
        return false;
    }
    const char *parts[] = {r->catalogname, r->schemaname, r->relname};
    w->effects |= CS_SQL_READ;
    note(w, CS_SQL_LIST_READS, join(w, parts, CS_ARRAY_LEN(parts)));
    if (w->locking) {
        cs_sql_note_written(w, r);
    }
    return false;
}

/* Something that is not built in, and opaque as long as nobody knows more: a catalogue may. */
static void stranger(struct cs_sql_walk *w, enum cs_catalogue_kind kind, const List *name,
                     const char *why)
{
    const char *parts[3] = {NULL};
    int n = cs_sql_items(name);
    for (int i = 0; i < n && n <= (int)CS_ARRAY_LEN(parts); i++) {
        parts[i] = cs_sql_string(cs_sql_item(name, i));
    }
    struct cs_slice joined =
        n <= (int)CS_ARRAY_LEN(parts) ? join(w, parts, (size_t)n) : CS_SLICE_NULL;
    if (joined.n == 0) {
        cs_sql_opaque(w, why);
        return;
    }
    opaque(w, why);
    note(w, CS_SQL_LIST_STRANGERS,
         cs_arena_printf(&w->build->arena, "%c%.*s", (int)kind, CS_SLICE_FMT(joined)));
}

/* ---- WITH ---- */
static void cte_push(struct cs_sql_walk *w, const CommonTableExpr *cte)
{
    if (w->n_ctes == CS_ARRAY_LEN(w->cte_hash)) {
        stop(w, "too many names of WITH");
        return;
    }
    w->cte_hash[w->n_ctes] = cs_sql_build_hash(w->build, cte->ctename, strlen(cte->ctename));
    w->cte_name[w->n_ctes++] = cte->ctename;
}

void cs_sql_enter_with(struct cs_sql_walk *w, const WithClause *with)
{
    if (with == NULL) {
        return;
    }
    bool writing = w->writing, locking = w->locking;
    w->writing = w->locking = false;
    for (int i = 0; with->recursive && i < cs_sql_items(with->ctes) && !w->stop; i++) {
        cte_push(w, cs_sql_item(with->ctes, i));
    }
    /* SECURITY: without RECURSIVE, in WITH t AS (SELECT * FROM t) the inner t is the table. */
    for (int i = 0; i < cs_sql_items(with->ctes) && !w->stop; i++) {
        const CommonTableExpr *cte = cs_sql_item(with->ctes, i);
        cs_sql_visit(w, cte);
        if (!with->recursive && !w->stop) {
            cte_push(w, cte);
        }
    }
    w->writing = writing;
    w->locking = locking;
}

/* Statements enter their WITH themselves: met anywhere else, its scope is unknown. */
static bool check_with(struct cs_sql_walk *w, const void *node)
{
    (void)node;
    stop(w, "a WITH in an unknown place");
    return false;
}

/* ---- what calls code ---- */
static const char *last_of(const List *name)
{
    return cs_sql_items(name) > 0 ? cs_sql_string(cs_sql_item(name, name->length - 1)) : NULL;
}

/* Unqualified or in pg_catalog. */
static bool in_catalog(const List *name)
{
    if (cs_sql_items(name) == 1) {
        return true;
    }
    const char *schema = cs_sql_items(name) == 2 ? cs_sql_string(cs_sql_item(name, 0)) : NULL;
    return schema != NULL && strcmp(schema, "pg_catalog") == 0;
}

static void note_function(struct cs_sql_walk *w, const FuncCall *f)
{
    const char *parts[3] = {NULL};
    int n = cs_sql_items(f->funcname);
    if (n < 1 || n > (int)CS_ARRAY_LEN(parts)) {
        cs_sql_opaque(w, "a function with an unknown kind of name");
        return;
    }
    /* EXTRACT(…) and its like are spelt by the grammar, not by the client. */
    int from = f->funcformat == COERCE_SQL_SYNTAX ? n - 1 : 0;
    for (int i = from; i < n; i++) {
        parts[i] = cs_sql_string(cs_sql_item(f->funcname, i));
    }
    note(w, CS_SQL_LIST_FUNCTIONS, join(w, parts, (size_t)n));
}

static bool constant_text(const void *node, struct cs_slice *ret)
{
    const A_Const *c = node;
    if (c == NULL || nodeTag(c) != T_A_Const) {
        return false;
    }
    bool text = !c->isnull && nodeTag(&c->val) == T_String;
    *ret = text ? cs_slice_str(c->val.sval.sval) : CS_SLICE_NULL;
    return text || c->isnull;
}

uint8_t cs_sql_set_effects(struct cs_slice name, struct cs_slice value)
{
    if (cs_sql_guc_judge(name, value) == CS_SQL_GUC_FREE) {
        return CS_SQL_SESSION;
    }
    /* Leaving a read-only transaction is asking to write, no more: the wall is the credential. */
    if (cs_slice_eq_nocase(name, CS_SLICE_LIT("transaction_read_only")) ||
        cs_slice_eq_nocase(name, CS_SLICE_LIT("default_transaction_read_only"))) {
        return CS_SQL_SESSION | CS_SQL_WRITE;
    }
    return CS_SQL_ADMIN;
}

/* set_config('name', 'value', local): like SET if both are constants. */
static uint8_t set_config_effects(const struct cs_sql_walk *w, const FuncCall *f)
{
    struct cs_slice name, value;
    if (cs_sql_items(f->args) != 3 || f->func_variadic ||
        !constant_text(cs_sql_item(f->args, 1), &value)) {
        return CS_SQL_ADMIN;
    }
    if (f == w->config_call) {
        name = cs_slice_str(w->config_name);
    } else if (!constant_text(cs_sql_item(f->args, 0), &name) || name.p == NULL) {
        return CS_SQL_ADMIN;
    }
    return cs_sql_set_effects(name, value);
}

static bool column_is(const void *node, const char *name)
{
    const ColumnRef *c = node;
    if (c == NULL || nodeTag(c) != T_ColumnRef || cs_sql_items(c->fields) != 1) {
        return false;
    }
    const Node *field = cs_sql_item(c->fields, 0);
    return nodeTag(field) == T_String &&
           strcmp(((const String *)(const void *)field)->sval, name) == 0;
}

/* name = 'constant' */
static const char *name_asked(const void *node)
{
    const A_Expr *e = node;
    struct cs_slice name;
    if (e == NULL || nodeTag(e) != T_A_Expr || e->kind != AEXPR_OP || cs_sql_items(e->name) != 1 ||
        strcmp(last_of(e->name), "=") != 0 || !column_is(e->lexpr, "name") ||
        !constant_text(e->rexpr, &name)) {
        return NULL;
    }
    return (const char *)name.p;
}

void cs_sql_note_config(struct cs_sql_walk *w, const SelectStmt *s)
{
    /* SECURITY: nothing else may stand in it that could give `name` another meaning (WITH, an
     * alias, a second relation), and no second call: the pointer says which one was looked at. */
    if (s->withClause != NULL || w->n_ctes > 0 || s->op != SETOP_NONE ||
        cs_sql_items(s->fromClause) != 1 || cs_sql_items(s->targetList) != 1) {
        return;
    }
    const RangeVar *r = cs_sql_item(s->fromClause, 0);
    const ResTarget *t = cs_sql_item(s->targetList, 0);
    const FuncCall *f = (const void *)t->val;
    const char *name = name_asked(s->whereClause);
    if (nodeTag(r) == T_RangeVar && r->alias == NULL && r->catalogname == NULL &&
        (r->schemaname == NULL || strcmp(r->schemaname, "pg_catalog") == 0) &&
        strcmp(r->relname, "pg_settings") == 0 && f != NULL && nodeTag(f) == T_FuncCall &&
        cs_sql_items(f->args) == 3 && column_is(cs_sql_item(f->args, 0), "name") && name != NULL) {
        w->config_call = f;
        w->config_name = name;
    }
}

static uint8_t function_effects(const struct cs_sql_walk *w, const FuncCall *f)
{
    const char *name = last_of(f->funcname);
    if (name == NULL || !in_catalog(f->funcname)) {
        return CS_SQL_OPAQUE;
    }
    uint8_t effects = cs_sql_names_function(w->names, name);
    return (effects & CS_SQL_FN_SET_CONFIG) != 0 ? set_config_effects(w, f) : effects;
}

/* May be a user's own: not one that is written as pg_catalog's. An unqualified name may be a
 * built-in one that is not on the list: a catalogue calls no function harmless that shares its name
 * with one. */
static bool stranger_function(const FuncCall *f)
{
    const char *name = last_of(f->funcname);
    return name != NULL && cs_sql_items(f->funcname) <= 2 &&
           !(cs_sql_items(f->funcname) == 2 && in_catalog(f->funcname));
}

static bool check_function(struct cs_sql_walk *w, const void *node)
{
    const FuncCall *f = (const FuncCall *)node;
    note_function(w, f);
    uint8_t effects = function_effects(w, f);
    if ((effects & CS_SQL_OPAQUE) != 0) {
        if (stranger_function(f)) {
            stranger(w, CS_CATALOGUE_FUNCTION, f->funcname,
                     "it calls a function that is not known to be harmless");
        } else {
            cs_sql_opaque(w, "it calls a function that is not known to be harmless");
        }
    }
    /* Also under EXPLAIN: planning runs functions that call themselves immutable. Reading and
     * session belong to the statement. */
    effects &= CS_SQL_WRITE | CS_SQL_DDL | CS_SQL_ADMIN;
    if (effects != 0) {
        w->effects |= effects;
        w->build->writes_unknown = true;
    }
    return true;
}

bool cs_sql_only_session_calls(const struct cs_sql_walk *w, const SelectStmt *s)
{
    if (s->op != SETOP_NONE || s->distinctClause != NULL || s->intoClause != NULL ||
        s->fromClause != NULL || s->whereClause != NULL || s->groupClause != NULL ||
        s->havingClause != NULL || s->windowClause != NULL || s->valuesLists != NULL ||
        s->sortClause != NULL || s->limitOffset != NULL || s->limitCount != NULL ||
        s->lockingClause != NULL || s->withClause != NULL) {
        return false;
    }
    for (int i = 0; i < cs_sql_items(s->targetList); i++) {
        const ResTarget *t = cs_sql_item(s->targetList, i);
        const FuncCall *f = (const void *)t->val;
        if (f == NULL || nodeTag(f) != T_FuncCall ||
            (function_effects(w, f) & CS_SQL_SESSION) == 0) {
            return false;
        }
        for (int k = 0; k < cs_sql_items(f->args); k++) {
            if (nodeTag(cs_sql_item(f->args, k)) != T_A_Const) {
                return false;
            }
        }
    }
    return cs_sql_items(s->targetList) > 0;
}

/* A cast runs the type's input function and a domain's checks. */
static bool check_type(struct cs_sql_walk *w, const void *node)
{
    const TypeName *t = (const TypeName *)node;
    const char *name = last_of(t->names);
    if (name == NULL || t->pct_type || !in_catalog(t->names) ||
        !cs_sql_names_type(w->names, name)) {
        if (name == NULL || t->pct_type || cs_sql_items(t->names) > 2) {
            cs_sql_opaque(w, "it names a type that is not built in");
        } else {
            stranger(w, CS_CATALOGUE_TYPE, t->names, "it names a type that is not built in");
        }
    }
    cs_sql_visit(w, t->typmods);
    return false;
}

/* OPERATOR(schema.+) and operators of extensions are functions by another name. */
static void check_operator(struct cs_sql_walk *w, const List *name)
{
    const char *op = last_of(name);
    if (op == NULL || !in_catalog(name) ||
        (strcmp(op, "=") != 0 && !cs_sql_names_operator(w->names, op))) {
        if (op == NULL || cs_sql_items(name) > 2) {
            cs_sql_opaque(w, "it uses an operator that is not built in");
        } else {
            stranger(w, CS_CATALOGUE_OPERATOR, name, "it uses an operator that is not built in");
        }
    }
}

static bool check_expression(struct cs_sql_walk *w, const void *node)
{
    const A_Expr *e = (const A_Expr *)node;
    /* The names of the other kinds are written by the grammar ("BETWEEN", "~~"). */
    if (e->kind == AEXPR_OP || e->kind == AEXPR_OP_ANY || e->kind == AEXPR_OP_ALL) {
        check_operator(w, e->name);
    }
    cs_sql_visit(w, e->lexpr);
    cs_sql_visit(w, e->rexpr);
    return false;
}

static bool check_sort(struct cs_sql_walk *w, const void *node)
{
    const SortBy *s = (const SortBy *)node;
    if (s->sortby_dir == SORTBY_USING) {
        check_operator(w, s->useOp);
    }
    return true;
}

static bool check_sub_link(struct cs_sql_walk *w, const void *node)
{
    const SubLink *s = (const SubLink *)node;
    if (s->operName != NULL) {
        check_operator(w, s->operName);
    }
    return true;
}

static bool check_sample(struct cs_sql_walk *w, const void *node)
{
    const RangeTableSample *s = (const RangeTableSample *)node;
    const char *name = last_of(s->method);
    if (name == NULL || !in_catalog(s->method) ||
        (strcmp(name, "system") != 0 && strcmp(name, "bernoulli") != 0)) {
        cs_sql_opaque(w, "it samples with a method that is not built in");
    }
    return true;
}

/* XMLTABLE evaluates XPath, as xpath() does, which is not on the list of functions either. */
static bool check_table_function(struct cs_sql_walk *w, const void *node)
{
    (void)node;
    cs_sql_opaque(w, "it uses XMLTABLE");
    return true;
}

static bool check_opclass(struct cs_sql_walk *w, const void *node)
{
    const IndexElem *e = (const IndexElem *)node;
    if (e->opclass != NULL && !in_catalog(e->opclass)) {
        cs_sql_opaque(w, "it names an operator class that is not built in");
    }
    return true;
}

/* WITH (autovacuum_enabled = off): the grammar takes a plain word for the name of a type. As one,
 * in AS of a sequence, which is all that is visited, it would have to be a built-in integer. */
static bool check_option(struct cs_sql_walk *w, const void *node)
{
    static const char *const words[] = {"off", "auto"};
    const TypeName *t = (const void *)((const DefElem *)node)->arg;
    bool word = false;
    (void)w;
    if (t != NULL && nodeTag(t) == T_TypeName && cs_sql_items(t->names) == 1) {
        const char *name = last_of(t->names);
        for (size_t i = 0; i < CS_ARRAY_LEN(words); i++) {
            word = word || (name != NULL && strcmp(name, words[i]) == 0);
        }
        word = word && !t->setof && !t->pct_type && t->typmods == NULL && t->arrayBounds == NULL;
    }
    return !word;
}

/* t.f may mean f(t). */
static void dotted(struct cs_sql_walk *w, const List *names, int from)
{
    for (int i = from; i < cs_sql_items(names); i++) {
        const char *name = cs_sql_string(cs_sql_item(names, i));
        if (name != NULL) {
            cs_catalogue_dot(w->build->dotted, name, strlen(name));
        }
    }
}

static bool check_column(struct cs_sql_walk *w, const void *node)
{
    dotted(w, ((const ColumnRef *)node)->fields, 1);
    return false;
}

static bool check_indirection(struct cs_sql_walk *w, const void *node)
{
    dotted(w, ((const A_Indirection *)node)->indirection, 0);
    return true;
}

/* ---- what must not be visited like the rest ---- */
static bool check_leaf(struct cs_sql_walk *w, const void *node)
{
    (void)w;
    (void)node;
    return false;
}

/* SET (a, b, …) = (SELECT …): the columns share one source. SECURITY: visiting it for each would
 * take time exponential in the nesting of UPDATE in WITH. */
static bool check_multi_assign(struct cs_sql_walk *w, const void *node)
{
    (void)w;
    return ((const MultiAssignRef *)node)->colno == 1;
}

/* The names in FOR UPDATE OF are aliases. */
static bool check_locking(struct cs_sql_walk *w, const void *node)
{
    (void)node;
    cs_sql_effect(w, CS_SQL_WRITE);
    return false;
}

static bool check_like(struct cs_sql_walk *w, const void *node)
{
    bool writing = w->writing;
    w->writing = false;
    cs_sql_visit(w, ((const TableLikeClause *)node)->relation);
    w->writing = writing;
    return false;
}

/* Who owns a table and whether its row security holds is about rights. */
static bool check_alter_command(struct cs_sql_walk *w, const void *node)
{
    static const AlterTableType rights[] = {AT_ChangeOwner, AT_EnableRowSecurity,
                                            AT_DisableRowSecurity, AT_ForceRowSecurity,
                                            AT_NoForceRowSecurity};
    for (size_t i = 0; i < CS_ARRAY_LEN(rights); i++) {
        if (((const AlterTableCmd *)node)->subtype == rights[i]) {
            cs_sql_effect(w, CS_SQL_ADMIN);
        }
    }
    if (((const AlterTableCmd *)node)->behavior == DROP_CASCADE) {
        w->build->writes_unknown = true;
    }
    return true;
}

/* ---- the walk ---- */
static void visit_list(struct cs_sql_walk *w, const List *l)
{
    for (int i = 0; i < l->length && !w->stop; i++) {
        const Node *item = cs_sql_item(l, i);
        if (item != NULL && nodeTag(item) != T_A_Const && nodeTag(item) != T_String) {
            cs_sql_visit(w, item);
        }
    }
}

void cs_sql_visit_fields(struct cs_sql_walk *w, const void *node, size_t but, size_t but_too)
{
    for (const uint16_t *f = node_fields[nodeTag(node)]; *f != 0 && !w->stop; f++) {
        const Node *field;
        memcpy(&field, (const char *)node + *f, sizeof field);
        if (field != NULL && *f != but && *f != but_too) {
            cs_sql_visit(w, field);
        }
    }
}

const uint16_t *cs_sql_node_fields(unsigned tag)
{
    return tag < CS_ARRAY_LEN(node_fields) ? node_fields[tag] : NULL;
}

void cs_sql_visit(struct cs_sql_walk *w, const void *p)
{
    const Node *node = p;
    if (node == NULL || w->stop) {
        return;
    }
    unsigned tag = (unsigned)nodeTag(node);
    if (tag >= CS_ARRAY_LEN(node_fields) || node_fields[tag] == NULL) {
        stop(w, "something in it is not known to the classifier");
        return;
    }
    if (w->depth >= CS_LIMIT_SQL_WALK_DEPTH) {
        stop(w, "nested too deeply");
        return;
    }
    w->depth++;
    if (tag == T_List) {
        visit_list(w, p);
    } else if (node_checks[tag] != NULL) {
        if (node_checks[tag](w, node)) {
            cs_sql_visit_fields(w, node, 0, 0);
        }
    } else if (!cs_sql_visit_statement(w, node)) {
        cs_sql_visit_fields(w, node, 0, 0);
    }
    w->depth--;
}
