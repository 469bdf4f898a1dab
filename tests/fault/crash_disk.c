/* The disk in memory of crash_disk.h. */
#include "crash_disk.h"

#include "base/assert.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    FD_BASE = 1 << 20,
    FDS = 4096,
    NODES = 16384,
    NAMES = 512,
    NAME = 120,
    STACK = 1024 * 1024,
    FRESH = 2 * 1024 * 1024,
};

/* ---- state ---- */

struct bytes { /* zeros behind n */
    uint8_t *p;
    size_t n, cap, size;
};

struct change {
    bool is_size;
    size_t at, n;
    uint8_t *p; /* owned */
};

struct node {
    struct bytes now, safe;
    struct change *changes;
    size_t n_changes, cap_changes;
};

struct name {
    char text[NAME];
    struct node *node; /* NULL: there is none */
};

struct names {
    struct name v[NAMES];
    size_t n;
};

struct move {                /* of the directory */
    struct name add, remove; /* either may be empty */
};

struct file {
    struct node *node; /* NULL: a directory */
    bool used;
};

static struct {
    uint64_t random;
    struct node nodes[NODES];
    size_t n_nodes;
    struct names now, safe;
    struct move moves[NAMES];
    size_t n_moves;
    struct file files[FDS];
    /* the plan */
    enum crash kind;
    uint64_t calls, at, until;
    bool down, struck;
} d;

uint64_t disk_any(uint64_t n)
{
    d.random ^= d.random << 13;
    d.random ^= d.random >> 7;
    d.random ^= d.random << 17;
    return (d.random >> 11) % n;
}

/* ---- bytes ---- */

static void *need(void *p)
{
    if (p == NULL) {
        abort();
    }
    return p;
}

static void bytes_put(struct bytes *b, size_t at, const uint8_t *p, size_t n)
{
    if (n == 0) {
        return;
    }
    if (at + n > b->cap) {
        b->cap = 2 * (at + n);
        b->p = need(realloc(b->p, b->cap));
    }
    if (at + n > b->n) {
        if (at > b->n) {
            memset(b->p + b->n, 0, at - b->n);
        }
        b->n = at + n;
    }
    memcpy(b->p + at, p, n);
    b->size = b->size > at + n ? b->size : at + n;
}

static void bytes_size(struct bytes *b, size_t size)
{
    b->n = b->n < size ? b->n : size;
    b->size = size;
}

static void bytes_copy(struct bytes *to, const struct bytes *from)
{
    to->n = to->size = 0;
    bytes_put(to, 0, from->p, from->n);
    to->size = from->size;
}

/* ---- nodes ---- */

static struct node *node_new(void)
{
    cs_assert(d.n_nodes < NODES);
    struct node *x = &d.nodes[d.n_nodes++];
    x->now.n = x->now.size = x->safe.n = x->safe.size = 0;
    x->n_changes = 0;
    return x;
}

static void change_add(struct node *x, struct change c)
{
    if (x->n_changes == x->cap_changes) {
        x->cap_changes = x->cap_changes == 0 ? 16 : 2 * x->cap_changes;
        x->changes = need(realloc(x->changes, x->cap_changes * sizeof *x->changes));
    }
    x->changes[x->n_changes++] = c;
}

static void change_apply(struct node *x, const struct change *c)
{
    if (c->is_size) {
        bytes_size(&x->safe, c->at);
    } else {
        bytes_put(&x->safe, c->at, c->p, c->n);
    }
}

/* A piece of it: from one sector's border to another. */
static void change_apply_some(struct node *x, const struct change *c, uint64_t of)
{
    size_t at = c->at, end = c->at + c->n;
    if (c->is_size) {
        if (disk_any(of) == 0) {
            change_apply(x, c);
        }
        return;
    }
    while (at < end) {
        size_t next = (at / SECTOR + 1) * SECTOR;
        next = next < end ? next : end;
        if (disk_any(of) == 0) {
            bytes_put(&x->safe, at, c->p + (at - c->at), next - at);
        }
        at = next;
    }
}

static void changes_clear(struct node *x)
{
    for (size_t i = 0; i < x->n_changes; i++) {
        free(x->changes[i].p);
    }
    x->n_changes = 0;
}

