/* job-verify check PATH [--key KEY] [--since FILE] [--session ID] [--json]: what evidence proves
 * (verify/verify.h), to standard output; ends with 0 intact, 1 tampered, 2 unfinished, 3 missing,
 * 64 usage. PATH: a recordings directory, or an installation's; a log; a recording; a bundle.
 *
 * job-verify export DIRECTORY SESSION [--key KEY] [--since FILE]: a bundle to standard output, what
 * stands in its way to standard error.
 *
 * Behind `countersign verify` and `countersign export`: a process of its own, in a job's sandbox,
 * because every byte that it reads may have been made to take it over. It must never write to what
 * it checks. */
#include "base/log.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"
#include "verify/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { USAGE = 64, MISSING = 3, PATH_BYTES = 4096, KEY_MAX = 512 };
static const size_t report_max = (size_t)64 << 20;

struct arguments {
    bool export, json;
    const char *path;
    struct cs_id session;
    bool has_session, has_key;
    struct cs_audit_key key;
    struct cs_buf since; /* owned */
};

static bool complain(const char *fmt, ...) CS_PRINTF(1, 2);
static bool complain(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)fputs("countersign: ", stderr);
    (void)vfprintf(stderr, fmt, ap);
    (void)fputc('\n', stderr);
    va_end(ap);
    return false;
}

/* ---- arguments; read before the sandbox is entered ---- */

static bool read_file(const char *path, struct cs_buf *out)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    uint8_t *p = cs_buf_room(out, out->max);
    ssize_t n = fd >= 0 && p != NULL ? read(fd, p, out->max) : -1;
    out->len = n > 0 ? (size_t)n : 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return n > 0;
}

/* The key itself, or a file that holds it. */
static bool take_key(struct arguments *a, const char *text)
{
    struct cs_buf file = cs_buf(KEY_MAX);
    a->has_key = cs_audit_key_read(cs_slice_str(text), &a->key) == CS_OK;
    if (!a->has_key && read_file(text, &file)) {
        a->has_key = cs_audit_key_read(cs_slice_trim(cs_buf_slice(&file)), &a->key) == CS_OK;
    }
    cs_buf_done(&file);
    return a->has_key ||
           complain("--key: neither a log's public key (NAME+ID+KEY) nor a file with one");
}

static bool take_option(struct arguments *a, const char *name, const char *value)
{
    if (strcmp(name, "--key") == 0) {
        return take_key(a, value);
    }
    if (strcmp(name, "--since") == 0) {
        return read_file(value, &a->since) || complain("--since: the file cannot be read");
    }
    if (strcmp(name, "--session") == 0) {
        a->has_session = cs_id_parse(cs_slice_str(value), &a->session);
        return a->has_session || complain("a session's id is 32 hexadecimal digits");
    }
    return complain("there is no option %s", name);
}

static bool take_arguments(struct arguments *a, int argc, char **argv)
{
    if (argc < 3) {
        return complain("job-verify check PATH …, job-verify export DIRECTORY SESSION …");
    }
    int at = 3;
    a->export = strcmp(argv[1], "export") == 0;
    a->path = argv[2];
    if (a->export && (argc < 4 || !take_option(a, "--session", argv[at++]))) {
        return false;
    }
    while (at < argc) {
        if (strcmp(argv[at], "--json") == 0) {
            a->json = true;
            at++;
        } else if (at + 1 == argc) {
            return complain("%s needs a value", argv[at]);
        } else if (!take_option(a, argv[at], argv[at + 1])) {
            return false;
        } else {
            at += 2;
        }
    }
    return true;
}

/* ---- what is to be checked ---- */

static int usage(const char *why)
{
    (void)complain("%s", why);
    return USAGE;
}

static int check_directory(const struct arguments *a, int dir, struct cs_report *report)
{
    const struct cs_verify v = {.dir = dir,
                                .key = a->has_key ? &a->key : NULL,
                                .since = cs_buf_slice(&a->since),
                                .session = a->has_session ? &a->session : NULL};
    cs_verify_directory(&v, report);
    return 0;
}

