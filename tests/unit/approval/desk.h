/* A small office for approval's tests: people, sessions, rules, and a note of every change.
 *   alice   person, engineers; owner of bot     bot   agent of alice
 *   dba1, dba2  persons, dba                    dbot  agent of dba1, in dba
 *   sec     person, security                    both  person, dba and security
 *   eve     person, in no group */
#ifndef CS_TEST_DESK_H
#define CS_TEST_DESK_H

#include "approval/approval.h"
#include "store/world.h"

enum { DESK_CHANGES = 4096 };

struct desk_change { /* the plain part of a change */
    uint64_t seq;
    char request[CS_REQUEST_ID_TEXT];
    enum cs_request_state state;
    struct cs_id grant, grant_session;
    struct cs_id sessions[8];
    size_t n_sessions;
    char words[80];
};
struct desk {
    struct world *w;
    struct cs_approval *a;
    struct cs_rule rule[3]; /* 0: dba 1 of · 1: security 1 of · 2: dba 2 of */
    const struct cs_rule *rules[3];
    size_t n_rules;
    bool in_transaction, async, elevated;
    uint64_t policy_version;
    const char *sql, *chain; /* "alice", "alice bot", "dba1" … */
    struct desk_change changes[DESK_CHANGES];
    size_t n_changes;
    bool log_away; /* the witness of votes says no */
    size_t n_said; /* to it */
    uint8_t said_digest[CS_DIGEST];
};
extern struct desk *desk;

void desk_open(struct world *w);
void desk_restart(void);
void desk_close(void);
enum cs_err desk_witness(const struct cs_approval_said *v, void *arg);
void desk_change(const struct cs_approval_change *c, void *arg);
/* A live session of the present chain. */
struct cs_id desk_session(void);
enum cs_err desk_try_hold(const struct cs_id *session, struct cs_approval_held *ret);
struct cs_approval_held desk_hold(const struct cs_id *session);
enum cs_err desk_vote(const struct cs_approval_held *h, const char *who, bool approve);
const char *desk_why(void); /* of the last vote */
enum cs_request_state desk_state(const struct cs_approval_held *h);
struct cs_card *desk_card(const struct cs_approval_held *h, const char *viewer);
enum cs_err desk_consume(const struct cs_approval_held *h, const struct cs_id *session);
/* The newest change of the request. */
const struct desk_change *desk_last(const struct cs_approval_held *h);
bool desk_told(const struct desk_change *c, const struct cs_id *session);

#endif
