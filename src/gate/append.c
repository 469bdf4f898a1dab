/* Frames of this gate's sessions into the ring to the recorder. A full ring makes the session wait
 * (and so stops reading its client); a recorder that has stopped refuses. */
#include "action/frame.h"
#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "gate/gate.h"
#include "gate/protocol.h"
#include "ipc/metrics.h"
#include "sql/sql.h"

#include <stdarg.h>
#include <stdio.h>

/* How long an action waits for the disk before it is refused. */
#define DURABLE_WAIT_NS (30 * CS_NS_PER_S)
#define LATE_PAUSE_NS   (CS_NS_PER_S / 2)
/* What is copied once, into the ring, and not into the scratch buffer before. */
#define APART_BYTES 4096

/* Bytes that a frame may carry of a client's or a target's. */
static size_t carried(enum cs_frame_kind kind, const void *frame)
{
    if (kind == CS_FRAME_ACTION) {
        const struct cs_frame_action *a = frame;
        return CS_MAX(a->text.n, a->params.n);
    }
    return kind == CS_FRAME_DATA ? ((const struct cs_frame_data *)frame)->data.n : 0;
}

static enum cs_err try_append(struct cs_gate *g, const struct cs_frame_head *head,
                              const void *frame, size_t *ret_n, uint64_t *ret_seq)
{
    struct cs_writer w = cs_writer(g->scratch, CS_LIMIT_RECORD_FRAME_BYTES);
    struct cs_slice apart = CS_SLICE_NULL;
    size_t at = 0;
    if (carried(head->kind, frame) >= APART_BYTES) {
        cs_frame_encode_apart(&w, head, frame, &apart, &at);
    } else {
        cs_frame_encode(&w, head, frame);
    }
    if (w.overflow || apart.n > CS_LIMIT_RECORD_FRAME_BYTES) {
        return CS_ERR_TOO_LARGE;
    }
    struct cs_slice all = cs_writer_done(&w);
    struct cs_slice pieces[3] = {cs_slice_from(all, at), CS_SLICE_NULL, CS_SLICE_NULL};
    size_t n = 1;
    if (apart.n > 0) {
        pieces[0] = cs_slice_head(all, at);
        pieces[1] = apart;
        pieces[2] = cs_slice_from(all, at);
        n = 3;
    }
    *ret_n = all.n + apart.n;
    return cs_ring_append(&g->ring, pieces, n, ret_seq);
}

static enum cs_err append(struct cs_gate *g, const struct cs_frame_head *head, const void *frame,
                          bool durable)
{
    uint64_t deadline = 0, seq = 0;
    bool large = carried(head->kind, frame) >= CS_LIMIT_PIECE_BYTES;
    if (large) {
        /* It is copied at once, for the ring has one writer: what was done for it is another turn's
         * work, and so is what follows. Whoever appends may wait for room as well. */
        (void)cs_co_breathe();
    }
    for (;;) {
        size_t n = 0;
        enum cs_err e = try_append(g, head, frame, &n, &seq);
        if (e == CS_OK) {
            break;
        }
        if (e != CS_ERR_LIMIT) {
            return e;
        }
        if (deadline == 0) {
            deadline = cs_mono_ns() + DURABLE_WAIT_NS;
        }
        e = cs_ring_wait_room(&g->ring, n, deadline);
        if (e != CS_OK) {
            return e;
        }
    }
    if (large) {
        (void)cs_co_breathe();
    }
    if (!durable) {
        return CS_OK;
    }
    uint64_t began_ns = cs_mono_ns();
    enum cs_err e = cs_ring_wait_durable(&g->ring, seq, began_ns + DURABLE_WAIT_NS);
    cs_metric_fast(CS_SLOT_DURABLE_TIME, cs_mono_ns() - began_ns);
    return e;
}

enum cs_err cs_gate_append(struct cs_session *s, unsigned kind, const void *frame, bool durable)
{
    struct cs_frame_head head = {(enum cs_frame_kind)kind, cs_wall_ms(), s->id};
    return append(s->gate, &head, frame, durable);
}

