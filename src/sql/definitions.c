/* Statements that define something: CREATE, ALTER, DROP, GRANT, VACUUM and their kin: which objects
 * they name, as relations written where rules can match them. Called through the table in
 * statements.c; what a definition holds (a query, a default) is visited, or the table calls it
 * opaque. */
#include "sql/statements.h"

/* clang-format off */
static const char *const object_names[] = {
    [OBJECT_ACCESS_METHOD] = "ACCESS METHOD", [OBJECT_AGGREGATE] = "AGGREGATE",
    [OBJECT_ATTRIBUTE] = "TYPE", [OBJECT_CAST] = "CAST", [OBJECT_COLUMN] = "TABLE",
    [OBJECT_COLLATION] = "COLLATION", [OBJECT_CONVERSION] = "CONVERSION",
    [OBJECT_DATABASE] = "DATABASE", [OBJECT_DOMAIN] = "DOMAIN",
    [OBJECT_DOMCONSTRAINT] = "DOMAIN", [OBJECT_EVENT_TRIGGER] = "EVENT TRIGGER",
    [OBJECT_EXTENSION] = "EXTENSION", [OBJECT_FDW] = "FOREIGN DATA WRAPPER",
    [OBJECT_FOREIGN_SERVER] = "SERVER", [OBJECT_FOREIGN_TABLE] = "FOREIGN TABLE",
    [OBJECT_FUNCTION] = "FUNCTION", [OBJECT_INDEX] = "INDEX", [OBJECT_LANGUAGE] = "LANGUAGE",
    [OBJECT_LARGEOBJECT] = "LARGE OBJECT", [OBJECT_MATVIEW] = "MATERIALIZED VIEW",
    [OBJECT_OPCLASS] = "OPERATOR CLASS", [OBJECT_OPERATOR] = "OPERATOR",
    [OBJECT_OPFAMILY] = "OPERATOR FAMILY", [OBJECT_POLICY] = "POLICY",
    [OBJECT_PROCEDURE] = "PROCEDURE", [OBJECT_PUBLICATION] = "PUBLICATION",
    [OBJECT_ROLE] = "ROLE", [OBJECT_ROUTINE] = "ROUTINE", [OBJECT_RULE] = "RULE",
    [OBJECT_SCHEMA] = "SCHEMA", [OBJECT_SEQUENCE] = "SEQUENCE",
    [OBJECT_SUBSCRIPTION] = "SUBSCRIPTION", [OBJECT_STATISTIC_EXT] = "STATISTICS",
    [OBJECT_TABCONSTRAINT] = "TABLE", [OBJECT_TABLE] = "TABLE",
    [OBJECT_TABLESPACE] = "TABLESPACE", [OBJECT_TRANSFORM] = "TRANSFORM",
    [OBJECT_TRIGGER] = "TRIGGER", [OBJECT_TSCONFIGURATION] = "TEXT SEARCH CONFIGURATION",
    [OBJECT_TSDICTIONARY] = "TEXT SEARCH DICTIONARY", [OBJECT_TSPARSER] = "TEXT SEARCH PARSER",
    [OBJECT_TSTEMPLATE] = "TEXT SEARCH TEMPLATE", [OBJECT_TYPE] = "TYPE",
    [OBJECT_USER_MAPPING] = "USER MAPPING", [OBJECT_VIEW] = "VIEW",
};
/* clang-format on */

/* "DROP" → "DROP TABLE" */
static void verb_of(struct cs_sql_walk *w, struct cs_sql_statement *top, ObjectType type)
{
    if (top != NULL && (size_t)type < CS_ARRAY_LEN(object_names) && object_names[type] != NULL) {
        struct cs_slice v = cs_arena_printf(&w->build->arena, "%.*s %s", CS_SLICE_FMT(top->verb),
                                            object_names[type]);
        if (v.p != NULL) {
            top->verb = v;
        }
    }
}

/* A qualified name (list of String) as a relation, without the last `but` parts. */
static void note_name(struct cs_sql_walk *w, const void *name, int but, const char *suffix)
{
    const char *parts[5] = {NULL};
    const List *l = name;
    size_t n = 0;
    if (name == NULL) {
        return;
    }
    if (nodeTag(name) == T_String) {
        parts[n++] = cs_sql_string(name);
    } else if (nodeTag(name) == T_List) {
        for (int i = 0; i < l->length - but && n < CS_ARRAY_LEN(parts) - 1; i++) {
            parts[n++] = cs_sql_string(cs_sql_item(l, i));
        }
    }
    if (n > 0) {
        parts[n] = suffix;
        cs_sql_note_written_parts(w, parts, n + (suffix != NULL));
    }
}

/* An object of COMMENT, DROP and the like, as far as it is a relation or belongs to one. */
static void note_object(struct cs_sql_walk *w, ObjectType type, const void *object)
{
    switch ((int)type) {
    case OBJECT_TABLE:
    case OBJECT_VIEW:
    case OBJECT_MATVIEW:
    case OBJECT_FOREIGN_TABLE:
    case OBJECT_SEQUENCE:
    case OBJECT_INDEX:
        note_name(w, object, 0, NULL);
        break;
    case OBJECT_COLUMN:
    case OBJECT_TRIGGER:
    case OBJECT_RULE:
    case OBJECT_POLICY:
    case OBJECT_TABCONSTRAINT:
        note_name(w, object, 1, NULL);
        break;
    case OBJECT_SCHEMA:
        note_name(w, object, 0, "*");
        break;
    default:
        break;
    }
}

