/* The classifier as a program, for the differential tests (differential.py): statements come in on
 * standard input, what the gateway would know of them goes out. The code is the gateway's own: the
 * walk, the catalogue that probe makes of a server's answers, and the judgement of the two.
 *
 * A question is a letter, u32le length, that many bytes; an answer is u32le length and bytes.
 *   Q  the queries that make a catalogue: name, NUL, text, NUL, …
 *   T  name, NUL, columns as digits: a table of answers begins (no answer)
 *   R  cells, each u32le length (all ones: NULL) and bytes: a row of it (no answer)
 *   E  the table is complete (no answer)
 *   C  makes the catalogue of the tables: "ok" or why not
 *   N  forgets it: "ok"
 *   S  a text: effects alone, effects with the catalogue, flags, statements, kinds, why, the first
 *      statement's verb, what is not built in (f, t, o and the name, by commas), by tabs
 *   D  u32le how many, the types of parameters that are declared, each u32le, a text: as S
 *   G  name, NUL, value: whether a client may set that: "1" or "0"
 * It must never be linked into a program that is installed: it believes its input. */
#include "base/alloc.h"
#include "base/time.h"
#include "probe/probe.h"
#include "sql/catalogue.h"

#include <stdio.h>
#include <stdlib.h>

enum { INPUT_MAX = 8 << 20, KINDS_SHOWN = 16, TYPES_MAX = 16 };

struct facts {
    struct cs_probe probe;
    struct cs_probe_task_run task;
    struct cs_buf answers, made;
    struct cs_rows_writer table;
    struct cs_arena arena;
    struct cs_catalogue catalogue;
    bool have; /* a catalogue */
    int status;
};

static void answer(struct cs_slice s)
{
    const uint8_t n[4] = {(uint8_t)s.n, (uint8_t)(s.n >> 8), (uint8_t)(s.n >> 16),
                          (uint8_t)(s.n >> 24)};
    (void)fwrite(n, 1, sizeof n, stdout);
    (void)fwrite(s.p, 1, s.n, stdout);
}

static void answer_str(const char *s)
{
    answer(cs_slice_str(s));
}

static void queries(void)
{
    struct cs_buf b = cs_buf(1 << 20);
    const struct cs_probe_query *q = NULL;
    size_t n = cs_probe_queries(CS_PROBE_CATALOGUE, &q);
    for (size_t i = 0; i < n; i++) {
        cs_buf_str(&b, q[i].name);
        cs_buf_u8(&b, 0);
        cs_buf_str(&b, q[i].sql);
        cs_buf_u8(&b, 0);
    }
    answer(cs_buf_slice(&b));
    cs_buf_done(&b);
}

static void begin_table(struct facts *f, struct cs_slice in)
{
    char name[CS_ROWS_NAME];
    size_t n = cs_slice_find(in, 0);
    uint64_t columns = 0;
    if (n >= sizeof name || n == in.n || !cs_slice_to_u64(cs_slice_from(in, n + 1), &columns) ||
        columns > CS_ROWS_COLUMNS) {
        exit(2);
    }
    memcpy(name, in.p, n);
    name[n] = '\0';
    if (f->answers.len == 0) {
        cs_rows_begin(&f->answers);
    }
    cs_rows_table(&f->table, &f->answers, name, (uint16_t)columns);
}

static void row(struct facts *f, struct cs_slice in)
{
    struct cs_reader r = cs_reader(in);
    while (!cs_reader_done(&r)) {
        uint32_t n = cs_reader_u32le(&r);
        cs_rows_cell(&f->table, n == UINT32_MAX ? CS_SLICE_NULL : cs_reader_take(&r, n));
        if (r.bad) {
            exit(2);
        }
    }
    cs_rows_end_row(&f->table);
}

static void forget(struct facts *f)
{
    f->have = false;
    cs_arena_reset(&f->arena);
    f->made.len = 0;
}

static void make(struct facts *f)
{
    forget(f);
    enum cs_err e = cs_probe_catalogue(&f->task, cs_buf_slice(&f->answers), &f->made);
    f->answers.len = 0;
    if (e == CS_OK) {
        e = cs_catalogue_read(cs_buf_slice(&f->made), &f->arena, &f->catalogue);
    }
    f->have = e == CS_OK;
    answer_str(e == CS_OK ? "ok" : cs_err_name(e));
}

struct deep {
    struct facts *f;
    struct cs_slice text;
    uint32_t types[TYPES_MAX];
    size_t n_types;
};

