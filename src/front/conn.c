/* One connection: TLS, then requests one after the other, straight-line on a coroutine of its own.
 * Started by listen.c. Reads a request whole before anything is done with it, hands it to control
 * as one typed message, writes the answer. Must never act on a request that the strict parser did
 * not accept, and never keep a token: it is hashed where it is found. */
#include "base/alloc.h"
#include "base/id.h"
#include "base/log.h"
#include "base/secret.h"
#include "crypto/crypto.h"
#include "front/internal.h"
#include "ipc/metrics.h"
#include "wire/url.h"

#include <unistd.h>

enum { WRITE_CHUNK = 32 * 1024, LINGER_BYTES = 256 * 1024, READY_MAX = 32 * 1024 };

static uint64_t after_ms(const struct cs_front_conn *c, uint64_t ms)
{
    return cs_loop_now(c->front->loop) + ms * CS_NS_PER_MS;
}

/* ---- answers ---- */
static bool write_all(struct cs_front_conn *c, struct cs_slice bytes)
{
    while (bytes.n > 0) {
        struct cs_slice part = cs_slice_head(bytes, WRITE_CHUNK);
        /* Per piece: a slow reader of much is fine, one who reads nothing is not. */
        if (cs_stream_write(&c->stream, part, after_ms(c, c->front->times.idle_ms)) != CS_OK) {
            return false;
        }
        bytes = cs_slice_from(bytes, part.n);
    }
    return true;
}

static void write_head(struct cs_front_conn *c, struct cs_writer *w, unsigned status,
                       struct cs_slice type, size_t n)
{
    cs_http_write_status(w, status);
    cs_http_write_field(w, "Content-Type", type);
    cs_http_write_number(w, "Content-Length", n);
    cs_http_write_field(w, "Connection",
                        c->keep ? CS_SLICE_LIT("keep-alive") : CS_SLICE_LIT("close"));
    cs_http_write_field(w, "Cache-Control", CS_SLICE_LIT("no-store"));
    cs_http_write_field(w, "X-Content-Type-Options", CS_SLICE_LIT("nosniff"));
    cs_http_write_field(w, "Referrer-Policy", CS_SLICE_LIT("no-referrer"));
    if (cs_slice_starts(type, CS_SLICE_LIT("text/html"))) {
        cs_http_write_field(w, "Content-Security-Policy", cs_slice_str(cs_front_csp()));
        cs_http_write_field(w, "X-Frame-Options", CS_SLICE_LIT("DENY"));
    }
    if (status == 401) {
        cs_http_write_field(w, "WWW-Authenticate", CS_SLICE_LIT("Bearer"));
    }
    if (status == 405) {
        cs_http_write_field(w, "Allow", CS_SLICE_LIT("GET, POST, PUT, DELETE"));
    }
    cs_http_write_end(w);
}

static bool reply(struct cs_front_conn *c, unsigned status, struct cs_slice type,
                  struct cs_slice body)
{
    char mem[900];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    unsigned listener = c->metrics ? CS_HTTP_METRICS : c->local ? CS_HTTP_LOCAL : CS_HTTP_CONTROL;
    unsigned class = CS_MIN(CS_MAX(status / 100, 2U) - 2, CS_DIM_STATUS - 1U);
    cs_metric_add(CS_SLOT_HTTP + listener * CS_DIM_STATUS + class, 1);
    write_head(c, &w, status, type, body.n);
    if (w.overflow) { /* a type with a control byte or of absurd length: control's bug */
        w = cs_writer(mem, sizeof mem);
        c->keep = false;
        body = CS_SLICE_NULL;
        write_head(c, &w, 500, CS_SLICE_LIT("text/plain"), 0);
    }
    struct cs_slice head = cs_writer_done(&w);
    uint8_t *both = c->front->small;
    if (body.n <= sizeof c->front->small - head.n) { /* leaves in one TLS record */
        memcpy(both, head.p, head.n);
        if (body.n > 0) {
            memcpy(both + head.n, body.p, body.n);
        }
        /* Queued, so copied, before anybody else can use the scratch. */
        if (cs_stream_room(&c->stream) >= head.n + body.n) {
            return cs_stream_queue(&c->stream, cs_slice(both, head.n + body.n)) == CS_OK &&
                   cs_stream_drain(&c->stream, after_ms(c, c->front->times.idle_ms)) == CS_OK;
        }
    }
    /* Drained: what is only queued would be lost when the connection closes. */
    return write_all(c, head) && write_all(c, body) &&
           cs_stream_drain(&c->stream, after_ms(c, c->front->times.idle_ms)) == CS_OK;
}

