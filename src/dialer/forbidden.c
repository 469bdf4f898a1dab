/* Addresses that a name must never lead to. Pure; called by dialer.c for every resolved address. */
#include "dialer/dialer.h"

#include <netinet/in.h>
#include <string.h>

struct range {
    uint8_t start[16];
    unsigned bits;
};

static const struct range ranges4[] = {
    {{0}, 8},                   /* "this machine": 0.0.0.0 connects to it */
    {{169, 254}, 16},           /* link-local, and most clouds' metadata */
    {{100, 100, 100, 200}, 32}, /* metadata elsewhere */
    {{168, 63, 129, 16}, 32},   /* and elsewhere */
    {{192, 0, 0, 192}, 32},     /* and elsewhere */
};
static const struct range ranges6[] = {
    {{0}, 128}, /* :: connects to this machine */
    {{0xfe, 0x80}, 10},
    {{0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54}, 128},
};
/* IPv6 addresses that end at an IPv4 address, and where that stands in them. */
static const struct {
    struct range range;
    uint8_t at[4];
} carriers[] = {
    {{{[10] = 0xff, [11] = 0xff}, 96}, {12, 13, 14, 15}},           /* ::ffff:a.b.c.d */
    {{{0}, 96}, {12, 13, 14, 15}},                                  /* the old ::a.b.c.d */
    {{{0x00, 0x64, 0xff, 0x9b}, 96}, {12, 13, 14, 15}},             /* NAT64 */
    {{{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48}, {6, 7, 9, 10}},    /* NAT64 of one's own: /48 */
    {{{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48}, {12, 13, 14, 15}}, /* the same: /96 */
    {{{0x20, 0x02}, 16}, {2, 3, 4, 5}},                             /* 6to4 */
};

static bool within(const uint8_t a[static 16], const struct range *r)
{
    size_t whole = r->bits / 8;
    unsigned rest = r->bits % 8;
    unsigned mask = rest > 0 ? 0xffU << (8 - rest) & 0xffU : 0;
    return memcmp(a, r->start, whole) == 0 &&
           (rest == 0 || (a[whole] & mask) == (r->start[whole] & mask));
}

static bool is_in(const uint8_t a[static 16], const struct range *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (within(a, &list[i])) {
            return true;
        }
    }
    return false;
}

static bool forbidden4(const uint8_t a[static 16])
{
    return is_in(a, ranges4, sizeof ranges4 / sizeof ranges4[0]);
}

static bool forbidden6(const uint8_t a[static 16])
{
    static const uint8_t loopback[16] = {[15] = 1};
    if (memcmp(a, loopback, sizeof loopback) == 0) {
        return false; /* as 127.0.0.1, and not the old form of 0.0.0.1 */
    }
    for (size_t i = 0; i < sizeof carriers / sizeof carriers[0]; i++) {
        uint8_t inner[16] = {0};
        for (size_t k = 0; k < 4; k++) {
            inner[k] = a[carriers[i].at[k]];
        }
        /* Behind a prefix of 48 bits nothing follows the address: those zeros are no 0.0.0.0. */
        bool none = carriers[i].range.bits == 48 && memcmp(inner, loopback, 4) == 0;
        if (!none && within(a, &carriers[i].range) && forbidden4(inner)) {
            return true;
        }
    }
    return is_in(a, ranges6, sizeof ranges6 / sizeof ranges6[0]);
}

bool cs_dial_forbidden(const struct sockaddr *sa)
{
    uint8_t a[16] = {0};
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, sa, sizeof v4);
        memcpy(a, &v4.sin_addr, 4);
        return forbidden4(a);
    }
    if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, sa, sizeof v6);
        memcpy(a, &v6.sin6_addr, sizeof a);
        return forbidden6(a);
    }
    return true; /* neither: nothing that a target has */
}
