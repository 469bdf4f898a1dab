/* The growing buffer. */
#include "base/buf.h"

#include "base/alloc.h"

#include <stdarg.h>
#include <stdio.h>

uint8_t *cs_buf_room(struct cs_buf *b, size_t n)
{
    if (b->bad || n > b->max - b->len) {
        b->bad = true;
        return NULL;
    }
    if (n >= b->cap - b->len) { /* keeps one byte for cs_buf_cstr */
        size_t cap = b->cap > 0 ? b->cap : 256;
        while (cap <= b->len + n) {
            cap *= 2;
        }
        uint8_t *p = cs_realloc(b->p, cap);
        if (p == NULL) {
            b->bad = true;
            return NULL;
        }
        b->p = p;
        b->cap = cap;
    }
    return b->p + b->len;
}

void cs_buf_add(struct cs_buf *b, struct cs_slice s)
{
    uint8_t *at = cs_buf_room(b, s.n);
    if (at != NULL && s.n > 0) {
        memcpy(at, s.p, s.n);
        b->len += s.n;
    }
}

void cs_buf_str(struct cs_buf *b, const char *s)
{
    cs_buf_add(b, cs_slice_str(s));
}

void cs_buf_u8(struct cs_buf *b, uint8_t v)
{
    cs_buf_add(b, cs_slice(&v, 1));
}

void cs_buf_printf(struct cs_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    uint8_t *at = n >= 0 ? cs_buf_room(b, (size_t)n + 1) : NULL;
    if (at != NULL) {
        (void)vsnprintf((char *)at, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    } else {
        b->bad = true;
    }
    va_end(again);
}

void cs_buf_drop(struct cs_buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->p, b->p + n, b->len - n);
    b->len -= n;
}

const char *cs_buf_cstr(struct cs_buf *b)
{
    if (b->bad || cs_buf_room(b, 0) == NULL) {
        return "";
    }
    b->p[b->len] = 0;
    return (const char *)b->p;
}

void cs_buf_done(struct cs_buf *b)
{
    cs_free(b->p);
    *b = (struct cs_buf){NULL, 0, 0, b->max, false};
}
