/* The front's listeners, its configuration out of the snapshot, and the count of connections.
 * Called by front.c (the role) and by tests. Must never open a file: certificates and keys come as
 * bytes. */
#include "base/alloc.h"
#include "base/log.h"
#include "crypto/crypto.h"
#include "front/internal.h"
#include "ipc/metrics.h"
#include "runtime/proxy.h"
#include "wire/snapshot.h"

#include <unistd.h>

struct cs_front *cs_front_new(struct cs_loop *loop, const struct cs_front_times *times)
{
    struct cs_front *f = cs_alloc(sizeof *f);
    if (f == NULL) {
        return NULL;
    }
    f->metrics = cs_front_metrics_new();
    if (f->metrics == NULL) {
        cs_free(f);
        return NULL;
    }
    f->loop = loop;
    f->service_uid = geteuid();
    f->times = times != NULL ? *times : (struct cs_front_times){0, 0, 0};
    f->times.head_ms = f->times.head_ms > 0 ? f->times.head_ms : CS_LIMIT_HTTP_HEAD_S * 1000;
    f->times.idle_ms = f->times.idle_ms > 0 ? f->times.idle_ms : CS_LIMIT_HTTP_IDLE_S * 1000;
    f->times.call_ms = f->times.call_ms > 0 ? f->times.call_ms : CS_LIMIT_HTTP_CALL_S * 1000;
    cs_pool_init(&f->pool, sizeof(struct cs_front_conn), CS_LIMIT_HTTP_CONNECTIONS);
    return f;
}

void cs_front_set_service(struct cs_front *f, uint64_t uid)
{
    f->service_uid = uid;
}

void cs_front_config_unref(struct cs_front_config *c)
{
    if (c != NULL && --c->refs == 0) {
        cs_tls_ctx_free(c->tls);
        cs_tls_ctx_free(c->metrics_tls);
        cs_free(c->proxies);
        cs_free(c);
    }
}

void cs_front_free(struct cs_front *f)
{
    if (f == NULL) {
        return;
    }
    for (size_t i = 0; i < f->n_listeners; i++) {
        cs_fd_close(&f->listeners[i].fd);
    }
    if (f->control != NULL) {
        cs_channel_close(f->control);
    }
    cs_front_config_unref(f->config);
    cs_front_metrics_free(f->metrics);
    cs_pool_done(&f->pool);
    cs_free(f);
}

/* ---- configuration ---- */
struct tls_args { /* for the big stack: PEM and certificates go deep */
    const struct cs_snapshot_listener *listener;
    struct cs_tls_ctx *ctx;
    enum cs_err err;
};

static void make_tls(void *p)
{
    struct tls_args *a = p;
    a->err = cs_tls_server_new(a->listener->cert_pem, a->listener->key_pem, "http/1.1", &a->ctx);
}

