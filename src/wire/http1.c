/* The strict HTTP/1.1 parser and writer (http1.h). Called by front for what comes in from browsers
 * and commands, and by the commands for what comes back. Everything here is a place where two
 * parsers in a row could disagree, so each check refuses and none repairs. Must never read past the
 * head it was given, allocate, or keep anything between calls. */
#include "wire/http1.h"

/* ---- characters ---- */
enum { TOKEN = 1, PATH = 2, QUERY = 4, VALUE = 8, HOST = 16, BEARER = 32 };

static unsigned classes_of(uint8_t c)
{
    bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (alnum) {
        return TOKEN | PATH | QUERY | VALUE | HOST | BEARER;
    }
    if (c == 0) {
        return 0; /* strchr would find it at the end of each list */
    }
    unsigned is = 0;
    is |= strchr("!#$%&'*+-.^_`|~", c) != NULL ? TOKEN : 0;
    is |= strchr("-._~!$&'()*+,;=:@/%", c) != NULL ? PATH | QUERY : 0;
    is |= c == '?' ? QUERY : 0;
    is |= c == '\t' || (c >= 0x20 && c != 0x7f) ? VALUE : 0;
    is |= strchr("-._:[]", c) != NULL ? HOST : 0;
    is |= strchr("-._~+/=", c) != NULL ? BEARER : 0;
    return is;
}

static bool all_of(struct cs_slice s, unsigned class)
{
    for (size_t i = 0; i < s.n; i++) {
        if ((classes_of(s.p[i]) & class) == 0) {
            return false;
        }
    }
    return s.n > 0;
}

static bool refuse(struct cs_http_refusal *ret, unsigned status, const char *why)
{
    *ret = (struct cs_http_refusal){status, why};
    return false;
}

/* ---- finding the end ---- */
/* SECURITY: a bare CR or LF, which lenient parsers take for a line's end, and NUL, which ends a
 * string for some: a head that holds one has several readings. */
static bool byte_fits(struct cs_slice in, size_t i)
{
    uint8_t c = in.p[i];
    if (c == '\n') {
        return i > 0 && in.p[i - 1] == '\r';
    }
    if (i > 0 && in.p[i - 1] == '\r') {
        return false;
    }
    return c == '\r' || c == '\t' || (c >= 0x20 && c != 0x7f);
}

enum cs_http cs_http_scan(struct cs_slice in, size_t max, size_t *at, size_t *ret_n,
                          struct cs_http_refusal *ret_why)
{
    size_t end = in.n < max ? in.n : max;
    for (size_t i = *at; i < end; i++) {
        if (!byte_fits(in, i)) {
            (void)refuse(ret_why, 400, "a byte that no HTTP head may hold");
            return CS_HTTP_BAD;
        }
        if (in.p[i] == '\n' && i < 2) {
            (void)refuse(ret_why, 400, "an empty line before the request line");
            return CS_HTTP_BAD;
        }
        if (in.p[i] == '\n' && in.p[i - 2] == '\n') {
            *at = 0;
            *ret_n = i + 1;
            return CS_HTTP_OK;
        }
    }
    if (in.n >= max) {
        (void)refuse(ret_why, 431, "the request line and header fields are too long");
        return CS_HTTP_BAD;
    }
    *at = end;
    return CS_HTTP_NEED;
}

/* ---- header fields ---- */
static const char *const known_names[CS_HTTP_FIELD_KNOWN_MAX] = {
    [CS_HTTP_FIELD_HOST] = "host",
    [CS_HTTP_FIELD_CONTENT_LENGTH] = "content-length",
    [CS_HTTP_FIELD_TRANSFER_ENCODING] = "transfer-encoding",
    [CS_HTTP_FIELD_CONNECTION] = "connection",
    [CS_HTTP_FIELD_EXPECT] = "expect",
    [CS_HTTP_FIELD_AUTHORIZATION] = "authorization",
    [CS_HTTP_FIELD_ORIGIN] = "origin",
    [CS_HTTP_FIELD_CONTENT_TYPE] = "content-type",
    [CS_HTTP_FIELD_CONTENT_ENCODING] = "content-encoding",
};

