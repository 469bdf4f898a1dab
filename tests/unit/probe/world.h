/* One task of probe's, without the role around it: its connection is a socket pair, and the test is
 * the server at the other end. What the server will say is written before it is asked. */
#ifndef CS_TEST_PROBE_WORLD_H
#define CS_TEST_PROBE_WORLD_H

#include "base/alloc.h"
#include "probe/probe.h"
#include "tap.h"

struct world {
    struct cs_loop *loop;
    struct cs_probe probe;
    struct cs_probe_task_run task;
    struct cs_buf out;
    enum cs_err err;
    int server;       /* non-blocking */
    char said[70000]; /* what the server was sent */
    size_t n_said;
    void (*script)(struct world *w);
};

/* Runs the script in a coroutine; checks that no memory is left. */
void world_run(void (*script)(struct world *w));
/* Sends these bytes as the server. */
void world_answers(struct world *w, const void *bytes, size_t n);
/* What the server has been sent since the last call of this, in w->said. */
void world_heard(struct world *w);
/* Whether these bytes were among it. */
bool world_was_sent(const struct world *w, const char *text);

#endif