static enum cs_err fill_proxies(struct cs_front_config *c, struct cs_slice from)
{
    c->proxies = cs_alloc(from.n);
    if (c->proxies == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    memcpy(c->proxies, from.p, from.n);
    c->proxies_n = from.n;
    return CS_OK;
}

static enum cs_err new_tls(const struct cs_snapshot_listener *l, struct cs_tls_ctx **ret)
{
    struct tls_args a = {l, NULL, CS_OK};
    if (l->tls != 0 && *ret == NULL) {
        a.err = CS_ERR_TLS;
        cs_big_stack_call(make_tls, &a);
        *ret = a.ctx;
    }
    return a.err;
}

struct expiry_args {
    struct cs_slice pem;
    uint64_t ms;
};

static void find_expiry(void *p)
{
    struct expiry_args *a = p;
    a->ms = cs_certificate_expires_ms(a->pem);
}

/* For the metrics: the listeners' certificates are in the snapshot, and nobody else looks. */
static void count_certificates(const struct cs_snapshot *s)
{
    static const char *const kinds[CS_DIM_SERVES] = {"control", "postgres", "metrics"};
    for (size_t k = 0; k < CS_ARRAY_LEN(kinds); k++) {
        cs_metric_set(CS_SLOT_CERTIFICATE + k, 0);
        for (size_t i = 0; i < s->n_listeners; i++) {
            struct expiry_args a = {s->listeners[i].cert_pem, 0};
            if (s->listeners[i].tls != 0 && cs_slice_eq_str(s->listeners[i].kind, kinds[k])) {
                cs_big_stack_call(find_expiry, &a);
                cs_metric_set(CS_SLOT_CERTIFICATE + k, a.ms);
            }
        }
    }
}

static enum cs_err fill_config(struct cs_front_config *c, const struct cs_snapshot *s)
{
    struct cs_slice url = s->url;
    while (url.n > 0 && url.p[url.n - 1] == '/') {
        url.n--;
    }
    if (url.n >= sizeof c->url) {
        return CS_ERR_INVALID;
    }
    if (url.n > 0) {
        memcpy(c->url, url.p, url.n);
    }
    c->url_n = url.n;
    for (size_t i = 0; i < s->n_listeners; i++) {
        const struct cs_snapshot_listener *l = &s->listeners[i];
        bool control = cs_slice_eq_str(l->kind, "control");
        bool metrics = cs_slice_eq_str(l->kind, "metrics");
        c->listeners += control || metrics || cs_slice_eq_str(l->kind, "local");
        if (control && l->proxy_from.n > 0 && c->proxies == NULL &&
            fill_proxies(c, l->proxy_from) != CS_OK) {
            return CS_ERR_NO_MEMORY;
        }
        enum cs_err err = control   ? new_tls(l, &c->tls)
                          : metrics ? new_tls(l, &c->metrics_tls)
                                    : CS_OK;
        if (err != CS_OK) {
            return err;
        }
    }
    count_certificates(s);
    return CS_OK;
}

enum cs_err cs_front_configure(struct cs_front *f, struct cs_slice snapshot)
{
    struct cs_snapshot *s = cs_alloc(sizeof *s);
    struct cs_front_config *c = cs_alloc(sizeof *c);
    enum cs_err err = CS_ERR_NO_MEMORY;
    if (s != NULL && c != NULL) {
        c->refs = 1;
        err = cs_snapshot_read(snapshot, s) ? fill_config(c, s) : CS_ERR_CORRUPT;
    }
    cs_free(s);
    if (err != CS_OK) {
        if (c != NULL) {
            cs_front_config_unref(c);
        }
        return err;
    }
    cs_front_config_unref(f->config);
    f->config = c;
    return CS_OK;
}

size_t cs_front_listeners_wanted(const struct cs_front *f)
{
    return f->config != NULL ? f->config->listeners : SIZE_MAX;
}

size_t cs_front_listeners(const struct cs_front *f)
{
    return f->n_listeners;
}

/* ---- accepting ---- */
static enum cs_err add_listener(struct cs_front *f, int fd, bool local, bool metrics)
{
    if (f->n_listeners == CS_FRONT_LISTENERS) {
        (void)close(fd);
        return CS_ERR_LIMIT;
    }
    struct cs_front_listener *l = &f->listeners[f->n_listeners];
    enum cs_err err = cs_fd_open_listener(f->loop, &l->fd, fd);
    if (err != CS_OK) {
        return err;
    }
    l->front = f;
    l->local = local;
    l->metrics = metrics;
    f->n_listeners++;
    return CS_OK;
}

enum cs_err cs_front_add_listener(struct cs_front *f, int fd, bool local)
{
    return add_listener(f, fd, local, false);
}

enum cs_err cs_front_add_metrics_listener(struct cs_front *f, int fd)
{
    return add_listener(f, fd, false, true);
}

enum cs_err cs_front_add_metrics(struct cs_front *f, uint64_t role, uint64_t index, int own,
                                 int about)
{
    return cs_front_metrics_add(f->metrics, role, index, own, about);
}

static bool same_client(const struct cs_front_conn *a, const struct cs_front_conn *b)
{
    if (a->local != b->local || a->metrics != b->metrics) {
        return false;
    }
    return a->local ? a->uid == b->uid : cs_addr_net_eq(&a->net, &b->net);
}

/* SECURITY: the local socket is open to every user of the machine, so each has a share, as each
 * address has. The reserve is for those who may set up: nobody else can lock them out. */
static bool has_room(const struct cs_front *f, const struct cs_front_conn *c)
{
    if (c->local && (c->uid == 0 || c->uid == f->service_uid)) {
        return true; /* the pool is the limit */
    }
    if (c->metrics) { /* making the text costs more than a request does */
        return f->metrics_open <= CS_LIMIT_METRICS_CONNECTIONS;
    }
    if (c->behind_proxy) { /* counted when its address is known */
        return f->pool.live <= CS_LIMIT_HTTP_CONNECTIONS - CS_FRONT_LOCAL_RESERVE;
    }
    size_t same = 0;
    for (const struct cs_front_conn *o = f->conns; o != NULL; o = o->next) {
        same += same_client(o, c);
    }
    return same <= (c->local ? CS_LIMIT_HTTP_PER_USER : CS_LIMIT_HTTP_PER_ADDRESS) &&
           f->pool.live <= CS_LIMIT_HTTP_CONNECTIONS - CS_FRONT_LOCAL_RESERVE;
}

void cs_front_conn_gone(struct cs_front_conn *c)
{
    struct cs_front *f = c->front;
    cs_stream_close(&c->stream);
    cs_front_config_unref(c->config);
    *c->prev = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    f->metrics_open -= c->metrics ? 1 : 0;
    cs_pool_give(&f->pool, c->self);
    cs_metric_set(CS_SLOT_HTTP_OPEN, f->pool.live);
}

static void drop(struct cs_front_conn *c, const char *why)
{
    cs_log(CS_EV_SESSION_REFUSED, NULL, "address=%s why=\"%s\"", c->address, why);
    cs_front_conn_gone(c);
}

bool cs_front_know_address(struct cs_front_conn *c)
{
    struct sockaddr_storage client = {.ss_family = AF_UNSPEC};
    if (!c->behind_proxy) {
        return true;
    }
    enum cs_err err =
        cs_proxy_read(&c->stream.fd, cs_mono_ns() + CS_LIMIT_PROXY_S * CS_NS_PER_S, &client);
    const char *why = err == CS_OK ? NULL : "no PROXY protocol header, version 2";
    c->behind_proxy = false;
    if (err == CS_OK && client.ss_family != AF_UNSPEC) {
        (void)cs_addr_text((const struct sockaddr *)&client, c->address);
        c->net = cs_addr_net((const struct sockaddr *)&client);
        why = has_room(c->front, c) ? NULL : "too many connections";
    }
    if (why != NULL) {
        cs_log(CS_EV_SESSION_REFUSED, NULL, "address=%s why=\"%s\" error=%s", c->address, why,
               cs_err_name(err));
    }
    return why == NULL;
}

static void serve(const struct cs_front_listener *l, int fd, const struct sockaddr_storage *peer)
{
    struct cs_front *f = l->front;
    bool local = l->local;
    cs_handle self;
    struct cs_front_conn *c = cs_pool_take(&f->pool, &self);
    if (c == NULL) {
        (void)close(fd);
        return;
    }
    *c = (struct cs_front_conn){
        .front = f, .self = self, .local = local, .metrics = l->metrics, .uid = UINT64_MAX};
    f->metrics_open += c->metrics ? 1 : 0;
    cs_metric_set(CS_SLOT_HTTP_OPEN, f->pool.live);
    struct ucred who;
    socklen_t n = sizeof who;
    /* SECURITY: only the kernel's word names a local peer; without it, it is nobody. */
    if (local && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0) {
        c->uid = who.uid;
    }
    (void)cs_addr_text((const struct sockaddr *)peer, c->address);
    c->net = cs_addr_net((const struct sockaddr *)peer);
    c->config = f->config;
    c->config->refs++;
    c->prev = &f->conns;
    c->next = f->conns;
    if (c->next != NULL) {
        c->next->prev = &c->next;
    }
    f->conns = c;
    c->behind_proxy = !local && !c->metrics && c->config->proxies_n > 0;
    cs_event_clear(&f->empty);
    cs_handle co;
    if (cs_stream_open(f->loop, &c->stream, fd) != CS_OK) {
        drop(c, "no descriptor");
    } else if (c->behind_proxy &&
               !cs_proxy_trusts(cs_slice(c->config->proxies, c->config->proxies_n),
                                (const struct sockaddr *)peer)) {
        /* SECURITY: anybody else could write any address into a header. */
        drop(c, "not one of the listener's load balancers");
    } else if (!has_room(f, c)) {
        drop(c, "too many connections");
    } else if (cs_co_spawn(f->loop, "front-conn", cs_front_conn_main, c, &co) != CS_OK) {
        drop(c, "no memory");
    }
}

static void accept_main(void *arg)
{
    struct cs_front_listener *l = arg;
    struct cs_front *f = l->front;
    while (!f->draining.set) {
        struct sockaddr_storage peer = {0};
        int fd;
        enum cs_err err = cs_accept(&l->fd, &fd, &peer);
        if (err == CS_ERR_CANCELLED || f->draining.set) {
            if (err == CS_OK) {
                (void)close(fd);
            }
            return;
        }
        if (err != CS_OK) {
            /* Out of descriptors, or a connection gone before we took it: a pause, not a storm. */
            if (!cs_co_sleep(50 * CS_NS_PER_MS)) {
                return;
            }
            continue;
        }
        serve(l, fd, &peer);
    }
}

enum cs_err cs_front_accept(struct cs_front *f)
{
    if (f->config == NULL) {
        return CS_ERR_UNAVAILABLE;
    }
    for (size_t i = 0; i < f->n_listeners; i++) {
        cs_handle co;
        enum cs_err err = cs_co_spawn(f->loop, "front-accept", accept_main, &f->listeners[i], &co);
        if (err != CS_OK) {
            return err;
        }
    }
    return CS_OK;
}

static void drain_main(void *arg)
{
    struct cs_front *f = arg;
    uint64_t deadline = cs_mono_ns() + CS_LIMIT_HTTP_DRAIN_S * CS_NS_PER_S;
    if (f->conns != NULL) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &f->empty);
        enum cs_woke woke = cs_wait(&w, 1, deadline);
        (void)woke; /* whatever ended it, we stop now */
    }
    cs_loop_stop(f->loop);
}

void cs_front_drain(struct cs_front *f)
{
    if (f->draining.set) {
        return;
    }
    cs_event_set(&f->draining);
    for (size_t i = 0; i < f->n_listeners; i++) {
        cs_fd_close(&f->listeners[i].fd);
    }
    cs_handle co;
    if (cs_co_spawn(f->loop, "front-drain", drain_main, f, &co) != CS_OK) {
        cs_loop_stop(f->loop);
    }
}
