/* One task from control's question to its answer: what is refused before it begins, what control
 * does not give, servers that do not go along, and a control that is another one meanwhile. */
#include "world.h"

#include "base/time.h"
#include "runtime/sock.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum how { REFUSES, TALKS_NONSENSE, GIVES_A_SERVER_WITHOUT_TLS, GIVES_A_DEAD_ONE, IS_ANOTHER_ONE };

static struct {
    struct cs_channel *probe, *control; /* the two ends */
    enum how how;
    unsigned connects;
    enum cs_err started;
    int server;
} side;

static struct cs_slice task_bytes(struct cs_buf *out)
{
    const struct cs_probe_task t = {.target = CS_SLICE_LIT("orders"),
                                    .host = CS_SLICE_LIT("db.example"),
                                    .tls = CS_SLICE_LIT("require"),
                                    .channel_binding = CS_SLICE_LIT("disable"),
                                    .database = CS_SLICE_LIT("orders"),
                                    .everyday = CS_SLICE_LIT("orders_ro")};
    cs_probe_task_write(out, &t);
    CS_CHECK(!out->bad);
    return cs_buf_slice(out);
}

static int task_memory(void)
{
    struct cs_buf out = cs_buf(CS_PROBE_TASK_MAX);
    int fd = -1;
    CS_EQ_U64(cs_sealed_make("task", task_bytes(&out), &fd), CS_OK);
    cs_buf_done(&out);
    return fd;
}

/* ---- refused before it begins ---- */

static int unsealed_memory(void)
{
    struct cs_buf out = cs_buf(CS_PROBE_TASK_MAX);
    struct cs_slice bytes = task_bytes(&out);
    int fd = memfd_create("task", MFD_CLOEXEC);
    CS_CHECK(fd >= 0 && write(fd, bytes.p, bytes.n) == (ssize_t)bytes.n);
    cs_buf_done(&out);
    return fd;
}

static int nonsense_memory(void)
{
    int fd = -1;
    CS_EQ_U64(cs_sealed_make("task", CS_SLICE_LIT("no task of any kind"), &fd), CS_OK);
    return fd;
}

static void script_refused(struct world *w)
{
    const struct cs_id id = cs_id_new(), none = {{0}};
    const struct {
        struct cs_msg_probe m;
        int (*memory)(void);
    } bad[] = {
        {{.task = id, .kind = CS_PROBE_CATALOGUE}, unsealed_memory},
        {{.task = id, .kind = CS_PROBE_CATALOGUE}, nonsense_memory},
        {{.task = id, .kind = 0}, task_memory},
        {{.task = id, .kind = 99}, task_memory},
        {{.task = none, .kind = CS_PROBE_CATALOGUE}, task_memory},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        int fd = bad[i].memory();
        CS_CHECK(cs_probe_task_start(&w->probe, 1, &bad[i].m, fd) != CS_OK);
        CS_CHECK(close(fd) != 0); /* it was taken over all the same */
    }
    CS_EQ_U64(w->probe.n_tasks, 0);
}

CS_TEST(task_is_refused_when_its_memory_or_kind_or_name_is_none)
{
    world_run(script_refused);
}

/* ---- what control answers ---- */

static void give(struct cs_channel *ch, uint32_t corr, int fd)
{
    const struct cs_msg_probe_connected m = {.connection = 5, .user = CS_SLICE_LIT("orders_ro")};
    CS_EQ_U64(cs_channel_send(ch, CS_MSG_PROBE_CONNECTED, corr, &m, &fd, 1), CS_OK);
    (void)close(fd);
}

static void on_control(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct world *w = arg;
    const struct cs_msg_probe_not_connected no = {.err = CS_ERR_DENIED,
                                                  .text = CS_SLICE_LIT("the server said no")};
    const struct cs_msg_probe_not_connected fine = {.err = CS_OK, .text = CS_SLICE_NULL};
    int pair[2];
    CS_EQ_U64(in->type, CS_MSG_PROBE_CONNECT);
    side.connects++;
    switch (side.how) {
    case TALKS_NONSENSE: /* not connected, and nothing is wrong */
        CS_EQ_U64(cs_channel_send(ch, CS_MSG_PROBE_NOT_CONNECTED, in->corr, &fine, NULL, 0), CS_OK);
        break;
    case GIVES_A_SERVER_WITHOUT_TLS:
    case GIVES_A_DEAD_ONE:
        CS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        if (side.how == GIVES_A_DEAD_ONE) {
            (void)close(pair[1]);
        } else {
            side.server = pair[1];
            CS_CHECK(send(pair[1], "N", 1, MSG_NOSIGNAL) == 1);
        }
        give(ch, in->corr, pair[0]);
        break;
    case IS_ANOTHER_ONE:
        w->probe.control_epoch++;
        CS_EQ_U64(cs_channel_send(ch, CS_MSG_PROBE_NOT_CONNECTED, in->corr, &no, NULL, 0), CS_OK);
        break;
    case REFUSES:
    default:
        CS_EQ_U64(cs_channel_send(ch, CS_MSG_PROBE_NOT_CONNECTED, in->corr, &no, NULL, 0), CS_OK);
        break;
    }
}

