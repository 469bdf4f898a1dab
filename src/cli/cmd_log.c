/* The audit log, with its private values opened by the gateway. Much of what is printed was written
 * by somebody else: nothing of it is printed raw. */
#include "cli/client.h"
#include "cli/out.h"

enum { LEAVES_USUAL = 50, LEAVES_MAX = 100000, LEAVES_PAGE = 500 };

/* "key value, key value" of what is in the leaf beside what begins its line. */
static const char *values(struct cs_cli *c, json_t *leaf)
{
    static const char *const first[] = {"leaf", "t", "kind", "event"};
    struct cs_slice out = CS_SLICE_LIT("");
    const char *key;
    json_t *v;
    json_object_foreach(leaf, key, v)
    {
        bool skip = false;
        for (size_t i = 0; i < CS_ARRAY_LEN(first); i++) {
            skip |= cs_cli_is(key, first[i]);
        }
        if (!skip) {
            bool sealed = json_object_get(v, "sealed") != NULL;
            out =
                cs_arena_printf(&c->arena, "%.*s%s%s %s", CS_SLICE_FMT(out), out.n > 0 ? ", " : "",
                                key, sealed ? "(sealed)" : cs_cli_value_text(c, v));
        }
    }
    return (const char *)out.p;
}

static void print_leaves(struct cs_cli *c, const json_t *json, json_t *all)
{
    size_t i;
    json_t *leaf;
    json_array_foreach(json_object_get(json, "leaves"), i, leaf)
    {
        if (c->json) {
            (void)json_array_append(all, leaf);
            continue;
        }
        struct cs_arena before = cs_cli_round_begin(c);
        printf("%8s  %s%s%s  %-13s %s\n", cs_cli_text(c, leaf, "leaf"), cs_cli_paint(c, CS_CLI_DIM),
               cs_cli_text(c, leaf, "t"), cs_cli_paint(c, CS_CLI_PLAIN),
               cs_cli_text(c, leaf, "kind"), values(c, leaf));
        cs_cli_round_end(c, before);
    }
}

/* One page after the other; each is a leaf of its own in the log. */
static bool get_leaves(struct cs_cli *c, uint64_t from, uint64_t limit, json_t *all)
{
    bool more = true;
    while (more && limit > 0) {
        struct cs_cli_answer a;
        uint64_t page = CS_MIN(limit, (uint64_t)LEAVES_PAGE);
        struct cs_slice path =
            from == UINT64_MAX
                ? cs_arena_printf(&c->arena, "/v1/log?limit=%llu", (unsigned long long)page)
                : cs_arena_printf(&c->arena, "/v1/log?from=%llu&limit=%llu",
                                  (unsigned long long)from, (unsigned long long)page);
        if (!cs_cli_get(c, (const char *)path.p, &a)) {
            return false;
        }
        size_t n = json_array_size(json_object_get(a.json, "leaves"));
        const json_t *next = json_object_get(a.json, "next");
        print_leaves(c, a.json, all);
        more = json_is_integer(next) && n > 0;
        from = more ? (uint64_t)json_integer_value(next) : from;
        limit -= CS_MIN(limit, (uint64_t)n);
        cs_cli_answer_done(&a);
    }
    return true;
}

int cs_cmd_log(struct cs_cli *c)
{
    const char *from = cs_cli_option(c, "from"), *limit = cs_cli_option(c, "limit");
    uint64_t first = UINT64_MAX, n = LEAVES_USUAL;
    if (from != NULL && !cs_slice_to_u64(cs_slice_str(from), &first)) {
        return cs_cli_usage(c, "--from %s: a leaf's number is possible, from 0", from);
    }
    if (limit != NULL && (!cs_slice_to_u64(cs_slice_str(limit), &n) || n == 0 || n > LEAVES_MAX)) {
        return cs_cli_usage(c, "--limit %s: a number from 1 to %d is possible", limit, LEAVES_MAX);
    }
    if (from == NULL && n > LEAVES_PAGE) {
        return cs_cli_usage(c, "--limit %s: without --from at most %d", limit, LEAVES_PAGE);
    }
    json_t *all = c->json ? json_array() : NULL;
    bool ok = get_leaves(c, first, n, all);
    if (ok && c->json) {
        json_t *root = json_pack("{s:O}", "leaves", all);
        ok = root != NULL && cs_cli_print_json(root) == CS_CLI_OK;
        json_decref(root);
    }
    json_decref(all);
    return ok ? CS_CLI_OK : CS_CLI_FAILED;
}
