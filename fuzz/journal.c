/* Fuzzing of the journal scanner and the replayer's JSON on hostile bytes. The first byte chooses:
 * even: the rest is a segment without its header; odd: the rest is one frame of a recording.
 *
 * Properties: offsets only grow and stay inside; a scan of what was found good finds the same and
 * ends there; nothing behind the first bad frame is ever shown; JSON is balanced and without
 * control bytes. */
#include "base/alloc.h"
#include "base/buf.h"
#include "record/json.h"
#include "record/replay.h"
#include "record/segment.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static unsigned scan(struct cs_slice file, size_t *ret_at, enum cs_scan *ret_end)
{
    struct cs_segment_scan s;
    struct cs_segment_head head;
    struct cs_journal_entry f;
    unsigned n = 0;
    demand(cs_segment_scan_start(file, &s, &head));
    for (;;) {
        size_t before = s.at;
        *ret_end = cs_segment_scan_next(&s, &f);
        if (*ret_end != CS_SCAN_ENTRY) {
            demand(s.at == before);
            break;
        }
        n++;
        demand(s.at > before && s.at <= file.n);
        demand(f.body.p >= file.p && f.body.n <= (size_t)(file.p + file.n - f.body.p));
        demand(s.next_seq == f.seq + 1);
        struct cs_slice body = f.body;
        struct cs_journal_file file_of;
        uint64_t epoch, seq;
        (void)cs_journal_file_read(&body, &file_of);
        while (cs_journal_row(&body, &epoch, &seq)) {
        }
    }
    *ret_at = s.at;
    return n;
}

static void as_segment(struct cs_slice body)
{
    uint8_t *file = malloc(CS_SEGMENT_HEAD + body.n); /* exact: a read behind it is seen */
    struct cs_segment_head head = {1, 1, 0};
    size_t at = 0, again_at = 0;
    enum cs_scan end, again_end;
    demand(file != NULL);
    cs_segment_head_write(&head, file);
    if (body.n > 0) {
        memcpy(file + CS_SEGMENT_HEAD, body.p, body.n);
    }
    unsigned n = scan(cs_slice(file, CS_SEGMENT_HEAD + body.n), &at, &end);
    demand(end != CS_SCAN_END ||
           cs_zeros_trimmed(cs_slice(file + at, CS_SEGMENT_HEAD + body.n - at)) == 0);
    demand(scan(cs_slice(file, at), &again_at, &again_end) == n);
    demand(again_at == at && again_end == CS_SCAN_END);
    free(file);
}

static void as_frame(struct cs_slice bytes)
{
    struct cs_buf out = cs_buf(64 * 1024 * 1024);
    struct cs_json j = {&out, false};
    int depth = 0;
    bool quoted = false;
    (void)cs_replay_frame(&j, bytes);
    demand(!out.bad);
    for (size_t i = 0; i < out.len; i++) {
        uint8_t c = out.p[i];
        demand(c >= 0x20 && c != 0x7f);
        if (quoted && c == '\\') {
            i++;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (!quoted) {
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        }
        demand(depth >= 0);
    }
    demand(depth == 0 && !quoted && cs_utf8_valid(cs_buf_slice(&out)));
    cs_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_segment_head head;
    struct cs_slice all = cs_slice(data, size);
    uint32_t number = 0;
    if (size == 0) {
        return 0;
    }
    (void)cs_segment_head_read(all, &head);
    char name[CS_SEGMENT_NAME] = "";
    memcpy(name, data, size < sizeof name ? size : sizeof name - 1);
    (void)cs_segment_name_parse(name, &number);
    struct cs_slice rest = cs_slice_from(all, 1);
    if ((data[0] & 1) == 0) {
        as_segment(rest);
    } else {
        as_frame(rest);
    }
    demand(cs_alloc_live() == 0);
    return 0;
}
