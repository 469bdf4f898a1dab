/* libpq in pipeline mode; the steps of steps.py. What to connect to is in libpq's own environment
 * variables. */
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static PGconn *c;
static const char *table, *number;

static void fail(const char *what, const char *got)
{
    fprintf(stderr, "%s: %s\n", what, got != NULL ? got : "nothing");
    exit(1);
}

static void check(const char *what, const char *got, const char *wanted)
{
    if (got == NULL || strcmp(got, wanted) != 0) {
        fprintf(stderr, "wanted %s: ", wanted);
        fail(what, got);
    }
}

static void need(int ok)
{
    if (!ok) {
        fail("libpq", PQerrorMessage(c));
    }
}

static char *text(const char *before, const char *name, const char *behind)
{
    static char room[8][512];
    static unsigned at;
    char *b = room[at++ % 8];
    snprintf(b, sizeof room[0], "%s%s%s", before, name, behind);
    return b;
}

static void send(const char *sql, const char *param)
{
    need(PQsendQueryParams(c, sql, param != NULL ? 1 : 0, NULL, &param, NULL, NULL, 0));
}

/* The next result; the NULL that follows each is read too. */
static PGresult *next(void)
{
    PGresult *r = PQgetResult(c);
    if (r == NULL) {
        fail("a result", PQerrorMessage(c));
    }
    if (PQresultStatus(r) != PGRES_PIPELINE_SYNC && PQgetResult(c) != NULL) {
        fail("results of one query", "too many");
    }
    return r;
}

static void gives(const char *value)
{
    PGresult *r = next();
    if (PQresultStatus(r) == PGRES_COMMAND_OK) {
        check("tag", PQcmdStatus(r), value);
    } else if (PQresultStatus(r) == PGRES_TUPLES_OK) {
        check("value", PQgetvalue(r, 0, 0), value);
    } else {
        fail("result", PQresultErrorMessage(r));
    }
    PQclear(r);
}

static void fails(const char *sqlstate, const char *words)
{
    PGresult *r = next();
    if (PQresultStatus(r) != PGRES_FATAL_ERROR) {
        fail("it did not fail", PQcmdStatus(r));
    }
    check("SQLSTATE", PQresultErrorField(r, PG_DIAG_SQLSTATE), sqlstate);
    if (strstr(PQresultVerboseErrorMessage(r, PQERRORS_VERBOSE, PQSHOW_CONTEXT_ALWAYS), words) ==
        NULL) {
        fail(words, PQresultErrorMessage(r));
    }
    PQclear(r);
}

static void aborted(void)
{
    PGresult *r = next();
    if (PQresultStatus(r) != PGRES_PIPELINE_ABORTED) {
        fail("it was not skipped", PQresStatus(PQresultStatus(r)));
    }
    PQclear(r);
}

static void synced(void)
{
    PGresult *r = next();
    if (PQresultStatus(r) != PGRES_PIPELINE_SYNC) {
        fail("no end of the pipeline", PQresStatus(PQresultStatus(r)));
    }
    PQclear(r);
}

static void step_tls(void)
{
    check("TLS", PQsslAttribute(c, "protocol"), "TLSv1.3");
    for (int i = 0; i < 100; i++) {
        send("select 1", NULL);
    }
    need(PQpipelineSync(c));
    for (int i = 0; i < 100; i++) {
        gives("1");
    }
    synced();
}

static void step_prepared(void)
{
    const char *ids[2] = {"1", "2"};
    need(PQsendPrepare(c, "one", text("select note from ", table, " where id = $1"), 0, NULL));
    need(PQsendDescribePrepared(c, "one"));
    for (int i = 0; i < 2; i++) {
        need(PQsendQueryPrepared(c, "one", 1, ids + i, NULL, NULL, 0));
    }
    need(PQpipelineSync(c));
    PQclear(next());
    PQclear(next());
    gives("row");
    gives("row");
    synced();
}

static void step_transaction(void)
{
    const char *insert = "insert into scratchpad values ($1::int)";
    const char *count = "select count(*) from scratchpad where n = $1::int";
    for (int i = 0; i < 2; i++) {
        send("begin", NULL);
        send(insert, number);
        send(i == 0 ? "rollback" : "commit", NULL);
        send(count, number);
        need(PQpipelineSync(c));
        gives("BEGIN");
        gives("INSERT 0 1");
        gives(i == 0 ? "ROLLBACK" : "COMMIT");
        gives(i == 0 ? "0" : "1");
        synced();
    }
}

static void step_cancel(void)
{
    char why[256];
    PGcancel *k = PQgetCancel(c);
    send("select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000) b",
         NULL);
    send("select 2", NULL);
    need(PQpipelineSync(c));
    need(PQflush(c) == 0);
    sleep(1);
    if (!PQcancel(k, why, sizeof why)) {
        fail("cancel", why);
    }
    PQfreeCancel(k);
    fails("57014", "cancel");
    aborted();
    synced();
    send("select 1", NULL);
    need(PQpipelineSync(c));
    gives("1");
    synced();
}

static void step_hold(void)
{
    send("select 0", NULL);
    send(text("update ", table, " set note = 'by driver' where id = $1::int"), "3");
    send(text("select note from ", table, " where id = 3"), NULL);
    need(PQpipelineSync(c));
    gives("0");
    gives("UPDATE 1");
    gives("by driver");
    synced();
}

static void step_denied(void)
{
    send("begin", NULL);
    send("insert into scratchpad values ($1::int)", number);
    send(text("update ", table, " set note = 'by driver' where id = 4"), NULL);
    send("select 1", NULL);
    need(PQpipelineSync(c));
    send("select 1", NULL);
    need(PQpipelineSync(c));
    send("rollback", NULL);
    send("select count(*) from scratchpad where n = $1::int", number);
    need(PQpipelineSync(c));
    gives("BEGIN");
    gives("INSERT 0 1");
    fails("42501", "not on a Friday");
    aborted();
    synced();
    fails("25P02", "aborted");
    synced();
    gives("ROLLBACK");
    gives("0");
    synced();
}

static void update_5(void)
{
    send(text("update ", table, " set note = 'by driver' where id = 5"), NULL);
    need(PQpipelineSync(c));
}

static void step_not_yet(void)
{
    update_5();
    fails("CS001", "COUNTERSIGN held id=");
    synced();
}

static void step_again(void)
{
    update_5();
    gives("UPDATE 1");
    synced();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } steps[] = {
        {"tls", step_tls},         {"prepared", step_prepared}, {"transaction", step_transaction},
        {"cancel", step_cancel},   {"hold", step_hold},         {"denied", step_denied},
        {"not_yet", step_not_yet}, {"again", step_again}};
    table = getenv("CS_TABLE");
    number = getenv("CS_NUMBER");
    c = PQconnectdb("");
    need(PQstatus(c) == CONNECTION_OK && PQenterPipelineMode(c) && argc == 2 && table != NULL);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (strcmp(steps[i].name, argv[1]) == 0) {
            steps[i].run();
            PQfinish(c);
            return 0;
        }
    }
    fail("no such step", argv[1]);
}
