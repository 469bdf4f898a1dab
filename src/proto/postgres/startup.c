/* The client's first bytes, up to a session that is open: negotiation of encryption, the startup
 * packet with its white-list, SCRAM (control checks the proof), our login at the target, and then
 * pg_relay(). Anything that is not exactly as expected closes. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/writer.h"
#include "crypto/scram.h"
#include "crypto/tls.h"
#include "proto/postgres/postgres.h"
#include "proto/postgres/postgres_internal.h"

#include <stdio.h>

/* ---- the startup packet ---- */

struct reading {
    struct pg_startup *st;
    char why[200];
    const char *sqlstate;
    bool later_minor; /* a _pq_ option was asked for */
};

static bool refuse_key(struct reading *r, struct cs_slice key, const char *what)
{
    (void)snprintf(r->why, sizeof r->why,
                   "Countersign does not accept the startup parameter %.60s: %.80s",
                   cs_log_quote(cs_slice_head(key, 40)).text, what);
    r->sqlstate = "42501";
    return false;
}

static bool keep(struct reading *r, struct cs_slice key, struct cs_slice value, char *out, size_t n)
{
    if (value.n >= n || !cs_utf8_valid(value)) {
        return refuse_key(r, key, "its value is too long or not UTF-8");
    }
    (void)snprintf(out, n, "%.*s", CS_SLICE_FMT(value));
    return true;
}

