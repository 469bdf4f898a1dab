/* Names, groups, chains: the pure part of identity, without a store. Called by identity.c, approval
 * and control. */
#include "base/attr.h"
#include "identity/identity_internal.h"

_Static_assert((int)CS_PRINCIPAL_PERSON == 1 && (int)CS_PRINCIPAL_AGENT == 2 &&
                   (int)CS_PRINCIPAL_WORKLOAD == 3,
               "the store's SQL and its tables know these numbers");

bool cs_identity_name_valid(struct cs_slice name)
{
    if (name.n == 0 || name.n > CS_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < name.n; i++) {
        uint8_t c = name.p[i];
        bool ok =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        if (!ok) {
            return false;
        }
    }
    return true;
}

struct cs_slice cs_identity_id(struct cs_slice name, struct cs_arena *a)
{
    return cs_arena_printf(a, "local:%.*s", CS_SLICE_FMT(name));
}

bool cs_identity_groups_split(struct cs_slice joined, struct cs_arena *a, struct cs_slice **ret,
                              size_t *ret_n)
{
    size_t n = 0;
    for (size_t i = 0; i < joined.n; i++) {
        n += joined.p[i] == '\n';
    }
    if (n > CS_LIMIT_GROUPS || (joined.n > 0 && joined.p[joined.n - 1] != '\n')) {
        return false;
    }
    struct cs_slice *v = CS_NEW_ARRAY(a, struct cs_slice, n > 0 ? n : 1);
    if (v == NULL) {
        return false;
    }
    struct cs_slice left = joined;
    for (size_t i = 0; i < n; i++) {
        size_t at = cs_slice_find(left, '\n');
        v[i] = cs_slice_head(left, at);
        left = cs_slice_from(left, at + 1);
        if (v[i].n == 0) {
            return false;
        }
    }
    *ret = v;
    *ret_n = n;
    return true;
}

/* Insertion sort: at most CS_LIMIT_GROUPS names, and only when somebody sets them. */
static size_t sorted_insert(struct cs_slice *v, size_t n, struct cs_slice name)
{
    size_t at = 0;
    while (at < n && cs_slice_cmp(v[at], name) < 0) {
        at++;
    }
    if (at < n && cs_slice_eq(v[at], name)) {
        return n;
    }
    memmove(v + at + 1, v + at, (n - at) * sizeof *v);
    v[at] = name;
    return n + 1;
}

bool cs_identity_groups_join(const struct cs_slice *groups, size_t n, struct cs_arena *a,
                             struct cs_slice *ret)
{
    if (n > CS_LIMIT_GROUPS) {
        return false;
    }
    struct cs_slice *v = CS_NEW_ARRAY(a, struct cs_slice, n + 1);
    size_t distinct = 0, bytes = 0;
    for (size_t i = 0; v != NULL && i < n; i++) {
        if (!cs_identity_name_valid(groups[i])) {
            return false;
        }
        distinct = sorted_insert(v, distinct, groups[i]);
    }
    for (size_t i = 0; v != NULL && i < distinct; i++) {
        bytes += v[i].n + 1;
    }
    uint8_t *p = v != NULL ? cs_arena_alloc(a, bytes + 1) : NULL;
    if (p == NULL) {
        return false;
    }
    struct cs_writer w = cs_writer(p, bytes);
    for (size_t i = 0; i < distinct; i++) {
        cs_writer_bytes(&w, v[i]);
        cs_writer_u8(&w, '\n');
    }
    *ret = cs_writer_done(&w);
    return !w.overflow;
}

static bool member(const struct cs_store_principal *p, struct cs_arena *a, struct cs_principal *ret)
{
    ret->kind = (enum cs_principal_kind)p->kind;
    ret->id = p->id;
    ret->name = p->name;
    return cs_identity_groups_split(p->groups, a, &ret->groups, &ret->n_groups);
}

enum cs_err cs_identity_chain_build(const struct cs_store_principal *p,
                                    const struct cs_store_principal *owner, struct cs_arena *a,
                                    struct cs_chain *ret)
{
    struct cs_chain chain = {.n = 0};
    if (p->disabled_ms != 0) {
        return CS_ERR_UNAUTHENTICATED;
    }
    if (p->kind == CS_PRINCIPAL_AGENT) {
        /* An agent has no standing of its own: without its person it is nobody. */
        if (owner == NULL || owner->kind != CS_PRINCIPAL_PERSON || owner->disabled_ms != 0 ||
            !cs_slice_eq(owner->id, p->owner)) {
            return CS_ERR_UNAUTHENTICATED;
        }
        if (!member(owner, a, &chain.p[chain.n++])) {
            return CS_ERR_NO_MEMORY;
        }
    } else if (p->kind != CS_PRINCIPAL_PERSON) {
        return CS_ERR_UNAUTHENTICATED;
    }
    if (!member(p, a, &chain.p[chain.n++])) {
        return CS_ERR_NO_MEMORY;
    }
    *ret = chain;
    return CS_OK;
}

bool cs_identity_in_group(const struct cs_chain *c, struct cs_slice group)
{
    if (c->n == 0) {
        return false;
    }
    const struct cs_principal *p = &c->p[c->n - 1];
    for (size_t i = 0; i < p->n_groups; i++) {
        if (cs_slice_eq(p->groups[i], group)) {
            return true;
        }
    }
    return false;
}
