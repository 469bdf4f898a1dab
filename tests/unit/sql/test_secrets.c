/* Passwords in texts: every place where the grammar has one, and where one may be in a text that it
 * does not take; what is not one stays readable. */
#include "base/limits.h"
#include "sql/sql.h"
#include "tap.h"

static const uint8_t key[CS_REDACT_KEY] = {1, 2, 3};

/* What leaves the gate of `text`, NUL-terminated; the caller is done with it at the next call. */
static const char *shown(const char *text, bool *ret_parsed)
{
    static struct cs_buf out;
    struct cs_sql *sql = NULL;
    CS_CHECK(cs_sql_new(&sql) == CS_OK);
    const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice_str(text));
    cs_buf_done(&out);
    out = cs_buf(1 << 20);
    if (c->n_secrets > 0) {
        cs_redact(cs_slice_str(text), c->secrets, c->n_secrets, key, &out);
    } else {
        cs_buf_str(&out, text);
    }
    if (ret_parsed != NULL) {
        *ret_parsed = c->parsed;
    }
    cs_sql_release(sql, c);
    cs_sql_free(sql);
    return cs_buf_cstr(&out);
}

/* Everywhere "hunter2" is the password. `stays`: must be readable all the same. */
static const struct {
    bool parsed;
    const char *text, *stays;
} planted[] = {
    {true, "ALTER ROLE app PASSWORD 'hunter2'", "ALTER ROLE app PASSWORD '<redacted"},
    {true, "ALTER USER app WITH ENCRYPTED PASSWORD 'hunter2' VALID UNTIL 'infinity'", "'infinity'"},
    {true, "CREATE ROLE app LOGIN PASSWORD E'hunter\\x32' CREATEDB", "CREATEDB"},
    {true, "CREATE USER a PASSWORD E'hunter2' NOLOGIN", "NOLOGIN"},
    {true, "CREATE ROLE app PASSWORD U&'hunter2'", "CREATE ROLE app"},
    {true, "CREATE ROLE app PASSWORD U&'hunter2!0032' UESCAPE '!' LOGIN", "LOGIN"},
    {true, "CREATE ROLE app PASSWORD $$hunter2$$", "CREATE ROLE app"},
    {true, "CREATE ROLE app PASSWORD $x$hunter2$x$", "CREATE ROLE app"},
    {true, "CREATE ROLE app PASSWORD 'x'\n  'hunter2' LOGIN", "LOGIN"},
    {false, "CREATE ROLE app PASSWORD 'x'\n -- more\n  'hunter2' LOGIN", "LOGIN"},
    {true, "ALTER ROLE app PASSWORD /* the new one */ 'hunter2'", "the new one"},
    {true, "ALTER ROLE app\n-- c\nPASSWORD\n-- c\n'hunter2'", "ALTER ROLE app"},
    {true, "ALTER ROLE app /* the old password was hunter2 */ PASSWORD 'x'", "ALTER ROLE app"},
    {true, "SELECT 1 -- ALTER ROLE app PASSWORD 'hunter2'", "SELECT 1"},
    {true, "SELECT 'PASSWORD'; ALTER ROLE app PASSWORD 'hunter2'; DROP TABLE t", "DROP TABLE t"},
    {true, "BEGIN; SELECT 'a;b'; CREATE USER x PASSWORD 'a''hunter2'; COMMIT", "COMMIT"},
    {true, "CREATE USER MAPPING FOR app SERVER far OPTIONS (user 'bob', password 'hunter2')",
     "'bob'"},
    {true, "CREATE USER MAPPING FOR app SERVER far OPTIONS (\"password\" 'hunter2', user 'bob')",
     "'bob'"},
    {true, "CREATE USER MAPPING FOR app SERVER far OPTIONS (U&\"p\\0061ssword\" 'hunter2')",
     "SERVER far"},
    {true, "ALTER USER MAPPING FOR app SERVER far OPTIONS (SET password 'hunter2', ADD user 'bob')",
     "'bob'"},
    {true, "CREATE SERVER far FOREIGN DATA WRAPPER w OPTIONS (host 'db', sslpassword 'hunter2')",
     "'db'"},
    {true, "ALTER SERVER far OPTIONS (ADD secret_key 'hunter2')", "SERVER far"},
    {true, "CREATE FOREIGN TABLE t (a int) SERVER far OPTIONS (token 'hunter2', path '/x')",
     "'/x'"},
    {true,
     "CREATE SUBSCRIPTION s CONNECTION 'host=evil.example password=hunter2 port=5' PUBLICATION p",
     "host=evil.example password=<redacted"},
    {true, "CREATE SUBSCRIPTION s CONNECTION 'password = ''hunter2'' host=db' PUBLICATION p",
     "PUBLICATION p"},
    {true, "CREATE SUBSCRIPTION s CONNECTION 'password=a\\ hunter2 host=db' PUBLICATION p",
     "PUBLICATION p"},
    {true, "ALTER SUBSCRIPTION s CONNECTION 'postgresql://bob:hunter2@db.example/x'",
     "@db.example/x"},
    {true, "ALTER SUBSCRIPTION s CONNECTION 'postgresql://bob:a@hunter2@db.example/x'",
     "@db.example/x"},
    {true, "ALTER SUBSCRIPTION s CONNECTION 'postgresql://db/x?user=a&password=hunter2&port=5'",
     "&port=5"},
    {true, "ALTER SUBSCRIPTION s CONNECTION 'postgresql://db/x?%70assword=hunter2'", "//db/x?"},
    {true, "ALTER SUBSCRIPTION s CONNECTION E'host=db p\\x61ssword=hunter2'", "CONNECTION"},
    {true, "ALTER SUBSCRIPTION s CONNECTION U&'host=db p\\0061ssword=hunter2'", "CONNECTION"},
    {true, "ALTER SUBSCRIPTION s CONNECTION $$host=db password=hunter2$$", "CONNECTION"},
    {true, "ALTER SUBSCRIPTION s CONNECTION 'host=db passw'\n'ord=hunter2'", "CONNECTION"},
    {true, "ALTER ROLE app SET app.password = 'hunter2'", "ALTER ROLE app SET"},
    {true, "ALTER SYSTEM SET my.secret TO hunter2", "ALTER SYSTEM SET"},
    {true, "SET app.password TO 'hunter2'", "SET app.password"},
    {true, "ALTER SYSTEM SET primary_conninfo = 'host=db password=hunter2'", "host=db"},
    {true, "SELECT dblink_connect('host=db password=hunter2 user=x')", "user=x"},
    {true, "SELECT dblink_connect('postgres://bob:hunter2@db/x')", "@db/x"},
    {true, "DO $$ BEGIN DELETE FROM t; ALTER ROLE app PASSWORD 'hunter2'; END $$", "DELETE FROM t"},
    {true, "DO $$ BEGIN EXECUTE 'ALTER ROLE app PASSWORD ''hunter2'''; DROP TABLE t; END $$",
     "DROP TABLE t"},
    {true, "DO 'BEGIN DROP TABLE t; ALTER ROLE app PASSWORD ''hunter2''; END'", "DROP TABLE t"},
    {true, "DO $a$ BEGIN EXECUTE $b$ALTER ROLE x PASSWORD $c$hunter2$c$ $b$; END $a$", "EXECUTE"},
    {true,
     "CREATE FUNCTION f() RETURNS void AS $$ ALTER ROLE a PASSWORD E'hunter2' $$ LANGUAGE sql",
     "LANGUAGE"},
    {false, "ALTER ROLE app PASSWORD hunter2", "ALTER ROLE app PASSWORD '<redacted"},
    {false, "ALTER ROLE secret PASSWORD hunter2", "ALTER ROLE secret"},
    {false, "ALTER ROLE app PASSWORD 'hunter2' FROBNICATE", "FROBNICATE"},
    {false, "ALTER ROLE app PASWORD 'hunter2'", "ALTER ROLE app"},
    {false, "CREATE USER MAPPING FOR a SERVER b OPTIONS (user 'x', password = 'hunter2')",
     "SERVER b"},
    {false, "CREATE LOGIN x WITH PASSWORD = 'hunter2', DATABASE = y", "DATABASE = y"},
    {false, "SELEC 'password=hunter2'", "SELEC"},
    {false, "ALTER ROLE app PASSWORD 'hunter2", "redacted"},
    {false, "ALTER ROLE app PASSWORD 'x', /* password hunter2", "redacted"},
};

