/* The table-driven codec. */
#include "base/fields.h"

void cs_fields_encode(struct cs_writer *w, const struct cs_field *f, size_t n, const void *from)
{
    const uint8_t *base = from;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *at = base + f[i].offset;
        uint64_t u;
        struct cs_slice s;
        switch (f[i].kind) {
        case CS_FIELD_KIND_U64:
            memcpy(&u, at, sizeof u);
            cs_writer_u64le(w, u);
            break;
        case CS_FIELD_KIND_ID:
            cs_writer_bytes(w, cs_slice(at, CS_ID_BYTES));
            break;
        case CS_FIELD_KIND_SLICE:
            memcpy(&s, at, sizeof s);
            cs_writer_slice(w, s);
            break;
        }
    }
}

void cs_fields_decode(struct cs_reader *r, const struct cs_field *f, size_t n, void *ret)
{
    uint8_t *base = ret;
    for (size_t i = 0; i < n; i++) {
        uint8_t *at = base + f[i].offset;
        uint64_t u;
        struct cs_slice s;
        switch (f[i].kind) {
        case CS_FIELD_KIND_U64:
            u = cs_reader_u64le(r);
            memcpy(at, &u, sizeof u);
            break;
        case CS_FIELD_KIND_ID:
            s = cs_reader_take(r, CS_ID_BYTES);
            if (s.n == CS_ID_BYTES) {
                memcpy(at, s.p, CS_ID_BYTES);
            }
            break;
        case CS_FIELD_KIND_SLICE:
            s = cs_reader_slice(r);
            memcpy(at, &s, sizeof s);
            break;
        }
    }
}
