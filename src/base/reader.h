/* A bounds-checked reader with sticky failure: read everything, test `bad` once per message.
 * After the first failure every read gives zero or the empty slice. Integers are big-endian
 * (network order) unless the name says le. */
#ifndef CS_BASE_READER_H
#define CS_BASE_READER_H

#include "base/slice.h"

struct cs_reader {
    const uint8_t *p;
    const uint8_t *end;
    bool bad;
};

static inline struct cs_reader cs_reader(struct cs_slice s)
{
    return (struct cs_reader){s.p, s.n > 0 ? s.p + s.n : s.p, false};
}

static inline size_t cs_reader_left(const struct cs_reader *r)
{
    return r->bad ? 0 : (size_t)(r->end - r->p);
}

/* True when all was read and nothing failed: what a strict parser asks at the end. */
static inline bool cs_reader_done(const struct cs_reader *r)
{
    return !r->bad && r->p == r->end;
}

uint8_t cs_reader_u8(struct cs_reader *r);
uint16_t cs_reader_u16(struct cs_reader *r);
uint32_t cs_reader_u32(struct cs_reader *r);
uint64_t cs_reader_u64(struct cs_reader *r);
uint16_t cs_reader_u16le(struct cs_reader *r);
uint32_t cs_reader_u32le(struct cs_reader *r);
uint64_t cs_reader_u64le(struct cs_reader *r);
/* The next `n` bytes, borrowed. */
struct cs_slice cs_reader_take(struct cs_reader *r, size_t n);
/* The bytes up to a NUL, which is consumed and not part of the result; fails without one. */
struct cs_slice cs_reader_cstr(struct cs_reader *r);
/* Everything that is left. */
struct cs_slice cs_reader_rest(struct cs_reader *r);
/* u32le length, then the bytes: our own messages. */
struct cs_slice cs_reader_slice(struct cs_reader *r);

#endif
