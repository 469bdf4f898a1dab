/* The targets' catalogues: asked of probe on a timer, when a gate has seen a definition change, and
 * when one met a name that it does not know; handed to every gate as sealed memory. Called by
 * role.c.
 *
 * What is in a catalogue is not looked at here. A target that does not answer costs a task of its
 * own and nobody's time: the gates keep the last one, and know its age. */
#include "control/control.h"

#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/time.h"

#include <unistd.h>

#define EVERY_NS (CS_LIMIT_CATALOGUE_S * CS_NS_PER_S)
#define LEAST_NS (CS_LIMIT_CATALOGUE_LEAST_MS * CS_NS_PER_MS)

struct cs_ctl_catalogue {
    struct cs_ctl_catalogue *next;
    struct cs_control *c;
    char target[64], address[320], database[128];
    int fd;         /* owned, sealed; -1 = none yet */
    uint64_t taken; /* monotonic ns: when it was asked for */
    uint64_t due, asked;
    unsigned failed; /* looks in a row */
    bool busy;       /* a task is under way */
    bool keep;       /* it is in the configuration */
};

static void keep_text(char *out, size_t size, struct cs_slice s)
{
    s = cs_slice_head(s, size - 1);
    memcpy(out, s.p, s.n);
    out[s.n] = 0;
}

static struct cs_ctl_catalogue *find(struct cs_control *c, struct cs_slice target)
{
    struct cs_ctl_catalogue *k = c->catalogues;
    while (k != NULL && !cs_slice_eq_str(target, k->target)) {
        k = k->next;
    }
    return k;
}

/* ---- to the gates ---- */

static void send_to(struct cs_peer *gate, const struct cs_ctl_catalogue *k)
{
    struct cs_msg_catalogue m = {.target = cs_slice_str(k->target),
                                 .address = cs_slice_str(k->address),
                                 .database = cs_slice_str(k->database),
                                 .taken = k->taken};
    if (k->fd >= 0) {
        (void)cs_peer_send(gate, CS_MSG_CATALOGUE, 0, &m, &k->fd, 1);
    }
}

void cs_catalogue_tell(struct cs_peer *gate)
{
    for (const struct cs_ctl_catalogue *k = gate->c->catalogues; k != NULL && gate->channel != NULL;
         k = k->next) {
        send_to(gate, k);
    }
}

/* Sending may cut a gate off, but frees none: peers go in their own jobs. */
static void send_to_all(struct cs_control *c, const struct cs_ctl_catalogue *k)
{
    for (struct cs_peer *p = c->peers, *next; p != NULL; p = next) {
        next = p->next;
        if (p->role == CS_ROLE_GATE && p->channel != NULL) {
            send_to(p, k);
        }
    }
}

bool cs_catalogue_at(const struct cs_control *c, size_t n, struct cs_slice *ret_target,
                     uint64_t *ret_age_ns)
{
    const struct cs_ctl_catalogue *k = c->catalogues;
    while (k != NULL && n > 0) {
        k = k->next;
        n--;
    }
    if (k != NULL) {
        *ret_target = cs_slice_str(k->target);
        *ret_age_ns = k->fd >= 0 ? cs_mono_ns() - k->taken : UINT64_MAX;
    }
    return k != NULL;
}

/* ---- asking ---- */

static void drop(struct cs_control *c, struct cs_ctl_catalogue *k)
{
    struct cs_ctl_catalogue **at = &c->catalogues;
    while (*at != k) {
        at = &(*at)->next;
    }
    *at = k->next;
    if (k->fd >= 0) {
        (void)close(k->fd);
    }
    cs_free(k);
}

/* A target that does not answer may be one that is just starting: its sessions have every function
 * and view held until it has been looked at. */
static void note_failure(struct cs_ctl_catalogue *k, bool failed)
{
    k->failed = failed ? k->failed + 1 : 0;
    if (failed && k->failed < 16) {
        k->due = CS_MIN(k->due, k->asked + (LEAST_NS << (k->failed - 1)));
    }
}

static void ask(void *arg)
{
    struct cs_ctl_catalogue *k = arg;
    struct cs_control *c = k->c;
    char why[300], address[sizeof k->address], database[sizeof k->database];
    int fd = -1;
    uint64_t began = cs_mono_ns();
    memcpy(address, k->address, sizeof address);
    memcpy(database, k->database, sizeof database);
    enum cs_err e =
        cs_probe_ask_memory(c, cs_slice_str(k->target), CS_PROBE_CATALOGUE, &fd, why, sizeof why);
    k->busy = false;
    bool same = strcmp(address, k->address) == 0 && strcmp(database, k->database) == 0;
    if (e == CS_OK && same) {
        if (k->fd >= 0) {
            (void)close(k->fd);
        }
        k->fd = fd;
        k->taken = began;
        send_to_all(c, k);
    } else if (e == CS_OK) {
        (void)close(fd); /* of another server than the target is now */
    }
    note_failure(k, e != CS_OK);
    cs_event_set(&c->catalogue_moved);
}

