/* Logging in at a target, for whoever has a connection to it and somebody who proves its
 * credential: the gate's sessions (upstream.c) and the probe role. */
#ifndef CS_PROTO_POSTGRES_LOGIN_H
#define CS_PROTO_POSTGRES_LOGIN_H

#include "base/buf.h"
#include "base/err.h"
#include "base/id.h"
#include "crypto/crypto.h"
#include "runtime/stream.h"
#include "wire/credentials.h"

struct cs_tls_ctx;

enum { PG_LOGIN_SETTINGS = 18 };

struct pg_setting {
    const char *name, *value; /* value "": left out */
};

/* All borrowed until pg_login_run returns. */
struct pg_login_with {
    uint64_t deadline;       /* monotonic ns */
    const struct cs_id *who; /* the session or task, for the log */
    struct cs_slice target;  /* its name, for sentences */
    bool plain;              /* the configuration says tls: off; false needs `tls` */
    struct cs_tls_ctx *tls;
    struct cs_slice host; /* for TLS to verify */
    enum cs_channel_binding binding;
    enum cs_way way; /* the weakest that a server may ask for */
    bool elevated;   /* … and none but SCRAM, whatever the configuration says: for sentences */
    const char *user;
    struct cs_slice database;
    /* Besides client_encoding and standard_conforming_strings, which are always pinned. */
    struct pg_setting settings[PG_LOGIN_SETTINGS];
    size_t n_settings;
    /* The SCRAM proof of this connection's credential; `why` (NUL-terminated) when there is none.
     */
    enum cs_err (*prove)(void *arg, const char *mechanism, struct cs_slice client_first_bare,
                         struct cs_slice server_first, struct cs_slice client_final_bare,
                         uint8_t ret_proof[static CS_SHA256],
                         uint8_t ret_signature[static CS_SHA256], char *why, size_t why_size);
    /* The answer to a server that asks by a weaker way, sealed to `reader` (CS_LOGIN_ANSWER);
     * called only where `way` permits it. `salt`: of md5. */
    enum cs_err (*answer)(void *arg, enum cs_way way, struct cs_slice reader, struct cs_slice salt,
                          struct cs_buf *ret, char *why, size_t why_size);
    /* A setting that the target reports; false: a pin did not take, the login fails. */
    bool (*parameter)(void *arg, struct cs_slice name, struct cs_slice value);
    void *arg;
};

struct pg_login_key { /* the target's own cancel key: never shown to a client */
    uint32_t pid, secret;
};

/* In a coroutine, on an open stream, which stays the caller's. ParameterStatus messages are added
 * to `greeting` unless NULL. On failure `why` says it in a sentence for people. */
enum cs_err pg_login_run(const struct pg_login_with *with, struct cs_stream *stream,
                         struct pg_login_key *ret_key, struct cs_buf *greeting, char *why,
                         size_t why_size) CS_MUST_CHECK;

#endif
