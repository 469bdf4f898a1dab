/* PostgreSQL's DataRow, RowDescription and CopyData out of recorded bytes (rows.h). Called by
 * replay.c. It must take any bytes: they are a client's and a server's, and perhaps somebody's who
 * changed the file. */
#include "record/rows.h"

#include "base/limits.h"
#include "base/reader.h"

enum { MESSAGE_MAX = 1 << 20, HEX_MAX = 64, MESSAGE_HEAD = 5, COLUMN_REST = 18 };

/* ---- values ---- */

static bool readable(struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < ' ' && s.p[i] != '\n' && s.p[i] != '\t' && s.p[i] != '\r') {
            return false;
        }
    }
    return cs_utf8_valid(s);
}

static void value(struct cs_json *j, const char *key, struct cs_slice s)
{
    if (readable(s)) {
        cs_json_bytes(j, key, s);
        return;
    }
    cs_json_begin(j, key, '{');
    cs_json_hex(j, "hex", cs_slice_head(s, HEX_MAX));
    cs_json_u64(j, "bytes", s.n);
    cs_json_end(j, '}');
}

/* ---- messages: false, and nothing written, when it is none ---- */

static bool columns(struct cs_json *j, struct cs_slice body, bool write)
{
    struct cs_reader r = cs_reader(body);
    size_t n = cs_reader_u16(&r);
    if (write) {
        cs_json_begin(j, NULL, '{');
        cs_json_begin(j, "columns", '[');
    }
    for (size_t i = 0; i < n && !r.bad; i++) {
        struct cs_slice rest = cs_slice_from(body, body.n - cs_reader_left(&r));
        struct cs_slice name = cs_slice_head(rest, cs_slice_find(rest, 0));
        (void)cs_reader_take(&r, name.n + 1);
        (void)cs_reader_take(&r, COLUMN_REST);
        if (write) {
            value(j, NULL, name);
        }
    }
    if (write) {
        cs_json_end(j, ']');
        cs_json_end(j, '}');
    }
    return cs_reader_done(&r);
}

static bool row(struct cs_json *j, struct cs_slice body, bool write)
{
    struct cs_reader r = cs_reader(body);
    size_t n = cs_reader_u16(&r);
    if (write) {
        cs_json_begin(j, NULL, '{');
        cs_json_begin(j, "row", '[');
    }
    for (size_t i = 0; i < n && !r.bad; i++) {
        uint32_t len = cs_reader_u32(&r);
        bool null = len == UINT32_MAX;
        struct cs_slice v = null ? CS_SLICE_NULL : cs_reader_take(&r, len);
        if (write && null) {
            cs_json_null(j, NULL);
        } else if (write) {
            value(j, NULL, v);
        }
    }
    if (write) {
        cs_json_end(j, ']');
        cs_json_end(j, '}');
    }
    return cs_reader_done(&r);
}

static bool message(struct cs_json *j, uint8_t type, struct cs_slice body)
{
    switch (type) {
    case 'T':
        return columns(j, body, false) && columns(j, body, true);
    case 'D':
        return row(j, body, false) && row(j, body, true);
    case 'd':
        cs_json_begin(j, NULL, '{');
        value(j, "copy", body);
        cs_json_end(j, '}');
        return true;
    default:
        return false;
    }
}

/* ---- the stream ---- */

static uint32_t length_of(const uint8_t *p)
{
    return (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
}

static struct cs_slice skip(struct cs_rows *r, struct cs_slice in)
{
    size_t n = (size_t)CS_MIN(r->skip, (uint64_t)in.n);
    r->skip -= n;
    return cs_slice_from(in, n);
}

/* Takes whole messages from the head of `in`; what is left is the beginning of one. */
static struct cs_slice messages(struct cs_rows *r, struct cs_json *j, struct cs_slice in)
{
    while (!r->lost && in.n >= MESSAGE_HEAD) {
        uint32_t len = length_of(in.p);
        if (len < 4 || len > INT32_MAX) {
            r->lost = true;
            break;
        }
        uint64_t total = (uint64_t)len + 1;
        if (total > MESSAGE_MAX) {
            cs_json_begin(j, NULL, '{');
            cs_json_u64(j, "bytes", total);
            cs_json_end(j, '}');
            r->skip = total;
            in = skip(r, in);
            continue;
        }
        if (in.n < total) {
            break;
        }
        r->lost = !message(j, in.p[0], cs_slice_head(cs_slice_from(in, MESSAGE_HEAD), len - 4));
        in = r->lost ? in : cs_slice_from(in, (size_t)total);
    }
    return in;
}

void cs_rows_show(struct cs_rows *r, struct cs_json *j, uint64_t n, uint64_t at,
                  struct cs_slice data)
{
    if (r->n != n || at == 0) {
        cs_rows_done(r);
        *r = (struct cs_rows){.n = n, .part = cs_buf(2 * MESSAGE_MAX)};
    }
    r->lost = r->lost || at != r->at;
    r->at = at + data.n;
    if (!r->lost) {
        cs_json_begin(j, "said", '[');
        struct cs_slice in = skip(r, data);
        cs_buf_add(&r->part, in);
        struct cs_slice rest = messages(r, j, cs_buf_slice(&r->part));
        cs_buf_drop(&r->part, r->part.len - rest.n);
        r->lost = r->lost || r->part.bad;
        cs_json_end(j, ']');
    }
    if (r->lost) {
        value(j, "data", data);
    }
}

void cs_rows_done(struct cs_rows *r)
{
    cs_buf_done(&r->part);
}
