/* What each statement does: one table, node tag → effects, verb, how its fields are visited. Called
 * by the walker for every statement node, also inside EXPLAIN, PREPARE, WITH, CREATE SCHEMA …: the
 * verdict is the union over all of them.
 *
 * It must never let a statement without a row pass: no row is opaque (classify.c). A row errs on
 * the stricter side; the reasons for the doubtful ones are beside them. */
#include "sql/statements.h"

/* How the fields are visited. */
enum visit_how {
    V_READ,  /* relations met are read */
    V_WRITE, /* relations met are written */
    V_LEAF,  /* not at all: names, and bodies that are opaque anyway */
};

static cs_sql_handle_fn do_select, do_insert, do_update, do_delete, do_merge, do_transaction,
    do_set, do_prepare, do_execute, do_deallocate, do_discard, do_declare, do_fetch, do_close,
    do_copy, do_explain, do_lock, do_truncate;

struct statement_row {
    uint8_t effects;
    uint8_t how;
    const char *verb;
    cs_sql_handle_fn *handle; /* NULL: visit the fields */
};

/* clang-format off */
static const struct statement_row rows[] = {
    /* queries: their effects come from what they hold */
    [T_SelectStmt] = {0, V_READ, "SELECT", do_select},
    [T_InsertStmt] = {W, V_READ, "INSERT", do_insert},
    [T_UpdateStmt] = {W, V_READ, "UPDATE", do_update},
    [T_DeleteStmt] = {W, V_READ, "DELETE", do_delete},
    [T_MergeStmt] = {W, V_READ, "MERGE", do_merge},
    [T_TruncateStmt] = {W, V_WRITE, "TRUNCATE TABLE", do_truncate},
    [T_CopyStmt] = {0, V_READ, "COPY", do_copy},
    [T_LockStmt] = {0, V_WRITE, "LOCK TABLE", do_lock},

    /* the session */
    [T_TransactionStmt] = {0, V_LEAF, "", do_transaction},
    [T_VariableSetStmt] = {0, V_LEAF, "SET", do_set},
    [T_VariableShowStmt] = {S, V_LEAF, "SHOW", NULL},
    [T_ConstraintsSetStmt] = {S, V_LEAF, "SET CONSTRAINTS", NULL},
    [T_DiscardStmt] = {S, V_LEAF, "DISCARD", do_discard},
    [T_PrepareStmt] = {S, V_READ, "PREPARE", do_prepare},
    [T_ExecuteStmt] = {0, V_READ, "EXECUTE", do_execute},
    [T_DeallocateStmt] = {S, V_LEAF, "DEALLOCATE", do_deallocate},
    [T_DeclareCursorStmt] = {R, V_READ, "DECLARE CURSOR", do_declare},
    [T_FetchStmt] = {R, V_LEAF, "FETCH", do_fetch},
    [T_ClosePortalStmt] = {S, V_LEAF, "CLOSE CURSOR", do_close},
    /* LISTEN reads what other sessions send; NOTIFY acts on them; UNLISTEN ends the former. */
    [T_ListenStmt] = {R, V_LEAF, "LISTEN", NULL},
    [T_UnlistenStmt] = {S, V_LEAF, "UNLISTEN", NULL},
    [T_NotifyStmt] = {W, V_LEAF, "NOTIFY", NULL},
    [T_ExplainStmt] = {R, V_READ, "EXPLAIN", do_explain},

    /* code that the text does not show, or that will run later as somebody else */
    [T_DoStmt] = {O, V_LEAF, "DO", NULL},
    [T_CallStmt] = {O, V_READ, "CALL", NULL},
    [T_CreateFunctionStmt] = {D | O, V_LEAF, "CREATE FUNCTION", cs_sql_do_create_function},
    [T_AlterFunctionStmt] = {D | O, V_LEAF, "ALTER FUNCTION", cs_sql_do_object},
    [T_CreateTrigStmt] = {D | O, V_WRITE, "CREATE TRIGGER", NULL},
    [T_CreateEventTrigStmt] = {D | A | O, V_LEAF, "CREATE EVENT TRIGGER", NULL},
    [T_AlterEventTrigStmt] = {D | A, V_LEAF, "ALTER EVENT TRIGGER", NULL},
    [T_RuleStmt] = {D | O, V_WRITE, "CREATE RULE", NULL},
    [T_CreatePolicyStmt] = {D | O, V_WRITE, "CREATE POLICY", NULL},
    [T_AlterPolicyStmt] = {D | O, V_WRITE, "ALTER POLICY", NULL},
    [T_DefineStmt] = {D, V_LEAF, "CREATE", cs_sql_do_define},
    [T_CreateRangeStmt] = {D | O, V_LEAF, "CREATE TYPE", NULL},
    [T_CreateCastStmt] = {D | O, V_LEAF, "CREATE CAST", NULL},
    [T_CreateConversionStmt] = {D | O, V_LEAF, "CREATE CONVERSION", NULL},
    [T_CreateTransformStmt] = {D | O, V_LEAF, "CREATE TRANSFORM", NULL},
    [T_CreateOpClassStmt] = {D | O, V_LEAF, "CREATE OPERATOR CLASS", NULL},
    [T_CreateOpFamilyStmt] = {D | O, V_LEAF, "CREATE OPERATOR FAMILY", NULL},
    [T_AlterOpFamilyStmt] = {D | O, V_LEAF, "ALTER OPERATOR FAMILY", NULL},
    [T_AlterOperatorStmt] = {D | O, V_LEAF, "ALTER OPERATOR", NULL},
    [T_CreatePLangStmt] = {D | A | O, V_LEAF, "CREATE LANGUAGE", NULL},
    [T_CreateAmStmt] = {D | A | O, V_LEAF, "CREATE ACCESS METHOD", NULL},

    /* definitions */
    [T_CreateStmt] = {D, V_WRITE, "CREATE TABLE", NULL},
    [T_CreateForeignTableStmt] = {D | A, V_WRITE, "CREATE FOREIGN TABLE", NULL},
    [T_CreateTableAsStmt] = {D | W | R, V_WRITE, "CREATE TABLE AS", cs_sql_do_create_as},
    [T_ViewStmt] = {D, V_WRITE, "CREATE VIEW", NULL},
    [T_IndexStmt] = {D, V_WRITE, "CREATE INDEX", NULL},
    [T_CreateSeqStmt] = {D, V_WRITE, "CREATE SEQUENCE", NULL},
    [T_AlterSeqStmt] = {D, V_WRITE, "ALTER SEQUENCE", NULL},
    [T_CreateSchemaStmt] = {D, V_WRITE, "CREATE SCHEMA", NULL},
    [T_CreateStatsStmt] = {D, V_WRITE, "CREATE STATISTICS", NULL},
    [T_AlterStatsStmt] = {D, V_LEAF, "ALTER STATISTICS", NULL},
    [T_CreateDomainStmt] = {D, V_WRITE, "CREATE DOMAIN", NULL},
    [T_AlterDomainStmt] = {D, V_WRITE, "ALTER DOMAIN", NULL},
    [T_CreateEnumStmt] = {D, V_LEAF, "CREATE TYPE", NULL},
    [T_AlterEnumStmt] = {D, V_LEAF, "ALTER TYPE", NULL},
    [T_AlterTypeStmt] = {D | O, V_LEAF, "ALTER TYPE", NULL},
    [T_CompositeTypeStmt] = {D, V_WRITE, "CREATE TYPE", NULL},
    [T_AlterTableStmt] = {D, V_WRITE, "ALTER", cs_sql_do_alter_table},
    [T_RenameStmt] = {D, V_WRITE, "ALTER", cs_sql_do_rename},
    [T_AlterObjectSchemaStmt] = {D, V_WRITE, "ALTER", cs_sql_do_schema_of},
    [T_AlterObjectDependsStmt] = {D, V_WRITE, "ALTER", cs_sql_do_depends},
    [T_AlterOwnerStmt] = {D | A, V_WRITE, "ALTER", cs_sql_do_owner},
    [T_AlterCollationStmt] = {D, V_LEAF, "ALTER COLLATION", NULL},
    [T_AlterTSConfigurationStmt] = {D, V_LEAF, "ALTER TEXT SEARCH CONFIGURATION", NULL},
    [T_AlterTSDictionaryStmt] = {D, V_LEAF, "ALTER TEXT SEARCH DICTIONARY", NULL},
    [T_CommentStmt] = {D, V_LEAF, "COMMENT", cs_sql_do_object},
    [T_DropStmt] = {D, V_LEAF, "DROP", cs_sql_do_drop},
    [T_RefreshMatViewStmt] = {W, V_WRITE, "REFRESH MATERIALIZED VIEW", NULL},

    /* rights, roles, the server, what reaches outside */
    [T_GrantStmt] = {A, V_WRITE, "GRANT", cs_sql_do_grant},
    [T_GrantRoleStmt] = {A, V_LEAF, "GRANT ROLE", cs_sql_do_grant_role},
    [T_AlterDefaultPrivilegesStmt] = {A, V_LEAF, "ALTER DEFAULT PRIVILEGES", NULL},
    [T_CreateRoleStmt] = {A, V_LEAF, "CREATE ROLE", NULL},
    [T_AlterRoleStmt] = {A, V_LEAF, "ALTER ROLE", NULL},
    [T_AlterRoleSetStmt] = {A, V_LEAF, "ALTER ROLE", NULL},
    [T_DropRoleStmt] = {A, V_LEAF, "DROP ROLE", NULL},
    [T_DropOwnedStmt] = {A | D, V_LEAF, "DROP OWNED", NULL},
    [T_ReassignOwnedStmt] = {A | D, V_LEAF, "REASSIGN OWNED", NULL},
    [T_SecLabelStmt] = {A, V_LEAF, "SECURITY LABEL", cs_sql_do_object},
    [T_CreatedbStmt] = {A | D, V_LEAF, "CREATE DATABASE", NULL},
    [T_DropdbStmt] = {A | D, V_LEAF, "DROP DATABASE", NULL},
    [T_AlterDatabaseStmt] = {A, V_LEAF, "ALTER DATABASE", NULL},
    [T_AlterDatabaseSetStmt] = {A, V_LEAF, "ALTER DATABASE", NULL},
    [T_AlterDatabaseRefreshCollStmt] = {A, V_LEAF, "ALTER DATABASE", NULL},
    [T_AlterSystemStmt] = {A, V_LEAF, "ALTER SYSTEM", NULL},
    [T_CreateTableSpaceStmt] = {A | D, V_LEAF, "CREATE TABLESPACE", NULL},
    [T_DropTableSpaceStmt] = {A | D, V_LEAF, "DROP TABLESPACE", NULL},
    [T_AlterTableSpaceOptionsStmt] = {A | D, V_LEAF, "ALTER TABLESPACE", NULL},
    [T_AlterTableMoveAllStmt] = {A | D, V_LEAF, "ALTER TABLESPACE", NULL},
    [T_CreateExtensionStmt] = {A | D, V_LEAF, "CREATE EXTENSION", NULL},
    [T_AlterExtensionStmt] = {A | D, V_LEAF, "ALTER EXTENSION", NULL},
    [T_AlterExtensionContentsStmt] = {A | D, V_LEAF, "ALTER EXTENSION", NULL},
    [T_CreateFdwStmt] = {A | D, V_LEAF, "CREATE FOREIGN DATA WRAPPER", NULL},
    [T_AlterFdwStmt] = {A | D, V_LEAF, "ALTER FOREIGN DATA WRAPPER", NULL},
    [T_CreateForeignServerStmt] = {A | D, V_LEAF, "CREATE SERVER", NULL},
    [T_AlterForeignServerStmt] = {A | D, V_LEAF, "ALTER SERVER", NULL},
    [T_CreateUserMappingStmt] = {A | D, V_LEAF, "CREATE USER MAPPING", NULL},
    [T_AlterUserMappingStmt] = {A | D, V_LEAF, "ALTER USER MAPPING", NULL},
    [T_DropUserMappingStmt] = {A | D, V_LEAF, "DROP USER MAPPING", NULL},
    [T_ImportForeignSchemaStmt] = {A | D, V_LEAF, "IMPORT FOREIGN SCHEMA", NULL},
    [T_CreatePublicationStmt] = {A | D, V_LEAF, "CREATE PUBLICATION", NULL},
    [T_AlterPublicationStmt] = {A | D, V_LEAF, "ALTER PUBLICATION", NULL},
    [T_CreateSubscriptionStmt] = {A | D, V_LEAF, "CREATE SUBSCRIPTION", NULL},
    [T_AlterSubscriptionStmt] = {A | D, V_LEAF, "ALTER SUBSCRIPTION", NULL},
    [T_DropSubscriptionStmt] = {A | D, V_LEAF, "DROP SUBSCRIPTION", NULL},
    /* ANALYZE writes statistics only (cs_sql_do_vacuum) */
    [T_VacuumStmt] = {W, V_WRITE, "VACUUM", cs_sql_do_vacuum},
    [T_ClusterStmt] = {A, V_WRITE, "CLUSTER", NULL},
    [T_ReindexStmt] = {A, V_WRITE, "REINDEX", NULL},
    [T_CheckPointStmt] = {A, V_LEAF, "CHECKPOINT", NULL},
    [T_LoadStmt] = {A, V_LEAF, "LOAD", NULL},
};
/* clang-format on */

