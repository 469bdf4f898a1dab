/* Builds class records: names once each, then everything in one block. Called by the walker and
 * classify.c. A record never holds a pointer into the parse tree, which is gone after the call. */
#include "sql/record.h"

#include "base/alloc.h"
#include "base/assert.h"

static const struct cs_slice effect_names[CS_SQL_EFFECTS] = {
    {(const uint8_t *)"session", 7}, {(const uint8_t *)"read", 4},  {(const uint8_t *)"write", 5},
    {(const uint8_t *)"ddl", 3},     {(const uint8_t *)"admin", 5}, {(const uint8_t *)"opaque", 6},
};

void cs_sql_build_init(struct cs_sql_build *b)
{
    for (size_t set = 0; set < CS_ARRAY_LEN(b->effect_names); set++) {
        for (size_t i = 0, n = 0; i < CS_SQL_EFFECTS; i++) {
            if ((set >> i & 1) != 0) {
                b->effect_names[set][n++] = effect_names[i];
            }
        }
    }
}

void cs_sql_build_reset(struct cs_sql_build *b)
{
    cs_arena_reset(&b->arena);
    for (size_t i = 0; i < CS_SQL_LISTS; i++) {
        b->n_names[i] = 0;
    }
    if (++b->generation == 0) {
        memset(b->slots, 0, sizeof b->slots);
        b->generation = 1;
    }
    b->n_statements = 0;
    b->n_kept = 0;
    b->effects = 0;
    b->parsed = false;
    b->writes_unknown = b->opaque_otherwise = b->prepares = false;
    memset(b->dotted, 0, sizeof b->dotted);
    b->why = "";
    b->secrets.n = 0;
    b->secrets.params = 0;
}

void cs_sql_build_opaque(struct cs_sql_build *b, const char *why)
{
    b->effects |= CS_SQL_OPAQUE;
    b->opaque_otherwise = true;
    if (b->why[0] == '\0') {
        b->why = why;
    }
}

uint32_t cs_sql_build_hash(const struct cs_sql_build *b, const void *p, size_t n)
{
    const uint8_t *s = p;
    uint64_t h = 0xcbf29ce484222325u ^ b->seed;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ s[i]) * 0x100000001b3u;
    }
    return (uint32_t)(h ^ h >> 32);
}

bool cs_sql_build_name(struct cs_sql_build *b, enum cs_sql_list list, struct cs_slice name)
{
    uint32_t at = (cs_sql_build_hash(b, name.p, name.n) + list) % CS_SQL_NAME_SLOTS;
    for (; b->slots[at].generation == b->generation; at = (at + 1) % CS_SQL_NAME_SLOTS) {
        if (b->slots[at].list == list && cs_slice_eq(b->names[list][b->slots[at].index], name)) {
            return true;
        }
    }
    size_t total = 0;
    for (size_t i = 0; i < CS_SQL_LISTS; i++) {
        total += b->n_names[i];
    }
    if (total >= CS_LIMIT_SQL_RELATIONS) {
        return false;
    }
    b->slots[at].generation = b->generation;
    b->slots[at].list = (uint16_t)list;
    b->slots[at].index = (uint16_t)b->n_names[list];
    b->names[list][b->n_names[list]++] = name;
    return true;
}

/* ---- the block ---- */
/* The parts of the block in their order: record, statements, slices, spans, bytes. */
struct block {
    struct cs_sql_record *r;
    struct cs_slice *slice;
    uint8_t *byte;
};

/* At least one: see put_statements. */
static size_t statements_in(const struct cs_sql_build *b)
{
    return b->n_kept > 0 ? b->n_kept : 1;
}

static size_t block_size(const struct cs_sql_build *b, size_t text)
{
    size_t n = sizeof(struct cs_sql_record) + statements_in(b) * sizeof(struct cs_sql_statement) +
               text + b->secrets.n * sizeof(struct cs_redact_span);
    for (size_t l = 0; l < CS_SQL_LISTS; l++) {
        for (size_t i = 0; i < b->n_names[l]; i++) {
            n += sizeof(struct cs_slice) + b->names[l][i].n;
        }
    }
    for (size_t i = 0; i < b->n_kept; i++) {
        n += b->statements[i].name.n + b->statements[i].verb.n;
    }
    return n;
}

static struct cs_slice put(struct block *k, struct cs_slice s)
{
    struct cs_slice copy = {k->byte, s.n};
    if (s.n > 0) {
        memcpy(k->byte, s.p, s.n);
        k->byte += s.n;
    }
    return copy;
}

static const struct cs_slice *put_list(struct block *k, const struct cs_sql_build *b,
                                       enum cs_sql_list list, size_t *ret_n)
{
    struct cs_slice *first = k->slice;
    for (size_t i = 0; i < b->n_names[list]; i++) {
        *k->slice++ = put(k, b->names[list][i]);
    }
    *ret_n = b->n_names[list];
    return first;
}

