/* A constant query and what a server may answer; and which texts are sent to be planned. */
#include "world.h"

#include "base/time.h"

#include <sys/socket.h>

static const struct cs_probe_query q = {.name = "t", .sql = "SELECT x", .max_rows = 2};

#define OK_HEAD                                                                                    \
    "1\0\0\0\4"                                                                                    \
    "2\0\0\0\4"
#define COLUMN                                                                                     \
    "T\0\0\0\x1a"                                                                                  \
    "\0\1"                                                                                         \
    "x\0"                                                                                          \
    "\0\0\0\0"                                                                                     \
    "\0\0"                                                                                         \
    "\0\0\0\x19"                                                                                   \
    "\xff\xff"                                                                                     \
    "\xff\xff\xff\xff"                                                                             \
    "\0\0"
#define ROW                                                                                        \
    "D\0\0\0\x0b"                                                                                  \
    "\0\1"                                                                                         \
    "\0\0\0\1"                                                                                     \
    "7"
#define NO_CELL                                                                                    \
    "D\0\0\0\x0a"                                                                                  \
    "\0\1"                                                                                         \
    "\xff\xff\xff\xff"
#define DONE                                                                                       \
    "C\0\0\0\x0d"                                                                                  \
    "SELECT 1\0"
#define MORE "s\0\0\0\4"
#define READY                                                                                      \
    "Z\0\0\0\5"                                                                                    \
    "I"
#define ERROR                                                                                      \
    "E\0\0\0\x1b"                                                                                  \
    "SERROR\0"                                                                                     \
    "C42501\0"                                                                                     \
    "Mno way\0"                                                                                    \
    "\0"
#define NOTICE                                                                                     \
    "N\0\0\0\x1c"                                                                                  \
    "SNOTICE\0"                                                                                    \
    "C00000\0"                                                                                     \
    "Mno way\0"                                                                                    \
    "\0"

struct got {
    enum cs_err err;
    enum cs_rows_outcome outcome;
    uint32_t rows;
    bool table;
};

static struct got answered(struct world *w, const char *bytes, size_t n)
{
    struct cs_buf out = cs_buf(1 << 20);
    struct cs_rows t;
    struct got g = {CS_OK, CS_ROWS_FAILED, 0, false};
    cs_rows_begin(&out);
    world_answers(w, bytes, n);
    g.err = cs_probe_query(&w->task, &q, &out);
    if (g.err == CS_OK) {
        CS_CHECK(cs_rows_valid(cs_buf_slice(&out)));
        g.table = cs_rows_find(cs_buf_slice(&out), "t", &t);
        g.outcome = g.table ? t.outcome : CS_ROWS_FAILED;
        g.rows = g.table ? t.rows : 0;
    } else {
        CS_CHECK(strstr(w->task.why, "orders") != NULL);
    }
    cs_buf_done(&out);
    return g;
}

static const char *stream_bytes;
static size_t stream_n;
static struct got result;

static void one_answer(struct world *w)
{
    result = answered(w, stream_bytes, stream_n);
}

#define ANSWER(bytes)                                                                              \
    (stream_bytes = (bytes), stream_n = sizeof(bytes) - 1, world_run(one_answer), result)

CS_TEST(rows_come_as_a_table)
{
    struct got g = ANSWER(OK_HEAD COLUMN ROW ROW DONE READY);
    CS_CHECK(g.err == CS_OK && g.outcome == CS_ROWS_COMPLETE && g.rows == 2);
    g = ANSWER(OK_HEAD COLUMN DONE READY);
    CS_CHECK(g.err == CS_OK && g.outcome == CS_ROWS_COMPLETE && g.rows == 0);
    g = ANSWER(NOTICE OK_HEAD COLUMN NO_CELL NOTICE DONE READY);
    CS_CHECK(g.err == CS_OK && g.rows == 1);
    g = ANSWER(OK_HEAD COLUMN ROW ROW ROW MORE READY); /* one more than is taken */
    CS_CHECK(g.err == CS_OK && g.outcome == CS_ROWS_CUT && g.rows == 2);
    g = ANSWER(ERROR READY DONE READY DONE READY); /* then ROLLBACK and BEGIN */
    CS_CHECK(g.err == CS_OK && g.outcome == CS_ROWS_FAILED && g.table);
    g = ANSWER(OK_HEAD COLUMN ROW ERROR READY DONE READY DONE READY); /* rows before it are gone */
    CS_CHECK(g.err == CS_OK && g.outcome == CS_ROWS_FAILED && g.rows == 0);
}

