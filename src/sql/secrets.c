/* Passwords in a text, by tokens. Called by classify.c for every text that is not in the cache;
 * what it finds is replaced before the text leaves the gate (action/redact.h).
 *
 * SECURITY: in doubt it takes more. It must never make an approver read another statement than the
 * one that runs, so in a text that was parsed only constants and comments are taken, and of a
 * constant that says where something connects to, or what code does, only the part that is secret.
 * What cannot be looked into for sure is taken whole, which a reader sees. */
#include "sql/secrets.h"

#include "sql/lexer.h"
#include "sql/places.h"
#include "sql/walk.h"

enum { NESTED_MAX = 3 };

/* Waiting for a value behind a name that sounds secret. */
enum armed {
    UNARMED = 0,
    ARMED_NAME,  /* "=" or TO must come first */
    ARMED_VALUE, /* the next token is it */
};

enum mode {
    PARSED, /* the grammar took it: constants in known places */
    LOOSE,  /* it did not */
    CODE,   /* the body of a function: not parsed here */
};

struct finder {
    struct cs_slice text; /* all of it: what spans count from */
    struct cs_sql_secrets *out;
    enum mode mode;
    unsigned depth;
    bool role, subscription, set; /* statements of these kinds are in it */
    bool strings;                 /* all of them are taken */
    bool over;                    /* the whole text is taken */
    size_t found;                 /* of those that the tree knows too */
    struct cs_sql_token prev;     /* the last that is no comment */
    bool coded;                   /* a U& stood before this one */
    bool continued;               /* this constant goes on in the next line */
    bool continuing;              /* the string before was taken: this may be its next line */
    bool password;                /* LOOSE: the word has been, in this statement */
    unsigned options;             /* depth of parentheses behind OPTIONS */
    enum armed armed;
    const struct cs_sql_places *places; /* NULL: none */
    bool minus;                         /* a negative number in such a place: what comes is it */
};

/* ---- words ---- */

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 32) : c;
}

enum { BLOCK = 64 };

/* May one of these bytes be the first of a word that begins with a and b, in either case? It may
 * say yes for others. Without a branch, so that the compiler takes many bytes at a time: a constant
 * can be a megabyte. Reads one byte more than BLOCK. */
static bool may_begin(const uint8_t *p, uint8_t a, uint8_t b)
{
    uint8_t any = 0;
    for (size_t i = 0; i < BLOCK; i++) {
        any |= (uint8_t)(((p[i] | 32) == a) & ((p[i + 1] | 32) == b));
    }
    return any != 0;
}

/* The first place in [i, end) where the word stands, else end. */
static size_t find_here(struct cs_slice s, struct cs_slice word, size_t i, size_t end)
{
    for (; i < end; i++) {
        size_t k = 0;
        while (k < word.n && lower(s.p[i + k]) == word.p[k]) {
            k++;
        }
        if (k == word.n) {
            break;
        }
    }
    return i;
}

/* The word, in lower case, in any case; s.n where it is not. */
static size_t find_nocase(struct cs_slice s, struct cs_slice word)
{
    size_t i = 0;
    while (word.n <= s.n && i <= s.n - word.n) {
        if (word.n >= 2 && s.n - i > BLOCK && !may_begin(s.p + i, word.p[0] | 32, word.p[1] | 32)) {
            i += BLOCK;
            continue;
        }
        size_t end = CS_MIN(i + BLOCK, s.n - word.n + 1);
        i = find_here(s, word, i, end);
        if (i < end) {
            return i;
        }
    }
    return s.n;
}

static bool has(struct cs_slice s, const char *word)
{
    return find_nocase(s, cs_slice_str(word)) < s.n;
}

static bool mentions(struct cs_slice s)
{
    return has(s, "passw") || has(s, "<redacted hmac");
}

