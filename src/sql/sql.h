/* Classification of SQL text with PostgreSQL's own grammar (libpg_query's raw C tree) and an own
 * exhaustive walker. The verdict is the worst node of every statement of the text; an unknown node,
 * an unparsed or oversize text is opaque. Classification decides who is asked, it is not the wall:
 * the wall is the credential.
 *
 * What it cannot see without the database's catalogue: a user's function, operator, cast or domain
 * with the name of a built-in one or behind an operator of the grammar (CASE, IN, JOIN USING …),
 * functions written as columns (t.f), views and foreign tables behind a name, triggers, rules,
 * defaults and cascades. Names of functions, operators and types that are not built in are opaque.
 *
 * Pure; not re-entrant (the grammar has thread-local state). Call it on the big stack. */
#ifndef CS_SQL_SQL_H
#define CS_SQL_SQL_H

#include "action/facts.h"
#include "action/redact.h"
#include "base/err.h"
#include "base/slice.h"

enum cs_sql_effect {
    CS_SQL_SESSION = 1 << 0,
    CS_SQL_READ = 1 << 1,
    CS_SQL_WRITE = 1 << 2,
    CS_SQL_DDL = 1 << 3,
    CS_SQL_ADMIN = 1 << 4,
    CS_SQL_OPAQUE = 1 << 5,
};

/* What a statement does to the session that the protocol must follow (on success only). */
enum cs_sql_kind {
    CS_SQL_PLAIN,
    CS_SQL_EMPTY, /* no statement at all */
    CS_SQL_BEGIN,
    CS_SQL_COMMIT,
    CS_SQL_ROLLBACK,   /* of the whole transaction; PREPARE TRANSACTION is PLAIN and admin */
    CS_SQL_PREPARE,    /* SQL PREPARE name */
    CS_SQL_EXECUTE,    /* SQL EXECUTE name: the protocol looks the name up */
    CS_SQL_DEALLOCATE, /* name empty = ALL */
    CS_SQL_DISCARD_ALL,
    CS_SQL_DECLARE, /* cursor name, classed by its query */
    CS_SQL_FETCH,   /* FETCH or MOVE from a portal */
    CS_SQL_CLOSE,   /* cursor, empty = ALL */
    CS_SQL_COPY_IN, /* COPY … FROM STDIN */
    CS_SQL_COPY_OUT,
    CS_SQL_REASON, /* SET countersign.reason: name is its value, empty = what it began with */
};

struct cs_sql_statement {
    enum cs_sql_kind kind;
    uint8_t effects;      /* of this statement alone */
    struct cs_slice name; /* of PREPARE, EXECUTE, DECLARE, FETCH, CLOSE; identifier after folding */
    /* PREPARE: of the prepared statement (PREPARE itself is session). EXECUTE: of its parameters,
     * to be added to those of the statement it names (0: nothing). */
    uint8_t inner_effects;
    bool binary;             /* COPY_IN: of its data */
    bool analysed;           /* when it is only prepared: its literals become values then */
    uint16_t columns;        /* COPY_IN: how many it names, 0: all there are */
    struct cs_slice verb;    /* "DROP TABLE" */
    uint32_t offset, length; /* in the text; length 0 = to the end */
};

/* An immutable class record. Owned by the cache; take a reference to keep it. */
struct cs_sql_class {
    uint8_t effects; /* union over all statements; never 0 */
    bool parsed;     /* false: everything below is unknown */
    const char *why; /* literal: why it is opaque, "" otherwise */
    uint32_t n_statements;
    /* The first CS_SQL_STATEMENTS_KEPT. An empty text has none, and yet statements[0] may be looked
     * at: its kind is EMPTY. */
    const struct cs_sql_statement *statements;
    uint32_t n_kept;
    struct cs_slice verb; /* of the first statement; "EMPTY" */
    /* False: something is written that `writes` does not name (GRANT, nextval, CASCADE …). */
    bool writes_known;
    const struct cs_slice *reads;
    size_t n_reads;
    const struct cs_slice *writes;
    size_t n_writes;
    const struct cs_slice *functions;
    size_t n_functions;
    const struct cs_slice *effect_names; /* "read", … : the fact sql.effects */
    size_t n_effects;
    /* For a catalogue (catalogue.h): what it names that is not built in, each its kind in one byte
     * and its name; whether nothing else makes it opaque; whether `writes` would be all then. */
    const struct cs_slice *strangers;
    size_t n_strangers;
    bool by_strangers, writes_listed;
    bool prepares;      /* SQL PREPARE: what it will do is not among its effects */
    uint64_t dotted[4]; /* names behind a dot, which may be functions: cs_catalogue_dot */
    /* Passwords in the text (sql/secrets.h), for cs_redact. */
    const struct cs_redact_span *secrets;
    size_t n_secrets;
    /* Parameters that are secret by their place: bit k is $k+1, bit 63 all from $64 on. */
    uint64_t secret_params;
};
enum { CS_SQL_STATEMENTS_KEPT = 64 };

