/* `init`: a new installation. Creates every file anew and never writes over one: a second run must
 * not replace the key that seals the secrets of the first. Must never print the key. */
#include "base/buf.h"
#include "base/id.h"
#include "base/secret.h"
#include "cli/cli.h"
#include "cli/out.h"
#include "crypto/crypto.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CERTIFICATE_DAYS = 825, NAMES_MAX = 16, MASTER_KEY_BYTES = 32 };

/* %s: the host in the url. Each "#" at a line's start that no blank follows is a mark to take away.
 */
static const char configuration[] =
    "# Countersign. Every key: docs/configuration.md. After a change: countersign reload\n"
    "# Relative paths start at this file's directory. Unknown keys are errors.\n"
    "version: 1\n"
    "\n"
    "# Where it listens. TLS is on unless `tls: off` is written at a listener.\n"
    "listeners:\n"
    "  control:  { address: \"0.0.0.0:7443\", url: \"https://%s:7443\" }   # API and pages for "
    "people\n"
    "  postgres: { address: \"0.0.0.0:7432\" }   # what PostgreSQL clients connect to\n"
    "  local:    { socket: run/countersign.sock }   # commands on this machine\n"
    "tls: { certificate: tls.crt, key: tls.key }\n"
    "\n"
    "# State, record, and the key that seals the secrets (keep a copy of it in a safe place).\n"
    "store:      { sqlite: state/state.db }\n"
    "recordings: { directory: recordings }\n"
    "master_key: master.key\n"
    "\n"
    "# Who knows the users: local ones, made with `countersign user add`.\n"
    "identity:\n"
    "  - name: local\n"
    "\n"
    "# What it guards. Passwords are stored with `countersign secret set NAME`, never written "
    "here.\n"
    "# Take the marks away down to the end, and put your own database in.\n"
    "#targets:\n"
    "#  - name: orders\n"
    "#    labels: { env: prod }\n"
    "#    postgres: { address: \"db.internal:5432\", database: orders, tls: verify-full }\n"
    "#    credential: { user: orders_ro, password: \"secret:orders-ro\" }\n"
    "#    elevated: { user: orders_owner, password: \"secret:orders-owner\" }\n"
    "\n"
    "# Who may do what. The strictest matching rule wins; what no rule names is denied.\n"
    "#rules:\n"
    "#  - name: read\n"
    "#    title: Reading is free\n"
    "#    who: { groups: [agents, engineers] }\n"
    "#    target: { kind: postgres }\n"
    "#    when: |\n"
    "#      sql.effects.all(e, e in [\"session\", \"read\"])\n"
    "#    then: allow\n"
    "#  - name: change\n"
    "#    title: Changing data needs a countersign\n"
    "#    who: { groups: [agents, engineers] }\n"
    "#    target: { kind: postgres }\n"
    "#    when: |\n"
    "#      sql.effects.exists(e, !(e in [\"session\", \"read\"]))\n"
    "#    then: hold\n"
    "#    run_as: elevated\n"
    "#    approvers: { groups: [dba], quorum: 1, within: 15m, valid: 10m, attach: 10m }\n";

static const char *const directories[] = {"run", "recordings", "state"};
static const char *const files[] = {"countersign.yaml", "tls.crt", "tls.key", "master.key"};

static const char *in_dir(struct cs_cli *c, const char *name)
{
    struct cs_slice s = cs_arena_printf(&c->arena, "%s/%s", c->position[0], name);
    return s.p != NULL ? (const char *)s.p : "";
}

static int refuse_if_there(struct cs_cli *c)
{
    struct stat st;
    for (size_t i = 0; i < CS_ARRAY_LEN(files); i++) {
        const char *path = in_dir(c, files[i]);
        if (lstat(path, &st) == 0) {
            return cs_cli_fail(c,
                               "%s exists already: an installation is never written over. Give "
                               "another directory, or move it away",
                               path);
        }
    }
    return CS_CLI_OK;
}

static int make_directories(struct cs_cli *c)
{
    if (mkdir(c->position[0], 0755) != 0 && errno != EEXIST) {
        return cs_cli_fail(c, "cannot create %s: %s", c->position[0], strerror(errno));
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(directories); i++) {
        const char *path = in_dir(c, directories[i]);
        /* run must be passable for those who may use the socket; its own mode decides. */
        mode_t mode = strcmp(directories[i], "run") == 0 ? 0755 : 0700;
        if (mkdir(path, mode) != 0 && errno != EEXIST) {
            return cs_cli_fail(c, "cannot create %s: %s", path, strerror(errno));
        }
    }
    return CS_CLI_OK;
}

