/* What a target's catalogue adds to the classification of a text: which user-defined functions,
 * types and operators are known to do no more than read, and what reading or writing a relation
 * does besides (views, triggers, rules, policies, foreign tables, cascades). Probe makes it from
 * the target's answers, gates read it out of sealed memory.
 *
 * Two directions. WIDENING: a text that looks harmless is opaque when the catalogue shows that a
 * name in it leads to code that nobody looked into. NARROWING: a text that is opaque for nothing
 * but names of user-defined things is not, when the catalogue knows every one of them to be
 * harmless. Without a catalogue a text is what it is alone.
 *
 * Everything here comes from a server: the reader is strict, and a false catalogue can at worst
 * make texts of that target more or less opaque, for which that server is the one that runs them.
 * Pure. */
#ifndef CS_SQL_CATALOGUE_H
#define CS_SQL_CATALOGUE_H

#include "base/arena.h"
#include "base/buf.h"
#include "sql/sql.h"

enum cs_catalogue_kind {
    CS_CATALOGUE_FUNCTION = 'f',
    CS_CATALOGUE_RELATION = 'r',
    CS_CATALOGUE_TYPE = 't',
    CS_CATALOGUE_OPERATOR = 'o'
};

enum {                            /* bits of an entry; of a function, all overloads together */
       CS_CATALOGUE_HARMLESS = 1, /* function, type, operator: calling it does no more than read */
       CS_CATALOGUE_QUIET = 2,    /* function, type: as harmless as a built-in one of that name */
       CS_CATALOGUE_READ_OPAQUE = 4,  /* relation: reading it runs code that nobody looked into */
       CS_CATALOGUE_WRITE_OPAQUE = 8, /* relation: writing it does */
       CS_CATALOGUE_WRITES_MORE = 16, /* relation: writing it writes others */
       CS_CATALOGUE_BITS = 31
};

/* Types are there by their number too, in a schema of this name: it cannot be had by a user's type
 * without making both as bad as the worse one. Numbers below are built in. */
#define CS_CATALOGUE_NUMBERS "#"
enum { CS_CATALOGUE_FIRST_NUMBER = 16384, CS_CATALOGUE_DIGITS = 11 };
/* A name of so many bytes may be the beginning of a longer one: 63 but for part of a character. */
enum { CS_CATALOGUE_MAY_BE_CUT = 60, CS_CATALOGUE_PRINT = 16 };

struct cs_catalogue_entry {
    struct cs_slice schema, name;
    uint8_t kind, bits;
};

struct cs_catalogue {
    struct cs_catalogue_entry *entries; /* sorted, no two of one kind and name */
    size_t n;
    bool strict;    /* user-defined operators, casts or operator classes can run behind any text */
    bool types_run; /* some type is not known to be harmless: to make a value of it may run code */
    /* Another one when any function, trigger, view, rule, policy, operator or cast, or a default or
     * check that calls a user's function, was made, changed or dropped. */
    bool printed; /* false: nobody knows it */
    uint8_t print[CS_CATALOGUE_PRINT];
    uint64_t
        dotted[4]; /* names of functions that may be written as columns: bits of their hashes */
};

/* Strict; entries from the arena, names borrowed from `in`. CS_ERR_CORRUPT when it is none. */
enum cs_err cs_catalogue_read(struct cs_slice in, struct cs_arena *a,
                              struct cs_catalogue *ret) CS_MUST_CHECK;
/* Entries must be sorted (cs_catalogue_sort). */
void cs_catalogue_write(struct cs_buf *out, const struct cs_catalogue *c);
/* By kind, schema, name; entries of the same are merged: harmless only if all are. */
void cs_catalogue_sort(struct cs_catalogue *c);
const struct cs_catalogue_entry *cs_catalogue_find(const struct cs_catalogue *c,
                                                   enum cs_catalogue_kind kind,
                                                   struct cs_slice schema, struct cs_slice name);
/* The bit of a name in `dotted`; all bits for one that may have been cut. */
void cs_catalogue_dot(uint64_t dotted[static 4], const void *name, size_t n);

/* ---- judging ---- */
struct cs_sql_judged {
    uint8_t effects;   /* never 0 */
    bool names_known;  /* reads and functions are all that is read and called */
    bool writes_known; /* `writes` is all that is written */
    bool unknown;      /* it names a relation that the catalogue does not have: it may be newer */
    bool narrowed; /* the catalogue made it less than opaque: true only as long as that is fresh */
    const char *why; /* literal: why it is opaque */
};
/* The class with what the catalogue knows; `c` NULL: nothing. `narrow`: the catalogue is fresh
 * enough, and the session's search_path is the pinned one, so that narrowing is sound. */
void cs_sql_judge(const struct cs_sql_class *class, const struct cs_catalogue *c, bool narrow,
                  struct cs_sql_judged *ret);
/* SECURITY: a client declares types of parameters by number, and a value becomes one of that type
 * at Bind, with all its checks. Adds to a judgement of the same text what these types do. */
void cs_sql_judge_types(const uint32_t *types, size_t n, const struct cs_catalogue *c, bool narrow,
                        struct cs_sql_judged *j);

#endif
