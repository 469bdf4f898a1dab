/* The table of checks, and what the answers to its queries mean. Called by control, with rows that
 * came from a target through the probe: they are copied, compared and counted, never believed to
 * fit. No answer at all is said as such; it must never pass for "nothing found". */
#include "check/check.h"

#include "base/attr.h"
#include "base/time.h"
#include "check/queries.h"
#include "check/words.h"
#include "wire/rows.h"

enum { CELL_MAX = 1000 }; /* of a detail; longer ones are cut */
#define SOON_MS      (21ULL * 86400 * 1000)
#define LAST_TIME_MS 253402300799000ULL /* the end of the year 9999 */

static const struct cs_check checks[] = {
#define CS_CHECK(ID, id, severity, how, title, means, fix, query)                                  \
    {id, CS_CHECK_##severity, CS_CHECK_##how, title, means, fix, true},
#define CS_CHECK_LOCAL(ID, id, severity, title, means, fix)                                        \
    {id, CS_CHECK_##severity, CS_CHECK_HERE, title, means, fix, false},
#include "check/checks.def"
#undef CS_CHECK
#undef CS_CHECK_LOCAL
};
enum check_id {
#define CS_CHECK(ID, id, severity, how, title, means, fix, query) CHECK_##ID,
#define CS_CHECK_LOCAL(ID, id, severity, title, means, fix)       CHECK_##ID,
#include "check/checks.def"
#undef CS_CHECK
#undef CS_CHECK_LOCAL
    CHECK_MAX
};
_Static_assert(CS_ARRAY_LEN(checks) == CHECK_MAX, "table");

size_t cs_check_count(void)
{
    return CHECK_MAX;
}

const struct cs_check *cs_check_at(size_t i)
{
    return i < CHECK_MAX ? &checks[i] : NULL;
}

const char *cs_check_severity_name(enum cs_check_severity s)
{
    static const char *const names[] = {
        [CS_CHECK_SERIOUS] = "serious", [CS_CHECK_WARNING] = "warning", [CS_CHECK_NOTE] = "note"};
    return (unsigned)s < CS_ARRAY_LEN(names) ? names[s] : names[CS_CHECK_SERIOUS];
}

struct evaluation {
    const struct cs_policy *policy;
    const struct cs_target *target;
    struct cs_slice rows;
    uint64_t now_ms;
    struct cs_arena *arena;
    struct cs_check_result *result;
    bool reads_only;
    enum cs_tri any_table[CS_CHECK_RIGHTS_MAX]; /* cs_check_right for no table in particular */
    bool no_memory;
};

/* ---- words ---- */

static struct cs_slice fix_of(struct evaluation *e, const struct cs_check *c)
{
    const struct cs_target *t = e->target;
    const struct cs_check_names names = {.everyday = t->user,
                                         .elevated = t->has_elevated ? t->elevated_user
                                                                     : CS_SLICE_LIT("elevated"),
                                         .probe = t->has_probe ? t->probe_user : t->user,
                                         .database = t->database,
                                         .target = t->name};
    struct cs_buf out = cs_buf(8192);
    cs_check_fill(&out, c->fix, &names);
    struct cs_slice fix = out.bad ? CS_SLICE_NULL : cs_arena_dup(e->arena, cs_buf_slice(&out));
    cs_buf_done(&out);
    e->no_memory = e->no_memory || fix.p == NULL;
    return fix;
}

/* ---- findings ---- */

static struct cs_check_finding *finding(struct evaluation *e, const struct cs_check *c)
{
    struct cs_check_result *r = e->result;
    struct cs_check_finding *f = &r->findings[r->n_findings];
    *f = (struct cs_check_finding){.check = c, .fix = fix_of(e, c)};
    return f;
}

static void keep(struct evaluation *e, const struct cs_check_finding *f)
{
    e->result->n_findings++;
    e->result->count[f->check->severity]++;
}

static void unseen(struct evaluation *e, const struct cs_check *c, struct cs_slice why)
{
    struct cs_check_result *r = e->result;
    struct cs_slice kept = cs_arena_dup(e->arena, why);
    e->no_memory = e->no_memory || kept.p == NULL;
    r->unseen[r->n_unseen++] = (struct cs_check_unseen){c, kept};
    r->failed += c->how != CS_CHECK_OPTIONAL;
}

static void add_detail(struct evaluation *e, struct cs_check_finding *f, struct cs_slice text)
{
    if (f->n_details == CS_CHECK_ROWS_MAX) {
        f->more = true;
        return;
    }
    if (f->details == NULL) {
        f->details = CS_NEW_ARRAY(e->arena, struct cs_slice, CS_CHECK_ROWS_MAX);
    }
    struct cs_slice kept = cs_arena_dup(e->arena, cs_slice_head(text, CELL_MAX));
    if (f->details == NULL || kept.p == NULL) {
        e->no_memory = true;
        return;
    }
    f->details[f->n_details++] = kept;
}

/* Does no rule let the everyday role use this right? */
static bool superfluous(struct evaluation *e, size_t right, struct cs_slice schema,
                        struct cs_slice relation)
{
    enum cs_tri v = e->any_table[right];
    if (v == CS_TRI_UNKNOWN && schema.n > 0) { /* default privileges name no table */
        v = cs_check_right(e->policy, e->target, cs_slice_str(cs_check_right_name(right)), schema,
                           relation);
    }
    return v == CS_TRI_FALSE;
}

/* Is the word in a list with commas? */
static bool listed(struct cs_slice list, const char *word)
{
    while (list.n > 0) {
        size_t n = cs_slice_find(list, ',');
        if (cs_slice_eq_str(cs_slice_head(list, n), word)) {
            return true;
        }
        list = cs_slice_from(list, n + 1);
    }
    return false;
}

/* "public.orders: INSERT, DELETE": those rights of the third cell that no rule lets it use. */
static void add_rights(struct evaluation *e, struct cs_check_finding *f,
                       const struct cs_slice cells[static 3])
{
    struct cs_slice schema = cs_slice_head(cells[0], CELL_MAX);
    struct cs_slice relation = cs_slice_head(cells[1], CELL_MAX);
    struct cs_buf line = cs_buf(4 * CELL_MAX);
    const char *between = ": ";
    cs_buf_printf(&line, "%.*s%s%.*s", CS_SLICE_FMT(schema), schema.n > 0 ? "." : "",
                  CS_SLICE_FMT(relation));
    for (size_t i = 0; i < CS_CHECK_RIGHTS_MAX; i++) {
        if (listed(cells[2], cs_check_right_name(i)) && superfluous(e, i, schema, relation)) {
            cs_buf_printf(&line, "%s%s", between, cs_check_right_name(i));
            between = ", ";
        }
    }
    e->no_memory = e->no_memory || line.bad;
    if (between[0] == ',' && !line.bad) {
        add_detail(e, f, cs_buf_slice(&line));
    }
    cs_buf_done(&line);
}

static void judge(struct evaluation *e, const struct cs_check *c, struct cs_rows *t)
{
    struct cs_slice cells[3];
    struct cs_check_finding *f = finding(e, c);
    bool rights = c->how == CS_CHECK_RIGHTS;
    if (t->columns != (rights ? 3 : 1)) {
        unseen(e, c, CS_SLICE_LIT("the answer has other columns than were asked for"));
        return;
    }
    while (cs_rows_next_row(t, cells, 3) && !e->no_memory) {
        if (rights) {
            add_rights(e, f, cells);
        } else {
            add_detail(e, f, cells[0]);
        }
    }
    f->more = f->more || t->outcome == CS_ROWS_CUT;
    if (f->n_details > 0) {
        keep(e, f);
    }
}

static void evaluate_asked(struct evaluation *e, const struct cs_check *c)
{
    struct cs_rows t;
    bool plain = cs_slice_eq_str(e->target->tls, "off");
    if ((c->how == CS_CHECK_READ_ONLY && !e->reads_only) || (c->how == CS_CHECK_TLS && plain)) {
        return;
    }
    if (!cs_rows_find(e->rows, c->id, &t)) {
        unseen(e, c, CS_SLICE_LIT("it was not asked"));
    } else if (t.outcome == CS_ROWS_FAILED) {
        unseen(e, c, t.why);
    } else {
        judge(e, c, &t);
    }
}

/* ---- what the configuration alone tells ---- */

static bool is_loopback(struct cs_slice address)
{
    return cs_slice_starts(address, CS_SLICE_LIT("127.")) ||
           cs_slice_starts(address, CS_SLICE_LIT("[::1]:")) ||
           cs_slice_starts(address, CS_SLICE_LIT("localhost:"));
}

/* The probe's own table: subject, end of the certificate. */
static bool read_certificate(struct evaluation *e)
{
    struct cs_check_result *r = e->result;
    struct cs_slice cells[2];
    struct cs_rows t;
    if (!cs_rows_find(e->rows, "certificate", &t) || t.outcome != CS_ROWS_COMPLETE ||
        t.columns != 2 || !cs_rows_next_row(&t, cells, 2) ||
        !cs_slice_to_u64(cells[1], &r->certificate_until_ms)) {
        return false;
    }
    r->certificate = cs_arena_dup(e->arena, cs_slice_head(cells[0], CELL_MAX));
    e->no_memory = e->no_memory || r->certificate.p == NULL;
    return true;
}

static void evaluate_certificate(struct evaluation *e, const struct cs_check *c)
{
    char until[CS_TIME_TEXT];
    struct cs_check_finding *f = finding(e, c);
    if (cs_slice_eq_str(e->target->tls, "off")) {
        return;
    }
    if (!read_certificate(e)) {
        unseen(e, c, CS_SLICE_LIT("the connection showed none"));
        return;
    }
    const struct cs_check_result *r = e->result;
    uint64_t end = CS_MIN(r->certificate_until_ms, LAST_TIME_MS);
    if (end < e->now_ms || end - e->now_ms < SOON_MS) {
        struct cs_slice line = cs_arena_printf(
            e->arena, "%.*s: until %s", CS_SLICE_FMT(r->certificate), cs_time_text(end, until));
        add_detail(e, f, line);
        keep(e, f);
    }
}

static void evaluate_local(struct evaluation *e, enum check_id id)
{
    const struct cs_target *t = e->target;
    struct cs_check_finding *f = finding(e, &checks[id]);
    bool found = false;
    switch ((int)id) {
    case CHECK_ELEVATED_SAME:
        found = t->has_elevated && cs_slice_eq(t->user, t->elevated_user);
        add_detail(e, f, t->user);
        break;
    case CHECK_CERTIFICATE_EXPIRY:
        evaluate_certificate(e, f->check);
        return;
    case CHECK_TLS_OFF:
        found = cs_slice_eq_str(t->tls, "off") && !is_loopback(t->address);
        add_detail(e, f, t->address);
        break;
    case CHECK_TLS_UNCHECKED:
        found = cs_slice_eq_str(t->tls, "require");
        add_detail(e, f, t->address);
        break;
    case CHECK_TLS_ANY_NAME:
        found = cs_slice_eq_str(t->tls, "verify-ca");
        add_detail(e, f, t->address);
        break;
    default: /* a row without a query that has no code here: never "nothing found" */
        unseen(e, f->check, CS_SLICE_LIT("not in this version"));
        return;
    }
    if (found) {
        keep(e, f);
    }
}

enum cs_err cs_check_evaluate(const struct cs_policy *policy, const struct cs_target *target,
                              struct cs_slice rows, uint64_t now_ms, struct cs_arena *a,
                              struct cs_check_result *ret)
{
    struct evaluation e = {.policy = policy,
                           .target = target,
                           .rows = rows,
                           .now_ms = now_ms,
                           .arena = a,
                           .result = ret,
                           .reads_only = true};
    if (!cs_rows_valid(rows)) {
        return CS_ERR_CORRUPT;
    }
    for (size_t i = 0; i < CS_CHECK_RIGHTS_MAX; i++) {
        e.any_table[i] = cs_check_right(policy, target, cs_slice_str(cs_check_right_name(i)),
                                        CS_SLICE_NULL, CS_SLICE_NULL);
        e.reads_only = e.reads_only && e.any_table[i] == CS_TRI_FALSE;
    }
    *ret = (struct cs_check_result){0};
    /* One more: a finding is begun before it is known whether it stays. */
    ret->findings = CS_NEW_ARRAY(a, struct cs_check_finding, CHECK_MAX + 1);
    ret->unseen = CS_NEW_ARRAY(a, struct cs_check_unseen, CHECK_MAX);
    if (ret->findings == NULL || ret->unseen == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    for (int severity = CS_CHECK_SERIOUS; severity < CS_CHECK_SEVERITY_MAX; severity++) {
        for (size_t i = 0; i < CHECK_MAX; i++) {
            if ((int)checks[i].severity != severity) {
                continue;
            }
            if (checks[i].asked) {
                evaluate_asked(&e, &checks[i]);
            } else {
                evaluate_local(&e, (enum check_id)i);
            }
        }
    }
    return e.no_memory ? CS_ERR_NO_MEMORY : CS_OK;
}
