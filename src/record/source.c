/* The rings that the recorder reads: taking them over, waiting for their kicks with one small
 * coroutine each, telling their gates whether anything can be recorded, cutting off a gate that
 * lies. Called by recorder.c (a ring came) and pump.c (a ring is done). It must never believe an
 * index or a length that a gate wrote, nor read a ring on after its gate was caught. */
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "ipc/metrics.h"
#include "record/recorder_internal.h"

#include <unistd.h>

void cs_recorder_health_all(struct cs_recorder *rec, enum cs_record_health h)
{
    cs_metric_set(CS_SLOT_RECORDING, h == CS_RECORD_HEALTHY ? 1 : 0);
    for (struct cs_source *s = rec->sources; s != NULL; s = s->next) {
        cs_ring_set_health(&s->ring, h);
    }
}

enum cs_record_health cs_recorder_health(const struct cs_recorder *rec)
{
    /* The key comes moments after the start, by way of keeper and control. Until then nothing is
     * taken, so nothing is called durable; who waits for that waits a little longer. */
    bool key = rec->to.n > 0 || cs_mono_ns() - rec->opened_ns < CS_RECORDER_KEY_NS;
    bool log = !rec->unsigned_long && !rec->log_refused;
    bool well = rec->open && !rec->no_space && !rec->failed && key && log;
    return well ? CS_RECORD_HEALTHY : CS_RECORD_STOPPED;
}

void cs_source_close(struct cs_source *s)
{
    struct cs_source **at = &s->rec->sources;
    while (*at != s) {
        cs_assert(*at != NULL);
        at = &(*at)->next;
    }
    *at = s->next;
    s->rec->n_sources--;
    s->closed = true;
    cs_ring_close(&s->ring); /* wakes its coroutine, which frees it */
}

/* Waits for kicks; the pump does the reading. */
static void source_co(void *arg)
{
    struct cs_source *s = arg;
    uint64_t count;
    while (!s->closed) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &s->ring.kick);
        if (cs_wait(&w, 1, CS_FOREVER) == CS_WOKE_CANCELLED) {
            break;
        }
        if (!s->closed) {
            s->ring.kick.readable = false;
            if (read(s->ring.kick.fd, &count, sizeof count) < 0) {
                continue; /* kicked by nobody: only ever means "look" */
            }
            cs_event_set(&s->rec->work);
        }
    }
    if (!s->closed) {
        cs_source_close(s);
    }
    cs_free(s);
}

/* SECURITY: a gate that lies about its ring is cut off from the record; STOPPED makes its own
 * refusal the only thing it can still do honestly. */
void cs_source_drop(struct cs_source *s, const char *why)
{
    cs_log(CS_EV_IPC_BROKEN, NULL, "gate=%llu why=\"%s\" after=%llu", (unsigned long long)s->gate,
           why, (unsigned long long)s->ring.seq);
    cs_ring_set_health(&s->ring, CS_RECORD_STOPPED);
    /* A recorder after us may be handed the same ring: what was taken must not be taken twice. */
    struct cs_recorder *rec = s->rec;
    if (rec->n_dropped == CS_RECORDER_RINGS) {
        rec->n_dropped--; /* the supervisor kills and restarts none so fast */
    }
    rec->dropped[rec->n_dropped++] = (struct cs_gone){s->epoch, s->ring.seq, false};
    if (rec->unsynced_since == 0) {
        rec->unsynced_since = cs_mono_ns();
    }
    cs_source_close(s);
}

void cs_source_add(struct cs_recorder *rec, const struct cs_msg_ring *m, const int fds[static 3])
{
    struct cs_source *s = rec->n_sources < CS_RECORDER_RINGS ? cs_alloc(sizeof *s) : NULL;
    cs_handle co;
    if (s == NULL) {
        for (int i = 0; i < 3; i++) {
            (void)close(fds[i]);
        }
        cs_log(CS_EV_INTERNAL, NULL, "gate=%llu why=\"no room for its ring\"",
               (unsigned long long)m->gate);
        return;
    }
    *s = (struct cs_source){.gate = m->gate, .epoch = m->epoch, .rec = rec};
    enum cs_err err = cs_ring_open(rec->loop, fds, false, &s->ring);
    if (err == CS_OK) {
        err = cs_co_spawn(rec->loop, "ring", source_co, s, &co);
        if (err != CS_OK) {
            cs_ring_close(&s->ring);
        }
    }
    if (err != CS_OK) {
        cs_log(CS_EV_IPC_BROKEN, NULL, "gate=%llu why=\"its ring does not open\" error=%s",
               (unsigned long long)m->gate, cs_err_name(err));
        cs_free(s);
        return;
    }
    for (struct cs_source *old = rec->sources; old != NULL; old = old->next) {
        old->retiring |= old->gate == s->gate;
    }
    s->marked = s->ring.seq;
    s->handed = s->ring.tail;
    s->skip_to = rec->open ? cs_seen_high(&rec->journal.seen, s->epoch) : 0;
    s->next = rec->sources;
    rec->sources = s;
    rec->n_sources++;
    /* While the journal opens, the ring keeps what it was told last: gates go on filling it. */
    if (rec->open || rec->no_space) {
        cs_ring_set_health(&s->ring, cs_recorder_health(rec));
    }
}