static int check_file(struct arguments *a, int dir, const char *name, struct cs_report *report)
{
    struct cs_verify_recording x = {.file = name};
    int fd = -1, log = -1, status = 0;
    uint64_t size = 0;
    if (cs_verify_open(dir, name, &fd, &size) != CS_OK) {
        (void)complain("%s cannot be opened, or is no plain file", a->path);
        return MISSING;
    }
    x.in = cs_csr_descriptor(&fd, size);
    bool is_name = cs_csr_name_parse(name, &x.session, &x.foreign, &x.epoch);
    if (!is_name && cs_verify_is_bundle(x.in)) {
        if (a->since.len > 0 || a->has_session) {
            status = usage("a bundle has one session and one checkpoint: --since and --session "
                           "are for the whole log");
        } else {
            cs_verify_bundle(x.in, a->has_key ? &a->key : NULL, report);
        }
    } else if (!is_name) {
        (void)cs_report_add(report, CS_VERDICT_TAMPERED, NULL,
                            "this is neither a bundle nor a recording under its own name");
    } else if (!x.foreign && cs_verify_log_open(dir, &log) == CS_OK) {
        (void)close(log);
        a->session = x.session;
        a->has_session = true;
        status = check_directory(a, dir, report);
    } else {
        (void)cs_report_add(report, CS_VERDICT_MISSING, &x.session,
                            "there is no log beside it: the recording was checked in itself only, "
                            "and whoever can change a file can make it fit itself again");
        cs_verify_recording(&x, report);
    }
    (void)close(fd);
    return status;
}

/* The directory of PATH, and PATH's name in it: "." for a directory. An installation's directory
 * stands for the recordings in it. */
static int open_path(const char *path, char dir[static PATH_BYTES], const char **ret_name)
{
    struct stat st, below;
    static char recordings[PATH_BYTES];
    if (strlen(path) >= PATH_BYTES - 16 || stat(path, &st) != 0) {
        return -1;
    }
    (void)snprintf(dir, PATH_BYTES, "%s", path);
    *ret_name = ".";
    if (S_ISDIR(st.st_mode)) {
        (void)snprintf(recordings, sizeof recordings, "%s/recordings", path);
        if (stat(recordings, &below) == 0 && S_ISDIR(below.st_mode)) {
            (void)snprintf(dir, PATH_BYTES, "%s", recordings);
        }
    } else {
        const char *slash = strrchr(path, '/');
        *ret_name = slash != NULL ? slash + 1 : path;
        if (slash == NULL) {
            (void)snprintf(dir, PATH_BYTES, ".");
        } else {
            dir[slash - path + 1] = '\0'; /* with the slash: "/" stays */
        }
    }
    return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void print(const struct cs_report *report, bool json, FILE *to)
{
    struct cs_buf text = cs_buf(report_max);
    (json ? cs_report_json : cs_report_text)(report, &text);
    (void)fwrite(text.p, 1, text.len, to);
    cs_buf_done(&text);
}

static bool to_output(void *ctx, struct cs_slice bytes)
{
    (void)ctx;
    while (bytes.n > 0) {
        ssize_t n = write(STDOUT_FILENO, bytes.p, bytes.n);
        if (n < 0 && errno != EINTR) {
            return complain("the bundle cannot be written: %s", strerror(errno));
        }
        bytes = cs_slice_from(bytes, n > 0 ? (size_t)n : 0);
    }
    return true;
}

static int work(struct arguments *a, int dir, const char *name)
{
    struct cs_report report;
    int status = 0;
    cs_report_init(&report, "");
    report.what = cs_report_safe(&report, cs_slice_str(a->path));
    if (a->export) {
        const struct cs_verify v = {.dir = dir,
                                    .key = a->has_key ? &a->key : NULL,
                                    .since = cs_buf_slice(&a->since),
                                    .session = &a->session};
        bool ok = cs_verify_export(&v, (struct cs_verify_sink){to_output, NULL}, &report);
        if (!ok || report.worst != CS_VERDICT_INTACT) {
            print(&report, a->json, stderr);
        }
    } else if (strcmp(name, ".") == 0) {
        status = check_directory(a, dir, &report);
    } else {
        status = check_file(a, dir, name, &report);
    }
    if (status == 0) {
        status = cs_verdict_exit(report.worst);
        if (!a->export) {
            print(&report, a->json, stdout);
        }
    }
    cs_report_done(&report);
    return fflush(stdout) == 0 ? status : MISSING;
}

int main(int argc, char **argv)
{
    struct arguments a = {.since = cs_buf(CS_AUDIT_NOTE_MAX)};
    static char path[PATH_BYTES];
    const char *name = ".";
    cs_log_init("job-verify", CS_LEVEL_INFO);
    if (!take_arguments(&a, argc, argv)) {
        return USAGE;
    }
    int dir = open_path(a.path, path, &name);
    if (dir < 0) {
        (void)complain("%s cannot be opened: %s", a.path, strerror(errno));
        return MISSING;
    }
    cs_process_harden();
    const struct cs_sandbox_path paths[] = {{path, CS_SANDBOX_READ}};
    if (cs_sandbox_enter(CS_SANDBOX_JOB, paths, CS_ARRAY_LEN(paths)) != CS_OK) {
        (void)complain("the sandbox cannot be entered");
        return MISSING;
    }
    int status = work(&a, dir, name);
    (void)close(dir);
    cs_buf_done(&a.since);
    return status;
}
