/* What control asks the supervisor: how the roles are, and one session's recording, which a
 * replayer job reads so that control never parses what clients sent. */
#include "base/alloc.h"
#include "base/log.h"
#include "base/reader.h"
#include "base/writer.h"
#include "ipc/ring.h"
#include "roles/job.h"
#include "roles/supervisor.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"

#include <stdio.h>
#include <unistd.h>

enum {
    STATUS_MAX = 48 * 1024,
    REPLAY_ANSWER_MAX = 60 * 1024,
    REPLAY_TEXT_MAX = 1024,
    FIND_MAX = 128
};
#define REPLAY_NS      (30 * CS_NS_PER_S)
#define SETTLE_NS      CS_NS_PER_S
#define SETTLE_LOOK_NS (10 * CS_NS_PER_MS)

void cs_answer(struct cs_child *asker, uint64_t epoch, enum cs_msg_type t, uint32_t corr,
               const void *msg, const int *fds, size_t n_fds)
{
    if (asker->channel == NULL || asker->epoch != epoch) {
        return; /* who asked is dead */
    }
    enum cs_err err = cs_channel_send(asker->channel, t, corr, msg, fds, n_fds);
    if (err != CS_OK) {
        cs_log(CS_EV_IPC_BROKEN, NULL, "role=%s message=%s error=%s", asker->name, cs_msg_name(t),
               cs_err_name(err));
    }
}

/* ---- status ---- */

static void role_json(struct cs_buf *out, struct cs_child *c, bool first)
{
    uint64_t up = c->pid > 0 ? (cs_mono_ns() - c->started_ns) / CS_NS_PER_S : 0;
    cs_buf_printf(
        out,
        "%s{\"role\": \"%s\", \"index\": %u, \"pid\": %d, \"ready\": %s, "
        "\"restarts\": %llu, \"uptime_s\": %llu, \"start_us\": %llu, \"draining\": %s",
        first ? "" : ", ", cs_role_name(c->row->role), c->index, (int)c->pid,
        c->ready ? "true" : "false", (unsigned long long)c->restarts, (unsigned long long)up,
        (unsigned long long)(c->ready_ns > c->started_ns ? (c->ready_ns - c->started_ns) / 1000
                                                         : 0),
        c->draining ? "true" : "false");
    if (c->ring.epoch != 0) { /* a gate's: what the recorder last said to it */
        bool well = cs_ring_peek_health(c->ring.fd[0]) == CS_RECORD_HEALTHY;
        cs_buf_printf(out, ", \"record\": \"%s\"", well ? "healthy" : "stopped");
    }
    if (c->pid > 0) {
        struct cs_sandbox_seen seen = cs_sandbox_look(c->pid);
        cs_buf_printf(out, ", \"seccomp\": %s, \"no_new_privs\": %s",
                      seen.seccomp == 2 ? "true" : "false", seen.no_new_privs ? "true" : "false");
    }
    cs_buf_str(out, "}");
}

void cs_answer_status(struct cs_child *asker, uint32_t corr)
{
    struct cs_supervisor *sv = asker->sv;
    struct cs_buf out = cs_buf(STATUS_MAX);
    struct cs_child *recorder = cs_child_of(sv, CS_ROLE_RECORDER, 0);
    char when[CS_TIME_TEXT];
    cs_buf_printf(
        &out,
        "{\"version\": \"%s\", \"pid\": %d, \"started\": \"%s\", \"generation\": %llu, "
        "\"configuration\": "
        "\"%016llx\", \"recorder\": %s, \"sandbox\": \"%s\", \"landlock\": %d, \"user\": %u, "
        "\"roles\": [",
        CS_VERSION, (int)getpid(), cs_time_text(sv->started_ms, when),
        (unsigned long long)sv->generation, (unsigned long long)sv->config.snapshot.version,
        recorder != NULL && recorder->ready ? "true" : "false",
        cs_sandbox_is_off()    ? "off"
        : cs_sandbox_reports() ? "report"
                               : "enforced",
        cs_sandbox_landlock(), (unsigned)cs_process_uid());
    for (size_t i = 0; i < sv->n_children; i++) {
        if (sv->children[i].alive || !sv->children[i].draining) {
            role_json(&out, &sv->children[i], i == 0);
        }
    }
    cs_buf_str(&out, "]}");
    struct cs_msg_status_is m = {.json = out.bad ? CS_SLICE_LIT("{}") : cs_buf_slice(&out)};
    cs_answer(asker, asker->epoch, CS_MSG_STATUS_IS, corr, &m, NULL, 0);
    cs_buf_done(&out);
}

/* ---- replay ---- */

