/* Texts that are too long to be parsed in a gate. A gate hands one over as sealed memory; a job of
 * its own (programs/job-parser.c) parses it and nothing else, and what it says goes back to that
 * gate unread. Called for the gates' questions (child.c).
 *
 * One job reads one text: what a text does to the process that parses it ends with that process,
 * and no other session's text meets it. The next job is started before it is needed, because a
 * start takes longer than most texts; with nothing to do for a while it goes. Must never look into
 * a text or an answer, nor let one question be answered with another's. */
#include "base/alloc.h"
#include "base/limits.h"
#include "base/writer.h"
#include "roles/job.h"
#include "roles/supervisor.h"

#include <unistd.h>

#define WAIT_NS (CS_LIMIT_PARSER_WAIT_MS * CS_NS_PER_MS)
#define IDLE_NS (60 * CS_NS_PER_S)
enum { ANSWER_BYTES = 16 };

struct cs_parse { /* a question */
    struct cs_child *asker;
    uint64_t asker_epoch;
    uint32_t corr;
    int fd; /* owned: the text */
    uint64_t deadline_ns;
    struct cs_parse *next;
};

struct cs_parser { /* a job, and the coroutine that waits for it */
    struct cs_supervisor *sv;
    struct cs_job job;
    struct cs_parse *task; /* owned; NULL = waits for one, or is starting */
    bool ready;            /* it has said that it is within its walls */
    struct cs_event given; /* look again */
    struct cs_parser *next;
};

static void refuse(struct cs_parse *t, enum cs_err err)
{
    struct cs_msg_not_parsed m = {.err = (uint64_t)err};
    cs_answer(t->asker, t->asker_epoch, CS_MSG_NOT_PARSED, t->corr, &m, NULL, 0);
}

static void task_free(struct cs_parse *t)
{
    (void)close(t->fd);
    cs_free(t);
}

static bool leaving(const struct cs_supervisor *sv)
{
    return sv->stopping || sv->upgrading;
}

/* The oldest question that somebody still waits for. */
static struct cs_parse *next_task(struct cs_supervisor *sv)
{
    struct cs_parse *t = sv->parsers.waiting;
    while (t != NULL && t->deadline_ns <= cs_mono_ns()) {
        sv->parsers.waiting = t->next;
        task_free(t);
        t = sv->parsers.waiting;
    }
    if (t != NULL) {
        sv->parsers.waiting = t->next;
        t->next = NULL;
    }
    return t;
}

/* ---- one job ---- */

/* The job is ready for its text: waits until there is one. */
static enum cs_err hand_over(void *arg, struct cs_fd *socket, struct cs_slice asked,
                             struct cs_buf *reply, int *ret_fd)
{
    struct cs_parser *p = arg;
    struct cs_supervisor *sv = p->sv;
    uint64_t until = cs_mono_ns() + IDLE_NS;
    p->ready = true;
    if (asked.n != sizeof(uint64_t)) {
        return CS_ERR_PROTOCOL;
    }
    for (;;) {
        struct cs_wait w[] = {CS_WAIT_ON(CS_WAIT_EVENT, &p->given),
                              CS_WAIT_ON(CS_WAIT_EVENT, &sv->stop),
                              CS_WAIT_ON(CS_WAIT_HUP, socket)};
        p->task = leaving(sv) ? NULL : next_task(sv);
        if (p->task != NULL || leaving(sv)) {
            break;
        }
        cs_event_clear(&p->given);
        if (cs_wait(w, CS_ARRAY_LEN(w), until) != CS_WOKE_READY || w[2].ready) {
            break;
        }
    }
    if (p->task == NULL) {
        return CS_ERR_CANCELLED; /* nothing to do: let it go */
    }
    p->job.deadline_ns = p->task->deadline_ns;
    cs_buf_u8(reply, 0);
    *ret_fd = p->task->fd;
    return CS_OK;
}

static void want(struct cs_supervisor *sv);

static void give_up(struct cs_supervisor *sv, enum cs_err err)
{
    struct cs_parse *t;
    while ((t = next_task(sv)) != NULL) {
        refuse(t, err);
        task_free(t);
    }
}

