/* The configuration: compiled by a job, checked here only for its seal and its form, and on reload
 * handed to every role that works by it. A configuration with a mistake changes nothing. What was
 * opened at the start (listeners, store, recordings) stays; a change there is reported as needing a
 * restart. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/reader.h"
#include "crypto/crypto.h"
#include "roles/job.h"
#include "roles/supervisor.h"

#include <stdio.h>
#include <unistd.h>

enum { ANSWER_MAX = 70 * 1024, TEXT_MAX = 60 * 1024 };
#define COMPILE_NS (30 * CS_NS_PER_S)

void cs_configuration_done(struct cs_configuration *c)
{
    cs_sealed_unmap(c->map);
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    *c = (struct cs_configuration){.fd = -1};
}

enum cs_err cs_configuration_open(int fd, uint64_t version, struct cs_configuration *ret)
{
    struct cs_configuration c = {.fd = fd};
    enum cs_err err = cs_sealed_map(fd, CS_SNAPSHOT_MAX, &c.map);
    if (err == CS_OK && (!cs_snapshot_read(c.map, &c.snapshot) || c.snapshot.version != version ||
                         c.snapshot.n_listeners > CS_SNAPSHOT_LISTENERS)) {
        err = CS_ERR_CORRUPT;
    }
    if (err != CS_OK) {
        cs_configuration_done(&c);
        return err;
    }
    cs_sha256(c.map, c.sha256);
    *ret = c;
    return CS_OK;
}

enum cs_err cs_configuration_load(struct cs_supervisor *sv, struct cs_configuration *ret,
                                  struct cs_buf *text)
{
    char path[CS_PATH];
    const char *const argv[] = {"job-compile", sv->config_path, NULL};
    const struct cs_job job = {.path = cs_program_path(sv, "job-compile", path),
                               .program = cs_program_open(sv, "job-compile"),
                               .argv = argv,
                               .deadline_ns = cs_mono_ns() + COMPILE_NS,
                               .stop = &sv->stop};
    struct cs_buf answer = cs_buf(ANSWER_MAX);
    int fd = -1;
    enum cs_err err = cs_job_run(sv->loop, &job, &answer, &fd);
    if (err != CS_OK) {
        cs_buf_printf(text, "%s: error: the configuration compiler failed: %s\n", sv->config_path,
                      cs_err_text(err));
        cs_buf_done(&answer);
        return err;
    }
    struct cs_reader r = cs_reader(cs_buf_slice(&answer));
    uint64_t said = cs_reader_u64le(&r), version = cs_reader_u64le(&r);
    struct cs_slice lines = cs_reader_slice(&r);
    if (!cs_reader_done(&r) || said >= CS_ERR_MAX || (said == CS_OK) != (fd >= 0)) {
        err = CS_ERR_PROTOCOL;
    } else {
        cs_buf_add(text, cs_slice_head(lines, TEXT_MAX));
        err = (enum cs_err)said;
    }
    if (err == CS_OK) {
        err = cs_configuration_open(fd, version, ret);
        fd = -1;
    }
    if (err != CS_OK && text->len == 0) {
        cs_buf_printf(text, "%s: error: %s\n", sv->config_path, cs_err_text(err));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    cs_buf_done(&answer);
    return err;
}

/* ---- what cannot change while we run ---- */

static void needs_restart(struct cs_buf *text, const char *what, struct cs_slice now,
                          struct cs_slice wanted)
{
    cs_buf_printf(
        text, "warning: %s changes from \"%.*s\" to \"%.*s\" only with a restart of the gateway\n",
        what, CS_SLICE_FMT(now), CS_SLICE_FMT(wanted));
}

static void compare_listeners(const struct cs_supervisor *sv, const struct cs_snapshot *next,
                              struct cs_buf *text)
{
    const struct cs_snapshot *now = &sv->config.snapshot;
    for (size_t i = 0; i < sv->n_listeners; i++) {
        const struct cs_open_listener *l = &sv->listeners[i];
        struct cs_slice wanted = CS_SLICE_NULL;
        for (size_t k = 0; k < next->n_listeners; k++) {
            if (cs_slice_eq_str(next->listeners[k].name, l->name)) {
                wanted = next->listeners[k].address;
            }
        }
        if (!cs_slice_eq_str(wanted, l->address)) {
            needs_restart(text, l->name, cs_slice_str(l->address), wanted);
        }
    }
    if (next->n_listeners > now->n_listeners) {
        cs_buf_str(text, "warning: a new listener opens only with a restart of the gateway\n");
    }
}

static void compare(const struct cs_supervisor *sv, const struct cs_snapshot *next,
                    struct cs_buf *text)
{
    const struct cs_snapshot *now = &sv->config.snapshot;
    const struct {
        const char *what;
        struct cs_slice now, wanted;
    } fixed[] = {
        {"store.sqlite", now->store, next->store},
        {"recordings.directory", now->recordings, next->recordings},
        {"recordings.escrow", now->escrow, next->escrow},
    };
    compare_listeners(sv, next, text);
    for (size_t i = 0; i < CS_ARRAY_LEN(fixed); i++) {
        if (!cs_slice_eq(fixed[i].now, fixed[i].wanted)) {
            needs_restart(text, fixed[i].what, fixed[i].now, fixed[i].wanted);
        }
    }
}

/* ---- reload ---- */

