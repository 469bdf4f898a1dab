/* Passwords in texts: every place where the grammar has one, and where one may be in a text that it
 * does not take; what is not one stays readable. */
#include "base/limits.h"
#include "sql/sql.h"
#include "tap.h"

#include <stdio.h>

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

/* The search for words takes many bytes at a time: none may be lost where its pieces meet. */
CS_TEST(secrets_are_found_wherever_they_begin)
{
    static char text[1024];
    for (size_t before = 0; before < 300; before++) {
        for (size_t behind = 0; behind < 140; behind += 13) {
            int n = snprintf(text, sizeof text, "SELECT '");
            memset(text + n, before % 3 == 0 ? 'p' : 'x', before);
            size_t at = (size_t)n + before;
            const char *part = before % 2 == 0 ? " PassWord=hunter2 " : " password=hunter2 ";
            memcpy(text + at, part, strlen(part));
            at += strlen(part);
            memset(text + at, 'y', behind);
            at += behind;
            memcpy(text + at, "'", 2);
            CS_CHECK(strstr(shown(text, NULL), "hunter2") == NULL);
            memcpy(text + at, "", 1); /* and where the text does not even lex */
            CS_CHECK(strstr(shown(text, NULL), "hunter2") == NULL);
        }
    }
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
    {true, "SELECT dblink_connect(E'host=db \\x70assword=hunter2')", "dblink_connect('<redacted"},
    {true, "SELECT dblink_connect('a', U&'host=db \\0070assword=hunter2')", "'a'"},
    {true, "SELECT dblink_connect('host=db pass' || 'word=hunter2')", "SELECT dblink_connect("},
    {true, "SELECT * FROM dblink(format('password=%s', 'hunter2'), 'SELECT 1') AS t(a int)",
     "'SELECT 1'"},
    {true, "SELECT public.dblink_exec('host=db password=hunter2'::text, 'DELETE FROM t')",
     "host=db password=<redacted"},
    {true, "SELECT * FROM users WHERE hash = crypt('hunter2', hash)",
     "WHERE hash = crypt('<redacted"},
    {true, "SELECT crypt('hunter2', gen_salt('bf'))", "gen_salt('bf')"},
    {true, "SELECT pgp_sym_encrypt('data', 'hunter2')", "'data'"},
    {true, "SELECT ext.pgp_sym_decrypt(c, $$hunter2$$), 'x' FROM t", "'x'"},
    {true, "SELECT hmac('data', decode('hunter2', 'escape'), 'sha256')", "'sha256'"},
    {true, "SELECT set_config('app.password', 'hunter2', true)", "'app.password'"},
    {true, "CALL set_password('bob', 'hunter2')", "CALL set_password("},
    {true, "SELECT f(who => 'bob', password => 'hunter2')", "'bob'"},
    {true, "INSERT INTO users (name, password) VALUES ('bob', 'hunter2'), ('eve', E'hunter2')",
     "('bob', '<redacted"},
    {true, "INSERT INTO users (name, password) SELECT 'bob', 'hunter2' UNION SELECT 'a', 'hunter2'",
     "SELECT 'bob', '<redacted"},
    {true, "INSERT INTO users (password) VALUES (crypt('hunter2', gen_salt('bf', 8)))", ", 8)"},
    {true,
     "INSERT INTO users (name, api_key) VALUES ('bob', NULL) ON CONFLICT (name) DO UPDATE SET "
     "api_key = 'hunter2', name = 'eve'",
     "name = 'eve'"},
    {true, "UPDATE users SET password = 'hunter2' WHERE name = 'bob'", "name = 'bob'"},
    {true, "UPDATE users SET (name, password) = ('bob', 'hunter2')", "('bob', '<redacted"},
    {true, "UPDATE users SET (name, password) = (SELECT 'bob', 'hunter2')", "UPDATE users SET"},
    {true, "UPDATE users SET U&\"p\\0061ssword\" = 'hunter2'", "UPDATE users"},
    {true, "UPDATE users SET PassWord = 'a'\n'hunter2'", "UPDATE users"},
    {true, "DELETE FROM users u WHERE u.pwd = 'hunter2'::text AND name = 'bob'", "name = 'bob'"},
    {true, "SELECT 1 FROM users WHERE password IN ('a', 'hunter2') AND id = 5", "id = 5"},
    {true,
     "MERGE INTO users u USING v ON u.id = v.id WHEN NOT MATCHED THEN INSERT (id, password) "
     "VALUES (v.id, 'hunter2') WHEN MATCHED THEN UPDATE SET password = 'hunter2', n = 'bob'",
     "n = 'bob'"},
    {true, "PREPARE p AS UPDATE users SET password = 'hunter2' WHERE n = 'bob'", "n = 'bob'"},
    {true, "EXPLAIN UPDATE users SET password = 'hunter2' WHERE n = 'bob'", "n = 'bob'"},
    {true, "WITH x AS (UPDATE users SET secret = 'hunter2' RETURNING 'bob') SELECT * FROM x",
     "'bob'"},
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
    "INSERT INTO users VALUES ('a', 'b')",
    "INSERT INTO users (password, name) VALUES (DEFAULT, 'b'), (NULL, 'c')",
    "UPDATE users SET passed = 'b', name = 'c' WHERE password IS NULL",
    "UPDATE users SET password = other || name WHERE id = 'x' AND token > stamp",
    "SELECT crypto('x'), encode('a', 'hex'), set_config('search_path', 'public', false)",
    "SELECT token, secret FROM t WHERE id = 'x' ORDER BY token LIMIT 5",
    "SELECT dblink_connect('host=db user=x'), dblink('name', 'SELECT 1')",
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

/* Which parameters are secret: bit k is $k+1. */
static const struct {
    const char *text;
    uint64_t params;
} placed[] = {
    {"SELECT $1, $2", 0},
    {"UPDATE users SET password = $2, name = $1 WHERE id = $3", 2},
    {"INSERT INTO users (id, name, password, note) VALUES ($1, $2, $3, $4)", 4},
    {"INSERT INTO users (id, password) VALUES ($1, $2), ($3, $4)", 10},
    {"INSERT INTO users (password) VALUES (crypt($1, gen_salt('bf')))", 1},
    {"INSERT INTO users (name, password) SELECT $1, $2::text", 2},
    {"SELECT crypt($1, password) = password FROM users WHERE name = $2", 1},
    {"SELECT * FROM users WHERE $1 = password", 1},
    {"SELECT pgp_sym_encrypt($1, $2)", 2},
    {"SELECT dblink_connect($1)", 0}, /* its value is looked into */
    {"SELECT dblink_connect('host=db password=' || $1)", 1},
    {"SELECT set_config($1, $2, false)", 2},
    {"SELECT set_config('request.jwt', $1, false), set_config('app.secret', $2, false)", 2},
    {"SELECT f(password => $1, name => $2)", 1},
    {"PREPARE p (text, text) AS UPDATE users SET password = $1 WHERE name = $2", 1},
    {"UPDATE users SET password = $64, name = $1", UINT64_C(1) << 63},
    {"UPDATE users SET password = $1 WHERE WHERE $2", UINT64_MAX}, /* not parsed */
};

CS_TEST(secret_parameters_are_known_by_their_place)
{
    struct cs_sql *sql = NULL;
    CS_CHECK(cs_sql_new(&sql) == CS_OK);
    for (size_t i = 0; i < CS_ARRAY_LEN(placed); i++) {
        const struct cs_sql_class *c = cs_sql_classify(sql, cs_slice_str(placed[i].text));
        if (c->secret_params != placed[i].params) {
            printf("# %s: %llx\n", placed[i].text, (unsigned long long)c->secret_params);
        }
        CS_CHECK(c->secret_params == placed[i].params);
        cs_sql_release(sql, c);
    }
    cs_sql_free(sql);
}

CS_TEST(numbers_in_a_secret_place_are_taken_with_their_sign)
{
    const char *s =
        shown("UPDATE a SET secret = -4711, n = -12 WHERE pwd = 4712 AND id = 13", NULL);
    CS_CHECK(strstr(s, "4711") == NULL && strstr(s, "4712") == NULL);
    CS_CHECK(strstr(s, "n = -12") != NULL && strstr(s, "id = 13") != NULL);
}

/* A value that no place makes secret: connection strings, URIs and statements in it. */
CS_TEST(values_show_their_secret_parts)
{
    static const struct {
        const char *value;
        size_t n;
    } values[] = {
        {"", 0},
        {"plain", 0},
        {"reset your password, please", 0},
        {"http://example.com/a?b=c", 0},
        {"host=db user=bob", 0},
        {"host=db password=hunter2 user=bob", 1},
        {"password='hunter2 x'", 1},
        {"postgres://bob:hunter2@db/x", 1},
        {"postgres://db/x?user=a&password=hunter2", 1},
        {"ALTER ROLE a PASSWORD 'hunter2'", 1},
        {"ALTER ROLE a PASSWORD $$hunter2$$", 1},
        {"ALTER ROLE a PASSWORD <redacted hmac-sha256:00>", 1},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(values); i++) {
        struct cs_redact_span spans[CS_REDACT_SPANS];
        struct cs_slice v = cs_slice_str(values[i].value);
        size_t n = cs_sql_value_secrets(v, spans);
        CS_EQ_U64(n, values[i].n);
        for (size_t at = 0; n > 0 && at <= v.n; at++) { /* wherever it is cut */
            CS_CHECK(cs_sql_value_marked(cs_slice_head(v, at)) ||
                     cs_sql_value_marked(cs_slice_from(v, at)));
        }
        if (n > 0) {
            struct cs_buf out = cs_buf(4096);
            cs_redact(v, spans, n, key, &out);
            CS_CHECK(strstr(cs_buf_cstr(&out), "hunter2") == NULL);
            cs_buf_done(&out);
        }
    }
}

/* A mark that is typed is a password like any other: two texts are never one. */
CS_TEST(secrets_a_typed_mark_is_no_mark)
{
    static const char *const texts[] = {
        "ALTER ROLE a PASSWORD 'x1'",
        "ALTER SUBSCRIPTION s CONNECTION 'host=a password=x1'",
        "SELECT 1 /* password */",
        "ALTER ROLE a PASSWORD x1",
        "UPDATE users SET password = 'x1'",
        "DO $$ BEGIN EXECUTE 'ALTER ROLE a PASSWORD ''x1'''; END $$",
        "SELECT 'ALTER ROLE a PASSWORD ''x1'''",
        "DO $$ password = 'x1 $$",
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
