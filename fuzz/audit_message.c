/* Fuzzing of what the recorder makes of an AUDIT message of control's: whatever is in it, what
 * comes out is a leaf of a kind that control may say, or nothing. What is written reads back. */
#include "base/alloc.h"
#include "record/audit_in.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static bool control_may(enum cs_leaf_kind kind)
{
    return kind == CS_LEAF_LOGIN || kind == CS_LEAF_VOTE || kind == CS_LEAF_CHANGE ||
           kind == CS_LEAF_RULES || kind == CS_LEAF_KEY || kind == CS_LEAF_SHRED ||
           kind == CS_LEAF_REPLAY || kind == CS_LEAF_READ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cs_csr_to to = {.n = 1,
                                        .key = {{.name = "recording/2026-11", .public = {9}}}};
    enum { HEAD = 8 }; /* type, flags, correlation: the input is the fields */
    static union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        struct cs_msg_audit audit;
    } m;
    struct cs_leaf l, back;
    enum cs_msg_type type;
    uint32_t corr = 0;
    uint8_t *copy = malloc(size + HEAD); /* exact: a read behind it is seen */
    demand(copy != NULL);
    const uint8_t head[HEAD] = {(uint8_t)CS_MSG_AUDIT, (uint8_t)(CS_MSG_AUDIT >> 8), 0, 0, 1};
    memcpy(copy, head, sizeof head);
    if (size > 0) {
        memcpy(copy + HEAD, data, size);
    }
    struct cs_buf mem = cs_buf(CS_ASKS_MEM), out = cs_buf(1 << 20);
    if (cs_msg_decode(cs_slice(copy, size + HEAD), &type, &corr, m.raw, sizeof m.raw) &&
        cs_asks_leaf(&to, &m.audit, &mem, &l) == CS_OK) {
        demand(control_may(l.kind) && cs_leaf_has(&l, CS_KEY_EVENT));
        if (cs_leaf_write(&l, &out) == CS_OK) {
            demand(cs_leaf_read(cs_buf_slice(&out), &back) && back.kind == l.kind);
        }
    }
    cs_buf_done(&mem);
    cs_buf_done(&out);
    free(copy);
    demand(cs_alloc_live() == 0);
    return 0;
}
