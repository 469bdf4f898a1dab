/* Rules: from the model to what policy/ loads, with everything that makes a rule useless or a hold
 * impossible to approve reported. Called by compile.c behind the targets. */
#include "config/compile.h"

#include "base/limits.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- conditions ---- */

static struct cs_slice line_of(struct cs_slice text, uint32_t line)
{
    for (uint32_t i = 1; i < line && text.n > 0; i++) {
        text = cs_slice_from(text, cs_slice_find(text, '\n') + 1);
    }
    text = cs_slice_head(text, cs_slice_find(text, '\n'));
    return text.n > 0 && text.p[text.n - 1] == '\r' ? cs_slice_head(text, text.n - 1) : text;
}

/* The place in the file of a place in a block: its first line is the one below the "|"; each line
 * lacks its indentation, which is what the file's line has more. */
static struct cs_cfg_pos in_file(const struct cs_compiler *c, const struct cs_cfg_text *when,
                                 uint32_t line, uint32_t column)
{
    struct cs_cfg_pos at = {when->pos.line + line, column};
    size_t whole = line_of(c->text, at.line).n, inner = line_of(when->v, line).n;
    at.column += whole > inner ? (uint32_t)(whole - inner) : 0;
    return at;
}

static void compile_when(struct cs_compiler *c, const struct cs_cfg_text *when,
                         struct cs_rule_full *r)
{
    struct cs_cel_mistake mistake;
    struct cs_buf code = cs_buf(CS_SNAPSHOT_MAX);
    if (when->v.n == 0) {
        return;
    }
    enum cs_err err = cs_cel_compile(when->v, c->arena, &code, &mistake);
    if (err == CS_ERR_INVALID) {
        cs_mistake(c->m, in_file(c, when, mistake.line, mistake.column), "%s", mistake.text);
    } else if (err == CS_OK) {
        r->code = cs_arena_dup(c->arena, cs_buf_slice(&code));
        err = r->code.p != NULL ? cs_cel_load(r->code, c->arena, &r->when) : CS_ERR_NO_MEMORY;
        c->m->no_memory |= err != CS_OK;
    } else {
        c->m->no_memory = true;
    }
    cs_buf_done(&code);
}

/* ---- who ---- */

/* "alice" is "local:alice": rules match identities, never display names. */
static struct cs_names users_of(struct cs_compiler *c, const struct cs_cfg_texts *from)
{
    struct cs_names out = cs_cfg_names(c, from);
    for (size_t i = 0; i < out.n; i++) {
        size_t colon = cs_slice_find(out.v[i], ':');
        if (colon == out.v[i].n) {
            out.v[i] = cs_arena_printf(c->arena, "local:%.*s", CS_SLICE_FMT(out.v[i]));
            c->m->no_memory |= out.v[i].p == NULL;
        } else if (!cs_slice_eq_str(cs_slice_head(out.v[i], colon), "local")) {
            cs_mistake(c->m, from->v[i].pos,
                       "not in this version: users of the identity provider "
                       "\"%s\" (write \"local:NAME\" or \"NAME\")",
                       cs_shown(cs_slice_head(out.v[i], colon)));
        }
    }
    return out;
}

static void compile_who(struct cs_compiler *c, const struct cs_cfg_rule *from,
                        struct cs_rule_full *r)
{
    const struct cs_cfg_who *w = &from->who;
    const struct cs_cfg_except *e = &w->except;
    if (w->head.set && !w->head.bad && !w->groups.set && !w->users.set) {
        cs_mistake(c->m, w->head.pos, "\"who\" names nobody: give groups or users");
    }
    if (e->head.set && !e->head.bad && !e->groups.set && !e->users.set) {
        cs_mistake(c->m, e->head.pos,
                   "\"except\" names nobody: give groups or users, or leave it "
                   "out");
    }
    r->who = (struct cs_who){cs_cfg_names(c, &w->groups), users_of(c, &w->users)};
    r->except = (struct cs_who){cs_cfg_names(c, &e->groups), users_of(c, &e->users)};
}

/* ---- target ---- */

static struct cs_names one_name(struct cs_compiler *c, const struct cs_cfg_text *t)
{
    struct cs_cfg_text *copy = CS_NEW(c->arena, struct cs_cfg_text);
    if (copy == NULL) {
        c->m->no_memory = true;
        return (struct cs_names){NULL, 0};
    }
    *copy = *t;
    struct cs_cfg_texts list = {.v = copy, .n = t->v.n > 0 ? 1 : 0};
    return cs_cfg_names(c, &list);
}

