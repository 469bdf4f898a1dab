/* The ring from one gate to the recorder. Both sides map the same memory: a page of indices, then
 * the records, each {u32 length, u32 zero, u64 number, bytes, padding to 8}, in one circle of
 * bytes.
 *
 * Positions count bytes from the beginning of time and never wrap. The writer owns `head`; the
 * reader owns the room behind it (`tail`), the durable number and the checkpoint that a new reader
 * starts from. SECURITY: the reader believes nothing that it reads here: it takes one copy of head
 * and of each record's header, and checks those. The writer, too, checks what it reads. A gate that
 * overwrites the reader's part can only harm the record of what it carries, which it could also
 * have left out: its frames reach no other session's replay (record/replay.c). */
#include "ipc/ring.h"

#include "base/assert.h"
#include "base/limits.h"
#include "runtime/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_PAGE = 4096, RECORD_HEADER = 16, LINE = 64, SOON_BYTES = 8 * LINE };
#define RING_MAGIC UINT64_C(0x31676e6972637363) /* "cscring1" */
#define SEALS      (F_SEAL_GROW | F_SEAL_SHRINK)

struct checkpoint {
    _Atomic uint64_t pos, seq;
};

struct cs_ring_shared {
    uint64_t magic;
    uint64_t size;
    /* the writer's */
    _Alignas(LINE) _Atomic uint64_t head;
    _Atomic uint32_t want; /* somebody waits: for durability, room, or health */
    /* the reader's */
    _Alignas(LINE) _Atomic uint64_t tail;
    _Atomic uint64_t durable_seq;
    _Atomic uint32_t health;
    _Atomic uint32_t sleeping;
    /* {tail, durable_seq} as one: a reader that dies between the two stores must not leave a pair
     * that its successor would take for a lie. checkpoint[now & 1] is the valid one. */
    struct checkpoint checkpoint[2];
    _Atomic uint32_t now;
};
_Static_assert(sizeof(struct cs_ring_shared) <= HEADER_PAGE, "fits its page");

struct record_header {
    uint32_t n, zero;
    uint64_t seq;
};
_Static_assert(sizeof(struct record_header) == RECORD_HEADER, "as on the wire");

static uint8_t *data_of(const struct cs_ring *r)
{
    return (uint8_t *)r->shm + HEADER_PAGE;
}

static uint64_t padded(uint64_t n)
{
    return RECORD_HEADER + ((n + 7) & ~(uint64_t)7);
}

static void copy_in(struct cs_ring *r, uint64_t pos, const void *p, size_t n)
{
    if (n == 0) {
        return;
    }
    size_t at = (size_t)(pos % r->size);
    size_t first = CS_MIN(n, r->size - at);
    memcpy(data_of(r) + at, p, first);
    memcpy(data_of(r), (const uint8_t *)p + first, n - first);
}

static void copy_out(const struct cs_ring *r, uint64_t pos, void *p, size_t n)
{
    if (n == 0) {
        return;
    }
    size_t at = (size_t)(pos % r->size);
    size_t first = CS_MIN(n, r->size - at);
    memcpy(p, data_of(r) + at, first);
    memcpy((uint8_t *)p + first, data_of(r), n - first);
    /* SECURITY: the writer may change the bytes at any time; the compiler must not fetch them again
     * after we have checked our copy. */
    __asm__ volatile("" ::: "memory");
}

static void kick(const struct cs_fd *f)
{
    uint64_t one = 1;
    ssize_t n = write(f->fd, &one, sizeof one);
    (void)n; /* EAGAIN: it is full of kicks that were not heard yet */
}

/* Takes the kicks off an eventfd, so that the next one makes an edge. */
static void unkick(struct cs_fd *f)
{
    uint64_t count;
    ssize_t n = read(f->fd, &count, sizeof count);
    (void)n;
    f->readable = false;
}

/* ---- making and opening ---- */

