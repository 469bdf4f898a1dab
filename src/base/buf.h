/* A growing buffer with a named ceiling, for cold paths. Failure is sticky: append everything,
 * test `bad` once. */
#ifndef CS_BASE_BUF_H
#define CS_BASE_BUF_H

#include "base/attr.h"
#include "base/slice.h"

struct cs_buf {
    uint8_t *p; /* owned */
    size_t len;
    size_t cap;
    size_t max;
    bool bad;
};

static inline struct cs_buf cs_buf(size_t max)
{
    return (struct cs_buf){NULL, 0, 0, max, false};
}

static inline struct cs_slice cs_buf_slice(const struct cs_buf *b)
{
    return (struct cs_slice){b->p, b->len};
}

void cs_buf_add(struct cs_buf *b, struct cs_slice s);
void cs_buf_str(struct cs_buf *b, const char *s);
void cs_buf_u8(struct cs_buf *b, uint8_t v);
void cs_buf_printf(struct cs_buf *b, const char *fmt, ...) CS_PRINTF(2, 3);
/* Room for `n` more bytes at the end; fill it and add to len. NULL on failure. */
uint8_t *cs_buf_room(struct cs_buf *b, size_t n);
/* Drops the first `n` bytes. */
void cs_buf_drop(struct cs_buf *b, size_t n);
/* A NUL behind the content (not counted), for libc borders; "" on failure. */
const char *cs_buf_cstr(struct cs_buf *b);
void cs_buf_done(struct cs_buf *b);

#endif
