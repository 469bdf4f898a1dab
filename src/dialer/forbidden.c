/* Addresses that a name must never lead to. Pure; called by dialer.c for every resolved address. */
#include "dialer/dialer.h"

#include <netinet/in.h>
#include <string.h>

struct range {
    uint8_t start[16];
    unsigned bits;
};

/* IPv4 is looked at as ::ffff:a.b.c.d, so that there is one table. */
static const struct range ranges[] = {
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 169, 254}, 112},       /* 169.254.0.0/16 */
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 169, 254}, 112},             /* the old ::a.b.c.d */
    {{0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 169, 254}, 112}, /* through NAT64 */
    {{0xfe, 0x80}, 10},
    {{0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54}, 128},
};

static bool within(const uint8_t a[static 16], const struct range *r)
{
    size_t whole = r->bits / 8;
    unsigned rest = r->bits % 8;
    unsigned mask = rest > 0 ? 0xffU << (8 - rest) & 0xffU : 0;
    return memcmp(a, r->start, whole) == 0 &&
           (rest == 0 || (a[whole] & mask) == (r->start[whole] & mask));
}

bool cs_dial_forbidden(const struct sockaddr *sa)
{
    uint8_t a[16] = {0};
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, sa, sizeof v4);
        a[10] = a[11] = 0xff;
        memcpy(a + 12, &v4.sin_addr, 4);
    } else if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, sa, sizeof v6);
        memcpy(a, &v6.sin6_addr, sizeof a);
    } else {
        return true; /* neither: nothing that a target has */
    }
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (within(a, &ranges[i])) {
            return true;
        }
    }
    return false;
}
