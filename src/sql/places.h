/* Which constants and parameters of a parsed text are secret by the place they stand in: arguments
 * of functions that take a key or a password (secret_arguments.def), what is assigned to, inserted
 * into or compared with a column whose name sounds secret. */
#ifndef CS_SQL_PLACES_H
#define CS_SQL_PLACES_H

#include "sql/record.h"
#include "sql/tree.h"

struct cs_sql_place {
    uint32_t at;     /* in the text, or one or two bytes before it: of a constant's prefix */
    bool connection; /* only the password in it */
    bool number;     /* not a string */
};
struct cs_sql_places {
    struct cs_sql_place v[CS_REDACT_SPANS];
    size_t n;
    bool over;       /* there are more, or it was given up: all may be */
    uint64_t params; /* bit k: parameter k + 1; bit 63 stands for all from there on */
};
/* `sounds` says whether a name sounds secret. Time is bounded, whatever the tree. */
void cs_sql_places_find(const List *tree, bool (*sounds)(const char *name),
                        struct cs_sql_places *ret);

#endif
