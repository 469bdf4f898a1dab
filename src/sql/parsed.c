/* Class records between processes (parsed.h): written by programs/job-parser.c, read by
 * gate/parse.c and the fuzz harness. The reader fills the same struct cs_sql_build that the walk
 * over a tree fills, so that a record from here is made, bounded and freed like any other. It must
 * never take a number from the message for a size, an index or a kind without having compared it
 * with what there can be. */
#include "sql/parsed.h"

#include "base/reader.h"
#include "sql/classify.h"

enum {
    MAGIC = 0x31525043, /* "CPR1" */
    EFFECTS_ALL = (1 << CS_SQL_EFFECTS) - 1,
    VERB_MAX = 64,
    NAME_MAX_BYTES = 1024, /* three parts of 63 bytes, each of them quotes, and room */
};
enum statement_flag { BINARY = 1, ANALYSED = 2, STATEMENT_FLAGS_ALL = 3 };
enum flag { PARSED = 1, WRITES_UNKNOWN = 2, OPAQUE_OTHERWISE = 4, PREPARES = 8, FLAGS_ALL = 15 };

/* ---- writing ---- */

static void put_u32(struct cs_buf *b, uint64_t v)
{
    const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                              (uint8_t)(v >> 24)};
    cs_buf_add(b, cs_slice(bytes, sizeof bytes));
}

static void put_slice(struct cs_buf *b, struct cs_slice s)
{
    put_u32(b, s.n);
    cs_buf_add(b, s);
}

static void put_names(struct cs_buf *b, const struct cs_slice *names, size_t n)
{
    put_u32(b, n);
    for (size_t i = 0; i < n; i++) {
        put_slice(b, names[i]);
    }
}

static uint8_t flags_of(const struct cs_sql_class *c)
{
    bool opaque = (c->effects & CS_SQL_OPAQUE) != 0;
    return (uint8_t)((c->parsed ? PARSED : 0) |
                     (c->parsed && !c->writes_listed ? WRITES_UNKNOWN : 0) |
                     (opaque && !c->by_strangers ? OPAQUE_OTHERWISE : 0) |
                     (c->prepares ? PREPARES : 0));
}

void cs_sql_class_write(struct cs_buf *out, const struct cs_sql_class *c, size_t text_n)
{
    put_u32(out, MAGIC);
    put_u32(out, text_n);
    cs_buf_u8(out, flags_of(c));
    cs_buf_u8(out, c->effects);
    for (size_t i = 0; i < CS_ARRAY_LEN(c->dotted); i++) {
        put_u32(out, c->dotted[i] & UINT32_MAX);
        put_u32(out, c->dotted[i] >> 32);
    }
    put_u32(out, c->n_statements);
    put_u32(out, c->n_kept);
    for (size_t i = 0; i < c->n_kept; i++) {
        const struct cs_sql_statement *st = &c->statements[i];
        cs_buf_u8(out, (uint8_t)st->kind);
        cs_buf_u8(out, st->effects);
        cs_buf_u8(out, st->inner_effects);
        cs_buf_u8(out, (uint8_t)((st->binary ? BINARY : 0) | (st->analysed ? ANALYSED : 0)));
        put_u32(out, st->columns);
        put_u32(out, st->offset);
        put_u32(out, st->length);
        put_slice(out, st->name);
        put_slice(out, st->verb);
    }
    put_names(out, c->reads, c->n_reads);
    put_names(out, c->writes, c->n_writes);
    put_names(out, c->functions, c->n_functions);
    put_names(out, c->strangers, c->n_strangers);
    put_u32(out, c->n_secrets);
    for (size_t i = 0; i < c->n_secrets; i++) {
        put_u32(out, c->secrets[i].at);
        put_u32(out, c->secrets[i].n);
        cs_buf_u8(out, c->secrets[i].how);
    }
    put_u32(out, c->secret_params & UINT32_MAX);
    put_u32(out, c->secret_params >> 32);
}

/* ---- reading ---- */