static void compile_selector(struct cs_compiler *c, const struct cs_cfg_rule *from,
                             struct cs_rule_full *r)
{
    const struct cs_cfg_select *s = &from->target;
    r->target.kinds = one_name(c, &s->kind);
    r->target.names = one_name(c, &s->name);
    cs_cfg_labels(c, &s->labels, &r->target.label_keys, &r->target.label_values);
    if (!s->head.set || s->head.bad || (s->kind.set && s->kind.v.n == 0) ||
        (s->name.set && s->name.v.n == 0) || s->labels.n != (size_t)r->target.label_keys.n) {
        return;
    }
    if (s->kind.v.n > 0 && (r->when.families & ~cs_target_kind_families(s->kind.v)) != 0) {
        cs_mistake(c->m, from->when.pos,
                   "the condition names facts that targets of kind \"%s\" do "
                   "not have, so the rule can never apply",
                   cs_shown(s->kind.v));
        return;
    }
    for (size_t i = 0; i < c->n_targets; i++) {
        if (cs_rule_concerns(r, &c->targets[i])) {
            return;
        }
    }
    cs_warning(c->m, s->head.pos, "the rule \"%s\" concerns no target: none fits this selector",
               cs_shown(from->name.v));
}

/* Names the possible targets that have no elevated credential. */
static void check_elevated(struct cs_compiler *c, const struct cs_cfg_rule *from,
                           const struct cs_rule_full *r)
{
    char list[200];
    size_t n = 0, len = 0;
    list[0] = 0;
    for (size_t i = 0; i < c->n_targets; i++) {
        const struct cs_target *t = &c->targets[i];
        if (t->has_elevated || t->name.n == 0 || !cs_rule_concerns(r, t)) {
            continue;
        }
        if (n++ < 5) {
            int w = snprintf(list + len, sizeof list - len, "%s\"%.30s\"", len > 0 ? ", " : "",
                             cs_shown(t->name));
            len = CS_MIN(sizeof list - 1, len + (w > 0 ? (size_t)w : 0));
        }
    }
    if (n > 0) {
        cs_mistake(c->m, from->run_as.pos,
                   "\"run_as: elevated\", but there is no \"elevated\" "
                   "credential for %s%s",
                   list, n > 5 ? " and others" : "");
    }
}

/* ---- the rule ---- */

static uint32_t seconds(const struct cs_cfg_number *n, uint32_t otherwise)
{
    return n->set ? (uint32_t)n->v : otherwise; /* at most 30 days */
}

static void compile_hold(struct cs_compiler *c, const struct cs_cfg_rule *from,
                         struct cs_rule_full *r)
{
    const struct cs_cfg_approvers *a = &from->approvers;
    if (!a->head.set) {
        cs_mistake(c->m, from->then.pos, "\"then: hold\" needs \"approvers\": who may approve?");
        return;
    }
    struct cs_names groups = cs_cfg_names(c, &a->groups);
    if (a->quorum.set && (a->quorum.v < 1 || a->quorum.v > CS_QUORUM_MAX)) {
        cs_mistake(c->m, a->quorum.pos, "\"quorum\" is %llu, but must be a number from 1 to %d",
                   (unsigned long long)a->quorum.v, CS_QUORUM_MAX);
    }
    r->rule.approvers = (struct cs_approvers){.groups = groups.v,
                                              .n_groups = groups.n,
                                              .quorum = a->quorum.set ? (uint32_t)a->quorum.v : 1,
                                              .within_s = seconds(&a->within, 15 * 60),
                                              .valid_s = seconds(&a->valid, 10 * 60),
                                              .attach_s = seconds(&a->attach, 10 * 60),
                                              .wait_s = seconds(&a->wait, 0)};
    r->rule.elevated = cs_slice_eq_str(from->run_as.v, "elevated");
    r->rule.copy_uncovered = cs_slice_eq_str(from->copy.v, "uncovered");
    if (r->rule.elevated) {
        check_elevated(c, from, r);
    }
}

