/* The store's life: the writer thread, its queue, and the delivery of what it finished to the loop.
 * Group commit needs no timer: while one commit waits for the disk, the next batch gathers. */
#include "store/store_internal.h"

#include "base/alloc.h"
#include "base/assert.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- writer thread ---- */

static void op_fail(struct cs_op *op, enum cs_err err)
{
    op->err = err;
    op->changes = NULL;
    op->changes_end = &op->changes;
}

/* One operation inside the batch's transaction. A refused or failed one leaves no trace. */
static void op_run(struct cs_db *db, struct cs_op *op)
{
    db->err = CS_OK;
    bool savepoint = op->kind->mutates && cs_db_exec(db, "SAVEPOINT op") == CS_OK;
    enum cs_err err = db->err;
    if (err == CS_OK) {
        err = op->kind->run(db, op);
    }
    if (db->err != CS_OK) {
        err = db->err;
    } else if (op->out_of_memory) {
        err = CS_ERR_NO_MEMORY;
    }
    if (err != CS_OK) {
        op_fail(op, err);
    } else {
        op->err = CS_OK;
    }
    if (!savepoint || !cs_db_in_transaction(db)) {
        return;
    }
    db->err = CS_OK;
    enum cs_err end = cs_db_exec(db, err == CS_OK ? "RELEASE op" : "ROLLBACK TO op; RELEASE op");
    if (end != CS_OK) {
        op_fail(op, end);
        db->fatal = true; /* a savepoint that cannot end means that nothing more is certain */
    }
}

static void batch_fail(struct cs_op *list, enum cs_err err)
{
    for (struct cs_op *op = list; op != NULL; op = op->next) {
        op_fail(op, err);
    }
}

