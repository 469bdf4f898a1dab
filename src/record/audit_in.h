/* The leaf that a message of control's becomes. Called by audit_in.c, and apart from the recorder
 * by tests. */
#ifndef CS_RECORD_AUDIT_IN_H
#define CS_RECORD_AUDIT_IN_H

#include "ipc/ipc.h"
#include "record/leaves.h"

enum { CS_ASKS_MEM = 3 * CS_LEAF_SEALED_MAX };

/* Borrows from the message and from `mem` (given empty with CS_ASKS_MEM as its ceiling). INVALID
 * when it is no leaf that control may say; one that has the wrong keys is refused where it is
 * written. */
enum cs_err cs_asks_leaf(const struct cs_csr_to *to, const struct cs_msg_audit *m,
                         struct cs_buf *mem, struct cs_leaf *ret) CS_MUST_CHECK;

#endif
