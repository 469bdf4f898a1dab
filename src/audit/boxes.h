/* Private values of the audit log on their way to a reader: the boxes that the leaves hold, from
 * the job that reads the log by way of supervisor and control to keeper; and back, sealed to a key
 * that the job made for this once. Nobody in between can read one. */
#ifndef CS_AUDIT_BOXES_H
#define CS_AUDIT_BOXES_H

#include "audit/leaf.h"

enum { CS_BOXES_MAX = 48 * 1024 }; /* bytes of rows in one question, or one answer */

struct cs_box_row { /* both ways */
    uint32_t tag;   /* the reader's, to find its value again */
    uint8_t kind, key;
    struct cs_slice holder; /* CS_LEAF_HOLDER_ID bytes: whom it was sealed to */
    struct cs_slice box;    /* borrowed */
};
void cs_box_row_write(struct cs_buf *out, const struct cs_box_row *row);
/* The next row off `rows`. False at the end, and when what is left is no row: then not empty. */
bool cs_box_row_next(struct cs_slice *rows, struct cs_box_row *ret);

/* Keeper's part: appends the row, sealed to the reader instead. NOT_FOUND: it is another holder's;
 * CORRUPT: it does not open. */
enum cs_err cs_box_row_pass(const uint8_t private[static CS_X25519], const struct cs_box_row *row,
                            const uint8_t reader[static CS_X25519],
                            struct cs_buf *out) CS_MUST_CHECK;
/* The reader's: appends the value. CORRUPT: it does not open, or is not what the leaf has a hash
 * of. */
enum cs_err cs_box_row_open(const uint8_t private[static CS_X25519], const struct cs_box_row *row,
                            struct cs_slice hash, struct cs_buf *out) CS_MUST_CHECK;

#endif
