/* Prepared statements and portals of one session, as the target has them: changed on its word only
 * (ParseComplete, BindComplete, CloseComplete, CommandComplete), never on the request. */
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/postgres/postgres_internal.h"

struct pg_statement *pg_statement_new(struct pg *p, struct cs_slice name, struct cs_slice text)
{
    if (name.n > CS_LIMIT_PG_NAME_BYTES || text.n > CS_LIMIT_PG_QUERY_BYTES ||
        text.n > CS_LIMIT_PG_STATEMENT_BYTES - p->names.bytes) {
        return NULL;
    }
    struct pg_statement *st = cs_alloc(sizeof *st + text.n);
    if (st == NULL) {
        return NULL;
    }
    st->refs = 1;
    p->names.bytes += text.n;
    uint8_t *mem = (uint8_t *)(st + 1);
    if (text.n > 0) {
        memcpy(mem, text.p, text.n);
    }
    st->text = cs_slice(mem, text.n);
    if (name.n > 0) {
        memcpy(st->name, name.p, name.n);
    }
    return st;
}

struct pg_statement *pg_statement_ref(struct pg_statement *st)
{
    st->refs++;
    return st;
}

void pg_statement_unref(struct pg *p, struct pg_statement *st)
{
    if (st == NULL) {
        return;
    }
    cs_assert(st->refs > 0);
    if (--st->refs > 0) {
        return;
    }
    if (st->class != NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), st->class);
    }
    p->names.bytes -= st->text.n;
    cs_memo_done(&st->memo);
    cs_free(st->types);
    cs_free(st);
}

