/* What one program hands to the next when an upgrade replaces the supervisor's: in sealed memory,
 * with the descriptors beside it by number. Only programs of one format understand each other; the
 * trial (trial.c) has compared them. Pure. */
#include "base/reader.h"
#include "base/writer.h"
#include "roles/supervisor.h"

enum { LISTENER_MAX = 2 * 32 + CS_PATH + 4 * 8, GATE_BYTES = 16 * 8, PROGRAM_BYTES = 24 + 2 * 8 };
static const uint8_t magic[8] = {'C', 'S', 'G', 'E', 'N', 0, 0, 3};

const char *cs_generation_format(void)
{
    return cs_generation_hash;
}

static void write_ring(struct cs_writer *w, const struct cs_ring_fds *r)
{
    cs_writer_u64le(w, r->epoch);
    for (size_t i = 0; i < CS_ARRAY_LEN(r->fd); i++) {
        cs_writer_u64le(w, r->epoch != 0 ? (uint64_t)r->fd[i] : UINT64_MAX);
    }
}

static void write_text(struct cs_writer *w, const char *text, size_t most)
{
    cs_writer_slice(w, cs_slice(text, strnlen(text, most)));
}

static void write_all(struct cs_writer *w, const struct cs_generation *g)
{
    cs_writer_bytes(w, cs_slice(magic, sizeof magic));
    cs_writer_slice(w, cs_slice_str(cs_generation_hash));
    cs_writer_slice(w, g->self);
    const uint64_t numbers[] = {g->started_ms,
                                g->number,
                                g->rollback,
                                g->version,
                                (uint64_t)g->program,
                                (uint64_t)g->configuration,
                                (uint64_t)g->n_listeners,
                                (uint64_t)g->n_gates,
                                (uint64_t)g->programs.n};
    for (size_t i = 0; i < CS_ARRAY_LEN(numbers); i++) {
        cs_writer_u64le(w, numbers[i]);
    }
    for (size_t i = 0; i < CS_MIN(g->n_listeners, (size_t)CS_SNAPSHOT_LISTENERS); i++) {
        const struct cs_open_listener *l = &g->listeners[i];
        write_text(w, l->name, sizeof l->name);
        write_text(w, l->kind, sizeof l->kind);
        write_text(w, l->address, sizeof l->address);
        cs_writer_u64le(w, (uint64_t)l->fd);
    }
    for (size_t i = 0; i < CS_MIN(g->n_gates, (size_t)CS_GATES_MAX); i++) {
        const struct cs_generation_gate *t = &g->gates[i];
        const uint64_t fields[] = {t->index,      t->pid,      t->epoch,  t->restarts,
                                   t->started_ns, t->draining, t->channel};
        for (size_t k = 0; k < CS_ARRAY_LEN(fields); k++) {
            cs_writer_u64le(w, fields[k]);
        }
        cs_writer_u64le(w, t->metrics > 0 ? (uint64_t)t->metrics : UINT64_MAX);
        write_ring(w, &t->ring);
        write_ring(w, &t->old_ring);
    }
    for (size_t i = 0; i < CS_MIN(g->programs.n, (size_t)CS_PROGRAMS); i++) {
        write_text(w, g->programs.at[i].name, sizeof g->programs.at[i].name);
        cs_writer_u64le(w, (uint64_t)g->programs.at[i].fd);
    }
}

void cs_generation_write(struct cs_buf *out, const struct cs_generation *g)
{
    size_t most = 4096 + g->n_listeners * LISTENER_MAX + g->n_gates * GATE_BYTES +
                  g->programs.n * PROGRAM_BYTES;
    uint8_t *room = cs_buf_room(out, most);
    if (room == NULL) {
        return;
    }
    struct cs_writer w = cs_writer(room, most);
    write_all(&w, g);
    out->bad |= w.overflow;
    out->len += cs_writer_done(&w).n;
}

/* A descriptor, or -1 where there may be none. */
static int read_fd(struct cs_reader *r, bool may_lack)
{
    uint64_t v = cs_reader_u64le(r);
    if (v == UINT64_MAX && may_lack) {
        return -1;
    }
    r->bad |= v < 3 || v > 1 << 24;
    return r->bad ? -1 : (int)v;
}

static void read_ring(struct cs_reader *r, struct cs_ring_fds *ret)
{
    ret->epoch = cs_reader_u64le(r);
    for (size_t i = 0; i < CS_ARRAY_LEN(ret->fd); i++) {
        ret->fd[i] = read_fd(r, ret->epoch == 0);
    }
}

static void read_text(struct cs_reader *r, char *out, size_t n)
{
    struct cs_slice s = cs_reader_slice(r);
    r->bad |= s.n == 0 || s.n >= n || cs_slice_find(s, 0) != s.n;
    if (!r->bad) {
        memcpy(out, s.p, s.n);
        out[s.n] = 0;
    }
}

static void read_gate(struct cs_reader *r, struct cs_generation_gate *t)
{
    t->index = cs_reader_u64le(r);
    t->pid = cs_reader_u64le(r);
    t->epoch = cs_reader_u64le(r);
    t->restarts = cs_reader_u64le(r);
    t->started_ns = cs_reader_u64le(r);
    t->draining = cs_reader_u64le(r);
    t->channel = (uint64_t)read_fd(r, false);
    t->metrics = read_fd(r, true);
    read_ring(r, &t->ring);
    read_ring(r, &t->old_ring);
    r->bad |= t->index >= CS_GATES_MAX || t->pid < 2 || t->pid > INT32_MAX || t->epoch == 0 ||
              t->draining > 1 || t->ring.epoch == 0;
}

bool cs_generation_read(struct cs_slice in, struct cs_generation *ret)
{
    struct cs_reader r = cs_reader(in);
    memset(ret, 0, sizeof *ret); /* too large for a temporary on a stack */
    ret->program = ret->configuration = -1;
    if (!cs_slice_eq(cs_reader_take(&r, sizeof magic), cs_slice(magic, sizeof magic)) ||
        !cs_slice_eq_str(cs_reader_slice(&r), cs_generation_hash)) {
        return false;
    }
    ret->self = cs_reader_slice(&r);
    ret->started_ms = cs_reader_u64le(&r);
    ret->number = cs_reader_u64le(&r);
    ret->rollback = cs_reader_u64le(&r);
    ret->version = cs_reader_u64le(&r);
    ret->program = read_fd(&r, true);
    ret->configuration = read_fd(&r, false);
    uint64_t listeners = cs_reader_u64le(&r), gates = cs_reader_u64le(&r);
    uint64_t programs = cs_reader_u64le(&r);
    if (r.bad || ret->self.n >= CS_PATH || ret->rollback > 1 || listeners > CS_SNAPSHOT_LISTENERS ||
        gates > CS_GATES_MAX || programs > CS_PROGRAMS) {
        return false;
    }
    for (; ret->n_listeners < listeners; ret->n_listeners++) {
        struct cs_open_listener *l = &ret->listeners[ret->n_listeners];
        read_text(&r, l->name, sizeof l->name);
        read_text(&r, l->kind, sizeof l->kind);
        read_text(&r, l->address, sizeof l->address);
        l->fd = read_fd(&r, false);
    }
    for (; ret->n_gates < gates; ret->n_gates++) {
        read_gate(&r, &ret->gates[ret->n_gates]);
    }
    for (; ret->programs.n < programs; ret->programs.n++) {
        size_t i = ret->programs.n;
        read_text(&r, ret->programs.at[i].name, sizeof ret->programs.at[i].name);
        ret->programs.at[i].fd = read_fd(&r, false);
    }
    return cs_reader_done(&r);
}
