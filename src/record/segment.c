/* Encoding and scanning of journal segments (segment.h). Called by the journal (writing, recovery)
 * and the replayer. A scan trusts no length, number or sequence: the file may be torn, rotten or
 * made by somebody else. It must never read behind the slice it was given, nor go on behind a bad
 * entry. */
#include "record/segment.h"

#include "base/reader.h"
#include "base/writer.h"
#include "record/crc32c.h"

#include <stdio.h>

static const char magic[8] = {'C', 'S', 'J', 'R', 'N', 'L', '1', '\n'};
enum { VERSION = 1, HEAD_ZEROS = 28, HEAD_CRC_AT = CS_SEGMENT_HEAD - 4 };
static const uint8_t zeros[HEAD_ZEROS];

void cs_segment_head_write(const struct cs_segment_head *h, uint8_t out[static CS_SEGMENT_HEAD])
{
    struct cs_writer w = cs_writer(out, CS_SEGMENT_HEAD);
    cs_writer_bytes(&w, cs_slice(magic, sizeof magic));
    cs_writer_u32le(&w, VERSION);
    cs_writer_u32le(&w, h->number);
    cs_writer_u64le(&w, h->first_seq);
    cs_writer_u64le(&w, h->wall_ms);
    cs_writer_bytes(&w, cs_slice(zeros, HEAD_ZEROS));
    cs_writer_u32le(&w, cs_crc32c(0, cs_slice(out, HEAD_CRC_AT)));
}

bool cs_segment_head_read(struct cs_slice in, struct cs_segment_head *ret)
{
    struct cs_reader r = cs_reader(cs_slice_head(in, CS_SEGMENT_HEAD));
    struct cs_slice m = cs_reader_take(&r, sizeof magic);
    uint32_t version = cs_reader_u32le(&r);
    struct cs_segment_head h = {0, 0, 0};
    h.number = cs_reader_u32le(&r);
    h.first_seq = cs_reader_u64le(&r);
    h.wall_ms = cs_reader_u64le(&r);
    struct cs_slice pad = cs_reader_take(&r, HEAD_ZEROS);
    uint32_t crc = cs_reader_u32le(&r);
    if (!cs_reader_done(&r) || !cs_slice_eq(m, cs_slice(magic, sizeof magic)) ||
        version != VERSION || !cs_slice_eq(pad, cs_slice(zeros, HEAD_ZEROS)) ||
        crc != cs_crc32c(0, cs_slice_head(in, HEAD_CRC_AT))) {
        return false;
    }
    *ret = h;
    return true;
}

/* Over the length too: a flipped bit there must not make the rest of the file one frame. */
static uint32_t entry_crc(struct cs_slice length, struct cs_slice behind)
{
    return cs_crc32c(cs_crc32c(0, length), behind);
}

void cs_journal_entry_seal(uint8_t *p, uint64_t seq, enum cs_journal_kind kind, uint64_t offset,
                           size_t n)
{
    struct cs_writer head = cs_writer(p, 4);
    cs_writer_u32le(&head, (uint32_t)n);
    struct cs_writer w = cs_writer(p + 8, CS_JOURNAL_HEAD - 8);
    cs_writer_u64le(&w, seq);
    cs_writer_u32le(&w, (uint32_t)kind);
    cs_writer_u32le(&w, 0);
    cs_writer_u64le(&w, offset);
    struct cs_writer crc = cs_writer(p + 4, 4);
    cs_writer_u32le(&crc, entry_crc(cs_slice(p, 4), cs_slice(p + 8, CS_JOURNAL_HEAD - 8 + n)));
}

bool cs_journal_entry_next(struct cs_slice batch, size_t *at, struct cs_journal_entry *ret)
{
    struct cs_reader r = cs_reader(cs_slice_from(batch, *at));
    uint32_t n = cs_reader_u32le(&r);
    (void)cs_reader_u32le(&r);
    struct cs_journal_entry e = {.seq = cs_reader_u64le(&r)};
    e.kind = (enum cs_journal_kind)cs_reader_u32le(&r);
    (void)cs_reader_u32le(&r);
    e.offset = cs_reader_u64le(&r);
    e.body = cs_reader_take(&r, n);
    if (r.bad) {
        return false;
    }
    *at += CS_JOURNAL_HEAD + n;
    *ret = e;
    return true;
}

void cs_journal_file_write(const struct cs_journal_file *f, uint8_t out[static CS_JOURNAL_FILE])
{
    struct cs_writer w = cs_writer(out, CS_JOURNAL_FILE);
    cs_writer_bytes(&w, cs_slice(f->session.b, CS_ID_BYTES));
    cs_writer_u64le(&w, f->epoch);
    cs_writer_u64le(&w, f->foreign ? 1 : 0);
}

