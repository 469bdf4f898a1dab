/* What the files of this folder share; nobody else includes it. */
#ifndef CS_FRONT_INTERNAL_H
#define CS_FRONT_INTERNAL_H

#include "base/buf.h"
#include "base/pool.h"
#include "crypto/tls.h"
#include "front/front.h"
#include "front/metrics.h"
#include "ipc/ipc.h"
#include "runtime/sock.h"
#include "wire/http1.h"

enum {
    CS_FRONT_LISTENERS = 8,
    /* Connections that only root and the service's own user may use, on the local socket: who
     * floods the listeners does not lock out the administrator. */
    CS_FRONT_LOCAL_RESERVE = 64,
    CS_FRONT_URL_MAX = 300,
};

/* What a connection keeps when a reload brings new ones. */
struct cs_front_config {
    struct cs_tls_ctx *tls; /* owned; NULL = the listener is plain */
    struct cs_tls_ctx *metrics_tls;
    unsigned refs;
    size_t listeners;
    uint8_t *proxies; /* owned: the load balancers of the control listener; NULL = none */
    size_t proxies_n;
    size_t url_n;
    char url[CS_FRONT_URL_MAX];
};

/* One call to control, and its answer. */
struct cs_front_call {
    struct cs_front *front;
    cs_handle co;
    struct cs_event done;
    bool abandoned; /* nobody waits: its coroutine frees it */
    uint64_t deadline;
    struct cs_msg_api msg; /* slices point into bytes */
    uint8_t *bytes;        /* owned */
    size_t n_bytes;
    struct cs_call call; /* owned; the answer points into it */
    /* when done: */
    enum cs_err err;
    unsigned status;
    struct cs_slice type, body;
    int fd; /* borrowed from call; -1, or the body in sealed memory */
};

struct cs_front_conn {
    struct cs_front *front;
    cs_handle self;
    struct cs_stream stream;
    struct cs_front_config *config; /* one reference */
    bool local;
    bool metrics;      /* by the metrics listener: the numbers, and nothing else */
    bool keep;         /* another request may follow */
    bool behind_proxy; /* its address stands in a PROXY header that is still to be read */
    uint64_t uid;
    char address[CS_ADDR_TEXT];
    struct cs_addr_net net; /* the same, as limits per address count it */
    uint64_t served;
    struct cs_front_call *call; /* owned */
    struct cs_front_conn *next, **prev;
};

struct cs_front_listener {
    struct cs_front *front;
    struct cs_fd fd;
    bool local, metrics;
};

struct cs_front {
    struct cs_loop *loop;
    struct cs_front_times times;
    struct cs_channel *control;
    struct cs_front_config *config;
    struct cs_front_listener listeners[CS_FRONT_LISTENERS];
    size_t n_listeners;
    struct cs_pool pool;
    struct cs_front_conn *conns;
    size_t metrics_open;              /* connections by the metrics listener */
    struct cs_front_metrics *metrics; /* owned */
    struct cs_event draining, empty;
    uint64_t service_uid; /* whose local connections are never too many */
    /* Scratch for the request being looked at: filled and used up between two waits. */
    struct cs_http_request request;
    uint8_t small[16 * 1024]; /* the same for an answer on its way into a stream's queue */
};

/* conn.c: a connection's coroutine; frees the connection at its end. */
void cs_front_conn_main(void *conn);

/* listen.c */
/* SECURITY: reads the PROXY header where one is due; false when the connection must not go on. */
bool cs_front_know_address(struct cs_front_conn *c);
void cs_front_config_unref(struct cs_front_config *c);
/* Closes and frees it. */
void cs_front_conn_gone(struct cs_front_conn *c);

/* call.c */
/* Copies the message; `done` is set when there is an answer or none will come. */
enum cs_err cs_front_call_start(struct cs_front *f, const struct cs_msg_api *msg,
                                uint64_t deadline_ns, struct cs_front_call **ret) CS_MUST_CHECK;
/* Frees, or gives up what is still under way and tells control. NULL is fine. */
void cs_front_call_end(struct cs_front_call *call);

/* page.c: the Content-Security-Policy of every page, and the page behind /r/ID. */
const char *cs_front_csp(void);
struct cs_buf cs_front_request_page(struct cs_slice url, struct cs_slice id, unsigned *ret_status);

#endif
