/* Targets: `target check` prints what is wrong with a target's roles and what to do about it, for
 * somebody who is tired; `target sql` prints the statements that make the roles well. Both ask the
 * gateway; what a database server said is made safe to show. */
#include "cli/client.h"
#include "cli/out.h"

enum { WIDTH = 100, SHOWN = 8 };

/* Words in lines of at most WIDTH, behind a margin of blanks; `mark` stands before the first. */
static void print_wrapped(const char *text, int margin, const char *mark)
{
    struct cs_slice rest = cs_slice_str(text);
    int column = printf("%*s%s", margin, "", mark);
    int inner = column;
    bool first = true;
    while (rest.n > 0) {
        size_t n = cs_slice_find(rest, ' ');
        struct cs_slice word = cs_slice_head(rest, n);
        rest = cs_slice_from(rest, n + 1);
        if (!first && column + 1 + (int)CS_MIN(word.n, (size_t)WIDTH) > WIDTH) {
            printf("\n%*s", inner, "");
            column = inner;
            first = true;
        }
        column += printf("%s%.*s", first ? "" : " ", CS_SLICE_FMT(word));
        first = false;
    }
    printf("\n");
}

static void print_details(struct cs_cli *c, const json_t *finding)
{
    size_t i;
    json_t *d;
    const json_t *list = json_object_get(finding, "details");
    size_t n = json_array_size(list);
    json_array_foreach(list, i, d)
    {
        if (i < SHOWN) {
            printf("      %s\n", cs_cli_value_text(c, d));
        }
    }
    if (n > SHOWN || cs_cli_true(finding, "more")) {
        printf("      ... and %s%zu more (--json shows %s)\n",
               cs_cli_true(finding, "more") ? "at least " : "", n > SHOWN ? n - SHOWN : (size_t)1,
               cs_cli_true(finding, "more") ? "the first ones" : "all");
    }
}

static void print_finding(struct cs_cli *c, const json_t *f)
{
    static const struct {
        const char *severity, *word;
        enum cs_cli_colour colour;
    } words[] = {{"serious", "SERIOUS", CS_CLI_RED},
                 {"warning", "WARNING", CS_CLI_YELLOW},
                 {"note", "note", CS_CLI_DIM}};
    const char *severity = cs_cli_text(c, f, "severity");
    size_t k = 0; /* what is not known is taken for the worst */
    for (size_t i = 0; i < CS_ARRAY_LEN(words); i++) {
        k = cs_cli_is(severity, words[i].severity) ? i : k;
    }
    printf("\n%s%-7s%s  %s  [%s]\n", cs_cli_paint(c, words[k].colour), words[k].word,
           cs_cli_paint(c, CS_CLI_PLAIN), cs_cli_text(c, f, "title"), cs_cli_text(c, f, "id"));
    print_details(c, f);
    print_wrapped(cs_cli_text(c, f, "means"), 4, "");
    print_wrapped(cs_cli_text(c, f, "fix"), 4, "-> ");
}

static void print_unseen(struct cs_cli *c, const json_t *root)
{
    size_t i;
    json_t *u;
    const json_t *list = json_object_get(root, "not_seen");
    if (json_array_size(list) > 0) {
        printf("\nNot looked at, because the server did not show it:\n");
    }
    json_array_foreach(list, i, u)
    {
        printf("    %s%-20s%s  %s\n",
               cs_cli_paint(c, cs_cli_true(u, "required") ? CS_CLI_RED : CS_CLI_DIM),
               cs_cli_text(c, u, "id"), cs_cli_paint(c, CS_CLI_PLAIN), cs_cli_text(c, u, "why"));
    }
}

