/* Helper threads. The loop's side hands them jobs under a mutex and hears of results through an
 * eventfd. A job belongs to both sides: the one that lets go last frees it, so that a caller who
 * gives up (deadline, cancelled) never leaves the thread with a dangling pointer. */
#include "dialer/slow.h"

#include "base/alloc.h"
#include "base/assert.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct job {
    struct job *next;
    void (*fn)(void *arg);
    void (*drop)(void *arg);
    void *arg;
    struct cs_event done; /* loop's side only */
    bool abandoned;       /* loop's side only */
};

struct cs_slow {
    pthread_t thread[CS_SLOW_THREADS];
    size_t n_threads;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct job *todo, *todo_last; /* under lock */
    struct job *ready;            /* under lock */
    bool stop;                    /* under lock */
    size_t busy;                  /* under lock */
    int signal_fd;                /* owned; the threads' duplicate of kick.fd */
    size_t queued;                /* loop's side: handed over and not yet heard of */
    struct cs_fd kick;
};

static void *work(void *arg)
{
    struct cs_slow *s = arg;
    (void)pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        struct job *j = s->todo;
        if (j == NULL) {
            (void)pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        s->todo = j->next;
        s->busy++;
        (void)pthread_mutex_unlock(&s->lock);
        j->fn(j->arg);
        (void)pthread_mutex_lock(&s->lock);
        s->busy--;
        j->next = s->ready;
        s->ready = j;
        uint64_t one = 1;
        if (write(s->signal_fd, &one, sizeof one) < 0) {
            continue; /* only possible when the counter is full: then it is readable anyway */
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void job_drop(struct job *j)
{
    j->drop(j->arg);
    cs_free(j);
}

static void collect(struct cs_slow *s)
{
    (void)pthread_mutex_lock(&s->lock);
    struct job *j = s->ready;
    s->ready = NULL;
    (void)pthread_mutex_unlock(&s->lock);
    while (j != NULL) {
        struct job *next = j->next;
        s->queued--;
        if (j->abandoned) {
            job_drop(j);
        } else {
            cs_event_set(&j->done);
        }
        j = next;
    }
}

static void hear(void *arg)
{
    struct cs_slow *s = arg;
    for (;;) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &s->kick);
        if (cs_wait(&w, 1, CS_FOREVER) != CS_WOKE_READY || s->kick.fd < 0) {
            return;
        }
        uint64_t count = 0;
        if (read(s->kick.fd, &count, sizeof count) < 0) {
            s->kick.readable = false;
        }
        collect(s);
    }
}

static enum cs_err start_threads(struct cs_slow *s, size_t n)
{
    /* Signals belong to the loop's thread. */
    sigset_t all, old;
    int rc = 0;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    while (rc == 0 && s->n_threads < n) {
        rc = pthread_create(&s->thread[s->n_threads], NULL, work, s);
        s->n_threads += rc == 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0 ? CS_OK : CS_ERR_LIMIT;
}

enum cs_err cs_slow_new(struct cs_loop *loop, size_t threads, struct cs_slow **ret)
{
    cs_assert(threads > 0 && threads <= CS_SLOW_THREADS);
    struct cs_slow *s = cs_alloc(sizeof *s);
    if (s == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->work, NULL);
    s->signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int second = s->signal_fd >= 0 ? dup(s->signal_fd) : -1;
    enum cs_err e = second >= 0 ? cs_fd_open(loop, &s->kick, second) : CS_ERR_LIMIT;
    if (e != CS_OK) {
        if (s->signal_fd >= 0) {
            (void)close(s->signal_fd);
        }
        cs_free(s);
        return e;
    }
    cs_handle co;
    e = start_threads(s, threads);
    if (e == CS_OK) {
        e = cs_co_spawn(loop, "slow", hear, s, &co);
    }
    if (e != CS_OK) {
        (void)cs_slow_free(s);
        return e;
    }
    *ret = s;
    return CS_OK;
}

enum cs_err cs_slow_call(struct cs_slow *s, void (*fn)(void *arg), void (*drop)(void *arg),
                         void *arg, uint64_t deadline_ns)
{
    struct job *j = s->queued < CS_SLOW_QUEUE ? cs_alloc(sizeof *j) : NULL;
    if (j == NULL) {
        drop(arg);
        return s->queued < CS_SLOW_QUEUE ? CS_ERR_NO_MEMORY : CS_ERR_LIMIT;
    }
    j->fn = fn;
    j->drop = drop;
    j->arg = arg;
    s->queued++;
    (void)pthread_mutex_lock(&s->lock);
    if (s->todo == NULL) {
        s->todo = j;
    } else {
        s->todo_last->next = j;
    }
    s->todo_last = j;
    (void)pthread_cond_signal(&s->work);
    (void)pthread_mutex_unlock(&s->lock);

    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &j->done);
    enum cs_woke woke = cs_wait(&w, 1, deadline_ns);
    if (!j->done.set) {
        j->abandoned = true;
        return woke == CS_WOKE_CANCELLED ? CS_ERR_CANCELLED : CS_ERR_TIMEOUT;
    }
    cs_free(j);
    return CS_OK;
}

bool cs_slow_free(struct cs_slow *s)
{
    if (s == NULL) {
        return true;
    }
    (void)pthread_mutex_lock(&s->lock);
    s->stop = true;
    bool busy = s->busy > 0;
    (void)pthread_cond_broadcast(&s->work);
    (void)pthread_mutex_unlock(&s->lock);
    cs_fd_close(&s->kick);
    for (size_t i = 0; i < s->n_threads; i++) {
        (void)(busy ? pthread_detach(s->thread[i]) : pthread_join(s->thread[i], NULL));
    }
    if (busy) {
        return false; /* the memory stays: a thread still looks at it */
    }
    collect(s);
    while (s->todo != NULL) {
        struct job *next = s->todo->next;
        job_drop(s->todo);
        s->todo = next;
    }
    (void)pthread_cond_destroy(&s->work);
    (void)pthread_mutex_destroy(&s->lock);
    (void)close(s->signal_fd);
    cs_free(s);
    return true;
}
