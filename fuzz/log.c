/* Fuzzing of what reads an audit log's files. The first byte chooses: a leaf, a signed note, a
 * proof, a verifier key, a bundle, a whole log (path NUL u16 length content, again and again), the
 * file `head`, or boxes on their way to a reader.
 *
 * Properties: a leaf that is read is written back to the same bytes; so are a checkpoint and a key;
 * a log whose checkpoint was not signed is never intact. */
#include "audit/boxes.h"
#include "audit/check.h"
#include "audit/proof.h"
#include "base/alloc.h"
#include "base/reader.h"
#include "record/ledger.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void leaf(struct cs_slice in)
{
    struct cs_leaf l;
    struct cs_buf again = cs_buf(1 << 20);
    if (cs_leaf_read(in, &l)) {
        demand(cs_leaf_write(&l, &again) == CS_OK && cs_slice_eq(cs_buf_slice(&again), in));
    }
    cs_buf_done(&again);
}

static struct cs_audit_key some_key(void)
{
    struct cs_audit_key key;
    static const uint8_t public[CS_ED25519_KEY] = {1};
    demand(cs_audit_key_make(CS_SLICE_LIT("a/b"), public, &key) == CS_OK);
    return key;
}

static void note(struct cs_slice in)
{
    struct cs_audit_key key = some_key();
    struct cs_audit_checkpoint c;
    struct cs_slice text;
    struct cs_buf again = cs_buf(CS_AUDIT_NOTE_MAX);
    (void)cs_audit_note_open(in, &key, &text);
    if (cs_audit_checkpoint_read(in, &c)) {
        cs_audit_checkpoint_write(&c, &again);
        demand(cs_slice_eq(cs_buf_slice(&again), in));
    }
    cs_buf_done(&again);
}

static void verifier_key(struct cs_slice in)
{
    struct cs_audit_key key;
    struct cs_buf again = cs_buf(1024);
    if (cs_audit_key_read(in, &key) == CS_OK) {
        cs_audit_key_write(&key, &again);
        demand(cs_slice_eq(cs_buf_slice(&again), in));
    }
    cs_buf_done(&again);
}

static void proof(struct cs_slice in)
{
    struct cs_audit_key key = some_key();
    struct cs_audit_proof p;
    struct cs_buf again = cs_buf(1 << 20);
    if (cs_audit_proof_read(in, &p) == CS_OK) {
        cs_audit_proof_write(&p, &again);
        demand(cs_slice_eq(cs_buf_slice(&again), in));
        cs_audit_proof_done(&p);
    }
    demand(cs_audit_proof_open(in, &key, &p) != CS_OK);
    cs_buf_done(&again);
}

static void bundle(struct cs_slice in)
{
    struct cs_slice l;
    size_t n = in.n;
    while (cs_audit_bundle_next(&in, &l)) {
        demand(in.n < n && l.n <= CS_AUDIT_LEAF_MAX);
        n = in.n;
    }
}

/* The first file of that name in the input. */
static enum cs_err get(void *ctx, const char *path, struct cs_buf *out)
{
    struct cs_reader r = cs_reader(*(const struct cs_slice *)ctx);
    while (cs_reader_left(&r) > 0) {
        struct cs_slice name = cs_reader_cstr(&r);
        struct cs_slice content = cs_reader_take(&r, cs_reader_u16(&r));
        if (!r.bad && cs_slice_eq_str(name, path)) {
            if (content.n > out->max) {
                return CS_ERR_TOO_LARGE;
            }
            cs_buf_add(out, content);
            return CS_OK;
        }
    }
    return CS_ERR_NOT_FOUND;
}

static void whole_log(struct cs_slice in)
{
    struct cs_audit_key key = some_key();
    struct cs_audit_hash root = {{0}};
    struct cs_audit_check c = {.from = {get, &in}, .key = &key};
    demand(cs_audit_check(&c) != CS_AUDIT_INTACT && c.why != NULL);
    /* A writer takes nothing from hostile files but what gives the root that was signed. */
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){NULL, NULL});
    demand(w != NULL);
    uint64_t size = in.n > 0 ? in.p[in.n - 1] * UINT64_C(3) + 1 : 1;
    demand(cs_audit_writer_resume(w, c.from, size, &root) != CS_OK);
    cs_audit_writer_free(w);
    struct cs_audit_tiles tiles;
    struct cs_audit_path path;
    cs_audit_tiles_init(&tiles, c.from, size);
    struct cs_audit_nodes nodes = cs_audit_tiles_nodes(&tiles);
    (void)cs_audit_prove_inclusion(&nodes, size / 2, size, &path);
    (void)cs_audit_prove_consistency(&nodes, size / 2 + 1, size, &path);
    cs_audit_tiles_done(&tiles);
}

static void head(struct cs_slice in)
{
    struct cs_audit_checkpoint c;
    struct cs_slice events, line;
    if (cs_ledger_head_read(in, &c, &events)) {
        demand(events.n <= in.n && events.p + events.n == in.p + in.n);
        while (cs_audit_line(&events, &line)) {
            demand(line.n == 6 + 2 * CS_ID_BYTES);
        }
        demand(events.n == 0);
    }
}

static void boxes(struct cs_slice in)
{
    static const uint8_t private[CS_X25519] = {7};
    struct cs_box_row row;
    struct cs_buf again = cs_buf(1 << 20), out = cs_buf(1 << 20);
    struct cs_slice all = in;
    while (cs_box_row_next(&in, &row)) {
        cs_box_row_write(&again, &row);
        demand(cs_box_row_pass(private, &row, private, &out) != CS_OK);
        demand(cs_box_row_open(private, &row, cs_slice(private, CS_X25519), &out) != CS_OK);
    }
    demand(again.bad || cs_slice_eq(cs_buf_slice(&again), cs_slice_head(all, all.n - in.n)));
    demand(out.len == 0);
    cs_buf_done(&again);
    cs_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const readers[])(struct cs_slice) = {leaf,   note,      verifier_key, proof,
                                                       bundle, whole_log, head,         boxes};
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
