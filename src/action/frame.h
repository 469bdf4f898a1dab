/* Frames of a recording as structs (action/frames.def), encoded and decoded strictly. */
#ifndef CS_ACTION_FRAME_H
#define CS_ACTION_FRAME_H

#include "base/fields.h"

enum cs_frame_kind {
#define CS_FRAME(id, lower, number, text) CS_FRAME_##id = (number),
#include "action/frames.def"
#undef CS_FRAME
};

#define CS_FRAME(id, lower, number, text)                                                          \
    struct cs_frame_##lower {                                                                      \
        CS_FRAME_FIELDS_##id(CS_FIELD_MEMBER) uint8_t end_;                                        \
    };
#include "action/frames.def"
#undef CS_FRAME

enum { CS_FRAME_HEAD = 1 + 8 + CS_ID_BYTES, CS_FRAME_STRUCT_MAX = 256 };

struct cs_frame_head {
    enum cs_frame_kind kind;
    uint64_t wall_ms;
    struct cs_id session;
};

void cs_frame_encode(struct cs_writer *w, const struct cs_frame_head *head, const void *frame);
/* The same without the bytes of its longest slice: those are *ret, and belong at *ret_at of what is
 * written. Empty where it has none. */
void cs_frame_encode_apart(struct cs_writer *w, const struct cs_frame_head *head, const void *frame,
                           struct cs_slice *ret, size_t *ret_at);
/* `ret` is at least CS_FRAME_STRUCT_MAX bytes; slices borrow from `in`. Strict. */
bool cs_frame_decode(struct cs_slice in, struct cs_frame_head *ret_head, void *ret);
/* Just the head: what the recorder looks at. */
bool cs_frame_decode_head(struct cs_slice in, struct cs_frame_head *ret_head);
/* "action"; NULL for an unknown number. */
const char *cs_frame_name(unsigned kind);
/* The fields of a kind, for generic printing. */
const struct cs_field *cs_frame_fields(unsigned kind, size_t *ret_n);

#endif
