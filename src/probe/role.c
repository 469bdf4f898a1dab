/* The probe role's life: started by the supervisor, told who control is, ended by SHUTDOWN or with
 * the supervisor. Tasks run in coroutines of their own (task.c): one that hangs on a dead or
 * hostile target holds up no other. When control is replaced, tasks of the one before end
 * unanswered. */
#include "probe/probe.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "ipc/metrics.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"

#include <unistd.h>

static void stop(struct cs_probe *p, bool failed)
{
    p->stopping = true;
    p->failed = p->failed || failed;
    cs_loop_stop(p->loop);
}

static void close_fds(const struct cs_channel_in *in)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(in->fd); i++) {
        if (in->fd[i] >= 0) {
            (void)close(in->fd[i]);
        }
    }
}

/* ---- control ---- */

static void refuse(struct cs_probe *p, uint32_t corr, enum cs_err e)
{
    struct cs_msg_probed m = {.err = (uint64_t)e, .text = cs_slice_str(cs_err_text(e))};
    int fd = -1;
    if (cs_sealed_make("empty", CS_SLICE_NULL, &fd) != CS_OK) {
        return; /* no memory: control's deadline tells it */
    }
    if (cs_channel_send(p->control, CS_MSG_PROBED, corr, &m, &fd, 1) != CS_OK) {
        cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control message=probed");
    }
    (void)close(fd);
}

static void on_control(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_probe *p = arg;
    if (in->type != CS_MSG_PROBE || in->corr == 0 || ch != p->control) {
        close_fds(in);
        return;
    }
    enum cs_err e = p->n_tasks < CS_LIMIT_PROBE_TASKS ? CS_OK : CS_ERR_LIMIT;
    if (e == CS_OK) {
        e = cs_probe_task_start(p, in->corr, in->msg, in->fd[0]);
    } else {
        close_fds(in);
    }
    if (e != CS_OK) {
        refuse(p, in->corr, e);
    }
}

static void on_control_gone(struct cs_channel *ch, void *arg)
{
    struct cs_probe *p = arg;
    if (p->control == ch) {
        const char *why = cs_channel_broken_why(ch);
        if (why != NULL) {
            cs_log(CS_EV_IPC_BROKEN, NULL, "peer=control why=\"%s\"", why);
        }
        p->control = NULL;
        p->control_epoch++;
        cs_channel_close(ch);
    }
}

static void on_peer(struct cs_probe *p, const struct cs_msg_peer *m, int fd)
{
    if (m->role != CS_ROLE_CONTROL) {
        (void)close(fd);
        return;
    }
    if (p->control != NULL) {
        cs_channel_close(p->control);
        p->control = NULL;
    }
    p->control_epoch++;
    enum cs_err e = cs_channel_open(p->loop, fd, CS_ROLE_PROBE, CS_ROLE_CONTROL, m->index,
                                    on_control, on_control_gone, p, &p->control);
    if (e != CS_OK) {
        p->control = NULL;
        cs_log(CS_EV_INTERNAL, NULL, "peer=control error=%s", cs_err_name(e));
        return;
    }
    cs_channel_run_phase(p->control);
}

/* ---- supervisor ---- */

static void on_boot(struct cs_probe *p)
{
    const struct cs_msg_ready ready = {.end_ = 0};
    if (cs_channel_send(p->supervisor, CS_MSG_READY, 0, &ready, NULL, 0) != CS_OK) {
        stop(p, true);
        return;
    }
    cs_channel_run_phase(p->supervisor);
    cs_log(CS_EV_STARTED, NULL, "tasks=%d", CS_LIMIT_PROBE_TASKS);
}

static void on_supervisor(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct cs_probe *p = arg;
    (void)ch;
    switch ((int)in->type) {
    case CS_MSG_BOOT:
        on_boot(p);
        break;
    case CS_MSG_METRICS:
        cs_metrics_open(in->fd[0]);
        break;
    case CS_MSG_PEER:
        on_peer(p, in->msg, in->fd[0]);
        break;
    case CS_MSG_SHUTDOWN:
        cs_log(CS_EV_STOPPED, NULL, "tasks=%zu", p->n_tasks);
        stop(p, false);
        break;
    default:
        close_fds(in);
        break;
    }
}

static void on_supervisor_gone(struct cs_channel *ch, void *arg)
{
    struct cs_probe *p = arg;
    p->supervisor = NULL;
    cs_channel_close(ch);
    if (!p->stopping) {
        stop(p, true);
    }
}

/* ---- start and end ---- */

enum cs_err cs_probe_new(struct cs_loop *loop, int supervisor_fd, struct cs_probe **ret)
{
    struct cs_probe *p = cs_alloc(sizeof *p);
    if (p == NULL) {
        (void)close(supervisor_fd);
        return CS_ERR_NO_MEMORY;
    }
    p->loop = loop;
    enum cs_err e = cs_sql_new(&p->sql);
    if (e != CS_OK) {
        (void)close(supervisor_fd);
        cs_free(p);
        return e;
    }
    e = cs_channel_open(loop, supervisor_fd, CS_ROLE_PROBE, CS_ROLE_SUPERVISOR, 0, on_supervisor,
                        on_supervisor_gone, p, &p->supervisor);
    if (e != CS_OK) {
        cs_sql_free(p->sql);
        cs_free(p);
        return e;
    }
    *ret = p;
    return CS_OK;
}

void cs_probe_free(struct cs_probe *p)
{
    if (p == NULL) {
        return;
    }
    cs_channel_close(p->control);
    cs_channel_close(p->supervisor);
    cs_sql_free(p->sql);
    cs_free(p);
}

int cs_probe_run(int supervisor_fd)
{
    struct cs_probe *p = NULL;
    cs_log_init("probe", CS_LEVEL_INFO);
    cs_process_harden();
    struct cs_loop *loop = cs_loop_new();
    if (loop == NULL || cs_probe_new(loop, supervisor_fd, &p) != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "what=\"start failed\"");
        return 1;
    }
    /* Before the first message, as a gate does: whatever comes later is done within the walls. */
    enum cs_err e = cs_sandbox_enter(CS_SANDBOX_PROBE, NULL, 0);
    if (e != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "sandbox=%s", cs_err_name(e));
        return 1;
    }
    cs_loop_run(loop);
    int status = p->failed ? 1 : 0;
    cs_probe_free(p);
    cs_loop_free(loop);
    return status;
}
