/* Framing, readers and writers of PostgreSQL messages. Pure: no input or output, no waiting; memory
 * only through struct cs_buf. */
#include "proto/postgres/message.h"

/* ---- framing ---- */

#define WHOLE(limit)                                                                               \
    {                                                                                              \
        PG_WHOLE, (limit)                                                                          \
    }
#define STREAM                                                                                     \
    {                                                                                              \
        PG_STREAM, UINT32_MAX                                                                      \
    }

/* A type without a row is PG_UNKNOWN. */
static const struct pg_shape frontend[256] = {
    ['Q'] = WHOLE(CS_LIMIT_PG_QUERY_BYTES),
    ['P'] = WHOLE(CS_LIMIT_PG_QUERY_BYTES),
    ['B'] = WHOLE(CS_LIMIT_PG_BIND_BYTES),
    ['D'] = WHOLE(CS_LIMIT_PG_SHORT_BYTES),
    ['E'] = WHOLE(CS_LIMIT_PG_SHORT_BYTES),
    ['C'] = WHOLE(CS_LIMIT_PG_SHORT_BYTES),
    ['F'] = WHOLE(CS_LIMIT_PG_BIND_BYTES),
    ['S'] = WHOLE(4),
    ['H'] = WHOLE(4),
    ['X'] = WHOLE(4),
    ['p'] = WHOLE(CS_LIMIT_PG_SHORT_BYTES),
    ['d'] = STREAM,
    ['c'] = WHOLE(4),
    ['f'] = WHOLE(CS_LIMIT_PG_SHORT_BYTES),
};

static const struct pg_shape backend[256] = {
    ['R'] = WHOLE(CS_LIMIT_PG_SERVER_CONTROL_BYTES),
    ['K'] = WHOLE(CS_LIMIT_PG_SHORT_BYTES),
    ['S'] = WHOLE(CS_LIMIT_PG_SERVER_CONTROL_BYTES),
    ['Z'] = WHOLE(5),
    ['E'] = WHOLE(CS_LIMIT_PG_SERVER_CONTROL_BYTES),
    ['N'] = WHOLE(CS_LIMIT_PG_SERVER_CONTROL_BYTES),
    ['A'] = WHOLE(CS_LIMIT_PG_SERVER_CONTROL_BYTES),
    ['C'] = WHOLE(CS_LIMIT_PG_SHORT_BYTES),
    ['I'] = WHOLE(4),
    ['1'] = WHOLE(4),
    ['2'] = WHOLE(4),
    ['3'] = WHOLE(4),
    ['s'] = WHOLE(4),
    ['n'] = WHOLE(4),
    ['G'] = WHOLE(CS_LIMIT_PG_SERVER_CONTROL_BYTES),
    ['H'] = WHOLE(CS_LIMIT_PG_SERVER_CONTROL_BYTES),
    ['W'] = WHOLE(CS_LIMIT_PG_SERVER_CONTROL_BYTES),
    ['v'] = WHOLE(CS_LIMIT_PG_SHORT_BYTES),
    ['c'] = WHOLE(4),
    ['t'] = STREAM,
    ['T'] = STREAM,
    ['D'] = STREAM,
    ['d'] = STREAM,
    ['V'] = STREAM,
};

struct pg_shape pg_shape_frontend(uint8_t type)
{
    return frontend[type];
}

struct pg_shape pg_shape_backend(uint8_t type)
{
    return backend[type];
}

enum pg_frame_result pg_frame_next(struct cs_slice in, bool from_client, struct pg_frame *ret)
{
    ret->total = 0;
    if (in.n < 5) {
        if (in.n > 0 && (from_client ? frontend : backend)[in.p[0]].handling == PG_UNKNOWN) {
            return PG_FRAME_BAD;
        }
        return PG_FRAME_NEED;
    }
    struct pg_shape shape = (from_client ? frontend : backend)[in.p[0]];
    uint32_t len =
        (uint32_t)in.p[1] << 24 | (uint32_t)in.p[2] << 16 | (uint32_t)in.p[3] << 8 | in.p[4];
    /* A length below four or beyond the limit: the peer lies or we have lost its place. */
    if (shape.handling == PG_UNKNOWN || len < 4 || len > shape.max || len > 0x7ffffffe) {
        return PG_FRAME_BAD;
    }
    ret->type = in.p[0];
    ret->handling = shape.handling;
    ret->total = len + 1;
    if (shape.handling == PG_WHOLE && in.n < ret->total) {
        return PG_FRAME_NEED;
    }
    ret->body = cs_slice_head(cs_slice_from(in, 5), len - 4);
    return PG_FRAME_OK;
}

/* ---- the client's messages ---- */