static void node_write(struct node *x, size_t at, const uint8_t *p, size_t n)
{
    uint8_t *copy = need(malloc(n + 1));
    memcpy(copy, p, n);
    bytes_put(&x->now, at, p, n);
    change_add(x, (struct change){false, at, n, copy});
}

static void node_resize(struct node *x, size_t size)
{
    bytes_size(&x->now, size);
    change_add(x, (struct change){true, size, 0, NULL});
}

static void node_sync(struct node *x)
{
    for (size_t i = 0; i < x->n_changes; i++) {
        change_apply(x, &x->changes[i]);
    }
    changes_clear(x);
}

/* The kernel has tried, and drops what it could not write: it looks clean from now on. */
static void node_sync_failed(struct node *x)
{
    for (size_t i = 0; i < x->n_changes; i++) {
        change_apply_some(x, &x->changes[i], 2);
    }
    changes_clear(x);
}

/* What a power cut leaves of it: all, nothing, half, most or some of what is in doubt. */
static void node_power_cut(struct node *x)
{
    uint64_t mode = disk_any(5);
    for (size_t i = 0; i < x->n_changes; i++) {
        bool last = i + 1 == x->n_changes;
        if (mode == 0 || (mode == 3 && !last)) {
            change_apply(x, &x->changes[i]);
        } else if (mode != 1) {
            change_apply_some(x, &x->changes[i], 2 + disk_any(2));
        }
    }
    changes_clear(x);
    bytes_copy(&x->now, &x->safe);
}

/* ---- names ---- */

static struct node *names_find(const struct names *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].text, name) == 0) {
            return l->v[i].node;
        }
    }
    return NULL;
}

static void names_remove(struct names *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].text, name) == 0) {
            l->v[i] = l->v[--l->n];
            return;
        }
    }
}

static void names_add(struct names *l, const struct name *x)
{
    names_remove(l, x->text);
    cs_assert(l->n < NAMES);
    l->v[l->n++] = *x;
}

static void move_apply(struct names *l, const struct move *m)
{
    if (m->remove.text[0] != '\0') {
        names_remove(l, m->remove.text);
    }
    if (m->add.text[0] != '\0') {
        names_add(l, &m->add);
    }
}

static void moved(const char *add, struct node *node, const char *removed)
{
    struct move m = {{{0}, node}, {{0}, NULL}};
    (void)snprintf(m.add.text, NAME, "%s", add);
    (void)snprintf(m.remove.text, NAME, "%s", removed);
    move_apply(&d.now, &m);
    cs_assert(d.n_moves < NAMES);
    d.moves[d.n_moves++] = m;
}

static void names_sync(void)
{
    for (size_t i = 0; i < d.n_moves; i++) {
        move_apply(&d.safe, &d.moves[i]);
    }
    d.n_moves = 0;
}

static void names_power_cut(void)
{
    uint64_t mode = disk_any(3), cut = d.n_moves > 0 ? disk_any(d.n_moves + 1) : 0;
    for (size_t i = 0; i < d.n_moves; i++) {
        if (mode == 0 ? i < cut : mode == 1 ? disk_any(2) == 0 : i >= cut) {
            move_apply(&d.safe, &d.moves[i]);
        }
    }
    d.n_moves = 0;
    d.now = d.safe;
}

/* ---- the plan ---- */

void disk_reset(uint64_t seed)
{
    for (size_t i = 0; i < d.n_nodes; i++) {
        changes_clear(&d.nodes[i]);
    }
    memset(d.files, 0, sizeof d.files);
    d.random = seed * 0x9e3779b97f4a7c15 + 0x1234567;
    for (int i = 0; i < 8; i++) {
        (void)disk_any(2);
    }
    d.n_nodes = d.n_moves = d.now.n = d.safe.n = 0;
    d.calls = 0;
    d.down = d.struck = false;
    disk_plan(CRASH_NONE, 0, 0);
}

void disk_plan(enum crash kind, uint64_t after, uint64_t calls)
{
    d.kind = kind;
    d.at = d.calls + after;
    d.until = d.at + calls;
    d.struck = false;
}