CS_TEST(secrets_are_replaced_wherever_they_stand)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(planted); i++) {
        bool parsed;
        const char *s = shown(planted[i].text, &parsed);
        bool ok = parsed == planted[i].parsed && strstr(s, "hunter") == NULL &&
                  strstr(s, planted[i].stays) != NULL &&
                  strstr(s, "<redacted hmac-sha256:") != NULL;
        if (!ok) {
            printf("# %zu parsed=%d %s\n#    %s\n", i, parsed, planted[i].text, s);
        }
        CS_CHECK(ok);
    }
}

static const char *const harmless[] = {
    "SELECT password FROM users WHERE name = 'x'",
    "SELECT 'reset your password please'",
    "INSERT INTO users (name, password) VALUES ('a', 'b')",
    "UPDATE users SET password = 'b'",
    "ALTER ROLE app PASSWORD NULL",
    "ALTER ROLE app VALID UNTIL 'infinity'",
    "CREATE ROLE app LOGIN",
    "SET password_encryption = 'scram-sha-256'",
    "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'db', port '5')",
    "CREATE SUBSCRIPTION s CONNECTION 'host=db user=x' PUBLICATION p",
    "SELECT 'http://example.com/a?b=c'",
    "SELECT 1 -- a comment",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SELEC 1",
};