bool pg_parse_query(struct cs_slice body, struct cs_slice *ret_text)
{
    /* The server reads up to the first NUL: anything behind it would be judged and not run, or the
     * other way round. */
    if (body.n == 0 || cs_slice_find(body, 0) != body.n - 1) {
        return false;
    }
    *ret_text = cs_slice_head(body, body.n - 1);
    return true;
}

bool pg_parse_parse(struct cs_slice body, struct pg_parse *ret)
{
    struct cs_reader r = cs_reader(body);
    ret->name = cs_reader_cstr(&r);
    ret->text = cs_reader_cstr(&r);
    ret->n_types = cs_reader_u16(&r);
    ret->types = cs_reader_take(&r, ret->n_types * 4).p;
    return cs_reader_done(&r);
}

/* Their values, packed: u32 length (-1 is NULL) and bytes each. */
static struct cs_slice take_params(struct cs_reader *r, size_t n_params)
{
    const uint8_t *from = r->p;
    for (size_t i = 0; i < n_params && !r->bad; i++) {
        uint32_t n = cs_reader_u32(r);
        if (n != UINT32_MAX) {
            (void)cs_reader_take(r, n);
        }
    }
    return r->bad ? CS_SLICE_NULL : cs_slice(from, (size_t)(r->p - from));
}

bool pg_parse_call(struct cs_slice body, struct pg_call *ret)
{
    struct cs_reader r = cs_reader(body);
    ret->function = cs_reader_u32(&r);
    ret->n_formats = cs_reader_u16(&r);
    ret->formats = cs_reader_take(&r, ret->n_formats * 2).p;
    ret->n_params = cs_reader_u16(&r);
    ret->params = take_params(&r, ret->n_params);
    ret->result_format = cs_reader_u16(&r);
    /* None, one for all, or one each: the server takes nothing else. */
    return cs_reader_done(&r) && (ret->n_formats <= 1 || ret->n_formats == ret->n_params);
}

bool pg_parse_bind(struct cs_slice body, struct pg_bind *ret)
{
    struct cs_reader r = cs_reader(body);
    ret->portal = cs_reader_cstr(&r);
    ret->statement = cs_reader_cstr(&r);
    ret->n_formats = cs_reader_u16(&r);
    ret->formats = cs_reader_take(&r, ret->n_formats * 2).p;
    ret->n_params = cs_reader_u16(&r);
    ret->params = take_params(&r, ret->n_params);
    (void)cs_reader_take(&r, (size_t)cs_reader_u16(&r) * 2); /* result formats */
    return cs_reader_done(&r);
}

bool pg_parse_target(struct cs_slice body, uint8_t *ret_what, struct cs_slice *ret_name)
{
    struct cs_reader r = cs_reader(body);
    *ret_what = cs_reader_u8(&r);
    *ret_name = cs_reader_cstr(&r);
    return cs_reader_done(&r) && (*ret_what == 'S' || *ret_what == 'P');
}

bool pg_parse_execute(struct cs_slice body, struct cs_slice *ret_portal)
{
    struct cs_reader r = cs_reader(body);
    *ret_portal = cs_reader_cstr(&r);
    (void)cs_reader_u32(&r);
    return cs_reader_done(&r);
}

/* ---- the server's messages ---- */

bool pg_parse_error(struct cs_slice body, struct pg_error *ret)
{
    struct cs_reader r = cs_reader(body);
    memset(ret, 0, sizeof *ret);
    for (;;) {
        uint8_t field = cs_reader_u8(&r);
        if (r.bad) {
            return false;
        }
        if (field == 0) {
            return cs_reader_done(&r);
        }
        struct cs_slice value = cs_reader_cstr(&r);
        switch (field) {
        case 'V':
            ret->severity = value;
            break;
        case 'C':
            ret->sqlstate = value;
            break;
        case 'M':
            ret->message = value;
            break;
        case 'D':
            ret->detail = value;
            break;
        case 'H':
            ret->hint = value;
            break;
        default:
            break;
        }
    }
}

bool pg_parse_parameter(struct cs_slice body, struct cs_slice *ret_name, struct cs_slice *ret_value)
{
    struct cs_reader r = cs_reader(body);
    *ret_name = cs_reader_cstr(&r);
    *ret_value = cs_reader_cstr(&r);
    return cs_reader_done(&r);
}

/* ---- startup ---- */

