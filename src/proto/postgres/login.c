/* Logging in at a target: TLS, startup packet, SCRAM whose proof somebody else computes. Called by
 * upstream.c for a gate's session and by the probe role for its tasks; knows neither. The target is
 * as untrusted as a client: every length and every sequence is checked. It never sees a secret. */
#include "proto/postgres/login.h"

#include "base/id.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/time.h"
#include "crypto/scram.h"
#include "crypto/tls.h"
#include "proto/postgres/message.h"

#include <stdio.h>

enum { LOGIN_MESSAGES = 256 }; /* PostgreSQL sends about 20 */
/* "p=tls-server-end-point,," and a hash, in base 64. */
enum { BOUND_RAW = 24 + CS_END_POINT_MAX, BOUND_MAX = (BOUND_RAW + 2) / 3 * 4 };

struct login {
    const struct pg_login_with *with;
    struct cs_stream *stream;
    struct pg_login_key *key;
    char *why;
    size_t why_size;
    char nonce[32];
    char client_first_bare[48];
    const char *mechanism;
    const char *gs2_header;    /* "n,,", "y,,", "p=tls-server-end-point,," */
    char bound[BOUND_MAX + 1]; /* what it is bound to: c= of the last message */
    uint8_t server_signature[CS_SHA256];
    bool asked, proved, verified; /* of SCRAM; asked: by any way, and never again */
    bool answered;                /* by a weaker way, which the configuration permits */
    bool welcome;                 /* the server has said AuthenticationOk */
};

static enum cs_err fail(struct login *l, enum cs_err e, const char *text)
{
    (void)snprintf(l->why, l->why_size, "target \"%.*s\": %s",
                   CS_SLICE_FMT(cs_slice_head(l->with->target, 60)), text);
    return e;
}

static enum cs_err send_all(struct login *l, struct cs_buf *b)
{
    enum cs_err e =
        b->bad ? CS_ERR_NO_MEMORY : cs_stream_write(l->stream, cs_buf_slice(b), l->with->deadline);
    cs_buf_done(b);
    if (e == CS_OK) {
        e = cs_stream_drain(l->stream, l->with->deadline);
    }
    return e == CS_OK ? CS_OK : fail(l, e, "the connection broke during login");
}

static enum cs_err target_tls(struct login *l)
{
    char why[160] = "";
    if (l->with->plain) {
        return CS_OK;
    }
    if (l->with->tls == NULL) { /* SECURITY: what cannot be encrypted is not sent */
        return fail(l, CS_ERR_TLS, "TLS towards it cannot be set up");
    }
    struct cs_buf b = cs_buf(16);
    pg_put_u32(&b, 8);
    pg_put_u32(&b, PG_SSL_REQUEST);
    enum cs_err e = send_all(l, &b);
    if (e == CS_OK && cs_stream_need(l->stream, 1, l->with->deadline) != CS_OK) {
        e = fail(l, CS_ERR_EOF, "it closed the connection when asked for TLS");
    }
    if (e != CS_OK) {
        return e;
    }
    struct cs_slice got = cs_stream_peek(l->stream);
    bool yes = got.n == 1 && got.p[0] == 'S';
    if (!yes) { /* 'N', an error message, or bytes injected behind the 'S' (CVE-2021-23222) */
        return fail(l, CS_ERR_TLS, "it does not speak TLS, which the configuration demands");
    }
    cs_stream_consume(l->stream, 1);
    e = cs_tls_connect(l->stream, l->with->tls, l->with->host, l->with->deadline, why, sizeof why);
    return e == CS_OK ? CS_OK : fail(l, e, why);
}

static void put_pair(struct cs_buf *b, const char *key, const char *value)
{
    if (value[0] != 0) {
        pg_put_cstr(b, cs_slice_str(key));
        pg_put_cstr(b, cs_slice_str(value));
    }
}

