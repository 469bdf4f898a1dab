/* The role: what the supervisor says, and when front is ready. Called by programs/front.c.
 * Everything comes as a message on descriptor 3: the snapshot, the listeners that it names, a
 * channel to control. Front is ready when it has all of them. Must never open, bind or connect
 * anything by itself. */
#include "front/front.h"

#include "base/log.h"
#include "crypto/crypto.h"
#include "ipc/metrics.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"
#include "wire/snapshot.h"

#include <unistd.h>

struct role {
    struct cs_loop *loop;
    struct cs_front *front;
    struct cs_channel *supervisor;
    bool ready, failed;
};

static void give_up(struct role *r, const char *why)
{
    cs_log(CS_EV_INTERNAL, NULL, "why=\"%s\"", why);
    r->failed = true;
    cs_loop_stop(r->loop);
}

static void maybe_ready(struct role *r)
{
    if (r->ready || !cs_front_has_control(r->front) ||
        cs_front_listeners(r->front) < cs_front_listeners_wanted(r->front)) {
        return;
    }
    struct cs_msg_ready m = {0};
    r->ready = true;
    if (cs_front_accept(r->front) != CS_OK ||
        cs_channel_send(r->supervisor, CS_MSG_READY, 0, &m, NULL, 0) != CS_OK) {
        give_up(r, "front could not start accepting");
        return;
    }
    cs_channel_run_phase(r->supervisor);
    cs_log(CS_EV_STARTED, NULL, "listeners=%zu", cs_front_listeners(r->front));
}

static void snapshot_new(struct role *r, const struct cs_msg_snapshot *m, int fd)
{
    struct cs_slice bytes;
    uint8_t hash[CS_SHA256];
    enum cs_err err = cs_sealed_map(fd, CS_SNAPSHOT_MAX, &bytes);
    (void)close(fd);
    if (err == CS_OK) {
        cs_sha256(bytes, hash);
        if (m->sha256.n == sizeof hash && !cs_slice_eq(m->sha256, cs_slice(hash, sizeof hash))) {
            err = CS_ERR_CORRUPT;
        } else {
            err = cs_front_configure(r->front, bytes);
        }
        cs_sealed_unmap(bytes);
    }
    if (err != CS_OK) {
        /* The old one stays; without any, front never becomes ready. */
        cs_log(CS_EV_RELOAD_FAILED, NULL, "snapshot=%s", cs_err_name(err));
    } else if (r->ready) {
        cs_log(CS_EV_RELOADED, NULL, "version=%016llx", (unsigned long long)m->version);
    }
}

static void listener_new(struct role *r, const struct cs_msg_listener *m, int fd)
{
    bool local = cs_slice_eq_str(m->kind, "local");
    if (cs_slice_eq_str(m->kind, "metrics")) {
        if (cs_front_add_metrics_listener(r->front, fd) != CS_OK) {
            give_up(r, "a listener could not be taken");
        }
        return;
    }
    if (!local && !cs_slice_eq_str(m->kind, "control")) {
        cs_log(CS_EV_INTERNAL, NULL, "listener=%s not for front", cs_log_quote(m->name).text);
        (void)close(fd);
        return;
    }
    if (cs_front_add_listener(r->front, fd, local) != CS_OK) {
        give_up(r, "a listener could not be taken");
    }
}

/* Not having them is not a reason to end: it serves, and what is missing is seen as missing. */
static void metrics_of(struct role *r, const struct cs_msg_metrics_of *m, const int fd[static 2])
{
    enum cs_err err = cs_front_add_metrics(r->front, m->role, m->index, fd[0], fd[1]);
    (void)close(fd[0]);
    (void)close(fd[1]);
    if (err != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "what=metrics role=%llu error=%s", (unsigned long long)m->role,
               cs_err_name(err));
    }
}

static void on_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct role *r = arg;
    const struct cs_msg_peer *peer;
    (void)c;
    switch ((int)in->type) {
    case CS_MSG_BOOT:
        cs_front_set_service(r->front,
                             cs_boot_service_uid(((const struct cs_msg_boot *)in->msg)->params));
        break;
    case CS_MSG_SNAPSHOT:
        snapshot_new(r, in->msg, in->fd[0]);
        break;
    case CS_MSG_LISTENER:
        listener_new(r, in->msg, in->fd[0]);
        break;
    case CS_MSG_METRICS:
        cs_metrics_open(in->fd[0]);
        return;
    case CS_MSG_METRICS_OF:
        metrics_of(r, in->msg, in->fd);
        return;
    case CS_MSG_PEER:
        peer = in->msg;
        if (peer->role != CS_ROLE_CONTROL) {
            (void)close(in->fd[0]);
        } else if (cs_front_set_control(r->front, in->fd[0], peer->index) != CS_OK) {
            give_up(r, "the channel to control could not be opened");
        }
        break;
    case CS_MSG_SHUTDOWN:
        cs_log(CS_EV_STOPPED, NULL, "asked=supervisor");
        cs_front_drain(r->front);
        return;
    default:
        for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
            if (in->fd[i] >= 0) {
                (void)close(in->fd[i]);
            }
        }
        return;
    }
    maybe_ready(r);
}

static void on_gone(struct cs_channel *c, void *arg)
{
    struct role *r = arg;
    (void)c;
    cs_loop_stop(r->loop); /* nobody is left to answer to */
}

int cs_front_main(int supervisor_fd, const char *name)
{
    struct role r = {0};
    cs_log_init(name, CS_LEVEL_INFO);
    cs_process_harden();
    r.loop = cs_loop_new();
    r.front = r.loop != NULL ? cs_front_new(r.loop, NULL) : NULL;
    if (r.front == NULL || cs_channel_open(r.loop, supervisor_fd, CS_ROLE_FRONT, CS_ROLE_SUPERVISOR,
                                           0, on_message, on_gone, &r, &r.supervisor) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "why=\"start failed\"");
        return 1;
    }
    enum cs_err err = cs_sandbox_enter(CS_SANDBOX_FRONT, NULL, 0);
    if (err != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "sandbox=%s", cs_err_name(err));
        return 1;
    }
    cs_loop_run(r.loop);
    cs_channel_close(r.supervisor);
    cs_front_free(r.front);
    cs_loop_free(r.loop);
    return r.failed ? 1 : 0;
}
