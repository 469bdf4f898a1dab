/* The golden corpus: what every statement there does, and that harmless changes of the text never
 * make it look less risky. */
#include "dump.h"
#include "sql/sql.h"
#include "tap.h"

#define CORPUS CS_SOURCE_DIR "/tests/unit/sql/corpus.txt"

enum { LINE_MAX_BYTES = 8192 };

/* A case: [id] statement, then "=> effects | verb | reads | writes | functions". \n, \t, \v, \xNN
 * in the statement are escapes, \\ is a backslash. */
struct item {
    char id[16];
    char sql[LINE_MAX_BYTES];
    size_t n;
    char want[LINE_MAX_BYTES];
    int line;
};

static unsigned hex(char c)
{
    return (unsigned)(c >= 'a' ? c - 'a' + 10 : c >= 'A' ? c - 'A' + 10 : c - '0') & 15;
}

static size_t unescape(const char *from, char *to)
{
    size_t n = 0;
    for (; *from != '\0'; from++) {
        if (*from != '\\') {
            to[n++] = *from;
            continue;
        }
        from++;
        switch (*from) {
        case 'n':
            to[n++] = '\n';
            break;
        case 't':
            to[n++] = '\t';
            break;
        case 'v':
            to[n++] = '\v';
            break;
        case 'x':
            to[n++] = (char)(hex(from[1]) << 4 | hex(from[2]));
            from += 2;
            break;
        default:
            to[n++] = *from;
            break;
        }
    }
    return n;
}

static bool next_item(FILE *f, struct item *it)
{
    static char line[LINE_MAX_BYTES];
    bool have = false;
    while (fgets(line, sizeof line, f) != NULL) {
        it->line++;
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0') {
            continue;
        }
        if (strncmp(line, "=> ", 3) == 0) {
            CS_CHECK(have);
            (void)snprintf(it->want, sizeof it->want, "%s", line + 3);
            return true;
        }
        const char *sql = line;
        it->id[0] = '\0';
        if (line[0] == '[' && strchr(line, ']') != NULL) {
            size_t n = strcspn(line, "]");
            (void)snprintf(it->id, sizeof it->id, "%.*s", (int)n - 1, line + 1);
            sql = line + n + 1 + (line[n + 1] == ' ');
        }
        it->n = unescape(sql, it->sql);
        have = true;
    }
    return false;
}

static struct cs_sql *new_sql(void)
{
    struct cs_sql *sql = NULL;
    CS_CHECK(cs_sql_new(&sql) == CS_OK);
    return sql;
}

CS_TEST(corpus_is_classified_as_written)
{
    static struct item it;
    static char got[LINE_MAX_BYTES];
    struct cs_sql *sql = new_sql();
    FILE *f = fopen(CORPUS, "r");
    bool print = getenv("CORPUS_PRINT") != NULL;
    int n = 0, bad = 0;
    CS_CHECK(f != NULL);
    while (next_item(f, &it)) {
        const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice(it.sql, it.n));
        struct cs_slice is = dump_class(c, got, sizeof got);
        while (is.n > 0 && is.p[is.n - 1] == ' ') {
            is.n--;
        }
        struct cs_slice want = cs_slice_trim(cs_slice_str(it.want));
        n++;
        if (!cs_slice_eq(is, want) || print) {
            printf("# %s:%d: %.*s\n#   is     %.*s\n#   wanted %.*s\n#   why    %s\n", CORPUS,
                   it.line, (int)it.n, it.sql, CS_SLICE_FMT(is), CS_SLICE_FMT(want), c->why);
            bad += !cs_slice_eq(is, want);
        }
        cs_sql_release(sql, c);
    }
    (void)fclose(f);
    printf("# %d statements\n", n);
    CS_CHECK(n >= 250);
    CS_EQ_U64(bad, 0);
    cs_sql_free(sql);
    CS_EQ_U64(cs_alloc_live(), 0);
}

/* ---- harmless changes never lower the effects ---- */
typedef size_t rewrite_fn(const char *sql, size_t n, char *to);

static size_t with_prefix(const char *prefix, const char *sql, size_t n, char *to)
{
    size_t k = strlen(prefix);
    memcpy(to, prefix, k);
    memcpy(to + k, sql, n);
    return k + n;
}