/* ALTER ROLE or DATABASE … SET at the target cannot override what the startup packet sets. */
static enum cs_err send_startup(struct login *l)
{
    struct cs_buf b = cs_buf(4096);
    pg_put_u32(&b, 0);
    pg_put_u32(&b, PG_PROTOCOL_3_0);
    put_pair(&b, "user", l->with->user);
    pg_put_cstr(&b, CS_SLICE_LIT("database"));
    pg_put_cstr(&b, l->with->database);
    put_pair(&b, "client_encoding", "UTF8");
    put_pair(&b, "standard_conforming_strings", "on");
    for (size_t i = 0; i < l->with->n_settings; i++) {
        put_pair(&b, l->with->settings[i].name, l->with->settings[i].value);
    }
    cs_buf_u8(&b, 0);
    if (!b.bad) {
        b.p[2] = (uint8_t)(b.len >> 8);
        b.p[3] = (uint8_t)b.len;
    }
    return send_all(l, &b);
}

/* ---- authentication ---- */

struct offer {
    bool scram, plus;
};

static bool read_offer(struct cs_reader *r, struct offer *ret)
{
    *ret = (struct offer){false, false};
    for (;;) {
        struct cs_slice m = cs_reader_cstr(r);
        if (r->bad || m.n == 0) {
            return !r->bad;
        }
        ret->scram = ret->scram || cs_slice_eq_str(m, "SCRAM-SHA-256");
        ret->plus = ret->plus || cs_slice_eq_str(m, "SCRAM-SHA-256-PLUS");
    }
}

static enum cs_err no_plus(struct login *l, const struct offer *offer)
{
    return fail(l, CS_ERR_UPSTREAM_AUTH,
                offer->plus ? "its certificate has no hash for channel binding, which the "
                              "configuration demands"
                            : "it does not offer channel binding (SCRAM-SHA-256-PLUS), which the "
                              "configuration demands");
}

/* Which mechanism, and what it is bound to. Keeper checks the choice: it knows the target's word
 * and makes no proof that goes below it, whatever this process says. */
static enum cs_err choose(struct login *l, const struct offer *offer)
{
    uint8_t raw[BOUND_RAW], hash[CS_END_POINT_MAX];
    size_t hash_n = cs_tls_server_end_point(l->stream, hash);
    bool can = l->with->binding != CS_BINDING_DISABLE && hash_n > 0;
    if (can && offer->plus) {
        l->mechanism = "SCRAM-SHA-256-PLUS";
        l->gs2_header = "p=tls-server-end-point,,";
    } else if (l->with->binding == CS_BINDING_REQUIRE) {
        return no_plus(l, offer);
    } else if (!offer->scram) {
        return fail(l, CS_ERR_UPSTREAM_AUTH, "it does not offer SCRAM-SHA-256");
    } else {
        /* SECURITY: "y" says that we could have bound it: a server that could too then sees that
         * somebody in between has taken its offer away, and refuses. */
        l->mechanism = "SCRAM-SHA-256";
        l->gs2_header = can ? "y,," : "n,,";
        hash_n = 0;
    }
    size_t head = strlen(l->gs2_header);
    memcpy(raw, l->gs2_header, head);
    memcpy(raw + head, hash, hash_n);
    l->bound[cs_base64_encode(cs_slice(raw, head + hash_n), false, l->bound)] = 0;
    return CS_OK;
}

static enum cs_err sasl_start(struct login *l, struct cs_reader *r)
{
    uint8_t raw[CS_SCRAM_NONCE_RAW];
    struct offer offer;
    if (l->asked || !read_offer(r, &offer)) {
        return fail(l, CS_ERR_UPSTREAM_AUTH, "it does not offer SCRAM-SHA-256");
    }
    enum cs_err e = choose(l, &offer);
    if (e != CS_OK) {
        return e;
    }
    l->asked = true;
    cs_random(raw, sizeof raw);
    size_t n = cs_base64_encode(cs_slice(raw, sizeof raw), false, l->nonce);
    l->nonce[n] = 0;
    (void)snprintf(l->client_first_bare, sizeof l->client_first_bare, "n=,r=%s", l->nonce);
    struct cs_buf b = cs_buf(512);
    size_t at = pg_begin(&b, 'p');
    pg_put_cstr(&b, cs_slice_str(l->mechanism));
    pg_put_u32(&b, (uint32_t)(strlen(l->gs2_header) + strlen(l->client_first_bare)));
    cs_buf_str(&b, l->gs2_header);
    cs_buf_str(&b, l->client_first_bare);
    pg_finish(&b, at);
    return send_all(l, &b);
}

