/* Identifiers. Sessions and grants: 128 random bits. Requests: 40 random bits in Crockford's base
 * 32
 * ("7Q2KD4M9"), short enough to read over a telephone; they name, they never authorise. */
#ifndef CS_BASE_ID_H
#define CS_BASE_ID_H

#include "base/slice.h"

enum { CS_ID_BYTES = 16, CS_ID_TEXT = 33, CS_REQUEST_ID_CHARS = 8, CS_REQUEST_ID_TEXT = 9 };

struct cs_id {
    uint8_t b[CS_ID_BYTES];
};

/* Bytes from the kernel's generator; does not fail (aborts if the kernel does). */
void cs_random(void *p, size_t n);
struct cs_id cs_id_new(void);
bool cs_id_is_zero(const struct cs_id *id);
bool cs_id_eq(const struct cs_id *a, const struct cs_id *b);
/* Lower-case hex with a NUL; returns out. */
char *cs_id_text(const struct cs_id *id, char out[static CS_ID_TEXT]);
bool cs_id_parse(struct cs_slice hex, struct cs_id *ret);
/* A fresh request id with a NUL. */
void cs_request_id_new(char out[static CS_REQUEST_ID_TEXT]);
/* Eight characters of the alphabet; accepts lower case and Crockford's look-alikes (O, I, L) and
 * writes the canonical form. */
bool cs_request_id_parse(struct cs_slice s, char ret[static CS_REQUEST_ID_TEXT]);
/* n bytes as 2n hex digits and a NUL. */
void cs_hex(struct cs_slice bytes, char *out);
/* 2n hex digits into n bytes; false on any other character or length. */
bool cs_unhex(struct cs_slice hex, uint8_t *ret, size_t n);

#endif
