/* Structs described by tables of fields, and one strict codec for all of them: messages between
 * roles (ipc/messages.def) and frames of a recording (action/frames.def).
 *
 * On the wire: U64 as u64le, ID as 16 bytes, SLICE as u32le length and bytes. */
#ifndef CS_BASE_FIELDS_H
#define CS_BASE_FIELDS_H

#include "base/id.h"
#include "base/reader.h"
#include "base/writer.h"

enum cs_field_kind { CS_FIELD_KIND_U64, CS_FIELD_KIND_ID, CS_FIELD_KIND_SLICE };

struct cs_field {
    enum cs_field_kind kind;
    uint16_t offset;
    const char *name;
};

/* Members of a struct from a field list: CS_FIELDS_X(CS_FIELD_MEMBER). */
#define CS_FIELD_MEMBER_U64(name)   uint64_t name;
#define CS_FIELD_MEMBER_ID(name)    struct cs_id name;
#define CS_FIELD_MEMBER_SLICE(name) struct cs_slice name;
#define CS_FIELD_MEMBER(kind, name) CS_FIELD_MEMBER_##kind(name)

void cs_fields_encode(struct cs_writer *w, const struct cs_field *f, size_t n, const void *from);
/* Fails (the reader goes bad) on missing bytes; the caller asks cs_reader_done() for trailing ones.
 * Slices borrow from the reader's bytes. */
void cs_fields_decode(struct cs_reader *r, const struct cs_field *f, size_t n, void *ret);

#endif
