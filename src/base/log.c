/* Logging. The line is built in one buffer and written by one write(2), so that lines of several
 * roles on one standard error never mix. */
#include "base/log.h"

#include "base/time.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct event_row {
    const char *name;
    enum cs_level level;
};

static const struct event_row rows[] = {
#define CS_EV(id, name, level, text) {name, CS_LEVEL_##level},
#include "base/events.def"
#undef CS_EV
};
_Static_assert(CS_LEVEL_DEBUG == 0 && CS_LEVEL_ERROR == 3, "the order of the two tables");
static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR"};

/* What systemd's journal takes from the beginning of a line (sd-daemon(3)). */
static const char *const journal_levels[] = {"<7>", "<6>", "<4>", "<3>"};

enum { JOURNAL_UNKNOWN, JOURNAL_NO, JOURNAL_YES };
static int journal;

static char role_name[32] = "countersign";
static enum cs_level least_level = CS_LEVEL_INFO;

static uint64_t uncounted[CS_EV_MAX];
static uint64_t *counts = uncounted;

/* Whether standard error is the journal's stream, by its own word: device and inode. Asked once, at
 * the first start: a sandbox does not permit it later. */
static bool is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    char here[48];
    struct stat st;
    if (stream == NULL || fstat(STDERR_FILENO, &st) != 0) {
        return false;
    }
    (void)snprintf(here, sizeof here, "%llu:%llu", (unsigned long long)st.st_dev,
                   (unsigned long long)st.st_ino);
    return strcmp(here, stream) == 0;
}

void cs_log_init(const char *role, enum cs_level least)
{
    if (journal == JOURNAL_UNKNOWN) {
        journal = is_journal() ? JOURNAL_YES : JOURNAL_NO;
    }
    (void)snprintf(role_name, sizeof role_name, "%s", role);
    least_level = least;
    const char *env = getenv("COUNTERSIGN_LOG");
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (unsigned i = 0; env != NULL && i < CS_ARRAY_LEN(names); i++) {
        if (strcmp(env, names[i]) == 0) {
            least_level = (enum cs_level)i;
        }
    }
}

bool cs_log_on(enum cs_event_id ev)
{
    return rows[ev].level >= least_level;
}

void cs_log_count(uint64_t *into)
{
    counts = into;
}

const char *cs_event_name(enum cs_event_id ev)
{
    return (unsigned)ev < CS_EV_MAX ? rows[ev].name : "unknown";
}

void cs_log(enum cs_event_id ev, const struct cs_id *session, const char *fmt, ...)
{
    char line[1024];
    char when[CS_TIME_TEXT];
    char id[CS_ID_TEXT] = "";
    (void)__atomic_fetch_add(&counts[ev], 1, __ATOMIC_RELAXED); /* some roles have threads */
    if (!cs_log_on(ev)) {
        return;
    }
    if (session != NULL) {
        (void)cs_id_text(session, id);
    }
    int n = snprintf(line, sizeof line, "%s%s %s %s %s%s%s ",
                     journal == JOURNAL_YES ? journal_levels[rows[ev].level] : "",
                     cs_time_text(cs_wall_ms(), when), level_names[rows[ev].level], role_name,
                     rows[ev].name, session != NULL ? " session=" : "", id);
    size_t at = n > 0 ? CS_MIN((size_t)n, sizeof line - 1) : 0;
    va_list ap;
    va_start(ap, fmt);
    n = vsnprintf(line + at, sizeof line - at, fmt, ap);
    va_end(ap);
    at = n > 0 ? CS_MIN(at + (size_t)n, sizeof line - 2) : at;
    line[at++] = '\n';
    if (write(STDERR_FILENO, line, at) < 0) {
        return; /* nowhere to say so */
    }
}

struct cs_log_quoted cs_log_quote(struct cs_slice s)
{
    struct cs_log_quoted q;
    size_t at = 0;
    q.text[at++] = '"';
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (at > sizeof q.text - 12) {
            at += (size_t)snprintf(q.text + at, 5, "…");
            break;
        }
        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\' || c >= 0x80) {
            at += (size_t)snprintf(q.text + at, 5, "\\x%02x", c);
        } else {
            q.text[at++] = (char)c;
        }
    }
    q.text[at++] = '"';
    q.text[at] = 0;
    return q;
}

_Noreturn void cs_assert_failed(const char *expr, const char *file, int line);
_Noreturn void cs_assert_failed(const char *expr, const char *file, int line)
{
    cs_log(CS_EV_INTERNAL, NULL, "assertion=\"%s\" at=%s:%d", expr, file, line);
    abort();
}