bool pg_parse_startup(struct cs_slice body,
                      bool (*each)(struct cs_slice key, struct cs_slice value, void *arg),
                      void *arg)
{
    struct cs_reader r = cs_reader(body);
    struct cs_slice seen[32];
    size_t n = 0;
    for (;;) {
        struct cs_slice key = cs_reader_cstr(&r);
        if (r.bad) {
            return false;
        }
        if (key.n == 0) {
            return cs_reader_done(&r); /* the final NUL, and nothing behind it */
        }
        struct cs_slice value = cs_reader_cstr(&r);
        for (size_t i = 0; i < n; i++) {
            if (cs_slice_eq(seen[i], key)) {
                return false; /* one reader takes the first, another the last */
            }
        }
        if (r.bad || n == CS_ARRAY_LEN(seen) || !each(key, value, arg)) {
            return false;
        }
        seen[n++] = key;
    }
}

static size_t option_word(struct cs_slice options, size_t *at, char *mem, size_t cap)
{
    size_t n = 0;
    while (*at < options.n && (options.p[*at] == ' ' || options.p[*at] == '\t')) {
        (*at)++;
    }
    while (*at < options.n && options.p[*at] != ' ' && options.p[*at] != '\t') {
        if (options.p[*at] == '\\' && *at + 1 < options.n) {
            (*at)++;
        }
        if (n == cap) {
            return SIZE_MAX;
        }
        mem[n++] = (char)options.p[(*at)++];
    }
    return n;
}

int pg_options_next(struct cs_slice options, size_t *at, char *mem, size_t cap,
                    struct cs_slice *ret_name, struct cs_slice *ret_value)
{
    size_t n = option_word(options, at, mem, cap);
    if (n == 0) {
        return 0;
    }
    if (n == SIZE_MAX || n < 2 || mem[0] != '-') {
        return -1;
    }
    struct cs_slice word = cs_slice(mem + 2, n - 2);
    if (mem[1] == 'c' && word.n == 0) { /* "-c name=value" in two words */
        n = option_word(options, at, mem, cap);
        if (n == 0 || n == SIZE_MAX) {
            return -1;
        }
        word = cs_slice(mem, n);
    } else if (mem[1] != 'c' && mem[1] != '-') {
        return -1;
    }
    size_t eq = cs_slice_find(word, '=');
    if (eq == 0 || eq == word.n) {
        return -1;
    }
    *ret_name = cs_slice_head(word, eq);
    *ret_value = cs_slice_from(word, eq + 1);
    return 1;
}

/* ---- writers ---- */

void pg_put_u32(struct cs_buf *b, uint32_t v)
{
    uint8_t w[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    cs_buf_add(b, cs_slice(w, sizeof w));
}

void pg_put_u16(struct cs_buf *b, uint16_t v)
{
    uint8_t w[2] = {(uint8_t)(v >> 8), (uint8_t)v};
    cs_buf_add(b, cs_slice(w, sizeof w));
}

size_t pg_begin(struct cs_buf *b, uint8_t type)
{
    cs_buf_u8(b, type);
    size_t at = b->len;
    pg_put_u32(b, 0);
    return at;
}

void pg_finish(struct cs_buf *b, size_t at)
{
    if (b->bad || b->len < at || b->len - at > 0x7fffffff) {
        b->bad = true;
        return;
    }
    uint32_t n = (uint32_t)(b->len - at);
    b->p[at] = (uint8_t)(n >> 24);
    b->p[at + 1] = (uint8_t)(n >> 16);
    b->p[at + 2] = (uint8_t)(n >> 8);
    b->p[at + 3] = (uint8_t)n;
}

void pg_put_cstr(struct cs_buf *b, struct cs_slice s)
{
    while (s.n > 0) {
        size_t n = cs_slice_find(s, 0);
        cs_buf_add(b, cs_slice_head(s, n));
        s = cs_slice_from(s, n + 1);
    }
    cs_buf_u8(b, 0);
}

static void put_field(struct cs_buf *b, uint8_t field, struct cs_slice value)
{
    if (value.n > 0) {
        cs_buf_u8(b, field);
        pg_put_cstr(b, value);
    }
}

void pg_put_error(struct cs_buf *b, uint8_t type, const char *severity, const char *sqlstate,
                  struct cs_slice message, struct cs_slice detail, struct cs_slice hint)
{
    size_t at = pg_begin(b, type);
    put_field(b, 'S', cs_slice_str(severity));
    put_field(b, 'V', cs_slice_str(severity));
    put_field(b, 'C', cs_slice_str(sqlstate));
    put_field(b, 'M', message);
    put_field(b, 'D', detail);
    put_field(b, 'H', hint);
    cs_buf_u8(b, 0);
    pg_finish(b, at);
}

void pg_put_ready(struct cs_buf *b, uint8_t tx)
{
    size_t at = pg_begin(b, 'Z');
    cs_buf_u8(b, tx);
    pg_finish(b, at);
}
