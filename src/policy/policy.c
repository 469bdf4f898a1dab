/* The policy part of a snapshot: written by the compile job, loaded by gate and control. The loader
 * believes nothing: sealed memory only promises that the bytes do not change, not that they are
 * good. It must never hand out a rule that could not be evaluated or a hold that nobody could
 * approve. */
#include "policy/rules.h"

#include "base/limits.h"
#include "base/reader.h"

struct cs_policy {
    uint64_t version;
    struct cs_rule_full *rules; /* arena */
    size_t n_rules;
    struct cs_target *targets; /* arena */
    size_t n_targets;
};

static const char magic[8] = {'C', 'S', 'P', 'O', 'L', 0, 0, 3};

/* ---- writing ---- */

static void put_u32(struct cs_buf *out, size_t v)
{
    if (v > UINT32_MAX) {
        out->bad = true;
    }
    for (int i = 0; i < 4; i++) {
        cs_buf_u8(out, (uint8_t)(v >> (8 * i)));
    }
}

static void put_slice(struct cs_buf *out, struct cs_slice s)
{
    put_u32(out, s.n);
    cs_buf_add(out, s);
}

static void put_names(struct cs_buf *out, const struct cs_slice *v, size_t n)
{
    put_u32(out, n);
    for (size_t i = 0; i < n; i++) {
        put_slice(out, v[i]);
    }
}

static void put_list(struct cs_buf *out, const struct cs_names *names)
{
    put_names(out, names->v, names->n);
}

static void put_target(struct cs_buf *out, const struct cs_target *t)
{
    put_slice(out, t->name);
    put_slice(out, t->kind);
    put_slice(out, t->address);
    put_slice(out, t->database);
    put_slice(out, t->tls);
    put_slice(out, t->tls_roots);
    put_slice(out, t->channel_binding);
    put_slice(out, t->authentication);
    put_names(out, t->label_keys, t->n_labels);
    put_names(out, t->label_values, t->n_labels);
    put_slice(out, t->user);
    put_slice(out, t->password);
    put_u32(out, t->has_elevated);
    put_slice(out, t->elevated_user);
    put_slice(out, t->elevated_password);
    put_slice(out, t->elevated_database);
    put_u32(out, t->has_probe);
    put_slice(out, t->probe_user);
    put_slice(out, t->probe_password);
    put_slice(out, t->probe_authentication);
}

static void put_rule(struct cs_buf *out, const struct cs_rule_full *r)
{
    const struct cs_approvers *a = &r->rule.approvers;
    put_slice(out, r->rule.name);
    put_slice(out, r->rule.title);
    put_u32(out, r->rule.then);
    put_u32(out, r->rule.elevated);
    put_u32(out, r->rule.copy_uncovered);
    put_u32(out, r->rule.record);
    put_u32(out, r->rule.durability);
    put_names(out, a->groups, a->n_groups);
    put_u32(out, a->quorum);
    put_u32(out, a->within_s);
    put_u32(out, a->valid_s);
    put_u32(out, a->attach_s);
    put_u32(out, a->wait_s);
    put_list(out, &r->who.groups);
    put_list(out, &r->who.users);
    put_list(out, &r->except.groups);
    put_list(out, &r->except.users);
    put_list(out, &r->target.kinds);
    put_list(out, &r->target.names);
    put_list(out, &r->target.label_keys);
    put_list(out, &r->target.label_values);
    put_slice(out, r->code);
}

void cs_policy_build(const struct cs_policy_source *s, struct cs_buf *out)
{
    cs_buf_add(out, cs_slice(magic, sizeof magic));
    put_u32(out, (uint32_t)s->version);
    put_u32(out, (uint32_t)(s->version >> 32));
    put_u32(out, s->n_targets);
    for (size_t i = 0; i < s->n_targets; i++) {
        put_target(out, &s->targets[i]);
    }
    put_u32(out, s->n_rules);
    for (size_t i = 0; i < s->n_rules; i++) {
        put_rule(out, &s->rules[i]);
    }
}

/* ---- loading ---- */

struct loader {
    struct cs_reader r;
    struct cs_arena *arena;
    bool no_memory;
};

