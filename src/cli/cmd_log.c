/* The audit log, with its private values opened by the gateway. Much of what is printed was written
 * by somebody else: nothing of it is printed raw. */
#include "base/time.h"
#include "cli/client.h"
#include "cli/out.h"

#include <time.h>

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

/* ---- times ---- */

static bool digits(struct cs_slice *s, size_t n, int *ret)
{
    uint64_t v = 0;
    bool ok = s->n >= n && cs_slice_to_u64(cs_slice_head(*s, n), &v);
    *ret = (int)v;
    *s = cs_slice_from(*s, CS_MIN(n, s->n));
    return ok;
}

static bool mark(struct cs_slice *s, char c)
{
    bool ok = s->n > 0 && s->p[0] == (uint8_t)c;
    *s = cs_slice_from(*s, ok ? 1 : 0);
    return ok;
}

/* 2026-11-23, or 2026-11-23T14:05:09Z with or without seconds; or 90m, 2h, 7d ago. In UTC. */
static bool time_of(const char *text, uint64_t *ret_ms)
{
    static const struct {
        char unit;
        uint64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
    struct cs_slice s = cs_slice_str(text);
    struct tm t = {.tm_sec = 0};
    uint64_t n = 0;
    for (size_t i = 0; s.n > 1 && i < CS_ARRAY_LEN(units); i++) {
        if (s.p[s.n - 1] == (uint8_t)units[i].unit &&
            cs_slice_to_u64(cs_slice_head(s, s.n - 1), &n) && n < 100000000) {
            uint64_t now = cs_wall_ms();
            *ret_ms = now - CS_MIN(now, n * units[i].ms);
            return true;
        }
    }
    bool ok = digits(&s, 4, &t.tm_year) && mark(&s, '-') && digits(&s, 2, &t.tm_mon) &&
              mark(&s, '-') && digits(&s, 2, &t.tm_mday) && t.tm_mon >= 1 && t.tm_mon <= 12 &&
              t.tm_mday >= 1 && t.tm_mday <= 31 && t.tm_year >= 1970;
    if (ok && mark(&s, 'T')) {
        ok = digits(&s, 2, &t.tm_hour) && mark(&s, ':') && digits(&s, 2, &t.tm_min) &&
             (!mark(&s, ':') || digits(&s, 2, &t.tm_sec)) && mark(&s, 'Z') && t.tm_hour < 24 &&
             t.tm_min < 60 && t.tm_sec < 61;
    }
    t.tm_year -= 1900;
    t.tm_mon--;
    time_t seconds = ok && s.n == 0 ? timegm(&t) : -1;
    *ret_ms = seconds >= 0 ? (uint64_t)seconds * 1000 : 0;
    return seconds >= 0;
}

/* ---- which leaves ---- */

struct wanted {
    struct cs_slice query; /* "&kind=vote…" */
    uint64_t from, limit;
};

static bool add_time(struct cs_cli *c, struct wanted *w, const char *name)
{
    const char *text = cs_cli_option(c, name);
    uint64_t ms = 0;
    if (text == NULL) {
        return true;
    }
    if (!time_of(text, &ms)) {
        (void)cs_cli_usage(c, "--%s %s: 2026-11-23, 2026-11-23T14:05Z, or 90m, 2h, 7d ago", name,
                           text);
        return false;
    }
    w->query = cs_arena_printf(&c->arena, "%.*s&%s=%llu", CS_SLICE_FMT(w->query), name,
                               (unsigned long long)ms);
    return true;
}

static void add_text(struct cs_cli *c, struct wanted *w, const char *name)
{
    const char *text = cs_cli_option(c, name);
    if (text != NULL) {
        const char *prefix = (const char *)cs_arena_printf(&c->arena, "&%s=", name).p;
        const char *coded = prefix != NULL ? cs_cli_path(c, prefix, text, "") : NULL;
        w->query = cs_arena_printf(&c->arena, "%.*s%s", CS_SLICE_FMT(w->query),
                                   coded != NULL ? coded : "&memory=out");
    }
}

struct seen {
    uint64_t shown, passed_over, next, size;
    bool more; /* from `next` on nothing was looked at */
};

static uint64_t number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_integer(v) ? (uint64_t)json_integer_value(v) : 0;
}

