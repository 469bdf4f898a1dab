/* How a class record comes to be: filled in a struct cs_sql_build while the tree is walked, then
 * copied into one block of memory that the cache owns. */
#ifndef CS_SQL_RECORD_H
#define CS_SQL_RECORD_H

#include "base/arena.h"
#include "base/limits.h"
#include "sql/sql.h"

enum cs_sql_list {
    CS_SQL_LIST_READS,
    CS_SQL_LIST_WRITES,
    CS_SQL_LIST_FUNCTIONS,
    CS_SQL_LIST_STRANGERS,
    CS_SQL_LISTS
};
enum { CS_SQL_NAME_SLOTS = 1024, CS_SQL_EFFECTS = 6 };
_Static_assert(CS_LIMIT_SQL_RELATIONS * 2 < CS_SQL_NAME_SLOTS, "names need a larger table");

struct cs_sql_secrets { /* sql/secrets.h */
    struct cs_redact_span v[CS_REDACT_SPANS];
    size_t n;
    uint64_t params; /* sql.h */
};

struct cs_sql_build {
    struct cs_arena arena; /* names and verbs put together, reset for each text */
    struct cs_slice names[CS_SQL_LISTS][CS_LIMIT_SQL_RELATIONS]; /* arena or tree */
    size_t n_names[CS_SQL_LISTS];
    struct {
        uint32_t generation; /* an entry of an older text is free */
        uint16_t list, index;
    } slots[CS_SQL_NAME_SLOTS];
    uint32_t generation;
    uint32_t seed;
    /* The names of every set of effects, for the records to point to: they live no longer. */
    struct cs_slice effect_names[1 << CS_SQL_EFFECTS][CS_SQL_EFFECTS];
    struct cs_sql_statement statements[CS_SQL_STATEMENTS_KEPT];
    uint32_t n_statements, n_kept;
    uint8_t effects;
    bool parsed;
    bool writes_unknown;
    bool opaque_otherwise; /* … than by names that are not built in */
    bool prepares;
    uint64_t dotted[4];
    const char *why; /* literal; the first reason */
    struct cs_sql_secrets secrets;
};

void cs_sql_build_init(struct cs_sql_build *b);
void cs_sql_build_reset(struct cs_sql_build *b);
/* Adds a name once. False: too many. */
bool cs_sql_build_name(struct cs_sql_build *b, enum cs_sql_list list, struct cs_slice name);
/* The text is opaque for this reason. */
void cs_sql_build_opaque(struct cs_sql_build *b, const char *why);
uint32_t cs_sql_build_hash(const struct cs_sql_build *b, const void *p, size_t n);

/* A class record with what the cache needs. */
struct cs_sql_record {
    struct cs_sql_class class;
    uint32_t refs; /* 0: a constant, never freed */
    uint32_t slot;
    uint64_t hash;
    struct cs_sql_record *chain; /* next in the cache's bucket */
    struct cs_slice text;        /* the cached bytes, in this block */
    bool used;                   /* since the cache's hand passed */
};

/* One block with one reference; NULL when memory is out. `text` is copied if keep_text. */
struct cs_sql_record *cs_sql_record_new(const struct cs_sql_build *b, struct cs_slice text,
                                        bool keep_text);
/* The class of a command of a replication connection (replication.c); NULL: it is none. */
struct cs_sql_record *cs_sql_replication_record(struct cs_sql_build *b, struct cs_slice text);
void cs_sql_record_unref(struct cs_sql_record *r);
/* What is left when memory is out: opaque. */
struct cs_sql_record *cs_sql_record_nomem(void);

#endif
