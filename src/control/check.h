/* Checks of targets inside control. */
#ifndef CS_CONTROL_CHECK_H
#define CS_CONTROL_CHECK_H

#include "control/control.h"
#include "control/json.h"

/* Waits: has the target looked at, keeps a summary, and gives the whole of it as JSON (ret may be
 * NULL). `why` (NUL-terminated) says what went wrong. */
enum cs_err cs_ctl_check_run(struct cs_control *c, struct cs_slice name, struct cs_arena *a,
                             json_t **ret, char *why, size_t why_size) CS_MUST_CHECK;
/* Does not wait: the summary of the last look with its time ("at", and "old"), null when there was
 * none. A missing or old one starts another look. NULL: memory is out. */
json_t *cs_ctl_check_last(struct cs_control *c, struct cs_slice name);
void cs_ctl_check_free(struct cs_control *c);

#endif
