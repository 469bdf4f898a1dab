/* Clocks. Durations and deadlines use the monotonic clock in nanoseconds; what is stored or shown
 * uses wall-clock milliseconds since 1970 UTC. */
#ifndef CS_BASE_TIME_H
#define CS_BASE_TIME_H

#include <stddef.h>
#include <stdint.h>

#define CS_NS_PER_US 1000ULL
#define CS_NS_PER_MS 1000000ULL
#define CS_NS_PER_S  1000000000ULL
#define CS_FOREVER   UINT64_MAX /* a deadline that never comes */

uint64_t cs_mono_ns(void);
uint64_t cs_wall_ms(void);
/* RFC 3339 in UTC with milliseconds; `out` needs CS_TIME_TEXT bytes. Returns out. */
enum { CS_TIME_TEXT = 25 };
char *cs_time_text(uint64_t wall_ms, char out[static CS_TIME_TEXT]);

#endif
