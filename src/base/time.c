/* Clocks. */
#include "base/time.h"

#include <stdio.h>
#include <time.h>

enum { DAYS_TO_10000 = 2932897 }; /* from 1970 */

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
    uint64_t s = wall_ms / 1000, days = s / 86400;
    if (days >= DAYS_TO_10000) {
        out[0] = 0;
        return out;
    }
    /* By hand: libc's functions look into /etc/localtime at every call, even for UTC, and a
     * sandboxed role dies of that. Years begin in March here, so that a leap day is a year's last;
     * an era is the 400 years after which the calendar repeats itself. */
    uint64_t from = days + 719468, era = from / 146097, day = from % 146097;
    uint64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    uint64_t of_year = day - (365 * year + year / 4 - year / 100);
    uint64_t month = (5 * of_year + 2) / 153;
    unsigned date = (unsigned)(of_year - (153 * month + 2) / 5 + 1);
    year += era * 400 + (month >= 10);
    month = month >= 10 ? month - 9 : month + 3;
    (void)snprintf(out, CS_TIME_TEXT, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)year % 10000,
                   (unsigned)month % 100, date % 100, (unsigned)(s / 3600 % 24),
                   (unsigned)(s / 60 % 60), (unsigned)(s % 60), (unsigned)(wall_ms % 1000));
    return out;
}
