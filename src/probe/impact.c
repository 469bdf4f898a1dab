/* The plan of a held statement, by plain EXPLAIN: the one text in a task that is sent to a target.
 * Called by task.c, at the end of an impact task, in a transaction that is read only.
 *
 * SECURITY: EXPLAIN without ANALYZE runs nothing, but planning calls functions that say they are
 * immutable. So the text is classified here too, whatever control and the gate said of it: one
 * statement that only reads and writes data, and names nothing that is not built in. */
#include "probe/probe.h"

#include "base/limits.h"

#include <stdio.h>

enum { TEXT_MAX = CS_LIMIT_SQL_INLINE_BYTES };

struct looking {
    struct cs_sql *sql;
    struct cs_slice text;
    bool fine;
};

static void look(void *arg)
{
    struct looking *l = arg;
    const struct cs_sql_class *c = cs_sql_classify(l->sql, l->text);
    l->fine = c->parsed && c->n_statements == 1 && c->n_strangers == 0 &&
              c->statements[0].kind == CS_SQL_PLAIN &&
              (c->effects & ~(unsigned)(CS_SQL_READ | CS_SQL_WRITE)) == 0 &&
              (cs_slice_eq_str(c->verb, "UPDATE") || cs_slice_eq_str(c->verb, "DELETE") ||
               cs_slice_eq_str(c->verb, "INSERT") || cs_slice_eq_str(c->verb, "MERGE"));
    cs_sql_release(l->sql, c);
}

enum cs_err cs_probe_plan(struct cs_probe_task_run *t, struct cs_buf *out)
{
    struct looking l = {.sql = t->probe->sql, .text = t->task.text};
    if (l.text.n == 0 || l.text.n > TEXT_MAX) {
        return CS_OK;
    }
    cs_big_stack_call(look, &l);
    if (!l.fine) {
        cs_rows_failed(out, "plan", CS_SLICE_LIT("it is not explained: code might run"));
        return CS_OK;
    }
    struct cs_buf sql = cs_buf(TEXT_MAX + 64);
    cs_buf_str(&sql, "EXPLAIN ");
    cs_buf_add(&sql, l.text);
    const struct cs_probe_query q = {.name = "plan", .sql = cs_buf_cstr(&sql), .max_rows = 2};
    enum cs_err e = sql.bad ? CS_ERR_NO_MEMORY : cs_probe_query(t, &q, out);
    cs_buf_done(&sql);
    return e;
}