static bool sounds_secret(const struct cs_sql_token *t)
{
    static const char *const words[] = {"passw",  "pwd",        "secret",  "token",
                                        "apikey", "credential", "api_key", "access_key"};
    if ((t->kind != CS_SQL_TOKEN_WORD && t->kind != CS_SQL_TOKEN_NAME) ||
        cs_slice_eq_nocase(t->all, CS_SLICE_LIT("password_encryption"))) {
        return false;
    }
    bool yes = false;
    for (size_t i = 0; i < CS_ARRAY_LEN(words) && !yes; i++) {
        yes = has(t->all, words[i]);
    }
    return yes;
}

static bool is_word(const struct cs_sql_token *t, const char *word)
{
    return t->kind == CS_SQL_TOKEN_WORD && cs_slice_eq_nocase(t->all, cs_slice_str(word));
}

static bool is_char(const struct cs_sql_token *t, uint8_t c)
{
    return t->kind == CS_SQL_TOKEN_OTHER && t->all.n == 1 && t->all.p[0] == c;
}

static bool is_string(const struct cs_sql_token *t)
{
    return t->kind == CS_SQL_TOKEN_STRING || t->kind == CS_SQL_TOKEN_ESCAPED ||
           t->kind == CS_SQL_TOKEN_DOLLAR;
}

/* ---- taking ---- */

static void take_whole(struct finder *f)
{
    f->over = true;
    f->out->n = 1;
    f->out->v[0] = (struct cs_redact_span){0, UINT32_MAX, CS_REDACT_WHOLE};
}

static void take(struct finder *f, struct cs_slice s, enum cs_redact_how how)
{
    if (f->over) {
        return;
    }
    if (f->out->n == CS_REDACT_SPANS) {
        take_whole(f);
        return;
    }
    f->out->v[f->out->n++] =
        (struct cs_redact_span){(uint32_t)(s.p - f->text.p), (uint32_t)s.n, (uint8_t)how};
}

/* ---- inside a constant ---- */

/* The end of NAME=value as libpq reads it, unquoted; everything, when it is not that simple. */
static size_t value_end(struct cs_slice s, size_t at, bool simple, bool uri)
{
    size_t i = at;
    while (i < s.n && s.p[i] > ' ' && !(uri && s.p[i] == '&')) {
        i++;
    }
    return simple && s.p[at] != '\'' ? i : s.n;
}

static bool begins_constant(struct cs_slice s)
{
    static const char *const starts[] = {"'", "$", "e'", "u&", "\\'"};
    bool yes = false;
    for (size_t i = 0; i < CS_ARRAY_LEN(starts) && !yes; i++) {
        struct cs_slice start = cs_slice_str(starts[i]);
        yes = s.n >= start.n && cs_slice_eq_nocase(cs_slice_head(s, start.n), start);
    }
    return yes;
}

/* At "passw…": where a value begins behind it; s.n when that is no setting and no clause of SQL. */
static size_t value_begin(struct cs_slice s, size_t at, bool *ret_clause)
{
    while (at < s.n && (lower(s.p[at]) >= 'a' || s.p[at] == '_') && lower(s.p[at]) <= 'z') {
        at++;
    }
    while (at < s.n && s.p[at] <= ' ') {
        at++;
    }
    *ret_clause = at < s.n && s.p[at] != '=';
    if (at < s.n && s.p[at] == '=') {
        do {
            at++;
        } while (at < s.n && s.p[at] <= ' ');
        return at;
    }
    return begins_constant(cs_slice_from(s, at)) ? at : s.n;
}

/* //user:password@: from behind the colon. Everything behind "?" where its names may be coded. */
static size_t uri_take(struct finder *f, struct cs_slice s, size_t at)
{
    struct cs_slice rest = cs_slice_from(s, at);
    struct cs_slice authority = cs_slice_head(rest, cs_slice_find(rest, '/'));
    size_t colon = cs_slice_find(authority, ':'), end = authority.n;
    while (end > colon && authority.p[end - 1] != '@') {
        end--;
    }
    if (end > colon + 1) {
        take(f, cs_slice_head(cs_slice_from(authority, colon + 1), end - colon - 2),
             CS_REDACT_PART);
        at += end;
    }
    size_t query = at + cs_slice_find(cs_slice_from(s, at), '?');
    if (query < s.n && cs_slice_find(cs_slice_from(s, query), '%') < s.n - query) {
        take(f, cs_slice_from(s, query + 1), CS_REDACT_PART);
        return s.n;
    }
    return at;
}

