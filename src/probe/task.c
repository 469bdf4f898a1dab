/* One task: a connection asked of control, the login, the queries of its kind, the result to
 * control. Everything of it lives in one coroutine and ends with it, at the deadline at the latest.
 * It must never run a text that came with the task (impact.c's EXPLAIN is the one exception), nor
 * go on for a control that is gone. */
#include "probe/probe.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/time.h"
#include "crypto/tls.h"
#include "ipc/metrics.h"
#include "proto/postgres/login.h"

#include <stdio.h>
#include <unistd.h>

#define TASK_NS (CS_LIMIT_PROBE_TASK_S * CS_NS_PER_S)

/* ---- what control does for it ---- */

static enum cs_err ask(struct cs_probe_task_run *t, enum cs_msg_type type, const void *msg,
                       struct cs_call *ret)
{
    struct cs_probe *p = t->probe;
    *ret = (struct cs_call){.fd = {-1, -1, -1}};
    if (p->control == NULL || p->control_epoch != t->control_epoch) {
        return CS_ERR_CANCELLED;
    }
    return cs_channel_call(p->control, type, msg, NULL, 0, t->deadline, ret);
}

static void explain(struct cs_probe_task_run *t, struct cs_slice text, enum cs_err e)
{
    text = text.n > 0 ? text : cs_slice_str(cs_err_text(e));
    (void)snprintf(t->why, sizeof t->why, "%.*s", CS_SLICE_FMT(text));
}

static enum cs_err connect_to(struct cs_probe_task_run *t, char *user, size_t user_size)
{
    struct cs_msg_probe_connect m = {.task = t->id};
    struct cs_call call;
    enum cs_err e = ask(t, CS_MSG_PROBE_CONNECT, &m, &call);
    if (e == CS_OK && call.type == CS_MSG_PROBE_CONNECTED) {
        const struct cs_msg_probe_connected *r = (const void *)call.msg.raw;
        t->connection = r->connection;
        (void)snprintf(user, user_size, "%.*s", CS_SLICE_FMT(r->user));
        e = cs_stream_open(t->probe->loop, &t->stream, call.fd[0]); /* takes it over */
        call.fd[0] = -1;
    } else if (e == CS_OK) {
        const struct cs_msg_probe_not_connected *r = (const void *)call.msg.raw;
        bool fits = call.type == CS_MSG_PROBE_NOT_CONNECTED && r->err > 0 && r->err < CS_ERR_MAX;
        e = fits ? (enum cs_err)r->err : CS_ERR_PROTOCOL;
        explain(t, fits ? r->text : CS_SLICE_NULL, e);
    } else {
        explain(t, CS_SLICE_NULL, e);
    }
    cs_call_done(&call);
    return e;
}

/* Control's answer, in `call`; CS_OK when there is a proof. */
static enum cs_err proof_of(struct cs_probe_task_run *t, struct cs_msg_probe_prove *m,
                            struct cs_call *call, char *why, size_t why_size)
{
    struct cs_slice text = CS_SLICE_NULL;
    m->task = t->id;
    m->connection = t->connection;
    enum cs_err e = ask(t, CS_MSG_PROBE_PROVE, m, call);
    if (e == CS_OK && call->type != CS_MSG_PROBE_PROOF) {
        e = CS_ERR_PROTOCOL;
    } else if (e == CS_OK) {
        const struct cs_msg_probe_proof *r = (const void *)call->msg.raw;
        e = r->err < CS_ERR_MAX ? (enum cs_err)r->err : CS_ERR_PROTOCOL;
        text = r->text;
    }
    if (e != CS_OK) {
        text = text.n > 0 ? text : cs_slice_str(cs_err_text(e));
        (void)snprintf(why, why_size, "%.*s", CS_SLICE_FMT(text));
    }
    return e;
}

static enum cs_err prove(void *arg, const char *mechanism, struct cs_slice client_first_bare,
                         struct cs_slice server_first, struct cs_slice client_final_bare,
                         uint8_t ret_proof[static CS_SHA256],
                         uint8_t ret_signature[static CS_SHA256], char *why, size_t why_size)
{
    struct cs_msg_probe_prove m = {.mechanism = cs_slice_str(mechanism),
                                   .client_first_bare = client_first_bare,
                                   .server_first = server_first,
                                   .client_final_bare = client_final_bare};
    struct cs_call call;
    enum cs_err e = proof_of(arg, &m, &call, why, why_size);
    if (e == CS_OK) {
        const struct cs_msg_probe_proof *r = (const void *)call.msg.raw;
        if (r->proof.n != CS_SHA256 || r->server_signature.n != CS_SHA256) {
            e = CS_ERR_PROTOCOL;
            (void)snprintf(why, why_size, "%s", cs_err_text(e));
        } else {
            memcpy(ret_proof, r->proof.p, CS_SHA256);
            memcpy(ret_signature, r->server_signature.p, CS_SHA256);
        }
    }
    cs_call_done(&call);
    return e;
}

