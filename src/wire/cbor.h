/* Deterministic CBOR (RFC 8949, section 4.2.1): shortest heads, definite lengths, and a reader that
 * takes nothing else. What is hashed and signed is written through this, so that a second
 * implementation gets the same bytes. Of maps there are only those whose keys are unsigned
 * integers: their order is that of the numbers, so that two sides cannot see it differently. */
#ifndef CS_WIRE_CBOR_H
#define CS_WIRE_CBOR_H

#include "base/reader.h"
#include "base/slice.h"
#include "base/writer.h"

enum cs_cbor_major {
    CS_CBOR_UINT = 0,
    CS_CBOR_BYTES = 2,
    CS_CBOR_TEXT = 3,
    CS_CBOR_ARRAY = 4,
    CS_CBOR_MAP = 5,
    CS_CBOR_SIMPLE = 7,
};
enum { CS_CBOR_HEAD_MAX = 9, CS_CBOR_FALSE = 20, CS_CBOR_TRUE = 21, CS_CBOR_NULL = 22 };

/* One head into out; returns its length, 1 to CS_CBOR_HEAD_MAX. For those who hash incrementally:
 * head first, then the content as it lies in memory. */
size_t cs_cbor_head(enum cs_cbor_major major, uint64_t argument,
                    uint8_t out[static CS_CBOR_HEAD_MAX]);

void cs_cbor_uint(struct cs_writer *w, uint64_t v);
void cs_cbor_bytes(struct cs_writer *w, struct cs_slice s);
/* Must be UTF-8 (anything else would be no CBOR): checked, overflow on violation. What comes from
 * outside is better written as bytes. */
void cs_cbor_text(struct cs_writer *w, struct cs_slice s);
/* The head of an array; its `n` items follow. */
void cs_cbor_array(struct cs_writer *w, uint64_t n);
/* The head of a map; `n` pairs follow, keys written with cs_cbor_uint, in ascending order. */
void cs_cbor_map(struct cs_writer *w, uint64_t n);
void cs_cbor_bool(struct cs_writer *w, bool v);
void cs_cbor_null(struct cs_writer *w);

/* Reading, with the reader's sticky failure: another type, a longer head than needed, a length past
 * the end, or text that is no UTF-8 make it bad. Slices borrow from the input. */
uint64_t cs_cbor_read_uint(struct cs_reader *r);
struct cs_slice cs_cbor_read_bytes(struct cs_reader *r);
struct cs_slice cs_cbor_read_text(struct cs_reader *r);
bool cs_cbor_read_bool(struct cs_reader *r);
/* The number of items that follow. SECURITY: at most what is left in bytes, so a loop over it ends;
 * the caller still bounds what it allocates. */
uint64_t cs_cbor_read_array(struct cs_reader *r);
/* The number of pairs that follow, at most half of what is left in bytes. */
uint64_t cs_cbor_read_map(struct cs_reader *r);
/* The next key. `next` is the least that it may be (0 at first) and is set to one more than it was:
 * a key out of order, or twice, makes the reader bad. */
uint64_t cs_cbor_read_key(struct cs_reader *r, uint64_t *next);
/* Consumes a null if that is what comes next, else leaves the reader alone. */
bool cs_cbor_read_null(struct cs_reader *r);

#endif
