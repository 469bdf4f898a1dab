/* The process's free list of stream buffers. A buffer is borrowed while bytes are in it; what the
 * list keeps is bounded, so that one busy moment does not hold memory for ever. */
#include "base/alloc.h"
#include "runtime/stream_filter.h"

enum { KEEP = 64 };

static struct {
    struct cs_iobuf *free[KEEP]; /* owned */
    size_t n;
} list;

struct cs_iobuf *cs_iobuf_take(void)
{
    if (list.n > 0) {
        return list.free[--list.n];
    }
    return cs_alloc(sizeof(struct cs_iobuf));
}

void cs_iobuf_give(struct cs_iobuf *b)
{
    if (b == NULL) {
        return;
    }
    if (list.n < KEEP) {
        list.free[list.n++] = b;
    } else {
        cs_free(b);
    }
}

void cs_iobuf_trim(void)
{
    while (list.n > 0) {
        cs_free(list.free[--list.n]);
    }
}
