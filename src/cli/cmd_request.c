/* Requests: the list, the card, and signing. What an approver reads here is what gets signed, so
 * everything is shown whole and made visible, and the digest sent is the one of the card shown.
 * Must never decide without having shown, nor sign what has changed since. */
#include "base/alloc.h"
#include "cli/client.h"
#include "cli/out.h"

#include <stdlib.h>
#include <unistd.h>

enum { PAGES_MAX = 500 };

/* ---- the list ---- */
static const char *const list_titles[] = {"ID",   "STATE", "EXPIRES", "TARGET",
                                          "RULE", "WHO",   "WHAT"};

static const char *one_line(struct cs_cli *c, const json_t *r)
{
    struct cs_slice text = cs_cli_raw(r, "text");
    if (text.n == 0) {
        text = cs_cli_raw(r, "text_shown");
    }
    if (text.n == 0 && cs_cli_true(r, "text_left_out")) {
        return (const char *)cs_arena_printf(&c->arena, "(%lld bytes: see `countersign show %s`)",
                                             json_integer_value(json_object_get(r, "text_bytes")),
                                             cs_cli_text(c, r, "id"))
            .p;
    }
    /* Cut before it is made safe: a megabyte of it would be for nothing. */
    return cs_cli_cut(c, cs_cli_safe(c, cs_slice_head(text, 400)), 60);
}

static void list_row(struct cs_cli *c, const json_t *r, const char *row[static 7])
{
    row[0] = cs_cli_text(c, r, "id");
    row[1] = cs_cli_text(c, r, "state");
    row[2] = cs_cli_is(row[1], "pending") ? cs_cli_when(c, r, "expires") : "";
    row[3] = cs_cli_text(c, r, "target");
    row[4] = cs_cli_text(c, r, "rule");
    row[5] = cs_cli_chain(c, json_object_get(r, "chain"));
    row[6] = one_line(c, r);
}

static void print_list(struct cs_cli *c, const json_t *requests, const char *empty)
{
    struct cs_cli_table t = {.columns = CS_ARRAY_LEN(list_titles), .titles = list_titles};
    size_t i;
    json_t *r;
    json_array_foreach(requests, i, r)
    {
        const char *row[7];
        list_row(c, r, row);
        cs_cli_table_row(&t, row);
    }
    cs_cli_table_print(c, &t, empty);
}

static void print_change(struct cs_cli *c, const json_t *r)
{
    if (c->json) {
        char *text = json_dumps(r, JSON_ENSURE_ASCII | JSON_COMPACT);
        printf("%s\n", text != NULL ? text : "null");
        cs_free(text);
    } else {
        const char *row[7];
        list_row(c, r, row);
        printf("%s  %-9s %s  %s  %s  %s\n", row[0], row[1], row[3], row[4], row[5], row[6]);
    }
}

/* Prints those whose state is not the one printed last. */
static void print_changes(struct cs_cli *c, const json_t *requests, json_t *seen)
{
    size_t i;
    json_t *r;
    json_array_foreach(requests, i, r)
    {
        const char *id = cs_cli_text(c, r, "id");
        json_t *state = json_object_get(r, "state");
        if (!json_equal(json_object_get(seen, id), state)) {
            (void)json_object_set(seen, id, state);
            print_change(c, r);
        }
    }
    (void)fflush(stdout);
}

/* One look; false when the gateway could not be asked. *seq: what it said last, 0 at first. */
static bool watch_once(struct cs_cli *c, json_t *seen, json_int_t *seq)
{
    char path[96];
    struct cs_cli_answer a;
    (void)snprintf(path, sizeof path, "/v1/requests?since=%lld&wait=45", (long long)*seq);
    if (!cs_cli_get(c, *seq > 0 ? path : "/v1/requests?state=pending", &a)) {
        return false;
    }
    print_changes(c, json_object_get(a.json, "requests"), seen);
    json_int_t now = json_integer_value(json_object_get(a.json, "seq"));
    cs_cli_answer_done(&a);
    if (*seq == 0 && now == 0) {
        (void)sleep(2); /* an empty store has no number to wait behind yet */
    }
    *seq = now;
    return true;
}

static int watch(struct cs_cli *c)
{
    json_t *seen = json_object();
    json_int_t seq = 0;
    unsigned failures = 0;
    /* The gateway may be restarting: some patience, then an end that a script can see. */
    while (failures < 10) {
        struct cs_arena before = cs_cli_round_begin(c);
        failures = watch_once(c, seen, &seq) ? 0 : failures + 1;
        cs_cli_round_end(c, before);
        if (failures > 0) {
            (void)sleep(failures < 5 ? failures : 5);
        }
    }
    json_decref(seen);
    return CS_CLI_FAILED;
}

