/* Percent-decoding of paths and queries (url.h). Called by front before it passes a path on, by
 * control to take parameters out of it, and by the commands to build targets. Must never decode
 * twice or hand out a segment that means something else to the next reader. */
#include "wire/url.h"

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Control bytes are refused whichever way they are written. `slash`: also an encoded slash. */
static bool decode(struct cs_slice raw, bool slash, uint8_t *out, size_t cap, struct cs_slice *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < raw.n; i++) {
        uint8_t c = raw.p[i];
        if (c == '%') {
            int high = raw.n - i > 2 ? hex_value(raw.p[i + 1]) : -1;
            int low = raw.n - i > 2 ? hex_value(raw.p[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            c = (uint8_t)(high * 16 + low);
            i += 2;
            /* SECURITY: "%2F" would make two segments of one behind the next decoder, "%5C" on
             * systems that take a backslash for a slash. */
            if (!slash && (c == '/' || c == '\\')) {
                return false;
            }
        }
        if (c < 0x20 || c == 0x7f || n == cap) {
            return false;
        }
        out[n++] = c;
    }
    *ret = cs_slice(out, n);
    return cs_utf8_valid(*ret);
}

enum cs_url cs_url_segment_next(struct cs_slice path, size_t *at, struct cs_slice *ret_raw)
{
    if (path.n == 0 || path.p[0] != '/') {
        return CS_URL_BAD;
    }
    if (*at == path.n || path.n == 1) {
        return CS_URL_END;
    }
    struct cs_slice rest = cs_slice_from(path, *at + 1);
    size_t n = cs_slice_find(rest, '/');
    if (n == 0) {
        return CS_URL_BAD;
    }
    *ret_raw = cs_slice_head(rest, n);
    *at += 1 + n;
    return CS_URL_OK;
}

bool cs_url_segment_decode(struct cs_slice raw, uint8_t *out, size_t cap, struct cs_slice *ret)
{
    struct cs_slice s;
    if (!decode(raw, false, out, cap, &s) || s.n == 0 || cs_slice_eq_str(s, ".") ||
        cs_slice_eq_str(s, "..")) {
        return false;
    }
    *ret = s;
    return true;
}

bool cs_url_path_valid(struct cs_slice path)
{
    size_t at = 0;
    struct cs_slice raw, s;
    uint8_t out[256];
    enum cs_url got;
    while ((got = cs_url_segment_next(path, &at, &raw)) == CS_URL_OK) {
        if (!cs_url_segment_decode(raw, out, sizeof out, &s)) {
            return false;
        }
    }
    return got == CS_URL_END;
}

enum cs_url cs_url_query_get(struct cs_slice query, const char *name, uint8_t *out, size_t cap,
                             struct cs_slice *ret)
{
    struct cs_slice found = CS_SLICE_NULL;
    bool has = false;
    while (query.n > 0) {
        size_t n = cs_slice_find(query, '&');
        struct cs_slice pair = cs_slice_head(query, n);
        size_t eq = cs_slice_find(pair, '=');
        if (cs_slice_eq_str(cs_slice_head(pair, eq), name)) {
            if (has) {
                return CS_URL_BAD;
            }
            has = true;
            found = cs_slice_from(pair, eq + 1);
        }
        query = cs_slice_from(query, n + 1);
    }
    if (!has) {
        return CS_URL_END;
    }
    return decode(found, true, out, cap, ret) ? CS_URL_OK : CS_URL_BAD;
}

enum cs_url cs_url_query_u64(struct cs_slice query, const char *name, uint64_t max, uint64_t *ret)
{
    uint8_t text[24];
    struct cs_slice s;
    uint64_t v;
    enum cs_url got = cs_url_query_get(query, name, text, sizeof text, &s);
    if (got != CS_URL_OK) {
        return got;
    }
    if (!cs_slice_to_u64(s, &v) || v > max) {
        return CS_URL_BAD;
    }
    *ret = v;
    return CS_URL_OK;
}

static bool unreserved(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void cs_url_encode(struct cs_writer *w, struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (unreserved(s.p[i])) {
            cs_writer_u8(w, s.p[i]);
        } else {
            cs_writer_printf(w, "%%%02X", s.p[i]);
        }
    }
}

/* host, host:port, [v6], [v6]:port */
static bool split_authority(struct cs_slice s, struct cs_url_base *r)
{
    struct cs_slice port = CS_SLICE_NULL;
    size_t colon;
    if (s.n > 0 && s.p[0] == '[') {
        size_t close = cs_slice_find(s, ']');
        if (close == s.n || (close + 1 < s.n && s.p[close + 1] != ':')) {
            return false;
        }
        r->host = cs_slice(s.p + 1, close - 1);
        colon = close + 1;
    } else {
        colon = cs_slice_find(s, ':');
        r->host = cs_slice_head(s, colon);
    }
    if (colon < s.n) {
        uint64_t v;
        port = cs_slice_from(s, colon + 1);
        if (!cs_slice_to_u64(port, &v) || v == 0 || v > UINT16_MAX) {
            return false;
        }
        r->port = (uint16_t)v;
    }
    return r->host.n > 0 && r->host.n < 256;
}

bool cs_url_base_parse(struct cs_slice url, struct cs_url_base *ret)
{
    static const struct {
        const char *scheme;
        bool tls;
        uint16_t port;
    } schemes[] = {{"https://", true, 443}, {"http://", false, 80}};
    for (size_t i = 0; i < CS_ARRAY_LEN(schemes); i++) {
        struct cs_slice scheme = cs_slice_str(schemes[i].scheme);
        if (!cs_slice_starts(url, scheme)) {
            continue;
        }
        struct cs_slice rest = cs_slice_from(url, scheme.n);
        struct cs_url_base r = {schemes[i].tls, CS_SLICE_NULL, schemes[i].port};
        size_t slash = cs_slice_find(rest, '/');
        if (rest.n - slash > 1 || !split_authority(cs_slice_head(rest, slash), &r)) {
            return false;
        }
        /* SECURITY: "https://gate@evil" names evil, and a control byte could forge a header. */
        for (size_t k = 0; k < r.host.n; k++) {
            if (!unreserved(r.host.p[k]) && r.host.p[k] != ':') {
                return false;
            }
        }
        *ret = r;
        return true;
    }
    return false;
}