/* The secret parts of a constant's content. True: there was one. */
static bool take_parts(struct finder *f, struct cs_slice s, bool simple)
{
    size_t before = f->out->n;
    bool uri = false;
    for (size_t i = 0; i < s.n && !f->over; i++) {
        struct cs_slice here = cs_slice_from(s, i);
        if (here.p[0] == ':' && cs_slice_starts(here, CS_SLICE_LIT("://"))) {
            uri = true;
            i = uri_take(f, s, i + 3) - 1;
            continue;
        }
        if (lower(here.p[0]) != 'p' || find_nocase(cs_slice_head(here, 5), CS_SLICE_LIT("passw"))) {
            continue;
        }
        bool clause;
        size_t at = value_begin(s, i, &clause);
        if (at < s.n) {
            size_t end = clause ? s.n : value_end(s, at, simple, uri);
            take(f, cs_slice_head(cs_slice_from(s, at), end - at), CS_REDACT_PART);
            i = end;
        }
    }
    return f->out->n > before || f->over;
}

static void run(struct finder *f, struct cs_slice text);

/* $$ … $$: code, or something like it. */
static bool take_in_code(struct finder *f, const struct cs_sql_token *t)
{
    size_t before = f->out->n;
    if (f->depth == NESTED_MAX) {
        take(f, t->body, CS_REDACT_PART);
        return true;
    }
    struct finder inner = {.text = f->text, .out = f->out, .mode = CODE, .depth = f->depth + 1};
    run(&inner, t->body);
    f->over = f->over || inner.over;
    if (f->out->n == before && !f->over) {
        return take_parts(f, t->body, true);
    }
    return true;
}

/* A constant that stands in no place where the grammar has a password. */
static bool look_inside(struct finder *f, const struct cs_sql_token *t)
{
    bool named = has(t->body, "passw");
    if (!named && !has(t->body, "://")) {
        return false;
    }
    if (t->kind == CS_SQL_TOKEN_DOLLAR) {
        return take_in_code(f, t);
    }
    bool simple = t->kind == CS_SQL_TOKEN_STRING && !f->coded && !f->continued &&
                  cs_slice_find(t->body, '\'') == t->body.n &&
                  cs_slice_find(t->body, '\\') == t->body.n;
    if (take_parts(f, t->body, simple)) {
        return true;
    }
    if (f->mode == LOOSE && named) {
        take(f, t->all, CS_REDACT_LITERAL);
        return true;
    }
    return false;
}

/* ---- token by token ---- */

/* Is this constant a password by its place? */
static bool by_place(struct finder *f)
{
    if (f->role && is_word(&f->prev, "password")) {
        f->found++;
        return true;
    }
    if (f->options > 0 && (sounds_secret(&f->prev) ||
                           /* a coded name may be any */
                           (f->prev.kind == CS_SQL_TOKEN_NAME && has(f->prev.body, "\\")))) {
        f->found++;
        return true;
    }
    return f->strings || f->armed == ARMED_VALUE || (f->mode == LOOSE && f->password);
}

/* The place of the tree that this token is, its prefix (U&, B, X, N) counted in. */
static const struct cs_sql_place *place_of(const struct finder *f, const struct cs_sql_token *t)
{
    size_t at = (size_t)(t->all.p - f->text.p);
    for (size_t i = 0; f->places != NULL && i < f->places->n; i++) {
        const struct cs_sql_place *p = &f->places->v[i];
        if (p->at <= at && at - p->at <= (p->number ? 0 : 2)) {
            return p;
        }
    }
    return NULL;
}

