/* The compiled form of a condition, shared by the files of the compiler and the evaluator: nodes in
 * prefix order. The arguments of node i follow it directly, each `size` nodes long, so that any
 * array of nodes is either a tree or provably not one. Private to policy/. */
#ifndef CS_POLICY_CEL_NODE_H
#define CS_POLICY_CEL_NODE_H

#include "policy/cel.h"

enum { CS_CEL_VARS = 8 }; /* nested macros */

/* op, arguments (255 = any number), name for messages */
#define CS_CEL_OPS(X)                                                                              \
    X(NONE, 0, "")                                                                                 \
    X(BOOL, 0, "bool")                                                                             \
    X(INT, 0, "int")                                                                               \
    X(STRING, 0, "string")                                                                         \
    X(LIST, 255, "list")                                                                           \
    X(FACT, 0, "fact")                                                                             \
    X(VAR, 0, "variable")                                                                          \
    X(HAS, 0, "has")                                                                               \
    X(NOT, 1, "!")                                                                                 \
    X(AND, 255, "&&")                                                                              \
    X(OR, 255, "||")                                                                               \
    X(EQ, 2, "==")                                                                                 \
    X(NE, 2, "!=")                                                                                 \
    X(LT, 2, "<")                                                                                  \
    X(LE, 2, "<=")                                                                                 \
    X(GT, 2, ">")                                                                                  \
    X(GE, 2, ">=")                                                                                 \
    X(IN, 2, "in")                                                                                 \
    X(ADD, 2, "+")                                                                                 \
    X(SUB, 2, "-")                                                                                 \
    X(COND, 3, "?:")                                                                               \
    X(SIZE, 1, "size")                                                                             \
    X(STARTS, 2, "startsWith")                                                                     \
    X(ENDS, 2, "endsWith")                                                                         \
    X(CONTAINS, 2, "contains")                                                                     \
    X(EXISTS, 2, "exists")                                                                         \
    X(ALL, 2, "all")                                                                               \
    X(ONE, 2, "exists_one")

enum cs_cel_op {
#define CS_CEL_OP(id, args, name) CS_CEL_##id,
    CS_CEL_OPS(CS_CEL_OP)
#undef CS_CEL_OP
        CS_CEL_OP_MAX,
    /* Made by the loader only, never in bytes: a quantifier over a list fact whose condition is
     * that the element is one of some literals; the same for sql.effects, whose words are bits. */
    CS_CEL_ANY_OF = CS_CEL_OP_MAX,
    CS_CEL_ALL_OF,
    CS_CEL_STRING_OF, /* a string fact is one of some literals */
    CS_CEL_EFFECTS_ANY,
    CS_CEL_EFFECTS_ALL,
};

enum cs_cel_type {
    CS_CEL_T_NONE,
    CS_CEL_T_BOOL,
    CS_CEL_T_INT,
    CS_CEL_T_STRING,
    CS_CEL_T_EMPTY, /* [] */
    CS_CEL_T_BOOLS,
    CS_CEL_T_INTS,
    CS_CEL_T_STRINGS,
};

struct cs_cel_node {
    uint8_t op;     /* enum cs_cel_op */
    uint8_t type;   /* enum cs_cel_type, by the checker */
    uint8_t domain; /* which closed set of words a string is from, by the checker */
    bool negate;    /* lowered ops: the result is inverted */
    uint16_t n_args;
    uint16_t lits; /* EFFECTS_*: the literals as bits; *_OF: number of literals … */
    uint32_t size; /* nodes of this subtree, itself included */
    uint32_t lit;  /* … from this node on */
    union {
        int64_t i;         /* BOOL, INT; FACT and HAS: enum cs_fact_id; VAR: level */
        struct cs_slice s; /* STRING; borrowed from the source or the code */
    } u;
};

/* Checks that the array is one well-formed tree of type bool and sets types, domains, families.
 * ret_at is the node that a message is about. */
struct cs_cel_fault {
    uint32_t at;
    char text[240];
};
bool cs_cel_check(struct cs_cel_node *nodes, uint32_t n, uint32_t *ret_families,
                  struct cs_cel_fault *ret_fault);
/* A word of sql.effects as a bit. */
uint8_t cs_cel_effect_bit(struct cs_slice s);
/* Replaces patterns by the faster ops above. Only on checked nodes. */
void cs_cel_lower(struct cs_cel_node *nodes, uint32_t n);
/* Parses into nodes with their byte offsets in the text. */
struct cs_cel_parsed {
    struct cs_cel_node *nodes; /* arena */
    uint32_t *at;              /* arena: offset of each node in the text */
    uint32_t n;
};
enum cs_err cs_cel_parse(struct cs_slice text, struct cs_arena *a, struct cs_cel_parsed *ret,
                         uint32_t *ret_at, char ret_text[static 240]) CS_MUST_CHECK;

#endif
