/* A small hash table by gate epoch (seen.h), filled by recovery and asked by the recorder when a
 * ring arrives. Epochs are random numbers that the supervisor drew, so they are their own hash; it
 * must never loop on a full table, so it grows at one half. */
#include "record/seen.h"

#include "base/alloc.h"

static struct cs_seen_row *find(struct cs_seen_row *rows, size_t cap, uint64_t epoch)
{
    size_t i = (size_t)((epoch ^ (epoch >> 32)) & (cap - 1));
    while (rows[i].high != 0 && rows[i].epoch != epoch) {
        i = (i + 1) & (cap - 1);
    }
    return &rows[i];
}

static bool grow(struct cs_seen *s)
{
    size_t cap = s->cap == 0 ? 64 : s->cap * 2;
    struct cs_seen_row *rows = cs_alloc(cap * sizeof *rows);
    if (rows == NULL) {
        return false;
    }
    for (size_t i = 0; i < s->cap; i++) {
        if (s->rows[i].high != 0) {
            *find(rows, cap, s->rows[i].epoch) = s->rows[i];
        }
    }
    cs_free(s->rows);
    s->rows = rows;
    s->cap = cap;
    return true;
}

bool cs_seen_note(struct cs_seen *s, uint64_t epoch, uint64_t ring_seq)
{
    if (ring_seq == 0) {
        return true;
    }
    if (s->n >= s->cap / 2 && !grow(s)) {
        return false;
    }
    struct cs_seen_row *row = find(s->rows, s->cap, epoch);
    s->n += row->high == 0;
    row->epoch = epoch;
    row->high = row->high > ring_seq ? row->high : ring_seq;
    return true;
}

uint64_t cs_seen_high(const struct cs_seen *s, uint64_t epoch)
{
    return s->cap == 0 ? 0 : find(s->rows, s->cap, epoch)->high;
}

void cs_seen_done(struct cs_seen *s)
{
    cs_free(s->rows);
    *s = (struct cs_seen){NULL, 0, 0};
}
