/* Who am I, and is everything as it should be. `doctor` prints one line a check and fails when one
 * does: what an operator runs first at three in the morning. */
#include "cli/client.h"
#include "cli/out.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int cs_cmd_whoami(struct cs_cli *c)
{
    struct cs_cli_answer a;
    if (!cs_cli_get(c, "/v1/whoami", &a)) {
        return CS_CLI_FAILED;
    }
    if (c->json) {
        (void)cs_cli_print_json(a.json);
    } else {
        const char *name = cs_cli_text(c, a.json, "name");
        const char *groups = cs_cli_text(c, a.json, "groups");
        const char *uid = cs_cli_text(c, a.json, "local_uid");
        if (name[0] != 0) {
            printf("%s %s (%s)%s%s\n", cs_cli_text(c, a.json, "kind"), name,
                   cs_cli_text(c, a.json, "id"), groups[0] != 0 ? ", groups " : "", groups);
        } else {
            printf("nobody by token\n");
        }
        if (uid[0] != 0) {
            printf("user id %s of this machine\n", uid);
        }
        if (cs_cli_true(a.json, "may_set_up")) {
            printf("may set up\n");
        }
    }
    cs_cli_answer_done(&a);
    return CS_CLI_OK;
}

/* ---- doctor ---- */
enum finding { FINE, ODD, BAD };

struct checkup {
    struct cs_cli *c;
    json_t *list; /* owned */
    unsigned bad;
};

/* `text` and `hint` must be safe to show. */
static void found(struct checkup *k, enum finding f, const char *what, const char *text,
                  const char *hint)
{
    static const struct {
        const char *word;
        enum cs_cli_colour colour;
    } marks[] = {
        [FINE] = {"ok", CS_CLI_GREEN}, [ODD] = {"?", CS_CLI_YELLOW}, [BAD] = {"BAD", CS_CLI_RED}};
    k->bad += f == BAD;
    if (k->c->json) {
        (void)json_array_append_new(k->list, json_pack("{s:s, s:s, s:s}", "check", what, "result",
                                                       marks[f].word, "detail", text));
        return;
    }
    printf("%s%-4s%s %-16s %s\n", cs_cli_paint(k->c, marks[f].colour), marks[f].word,
           cs_cli_paint(k->c, CS_CLI_PLAIN), what, text);
    if (f != FINE && hint[0] != 0) {
        printf("     %-16s -> %s\n", "", hint);
    }
}

static const char *say(struct checkup *k, const char *fmt, ...) CS_PRINTF(2, 3);
static const char *say(struct checkup *k, const char *fmt, ...)
{
    char text[700];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct cs_slice s = cs_arena_dup(&k->c->arena, cs_slice_str(text));
    return s.p != NULL ? (const char *)s.p : "";
}

/* Files of an installation on this machine: keys that others can read are no secret. */
static void check_files(struct checkup *k, const char *dir)
{
    static const struct {
        const char *name;
        bool secret;
    } files[] = {{"countersign.yaml", false},
                 {"master.key", true},
                 {"tls.key", true},
                 {"recordings", true},
                 {"state", true}};
    for (size_t i = 0; i < CS_ARRAY_LEN(files); i++) {
        char path[2000];
        struct stat st;
        (void)snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        const char *safe = cs_cli_safe(k->c, cs_slice_str(path));
        if (lstat(path, &st) != 0) {
            bool hidden = errno == EACCES;
            found(k, hidden ? ODD : BAD, files[i].name, say(k, "%s: %s", safe, strerror(errno)),
                  hidden ? "run doctor as the gateway's user to check it"
                         : "countersign init makes a whole installation");
        } else if (files[i].secret && (st.st_mode & 077) != 0) {
            found(k, BAD, files[i].name, say(k, "%s can be read by others", safe),
                  say(k, "chmod go= %s", safe));
        } else {
            found(k, FINE, files[i].name, safe, "");
        }
    }
}

