/* Where keeper's keys come from, as the supervisor opens them. */
#include "roles/supervisor.h"
#include "runtime/process.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[40], path[80], store[80], why[700];
static struct cs_supervisor sv;
static struct cs_snapshot snapshot;

static void put(const char *name, const char *bytes, size_t n, mode_t mode)
{
    (void)unlink(name);
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CS_CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && fchmod(fd, mode) == 0);
    (void)close(fd);
}

static void scratch(enum cs_key_source source)
{
    (void)snprintf(dir, sizeof dir, "/tmp/cs-key-XXXXXX");
    CS_CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(path, sizeof path, "%s/master.key", dir);
    (void)snprintf(store, sizeof store, "%s/state.db", dir);
    snapshot = (struct cs_snapshot){
        .store = cs_slice_str(store),
        .master_key = {.source = source, .what = cs_slice_str(path), .timeout_s = 10}};
}

static void clean(void)
{
    char command[100];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    CS_CHECK(system(command) == 0);
}

/* The bytes behind the descriptor; -1: none. */
static ssize_t take(enum cs_err want, const char *words, char out[static 200])
{
    struct cs_key_fds fds = {{-1, -1}};
    ssize_t n = -1;
    why[0] = 0;
    enum cs_err e = cs_master_keys_open(&sv, &snapshot, &fds, why, sizeof why);
    if (e != want || (words != NULL && strstr(why, words) == NULL)) {
        CS_FAIL("%s (%s), not %s (%s)", cs_err_name(e), why, cs_err_name(want), words);
    }
    CS_CHECK((e == CS_OK) == (fds.fd[0] >= 0));
    if (e == CS_OK) {
        n = read(fds.fd[0], out, 200);
        out[n > 0 && n < 200 ? n : 0] = 0;
    }
    cs_master_keys_close(&fds);
    return n;
}

static void refused(enum cs_err want, const char *words)
{
    char bytes[200];
    CS_CHECK(take(want, words, bytes) == -1);
}

#define KEY "0123456789abcdef0123456789abcdef"

/* ---- files ---- */

CS_TEST(master_key_is_made_once_private_and_only_without_a_store)
{
    char first[200], again[200];
    struct stat st;
    scratch(CS_KEY_FILE);
    CS_EQ_U64(take(CS_OK, NULL, first), 32);
    CS_CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600 && st.st_size == 32);
    CS_EQ_U64(take(CS_OK, NULL, again), 32);
    CS_CHECK(memcmp(first, again, 32) == 0);
    CS_CHECK(unlink(path) == 0);
    put(store, "x", 1, 0600);
    refused(CS_ERR_NOT_FOUND, "put the key back from your backup");
    CS_CHECK(access(path, F_OK) != 0);
    clean();
}

CS_TEST(master_key_that_others_could_reach_is_refused)
{
    static const mode_t modes[] = {0640, 0604, 0620, 0602, 0610, 0601, 0777};
    char bytes[200];
    scratch(CS_KEY_FILE);
    for (size_t i = 0; i < CS_ARRAY_LEN(modes); i++) {
        put(path, KEY, 32, modes[i]);
        refused(CS_ERR_DENIED, "can be reached by others");
    }
    put(path, KEY, 32, 0400);
    CS_EQ_U64(take(CS_OK, NULL, bytes), 32);
    if (geteuid() == 0) {
        CS_CHECK(chown(path, 12345, 12345) == 0);
        refused(CS_ERR_DENIED, "belongs to another user");
    }
    clean();
}

CS_TEST(master_key_is_no_link_and_has_its_length)
{
    char link_path[100];
    scratch(CS_KEY_FILE);
    (void)snprintf(link_path, sizeof link_path, "%s/real", dir);
    CS_CHECK(symlink(link_path, path) == 0);
    /* A link that leads nowhere must not be a way to create a file elsewhere. */
    refused(CS_ERR_DENIED, "is a symbolic link");
    CS_CHECK(access(link_path, F_OK) != 0);
    put(link_path, KEY, 32, 0600);
    refused(CS_ERR_DENIED, "is a symbolic link");
    put(path, KEY, 31, 0600);
    refused(CS_ERR_DENIED, "32 bytes");
    put(path, KEY "x", 33, 0600);
    refused(CS_ERR_DENIED, "32 bytes");
    CS_CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    refused(CS_ERR_DENIED, "is not a regular file");
    snapshot.master_key.what = cs_slice_str(dir);
    refused(CS_ERR_DENIED, "is not a regular file");
    snapshot.master_key.what = CS_SLICE_LIT("/nowhere/at/all");
    refused(CS_ERR_NOT_FOUND, "/nowhere/at/all cannot be created");
    snapshot.master_key.what = CS_SLICE_NULL;
    refused(CS_ERR_INVALID, "has no path");
    clean();
}

CS_TEST(previous_master_key_is_never_made)
{
    char bytes[200];
    scratch(CS_KEY_FILE);
    put(path, KEY, 32, 0600);
    snapshot.previous_master_key =
        (struct cs_snapshot_key){.source = CS_KEY_FILE, .what = CS_SLICE_LIT("/nowhere/old.key")};
    refused(CS_ERR_NOT_FOUND, "the previous master key /nowhere/old.key does not exist");
    snapshot.previous_master_key.what = cs_slice_str(path);
    CS_EQ_U64(take(CS_OK, NULL, bytes), 32);
    clean();
}