struct replay {
    struct cs_child *asker;
    uint64_t asker_epoch;
    uint32_t corr; /* of the call that is to be answered next */
    struct cs_id session;
    uint64_t from_ms, actions;
    char find[FIND_MAX];
    size_t find_n;
};

/* A replayer that waits until control has had its keys opened. */
struct cs_replay_wait {
    struct replay *replay;
    uint64_t job; /* names it: random, so that an old answer finds nobody */
    struct cs_event answered;
    enum cs_err err;
    struct cs_buf *reply; /* to the job */
    struct cs_replay_wait *next;
};

/* The message has exactly one descriptor: an empty one stands where there is nothing. Takes over
 * fd. */
static void replay_answer(const struct replay *r, enum cs_err err, struct cs_slice text, int fd)
{
    if (r->corr == 0) { /* nobody asks any more */
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    if (fd < 0 && cs_sealed_make("empty", CS_SLICE_NULL, &fd) != CS_OK) {
        return; /* no memory: the asker's deadline tells it */
    }
    struct cs_msg_replayed m = {.err = (uint64_t)err, .text = cs_slice_head(text, REPLAY_TEXT_MAX)};
    cs_answer(r->asker, r->asker_epoch, CS_MSG_REPLAYED, r->corr, &m, &fd, 1);
    (void)close(fd);
}

/* What was appended before now is on disk afterwards, unless the recorder has stopped or a gate
 * lies about its ring: neither keeps anybody from reading what there is. */
static void ring_settle(const struct cs_ring_fds *r, uint64_t deadline_ns)
{
    uint64_t epoch = r->epoch, written = 0, durable = 0, now = 0;
    bool going = epoch != 0 && cs_ring_peek(r->fd[0], &written, &durable);
    while (going && durable < written && cs_mono_ns() < deadline_ns) {
        going = cs_co_sleep(SETTLE_LOOK_NS) && r->epoch == epoch &&
                cs_ring_peek(r->fd[0], &now, &durable);
    }
}

static void rings_settle(struct cs_supervisor *sv)
{
    uint64_t deadline = cs_mono_ns() + SETTLE_NS;
    for (size_t i = 0; i < sv->n_children; i++) {
        ring_settle(&sv->children[i].old_ring, deadline);
        ring_settle(&sv->children[i].ring, deadline);
    }
}

/* What the job is told: an error or its keys, and what to show. */
static void replay_reply(const struct replay *r, enum cs_err err, struct cs_slice rows,
                         struct cs_buf *out)
{
    uint8_t *room = cs_buf_room(out, rows.n + FIND_MAX + 64);
    if (room != NULL) {
        struct cs_writer w = cs_writer(room, rows.n + FIND_MAX + 64);
        cs_writer_u64le(&w, (uint64_t)err);
        cs_writer_slice(&w, rows);
        cs_writer_u64le(&w, r->from_ms);
        cs_writer_u64le(&w, r->actions);
        cs_writer_slice(&w, cs_slice(r->find, r->find_n));
        out->len += cs_writer_done(&w).n;
    }
}

/* The replayer's question, passed to control as the first answer to its call; control answers with
 * a call of its own. */
static enum cs_err replay_ask(void *arg, struct cs_fd *socket, struct cs_slice asked,
                              struct cs_buf *reply, int *ret_fd)
{
    struct replay *r = arg;
    (void)socket;
    *ret_fd = -1;
    struct cs_supervisor *sv = r->asker->sv;
    struct cs_reader rd = cs_reader(asked);
    (void)cs_reader_u64le(&rd);
    struct cs_msg_replay_asks m = {.reader = cs_reader_slice(&rd)};
    m.rows = cs_reader_slice(&rd);
    struct cs_replay_wait here = {.replay = r, .err = CS_ERR_TIMEOUT, .reply = reply};
    if (!cs_reader_done(&rd)) {
        return CS_ERR_PROTOCOL;
    }
    cs_random(&here.job, sizeof here.job);
    m.job = here.job;
    here.next = sv->replay_waits;
    sv->replay_waits = &here;
    cs_answer(r->asker, r->asker_epoch, CS_MSG_REPLAY_ASKS, r->corr, &m, NULL, 0);
    r->corr = 0;
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &here.answered);
    if (cs_wait(&w, 1, cs_mono_ns() + REPLAY_NS) == CS_WOKE_CANCELLED) {
        here.err = CS_ERR_CANCELLED;
    }
    struct cs_replay_wait **at = &sv->replay_waits;
    while (*at != &here) {
        at = &(*at)->next;
    }
    *at = here.next;
    return here.err;
}

