/* Conditions: a subset of CEL (Common Expression Language) over the facts of action/facts.def.
 * The compile job turns text into position-independent bytes; a reader of the snapshot validates
 * the bytes again (a hostile snapshot is refused, it never crashes a reader) and evaluates them
 * three-valued, without allocation. Pure.
 *
 * In this version: bool, int and string literals, lists of literals, facts, == != < <= > >= in &&
 * || ! ?:,
 * + and - on ints, size(), has(), startsWith, endsWith, contains, exists, all, exists_one.
 * Everything else of CEL is an error that says so. */
#ifndef CS_POLICY_CEL_H
#define CS_POLICY_CEL_H

#include "action/facts.h"
#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

/* Zero is UNKNOWN: the value that lets nothing through. */
enum cs_tri { CS_TRI_UNKNOWN, CS_TRI_FALSE, CS_TRI_TRUE };

/* What is wrong with a condition; line and column count from 1 (columns in code points). */
struct cs_cel_mistake {
    uint32_t line, column;
    char text[240];
};

struct cs_cel_node;
struct cs_cel {                      /* a validated condition; no nodes: always true */
    const struct cs_cel_node *nodes; /* arena */
    uint32_t n_nodes;
    uint32_t families; /* bit 1 << enum cs_fact_family for each family it names */
};

/* Parses, checks types, refuses what is constantly false, and appends the bytes to `out`.
 * CS_ERR_INVALID with ret_mistake filled; CS_ERR_NO_MEMORY. */
enum cs_err cs_cel_compile(struct cs_slice text, struct cs_arena *a, struct cs_buf *out,
                           struct cs_cel_mistake *ret_mistake) CS_MUST_CHECK;
/* Validates compiled bytes; strings borrow from `code`. CS_ERR_CORRUPT, CS_ERR_NO_MEMORY. */
enum cs_err cs_cel_load(struct cs_slice code, struct cs_arena *a, struct cs_cel *ret) CS_MUST_CHECK;

/* A build that lets others run wherever it may (runtime/loop.c) sets it to a few. */
#ifndef CS_PIECE_STEPS
#define CS_PIECE_STEPS CS_LIMIT_PIECE_STEPS
#endif
/* For who evaluates many conditions and has others waiting: called each CS_PIECE_STEPS. */
struct cs_cel_pause {
    void (*fn)(void *arg);
    void *arg;
    uint32_t left; /* steps until then */
};
/* Facts made ready for many conditions. */
struct cs_cel_input {
    const struct cs_facts *facts; /* borrowed */
    bool effects_known;
    uint8_t effects;            /* sql.effects as bits */
    struct cs_cel_pause *pause; /* borrowed; NULL, as cs_cel_prepare leaves it: none */
};
void cs_cel_prepare(const struct cs_facts *facts, struct cs_cel_input *ret);
/* Absent and unknown facts are unknown; so is what takes more than CS_LIMIT_CEL_STEPS. */
enum cs_tri cs_cel_eval(const struct cs_cel *c, const struct cs_cel_input *in);
/* Does it compare sql.verb with this word, whatever comes of it? */
bool cs_cel_names_verb(const struct cs_cel *c, struct cs_slice verb);
/* … with one of the verbs of this family, which rules must name? */
bool cs_cel_names_family(const struct cs_cel *c, enum cs_named family);
/* Does it look at this fact, whatever comes of it? */
bool cs_cel_reads(const struct cs_cel *c, enum cs_fact_id fact);

#endif