static void begin(struct cs_ctl_catalogue *k)
{
    cs_handle co;
    uint64_t now = cs_mono_ns();
    k->busy = true;
    k->asked = now;
    k->due = now + EVERY_NS;
    if (cs_co_spawn(k->c->loop, "catalogue", ask, k, &co) != CS_OK) {
        k->busy = false;
    }
}

/* The list as the configuration has it now. */
static void follow_view(struct cs_control *c)
{
    const struct cs_policy *p = c->view->policy;
    for (struct cs_ctl_catalogue *k = c->catalogues; k != NULL; k = k->next) {
        k->keep = false;
    }
    for (size_t i = 0; i < cs_policy_target_count(p); i++) {
        const struct cs_target *t = cs_policy_target_at(p, i);
        if (!cs_slice_eq_str(t->kind, "postgres")) {
            continue;
        }
        struct cs_ctl_catalogue *k = find(c, t->name);
        if (k == NULL) {
            k = cs_alloc(sizeof *k);
            if (k == NULL) {
                continue;
            }
            *k = (struct cs_ctl_catalogue){.next = c->catalogues, .c = c, .fd = -1};
            keep_text(k->target, sizeof k->target, t->name);
            c->catalogues = k;
        }
        k->keep = true;
        if (!cs_slice_eq_str(t->address, k->address) ||
            !cs_slice_eq_str(t->database, k->database)) {
            keep_text(k->address, sizeof k->address, t->address);
            keep_text(k->database, sizeof k->database, t->database);
            if (k->fd >= 0) {
                (void)close(k->fd);
            }
            k->fd = -1;
            k->due = 0;
        }
    }
    for (struct cs_ctl_catalogue *k = c->catalogues, *next; k != NULL; k = next) {
        next = k->next;
        if (!k->keep && !k->busy) {
            drop(c, k);
        }
    }
}

static bool anybody_home(struct cs_control *c)
{
    struct cs_peer *p = c->peers;
    while (p != NULL && !(p->role == CS_ROLE_PROBE && p->channel != NULL)) {
        p = p->next;
    }
    return p != NULL;
}

void cs_catalogue_run(void *control)
{
    struct cs_control *c = control;
    for (;;) {
        uint64_t now = cs_mono_ns(), next = now + EVERY_NS;
        cs_event_clear(&c->catalogue_moved);
        follow_view(c);
        size_t busy = 0;
        for (struct cs_ctl_catalogue *k = c->catalogues; k != NULL; k = k->next) {
            busy += k->busy ? 1 : 0;
        }
        for (struct cs_ctl_catalogue *k = c->catalogues; k != NULL; k = k->next) {
            uint64_t due = CS_MAX(k->due, k->asked + LEAST_NS);
            if (k->busy || busy >= CS_LIMIT_PROBE_TASKS / 2 || !anybody_home(c)) {
                next = CS_MIN(next, now + CS_NS_PER_S);
            } else if (due <= now || k->asked == 0) {
                begin(k);
                busy++;
            } else {
                next = CS_MIN(next, due);
            }
        }
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &c->catalogue_moved);
        if (cs_wait(&w, 1, next) == CS_WOKE_CANCELLED) {
            return;
        }
    }
}

/* ---- from the gates ---- */

void cs_catalogue_wanted(struct cs_job *j)
{
    const struct cs_msg_catalogue_wanted *m = (const void *)j->msg.raw;
    struct cs_control *c = j->peer->c;
    struct cs_ctl_catalogue *k = find(c, m->target);
    if (k == NULL) {
        return;
    }
    k->due = 0;
    cs_event_set(&c->catalogue_moved);
    struct cs_msg_catalogue_old old = {.target = m->target};
    for (struct cs_peer *p = m->changed == 1 ? c->peers : NULL, *next; p != NULL; p = next) {
        next = p->next;
        if (p->role == CS_ROLE_GATE && p != j->peer && p->channel != NULL) {
            (void)cs_peer_send(p, CS_MSG_CATALOGUE_OLD, 0, &old, NULL, 0);
        }
    }
}

void cs_catalogue_free(struct cs_control *c)
{
    while (c->catalogues != NULL) {
        drop(c, c->catalogues);
    }
}
