#include "world.h"

#include "base/time.h"
#include "runtime/stream_filter.h"

#include <sys/socket.h>
#include <unistd.h>

static void play(void *arg)
{
    struct world *w = arg;
    w->script(w);
    cs_loop_stop(w->loop);
}

void world_run(void (*script)(struct world *w))
{
    static struct world world; /* large */
    struct world *w = &world;
    int pair[2];
    cs_handle co;
    *w = (struct world){.script = script, .out = cs_buf(CS_LIMIT_PROBE_RESULT_BYTES)};
    w->loop = cs_loop_new();
    CS_CHECK(w->loop != NULL && cs_sql_new(&w->probe.sql) == CS_OK);
    CS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    w->probe.loop = w->loop;
    w->task.probe = &w->probe;
    w->task.task.target = CS_SLICE_LIT("orders");
    w->task.task.everyday = CS_SLICE_LIT("orders_ro");
    w->task.deadline = cs_mono_ns() + 20 * CS_NS_PER_S;
    w->server = pair[1];
    CS_CHECK(cs_stream_open(w->loop, &w->task.stream, pair[0]) == CS_OK);
    CS_CHECK(cs_co_spawn(w->loop, "test", play, w, &co) == CS_OK);
    cs_loop_run(w->loop);
    cs_stream_close(&w->task.stream);
    (void)close(w->server);
    cs_buf_done(&w->out);
    cs_sql_free(w->probe.sql);
    cs_loop_free(w->loop);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
}

void world_answers(struct world *w, const void *bytes, size_t n)
{
    CS_CHECK(send(w->server, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

void world_heard(struct world *w)
{
    w->n_said = 0;
    ssize_t n = 0;
    while (w->n_said < sizeof w->said &&
           (n = recv(w->server, w->said + w->n_said, sizeof w->said - w->n_said, 0)) > 0) {
        w->n_said += (size_t)n;
    }
}

bool world_was_sent(const struct world *w, const char *text)
{
    return memmem(w->said, w->n_said, text, strlen(text)) != NULL;
}
