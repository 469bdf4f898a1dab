/* Finding the command, reading its arguments, help, and errors. Called by programs/countersign.c.
 * Must never print a byte that came from elsewhere without making it safe to show: a terminal
 * obeys. */
#include "cli/cli.h"

#include "action/action.h"
#include "base/alloc.h"
#include "cli/out.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

static const struct cs_cli_command commands[] = {
#define CS_CMD(id, words, fn, arguments, options, min, max, help, example, more)                   \
    {words, fn, arguments, options, min, max, help, example, more},
#define CS_CMD_SERVE(words, arguments, help, example, more)                                        \
    {words, NULL, arguments, "", 0, 0, help, example, more},
#include "cli/commands.def"
#undef CS_CMD
#undef CS_CMD_SERVE
};

static const char global_options[] = "json,help,url=,socket=,ca=,token-file=";

static const char overview[] =
    "Options of every command:\n"
    "  --json             print the gateway's own JSON\n"
    "  --url URL          the gateway (COUNTERSIGN_URL), https://gate.example.com:7443\n"
    "  --ca FILE          certificate to trust (COUNTERSIGN_CA); otherwise the system's\n"
    "  --socket PATH      the gateway's local socket (COUNTERSIGN_SOCKET)\n"
    "  --token-file FILE  read the token there; otherwise COUNTERSIGN_TOKEN\n"
    "\n"
    "Without --url and --socket: COUNTERSIGN_URL, COUNTERSIGN_SOCKET, run/countersign.sock in\n"
    "COUNTERSIGN_DIR, /var/lib/countersign/run/countersign.sock, whichever is set first.\n"
    "Exit status: 0 done, 1 refused or failed, 2 wrong usage (verify has its own).\n";

size_t cs_cli_command_count(void)
{
    return CS_ARRAY_LEN(commands);
}

const struct cs_cli_command *cs_cli_command_at(size_t i)
{
    return i < CS_ARRAY_LEN(commands) ? &commands[i] : NULL;
}

/* How many of argv's words make up the name: 0 = it is not this one. */
static int words_match(const char *words, int argc, char *const *argv)
{
    struct cs_slice rest = cs_slice_str(words);
    for (int used = 0; used < argc; used++) {
        size_t n = cs_slice_find(rest, ' ');
        if (!cs_slice_eq_str(cs_slice_head(rest, n), argv[used])) {
            return 0;
        }
        rest = cs_slice_from(rest, n + 1);
        if (rest.n == 0) {
            return used + 1;
        }
    }
    return 0;
}

const struct cs_cli_command *cs_cli_command_find(int argc, char *const *argv, int *ret_used)
{
    const struct cs_cli_command *best = NULL;
    int best_used = 0;
    for (size_t i = 0; i < CS_ARRAY_LEN(commands); i++) {
        int used = words_match(commands[i].words, argc, argv);
        if (used > best_used) {
            best = &commands[i];
            best_used = used;
        }
    }
    *ret_used = best_used;
    return best;
}

/* ---- arguments ---- */
enum takes { UNKNOWN_OPTION, TAKES_NOTHING, TAKES_VALUE };

static enum takes option_kind(struct cs_slice list, struct cs_slice name)
{
    while (list.n > 0) {
        size_t n = cs_slice_find(list, ',');
        struct cs_slice one = cs_slice_head(list, n);
        bool value = one.n > 0 && one.p[one.n - 1] == '=';
        if (cs_slice_eq(cs_slice_head(one, one.n - value), name)) {
            return value ? TAKES_VALUE : TAKES_NOTHING;
        }
        list = cs_slice_from(list, n + 1);
    }
    return UNKNOWN_OPTION;
}

static bool take_option(struct cs_cli *c, const char *name, const char *value, char *why,
                        size_t why_size)
{
    if (value == NULL) {
        (void)snprintf(why, why_size, "--%s needs a value", name);
        return false;
    }
    if (c->n_options == CS_CLI_OPTIONS) {
        (void)snprintf(why, why_size, "too many options");
        return false;
    }
    c->option[c->n_options].name = name;
    c->option[c->n_options++].value = value;
    return true;
}