static void on_string(struct finder *f, const struct cs_sql_token *t)
{
    bool taken = true;
    const struct cs_sql_place *p = f->continuing ? NULL : place_of(f, t);
    f->found += p != NULL;
    if (f->continuing || (p != NULL && !p->connection) || by_place(f)) {
        take(f, t->all, CS_REDACT_LITERAL);
    } else if (p != NULL || (f->subscription && is_word(&f->prev, "connection"))) {
        f->found += p == NULL;
        if (t->kind != CS_SQL_TOKEN_STRING || f->coded || f->continued) {
            take(f, t->all, CS_REDACT_LITERAL);
        } else {
            taken = look_inside(f, t);
        }
    } else {
        taken = look_inside(f, t);
    }
    f->continuing = taken && t->kind == CS_SQL_TOKEN_STRING;
}

/* A number in the place of a secret; its sign is a token before it. */
static bool number_by_place(struct finder *f, const struct cs_sql_token *t)
{
    bool behind = f->minus;
    const struct cs_sql_place *p = t->kind == CS_SQL_TOKEN_OTHER ? place_of(f, t) : NULL;
    bool here = p != NULL && p->number;
    f->minus = here && is_char(t, '-');
    f->found += here;
    return (behind || here) && !f->minus;
}

/* A password without quotes: a mistake, or a setting's value. */
static bool bare_value(const struct finder *f, const struct cs_sql_token *t)
{
    if (f->armed != ARMED_VALUE || f->mode == CODE || sounds_secret(t)) {
        return false;
    }
    bool digit = t->kind == CS_SQL_TOKEN_OTHER && t->all.p[0] >= '0' && t->all.p[0] <= '9';
    bool name = t->kind == CS_SQL_TOKEN_NAME ||
                (t->kind == CS_SQL_TOKEN_WORD && !is_word(t, "null") && !is_word(t, "default"));
    return digit || name;
}

static void arm(struct finder *f, const struct cs_sql_token *t)
{
    bool joins = is_char(t, '=') || is_char(t, ':') || is_word(t, "to");
    if (sounds_secret(t) && (f->set || f->mode != PARSED)) {
        f->armed = f->mode == PARSED ? ARMED_NAME : ARMED_VALUE;
    } else if (joins && f->armed != UNARMED) {
        f->armed = ARMED_VALUE;
    } else if (!is_char(t, '.')) {
        f->armed = UNARMED;
    }
}

static void on_punctuation(struct finder *f, const struct cs_sql_token *t)
{
    if (is_char(t, '(') && (f->options > 0 || is_word(&f->prev, "options"))) {
        f->options++;
    } else if (is_char(t, ')') && f->options > 0) {
        f->options--;
    } else if (is_char(t, ';')) {
        f->password = false;
        f->options = 0;
    }
}

static void on_token(struct finder *f, const struct cs_sql_token *t)
{
    if (t->kind == CS_SQL_TOKEN_COMMENT) {
        if (mentions(t->all)) {
            take(f, t->all, CS_REDACT_COMMENT);
        }
        return;
    }
    bool prefix = !f->coded && t->all.n == 1 && lower(t->all.p[0]) == 'u' &&
                  t->all.p + 2 < f->text.p + f->text.n && t->all.p[1] == '&' &&
                  (t->all.p[2] == '\'' || t->all.p[2] == '"');
    if (prefix) { /* U& belongs to what follows */
        f->coded = true;
        return;
    }
    if (f->coded && is_char(t, '&')) {
        return;
    }
    if (is_string(t)) {
        on_string(f, t);
        f->armed = UNARMED;
    } else {
        f->continuing = false;
        if (number_by_place(f, t) || bare_value(f, t)) {
            take(f, t->all, CS_REDACT_LITERAL);
            f->armed = UNARMED;
        } else {
            arm(f, t);
        }
        f->password = f->password || (t->kind == CS_SQL_TOKEN_WORD && has(t->all, "passw"));
        on_punctuation(f, t);
    }
    f->coded = false;
    f->prev = *t;
}

