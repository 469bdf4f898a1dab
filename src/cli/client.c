/* Requests to the gateway's API (client.h). Called by every command but init and serve. Must never
 * put a token anywhere but into the Authorization field of a connection that was verified. */
#include "cli/client.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/secret.h"
#include "cli/connection.h"
#include "cli/out.h"
#include "wire/http1.h"
#include "wire/url.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char default_socket[] = "/var/lib/countersign/run/countersign.sock";

/* Empty counts as not set. */
static const char *environment(const char *name)
{
    const char *v = getenv(name);
    return v != NULL && v[0] != 0 ? v : NULL;
}

bool cs_cli_place(struct cs_cli *c, struct cs_cli_place *ret)
{
    const char *url = cs_cli_option(c, "url");
    const char *path = cs_cli_option(c, "socket");
    const char *dir = environment("COUNTERSIGN_DIR");
    const char *ca = cs_cli_option(c, "ca");
    if (url != NULL && path != NULL) {
        (void)cs_cli_usage(c, "--url and --socket are two places: give one");
        return false;
    }
    *ret = (struct cs_cli_place){url, path, ca != NULL ? ca : environment("COUNTERSIGN_CA")};
    if (url == NULL && path == NULL) {
        ret->url = environment("COUNTERSIGN_URL");
    }
    if (ret->url == NULL && path == NULL) {
        ret->socket = environment("COUNTERSIGN_SOCKET");
        if (ret->socket == NULL && dir != NULL) {
            ret->socket =
                (const char *)cs_arena_printf(&c->arena, "%s/run/countersign.sock", dir).p;
        }
        /* Never a socket in the working directory: it would get the token of whoever walks in. */
        if (ret->socket == NULL) {
            ret->socket = default_socket;
        }
    }
    return true;
}

const char *cs_cli_place_text(struct cs_cli *c, const struct cs_cli_place *p)
{
    struct cs_slice s = p->socket != NULL
                            ? cs_arena_printf(&c->arena, "the local socket %s", p->socket)
                            : cs_slice_str(p->url);
    return cs_cli_safe(c, s);
}

/* ---- the token ---- */
static bool token_from_file(const char *path, struct cs_secret *ret, char *why, size_t why_size)
{
    uint8_t mem[512];
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, mem, sizeof mem) : -1;
    bool ok = n >= 0 && (size_t)n < sizeof mem && fstat(fd, &st) == 0;
    if (!ok) {
        (void)snprintf(why, why_size, "cannot read the token file %s: %s", path,
                       n < 0 ? strerror(errno) : "it is too long for one");
    } else if ((st.st_mode & 077) != 0) {
        (void)snprintf(why, why_size, "others can read the token file %s: chmod 600 %s", path,
                       path);
        ok = false;
    } else {
        struct cs_slice text = cs_slice(mem, (size_t)n);
        while (text.n > 0 && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r')) {
            text.n--;
        }
        ok = cs_secret_set(ret, cs_slice_trim(text));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    cs_wipe(mem, sizeof mem);
    return ok;
}

static bool find_token(struct cs_cli *c, struct cs_secret *ret, char *why, size_t why_size)
{
    const char *file = cs_cli_option(c, "token-file");
    const char *token = environment("COUNTERSIGN_TOKEN");
    if (file != NULL) {
        return token_from_file(file, ret, why, why_size);
    }
    return token == NULL || cs_secret_set(ret, cs_slice_trim(cs_slice_str(token)));
}

/* ---- one request ---- */
static bool write_request(struct cs_cli_connection *n, const char *method, const char *path,
                          struct cs_slice token, struct cs_slice body)
{
    static char head[8192]; /* holds the token: wiped */
    char bearer[600];
    struct cs_writer w = cs_writer(head, sizeof head);
    cs_http_write_request(&w, cs_slice_str(method), cs_slice_str(path));
    cs_http_write_field(&w, "Host", cs_slice_str(n->host));
    cs_http_write_field(&w, "User-Agent", CS_SLICE_LIT("countersign/" CS_VERSION));
    cs_http_write_field(&w, "Accept", CS_SLICE_LIT("application/json"));
    cs_http_write_field(&w, "Connection", CS_SLICE_LIT("close"));
    if (token.n > 0) {
        struct cs_writer b = cs_writer(bearer, sizeof bearer);
        cs_writer_bytes(&b, CS_SLICE_LIT("Bearer "));
        cs_writer_bytes(&b, token);
        w.overflow |= b.overflow;
        cs_http_write_field(&w, "Authorization", cs_writer_done(&b));
    }
    if (body.n > 0) {
        cs_http_write_field(&w, "Content-Type", CS_SLICE_LIT("application/json"));
    }
    if (strcmp(method, "GET") != 0) {
        cs_http_write_number(&w, "Content-Length", body.n);
    }
    cs_http_write_end(&w);
    bool ok = !w.overflow && cs_cli_write(n, cs_writer_done(&w)) && cs_cli_write(n, body);
    cs_wipe(head, sizeof head);
    cs_wipe(bearer, sizeof bearer);
    return ok;
}

