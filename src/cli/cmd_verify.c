/* verify and export: work on files, through job-verify, which reads them in a sandbox of its own.
 * Must never leave a bundle behind that was not written to its end, nor write over a file. */
#include "cli/cli.h"
#include "cli/out.h"
#include "runtime/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS = 16, VERDICT_UNFINISHED = 2 };

/* As `countersign init` and the packages lay it out: the recordings are below. */
static const char *installation(void)
{
    const char *dir = getenv("COUNTERSIGN_DIR");
    return dir != NULL && dir[0] != 0 ? dir : "/var/lib/countersign";
}

struct job {
    const char *argv[ARGUMENTS];
    size_t n;
};

static void add(struct job *j, const char *argument)
{
    if (j->n + 1 < ARGUMENTS) {
        j->argv[j->n++] = argument;
    }
}

static void add_option(struct cs_cli *c, struct job *j, const char *name, const char *argument)
{
    const char *value = cs_cli_option(c, name);
    if (value != NULL) {
        add(j, argument);
        add(j, value);
    }
}

/* Its exit status; MISSING when it could not be had: then nothing was proved. */
static int run(struct cs_cli *c, const struct job *j, int output)
{
    char dir[1024];
    pid_t pid = -1;
    int status = 0;
    (void)fflush(stdout);
    if (!cs_process_libexec("job-verify", dir, sizeof dir)) {
        (void)cs_cli_fail(c, "job-verify is not in %s; COUNTERSIGN_LIBEXEC can name its directory",
                          dir);
        return CS_CLI_VERIFY_MISSING;
    }
    struct cs_slice path = cs_arena_printf(&c->arena, "%s/job-verify", dir);
    enum cs_err err = path.p == NULL ? CS_ERR_NO_MEMORY
                      : output >= 0
                          ? cs_process_start_output((const char *)path.p, j->argv, output, &pid)
                          : cs_process_start((const char *)path.p, j->argv, NULL, 0, &pid);
    if (err != CS_OK) {
        (void)cs_cli_fail(c, "job-verify cannot be started: %s", cs_err_text(err));
        return CS_CLI_VERIFY_MISSING;
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return CS_CLI_VERIFY_MISSING;
        }
    }
    if (WIFSIGNALED(status)) {
        /* The sandbox kills what evidence makes do something strange. */
        (void)cs_cli_fail(c, "the check was killed by signal %d: do not trust this evidence",
                          WTERMSIG(status));
        return CS_CLI_FAILED;
    }
    return WEXITSTATUS(status);
}

int cs_cmd_verify(struct cs_cli *c)
{
    struct job j = {.n = 0};
    add(&j, "job-verify");
    add(&j, "check");
    add(&j, c->n_positions > 0 ? c->position[0] : installation());
    add_option(c, &j, "key", "--key");
    add_option(c, &j, "since", "--since");
    add_option(c, &j, "session", "--session");
    if (c->json) {
        add(&j, "--json");
    }
    return run(c, &j, -1);
}

static const char *recordings(struct cs_cli *c)
{
    const char *dir = cs_cli_option(c, "directory");
    if (dir == NULL) {
        dir = installation();
    }
    struct stat st;
    struct cs_slice below = cs_arena_printf(&c->arena, "%s/recordings", dir);
    return below.p != NULL && stat((const char *)below.p, &st) == 0 && S_ISDIR(st.st_mode)
               ? (const char *)below.p
               : dir;
}

int cs_cmd_export(struct cs_cli *c)
{
    const char *session = cs_cli_option(c, "bundle"), *output = cs_cli_option(c, "output");
    struct job j = {.n = 0};
    struct stat st;
    if (session == NULL) {
        return cs_cli_usage(c, "--bundle SESSION is missing");
    }
    if (strlen(session) != 32) {
        return cs_cli_usage(c, "--bundle %s: the id of a session has 32 hexadecimal digits",
                            session);
    }
    if (output == NULL) {
        struct cs_slice name = cs_arena_printf(&c->arena, "%s.bundle", session);
        output = name.p != NULL ? (const char *)name.p : session;
    }
    int fd = open(output, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return cs_cli_fail(c, "%s cannot be made: %s", output, strerror(errno));
    }
    add(&j, "job-verify");
    add(&j, "export");
    add(&j, recordings(c));
    add(&j, session);
    add_option(c, &j, "key", "--key");
    int status = run(c, &j, fd);
    bool written = (status == CS_CLI_OK || status == VERDICT_UNFINISHED) && fsync(fd) == 0 &&
                   fstat(fd, &st) == 0 && st.st_size > 0;
    if (close(fd) != 0 || !written) {
        (void)unlink(output);
        return cs_cli_fail(c, "no bundle was written: only evidence that verifies is exported");
    }
    if (c->json) {
        json_t *json = json_pack("{s:s%, s:I, s:b}", "bundle", output, strlen(output), "bytes",
                                 (json_int_t)st.st_size, "finished", status == CS_CLI_OK);
        (void)cs_cli_print_json(json);
        json_decref(json);
    } else {
        printf("Written: %s, %lld bytes. It verifies alone: countersign verify %s\n",
               cs_cli_safe(c, cs_slice_str(output)), (long long)st.st_size,
               cs_cli_safe(c, cs_slice_str(output)));
    }
    return CS_CLI_OK;
}