static enum cs_err answer_weakly(void *arg, enum cs_way way, struct cs_slice reader,
                                 struct cs_slice salt, struct cs_buf *ret, char *why,
                                 size_t why_size)
{
    struct cs_msg_probe_prove m = {.mechanism = cs_slice_str(cs_way_name(way)),
                                   .client_first_bare = reader,
                                   .server_first = salt};
    struct cs_call call;
    enum cs_err e = proof_of(arg, &m, &call, why, why_size);
    if (e == CS_OK) {
        cs_buf_add(ret, ((const struct cs_msg_probe_proof *)(const void *)call.msg.raw)->proof);
    }
    cs_call_done(&call);
    return e;
}

/* ---- the login ---- */

static bool parameter(void *arg, struct cs_slice name, struct cs_slice value)
{
    struct cs_probe_task_run *t = arg;
    if (cs_slice_eq_str(name, "client_encoding")) {
        return cs_slice_eq_str(value, "UTF8");
    }
    if (cs_slice_eq_str(name, "standard_conforming_strings") ||
        cs_slice_eq_str(name, "default_transaction_read_only")) {
        return cs_slice_eq_str(value, "on");
    }
    if (cs_slice_eq_str(name, "server_version")) {
        uint64_t major = 0;
        size_t n = 0;
        while (n < value.n && value.p[n] >= '0' && value.p[n] <= '9') {
            n++;
        }
        if (cs_slice_to_u64(cs_slice_head(value, n), &major) && major < 1000) {
            t->server_version = (uint32_t)major * 10000;
        }
    }
    return true;
}

/* Read only, and over within two seconds whatever it is; only names of pg_catalog are found without
 * their schema, so that nothing at the target can take the place of what a query means. */
static const struct pg_setting settings[] = {
    {"application_name", "countersign-probe"},
    {"default_transaction_read_only", "on"},
    {"statement_timeout", "2000"},
    {"lock_timeout", "500"},
    {"idle_in_transaction_session_timeout", "10000"},
    {"role", "none"}, /* whatever ALTER ROLE … SET role says */
    {"search_path", "pg_catalog, pg_temp"},
    {"DateStyle", "ISO, YMD"},
    {"extra_float_digits", "0"},
    {"jit", "off"},
};
_Static_assert(CS_ARRAY_LEN(settings) <= PG_LOGIN_SETTINGS, "settings");

static enum cs_err log_in(struct cs_probe_task_run *t, const char *user)
{
    const struct cs_probe_task *k = &t->task;
    struct pg_login_key key;
    struct cs_tls_ctx *tls = NULL;
    struct pg_login_with with = {.deadline = t->deadline,
                                 .who = &t->id,
                                 .target = k->target,
                                 .plain = cs_slice_eq_str(k->tls, "off"),
                                 .host = k->host,
                                 .binding = cs_channel_binding_of(k->channel_binding),
                                 .way = cs_way_of(k->authentication),
                                 .user = user,
                                 .database = k->database,
                                 .n_settings = CS_ARRAY_LEN(settings),
                                 .prove = prove,
                                 .answer = answer_weakly,
                                 .parameter = parameter,
                                 .arg = t};
    memcpy(with.settings, settings, sizeof settings);
    if (!with.plain) {
        bool verify = !cs_slice_eq_str(k->tls, "require");
        enum cs_err e = cs_tls_client_new(k->roots, verify, "postgresql", &tls);
        if (e != CS_OK) {
            explain(t, CS_SLICE_LIT("TLS towards it cannot be set up"), e);
            return e;
        }
        with.tls = tls;
    }
    enum cs_err e = pg_login_run(&with, &t->stream, &key, NULL, t->why, sizeof t->why);
    cs_tls_ctx_free(tls);
    return e;
}

/* ---- the task ---- */

static enum cs_err run_queries(struct cs_probe_task_run *t, struct cs_buf *out)
{
    const struct cs_probe_query *q = NULL;
    size_t n = cs_probe_queries(t->kind, &q);
    enum cs_err e = cs_probe_begin(t);
    for (size_t i = 0; i < n && e == CS_OK; i++) {
        if (t->server_version >= q[i].since) {
            e = cs_probe_query(t, &q[i], out);
        }
    }
    if (e == CS_OK && t->kind == CS_PROBE_IMPACT) {
        e = cs_probe_plan(t, out);
    }
    cs_probe_rollback(t);
    return e;
}

