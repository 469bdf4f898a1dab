/* What probe hands on: results, catalogues and tasks. What is accepted can be read to its end,
 * every cell inside the bytes; a task that is accepted is the same bytes when written again. */
#include "sql/catalogue.h"
#include "wire/probe_task.h"
#include "wire/rows.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void inside(struct cs_slice s, const uint8_t *data, size_t size)
{
    if (s.n > 0 && (s.p < data || s.p + s.n > data + size)) {
        abort();
    }
}

static void rows(const uint8_t *data, size_t size)
{
    struct cs_slice cells[CS_ROWS_COLUMNS];
    struct cs_rows t;
    if (!cs_rows_valid(cs_slice(data, size))) {
        return;
    }
    struct cs_reader at = cs_rows_begin_read(cs_slice(data, size));
    while (cs_rows_next(&at, &t)) {
        uint32_t n = 0;
        while (cs_rows_next_row(&t, cells, CS_ROWS_COLUMNS)) {
            n++;
            for (size_t i = 0; i < t.columns; i++) {
                inside(cells[i], data, size);
            }
        }
        if (n != t.rows) {
            abort();
        }
    }
    if (!cs_reader_done(&at)) {
        abort();
    }
}

/* What is accepted is the same bytes when written again, and every entry of it is found. */
static void catalogue(const uint8_t *data, size_t size)
{
    struct cs_arena a;
    struct cs_catalogue c;
    cs_arena_init(&a, 4096, 64 * 1024 * 1024);
    if (cs_catalogue_read(cs_slice(data, size), &a, &c) == CS_OK) {
        struct cs_buf out = cs_buf(64 * 1024 * 1024);
        cs_catalogue_write(&out, &c);
        if (out.bad || !cs_slice_eq(cs_buf_slice(&out), cs_slice(data, size))) {
            abort();
        }
        for (size_t i = 0; i < c.n; i++) {
            const struct cs_catalogue_entry *e = &c.entries[i];
            inside(e->schema, data, size);
            inside(e->name, data, size);
            if (cs_catalogue_find(&c, (enum cs_catalogue_kind)e->kind, e->schema, e->name) != e) {
                abort();
            }
        }
        cs_buf_done(&out);
    }
    cs_arena_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_probe_task t;
    rows(data, size);
    catalogue(data, size);
    if (cs_probe_task_read(cs_slice(data, size), &t)) {
        struct cs_buf out = cs_buf(CS_PROBE_TASK_MAX + 256);
        cs_probe_task_write(&out, &t);
        if (out.bad || !cs_slice_eq(cs_buf_slice(&out), cs_slice(data, size))) {
            abort();
        }
        cs_buf_done(&out);
    }
    return 0;
}
