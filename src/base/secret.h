/* A secret: bytes that no formatter accepts, wiped when done. There is deliberately no function
 * that gives it as text; cs_secret_reveal() is the one door, and can be searched for. */
#ifndef CS_BASE_SECRET_H
#define CS_BASE_SECRET_H

#include "base/slice.h"

enum { CS_SECRET_MAX = 4096 };

struct cs_secret {
    uint8_t *hidden; /* owned */
    size_t n;
};

/* Copies the bytes; false when there is no memory or they exceed CS_SECRET_MAX. */
bool cs_secret_set(struct cs_secret *s, struct cs_slice bytes);
/* The bytes, borrowed until cs_secret_done. */
struct cs_slice cs_secret_reveal(const struct cs_secret *s);
/* Wipes and frees; a zeroed secret is fine. */
void cs_secret_done(struct cs_secret *s);
/* Overwrites memory in a way that the compiler keeps. */
void cs_wipe(void *p, size_t n);

#endif
