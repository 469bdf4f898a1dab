/* Bytes into the recordings' files, and their fsync, each on a thread of its own (copier.h). Called
 * by the recorder. It must never report a file as durable whose fsync failed, or make the
 * recorder's loop wait for a disk while sessions go on.
 *
 * The thread that copies has the open files and the list of what is dirty while it copies; the
 * loop's thread has them at all other times. The thread that makes durable gets names and touches
 * nothing else of ours: it opens each file, fsyncs it, closes it. (The kernel reports an error of
 * writing back to whoever opens the file next, as long as nobody has seen it.) */
#include "record/copier.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "base/attr.h"
#include "base/time.h"
#include "record/csr_read.h"
#include "record/files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SETS = 256,
    WAYS = 4,
    OPEN_FILES = SETS * WAYS,
    ASIDE_NAME = CS_CSR_NAME + 40,
    COPY_ROOM = 64 * 1024,
    COPY_LITTLE = 4 * 1024, /* such a batch is copied sooner than a thread is woken */
};

struct open_file {
    struct cs_journal_file file;
    int fd;        /* owned; -1 = none */
    bool dirty;    /* in the list of those to sync */
    uint64_t used; /* when, in puts */
};

struct names {
    struct cs_journal_file *v; /* owned */
    size_t n, cap;
};

struct cs_copier {
    int dir;                            /* borrowed */
    struct open_file files[OPEN_FILES]; /* in sets of WAYS; session ids are random */
    uint64_t puts;
    struct names dirty;
    struct cs_slice batch; /* borrowed: what is copied */
    struct cs_copied copied;
    pthread_t copy_thread;
    bool copy_started, copying;
    /* the other thread's */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started, stop, working, done;
    struct names job; /* its own while `working` */
    uint32_t segment;
    enum cs_err result;
    enum cs_err (*also)(void *arg);
    void *also_arg;
};

/* ---- names of files to sync ---- */

static bool names_add(struct names *l, const struct cs_journal_file *f)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 64 : 2 * l->cap;
        struct cs_journal_file *more = cs_realloc(l->v, cap * sizeof *more);
        if (more == NULL) {
            return false;
        }
        l->v = more;
        l->cap = cap;
    }
    l->v[l->n++] = *f;
    return true;
}

static const char *name_of(const struct cs_journal_file *f, char out[static CS_CSR_NAME])
{
    return cs_csr_name(&f->session, f->foreign, f->epoch, out);
}

static enum cs_err sync_names(int dir, const struct names *l)
{
    char name[CS_CSR_NAME];
    enum cs_err err = CS_OK;
    for (size_t i = 0; i < l->n && err == CS_OK; i++) {
        int fd = openat(dir, name_of(&l->v[i], name), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) {
            /* Taken away by whoever keeps house there: nothing is left to make durable. */
            err = errno == ENOENT ? CS_OK : CS_ERR_IO;
            continue;
        }
        err = fsync(fd) == 0 ? CS_OK : CS_ERR_IO;
        (void)close(fd);
    }
    return err == CS_OK && fsync(dir) != 0 ? CS_ERR_IO : err;
}

/* ---- the thread ---- */

