/* Fuzzes the frame decoder. Properties: what decodes encodes to the same bytes; a frame that
 * decodes has a head that decodes; slices lie inside the input. */
#include "action/frame.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t frame[CS_FRAME_STRUCT_MAX / 8];
    struct cs_frame_head head, again;
    bool head_ok = cs_frame_decode_head(cs_slice(data, size), &again);
    if (!cs_frame_decode(cs_slice(data, size), &head, frame)) {
        return 0;
    }
    if (!head_ok || head.kind != again.kind || head.wall_ms != again.wall_ms ||
        !cs_id_eq(&head.session, &again.session)) {
        abort();
    }
    uint8_t *out = malloc(size);
    if (out == NULL) {
        return 0;
    }
    struct cs_writer w = cs_writer(out, size);
    cs_frame_encode(&w, &head, frame);
    if (!cs_slice_eq(cs_writer_done(&w), cs_slice(data, size))) {
        abort();
    }
    free(out);
    return 0;
}
