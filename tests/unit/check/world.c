#include "world.h"

#include "tap.h"

struct cs_arena arena;

void arena_start(void)
{
    static bool started;
    if (started) {
        cs_arena_done(&arena);
    }
    started = true;
    cs_arena_init(&arena, 65536, 64U << 20);
}

static struct cs_names words(const char *s)
{
    struct cs_names out = {NULL, 0};
    struct cs_slice rest = cs_slice_str(s != NULL ? s : "");
    out.v = cs_arena_array(&arena, 16, sizeof *out.v);
    while (rest.n > 0) {
        size_t k = cs_slice_find(rest, ' ');
        out.v[out.n++] = cs_slice_head(rest, k);
        rest = cs_slice_from(rest, k + 1);
    }
    return out;
}

static struct cs_slice moved(struct cs_buf *b)
{
    struct cs_slice out = cs_arena_dup(&arena, cs_buf_slice(b));
    CS_CHECK(!b->bad && out.p != NULL);
    cs_buf_done(b);
    return out;
}

static struct cs_rule_full rule_of(const struct line *l)
{
    struct cs_rule_full r;
    struct cs_buf code = cs_buf(1U << 20);
    struct cs_cel_mistake m;
    memset(&r, 0, sizeof r);
    r.rule.name = cs_slice_str(l->name);
    r.rule.then = l->then;
    r.rule.elevated = l->elevated;
    r.who.groups = words(l->groups);
    r.except.groups = words(l->except);
    if (l->when != NULL) {
        CS_CHECK(cs_cel_compile(cs_slice_str(l->when), &arena, &code, &m) == CS_OK);
        r.code = moved(&code);
    }
    if (l->then == CS_HOLD) {
        struct cs_names dba = words("dba");
        r.rule.approvers = (struct cs_approvers){dba.v, dba.n, 1, 900, 600, 600, 0};
    }
    return r;
}

static int by_name(const void *a, const void *b)
{
    const struct cs_rule_full *x = a, *y = b;
    return cs_slice_cmp(x->rule.name, y->rule.name);
}

struct cs_policy *policy_of(const struct line *lines, size_t n)
{
    struct cs_policy *p = NULL;
    arena_start();
    struct cs_rule_full *rules = cs_arena_array(&arena, n + 1, sizeof *rules);
    for (size_t i = 0; i < n; i++) {
        rules[i] = rule_of(&lines[i]);
    }
    qsort(rules, n, sizeof *rules, by_name);
    struct cs_target t = target_of("ro", "owner");
    struct cs_policy_source src = {42, rules, n, &t, 1};
    struct cs_buf out = cs_buf(1U << 24);
    cs_policy_build(&src, &out);
    CS_CHECK(cs_policy_load(moved(&out), &arena, &p) == CS_OK);
    return p;
}

struct cs_target target_of(const char *user, const char *elevated)
{
    return (struct cs_target){.name = CS_SLICE_LIT("orders"),
                              .kind = CS_SLICE_LIT("postgres"),
                              .address = CS_SLICE_LIT("db.internal:5432"),
                              .database = CS_SLICE_LIT("orders"),
                              .tls = CS_SLICE_LIT("verify-full"),
                              .user = cs_slice_str(user),
                              .password = CS_SLICE_LIT("orders-ro"),
                              .has_elevated = elevated != NULL,
                              .elevated_user = cs_slice_str(elevated),
                              .elevated_password = CS_SLICE_LIT("orders-owner")};
}

static void put_row(struct cs_rows_writer *w, const char *row)
{
    struct cs_slice rest = cs_slice_str(row);
    for (unsigned i = 0; i < w->columns; i++) {
        size_t n = cs_slice_find(rest, '|');
        cs_rows_cell(w, cs_slice_head(rest, n));
        rest = cs_slice_from(rest, n + 1);
    }
    cs_rows_end_row(w);
}

static void put_table(struct cs_buf *b, const struct cs_check *c, const struct answer *a)
{
    struct cs_rows_writer w;
    if (a != NULL && a->failed) {
        cs_rows_failed(b, c->id, CS_SLICE_LIT("42501 permission denied"));
        return;
    }
    unsigned columns = c->how == CS_CHECK_RIGHTS ? 3 : 1;
    columns = a != NULL && a->columns != 0 ? a->columns : columns;
    cs_rows_table(&w, b, c->id, (uint16_t)columns);
    for (size_t i = 0; a != NULL && i < CS_ARRAY_LEN(a->rows) && a->rows[i] != NULL; i++) {
        put_row(&w, a->rows[i]);
    }
    cs_rows_end(&w, a != NULL && a->outcome == CS_ROWS_CUT ? CS_ROWS_CUT : CS_ROWS_COMPLETE);
}

/* "subject|ms" */
static void put_certificate(struct cs_buf *b, const struct answer *a)
{
    struct cs_rows_writer w;
    if (a != NULL && a->left_out) {
        return;
    }
    cs_rows_table(&w, b, "certificate", 2);
    put_row(&w, a != NULL && a->rows[0] != NULL ? a->rows[0] : "CN=db|1831536000000");
    cs_rows_end(&w, CS_ROWS_COMPLETE);
}

struct cs_slice answers(const struct answer *list, size_t n)
{
    struct cs_buf b = cs_buf(1U << 20);
    const struct answer *certificate = NULL;
    for (size_t k = 0; k < n; k++) {
        certificate = strcmp(list[k].id, "certificate") == 0 ? &list[k] : certificate;
    }
    cs_rows_begin(&b);
    put_certificate(&b, certificate);
    for (size_t i = 0; i < cs_check_count(); i++) {
        const struct cs_check *c = cs_check_at(i);
        const struct answer *a = NULL;
        for (size_t k = 0; k < n; k++) {
            a = strcmp(list[k].id, c->id) == 0 ? &list[k] : a;
        }
        if (c->asked && (a == NULL || !a->left_out)) {
            put_table(&b, c, a);
        }
    }
    return moved(&b);
}

const struct cs_check_finding *found(const struct cs_check_result *r, const char *id)
{
    for (size_t i = 0; i < r->n_findings; i++) {
        if (strcmp(r->findings[i].check->id, id) == 0) {
            return &r->findings[i];
        }
    }
    return NULL;
}

const struct cs_check_unseen *not_seen(const struct cs_check_result *r, const char *id)
{
    for (size_t i = 0; i < r->n_unseen; i++) {
        if (strcmp(r->unseen[i].check->id, id) == 0) {
            return &r->unseen[i];
        }
    }
    return NULL;
}
