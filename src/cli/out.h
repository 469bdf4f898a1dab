/* What commands print: text from the API made safe to show, aligned tables, times, colour. */
#ifndef CS_CLI_OUT_H
#define CS_CLI_OUT_H

#include "cli/cli.h"

/* Functions that give text for printf never give NULL. */
#define CS_CLI_TEXT __attribute__((returns_nonnull))

enum { CS_CLI_ARENA_MAX = 256 * 1024 * 1024, CS_CLI_COLUMNS = 8 };

/* A member as one safe line: strings sanitised, numbers and truth values as text, lists joined by
 * ", ".
 * "" when it is absent or null. Never NULL. */
CS_CLI_TEXT const char *cs_cli_text(struct cs_cli *c, const json_t *object, const char *key);
CS_CLI_TEXT const char *cs_cli_value_text(struct cs_cli *c, const json_t *value);
/* The same for a piece of text. */
CS_CLI_TEXT const char *cs_cli_safe(struct cs_cli *c, struct cs_slice text);
/* A member that must be a string, as it is; the empty slice when it is not one. */
struct cs_slice cs_cli_raw(const json_t *object, const char *key);
bool cs_cli_true(const json_t *object, const char *key);
/* Prints text line by line behind `margin`, so that no text can pass for a line of ours. `shown`:
 * it was made safe before; anything unsafe left in it is still escaped. */
void cs_cli_print_lines(struct cs_cli *c, const char *margin, struct cs_slice text, bool shown);
/* Whether two texts are the same. */
bool cs_cli_is(const char *text, const char *word);
/* "agent bot on behalf of person alice" from an array of principals, root first. */
CS_CLI_TEXT const char *cs_cli_chain(struct cs_cli *c, const json_t *chain);

/* RFC 3339 → ms since 1970; false when it is no time. */
bool cs_cli_time(struct cs_slice text, uint64_t *ret_ms);
/* "in 12 min", "3 h ago" against now; the text itself when it is no time, "" when absent. */
CS_CLI_TEXT const char *cs_cli_when(struct cs_cli *c, const json_t *object, const char *key);
/* "850 ms", "12 s", "3 min", "5 h", "2 d" */
CS_CLI_TEXT const char *cs_cli_span(struct cs_cli *c, uint64_t ms);

/* The API's JSON, with every character outside ASCII escaped. */
int cs_cli_print_json(const json_t *value);

/* A table: add rows, print. Cells must be safe; they are borrowed. */
struct cs_cli_table {
    size_t columns, rows, cap;
    const char *const *titles;
    const char **cells; /* owned: cs_cli_table_print frees */
};
void cs_cli_table_row(struct cs_cli_table *t, const char *const *cells);
/* `empty` is printed when there is no row. */
void cs_cli_table_print(struct cs_cli *c, struct cs_cli_table *t, const char *empty);
/* At most n characters, with "…" where something was cut. */
CS_CLI_TEXT const char *cs_cli_cut(struct cs_cli *c, const char *text, size_t n);

enum cs_cli_colour {
    CS_CLI_PLAIN,
    CS_CLI_BOLD,
    CS_CLI_RED,
    CS_CLI_GREEN,
    CS_CLI_YELLOW,
    CS_CLI_DIM
};
/* Escape sequences, or "" where there is no colour. */
CS_CLI_TEXT const char *cs_cli_paint(const struct cs_cli *c, enum cs_cli_colour colour);

#endif
