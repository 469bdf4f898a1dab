/* The hostile main: what the files of this folder share. A role's own program is built with it; it
 * behaves like the role until a plan lies beside its executable, see plan.c. */
#ifndef CS_ATTACK_H
#define CS_ATTACK_H

#include "base/id.h"
#include "runtime/sandbox.h"

#include "ipc/ipc.h"
#include <stdbool.h>

#include <stddef.h>

struct attack_plan {
    char name[32]; /* "gate/1" */
    int call;      /* number of the system call to try, -1 = none */
    int message;   /* number of the message attempt, -1 = none */
    enum cs_role role;
    pid_t supervisor;
    struct cs_id session; /* of another gate */
};
extern struct attack_plan attack_plan;

/* ---- calls.c ---- */
size_t attack_calls(void);
const char *attack_call_name(size_t i);
/* Makes the call; ends the process with 77 when it came back, 78 when with an error. */
_Noreturn void attack_call(size_t i);

/* ---- messages.c ---- */
_Noreturn void attack_message(int k);
/* How many attempts there are for this role. */
int attack_messages(enum cs_role role);

#endif
