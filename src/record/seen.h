/* What recovery found: for each gate epoch the highest ring sequence that is in the journal. A
 * frame that is there, but was not yet marked durable in the ring when the recorder died, is not
 * written twice. */
#ifndef CS_RECORD_SEEN_H
#define CS_RECORD_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cs_seen_row {
    uint64_t epoch, high; /* high 0 = empty: ring sequences start at 1 */
};
struct cs_seen {
    struct cs_seen_row *rows; /* owned; open addressing, a power of two */
    size_t cap, n;
};

/* False when memory is out. */
bool cs_seen_note(struct cs_seen *s, uint64_t epoch, uint64_t ring_seq);
/* 0 when the epoch was not seen. */
uint64_t cs_seen_high(const struct cs_seen *s, uint64_t epoch);
void cs_seen_done(struct cs_seen *s);

#endif