/* What the grammar and the walk make of names: UTF-8, no NUL. */
static bool is_name(struct cs_slice s, size_t max)
{
    return s.n <= max && cs_utf8_valid(s) && (s.n == 0 || memchr(s.p, 0, s.n) == NULL);
}

static bool is_verb(struct cs_slice s)
{
    bool ok = s.n <= VERB_MAX;
    for (size_t i = 0; i < s.n && ok; i++) {
        ok = s.p[i] == ' ' || (s.p[i] >= 'A' && s.p[i] <= 'Z');
    }
    return ok;
}

/* One after the other, each inside the text: the protocol cuts texts out by these numbers. */
static bool in_text(const struct cs_sql_statement *st, uint32_t from, size_t text_n)
{
    return st->offset >= from && st->offset <= text_n && st->length <= text_n - st->offset;
}

static bool read_statement(struct cs_reader *r, uint32_t from, size_t text_n,
                           struct cs_sql_statement *st)
{
    uint8_t kind = cs_reader_u8(r);
    st->effects = cs_reader_u8(r);
    st->inner_effects = cs_reader_u8(r);
    uint8_t flags = cs_reader_u8(r);
    uint32_t columns = cs_reader_u32le(r);
    st->kind = (enum cs_sql_kind)kind;
    st->binary = (flags & BINARY) != 0;
    st->analysed = (flags & ANALYSED) != 0;
    st->columns = (uint16_t)(columns & UINT16_MAX);
    st->offset = cs_reader_u32le(r);
    st->length = cs_reader_u32le(r);
    st->name = cs_reader_slice(r);
    st->verb = cs_reader_slice(r);
    return !r->bad && flags <= STATEMENT_FLAGS_ALL && kind <= CS_SQL_REASON &&
           kind != CS_SQL_EMPTY && st->effects != 0 && st->effects <= EFFECTS_ALL &&
           st->inner_effects <= EFFECTS_ALL && columns <= UINT16_MAX && in_text(st, from, text_n) &&
           is_name(st->name, text_n) && is_verb(st->verb);
}

/* The statements, and the effects that they have together. */
static bool read_statements(struct cs_reader *r, struct cs_sql_build *b, size_t text_n,
                            uint8_t *ret_effects)
{
    uint32_t from = 0;
    bool ok = true;
    b->n_statements = cs_reader_u32le(r);
    uint32_t kept = cs_reader_u32le(r);
    if (r->bad || b->n_statements > text_n || kept > b->n_statements ||
        kept > CS_SQL_STATEMENTS_KEPT) {
        return false;
    }
    for (; b->n_kept < kept && ok; b->n_kept++) {
        struct cs_sql_statement *st = &b->statements[b->n_kept];
        ok = read_statement(r, from, text_n, st);
        *ret_effects |= ok ? st->effects : 0;
        from = ok ? st->offset : 0;
    }
    return ok;
}

static bool is_stranger(struct cs_slice s)
{
    return s.n > 1 && (s.p[0] == 'f' || s.p[0] == 't' || s.p[0] == 'o');
}

static bool read_names(struct cs_reader *r, struct cs_sql_build *b, enum cs_sql_list list)
{
    uint32_t n = cs_reader_u32le(r);
    bool ok = !r->bad && n <= CS_LIMIT_SQL_RELATIONS;
    for (uint32_t i = 0; i < n && ok; i++) {
        struct cs_slice name = cs_reader_slice(r);
        ok = !r->bad && name.n > 0 && is_name(name, NAME_MAX_BYTES) &&
             (list != CS_SQL_LIST_STRANGERS || is_stranger(name)) &&
             cs_sql_build_name(b, list, name) && b->n_names[list] == i + 1;
    }
    return ok;
}