/* One "--name", "--name=value" or "--name value"; *at is left on its last word. */
static bool parse_option(struct cs_cli *c, int argc, char *const *argv, int *at, char *why,
                         size_t why_size)
{
    struct cs_slice word = cs_slice_str(argv[*at] + 2);
    size_t eq = cs_slice_find(word, '=');
    struct cs_slice name = cs_arena_dup(&c->arena, cs_slice_head(word, eq));
    enum takes kind = option_kind(cs_slice_str(c->command->options), name);
    if (kind == UNKNOWN_OPTION) {
        kind = option_kind(cs_slice_str(global_options), name);
    }
    const char *value = eq < word.n ? argv[*at] + 2 + eq + 1 : NULL;
    if (name.p == NULL || kind == UNKNOWN_OPTION) {
        (void)snprintf(why, why_size, "there is no option %s here", argv[*at]);
        return false;
    }
    if (kind == TAKES_NOTHING && value != NULL) {
        (void)snprintf(why, why_size, "--%s takes no value", (const char *)name.p);
        return false;
    }
    if (kind == TAKES_VALUE && value == NULL) {
        value = *at + 1 < argc ? argv[++*at] : NULL;
        return take_option(c, (const char *)name.p, value, why, why_size);
    }
    return take_option(c, (const char *)name.p, value != NULL ? value : "", why, why_size);
}

/* "-o", where the command has --output. */
static bool is_output(const struct cs_cli *c, const char *word)
{
    return strcmp(word, "-o") == 0 &&
           option_kind(cs_slice_str(c->command->options), CS_SLICE_LIT("output")) == TAKES_VALUE;
}

/* "-h" is --help. */
static bool is_help(const char *word)
{
    return strcmp(word, "-h") == 0;
}

bool cs_cli_parse(struct cs_cli *c, int argc, char *const *argv, char *why, size_t why_size)
{
    bool options = true;
    for (int i = 0; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
            continue;
        }
        if (options && strncmp(argv[i], "--", 2) == 0) {
            if (!parse_option(c, argc, argv, &i, why, why_size)) {
                return false;
            }
            continue;
        }
        if (options && is_output(c, argv[i])) {
            if (!take_option(c, "output", i + 1 < argc ? argv[++i] : NULL, why, why_size)) {
                return false;
            }
            continue;
        }
        if (options && argv[i][0] == '-' && argv[i][1] != 0 && !is_help(argv[i])) {
            (void)snprintf(why, why_size, "there is no option %s here", argv[i]);
            return false;
        }
        if (options && is_help(argv[i])) {
            c->option[0].name = "help";
            c->option[0].value = "";
            c->n_options = CS_MAX(c->n_options, 1);
            continue;
        }
        if (c->n_positions == CS_CLI_POSITIONS || c->n_positions >= c->command->max) {
            (void)snprintf(why, why_size, "\"%s\" is one argument too many", argv[i]);
            return false;
        }
        c->position[c->n_positions++] = argv[i];
    }
    c->json = cs_cli_option(c, "json") != NULL;
    if (c->n_positions < c->command->min && cs_cli_option(c, "help") == NULL) {
        (void)snprintf(why, why_size, "an argument is missing: %s", c->command->arguments);
        return false;
    }
    return true;
}

const char *cs_cli_option(const struct cs_cli *c, const char *name)
{
    for (int i = c->n_options - 1; i >= 0; i--) { /* the last one counts */
        if (strcmp(c->option[i].name, name) == 0) {
            return c->option[i].value;
        }
    }
    return NULL;
}

struct cs_arena cs_cli_round_begin(struct cs_cli *c)
{
    struct cs_arena before = c->arena;
    cs_arena_init(&c->arena, 64 * 1024, CS_CLI_ARENA_MAX);
    return before;
}

void cs_cli_round_end(struct cs_cli *c, struct cs_arena before)
{
    cs_arena_done(&c->arena);
    c->arena = before;
}