static void batch_rollback(struct cs_db *db)
{
    if (cs_db_in_transaction(db)) {
        (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    }
}

/* All or nothing reaches the disk; answers are given only after that. */
static void batch_run(struct cs_db *db, struct cs_op *list)
{
    if (db->fatal) {
        batch_fail(list, CS_ERR_IO);
        return;
    }
    bool mutates = false;
    for (struct cs_op *op = list; op != NULL; op = op->next) {
        mutates = mutates || op->kind->mutates;
    }
    uint64_t seq = db->seq;
    db->err = CS_OK;
    cs_db_clock(db);
    enum cs_err err = cs_db_exec(db, mutates ? "BEGIN IMMEDIATE" : "BEGIN");
    for (struct cs_op *op = list; err == CS_OK && op != NULL; op = op->next) {
        op_run(db, op);
        if (db->fatal) {
            err = CS_ERR_IO;
        } else if (!cs_db_in_transaction(db)) {
            err = op->err != CS_OK ? op->err : CS_ERR_INTERNAL; /* a full disk ended it */
        }
    }
    db->err = CS_OK;
    if (err == CS_OK) {
        err = cs_db_exec(db, "COMMIT");
    }
    if (err != CS_OK) {
        batch_rollback(db);
        batch_fail(list, db->fatal ? CS_ERR_IO : err);
        db->seq = seq;
    }
}

static struct cs_op *batch_take(struct cs_store *s, uint64_t *ret_n)
{
    struct cs_op *first = s->queue;
    struct cs_op **end = &s->queue;
    uint64_t n = 0;
    while (*end != NULL && n < CS_STORE_BATCH) {
        end = &(*end)->next;
        n++;
    }
    s->queue = *end;
    if (s->queue == NULL) {
        s->queue_end = &s->queue;
    }
    *end = NULL;
    s->queued -= n;
    *ret_n = n;
    return first;
}

/* lock is held */
static void batch_done(struct cs_store *s, struct cs_op *list, uint64_t n)
{
    s->stats.operations += n;
    s->stats.commits++;
    s->stats.batch_max = CS_MAX(s->stats.batch_max, n);
    *s->ready_end = list;
    while (*s->ready_end != NULL) {
        s->stats.no_space += (*s->ready_end)->err == CS_ERR_NO_SPACE;
        s->ready_end = &(*s->ready_end)->next;
    }
    if (s->db.fatal && !s->fatal) {
        s->fatal = true;
        (void)snprintf(s->fatal_why, sizeof s->fatal_why, "%s", s->db.why);
    }
}

static void wake_loop(const struct cs_store *s)
{
    uint64_t one = 1;
    while (write(s->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static void checkpoint(struct cs_store *s, bool all)
{
    s->db.err = CS_OK;
    cs_db_checkpoint(&s->db, all);
    if (s->db.fatal) {
        (void)pthread_mutex_lock(&s->lock);
        batch_done(s, NULL, 0);
        (void)pthread_mutex_unlock(&s->lock);
        wake_loop(s);
    }
}

static void *writer(void *arg)
{
    struct cs_store *s = arg;
    for (;;) {
        (void)pthread_mutex_lock(&s->lock);
        while (s->queue == NULL && !s->stop && s->backing_up != CS_BACKUP_RUNS) {
            (void)pthread_cond_wait(&s->work, &s->lock);
        }
        bool backup = s->backing_up == CS_BACKUP_RUNS, stop = s->stop;
        if (s->queue == NULL && !backup) {
            (void)pthread_mutex_unlock(&s->lock);
            break;
        }
        uint64_t n = 0;
        struct cs_op *list = batch_take(s, &n);
        (void)pthread_mutex_unlock(&s->lock);
        if (list != NULL) {
            batch_run(&s->db, list);
            (void)pthread_mutex_lock(&s->lock);
            batch_done(s, list, n);
            (void)pthread_mutex_unlock(&s->lock);
            wake_loop(s);
        }
        if (backup && cs_backup_turn(&s->db, &s->backup, stop)) {
            (void)pthread_mutex_lock(&s->lock);
            s->backing_up = CS_BACKUP_ENDED;
            (void)pthread_mutex_unlock(&s->lock);
            wake_loop(s);
        }
        if (s->db.wal_pages >= CS_STORE_WAL_PAGES && !s->db.fatal) {
            checkpoint(s, false);
        }
    }
    if (!s->db.fatal) {
        checkpoint(s, true);
    }
    return NULL;
}

/* ---- loop's thread ---- */

static void op_deliver(struct cs_store *s, struct cs_op *op)
{
    for (const struct cs_change *c = op->changes; c != NULL; c = c->next) {
        s->seq = c->c.seq;
        if (s->on_change != NULL) {
            s->on_change(&c->c, s->on_change_arg);
        }
    }
    if (op->placed != NULL && op->err == CS_OK) {
        op->placed(((const struct cs_store_held *)op->result)->request, op->placed_arg);
    }
    op->finished = true;
    cs_event_set(&op->done);
    cs_op_unref(op);
}

static void deliver(struct cs_store *s)
{
    (void)pthread_mutex_lock(&s->lock);
    struct cs_op *list = s->ready;
    s->ready = NULL;
    s->ready_end = &s->ready;
    bool fatal = s->fatal, backed_up = s->backing_up == CS_BACKUP_ENDED;
    (void)pthread_mutex_unlock(&s->lock);
    if (backed_up && !s->backed_up.set) {
        cs_event_set(&s->backed_up);
    }
    while (list != NULL) {
        struct cs_op *next = list->next;
        list->next = NULL;
        op_deliver(s, list);
        list = next;
    }
    if (fatal && !s->failure.set) {
        cs_event_set(&s->failure);
    }
}

static void store_unref(struct cs_store *s)
{
    if (--s->refs > 0) {
        return;
    }
    (void)pthread_mutex_destroy(&s->lock);
    (void)pthread_cond_destroy(&s->work);
    cs_free(s);
}

static void pump(void *arg)
{
    struct cs_store *s = arg;
    for (;;) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &s->wake);
        if (cs_wait(&w, 1, CS_FOREVER) != CS_WOKE_READY || s->closed) {
            break;
        }
        uint64_t count;
        ssize_t n = read(s->wake.fd, &count, sizeof count);
        if (n < 0 && errno == EAGAIN) {
            s->wake.readable = false;
        }
        deliver(s);
    }
    cs_fd_close(&s->wake);
    store_unref(s);
}

static enum cs_err thread_start(struct cs_store *s)
{
    /* Signals belong to the loop's thread: it hears them through a descriptor. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&s->thread, NULL, writer, s);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? CS_OK : CS_ERR_NO_MEMORY;
}

static enum cs_err wake_open(struct cs_store *s)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return cs_err_from_errno(errno);
    }
    s->wake_fd = dup(fd);
    if (s->wake_fd < 0) {
        (void)close(fd);
        return CS_ERR_LIMIT;
    }
    cs_fd_cloexec(s->wake_fd, true);
    return cs_fd_open(s->loop, &s->wake, fd); /* takes fd over, also when it fails */
}

static void thread_stop(struct cs_store *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->stop = true;
    (void)pthread_cond_signal(&s->work);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->thread, NULL);
}

enum cs_err cs_store_open(struct cs_loop *loop, const char *path,
                          const struct cs_store_options *opt, char *why, size_t why_size,
                          struct cs_store **ret)
{
    struct cs_store *s = cs_alloc(sizeof *s);
    if (s == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    s->loop = loop;
    s->refs = 1;
    s->wake_fd = -1;
    s->wake.fd = -1;
    s->queue_end = &s->queue;
    s->ready_end = &s->ready;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->work, NULL);
    enum cs_err err = cs_db_open(&s->db, path, opt != NULL ? opt->wall_ms : NULL, why, why_size);
    if (err != CS_OK) {
        store_unref(s);
        return err;
    }
    s->seq = s->db.seq;
    (void)snprintf(s->backup.path, sizeof s->backup.path, "%s.backup", path);
    err = wake_open(s);
    if (err == CS_OK) {
        err = cs_co_spawn(loop, "store", pump, s, &s->pump);
        s->refs += err == CS_OK;
    }
    if (err == CS_OK) {
        err = thread_start(s);
        if (err != CS_OK) {
            s->closed = true;
            cs_co_cancel(loop, s->pump);
        }
    }
    if (err != CS_OK) {
        (void)snprintf(why, why_size, "the store's thread cannot start: %s", cs_err_text(err));
        cs_db_close(&s->db);
        if (s->refs == 1) {
            cs_fd_close(&s->wake);
        }
        if (s->wake_fd >= 0) {
            (void)close(s->wake_fd);
        }
        store_unref(s);
        return err;
    }
    *ret = s;
    return CS_OK;
}

void cs_store_close(struct cs_store *s)
{
    if (s == NULL) {
        return;
    }
    cs_assert(!s->closed);
    s->closed = true;
    thread_stop(s);
    deliver(s);
    cs_db_close(&s->db);
    (void)close(s->wake_fd);
    cs_co_cancel(s->loop, s->pump);
    store_unref(s);
}

/* Who is cancelled leaves it running; the next who asks hears that it does, or begins anew. */
enum cs_err cs_store_backup(struct cs_store *s, const char **ret_path)
{
    if (s->closed || strlen(s->backup.path) + 1 >= sizeof s->backup.path) {
        return CS_ERR_UNAVAILABLE;
    }
    (void)pthread_mutex_lock(&s->lock);
    bool runs = s->backing_up == CS_BACKUP_RUNS;
    if (!runs) {
        s->backing_up = CS_BACKUP_RUNS;
        cs_event_clear(&s->backed_up);
        (void)pthread_cond_signal(&s->work);
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (runs) {
        return CS_ERR_CONFLICT;
    }
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &s->backed_up);
    if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
        return CS_ERR_CANCELLED;
    }
    if (s->backup.err == CS_OK) {
        *ret_path = s->backup.path;
    }
    return s->backup.err;
}

