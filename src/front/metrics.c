/* What the metrics listener tells: the numbers of all processes in Prometheus's text format 0.0.4,
 * and whether the gateway is well. Called by conn.c. The pages come from the supervisor and are
 * read-only here.
 *
 * SECURITY: a page is what its process wrote, at any moment anything. Every value is printed as a
 * number, names and labels come from ipc/metrics.def alone, and which metrics a process has is
 * known by its role: a gate that was taken over cannot speak for the recorder. */
#include "front/metrics.h"

#include "base/time.h"
#include "ipc/metrics.h"

#include <stdio.h>

enum { TEXT_MAX = 8 * 1024 * 1024, LABELS_MAX = 160, PROCESSES = 160 };
#define STALE_MS 15000 /* supervisor and control come round far more often */

struct process {
    enum cs_role role;
    uint64_t index;
    const uint64_t *own, *about; /* mapped; own: NULL when it is of another program's table */
};

struct cs_front_metrics {
    struct process list[PROCESSES];
    size_t n;
};

struct cs_front_metrics *cs_front_metrics_new(void)
{
    return cs_alloc(sizeof(struct cs_front_metrics));
}

static void drop(struct cs_front_metrics *m, size_t i)
{
    cs_metrics_unmap(m->list[i].own);
    cs_metrics_unmap(m->list[i].about);
    m->list[i] = m->list[--m->n];
}

void cs_front_metrics_free(struct cs_front_metrics *m)
{
    while (m != NULL && m->n > 0) {
        drop(m, m->n - 1);
    }
    cs_free(m);
}

/* Those that are no part of the gateway any more: a gate that has drained. */
static void forget_gone(struct cs_front_metrics *m)
{
    for (size_t i = m->n; i > 0; i--) {
        if (cs_metric_read(m->list[i - 1].about, CS_SLOT_LISTED) == 0) {
            drop(m, i - 1);
        }
    }
}

static bool before(const struct process *a, const struct process *b)
{
    return a->role != b->role ? a->role < b->role : a->index < b->index;
}

enum cs_err cs_front_metrics_add(struct cs_front_metrics *m, uint64_t role, uint64_t index, int own,
                                 int about)
{
    struct process p = {.role = (enum cs_role)role, .index = index};
    if (role == CS_ROLE_ANY || role >= CS_ROLE_MAX) {
        return CS_ERR_INVALID;
    }
    enum cs_err err = cs_metrics_map_readonly(about, &p.about);
    if (err == CS_OK) {
        err = cs_metrics_map_readonly(own, &p.own);
        /* A gate of the generation before may count by another table: its own numbers are not
         * told. */
        err = err == CS_ERR_UNSUPPORTED ? CS_OK : err;
    }
    forget_gone(m);
    for (size_t i = m->n; i > 0; i--) {
        if (m->list[i - 1].role == p.role && m->list[i - 1].index == p.index) {
            drop(m, i - 1);
        }
    }
    if (err == CS_OK && m->n == PROCESSES) {
        err = CS_ERR_LIMIT;
    }
    if (err != CS_OK) {
        cs_metrics_unmap(p.own);
        cs_metrics_unmap(p.about);
        return err;
    }
    size_t at = m->n++;
    while (at > 0 && before(&p, &m->list[at - 1])) { /* in order, for people who read it */
        m->list[at] = m->list[at - 1];
        at--;
    }
    m->list[at] = p;
    return CS_OK;
}

/* ---- the text ---- */

static const char *name_of(const struct process *p, char out[static 32])
{
    (void)snprintf(out, 32, p->role == CS_ROLE_GATE ? "%s/%llu" : "%s", cs_role_name(p->role),
                   (unsigned long long)p->index);
    return out;
}

/* The nth of "a|b|c". */
static struct cs_slice value_of(const struct cs_metric_dim *d, size_t n)
{
    struct cs_slice left = cs_slice_str(d->values);
    if (left.n == 0) {
        return cs_slice_str(cs_event_name((enum cs_event_id)n));
    }
    while (n-- > 0) {
        left = cs_slice_from(left, CS_MIN(cs_slice_find(left, '|') + 1, left.n));
    }
    return cs_slice_head(left, cs_slice_find(left, '|'));
}

static void seconds(struct cs_buf *out, uint64_t ns)
{
    cs_buf_printf(out, "%llu.%09llu", (unsigned long long)(ns / CS_NS_PER_S),
                  (unsigned long long)(ns % CS_NS_PER_S));
}

