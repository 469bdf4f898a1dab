/* The hostile twin of a role that is started alone (tests/fault/test_taken_over.py): the role's own
 * program, which makes one call as soon as it has entered its sandbox, and ends.
 *
 *   COUNTERSIGN_ATTACK=N        call N of calls.c
 *   COUNTERSIGN_ATTACK=r:PATH   opens a file for reading; w: for writing, c: makes it */
#include "attack.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct attack_plan attack_plan = {.call = -1, .message = -1};
static char what[512];

__attribute__((constructor)) static void before_main(void)
{
    const char *given = getenv("COUNTERSIGN_ATTACK");
    (void)snprintf(what, sizeof what, "%s", given != NULL ? given : "");
    attack_plan.supervisor = getppid();
    if (strcmp(what, "list") == 0) {
        for (size_t i = 0; i < attack_calls(); i++) {
            (void)printf("%s\n", attack_call_name(i));
        }
        exit(0);
    }
}

void cs_sandbox_entered(enum cs_sandbox role)
{
    (void)role;
    if (what[0] == 0) {
        return;
    }
    if (what[1] == ':') {
        int flags = what[0] == 'r' ? O_RDONLY : what[0] == 'w' ? O_RDWR : O_RDWR | O_CREAT | O_EXCL;
        _exit(openat(AT_FDCWD, what + 2, flags, 0600) < 0 ? 78 : 77);
    }
    attack_call((size_t)strtoul(what, NULL, 10));
}