static enum cs_err sasl_continue(struct login *l, struct cs_slice server_first)
{
    struct cs_scram_server_first sf;
    uint8_t proof[CS_SHA256];
    char final[CS_SCRAM_NONCE_MAX + BOUND_MAX + 16], proof64[64], why[160] = "";
    if (!l->asked || l->proved ||
        !cs_scram_parse_server_first(server_first, cs_slice_str(l->nonce), &sf) ||
        sf.nonce.n > CS_SCRAM_NONCE_MAX) {
        return fail(l, CS_ERR_UPSTREAM_AUTH, "its SCRAM message is malformed or out of bounds");
    }
    l->proved = true;
    int n = snprintf(final, sizeof final, "c=%s,r=%.*s", l->bound, CS_SLICE_FMT(sf.nonce));
    if (n < 0 || (size_t)n >= sizeof final) {
        return fail(l, CS_ERR_UPSTREAM_AUTH, "its nonce is too long");
    }
    enum cs_err e =
        l->with->prove(l->with->arg, l->mechanism, cs_slice_str(l->client_first_bare), server_first,
                       cs_slice(final, (size_t)n), proof, l->server_signature, why, sizeof why);
    if (e != CS_OK) {
        return fail(l, e, why);
    }
    size_t n64 = cs_base64_encode(cs_slice(proof, sizeof proof), false, proof64);
    struct cs_buf b = cs_buf(1024);
    size_t at = pg_begin(&b, 'p');
    cs_buf_add(&b, cs_slice(final, (size_t)n));
    cs_buf_str(&b, ",p=");
    cs_buf_add(&b, cs_slice(proof64, n64));
    pg_finish(&b, at);
    return send_all(l, &b);
}

static enum cs_err sasl_final(struct login *l, struct cs_slice text)
{
    uint8_t got[CS_SHA256];
    if (!l->proved || !cs_scram_parse_server_final(text, got) ||
        !cs_slice_eq_secret(cs_slice(got, sizeof got),
                            cs_slice(l->server_signature, sizeof l->server_signature))) {
        return fail(l, CS_ERR_UPSTREAM_AUTH, "it could not prove that it knows the credential");
    }
    l->verified = true;
    return CS_OK;
}

/* ---- weaker ways, where the configuration says so ---- */

/* What came is sealed to the key of this log-in. */
static enum cs_err send_answer(struct login *l, const uint8_t private[static CS_X25519],
                               struct cs_slice box)
{
    uint8_t plain[CS_LIMIT_CLEARTEXT_BYTES + 1];
    if (box.n <= CS_SEAL_TO_OVERHEAD || box.n - CS_SEAL_TO_OVERHEAD > CS_LIMIT_CLEARTEXT_BYTES ||
        cs_unseal_to(private, CS_SLICE_LIT(CS_LOGIN_ANSWER), box, plain) != CS_OK) {
        return fail(l, CS_ERR_PROTOCOL, "the answer that it wants cannot be read");
    }
    size_t n = box.n - CS_SEAL_TO_OVERHEAD;
    struct cs_buf b = cs_buf(CS_LIMIT_CLEARTEXT_BYTES + 16);
    size_t at = pg_begin(&b, 'p');
    pg_put_cstr(&b, cs_slice(plain, n));
    pg_finish(&b, at);
    cs_wipe(plain, sizeof plain);
    enum cs_err e =
        b.bad ? CS_ERR_NO_MEMORY : cs_stream_write(l->stream, cs_buf_slice(&b), l->with->deadline);
    if (b.p != NULL) {
        cs_wipe(b.p, b.len);
    }
    cs_buf_done(&b);
    e = e == CS_OK ? cs_stream_drain(l->stream, l->with->deadline) : e;
    return e == CS_OK ? CS_OK : fail(l, e, "the connection broke during login");
}

