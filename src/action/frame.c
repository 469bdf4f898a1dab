/* Frames of a recording: their tables and codec. Called by gate (which writes them), the recorder
 * (which looks at heads only) and the replayer. It must never accept a frame with missing or
 * trailing bytes, or of a number it does not know. */
#include "action/frame.h"

#include "base/attr.h"

#include <stddef.h>

#define FIELD(kind, name) {CS_FIELD_KIND_##kind, offsetof(it, name), #name},

#define CS_FRAME(id, lower, number, text)                                                          \
    _Static_assert(sizeof(struct cs_frame_##lower) <= CS_FRAME_STRUCT_MAX,                         \
                   "room in every caller");                                                        \
    static const struct cs_field *fields_of_##lower(size_t *ret_n)                                 \
    {                                                                                              \
        typedef struct cs_frame_##lower it;                                                        \
        static const struct cs_field f[] = {CS_FRAME_FIELDS_##id(FIELD)};                          \
        *ret_n = CS_ARRAY_LEN(f);                                                                  \
        return f;                                                                                  \
    }
#include "action/frames.def"
#undef CS_FRAME

static const struct {
    const char *name;
    size_t size;
    const struct cs_field *(*fields)(size_t *ret_n);
} kinds[] = {
#define CS_FRAME(id, lower, number, text)                                                          \
    [number] = {#lower, sizeof(struct cs_frame_##lower), fields_of_##lower},
#include "action/frames.def"
#undef CS_FRAME
};

const char *cs_frame_name(unsigned kind)
{
    return kind < CS_ARRAY_LEN(kinds) ? kinds[kind].name : NULL;
}

const struct cs_field *cs_frame_fields(unsigned kind, size_t *ret_n)
{
    *ret_n = 0;
    return cs_frame_name(kind) != NULL ? kinds[kind].fields(ret_n) : NULL;
}

static const struct cs_field *encode_head(struct cs_writer *w, const struct cs_frame_head *head,
                                          size_t *ret_n)
{
    const struct cs_field *f = cs_frame_fields((unsigned)head->kind, ret_n);
    if (f == NULL) {
        w->overflow = true;
        return NULL;
    }
    cs_writer_u8(w, (uint8_t)head->kind);
    cs_writer_u64le(w, head->wall_ms);
    cs_writer_bytes(w, cs_slice(head->session.b, CS_ID_BYTES));
    return f;
}

void cs_frame_encode(struct cs_writer *w, const struct cs_frame_head *head, const void *frame)
{
    size_t n;
    const struct cs_field *f = encode_head(w, head, &n);
    if (f != NULL) {
        cs_fields_encode(w, f, n, frame);
    }
}

/* The field that stays apart; n: none. */
static size_t longest(const struct cs_field *f, size_t n, const void *frame, struct cs_slice *ret)
{
    size_t found = n;
    for (size_t i = 0; i < n; i++) {
        struct cs_slice s;
        if (f[i].kind == CS_FIELD_KIND_SLICE) {
            memcpy(&s, (const uint8_t *)frame + f[i].offset, sizeof s);
            if (s.n > ret->n && s.n <= UINT32_MAX) {
                *ret = s;
                found = i;
            }
        }
    }
    return found;
}

void cs_frame_encode_apart(struct cs_writer *w, const struct cs_frame_head *head, const void *frame,
                           struct cs_slice *ret, size_t *ret_at)
{
    size_t n;
    *ret = CS_SLICE_NULL;
    *ret_at = 0;
    const struct cs_field *f = encode_head(w, head, &n);
    if (f == NULL) {
        return;
    }
    size_t apart = longest(f, n, frame, ret);
    cs_fields_encode(w, f, apart, frame);
    if (apart < n) {
        cs_writer_u32le(w, (uint32_t)ret->n);
        *ret_at = w->len;
        cs_fields_encode(w, f + apart + 1, n - apart - 1, frame);
    }
}

static bool head_decode(struct cs_reader *r, struct cs_frame_head *ret)
{
    unsigned kind = cs_reader_u8(r);
    struct cs_frame_head h = {(enum cs_frame_kind)kind, cs_reader_u64le(r), {{0}}};
    struct cs_slice session = cs_reader_take(r, CS_ID_BYTES);
    if (r->bad || cs_frame_name(kind) == NULL) {
        return false;
    }
    memcpy(h.session.b, session.p, CS_ID_BYTES);
    *ret = h;
    return true;
}

bool cs_frame_decode_head(struct cs_slice in, struct cs_frame_head *ret_head)
{
    struct cs_reader r = cs_reader(in);
    return head_decode(&r, ret_head);
}

bool cs_frame_decode(struct cs_slice in, struct cs_frame_head *ret_head, void *ret)
{
    struct cs_reader r = cs_reader(in);
    struct cs_frame_head head;
    union {
        uint8_t bytes[CS_FRAME_STRUCT_MAX];
        uint64_t align;
    } frame = {{0}};
    size_t n;
    if (!head_decode(&r, &head)) {
        return false;
    }
    const struct cs_field *f = cs_frame_fields((unsigned)head.kind, &n);
    cs_fields_decode(&r, f, n, frame.bytes);
    if (!cs_reader_done(&r)) {
        return false;
    }
    *ret_head = head;
    memcpy(ret, frame.bytes, kinds[head.kind].size);
    return true;
}