static uint64_t sum_of(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum; /* cumulative, whatever it says */
}

static void histogram(struct cs_buf *out, const struct cs_metric_row *row, const char *labels,
                      const uint64_t *page, size_t slot)
{
    bool fast = row->kind == CS_METRIC_FAST;
    const uint64_t *bounds = fast ? cs_fast_bounds : cs_slow_bounds;
    size_t n = fast ? CS_FAST_BOUNDS : CS_SLOW_BOUNDS;
    uint64_t total = 0;
    for (size_t i = 0; i <= n; i++) {
        total = sum_of(total, cs_metric_read(page, slot + i));
        cs_buf_printf(out, "countersign_%s_bucket{%s,le=\"", row->name, labels);
        if (i < n) {
            seconds(out, bounds[i]);
        } else {
            cs_buf_str(out, "+Inf");
        }
        cs_buf_printf(out, "\"} %llu\n", (unsigned long long)total);
    }
    cs_buf_printf(out, "countersign_%s_sum{%s} ", row->name, labels);
    seconds(out, cs_metric_read(page, slot + n + 1));
    cs_buf_printf(out, "\ncountersign_%s_count{%s} %llu\n", row->name, labels,
                  (unsigned long long)total);
}

static void sample(struct cs_buf *out, const struct cs_metric_row *row, const char *labels,
                   const uint64_t *page, size_t slot)
{
    uint64_t v = cs_metric_read(page, slot);
    if (row->kind == CS_METRIC_FAST || row->kind == CS_METRIC_SLOW) {
        histogram(out, row, labels, page, slot);
        return;
    }
    if (row->kind == CS_METRIC_TIME && v == 0) {
        return; /* there is no such time */
    }
    cs_buf_printf(out, "countersign_%s{%s} ", row->name, labels);
    if (row->kind == CS_METRIC_SECONDS) {
        seconds(out, v);
    } else if (row->kind == CS_METRIC_TIME) {
        cs_buf_printf(out, "%llu.%03llu", (unsigned long long)(v / 1000),
                      (unsigned long long)(v % 1000));
    } else {
        cs_buf_printf(out, "%llu", (unsigned long long)v);
    }
    cs_buf_u8(out, '\n');
}

static size_t width_of(enum cs_metric_kind kind)
{
    return kind == CS_METRIC_FAST   ? (size_t)CS_WIDTH_FAST
           : kind == CS_METRIC_SLOW ? (size_t)CS_WIDTH_SLOW
                                    : 1;
}

static void process_samples(struct cs_buf *out, const struct cs_metric_row *row,
                            const struct process *p, const uint64_t *page)
{
    char name[32], labels[LABELS_MAX];
    const struct cs_metric_dim *a = row->dim[0], *b = row->dim[1];
    size_t slot = row->slot;
    for (size_t i = 0; i < a->n; i++) {
        for (size_t k = 0; k < b->n; k++, slot += width_of(row->kind)) {
            struct cs_slice x = value_of(a, i), y = value_of(b, k);
            int n = snprintf(labels, sizeof labels, "process=\"%s\"", name_of(p, name));
            if (a->label[0] != 0) {
                n += snprintf(labels + n, sizeof labels - (size_t)n, ",%s=\"%.*s\"", a->label,
                              CS_SLICE_FMT(x));
            }
            if (b->label[0] != 0) {
                (void)snprintf(labels + n, sizeof labels - (size_t)n, ",%s=\"%.*s\"", b->label,
                               CS_SLICE_FMT(y));
            }
            sample(out, row, labels, page, slot);
        }
    }
}

/* The page that this process's numbers of the row stand in; NULL: it has none. */
static const uint64_t *page_of(const struct process *p, const struct cs_metric_row *row,
                               uint64_t layout)
{
    if (row->who == CS_METRIC_ABOUT) {
        return p->about;
    }
    bool counts = (row->who & (1U << p->role)) != 0;
    return counts && p->own != NULL && cs_metric_read(p->own, CS_SLOT_LAYOUT) == layout ? p->own
                                                                                        : NULL;
}

static const char *type_of(enum cs_metric_kind kind)
{
    static const char *const types[] = {
        [CS_METRIC_COUNTER] = "counter", [CS_METRIC_GAUGE] = "gauge",
        [CS_METRIC_SECONDS] = "counter", [CS_METRIC_TIME] = "gauge",
        [CS_METRIC_FAST] = "histogram",  [CS_METRIC_SLOW] = "histogram"};
    return types[kind];
}

