/* Who gets what (roles.def): the messages that a role is started with, its ring, and the channels
 * between roles. Called by child.c for every start, first or not: there is one way to be wired. A
 * role must never get a listener, a ring or a channel that its row does not name. */
#include "base/log.h"
#include "ipc/ring.h"
#include "roles/supervisor.h"
#include "runtime/process.h"
#include "runtime/sock.h"

#include <stdio.h>
#include <unistd.h>

static bool is_web(const struct cs_open_listener *l)
{
    return strcmp(l->kind, "control") == 0 || strcmp(l->kind, "local") == 0 ||
           strcmp(l->kind, "metrics") == 0;
}

static enum cs_err wire_boot(struct cs_child *c)
{
    char params[CS_PATH + 128] = "";
    if ((c->row->gets & CS_GETS_RINGS) != 0) {
        (void)snprintf(params, sizeof params, "directory=%s\nescrow=%s\n", c->sv->recordings,
                       c->sv->escrow);
    } else if (c->row->role == CS_ROLE_CONTROL && (c->restarts > 0 || c->sv->legacy.any)) {
        /* Gates and their sessions outlived the control before: it asks them, and forgets none. */
        (void)snprintf(params, sizeof params, "gates=keep\n");
    }
    if (c->sv->first_uid != 0) { /* who the service's user is: not the role itself */
        size_t n = strlen(params);
        (void)snprintf(params + n, sizeof params - n, "service=%u\n", (unsigned)cs_process_uid());
    }
    struct cs_msg_boot m = {.role = (uint64_t)c->row->role,
                            .index = c->index,
                            .epoch = c->epoch,
                            .params = cs_slice_str(params)};
    return cs_channel_send(c->channel, CS_MSG_BOOT, 0, &m, NULL, 0);
}

enum cs_err cs_wire_snapshot(struct cs_child *c)
{
    const struct cs_configuration *config = &c->sv->config;
    struct cs_msg_snapshot m = {.version = config->snapshot.version,
                                .sha256 = cs_slice(config->sha256, sizeof config->sha256)};
    return cs_channel_send(c->channel, CS_MSG_SNAPSHOT, 0, &m, &config->fd, 1);
}

static enum cs_err wire_listeners(struct cs_child *c)
{
    enum cs_err err = CS_OK;
    for (size_t i = 0; i < c->sv->n_listeners && err == CS_OK; i++) {
        const struct cs_open_listener *l = &c->sv->listeners[i];
        if ((c->row->gets & (is_web(l) ? CS_GETS_WEB : CS_GETS_PROTOCOLS)) == 0) {
            continue;
        }
        struct cs_msg_listener m = {.name = cs_slice_str(l->name), .kind = cs_slice_str(l->kind)};
        err = cs_channel_send(c->channel, CS_MSG_LISTENER, 0, &m, &l->fd, 1);
    }
    return err;
}

/* ---- the recording key ---- */

static enum cs_err send_record_key(struct cs_child *recorder)
{
    const struct cs_supervisor *sv = recorder->sv;
    struct cs_msg_record_key m = {.name = cs_slice_str(sv->record_key_name),
                                  .public = cs_slice(sv->record_key, sizeof sv->record_key)};
    return m.name.n > 0 ? cs_channel_send(recorder->channel, CS_MSG_RECORD_KEY, 0, &m, NULL, 0)
                        : CS_OK;
}

void cs_wire_record_key(struct cs_supervisor *sv, const struct cs_msg_record_key_new *m)
{
    struct cs_child *recorder = cs_child_of(sv, CS_ROLE_RECORDER, 0);
    if (m->public.n != sizeof sv->record_key || m->name.n == 0 ||
        m->name.n >= sizeof sv->record_key_name) {
        cs_log(CS_EV_IPC_BROKEN, NULL, "role=keeper why=\"a recording key that is none\"");
        return;
    }
    (void)snprintf(sv->record_key_name, sizeof sv->record_key_name, "%.*s", CS_SLICE_FMT(m->name));
    memcpy(sv->record_key, m->public.p, sizeof sv->record_key);
    if (recorder != NULL && recorder->channel != NULL && send_record_key(recorder) != CS_OK) {
        cs_child_kill(recorder, "does not take its messages");
    }
}

/* ---- the key for redaction ---- */

static enum cs_err send_redact_key(struct cs_child *gate)
{
    const struct cs_supervisor *sv = gate->sv;
    struct cs_msg_redact_key m = {.key = cs_slice(sv->redact_key, sizeof sv->redact_key)};
    return sv->has_redact_key ? cs_channel_send(gate->channel, CS_MSG_REDACT_KEY, 0, &m, NULL, 0)
                              : CS_OK;
}

void cs_wire_redact_key(struct cs_supervisor *sv, const struct cs_msg_redact_key_new *m)
{
    if (m->key.n != sizeof sv->redact_key) {
        cs_log(CS_EV_IPC_BROKEN, NULL, "role=keeper why=\"a key for redaction that is none\"");
        return;
    }
    memcpy(sv->redact_key, m->key.p, sizeof sv->redact_key);
    sv->has_redact_key = true;
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        if (c->row->role == CS_ROLE_GATE && c->channel != NULL && send_redact_key(c) != CS_OK) {
            cs_child_kill(c, "does not take its messages");
        }
    }
}

/* ---- rings ---- */

