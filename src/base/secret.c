/* Secrets. */
#include "base/secret.h"

#include "base/alloc.h"

#include <string.h>

void cs_wipe(void *p, size_t n)
{
    explicit_bzero(p, n);
}

bool cs_secret_set(struct cs_secret *s, struct cs_slice bytes)
{
    if (bytes.n > CS_SECRET_MAX) {
        return false;
    }
    uint8_t *p = cs_alloc(bytes.n);
    if (p == NULL) {
        return false;
    }
    if (bytes.n > 0) {
        memcpy(p, bytes.p, bytes.n);
    }
    cs_secret_done(s);
    s->hidden = p;
    s->n = bytes.n;
    return true;
}

struct cs_slice cs_secret_reveal(const struct cs_secret *s)
{
    return cs_slice(s->hidden, s->n);
}

void cs_secret_done(struct cs_secret *s)
{
    if (s->hidden != NULL) {
        cs_wipe(s->hidden, s->n);
        cs_free(s->hidden);
    }
    *s = (struct cs_secret){NULL, 0};
}
