#include "cli/cli.h"
#include "tap.h"

static struct cs_cli c;
static char why[200];

static bool parse(const char *words, int argc, const char *const *argv)
{
    static char copies[16][64], name[64];
    char *copy[16], *word[2] = {name, NULL};
    int used;
    for (int i = 0; i < argc; i++) {
        (void)snprintf(copies[i], sizeof copies[i], "%s", argv[i]);
        copy[i] = copies[i];
    }
    (void)snprintf(name, sizeof name, "%s", words);
    char *blank = strchr(name, ' ');
    if (blank != NULL) {
        *blank = 0;
        word[1] = blank + 1;
    }
    static bool started;
    if (!started) {
        cs_arena_init(&c.arena, 4096, 1 << 20);
        started = true;
    }
    cs_arena_reset(&c.arena);
    c = (struct cs_cli){.arena = c.arena};
    c.command = cs_cli_command_find(blank != NULL ? 2 : 1, word, &used);
    CS_CHECK(c.command != NULL && strcmp(c.command->words, words) == 0);
    return cs_cli_parse(&c, argc, copy, why, sizeof why);
}
#define PARSE(words, ...)                                                                          \
    parse(words, (int)CS_ARRAY_LEN(((const char *const[]){__VA_ARGS__})),                          \
          (const char *const[]){__VA_ARGS__})

CS_TEST(args_options_stand_anywhere_and_take_values_both_ways)
{
    CS_CHECK(PARSE("approve", "--json", "7Q2KD4M9", "--reason", "because", "--url=https://a"));
    CS_EQ_U64(c.n_positions, 1);
    CS_EQ_STR(cs_slice_str(c.position[0]), "7Q2KD4M9");
    CS_EQ_STR(cs_slice_str(cs_cli_option(&c, "reason")), "because");
    CS_EQ_STR(cs_slice_str(cs_cli_option(&c, "url")), "https://a");
    CS_CHECK(c.json);
    CS_CHECK(cs_cli_option(&c, "yes") == NULL);
}

CS_TEST(args_a_value_may_begin_with_dashes_and_be_empty)
{
    CS_CHECK(PARSE("deny", "ID", "--reason", "--no"));
    CS_EQ_STR(cs_slice_str(cs_cli_option(&c, "reason")), "--no");
    CS_CHECK(PARSE("user groups", "alice", "--groups="));
    CS_EQ_STR(cs_slice_str(cs_cli_option(&c, "groups")), "");
}

CS_TEST(args_two_dashes_end_the_options)
{
    CS_CHECK(PARSE("show", "--", "--json"));
    CS_EQ_STR(cs_slice_str(c.position[0]), "--json");
    CS_CHECK(!c.json);
}

CS_TEST(args_the_last_of_a_repeated_option_counts)
{
    CS_CHECK(PARSE("deny", "ID", "--reason=a", "--reason=b"));
    CS_EQ_STR(cs_slice_str(cs_cli_option(&c, "reason")), "b");
}

CS_TEST(args_refuses_what_it_does_not_know)
{
    CS_CHECK(!PARSE("show", "ID", "--reason", "x"));
    CS_CHECK(strstr(why, "--reason") != NULL);
    CS_CHECK(!PARSE("show", "-x", "ID"));
    CS_CHECK(!PARSE("show", "ID", "--jso"));
    CS_CHECK(!PARSE("show", "ID", "--json=yes"));
    CS_CHECK(!PARSE("show", "ID", "--url"));
    CS_CHECK(!PARSE("show", "ID", "MORE"));
    CS_CHECK(!PARSE("show", "--json"));
    CS_CHECK(!PARSE("approve", "ID", "--token", "cs_p_x")); /* no token in the arguments, ever */
}

CS_TEST(args_help_needs_no_arguments)
{
    CS_CHECK(PARSE("approve", "--help"));
    CS_CHECK(PARSE("approve", "-h"));
    CS_CHECK(cs_cli_option(&c, "help") != NULL);
}

CS_TEST(args_the_longer_command_wins)
{
    char sessions[] = "sessions", kill_[] = "kill", id[] = "x";
    char *a[] = {sessions, kill_, id}, *b[] = {sessions, id};
    int used;
    CS_EQ_STR(cs_slice_str(cs_cli_command_find(3, a, &used)->words), "sessions kill");
    CS_EQ_U64(used, 2);
    CS_EQ_STR(cs_slice_str(cs_cli_command_find(2, b, &used)->words), "sessions");
    CS_EQ_U64(used, 1);
    char user[] = "user";
    char *only[] = {user};
    CS_CHECK(cs_cli_command_find(1, only, &used) == NULL);
}

CS_TEST(commands_are_complete)
{
    for (size_t i = 0; i < cs_cli_command_count(); i++) {
        const struct cs_cli_command *m = cs_cli_command_at(i);
        CS_CHECK(m->help[0] != 0 && strlen(m->help) < 80);
        CS_CHECK(strncmp(m->example, "countersign ", 12) == 0);
        CS_CHECK(strncmp(m->example + 12, m->words, strlen(m->words)) == 0);
        CS_CHECK(m->min <= m->max && m->max <= CS_CLI_POSITIONS);
        for (const char *line = m->more; line != NULL; line = strchr(line, '\n')) {
            line += line[0] == '\n';
            CS_CHECK(strcspn(line, "\n") <= 100);
        }
    }
    CS_CHECK(cs_cli_command_at(cs_cli_command_count()) == NULL);
}
