/* The command line: one table of commands (commands.def), one function each. Commands reach the
 * gateway only through its API (docs/api.md), over TLS or the local socket; `serve` and `init` work
 * on files, and so do `verify` and `export`. Exit status: 0 done, 1 refused or failed, 2 usage. */
#ifndef CS_CLI_CLI_H
#define CS_CLI_CLI_H

#include "base/arena.h"
#include "base/attr.h"
#include "base/slice.h"

#include <jansson.h>
#include <stdio.h>

enum { CS_CLI_OK = 0, CS_CLI_FAILED = 1, CS_CLI_USAGE = 2 };
/* `verify` has 2 and 3 for what it finds: docs/format.md. */
enum { CS_CLI_VERIFY_MISSING = 3, CS_CLI_VERIFY_USAGE = 64 };
enum { CS_CLI_POSITIONS = 8, CS_CLI_OPTIONS = 16 };

struct cs_cli;
typedef int (*cs_cli_fn)(struct cs_cli *c);
typedef int (*cs_cli_serve_fn)(int argc, char **argv);

struct cs_cli_command {
    const char *words;     /* "user add" */
    cs_cli_fn fn;          /* NULL: serve */
    const char *arguments; /* for people: "NAME [--groups A,B]" */
    const char *options;   /* "groups=,watch": names, '=' where a value follows */
    int min, max;          /* positional arguments */
    const char *help;      /* one line */
    const char *example;
    const char *more;
};

/* One run of the program. */
struct cs_cli {
    struct cs_arena arena;
    const struct cs_cli_command *command;
    const char *position[CS_CLI_POSITIONS];
    int n_positions;
    struct {
        const char *name, *value; /* borrowed from argv or the arena */
    } option[CS_CLI_OPTIONS];
    int n_options;
    bool json;     /* --json */
    bool colour;   /* standard output is a terminal and NO_COLOR is not set */
    bool terminal; /* standard input and output are terminals */
};

/* The whole program behind main(). `serve` may be NULL. */
int cs_cli_main(int argc, char **argv, cs_cli_serve_fn serve);

/* ---- the table ---- */
size_t cs_cli_command_count(void);
const struct cs_cli_command *cs_cli_command_at(size_t i);
/* The command that argv begins with (two words before one); *ret_used words belong to its name. */
const struct cs_cli_command *cs_cli_command_find(int argc, char *const *argv, int *ret_used);

/* ---- arguments ---- */
/* Options and positions behind the command's words. False: `why` says what is wrong. Pure but for
 * the arena. */
bool cs_cli_parse(struct cs_cli *c, int argc, char *const *argv, char *why,
                  size_t why_size) CS_MUST_CHECK;
/* The value of an option ("" of a flag), NULL when it was not given. */
const char *cs_cli_option(const struct cs_cli *c, const char *name);

/* An arena for one round of a loop: what was allocated in between is gone after the end. */
struct cs_arena cs_cli_round_begin(struct cs_cli *c);
void cs_cli_round_end(struct cs_cli *c, struct cs_arena before);

/* ---- what went wrong: one line on standard error, made safe to show ---- */
int cs_cli_fail(struct cs_cli *c, const char *fmt, ...) CS_PRINTF(2, 3);
int cs_cli_usage(struct cs_cli *c, const char *fmt, ...) CS_PRINTF(2, 3);
void cs_cli_warn(struct cs_cli *c, const char *fmt, ...) CS_PRINTF(2, 3);

/* One function per command. */
#define CS_CMD(id, words, fn, arguments, options, min, max, help, example, more)                   \
    int fn(struct cs_cli *c);
#define CS_CMD_SERVE(words, arguments, help, example, more)
#include "cli/commands.def"
#undef CS_CMD
#undef CS_CMD_SERVE

#endif
