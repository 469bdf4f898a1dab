/* Reading a recording (csr.h): checking it without keys, finding its end, decrypting it. Over a
 * callback, so that a file of any size needs one frame's memory. Nothing that is read is believed:
 * the file may be torn, rotten, or made by somebody who wants this program. */
#ifndef CS_RECORD_CSR_READ_H
#define CS_RECORD_CSR_READ_H

#include "base/buf.h"
#include "record/csr.h"
#include "record/csr_write.h" /* struct cs_csr_tail */

/* The bytes of a file. read_at gives how many it read: less than n only at the end or on failure.
 */
struct cs_csr_source {
    void *arg;
    uint64_t size;
    size_t (*read_at)(void *arg, uint64_t at, void *into, size_t n);
};
/* The same over memory, and over a descriptor (pread; `arg` points to the int). */
struct cs_csr_source cs_csr_memory(const struct cs_slice *s);
struct cs_csr_source cs_csr_descriptor(const int *fd, uint64_t size);

enum cs_csr_scan {
    CS_CSR_SCAN_BAD = 0, /* what follows is no frame of this recording: see `why`, `torn` */
    CS_CSR_SCAN_FRAME,   /* one more good frame */
    CS_CSR_SCAN_EOF,     /* the file ends behind a good frame, or behind the header */
};

struct cs_csr_scanner {
    struct cs_csr_source in;
    struct cs_csr_head head;
    uint64_t at;       /* behind the last good frame */
    uint64_t frame_at; /* where that frame begins */
    uint8_t chain[CS_SHA256];
    struct cs_csr_frame_head frame;
    struct cs_slice bytes;   /* the whole frame; valid until the next step */
    struct cs_slice payload; /* of it */
    uint64_t seq, last_ns;
    uint32_t epoch;
    uint64_t events, plain_bytes; /* of the epoch */
    uint64_t reset_at;            /* 0: the epoch has none yet */
    uint64_t last_index;
    uint64_t since_index; /* resets */
    bool partial;         /* after a seek */
    bool ended;
    struct cs_csr_ended end; /* when ended */
    const char *why;         /* of BAD: a sentence */
    bool torn;               /* of BAD: the file ends inside a frame, as after a crash */
    uint8_t *room;           /* owned: a window of the file */
    uint64_t room_at;
    size_t room_n;
};
/* Reads the header. CORRUPT when it is none. */
enum cs_err cs_csr_scan_start(struct cs_csr_scanner *s, struct cs_csr_source in) CS_MUST_CHECK;
/* Goes on at a RESET frame instead, for who wants to read from there: totals and INDEX frames,
 * which speak of all that was before, are not compared. CORRUPT when there is none. */
enum cs_err cs_csr_scan_seek(struct cs_csr_scanner *s, uint64_t offset) CS_MUST_CHECK;
/* The last RESET frame that begins at `t_ns` or before, else the first one; 0 when there is none.
 * By the INDEX frames where the recording has an end, else by the heads of all frames. */
uint64_t cs_csr_find_reset(struct cs_csr_source in, const struct cs_csr_tail *tail, uint64_t t_ns);
/* Calls fn with each RECOVER frame; head by head. False when a head is none, or fn says so. */
bool cs_csr_each_recover(struct cs_csr_source in, const struct cs_csr_tail *tail,
                         bool (*fn)(void *arg, uint32_t epoch, const struct cs_csr_recovered *x),
                         void *arg);
/* The next frame: length, checksum, chain, sequence, epoch, order, totals. Needs no key. */
enum cs_csr_scan cs_csr_scan_next(struct cs_csr_scanner *s);
void cs_csr_scan_done(struct cs_csr_scanner *s);

/* The last good frame, looked for from the end of the file, so that it costs the same for a large
 * one. What stands behind it is `cut`. CORRUPT when there is no good header, or none in the file's
 * last bytes where a frame must begin: then the file was changed, not torn. */
enum cs_err cs_csr_find_tail(struct cs_csr_source in, struct cs_csr_tail *ret) CS_MUST_CHECK;

/* ---- decrypting ---- */
struct cs_csr_reader; /* a decompressor and the keys of the epochs */
struct cs_csr_reader *cs_csr_reader_new(const struct cs_id *session);
void cs_csr_reader_free(struct cs_csr_reader *r); /* wipes */
/* The data key of an epoch. CORRUPT when it is not the one that the epoch's keys commit to. */
enum cs_err cs_csr_reader_key(struct cs_csr_reader *r, uint32_t epoch,
                              const struct cs_csr_keys *keys,
                              const uint8_t dek[static CS_CSR_DEK]) CS_MUST_CHECK;
/* One frame of the recording, in order from any RESET on. For DATA and RESET ret_plain are its
 * events (u32le length, bytes; …), valid until the next call; for the others, whose payload is in
 * clear, it is empty and only their tag is checked. DENIED: its epoch's key is not known. CORRUPT:
 * it does not open, or is not what its head says. */
enum cs_err cs_csr_reader_open(struct cs_csr_reader *r, const struct cs_csr_frame_head *h,
                               struct cs_slice frame, struct cs_slice *ret_plain) CS_MUST_CHECK;
/* The next event of such a plain; false at its end. What it gives is never empty. */
bool cs_csr_event_next(struct cs_slice *plain, struct cs_slice *ret);

#endif