bool cs_journal_file_read(struct cs_slice *in, struct cs_journal_file *ret)
{
    struct cs_reader r = cs_reader(*in);
    struct cs_journal_file f = {.epoch = 0};
    struct cs_slice id = cs_reader_take(&r, CS_ID_BYTES);
    f.epoch = cs_reader_u64le(&r);
    uint64_t foreign = cs_reader_u64le(&r);
    if (r.bad || foreign > 1) {
        return false;
    }
    memcpy(f.session.b, id.p, CS_ID_BYTES);
    f.foreign = foreign == 1;
    *in = cs_reader_rest(&r);
    *ret = f;
    return true;
}

bool cs_journal_row(struct cs_slice *body, uint64_t *ret_epoch, uint64_t *ret_ring_seq)
{
    struct cs_reader r = cs_reader(*body);
    uint64_t epoch = cs_reader_u64le(&r), seq = cs_reader_u64le(&r);
    if (r.bad) {
        return false;
    }
    *body = cs_reader_rest(&r);
    *ret_epoch = epoch;
    *ret_ring_seq = seq;
    return true;
}

bool cs_segment_scan_start(struct cs_slice file, struct cs_segment_scan *ret,
                           struct cs_segment_head *ret_head)
{
    struct cs_segment_head h;
    if (!cs_segment_head_read(file, &h)) {
        return false;
    }
    *ret = (struct cs_segment_scan){file, CS_SEGMENT_HEAD, h.first_seq};
    *ret_head = h;
    return true;
}

size_t cs_zeros_trimmed(struct cs_slice s)
{
    uint64_t word = 0;
    /* Megabytes of them at a start. */
    while (s.n >= sizeof word && (memcpy(&word, s.p + s.n - sizeof word, sizeof word), word == 0)) {
        s.n -= sizeof word;
    }
    while (s.n > 0 && s.p[s.n - 1] == 0) {
        s.n--;
    }
    return s.n;
}

enum cs_scan cs_segment_scan_next(struct cs_segment_scan *s, struct cs_journal_entry *ret)
{
    struct cs_slice left = cs_slice_from(s->in, s->at);
    struct cs_reader r = cs_reader(left);
    uint32_t n = cs_reader_u32le(&r);
    uint32_t crc = cs_reader_u32le(&r);
    struct cs_journal_entry e = {.seq = cs_reader_u64le(&r)};
    uint32_t kind = cs_reader_u32le(&r);
    uint32_t zero = cs_reader_u32le(&r);
    e.offset = cs_reader_u64le(&r);
    if (r.bad || n == 0) {
        /* The end is only where nothing follows: bytes behind a hole are a torn write. */
        return cs_zeros_trimmed(left) == 0 ? CS_SCAN_END : CS_SCAN_BAD;
    }
    if (n > CS_JOURNAL_BODY_MAX || kind < CS_JOURNAL_BYTES || kind > CS_JOURNAL_LEAF || zero != 0) {
        return CS_SCAN_BAD;
    }
    e.kind = (enum cs_journal_kind)kind;
    e.body = cs_reader_take(&r, n);
    if (r.bad || e.seq != s->next_seq) {
        return CS_SCAN_BAD;
    }
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    if (crc !=
        entry_crc(cs_slice_head(left, 4), cs_slice(left.p + 8, CS_JOURNAL_HEAD - 8 + e.body.n))) {
        return CS_SCAN_BAD;
    }
#else
    (void)crc;
    (void)entry_crc;
#endif
    s->at += CS_JOURNAL_HEAD + e.body.n;
    s->next_seq++;
    *ret = e;
    return CS_SCAN_ENTRY;
}

char *cs_segment_name(uint32_t number, char out[static CS_SEGMENT_NAME])
{
    (void)snprintf(out, CS_SEGMENT_NAME, "journal-%08u.csj", (unsigned)number);
    return out;
}

bool cs_segment_name_parse(const char *name, uint32_t *ret_number)
{
    struct cs_slice s = cs_slice_str(name);
    struct cs_slice prefix = CS_SLICE_LIT("journal-"), suffix = CS_SLICE_LIT(".csj");
    uint64_t number = 0;
    char again[CS_SEGMENT_NAME];
    if (!cs_slice_starts(s, prefix) || !cs_slice_ends(s, suffix) || s.n < prefix.n + suffix.n) {
        return false;
    }
    struct cs_slice digits = cs_slice(s.p + prefix.n, s.n - prefix.n - suffix.n);
    /* One name a number: "journal-1.csj" beside "journal-00000001.csj" would be two files for one.
     */
    if (!cs_slice_to_u64(digits, &number) || number == 0 || number > UINT32_MAX ||
        !cs_slice_eq_str(s, cs_segment_name((uint32_t)number, again))) {
        return false;
    }
    *ret_number = (uint32_t)number;
    return true;
}
