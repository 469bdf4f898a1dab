/* PostgreSQL messages: framing gives the same messages however the bytes arrive, and no reader
 * reads past its message. The first byte chooses direction and where the input is cut. */
#include "proto/postgres/message.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint64_t hash;
    size_t messages, consumed;
    bool bad;
};

static bool each(struct cs_slice key, struct cs_slice value, void *arg)
{
    size_t at = 0;
    char mem[64];
    struct cs_slice k, v;
    while (pg_options_next(value, &at, mem, sizeof mem, &k, &v) == 1) {
    }
    (void)key;
    (void)arg;
    return true;
}

static void read_body(const struct pg_frame *f)
{
    struct cs_slice a, b;
    struct pg_parse p;
    struct pg_bind bi;
    struct pg_error e;
    uint8_t what;
    (void)pg_parse_query(f->body, &a);
    if (pg_parse_parse(f->body, &p) && p.name.n + p.text.n + 4 + p.n_types * 4 != f->body.n) {
        abort();
    }
    if (pg_parse_bind(f->body, &bi) && bi.params.n > f->body.n) {
        abort();
    }
    struct pg_call call;
    if (pg_parse_call(f->body, &call) && call.params.n > f->body.n) {
        abort();
    }
    (void)pg_parse_target(f->body, &what, &a);
    (void)pg_parse_execute(f->body, &a);
    (void)pg_parse_error(f->body, &e);
    (void)pg_parse_parameter(f->body, &a, &b);
    (void)pg_parse_startup(f->body, each, NULL);
}

/* Feeds the bytes in pieces that end at `cut` and at the end. */
static struct seen run(struct cs_slice in, bool client, size_t cut)
{
    struct seen s = {.hash = 1469598103934665603ULL};
    size_t at = 0, have = cut < in.n ? cut : in.n;
    uint32_t skip = 0;
    while (!s.bad) {
        struct cs_slice piece = {in.p + at, have - at};
        struct pg_frame f;
        if (skip > 0) {
            uint32_t n = skip < piece.n ? skip : (uint32_t)piece.n;
            skip -= n;
            at += n;
            if (at < have) {
                continue;
            }
        } else if (piece.n > 0) {
            enum pg_frame_result r = pg_frame_next(piece, client, &f);
            if (r == PG_FRAME_OK) {
                size_t here = f.total < piece.n ? f.total : piece.n;
                if (f.handling == PG_WHOLE && here != f.total) {
                    abort();
                }
                if (f.handling == PG_WHOLE) {
                    read_body(&f);
                }
                s.messages++;
                s.hash = (s.hash ^ f.type ^ ((uint64_t)f.total << 8)) * 1099511628211ULL;
                at += here;
                skip = f.total - (uint32_t)here;
                continue;
            }
            s.bad = r == PG_FRAME_BAD;
            if (r == PG_FRAME_NEED && have == in.n) {
                break;
            }
        }
        if (have == in.n) {
            break;
        }
        have = in.n;
    }
    s.consumed = at;
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    struct cs_slice in = {data + 2, size - 2};
    bool client = (data[0] & 1) != 0;
    struct seen whole = run(in, client, in.n),
                split = run(in, client, (size_t)data[1] % (in.n + 1));
    if (whole.hash != split.hash || whole.messages != split.messages || whole.bad != split.bad) {
        abort();
    }
    return 0;
}
