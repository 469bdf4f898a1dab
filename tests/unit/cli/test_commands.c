/* Whole commands against a fake gateway on a unix socket: what is sent, what is printed, how it
 * ends. */
#include "cli/cli.h"
#include "crypto/crypto.h"
#include "tap.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define DIGEST "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static char dir[64], sock[100], out[65536], requests[65536];
static const char *answers[8]; /* "METHOD /path" then the body, in order */
static unsigned statuses[8];
static int n_answers, n_asked;

/* ---- the fake gateway ---- */
static size_t read_request(int fd, char *into, size_t cap)
{
    size_t n = 0, all = SIZE_MAX;
    while (n < all && n < cap - 1) {
        ssize_t got = read(fd, into + n, cap - 1 - n);
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
        into[n] = 0;
        const char *end = strstr(into, "\r\n\r\n");
        if (end != NULL) {
            const char *len = strstr(into, "Content-Length: ");
            all = (size_t)(end - into) + 4 + (len != NULL ? strtoul(len + 16, NULL, 10) : 0);
        }
    }
    return n;
}

static void *gateway(void *arg)
{
    int listener = *(int *)arg;
    size_t at = 0;
    for (; n_asked < n_answers; n_asked++) {
        int fd = accept(listener, NULL, NULL);
        at += read_request(fd, requests + at, sizeof requests - at);
        char head[200];
        (void)snprintf(head, sizeof head,
                       "HTTP/1.1 %u Some\r\nContent-Type: application/json\r\nContent-Length: "
                       "%zu\r\n\r\n",
                       statuses[n_asked], strlen(answers[n_asked]));
        CS_CHECK(write(fd, head, strlen(head)) == (ssize_t)strlen(head));
        CS_CHECK(write(fd, answers[n_asked], strlen(answers[n_asked])) ==
                 (ssize_t)strlen(answers[n_asked]));
        (void)close(fd);
    }
    return NULL;
}

static void answer(unsigned status, const char *body)
{
    statuses[n_answers] = status;
    answers[n_answers++] = body;
}

static void drop_directory(void)
{
    (void)rmdir(dir); /* each command has taken its own files away */
}

/* Runs a command with standard output into `out`; arguments separated by '|'. */
static int command(const char *line)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    pthread_t thread;
    static char copy[400];
    char *argv[16], path[100];
    int argc = 0, listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (dir[0] == 0) {
        (void)snprintf(dir, sizeof dir, "/tmp/cli-test-XXXXXX");
        CS_CHECK(mkdtemp(dir) != NULL && atexit(drop_directory) == 0);
    }
    (void)snprintf(sock, sizeof sock, "%s/s", dir);
    (void)unlink(sock);
    memcpy(sa.sun_path, sock, strlen(sock) + 1);
    CS_CHECK(bind(listener, (const struct sockaddr *)&sa, sizeof sa) == 0);
    CS_CHECK(listen(listener, 8) == 0);
    CS_CHECK(setenv("COUNTERSIGN_SOCKET", sock, 1) == 0);
    (void)snprintf(copy, sizeof copy, "%s", line);
    if (n_answers > 0) {
        CS_CHECK(pthread_create(&thread, NULL, gateway, &listener) == 0);
    }
    for (char *p = copy; p != NULL && argc < 15;) {
        argv[argc++] = p;
        p = strchr(p, '|');
        if (p != NULL) {
            *p++ = 0;
        }
    }
    argv[argc] = NULL;
    (void)snprintf(path, sizeof path, "%s/out", dir);
    (void)fflush(stdout);
    int saved = dup(1), file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    (void)dup2(file, 1);
    int status = cs_cli_main(argc, argv, NULL);
    (void)fflush(stdout);
    (void)dup2(saved, 1);
    ssize_t n = pread(file, out, sizeof out - 1, 0);
    out[n > 0 ? n : 0] = 0;
    (void)close(file);
    (void)close(saved);
    if (n_answers > 0 && n_asked >= n_answers) {
        (void)pthread_join(thread, NULL);
    }
    (void)close(listener);
    (void)unlink(sock);
    (void)unlink(path);
    return status;
}