bool cs_sql_visit_statement(struct cs_sql_walk *w, const void *node)
{
    unsigned tag = (unsigned)nodeTag(node);
    if (tag >= CS_ARRAY_LEN(rows) || rows[tag].verb == NULL) {
        return false;
    }
    const struct statement_row *row = &rows[tag];
    struct cs_sql_statement *top = w->top;
    bool writing = w->writing, locking = w->locking;
    w->top = NULL;
    w->writing = row->how == V_WRITE;
    w->locking = false;
    if (top != NULL) {
        top->verb = cs_slice_str(row->verb);
    }
    cs_sql_effect(w, row->effects);
    if ((row->effects & O) != 0) {
        cs_sql_opaque(w, "it runs or defines code");
    }
    if (row->handle != NULL) {
        row->handle(w, node, top);
    } else if (row->how != V_LEAF) {
        cs_sql_visit_fields(w, node, 0, 0);
    }
    w->writing = writing;
    w->locking = locking;
    return true;
}

static void kind(struct cs_sql_statement *top, enum cs_sql_kind k, const char *name)
{
    if (top != NULL) {
        top->kind = k;
        top->name = cs_slice_str(name);
    }
}

/* ---- queries ---- */
static void do_select(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const SelectStmt *s = (const SelectStmt *)node;
    size_t ctes = w->n_ctes;
    if (top != NULL) {
        cs_sql_effect(w, cs_sql_only_session_calls(w, s) ? S : R);
    }
    cs_sql_note_config(w, s);
    cs_sql_enter_with(w, s->withClause);
    if (s->intoClause != NULL) {
        cs_sql_verb(top, "SELECT INTO");
        cs_sql_effect(w, R | W | D);
        cs_sql_note_written(w, s->intoClause->rel);
    }
    w->locking = s->lockingClause != NULL;
    cs_sql_visit_fields(w, node, offsetof(SelectStmt, withClause),
                        offsetof(SelectStmt, intoClause));
    w->n_ctes = ctes;
}

