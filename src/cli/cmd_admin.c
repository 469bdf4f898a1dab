/* Setting up: reload, users, agents, secrets. Must never take a secret from the arguments (anybody
 * on the machine sees those), nor print one. */
#include "base/buf.h"
#include "base/secret.h"
#include "cli/client.h"
#include "cli/out.h"
#include "crypto/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

/* Every --group G and --groups "a, b" of the command line, in their order. */
static json_t *group_list(const struct cs_cli *c)
{
    json_t *list = json_array();
    for (int i = 0; i < c->n_options; i++) {
        bool several = strcmp(c->option[i].name, "groups") == 0;
        if (!several && strcmp(c->option[i].name, "group") != 0) {
            continue;
        }
        struct cs_slice rest = cs_slice_str(c->option[i].value);
        while (rest.n > 0) {
            size_t n = cs_slice_find(rest, ',');
            struct cs_slice one = cs_slice_trim(cs_slice_head(rest, n));
            if (one.n > 0) {
                (void)json_array_append_new(list, json_stringn((const char *)one.p, one.n));
            }
            rest = cs_slice_from(rest, n + 1);
        }
    }
    return list;
}

int cs_cmd_reload(struct cs_cli *c)
{
    struct cs_cli_answer a;
    size_t i;
    json_t *w;
    if (!cs_cli_send(c, "POST", "/v1/reload", NULL, &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        printf("The configuration is in force: version %s\n", cs_cli_text(c, a.json, "version"));
        json_array_foreach(json_object_get(a.json, "warnings"), i, w)
        {
            printf("warning: %s\n", cs_cli_value_text(c, w));
        }
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

/* ---- users and agents ---- */
static int show_token(struct cs_cli *c, const char *what, struct cs_cli_answer *a)
{
    if (c->json) {
        (void)cs_cli_print_json(a->json);
    } else {
        const char *groups = cs_cli_text(c, a->json, "groups");
        printf("%s: %s%s%s\n\nThe token, shown this once; whoever has it is %s:\n\n    %s\n\n"
               "Try it:  COUNTERSIGN_TOKEN=... countersign whoami\n",
               what, cs_cli_text(c, a->json, "name"), groups[0] != 0 ? ", groups " : "", groups,
               cs_cli_text(c, a->json, "name"), cs_cli_text(c, a->json, "token"));
    }
    cs_cli_answer_done(a);
    return CS_CLI_OK;
}

int cs_cmd_user_add(struct cs_cli *c)
{
    struct cs_cli_answer a;
    json_t *body = json_pack("{s:s, s:o}", "name", c->position[0], "groups", group_list(c));
    bool ok = body != NULL && cs_cli_send(c, "POST", "/v1/users", body, &a);
    json_decref(body);
    return ok ? show_token(c, "Added the person", &a) : CS_CLI_FAILED;
}

int cs_cmd_agent_add(struct cs_cli *c)
{
    struct cs_cli_answer a;
    const char *owner = cs_cli_option(c, "owner");
    if (owner == NULL) {
        return cs_cli_usage(c, "an agent acts for a person: --owner PERSON is missing");
    }
    json_t *body = json_pack("{s:s, s:s, s:o}", "name", c->position[0], "owner", owner, "groups",
                             group_list(c));
    bool ok = body != NULL && cs_cli_send(c, "POST", "/v1/agents", body, &a);
    json_decref(body);
    return ok ? show_token(c, "Added the agent", &a) : CS_CLI_FAILED;
}

int cs_cmd_user_token(struct cs_cli *c)
{
    struct cs_cli_answer a;
    const char *path = cs_cli_path(c, "/v1/users/", c->position[0], "/token");
    return path != NULL && cs_cli_send(c, "POST", path, NULL, &a)
               ? show_token(c, "A new token; the old one is void", &a)
               : CS_CLI_FAILED;
}

/* A change without an answer worth showing. */
static int change(struct cs_cli *c, const char *suffix, const json_t *body, const char *done)
{
    struct cs_cli_answer a;
    const char *path = cs_cli_path(c, "/v1/users/", c->position[0], suffix);
    if (path == NULL || !cs_cli_send(c, "POST", path, body, &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        printf("%s: %s\n", cs_cli_safe(c, cs_slice_str(c->position[0])), done);
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

int cs_cmd_user_groups(struct cs_cli *c)
{
    if (cs_cli_option(c, "groups") == NULL && cs_cli_option(c, "group") == NULL) {
        return cs_cli_usage(c, "--group G is missing; --groups \"\" takes all away");
    }
    json_t *body = json_pack("{s:o}", "groups", group_list(c));
    int status = change(c, "/groups", body, "the groups are replaced");
    json_decref(body);
    return status;
}

int cs_cmd_user_disable(struct cs_cli *c)
{
    return change(c, "/disable", NULL, "disabled; its sessions end");
}

int cs_cmd_user_list(struct cs_cli *c)
{
    static const char *const titles[] = {"NAME", "KIND", "FOR", "GROUPS", "STATE", "ADDED"};
    struct cs_cli_table t = {.columns = CS_ARRAY_LEN(titles), .titles = titles};
    struct cs_cli_answer a;
    size_t i;
    json_t *u;
    if (!cs_cli_get(c, "/v1/users", &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        json_array_foreach(json_object_get(a.json, "users"), i, u)
        {
            const char *row[] = {cs_cli_text(c, u, "name"),
                                 cs_cli_text(c, u, "kind"),
                                 cs_cli_text(c, u, "owner"),
                                 cs_cli_text(c, u, "groups"),
                                 cs_cli_true(u, "disabled") ? "disabled" : "",
                                 cs_cli_when(c, u, "created")};
            cs_cli_table_row(&t, row);
        }
        cs_cli_table_print(c, &t,
                           "Nobody yet. Add somebody: countersign user add NAME --groups A,B");
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

/* ---- secrets ---- */
static bool read_all(int fd, struct cs_buf *out)
{
    for (;;) {
        uint8_t *room = cs_buf_room(out, 1024);
        ssize_t n = room != NULL ? read(fd, room, 1024) : -1;
        if (n <= 0) {
            return n == 0;
        }
        out->len += (size_t)n;
    }
}

static void interrupted(int number)
{
    (void)number; /* only so that read() returns and the terminal is put right again */
}

/* One line from the terminal, not shown while it is typed. */
static bool ask(const char *name, struct cs_buf *out)
{
    struct termios before, quiet;
    struct sigaction on = {.sa_handler = interrupted}, old_int, old_term;
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (fd < 0 || tcgetattr(fd, &before) != 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return false;
    }
    quiet = before;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    /* An interrupt while typing must not leave the terminal mute: no SA_RESTART. */
    (void)sigaction(SIGINT, &on, &old_int);
    (void)sigaction(SIGTERM, &on, &old_term);
    (void)fprintf(stderr, "Value of %s (not shown): ", name);
    (void)tcsetattr(fd, TCSAFLUSH, &quiet);
    uint8_t *room = cs_buf_room(out, CS_SECRET_MAX + 1);
    ssize_t n = room != NULL ? read(fd, room, CS_SECRET_MAX + 1) : -1;
    (void)tcsetattr(fd, TCSAFLUSH, &before);
    (void)fputc('\n', stderr);
    (void)sigaction(SIGINT, &old_int, NULL);
    (void)sigaction(SIGTERM, &old_term, NULL);
    (void)close(fd);
    out->len += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* Without the one line end that editors and echo put behind it. */
static bool read_secret(struct cs_cli *c, struct cs_buf *out)
{
    const char *path = cs_cli_option(c, "file");
    bool ok;
    if (path != NULL) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ok = fd >= 0 && read_all(fd, out);
        if (!ok) {
            (void)cs_cli_fail(c, "cannot read %s: %s", path, strerror(errno));
        }
        if (fd >= 0) {
            (void)close(fd);
        }
    } else if (isatty(STDIN_FILENO)) {
        ok = ask(cs_cli_safe(c, cs_slice_str(c->position[0])), out);
        if (!ok) {
            (void)cs_cli_fail(c, "nothing was typed");
        }
    } else {
        ok = read_all(STDIN_FILENO, out);
        if (!ok) {
            (void)cs_cli_fail(c, "cannot read standard input, or it holds more than %d bytes",
                              CS_SECRET_MAX);
        }
    }
    if (ok && out->len > 0 && out->p[out->len - 1] == '\n') {
        out->len--;
    }
    if (ok && out->len > 0 && out->p[out->len - 1] == '\r') {
        out->len--;
    }
    return ok;
}

/* The gateway's key for secrets; false when it was not given (and says so). */
static bool seal_key(struct cs_cli *c, uint8_t key[static CS_X25519])
{
    struct cs_cli_answer a;
    size_t n = 0;
    if (!cs_cli_get(c, "/v1/secrets/key", &a)) {
        return false;
    }
    const char *algorithm = cs_cli_text(c, a.json, "algorithm");
    const char *text = cs_cli_text(c, a.json, "key");
    bool ok = cs_cli_is(algorithm, "x25519") &&
              cs_base64_decode(cs_slice_str(text), true, key, CS_X25519, &n) && n == CS_X25519;
    if (!ok) {
        (void)cs_cli_fail(c, "the gateway gave no key to seal secrets with");
    }
    cs_cli_answer_done(&a);
    return ok;
}

/* {"sealed": …}: from here on only the keeper process can read it. NULL when it failed. */
static json_t *sealed(struct cs_cli *c, struct cs_slice value)
{
    static uint8_t box[CS_SECRET_MAX + CS_SEAL_TO_OVERHEAD]; /* ciphertext */
    static char text[(sizeof box + 2) / 3 * 4];
    uint8_t key[CS_X25519];
    if (!seal_key(c, key)) {
        return NULL;
    }
    struct cs_slice aad = cs_arena_printf(&c->arena, "countersign/secret-put/1%s", c->position[0]);
    if (aad.p == NULL || cs_seal_to(key, aad, value, box) != CS_OK) {
        (void)cs_cli_fail(c, "the value cannot be sealed to the gateway's key");
        return NULL;
    }
    size_t n = cs_base64_encode(cs_slice(box, value.n + CS_SEAL_TO_OVERHEAD), true, text);
    return json_pack("{s:s%}", "sealed", text, n);
}

int cs_cmd_secret_set(struct cs_cli *c)
{
    struct cs_buf value = cs_buf(CS_SECRET_MAX + 2048);
    struct cs_cli_answer a;
    int status = CS_CLI_FAILED;
    json_t *body = NULL;
    if (!read_secret(c, &value)) {
        goto out;
    }
    if (value.len == 0 || value.len > CS_SECRET_MAX) {
        (void)cs_cli_fail(c, "the value has %zu bytes; 1 to %d are possible", value.len,
                          CS_SECRET_MAX);
        goto out;
    }
    body = sealed(c, cs_buf_slice(&value));
    const char *path = cs_cli_path(c, "/v1/secrets/", c->position[0], "");
    if (body == NULL || path == NULL || !cs_cli_send(c, "PUT", path, body, &a)) {
        goto out;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        printf("The secret %s is stored, version %s. Nobody can read it back.\n",
               cs_cli_text(c, a.json, "name"), cs_cli_text(c, a.json, "version"));
    }
    cs_cli_answer_done(&a);
    status = CS_CLI_OK;
out:
    json_decref(body);
    if (value.p != NULL) {
        cs_wipe(value.p, value.cap);
    }
    cs_buf_done(&value);
    return status;
}

int cs_cmd_backup(struct cs_cli *c)
{
    struct cs_cli_answer a;
    if (!cs_cli_send(c, "POST", "/v1/backup", NULL, &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        printf("%s\n", cs_cli_text(c, a.json, "path"));
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

int cs_cmd_secret_rotate(struct cs_cli *c)
{
    struct cs_cli_answer a;
    size_t i;
    json_t *f;
    if (!cs_cli_send(c, "POST", "/v1/secrets/rotate", NULL, &a)) {
        return CS_CLI_FAILED;
    }
    const json_t *failed = json_object_get(a.json, "failed");
    bool all = json_is_array(failed) && json_array_size(failed) == 0;
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        printf(
            "%s of %s secrets were wrapped anew, %s were under the present master key already.\n",
            cs_cli_text(c, a.json, "rewrapped"), cs_cli_text(c, a.json, "secrets"),
            cs_cli_text(c, a.json, "unchanged"));
        json_array_foreach(failed, i, f)
        {
            (void)cs_cli_fail(c, "%s: %s", cs_cli_text(c, f, "name"), cs_cli_text(c, f, "why"));
        }
    }
    cs_cli_answer_done(&a);
    return all ? CS_CLI_OK : CS_CLI_FAILED;
}

int cs_cmd_secret_list(struct cs_cli *c)
{
    static const char *const titles[] = {"NAME", "VERSION", "CHANGED"};
    struct cs_cli_table t = {.columns = CS_ARRAY_LEN(titles), .titles = titles};
    struct cs_cli_answer a;
    size_t i;
    json_t *s;
    if (!cs_cli_get(c, "/v1/secrets", &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        json_array_foreach(json_object_get(a.json, "secrets"), i, s)
        {
            const char *row[] = {cs_cli_text(c, s, "name"), cs_cli_text(c, s, "version"),
                                 cs_cli_when(c, s, "changed")};
            cs_cli_table_row(&t, row);
        }
        cs_cli_table_print(c, &t, "No secret yet. Store one: countersign secret set NAME");
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}