static bool check_reach(struct checkup *k)
{
    struct cs_cli_place place;
    struct cs_cli_answer a;
    char why[600];
    if (!cs_cli_place(k->c, &place)) {
        return false;
    }
    const char *where = cs_cli_place_text(k->c, &place);
    if (!cs_cli_try(k->c, "GET", "/v1/health", NULL, &a, why, sizeof why)) {
        found(k, BAD, "gateway", cs_cli_safe(k->c, cs_slice_str(why)), "");
        return false;
    }
    bool ok = a.status == 200;
    if (ok) {
        found(k, FINE, "gateway", say(k, "answers on %s", where), "");
    } else {
        found(k, BAD, "gateway", say(k, "%s: %s", where, cs_cli_text(k->c, a.json, "message")),
              "look into the log of `countersign serve`");
    }
    cs_cli_answer_done(&a);
    return ok;
}

static void check_identity(struct checkup *k)
{
    struct cs_cli_answer a;
    char why[600];
    if (!cs_cli_try(k->c, "GET", "/v1/whoami", NULL, &a, why, sizeof why)) {
        found(k, BAD, "token", cs_cli_safe(k->c, cs_slice_str(why)), "");
        return;
    }
    if (a.status == 200) {
        const char *name = cs_cli_text(k->c, a.json, "name");
        found(k, FINE, "token",
              name[0] != 0 ? say(k, "is %s's", name)
                           : say(k, "none; user id %s of this machine",
                                 cs_cli_text(k->c, a.json, "local_uid")),
              "");
    } else {
        found(k, a.status == 401 ? ODD : BAD, "token", cs_cli_text(k->c, a.json, "message"),
              "set COUNTERSIGN_TOKEN, or give --token-file");
    }
    cs_cli_answer_done(&a);
}

static void check_credential(struct checkup *k, const json_t *target, const char *which)
{
    const json_t *cred = json_object_get(target, which);
    if (json_is_object(cred) && json_is_false(json_object_get(cred, "set"))) {
        const char *secret = cs_cli_text(k->c, cred, "secret");
        found(k, BAD, "secret",
              say(k, "%s of target %s is not stored", secret, cs_cli_text(k->c, target, "name")),
              say(k, "countersign secret set %s", secret));
    }
}

/* The gateway's last look at the target's roles. It is never waited for here: a target that is down
 * must not keep doctor from telling the rest. */
static void check_target_roles(struct checkup *k, const json_t *target)
{
    size_t i;
    json_t *w;
    const json_t *last = json_object_get(target, "check");
    const char *name = cs_cli_text(k->c, target, "name");
    const char *hint = say(k, "countersign target check %s", name);
    if (last == NULL) {
        return; /* a gateway that does not look */
    }
    if (!json_is_object(last)) {
        found(k, ODD, "target roles", say(k, "%s: not looked at yet; that has begun now", name),
              say(k, "in a moment doctor knows; or: countersign target check %s", name));
        return;
    }
    const char *when = cs_cli_when(k->c, last, "at");
    if (json_object_get(last, "error") != NULL) {
        found(k, ODD, "target roles",
              say(k, "%s: could not be looked at %s: %.300s", name, when,
                  cs_cli_text(k->c, last, "error")),
              hint);
        return;
    }
    const char *serious = cs_cli_text(k->c, last, "serious");
    const char *warnings = cs_cli_text(k->c, last, "warnings");
    const char *failed = cs_cli_text(k->c, last, "failed");
    bool bad = !cs_cli_is(serious, "0") || !cs_cli_is(failed, "0");
    found(k,
          bad                         ? BAD
          : !cs_cli_is(warnings, "0") ? ODD
                                      : FINE,
          "target roles",
          say(k, "%s: %s serious, %s warnings, %s not answered, %s%s", name, serious, warnings,
              failed, when, cs_cli_true(last, "old") ? "; another look has begun" : ""),
          hint);
    json_array_foreach(json_object_get(last, "worst"), i, w)
    {
        found(
            k, cs_cli_is(cs_cli_text(k->c, w, "severity"), "warning") ? ODD : BAD, "target roles",
            say(k, "%s: %s [%s]", name, cs_cli_text(k->c, w, "title"), cs_cli_text(k->c, w, "id")),
            "");
    }
}