static void print_check(struct cs_cli *c, const json_t *root)
{
    size_t i;
    json_t *f;
    const json_t *findings = json_object_get(root, "findings");
    const char *elevated = cs_cli_text(c, root, "elevated");
    const char *probe = cs_cli_text(c, root, "probe");
    printf("%s%s%s: database %s at %s\n    everyday role  %s\n    elevated role  %s\n"
           "    probe role     %s\n",
           cs_cli_paint(c, CS_CLI_BOLD), cs_cli_text(c, root, "target"),
           cs_cli_paint(c, CS_CLI_PLAIN), cs_cli_text(c, root, "database"),
           cs_cli_text(c, root, "address"), cs_cli_text(c, root, "everyday"),
           elevated[0] != 0 ? elevated : "(none)", probe[0] != 0 ? probe : "(the everyday one)");
    const json_t *certificate = json_object_get(root, "certificate");
    printf("    tls            %s", cs_cli_text(c, root, "tls"));
    if (json_is_object(certificate)) {
        printf(", certificate %s until %s", cs_cli_text(c, certificate, "subject"),
               cs_cli_text(c, certificate, "until"));
    }
    printf("\n");
    json_array_foreach(findings, i, f)
    {
        print_finding(c, f);
    }
    print_unseen(c, root);
    const char *warnings = cs_cli_text(c, root, "warnings"), *notes = cs_cli_text(c, root, "notes");
    printf("\n%s checks: %s serious, %s warning%s, %s note%s.\n", cs_cli_text(c, root, "made"),
           cs_cli_text(c, root, "serious"), warnings, cs_cli_is(warnings, "1") ? "" : "s", notes,
           cs_cli_is(notes, "1") ? "" : "s");
    if (!cs_cli_is(cs_cli_text(c, root, "failed"), "0")) {
        printf("%s checks could not be made: until they can, take nothing for granted.\n",
               cs_cli_text(c, root, "failed"));
    } else if (json_array_size(findings) == 0) {
        printf("Nothing to complain about.\n");
    } else {
        printf("Most of it is mended by what this prints: countersign target sql %s\n",
               cs_cli_text(c, root, "target"));
    }
}

/* A count that is missing or no number is not zero. */
static bool is_zero(const json_t *root, const char *key)
{
    const json_t *v = json_object_get(root, key);
    return json_is_integer(v) && json_integer_value(v) == 0;
}

int cs_cmd_target_check(struct cs_cli *c)
{
    struct cs_cli_answer a;
    const char *path = cs_cli_path(c, "/v1/targets/", c->position[0], "/check");
    if (path == NULL || !cs_cli_get(c, path, &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        print_check(c, a.json);
    }
    bool fine = is_zero(a.json, "serious") && is_zero(a.json, "failed") &&
                (cs_cli_option(c, "strict") == NULL || is_zero(a.json, "warnings"));
    cs_cli_answer_done(&a);
    return fine ? CS_CLI_OK : CS_CLI_FAILED;
}

/* "schema=a,b" from every --schema; NULL when memory is out. */
static const char *sql_path(struct cs_cli *c)
{
    const char *path = cs_cli_path(c, "/v1/targets/", c->position[0], "/sql");
    const char *before = "?schema=";
    for (int i = 0; i < c->n_options && path != NULL; i++) {
        if (cs_cli_is(c->option[i].name, "schema")) {
            const char *with = cs_cli_path(c, before, c->option[i].value, "");
            struct cs_slice both =
                with != NULL ? cs_arena_printf(&c->arena, "%s%s", path, with) : CS_SLICE_NULL;
            path = (const char *)both.p;
            before = ",";
        }
    }
    return path;
}

int cs_cmd_target_sql(struct cs_cli *c)
{
    struct cs_cli_answer a;
    const char *path = sql_path(c);
    if (path == NULL || !cs_cli_get(c, path, &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        struct cs_slice sql = cs_cli_raw(a.json, "sql");
        if (c->terminal) {
            cs_cli_print_lines(c, "", sql, false);
        } else { /* for psql: exactly as it came */
            (void)fwrite(sql.p, 1, sql.n, stdout);
        }
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}
