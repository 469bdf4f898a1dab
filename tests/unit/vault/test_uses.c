/* What keeper's log says of uses of secrets under a flood: no line too many, no use too few. */
#include "base/log.h"
#include "base/time.h"
#include "tap.h"
#include "vault/keeper_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static FILE *caught;

static void catch_log(void)
{
    caught = tmpfile();
    CS_CHECK(caught != NULL && dup2(fileno(caught), STDERR_FILENO) == STDERR_FILENO);
    cs_log_init("keeper", CS_LEVEL_INFO);
}

/* The sum of all `name`=N in what was logged. */
static uint64_t told(const char *name)
{
    char line[1024], key[40];
    uint64_t sum = 0;
    (void)snprintf(key, sizeof key, " %s=", name);
    rewind(caught);
    while (fgets(line, sizeof line, caught) != NULL) {
        const char *at = strstr(line, key);
        sum += at != NULL ? strtoull(at + strlen(key), NULL, 10) : 0;
    }
    return sum;
}

CS_TEST(uses_beyond_the_lines_of_a_second_are_counted_apart)
{
    struct cs_uses u = {.window_ns = cs_mono_ns()};
    uint64_t lines[CS_USE_KINDS] = {0};
    catch_log();
    for (unsigned i = 0; i < 20000; i++) {
        lines[CS_USE_REFUSED] += cs_use_may_log(&u, CS_USE_REFUSED, false) ? 1 : 0;
    }
    for (unsigned i = 0; i < 50; i++) { /* refusals do not crowd out what was done */
        lines[CS_USE_DONE] += cs_use_may_log(&u, CS_USE_DONE, false) ? 1 : 0;
    }
    CS_EQ_U64(lines[CS_USE_DONE], 50);
    CS_CHECK(lines[CS_USE_REFUSED] >= CS_LIMIT_KEEPER_LOG_LINES);
    CS_CHECK(lines[CS_USE_REFUSED] < 20000);
    CS_CHECK(u.pending.set);
    cs_uses_tell(&u);
    CS_EQ_U64(told("refused") + lines[CS_USE_REFUSED], 20000);
    CS_EQ_U64(told("used"), 0);
    cs_uses_tell(&u); /* told once */
    CS_EQ_U64(told("refused") + lines[CS_USE_REFUSED], 20000);
}

CS_TEST(uses_that_must_have_a_line_get_one)
{
    struct cs_uses u = {.window_ns = cs_mono_ns()};
    for (unsigned i = 0; i < 1000; i++) {
        CS_CHECK(cs_use_may_log(&u, CS_USE_DONE, true));
    }
    CS_EQ_U64(u.more[CS_USE_DONE], 0);
}

CS_TEST(uses_of_a_second_are_told_when_the_next_begins)
{
    struct cs_uses u = {.window_ns = cs_mono_ns() - 2 * CS_NS_PER_S, .more = {7, 9}};
    catch_log();
    CS_CHECK(cs_use_may_log(&u, CS_USE_DONE, false));
    CS_EQ_U64(told("used"), 7);
    CS_EQ_U64(told("refused"), 9);
    CS_EQ_U64(u.more[CS_USE_DONE] + u.more[CS_USE_REFUSED], 0);
}
