/* An upgrade, as the program sees it that comes (or that is called back, when the one that came
 * could not serve): it finds the gates as children of its own process, and the listeners open. New
 * gates get other numbers; the old ones are told to drain once all of this generation is up. */
#include "base/log.h"
#include "roles/supervisor.h"
#include "runtime/process.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { STATE_MAX = 64 * 1024 };

static struct cs_generation handed; /* one a process, too large for a stack */

static void ring_cloexec(const struct cs_ring_fds *r)
{
    for (size_t i = 0; r->epoch != 0 && i < CS_ARRAY_LEN(r->fd); i++) {
        cs_fd_cloexec(r->fd[i], true);
    }
}

bool cs_resume_read(struct cs_supervisor *sv)
{
    struct cs_slice map = CS_SLICE_NULL;
    struct cs_legacy *l = &sv->legacy;
    bool ok =
        cs_sealed_map(sv->resume_fd, STATE_MAX, &map) == CS_OK && cs_generation_read(map, &handed);
    if (ok) {
        /* SECURITY: open for the length of the exec only; a role must not inherit a listener. */
        cs_fd_cloexec(handed.configuration, true);
        if (handed.program >= 0) {
            cs_fd_cloexec(handed.program, true);
        }
        for (size_t i = 0; i < handed.programs.n; i++) {
            cs_fd_cloexec(handed.programs.at[i].fd, true);
        }
        l->programs = handed.programs;
        for (size_t i = 0; i < handed.n_listeners; i++) {
            cs_fd_cloexec(handed.listeners[i].fd, true);
            l->listeners[l->n_listeners++] = handed.listeners[i];
        }
        for (size_t i = 0; i < handed.n_gates; i++) {
            cs_fd_cloexec((int)handed.gates[i].channel, true);
            if (handed.gates[i].metrics > 0) {
                cs_fd_cloexec(handed.gates[i].metrics, true);
            }
            ring_cloexec(&handed.gates[i].ring);
            ring_cloexec(&handed.gates[i].old_ring);
        }
        (void)snprintf(sv->self, sizeof sv->self, "%.*s", CS_SLICE_FMT(handed.self));
        sv->started_ms = handed.started_ms;
        sv->generation = handed.rollback != 0 ? handed.number - 1 : handed.number + 1;
        l->any = true;
        l->rollback = handed.rollback != 0;
        l->program = handed.program;
        l->configuration = handed.configuration;
        l->version = handed.version;
    }
    handed.self = CS_SLICE_NULL;
    cs_sealed_unmap(map);
    (void)close(sv->resume_fd);
    return ok;
}

static bool is_taken(unsigned index)
{
    for (size_t i = 0; i < handed.n_gates; i++) {
        if (handed.gates[i].index == index) {
            return true;
        }
    }
    return false;
}

unsigned cs_resume_index(const struct cs_supervisor *sv, unsigned nth, unsigned *next)
{
    if (sv->legacy.rollback) { /* the gates that were ours are again */
        for (size_t i = 0; i < handed.n_gates; i++) {
            if (handed.gates[i].draining == 0 && nth-- == 0) {
                return (unsigned)handed.gates[i].index;
            }
        }
    }
    while (is_taken(*next)) {
        ++*next;
    }
    return (*next)++;
}

bool cs_resume_gates(struct cs_supervisor *sv)
{
    for (size_t i = 0; i < handed.n_gates; i++) {
        const struct cs_generation_gate *t = &handed.gates[i];
        struct cs_child *c = cs_child_of(sv, CS_ROLE_GATE, t->index);
        if (c == NULL) {
            c = &sv->children[sv->n_children++];
            *c = (struct cs_child){.sv = sv,
                                   .row = cs_child_of(sv, CS_ROLE_GATE, sv->first_gate)->row,
                                   .index = (unsigned)t->index,
                                   .draining = true,
                                   .was_draining = t->draining != 0};
            (void)snprintf(c->name, sizeof c->name, "%s/%u", c->row->program, c->index);
        }
        c->pid = (pid_t)t->pid;
        c->epoch = t->epoch;
        c->restarts = t->restarts;
        c->started_ns = t->started_ns;
        c->ring = t->ring;
        c->old_ring = t->old_ring;
        cs_metrics_adopt(c, t->metrics);
        if (cs_child_adopt(c, (int)t->channel) != CS_OK || cs_wire_snapshot(c) != CS_OK) {
            (void)kill(c->pid, SIGKILL);
            cs_log(CS_EV_INTERNAL, NULL, "role=%s why=\"cannot be taken over\"", c->name);
        }
    }
    return true;
}

static void close_listener(const struct cs_supervisor *sv, const struct cs_open_listener *l)
{
    bool used = false; /* its path, by a socket that was made anew */
    for (size_t i = 0; i < sv->n_listeners; i++) {
        used |= strcmp(sv->listeners[i].address, l->address) == 0;
    }
    (void)close(l->fd);
    if (strcmp(l->kind, "local") == 0 && !used) {
        (void)unlink(l->address);
    }
}

void cs_resume_done(struct cs_supervisor *sv)
{
    const struct cs_msg_drain drain = {.seconds = sv->config.snapshot.drain_s};
    const struct cs_msg_resume resume = {.end_ = 0};
    unsigned draining = 0;
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        if (c->adopted && c->channel != NULL &&
            (c->draining
                 ? cs_channel_send(c->channel, CS_MSG_DRAIN, 0, &drain, NULL, 0)
                 : cs_channel_send(c->channel, CS_MSG_RESUME, 0, &resume, NULL, 0)) != CS_OK) {
            cs_child_kill(c, "does not take its messages");
        }
        draining += c->draining && c->alive ? 1 : 0;
    }
    for (size_t i = 0; i < sv->legacy.n_listeners; i++) {
        close_listener(sv, &sv->legacy.listeners[i]);
    }
    sv->legacy.n_listeners = 0;
    cs_log(sv->legacy.rollback ? CS_EV_UPGRADE_FAILED : CS_EV_UPGRADED, NULL,
           "version=%s generation=%llu draining=%u%s", CS_VERSION,
           (unsigned long long)sv->generation, draining,
           sv->legacy.rollback ? " why=\"the other program could not serve; this one goes on\""
                               : "");
    cs_legacy_done(&sv->legacy);
}

void cs_resume_failed(struct cs_supervisor *sv)
{
    if (!sv->legacy.any || sv->legacy.rollback || sv->legacy.program < 0 || sv->stop.set) {
        return;
    }
    cs_log(CS_EV_UPGRADE_FAILED, NULL, "why=\"this program could not serve\" version=%s",
           CS_VERSION);
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        c->retired = true;
        cs_event_set(&c->poke);
        if (!c->adopted && c->pid > 0) {
            (void)kill(c->pid, SIGKILL);
        }
    }
    for (size_t i = 0; i < sv->n_children; i++) {
        struct cs_child *c = &sv->children[i];
        while (!c->adopted && c->alive) {
            struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &sv->changed);
            cs_event_clear(&sv->changed);
            if (c->alive && cs_wait(&w, 1, CS_FOREVER) != CS_WOKE_READY) {
                return;
            }
        }
        /* As the program that takes them back sees them. */
        c->draining = c->draining && c->was_draining;
    }
    cs_hand_over(sv, true);
}

void cs_legacy_done(struct cs_legacy *l)
{
    if (l->program >= 0) {
        (void)close(l->program);
    }
    cs_programs_close(&l->programs);
    if (l->configuration >= 0) {
        (void)close(l->configuration);
    }
    *l = (struct cs_legacy){.program = -1, .configuration = -1};
}
