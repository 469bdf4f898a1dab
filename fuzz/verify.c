/* Fuzzing of verify on hostile evidence. The first byte chooses: a bundle; leaves (u16le length and
 * bytes, again and again, up to a length of 0) and then a recording that is held against them; a
 * head of the bundle's container.
 *
 * Properties: a bundle whose checkpoint nobody signed is never intact; a recording that no leaf
 * ends is never intact; what was found good lies inside the file; what is said about it is
 * printable ASCII; a head that is read is written back to the same bytes. */
#include "verify/verify.h"
#include "base/alloc.h"
#include "base/reader.h"
#include "verify/ustar.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void printable(const struct cs_report *r)
{
    struct cs_buf text = cs_buf((size_t)16 << 20);
    cs_report_text(r, &text);
    for (size_t i = 0; i < text.len; i++) {
        demand((text.p[i] >= 0x20 && text.p[i] < 0x7f) || text.p[i] == '\n' || text.p[i] >= 0xc0 ||
               (text.p[i] & 0xc0) == 0x80); /* the text's own ellipsis */
    }
    text.len = 0;
    cs_report_json(r, &text);
    for (size_t i = 0; i < text.len; i++) {
        demand((text.p[i] >= 0x20 && text.p[i] < 0x7f) || text.p[i] == '\n');
    }
    cs_buf_done(&text);
}

static void bundle(struct cs_slice in)
{
    static const uint8_t public[CS_ED25519_KEY] = {1};
    struct cs_audit_key key;
    struct cs_report r;
    demand(cs_audit_key_make(CS_SLICE_LIT("a/b"), public, &key) == CS_OK);
    cs_report_init(&r, "bundle");
    cs_verify_bundle(cs_csr_memory(&in), &key, &r);
    demand(r.worst != CS_VERDICT_INTACT);
    printable(&r);
    cs_report_done(&r);
    cs_report_init(&r, "bundle"); /* with its own key: good seeds go all the way */
    cs_verify_bundle(cs_csr_memory(&in), NULL, &r);
    printable(&r);
    cs_report_done(&r);
}

static void recording(struct cs_slice in)
{
    struct cs_reader r = cs_reader(in);
    struct cs_report report;
    struct cs_history h;
    struct cs_leaf leaf;
    uint64_t n = 0;
    bool ends = false;
    cs_report_init(&report, "recording");
    cs_history_init(&h, &report);
    for (uint16_t len; (len = cs_reader_u16le(&r)) > 0;) {
        struct cs_slice bytes = cs_reader_take(&r, len);
        if (!r.bad && cs_leaf_read(bytes, &leaf)) {
            cs_history_add(&h, n++, &leaf);
            ends |= leaf.kind == CS_LEAF_SESSION_CLOSE || leaf.kind == CS_LEAF_RECORDING;
        }
    }
    struct cs_slice file = cs_reader_rest(&r);
    struct cs_verify_recording x = {.in = cs_csr_memory(&file), .file = "x.csr", .history = &h};
    struct cs_csr_head head;
    if (cs_csr_head_read(file, &head)) {
        x.session = head.session;
    }
    cs_verify_recording(&x, &report);
    demand(x.good <= file.n);
    demand(ends || report.worst != CS_VERDICT_INTACT);
    demand(report.complete + report.open <= 1);
    printable(&report);
    cs_history_done(&h);
    cs_report_done(&report);
}

static void container(struct cs_slice in)
{
    char name[CS_USTAR_NAME_MAX + 1];
    uint8_t again[CS_USTAR_BLOCK];
    uint64_t size = 0;
    if (in.n >= CS_USTAR_BLOCK && cs_ustar_read(in.p, name, &size)) {
        cs_ustar_write(name, size, again);
        demand(memcmp(again, in.p, sizeof again) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const readers[])(struct cs_slice) = {bundle, recording, container};
    if (size == 0) {
        return 0;
    }
    uint8_t *copy = malloc(size > 1 ? size - 1 : 1); /* exact: a read behind it is seen */
    demand(copy != NULL);
    if (size > 1) {
        memcpy(copy, data + 1, size - 1);
    }
    readers[data[0] % CS_ARRAY_LEN(readers)](cs_slice(copy, size - 1));
    free(copy);
    demand(cs_alloc_live() == 0);
    return 0;
}