bool disk_is_down(void)
{
    return d.down;
}

bool disk_struck(void)
{
    return d.struck;
}

uint64_t disk_calls(void)
{
    return d.calls;
}

static void trace(const char *what, const char *name, size_t at, size_t n);

void disk_up(bool power)
{
    trace(power ? "POWER CUT" : "UP AGAIN", "", 0, 0);
    if (power) {
        for (size_t i = 0; i < d.n_nodes; i++) {
            node_power_cut(&d.nodes[i]);
        }
        names_power_cut();
    }
    memset(d.files, 0, sizeof d.files);
    d.down = false;
    disk_plan(CRASH_NONE, 0, 0);
}

void disk_put(const char *name, struct cs_slice bytes)
{
    struct node *x = node_new();
    node_write(x, 0, bytes.p, bytes.n);
    node_sync(x);
    moved(name, x, "");
    names_sync();
}

void disk_lose(const char *name, size_t size)
{
    struct node *x = names_find(&d.now, name);
    cs_assert(x != NULL);
    trace("LOST", name, 0, size);
    node_resize(x, size);
    node_sync(x);
}

bool disk_file(size_t i, const char **ret_name, struct cs_slice *ret)
{
    if (i >= d.now.n) {
        return false;
    }
    struct bytes *b = &d.now.v[i].node->now;
    if (b->n < b->size) {
        size_t size = b->size;
        uint8_t zero = 0;
        bytes_put(b, size - 1, &zero, 1);
    }
    *ret_name = d.now.v[i].text;
    *ret = cs_slice(b->p, b->size);
    return true;
}

/* ---- the other threads, in turns ---- */

enum { THREADS = 3 };
static struct thread {
    ucontext_t there;
    void *(*fn)(void *);
    void *arg;
    void *stack;
    bool alive;
} threads[THREADS];
static struct thread *inside; /* whose turn it is; NULL = the test's own */
static ucontext_t here;

static void thread_main(void)
{
    struct thread *t = inside;
    (void)t->fn(t->arg);
    t->alive = false;
    (void)swapcontext(&t->there, &here);
}

static void turn_of(struct thread *t)
{
    if (t->alive && inside == NULL) {
        inside = t;
        (void)swapcontext(&here, &t->there);
        inside = NULL;
    }
}

/* Somebody's, whoever it is. */
static void thread_turn(void)
{
    size_t i = (size_t)disk_any(THREADS);
    for (size_t n = 1; n < THREADS && !threads[i].alive; n++) {
        i = (i + 1) % THREADS;
    }
    turn_of(&threads[i]);
}

static bool any_thread(void)
{
    bool any = false;
    for (size_t i = 0; i < THREADS; i++) {
        any |= threads[i].alive;
    }
    return any;
}

static void thread_yield(void)
{
    (void)swapcontext(&inside->there, &here);
}

void disk_thread(void)
{
    thread_turn();
}

typedef void *(*thread_fn)(void *);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, thread_fn fn, void *arg);
int __wrap_pthread_join(pthread_t t, void **ret);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);

int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attr, thread_fn fn, void *arg)
{
    size_t i = 0;
    (void)attr;
    while (threads[i].alive) {
        cs_assert(++i < THREADS);
    }
    struct thread *t = &threads[i];
    *ret = (pthread_t)i;
    if (t->stack == NULL) {
        t->stack = need(malloc(STACK));
    }
    (void)getcontext(&t->there);
    t->there.uc_stack.ss_sp = t->stack;
    t->there.uc_stack.ss_size = STACK;
    t->there.uc_link = NULL;
    makecontext(&t->there, thread_main, 0);
    t->fn = fn;
    t->arg = arg;
    t->alive = true;
    return 0;
}

int __wrap_pthread_join(pthread_t t, void **ret)
{
    (void)ret;
    while (threads[t].alive) {
        turn_of(&threads[t]);
    }
    return 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    (void)c;
    (void)m;
    if (inside != NULL) {
        thread_yield();
    } else {
        thread_turn();
    }
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m)
{
    (void)m;
    return 0;
}