CS_TEST(secrets_leave_other_texts_as_they_are)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(harmless); i++) {
        const char *s = shown(harmless[i], NULL);
        if (strcmp(s, harmless[i]) != 0) {
            printf("# %s\n#    %s\n", harmless[i], s);
        }
        CS_CHECK(strcmp(s, harmless[i]) == 0);
    }
}

CS_TEST(secrets_equal_are_marked_equal_and_others_are_not)
{
    char first[512];
    (void)snprintf(first, sizeof first, "%s", shown("ALTER ROLE a PASSWORD 'x1'", NULL));
    CS_CHECK(strcmp(first, shown("ALTER ROLE a PASSWORD 'x1'", NULL)) == 0);
    CS_CHECK(strcmp(first, shown("ALTER ROLE a PASSWORD 'x2'", NULL)) != 0);
    /* Exactly these bytes: the same value in another spelling is another text. */
    CS_CHECK(strcmp(first, shown("ALTER ROLE a PASSWORD E'x1'", NULL)) != 0);
}

/* A mark that is typed is a password like any other: two texts are never one. */
CS_TEST(secrets_a_typed_mark_is_no_mark)
{
    static const char *const texts[] = {
        "ALTER ROLE a PASSWORD 'x1'",
        "ALTER SUBSCRIPTION s CONNECTION 'host=a password=x1'",
        "SELECT 1 /* password */",
        "ALTER ROLE a PASSWORD x1",
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(texts); i++) {
        char once[1024];
        (void)snprintf(once, sizeof once, "%s", shown(texts[i], NULL));
        CS_CHECK(strcmp(once, shown(once, NULL)) != 0);
    }
}

CS_TEST(secrets_too_many_take_the_whole_text)
{
    static char text[CS_LIMIT_SQL_INLINE_BYTES];
    size_t n = 0;
    for (unsigned i = 0; i <= CS_REDACT_SPANS; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "ALTER ROLE a PASSWORD 'hunter2';");
    }
    const char *s = shown(text, NULL);
    CS_CHECK(strncmp(s, "<redacted", 9) == 0 && strstr(s, "hunter2") == NULL &&
             strstr(s, "ALTER") == NULL);
}

CS_TEST(secrets_in_a_text_beyond_the_grammars_bounds_are_found)
{
    static char text[CS_LIMIT_SQL_INLINE_BYTES + 4096];
    size_t n = (size_t)snprintf(text, sizeof text, "SELECT '");
    memset(text + n, 'x', CS_LIMIT_SQL_INLINE_BYTES);
    n += CS_LIMIT_SQL_INLINE_BYTES;
    (void)snprintf(text + n, sizeof text - n, "'; ALTER ROLE a PASSWORD 'hunter2'; DROP TABLE t");
    const char *s = shown(text, NULL);
    CS_CHECK(strstr(s, "hunter2") == NULL && strstr(s, "DROP TABLE t") != NULL);
}

CS_TEST(redact_refuses_spans_that_overlap_or_lie_outside)
{
    static const struct cs_redact_span bad[][2] = {
        {{0, 4, CS_REDACT_PART}, {3, 2, CS_REDACT_PART}},
        {{5, 2, CS_REDACT_PART}, {1, 2, CS_REDACT_PART}},
        {{0, 1, CS_REDACT_PART}, {8, 9, CS_REDACT_PART}},
        {{0, 1, CS_REDACT_PART}, {99, 1, CS_REDACT_PART}},
        {{0, 1, CS_REDACT_PART}, {4, 1, 77}},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        struct cs_buf out = cs_buf(4096);
        cs_redact(CS_SLICE_LIT("abcdefghij"), bad[i], 2, key, &out);
        CS_CHECK(cs_slice_starts(cs_buf_slice(&out), CS_SLICE_LIT("<redacted")));
        CS_CHECK(strstr(cs_buf_cstr(&out), "hij") == NULL);
        cs_buf_done(&out);
    }
}