static void *work(void *arg)
{
    struct cs_copier *c = arg;
    (void)pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        if (!c->working) {
            (void)pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&c->lock);
        enum cs_err err = sync_names(c->dir, &c->job);
        if (err == CS_OK && c->also != NULL) {
            err = c->also(c->also_arg);
        }
        (void)pthread_mutex_lock(&c->lock);
        c->result = err;
        c->working = false;
        c->done = true;
        (void)pthread_cond_broadcast(&c->changed);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

static enum cs_err put(struct cs_copier *c, const struct cs_journal_file *f, uint64_t offset,
                       struct cs_slice bytes);

static struct cs_copied copy_all(struct cs_copier *c, struct cs_slice batch)
{
    struct cs_journal_entry e;
    struct cs_journal_file f;
    struct cs_copied got = {CS_OK, 0};
    size_t at = 0;
    while (got.err == CS_OK && cs_journal_entry_next(batch, &at, &e)) {
        struct cs_slice bytes = e.body;
        if (e.kind == CS_JOURNAL_BYTES && cs_journal_file_read(&bytes, &f)) {
            got.err = put(c, &f, e.offset, bytes);
            got.bytes += bytes.n;
        }
    }
    return got;
}

static void *copy_work(void *arg)
{
    struct cs_copier *c = arg;
    (void)pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        if (!c->copying) {
            (void)pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&c->lock);
        struct cs_copied got = copy_all(c, c->batch);
        (void)pthread_mutex_lock(&c->lock);
        c->copied = got;
        c->copying = false;
        (void)pthread_cond_broadcast(&c->changed);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

void cs_copier_copy(struct cs_copier *c, struct cs_slice batch)
{
    c->batch = batch;
    if (batch.n <= COPY_LITTLE) {
        c->copied = copy_all(c, batch);
        return;
    }
    (void)pthread_mutex_lock(&c->lock);
    cs_assert(!c->copying);
    c->copying = true;
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
}

static bool copy_is_done(struct cs_copier *c, bool wait)
{
    (void)pthread_mutex_lock(&c->lock);
    while (wait && c->copying) {
        (void)pthread_cond_wait(&c->changed, &c->lock);
    }
    bool done = !c->copying;
    (void)pthread_mutex_unlock(&c->lock);
    return done;
}

bool cs_copier_copied(struct cs_copier *c, bool wait, struct cs_copied *ret)
{
    if (!copy_is_done(c, wait)) {
        return false;
    }
    if (wait && c->copied.err == CS_ERR_NO_SPACE) {
        c->copied = copy_all(c, c->batch);
    }
    *ret = c->copied;
    return true;
}

struct cs_copier *cs_copier_new(int dir)
{
    struct cs_copier *c = cs_alloc(sizeof *c);
    if (c == NULL) {
        return NULL;
    }
    c->dir = dir;
    for (size_t i = 0; i < OPEN_FILES; i++) {
        c->files[i].fd = -1;
    }
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->changed, NULL);
    c->started = pthread_create(&c->thread, NULL, work, c) == 0;
    c->copy_started = pthread_create(&c->copy_thread, NULL, copy_work, c) == 0;
    if (!c->started || !c->copy_started) {
        cs_copier_free(c);
        return NULL;
    }
    return c;
}

void cs_copier_free(struct cs_copier *c)
{
    if (c == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&c->lock);
    c->stop = true;
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
    if (c->started) {
        (void)pthread_join(c->thread, NULL);
    }
    if (c->copy_started) {
        (void)pthread_join(c->copy_thread, NULL);
    }
    (void)pthread_mutex_destroy(&c->lock);
    (void)pthread_cond_destroy(&c->changed);
    for (size_t i = 0; i < OPEN_FILES; i++) {
        if (c->files[i].fd >= 0) {
            (void)close(c->files[i].fd);
        }
    }
    cs_free(c->dirty.v);
    cs_free(c->job.v);
    cs_free(c);
}

void cs_copier_also(struct cs_copier *c, enum cs_err (*fn)(void *arg), void *arg)
{
    (void)pthread_mutex_lock(&c->lock);
    c->also = fn;
    c->also_arg = arg;
    (void)pthread_mutex_unlock(&c->lock);
}

bool cs_copier_is_idle(struct cs_copier *c)
{
    (void)pthread_mutex_lock(&c->lock);
    bool idle = !c->working && !c->done;
    (void)pthread_mutex_unlock(&c->lock);
    return idle;
}

bool cs_copier_sync_start(struct cs_copier *c, uint32_t segment)
{
    cs_assert(copy_is_done(c, false)); /* else it would miss some */
    (void)pthread_mutex_lock(&c->lock);
    bool idle = !c->working && !c->done;
    if (idle) {
        struct names old = c->job;
        c->job = c->dirty;
        c->dirty = old;
        c->dirty.n = 0;
        c->segment = segment;
        c->working = true;
        (void)pthread_cond_broadcast(&c->changed);
    }
    (void)pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; idle && i < OPEN_FILES; i++) {
        c->files[i].dirty = false;
    }
    return idle;
}

bool cs_copier_sync_done(struct cs_copier *c, uint32_t *ret_segment, enum cs_err *ret_err)
{
    (void)pthread_mutex_lock(&c->lock);
    bool done = c->done;
    if (done) {
        c->done = false;
        *ret_segment = c->segment;
        *ret_err = c->result;
    }
    (void)pthread_mutex_unlock(&c->lock);
    return done;
}

