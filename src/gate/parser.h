/* A gate's own parser: a process (programs/job-parser.c) that parses the texts of this gate's
 * sessions that would take a turn of the loop too long, one after another. */
#ifndef CS_GATE_PARSER_H
#define CS_GATE_PARSER_H

#include "base/attr.h"
#include "runtime/loop.h"

struct cs_gate;
struct cs_session;
struct cs_sql_class;
struct cs_parser_turn;

struct cs_gate_parser {
    struct cs_fd fd;                      /* the socket to it, while `there` */
    bool there;                           /* it is within its walls, and has not failed yet */
    uint64_t generation;                  /* counts those that there were */
    uint64_t last_id;                     /* of the texts, over all of them */
    unsigned owed;                        /* answers for which nobody waits any more */
    bool busy;                            /* somebody's text is with it */
    unsigned n_waiting;                   /* … and so many wait for their turn */
    struct cs_parser_turn *first, **last; /* oldest first; on the sessions' stacks */
    struct cs_event failed;               /* it is of no use: another one */
};

/* Starts the coroutine that sees to it that there is one. */
void cs_gate_parser_begin(struct cs_gate *g);

enum cs_parser_said {
    CS_PARSER_FAILED, /* it had the text and did not answer as it must */
    CS_PARSER_SAID,   /* the class */
    CS_PARSER_AWAY,   /* it never had the text: there is none, or too many wait for it */
};
/* Waits for the session's turn and for the answer. `text` stays where it is meanwhile. */
enum cs_parser_said cs_gate_parser_ask(struct cs_session *s, struct cs_slice text,
                                       const struct cs_sql_class **ret) CS_MUST_CHECK;

#endif
