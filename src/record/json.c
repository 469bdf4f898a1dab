/* The JSON writer (json.h). Called by the replayer, for text that clients and targets chose. It
 * must never let such text out of its quotes. */
#include "record/json.h"

#include "crypto/crypto.h"

#define EXACT_MAX ((1ULL << 53) - 1)

static void raw_string(struct cs_buf *out, struct cs_slice s)
{
    static const char hex[] = "0123456789abcdef";
    size_t from = 0;
    cs_buf_u8(out, '"');
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        /* DEL and '<' too: the text may end in a terminal or inside a page. */
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f && c != '<') {
            continue;
        }
        cs_buf_add(out, cs_slice(s.p + from, i - from));
        from = i + 1;
        if (c == '"' || c == '\\') {
            const char two[] = {'\\', (char)c};
            cs_buf_add(out, cs_slice(two, sizeof two));
        } else {
            const char six[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
            cs_buf_add(out, cs_slice(six, sizeof six));
        }
    }
    cs_buf_add(out, cs_slice_from(s, from));
    cs_buf_u8(out, '"');
}

static void before(struct cs_json *j, const char *key)
{
    if (j->comma) {
        cs_buf_str(j->out, ", ");
    }
    j->comma = true;
    if (key != NULL) {
        raw_string(j->out, cs_slice_str(key));
        cs_buf_str(j->out, ": ");
    }
}

void cs_json_begin(struct cs_json *j, const char *key, char open)
{
    before(j, key);
    cs_buf_u8(j->out, (uint8_t)open);
    j->comma = false;
}

void cs_json_end(struct cs_json *j, char close)
{
    cs_buf_u8(j->out, (uint8_t)close);
    j->comma = true;
}

void cs_json_u64(struct cs_json *j, const char *key, uint64_t v)
{
    before(j, key);
    cs_buf_printf(j->out, v <= EXACT_MAX ? "%llu" : "\"%llu\"", (unsigned long long)v);
}

void cs_json_null(struct cs_json *j, const char *key)
{
    before(j, key);
    cs_buf_str(j->out, "null");
}

void cs_json_bool(struct cs_json *j, const char *key, bool v)
{
    before(j, key);
    cs_buf_str(j->out, v ? "true" : "false");
}

static void base64(struct cs_buf *out, struct cs_slice s)
{
    cs_buf_u8(out, '"');
    size_t n = cs_base64_size(s.n);
    uint8_t *room = cs_buf_room(out, n);
    if (room != NULL) {
        out->len += cs_base64_encode(s, false, (char *)room);
    }
    cs_buf_u8(out, '"');
}

void cs_json_bytes(struct cs_json *j, const char *key, struct cs_slice s)
{
    if (cs_utf8_valid(s) && cs_slice_find(s, 0) == s.n) {
        before(j, key);
        raw_string(j->out, s);
        return;
    }
    cs_json_begin(j, key, '{');
    before(j, "base64");
    base64(j->out, s);
    cs_json_end(j, '}');
}

void cs_json_str(struct cs_json *j, const char *key, const char *s)
{
    before(j, key);
    raw_string(j->out, cs_slice_str(s));
}

void cs_json_hex(struct cs_json *j, const char *key, struct cs_slice s)
{
    static const char hex[] = "0123456789abcdef";
    before(j, key);
    cs_buf_u8(j->out, '"');
    for (size_t i = 0; i < s.n; i++) {
        cs_buf_u8(j->out, (uint8_t)hex[s.p[i] >> 4]);
        cs_buf_u8(j->out, (uint8_t)hex[s.p[i] & 15]);
    }
    cs_buf_u8(j->out, '"');
}
