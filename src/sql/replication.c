/* The commands of a replication connection (PostgreSQL's protocol chapter, "Streaming Replication
 * Protocol"; its scanner is repl_scanner.l). On such a connection the server looks at a text's
 * first word: one of these makes it a replication command, everything else is SQL. Called by the
 * protocol before it asks for a class, and on such a connection only: elsewhere the same text is a
 * syntax error. It must never call a text SQL that the server takes for one of these. */
#include "base/attr.h"
#include "sql/record.h"

enum { READS, ALL, NAMED, NAMED_EFFECTS };

static const struct {
    const char *verb;
    uint8_t kind;
} commands[] = {
#define CS_NAMED_VERB(verb, family, effects, text) {verb, effects},
#include "action/named.def"
#undef CS_NAMED_VERB
};

static const uint8_t effects_of[NAMED_EFFECTS] = {
    [READS] = CS_SQL_READ,
    /* What it reads is in no table's name: nothing but the verb can be known of it. */
    [ALL] = CS_SQL_READ | CS_SQL_ADMIN | CS_SQL_OPAQUE,
    [NAMED] = CS_SQL_OPAQUE, /* no word of a text */
};

static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_word(uint8_t c)
{
    return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '$' || c >= 0x80;
}

static size_t skip(struct cs_slice s, size_t at, bool (*is)(uint8_t))
{
    while (at < s.n && is(s.p[at])) {
        at++;
    }
    return at;
}

/* One command and at most one operand of letters, digits and quotes: nothing that could end it and
 * begin another. */
static bool plain(struct cs_slice rest)
{
    size_t at = skip(rest, 0, is_space);
    for (; at < rest.n && (is_word(rest.p[at]) || rest.p[at] == '"'); at++) {
    }
    at = skip(rest, at, is_space);
    at += at < rest.n && rest.p[at] == ';';
    return skip(rest, at, is_space) == rest.n;
}

static const char *command_of(struct cs_slice text, uint8_t *ret_kind)
{
    size_t from = skip(text, 0, is_space), to = skip(text, from, is_word);
    struct cs_slice word = cs_slice(text.p + from, to - from);
    for (size_t i = 0; i < CS_ARRAY_LEN(commands); i++) {
        if (cs_slice_eq_nocase(word, cs_slice_str(commands[i].verb))) {
            bool readable = commands[i].kind != READS || plain(cs_slice_from(text, to));
            *ret_kind = readable ? commands[i].kind : ALL;
            return readable ? commands[i].verb : "REPLICATION";
        }
    }
    return NULL;
}

struct cs_sql_record *cs_sql_replication_record(struct cs_sql_build *b, struct cs_slice text)
{
    uint8_t kind;
    const char *verb = command_of(text, &kind);
    if (verb == NULL) {
        return NULL;
    }
    cs_sql_build_reset(b);
    if (kind == ALL) {
        cs_sql_build_opaque(b, "what a replication command reads and changes cannot be known");
    }
    b->parsed = true;
    b->effects = effects_of[kind];
    b->writes_unknown = kind == ALL;
    b->n_statements = b->n_kept = 1;
    b->statements[0] = (struct cs_sql_statement){
        .kind = CS_SQL_PLAIN, .effects = effects_of[kind], .verb = cs_slice_str(verb)};
    struct cs_sql_record *r = cs_sql_record_new(b, text, false);
    return r != NULL ? r : cs_sql_record_nomem();
}
