/* Writes JSON (RFC 8259) into a struct cs_buf: commas and escapes are right by construction.
 * Whatever goes in, valid JSON comes out, as long as begin and end are paired. */
#ifndef CS_RECORD_JSON_H
#define CS_RECORD_JSON_H

#include "base/buf.h"
#include "base/id.h"

struct cs_json {
    struct cs_buf *out; /* borrowed; its `bad` tells of failure */
    bool comma;         /* something stands before, at this level */
};

/* One value or one key with its value; `key` NULL inside an array and at the top. */
void cs_json_begin(struct cs_json *j, const char *key, char open); /* '{' or '[' */
void cs_json_end(struct cs_json *j, char close);                   /* '}' or ']' */
/* A number; above 2^53 - 1, where JSON readers lose digits, a string of them. */
void cs_json_u64(struct cs_json *j, const char *key, uint64_t v);
void cs_json_null(struct cs_json *j, const char *key);
void cs_json_bool(struct cs_json *j, const char *key, bool v);
/* A string where the bytes are valid UTF-8 without NUL, else {"base64": "…"}. */
void cs_json_bytes(struct cs_json *j, const char *key, struct cs_slice s);
void cs_json_str(struct cs_json *j, const char *key, const char *s);
void cs_json_hex(struct cs_json *j, const char *key, struct cs_slice s);

#endif