struct cs_sql; /* one classifier with its cache per process */

enum cs_err cs_sql_new(struct cs_sql **ret) CS_MUST_CHECK;
/* One that takes texts as long as the protocol does: for a process that may be killed while it
 * parses (programs/job-parser.c), never for a gate. */
enum cs_err cs_sql_new_large(struct cs_sql **ret) CS_MUST_CHECK;
void cs_sql_free(struct cs_sql *sql);
/* Never fails: what cannot be classified is opaque. `text` without the protocol's final NUL; a NUL
 * inside makes it opaque. The result is valid until released, and not beyond the classifier. A text
 * gets into the cache when it comes for the second time. */
const struct cs_sql_class *cs_sql_classify(struct cs_sql *sql, struct cs_slice text);
/* The same of a text on a replication connection, where the server takes some first words for
 * replication commands (action/named.def has them) and the rest for SQL. */
const struct cs_sql_class *cs_sql_classify_replication(struct cs_sql *sql, struct cs_slice text);
/* Whether the classifier takes so little time for it that a loop that serves others may wait:
 * about 40 µs. Linear, and little beside that. */
enum { CS_SQL_QUICK_BYTES = 256 }; /* as many tokens as bytes take no longer: always quick */
bool cs_sql_is_quick(struct cs_slice text);
/* The class of a text that nobody could parse: opaque. What looks like a password in it is found
 * without the grammar. One reference for the caller. */
const struct cs_sql_class *cs_sql_unparsed(struct cs_sql *sql, struct cs_slice text);
/* As classify, but from the cache only: NULL when it is not there. Cheap; any stack. */
const struct cs_sql_class *cs_sql_cached(struct cs_sql *sql, struct cs_slice text);
void cs_sql_keep(const struct cs_sql_class *c);
void cs_sql_release(struct cs_sql *sql, const struct cs_sql_class *c);
struct cs_sql_judged; /* catalogue.h */
/* Fills the sql.* facts that come from the text (not database, role, tx), as they were judged. They
 * borrow from sql, c and text. */
void cs_sql_facts(const struct cs_sql *sql, const struct cs_sql_class *c,
                  const struct cs_sql_judged *j, struct cs_slice text, struct cs_facts *ret);
/* The secret parts of a value that came as a parameter and is secret by no place: of a connection
 * string or URI, of a statement. How many spans; 0 is cheap. */
size_t cs_sql_value_secrets(struct cs_slice value,
                            struct cs_redact_span spans[static CS_REDACT_SPANS]);
/* Can a value that this is a piece of have any? One of whose pieces none is marked has none: for
 * who looks at long values in pieces. */
bool cs_sql_value_marked(struct cs_slice piece);
/* Every constant string of a text, for who cannot say which of them is secret: arguments of
 * EXECUTE. */
size_t cs_sql_strings(struct cs_slice text, struct cs_redact_span spans[static CS_REDACT_SPANS]);
/* The names of a set of effects, which live as long as the classifier. */
const struct cs_slice *cs_sql_effect_names(const struct cs_sql *sql, uint8_t effects,
                                           size_t *ret_n);

/* May the server make values of literals in it when it only prepares it? Values of a user's types
 * run code (checks of domains in a record, an array or a range). False is certain, however the
 * server reads the text: it has nothing in quotes, or is not looked into before it runs. */
bool cs_sql_prepares_literals(const struct cs_sql_class *c, struct cs_slice text);

/* SET name = value at run time, startup options: what a client may set. */
enum cs_sql_guc { CS_SQL_GUC_REFUSE, CS_SQL_GUC_FREE };
/* Judges a setting by name and constant value (value.p NULL: not a constant, or DEFAULT/RESET). */
enum cs_sql_guc cs_sql_guc_judge(struct cs_slice name, struct cs_slice value);

#endif