/* Reads until there is a complete answer; its body is the end of `in`. */
static const char *read_answer(struct cs_cli_connection *n, struct cs_buf *in,
                               struct cs_http_response *r, size_t *ret_head)
{
    struct cs_http_refusal why = {0, NULL};
    size_t at = 0, head = 0;
    enum cs_http got = CS_HTTP_NEED;
    for (;;) {
        if (got == CS_HTTP_NEED) {
            got = cs_http_scan(cs_buf_slice(in), CS_LIMIT_HTTP_HEAD_BYTES, &at, &head, &why);
            if (got == CS_HTTP_BAD ||
                (got == CS_HTTP_OK &&
                 !cs_http_response_parse(cs_slice_head(cs_buf_slice(in), head), r, &why))) {
                return why.why;
            }
            if (got == CS_HTTP_OK && r->status < 200) { /* 100 Continue: the real one follows */
                cs_buf_drop(in, head);
                got = CS_HTTP_NEED;
                continue;
            }
            if (got == CS_HTTP_OK && r->body_n > CS_CLI_ANSWER_MAX) {
                return "the answer is too large";
            }
        }
        if (got == CS_HTTP_OK && in->len - head >= r->body_n) {
            *ret_head = head;
            return NULL;
        }
        uint8_t *room = cs_buf_room(in, 65536);
        long len = room != NULL ? cs_cli_read(n, room, 65536) : -1;
        if (len <= 0) {
            return room == NULL ? "no memory for the answer"
                   : len == 0   ? "the connection ended before the answer did"
                                : "no answer came in time, or the connection broke";
        }
        in->len += (size_t)len;
    }
}

static bool exchange(struct cs_cli_connection *n, const char *method, const char *path,
                     struct cs_slice token, struct cs_slice body, struct cs_cli_answer *ret,
                     char *why, size_t why_size)
{
    static struct cs_http_response r;
    size_t head = 0;
    json_error_t error;
    if (!write_request(n, method, path, token, body)) {
        (void)snprintf(why, why_size, "the request could not be sent");
        return false;
    }
    struct cs_buf in = cs_buf(CS_CLI_ANSWER_MAX + 256 * 1024);
    const char *bad = read_answer(n, &in, &r, &head);
    if (bad == NULL) {
        ret->status = r.status;
        ret->json = json_loadb((const char *)in.p + head, (size_t)r.body_n, JSON_ALLOW_NUL, &error);
        if (!json_is_object(ret->json)) {
            json_decref(ret->json);
            ret->json = NULL;
            bad = "the answer is no JSON object: is this the gateway?";
        }
    }
    if (in.p != NULL) {
        cs_wipe(in.p, in.len); /* a new token may be in it */
    }
    cs_buf_done(&in);
    if (bad != NULL) {
        (void)snprintf(why, why_size, "%s", bad);
    }
    return bad == NULL;
}

bool cs_cli_try(struct cs_cli *c, const char *method, const char *path, const json_t *body,
                struct cs_cli_answer *ret, char *why, size_t why_size)
{
    struct cs_cli_place place;
    struct cs_cli_connection n;
    struct cs_secret token = {0};
    *ret = (struct cs_cli_answer){0, NULL};
    (void)snprintf(why, why_size, "usage");
    if (!cs_cli_place(c, &place) || !find_token(c, &token, why, why_size) ||
        !cs_cli_connect(&place, &n, why, why_size)) {
        cs_secret_done(&token);
        return false;
    }
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    bool ok = false;
    if (body == NULL || text != NULL) {
        ok = exchange(&n, method, path, cs_secret_reveal(&token), cs_slice_str(text), ret, why,
                      why_size);
    } else {
        (void)snprintf(why, why_size, "the text is not valid UTF-8");
    }
    if (text != NULL) {
        cs_wipe(text, strlen(text));
        cs_free(text);
    }
    cs_secret_done(&token);
    cs_cli_disconnect(&n);
    return ok;
}

bool cs_cli_send(struct cs_cli *c, const char *method, const char *path, const json_t *body,
                 struct cs_cli_answer *ret)
{
    char why[600];
    if (!cs_cli_try(c, method, path, body, ret, why, sizeof why)) {
        if (strcmp(why, "usage") != 0) {
            (void)cs_cli_fail(c, "%s", why);
        }
        return false;
    }
    if (ret->status >= 200 && ret->status < 300) {
        return true;
    }
    struct cs_slice message = cs_cli_raw(ret->json, "message");
    const char *hint =
        ret->status == 401 ? ". Give a token: COUNTERSIGN_TOKEN, or --token-file" : "";
    (void)cs_cli_fail(c, "%.*s%s (%u %s)", CS_SLICE_FMT(message), hint, ret->status,
                      cs_cli_text(c, ret->json, "error"));
    cs_cli_answer_done(ret);
    return false;
}

bool cs_cli_get(struct cs_cli *c, const char *path, struct cs_cli_answer *ret)
{
    return cs_cli_send(c, "GET", path, NULL, ret);
}

void cs_cli_answer_done(struct cs_cli_answer *a)
{
    json_decref(a->json);
    a->json = NULL;
}

const char *cs_cli_path(struct cs_cli *c, const char *prefix, const char *name, const char *suffix)
{
    size_t cap = strlen(prefix) + 3 * strlen(name) + strlen(suffix) + 1;
    char *mem = cs_arena_alloc(&c->arena, cap);
    if (mem == NULL) {
        return NULL;
    }
    struct cs_writer w = cs_writer(mem, cap);
    cs_writer_bytes(&w, cs_slice_str(prefix));
    cs_url_encode(&w, cs_slice_str(name));
    cs_writer_cstr(&w, cs_slice_str(suffix));
    return w.overflow ? NULL : mem;
}