CS_TEST(an_answer_that_does_not_fit_the_question_ends_the_task)
{
#define BAD(bytes) CS_EQ_U64(ANSWER(bytes).err, CS_ERR_PROTOCOL)
    BAD(OK_HEAD ROW DONE READY);                    /* rows before columns */
    BAD(OK_HEAD COLUMN COLUMN DONE READY);          /* columns twice */
    BAD(OK_HEAD COLUMN DONE ROW READY);             /* rows behind the end */
    BAD(OK_HEAD COLUMN ROW ROW ROW ROW MORE READY); /* behind the one too many */
    BAD(OK_HEAD COLUMN ROW ROW ROW DONE READY);     /* more than were asked for, and all */
    BAD(OK_HEAD COLUMN ROW MORE READY);             /* suspended before that */
    BAD(OK_HEAD COLUMN ROW READY);                  /* without an end */
    BAD(OK_HEAD COLUMN DONE MORE READY);            /* two ends */
    BAD(OK_HEAD DONE READY);                        /* no table */
    BAD(OK_HEAD READY);
    BAD(OK_HEAD COLUMN DONE ERROR READY); /* an error behind the end */
    BAD(ERROR ERROR READY);
    BAD("E\0\0\0\x08"
        "C42\0" READY);              /* an error that is none */
    BAD("T\0\0\0\6\0\0" DONE READY); /* no column at all */
    BAD("T\0\0\0\6\xff\xff" DONE READY);
    BAD("T\0\0\0\5\0" READY);
    BAD(OK_HEAD COLUMN "D\0\0\0\6\0\0" DONE READY); /* fewer cells than columns */
    BAD(OK_HEAD COLUMN "D\0\0\0\x0f\0\2\0\0\0\1"
                       "7"
                       "\xff\xff\xff\xff" DONE READY);
    BAD(OK_HEAD COLUMN "D\0\0\0\x0b\0\1\0\0\0\2"
                       "7" DONE READY); /* a cell past the end */
    BAD(OK_HEAD COLUMN "D\0\0\0\x0b\0\1\x7f\xff\xff\xff"
                       "7" DONE READY);
    BAD(OK_HEAD COLUMN "D\0\0\0\x0b\0\1\0\0\0\0"
                       "7" DONE READY); /* bytes behind it */
    BAD("G\0\0\0\7\0\0\0" READY);       /* COPY */
    BAD("H\0\0\0\7\0\0\0" READY);
    BAD("R\0\0\0\x08\0\0\0\0" READY); /* a log-in in the middle */
    BAD("K\0\0\0\x0c\0\0\0\1\0\0\0\2" READY);
    BAD("\xff\0\0\0\4" READY);
    BAD("D\0\0\0\3" READY); /* a length that is none */
    BAD("D\0\0\0\0" READY);
    BAD("D\xff\xff\xff\xff" READY);
    BAD("S\0\0\0\x1f"
        "client_encoding\0"
        "SQL_ASCII\0"
        "\0" READY);
    BAD("S\0\0\0\x1e"
        "client_encoding\0"
        "SQL_ASCII\0" OK_HEAD COLUMN DONE READY);
    BAD("S\0\0\0\x26"
        "default_transaction_read_only\0"
        "off\0" OK_HEAD COLUMN DONE READY);
    BAD("D\x7f\xff\xff\xff");
    CS_EQ_U64(ANSWER(OK_HEAD COLUMN "D\0\1\x86\xa0").err, CS_ERR_TOO_LARGE);
}

static size_t cut;
static void cut_off(struct world *w)
{
    static const char whole[] = OK_HEAD COLUMN ROW DONE READY;
    struct cs_buf out = cs_buf(1 << 16);
    cs_rows_begin(&out);
    world_answers(w, whole, cut);
    (void)shutdown(w->server, SHUT_WR);
    enum cs_err e = cs_probe_query(&w->task, &q, &out);
    CS_CHECK(e != CS_OK && strstr(w->task.why, "connection broke") != NULL);
    cs_buf_done(&out);
}
CS_TEST(a_server_that_leaves_in_the_middle_is_no_answer)
{
    for (cut = 0; cut < sizeof(OK_HEAD COLUMN ROW DONE READY) - 1; cut++) {
        world_run(cut_off);
    }
}

