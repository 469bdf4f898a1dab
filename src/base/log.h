/* Structured logging to standard error, one line an event:
 *   2026-11-22T10:11:12.123Z WARN gate/0 auth-failed session=4f… user="x\x0ay" …
 * Values that came from outside are passed as slices through CS_LOG_Q and appear quoted with
 * control bytes escaped, so that nobody can forge a line. Secrets have a type that fits no format.
 */
#ifndef CS_BASE_LOG_H
#define CS_BASE_LOG_H

#include "base/attr.h"
#include "base/id.h"
#include "base/slice.h"

enum cs_level { CS_LEVEL_DEBUG, CS_LEVEL_INFO, CS_LEVEL_WARN, CS_LEVEL_ERROR };

enum cs_event_id {
#define CS_EV(id, name, level, text) CS_EV_##id,
#include "base/events.def"
#undef CS_EV
    CS_EV_MAX
};

/* Called once at start: the name that stands in each line, and the least level shown. The
 * environment variable COUNTERSIGN_LOG=debug|info|warn|error overrides the level. */
void cs_log_init(const char *role, enum cs_level least);
bool cs_log_on(enum cs_event_id ev);
/* `session` may be NULL. The format gives `key=value` pairs separated by blanks. */
void cs_log(enum cs_event_id ev, const struct cs_id *session, const char *fmt, ...) CS_PRINTF(3, 4);
/* From now on every event is counted in `into`, an array of CS_EV_MAX numbers, written or not. */
void cs_log_count(uint64_t *into);
const char *cs_event_name(enum cs_event_id ev);

/* A slice as a quoted, escaped string for one log call: cs_log(…, "user=%s", cs_log_quote(s).text).
 * Longer input is cut at the end with "…". */
struct cs_log_quoted {
    char text[200];
};
struct cs_log_quoted cs_log_quote(struct cs_slice s);

#endif
