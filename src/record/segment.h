/* The bytes of a journal segment: header, entries, and the scanner that believes nothing. Pure.
 *
 * The journal holds, for a short time, what goes into the files of all recordings (csr.h), as it
 * stands there: encrypted and chained. Nothing here is in clear but who wrote how much when.
 *
 *   header, 64 bytes:  "CSJRNL1\n", u32le version, u32le segment number, u64le first journal
 *                      sequence, u64le wall-clock ms, 28 bytes zero, u32le CRC-32C of the 60 before
 *   entry:             u32le n, u32le CRC-32C (of n and of everything behind the CRC), u64le
 *                      journal sequence, u32le kind, u32le zero, u64le offset, n bytes
 *
 * then zeros to the end of the preallocated file. Journal sequences go up by one from entry to
 * entry, across segments. Kinds and their bytes:
 *   BYTES   which file (CS_JOURNAL_FILE bytes), then what stands there at `offset`
 *   COMMIT  rows {u64le gate epoch, u64le ring sequence}: up to there the gates' frames are in the
 *           entries before. What has no COMMIT behind it was never acknowledged, and does not count
 *   OPEN    rows of files that were open when the segment was begun
 *   LEAF    a leaf of the audit log; `offset` is its number there */
#ifndef CS_RECORD_SEGMENT_H
#define CS_RECORD_SEGMENT_H

#include "base/slice.h"
#include "record/csr.h"

enum {
    CS_SEGMENT_HEAD = 64,
    CS_JOURNAL_HEAD = 32, /* in front of each entry */
    CS_JOURNAL_FILE = CS_ID_BYTES + 16,
    CS_JOURNAL_BODY_MAX = CS_JOURNAL_FILE + CS_CSR_FRAME_MAX,
    CS_JOURNAL_ENTRY_MAX = CS_JOURNAL_HEAD + CS_JOURNAL_BODY_MAX,
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

enum cs_journal_kind {
    CS_JOURNAL_BYTES = 1,
    CS_JOURNAL_COMMIT = 2,
    CS_JOURNAL_OPEN = 3,
    CS_JOURNAL_LEAF = 4
};

/* One file of the recordings directory. */
struct cs_journal_file {
    struct cs_id session;
    uint64_t epoch; /* of the gate that writes it */
    bool foreign;   /* the session is another gate's */
};
void cs_journal_file_write(const struct cs_journal_file *f, uint8_t out[static CS_JOURNAL_FILE]);
/* False when it is none; takes CS_JOURNAL_FILE bytes off `in`. */
bool cs_journal_file_read(struct cs_slice *in, struct cs_journal_file *ret);

struct cs_journal_entry {
    uint64_t seq; /* in the journal */
    enum cs_journal_kind kind;
    uint64_t offset;
    struct cs_slice body;
};
/* Completes an entry whose n bytes already stand at p + CS_JOURNAL_HEAD. */
void cs_journal_entry_seal(uint8_t *p, uint64_t seq, enum cs_journal_kind kind, uint64_t offset,
                           size_t n);
/* The entries of a batch that was made here, unchecked: from *at = 0 on; false at the end. */
bool cs_journal_entry_next(struct cs_slice batch, size_t *at, struct cs_journal_entry *ret);
/* A row of a COMMIT; false at the end. */
bool cs_journal_row(struct cs_slice *body, uint64_t *ret_epoch, uint64_t *ret_ring_seq);

/* ---- scanning ---- */
struct cs_segment_scan {
    struct cs_slice in; /* the whole file, header included */
    size_t at;          /* behind the last good entry */
    uint64_t next_seq;
};
enum cs_scan {
    CS_SCAN_BAD,   /* what follows is no entry: torn or damaged; `at` stays */
    CS_SCAN_ENTRY, /* ret is written, `at` moved */
    CS_SCAN_END,   /* nothing but zeros follows */
};
/* False when the header is bad. */
bool cs_segment_scan_start(struct cs_slice file, struct cs_segment_scan *ret,
                           struct cs_segment_head *ret_head);
enum cs_scan cs_segment_scan_next(struct cs_segment_scan *s, struct cs_journal_entry *ret);
/* Length of `s` without the zeros at its end. */
size_t cs_zeros_trimmed(struct cs_slice s);

/* ---- names ---- */
char *cs_segment_name(uint32_t number, char out[static CS_SEGMENT_NAME]);
/* False for every other name. */
bool cs_segment_name_parse(const char *name, uint32_t *ret_number);

#endif