static void silent(struct world *w)
{
    struct cs_buf out = cs_buf(1 << 16);
    w->task.deadline = cs_mono_ns() + 20 * CS_NS_PER_MS;
    cs_rows_begin(&out);
    CS_EQ_U64(cs_probe_query(&w->task, &q, &out), CS_ERR_TIMEOUT);
    CS_CHECK(strstr(w->task.why, "does not answer") != NULL);
    cs_buf_done(&out);
}
CS_TEST(a_server_that_says_nothing_has_the_tasks_time)
{
    world_run(silent);
}

static void asked(struct world *w)
{
    struct cs_buf out = cs_buf(1 << 16);
    cs_rows_begin(&out);
    w->task.task.everyday = CS_SLICE_LIT("o'; drop");
    w->task.task.elevated = CS_SLICE_LIT("owner");
    world_answers(w, OK_HEAD COLUMN DONE READY, sizeof(OK_HEAD COLUMN DONE READY) - 1);
    CS_EQ_U64(cs_probe_query(&w->task, &q, &out), CS_OK);
    world_heard(w);
    /* Parse with the constant text alone, then Bind with the names. */
    CS_CHECK(w->said[0] == 'P' && memcmp(w->said + 5, "\0SELECT x\0\0\3", 12) == 0);
    CS_CHECK(world_was_sent(w, "o'; drop") && world_was_sent(w, "owner"));
    cs_buf_done(&out);
}
CS_TEST(names_reach_the_server_as_parameters)
{
    world_run(asked);
}

/* ---- plans ---- */

static const char *text;
static bool sent;

static void plan(struct world *w)
{
    struct cs_buf out = cs_buf(1 << 16);
    struct cs_rows t;
    cs_rows_begin(&out);
    w->task.task.text = cs_slice_str(text);
    world_answers(w, OK_HEAD COLUMN ROW DONE READY, sizeof(OK_HEAD COLUMN ROW DONE READY) - 1);
    CS_EQ_U64(cs_probe_plan(&w->task, &out), CS_OK);
    world_heard(w);
    sent = w->n_said > 0;
    if (sent) {
        CS_CHECK(world_was_sent(w, "EXPLAIN "));
        CS_CHECK(!world_was_sent(w, "ANALYZE"));
    } else if (text[0] != 0) {
        CS_CHECK(cs_rows_find(cs_buf_slice(&out), "plan", &t) && t.outcome == CS_ROWS_FAILED);
    }
    cs_buf_done(&out);
}

static bool is_planned(const char *sql)
{
    text = sql;
    world_run(plan);
    return sent;
}

CS_TEST(only_one_changing_statement_of_built_in_names_is_planned)
{
    static const char *const good[] = {
        "delete from orders where id = 1", "update orders set note = lower(note)",
        "update orders set id = nextval('s')", /* planning calls no volatile function */
        "insert into orders select * from orders",
        "DELETE FROM public.orders WHERE id IN (SELECT id FROM old)"};
    static const char *const bad[] = {
        "",
        "select 1",
        "drop table orders",
        "analyze delete from orders",
        "(analyze) delete from orders",
        "delete from orders; drop table orders",
        "delete from orders where id = f(1)",
        "delete from orders where id = public.f(1)",
        "delete from orders where pg_read_file('/etc/passwd') = ''",
        "explain delete from orders",
        "explain analyze delete from orders",
        "with x as (delete from a returning id) select * from x",
        "delete from orders where id = 'x'::mine",
        "delete from orders where a <<>> b",
        "execute p",
        "do $$begin end$$",
        "delete from",
        "delete from orders where dblink('x', 'y') is null",
        "declare c cursor for delete from orders",
        "create table t as delete from orders returning *",
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(good); i++) {
        if (!is_planned(good[i])) {
            CS_FAIL("not planned: %s", good[i]);
        }
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        if (is_planned(bad[i])) {
            CS_FAIL("planned: %s", bad[i]);
        }
    }
}
