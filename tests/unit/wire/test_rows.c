/* Query results and probe's tasks: what is written reads back, anything else is refused whole. */
#include "tap.h"
#include "wire/probe_task.h"
#include "wire/rows.h"

static struct cs_buf sample(void)
{
    struct cs_buf b = cs_buf(4096);
    struct cs_rows_writer w;
    cs_rows_begin(&b);
    cs_rows_table(&w, &b, "one", 2);
    cs_rows_cell(&w, CS_SLICE_LIT("a"));
    cs_rows_cell(&w, CS_SLICE_NULL);
    cs_rows_end_row(&w);
    cs_rows_cell(&w, CS_SLICE_LIT(""));
    cs_rows_cell(&w, CS_SLICE_LIT("dd"));
    cs_rows_end_row(&w);
    cs_rows_end(&w, CS_ROWS_CUT);
    cs_rows_failed(&b, "two", CS_SLICE_LIT("42501 no"));
    return b;
}

CS_TEST(rows_read_back_as_written)
{
    struct cs_buf b = sample();
    struct cs_rows t;
    struct cs_slice cells[3];
    CS_CHECK(cs_rows_valid(cs_buf_slice(&b)));
    CS_CHECK(cs_rows_find(cs_buf_slice(&b), "one", &t));
    CS_CHECK(t.outcome == CS_ROWS_CUT && t.rows == 2 && t.columns == 2);
    CS_CHECK(cs_rows_next_row(&t, cells, 3));
    CS_EQ_SLICE(cells[0], CS_SLICE_LIT("a"));
    CS_CHECK(cells[1].p == NULL && cells[2].p == NULL);
    CS_CHECK(cs_rows_next_row(&t, cells, 1));
    CS_CHECK(cells[0].p != NULL && cells[0].n == 0);
    CS_CHECK(!cs_rows_next_row(&t, cells, 3));
    CS_CHECK(cs_rows_find(cs_buf_slice(&b), "two", &t));
    CS_CHECK(t.outcome == CS_ROWS_FAILED && t.rows == 0);
    CS_EQ_SLICE(t.why, CS_SLICE_LIT("42501 no"));
    CS_CHECK(!cs_rows_find(cs_buf_slice(&b), "three", &t));
    cs_buf_done(&b);
}

CS_TEST(rows_cut_short_anywhere_are_refused)
{
    struct cs_buf b = sample();
    struct cs_rows t;
    size_t first = 0; /* the end of the first table is a whole result too, and so is none at all */
    CS_CHECK(cs_rows_find(cs_buf_slice(&b), "one", &t));
    first = (size_t)(t.cells.end - b.p);
    for (size_t n = 0; n < b.len; n++) {
        CS_CHECK(cs_rows_valid(cs_slice(b.p, n)) == (n == 8 || n == first));
    }
    cs_buf_done(&b);
}

CS_TEST(rows_with_impossible_counts_are_refused)
{
    static const struct {
        size_t from_name; /* behind "one" */
        uint8_t value;
    } wrong[] = {{0, 3} /* outcome */, {5, 33} /* columns */, {5, 0}, {7, 3} /* rows */, {10, 1}};
    for (size_t i = 0; i < CS_ARRAY_LEN(wrong); i++) {
        struct cs_buf b = sample();
        b.p[8 + 4 + 3 + wrong[i].from_name] = wrong[i].value;
        CS_CHECK(!cs_rows_valid(cs_buf_slice(&b)));
        cs_buf_done(&b);
    }
}

CS_TEST(a_failed_table_with_rows_is_refused)
{
    struct cs_buf b = sample();
    b.p[8 + 4 + 3] = CS_ROWS_FAILED;
    CS_CHECK(!cs_rows_valid(cs_buf_slice(&b)));
    cs_buf_done(&b);
}

static struct cs_probe_task a_task(void)
{
    return (struct cs_probe_task){.target = CS_SLICE_LIT("orders"),
                                  .host = CS_SLICE_LIT("db"),
                                  .tls = CS_SLICE_LIT("verify-full"),
                                  .database = CS_SLICE_LIT("orders"),
                                  .everyday = CS_SLICE_LIT("ro"),
                                  .names = CS_SLICE_LIT("a\nb")};
}

CS_TEST(a_task_reads_back_as_written)
{
    struct cs_probe_task t = a_task(), got;
    struct cs_buf b = cs_buf(4096);
    cs_probe_task_write(&b, &t);
    CS_CHECK(cs_probe_task_read(cs_buf_slice(&b), &got));
    CS_EQ_SLICE(got.tls, t.tls);
    CS_EQ_SLICE(got.names, t.names);
    for (size_t n = 0; n < b.len; n++) {
        CS_CHECK(!cs_probe_task_read(cs_slice(b.p, n), &got));
    }
    cs_buf_u8(&b, 0);
    CS_CHECK(!cs_probe_task_read(cs_buf_slice(&b), &got));
    cs_buf_done(&b);
}

CS_TEST(a_task_with_an_unknown_tls_mode_is_refused)
{
    static const char *const modes[] = {"", "OFF", "prefer", "verify-fulL", "off "};
    for (size_t i = 0; i < CS_ARRAY_LEN(modes); i++) {
        struct cs_probe_task t = a_task(), got;
        struct cs_buf b = cs_buf(4096);
        t.tls = cs_slice_str(modes[i]);
        cs_probe_task_write(&b, &t);
        CS_CHECK(!cs_probe_task_read(cs_buf_slice(&b), &got));
        cs_buf_done(&b);
    }
}
