/* The classifier: bounds, cache, parse, walk, record. Called by the protocol for every text that a
 * client sends.
 *
 * It must never call anything of libpg_query but the raw parse: that catches the library's own
 * errors, which elsewhere end the process. One memory context per parse, given back each time. The
 * verdict starts as nothing and only ever grows; nothing at the end is a bug and thus opaque. */
#include "sql/classify.h"
#include "base/alloc.h"
#include "base/id.h"
#include "sql/cache.h"
#include "sql/lexer.h"
#include "sql/secrets.h"
#include "sql/walk.h"

struct cs_sql {
    struct cs_sql_cache *cache; /* owned */
    struct cs_sql_names *names; /* owned */
    struct cs_sql_build build;
    struct cs_sql_walk walk;
    size_t max_text, max_tokens;
    char *text; /* owned, max_text + 1: the grammar reads C strings */
};

enum { ARENA_CHUNK = 16384, ARENA_MAX = 4 << 20 };

static enum cs_err new_for(size_t max_text, size_t max_tokens, struct cs_sql **ret)
{
    struct cs_sql *sql = cs_alloc(sizeof *sql);
    if (sql == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    sql->max_text = max_text;
    sql->max_tokens = max_tokens;
    sql->text = cs_alloc(max_text + 1);
    cs_sql_build_init(&sql->build);
    cs_arena_init(&sql->build.arena, ARENA_CHUNK, ARENA_MAX);
    cs_random(&sql->build.seed, sizeof sql->build.seed);
    enum cs_err e = sql->text != NULL ? cs_sql_cache_new(&sql->cache) : CS_ERR_NO_MEMORY;
    if (e == CS_OK) {
        e = cs_sql_names_new(&sql->names);
    }
    if (e != CS_OK) {
        cs_sql_free(sql);
        return e;
    }
    *ret = sql;
    return CS_OK;
}

enum cs_err cs_sql_new(struct cs_sql **ret)
{
    return new_for(CS_LIMIT_SQL_INLINE_BYTES, CS_LIMIT_SQL_TOKENS, ret);
}

enum cs_err cs_sql_new_large(struct cs_sql **ret)
{
    return new_for(CS_LIMIT_PG_QUERY_BYTES, CS_LIMIT_SQL_LARGE_TOKENS, ret);
}

void cs_sql_free(struct cs_sql *sql)
{
    if (sql == NULL) {
        return;
    }
    cs_free(sql->text);
    cs_sql_cache_free(sql->cache);
    cs_sql_names_free(sql->names);
    cs_arena_done(&sql->build.arena);
    cs_free(sql);
}

const struct cs_slice *cs_sql_effect_names(const struct cs_sql *sql, uint8_t effects, size_t *ret_n)
{
    effects &= CS_ARRAY_LEN(sql->build.effect_names) - 1;
    *ret_n = (size_t)__builtin_popcount(effects);
    return sql->build.effect_names[effects];
}

/* ---- one statement, all statements ---- */
static void walk_reset(struct cs_sql *sql)
{
    struct cs_sql_walk *w = &sql->walk;
    w->build = &sql->build;
    w->names = sql->names;
    w->depth = 0;
    w->stop = false;
    w->plain_explain = w->writing = w->locking = false;
    w->n_ctes = 0;
}

/* What the server analyses already when it is prepared; anything else is kept as it was parsed. */
static bool analysed(unsigned tag)
{
    static const unsigned tags[] = {T_SelectStmt,  T_InsertStmt,        T_UpdateStmt,
                                    T_DeleteStmt,  T_MergeStmt,         T_DeclareCursorStmt,
                                    T_ExplainStmt, T_CreateTableAsStmt, T_CallStmt};
    for (size_t i = 0; i < CS_ARRAY_LEN(tags); i++) {
        if (tag == tags[i]) {
            return true;
        }
    }
    return false;
}

static void walk_statement(struct cs_sql *sql, const RawStmt *raw)
{
    struct cs_sql_walk *w = &sql->walk;
    struct cs_sql_build *b = &sql->build;
    struct cs_sql_statement *st = &b->statements[b->n_kept], over;
    if (b->n_kept < CS_SQL_STATEMENTS_KEPT) {
        b->n_kept++;
    } else {
        st = &over;
    }
    b->n_statements++;
    *st = (struct cs_sql_statement){.kind = CS_SQL_PLAIN, .verb = CS_SLICE_LIT("")};
    st->offset = raw->stmt_location > 0 ? (uint32_t)raw->stmt_location : 0;
    st->length = raw->stmt_len > 0 ? (uint32_t)raw->stmt_len : 0;
    st->analysed = raw->stmt != NULL && analysed((unsigned)nodeTag(raw->stmt));
    w->effects = 0;
    w->wrote = 0;
    w->top = st;
    if (raw->stmt == NULL || !cs_sql_visit_statement(w, raw->stmt)) {
        cs_sql_opaque(w, "a statement that is not known to the classifier");
    }
    if (w->effects == 0) {
        cs_sql_opaque(w, "a statement without effects");
    }
    if ((w->effects & (CS_SQL_WRITE | CS_SQL_DDL | CS_SQL_ADMIN)) != 0 && w->wrote == 0) {
        b->writes_unknown = true;
    }
    st->effects = w->effects;
    b->effects |= w->effects;
}

static void walk_tree(struct cs_sql *sql, const List *tree)
{
    struct cs_sql_build *b = &sql->build;
    walk_reset(sql);
    b->parsed = true;
    for (int i = 0; i < cs_sql_items(tree) && !sql->walk.stop; i++) {
        const RawStmt *raw = cs_sql_item(tree, i);
        if (raw == NULL || nodeTag(raw) != T_RawStmt) {
            cs_sql_build_opaque(b, "a tree that is not known to the classifier");
            break;
        }
        walk_statement(sql, raw);
    }
    /* Not all were walked: the count is still the whole. */
    b->n_statements = (uint32_t)cs_sql_items(tree);
    if (b->n_statements == 0) {
        b->effects |= CS_SQL_SESSION;
    }
}

/* ---- classification ---- */
struct cs_sql_build *cs_sql_build_of(struct cs_sql *sql)
{
    return &sql->build;
}

const struct cs_sql_class *cs_sql_record_class(const struct cs_sql_build *b)
{
    struct cs_sql_record *r = cs_sql_record_new(b, CS_SLICE_NULL, false);
    return r != NULL ? &r->class : &cs_sql_record_nomem()->class;
}

const struct cs_sql_class *cs_sql_record_class_of(struct cs_sql *sql, struct cs_slice text)
{
    uint64_t hash = 0;
    bool small = text.n <= CS_LIMIT_SQL_CACHE_TEXT;
    /* Another session's may have come while this one was parsed elsewhere. */
    bool there = small && cs_sql_cache_find(sql->cache, text, &hash) != NULL;
    bool keep = small && !there && cs_sql_cache_wants(sql->cache, hash);
    struct cs_sql_record *r = cs_sql_record_new(&sql->build, text, keep);
    if (keep && r != NULL) {
        cs_sql_cache_add(sql->cache, r, hash);
    }
    return r != NULL ? &r->class : &cs_sql_record_nomem()->class;
}

static struct cs_sql_record *record(struct cs_sql *sql, struct cs_slice text, bool keep_text)
{
    struct cs_sql_record *r = cs_sql_record_new(&sql->build, text, keep_text);
    return r != NULL ? r : cs_sql_record_nomem();
}

struct cs_sql_record *cs_sql_classify_fresh(struct cs_sql *sql, struct cs_slice text,
                                            bool keep_text)
{
    cs_sql_build_reset(&sql->build);
    const char *why = cs_sql_lexer_refuses_over(text, sql->max_text, sql->max_tokens);
    if (why != NULL) {
        cs_sql_build_opaque(&sql->build, why);
        cs_sql_secrets_find(text, NULL, false, &sql->build.secrets);
        return record(sql, text, keep_text);
    }
    if (text.n > 0) {
        memcpy(sql->text, text.p, text.n);
    }
    sql->text[text.n] = '\0';
    MemoryContext context = pg_query_enter_memory_context();
    struct cs_pg_parse parse = pg_query_raw_parse(sql->text);
    if (parse.error != NULL) {
        cs_sql_build_opaque(&sql->build, "PostgreSQL 15's grammar does not accept it");
    } else {
        walk_tree(sql, parse.tree);
    }
    cs_sql_secrets_find(text, parse.tree, parse.error == NULL, &sql->build.secrets);
    /* Before the context goes: names still point into the tree. */
    struct cs_sql_record *r = record(sql, text, keep_text);
    pg_query_free_parse_result((struct cs_pg_parse_result){NULL, parse.stderr_buffer, parse.error});
    pg_query_exit_memory_context(context);
    return r;
}

const struct cs_sql_class *cs_sql_unparsed(struct cs_sql *sql, struct cs_slice text)
{
    cs_sql_build_reset(&sql->build);
    cs_sql_build_opaque(&sql->build, "no process could parse it");
    cs_sql_secrets_find(text, NULL, false, &sql->build.secrets);
    return &record(sql, text, false)->class;
}

const struct cs_sql_class *cs_sql_cached(struct cs_sql *sql, struct cs_slice text)
{
    uint64_t hash;
    if (text.n > CS_LIMIT_SQL_CACHE_TEXT) {
        return NULL;
    }
    struct cs_sql_record *r = cs_sql_cache_find(sql->cache, text, &hash);
    if (r == NULL) {
        return NULL;
    }
    r->refs++;
    return &r->class;
}

const struct cs_sql_class *cs_sql_classify(struct cs_sql *sql, struct cs_slice text)
{
    uint64_t hash = 0;
    bool small = text.n <= CS_LIMIT_SQL_CACHE_TEXT;
    if (small) {
        struct cs_sql_record *r = cs_sql_cache_find(sql->cache, text, &hash);
        if (r != NULL) {
            r->refs++;
            return &r->class;
        }
    }
    bool keep = small && cs_sql_cache_wants(sql->cache, hash);
    struct cs_sql_record *r = cs_sql_classify_fresh(sql, text, keep);
    if (keep && r->refs > 0) {
        cs_sql_cache_add(sql->cache, r, hash);
    }
    return &r->class;
}

const struct cs_sql_class *cs_sql_classify_replication(struct cs_sql *sql, struct cs_slice text)
{
    struct cs_sql_record *r = cs_sql_replication_record(&sql->build, text);
    return r != NULL ? &r->class : cs_sql_classify(sql, text);
}

/* The class is the first member of its record; the count in it is not part of the class. */
static struct cs_sql_record *record_of(const struct cs_sql_class *c)
{
    return (struct cs_sql_record *)(uintptr_t)c;
}

void cs_sql_keep(const struct cs_sql_class *c)
{
    struct cs_sql_record *r = record_of(c);
    if (r->refs > 0) {
        r->refs++;
    }
}

void cs_sql_release(struct cs_sql *sql, const struct cs_sql_class *c)
{
    (void)sql;
    if (c != NULL) {
        cs_sql_record_unref(record_of(c));
    }
}
