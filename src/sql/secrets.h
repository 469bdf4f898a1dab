/* Where in a text a password was typed: in the statements of the grammar that have one, and, in a
 * text that nobody can parse, wherever one may be. Found by tokens, with the parse tree as a check
 * that none was missed.
 *
 * Values of columns whose name sounds secret and arguments of functions that take a secret are
 * found by their place in the tree (places.h), constants and parameters. What it does not know as a
 * password: a value in a column of another name or in an INSERT without a list of columns, a row of
 * COPY, an argument of EXECUTE (the protocol hides those where it knows the statement), a word that
 * is misspelt (but "password=…" and URIs with one inside a constant are found anywhere). */
#ifndef CS_SQL_SECRETS_H
#define CS_SQL_SECRETS_H

#include "sql/record.h"
#include "sql/tree.h"

/* `parsed` false: the grammar, or the lexer before it, refused the text. Linear time. */
void cs_sql_secrets_find(struct cs_slice text, const List *tree, bool parsed,
                         struct cs_sql_secrets *ret);

#endif
