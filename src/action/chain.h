/* Principals and chains: who asks, on whose behalf. The first principal is the root (a person or a
 * workload), the last one acts. */
#ifndef CS_ACTION_CHAIN_H
#define CS_ACTION_CHAIN_H

#include "base/arena.h"
#include "base/limits.h"
#include "base/reader.h"
#include "base/writer.h"

enum cs_principal_kind {
    CS_PRINCIPAL_NONE,
    CS_PRINCIPAL_PERSON,
    CS_PRINCIPAL_AGENT,
    CS_PRINCIPAL_WORKLOAD
};

struct cs_principal {
    enum cs_principal_kind kind;
    struct cs_slice id;      /* "local:alice": identity provider and its own stable name */
    struct cs_slice name;    /* what people see */
    struct cs_slice *groups; /* n_groups names */
    size_t n_groups;
};

struct cs_chain {
    struct cs_principal p[CS_LIMIT_CHAIN];
    size_t n; /* 0 = nobody: always denied */
};

const char *cs_principal_kind_name(enum cs_principal_kind k);
/* One binary form for messages and the store; strict, limits checked. Decoded slices borrow from
 * the reader's bytes, the group arrays come from the arena. */
void cs_chain_encode(struct cs_writer *w, const struct cs_chain *c);
bool cs_chain_decode(struct cs_reader *r, struct cs_arena *a, struct cs_chain *ret);
/* "agent bot on behalf of person alice" into out. */
struct cs_slice cs_chain_text(const struct cs_chain *c, struct cs_arena *a);
/* True when a principal with this id is anywhere in the chain. */
bool cs_chain_has(const struct cs_chain *c, struct cs_slice principal_id);

#endif