/* One page after the other; each is a leaf of its own in the log. */
static bool get_leaves(struct cs_cli *c, const struct wanted *w, struct seen *seen, json_t *all)
{
    uint64_t from = w->from, limit = w->limit;
    bool more = true;
    while (more && limit > 0) {
        struct cs_cli_answer a;
        uint64_t page = CS_MIN(limit, (uint64_t)LEAVES_PAGE);
        struct cs_slice path =
            from == UINT64_MAX ? cs_arena_printf(&c->arena, "/v1/log?limit=%llu%.*s",
                                                 (unsigned long long)page, CS_SLICE_FMT(w->query))
                               : cs_arena_printf(&c->arena, "/v1/log?from=%llu&limit=%llu%.*s",
                                                 (unsigned long long)from, (unsigned long long)page,
                                                 CS_SLICE_FMT(w->query));
        if (!cs_cli_get(c, (const char *)path.p, &a)) {
            return false;
        }
        size_t n = json_array_size(json_object_get(a.json, "leaves"));
        const json_t *next = json_object_get(a.json, "next");
        print_leaves(c, a.json, all);
        uint64_t over = number(a.json, "passed_over");
        more = json_is_integer(next) && n + over > 0;
        from = more ? (uint64_t)json_integer_value(next) : from;
        limit -= CS_MIN(limit, (uint64_t)n);
        seen->shown += n;
        seen->passed_over += over;
        seen->size = number(a.json, "size");
        seen->next = from;
        seen->more = more;
        cs_cli_answer_done(&a);
    }
    return true;
}

/* What is not in what was printed. */
static void say_rest(const struct wanted *w, const struct seen *seen)
{
    if (w->query.n == 0 && !seen->more) {
        return;
    }
    printf("%llu shown, %llu that do not fit passed over", (unsigned long long)seen->shown,
           (unsigned long long)seen->passed_over);
    if (seen->more) {
        printf("; leaves %llu to %llu were not looked at: go on with --from %llu",
               (unsigned long long)seen->next, (unsigned long long)seen->size - 1,
               (unsigned long long)seen->next);
    }
    printf("\n");
}

static int wanted_of(struct cs_cli *c, struct wanted *w)
{
    const char *from = cs_cli_option(c, "from"), *limit = cs_cli_option(c, "limit");
    *w = (struct wanted){CS_SLICE_LIT(""), UINT64_MAX, LEAVES_USUAL};
    if (from != NULL && !cs_slice_to_u64(cs_slice_str(from), &w->from)) {
        return cs_cli_usage(c, "--from %s: a leaf's number is possible, from 0", from);
    }
    if (limit != NULL && (!cs_slice_to_u64(cs_slice_str(limit), &w->limit) || w->limit == 0 ||
                          w->limit > LEAVES_MAX)) {
        return cs_cli_usage(c, "--limit %s: a number from 1 to %d is possible", limit, LEAVES_MAX);
    }
    if (!add_time(c, w, "since") || !add_time(c, w, "until")) {
        return CS_CLI_USAGE;
    }
    add_text(c, w, "kind");
    add_text(c, w, "session");
    add_text(c, w, "who");
    if (from == NULL && w->query.n > 0) {
        w->from = 0; /* who looks for something looks from the beginning */
    }
    if (w->from == UINT64_MAX && w->limit > LEAVES_PAGE) {
        return cs_cli_usage(c, "--limit %s: without --from at most %d", limit, LEAVES_PAGE);
    }
    return CS_CLI_OK;
}

int cs_cmd_log(struct cs_cli *c)
{
    struct wanted w;
    struct seen seen = {.shown = 0};
    int status = wanted_of(c, &w);
    if (status != CS_CLI_OK) {
        return status;
    }
    json_t *all = c->json ? json_array() : NULL;
    bool ok = get_leaves(c, &w, &seen, all);
    if (ok && c->json) {
        json_t *root =
            json_pack("{s:O, s:I, s:o}", "leaves", all, "passed_over", (json_int_t)seen.passed_over,
                      "next", seen.more ? json_integer((json_int_t)seen.next) : json_null());
        ok = root != NULL && cs_cli_print_json(root) == CS_CLI_OK;
        json_decref(root);
    } else if (ok) {
        say_rest(&w, &seen);
    }
    json_decref(all);
    return ok ? CS_CLI_OK : CS_CLI_FAILED;
}
