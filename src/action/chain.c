/* Principals and chains: their one binary form and what people read. Called by control (which makes
 * chains), gate (which carries and judges them) and the record. It must never accept a chain
 * longer, or with more groups, than limits.def permits, nor a principal without a kind or an id. */
#include "action/chain.h"

#include "action/action.h"
#include "base/attr.h"

enum {
    ID_BYTES_MAX = 1024
}; /* of an id, a name or a group: identity providers' subjects are long */

static const char *const kind_names[] = {
    [CS_PRINCIPAL_NONE] = "none",
    [CS_PRINCIPAL_PERSON] = "person",
    [CS_PRINCIPAL_AGENT] = "agent",
    [CS_PRINCIPAL_WORKLOAD] = "workload",
};

const char *cs_principal_kind_name(enum cs_principal_kind k)
{
    return (size_t)k < CS_ARRAY_LEN(kind_names) ? kind_names[k] : "none";
}

static bool text_fits(struct cs_slice s, size_t least)
{
    return s.n >= least && s.n <= ID_BYTES_MAX;
}

/* What the decoder would refuse is not written either: the mistake shows where it is made. */
static bool principal_valid(const struct cs_principal *p)
{
    if (p->kind <= CS_PRINCIPAL_NONE || p->kind > CS_PRINCIPAL_WORKLOAD || !text_fits(p->id, 1) ||
        !text_fits(p->name, 0) || p->n_groups > CS_LIMIT_GROUPS) {
        return false;
    }
    for (size_t i = 0; i < p->n_groups; i++) {
        if (!text_fits(p->groups[i], 1)) {
            return false;
        }
    }
    return true;
}

void cs_chain_encode(struct cs_writer *w, const struct cs_chain *c)
{
    if (c->n > CS_LIMIT_CHAIN) {
        w->overflow = true;
        return;
    }
    cs_writer_u8(w, (uint8_t)c->n);
    for (size_t i = 0; i < c->n; i++) {
        const struct cs_principal *p = &c->p[i];
        if (!principal_valid(p)) {
            w->overflow = true;
            return;
        }
        cs_writer_u8(w, (uint8_t)p->kind);
        cs_writer_slice(w, p->id);
        cs_writer_slice(w, p->name);
        cs_writer_u16le(w, (uint16_t)p->n_groups);
        for (size_t g = 0; g < p->n_groups; g++) {
            cs_writer_slice(w, p->groups[g]);
        }
    }
}

static bool principal_decode(struct cs_reader *r, struct cs_arena *a, struct cs_principal *ret)
{
    unsigned kind = cs_reader_u8(r);
    struct cs_principal p = {CS_PRINCIPAL_NONE, cs_reader_slice(r), CS_SLICE_NULL, NULL, 0};
    p.name = cs_reader_slice(r);
    p.n_groups = cs_reader_u16le(r);
    if (r->bad || kind > CS_PRINCIPAL_WORKLOAD || p.n_groups > CS_LIMIT_GROUPS) {
        return false;
    }
    p.kind = (enum cs_principal_kind)kind;
    if (p.n_groups > 0) {
        p.groups = CS_NEW_ARRAY(a, struct cs_slice, p.n_groups);
        if (p.groups == NULL) {
            return false;
        }
    }
    for (size_t i = 0; i < p.n_groups; i++) {
        p.groups[i] = cs_reader_slice(r);
    }
    if (r->bad || !principal_valid(&p)) {
        return false;
    }
    *ret = p;
    return true;
}

bool cs_chain_decode(struct cs_reader *r, struct cs_arena *a, struct cs_chain *ret)
{
    struct cs_chain c = {0};
    size_t n = cs_reader_u8(r);
    if (r->bad || n > CS_LIMIT_CHAIN) {
        return false;
    }
    for (; c.n < n; c.n++) {
        if (!principal_decode(r, a, &c.p[c.n])) {
            return false;
        }
    }
    *ret = c;
    return true;
}

struct cs_slice cs_chain_text(const struct cs_chain *c, struct cs_arena *a)
{
    struct cs_slice text = CS_SLICE_NULL;
    if (c->n == 0) {
        return CS_SLICE_LIT("nobody");
    }
    for (size_t i = 0; i < c->n && i < CS_LIMIT_CHAIN; i++) {
        const struct cs_principal *p = &c->p[i];
        /* A name is the identity provider's or its owner's text: it must not draw a second line. */
        struct cs_slice name = cs_sanitise(p->name.n > 0 ? p->name : p->id, false, a);
        if (name.p == NULL) {
            return CS_SLICE_NULL;
        }
        text =
            cs_arena_printf(a, "%s %.*s%s%.*s", cs_principal_kind_name(p->kind), CS_SLICE_FMT(name),
                            i > 0 ? " on behalf of " : "", CS_SLICE_FMT(text));
        if (text.p == NULL) {
            return CS_SLICE_NULL;
        }
    }
    return text;
}

bool cs_chain_has(const struct cs_chain *c, struct cs_slice principal_id)
{
    for (size_t i = 0; i < c->n && i < CS_LIMIT_CHAIN; i++) {
        if (cs_slice_eq(c->p[i].id, principal_id)) {
            return true;
        }
    }
    return false;
}