struct cs_event *cs_store_failure(struct cs_store *s)
{
    return &s->failure;
}

const char *cs_store_failure_text(const struct cs_store *s)
{
    return s->failure.set ? s->fatal_why : "";
}

struct cs_store_stats cs_store_stats(struct cs_store *s)
{
    (void)pthread_mutex_lock(&s->lock);
    struct cs_store_stats stats = s->stats;
    stats.queued = s->queued;
    (void)pthread_mutex_unlock(&s->lock);
    return stats;
}

void cs_store_on_change(struct cs_store *s, cs_store_change_fn fn, void *arg)
{
    s->on_change = fn;
    s->on_change_arg = arg;
}

uint64_t cs_store_seq(const struct cs_store *s)
{
    return s->seq;
}

enum cs_err cs_op_submit(struct cs_store *s, struct cs_op *op)
{
    if (op->out_of_memory) {
        return CS_ERR_NO_MEMORY;
    }
    if (s->closed) {
        return CS_ERR_UNAVAILABLE;
    }
    op->refs++; /* the queue's, given back at delivery */
    (void)pthread_mutex_lock(&s->lock);
    *s->queue_end = op;
    s->queue_end = &op->next;
    s->queued++;
    (void)pthread_cond_signal(&s->work);
    (void)pthread_mutex_unlock(&s->lock);
    while (!op->finished) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &op->done);
        if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
            op->placed = NULL; /* its argument lives on the waiter's stack */
            return CS_ERR_CANCELLED;
        }
    }
    return op->err;
}

enum cs_err cs_op_finish(struct cs_store *s, struct cs_op *op)
{
    enum cs_err err = cs_op_submit(s, op);
    cs_op_unref(op);
    return err;
}
