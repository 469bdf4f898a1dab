/* Texts to a gate's own parser and what it makes of them, one message each, over an AF_UNIX
 * SOCK_SEQPACKET socket that no third process has an end of. No descriptors travel there, and
 * nothing is queued in this process.
 *
 *   gate → parser   u64le id, the text
 *   parser → gate   u64le id, u64le mark, the record (sql/parsed.h); id 0 once: within its walls
 *
 * SECURITY: the mark is a hash of id and text, made on both sides from the bytes that each has: a
 * slip of ours cannot give one text the answer of another. It is no wall against a parser that
 * lies: it has both. */
#ifndef CS_IPC_PARCEL_H
#define CS_IPC_PARCEL_H

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CS_PARCEL_TEXT_HEAD = 8, CS_PARCEL_RECORD_HEAD = 16 };

uint64_t cs_parcel_mark(uint64_t id, struct cs_slice text);
/* False: it did not go, or nobody is there. Never waits on a non-blocking socket. */
bool cs_parcel_send_text(int fd, uint64_t id, struct cs_slice text);
bool cs_parcel_send_record(int fd, uint64_t id, uint64_t mark, struct cs_slice record);

enum cs_parcel { CS_PARCEL_BROKEN, CS_PARCEL_NONE, CS_PARCEL_GOT };
/* BROKEN: the other end is gone, or sent what is larger than `room` or carries descriptors, which
 * are closed. NONE: nothing there now. `ret` borrows from room. */
enum cs_parcel cs_parcel_receive(int fd, void *room, size_t size, struct cs_slice *ret);

#endif
