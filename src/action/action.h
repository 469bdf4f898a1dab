/* One thing asked: what a protocol folder hands to gate. And the canonical hashes over it.
 *
 * match  = SHA-256 over what makes two actions the same question: chain, target, database, upstream
 *          role, bytes, parameters. A repeat finds its request by it.
 * digest = SHA-256 over match, request id, nonce, policy version, transaction record and the
 *          requester's reason (which is shown, hence covered): what is signed, and what may be
 *          executed, once. A repeat may give another reason: the request keeps its own.
 *
 * Both are over deterministic CBOR (wire/cbor.h). The tag and a principal's kind ("person") are
 * text, everything else that is a string is a byte string, because nothing forces it to be UTF-8:
 *   match  = ["countersign/match/1", [[kind, id], …], target, database, role, settings, bytes,
 *             [[null?, format, type, bytes (empty if null)], …]]
 *   digest = ["countersign/digest/2", match, request id, nonce, policy version, tx, reason] */
#ifndef CS_ACTION_ACTION_H
#define CS_ACTION_ACTION_H

#include "action/chain.h"
#include "action/facts.h"
#include "base/arena.h"
#include "base/id.h"

enum { CS_DIGEST = 32, CS_NONCE = 16, CS_PARAMS_MAX = 1024 /* of what is held */ };

struct cs_param {
    bool null;
    uint16_t format; /* protocol's own: PostgreSQL 0 text, 1 binary */
    uint32_t type;   /* declared type, 0 = not declared */
    struct cs_slice bytes;
};

struct cs_action {
    struct cs_slice protocol; /* "postgres" */
    /* What will run: the SQL text's bytes. A password that was typed in it stands there as a keyed
     * hash of exactly its bytes (action/redact.h), here and in everything made from this. */
    struct cs_slice bytes;
    struct cs_slice text; /* that text itself, for who sends it: in no encoding */
    const struct cs_param *params;
    size_t n_params;
    struct cs_slice database; /* at the target */
    struct cs_slice role;     /* upstream role under which it would run */
    struct cs_slice
        settings;       /* session settings that are part of what is approved, "name=value\n"… */
    struct cs_slice tx; /* transaction record: empty outside; else what already ran in it */
    bool in_transaction;
    uint8_t effects;    /* by bits of its protocol's own, of who described it; in no form of it */
    bool changing;      /* has an effect beyond session and read */
    bool defining;      /* may change definitions: tables, functions, rights, settings */
    bool unsettling;    /* may change the settings under which a text is read */
    bool narrowed;      /* harmless only as long as the catalogue that says so is fresh */
    bool only_rollback; /* never denied or held */
    bool only_session;  /* needs no rule on an open session */
    bool redacted;      /* `bytes` is not the text: it had passwords in it */
    bool unkeyed;       /* … and there was no key to replace them with: it must not run */
    struct cs_facts facts;
};

/* ---- one binary form, for messages, recordings and the store; strict: limits are checked, and
 * each action has exactly one encoding. The fact sql.text is the action's bytes and not in it a
 * second time; another text there is not written. The caller asks cs_reader_done(). ----
 */
void cs_action_encode(struct cs_writer *w, const struct cs_action *a);
size_t cs_action_encoded_size(const struct cs_action *a); /* an upper bound */
/* May it be held: bytes and parameters within HELD_BYTES, not more of them than CS_PARAMS_MAX, its
 * whole form within HELD_FORM_BYTES? */
bool cs_action_fits(const struct cs_action *a);
/* Slices borrow from the reader's bytes, arrays come from the arena. */
bool cs_action_decode(struct cs_reader *r, struct cs_arena *arena, struct cs_action *ret);

/* The fact sql.params of these parameters; `mem` has what had to be put into words, the rest
 * borrows. False: unknown, because one has no certain text. (params.c) */
bool cs_params_fact(const struct cs_param *params, size_t n, struct cs_arena *mem,
                    struct cs_fact *ret);

void cs_action_match(const struct cs_action *a, const struct cs_chain *chain,
                     struct cs_slice target, uint8_t ret[static CS_DIGEST]);
void cs_action_digest(const uint8_t match[static CS_DIGEST], struct cs_slice request_id,
                      const uint8_t nonce[static CS_NONCE], uint64_t policy_version,
                      struct cs_slice tx, struct cs_slice claimed, uint8_t ret[static CS_DIGEST]);
/* The first line of `settings`: "target=ADDRESS tls=MODE". Gate writes it, control compares it. */
struct cs_slice cs_action_server(struct cs_slice address, struct cs_slice tls, struct cs_arena *a);
/* First 40 bits in Crockford's base 32, for people to compare: 8 characters and a NUL. */
void cs_digest_short(const uint8_t digest[static CS_DIGEST], char ret[static 9]);

/* Text made safe to show: control, bidirectional, zero-width, blank-looking, private and other
 * characters that change what the eye sees, and bytes that are no UTF-8, become visible escapes
 * (\x0a for a byte, \u{202e} for a code point); ordinary printable characters stay; newline and tab
 * stay when `multiline`. A backslash is doubled only where the next shown character is a backslash,
 * 'x' or 'u', so that two different texts are never shown alike. The result is valid UTF-8; .p is
 * NULL when memory is out. Look-alike letters (Cyrillic "а" in a Latin word) and stacked combining
 * marks are not marked by this version. */
struct cs_slice cs_sanitise(struct cs_slice text, bool multiline, struct cs_arena *a);

#endif