/* O_EXCL: also what appeared since the check is not written over, nor a link followed. */
static int write_new(struct cs_cli *c, const char *name, mode_t mode, struct cs_slice bytes)
{
    const char *path = in_dir(c, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    bool ok = fd >= 0;
    while (ok && bytes.n > 0) {
        ssize_t n = write(fd, bytes.p, bytes.n);
        ok = n > 0;
        bytes = cs_slice_from(bytes, n > 0 ? (size_t)n : 0);
    }
    ok = ok && fsync(fd) == 0;
    int saved = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    return ok ? CS_CLI_OK : cs_cli_fail(c, "cannot write %s: %s", path, strerror(saved));
}

static int write_master_key(struct cs_cli *c)
{
    uint8_t key[MASTER_KEY_BYTES];
    cs_random(key, sizeof key);
    int status = write_new(c, "master.key", 0600, cs_slice(key, sizeof key));
    cs_wipe(key, sizeof key);
    return status;
}

/* A name that can stand in a certificate, a url and a YAML string alike. */
static bool host_valid(const char *host)
{
    size_t n = strlen(host);
    uint8_t v6[16];
    if (inet_pton(AF_INET6, host, v6) == 1) {
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        bool fine = (host[i] >= 'a' && host[i] <= 'z') || (host[i] >= '0' && host[i] <= '9') ||
                    (host[i] >= 'A' && host[i] <= 'Z') || host[i] == '-' || host[i] == '.';
        if (!fine) {
            return false;
        }
    }
    return n > 0 && n < 254 && host[0] != '-' && host[0] != '.';
}

/* The names given, then the local ones; the first is the one in the url. */
static int collect_names(struct cs_cli *c, const char *names[static NAMES_MAX + 3], size_t *ret_n)
{
    size_t n = 0;
    for (int i = 0; i < c->n_options; i++) {
        if (strcmp(c->option[i].name, "name") != 0) {
            continue;
        }
        if (!host_valid(c->option[i].value) || n == NAMES_MAX) {
            return cs_cli_usage(c, "--name %s is no host name or address", c->option[i].value);
        }
        names[n++] = c->option[i].value;
    }
    static const char *const always[] = {"localhost", "127.0.0.1", "::1"};
    for (size_t i = 0; i < CS_ARRAY_LEN(always); i++) {
        bool given = false;
        for (size_t k = 0; k < n; k++) {
            given |= strcmp(names[k], always[i]) == 0;
        }
        if (!given) {
            names[n++] = always[i];
        }
    }
    *ret_n = n;
    return CS_CLI_OK;
}

static int write_configuration(struct cs_cli *c, const char *host)
{
    struct cs_buf out = cs_buf(64 * 1024);
    char bracketed[300];
    bool v6 = strchr(host, ':') != NULL;
    (void)snprintf(bracketed, sizeof bracketed, "%s%s%s", v6 ? "[" : "", host, v6 ? "]" : "");
    cs_buf_printf(&out, configuration, bracketed);
    int status = out.bad ? cs_cli_fail(c, "no memory")
                         : write_new(c, "countersign.yaml", 0644, cs_buf_slice(&out));
    cs_buf_done(&out);
    return status;
}

static void next_steps(struct cs_cli *c)
{
    static char real[PATH_MAX];
    const char *dir = realpath(c->position[0], real) != NULL ? real : c->position[0];
    const char *shown = cs_cli_safe(c, cs_slice_str(dir));
    if (c->json) {
        json_t *o = json_pack("{s:s}", "directory", dir);
        (void)cs_cli_print_json(o);
        json_decref(o);
        return;
    }
    printf(
        "Countersign is set up in %s. Next:\n\n"
        "  countersign serve --config %s/countersign.yaml\n"
        "  COUNTERSIGN_DIR=%s countersign user add YOUR-NAME --groups countersign-admins,dba\n"
        "  COUNTERSIGN_DIR=%s countersign doctor\n\n"
        "Keep a copy of %s/master.key in a safe place: without it the stored secrets are lost.\n",
        shown, shown, shown, shown, shown);
}

int cs_cmd_init(struct cs_cli *c)
{
    const char *names[NAMES_MAX + 3];
    size_t n = 0;
    int status = collect_names(c, names, &n);
    if (status == CS_CLI_OK) {
        status = refuse_if_there(c);
    }
    if (status == CS_CLI_OK) {
        status = make_directories(c);
    }
    if (status == CS_CLI_OK) {
        enum cs_err err = cs_certificate_make(names, n, CERTIFICATE_DAYS, in_dir(c, "tls.crt"),
                                              in_dir(c, "tls.key"));
        if (err != CS_OK) {
            status = cs_cli_fail(c, "cannot make the certificate in %s: %s", c->position[0],
                                 cs_err_text(err));
        }
    }
    if (status == CS_CLI_OK) {
        status = write_master_key(c);
    }
    if (status == CS_CLI_OK) {
        /* Last: a directory with a configuration is a whole installation. */
        status = write_configuration(c, names[0]);
    }
    if (status == CS_CLI_OK) {
        next_steps(c);
    }
    return status;
}