/* Somebody else's turn, perhaps. */
static void turns(void)
{
    if (inside != NULL) {
        if (disk_any(3) == 0) {
            thread_yield();
        }
    } else if (any_thread() && disk_any(4) == 0) {
        thread_turn();
    }
}

void disk_turns(void)
{
    turns();
}

bool disk_in_thread(void)
{
    return inside != NULL;
}

/* ---- calls ---- */

/* CS_CRASH_TRACE=1: each call, for who looks for what went wrong. */
static void trace(const char *what, const char *name, size_t at, size_t n)
{
    static int on = -1;
    if (on < 0) {
        on = getenv("CS_CRASH_TRACE") != NULL;
    }
    if (on > 0) {
        (void)fprintf(stderr, "%llu%s %s %s %zu %zu\n", (unsigned long long)d.calls,
                      inside != NULL ? " (thread)" : "", what, name, at, n);
    }
}

static const char *name_of(const struct node *x)
{
    for (size_t i = 0; i < d.now.n; i++) {
        if (d.now.v[i].node == x) {
            return d.now.v[i].text;
        }
    }
    return x == NULL ? "." : "(no name)";
}

enum call { CALL_READ, CALL_WRITE, CALL_SYNC, CALL_NAME };

/* Counts the call, and says whether it works; else errno is set. `ret_torn`: the process ends in
 * the middle of it. */
static bool call(enum call c, bool *ret_torn)
{
    turns();
    if (ret_torn != NULL) {
        *ret_torn = false;
    }
    errno = EIO;
    if (d.down) {
        return false;
    }
    d.calls++;
    if (d.kind == CRASH_NONE || d.calls < d.at) {
        return true;
    }
    switch (d.kind) {
    case CRASH_POWER:
    case CRASH_KILL:
        d.down = d.struck = true;
        if (ret_torn != NULL) {
            *ret_torn = true;
        }
        return false;
    case CRASH_ERROR:
        if (d.struck) {
            return true;
        }
        d.struck = true;
        return false;
    case CRASH_FULL:
        d.struck = true;
        errno = ENOSPC;
        return d.calls >= d.until || c == CALL_READ || c == CALL_SYNC;
    case CRASH_NONE:
    case CRASH_KINDS:
    default:
        return true;
    }
}

static struct file *file_of(int fd)
{
    return fd >= FD_BASE && fd < FD_BASE + FDS && d.files[fd - FD_BASE].used
               ? &d.files[fd - FD_BASE]
               : NULL;
}

static int fd_new(struct node *node)
{
    for (int i = 0; i < FDS; i++) {
        if (!d.files[i].used) {
            d.files[i] = (struct file){node, true};
            return FD_BASE + i;
        }
    }
    errno = EMFILE;
    return -1;
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __real_openat64(int dir, const char *name, int flags, ...);
int __wrap_openat64(int dir, const char *name, int flags, ...);
int __real_close(int fd);
int __wrap_close(int fd);
int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode);
int __real_mkdirat(int dir, const char *name, mode_t mode);
int __wrap_mkdirat(int dir, const char *name, mode_t mode);
int __real_flock(int fd, int how);
int __wrap_flock(int fd, int how);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __real_fstat64(int fd, struct stat *st);
int __wrap_fstat64(int fd, struct stat *st);
int __real_ftruncate64(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size);
int __real_posix_fallocate64(int fd, off_t at, off_t n);
int __wrap_posix_fallocate64(int fd, off_t at, off_t n);
ssize_t __real_pread64(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pread64(int fd, void *p, size_t n, off_t at);
ssize_t __wrap___pread64_chk(int fd, void *p, size_t n, off_t at, size_t room);
ssize_t __real_pwrite64(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at);
int __real_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __real_unlinkat(int dir, const char *name, int flags);
int __wrap_unlinkat(int dir, const char *name, int flags);
DIR *__real_fdopendir(int fd);
DIR *__wrap_fdopendir(int fd);
struct dirent *__real_readdir64(DIR *dir);
struct dirent *__wrap_readdir64(DIR *dir);
int __real_closedir(DIR *dir);
int __wrap_closedir(DIR *dir);

static bool is_sim(const char *path)
{
    return strncmp(path, "/sim", 4) == 0;
}

static mode_t mode_of(va_list args, int flags)
{
    return (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
}

static int open_there(const char *name, int flags)
{
    struct node *x = names_find(&d.now, name);
    bool make = x == NULL && (flags & O_CREAT) != 0;
    if (!call(make ? CALL_NAME : CALL_READ, NULL)) {
        return -1;
    }
    if (x == NULL && !make) {
        errno = ENOENT;
        return -1;
    }
    if (x != NULL && (flags & O_EXCL) != 0) {
        errno = EEXIST;
        return -1;
    }
    if (make) {
        trace("make", name, 0, 0);
        x = node_new();
        moved(name, x, "");
    }
    if ((flags & O_TRUNC) != 0 && x->now.size > 0) {
        node_resize(x, 0);
    }
    return fd_new(x);
}

int __wrap_open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(args, flags);
    va_end(args);
    if (!is_sim(path)) {
        return __real_open64(path, flags, mode);
    }
    if ((flags & O_DIRECTORY) == 0) {
        return open_there(strrchr(path, '/') + 1, flags);
    }
    return call(CALL_READ, NULL) ? fd_new(NULL) : -1;
}

int __wrap_openat64(int dir, const char *name, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(args, flags);
    va_end(args);
    if (file_of(dir) == NULL) {
        return __real_openat64(dir, name, flags, mode);
    }
    /* One folder is all there is: a name with a slash is a name. */
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (flags & O_DIRECTORY) != 0) {
        return call(CALL_READ, NULL) ? fd_new(NULL) : -1;
    }
    return open_there(name, flags);
}

