/* The codec of query results (rows.h). Probe writes, control and the commands behind it read; the
 * bytes passed through a process that talks to hostile servers, so the reader checks the whole form
 * before anything is used. Must never interpret a cell. */
#include "wire/rows.h"

static const uint8_t magic[8] = {'C', 'S', 'R', 'O', 'W', 'S', 0, 1};
#define NULL_CELL UINT32_MAX

/* ---- reading ---- */

static bool skip_cells(struct cs_reader *r, uint64_t n)
{
    for (uint64_t i = 0; i < n && !r->bad; i++) {
        uint32_t len = cs_reader_u32le(r);
        if (len != NULL_CELL) {
            (void)cs_reader_take(r, len);
        }
    }
    return !r->bad;
}

/* One table; the reader stands behind it then. */
static bool read_table(struct cs_reader *r, struct cs_rows *ret)
{
    struct cs_rows t = {.name = cs_reader_slice(r)};
    uint8_t outcome = cs_reader_u8(r);
    t.why = cs_reader_slice(r);
    t.columns = cs_reader_u16le(r);
    t.rows = cs_reader_u32le(r);
    if (r->bad || outcome > CS_ROWS_COMPLETE || t.columns > CS_ROWS_COLUMNS || t.name.n == 0 ||
        t.name.n > CS_ROWS_NAME || t.why.n > CS_ROWS_WHY) {
        return false;
    }
    t.outcome = (enum cs_rows_outcome)outcome;
    /* Rows without columns would be counted for ever; a failed table has none. */
    if ((t.columns == 0 || t.outcome == CS_ROWS_FAILED) && t.rows > 0) {
        return false;
    }
    t.cells = *r;
    if (!skip_cells(r, (uint64_t)t.columns * t.rows)) {
        return false;
    }
    t.cells.end = r->p;
    *ret = t;
    return true;
}

static bool read_magic(struct cs_reader *r)
{
    return cs_slice_eq(cs_reader_take(r, sizeof magic), cs_slice(magic, sizeof magic));
}

bool cs_rows_valid(struct cs_slice in)
{
    struct cs_reader r = cs_reader(in);
    struct cs_rows t;
    bool good = read_magic(&r);
    while (good && cs_reader_left(&r) > 0) {
        good = read_table(&r, &t);
    }
    return good && cs_reader_done(&r);
}

struct cs_reader cs_rows_begin_read(struct cs_slice in)
{
    struct cs_reader r = cs_reader(in);
    r.bad = !read_magic(&r);
    return r;
}

bool cs_rows_next(struct cs_reader *at, struct cs_rows *ret)
{
    return cs_reader_left(at) > 0 && read_table(at, ret);
}

bool cs_rows_find(struct cs_slice in, const char *name, struct cs_rows *ret)
{
    struct cs_reader r = cs_rows_begin_read(in);
    struct cs_rows t;
    while (cs_rows_next(&r, &t)) {
        if (cs_slice_eq_str(t.name, name)) {
            *ret = t;
            return true;
        }
    }
    return false;
}

bool cs_rows_next_row(struct cs_rows *t, struct cs_slice *ret_cells, size_t n)
{
    if (cs_reader_left(&t->cells) == 0) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        ret_cells[i] = CS_SLICE_NULL;
    }
    for (size_t i = 0; i < t->columns; i++) {
        uint32_t len = cs_reader_u32le(&t->cells);
        struct cs_slice cell = CS_SLICE_NULL;
        if (len != NULL_CELL) {
            cell = cs_reader_take(&t->cells, len);
            cell = cell.n == 0 ? cs_slice_str("") : cell;
        }
        if (i < n) {
            ret_cells[i] = cell;
        }
    }
    return !t->cells.bad;
}

/* ---- writing ---- */

static void put_u32(struct cs_buf *out, uint32_t v)
{
    const uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    cs_buf_add(out, cs_slice(b, sizeof b));
}

static void put_slice(struct cs_buf *out, struct cs_slice s)
{
    put_u32(out, (uint32_t)s.n);
    cs_buf_add(out, s);
}

void cs_rows_begin(struct cs_buf *out)
{
    cs_buf_add(out, cs_slice(magic, sizeof magic));
}

void cs_rows_table(struct cs_rows_writer *w, struct cs_buf *out, const char *name, uint16_t columns)
{
    *w = (struct cs_rows_writer){.out = out, .columns = columns, .at_table = out->len};
    put_slice(out, cs_slice_str(name));
    w->at_outcome = out->len;
    cs_buf_u8(out, CS_ROWS_FAILED);
    put_slice(out, CS_SLICE_NULL);
    cs_buf_u8(out, (uint8_t)columns);
    cs_buf_u8(out, (uint8_t)(columns >> 8));
    w->at_counts = out->len;
    put_u32(out, 0);
}

void cs_rows_cell(struct cs_rows_writer *w, struct cs_slice cell)
{
    if (cell.p == NULL) {
        put_u32(w->out, NULL_CELL);
    } else {
        put_slice(w->out, cell);
    }
}

void cs_rows_end_row(struct cs_rows_writer *w)
{
    w->rows++;
}

void cs_rows_end(struct cs_rows_writer *w, enum cs_rows_outcome outcome)
{
    if (w->out->bad) {
        return;
    }
    w->out->p[w->at_outcome] = (uint8_t)outcome;
    for (unsigned i = 0; i < 4; i++) {
        w->out->p[w->at_counts + i] = (uint8_t)(w->rows >> (8 * i));
    }
}

void cs_rows_failed(struct cs_buf *out, const char *name, struct cs_slice why)
{
    put_slice(out, cs_slice_str(name));
    cs_buf_u8(out, CS_ROWS_FAILED);
    put_slice(out, cs_slice_head(why, CS_ROWS_WHY));
    cs_buf_u8(out, 0);
    cs_buf_u8(out, 0);
    put_u32(out, 0);
}
