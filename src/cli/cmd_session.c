/* Sessions: the list, ending one, and printing a recording. Everything in a recording was written
 * by somebody else, often by the very client that is being looked at: nothing of it is printed raw.
 */
#include "cli/client.h"
#include "cli/out.h"

#include <stdlib.h>
#include <time.h>

enum { FIND_MAX = 128, PAUSE_MAX_MS = 3000, SPEED_MAX = 100000 };

static const char *session_state(struct cs_cli *c, const json_t *s)
{
    const char *why = cs_cli_text(c, s, "why");
    bool ended = why[0] != 0 || cs_cli_text(c, s, "closed")[0] != 0;
    return ended ? why : "live";
}

int cs_cmd_sessions(struct cs_cli *c)
{
    static const char *const titles[] = {"ID",    "WHO",    "TARGET", "DATABASE",
                                         "STATE", "OPENED", "FROM"};
    struct cs_cli_table t = {.columns = CS_ARRAY_LEN(titles), .titles = titles};
    struct cs_cli_answer a;
    const char *limit = cs_cli_option(c, "limit");
    bool all = cs_cli_option(c, "all") != NULL;
    char path[64];
    size_t i;
    json_t *s;
    uint64_t n = 50;
    if (limit != NULL && (!cs_slice_to_u64(cs_slice_str(limit), &n) || n == 0 || n > 10000)) {
        return cs_cli_usage(c, "--limit %s: a number from 1 to 10000 is possible", limit);
    }
    if (all) {
        (void)snprintf(path, sizeof path, "/v1/sessions?all=1&limit=%llu", (unsigned long long)n);
    }
    if (!cs_cli_get(c, all ? path : "/v1/sessions", &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        json_array_foreach(json_object_get(a.json, "sessions"), i, s)
        {
            const char *row[] = {
                cs_cli_text(c, s, "id"),     cs_cli_chain(c, json_object_get(s, "chain")),
                cs_cli_text(c, s, "target"), cs_cli_text(c, s, "database"),
                session_state(c, s),         cs_cli_when(c, s, "opened"),
                cs_cli_text(c, s, "address")};
            cs_cli_table_row(&t, row);
        }
        cs_cli_table_print(
            c, &t, all ? "There is no session." : "No live session (--all shows ended ones).");
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

/* The one live session whose id begins so; NULL with a message when there is none or several. */
static const char *whole_id(struct cs_cli *c, const char *given)
{
    struct cs_cli_answer a;
    struct cs_slice start = cs_slice_str(given);
    const char *found = NULL;
    size_t i, hits = 0;
    json_t *s;
    if (start.n >= 32) {
        return given;
    }
    if (!cs_cli_get(c, "/v1/sessions", &a)) {
        return NULL;
    }
    json_array_foreach(json_object_get(a.json, "sessions"), i, s)
    {
        if (cs_slice_starts(cs_cli_raw(s, "id"), start)) {
            found = cs_cli_text(c, s, "id");
            hits++;
        }
    }
    cs_cli_answer_done(&a);
    if (hits != 1) {
        (void)cs_cli_fail(c,
                          "%zu live sessions have an id that begins with \"%s\"; see: countersign "
                          "sessions",
                          hits, given);
        return NULL;
    }
    return found;
}

int cs_cmd_sessions_kill(struct cs_cli *c)
{
    struct cs_cli_answer a;
    const char *id = whole_id(c, c->position[0]);
    const char *reason = cs_cli_option(c, "reason");
    if (id == NULL) {
        return CS_CLI_FAILED;
    }
    const char *path = cs_cli_path(c, "/v1/sessions/", id, "/kill");
    json_t *body =
        json_pack("{s:s}", "reason", reason != NULL ? reason : "ended by an administrator");
    bool ok = path != NULL && body != NULL && cs_cli_send(c, "POST", path, body, &a);
    json_decref(body);
    if (!ok) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        printf("Ended: %s\n", cs_cli_safe(c, cs_slice_str(id)));
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

/* ---- replay ---- */
static void head(struct cs_cli *c, uint64_t since_ms, const char *kind, const char *text)
{
    printf("%s%+9.3f s%s  %-8s %s\n", cs_cli_paint(c, CS_CLI_DIM), (double)since_ms / 1000,
           cs_cli_paint(c, CS_CLI_PLAIN), kind, text);
}

/* "key value, key value" of those that are there. */
static const char *pairs(struct cs_cli *c, const json_t *f, const char *const *keys)
{
    struct cs_slice out = CS_SLICE_LIT("");
    for (; *keys != NULL; keys++) {
        const char *v = cs_cli_text(c, f, *keys);
        if (v[0] != 0) {
            out = cs_arena_printf(&c->arena, "%.*s%s%s %s", CS_SLICE_FMT(out),
                                  out.n > 0 ? ", " : "", *keys, v);
        }
    }
    return out.n > 0 ? (const char *)out.p : "";
}

static const char margin[] = "                       | ";

static void print_action(struct cs_cli *c, const json_t *f, uint64_t at)
{
    static const char *const keys[] = {"verb", "effects", "rules", NULL};
    const char *outcome = cs_cli_text(c, f, "outcome");
    enum cs_cli_colour colour = cs_cli_is(outcome, "allow")  ? CS_CLI_GREEN
                                : cs_cli_is(outcome, "hold") ? CS_CLI_YELLOW
                                                             : CS_CLI_RED;
    struct cs_slice text =
        cs_arena_printf(&c->arena, "%s%s%s  %s", cs_cli_paint(c, colour), outcome,
                        cs_cli_paint(c, CS_CLI_PLAIN), pairs(c, f, keys));
    struct cs_slice kind = cs_arena_printf(&c->arena, "#%s", cs_cli_text(c, f, "n"));
    head(c, at, (const char *)kind.p, (const char *)text.p);
    if (cs_cli_raw(f, "text").n > 0) {
        cs_cli_print_lines(c, margin, cs_cli_raw(f, "text"), false);
    } else {
        printf("%s%s\n", margin, cs_cli_text(c, f, "text")); /* bytes that are no text */
    }
    if (!cs_cli_is(outcome, "allow")) {
        printf("                         %s\n", cs_cli_text(c, f, "why"));
    }
}

static const struct {
    const char *kind;
    const char *keys[8];
} frame_keys[] = {
    {"session_open", {"protocol", "target", "database", "role", "address", "application", "tls"}},
    {"held", {"request", "attached", "digest"}},
    {"decided", {"request", "state", "by", "words"}},
    {"execute", {"request", "role", "elevated", "digest"}},
    {"result", {"tag", "rows", "bytes", "sqlstate", "message"}},
    {"session_close", {"why", "actions", "bytes_in", "bytes_out"}},
    {"note", {"text"}},
    {"rest", {"n", "from", "bytes", "hash"}},
};

/* One row, values side by side; lines of a value are not lines of ours. */
static void print_values(struct cs_cli *c, const json_t *values, enum cs_cli_colour colour)
{
    size_t i;
    json_t *v;
    printf("%s%s", margin, cs_cli_paint(c, colour));
    json_array_foreach(values, i, v)
    {
        const char *hex = cs_cli_text(c, v, "hex");
        if (json_is_object(v)) {
            printf("%s\\x%s (%s bytes)", i > 0 ? " | " : "", hex, cs_cli_text(c, v, "bytes"));
        } else {
            printf("%s%s", i > 0 ? " | " : "", json_is_null(v) ? "NULL" : cs_cli_value_text(c, v));
        }
    }
    printf("%s\n", cs_cli_paint(c, CS_CLI_PLAIN));
}

static void print_said(struct cs_cli *c, const json_t *f)
{
    size_t i;
    json_t *m;
    json_array_foreach(json_object_get(f, "said"), i, m)
    {
        const json_t *columns = json_object_get(m, "columns"), *row = json_object_get(m, "row");
        if (columns != NULL || row != NULL) {
            print_values(c, columns != NULL ? columns : row,
                         columns != NULL ? CS_CLI_DIM : CS_CLI_PLAIN);
        } else if (cs_cli_raw(m, "copy").n > 0) {
            cs_cli_print_lines(c, margin, cs_cli_raw(m, "copy"), false);
        } else {
            printf("%s%s\n", margin, cs_cli_value_text(c, m));
        }
    }
    if (json_object_get(f, "data") != NULL) {
        printf("%s%s\n", margin, cs_cli_text(c, f, "data")); /* nothing can be made of it */
    }
}

static void print_data(struct cs_cli *c, const json_t *f, uint64_t at)
{
    struct cs_slice text =
        cs_arena_printf(&c->arena, "of #%s from the %s, %s bytes", cs_cli_text(c, f, "n"),
                        cs_cli_text(c, f, "from"), cs_cli_text(c, f, "bytes"));
    head(c, at, "data", (const char *)text.p);
    print_said(c, f);
}

static void print_frame(struct cs_cli *c, const json_t *f, uint64_t at)
{
    const char *kind = cs_cli_text(c, f, "kind");
    if (cs_cli_is(kind, "action")) {
        print_action(c, f, at);
        return;
    }
    if (cs_cli_is(kind, "data")) {
        print_data(c, f, at);
        return;
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(frame_keys); i++) {
        if (!cs_cli_is(kind, frame_keys[i].kind)) {
            continue;
        }
        const char *text = pairs(c, f, frame_keys[i].keys);
        if (cs_cli_is(kind, "session_open")) {
            kind = "open";
            head(c, at, kind, cs_cli_chain(c, json_object_get(f, "chain")));
            printf("                       %s\n", text);
            return;
        }
        if (cs_cli_is(kind, "result") && !cs_cli_true(f, "ok")) {
            kind = "failed";
        }
        head(c, at, cs_cli_is(kind, "session_close") ? "close" : kind, text);
        print_said(c, f);
        return;
    }
    head(c, at, kind, cs_cli_value_text(c, f)); /* a kind of a later version */
}

/* The path with its query; NULL after a message. */
static const char *replay_path(struct cs_cli *c)
{
    const char *from = cs_cli_option(c, "from"), *find = cs_cli_option(c, "find");
    uint64_t from_s = 0;
    if (from != NULL && (!cs_slice_to_u64(cs_slice_str(from), &from_s) || from_s > 1000000000)) {
        (void)cs_cli_usage(
            c, "--from %s: a number of seconds since the recording began is possible", from);
        return NULL;
    }
    if (find != NULL && (find[0] == 0 || strlen(find) > FIND_MAX)) {
        (void)cs_cli_usage(c, "--find: 1 to %d bytes are possible", FIND_MAX);
        return NULL;
    }
    struct cs_slice query = cs_arena_printf(
        &c->arena, "/recording?actions=%d&from=%llu%s", cs_cli_option(c, "actions") != NULL,
        (unsigned long long)from_s, find != NULL ? "&find=" : "");
    /* The text is encoded as a name in a path is. */
    const char *path = cs_cli_path(c, "/v1/sessions/", c->position[0], (const char *)query.p);
    return path != NULL && find != NULL ? cs_cli_path(c, path, find, "") : path;
}

/* As long as the session itself did nothing, `speed` times as fast. */
static void wait_as_then(uint64_t ms, uint64_t speed)
{
    uint64_t pause = CS_MIN(ms / speed, (uint64_t)PAUSE_MAX_MS);
    const struct timespec t = {(time_t)(pause / 1000), (long)(pause % 1000) * 1000000};
    (void)fflush(stdout);
    (void)nanosleep(&t, NULL);
}

static int replay_end(struct cs_cli *c, const json_t *json)
{
    if (cs_cli_true(json, "truncated")) {
        printf("\nThe recording is longer; only so much was sent. --from begins later.\n");
    }
    const char *foreign = cs_cli_text(c, json, "foreign");
    if (foreign[0] != 0) {
        printf("\n%s frames that another gate wrote about this session were left out.\n", foreign);
    }
    const char *unreadable = cs_cli_text(c, json, "unreadable");
    if (unreadable[0] != 0) {
        (void)cs_cli_fail(c, "%s frames are sealed to a key that is not there", unreadable);
        return CS_CLI_FAILED;
    }
    const char *damaged = cs_cli_text(c, json, "damaged");
    if (damaged[0] != 0) {
        (void)cs_cli_fail(c, "the recording could not be read to its end: %s", damaged);
        return CS_CLI_FAILED;
    }
    return CS_CLI_OK;
}

static void print_recording(struct cs_cli *c, const json_t *json, uint64_t speed)
{
    const json_t *frames = json_object_get(json, "frames");
    uint64_t first = 0, at = 0, before_ms = 0;
    size_t i;
    json_t *f;
    printf("%sSession %s%s, %zu frames, began %s%s\n\n", cs_cli_paint(c, CS_CLI_BOLD),
           cs_cli_text(c, json, "session"), cs_cli_paint(c, CS_CLI_PLAIN), json_array_size(frames),
           cs_cli_text(c, json, "began"),
           cs_cli_true(json, "finished") ? "" : ", without an end so far");
    (void)cs_cli_time(cs_cli_raw(json, "began"), &first);
    json_array_foreach(frames, i, f)
    {
        struct cs_arena before = cs_cli_round_begin(c);
        (void)cs_cli_time(cs_cli_raw(f, "t"), &at);
        if (speed > 0 && i > 0 && at > before_ms) {
            wait_as_then(at - before_ms, speed);
        }
        before_ms = at;
        print_frame(c, f, at >= first ? at - first : 0);
        cs_cli_round_end(c, before);
    }
}

int cs_cmd_replay(struct cs_cli *c)
{
    struct cs_cli_answer a;
    const char *speed_text = cs_cli_option(c, "speed");
    uint64_t speed = 0;
    if (speed_text != NULL &&
        (!cs_slice_to_u64(cs_slice_str(speed_text), &speed) || speed == 0 || speed > SPEED_MAX)) {
        return cs_cli_usage(c, "--speed %s: a number from 1 to %d is possible", speed_text,
                            SPEED_MAX);
    }
    const char *path = replay_path(c);
    if (path == NULL) {
        return CS_CLI_USAGE;
    }
    if (!cs_cli_get(c, path, &a)) {
        return CS_CLI_FAILED;
    }
    int status = CS_CLI_OK;
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        print_recording(c, a.json, speed);
        status = replay_end(c, a.json);
    }
    cs_cli_answer_done(&a);
    return status;
}
