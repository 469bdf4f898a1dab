/* The codec of messages between roles: whatever decodes encodes to exactly the same bytes, slices
 * lie inside the input, and no cut-off piece of a message is a message. */
#include "base/alloc.h"
#include "ipc/channel_internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void check_slices(const struct cs_msg_row *row, const uint8_t *msg, struct cs_slice in)
{
    size_t n;
    const struct cs_field *f = row->fields(&n);
    for (size_t i = 0; i < n; i++) {
        struct cs_slice s;
        if (f[i].kind != CS_FIELD_KIND_SLICE) {
            continue;
        }
        memcpy(&s, msg + f[i].offset, sizeof s);
        must(s.n == 0 || (s.p >= in.p && s.n <= in.n && (size_t)(s.p - in.p) <= in.n - s.n));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t out[CS_LIMIT_IPC_BYTES];
    static union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        uint64_t align;
    } msg, cut_msg;
    uint8_t *copy = cs_alloc(size); /* of exactly this size */
    must(copy != NULL);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    struct cs_slice in = cs_slice(copy, size);
    enum cs_msg_type type;
    uint32_t corr;
    bool answer;
    if (cs_msg_decode_flags(in, &type, &corr, &answer, msg.raw, sizeof msg.raw)) {
        const struct cs_msg_row *row = cs_msg_row(type);
        must(row != NULL && size <= row->max_bytes && (!answer || corr != 0));
        check_slices(row, msg.raw, in);
        must(cs_msg_encode(type, corr, msg.raw, out, sizeof out) == size);
        if (answer) {
            cs_msg_set_answer(out);
        }
        must(memcmp(out, copy, size) == 0);
        if (size > CS_MSG_HEADER) {
            must(!cs_msg_decode(cs_slice(copy, size - 1), &type, &corr, cut_msg.raw,
                                sizeof cut_msg.raw));
        }
    }
    cs_free(copy);
    return 0;
}
