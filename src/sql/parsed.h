/* A class record as a message: job-parser writes what it made of a text that is too long to be
 * parsed in a gate, the gate reads it.
 *
 * SECURITY: the reader takes the writer for an enemy. What it accepts is a record that the
 * classifier could have made of some text of that length; that it is the truth about this one
 * nobody can check (docs/threat-model.md, job-parser). What is not accepted is opaque. Pure. */
#ifndef CS_SQL_PARSED_H
#define CS_SQL_PARSED_H

#include "base/buf.h"
#include "sql/sql.h"

void cs_sql_class_write(struct cs_buf *out, const struct cs_sql_class *c, size_t text_n);
/* Strict. NULL when it is none, or not for a text of `text_n` bytes. One reference for the caller;
 * it borrows nothing from `in`. */
const struct cs_sql_class *cs_sql_class_read(struct cs_sql *sql, struct cs_slice in, size_t text_n);
/* The same of this text; like what cs_sql_classify() makes itself, it gets into the cache when the
 * text comes for the second time. */
const struct cs_sql_class *cs_sql_class_read_of(struct cs_sql *sql, struct cs_slice in,
                                                struct cs_slice text);

#endif
