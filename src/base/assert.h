/* Assertions for our own bugs, never for input. They stay on in release builds: a failed one kills
 * one role process, which the supervisor restarts. */
#ifndef CS_BASE_ASSERT_H
#define CS_BASE_ASSERT_H

_Noreturn void cs_assert_failed(const char *expr, const char *file, int line);

#define cs_assert(e) ((e) ? (void)0 : cs_assert_failed(#e, __FILE__, __LINE__))

#endif
