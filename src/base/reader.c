/* The checked reader. Every bound is tested by subtraction, so that no length can overflow it. */
#include "base/reader.h"

struct cs_slice cs_reader_take(struct cs_reader *r, size_t n)
{
    if (r->bad || n > (size_t)(r->end - r->p)) {
        r->bad = true;
        return CS_SLICE_NULL;
    }
    struct cs_slice s = {r->p, n};
    r->p += n;
    return s;
}

uint8_t cs_reader_u8(struct cs_reader *r)
{
    struct cs_slice s = cs_reader_take(r, 1);
    return s.n == 1 ? s.p[0] : 0;
}

static uint64_t big(struct cs_reader *r, size_t n)
{
    struct cs_slice s = cs_reader_take(r, n);
    uint64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        v = (v << 8) | s.p[i];
    }
    return v;
}

static uint64_t little(struct cs_reader *r, size_t n)
{
    struct cs_slice s = cs_reader_take(r, n);
    uint64_t v = 0;
    for (size_t i = s.n; i > 0; i--) {
        v = (v << 8) | s.p[i - 1];
    }
    return v;
}

uint16_t cs_reader_u16(struct cs_reader *r)
{
    return (uint16_t)big(r, 2);
}

uint32_t cs_reader_u32(struct cs_reader *r)
{
    return (uint32_t)big(r, 4);
}

uint64_t cs_reader_u64(struct cs_reader *r)
{
    return big(r, 8);
}

uint16_t cs_reader_u16le(struct cs_reader *r)
{
    return (uint16_t)little(r, 2);
}

uint32_t cs_reader_u32le(struct cs_reader *r)
{
    return (uint32_t)little(r, 4);
}

uint64_t cs_reader_u64le(struct cs_reader *r)
{
    return little(r, 8);
}

struct cs_slice cs_reader_cstr(struct cs_reader *r)
{
    struct cs_slice left = {r->p, cs_reader_left(r)};
    size_t n = cs_slice_find(left, 0);
    if (n == left.n) {
        r->bad = true;
        return CS_SLICE_NULL;
    }
    struct cs_slice s = cs_reader_take(r, n);
    (void)cs_reader_take(r, 1);
    return s;
}

struct cs_slice cs_reader_rest(struct cs_reader *r)
{
    return cs_reader_take(r, cs_reader_left(r));
}

struct cs_slice cs_reader_slice(struct cs_reader *r)
{
    uint32_t n = cs_reader_u32le(r);
    return cs_reader_take(r, n);
}