static void change(struct cs_sql_walk *w, const void *node, const RangeVar *target,
                   size_t target_at, const WithClause *with, size_t with_at)
{
    size_t ctes = w->n_ctes;
    cs_sql_enter_with(w, with);
    cs_sql_note_written(w, target);
    cs_sql_visit_fields(w, node, target_at, with_at);
    w->n_ctes = ctes;
}

static void do_insert(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const InsertStmt *s = (const InsertStmt *)node;
    (void)top;
    change(w, node, s->relation, offsetof(InsertStmt, relation), s->withClause,
           offsetof(InsertStmt, withClause));
}

static void do_update(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const UpdateStmt *s = (const UpdateStmt *)node;
    (void)top;
    change(w, node, s->relation, offsetof(UpdateStmt, relation), s->withClause,
           offsetof(UpdateStmt, withClause));
}

static void do_delete(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const DeleteStmt *s = (const DeleteStmt *)node;
    (void)top;
    change(w, node, s->relation, offsetof(DeleteStmt, relation), s->withClause,
           offsetof(DeleteStmt, withClause));
}

static void do_merge(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const MergeStmt *s = (const MergeStmt *)node;
    (void)top;
    change(w, node, s->relation, offsetof(MergeStmt, relation), s->withClause,
           offsetof(MergeStmt, withClause));
}