static bool goes_on(struct cs_sql_lex x)
{
    struct cs_sql_token t;
    do {
        if (!cs_sql_lex_next(&x, &t)) {
            return false;
        }
    } while (t.kind == CS_SQL_TOKEN_COMMENT);
    return t.kind == CS_SQL_TOKEN_STRING;
}

static void run(struct finder *f, struct cs_slice text)
{
    struct cs_sql_lex x;
    struct cs_sql_token t;
    size_t seen = 0;
    cs_sql_lex_start(&x, text);
    while (!f->over && cs_sql_lex_next(&x, &t)) {
        f->continued = t.kind == CS_SQL_TOKEN_STRING && goes_on(x);
        on_token(f, &t);
        seen = (size_t)(x.p - text.p);
    }
    if (x.why == NULL || f->over) {
        return;
    }
    if (f->mode == CODE) { /* in another grammar: what is left of it */
        take(f, cs_slice_from(text, seen), CS_REDACT_PART);
    } else {
        take_whole(f);
    }
}

/* ---- the tree ---- */

static bool name_sounds_secret(const char *name)
{
    struct cs_sql_token t = {.kind = CS_SQL_TOKEN_WORD, .all = cs_slice_str(name)};
    return sounds_secret(&t);
}

static size_t secrets_among(const List *options)
{
    size_t n = 0;
    for (int i = 0; i < cs_sql_items(options); i++) {
        const DefElem *d = cs_sql_item(options, i);
        n += d->arg != NULL && name_sounds_secret(d->defname);
    }
    return n;
}

/* How many constants of this statement the finder must find. */
static size_t expected(struct finder *f, const Node *s)
{
    switch ((int)nodeTag(s)) {
    case T_CreateRoleStmt:
        f->role = true;
        return secrets_among(((const CreateRoleStmt *)(const void *)s)->options);
    case T_AlterRoleStmt:
        f->role = true;
        return secrets_among(((const AlterRoleStmt *)(const void *)s)->options);
    case T_CreateUserMappingStmt:
        return secrets_among(((const CreateUserMappingStmt *)(const void *)s)->options);
    case T_AlterUserMappingStmt:
        return secrets_among(((const AlterUserMappingStmt *)(const void *)s)->options);
    case T_CreateForeignServerStmt:
        return secrets_among(((const CreateForeignServerStmt *)(const void *)s)->options);
    case T_AlterForeignServerStmt:
        return secrets_among(((const AlterForeignServerStmt *)(const void *)s)->options);
    case T_CreateFdwStmt:
        return secrets_among(((const CreateFdwStmt *)(const void *)s)->options);
    case T_AlterFdwStmt:
        return secrets_among(((const AlterFdwStmt *)(const void *)s)->options);
    case T_CreateSubscriptionStmt:
        f->subscription = true;
        return 1;
    case T_AlterSubscriptionStmt:
        f->subscription = true;
        return ((const AlterSubscriptionStmt *)(const void *)s)->conninfo != NULL;
    case T_VariableSetStmt:
    case T_AlterRoleSetStmt:
    case T_AlterDatabaseSetStmt:
    case T_AlterSystemStmt:
        f->set = true;
        return 0;
    default:
        return 0;
    }
}

/* The statements that have secrets, by their first words, for a text that was not parsed. */
static bool begins_secret(struct cs_slice text)
{
    static const char *const words[] = {"role",   "user",    "group",        "server",
                                        "system", "mapping", "subscription", "wrapper"};
    struct cs_sql_lex x;
    struct cs_sql_token t;
    bool makes = false, yes = false;
    cs_sql_lex_start(&x, text);
    while (!yes && cs_sql_lex_next(&x, &t)) {
        makes = makes || is_word(&t, "create") || is_word(&t, "alter");
        for (size_t i = 0; makes && i < CS_ARRAY_LEN(words) && !yes; i++) {
            yes = is_word(&t, words[i]);
        }
    }
    return yes;
}

