/* Inside identity/. Included by this folder only. */
#ifndef CS_IDENTITY_IDENTITY_INTERNAL_H
#define CS_IDENTITY_IDENTITY_INTERNAL_H

#include "identity/identity.h"

enum { CS_ID_PREFIX = 6 /* "local:" */, CS_ARENA_SMALL = 64 * 1024 };

struct cs_attempt {
    uint64_t id; /* 0 = used */
    uint64_t owner;
    uint64_t deadline_ns;
    bool known; /* false: a mock; no proof fits */
    struct cs_scram_verifier verifier;
    size_t client_n, nonce_n;
    char nonce[CS_SCRAM_NONCE_MAX];
    size_t principal_n;
    char principal[CS_ID_PREFIX + CS_NAME_MAX];
};

struct cs_identity {
    struct cs_store *store; /* borrowed */
    uint8_t mock_secret[CS_SHA256];
    uint64_t next_slot;
    size_t open;
    struct cs_attempt *attempts[CS_ATTEMPTS_MAX]; /* owned */
};

#endif