static enum cs_err error_of(unsigned status)
{
    static const struct {
        unsigned status;
        enum cs_err err;
    } table[] = {{401, CS_ERR_UNAUTHENTICATED}, {403, CS_ERR_DENIED},      {404, CS_ERR_NOT_FOUND},
                 {405, CS_ERR_UNSUPPORTED},     {408, CS_ERR_TIMEOUT},     {413, CS_ERR_TOO_LARGE},
                 {417, CS_ERR_UNSUPPORTED},     {429, CS_ERR_LIMIT},       {431, CS_ERR_TOO_LARGE},
                 {501, CS_ERR_UNSUPPORTED},     {503, CS_ERR_UNAVAILABLE}, {504, CS_ERR_TIMEOUT},
                 {505, CS_ERR_UNSUPPORTED},     {500, CS_ERR_INTERNAL}};
    for (size_t i = 0; i < CS_ARRAY_LEN(table); i++) {
        if (table[i].status == status) {
            return table[i].err;
        }
    }
    return CS_ERR_PROTOCOL;
}

/* `why` is a literal of ours: it needs no escaping. */
static bool refuse(struct cs_front_conn *c, unsigned status, const char *why)
{
    char mem[300];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_writer_printf(&w, "{\"error\": \"%s\", \"message\": \"%s\"}\n",
                     cs_err_name(error_of(status)), why);
    cs_log(CS_EV_API_REFUSED, NULL, "address=%s status=%u why=\"%s\"", c->address, status, why);
    return reply(c, status, CS_SLICE_LIT("application/json"), cs_writer_done(&w));
}

/* After a request that was not read to its end: closing at once would reset the connection, and the
 * client would never see why. So some more is read and thrown away, briefly. */
static void linger(struct cs_front_conn *c)
{
    uint64_t deadline = after_ms(c, 1000);
    size_t seen = 0;
    (void)shutdown(c->stream.fd.fd, SHUT_WR);
    while (seen < LINGER_BYTES) {
        size_t n = cs_stream_peek(&c->stream).n;
        seen += n;
        cs_stream_consume(&c->stream, n);
        if (cs_stream_need(&c->stream, 1, deadline) != CS_OK) {
            return;
        }
    }
}

/* For a request that is refused before all of it was read; the connection ends. */
static bool refuse_early(struct cs_front_conn *c, unsigned status, const char *why)
{
    c->keep = false;
    if (refuse(c, status, why)) {
        linger(c);
    }
    return false;
}

/* ---- a call to control ---- */
/* Waits for the answer or, in a long poll, for the caller to leave. */
static enum cs_err await(struct cs_front_conn *c, bool poll)
{
    struct cs_front *f = c->front;
    struct cs_wait set[3] = {CS_WAIT_ON(CS_WAIT_EVENT, &c->call->done),
                             CS_WAIT_ON(CS_WAIT_EVENT, &f->draining),
                             CS_WAIT_ON(CS_WAIT_HUP, &c->stream.fd)};
    if (cs_wait(set, poll ? 3 : 1, CS_FOREVER) != CS_WOKE_READY) { /* the call has the deadline */
        return CS_ERR_CANCELLED;
    }
    if (c->call->done.set) {
        return c->call->err;
    }
    return f->draining.set ? CS_ERR_UNAVAILABLE : CS_ERR_EOF;
}

