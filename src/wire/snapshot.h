/* The configuration snapshot: one blob made by the compile job, carried in sealed memory, read in
 * place by supervisor, gate, front and control. Everything that a sandboxed role would otherwise
 * need a file for (certificates, trust roots) is in it as bytes. */
#ifndef CS_WIRE_SNAPSHOT_H
#define CS_WIRE_SNAPSHOT_H

#include "base/buf.h"
#include "base/slice.h"

enum { CS_SNAPSHOT_LISTENERS = 8, CS_SNAPSHOT_MAX = 16 * 1024 * 1024, CS_SNAPSHOT_FORMS = 4 };

struct cs_snapshot_listener {
    struct cs_slice name;    /* "control", "local", "postgres" */
    struct cs_slice kind;    /* the same three; a protocol's name for a protocol's listener */
    struct cs_slice address; /* host:port, or a path for "local" */
    uint64_t tls;            /* 0 off, 1 on */
    struct cs_slice cert_pem, key_pem;
    struct cs_slice proxy_from; /* networks of load balancers (runtime/proxy.h); empty = none */
    uint64_t client_form;       /* enum cs_san_form: client certificates are asked for; 0 = not */
    struct cs_slice client_pattern, client_authorities; /* their names; PEM */
};

/* Where the key that seals secrets comes from. */
enum cs_key_source {
    CS_KEY_NONE,
    CS_KEY_FILE,       /* what: its path */
    CS_KEY_CREDENTIAL, /* what: its name in the service manager's directory */
    CS_KEY_COMMAND,    /* what: the program and its arguments, a NUL behind each */
    CS_KEY_SOURCE_MAX
};
struct cs_snapshot_key {
    uint64_t source; /* enum cs_key_source */
    struct cs_slice what;
    uint64_t timeout_s; /* of a command */
};

struct cs_snapshot {
    uint64_t version;           /* first 8 bytes of the SHA-256 of the configuration's meaning */
    struct cs_slice url;        /* of the control listener, for links */
    struct cs_slice store;      /* path of the SQLite file */
    struct cs_slice recordings; /* directory */
    struct cs_slice escrow;     /* hex; empty = nobody else opens recordings */
    struct cs_snapshot_key master_key, previous_master_key; /* the second: kind NONE if not given */
    struct cs_slice system_roots;                           /* PEM */
    struct cs_slice policy;                                 /* for policy/policy.h */
    struct cs_slice credentials;                            /* for wire/credentials.h */
    struct cs_snapshot_listener listeners[CS_SNAPSHOT_LISTENERS];
    uint64_t n_listeners;
    uint64_t drain_s;            /* how long sessions live on behind an upgrade */
    uint64_t busy_poll_us;       /* how long a gate looks before it sleeps; 0: not at all */
    struct cs_slice file_sha256; /* of the configuration file's bytes: what the audit log names */
};

void cs_snapshot_write(struct cs_buf *out, const struct cs_snapshot *s);
/* Strict; slices borrow from `in`. */
bool cs_snapshot_read(struct cs_slice in, struct cs_snapshot *ret);

#endif