enum cs_err cs_copier_sync(struct cs_copier *c)
{
    enum cs_err before = CS_OK, err = CS_OK;
    uint32_t segment;
    /* What was under way first; then the rest. */
    for (int i = 0; i < 2; i++) {
        (void)pthread_mutex_lock(&c->lock);
        while (c->working) {
            (void)pthread_cond_wait(&c->changed, &c->lock);
        }
        (void)pthread_mutex_unlock(&c->lock);
        if (!cs_copier_sync_done(c, &segment, &err)) {
            err = CS_OK;
        }
        before = before == CS_OK ? err : before;
        if (i == 0) {
            (void)cs_copier_sync_start(c, 0);
        }
    }
    return before;
}

/* ---- files ---- */

static bool same(const struct cs_journal_file *a, const struct cs_journal_file *b)
{
    return cs_id_eq(&a->session, &b->session) && a->foreign == b->foreign &&
           (!a->foreign || a->epoch == b->epoch);
}

/* Its own place, or the one of its set that was unused for longest. */
static struct open_file *place_of(struct cs_copier *c, const struct cs_journal_file *f)
{
    size_t set = (f->session.b[0] ^ (f->foreign ? (size_t)f->epoch : 0)) % SETS;
    struct open_file *at = &c->files[set * WAYS], *best = at;
    for (size_t i = 0; i < WAYS; i++) {
        if (at[i].fd >= 0 && same(&at[i].file, f)) {
            return &at[i];
        }
        if (at[i].used < best->used) {
            best = &at[i];
        }
    }
    return best;
}

static enum cs_err file_open(struct cs_copier *c, const struct cs_journal_file *f,
                             struct open_file **ret)
{
    struct open_file *o = place_of(c, f);
    char name[CS_CSR_NAME];
    if (o->fd < 0 || !same(&o->file, f)) {
        int fd = openat(c->dir, name_of(f, name), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0) {
            return cs_file_err(errno);
        }
        if (o->fd >= 0) {
            (void)close(o->fd);
        }
        *o = (struct open_file){*f, fd, false, 0};
    }
    o->used = ++c->puts;
    *ret = o;
    return CS_OK;
}

static enum cs_err put(struct cs_copier *c, const struct cs_journal_file *f, uint64_t offset,
                       struct cs_slice bytes)
{
    struct open_file *o = NULL;
    enum cs_err err = file_open(c, f, &o);
    if (err != CS_OK) {
        return err;
    }
    if (!o->dirty) {
        if (!names_add(&c->dirty, f)) {
            return CS_ERR_NO_MEMORY;
        }
        o->dirty = true;
    }
    return cs_file_write_at(o->fd, bytes, offset, NULL);
}

enum cs_err cs_copier_put(struct cs_copier *c, const struct cs_journal_file *f, uint64_t offset,
                          struct cs_slice bytes)
{
    cs_assert(copy_is_done(c, false));
    return put(c, f, offset, bytes);
}

/* Before somebody else than the thread that copies touches the file. */
static void forget(struct cs_copier *c, const struct cs_journal_file *f)
{
    (void)copy_is_done(c, true);
    struct open_file *o = place_of(c, f);
    if (o->fd >= 0 && same(&o->file, f)) {
        (void)close(o->fd);
        o->fd = -1;
        o->used = 0;
    }
}

static enum cs_err open_there(struct cs_copier *c, const struct cs_journal_file *f, int *ret_fd,
                              uint64_t *ret_size)
{
    char name[CS_CSR_NAME];
    struct stat st;
    /* NONBLOCK: a FIFO put there under that name must not stop us. */
    int fd = openat(c->dir, name_of(f, name), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? CS_ERR_NOT_FOUND : CS_ERR_IO;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return CS_ERR_CORRUPT;
    }
    *ret_fd = fd;
    *ret_size = (uint64_t)st.st_size;
    return CS_OK;
}

/* A descriptor that remembers that it could not be read: a file that a disk does not give is not
 * one that was changed, and must not be put aside as such. */
struct there {
    int fd;
    bool failed;
};

static size_t read_there(void *arg, uint64_t at, void *into, size_t n)
{
    struct there *t = arg;
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(t->fd, (uint8_t *)into + done, n - done, (off_t)(at + done));
        if (got == 0) {
            break;
        }
        if (got < 0 && errno != EINTR) {
            t->failed = true;
            break;
        }
        done += got > 0 ? (size_t)got : 0;
    }
    return done;
}

