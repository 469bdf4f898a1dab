/* When a role's hostile twin attacks. Before main, still outside the sandbox, it looks for files in
 * the folder that it was started from:
 *
 *   NAME.calls      try every forbidden system call, each in a child that goes through the role's
 *                   own start and sandbox first; say how each ended; be an honest role afterwards
 *   NAME.messages   "K STRIDE": make the Kth message attempt once the role is in its sandbox, and
 *                   end; the next life makes attempt K + STRIDE, until there is none left
 *   go              waited for before the first of either
 *   session         the id of somebody else's session
 * NAME is the role's with "-" for "/". Without a plan the program is the role, unchanged. */
#include "attack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct attack_plan attack_plan = {.call = -1, .message = -1};
static char folder[400];

static FILE *open_beside(const char *suffix, const char *mode)
{
    char path[512], name[32];
    (void)snprintf(name, sizeof name, "%s", attack_plan.name);
    char *slash = strchr(name, '/');
    if (slash != NULL) {
        *slash = '-';
    }
    if (suffix[0] == '.') {
        (void)snprintf(path, sizeof path, "%.380s/%s%s", folder, name, suffix);
    } else {
        (void)snprintf(path, sizeof path, "%.380s/%s", folder, suffix);
    }
    return fopen(path, mode);
}

static bool there_is(const char *suffix)
{
    FILE *f = open_beside(suffix, "r");
    if (f != NULL) {
        (void)fclose(f);
    }
    return f != NULL;
}

static void wait_for_go(void)
{
    while (!there_is("go")) {
        (void)usleep(5000);
    }
    FILE *f = open_beside("session", "r");
    char text[64] = "";
    if (f != NULL) {
        size_t n = fread(text, 1, sizeof text - 1, f);
        (void)fclose(f);
        while (n > 0 && text[n - 1] == '\n') {
            n--;
        }
        if (!cs_id_parse(cs_slice(text, n), &attack_plan.session)) {
            (void)fprintf(stderr, "attack: %s: the session's id cannot be read\n",
                          attack_plan.name);
        }
    }
}

static void try_calls(void)
{
    for (size_t i = 0; i < attack_calls(); i++) {
        int status = 0;
        pid_t pid = fork();
        if (pid == 0) {
            attack_plan.call = (int)i;
            return; /* into main, through the role's start */
        }
        (void)waitpid(pid, &status, 0);
        (void)fprintf(stderr, "attack: %s call %s: %s %d\n", attack_plan.name, attack_call_name(i),
                      WIFSIGNALED(status) ? "signal" : "status",
                      WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    (void)fprintf(stderr, "attack: %s calls done\n", attack_plan.name);
    FILE *f = open_beside(".calls-done", "w");
    if (f != NULL) {
        (void)fclose(f);
    }
}

static void plan_message(void)
{
    int k = 0, stride = 1;
    FILE *f = open_beside(".messages", "r+");
    if (f == NULL) {
        return;
    }
    char line[64] = "", *end = line;
    if (fgets(line, sizeof line, f) != NULL) {
        k = (int)strtol(line, &end, 10);
        stride = (int)strtol(end, NULL, 10);
    }
    if (k < attack_messages(attack_plan.role)) {
        attack_plan.message = k;
        rewind(f);
        (void)fprintf(f, "%d %d\n", k + stride, stride);
    } else {
        (void)fprintf(stderr, "attack: %s messages done\n", attack_plan.name);
    }
    (void)fclose(f);
}

__attribute__((constructor)) static void before_main(int argc, char **argv)
{
    /* Not AT_EXECFN: the supervisor starts roles by descriptors. */
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    folder[n > 0 ? n : 0] = 0;
    char *slash = strrchr(folder, '/');
    if (slash == NULL || argc < 2) {
        return;
    }
    *slash = 0;
    (void)snprintf(attack_plan.name, sizeof attack_plan.name, "%s", argv[1]);
    attack_plan.role = strncmp(argv[1], "gate", 4) == 0 ? CS_ROLE_GATE
                       : strcmp(argv[1], "probe") == 0  ? CS_ROLE_PROBE
                                                        : CS_ROLE_FRONT;
    attack_plan.supervisor = getppid();
    bool calls = there_is(".calls") && !there_is(".calls-done");
    bool messages = there_is(".messages");
    if (calls || messages) {
        wait_for_go();
    }
    if (messages) {
        plan_message();
    }
    if (calls) {
        try_calls();
    }
}

/* The role has just entered its sandbox: from here on it is ours. */
void cs_sandbox_entered(enum cs_sandbox role)
{
    (void)role;
    if (attack_plan.call >= 0) {
        attack_call((size_t)attack_plan.call);
    }
    if (attack_plan.message >= 0) {
        attack_message(attack_plan.message);
    }
}
