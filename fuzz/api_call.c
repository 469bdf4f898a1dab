/* API calls as control reads them: the first line is "METHOD PATH?QUERY", the rest the body.
 * Whatever the bytes: no crash, no leak; a route found is one of the table; a name has no slash and
 * no control byte; a body that is accepted holds only what the row's table permits. */
#include "base/alloc.h"
#include "control/api.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool property)
{
    if (!property) {
        abort();
    }
}

static void clean(struct cs_slice s, bool lines)
{
    check(cs_utf8_valid(s));
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        check(c != 0x7f && (c >= 0x20 || (lines && (c == '\n' || c == '\t' || c == '\r'))));
    }
}

static void read_body(const struct cs_api_route *r, struct cs_slice body)
{
    struct cs_json_value v[CS_JSON_FIELDS_MAX];
    json_t *root = NULL;
    char why[200];
    size_t n = 0;
    while (n < CS_JSON_FIELDS_MAX && r->body[n].name != NULL) {
        n++;
    }
    if (cs_json_read(body, r->body, n, v, &root, why, sizeof why) != CS_OK) {
        check(root == NULL);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        check(v[i].has || !r->body[i].required);
        if (v[i].has && r->body[i].kind == CS_JSON_STRING) {
            check(v[i].string.n <= r->body[i].max);
            clean(v[i].string, r->body[i].lines);
        }
    }
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_slice all = cs_slice(data, size);
    struct cs_slice line = cs_slice_head(all, cs_slice_find(all, '\n'));
    struct cs_slice method = cs_slice_head(line, cs_slice_find(line, ' '));
    struct cs_slice target = cs_slice_from(line, method.n + 1);
    struct cs_slice path = cs_slice_head(target, cs_slice_find(target, '?'));
    const struct cs_api_route *r = NULL;
    struct cs_slice name = CS_SLICE_NULL, query[CS_API_QUERY_MAX];
    struct cs_arena a;
    long before = cs_alloc_live();
    cs_json_init();
    cs_arena_init(&a, 4096, 1 << 20);
    if (cs_api_find(cs_api_routes, cs_api_routes_n, method, path, &a, &r, &name) == CS_OK) {
        check(r >= cs_api_routes && r < cs_api_routes + cs_api_routes_n);
        check(cs_slice_find(name, '/') == name.n);
        clean(name, false);
        if (cs_api_query(r, cs_slice_from(target, path.n + 1), &a, query)) {
            for (size_t i = 0; i < CS_API_QUERY_MAX; i++) {
                clean(query[i], false);
            }
        }
        read_body(r, cs_slice_from(all, line.n + 1));
    }
    cs_arena_done(&a);
    check(cs_alloc_live() == before);
    return 0;
}
