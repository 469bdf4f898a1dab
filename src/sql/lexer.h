/* The lexer in front of the grammar. It bounds the input and decides nothing else: the grammar's
 * own scanner is quadratic on some inputs, reads C strings and does not check UTF-8. */
#ifndef CS_SQL_LEXER_H
#define CS_SQL_LEXER_H

#include "base/slice.h"

/* NULL: the text may be handed to the grammar. Else a literal that says why not. Linear time. */
const char *cs_sql_lexer_refuses(struct cs_slice text);

#endif
