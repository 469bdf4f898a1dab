/* Facts as typed values. ABSENT: this kind of action has no such fact. UNKNOWN: it has one, but the
 * parser could not establish it (opaque, oversize, unparsable); rules evaluate it three-valued. */
#ifndef CS_ACTION_FACTS_H
#define CS_ACTION_FACTS_H

#include "base/slice.h"

enum cs_fact_id {
#define CS_FACT(id, name, type, family, text) CS_FACT_##id,
#include "action/facts.def"
#undef CS_FACT
    CS_FACT_MAX
};
enum { CS_FACT_STRINGS_MAX = 1024 }; /* items of a list; a parser with more leaves it unknown */
enum cs_fact_type { CS_FACT_STRING, CS_FACT_STRINGS, CS_FACT_INT, CS_FACT_BOOL };
enum cs_fact_state { CS_FACT_ABSENT, CS_FACT_UNKNOWN, CS_FACT_KNOWN };
enum cs_fact_family { CS_FAMILY_NONE, CS_FAMILY_SQL, CS_FAMILY_MAX };

struct cs_fact {
    enum cs_fact_state state;
    union {
        struct cs_slice string;
        struct {
            const struct cs_slice *v;
            size_t n;
        } strings;
        int64_t integer;
        bool boolean;
    } u;
};

struct cs_facts {
    struct cs_fact v[CS_FACT_MAX];
};

struct cs_fact_info {
    const char *name;
    enum cs_fact_type type;
    enum cs_fact_family family;
};
const struct cs_fact_info *cs_fact_info(enum cs_fact_id id);
/* CS_FACT_MAX when there is none of this name. */
enum cs_fact_id cs_fact_by_name(struct cs_slice name);

/* Verbs that a rule must name to permit them (named.def). */
enum cs_named { CS_NAMED_NONE, CS_NAMED_REPLICATION, CS_NAMED_CALL };
/* CS_NAMED_NONE: an ordinary verb. */
enum cs_named cs_verb_named(struct cs_slice verb);

/* The verb of what calls a function by its number (PostgreSQL's FunctionCall). */
#define CS_VERB_FUNCTION_CALL "FUNCTION CALL"

#endif