static void log_lines(enum cs_event_id ev, struct cs_slice text)
{
    while (text.n > 0) {
        size_t n = cs_slice_find(text, '\n');
        cs_log(ev, NULL, "line=%s", cs_log_quote(cs_slice_head(text, n)).text);
        text = cs_slice_from(text, n + 1);
    }
}

static void hand_out(struct cs_supervisor *sv, const struct cs_key_fds *keys)
{
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        if ((c->row->gets & CS_GETS_KEY) != 0 && c->channel != NULL &&
            (cs_wire_master_keys(c, keys) != CS_OK || cs_wire_credentials(c) != CS_OK)) {
            cs_child_kill(c, "does not take the new configuration");
        }
        /* One that starts just now got the old one and gets this one behind it, in order. */
        if ((c->row->gets & CS_GETS_SNAPSHOT) != 0 && c->channel != NULL &&
            cs_wire_snapshot(c) != CS_OK) {
            /* SECURITY: a role that goes on with old rules would allow what is now denied. */
            cs_child_kill(c, "does not take the new configuration");
        }
    }
}

static void answer_all(struct cs_supervisor *sv, const struct cs_reload_asker *askers, size_t n,
                       enum cs_err err, struct cs_slice text)
{
    struct cs_msg_reloaded m = {.err = (uint64_t)err,
                                .version = sv->config.snapshot.version,
                                .text = cs_slice_head(text, TEXT_MAX)};
    for (size_t i = 0; i < n; i++) {
        cs_answer(askers[i].child, askers[i].epoch, CS_MSG_RELOADED, askers[i].corr, &m, NULL, 0);
    }
}

/* Before anything changes: keys that cannot be had make the whole configuration one with a mistake.
 */
static enum cs_err new_keys(struct cs_supervisor *sv, const struct cs_snapshot *next,
                            struct cs_key_fds *ret, struct cs_buf *text)
{
    char why[700] = "";
    if (!cs_master_keys_differ(&sv->config.snapshot, next)) {
        return CS_OK;
    }
    enum cs_err err = cs_master_keys_open(sv, next, ret, why, sizeof why);
    if (err != CS_OK) {
        cs_buf_printf(text, "%s: error: %s\n", sv->config_path, why);
    }
    return err;
}

/* Answers those who asked before it began to read the file; who asks meanwhile gets a reload of
 * their own. */
static void reload_once(struct cs_supervisor *sv)
{
    struct cs_reload_asker askers[CS_RELOAD_ASKERS];
    size_t n = sv->n_reload_askers;
    memcpy(askers, sv->reload_askers, sizeof askers);
    sv->n_reload_askers = 0;
    struct cs_key_fds keys = {{-1, -1}};
    struct cs_configuration next = {.fd = -1};
    struct cs_buf text = cs_buf(TEXT_MAX + 8 * 1024);
    enum cs_err err = cs_configuration_load(sv, &next, &text);
    if (err == CS_OK) {
        err = new_keys(sv, &next.snapshot, &keys, &text);
    }
    if (err == CS_OK && sv->stopping) {
        err = CS_ERR_CANCELLED;
    }
    if (err != CS_OK) {
        cs_configuration_done(&next);
    }
    if (err == CS_OK) {
        compare(sv, &next.snapshot, &text);
        cs_configuration_done(&sv->config);
        sv->config = next;
        hand_out(sv, &keys);
        cs_log(CS_EV_RELOADED, NULL, "version=%016llx",
               (unsigned long long)sv->config.snapshot.version);
        log_lines(CS_EV_CONFIG_WARNING, cs_buf_slice(&text));
    } else {
        log_lines(CS_EV_RELOAD_FAILED, cs_buf_slice(&text));
    }
    answer_all(sv, askers, n, err, cs_buf_slice(&text));
    cs_master_keys_close(&keys);
    cs_buf_done(&text);
}

#define NOT_NOW                                                                                    \
    CS_SLICE_LIT("too many reloads, a start or a stop is under way; try again in a moment\n")

static void reload_co(void *arg)
{
    struct cs_supervisor *sv = arg;
    while (sv->reload_again && !sv->stopping) {
        sv->reload_again = false;
        reload_once(sv);
    }
    answer_all(sv, sv->reload_askers, sv->n_reload_askers, CS_ERR_CONFLICT, NOT_NOW);
    sv->n_reload_askers = 0;
    sv->reloading = false;
    cs_event_set(&sv->changed);
}

void cs_reload(struct cs_supervisor *sv, struct cs_child *asker, uint32_t corr)
{
    cs_handle co;
    struct cs_reload_asker a = {asker, asker != NULL ? asker->epoch : 0, corr};
    size_t n = asker != NULL ? 1 : 0;
    if (sv->starting || sv->stopping || sv->upgrading ||
        sv->n_reload_askers + n > CS_RELOAD_ASKERS) {
        answer_all(sv, &a, n, CS_ERR_CONFLICT, NOT_NOW);
        return;
    }
    if (n > 0) {
        sv->reload_askers[sv->n_reload_askers++] = a;
    }
    sv->reload_again = true;
    if (sv->reloading) {
        return;
    }
    sv->reloading = true;
    if (cs_co_spawn(sv->loop, "reload", reload_co, sv, &co) != CS_OK) {
        sv->reloading = false;
        sv->reload_again = false;
        sv->n_reload_askers = 0;
        answer_all(sv, &a, n, CS_ERR_NO_MEMORY, CS_SLICE_NULL);
    }
}