/* Words without which there is nothing to find; `tree`: by a place in the tree. */
static const struct hint {
    struct cs_slice word;
    bool text, tree;
} hints[] = {
#define HINT(word, text, tree)                                                                     \
    {                                                                                              \
        {(const uint8_t *)(word), sizeof(word) - 1}, text, tree                                    \
    }
    HINT("passw", true, true),           HINT("pwd", false, true),
    HINT("options", true, false),        HINT("://", true, false),
    HINT("secret", false, true),         HINT("set_config", false, true),
    HINT("<redacted hmac", true, false), HINT("token", false, true),
    HINT("apikey", false, true),         HINT("api_key", false, true),
    HINT("crypt", false, true),          HINT("access_key", false, true),
    HINT("credential", false, true),     HINT("hmac", false, true),
    HINT("dblink", false, true),         HINT("u&\"", false, true), /* a coded name may be any */
#undef HINT
};

/* How the words begin: by their first letter, what the second may be. */
static const char seconds[256][3] = {
    ['p'] = "aw", ['P'] = "aw", ['o'] = "p", ['O'] = "p",  [':'] = "/",  ['s'] = "e", ['S'] = "e",
    ['<'] = "r",  ['t'] = "o",  ['T'] = "o", ['a'] = "pc", ['A'] = "pc", ['c'] = "r", ['C'] = "r",
    ['h'] = "m",  ['H'] = "m",  ['d'] = "b", ['D'] = "b",  ['u'] = "&",  ['U'] = "&",
};

/* One pass, because every new text pays for it: could there be anything to find? */
static struct hint worth_a_look(struct cs_slice text)
{
    struct hint found = {.text = false};
    for (size_t i = 0; i + 1 < text.n && !(found.text && found.tree); i++) {
        const char *two = seconds[text.p[i]];
        uint8_t second = lower(text.p[i + 1]);
        if (two[0] == '\0' || (second != (uint8_t)two[0] && second != (uint8_t)two[1])) {
            continue;
        }
        struct cs_slice here = cs_slice(text.p + i, text.n - i);
        for (size_t k = 0; k < CS_ARRAY_LEN(hints); k++) {
            struct cs_slice w = hints[k].word;
            if (second == w.p[1] && here.n >= w.n && lower(here.p[2]) == w.p[2] &&
                cs_slice_eq_nocase(cs_slice(here.p, w.n), w)) {
                found.text |= hints[k].text;
                found.tree |= hints[k].tree;
            }
        }
    }
    return found;
}

static void find_loose(struct finder *f)
{
    f->mode = LOOSE;
    f->strings = begins_secret(f->text);
    if (f->strings || mentions(f->text)) {
        f->out->params = UINT64_MAX; /* nobody can say which of them */
        run(f, f->text);
    }
}

static bool has_byte(struct cs_slice s, uint8_t c)
{
    return cs_slice_find(s, c) < s.n;
}

/* SECURITY: a mark that the client typed must not look like one that stands for a secret: who has
 * seen a card could have another text run under its approval. */
static bool has_mark_outside(struct cs_slice text, const struct cs_redact_span *spans, size_t n)
{
    const struct cs_slice word = CS_SLICE_LIT("<redacted hmac");
    if (!has_byte(text, '<')) {
        return false;
    }
    for (size_t at = 0, k = 0;; at++) {
        at += find_nocase(cs_slice_from(text, at), word);
        if (at >= text.n) {
            return false;
        }
        while (k < n && (size_t)spans[k].at + spans[k].n <= at) {
            k++;
        }
        if (k == n || spans[k].at > at || spans[k].at + spans[k].n < at + word.n) {
            return true;
        }
    }
}

bool cs_sql_value_marked(struct cs_slice piece)
{
    return has_byte(piece, ':') || has_byte(piece, '=') || has_byte(piece, '\'') ||
           has_byte(piece, '$') || has_byte(piece, '<');
}

