/* JSON for the API: strict input described by tables, and small helpers for output (jansson).
 *
 * Input is refused on duplicate keys, unknown keys, wrong types, invalid UTF-8, NUL, trailing bytes
 * and nesting deeper than any body of ours needs: a body that two readers could understand in two
 * ways is an attack. All of jansson's memory is wiped when it is freed: bodies carry secrets. */
#ifndef CS_CONTROL_JSON_H
#define CS_CONTROL_JSON_H

#include "base/arena.h"
#include "base/err.h"
#include "base/slice.h"

#include <jansson.h>

enum { CS_JSON_FIELDS_MAX = 8, CS_JSON_DEPTH_MAX = 8 };

enum cs_json_kind { CS_JSON_STRING, CS_JSON_STRINGS };

struct cs_json_field {
    const char *name;
    enum cs_json_kind kind;
    bool required;
    bool lines;   /* newlines and tabs are permitted (other control characters never are) */
    size_t max;   /* bytes of a string, or of each string */
    size_t max_n; /* strings in a list */
};

struct cs_json_value {
    bool has;
    struct cs_slice string; /* borrowed from the document */
    const json_t *list;     /* borrowed; strings, checked */
};

/* Once per process, before any other use of jansson. */
void cs_json_init(void);
/* Parses and checks `body` against the table; ret[i] belongs to f[i]. An empty body is an empty
 * object. `why` gets a sentence on failure. *ret_root (owned, json_decref) keeps the values alive.
 */
enum cs_err cs_json_read(struct cs_slice body, const struct cs_json_field *f, size_t n,
                         struct cs_json_value *ret, json_t **ret_root, char *why,
                         size_t why_size) CS_MUST_CHECK;
/* The strings of a list as slices, from the arena. False when memory is out. */
bool cs_json_strings(const struct cs_json_value *v, struct cs_arena *a, struct cs_slice **ret,
                     size_t *ret_n);

/* ---- output: NULL results are refused by cs_json_put, which then reports false ---- */
/* Bytes as a JSON string; what is not UTF-8 is shown as visible escapes. */
json_t *cs_json_text(struct cs_slice s, struct cs_arena *a);
json_t *cs_json_time(uint64_t wall_ms);
json_t *cs_json_list(const struct cs_slice *v, size_t n, struct cs_arena *a);
/* Takes over `value` in every case. */
bool cs_json_put(json_t *object, const char *key, json_t *value);
/* The document as bytes with a newline, owned by the caller: free with cs_free. CS_SLICE_NULL when
 * memory is out. */
struct cs_slice cs_json_dump(const json_t *root);

#endif