/* Nothing stands in its message but that there is an answer, and that is in the descriptor. */
static void answer(struct cs_parse *t, enum cs_err err, struct cs_slice said, int fd)
{
    static const uint8_t ok[sizeof(uint64_t)];
    if (err == CS_OK && fd >= 0 && cs_slice_eq(said, cs_slice(ok, sizeof ok))) {
        struct cs_msg_parsed m = {.end_ = 0};
        cs_answer(t->asker, t->asker_epoch, CS_MSG_PARSED, t->corr, &m, &fd, 1);
    } else {
        refuse(t, err == CS_OK || err == CS_ERR_UNAVAILABLE ? CS_ERR_PROTOCOL : err);
    }
}

static void parser_co(void *arg)
{
    struct cs_parser *p = arg;
    struct cs_supervisor *sv = p->sv;
    char path[CS_PATH];
    const char *const argv[] = {"job-parser", NULL};
    const struct cs_job_ask ask = {hand_over, p};
    struct cs_buf said = cs_buf(ANSWER_BYTES);
    int fd = -1;
    p->job = (struct cs_job){.path = cs_program_path(sv, "job-parser", path),
                             .program = cs_program_open(sv, "job-parser"),
                             .uid = cs_users_of(sv, CS_ROLE_JOB, 0),
                             .argv = argv,
                             .deadline_ns = cs_mono_ns() + WAIT_NS,
                             .stop = &sv->stop,
                             .ask = &ask};
    enum cs_err err = cs_job_run(sv->loop, &p->job, &said, &fd);
    if (p->task != NULL) {
        answer(p->task, err, cs_buf_slice(&said), fd);
        task_free(p->task);
    } else if (!p->ready) {
        give_up(sv, CS_ERR_INTERNAL); /* it does not start: the next would not either */
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    cs_buf_done(&said);
    struct cs_parser **at = &sv->parsers.first;
    while (*at != p) {
        at = &(*at)->next;
    }
    *at = p->next;
    sv->parsers.n--;
    cs_event_set(&sv->changed);
    if (sv->parsers.waiting != NULL) {
        want(sv);
    }
    cs_free(p);
}

/* ---- all of them ---- */

/* A job for each text that waits and one more, as long as that is not too many. */
static void want(struct cs_supervisor *sv)
{
    unsigned wanted = 1, there = 0;
    for (const struct cs_parse *t = sv->parsers.waiting; t != NULL; t = t->next) {
        wanted++;
    }
    for (struct cs_parser *p = sv->parsers.first; p != NULL; p = p->next) {
        there += p->task == NULL;
        cs_event_set(&p->given);
    }
    for (; there < wanted && sv->parsers.n < CS_LIMIT_PARSERS && !leaving(sv); there++) {
        cs_handle co;
        struct cs_parser *p = cs_alloc(sizeof *p);
        if (p == NULL || cs_co_spawn(sv->loop, "parser", parser_co, p, &co) != CS_OK) {
            cs_free(p);
            break;
        }
        p->sv = sv;
        p->next = sv->parsers.first;
        sv->parsers.first = p;
        sv->parsers.n++;
    }
    if (sv->parsers.n == 0) {
        give_up(sv, CS_ERR_NO_MEMORY);
    }
}

void cs_parse(struct cs_child *asker, uint32_t corr, int fd)
{
    struct cs_supervisor *sv = asker->sv;
    struct cs_parse **at = &sv->parsers.waiting;
    unsigned of_asker = 0;
    for (; *at != NULL; at = &(*at)->next) {
        of_asker += (*at)->asker == asker;
    }
    struct cs_parse here = {asker, asker->epoch, corr, fd, cs_mono_ns() + WAIT_NS, NULL};
    struct cs_parse *t = NULL;
    if (corr == 0 || leaving(sv) || of_asker >= CS_LIMIT_PARSES_PER_GATE) {
        refuse(&here, leaving(sv) ? CS_ERR_UNAVAILABLE : CS_ERR_LIMIT);
    } else {
        t = cs_alloc(sizeof *t);
    }
    if (t == NULL) {
        (void)close(fd);
        return;
    }
    *t = here;
    *at = t;
    want(sv);
}

void cs_parsers_leave(struct cs_supervisor *sv)
{
    give_up(sv, CS_ERR_UNAVAILABLE);
    cs_own_parsers_end(sv, NULL);
    for (struct cs_parser *p = sv->parsers.first; p != NULL; p = p->next) {
        cs_event_set(&p->given);
    }
}
