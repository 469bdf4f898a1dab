/* Waiting: descriptors in the loop, events, and cs_wait over both. A parked coroutine hangs one
 * waiter per item into the lists of what it waits for; the first that becomes ready wakes it. */
#include "base/assert.h"
#include "runtime/loop_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* ---- waiters ---- */

static void link_waiter(struct cs_waiter **list, struct cs_waiter *w)
{
    w->next = *list;
    w->at = list;
    if (w->next != NULL) {
        w->next->at = &w->next;
    }
    *list = w;
}

static void unlink_waiter(struct cs_waiter *w)
{
    if (w->at != NULL) {
        *w->at = w->next;
        if (w->next != NULL) {
            w->next->at = w->at;
        }
        w->at = NULL;
    }
}

/* What made it ready may be gone when the coroutine runs: the result is noted now. */
static void satisfy(struct cs_waiter *w)
{
    unlink_waiter(w);
    w->item->ready = true;
    cs_co_wake(w->co);
}

static bool is_ready(const struct cs_wait *item)
{
    if (item->kind == CS_WAIT_EVENT) {
        return ((const struct cs_event *)item->on)->set;
    }
    const struct cs_fd *f = item->on;
    if (f->fd < 0) {
        return true;
    }
    switch (item->kind) {
    case CS_WAIT_READ:
        return f->readable;
    case CS_WAIT_WRITE:
        return f->writable;
    case CS_WAIT_HUP:
        return f->hup;
    case CS_WAIT_EVENT:
    default:
        return false;
    }
}

/* Wakes those whose item is ready (or all), in the order in which they came: the list has the
 * newest first. */
static void satisfy_list(struct cs_waiter **list, bool all)
{
    struct cs_waiter *oldest_first = NULL;
    struct cs_waiter *next;
    for (struct cs_waiter *w = *list; w != NULL; w = next) {
        next = w->next;
        if (all || is_ready(w->item)) {
            unlink_waiter(w);
            w->next = oldest_first;
            oldest_first = w;
        }
    }
    for (struct cs_waiter *w = oldest_first; w != NULL; w = next) {
        next = w->next;
        satisfy(w);
    }
}

/* ---- events ---- */

void cs_event_set(struct cs_event *e)
{
    e->set = true;
    satisfy_list(&e->waiters, true);
}

void cs_event_clear(struct cs_event *e)
{
    e->set = false;
}

/* ---- descriptors ---- */

static bool arm(struct cs_loop *loop, cs_handle h, struct cs_fd_slot *slot)
{
    struct epoll_event ev = {.data.u64 = h};
    ev.events = slot->listener ? EPOLLIN | EPOLLEXCLUSIVE
                               : EPOLLIN | EPOLLOUT | EPOLLRDHUP | (uint32_t)EPOLLET;
    slot->armed = epoll_ctl(loop->epfd, EPOLL_CTL_ADD, slot->f->fd, &ev) == 0;
    return slot->armed;
}

static enum cs_err fd_open(struct cs_loop *loop, struct cs_fd *f, int fd, bool listener)
{
    *f = (struct cs_fd){.fd = -1};
    enum cs_err err = CS_OK;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)) {
        err = cs_err_from_errno(errno);
        goto fail;
    }
    cs_handle h;
    struct cs_fd_slot *slot = cs_pool_take(&loop->slots, &h);
    if (slot == NULL) {
        err = loop->slots.live >= CS_FD_MAX ? CS_ERR_LIMIT : CS_ERR_NO_MEMORY;
        goto fail;
    }
    /* Writable until the first operation says otherwise: a fresh socket nearly always is. */
    *f = (struct cs_fd){.fd = fd, .writable = !listener, .slot = h, .loop = loop};
    slot->f = f;
    slot->listener = listener;
    if (!arm(loop, h, slot)) {
        err = cs_err_from_errno(errno);
        cs_pool_give(&loop->slots, h);
        *f = (struct cs_fd){.fd = -1};
        goto fail;
    }
    if (listener) {
        slot->next_listener = loop->listeners;
        loop->listeners = slot;
    }
    return CS_OK;
fail:
    (void)close(fd);
    return err;
}

enum cs_err cs_fd_open(struct cs_loop *loop, struct cs_fd *f, int fd)
{
    return fd_open(loop, f, fd, false);
}

enum cs_err cs_fd_open_listener(struct cs_loop *loop, struct cs_fd *f, int fd)
{
    return fd_open(loop, f, fd, true);
}

static void forget_listener(struct cs_loop *loop, struct cs_fd_slot *slot)
{
    struct cs_fd_slot **at = &loop->listeners;
    while (*at != slot) {
        cs_assert(*at != NULL);
        at = &(*at)->next_listener;
    }
    *at = slot->next_listener;
}