static enum cs_http_known known_field(struct cs_slice name)
{
    for (unsigned k = CS_HTTP_FIELD_OTHER + 1; k < CS_HTTP_FIELD_KNOWN_MAX; k++) {
        if (cs_slice_eq_nocase(name, cs_slice_str(known_names[k]))) {
            return (enum cs_http_known)k;
        }
    }
    return CS_HTTP_FIELD_OTHER;
}

/* The next line without its CR LF; false at the empty one that ends the head. */
static bool next_line(struct cs_slice *rest, struct cs_slice *ret)
{
    size_t n = cs_slice_find(*rest, '\r');
    *ret = cs_slice_head(*rest, n);
    *rest = cs_slice_from(*rest, n + 2);
    return n > 0;
}

static bool parse_field(struct cs_slice line, struct cs_http_fields *f,
                        struct cs_http_refusal *ret_why)
{
    size_t colon = cs_slice_find(line, ':');
    struct cs_slice name = cs_slice_head(line, colon);
    /* SECURITY: also stops a blank before the colon and a folded line: neither is a token, and both
     * have let a field through under two names. */
    if (colon == line.n || !all_of(name, TOKEN)) {
        return refuse(ret_why, 400, "a header field without a proper name");
    }
    struct cs_slice value = cs_slice_trim(cs_slice_from(line, colon + 1));
    if (value.n > 0 && !all_of(value, VALUE)) {
        return refuse(ret_why, 400, "a header field with a control byte");
    }
    if (f->n == CS_HTTP_FIELDS) {
        return refuse(ret_why, 431, "too many header fields");
    }
    f->v[f->n++] = (struct cs_http_field){name, value};
    enum cs_http_known k = known_field(name);
    if (k != CS_HTTP_FIELD_OTHER) {
        /* SECURITY: of two Content-Length, Host or Authorization fields each reader picks his own.
         */
        if (f->has[k]) {
            return refuse(ret_why, 400,
                          "a header field that may stand there only once is repeated");
        }
        f->has[k] = true;
        f->known[k] = value;
    }
    return true;
}

static bool parse_fields(struct cs_slice rest, struct cs_http_fields *f,
                         struct cs_http_refusal *ret_why)
{
    struct cs_slice line;
    f->n = 0;
    memset(f->has, 0, sizeof f->has);
    memset(f->known, 0, sizeof f->known);
    while (next_line(&rest, &line)) {
        if (!parse_field(line, f, ret_why)) {
            return false;
        }
    }
    if (rest.n > 0) {
        return refuse(ret_why, 400, "bytes behind the end of the head");
    }
    return true;
}

/* Whether the comma-separated list holds this token, in any case. */
static bool list_has(struct cs_slice list, const char *token)
{
    while (list.n > 0) {
        size_t n = cs_slice_find(list, ',');
        if (cs_slice_eq_nocase(cs_slice_trim(cs_slice_head(list, n)), cs_slice_str(token))) {
            return true;
        }
        list = cs_slice_from(list, n + 1);
    }
    return false;
}

static bool keeps_alive(const struct cs_http_fields *f, unsigned minor)
{
    struct cs_slice c = f->known[CS_HTTP_FIELD_CONNECTION];
    return !list_has(c, "close") && (minor >= 1 || list_has(c, "keep-alive"));
}

/* One canonical number or nothing. "+5", "05", "5, 5", "0x5" and "" are all refused: some parser
 * somewhere reads each of them as something else. */
static bool parse_framing(const struct cs_http_fields *f, unsigned minor, uint64_t *ret_n,
                          struct cs_http_refusal *ret_why)
{
    bool has_length = f->has[CS_HTTP_FIELD_CONTENT_LENGTH];
    if (f->has[CS_HTTP_FIELD_TRANSFER_ENCODING]) {
        if (has_length || minor == 0) {
            return refuse(ret_why, 400, "Transfer-Encoding where it may not be");
        }
        return refuse(ret_why, 501,
                      "Transfer-Encoding is not in this version: send Content-Length");
    }
    *ret_n = 0;
    if (has_length) {
        struct cs_slice v = f->known[CS_HTTP_FIELD_CONTENT_LENGTH];
        if ((v.n > 1 && v.p[0] == '0') || !cs_slice_to_u64(v, ret_n)) {
            return refuse(ret_why, 400, "Content-Length is not one plain number");
        }
    }
    return true;
}

