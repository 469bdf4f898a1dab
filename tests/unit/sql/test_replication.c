/* Commands of a replication connection: which texts are one, and how little is said of them. */
#include "sql/catalogue.h"
#include "sql/sql.h"
#include "tap.h"

static struct cs_sql *new_sql(void)
{
    struct cs_sql *sql = NULL;
    CS_CHECK(cs_sql_new(&sql) == CS_OK);
    return sql;
}

static const struct {
    const char *text, *verb; /* "": SQL that nobody can read */
    uint8_t effects;
} texts[] = {
    {"IDENTIFY_SYSTEM", "IDENTIFY_SYSTEM", CS_SQL_READ},
    {" \t\r\n\f\videntify_system ; ", "IDENTIFY_SYSTEM", CS_SQL_READ},
    {"READ_REPLICATION_SLOT \"a slot", "REPLICATION", CS_SQL_READ | CS_SQL_ADMIN | CS_SQL_OPAQUE},
    {"READ_REPLICATION_SLOT a", "READ_REPLICATION_SLOT", CS_SQL_READ},
    {"TIMELINE_HISTORY 3", "TIMELINE_HISTORY", CS_SQL_READ},
    {"TIMELINE_HISTORY 3 4", "REPLICATION", CS_SQL_READ | CS_SQL_ADMIN | CS_SQL_OPAQUE},
    {"IDENTIFY_SYSTEM; BASE_BACKUP", "REPLICATION", CS_SQL_READ | CS_SQL_ADMIN | CS_SQL_OPAQUE},
    {"IDENTIFY_SYSTEM/**/", "REPLICATION", CS_SQL_READ | CS_SQL_ADMIN | CS_SQL_OPAQUE},
    {"START_REPLICATION SLOT a LOGICAL 0/0", "START_REPLICATION",
     CS_SQL_READ | CS_SQL_ADMIN | CS_SQL_OPAQUE},
    {"Base_Backup(label 'x')", "BASE_BACKUP", CS_SQL_READ | CS_SQL_ADMIN | CS_SQL_OPAQUE},
    {"DROP_REPLICATION_SLOT\"x\"", "DROP_REPLICATION_SLOT",
     CS_SQL_READ | CS_SQL_ADMIN | CS_SQL_OPAQUE},
    {"SELECT 1", "SELECT", CS_SQL_READ},
    {"SHOW data_directory_mode", "SHOW", CS_SQL_SESSION},
    {"BASE_BACKUPS", "", CS_SQL_OPAQUE}, /* the server's scanner takes the longest word, too */
    {"BASE_BACKUP1", "", CS_SQL_OPAQUE},
    {"\"BASE_BACKUP\"", "", CS_SQL_OPAQUE},
    {"", "EMPTY", CS_SQL_SESSION},
};

CS_TEST(the_first_word_makes_a_replication_command)
{
    struct cs_sql *sql = new_sql();
    for (size_t i = 0; i < CS_ARRAY_LEN(texts); i++) {
        struct cs_slice text = cs_slice_str(texts[i].text);
        const struct cs_sql_class *c = cs_sql_classify_replication(sql, text);
        if (c->effects != texts[i].effects || !cs_slice_eq_str(c->verb, texts[i].verb)) {
            CS_FAIL("%s: %.*s, effects %02x", texts[i].text, CS_SLICE_FMT(c->verb), c->effects);
        }
        cs_sql_release(sql, c);
    }
    cs_sql_free(sql);
}

CS_TEST(what_a_replication_command_touches_is_unknown)
{
    struct cs_sql *sql = new_sql();
    struct cs_slice text = CS_SLICE_LIT("START_REPLICATION SLOT a LOGICAL 0/0");
    const struct cs_sql_class *c = cs_sql_classify_replication(sql, text);
    struct cs_sql_judged j;
    struct cs_facts f = {0};
    cs_sql_judge(c, NULL, false, &j);
    cs_sql_facts(sql, c, &j, text, &f);
    CS_EQ_STR(f.v[CS_FACT_SQL_VERB].u.string, "START_REPLICATION");
    for (int id = CS_FACT_SQL_READS; id <= CS_FACT_SQL_FUNCTIONS; id++) {
        CS_EQ_U64(f.v[id].state, CS_FACT_UNKNOWN);
    }
    cs_sql_release(sql, c);
    cs_sql_free(sql);
}

CS_TEST(elsewhere_the_same_text_is_a_syntax_error)
{
    struct cs_sql *sql = new_sql();
    struct cs_slice text = CS_SLICE_LIT("IDENTIFY_SYSTEM");
    for (int i = 0; i < 3; i++) { /* neither finds what the other kept */
        const struct cs_sql_class *c = cs_sql_classify(sql, text);
        CS_CHECK(!c->parsed && c->effects == CS_SQL_OPAQUE);
        cs_sql_release(sql, c);
        c = cs_sql_classify_replication(sql, text);
        CS_CHECK(c->parsed && c->effects == CS_SQL_READ);
        cs_sql_release(sql, c);
    }
    cs_sql_free(sql);
}
