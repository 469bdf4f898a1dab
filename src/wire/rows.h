/* Results of a table of queries, as probe hands them on: named tables of text cells. Everything in
 * them comes from a server that may be hostile; a reader of this form can trust its shape and
 * nothing else.
 *
 * On the wire: magic, then for each table: its name, u8 outcome, why (slices as u32le length and
 * bytes), u16le columns, u32le rows, and the cells row by row, each u32le length (all ones: NULL)
 * and bytes. */
#ifndef CS_WIRE_ROWS_H
#define CS_WIRE_ROWS_H

#include "base/buf.h"
#include "base/reader.h"

enum { CS_ROWS_COLUMNS = 32, CS_ROWS_NAME = 64, CS_ROWS_WHY = 256 };

enum cs_rows_outcome {
    CS_ROWS_FAILED,  /* nothing of it can be used; `why` */
    CS_ROWS_CUT,     /* the first rows; there are more */
    CS_ROWS_COMPLETE /* all */
};

struct cs_rows {
    struct cs_slice name;
    enum cs_rows_outcome outcome;
    struct cs_slice why; /* of a failure: SQLSTATE or a sentence, the server's words */
    uint16_t columns;
    uint32_t rows;
    struct cs_reader cells; /* for cs_rows_next_row */
};

/* ---- reading; slices borrow ---- */
/* Checks all of it: false when it is not of this form, whole, with every cell inside. */
bool cs_rows_valid(struct cs_slice in);
/* Every table in a valid one, in order: begin_read, then next until it is false. */
struct cs_reader cs_rows_begin_read(struct cs_slice in);
bool cs_rows_next(struct cs_reader *at, struct cs_rows *ret);
/* The table of that name in a valid one; false when there is none. */
bool cs_rows_find(struct cs_slice in, const char *name, struct cs_rows *ret);
/* The next row's first n cells (NULL: p is NULL; columns that are not there too). False at the end.
 */
bool cs_rows_next_row(struct cs_rows *t, struct cs_slice *ret_cells, size_t n);

/* ---- writing ---- */
struct cs_rows_writer {
    struct cs_buf *out;
    size_t at_table, at_outcome, at_counts; /* where the present table and its fields begin */
    uint16_t columns;
    uint32_t rows;
};
void cs_rows_begin(struct cs_buf *out); /* once, before the first table */
void cs_rows_table(struct cs_rows_writer *w, struct cs_buf *out, const char *name,
                   uint16_t columns);
/* A cell; p NULL is NULL. A row is `columns` of them, then cs_rows_end_row. */
void cs_rows_cell(struct cs_rows_writer *w, struct cs_slice cell);
void cs_rows_end_row(struct cs_rows_writer *w);
/* COMPLETE or CUT, with the rows that were ended. */
void cs_rows_end(struct cs_rows_writer *w, enum cs_rows_outcome outcome);
/* A table that failed. */
void cs_rows_failed(struct cs_buf *out, const char *name, struct cs_slice why);

#endif
