/* A writer into a fixed piece of memory with sticky overflow: write everything, test `overflow`
 * once at the end. Integers are big-endian unless the name says le. */
#ifndef CS_BASE_WRITER_H
#define CS_BASE_WRITER_H

#include "base/attr.h"
#include "base/slice.h"

struct cs_writer {
    uint8_t *p; /* borrowed */
    size_t cap;
    size_t len;
    bool overflow;
};

static inline struct cs_writer cs_writer(void *p, size_t cap)
{
    return (struct cs_writer){(uint8_t *)p, cap, 0, false};
}

static inline struct cs_slice cs_writer_done(const struct cs_writer *w)
{
    return (struct cs_slice){w->p, w->overflow ? 0 : w->len};
}

void cs_writer_u8(struct cs_writer *w, uint8_t v);
void cs_writer_u16(struct cs_writer *w, uint16_t v);
void cs_writer_u32(struct cs_writer *w, uint32_t v);
void cs_writer_u64(struct cs_writer *w, uint64_t v);
void cs_writer_u16le(struct cs_writer *w, uint16_t v);
void cs_writer_u32le(struct cs_writer *w, uint32_t v);
void cs_writer_u64le(struct cs_writer *w, uint64_t v);
void cs_writer_bytes(struct cs_writer *w, struct cs_slice s);
/* The bytes and a NUL. The slice must hold no NUL itself: checked, overflow on violation. */
void cs_writer_cstr(struct cs_writer *w, struct cs_slice s);
/* u32le length, then the bytes: our own messages. */
void cs_writer_slice(struct cs_writer *w, struct cs_slice s);
/* Room for `n` bytes to be filled in later; NULL on overflow. */
uint8_t *cs_writer_reserve(struct cs_writer *w, size_t n);
void cs_writer_printf(struct cs_writer *w, const char *fmt, ...) CS_PRINTF(2, 3);

#endif