static bool reply_from_call(struct cs_front_conn *c)
{
    const struct cs_front_call *call = c->call;
    if (call->fd < 0) {
        return reply(c, call->status, call->type, call->body);
    }
    struct cs_slice body;
    if (cs_sealed_map(call->fd, CS_LIMIT_IPC_BLOB_BYTES, &body) != CS_OK) {
        c->keep = false;
        return refuse(c, 500, "the answer could not be read");
    }
    bool ok = reply(c, call->status, call->type, body);
    cs_sealed_unmap(body);
    return ok;
}

/* `used` bytes of the stream belong to this request; the message's slices lie in them. */
static bool call_control(struct cs_front_conn *c, const struct cs_msg_api *msg, size_t used)
{
    size_t size = msg->method.n + msg->path.n + msg->query.n + msg->address.n + msg->body.n;
    if (size > CS_LIMIT_IPC_BYTES - 256) {
        cs_stream_consume(&c->stream, used);
        return refuse(c, 413, "the request is too large");
    }
    uint64_t wait_s = 0;
    if (cs_url_query_u64(msg->query, "wait", CS_LIMIT_HTTP_WAIT_S, &wait_s) != CS_URL_OK) {
        wait_s = 0; /* what is malformed, control refuses */
    }
    uint64_t deadline = after_ms(c, c->front->times.call_ms + wait_s * 1000);
    enum cs_err err = cs_front_call_start(c->front, msg, deadline, &c->call);
    cs_stream_consume(&c->stream, used);
    if (err == CS_OK) {
        err = await(c, wait_s > 0);
    }
    bool ok = false;
    if (err == CS_OK) {
        ok = reply_from_call(c);
    } else if (err == CS_ERR_TIMEOUT) {
        ok = refuse(c, 504, "the gateway did not answer in time");
    } else if (err != CS_ERR_CANCELLED && err != CS_ERR_EOF) {
        ok = refuse(c, 503, "the gateway is starting or stopping; try again");
    }
    cs_front_call_end(c->call);
    c->call = NULL;
    return ok;
}

/* ---- a request ---- */
static bool method_known(struct cs_slice m)
{
    return cs_slice_eq_str(m, "GET") || cs_slice_eq_str(m, "POST") || cs_slice_eq_str(m, "PUT") ||
           cs_slice_eq_str(m, "DELETE");
}

/* What stands against the request as such; NULL when nothing does. */
static const char *objection(const struct cs_front_conn *c, const struct cs_http_request *r,
                             size_t head_n, unsigned *ret_status)
{
    const struct cs_http_fields *f = &r->fields;
    *ret_status = 405;
    if (!method_known(r->method)) {
        return "this method is not in this version";
    }
    *ret_status = 403;
    /* SECURITY: a page from elsewhere, in the browser of somebody who can reach us. There are no
     * cookies to abuse, but there is a local socket and a network position. */
    if (f->has[CS_HTTP_FIELD_ORIGIN] &&
        !cs_slice_eq(f->known[CS_HTTP_FIELD_ORIGIN], cs_slice(c->config->url, c->config->url_n))) {
        return "requests from pages of other origins are refused";
    }
    *ret_status = 413;
    if (r->body_n > CS_LIMIT_HTTP_BODY_BYTES || r->body_n > CS_IOBUF - head_n) {
        return "the body is too large";
    }
    *ret_status = 400;
    return cs_url_path_valid(r->path) ? NULL : "the path is not valid";
}

static bool page(struct cs_front_conn *c, const struct cs_http_request *r, size_t used)
{
    unsigned status;
    struct cs_slice url = cs_slice(c->config->url, c->config->url_n);
    struct cs_buf out = cs_front_request_page(url, cs_slice_from(r->path, 3), &status);
    cs_stream_consume(&c->stream, used);
    bool ok = out.bad
                  ? refuse(c, 503, "no memory is left")
                  : reply(c, status, CS_SLICE_LIT("text/html; charset=utf-8"), cs_buf_slice(&out));
    cs_buf_done(&out);
    return ok;
}

