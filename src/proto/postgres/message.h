/* PostgreSQL messages, one at a time: framing tables, readers and writers. Pure. */
#ifndef CS_PROTO_POSTGRES_MESSAGE_H
#define CS_PROTO_POSTGRES_MESSAGE_H

#include "base/buf.h"
#include "base/limits.h"
#include "base/reader.h"

/* ---- framing ---- */
enum pg_handling {
    PG_UNKNOWN = 0, /* the zero value: not a message of this phase, the session ends */
    PG_WHOLE,       /* looked at as a whole */
    PG_STREAM,      /* passes by its length, however long */
};
struct pg_shape {
    enum pg_handling handling;
    uint32_t max; /* largest length field (itself included) of a WHOLE one */
};
struct pg_shape pg_shape_frontend(uint8_t type);
struct pg_shape pg_shape_backend(uint8_t type);

enum pg_frame_result { PG_FRAME_OK, PG_FRAME_NEED, PG_FRAME_BAD };
struct pg_frame {
    uint8_t type;
    enum pg_handling handling;
    uint32_t total;       /* bytes on the wire, type and length field included */
    struct cs_slice body; /* WHOLE and all there: the body; STREAM: what is there of it */
};
/* The message at the head of `in`. NEED: more bytes (for a WHOLE one: up to *ret total, which is
 * set once five bytes are there, else 0). BAD: unknown type or impossible length: synchronisation
 * is lost. */
enum pg_frame_result pg_frame_next(struct cs_slice in, bool from_client, struct pg_frame *ret);

/* ---- the client's messages ---- */
struct pg_parse {
    struct cs_slice name, text;
    const uint8_t *types; /* n_types big-endian u32 */
    size_t n_types;
};
struct pg_bind {
    struct cs_slice portal, statement;
    size_t n_formats;
    const uint8_t *formats; /* big-endian u16 */
    size_t n_params;
    struct cs_slice params; /* the packed values, as on the wire */
};
/* Text of Query: the body without its NUL; false when that is not its only NUL. */
bool pg_parse_query(struct cs_slice body, struct cs_slice *ret_text);
bool pg_parse_parse(struct cs_slice body, struct pg_parse *ret);
bool pg_parse_bind(struct cs_slice body, struct pg_bind *ret);
struct pg_call {
    uint32_t function;
    size_t n_formats;
    const uint8_t *formats; /* big-endian u16 */
    size_t n_params;
    struct cs_slice params; /* the packed values, as on the wire */
    uint16_t result_format;
};
/* FunctionCall. */
bool pg_parse_call(struct cs_slice body, struct pg_call *ret);
/* Describe and Close: 'S' or 'P' and a name. */
bool pg_parse_target(struct cs_slice body, uint8_t *ret_what, struct cs_slice *ret_name);
bool pg_parse_execute(struct cs_slice body, struct cs_slice *ret_portal);

/* ---- the server's messages ---- */
struct pg_error {
    struct cs_slice severity, sqlstate, message, detail, hint; /* empty when absent */
};
/* ErrorResponse and NoticeResponse; absent fields stay empty (a hostile server may leave any out).
 */
bool pg_parse_error(struct cs_slice body, struct pg_error *ret);
bool pg_parse_parameter(struct cs_slice body, struct cs_slice *ret_name,
                        struct cs_slice *ret_value);

/* ---- startup ---- */
enum {
    PG_SSL_REQUEST = 80877103,
    PG_GSSENC_REQUEST = 80877104,
    PG_CANCEL_REQUEST = 80877102,
    PG_PROTOCOL_3_0 = 196608
};
/* Calls back for each key and value; false when the packet is malformed or has a key twice, or the
 * callback returns false. `body` begins behind the protocol number. */
bool pg_parse_startup(struct cs_slice body,
                      bool (*each)(struct cs_slice key, struct cs_slice value, void *arg),
                      void *arg);
/* One "-c name=value" or "--name=value" of the startup option `options`, with PostgreSQL's
 * backslash escapes; *at moves on. 0: no more, 1: one, -1: malformed. Text is written into `mem`.
 */
int pg_options_next(struct cs_slice options, size_t *at, char *mem, size_t cap,
                    struct cs_slice *ret_name, struct cs_slice *ret_value);

/* ---- writers ---- */
/* Begins a message and returns where its length goes; ends it. */
size_t pg_begin(struct cs_buf *b, uint8_t type);
void pg_finish(struct cs_buf *b, size_t at);
void pg_put_u32(struct cs_buf *b, uint32_t v);
void pg_put_u16(struct cs_buf *b, uint16_t v);
/* A string and its NUL; bytes that are NUL inside are dropped. */
void pg_put_cstr(struct cs_buf *b, struct cs_slice s);
/* ErrorResponse (type 'E') or NoticeResponse ('N'); empty fields are left out. */
void pg_put_error(struct cs_buf *b, uint8_t type, const char *severity, const char *sqlstate,
                  struct cs_slice message, struct cs_slice detail, struct cs_slice hint);
void pg_put_ready(struct cs_buf *b, uint8_t tx);

#endif