static void statement(void *arg)
{
    const struct deep *d = arg;
    const struct facts *f = d->f;
    struct cs_buf b = cs_buf(4096);
    struct cs_sql_judged j;
    const struct cs_sql_class *c = cs_sql_classify(f->probe.sql, d->text);
    cs_sql_judge(c, f->have ? &f->catalogue : NULL, f->have, &j);
    cs_sql_judge_types(d->types, d->n_types, f->have ? &f->catalogue : NULL, f->have, &j);
    cs_buf_printf(&b, "%u\t%u\t%s%s%s%s\t%u\t", (unsigned)c->effects, (unsigned)j.effects,
                  c->parsed ? "p" : "", j.unknown ? "u" : "", j.narrowed ? "n" : "",
                  c->by_strangers ? "s" : "", (unsigned)c->n_statements);
    for (uint32_t i = 0; i < c->n_kept && i < KINDS_SHOWN; i++) {
        cs_buf_printf(&b, "%s%u", i > 0 ? "," : "", (unsigned)c->statements[i].kind);
    }
    cs_buf_printf(&b, "\t%s\t%.*s\t", j.why, CS_SLICE_FMT(c->verb));
    for (size_t i = 0; i < c->n_strangers && i < KINDS_SHOWN; i++) {
        cs_buf_printf(&b, "%s%.*s", i > 0 ? "," : "", CS_SLICE_FMT(c->strangers[i]));
    }
    cs_sql_release(f->probe.sql, c);
    answer(cs_buf_slice(&b));
    cs_buf_done(&b);
}

static bool declared(struct facts *f, struct cs_slice in)
{
    struct cs_reader r = cs_reader(in);
    struct deep d = {.f = f};
    d.n_types = cs_reader_u32le(&r);
    for (size_t i = 0; i < d.n_types && i < TYPES_MAX; i++) {
        d.types[i] = cs_reader_u32le(&r);
    }
    if (r.bad || d.n_types > TYPES_MAX) {
        return false;
    }
    d.text = cs_reader_take(&r, cs_reader_left(&r));
    cs_big_stack_call(statement, &d);
    return true;
}

static void setting(struct cs_slice in)
{
    size_t n = cs_slice_find(in, 0);
    answer_str(cs_sql_guc_judge(cs_slice_head(in, n), cs_slice_from(in, n + 1)) == CS_SQL_GUC_FREE
                   ? "1"
                   : "0");
}

static bool one(struct facts *f, uint8_t letter, struct cs_slice in)
{
    struct deep d = {.f = f, .text = in};
    switch (letter) {
    case 'Q':
        queries();
        return true;
    case 'T':
        begin_table(f, in);
        return true;
    case 'R':
        row(f, in);
        return true;
    case 'E':
        cs_rows_end(&f->table, CS_ROWS_COMPLETE);
        return true;
    case 'C':
        make(f);
        return true;
    case 'N':
        forget(f);
        answer_str("ok");
        return true;
    case 'S':
        cs_big_stack_call(statement, &d);
        return true;
    case 'D':
        return declared(f, in);
    case 'G':
        setting(in);
        return true;
    default:
        return false;
    }
}

static void run(void *arg)
{
    struct facts *f = arg;
    static uint8_t input[INPUT_MAX];
    uint8_t head[5];
    f->status = 0;
    while (fread(head, 1, sizeof head, stdin) == sizeof head) {
        size_t n =
            (size_t)head[1] | (size_t)head[2] << 8 | (size_t)head[3] << 16 | (size_t)head[4] << 24;
        if (n > sizeof input || fread(input, 1, n, stdin) != n ||
            !one(f, head[0], cs_slice(input, n))) {
            f->status = 2;
            break;
        }
        (void)fflush(stdout);
    }
    cs_loop_stop(f->probe.loop);
}

int main(void)
{
    static struct facts f;
    cs_handle co;
    f.probe.loop = cs_loop_new();
    f.task.probe = &f.probe;
    f.task.task.target = CS_SLICE_LIT("scratch");
    f.answers = cs_buf(CS_LIMIT_PROBE_RESULT_BYTES);
    f.made = cs_buf(CS_LIMIT_PROBE_RESULT_BYTES);
    cs_arena_init(&f.arena, 64 * 1024, 64 * 1024 * 1024);
    if (f.probe.loop == NULL || cs_sql_new(&f.probe.sql) != CS_OK ||
        cs_co_spawn(f.probe.loop, "facts", run, &f, &co) != CS_OK) {
        return 1;
    }
    cs_loop_run(f.probe.loop);
    cs_buf_done(&f.answers);
    cs_buf_done(&f.made);
    cs_arena_done(&f.arena);
    cs_sql_free(f.probe.sql);
    cs_loop_free(f.probe.loop);
    return f.status;
}