/* SECURITY: nothing that comes by the metrics listener reaches control, or has a token looked at.
 */
static bool numbers(struct cs_front_conn *c, const struct cs_http_request *r, size_t used)
{
    static const char plain[] = "text/plain; charset=utf-8";
    struct cs_front_metrics *m = c->front->metrics;
    bool get = cs_slice_eq_str(r->method, "GET");
    bool text = get && cs_slice_eq_str(r->path, "/metrics");
    bool alive = get && cs_slice_eq_str(r->path, "/healthz");
    bool ready = get && cs_slice_eq_str(r->path, "/readyz");
    cs_stream_consume(&c->stream, used);
    if (alive) {
        bool well = cs_front_is_alive(m);
        return reply(c, well ? 200 : 503, cs_slice_str(plain),
                     well ? CS_SLICE_LIT("ok\n") : CS_SLICE_LIT("the supervisor hangs\n"));
    }
    if (!text && !ready) {
        return refuse(c, get ? 404 : 405, "here are GET /metrics, /healthz and /readyz");
    }
    struct cs_buf out = text ? cs_front_metrics_text(m) : cs_buf(READY_MAX);
    unsigned status = ready && !cs_front_is_ready(m, &out) ? 503 : 200;
    if (ready && status == 200) {
        cs_buf_str(&out, "ready\n");
    }
    bool ok = out.bad ? refuse(c, 503, "no memory is left")
                      : reply(c, status,
                              text ? CS_SLICE_LIT("text/plain; version=0.0.4; charset=utf-8")
                                   : cs_slice_str(plain),
                              cs_buf_slice(&out));
    cs_buf_done(&out);
    return ok;
}

/* The whole request is in the stream's buffer: `head_n` bytes and the body. */
static bool answer(struct cs_front_conn *c, const struct cs_http_request *r, size_t head_n)
{
    size_t used = head_n + (size_t)r->body_n;
    if (c->metrics) {
        return numbers(c, r, used);
    }
    if (cs_slice_eq_str(r->method, "GET") && cs_slice_starts(r->path, CS_SLICE_LIT("/r/"))) {
        return page(c, r, used);
    }
    struct cs_slice token;
    if (!cs_http_bearer(&r->fields, &token)) {
        cs_stream_consume(&c->stream, used);
        return refuse(c, 401, "Authorization must be: Bearer TOKEN");
    }
    uint8_t hash[CS_SHA256];
    if (token.n > 0) {
        cs_sha256(token, hash);
    }
    struct cs_msg_api msg = {
        .method = r->method,
        .path = r->path,
        .query = r->query,
        .token_sha256 = cs_slice(hash, token.n > 0 ? sizeof hash : 0),
        .local = c->local,
        .uid = c->uid,
        .address = cs_slice_str(c->address),
        .body = cs_slice_head(cs_slice_from(cs_stream_peek(&c->stream), head_n), (size_t)r->body_n),
    };
    return call_control(c, &msg, used);
}

/* Makes sure that the body is there too. False: answered or lost, and to be closed. */
static bool read_body(struct cs_front_conn *c, struct cs_http_request *r, size_t head_n)
{
    struct cs_http_refusal why;
    if (r->body_n == 0) {
        return true;
    }
    size_t all = head_n + (size_t)r->body_n;
    if (cs_stream_peek(&c->stream).n < all) {
        if (r->expect_continue && !write_all(c, CS_SLICE_LIT("HTTP/1.1 100 Continue\r\n\r\n"))) {
            return false;
        }
        enum cs_err err = cs_stream_need(&c->stream, all, after_ms(c, c->front->times.head_ms * 3));
        if (err == CS_ERR_TIMEOUT) {
            return refuse_early(c, 408, "the body did not come in time");
        }
        if (err != CS_OK) {
            return false;
        }
    }
    /* Others used the scratch while we waited, and the buffer may have moved: look again. */
    return cs_http_request_parse(cs_slice_head(cs_stream_peek(&c->stream), head_n), r, &why);
}