/* CASCADE reaches tables that the text does not name. */
static void do_truncate(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    (void)top;
    if (((const TruncateStmt *)node)->behavior == DROP_CASCADE) {
        w->build->writes_unknown = true;
    }
    cs_sql_visit_fields(w, node, 0, 0);
}

static bool one_of(const char *s, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(s, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* The grammar takes any option: one that is new to this version may run code (formats of
 * extensions do). */
static bool copy_option_known(const DefElem *d)
{
    static const char *const options[] = {"freeze",
                                          "delimiter",
                                          "null",
                                          "header",
                                          "quote",
                                          "escape",
                                          "force_quote",
                                          "force_not_null",
                                          "force_null",
                                          "encoding",
                                          "default",
                                          "on_error",
                                          "convert_selectively"};
    static const char *const formats[] = {"text", "csv", "binary"};
    if (strcmp(d->defname, "format") == 0) {
        const char *format = cs_sql_string(d->arg);
        return format != NULL && one_of(format, formats, CS_ARRAY_LEN(formats));
    }
    return one_of(d->defname, options, CS_ARRAY_LEN(options));
}

/* SECURITY: a file or program is the server's machine, not the database. */
static void do_copy(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const CopyStmt *s = (const CopyStmt *)node;
    if (s->is_program || s->filename != NULL) {
        cs_sql_effect(w, A);
    } else {
        kind(top, s->is_from ? CS_SQL_COPY_IN : CS_SQL_COPY_OUT, "");
    }
    for (int i = 0; i < cs_sql_items(s->options); i++) {
        const DefElem *d = cs_sql_item(s->options, i);
        const char *format = strcmp(d->defname, "format") == 0 ? cs_sql_string(d->arg) : NULL;
        top->binary = top->binary || (format != NULL && strcmp(format, "binary") == 0);
        if (!copy_option_known(d)) {
            cs_sql_opaque(w, "an option of COPY that is not known to the classifier");
        }
    }
    top->columns = (uint16_t)CS_MIN(cs_sql_items(s->attlist), 1600);
    cs_sql_effect(w, s->is_from ? W : R);
    w->writing = s->is_from;
    cs_sql_visit(w, s->relation);
    w->writing = false;
    cs_sql_visit_fields(w, node, offsetof(CopyStmt, relation), 0);
}

static void do_lock(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    (void)top;
    bool share = ((const LockStmt *)node)->mode == AccessShareLock;
    cs_sql_effect(w, share ? R : W);
    w->writing = !share;
    cs_sql_visit_fields(w, node, 0, 0);
}

static bool option_is_false(const DefElem *d)
{
    const Node *arg = d->arg;
    if (arg == NULL) {
        return false;
    }
    if (nodeTag(arg) == T_Integer) {
        return ((const Integer *)(const void *)arg)->ival == 0;
    }
    struct cs_slice word = cs_slice_str(cs_sql_string(arg));
    return cs_slice_eq_nocase(word, CS_SLICE_LIT("false")) ||
           cs_slice_eq_nocase(word, CS_SLICE_LIT("off"));
}

/* Whether EXPLAIN executes: by ANALYZE, however often and in whatever spelling unless it is plainly
 * false, or by an option that this version does not know. */
static bool explain_executes(const List *options)
{
    static const char *const harmless[] = {"verbose", "costs", "settings", "generic_plan",
                                           "buffers", "wal",   "timing",   "summary",
                                           "memory",  "format"};
    for (int i = 0; i < cs_sql_items(options); i++) {
        const DefElem *d = cs_sql_item(options, i);
        if (!one_of(d->defname, harmless, CS_ARRAY_LEN(harmless)) && !option_is_false(d)) {
            return true;
        }
    }
    return false;
}

static void do_explain(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const ExplainStmt *s = (const ExplainStmt *)node;
    bool plain = w->plain_explain;
    (void)top;
    w->plain_explain = !explain_executes(s->options);
    cs_sql_visit(w, s->query);
    w->plain_explain = plain;
}

/* ---- the session ---- */
/* READ WRITE in BEGIN or SET TRANSACTION asks to write: a read-only default is only a default. */
static void transaction_modes(struct cs_sql_walk *w, const List *options)
{
    for (int i = 0; i < cs_sql_items(options); i++) {
        const DefElem *d = cs_sql_item(options, i);
        const A_Const *c = (const void *)d->arg;
        if (strcmp(d->defname, "transaction_read_only") == 0 &&
            (c == NULL || nodeTag(c) != T_A_Const || nodeTag(&c->val) != T_Integer ||
             c->val.ival.ival != 1)) {
            cs_sql_effect(w, W);
        }
    }
}

static void do_transaction(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    /* clang-format off */
    static const struct { const char *verb; uint8_t effects; enum cs_sql_kind kind; } kinds[] = {
        [TRANS_STMT_BEGIN] = {"BEGIN", S, CS_SQL_BEGIN},
        [TRANS_STMT_START] = {"START TRANSACTION", S, CS_SQL_BEGIN},
        [TRANS_STMT_COMMIT] = {"COMMIT", S, CS_SQL_COMMIT},
        [TRANS_STMT_ROLLBACK] = {"ROLLBACK", S, CS_SQL_ROLLBACK},
        [TRANS_STMT_SAVEPOINT] = {"SAVEPOINT", S, CS_SQL_PLAIN},
        [TRANS_STMT_RELEASE] = {"RELEASE", S, CS_SQL_PLAIN},
        [TRANS_STMT_ROLLBACK_TO] = {"ROLLBACK TO SAVEPOINT", S, CS_SQL_PLAIN},
        /* Two-phase commit takes work out of the session and ends that of others. */
        [TRANS_STMT_PREPARE] = {"PREPARE TRANSACTION", A, CS_SQL_PLAIN},
        [TRANS_STMT_COMMIT_PREPARED] = {"COMMIT PREPARED", A, CS_SQL_PLAIN},
        [TRANS_STMT_ROLLBACK_PREPARED] = {"ROLLBACK PREPARED", A, CS_SQL_PLAIN},
    };
    /* clang-format on */
    const TransactionStmt *s = (const TransactionStmt *)node;
    if ((size_t)s->kind >= CS_ARRAY_LEN(kinds)) {
        cs_sql_opaque(w, "an unknown transaction statement");
        return;
    }
    cs_sql_verb(top, kinds[s->kind].verb);
    kind(top, kinds[s->kind].kind, "");
    cs_sql_effect(w, kinds[s->kind].effects);
    transaction_modes(w, s->options);
}

/* The value of SET as text, .p NULL if it is no constant. */
static struct cs_slice set_value(struct cs_sql_walk *w, const List *args)
{
    struct cs_slice v = cs_slice_str("");
    for (int i = 0; i < cs_sql_items(args); i++) {
        const A_Const *c = cs_sql_item(args, i);
        if (nodeTag(c) != T_A_Const || c->isnull) {
            return CS_SLICE_NULL;
        }
        const char *text = "";
        if (nodeTag(&c->val) == T_Integer) {
            struct cs_slice n = cs_arena_printf(&w->build->arena, "%d", c->val.ival.ival);
            text = n.p != NULL ? (const char *)n.p : "?";
        } else if (nodeTag(&c->val) == T_String) {
            text = c->val.sval.sval;
        } else if (nodeTag(&c->val) == T_Float) {
            text = c->val.fval.fval;
        }
        v = i == 0 ? cs_slice_str(text)
                   : cs_arena_printf(&w->build->arena, "%.*s, %s", CS_SLICE_FMT(v), text);
        if (v.p == NULL) {
            return v;
        }
    }
    return cs_sql_items(args) > 0 ? v : CS_SLICE_NULL;
}

/* SECURITY: each part of a path is a name here, not SQL text: '""' is a schema whose name is two
 * quotes, and not the empty path that set_config would make of it. */
static struct cs_slice path_value(const char *name, struct cs_slice value)
{
    bool path = cs_slice_eq_nocase(cs_slice_str(name), CS_SLICE_LIT("search_path"));
    return path && cs_slice_find(value, '"') < value.n ? CS_SLICE_NULL : value;
}

/* Back to what the session began with: that is pinned at login, so it is as good as the table of
 * settings that may be made at all. Roles are not in it. */
static uint8_t reset_effects(const char *name)
{
    static const char *const begun[] = {"search_path", "client_encoding",
                                        "standard_conforming_strings"};
    for (size_t i = 0; i < CS_ARRAY_LEN(begun); i++) {
        if (cs_slice_eq_nocase(cs_slice_str(name), cs_slice_str(begun[i]))) {
            return S;
        }
    }
    return cs_sql_set_effects(cs_slice_str(name), CS_SLICE_NULL);
}

static bool is_reason(const VariableSetStmt *s)
{
    return s->name != NULL &&
           cs_slice_eq_nocase(cs_slice_str(s->name), CS_SLICE_LIT("countersign.reason"));
}

static void do_set(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const VariableSetStmt *s = (const VariableSetStmt *)node;
    struct cs_slice value;
    switch (s->kind) {
    case VAR_SET_VALUE:
        value = set_value(w, s->args);
        cs_sql_effect(w, cs_sql_set_effects(cs_slice_str(s->name), path_value(s->name, value)));
        if (is_reason(s)) {
            kind(top, CS_SQL_REASON, value.p != NULL ? (const char *)value.p : "");
        }
        break;
    case VAR_SET_DEFAULT:
        cs_sql_effect(w, reset_effects(s->name));
        if (is_reason(s)) {
            kind(top, CS_SQL_REASON, "");
        }
        break;
    case VAR_RESET:
        cs_sql_verb(top, "RESET");
        cs_sql_effect(w, reset_effects(s->name));
        if (is_reason(s)) {
            kind(top, CS_SQL_REASON, "");
        }
        break;
    case VAR_RESET_ALL: /* pools send it at every return; the pins are renewed afterwards */
        cs_sql_verb(top, "RESET");
        cs_sql_effect(w, S);
        kind(top, CS_SQL_REASON, "");
        break;
    case VAR_SET_MULTI: /* SET TRANSACTION, SET SESSION CHARACTERISTICS, TRANSACTION SNAPSHOT */
        cs_sql_effect(w, S);
        if (strcmp(s->name, "TRANSACTION SNAPSHOT") != 0) {
            transaction_modes(w, s->args);
        }
        break;
    case VAR_SET_CURRENT:
    default:
        cs_sql_effect(w, A);
        break;
    }
}

static void do_discard(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    (void)w;
    if (((const DiscardStmt *)node)->target == DISCARD_ALL) {
        cs_sql_verb(top, "DISCARD ALL");
        kind(top, CS_SQL_DISCARD_ALL, "");
    }
}

/* PREPARE analyses its query and runs nothing of it: what the query does is kept apart. */
static void do_prepare(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const PrepareStmt *s = (const PrepareStmt *)node;
    uint8_t effects = w->effects;
    bool unknown = w->build->writes_unknown;
    w->effects = 0;
    cs_sql_visit_fields(w, node, 0, 0);
    uint8_t inner = w->effects != 0 ? w->effects : R;
    w->effects = w->stop ? (effects | O) : effects;
    w->build->writes_unknown = unknown;
    w->build->prepares = true;
    kind(top, CS_SQL_PREPARE, s->name);
    if (top != NULL) {
        top->inner_effects = inner;
    } else {
        w->effects |= inner;
    }
}

static void do_execute(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    uint8_t effects = w->effects;
    cs_sql_opaque(w, "it executes a statement prepared earlier");
    w->effects = 0;
    cs_sql_visit_fields(w, node, 0, 0);
    kind(top, CS_SQL_EXECUTE, ((const ExecuteStmt *)node)->name);
    if (top != NULL) {
        top->inner_effects = w->effects;
    }
    w->effects |= effects | O;
}

static void do_deallocate(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    (void)w;
    kind(top, CS_SQL_DEALLOCATE, ((const DeallocateStmt *)node)->name);
}

static void do_declare(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    kind(top, CS_SQL_DECLARE, ((const DeclareCursorStmt *)node)->portalname);
    cs_sql_visit_fields(w, node, 0, 0);
}

static void do_fetch(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const FetchStmt *s = (const FetchStmt *)node;
    (void)w;
    kind(top, CS_SQL_FETCH, s->portalname);
    if (s->ismove) {
        cs_sql_verb(top, "MOVE");
    }
}

static void do_close(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    (void)w;
    kind(top, CS_SQL_CLOSE, ((const ClosePortalStmt *)node)->portalname);
}