static enum cs_err run(struct cs_probe_task_run *t, struct cs_buf *out)
{
    char user[128];
    enum cs_err e = connect_to(t, user, sizeof user);
    if (e != CS_OK) {
        return e;
    }
    e = log_in(t, user);
    if (e == CS_OK) {
        cs_rows_begin(out);
        if (t->kind == CS_PROBE_CHECK) {
            cs_probe_certificate(t, out);
        }
        e = run_queries(t, out);
    }
    cs_stream_close(&t->stream);
    if (e == CS_OK && out->bad) {
        explain(t, CS_SLICE_LIT("its answers are larger than is taken in"), CS_ERR_TOO_LARGE);
        e = CS_ERR_TOO_LARGE;
    }
    return e;
}

static void answer(struct cs_probe_task_run *t, enum cs_err e, struct cs_slice result)
{
    struct cs_probe *p = t->probe;
    struct cs_msg_probed m = {.err = (uint64_t)e, .text = cs_slice_str(t->why)};
    int fd = -1;
    if (p->control == NULL || p->control_epoch != t->control_epoch ||
        cs_sealed_make("probed", result, &fd) != CS_OK) {
        return; /* nobody to tell, or no memory: control's deadline tells it */
    }
    if (cs_channel_send(p->control, CS_MSG_PROBED, t->corr, &m, &fd, 1) != CS_OK) {
        cs_log(CS_EV_IPC_BROKEN, &t->id, "peer=control message=probed");
    }
    (void)close(fd);
}

static void task_run(void *arg)
{
    struct cs_probe_task_run *t = arg;
    struct cs_buf out = cs_buf(CS_LIMIT_PROBE_RESULT_BYTES);
    enum cs_err e = run(t, &out);
    if (e == CS_OK && t->kind == CS_PROBE_CATALOGUE) {
        struct cs_buf answers = out;
        out = cs_buf(CS_LIMIT_PROBE_RESULT_BYTES);
        e = cs_probe_catalogue(t, cs_buf_slice(&answers), &out);
        cs_buf_done(&answers);
    }
    cs_metric_add(CS_SLOT_TASKS + CS_MIN(t->kind, CS_DIM_TASK - 1U) * CS_DIM_RESULT +
                      (e == CS_OK ? 0 : 1),
                  1);
    cs_log(CS_EV_PROBED, &t->id, "target=%s kind=%llu result=%s bytes=%zu%s%s",
           cs_log_quote(t->task.target).text, (unsigned long long)t->kind, cs_err_name(e), out.len,
           t->why[0] != 0 ? " why=" : "",
           t->why[0] != 0 ? cs_log_quote(cs_slice_str(t->why)).text : "");
    answer(t, e, e == CS_OK ? cs_buf_slice(&out) : CS_SLICE_NULL);
    cs_buf_done(&out);
    t->probe->n_tasks--;
    cs_sealed_unmap(t->map);
    cs_free(t);
}

enum cs_err cs_probe_task_start(struct cs_probe *p, uint32_t corr, const struct cs_msg_probe *m,
                                int fd)
{
    const struct cs_probe_query *q = NULL;
    struct cs_probe_task_run *t = NULL;
    struct cs_slice map = CS_SLICE_NULL;
    cs_handle co;
    enum cs_err e = cs_probe_queries(m->kind, &q) > 0 && !cs_id_is_zero(&m->task)
                        ? cs_sealed_map(fd, CS_PROBE_TASK_MAX, &map)
                        : CS_ERR_INVALID;
    (void)close(fd);
    if (e == CS_OK) {
        t = cs_alloc(sizeof *t);
        e = t == NULL ? CS_ERR_NO_MEMORY : CS_OK;
    }
    if (e == CS_OK) {
        *t = (struct cs_probe_task_run){.probe = p,
                                        .control_epoch = p->control_epoch,
                                        .corr = corr,
                                        .id = m->task,
                                        .kind = m->kind,
                                        .map = map,
                                        .deadline = cs_mono_ns() + TASK_NS};
        e = cs_probe_task_read(map, &t->task) ? CS_OK : CS_ERR_INVALID;
    }
    if (e == CS_OK) {
        e = cs_co_spawn(p->loop, "task", task_run, t, &co);
    }
    if (e != CS_OK) {
        cs_sealed_unmap(map);
        cs_free(t);
        return e;
    }
    p->n_tasks++;
    return CS_OK;
}