/* ---- a request ---- */
static bool parse_version(struct cs_slice v, unsigned *ret_minor, struct cs_http_refusal *ret_why)
{
    if (cs_slice_eq_str(v, "HTTP/1.1")) {
        *ret_minor = 1;
        return true;
    }
    if (cs_slice_eq_str(v, "HTTP/1.0")) {
        *ret_minor = 0;
        return true;
    }
    bool http = cs_slice_starts(v, CS_SLICE_LIT("HTTP/")) && v.n == 8;
    return refuse(ret_why, http ? 505 : 400, "the version is neither HTTP/1.1 nor HTTP/1.0");
}

static bool parse_target(struct cs_slice target, struct cs_http_request *r,
                         struct cs_http_refusal *ret_why)
{
    if (target.n == 0 || target.p[0] != '/') {
        return refuse(ret_why, 400, "the request's target must be a path");
    }
    size_t q = cs_slice_find(target, '?');
    r->path = cs_slice_head(target, q);
    r->query = cs_slice_from(target, q + 1);
    if (!all_of(r->path, PATH) || (r->query.n > 0 && !all_of(r->query, QUERY))) {
        return refuse(ret_why, 400, "the request's target holds a character that must be encoded");
    }
    return true;
}

static bool parse_request_line(struct cs_slice line, struct cs_http_request *r,
                               struct cs_http_refusal *ret_why)
{
    size_t first = cs_slice_find(line, ' ');
    struct cs_slice rest = cs_slice_from(line, first + 1);
    size_t second = cs_slice_find(rest, ' ');
    r->method = cs_slice_head(line, first);
    if (first == line.n || second == rest.n || !all_of(r->method, TOKEN) || r->method.n > 16) {
        return refuse(ret_why, 400, "the request line is not METHOD PATH HTTP/1.1");
    }
    /* The version first: what follows a second blank in a target would end up in it. */
    return parse_version(cs_slice_from(rest, second + 1), &r->minor, ret_why) &&
           parse_target(cs_slice_head(rest, second), r, ret_why);
}

static bool method_has_no_body(struct cs_slice m)
{
    return cs_slice_eq_str(m, "GET") || cs_slice_eq_str(m, "HEAD") || cs_slice_eq_str(m, "DELETE");
}

bool cs_http_request_parse(struct cs_slice head, struct cs_http_request *ret,
                           struct cs_http_refusal *ret_why)
{
    struct cs_slice rest = head, line;
    (void)next_line(&rest, &line);
    if (!parse_request_line(line, ret, ret_why) || !parse_fields(rest, &ret->fields, ret_why)) {
        return false;
    }
    const struct cs_http_fields *f = &ret->fields;
    bool has_host = f->has[CS_HTTP_FIELD_HOST];
    if (has_host ? !all_of(f->known[CS_HTTP_FIELD_HOST], HOST) : ret->minor >= 1) {
        return refuse(ret_why, 400, "Host is missing or is no host");
    }
    if (!parse_framing(f, ret->minor, &ret->body_n, ret_why)) {
        return false;
    }
    /* SECURITY: a peer in front of us may think that a GET never has a body, and take its bytes for
     * the next request. */
    if (ret->body_n > 0 && method_has_no_body(ret->method)) {
        return refuse(ret_why, 400, "this method takes no body");
    }
    if (f->has[CS_HTTP_FIELD_CONTENT_ENCODING]) {
        return refuse(ret_why, 400, "Content-Encoding is not in this version");
    }
    ret->keep_alive = keeps_alive(f, ret->minor);
    ret->expect_continue = false;
    if (f->has[CS_HTTP_FIELD_EXPECT]) {
        if (!cs_slice_eq_nocase(f->known[CS_HTTP_FIELD_EXPECT], CS_SLICE_LIT("100-continue"))) {
            return refuse(ret_why, 417, "Expect may only be 100-continue");
        }
        ret->expect_continue = ret->minor >= 1 && ret->body_n > 0;
    }
    return true;
}