static struct cs_names get_names(struct loader *l)
{
    struct cs_names out = {NULL, 0};
    uint32_t n = cs_reader_u32le(&l->r);
    /* SECURITY: each name takes four bytes at least; a count beyond that would only allocate. */
    if (n > cs_reader_left(&l->r) / 4) {
        l->r.bad = true;
        return out;
    }
    if (n == 0) {
        return out;
    }
    out.v = CS_NEW_ARRAY(l->arena, struct cs_slice, n);
    if (out.v == NULL) {
        l->no_memory = true;
        l->r.bad = true;
        return out;
    }
    out.n = n;
    for (size_t i = 0; i < n; i++) {
        out.v[i] = cs_reader_slice(&l->r);
    }
    return out;
}

static bool get_bool(struct loader *l)
{
    uint32_t v = cs_reader_u32le(&l->r);
    l->r.bad |= v > 1;
    return v == 1;
}

static void get_target(struct loader *l, struct cs_target *t)
{
    t->name = cs_reader_slice(&l->r);
    t->kind = cs_reader_slice(&l->r);
    t->address = cs_reader_slice(&l->r);
    t->database = cs_reader_slice(&l->r);
    t->tls = cs_reader_slice(&l->r);
    t->tls_roots = cs_reader_slice(&l->r);
    t->channel_binding = cs_reader_slice(&l->r);
    t->authentication = cs_reader_slice(&l->r);
    struct cs_names keys = get_names(l), values = get_names(l);
    t->label_keys = keys.v;
    t->label_values = values.v;
    t->n_labels = keys.n;
    t->user = cs_reader_slice(&l->r);
    t->password = cs_reader_slice(&l->r);
    t->has_elevated = get_bool(l);
    t->elevated_user = cs_reader_slice(&l->r);
    t->elevated_password = cs_reader_slice(&l->r);
    t->elevated_database = cs_reader_slice(&l->r);
    t->has_probe = get_bool(l);
    t->probe_user = cs_reader_slice(&l->r);
    t->probe_password = cs_reader_slice(&l->r);
    t->probe_authentication = cs_reader_slice(&l->r);
    l->r.bad |= keys.n != values.n || t->name.n == 0 || cs_target_kind_families(t->kind) == 0;
}

static bool approvers_valid(const struct cs_rule *r)
{
    const struct cs_approvers *a = &r->approvers;
    if (r->then != CS_HOLD) {
        return !r->elevated && a->n_groups == 0;
    }
    /* SECURITY: a quorum of zero would be a hold that approves itself. */
    return a->n_groups > 0 && a->quorum >= 1 && a->quorum <= CS_QUORUM_MAX && a->within_s > 0 &&
           a->valid_s > 0 && a->attach_s > 0;
}

static void get_rule(struct loader *l, struct cs_rule_full *r)
{
    struct cs_approvers *a = &r->rule.approvers;
    r->rule.name = cs_reader_slice(&l->r);
    r->rule.title = cs_reader_slice(&l->r);
    uint32_t then = cs_reader_u32le(&l->r);
    r->rule.then = then <= CS_ALLOW ? (enum cs_outcome)then : CS_DENY;
    r->rule.elevated = get_bool(l);
    r->rule.copy_uncovered = get_bool(l);
    uint32_t record = cs_reader_u32le(&l->r), durability = cs_reader_u32le(&l->r);
    r->rule.record = (enum cs_record)record;
    r->rule.durability = (enum cs_durability)durability;
    struct cs_names groups = get_names(l);
    a->groups = groups.v;
    a->n_groups = groups.n;
    a->quorum = cs_reader_u32le(&l->r);
    a->within_s = cs_reader_u32le(&l->r);
    a->valid_s = cs_reader_u32le(&l->r);
    a->attach_s = cs_reader_u32le(&l->r);
    a->wait_s = cs_reader_u32le(&l->r);
    r->who.groups = get_names(l);
    r->who.users = get_names(l);
    r->except.groups = get_names(l);
    r->except.users = get_names(l);
    r->target.kinds = get_names(l);
    r->target.names = get_names(l);
    r->target.label_keys = get_names(l);
    r->target.label_values = get_names(l);
    r->code = cs_reader_slice(&l->r);
    l->r.bad |= record > CS_RECORD_FULL || durability > CS_DURABLE_STRICT;
    l->r.bad |= then > CS_ALLOW || !cs_rule_name_valid(r->rule.name) ||
                r->who.groups.n + r->who.users.n == 0 ||
                r->target.label_keys.n != r->target.label_values.n || !approvers_valid(&r->rule);
    if (!l->r.bad && r->code.n > 0) {
        enum cs_err err = cs_cel_load(r->code, l->arena, &r->when);
        l->no_memory |= err == CS_ERR_NO_MEMORY;
        l->r.bad |= err != CS_OK;
    }
}

