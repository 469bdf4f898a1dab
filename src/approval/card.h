/* The approval card as a struct: every field that docs/api.md's card lists; control turns it into
 * JSON. Everything in it comes from the store: what was stored is what is shown and what will run.
 * Nothing here is made safe to show except text_shown: control escapes the rest for its medium. */
#ifndef CS_APPROVAL_CARD_H
#define CS_APPROVAL_CARD_H

#include "action/action.h"
#include "action/chain.h"
#include "action/request.h"

struct cs_card_vote {
    struct cs_slice by; /* principal id */
    bool approve;
    struct cs_slice reason;
    uint64_t at_ms;
};
struct cs_card_rule {
    struct cs_slice name, title;
    struct cs_slice *groups; /* of approvers */
    size_t n_groups;
    uint64_t quorum;
};

struct cs_card {
    char id[CS_REQUEST_ID_TEXT];
    enum cs_request_state state;
    uint64_t seq;                     /* of its last change */
    const struct cs_card_rule *rules; /* at least one; "rule" and "title" are the first one's */
    size_t n_rules;
    struct cs_chain chain;
    struct cs_slice target;
    bool elevated;
    struct cs_action action; /* bytes = "text", params, database, role, settings, tx, facts */
    bool action_left_out;    /* a list only: too long; ask for the card itself */
    uint64_t action_bytes;   /* then: how long, with parameters and settings */
    struct cs_slice text_shown;
    bool in_transaction;
    struct cs_slice address;
    struct cs_slice claimed; /* the requester's reason, as claimed */
    uint8_t digest[CS_DIGEST];
    char digest_short[9];
    uint64_t created_ms, expires_ms;
    uint64_t decided_ms; /* 0 = not yet */
    uint64_t quorum;     /* the greatest of the rules */
    const struct cs_card_vote *votes;
    size_t n_votes;
    struct cs_slice by, words; /* who ended the wait, and what was said */
    bool may_vote;
    const char *may_not_vote_because; /* a sentence; NULL when may_vote or nobody asked */
    struct cs_id session;             /* that opened it */
    uint64_t attached;                /* live sessions that wait */
    uint64_t policy_version;
};

#endif