/* Index of the first statement whose name is not less. */
static size_t place(const struct pg_names *m, struct cs_slice name)
{
    size_t lo = 0, hi = m->n_statements;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cs_slice_cmp(cs_slice_str(m->statements[mid]->name), name) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static struct pg_statement *stored(struct pg_names *m, struct cs_slice name)
{
    size_t i = place(m, name);
    return i < m->n_statements && cs_slice_eq_str(name, m->statements[i]->name) ? m->statements[i]
                                                                                : NULL;
}

/* Does the answer to this entry change what the name stands for? */
static bool touches(const struct pg_reply *r, struct cs_slice name)
{
    switch (r->kind) {
    case PG_REPLY_PARSE:
        return r->statement != NULL && cs_slice_eq_str(name, r->statement->name);
    case PG_REPLY_CLOSE:
        return r->what == 'S' && cs_slice_eq(name, cs_slice_str(r->name != NULL ? r->name : ""));
    case PG_REPLY_QUERY:
    case PG_REPLY_EXECUTE:
        return r->class != NULL;
    case PG_REPLY_BIND:
    case PG_REPLY_DESCRIBE:
    case PG_REPLY_SYNC:
    default:
        return false;
    }
}

struct pg_statement *pg_statement_find(struct pg *p, struct cs_slice name, bool *ret_wait)
{
    bool beyond = false; /* a Sync or a simple query lies between: the entry may fail on its own */
    *ret_wait = false;
    for (uint32_t i = p->replies.count; i > 0; i--) {
        struct pg_reply *r = pg_replies_at(&p->replies, i - 1);
        if (touches(r, name)) {
            *ret_wait = beyond || r->class != NULL;
            return !*ret_wait && r->kind == PG_REPLY_PARSE ? r->statement : NULL;
        }
        beyond = beyond || r->kind == PG_REPLY_SYNC || r->kind == PG_REPLY_QUERY;
    }
    return stored(&p->names, name);
}

bool pg_names_set(struct pg *p, struct pg_statement *st)
{
    struct pg_names *m = &p->names;
    struct cs_slice name = cs_slice_str(st->name);
    size_t i = place(m, name);
    if (i < m->n_statements && cs_slice_eq_str(name, m->statements[i]->name)) {
        pg_statement_unref(p, m->statements[i]);
        m->statements[i] = st;
        return true;
    }
    if (m->n_statements == m->cap_statements) {
        size_t cap = m->cap_statements > 0 ? m->cap_statements * 2 : 4;
        struct pg_statement **v =
            cap <= CS_LIMIT_PG_STATEMENTS ? cs_realloc(m->statements, cap * sizeof *v) : NULL;
        if (v == NULL) {
            return false;
        }
        m->statements = v;
        m->cap_statements = cap;
    }
    memmove(m->statements + i + 1, m->statements + i,
            (m->n_statements - i) * sizeof *m->statements);
    m->statements[i] = st;
    m->n_statements++;
    return true;
}

void pg_names_drop(struct pg *p, struct cs_slice name)
{
    struct pg_names *m = &p->names;
    size_t i = place(m, name);
    if (i < m->n_statements && cs_slice_eq_str(name, m->statements[i]->name)) {
        pg_statement_unref(p, m->statements[i]);
        m->n_statements--;
        memmove(m->statements + i, m->statements + i + 1,
                (m->n_statements - i) * sizeof *m->statements);
    }
}

void pg_names_drop_all(struct pg *p)
{
    for (size_t i = 0; i < p->names.n_statements; i++) {
        pg_statement_unref(p, p->names.statements[i]);
    }
    p->names.n_statements = 0;
}

void pg_put_parse(struct cs_buf *b, const struct pg_statement *st)
{
    size_t at = pg_begin(b, 'P');
    pg_put_cstr(b, cs_slice_str(st->name));
    pg_put_cstr(b, st->text);
    pg_put_u16(b, (uint16_t)st->n_types);
    for (size_t i = 0; i < st->n_types; i++) {
        pg_put_u32(b, st->types[i]);
    }
    pg_finish(b, at);
}

void pg_names_stale_all(struct pg *p)
{
    struct pg_names *m = &p->names;
    size_t kept = 0;
    for (size_t i = 0; i < m->n_statements; i++) {
        struct pg_statement *st = m->statements[i];
        if (st->class == NULL) {
            pg_statement_unref(p, st);
            continue;
        }
        st->stale = st->stale || st->name[0] != 0;
        m->statements[kept++] = st;
    }
    m->n_statements = kept;
}

/* ---- portals ---- */

struct pg_portal *pg_portal_find(struct pg *p, struct cs_slice name)
{
    for (uint32_t i = p->replies.count; i > 0; i--) {
        struct pg_reply *r = pg_replies_at(&p->replies, i - 1);
        if (r->kind == PG_REPLY_BIND && r->portal != NULL &&
            cs_slice_eq_str(name, r->portal->name)) {
            return r->portal;
        }
    }
    for (struct pg_portal *po = p->names.portals; po != NULL; po = po->next) {
        if (cs_slice_eq_str(name, po->name)) {
            return po;
        }
    }
    return NULL;
}

void pg_portal_free(struct pg *p, struct pg_portal *po)
{
    if (po == NULL) {
        return;
    }
    if (po->class != NULL) {
        cs_sql_release(cs_gate_sql(p->s->gate), po->class);
    }
    cs_free(po->text);
    pg_statement_unref(p, po->copies);
    if (po->granted) {
        cs_gate_executed(p->s, &po->grant, CS_RAN_NOT, CS_SLICE_LIT("bound, but never executed"));
    }
    cs_free(po);
}

void pg_portals_drop(struct pg *p, struct cs_slice name)
{
    for (struct pg_portal **at = &p->names.portals; *at != NULL; at = &(*at)->next) {
        if (cs_slice_eq_str(name, (*at)->name)) {
            struct pg_portal *gone = *at;
            *at = gone->next;
            pg_portal_free(p, gone);
            return;
        }
    }
}

void pg_portals_set(struct pg *p, struct pg_portal *po)
{
    pg_portals_drop(p, cs_slice_str(po->name));
    po->next = p->names.portals;
    p->names.portals = po;
}

void pg_portals_drop_all(struct pg *p)
{
    while (p->names.portals != NULL) {
        struct pg_portal *gone = p->names.portals;
        p->names.portals = gone->next;
        pg_portal_free(p, gone);
    }
}

/* ---- SQL-level names ---- */

/* Words of whoever asks, for the card: too many are cut, what is no text is none. */
void pg_reason_set(struct pg *p, struct cs_slice words)
{
    size_t n = CS_MIN(words.n, (size_t)CS_LIMIT_REASON_BYTES);
    while (n > 0 && n < words.n && (words.p[n] & 0xc0) == 0x80) {
        n--; /* not in the middle of a character */
    }
    cs_free(p->reason);
    p->reason = n > 0 && cs_utf8_valid(words) ? cs_alloc(n + 1) : NULL;
    if (p->reason != NULL) {
        memcpy(p->reason, words.p, n);
    }
    p->s->claimed = p->reason != NULL ? p->reason : p->reason_at_start;
}

/* A name that cannot be kept is dropped: then it is unknown, and unknown is refused. */
static void prepare_done(struct pg *p, const struct cs_sql_statement *st, struct cs_slice text)
{
    struct cs_slice name = cs_slice_head(st->name, CS_LIMIT_PG_NAME_BYTES);
    struct cs_slice own = cs_slice_from(text, st->offset);
    own = st->length > 0 ? cs_slice_head(own, st->length) : own;
    struct pg_statement *s = pg_statement_new(p, name, own);
    if (s == NULL) {
        pg_names_drop(p, name);
        return;
    }
    s->effects = st->inner_effects;
    if (!pg_names_set(p, s)) {
        pg_statement_unref(p, s);
    }
}

bool pg_names_follow(const struct cs_sql_class *class)
{
    return class->parsed && (class->effects & CS_SQL_OPAQUE) == 0 &&
           class->n_statements <= class->n_kept;
}

bool pg_names_change(const struct cs_sql_class *class, bool narrowed)
{
    if (!pg_names_follow(class) && !(narrowed && class->n_statements <= class->n_kept)) {
        return true;
    }
    for (uint32_t i = 0; i < class->n_kept; i++) {
        enum cs_sql_kind k = class->statements[i].kind;
        if (k == CS_SQL_PREPARE || k == CS_SQL_DEALLOCATE || k == CS_SQL_DISCARD_ALL ||
            k == CS_SQL_REASON) {
            return true;
        }
    }
    return false;
}

/* Does a statement before number `k` of the text make what that one names? */
static bool makes_before(const struct cs_sql_class *class, uint32_t k, enum cs_sql_kind maker)
{
    struct cs_slice name = cs_slice_head(class->statements[k].name, CS_LIMIT_PG_NAME_BYTES);
    for (uint32_t i = 0; i < k; i++) {
        const struct cs_sql_statement *st = &class->statements[i];
        if (st->kind == maker &&
            (name.n == 0 || cs_slice_eq(cs_slice_head(st->name, CS_LIMIT_PG_NAME_BYTES), name))) {
            return true;
        }
    }
    return false;
}

bool pg_needs_session(const struct cs_sql_class *class)
{
    for (uint32_t i = 0; class->parsed && i < class->n_kept; i++) {
        switch ((int)class->statements[i].kind) {
        case CS_SQL_EXECUTE:
        case CS_SQL_DEALLOCATE:
            if (!makes_before(class, i, CS_SQL_PREPARE)) {
                return true;
            }
            break;
        case CS_SQL_FETCH:
        case CS_SQL_CLOSE:
            if (!makes_before(class, i, CS_SQL_DECLARE)) {
                return true;
            }
            break;
        default:
            break;
        }
    }
    return false;
}

void pg_names_after(struct pg *p, const struct cs_sql_class *class, const char *text, unsigned n)
{
    if (!pg_names_follow(class) || n >= class->n_kept) {
        pg_names_stale_all(p); /* it may have prepared anything under any name */
        return;
    }
    const struct cs_sql_statement *st = &class->statements[n];
    switch ((int)st->kind) {
    case CS_SQL_PREPARE:
        prepare_done(p, st, cs_slice_str(text));
        break;
    case CS_SQL_DEALLOCATE:
        if (st->name.n == 0) {
            pg_names_drop_all(p);
        } else {
            pg_names_drop(p, cs_slice_head(st->name, CS_LIMIT_PG_NAME_BYTES));
        }
        break;
    case CS_SQL_DISCARD_ALL:
        pg_names_drop_all(p);
        pg_portals_drop_all(p);
        pg_reason_set(p, CS_SLICE_NULL);
        break;
    case CS_SQL_REASON:
        pg_reason_set(p, st->name);
        break;
    default:
        break;
    }
}

size_t pg_portal_count(const struct pg *p)
{
    size_t n = 0;
    for (const struct pg_portal *po = p->names.portals; po != NULL; po = po->next) {
        n++;
    }
    return n;
}

void pg_names_done(struct pg *p)
{
    pg_names_drop_all(p);
    pg_portals_drop_all(p);
    pg_cursors_free(p);
    cs_free(p->names.statements);
    p->names = (struct pg_names){0};
}
