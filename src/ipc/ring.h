/* The ring from one gate to the recorder: shared memory of fixed, sealed size. One writer (gate),
 * one reader (recorder). The recorder believes no index: every one is checked, and a ring that lies
 * is abandoned and its gate reported. It outlives both (the supervisor holds it): a new recorder
 * goes on from the last durable position.
 *
 * Records are numbered from 1; `durable` is the number of the last record that is on disk. */
#ifndef CS_IPC_RING_H
#define CS_IPC_RING_H

#include "base/err.h"
#include "base/slice.h"
#include "runtime/loop.h"

struct cs_ring_shared; /* the layout in shared memory, ring.c */

struct cs_ring {
    struct cs_ring_shared *shm; /* mapped */
    size_t size;
    uint64_t head, tail;  /* private copies: bytes written / read */
    uint64_t seq;         /* number of the last record written / read */
    uint64_t settled;     /* reader: the last number that set_durable published */
    struct cs_fd kick;    /* reader waits: empty → not empty */
    struct cs_fd durable; /* writer waits: durable_seq moved, room was made, or health changed */
    bool broken;
};

enum cs_record_health { CS_RECORD_HEALTHY, CS_RECORD_STOPPED }; /* STOPPED: no action may run */

/* Makes memory and the two eventfds (supervisor). fds: memfd, kick, durable. */
enum cs_err cs_ring_make(size_t bytes, int ret_fds[static 3]) CS_MUST_CHECK;
/* Takes over the descriptors, also on failure. `writer` says which side this is. A writer gets a
 * fresh ring (CS_ERR_CONFLICT otherwise); a reader goes on behind the last durable record, and sees
 * again those that its predecessor had read but not published. *ret must not move while open. */
enum cs_err cs_ring_open(struct cs_loop *loop, const int fds[static 3], bool writer,
                         struct cs_ring *ret) CS_MUST_CHECK;
void cs_ring_close(struct cs_ring *r);
/* What the recorder last said in the ring of this memfd, for who holds it without using it. */
enum cs_record_health cs_ring_peek_health(int memfd);
/* How far it is written and how far it is in its files, in bytes since its beginning, for the same.
 * Not believed: a gate may write anything there. False when it cannot be looked at. */
bool cs_ring_peek(int memfd, uint64_t *ret_written, uint64_t *ret_durable);

/* ---- writer ---- */
/* Appends one record of up to three pieces; ret_seq is its number. CS_ERR_LIMIT when the ring is
 * full, CS_ERR_NO_SPACE when the recorder has stopped, TOO_LARGE when it never fits. Never waits,
 * and makes a system call only when the ring was empty and the reader sleeps. */
enum cs_err cs_ring_append(struct cs_ring *r, const struct cs_slice *pieces, size_t n,
                           uint64_t *ret_seq) CS_MUST_CHECK;
bool cs_ring_is_durable(const struct cs_ring *r, uint64_t seq);
enum cs_record_health cs_ring_health(const struct cs_ring *r);
/* Asks for an early sync and waits until `seq` is durable: CS_OK, TIMEOUT, CANCELLED, or NO_SPACE
 * when the recorder has stopped. Any number of coroutines may wait at once. */
enum cs_err cs_ring_wait_durable(struct cs_ring *r, uint64_t seq,
                                 uint64_t deadline_ns) CS_MUST_CHECK;
/* Waits until a record of n bytes fits. Same errors. */
enum cs_err cs_ring_wait_room(struct cs_ring *r, size_t n, uint64_t deadline_ns) CS_MUST_CHECK;

/* ---- reader ---- */
/* The next record, copied into `into` (cap bytes); CS_ERR_NOT_FOUND when there is none,
 * CS_ERR_CORRUPT when the writer lied (the ring is broken from then on). */
enum cs_err cs_ring_read(struct cs_ring *r, void *into, size_t cap, size_t *ret_n,
                         uint64_t *ret_seq) CS_MUST_CHECK;
/* True when a waiter wants durability soon. */
bool cs_ring_wanted(const struct cs_ring *r);
/* Everything read so far is on disk: publishes that, and wakes who waits for it. */
void cs_ring_acknowledge(struct cs_ring *r, uint64_t seq);
/* Up to this position (r->tail as it was once) everything is where it belongs: its room is the
 * writer's again. Who holds the ring without using it takes that for its end (cs_ring_peek). */
void cs_ring_free(struct cs_ring *r, uint64_t position);
/* Both at once, for everything read so far. */
void cs_ring_set_durable(struct cs_ring *r, uint64_t seq);
void cs_ring_set_health(struct cs_ring *r, enum cs_record_health h);
/* Says that the reader is about to sleep; false when something came meanwhile (do not sleep).
 * Asleep, it waits for r->kick to become readable. A broken ring always sleeps. */
bool cs_ring_sleep(struct cs_ring *r);

#endif