static void put_effects(struct block *k, const struct cs_sql_build *b)
{
    struct cs_sql_class *c = &k->r->class;
    c->effects = b->effects;
    c->effect_names = b->effect_names[b->effects];
    c->n_effects = (size_t)__builtin_popcount(b->effects);
}

/* The statements; an empty text gets one of kind EMPTY that n_kept does not count, so that looking
 * at the first is always allowed. */
static void put_statements(struct block *k, const struct cs_sql_build *b,
                           struct cs_sql_statement *to)
{
    struct cs_sql_class *c = &k->r->class;
    c->statements = to;
    c->n_kept = b->n_kept;
    c->n_statements = b->n_statements;
    for (size_t i = 0; i < b->n_kept; i++) {
        to[i] = b->statements[i];
        to[i].name = put(k, b->statements[i].name);
        to[i].verb = put(k, b->statements[i].verb);
    }
    if (b->n_kept == 0) {
        to[0].kind = b->parsed ? CS_SQL_EMPTY : CS_SQL_PLAIN;
        to[0].effects = b->parsed ? CS_SQL_SESSION : CS_SQL_OPAQUE;
        to[0].verb = b->parsed ? CS_SLICE_LIT("EMPTY") : CS_SLICE_LIT("");
    }
    c->verb = to[0].verb;
}

struct cs_sql_record *cs_sql_record_new(const struct cs_sql_build *b, struct cs_slice text,
                                        bool keep_text)
{
    cs_assert(b->effects != 0 && b->effects < CS_ARRAY_LEN(b->effect_names));
    size_t n = block_size(b, keep_text ? text.n : 0);
    struct cs_sql_record *r = cs_alloc(n);
    if (r == NULL) {
        return NULL;
    }
    struct cs_sql_statement *statements = (struct cs_sql_statement *)(void *)(r + 1);
    struct cs_slice *slices = (struct cs_slice *)(void *)(statements + statements_in(b));
    size_t n_slices = 0;
    for (size_t l = 0; l < CS_SQL_LISTS; l++) {
        n_slices += b->n_names[l];
    }
    struct cs_redact_span *spans = (struct cs_redact_span *)(void *)(slices + n_slices);
    struct block k = {r, slices, (uint8_t *)(spans + b->secrets.n)};
    r->class.secrets = spans;
    r->class.n_secrets = b->secrets.n;
    r->class.secret_params = b->secrets.params;
    if (b->secrets.n > 0) {
        memcpy(spans, b->secrets.v, b->secrets.n * sizeof *spans);
    }
    r->refs = 1;
    r->class.parsed = b->parsed;
    r->class.why = b->why;
    bool opaque = (b->effects & CS_SQL_OPAQUE) != 0;
    r->class.writes_listed = b->parsed && !b->writes_unknown;
    r->class.writes_known = r->class.writes_listed && !opaque;
    r->class.by_strangers = b->parsed && opaque && !b->opaque_otherwise;
    r->class.prepares = b->prepares;
    memcpy(r->class.dotted, b->dotted, sizeof r->class.dotted);
    put_effects(&k, b);
    put_statements(&k, b, statements);
    r->class.reads = put_list(&k, b, CS_SQL_LIST_READS, &r->class.n_reads);
    r->class.writes = put_list(&k, b, CS_SQL_LIST_WRITES, &r->class.n_writes);
    r->class.functions = put_list(&k, b, CS_SQL_LIST_FUNCTIONS, &r->class.n_functions);
    r->class.strangers = put_list(&k, b, CS_SQL_LIST_STRANGERS, &r->class.n_strangers);
    if (keep_text) {
        r->text = put(&k, text);
    }
    cs_assert(k.byte <= (uint8_t *)r + n);
    return r;
}

void cs_sql_record_unref(struct cs_sql_record *r)
{
    if (r == NULL || r->refs == 0) {
        return;
    }
    if (--r->refs == 0) {
        cs_free(r);
    }
}

struct cs_sql_record *cs_sql_record_nomem(void)
{
    static const struct cs_sql_statement statement = {.kind = CS_SQL_PLAIN,
                                                      .effects = CS_SQL_OPAQUE};
    static const struct cs_redact_span all = {0, UINT32_MAX, CS_REDACT_WHOLE};
    static struct cs_sql_record nomem = {.class = {.effects = CS_SQL_OPAQUE,
                                                   .why = "out of memory",
                                                   .statements = &statement,
                                                   .effect_names = &effect_names[5],
                                                   .n_effects = 1,
                                                   .secrets = &all,
                                                   .n_secrets = 1,
                                                   .secret_params = UINT64_MAX}};
    return &nomem;
}