/* ---- credentials of the service manager ---- */

CS_TEST(master_key_comes_as_a_credential)
{
    char bytes[200];
    scratch(CS_KEY_CREDENTIAL);
    snapshot.master_key.what = CS_SLICE_LIT("master.key");
    (void)unsetenv("CREDENTIALS_DIRECTORY");
    refused(CS_ERR_NOT_FOUND, "CREDENTIALS_DIRECTORY");
    CS_CHECK(setenv("CREDENTIALS_DIRECTORY", "run", 1) == 0); /* not a full path */
    refused(CS_ERR_NOT_FOUND, "CREDENTIALS_DIRECTORY");
    CS_CHECK(setenv("CREDENTIALS_DIRECTORY", dir, 1) == 0);
    refused(CS_ERR_NOT_FOUND, "does not exist");
    CS_CHECK(access(path, F_OK) != 0); /* it is not ours to make */
    put(path, KEY, 32, 0400);
    CS_EQ_U64(take(CS_OK, NULL, bytes), 32);
    put(path, KEY KEY "\n", 65, 0400);
    CS_EQ_U64(take(CS_OK, NULL, bytes), 65);
    put(path, KEY, 31, 0400);
    refused(CS_ERR_DENIED, "no key's length");
    put(path, KEY, 32, 0404);
    refused(CS_ERR_DENIED, "can be reached by others");
    put(path, KEY, 32, 0440);
    if (geteuid() == 0) { /* root's file and group: the mask of an access list */
        CS_EQ_U64(take(CS_OK, NULL, bytes), 32);
        CS_CHECK(chown(path, 0, 12345) == 0);
    }
    refused(CS_ERR_DENIED, "can be reached by others");
    clean();
}

/* ---- commands ---- */

static void (*script)(void);

static void play(void *arg)
{
    (void)arg;
    script();
    cs_loop_stop(sv.loop);
}

static void in_a_loop(void (*what)(void))
{
    cs_handle co;
    script = what;
    sv.loop = cs_loop_new();
    CS_CHECK(cs_co_spawn(sv.loop, "play", play, NULL, &co) == CS_OK);
    cs_loop_run(sv.loop);
    cs_loop_free(sv.loop);
}

static void program(const char *text)
{
    static char what[200];
    put(path, text, strlen(text), 0700);
    int n = snprintf(what, sizeof what, "%s%c-a%cb c%c", path, 0, 0, 0);
    snapshot.master_key.what = cs_slice(what, (size_t)n);
}

static void script_commands(void)
{
    char bytes[200];
    scratch(CS_KEY_COMMAND);
    CS_CHECK(setenv("HIDDEN", "value", 1) == 0);
    program("#!/bin/sh\n[ \"$1\" = -a ] && [ \"$2\" = 'b c' ] && [ -z \"$HIDDEN\" ] && printf " KEY
            "\n");
    CS_EQ_U64(take(CS_OK, NULL, bytes), 32);
    CS_CHECK(memcmp(bytes, KEY, 32) == 0);
    program("#!/bin/sh\nprintf " KEY "; exit 3\n");
    refused(CS_ERR_UNAVAILABLE, "failed");
    program("#!/bin/sh\necho short\n");
    refused(CS_ERR_INVALID, "no key's length");
    program("#!/bin/sh\nprintf '%0128d' 1\n");
    refused(CS_ERR_INVALID, "no key's length");
    program("#!/bin/sh\nsleep 3 & printf " KEY
            "\n"); /* who holds the pipe open is not waited for */
    snapshot.master_key.timeout_s = 30;
    CS_EQ_U64(take(CS_OK, NULL, bytes), 32);
    snapshot.master_key.timeout_s = 1;
    program("#!/bin/sh\nexec sleep 60\n");
    refused(CS_ERR_TIMEOUT, "too long");
    program("#!/bin/sh\nexec cat /dev/zero\n"); /* more than a pipe holds: it never ends */
    refused(CS_ERR_TIMEOUT, "too long");
    program("#!/bin/sh\n");
    CS_CHECK(chmod(path, 0722) == 0);
    refused(CS_ERR_DENIED, "can be written by others");
    CS_CHECK(chmod(path, 0600) == 0);
    refused(CS_ERR_DENIED, "cannot be run");
    CS_CHECK(unlink(path) == 0);
    refused(CS_ERR_DENIED, "does not exist");
    snapshot.master_key.what = CS_SLICE_LIT("relative\0");
    refused(CS_ERR_INVALID, "malformed");
    snapshot.master_key.what = CS_SLICE_LIT("/bin/true"); /* no NUL behind it */
    refused(CS_ERR_INVALID, "malformed");
    clean();
}

CS_TEST(master_key_comes_from_a_command)
{
    in_a_loop(script_commands);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(master_keys_differ_by_source_and_name)
{
    struct cs_snapshot a = {.master_key = {CS_KEY_FILE, CS_SLICE_LIT("/a"), 0}}, b = a;
    CS_CHECK(!cs_master_keys_differ(&a, &b));
    b.master_key.source = CS_KEY_CREDENTIAL;
    CS_CHECK(cs_master_keys_differ(&a, &b));
    b = a;
    b.master_key.what = CS_SLICE_LIT("/b");
    CS_CHECK(cs_master_keys_differ(&a, &b));
    b = a;
    b.previous_master_key = a.master_key;
    CS_CHECK(cs_master_keys_differ(&a, &b));
}