/* The number of the word in the list that config.def has: 0 if it is not given. */
static unsigned word_of(const struct cs_cfg_text *t, const char *const *words, unsigned n)
{
    unsigned found = 0;
    for (unsigned i = 1; i < n; i++) {
        found = t->set && cs_slice_eq_str(t->v, words[i]) ? i : found;
    }
    return found;
}

static void compile_record(struct cs_compiler *c, const struct cs_cfg_rule *from,
                           struct cs_rule_full *r)
{
    static const char *const records[] = {"", "none", "head", "full"};
    static const char *const durabilities[] = {"", "async", "command", "strict"};
    r->rule.record = (enum cs_record)word_of(&from->record, records, CS_ARRAY_LEN(records));
    r->rule.durability =
        (enum cs_durability)word_of(&from->durability, durabilities, CS_ARRAY_LEN(durabilities));
    const struct cs_cfg_text *given = from->record.set ? &from->record : &from->durability;
    if (r->rule.then == CS_DENY && given->set && from->then.v.n > 0) {
        cs_mistake(c->m, given->pos,
                   "\"%s\" means nothing with \"then: deny\": what is denied has no answer",
                   given == &from->record ? "record" : "durability");
    }
}

static void compile_rule(struct cs_compiler *c, const struct cs_cfg_rule *from,
                         struct cs_rule_full *r)
{
    const struct cs_slice then = from->then.v;
    r->rule.name = from->name.v;
    r->rule.title = from->title.v;
    r->rule.then = cs_slice_eq_str(then, "allow")  ? CS_ALLOW
                   : cs_slice_eq_str(then, "hold") ? CS_HOLD
                                                   : CS_DENY;
    compile_when(c, &from->when, r);
    compile_who(c, from, r);
    compile_selector(c, from, r);
    compile_record(c, from, r);
    if (r->rule.then == CS_HOLD) {
        compile_hold(c, from, r);
    } else if (then.n > 0) {
        if (from->approvers.head.set) {
            cs_mistake(c->m, from->approvers.head.pos,
                       "\"approvers\" means nothing with \"then: %s\"; it belongs to a hold",
                       cs_shown(then));
        }
        if (from->run_as.set) {
            cs_mistake(c->m, from->run_as.pos,
                       "\"run_as\" means nothing with \"then: %s\"; it belongs to a hold",
                       cs_shown(then));
        }
        if (from->copy.set) {
            cs_mistake(c->m, from->copy.pos,
                       "\"copy\" means nothing with \"then: %s\"; it belongs to a hold",
                       cs_shown(then));
        }
    }
}

static int by_rule_name(const void *a, const void *b)
{
    const struct cs_cfg_rule *const *x = a, *const *y = b;
    int c = cs_slice_cmp((*x)->name.v, (*y)->name.v);
    return c != 0 ? c : (*x < *y ? -1 : *x > *y);
}

void cs_cfg_compile_rules(struct cs_compiler *c)
{
    const struct cs_cfg_list *list = &c->cfg->rules;
    const struct cs_cfg_rule *from = list->v;
    if (list->n > CS_LIMIT_RULES) {
        cs_mistake(c->m, list->pos, "%zu rules are more than %d", list->n, CS_LIMIT_RULES);
        return;
    }
    if (list->n == 0) {
        cs_warning(c->m, list->set ? list->pos : c->cfg->head.pos,
                   "there are no rules: everything is denied");
    }
    c->rules = CS_NEW_ARRAY(c->arena, struct cs_rule_full, list->n + 1);
    const struct cs_cfg_rule **order =
        CS_NEW_ARRAY(c->arena, const struct cs_cfg_rule *, list->n + 1);
    if (c->rules == NULL || order == NULL) {
        c->m->no_memory = true;
        return;
    }
    for (size_t i = 0; i < list->n; i++) {
        order[i] = &from[i];
    }
    qsort(order, list->n, sizeof(order[0]), by_rule_name);
    for (size_t i = 0; i < list->n && !c->m->no_memory; i++) {
        if (i > 0 && order[i]->name.v.n > 0 &&
            cs_slice_eq(order[i]->name.v, order[i - 1]->name.v)) {
            cs_mistake(c->m, order[i]->name.pos, "the rule name \"%s\" is taken, on line %u",
                       cs_shown(order[i]->name.v), order[i - 1]->name.pos.line);
        }
        if (!order[i]->head.bad) {
            compile_rule(c, order[i], &c->rules[c->n_rules++]);
        }
    }
}