enum cs_err cs_ring_make(size_t bytes, int ret_fds[static 3])
{
    int fds[3] = {-1, -1, -1};
    struct cs_ring_shared *shm = MAP_FAILED;
    if (bytes < HEADER_PAGE || bytes % HEADER_PAGE != 0) {
        return CS_ERR_INVALID;
    }
    fds[0] = memfd_create("countersign-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    fds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fds[0] < 0 || fds[1] < 0 || fds[2] < 0 ||
        ftruncate(fds[0], (off_t)(HEADER_PAGE + bytes)) != 0 ||
        fcntl(fds[0], F_ADD_SEALS, SEALS | F_SEAL_SEAL) != 0) {
        goto fail;
    }
    shm = mmap(NULL, HEADER_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    if (shm == MAP_FAILED) {
        goto fail;
    }
    shm->magic = RING_MAGIC;
    shm->size = bytes;
    (void)munmap(shm, HEADER_PAGE);
    memcpy(ret_fds, fds, sizeof fds);
    return CS_OK;
fail:;
    enum cs_err err = cs_err_from_errno(errno);
    for (size_t i = 0; i < CS_ARRAY_LEN(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    return err;
}

static enum cs_err map_ring(int fd, struct cs_ring *r)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    /* SECURITY: a ring that could shrink would kill the other side by SIGBUS. */
    if (seals < 0 || (seals & SEALS) != SEALS || cs_fstat(fd, &st) != 0 ||
        st.st_size < 2 * HEADER_PAGE || st.st_size % HEADER_PAGE != 0) {
        return CS_ERR_PROTOCOL;
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        return cs_err_from_errno(errno);
    }
    r->shm = p;
    r->size = (size_t)st.st_size - HEADER_PAGE; /* the file's size, not what the page says */
    return CS_OK;
}

/* A reader goes on where the last one was durable. */
static void reader_start(struct cs_ring *r)
{
    struct cs_ring_shared *s = r->shm;
    const struct checkpoint *c = &s->checkpoint[atomic_load(&s->now) & 1];
    r->tail = atomic_load(&c->pos);
    r->seq = atomic_load(&c->seq);
    r->head = r->tail;
    r->settled = r->seq;
    if (r->tail % 8 != 0) {
        r->broken = true;
        return;
    }
    atomic_store(&s->tail, r->tail);
    atomic_store(&s->durable_seq, r->seq);
    atomic_store(&s->sleeping, 0);
}

enum cs_err cs_ring_open(struct cs_loop *loop, const int fds[static 3], bool writer,
                         struct cs_ring *ret)
{
    *ret = (struct cs_ring){.kick = {.fd = fds[1]}, .durable = {.fd = fds[2]}};
    enum cs_err err = map_ring(fds[0], ret);
    (void)close(fds[0]);
    if (err == CS_OK && ret->shm->magic != RING_MAGIC) {
        err = CS_ERR_PROTOCOL;
    }
    if (err == CS_OK && writer && atomic_load(&ret->shm->head) != 0) {
        err = CS_ERR_CONFLICT; /* a new writer gets a new ring */
    }
    if (err == CS_OK) {
        /* Only the side that waits on it has it in its loop: its own kicks would wake it. */
        struct cs_fd *heard = writer ? &ret->durable : &ret->kick;
        err = cs_fd_open(loop, heard, writer ? fds[2] : fds[1]);
    }
    if (err != CS_OK) {
        cs_ring_close(ret);
        return err;
    }
    if (!writer) {
        reader_start(ret);
    }
    return CS_OK;
}

void cs_ring_close(struct cs_ring *r)
{
    if (r->shm != NULL) {
        (void)munmap(r->shm, r->size + HEADER_PAGE);
        r->shm = NULL;
    }
    cs_fd_close(&r->kick);
    cs_fd_close(&r->durable);
    r->broken = true;
}

/* ---- writer ---- */

/* Whether n bytes of record fit now. Looks at the reader's side only when its last copy says no. */
static bool fits(struct cs_ring *r, uint64_t need)
{
    if (need <= r->size - (r->head - r->tail)) {
        return true;
    }
    uint64_t tail = atomic_load_explicit(&r->shm->tail, memory_order_acquire);
    if (tail < r->tail || tail > r->head) {
        r->broken = true;
        return false;
    }
    r->tail = tail;
    return need <= r->size - (r->head - r->tail);
}

/* Wakes the reader if it sleeps. Its "I sleep" and our news are both sequentially consistent, so
 * that at least one side sees the other's. */
static void wake_reader(struct cs_ring *r)
{
    if (atomic_load(&r->shm->sleeping) != 0 && atomic_exchange(&r->shm->sleeping, 0) != 0) {
        kick(&r->kick);
    }
}

enum cs_record_health cs_ring_health(const struct cs_ring *r)
{
    /* Whatever is not plainly healthy has stopped. */
    if (r->broken ||
        atomic_load_explicit(&r->shm->health, memory_order_acquire) != CS_RECORD_HEALTHY) {
        return CS_RECORD_STOPPED;
    }
    return CS_RECORD_HEALTHY;
}

enum cs_record_health cs_ring_peek_health(int memfd)
{
    struct cs_ring r = {.kick = {.fd = -1}, .durable = {.fd = -1}};
    if (map_ring(memfd, &r) != CS_OK) {
        return CS_RECORD_STOPPED;
    }
    enum cs_record_health h = cs_ring_health(&r);
    cs_ring_close(&r);
    return h;
}

bool cs_ring_peek(int memfd, uint64_t *ret_written, uint64_t *ret_durable)
{
    struct cs_ring r = {.kick = {.fd = -1}, .durable = {.fd = -1}};
    if (map_ring(memfd, &r) != CS_OK) {
        return false;
    }
    *ret_written = atomic_load(&r.shm->head);
    *ret_durable = atomic_load(&r.shm->tail);
    cs_ring_close(&r);
    return true;
}

/* Has the lines of the next frames fetched while something else is done: the reader, on another
 * processor, had them last. */
static void soon(const struct cs_ring *r)
{
    size_t at = (size_t)(r->head % r->size), n = CS_MIN((size_t)SOON_BYTES, r->size - at);
    for (size_t i = 0; i < n; i += LINE) {
        __builtin_prefetch(data_of(r) + at + i, 1);
    }
}

enum cs_err cs_ring_append(struct cs_ring *r, const struct cs_slice *pieces, size_t n,
                           uint64_t *ret_seq)
{
    cs_assert(n <= 3);
    if (cs_ring_health(r) != CS_RECORD_HEALTHY) {
        return CS_ERR_NO_SPACE;
    }
    uint64_t all = 0;
    for (size_t i = 0; i < n; i++) {
        if (pieces[i].n > CS_LIMIT_RECORD_FRAME_BYTES - all) {
            return CS_ERR_TOO_LARGE;
        }
        all += pieces[i].n;
    }
    if (padded(all) > r->size) {
        return CS_ERR_TOO_LARGE;
    }
    if (!fits(r, padded(all))) {
        return r->broken ? CS_ERR_NO_SPACE : CS_ERR_LIMIT;
    }
    struct record_header h = {(uint32_t)all, 0, r->seq + 1};
    uint64_t at = r->head;
    copy_in(r, at, &h, sizeof h);
    at += sizeof h;
    for (size_t i = 0; i < n; i++) {
        copy_in(r, at, pieces[i].p, pieces[i].n);
        at += pieces[i].n;
    }
    r->head += padded(all);
    r->seq++;
    soon(r);
    atomic_store(&r->shm->head, r->head);
    wake_reader(r);
    *ret_seq = r->seq;
    return CS_OK;
}

bool cs_ring_is_durable(const struct cs_ring *r, uint64_t seq)
{
    return !r->broken && atomic_load_explicit(&r->shm->durable_seq, memory_order_acquire) >= seq;
}

struct waiting_for {
    bool room;
    uint64_t what; /* seq, or bytes */
};

static bool have(struct cs_ring *r, struct waiting_for f)
{
    return f.room ? fits(r, f.what) : cs_ring_is_durable(r, f.what);
}

static enum cs_err ring_wait(struct cs_ring *r, struct waiting_for f, uint64_t deadline_ns)
{
    for (;;) {
        if (have(r, f)) {
            return CS_OK;
        }
        /* Asked before looking again: what is published in between is either seen here or kicked.
         */
        if (atomic_exchange(&r->shm->want, 1) == 0) {
            kick(&r->kick); /* also a reader that only naps, without saying that it sleeps */
        } else {
            wake_reader(r);
        }
        if (have(r, f)) {
            return CS_OK;
        }
        if (cs_ring_health(r) != CS_RECORD_HEALTHY) {
            return CS_ERR_NO_SPACE;
        }
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &r->durable);
        switch (cs_wait(&w, 1, deadline_ns)) {
        case CS_WOKE_READY:
            if (r->durable.fd < 0) {
                return CS_ERR_UNAVAILABLE; /* closed under the waiter */
            }
            /* All who wait were woken and look again; only the first takes the kick off, or a later
             * one would take the next kick from those who wait again already. */
            if (r->durable.readable) {
                unkick(&r->durable);
            }
            break;
        case CS_WOKE_DEADLINE:
            return CS_ERR_TIMEOUT;
        case CS_WOKE_CANCELLED:
        default:
            return CS_ERR_CANCELLED;
        }
    }
}

enum cs_err cs_ring_wait_durable(struct cs_ring *r, uint64_t seq, uint64_t deadline_ns)
{
    cs_assert(seq <= r->seq);
    return ring_wait(r, (struct waiting_for){false, seq}, deadline_ns);
}

enum cs_err cs_ring_wait_room(struct cs_ring *r, size_t n, uint64_t deadline_ns)
{
    if (n > CS_LIMIT_RECORD_FRAME_BYTES || padded(n) > r->size) {
        return CS_ERR_TOO_LARGE;
    }
    return ring_wait(r, (struct waiting_for){true, padded(n)}, deadline_ns);
}

/* ---- reader ---- */

static enum cs_err lied(struct cs_ring *r)
{
    r->broken = true;
    return CS_ERR_CORRUPT;
}

enum cs_err cs_ring_read(struct cs_ring *r, void *into, size_t cap, size_t *ret_n,
                         uint64_t *ret_seq)
{
    if (r->broken) {
        return CS_ERR_CORRUPT;
    }
    if (r->head == r->tail) {
        r->head = atomic_load(&r->shm->head); /* one copy, used for all checks */
    }
    /* Unsigned: a head that went backwards is far too large here. What is read and not yet durable
     * still takes room, but the difference to the read position cannot exceed the ring either way.
     */
    uint64_t there = r->head - r->tail;
    if (there == 0) {
        return CS_ERR_NOT_FOUND;
    }
    if (there > r->size || there % 8 != 0 || there < RECORD_HEADER) {
        return lied(r);
    }
    struct record_header h;
    copy_out(r, r->tail, &h, sizeof h);
    if (h.zero != 0 || h.seq != r->seq + 1 || h.n > CS_LIMIT_RECORD_FRAME_BYTES || h.n > cap ||
        padded(h.n) > there) {
        return lied(r);
    }
    copy_out(r, r->tail + RECORD_HEADER, into, h.n);
    r->tail += padded(h.n);
    r->seq = h.seq;
    *ret_n = h.n;
    *ret_seq = h.seq;
    return CS_OK;
}

/* Something was read that is not durable yet. */
static bool behind(const struct cs_ring *r)
{
    return r->settled != r->seq;
}

bool cs_ring_wanted(const struct cs_ring *r)
{
    return !r->broken && atomic_load(&r->shm->want) != 0 && behind(r);
}

static void wake_writer(struct cs_ring *r)
{
    if (atomic_exchange(&r->shm->want, 0) != 0) {
        kick(&r->durable);
    }
}

/* The checkpoint first: a reader that comes after this one's death begins there, and must not find
 * the writer in that room already. */
static void publish(struct cs_ring *r, uint64_t seq, bool frees)
{
    cs_assert(seq == r->seq); /* everything read so far */
    if (r->broken) {
        return;
    }
    struct cs_ring_shared *s = r->shm;
    uint32_t next = atomic_load(&s->now) ^ 1;
    atomic_store(&s->checkpoint[next & 1].pos, r->tail);
    atomic_store(&s->checkpoint[next & 1].seq, seq);
    atomic_store(&s->now, next & 1);
    if (frees) {
        atomic_store(&s->tail, r->tail);
    }
    atomic_store(&s->durable_seq, seq);
    r->settled = seq;
    wake_writer(r);
}

void cs_ring_acknowledge(struct cs_ring *r, uint64_t seq)
{
    publish(r, seq, false);
}

void cs_ring_set_durable(struct cs_ring *r, uint64_t seq)
{
    publish(r, seq, true);
}

void cs_ring_free(struct cs_ring *r, uint64_t position)
{
    cs_assert(position <= r->tail);
    if (!r->broken && position != atomic_load(&r->shm->tail)) {
        atomic_store(&r->shm->tail, position);
        wake_writer(r);
    }
}

void cs_ring_set_health(struct cs_ring *r, enum cs_record_health h)
{
    atomic_store(&r->shm->health, (uint32_t)h);
    wake_writer(r);
}

bool cs_ring_sleep(struct cs_ring *r)
{
    if (r->broken) {
        return true; /* nothing comes from here any more */
    }
    struct cs_ring_shared *s = r->shm;
    if (r->kick.readable) {
        unkick(&r->kick);
    }
    atomic_store(&s->sleeping, 1);
    bool more = atomic_load(&s->head) != r->tail;
    bool wanted = atomic_load(&s->want) != 0;
    if (wanted && !behind(r)) {
        /* Asked for what is there already, or for nothing: tell, and do not let a writer that only
         * sets flags keep us awake. */
        wake_writer(r);
        wanted = false;
    }
    if (more || wanted) {
        atomic_store(&s->sleeping, 0);
        return false;
    }
    return true;
}