static size_t add_comment(const char *sql, size_t n, char *to)
{
    size_t k = with_prefix("/* a /* nested */ ; DROP */ ", sql, n, to);
    memcpy(to + k, "\n-- end", 7);
    return k + 7;
}

static size_t add_space(const char *sql, size_t n, char *to)
{
    return with_prefix("\n\t\f  ", sql, n, to);
}

static size_t add_begin(const char *sql, size_t n, char *to)
{
    return with_prefix("BEGIN; SELECT 1;", sql, n, to);
}

static size_t add_explain(const char *sql, size_t n, char *to)
{
    return with_prefix("EXPLAIN (COSTS OFF, ANALYZE) ", sql, n, to);
}

static size_t add_select(const char *sql, size_t n, char *to)
{
    return with_prefix("SELECT 1; ", sql, n, to);
}

/* Upper case outside of quotes: only for texts without quotes and dollars. */
static size_t upper(const char *sql, size_t n, char *to)
{
    bool plain =
        memchr(sql, '\'', n) == NULL && memchr(sql, '"', n) == NULL && memchr(sql, '$', n) == NULL;
    for (size_t i = 0; i < n; i++) {
        to[i] = plain && sql[i] >= 'a' && sql[i] <= 'z' ? (char)(sql[i] - 32) : sql[i];
    }
    return n;
}

static void never_lowers(rewrite_fn *rewrite, uint8_t ignore)
{
    static struct item it;
    static char text[LINE_MAX_BYTES + 64];
    struct cs_sql *sql = new_sql();
    FILE *f = fopen(CORPUS, "r");
    CS_CHECK(f != NULL);
    it.line = 0;
    while (next_item(f, &it)) {
        const struct cs_sql_class *a = cs_sql_classify(sql, cs_slice(it.sql, it.n));
        const struct cs_sql_class *b =
            cs_sql_classify(sql, cs_slice(text, rewrite(it.sql, it.n, text)));
        uint8_t lost = (uint8_t)(a->effects & ~b->effects & ~ignore);
        if (lost != 0 && (b->effects & CS_SQL_OPAQUE) == 0) {
            CS_FAIL("line %d: %.*s loses effects %x", it.line, (int)it.n, it.sql, lost);
        }
        cs_sql_release(sql, a);
        cs_sql_release(sql, b);
    }
    (void)fclose(f);
    cs_sql_free(sql);
}

CS_TEST(a_comment_never_lowers_effects)
{
    never_lowers(add_comment, 0);
}

CS_TEST(white_space_never_lowers_effects)
{
    never_lowers(add_space, 0);
}

CS_TEST(letter_case_never_lowers_effects)
{
    never_lowers(upper, 0);
}

CS_TEST(a_statement_before_never_lowers_effects)
{
    never_lowers(add_begin, 0);
    never_lowers(add_select, CS_SQL_SESSION); /* of the empty text */
}

CS_TEST(explain_analyze_never_lowers_effects)
{
    never_lowers(add_explain, CS_SQL_SESSION);
}

/* Every row of the trick table has a case here, and every id here is a row there. */
CS_TEST(corpus_covers_every_row_of_the_trick_table)
{
    static struct item it;
    static char line[1024];
    FILE *rows = fopen(CS_SOURCE_DIR "/tests/bypass/sql-rows.txt", "r");
    CS_CHECK(rows != NULL);
    int n = 0;
    while (fgets(line, sizeof line, rows) != NULL) {
        if (line[0] != 'S') {
            continue;
        }
        char id[16] = "";
        (void)snprintf(id, sizeof id, "%.*s", (int)strcspn(line, " \t"), line);
        if (strstr(line, "(elsewhere)") != NULL) {
            continue; /* not a matter of the text */
        }
        bool found = false;
        FILE *f = fopen(CORPUS, "r");
        CS_CHECK(f != NULL);
        while (!found && next_item(f, &it)) {
            found = strcmp(it.id, id) == 0;
        }
        (void)fclose(f);
        if (!found) {
            CS_FAIL("no case for %s", line);
        }
        n++;
    }
    (void)fclose(rows);
    CS_CHECK(n >= 15);
}