static void get_targets(struct loader *l, struct cs_policy *p)
{
    uint32_t n = cs_reader_u32le(&l->r);
    if (n > CS_POLICY_TARGETS || n > cs_reader_left(&l->r) / 4) {
        l->r.bad = true;
        return;
    }
    p->targets = CS_NEW_ARRAY(l->arena, struct cs_target, n + 1);
    l->no_memory |= p->targets == NULL;
    for (; p->n_targets < n && !l->r.bad && !l->no_memory; p->n_targets++) {
        struct cs_target *t = &p->targets[p->n_targets];
        get_target(l, t);
        l->r.bad |= p->n_targets > 0 && cs_slice_cmp(t[-1].name, t->name) >= 0;
    }
}

static void get_rules(struct loader *l, struct cs_policy *p)
{
    uint32_t n = cs_reader_u32le(&l->r);
    if (n > CS_LIMIT_RULES || n > cs_reader_left(&l->r) / 4) {
        l->r.bad = true;
        return;
    }
    p->rules = CS_NEW_ARRAY(l->arena, struct cs_rule_full, n + 1);
    l->no_memory |= p->rules == NULL;
    for (; p->n_rules < n && !l->r.bad && !l->no_memory; p->n_rules++) {
        struct cs_rule_full *r = &p->rules[p->n_rules];
        get_rule(l, r);
        l->r.bad |= p->n_rules > 0 && cs_slice_cmp(r[-1].rule.name, r->rule.name) >= 0;
    }
}

enum cs_err cs_policy_load(struct cs_slice snapshot, struct cs_arena *a, struct cs_policy **ret)
{
    struct loader l = {cs_reader(snapshot), a, false};
    struct cs_policy *p = CS_NEW(a, struct cs_policy);
    if (p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    struct cs_slice head = cs_reader_take(&l.r, sizeof magic);
    if (!cs_slice_eq(head, cs_slice(magic, sizeof magic))) {
        return CS_ERR_CORRUPT;
    }
    p->version = cs_reader_u64le(&l.r);
    get_targets(&l, p);
    if (!l.no_memory) {
        get_rules(&l, p);
    }
    if (l.no_memory) {
        return CS_ERR_NO_MEMORY;
    }
    if (!cs_reader_done(&l.r)) {
        return CS_ERR_CORRUPT;
    }
    *ret = p;
    return CS_OK;
}

/* ---- looking up ---- */

uint64_t cs_policy_version(const struct cs_policy *p)
{
    return p->version;
}

size_t cs_policy_rule_count(const struct cs_policy *p)
{
    return p->n_rules;
}

size_t cs_policy_target_count(const struct cs_policy *p)
{
    return p->n_targets;
}

const struct cs_target *cs_policy_target_at(const struct cs_policy *p, size_t i)
{
    return i < p->n_targets ? &p->targets[i] : NULL;
}

const struct cs_target *cs_policy_target(const struct cs_policy *p, struct cs_slice name)
{
    size_t low = 0, high = p->n_targets;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = cs_slice_cmp(p->targets[mid].name, name);
        if (c == 0) {
            return &p->targets[mid];
        }
        *(c < 0 ? &low : &high) = c < 0 ? mid + 1 : mid;
    }
    return NULL;
}

const struct cs_rule *cs_policy_rule(const struct cs_policy *p, struct cs_slice name)
{
    size_t low = 0, high = p->n_rules;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = cs_slice_cmp(p->rules[mid].rule.name, name);
        if (c == 0) {
            return &p->rules[mid].rule;
        }
        *(c < 0 ? &low : &high) = c < 0 ? mid + 1 : mid;
    }
    return NULL;
}

size_t cs_policy_rules(const struct cs_policy *p, const struct cs_rule_full **ret)
{
    *ret = p->rules;
    return p->n_rules;
}
