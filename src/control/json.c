/* Strict JSON in, plain JSON out. Used by the API handlers only; gates and people's data pass
 * through here, so nothing in this file logs, and every byte jansson held is wiped when given back.
 */
#include "control/json.h"

#include "action/action.h"
#include "base/alloc.h"
#include "base/secret.h"
#include "base/time.h"

#include <stdio.h>

/* A size in front of every block, so that free can wipe: a secret's value passes through the
 * lexer's buffers and a string object, and must not stay behind in the heap. */
struct block {
    size_t n;
    size_t pad; /* keeps what follows aligned to 16 */
    uint8_t bytes[];
};

static void *json_alloc(size_t n)
{
    if (n > CS_LIMIT_IPC_BLOB_BYTES - sizeof(struct block)) {
        return NULL;
    }
    struct block *b = cs_alloc(sizeof *b + n);
    if (b == NULL) {
        return NULL;
    }
    b->n = n;
    return b->bytes;
}

static void json_free(void *p)
{
    if (p == NULL) {
        return;
    }
    struct block *b = CS_CONTAINER(p, struct block, bytes);
    cs_wipe(b->bytes, b->n);
    cs_free(b);
}

void cs_json_init(void)
{
    json_set_alloc_funcs(json_alloc, json_free);
}

/* SECURITY: jansson recurses per level, on a coroutine's small stack, both when it parses and when
 * it frees: a body of 60,000 "[" must not get there. */
static bool shallow(struct cs_slice s)
{
    size_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
        if (depth > CS_JSON_DEPTH_MAX) {
            return false;
        }
    }
    return true;
}

static bool clean_string(const json_t *v, const struct cs_json_field *f, struct cs_slice *ret)
{
    if (!json_is_string(v) || json_string_length(v) > f->max) {
        return false;
    }
    *ret = cs_slice(json_string_value(v), json_string_length(v));
    for (size_t i = 0; i < ret->n; i++) {
        uint8_t c = ret->p[i];
        if (c == 0x7f || (c < 0x20 && !(f->lines && (c == '\n' || c == '\t' || c == '\r')))) {
            return false;
        }
    }
    return true;
}

static enum cs_err bad_field(const struct cs_json_field *f, char *why, size_t why_size)
{
    if (f->kind == CS_JSON_STRINGS) {
        (void)snprintf(why, why_size,
                       "\"%s\" must be a list of at most %zu strings of 1 to %zu bytes each",
                       f->name, f->max_n, f->max);
    } else {
        (void)snprintf(why, why_size,
                       "\"%s\" must be a string of at most %zu bytes without control characters",
                       f->name, f->max);
    }
    return CS_ERR_INVALID;
}

static enum cs_err check_list(const json_t *v, const struct cs_json_field *f, char *why,
                              size_t why_size)
{
    if (!json_is_array(v) || json_array_size(v) > f->max_n) {
        return bad_field(f, why, why_size);
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        struct cs_slice s;
        if (!clean_string(json_array_get(v, i), f, &s) || s.n == 0) {
            return bad_field(f, why, why_size);
        }
    }
    return CS_OK;
}

static enum cs_err check_field(const json_t *v, const struct cs_json_field *f,
                               struct cs_json_value *ret, char *why, size_t why_size)
{
    if (v == NULL) {
        if (f->required) {
            (void)snprintf(why, why_size, "\"%s\" is missing", f->name);
            return CS_ERR_INVALID;
        }
        return CS_OK;
    }
    enum cs_err e = CS_OK;
    if (f->kind == CS_JSON_STRINGS) {
        e = check_list(v, f, why, why_size);
        ret->list = v;
    } else if (!clean_string(v, f, &ret->string)) {
        e = bad_field(f, why, why_size);
    }
    ret->has = e == CS_OK;
    return e;
}

