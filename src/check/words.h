/* Names in texts. Private to check/. */
#ifndef CS_CHECK_WORDS_H
#define CS_CHECK_WORDS_H

#include "check/check.h"

enum { CS_CHECK_NAME_MAX = 63 };

struct cs_check_names {
    struct cs_slice everyday, elevated, probe, database, schema, target;
};

/* 1 to 63 bytes of UTF-8 without control characters: fits a statement, a comment and a prompt. */
bool cs_check_name_writable(struct cs_slice s);
/* The text with {everyday}, {elevated}, {probe}, {database}, {schema} as identifiers, {'everyday}
 * and so on as strings, {target} as it is. */
void cs_check_fill(struct cs_buf *out, const char *text, const struct cs_check_names *names);

#endif
