/* What keeper must know of the configuration: which secret is which target's, and by what that
 * target's server is known. A part of the snapshot, made by the compile job, handed to keeper alone
 * by the supervisor; so keeper need not take control's word for it. */
#ifndef CS_WIRE_CREDENTIALS_H
#define CS_WIRE_CREDENTIALS_H

#include "base/buf.h"
#include "base/slice.h"

/* Whether a SCRAM proof is bound to the TLS connection that it is for. */
enum cs_channel_binding {
    CS_BINDING_NONE, /* unknown: refused */
    CS_BINDING_DISABLE,
    CS_BINDING_PREFER, /* when the server offers it */
    CS_BINDING_REQUIRE,
    CS_BINDING_MAX
};
/* How a credential may be proved: SCRAM always, what is weaker only where the configuration says so
 * for this credential. Zero is the strictest. */
enum cs_way {
    CS_WAY_SCRAM,
    CS_WAY_MD5,       /* also by an MD5 hash, which keeper computes */
    CS_WAY_CLEARTEXT, /* also by the password itself: who speaks with the server sees it */
    CS_WAY_MAX
};
/* A pin is a certificate's hash as tls-server-end-point has it (RFC 5929). */
enum { CS_PINS_MAX = 4, CS_PIN_MIN = 32, CS_PIN_MAX = 64, CS_CREDENTIALS_MAX = 8 * 1024 * 1024 };

struct cs_credential_row {
    struct cs_slice target;
    struct cs_slice secret;   /* name of its everyday credential's secret */
    struct cs_slice elevated; /* of the elevated one's; empty: it has none */
    uint64_t binding;         /* enum cs_channel_binding */
    struct cs_slice pins;     /* up to CS_PINS_MAX of: a byte with the length, the hash */
    struct cs_slice probe;    /* of the one for looking; empty: that is the everyday one */
    uint64_t way, probe_way;  /* enum cs_way: of the everyday credential, of the one for looking */
    struct cs_slice user, probe_user; /* their roles, where a way is weaker than SCRAM */
};

/* CS_BINDING_NONE for a word that is none. */
enum cs_channel_binding cs_channel_binding_of(struct cs_slice word);

/* What an answer by a weaker way is sealed with, to a key of the log-in (crypto/crypto.h). */
#define CS_LOGIN_ANSWER "countersign/login-answer/1"
/* CS_WAY_SCRAM for a word that is none. */
enum cs_way cs_way_of(struct cs_slice word);
/* "md5", "cleartext": the mechanism that such an answer is asked for by. */
const char *cs_way_name(enum cs_way way);

/* Adds one row; rows come in rising order of their targets' names. */
void cs_credentials_write(struct cs_buf *out, const struct cs_credential_row *row);
/* The whole table, strictly: rows in rising order and so each target once, no impossible value. */
bool cs_credentials_valid(struct cs_slice table);
/* In a table that is valid. False: there is no such target. */
bool cs_credentials_find(struct cs_slice table, struct cs_slice target,
                         struct cs_credential_row *ret);
/* Adds a pin to `pins`, which has room for CS_PINS_MAX. */
bool cs_credential_pin_add(struct cs_buf *pins, struct cs_slice hash);
bool cs_credential_pinned(const struct cs_credential_row *row, struct cs_slice hash);

#endif
