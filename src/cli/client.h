/* The client of the gateway's API: one request on one connection, blocking. Over TLS the server is
 * always verified; there is no switch to turn that off. */
#ifndef CS_CLI_CLIENT_H
#define CS_CLI_CLIENT_H

#include "base/buf.h"
#include "cli/cli.h"

enum { CS_CLI_ANSWER_MAX = 32 * 1024 * 1024 };

/* Where to. Local when socket is not NULL. */
struct cs_cli_place {
    const char *url, *socket, *ca;
};
/* --url, --socket, COUNTERSIGN_URL, COUNTERSIGN_SOCKET, COUNTERSIGN_DIR, the default: the first one
 * that is there. */
bool cs_cli_place(struct cs_cli *c, struct cs_cli_place *ret) CS_MUST_CHECK;
/* "https://gate:7443" or "the local socket /…" */
const char *cs_cli_place_text(struct cs_cli *c, const struct cs_cli_place *p);

struct cs_cli_answer {
    unsigned status;
    json_t *json; /* owned; an object */
};
void cs_cli_answer_done(struct cs_cli_answer *a);

/* GET, or METHOD with a JSON body (borrowed; NULL = none). On anything but a 2xx answer with a JSON
 * object it prints what went wrong and returns false. */
bool cs_cli_get(struct cs_cli *c, const char *path, struct cs_cli_answer *ret) CS_MUST_CHECK;
bool cs_cli_send(struct cs_cli *c, const char *method, const char *path, const json_t *body,
                 struct cs_cli_answer *ret) CS_MUST_CHECK;
/* As above without printing; `why` gets a sentence (safe to show). True also for 4xx and 5xx. */
bool cs_cli_try(struct cs_cli *c, const char *method, const char *path, const json_t *body,
                struct cs_cli_answer *ret, char *why, size_t why_size) CS_MUST_CHECK;

/* prefix + percent-encoded name + suffix, in the arena; NULL when memory is out. */
const char *cs_cli_path(struct cs_cli *c, const char *prefix, const char *name, const char *suffix);

#endif