enum cs_err cs_copier_look(struct cs_copier *c, const struct cs_journal_file *f,
                           struct cs_csr_tail *ret)
{
    struct there t = {.fd = -1};
    struct cs_csr_source in = {.arg = &t, .read_at = read_there};
    enum cs_err err = open_there(c, f, &t.fd, &in.size);
    if (err != CS_OK) {
        return err;
    }
    err = cs_csr_find_tail(in, ret);
    (void)close(t.fd);
    if (t.failed) {
        return CS_ERR_IO;
    }
    if (err == CS_OK && !cs_id_eq(&ret->head.session, &f->session)) {
        err = CS_ERR_CORRUPT; /* another session's file under this name */
    }
    return err;
}

static enum cs_err copy_rest(int from, uint64_t at, int to)
{
    uint8_t *room = cs_alloc(COPY_ROOM);
    enum cs_err err = room != NULL ? CS_OK : CS_ERR_NO_MEMORY;
    uint64_t out = 0;
    while (err == CS_OK) {
        ssize_t n = pread(from, room, COPY_ROOM, (off_t)(at + out));
        if (n <= 0) {
            err = n < 0 ? cs_err_from_errno(errno) : CS_OK;
            break;
        }
        err = cs_file_write_at(to, cs_slice(room, (size_t)n), out, NULL);
        out += (uint64_t)n;
    }
    cs_free(room);
    return err == CS_OK && fsync(to) != 0 ? CS_ERR_IO : err;
}

/* What stands from `size` on, into a file of its own, durably. */
static enum cs_err keep_rest(struct cs_copier *c, const struct cs_journal_file *f, int fd,
                             uint64_t size)
{
    char name[CS_CSR_NAME], aside[CS_ASIDE_NAME];
    int to = openat(c->dir, cs_file_aside(c->dir, name_of(f, name), aside),
                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (to < 0) {
        return cs_file_err(errno);
    }
    enum cs_err err = copy_rest(fd, size, to);
    (void)close(to);
    if (err == CS_OK) {
        return fsync(c->dir) == 0 ? CS_OK : CS_ERR_IO;
    }
    (void)unlinkat(c->dir, aside, 0); /* half of it; on a full disk there would be one each time */
    return err;
}

enum cs_err cs_copier_cut(struct cs_copier *c, const struct cs_journal_file *f, uint64_t size)
{
    int fd = -1;
    uint64_t now = 0;
    forget(c, f);
    enum cs_err err = open_there(c, f, &fd, &now);
    if (err != CS_OK) {
        return err;
    }
    err = keep_rest(c, f, fd, size);
    if (err == CS_OK && ftruncate(fd, (off_t)size) != 0) {
        err = cs_file_err(errno);
    }
    /* Before the journal has what comes in its place: a power loss that undid this would leave the
     * old bytes behind the new ones, and the journal would not know of them. */
    if (err == CS_OK && fsync(fd) != 0) {
        err = CS_ERR_IO;
    }
    (void)close(fd);
    return err;
}

enum cs_err cs_copier_void(struct cs_copier *c, const struct cs_journal_file *f, uint64_t from,
                           uint64_t to)
{
    struct open_file *o = NULL;
    struct stat st;
    cs_assert(copy_is_done(c, false) && from < to);
    enum cs_err err = file_open(c, f, &o);
    if (err == CS_OK && fstat(o->fd, &st) != 0) {
        err = CS_ERR_IO;
    }
    if (err != CS_OK || (uint64_t)st.st_size <= from) {
        return err;
    }
    if ((uint64_t)st.st_size > to) {
        return cs_copier_cut(c, f, from);
    }
    return ftruncate(o->fd, (off_t)from) == 0 ? CS_OK : cs_file_err(errno);
}

enum cs_err cs_copier_set_aside(struct cs_copier *c, const struct cs_journal_file *f)
{
    char name[CS_CSR_NAME], aside[CS_ASIDE_NAME];
    forget(c, f);
    (void)cs_file_aside(c->dir, name_of(f, name), aside);
    if (renameat(c->dir, name, c->dir, aside) != 0) {
        return cs_file_err(errno);
    }
    return fsync(c->dir) == 0 ? CS_OK : CS_ERR_IO;
}