/* Gates' numbers that are about gates alone stand in their row for gates only. */
static bool is_told(const struct cs_metric_row *row, const struct process *p)
{
    bool ring = row->slot == CS_SLOT_RING_LAG || row->slot == CS_SLOT_RECORD_STOPPED;
    return !ring || p->role == CS_ROLE_GATE;
}

struct cs_buf cs_front_metrics_text(struct cs_front_metrics *m)
{
    struct cs_buf out = cs_buf(TEXT_MAX);
    uint64_t layout = cs_metric_layout();
    forget_gone(m);
    for (size_t i = 0; i < cs_metric_row_count; i++) {
        const struct cs_metric_row *row = &cs_metric_rows[i];
        if (row->who == CS_METRIC_NOBODY) {
            continue;
        }
        cs_buf_printf(&out, "# HELP countersign_%s %s\n# TYPE countersign_%s %s\n", row->name,
                      row->help, row->name, type_of(row->kind));
        for (size_t k = 0; k < m->n; k++) {
            const uint64_t *page = page_of(&m->list[k], row, layout);
            if (page != NULL && is_told(row, &m->list[k])) {
                process_samples(&out, row, &m->list[k], page);
            }
        }
    }
    return out;
}

/* ---- is it well? ---- */

static const struct process *find(const struct cs_front_metrics *m, enum cs_role role)
{
    for (size_t i = 0; i < m->n; i++) {
        if (m->list[i].role == role) {
            return &m->list[i];
        }
    }
    return NULL;
}

static bool is_stale(const struct process *p, size_t slot)
{
    uint64_t now = cs_wall_ms(), seen = p != NULL ? cs_metric_read(p->own, slot) : 0;
    return p == NULL || now - CS_MIN(seen, now) > STALE_MS;
}

bool cs_front_is_alive(const struct cs_front_metrics *m)
{
    const struct process *p = find(m, CS_ROLE_SUPERVISOR);
    return p != NULL && p->own != NULL && !is_stale(p, CS_SLOT_SEEN);
}

static void say(struct cs_buf *out, const char *who, const char *what)
{
    cs_buf_printf(out, "%s: %s\n", who, what);
}

/* What a process says of itself. */
static void role_reasons(const struct process *p, struct cs_buf *out)
{
    if (p->own == NULL) {
        return;
    }
    if (p->role == CS_ROLE_CONTROL && is_stale(p, CS_SLOT_CONTROL_SEEN)) {
        say(out, "control", "does not go round its work");
    }
    if (p->role == CS_ROLE_CONTROL && cs_metric_read(p->own, CS_SLOT_STORE_WRITABLE) == 0) {
        say(out, "store", "takes no changes: is its disk full?");
    }
    if (p->role == CS_ROLE_RECORDER && cs_metric_read(p->own, CS_SLOT_RECORDING) == 0) {
        say(out, "recorder", "cannot write: is the disk full, or is there no recording key?");
    }
    if (p->role == CS_ROLE_KEEPER && cs_metric_read(p->own, CS_SLOT_MASTER_KEYS) == 0) {
        say(out, "keeper", "has no master key");
    }
}

bool cs_front_is_ready(struct cs_front_metrics *m, struct cs_buf *out)
{
    static const enum cs_role needed[] = {CS_ROLE_GATE,    CS_ROLE_CONTROL, CS_ROLE_KEEPER,
                                          CS_ROLE_DIALER,  CS_ROLE_PROBE,   CS_ROLE_FRONT,
                                          CS_ROLE_RECORDER};
    char name[32];
    forget_gone(m);
    if (!cs_front_is_alive(m)) {
        say(out, "supervisor", "does not look at its processes");
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(needed); i++) {
        if (find(m, needed[i]) == NULL) {
            say(out, cs_role_name(needed[i]), "is not there");
        }
    }
    for (size_t i = 0; i < m->n; i++) {
        const struct process *p = &m->list[i];
        if (cs_metric_read(p->about, CS_SLOT_DRAINING) != 0) {
            continue; /* of the generation before: it only ends its sessions */
        }
        if (cs_metric_read(p->about, CS_SLOT_UP) == 0) {
            say(out, name_of(p, name), "is not running, or not ready yet");
        } else {
            role_reasons(p, out);
        }
        if (cs_metric_read(p->about, CS_SLOT_RECORD_STOPPED) != 0) {
            say(out, name_of(p, name), "cannot record, so nothing runs");
        }
    }
    return out->len == 0 && !out->bad;
}
