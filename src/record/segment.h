/* The bytes of a journal segment: header, frames, and the scanner that believes nothing. Pure.
 *
 * Version 0 of the format is interim and UNENCRYPTED; the final one (encrypted, hash-chained
 * session files and a signed Merkle log) replaces it and keeps only what this one promises: order,
 * durability, back-pressure, recovery.
 *
 *   header, 64 bytes:  "CSJRNL0\n", u32le version, u32le segment number, u64le first journal
 *                      sequence, u64le wall-clock ms, 28 bytes zero, u32le CRC-32C of the 60 before
 *   frame:             u32le n, u32le CRC-32C (of n and of everything behind the CRC), u64le
 * journal sequence, u64le gate epoch, u64le ring sequence, n bytes as they came out of the ring
 * (action/frame.h) then zeros to the end of the preallocated file. Journal sequences go up by one
 * from frame to frame, across segments. */
#ifndef CS_RECORD_SEGMENT_H
#define CS_RECORD_SEGMENT_H

#include "base/limits.h"
#include "base/slice.h"

enum {
    CS_SEGMENT_HEAD = 64,
    CS_JOURNAL_HEAD = 32, /* in front of each frame */
    CS_JOURNAL_FRAME_MAX = CS_JOURNAL_HEAD + CS_LIMIT_RECORD_FRAME_BYTES,
    CS_SEGMENT_BYTES = 16 * 1024 * 1024,
    CS_SEGMENT_NAME = 32, /* "journal-00000001.csj" and a NUL, with room for suffixes */
};

struct cs_segment_head {
    uint32_t number;
    uint64_t first_seq;
    uint64_t wall_ms;
};
void cs_segment_head_write(const struct cs_segment_head *h, uint8_t out[static CS_SEGMENT_HEAD]);
/* False when it is not a header of this version. */
bool cs_segment_head_read(struct cs_slice in, struct cs_segment_head *ret);

struct cs_journal_frame {
    uint64_t seq;      /* in the journal */
    uint64_t epoch;    /* of the gate */
    uint64_t ring_seq; /* in that gate's ring */
    struct cs_slice bytes;
};
/* Completes a frame whose n bytes already stand at p + CS_JOURNAL_HEAD. */
void cs_journal_frame_seal(uint8_t *p, uint64_t seq, uint64_t epoch, uint64_t ring_seq, size_t n);

/* ---- scanning ---- */
struct cs_segment_scan {
    struct cs_slice in; /* the whole file, header included */
    size_t at;          /* behind the last good frame */
    uint64_t next_seq;
};
enum cs_scan {
    CS_SCAN_BAD,   /* what follows is no frame: torn or damaged; `at` stays */
    CS_SCAN_FRAME, /* ret is written, `at` moved */
    CS_SCAN_END,   /* nothing but zeros follows */
};
/* False when the header is bad. */
bool cs_segment_scan_start(struct cs_slice file, struct cs_segment_scan *ret,
                           struct cs_segment_head *ret_head);
enum cs_scan cs_segment_scan_next(struct cs_segment_scan *s, struct cs_journal_frame *ret);
/* Length of `s` without the zeros at its end. */
size_t cs_zeros_trimmed(struct cs_slice s);

/* ---- names ---- */
char *cs_segment_name(uint32_t number, char out[static CS_SEGMENT_NAME]);
/* False for every other name. */
bool cs_segment_name_parse(const char *name, uint32_t *ret_number);

#endif
