/* The three outcomes for an action. Zero is DENY: a forgotten assignment refuses. */
#ifndef CS_ACTION_OUTCOME_H
#define CS_ACTION_OUTCOME_H

enum cs_outcome { CS_DENY, CS_HOLD, CS_ALLOW };

#endif
