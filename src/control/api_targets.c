/* API calls about targets: what probe's queries found there. Called through the table in routes.c,
 * by people who may set up. What is shown was said by the target: text to look at, no more. */
#include "control/api.h"

#include "ipc/ipc.h"
#include "wire/rows.h"

static json_t *row_json(const struct cs_rows *t, const struct cs_slice *cells, struct cs_arena *a)
{
    json_t *row = json_array();
    for (uint16_t i = 0; i < t->columns; i++) {
        json_t *cell = cells[i].p == NULL ? json_null() : cs_json_text(cells[i], a);
        if (json_array_append_new(row, cell) != 0) {
            json_decref(row);
            return NULL;
        }
    }
    return row;
}

static json_t *table_json(struct cs_rows *t, struct cs_arena *a)
{
    static const char *const outcomes[] = {"failed", "cut", "complete"};
    struct cs_slice cells[CS_ROWS_COLUMNS];
    json_t *rows = json_array(), *table = json_object();
    bool ok = rows != NULL;
    while (ok && cs_rows_next_row(t, cells, CS_ROWS_COLUMNS)) {
        ok = json_array_append_new(rows, row_json(t, cells, a)) == 0;
    }
    ok = cs_json_put(table, "rows", rows) && ok &&
         cs_json_put(table, "outcome", json_string(outcomes[t->outcome])) &&
         cs_json_put(table, "why", cs_json_text(t->why, a));
    if (!ok) {
        json_decref(table);
        return NULL;
    }
    return table;
}

/* The raw answers of the queries in probe/check.def, by table. */
enum cs_err cs_api_target_answers(struct cs_api_call *call)
{
    struct cs_slice result = CS_SLICE_NULL;
    struct cs_rows t;
    char why[300];
    enum cs_err e = cs_probe_ask(call->c, call->name, CS_PROBE_CHECK, CS_SLICE_NULL, CS_SLICE_NULL,
                                 &result, why, sizeof why);
    if (e != CS_OK) {
        return cs_api_fail(call, e, "%s", why);
    }
    json_t *root = json_object(), *tables = json_object();
    bool ok = true;
    struct cs_reader at = cs_rows_begin_read(result);
    while (ok && cs_rows_next(&at, &t)) {
        char name[CS_ROWS_NAME + 1];
        memcpy(name, t.name.p, t.name.n);
        name[t.name.n] = 0;
        ok = cs_json_put(tables, name, table_json(&t, &call->arena));
    }
    ok = cs_json_put(root, "target", cs_json_text(call->name, &call->arena)) && ok;
    ok = cs_json_put(root, "tables", tables) && ok;
    cs_sealed_unmap(result);
    return cs_api_reply(call, 200, root, ok);
}