/* ---- a response ---- */
static bool parse_status_line(struct cs_slice line, struct cs_http_response *r,
                              struct cs_http_refusal *ret_why)
{
    uint64_t status = 0;
    bool shape = line.n >= 12 && line.p[8] == ' ' && (line.n == 12 || line.p[12] == ' ');
    if (!shape || !cs_slice_to_u64(cs_slice(line.p + 9, 3), &status) || status < 100 ||
        status > 599) {
        return refuse(ret_why, 400, "the status line is not HTTP/1.1 NNN REASON");
    }
    r->status = (unsigned)status;
    return parse_version(cs_slice_head(line, 8), &r->minor, ret_why);
}

bool cs_http_response_parse(struct cs_slice head, struct cs_http_response *ret,
                            struct cs_http_refusal *ret_why)
{
    struct cs_slice rest = head, line;
    (void)next_line(&rest, &line);
    if (!parse_status_line(line, ret, ret_why) || !parse_fields(rest, &ret->fields, ret_why) ||
        !parse_framing(&ret->fields, ret->minor, &ret->body_n, ret_why)) {
        return false;
    }
    bool bodiless = ret->status < 200 || ret->status == 204 || ret->status == 304;
    if (bodiless && ret->body_n > 0) {
        return refuse(ret_why, 400, "a body behind a status that has none");
    }
    /* SECURITY: a body that ends with the connection cannot be told from one that was cut. */
    if (!bodiless && !ret->fields.has[CS_HTTP_FIELD_CONTENT_LENGTH]) {
        return refuse(ret_why, 400, "the answer does not say how long it is");
    }
    ret->keep_alive = keeps_alive(&ret->fields, ret->minor);
    return true;
}

bool cs_http_bearer(const struct cs_http_fields *f, struct cs_slice *ret)
{
    struct cs_slice v = f->known[CS_HTTP_FIELD_AUTHORIZATION];
    if (!f->has[CS_HTTP_FIELD_AUTHORIZATION]) {
        *ret = CS_SLICE_NULL;
        return true;
    }
    if (!cs_slice_eq_nocase(cs_slice_head(v, 7), CS_SLICE_LIT("Bearer ")) ||
        !all_of(cs_slice_from(v, 7), BEARER)) {
        return false;
    }
    *ret = cs_slice_from(v, 7);
    return true;
}

/* ---- writing ---- */
const char *cs_http_reason(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } table[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(table); i++) {
        if (table[i].status == status) {
            return table[i].reason;
        }
    }
    return "Status";
}

void cs_http_write_status(struct cs_writer *w, unsigned status)
{
    cs_writer_printf(w, "HTTP/1.1 %u %s\r\n", status, cs_http_reason(status));
}

void cs_http_write_request(struct cs_writer *w, struct cs_slice method, struct cs_slice target)
{
    if (!all_of(method, TOKEN) || !all_of(target, QUERY) || target.p[0] != '/') {
        w->overflow = true;
        return;
    }
    cs_writer_bytes(w, method);
    cs_writer_u8(w, ' ');
    cs_writer_bytes(w, target);
    cs_writer_bytes(w, CS_SLICE_LIT(" HTTP/1.1\r\n"));
}

void cs_http_write_field(struct cs_writer *w, const char *name, struct cs_slice value)
{
    if (!all_of(cs_slice_str(name), TOKEN) || (value.n > 0 && !all_of(value, VALUE))) {
        w->overflow = true;
        return;
    }
    cs_writer_bytes(w, cs_slice_str(name));
    cs_writer_bytes(w, CS_SLICE_LIT(": "));
    cs_writer_bytes(w, value);
    cs_writer_bytes(w, CS_SLICE_LIT("\r\n"));
}

void cs_http_write_number(struct cs_writer *w, const char *name, uint64_t value)
{
    cs_writer_printf(w, "%s: %llu\r\n", name, (unsigned long long)value);
}

void cs_http_write_end(struct cs_writer *w)
{
    cs_writer_bytes(w, CS_SLICE_LIT("\r\n"));
}
