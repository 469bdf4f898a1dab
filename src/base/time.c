/* Clocks. */
#include "base/time.h"

#include <stdio.h>
#include <time.h>

uint64_t cs_mono_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * CS_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t cs_wall_ms(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / CS_NS_PER_MS;
}

char *cs_time_text(uint64_t wall_ms, char out[static CS_TIME_TEXT])
{
    time_t t = (time_t)(wall_ms / 1000);
    struct tm tm;
    size_t n = 0;
    if (gmtime_r(&t, &tm) != NULL) {
        n = strftime(out, CS_TIME_TEXT, "%Y-%m-%dT%H:%M:%S", &tm);
    }
    if (n == 0 || n > CS_TIME_TEXT - 6) {
        out[0] = 0;
        return out;
    }
    (void)snprintf(out + n, CS_TIME_TEXT - n, ".%03uZ", (unsigned)(wall_ms % 1000));
    return out;
}
