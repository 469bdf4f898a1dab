/* As whom the processes run: the user that --user names, and with --role-users a user id of its own
 * for each role, from a range. Called by serve.c at the start and by whoever starts something. What
 * a role must have on disk belongs to its id alone, so that the kernel keeps files apart also where
 * it has no Landlock. Must never give two roles one id. */
#include "roles/supervisor.h"
#include "runtime/process.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PARSER_AT = 15, GATES_FROM = 16, IDS = GATES_FROM + CS_GATES_MAX };

uid_t cs_users_of(const struct cs_supervisor *sv, enum cs_role role, uint64_t index)
{
    if (role == CS_ROLE_JOB && sv->first_uid != 0) {
        return sv->first_uid + PARSER_AT; /* of the jobs, only this one has no file to read */
    }
    for (size_t i = 0; sv->first_uid != 0 && i < cs_role_row_count; i++) {
        const struct cs_role_row *row = &cs_role_rows[i];
        if (row->role == role) {
            bool many = (row->gets & CS_PER_GATE) != 0;
            return sv->first_uid + (uid_t)(many ? GATES_FROM + index : i);
        }
    }
    return 0;
}

static bool complain(const char *option, const char *value, const char *why)
{
    (void)fprintf(stderr, "countersign serve: %s %s: %s\n", option, value, why);
    return false;
}

/* SECURITY: what an account of the machine has, a role with its number would have. */
static bool range_is_free(const struct cs_supervisor *sv, uid_t user)
{
    char first[24], why[160];
    (void)snprintf(first, sizeof first, "%u", (unsigned)sv->first_uid);
    for (uid_t uid = sv->first_uid; uid < sv->first_uid + IDS; uid++) {
        const struct passwd *who = getpwuid(uid);
        if (who != NULL || uid == user) {
            (void)snprintf(why, sizeof why,
                           "%u to %u are needed, and %u is the user %.64s: name a free range",
                           (unsigned)sv->first_uid, (unsigned)(sv->first_uid + IDS - 1),
                           (unsigned)uid, who != NULL ? who->pw_name : sv->user);
            return complain("--role-users", first, why);
        }
    }
    return true;
}

bool cs_users_set(struct cs_supervisor *sv)
{
    const struct passwd *who = sv->user != NULL ? getpwnam(sv->user) : NULL;
    uid_t uid = who != NULL ? who->pw_uid : 0;
    gid_t gid = who != NULL ? who->pw_gid : 0;
    if (sv->user == NULL) {
        return sv->first_uid == 0 || complain("--role-users", "UID", "is for use with --user");
    }
    if (who == NULL || uid == 0) {
        return complain("--user", sv->user,
                        who == NULL ? "there is no such user" : "that is root: leave --user out");
    }
    if (geteuid() != 0) {
        char why[160];
        /* A trial runs as that user already, and starts nobody as somebody else. */
        if (uid == geteuid() && (sv->first_uid == 0 || sv->trial)) {
            return true;
        }
        (void)snprintf(why, sizeof why, "only root may start others as %.64s",
                       sv->first_uid == 0 ? sv->user : "different users");
        return complain("--user", sv->user, why);
    }
    if (sv->first_uid != 0 && !range_is_free(sv, uid)) {
        return false;
    }
    cs_process_run_as(uid, gid);
    if (!cs_process_shed()) {
        (void)fprintf(stderr, "countersign serve: capabilities that are not needed cannot be given "
                              "up; the container or service manager must permit that\n");
        return false;
    }
    return true;
}