static void silence(void)
{
    int null = open("/dev/null", O_WRONLY);
    (void)dup2(null, 2);
    (void)unsetenv("COUNTERSIGN_URL");
    (void)setenv("COUNTERSIGN_TOKEN", "cs_p_token", 1);
}

#define CARD(state, vote, digest, text)                                                            \
    "{\"id\": \"7Q2KD4M9\", \"state\": \"" state "\", \"rule\": \"change-data\", \"rules\": "      \
    "[\"change-data\"], \"title\": \"Changing\", \"chain\": [{\"kind\": \"person\", \"name\": "    \
    "\"alice\"}], \"target\": \"orders\", \"database\": \"shop\", \"role\": \"owner\", "           \
    "\"elevated\": true, \"text\": \"x\", \"text_shown\": " text ", \"params\": [{\"null\": "      \
    "false, \"format\": \"text\", \"type\": 25, \"text\": \"p\\u001b\"}], \"facts\": "             \
    "{\"sql.verb\": \"DROP TABLE\"}, \"digest\": \"" digest "\", \"short\": \"ABCD\", "            \
    "\"quorum\": 1, \"votes\": [], \"may_vote\": " vote                                            \
    ", \"may_not_vote_because\": \"it is your own\"}"

CS_TEST(show_prints_the_whole_card_and_nothing_raw)
{
    silence();
    answer(200, CARD("pending", "true", DIGEST, "\"DROP TABLE a;\\nDROP \\u001b[2J\\u202e b;\""));
    CS_EQ_U64(command("countersign|show|7q2kd4m9"), 0);
    CS_CHECK(strstr(requests, "GET /v1/requests/7q2kd4m9 HTTP/1.1\r\n") == requests);
    CS_CHECK(strstr(requests, "Authorization: Bearer cs_p_token\r\n") != NULL);
    CS_CHECK(strstr(out, "    | DROP TABLE a;\n    | DROP \\x1b[2J\\u{202e} b;\n") != NULL);
    CS_CHECK(strstr(out, "person alice") != NULL);
    CS_CHECK(strstr(out, "ELEVATED") != NULL);
    CS_CHECK(strstr(out, DIGEST) != NULL);
    CS_CHECK(strstr(out, "$1 = \"p\\x1b\"") != NULL);
    CS_CHECK(strchr(out, 0x1b) == NULL);
}

CS_TEST(show_does_not_escape_twice_what_is_safe_already)
{
    silence();
    answer(200, CARD("pending", "true", DIGEST, "\"SELECT \\\\x0a \\\\u{202e}\""));
    CS_EQ_U64(command("countersign|show|7Q2KD4M9"), 0);
    CS_CHECK(strstr(out, "    | SELECT \\x0a \\u{202e}\n") != NULL);
}

CS_TEST(approve_signs_the_digest_that_was_shown)
{
    silence();
    answer(200, CARD("pending", "true", DIGEST, "\"DROP TABLE a\""));
    answer(200, "{\"state\": \"approved\"}");
    CS_EQ_U64(command("countersign|approve|7Q2KD4M9|--yes|--reason|fine"), 0);
    const char *post = strstr(requests, "POST /v1/requests/7Q2KD4M9/approve HTTP/1.1\r\n");
    CS_CHECK(post != NULL);
    CS_CHECK(strstr(post, "\"digest\":\"" DIGEST "\"") != NULL);
    CS_CHECK(strstr(post, "\"reason\":\"fine\"") != NULL);
    CS_CHECK(strstr(out, "DROP TABLE a") != NULL);
    CS_CHECK(strstr(out, "Signed: 7Q2KD4M9, now approved") != NULL);
}

CS_TEST(approve_without_a_terminal_needs_yes)
{
    silence();
    CS_EQ_U64(command("countersign|approve|7Q2KD4M9"), 2);
    CS_EQ_U64(n_asked, 0);
}

static void approve_fails(const char *card)
{
    silence();
    answer(200, card);
    CS_EQ_U64(command("countersign|approve|7Q2KD4M9|--yes"), 1);
    CS_CHECK(strstr(requests, "POST") == NULL);
}