/* What waits comes in pages, the oldest first; all of them go into the first answer. */
static bool further_pages(struct cs_cli *c, json_t *first)
{
    json_t *all = json_object_get(first, "requests");
    bool more = cs_cli_true(first, "more");
    json_int_t seq = json_integer_value(json_object_get(first, "seq"));
    for (unsigned page = 1; more && page < PAGES_MAX; page++) {
        char path[96];
        struct cs_cli_answer a;
        (void)snprintf(path, sizeof path, "/v1/requests?state=pending&since=%lld", (long long)seq);
        if (!cs_cli_get(c, path, &a)) {
            return false;
        }
        more = cs_cli_true(a.json, "more");
        seq = json_integer_value(json_object_get(a.json, "seq"));
        bool ok = json_array_extend(all, json_object_get(a.json, "requests")) == 0;
        cs_cli_answer_done(&a);
        if (!ok) {
            return false;
        }
    }
    (void)json_object_set_new(first, "more", json_boolean(more));
    (void)json_object_set_new(first, "seq", json_integer(seq));
    return true;
}

int cs_cmd_requests(struct cs_cli *c)
{
    struct cs_cli_answer a;
    bool all = cs_cli_option(c, "all") != NULL;
    if (cs_cli_option(c, "watch") != NULL) {
        return watch(c);
    }
    if (!cs_cli_get(c, all ? "/v1/requests" : "/v1/requests?state=pending", &a)) {
        return CS_CLI_FAILED;
    }
    if (!all && !further_pages(c, a.json)) {
        cs_cli_answer_done(&a);
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        print_list(c, json_object_get(a.json, "requests"),
                   all ? "There is no request." : "Nothing waits for a countersign.");
        if (cs_cli_true(a.json, "more")) {
            printf("There are more%s.\n", all ? ", older ones" : "");
        }
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

/* ---- the card ---- */
static void line(const char *label, const char *value)
{
    if (value[0] != 0) {
        printf("  %-10s %s\n", label, value);
    }
}

static void print_members(struct cs_cli *c, const char *label, const json_t *object)
{
    const char *key;
    const json_t *v;
    void *at = json_object_iter((json_t *)(uintptr_t)object);
    for (; at != NULL; at = json_object_iter_next((json_t *)(uintptr_t)object, at)) {
        key = json_object_iter_key(at);
        v = json_object_iter_value(at);
        const char *text = cs_cli_value_text(c, v);
        /* The text itself stands below, whole. */
        if (!cs_cli_is(key, "sql.text") && text[0] != 0) {
            printf("  %-10s %s = %s\n", label, cs_cli_safe(c, cs_slice_str(key)), text);
            label = "";
        }
    }
}

static void print_params(struct cs_cli *c, const json_t *params)
{
    size_t i;
    json_t *p;
    json_array_foreach(params, i, p)
    {
        if (cs_cli_true(p, "null")) {
            printf("  %-10s $%zu = NULL\n", i == 0 ? "params" : "", i + 1);
        } else {
            printf("  %-10s $%zu = \"%s\" (type %s, %s)\n", i == 0 ? "params" : "", i + 1,
                   cs_cli_text(c, p, "text"), cs_cli_text(c, p, "type"),
                   cs_cli_text(c, p, "format"));
        }
    }
}

static void print_votes(struct cs_cli *c, const json_t *card)
{
    size_t i;
    json_t *v;
    printf("  %-10s %s needed\n", "signatures", cs_cli_text(c, card, "quorum"));
    json_array_foreach(json_object_get(card, "votes"), i, v)
    {
        const char *reason = cs_cli_text(c, v, "reason");
        printf("  %-10s %s: %s %s%s%s\n", "", cs_cli_text(c, v, "by"),
               cs_cli_text(c, v, "decision"), cs_cli_when(c, v, "at"), reason[0] != 0 ? ", " : "",
               reason);
    }
}

static enum cs_cli_colour state_colour(const char *state)
{
    if (cs_cli_is(state, "pending")) {
        return CS_CLI_YELLOW;
    }
    return cs_cli_is(state, "approved") || cs_cli_is(state, "done") ? CS_CLI_GREEN : CS_CLI_RED;
}

static void print_target(struct cs_cli *c, const json_t *card)
{
    bool elevated = cs_cli_true(card, "elevated");
    const char *database = cs_cli_text(c, card, "database");
    const char *role = cs_cli_text(c, card, "role");
    printf("  %-10s %s%s%s%s%s%s%s%s\n", "target", cs_cli_text(c, card, "target"),
           database[0] != 0 ? ", database " : "", database, role[0] != 0 ? ", as " : "", role,
           cs_cli_paint(c, elevated ? CS_CLI_RED : CS_CLI_PLAIN),
           elevated ? "  ELEVATED credential" : "", cs_cli_paint(c, CS_CLI_PLAIN));
}

/* What the target said that it would touch: an estimate, and no part of what is signed. */
static void print_impact(struct cs_cli *c, const json_t *impact)
{
    size_t i;
    const json_t *r, *relations = json_object_get(impact, "relations");
    if (!json_is_object(impact)) {
        return;
    }
    printf("\n  It would touch (an estimate of the target's, from %s; not signed):\n",
           cs_cli_when(c, impact, "at"));
    if (json_is_integer(json_object_get(impact, "rows"))) {
        printf("    about %s rows, by the statement's plan\n", cs_cli_text(c, impact, "rows"));
    }
    json_array_foreach(relations, i, r)
    {
        printf("    %s %s", cs_cli_text(c, r, "kind"), cs_cli_text(c, r, "name"));
        if (json_is_integer(json_object_get(r, "rows"))) {
            printf(", about %s rows", cs_cli_text(c, r, "rows"));
        }
        if (json_is_integer(json_object_get(r, "bytes"))) {
            printf(", %s bytes", cs_cli_text(c, r, "bytes"));
        }
        if (cs_cli_raw(r, "dependants").n > 0) {
            printf(", on which depend: %s", cs_cli_text(c, r, "dependants"));
        }
        printf("\n");
    }
}

static void print_card(struct cs_cli *c, const json_t *card)
{
    const char *state = cs_cli_text(c, card, "state");
    const char *title = cs_cli_text(c, card, "title");
    printf("%sRequest %s%s  %s%s%s", cs_cli_paint(c, CS_CLI_BOLD), cs_cli_text(c, card, "id"),
           cs_cli_paint(c, CS_CLI_PLAIN), cs_cli_paint(c, state_colour(state)), state,
           cs_cli_paint(c, CS_CLI_PLAIN));
    if (cs_cli_is(state, "pending")) {
        printf(", expires %s", cs_cli_when(c, card, "expires"));
    }
    printf("\n");
    line("who", cs_cli_chain(c, json_object_get(card, "chain")));
    line("from", cs_cli_text(c, card, "address"));
    print_target(c, card);
    printf("  %-10s %s%s%s\n", "rule", cs_cli_text(c, card, "rule"), title[0] != 0 ? ": " : "",
           title);
    if (json_array_size(json_object_get(card, "rules")) > 1) {
        line("all rules", cs_cli_text(c, card, "rules"));
    }
    print_members(c, "facts", json_object_get(card, "facts"));
    line("asked", cs_cli_when(c, card, "created"));
    const char *claimed = cs_cli_text(c, card, "claimed");
    if (claimed[0] != 0) {
        printf("  %-10s \"%s\" (nobody checked this)\n", "claims", claimed);
    }
    line("attached", cs_cli_text(c, card, "attached"));
    print_votes(c, card);
    line("decided", cs_cli_when(c, card, "decided"));
    line("by", cs_cli_text(c, card, "by"));
    line("words", cs_cli_text(c, card, "words"));
    if (cs_cli_true(card, "in_transaction")) {
        printf("  In an open transaction. What ran in it before:\n");
        cs_cli_print_lines(c, "  | ", cs_cli_raw(card, "tx"), false);
    }
    if (cs_cli_raw(card, "settings").n > 0) {
        printf("  Session settings:\n");
        cs_cli_print_lines(c, "  | ", cs_cli_raw(card, "settings"), false);
    }
    print_params(c, json_object_get(card, "params"));
    printf("\n  Exactly this would run:\n\n");
    cs_cli_print_lines(c, "    | ", cs_cli_raw(card, "text_shown"), true);
    print_impact(c, json_object_get(card, "impact"));
    printf("\n  digest     %s%s%s  %s\n", cs_cli_paint(c, CS_CLI_BOLD),
           cs_cli_text(c, card, "short"), cs_cli_paint(c, CS_CLI_PLAIN),
           cs_cli_text(c, card, "digest"));
}

static bool get_card(struct cs_cli *c, struct cs_cli_answer *ret)
{
    const char *path = cs_cli_path(c, "/v1/requests/", c->position[0], "");
    return path != NULL && cs_cli_get(c, path, ret);
}

int cs_cmd_show(struct cs_cli *c)
{
    struct cs_cli_answer a;
    if (!get_card(c, &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        print_card(c, a.json);
        const char *because = cs_cli_text(c, a.json, "may_not_vote_because");
        if (cs_cli_true(a.json, "may_vote")) {
            const char *id = cs_cli_text(c, a.json, "id");
            printf("\n  countersign approve %s      countersign deny %s --reason \"why\"\n", id,
                   id);
        } else if (because[0] != 0) {
            printf("\n  You may not vote: %s\n", because);
        }
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

/* ---- deciding ---- */
/* Only a lone y or yes, typed at a terminal. */
static bool confirmed(void)
{
    char answer[16];
    printf("\nSign this? [y/N] ");
    (void)fflush(stdout);
    if (fgets(answer, sizeof answer, stdin) == NULL) {
        return false;
    }
    return cs_cli_is(answer, "y\n") || cs_cli_is(answer, "yes\n") || cs_cli_is(answer, "Y\n");
}

/* The digest of the card that was shown: 64 hex digits or nothing. */
static const char *digest_of(struct cs_cli *c, const json_t *card)
{
    struct cs_slice d = cs_cli_raw(card, "digest");
    for (size_t i = 0; i < d.n; i++) {
        if (strchr("0123456789abcdef", d.p[i]) == NULL || d.p[i] == 0) {
            return NULL;
        }
    }
    return d.n == 64 ? (const char *)cs_arena_dup(&c->arena, d).p : NULL;
}

static int vote(struct cs_cli *c, const char *digest, const char *what, const char *reason)
{
    struct cs_cli_answer a;
    const char *path = cs_cli_path(c, "/v1/requests/", c->position[0], what);
    json_t *body = reason != NULL ? json_pack("{s:s, s:s}", "digest", digest, "reason", reason)
                                  : json_pack("{s:s}", "digest", digest);
    if (body == NULL) {
        return cs_cli_fail(c, "the reason is not valid UTF-8 text");
    }
    bool ok = path != NULL && cs_cli_send(c, "POST", path, body, &a);
    json_decref(body);
    if (!ok) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        const char *state = cs_cli_text(c, a.json, "state");
        printf("%s %s%s%s\n", cs_cli_is(what, "/approve") ? "Signed:" : "Refused:",
               cs_cli_safe(c, cs_slice_str(c->position[0])), state[0] != 0 ? ", now " : "", state);
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

/* What stands against asking for a decision at all; NULL when nothing does. */
static const char *obstacle(struct cs_cli *c, const json_t *card)
{
    const char *because = cs_cli_text(c, card, "may_not_vote_because");
    if (!cs_cli_is(cs_cli_text(c, card, "state"), "pending")) {
        return "it is not pending any more";
    }
    if (!cs_cli_true(card, "may_vote")) {
        return because[0] != 0 ? because : "you may not vote on it";
    }
    /* Nobody signs what could not be shown whole. */
    if (cs_cli_true(card, "text_left_out") ||
        !json_is_string(json_object_get(card, "text_shown"))) {
        return "the gateway did not send the whole text";
    }
    return digest_of(c, card) == NULL ? "the gateway gave no digest to sign" : NULL;
}

int cs_cmd_approve(struct cs_cli *c)
{
    struct cs_cli_answer a;
    bool yes = cs_cli_option(c, "yes") != NULL;
    if (!yes && (!c->terminal || c->json)) {
        return cs_cli_usage(c,
                            "without a terminal, or with --json, --yes must say that the request "
                            "was looked at (countersign show %s)",
                            c->position[0]);
    }
    if (!get_card(c, &a)) {
        return CS_CLI_FAILED;
    }
    if (!c->json) {
        print_card(c, a.json);
    }
    const char *against = obstacle(c, a.json);
    const char *digest = digest_of(c, a.json);
    cs_cli_answer_done(&a);
    if (against != NULL) {
        return cs_cli_fail(c, "%s cannot be signed: %s", c->position[0], against);
    }
    if (!yes && !confirmed()) {
        printf(
            "Not signed. The request goes on waiting; to refuse it: countersign deny %s --reason "
            "\"why\"\n",
            cs_cli_safe(c, cs_slice_str(c->position[0])));
        return CS_CLI_FAILED;
    }
    return vote(c, digest, "/approve", cs_cli_option(c, "reason"));
}

int cs_cmd_deny(struct cs_cli *c)
{
    struct cs_cli_answer a;
    const char *reason = cs_cli_option(c, "reason");
    if (reason == NULL || reason[0] == 0) {
        return cs_cli_usage(c,
                            "--reason TEXT is missing: it tells the requester what to do instead");
    }
    if (!get_card(c, &a)) {
        return CS_CLI_FAILED;
    }
    const char *against = obstacle(c, a.json);
    const char *digest = digest_of(c, a.json);
    cs_cli_answer_done(&a);
    if (against != NULL) {
        return cs_cli_fail(c, "%s cannot be refused: %s", c->position[0], against);
    }
    return vote(c, digest, "/deny", reason);
}

int cs_cmd_cancel(struct cs_cli *c)
{
    struct cs_cli_answer a;
    const char *path = cs_cli_path(c, "/v1/requests/", c->position[0], "/cancel");
    if (path == NULL || !cs_cli_send(c, "POST", path, NULL, &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        printf("Withdrawn: %s\n", cs_cli_safe(c, cs_slice_str(c->position[0])));
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}