static void on_probe(struct cs_channel *ch, const struct cs_channel_in *in, void *arg)
{
    struct world *w = arg;
    (void)ch;
    CS_EQ_U64(in->type, CS_MSG_PROBE);
    side.started = cs_probe_task_start(&w->probe, in->corr, in->msg, in->fd[0]);
}

static void on_gone(struct cs_channel *ch, void *arg)
{
    (void)ch;
    (void)arg;
}

/* Asks as control; the answer is left in `ret`. */
static enum cs_err ask(struct world *w, enum how how, uint64_t wait_ns, struct cs_call *ret)
{
    int pair[2], fd = task_memory();
    const struct cs_msg_probe m = {.task = cs_id_new(), .kind = CS_PROBE_CATALOGUE};
    memset(&side, 0, sizeof side);
    side.how = how;
    side.server = -1;
    CS_EQ_U64(cs_socketpair(pair), CS_OK);
    CS_EQ_U64(cs_channel_open(w->loop, pair[0], CS_ROLE_PROBE, CS_ROLE_CONTROL, 0, on_probe,
                              on_gone, w, &side.probe),
              CS_OK);
    CS_EQ_U64(cs_channel_open(w->loop, pair[1], CS_ROLE_CONTROL, CS_ROLE_PROBE, 0, on_control,
                              on_gone, w, &side.control),
              CS_OK);
    cs_channel_run_phase(side.probe);
    cs_channel_run_phase(side.control);
    w->probe.control = side.probe;
    *ret = (struct cs_call){.fd = {-1, -1, -1}};
    enum cs_err e =
        cs_channel_call(side.control, CS_MSG_PROBE, &m, &fd, 1, cs_mono_ns() + wait_ns, ret);
    (void)close(fd);
    CS_EQ_U64(side.started, CS_OK);
    CS_EQ_U64(side.connects, 1);
    return e;
}

static void finish(struct world *w, struct cs_call *call)
{
    cs_call_done(call);
    while (w->probe.n_tasks > 0) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    w->probe.control = NULL;
    cs_channel_close(side.probe);
    cs_channel_close(side.control);
    if (side.server >= 0) {
        (void)close(side.server);
    }
    CS_CHECK(cs_co_sleep(CS_NS_PER_MS)); /* their coroutines end */
}

/* What control hears of a task that did not work: why, and memory with nothing in it. */
static enum cs_err fails(struct world *w, enum how how, const char *why)
{
    struct cs_call call;
    struct cs_slice result;
    CS_EQ_U64(ask(w, how, 20 * CS_NS_PER_S, &call), CS_OK);
    CS_EQ_U64(call.type, CS_MSG_PROBED);
    const struct cs_msg_probed *m = (const void *)call.msg.raw;
    enum cs_err e = (enum cs_err)m->err;
    CS_CHECK(e != CS_OK && m->text.n > 0);
    if (why != NULL) {
        CS_EQ_STR(m->text, why);
    }
    CS_EQ_U64(cs_sealed_map(call.fd[0], CS_LIMIT_PROBE_RESULT_BYTES, &result), CS_OK);
    CS_EQ_U64(result.n, 0);
    cs_sealed_unmap(result);
    finish(w, &call);
    return e;
}

static void script_answers(struct world *w)
{
    CS_EQ_U64(fails(w, REFUSES, "the server said no"), CS_ERR_DENIED);
    CS_EQ_U64(fails(w, TALKS_NONSENSE, NULL), CS_ERR_PROTOCOL);
    /* TLS was asked for: nothing goes to a server that does not speak it. */
    (void)fails(w, GIVES_A_SERVER_WITHOUT_TLS, NULL);
    (void)fails(w, GIVES_A_DEAD_ONE, NULL);
}

CS_TEST(task_that_gets_no_connection_or_no_login_says_why_and_has_no_result)
{
    world_run(script_answers);
}

static void script_another_control(struct world *w)
{
    struct cs_call call;
    CS_EQ_U64(ask(w, IS_ANOTHER_ONE, CS_NS_PER_S / 2, &call), CS_ERR_TIMEOUT);
    finish(w, &call);
}

CS_TEST(task_of_a_control_that_is_gone_ends_and_tells_nobody)
{
    world_run(script_another_control);
}
