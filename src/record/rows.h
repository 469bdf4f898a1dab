/* The data of a PostgreSQL session made readable: descriptions of rows, rows, COPY data, put
 * together again from the pieces in which they were recorded. For replay only; nothing is believed.
 */
#ifndef CS_RECORD_ROWS_H
#define CS_RECORD_ROWS_H

#include "record/json.h"

/* One direction of one action; zeroed at first. */
struct cs_rows {
    uint64_t n, at; /* the action; how far it was read */
    bool lost;      /* what came does not begin where the last ended, or is no message */
    struct cs_buf part;
    uint64_t skip; /* bytes of a message that is too large to be shown */
};

/* Adds "said": […] with what is complete now, of {"columns": [name…]}, {"row": [value…]},
 * {"copy": value} and {"bytes": number} for what is too large. A value is null, a string where it
 * is readable text, else {"hex": …, "bytes": number}. Where nothing can be made of it: "data". */
void cs_rows_show(struct cs_rows *r, struct cs_json *j, uint64_t n, uint64_t at,
                  struct cs_slice data);
void cs_rows_done(struct cs_rows *r);

#endif
