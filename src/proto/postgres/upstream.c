/* A session's connections to its target: asked of control, logged in with the settings that the
 * session needs (login.c does the talking), watched for settings that must not change. Called by
 * startup.c, hold.c and backend.c. */
#include "base/assert.h"
#include "base/id.h"
#include "base/log.h"
#include "base/time.h"
#include "proto/postgres/login.h"
#include "proto/postgres/postgres_internal.h"

#include <stdio.h>

struct upstream { /* what login.c hands back to the functions here */
    struct pg *p;
    uint64_t connection;
    bool elevated;
};

/* ---- settings ---- */

static void set(struct pg_login_with *with, const char *name, const char *value)
{
    cs_assert(with->n_settings < PG_LOGIN_SETTINGS);
    with->settings[with->n_settings++] = (struct pg_setting){name, value};
}

/* What is pinned: the encoding and string syntax that the classifier assumes (login.c), and a
 * search_path that is the same for both credentials, so that what was approved names the same
 * tables when it runs. */
static void set_all(struct pg_login_with *with, const struct pg *p, const struct pg_startup *st,
                    bool elevated)
{
    const struct pg_pins *pins = elevated ? &p->pins : &st->pins;
    set(with, "search_path", "public");
    /* SECURITY: ALTER ROLE … SET role at the server would make the session somebody else than who
     * logged in, the owner perhaps. What comes with the start wins over that. */
    set(with, "role", "none");
    set(with, "DateStyle", pins->date_style);
    set(with, "IntervalStyle", pins->interval_style);
    set(with, "TimeZone", pins->time_zone);
    if (elevated) {
        set(with, "application_name", "countersign");
        set(with, "lock_timeout", "5000");
    } else {
        static const char *const replication[] = {[PG_REPLICATION_NONE] = "",
                                                  [PG_REPLICATION_PHYSICAL] = "true",
                                                  [PG_REPLICATION_LOGICAL] = "database"};
        set(with, "replication", replication[st->replication]);
        set(with, "application_name", st->application);
        set(with, "extra_float_digits", st->extra_float_digits);
        set(with, "statement_timeout", st->statement_timeout);
        set(with, "lock_timeout", st->lock_timeout);
        set(with, "idle_in_transaction_session_timeout", st->idle_in_transaction);
        set(with, "default_transaction_isolation", st->isolation);
        set(with, "default_transaction_read_only", st->read_only);
        set(with, "jit", st->jit);
    }
}

static void keep(char *out, size_t n, struct cs_slice value)
{
    (void)snprintf(out, n, "%.*s", CS_SLICE_FMT(value));
}

bool pg_pin_check(struct pg *p, struct cs_slice name, struct cs_slice value, bool elevated)
{
    struct pg_pins *pins = &p->pins;
    if (cs_slice_eq_str(name, "client_encoding")) {
        return cs_slice_eq_str(value, "UTF8");
    }
    if (cs_slice_eq_str(name, "standard_conforming_strings")) {
        return cs_slice_eq_str(value, "on");
    }
    if (cs_slice_eq_str(name, "session_authorization")) {
        return cs_slice_eq(value, cs_gate_role(p->s, elevated));
    }
    if (elevated) {
        return true;
    }
    if (cs_slice_eq_str(name, "DateStyle")) {
        keep(pins->date_style, sizeof pins->date_style, value);
    } else if (cs_slice_eq_str(name, "IntervalStyle")) {
        keep(pins->interval_style, sizeof pins->interval_style, value);
    } else if (cs_slice_eq_str(name, "TimeZone")) {
        keep(pins->time_zone, sizeof pins->time_zone, value);
    }
    return true;
}

static bool parameter(void *arg, struct cs_slice name, struct cs_slice value)
{
    const struct upstream *u = arg;
    return pg_pin_check(u->p, name, value, u->elevated);
}

/* ---- opening and closing ---- */

static enum cs_err prove(void *arg, const char *mechanism, struct cs_slice client_first_bare,
                         struct cs_slice server_first, struct cs_slice client_final_bare,
                         uint8_t ret_proof[static CS_SHA256],
                         uint8_t ret_signature[static CS_SHA256], char *why, size_t why_size)
{
    const struct upstream *u = arg;
    return cs_gate_prove(u->p->s, u->connection, mechanism, client_first_bare, server_first,
                         client_final_bare, ret_proof, ret_signature, why, why_size);
}

static enum cs_err answer(void *arg, enum cs_way way, struct cs_slice reader, struct cs_slice salt,
                          struct cs_buf *ret, char *why, size_t why_size)
{
    const struct upstream *u = arg;
    return cs_gate_prove_weakly(u->p->s, u->connection, way, reader, salt, ret, why, why_size);
}

enum cs_err pg_login(struct pg *p, const struct pg_startup *st, bool elevated,
                     const struct cs_id *grant, struct pg_upstream *ret, struct cs_buf *greeting,
                     char *why, size_t why_size)
{
    uint64_t deadline = cs_mono_ns() + CS_LIMIT_UPSTREAM_LOGIN_S * CS_NS_PER_S;
    struct cs_upstream up;
    struct pg_login_key key = {0};
    enum cs_err e = cs_gate_connect(p->s, elevated, grant, &up, why, why_size);
    if (e != CS_OK) {
        return e;
    }
    e = cs_stream_open(cs_gate_loop(p->s->gate), &ret->stream, up.fd);
    if (e != CS_OK) {
        (void)snprintf(why, why_size, "no resources for another connection");
        return e;
    }
    struct upstream u = {p, up.connection, elevated};
    struct pg_login_with with = {.deadline = deadline,
                                 .who = &p->s->id,
                                 .target = p->s->target_name,
                                 .host = cs_gate_target_host(p->s),
                                 .binding = cs_gate_target_binding(p->s),
                                 .way = cs_gate_target_way(p->s, elevated),
                                 .elevated = elevated,
                                 .user = up.user,
                                 .database = cs_gate_database(p->s, elevated),
                                 .prove = prove,
                                 .answer = answer,
                                 .parameter = parameter,
                                 .arg = &u};
    with.tls = cs_gate_target_tls(p->s, &with.plain);
    set_all(&with, p, st, elevated);
    ret->tx = 'I';
    e = pg_login_run(&with, &ret->stream, &key, greeting, why, why_size);
    if (e != CS_OK) {
        cs_stream_close(&ret->stream);
        return e;
    }
    ret->pid = key.pid;
    ret->secret = key.secret;
    return CS_OK;
}

void pg_upstream_close(struct pg_upstream *u, bool polite)
{
    if (u->stream.fd.fd < 0) {
        return;
    }
    if (polite && u->stream.err == CS_OK && !u->stream.eof && cs_stream_queued(&u->stream) == 0 &&
        cs_stream_put(&u->stream, cs_slice("X\0\0\0\4", 5)) == CS_OK) {
        (void)cs_stream_flush(&u->stream);
    }
    cs_stream_close(&u->stream);
}