struct cs_slice cs_gate_redact(struct cs_session *s, const struct cs_sql_class *class,
                               struct cs_slice text, struct cs_buf *mem, bool *ret_unkeyed)
{
    const struct cs_gate *g = s->gate;
    *ret_unkeyed = false;
    if (class->n_secrets == 0) {
        return text;
    }
    mem->len = 0;
    mem->max = CS_LIMIT_PG_QUERY_BYTES + CS_REDACT_SPANS * 128;
    if (g->has_redact_key) {
        cs_redact(text, class->secrets, class->n_secrets, g->redact_key, mem);
    }
    if (g->has_redact_key && !mem->bad) {
        return cs_buf_slice(mem);
    }
    *ret_unkeyed = true;
    return CS_SLICE_LIT("<redacted>");
}

void cs_gate_redact_value(struct cs_session *s, const struct cs_redact_span *spans, size_t n,
                          struct cs_slice value, struct cs_buf *mem, bool *ret_unkeyed)
{
    const struct cs_gate *g = s->gate;
    *ret_unkeyed = !g->has_redact_key;
    if (g->has_redact_key) {
        cs_redact(value, spans, n, g->redact_key, mem);
    } else {
        cs_buf_str(mem, "<redacted>");
    }
}

/* ---- ends that could not be recorded when they came ---- */

struct cs_late_end {
    struct cs_late_end *next;
    struct cs_frame_head head; /* with the time at which it ended */
    struct cs_frame_session_close frame;
    char why[120];
};

/* Looks from time to time whether the recorder can write again: nobody waits for this. */
static void late_run(void *arg)
{
    struct cs_gate *g = arg;
    bool go_on = true;
    while (g->late != NULL) {
        struct cs_late_end *l = g->late;
        enum cs_err e = go_on ? append(g, &l->head, &l->frame, false) : CS_ERR_CANCELLED;
        if (e == CS_ERR_NO_SPACE) {
            go_on = cs_co_sleep(LATE_PAUSE_NS);
            continue;
        }
        go_on = go_on && e != CS_ERR_CANCELLED;
        if (e != CS_OK) {
            cs_log(CS_EV_RECORD_FAILED, &l->head.session, "frame=session-close");
        }
        g->late = l->next;
        cs_free(l);
    }
    g->late_end = NULL;
}

void cs_gate_append_end(struct cs_session *s, const struct cs_frame_session_close *f)
{
    struct cs_gate *g = s->gate;
    struct cs_frame_head head = {CS_FRAME_SESSION_CLOSE, cs_wall_ms(), s->id};
    cs_handle co;
    enum cs_err e = g->late == NULL ? append(g, &head, f, false) : CS_ERR_NO_SPACE;
    if (e == CS_OK) {
        return;
    }
    struct cs_late_end *l = e == CS_ERR_NO_SPACE ? cs_alloc(sizeof *l) : NULL;
    if (l != NULL) {
        l->head = head;
        l->frame = *f;
        (void)snprintf(l->why, sizeof l->why, "%.*s", CS_SLICE_FMT(f->why));
        l->frame.why = cs_slice_str(l->why);
        if (g->late != NULL) {
            g->late_end->next = l;
            g->late_end = l;
            return;
        }
        g->late = g->late_end = l;
        if (cs_co_spawn(g->loop, "late-ends", late_run, g, &co) == CS_OK) {
            return;
        }
        g->late = g->late_end = NULL;
        cs_free(l);
    }
    cs_log(CS_EV_RECORD_FAILED, &s->id, "frame=session-close");
}

enum cs_err cs_gate_result(struct cs_session *s, uint64_t n, const struct cs_result *r)
{
    cs_metric_add(CS_SLOT_RESULTS + (r->ok ? 0 : 1), 1);
    struct cs_frame_result f = {.n = n,
                                .ok = r->ok ? 1 : 0,
                                .tag = r->tag,
                                .rows = r->rows,
                                .bytes = r->bytes,
                                .sqlstate = r->sqlstate,
                                .message = r->message};
    if (r->data.n == 0) {
        return cs_gate_append(s, CS_FRAME_RESULT, &f, r->strict);
    }
    struct cs_frame_answer a = {.n = f.n,
                                .ok = f.ok,
                                .tag = f.tag,
                                .rows = f.rows,
                                .bytes = f.bytes,
                                .sqlstate = f.sqlstate,
                                .message = f.message,
                                .data = r->data};
    return cs_gate_append(s, CS_FRAME_ANSWER, &a, r->strict);
}

void cs_gate_note(struct cs_session *s, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct cs_frame_note f = {.text = cs_slice_str(text)};
    if (s->recorded && cs_gate_append(s, CS_FRAME_NOTE, &f, false) != CS_OK) {
        cs_log(CS_EV_RECORD_FAILED, &s->id, "frame=note");
    }
}
