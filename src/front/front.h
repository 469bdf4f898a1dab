/* The front role: the control listener (TLS) and the local socket, HTTP/1.1 on both. Every API
 * request becomes one typed message to control and its answer one response; the page behind a
 * request's link is written here. Front holds no store, no secret but its listener's key, and knows
 * no token: only the hash of one leaves the connection that it came on. */
#ifndef CS_FRONT_FRONT_H
#define CS_FRONT_FRONT_H

#include "base/err.h"
#include "base/slice.h"
#include "runtime/loop.h"

struct cs_front;

/* Times that tests shorten; 0 = as in limits.def. */
struct cs_front_times {
    uint64_t head_ms, idle_ms, call_ms;
};

struct cs_front *cs_front_new(struct cs_loop *loop, const struct cs_front_times *times);
/* Cuts every connection that is left; call it when the loop has ended. */
void cs_front_free(struct cs_front *f);
/* Takes certificate, key and url out of a snapshot (wire/snapshot.h). Connections that are open
 * keep theirs. On an error the old ones stay. */
enum cs_err cs_front_configure(struct cs_front *f, struct cs_slice snapshot) CS_MUST_CHECK;
/* Listeners that the snapshot wants here, and those that have come. */
size_t cs_front_listeners_wanted(const struct cs_front *f);
size_t cs_front_listeners(const struct cs_front *f);
/* Takes over the descriptor. `local`: a unix socket, whose peers are known by their user id. */
enum cs_err cs_front_add_listener(struct cs_front *f, int fd, bool local) CS_MUST_CHECK;
/* The metrics listener; takes over the descriptor. */
enum cs_err cs_front_add_metrics_listener(struct cs_front *f, int fd) CS_MUST_CHECK;
/* A process's pages (front/metrics.h); the caller keeps the descriptors. */
enum cs_err cs_front_add_metrics(struct cs_front *f, uint64_t role, uint64_t index, int own,
                                 int about) CS_MUST_CHECK;
/* Starts accepting on all listeners. */
enum cs_err cs_front_accept(struct cs_front *f) CS_MUST_CHECK;
/* Whose local connections are never too many, besides root's; ours until this is called. */
void cs_front_set_service(struct cs_front *f, uint64_t uid);
/* Takes over the descriptor of a channel to control; an older channel is closed and its calls fail.
 */
enum cs_err cs_front_set_control(struct cs_front *f, int fd, uint64_t index) CS_MUST_CHECK;
bool cs_front_has_control(const struct cs_front *f);
/* Accepts no more, lets present requests end (some seconds at most), then stops the loop. */
void cs_front_drain(struct cs_front *f);

/* The role: descriptor 3 is the supervisor. Returns the exit status. */
int cs_front_main(int supervisor_fd, const char *name);

#endif
