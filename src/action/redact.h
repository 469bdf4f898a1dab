/* Text without the passwords that were typed in it: which bytes are secret is said by the
 * protocol's own parser (sql/secrets.h), here they are replaced. What comes out is the text that
 * may leave the gate: it is hashed into match and digest, stored, shown, recorded. What goes to the
 * target is the text itself.
 *
 * Each secret becomes HMAC-SHA-256 over exactly its bytes under a key that only the gates of one
 * gateway have. So the digest still covers these bytes and no others, and whoever has the store,
 * the recordings or a card cannot try passwords on it. Two equal secrets look equal. */
#ifndef CS_ACTION_REDACT_H
#define CS_ACTION_REDACT_H

#include "base/buf.h"

enum cs_redact_how {
    CS_REDACT_WHOLE, /* nobody can say where in the text it is: all of it; zero, and the default */
    CS_REDACT_LITERAL, /* a constant of the language, its quotes included */
    CS_REDACT_PART,    /* inside one */
    CS_REDACT_COMMENT,
};

struct cs_redact_span {
    uint32_t at, n; /* clipped to the text */
    uint8_t how;    /* enum cs_redact_how */
};

enum { CS_REDACT_SPANS = 64, CS_REDACT_KEY = 32 };

/* `spans` ascend and do not overlap; where they do, or lie outside, the whole text is replaced. */
void cs_redact(struct cs_slice text, const struct cs_redact_span *spans, size_t n,
               const uint8_t key[static CS_REDACT_KEY], struct cs_buf *out);
/* The words of an error that may repeat a piece of such a text. */
extern const char cs_redact_withheld[];

#endif
