/* The table of facts. Called by parsers that fill facts and by policy, which looks them up by name
 * at load; nothing here is on the way of an action. */
#include "action/facts.h"

#include "base/attr.h"

#define CS_FAMILY(x) CS_FAMILY_##x

static const struct cs_fact_info infos[] = {
#define CS_FACT(id, name, type, family, text)                                                      \
    [CS_FACT_##id] = {name, CS_FACT_##type, CS_FAMILY(family)},
#include "action/facts.def"
#undef CS_FACT
};

_Static_assert(CS_ARRAY_LEN(infos) == CS_FACT_MAX, "one row per fact");

const struct cs_fact_info *cs_fact_info(enum cs_fact_id id)
{
    static const struct cs_fact_info none = {"", CS_FACT_STRING, CS_FAMILY_NONE};
    return (size_t)id < CS_FACT_MAX ? &infos[id] : &none;
}

enum cs_fact_id cs_fact_by_name(struct cs_slice name)
{
    unsigned id = 0;
    while (id < CS_FACT_MAX && !cs_slice_eq_str(name, infos[id].name)) {
        id++;
    }
    return (enum cs_fact_id)id;
}

enum cs_named cs_verb_named(struct cs_slice verb)
{
    static const struct {
        const char *verb;
        enum cs_named family;
    } named[] = {
#define CS_NAMED_VERB(verb, family, effects, text) {verb, CS_NAMED_##family},
#include "action/named.def"
#undef CS_NAMED_VERB
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(named); i++) {
        if (cs_slice_eq_str(verb, named[i].verb)) {
            return named[i].family;
        }
    }
    return CS_NAMED_NONE;
}