static bool handle(struct cs_front_conn *c, size_t head_n)
{
    struct cs_http_request *r = &c->front->request;
    struct cs_http_refusal why;
    unsigned status;
    c->keep = false;
    if (!cs_http_request_parse(cs_slice_head(cs_stream_peek(&c->stream), head_n), r, &why)) {
        return refuse_early(c, why.status, why.why);
    }
    const char *against = objection(c, r, head_n, &status);
    if (against != NULL) {
        /* Its body may still be on the way: what follows could be taken for a request. */
        return refuse_early(c, status, against);
    }
    if (!read_body(c, r, head_n)) {
        return false;
    }
    c->keep = r->keep_alive && !c->front->draining.set;
    return answer(c, r, head_n);
}

/* ---- reading heads ---- */
/* Between requests: for the first byte of the next one. */
static bool wait_idle(struct cs_front_conn *c)
{
    struct cs_front *f = c->front;
    uint64_t ms = c->served == 0 ? f->times.head_ms : f->times.idle_ms;
    uint64_t deadline = after_ms(c, ms);
    while (cs_stream_peek(&c->stream).n == 0) {
        struct cs_wait set[2] = {cs_stream_wait_read(&c->stream),
                                 CS_WAIT_ON(CS_WAIT_EVENT, &f->draining)};
        if (cs_wait(set, 2, deadline) != CS_WOKE_READY || f->draining.set) {
            return false;
        }
        enum cs_io io = cs_stream_fill(&c->stream);
        if (io != CS_IO_OK && io != CS_IO_AGAIN) {
            return false;
        }
    }
    return true;
}

static bool serve_one(struct cs_front_conn *c)
{
    struct cs_http_refusal why;
    size_t at = 0, head_n = 0;
    if (!wait_idle(c)) {
        return false;
    }
    /* SECURITY: one deadline for the whole head: a byte now and then does not hold a slot. */
    uint64_t deadline = after_ms(c, c->front->times.head_ms);
    for (;;) {
        struct cs_slice in = cs_stream_peek(&c->stream);
        enum cs_http got = cs_http_scan(in, CS_LIMIT_HTTP_HEAD_BYTES, &at, &head_n, &why);
        if (got == CS_HTTP_OK) {
            break;
        }
        enum cs_err err = CS_OK;
        if (got == CS_HTTP_NEED) {
            err = cs_stream_need(&c->stream, in.n + 1, deadline);
            why = (struct cs_http_refusal){408, "the request did not come in time"};
        }
        if (got == CS_HTTP_BAD || err == CS_ERR_TIMEOUT) {
            return refuse_early(c, why.status, why.why);
        }
        if (err != CS_OK) {
            return false;
        }
    }
    c->served++;
    return handle(c, head_n) && c->keep;
}

static bool start(struct cs_front_conn *c)
{
    char why[160];
    struct cs_tls_ctx *tls = c->metrics ? c->config->metrics_tls : c->config->tls;
    if (c->local || tls == NULL) {
        return true;
    }
    enum cs_err err =
        cs_tls_accept(&c->stream, tls, after_ms(c, c->front->times.head_ms), why, sizeof why);
    if (err == CS_ERR_TLS) {
        cs_log(CS_EV_SESSION_REFUSED, NULL, "address=%s why=%s", c->address,
               cs_log_quote(cs_slice_str(why)).text);
    }
    return err == CS_OK;
}

void cs_front_conn_main(void *arg)
{
    struct cs_front_conn *c = arg;
    struct cs_front *f = c->front;
    if (cs_front_know_address(c) && start(c)) {
        cs_co_trim();
        while (serve_one(c)) {
        }
    }
    cs_front_call_end(c->call);
    cs_front_conn_gone(c);
    if (f->conns == NULL) {
        cs_event_set(&f->empty);
    }
}