/* Ascending and apart, as cs_redact takes them; or one that is the whole text. */
static bool read_secrets(struct cs_reader *r, struct cs_sql_secrets *out, size_t text_n)
{
    size_t from = 0;
    uint32_t n = cs_reader_u32le(r);
    bool ok = !r->bad && n <= CS_REDACT_SPANS;
    for (out->n = 0; out->n < n && ok; out->n++) {
        struct cs_redact_span *s = &out->v[out->n];
        s->at = cs_reader_u32le(r);
        s->n = cs_reader_u32le(r);
        s->how = cs_reader_u8(r);
        bool whole = s->how == CS_REDACT_WHOLE && n == 1 && s->at == 0 && s->n == UINT32_MAX;
        bool piece = s->how > CS_REDACT_WHOLE && s->how <= CS_REDACT_COMMENT && s->at >= from &&
                     s->at <= text_n && s->n <= text_n - s->at;
        ok = !r->bad && (whole || piece);
        from = (size_t)s->at + s->n;
    }
    out->params = cs_reader_u64le(r);
    return ok && !r->bad;
}

/* What holds for every record that the walk makes. */
static bool consistent(const struct cs_sql_build *b, uint8_t of_statements)
{
    bool opaque = (b->effects & CS_SQL_OPAQUE) != 0;
    bool all = b->n_kept == b->n_statements;
    size_t names = 0;
    for (size_t i = 0; i < CS_SQL_LISTS; i++) {
        names += b->n_names[i];
    }
    if (!b->parsed) {
        return opaque && b->opaque_otherwise && b->n_statements == 0 && names == 0;
    }
    if (b->n_statements == 0 && b->effects != CS_SQL_SESSION) {
        return false;
    }
    /* SECURITY: nobody has seen what the statements do that are not here: there is no text of which
     * the first few alone say so little. */
    bool seen = all || b->n_kept == CS_SQL_STATEMENTS_KEPT || b->opaque_otherwise;
    bool strangers = b->n_names[CS_SQL_LIST_STRANGERS] > 0;
    return seen && (of_statements & ~(unsigned)b->effects) == 0 &&
           (!b->opaque_otherwise || opaque) && (!opaque || strangers || b->opaque_otherwise);
}

static bool read_class(struct cs_sql_build *b, struct cs_slice in, size_t text_n)
{
    struct cs_reader r = cs_reader(in);
    uint8_t of_statements = 0;
    cs_sql_build_reset(b);
    bool ok = cs_reader_u32le(&r) == MAGIC && cs_reader_u32le(&r) == text_n;
    uint8_t flags = cs_reader_u8(&r);
    b->effects = cs_reader_u8(&r);
    for (size_t i = 0; i < CS_ARRAY_LEN(b->dotted); i++) {
        b->dotted[i] = cs_reader_u64le(&r);
    }
    b->parsed = (flags & PARSED) != 0;
    b->writes_unknown = (flags & WRITES_UNKNOWN) != 0;
    b->opaque_otherwise = (flags & OPAQUE_OTHERWISE) != 0;
    b->prepares = (flags & PREPARES) != 0;
    b->why = b->opaque_otherwise ? "the process that parsed it says so" : "";
    ok = ok && !r.bad && flags <= FLAGS_ALL && b->effects != 0 && b->effects <= EFFECTS_ALL &&
         read_statements(&r, b, text_n, &of_statements);
    for (int list = 0; list < CS_SQL_LISTS && ok; list++) {
        ok = read_names(&r, b, (enum cs_sql_list)list);
    }
    ok = ok && read_secrets(&r, &b->secrets, text_n) && cs_reader_done(&r) &&
         consistent(b, of_statements);
    return ok;
}

const struct cs_sql_class *cs_sql_class_read(struct cs_sql *sql, struct cs_slice in, size_t text_n)
{
    struct cs_sql_build *b = cs_sql_build_of(sql);
    return read_class(b, in, text_n) ? cs_sql_record_class(b) : NULL;
}

const struct cs_sql_class *cs_sql_class_read_of(struct cs_sql *sql, struct cs_slice in,
                                                struct cs_slice text)
{
    return read_class(cs_sql_build_of(sql), in, text.n) ? cs_sql_record_class_of(sql, text) : NULL;
}
