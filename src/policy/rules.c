/* Selectors: which rule concerns which principal and which target. Pure; used at the opening of a
 * session and by the compile job for its warnings, never per action. */
#include "policy/rules.h"

#include "base/attr.h"

static const struct {
    const char *kind;
    uint32_t families;
} kinds[] = {{"postgres", 1U << CS_FAMILY_SQL}};

bool cs_rule_name_valid(struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) {
            return false;
        }
    }
    return s.n >= 1 && s.n <= 64;
}

uint32_t cs_target_kind_families(struct cs_slice kind)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(kinds); i++) {
        if (cs_slice_eq_str(kind, kinds[i].kind)) {
            return kinds[i].families;
        }
    }
    return 0;
}

static bool listed(const struct cs_names *names, struct cs_slice s)
{
    for (size_t i = 0; i < names->n; i++) {
        if (cs_slice_eq(names->v[i], s)) {
            return true;
        }
    }
    return false;
}

static bool has_label(const struct cs_target *t, struct cs_slice key, struct cs_slice value)
{
    for (size_t i = 0; i < t->n_labels; i++) {
        if (cs_slice_eq(t->label_keys[i], key) && cs_slice_eq(t->label_values[i], value)) {
            return true;
        }
    }
    return false;
}

bool cs_rule_concerns(const struct cs_rule_full *r, const struct cs_target *t)
{
    const struct cs_target_selector *s = &r->target;
    if ((s->kinds.n > 0 && !listed(&s->kinds, t->kind)) ||
        (s->names.n > 0 && !listed(&s->names, t->name))) {
        return false;
    }
    for (size_t i = 0; i < s->label_keys.n; i++) {
        if (!has_label(t, s->label_keys.v[i], s->label_values.v[i])) {
            return false;
        }
    }
    return (r->when.families & ~cs_target_kind_families(t->kind)) == 0;
}

bool cs_who_matches(const struct cs_who *w, const struct cs_principal *p)
{
    if (listed(&w->users, p->id)) {
        return true;
    }
    for (size_t i = 0; i < p->n_groups; i++) {
        if (listed(&w->groups, p->groups[i])) {
            return true;
        }
    }
    return false;
}
