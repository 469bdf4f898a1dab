/* The walk over the raw parse tree: walk.c visits every node, statements.c knows the statements,
 * definitions.c those that define something. */
#ifndef CS_SQL_WALK_H
#define CS_SQL_WALK_H

#include "sql/names.h"
#include "sql/record.h"
#include "sql/tree.h"

struct cs_sql_walk {
    struct cs_sql_build *build;       /* borrowed */
    const struct cs_sql_names *names; /* borrowed */
    unsigned depth;
    bool stop;                    /* nothing more can be learnt: the text is opaque */
    uint8_t effects;              /* of the statement being walked */
    bool plain_explain;           /* inside EXPLAIN without ANALYZE: planned, not executed */
    bool writing;                 /* a relation met here is written, not read */
    bool locking;                 /* … is locked by FOR UPDATE or the like as well */
    const FuncCall *config_call;  /* set_config of the one setting that its WHERE names … */
    const char *config_name;      /* … which it is; borrowed from the tree */
    uint32_t wrote;               /* relations of this statement listed as written */
    struct cs_sql_statement *top; /* set while the next statement node is the top one */
    /* Names of WITH in scope; the hashes apart so that the search is one tight loop. */
    uint32_t cte_hash[CS_LIMIT_SQL_RELATIONS];
    const char *cte_name[CS_LIMIT_SQL_RELATIONS]; /* borrowed from the tree */
    size_t n_ctes;
};

/* Any pointer to a node of the tree; NULL is fine. */
void cs_sql_visit(struct cs_sql_walk *w, const void *node);
/* The fields of a node but up to two, named by their offsets (0: none). */
void cs_sql_visit_fields(struct cs_sql_walk *w, const void *node, size_t but, size_t but_too);
/* A statement: adds its effects; false when the tag is no statement. */
bool cs_sql_visit_statement(struct cs_sql_walk *w, const void *node);

/* Offsets of the fields of a kind of node that point to nodes, up to a 0; NULL: it is not known. */
const uint16_t *cs_sql_node_fields(unsigned tag);

/* Effects of a statement: what EXPLAIN alone would not do becomes reading. */
void cs_sql_effect(struct cs_sql_walk *w, uint8_t effects);
/* Opaque, whatever it is inside of. `why` is a literal. */
void cs_sql_opaque(struct cs_sql_walk *w, const char *why);
/* Lists a relation as written; the parts joined with dots. */
void cs_sql_note_written(struct cs_sql_walk *w, const RangeVar *r);
void cs_sql_note_written_parts(struct cs_sql_walk *w, const char *const *parts, size_t n);
/* Brings the names of WITH into scope, visiting the queries; the caller restores n_ctes. */
void cs_sql_enter_with(struct cs_sql_walk *w, const WithClause *with);
/* Effects of SET name = value (value.p NULL: no constant). */
uint8_t cs_sql_set_effects(struct cs_slice name, struct cs_slice value);
/* SELECT set_config(name, 'constant', ...) FROM pg_settings WHERE name = 'constant', as pg_dump
 * says "set it if there is such a setting": the call is judged like one with that name. To be
 * called before the statement's fields are visited. */
void cs_sql_note_config(struct cs_sql_walk *w, const SelectStmt *s);
/* SELECT of nothing but functions that act on the session, with constants. */
bool cs_sql_only_session_calls(const struct cs_sql_walk *w, const SelectStmt *s);

static inline const void *cs_sql_item(const List *l, int i)
{
    return l->elements[i].ptr_value;
}
static inline int cs_sql_items(const List *l)
{
    return l != NULL ? l->length : 0;
}
/* The text of a String node, NULL for any other. */
static inline const char *cs_sql_string(const void *node)
{
    return node != NULL && nodeTag(node) == T_String ? ((const String *)node)->sval : NULL;
}

#endif