int __wrap_close(int fd)
{
    struct file *f = file_of(fd);
    if (f == NULL) {
        return fd >= FD_BASE ? 0 : __real_close(fd);
    }
    f->used = false;
    return 0;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    if (!is_sim(path)) {
        return __real_mkdir(path, mode);
    }
    errno = EEXIST;
    return -1;
}

int __wrap_mkdirat(int dir, const char *name, mode_t mode)
{
    if (file_of(dir) == NULL) {
        return __real_mkdirat(dir, name, mode);
    }
    errno = EEXIST;
    return -1;
}

int __wrap_flock(int fd, int how)
{
    return file_of(fd) == NULL ? __real_flock(fd, how) : 0;
}

static int sync_file(struct file *f)
{
    bool torn = false;
    if (!call(CALL_SYNC, &torn)) {
        if (f->node != NULL && !torn && !d.down) {
            node_sync_failed(f->node);
        }
        errno = EIO;
        return -1;
    }
    trace("fsync", name_of(f->node), 0, 0);
    if (f->node != NULL) {
        node_sync(f->node);
    } else {
        names_sync();
    }
    return 0;
}

int __wrap_fsync(int fd)
{
    struct file *f = file_of(fd);
    return f == NULL ? __real_fsync(fd) : sync_file(f);
}

int __wrap_fdatasync(int fd)
{
    struct file *f = file_of(fd);
    return f == NULL ? __real_fdatasync(fd) : sync_file(f);
}

int __wrap_fstat64(int fd, struct stat *st)
{
    struct file *f = file_of(fd);
    if (f == NULL) {
        return __real_fstat64(fd, st);
    }
    memset(st, 0, sizeof *st);
    if (f->node != NULL) {
        st->st_mode = S_IFREG | 0600;
        st->st_size = (off_t)f->node->now.size;
    } else {
        st->st_mode = S_IFDIR | 0700;
    }
    return 0;
}

int __wrap_ftruncate64(int fd, off_t size)
{
    struct file *f = file_of(fd);
    if (f == NULL) {
        return __real_ftruncate64(fd, size);
    }
    if (!call(CALL_NAME, NULL)) {
        return -1;
    }
    trace("truncate", name_of(f->node), 0, (size_t)size);
    node_resize(f->node, (size_t)size);
    return 0;
}

int __wrap_posix_fallocate64(int fd, off_t at, off_t n)
{
    struct file *f = file_of(fd);
    if (f == NULL) {
        return __real_posix_fallocate64(fd, at, n);
    }
    if (!call(CALL_WRITE, NULL)) {
        return errno;
    }
    size_t end = (size_t)at + (size_t)n;
    if (end > f->node->now.size) {
        node_resize(f->node, end);
    }
    return 0;
}