static enum cs_err way_refused(struct login *l, enum cs_way way)
{
    char why[200];
    const char *what = way == CS_WAY_MD5 ? "an MD5 password" : "the password in clear";
    if (l->with->elevated) {
        (void)snprintf(why, sizeof why,
                       "it asks for %s, but an elevated credential is proved by SCRAM-SHA-256 only",
                       what);
    } else {
        (void)snprintf(why, sizeof why,
                       "it asks for %s instead of SCRAM-SHA-256, which is refused unless the "
                       "target's credential says \"authentication: %s\"",
                       what, cs_way_name(way));
    }
    return fail(l, CS_ERR_UPSTREAM_AUTH, why);
}

static enum cs_err weaker(struct login *l, enum cs_way way, struct cs_slice salt)
{
    char why[200];
    uint8_t private[CS_X25519], reader[CS_X25519];
    /* SECURITY: also when SCRAM was begun, or an answer was given: who asks again, by whatever way,
     * is after something else. */
    if (l->asked) {
        return fail(l, CS_ERR_UPSTREAM_AUTH, "it asks for the credential a second time");
    }
    l->asked = true;
    if (way > l->with->way || l->with->plain) {
        return way_refused(l, way);
    }
    cs_random(private, sizeof private);
    struct cs_buf box = cs_buf(CS_LIMIT_CLEARTEXT_BYTES + CS_SEAL_TO_OVERHEAD);
    enum cs_err e = cs_x25519_public(private, reader);
    if (e == CS_OK) {
        e = l->with->answer(l->with->arg, way, cs_slice(reader, sizeof reader), salt, &box, why,
                            sizeof why);
        e = e != CS_OK ? fail(l, e, why) : send_answer(l, private, cs_buf_slice(&box));
    } else {
        e = fail(l, e, "no key can be made for its answer");
    }
    cs_wipe(private, sizeof private);
    cs_buf_done(&box);
    l->answered = e == CS_OK;
    return e;
}

static enum cs_err auth_message(struct login *l, struct cs_slice body)
{
    struct cs_reader r = cs_reader(body);
    uint32_t kind = cs_reader_u32(&r);
    if (r.bad || l->welcome) {
        return fail(l, CS_ERR_PROTOCOL, "it sent a message about authentication out of turn");
    }
    switch (kind) {
    case 0:
        /* A server that asks for nothing ("trust") or skips its proof is not the one we mean. */
        l->welcome = l->verified || l->answered;
        return l->welcome ? CS_OK
                          : fail(l, CS_ERR_UPSTREAM_AUTH,
                                 "it did not ask for SCRAM authentication (trust and the like are "
                                 "refused)");
    case 3:
        return weaker(l, CS_WAY_CLEARTEXT, CS_SLICE_NULL);
    case 5: {
        struct cs_slice salt = cs_reader_rest(&r);
        return salt.n == CS_MD5_SALT
                   ? weaker(l, CS_WAY_MD5, salt)
                   : fail(l, CS_ERR_PROTOCOL, "it sent a malformed request for an MD5 password");
    }
    case 10:
        return sasl_start(l, &r);
    case 11:
        return sasl_continue(l, cs_reader_rest(&r));
    case 12:
        return sasl_final(l, cs_reader_rest(&r));
    default:
        return fail(
            l, CS_ERR_UPSTREAM_AUTH,
            "it asks for an authentication method other than SCRAM-SHA-256, which is not in this "
            "version");
    }
}

/* ---- messages until ReadyForQuery ---- */