/* Of these the definition reaches further than one database's objects. */
static void object_effects(struct cs_sql_walk *w, ObjectType type)
{
    static const ObjectType admin[] = {
        OBJECT_ROLE,     OBJECT_DATABASE,       OBJECT_TABLESPACE,    OBJECT_EXTENSION,
        OBJECT_FDW,      OBJECT_FOREIGN_SERVER, OBJECT_PUBLICATION,   OBJECT_SUBSCRIPTION,
        OBJECT_LANGUAGE, OBJECT_USER_MAPPING,   OBJECT_EVENT_TRIGGER, OBJECT_ACCESS_METHOD};
    for (size_t i = 0; i < CS_ARRAY_LEN(admin); i++) {
        if (admin[i] == type) {
            cs_sql_effect(w, A);
        }
    }
}

void cs_sql_do_drop(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const DropStmt *s = (const DropStmt *)node;
    verb_of(w, top, s->removeType);
    object_effects(w, s->removeType);
    if (s->behavior == DROP_CASCADE || s->removeType == OBJECT_SCHEMA) {
        w->build->writes_unknown = true;
    }
    for (int i = 0; i < cs_sql_items(s->objects) && !w->stop; i++) {
        note_object(w, s->removeType, cs_sql_item(s->objects, i));
    }
}

/* COMMENT, SECURITY LABEL, ALTER FUNCTION */
void cs_sql_do_object(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    if (nodeTag(node) == T_CommentStmt) {
        const CommentStmt *s = (const CommentStmt *)node;
        note_object(w, s->objtype, s->object);
    } else if (nodeTag(node) == T_SecLabelStmt) {
        const SecLabelStmt *s = (const SecLabelStmt *)node;
        note_object(w, s->objtype, s->object);
    } else {
        cs_sql_verb(top, "ALTER");
        verb_of(w, top, ((const AlterFunctionStmt *)node)->objtype);
    }
}

void cs_sql_do_alter_table(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    verb_of(w, top, ((const AlterTableStmt *)node)->objtype);
    cs_sql_visit_fields(w, node, 0, 0);
}

void cs_sql_do_rename(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const RenameStmt *s = (const RenameStmt *)node;
    bool part = s->renameType == OBJECT_COLUMN;
    verb_of(w, top, part ? s->relationType : s->renameType);
    object_effects(w, s->renameType);
    cs_sql_visit(w, s->relation);
}

void cs_sql_do_schema_of(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const AlterObjectSchemaStmt *s = (const AlterObjectSchemaStmt *)node;
    verb_of(w, top, s->objectType);
    object_effects(w, s->objectType);
    cs_sql_visit(w, s->relation);
}

void cs_sql_do_depends(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const AlterObjectDependsStmt *s = (const AlterObjectDependsStmt *)node;
    verb_of(w, top, s->objectType);
    cs_sql_visit(w, s->relation);
}

void cs_sql_do_owner(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const AlterOwnerStmt *s = (const AlterOwnerStmt *)node;
    verb_of(w, top, s->objectType);
    cs_sql_visit(w, s->relation);
}

void cs_sql_do_create_as(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const CreateTableAsStmt *s = (const CreateTableAsStmt *)node;
    if (s->objtype == OBJECT_MATVIEW) {
        cs_sql_verb(top, "CREATE MATERIALIZED VIEW");
    }
    if (s->into != NULL) {
        cs_sql_visit_fields(w, s->into, 0, 0);
    }
    cs_sql_visit(w, s->query);
}

void cs_sql_do_vacuum(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    if (((const VacuumStmt *)node)->is_vacuumcmd) {
        cs_sql_effect(w, A);
    } else {
        cs_sql_verb(top, "ANALYZE");
    }
    cs_sql_visit_fields(w, node, 0, 0);
}

/* Aggregates, operators and types bind functions; collations and text search do not. */
void cs_sql_do_define(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const DefineStmt *s = (const DefineStmt *)node;
    verb_of(w, top, s->kind);
    if (s->kind != OBJECT_COLLATION && s->kind != OBJECT_TSCONFIGURATION &&
        s->kind != OBJECT_TSDICTIONARY) {
        cs_sql_opaque(w, "it defines an object that calls functions");
    }
}

void cs_sql_do_create_function(struct cs_sql_walk *w, const void *node,
                               struct cs_sql_statement *top)
{
    (void)w;
    if (((const CreateFunctionStmt *)node)->is_procedure) {
        cs_sql_verb(top, "CREATE PROCEDURE");
    }
}

void cs_sql_do_grant(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    const GrantStmt *s = (const GrantStmt *)node;
    if (!s->is_grant) {
        cs_sql_verb(top, "REVOKE");
    }
    cs_sql_visit_fields(w, node, 0, 0);
}

void cs_sql_do_grant_role(struct cs_sql_walk *w, const void *node, struct cs_sql_statement *top)
{
    (void)w;
    if (!((const GrantRoleStmt *)node)->is_grant) {
        cs_sql_verb(top, "REVOKE ROLE");
    }
}