CS_TEST(approve_refuses_what_is_not_pending)
{
    approve_fails(CARD("denied", "true", DIGEST, "\"x\""));
}

CS_TEST(approve_refuses_when_the_gateway_says_no_vote)
{
    approve_fails(CARD("pending", "false", DIGEST, "\"x\""));
}

CS_TEST(approve_refuses_a_card_without_a_digest)
{
    approve_fails(CARD("pending", "true", "00ZZ", "\"x\""));
}

CS_TEST(approve_refuses_a_card_that_could_not_be_shown)
{
    approve_fails(CARD("pending", "true", DIGEST, "null"));
}

CS_TEST(deny_needs_a_reason_and_sends_it)
{
    silence();
    CS_EQ_U64(command("countersign|deny|7Q2KD4M9"), 2);
    answer(200, CARD("pending", "true", DIGEST, "\"x\""));
    answer(200, "{\"state\": \"denied\"}");
    CS_EQ_U64(command("countersign|deny|7Q2KD4M9|--reason|not today"), 0);
    CS_CHECK(strstr(requests, "/deny HTTP/1.1") != NULL);
    CS_CHECK(strstr(requests, "\"reason\":\"not today\"") != NULL);
}

CS_TEST(requests_are_listed_one_line_each)
{
    silence();
    answer(200, "{\"seq\": 4, \"requests\": [" CARD("pending", "true", DIGEST, "\"x\"") "]}");
    CS_EQ_U64(command("countersign|requests"), 0);
    CS_CHECK(strstr(requests, "GET /v1/requests?state=pending HTTP/1.1") != NULL);
    CS_CHECK(strstr(out, "7Q2KD4M9  pending") != NULL);
    CS_CHECK(strstr(out, "person alice") != NULL);
}

CS_TEST(errors_of_the_gateway_end_with_one)
{
    silence();
    answer(404, "{\"error\": \"not-found\", \"message\": \"there is no such request\"}");
    CS_EQ_U64(command("countersign|show|7Q2KD4M9"), 1);
    CS_EQ_STR(cs_slice_str(out), "");
}

CS_TEST(an_answer_that_is_no_json_object_is_refused)
{
    silence();
    answer(200, "[1]");
    CS_EQ_U64(command("countersign|whoami"), 1);
}

CS_TEST(json_is_printed_in_ascii)
{
    silence();
    answer(200, "{\"a\": \"\xc2\x9b\x7f\xe2\x80\xae\"}");
    CS_EQ_U64(command("countersign|whoami|--json"), 0);
    CS_CHECK(strstr(out, "\"\\u009B\\u007f\\u202E\"") != NULL);
}

CS_TEST(names_are_encoded_into_the_path)
{
    silence();
    answer(200, "{}");
    CS_EQ_U64(command("countersign|user|disable|a/../b c"), 0);
    CS_CHECK(strstr(requests, "POST /v1/users/a%2F..%2Fb%20c/disable HTTP/1.1") != NULL);
}

CS_TEST(user_add_shows_the_token_once)
{
    silence();
    answer(201, "{\"id\": \"local:alice\", \"name\": \"alice\", \"groups\": [\"dba\", \"x\"], "
                "\"token\": \"cs_p_secret\"}");
    CS_EQ_U64(command("countersign|user|add|alice|--groups|dba, x"), 0);
    CS_CHECK(strstr(requests, "\"groups\":[\"dba\",\"x\"]") != NULL);
    CS_CHECK(strstr(out, "cs_p_secret") != NULL);
}

static const uint8_t keeper_key[CS_X25519] = {1, 2, 3};

static const char *seal_key(void)
{
    static char body[100];
    uint8_t public[CS_X25519];
    char text[64];
    CS_CHECK(cs_x25519_public(keeper_key, public) == CS_OK);
    text[cs_base64_encode(cs_slice(public, sizeof public), true, text)] = 0;
    (void)snprintf(body, sizeof body, "{\"algorithm\": \"x25519\", \"key\": \"%s\"}", text);
    return body;
}