int cs_fd_release(struct cs_fd *f)
{
    int fd = f->fd;
    if (fd < 0) {
        return -1;
    }
    cs_handle h = f->slot;
    struct cs_loop *loop = f->loop;
    f->fd = -1; /* waiters see it closed */
    f->hup = true;
    f->readable = f->writable = false;
    f->slot = 0;
    if (h == 0) {
        return fd; /* was never in a loop */
    }
    struct cs_fd_slot *slot = cs_pool_get(&loop->slots, h);
    cs_assert(slot != NULL && slot->f == f);
    /* Closing alone would not end the registration: another process may hold a duplicate. */
    if (slot->armed) {
        (void)epoll_ctl(loop->epfd, EPOLL_CTL_DEL, fd, NULL);
    }
    if (slot->listener) {
        forget_listener(loop, slot);
    }
    satisfy_list(&slot->waiters, true);
    cs_pool_give(&loop->slots, h);
    return fd;
}

void cs_fd_close(struct cs_fd *f)
{
    int fd = cs_fd_release(f);
    if (fd >= 0) {
        (void)close(fd);
    }
}

void cs_fd_happened(struct cs_loop *loop, cs_handle h, uint32_t events)
{
    /* SECURITY: an event fetched in the same batch as the one that led to the close must not reach
     * another connection that got the number since. */
    struct cs_fd_slot *slot = cs_pool_get(&loop->slots, h);
    if (slot == NULL) {
        return;
    }
    struct cs_fd *f = slot->f;
    if (slot->listener && slot->waiters == NULL) {
        /* Nobody accepts now (a limit): level-triggered, it would keep the loop spinning. */
        (void)epoll_ctl(loop->epfd, EPOLL_CTL_DEL, f->fd, NULL);
        slot->armed = false;
        return;
    }
    f->readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    f->writable |= (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
    f->hup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    satisfy_list(&slot->waiters, false);
}

void cs_fd_unwatch(struct cs_fd *f)
{
    struct cs_fd_slot *slot = f->fd >= 0 ? cs_pool_get(&f->loop->slots, f->slot) : NULL;
    if (slot != NULL && slot->listener && slot->armed) {
        (void)epoll_ctl(f->loop->epfd, EPOLL_CTL_DEL, f->fd, NULL);
        slot->armed = false;
        f->readable = false;
    }
}

void cs_listeners_forget(struct cs_loop *loop)
{
    for (struct cs_fd_slot *s = loop->listeners; s != NULL; s = s->next_listener) {
        s->f->readable = false;
    }
}

/* ---- waiting ---- */

static void hang(struct cs_waiter *w)
{
    if (w->item->kind == CS_WAIT_EVENT) {
        link_waiter(&((struct cs_event *)w->item->on)->waiters, w);
        return;
    }
    struct cs_fd *f = w->item->on;
    struct cs_fd_slot *slot = cs_pool_get(&f->loop->slots, f->slot);
    cs_assert(slot != NULL && slot->f == f);
    if (!slot->armed && !arm(f->loop, f->slot, slot)) {
        /* The kernel has no memory to watch the listener again: accept itself will tell. */
        f->readable = true;
        satisfy(w);
        return;
    }
    link_waiter(&slot->waiters, w);
}

/* Parks the coroutine; true when an item is ready afterwards. */
static bool park(struct cs_co *co, struct cs_wait *set, size_t n, uint64_t deadline_ns)
{
    struct cs_waiter w[CS_WAIT_MAX];
    co->state = CS_CO_PARKED;
    for (size_t i = 0; i < n; i++) {
        w[i] = (struct cs_waiter){.co = co, .item = &set[i]};
        hang(&w[i]);
    }
    co->timed_out = false;
    if (deadline_ns != CS_FOREVER) {
        co->deadline_ns = deadline_ns;
        cs_heap_add(&co->loop->deadlines, co);
    }
    cs_co_pause(co);
    cs_heap_remove(&co->loop->deadlines, co);
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (w[i].at != NULL) {
            set[i].ready = is_ready(&set[i]);
            unlink_waiter(&w[i]);
        }
        any |= set[i].ready;
    }
    return any;
}

enum cs_woke cs_wait(struct cs_wait *set, size_t n, uint64_t deadline_ns)
{
    struct cs_co *co = cs_co_running();
    cs_assert(co != NULL && !cs_co_on_big_stack() && n <= CS_WAIT_MAX);
    for (;;) {
        bool any = false;
        for (size_t i = 0; i < n; i++) {
            set[i].ready = !co->cancelled && is_ready(&set[i]);
            any |= set[i].ready;
        }
        if (co->cancelled) {
            return CS_WOKE_CANCELLED;
        }
        bool late = deadline_ns <= co->loop->now_ns;
        if (any || late) {
            if (co->instant < CS_INSTANT_MAX) {
                co->instant++;
                return any ? CS_WOKE_READY : CS_WOKE_DEADLINE;
            }
            cs_co_later(co);
            continue;
        }
        any = park(co, set, n, deadline_ns);
        if (!co->cancelled && (any || co->timed_out)) {
            return any ? CS_WOKE_READY : CS_WOKE_DEADLINE;
        }
    }
}