void cs_answer_replay_go(struct cs_child *asker, uint32_t corr, const struct cs_msg_replay_go *m)
{
    struct cs_replay_wait *w = asker->sv->replay_waits;
    while (w != NULL && !(w->job == m->job && w->replay->asker == asker &&
                          w->replay->asker_epoch == asker->epoch && !w->answered.set)) {
        w = w->next;
    }
    if (w == NULL) { /* it gave up meanwhile */
        struct replay late = {.asker = asker, .asker_epoch = asker->epoch, .corr = corr};
        replay_answer(&late, CS_ERR_TIMEOUT, CS_SLICE_LIT("the replayer does not wait any more"),
                      -1);
        return;
    }
    w->replay->corr = corr;
    w->err = CS_OK;
    replay_reply(w->replay, m->err < CS_ERR_MAX ? (enum cs_err)m->err : CS_ERR_INTERNAL, m->rows,
                 w->reply);
    cs_event_set(&w->answered);
}

static void replay_run(struct replay *r)
{
    const struct cs_job_ask ask = {replay_ask, r};
    struct cs_supervisor *sv = r->asker->sv;
    rings_settle(sv);
    char path[CS_PATH], id[CS_ID_TEXT], from[24], many[24], filter[FIND_MAX + 1];
    bool log = cs_id_is_zero(&r->session);
    (void)snprintf(from, sizeof from, "%llu", (unsigned long long)r->from_ms);
    (void)snprintf(many, sizeof many, "%llu", (unsigned long long)r->actions);
    (void)snprintf(filter, sizeof filter, "%.*s", (int)r->find_n, r->find);
    const char *const argv[] = {"job-replayer",
                                sv->recordings,
                                log ? "log" : cs_id_text(&r->session, id),
                                log ? from : NULL,
                                log ? many : NULL,
                                log ? filter : NULL,
                                NULL};
    const struct cs_job job = {.path = cs_program_path(sv, "job-replayer", path),
                               .program = cs_program_open(sv, "job-replayer"),
                               .uid =
                                   cs_users_of(sv, CS_ROLE_RECORDER, 0), /* whose files they are */
                               .argv = argv,
                               .deadline_ns = cs_mono_ns() + 2 * REPLAY_NS,
                               .stop = &sv->stop,
                               .ask = &ask};
    struct cs_buf answer = cs_buf(REPLAY_ANSWER_MAX);
    int fd = -1;
    enum cs_err err = cs_job_run(sv->loop, &job, &answer, &fd);
    struct cs_slice text = cs_slice_str(cs_err_text(err));
    if (err == CS_OK) {
        struct cs_reader rd = cs_reader(cs_buf_slice(&answer));
        uint64_t said = cs_reader_u64le(&rd);
        struct cs_slice sentence = cs_reader_slice(&rd);
        bool fits = cs_reader_done(&rd) && said < CS_ERR_MAX && (said == CS_OK) == (fd >= 0);
        err = fits ? (enum cs_err)said : CS_ERR_PROTOCOL;
        text = fits ? sentence : cs_slice_str(cs_err_text(err));
    }
    if (err != CS_OK && fd >= 0) {
        (void)close(fd);
        fd = -1;
    }
    replay_answer(r, err, text, fd);
    cs_buf_done(&answer);
}

static void replay_co(void *arg)
{
    struct replay *r = arg;
    struct cs_supervisor *sv = r->asker->sv;
    replay_run(r);
    sv->replays--;
    cs_event_set(&sv->changed);
    cs_free(r);
}

void cs_answer_replay(struct cs_child *asker, uint32_t corr, const struct cs_msg_replay *m)
{
    struct cs_supervisor *sv = asker->sv;
    struct replay here = {.asker = asker,
                          .asker_epoch = asker->epoch,
                          .corr = corr,
                          .session = m->session,
                          .from_ms = m->from_ms,
                          .actions = m->actions,
                          .find_n = CS_MIN(m->find.n, (size_t)FIND_MAX)};
    if (here.find_n > 0) {
        memcpy(here.find, m->find.p, here.find_n);
    }
    cs_handle co;
    if (sv->replays >= CS_REPLAYS_MAX || sv->stopping || sv->upgrading) {
        replay_answer(&here, CS_ERR_LIMIT,
                      CS_SLICE_LIT("other recordings are being read; try again in a moment"), -1);
        return;
    }
    struct replay *r = cs_alloc(sizeof *r);
    enum cs_err err = CS_ERR_NO_MEMORY;
    if (r != NULL) {
        *r = here;
        sv->replays++;
        err = cs_co_spawn(sv->loop, "replay", replay_co, r, &co);
    }
    if (err != CS_OK) {
        sv->replays -= r != NULL;
        cs_free(r);
        replay_answer(&here, err, cs_slice_str(cs_err_text(err)), -1);
    }
}
