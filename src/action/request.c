/* Names of request states and the one wait line. Called by gate, control and the commands. The line
 * is machine-readable: no value may ever start a second key or a second line in it. */
#include "action/request.h"

#include "base/attr.h"

static const struct {
    const char *name;
    bool final;
} states[] = {
#define CS_REQUEST(id, name, final, text) [CS_REQUEST_##id] = {name, final},
#include "action/request.def"
#undef CS_REQUEST
};

_Static_assert(CS_ARRAY_LEN(states) == CS_REQUEST_MAX, "one row per state");

const char *cs_request_state_name(enum cs_request_state s)
{
    return (size_t)s < CS_REQUEST_MAX ? states[s].name : "none";
}

bool cs_request_state_final(enum cs_request_state s)
{
    return (size_t)s < CS_REQUEST_MAX && states[s].final;
}

enum cs_request_state cs_request_state_parse(struct cs_slice name)
{
    for (unsigned i = 0; i < CS_REQUEST_MAX; i++) {
        if (cs_slice_eq_str(name, states[i].name)) {
            return (enum cs_request_state)i;
        }
    }
    return CS_REQUEST_NONE;
}

static bool plain(uint8_t c)
{
    return c > ' ' && c < 0x7f;
}

/* The value with everything but graphic ASCII as %XX: a blank would begin a forged key. */
static struct cs_slice value(struct cs_slice s, struct cs_arena *a)
{
    static const char digits[17] = "0123456789ABCDEF";
    size_t n = 0, at = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += plain(s.p[i]) ? 1 : 3;
    }
    if (n == s.n) {
        return s;
    }
    uint8_t *out = cs_arena_alloc(a, n);
    if (out == NULL) {
        return CS_SLICE_NULL;
    }
    for (size_t i = 0; i < s.n; i++) {
        if (plain(s.p[i])) {
            out[at++] = s.p[i];
        } else {
            out[at++] = '%';
            out[at++] = (uint8_t)digits[s.p[i] >> 4];
            out[at++] = (uint8_t)digits[s.p[i] & 15];
        }
    }
    return cs_slice(out, n);
}

struct cs_slice cs_wait_line(struct cs_arena *a, struct cs_slice id, enum cs_request_state state,
                             uint64_t wait_s, uint64_t expires_s, struct cs_slice url,
                             struct cs_slice rule)
{
    struct cs_slice *const given[] = {&id, &url, &rule};
    for (size_t i = 0; i < CS_ARRAY_LEN(given); i++) {
        size_t n = given[i]->n;
        *given[i] = value(*given[i], a);
        if (given[i]->n < n) {
            return CS_SLICE_NULL; /* no memory: no line, rather than one with a hole */
        }
    }
    return cs_arena_printf(a,
                           "COUNTERSIGN held id=%.*s state=%s wait=%llus expires=%llus "
                           "retry=same-request url=%.*s rule=%.*s",
                           CS_SLICE_FMT(id), cs_request_state_name(state),
                           (unsigned long long)wait_s, (unsigned long long)expires_s,
                           CS_SLICE_FMT(url), CS_SLICE_FMT(rule));
}