static enum cs_err check_object(const json_t *root, const struct cs_json_field *f, size_t n,
                                struct cs_json_value *ret, char *why, size_t why_size)
{
    size_t known = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_object_get(root, f[i].name);
        enum cs_err e = check_field(v, &f[i], &ret[i], why, why_size);
        if (e != CS_OK) {
            return e;
        }
        known += v != NULL;
    }
    if (json_object_size(root) != known) {
        (void)snprintf(why, why_size, "the body has a key that this call does not know");
        return CS_ERR_INVALID;
    }
    return CS_OK;
}

enum cs_err cs_json_read(struct cs_slice body, const struct cs_json_field *f, size_t n,
                         struct cs_json_value *ret, json_t **ret_root, char *why, size_t why_size)
{
    memset(ret, 0, n * sizeof *ret);
    if (body.n > CS_LIMIT_HTTP_BODY_BYTES) {
        (void)snprintf(why, why_size, "the body is larger than %d bytes", CS_LIMIT_HTTP_BODY_BYTES);
        return CS_ERR_TOO_LARGE;
    }
    if (!shallow(body)) {
        (void)snprintf(why, why_size, "the body is nested too deeply");
        return CS_ERR_INVALID;
    }
    json_error_t at;
    json_t *root = body.n == 0
                       ? json_object()
                       : json_loadb((const char *)body.p, body.n, JSON_REJECT_DUPLICATES, &at);
    if (root == NULL) {
        if (body.n == 0) {
            return CS_ERR_NO_MEMORY;
        }
        /* The library's own text quotes the input, which may be a secret: say only where. */
        (void)snprintf(why, why_size, "the body is not valid JSON (line %d, column %d)", at.line,
                       at.column);
        return CS_ERR_INVALID;
    }
    enum cs_err e = CS_ERR_INVALID;
    if (json_is_object(root)) {
        e = check_object(root, f, n, ret, why, why_size);
    } else {
        (void)snprintf(why, why_size, "the body must be a JSON object");
    }
    if (e != CS_OK) {
        json_decref(root);
        return e;
    }
    *ret_root = root;
    return CS_OK;
}

bool cs_json_strings(const struct cs_json_value *v, struct cs_arena *a, struct cs_slice **ret,
                     size_t *ret_n)
{
    size_t n = v->has ? json_array_size(v->list) : 0;
    struct cs_slice *out = CS_NEW_ARRAY(a, struct cs_slice, n > 0 ? n : 1);
    if (out == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_array_get(v->list, i);
        out[i] = cs_slice(json_string_value(s), json_string_length(s));
    }
    *ret = out;
    *ret_n = n;
    return true;
}

json_t *cs_json_text(struct cs_slice s, struct cs_arena *a)
{
    if (!cs_utf8_valid(s)) {
        s = cs_sanitise(s, true, a);
        if (s.p == NULL) {
            return NULL;
        }
    }
    return json_stringn(s.n > 0 ? (const char *)s.p : "", s.n);
}

json_t *cs_json_time(uint64_t wall_ms)
{
    char text[CS_TIME_TEXT];
    return wall_ms == 0 ? json_null() : json_string(cs_time_text(wall_ms, text));
}

json_t *cs_json_list(const struct cs_slice *v, size_t n, struct cs_arena *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        if (json_array_append_new(list, cs_json_text(v[i], a)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

bool cs_json_put(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

struct cs_slice cs_json_dump(const json_t *root)
{
    size_t n = root != NULL ? json_dumpb(root, NULL, 0, JSON_COMPACT) : 0;
    if (n == 0) {
        return CS_SLICE_NULL;
    }
    char *out = cs_alloc(n + 1);
    if (out == NULL) {
        return CS_SLICE_NULL;
    }
    if (json_dumpb(root, out, n, JSON_COMPACT) != n) {
        cs_free(out);
        return CS_SLICE_NULL;
    }
    out[n] = '\n';
    return cs_slice(out, n + 1);
}
