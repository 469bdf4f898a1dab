/* HTTP/1.1, the smuggling-safe subset: refuse, do not repair. Pure: no I/O, no allocation, no state
 * but what the caller holds. A message is read in two steps: cs_http_scan finds the end of the head
 * (and refuses bytes that can never be in one, early), the parsers then take the complete head. So
 * the result never depends on how the bytes were split on their way.
 *
 * What the subset leaves out: chunked bodies, obs-fold, bare CR or LF, absolute-form and
 * authority-form targets, bodies of GET, HEAD and DELETE, lists in Content-Length, repeated fields
 * that frame or authorise. Framing has exactly one reading: one Content-Length or no body. */
#ifndef CS_WIRE_HTTP1_H
#define CS_WIRE_HTTP1_H

#include "base/slice.h"
#include "base/writer.h"

enum { CS_HTTP_FIELDS = 64 };

/* Zero is BAD: a forgotten assignment refuses. */
enum cs_http { CS_HTTP_BAD, CS_HTTP_NEED, CS_HTTP_OK };

/* What to answer when it was BAD. */
struct cs_http_refusal {
    unsigned status; /* 400, 413, 414, 417, 431, 501, 505 */
    const char *why; /* a sentence, literal */
};

struct cs_http_field {
    struct cs_slice name, value;
};

/* Fields that frame, route or authorise, and so may stand there once only. */
enum cs_http_known {
    CS_HTTP_FIELD_OTHER,
    CS_HTTP_FIELD_HOST,
    CS_HTTP_FIELD_CONTENT_LENGTH,
    CS_HTTP_FIELD_TRANSFER_ENCODING,
    CS_HTTP_FIELD_CONNECTION,
    CS_HTTP_FIELD_EXPECT,
    CS_HTTP_FIELD_AUTHORIZATION,
    CS_HTTP_FIELD_ORIGIN,
    CS_HTTP_FIELD_CONTENT_TYPE,
    CS_HTTP_FIELD_CONTENT_ENCODING,
    CS_HTTP_FIELD_KNOWN_MAX
};

/* The fields of a head. All slices borrow from the head. */
struct cs_http_fields {
    struct cs_http_field v[CS_HTTP_FIELDS];
    size_t n;
    bool has[CS_HTTP_FIELD_KNOWN_MAX];
    struct cs_slice known[CS_HTTP_FIELD_KNOWN_MAX];
};

struct cs_http_request {
    struct cs_slice method;
    struct cs_slice path;  /* raw, begins with '/', only characters that a path may hold */
    struct cs_slice query; /* raw, behind '?'; empty when there is none */
    unsigned minor;        /* HTTP/1.x */
    uint64_t body_n;       /* bytes of body that follow; meets a limit of the caller before use */
    bool keep_alive;
    bool expect_continue;
    struct cs_http_fields fields; /* large: keep it off coroutine stacks */
};

struct cs_http_response {
    unsigned status;
    unsigned minor;
    uint64_t body_n;
    bool keep_alive;
    struct cs_http_fields fields;
};

/* Looks for the end of a head in `in`. `*at` (0 at first) remembers how far earlier calls came:
 * give the same bytes again with more behind them. OK: the first *ret_n bytes are the head, its
 * final empty line included. BAD: a byte that no head may hold, or more than `max` bytes without an
 * end. */
enum cs_http cs_http_scan(struct cs_slice in, size_t max, size_t *at, size_t *ret_n,
                          struct cs_http_refusal *ret_why);
/* A complete head as found by cs_http_scan. False: answer ret_why and close. */
bool cs_http_request_parse(struct cs_slice head, struct cs_http_request *ret,
                           struct cs_http_refusal *ret_why) CS_MUST_CHECK;
bool cs_http_response_parse(struct cs_slice head, struct cs_http_response *ret,
                            struct cs_http_refusal *ret_why) CS_MUST_CHECK;
/* The token of "Authorization: Bearer TOKEN" (RFC 6750 characters only). False when the field is
 * there and is something else; an absent field gives the empty slice and true. */
bool cs_http_bearer(const struct cs_http_fields *f, struct cs_slice *ret) CS_MUST_CHECK;

/* ---- writing ---- */
const char *cs_http_reason(unsigned status);
void cs_http_write_status(struct cs_writer *w, unsigned status);
void cs_http_write_request(struct cs_writer *w, struct cs_slice method, struct cs_slice target);
/* A name that is no token, or a value with a control byte, makes the writer overflow: nothing that
 * came from outside can add a line of its own (response splitting). */
void cs_http_write_field(struct cs_writer *w, const char *name, struct cs_slice value);
void cs_http_write_number(struct cs_writer *w, const char *name, uint64_t value);
void cs_http_write_end(struct cs_writer *w);

#endif