/* ---- errors ---- */
static void complain(struct cs_cli *c, const char *label, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *text = n >= 0 ? cs_arena_alloc(&c->arena, (size_t)n + 1) : NULL;
    if (text != NULL) {
        (void)vsnprintf(text, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    struct cs_slice safe = cs_sanitise(cs_slice_str(text), true, &c->arena);
    (void)fflush(stdout);
    (void)fprintf(stderr, "countersign%s%s: %s%.*s\n", c->command != NULL ? " " : "",
                  c->command != NULL ? c->command->words : "", label, CS_SLICE_FMT(safe));
}

int cs_cli_fail(struct cs_cli *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    complain(c, "", fmt, ap);
    va_end(ap);
    return CS_CLI_FAILED;
}

void cs_cli_warn(struct cs_cli *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    complain(c, "warning: ", fmt, ap);
    va_end(ap);
}

int cs_cli_usage(struct cs_cli *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    complain(c, "", fmt, ap);
    va_end(ap);
    if (c->command != NULL) {
        (void)fprintf(stderr, "usage: countersign %s %s\nexample: %s\n", c->command->words,
                      c->command->arguments, c->command->example);
    } else {
        (void)fprintf(stderr, "see: countersign help\n");
    }
    bool verify = c->command != NULL && c->command->fn == cs_cmd_verify;
    return verify ? CS_CLI_VERIFY_USAGE : CS_CLI_USAGE;
}

/* ---- help ---- */
static void help_all(void)
{
    printf("Countersign holds risky actions on the wire until a person signs them.\n\n"
           "usage: countersign COMMAND [ARGUMENTS]\n\n");
    for (size_t i = 0; i < CS_ARRAY_LEN(commands); i++) {
        printf("  %-15s %s\n", commands[i].words, commands[i].help);
    }
    printf("\n%s", overview);
}

static void help_one(const struct cs_cli_command *m)
{
    printf("countersign %s: %s\n\nusage: countersign %s %s\n\nexample:\n  %s\n", m->words, m->help,
           m->words, m->arguments, m->example);
    if (m->more[0] != 0) {
        printf("\n%s\n", m->more);
    }
    printf("\nOptions of every command: countersign help\n");
}

int cs_cmd_help(struct cs_cli *c)
{
    int used;
    if (c->n_positions == 0) {
        help_all();
        return CS_CLI_OK;
    }
    char *words[2];
    int n = 0;
    for (; n < c->n_positions && n < 2; n++) {
        struct cs_slice s = cs_arena_dup(&c->arena, cs_slice_str(c->position[n]));
        union {
            const uint8_t *in;
            char *out;
        } u = {s.p};
        words[n] = u.out;
    }
    const struct cs_cli_command *m = cs_cli_command_find(n, words, &used);
    if (m == NULL || used < n) {
        return cs_cli_usage(c, "there is no command \"%s\"", c->position[0]);
    }
    help_one(m);
    return CS_CLI_OK;
}

int cs_cmd_version(struct cs_cli *c)
{
    if (c->json) {
        printf("{\"version\": \"%s\"}\n", CS_VERSION);
    } else {
        printf("countersign %s\n", CS_VERSION);
    }
    return CS_CLI_OK;
}

/* ---- the program ---- */
static int run_serve(struct cs_cli *c, int argc, char **argv, cs_cli_serve_fn serve)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            help_one(c->command);
            return CS_CLI_OK;
        }
    }
    if (serve == NULL) {
        return cs_cli_fail(c, "this build cannot serve: it was built without the supervisor");
    }
    return serve(argc, argv);
}

static int run(struct cs_cli *c, int argc, char **argv, cs_cli_serve_fn serve)
{
    int used = 0;
    char why[200];
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help_all();
        return argc < 2 ? CS_CLI_USAGE : CS_CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        return cs_cmd_version(c);
    }
    c->command = cs_cli_command_find(argc - 1, argv + 1, &used);
    if (c->command == NULL) {
        return cs_cli_usage(c, "there is no command \"%s\"", argv[1]);
    }
    if (c->command->fn == NULL) {
        return run_serve(c, argc - used, argv + used, serve);
    }
    if (!cs_cli_parse(c, argc - 1 - used, argv + 1 + used, why, sizeof why)) {
        return cs_cli_usage(c, "%s", why);
    }
    if (cs_cli_option(c, "help") != NULL) {
        help_one(c->command);
        return CS_CLI_OK;
    }
    return c->command->fn(c);
}

int cs_cli_main(int argc, char **argv, cs_cli_serve_fn serve)
{
    struct cs_cli c = {.command = NULL};
    const char *no_color = getenv("NO_COLOR");
    c.colour = isatty(STDOUT_FILENO) && (no_color == NULL || no_color[0] == 0);
    c.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    cs_arena_init(&c.arena, 64 * 1024, CS_CLI_ARENA_MAX);
    (void)signal(SIGPIPE, SIG_IGN);
    json_set_alloc_funcs(cs_alloc, cs_free);
    int status = run(&c, argc, argv, serve);
    /* A full disk or a closed pipe must not look like success. */
    if (fflush(stdout) != 0 && status == CS_CLI_OK) {
        status = CS_CLI_FAILED;
    }
    cs_arena_done(&c.arena);
    return status;
}
