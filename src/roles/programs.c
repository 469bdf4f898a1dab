/* The programs of roles and jobs: where they are, and a descriptor of each from the start on. A
 * role that dies after the files were replaced, and roles of a program that an upgrade calls back,
 * are started from what belongs to this program, not from what lies at the path by then. Called by
 * whoever starts something. Must never open one a second time. */
#include "roles/supervisor.h"
#include "runtime/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const jobs[] = {"job-compile", "job-parser", "job-replayer"};

const char *cs_program_path(const struct cs_supervisor *sv, const char *program,
                            char out[static CS_PATH])
{
    (void)snprintf(out, CS_PATH, "%.400s/%.100s", sv->libexec, program);
    return out;
}

int cs_program_open(const struct cs_supervisor *sv, const char *program)
{
    for (size_t i = 0; i < sv->programs.n; i++) {
        if (strcmp(sv->programs.at[i].name, program) == 0) {
            return sv->programs.at[i].fd;
        }
    }
    return -1;
}

void cs_programs_close(struct cs_programs *p)
{
    for (size_t i = 0; i < p->n; i++) {
        (void)close(p->at[i].fd);
    }
    p->n = 0;
}

static void open_one(struct cs_supervisor *sv, const char *program)
{
    char path[CS_PATH];
    struct cs_programs *p = &sv->programs;
    if (p->n == CS_PROGRAMS) {
        return; /* then by its path */
    }
    int fd = open(cs_program_path(sv, program, path), O_PATH | O_CLOEXEC);
    if (fd >= 0) {
        (void)snprintf(p->at[p->n].name, sizeof p->at[p->n].name, "%s", program);
        p->at[p->n++].fd = fd;
    }
}

bool cs_programs_open(struct cs_supervisor *sv)
{
    bool found = cs_process_libexec("job-compile", sv->libexec, sizeof sv->libexec);
    if (sv->legacy.rollback && sv->legacy.programs.n > 0) {
        sv->programs = sv->legacy.programs; /* wherever they lay, and whatever lies there now */
        sv->legacy.programs.n = 0;
        return true;
    }
    if (!found && getenv("COUNTERSIGN_LIBEXEC") != NULL) {
        (void)fprintf(stderr, "countersign: no job-compile in %s (from COUNTERSIGN_LIBEXEC)\n",
                      sv->libexec);
    } else if (!found) {
        (void)fprintf(stderr,
                      "countersign: its other programs (gate, control, …) are not in %s nor in "
                      "../libexec/countersign; COUNTERSIGN_LIBEXEC can name their directory\n",
                      sv->libexec);
    }
    for (size_t i = 0; found && i < cs_role_row_count; i++) {
        open_one(sv, cs_role_rows[i].program);
    }
    for (size_t i = 0; found && i < CS_ARRAY_LEN(jobs); i++) {
        open_one(sv, jobs[i]);
    }
    return found;
}