static ssize_t read_there(const struct bytes *b, void *p, size_t n, size_t at)
{
    if (!call(CALL_READ, NULL)) {
        return -1;
    }
    size_t got = at < b->size ? b->size - at : 0;
    got = got < n ? got : n;
    size_t data = at < b->n ? b->n - at : 0;
    data = data < got ? data : got;
    if (data > 0) {
        memcpy(p, b->p + at, data);
    }
    if (n < FRESH) { /* larger is what is read at once into memory that was just given, and zero */
        memset((uint8_t *)p + data, 0, got - data);
    }
    return (ssize_t)got;
}

ssize_t __wrap_pread64(int fd, void *p, size_t n, off_t at)
{
    struct file *f = file_of(fd);
    return f == NULL ? __real_pread64(fd, p, n, at) : read_there(&f->node->now, p, n, (size_t)at);
}

ssize_t __wrap___pread64_chk(int fd, void *p, size_t n, off_t at, size_t room)
{
    cs_assert(n <= room);
    return __wrap_pread64(fd, p, n, at);
}

ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at)
{
    struct file *f = file_of(fd);
    bool torn = false;
    if (f == NULL) {
        return __real_pwrite64(fd, p, n, at);
    }
    if (!call(CALL_WRITE, &torn)) {
        if (torn) {
            int error = errno;
            node_write(f->node, (size_t)at, p, disk_any(n + 1));
            errno = error;
        }
        return -1;
    }
    n = n > 1 && disk_any(16) == 0 ? 1 + disk_any(n - 1) : n; /* short, as may be */
    trace("write", name_of(f->node), (size_t)at, n);
    node_write(f->node, (size_t)at, p, n);
    return (ssize_t)n;
}

int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    if (file_of(from_dir) == NULL) {
        return __real_renameat(from_dir, from, to_dir, to);
    }
    if (!call(CALL_NAME, NULL)) {
        return -1;
    }
    struct node *x = names_find(&d.now, from);
    if (x == NULL) {
        errno = ENOENT;
        return -1;
    }
    trace("rename", to, 0, 0);
    moved(to, x, from);
    return 0;
}

int __wrap_unlinkat(int dir, const char *name, int flags)
{
    if (file_of(dir) == NULL) {
        return __real_unlinkat(dir, name, flags);
    }
    if (!call(CALL_READ, NULL)) { /* works on a full disk */
        return -1;
    }
    if (names_find(&d.now, name) == NULL) {
        errno = ENOENT;
        return -1;
    }
    trace("remove", name, 0, 0);
    moved("", NULL, name);
    return 0;
}

/* ---- listing ---- */

static struct listing {
    bool used;
    int fd;
    size_t at;
    struct dirent e;
} listings[4];

static struct listing *listing_of(DIR *dir)
{
    for (size_t i = 0; i < 4; i++) {
        if ((void *)dir == (void *)&listings[i]) {
            return &listings[i];
        }
    }
    return NULL;
}

DIR *__wrap_fdopendir(int fd)
{
    if (file_of(fd) == NULL) {
        return __real_fdopendir(fd);
    }
    for (size_t i = 0; i < 4; i++) {
        if (!listings[i].used) {
            listings[i] = (struct listing){.used = true, .fd = fd};
            return (DIR *)(void *)&listings[i];
        }
    }
    errno = ENOMEM;
    return NULL;
}

struct dirent *__wrap_readdir64(DIR *dir)
{
    struct listing *l = listing_of(dir);
    if (l == NULL) {
        return __real_readdir64(dir);
    }
    if (l->at >= d.now.n) {
        return NULL;
    }
    (void)snprintf(l->e.d_name, sizeof l->e.d_name, "%s", d.now.v[l->at++].text);
    return &l->e;
}

int __wrap_closedir(DIR *dir)
{
    struct listing *l = listing_of(dir);
    if (l == NULL) {
        return __real_closedir(dir);
    }
    (void)__wrap_close(l->fd);
    l->used = false;
    return 0;
}
