/* The role's own life: broken snapshots, second rings, many connections, the channel's rules. */
#include "runtime/loop_internal.h"
#include "world.h"

#include <netinet/in.h>
#include <sys/socket.h>

static void bad_snapshot(struct world *w)
{
    struct world_client *c = world_session(w);
    const struct cs_gate_config *first = w->gate->config;
    int fd = -1;
    CS_CHECK(cs_sealed_make("snapshot", CS_SLICE_LIT("no snapshot"), &fd) == CS_OK);
    struct cs_msg_snapshot m = {.version = 9};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_SNAPSHOT, 0, &m, &fd, 1) == CS_OK);
    (void)close(fd);
    world_control_new(w); /* behind it on the same channel: both have been read */
    CS_CHECK(w->gate->config == first);
    c->sql = "SELECT 1";
    world_do(c, do_decide);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_ALLOW);
}
CS_TEST(a_snapshot_that_cannot_be_read_leaves_the_old_one)
{
    world_run(bad_snapshot);
}

static void another_poll(struct world *w)
{
    static const uint64_t us[] = {70, 0, 1000};
    CS_EQ_U64(w->loop->busy_poll_ns, 0); /* as the first snapshot says */
    for (size_t i = 0; i < CS_ARRAY_LEN(us); i++) {
        w->busy_poll_us = us[i];
        world_snapshot(w, true);
        world_control_new(w); /* behind it on the same channel: both have been read */
        CS_EQ_U64(w->loop->busy_poll_ns, us[i] * CS_NS_PER_US);
    }
}
CS_TEST(a_reload_changes_how_long_the_gate_looks_before_it_sleeps)
{
    world_run(another_poll);
}

static void second_ring(struct world *w)
{
    struct world_client *c = world_session(w);
    int fds[3];
    CS_CHECK(cs_ring_make(WORLD_RING, fds) == CS_OK);
    struct cs_msg_ring m = {.gate = 0, .epoch = 1};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_RING, 0, &m, fds, 3) == CS_OK);
    for (size_t i = 0; i < 3; i++) {
        (void)close(fds[i]);
    }
    world_control_new(w);
    world_do(c, do_result); /* goes into the first one */
    world_wait(c);
    CS_EQ_U64(c->err, CS_OK);
    world_frame(w, CS_FRAME_RESULT, 1);
}
CS_TEST(a_second_ring_is_not_taken)
{
    world_run(second_ring);
}

static void broken_control(struct world *w)
{
    struct world_client *c = world_session(w);
    world_wait_for(w, c, "AAAAAAAA");
    int pair[2];
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    struct cs_msg_peer m = {.role = CS_ROLE_CONTROL};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_PEER, 0, &m, &pair[1], 1) == CS_OK);
    (void)close(pair[1]);
    static const uint8_t junk[] = {0xff, 0xff, 0, 0, 1, 0, 0, 0};
    CS_CHECK(send(pair[0], junk, sizeof junk, 0) == (ssize_t)sizeof junk);
    while (w->gate->control_generation < 3) { /* taken, and dropped again */
        CS_CHECK(cs_co_sleep(1000000));
    }
    CS_CHECK(w->gate->control == NULL && c->s->state == CS_SESSION_HELD);
    (void)close(pair[0]);
    world_control_new(w);
    world_held(w, c, "AAAAAAAA");
    world_state(w, c, CS_REQUEST_DENIED, NULL);
    world_wait(c);
    CS_EQ_U64(c->v.refusal, CS_REFUSAL_PERSON);
}
CS_TEST(a_control_that_breaks_the_table_is_dropped_and_the_next_one_served)
{
    world_run(broken_control);
}

static bool refused_one(struct world *w, void *arg)
{
    char byte;
    (void)w;
    return recv(*(const int *)arg, &byte, 1, MSG_DONTWAIT) == 0;
}

static void crowd(struct world *w)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(w->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct world_client *known = world_session(w);
    for (unsigned i = 0; i < CS_LIMIT_PREAUTH_PER_ADDRESS; i++) {
        (void)world_client(w);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CS_CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&sa, sizeof sa) == 0);
    world_until(w, refused_one, &fd); /* one too many that has not said who it is */
    (void)close(fd);
    CS_CHECK(known->s != NULL);
    world_hang_up(&w->clients[1]);
    world_ended(&w->clients[1]);
    CS_CHECK(world_client(w)->s != NULL);
}
CS_TEST(connections_without_a_name_are_bounded_per_address)
{
    world_run(crowd);
}