size_t cs_sql_value_secrets(struct cs_slice value,
                            struct cs_redact_span spans[static CS_REDACT_SPANS])
{
    if (value.n < sizeof "passw=x" - 1) { /* no URI with a password is shorter, either */
        return 0;
    }
    /* The marks without which there is none: most values end here. */
    bool uri = has_byte(value, ':') && has(value, "://");
    bool named = !uri &&
                 (has_byte(value, '=') || has_byte(value, '\'') || has_byte(value, '$') ||
                  has_byte(value, '<')) &&
                 mentions(value);
    if (!uri && !named) {
        return 0;
    }
    struct cs_sql_secrets found = {.n = 0};
    struct finder f = {.text = value, .out = &found, .mode = LOOSE};
    bool simple = !has_byte(value, '\'') && !has_byte(value, '\\');
    (void)take_parts(&f, value, simple);
    if (f.over || has_mark_outside(value, found.v, found.n)) {
        spans[0] = (struct cs_redact_span){0, (uint32_t)value.n, CS_REDACT_PART};
        return 1;
    }
    memcpy(spans, found.v, found.n * sizeof found.v[0]);
    return found.n;
}

/* SECURITY: the tree knows of one that was not seen (a name in a spelling that only the grammar
 * reads), or was not walked to its end: every constant is taken. */
static void take_strings(struct cs_slice text, struct cs_sql_secrets *ret)
{
    struct finder all = {.text = text, .out = ret, .strings = true};
    ret->n = 0;
    run(&all, text);
}

/* With the places that are secret by what stands around them. Apart, because a text with such a
 * word is rare and the list is large. */
static __attribute__((noinline)) void find_in_tree(struct finder *f, const List *tree, size_t need,
                                                   bool otherwise)
{
    struct cs_sql_places places;
    cs_sql_places_find(tree, name_sounds_secret, &places);
    f->places = &places;
    f->out->params = places.params;
    if (places.over) {
        take_strings(f->text, f->out);
    } else if (otherwise || places.n > 0) {
        run(f, f->text);
        if (f->found < need + places.n && !f->over) {
            take_strings(f->text, f->out);
        }
    }
    f->places = NULL;
}

static void find(struct cs_slice text, const List *tree, bool parsed, struct cs_sql_secrets *ret)
{
    struct finder f = {.text = text, .out = ret};
    size_t need = 0;
    ret->n = 0;
    ret->params = 0;
    if (!parsed) {
        find_loose(&f);
        return;
    }
    for (int i = 0; i < cs_sql_items(tree); i++) {
        const RawStmt *raw = cs_sql_item(tree, i);
        if (raw != NULL && nodeTag(raw) == T_RawStmt && raw->stmt != NULL) {
            need += expected(&f, raw->stmt);
        }
    }
    struct hint worth = worth_a_look(text);
    bool secret = need > 0 || f.role || f.subscription || f.set;
    if (worth.tree) {
        find_in_tree(&f, tree, need, secret || worth.text);
    } else if (secret || worth.text) {
        run(&f, text);
        if (f.found < need && !f.over) {
            take_strings(text, ret);
        }
    }
}

void cs_sql_secrets_find(struct cs_slice text, const List *tree, bool parsed,
                         struct cs_sql_secrets *ret)
{
    find(text, tree, parsed, ret);
    bool whole = ret->n > 0 && ret->v[0].how == CS_REDACT_WHOLE;
    if (!whole && has_mark_outside(text, ret->v, ret->n)) {
        ret->n = 1;
        ret->v[0] = (struct cs_redact_span){0, UINT32_MAX, CS_REDACT_WHOLE};
    }
}

size_t cs_sql_strings(struct cs_slice text, struct cs_redact_span spans[static CS_REDACT_SPANS])
{
    struct cs_sql_secrets all = {.n = 0};
    take_strings(text, &all);
    memcpy(spans, all.v, all.n * sizeof all.v[0]);
    return all.n;
}
