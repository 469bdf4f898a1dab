/* A disk in memory that loses power, in place of the calls that src/record makes to the kernel (the
 * linker puts these here in their place: see meson.build). Everything under /sim is there; other
 * descriptors go to the kernel as they are. All that happens follows from one seed.
 *
 * What the model says of a power cut: bytes that no successful fsync covered are there or not, in
 * pieces of 512 bytes, in any order; names that were made, renamed or removed since the last fsync
 * of the directory likewise. After an fsync that failed, what it should have written may be lost
 * although it can still be read, and a second fsync succeeds without writing it.
 *
 * The copier's threads and the compressor's helper are run here too, in turns with everybody else,
 * so that a seed gives the same order each time. */
#ifndef CS_TEST_CRASH_DISK_H
#define CS_TEST_CRASH_DISK_H

#include "base/slice.h"

enum crash {
    CRASH_NONE,
    CRASH_POWER, /* everything unsynced is in doubt */
    CRASH_KILL,  /* the process: the kernel keeps what it has; the call at which it ends is torn */
    CRASH_ERROR, /* one call fails with EIO */
    CRASH_FULL,  /* no space for so many calls, then again some */
    CRASH_KINDS
};

/* An empty disk. */
void disk_reset(uint64_t seed);
uint64_t disk_any(uint64_t n);
/* At the call number `after` from now; of FULL, for `calls` calls. */
void disk_plan(enum crash kind, uint64_t after, uint64_t calls);
/* The machine or process is down: every call fails until disk_up. */
bool disk_is_down(void);
/* The plan was carried out. */
bool disk_struck(void);
uint64_t disk_calls(void);
/* Up again; after a power cut with what the disk kept. All descriptors are closed. */
void disk_up(bool power);
/* The other thread's turn, until it waits or its next call. */
void disk_thread(void);
/* A place where the order may change: somebody else's turn, perhaps. */
void disk_turns(void);
/* The one who runs is one of the threads. */
bool disk_in_thread(void);
/* A file that is there, durably. */
void disk_put(const char *name, struct cs_slice bytes);
/* It loses what it has of this file from `size` on, also what was durable. */
void disk_lose(const char *name, size_t size);
/* What is there: false behind the last file. */
bool disk_file(size_t i, const char **ret_name, struct cs_slice *ret);

#endif