static void check_targets(struct checkup *k, const json_t *status)
{
    size_t i;
    json_t *t;
    const json_t *targets = json_object_get(status, "targets");
    if (json_array_size(targets) == 0) {
        found(k, ODD, "targets", "none is configured", "add one to countersign.yaml and reload");
    }
    json_array_foreach(targets, i, t)
    {
        bool plain = !cs_cli_is(cs_cli_text(k->c, t, "tls"), "verify-full");
        found(k, plain ? ODD : FINE, "target",
              say(k, "%s: %s %s, database %s, tls %s", cs_cli_text(k->c, t, "name"),
                  cs_cli_text(k->c, t, "kind"), cs_cli_text(k->c, t, "address"),
                  cs_cli_text(k->c, t, "database"), cs_cli_text(k->c, t, "tls")),
              "without verify-full somebody on the way can pose as the database");
        check_credential(k, t, "credential");
        check_credential(k, t, "elevated");
        check_credential(k, t, "probe");
        check_target_roles(k, t);
    }
}

static void check_store(struct checkup *k, const json_t *store)
{
    const char *no_space = cs_cli_text(k->c, store, "no_space");
    bool full = no_space[0] != 0 && !cs_cli_is(no_space, "0");
    found(k, cs_cli_true(store, "ok") ? FINE : BAD, "store",
          say(k, "%s commits, %s queued", cs_cli_text(k->c, store, "commits"),
              cs_cli_text(k->c, store, "queued")),
          "look into the gateway's log");
    if (full) {
        found(k, ODD, "store", say(k, "the disk was full %s times", no_space), "make room");
    }
}

static void check_role(struct checkup *k, const json_t *r)
{
    const char *restarts = cs_cli_text(k->c, r, "restarts");
    bool again = restarts[0] != 0 && !cs_cli_is(restarts, "0");
    bool down = !cs_cli_true(r, "ready");
    bool stopped = cs_cli_is(cs_cli_text(k->c, r, "record"), "stopped");
    const char *text =
        say(k, "%s/%s pid %s%s%s%s%s", cs_cli_text(k->c, r, "role"), cs_cli_text(k->c, r, "index"),
            cs_cli_text(k->c, r, "pid"), again ? ", restarts: " : "", again ? restarts : "",
            down ? ", not ready" : "", stopped ? ", its record cannot be written" : "");
    found(k,
          down || stopped ? BAD
          : again         ? ODD
                          : FINE,
          "role", text,
          stopped ? "actions are refused until it can: look at the disk of recordings.directory"
                  : "look into the gateway's log for why it ended");
}

/* What the kernel keeps a role from, by its own word (/proc): a role does not start without. */
static void check_walls(struct checkup *k, const json_t *status)
{
    size_t i;
    json_t *r;
    const char *mode = cs_cli_text(k->c, status, "sandbox");
    const char *landlock = cs_cli_text(k->c, status, "landlock");
    bool enforced = cs_cli_is(mode, "enforced"), some = !cs_cli_is(landlock, "0");
    found(k, enforced ? FINE : ODD, "sandbox", say(k, "system calls: %s", mode),
          "this build or COUNTERSIGN_SANDBOX leaves the roles unconfined");
    found(k, some ? FINE : ODD, "sandbox",
          some ? say(k, "files: Landlock %s", landlock) : "files: this kernel has no Landlock",
          "a role is kept from files by its system calls and its user id alone");
    found(k, cs_cli_is(cs_cli_text(k->c, status, "user"), "0") ? ODD : FINE, "sandbox",
          say(k, "the roles run as user id %s", cs_cli_text(k->c, status, "user")),
          "give countersign serve a --user of its own");
    json_array_foreach(json_object_get(status, "roles"), i, r)
    {
        bool filter = cs_cli_true(r, "seccomp"), nnp = cs_cli_true(r, "no_new_privs");
        found(k,
              filter && nnp ? FINE
              : enforced    ? BAD
                            : ODD,
              "sandbox",
              say(k, "%s/%s: %s, %s", cs_cli_text(k->c, r, "role"), cs_cli_text(k->c, r, "index"),
                  filter ? "seccomp filter" : "NO seccomp filter",
                  nnp ? "no_new_privs" : "NOT no_new_privs"),
              "it is starting, or something is wrong");
    }
}