static void ring_close(struct cs_ring_fds *r)
{
    for (size_t i = 0; r->epoch != 0 && i < CS_ARRAY_LEN(r->fd); i++) {
        (void)close(r->fd[i]);
    }
    r->epoch = 0;
}

void cs_wire_done(struct cs_child *c)
{
    ring_close(&c->ring);
    ring_close(&c->old_ring);
    cs_metrics_done(c);
}

static enum cs_err send_ring(struct cs_child *to, const struct cs_child *gate,
                             const struct cs_ring_fds *r)
{
    if (r->epoch == 0) {
        return CS_OK;
    }
    struct cs_msg_ring m = {.gate = gate->index, .epoch = r->epoch};
    return cs_channel_send(to->channel, CS_MSG_RING, 0, &m, r->fd, 3);
}

/* A started gate never gets a used ring: what the dead one left in it cannot be trusted to fit. */
static enum cs_err wire_own_ring(struct cs_child *c)
{
    struct cs_child *recorder = cs_child_of(c->sv, CS_ROLE_RECORDER, 0);
    struct cs_ring_fds made = {c->epoch, {-1, -1, -1}};
    enum cs_err err = cs_ring_make(CS_LIMIT_RING_BYTES, made.fd);
    if (err != CS_OK) {
        return err;
    }
    ring_close(&c->old_ring);
    c->old_ring = c->ring;
    c->ring = made;
    err = send_ring(c, c, &c->ring);
    if (err == CS_OK && recorder != NULL && recorder->channel != NULL &&
        send_ring(recorder, c, &c->ring) != CS_OK) {
        cs_child_kill(recorder, "does not take its messages");
    }
    return err;
}

/* The old ring first: the one that comes later for the same gate replaces it. */
static enum cs_err wire_all_rings(struct cs_child *recorder)
{
    struct cs_supervisor *sv = recorder->sv;
    enum cs_err err = CS_OK;
    for (size_t i = 0; i < sv->n_children && err == CS_OK; i++) {
        struct cs_child *gate = &sv->children[i];
        if ((gate->row->gets & CS_GETS_RING) != 0) {
            err = send_ring(recorder, gate, &gate->old_ring);
            err = err == CS_OK ? send_ring(recorder, gate, &gate->ring) : err;
        }
    }
    const struct cs_msg_rings_told all = {.end_ = 0};
    return err == CS_OK ? cs_channel_send(recorder->channel, CS_MSG_RINGS_TOLD, 0, &all, NULL, 0)
                        : err;
}

/* ---- channels between roles ---- */

static enum cs_err send_peer(struct cs_child *to, const struct cs_child *other, int fd)
{
    struct cs_msg_peer m = {
        .role = (uint64_t)other->row->role, .index = other->index, .epoch = other->epoch};
    return cs_channel_send(to->channel, CS_MSG_PEER, 0, &m, &fd, 1);
}

/* `fresh` was just started, `other` ran before. */
static enum cs_err join(struct cs_child *fresh, struct cs_child *other)
{
    int pair[2];
    enum cs_err err = cs_socketpair(pair);
    if (err != CS_OK) {
        return err;
    }
    err = send_peer(fresh, other, pair[0]);
    if (err == CS_OK && send_peer(other, fresh, pair[1]) != CS_OK) {
        cs_child_kill(other, "does not take its messages");
    }
    (void)close(pair[0]);
    (void)close(pair[1]);
    return err;
}

static bool are_joined(const struct cs_child *a, const struct cs_child *b)
{
    return ((a->row->gets & CS_GETS_CONTROL) != 0 && b->row->role == CS_ROLE_CONTROL) ||
           ((b->row->gets & CS_GETS_CONTROL) != 0 && a->row->role == CS_ROLE_CONTROL);
}

static enum cs_err wire_peers(struct cs_child *c)
{
    enum cs_err err = CS_OK;
    for (size_t i = 0; i < c->sv->n_children && err == CS_OK; i++) {
        struct cs_child *other = &c->sv->children[i];
        if (other != c && other->channel != NULL && are_joined(c, other)) {
            err = join(c, other);
        }
    }
    return err;
}

enum cs_err cs_wire(struct cs_child *c)
{
    cs_metrics_wire(c); /* first: what it does from its start on is counted */
    enum cs_err err = wire_boot(c);
    if (err == CS_OK && (c->row->gets & CS_GETS_KEY) != 0) {
        err = cs_wire_master_keys(c, &c->keys);
        cs_master_keys_close(&c->keys);
        err = err == CS_OK ? cs_wire_credentials(c) : err; /* the last: then it is ready */
    }
    if (err == CS_OK && (c->row->gets & CS_GETS_SNAPSHOT) != 0) {
        err = cs_wire_snapshot(c);
    }
    if (err == CS_OK) {
        err = wire_listeners(c);
    }
    if (err == CS_OK && (c->row->gets & CS_GETS_RING) != 0) {
        err = wire_own_ring(c);
    }
    if (err == CS_OK && c->row->role == CS_ROLE_GATE) {
        err = send_redact_key(c);
    }
    if (err == CS_OK && (c->row->gets & CS_GETS_RINGS) != 0) {
        err = send_record_key(c);
        err = err == CS_OK ? wire_all_rings(c) : err;
    }
    return err == CS_OK ? wire_peers(c) : err;
}