/* What keeper would find in the PUT; the number of bytes, 0 when it does not open. */
static size_t opened(const char *aad, uint8_t *plain)
{
    uint8_t box[200];
    size_t n = 0;
    const char *at = strstr(requests, "{\"sealed\":\"");
    CS_CHECK(at != NULL);
    struct cs_slice text = cs_slice_str(at + 11);
    text = cs_slice_head(text, cs_slice_find(text, '"'));
    CS_CHECK(cs_base64_decode(text, true, box, sizeof box, &n));
    return cs_unseal_to(keeper_key, cs_slice_str(aad), cs_slice(box, n), plain) == CS_OK
               ? n - CS_SEAL_TO_OVERHEAD
               : 0;
}

CS_TEST(secret_comes_from_a_file_and_is_not_printed)
{
    char path[100], line[300];
    silence();
    (void)snprintf(path, sizeof path, "/tmp/cli-secret-%d", (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CS_CHECK(write(fd, "pass\"word\n", 10) == 10);
    (void)close(fd);
    answer(200, seal_key());
    answer(200, "{\"name\": \"a\", \"version\": 3}");
    (void)snprintf(line, sizeof line, "countersign|secret|set|a|--file|%s", path);
    CS_EQ_U64(command(line), 0);
    CS_CHECK(strstr(requests, "GET /v1/secrets/key HTTP/1.1") != NULL);
    CS_CHECK(strstr(requests, "PUT /v1/secrets/a HTTP/1.1") != NULL);
    CS_CHECK(strstr(out, "pass") == NULL && strstr(out, "version 3") != NULL);
    /* SECURITY: only ciphertext travels, and it is bound to the name. */
    CS_CHECK(strstr(requests, "pass") == NULL);
    uint8_t plain[64];
    CS_EQ_U64(opened("countersign/secret-put/1a", plain), 9);
    CS_CHECK(memcmp(plain, "pass\"word", 9) == 0);
    CS_EQ_U64(opened("countersign/secret-put/1b", plain), 0);
    (void)unlink(path);
}

CS_TEST(secret_is_not_sent_without_a_key_to_seal_it)
{
    static const char *const bad[] = {
        "{\"algorithm\": \"x25519\", \"key\": \"AAAA\"}",
        "{\"algorithm\": \"rot13\", \"key\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
        /* a point of small order: everybody knows the shared secret */
        "{\"algorithm\": \"x25519\", \"key\": \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
        "{}"};
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        char path[100], line[300];
        silence();
        (void)snprintf(path, sizeof path, "/tmp/cli-secret-%d", (int)getpid());
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        CS_CHECK(write(fd, "password", 8) == 8);
        (void)close(fd);
        answer(200, bad[i]);
        (void)snprintf(line, sizeof line, "countersign|secret|set|a|--file|%s", path);
        CS_CHECK(command(line) != 0);
        CS_CHECK(strstr(requests, "PUT") == NULL);
        (void)unlink(path);
    }
}

CS_TEST(token_file_that_others_can_read_is_refused)
{
    char path[100], line[300];
    silence();
    (void)snprintf(path, sizeof path, "/tmp/cli-token-%d", (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CS_CHECK(write(fd, "cs_p_file\n", 10) == 10 && fchmod(fd, 0644) == 0);
    (void)snprintf(line, sizeof line, "countersign|whoami|--token-file|%s", path);
    CS_EQ_U64(command(line), 1);
    CS_EQ_U64(n_asked, 0);
    CS_CHECK(fchmod(fd, 0600) == 0);
    answer(200, "{}");
    CS_EQ_U64(command(line), 0);
    CS_CHECK(strstr(requests, "Authorization: Bearer cs_p_file\r\n") != NULL);
    (void)close(fd);
    (void)unlink(path);
}

CS_TEST(replay_prints_frames_with_relative_time)
{
    silence();
    answer(
        200,
        "{\"session\": \"4f\", \"began\": \"2026-11-22T10:00:00.000Z\", \"finished\": true, "
        "\"frames\": ["
        "{\"t\": \"2026-11-22T10:00:00.000Z\", \"kind\": \"session_open\", \"target\": \"orders\"},"
        "{\"t\": \"2026-11-22T10:00:01.500Z\", \"kind\": \"action\", \"n\": 1, \"outcome\": "
        "\"hold\", \"verb\": \"DROP TABLE\", \"text\": \"DROP\\u001b TABLE a\", \"why\": \"w\"},"
        "{\"t\": \"2026-11-22T10:00:02.000Z\", \"kind\": \"result\", \"n\": 1, \"ok\": true, "
        "\"tag\": \"DROP TABLE\", \"rows\": 0}]}");
    CS_EQ_U64(command("countersign|replay|4f"), 0);
    CS_CHECK(strstr(out, "+1.500 s") != NULL);
    CS_CHECK(strstr(out, "| DROP\\x1b TABLE a\n") != NULL);
    CS_CHECK(strstr(out, "tag DROP TABLE") != NULL);
    CS_CHECK(strchr(out, 0x1b) == NULL);
    answer(200, "{\"session\": \"4f\", \"frames\": [], \"damaged\": \"it is torn\"}");
    CS_EQ_U64(command("countersign|replay|4f|--from|60|--find|drop table|--actions"), 1);
    CS_CHECK(strstr(requests,
                    "GET /v1/sessions/4f/recording?actions=1&from=60&find=drop%20table ") != NULL);
    CS_EQ_U64(command("countersign|replay|4f|--from|soon"), 2);
    CS_EQ_U64(command("countersign|replay|4f|--speed|0"), 2);
}

CS_TEST(nobody_there_ends_with_one_and_usage_with_two)
{
    silence();
    CS_EQ_U64(command("countersign|whoami|--socket|/nowhere/at/all"), 1);
    CS_EQ_U64(command("countersign|whoami|--socket|/a|--url|https://b"), 1);
    CS_EQ_U64(command("countersign|whoami|--url|nonsense"), 1);
    CS_EQ_U64(command("countersign|whoami|--url|http://192.0.2.1:1"), 1); /* a token in clear */
    CS_EQ_U64(command("countersign|nonsense"), 2);
    CS_EQ_U64(command("countersign|help|nonsense"), 2);
    CS_EQ_U64(command("countersign|help|user|add"), 0);
    CS_CHECK(strstr(out, "usage: countersign user add NAME") != NULL);
    CS_EQ_U64(command("countersign|serve"), 1); /* this test has no supervisor */
}

static void check_mode(const char *base, const char *name, mode_t mode)
{
    char path[200];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", base, name);
    CS_CHECK(lstat(path, &st) == 0);
    CS_EQ_U64(st.st_mode & 0777, mode);
    (void)remove(path);
}

CS_TEST(init_makes_an_installation_once)
{
    char base[64], line[200];
    silence();
    (void)umask(022);
    (void)snprintf(base, sizeof base, "/tmp/cli-init-%d", (int)getpid());
    (void)snprintf(line, sizeof line, "countersign|init|%s|--name|gate.example.com", base);
    CS_EQ_U64(command(line), 0);
    CS_CHECK(strstr(out, "countersign serve --config") != NULL);
    CS_CHECK(strstr(out, "user add") != NULL);
    CS_EQ_U64(command(line), 1); /* never over an installation */
    check_mode(base, "countersign.yaml", 0644);
    CS_EQ_U64(command(line), 1); /* nor over a part of one */
    check_mode(base, "master.key", 0600);
    check_mode(base, "tls.key", 0600);
    check_mode(base, "tls.crt", 0644);
    check_mode(base, "run", 0755);
    check_mode(base, "recordings", 0700);
    check_mode(base, "state", 0700);
    CS_CHECK(rmdir(base) == 0);
}

CS_TEST(init_refuses_names_that_are_none)
{
    silence();
    CS_EQ_U64(command("countersign|init|/tmp/never-made|--name|a\"b"), 2);
    CS_EQ_U64(command("countersign|init|/tmp/never-made|--name|"), 2);
    struct stat st;
    CS_CHECK(lstat("/tmp/never-made", &st) != 0);
}
