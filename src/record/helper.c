/* Compressing on two threads (helper.h). Called by recordings.c before a batch is sealed. It must
 * never touch a stream outside of a call, give one to both threads, or leave one half done. */
#include "record/helper.h"

#include "base/alloc.h"

#include <pthread.h>
#include <stdatomic.h>

struct cs_helper {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop, called; /* under the lock */
    struct cs_csr_stream *const *streams;
    _Atomic size_t next, n;  /* the next one that nobody has; how many there are */
    _Atomic uint32_t inside; /* the thread may have one */
};

static void take_all(struct cs_helper *h)
{
    size_t i;
    while ((i = atomic_fetch_add(&h->next, 1)) < atomic_load(&h->n)) {
        cs_csr_compress(h->streams[i]);
    }
}

static void *work(void *arg)
{
    struct cs_helper *h = arg;
    (void)pthread_mutex_lock(&h->lock);
    while (!h->stop) {
        if (!h->called) {
            (void)pthread_cond_wait(&h->changed, &h->lock);
            continue;
        }
        h->called = false;
        atomic_store(&h->inside, 1);
        (void)pthread_mutex_unlock(&h->lock);
        take_all(h);
        (void)pthread_mutex_lock(&h->lock);
        atomic_store(&h->inside, 0);
        (void)pthread_cond_broadcast(&h->changed);
    }
    (void)pthread_mutex_unlock(&h->lock);
    return NULL;
}

struct cs_helper *cs_helper_new(void)
{
    struct cs_helper *h = cs_alloc(sizeof *h);
    if (h == NULL) {
        return NULL;
    }
    (void)pthread_mutex_init(&h->lock, NULL);
    (void)pthread_cond_init(&h->changed, NULL);
    if (pthread_create(&h->thread, NULL, work, h) != 0) {
        (void)pthread_mutex_destroy(&h->lock);
        (void)pthread_cond_destroy(&h->changed);
        cs_free(h);
        return NULL;
    }
    return h;
}

void cs_helper_free(struct cs_helper *h)
{
    if (h == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&h->lock);
    h->stop = true;
    (void)pthread_cond_broadcast(&h->changed);
    (void)pthread_mutex_unlock(&h->lock);
    (void)pthread_join(h->thread, NULL);
    (void)pthread_mutex_destroy(&h->lock);
    (void)pthread_cond_destroy(&h->changed);
    cs_free(h);
}

void cs_helper_compress(struct cs_helper *h, struct cs_csr_stream *const *streams, size_t n)
{
    (void)pthread_mutex_lock(&h->lock);
    h->streams = streams;
    atomic_store(&h->next, 0);
    atomic_store(&h->n, n);
    h->called = true;
    (void)pthread_cond_broadcast(&h->changed);
    (void)pthread_mutex_unlock(&h->lock);
    take_all(h);
    /* The list is the caller's again only when the thread can have none of it, nor come for one. */
    (void)pthread_mutex_lock(&h->lock);
    h->called = false;
    while (atomic_load(&h->inside) != 0) {
        (void)pthread_cond_wait(&h->changed, &h->lock);
    }
    (void)pthread_mutex_unlock(&h->lock);
}