static bool key_encoding(struct reading *r, struct cs_slice key, struct cs_slice value)
{
    /* The session's encoding is always UTF8 (a byte lexer and the server would disagree about SJIS
     * and its kind). SQL_ASCII is what libpq derives from the C locale: it means "no opinion". The
     * server compares letters and digits only; asyncpg sends 'utf-8', with the quotes. */
    static const char *const fine[] = {"utf8", "unicode", "sqlascii"};
    char name[16];
    size_t n = 0;
    for (size_t i = 0; i < value.n && n < sizeof name; i++) {
        uint8_t c = value.p[i];
        if (c >= 0x80) {
            return refuse_key(r, key, "only UTF8 is possible");
        }
        if ((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z')) {
            name[n++] = (char)c;
        }
    }
    for (size_t i = 0; n < sizeof name && i < CS_ARRAY_LEN(fine); i++) {
        if (cs_slice_eq_nocase(cs_slice(name, n), cs_slice_str(fine[i]))) {
            return true;
        }
    }
    return refuse_key(r, key, "only UTF8 is possible");
}

static bool key_mode(struct reading *r, struct cs_slice key, struct cs_slice value)
{
    r->st->async = cs_slice_eq_str(value, "async");
    return r->st->async || cs_slice_eq_str(value, "wait") ||
           refuse_key(r, key, "it is wait or async");
}

/* What the session has anyway, and drivers like to say (pgjdbc's currentSchema). */
static bool key_pinned(struct reading *r, struct cs_slice key, struct cs_slice value)
{
    static const struct {
        const char *key, *value;
    } pinned[] = {{"search_path", "public"}, {"standard_conforming_strings", "on"}};
    for (size_t i = 0; i < CS_ARRAY_LEN(pinned); i++) {
        if (cs_slice_eq_nocase(key, cs_slice_str(pinned[i].key))) {
            char what[64];
            (void)snprintf(what, sizeof what, "it is always %s here", pinned[i].value);
            return cs_slice_eq_str(value, pinned[i].value) || refuse_key(r, key, what);
        }
    }
    return refuse_key(r, key, "it is not on the white-list");
}

/* As the server reads it (backend_startup.c there): a boolean, or "database". */
static bool key_replication(struct reading *r, struct cs_slice key, struct cs_slice value)
{
    static const struct {
        const char *value;
        enum pg_replication is;
    } values[] = {{"false", PG_REPLICATION_NONE},      {"off", PG_REPLICATION_NONE},
                  {"no", PG_REPLICATION_NONE},         {"0", PG_REPLICATION_NONE},
                  {"true", PG_REPLICATION_PHYSICAL},   {"on", PG_REPLICATION_PHYSICAL},
                  {"yes", PG_REPLICATION_PHYSICAL},    {"1", PG_REPLICATION_PHYSICAL},
                  {"database", PG_REPLICATION_LOGICAL}};
    for (size_t i = 0; i < CS_ARRAY_LEN(values); i++) {
        if (cs_slice_eq_str(value, values[i].value)) {
            r->st->replication = values[i].is;
            return true;
        }
    }
    return refuse_key(r, key, "it is on, off or database");
}

static bool one_key(struct cs_slice key, struct cs_slice value, void *arg);

static bool key_options(struct reading *r, struct cs_slice value)
{
    size_t at = 0;
    for (;;) {
        struct cs_slice k = CS_SLICE_NULL, v = CS_SLICE_NULL;
        int got = pg_options_next(value, &at, r->st->option, sizeof r->st->option, &k, &v);
        if (got == 0) {
            return true;
        }
        if (got < 0 || cs_slice_eq_str(k, "options") || cs_slice_eq_str(k, "user") ||
            cs_slice_eq_str(k, "database") || cs_slice_eq_str(k, "replication")) {
            return refuse_key(r, CS_SLICE_LIT("options"), "only -c name=value");
        }
        if (!one_key(k, v, r)) {
            return false;
        }
    }
}

static bool one_key(struct cs_slice key, struct cs_slice value, void *arg)
{
    struct reading *r = arg;
    struct pg_startup *st = r->st;
    struct {
        const char *key;
        char *out;
        size_t n;
    } const texts[] = {
        {"user", st->user, sizeof st->user},
        {"database", st->database, sizeof st->database},
        {"DateStyle", st->pins.date_style, sizeof st->pins.date_style},
        {"IntervalStyle", st->pins.interval_style, sizeof st->pins.interval_style},
        {"TimeZone", st->pins.time_zone, sizeof st->pins.time_zone},
        {"extra_float_digits", st->extra_float_digits, sizeof st->extra_float_digits},
        {"statement_timeout", st->statement_timeout, sizeof st->statement_timeout},
        {"lock_timeout", st->lock_timeout, sizeof st->lock_timeout},
        {"idle_in_transaction_session_timeout", st->idle_in_transaction,
         sizeof st->idle_in_transaction},
        {"default_transaction_isolation", st->isolation, sizeof st->isolation},
        {"jit", st->jit, sizeof st->jit},
        {"countersign.reason", st->reason, sizeof st->reason},
        {"countersign.target", st->target, sizeof st->target},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(texts); i++) {
        if (cs_slice_eq_nocase(key, cs_slice_str(texts[i].key))) {
            return keep(r, key, value, texts[i].out, texts[i].n);
        }
    }
    if (cs_slice_eq_str(key, "application_name")) {
        value = cs_slice_head(value, sizeof st->application - 1);
        return keep(r, key, cs_utf8_valid(value) ? value : CS_SLICE_NULL, st->application,
                    sizeof st->application);
    }
    if (cs_slice_eq_str(key, "client_encoding")) {
        return key_encoding(r, key, value);
    }
    if (cs_slice_eq_str(key, "countersign.mode")) {
        return key_mode(r, key, value);
    }
    if (cs_slice_eq_str(key, "options")) {
        return key_options(r, value);
    }
    if (cs_slice_starts(key, CS_SLICE_LIT("_pq_."))) {
        r->later_minor = true;
        return true; /* not understood, and said so in NegotiateProtocolVersion */
    }
    if (cs_slice_eq_str(key, "replication")) {
        return key_replication(r, key, value);
    }
    if (cs_slice_eq_nocase(key, CS_SLICE_LIT("default_transaction_read_only"))) {
        /* SECURITY: as SET: only on. Off would undo what ALTER ROLE … SET protects. */
        return cs_slice_eq_str(value, "on")
                   ? keep(r, key, value, st->read_only, sizeof st->read_only)
                   : refuse_key(r, key, "it may only be on");
    }
    return key_pinned(r, key, value);
}

static bool negotiate_version(struct pg *p)
{
    struct cs_buf b = cs_buf(256);
    size_t at = pg_begin(&b, 'v');
    pg_put_u32(&b, PG_PROTOCOL_3_0);
    pg_put_u32(&b, 0);
    pg_finish(&b, at);
    bool ok = !b.bad && pg_to_client(p, cs_buf_slice(&b));
    cs_buf_done(&b);
    return ok;
}

static bool startup_packet(struct pg *p, uint32_t len, uint32_t protocol, uint64_t deadline,
                           struct pg_startup *ret)
{
    struct cs_stream *c = &p->s->client;
    struct reading r = {.st = ret, .why = "malformed startup packet", .sqlstate = "08P01"};
    if (len > CS_LIMIT_PG_STARTUP_BYTES || cs_stream_need(c, len, deadline) != CS_OK) {
        return false;
    }
    struct cs_slice body = cs_slice_from(cs_slice_head(cs_stream_peek(c), len), 8);
    bool ok = pg_parse_startup(body, one_key, &r);
    cs_stream_consume(c, len);
    if (!ok) {
        pg_fatal(p, r.sqlstate, r.why);
        return false;
    }
    if (ret->user[0] == 0) {
        pg_fatal(p, "28000", "no user name in the startup packet");
        return false;
    }
    if (ret->target[0] != 0) { /* pg_basebackup and its kind always name a database "replication" */
        (void)snprintf(ret->database, sizeof ret->database, "%s", ret->target);
    }
    if (ret->database[0] == 0) {
        (void)snprintf(ret->database, sizeof ret->database, "%s", ret->user);
    }
    p->replication = ret->replication;
    if ((protocol & 0xffff) != 0 || r.later_minor) {
        return negotiate_version(p);
    }
    return true;
}

/* ---- negotiation ---- */

/* SECURITY: while control is away no certificate is asked for: so nobody has one, and everybody
 * must log in otherwise; a cancel needs no log-in and gets through. */
static bool start_tls(struct pg *p, uint64_t deadline)
{
    char why[160] = "";
    uint8_t nonce[CS_CLIENT_NONCE];
    struct cs_tls_ctx *ctx = cs_gate_listener_tls(p->s);
    bool asks = cs_tls_asks(ctx) && cs_gate_auth_ask(p->s, &p->handshake, nonce) == CS_OK;
    /* It may have been waited: the configuration, and the context with it, may be others now. */
    ctx = cs_gate_listener_tls(p->s);
    enum cs_err e = ctx == NULL ? CS_ERR_UNAVAILABLE
                    : asks && cs_tls_asks(ctx)
                        ? cs_tls_accept_asking(&p->s->client, ctx, nonce, deadline, why, sizeof why)
                        : cs_tls_accept(&p->s->client, ctx, deadline, why, sizeof why);
    if (e != CS_OK) {
        cs_log(CS_EV_SESSION_REFUSED, NULL, "address=%s tls=%s", p->s->address,
               cs_log_quote(cs_slice_str(why)).text);
    }
    return e == CS_OK;
}

/* SSLRequest or GSSENCRequest: eight bytes, nothing behind them. Bytes that are already there would
 * be plaintext read as if it had come through the tunnel (CVE-2021-23214). */
static bool encryption_request(struct pg *p, bool ssl, uint64_t deadline)
{
    struct cs_stream *c = &p->s->client;
    cs_stream_consume(c, 8);
    if (cs_stream_peek(c).n > 0) {
        cs_log(CS_EV_PROTOCOL_ERROR, NULL, "address=%s bytes before the TLS handshake",
               p->s->address);
        return false;
    }
    bool yes = ssl && cs_gate_listener_tls(p->s) != NULL;
    if (!pg_to_client(p, yes ? CS_SLICE_LIT("S") : CS_SLICE_LIT("N")) ||
        cs_stream_drain(c, deadline) != CS_OK) {
        return false;
    }
    return !yes || start_tls(p, deadline);
}

static bool cancel_packet(struct pg *p, uint32_t len, uint64_t deadline)
{
    struct cs_stream *c = &p->s->client;
    if (len == 16 && cs_stream_need(c, 16, deadline) == CS_OK) {
        struct cs_slice key = cs_slice_head(cs_slice_from(cs_stream_peek(c), 8), 8);
        cs_gate_cancel_route(p->s, key);
    }
    return false; /* never answered, always closed */
}

bool pg_greet(struct pg *p, struct pg_startup *ret)
{
    struct cs_stream *c = &p->s->client;
    uint64_t deadline = cs_mono_ns() + CS_LIMIT_PREAUTH_S * CS_NS_PER_S;
    bool ssl_asked = false, gss_asked = false;
    memset(ret, 0, sizeof *ret);
    for (int round = 0; round < 4; round++) {
        if (cs_stream_need(c, 1, deadline) != CS_OK) {
            return false;
        }
        if (cs_stream_peek(c).p[0] == 0x16) { /* direct TLS (sslnegotiation=direct) */
            /* SECURITY: a client of another protocol that was sent here has not said "postgresql",
             * and its bytes must not be taken for ours (ALPACA). */
            if (ssl_asked || cs_gate_listener_tls(p->s) == NULL || !start_tls(p, deadline) ||
                !cs_tls_alpn_agreed(c)) {
                return false;
            }
            ssl_asked = true;
            continue;
        }
        if (cs_stream_need(c, 8, deadline) != CS_OK) {
            return false;
        }
        struct cs_reader r = cs_reader(cs_stream_peek(c));
        uint32_t len = cs_reader_u32(&r), code = cs_reader_u32(&r);
        bool ssl = code == PG_SSL_REQUEST;
        if (ssl || code == PG_GSSENC_REQUEST) {
            bool *asked = ssl ? &ssl_asked : &gss_asked;
            if (*asked || len != 8 || !encryption_request(p, ssl, deadline)) {
                return false;
            }
            *asked = true;
            continue;
        }
        if (code == PG_CANCEL_REQUEST) {
            return cancel_packet(p, len, deadline);
        }
        if (code >> 16 != 3 || len < 9) {
            pg_fatal(p, "08P01", "unsupported frontend protocol");
            return false;
        }
        if (cs_gate_listener_tls(p->s) != NULL && !cs_tls_on(c)) {
            pg_fatal(p, "28000",
                     "this gateway requires TLS: connect with sslmode=require or better");
            return false;
        }
        return startup_packet(p, len, code, deadline, ret);
    }
    return false;
}

/* ---- authentication ---- */

static bool auth_request(struct pg *p, uint32_t kind, struct cs_slice data)
{
    struct cs_buf b = cs_buf(4096);
    size_t at = pg_begin(&b, 'R');
    pg_put_u32(&b, kind);
    cs_buf_add(&b, data);
    pg_finish(&b, at);
    bool ok = !b.bad && pg_to_client(p, cs_buf_slice(&b));
    cs_buf_done(&b);
    return ok;
}

/* The next 'p' message, copied into the session's arena: it is needed again for the proof. */
static bool password_message(struct pg *p, uint64_t deadline, struct cs_slice *ret)
{
    struct cs_stream *c = &p->s->client;
    if (cs_stream_need(c, 5, deadline) != CS_OK) {
        return false;
    }
    struct cs_reader r = cs_reader(cs_stream_peek(c));
    uint8_t type = cs_reader_u8(&r);
    uint32_t len = cs_reader_u32(&r);
    if (type != 'p' || len < 4 || len > CS_LIMIT_SCRAM_MESSAGE_BYTES ||
        cs_stream_need(c, len + 1, deadline) != CS_OK) {
        return false;
    }
    struct cs_slice body = cs_slice_from(cs_slice_head(cs_stream_peek(c), len + 1), 5);
    *ret = cs_arena_dup(&p->s->arena, body);
    cs_stream_consume(c, len + 1);
    return ret->p != NULL;
}

static bool first_message(struct pg *p, uint64_t deadline, struct cs_scram_client_first *ret)
{
    const struct cs_slice offer = CS_SLICE_LIT("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0");
    const size_t plain = 19; /* where the offer without the first begins */
    uint8_t end_point[CS_END_POINT_MAX];
    struct cs_slice body;
    bool can = cs_tls_server_end_point(&p->s->client, end_point) > 0;
    if (!auth_request(p, 10, cs_slice_from(cs_slice(offer.p, offer.n + 1), can ? 0 : plain)) ||
        !password_message(p, deadline, &body)) {
        return false;
    }
    struct cs_reader r = cs_reader(body);
    struct cs_slice mechanism = cs_reader_cstr(&r);
    uint32_t n = cs_reader_u32(&r);
    struct cs_slice data = cs_reader_take(&r, n);
    bool plus = can && cs_slice_eq_str(mechanism, "SCRAM-SHA-256-PLUS");
    if (!cs_reader_done(&r) || !(plus || cs_slice_eq_str(mechanism, "SCRAM-SHA-256")) ||
        !cs_scram_parse_client_first(data, ret) || (ret->binding == 'p') != plus ||
        (plus && !cs_slice_eq_str(ret->binding_name, "tls-server-end-point"))) {
        pg_fatal(p, "08P01", "malformed SCRAM message");
        return false;
    }
    return true;
}

static bool send_server_first(struct pg *p, const struct cs_auth *auth)
{
    char salt[128], text[512];
    size_t n = cs_base64_encode(cs_slice(auth->salt, auth->salt_n), false, salt);
    int len = snprintf(text, sizeof text, "r=%s,s=%.*s,i=%u", auth->nonce, (int)n, salt,
                       auth->iterations);
    return len > 0 && (size_t)len < sizeof text && auth_request(p, 11, cs_slice(text, (size_t)len));
}

static void auth_failed(struct pg *p, const struct pg_startup *st, enum cs_err e)
{
    char why[200];
    if (e == CS_ERR_UNAUTHENTICATED) {
        (void)snprintf(why, sizeof why, "password authentication failed for user \"%.60s\"",
                       st->user);
        cs_log(CS_EV_AUTH_FAILED, NULL, "user=%s address=%s",
               cs_log_quote(cs_slice_str(st->user)).text, p->s->address);
        pg_fatal(p, "28P01", why);
    } else if (e == CS_ERR_NOT_FOUND) {
        (void)snprintf(why, sizeof why, "target \"%.60s\" does not exist", st->database);
        pg_fatal(p, "3D000", why);
    } else if (e == CS_ERR_PROTOCOL) { /* control found the messages not to belong together */
        pg_fatal(p, "08P01", "malformed SCRAM message");
    } else {
        (void)snprintf(why, sizeof why, "the gateway cannot authenticate anybody now (%s)",
                       cs_err_name(e));
        pg_fatal(p, "57P03", why);
    }
}

static bool authenticate_scram(struct pg *p, const struct pg_startup *st, uint64_t deadline)
{
    struct cs_scram_client_first first;
    struct cs_scram_client_final final;
    struct cs_auth auth;
    struct cs_slice body;
    uint8_t signature[CS_SHA256];
    if (!first_message(p, deadline, &first)) {
        return false;
    }
    enum cs_err e = cs_gate_auth_start(p->s, cs_slice_str(st->user), cs_slice_str(st->database),
                                       first.nonce, &auth);
    if (e != CS_OK) {
        auth_failed(p, st, e);
        return false;
    }
    if (!send_server_first(p, &auth) || !password_message(p, deadline, &body)) {
        return false;
    }
    if (!cs_scram_parse_client_final(body, &final) || !cs_slice_eq_str(final.nonce, auth.nonce)) {
        pg_fatal(p, "08P01", "malformed SCRAM message");
        return false;
    }
    e = cs_gate_auth_finish(p->s, &auth, first.bare, first.gs2_header, final.channel_binding,
                            final.proof, signature);
    if (e != CS_OK) {
        auth_failed(p, st, e);
        return false;
    }
    char text[64] = "v=";
    size_t n = cs_base64_encode(cs_slice(signature, sizeof signature), false, text + 2);
    return auth_request(p, 12, cs_slice(text, n + 2));
}

/* ---- a token as a password ---- */

static bool wants_token(const char *user)
{
    struct cs_slice u = cs_slice_str(user), suffix = CS_SLICE_LIT("+token");
    return cs_slice_eq_str(u, "token") ||
           (u.n >= suffix.n && cs_slice_eq(cs_slice_from(u, u.n - suffix.n), suffix));
}

/* The hash of a well-formed PasswordMessage's text; its bytes are wiped in any case. */
static bool token_message(struct pg *p, uint64_t deadline, uint8_t ret_sha256[static CS_SHA256])
{
    struct cs_stream *c = &p->s->client;
    if (cs_stream_need(c, 5, deadline) != CS_OK) {
        return false;
    }
    struct cs_reader r = cs_reader(cs_stream_peek(c));
    uint8_t type = cs_reader_u8(&r);
    uint32_t len = cs_reader_u32(&r);
    if (type != 'p' || len < 4 || len > CS_LIMIT_SCRAM_MESSAGE_BYTES ||
        cs_stream_need(c, len + 1, deadline) != CS_OK) {
        return false;
    }
    struct cs_slice body = cs_slice_from(cs_slice_head(cs_stream_peek(c), len + 1), 5);
    size_t n = cs_slice_find(body, 0);
    bool whole = n > 0 && n + 1 == body.n;
    if (whole) {
        cs_sha256(cs_slice_head(body, n), ret_sha256);
    }
    cs_stream_wipe(c, len + 1);
    if (!whole) {
        pg_fatal(p, "08P01", "malformed password message");
    }
    return whole;
}

/* SECURITY: the token itself crosses the wire, so the question is put inside TLS only. */
static bool authenticate_token(struct pg *p, const struct pg_startup *st, uint64_t deadline)
{
    uint8_t sha256[CS_SHA256];
    if (!cs_tls_on(&p->s->client)) {
        pg_fatal(p, "28000", "a token is asked for as a password inside TLS only");
        return false;
    }
    if (!auth_request(p, 3, CS_SLICE_NULL) || !token_message(p, deadline, sha256)) {
        return false;
    }
    enum cs_err e =
        cs_gate_auth_token(p->s, cs_slice_str(st->user), cs_slice_str(st->database), sha256);
    if (e != CS_OK) {
        auth_failed(p, st, e);
    }
    return e == CS_OK;
}

/* ---- a certificate ---- */

/* Who has shown one has logged in with it, or not at all: control decides whose it is. */
static bool authenticate_certificate(struct pg *p, const struct pg_startup *st)
{
    enum cs_err e = cs_gate_auth_certificate(p->s, cs_slice_str(st->user),
                                             cs_slice_str(st->database), p->handshake);
    if (e != CS_OK) {
        auth_failed(p, st, e);
    }
    return e == CS_OK;
}

bool pg_authenticate(struct pg *p, const struct pg_startup *st, uint64_t deadline)
{
    if (cs_tls_client_proof(&p->s->client).n > 0) {
        return authenticate_certificate(p, st);
    }
    return wants_token(st->user) ? authenticate_token(p, st, deadline)
                                 : authenticate_scram(p, st, deadline);
}

/* ---- the whole session ---- */

static bool send_greeting(struct pg *p, struct cs_buf *parameters)
{
    struct cs_buf b = cs_buf(64 * 1024);
    uint8_t key[8];
    size_t at = pg_begin(&b, 'R');
    pg_put_u32(&b, 0);
    pg_finish(&b, at);
    cs_buf_add(&b, cs_buf_slice(parameters));
    cs_gate_cancel_key(p->s, key);
    at = pg_begin(&b, 'K');
    cs_buf_add(&b, cs_slice(key, sizeof key));
    pg_finish(&b, at);
    pg_put_ready(&b, 'I');
    bool ok = !b.bad && !parameters->bad && pg_to_client(p, cs_buf_slice(&b));
    cs_buf_done(&b);
    return ok;
}

static const char *sqlstate_of(enum cs_err e)
{
    switch ((int)e) {
    case CS_ERR_NOT_FOUND:
        return "3D000";
    case CS_ERR_DENIED:
        return "28000";
    case CS_ERR_NO_SPACE:
        return "53100";
    case CS_ERR_UNAVAILABLE:
        return "57P03";
    default:
        return "08001";
    }
}

static bool open_session(struct pg *p, const struct pg_startup *st)
{
    char why[240] = "";
    struct cs_session *s = p->s;
    cs_session_set_state(s, CS_SESSION_CONNECTING);
    enum cs_err e = cs_gate_may_open(s, why, sizeof why);
    if (e != CS_OK) {
        cs_log(CS_EV_SESSION_REFUSED, &s->id, "why=%s", cs_log_quote(cs_slice_str(why)).text);
        pg_fatal(p, sqlstate_of(e), why);
        return false;
    }
    if (p->replication != PG_REPLICATION_NONE && !cs_gate_names(s, CS_NAMED_REPLICATION)) {
        pg_fatal(p, "42501",
                 "Countersign does not accept the startup parameter replication: no rule for this "
                 "target names a replication command");
        return false;
    }
    struct cs_buf parameters = cs_buf(32 * 1024);
    e = pg_login(p, st, false, NULL, &p->up, &parameters, why, sizeof why);
    if (e == CS_OK) {
        e = cs_gate_opened(s, cs_gate_database(s, false), cs_gate_role(s, false),
                           cs_slice_str(st->application));
        if (e != CS_OK) {
            (void)snprintf(why, sizeof why, "the session cannot be recorded, so it is not opened");
        }
    }
    bool ok = e == CS_OK && send_greeting(p, &parameters);
    cs_buf_done(&parameters);
    if (e != CS_OK) {
        cs_log(CS_EV_UPSTREAM_FAILED, &s->id, "why=%s", cs_log_quote(cs_slice_str(why)).text);
        /* NOT_FOUND is the address of a target that does exist here. */
        pg_fatal(p, e == CS_ERR_NOT_FOUND ? "08001" : sqlstate_of(e), why);
    }
    return ok;
}

/* The start of a session uses large structs; they must not stay on the stack of an idle one. */
static bool __attribute__((noinline)) begin(struct pg *p)
{
    struct pg_startup *st = cs_alloc(sizeof *st);
    bool ok = false;
    if (st != NULL) {
        cs_session_set_state(p->s, CS_SESSION_STARTUP);
        ok = pg_greet(p, st);
        if (ok) {
            cs_session_set_state(p->s, CS_SESSION_AUTH);
            ok = pg_authenticate(p, st, cs_mono_ns() + CS_LIMIT_PREAUTH_S * CS_NS_PER_S) &&
                 open_session(p, st);
            p->s->async = st->async;
            if (ok && st->reason[0] != 0) { /* out of memory: no reason is shown */
                p->reason_at_start =
                    (const char *)cs_arena_printf(&p->s->arena, "%s", st->reason).p;
                p->s->claimed = p->reason_at_start;
            }
        }
        cs_free(st);
    }
    return ok;
}

static void serve(struct cs_session *s)
{
    struct pg *p = s->proto;
    p->s = s;
    p->up.stream.fd.fd = -1;
    p->up.tx = 'I';
    p->ran = cs_buf(CS_LIMIT_HELD_BYTES);
    p->big = cs_buf(CS_LIMIT_PG_QUERY_BYTES + 8);
    if (begin(p)) {
        cs_session_set_state(s, CS_SESSION_READY);
        cs_co_trim();
        pg_relay(p);
    }
    if (cs_stream_drain(&s->client, cs_mono_ns() + CS_NS_PER_S) != CS_OK) {
        cs_log(CS_EV_DEBUG, &s->id, "the last bytes did not reach the client");
    }
    pg_elevated_end(p);
    pg_upstream_close(&p->up, true);
    pg_copy_free(p);
    pg_replies_done(p);
    pg_names_done(p);
    cs_buf_done(&p->ran);
    cs_buf_done(&p->shown);
    cs_answer_done(&p->answer);
    cs_buf_done(&p->big);
    s->claimed = NULL;
    cs_free(p->reason);
}

const struct cs_protocol cs_proto_postgres = {
    .name = "postgres",
    .alpn = "postgresql",
    .state_size = sizeof(struct pg),
    .serve = serve,
    .cancel = pg_cancel,
};