static enum cs_err login_error(struct login *l, struct cs_slice body)
{
    struct pg_error e;
    char text[160];
    if (!pg_parse_error(body, &e)) {
        return fail(l, CS_ERR_PROTOCOL, "it sent a malformed error");
    }
    cs_log(CS_EV_UPSTREAM_FAILED, l->with->who, "sqlstate=%s message=%s",
           cs_log_quote(e.sqlstate).text, cs_log_quote(e.message).text);
    /* Class 28: its words would name the gateway's credential; they stay in the log. */
    if (cs_slice_starts(e.sqlstate, CS_SLICE_LIT("28"))) {
        return fail(l, CS_ERR_UPSTREAM_AUTH, "it refused the gateway's credential");
    }
    (void)snprintf(text, sizeof text, "it refused the login: %.100s (%.5s)",
                   cs_log_quote(e.message).text,
                   e.sqlstate.n == 5 ? (const char *)e.sqlstate.p : "?????");
    return fail(l, CS_ERR_REFUSED, text);
}

static enum cs_err login_parameter(struct login *l, struct cs_slice body, struct cs_buf *greeting)
{
    struct cs_slice name, value;
    if (!pg_parse_parameter(body, &name, &value)) {
        return fail(l, CS_ERR_PROTOCOL, "it sent a malformed ParameterStatus");
    }
    if (!l->with->parameter(l->with->arg, name, value)) {
        return fail(l, CS_ERR_PROTOCOL,
                    "a pinned setting did not take (encoding, strings or role)");
    }
    if (greeting != NULL) {
        size_t at = pg_begin(greeting, 'S');
        cs_buf_add(greeting, body);
        pg_finish(greeting, at);
    }
    return CS_OK;
}

static enum cs_err login_message(struct login *l, const struct pg_frame *f, struct cs_buf *greeting,
                                 bool *ret_ready)
{
    struct cs_reader r = cs_reader(f->body);
    switch (f->type) {
    case 'R':
        return auth_message(l, f->body);
    case 'S':
        return login_parameter(l, f->body, greeting);
    case 'E':
        return login_error(l, f->body);
    case 'K':
        l->key->pid = cs_reader_u32(&r);
        l->key->secret = cs_reader_u32(&r);
        return CS_OK;
    case 'N':
        return CS_OK;
    case 'Z':
        *ret_ready = cs_reader_u8(&r) == 'I' && l->welcome;
        return *ret_ready ? CS_OK : fail(l, CS_ERR_PROTOCOL, "it is ready out of turn");
    default:
        return fail(l, CS_ERR_PROTOCOL, "it sent an unexpected message during login");
    }
}

static enum cs_err until_ready(struct login *l, struct cs_buf *greeting)
{
    bool ready = false;
    size_t need = 5;
    unsigned messages = 0;
    while (!ready) {
        if (++messages > LOGIN_MESSAGES || cs_mono_ns() > l->with->deadline) {
            return fail(l, CS_ERR_TIMEOUT, "it talks without end during login");
        }
        enum cs_err e = cs_stream_need(l->stream, need, l->with->deadline);
        if (e != CS_OK) {
            return fail(l, e == CS_ERR_TIMEOUT ? e : CS_ERR_EOF,
                        e == CS_ERR_TIMEOUT ? "it does not answer"
                                            : "it closed the connection during login");
        }
        struct pg_frame f;
        enum pg_frame_result got = pg_frame_next(cs_stream_peek(l->stream), false, &f);
        if (got == PG_FRAME_BAD || (got == PG_FRAME_OK && f.handling != PG_WHOLE)) {
            return fail(l, CS_ERR_PROTOCOL, "it does not speak the PostgreSQL protocol");
        }
        if (got == PG_FRAME_NEED) {
            need = f.total;
            continue;
        }
        e = login_message(l, &f, greeting, &ready);
        if (e != CS_OK) {
            return e;
        }
        cs_stream_consume(l->stream, f.total);
        need = 5;
    }
    return CS_OK;
}

enum cs_err pg_login_run(const struct pg_login_with *with, struct cs_stream *stream,
                         struct pg_login_key *ret_key, struct cs_buf *greeting, char *why,
                         size_t why_size)
{
    struct login l = {
        .with = with, .stream = stream, .key = ret_key, .why = why, .why_size = why_size};
    enum cs_err e = target_tls(&l);
    if (e == CS_OK) {
        e = send_startup(&l);
    }
    return e == CS_OK ? until_ready(&l, greeting) : e;
}
