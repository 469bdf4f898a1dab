/* Memory for secrets: never swapped out, in no core file, gone in a forked child, between two pages
 * that nobody can touch. Few and long-lived: each piece is a mapping of its own. */
#ifndef CS_VAULT_LOCKED_H
#define CS_VAULT_LOCKED_H

#include <stddef.h>

/* Zeroed; NULL when memory is out or may not be locked (RLIMIT_MEMLOCK). */
void *cs_locked_alloc(size_t n);
/* Wipes the n bytes it was made with. NULL is fine. */
void cs_locked_free(void *p, size_t n);

#endif