static void check_roles(struct checkup *k, const json_t *status)
{
    size_t i;
    json_t *r;
    const json_t *recorder = json_object_get(status, "recorder");
    json_array_foreach(json_object_get(status, "roles"), i, r)
    {
        check_role(k, r);
    }
    if (json_object_get(status, "sandbox") != NULL) {
        check_walls(k, status);
    }
    if (recorder != NULL) {
        found(k, json_is_true(recorder) ? FINE : BAD, "record",
              json_is_true(recorder) ? "the recorder is at work" : "the recorder is not at work",
              "actions are refused until it is");
    }
    if (json_object_get(status, "roles") == NULL) {
        found(k, BAD, "supervisor", cs_cli_text(k->c, status, "supervisor"),
              "look into the gateway's log");
    }
}

static void check_status(struct checkup *k)
{
    struct cs_cli_answer a;
    char why[600];
    if (!cs_cli_try(k->c, "GET", "/v1/status", NULL, &a, why, sizeof why)) {
        found(k, BAD, "status", cs_cli_safe(k->c, cs_slice_str(why)), "");
        return;
    }
    if (a.status != 200) {
        found(k, ODD, "status", cs_cli_text(k->c, a.json, "message"),
              "only those who may set up see more: root on the gateway's machine, or a token of "
              "countersign-admins");
        cs_cli_answer_done(&a);
        return;
    }
    found(k, FINE, "configuration",
          say(k, "version %s, %s", cs_cli_text(k->c, a.json, "policy"),
              cs_cli_text(k->c, a.json, "url")),
          "");
    check_roles(k, a.json);
    check_store(k, json_object_get(a.json, "store"));
    check_targets(k, a.json);
    found(k, FINE, "at work",
          say(k, "%s sessions, %s requests held", cs_cli_text(k->c, a.json, "sessions"),
              cs_cli_text(k->c, a.json, "held")),
          "");
    cs_cli_answer_done(&a);
}

int cs_cmd_doctor(struct cs_cli *c)
{
    struct checkup k = {.c = c, .list = json_array()};
    const char *dir = getenv("COUNTERSIGN_DIR");
    const char *token = getenv("COUNTERSIGN_TOKEN");
    if (dir != NULL && dir[0] != 0) {
        check_files(&k, dir);
    }
    if (token != NULL && strncmp(token, "cs_a_", 5) == 0) {
        found(&k, ODD, "token", "COUNTERSIGN_TOKEN is an agent's",
              "agents see their own requests only");
    }
    if (check_reach(&k)) {
        check_identity(&k);
        check_status(&k);
    }
    if (c->json) {
        json_t *root = json_pack("{s:b, s:o}", "ok", k.bad == 0, "checks", k.list);
        (void)cs_cli_print_json(root);
        json_decref(root);
    } else {
        json_decref(k.list);
        printf("\n%s\n",
               k.bad == 0 ? "Everything checked is in order." : "Something needs attention.");
    }
    return k.bad == 0 ? CS_CLI_OK : CS_CLI_FAILED;
}
