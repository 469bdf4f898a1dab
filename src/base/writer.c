/* The checked writer. */
#include "base/writer.h"

#include <endian.h>
#include <stdarg.h>
#include <stdio.h>

uint8_t *cs_writer_reserve(struct cs_writer *w, size_t n)
{
    if (w->overflow || n > w->cap - w->len) {
        w->overflow = true;
        return NULL;
    }
    uint8_t *at = w->p + w->len;
    w->len += n;
    return at;
}

void cs_writer_u8(struct cs_writer *w, uint8_t v)
{
    uint8_t *at = cs_writer_reserve(w, 1);
    if (at != NULL) {
        at[0] = v;
    }
}

static void big(struct cs_writer *w, uint64_t v, size_t n)
{
    uint8_t *at = cs_writer_reserve(w, n);
    for (size_t i = 0; at != NULL && i < n; i++) {
        at[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
    }
}

static void little(struct cs_writer *w, uint64_t v, size_t n)
{
    uint8_t *at = cs_writer_reserve(w, n);
    uint64_t le = htole64(v);
    if (at != NULL) {
        memcpy(at, &le, n);
    }
}

void cs_writer_u16(struct cs_writer *w, uint16_t v)
{
    big(w, v, 2);
}

void cs_writer_u32(struct cs_writer *w, uint32_t v)
{
    big(w, v, 4);
}

void cs_writer_u64(struct cs_writer *w, uint64_t v)
{
    big(w, v, 8);
}

void cs_writer_u16le(struct cs_writer *w, uint16_t v)
{
    little(w, v, 2);
}

void cs_writer_u32le(struct cs_writer *w, uint32_t v)
{
    little(w, v, 4);
}

void cs_writer_u64le(struct cs_writer *w, uint64_t v)
{
    little(w, v, 8);
}

void cs_writer_bytes(struct cs_writer *w, struct cs_slice s)
{
    uint8_t *at = cs_writer_reserve(w, s.n);
    if (at != NULL && s.n > 0) {
        memcpy(at, s.p, s.n);
    }
}

void cs_writer_cstr(struct cs_writer *w, struct cs_slice s)
{
    if (cs_slice_find(s, 0) != s.n) {
        w->overflow = true; /* an embedded NUL would shift every later field of the message */
        return;
    }
    cs_writer_bytes(w, s);
    cs_writer_u8(w, 0);
}

void cs_writer_slice(struct cs_writer *w, struct cs_slice s)
{
    if (s.n > UINT32_MAX) {
        w->overflow = true;
        return;
    }
    cs_writer_u32le(w, (uint32_t)s.n);
    cs_writer_bytes(w, s);
}

void cs_writer_printf(struct cs_writer *w, const char *fmt, ...)
{
    va_list ap;
    if (w->overflow) {
        return;
    }
    va_start(ap, fmt);
    int n = vsnprintf((char *)w->p + w->len, w->cap - w->len, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= w->cap - w->len) {
        w->overflow = true;
        return;
    }
    w->len += (size_t)n;
}
